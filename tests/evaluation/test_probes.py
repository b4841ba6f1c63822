"""Damages of ground truth, and how metrics react to them, on the embedded data and a simple embedding."""

import numpy as np
import pytest

from geomotiongpt import (
    features_to_joints,
    get_motion_representation,
    joints_to_features,
    load_motion_dataset,
    make_synthetic_dataset,
    mirror_features,
)
from geomotiongpt.evaluation.probes import (
    CAPTION_PROBES,
    MOTION_PROBES,
    add_joint_noise,
    blank_captions,
    hold_first_frame,
    names_one_side,
    probe_table,
    run_probes,
    shuffle_captions,
    side_accuracy,
    smooth_joints,
)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """80 motions of the embedded data with their mirror images, and a caption each."""
    folder = tmp_path_factory.mktemp("probes") / "data"
    make_synthetic_dataset(folder, num_motions=50, seed=0)
    dataset = load_motion_dataset(folder, "train").with_format("numpy")
    return [np.asarray(row["motion"], np.float32) for row in dataset], [str(row["captions"][0]) for row in dataset]


@pytest.fixture(scope="module")
def motion(pairs):
    return pairs[0][0]


class PooledEmbedding:
    """Motions by random projections of their pooled features; captions by where the motions that have them lie."""

    def __init__(self, motions, captions):
        rows = np.concatenate(motions)
        self.mean, self.std = rows.mean(axis=0), rows.std(axis=0) + 0.05
        self.projection = np.random.default_rng(0).normal(size=(3 * 263, 24)) / 30
        embeddings = self.motions(motions)
        self.of_caption = dict(zip(captions, embeddings, strict=True)) | {"": embeddings.mean(axis=0)}

    def motions(self, motions):
        scaled = [(motion - self.mean) / self.std for motion in motions]
        pooled = [np.concatenate([rows.mean(axis=0), rows.std(axis=0), rows[-1]]) for rows in scaled]
        return np.stack(pooled) @ self.projection

    def texts(self, captions):
        return np.stack([self.of_caption[caption] for caption in captions])


@pytest.fixture(scope="module")
def results(pairs):
    motions, captions = pairs
    embedding = PooledEmbedding(motions, captions)
    return run_probes(
        embedding.motions,
        embedding.texts,
        motions,
        captions,
        labels=captions,
        caption_scorer=lambda scored: {
            "exact": float(np.mean([a == b for a, b in zip(scored, captions, strict=True)]))
        },
        seed=0,
    )


# Damages


@pytest.mark.parametrize("name", MOTION_PROBES)
def test_damages_keep_length_width_and_type_and_leave_the_motion_alone(motion, name):
    before = motion.copy()
    damaged = MOTION_PROBES[name](motion, "humanml3d", np.random.default_rng(0))
    assert damaged.shape == motion.shape and damaged.dtype == motion.dtype and np.isfinite(damaged).all()
    np.testing.assert_array_equal(motion, before)
    assert np.abs(damaged - motion).max() > 0.01


@pytest.mark.parametrize("representation", ["humanml3d", "kitml"])
def test_damages_of_size_nothing_change_nothing(motion, representation):
    """But for the last row, whose step leads to a frame that features do not tell, and the limits of single
    precision in the heading."""
    if representation == "kitml":
        facts = get_motion_representation("kitml")
        generator = np.random.default_rng(0)
        pose = 100 * np.cumsum(np.array(facts.raw_offsets)[list(range(21))], axis=0) + generator.normal(size=(21, 3))
        joints = pose + 30 * np.cumsum(generator.normal(size=(40, 1, 3)) * (1, 0, 1), axis=0)
        motion = joints_to_features(joints, "kitml", retarget=False)
    scale = motion.std(axis=0) + 1e-3
    for damaged in (
        add_joint_noise(motion, representation, millimetres=0, generator=np.random.default_rng(0)),
        smooth_joints(motion, representation, seconds=1e-3),
    ):
        assert np.median(np.abs(damaged - motion)[:-1] / scale) < 1e-3
        joints, target = (features_to_joints(rows.astype(np.float64), representation) for rows in (damaged, motion))
        unit = get_motion_representation(representation).unit_in_metres
        assert np.abs(joints - target)[:-1].max() * unit < 0.02


def test_a_held_clip_stands_in_its_first_pose(motion):
    joints = features_to_joints(hold_first_frame(motion))
    np.testing.assert_allclose(joints, np.broadcast_to(joints[:1], joints.shape), atol=1e-5)
    first = features_to_joints(motion)[0]
    first[:, 1] -= first[:, 1].min()
    np.testing.assert_allclose(joints[0], first, atol=1e-4)
    contacts = hold_first_frame(motion)[:, get_motion_representation("humanml3d").feature_slices["contacts"]]
    assert (contacts == 1).all()


def test_noise_is_as_large_as_its_name_says_in_all_groups_of_features(motion):
    target = features_to_joints(motion.astype(np.float64))
    for name, size in (("noise_1cm", 0.01), ("noise_2cm", 0.02), ("noise_5cm", 0.05)):
        noisy = MOTION_PROBES[name](motion, "humanml3d", np.random.default_rng(0))
        steps = np.diff(features_to_joints(noisy.astype(np.float64)) - target, axis=0)[..., 1]
        assert steps.std() == pytest.approx(size * np.sqrt(2), rel=0.1)
        # The velocities tell of the same noise
        velocities = (noisy - motion)[:, get_motion_representation("humanml3d").feature_slices["velocities"]]
        assert velocities.reshape(len(motion), -1, 3)[:-1, :, 1].std() == pytest.approx(size * np.sqrt(2), rel=0.1)


def test_smoothing_takes_a_gaussian_of_its_width_off_a_step():
    """A body that is lifted at once rises as the integral of the Gaussian."""
    generator = np.random.default_rng(0)
    clip = np.zeros((80, 263))
    facts = get_motion_representation("humanml3d")
    positions = generator.uniform(0.2, 1, size=(21, 3))
    positions[[6, 7], 1] = 0
    clip[:, facts.feature_slices["positions"]] = positions.reshape(-1)
    clip[:, 3] = 1
    clip[40:, 3] += 0.5
    clip[40:, facts.feature_slices["positions"]] += np.tile([0, 0.5, 0], 21)
    heights = smooth_joints(clip, seconds=0.25)[:, 3]
    assert heights[0] == pytest.approx(1, abs=1e-3) and heights[-1] == pytest.approx(1.5, abs=1e-3)
    slope = np.diff(heights)
    assert slope.max() == pytest.approx(0.5 / (5 * np.sqrt(2 * np.pi)), rel=0.02)  # sigma is 5 frames
    assert np.argmax(slope) == 39


def test_shuffled_captions_are_the_same_captions_none_in_its_place():
    captions = [f"caption {index}" for index in range(101)]
    for seed in range(20):
        shuffled = shuffle_captions(captions, np.random.default_rng(seed))
        assert sorted(shuffled) == sorted(captions)
        assert not any(a == b for a, b in zip(shuffled, captions, strict=True))
    assert shuffle_captions(["a", "b"], np.random.default_rng(0)) == ["b", "a"]


def test_half_of_the_captions_are_blank_and_the_rest_untouched():
    captions = [f"caption {index}" for index in range(101)]
    blanked = blank_captions(captions, np.random.default_rng(0))
    assert blanked.count("") == 50
    assert all(after in ("", before) for after, before in zip(blanked, captions, strict=True))
    assert blanked != blank_captions(captions, np.random.default_rng(1))


# Reactions


def test_ground_truth_against_itself_is_perfect(results):
    truth = results["ground_truth"]
    assert list(results) == ["ground_truth", *CAPTION_PROBES, *MOTION_PROBES]
    assert truth["fid"] == pytest.approx(0, abs=1e-6) and truth["mm_dist"] < truth["diversity"] / 2
    for direction in ("motion_to_text", "text_to_motion"):
        assert truth[f"label_aware_{direction}_r_at_1"] > 0.9
    assert truth["exact"] == 1 and truth["fid_floor"] > 0 and truth["side_accuracy"] > 0.9


@pytest.mark.parametrize("name", [*CAPTION_PROBES, *MOTION_PROBES])
def test_every_damage_is_seen_by_r_precision_or_mm_dist(results, name):
    truth, damaged = results["ground_truth"], results[name]
    assert damaged["mm_dist"] > truth["mm_dist"]
    for direction in ("motion_to_text", "text_to_motion"):
        for k in (1, 2, 3):
            metric = f"label_aware_{direction}_r_at_{k}"
            assert damaged[metric] <= truth[metric]


def test_shuffled_pairs_score_chance_and_fid_does_not_see_them(results):
    shuffled = results["shuffled_pairs"]
    assert shuffled["motion_to_text_r_at_1"] < 0.15 and shuffled["exact"] < 0.1
    for metric in ("fid", "diversity", "jerk_m_per_s3", "foot_skating_ratio"):
        assert shuffled[metric] == results["ground_truth"][metric]


def test_blank_captions_cost_captioning_and_retrieval_and_not_fid(results):
    blank, truth = results["half_blank"], results["ground_truth"]
    assert blank["exact"] == pytest.approx(0.5, abs=0.1) and blank["fid"] == truth["fid"]
    assert 0.3 < blank["label_aware_motion_to_text_r_at_1"] < 0.7
    assert 0.6 < blank["side_accuracy"] < 0.9


def test_mirroring_turns_side_accuracy_round_and_passes_below_the_floor_of_fid(results):
    """The data holds every motion's mirror image."""
    mirrored, truth = results["mirrored"], results["ground_truth"]
    assert mirrored["side_accuracy"] == pytest.approx(1 - truth["side_accuracy"])
    assert mirrored["fid"] < truth["fid_floor"]
    assert mirrored["label_aware_motion_to_text_r_at_1"] < 0.8
    assert mirrored["jerk_m_per_s3"] == pytest.approx(truth["jerk_m_per_s3"], rel=1e-3)


def test_noise_raises_fid_and_jerk_the_more_of_it_there_is(results):
    for metric in ("fid", "mm_dist", "jerk_m_per_s3", "floating_mm"):
        values = [results[name][metric] for name in ("ground_truth", "noise_1cm", "noise_2cm", "noise_5cm")]
        assert values == sorted(values) and values[3] > values[1] > values[0]


def test_smoothing_and_holding_show_as_too_little_jerk(results):
    truth = results["ground_truth"]
    assert results["smoothed"]["jerk_m_per_s3"] < truth["jerk_m_per_s3"] / 3
    assert results["first_frame_held"]["jerk_m_per_s3"] == pytest.approx(0, abs=0.1)
    assert results["first_frame_held"]["foot_skating_ratio"] == 0
    assert results["first_frame_held"]["fid"] > results["smoothed"]["fid"] > 0


def test_results_come_from_the_seed(pairs):
    motions, captions = (part[:6] for part in pairs)
    embedding = PooledEmbedding(motions, captions)
    first, again, other = (
        run_probes(embedding.motions, embedding.texts, motions, captions, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again and first["noise_1cm"] != other["noise_1cm"]
    assert "exact" not in first["ground_truth"] and "label_aware_motion_to_text_r_at_1" not in first["ground_truth"]


# Sides


def test_a_caption_names_one_side_or_it_does_not():
    assert names_one_side("waves with the LEFT hand") and names_one_side("right, then right again")
    assert not names_one_side("left, then right") and not names_one_side("bright and upright")
    assert not names_one_side("")


def test_side_accuracy_counts_texts_closer_to_the_motion_than_to_its_mirror_image():
    texts = np.zeros((4, 2))
    motions = np.array([[1.0, 0], [1, 0], [3, 0], [2, 0]])
    mirrored = np.array([[2.0, 0], [0, 2], [0, 1], [0, 2]])
    assert side_accuracy(texts, motions, mirrored) == pytest.approx(2.5 / 4)


def test_without_captions_that_name_a_side_there_is_no_side_accuracy(pairs):
    motions = pairs[0][:6]
    captions = [f"a person moves {index} times" for index in range(6)]
    embedding = PooledEmbedding(motions, captions)
    results = run_probes(embedding.motions, embedding.texts, motions, captions, seed=0)
    assert all("side_accuracy" not in scores for scores in results.values())


# Table


def test_the_table_has_a_line_for_each_metric_and_a_column_for_each_probe():
    table = probe_table({"ground_truth": {"fid": 0.0, "fid_floor": 1.5}, "noise_1cm": {"fid": 1234.5}})
    assert table.split("\n") == [
        "| metric | ground_truth | noise_1cm |",
        "| --- | ---: | ---: |",
        "| fid | 0.000 | 1234 |",
        "| fid_floor | 1.500 | - |",
    ]


# Bad input


def test_input_that_cannot_be_probed_is_an_error(pairs):
    motions, captions = (part[:12] for part in pairs)
    embedding = PooledEmbedding(motions, captions)

    def probe(motions, captions, **options):
        return run_probes(embedding.motions, embedding.texts, motions, captions, seed=0, **options)

    with pytest.raises(ValueError, match="12 motions and 11 captions"):
        probe(motions, captions[:11])
    with pytest.raises(ValueError, match="3 motions and 3 captions; wanted as many of both, 4 or more"):
        probe(motions[:3], captions[:3])
    broken = [motion.copy() for motion in motions]
    broken[5][9, 3] = np.nan
    with pytest.raises(ValueError, match="clip 5: joints have a NaN or infinite value, first in frame 9"):
        probe(broken, captions)
    with pytest.raises(ValueError, match="must have shape"):
        probe([motion[:, :251] for motion in motions], captions)
    with pytest.raises(ValueError, match="11 labels for 12 pairs"):
        probe(motions, captions, labels=range(11))


def test_a_single_frame_cannot_be_damaged(motion):
    with pytest.raises(ValueError, match="a motion of 1 frame cannot be damaged"):
        hold_first_frame(motion[:1])
    assert mirror_features(motion[:1]).shape == (1, 263)
