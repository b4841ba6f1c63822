"""The embedded data set: captioned synthetic motion in the folder layout of HumanML3D."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ..models.motion_conversion import resample_joints
from ..models.motion_representation import get_motion_representation
from .builder import MotionClip, finish_motion_folder, map_in_processes, write_motion_clips
from .motion_folder import written_aside
from .synthetic_actions import ACTIONS, FPS, MotionAttributes, compose_controls
from .synthetic_captions import write_captions
from .synthetic_motion import controls_to_joints
from .text_files import CaptionSegment

_CLIPS_PER_BATCH = 64  # enough to amortise calls, few enough for the cache
_SPLIT_ROUND = ("train",) * 16 + ("val",) + ("test",) * 3
# Share of the clips that show several actions, and share of these that draw three rather than two (where they last
# longer than a clip may be, the first two are shown): the hardest to learn, so training sees more of them.
_COMPOSED = {"train": 0.7, "val": 0.25, "test": 0.25}
_THREE = {"train": 0.8, "val": 0.5, "test": 0.5}


@dataclass(frozen=True)
class SyntheticClip:
    """One clip.

    Args:
        motion_id: six digits.
        split: "train", "val" or "test".
        segments: what the clip shows, one after another.
        captions: differently worded descriptions, with tagged words.
        joints: (frames, 22, 3) float32 positions at 20 frames per second, metres, y up.
    """

    motion_id: str
    split: str
    segments: tuple[MotionAttributes, ...]
    captions: Sequence[CaptionSegment]
    joints: np.ndarray


def make_synthetic_dataset(
    output_dir: str | os.PathLike,
    num_motions: int = 2000,
    seed: int = 0,
    representation: str = "humanml3d",
    *,
    num_proc: int | None = None,
) -> None:
    """Write a captioned motion data set, made from nothing but a seed, as `build_motion_dataset` would.

    Every action comes up equally often as the first of a clip; a quarter of the clips (of those for training: 70%)
    show two or three, one after another. 80% of the clips are for training, 5% for validation, 15% for testing; each
    has its mirror image `M<id>` in the same split. The same arguments give the same bytes.

    Args:
        output_dir (`str` or `os.PathLike`): folder to write; new or empty. Nothing is in it until it is complete.
        num_motions (`int`, defaults to 2000): clips, without their mirror images; at least 20.
        seed (`int`, defaults to 0): what the clips are drawn from.
        representation (`str`, defaults to `"humanml3d"`): of the features, "humanml3d" or "streaming272"; for the
            latter the motion, which is drawn at 20 frames per second, is resampled to 30.
        num_proc (`int`, *optional*): processes that share the work; the files are the same. By default this one.

    Raises:
        ValueError: if `num_motions` is below 20, `output_dir` holds files, or the representation is of other joints.
        OSError: if a file cannot be written.
    """
    output = Path(output_dir)
    if get_motion_representation(representation).joint_names != get_motion_representation("humanml3d").joint_names:
        raise ValueError(f"representation is {representation!r}; the motions have the 22 joints of 'humanml3d'")
    if num_motions < len(_SPLIT_ROUND):
        raise ValueError(
            f"num_motions is {num_motions}; at least {len(_SPLIT_ROUND)} are needed to fill train, val and test"
        )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} exists and is not an empty folder; name a new one, or remove it first")
    with written_aside(output) as aside:
        clips: list[SyntheticClip] = []
        splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
        drawn = map_in_processes(partial(_make_clips, seed), _plan_clips(num_motions, seed), num_proc)
        with tqdm(total=num_motions, desc="Drawing motions", unit="clip", disable=None) as progress:
            for batch in drawn:
                clips += batch
                progress.update(len(batch))
        for clip in clips:
            splits[clip.split].append(clip.motion_id)
        # Clips of about the same length share a batch, so that little is padded.
        clips.sort(key=lambda clip: len(clip.joints))
        fps = get_motion_representation(representation).fps
        motions = [MotionClip(c.motion_id, resample_joints(c.joints, FPS, fps), c.captions) for c in clips]
        batches = [motions[start : start + _CLIPS_PER_BATCH] for start in range(0, len(motions), _CLIPS_PER_BATCH)]
        write = partial(write_motion_clips, output_dir=aside, representation=representation)
        written = map_in_processes(write, batches, num_proc)
        for failed in tqdm(written, "Writing motions", len(batches), unit="batch", disable=None):
            if failed:
                raise ValueError(f"seed {seed}: clips without features: {failed}")
        with_mirrored = {name: ids + [f"M{i}" for i in ids] for name, ids in splits.items()}
        finish_motion_folder(aside, with_mirrored, representation)


def generate_synthetic_clips(num_motions: int, seed: int = 0) -> Iterator[SyntheticClip]:
    """Draw captioned clips in memory; clip i is the same however many are drawn.

    Args:
        num_motions: number of clips, without mirror images.
        seed: what they are drawn from.
    """
    for batch in _plan_clips(num_motions, seed):
        yield from _make_clips(seed, batch)


def _plan_clips(num_motions: int, seed: int) -> list[list[tuple[int, str, str]]]:
    """Index, first action and split of every clip, in batches."""
    action_seed, split_seed = np.random.SeedSequence(seed).spawn(2)
    actions = _in_shuffled_rounds(tuple(ACTIONS), num_motions, np.random.default_rng(action_seed))
    splits = _in_shuffled_rounds(_SPLIT_ROUND, num_motions, np.random.default_rng(split_seed))
    clips = list(zip(range(num_motions), actions, splits, strict=True))
    return [clips[first : first + _CLIPS_PER_BATCH] for first in range(0, num_motions, _CLIPS_PER_BATCH)]


def _make_clips(seed: int, batch: Sequence[tuple[int, str, str]]) -> list[SyntheticClip]:
    # The children of the seed after the two of `_plan_clips`, one a clip.
    rngs = [np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index + 2,))) for index, _, _ in batch]
    drawn = [_draw_clip(rng, action, split) for rng, (_, action, split) in zip(rngs, batch, strict=True)]
    captions = [write_captions(segments, rng) for (segments, _), rng in zip(drawn, rngs, strict=True)]
    joints = controls_to_joints([controls for _, controls in drawn], rngs)
    return [
        SyntheticClip(f"{index:06d}", split, segments, lines, positions)
        for (index, _, split), (segments, _), lines, positions in zip(batch, drawn, captions, joints, strict=True)
    ]


def _in_shuffled_rounds(items: Sequence[str], num: int, rng: np.random.Generator) -> list[str]:
    """The items over and over, each round in a new order; longer lists begin like shorter ones."""
    return [items[i] for _ in range(0, num, len(items)) for i in rng.permutation(len(items))][:num]


def _draw_clip(rng: np.random.Generator, action: str, split: str) -> tuple[tuple[MotionAttributes, ...], np.ndarray]:
    """Segments beginning with an action, and their controls."""
    composed = rng.random() < _COMPOSED[split]
    while True:  # every action has forms that are short enough
        segments = [_draw_attributes(rng, action)]
        for _ in range(1 + (rng.random() < _THREE[split]) if composed else 0):
            segments.append(_draw_attributes(rng, _next_action(rng, segments[-1].action)))
        controls, num_shown = compose_controls(rng, segments)
        if num_shown > int(composed):
            return tuple(segments[:num_shown]), controls


def _next_action(rng: np.random.Generator, previous: str) -> str:
    """Another action; whoever sits can only stand up, and nobody else can."""
    if previous == "sit_down":
        return "stand_up"
    possible = [action for action in ACTIONS if action not in (previous, "stand_up")]
    return possible[rng.integers(len(possible))]


def _draw_attributes(rng: np.random.Generator, action: str) -> MotionAttributes:
    """Random attributes for an action: slow, ordinary or fast, with or without a count, a distance or an angle."""
    spec = ACTIONS[action]
    side = spec.sides[rng.integers(len(spec.sides))] if spec.sides else None
    chance, amount = rng.random(2)
    speed = ("slow" if chance < 0.25 else "fast" if chance < 0.5 else None) if spec.paced else None
    if spec.distances and amount < 0.3:
        return MotionAttributes(action, side, speed, distance=int(rng.choice(spec.distances)))
    if spec.counts and amount < 0.65:
        return MotionAttributes(action, side, speed, count=int(rng.choice(spec.counts)))
    if spec.degrees:
        return MotionAttributes(action, side, speed, degrees=int(rng.choice(spec.degrees)))
    return MotionAttributes(action, side, speed)
