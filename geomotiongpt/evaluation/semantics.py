"""Semantic metrics of a set of pairs in an evaluator's space, over replications."""

import logging
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Literal

import numpy as np
from transformers import PreTrainedModel

from ..models.feature_extraction_motion import MotionFeatureExtractor
from ..models.motion_conversion import convert_features, resampled_frames
from ..models.motion_skeletons import MotionRepresentation, get_motion_representation
from ..models.processing_motion_text_evaluator import MotionTextEvaluatorProcessor
from .distribution import diversity, frechet_distance, frechet_distance_floor, multimodality
from .embeddings import embed_motions, embed_texts, evaluator_hash
from .replication import replicate
from .retrieval import mm_dist, r_precision, tmr_protocols

DIVERSITY_PAIRS = 300
# Published, 10 pairs of 30 generations of each of 100 texts
MULTIMODALITY_PAIRS, MULTIMODALITY_GENERATIONS, MULTIMODALITY_TEXTS = 10, 30, 100

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluator:
    """An evaluator network and how it is used.

    Args:
        name: as the result names it.
        model: a `MotionTextEvaluator` or `TMRModel`.
        processor: of the model.
        replications: seeds `seed`, `seed + 1`, ... of pools, caption draws, pairs and splits (published: 20).
        seed: of the first.
        pool_size: pairs in a pool (published: 32).
        last_pool: what becomes of the rest where the pairs are no multiple of `pool_size`: "smaller", a pool of its
            own, or "drop" (published).
        motions_in: representation of the motions that are measured, see `of_motions_in`; None: the evaluator's own.
    """

    name: str
    model: PreTrainedModel
    processor: MotionTextEvaluatorProcessor
    replications: int = 20
    seed: int = 0
    pool_size: int = 32
    last_pool: Literal["smaller", "drop"] = "smaller"
    motions_in: str | None = None

    def of_motions_in(self, representation: str) -> "Evaluator":
        """The same evaluator, for motions in a representation; where it takes another one, they are converted.

        Raises:
            ValueError: if the two are of different joints.
        """
        have, own = get_motion_representation(representation), self._own
        if have.joint_names != own.joint_names:
            raise ValueError(
                f"the evaluator {self.name} takes {own.name!r} motions, and {representation!r} ones have other "
                "joints: give an evaluator of these joints."
            )
        return replace(self, motions_in=representation)

    @property
    def _own(self) -> MotionRepresentation:
        return get_motion_representation(self.processor.feature_extractor.representation)

    @property
    def _source(self) -> MotionRepresentation:
        return self._own if self.motions_in is None else get_motion_representation(self.motions_in)

    def to_features(self, motion: np.ndarray, name: str = "motion") -> np.ndarray:
        """Features that the evaluator takes, not normalised, of features or joints of the motions that are measured.

        Features that it takes stay as they are.

        Raises:
            ValueError: as `MotionFeatureExtractor`.
        """
        extractor, source = self.processor.feature_extractor, self._source
        is_own = np.ndim(motion) == 2 and np.shape(motion)[1] == extractor.feature_size
        if source == self._own or is_own:
            return extractor.to_features(motion, name)
        features = MotionFeatureExtractor(source.name, downsampling_factor=2).to_features(motion, name)
        return convert_features(features.astype(np.float64), source.name, self._own.name).astype(np.float32)

    def num_frames(self, length: int) -> int:
        """Frames that `to_features` makes of so many."""
        source, own = self._source, self._own
        if source == own:
            return length
        return own.num_rows(resampled_frames(length, source.fps, own.fps))

    @property
    def protocol(self) -> dict[str, str | int]:
        """What a result must say about its semantic metrics."""
        source, own = self._source, self._own
        converted = {
            "motions_converted_for_the_evaluator": f"{source.name} at {source.fps:g} frames a second to {own.name} at "
            f"{own.fps:g}: joints from positions, resampled, features of these"
        }
        tagged = (
            "tagged words where the data have them; captions of a model have none and are read word by word, and so "
            "are the references of ground_truth_untagged_..."
        )
        return {
            "evaluator": self.name,
            "evaluator_sha256": evaluator_hash(self.model, self.processor),
            **({} if source == own else converted),
            "similarity": self.model.config.similarity,
            "text_reading": tagged if self.processor.tagged else "words",
            "pool_size": self.pool_size,
            "last_pool": self.last_pool,
            "replications": self.replications,
            "seed": self.seed,
            "intervals": "1.96 std / sqrt(replications) of pools, caption draws, pairs and splits; one set of outputs",
        }

    def describe_distribution(self, num_motions: int, num_real: int) -> dict[str, Any]:
        """What a result must say about the sample sizes of R-precision, FID and Diversity."""
        return {
            "pools": self._pools(num_motions),
            "fid_sizes": [num_motions, num_real],
            "fid_floor_sizes": [num_real // 2, num_real - num_real // 2],
            "diversity_pairs": min(DIVERSITY_PAIRS, num_motions, num_real),
        }

    def _pools(self, num_pairs: int) -> dict[str, int]:
        """Size -> how many pools of it."""
        whole, rest = divmod(num_pairs, self.pool_size)
        pools = {self.pool_size: whole, rest: int(self.last_pool == "smaller")}
        return {str(size): count for size, count in pools.items() if size and count}

    def check(self, names: Sequence[str], lengths: Sequence[int], *, has_pools: bool = True) -> None:
        """Refuses motions that cannot be embedded or scored, before anything takes long.

        Args:
            names: of the motions.
            lengths: their frames.
            has_pools: whether R-precision will be asked for.

        Raises:
            ValueError: for fewer than 4 motions, which have no floor of FID, pools of less than 2 pairs or none at
                all, or a motion longer or shorter than the evaluator takes.
        """
        self.check_number(len(names), has_pools=has_pools)
        longest, shortest = (pick(range(len(names)), key=lambda index: lengths[index]) for pick in (max, min))
        unit, most = self.model.config.downsampling_factor, self.model.config.max_frames
        for row, bound, option in ((longest, f"at most {most}", "max"), (shortest, f"{unit} or more", "min")):
            frames = self.num_frames(lengths[row])
            if frames // unit * unit > most if option == "max" else frames < unit:
                converted = "" if frames == lengths[row] else f" ({frames} in the evaluator's representation)"
                raise ValueError(
                    f"{names[row]} has {lengths[row]} frames{converted}; this evaluator takes {bound}: leave such "
                    f"motions out with --{option}-frames."
                )

    def check_number(self, num_motions: int, *, has_pools: bool = True) -> None:
        """The part of `check` that asks for no lengths."""
        if num_motions < 4:
            raise ValueError(f"{num_motions} motions are too few for the metrics of an evaluator; wanted 4 or more.")
        if not has_pools:
            return
        if self.pool_size < 2:
            raise ValueError(f"the pool size is {self.pool_size}; choose among 2 or more (--pool-size).")
        if num_motions < self.pool_size:
            if self.last_pool == "drop":
                raise ValueError(
                    f"{num_motions} motions fill no pool of {self.pool_size}, and smaller ones are dropped: nothing "
                    "is left to score; choose a smaller --pool-size, or --last-pool smaller."
                )
            logger.warning(
                "R-precision is that of one pool of %d, not of %d as usual: it is easier, and not to be compared.",
                num_motions,
                self.pool_size,
            )

    def fit(
        self, motions: Sequence[np.ndarray], names: Sequence[str] | None = None
    ) -> tuple[list[np.ndarray], dict[str, int]]:
        """Features that it takes, cut or their last frame repeated; and of how many motions that is so.

        Args:
            motions: features or joints each, as `to_features` takes them, of one frame or more.
            names: of the motions, for errors.

        Raises:
            ValueError: as `to_features`, for an empty motion or one of another shape.
        """
        most, unit = self.model.config.max_frames, self.model.config.downsampling_factor
        fitting, changed = [], {"motions_cut_for_the_evaluator": 0, "motions_lengthened_for_the_evaluator": 0}
        for motion, name in zip(motions, _names_of(motions, names), strict=True):
            missing = self._missing_frames(motion)
            clip = self.to_features(hold_last_frame(motion, len(motion) + missing) if missing else motion, name)
            is_long = len(clip) // unit * unit > most
            fitting.append(clip[:most] if is_long else clip)
            changed["motions_cut_for_the_evaluator"] += is_long
            changed["motions_lengthened_for_the_evaluator"] += missing > 0
        return fitting, changed

    def _missing_frames(self, motion: np.ndarray) -> int:
        """How many frames features or joints lack to be as many as it takes; 0 for what is neither, or empty."""
        source, own, unit = self._source, self._own, self.model.config.downsampling_factor
        length, *shape = np.shape(motion) or (0,)
        is_own, is_joints = shape == [own.num_features], shape == [source.num_joints, 3]
        if length == 0 or not (is_own or is_joints or shape == [source.num_features]):
            return 0

        def num_frames(length: int) -> int:
            return length if is_own else self.num_frames(source.num_rows(length) if is_joints else length)

        return next(missing for missing in count() if num_frames(length + missing) >= unit)

    def embed_motions(self, motions: Sequence[np.ndarray], names: Sequence[str] | None = None) -> np.ndarray:
        """(N, E) of features that are not normalised."""
        if self._source != self._own:
            called = _names_of(motions, names)
            motions = [self.to_features(motion, name) for motion, name in zip(motions, called, strict=True)]
        return embed_motions(self.model, self.processor, motions, names=names)

    def embed_texts(self, captions: Sequence[str], tokens: Sequence[Sequence[str]] | None = None) -> np.ndarray:
        """(N, E) of captions."""
        return embed_texts(self.model, self.processor, captions, tokens=tokens)

    def score_pairs(
        self, texts: Sequence[np.ndarray], motions: np.ndarray, *, labels: Sequence[Hashable] | None = None
    ) -> dict[str, Any]:
        """R-precision in both directions and MM-Dist, over replications.

        Args:
            texts: for each pair the embeddings (captions, E) of its texts; each replication draws one.
            motions: (N, E).
            labels: what each pair means, for the label-aware R-precision (`label_aware_...`).

        Returns:
            the metrics, and the pairs that they are of (`r_precision_pairs`).
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

        scored = len(motions) - (len(motions) % self.pool_size if self.last_pool == "drop" else 0)
        return {**replicate(measure, replications=self.replications, seed=self.seed), "r_precision_pairs": scored}

    def _r_precision(
        self, texts: np.ndarray, motions: np.ndarray, seed: int, labels: Sequence[Hashable] | None
    ) -> dict[str, float]:
        scores = r_precision(
            texts,
            motions,
            similarity=self.model.config.similarity,
            pool_size=self.pool_size,
            seed=seed,
            last_pool=self.last_pool,
            labels=labels,
        )
        return {name: value for name, value in scores.items() if "_r_at_" in name}

    def score_distribution(self, motions: np.ndarray, real: np.ndarray, prefix: str = "") -> dict[str, Any]:
        """`fid` against real motion and `diversity`, with a prefix, and the values of `score_real`.

        Args:
            motions: (N, E).
            real: (M, E).
            prefix: of the names of the first two.
        """
        pairs = min(DIVERSITY_PAIRS, len(motions), len(real))
        distance = {f"{prefix}fid": frechet_distance(motions, real)}
        made = self._replicate(f"{prefix}diversity", lambda seed: diversity(motions, num_pairs=pairs, seed=seed))
        return distance | made | self.score_real(real, pairs)

    def score_real(self, real: np.ndarray, num_pairs: int) -> dict[str, Any]:
        """The split-half floor of FID and the Diversity of real motion, what others are compared with."""
        floor = self._replicate("fid_floor", lambda seed: frechet_distance_floor(real, seed=seed))
        spread = self._replicate(
            "ground_truth_diversity", lambda seed: diversity(real, num_pairs=num_pairs, seed=seed)
        )
        return floor | spread

    def score_halves(self, motions: np.ndarray, real: np.ndarray) -> dict[str, Any]:
        """FID at the size of its floor, where a quotient of the two means something.

        In each replication one half of the real motions is drawn. `fid_of_halves` is the distance of what was made of
        it from the other half, and `fid_over_floor` that distance over the one between the two real halves.

        Args:
            motions: (N, E), each made of the text of the real motion in the same row.
            real: (N, E).
        """

        def measure(seed: int) -> dict[str, float]:
            order = np.random.default_rng(seed).permutation(len(real))
            first, second = order[: len(real) // 2], order[len(real) // 2 :]
            distance, floor = (frechet_distance(rows[first], real[second]) for rows in (motions, real))
            return {"fid_of_halves": distance, "fid_over_floor": distance / floor if floor else math.inf}

        return replicate(measure, replications=self.replications, seed=self.seed)

    def score_generations(self, generations: np.ndarray) -> dict[str, Any]:
        """MultiModality of (texts, generations, E): as published of 30 generations or more, else of all pairs."""
        pairs = MULTIMODALITY_PAIRS if generations.shape[1] >= MULTIMODALITY_GENERATIONS else None
        return self._replicate("multimodality", lambda seed: multimodality(generations, num_pairs=pairs, seed=seed))

    def score_tmr(self, texts: np.ndarray, motions: np.ndarray, **near_identity: Any) -> dict[str, float]:
        """TMR's four retrieval protocols, the pools of the last drawn once; see `tmr_protocols` for the rest."""
        return tmr_protocols(
            texts,
            motions,
            similarity=self.model.config.similarity,
            pool_size=self.pool_size,
            seed=self.seed,
            **near_identity,
        )

    def _replicate(self, name: str, measure: Callable[[int], float]) -> dict[str, Any]:
        return replicate(lambda seed: {name: measure(seed)}, replications=self.replications, seed=self.seed)


def _names_of(motions: Sequence[np.ndarray], names: Sequence[str] | None) -> Sequence[str]:
    return names or [f"motion {index}" for index in range(len(motions))]


def hold_last_frame(motion: np.ndarray, num_frames: int) -> np.ndarray:
    """A motion (frames, ...) of at least so many frames: the last is repeated."""
    missing = max(num_frames - len(motion), 0)
    return np.pad(motion, ((0, missing), *[(0, 0)] * (motion.ndim - 1)), mode="edge")
