"""What a language model has forgotten after it learned motion: text weights, text logits, perplexity of held-out text.

Everything is computed in float32 with the base's tokenizer, and logits are taken over the base's vocabulary: what
`generate` writes text with. LLaMo (arXiv 2602.12370) compares MMLU and IFEval before and after; equal bits say more.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..checkpoints import check_model_folder
from ..models.configuration_llamo import LLaMoConfig
from ..models.configuration_motiongpt3 import MotionGPT3Config
from ..models.continuous_motion_model import ContinuousMotionModel
from ..models.modeling_llamo import LLaMoForCausalLM
from ..models.modeling_motiongpt3 import MotionGPT3ForCausalLM

# Words, code, numbers, other letters, and what motion models are asked
FIXED_PROMPTS = (
    "The capital of France is",
    "Once upon a time there was a king who",
    "def fibonacci(n):\n    ",
    "for index, value in enumerate(values):\n    print(",
    "17 + 25 = 42, and 3.14159 is",
    "Où est la bibliothèque ? 你好，世界",
    "Return a new list with the items of",
    "Describe the motion: a person walks forward and",
)
_MODELS: dict[str, type[ContinuousMotionModel]] = {
    LLaMoConfig.model_type: LLaMoForCausalLM,
    MotionGPT3Config.model_type: MotionGPT3ForCausalLM,
}
_LONGEST_WINDOW = 1024


def measure_forgetting(
    language_model: str | Path, models: Sequence[str | Path], texts: Sequence[str], *, device: str = "cpu"
) -> dict[str, dict[str, Any]]:
    """Compares what trained models say about text with what their base model says.

    Args:
        language_model: the base that the models were made from, by name or path.
        models: trained LLaMo or MotionGPT3 models, by name or path; the last two parts of it name them in the result.
        texts: that no training has seen.
        device: where to compute.

    Returns:
        "base" and each model -> `text_weights_sha256`, `text_logits_sha256` (over `FIXED_PROMPTS`), `perplexity`; of a
        model also `weights_equal_base`, `logits_equal_base` and `perplexity_over_base`, the ratio.

    Raises:
        FileNotFoundError: if a folder is missing.
        ValueError: for another kind of model, one that was made from a base with other layers, two models of one name,
            or texts without a word to predict.
    """
    names = [model_name(model) for model in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two models are called {twice[0]!r}: their results would be one. Rename a folder.")
    for name in (language_model, *models):
        check_model_folder(name)
    tokenizer = AutoTokenizer.from_pretrained(language_model)
    base = AutoModelForCausalLM.from_pretrained(language_model, dtype=torch.float32).to(device).eval()
    shapes = {name: tuple(weight.shape) for name, weight in text_weights(base).items()}
    results = {"base": _measure(base, tokenizer, texts)}
    del base
    for name, folder in zip(names, models, strict=True):
        model = load_continuous_model(folder).to(device).eval()
        met = {name: tuple(weight.shape) for name, weight in text_weights(model).items()}
        other = sorted(key for key in {*met, *shapes} if met.get(key) != shapes.get(key))
        if other:
            raise ValueError(
                f"{folder} was not made from {language_model}: {other[0]} is {met.get(other[0], 'missing')} there and "
                f"{shapes.get(other[0], 'missing')} in the base. Give the base model that it was made from."
            )
        results[name] = _measure(model, tokenizer, texts)
        results[name] |= _compared(results[name], results["base"])
    return results


def model_name(folder: str | Path) -> str:
    """What a result calls a model: the last two parts of its path, or its name on the Hub."""
    return "/".join(Path(folder).parts[-2:]).lstrip("/")


def load_continuous_model(folder: str | Path) -> ContinuousMotionModel:
    """A LLaMo or a MotionGPT3, in float32.

    Raises:
        ValueError: for another kind of model.
    """
    kind = AutoConfig.from_pretrained(folder).model_type
    if kind not in _MODELS:
        raise ValueError(
            f"{folder} holds a {kind!r} model; what is compared is a {' or a '.join(map(repr, _MODELS))}."
        )
    return _MODELS[kind].from_pretrained(folder, dtype=torch.float32)


def text_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights that text goes through, by their names in the base model."""
    return dict(model.text_parameters() if isinstance(model, ContinuousMotionModel) else model.named_parameters())


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes and bits of weights, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name} {tuple(weights[name].shape)} {weights[name].dtype}".encode())
        digest.update(_bits(weights[name]))
    return digest.hexdigest()


@torch.no_grad()
def logits_sha256(model: PreTrainedModel, rows: Sequence[Tensor]) -> str:
    """SHA-256 of the bits of text-only logits over the base vocabulary.

    Args:
        model: a base model, or one that was made from it.
        rows: token ids (length,) of prompts; each is computed alone.
    """
    digest = hashlib.sha256()
    for row in rows:
        digest.update(_bits(_text_logits(model, row)))
    return digest.hexdigest()


@torch.no_grad()
def perplexity(model: PreTrainedModel, rows: Sequence[Tensor]) -> float:
    """exp of the mean negative log-likelihood, in nats, of every token but the first of its row.

    Args:
        model: a base model, or one that was made from it; the probability is one among the base's tokens.
        rows: token ids (length,).

    Raises:
        ValueError: if no row has two tokens.
    """
    total, count = 0.0, 0
    for row in rows:
        log_probabilities = _text_logits(model, row)[:-1].double().log_softmax(-1)
        total -= log_probabilities.gather(-1, row[1:, None].to(log_probabilities.device)).sum().item()
        count += len(row) - 1
    if not count:
        raise ValueError("no text has two tokens: there is nothing to predict. Give a longer text.")
    return math.exp(total / count)


def text_windows(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int) -> list[Tensor]:
    """Token ids of texts, cut into pieces of at most so many tokens that follow each other."""
    if not texts:
        return []
    encoded = [torch.tensor(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"]]
    return [piece for ids in encoded for piece in ids.split(length) if len(piece) > 1]


def forgetting_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """What `measure_forgetting` returns as a Markdown table, a row a model."""
    lines = [
        "| model | text weights | as the base's | text logits | as the base's | perplexity | over the base's |",
        "| --- | --- | --- | --- | --- | ---: | ---: |",
    ]
    for name, row in results.items():
        ratio = row.get("perplexity_over_base")
        cells = [
            name,
            f"`{row['text_weights_sha256'][:12]}`",
            _answer(row.get("weights_equal_base")),
            f"`{row['text_logits_sha256'][:12]}`",
            _answer(row.get("logits_equal_base")),
            f"{row['perplexity']:.4f}",
            "-" if ratio is None else f"{ratio:.4f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _measure(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> dict[str, Any]:
    positions = model.config.max_position_embeddings
    prompts = [row[:positions] for row in text_windows(tokenizer, FIXED_PROMPTS, positions)]
    return {
        "text_weights_sha256": weights_sha256(text_weights(model)),
        "text_logits_sha256": logits_sha256(model, prompts),
        "perplexity": perplexity(model, text_windows(tokenizer, texts, min(positions, _LONGEST_WINDOW))),
    }


def _compared(found: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "weights_equal_base": found["text_weights_sha256"] == base["text_weights_sha256"],
        "logits_equal_base": found["text_logits_sha256"] == base["text_logits_sha256"],
        "perplexity_over_base": found["perplexity"] / base["perplexity"],
    }


def _text_logits(model: PreTrainedModel, row: Tensor) -> Tensor:
    """(length, text_vocab_size)."""
    size = model.config.text_vocab_size if isinstance(model, ContinuousMotionModel) else model.config.vocab_size
    return model(row.unsqueeze(0).to(model.device)).logits[0, :, :size]


def _bits(values: Tensor) -> bytes:
    return values.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()


def _answer(value: bool | None) -> str:
    return "-" if value is None else "bit for bit" if value else "no"
