"""What the trainers read: windows of motion, and motion codes with a caption.

Every draw depends on the seed, the epoch and the item alone: a resumed run sees what an uninterrupted one would see.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from datasets import Dataset as HFDataset
from torch.utils.data import Dataset, Sampler

from ..models.feature_extraction_motion import MotionFeatureExtractor
from ..models.processing_geomotiongpt import PLACEHOLDER_TOKEN, GeoMotionGPTProcessor
from ..models.task_prompts import TASKS, MotionTask, MotionTaskExample, get_task

_ROWS_AT_A_TIME = 100


class DrawnDataset(Protocol):
    """A data set whose items are drawn anew in every epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer."""


class MotionWindowDataset(Dataset):
    """Random windows of normalised motion; each frame of the data is equally likely to start one.

    Args:
        dataset: with a `motion` column of features (frames, F), not normalised.
        feature_extractor: normalises and checks the clips.
        window_frames: length of a window; shorter clips are padded at the end and masked.
        num_windows: windows in an epoch; by default the number of frames divided by `window_frames`.
        seed: of the draws.
    """

    def __init__(
        self,
        dataset: HFDataset,
        feature_extractor: MotionFeatureExtractor,
        *,
        window_frames: int,
        num_windows: int | None = None,
        seed: int = 0,
    ):
        self.clips = normalised_clips(dataset, feature_extractor)
        self.window_frames, self.seed, self.epoch = window_frames, seed, 0
        starts = np.array([max(len(clip) - window_frames, 0) + 1 for clip in self.clips])
        self._ends = starts.cumsum()
        frames = sum(len(clip) for clip in self.clips)
        self.num_windows = num_windows or max(1, frames // window_frames)

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer: another epoch draws other windows."""
        self.epoch = int(epoch)

    def __len__(self) -> int:
        return self.num_windows

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """`motion_values` (window_frames, F) and `motion_mask` (window_frames,)."""
        draw = int(np.random.default_rng((self.seed, self.epoch, index)).integers(self._ends[-1]))
        clip_index = int(np.searchsorted(self._ends, draw, side="right"))
        clip = self.clips[clip_index]
        start = draw - (self._ends[clip_index - 1] if clip_index else 0)
        window = torch.from_numpy(clip[start : start + self.window_frames])
        missing = self.window_frames - len(window)
        mask = torch.ones(self.window_frames, dtype=torch.bool)
        if missing:
            window = torch.cat([window, window.new_zeros(missing, window.shape[1])])
            mask[-missing:] = False
        return {"motion_values": window, "motion_mask": mask}


class MotionClipDataset(Dataset):
    """Normalised motions, whole or a piece of each.

    Args:
        dataset: with a `motion` column of features (frames, F), not normalised.
        feature_extractor: normalises and checks the clips.
        max_frames: longest piece; a longer motion is never whole.
        piece_ratio: share of the draws that are pieces, of any length from `min_piece_frames` on, from anywhere.
        min_piece_frames: shortest piece; shorter motions are always whole.
        seed: of the draws; None takes the first `max_frames` of every motion, for evaluation.
    """

    def __init__(
        self,
        dataset: HFDataset,
        feature_extractor: MotionFeatureExtractor,
        *,
        max_frames: int,
        piece_ratio: float = 0.0,
        min_piece_frames: int = 1,
        seed: int | None = None,
    ):
        self.clips = normalised_clips(dataset, feature_extractor)
        self.max_frames, self.piece_ratio, self.min_piece_frames = max_frames, piece_ratio, min_piece_frames
        self.lengths = np.minimum([len(clip) for clip in self.clips], max_frames)
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer: another epoch draws other pieces."""
        self.epoch = int(epoch)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> torch.Tensor:
        """(frames, F) features."""
        clip, length = self.clips[index], int(self.lengths[index])
        start = 0
        if self.seed is not None:
            rng = np.random.default_rng((self.seed, self.epoch, index))
            if rng.random() < self.piece_ratio and length > self.min_piece_frames:
                length = int(rng.integers(self.min_piece_frames, length + 1))
            start = int(rng.integers(len(clip) - length + 1))
        return torch.from_numpy(clip[start : start + length])


def pad_motions(motions: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """(frames, F) motions -> `motion_values` (batch, frames, F), 0 where padded, and `motion_mask` (batch, frames)."""
    lengths = torch.tensor([len(motion) for motion in motions])
    values = torch.nn.utils.rnn.pad_sequence(list(motions), batch_first=True)
    return {"motion_values": values, "motion_mask": torch.arange(values.shape[1]) < lengths.unsqueeze(-1)}


class MotionCaptionDataset(Dataset):
    """Motions with their captions, as rows of one task or of a mixture of tasks.

    Args:
        motion_codes: for each motion one or more code sequences (see `code_offsets` of the training arguments).
        captions: the captions of each motion.
        motion_ids: what to call each motion.
        seed: of the draws; None takes the first codes, the first caption and the first wording, for evaluation, and
            draws a task for each motion once and for all.
        tasks: weight of each task; they need not add up to 1.
        num_wordings: how many wordings of the prompts are drawn from; all by default.

    Raises:
        ValueError: for an unknown task, a weight below 0, or no weight above it.
    """

    def __init__(
        self,
        motion_codes: Sequence[Sequence[Sequence[int]]],
        captions: Sequence[Sequence[str]],
        motion_ids: Sequence[str],
        *,
        seed: int | None,
        tasks: Mapping[str, float] | None = None,
        num_wordings: int | None = None,
    ):
        # Columns of a data set read from disk at every access; lists do not.
        self.motion_codes, self.captions, self.motion_ids = list(motion_codes), list(captions), list(motion_ids)
        self.lengths = np.array([len(group[0]) for group in self.motion_codes])
        self.seed, self.epoch, self.num_wordings = seed, 0, num_wordings
        self.tasks, self._task_ends = check_tasks(tasks or {"motion-to-text": 1.0})

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer: another epoch draws other codes, captions and tasks."""
        self.epoch = int(epoch)

    def __len__(self) -> int:
        return len(self.motion_codes)

    def __getitem__(self, index: int) -> dict:
        """`example` and `name` of one motion; `draw`, what the draws of this item depend on."""
        codes, captions, choice = self.motion_codes[index], self.captions[index], (0, 0)
        draw = None if self.seed is None else (self.seed, self.epoch, index)
        rng = np.random.default_rng(draw or (0, 0, index))
        if draw is not None:
            choice = int(rng.integers(len(codes))), int(rng.integers(len(captions)))
        example = self._draw_example(rng, codes[choice[0]], captions[choice[1]], varied=draw is not None)
        return {"example": example, "name": self.motion_ids[index], "draw": draw}

    def _draw_example(
        self, rng: np.random.Generator, codes: Sequence[int], caption: str, *, varied: bool
    ) -> MotionTaskExample:
        name = self.tasks[int(np.searchsorted(self._task_ends, rng.random(), side="right"))]
        task, num_codes = TASKS[name], len(codes)
        wordings = len(task.wordings[: self.num_wordings])
        start, end = 0, 0
        if name == "motion-prediction" and num_codes > 1:
            start = int(rng.integers(1, num_codes))
        elif name == "motion-in-between" and num_codes > 2:
            # Two cuts, of which the first leaves a start, the second an end, with a gap of one code or more between.
            start, stop = sorted(rng.choice(np.arange(1, num_codes), 2, replace=False).tolist())
            end = num_codes - stop
        return MotionTaskExample(
            name,
            caption if task.answer == "text" or name == "text-to-motion" else None,
            codes,
            num_given_start=start,
            num_given_end=end,
            num_codes=num_codes if task.timed_wordings and rng.random() < 0.5 else None,
            wording=int(rng.integers(wordings)) if varied and wordings > 1 else 0,
        )


class LengthGroupedSampler(Sampler[int]):
    """Order of an epoch in which motions of similar length come together and batches come in random order.

    Args:
        dataset: its motions are drawn; its epoch decides the order.
        batch_size: motions that should be of similar length.
        group_size: motions among which they are sought; the smaller, the more varied the batches.
        seed: of the draws.
    """

    def __init__(
        self,
        dataset: MotionCaptionDataset | MotionClipDataset,
        batch_size: int,
        *,
        group_size: int = 512,
        seed: int = 0,
    ):
        self.dataset, self.batch_size, self.group_size, self.seed = dataset, batch_size, group_size, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.dataset.epoch))
        order = rng.permutation(len(self))
        for start in range(0, len(order), self.group_size):
            group = order[start : start + self.group_size]
            order[start : start + len(group)] = group[np.argsort(self.dataset.lengths[group], kind="stable")]
        whole = len(order) // self.batch_size * self.batch_size  # the last batch, if smaller, stays the last
        batches = rng.permutation(order[:whole].reshape(-1, self.batch_size))
        return iter([*batches.flatten().tolist(), *order[whole:].tolist()])


class MotionTaskCollator:
    """Items of a `MotionCaptionDataset` -> the padded training batch that the processor builds.

    Args:
        processor: of the model.
        code_dropout: share of the motion codes that are replaced by the placeholder, anew in each draw.
        answer_dropout: share of the answer's input tokens that are replaced by padding; labels stay as they are (word
            dropout, arXiv 1511.06349).
    """

    def __init__(self, processor: GeoMotionGPTProcessor, *, code_dropout: float = 0.0, answer_dropout: float = 0.0):
        self.processor, self.code_dropout, self.answer_dropout = processor, code_dropout, answer_dropout
        tokens = processor.tokenizer.convert_tokens_to_ids([PLACEHOLDER_TOKEN, "<motion_0>"])
        self._placeholder_id, self._first_code_id = tokens

    def __call__(self, items: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        """Pads to the longest of the batch."""
        prepared = self.processor.prepare_examples(
            [item["example"] for item in items], with_answers=True, names=[item["name"] for item in items]
        )
        batch = {name: torch.from_numpy(array) for name, array in prepared.items()}
        if self.code_dropout or self.answer_dropout:
            ids = batch["input_ids"]
            chances = np.ones(ids.shape)
            for row, item in zip(chances, items, strict=True):
                if item.get("draw") is not None:
                    np.random.default_rng((*item["draw"], 1)).random(out=row)
            drawn = torch.from_numpy(chances)
            ids[(ids >= self._first_code_id) & (drawn < self.code_dropout)] = self._placeholder_id
            ids[(batch["labels"] != -100) & (drawn < self.answer_dropout)] = self.processor.tokenizer.pad_token_id
        return batch


def check_tasks(weights: Mapping[str, float], tasks: Mapping[str, MotionTask] = TASKS) -> tuple[list[str], np.ndarray]:
    """Names of the tasks that are drawn, and where the share of each ends between 0 and 1.

    Args:
        weights: of the tasks.
        tasks: all that there are.

    Raises:
        ValueError: for an unknown task, a weight below 0, or no weight above it.
    """
    for name, weight in weights.items():
        get_task(name, tasks)
        if not (np.isfinite(weight) and weight >= 0):
            raise ValueError(f"the weight of task {name!r} is {weight}; it must be 0 or more.")
    drawn = {name: float(weight) for name, weight in weights.items() if weight > 0}
    if not drawn:
        raise ValueError(f"tasks are {dict(weights)}: no task has a weight above 0.")
    ends = np.cumsum(list(drawn.values()))
    return list(drawn), (ends / ends[-1])[:-1]


def normalised_clips(dataset: HFDataset, feature_extractor: MotionFeatureExtractor) -> list[np.ndarray]:
    """All motions of a data set, normalised, (frames, F) float32 each; clips too short for one code are refused."""
    clips = []
    # Rows one at a time take ten times as long.
    for rows in dataset.select_columns(["motion_id", "motion"]).iter(_ROWS_AT_A_TIME):
        for motion, motion_id in zip(rows["motion"], rows["motion_id"], strict=True):
            clips.append(feature_extractor.normalise(feature_extractor.to_features(motion, motion_id)))
    return clips


def drop_short_motions(dataset: HFDataset, num_frames: int) -> tuple[HFDataset, list[str]]:
    """Leaves out motions of fewer frames.

    Returns:
        the rest, and the ids of those left out, to be reported.
    """
    rows_of_motions = dataset.select_columns(["motion"]).iter(_ROWS_AT_A_TIME)
    lengths = [len(motion) for rows in rows_of_motions for motion in rows["motion"]]
    short = {index for index, length in enumerate(lengths) if length < num_frames}
    if not short:
        return dataset, []
    kept = dataset.select([index for index in range(len(lengths)) if index not in short])
    return kept, [dataset[index]["motion_id"] for index in sorted(short)]
