"""Kinematics of the synthetic data: control curves in, positions of the 22 joints out.

The trunk and the arms follow by forward kinematics, the legs by two-bone inverse kinematics between pelvis and toes.
All frames of many clips are computed at once.
"""

from collections.abc import Sequence

import numpy as np

from ..models.motion_representation import get_motion_representation
from .synthetic_actions import (
    ABDUCT,
    BEND,
    ELBOW,
    FLEX,
    FOOT_X,
    FOOT_YAW,
    FOOT_Z,
    HEEL,
    INWARD,
    LEAN,
    LEFT_ARM,
    LEFT_FOOT,
    LOOK,
    MAX_FRAMES,
    NOD,
    NUM_CHANNELS,
    PITCH,
    RIGHT_ARM,
    RIGHT_FOOT,
    ROLL,
    TWIST,
    YAW,
    MotionAttributes,
    X,
    Y,
    Z,
    compose_controls,
)

# Direction of the bone that ends in each joint when standing with hanging arms; lengths are those of the reference
# skeleton, so that retargeting to it only scales a clip and feet stay where they are.
_DIRECTIONS = np.array(
    [
        *((0, 0, 0), (0.58, -0.80, -0.17), (-0.58, -0.80, -0.17), (0, 0.97, -0.22), (0, -1, 0), (0, -1, 0)),
        *((0, 0.98, 0.18), (0, -1, 0), (0, -1, 0), (0, 1, 0.05), (0.28, -0.41, 0.87), (-0.28, -0.41, 0.87)),
        *((0, 0.98, -0.18), (0.58, 0.80, -0.14), (-0.58, 0.80, -0.14), (0, 0.87, 0.49)),
        *((0.97, 0.16, -0.17), (-0.97, 0.16, -0.17), (0, -1, 0), (0, -1, 0), (0, -1, 0), (0, -1, 0)),
    ]
)
_LENGTHS = np.array([0.0, *(get_motion_representation("humanml3d").target_bone_lengths or ())])
_OFFSETS = _DIRECTIONS / np.maximum(np.linalg.norm(_DIRECTIONS, axis=1, keepdims=True), 1e-9) * _LENGTHS[:, None]

_STRETCH_STANDING, _STRETCH_MOST = 0.99, 0.9985  # of a leg's length
_STANDING_HEIGHT = float(
    -_OFFSETS[1:3, 1].mean() + _STRETCH_STANDING * _LENGTHS[[4, 5, 7, 8]].sum() / 2 - _OFFSETS[10:12, 1].mean()
)

# Personal style and drift: slow cosines of time on every channel but the toes, the constant one largest.
_NUM_WAVES = 7
_WAVES = np.cos(np.pi * np.arange(_NUM_WAVES)[:, None] * (np.arange(2 * MAX_FRAMES) + 0.5) / (0.75 * MAX_FRAMES))
_WAVE_SIZE = np.array([2.0, 0.6, 0.6, 0.5, 0.4, 0.3, 0.2])
_NOISE_SIZE = np.zeros((NUM_CHANNELS, 1))
_NOISE_SIZE[[X, Z]] = 0.003
_NOISE_SIZE[Y] = 0.002
_NOISE_SIZE[[YAW, PITCH, ROLL, BEND, LEAN, TWIST]] = 0.8
_NOISE_SIZE[[NOD, LOOK]] = 1.8
_NOISE_SIZE[LEFT_ARM:LEFT_FOOT] = 2.0


def generate_motion(segments: Sequence[MotionAttributes], rng: np.random.Generator) -> np.ndarray:
    """Joint positions of one clip.

    Args:
        segments: what it shows, one after another.
        rng: source of everything the attributes leave open: body size, heading, phase, amplitudes, drift.

    Returns:
        (frames, 22, 3) float32 positions at 20 frames per second, metres, y up.

    Raises:
        ValueError: if the segments together last longer than a clip may.
    """
    controls, num_shown = compose_controls(rng, segments)
    if num_shown < len(segments):
        raise ValueError(f"{len(segments)} segments last longer than {MAX_FRAMES} frames; {num_shown} of them fit")
    return controls_to_joints([controls], [rng])[0]


def controls_to_joints(controls: Sequence[np.ndarray], rngs: Sequence[np.random.Generator]) -> list[np.ndarray]:
    """Pose the bodies of many clips at once.

    Args:
        controls: a (29, frames) array for each clip, as from `compose_controls`.
        rngs: for each clip, the source of its body size, place, heading and drift.

    Returns:
        For each clip, (frames, 22, 3) float32 positions.
    """
    lengths = [part.shape[1] for part in controls]
    personal, drifting = [], []
    for part, rng, length in zip(controls, rngs, lengths, strict=True):
        personal.append((rng.uniform(0.9, 1.1), rng.uniform(0, 2 * np.pi), *rng.uniform(-1, 1, 2)))
        coefficients = rng.standard_normal((NUM_CHANNELS, _NUM_WAVES)) * (_NOISE_SIZE * _WAVE_SIZE)
        drifting.append(part + coefficients @ _WAVES[:, :length])
    joints = _pose(np.concatenate(drifting, 1))
    size, heading, x, z = np.repeat(np.array(personal), lengths, axis=0).T
    sin, cos = size * np.sin(heading), size * np.cos(heading)
    world = np.empty((joints.shape[2], 22, 3), np.float32)
    world[..., 0] = (cos * joints[:, 0] + sin * joints[:, 2] + x).T
    world[..., 1] = (size * joints[:, 1]).T
    world[..., 2] = (cos * joints[:, 2] - sin * joints[:, 0] + z).T
    return np.split(world, np.cumsum(lengths)[:-1])


def _turned(frame: np.ndarray, axis: int, degrees: np.ndarray) -> np.ndarray:
    """A frame (3 axes, xyz, frames) turned about one of its own axes."""
    a, b = (axis + 1) % 3, (axis + 2) % 3
    sin, cos = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    turned = np.empty_like(frame)
    turned[axis] = frame[axis]
    turned[a] = cos * frame[a] + sin * frame[b]
    turned[b] = cos * frame[b] - sin * frame[a]
    return turned


def _offset(frame: np.ndarray, joint: int) -> np.ndarray:
    """The bone to a joint, seen from a frame of its parent: (xyz, frames)."""
    x, y, z = _OFFSETS[joint]
    return x * frame[0] + y * frame[1] + z * frame[2]


def _pose(controls: np.ndarray) -> np.ndarray:
    """(29, frames) controls -> (22, 3, frames) joints."""
    joints = np.empty((22, 3, controls.shape[1]))
    world = np.broadcast_to(np.eye(3)[:, :, None], (3, 3, controls.shape[1]))
    heading = _turned(world, 1, controls[YAW])
    pelvis = _turned(_turned(heading, 0, controls[PITCH]), 2, controls[ROLL])
    _pose_legs(joints, controls, world, pelvis)

    trunk = pelvis
    for joint, parent in ((3, 0), (6, 3), (9, 6)):
        joints[joint] = joints[parent] + _offset(trunk, joint)
        trunk = _turned(_turned(_turned(trunk, 1, controls[TWIST] / 3), 0, controls[BEND] / 3), 2, controls[LEAN] / 3)
    joints[12] = joints[9] + _offset(trunk, 12)
    joints[15] = joints[12] + _offset(_turned(_turned(trunk, 1, controls[LOOK]), 0, controls[NOD]), 15)

    for collar, shoulder, elbow, wrist, channel, outward in (
        (13, 16, 18, 20, LEFT_ARM, 1),
        (14, 17, 19, 21, RIGHT_ARM, -1),
    ):
        flex, abduct, inward, bend = (controls[channel + c] for c in (FLEX, ABDUCT, INWARD, ELBOW))
        joints[collar] = joints[9] + _offset(trunk, collar)
        joints[shoulder] = joints[collar] + _offset(trunk, shoulder)
        arm = _turned(_turned(trunk, 0, -flex), 2, outward * abduct)
        joints[elbow] = joints[shoulder] + _offset(arm, elbow)
        forearm = _turned(_turned(arm, 1, -outward * inward), 0, -np.maximum(bend, 0))
        joints[wrist] = joints[elbow] + _offset(forearm, wrist)
    return joints


def _pose_legs(joints: np.ndarray, controls: np.ndarray, world: np.ndarray, pelvis: np.ndarray) -> None:
    """Fill in the pelvis, as high as the legs reach, and the legs between it and the toes."""
    legs = ((1, 4, 7, 10, LEFT_FOOT), (2, 5, 8, 11, RIGHT_FOOT))
    hip_offsets, feet, ankles = [], [], []
    heights = [_STANDING_HEIGHT + controls[Y]]
    for hip, knee, ankle, toe, channel in legs:
        foot = _offset(_turned(_turned(world, 1, controls[channel + FOOT_YAW]), 0, controls[channel + HEEL]), toe)
        hip_offset = _offset(pelvis, hip)
        target = controls[channel + FOOT_X : channel + FOOT_Z + 1] - foot
        sideways = (target[0] - controls[X] - hip_offset[0]) ** 2 + (target[2] - controls[Z] - hip_offset[2]) ** 2
        longest = _STRETCH_MOST * (_LENGTHS[knee] + _LENGTHS[ankle])
        heights.append(target[1] - hip_offset[1] + np.sqrt(np.maximum(longest**2 - sideways, 0.01)))
        hip_offsets.append(hip_offset)
        feet.append(foot)
        ankles.append(target)
    softness = 0.006  # a smooth minimum, never above the true one
    lowest = np.minimum.reduce(heights)
    height = lowest - softness * np.log(sum(np.exp((lowest - h) / softness) for h in heights))
    joints[0] = controls[X], height, controls[Z]

    for (hip, knee, ankle, toe, _), hip_offset, foot, target in zip(legs, hip_offsets, feet, ankles, strict=True):
        thigh, shin = _LENGTHS[knee], _LENGTHS[ankle]
        joints[hip] = joints[0] + hip_offset
        reach = target - joints[hip]
        distance = np.sqrt((reach**2).sum(0))
        axis = reach / distance
        distance = np.clip(distance, 0.25, _STRETCH_MOST * (thigh + shin))
        along = (thigh**2 - shin**2 + distance**2) / (2 * distance)
        ahead = np.cross(axis, pelvis[0], axis=0)  # knees bend forward, whichever way the leg points
        ahead *= np.sqrt(np.maximum(thigh**2 - along**2, 0) / (ahead**2).sum(0))
        joints[knee] = joints[hip] + along * axis + ahead
        joints[ankle] = joints[hip] + distance * axis
        joints[toe] = joints[ankle] + foot
