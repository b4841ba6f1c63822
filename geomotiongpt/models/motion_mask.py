"""Which frames of a motion count, and what they may hold."""

import torch
from torch import Tensor


def find_gap(row: int, mask: Tensor) -> tuple[int, int, int]:
    """The gap of a motion of which both ends are given.

    Args:
        row: of the batch, for errors.
        mask: (frames,) bool, True = given; frames after the last True belong to no motion.

    Returns:
        the first frame of the gap, the first after it, and the length of the motion.

    Raises:
        ValueError: unless there are given frames, a gap and given frames.
    """
    changes = torch.diff(mask.int()).nonzero().flatten().tolist()
    if not len(mask) or not mask[0] or len(changes) not in (2, 3):
        raise ValueError(f"row {row} of motion_mask must have given frames, a gap and given frames.")
    first, second, stop = (change + 1 for change in [*changes, len(mask) - 1][:3])
    return first, second, stop


def check_mask(motion_values: Tensor | None, motion_mask: Tensor | None) -> None:
    """Whether a mask, where there is one, is that of the motions.

    Raises:
        ValueError: if it has another shape than their (batch, frames), or there are no motions.
    """
    wanted = None if motion_values is None else tuple(motion_values.shape[:2])
    if motion_mask is not None and tuple(motion_mask.shape) != wanted:
        raise ValueError(
            f"motion_mask has the shape {tuple(motion_mask.shape)}; wanted that of the motions, {wanted}."
        )


def check_finite(name: str, values: Tensor, mask: Tensor | None = None) -> None:
    """Refuses what no model can read; nothing is looked at in a compiled graph.

    Args:
        name: of the values, for errors.
        values: (batch, frames, width).
        mask: (batch, frames), which of them are valid; None: all.

    Raises:
        ValueError: for a NaN or infinite value among the valid.
    """
    if torch.compiler.is_compiling():
        return
    bad = ~values.isfinite().all(-1)
    bad = bad if mask is None else bad & mask.bool()
    if bad.any():
        row, index = bad.nonzero()[0].tolist()
        raise ValueError(f"{name} has a NaN or infinite value, first in row {row} at {index}; leave it out.")
