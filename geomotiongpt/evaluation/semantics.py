"""Semantic metrics of a set of pairs in an evaluator's space, over replications."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel

from ..models.processing_motion_text_evaluator import MotionTextEvaluatorProcessor
from .distribution import diversity, frechet_distance, frechet_distance_floor, multimodality
from .embeddings import embed_motions, embed_texts, evaluator_hash
from .replication import replicate
from .retrieval import mm_dist, r_precision, tmr_protocols

DIVERSITY_PAIRS = 300
MULTIMODALITY_PAIRS = 10


@dataclass(frozen=True)
class Evaluator:
    """An evaluator network and how it is used.

    Args:
        name: as the result names it.
        model: a `MotionTextEvaluator` or `TMRModel`.
        processor: of the model.
        replications: seeds `seed`, `seed + 1`, ... of pools, pairs and splits (published: 20).
        seed: of the first.
        pool_size: pairs in a pool (published: 32).
    """

    name: str
    model: PreTrainedModel
    processor: MotionTextEvaluatorProcessor
    replications: int = 20
    seed: int = 0
    pool_size: int = 32

    @property
    def protocol(self) -> dict[str, str | int]:
        """What a result must say about its semantic metrics."""
        return {
            "evaluator": self.name,
            "evaluator_sha256": evaluator_hash(self.model, self.processor),
            "similarity": self.model.config.similarity,
            "pool_size": self.pool_size,
            "last_pool": "smaller, where the pairs are no multiple of the pool size",
            "replications": self.replications,
            "seed": self.seed,
            "intervals": "1.96 std / sqrt(replications)",
        }

    def embed_motions(self, motions: Sequence[np.ndarray], names: Sequence[str] | None = None) -> np.ndarray:
        """(N, E) of features that are not normalised."""
        return embed_motions(self.model, self.processor, motions, names=names)

    def embed_texts(self, captions: Sequence[str], tokens: Sequence[Sequence[str]] | None = None) -> np.ndarray:
        """(N, E) of captions."""
        return embed_texts(self.model, self.processor, captions, tokens=tokens)

    def score_pairs(
        self,
        texts: Sequence[np.ndarray],
        motions: np.ndarray,
        *,
        labels: Sequence[Hashable] | None = None,
    ) -> dict[str, dict[str, float | None]]:
        """R-precision in both directions and MM-Dist, over replications.

        Args:
            texts: for each pair the embeddings (captions, E) of its texts; each replication draws one.
            motions: (N, E).
            labels: what each pair means, for the label-aware R-precision (`label_aware_...`).
        """
        similarity = self.model.config.similarity

        def measure(seed: int) -> dict[str, float]:
            generator = np.random.default_rng(seed)
            drawn = np.stack([group[generator.integers(len(group))] for group in texts])
            scores = self._r_precision(drawn, motions, seed, None)
            if labels is not None:
                aware = self._r_precision(drawn, motions, seed, labels)
                scores |= {f"label_aware_{name}": value for name, value in aware.items()}
            return {**scores, "mm_dist": mm_dist(drawn, motions, similarity=similarity)}

        return replicate(measure, replications=self.replications, seed=self.seed)

    def _r_precision(self, texts, motions, seed: int, labels: Sequence[Hashable] | None) -> dict[str, float]:
        scores = r_precision(
            texts,
            motions,
            similarity=self.model.config.similarity,
            pool_size=self.pool_size,
            seed=seed,
            labels=labels,
        )
        return {name: value for name, value in scores.items() if "_r_at_" in name}

    def score_distribution(self, motions: np.ndarray, real: np.ndarray) -> dict[str, dict[str, float | None]]:
        """FID against real motion, the split-half floor of real motion, and Diversity.

        Args:
            motions: (N, E).
            real: (M, E).
        """
        pairs = min(DIVERSITY_PAIRS, len(motions))

        def measure(seed: int) -> dict[str, float]:
            return {
                "fid_floor": frechet_distance_floor(real, seed=seed),
                "diversity": diversity(motions, num_pairs=pairs, seed=seed),
            }

        distance = {"fid": {"mean": frechet_distance(motions, real), "ci95": None, "n": 1}}
        return distance | replicate(measure, replications=self.replications, seed=self.seed)

    def score_generations(self, generations: np.ndarray) -> dict[str, dict[str, float | None]]:
        """MultiModality.

        Args:
            generations: (texts, generations, E).
        """

        def measure(seed: int) -> dict[str, float]:
            return {"multimodality": multimodality(generations, num_pairs=MULTIMODALITY_PAIRS, seed=seed)}

        return replicate(measure, replications=self.replications, seed=self.seed)

    def score_tmr(
        self, texts: np.ndarray, motions: np.ndarray, labels: Sequence[Hashable]
    ) -> Mapping[str, dict[str, float | None]]:
        """TMR's four retrieval protocols, near-identical texts being those of one label."""

        def measure(seed: int) -> dict[str, float]:
            return tmr_protocols(
                texts,
                motions,
                similarity=self.model.config.similarity,
                labels=labels,
                pool_size=self.pool_size,
                seed=seed,
            )

        return replicate(measure, replications=self.replications, seed=self.seed)
