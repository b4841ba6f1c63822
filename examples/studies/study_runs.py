"""Studies: what a STUDY.yaml says, and one run of it, from training to its row of figures.

A study has stages that every run goes through, one after another, and cells that each change something of them. A run
is one cell with one seed. Stages of equal settings are trained once and shared by the runs that need them.
"""

import gc
import hashlib
import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock
from transformers import AutoModel, set_seed

from geomotiongpt import (
    MotionFeatureExtractor,
    build_motion_dataset,
    load_motion_dataset,
    make_synthetic_dataset,
    train_evaluator,
    train_language_model,
    train_motion_tokenizer,
)
from geomotiongpt.data.training_sets import drop_short_motions, normalised_clips
from geomotiongpt.evaluation.attributes import AttributeReader, AttributeWords, EmbeddedAttributes
from geomotiongpt.evaluation.captioner import data_hash
from geomotiongpt.evaluation.embeddings import load_evaluator
from geomotiongpt.evaluation.generation import evaluate_text_to_motion
from geomotiongpt.evaluation.protocol import Population, evaluate_model
from geomotiongpt.evaluation.reconstruction import reconstruct_clips, reconstruction_metrics
from geomotiongpt.evaluation.results import make_result, save_json
from geomotiongpt.evaluation.semantics import Evaluator
from geomotiongpt.models.geometry import codebook_geometry
from geomotiongpt.training.language_model import (
    SECTIONS,
    ModelArguments,
    build_language_model,
    load_trained_model,
)
from geomotiongpt.training.motion_tokenizer import MOTION_TOKENIZERS
from geomotiongpt.training.recipes import build_section, load_recipe

ROOT = Path(__file__).resolve().parents[2]
DONE, LABELS = "study_stage.json", "labels.json"
CURVE = "eval_motion-to-text_language_modeling_loss"
# Of what evaluation measures, what a row keeps.
_CAPTIONS = ("bleu_4", "rouge_l", "cider", "action", "side", "style")
_MOTIONS = (
    *("joint_error_mm", "mpjpe_mm", "perplexity", "codes_used", "dead_codes"),
    *("gram_error_excess", "max_abs_cosine", "welch_bound", "reconstruction_fid", "reconstruction_fid_over_floor"),
    *("reconstruction_jerk_m_per_s3", "ground_truth_jerk_m_per_s3"),
)
_DIRECTIONS = ("motion_to_text", "text_to_motion")
_RETRIEVAL = tuple(
    f"{kind}{direction}_r_at_{rank}" for kind in ("", "label_aware_") for direction in _DIRECTIONS for rank in (1, 3)
)
_LIMITS = (*(f"ground_truth_{direction}_r_at_3" for direction in _DIRECTIONS), "fid_floor", "r_precision_pairs")
_GENERATED = ("fid", "fid_over_floor", "mm_dist", "jerk_m_per_s3", "foot_skating_ratio", *_RETRIEVAL)


@dataclass(frozen=True)
class Stage:
    """A stage of a run: a recipe and `section.key=value` options.

    In options `{seed}` stands for the run's seed, and the name of an earlier stage in braces for the folder it wrote.
    """

    name: str
    recipe: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """What a run does differently: options for stages, other stages in place of all of them, or further ones.

    Args:
        name: of the cell.
        questions: that it belongs to.
        title: in tables.
        against: the cell that it differs from in one thing.
        seeds: how many.
        stages: one after another.
        generation: how its motions are made, the study's unless the cell has its own.
        is_counted: whether its differences are tested and pooled with the others; not those of cells that have stages
            of their own, which are another system, or say `counted: false`.
        is_apart: whether its seeds scatter otherwise than those of other cells, by `apart: true`.
        has_own_words: whether its text tokens are others, so that losses cannot be compared, by `own_words: true`.
    """

    name: str
    questions: tuple[str, ...]
    title: str
    against: str
    seeds: int
    stages: tuple[Stage, ...]
    generation: Mapping[str, Any]
    is_counted: bool
    is_apart: bool = False
    has_own_words: bool = False


@dataclass(frozen=True)
class Study:
    """A STUDY.yaml.

    Args:
        path: of the file.
        data: {"source": "embedded", "num_motions", "seed"} or {"source": "real"}.
        evaluator: the recipe of the evaluator network and its options.
        splits: that are measured; motions are made for the first.
        cells: the first is what the others are compared with, unless they say `against`.
        loss: of captioning on the validation split, for the steps that it takes to get there.
        work: folder of data, trained stages and logs.
        real_data: folder with `unpack.py`, see `examples/real_motion.py`.
    """

    path: Path
    data: Mapping[str, Any]
    evaluator: Stage
    splits: tuple[str, ...]
    cells: tuple[Cell, ...]
    loss: float
    work: Path
    real_data: Path | None = None

    def cell(self, name: str) -> Cell:
        """The cell of a name."""
        for cell in self.cells:
            if cell.name == name:
                return cell
        raise ValueError(f"{self.path} has no cell {name!r}; it has {', '.join(cell.name for cell in self.cells)}.")

    @property
    def runs(self) -> list[tuple[Cell, int]]:
        """Every run, in the order of the cells."""
        return [(cell, seed) for cell in self.cells for seed in range(cell.seeds)]

    def stage_keys(self, cell: Cell, seed: int) -> dict[str, str]:
        """For each stage what tells its settings from others: a hash over recipe, options, seed, data and parents."""
        keys: dict[str, str] = {}
        for stage in cell.stages:
            options = [_fill(option, {**keys, "seed": str(seed)}) for option in stage.options]
            keys[stage.name] = _hash([_recipe(stage), options, seed, dict(self.data)])
        return keys

    @property
    def evaluator_key(self) -> str:
        """Of the evaluator network's settings, as `stage_keys`."""
        return _hash([_recipe(self.evaluator), self.evaluator.options, dict(self.data)])

    def settings(self, cell: Cell, seed: int) -> str:
        """The hash of all that a run's figures depend on, apart from the package itself."""
        measured = [*self.splits, sorted(cell.generation.items()), self.evaluator_key]
        return _hash([self.stage_keys(cell, seed), measured, dict(self.data)])


def load_study(path: str | Path, work: str | Path | None = None, real_data: str | Path | None = None) -> Study:
    """Reads a STUDY.yaml.

    Args:
        path: the file.
        work: folder for data and trained stages; `runs/studies/<folder>-<name>` by default.
        real_data: folder with `unpack.py`, for studies of real motion.

    Raises:
        FileNotFoundError: if there is no such file, or a recipe is missing.
        ValueError: if it cannot be understood; the message names the place.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such study; those of the package are in examples/studies/.")
    said = yaml.safe_load(path.read_text(encoding="utf-8"))
    wanted = {"data", "evaluator", "splits", "stages", "cells", "seeds", "generation", "validation_loss"}
    if not isinstance(said, dict) or set(said) != wanted:
        raise ValueError(f"{path} must have the keys {', '.join(sorted(wanted))}, and no other.")
    stages = {
        name: Stage(name, entry["recipe"], tuple(entry.get("options", ()))) for name, entry in said["stages"].items()
    }
    cells = tuple(_read_cell(path, entry, stages, said) for entry in said["cells"])
    names = [cell.name for cell in cells]
    for cell in cells:
        if names.count(cell.name) > 1:
            raise ValueError(f"{path}: two cells are called {cell.name!r}.")
        if cell.against not in names:
            raise ValueError(f"{path}: cell {cell.name!r} stands against {cell.against!r}; there is no such cell.")
    evaluator = Stage("evaluator", said["evaluator"]["recipe"], tuple(said["evaluator"].get("options", ())))
    for stage in [evaluator, *(stage for cell in cells for stage in cell.stages)]:
        if not (ROOT / stage.recipe).is_file():
            raise FileNotFoundError(
                f"{path}: stage {stage.name!r} has the recipe {stage.recipe}, which does not exist."
            )
    return Study(
        path=path,
        data=said["data"],
        evaluator=evaluator,
        splits=tuple(said["splits"]),
        cells=cells,
        loss=said["validation_loss"],
        work=Path(work or Path("runs/studies") / f"{path.parent.name}-{path.stem}"),
        real_data=None if real_data is None else Path(real_data),
    )


def _read_cell(path: Path, entry: Mapping[str, Any], stages: Mapping[str, Stage], said: Mapping[str, Any]) -> Cell:
    known = {"name", "question", "title", "against", "seeds", "changes", "then", "stages", "generation"}
    known |= {"counted", "apart", "own_words"}
    if not {"name", "question", "title"} <= set(entry) <= known:
        raise ValueError(
            f"{path}: a cell has name, question and title, and may have {', '.join(sorted(known))}: {entry}"
        )
    own = dict(stages)
    if "stages" in entry:  # in place of all; null for none
        own = {}
    for part in ("stages", "then"):
        for name, stage in (entry.get(part) or {}).items():
            own[name] = Stage(name, stage["recipe"], tuple(stage.get("options", ())))
    for name, change in (entry.get("changes") or {}).items():
        if name not in own:
            raise ValueError(f"{path}: cell {entry['name']!r} changes the stage {name!r}; there are {', '.join(own)}.")
        if change is None:
            del own[name]
        elif isinstance(change, dict):
            own[name] = Stage(name, change["recipe"], tuple(change.get("options", ())))
        else:
            own[name] = Stage(name, own[name].recipe, (*own[name].options, *change))
    seeds, generation = (entry.get(name, said[name]) for name in ("seeds", "generation"))
    questions = [entry["question"]] if isinstance(entry["question"], str) else entry["question"]
    return Cell(
        name=entry["name"],
        questions=tuple(questions),
        title=entry["title"],
        against=entry.get("against", said["cells"][0]["name"]),
        seeds=seeds,
        stages=tuple(own.values()),
        generation=generation,
        is_counted=entry.get("counted", "stages" not in entry),
        is_apart=entry.get("apart", False),
        has_own_words=entry.get("own_words", False),
    )


def _recipe(stage: Stage) -> dict[str, Any]:
    return _read_recipe(stage.recipe)


@cache
def _read_recipe(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def _hash(said: Any) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def _fill(option: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        option = option.replace("{" + name + "}", value)
    return option


# Running


def prepare_study(study: Study) -> None:
    """Makes what all runs share, where it is not there yet: the data and the evaluator network."""
    folder = study.work / "data"
    with FileLock(_lock(folder)):
        if study.data["source"] == "embedded":
            if not (folder / "Mean.npy").is_file():
                make_synthetic_dataset(folder, study.data["num_motions"], study.data["seed"], num_proc=2)
        elif not (folder / "Mean.npy").is_file():
            if study.real_data is None:
                raise ValueError(f"{study.path} is of real motion: give its folder, --real-data DIR.")
            if not (study.real_data / "unpack.py").is_file():
                raise FileNotFoundError(f"{study.real_data} is no folder of the real motion: it has no unpack.py.")
            raw = study.work / "raw"
            subprocess.run([sys.executable, str(study.real_data / "unpack.py"), str(raw)], check=True)
            shutil.copyfile(study.real_data / "bandai" / "labels.json", study.work / LABELS)
            build_motion_dataset(raw, folder, num_proc=2)
    _train_evaluator(study)


def rows_of_other_evaluators(study: Study, rows: Iterable[Mapping[str, Any]]) -> int:
    """How many rows were measured by another evaluator network than the one of a prepared study."""
    own = _evaluator(study).protocol["evaluator_sha256"]
    return sum(row["protocol"]["evaluator_sha256"] != own for row in rows)


def run_cell(study: Study, cell: Cell, seed: int) -> dict[str, Any]:
    """Trains the stages of a run that are not there yet, and measures what they made: its row.

    Args:
        study: that has been prepared.
        cell: of the study.
        seed: of data order, initial weights and whatever options have it for.

    Returns:
        a result; `model.curve` is the course of the captioning loss on the validation split, as [step, loss].
    """
    prepare_study(study)
    with FileLock(_lock(study.work / "measured" / f"{cell.name}-{seed}")):
        return _run_cell(study, cell, seed)


def _run_cell(study: Study, cell: Cell, seed: int) -> dict[str, Any]:
    keys, folders, seconds = study.stage_keys(cell, seed), {}, {}
    for stage in cell.stages:
        options = [_fill(option, {**folders, "seed": str(seed)}) for option in stage.options]
        folder = _train(study, stage, keys[stage.name], options, seed)
        folders[stage.name], seconds[stage.name] = str(folder), json.loads((folder / DONE).read_text())["seconds"]
        gc.collect()  # trainers hold themselves, and with them the motions
    last = cell.stages[-1]
    model: dict[str, Any] = {"study": study.path.stem, "cell": cell.name, "seed": seed, "stages": keys}
    is_language_model = _kind(last) not in MOTION_TOKENIZERS
    started = time.process_time()
    if is_language_model:
        metrics, said = _measure_model(study, cell, Path(folders[last.name]), keys[last.name])
        if _kind(last) is None:  # of GeoMotionGPT's kind, with codes
            options = [_fill(option, {**folders, "seed": str(seed)}) for option in last.options]
            metrics |= _geometry_before(study, last, options, seed)
        model["curve"] = _loss_curve(Path(folders[last.name]))
    else:
        metrics, said = _measure_tokenizer(study, Path(folders[last.name]))
    seconds["measuring"] = round(time.process_time() - started)
    row = make_result(
        command=command_of(study, cell, seed),
        model={**model, "seconds": seconds},
        data=said.pop("data"),
        protocol={"settings": study.settings(cell, seed), **said},
        metrics={name: _plain(value) for name, value in metrics.items()},
    )
    return row


def command_of(study: Study, cell: Cell, seed: int) -> str:
    """That repeats one run."""
    path = study.path.resolve()
    shown = (path.relative_to(ROOT) if path.is_relative_to(ROOT) else study.path).as_posix()
    shown += " --real-data DATA" if study.data["source"] == "real" else ""
    return f"python examples/geometry_study.py {shown} --cell {cell.name} --seed {seed} --again"


def _lock(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f"{path.name}.lock")


def _kind(stage: Stage) -> str | None:
    return _recipe(stage).get("model", {}).get("model_type")


def _train_evaluator(study: Study) -> Path:
    return _train(study, study.evaluator, study.evaluator_key, study.evaluator.options, 0)


def _train(study: Study, stage: Stage, key: str, options: Sequence[str], seed: int) -> Path:
    """The folder of a trained stage; one that another process is training is waited for."""
    folder = study.work / stage.name / key
    with FileLock(_lock(folder)):
        if (folder / DONE).is_file():
            return folder
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
        shutil.rmtree(study.work / "measured" / key, ignore_errors=True)  # of a model that is no more
        own = [f"data.path={study.work / 'data'}", f"training.output_dir={folder}", f"training.seed={seed}"]
        own += ["training.disable_tqdm=true", "training.save_strategy=no"]
        kind, started = _kind(stage), time.process_time()
        train = train_language_model
        if stage is study.evaluator:
            train = train_evaluator
        elif kind in MOTION_TOKENIZERS:
            train = train_motion_tokenizer
        train(ROOT / stage.recipe, [*own, *options])
        seconds = round(time.process_time() - started)
        save_json(
            {"stage": stage.name, "recipe": stage.recipe, "options": list(options), "seconds": seconds}, folder / DONE
        )
    return folder


# Measuring


def _evaluator(study: Study) -> Evaluator:
    model, processor = load_evaluator(_train_evaluator(study))
    return Evaluator(study.evaluator.recipe, model, processor)


def _reader(study: Study) -> AttributeReader:
    if study.data["source"] == "embedded":
        return EmbeddedAttributes()
    labels = (study.work / LABELS).read_text(encoding="utf-8")
    return AttributeWords.from_labels(json.loads(labels))


def _measure_model(study: Study, cell: Cell, folder: Path, key: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Captions of all splits and motions for the captions of the first, as `geomotiongpt evaluate` measures them."""
    evaluator, reader, metrics = _evaluator(study), _reader(study), {}
    said: dict[str, Any] = {"data": {"source": study.data["source"]}}
    for split in study.splits:
        population = Population(study.work / "data", split, mirrored=False)
        output = study.work / "measured" / key / split
        result = evaluate_model(folder, population, output, evaluator=evaluator, reader=reader)
        assert result is not None  # one process
        wanted = (
            *_CAPTIONS,
            *_MOTIONS,
            *_RETRIEVAL,
            *_LIMITS,
            "language_model_gram_error_excess",
            "language_model_max_abs_cosine",
        )
        metrics |= {
            _named(study, split, name): result["metrics"][name] for name in wanted if name in result["metrics"]
        }
        said["data"][split] = result["data"]["sha256"]
        said.setdefault("evaluator_sha256", result["protocol"]["evaluator_sha256"])
    population = Population(study.work / "data", study.splits[0], mirrored=False)
    result = evaluate_text_to_motion(
        folder,
        population,
        study.work / "measured" / key / "text_to_motion",
        evaluator=evaluator,
        reader=reader,
        decoding=dict(cell.generation),
    )
    assert result is not None
    metrics |= {f"generated_{name}": result["metrics"][name] for name in _GENERATED}
    return metrics, {**said, "splits": list(study.splits), "generation": dict(cell.generation)}


def _measure_tokenizer(study: Study, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reconstruction alone, for what no language model can be trained on."""
    evaluator = _evaluator(study).of_motions_in("humanml3d")
    model, extractor = AutoModel.from_pretrained(folder).eval(), MotionFeatureExtractor.from_pretrained(folder)
    metrics: dict[str, Any] = {}
    said: dict[str, Any] = {"data": {"source": study.data["source"]}, "splits": list(study.splits)}
    said["evaluator_sha256"] = evaluator.protocol["evaluator_sha256"]
    for split in study.splits:
        dataset = load_motion_dataset(study.work / "data", split, mirrored=False)
        dataset, _ = drop_short_motions(dataset, extractor.downsampling_factor)
        back = reconstruct_clips(model, extractor, normalised_clips(dataset, extractor))
        found: dict[str, Any] = reconstruction_metrics(back, model, extractor.representation)
        made, real = (evaluator.embed_motions(clips) for clips in (back.features, back.targets))
        found |= evaluator.score_distribution(made, real, "reconstruction_")
        found |= {f"reconstruction_{name}": value for name, value in evaluator.score_halves(made, real).items()}
        metrics |= {_named(study, split, name): found[name] for name in _MOTIONS if name in found}
        said["data"][split] = data_hash(dataset)
    return metrics, said


def _named(study: Study, split: str, name: str) -> str:
    return name if split == study.splits[0] else f"{split}_{name}"


def _geometry_before(study: Study, stage: Stage, options: Sequence[str], seed: int) -> dict[str, float]:
    """Of the motion embeddings of the model as training began with it."""
    arguments = build_section(ModelArguments, load_recipe(ROOT / stage.recipe, SECTIONS, options)["model"], "model")
    set_seed(seed)
    if arguments.trained_model is not None:
        model, _ = load_trained_model(arguments)
    else:
        captions = load_motion_dataset(study.work / "data", "train")["captions"]
        model, _ = build_language_model(arguments, AutoModel.from_pretrained(arguments.motion_tokenizer), captions)
    geometry = codebook_geometry(model.motion_geometry().detach())
    return {f"{name}_before": geometry[name] for name in ("gram_error_excess", "max_abs_cosine")}


def _loss_curve(folder: Path) -> list[list[float]]:
    rows = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return [[row["step"], round(row[CURVE], 5)] for row in rows if CURVE in row]


def _plain(value: Any) -> float | None:
    """A figure of one run: how sure it is shows between the seeds."""
    value = value["mean"] if isinstance(value, Mapping) else value
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
