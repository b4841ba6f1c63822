"""Second stage: trains a `GeoMotionGPTForCausalLM` to caption motions, from a recipe."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset as HFDataset
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    set_seed,
)

from ..data.training_sets import CaptioningCollator, MotionCaptionDataset, normalised_clips
from ..evaluation.reconstruction import encode_clips
from ..models.feature_extraction_motion import MotionFeatureExtractor
from ..models.modeling_geomotiongpt import GeoMotionGPTForCausalLM
from ..models.modeling_motion_tokenizer import MotionTokenizer
from ..models.processing_geomotiongpt import TASK_PROMPTS, GeoMotionGPTProcessor
from .arguments import LanguageModelTrainingArguments, LoraArguments, MotionDataArguments
from .callbacks import CaptionSamplesCallback, EpochCallback, OrthonormalLossCallback
from .motion_tokenizer import load_split
from .recipes import build_section, load_recipe
from .trainer import MotionTrainer, save_whole

if TYPE_CHECKING:
    from peft import PeftModel

logger = logging.getLogger(__name__)

SECTIONS = ("model", "data", "training", "lora", "generation")
END_OF_TEXT = "<|endoftext|>"
_MOTIONS_AT_A_TIME = 2048  # read and encoded: a data set need not fit into memory


@dataclass
class ModelArguments:
    """What the language model is made of.

    Args:
        motion_tokenizer (`str`): a trained motion tokenizer, by path or name.
        language_model (`str`, *optional*): a pretrained GPT-2, by name or path ("gpt2"). Without it a GPT-2 starts
            from random weights, with a byte-level BPE trained on the captions.
        language_model_config (`dict`, *optional*): `GPT2Config` values of the random GPT-2.
        text_vocab_size (`int`, defaults to 2000): largest vocabulary of that BPE.
        projection_seed (`int`, defaults to 0): of the frozen sparse projection P.
        orthonormality_weight (`float`, defaults to 1e-2): lambda'.
        freeze_text_embeddings (`bool`, *optional*): by default True for a pretrained base and False for a random one.
    """

    motion_tokenizer: str
    language_model: str | None = None
    language_model_config: dict[str, Any] | None = None
    text_vocab_size: int = 2000
    projection_seed: int = 0
    orthonormality_weight: float = 1e-2
    freeze_text_embeddings: bool | None = None


def train_language_model(recipe: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Trains a motion-language model and saves it with its processor.

    Args:
        recipe: YAML file with the sections `model` (`ModelArguments`), `data` (`MotionDataArguments`), `training`
            (`LanguageModelTrainingArguments`), and optionally `lora` (`LoraArguments`; its presence turns LoRA on) and
            `generation` (`GenerationConfig` values).
        overrides: `section.key=value` strings.

    Returns:
        the output folder: model (with LoRA: the adapter in `adapter/` and the merged model), processor, generation
        configuration, trainer state and `plots/`.

    Raises:
        FileNotFoundError, ValueError: for a recipe, data or components that cannot be used; nothing is written then.
    """
    sections = load_recipe(recipe, SECTIONS, overrides)
    data = build_section(MotionDataArguments, sections["data"], "data")
    model_args = build_section(ModelArguments, sections["model"], "model")
    lora = build_section(LoraArguments, sections["lora"], "lora") if sections["lora"] else None
    resume = sections["training"].pop("resume_from_checkpoint", None)
    args = build_section(LanguageModelTrainingArguments, sections["training"], "training")
    set_seed(args.seed)
    tokenizer_model = MotionTokenizer.from_pretrained(model_args.motion_tokenizer)
    feature_extractor = MotionFeatureExtractor.from_pretrained(model_args.motion_tokenizer)
    if feature_extractor.representation != data.representation:
        raise ValueError(
            f"the motion tokenizer {model_args.motion_tokenizer} takes {feature_extractor.representation!r} motions, "
            f"the recipe's data are {data.representation!r}."
        )
    train_set = load_split(data, data.train_split, feature_extractor.downsampling_factor)
    eval_set = load_split(data, data.eval_split, feature_extractor.downsampling_factor)

    model, text_tokenizer = build_language_model(model_args, tokenizer_model, train_set["captions"])
    model.generation_config.update(
        **{"max_new_tokens": 40, "do_sample": False, **sections["generation"]},
        eos_token_id=text_tokenizer.eos_token_id,
        pad_token_id=model.config.pad_token_id,
    )
    processor = GeoMotionGPTProcessor.from_components(feature_extractor, text_tokenizer, model.config)
    trainer = _make_trainer(model, processor, args, lora, (train_set, eval_set))
    trainer.train(resume_from_checkpoint=resume)

    def save(trained: Any, folder: Path) -> None:
        if lora is not None:
            save_whole(folder / "adapter", trained)
            trained = trained.merge_and_unload()
        save_whole(folder, trained, processor)

    return trainer.finish(save)


def build_language_model(
    args: ModelArguments, motion_tokenizer: MotionTokenizer, captions: Iterable[Sequence[str]]
) -> tuple[GeoMotionGPTForCausalLM, PreTrainedTokenizerBase]:
    """A pretrained or random GPT-2 joined with a motion tokenizer, and the tokenizer of its text.

    Args:
        args: what to build.
        motion_tokenizer: trained in the first stage.
        captions: of the training motions; a byte-level BPE is trained on them for a random base.
    """
    is_pretrained = args.language_model is not None
    freeze = is_pretrained if args.freeze_text_embeddings is None else args.freeze_text_embeddings
    base: str | GPT2LMHeadModel
    if args.language_model is not None:
        text_tokenizer = AutoTokenizer.from_pretrained(args.language_model)
        base = args.language_model
    else:
        text_tokenizer = train_text_tokenizer(captions, args.text_vocab_size)
        end = text_tokenizer.eos_token_id
        base = GPT2LMHeadModel(
            GPT2Config(
                **{"bos_token_id": end, "eos_token_id": end, **(args.language_model_config or {})},
                vocab_size=len(text_tokenizer),
            )
        )
    model = GeoMotionGPTForCausalLM.from_components(
        base,
        motion_tokenizer,
        projection_seed=args.projection_seed,
        orthonormality_weight=args.orthonormality_weight,
        freeze_text_embeddings=freeze,
    )
    return model, text_tokenizer


def train_text_tokenizer(captions: Iterable[Sequence[str]], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on captions and prompts, for a language model that starts from nothing.

    Args:
        captions: the captions of each motion.
        vocab_size: largest vocabulary, the 256 bytes and the end of text included.
    """
    trainer = ByteLevelBPETokenizer()
    texts = [" " + caption for group in captions for caption in group]
    texts += [part for parts in TASK_PROMPTS.values() for part in parts] * len(texts)
    trainer.train_from_iterator(texts, vocab_size=vocab_size, special_tokens=[END_OF_TEXT], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=trainer._tokenizer, eos_token=END_OF_TEXT, bos_token=END_OF_TEXT)


def caption_codes(
    model: "GeoMotionGPTForCausalLM | PeftModel",
    processor: GeoMotionGPTProcessor,
    motion_codes: Sequence[Iterable[int]],
    *,
    batch_size: int = 64,
    **generate_kwargs,
) -> list[str]:
    """Captions of motions that are already codes, in batches.

    Args:
        model: a `GeoMotionGPTForCausalLM`, with or without LoRA.
        processor: of the model.
        motion_codes: one sequence a motion.
        batch_size: motions at a time.
        **generate_kwargs: for `generate`; the model's generation configuration by default.
    """
    was_training = model.training
    model.eval()
    captions = []
    for start in range(0, len(motion_codes), batch_size):
        inputs = processor(motion_codes=motion_codes[start : start + batch_size]).to(model.device)
        generated = model.generate(**inputs, **generate_kwargs)
        captions += processor.post_process_text(generated, inputs["input_ids"].shape[1])
    model.train(was_training)
    return captions


def _make_trainer(
    model: GeoMotionGPTForCausalLM,
    processor: GeoMotionGPTProcessor,
    args: LanguageModelTrainingArguments,
    lora: LoraArguments | None,
    data: tuple[HFDataset, HFDataset],
) -> MotionTrainer:
    tokenizer, extractor = model.motion_tokenizer.to(args.device), processor.feature_extractor
    train_set, eval_set = data
    train_codes = _encode(tokenizer, extractor, train_set, args.code_offsets)
    eval_codes = _encode(tokenizer, extractor, eval_set, 1)
    train_items = MotionCaptionDataset(train_codes, train_set["captions"], train_set["motion_id"], seed=args.seed)
    eval_items = MotionCaptionDataset(eval_codes, eval_set["captions"], eval_set["motion_id"], seed=None)

    def caption(trained: torch.nn.Module, indices: Sequence[int]) -> list[str]:
        return caption_codes(trained, processor, [eval_codes[index][0] for index in indices])

    return MotionTrainer(
        model=model if lora is None else add_lora(model, lora),
        args=args,
        muon_learning_rate=args.muon_learning_rate,
        train_dataset=train_items,
        eval_dataset=eval_items,
        data_collator=CaptioningCollator(
            processor, code_dropout=args.code_dropout, answer_dropout=args.answer_dropout
        ),
        processing_class=processor,
        callbacks=[
            EpochCallback(train_items),
            OrthonormalLossCallback(args.orthonormality_warmup_ratio),
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


def add_lora(model: GeoMotionGPTForCausalLM, lora: LoraArguments) -> "PeftModel":
    """Wraps the model in PEFT: adapters on the language model; motion codebook and markers train in full.

    Args:
        model: the model to adapt.
        lora: the adapter's settings.

    Returns:
        the wrapped model.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=lora.target_modules,
        fan_in_fan_out=True,
        modules_to_save=["motion_codebook", "marker_embedding"],
    )
    return get_peft_model(model, config)
