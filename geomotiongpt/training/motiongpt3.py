"""The stages of MotionGPT3 (arXiv 2506.24086), each from a recipe; a stage goes on where the one before ended."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset as HFDataset
from torch import nn
from transformers import AutoModel, AutoTokenizer, set_seed

from ..checkpoints import check_model_folder
from ..data.latent_sets import Latent, LatentMotion, LatentTaskCollator, MotionLatentDataset, cut_points
from ..data.training_sets import normalised_clips
from ..evaluation.reconstruction import encode_latents
from ..models.configuration_motiongpt3 import STAGES
from ..models.feature_extraction_motion import MotionFeatureExtractor
from ..models.mixture_of_transformers import MOTION_BRANCH
from ..models.modeling_motiongpt3 import MotionGPT3ForCausalLM
from ..models.processing_motiongpt3 import MotionGPT3Processor
from .arguments import MotionDataArguments, MotionGPT3TrainingArguments
from .callbacks import CaptionSamplesCallback, EpochCallback
from .model_card import write_training_card
from .motion_tokenizer import load_split
from .recipes import build_section, set_generation
from .trainer import MotionTrainer, save_whole, set_learning_rate

logger = logging.getLogger(__name__)

# What a stage goes on from; the first starts from a base model and a motion VAE.
_COMES_AFTER = {"alignment": ("text-to-motion", "alignment"), "joint": ("alignment", "joint")}
_FEWEST_CUT = 3  # frames of a motion that has a start, a gap and an end
_WEIGHTS = ("language_modeling_weight", "denoising_weight", "length_weight")


@dataclass
class MotionGPT3ModelArguments:
    """What the model is made of: new from a base and a motion VAE (first stage), or the model of the stage before.

    Args:
        model_type (`str`): "motiongpt3".
        language_model (`str`, *optional*): of a new model: a pretrained causal language model, by name or path.
        motion_vae (`str`, *optional*): of a new model: a trained motion VAE, by path or name.
        config (`dict`, *optional*): of a new model: options of `MotionGPT3Config`.
        start_from_text (`bool`, defaults to `False`): of a new model: start the motion branch as a copy of the text's.
        trained_model (`str`, *optional*): what the stage before has written, by path or name.
        language_modeling_weight (`float`, *optional*): of the cross entropy; by default as it is.
        denoising_weight (`float`, *optional*): of the denoising loss; by default as it is.
        length_weight (`float`, *optional*): of the length predictor's loss; by default as it is.
    """

    model_type: str
    language_model: str | None = None
    motion_vae: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    start_from_text: bool = False
    trained_model: str | None = None
    language_modeling_weight: float | None = None
    denoising_weight: float | None = None
    length_weight: float | None = None

    def __post_init__(self):
        of_new = {"language_model": self.language_model, "motion_vae": self.motion_vae}
        if self.trained_model is None and None in of_new.values():
            raise ValueError(
                "section 'model' needs 'language_model' and 'motion_vae' for a new model, or 'trained_model'."
            )
        of_new |= {"config": self.config or None, "start_from_text": self.start_from_text or None}
        idle = [name for name, value in of_new.items() if self.trained_model is not None and value is not None]
        if idle:
            raise ValueError(
                f"section 'model' has 'trained_model', which leaves nothing for {', '.join(idle)} to say: take out "
                f"{'it' if len(idle) == 1 else 'them'}."
            )

    @property
    def weights(self) -> dict[str, float]:
        """Those of the losses that the recipe gives."""
        return {name: getattr(self, name) for name in _WEIGHTS if getattr(self, name) is not None}


class MotionGPT3Trainer(MotionTrainer):
    """Gives the heads, and the text branch, learning rates of their own."""

    def __init__(
        self, *args, head_learning_rate: float | None = None, text_learning_rate: float | None = None, **kwargs
    ):
        super().__init__(*args, **kwargs)
        self.head_learning_rate, self.text_learning_rate = head_learning_rate, text_learning_rate

    def _group_parameters(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
        assert isinstance(model, MotionGPT3ForCausalLM)
        if self.head_learning_rate is not None:
            heads = (model.denoising_head, model.length_head, model.motion_input)
            parameters = [parameter for head in heads for parameter in head.parameters()]
            set_learning_rate(optimizer, parameters, self.head_learning_rate)
        if self.text_learning_rate is not None:
            set_learning_rate(optimizer, model.text_parameters().values(), self.text_learning_rate)


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
    model, processor = _load_model(model_args, args)
    extractor = processor.feature_extractor
    if extractor.representation != data.representation:
        raise ValueError(
            f"the model takes {extractor.representation!r} motions, the recipe's data are {data.representation!r}."
        )
    fewest = _FEWEST_CUT if _is_cut(args) else 1
    train_set, eval_set = (load_split(data, split, fewest) for split in (data.train_split, data.eval_split))
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
    _freeze(model, args.frozen)
    ends = {"eos_token_id": processor.tokenizer.eos_token_id, "pad_token_id": model.config.padding_token_id}
    set_generation(model, {"max_new_tokens": 40, "do_sample": False, **sections["generation"], **ends})
    trainer = _make_trainer(model, processor, args, (train_set, train_motions), (eval_set, eval_motions))
    trainer.train(resume_from_checkpoint=resume)

    def save(trained: Any, folder: Path) -> None:
        save_whole(folder, trained, processor)
        write_training_card(folder, trained, trainer.state.log_history, Path(data.path).name)

    return trainer.finish(save)


def _load_model(
    model_args: MotionGPT3ModelArguments, args: MotionGPT3TrainingArguments
) -> tuple[MotionGPT3ForCausalLM, MotionGPT3Processor]:
    if model_args.trained_model is None:
        if args.stage != STAGES[0]:
            raise ValueError(
                f"stage {args.stage!r} goes on from a trained model: give `model.trained_model`, what stage "
                f"{_COMES_AFTER[args.stage][0]!r} has written."
            )
        return _new_model(model_args)
    check_model_folder(model_args.trained_model)
    model = MotionGPT3ForCausalLM.from_pretrained(model_args.trained_model)
    met, wanted = model.config.trained_stage, _COMES_AFTER.get(args.stage, (args.stage, None))
    if met not in wanted:
        names = " or ".join("no stage yet" if stage is None else repr(stage) for stage in wanted)
        raise ValueError(
            f"{model_args.trained_model} has been through {'no stage' if met is None else f'stage {met!r}'}; stage "
            f"{args.stage!r} goes on from {names}."
        )
    return model, MotionGPT3Processor.from_pretrained(model_args.trained_model)


def _new_model(model_args: MotionGPT3ModelArguments) -> tuple[MotionGPT3ForCausalLM, MotionGPT3Processor]:
    assert model_args.motion_vae is not None and model_args.language_model is not None
    for name in (model_args.motion_vae, model_args.language_model):
        check_model_folder(name)
    model = MotionGPT3ForCausalLM.from_components(
        model_args.language_model,
        AutoModel.from_pretrained(model_args.motion_vae),
        start_from_text=model_args.start_from_text,
        **model_args.config,
    )
    text_tokenizer = AutoTokenizer.from_pretrained(model_args.language_model)
    extractor = MotionFeatureExtractor.from_pretrained(model_args.motion_vae)
    return model, MotionGPT3Processor.from_components(extractor, text_tokenizer, model.config)


def _freeze(model: MotionGPT3ForCausalLM, parts: Sequence[str]) -> None:
    """Freezes the named parts, and the motion VAE, and nothing else."""
    model.requires_grad_(True)
    model.motion_vae.requires_grad_(False)
    if "text" in parts:
        if model.config.streams == "single":
            raise ValueError("frozen has 'text', but with a single stream motion goes through the text weights.")
        for parameter in model.text_parameters().values():
            parameter.requires_grad_(False)
    if "motion_branch" in parts:
        if model.config.streams == "single":
            raise ValueError("frozen has 'motion_branch', which a single stream does not have: take it out.")
        for name, parameter in model.named_parameters():
            if MOTION_BRANCH in name:
                parameter.requires_grad_(False)


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
    was_training = model.training
    model.eval()
    captions: list[str] = []
    for start in range(0, len(motions), batch_size):
        rows = [motion.whole[0].mean for motion in motions[start : start + batch_size]]
        inputs = processor.prepare_prompts("motion-to-text", len(rows))
        latents = torch.from_numpy(np.stack(rows)).unsqueeze(1)
        on_device = {name: value.to(model.device) for name, value in {**inputs, "latents": latents}.items()}
        generated = model.generate(**on_device, **generate_kwargs)
        captions += processor.post_process_text(generated, inputs["input_ids"].shape[1])
    model.train(was_training)
    return captions


def _make_trainer(
    model: MotionGPT3ForCausalLM,
    processor: MotionGPT3Processor,
    args: MotionGPT3TrainingArguments,
    training: tuple[HFDataset, list[LatentMotion]],
    evaluation: tuple[HFDataset, list[LatentMotion]],
) -> MotionGPT3Trainer:
    (train_set, train_motions), (eval_set, eval_motions) = training, evaluation
    mixture: dict[str, Any] = {"tasks": args.tasks, "num_wordings": args.prompt_wordings}
    train_items = MotionLatentDataset(
        train_motions, train_set["captions"], train_set["motion_id"], seed=args.seed, **mixture
    )
    eval_items = MotionLatentDataset(eval_motions, eval_set["captions"], eval_set["motion_id"], seed=None, **mixture)

    def caption(trained: Any, indices: Sequence[int]) -> list[str]:
        return caption_latents(trained, processor, [eval_motions[index] for index in indices])

    captions = args.tasks.get("motion-to-text") and args.stage != STAGES[0]
    shown = CaptionSamplesCallback(caption, eval_items.motion_ids, eval_items.captions, args.num_caption_samples)
    return MotionGPT3Trainer(
        model=model,
        args=args,
        muon_learning_rate=args.muon_learning_rate,
        head_learning_rate=args.head_learning_rate,
        text_learning_rate=args.text_learning_rate,
        train_dataset=train_items,
        eval_dataset=eval_items,
        data_collator=LatentTaskCollator(processor),
        processing_class=processor,
        callbacks=[EpochCallback(train_items), *([shown] if captions else [])],
    )
