"""`export_motion`: the formats of arrays, what is refused, and files that are whole or not there."""

import builtins
import csv
import os

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

import geomotiongpt as gm
from geomotiongpt.visualization.armature import make_armature
from geomotiongpt.visualization.clip import read_clip
from geomotiongpt.visualization.export import SUFFIXES


@pytest.mark.parametrize("representation", ["humanml3d", "streaming272"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_features_come_back_from_npz_exactly(representation, dtype, synthetic_clips, tmp_path):
    features = gm.joints_to_features(synthetic_clips[0], representation).astype(dtype)
    path = gm.export_motion(features, tmp_path / "a.npz", representation=representation, caption="läuft")
    with np.load(path, allow_pickle=False) as archive:
        assert archive["features"].dtype == dtype and np.array_equal(archive["features"], features)
        assert archive["joints"].dtype == dtype
        assert np.allclose(archive["joints"], gm.features_to_joints(features, representation), atol=1e-5)
        assert (str(archive["representation"]), float(archive["fps"])) == (
            representation,
            gm.get_motion_representation(representation).fps,
        )
        assert str(archive["caption"]) == "läuft"


def test_joints_come_back_from_npz_exactly(synthetic_clips, tmp_path):
    joints = synthetic_clips[0].astype(np.float32)
    with np.load(gm.export_motion(joints, tmp_path / "a.npz", fps=30), allow_pickle=False) as archive:
        assert archive["joints"].dtype == np.float32 and np.array_equal(archive["joints"], joints)
        assert "features" not in archive and "caption" not in archive and archive["fps"] == 30


def test_npz_has_the_keys_of_amass_and_its_axes(synthetic_clips, tmp_path):
    joints = synthetic_clips[2]
    path = gm.export_motion(joints, tmp_path / "a.npz")
    with np.load(path, allow_pickle=False) as archive:
        found = {name: archive[name] for name in archive}
    frames = len(joints)
    assert found["poses"].shape == (frames, 156) and found["trans"].shape == (frames, 3)
    assert found["betas"].shape == (16,) and not found["betas"].any()
    assert str(found["gender"]) == "neutral" and found["mocap_framerate"] == 20
    assert not found["poses"][:, 66:].any()  # fingers
    x, y, z = found["trans"].T
    assert np.allclose(np.stack([-x, z, y], axis=1), joints[:, 0])  # what HumanML3D does to AMASS
    armature = make_armature(read_clip(joints, "humanml3d"))
    world = Rotation.from_rotvec(found["poses"][:, :3])
    for joint in (1, 2, 3):
        bone = world.apply(armature.offsets[joint])
        expected = joints[:, joint] - joints[:, 0]
        assert np.allclose(bone, expected[:, [0, 2, 1]] * (-1, 1, 1), atol=1e-4)
    elbow = Rotation.from_rotvec(found["poses"].reshape(frames, 52, 3)[:, 18]).as_matrix()
    assert np.allclose(elbow, armature.rotations[:, 18])


def test_npz_of_another_skeleton_has_no_smpl_poses(tmp_path):
    motion = np.random.default_rng(0).normal(size=(5, 21, 3)) * 1000
    with np.load(gm.export_motion(motion, tmp_path / "a.npz", representation="kitml"), allow_pickle=False) as archive:
        assert set(archive) == {"joints", "fps", "representation"}
        assert np.array_equal(archive["joints"], motion)


@pytest.mark.parametrize(("representation", "unit"), [("humanml3d", 1.0), ("kitml", 0.001)])
def test_csv_has_a_row_a_frame_in_metres(representation, unit, tmp_path):
    skeleton = gm.get_motion_representation(representation)
    joints = np.random.default_rng(0).normal(size=(7, skeleton.num_joints, 3)) / unit
    path = gm.export_motion(torch.from_numpy(joints), tmp_path / "a.csv", representation=representation)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == [str(frame) for frame in range(7)]
    assert float(rows[4]["time"]) == pytest.approx(4 / skeleton.fps, abs=1e-6)
    name = skeleton.joint_names[5]
    found = [[float(row[f"{name}_{axis}"]) for axis in "xyz"] for row in rows]
    assert np.allclose(found, joints[:, 5] * unit, atol=1e-6)
    assert len(rows[0]) == 2 + 3 * skeleton.num_joints


def test_pictures_are_those_of_the_animation(synthetic_clips, tmp_path):
    features = gm.joints_to_features(synthetic_clips[0])[:20]
    with Image.open(gm.export_motion(features, tmp_path / "a.gif", caption="walks")) as image:
        assert image.n_frames == 20 and image.size == (640, 480)
    with Image.open(gm.export_motion(features, tmp_path / "a.png")) as image:
        assert image.format == "PNG"


def test_a_fast_camera_gives_a_gif_of_the_same_length(synthetic_clips, tmp_path):
    joints = np.repeat(synthetic_clips[0][:20], 6, axis=0)
    with Image.open(gm.export_motion(joints, tmp_path / "a.gif", fps=120)) as image:
        durations = []
        for index in range(image.n_frames):
            image.seek(index)
            durations.append(image.info["duration"])
    assert min(durations) >= 20 and sum(durations) == 1000  # of equal frames one is kept


def test_several_motions_stand_side_by_side(synthetic_clips, tmp_path):
    motions = [clip[:10] for clip in synthetic_clips[:3]]
    path = gm.export_motion(motions, tmp_path / "a.gif", caption=["one", None, "three"])
    with Image.open(path) as image:
        assert image.size == (1260, 480) and image.n_frames == 10


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bad_motions_are_refused_and_nothing_is_written(suffix, synthetic_clips, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"before")
    broken = synthetic_clips[0].copy()
    broken[3, 7, 1] = np.inf
    with pytest.raises(ValueError, match="joint 7 of frame 3"):
        gm.export_motion(broken, path)
    features = gm.joints_to_features(synthetic_clips[0])
    features[2, 9] = np.nan
    with pytest.raises(ValueError, match="feature 9 of frame 2"):
        gm.export_motion(features, path)
    for shape in ((5, 21, 3), (22, 3), (2, 5, 22, 3), (0, 22, 3), (5, 262), (0, 263)):
        with pytest.raises(ValueError, match=r"\(frames, 22, 3\).*\(frames, 263\)"):
            gm.export_motion(np.zeros(shape), path)
    for fps in (0, -20, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="fps"):
            gm.export_motion(synthetic_clips[0], path, fps=fps)
    with pytest.raises(ValueError, match="0 motions"):
        gm.export_motion([], path)
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_wrong_requests_are_refused(synthetic_clips, tmp_path):
    one, two = synthetic_clips[:2]
    with pytest.raises(ValueError, match=r"must end in \.html or \.gif"):
        gm.export_motion(one, tmp_path / "a.fbx")
    with pytest.raises(ValueError, match="2 motions; give one"):
        gm.export_motion([one, two], tmp_path / "a.bvh")
    with pytest.raises(ValueError, match="give one caption a motion"):
        gm.export_motion([one, two], tmp_path / "a.gif", caption=["walks"])
    with pytest.raises(ValueError, match="give one caption a motion"):
        gm.export_motion([one, two], tmp_path / "a.gif", caption="walks")
    with pytest.raises(ValueError, match="html only"):
        gm.export_motion(one, tmp_path / "a.gif", codes=[1, 2])
    with pytest.raises(ValueError, match="unknown motion representation"):
        gm.export_motion(one, tmp_path / "a.gif", representation="smpl")
    for codes in ([], [1.5, 2], [-1, 3], [[1, 2]], "abc"):
        with pytest.raises(ValueError, match="codes must be whole numbers"):
            gm.export_motion(one, tmp_path / "a.html", codes=codes)
    with pytest.raises(ValueError, match="frames_per_code must be positive"):
        gm.export_motion(one, tmp_path / "a.html", codes=[1], frames_per_code=0)
    with pytest.raises(ValueError, match="give one list of codes a motion"):
        gm.export_motion([one, two], tmp_path / "a.html", codes=[[1, 2]])
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_write_that_fails_leaves_the_old_file(suffix, synthetic_clips, tmp_path, monkeypatch):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"before")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        gm.export_motion(synthetic_clips[0][:4], path)
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".html", ".bvh", ".glb", ".npz", ".csv"])
def test_the_same_motion_gives_the_same_bytes(suffix, synthetic_clips, tmp_path):
    paths = [gm.export_motion(synthetic_clips[0], tmp_path / f"{name}{suffix}", caption="a") for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_an_mp4_without_its_library_says_what_to_install(synthetic_clips, tmp_path, monkeypatch):
    importing = builtins.__import__

    def without_av(name, *args, **kwargs):
        if name == "av":
            raise ModuleNotFoundError("No module named 'av'", name="av")
        return importing(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_av)
    with pytest.raises(ValueError, match=r"PyAV: pip install 'geomotiongpt\[video\]'"):
        gm.export_motion(synthetic_clips[0][:4], tmp_path / "a.mp4")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("representation", ["humanml3d", "kitml"])
def test_an_imported_motion_is_exported_as_its_joints_at_its_frame_rate(representation, synthetic_clips, tmp_path):
    file = gm.export_motion(synthetic_clips[0], tmp_path / "a.bvh")
    motion = gm.import_motion(file, representation=representation)
    path = gm.export_motion(motion, tmp_path / "a.npz", caption="a person walks")
    with np.load(path, allow_pickle=False) as archive:
        assert np.array_equal(archive["joints"], motion.joints)
        assert str(archive["representation"]) == representation
        assert archive["fps"] == gm.get_motion_representation(representation).fps


def test_imported_motions_stand_beside_joints_of_the_same_representation_only(synthetic_clips, tmp_path):
    file = gm.export_motion(synthetic_clips[0][:9], tmp_path / "a.bvh")
    motion, other = gm.import_motion(file), gm.import_motion(file, representation="kitml")
    assert gm.export_motion([motion, synthetic_clips[1][:9]], tmp_path / "a.html").is_file()
    with pytest.raises(ValueError, match="a.bvh was imported for 'kitml', not 'humanml3d'"):
        gm.export_motion([motion, other], tmp_path / "b.html")
