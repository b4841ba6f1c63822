"""One run, one result: a captioning model, anybody's motions or the sanity probes on a stated population."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset as HFDataset
from transformers import AutoModelForCausalLM, AutoProcessor, PreTrainedModel

from ..data.loader import load_motion_dataset, motion_dataset_summary
from ..data.motion_folder import read_array
from ..data.training_sets import drop_short_motions, normalised_clips
from ..models.geometry import codebook_geometry
from ..models.motion_representation import features_to_joints, get_motion_representation
from .attributes import AttributeReader, attribute_accuracy, shown_attributes
from .captioner import motion_lengths, weights_hash, write_captions
from .captioning import CaptionScorer, bert_scores, caption_protocol
from .physics import evaluate_physics
from .predictions import select_references
from .probes import run_probes
from .reconstruction import reconstruct_clips, reconstruction_metrics
from .report import draw_plots, write_report
from .results import make_result, save_json
from .semantics import Evaluator

logger = logging.getLogger(__name__)

RESULT, PREDICTIONS = "result.json", "predictions.jsonl"


@dataclass(frozen=True)
class Population:
    """Which motions are measured.

    Args:
        data: folder or Hub name of a data set, see `load_motion_dataset`.
        split: its split.
        min_frames: shorter motions are left out; the usual protocol has 40, KIT-ML 24.
        max_frames: longer motions are left out; the usual protocol has 199.
        mirrored: whether mirrored motions count as motions (the usual protocol).
        representation: of the motions.
    """

    data: str | Path
    split: str = "test"
    min_frames: int | None = None
    max_frames: int | None = None
    mirrored: bool = True
    representation: str = "humanml3d"

    @cached_property
    def dataset(self) -> HFDataset:
        """The motions."""
        return load_motion_dataset(
            self.data,
            self.split,
            self.representation,
            min_frames=self.min_frames,
            max_frames=self.max_frames,
            mirrored=self.mirrored,
        )

    def describe(self, dataset: HFDataset, left_out: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """What a result must say: the filter, how many motions were measured, and what was left out for which reason.

        Args:
            dataset: the motions measured.
            left_out: what was left out beside what loading left out.
        """
        lengths = motion_lengths(dataset)
        reasons = {**motion_dataset_summary(self.dataset).left_out, **(left_out or {})}
        return {
            **{name: value for name, value in asdict(self).items() if name != "data"},
            "motions": len(lengths),
            "frames": {"min": min(lengths), "mean": round(sum(lengths) / len(lengths), 1), "max": max(lengths)},
            "captions": sum(map(len, dataset["captions"])),
            "left_out": {reason: len(names) for reason, names in reasons.items() if names},
        }


@dataclass(frozen=True)
class CaptioningProtocol:
    """How captions are scored.

    Args:
        convention: "coco" or "nlgmetricverse".
        reference_policy: "first-three" or "all".
        bert_model: folder or Hub name of the encoder of BERTScore; without one there is none.
        bert_layer: of that encoder, see `bert_scores`.
        bert_rescale: whether BERTScore is rescaled.
    """

    convention: str = "coco"
    reference_policy: str = "first-three"
    bert_model: str | None = None
    bert_layer: int | None = None
    bert_rescale: bool = False

    def score(self, captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """All captioning metrics."""
        groups = [select_references(group, self.reference_policy) for group in references]
        scores = CaptionScorer(groups, self.convention).score(captions)
        if self.bert_model is not None:
            scores |= bert_scores(captions, groups, self.bert_model, layer=self.bert_layer, rescale=self.bert_rescale)
        return scores

    def describe(self) -> dict[str, Any]:
        """What a result must say."""
        options = {"bert_model": self.bert_model, "bert_layer": self.bert_layer, "bert_rescale": self.bert_rescale}
        return {
            "reference_policy": self.reference_policy,
            "track": "raw",
            **caption_protocol(self.convention, **options),  # type: ignore[arg-type]
        }


def evaluate_model(
    model_name: str | Path,
    population: Population,
    output: str | Path,
    *,
    captioning: CaptioningProtocol | None = None,
    evaluator: Evaluator | None = None,
    reader: AttributeReader | None = None,
    batch_size: int = 64,
    num_beams: int = 1,
    max_new_tokens: int | None = None,
    command: str = "geomotiongpt evaluate",
) -> dict[str, Any] | None:
    """Captions a split and measures all there is: captions, their meaning, reconstruction, physics, geometry.

    Args:
        model_name: folder of a `GeoMotionGPTForCausalLM`, or its name on the Hub.
        population: what to measure it on.
        output: folder for `result.json`, `report.md`, plots and `predictions.jsonl`, which grows as captions come: a
            killed run goes on, and under `accelerate launch` the processes share the captioning.
        captioning: how captions are scored; the default protocol if None.
        evaluator: for R-precision, MM-Dist and FID; without one there are none.
        reader: of attributes, for accuracies and the label-aware R-precision; without one there are none.
        batch_size: motions captioned at a time.
        num_beams: of `generate`.
        max_new_tokens: of `generate`; the model's generation configuration by default.
        command: that makes the result again.

    Returns:
        the result; None in all processes but the first.

    Raises:
        ValueError: as the parts do, each naming the thing.
    """
    captioning, output = captioning or CaptioningProtocol(), Path(output)
    output.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(model_name).to(device).eval()
    processor = AutoProcessor.from_pretrained(model_name)
    dataset, too_short = drop_short_motions(population.dataset, processor.feature_extractor.downsampling_factor)
    decoding = {"num_beams": num_beams, "do_sample": False}
    decoding |= {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
    captions = write_captions(model, processor, dataset, output / PREDICTIONS, batch_size=batch_size, **decoding)
    if captions is None:
        return None
    references = dataset["captions"]
    labels = None if reader is None else pair_labels(references, reader)
    metrics: dict[str, Any] = dict(captioning.score(captions, references))
    if reader is not None:
        metrics |= attribute_accuracy(captions, references, reader)
    metrics |= _motion_metrics(model, processor, dataset, evaluator)
    if evaluator is not None:
        metrics |= _text_metrics(evaluator, captions, dataset, labels)
    result = make_result(
        command=command,
        model={"name": str(model_name), "sha256": weights_hash(model), "parameters": model.num_parameters()},
        data={"name": str(population.data)},
        protocol={
            "direction": "motion-to-text; R-precision in both directions",
            "population": population.describe(dataset, {"shorter than one motion code": too_short}),
            **captioning.describe(),
            "empty_predictions": sum(not caption.strip() for caption in captions),
            "decoding": {
                "max_new_tokens": model.generation_config.max_new_tokens,
                **decoding,
                "batch_size": batch_size,
            },
            **({} if evaluator is None else evaluator.protocol),
        },
        metrics=metrics,
    )
    save_json(result, output / RESULT)
    fps = get_motion_representation(population.representation).fps
    write_report(result, output, draw_plots(output / PREDICTIONS, output, motion_lengths(dataset), reader, fps))
    return result


def evaluate_motions(
    folder: str | Path,
    population: Population,
    evaluator: Evaluator,
    *,
    reader: AttributeReader | None = None,
    command: str = "geomotiongpt evaluate",
) -> dict[str, Any]:
    """Measures anybody's motions, made from the captions of a split.

    Args:
        folder: with `<motion id>.npy`, features or joints; or `<motion id>/*.npy`, several motions of one caption, of
            which the first counts for every metric but MultiModality.
        population: whose captions and real motions they are measured against.
        evaluator: for the semantic metrics.
        reader: of attributes, for the label-aware R-precision.
        command: that makes the result again.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it holds no motion of the split; for a file that cannot be read, holds NaN or another width.
    """
    folder = Path(folder)
    files = _motion_files(folder)
    ids = population.dataset["motion_id"]
    rows = [index for index, motion_id in enumerate(ids) if motion_id in files]
    if not rows:
        raise ValueError(
            f"{folder} holds no motion of split {population.split!r}: its files are called like "
            f"{', '.join(sorted(files)[:3]) or 'nothing'}, the motions {', '.join(ids[:3])}."
        )
    extractor = evaluator.processor.feature_extractor
    generations = {
        ids[row]: [extractor.to_features(_read_motion(path), str(path)) for path in files[ids[row]]] for row in rows
    }
    dataset = population.dataset.select(rows)
    motions = [group[0] for group in generations.values()]
    labels = None if reader is None else pair_labels(dataset["captions"], reader)
    texts, real = _embed_references(evaluator, dataset), _embed_real(evaluator, population.dataset)
    embeddings = evaluator.embed_motions(motions, list(generations))
    metrics: dict[str, Any] = dict(evaluator.score_pairs(texts, embeddings, labels=labels))
    truth = evaluator.score_pairs(texts, real[rows], labels=labels)
    metrics |= evaluator.score_distribution(embeddings, real) | _prefixed("ground_truth", truth)
    numbers = {len(group) for group in generations.values()}
    if numbers != {1}:
        if len(numbers) > 1:
            raise ValueError(f"{folder}: between {min(numbers)} and {max(numbers)} motions a caption; wanted as many.")
        stacked = np.stack([evaluator.embed_motions(group) for group in zip(*generations.values(), strict=True)], 1)
        metrics |= evaluator.score_generations(stacked)
    metrics |= _physics(motions, population.representation)
    metrics |= _prefixed("ground_truth", _physics(_motions(dataset), population.representation))
    unknown = sorted(set(files) - set(ids))
    for what, names in (("motions of the split without a file", set(ids) - set(files)), ("other files", unknown)):
        if names:
            logger.warning("%s: %s: %d (%s ...)", folder, what, len(names), min(names))
    return make_result(
        command=command,
        model={"name": folder.name},
        data={"name": str(population.data)},
        protocol={
            "direction": "text-to-motion; R-precision in both directions",
            "population": {
                **population.describe(dataset),
                "without_a_file": len(ids) - len(rows),
                "files_of_no_motion": len(unknown),
                "motions_a_caption": numbers.pop(),
                "fid_against": f"all {len(ids)} motions of the split",
            },
            **evaluator.protocol,
        },
        metrics=metrics,
    )


def evaluate_probes(
    population: Population,
    evaluator: Evaluator,
    *,
    captioning: CaptioningProtocol | None = None,
    reader: AttributeReader | None = None,
    command: str = "geomotiongpt evaluate",
) -> dict[str, Any]:
    """Shows how every metric reacts to known damages of real motion and its captions, see `probes`.

    Args:
        population: what to damage. The first caption of each motion stands for a prediction.
        evaluator: for the semantic metrics.
        captioning: how captions are scored; the default protocol if None.
        reader: of attributes, for the label-aware R-precision.
        command: that makes the result again.
    """
    captioning, dataset = captioning or CaptioningProtocol(), population.dataset
    references = dataset["captions"]
    groups = [select_references(group, captioning.reference_policy) for group in references]
    scorer = CaptionScorer(groups, captioning.convention)
    tokens = {group[0]: words[0].split() for group, words in zip(references, dataset["tokens"], strict=True)}
    metrics = run_probes(
        evaluator.embed_motions,
        lambda captions: evaluator.embed_texts(captions, [tokens.get(caption, ()) for caption in captions]),
        _motions(dataset),
        [group[0] for group in references],
        labels=None if reader is None else pair_labels(references, reader),
        caption_scorer=scorer.score,
        similarity=evaluator.model.config.similarity,
        representation=population.representation,
        seed=evaluator.seed,
    )
    protocol = {name: value for name, value in evaluator.protocol.items() if name not in ("replications", "intervals")}
    return make_result(
        command=command,
        model={"name": "ground truth, damaged"},
        data={"name": str(population.data)},
        protocol={"population": population.describe(dataset), **captioning.describe(), **protocol},
        metrics=metrics,
    )


def evaluate_retrieval(
    population: Population,
    evaluator: Evaluator,
    *,
    reader: AttributeReader | None = None,
    command: str = "geomotiongpt evaluate",
) -> dict[str, Any]:
    """How well an evaluator finds the captions of real motions, and motions by their captions.

    R-precision and MM-Dist with a caption drawn anew in each replication, and the four protocols of TMR with the first
    caption of each motion.

    Args:
        population: the pairs.
        evaluator: to be measured.
        reader: of attributes: what makes two pairs right answers for each other. Without one, equal first captions.
        command: that makes the result again.
    """
    dataset = population.dataset
    references = dataset["captions"]
    texts, motions = _embed_references(evaluator, dataset), _embed_real(evaluator, dataset)
    labels = None if reader is None else pair_labels(references, reader)
    alike = labels or [group[0].strip().lower() for group in references]
    first = np.stack([group[0] for group in texts])
    return make_result(
        command=command,
        model={"name": evaluator.name},
        data={"name": str(population.data)},
        protocol={
            "direction": "both",
            "population": population.describe(dataset),
            "near_identical": "equal first captions" if reader is None else f"equal {', '.join(reader.names)}",
            **evaluator.protocol,
        },
        metrics={
            **evaluator.score_pairs(texts, motions, labels=labels),
            **evaluator.score_tmr(first, motions, alike),
            **evaluator.score_distribution(motions, motions),
        },
    )


def pair_labels(references: Sequence[Sequence[str]], reader: AttributeReader) -> list[Hashable]:
    """What each motion shows: the tuple of its attributes."""
    return list(zip(*shown_attributes(references, reader).values(), strict=True))


def _text_metrics(
    evaluator: Evaluator, captions: Sequence[str], dataset: HFDataset, labels: Sequence[Hashable] | None
) -> dict[str, Any]:
    """R-precision and MM-Dist of the captions, and of the references for comparison."""
    motions = _embed_real(evaluator, dataset)
    said = [row[None] for row in evaluator.embed_texts(captions)]
    truth = evaluator.score_pairs(_embed_references(evaluator, dataset), motions, labels=labels)
    return {**evaluator.score_pairs(said, motions, labels=labels), **_prefixed("ground_truth", truth)}


def _motion_metrics(
    model: PreTrainedModel, processor, dataset: HFDataset, evaluator: Evaluator | None
) -> dict[str, Any]:
    """Reconstruction by the motion tokenizer, physics before and after, use and geometry of the codes."""
    tokenizer, extractor = model.motion_tokenizer, processor.feature_extractor
    reconstruction = reconstruct_clips(tokenizer, extractor, normalised_clips(dataset, extractor))
    metrics: dict[str, Any] = reconstruction_metrics(reconstruction, tokenizer, extractor.representation)
    metrics |= _prefixed("reconstruction", _physics(reconstruction.features, extractor.representation))
    metrics |= _prefixed("ground_truth", _physics(reconstruction.targets, extractor.representation))
    metrics |= _prefixed("language_model", codebook_geometry(model.motion_codebook.weight))
    if evaluator is not None:
        back, real = (evaluator.embed_motions(clips) for clips in (reconstruction.features, reconstruction.targets))
        metrics |= _prefixed("reconstruction", evaluator.score_distribution(back, real))
    return metrics


def _embed_references(evaluator: Evaluator, dataset: HFDataset) -> list[np.ndarray]:
    """(captions, E) of each motion."""
    groups = dataset["captions"]
    tokens = [words.split() for group in dataset["tokens"] for words in group]
    embeddings = evaluator.embed_texts([caption for group in groups for caption in group], tokens)
    return np.split(embeddings, np.cumsum([len(group) for group in groups])[:-1])


def _embed_real(evaluator: Evaluator, dataset: HFDataset) -> np.ndarray:
    return evaluator.embed_motions(_motions(dataset), dataset["motion_id"])


def _motions(dataset: HFDataset) -> list[np.ndarray]:
    return [motion for rows in dataset.select_columns(["motion"]).iter(100) for motion in rows["motion"]]


def _physics(motions: Sequence[np.ndarray], representation: str) -> dict[str, float]:
    joints = [features_to_joints(np.asarray(motion, np.float64), representation) for motion in motions]
    return evaluate_physics(joints, representation)


def _prefixed(prefix: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}_{name}": value for name, value in metrics.items()}


def _read_motion(path: Path) -> np.ndarray:
    try:
        return read_array(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be measured: {error}") from error


def _motion_files(folder: Path) -> dict[str, list[Path]]:
    """Motion id -> its files."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; wanted one with <motion id>.npy files.")
    files = {path.stem: [path] for path in sorted(folder.glob("*.npy"))}
    folders = sorted({path.parent for path in folder.glob("*/*.npy")})
    both = [path.name for path in folders if path.name in files]
    if both:
        raise ValueError(f"{folder} holds both {both[0]}.npy and a folder {both[0]}; keep one.")
    return files | {path.name: sorted(path.glob("*.npy")) for path in folders}
