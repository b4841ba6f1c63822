"""Rows of a study: what was measured, over its seeds and against the default."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

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
# What cells are compared by.
COMPARED = (
    *("joint_error_mm", "bleu_4", "cider", "action", "style", "test_unseen_cider", "final_loss", "steps_to_loss"),
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
            ValueError: for a line that is no row, or rows that were not measured by one evaluator on the same data.
        """
        study, file = load_study(path), path.with_suffix(".jsonl")
        found = read_rows(file)
        rows = {
            (cell.name, seed): found[cell.name, seed]
            for cell, seed in study.runs
            if (cell.name, seed) in found
            and found[cell.name, seed]["protocol"]["settings"] == study.settings(cell, seed)
        }
        for what in ("evaluator_sha256", "data"):
            told = {json.dumps(row["protocol"].get(what, row.get(what)), sort_keys=True) for row in rows.values()}
            if len(told) > 1:
                raise ValueError(f"{file}: its rows have {what} of {len(told)} kinds, {', '.join(sorted(told))}.")
        return cls(study, rows)

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
            value = None if row is None else figure(row, metric, self.study.loss)
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

    def shares_first_stage(self, cell: Cell) -> bool:
        """Whether a cell has the tokenizer of the cell that it stands against."""
        own, other = (next(iter(self.study.stage_keys(each, 0).values())) for each in (cell, self.base(cell)))
        return own == other

    def is_comparable(self, cell: Cell, metric: str) -> bool:
        """Whether a difference may be tested: three seeds or more, all with the figure, and something to differ."""
        is_shared = metric in OF_THE_FIRST_STAGE and self.shares_first_stage(cell)
        has_seeds = len(self.differences(cell, metric)) > 2 and self.is_complete(cell, metric)
        return has_seeds and cell.is_counted and cell is not self.base(cell) and not is_shared

    def is_complete(self, cell: Cell, metric: str) -> bool:
        """Whether every seed of a cell, and of what it stands against, has a metric."""
        return all(len(self.values(each, metric)) == self.reached(each) for each in (cell, self.base(cell)))

    def spread(self, metric: str, is_shared: bool) -> tuple[float, float] | None:
        """How differences of one seed scatter: standard deviation pooled over cells, and its degrees of freedom.

        Pooled apart over the cells that share the tokenizer of what they stand against, and those that do not. Several
        cells stand against the same one, whose own scatter is then known from its few seeds alone: with as much of the
        variance in the one as in the others, Satterthwaite's degrees of freedom are 4 / (1 / F + 1 / B), of F in the
        cells and B in what they stand against. None while nothing can be compared.
        """
        squares, of_cells, of_bases = 0.0, 0, dict[str, int]()
        for cell in self.study.cells:
            if self.is_comparable(cell, metric) and self.shares_first_stage(cell) == is_shared:
                values = self.differences(cell, metric)
                mean, freedom = sum(values) / len(values), len(values) - 1
                squares += sum((value - mean) ** 2 for value in values)
                of_cells += freedom
                of_bases[cell.against] = max(freedom, of_bases.get(cell.against, 0))
        if not squares:
            return None
        return math.sqrt(squares / of_cells), 4 / (1 / of_cells + 1 / sum(of_bases.values()))

    def resolution(self, metric: str, is_shared: bool, seeds: int) -> float | None:
        """Half the width of the 95 % interval of a mean of so many differences, by the pooled spread."""
        spread = self.spread(metric, is_shared)
        if spread is None:
            return None
        return float(stats.t.ppf(0.975, spread[1])) * spread[0] / math.sqrt(seeds)

    @cached_property
    def probabilities(self) -> dict[tuple[str, str], float]:
        """(cell, metric) -> how probable so large a difference is if there is none, by the pooled spread."""
        found = {}
        for metric in COMPARED:
            spreads = {is_shared: self.spread(metric, is_shared) for is_shared in (True, False)}
            for cell in self.study.cells:
                spread = spreads[self.shares_first_stage(cell)]
                if spread is not None and self.is_comparable(cell, metric):
                    values = self.differences(cell, metric)
                    size = abs(sum(values) / len(values)) / (spread[0] / math.sqrt(len(values)))
                    found[cell.name, metric] = 2 * float(stats.t.sf(size, spread[1]))
        return found

    @cached_property
    def discoveries(self) -> set[tuple[str, str]]:
        """(cell, metric) of the differences that stand with the false discovery rate of them all at 5 %.

        By Benjamini and Hochberg (1995), over every difference of the study.
        """
        ordered = sorted(self.probabilities.items(), key=lambda item: item[1])
        limit = FALSE_DISCOVERY_RATE / max(1, len(ordered))
        last = max((rank for rank, (_, value) in enumerate(ordered, 1) if value <= rank * limit), default=0)
        return {key for key, _ in ordered[:last]}

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
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, float(stats.t.ppf(0.975, len(values) - 1)) * math.sqrt(variance / len(values))


def is_clear(differences: Sequence[float]) -> bool:
    """Whether the 95 % interval leaves out 0; of fewer than three differences nothing is clear."""
    if len(differences) < 3:
        return False
    mean, width = interval(differences)
    return abs(mean) > width > 0
