"""What the package writes it reads: motion exported to BVH, `.npz`, `.csv` and `.npy` is imported as it was."""

import numpy as np
import pytest
from rigs import make_rig

import geomotiongpt as gm
from geomotiongpt.motion_input import read_motion_input

SUFFIXES = (".bvh", ".npz", ".csv")
# Metres. Text has six decimals; a BVH file also one length for each bone.
TOLERANCES = {".bvh": 1e-3, ".npz": 1e-6, ".csv": 2e-6}


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    """A rig of three seconds as a BVH file."""
    return gm.write_bvh(make_rig("mixamo", 90), tmp_path_factory.mktemp("rig") / "walk.bvh")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("representation", ["humanml3d", "streaming272"])
def test_joints_come_back(suffix, representation, rig, tmp_path):
    joints = gm.import_motion(rig, representation=representation).joints
    file = gm.export_motion(joints, tmp_path / f"a{suffix}", representation=representation)
    again = gm.import_motion(file, representation=representation)
    assert again.joints.shape == joints.shape and not again.report.warnings
    assert np.abs(again.joints - joints).max() < TOLERANCES[suffix]
    assert again.report.fps[0] == gm.get_motion_representation(representation).fps
    if suffix == ".npz":
        assert np.array_equal(again.joints, joints) and again.report.fps[1] == "the file"


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("representation", ["humanml3d", "streaming272"])
def test_features_come_back(suffix, representation, rig, tmp_path):
    features = gm.joints_to_features(gm.import_motion(rig, representation=representation).joints, representation)
    file = gm.export_motion(features, tmp_path / f"a{suffix}", representation=representation)
    again = gm.import_motion(file, representation=representation).joints
    assert np.abs(again - gm.features_to_joints(features, representation)).max() < TOLERANCES[suffix]
    found = gm.joints_to_features(again, representation)
    # of steps the last row needs a frame that the features do not have, and headings are smoothed over them all
    assert np.abs(found[:, 4:67] - features[: len(found), 4:67]).max() < 0.01


def test_bvh_becomes_features_becomes_bvh_within_five_millimetres(rig, tmp_path):
    """Against the file itself: its root's way, and every bone in its own length, which retargeting had changed."""
    original = gm.import_motion(rig).joints
    features = gm.joints_to_features(original, retarget=False)
    again = gm.import_motion(gm.export_motion(features, tmp_path / "a.bvh")).joints
    assert np.abs(again - (original[:-1] - original[0, 0] * [1, 0, 1]) + ground(original)).max() < 0.005

    retargeted = gm.joints_to_features(original)
    again = gm.import_motion(gm.export_motion(retargeted, tmp_path / "b.bvh")).joints
    undone = gm.features_to_joints(gm.joints_to_features(again, target_skeleton=original[0]))
    assert np.abs(undone - (original[:-2] - original[0, 0] * [1, 0, 1]) + ground(original)).max() < 0.005


def ground(joints):
    """What `joints_to_features` takes off the height."""
    return [0, joints[..., 1].min(), 0]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_kit_motion_comes_back(suffix, rig, tmp_path):
    """Its skeleton has other joints: the root lies above the pelvis, where the spine begins; there is no head."""
    joints = gm.import_motion(rig, representation="kitml").joints
    file = gm.export_motion(joints, tmp_path / f"a{suffix}", representation="kitml")
    again = gm.import_motion(file, representation="kitml")
    assert np.abs(again.joints - joints).max() < 1000 * TOLERANCES[suffix] and not again.report.warnings  # millimetres
    np.save(tmp_path / "a.npy", joints)  # as `geomotiongpt generate` does
    again = gm.import_motion(tmp_path / "a.npy", representation="kitml")
    assert np.abs(again.joints - joints).max() < 0.001 and again.report.fps[0] == 12.5


def test_features_saved_as_arrays_are_read_as_their_joints(rig, tmp_path):
    for representation in ("humanml3d", "streaming272"):
        features = gm.joints_to_features(gm.import_motion(rig, representation=representation).joints, representation)
        np.save(tmp_path / "a.npy", features)
        again = gm.import_motion(tmp_path / "a.npy", representation=representation)
        assert np.abs(again.joints - gm.features_to_joints(features, representation)).max() < 1e-5
        assert again.report.kind == f"{representation} features in an .npy file"
    features[3, 5] = np.nan
    np.save(tmp_path / "a.npy", features)
    with pytest.raises(ValueError, match="a.npy: there is a NaN"):
        gm.import_motion(tmp_path / "a.npy")


def test_archives_of_features_give_the_models_these_very_features(rig, tmp_path):
    features = gm.joints_to_features(gm.import_motion(rig).joints)
    file = gm.export_motion(features, tmp_path / "a.npz")
    given, report = read_motion_input(file, "humanml3d", {})
    assert np.array_equal(given["motion"], features) and given["name"] == str(file) and report is None
    # of another representation, at another rate, or of joints: the joints
    other, _ = read_motion_input(file, "streaming272", {})
    assert other["motion"].shape == (len(gm.resample_joints(np.zeros((len(features), 22, 3)), 20, 30)), 22, 3)
    faster = gm.export_motion(features, tmp_path / "b.npz", fps=40)
    assert read_motion_input(faster, "humanml3d", {})[0]["motion"].shape == ((len(features) + 1) // 2, 22, 3)
    joints = gm.export_motion(gm.import_motion(rig).joints, tmp_path / "c.npz")
    assert np.array_equal(read_motion_input(joints, "humanml3d", {})[0]["motion"], gm.import_motion(rig).joints)


def test_archives_with_poses_and_joints_need_no_body_model(rig, tmp_path):
    file = gm.export_motion(gm.import_motion(rig).joints, tmp_path / "a.npz")
    assert gm.import_motion(file).report.kind == "humanml3d joints in an .npz file"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        gm.import_motion(file, body_models=tmp_path / "nowhere")
    with np.load(file) as archive:
        np.savez(tmp_path / "poses.npz", **{name: archive[name] for name in archive if name != "joints"})
    with pytest.raises(FileNotFoundError, match="its joints need the model file"):
        gm.import_motion(tmp_path / "poses.npz")


def usual_skeleton(joints):
    """A pose (22, 3) with the median lengths of bones; those that a rig lacks and that are interpolated vary."""
    layout = gm.get_motion_representation("humanml3d")
    lengths = np.median(np.linalg.norm(joints - joints[:, list(layout.parents)], axis=-1), axis=0)
    pose = np.zeros((22, 3), np.float32)
    for joint in layout.outward_order:
        pose[joint] = pose[layout.parents[joint]] + lengths[joint] * np.array(layout.raw_offsets[joint])
    return pose


def test_real_bvh_becomes_features_becomes_bvh_within_five_millimetres(real_data, tmp_path):
    """After retargeting is undone; not only on average, but any joint in any frame."""
    files = sorted((real_data / "mocap_samples").glob("*.bvh"))
    assert len(files) == 7
    for file in files:
        joints = gm.import_motion(file).joints
        exported = gm.export_motion(gm.joints_to_features(joints), tmp_path / "a.bvh")
        again = gm.joints_to_features(gm.import_motion(exported).joints, target_skeleton=usual_skeleton(joints))
        found, expected = (gm.features_to_joints(f) for f in (again, gm.joints_to_features(joints, retarget=False)))
        assert np.linalg.norm(found - expected[: len(found)], axis=-1).max() < 0.005, file.name


@pytest.mark.parametrize(("suffix", "largest"), [(".bvh", 0.009), (".npz", 1e-6), (".csv", 2e-6)])
def test_real_motion_comes_back(suffix, largest, real_data, tmp_path):
    """CMU's rigs bend where the skeleton has none: a rigid pelvis, as BVH has it, is up to 8 mm off at the spine."""
    for name in ("cmu_007_12.bvh", "dataset-2_walk-turn-left_normal_001.bvh", "walk_03.amc"):
        joints = gm.import_motion(real_data / "mocap_samples" / name).joints
        again = gm.import_motion(gm.export_motion(joints, tmp_path / f"a{suffix}")).joints
        error = np.linalg.norm(again - joints, axis=-1)
        assert error.max() < largest and error.mean() < 0.001, name
