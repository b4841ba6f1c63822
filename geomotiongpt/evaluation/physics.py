"""Physical plausibility of motion: foot skating, floating, ground penetration, jerk, acceleration error.

Joints are (frames, J, 3) in the unit and at the frame rate of their representation, y up, on the ground y = 0, as
`features_to_joints` gives them. Published definitions are of a body's surface; here the joints stand for it, and the
data sets put the lowest joint of a clip on the ground. A jump floats and a dance slides, so compare with real motion,
not with zero, and at one frame rate: what is counted in frames (the window of skating, the acceleration error) and
the noise that jerk picks up depend on it. `convert_features` brings 30 frames per second to 20.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..models.motion_representation import get_motion_representation

MILLIMETRES_PER_METRE = 1000.0
CONTACT_HEIGHT = 0.05  # metres; below it a toe is on the ground
SKATING_SPEED = 0.5  # metres per second: 2.5 cm a frame at 20 frames per second
SKATING_WINDOW = 5  # frames over which the speed is averaged


def foot_skating_ratio(joints: ArrayLike, representation: str = "humanml3d") -> float:
    """Share of frames in which a foot slides on the ground.

    A toe slides in the step from a frame to the next if it is lower than 5 cm in both and moves horizontally by more
    than 0.5 m/s, in this step and on average over the five steps around it (zero beyond the ends, as published).

    Args:
        joints: (frames, J, 3), at least 2 frames.
        representation: of the joints.

    Raises:
        ValueError: for a wrong shape, NaN, or too few frames.

    Source: Karunratanakul et al., Guided Motion Diffusion (ICCV 2023), and its published code.
    """
    facts = get_motion_representation(representation)
    metres = _to_metres(joints, representation, min_frames=2)
    toes = metres[:, [facts.left_foot[1], facts.right_foot[1]]]
    speed = np.linalg.norm(np.diff(toes[..., [0, 2]], axis=0), axis=-1) * facts.fps
    around = np.pad(speed, ((SKATING_WINDOW // 2,) * 2, (0, 0)))
    mean_speed = np.lib.stride_tricks.sliding_window_view(around, SKATING_WINDOW, axis=0).mean(axis=-1)
    low = toes[..., 1] < CONTACT_HEIGHT
    slides = low[1:] & low[:-1] & (speed > SKATING_SPEED) & (mean_speed > SKATING_SPEED)
    return float(slides.any(axis=1).mean())


def floating(joints: ArrayLike, representation: str = "humanml3d") -> float:
    """Mean height of the lowest joint above the ground, in millimetres; frames that touch or cross it count 0.

    Args:
        joints: (frames, J, 3).
        representation: of the joints.

    Raises:
        ValueError: for a wrong shape or NaN.

    Source: Yuan et al., PhysDiff (ICCV 2023), `Float`; without its 5 mm of tolerance.
    """
    return float(np.maximum(_lowest_joint(joints, representation), 0).mean() * MILLIMETRES_PER_METRE)


def ground_penetration(joints: ArrayLike, representation: str = "humanml3d") -> float:
    """Mean depth of the lowest joint below the ground, in millimetres; frames above it count 0.

    Args:
        joints: (frames, J, 3).
        representation: of the joints.

    Raises:
        ValueError: for a wrong shape or NaN.

    Source: as for `floating`, `Penetrate`.
    """
    return float(np.maximum(-_lowest_joint(joints, representation), 0).mean() * MILLIMETRES_PER_METRE)


def jerk(joints: ArrayLike, representation: str = "humanml3d") -> float:
    """Mean length of the third derivative of the joints' positions, in m/s^3.

    Args:
        joints: (frames, J, 3), at least 4 frames.
        representation: of the joints.

    Raises:
        ValueError: for a wrong shape, NaN, or too few frames.
    """
    metres = _to_metres(joints, representation, min_frames=4)
    third = np.diff(metres, n=3, axis=0) * get_motion_representation(representation).fps ** 3
    return float(np.linalg.norm(third, axis=-1).mean())


def acceleration_error(joints: ArrayLike, target: ArrayLike, representation: str = "humanml3d") -> float:
    """Mean distance between the joints' accelerations in two motions, in mm/frame^2.

    Times fps^2 / 1000 it is in m/s^2.

    Args:
        joints: (frames, J, 3), at least 3 frames.
        target: of the same shape.
        representation: of both.

    Raises:
        ValueError: for a wrong or another shape, NaN, or too few frames.

    Source: Kanazawa et al., Learning 3D Human Dynamics from Video (CVPR 2019).
    """
    metres = _to_metres(joints, representation, min_frames=3)
    target_metres = _to_metres(target, representation, min_frames=3)
    if metres.shape != target_metres.shape:
        raise ValueError(
            f"motions of {len(metres)} and {len(target_metres)} frames cannot be compared; cut both alike."
        )
    second = np.diff(metres - target_metres, n=2, axis=0)
    return float(np.linalg.norm(second, axis=-1).mean() * MILLIMETRES_PER_METRE)


def joint_displacements(joints: ArrayLike, representation: str = "humanml3d") -> np.ndarray:
    """How far the joint that moves furthest goes from each frame to the next, (frames - 1,) in millimetres.

    Args:
        joints: (frames, J, 3), at least 2 frames.
        representation: of the joints.

    Raises:
        ValueError: for a wrong shape, NaN, or too few frames.
    """
    steps = np.diff(_to_metres(joints, representation, min_frames=2), axis=0)
    return np.linalg.norm(steps, axis=-1).max(axis=1) * MILLIMETRES_PER_METRE


def evaluate_physics(clips: Sequence[ArrayLike], representation: str = "humanml3d") -> dict[str, float]:
    """The measures that need no ground truth, as means over clips.

    Args:
        clips: joints (frames, J, 3) each, at least 4 frames.
        representation: of the joints.

    Returns:
        `foot_skating_ratio`, `floating_mm`, `ground_penetration_mm`, `jerk_m_per_s3`.

    Raises:
        ValueError: if there are no clips, or for a clip of a wrong shape, with NaN, or too short, which it numbers.
    """
    if not len(clips):
        raise ValueError("there are no clips to measure.")
    measures = {
        "foot_skating_ratio": foot_skating_ratio,
        "floating_mm": floating,
        "ground_penetration_mm": ground_penetration,
        "jerk_m_per_s3": jerk,
    }
    values: dict[str, list[float]] = {name: [] for name in measures}
    for index, clip in enumerate(clips):
        try:
            for name, measure in measures.items():
                values[name].append(measure(clip, representation))
        except ValueError as error:
            raise ValueError(f"clip {index}: {error}") from error
    return {name: float(np.mean(series)) for name, series in values.items()}


def _lowest_joint(joints: ArrayLike, representation: str) -> np.ndarray:
    return _to_metres(joints, representation, min_frames=1)[..., 1].min(axis=1)


def _to_metres(joints: ArrayLike, representation: str, *, min_frames: int) -> np.ndarray:
    facts = get_motion_representation(representation)
    array = np.asarray(joints, np.float64)
    if array.ndim != 3 or array.shape[1:] != (facts.num_joints, 3) or len(array) < min_frames:
        raise ValueError(
            f"{representation} joints must have shape ({min_frames} or more frames, {facts.num_joints}, 3), got "
            f"{array.shape}."
        )
    if not np.isfinite(array).all():
        frame = int(np.argwhere(~np.isfinite(array))[0, 0])
        raise ValueError(f"joints have a NaN or infinite value, first in frame {frame}; repair or leave out the clip.")
    return array * facts.unit_in_metres
