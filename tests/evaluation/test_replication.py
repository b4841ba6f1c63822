"""Means and intervals over replications."""

import math

import numpy as np
import pytest

from geomotiongpt.evaluation.replication import replicate


def test_mean_and_interval_are_those_of_the_published_protocol():
    result = replicate(lambda seed: {"a": float(seed), "b": 10.0 * (seed % 2)}, replications=4, seed=7)
    assert result["a"] == {"mean": 8.5, "ci95": pytest.approx(1.96 * math.sqrt(1.25) / 2), "n": 4}
    assert result["b"] == {"mean": 5.0, "ci95": pytest.approx(1.96 * 5 / 2), "n": 4}


def test_the_default_is_twenty_replications_with_consecutive_seeds():
    seeds = []
    result = replicate(lambda seed: seeds.append(seed) or {"a": np.float32(seed)}, seed=3)
    assert seeds == list(range(3, 23)) and result["a"]["n"] == 20
    assert isinstance(result["a"]["mean"], float)


def test_a_metric_that_does_not_depend_on_the_seed_has_no_width():
    result = replicate(lambda seed: {"third": 0.1 + 0.2, "count": 7}, seed=0)
    assert result == {
        "third": {"mean": pytest.approx(0.3), "ci95": 0.0, "n": 20},
        "count": {"mean": 7.0, "ci95": 0.0, "n": 20},
    }


def test_a_single_replication_says_nothing_about_the_interval():
    assert replicate(lambda seed: {"a": 2.0}, replications=1, seed=0) == {"a": {"mean": 2.0, "ci95": None, "n": 1}}


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "0.5"])
def test_a_value_that_is_no_finite_number_is_an_error_that_names_it(value):
    with pytest.raises(ValueError, match="metric 'a' is .* with seed 6; wanted a finite number"):
        replicate(lambda seed: {"a": value if seed == 6 else 1.0}, seed=5)


def test_metrics_that_come_and_go_are_an_error():
    with pytest.raises(ValueError, match=r"seed 1 gave the metrics \['a', 'b'\], seed 0 gave \['a'\]"):
        replicate(lambda seed: {"a": 1.0} | ({"b": 1.0} if seed else {}), seed=0)


def test_no_replications_are_an_error():
    with pytest.raises(ValueError, match="replications is 0; run at least 1"):
        replicate(lambda seed: {"a": 1.0}, replications=0, seed=0)


def test_an_exception_of_the_measurement_is_not_turned_into_a_number():
    with pytest.raises(ZeroDivisionError):
        replicate(lambda seed: {"a": 1 / 0}, seed=0)
