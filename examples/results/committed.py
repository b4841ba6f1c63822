"""Committed results and how their figures are written."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]


def load(name: str) -> dict:
    """A committed result; MultiModality of earlier versions, of 10 pairs of 10 motions, under a name of its own.

    Raises:
        ValueError: if its MultiModality is of other motions than the labels of the tables say.
    """
    result = json.loads((ROOT / name).read_text(encoding="utf-8"))
    metrics = result["metrics"]
    if "multimodality" in metrics:
        if result["protocol"]["motions_a_text"] != 10:
            raise ValueError(f"{name}: MultiModality of {result['protocol']['motions_a_text']} motions; label it so.")
        if "multimodality_pairs" not in result["protocol"]:
            metrics["multimodality_of_10_pairs"] = metrics.pop("multimodality")
    return result


MULTIMODALITIES = {
    "multimodality": "MultiModality (all pairs of 10 motions)",
    "multimodality_of_10_pairs": (
        "MultiModality (10 pairs drawn as published, but of 10 motions a text: 10 % below that of different motions)"
    ),
}


def percent(score: dict) -> str:
    """A share with its number of motions."""
    return f"{score['mean']:.1%} of {score['n']}"


def score(value: float | dict) -> str:
    """A metric, with its interval where it has one."""
    if not isinstance(value, dict):
        value = round(value, 9)  # what rounding leaves of a difference between equals
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    interval = "" if not value["ci95"] else f" ± {value['ci95']:.2g}"
    return f"{value['mean']:.3g}{interval}"


def cell(metrics: dict, key: str) -> str:
    """A metric, or nothing where it was not measured."""
    return score(metrics[key]) if key in metrics else ""
