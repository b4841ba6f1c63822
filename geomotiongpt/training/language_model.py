"""Second stage: trains a motion-language model, from a recipe."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from datasets import Dataset as HFDataset
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    set_seed,
)
from transformers.pytorch_utils import Conv1D

from ..checkpoints import load_captioner
from ..data.training_sets import MotionCaptionDataset, MotionTaskCollator, normalised_clips
from ..evaluation.captioner import motion_lengths
from ..evaluation.reconstruction import encode_clips
from ..models.configuration_llamo import LLaMoConfig
from ..models.configuration_motiongpt3 import MotionGPT3Config
from ..models.feature_extraction_motion import MotionFeatureExtractor
from ..models.modeling_geomotion_llama import GeoMotionLlamaForCausalLM
from ..models.modeling_geomotion_qwen3 import GeoMotionQwen3ForCausalLM
from ..models.modeling_geomotiongpt import GeoMotionGPTForCausalLM
from ..models.modeling_motion_tokenizer import MotionTokenizer
from ..models.motion_vocabulary import MotionVocabularyMixin
from ..models.processing_geomotiongpt import GeoMotionGPTProcessor
from ..models.task_prompts import prompt_words, state_any_duration, stated_numbers
from .arguments import LanguageModelTrainingArguments, LoraArguments, MotionDataArguments
from .callbacks import CaptionSamplesCallback, EpochCallback, OrthonormalLossCallback
from .captions import caption_in_batches
from .evaluator import EVALUATORS
from .lengths import check_lengths, token_example
from .llamo import train_llamo
from .model_card import write_training_card
from .motion_tokenizer import MOTION_TOKENIZERS, load_split
from .motiongpt3 import train_motiongpt3
from .recipes import build_section, load_recipe, set_generation
from .text_model import TEXT_MODEL, train_text_model
from .text_tokenizer import train_text_tokenizer
from .trainer import CodebookTrainer, save_whole

if TYPE_CHECKING:
    from peft import PeftModel

logger = logging.getLogger(__name__)

SECTIONS = ("model", "data", "training", "lora", "generation")
LANGUAGE_MODELS = {
    model.base_model_type: model
    for model in (GeoMotionGPTForCausalLM, GeoMotionLlamaForCausalLM, GeoMotionQwen3ForCausalLM)
}
_OF_NEW_MODELS = ("motion_tokenizer", "language_model", "language_model_config", "text_vocab_size", "free_rows_start")
_GEOMETRY = ("projection", "projection_seed", "geometric_constraint", "spectral_form", "num_code_clusters")
_MOTIONS_AT_A_TIME = 2048  # read and encoded: a data set need not fit into memory

# What stage or family a recipe's `model.model_type` asks for; without one it is GeoMotionGPT.
_TRAINED_BY = {
    MotionGPT3Config.model_type: train_motiongpt3,
    LLaMoConfig.model_type: train_llamo,
    TEXT_MODEL: train_text_model,
}


@dataclass
class ModelArguments:
    """What the language model is made of: new from a motion tokenizer and a base, or a trained one that goes on.

    The geometry of a new model is by default that of `from_components`; a trained model keeps what is not given here,
    and gets the rest by `swap_projection` and `swap_constraint`.

    Args:
        motion_tokenizer (`str`, *optional*): a trained motion tokenizer, by path or name.
        language_model (`str`, *optional*): a pretrained GPT-2, Llama or Qwen3, by name or path ("gpt2"). Without it
            one starts from random weights, with a byte-level BPE trained on the captions.
        language_model_config (`dict`, *optional*): values of the random base's configuration; `model_type` is "gpt2",
            "llama" or "qwen3", by default "gpt2".
        text_vocab_size (`int`, *optional*): largest vocabulary of that BPE, by default 2000.
        trained_model (`str`, *optional*): a trained motion-language model, by path or name, in place of all of these.
        projection (`str`, *optional*): how codes become embeddings, see `MotionVocabularyConfig`.
        projection_seed (`int`, *optional*): of what is drawn of the projection.
        free_rows_start (`str`, *optional*): of the projection "none" in a new model: "projected" or "random".
        geometric_constraint (`str`, *optional*): on the motion embeddings, see `geometric_loss`.
        spectral_form (`str`, *optional*): of the constraint "spectral".
        num_code_clusters (`int`, *optional*): of the constraint "cluster".
        orthonormality_weight (`float`, *optional*): lambda', weight of the constraint.
        freeze_text_embeddings (`bool`, *optional*): by default True for a pretrained base and False for a random one.
    """

    motion_tokenizer: str | None = None
    language_model: str | None = None
    language_model_config: dict[str, Any] | None = None
    text_vocab_size: int | None = None
    trained_model: str | None = None
    projection: str | None = None
    projection_seed: int | None = None
    free_rows_start: str | None = None
    geometric_constraint: str | None = None
    spectral_form: str | None = None
    num_code_clusters: int | None = None
    orthonormality_weight: float | None = None
    freeze_text_embeddings: bool | None = None

    def __post_init__(self):
        if self.trained_model is None and self.motion_tokenizer is None:
            raise ValueError("section 'model' needs 'motion_tokenizer' for a new model, or 'trained_model'.")
        idle = [name for name in _OF_NEW_MODELS if self.trained_model is not None and getattr(self, name) is not None]
        if idle:
            raise ValueError(
                f"section 'model' has 'trained_model', which leaves nothing for {', '.join(idle)} to say: take out "
                f"`{' '.join(f'model.{name}=null' for name in idle)}`."
            )

    def given(self, *names: str) -> dict[str, Any]:
        """Those of the options that the recipe gives."""
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def train_language_model(recipe: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Trains a motion-language model and saves it with its processor.

    Args:
        recipe: YAML file with the sections `model` (`ModelArguments`), `data` (`MotionDataArguments`), `training`
            (`LanguageModelTrainingArguments`), and optionally `lora` (`LoraArguments`; its presence turns LoRA on) and
            `generation` (`GenerationConfig` values). With `model.model_type: motiongpt3` a stage of MotionGPT3, see
            `train_motiongpt3`, with `llamo` one of LLaMo, see `train_llamo`, and with `text` the pretraining of a
            small base model, see `train_text_model`.
        overrides: `section.key=value` strings.

    Returns:
        the output folder: model (with LoRA: the adapter in `adapter/` and the merged model), processor, generation
        configuration, trainer state and `plots/`.

    Raises:
        FileNotFoundError, ValueError: for a recipe, data or components that cannot be used; nothing is written then.
    """
    sections = load_recipe(recipe, SECTIONS, overrides)
    model_type = sections["model"].get("model_type")
    if model_type in _TRAINED_BY:
        return _TRAINED_BY[model_type](sections)
    for kinds, command in ((MOTION_TOKENIZERS, "train-tokenizer"), (EVALUATORS, "train-evaluator")):
        if model_type in kinds:
            raise ValueError(f"{recipe} is of a {model_type!r}: train it with `geomotiongpt {command} {recipe}`.")
    if model_type is not None:
        raise ValueError(
            f"model.model_type is {model_type!r}; it can be {', '.join(_TRAINED_BY)}, or be left out for GeoMotionGPT."
        )
    data = build_section(MotionDataArguments, sections["data"], "data")
    model_args = build_section(ModelArguments, sections["model"], "model")
    lora = build_section(LoraArguments, sections["lora"], "lora") if sections["lora"] else None
    if lora is not None and model_args.trained_model is not None and model_args.given("projection", "projection_seed"):
        raise ValueError(
            "section 'lora': the adapter would stand on a model with another projection than that of "
            f"{model_args.trained_model}, which it names as its base: save that model first "
            "(`model.swap_projection(...)`, `save_pretrained`), and train adapters on it."
        )
    resume = sections["training"].pop("resume_from_checkpoint", None)
    args = build_section(LanguageModelTrainingArguments, sections["training"], "training")
    set_seed(args.seed)
    source = cast(str, model_args.trained_model or model_args.motion_tokenizer)
    if model_args.trained_model is None:
        feature_extractor = MotionFeatureExtractor.from_pretrained(source)
    else:
        model, processor = load_trained_model(model_args)
        feature_extractor = processor.feature_extractor
    if feature_extractor.representation != data.representation:
        raise ValueError(
            f"{source} takes {feature_extractor.representation!r} motions, the recipe's data are "
            f"{data.representation!r}."
        )
    unit = feature_extractor.downsampling_factor
    train_set = load_split(data, data.train_split, unit)
    eval_set = load_split(data, data.eval_split, unit)

    if model_args.trained_model is None:
        tasks, numbers = list(args.tasks), []
        if model_args.language_model is None and state_any_duration(tasks):
            lengths = range(unit, max(motion_lengths(train_set)) + 1, unit)
            numbers = stated_numbers(frames / feature_extractor.sampling_rate for frames in lengths)
        model, text_tokenizer = build_language_model(
            model_args,
            AutoModel.from_pretrained(source),
            train_set["captions"],
            prompt_words(tasks, args.prompt_wordings),
            numbers,
        )
        processor = GeoMotionGPTProcessor.from_components(feature_extractor, text_tokenizer, model.config)
    for dataset in (train_set, eval_set):
        codes = [frames // unit for frames in motion_lengths(dataset)]
        check_lengths(processor, args, dataset, partial(token_example, codes))
    ends = {"eos_token_id": processor.tokenizer.eos_token_id, "pad_token_id": model.config.pad_token_id}
    set_generation(model, {"max_new_tokens": 40, "do_sample": False, **sections["generation"], **ends})
    trainer = _make_trainer(model, processor, args, lora, (train_set, eval_set))
    trainer.train(resume_from_checkpoint=resume)

    def save(trained: Any, folder: Path) -> None:
        if lora is not None:
            save_whole(folder / "adapter", trained)
            trained = trained.merge_and_unload()
        save_whole(folder, trained, processor)
        write_training_card(folder, trained, trainer.state.log_history, data.path)

    return trainer.finish(save)


def load_trained_model(args: ModelArguments) -> tuple[MotionVocabularyMixin, GeoMotionGPTProcessor]:
    """A trained motion-language model that is to be trained on, with the geometry that is asked for.

    Args:
        args: with a `trained_model`.

    Raises:
        FileNotFoundError: if there is no such model.
        ValueError: if it is another kind of model, or as `swap_projection` and `swap_constraint`.
    """
    model, processor = load_captioner(cast(str, args.trained_model))
    if not (isinstance(model, MotionVocabularyMixin) and isinstance(processor, GeoMotionGPTProcessor)):
        raise ValueError(
            f"{args.trained_model} is a {model.config.model_type!r}: give the recipe `model.model_type: "
            f"{model.config.model_type}`."
        )
    seed = args.projection_seed
    if args.projection is not None or seed is not None:
        model.swap_projection(args.projection or model.config.projection, seed=seed)
    constraint = args.given("spectral_form", "num_code_clusters")
    if args.geometric_constraint is not None or constraint:
        model.swap_constraint(args.geometric_constraint or model.config.geometric_constraint, **constraint)
    for name, value in args.given("orthonormality_weight", "freeze_text_embeddings").items():
        setattr(model.config, name, value)
    model._freeze()
    return model, processor


def build_language_model(
    args: ModelArguments,
    motion_tokenizer: MotionTokenizer,
    captions: Iterable[Sequence[str]],
    prompts: Sequence[str] | None = None,
    numbers: Sequence[str] = (),
) -> tuple[MotionVocabularyMixin, PreTrainedTokenizerBase]:
    """A pretrained or random language model joined with a motion tokenizer, and the tokenizer of its text.

    Args:
        args: what to build.
        motion_tokenizer: trained in the first stage.
        captions: of the training motions; a byte-level BPE is trained on them for a random base.
        prompts: the words of the prompts, which that BPE learns too; by default those of captioning.
        numbers: that the prompts state; each becomes a token of that BPE.

    Raises:
        ValueError: for a base of another kind than `LANGUAGE_MODELS` has, or options that do not fit.
    """
    is_pretrained = args.language_model is not None
    freeze = is_pretrained if args.freeze_text_embeddings is None else args.freeze_text_embeddings
    if args.language_model is not None:
        text_tokenizer = AutoTokenizer.from_pretrained(args.language_model)
        base = AutoModelForCausalLM.from_pretrained(args.language_model)
    else:
        text_tokenizer = train_text_tokenizer(captions, args.text_vocab_size or 2000, prompts, numbers)
        end = text_tokenizer.eos_token_id
        values = {"bos_token_id": end, "eos_token_id": end, **(args.language_model_config or {})}
        kind = _check_base(values.pop("model_type", "gpt2"))
        config = AutoConfig.for_model(kind, **values, vocab_size=len(text_tokenizer))
        base = AutoModelForCausalLM.from_config(config)
    model = LANGUAGE_MODELS[_check_base(base.config.model_type)].from_components(
        base,
        motion_tokenizer,
        freeze_text_embeddings=freeze,
        **args.given(*_GEOMETRY, "free_rows_start", "orthonormality_weight"),
    )
    return model, text_tokenizer


def _check_base(model_type: str) -> str:
    if model_type not in LANGUAGE_MODELS:
        raise ValueError(f"the language model is a {model_type!r}; bases can be {', '.join(LANGUAGE_MODELS)}.")
    return model_type


def caption_codes(
    model: "MotionVocabularyMixin | PeftModel",
    processor: GeoMotionGPTProcessor,
    motion_codes: Sequence[Iterable[int]],
    *,
    batch_size: int = 64,
    **generate_kwargs,
) -> list[str]:
    """Captions of motions that are already codes, in batches.

    Args:
        model: a motion-language model, with or without LoRA.
        processor: of the model.
        motion_codes: one sequence a motion.
        batch_size: motions at a time.
        **generate_kwargs: for `generate`; the model's generation configuration by default.
    """

    def prepare(rows: slice) -> Mapping[str, Tensor]:
        return processor(motion_codes=motion_codes[rows])

    return caption_in_batches(model, processor, len(motion_codes), prepare, batch_size, generate_kwargs)


def _make_trainer(
    model: MotionVocabularyMixin,
    processor: GeoMotionGPTProcessor,
    args: LanguageModelTrainingArguments,
    lora: LoraArguments | None,
    data: tuple[HFDataset, HFDataset],
) -> CodebookTrainer:
    tokenizer, extractor = model.motion_tokenizer.to(args.device), processor.feature_extractor
    train_set, eval_set = data
    train_codes = _encode(tokenizer, extractor, train_set, args.code_offsets)
    eval_codes = _encode(tokenizer, extractor, eval_set, 1)
    longest = max(len(codes) for group in train_codes for codes in group)
    model.config.max_motion_codes = longest
    model.config.trained_tasks = [task for task, weight in args.tasks.items() if weight > 0]
    mixture: dict[str, Any] = {"tasks": args.tasks, "num_wordings": args.prompt_wordings}
    train_items = MotionCaptionDataset(
        train_codes, train_set["captions"], train_set["motion_id"], seed=args.seed, **mixture
    )

    def held_out(tasks: Mapping[str, float]) -> MotionCaptionDataset:
        rows = eval_codes, eval_set["captions"], eval_set["motion_id"]
        return MotionCaptionDataset(*rows, seed=None, tasks=tasks, num_wordings=args.prompt_wordings)

    eval_items = held_out(args.tasks)
    by_task = {task: held_out({task: 1.0}) for task in model.config.trained_tasks}

    def caption(trained: torch.nn.Module, indices: Sequence[int]) -> list[str]:
        return caption_codes(trained, processor, [eval_codes[index][0] for index in indices])

    return CodebookTrainer(
        model=model if lora is None else add_lora(model, lora),
        args=args,
        muon_learning_rate=args.muon_learning_rate,
        train_dataset=train_items,
        eval_dataset=by_task if args.eval_each_task else eval_items,
        data_collator=MotionTaskCollator(
            processor, code_dropout=args.code_dropout, answer_dropout=args.answer_dropout
        ),
        processing_class=processor,
        callbacks=[
            EpochCallback(train_items),
            OrthonormalLossCallback(args.orthonormality_warmup_ratio, args.orthonormality_schedule),
            CaptionSamplesCallback(caption, eval_items.motion_ids, eval_items.captions, args.num_caption_samples),
        ],
    )


def _encode(
    tokenizer: MotionTokenizer, feature_extractor: MotionFeatureExtractor, dataset: HFDataset, num_offsets: int
) -> list[list[list[int]]]:
    """For each motion its codes at every offset that leaves at least one code."""
    codes: list[list[list[int]]] = [[] for _ in range(len(dataset))]
    shortest = tokenizer.config.downsampling_factor
    for start in range(0, len(dataset), _MOTIONS_AT_A_TIME):
        rows = range(start, min(start + _MOTIONS_AT_A_TIME, len(dataset)))
        clips = dict(zip(rows, normalised_clips(dataset.select(rows), feature_extractor), strict=True))
        for offset in range(num_offsets):
            long_enough = [row for row, clip in clips.items() if len(clip) - offset >= shortest]
            encoded: list[np.ndarray] = encode_clips(tokenizer, [clips[row][offset:] for row in long_enough])
            for row, sequence in zip(long_enough, encoded, strict=True):
                codes[row].append(sequence.tolist())
    return codes


def add_lora(model: MotionVocabularyMixin, lora: LoraArguments) -> "PeftModel":
    """Wraps the model in PEFT: adapters on the language model; motion codebook and markers train in full.

    So does the projection, if it is a learned one.

    Args:
        model: the model to adapt.
        lora: the adapter's settings.

    Returns:
        the wrapped model.
    """
    from peft import LoraConfig, get_peft_model

    whole = ["motion_codebook", "marker_embedding"]
    if any(True for _ in model.motion_projection.parameters()):
        whole.append("motion_projection")
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=lora.target_modules,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # how GPT-2 stores a matrix
        modules_to_save=whole,
    )
    return get_peft_model(model, config)
