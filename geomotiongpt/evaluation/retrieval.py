"""Retrieval between texts and motions in an evaluator's space: R-precision, MM-Dist and the protocols of TMR.

`motion_to_text` ranks texts for each motion (captioning: TM2T and its followers), `text_to_motion` ranks motions for
each text (generation: MotionGPT). Numbers of the two directions must not be compared, so both are always given.

Candidates closer in score than single precision can tell are tied, and every metric is averaged over the orders in
which ties can be broken, so that one embedding for everything scores chance. Published code leaves ties to the sorting
algorithm, or (TMR) counts a hit where the mean rank of the tied is good enough; both differ from this only where
captions of different motions are equal.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from .distribution import as_embeddings

Similarity = Literal["euclidean", "cosine"]

TMR_TOP_K = (1, 2, 3, 5, 10)
_TIE_TOLERANCE = 1e-6  # of the scale of the scores
_ROWS_AT_A_TIME = 128  # of the score matrix: 10 MB for 10,000 candidates

# Row numbers, column numbers -> which columns are right answers for which rows
Relevance = Callable[[np.ndarray, np.ndarray], np.ndarray]


def r_precision(
    text_embeddings: ArrayLike,
    motion_embeddings: ArrayLike,
    *,
    similarity: Similarity = "euclidean",
    pool_size: int = 32,
    top_k: Sequence[int] = (1, 2, 3),
    seed: int,
    last_pool: Literal["smaller", "drop"] = "smaller",
    labels: Sequence[Hashable] | None = None,
) -> dict[str, float]:
    """Share of pairs whose right partner is among the k nearest of a random pool, in both directions.

    Args:
        text_embeddings: (N, E); row i belongs to row i of the motions.
        motion_embeddings: (N, E).
        similarity: how the evaluator's space is compared.
        pool_size: pairs in a pool.
        top_k: the k to give.
        seed: of the shuffle that makes the pools.
        last_pool: what becomes of the rest where N is no multiple of `pool_size`: a smaller pool (which is easier), or
            it is left out as in published code.
        labels: (N,) what each pair means; pairs of one label are right answers for one another. None: a pair is right
            for itself only.

    Returns:
        `motion_to_text_r_at_<k>` and `text_to_motion_r_at_<k>` in 0 to 1, `num_pairs` scored, `num_dropped` and
        `last_pool_size` (0 without an incomplete pool).

    Raises:
        ValueError: for arrays that do not match, NaN, a number of labels other than N, or nothing left to score.

    Source: Guo et al., Generating Diverse and Natural 3D Human Motions from Text (CVPR 2022).
    """
    texts, motions = _as_pairs(text_embeddings, motion_embeddings, similarity)
    relevance = _same_label(labels, len(texts)) if labels is not None else _same_pair
    pools = _pools(len(texts), pool_size, seed, last_pool)
    scored = sum(map(len, pools))
    result: dict[str, float] = {}
    for direction, queries, candidates in _directions(texts, motions):
        hits = [_Ranking(queries, candidates, relevance, similarity, pool).hits(max(top_k)) for pool in pools]
        shares = np.concatenate(hits).mean(axis=0)
        result |= {f"{direction}_r_at_{k}": float(shares[k - 1]) for k in top_k}
    rest = len(texts) % pool_size
    return result | {"num_pairs": scored, "num_dropped": len(texts) - scored, "last_pool_size": rest}


def mm_dist(
    text_embeddings: ArrayLike, motion_embeddings: ArrayLike, *, similarity: Similarity = "euclidean"
) -> float:
    """Mean Euclidean distance between a text and its motion (MM-Dist).

    Args:
        text_embeddings: (N, E).
        motion_embeddings: (N, E).
        similarity: `"cosine"` scales embeddings to unit length first, since such a space gives lengths no meaning.

    Raises:
        ValueError: for arrays that do not match or NaN.

    Source: as for `r_precision`.
    """
    return float(pair_distances(text_embeddings, motion_embeddings, similarity=similarity).mean())


def pair_distances(
    text_embeddings: ArrayLike, motion_embeddings: ArrayLike, *, similarity: Similarity = "euclidean"
) -> np.ndarray:
    """Distance of each text to its motion, (N,), whose mean is `mm_dist`; arguments and errors are the same."""
    texts, motions = _as_pairs(text_embeddings, motion_embeddings, similarity)
    return np.linalg.norm(texts - motions, axis=1)


def tmr_protocols(
    text_embeddings: ArrayLike,
    motion_embeddings: ArrayLike,
    *,
    similarity: Similarity = "cosine",
    text_similarity: ArrayLike | None = None,
    labels: Sequence[Hashable] | None = None,
    threshold: float = 0.95,
    num_dissimilar: int = 100,
    pool_size: int = 32,
    seed: int,
) -> dict[str, float]:
    """The four retrieval protocols of TMR, each in both directions.

    (a) `all`: the whole set is the gallery. (b) `threshold`: the same, and a text (or the motion of a text) that says
    nearly the same is a right answer too. (c) `dissimilar`: a subset of pairs whose texts differ most. (d)
    `small_batches`: random pools, the rest left out.

    The paper finds the subset of (c) as a quadratic knapsack; here it is grown greedily by the pair that is least
    similar to those chosen, without chance, and ends early rather than take a near-identical text.

    Args:
        text_embeddings: (N, E); row i belongs to row i of the motions.
        motion_embeddings: (N, E).
        similarity: how the evaluator's space is compared.
        text_similarity: (N, N) cosines between the captions by a sentence encoder that is not the evaluator; or
        labels: (N,) what each pair means, 1 for equal and 0 for different. One of the two.
        threshold: of near-identity, on cosines mapped to 0 .. 1 as published: 0.95 is a cosine above 0.9.
        num_dissimilar: pairs in the subset of (c).
        pool_size: pairs in a pool of (d).
        seed: of the shuffle of (d).

    Returns:
        `<protocol>_<direction>_r_at_<k>` for k = 1, 2, 3, 5, 10 in 0 to 1, `<protocol>_<direction>_median_rank` (1 is
        best; of (d), the mean of the pools' medians) and `<protocol>_num_pairs` scored.

    Raises:
        ValueError: for arrays that do not match, NaN, not exactly one of `text_similarity` and `labels`, or fewer
            pairs than a pool.

    Source: Petrovich et al., TMR: Text-to-Motion Retrieval Using Contrastive 3D Human Motion Synthesis (ICCV 2023),
    section 4.
    """
    texts, motions = _as_pairs(text_embeddings, motion_embeddings, similarity)
    if (text_similarity is None) == (labels is None):
        raise ValueError("pass text_similarity or labels, one of them: protocols b and c ask which texts are alike.")
    if labels is not None:
        alike = _same_label(labels, len(texts))
    else:
        alike = _near_identical(text_similarity, len(texts), threshold)  # type: ignore[arg-type]
    everything = [np.arange(len(texts))]
    closeness = np.asarray(text_similarity) if labels is None else alike(everything[0], everything[0])
    subset = [_dissimilar_subset(closeness, alike, num_dissimilar)]
    protocols: Mapping[str, tuple[list[np.ndarray], Relevance]] = {
        "all": (everything, _same_pair),
        "threshold": (everything, alike),
        "dissimilar": (subset, _same_pair),
        "small_batches": (_pools(len(texts), pool_size, seed, "drop"), _same_pair),
    }
    result: dict[str, float] = {}
    for protocol, (pools, relevance) in protocols.items():
        for direction, queries, candidates in _directions(texts, motions):
            rankings = [_Ranking(queries, candidates, relevance, similarity, pool) for pool in pools]
            shares = np.concatenate([ranking.hits(max(TMR_TOP_K)) for ranking in rankings]).mean(axis=0)
            result |= {f"{protocol}_{direction}_r_at_{k}": float(shares[k - 1]) for k in TMR_TOP_K}
            medians = [np.median(ranking.ranks()) for ranking in rankings]
            result[f"{protocol}_{direction}_median_rank"] = float(np.mean(medians))
        result[f"{protocol}_num_pairs"] = sum(map(len, pools))
    return result


class _Ranking:
    """For each query of a pool, how many candidates rank before its best right answer and how many tie with it.

    Args:
        queries, candidates: (N, E) of the whole set.
        relevance: which candidates are right.
        similarity: of the space.
        pool: numbers of the pairs that are ranked among one another.
    """

    def __init__(
        self,
        queries: np.ndarray,
        candidates: np.ndarray,
        relevance: Relevance,
        similarity: Similarity,
        pool: np.ndarray,
    ):
        self.better = np.empty(len(pool), np.int64)
        self.tied = np.empty(len(pool), np.int64)
        self.right = np.empty(len(pool), np.int64)  # of the tied
        candidates = candidates[pool]
        # |q - c|^2 without |q|^2, which is the same for all candidates; cosines are products of unit vectors
        offsets = np.square(candidates).sum(axis=1) if similarity == "euclidean" else np.zeros(len(pool))
        for start in range(0, len(pool), _ROWS_AT_A_TIME):
            part = slice(start, start + _ROWS_AT_A_TIME)
            rows = queries[pool[part]]
            distances = offsets - 2 * rows @ candidates.T
            tolerance = _TIE_TOLERANCE * (np.square(rows).sum(axis=1, keepdims=True) + offsets.mean())
            relevant = relevance(pool[part], pool)
            best = np.where(relevant, distances, np.inf).min(axis=1, keepdims=True)
            not_worse = distances <= best + tolerance
            self.better[part] = np.count_nonzero(distances < best - tolerance, axis=1)
            self.tied[part] = np.count_nonzero(not_worse, axis=1) - self.better[part]
            self.right[part] = np.count_nonzero(not_worse & relevant, axis=1)

    def hits(self, max_k: int) -> np.ndarray:
        """(queries, max_k): chance that a right answer is among the first 1, 2, ... candidates."""
        missed = np.ones(len(self.better))
        hits = np.empty((len(self.better), max_k))
        for place in range(max_k):
            drawn = place - self.better  # of the tied, before this place
            left = np.maximum(self.tied - drawn, 1)
            wrong = np.clip(self.tied - self.right - drawn, 0, None) / left
            missed = np.where((drawn >= 0) & (drawn < self.tied), missed * wrong, missed)
            hits[:, place] = 1 - missed
        return hits

    def ranks(self) -> np.ndarray:
        """(queries,): mean rank of the first right answer, from 1."""
        return self.better + (self.tied + 1) / (self.right + 1)


def _directions(texts: np.ndarray, motions: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    yield "motion_to_text", motions, texts
    yield "text_to_motion", texts, motions


def _as_pairs(texts: ArrayLike, motions: ArrayLike, similarity: Similarity) -> tuple[np.ndarray, np.ndarray]:
    """Checked embeddings; centred together (rounding then does not depend on where they lie) or of unit length."""
    if similarity not in ("euclidean", "cosine"):
        raise ValueError(f"similarity is {similarity!r}; choose 'euclidean' or 'cosine', as the evaluator says.")
    texts, motions = as_embeddings(texts, "text_embeddings"), as_embeddings(motions, "motion_embeddings")
    if texts.shape != motions.shape:
        raise ValueError(
            f"text_embeddings {texts.shape} and motion_embeddings {motions.shape} must have one shape: row i of both "
            "is one pair, embedded by one evaluator."
        )
    if similarity == "euclidean":
        centre = (texts.mean(axis=0) + motions.mean(axis=0)) / 2
        return texts - centre, motions - centre
    lengths = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in (texts, motions)]
    if min(length.min() for length in lengths) == 0:
        raise ValueError("an embedding is all zeros, which has no cosine; is the space euclidean?")
    return texts / lengths[0], motions / lengths[1]


def _pools(num_pairs: int, pool_size: int, seed: int, last_pool: str) -> list[np.ndarray]:
    if pool_size < 2 or last_pool not in ("smaller", "drop"):
        raise ValueError(
            f"pool_size is {pool_size} and last_pool {last_pool!r}; wanted 2 or more, and 'smaller' or 'drop'."
        )
    order = np.random.default_rng(seed).permutation(num_pairs)
    pools = [order[start : start + pool_size] for start in range(0, num_pairs, pool_size)]
    if last_pool == "drop" and len(pools[-1]) < pool_size:
        pools.pop()
    if not pools:
        raise ValueError(f"{num_pairs} pairs do not fill a pool of {pool_size}; pass a smaller pool_size.")
    return pools


def _same_pair(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return rows[:, None] == columns


def _same_label(labels: Sequence[Hashable], num_pairs: int) -> Relevance:
    if len(labels) != num_pairs:
        raise ValueError(f"{len(labels)} labels for {num_pairs} pairs; wanted one a pair.")
    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(label, len(numbers)) for label in labels])
    return lambda rows, columns: codes[rows][:, None] == codes[columns]


def _near_identical(text_similarity: ArrayLike, num_pairs: int, threshold: float) -> Relevance:
    cosines = np.asarray(text_similarity)
    if cosines.shape != (num_pairs, num_pairs) or not np.isfinite(cosines).all():
        raise ValueError(
            f"text_similarity must be finite cosines of shape ({num_pairs}, {num_pairs}), got shape {cosines.shape}."
        )
    return lambda rows, columns: (cosines[np.ix_(rows, columns)] > 2 * threshold - 1) | _same_pair(rows, columns)


def _dissimilar_subset(closeness: np.ndarray, alike: Relevance, size: int) -> np.ndarray:
    """Numbers of pairs, each the least similar to those before it; the first is the least similar to all."""
    remaining = np.ones(len(closeness), bool)
    similar_to_all = closeness.mean(axis=1)
    everything = np.arange(len(closeness))
    nearest = np.full(len(closeness), -np.inf)  # similarity to the nearest of the chosen
    chosen: list[int] = []
    while remaining.any() and len(chosen) < size:
        candidates = everything[remaining]
        # lexsort is stable, so what is still equal goes by number
        pick = int(candidates[np.lexsort((similar_to_all[candidates], nearest[candidates]))[0]])
        chosen.append(pick)
        nearest = np.maximum(nearest, closeness[pick])
        remaining &= ~alike(np.array([pick]), everything)[0]
    return np.array(chosen)
