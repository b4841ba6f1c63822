"""The stages of LLaMo (arXiv 2602.12370), each from a recipe; a stage goes on where the one before ended."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset as HFDataset
from torch import Tensor, nn
from transformers import set_seed
from transformers.pytorch_utils import Conv1D

from ..data.latent_sequences import LatentSequenceCollator
from ..data.training_sets import MotionCaptionDataset, normalised_clips
from ..evaluation.reconstruction import encode_latent_sequences
from ..models.configuration_llamo import STAGES
from ..models.feature_extraction_motion import MotionFeatureExtractor
from ..models.mixture_of_transformers import MOTION_BRANCH
from ..models.modeling_llamo import LLaMoForCausalLM
from ..models.motion_representation import get_motion_representation
from ..models.processing_llamo import GIVEN, LLaMoProcessor
from ..models.task_prompts import MotionTaskExample
from .arguments import LLaMoTrainingArguments, LoraArguments, MotionDataArguments
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
from .lengths import check_lengths, token_example
from .model_card import write_training_card
from .motion_tokenizer import load_split
from .recipes import build_section
from .trainer import save_whole

if TYPE_CHECKING:
    from peft import PeftModel

logger = logging.getLogger(__name__)


@dataclass
class LLaMoModelArguments(ContinuousModelArguments):
    """What a LLaMo is made of: new from a base and a motion codec, or the model of the stage before.

    Args:
        motion_codec (`str`, *optional*): of a new model: a trained motion codec, by path or name.
        start_from_text (`bool`, defaults to `True`): of a new model: start the motion branch as a copy of the text's.
        exit_weight (`float`, *optional*): of the exit head's loss; by default as it is.
    """

    motion_part = "motion_codec"

    motion_codec: str | None = None
    start_from_text: bool = True
    exit_weight: float | None = None


def train_llamo(sections: dict[str, dict[str, Any]]) -> Path:
    """Trains a stage of LLaMo and saves the model with its processor.

    Args:
        sections: of a recipe: `model` (`LLaMoModelArguments`), `data` (`MotionDataArguments`), `training`
            (`LLaMoTrainingArguments`) and optionally `lora` (`LoraArguments`; its presence turns LoRA on, see
            `add_motion_lora`) and `generation` (`GenerationConfig` values).

    Returns:
        the output folder: model (with LoRA: the adapter in `adapter/` and the merged model), processor, generation
        configuration, trainer state and `plots/`.

    Raises:
        FileNotFoundError, ValueError: for data or components that cannot be used, or a model of another stage than the
            one before; nothing is written then.
    """
    data = build_section(MotionDataArguments, sections["data"], "data")
    model_args = build_section(LLaMoModelArguments, sections["model"], "model")
    lora = build_section(LoraArguments, sections["lora"], "lora") if sections["lora"] else None
    resume = sections["training"].pop("resume_from_checkpoint", None)
    args = build_section(LLaMoTrainingArguments, sections["training"], "training")
    if lora is not None:
        _check_lora(args)
    set_seed(args.seed)
    components = (LLaMoForCausalLM.from_language_model, LLaMoForCausalLM, LLaMoProcessor)
    model, processor = load_model(model_args, args.stage, *components)
    freeze(model, args.frozen)
    adapted = model if lora is None else add_motion_lora(model, lora)
    train_set, eval_set = _load_sets(data, processor.feature_extractor, model.config.codec.downsampling_factor)
    train_set = _drop_slow_motions(train_set, processor.feature_extractor, args.min_speed)
    model.motion_codec.to(args.device)
    train_codes, train_latents = _encode(model, processor.feature_extractor, train_set, args.latent_offsets)
    eval_codes, eval_latents = _encode(model, processor.feature_extractor, eval_set, 1, first_row=len(train_latents))
    for dataset, codes in ((train_set, train_codes), (eval_set, eval_codes)):
        check_lengths(processor, args, dataset, partial(token_example, [max(map(len, group)) for group in codes]))
    if model.config.trained_stage is None:
        model.set_latent_statistics(train_latents)
    model.config.update(
        {
            **model_args.weights,
            "trained_stage": args.stage,
            "trained_tasks": [task for task, weight in args.tasks.items() if weight > 0],
            "max_motion_latents": max(len(codes) for group in train_codes for codes in group),
        }
    )
    set_answers(model, processor, sections["generation"])
    latents = torch.cat([train_latents, eval_latents])
    trainer = _make_trainer(adapted, processor, args, latents, (train_set, train_codes), (eval_set, eval_codes))
    trainer.train(resume_from_checkpoint=resume)

    def save(trained: Any, folder: Path) -> None:
        if lora is not None:
            save_whole(folder / "adapter", trained)
            trained = trained.merge_and_unload()
        save_whole(folder, trained, processor)
        write_training_card(folder, trained, trainer.state.log_history, data.path)

    return trainer.finish(save)


def _load_sets(
    data: MotionDataArguments, extractor: MotionFeatureExtractor, downsampling_factor: int
) -> tuple[HFDataset, HFDataset]:
    """Motions to train on and to evaluate on, of two latents or more."""
    check_representation(extractor, data.representation)
    fewest = 2 * downsampling_factor
    return load_split(data, data.train_split, fewest), load_split(data, data.eval_split, fewest)


def _make_trainer(
    model: "LLaMoForCausalLM | PeftModel",
    processor: LLaMoProcessor,
    args: LLaMoTrainingArguments,
    latents: Tensor,
    training: tuple[HFDataset, list[list[list[int]]]],
    evaluation: tuple[HFDataset, list[list[list[int]]]],
) -> ContinuousMotionTrainer:
    """The trainer of motions that are rows of a table of latents."""
    (train_set, train_codes), (eval_set, eval_codes) = training, evaluation
    mixture: dict[str, Any] = {"tasks": args.tasks, "num_wordings": args.prompt_wordings}
    train_items = MotionCaptionDataset(
        train_codes, train_set["captions"], train_set["motion_id"], seed=args.seed, **mixture
    )
    eval_items = MotionCaptionDataset(eval_codes, eval_set["captions"], eval_set["motion_id"], seed=None, **mixture)

    def caption(trained: Any, indices: Sequence[int]) -> list[str]:
        return caption_latent_sequences(trained, processor, [latents[eval_codes[index][0]] for index in indices])

    collator = LatentSequenceCollator(processor, latents)
    captions = caption if args.tasks.get("motion-to-text") else None
    return make_trainer(model, args, processor, train_items, eval_items, collator, captions)


def add_motion_lora(model: LLaMoForCausalLM, lora: LoraArguments) -> "PeftModel":
    """Wraps the model in PEFT: adapters on linear layers of the motion branch; what is new trains in full.

    New are the rows of the markers, the input adapter and the heads. Text, codec and the rest of the motion branch
    stay as they are.

    Args:
        model: the model to adapt.
        lora: the adapter's settings.

    Returns:
        the wrapped model.

    Raises:
        ValueError: for a single stream, or a layer that the motion branch does not have.
    """
    from peft import LoraConfig, get_peft_model

    if model.config.streams == "single":
        raise ValueError("section 'lora' adapts the motion branch, which a single stream does not have: take it out.")
    branch = [(name, module) for name, module in model.named_modules() if f".{MOTION_BRANCH}." in name]
    layers = {name.rpartition(".")[2]: module for name, module in branch if isinstance(module, nn.Linear | Conv1D)}
    unknown = sorted(set(lora.target_modules) - layers.keys())
    if unknown or not lora.target_modules:
        raise ValueError(
            f"lora.target_modules has {', '.join(unknown) or 'nothing'}; the linear layers of the motion branch are "
            f"{', '.join(sorted(layers))}."
        )
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        # The text branch has layers of the same names
        target_modules=rf".*\.{MOTION_BRANCH}\..*\.({'|'.join(sorted(set(lora.target_modules)))})",
        fan_in_fan_out=any(isinstance(layers[name], Conv1D) for name in lora.target_modules),  # GPT-2's matrices
        modules_to_save=["marker_embedding", *model.heads],
    )
    return get_peft_model(model, config)


def _check_lora(args: LLaMoTrainingArguments) -> None:
    """Raises a ValueError where a stage's other settings leave nothing for adapters to do, or contradict them."""
    if args.stage == STAGES[0] or "motion_branch" in args.frozen:
        raise ValueError(
            f"section 'lora' adapts the motion branch, which stage {args.stage!r} with `frozen: {args.frozen}` does "
            f"not train: take it out, or use it in stage {' or '.join(map(repr, STAGES[1:]))}."
        )
    if "text" not in args.frozen:
        raise ValueError("section 'lora' leaves text as it is: give `training.frozen: [text]`.")


def _drop_slow_motions(dataset: HFDataset, extractor: MotionFeatureExtractor, min_speed: float) -> HFDataset:
    """Leaves out the motions whose joints move slower than so many metres per second on average.

    Raises:
        ValueError: if nothing is left.
    """
    if min_speed == 0:
        return dataset
    facts = get_motion_representation(extractor.representation)
    to_metres_per_second = facts.unit_in_metres * facts.fps
    speeds = []
    for clip in normalised_clips(dataset, extractor):
        steps = np.diff(extractor.to_joints(clip), axis=0)
        speeds.append(np.linalg.norm(steps, axis=-1).mean() * to_metres_per_second)
    slow = [row for row, speed in enumerate(speeds) if speed < min_speed]
    if len(slow) == len(speeds):
        raise ValueError(f"min_speed is {min_speed}, but no motion is faster than {max(speeds):.3g} m/s: lower it.")
    if slow:
        names = ", ".join(dataset[row]["motion_id"] for row in slow[:5])
        logger.warning("left out %d motions slower than %g m/s: %s", len(slow), min_speed, names)
    return dataset.select([row for row in range(len(speeds)) if speeds[row] >= min_speed])


def _encode(
    model: LLaMoForCausalLM,
    extractor: MotionFeatureExtractor,
    dataset: HFDataset,
    num_offsets: int,
    first_row: int = 0,
) -> tuple[list[list[list[int]]], Tensor]:
    """For each motion, at every offset that leaves a latent, the rows of its latents in the table of all."""
    clips, table, rows = normalised_clips(dataset, extractor), [], first_row
    codes: list[list[list[int]]] = [[] for _ in clips]
    unit = model.config.codec.downsampling_factor
    for offset in range(num_offsets):
        long_enough = [row for row, clip in enumerate(clips) if len(clip) - offset >= unit]
        sequences = encode_latent_sequences(model.motion_codec.eval(), [clips[row][offset:] for row in long_enough])
        for row, latents in zip(long_enough, sequences, strict=True):
            codes[row].append(list(range(rows, rows + len(latents))))
            rows += len(latents)
        table += sequences
    return codes, torch.from_numpy(np.concatenate(table))


def caption_latent_sequences(
    model: LLaMoForCausalLM,
    processor: LLaMoProcessor,
    motions: Sequence[Tensor],
    *,
    batch_size: int = 64,
    **generate_kwargs,
) -> list[str]:
    """Captions of motions that are already latents, in batches.

    Args:
        model: a LLaMo.
        processor: of the model.
        motions: (latents, latent_dim) each.
        batch_size: motions at a time.
        **generate_kwargs: for `generate`; the model's generation configuration by default.
    """

    def prepare(rows: slice) -> dict[str, Tensor]:
        latents = list(motions[rows])
        examples = [MotionTaskExample("motion-to-text", motion_codes=[GIVEN] * len(row)) for row in latents]
        prompts = processor.prepare_examples(examples, with_answers=False)
        padded = torch.nn.utils.rnn.pad_sequence(latents, batch_first=True)
        return {**{name: torch.from_numpy(array) for name, array in prompts.items()}, "latents": padded}

    return caption_in_batches(model, processor, len(motions), prepare, batch_size, generate_kwargs)
