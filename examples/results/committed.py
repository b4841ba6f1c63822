"""Committed results and how their figures are written."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]


def load(name: str) -> dict:
    """A committed result.

    Raises:
        ValueError: if its MultiModality is of other pairs than the labels of the tables say.
    """
    result = json.loads((ROOT / name).read_text(encoding="utf-8"))
    if "multimodality_pairs" in result.get("protocol", {}):
        raise ValueError(f"{name}: MultiModality of {result['protocol']['multimodality_pairs']}; label it so.")
    return result


def percent(score: dict) -> str:
    """A share with its number of motions."""
    return f"{score['mean']:.1%} of {score['n']}"


def score(value: float | dict) -> str:
    """A metric, with its interval where it has one."""
    if not isinstance(value, dict):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    interval = "" if not value["ci95"] else f" ± {value['ci95']:.2g}"
    return f"{value['mean']:.3g}{interval}"


def cell(metrics: dict, key: str) -> str:
    """A metric, or nothing where it was not measured."""
    return score(metrics[key]) if key in metrics else ""
