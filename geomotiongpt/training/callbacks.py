"""Callbacks of both stages: schedules from the global step, and what to watch in the codebook and the captions."""

import json
import logging
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from torch.distributed.fsdp import FSDPModule
from transformers import TrainerCallback

from ..data.training_sets import DrawnDataset
from ..evaluation.reconstruction import evaluate_reconstruction
from ..models.feature_extraction_motion import MotionFeatureExtractor
from ..models.geometry import codebook_geometry, gram_matrix
from ..models.modeling_motion_tokenizer import MotionTokenizer
from ..models.motion_vocabulary import MotionVocabularyMixin
from ..visualization.plots import plot_code_usage, plot_gram_matrix

logger = logging.getLogger(__name__)


class EpochCallback(TrainerCallback):
    """Tells a training set which epoch it is.

    accelerate does so too, but not in several processes, nor in the epoch in which a run is resumed.

    Args:
        dataset: with `set_epoch`.
    """

    def __init__(self, dataset: DrawnDataset):
        self.dataset = dataset

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Sets the epoch."""
        self.dataset.set_epoch(int(state.epoch))


class OrthonormalLossCallback(TrainerCallback):
    """Schedules lambda, whatever constraint it weighs, and reports the geometry of the motion embeddings in the log.

    The multiplier on the model's `orthonormality_weight` grows linearly from 0 to 1 over the first `warmup_ratio` of
    the steps, or follows a `schedule`. At every log, ||G - I||_F^2, its excess over the Welch bound and the largest
    |cosine| are added: of the codebook, or in a language model of the motion embeddings E.

    Args:
        warmup_ratio: share of the training steps; 0 keeps lambda constant.
        schedule: points (share of the training steps, multiplier); linear between them, constant before the first and
            after the last. Instead of a warm-up.

    Raises:
        ValueError: for an impossible share or multiplier, shares that do not rise, or a schedule beside a warm-up.
    """

    def __init__(self, warmup_ratio: float = 0.0, schedule: Sequence[Sequence[float]] | None = None):
        if not 0 <= warmup_ratio <= 1:
            raise ValueError(f"warmup_ratio is {warmup_ratio}; it is a share of the steps, between 0 and 1.")
        if schedule is not None:
            _check_schedule(schedule)
            if warmup_ratio:
                raise ValueError(
                    f"a warm-up over {warmup_ratio} of the steps and a schedule are given; put the warm-up into the "
                    f"schedule: [0, 0], [{warmup_ratio}, 1], ..."
                )
        self.warmup_ratio, self.schedule = warmup_ratio, schedule

    def multiplier(self, step: int, max_steps: int) -> float:
        """Of lambda at a step."""
        if self.schedule is not None:
            shares, multipliers = zip(*self.schedule, strict=True)
            return float(np.interp(step / max(1, max_steps), shares, multipliers))
        warmup_steps = self.warmup_ratio * max_steps
        return min(1.0, step / warmup_steps) if warmup_steps else 1.0

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        """Sets the multiplier."""
        _scheduled(model).orthonormality_weight_multiplier = self.multiplier(state.global_step, state.max_steps)

    def on_log(self, args, state, control, model=None, logs=None, **kwargs):
        """Adds the geometry to what has just been logged."""
        inner = _scheduled(model)
        is_tokenizer = isinstance(inner, MotionTokenizer)
        geometry = codebook_geometry(inner.codebook.weight if is_tokenizer else inner.motion_geometry())
        logs.update(geometry)
        state.log_history[-1].update(geometry)


class GumbelTemperatureCallback(TrainerCallback):
    """Schedules tau: `initial` until `hold_ratio` of the steps, then exponentially to `final` at `end_ratio`.

    Args:
        initial: tau at the start.
        final: tau at the end, the model's configured temperature.
        hold_ratio: share of the steps before it falls.
        end_ratio: share of the steps when it has arrived.
    """

    def __init__(self, initial: float, final: float, hold_ratio: float = 0.6, end_ratio: float = 0.8):
        if initial <= 0 or final <= 0 or not 0 <= hold_ratio <= end_ratio <= 1:
            raise ValueError(
                f"temperature from {initial} to {final} between {hold_ratio} and {end_ratio} of the steps: "
                "temperatures must be positive and 0 <= hold_ratio <= end_ratio <= 1."
            )
        self.initial, self.final = initial, final
        self.hold_ratio, self.end_ratio = hold_ratio, end_ratio

    def temperature(self, step: int, max_steps: int) -> float:
        """tau at a step."""
        progress = step / max(1, max_steps)
        span = self.end_ratio - self.hold_ratio
        done = float(progress >= self.end_ratio) if span == 0 else (progress - self.hold_ratio) / span
        return self.initial * (self.final / self.initial) ** min(1.0, max(0.0, done))

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        """Sets the multiplier of the configured temperature."""
        temperature = self.temperature(state.global_step, state.max_steps)
        _scheduled(model).gumbel_temperature_multiplier = temperature / self.final

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Adds tau to what has just been logged."""
        if "loss" in (logs or {}):
            temperature = self.temperature(state.global_step, state.max_steps)
            logs["gumbel_temperature"] = state.log_history[-1]["gumbel_temperature"] = temperature


class ReconstructionCallback(TrainerCallback):
    """At every evaluation: reconstruction of whole clips by a motion VAE, in the log.

    Args:
        clips: normalised features (frames, F) of the evaluation clips.
        feature_extractor: that normalised them.
    """

    def __init__(self, clips: Sequence[np.ndarray], feature_extractor: MotionFeatureExtractor):
        self.clips, self.feature_extractor = clips, feature_extractor

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """Refuses a model in pieces: the main process alone could not run it, and all would wait for one another.

        Raises:
            ValueError: under FSDP.
        """
        if isinstance(model, FSDPModule):
            raise ValueError("what encodes motion is small: train it without FSDP.")

    def on_evaluate(self, args, state, control, model=None, metrics=None, **kwargs):
        """Measures on the main process, and tells all: each of them may look for the best checkpoint."""
        model, measured, counts = _unwrap(model), {}, None
        if state.is_world_process_zero:
            measured, counts = evaluate_reconstruction(model, self.feature_extractor, self.clips)
        (measured,) = broadcast_object_list([measured])
        told = {f"eval_{name}": value for name, value in measured.items()}
        state.log_history[-1].update(told)
        if metrics is not None:
            metrics.update(told)
        if not state.is_world_process_zero:
            return
        logger.info(
            "step %d: joint error %.1f mm, in the world %.1f mm",
            state.global_step,
            measured["joint_error_mm"],
            measured["mpjpe_mm"],
        )
        if counts is not None:
            self.show_codes(model, measured, counts, Path(args.output_dir) / "plots")

    def show_codes(self, model, measured: dict[str, float], counts: torch.Tensor, folder: Path) -> None:
        """For a model with codes."""


class CodeUseCallback(ReconstructionCallback):
    """At every evaluation: reconstruction and code use on whole clips, in the log and as plots in `plots/`."""

    def show_codes(self, model, measured: dict[str, float], counts: torch.Tensor, folder: Path) -> None:
        """Logs how many codes are used, and draws the codebook and their use."""
        logger.info(
            "%d of %d codes, perplexity %.0f, ||G - I||^2 %.3f",
            measured["codes_used"],
            len(counts),
            measured["perplexity"],
            measured["gram_error"],
        )
        plot_gram_matrix(gram_matrix(model.codebook.weight.detach()), folder / "gram_matrix.png")
        plot_code_usage(counts, folder / "code_usage.png")


class CaptionSamplesCallback(TrainerCallback):
    """At every evaluation: captions of a few evaluation motions, printed and kept in `caption_samples.jsonl`.

    Args:
        caption: takes a model and the indices of motions, gives their captions.
        motion_ids: of the evaluation motions.
        references: captions of each.
        num_samples: how many motions, spread over the set.
    """

    def __init__(
        self,
        caption: Callable[[torch.nn.Module, Sequence[int]], list[str]],
        motion_ids: Sequence[str],
        references: Sequence[Sequence[str]],
        num_samples: int,
    ):
        self.caption, self.motion_ids, self.references = caption, motion_ids, references
        self.indices = np.linspace(0, len(motion_ids) - 1, min(num_samples, len(motion_ids))).astype(int).tolist()

    def on_evaluate(self, args, state, control, model=None, **kwargs):
        """Captions on the main process; none under FSDP, where it has pieces of the weights only."""
        if not state.is_world_process_zero or not self.indices or isinstance(model, FSDPModule):
            return
        captions = self.caption(_unwrap(model), self.indices)
        with (Path(args.output_dir) / "caption_samples.jsonl").open("a", encoding="utf-8") as file:
            for index, caption in zip(self.indices, captions, strict=True):
                row = {"step": state.global_step, "motion_id": self.motion_ids[index], "caption": caption}
                file.write(json.dumps({**row, "references": list(self.references[index])}) + "\n")
                logger.info("%s: %s (reference: %s)", self.motion_ids[index], caption, self.references[index][0])


def _check_schedule(schedule: Sequence[Sequence[float]]) -> None:
    """Refuses what is no list of (share, multiplier) with rising shares."""
    wanted = "a schedule of lambda is a list of points [share of the steps, multiplier]"
    if not schedule or any(
        not isinstance(point, Sequence) or [type(value) in (int, float) for value in point] != [True, True]
        for point in schedule
    ):
        raise ValueError(f"orthonormality_schedule is {schedule!r}; {wanted}, for example [[0, 0], [0.2, 1]].")
    shares, multipliers = zip(*schedule, strict=True)
    if not all(0 <= share <= 1 for share in shares) or any(a >= b for a, b in pairwise(shares)):
        raise ValueError(
            f"orthonormality_schedule has the shares {list(shares)}; {wanted}, shares rising from 0 to 1."
        )
    if not all(math.isfinite(multiplier) and multiplier >= 0 for multiplier in multipliers):
        raise ValueError(
            f"orthonormality_schedule has the multipliers {list(multipliers)}; {wanted}, multipliers finite and not "
            "negative."
        )


def _unwrap(model: torch.nn.Module) -> torch.nn.Module:
    return model.module if isinstance(model, torch.nn.parallel.DistributedDataParallel) else model


def _scheduled(model: torch.nn.Module) -> torch.nn.Module:
    """The model that reads the multipliers, inside DistributedDataParallel or PEFT."""
    kinds = (MotionVocabularyMixin, MotionTokenizer)
    return next(module for module in model.modules() if isinstance(module, kinds))
