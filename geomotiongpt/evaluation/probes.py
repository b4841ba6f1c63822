"""Sanity probes: damages ground truth in known ways and shows how every metric reacts.

A metric that does not see a damage cannot be trusted to rank models by it. What each metric is blind to by its
construction, whatever the evaluator:

- FID and Diversity see sets of motions and no text. Shuffled pairs and blank captions leave them as they are.
- FID compares distributions. A data set that holds the mirror image of every motion keeps its distribution when all
  are mirrored: left for right costs nothing, or as little as the split-half floor. Only text shows it
  (`side_accuracy`, label-aware R-precision with the side in the label).
- Diversity has no good direction: on real motion noise and a frozen body lowered it, elsewhere they may raise it.
  Compare it with that of real motion.
- R-precision and MM-Dist see what an evaluator keeps of a motion for the sake of its caption. Jitter that leaves the
  action recognisable, and smoothing, may cost little: jerk shows the first by a rise, the second by a fall.
- FID is weak on over-smoothing: on real motion it stayed below the split-half floor while jerk fell to a twentieth and
  foot skating rose fourfold. So it did for noise of 1 cm, while jerk rose sevenfold.
- R-precision takes equal captions of different motions for errors; the label-aware variant does not.
- Physics sees neither text nor meaning: a body that stands still has no jerk and does not skate. It is perfect there.
- Captioning metrics see words and no motion: captions share phrases, so that shuffled pairs do not fall to 0, and no
  damage of a motion shows.
- Noise moves the lowest joint of a clip down, and features start from the lowest joint: the body is lifted by as much
  (`floating_mm` rises, and feet that are off the ground no longer count as skating).
"""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..models.motion_representation import (
    features_to_joints,
    get_motion_representation,
    joints_to_features,
    mirror_features,
)
from .distribution import diversity, frechet_distance, frechet_distance_floor
from .physics import MILLIMETRES_PER_METRE, evaluate_physics
from .retrieval import Similarity, mm_dist, pair_distances, r_precision

SMOOTHING_SECONDS = 0.25  # sigma
DIVERSITY_PAIRS = 300


def hold_first_frame(motion: np.ndarray, representation: str = "humanml3d") -> np.ndarray:
    """The first pose for the length of the whole clip.

    Args:
        motion: features (frames, F), not normalised.
        representation: of the features.
    """
    joints = _to_joints(motion, representation)
    return _to_features(np.broadcast_to(joints[:1], joints.shape), representation, motion.dtype)


def add_joint_noise(
    motion: np.ndarray, representation: str = "humanml3d", *, millimetres: float, generator: np.random.Generator
) -> np.ndarray:
    """Gaussian noise on every joint and frame, as a poor motion capture has it.

    The noise is on joints, and the features are made from them anew: features repeat themselves (positions, rotations,
    velocities and contacts tell of the same joints), so noise in one group would be a motion that cannot be, and an
    evaluator could read the clean one from the rest.

    Args:
        motion: features (frames, F), not normalised.
        representation: of the features.
        millimetres: standard deviation along each axis.
        generator: of the noise.
    """
    joints = _to_joints(motion, representation)
    unit = get_motion_representation(representation).unit_in_metres * MILLIMETRES_PER_METRE
    noise = generator.normal(scale=millimetres / unit, size=joints.shape)
    return _to_features(joints + noise, representation, motion.dtype)


def smooth_joints(motion: np.ndarray, representation: str = "humanml3d", *, seconds: float) -> np.ndarray:
    """A Gaussian filter along time on every joint, as models that predict means have it.

    Args:
        motion: features (frames, F), not normalised.
        representation: of the features.
        seconds: standard deviation of the filter.
    """
    joints = _to_joints(motion, representation)
    sigma = seconds * get_motion_representation(representation).fps
    radius = int(np.ceil(4 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    padded = np.pad(joints, ((radius, radius), (0, 0), (0, 0)), mode="edge")
    smoothed = sum(weight * padded[start : start + len(joints)] for start, weight in enumerate(kernel / kernel.sum()))
    return _to_features(np.asarray(smoothed), representation, motion.dtype)


def shuffle_captions(captions: Sequence[str], generator: np.random.Generator) -> list[str]:
    """The captions in another order, in which none stays where it was."""
    order = generator.permutation(len(captions))
    shuffled = np.empty(len(captions), object)
    shuffled[order] = [captions[index] for index in np.roll(order, 1)]
    return shuffled.tolist()


def blank_captions(captions: Sequence[str], generator: np.random.Generator) -> list[str]:
    """The captions, half of them (the smaller half of an odd number) empty."""
    blank = set(generator.permutation(len(captions))[: len(captions) // 2].tolist())
    return ["" if index in blank else caption for index, caption in enumerate(captions)]


MOTION_PROBES: Mapping[str, Callable[[np.ndarray, str, np.random.Generator], np.ndarray]] = {
    "mirrored": lambda motion, name, _: mirror_features(motion, name),
    "first_frame_held": lambda motion, name, _: hold_first_frame(motion, name),
    "noise_1cm": lambda motion, name, generator: add_joint_noise(motion, name, millimetres=10, generator=generator),
    "noise_2cm": lambda motion, name, generator: add_joint_noise(motion, name, millimetres=20, generator=generator),
    "noise_5cm": lambda motion, name, generator: add_joint_noise(motion, name, millimetres=50, generator=generator),
    "smoothed": lambda motion, name, _: smooth_joints(motion, name, seconds=SMOOTHING_SECONDS),
}
CAPTION_PROBES: Mapping[str, Callable[[Sequence[str], np.random.Generator], list[str]]] = {
    "shuffled_pairs": shuffle_captions,
    "half_blank": blank_captions,
}


def run_probes(
    embed_motions: Callable[[Sequence[np.ndarray]], np.ndarray],
    embed_texts: Callable[[Sequence[str]], np.ndarray],
    motions: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    labels: Sequence[Hashable] | None = None,
    caption_scorer: Callable[[Sequence[str]], Mapping[str, float]] | None = None,
    similarity: Similarity = "euclidean",
    representation: str = "humanml3d",
    pool_size: int = 32,
    seed: int,
) -> dict[str, dict[str, float]]:
    """Every metric on ground truth and on each damage of it.

    Args:
        embed_motions: features of motions -> (N, E).
        embed_texts: captions -> (N, E) in the same space; must take empty ones.
        motions: features (frames, F) each, not normalised, at least 4 frames; 4 motions or more.
        captions: the caption of each.
        labels: what each pair means, for the label-aware R-precision.
        caption_scorer: captions, as if a model had made them -> name -> score.
        similarity: how the evaluator's space is compared.
        representation: of the features.
        pool_size: pairs in a pool of the R-precision.
        seed: of damages, pools and pairs.

    Returns:
        probe (`ground_truth` first) -> metric -> value. Metrics: `r_precision` over all pairs (the last pool smaller),
        with labels also as `label_aware_...`; `mm_dist`; `fid` against ground truth, and its split-half floor beside
        ground truth; `diversity` of 300 pairs, or as many as there are motions; `side_accuracy` where captions name
        sides; those of `evaluate_physics`; those of the scorer.

    Raises:
        ValueError: for unequal numbers, too few motions, NaN, or motions of another width.
    """
    if len(motions) != len(captions) or len(motions) < 4:
        raise ValueError(f"{len(motions)} motions and {len(captions)} captions; wanted as many of both, 4 or more.")
    sided = [index for index, caption in enumerate(captions) if names_one_side(caption)]
    ruler = _Ruler(embed_motions, labels, sided, caption_scorer, similarity, representation, pool_size, seed)
    real, texts = ruler.look(motions), embed_texts(captions)
    results = {"ground_truth": ruler.measure(real, real, texts, captions)}
    results["ground_truth"]["fid_floor"] = frechet_distance_floor(real.embeddings, seed=seed)
    for name, damage_captions in CAPTION_PROBES.items():
        damaged_captions = damage_captions(captions, np.random.default_rng(seed))
        results[name] = ruler.measure(real, real, embed_texts(damaged_captions), damaged_captions)
    for name, damage in MOTION_PROBES.items():
        generator = np.random.default_rng(seed)
        damaged = ruler.look([damage(motion, representation, generator) for motion in motions])
        results[name] = ruler.measure(damaged, real, texts, captions)
    return results


def names_one_side(caption: str) -> bool:
    """Whether a caption says left or right, and not both."""
    return len(set(re.findall(r"\b(left|right)\b", caption.lower()))) == 1


def probe_table(results: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: a line for each metric, a column for each probe, a dash where there is no value.

    Args:
        results: of `run_probes`.
    """
    metrics = list(dict.fromkeys(name for scores in results.values() for name in scores))
    rows = [["metric", *results], ["---", *("---:" for _ in results)]]
    for metric in metrics:
        rows.append([metric, *(_show(scores.get(metric)) for scores in results.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


@dataclass(frozen=True)
class _Look:
    """What is measured of a set of motions, whatever its captions."""

    embeddings: np.ndarray
    mirrored_embeddings: np.ndarray | None  # of the sided pairs
    physics: Mapping[str, float]


@dataclass(frozen=True)
class _Ruler:
    """The arguments of `run_probes` that stay the same from probe to probe."""

    embed_motions: Callable[[Sequence[np.ndarray]], np.ndarray]
    labels: Sequence[Hashable] | None
    sided: Sequence[int]  # pairs whose caption names a side
    caption_scorer: Callable[[Sequence[str]], Mapping[str, float]] | None
    similarity: Similarity
    representation: str
    pool_size: int
    seed: int

    def look(self, motions: Sequence[np.ndarray]) -> _Look:
        physics = evaluate_physics(
            [features_to_joints(motion, self.representation) for motion in motions], self.representation
        )
        mirrored = [mirror_features(motions[index], self.representation) for index in self.sided]
        mirrored_embeddings = self.embed_motions(mirrored) if mirrored else None
        return _Look(self.embed_motions(motions), mirrored_embeddings, physics)

    def measure(self, seen: _Look, real: _Look, texts: np.ndarray, captions: Sequence[str]) -> dict[str, float]:
        scores: dict[str, float] = {}
        variants = {"": None, "label_aware_": self.labels} if self.labels is not None else {"": None}
        for prefix, labels in variants.items():
            precision = r_precision(
                texts,
                seen.embeddings,
                similarity=self.similarity,
                pool_size=self.pool_size,
                seed=self.seed,
                labels=labels,
            )
            scores |= {prefix + name: value for name, value in precision.items() if "_r_at_" in name}
        scores["mm_dist"] = mm_dist(texts, seen.embeddings, similarity=self.similarity)
        scores["fid"] = frechet_distance(seen.embeddings, real.embeddings)
        pairs = min(DIVERSITY_PAIRS, len(captions))
        scores["diversity"] = diversity(seen.embeddings, num_pairs=pairs, seed=self.seed)
        if seen.mirrored_embeddings is not None:
            scores["side_accuracy"] = side_accuracy(
                texts[self.sided], seen.embeddings[self.sided], seen.mirrored_embeddings, similarity=self.similarity
            )
        return {**scores, **seen.physics, **(self.caption_scorer(captions) if self.caption_scorer else {})}


def side_accuracy(
    text_embeddings: np.ndarray,
    motion_embeddings: np.ndarray,
    mirrored_embeddings: np.ndarray,
    *,
    similarity: Similarity = "euclidean",
) -> float:
    """Share of texts that lie closer to their motion than to its mirror image; a tie counts half.

    Args:
        text_embeddings: (N, E) of captions that name a side.
        motion_embeddings: (N, E) of their motions.
        mirrored_embeddings: (N, E) of the mirror images of these.
        similarity: how the evaluator's space is compared.

    Raises:
        ValueError: for arrays that do not match or NaN.
    """
    distances, mirrored_distances = (
        pair_distances(text_embeddings, embeddings, similarity=similarity)
        for embeddings in (motion_embeddings, mirrored_embeddings)
    )
    return float((np.sign(mirrored_distances - distances) + 1).mean() / 2)


def _to_joints(motion: np.ndarray, representation: str) -> np.ndarray:
    """As many frames (frames, J, 3) as give the rows: where T come from T + 1, the body goes on at its last speed."""
    joints = features_to_joints(np.asarray(motion, np.float64), representation)
    if len(joints) < 2:
        raise ValueError(f"a motion of {len(joints)} frame cannot be damaged; it takes 2 or more.")
    if get_motion_representation(representation).layout == "frames":
        return joints
    return np.concatenate([joints, 2 * joints[-1:] - joints[-2:-1]])


def _to_features(joints: np.ndarray, representation: str, dtype: np.dtype) -> np.ndarray:
    """Without retargeting, which would take the damage to bone lengths away."""
    return joints_to_features(np.ascontiguousarray(joints), representation, retarget=False).astype(dtype)


def _show(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"
