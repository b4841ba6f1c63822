import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from geomotiongpt import features_to_joints, get_motion_representation, joints_to_features
from geomotiongpt.visualization.armature import as_quaternions, as_rotation_vectors, make_armature, rest_directions
from geomotiongpt.visualization.clip import read_clip


def error_of(joints: np.ndarray, representation: str = "humanml3d") -> float:
    """Largest distance, in metres, between a clip's joints and those of its armature."""
    clip = read_clip(joints, representation)
    return np.linalg.norm(make_armature(clip).joints() - clip.joints, axis=-1).max()


def kit_clip(num_frames: int = 30) -> np.ndarray:
    """A body in millimetres, bent at every joint by smooth random rotations."""
    skeleton = get_motion_representation("kitml")
    rng = np.random.default_rng(2)
    time = np.linspace(0, 3, num_frames)[:, None, None]
    turns = rng.normal(size=(21, 3)) * np.sin(time + rng.uniform(0, 6, (21, 3)))
    world = [Rotation.from_rotvec(turns[:, 0])] * 21
    joints = np.zeros((num_frames, 21, 3)) + (1000.0, 900.0, -500.0)
    for joint in skeleton.outward_order:
        parent = skeleton.parents[joint]
        offset = rng.uniform(60, 300) * rest_directions(skeleton)[joint] + rng.normal(0, 20, 3)
        joints[:, joint] = joints[:, parent] + world[parent].apply(offset)
        world[joint] = world[parent] * Rotation.from_rotvec(0.8 * turns[:, joint])
    return joints


def smpl_like(num_frames: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Joints (frames, 22, 3) and local rotations, with twist in every joint, of a body at 30 frames a second."""
    skeleton = get_motion_representation("streaming272")
    rng = np.random.default_rng(5)
    time = np.linspace(0, 2, num_frames)[:, None, None]
    turns = 0.7 * np.sin(rng.uniform(1, 3, (22, 3)) * time + rng.uniform(0, 6, (22, 3)))
    local = Rotation.from_rotvec(turns.reshape(-1, 3)).as_matrix().reshape(num_frames, 22, 3, 3)
    joints, world = np.zeros((num_frames, 22, 3)), list(local.swapaxes(0, 1))
    joints[:, 0] = np.concatenate([0.5 * time[:, :, 0], 1 + 0 * time[:, :, 0], time[:, :, 0] ** 2], axis=1)
    for joint in skeleton.outward_order:
        parent = skeleton.parents[joint]
        offset = rng.uniform(0.1, 0.4) * np.asarray(skeleton.raw_offsets[joint]) + rng.normal(0, 0.02, 3)
        joints[:, joint] = joints[:, parent] + world[parent] @ offset
        world[joint] = world[parent] @ world[joint]
    return joints, local


def test_joints_of_constant_bones_come_back(synthetic_clips):
    assert max(error_of(clip) for clip in synthetic_clips) < 1e-5
    assert error_of(kit_clip(), "kitml") < 1e-9


def test_joints_of_real_motion_come_back(real_clips):
    assert max(error_of(clip) for clip in real_clips) < 1e-3


def test_errors_do_not_add_up_along_a_chain(synthetic_clips):
    """Each bone aims at its own joint: where bones stretch, the wrist is off by its own bone and no more."""
    noise = np.random.default_rng(0).normal(0, 0.01, synthetic_clips[0].shape)
    clip = read_clip(synthetic_clips[0] + noise, "humanml3d")
    errors = np.linalg.norm(make_armature(clip).joints() - clip.joints, axis=-1).mean(axis=0)
    assert errors[[10, 11, 20, 21]].max() < 1.2 * errors[[4, 5, 18, 19]].max() < 0.02


@pytest.mark.parametrize("representation", ["humanml3d", "kitml"])
def test_rest_pose_is_a_t_pose_that_faces_z_with_left_at_x(representation, synthetic_clips):
    motion = synthetic_clips[0] if representation == "humanml3d" else kit_clip()
    clip = read_clip(motion, representation)
    skeleton, rest = clip.skeleton, make_armature(clip).rest_joints
    assert rest[:, 1].min() == 0 and np.allclose(rest[0, [0, 2]], 0)
    for left, right in zip(skeleton.left_joints, skeleton.right_joints, strict=True):
        assert rest[left, 0] > 0.02 > -0.02 > rest[right, 0]
    shoulders = [chain[-3] for chain in skeleton.kinematic_chains if chain[0] != 0]
    wrists = [chain[-1] for chain in skeleton.kinematic_chains if chain[0] != 0]
    assert np.allclose(rest[wrists, 1:], rest[shoulders, 1:])
    ankles, toes = [skeleton.left_foot[0], skeleton.right_foot[0]], [skeleton.left_foot[1], skeleton.right_foot[1]]
    assert (rest[toes, 2] > rest[ankles, 2] + 0.02).all() and (rest[ankles, 1] < rest[0, 1] - 0.1).all()
    lengths = np.linalg.norm(clip.joints - clip.joints[:, list(skeleton.parents)], axis=-1)[:, 1:]
    offsets = make_armature(clip).offsets[1:]
    assert np.allclose(np.linalg.norm(offsets, axis=-1), np.median(lengths, axis=0))


def test_limbs_have_no_twist_and_ends_no_rotation(synthetic_clips):
    armature = make_armature(read_clip(synthetic_clips[1], "humanml3d"))
    vectors = as_rotation_vectors(armature.rotations)
    for joint, child in ((4, 7), (18, 20), (12, 15)):
        assert np.abs(vectors[:, joint] @ armature.offsets[child]).max() < 1e-6
    assert np.abs(vectors[:, [10, 11, 15, 20, 21]]).max() == 0


def test_rotations_of_272_features_are_kept_with_their_twist():
    joints, local = smpl_like()
    features = joints_to_features(joints, "streaming272", retarget=False, rotations=local)
    armature = make_armature(read_clip(features, "streaming272"))
    assert np.abs(armature.rotations[:, 1:] - local[:, 1:]).max() < 1e-9
    expected = features_to_joints(features, "streaming272")
    assert np.linalg.norm(armature.joints() - expected, axis=-1).max() < 1e-9
    fitted = make_armature(read_clip(expected, "streaming272"))
    assert np.abs(fitted.rotations[:, 4] - local[:, 4]).max() > 0.1  # the joints alone do not have it


DAMAGES = ["one frame", "all in one place", "legs straight up", "hips in line", "a frame in the mirror"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_degenerate_poses_have_rotations(damage, synthetic_clips):
    clip = read_clip(synthetic_clips[0], "humanml3d")
    motion = clip.joints[:1] if damage == "one frame" else clip.joints.copy()
    if damage == "all in one place":
        motion[:] = 1.0
    if damage == "legs straight up":  # against the direction of rest, to the last digit
        motion = np.tile(make_armature(clip).rest_joints, (6, 1, 1))
        motion[3, [4, 7, 10]] += 2 * (motion[3, 1] - motion[3, 4])
        motion[3, 4, [0, 2]] = motion[3, 1, [0, 2]]
    if damage == "hips in line":
        motion[:, [1, 2, 3]] = motion[:, :1] + np.array([(0.1, 0, 0), (-0.1, 0, 0), (0.05, 0, 0)])
    if damage == "a frame in the mirror":
        motion[5] *= (-1, 1, 1)
    armature = make_armature(read_clip(motion, "humanml3d"))
    identity = armature.rotations.swapaxes(-1, -2) @ armature.rotations
    assert np.allclose(identity, np.eye(3)) and np.allclose(np.linalg.det(armature.rotations), 1)
    assert np.isfinite(armature.joints()).all()


def test_quaternions_and_rotation_vectors_are_those_of_the_matrices():
    rng = np.random.default_rng(1)
    axes = rng.normal(size=(50, 3))
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    angles = np.concatenate([np.linspace(0, np.pi, 48), [1e-9, np.pi - 1e-9]])
    matrices = Rotation.from_rotvec(axes * angles[:, None]).as_matrix()
    for index in range(50):
        one = matrices[index : index + 1]
        assert np.allclose(Rotation.from_quat(as_quaternions(one)).as_matrix(), one, atol=1e-9)
        assert np.allclose(Rotation.from_rotvec(as_rotation_vectors(one)).as_matrix(), one, atol=1e-7)
    turning = Rotation.from_rotvec(np.linspace(0, 20, 200)[:, None] * (0.6, 0.8, 0)).as_matrix()
    quaternions = as_quaternions(turning)
    assert ((quaternions[1:] * quaternions[:-1]).sum(-1) > 0.9).all()
