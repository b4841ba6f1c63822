"""Checkpoints on disk: is a folder a model, and published motion tokenizers -> ours."""

import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from .models.configuration_motion_tokenizer import MotionTokenizerConfig
from .models.feature_extraction_motion import MotionFeatureExtractor
from .models.modeling_motion_tokenizer import MotionTokenizer
from .models.motion_representation import MOTION_REPRESENTATIONS

# Published key -> ours; the index of a stage or of the last convolution depends on the number of halvings n.
_STAGE = r"vqvae\.(encoder|decoder)\.model\.(\d+)\."
_RESIDUAL = re.compile(_STAGE + r"[01]\.model\.(\d+)\.conv([12])\.(weight|bias)$")
_RESAMPLING = re.compile(_STAGE + r"([02])\.(weight|bias)$")
_PLAIN = re.compile(_STAGE + r"(weight|bias)$")
_CODEBOOK = "vqvae.quantizer.codebook.weight"


def check_model_folder(name: str | Path) -> None:
    """Tells a mistyped folder from a name on the Hub before anything tries to download it.

    Raises:
        FileNotFoundError: if it looks like a path and is not there, or has no `config.json` or no weights.
        ValueError: if a file of weights is damaged.
    """
    folder = Path(name)
    if not folder.exists():
        if str(name).count("/") > 1 or str(name).startswith((".", "/", "~")):
            raise FileNotFoundError(f"{name}: no such folder.")
        return
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{name} holds no config.json: it is not a folder that save_pretrained wrote.")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise FileNotFoundError(f"{name} holds no *.safetensors: the weights are missing.")
    for path in weights:
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged, or was not written to the end: {error}") from error


def convert_motion_tokenizer(checkpoint: str | Path, output: str | Path, *, data: str | Path | None = None) -> Path:
    """Converts a published GeoMotionGPT motion tokenizer (a state dict with the prefix `vqvae.`).

    Sizes and representation are read off the shapes. Every key must be known and every weight present.

    Args:
        checkpoint: a state dict as `.safetensors` or a torch file (read with `weights_only=True`), bare or under
            "state_dict" or "net".
        output: folder to write; it must not exist yet or be empty.
        data: folder with the `Mean.npy` and `Std.npy` it was trained on, saved with it as its feature extractor.

    Returns:
        the output folder.

    Raises:
        FileNotFoundError: if the checkpoint or the statistics are missing.
        ValueError: for unknown or missing keys, which are named, or an output folder that is in use.
    """
    checkpoint, output = Path(checkpoint), Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} exists and is not an empty folder; name a new one.")
    published = _read_state_dict(checkpoint)
    model = MotionTokenizer(_read_config(published, checkpoint))
    converted = _rename(published, model.config.num_downsampling_layers, checkpoint)
    _check_weights(converted, model.state_dict(), checkpoint)
    model.load_state_dict(converted)
    feature_extractor = None
    if data is not None:
        feature_extractor = _read_statistics(Path(data), model.config)
    aside = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        model.save_pretrained(aside)
        if feature_extractor is not None:
            feature_extractor.save_pretrained(aside)
        if output.exists():
            output.rmdir()
        os.replace(aside, output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return output


def _read_state_dict(checkpoint: Path) -> dict[str, Tensor]:
    if not checkpoint.is_file():
        raise FileNotFoundError(f"{checkpoint}: no such checkpoint.")
    state: Any
    try:
        if checkpoint.suffix == ".safetensors":
            state = load_file(checkpoint)
        else:
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{checkpoint} is not a checkpoint of plain tensors, or is damaged: {reason}") from error
    for wrapper in ("state_dict", "net"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or _CODEBOOK not in state:
        raise ValueError(f"{checkpoint} has no {_CODEBOOK}: it is not a published GeoMotionGPT motion tokenizer.")
    return state


def _check_weights(converted: dict[str, Tensor], expected: dict[str, Tensor], checkpoint: Path) -> None:
    missing = sorted(set(expected) - set(converted))
    if missing:
        raise ValueError(f"{checkpoint} lacks the weights of {', '.join(missing[:5])} ({len(missing)} in all).")
    for name, weight in converted.items():
        if name not in expected or weight.shape != expected[name].shape:
            wanted = f"{tuple(expected[name].shape)}" if name in expected else "no such weight"
            raise ValueError(f"{checkpoint} has {tuple(weight.shape)} for {name}; wanted {wanted}.")


def _read_config(state: dict[str, Tensor], checkpoint: Path) -> MotionTokenizerConfig:
    num_codes, code_dim = state[_CODEBOOK].shape
    plain = [int(match[2]) for key in state if (match := _PLAIN.match(key)) and match[1] == "encoder"]
    residual = [int(match[3]) for key in state if (match := _RESIDUAL.match(key))]
    first = state.get("vqvae.encoder.model.0.weight")
    if first is None or not residual:
        raise ValueError(f"{checkpoint} has no encoder.")
    hidden_size, num_features, _ = first.shape
    known = [facts.num_features for facts in MOTION_REPRESENTATIONS.values()]
    if num_features not in known:
        raise ValueError(f"{checkpoint} takes {num_features} features; known representations have {known}.")
    return MotionTokenizerConfig(
        num_features=num_features,
        num_codes=num_codes,
        code_dim=code_dim,
        hidden_size=hidden_size,
        num_downsampling_layers=max(plain) - 2,
        num_residual_layers=max(residual) + 1,
    )


def _rename(state: dict[str, Tensor], num_stages: int, checkpoint: Path) -> dict[str, Tensor]:
    converted, unknown = {}, []
    for key, weight in state.items():
        name = "codebook.weight" if key == _CODEBOOK else _new_name(key, num_stages)
        if name is None:
            unknown.append(key)
        else:
            converted[name] = weight
    if unknown:
        raise ValueError(f"{checkpoint} has unknown keys: {', '.join(unknown[:5])} ({len(unknown)} in all).")
    return converted


def _new_name(key: str, num_stages: int) -> str | None:
    if match := _RESIDUAL.match(key):
        side, stage, unit, conv, kind = match.groups()
        layer = "dilated_conv" if conv == "1" else "pointwise_conv"
        return f"{side}.stages.{int(stage) - 2}.residual_units.{unit}.{layer}.{kind}"
    if match := _RESAMPLING.match(key):
        side, stage, _, kind = match.groups()
        layer = "downsampling_conv" if side == "encoder" else "upsampling_conv"
        return f"{side}.stages.{int(stage) - 2}.{layer}.{kind}"
    if match := _PLAIN.match(key):
        side, index, kind = match.groups()
        last = num_stages + 2
        layers = {"encoder": {0: "input_conv", last: "output_conv"}}
        layers["decoder"] = {0: "input_conv", last: "hidden_conv", last + 2: "output_conv"}
        plain = layers[side].get(int(index))
        return f"{side}.{plain}.{kind}" if plain else None
    return None


def _read_statistics(folder: Path, config: MotionTokenizerConfig) -> MotionFeatureExtractor:
    statistics = []
    for name in ("Mean.npy", "Std.npy"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name}: no such file; it belongs to the data the tokenizer was trained on."
            )
        statistics.append(np.load(folder / name, allow_pickle=False))
    representation = next(
        name for name, facts in MOTION_REPRESENTATIONS.items() if facts.num_features == config.num_features
    )
    mean, std = statistics
    return MotionFeatureExtractor(representation, mean, std, config.downsampling_factor)
