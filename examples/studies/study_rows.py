"""Rows of a study: what was measured, over its seeds and against the default."""

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
    "generated_fid": Metric("FID", decimals=2, less_is_better=True),
    "generated_fid_over_floor": Metric("FID of halves over floor", decimals=2, less_is_better=True),
    "generated_motion_to_text_r_at_3": Metric("R@3 motion to text, %", factor=100),
    "generated_text_to_motion_r_at_3": Metric("R@3 text to motion, %", factor=100),
    "generated_mm_dist": Metric("MM-Dist", decimals=2, less_is_better=True),
    "generated_jerk_m_per_s3": Metric("jerk, m/s³", less_is_better=None),
    "test_unseen_action": Metric("unseen pairs: action, %", factor=100),
    "test_unseen_style": Metric("unseen pairs: style, %", factor=100),
    "test_unseen_cider": Metric("unseen pairs: CIDEr"),
}


@dataclass(frozen=True)
class Measured:
    """A study and the rows that it has so far."""

    study: Study
    rows: Mapping[tuple[str, int], Mapping[str, Any]]

    @classmethod
    def read(cls, path: Path) -> "Measured":
        """The study of a YAML, with the rows of the JSONL beside it that are of its settings."""
        study, file = load_study(path), path.with_suffix(".jsonl")
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        found = {(row["model"]["cell"], row["model"]["seed"]): row for row in map(json.loads, lines)}
        runs = [(cell, seed) for cell, seed in study.runs if (cell.name, seed) in found]
        rows = {
            (cell.name, seed): found[cell.name, seed]
            for cell, seed in runs
            if found[cell.name, seed]["protocol"]["settings"] == study.settings(cell, seed)
        }
        return cls(study, rows)

    @property
    def default(self) -> Cell:
        """What the others are compared with."""
        return self.study.cells[0]

    @cached_property
    def missing(self) -> list[tuple[Cell, int]]:
        """Runs without a row."""
        return [(cell, seed) for cell, seed in self.study.runs if (cell.name, seed) not in self.rows]

    def values(self, cell: Cell, metric: str) -> dict[int, float]:
        """Seed -> the figure, for the seeds that have it."""
        found = {}
        for seed in range(cell.seeds):
            row = self.rows.get((cell.name, seed))
            value = None if row is None else figure(row, metric, self.study.loss)
            if value is not None:
                found[seed] = value
        return found

    def differences(self, cell: Cell, metric: str) -> list[float]:
        """The cell's figures less the default's of the same seed."""
        own, others = self.values(cell, metric), self.values(self.default, metric)
        return [value - others[seed] for seed, value in own.items() if seed in others]

    def cells(self, question: str) -> list[Cell]:
        """The default and the cells of a question that have a row."""
        chosen = [cell for cell in self.study.cells if cell is self.default or cell.question == question]
        return [cell for cell in chosen if any((cell.name, seed) in self.rows for seed in range(cell.seeds))]


def figure(row: Mapping[str, Any], metric: str, loss: float) -> float | None:
    """A metric of a row; None where it was not measured, or the loss was not reached."""
    curve = row["model"].get("curve", [])
    if metric == "final_loss":
        return curve[-1][1] if curve else None
    if metric == "steps_to_loss":
        return next((float(step) for step, value in curve if value <= loss), None)
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
    return abs(mean) > width
