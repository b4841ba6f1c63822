"""Motion from one representation to another, and from one frame rate to another."""

import numpy as np
import torch
from torch import Tensor

from .motion_representation import Array, features_to_joints, joints_to_features
from .motion_skeletons import get_motion_representation

_ROUNDING = 1e-9  # of places between frames


def convert_features(features: Array, source: str, target: str) -> Array:
    """Turn features of one representation into those of another of the same joints, by way of the joints.

    The joints are recovered from positions, resampled to the frame rate of the target by `resample_joints`, and turned
    into features with the bone lengths of the target, as its published features have them. The floor is the lowest
    point of the clip. Contacts are detected anew, and rotations are those that positions allow.

    From 272-d at 30 frames per second to 263-d at 20, n rows become floor((n - 1) 2 / 3); back, n rows become
    floor((n - 1) 3 / 2) + 1.

    Args:
        features (`torch.Tensor` or `np.ndarray` of shape `(..., T, num_features)`): not normalised, float32 or
            float64. Clips in a batch are converted to their full length, without regard to padding.
        source (`str`): representation of `features`, a key of `MOTION_REPRESENTATIONS`.
        target (`str`): representation wanted.

    Returns:
        `torch.Tensor` or `np.ndarray`, as `features`; the features themselves where both representations are one.

    Raises:
        ValueError: for a wrong shape or dtype, representations of different joints, or a clip that is too short.
    """
    have, want = get_motion_representation(source), get_motion_representation(target)
    if have.joint_names != want.joint_names:
        raise ValueError(
            f"{source} and {target} are of different joints ({have.num_joints} and {want.num_joints}); features can "
            "be converted between representations of one skeleton only"
        )
    joints = features_to_joints(features, source)
    if have == want:
        return features
    if joints.shape[-3] < 2:
        raise ValueError(
            f"features of shape {tuple(features.shape)} are too short to be resampled; a clip needs two frames"
        )
    scaled = joints * (have.unit_in_metres / want.unit_in_metres)
    return joints_to_features(resample_joints(scaled, have.fps, want.fps), target)


def resample_joints(joints: Array, source_fps: float, target_fps: float) -> Array:
    """Joint positions at another frame rate.

    Between frames runs the cubic of Catmull and Rom, which passes through the positions and does not jump in
    velocity; beyond the ends the motion is taken to go on straight. T frames become
    floor((T - 1) target_fps / source_fps) + 1: the first is kept, and none lies after the last. There is no filter:
    what is faster than half the target rate comes out as something slower. Bones that turn fast between frames become
    a little shorter, as with any interpolation of positions. Differentiable.

    Args:
        joints (`torch.Tensor` or `np.ndarray` of shape `(..., T, J, 3)`): float32 or float64; T at least 2.
        source_fps (`float`): frames per second of `joints`.
        target_fps (`float`): frames per second wanted; where it is `source_fps`, the joints themselves come back.

    Returns:
        `torch.Tensor` or `np.ndarray`, as `joints`.

    Raises:
        ValueError: for a frame rate that is not positive and finite, or fewer than two frames.
    """
    for name, rate in (("source_fps", source_fps), ("target_fps", target_fps)):
        if not 0 < rate < float("inf"):
            raise ValueError(f"{name} is {rate}; a frame rate must be positive and finite")
    if joints.ndim < 3 or joints.shape[-3] < 2:
        raise ValueError(f"joints must have shape (..., 2 or more frames, J, 3), got {tuple(joints.shape)}")
    if source_fps == target_fps:
        return joints
    tensor = torch.from_numpy(np.ascontiguousarray(joints)) if isinstance(joints, np.ndarray) else joints
    start, shares = _between(tensor.shape[-3], source_fps, target_fps)
    ahead = 2 * tensor[..., :1, :, :] - tensor[..., 1:2, :, :]
    beyond = 2 * tensor[..., -1:, :, :] - tensor[..., -2:-1, :, :]
    frames = torch.cat([ahead, tensor, beyond], dim=-3)
    indices = torch.from_numpy(start).to(tensor.device)
    weights = torch.from_numpy(_catmull_rom(shares)).to(tensor)
    resampled: Tensor = sum(  # type: ignore[assignment]
        weight.view(-1, 1, 1) * frames.index_select(-3, indices + offset) for offset, weight in enumerate(weights)
    )
    return resampled.numpy() if isinstance(joints, np.ndarray) else resampled


def resampled_frames(num_frames: int, source_fps: float, target_fps: float) -> int:
    """How many frames `resample_joints` makes of so many."""
    return int(np.floor((num_frames - 1) * target_fps / source_fps + _ROUNDING)) + 1


def _between(num_frames: int, source_fps: float, target_fps: float) -> tuple[np.ndarray, np.ndarray]:
    """For each new frame the old one before it, and how far it lies on the way to the next, from 0 to 1."""
    place = np.arange(resampled_frames(num_frames, source_fps, target_fps)) * source_fps / target_fps
    start = np.minimum(np.floor(place + _ROUNDING), num_frames - 2).astype(np.int64)
    return start, np.clip(place - start, 0, 1)


def _catmull_rom(shares: np.ndarray) -> np.ndarray:
    """Weights (4, new frames) of the frame before, the two on either side, and the one after."""
    t, t2, t3 = shares, shares**2, shares**3
    return np.stack([-t3 + 2 * t2 - t, 3 * t3 - 5 * t2 + 2, -3 * t3 + 4 * t2 + t, t3 - t2]) / 2
