"""One run, one result: motions that a model makes of captions or of parts of motions, and its word on how long one is.

Motions are written as they come (`write_motions`); then they are measured as anybody's are (`evaluate_motions`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets import Dataset as HFDataset

from ..checkpoints import MotionLanguageModel, MotionProcessor, load_captioner
from ..data.training_sets import drop_short_motions
from ..models.motion_representation import features_to_joints, get_motion_representation
from ..models.motion_vocabulary import MotionVocabularyMixin
from ..models.task_prompts import read_duration, state_duration
from ..visualization.animation import draw_motion_strip
from .attributes import AttributeReader, attribute_accuracy, share
from .captioner import decoding_of, motion_lengths, weights_hash, write_captions
from .generator import MadeMotions, MotionRequest, write_motions
from .physics import joint_displacements
from .protocol import (
    FEWEST_FRAMES,
    RESULT,
    Population,
    compare_physics,
    describe_evaluator,
    describe_labels,
    describe_multimodality,
    measure_motions,
    motions_of,
    prefixed,
    score_repeated,
)
from .reconstruction import encode_clips, frame_errors
from .report import draw_plots, write_report
from .results import make_result, save_json
from .resumable import join_processes
from .semantics import MULTIMODALITY_TEXTS, Evaluator, hold_last_frame

MOTIONS, REPEATED, JUDGED, JUDGED_REAL = "motions", "repeated", "judged.jsonl", "judged_ground_truth.jsonl"
DURATIONS = "durations.jsonl"
_NUM_EXAMPLES = 4
_CLOSE = 0.1  # of a length: what counts as the length asked for
_SAME_FEATURES = 1e-4  # normalised and back, in float32
_SEAM_LIMIT = 2.0  # times the data's 99th percentile
_BASELINES = {
    "motion-prediction": "the features of the last given frame, without the root's velocity",
    "motion-in-between": "features on a line from the last given frame to the next",
}


@dataclass(frozen=True)
class Judge:
    """A captioning model that says what it sees in motions, and how its words are read.

    Args:
        name: as the result names it.
        model: in evaluation mode, on its device.
        processor: of the model.
        reader: of attributes.
    """

    name: str
    model: MotionLanguageModel
    processor: MotionProcessor
    reader: AttributeReader


@dataclass(frozen=True)
class _Run:
    """What every run has: an opened model, the motions it is measured on, and what a result says of both."""

    name: str
    model: MotionLanguageModel
    processor: MotionProcessor
    population: Population
    dataset: HFDataset
    too_short: list[str]
    output: Path
    batch_size: int
    decoding: Mapping[str, Any]
    command: str

    @property
    def fps(self) -> float:
        return get_motion_representation(self.population.representation).fps

    def finish(
        self, task: str, protocol: Mapping[str, Any], metrics: dict[str, Any], plots: Mapping[str, Path]
    ) -> dict[str, Any]:
        """Writes the result and its report."""
        left_out = {"too short for the task": self.too_short}
        result = make_result(
            command=self.command,
            model={
                "name": self.name,
                "sha256": weights_hash(self.model),
                "parameters": self.model.num_parameters(),
            },
            data=self.population.name_data(self.dataset),
            protocol={
                "task": task,
                "population": self.population.describe(self.dataset, left_out),
                "decoding": {**decoding_of(self.model), **self.decoding, "batch_size": self.batch_size},
                **protocol,
            },
            metrics=metrics,
        )
        save_json(result, self.output / RESULT)
        write_report(result, self.output, plots)
        return result


def evaluate_text_to_motion(
    model_name: str | Path,
    population: Population,
    output: str | Path,
    *,
    request: MotionRequest | None = None,
    evaluator: Evaluator | None = None,
    judge: Judge | None = None,
    reader: AttributeReader | None = None,
    batch_size: int = 64,
    decoding: Mapping[str, Any] | None = None,
    command: str = "geomotiongpt evaluate",
) -> dict[str, Any] | None:
    """Makes a motion of the first caption of every motion of a split, and measures them against the real ones.

    Args:
        model_name: folder of a motion-language model, or its name on the Hub.
        population: whose captions and motions.
        output: folder for `result.json`, `report.md`, pictures, `motions/` and what the judge said; all grow as they
            come: a killed run goes on, and under `accelerate launch` the processes share the work.
        request: lengths, seed, and `num_samples` motions of each of up to 100 captions for MultiModality.
        evaluator: for R-precision, MM-Dist, FID, Diversity and MultiModality; without one there are none.
        judge: a captioning model that says what the motions show, compared with what their captions ask for.
        reader: of attributes, for the label-aware R-precision.
        batch_size: motions made at a time.
        decoding: options of `generate`; the model's generation configuration by default.
        command: that makes the result again.

    Returns:
        the result; None in all processes but the first.

    Raises:
        ValueError: for several motions of a caption that a model with motion tokens would make without sampling; as
            the parts do, each naming the thing.
    """
    request = request or MotionRequest()
    if judge is not None:
        population.check(judge.processor)
    evaluator = evaluator and evaluator.of_motions_in(population.representation)
    run = _open(model_name, population, output, request, evaluator, batch_size, decoding, command)
    made = _make(run, run.dataset, MOTIONS, replace(request, num_samples=1))
    drawn = _draw_texts(len(run.dataset), request)
    repeated = _make(run, run.dataset.select(drawn), REPEATED, request).motions if drawn else []
    motions = [group[0] for group in made.motions]
    prompts = [captions[0] for captions in run.dataset["captions"]]
    judged = {} if judge is None else _judge(judge, run, motions, prompts)
    if not join_processes().is_main_process:
        return None
    metrics, protocol = _lengths(motions, run.dataset), {"lengths": request.lengths, "seed_of_motions": request.seed}
    if request.lengths == "stated":
        unit = run.processor.feature_extractor.downsampling_factor
        asked = zip(motions, motion_lengths(run.dataset), strict=True)
        metrics["length_within_one_token"] = share([abs(len(motion) - stated) <= unit for motion, stated in asked])
    if evaluator is not None:
        fitting, changed = evaluator.fit(motions)
        metrics |= measure_motions(fitting, run.dataset, evaluator, reader=reader)
        protocol |= changed
        if repeated:
            metrics |= score_repeated([evaluator.fit(group)[0] for group in repeated], evaluator)
            protocol |= {"multimodality_texts": len(drawn), "motions_a_text": request.num_samples}
            protocol |= describe_multimodality(request.num_samples)
    metrics |= compare_physics(motions, motions_of(run.dataset), population.representation)
    plots = _draw_examples(run, motions, prompts)
    if judge is not None:
        metrics |= judged
        protocol |= {"judge": judge.name, "judge_sha256": weights_hash(judge.model)}
        lengths = [len(motion) for motion in motions]
        plots |= draw_plots(run.output / JUDGED, run.output, lengths, judge.reader, run.fps)
    said = {
        "direction": "text-to-motion; R-precision in both directions",
        "captions": "the first of each motion",
        "made_frames": _range([len(motion) for motion in motions]),
        **protocol,
        **describe_evaluator(evaluator, len(motions), len(motions)),
        **describe_labels(run.dataset["captions"], reader),
    }
    return run.finish(request.task, said, metrics, plots)


def evaluate_completion(
    model_name: str | Path,
    population: Population,
    output: str | Path,
    *,
    request: MotionRequest,
    evaluator: Evaluator | None = None,
    batch_size: int = 64,
    decoding: Mapping[str, Any] | None = None,
    command: str = "geomotiongpt evaluate",
) -> dict[str, Any] | None:
    """Gives a model a part of every motion of a split, has it make the rest, and measures that against the real rest.

    Args:
        model_name: as of `evaluate_text_to_motion`, as are the next two.
        population: whose motions, each cut to whole codes.
        output: folder.
        request: "motion-prediction" or "motion-in-between", and the share that is given.
        evaluator: for FID and Diversity of whole motions; without one there are none.
        batch_size: motions made at a time.
        decoding: options of `generate`; the model's generation configuration by default.
        command: that makes the result again.

    Returns:
        the result; None in all processes but the first. `ade_mm` and `fde_mm` are the mean distance of the joints from
        the real ones over the frames that were made, and at the last of them, relative to the root; `world_...` the
        same in the world; `baseline_...` those of a pose that is held, or of poses on a line between the two ends.
        `seam_displacement_...` is how far the joint that moves furthest goes between the last frame that was given and
        the first that was made, or the reverse.

    Raises:
        ValueError: as the parts do, each naming the thing.
    """
    evaluator = evaluator and evaluator.of_motions_in(population.representation)
    run = _open(model_name, population, output, request, evaluator, batch_size, decoding, command)
    made = _make(run, run.dataset, MOTIONS, request)
    if not join_processes().is_main_process:
        return None
    motions = [group[0] for group in made.motions]
    unit, representation = run.processor.feature_extractor.downsampling_factor, population.representation
    real = [motion[: len(motion) // unit * unit] for motion in motions_of(run.dataset)]
    plain = _plain_completions(real, made, unit, representation)
    metrics: dict[str, Any] = {
        **_given_kept(run, made, real),
        **_errors(motions, real, made, unit, representation),
        **prefixed("baseline", _errors(plain, real, made, unit, representation)),
        **_seams(motions, real, made, unit, representation),
    }
    protocol: dict[str, Any] = {"given": request.keep, "seed_of_motions": request.seed, "seam_limit": _SEAM_LIMIT}
    protocol |= {"baseline": _BASELINES[request.task]}
    if evaluator is not None:
        fitting, changed = evaluator.fit(motions)
        metrics |= measure_motions(fitting, run.dataset, evaluator, has_texts=False)
        protocol |= changed
        protocol |= describe_evaluator(evaluator, len(motions), len(motions))
        del protocol["pools"]  # there are no texts to choose from
    metrics |= compare_physics(motions, motions_of(run.dataset), representation)
    seconds = [[unit * count / run.fps for count in given] for given in made.given_codes]
    names = [f"given: the first {start:.1f} s" + f", the last {end:.1f} s" * (end > 0) for start, end in seconds]
    return run.finish(request.task, protocol, metrics, _draw_examples(run, motions, names))


def evaluate_durations(
    model_name: str | Path,
    population: Population,
    output: str | Path,
    *,
    batch_size: int = 64,
    decoding: Mapping[str, Any] | None = None,
    command: str = "geomotiongpt evaluate",
) -> dict[str, Any] | None:
    """Asks a model how long every motion of a split lasts.

    Args:
        model_name: as of `evaluate_text_to_motion`, as are the next two.
        population: whose motions.
        output: folder.
        batch_size: motions at a time.
        decoding: options of `generate`; the model's generation configuration by default.
        command: that makes the result again.

    Returns:
        the result; None in all processes but the first. Answers without a duration count as wrong, and have no part
        in the mean error. `ground_truth_...` is the error of who counts the codes, which lack a motion's last frames;
        `baseline_...` are of the constant with the smallest mean error, the median of these motions.

    Raises:
        ValueError: as the parts do, each naming the thing.
    """
    run = _open(model_name, population, output, None, None, batch_size, decoding, command)
    answers = write_captions(
        run.model,
        run.processor,
        run.dataset,
        run.output / DURATIONS,
        task="motion-duration",
        batch_size=batch_size,
        **run.decoding,
    )
    if answers is None:
        return None
    unit = run.processor.feature_extractor.downsampling_factor
    truth = np.array(motion_lengths(run.dataset)) / run.fps
    said = [read_duration(answer) for answer in answers]
    counted = [
        read_duration(state_duration(frames // unit * unit / run.fps)) for frames in motion_lengths(run.dataset)
    ]
    constant = float(np.median(truth))
    metrics = {
        "duration_answered": share([seconds is not None for seconds in said]),
        **_duration_errors(said, truth),
        **prefixed("baseline", _duration_errors([constant] * len(truth), truth)),
        "ground_truth_duration_error_seconds": float(np.abs(np.array(counted, float) - truth).mean()),
    }
    protocol = {
        "direction": "motion-to-text",
        "truth": "frames of the motion by frames a second",
        "baseline": f"always {constant:g} seconds, the median",
    }
    return run.finish("motion-duration", protocol, metrics, {})


def _open(
    model_name, population: Population, output, request, evaluator, batch_size: int, decoding, command: str
) -> _Run:
    """Opens everything and refuses what cannot be measured, before anything takes long."""
    model, processor = load_captioner(model_name)
    population.check(processor)
    if request is not None and isinstance(model, MotionVocabularyMixin):
        model._sampling(request.num_samples, dict(decoding or {}))
    model.to(join_processes().device).eval()
    fewest = 1 if request is None else request.fewest_codes
    shortest = processor.feature_extractor.downsampling_factor * fewest
    if request is not None:
        shortest = max(shortest, FEWEST_FRAMES)
    dataset, too_short = drop_short_motions(population.dataset, shortest)
    if evaluator is not None:
        has_pools = request is not None and request.task == "text-to-motion"
        evaluator.check(dataset["motion_id"], motion_lengths(dataset), has_pools=has_pools)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    return _Run(
        str(model_name),
        model,
        processor,
        population,
        dataset,
        too_short,
        output,
        batch_size,
        decoding or {},
        command,
    )


def _make(run: _Run, dataset: HFDataset, name: str, request: MotionRequest) -> MadeMotions:
    folder = run.output / name
    return write_motions(run.model, run.processor, dataset, folder, request, batch_size=run.batch_size, **run.decoding)


def _draw_texts(num_texts: int, request: MotionRequest) -> list[int]:
    """Rows whose captions get several motions."""
    if request.num_samples == 1:
        return []
    rng = np.random.default_rng(request.seed)
    return sorted(rng.choice(num_texts, min(MULTIMODALITY_TEXTS, num_texts), replace=False).tolist())


def _judge(judge: Judge, run: _Run, motions: Sequence[np.ndarray], prompts: Sequence[str]) -> dict[str, Any]:
    """Whether the judge names in the motions, and in the real ones, what their captions ask for."""
    features = datasets.Features(
        motion_id=datasets.Value("string"),
        motion=datasets.Array2D((None, motions[0].shape[1]), "float32"),
        captions=datasets.List(datasets.Value("string")),
    )
    shortest = judge.processor.feature_extractor.downsampling_factor
    motions = [hold_last_frame(motion, shortest) for motion in motions]
    rows = {"motion_id": run.dataset["motion_id"], "motion": motions, "captions": [[prompt] for prompt in prompts]}
    made = HFDataset.from_dict(rows, features).with_format("numpy", columns=["motion"], output_all_columns=True)
    metrics: dict[str, Any] = {}
    for prefix, dataset, name in (("judged", made, JUDGED), ("ground_truth_judged", run.dataset, JUDGED_REAL)):
        said = write_captions(
            judge.model, judge.processor, dataset, run.output / name, batch_size=run.batch_size, do_sample=False
        )
        if said is not None:
            metrics |= prefixed(prefix, attribute_accuracy(said, [[prompt] for prompt in prompts], judge.reader))
    return metrics


def _lengths(motions: Sequence[np.ndarray], dataset: HFDataset) -> dict[str, Any]:
    wanted = np.array(motion_lengths(dataset))
    errors = np.abs(np.array([len(motion) for motion in motions]) - wanted) / wanted
    return {
        "relative_length_error": float(errors.mean()),
        "length_within_10_percent": share((errors <= _CLOSE).tolist()),
    }


def _duration_errors(said: Sequence[float | None], truth: np.ndarray) -> dict[str, Any]:
    pairs = list(zip(said, truth.tolist(), strict=True))
    errors = [abs(seconds - right) for seconds, right in pairs if seconds is not None]
    close = [seconds is not None and abs(seconds - right) <= _CLOSE * right for seconds, right in pairs]
    return {
        "duration_error_seconds": float(np.mean(errors)) if errors else None,
        "duration_within_10_percent": share(close),
    }


def _range(lengths: Sequence[int]) -> dict[str, float]:
    return {"min": min(lengths), "mean": round(sum(lengths) / len(lengths), 1), "max": max(lengths)}


def _draw_examples(run: _Run, motions: Sequence[np.ndarray], titles: Sequence[str]) -> dict[str, Path]:
    """Pictures of motions from all over the split."""
    plots, ids = {}, run.dataset["motion_id"]
    for number, row in enumerate(np.unique(np.linspace(0, len(motions) - 1, _NUM_EXAMPLES).astype(int))):
        joints = features_to_joints(motions[row], run.population.representation)
        plots[f"Made for {ids[row]}"] = draw_motion_strip(
            joints,
            run.output / f"example_{number}.png",
            caption=titles[row],
            representation=run.population.representation,
        )
    return plots


def _given_kept(run: _Run, made: MadeMotions, real: Sequence[np.ndarray]) -> dict[str, Any]:
    """Whether what was given stands in each motion: codes as the tokenizer gives them, or else the frames."""
    if isinstance(run.model, MotionVocabularyMixin):
        return {"given_codes_kept": share(_codes_kept(run, run.model, made, real))}
    kept = []
    for (motion,), target, (start, end) in zip(made.motions, real, made.given_codes, strict=True):
        given = np.r_[0:start, len(target) - end : len(target)]
        kept.append(bool(np.allclose(motion[given], target[given], rtol=0, atol=_SAME_FEATURES)))
    return {"given_frames_kept": share(kept)}


def _codes_kept(run: _Run, model: MotionVocabularyMixin, made: MadeMotions, real: Sequence[np.ndarray]) -> list[bool]:
    """Whether the codes of what was given stand in each motion as the tokenizer gives them."""
    extractor, tokenizer = run.processor.feature_extractor, model.motion_tokenizer
    unit = extractor.downsampling_factor
    parts = []
    for motion, (start, end) in zip(real, made.given_codes, strict=True):
        parts += [motion[: start * unit], *([motion[len(motion) - end * unit :]] if end else [])]
    codes = iter(encode_clips(tokenizer, [extractor.normalise(part) for part in parts]))
    kept = []
    for (written,), (start, end) in zip(made.codes, made.given_codes, strict=True):
        right = written[:start] == next(codes).tolist()
        if end:
            right &= written[len(written) - end :] == next(codes).tolist()
        kept.append(right)
    return kept


def _errors(
    motions: Sequence[np.ndarray], real: Sequence[np.ndarray], made: MadeMotions, unit: int, representation: str
) -> dict[str, float]:
    """Means over motions, over the frames that were made and at the last of them."""
    errors: dict[str, list[float]] = {name: [] for name in ("ade_mm", "fde_mm", "world_ade_mm", "world_fde_mm")}
    for motion, target, (start, end) in zip(motions, real, made.given_codes, strict=True):
        span = slice(start * unit, len(target) - end * unit)
        for prefix, values in zip(("", "world_"), frame_errors(motion, target, representation), strict=True):
            errors[f"{prefix}ade_mm"].append(values[span].mean())
            errors[f"{prefix}fde_mm"].append(values[span][-1])
    return {name: float(np.mean(values)) for name, values in errors.items()}


def _plain_completions(
    real: Sequence[np.ndarray], made: MadeMotions, unit: int, representation: str
) -> list[np.ndarray]:
    """What needs no model: the last given pose held, or poses on a line between the two ends."""
    slices = get_motion_representation(representation).feature_slices
    plain = []
    for target, (start, end) in zip(real, made.given_codes, strict=True):
        first, stop = start * unit, len(target) - end * unit
        motion = np.array(target)
        if end:
            shares = np.linspace(0, 1, stop - first + 2)[1:-1, None]
            motion[first:stop] = (1 - shares) * target[first - 1] + shares * target[stop]
        else:
            motion[first:stop] = target[first - 1]
            motion[first:stop, slices["root_velocity"]] = 0
            if "heading_change" in slices:
                motion[first:stop, slices["heading_change"]] = (1, 0, 0, 0, 1, 0)  # none
            else:
                motion[first:stop, slices["root_yaw"]] = 0
        plain.append(motion)
    return plain


def _seams(
    motions: Sequence[np.ndarray], real: Sequence[np.ndarray], made: MadeMotions, unit: int, representation: str
) -> dict[str, Any]:
    """Displacements across the seams, against those of the data."""
    seams: dict[str, list[float]] = {"made": [], "real": []}
    everywhere = []
    for motion, target, (start, end) in zip(motions, real, made.given_codes, strict=True):
        steps = {
            name: joint_displacements(features_to_joints(np.asarray(rows, np.float64), representation), representation)
            for name, rows in (("made", motion), ("real", target))
        }
        everywhere.append(steps["real"])
        for name, values in seams.items():
            values.append(steps[name][start * unit - 1])
            if end:
                values.append(steps[name][len(target) - end * unit - 1])
    usual = float(np.percentile(np.concatenate(everywhere), 99))
    crossed, limit = np.array(seams["made"]), _SEAM_LIMIT * usual
    return {
        "seam_displacement_mm": float(crossed.mean()),
        "seam_displacement_p99_mm": float(np.percentile(crossed, 99)),
        "seam_displacement_max_mm": float(crossed.max()),
        "seam_above_data_p99": share((crossed > usual).tolist()),
        "seam_within_limit": share((crossed <= limit).tolist()),
        "ground_truth_displacement_p99_mm": usual,
        "ground_truth_seam_displacement_mm": float(np.mean(seams["real"])),
        "ground_truth_seam_above_data_p99": share((np.array(seams["real"]) > usual).tolist()),
        "ground_truth_seam_limit_mm": limit,
    }
