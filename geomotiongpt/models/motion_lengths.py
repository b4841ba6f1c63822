"""How long motions are to be, in frames and in motion tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

MOST_FRAMES = 100_000  # an hour and more


def as_numbers(num_frames: Any) -> Any:
    """Lengths that came as an array or a tensor, as Python's numbers; others as they are."""
    return num_frames.tolist() if isinstance(num_frames, np.ndarray | Tensor) else num_frames


def share_tokens(
    row: int, num_frames: int | None | Sequence[int | None], num_captions: int, frames_per_token: int
) -> tuple[list[int | None], int | None]:
    """Tokens of each of the captions that one motion shows in turn.

    A caption begins in the token in which the one before ends, or after it, so that the whole is not longer than its
    parts.

    Args:
        row: of the batch, for errors.
        num_frames: length of each part, or one for all of them; None: nothing is asked for.
        num_captions: how many there are.
        frames_per_token: of a code or latent.

    Returns:
        the tokens of each caption, and the frames of the whole; None where nothing is asked for.

    Raises:
        ValueError: for another number of lengths, or a length that is no whole number from 1 to `MOST_FRAMES`.
    """
    asked = num_frames if isinstance(num_frames, Sequence) else [num_frames] * num_captions
    if len(asked) != num_captions:
        raise ValueError(f"{len(asked)} lengths for {num_captions} captions; give one for each.")
    sizes: list[int | None] = []
    frames = made = 0
    for length in asked:
        if length is None:
            sizes.append(None)
            continue
        is_number = isinstance(length, int | np.integer) and not isinstance(length, bool)
        if not (is_number and 1 <= length <= MOST_FRAMES):
            raise ValueError(f"motion {row}: {length} frames are asked for; ask for 1 to {MOST_FRAMES}.")
        frames += int(length)
        size = max(1, -(-frames // frames_per_token) - made)
        sizes.append(size)
        made += size
    return sizes, None if None in asked else frames
