"""C3D files: markers of the usual set become joints, labelled points are matched by name, gaps are filled."""

import sys

import c3d
import numpy as np
import pytest
from rigs import BODY, body_positions

import geomotiongpt as gm
from geomotiongpt.data.c3d_files import read_c3d
from geomotiongpt.data.joint_matching import SKELETON

FRAMES = 40


def write_c3d(path, labels, positions, unit="mm", rate=60.0, lost=()):
    """Positions (frames, points, 3), of which (point, first frame, end frame) are lost."""
    writer = c3d.Writer(point_rate=rate, point_units=unit, point_scale=-1.0)
    writer.set_point_labels([label.ljust(10) for label in labels])
    points = np.zeros((len(positions), len(labels), 5), np.float32)
    points[:, :, :3] = positions
    for point, first, end in lost:
        points[first:end, point] = [0, 0, 0, -1, -1]
    for frame in points:
        writer.add_frames([(frame, np.zeros((0, 0)))])
    with open(path, "wb") as file:
        writer.write(file)
    return path


def markers(joints):
    """Plug-in Gait markers (frames, markers, 3) of a body in centimetres that faces +z, and their labels."""
    place = dict(zip(SKELETON.joint_names, np.moveaxis(joints, 1, 0), strict=True))
    width = 24.0
    middle = (place["left_hip"] + place["right_hip"]) / 2 + [0, 0.3 * width, 0.19 * width]
    put = {"SACR": middle - [0, 0, 14], "C7": place["neck"] - [0, 0, 5], "CLAV": place["neck"] + [0, -4, 8]}
    put |= {"T10": place["spine3"] - [0, 0, 10], "STRN": place["spine3"] + [0, 0, 12]}
    for letter, side, sign in (("L", "left", 1), ("R", "right", -1)):
        out = np.array([sign, 0, 0])
        put[f"{letter}ASI"] = middle + out * width / 2
        put[f"{letter}KNE"] = place[f"{side}_knee"] + 5 * out
        put[f"{letter}ANK"] = place[f"{side}_ankle"] + 3.6 * out
        put[f"{letter}TOE"] = place[f"{side}_foot"] + [0, 1, 0]
        put[f"{letter}SHO"] = place[f"{side}_shoulder"] + [0, 4.8, 0]
        put[f"{letter}ELB"] = place[f"{side}_elbow"]
        put[f"{letter}WRA"] = place[f"{side}_wrist"] + [0, 0, 2]
        put[f"{letter}WRB"] = place[f"{side}_wrist"] - [0, 0, 2]
        put[f"{letter}FHD"] = place["head"] + [6 * sign, 9, 8]
        put[f"{letter}BHD"] = place["head"] + [6 * sign, 9, -8]
    return list(put), np.stack([*put.values()], axis=1)


def test_markers_become_joints(tmp_path):
    joints = body_positions(FRAMES)
    labels, positions = markers(joints)
    file = write_c3d(tmp_path / "a.c3d", [f"Anna:{label}" for label in labels], positions * 10)
    imported = gm.import_motion(file)
    expected = gm.resample_joints(joints / 100, 60, 20)
    difference = np.abs(imported.joints - expected).max((0, 2))
    exact = [SKELETON.joint_names.index(f"{side}_{part}") for side in ("left", "right") for part in ("hip", "wrist")]
    assert difference[exact].max() < 5e-3 and difference.max() < 0.06
    report = imported.report
    assert report.fps == (60, "the file") and report.unit[0] == 0.001 and "the file's unit, mm" in report.unit[1]
    assert report.sides.startswith("left is left") and not report.warnings
    assert any("Plug-in Gait" in note for note in report.notes)


def test_points_that_are_joints_are_matched_by_name_whatever_is_up(tmp_path):
    joints = body_positions(FRAMES)
    labels = ["LHJC", "RHJC", "LKJC", "RKJC", "LAJC", "RAJC", "LSJC", "RSJC", "LEJC", "REJC", "LWJC", "RWJC", "HEAD"]
    parts = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
    names = [f"{side}_{part}" for part in parts for side in ("left", "right")] + ["head"]
    kept = joints[:, [SKELETON.joint_names.index(name) for name in names]]
    z_up = np.stack([kept[..., 0], -kept[..., 2], kept[..., 1]], axis=-1)
    imported = gm.import_motion(write_c3d(tmp_path / "a.c3d", labels, z_up, unit="cm"))
    assert imported.report.up[0] == "z" and imported.report.unit[0] == 0.01
    expected = gm.resample_joints(joints / 100, 60, 20)
    index = [SKELETON.joint_names.index(name) for name in names]
    assert imported.joints[:, index] == pytest.approx(expected[:, index], abs=1e-5)
    assert np.abs(imported.joints - expected).max() < 0.15
    assert imported.joints[0, 0, 1] == pytest.approx(BODY["hips"][1] / 100, abs=0.03)


def test_gaps_are_filled_on_a_line_and_told(tmp_path):
    labels, positions = markers(body_positions(FRAMES))
    knee = labels.index("LKNE")
    file = write_c3d(tmp_path / "a.c3d", labels, positions, unit="cm", lost=[(knee, 10, 14), (knee, 0, 2)])
    source = read_c3d(file)
    assert "markers were lost for up to 4 frames; gaps are straight lines" in source.notes
    found = source.positions[:, source.names.index("left_knee")]
    whole = read_c3d(write_c3d(tmp_path / "b.c3d", labels, positions, unit="cm"))
    expected = whole.positions[:, whole.names.index("left_knee")]
    steps = (expected[14] - expected[9]) / 5
    assert found[9:15] == pytest.approx(expected[9] + np.arange(6)[:, None] * steps, abs=0.01)
    assert found[20:] == pytest.approx(expected[20:])


def test_damaged_files_are_told_and_declared_sizes_believed_only_up_to_the_file(tmp_path):
    labels, positions = markers(body_positions(FRAMES))
    content = write_c3d(tmp_path / "a.c3d", labels, positions).read_bytes()
    file = tmp_path / "b.c3d"
    # bytes 2-3: points; 6-9: first and last frame
    damages = [b"", b"x" * 3000, content[:300], content[: len(content) // 2], content[:2] + b"\xff\xff" + content[4:]]
    damages += [content[:6] + b"\x01\x00\xff\xff" + content[10:]]
    for damage in damages:
        file.write_bytes(damage)
        with pytest.raises(ValueError, match=r"b\.c3d (is not a readable C3D file|is cut)"):
            read_c3d(file)


def test_the_missing_library_is_named_with_its_extra(tmp_path, monkeypatch):
    labels, positions = markers(body_positions(2))
    file = write_c3d(tmp_path / "a.c3d", labels, positions)
    monkeypatch.setitem(sys.modules, "c3d", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'geomotiongpt\[mocap\]'"):
        gm.import_motion(file)
