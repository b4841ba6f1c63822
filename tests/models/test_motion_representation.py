import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from geomotiongpt.models.motion_representation import (
    MOTION_REPRESENTATIONS,
    features_to_joints,
    get_motion_representation,
    joints_to_features,
    mirror_features,
    mirror_joints,
)

REPRESENTATIONS = sorted(MOTION_REPRESENTATIONS)
OF_STEPS = ["humanml3d", "kitml"]  # rows from frame to frame; of the others see test_streaming_representation.py


@pytest.fixture(scope="module")
def real_data():
    folder = os.environ.get("GEOMOTIONGPT_REAL_DATA")
    if not folder:
        pytest.skip("GEOMOTIONGPT_REAL_DATA is not set: no published vectors to compare with")
    return Path(folder)


@pytest.fixture(scope="module")
def published(real_data):
    with np.load(real_data / "reference" / "humanml3d_004822.npz", allow_pickle=False) as clip:
        return clip["joints"], clip["features"]


def make_clip(name, num_frames=60, seed=0, degrees_per_frame=0.0, dtype=torch.float64):
    """A body whose bones wave about their rest directions while it walks a curve."""
    rep = get_motion_representation(name)
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(num_frames, dtype=torch.float64).view(-1, 1, 1) / 8
    phase, size = torch.rand(2, rep.num_joints, 3, generator=generator, dtype=torch.float64).unbind(0)
    bones = torch.tensor(rep.raw_offsets, dtype=torch.float64) + 0.6 * size * torch.sin(time + 6 * phase)
    bones = bones / bones.norm(dim=-1, keepdim=True) * (0.1 + 0.3 * size[:, :1]) / rep.unit_in_metres
    joints = torch.zeros(num_frames, rep.num_joints, 3, dtype=torch.float64)
    for chain in rep.kinematic_chains:
        for parent, joint in zip(chain, chain[1:], strict=False):
            joints[:, joint] = joints[:, parent] + bones[:, joint]
    angle = torch.deg2rad(degrees_per_frame * torch.arange(num_frames, dtype=torch.float64) + 40)
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    turn = torch.stack([cosine, zero, sine, zero, zero + 1, zero, -sine, zero, cosine], dim=-1).view(-1, 1, 3, 3)
    path = torch.stack([torch.sin(angle), 1 + 0.1 * torch.sin(3 * angle), 0.02 * torch.arange(num_frames)], dim=-1)
    return ((turn @ joints.unsqueeze(-1)).squeeze(-1) + path.unsqueeze(1) / rep.unit_in_metres).to(dtype)


def assert_congruent(joints, expected, atol):
    """Same motion up to a shift and a turn: equal distances to four joints of the first frame."""
    anchors = [0, 4, 9, 15]
    distances, wanted = ((j.unsqueeze(-2) - j[0, anchors]).norm(dim=-1) for j in (joints, expected))
    torch.testing.assert_close(distances, wanted, atol=atol, rtol=0)


def bone_lengths(joints, rep):
    return (joints[..., 1:, :] - joints[..., list(rep.parents[1:]), :]).norm(dim=-1)


# Parity with the published vectors


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reproduces_the_published_features(published, dtype):
    joints, expected = published
    features = joints_to_features(joints.astype(dtype))
    assert isinstance(features, np.ndarray) and features.dtype == dtype
    np.testing.assert_allclose(features, expected, atol=2e-5, rtol=0)
    np.testing.assert_array_equal(features[:, 259:], expected[:, 259:])


@pytest.mark.parametrize("source", ["positions", "rotations"])
def test_both_sources_recover_the_same_joints_from_published_features(published, source):
    joints, features = published
    expected = features_to_joints(features.astype(np.float64))
    recovered = features_to_joints(joints_to_features(joints), source=source)
    assert recovered.shape == (199, 22, 3)
    np.testing.assert_allclose(recovered, expected, atol=1e-5, rtol=0)


def test_recovered_joints_are_the_retargeted_input(published):
    joints = torch.from_numpy(published[0]).double()
    rep = get_motion_representation("humanml3d")
    recovered = features_to_joints(joints_to_features(joints))
    lengths = torch.tensor(rep.target_bone_lengths, dtype=torch.float64).expand(199, -1)
    torch.testing.assert_close(bone_lengths(recovered, rep), lengths, atol=1e-9, rtol=0)
    assert_congruent(features_to_joints(joints_to_features(joints, retarget=False)), joints[:-1], atol=1e-9)


def test_real_clips_survive_the_round_trip(real_data, tmp_path):
    subprocess.run(
        [sys.executable, real_data / "unpack.py", tmp_path, "--limit", "3"], check=True, capture_output=True
    )
    for path in sorted(tmp_path.glob("joints/*.npy")):
        joints = torch.from_numpy(np.load(path, allow_pickle=False)).double()
        features = joints_to_features(joints, retarget=False, fix_heading_wrap=True)
        assert_congruent(features_to_joints(features), joints[:-1], atol=1e-9)
        retargeted = joints_to_features(joints)
        torch.testing.assert_close(
            features_to_joints(retargeted, source="rotations"), features_to_joints(retargeted), atol=1e-6, rtol=0
        )


# Round trips on both skeletons


@pytest.mark.parametrize("name", OF_STEPS)
def test_round_trip(name):
    rep, joints = get_motion_representation(name), make_clip(name)
    features = joints_to_features(joints, name, retarget=False)
    assert features.shape == (59, rep.num_features)
    recovered = features_to_joints(features, name)
    assert_congruent(recovered, joints[:-1], atol=1e-9 / rep.unit_in_metres)
    np.testing.assert_allclose(recovered[0, 0, [0, 2]], 0, atol=1e-12)
    right_hip, left_hip, right_shoulder, left_shoulder = recovered[0, list(rep.face_joints)]
    x, _, z = right_hip - left_hip + right_shoulder - left_shoulder
    assert x < 0 and abs(z / x) < 1e-9, "frame 0 faces +Z"


@pytest.mark.parametrize("name", OF_STEPS)
def test_retargets_to_a_skeleton_of_the_users(name):
    rep, joints = get_motion_representation(name), make_clip(name, seed=1)
    skeleton = make_clip(name, num_frames=2, seed=2)[0]
    features = joints_to_features(joints, name, target_skeleton=skeleton, fix_heading_wrap=True)
    recovered = features_to_joints(features, name)
    lengths = bone_lengths(skeleton, rep)
    torch.testing.assert_close(bone_lengths(recovered, rep), lengths.expand(59, -1))
    by_rotation = features_to_joints(features, name, source="rotations", target_skeleton=skeleton.numpy())
    torch.testing.assert_close(by_rotation, recovered, atol=1e-9 / rep.unit_in_metres, rtol=0)
    legs = [joint - 1 for joint in rep.leg_joints]
    scale = lengths[legs].sum() / bone_lengths(joints[0], rep)[legs].sum()
    torch.testing.assert_close(
        (recovered[-1, 0] - recovered[0, 0]).norm(), (joints[-2, 0] - joints[0, 0]).norm() * scale
    )


@pytest.mark.parametrize("name", OF_STEPS)
def test_contacts_tell_the_standing_foot(name):
    rep = get_motion_representation(name)
    joints = make_clip(name, num_frames=1).expand(5, -1, -1).clone()
    step = math.sqrt(rep.contact_threshold) * torch.arange(5)
    joints[:, rep.right_foot[1], 0] += 1.01 * step
    joints[:, rep.left_foot[0], 2] += 0.99 * step
    contacts = joints_to_features(joints, name, retarget=False)[:, rep.feature_slices["contacts"]]
    assert contacts.tolist() == [[1, 1, 1, 0]] * 4


@pytest.mark.parametrize("degrees_per_frame", [2.0, -2.0, 6.0])
def test_fix_heading_wrap_repairs_the_published_sign_error(degrees_per_frame):
    joints = make_clip("humanml3d", num_frames=200, degrees_per_frame=degrees_per_frame)
    published = joints_to_features(joints, retarget=False)
    fixed = joints_to_features(joints, retarget=False, fix_heading_wrap=True)
    wrapped = published[:, 0] != fixed[:, 0]
    assert wrapped.any() and (published[wrapped, 0] == -fixed[wrapped, 0]).all()
    assert torch.equal(published[:, 1:], fixed[:, 1:])
    assert_congruent(features_to_joints(fixed), joints[:-1], atol=1e-9)
    with pytest.raises(AssertionError):
        assert_congruent(features_to_joints(published), joints[:-1], atol=0.05)


# Mirror


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_mirrored_features_are_the_features_of_mirrored_joints(name):
    joints = make_clip(name, degrees_per_frame=1.0)
    expected = joints_to_features(mirror_joints(joints, name), name, retarget=False)
    mirrored = mirror_features(joints_to_features(joints, name, retarget=False), name)
    unit = get_motion_representation(name).unit_in_metres
    torch.testing.assert_close(mirrored, expected, atol=4e-15 / unit, rtol=1e-15)


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_mirroring_twice_changes_nothing(name):
    joints = make_clip(name)
    features = joints_to_features(joints, name, retarget=False)
    assert torch.equal(mirror_joints(mirror_joints(joints, name), name), joints)
    assert torch.equal(mirror_features(mirror_features(features, name), name), features)
    assert not torch.equal(mirror_joints(joints, name), joints)
    assert np.array_equal(mirror_joints(joints.numpy(), name), mirror_joints(joints, name).numpy())
    assert np.array_equal(mirror_features(features.numpy(), name), mirror_features(features, name).numpy())


# Batches


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_a_batch_equals_its_clips_one_by_one(name):
    clips = torch.stack([make_clip(name, seed=seed) for seed in range(6)]).view(2, 3, 60, -1, 3)
    skeleton = clips[0, 0, 0]
    features = joints_to_features(clips, name, target_skeleton=skeleton)
    for source in ("positions", "rotations"):
        choice = {"source": source, "target_skeleton": skeleton if source == "rotations" else None}
        joints = features_to_joints(features, name, **choice)
        for i, j in np.ndindex(2, 3):
            alone = joints_to_features(clips[i, j], name, target_skeleton=skeleton)
            torch.testing.assert_close(features[i, j], alone, atol=1e-10, rtol=1e-12)
            torch.testing.assert_close(joints[i, j], features_to_joints(alone, name, **choice), atol=1e-9, rtol=1e-12)


@pytest.mark.parametrize("num_frames", [2, 3, 30, 90])
def test_repeating_the_last_frame_leaves_valid_rows_alone(num_frames):
    for dtype, atol in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        joints = make_clip("humanml3d", num_frames, dtype=dtype)
        padded = torch.cat([joints, joints[-1:].expand(200 - num_frames, -1, -1)])
        features = joints_to_features(joints)
        assert features.shape == (num_frames - 1, 263) and features.isfinite().all()
        torch.testing.assert_close(joints_to_features(padded)[: num_frames - 1], features, atol=atol, rtol=0)


def test_a_clip_with_nan_leaves_the_others_of_its_batch_alone():
    joints = make_clip("humanml3d")
    joints[:, 15] = joints[:, 12]  # a bone without length, and one against its rest direction
    joints[:, 18] = joints[:, 16] + torch.tensor([0, 0.25, 0], dtype=joints.dtype)
    batch = torch.stack([torch.full_like(joints, math.nan), joints])
    for retarget in (True, False):
        alone = joints_to_features(joints, retarget=retarget)
        features = joints_to_features(batch, retarget=retarget)
        assert features[0].isnan().any() and features[1].isfinite().all()
        torch.testing.assert_close(features[1], alone, atol=1e-10, rtol=1e-12)


# Degenerate poses


@pytest.mark.parametrize("offset", [0.0, 1e-5, 1e-3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bones_against_their_rest_direction(dtype, offset):
    joints = make_clip("humanml3d", num_frames=4, dtype=dtype)
    joints[:, 18] = joints[:, 16] + torch.tensor([offset, 0.25, 0])  # an elbow straight above its shoulder
    joints.requires_grad_()
    features = joints_to_features(joints, retarget=False)
    recovered = features_to_joints(features, source="rotations", target_skeleton=joints[0].detach())
    upper_arm = recovered[:, 18] - recovered[:, 16]
    torch.testing.assert_close(upper_arm[:, 1], torch.full((3,), 0.25, dtype=dtype), atol=1e-4, rtol=0)
    recovered.square().sum().backward()
    assert features.isfinite().all() and joints.grad.isfinite().all()


@pytest.mark.parametrize("retarget", [True, False])
def test_joints_that_coincide(retarget):
    joints = make_clip("humanml3d", num_frames=4, dtype=torch.float32)
    joints[:, 15] = joints[:, 12]
    joints[:, 2], joints[:, 17] = joints[:, 1], joints[:, 16]  # no facing direction either
    joints.requires_grad_()
    features = joints_to_features(joints, retarget=retarget)
    (features.square().sum() + features_to_joints(features, source="rotations").sum()).backward()
    assert features.isfinite().all() and joints.grad.isfinite().all()


def test_gradients_are_those_of_finite_differences():
    joints = make_clip("humanml3d", num_frames=5, degrees_per_frame=3.0).requires_grad_()
    assert torch.autograd.gradcheck(joints_to_features, joints, fast_mode=True)
    features = joints_to_features(joints).detach().requires_grad_()
    assert torch.autograd.gradcheck(features_to_joints, features, fast_mode=True)
    by_rotation = lambda rows: features_to_joints(rows, source="rotations")  # noqa: E731
    assert torch.autograd.gradcheck(by_rotation, features, fast_mode=True)


# Descriptions and errors


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_descriptions_are_consistent(name):
    rep = get_motion_representation(name)
    assert rep.num_features == {"humanml3d": 263, "kitml": 251, "streaming272": 272}[name]
    assert list(rep.feature_slices.values())[-1].stop == rep.num_features
    reached = [joint for chain in rep.kinematic_chains for joint in chain[1:]]
    assert sorted(reached) == list(range(1, rep.num_joints))
    assert len(rep.raw_offsets) == len(set(rep.joint_names)) == rep.num_joints
    sizes = [s.stop - s.start for s in rep.feature_slices.values()]
    if name in OF_STEPS:
        assert sizes[-4:] == [3 * len(reached), 6 * len(reached), 3 * rep.num_joints, 4]
    swap = [n.replace("left", "R").replace("right", "left").replace("R", "right") for n in rep.joint_names]
    assert [rep.joint_names[j] for j in rep.mirrored_joints] == swap


def test_unknown_representation():
    with pytest.raises(ValueError, match=r"'smpl'.*\['humanml3d', 'kitml', 'streaming272'\]"):
        joints_to_features(torch.zeros(4, 22, 3), "smpl")


@pytest.mark.parametrize("shape", [(4, 21, 3), (22, 3), (4, 22, 2), (4, 66), (1, 22, 3), (0, 22, 3)])
def test_wrong_joints(shape):
    with pytest.raises(ValueError, match=r"joints.*22, 3\)"):
        joints_to_features(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(4, 251), (263,), ()])
def test_wrong_features(shape):
    with pytest.raises(ValueError, match=r"features must have shape \(\.\.\., T, 263\), got"):
        features_to_joints(torch.zeros(shape))


def test_other_wrong_input():
    clip = make_clip("kitml")
    with pytest.raises(ValueError, match="pass target_skeleton.*retarget=False"):
        joints_to_features(clip, "kitml")
    with pytest.raises(ValueError, match="pass target_skeleton"):
        features_to_joints(torch.zeros(4, 251), "kitml", source="rotations")
    with pytest.raises(ValueError, match="target_skeleton must be one pose"):
        joints_to_features(clip, "kitml", target_skeleton=clip)
    with pytest.raises(ValueError, match="target_skeleton must have shape"):
        joints_to_features(clip, "kitml", target_skeleton=clip[0, :20])
    with pytest.raises(ValueError, match="no effect with retarget=False"):
        joints_to_features(clip, "kitml", retarget=False, target_skeleton=clip[0])
    with pytest.raises(ValueError, match="no effect with source='positions'"):
        features_to_joints(torch.zeros(4, 251), "kitml", target_skeleton=clip[0])
    with pytest.raises(ValueError, match="unknown source 'velocities'"):
        features_to_joints(torch.zeros(4, 251), "kitml", source="velocities")
    with pytest.raises(ValueError, match="float32 or float64, got torch.float16"):
        mirror_joints(clip.half(), "kitml")
    with pytest.raises(ValueError, match=r"joints \(5, 8\) coincide"):
        joints_to_features(torch.zeros(4, 22, 3))
