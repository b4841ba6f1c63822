"""How a set of motions is spread in an evaluator's space: Frechet distance, diversity, multimodality.

All take embeddings as plain arrays and mean nothing across evaluators: compare numbers of one evaluator only.
"""

import numpy as np
from numpy.typing import ArrayLike


def as_embeddings(values: ArrayLike, name: str, *, ndim: int = 2) -> np.ndarray:
    """Checked embeddings in double precision.

    Args:
        values: finite numbers with `ndim` dimensions, the last the width of the space.
        name: what to call them in errors.
        ndim: number of dimensions wanted.

    Raises:
        ValueError: for another number of dimensions, an empty array, NaN or infinity.
    """
    array = np.asarray(values, np.float64)
    if array.ndim != ndim or not array.size:
        raise ValueError(f"{name} must be a filled array of {ndim} dimensions, got shape {array.shape}.")
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0, 0])
        raise ValueError(f"{name} has a NaN or infinite value, first in row {row}; repair or leave out that clip.")
    return array


def frechet_distance(embeddings: ArrayLike, reference_embeddings: ArrayLike) -> float:
    """Frechet distance (FID) of the Gaussians fitted to two sets of embeddings.

    |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2), C with n - 1 as published. For centred samples A, B over
    sqrt(n - 1) and their triangular factors R_A, R_B (A = Q R), the eigenvalues of C1 C2 are the squared singular
    values of R_A R_B', so the last trace is the sum of these: no matrix square root, no regularisation, and exact for
    covariances without full rank. The distance grows as samples get fewer: see `frechet_distance_floor`.

    Args:
        embeddings: (N, E), N at least 2.
        reference_embeddings: (M, E), M at least 2.

    Returns:
        the distance, at least 0 and never NaN.

    Raises:
        ValueError: for fewer than two rows, unequal widths, NaN or infinity.

    Source: Heusel et al., GANs Trained by a Two Time-Scale Update Rule (NeurIPS 2017); for motion Guo et al. (CVPR
    2022).
    """
    sets = [as_embeddings(embeddings, "embeddings"), as_embeddings(reference_embeddings, "reference_embeddings")]
    if sets[0].shape[1] != sets[1].shape[1]:
        raise ValueError(
            f"embeddings have width {sets[0].shape[1]}, reference_embeddings {sets[1].shape[1]}; embed both with one "
            "evaluator."
        )
    fewest = min(map(len, sets))
    if fewest < 2:
        raise ValueError(f"a Frechet distance needs two clips or more in each set, got {fewest}.")
    means = [rows.mean(axis=0) for rows in sets]
    factors = [_triangular_factor(rows - mean) for rows, mean in zip(sets, means, strict=True)]
    traces = sum(float(np.square(factor).sum()) for factor in factors)
    cross = float(np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum())
    # Rounding alone takes equal sets below zero
    return max(0.0, float(np.square(means[0] - means[1]).sum()) + traces - 2 * cross)


def _triangular_factor(centred: np.ndarray) -> np.ndarray:
    """R with R'R the covariance."""
    return np.linalg.qr(centred / np.sqrt(len(centred) - 1), mode="r")  # type: ignore[return-value]


def frechet_distance_floor(embeddings: ArrayLike, *, seed: int) -> float:
    """Frechet distance between two random halves of one set: what sampling alone costs.

    A distance near it is no difference. The halves are smaller than the set, and the distance of two samples of one
    distribution falls with their size, so the floor of two sets of the full size lies lower.

    Args:
        embeddings: (N, E), N at least 4; of an odd N, one half has one more.
        seed: of the split.

    Raises:
        ValueError: for fewer than four rows, NaN or infinity.
    """
    rows = as_embeddings(embeddings, "embeddings")
    if len(rows) < 4:
        raise ValueError(f"a split in two halves needs four clips or more, got {len(rows)}.")
    order = np.random.default_rng(seed).permutation(len(rows))
    return frechet_distance(rows[order[: len(rows) // 2]], rows[order[len(rows) // 2 :]])


def diversity(embeddings: ArrayLike, *, num_pairs: int = 300, seed: int) -> float:
    """Mean Euclidean distance of random pairs.

    As published, the first and the second of the pairs are drawn each without repeats and independently of one
    another.

    Args:
        embeddings: (N, E), N at least `num_pairs`.
        num_pairs: pairs to draw.
        seed: of the draw.

    Raises:
        ValueError: for fewer rows than pairs, NaN or infinity.

    Source: Guo et al., Generating Diverse and Natural 3D Human Motions from Text (CVPR 2022).
    """
    rows = as_embeddings(embeddings, "embeddings")
    first, second = _draw_pairs(len(rows), num_pairs, seed, "clips")
    return float(np.linalg.norm(rows[first] - rows[second], axis=-1).mean())


def multimodality(embeddings: ArrayLike, *, num_pairs: int | None = 10, seed: int) -> float:
    """Mean Euclidean distance of random pairs of motions generated from one text.

    The published protocol takes 100 texts, 30 generations and 10 pairs, drawn as for `diversity` and the same for
    every text. So drawn, a motion meets itself in one of G pairs, and the distance is (G - 1) / G of that of different
    motions: with few generations take all pairs of different ones.

    Args:
        embeddings: (texts, generations, E), generations at least `num_pairs`, and at least 2.
        num_pairs: pairs to draw for a text; None: every pair of different generations.
        seed: of the draw.

    Raises:
        ValueError: for fewer generations than pairs, NaN or infinity.

    Source: as for `diversity`.
    """
    rows = as_embeddings(embeddings, "embeddings", ndim=3)
    if num_pairs is None:
        if rows.shape[1] < 2:
            raise ValueError("one motion of each text makes no pair: make 2 or more.")
        first, second = np.triu_indices(rows.shape[1], 1)
        return float(np.linalg.norm(rows[:, first] - rows[:, second], axis=-1).mean())
    first, second = _draw_pairs(rows.shape[1], num_pairs, seed, "generations of a text")
    return float(np.linalg.norm(rows[:, first] - rows[:, second], axis=-1).mean())


def _draw_pairs(num_rows: int, num_pairs: int, seed: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    if not 1 <= num_pairs <= num_rows:
        raise ValueError(
            f"num_pairs is {num_pairs} with {num_rows} {what}; it must lie between 1 and their number. Pass a smaller "
            "num_pairs and report it: the published numbers take the default."
        )
    generator = np.random.default_rng(seed)
    first = generator.choice(num_rows, num_pairs, replace=False)
    return first, generator.choice(num_rows, num_pairs, replace=False)
