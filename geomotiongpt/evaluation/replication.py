"""Repeats a measurement with other seeds and gives means with confidence intervals."""

import math
from collections.abc import Callable, Mapping

import numpy as np


def replicate(
    function: Callable[[int], Mapping[str, float]], *, replications: int = 20, seed: int
) -> dict[str, dict[str, float | None]]:
    """Mean and 95% confidence interval of every metric over replications.

    The interval is the published protocol's: 1.96 std / sqrt(n) with the population's std (over n, not n - 1).

    Args:
        function: takes a seed, gives the metrics (name -> finite number); called with `seed`, `seed + 1`, ...
        replications: how often, at least 1.
        seed: of the first.

    Returns:
        name -> `mean`, `ci95` (half the width of the interval; 0 for a metric that does not depend on the seed, None
        after a single replication, which says nothing about it) and `n`.

    Raises:
        ValueError: for no replications, a metric that is not a finite number, or names that change.

    Source: Guo et al., Generating Diverse and Natural 3D Human Motions from Text (CVPR 2022): 20 replications.
    """
    if replications < 1:
        raise ValueError(f"replications is {replications}; run at least 1 (published: 20).")
    values: dict[str, list[float]] = {}
    for index in range(replications):
        metrics = function(seed + index)
        if index == 0:
            values = {name: [] for name in metrics}
        if values.keys() != metrics.keys():
            raise ValueError(
                f"seed {seed + index} gave the metrics {sorted(metrics)}, seed {seed} gave {sorted(values)}; every "
                "replication must measure the same."
            )
        for name, value in metrics.items():
            if not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
                raise ValueError(f"metric {name!r} is {value!r} with seed {seed + index}; wanted a finite number.")
            values[name].append(float(value))
    return {name: _interval(np.array(series)) for name, series in values.items()}


def _interval(series: np.ndarray) -> dict[str, float | None]:
    # The std of equal values is not exactly 0 in floating point
    spread = 0.0 if np.ptp(series) == 0 else float(series.std())
    ci95 = 1.96 * spread / math.sqrt(len(series)) if len(series) > 1 else None
    return {"mean": float(series.mean()), "ci95": ci95, "n": len(series)}
