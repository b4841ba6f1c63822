"""Published MotionGPT3 checkpoints (arXiv 2506.24086), and those of its motion VAE alone -> ours."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, PreTrainedTokenizerBase

from .checkpoints import (
    check_output,
    check_weights,
    read_statistics,
    read_torch_file,
    representation_of_width,
    save_aside,
)
from .convert_language_model import read_text_tokenizer
from .models.configuration_motion_vae import MotionVAEConfig
from .models.configuration_motiongpt3 import MotionGPT3Config
from .models.feature_extraction_motion import MotionFeatureExtractor
from .models.modeling_motion_vae import MotionVAE
from .models.modeling_motiongpt3 import MotionGPT3ForCausalLM
from .models.processing_motiongpt3 import MotionGPT3Processor

LATENT_SCALE = 0.8457  # of the published models, for HumanML3D; their latents are not shifted
_MAX_FRAMES = 196  # of HumanML3D's longest clip: later rows of the position tables are as they were initialised
# What the published training stores beside it: running losses, evaluators.
_BESIDE = ("_losses.", "metrics.")
_VAE, _LANGUAGE_MODEL, _HEAD = "vae.", "lm.language_model.", "lm.diffloss.net."
_TOKENS = _VAE + "global_motion_token"
_TABLE = _LANGUAGE_MODEL + "transformer.wte.weight"
_ALIASES = tuple(_LANGUAGE_MODEL + f"{name}.weight" for name in ("lm_head", "pre_processors.0", "post_processors.0"))
_MOTION_ROWS, _MOTION_HEAD = (_LANGUAGE_MODEL + f"{side}_processors.1.weight" for side in ("pre", "post"))
_MOTION_INPUT = "lm.motion_und_head.layers."
_NUM_TEXT_MARKERS = 2  # start and end of a motion, the last rows of the text table
_OUTPUT_ROW, _INPUT_ROW = 2, 3  # of the motion table; the others are masked motion, padding and two without a use
_HEAD_WIDTH = 64  # of every GPT-2 that was released; the weights do not show it
# Published name or beginning of one -> ours
_RENAMED = {
    _TOKENS: "motion_vae.distribution_tokens",
    _VAE + "query_pos_encoder.pe": "motion_vae.encoder_positions",
    _VAE + "query_pos_decoder.pe": "motion_vae.decoder_positions",
    _VAE + "skel_embedding.": "motion_vae.frame_embedding.",
    _VAE + "final_layer.": "motion_vae.frame_head.",
    _VAE + "encoder.linear_blocks.": "motion_vae.encoder.skip_projections.",
    _VAE + "decoder.linear_blocks.": "motion_vae.decoder.skip_projections.",
    _VAE + "encoder.": "motion_vae.encoder.",
    _VAE + "decoder.": "motion_vae.decoder.",
    _LANGUAGE_MODEL + "transformer.wpe.": "language_model.transformer.wpe.",
    _LANGUAGE_MODEL + "transformer.ln_f.fn.0.": "language_model.transformer.ln_f.",
    _LANGUAGE_MODEL + "transformer.ln_f.fn.1.": "motion_branch_norm.",
    _MOTION_INPUT: "motion_input.",
    "lm.fake_latent": "denoising_head.null_condition",
    _HEAD + "input_proj.": "denoising_head.denoiser.input_projection.",
    _HEAD + "time_embed.mlp.": "denoising_head.denoiser.time_embedding.",
    _HEAD + "res_blocks.": "denoising_head.denoiser.blocks.",
    _HEAD + "final_layer.": "denoising_head.denoiser.final_layer.",
    _HEAD + "cond_embed.hidden_embedding": "denoising_head.condition_encoder.pooling.query",
    _HEAD + "cond_embed.hid_pos.pe": "denoising_head.condition_encoder.pooling.positions",
    _HEAD + "cond_embed.hid_encoder_layer.": "denoising_head.condition_encoder.pooling.encoder_layer.",
    _HEAD + "cond_embed.cond_proj.": "denoising_head.condition_encoder.projection.",
}
_IN_A_BLOCK = {".in_ln.": ".norm.", ".adaLN_modulation.1.": ".modulation."}
# A layer of the mixture: part, branch (0 text, 1 motion), weight
_LAYER = re.compile(
    re.escape(_LANGUAGE_MODEL) + r"transformer\.h\.(\d+)\.(c_attn|c_proj|ln_1|ln_2|mlp)\.fn\.([01])\.(.+)$"
)

# What the published model was asked in training; at inference its code adds one more line break.
WORDINGS = {
    "text-to-motion": ["Generate motion: {text} \n "],
    "motion-to-text": ["Generate text: {motion} \n"],
}


def convert_motiongpt3(
    checkpoint: str | Path,
    output: str | Path,
    *,
    data: str | Path | None = None,
    text_tokenizer: str | Path | None = None,
    num_heads: int | None = None,
    num_vae_heads: int = 4,
    num_condition_heads: int = 4,
) -> Path:
    """Converts a published MotionGPT3 checkpoint to a `MotionGPT3ForCausalLM`, or one of its VAE to a `MotionVAE`.

    Sizes are read off the shapes. The text branch keeps the rows of its own vocabulary; start and end of a motion, the
    two rows behind them, become `<motion>` and `</motion>`. Of the motion table the holders become `<motion_in>` and
    `<motion_out>`. `<motion_pad>` takes the row of the end of text, with which the published code pads; a row of zeros
    would score 0, far more than the words of GPT-2 do. Latents are scaled by 0.8457 and motions were at most 196
    frames long, both as in HumanML3D.

    Not taken over: the motion head (`post_processors.1`), which no published loss trains; the other rows of the motion
    table (masked motion, padding, two without a use); rows of the position table of the condition that are never
    read; running losses and evaluators. The published model has no length predictor: say `num_frames` when it makes
    motions. Several motions in one prompt fill their slots one motion after the other, while the published code
    interleaves them; with one motion there is no difference. Prompts are worded as everywhere in this package.

    Args:
        checkpoint: the trainer's checkpoint, or its state dict, as a torch file (read with `weights_only=True`) or
            `.safetensors`. With keys of the motion VAE alone, that is what is written.
        output: folder to write; it must not exist yet or be empty.
        data: folder with the `Mean.npy` and `Std.npy` that it was trained with. A motion VAE is saved with them as its
            feature extractor, a whole model, together with the text tokenizer, as its processor.
        text_tokenizer: name or folder of its text tokenizer ("gpt2"). Without it, the last text row is taken for the
            end of text.
        num_heads: attention heads of the language model; by default as many of width 64 as there is room for.
        num_vae_heads: attention heads of the motion VAE.
        num_condition_heads: attention heads where the diffusion head reads its condition.

    Returns:
        the output folder.

    Raises:
        FileNotFoundError: if the checkpoint or the statistics are missing.
        ValueError: for unknown or missing keys or weights of another shape, which are named, a text head that is not
            the text table, widths that the heads do not divide, a text tokenizer that does not fit, or is given where
            no processor is made of it, or an output folder that is in use.
    """
    checkpoint, output = Path(checkpoint), Path(output)
    check_output(output)
    published = read_published(read_torch_file(checkpoint), checkpoint)
    if _TABLE not in published:
        if text_tokenizer is not None:
            raise ValueError(f"{checkpoint} holds a motion VAE alone, which has no use for a text tokenizer.")
        return save_aside(output, *_vae_parts(published, checkpoint, data, num_vae_heads))
    if (data is None) != (text_tokenizer is None):
        raise ValueError("a processor takes both, the statistics of the data and a text tokenizer: give both or none.")
    words = None if text_tokenizer is None else read_text_tokenizer(text_tokenizer)
    config = read_config(
        published,
        checkpoint,
        words,
        num_heads=num_heads,
        num_vae_heads=num_vae_heads,
        num_condition_heads=num_condition_heads,
    )
    model = MotionGPT3ForCausalLM(config)
    model.generation_config.update(max_new_tokens=40, do_sample=False, repetition_penalty=1.1)  # as published
    converted = rearrange(published, config)
    check_weights(converted, model.state_dict(), checkpoint)
    model.load_state_dict(converted)
    parts: list[Any] = [model]
    if data is not None and words is not None:
        extractor = _read_feature_extractor(data, config.vae)
        parts.append(MotionGPT3Processor.from_components(extractor, words, config, wordings=WORDINGS))
    return save_aside(output, *parts)


def _vae_parts(published: dict[str, Tensor], checkpoint: Path, data: str | Path | None, num_heads: int) -> list[Any]:
    """The motion VAE and, with statistics, its feature extractor."""
    model = MotionVAE(read_vae_config(published, checkpoint, num_heads))
    converted = {name.removeprefix("motion_vae."): weight for name, weight in _rename(published).items()}
    check_weights(converted, model.state_dict(), checkpoint)
    model.load_state_dict(converted)
    return [model] if data is None else [model, _read_feature_extractor(data, model.config)]


def is_published_motiongpt3(checkpoint: str | Path) -> bool:
    """Whether a file holds a published MotionGPT3, or its motion VAE alone.

    Raises:
        FileNotFoundError, ValueError: as `read_torch_file`.
    """
    state = _state_dict(read_torch_file(Path(checkpoint)))
    keys = [str(key) for key in state] if isinstance(state, dict) else []
    if any(key.startswith("lm.") for key in keys):
        return any(key.startswith((_HEAD, _MOTION_INPUT)) for key in keys)
    return _TOKENS in keys


def read_published(content: Any, checkpoint: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint that count, under their published names; the text table once, as `wte`.

    Args:
        content: of the file.
        checkpoint: its path, for errors.

    Raises:
        ValueError: for unknown keys, what is no tensor, another text head than the table, or another kind of
            checkpoint.
    """
    state = _state_dict(content)
    if not isinstance(state, dict) or _TOKENS not in state:
        raise ValueError(f"{checkpoint} has no {_TOKENS}: it is no published MotionGPT3, and no motion VAE of one.")
    weights = {str(key): weight for key, weight in state.items() if not str(key).startswith(_BESIDE)}
    known = (_TABLE, *_ALIASES, _MOTION_ROWS, _MOTION_HEAD)
    unknown = sorted(key for key in weights if key not in known and _new_name(key) is None)
    if unknown:
        raise ValueError(f"{checkpoint} has unknown keys: {', '.join(unknown[:5])} ({len(unknown)} in all).")
    odd = [key for key, weight in weights.items() if not isinstance(weight, Tensor)]
    if odd:
        raise ValueError(f"{checkpoint} has no tensor for {odd[0]}.")
    # Formats without shared tensors keep one of the names
    tables = {key: weights.pop(key) for key in (_TABLE, *_ALIASES) if key in weights}
    for key, table in tables.items():
        first = next(iter(tables))
        if not torch.equal(table, tables[first]):
            raise ValueError(f"{checkpoint}: {key} is not {first}; the published model has one text table.")
    if tables:
        weights[_TABLE] = next(iter(tables.values()))
    elif any(key.startswith("lm.") for key in weights):
        raise ValueError(f"{checkpoint} lacks the weights of {_TABLE}.")
    return weights


def read_vae_config(published: dict[str, Tensor], checkpoint: Path, num_heads: int) -> MotionVAEConfig:
    """The configuration that the shapes of a motion VAE show.

    Raises:
        ValueError: if one of them is missing, or the heads do not divide the width.
    """
    num_tokens, width = _shape(published, _TOKENS, 2, checkpoint)
    num_features = _shape(published, _VAE + "final_layer.weight", 2, checkpoint)[0]
    representation_of_width(num_features, checkpoint)
    return MotionVAEConfig(
        num_features=num_features,
        num_latent_tokens=num_tokens // 2,
        latent_dim=width,
        num_layers=1 + 2 * _count(published, _VAE + "encoder.input_blocks."),
        num_heads=num_heads,
        intermediate_size=_shape(published, _VAE + "encoder.middle_block.linear1.weight", 2, checkpoint)[0],
        max_positions=_shape(published, _VAE + "query_pos_encoder.pe", 3, checkpoint)[0],
    )


def read_config(
    published: dict[str, Tensor],
    checkpoint: Path,
    text_tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    num_heads: int | None = None,
    num_vae_heads: int = 4,
    num_condition_heads: int = 4,
) -> MotionGPT3Config:
    """The configuration that the shapes of a whole model show.

    Raises:
        ValueError: if one of them is missing, heads do not divide their width, the text tokenizer has another number
            of tokens, or motions are not HumanML3D's.
    """
    vae = read_vae_config(published, checkpoint, num_vae_heads)
    if representation_of_width(vae.num_features, checkpoint) != "humanml3d":
        raise ValueError(
            f"{checkpoint} takes {vae.num_features} features; the published scale of latents, {LATENT_SCALE}, is that "
            "of HumanML3D, which has 263."
        )
    rows, width = _shape(published, _TABLE, 2, checkpoint)
    num_text = rows - _NUM_TEXT_MARKERS
    if num_text < 1 or (text_tokenizer is not None and num_text != len(text_tokenizer)):
        words = "words" if text_tokenizer is None else f"{len(text_tokenizer)} text tokens"
        raise ValueError(
            f"{checkpoint} has a table of {rows} rows; that are not {words} and {_NUM_TEXT_MARKERS} rows for the "
            "start and the end of a motion. Is it another model's tokenizer?"
        )
    num_heads = width // _HEAD_WIDTH if num_heads is None else num_heads
    for name, count in (("num_heads", num_heads), ("num_condition_heads", num_condition_heads)):
        if count < 1 or width % count:
            raise ValueError(f"{checkpoint} is of width {width}; {name}, {count}, does not divide it: name it.")
    _shape(published, _HEAD + "res_blocks.0.in_ln.weight", 1, checkpoint)
    if _shape(published, _MOTION_ROWS, 2, checkpoint)[0] <= _INPUT_ROW:
        raise ValueError(f"{checkpoint} has no row for the input holder in {_MOTION_ROWS}.")
    end = num_text - 1 if text_tokenizer is None else text_tokenizer.eos_token_id
    text_config = GPT2Config(
        vocab_size=num_text,
        n_positions=_shape(published, _LANGUAGE_MODEL + "transformer.wpe.weight", 2, checkpoint)[0],
        n_embd=width,
        n_layer=_count(published, _LANGUAGE_MODEL + "transformer.h."),
        n_head=num_heads,
        n_inner=_shape(published, _LANGUAGE_MODEL + "transformer.h.0.mlp.fn.0.c_fc.weight", 2, checkpoint)[1],
        bos_token_id=end,
        eos_token_id=end,
    )
    return MotionGPT3Config(
        text_config=text_config,
        motion_vae_config=vae,
        num_motion_slots=_shape(published, _MOTION_INPUT + "weight", 2, checkpoint)[0] // width,
        denoising_hidden_size=_shape(published, _HEAD + "input_proj.weight", 2, checkpoint)[0],
        denoising_num_layers=_count(published, _HEAD + "res_blocks."),
        denoising_num_heads=num_condition_heads,
        max_motion_frames=_MAX_FRAMES,
        has_length_predictor=False,
        trained_stage="joint",
    )


def rearrange(published: dict[str, Tensor], config: MotionGPT3Config) -> dict[str, Tensor]:
    """The weights of a whole model under our names, see `convert_motiongpt3`."""
    weights = dict(published)
    weights.pop(_MOTION_HEAD, None)
    holders = weights.pop(_MOTION_ROWS)
    text, markers = weights.pop(_TABLE).split([config.text_vocab_size, _NUM_TEXT_MARKERS])
    end_of_text: int = config.text_config.eos_token_id  # type: ignore[union-attr, assignment]
    converted = _rename(weights)
    positions = "denoising_head.condition_encoder.pooling.positions"
    if positions in converted:
        converted[positions] = converted[positions][: config.num_motion_slots + 1]
    latent_size = config.vae.num_latent_tokens * config.vae.latent_dim
    return {
        **converted,
        "language_model.transformer.wte.weight": text,
        "language_model.lm_head.weight": text,
        "marker_embedding.weight": torch.stack(
            [text[end_of_text], *markers, holders[_INPUT_ROW], holders[_OUTPUT_ROW]]
        ),
        "latent_shift": torch.zeros(latent_size),
        "latent_scale": torch.full((latent_size,), LATENT_SCALE),
        # Nothing is said of lengths: `has_length_predictor` is false
        "length_head.weight": torch.zeros(1, config.hidden_size),
        "length_head.bias": torch.zeros(1),
    }


def _state_dict(content: Any) -> Any:
    """What a file holds, without what a trainer keeps beside it."""
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        return content["state_dict"]
    return content


def _shape(published: dict[str, Tensor], key: str, dims: int, checkpoint: Path) -> torch.Size:
    if key not in published or published[key].dim() != dims:
        raise ValueError(f"{checkpoint} lacks the weights of {key}, or they have another number of dimensions.")
    return published[key].shape


def _count(published: dict[str, Tensor], beginning: str) -> int:
    """How many numbered parts follow a beginning."""
    numbered = re.compile(re.escape(beginning) + r"(\d+)\.")
    return 1 + max((int(match[1]) for key in published if (match := numbered.match(key))), default=-1)


def _rename(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names; position tables lose the dimension of the batch."""
    tables = {key for key, weight in published.items() if key.endswith(".pe") and weight.dim() == 3}
    return {str(_new_name(key)): weight.squeeze(1) if key in tables else weight for key, weight in published.items()}


def _new_name(key: str) -> str | None:
    if match := _LAYER.match(key):
        layer, part, branch, weight = match.groups()
        part = f"attn.{part}" if part in ("c_attn", "c_proj") else part
        side = ("", "motion_branch.")[int(branch)]
        return f"language_model.transformer.h.{layer}.{side}{part}.{weight}"
    for beginning, ours in _RENAMED.items():
        if key == beginning or (beginning.endswith(".") and key.startswith(beginning)):
            name = ours + key.removeprefix(beginning)
            for theirs, replacement in _IN_A_BLOCK.items():
                name = name.replace(theirs, replacement)
            return name
    return None


def _read_feature_extractor(data: str | Path, config: MotionVAEConfig) -> MotionFeatureExtractor:
    mean, std = read_statistics(Path(data), "the data that the motion VAE was trained on")
    return MotionFeatureExtractor(
        representation_of_width(config.num_features, Path(data)), mean, std, downsampling_factor=1
    )
