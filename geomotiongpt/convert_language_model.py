"""Published GeoMotionGPT language models (GPT-2 with free motion rows) -> ours."""

import re
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from .checkpoints import check_model_folder, check_output, check_weights, read_torch_file, save_aside
from .models.configuration_geomotiongpt import GeoMotionGPTConfig
from .models.configuration_motion_tokenizer import MotionTokenizerConfig
from .models.feature_extraction_motion import MotionFeatureExtractor
from .models.modeling_geomotiongpt import GeoMotionGPTForCausalLM
from .models.modeling_motion_tokenizer import MotionTokenizer
from .models.processing_geomotiongpt import GeoMotionGPTProcessor

PREFIX = "lm.language_model."
# What the published training stores beside it: a motion VAE that is never trained, running losses, evaluators.
_BESIDE = ("vae.", "_losses.", "metrics.")
_TABLE, _POSITIONS, _HEAD = "transformer.wte.weight", "transformer.wpe.weight", "lm_head.weight"
_LAYER = re.compile(r"transformer\.h\.(\d+)\.")
_NUM_SPECIALS = 3  # start, end and mask, the last rows of the table
_MAX_FRAMES = 196  # of the longest motion of its training
_HEAD_WIDTH = 64  # of every GPT-2 that was released; the weights do not show it


def convert_language_model(
    checkpoint: str | Path,
    output: str | Path,
    *,
    motion_tokenizer: str | Path,
    text_tokenizer: str | Path | None = None,
) -> Path:
    """Converts a published GeoMotionGPT caption model.

    It is a plain GPT-2 whose table has the text rows, one free row for each motion code, and rows for start, end and
    mask. They become a model with the projection "none": the rows as they are, `<motion>`, `</motion>` and
    `<motion_placeholder>` from start, end and mask. `<motion_pad>` has no row of its own there and takes the mask's:
    never an answer in training, it stays improbable. All published weights count, and every key must be known.

    Args:
        checkpoint: the trainer's checkpoint, or its state dict, as a torch file (read with `weights_only=True`) or
            `.safetensors`.
        output: folder to write; it must not exist yet or be empty.
        motion_tokenizer: folder or name of the motion tokenizer it was trained with, converted before
            (`convert_motion_tokenizer`); it goes inside, and says how many rows are motion codes.
        text_tokenizer: name or folder of its text tokenizer ("gpt2"). With it a processor is saved too, for which the
            motion tokenizer needs its statistics. Without it, the last text row is taken for the end of text.

    Returns:
        the output folder.

    Raises:
        FileNotFoundError: if the checkpoint, the motion tokenizer or, for a processor, its statistics are missing.
        ValueError: for unknown or missing keys or weights of another shape, which are named, a table that does not
            fit the tokenizers, no text tokenizer where one is named, or an output folder that is in use.
    """
    checkpoint, output = Path(checkpoint), Path(output)
    check_output(output)
    published = _read_language_model(checkpoint)
    check_model_folder(motion_tokenizer)
    tokenizer = MotionTokenizer.from_pretrained(motion_tokenizer)
    words = None if text_tokenizer is None else read_text_tokenizer(text_tokenizer)
    config = _read_config(published, tokenizer.config, words, checkpoint)
    model = GeoMotionGPTForCausalLM(config)
    model.generation_config.update(max_new_tokens=40, do_sample=False)  # as published
    inside = {f"motion_tokenizer.{name}": weight for name, weight in tokenizer.state_dict().items()}
    converted = {**_rearrange(published, config), **inside}
    check_weights(converted, model.state_dict(), checkpoint)
    model.load_state_dict(converted)
    parts = [model]
    if words is not None:
        extractor = _read_feature_extractor(motion_tokenizer)
        parts.append(GeoMotionGPTProcessor.from_components(extractor, words, config))
    return save_aside(output, *parts)


def _read_language_model(checkpoint: Path) -> dict[str, Tensor]:
    """The weights of the GPT-2, under their names in it."""
    state = read_torch_file(checkpoint)
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or PREFIX + _TABLE not in state:
        raise ValueError(f"{checkpoint} has no {PREFIX}{_TABLE}: it is not a published GeoMotionGPT caption model.")
    unknown = sorted(str(key) for key in state if not str(key).startswith((PREFIX, *_BESIDE)))
    if unknown:
        raise ValueError(f"{checkpoint} has unknown keys: {', '.join(unknown[:5])} ({len(unknown)} in all).")
    weights = {key.removeprefix(PREFIX): weight for key, weight in state.items() if key.startswith(PREFIX)}
    for key in (_TABLE, _POSITIONS, _HEAD):
        if key not in weights or not isinstance(weights[key], Tensor) or weights[key].dim() != 2:
            raise ValueError(f"{checkpoint} lacks the weights of {PREFIX}{key}, or they are no matrix.")
    odd = [key for key, weight in weights.items() if not isinstance(weight, Tensor)]
    if odd:
        raise ValueError(f"{checkpoint} has no tensor for {PREFIX}{odd[0]}.")
    if not torch.equal(weights[_HEAD], weights[_TABLE]):
        raise ValueError(f"{checkpoint}: {PREFIX}{_HEAD} is not {PREFIX}{_TABLE}; the published model ties the two.")
    return weights


def read_text_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: no folder of a text tokenizer, and none to be had from the Hub: {error}") from error


def _read_feature_extractor(motion_tokenizer: str | Path) -> MotionFeatureExtractor:
    try:
        return MotionFeatureExtractor.from_pretrained(motion_tokenizer)
    except OSError as error:
        raise FileNotFoundError(
            f"{motion_tokenizer} holds no preprocessor_config.json, which a processor needs: convert the motion "
            "tokenizer with --data, or leave out the text tokenizer."
        ) from error


def _read_config(
    weights: dict[str, Tensor],
    motion: MotionTokenizerConfig,
    text_tokenizer: PreTrainedTokenizerBase | None,
    checkpoint: Path,
) -> GeoMotionGPTConfig:
    rows, width = weights[_TABLE].shape
    num_text = rows - motion.num_codes - _NUM_SPECIALS
    if num_text < 1 or (text_tokenizer is not None and num_text != len(text_tokenizer)):
        words = "" if text_tokenizer is None else f" {len(text_tokenizer)} text tokens,"
        raise ValueError(
            f"{checkpoint} has a table of {rows} rows; that are not{words} {motion.num_codes} motion codes and "
            f"{_NUM_SPECIALS} rows for start, end and mask. Is it another model's tokenizer?"
        )
    if width % _HEAD_WIDTH:
        raise ValueError(f"{checkpoint} is of width {width}; a GPT-2 has attention heads of width {_HEAD_WIDTH}.")
    end = num_text - 1 if text_tokenizer is None else text_tokenizer.eos_token_id
    return GeoMotionGPTConfig(
        text_vocab_size=num_text,
        n_embd=width,
        n_positions=len(weights[_POSITIONS]),
        n_layer=1 + max((int(match[1]) for key in weights if (match := _LAYER.match(key))), default=0),
        n_head=width // _HEAD_WIDTH,
        bos_token_id=end,
        eos_token_id=end,
        motion_tokenizer_config=motion,
        max_motion_codes=_MAX_FRAMES // motion.downsampling_factor,
        projection="none",
    )


def _rearrange(weights: dict[str, Tensor], config: GeoMotionGPTConfig) -> dict[str, Tensor]:
    """Rows [text | codes | start, end, mask] -> [text | markers: padding, start, end, placeholder | codes]."""
    sizes = [config.text_vocab_size, config.num_motion_codes, _NUM_SPECIALS]
    text, codes, specials = weights[_TABLE].split(sizes)
    start, end, mask = specials
    return {
        **weights,
        _TABLE: text,
        _HEAD: text,
        "marker_embedding.weight": torch.stack([mask, start, end, mask]),
        "motion_codebook.weight": codes,
        "motion_embedding_scale": torch.ones(()),
    }
