"""The stages of MotionGPT3 (arXiv 2506.24086), each from a recipe; a stage goes on where the one before ended."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset as HFDataset
from torch import Tensor
from transformers import set_seed

from ..data.latent_sets import Latent, LatentMotion, LatentTaskCollator, MotionLatentDataset, cut_points
from ..data.training_sets import normalised_clips
from ..evaluation.captioner import motion_lengths
from ..evaluation.reconstruction import encode_latents
from ..models.configuration_motiongpt3 import STAGES
from ..models.feature_extraction_motion import MotionFeatureExtractor
from ..models.modeling_motiongpt3 import MotionGPT3ForCausalLM
from ..models.processing_motiongpt3 import MotionGPT3Processor
from ..models.task_prompts import LATENT_TASKS, LatentTaskExample, get_task
from .arguments import MotionDataArguments, MotionGPT3TrainingArguments
from .captions import caption_in_batches
from .continuous_stages import (
    ContinuousModelArguments,
    ContinuousMotionTrainer,
    check_representation,
    freeze,
    load_model,
    make_trainer,
    set_answers,
)
from .lengths import check_lengths
from .model_card import write_training_card
from .motion_tokenizer import load_split
from .recipes import build_section
from .trainer import save_whole

logger = logging.getLogger(__name__)

_FEWEST_CUT = 3  # frames of a motion that has a start, a gap and an end


@dataclass
class MotionGPT3ModelArguments(ContinuousModelArguments):
    """What a MotionGPT3 is made of: new from a base and a motion VAE, or the model of the stage before.

    Args:
        motion_vae (`str`, *optional*): of a new model: a trained motion VAE, by path or name.
        length_weight (`float`, *optional*): of the length predictor's loss; by default as it is.
    """

    motion_part = "motion_vae"

    motion_vae: str | None = None
    length_weight: float | None = None


def train_motiongpt3(sections: dict[str, dict[str, Any]]) -> Path:
    """Trains a stage of MotionGPT3 and saves the model with its processor.

    Args:
        sections: of a recipe: `model` (`MotionGPT3ModelArguments`), `data` (`MotionDataArguments`), `training`
            (`MotionGPT3TrainingArguments`) and optionally `generation` (`GenerationConfig` values).

    Returns:
        the output folder: model, processor, generation configuration, trainer state and `plots/`.

    Raises:
        FileNotFoundError, ValueError: for data or components that cannot be used, or a model of another stage than the
            one before; nothing is written then.
    """
    if sections["lora"]:
        raise ValueError(
            "section 'lora' has no effect on MotionGPT3, whose motion branch trains in full: take it out."
        )
    data = build_section(MotionDataArguments, sections["data"], "data")
    model_args = build_section(MotionGPT3ModelArguments, sections["model"], "model")
    resume = sections["training"].pop("resume_from_checkpoint", None)
    args = build_section(MotionGPT3TrainingArguments, sections["training"], "training")
    set_seed(args.seed)
    components = (MotionGPT3ForCausalLM.from_components, MotionGPT3ForCausalLM, MotionGPT3Processor)
    model, processor = load_model(model_args, args.stage, *components)
    extractor = processor.feature_extractor
    check_representation(extractor, data.representation)
    fewest = _FEWEST_CUT if _is_cut(args) else 1
    train_set, eval_set = (load_split(data, split, fewest) for split in (data.train_split, data.eval_split))
    for dataset in (train_set, eval_set):
        check_lengths(processor, args, dataset, partial(_example, motion_lengths(dataset)))
    model.motion_vae.to(args.device)
    train_motions = _encode(model, extractor, train_set, args, args.latent_offsets)
    eval_motions = _encode(model, extractor, eval_set, args, 1)
    if model_args.trained_model is None:
        wholes = [motion.whole[0] for motion in train_motions]
        means, stds = (np.stack(values) for values in zip(*((each.mean, each.std) for each in wholes), strict=True))
        model.set_latent_statistics(torch.from_numpy(means), torch.from_numpy(stds))
    predicts_lengths = model_args.weights.get("length_weight", model.config.length_weight) > 0
    model.config.update(
        {
            **model_args.weights,
            "trained_stage": args.stage,
            "has_length_predictor": model.config.has_length_predictor or predicts_lengths,
            "trained_tasks": [task for task, weight in args.tasks.items() if weight > 0],
            "max_motion_frames": max(motion.whole[0].num_frames for motion in train_motions),
        }
    )
    freeze(model, args.frozen)
    set_answers(model, processor, sections["generation"])
    trainer = _make_trainer(model, processor, args, (train_set, train_motions), (eval_set, eval_motions))
    trainer.train(resume_from_checkpoint=resume)

    def save(trained: Any, folder: Path) -> None:
        save_whole(folder, trained, processor)
        write_training_card(folder, trained, trainer.state.log_history, data.path)

    return trainer.finish(save)


def _example(
    num_frames: Sequence[int], task: str, row: int, caption: str, wording: int, is_stated: bool
) -> LatentTaskExample:
    """A row of the motion with so many frames, for `check_lengths`."""
    says_length = is_stated or get_task(task, LATENT_TASKS).answer == "duration"
    return LatentTaskExample(task, caption, num_frames[row] if says_length else None, wording)


def _is_cut(args: MotionGPT3TrainingArguments) -> bool:
    """Whether a task is about parts of a motion."""
    return any(args.tasks.get(name) for name in ("motion-prediction", "motion-in-between"))


def _encode(
    model: MotionGPT3ForCausalLM,
    extractor: MotionFeatureExtractor,
    dataset: HFDataset,
    args: MotionGPT3TrainingArguments,
    num_offsets: int,
) -> list[LatentMotion]:
    """The latents of every motion, and of the parts that the tasks give and ask for."""
    clips = normalised_clips(dataset, extractor)
    longest = model.config.vae.max_frames
    too_long = [name for name, clip in zip(dataset["motion_id"], clips, strict=True) if len(clip) > longest]
    if too_long:
        raise ValueError(
            f"{len(too_long)} motions have more than the {longest} frames that the motion VAE takes ({too_long[0]} "
            "...): leave them out with `data.max_frames`."
        )

    def encode(parts: Sequence[np.ndarray]) -> list[Latent]:
        means, stds = encode_latents(model.motion_vae.eval(), parts)
        return [Latent(mean, std, len(part)) for mean, std, part in zip(means, stds, parts, strict=True)]

    motions = [LatentMotion([latent]) for latent in encode(clips)]
    for offset in range(1, num_offsets):
        long_enough = [row for row, clip in enumerate(clips) if len(clip) > offset]
        for row, latent in zip(long_enough, encode([clips[row][offset:] for row in long_enough]), strict=True):
            motions[row].whole.append(latent)
    for number in range(args.splits_per_motion if _is_cut(args) else 0):
        rng = np.random.default_rng((args.seed, number))
        cuts = [cut_points(len(clip), rng) for clip in clips]
        starts = encode([clip[:start] for clip, (start, _) in zip(clips, cuts, strict=True)])
        if args.tasks.get("motion-prediction"):
            rests = encode([clip[start:] for clip, (start, _) in zip(clips, cuts, strict=True)])
            for motion, start, rest in zip(motions, starts, rests, strict=True):
                motion.predictions.append((start, rest))
        if args.tasks.get("motion-in-between"):
            gaps = encode([clip[start:end] for clip, (start, end) in zip(clips, cuts, strict=True)])
            ends = encode([clip[end:] for clip, (_, end) in zip(clips, cuts, strict=True)])
            for motion, start, gap, end in zip(motions, starts, gaps, ends, strict=True):
                motion.in_betweens.append((start, gap, end))
    return motions


def caption_latents(
    model: MotionGPT3ForCausalLM,
    processor: MotionGPT3Processor,
    motions: Sequence[LatentMotion],
    *,
    batch_size: int = 64,
    **generate_kwargs,
) -> list[str]:
    """Captions of motions that are already latents, in batches.

    Args:
        model: a MotionGPT3.
        processor: of the model.
        motions: the motions.
        batch_size: motions at a time.
        **generate_kwargs: for `generate`; the model's generation configuration by default.
    """

    def prepare(rows: slice) -> dict[str, Tensor]:
        latents = np.stack([motion.whole[0].mean for motion in motions[rows]])
        prompts = processor.prepare_prompts("motion-to-text", len(latents))
        return {**prompts, "latents": torch.from_numpy(latents).unsqueeze(1)}

    return caption_in_batches(model, processor, len(motions), prepare, batch_size, generate_kwargs)


def _make_trainer(
    model: MotionGPT3ForCausalLM,
    processor: MotionGPT3Processor,
    args: MotionGPT3TrainingArguments,
    training: tuple[HFDataset, list[LatentMotion]],
    evaluation: tuple[HFDataset, list[LatentMotion]],
) -> ContinuousMotionTrainer:
    (train_set, train_motions), (eval_set, eval_motions) = training, evaluation
    mixture: dict[str, Any] = {"tasks": args.tasks, "num_wordings": args.prompt_wordings}
    train_items = MotionLatentDataset(
        train_motions, train_set["captions"], train_set["motion_id"], seed=args.seed, **mixture
    )
    eval_items = MotionLatentDataset(eval_motions, eval_set["captions"], eval_set["motion_id"], seed=None, **mixture)

    def caption(trained: Any, indices: Sequence[int]) -> list[str]:
        return caption_latents(trained, processor, [eval_motions[index] for index in indices])

    captions = args.tasks.get("motion-to-text") and args.stage != STAGES[0]
    collator = LatentTaskCollator(processor)
    return make_trainer(model, args, processor, train_items, eval_items, collator, caption if captions else None)
