"""Second stage: trains a motion-language model, from a recipe."""

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
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    set_seed,
)
from transformers.pytorch_utils import Conv1D

from ..data.training_sets import MotionCaptionDataset, MotionTaskCollator, normalised_clips
from ..evaluation.reconstruction import encode_clips
from ..models.feature_extraction_motion import MotionFeatureExtractor
from ..models.modeling_geomotion_llama import GeoMotionLlamaForCausalLM
from ..models.modeling_geomotion_qwen3 import GeoMotionQwen3ForCausalLM
from ..models.modeling_geomotiongpt import GeoMotionGPTForCausalLM
from ..models.modeling_motion_tokenizer import MotionTokenizer
from ..models.motion_vocabulary import MotionVocabularyMixin
from ..models.processing_geomotiongpt import GeoMotionGPTProcessor
from ..models.task_prompts import prompt_words
from .arguments import LanguageModelTrainingArguments, LoraArguments, MotionDataArguments
from .callbacks import CaptionSamplesCallback, EpochCallback, OrthonormalLossCallback
from .motion_tokenizer import load_split
from .recipes import build_section, load_recipe
from .trainer import MotionTrainer, save_whole

if TYPE_CHECKING:
    from peft import PeftModel

logger = logging.getLogger(__name__)

SECTIONS = ("model", "data", "training", "lora", "generation")
LANGUAGE_MODELS = {
    model.base_model_type: model
    for model in (GeoMotionGPTForCausalLM, GeoMotionLlamaForCausalLM, GeoMotionQwen3ForCausalLM)
}
END_OF_TEXT = "<|endoftext|>"
_MOTIONS_AT_A_TIME = 2048  # read and encoded: a data set need not fit into memory


@dataclass
class ModelArguments:
    """What the language model is made of.

    Args:
        motion_tokenizer (`str`): a trained motion tokenizer, by path or name.
        language_model (`str`, *optional*): a pretrained GPT-2, Llama or Qwen3, by name or path ("gpt2"). Without it
            one starts from random weights, with a byte-level BPE trained on the captions.
        language_model_config (`dict`, *optional*): values of the random base's configuration; `model_type` is "gpt2",
            "llama" or "qwen3", by default "gpt2".
        text_vocab_size (`int`, defaults to 2000): largest vocabulary of that BPE.
        projection (`str`, defaults to `"sparse"`): how codes become embeddings, see `MotionVocabularyConfig`.
        projection_seed (`int`, defaults to 0): of what is drawn of the projection.
        free_rows_start (`str`, defaults to `"projected"`): of the projection "none", or `"random"`.
        geometric_constraint (`str`, defaults to `"orthonormal"`): on the motion embeddings, see `geometric_loss`.
        spectral_form (`str`, defaults to `"log_determinant"`): of the constraint "spectral", or `"condition_number"`.
        num_code_clusters (`int`, defaults to 8): of the constraint "cluster".
        orthonormality_weight (`float`, defaults to 1e-2): lambda', weight of the constraint.
        freeze_text_embeddings (`bool`, *optional*): by default True for a pretrained base and False for a random one.
    """

    motion_tokenizer: str
    language_model: str | None = None
    language_model_config: dict[str, Any] | None = None
    text_vocab_size: int = 2000
    projection: str = "sparse"
    projection_seed: int = 0
    free_rows_start: str = "projected"
    geometric_constraint: str = "orthonormal"
    spectral_form: str = "log_determinant"
    num_code_clusters: int = 8
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
    tokenizer_model = AutoModel.from_pretrained(model_args.motion_tokenizer)
    feature_extractor = MotionFeatureExtractor.from_pretrained(model_args.motion_tokenizer)
    if feature_extractor.representation != data.representation:
        raise ValueError(
            f"the motion tokenizer {model_args.motion_tokenizer} takes {feature_extractor.representation!r} motions, "
            f"the recipe's data are {data.representation!r}."
        )
    train_set = load_split(data, data.train_split, feature_extractor.downsampling_factor)
    eval_set = load_split(data, data.eval_split, feature_extractor.downsampling_factor)

    model, text_tokenizer = build_language_model(
        model_args, tokenizer_model, train_set["captions"], prompt_words(list(args.tasks), args.prompt_wordings)
    )
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
    args: ModelArguments,
    motion_tokenizer: MotionTokenizer,
    captions: Iterable[Sequence[str]],
    prompts: Sequence[str] | None = None,
) -> tuple[MotionVocabularyMixin, PreTrainedTokenizerBase]:
    """A pretrained or random language model joined with a motion tokenizer, and the tokenizer of its text.

    Args:
        args: what to build.
        motion_tokenizer: trained in the first stage.
        captions: of the training motions; a byte-level BPE is trained on them for a random base.
        prompts: the words of the prompts, which that BPE learns too; by default those of captioning.

    Raises:
        ValueError: for a base of another kind than `LANGUAGE_MODELS` has, or options that do not fit.
    """
    is_pretrained = args.language_model is not None
    freeze = is_pretrained if args.freeze_text_embeddings is None else args.freeze_text_embeddings
    if args.language_model is not None:
        text_tokenizer = AutoTokenizer.from_pretrained(args.language_model)
        base = AutoModelForCausalLM.from_pretrained(args.language_model)
    else:
        text_tokenizer = train_text_tokenizer(captions, args.text_vocab_size, prompts)
        end = text_tokenizer.eos_token_id
        values = {"bos_token_id": end, "eos_token_id": end, **(args.language_model_config or {})}
        kind = _check_base(values.pop("model_type", "gpt2"))
        config = AutoConfig.for_model(kind, **values, vocab_size=len(text_tokenizer))
        base = AutoModelForCausalLM.from_config(config)
    model = LANGUAGE_MODELS[_check_base(base.config.model_type)].from_components(
        base,
        motion_tokenizer,
        projection=args.projection,
        projection_seed=args.projection_seed,
        free_rows_start=args.free_rows_start,
        geometric_constraint=args.geometric_constraint,
        spectral_form=args.spectral_form,
        num_code_clusters=args.num_code_clusters,
        orthonormality_weight=args.orthonormality_weight,
        freeze_text_embeddings=freeze,
    )
    return model, text_tokenizer


def _check_base(model_type: str) -> str:
    if model_type not in LANGUAGE_MODELS:
        raise ValueError(f"the language model is a {model_type!r}; bases can be {', '.join(LANGUAGE_MODELS)}.")
    return model_type


def train_text_tokenizer(
    captions: Iterable[Sequence[str]], vocab_size: int, prompts: Sequence[str] | None = None
) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on captions and prompts, for a language model that starts from nothing.

    Args:
        captions: the captions of each motion.
        vocab_size: largest vocabulary, the 256 bytes and the end of text included.
        prompts: the words of the prompts; by default those of captioning.
    """
    trainer = ByteLevelBPETokenizer()
    texts = [" " + caption for group in captions for caption in group]
    prompts = prompt_words(["motion-to-text"], 1) if prompts is None else prompts
    # As often as captions, so that the words of a prompt become few tokens.
    texts += list(prompts) * max(1, 2 * len(texts) // len(prompts))
    trainer.train_from_iterator(texts, vocab_size=vocab_size, special_tokens=[END_OF_TEXT], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=trainer._tokenizer, eos_token=END_OF_TEXT, bos_token=END_OF_TEXT)


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
    model: MotionVocabularyMixin,
    processor: GeoMotionGPTProcessor,
    args: LanguageModelTrainingArguments,
    lora: LoraArguments | None,
    data: tuple[HFDataset, HFDataset],
) -> MotionTrainer:
    tokenizer, extractor = model.motion_tokenizer.to(args.device), processor.feature_extractor
    train_set, eval_set = data
    train_codes = _encode(tokenizer, extractor, train_set, args.code_offsets)
    eval_codes = _encode(tokenizer, extractor, eval_set, 1)
    longest = max(len(codes) for group in train_codes for codes in group)
    model.config.max_motion_codes = longest
    mixture: dict[str, Any] = {"tasks": args.tasks, "num_wordings": args.prompt_wordings}
    train_items = MotionCaptionDataset(
        train_codes, train_set["captions"], train_set["motion_id"], seed=args.seed, **mixture
    )
    eval_items = MotionCaptionDataset(eval_codes, eval_set["captions"], eval_set["motion_id"], seed=None, **mixture)

    def caption(trained: torch.nn.Module, indices: Sequence[int]) -> list[str]:
        return caption_codes(trained, processor, [eval_codes[index][0] for index in indices])

    return MotionTrainer(
        model=model if lora is None else add_lora(model, lora),
        args=args,
        muon_learning_rate=args.muon_learning_rate,
        train_dataset=train_items,
        eval_dataset=eval_items,
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
