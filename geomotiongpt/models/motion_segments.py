"""Captions of a long motion: what each part of it shows, and from when to when.

A model describes clips as long as those it was trained on. A longer motion is seen through windows of that length
that overlap; windows with the same caption are one segment.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from transformers.utils import logging

from .generation_settings import merge_settings
from .motion_representation import features_to_joints, joints_to_features
from .motion_skeletons import MotionRepresentation, get_motion_representation
from .task_prompts import LONGEST_TEXT

_USUAL_SECONDS = 10.0  # a window where a model does not say what it was trained on: HumanML3D's longest clips


class TimedCaption(NamedTuple):
    """What a motion shows from `start` to `end`, in seconds."""

    start: float
    end: float
    caption: str


def caption_segments(
    model,
    processor,
    motion: ArrayLike | torch.Tensor,
    *,
    window: float | None = None,
    stride: float | None = None,
    batch_size: int = 16,
    name: str = "motion",
    progress: bool = False,
    **generate_kwargs: Any,
) -> list[TimedCaption]:
    """Captions of the parts of a motion of any length, in their order, from 0 to its end without gaps.

    Only the windows of one batch are in memory; an array that is mapped from a file (`np.load(..., mmap_mode="r")`)
    stays there. A motion that fits into one window gets its ordinary caption.

    Args:
        model: a motion-language model, in evaluation mode.
        processor: of the model.
        motion: features (frames, F) or joints (frames, J, 3), as the feature extractor takes them.
        window: seconds that the model sees at a time; by default the longest motion that it was trained on, as far as
            it fits into its positions beside an answer. Shorter windows find shorter segments.
        stride: seconds from a window to the next, at most; by default half a window.
        batch_size: windows at a time.
        name: what to call the motion in errors.
        progress: show a progress bar.
        **generate_kwargs: for `generate`; the model's generation configuration by default.

    Returns:
        the segments. Neighbours have different captions, and meet where `merge_captions` says.

    Raises:
        ValueError: for a motion that cannot be used, a window that the model cannot see, a stride beyond the window,
            a batch size below 1, or several captions of each window.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; caption at least 1 window at a time.")
    if generate_kwargs.get("num_return_sequences") not in (None, 1):
        raise ValueError("num_return_sequences: a segment has one caption; leave it out.")
    facts = get_motion_representation(processor.feature_extractor.representation)
    array, num_rows = processor.feature_extractor.check(motion, name)
    frames = window_frames(model, processor, window, generate_kwargs)
    windows = plan_windows(num_rows, frames, _stride_frames(stride, frames, facts.fps))
    captions: list[str] = []
    batches = range(0, len(windows), batch_size)
    for first in logging.tqdm(batches, "captioning", disable=not progress or len(batches) < 2 or None):
        shown = windows[first : first + batch_size]
        clips = [cut_window(array, start, end, facts) for start, end in shown]
        names = [f"{name}, {start / facts.fps:g} to {end / facts.fps:g} s," for start, end in shown]
        inputs = processor(motion=clips, names=names, task="motion-to-text").to(model.device)
        generated = model.generate(**inputs, **generate_kwargs)
        captions += processor.post_process_text(generated, inputs["input_ids"].shape[1])
    merged = merge_captions(windows, captions)
    return [TimedCaption(start / facts.fps, end / facts.fps, caption) for start, end, caption in merged]


def window_frames(model, processor, window: float | None, generate_kwargs: dict[str, Any]) -> int:
    """Frames of a window, asked for in seconds or by default; see `caption_segments`.

    Raises:
        ValueError: if the model was not trained on so long a motion, it does not fit, or is shorter than one code.
    """
    extractor = processor.feature_extractor
    fps = get_motion_representation(extractor.representation).fps
    answer = merge_settings(model.generation_config, generate_kwargs)[0].max_new_tokens or LONGEST_TEXT
    trained, fitting = model.config.max_frames, processor.frames_beside(answer)
    most = min(frames for frames in (trained, fitting) if frames is not None)
    if most < extractor.downsampling_factor:
        raise ValueError(f"an answer of {answer} tokens leaves no room for a motion: ask for fewer (max_new_tokens).")
    if window is None:
        return min(most, trained or round(_USUAL_SECONDS * fps))
    frames = round(window * fps) if math.isfinite(window) else 0
    if not extractor.downsampling_factor <= frames <= most:
        least = extractor.downsampling_factor / fps
        raise ValueError(f"window is {window:g} s; this model sees {least:g} to {most / fps:g} s at a time.")
    return frames


def _stride_frames(stride: float | None, window: int, fps: float) -> int:
    if stride is None:
        return max(1, window // 2)
    frames = round(stride * fps) if math.isfinite(stride) else 0
    if not 1 <= frames <= window:
        raise ValueError(
            f"stride is {stride:g} s; wanted one frame ({1 / fps:g} s) up to the window, {window / fps:g} s: what lies"
            " between windows would not be seen."
        )
    return frames


def plan_windows(num_frames: int, window: int, stride: int) -> list[tuple[int, int]]:
    """First frame and end frame (exclusive) of windows over a motion.

    They are evenly spread from its start to its end, at most a stride apart, so that all are of the same length: a
    remainder at the end would be a clip such as training has not shown, and its caption a guess.
    """
    if num_frames <= window:
        return [(0, num_frames)]
    rest = num_frames - window
    steps = -(-rest // stride)
    starts = [step * rest // steps for step in range(steps + 1)]
    return [(start, start + window) for start in starts]


def merge_captions(windows: Sequence[tuple[int, int]], captions: Sequence[str]) -> list[tuple[int, int, str]]:
    """One segment (first frame, end frame, caption) for each run of windows with the same caption.

    Segments meet in the middle of what the last window of one and the first of the next have in common: which of the
    two describes it better is not known.

    Args:
        windows: first and end frames, in order, without gaps.
        captions: one a window.
    """
    segments: list[tuple[int, int, str]] = []
    for (start, end), caption in zip(windows, captions, strict=True):
        if segments:
            begun, before, said = segments.pop()
            if said == caption:
                start = begun
            else:
                start = (start + before) // 2
                segments.append((begun, start, said))
        segments.append((start, end, caption))
    return segments


def cut_window(motion: np.ndarray, start: int, end: int, facts: MotionRepresentation) -> np.ndarray:
    """A part of a motion as if it had been recorded alone.

    Training has seen clips that begin at the origin, face +Z and stand on their own floor. Joints are made into
    features window by window; of features a slice would be something else. In HumanML3D's layout rotations are those
    of bones as seen from the clip's first heading, so that they depend on where somebody faced long before, the first
    row has no heading, and headings are smoothed over 80 frames: of 76 windows of synthetic motion three small models
    captioned 23 to 29 slices like the joints that they came from. So the joints are recovered, which the features hold
    exactly, and made into features anew, with the bone lengths that they have: all 76 captions are the same. In the
    layout "frames" only the first row and the floor depend on other rows; joints would lose the twists of bones.

    Args:
        motion: (frames, F) features, not normalised, or (frames, J, 3) joints.
        start: the first row of features that is wanted.
        end: where they end.
        facts: the representation.

    Returns:
        joints, with the frame more that features need, or features, float64 where they were made anew.
    """
    if motion.ndim == 3:
        return motion[start : end + 1 if facts.layout == "steps" else end]
    if end - start == len(motion):
        return motion
    if facts.layout == "frames":
        return _restart(motion[start:end].astype(np.float64), facts)
    # n rows need n + 1 frames of joints; after the last row of a motion there is none, so begin one earlier
    stop = min(end + 1, len(motion))
    rows = _with_signs_of_turns(motion[stop - (end - start) - 1 : stop].astype(np.float64), facts)
    return joints_to_features(features_to_joints(rows, facts.name), facts.name, retarget=False)


def _with_signs_of_turns(rows: np.ndarray, facts: MotionRepresentation) -> np.ndarray:
    """Rows of the layout "steps", in place, with the turn that positions and velocities tell.

    Where the heading passes 180 degrees from where the motion began, the published features have the wrong sign, and
    recovered joints would snap. A window made of joints rarely gets there; a motion of an hour does all the time.
    """
    places = facts.feature_slices
    seen = rows[:, places["positions"]].reshape(len(rows), -1, 3)[..., ::2]
    steps = rows[:, places["velocities"]].reshape(len(rows), -1, 3)[..., ::2]
    # The joints of the next frame, relative to its root, from this frame's heading and from its own
    x, z = np.moveaxis((seen + steps[:, 1:] - steps[:, :1])[:-1], -1, 0)
    own_x, own_z = np.moveaxis(seen[1:], -1, 0)
    half_turns = np.arctan2((z * own_x - x * own_z).sum(1), (x * own_x + z * own_z).sum(1)) / 2
    said = rows[:-1, 0]
    said[np.abs(half_turns + said) < np.abs(said) / 2] *= -1
    return rows


def _restart(rows: np.ndarray, facts: MotionRepresentation) -> np.ndarray:
    """Rows of the layout "frames", in place, as if a motion began with them."""
    places = facts.feature_slices
    rows[0, places["root_velocity"]] = 0
    rows[0, places["heading_change"]] = (1, 0, 0, 0, 1, 0)
    rows[0, places["velocities"]] = 0
    heights = rows[:, places["positions"]][:, 1::3]
    heights -= heights.min()
    return rows
