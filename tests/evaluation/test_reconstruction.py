"""Errors of reconstructed motion in millimetres, and codes of many clips."""

import copy

import numpy as np
import pytest
import torch

from geomotiongpt import (
    CausalMotionCodec,
    CausalMotionCodecConfig,
    MotionFeatureExtractor,
    MotionTokenizer,
    MotionTokenizerConfig,
    get_motion_representation,
)
from geomotiongpt.evaluation.reconstruction import (
    encode_clips,
    evaluate_reconstruction,
    frame_errors,
    procrustes_align,
    reconstruct_clips,
    reconstruction_errors,
    reconstruction_metrics,
)

SKELETONS = [("humanml3d", 22, 0.01), ("kitml", 21, 10.0)]  # name, joints, ten millimetres


def joint_errors(features, target, representation) -> tuple[float, float]:
    """Without and with trajectory."""
    errors = reconstruction_errors(features, target, representation)
    return errors["joint_error_mm"], errors["mpjpe_mm"]


def make_features(representation, num_frames=30):
    """Random features of a body that does not turn."""
    features = np.random.default_rng(0).normal(
        size=(num_frames, get_motion_representation(representation).num_features)
    )
    features[:, 0] = 0
    return features


def positions_of(features, representation):
    """View of the positions of joints 1.. (frames, joints - 1, 3)."""
    part = features[:, get_motion_representation(representation).feature_slices["positions"]]
    view = part.reshape(len(features), -1, 3)
    assert np.shares_memory(view, features)
    return view


# Joint errors


@pytest.mark.parametrize(("representation", "num_joints", "ten"), SKELETONS)
def test_no_difference_is_no_error(representation, num_joints, ten):
    features = make_features(representation)
    assert joint_errors(features, features, representation) == (0, 0)


@pytest.mark.parametrize(("representation", "num_joints", "ten"), SKELETONS)
def test_one_joint_that_is_ten_millimetres_off(representation, num_joints, ten):
    target = make_features(representation)
    for axis in range(3):
        features = target.copy()
        positions_of(features, representation)[:, 6, axis] -= ten
        local, world = joint_errors(features, target, representation)
        assert local == pytest.approx(10 / (num_joints - 1)) and world == pytest.approx(10 / num_joints)


@pytest.mark.parametrize(("representation", "num_joints", "ten"), SKELETONS)
def test_an_error_in_half_of_the_frames_counts_half(representation, num_joints, ten):
    target = make_features(representation)
    features = target.copy()
    positions_of(features, representation)[::2] += [ten, 0, 0]
    local, world = joint_errors(features, target, representation)
    assert local == pytest.approx(5) and world == pytest.approx(5 * (num_joints - 1) / num_joints)


@pytest.mark.parametrize(("representation", "num_joints", "ten"), SKELETONS)
def test_the_error_of_each_frame_stands_in_its_place(representation, num_joints, ten):
    target = make_features(representation)
    features = target.copy()
    positions_of(features, representation)[10, 6, 0] += ten
    local, world = frame_errors(features, target, representation)
    assert local.nonzero()[0].tolist() == [10] and local[10] == pytest.approx(10 / (num_joints - 1))
    assert world[10] == pytest.approx(10 / num_joints) and np.delete(world, 10).max() < 1e-9
    features[20:, 1] += ten  # the root's velocity: in the world all that follows is off
    local, world = frame_errors(features, target, representation)
    assert local.nonzero()[0].tolist() == [10]
    np.testing.assert_allclose(world[21:], 10 * np.arange(1, 10), rtol=1e-9)


@pytest.mark.parametrize(("representation", "num_joints", "ten"), SKELETONS)
def test_a_body_that_is_too_high_as_a_whole_errs_in_the_world_only(representation, num_joints, ten):
    target = make_features(representation)
    features = target.copy()
    features[:, 3] += ten
    positions_of(features, representation)[..., 1] += ten
    local, world = joint_errors(features, target, representation)
    assert local == pytest.approx(0, abs=1e-9) and world == pytest.approx(10)


@pytest.mark.parametrize(("representation", "num_joints", "ten"), SKELETONS)
def test_a_root_that_is_too_high_alone_moves_all_joints_relative_to_it(representation, num_joints, ten):
    target = make_features(representation)
    features = target.copy()
    features[:, 3] += ten
    local, world = joint_errors(features, target, representation)
    assert local == pytest.approx(10) and world == pytest.approx(10 / num_joints)


@pytest.mark.parametrize(("representation", "num_joints", "ten"), SKELETONS)
def test_drift_of_the_trajectory_adds_up_in_the_world_only(representation, num_joints, ten):
    target = make_features(representation)
    features = target.copy()
    features[:, 1] += ten
    local, world = joint_errors(features, target, representation)
    assert local == 0 and world == pytest.approx(10 * np.arange(30).mean())


def test_a_wrong_heading_errs_in_the_world_only():
    target = make_features("humanml3d")
    features = target.copy()
    features[0, 0] = np.pi / 4  # half of a right angle is a quarter turn of the body from the second frame on
    local, world = joint_errors(features, target, "humanml3d")
    assert local == 0 and world > 100


def test_errors_of_streaming_features_are_relative_to_the_root_among_the_joints():
    target = np.random.default_rng(0).normal(size=(30, 272))
    target[:, 2:8] = 1, 0, 0, 0, 1, 0  # no change of heading
    positions = np.arange(8, 74).reshape(22, 3)
    assert joint_errors(target, target, "streaming272") == (0, 0)
    for columns, local_mm, world_mm in (
        (positions[7, 2], 10 / 21, 10 / 22),
        (positions[0, 1], 10, 10 / 22),
        (positions[:, 1], 0, 10),
        (np.arange(74, 272), 0, 0),
    ):
        features = target.copy()
        features[:, columns] += 0.01
        local, world = joint_errors(features, target, "streaming272")
        assert local == pytest.approx(local_mm, abs=1e-6) and world == pytest.approx(world_mm, abs=1e-6)
    features = target.copy()
    features[1:, 1] += 0.01  # in the world all that follows is off
    local, world = joint_errors(features, target, "streaming272")
    assert local == 0 and world == pytest.approx(10 * np.arange(30).mean())


# Whole clips through a tokenizer


@pytest.fixture
def constant_tokenizer():
    """Decodes everything into features 0.5 (normalised)."""
    torch.manual_seed(0)
    model = MotionTokenizer(MotionTokenizerConfig(num_codes=6, code_dim=8, hidden_size=8))
    with torch.no_grad():
        model.decoder.output_conv.weight.zero_()
        model.decoder.output_conv.bias.fill_(0.5)
    return model


def test_the_reconstruction_error_is_exact_and_a_mean_over_clips(constant_tokenizer):
    """A clip that is off by 30 mm in a joint and one that is not: 15 mm whatever their lengths, in real units."""
    extractor = MotionFeatureExtractor("humanml3d", np.zeros(263), np.full(263, 0.2))
    exact, off = np.full((80, 263), 0.5, np.float32), np.full((21, 263), 0.5, np.float32)
    off[:16, 4 + 3 * 5] += 0.03 / 0.2
    off[16:] = 1e3  # frames that fill no code are not compared
    metrics, counts = evaluate_reconstruction(constant_tokenizer, extractor, [exact, off])
    assert metrics["joint_error_mm"] == pytest.approx(30 / 21 / 2, rel=1e-4)
    assert metrics["mpjpe_mm"] == pytest.approx(30 / 22 / 2, rel=1e-4)
    assert counts.sum() == 10 + 2


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_metrics_are_those_of_each_clip_on_its_own(tiny_tokenizer_model, tiny_feature_extractor, clips, batch_size):
    model = copy.deepcopy(tiny_tokenizer_model)
    metrics, counts = evaluate_reconstruction(model, tiny_feature_extractor, clips, batch_size=batch_size)
    errors, codes = [], []
    for clip in clips:
        output = model(torch.from_numpy(clip)[None])
        decoded = tiny_feature_extractor.denormalise(output.motion_values[0])
        target = tiny_feature_extractor.denormalise(clip[: len(decoded)])
        errors.append(joint_errors(decoded, target, "humanml3d"))
        codes += output.motion_codes[0].tolist()
    assert (metrics["joint_error_mm"], metrics["mpjpe_mm"]) == pytest.approx(np.mean(errors, axis=0), rel=1e-4)
    assert counts.tolist() == [codes.count(code) for code in range(32)]
    assert metrics["codes_used"] == len(set(codes)) and metrics["dead_codes"] == 32 - len(set(codes))
    assert metrics["gram_error"] == pytest.approx(0, abs=1e-6)


def test_evaluation_is_without_noise_and_leaves_the_mode_of_the_model_alone(
    tiny_tokenizer_model, tiny_feature_extractor, clips
):
    model = copy.deepcopy(tiny_tokenizer_model)
    state = torch.get_rng_state()
    results = [
        evaluate_reconstruction(model.train(training), tiny_feature_extractor, clips)[0] for training in (True, False)
    ]
    assert results[0] == results[1] and torch.equal(torch.get_rng_state(), state)
    for training in (True, False):
        evaluate_reconstruction(model.train(training), tiny_feature_extractor, clips)
        assert model.training is training


def test_a_clip_too_short_for_a_code_is_an_error_and_not_a_number(constant_tokenizer):
    clips = [np.zeros((size, 263), np.float32) for size in (7, 40)]
    for batch_size in (1, 2):
        with pytest.raises(ValueError, match="the shortest of 2 clips has 7 frames; one motion code takes 8"):
            evaluate_reconstruction(constant_tokenizer, MotionFeatureExtractor(), clips, batch_size=batch_size)
    with pytest.raises(ValueError, match="0 clips"):
        evaluate_reconstruction(constant_tokenizer, MotionFeatureExtractor(), [])


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_codes_of_many_clips_come_in_the_order_of_the_clips(tiny_tokenizer_model, clips, batch_size):
    codes = encode_clips(tiny_tokenizer_model, clips, batch_size=batch_size)
    assert [len(row) for row in codes] == [5, 2, 8]
    for row, clip in zip(codes, clips, strict=True):
        expected = tiny_tokenizer_model.encode(torch.from_numpy(clip)[None]).motion_codes[0]
        np.testing.assert_array_equal(row, expected)


# Alignment and acceleration


def rotation_matrix(seed):
    """A random proper rotation."""
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return rotation * np.sign(np.linalg.det(rotation))


def test_alignment_undoes_another_move_turn_and_scale_in_every_frame():
    target = np.random.default_rng(0).normal(size=(5, 22, 3))
    moved = np.stack([(frame @ rotation_matrix(i)) * (0.3 + i) + 7 * i for i, frame in enumerate(target)])
    np.testing.assert_allclose(procrustes_align(moved, target), target, atol=1e-9)


def test_alignment_never_mirrors():
    target = np.random.default_rng(0).normal(size=(3, 22, 3)) * (3, 2, 1)
    aligned = procrustes_align(target * (-1, 1, 1), target)
    assert np.linalg.norm(aligned - target, axis=-1).mean() > 0.3
    centred = target - target.mean(axis=1, keepdims=True)
    for frame, mirrored in zip(aligned - aligned.mean(axis=1, keepdims=True), centred * (-1, 1, 1), strict=True):
        assert np.linalg.det(np.linalg.lstsq(mirrored, frame, rcond=None)[0]) > 0


def test_alignment_is_the_best_there_is_near_it():
    generator = np.random.default_rng(0)
    target = generator.normal(size=(1, 22, 3))
    noisy = target + 0.3 * generator.normal(size=target.shape)
    best = np.square(procrustes_align(noisy, target) - target).sum()
    assert best < np.square(noisy - target).sum()
    centre = target.mean(axis=1, keepdims=True)
    for seed in range(20):
        nudge = np.linalg.qr(np.eye(3) + 0.05 * np.random.default_rng(seed).normal(size=(3, 3)))[0]
        nudge *= np.sign(np.diag(nudge))
        turned = (procrustes_align(noisy, target) - centre) @ nudge * (1 + 0.02 * (-1) ** seed) + centre
        assert np.square(turned - target).sum() > best


def test_alignment_of_joints_that_coincide_is_finite():
    target = np.random.default_rng(0).normal(size=(2, 22, 3))
    aligned = procrustes_align(np.ones((2, 22, 3)), target)
    np.testing.assert_allclose(aligned, np.broadcast_to(target.mean(axis=1, keepdims=True), target.shape))


@pytest.mark.parametrize(("representation", "num_joints", "ten"), SKELETONS)
def test_aligned_error_forgives_the_trajectory_and_acceleration_a_constant_drift(representation, num_joints, ten):
    target = make_features(representation)
    features = target.copy()
    features[:, 1] += ten
    features[0, 0] = np.pi / 4
    errors = reconstruction_errors(features, target, representation)
    assert errors["mpjpe_mm"] > 100 and errors["pa_mpjpe_mm"] == pytest.approx(0, abs=1e-6)
    features = target.copy()
    features[:, 1] += ten
    errors = reconstruction_errors(features, target, representation)
    assert errors["acceleration_error_mm_per_frame2"] == pytest.approx(0, abs=1e-6)
    positions_of(features, representation)[15, 6, 2] += ten
    errors = reconstruction_errors(features, target, representation)
    spike = 10 * (1 + 2 + 1) / 28 / num_joints  # 28 accelerations in 30 frames
    assert errors["acceleration_error_mm_per_frame2"] == pytest.approx(spike)
    assert 0 < errors["pa_mpjpe_mm"] < 10


def test_decoded_clips_come_back_in_order_beside_their_targets(tiny_tokenizer_model, tiny_feature_extractor, clips):
    reconstruction = reconstruct_clips(tiny_tokenizer_model, tiny_feature_extractor, clips, batch_size=2)
    for clip, features, target in zip(clips, reconstruction.features, reconstruction.targets, strict=True):
        decoded = tiny_tokenizer_model(torch.from_numpy(clip)[None]).motion_values[0]
        np.testing.assert_allclose(features, tiny_feature_extractor.denormalise(decoded), atol=1e-5)
        np.testing.assert_array_equal(target, tiny_feature_extractor.denormalise(clip[: len(features)]))
    metrics = reconstruction_metrics(reconstruction, tiny_tokenizer_model, "humanml3d")
    expected, counts = evaluate_reconstruction(tiny_tokenizer_model, tiny_feature_extractor, clips, batch_size=2)
    assert metrics == expected and torch.equal(counts, reconstruction.code_counts)


def test_a_codec_without_codes_is_measured_on_the_frames_it_gives_back(tiny_feature_extractor, clips):
    torch.manual_seed(0)
    model = CausalMotionCodec(CausalMotionCodecConfig(num_features=263, hidden_size=8, latent_dim=4)).train()
    extractor = copy.deepcopy(tiny_feature_extractor)
    extractor.downsampling_factor = 4
    metrics, counts = evaluate_reconstruction(model, extractor, clips, batch_size=2)
    assert counts is None and "codes_used" not in metrics and model.training
    errors = []
    for clip in clips:
        decoded = extractor.denormalise(model.eval()(torch.from_numpy(clip)[None]).motion_values[0])
        assert len(decoded) == len(clip) // 4 * 4
        errors.append(joint_errors(decoded, extractor.denormalise(clip[: len(decoded)]), "humanml3d"))
    assert (metrics["joint_error_mm"], metrics["mpjpe_mm"]) == pytest.approx(np.mean(errors, axis=0), rel=1e-4)


def test_the_welch_bound_stands_beside_the_gram_error(tiny_feature_extractor, clips):
    torch.manual_seed(0)
    model = MotionTokenizer(MotionTokenizerConfig(num_codes=32, code_dim=8, hidden_size=8))
    metrics, _ = evaluate_reconstruction(model, tiny_feature_extractor, clips)
    assert metrics["welch_bound"] == 32**2 / 8 - 32
    assert metrics["gram_error_excess"] == pytest.approx(metrics["gram_error"] - metrics["welch_bound"])
