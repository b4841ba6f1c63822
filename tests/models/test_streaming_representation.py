"""The streaming representation (272-d): its rows, what comes back from them, and that none knows the future."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from geomotiongpt import (
    features_to_joints,
    get_motion_representation,
    joints_to_features,
    mirror_features,
    mirror_joints,
)

NAME = "streaming272"
REP = get_motion_representation(NAME)


@pytest.fixture(scope="module")
def real_clips(tmp_path_factory):
    root = os.environ.get("GEOMOTIONGPT_REAL_DATA")
    if not root:
        pytest.skip("GEOMOTIONGPT_REAL_DATA is not set: no captured motion")
    folder = tmp_path_factory.mktemp("real")
    unpack = [sys.executable, Path(root) / "unpack.py", folder, "--limit", "5"]
    subprocess.run(unpack, check=True, capture_output=True)
    return [np.load(path, allow_pickle=False).astype(np.float64) for path in sorted(folder.glob("joints/*.npy"))]


def rotation(vectors):
    """Axis-angle (..., 3) -> matrices (..., 3, 3)."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.linalg.matrix_exp(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3)))


def about_y(degrees):
    angle = torch.deg2rad(torch.as_tensor(degrees, dtype=torch.float64))
    return rotation(torch.stack([torch.zeros_like(angle), angle, torch.zeros_like(angle)], dim=-1))


def make_body(num_frames=60, seed=0, degrees_per_frame=1.0):
    """Joints (T, 22, 3) and local rotations (T, 22, 3, 3) of a body with an uneven rest pose that walks a curve."""
    generator = torch.Generator().manual_seed(seed)
    size, phase = torch.rand(2, 22, 3, generator=generator, dtype=torch.float64).unbind(0)
    time = torch.arange(num_frames, dtype=torch.float64)
    local = rotation(0.7 * size * torch.sin(time.view(-1, 1, 1) / 9 + 6 * phase))
    local[:, 0] = about_y(40 + degrees_per_frame * time) @ rotation(0.4 * torch.sin(time[:, None] / 7 + 6 * phase[0]))
    bones = (torch.tensor(REP.raw_offsets) + 0.4 * (size - 0.5)) * torch.linspace(0.1, 0.4, 22)[:, None]
    joints, world = torch.zeros(num_frames, 22, 3, dtype=torch.float64), local.clone()
    joints[:, 0] = torch.stack([torch.sin(time / 20), 1 + 0.1 * torch.sin(time / 5), 0.02 * time], dim=-1)
    for joint in REP.outward_order:
        parent = REP.parents[joint]
        joints[:, joint] = joints[:, parent] + world[:, parent] @ bones[joint]
        world[:, joint] = world[:, parent] @ local[:, joint]
    return joints, local


def encode(joints, **options):
    return joints_to_features(joints, NAME, **{"retarget": False, **options})


def decode(features, **options):
    return features_to_joints(features, NAME, **options)


def placed(joints, turn):
    """The clip as it is recovered: above the origin, on the floor, turned about y."""
    low = torch.stack([joints[0, 0, 0], joints[..., 1].min(), joints[0, 0, 2]])
    return (joints - low) @ turn.T


def heading(rotations):
    """Degrees from +Z to the z axis of the root, on the floor."""
    return torch.rad2deg(torch.atan2(rotations[:, 0, 0, 2], rotations[:, 0, 2, 2]))


def assert_close(values, expected, atol):
    torch.testing.assert_close(values, expected, atol=atol, rtol=0)


# Rows


def test_the_layout_is_the_published_one():
    groups = {name: (part.start, part.stop) for name, part in REP.feature_slices.items()}
    assert groups == {
        "root_velocity": (0, 2),
        "heading_change": (2, 8),
        "positions": (8, 74),
        "velocities": (74, 140),
        "rotations": (140, 272),
    }
    assert (REP.num_features, REP.fps, REP.num_joints, REP.unit_in_metres) == (272, 30, 22, 1)
    assert REP.num_rows(60) == 60 and get_motion_representation("humanml3d").num_rows(60) == 59


def test_rows_are_what_they_are_said_to_be():
    """Against the definition, frame by frame."""
    joints, local = make_body(40, degrees_per_frame=3.0)
    features = encode(joints, rotations=local)
    assert features.shape == (40, 272)
    floor, before = joints[..., 1].min(), None
    for t, row in enumerate(features):
        turn = about_y(-heading(local)[t])  # takes the heading to +Z
        seen = (joints[t] - torch.stack([joints[t, 0, 0], floor, joints[t, 0, 2]])) @ turn.T
        assert_close(row[8:74], seen.flatten(), 1e-12)
        root = torch.cat([(turn @ local[t, 0])[None], local[t, 1:]])
        assert_close(row[140:272], root[:, :2].flatten(), 1e-12)
        if before is None:
            assert row[:8].tolist() == [0, 0, 1, 0, 0, 0, 1, 0] and not row[74:140].any()
        else:
            turn_before, seen_before = before
            assert_close(row[:2], (turn_before @ (joints[t, 0] - joints[t - 1, 0]))[[0, 2]], 1e-12)
            assert_close(row[2:8], (turn @ turn_before.T)[:2].flatten(), 1e-12)
            assert_close(row[74:140], (seen - seen_before).flatten(), 1e-12)
        before = turn, seen


def test_rotations_made_of_positions_keep_to_what_is_documented():
    joints, _ = make_body()
    local = torch.zeros(60, 22, 3, 3, dtype=torch.float64)
    local[..., :2, :] = encode(joints)[:, 140:].unflatten(1, (22, 2, 3))
    local[..., 2, :] = torch.linalg.cross(local[..., 0, :], local[..., 1, :])
    for end in (10, 11, 15, 20, 21):
        assert_close(local[:, end], torch.eye(3, dtype=torch.float64).expand(60, 3, 3), 1e-15)
    knee = local[:, 4]  # a shortest rotation from -y turns about an axis without y
    assert_close(knee[:, 2, 0] - knee[:, 0, 2], torch.zeros(60, dtype=torch.float64), 1e-12)
    hips = joints[:, 1] - joints[:, 2]
    spine = joints[:, 3] - joints[:, 0]
    forward = torch.linalg.cross(hips, spine)
    turn = about_y(-torch.rad2deg(torch.atan2(forward[:, 0], forward[:, 2])))
    across = (turn @ (hips / hips.norm(dim=-1, keepdim=True)).unsqueeze(-1)).squeeze(-1)
    assert_close(local[:, 0, :, 0], across, 1e-12)
    assert local[:, 0, 1, 1].min() > 0.5 and local[:, 0, 2, 2].min() > 0, "the pelvis is upright and looks ahead"


# Round trips


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("real_rotations", [True, False])
def test_positions_come_back(dtype, real_rotations):
    joints, local = make_body(200)
    features = encode(joints.to(dtype), rotations=local.to(dtype) if real_rotations else None)
    assert features.dtype == dtype
    recovered = decode(features)
    degrees = -heading(local)[0]
    if not real_rotations:
        pelvis = torch.linalg.cross(joints[0, 1] - joints[0, 2], joints[0, 3] - joints[0, 0])
        degrees = -torch.rad2deg(torch.atan2(pelvis[0], pelvis[2]))
    atol = 1e-12 if dtype == torch.float64 else 1e-5
    assert_close(recovered.double(), placed(joints, about_y(degrees)), atol)
    arrays = joints_to_features(joints.to(dtype).numpy(), NAME, retarget=False)
    assert isinstance(arrays, np.ndarray) and arrays.dtype == features.numpy().dtype
    assert_close(torch.from_numpy(decode(arrays)), decode(encode(joints.to(dtype))), 1e-5)


@pytest.mark.parametrize("real_rotations", [True, False])
def test_rotations_lead_to_the_same_joints_of_a_rigid_body(real_rotations):
    """Whatever its rest pose: bones are those of the first row."""
    joints, local = make_body(200)
    features = encode(joints, rotations=local if real_rotations else None)
    recovered = decode(features, source="rotations", target_skeleton=joints[50])
    assert_close(recovered, decode(features), 1e-12)


def test_rotations_keep_the_bone_lengths_that_are_asked_for():
    joints, local = make_body()
    features = encode(joints, rotations=local)
    parents = list(REP.parents[1:])
    recovered = decode(features + 0.02 * torch.randn(features.shape, dtype=torch.float64), source="rotations")
    lengths = torch.tensor(REP.target_bone_lengths, dtype=torch.float64)
    assert_close((recovered[:, 1:] - recovered[:, parents]).norm(dim=-1), lengths.expand(60, -1), 1e-12)
    retargeted = encode(joints, rotations=local, retarget=True)
    assert_close(decode(retargeted, source="rotations"), decode(retargeted), 1e-12)
    assert_close(retargeted[:, 140:], features[:, 140:], 1e-15)


def test_real_motion_comes_back(real_clips):
    worst = 0.0
    for joints in real_clips:
        features = encode(joints)
        recovered = decode(features)
        anchors = [0, 4, 9, 15]
        distances, wanted = (np.linalg.norm(j[..., None, :] - j[0, anchors], axis=-1) for j in (recovered, joints))
        np.testing.assert_allclose(distances, wanted, atol=1e-9)
        retargeted = joints_to_features(joints, NAME)
        error = np.linalg.norm(decode(retargeted, source="rotations") - decode(retargeted), axis=-1)
        worst = max(worst, error.max())
    assert worst < 1e-3, "pelvis and chest of captured bodies are rigid to a millimetre"


# No row knows the future


@pytest.mark.parametrize("retarget", [False, True])
@pytest.mark.parametrize("real_rotations", [False, True])
def test_rows_do_not_depend_on_later_frames(retarget, real_rotations):
    joints, local = make_body(60)
    joints[3, :, 1] -= 4.0  # the lowest point of the clip is early in it
    other, other_local = make_body(60, seed=1, degrees_per_frame=-7.0)
    changed = torch.cat([joints[:25], 1.3 * other[25:]])
    changed_local = torch.cat([local[:25], other_local[25:]])
    features, of_changed, of_start = (
        encode(clip, rotations=matrices if real_rotations else None, retarget=retarget)
        for clip, matrices in ((joints, local), (changed, changed_local), (joints[:25], local[:25]))
    )
    assert torch.equal(features[:25], of_changed[:25]) and torch.equal(features[:25], of_start)
    assert (features[25:] != of_changed[25:]).any(dim=1).all()


def test_the_floor_is_all_that_rows_know_of_the_whole_clip():
    joints, _ = make_body(60)
    lowered = joints.clone()
    lowered[40, 11, 1] = joints[..., 1].min() - 0.5
    features, of_lowered = encode(joints)[:40], encode(lowered)[:40]
    raised = features.clone()
    raised[:, 9:74:3] += 0.5
    assert_close(of_lowered, raised, 1e-12)


@pytest.mark.parametrize("source", ["positions", "rotations"])
def test_recovered_joints_do_not_depend_on_later_rows(source):
    features = encode(make_body(60)[0])
    changed = torch.cat([features[:25], torch.randn(35, 272, dtype=torch.float64)])
    assert torch.equal(decode(changed, source=source)[:25], decode(features, source=source)[:25])
    assert torch.equal(decode(features[:25], source=source), decode(features, source=source)[:25])


# Heading


@pytest.mark.parametrize("degrees_per_frame", [6.0, -6.0, 47.0, 170.0])
def test_a_body_that_turns_many_times_does_not_flip(degrees_per_frame):
    """From 5 to 140 turns in 300 frames."""
    joints, local = make_body(300, degrees_per_frame=degrees_per_frame)
    for rotations in (local, None):
        features = encode(joints, rotations=rotations)
        recovered = decode(features)
        distances, wanted = ((j[:, :, None] - j[0, [0, 4, 9, 15]]).norm(dim=-1) for j in (recovered, joints))
        assert_close(distances, wanted, 1e-10)
        if abs(degrees_per_frame) < 90:  # the swaying adds some degrees
            change = torch.rad2deg(torch.atan2(features[1:, 4], features[1:, 2]))
            assert_close(change, torch.full_like(change, -degrees_per_frame), 15)


def test_a_turned_and_shifted_clip_has_the_same_rows():
    joints, local = make_body()
    turn = about_y(123.0)
    moved = joints @ turn.T + torch.tensor([3.0, -2.0, 5.0])
    turned = torch.cat([(turn @ local[:, 0])[:, None], local[:, 1:]], dim=1)
    assert_close(encode(moved), encode(joints), 1e-12)
    assert_close(encode(moved, rotations=turned), encode(joints, rotations=local), 1e-12)


def test_a_roll_forwards_comes_back_although_the_heading_jumps():
    joints, local = make_body(90, degrees_per_frame=0.0)
    degrees = torch.tensor([[20.0, 0.0, 0.0]], dtype=torch.float64) * torch.arange(90)[:, None]
    roll = about_y(40.0) @ rotation(torch.deg2rad(degrees)) @ about_y(-40.0)
    rolled = ((joints - joints[:, :1]) @ roll.mT) + joints[:, :1]
    matrices = torch.cat([(roll @ local[:, 0])[:, None], local[:, 1:]], dim=1)
    features = encode(rolled, rotations=matrices)
    assert (features[1:, 2] < 0).any(), "the heading turns by more than 90 degrees at once"
    assert_close(decode(features), placed(rolled, about_y(-heading(matrices)[0])), 1e-12)
    assert_close(decode(features, source="rotations", target_skeleton=rolled[0]), decode(features), 1e-12)


def test_inexact_changes_of_heading_do_not_tip_the_body_over():
    features = encode(make_body(200)[0])
    noisy = features.clone()
    noisy[:, 2:8] += 0.1 * torch.randn(200, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert_close(decode(noisy)[..., 1], decode(features)[..., 1], 1e-12)


def test_a_window_begins_above_the_origin_and_faces_ahead():
    features = encode(make_body(60, degrees_per_frame=5.0)[0])
    window = decode(features[20:50])
    assert window[0, 0, [0, 2]].abs().max() == 0
    assert_close(window[0], features[20, 8:74].view(22, 3), 1e-15)
    assert_close(encode(window)[1:, :140], (features[20:50, :140] - _lowest(features[20:50]))[1:], 1e-12)


def _lowest(features):
    """The height of the floor of a part of a clip, in the places of the rows where it counts."""
    offset = torch.zeros(140, dtype=torch.float64)
    offset[9:74:3] = features[:, 9:74:3].min()
    return offset


# Mirror, batches


def test_mirrored_features_are_those_of_the_mirrored_body():
    joints, local = make_body()
    plane = torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
    mirrored_local = plane @ local[:, list(REP.mirrored_joints)] @ plane
    mirrored = encode(mirror_joints(joints, NAME), rotations=mirrored_local)
    assert_close(mirror_features(encode(joints, rotations=local), NAME), mirrored, 1e-15)
    assert_close(mirror_features(encode(joints), NAME), encode(mirror_joints(joints, NAME)), 1e-15)


def test_a_batch_with_rotations_equals_its_clips_one_by_one():
    bodies = [make_body(seed=seed) for seed in range(6)]
    joints, local = (torch.stack(parts).unflatten(0, (2, 3)) for parts in zip(*bodies, strict=True))
    features = encode(joints, rotations=local)
    assert features.shape == (2, 3, 60, 272)
    for (i, j), (clip, matrices) in zip(np.ndindex(2, 3), bodies, strict=True):
        assert_close(features[i, j], encode(clip, rotations=matrices), 1e-13)
        arrays = joints_to_features(clip.numpy(), NAME, retarget=False, rotations=matrices.numpy())
        assert_close(features[i, j], torch.from_numpy(arrays), 1e-13)


@pytest.mark.parametrize("num_frames", [1, 2, 30])
def test_repeating_the_last_frame_leaves_valid_rows_alone(num_frames):
    joints, _ = make_body(num_frames)
    padded = torch.cat([joints, joints[-1:].expand(70 - num_frames, -1, -1)])
    features = joints_to_features(joints, NAME)
    assert features.shape == (num_frames, 272)
    assert_close(joints_to_features(padded, NAME)[:num_frames], features, 1e-14)


# Poses without a direction


def test_a_clip_with_nan_leaves_the_others_of_its_batch_alone():
    joints, _ = make_body()
    joints[:, 15] = joints[:, 12]  # a bone without length
    features = encode(torch.stack([torch.full_like(joints, math.nan), joints]))
    assert features[0].isnan().any() and features[1].isfinite().all()
    assert_close(features[1], encode(joints), 1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 1e-9, 1e-4])
def test_bones_against_their_rest_direction(dtype, offset):
    joints, _ = make_body(5)
    joints = torch.stack([joints[0]] * 5).to(dtype)
    features = encode(joints)
    before = features[0, 140:].view(22, 2, 3)
    joints[:, 20] = joints[:, 18] - 2 * (joints[:, 18] - joints[:, 16])  # a forearm folded back
    joints[:, 20, 1] += offset
    joints.requires_grad_()
    features = encode(joints)
    recovered = decode(features, source="rotations", target_skeleton=joints[0].detach())
    assert_close(recovered, decode(features), 1e-4)
    (features.square().sum() + recovered.sum()).backward()
    assert features.isfinite().all() and joints.grad.isfinite().all()
    assert not torch.equal(features[0, 140:].view(22, 2, 3)[18], before[18])


def test_joints_that_coincide():
    joints, _ = make_body(4)
    joints[:, 2] = joints[:, 1]  # no line across the hips
    joints[:, 18] = joints[:, 16]
    joints.requires_grad_()
    features = encode(joints)
    assert_close(features[:, 140:146], torch.tensor([[1.0, 0, 0, 0, 1, 0]], dtype=torch.float64).expand(4, 6), 0)
    assert_close(decode(features), placed(joints, about_y(0.0)), 1e-12)
    (features.square().sum() + decode(features, source="rotations").sum()).backward()
    assert features.isfinite().all() and joints.grad.isfinite().all()


def test_gradients_are_those_of_finite_differences():
    joints = make_body(4)[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda clip: joints_to_features(clip, NAME), joints, fast_mode=True)
    features = encode(joints).detach().requires_grad_()
    for source in ("positions", "rotations"):
        assert torch.autograd.gradcheck(lambda rows, s=source: decode(rows, source=s), features, fast_mode=True)


# Errors


def test_wrong_input_is_named():
    joints, local = make_body(5)
    with pytest.raises(ValueError, match=r"joints must have shape \(\.\.\., T, 22, 3\)"):
        encode(joints[:, :21])
    with pytest.raises(ValueError, match="a clip needs a frame"):
        encode(joints[:0])
    with pytest.raises(ValueError, match=r"features must have shape \(\.\.\., T, 272\), got \(4, 263\)"):
        decode(torch.zeros(4, 263))
    with pytest.raises(ValueError, match="fix_heading_wrap has no effect on streaming272"):
        encode(joints, fix_heading_wrap=True)
    with pytest.raises(ValueError, match="rotations have no effect on humanml3d"):
        joints_to_features(joints, rotations=local)
    with pytest.raises(ValueError, match=r"rotations must have shape \(\.\.\., T, 22, 3, 3\)"):
        encode(joints, rotations=local[..., 0])
    with pytest.raises(ValueError, match=r"rotations of shape \(4, 22, 3, 3\) do not go with joints of shape \(5,"):
        encode(joints, rotations=local[:4])
    with pytest.raises(ValueError, match="rotations must be rotation matrices, got columns up to 3 from"):
        encode(joints, rotations=2 * local)
    with pytest.raises(ValueError, match="float32 or float64, got torch.float16"):
        mirror_features(torch.zeros(4, 272, dtype=torch.float16), NAME)
    with pytest.raises(ValueError, match="no effect with source='positions'"):
        decode(torch.zeros(4, 272), target_skeleton=joints[0])
