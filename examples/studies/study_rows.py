"""Rows of a study: what was measured, over its seeds and against the default."""

import itertools
import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from study_runs import Cell, Study, load_study


@dataclass(frozen=True)
class Metric:
    """How a metric is shown: label, factor and decimals; whether less is better (None: neither)."""

    label: str
    factor: float = 1
    decimals: int = 1
    less_is_better: bool | None = False


METRICS = {
    "training_seconds": Metric("CPU seconds of training", decimals=0, less_is_better=None),
    "joint_error_mm": Metric("joint error, mm", less_is_better=True),
    "mpjpe_mm": Metric("MPJPE, mm", decimals=0, less_is_better=True),
    "reconstruction_fid": Metric("FID of reconstruction", decimals=2, less_is_better=True),
    "reconstruction_jerk_m_per_s3": Metric("jerk of reconstruction, m/s³", less_is_better=None),
    "ground_truth_jerk_m_per_s3": Metric("jerk of the data, m/s³", less_is_better=None),
    "perplexity": Metric("perplexity", less_is_better=None),
    "dead_codes": Metric("dead codes", less_is_better=True),
    "gram_error_excess": Metric("Gram error, tokenizer", decimals=3, less_is_better=None),
    "gram_error_excess_before": Metric("before stage 2", decimals=3, less_is_better=None),
    "language_model_gram_error_excess": Metric("after stage 2", decimals=3, less_is_better=None),
    "bleu_4": Metric("BLEU-4"),
    "rouge_l": Metric("ROUGE-L"),
    "cider": Metric("CIDEr"),
    "action": Metric("action, %", factor=100),
    "side": Metric("side, %", factor=100),
    "style": Metric("style, %", factor=100),
    "motion_to_text_r_at_3": Metric("R@3 motion to caption, %", factor=100),
    "text_to_motion_r_at_3": Metric("R@3 caption to motion, %", factor=100),
    "steps_to_loss": Metric("steps to the loss", decimals=0, less_is_better=True),
    "final_loss": Metric("caption loss", decimals=3, less_is_better=True),
    "generated_fid": Metric("FID of made motions", decimals=2, less_is_better=True),
    "generated_fid_over_floor": Metric("FID of halves over floor", decimals=2, less_is_better=True),
    "generated_motion_to_text_r_at_3": Metric("R@3 motion to text, %", factor=100),
    "generated_text_to_motion_r_at_3": Metric("R@3 text to motion, %", factor=100),
    "generated_mm_dist": Metric("MM-Dist", decimals=2, less_is_better=True),
    "generated_jerk_m_per_s3": Metric("jerk of made motions, m/s³", less_is_better=None),
    "test_unseen_action": Metric("unseen pairs: action, %", factor=100),
    "test_unseen_style": Metric("unseen pairs: style, %", factor=100),
    "test_unseen_cider": Metric("unseen pairs: CIDEr"),
}
OF_THE_FIRST_STAGE = {
    "joint_error_mm",
    "mpjpe_mm",
    "reconstruction_fid",
    "perplexity",
    "dead_codes",
    "gram_error_excess",
}
# Of the evaluator network.
OF_THE_EVALUATOR = {
    *("reconstruction_fid", "generated_fid", "generated_fid_over_floor", "generated_mm_dist"),
    *(name for name in METRICS if name.endswith("_r_at_3")),
}
OF_THE_WORDS = {"final_loss", "steps_to_loss"}  # cannot be compared between vocabularies
# What cells are compared by.
COMPARED = (
    *(
        "joint_error_mm",
        "reconstruction_fid",
        "bleu_4",
        "cider",
        "action",
        "style",
        "test_unseen_cider",
        "final_loss",
        "steps_to_loss",
    ),
    *("generated_fid", "generated_text_to_motion_r_at_3"),
)
FALSE_DISCOVERY_RATE = 0.05

Row = dict[str, Any]


def read_rows(path: Path) -> dict[tuple[str, int], Row]:
    """(cell, seed) -> row, of a JSONL; none if there is no such file.

    Raises:
        ValueError: naming the line that is no row.
    """
    rows = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows[row["model"]["cell"], row["model"]["seed"]] = row
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number} is no row of a study: take it out, and its run is done again."
            ) from error
    return rows


@dataclass(frozen=True)
class Measured:
    """A study and the rows that it has so far."""

    study: Study
    rows: Mapping[tuple[str, int], Row]

    @classmethod
    def read(cls, path: Path) -> "Measured":
        """The study of a YAML, with the rows of the JSONL beside it that are of its settings.

        Raises:
            ValueError: for a line that is no row, or rows that were not measured on the same data.
        """
        study, file = load_study(path), path.with_suffix(".jsonl")
        found = read_rows(file)
        rows = {
            (cell.name, seed): found[cell.name, seed]
            for cell, seed in study.runs
            if (cell.name, seed) in found
            and found[cell.name, seed]["protocol"]["settings"] == study.settings(cell, seed)
        }
        told = {json.dumps(row["data"], sort_keys=True) for row in rows.values()}
        if len(told) > 1:
            raise ValueError(f"{file}: its rows have data of {len(told)} kinds, {', '.join(sorted(told))}.")
        return cls(study, rows)

    @cached_property
    def evaluator(self) -> str | None:
        """Hash of the evaluator network that measured most rows; what others say of FID and retrieval is left out."""
        told = Counter(row["protocol"].get("evaluator_sha256") for row in self.rows.values())
        return told.most_common(1)[0][0] if told else None

    @property
    def default(self) -> Cell:
        """What the others are compared with."""
        return self.study.cells[0]

    @cached_property
    def missing(self) -> list[tuple[Cell, int]]:
        """Runs without a row."""
        return [(cell, seed) for cell, seed in self.study.runs if (cell.name, seed) not in self.rows]

    def reached(self, cell: Cell) -> int:
        """How many seeds of a cell have a row."""
        return sum((cell.name, seed) in self.rows for seed in range(cell.seeds))

    def values(self, cell: Cell, metric: str) -> dict[int, float]:
        """Seed -> the figure, for the seeds that have it."""
        found = {}
        for seed in range(cell.seeds):
            row = self.rows.get((cell.name, seed))
            if row is None or (metric in OF_THE_WORDS and cell.has_own_words):
                continue
            if metric in OF_THE_EVALUATOR and row["protocol"].get("evaluator_sha256") != self.evaluator:
                continue
            value = figure(row, metric, self.study.loss)
            if value is not None:
                found[seed] = value
        return found

    def base(self, cell: Cell) -> Cell:
        """What a cell is compared with."""
        return self.study.cell(cell.against)

    def differences(self, cell: Cell, metric: str) -> list[float]:
        """The cell's figures less those of the same seed of the cell that it stands against."""
        own, others = self.values(cell, metric), self.values(self.base(cell), metric)
        return [value - others[seed] for seed, value in own.items() if seed in others]

    def shared_stages(self, cell: Cell) -> int:
        """How many stages, from the first on, a cell has in common with the cell that it stands against."""
        pairs = zip(self._stages[cell.name], self._stages[cell.against], strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

    @cached_property
    def _stages(self) -> dict[str, tuple[str, ...]]:
        """What tells the stages of each cell from others."""
        return {cell.name: tuple(self.study.stage_keys(cell, 0).values()) for cell in self.study.cells}

    def is_same(self, cell: Cell, metric: str) -> bool:
        """Whether a figure of a cell is that of what it stands against, for the tokenizer is the same one."""
        return metric in OF_THE_FIRST_STAGE and cell is not self.base(cell) and self.shared_stages(cell) > 0

    def is_comparable(self, cell: Cell, metric: str) -> bool:
        """Whether a difference may be tested: three seeds or more, all with the figure, and something to differ."""
        has_seeds = len(self.differences(cell, metric)) > 2 and self.is_complete(cell, metric)
        is_other = cell is not self.base(cell) and not self.is_same(cell, metric)
        return has_seeds and cell.is_counted and is_other and self._like(cell, metric) is cell

    def _like(self, cell: Cell, metric: str) -> Cell:
        """The cell that is tested: of those that compare the same two tokenizers by their figures, the first."""
        if metric not in OF_THE_FIRST_STAGE:
            return cell
        pair = self._tokenizers(cell)
        return next(
            each for each in self.study.cells if each.is_counted == cell.is_counted and pair == self._tokenizers(each)
        )

    def _tokenizers(self, cell: Cell) -> tuple[str, str]:
        return self._tokenizer(cell), self._tokenizer(self.base(cell))

    def _tokenizer(self, cell: Cell) -> str:
        return self._stages[cell.name][0]

    def is_complete(self, cell: Cell, metric: str) -> bool:
        """Whether every seed of a cell, and of what it stands against, has a metric."""
        return all(len(self.values(each, metric)) == self.reached(each) for each in (cell, self.base(cell)))

    @cached_property
    def _groups(self) -> list[list[Cell]]:
        """Cells that scatter alike, apart by their tokenizers."""
        groups: dict[str, list[Cell]] = {}
        for cell in self.study.cells:
            is_usual = len(cell.stages) == len(self.default.stages) and cell.is_counted and not cell.is_apart
            if is_usual and self.reached(cell) > 1:
                groups.setdefault(self._tokenizer(cell), []).append(cell)
        return list(groups.values())

    def spread(self, metric: str, is_shared: bool) -> tuple[float, float] | None:
        """Standard deviation of a single run, pooled over cells, and its degrees of freedom.

        Of runs that share the tokenizer: what is left after the mean of each cell and of each seed, so that what a
        tokenizer does to all of its cells is taken out. Of runs with tokenizers of their own: the scatter over seeds
        within a cell; cells of one tokenizer count as one. A difference of two means of n seeds has the standard error
        spread * sqrt(2 / n) in both. None while there is nothing to take it from.
        """
        squares, freedom = 0.0, 0
        for group in self._groups:
            found = [self.values(cell, metric) for cell in group if self.is_complete(cell, metric)]
            found = [values for values in found if len(values) > 1]
            if not found or (is_shared and (len(found) < 2 or metric in OF_THE_FIRST_STAGE)):
                continue
            if is_shared:
                left, degrees = _residuals(found)
                squares, freedom = squares + left, freedom + degrees
            else:
                variances = [statistics.variance(values.values()) for values in found]
                degrees = max(map(len, found)) - 1
                squares, freedom = squares + degrees * statistics.mean(variances), freedom + degrees
        return (math.sqrt(squares / freedom), freedom) if squares and freedom else None

    def resolution(self, metric: str, is_shared: bool, seeds: int, level: float = 0.05) -> float | None:
        """The least difference of two means of so many seeds that is significant at a level, by the pooled spread."""
        spread = self.spread(metric, is_shared)
        if spread is None:
            return None
        return t_quantile(spread[1], level) * spread[0] * math.sqrt(2 / seeds)

    def error(self, cell: Cell, metric: str) -> tuple[float, float] | None:
        """Standard error of a cell's mean difference and its degrees of freedom.

        By the pooled spread; by the cell's own differences where it goes on from the same trained model, or scatters
        otherwise (`apart` in the study). None where nothing can be compared.
        """
        values = self.differences(cell, metric)
        if len(values) < 3 or self.is_same(cell, metric):
            return None
        if self.shared_stages(cell) > 1 or cell.is_apart or self.base(cell).is_apart:
            deviation = statistics.stdev(values)
            return (deviation / math.sqrt(len(values)), len(values) - 1) if deviation else None
        spread = self.spread(metric, self.shared_stages(cell) == 1)
        return None if spread is None else (spread[0] * math.sqrt(2 / len(values)), spread[1])

    @cached_property
    def probabilities(self) -> dict[tuple[str, str], float]:
        """(cell, metric) -> how probable so large a difference is if there is none."""
        found = {}
        for metric in COMPARED:
            for cell in self.study.cells:
                error = self.error(cell, metric) if self.is_comparable(cell, metric) else None
                if error is not None:
                    size = abs(statistics.mean(self.differences(cell, metric))) / error[0]
                    found[cell.name, metric] = 2 * float(stats.t.sf(size, error[1]))
        return found

    @cached_property
    def level(self) -> float:
        """The probability below which the false discovery rate of all differences of the study is 5 %.

        By Benjamini and Hochberg (1995).
        """
        ordered = sorted(self.probabilities.values())
        limit = FALSE_DISCOVERY_RATE / max(1, len(ordered))
        return limit * max((rank for rank, value in enumerate(ordered, 1) if value <= rank * limit), default=1)

    def stands(self, cell: Cell, metric: str) -> bool:
        """Whether a difference is a discovery, and the interval of its own seeds leaves out 0."""
        probability = self.probabilities.get((self._like(cell, metric).name, metric))
        return probability is not None and probability <= self.level and is_clear(self.differences(cell, metric))

    def cells(self, question: str) -> list[Cell]:
        """The default and the cells of a question that have a row."""
        chosen = [cell for cell in self.study.cells if cell is self.default or question in cell.questions]
        return [cell for cell in chosen if self.reached(cell)]


def figure(row: Mapping[str, Any], metric: str, loss: float) -> float | None:
    """A metric of a row; None where it was not measured.

    The steps to a loss are read between two evaluations; None if it was not reached, or before the first of them.
    """
    curve = row["model"].get("curve", [])
    if metric == "final_loss":
        return curve[-1][1] if curve else None
    if metric == "training_seconds":
        seconds = row["model"]["seconds"]
        return float(sum(seconds[name] for name in row["model"]["stages"]))
    if metric == "steps_to_loss":
        for (before, higher), (after, lower) in itertools.pairwise(curve):
            if lower <= loss < higher:
                return before + (after - before) * (higher - loss) / (higher - lower)
        return None
    return row["metrics"].get(metric)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of the 95 % interval of Student's t; the width is NaN for a single value."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, t_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def t_quantile(freedom: float, level: float = 0.05) -> float:
    """What Student's t leaves on either side with half the level."""
    return float(stats.t.isf(level / 2, freedom))


def is_clear(differences: Sequence[float]) -> bool:
    """Whether the 95 % interval leaves out 0; of fewer than three differences nothing is clear."""
    if len(differences) < 3:
        return False
    mean, width = interval(differences)
    return abs(mean) > width > 1e-6 * abs(mean)  # shares that differ by one motion in every seed have no width


def _residuals(found: Sequence[Mapping[int, float]]) -> tuple[float, int]:
    """Sum of squares, and degrees of freedom, of what a mean for each cell and one for each seed leave of figures."""
    seeds = sorted({seed for values in found for seed in values})
    rows, figures = [], []
    for place, values in enumerate(found):
        for seed, value in values.items():
            row = np.zeros(len(found) + len(seeds))
            row[place] = row[len(found) + seeds.index(seed)] = 1
            rows.append(row)
            figures.append(value)
    design, wanted = np.array(rows), np.array(figures)
    means, _, rank, _ = np.linalg.lstsq(design, wanted, rcond=None)
    return float(((wanted - design @ means) ** 2).sum()), len(wanted) - int(rank)
