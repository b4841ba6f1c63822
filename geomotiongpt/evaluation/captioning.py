"""Captioning metrics in the two conventions of the field, which must not be mixed; none needs the network or Java.

Every score is a percentage (0-100) but for distinct-n (a share), the vocabulary size and the length (words).
"""

import importlib.metadata
import math
import re
import statistics
import string
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import datasets
import evaluate
import torch
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider_scorer import CiderScorer, cook_refs, cook_test
from pycocoevalcap.rouge.rouge import Rouge
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer
from sacrebleu.metrics.bleu import BLEU
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    GPT2Tokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RobertaTokenizer,
)
from transformers.utils import logging as transformers_logging

MAX_ORDER = 4
_CIDER = "CIDEr-D x 100 on the text as it is (n to 4, sigma 6, factor 10, idf from these references)"
CONVENTIONS: Mapping[str, Mapping[str, str]] = {
    "coco": {
        "bleu": "split on whitespace, case and punctuation kept, closest reference length (pycocoevalcap)",
        "rouge_l": "split on spaces, beta 1.2, largest precision and largest recall taken apart (pycocoevalcap)",
        "cider": _CIDER,
    },
    "nlgmetricverse": {
        "bleu": "lower-cased, punctuation replaced by spaces, shortest reference length (sacrebleu)",
        "rouge_l": "F1 of the best reference, lower-cased letters and digits, mean over cases (rouge_score)",
        "cider": _CIDER,
    },
}
_PUNCTUATION = re.compile(f"[{re.escape(string.punctuation)}]")


def check_convention(convention: str) -> None:
    """Raises a ValueError unless `convention` is "coco" or "nlgmetricverse"."""
    if convention not in CONVENTIONS:
        raise ValueError(
            f"there is no captioning convention {convention!r}; choose {' or '.join(map(repr, CONVENTIONS))}: "
            "their figures cannot be compared."
        )


def check_captions(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Checks what every metric takes: a string a case (it may be empty) and its reference strings.

    Raises:
        ValueError: if there are no cases, their numbers differ, a case has no reference, a reference is empty or
            something is not a string.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions, but references of {len(references)} cases; wanted as many.")
    if not len(predictions):
        raise ValueError("there are no predictions to score.")
    for index, (prediction, group) in enumerate(zip(predictions, references, strict=True)):
        if not isinstance(prediction, str):
            raise ValueError(
                f"prediction {index} is {prediction!r}; wanted a string, empty where there is no caption."
            )
        if isinstance(group, str) or not len(group):
            raise ValueError(f"the references of case {index} are {group!r}; wanted a list of at least one string.")
        for reference in group:
            if not isinstance(reference, str) or not reference.strip():
                raise ValueError(f"a reference of case {index} is {reference!r}; wanted a string with words.")


def words_of(text: str, convention: str) -> list[str]:
    """The words that BLEU counts in this convention."""
    return (text if convention == "coco" else _PUNCTUATION.sub(" ", text).lower()).split()


class CaptionScorer:
    """BLEU-1..4, ROUGE-L, CIDEr-D and diversity against one set of references, whose statistics are counted once.

    Args:
        references: the reference captions of each case, under the policy that the protocol names.
        convention: "coco" (nlg-eval, pycocoevalcap: TM2T and independent leaderboards) or "nlgmetricverse" (the
            MotionGPT, MotionGPT3 and GeoMotionGPT papers); `CONVENTIONS` says what each does.

    Raises:
        ValueError: for another convention, or references that `check_captions` refuses.
    """

    def __init__(self, references: Sequence[Sequence[str]], convention: str):
        check_convention(convention)
        check_captions([""] * len(references), references)
        self.references = references
        self.convention = convention
        self._bleu = _bleu_scorer(references, convention)
        self._rouge_l = _rouge_l_scorer(references, convention)
        self._cider = _cider_scorer(references)

    def score(self, predictions: Sequence[str]) -> dict[str, float]:
        """Scores of one system.

        Args:
            predictions: one caption a case; an empty one counts as an empty string.

        Returns:
            `bleu_1` to `bleu_4`, `rouge_l`, `cider` and the values of `caption_diversity`.
        """
        check_captions(predictions, self.references)
        return {
            **{f"bleu_{order}": value for order, value in enumerate(self._bleu(predictions), 1)},
            "rouge_l": self._rouge_l(predictions),
            "cider": self._cider(predictions),
            **caption_diversity(predictions, self.convention),
        }


def caption_scores(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    convention: str,
    bert_model: str | Path | None = None,
    bert_layer: int | None = None,
    bert_rescale: bool = False,
    device: str | torch.device = "cpu",
) -> dict[str, float]:
    """All captioning metrics of one system, as plain figures; `caption_protocol` says how they are taken.

    Args:
        predictions: one caption a case; an empty one counts as an empty string.
        references: the reference captions of each case.
        convention: "coco" or "nlgmetricverse".
        bert_model: folder or Hub name of the encoder of BERTScore; without one there is no BERTScore.
        bert_layer: see `bert_scores`.
        bert_rescale: see `bert_scores`.
        device: of the encoder.

    Returns:
        the values of `CaptionScorer.score`, and those of `bert_scores`.

    Raises:
        ValueError: as `CaptionScorer` and `bert_scores` do.
    """
    scores = CaptionScorer(references, convention).score(predictions)
    if bert_model is not None:
        scores |= bert_scores(
            predictions, references, bert_model, layer=bert_layer, rescale=bert_rescale, device=device
        )
    return scores


def caption_protocol(
    convention: str,
    *,
    bert_model: str | Path | None = None,
    bert_layer: int | None = None,
    bert_rescale: bool = False,
) -> dict[str, Any]:
    """What a result must say about its captioning metrics: convention, each metric's definition, libraries.

    Args:
        convention: "coco" or "nlgmetricverse".
        bert_model: as given to `caption_scores`.
        bert_layer: as given to `caption_scores`.
        bert_rescale: as given to `caption_scores`.
    """
    check_convention(convention)
    libraries = ["evaluate", "pycocoevalcap", "sacrebleu", "rouge-score"]
    protocol: dict[str, Any] = {
        "convention": convention,
        "metric_definitions": dict(CONVENTIONS[convention]),
        "empty_prediction": "counts as an empty string",
    }
    if bert_model is not None:
        libraries += ["bert-score", "transformers"]
        protocol["bert_score"] = bert_protocol(bert_model, layer=bert_layer, rescale=bert_rescale)
    return {**protocol, "libraries": {name: importlib.metadata.version(name) for name in libraries}}


def caption_diversity(predictions: Sequence[str], convention: str) -> dict[str, float]:
    """How varied captions are.

    Args:
        predictions: the captions of one system.
        convention: whose words are counted.

    Returns:
        `distinct_1` and `distinct_2`, different n-grams over all n-grams of the whole corpus (Li et al. 2016, 0-1; 0
        where there is none); `vocabulary_size`, different words; `mean_length`, words a caption.
    """
    captions = [words_of(text, convention) for text in predictions]
    values: dict[str, float] = {}
    for order in (1, 2):
        ngrams = [tuple(words[i : i + order]) for words in captions for i in range(len(words) - order + 1)]
        values[f"distinct_{order}"] = len(set(ngrams)) / max(1, len(ngrams))
    values["vocabulary_size"] = len({word for words in captions for word in words})
    values["mean_length"] = sum(map(len, captions)) / len(captions)
    return values


def _bleu_scorer(references: Sequence[Sequence[str]], convention: str) -> Callable[[Sequence[str]], list[float]]:
    if convention == "coco":
        scorer = BleuScorer(n=MAX_ORDER)
        for group in references:
            scorer += ("", list(group))
        return lambda predictions: [
            100 * value for value in scorer.retest(list(predictions)).compute_score(option="closest")[0]
        ]

    tokens = [[words_of(reference, convention) for reference in group] for group in references]
    shortest = sum(min(map(len, group)) for group in tokens)
    streams = list(zip_longest(*([" ".join(words) for words in group] for group in tokens)))
    bleu = BLEU(tokenize="none", smooth_method="none", references=streams)

    def score(predictions: Sequence[str]) -> list[float]:
        # sacrebleu takes the closest reference length; its counts do not depend on that, and give BLEU-n of any n.
        counted = bleu.corpus_score([" ".join(words_of(text, convention)) for text in predictions], None)
        return [
            bleu.compute_bleu(
                counted.counts[:order], counted.totals[:order], counted.sys_len, shortest, max_ngram_order=order
            ).score
            for order in range(1, MAX_ORDER + 1)
        ]

    return score


def _rouge_l_scorer(references: Sequence[Sequence[str]], convention: str) -> Callable[[Sequence[str]], float]:
    if convention == "coco":
        coco = Rouge()
        groups = [list(group) for group in references]
        return lambda predictions: (
            100
            * statistics.fmean(
                # of an empty caption the scorer finds an empty word, and others between two spaces of a reference
                coco.calc_score([text], group) if text.strip() else 0.0
                for text, group in zip(predictions, groups, strict=True)
            )
        )
    scorer = RougeScorer(["rougeL"], tokenizer=_CachedTokenizer())
    return lambda predictions: (
        100
        * statistics.fmean(
            scorer.score_multi(group, text)["rougeL"].fmeasure
            for text, group in zip(predictions, references, strict=True)
        )
    )


class _CachedTokenizer:
    """rouge_score's words, cut once a text."""

    def __init__(self) -> None:
        self.tokenize = cache(DefaultTokenizer(use_stemmer=False).tokenize)


_Vector = tuple[list[dict[tuple[str, ...], float]], list[float], int]


def _cider_scorer(
    references: Sequence[Sequence[str]], sigma: float = 6.0, factor: float = 10.0
) -> Callable[[Sequence[str]], float]:
    """CIDEr-D (Vedantam et al. 2015) on pycocoevalcap's n-gram counts and document frequencies.

    The same sums as its `compute_cider`, which weighs every reference anew for every system, at five times the cost.
    With a single case every idf is log(1 / 1), and its score 0 by construction.
    """
    counter = CiderScorer(n=MAX_ORDER, sigma=sigma)
    counter.crefs = [cook_refs(list(group)) for group in references]
    counter.compute_doc_freq()
    log_cases = math.log(len(references))
    idf = {ngram: log_cases - math.log(frequency) for ngram, frequency in counter.document_frequency.items()}

    def weigh(counts: Mapping[tuple[str, ...], int]) -> _Vector:
        vectors: list[dict[tuple[str, ...], float]] = [{} for _ in range(MAX_ORDER)]
        for ngram, count in counts.items():
            vectors[len(ngram) - 1][ngram] = count * idf.get(ngram, log_cases)
        norms = [math.sqrt(sum(value * value for value in vector.values())) for vector in vectors]
        return vectors, norms, sum(count for ngram, count in counts.items() if len(ngram) == 2)

    def similarity(hypothesis: _Vector, reference: _Vector) -> float:
        (ours, our_norms, our_length), (theirs, their_norms, their_length) = hypothesis, reference
        total = 0.0
        for n in range(MAX_ORDER):
            shared = [(value, theirs[n][ngram]) for ngram, value in ours[n].items() if ngram in theirs[n]]
            overlap = sum(min(value, other) * other for value, other in shared)
            if overlap:
                total += overlap / (our_norms[n] * their_norms[n])
        return total / MAX_ORDER * math.exp(-((our_length - their_length) ** 2) / (2 * sigma**2))

    weighed = [[weigh(counts) for counts in group] for group in counter.crefs]

    def score(predictions: Sequence[str]) -> float:
        values = []
        for text, group in zip(predictions, weighed, strict=True):
            hypothesis = weigh(cook_test(text))
            values.append(statistics.fmean(similarity(hypothesis, reference) for reference in group))
        return 100 * factor * statistics.fmean(values)

    return score


def bert_scores(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    model: str | Path,
    *,
    layer: int | None = None,
    idf: bool = True,
    rescale: bool = False,
    batch_size: int = 64,
    device: str | torch.device = "cpu",
) -> dict[str, float]:
    """BERTScore (Zhang et al. 2020) by the bert-score library, best reference of each case, mean over cases.

    Args:
        predictions: one caption a case; an empty one scores 0, as in the library.
        references: the reference captions of each case.
        model: folder or Hub name of an encoder; "roberta-large" is what the papers use.
        layer: whose output is compared; by default that of bert-score's table, where it knows the model by its name.
        idf: weigh word pieces by their rarity in the flattened references.
        rescale: also give (raw - baseline) / (1 - baseline), with the English baseline that bert-score publishes for
            the model (`roberta-large`, layer 17: F1 0.83122575).
        batch_size: sentences at a time.
        device: of the encoder.

    Returns:
        `bert_score_precision`, `bert_score_recall`, `bert_score_f1` (raw, 0-100), and with `rescale` the three as
        `..._rescaled`, which may be negative.

    Raises:
        ImportError: without bert-score.
        ValueError: for captions that `check_captions` refuses, a model without a known layer or baseline, a layer it
            has not, a checkpoint that lacks weights, or references among which every word piece is in all, so that no
            idf is left.
    """
    from bert_score.utils import bert_cos_score_idf, get_idf_dict

    check_captions(predictions, references)
    layer = _bert_layer(model, layer)
    baseline = _bert_baseline(model, layer) if rescale else None
    tokenizer, encoder = load_bert_encoder(model, layer)
    encoder.to(device)
    flat_references = [reference for group in references for reference in group]
    flat_predictions = [text for text, group in zip(predictions, references, strict=True) for _ in group]
    weights: dict[int, float] = defaultdict(lambda: 1.0)
    if idf:
        weights = get_idf_dict(flat_references, tokenizer, nthreads=0)
    else:
        weights.update(dict.fromkeys(tokenizer.encode(""), 0.0))
    flat_scores = bert_cos_score_idf(
        encoder, flat_references, flat_predictions, tokenizer, weights, device=device, batch_size=batch_size
    )
    best = [scores.max(dim=0).values for scores in flat_scores.split([len(group) for group in references])]
    raw = torch.stack(best).double().mean(dim=0)
    if not raw.isfinite().all():
        raise ValueError("no word piece of some caption tells references apart: give more references, or idf=False.")
    names = [f"bert_score_{part}" for part in ("precision", "recall", "f1")]
    scores = dict(zip(names, (100 * raw).tolist(), strict=True))
    if baseline is not None:
        rescaled = 100 * (raw - baseline) / (1 - baseline)
        scores |= {f"{name}_rescaled": value for name, value in zip(names, rescaled.tolist(), strict=True)}
    return scores


def bert_protocol(
    model: str | Path, *, layer: int | None = None, idf: bool = True, rescale: bool = False
) -> dict[str, Any]:
    """What a result must say about its BERTScore; the arguments are those of `bert_scores`."""
    layer = _bert_layer(model, layer)
    return {
        "model": _bert_name(model),
        "layer": layer,
        "idf": "of the flattened references" if idf else "none",
        "scores": "raw and rescaled" if rescale else "raw",
        "baseline": _bert_baseline(model, layer).tolist() if rescale else None,
    }


class _BertScoreTokenizer:
    """A tokenizer as bert-score 0.3 expects it; transformers 5 no longer has what that calls.

    Sentences of byte-level models begin with a space (which `encode` no longer takes as an argument), the empty one
    has special tokens only, and a model may name no largest length.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer = tokenizer
        self._prefix = " " if isinstance(tokenizer, (GPT2Tokenizer, RobertaTokenizer)) else ""
        limit = tokenizer.model_max_length
        self._limit = {"truncation": True, "max_length": limit} if limit < 10**6 else {}
        self.pad_token_id = tokenizer.pad_token_id
        self.model_max_length = limit

    def encode(self, text: str, **_: Any) -> list[int]:
        text = text.strip()
        return self._tokenizer.encode(self._prefix + text if text else "", **self._limit)

    def build_inputs_with_special_tokens(self, _: list[int]) -> list[int]:
        return self.encode("")


def load_bert_encoder(model: str | Path, layer: int | None) -> "tuple[_BertScoreTokenizer, PreTrainedModel]":
    """Tokenizer and encoder of BERTScore, see `bert_scores`.

    Raises:
        OSError, ValueError: if the model is not there, has no such layer or lacks weights.
    """
    return _BertScoreTokenizer(AutoTokenizer.from_pretrained(model)), _load_encoder(model, _bert_layer(model, layer))


def _load_encoder(model: str | Path, layer: int) -> PreTrainedModel:
    """The encoder up to `layer`, every weight of which must be in the checkpoint."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # a warning for each weight of the layers above
    try:
        encoder, info = AutoModel.from_pretrained(model, num_hidden_layers=layer, output_loading_info=True)
    finally:
        transformers_logging.set_verbosity(verbosity)
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))  # comes after the layers
    if missing:
        raise ValueError(f"{_bert_name(model)!r} lacks {len(missing)} weights of its encoder, as {missing[0]}.")
    return encoder.eval()


def _bert_name(model: str | Path) -> str:
    """The Hub name, or the last part of a folder: bert-score's tables are kept by name."""
    return Path(model).resolve().name if Path(model).is_dir() else str(model)


def _bert_layer(model: str | Path, layer: int | None) -> int:
    from bert_score.utils import model2layers

    if layer is None and _bert_name(model) not in model2layers:
        raise ValueError(
            f"bert-score knows no best layer of {_bert_name(model)!r}: name one, as the 17 of roberta-large."
        )
    chosen = model2layers[_bert_name(model)] if layer is None else layer
    available = AutoConfig.from_pretrained(model).num_hidden_layers
    if not 1 <= chosen <= available:
        raise ValueError(f"layer {chosen} of {_bert_name(model)!r} was asked for; it has layers 1 to {available}.")
    return chosen


def _bert_baseline(model: str | Path, layer: int) -> torch.Tensor:
    """Published English baseline of precision, recall and F1 at this layer."""
    import bert_score

    table = Path(bert_score.__file__).parent / "rescale_baseline" / "en" / f"{_bert_name(model)}.tsv"
    if not table.is_file():
        raise ValueError(f"bert-score has no English baseline of {_bert_name(model)!r}: its scores stay raw.")
    lines = table.read_text(encoding="utf-8").splitlines()
    values = {int(number): parts for number, *parts in (line.split(",") for line in lines[1:])}
    return torch.tensor([float(value) for value in values[layer]], dtype=torch.float64)


class CaptionMetric(evaluate.Metric):
    """Base of the metrics below: predictions are strings, references lists of strings, `config_name` the convention.

    ```py
    >>> Cider(config_name="coco").compute(predictions=["a man runs"], references=[["a man is running", "he runs"]])
    ```
    """

    summary = ""

    def _info(self) -> evaluate.MetricInfo:
        self._check_configuration()
        features = {"predictions": datasets.Value("string"), "references": datasets.Sequence(datasets.Value("string"))}
        return evaluate.MetricInfo(
            description=self.summary, citation="", inputs_description="", features=datasets.Features(features)
        )

    def _check_configuration(self) -> None:
        check_convention(self.config_name)


class Bleu(CaptionMetric):
    """BLEU-1 to 4 (Papineni et al. 2002) over the corpus: `bleu_1` to `bleu_4`, 0-100, and `convention`."""

    summary = "BLEU-1 to 4 of captions in a named convention"

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
        check_captions(predictions, references)
        values = _bleu_scorer(references, self.config_name)(predictions)
        scores = {f"bleu_{order}": value for order, value in enumerate(values, 1)}
        return {**scores, "convention": f"{self.config_name}: {CONVENTIONS[self.config_name]['bleu']}"}


class RougeL(CaptionMetric):
    """ROUGE-L (Lin 2004), the mean over cases: `rouge_l`, 0-100, and `convention`."""

    summary = "ROUGE-L of captions in a named convention"

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
        check_captions(predictions, references)
        value = _rouge_l_scorer(references, self.config_name)(predictions)
        return {"rouge_l": value, "convention": f"{self.config_name}: {CONVENTIONS[self.config_name]['rouge_l']}"}


class Cider(CaptionMetric):
    """CIDEr-D (Vedantam et al. 2015): `cider`, 0-1000, published as a percentage, and `convention`.

    Its idf is that of the references given: the score of a single case is 0 by construction, and scores over
    different populations do not compare.
    """

    summary = "CIDEr-D of captions in a named convention"

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
        check_captions(predictions, references)
        value = _cider_scorer(references)(predictions)
        return {"cider": value, "convention": f"{self.config_name}: {CONVENTIONS[self.config_name]['cider']}"}


class CaptionDiversity(CaptionMetric):
    """The values of `caption_diversity` and `convention`, whose words are counted; references are not read."""

    summary = "distinct-n, vocabulary size and length of captions"

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
        check_captions(predictions, references)
        return {**caption_diversity(predictions, self.config_name), "convention": self.config_name}


class BertScore(CaptionMetric):
    """BERTScore (Zhang et al. 2020) with any encoder: the values of `bert_scores`, with model, layer and idf.

    `compute` takes the arguments of `bert_scores` besides predictions and references. There is one convention only, so
    `config_name` is left out.
    """

    summary = "BERTScore of captions, raw and rescaled"

    def _check_configuration(self) -> None:
        if self.config_name != "default":
            raise ValueError(f"BERTScore has no convention {self.config_name!r}: leave config_name out.")

    def _compute(
        self,
        predictions: list[str],
        references: list[list[str]],
        model: str | Path,
        layer: int | None = None,
        rescale: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        scores = bert_scores(predictions, references, model, layer=layer, rescale=rescale, **options)
        return {**scores, **bert_protocol(model, layer=layer, idf=options.get("idf", True), rescale=rescale)}
