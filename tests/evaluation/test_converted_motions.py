"""Motions of one representation before an evaluator of another."""

import numpy as np
import pytest

from geomotiongpt import (
    MotionFeatureExtractor,
    MotionTextEvaluator,
    MotionTextEvaluatorConfig,
    MotionTextEvaluatorProcessor,
    convert_features,
    features_to_joints,
    joints_to_features,
)
from geomotiongpt.data.synthetic import generate_synthetic_clips
from geomotiongpt.evaluation.semantics import Evaluator


def make_evaluator(representation: str = "humanml3d", max_frames: int = 80) -> Evaluator:
    width = {"humanml3d": 263, "streaming272": 272, "kitml": 251}[representation]
    sizes = {"movement_hidden_size": 8, "movement_size": 8, "motion_hidden_size": 8, "text_hidden_size": 8}
    config = MotionTextEvaluatorConfig(num_features=width, **sizes, embedding_size=8, max_frames=max_frames)
    extractor = MotionFeatureExtractor(representation, None, np.full(width, 2.0), 4)
    return Evaluator("small", MotionTextEvaluator(config).eval(), MotionTextEvaluatorProcessor(extractor))


@pytest.fixture(scope="module")
def motion() -> np.ndarray:
    """Features of 272 numbers."""
    clip = next(iter(generate_synthetic_clips(20, seed=1)))
    return joints_to_features(clip.joints.astype(np.float64), "streaming272").astype(np.float32)


def test_features_and_joints_of_the_measured_motions_become_the_evaluators(motion):
    evaluator = make_evaluator(max_frames=400).of_motions_in("streaming272")
    wanted = convert_features(motion.astype(np.float64), "streaming272", "humanml3d")
    assert wanted.shape == ((len(motion) - 1) * 2 // 3, 263)
    features = evaluator.to_features(motion)
    np.testing.assert_allclose(features, wanted, atol=1e-6)
    joints = features_to_joints(motion.astype(np.float64), "streaming272")
    np.testing.assert_allclose(evaluator.to_features(joints), wanted, atol=1e-3)
    assert np.array_equal(evaluator.to_features(features), features), "its own features stay"
    embeddings = [evaluator.embed_motions([clip, clip[:30]]) for clip in (motion, features)]
    np.testing.assert_allclose(embeddings[0][0], embeddings[1][0], atol=1e-5)
    assert not np.allclose(embeddings[0][1], embeddings[1][1], atol=1e-3)


@pytest.mark.parametrize("own", ["humanml3d", "streaming272"])
@pytest.mark.parametrize("given", ["humanml3d", "streaming272"])
def test_the_length_after_a_conversion_is_known_before(motion, given, own):
    evaluator = make_evaluator(own, max_frames=400).of_motions_in(given)
    rows = motion if given == "streaming272" else convert_features(motion, "streaming272", given)
    for length in (8, 9, 10, 31, 32, 33):
        assert evaluator.num_frames(length) == len(evaluator.to_features(rows[:length]))


def test_lengths_are_judged_after_the_conversion():
    evaluator = make_evaluator(max_frames=80).of_motions_in("streaming272")
    names = list("abcd")
    evaluator.check(names, [126, 100, 100, 7])  # 83 frames and 4
    with pytest.raises(ValueError, match=r"b has 127 frames \(84 in .* takes at most 80: .* --max-frames"):
        evaluator.check(names, [100, 127, 100, 100])
    with pytest.raises(ValueError, match=r"d has 6 frames \(3 in .* takes 4 or more: .* --min-frames"):
        evaluator.check(names, [100, 100, 100, 6])


def test_made_motions_are_cut_and_lengthened_to_what_the_evaluator_takes(motion):
    """A model that stops after one latent must not end the evaluation of all the others."""
    evaluator = make_evaluator(max_frames=16).of_motions_in("streaming272")
    made = [motion[:1], motion[:4], motion[:12], motion[:60]]
    fitting, changed = evaluator.fit(made)
    assert [len(clip) for clip in fitting] == [4, 4, 7, 16]
    assert changed == {"motions_cut_for_the_evaluator": 1, "motions_lengthened_for_the_evaluator": 2}
    assert np.isfinite(evaluator.embed_motions(fitting)).all()


def test_joints_and_the_evaluators_own_features_are_lengthened_as_they_are(motion):
    joints = features_to_joints(motion.astype(np.float64), "streaming272")
    own = convert_features(motion.astype(np.float64), "streaming272", "humanml3d").astype(np.float32)
    for source in ("streaming272", "humanml3d"):
        evaluator = make_evaluator().of_motions_in(source)
        fitting, changed = evaluator.fit([joints[:1], joints[:12], own[:3], own[:4]])
        assert [len(clip) for clip in fitting] == [4, 7 if source == "streaming272" else 11, 4, 4]
        assert changed["motions_lengthened_for_the_evaluator"] == 2
        np.testing.assert_array_equal(fitting[2], own[[0, 1, 2, 2]])


def test_other_joints_cannot_be_converted():
    with pytest.raises(ValueError, match="small takes 'kitml' motions, and 'streaming272' ones have other joints"):
        make_evaluator("kitml").of_motions_in("streaming272")
