"""What trains a language model for which a motion is one latent: rows of tasks, and batches of them.

Every draw depends on the seed, the epoch and the item alone: a resumed run sees what an uninterrupted one would see.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import Dataset

from ..models.processing_motiongpt3 import MotionGPT3Processor
from ..models.task_prompts import LATENT_TASKS, LatentTaskExample
from .training_sets import check_tasks

_SPLIT_SHARES = 0.1, 0.5  # of a motion, at most, that prediction and in-betweening are given at an end


@dataclass(frozen=True)
class Latent:
    """A motion, or a part of one, as the motion VAE has it.

    Args:
        mean: (num_latent_tokens, latent_dim) float32.
        std: the same shape.
        num_frames: of the motion.
    """

    mean: np.ndarray
    std: np.ndarray
    num_frames: int

    def sample(self, rng: np.random.Generator | None) -> np.ndarray:
        """A draw; without a generator the mean."""
        if rng is None:
            return self.mean
        return self.mean + self.std * rng.standard_normal(self.mean.shape, np.float32)


@dataclass(frozen=True)
class LatentMotion:
    """A motion and what the tasks need of it.

    Args:
        whole: one or more latents of it: the first of all frames, others without its first few.
        predictions: pairs of a start and the rest.
        in_betweens: triples of a start, the gap and the end.
    """

    whole: list[Latent]
    predictions: list[tuple[Latent, Latent]] = field(default_factory=list)
    in_betweens: list[tuple[Latent, Latent, Latent]] = field(default_factory=list)


def cut_points(num_frames: int, rng: np.random.Generator) -> tuple[int, int]:
    """Frames at which a start ends and an end begins; each is a tenth of the motion or more, and leaves a gap."""
    low, high = _SPLIT_SHARES
    start, end = (max(1, round(num_frames * share)) for share in rng.uniform(low, high, 2))
    end = min(end, num_frames - 1 - start)
    return start, num_frames - max(1, end)


class MotionLatentDataset(Dataset):
    """Motions with their captions, as rows of one task or of a mixture of tasks.

    Args:
        motions: the latents of each motion.
        captions: the captions of each motion.
        motion_ids: what to call each motion.
        tasks: weight of each task; they need not add up to 1.
        seed: of the draws; None takes the first of everything and means, for evaluation, and draws a task for each
            motion once and for all.
        num_wordings: how many wordings of the prompts are drawn from; all by default.

    Raises:
        ValueError: for an unknown task, a weight below 0, or no weight above it.
    """

    def __init__(
        self,
        motions: Sequence[LatentMotion],
        captions: Sequence[Sequence[str]],
        motion_ids: Sequence[str],
        *,
        tasks: Mapping[str, float],
        seed: int | None,
        num_wordings: int | None = None,
    ):
        # Columns of a data set read from disk at every access; lists do not.
        self.motions, self.captions, self.motion_ids = list(motions), list(captions), list(motion_ids)
        self.seed, self.epoch, self.num_wordings = seed, 0, num_wordings
        self.tasks, self._task_ends = check_tasks(tasks, LATENT_TASKS)

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer: another epoch draws other latents, captions and tasks."""
        self.epoch = int(epoch)

    def __len__(self) -> int:
        return len(self.motions)

    def __getitem__(self, index: int) -> dict:
        """`example` and `name` of one motion; `given`, latents of the prompt; `target` and `target_num_frames`."""
        is_training = self.seed is not None
        rng = np.random.default_rng((self.seed or 0, self.epoch, index))
        name = self.tasks[int(np.searchsorted(self._task_ends, rng.random(), side="right"))]
        task, motion = LATENT_TASKS[name], self.motions[index]

        def pick(options: Sequence):
            return options[int(rng.integers(len(options)))] if is_training else options[0]

        caption = pick(self.captions[index])
        given: tuple[Latent, ...] = ()
        target = None
        if name == "motion-prediction":
            *given, target = pick(motion.predictions)
        elif name == "motion-in-between":
            start, target, end = pick(motion.in_betweens)
            given = start, end
        elif task.answer == "motion":
            target = pick(motion.whole)
        elif name != "text":
            given = (pick(motion.whole),)
        num_frames = None
        if task.answer == "duration":
            num_frames = given[0].num_frames
        elif target is not None and rng.random() < 0.5:
            num_frames = target.num_frames
        wordings = len(task.wordings[: self.num_wordings])
        example = LatentTaskExample(
            name,
            caption if task.answer == "text" or name == "text-to-motion" else None,
            num_frames,
            int(rng.integers(wordings)) if is_training and wordings > 1 else 0,
        )
        noise = rng if is_training else None
        return {
            "example": example,
            "name": self.motion_ids[index],
            "given": [latent.sample(noise) for latent in given],
            "target": None if target is None else target.sample(noise),
            # A length that the prompt states need not be predicted
            "target_num_frames": 0 if target is None or num_frames is not None else target.num_frames,
        }


class LatentTaskCollator:
    """Items of a `MotionLatentDataset` -> the padded training batch that the model takes.

    Args:
        processor: of the model.
    """

    def __init__(self, processor: MotionGPT3Processor):
        self.processor = processor

    def __call__(self, items: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        """Pads to the longest of the batch; rows with fewer motions than others are filled with zeros."""
        prepared = self.processor.prepare_examples(
            [item["example"] for item in items], with_answers=True, names=[item["name"] for item in items]
        )
        batch = {name: torch.from_numpy(array) for name, array in prepared.items()}
        most = max(len(item["given"]) for item in items)
        if most:
            shape = next(item["given"][0].shape for item in items if item["given"])
            latents = np.zeros((len(items), most, *shape), np.float32)
            for row, item in zip(latents, items, strict=True):
                row[: len(item["given"])] = item["given"] or 0
            batch["latents"] = torch.from_numpy(latents)
        made = [item for item in items if item["target"] is not None]
        if made:
            batch["target_latents"] = torch.from_numpy(np.stack([item["target"] for item in made]))
            batch["target_num_frames"] = torch.tensor([item["target_num_frames"] for item in made])
        return batch
