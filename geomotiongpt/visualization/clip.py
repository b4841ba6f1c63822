"""A motion as every writer takes it: checked, as joints in metres."""

from dataclasses import dataclass

import numpy as np
import torch

from ..models.motion_representation import MotionRepresentation, features_to_joints, get_motion_representation
from .output import to_array


@dataclass(frozen=True)
class Clip:
    """One motion.

    Args:
        skeleton: representation whose joints these are.
        joints: (frames, J, 3) float64, metres, Y up.
        fps: frames a second.
        given: what the joints were made of: features (frames, F), or joints (frames, J, 3) in the unit of the
            representation; in the dtype given.
        caption: what it shows; empty for nothing.
    """

    skeleton: MotionRepresentation
    joints: np.ndarray
    fps: float
    given: np.ndarray
    caption: str

    @property
    def has_features(self) -> bool:
        return self.given.ndim == 2

    @property
    def seconds(self) -> float:
        return len(self.joints) / self.fps


def read_clip(
    motion: np.ndarray | torch.Tensor, representation: str, *, fps: float | None = None, caption: str | None = None
) -> Clip:
    """Check a motion and recover its joints.

    Args:
        motion: joints (frames, J, 3) in the unit of the representation, or features (frames, F), not normalised.
        representation: name of the representation of either.
        fps: frames a second; the representation's own by default.
        caption: what it shows.

    Raises:
        ValueError: for another shape, a value that is not finite, or an fps that is not positive and finite.
    """
    skeleton = get_motion_representation(representation)
    fps = check_fps(fps, skeleton)
    given = motion.detach().cpu().numpy() if isinstance(motion, torch.Tensor) else np.asarray(motion)
    if given.ndim == 2 and given.shape[1] == skeleton.num_features and len(given) and given.dtype.kind in "fiu":
        if not np.isfinite(given).all():
            frame, feature = np.argwhere(~np.isfinite(given))[0]
            raise ValueError(f"feature {feature} of frame {frame} is not finite: {given[frame, feature]}")
        joints = features_to_joints(given.astype(np.float64), representation) * skeleton.unit_in_metres
    else:
        joints = joints_in_metres(given, skeleton)
    return Clip(skeleton, joints, fps, given, caption or "")


def check_fps(fps: float | None, skeleton: MotionRepresentation) -> float:
    """`fps`, or the representation's own."""
    fps = skeleton.fps if fps is None else fps
    if not 0 < fps < float("inf"):
        raise ValueError(f"fps must be positive and finite, got fps={fps}")
    return fps


def joints_in_metres(joints: np.ndarray | torch.Tensor, skeleton: MotionRepresentation) -> np.ndarray:
    """Check positions (frames, J, 3) and bring them to metres."""
    motion = to_array(joints)
    if motion.ndim != 3 or len(motion) == 0 or motion.shape[1:] != (skeleton.num_joints, 3):
        raise ValueError(
            f"joints must have shape (frames, {skeleton.num_joints}, 3) for {skeleton.name!r} and features (frames, "
            f"{skeleton.num_features}), got {motion.shape}: pass one clip, or name its representation"
        )
    if not np.isfinite(motion).all():
        frame, joint = np.argwhere(~np.isfinite(motion))[0][:2]
        raise ValueError(f"joint {joint} of frame {frame} is not finite: {motion[frame, joint].tolist()}")
    return motion * skeleton.unit_in_metres
