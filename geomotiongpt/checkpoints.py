"""Checkpoints on disk: is a folder a model; published motion tokenizers and evaluator networks -> ours."""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor

from . import models as models
from .data.motion_folder import check_writable, written_aside
from .models.configuration_geomotion_llama import GeoMotionLlamaConfig
from .models.configuration_geomotion_qwen3 import GeoMotionQwen3Config
from .models.configuration_geomotiongpt import GeoMotionGPTConfig
from .models.configuration_llamo import LLaMoConfig
from .models.configuration_motion_text_evaluator import NUM_CONTACTS, MotionTextEvaluatorConfig
from .models.configuration_motion_tokenizer import MotionTokenizerConfig
from .models.configuration_motiongpt3 import MotionGPT3Config
from .models.feature_extraction_motion import MotionFeatureExtractor
from .models.modeling_llamo import LLaMoForCausalLM
from .models.modeling_motion_text_evaluator import MotionTextEvaluator
from .models.modeling_motion_tokenizer import MotionTokenizer
from .models.modeling_motiongpt3 import MotionGPT3ForCausalLM
from .models.motion_representation import MOTION_REPRESENTATIONS
from .models.motion_vocabulary import MotionVocabularyMixin
from .models.processing_geomotiongpt import GeoMotionGPTProcessor
from .models.processing_llamo import LLaMoProcessor
from .models.processing_motion_text_evaluator import POS_TAGS, MotionTextEvaluatorProcessor
from .models.processing_motiongpt3 import MotionGPT3Processor
from .models.word_vectors import WordTable

MotionLanguageModel = MotionVocabularyMixin | MotionGPT3ForCausalLM | LLaMoForCausalLM
MotionProcessor = GeoMotionGPTProcessor | MotionGPT3Processor | LLaMoProcessor

_LANGUAGE_MODELS = tuple(
    config.model_type
    for config in (GeoMotionGPTConfig, GeoMotionLlamaConfig, GeoMotionQwen3Config, MotionGPT3Config, LLaMoConfig)
)
# Published key -> ours; the index of a stage or of the last convolution depends on the number of halvings n.
_STAGE = r"vqvae\.(encoder|decoder)\.model\.(\d+)\."
_RESIDUAL = re.compile(_STAGE + r"[01]\.model\.(\d+)\.conv([12])\.(weight|bias)$")
_RESAMPLING = re.compile(_STAGE + r"([02])\.(weight|bias)$")
_PLAIN = re.compile(_STAGE + r"(weight|bias)$")
_CODEBOOK = "vqvae.quantizer.codebook.weight"
_EVALUATOR_NETWORKS = ("movement_encoder", "motion_encoder", "text_encoder")
# What a published evaluator holds beside its networks.
_EVALUATOR_TRAINING = {"epoch", "iter", *(f"opt_{name}" for name in _EVALUATOR_NETWORKS)}


def load_captioner(name: str | Path) -> tuple[MotionLanguageModel, MotionProcessor]:
    """A captioning model and its processor, from a folder or the Hub. This package's code runs, none from there.

    Args:
        name: of the folder or the repository.

    Raises:
        FileNotFoundError, OSError: if there is none, or its weights are missing.
        ValueError: if it is another kind of model, or its weights are damaged.
    """
    check_model_folder(name)
    try:
        kind = AutoConfig.from_pretrained(name).model_type
    except OSError as error:
        raise OSError(f"{name}: no such folder, and not to be had from the Hub: {error}") from error
    if kind not in _LANGUAGE_MODELS:
        raise ValueError(f"{name} holds a {kind!r} model; captions take a {' or '.join(map(repr, _LANGUAGE_MODELS))}.")
    return AutoModelForCausalLM.from_pretrained(name), AutoProcessor.from_pretrained(name)


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
    check_output(output)
    published = _read_state_dict(checkpoint)
    model = MotionTokenizer(_read_config(published, checkpoint))
    converted = _rename(published, model.config.num_downsampling_layers, checkpoint)
    check_weights(converted, model.state_dict(), checkpoint)
    model.load_state_dict(converted)
    extractors = []
    if data is not None:
        mean, std = read_statistics(Path(data), "the data the tokenizer was trained on")
        representation = representation_of_width(model.config.num_features, checkpoint)
        extractors = [MotionFeatureExtractor(representation, mean, std, model.config.downsampling_factor)]
    return save_aside(output, model, *extractors)


def convert_evaluator(
    checkpoint: str | Path,
    output: str | Path,
    *,
    statistics: str | Path,
    word_vectors: str | Path,
    words: str | Path | None = None,
) -> Path:
    """Converts a published HumanML3D or KIT-ML evaluator (`text_mot_match/model/finest.tar`).

    Sizes and representation are read off the shapes. Every key must be known and every weight present.

    Args:
        checkpoint: torch file (read with `weights_only=True`) with the dictionaries `movement_encoder`,
            `motion_encoder` and `text_encoder`.
        output: folder to write; it must not exist yet or be empty.
        statistics: folder with the evaluator's own `mean.npy` and `std.npy` (`Comp_v6_KLD01/meta` of the release):
            those of the data set are others, and give other numbers.
        word_vectors: GloVe text file, or the `.npy` array of the published vocabulary.
        words: text file with one word a line, see `WordTable.from_file`.

    Returns:
        the output folder: model and processor.

    Raises:
        FileNotFoundError: if the checkpoint, the statistics or the word vectors are missing.
        ValueError: for unknown or missing keys, weights of another shape, which are named, a pickle of words, or an
            output folder that is in use.
    """
    checkpoint, output = Path(checkpoint), Path(output)
    check_output(output)
    published = _read_evaluator(checkpoint)
    model = MotionTextEvaluator(_read_evaluator_config(published, checkpoint))
    check_weights(published, model.state_dict(), checkpoint)
    model.load_state_dict(published)
    mean, std = read_statistics(Path(statistics), "the evaluator, whose statistics are not those of the data set")
    representation = representation_of_width(model.config.num_features, checkpoint)
    extractor = MotionFeatureExtractor(representation, mean, std, model.config.downsampling_factor)
    table = WordTable.from_file(word_vectors, words)
    if table.dim != model.config.word_dim:
        raise ValueError(
            f"{word_vectors} has vectors of width {table.dim}; the evaluator takes {model.config.word_dim}."
        )
    return save_aside(output, model, MotionTextEvaluatorProcessor(extractor, table, tagged=True))


def check_output(output: Path) -> None:
    """Raises a ValueError if there is something in the folder that is to be written, an OSError if it cannot be."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} exists and is not an empty folder; name a new one.")
    check_writable(output)


def save_aside(output: Path, *parts: Any) -> Path:
    """Saves what has `save_pretrained` into one folder, all of it or none."""
    with written_aside(output) as aside:
        for part in parts:
            part.save_pretrained(aside)
    return output


def _read_evaluator(checkpoint: Path) -> dict[str, Tensor]:
    """The weights of the three networks under our names, which are the published ones."""
    state = read_torch_file(checkpoint)
    missing = [name for name in _EVALUATOR_NETWORKS if not isinstance(state, dict) or name not in state]
    if missing:
        raise ValueError(f"{checkpoint} has no {', '.join(missing)}: it is not a published evaluator (finest.tar).")
    unknown = sorted(str(key) for key in state if key not in _EVALUATOR_TRAINING and key not in _EVALUATOR_NETWORKS)
    if unknown:
        raise ValueError(f"{checkpoint} has unknown keys: {', '.join(unknown[:5])} ({len(unknown)} in all).")
    return {f"{name}.{key}": weight for name in _EVALUATOR_NETWORKS for key, weight in state[name].items()}


def _read_evaluator_config(state: dict[str, Tensor], checkpoint: Path) -> MotionTextEvaluatorConfig:
    # The weights that show the sizes; every other one must then fit.
    shown = {
        "movement_encoder.main.0.weight": ("movement_hidden_size", "num_features", None),
        "movement_encoder.out_net.weight": ("movement_size", None),
        "motion_encoder.input_emb.weight": ("motion_hidden_size", None),
        "text_encoder.input_emb.weight": ("text_hidden_size", "word_dim"),
        "text_encoder.pos_emb.weight": (None, "num_pos_tags"),
        "motion_encoder.output_net.3.weight": ("embedding_size", None),
    }
    sizes = {}
    for key, names in shown.items():
        if key not in state or state[key].dim() != len(names):
            raise ValueError(f"{checkpoint} lacks the weights of {key}, or they have another number of dimensions.")
        sizes.update({name: size for name, size in zip(names, state[key].shape, strict=True) if name})
    sizes["num_features"] += NUM_CONTACTS
    if sizes["num_pos_tags"] != len(POS_TAGS):
        raise ValueError(f"{checkpoint} knows {sizes['num_pos_tags']} parts of speech; wanted {len(POS_TAGS)}.")
    representation_of_width(sizes["num_features"], checkpoint)
    return MotionTextEvaluatorConfig(**sizes)


def _read_state_dict(checkpoint: Path) -> dict[str, Tensor]:
    state = read_torch_file(checkpoint)
    for wrapper in ("state_dict", "net"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if isinstance(state, dict) and any(str(key).startswith("lm.") for key in state):
        raise ValueError(f"{checkpoint} is a language model: give --motion-tokenizer, the one it was trained with.")
    if isinstance(state, dict) and "movement_encoder" in state:
        raise ValueError(f"{checkpoint} is an evaluator: give --word-vectors, the GloVe vectors it was trained with.")
    if not isinstance(state, dict) or _CODEBOOK not in state:
        raise ValueError(f"{checkpoint} has no {_CODEBOOK}: it is not a published GeoMotionGPT motion tokenizer.")
    return state


def read_torch_file(checkpoint: Path) -> Any:
    """What a torch or safetensors file holds; nothing in it is executed.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, no checkpoint, or holds more than plain tensors.
    """
    if not checkpoint.is_file():
        raise FileNotFoundError(f"{checkpoint}: no such checkpoint.")
    try:
        if checkpoint.suffix == ".safetensors":
            return load_file(checkpoint)
        return torch.load(checkpoint, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # an unpickler that meets other bytes fails in every way
        found = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if found:
            raise ValueError(
                f"{checkpoint} is not a checkpoint of plain tensors: it would run code of {found[1]}. If you trust "
                "where it is from, save its state dict alone (`torch.save`) and convert that."
            ) from error
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{checkpoint} is not a checkpoint of plain tensors, or is damaged: {reason}") from error


def check_weights(converted: dict[str, Tensor], expected: dict[str, Tensor], checkpoint: Path) -> None:
    """Raises a ValueError that names weights that are missing, unknown or of another shape."""
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
    representation_of_width(num_features, checkpoint)
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


def representation_of_width(num_features: int, checkpoint: Path) -> str:
    """Name of the representation of that width."""
    names = {facts.num_features: name for name, facts in MOTION_REPRESENTATIONS.items()}
    if num_features not in names:
        raise ValueError(f"{checkpoint} takes {num_features} features; known representations have {list(names)}.")
    return names[num_features]


def read_statistics(folder: Path, owner: str) -> list[np.ndarray]:
    """Mean and standard deviation; the releases spell the files in either case."""
    statistics = []
    for name in ("Mean.npy", "Std.npy"):
        path = next((folder / spelt for spelt in (name, name.lower()) if (folder / spelt).is_file()), None)
        if path is None:
            raise FileNotFoundError(f"{folder / name}: no such file; it belongs to {owner}.")
        statistics.append(np.load(path, allow_pickle=False))
    return statistics
