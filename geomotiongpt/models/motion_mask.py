"""Where the frames that are given of a motion stand."""

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
