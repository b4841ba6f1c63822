"""Rigs in every usual naming style are matched, with the sides right, and what a rig lacks lies where it should."""

import numpy as np
import pytest
from rigs import BODY, FAMILIES, PLACES, body_positions, make_rig

from geomotiongpt import Bvh, import_motion, write_bvh
from geomotiongpt.data.import_motion import _read_bvh
from geomotiongpt.data.joint_matching import SKELETON, match_joints, place_joints


@pytest.fixture
def source_of(tmp_path):
    """A family's rig as it is read from a file."""

    def source_of(family: str, **options):
        return _read_bvh(write_bvh(make_rig(family, **options), tmp_path / f"{family}.bvh"))

    return source_of


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_matched_joint_by_joint(family, source_of):
    source = source_of(family)
    matches = {match.joint: match for match in match_joints(source)}
    assert tuple(matches) == SKELETON.joint_names
    joints = place_joints([*matches.values()], source.positions)
    expected = body_positions()
    for index, name in enumerate(SKELETON.joint_names):
        part = name.split("_")[-1]
        assert sum(matches[name].weights.values()) == pytest.approx(1), name
        if part in PLACES and not matches[name].reason.startswith("between"):  # as the neck of a rig without one
            assert len(matches[name].weights) == 1, (name, matches[name])
            assert np.abs(joints[:, index] - expected[:, index]).max() < 1e-3, (name, matches[name])
        else:  # spine, collars, toes: about there
            assert np.abs(joints[:, index] - expected[:, index]).max() < 7, (name, matches[name])


def test_only_of_rigs_without_a_neck_it_lies_in_between(source_of):
    for family in FAMILIES:
        between = [match.joint for match in match_joints(source_of(family)) if match.reason.startswith("between")]
        assert between == (["neck"] if family in ("plug_in_gait", "roblox") else []), family


@pytest.mark.parametrize("facing", [0.6, 2.5, -1.8])
@pytest.mark.parametrize("family", ["mixamo", "arkit", "plug_in_gait"])
def test_a_rig_may_face_anywhere_and_hang_from_roots_that_are_no_joints(family, facing, tmp_path):
    """A node on the floor above the hips, and a camera beside the figure."""
    bvh = make_rig(family)
    names = ("Armature", *bvh.names, "Camera")
    parents = (-1, *(parent + 1 for parent in bvh.parents), -1)
    moves = ("Xposition", "Yposition", "Zposition")
    channels = (("Yrotation",), *bvh.channels, moves)
    frames = bvh.num_frames
    turn, camera = np.full((frames, 1), np.degrees(facing)), np.full((frames, 3), 500.0)
    values = np.concatenate([turn, bvh.values, camera], axis=1)
    offsets = np.concatenate([np.zeros((1, 3)), bvh.offsets, np.zeros((1, 3))])
    ends = tuple(parent + 1 for parent in bvh.end_parents)
    whole = Bvh(names, parents, offsets, channels, bvh.frame_time, values, ends, bvh.end_offsets)
    report = import_motion(write_bvh(whole, tmp_path / "whole.bvh")).report
    plain = import_motion(write_bvh(bvh, tmp_path / "plain.bvh"))
    assert not report.warnings and report.sides.startswith("left is left")
    assert [match.source for match in report.matches] == [match.source for match in plain.report.matches]


@pytest.mark.parametrize("family", ["mixamo", "unreal", "biped"])
@pytest.mark.parametrize(("order", "end_sites", "moving"), [("XYZ", False, False), ("YXZ", True, True)])
def test_channels_and_end_sites_change_nothing(family, order, end_sites, moving, source_of):
    plain, other = source_of(family), source_of(family, order=order, end_sites=end_sites, moving_joints=moving)
    first, second = (place_joints(match_joints(each), each.positions) for each in (plain, other))
    assert np.abs(first - second).max() < 0.5


def test_toes_come_from_the_end_site_or_ahead_of_the_ankle(source_of):
    with_ends, without = source_of("biovision"), source_of("biovision", end_sites=False)
    match = match_joints(with_ends)[10]
    assert match.joint == "left_foot" and match.source == "65% end of LeftAnkle + 35% LeftAnkle"
    match = match_joints(without)[10]
    assert not match.weights and match.reason.startswith("estimated")
    joints = place_joints(match_joints(without), without.positions)
    ahead = joints[:, 10] - joints[:, 7]
    assert (ahead[:, 2] > 0).all() and ahead[0] == pytest.approx([0, -5.6, 11.5], abs=4)


def test_wrists_and_heads_without_joints_come_from_end_sites(tmp_path):
    bvh = make_rig("biovision", end_sites=False)
    kept = [i for i, name in enumerate(bvh.names) if name not in ("LeftWrist", "RightWrist", "Head")]
    tips = [bvh.names.index(name) for name in ("LeftElbow", "RightElbow", "Neck")]
    lost = [bvh.names.index(name) for name in ("LeftWrist", "RightWrist", "Head")]
    starts = np.cumsum([0, *map(len, bvh.channels)])
    columns = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in kept])
    shorter = type(bvh)(
        tuple(bvh.names[i] for i in kept),
        tuple(kept.index(bvh.parents[i]) if bvh.parents[i] >= 0 else -1 for i in kept),
        bvh.offsets[kept],
        tuple(bvh.channels[i] for i in kept),
        bvh.frame_time,
        bvh.values[:, columns],
        tuple(kept.index(i) for i in tips),
        bvh.offsets[lost],
    )
    source = _read_bvh(write_bvh(shorter, tmp_path / "short.bvh"))
    matches = match_joints(source)
    assert [matches[i].source for i in (15, 20, 21)] == ["end of Neck", "end of LeftElbow", "end of RightElbow"]
    assert np.abs(place_joints(matches, source.positions) - body_positions())[:, [15, 20, 21]].max() < 1e-3


def test_spine_joints_are_interpolated_along_the_chain(source_of):
    matches = {match.joint: match for match in match_joints(source_of("rokoko"))}
    assert matches["spine1"].source == "Spine" and "place: 23%" in matches["spine1"].reason
    assert matches["spine3"].reason == "interpolated: 60% of the way from pelvis to neck"
    source = source_of("rokoko")
    spine3 = place_joints([*matches.values()], source.positions)[0, 9]
    assert spine3 == pytest.approx([0, 126, -0.4], abs=1.5)


def test_collars_in_the_middle_of_the_body_are_moved_out(source_of):
    match = match_joints(source_of("cmu"))[13]
    assert "LeftShoulder lies in the middle" in match.reason
    left, right = place_joints(match_joints(source_of("cmu")), source_of("cmu").positions)[0, [13, 14]]
    assert left[0] == pytest.approx(0.37 * BODY["shoulder"][0], abs=0.5) and right[0] == pytest.approx(
        -left[0], abs=0.5
    )


def test_the_wrist_of_acclaim_is_not_the_one_in_the_forearm(tmp_path, source_of):
    table = FAMILIES["cmu"].replace(
        "{S}Hand {S}ForeArm wrist", "{S}Wrist {S}ForeArm elbow~wrist\n{S}Hand {S}Wrist wrist"
    )
    FAMILIES["acclaim"] = table
    try:
        assert [match_joints(source_of("acclaim"))[i].source for i in (20, 21)] == ["LeftHand", "RightHand"]
    finally:
        del FAMILIES["acclaim"]


def test_numbers_and_spaces_in_names_and_a_figure_beside_are_no_obstacle(tmp_path):
    text = (write_bvh(make_rig("biped"), tmp_path / "biped.bvh")).read_text()
    for name in ("Pelvis", "Spine1", "Spine", "Neck", "Head"):
        text = text.replace(f"Bip01_{name}", f"Bip01 {name}")
    for side in "LR":
        text = text.replace(f"Bip01_{side}_", f"Bip01 {side} ")
    path = tmp_path / "spaces.bvh"
    path.write_text(text)
    report = import_motion(path).report
    assert {match.joint: match.source for match in report.matches}["left_hip"] == "Bip01 L Thigh"
    assert not report.warnings


def test_a_rig_that_cannot_be_matched_is_told_with_what_is_missing(tmp_path):
    text = write_bvh(make_rig("rokoko"), tmp_path / "rig.bvh").read_text()
    path = tmp_path / "odd.bvh"
    path.write_text(text.replace("LeftShin", "Gnorb").replace("LeftThigh", "Fnord").replace("LeftFoot", "Zonk"))
    with pytest.raises(ValueError, match="no joint was recognised as left_hip, left_knee, left_ankle.*Fnord.*mapping"):
        import_motion(path)
