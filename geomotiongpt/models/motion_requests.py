"""What a model that makes motions latent by latent is asked for, read and checked."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from torch import Tensor

from .motion_lengths import as_numbers, share_tokens
from .motion_mask import check_mask, find_gap
from .processing_llamo import LLaMoProcessor
from .task_prompts import TASKS, get_task


@dataclass
class MotionRequest:
    """One motion that is asked for, and what there is of it so far.

    Args:
        captions: what it shows, one after another; None: nothing is said.
        num_latents: how many each caption takes, what is given included; None: until the exit head ends it.
        latents: those there are, standardised, (latent_dim,) each.
        end: those that are given of its end.
        given: frames of the start, as they were given.
        given_end: those of the end.
        num_frames: length of the motion, where it was asked for.
    """

    captions: list[str | None]
    num_latents: list[int | None]
    latents: list[Tensor] = field(default_factory=list)
    end: list[Tensor] = field(default_factory=list)
    given: Tensor | None = None
    given_end: Tensor | None = None
    num_frames: int | None = None


def read_requests(
    processor: LLaMoProcessor,
    trained_tasks: Sequence[str] | None,
    *,
    text,
    motion_values: Tensor | None,
    motion_mask: Tensor | None,
    task: str,
    num_frames,
) -> list[MotionRequest]:
    """What `generate_motion` is asked for; every wrong call ends here.

    Args:
        processor: of the model.
        trained_tasks: those that the model was trained on; None: unknown.
        text: as in `generate_motion`, like all that follow.
        motion_values: (batch, frames, num_features).
        motion_mask: (batch, frames).
        task: its name.
        num_frames: lengths.

    Raises:
        ValueError: as `generate_motion`.
    """
    if get_task(task, TASKS).answer != "motion":
        raise ValueError(f"task {task!r} answers with {get_task(task, TASKS).answer}: use `generate`.")
    if trained_tasks is not None and task not in trained_tasks:
        raise ValueError(f"the model was trained on {', '.join(trained_tasks)}, not on {task}.")
    captions = _read_captions(task, text)
    num_frames = as_numbers(num_frames)
    _check_given(task, motion_values, motion_mask)
    count = len(captions) if captions else 1 if motion_values is None else len(motion_values)
    if motion_values is None and captions is None and isinstance(num_frames, Sequence):
        count = len(num_frames)
    lengths = list(num_frames) if isinstance(num_frames, Sequence) else [num_frames] * count
    if len(lengths) != count:
        raise ValueError(f"{len(lengths)} lengths for {count} motions; give one number, or one for each.")
    if not count:
        raise ValueError("there is no motion to make: the batch has no rows.")
    motions = [
        _read_lengths(processor, row, captions[row] if captions else [None], lengths[row]) for row in range(count)
    ]
    if motion_values is not None:
        unit = processor.feature_extractor.downsampling_factor
        for row, motion in enumerate(motions):
            mask = None if motion_mask is None else motion_mask[row].bool()
            _read_given(row, motion, motion_values[row], mask, task, unit)
    return motions


def _check_given(task: str, motion_values: Tensor | None, motion_mask: Tensor | None) -> None:
    takes_motion = task in ("motion-prediction", "motion-in-between")
    if takes_motion != (motion_values is not None):
        raise ValueError(
            f"{task!r} goes on from a motion: give `motion_values`."
            if takes_motion
            else f"{task!r} takes no motion; use 'motion-prediction'."
        )
    if motion_values is None:
        if motion_mask is not None:
            raise ValueError("motion_mask is given without `motion_values`.")
        return
    if not isinstance(motion_values, Tensor) or motion_values.dim() != 3:
        raise ValueError("motion_values must be a tensor (batch, frames, num_features).")
    check_mask(motion_values, motion_mask)
    if task == "motion-in-between" and motion_mask is None:
        raise ValueError("motion-in-between: give `motion_mask`, False in the gap to be filled.")


def _read_lengths(processor: LLaMoProcessor, row: int, captions: list[str | None], num_frames) -> MotionRequest:
    unit = processor.feature_extractor.downsampling_factor
    sizes, whole = share_tokens(row, num_frames, len(captions), unit)
    return MotionRequest(captions, sizes, num_frames=whole)


def _read_given(row: int, motion: MotionRequest, values: Tensor, mask: Tensor | None, task: str, unit: int) -> None:
    """The parts of a motion that are given, (frames, num_features) of `values`, as whole latents."""
    start, end = values, None
    if task == "motion-in-between":
        if motion.num_latents != [None]:
            raise ValueError("motion-in-between: the gap in `motion_mask` says how long the motion is.")
        first, second, stop = find_gap(row, cast(Tensor, mask))
        start, end = values[:first], values[second:stop]
        end = end[len(end) % unit :]  # whole latents, the last frame included
        motion.num_frames = stop
    elif mask is not None:
        start = start[: int(mask.sum())]
        if not mask[: len(start)].all():
            raise ValueError(f"row {row} of motion_mask has a hole: the frames that are given come first.")
    start = start[: len(start) // unit * unit]
    for part in (start, end):
        if part is not None and len(part) < unit:
            raise ValueError(f"row {row}: a given part is shorter than the {unit} frames of one latent.")
        if part is not None and not part.isfinite().all():
            raise ValueError(f"row {row}: what is given has a NaN or infinite value; repair or leave it out.")
    motion.given, motion.given_end = start, end
    if end is not None:
        gap = cast(int, motion.num_frames) - len(start) - len(end)
        motion.num_latents = [len(start) // unit + -(-gap // unit)]
    size = motion.num_latents[0]
    if size is not None and size <= len(start) // unit:
        raise ValueError(
            f"motion {row}: {motion.num_frames} frames are asked for, but {len(start)} are given already."
        )


def _read_captions(task: str, text) -> list[list[str | None]] | None:
    """One list of captions for each motion; None for a task that takes none."""
    if task != "text-to-motion":
        if text is not None:
            raise ValueError(f"{task!r} has no use for `text`.")
        return None
    rows = [text] if isinstance(text, str) else text
    if not isinstance(rows, Sequence) or not len(rows):
        raise ValueError("text-to-motion is about captions: give `text`, a caption or a list of captions.")
    captions: list[list[str | None]] = [list(r) if isinstance(r, list | tuple) else [r] for r in rows]
    for caption in [caption for row in captions for caption in row or [""]]:
        if not isinstance(caption, str) or not caption.strip():
            raise ValueError(
                f"a caption is {caption!r}: say what the motion is to show, or make one with task='unconditional'."
            )
    return captions
