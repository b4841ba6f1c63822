"""BVH files, read back by a reader of their own, and by the package's, which must agree with it."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from geomotiongpt import export_motion, get_motion_representation, joints_to_features
from geomotiongpt import read_bvh as read_bvh_of_the_package
from geomotiongpt.visualization.armature import make_armature
from geomotiongpt.visualization.clip import read_clip
from geomotiongpt.visualization.export_bvh import _zxy_angles


def read_bvh(path: Path) -> tuple[list[str], np.ndarray, np.ndarray, float, np.ndarray]:
    """Names, offsets (joints, 3), positions (frames, joints, 3) by forward kinematics, frame time, angles."""
    lines = [line.split() for line in path.read_text().splitlines()]
    names, parents, offsets, channels, stack, tip = [], [], [], [], [], False
    start = next(index for index, words in enumerate(lines) if words == ["MOTION"])
    assert lines[0] == ["HIERARCHY"]
    for words in lines[1:start]:
        if words[0] in ("ROOT", "JOINT"):
            names.append(words[1])
            parents.append(stack[-1] if stack else -1)
        elif words[0] == "End":
            tip = True
        elif words[0] == "{":
            stack.append("tip" if tip else len(names) - 1)
        elif words[0] == "}":
            tip = False
            stack.pop()
        elif words[0] == "OFFSET" and not tip:
            offsets.append([float(word) for word in words[1:]])
        elif words[0] == "CHANNELS":
            assert int(words[1]) == len(words) - 2
            channels.append(words[2:])
    assert not stack and channels[0] == [*(f"{axis}position" for axis in "XYZ"), *channels[1]]
    order = "".join(channel[0] for channel in channels[1])
    assert all(channel == channels[1] for channel in channels[1:]) and sorted(order) == ["X", "Y", "Z"]
    count, frame_time = int(lines[start + 1][1]), float(lines[start + 2][2])
    values = np.array([[float(word) for word in words] for words in lines[start + 3 :]])
    assert values.shape == (count, 3 + 3 * len(names))
    angles = values[:, 3:].reshape(count, -1, 3)
    local = [Rotation.from_euler(order, angles[:, joint], degrees=True) for joint in range(len(names))]
    joints = np.zeros((count, len(names), 3))
    joints[:, 0], world = np.array(offsets[0]) + values[:, :3], [local[0]] * len(names)
    for joint in range(1, len(names)):
        joints[:, joint] = joints[:, parents[joint]] + world[parents[joint]].apply(offsets[joint])
        world[joint] = world[parents[joint]] * local[joint]
    own = read_bvh_of_the_package(path)
    assert list(own.names) == names and list(own.parents) == parents and own.frame_time == frame_time
    assert np.allclose(own.joint_positions(), joints, rtol=0, atol=1e-8) and np.allclose(own.offsets, offsets)
    return names, np.array(offsets), joints, frame_time, angles


def joints_in_metres(path: Path, representation: str = "humanml3d") -> np.ndarray:
    """Joints of a file in the order of the representation."""
    names, _, joints, _, _ = read_bvh(path)
    wanted = get_motion_representation(representation).joint_names
    assert sorted(names) == sorted(wanted)
    return joints[:, [names.index(name) for name in wanted]] / 100


def test_joints_come_back_in_centimetres_y_up_where_they_were(synthetic_clips, tmp_path):
    for clip in synthetic_clips:
        moved = clip + (3.0, 0.5, -2.0)
        read = joints_in_metres(export_motion(moved, tmp_path / "a.bvh"))
        assert np.linalg.norm(read - moved, axis=-1).max() < 1e-5


def test_joints_of_real_motion_come_back_within_a_millimetre(real_clips, tmp_path):
    for clip in real_clips:
        read = joints_in_metres(export_motion(clip, tmp_path / "a.bvh"))
        assert np.linalg.norm(read - clip, axis=-1).max() < 1e-3


@pytest.mark.parametrize(("fps", "expected"), [(None, 1 / 20), (120, 1 / 120)])
def test_names_rest_pose_and_frame_rate(fps, expected, synthetic_clips, tmp_path):
    names, offsets, _, frame_time, _ = read_bvh(export_motion(synthetic_clips[0], tmp_path / "a.bvh", fps=fps))
    assert names[0] == "pelvis" and frame_time == pytest.approx(expected, abs=1e-8)
    assert (offsets[0] == 0).all()
    left_wrist, toe, spine = (offsets[names.index(name)] for name in ("left_wrist", "left_foot", "spine1"))
    assert left_wrist[0] > 20 and np.allclose(left_wrist[1:], 0)
    assert toe[2] > 5 and np.allclose(toe[:2], 0)
    assert spine[1] > 10 and np.allclose(spine[[0, 2]], 0, atol=1)  # the hips are not quite at one height


def test_kit_motion_comes_back(tmp_path):
    skeleton = get_motion_representation("kitml")
    pose = np.zeros((21, 3))
    for joint in skeleton.outward_order:
        pose[joint] = pose[skeleton.parents[joint]] + 200 * np.array(skeleton.raw_offsets[joint]) * (-1, 1, 1)
    motion = pose + 30 * np.arange(12)[:, None, None] * (0, 0, 1)
    path = export_motion(motion, tmp_path / "a.bvh", representation="kitml")
    assert np.allclose(1000 * joints_in_metres(path, "kitml"), motion, atol=1e-3)


def turned_t_pose(synthetic_clips, axis: tuple[float, float, float], angles: np.ndarray) -> np.ndarray:
    """A T pose that turns as a whole."""
    rest = make_armature(read_clip(synthetic_clips[0], "humanml3d")).rest_joints
    return rest @ Rotation.from_rotvec(angles[:, None] * axis).as_matrix().swapaxes(-1, -2)


@pytest.mark.parametrize("axis", [(0, 1, 0), (1, 0, 0), (0.8, 0, 0.6)], ids=["spin", "somersault", "both"])
def test_angles_do_not_jump_where_the_body_keeps_turning(axis, tmp_path, synthetic_clips):
    motion = turned_t_pose(synthetic_clips, axis, np.linspace(0.01, 15, 100))
    names, _, joints, _, angles = read_bvh(export_motion(motion, tmp_path / "a.bvh"))
    limit = 12 if min(axis) == 0 == sorted(axis)[1] else 40  # degrees; 8.7 are turned a frame, oblique turns bunch up
    assert np.abs(np.diff(angles[:, 0], axis=0)).max() < limit
    wanted = get_motion_representation("humanml3d").joint_names
    read = joints[:, [names.index(name) for name in wanted]] / 100
    assert np.linalg.norm(read - motion, axis=-1).max() < 1e-5


def test_angles_are_right_in_gimbal_lock(tmp_path, synthetic_clips):
    """Face down and face up, where two of the three angles turn about one axis, after a turn to the side."""
    (pose,) = turned_t_pose(synthetic_clips, (0, 1, 0), np.array([1.0]))
    motion = pose @ Rotation.from_rotvec(np.pi / 2 * np.arange(9)[:, None] * (1, 0, 0)).as_matrix().swapaxes(-1, -2)
    read = joints_in_metres(export_motion(motion, tmp_path / "a.bvh"))
    assert np.linalg.norm(read - motion, axis=-1).max() < 1e-5


def test_angles_of_a_rotation_that_is_locked_to_the_last_digit():
    turn = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    angles = _zxy_angles(turn[None, None])[0, 0]
    assert np.allclose(Rotation.from_euler("ZXY", angles).as_matrix(), turn)


def test_features_are_exported_by_their_joints(tmp_path, synthetic_clips):
    features = joints_to_features(synthetic_clips[0], "streaming272")
    path = export_motion(features, tmp_path / "a.bvh", representation="streaming272")
    read = joints_in_metres(path)
    assert read.shape == (len(features), 22, 3) and read_bvh(path)[3] == pytest.approx(1 / 30, abs=1e-8)
    assert np.ptp(np.linalg.norm(read[:, 4] - read[:, 1], axis=-1)) < 1e-6
