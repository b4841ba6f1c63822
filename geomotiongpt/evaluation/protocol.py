"""One run, one result: a captioning model, anybody's motions or the sanity probes on a stated population."""

import hashlib
import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset as HFDataset

from ..checkpoints import MotionLanguageModel, MotionProcessor, load_captioner
from ..data.loader import load_motion_dataset, motion_dataset_summary
from ..data.motion_folder import read_array
from ..data.training_sets import drop_short_motions, normalised_clips
from ..models.geometry import codebook_geometry
from ..models.motion_representation import features_to_joints, get_motion_representation
from ..models.motion_vocabulary import MotionVocabularyMixin
from .attributes import AttributeReader, attribute_accuracy, shown_attributes
from .captioner import data_hash, decoding_of, motion_lengths, weights_hash, write_captions
from .captioning import caption_protocol, caption_scores, load_bert_encoder
from .physics import evaluate_physics
from .predictions import select_references
from .probes import run_probes
from .reconstruction import reconstruct_clips, reconstruction_metrics
from .report import draw_plots, write_report
from .results import make_result, save_json
from .resumable import join_processes
from .semantics import DIVERSITY_PAIRS, MULTIMODALITY_GENERATIONS, MULTIMODALITY_PAIRS, Evaluator

logger = logging.getLogger(__name__)

_UNREAD = "unread"
FEWEST_FRAMES = 4  # of which a jerk can be measured
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

    def check(self, processor: MotionProcessor) -> None:
        """Raises a ValueError if the motions are of another representation than a model's."""
        own = processor.feature_extractor.representation
        if own != self.representation:
            raise ValueError(
                f"the model takes {own!r} motions; the motions to measure it on are said to be "
                f"{self.representation!r}: give data in its representation, and --representation {own}."
            )

    def name_data(self, dataset: HFDataset) -> dict[str, str]:
        """The data of a result: their name, and the hash of the motions measured and their captions."""
        return {"name": str(self.data), "sha256": data_hash(dataset)}

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
        return caption_scores(
            captions,
            [select_references(group, self.reference_policy) for group in references],
            convention=self.convention,
            bert_model=self.bert_model,
            bert_layer=self.bert_layer,
            bert_rescale=self.bert_rescale,
            device=_device(),
        )

    def check(self) -> None:
        """Refuses an encoder of BERTScore that is not there or does not fit, before anything takes long."""
        self.describe()
        if self.bert_model is not None:
            load_bert_encoder(self.bert_model, self.bert_layer)

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
        model_name: folder of a motion-language model, or its name on the Hub.
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
    model, processor = load_captioner(model_name)
    population.check(processor)
    model.to(join_processes().device).eval()
    shortest = max(processor.feature_extractor.downsampling_factor, FEWEST_FRAMES)
    dataset, too_short = drop_short_motions(population.dataset, shortest)
    if evaluator is not None:
        evaluator = evaluator.of_motions_in(population.representation)
        evaluator.check(dataset["motion_id"], motion_lengths(dataset))
    captioning.check()
    output.mkdir(parents=True, exist_ok=True)
    decoding: dict[str, Any] = {"num_beams": num_beams, "do_sample": False}
    decoding |= {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
    captions = write_captions(model, processor, dataset, output / PREDICTIONS, batch_size=batch_size, **decoding)
    if captions is None:
        return None
    references = dataset["captions"]
    metrics: dict[str, Any] = dict(captioning.score(captions, references))
    if reader is not None:
        metrics |= attribute_accuracy(captions, references, reader)
    metrics |= _motion_metrics(model, processor, dataset, evaluator)
    if evaluator is not None:
        metrics |= _text_metrics(evaluator, captions, dataset, reader)
    result = make_result(
        command=command,
        model={"name": str(model_name), "sha256": weights_hash(model), "parameters": model.num_parameters()},
        data=population.name_data(dataset),
        protocol={
            "task": "motion-to-text",
            "direction": "motion-to-text; R-precision in both directions",
            "population": population.describe(dataset, {f"shorter than {shortest} frames": too_short}),
            **captioning.describe(),
            "empty_predictions": sum(not caption.strip() for caption in captions),
            "decoding": {**decoding_of(model), **decoding, "batch_size": batch_size},
            **describe_evaluator(evaluator, len(dataset), len(dataset)),
            **describe_labels(references, reader),
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
            which the first counts for every metric but MultiModality. Those longer than the evaluator takes are cut,
            of shorter ones the last frame is repeated, and both are counted.
        population: whose captions and real motions they are measured against.
        evaluator: for the semantic metrics.
        reader: of attributes, for the label-aware R-precision.
        command: that makes the result again.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it holds no motion of the split; for a file that cannot be read, is empty, holds NaN or another
            width.
    """
    folder = Path(folder)
    files, ids = _motion_files(folder), population.dataset["motion_id"]
    rows = [index for index, motion_id in enumerate(ids) if motion_id in files]
    if not rows:
        raise ValueError(
            f"{folder} holds no motion of split {population.split!r}: its files are called like "
            f"{', '.join(sorted(files)[:3]) or 'nothing'}, the motions {', '.join(ids[:3])}."
        )
    evaluator = evaluator.of_motions_in(population.representation)
    numbers = {len(files[ids[row]]) for row in rows}
    if len(numbers - {1}) > 1:
        raise ValueError(
            f"{folder}: between {min(numbers)} and {max(numbers)} motions a caption; wanted as many of each, or "
            "of some and one of the others."
        )
    dataset = population.dataset.select(rows)
    paths = [files[motion_id] for motion_id in dataset["motion_id"]]
    given = [_read_motion(group[0]) for group in paths]
    motions, changed = evaluator.fit(given, [str(group[0]) for group in paths])
    evaluator.check_number(len(motions))
    evaluator.check(ids, motion_lengths(population.dataset))
    metrics = measure_motions(motions, population.dataset, evaluator, rows=rows, reader=reader)
    # Joints as they were given: features stand on the ground and have the representation's bone lengths.
    metrics |= compare_physics(given, motions_of(dataset), population.representation)
    if numbers != {1}:
        several = [group for group in paths if len(group) > 1]
        repeated = [evaluator.fit([_read_motion(path) for path in group], list(map(str, group))) for group in several]
        metrics |= score_repeated([fitting for fitting, _ in repeated], evaluator)
    unknown = sorted(set(files) - set(ids))
    for what, names in (("motions of the split without a file", set(ids) - set(files)), ("other files", unknown)):
        if names:
            logger.warning("%s: %s: %d (%s ...)", folder, what, len(names), min(names))
    return make_result(
        command=command,
        model={"name": folder.name, "sha256": _files_hash(sorted(path for group in paths for path in group))},
        data=population.name_data(population.dataset),
        protocol={
            "task": "text-to-motion",
            "direction": "text-to-motion; R-precision in both directions",
            "captions": "the first of each motion, which the motions must have been made from",
            "population": {
                **population.describe(dataset),
                "without_a_file": len(ids) - len(rows),
                "files_of_no_motion": len(unknown),
                "motions_a_caption": max(numbers),
                "captions_with_several": sum(len(group) > 1 for group in paths),
            },
            **describe_multimodality(max(numbers)),
            **changed,
            **describe_evaluator(evaluator, len(motions), len(ids)),
            **describe_labels(dataset["captions"], reader),
        },
        metrics=metrics,
    )


def measure_motions(
    motions: Sequence[np.ndarray],
    real: HFDataset,
    evaluator: Evaluator,
    *,
    rows: Sequence[int] | None = None,
    reader: AttributeReader | None = None,
    has_texts: bool = True,
) -> dict[str, Any]:
    """The semantic metrics of motions that were made, and of the real ones in their place.

    Args:
        motions: features (frames, F) each, not normalised.
        real: the motions of the population.
        evaluator: whose space they are compared in.
        rows: in which row of `real` each motion's text stands; all in order by default.
        reader: of attributes, for the label-aware R-precision.
        has_texts: whether the motions were made from the first captions; without texts there are FID and Diversity.
    """
    rows = range(len(real)) if rows is None else rows
    dataset = real.select(rows)
    embeddings, real_embeddings = evaluator.embed_motions(motions), _embed_real(evaluator, real)
    own_embeddings = real_embeddings[list(rows)]
    metrics: dict[str, Any] = {}
    if has_texts:
        labels = None if reader is None else pair_labels(dataset["captions"], reader)
        texts = [group[:1] for group in _embed_references(evaluator, dataset)]
        metrics |= evaluator.score_pairs(texts, embeddings, labels=labels)
        metrics |= prefixed("ground_truth", evaluator.score_pairs(texts, own_embeddings, labels=labels))
    return {
        **metrics,
        **evaluator.score_distribution(embeddings, real_embeddings),
        **evaluator.score_halves(embeddings, own_embeddings),
    }


def score_repeated(motions: Sequence[Sequence[np.ndarray]], evaluator: Evaluator) -> dict[str, Any]:
    """MultiModality of motions (features) of which each text has several."""
    samples = [evaluator.embed_motions(group) for group in zip(*motions, strict=True)]
    return evaluator.score_generations(np.stack(samples, axis=1))


def describe_multimodality(num_samples: int) -> dict[str, str]:
    """What a result must say about its MultiModality, if there is one."""
    if num_samples < 2:
        return {}
    published = f"{MULTIMODALITY_PAIRS} pairs of {num_samples}, drawn as published: a motion may meet itself"
    return {
        "multimodality_pairs": published
        if num_samples >= MULTIMODALITY_GENERATIONS
        else f"all pairs of different motions, {num_samples} of a text; published are {MULTIMODALITY_GENERATIONS}"
    }


def compare_physics(
    motions: Sequence[np.ndarray], real: Sequence[np.ndarray], representation: str
) -> dict[str, float | None]:
    """Physics of motions beside that of real ones, features or joints, and how much more the feet slide.

    Motions too short to have any are left out and counted (`motions_without_physics`).
    """
    truth, long_enough = _physics(real, representation), [one for one in motions if len(one) >= FEWEST_FRAMES]
    made = _physics(long_enough, representation) if long_enough else dict.fromkeys(truth)
    slid, really = made["foot_skating_ratio"], truth["foot_skating_ratio"]
    return {
        **made,
        "foot_skating_over_ground_truth": slid / really if slid is not None and really else None,
        "motions_without_physics": len(motions) - len(long_enough),
        **prefixed("ground_truth", truth),
    }


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
    evaluator = replace(evaluator.of_motions_in(population.representation), last_pool="smaller")
    evaluator.check(dataset["motion_id"], motion_lengths(dataset))
    references = dataset["captions"]
    tokens = {group[0]: words[0].split() for group, words in zip(references, dataset["tokens"], strict=True)}
    metrics = run_probes(
        evaluator.embed_motions,
        lambda captions: evaluator.embed_texts(captions, [tokens.get(caption, ()) for caption in captions]),
        motions_of(dataset),
        [group[0] for group in references],
        labels=None if reader is None else pair_labels(references, reader),
        caption_scorer=lambda captions: captioning.score(captions, references),
        similarity=evaluator.model.config.similarity,
        representation=population.representation,
        pool_size=evaluator.pool_size,
        seed=evaluator.seed,
    )
    protocol = {
        **describe_evaluator(evaluator, len(dataset), len(dataset)),
        **describe_labels(references, reader),
        "last_pool": "smaller",
        "replications": 1,
        "intervals": "none",
    }
    return make_result(
        command=command,
        model={"name": "ground truth, damaged"},
        data=population.name_data(dataset),
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
        reader: of attributes: what makes two pairs right answers for each other. Without one, captions of nearly the
            same words do (cosine of bags of words above 0.9).
        command: that makes the result again.
    """
    dataset, evaluator = population.dataset, evaluator.of_motions_in(population.representation)
    evaluator.check(dataset["motion_id"], motion_lengths(dataset))
    references = dataset["captions"]
    texts, motions = _embed_references(evaluator, dataset), _embed_real(evaluator, dataset)
    labels = None if reader is None else pair_labels(references, reader)
    near_identity: dict[str, Any] = {"labels": labels}
    if labels is None:
        near_identity = {"text_similarity": _word_overlap([group[0] for group in references])}
    first = np.stack([group[0] for group in texts])
    return make_result(
        command=command,
        model={"name": evaluator.name},
        data=population.name_data(dataset),
        protocol={
            "direction": "both",
            "population": population.describe(dataset),
            "near_identical": "cosine of bags of words above 0.9" if reader is None else "equal labels",
            "small_batches": "one draw of pools, the rest dropped (TMR, protocol d)",
            **describe_evaluator(evaluator, len(dataset), len(dataset)),
            **describe_labels(references, reader),
        },
        metrics={
            **evaluator.score_pairs(texts, motions, labels=labels),
            **evaluator.score_tmr(first, motions, **near_identity),
            **evaluator.score_real(motions, min(DIVERSITY_PAIRS, len(motions))),
        },
    )


def pair_labels(references: Sequence[Sequence[str]], reader: AttributeReader) -> list[Hashable]:
    """What each motion shows: the tuple of its attributes. A motion whose action cannot be read is like no other."""
    labels = zip(*shown_attributes(references, reader).values(), strict=True)
    return [label if label[0] is not None else (_UNREAD, index) for index, label in enumerate(labels)]


def _text_metrics(
    evaluator: Evaluator, captions: Sequence[str], dataset: HFDataset, reader: AttributeReader | None
) -> dict[str, Any]:
    """R-precision and MM-Dist of the captions, and of the references for comparison."""
    labels = None if reader is None else pair_labels(dataset["captions"], reader)
    motions = _embed_real(evaluator, dataset)
    said = [row[None] for row in evaluator.embed_texts(captions)]
    truth = evaluator.score_pairs(_embed_references(evaluator, dataset), motions, labels=labels)
    scores = {**evaluator.score_pairs(said, motions, labels=labels), **prefixed("ground_truth", truth)}
    if evaluator.processor.tagged:  # captions of a model are not: the references as these are read
        alike = _embed_references(evaluator, dataset, tagged=False)
        scores |= prefixed("ground_truth_untagged", evaluator.score_pairs(alike, motions, labels=labels))
    return scores


def _motion_metrics(
    model: MotionLanguageModel, processor: MotionProcessor, dataset: HFDataset, evaluator: Evaluator | None
) -> dict[str, Any]:
    """Reconstruction by what encodes motions, physics before and after; use and geometry of the codes, if any."""
    has_codes, extractor = isinstance(model, MotionVocabularyMixin), processor.feature_extractor
    codec = model.motion_tokenizer if has_codes else model.motion_encoder
    reconstruction = reconstruct_clips(codec, extractor, normalised_clips(dataset, extractor))
    metrics: dict[str, Any] = reconstruction_metrics(reconstruction, codec, extractor.representation)
    metrics |= prefixed("reconstruction", _physics(reconstruction.features, extractor.representation))
    metrics |= prefixed("ground_truth", _physics(reconstruction.targets, extractor.representation))
    if has_codes:
        metrics |= prefixed("language_model", codebook_geometry(model.motion_geometry()))
    if evaluator is not None:
        back, real = (evaluator.embed_motions(clips) for clips in (reconstruction.features, reconstruction.targets))
        metrics |= evaluator.score_distribution(back, real, "reconstruction_")
        metrics |= prefixed("reconstruction", evaluator.score_halves(back, real))
    return metrics


def _embed_references(evaluator: Evaluator, dataset: HFDataset, *, tagged: bool = True) -> list[np.ndarray]:
    """(captions, E) of each motion, with the tags of the data or read as a caption of a model is."""
    groups = dataset["captions"]
    tokens = [words.split() for group in dataset["tokens"] for words in group] if tagged else None
    embeddings = evaluator.embed_texts([caption for group in groups for caption in group], tokens)
    return np.split(embeddings, np.cumsum([len(group) for group in groups])[:-1])


def _embed_real(evaluator: Evaluator, dataset: HFDataset) -> np.ndarray:
    return evaluator.embed_motions(motions_of(dataset), dataset["motion_id"])


def motions_of(dataset: HFDataset) -> list[np.ndarray]:
    return [motion for rows in dataset.select_columns(["motion"]).iter(100) for motion in rows["motion"]]


def _physics(motions: Sequence[np.ndarray], representation: str) -> dict[str, float]:
    """Of features (frames, F) or joints (frames, J, 3)."""
    joints = [
        motion if motion.ndim == 3 else features_to_joints(np.asarray(motion, np.float64), representation)
        for motion in motions
    ]
    return evaluate_physics(joints, representation)


def _word_overlap(captions: Sequence[str]) -> np.ndarray:
    """(N, N) cosines of bags of words."""
    bags = [set(caption.lower().split()) for caption in captions]
    words = {word: column for column, word in enumerate(sorted(set().union(*bags)))}
    rows = np.zeros((len(bags), len(words)), np.float32)
    for row, bag in enumerate(bags):
        rows[row, [words[word] for word in bag]] = 1 / max(1, len(bag)) ** 0.5
    return rows @ rows.T


def describe_evaluator(evaluator: Evaluator | None, num_motions: int, num_real: int) -> dict[str, Any]:
    if evaluator is None:
        return {}
    return {**evaluator.protocol, **evaluator.describe_distribution(num_motions, num_real)}


def describe_labels(references: Sequence[Sequence[str]], reader: AttributeReader | None) -> dict[str, Any]:
    if reader is None:
        return {}
    unread = sum(label[0] == _UNREAD for label in pair_labels(references, reader))  # type: ignore[index]
    return {"labels": list(reader.names), "motions_without_label": unread}


def _files_hash(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def prefixed(prefix: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
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
