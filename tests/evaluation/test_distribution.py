"""Frechet distance against closed forms and scipy, its floor, diversity and multimodality."""

import numpy as np
import pytest
from scipy import linalg

from geomotiongpt.evaluation.distribution import (
    diversity,
    frechet_distance,
    frechet_distance_floor,
    multimodality,
)


def sample_with(mean, covariance, size=200, seed=0):
    """Rows whose sample mean and covariance (over n - 1) are exactly these."""
    white = np.random.default_rng(seed).normal(size=(size, len(mean)))
    white -= white.mean(axis=0)
    white = np.linalg.qr(white)[0] * np.sqrt(size - 1)
    return white @ np.linalg.cholesky(covariance).T + mean


# Frechet distance


def test_the_distance_of_gaussians_with_diagonal_covariances_is_the_closed_form():
    first = sample_with(np.array([1.0, 0.0, 2.0]), np.diag([4.0, 9.0, 1.0]))
    second = sample_with(np.array([0.0, 2.0, 2.0]), np.diag([1.0, 1.0, 16.0]), size=77, seed=1)
    assert frechet_distance(first, second) == pytest.approx(1 + 4 + (2 - 1) ** 2 + (3 - 1) ** 2 + (1 - 4) ** 2)


def test_the_distance_of_gaussians_whose_covariances_do_not_commute_is_the_closed_form():
    """In two dimensions tr (C1 C2)^(1/2) = sqrt(tr C1 C2 + 2 sqrt(det C1 C2))."""
    c1, c2 = np.array([[3.0, 1.0], [1.0, 2.0]]), np.array([[1.0, -0.8], [-0.8, 5.0]])
    product = c1 @ c2
    cross = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    value = frechet_distance(sample_with(np.zeros(2), c1), sample_with(np.zeros(2), c2, seed=3))
    assert value == pytest.approx(np.trace(c1 + c2) - 2 * cross)


@pytest.mark.parametrize("width", [16, 256])
def test_the_distance_agrees_with_the_matrix_square_root_of_scipy(width):
    generator = np.random.default_rng(0)
    first = generator.normal(size=(1000, width)) @ generator.normal(size=(width, width))
    second = generator.normal(size=(700, width)) @ generator.normal(size=(width, width)) + 0.3
    c1, c2 = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    difference = first.mean(axis=0) - second.mean(axis=0)
    expected = difference @ difference + np.trace(c1 + c2 - 2 * linalg.sqrtm(c1 @ c2).real)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("size", [2, 10, 400])
def test_identical_clips_are_at_distance_zero_whatever_their_rank(size):
    rows = np.random.default_rng(0).normal(size=(size, 64)).astype(np.float32) * 30
    total_variance = float(np.var(rows)) * 64
    assert frechet_distance(rows, rows[::-1]) == pytest.approx(0, abs=1e-10 * total_variance)
    assert frechet_distance(np.ones((size, 64)), np.ones((size, 64))) == 0


def test_ten_clips_in_many_dimensions_give_a_finite_positive_distance():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 10, 512))
    assert 100 < frechet_distance(first, second) < 2000
    constant = np.full((10, 512), 2.0)
    total_variance = first.var(axis=0, ddof=1).sum()
    expected = total_variance + np.square(first.mean(axis=0) - 2).sum()
    assert frechet_distance(first, constant) == pytest.approx(expected)


def test_the_distance_is_symmetric_and_indifferent_to_rotation_shift_and_order():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(50, 8)) * np.arange(1, 9), generator.normal(size=(40, 8))
    expected = frechet_distance(first, second)
    rotation = np.linalg.qr(generator.normal(size=(8, 8)))[0]
    assert frechet_distance(second, first) == pytest.approx(expected)
    assert frechet_distance(first @ rotation + 100, second @ rotation + 100) == pytest.approx(expected)
    assert frechet_distance(generator.permutation(first), second) == pytest.approx(expected)


def test_the_floor_is_the_distance_of_two_halves_and_falls_with_the_size_of_the_sample():
    rows = np.random.default_rng(0).normal(size=(2000, 32))
    assert frechet_distance_floor(rows, seed=1) == frechet_distance_floor(rows, seed=1)
    assert frechet_distance_floor(rows, seed=1) != frechet_distance_floor(rows, seed=2)
    small, large = frechet_distance_floor(rows[:200], seed=1), frechet_distance_floor(rows, seed=1)
    assert 0 < 5 * large < small
    # Every clip is in one of the halves, of an odd number too
    five = np.diag([1.0, 10.0, 100.0, 1000.0, 10000.0])
    order = np.random.default_rng(0).permutation(5)
    assert frechet_distance_floor(five, seed=0) == frechet_distance(five[order[:2]], five[order[2:]])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros((1, 4)), np.zeros((5, 4)), "two clips or more in each set, got 1"),
        (np.zeros((5, 4)), np.zeros((5, 3)), "embeddings have width 4, reference_embeddings 3"),
        (
            np.zeros((5, 4)),
            np.full((5, 4), np.nan),
            "reference_embeddings has a NaN .* first in row 0",
        ),
        (np.array([[0.0], [np.inf]]), np.zeros((5, 1)), "embeddings has a NaN or infinite value, first in row 1"),
        (np.zeros((0, 4)), np.zeros((5, 4)), r"filled array of 2 dimensions, got shape \(0, 4\)"),
        (np.zeros(4), np.zeros((5, 4)), "2 dimensions"),
    ],
)
def test_input_that_has_no_distance_is_an_error(first, second, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(first, second)


def test_a_floor_needs_four_clips():
    with pytest.raises(ValueError, match="four clips or more, got 3"):
        frechet_distance_floor(np.zeros((3, 2)), seed=0)


# Diversity and multimodality


def test_diversity_is_the_mean_distance_of_random_pairs():
    rows = np.array([[0.0, 0.0], [3.0, 4.0]])
    values = {diversity(rows, num_pairs=1, seed=seed) for seed in range(20)}
    assert values == {0.0, 5.0}  # a pair may be a clip with itself, as published
    rows = np.random.default_rng(0).normal(size=(4000, 3))
    assert diversity(rows, num_pairs=4000, seed=0) == pytest.approx(4 / np.sqrt(np.pi), rel=0.03)
    assert diversity(3 * rows + 7, seed=0) == pytest.approx(3 * diversity(rows, seed=0))
    assert diversity(rows, seed=0) != diversity(rows, seed=1)


def test_multimodality_compares_generations_of_one_text_only():
    generator = np.random.default_rng(0)
    texts = 1000 * generator.normal(size=(50, 1, 3))
    assert multimodality(np.broadcast_to(texts, (50, 30, 3)), seed=0) == 0
    rows = texts + generator.normal(size=(50, 30, 3))
    assert multimodality(rows, seed=0) == pytest.approx(4 / np.sqrt(np.pi), rel=0.15)
    assert multimodality(rows, num_pairs=30, seed=0) != multimodality(rows, num_pairs=29, seed=0)


def test_too_few_clips_or_generations_are_an_error_that_names_the_way_out():
    with pytest.raises(ValueError, match="num_pairs is 300 with 10 clips.*Pass a smaller num_pairs"):
        diversity(np.zeros((10, 3)), seed=0)
    with pytest.raises(ValueError, match="num_pairs is 10 with 9 generations of a text"):
        multimodality(np.zeros((5, 9, 3)), seed=0)
    with pytest.raises(ValueError, match="num_pairs is 0"):
        diversity(np.zeros((10, 3)), num_pairs=0, seed=0)
    with pytest.raises(ValueError, match="3 dimensions"):
        multimodality(np.zeros((5, 9)), seed=0)


@pytest.mark.parametrize("generations", [2, 3, 5, 10])
def test_few_generations_have_the_distance_of_different_motions(generations):
    """Of G of them drawn as published, 1 of G pairs is a motion with itself: of two, half of the distance is lost."""
    rows = np.random.default_rng(0).normal(size=(100, generations, 64))
    every = multimodality(rows, num_pairs=None, seed=0)
    assert every == pytest.approx(np.sqrt(2 * 64), rel=0.01)
    drawn = np.mean([multimodality(rows, num_pairs=generations, seed=seed) for seed in range(600)])
    assert drawn == pytest.approx(every * (generations - 1) / generations, rel=0.1)
    with pytest.raises(ValueError, match="one motion of each text makes no pair"):
        multimodality(rows[:, :1], num_pairs=None, seed=0)
