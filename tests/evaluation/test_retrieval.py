"""R-precision, MM-Dist and the protocols of TMR."""

import math

import numpy as np
import pytest

from geomotiongpt.evaluation import retrieval
from geomotiongpt.evaluation.retrieval import mm_dist, pair_distances, r_precision, tmr_protocols

DIRECTIONS = ("motion_to_text", "text_to_motion")


@pytest.fixture
def pairs():
    """300 noisy pairs, neither easy nor hopeless."""
    generator = np.random.default_rng(0)
    texts = generator.normal(size=(300, 8))
    return texts, texts + 0.9 * generator.normal(size=(300, 8))


def brute_force_ranks(queries, candidates, right):
    """Rank of the nearest right answer, from 1, with a sort."""
    ranks = []
    for row, query in enumerate(queries):
        order = np.argsort(np.square(candidates - query).sum(axis=1))
        ranks.append(1 + next(place for place, column in enumerate(order) if right(row, column)))
    return np.array(ranks)


# R-precision


def test_r_precision_of_four_points_on_a_line_is_what_a_hand_finds():
    texts, motions = np.array([[0.0], [10.0], [20.0], [30.0]]), np.array([[0.0], [4.0], [14.0], [30.0]])
    result = r_precision(texts, motions, pool_size=4, seed=0)
    assert result == {
        "motion_to_text_r_at_1": 0.5,  # 4 is nearest to 0, 14 to 10
        "motion_to_text_r_at_2": 1.0,
        "motion_to_text_r_at_3": 1.0,
        "text_to_motion_r_at_1": 0.75,  # 10 is nearest to 14
        "text_to_motion_r_at_2": 1.0,
        "text_to_motion_r_at_3": 1.0,
        "num_pairs": 4,
        "num_dropped": 0,
        "last_pool_size": 0,
    }


def test_the_two_directions_are_each_other_with_texts_and_motions_swapped(pairs):
    texts, motions = pairs
    there, back = r_precision(texts, motions, seed=0), r_precision(motions, texts, seed=0)
    assert there["motion_to_text_r_at_1"] != there["text_to_motion_r_at_1"]
    for k in (1, 2, 3):
        assert there[f"motion_to_text_r_at_{k}"] == back[f"text_to_motion_r_at_{k}"]


@pytest.mark.parametrize("similarity", ["euclidean", "cosine"])
@pytest.mark.parametrize("num_labels", [None, 20])
def test_r_precision_is_that_of_a_sort_in_every_pool(pairs, similarity, num_labels):
    texts, motions = pairs
    labels = None if num_labels is None else [("label", row % num_labels) for row in range(300)]
    result = r_precision(texts, motions, similarity=similarity, pool_size=25, top_k=(1, 5), seed=3, labels=labels)
    if similarity == "cosine":
        texts, motions = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in pairs)
    order = np.random.default_rng(3).permutation(300)
    for direction, queries, candidates in (("motion_to_text", motions, texts), ("text_to_motion", texts, motions)):
        ranks = []
        for pool in order.reshape(-1, 25):

            def right(row, column, pool=pool):
                same = pool[row] == pool[column]
                return same if labels is None else labels[pool[row]] == labels[pool[column]]

            ranks.append(brute_force_ranks(queries[pool], candidates[pool], right))
        for k in (1, 5):
            assert result[f"{direction}_r_at_{k}"] == pytest.approx(np.mean(np.concatenate(ranks) <= k))


def test_cosine_sees_directions_only_and_euclidean_is_indifferent_to_a_shift_and_a_scale(pairs):
    texts, motions = pairs
    lengths = np.random.default_rng(1).uniform(0.1, 10, size=(300, 1))
    cosine = r_precision(texts, motions, similarity="cosine", seed=0)
    assert r_precision(texts * lengths, motions / lengths, similarity="cosine", seed=0) == pytest.approx(cosine)
    euclidean = r_precision(texts, motions, seed=0)
    assert r_precision(texts * lengths, motions / lengths, seed=0) != euclidean
    assert r_precision(1e-3 * texts + 1e3, 1e-3 * motions + 1e3, seed=0) == pytest.approx(euclidean)


@pytest.mark.parametrize("similarity", ["euclidean", "cosine"])
def test_one_embedding_for_everything_scores_chance(similarity):
    constant = np.full((96, 16), 0.37, np.float32)
    result = r_precision(constant, constant, similarity=similarity, seed=0)
    for direction in DIRECTIONS:
        for k in (1, 2, 3):
            assert result[f"{direction}_r_at_{k}"] == pytest.approx(k / 32)
    labelled = r_precision(constant[:32], constant[:32], similarity=similarity, seed=0, labels=[0, 1, 2, 3] * 8)
    for k in (1, 2, 3):  # not one of the 8 right answers in k draws of 32
        chance = 1 - math.comb(24, k) / math.comb(32, k)
        assert labelled[f"motion_to_text_r_at_{k}"] == pytest.approx(chance)


def test_two_equal_captions_share_a_hit_and_are_both_right_with_labels():
    motions = 100.0 * np.eye(4)
    texts = motions.copy()
    texts[1] = texts[0] = (motions[0] + motions[1]) / 2
    plain = r_precision(texts, motions, pool_size=4, seed=0)
    assert plain["motion_to_text_r_at_1"] == pytest.approx(0.75) and plain["motion_to_text_r_at_2"] == 1
    aware = r_precision(texts, motions, pool_size=4, seed=0, labels=["a", "a", "b", "c"])
    assert aware["motion_to_text_r_at_1"] == aware["text_to_motion_r_at_1"] == 1


@pytest.mark.parametrize(("last_pool", "scored", "dropped"), [("smaller", 300, 0), ("drop", 288, 12)])
def test_what_becomes_of_the_last_pool_is_in_the_result(pairs, last_pool, scored, dropped):
    result = r_precision(*pairs, seed=0, last_pool=last_pool)
    assert (result["num_pairs"], result["num_dropped"], result["last_pool_size"]) == (scored, dropped, 12)
    assert (result["motion_to_text_r_at_1"] * scored) == pytest.approx(round(result["motion_to_text_r_at_1"] * scored))


def test_dropped_pairs_have_no_part_in_the_result(pairs):
    texts, motions = (rows.copy() for rows in pairs)
    dropped = np.random.default_rng(0).permutation(300)[288:]
    before = r_precision(texts, motions, seed=0, last_pool="drop")
    motions[dropped] = motions[dropped[0]]
    after = r_precision(texts, motions, seed=0, last_pool="drop")
    assert after == pytest.approx(before)
    assert r_precision(texts, motions, seed=0) != r_precision(*pairs, seed=0)


def test_pools_come_from_the_seed(pairs):
    assert r_precision(*pairs, seed=0) == r_precision(*pairs, seed=0)
    assert len({r_precision(*pairs, seed=seed)["motion_to_text_r_at_1"] for seed in range(5)}) > 1


# MM-Dist


def test_mm_dist_is_the_mean_distance_of_the_pairs():
    texts, motions = np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([[3.0, 4.0], [1.0, 2.0]])
    np.testing.assert_allclose(pair_distances(texts, motions), [5, 1])
    assert mm_dist(texts, motions) == pytest.approx(3)
    right_angle = mm_dist(np.array([[2.0, 0.0]]), np.array([[0.0, 0.1]]), similarity="cosine")
    assert right_angle == pytest.approx(math.sqrt(2))


# TMR


def test_the_whole_gallery_protocol_is_that_of_a_sort_and_chunks_do_not_change_it(pairs, monkeypatch):
    texts, motions = pairs
    labels = [row % 100 for row in range(300)]
    result = tmr_protocols(texts, motions, similarity="euclidean", labels=labels, seed=0)
    plain = brute_force_ranks(motions, texts, lambda row, column: row == column)
    aware = brute_force_ranks(motions, texts, lambda row, column: labels[row] == labels[column])
    for protocol, ranks in (("all", plain), ("threshold", aware)):
        assert result[f"{protocol}_motion_to_text_median_rank"] == np.median(ranks)
        for k in (1, 2, 3, 5, 10):
            assert result[f"{protocol}_motion_to_text_r_at_{k}"] == pytest.approx(np.mean(ranks <= k))
        assert result[f"{protocol}_num_pairs"] == 300
    assert np.median(plain) > 1 and np.mean(aware <= 1) > np.mean(plain <= 1)
    monkeypatch.setattr(retrieval, "_ROWS_AT_A_TIME", 7)
    assert tmr_protocols(texts, motions, similarity="euclidean", labels=labels, seed=0) == pytest.approx(result)


def test_ties_have_their_mean_rank():
    constant = np.ones((64, 4))
    result = tmr_protocols(constant, constant, labels=range(64), seed=0)
    for direction in DIRECTIONS:
        assert result[f"all_{direction}_median_rank"] == 32.5
        assert result[f"all_{direction}_r_at_10"] == pytest.approx(10 / 64)
        assert result[f"small_batches_{direction}_median_rank"] == 16.5
        assert result[f"small_batches_{direction}_r_at_10"] == pytest.approx(10 / 32)


def test_nearly_identical_texts_are_right_above_the_published_threshold_only():
    """Cosines are mapped to 0 .. 1 first, so .95 stands for a cosine of .9."""
    embeddings = np.eye(40)
    swapped = embeddings.copy()
    swapped[[0, 1]], swapped[[2, 3]] = swapped[[1, 0]], swapped[[3, 2]]
    cosines = np.eye(40)
    cosines[0, 1] = cosines[1, 0] = 0.91
    cosines[2, 3] = cosines[3, 2] = 0.89
    result = tmr_protocols(embeddings, swapped, text_similarity=cosines, seed=0)
    for direction in DIRECTIONS:
        assert result[f"all_{direction}_r_at_1"] == pytest.approx(36 / 40)
        assert result[f"threshold_{direction}_r_at_1"] == pytest.approx(38 / 40)
    looser = tmr_protocols(embeddings, swapped, text_similarity=cosines, threshold=0.94, seed=0)
    assert looser["threshold_motion_to_text_r_at_1"] == 1


def test_the_dissimilar_subset_has_one_text_of_each_meaning_and_ends_with_them():
    """40 meanings, five texts of each, whose motions are told apart by meaning only."""
    labels = [row % 40 for row in range(200)]
    embeddings = np.eye(40)[labels]
    result = tmr_protocols(embeddings, embeddings, labels=labels, seed=0)
    assert result["dissimilar_num_pairs"] == 40
    assert result["dissimilar_motion_to_text_r_at_1"] == 1
    assert result["all_motion_to_text_r_at_1"] == pytest.approx(1 / 5)
    few = tmr_protocols(embeddings, embeddings, labels=labels, num_dissimilar=10, seed=0)
    assert few["dissimilar_num_pairs"] == 10


def test_the_dissimilar_subset_takes_the_text_farthest_from_those_taken():
    angles = np.radians([0, 5, 10, 90, 95, 180, 185, 270])
    cosines = np.cos(angles[:, None] - angles)
    alike = retrieval._near_identical(cosines, 8, 0.999)
    subset = retrieval._dissimilar_subset(cosines, alike, 4)
    spread = np.sort(np.degrees(angles[subset]) % 360 // 45)
    np.testing.assert_array_equal(spread, [0, 2, 4, 6])


def test_small_batches_are_those_of_r_precision_with_the_rest_left_out(pairs):
    result = tmr_protocols(*pairs, labels=range(300), seed=5)
    pools = r_precision(*pairs, similarity="cosine", top_k=(1, 2, 3, 5, 10), seed=5, last_pool="drop")
    assert result["small_batches_num_pairs"] == 288
    for name in pools:
        if "_r_at_" in name:
            assert result[f"small_batches_{name}"] == pools[name]


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text_embeddings": np.zeros((39, 4))}, r"text_embeddings \(39, 4\) and motion_embeddings \(40, 4\)"),
        ({"text_embeddings": np.zeros((40, 5))}, "must have one shape"),
        ({"text_embeddings": np.full((40, 4), np.nan)}, "text_embeddings has a NaN or infinite value, first in row 0"),
        ({"text_embeddings": np.zeros((0, 4)), "motion_embeddings": np.zeros((0, 4))}, r"got shape \(0, 4\)"),
        ({"labels": [0] * 39}, "39 labels for 40 pairs"),
        ({"similarity": "dot"}, "similarity is 'dot'; choose 'euclidean' or 'cosine'"),
        ({"similarity": "cosine"}, "all zeros, which has no cosine"),
        ({"pool_size": 1}, "pool_size is 1"),
        ({"last_pool": "keep"}, "last_pool 'keep'"),
        ({"pool_size": 41, "last_pool": "drop"}, "40 pairs do not fill a pool of 41"),
    ],
)
def test_input_that_has_no_r_precision_is_an_error(arguments, message):
    valid = {"text_embeddings": np.zeros((40, 4)), "motion_embeddings": np.zeros((40, 4)), "seed": 0}
    with pytest.raises(ValueError, match=message):
        r_precision(**(valid | arguments))


def test_tmr_needs_to_know_which_texts_are_alike():
    embeddings = np.eye(40)
    for given in ({}, {"labels": range(40), "text_similarity": np.eye(40)}):
        with pytest.raises(ValueError, match="text_similarity or labels, one of them"):
            tmr_protocols(embeddings, embeddings, seed=0, **given)
    with pytest.raises(ValueError, match=r"cosines of shape \(40, 40\), got shape \(39, 39\)"):
        tmr_protocols(embeddings, embeddings, text_similarity=np.eye(39), seed=0)
