"""The stages of LLaMo (arXiv 2602.12370), each from a recipe; a stage goes on where the one before ended."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset as HFDataset
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, set_seed
from transformers.pytorch_utils import Conv1D

from ..checkpoints import check_model_folder
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
from .callbacks import CaptionSamplesCallback, EpochCallback
from .model_card import write_training_card
from .motion_tokenizer import load_split
from .recipes import build_section, set_generation
from .trainer import MotionTrainer, save_whole, set_learning_rate, without_adapters

if TYPE_CHECKING:
    from peft import PeftModel

logger = logging.getLogger(__name__)

# What a stage goes on from; the first starts from a base model and a motion codec.
_COMES_AFTER = {"joint": ("alignment", "joint"), "motion": ("joint", "motion")}
_WEIGHTS = ("language_modeling_weight", "denoising_weight", "exit_weight")
_OF_NEW = ("language_model", "motion_codec")


@dataclass
class LLaMoModelArguments:
    """What the model is made of: new from a base and a motion codec (first stage), or the model of the stage before.

    Args:
        model_type (`str`): "llamo".
        language_model (`str`, *optional*): of a new model: a pretrained causal language model, by name or path.
        motion_codec (`str`, *optional*): of a new model: a trained motion codec, by path or name.
        config (`dict`, *optional*): of a new model: options of `LLaMoConfig`.
        start_from_text (`bool`, defaults to `True`): of a new model: start the motion branch as a copy of the text's.
        trained_model (`str`, *optional*): what the stage before has written, by path or name.
        language_modeling_weight (`float`, *optional*): of the cross entropy; by default as it is.
        denoising_weight (`float`, *optional*): of the flow-matching loss; by default as it is.
        exit_weight (`float`, *optional*): of the exit head's loss; by default as it is.
    """

    model_type: str
    language_model: str | None = None
    motion_codec: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    start_from_text: bool = True
    trained_model: str | None = None
    language_modeling_weight: float | None = None
    denoising_weight: float | None = None
    exit_weight: float | None = None

    def __post_init__(self):
        given = {name: getattr(self, name) for name in _OF_NEW}
        if self.trained_model is None and None in given.values():
            raise ValueError(
                "section 'model' needs 'language_model' and 'motion_codec' for a new model, or 'trained_model'."
            )
        given |= {"config": self.config or None, "start_from_text": None if self.start_from_text else False}
        idle = [name for name, value in given.items() if self.trained_model is not None and value is not None]
        if idle:
            raise ValueError(
                f"section 'model' has 'trained_model', which leaves nothing for {', '.join(idle)} to say: take out "
                f"{'it' if len(idle) == 1 else 'them'}."
            )

    @property
    def weights(self) -> dict[str, float]:
        """Those of the losses that the recipe gives."""
        return {name: getattr(self, name) for name in _WEIGHTS if getattr(self, name) is not None}


class LLaMoTrainer(MotionTrainer):
    """Gives the heads, and the text branch, learning rates of their own."""

    def __init__(
        self, *args, head_learning_rate: float | None = None, text_learning_rate: float | None = None, **kwargs
    ):
        super().__init__(*args, **kwargs)
        self.head_learning_rate, self.text_learning_rate = head_learning_rate, text_learning_rate

    def _group_parameters(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
        model = without_adapters(model)
        assert isinstance(model, LLaMoForCausalLM)
        if self.head_learning_rate is not None:
            heads = (model.denoising_head, model.exit_head, model.motion_input)
            parameters = [parameter for head in heads for parameter in head.parameters()]
            set_learning_rate(optimizer, parameters, self.head_learning_rate)
        if self.text_learning_rate is not None:
            set_learning_rate(optimizer, model.text_parameters().values(), self.text_learning_rate)


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
    model, processor = _load_model(model_args, args)
    _freeze(model, args.frozen)
    adapted = model if lora is None else add_motion_lora(model, lora)
    train_set, eval_set = _load_sets(data, processor.feature_extractor, model.config.codec.downsampling_factor)
    train_set = _drop_slow_motions(train_set, processor.feature_extractor, args.min_speed)
    model.motion_codec.to(args.device)
    train_codes, train_latents = _encode(model, processor.feature_extractor, train_set, args.latent_offsets)
    eval_codes, eval_latents = _encode(model, processor.feature_extractor, eval_set, 1, first_row=len(train_latents))
    for dataset, codes in ((train_set, train_codes), (eval_set, eval_codes)):
        _check_lengths(processor, dataset, codes)
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
    ends = {"pad_token_id": model.config.padding_token_id}
    if model.generation_config.eos_token_id is None:  # a base may know several
        ends["eos_token_id"] = processor.tokenizer.eos_token_id
    set_generation(model, {"max_new_tokens": 40, "do_sample": False, **sections["generation"], **ends})
    latents = torch.cat([train_latents, eval_latents])
    trainer = _make_trainer(adapted, processor, args, latents, (train_set, train_codes), (eval_set, eval_codes))
    trainer.train(resume_from_checkpoint=resume)

    def save(trained: Any, folder: Path) -> None:
        if lora is not None:
            save_whole(folder / "adapter", trained)
            trained = trained.merge_and_unload()
        save_whole(folder, trained, processor)
        write_training_card(folder, trained, trainer.state.log_history, Path(data.path).name)

    return trainer.finish(save)


def _load_sets(
    data: MotionDataArguments, extractor: MotionFeatureExtractor, downsampling_factor: int
) -> tuple[HFDataset, HFDataset]:
    """Motions to train on and to evaluate on, of two latents or more."""
    if extractor.representation != data.representation:
        raise ValueError(
            f"the model takes {extractor.representation!r} motions, the recipe's data are {data.representation!r}: "
            "give data of the model's representation, or a model whose motion codec was trained on that of the data."
        )
    fewest = 2 * downsampling_factor
    return load_split(data, data.train_split, fewest), load_split(data, data.eval_split, fewest)


def _make_trainer(
    model: "LLaMoForCausalLM | PeftModel",
    processor: LLaMoProcessor,
    args: LLaMoTrainingArguments,
    latents: Tensor,
    training: tuple[HFDataset, list[list[list[int]]]],
    evaluation: tuple[HFDataset, list[list[list[int]]]],
) -> LLaMoTrainer:
    """The trainer of motions that are rows of a table of latents."""
    (train_set, train_codes), (eval_set, eval_codes) = training, evaluation
    mixture: dict[str, Any] = {"tasks": args.tasks, "num_wordings": args.prompt_wordings}
    train_items = MotionCaptionDataset(
        train_codes, train_set["captions"], train_set["motion_id"], seed=args.seed, **mixture
    )
    eval_items = MotionCaptionDataset(eval_codes, eval_set["captions"], eval_set["motion_id"], seed=None, **mixture)

    def caption(trained: Any, indices: Sequence[int]) -> list[str]:
        return caption_latent_sequences(trained, processor, [latents[eval_codes[index][0]] for index in indices])

    shown = CaptionSamplesCallback(caption, eval_items.motion_ids, eval_items.captions, args.num_caption_samples)
    return LLaMoTrainer(
        model=model,
        args=args,
        muon_learning_rate=args.muon_learning_rate,
        head_learning_rate=args.head_learning_rate,
        text_learning_rate=args.text_learning_rate,
        train_dataset=train_items,
        eval_dataset=eval_items,
        data_collator=LatentSequenceCollator(processor, latents),
        processing_class=processor,
        callbacks=[EpochCallback(train_items), *([shown] if args.tasks.get("motion-to-text") else [])],
    )


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
        modules_to_save=["marker_embedding", "motion_input", "denoising_head", "exit_head"],
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


def _load_model(
    model_args: LLaMoModelArguments, args: LLaMoTrainingArguments
) -> tuple[LLaMoForCausalLM, LLaMoProcessor]:
    if model_args.trained_model is None:
        if args.stage != STAGES[0]:
            raise ValueError(
                f"stage {args.stage!r} goes on from a trained model: give `model.trained_model`, what stage "
                f"{_COMES_AFTER[args.stage][0]!r} has written."
            )
        return _new_model(model_args)
    check_model_folder(model_args.trained_model)
    model = LLaMoForCausalLM.from_pretrained(model_args.trained_model)
    met, wanted = model.config.trained_stage, _COMES_AFTER.get(args.stage, (args.stage, None))
    if met not in wanted:
        names = " or ".join("no stage yet" if stage is None else repr(stage) for stage in wanted)
        raise ValueError(
            f"{model_args.trained_model} has been through {'no stage' if met is None else f'stage {met!r}'}; stage "
            f"{args.stage!r} goes on from {names}."
        )
    return model, LLaMoProcessor.from_pretrained(model_args.trained_model)


def _new_model(model_args: LLaMoModelArguments) -> tuple[LLaMoForCausalLM, LLaMoProcessor]:
    assert model_args.motion_codec is not None and model_args.language_model is not None
    for name in (model_args.motion_codec, model_args.language_model):
        check_model_folder(name)
    model = LLaMoForCausalLM.from_language_model(
        model_args.language_model,
        AutoModel.from_pretrained(model_args.motion_codec),
        start_from_text=model_args.start_from_text,
        **model_args.config,
    )
    text_tokenizer = AutoTokenizer.from_pretrained(model_args.language_model)
    extractor = MotionFeatureExtractor.from_pretrained(model_args.motion_codec)
    return model, LLaMoProcessor.from_components(extractor, text_tokenizer, model.config)


def _check_lengths(processor: LLaMoProcessor, dataset: HFDataset, codes: Sequence[Sequence[Sequence[int]]]) -> None:
    """Raises a ValueError that names the motion which the language model has no room for with its longest caption."""
    examples = [
        MotionTaskExample("motion-to-text", max(captions, key=len), [GIVEN] * max(map(len, group)))
        for captions, group in zip(dataset["captions"], codes, strict=True)
    ]
    names = dataset["motion_id"]
    for first in range(0, len(examples), 1000):
        rows = slice(first, first + 1000)
        processor.prepare_examples(examples[rows], with_answers=True, names=names[rows])


def _freeze(model: LLaMoForCausalLM, parts: Sequence[str]) -> None:
    """Freezes the named parts, and the motion codec, and nothing else."""
    model.requires_grad_(True)
    model.motion_codec.requires_grad_(False)
    if model.config.streams == "single" and parts:
        raise ValueError(f"frozen has {', '.join(parts)}, but with a single stream motion goes through all weights.")
    if "text" in parts:
        for parameter in model.text_parameters().values():
            parameter.requires_grad_(False)
    if "motion_branch" in parts:
        for name, parameter in model.named_parameters():
            if MOTION_BRANCH in name:
                parameter.requires_grad_(False)


def _drop_slow_motions(dataset: HFDataset, extractor: MotionFeatureExtractor, min_speed: float) -> HFDataset:
    """Leaves out the motions whose joints move slower than so many metres per second on average.

    Raises:
        ValueError: if nothing is left, or for a speed below 0.
    """
    if not 0 <= min_speed < np.inf:
        raise ValueError(f"min_speed is {min_speed}; it must be 0 or more metres per second.")
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
    was_training = model.training
    model.eval()
    captions: list[str] = []
    for start in range(0, len(motions), batch_size):
        rows = motions[start : start + batch_size]
        examples = [MotionTaskExample("motion-to-text", motion_codes=[GIVEN] * len(row)) for row in rows]
        prepared = processor.prepare_examples(examples, with_answers=False)
        inputs = {name: torch.from_numpy(array).to(model.device) for name, array in prepared.items()}
        inputs["latents"] = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True).to(model.device)
        generated = model.generate(**inputs, **generate_kwargs)
        captions += processor.post_process_text(generated, inputs["input_ids"].shape[1])
    model.train(was_training)
    return captions
