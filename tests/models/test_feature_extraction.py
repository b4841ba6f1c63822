"""Motion clips into model inputs: what is taken for what, padding, statistics, saving, bad clips."""

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor

from geomotiongpt import (
    MotionFeatureExtractor,
    MotionTokenizer,
    MotionTokenizerConfig,
    features_to_joints,
    get_motion_representation,
    joints_to_features,
)

REPRESENTATIONS = ("humanml3d", "kitml", "streaming272")


def make_features(num_frames, representation="humanml3d", seed=0):
    width = get_motion_representation(representation).num_features
    return np.random.default_rng(seed).normal(size=(num_frames, width)).astype(np.float32)


def make_joints(num_frames, representation="humanml3d"):
    """A standing body that sways and walks ahead, in the units of the representation."""
    facts = get_motion_representation(representation)
    rng = np.random.default_rng(0)
    pose = np.zeros((facts.num_joints, 3))
    for chain in facts.kinematic_chains:
        for parent, joint in zip(chain, chain[1:], strict=False):
            pose[joint] = pose[parent] + 0.25 * np.asarray(facts.raw_offsets[joint])
    time = np.arange(num_frames)[:, None, None] / facts.fps
    sway = 0.05 * np.sin(rng.uniform(1, 4, pose.shape) * time + rng.uniform(0, 6, pose.shape))
    return (pose + sway + time * np.array([0, 0, 0.8])) / facts.unit_in_metres


def make_extractor(representation="humanml3d"):
    width = get_motion_representation(representation).num_features
    rng = np.random.default_rng(5)
    return MotionFeatureExtractor(representation, rng.normal(size=width), rng.uniform(0.3, 3, width))


# What is taken for what


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_features_are_normalised_with_mean_and_scale(representation):
    extractor = make_extractor(representation)
    features = make_features(30, representation)
    inputs = extractor(features)
    assert inputs["motion_values"].shape == (1, 30, features.shape[1]) and inputs["motion_mask"].shape == (1, 30)
    assert inputs["motion_values"].dtype == torch.float32 and inputs["motion_mask"].dtype == torch.bool
    expected = (features - np.array(extractor.mean)) / np.array(extractor.std)
    np.testing.assert_allclose(inputs["motion_values"][0].numpy(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_joints_are_told_from_features_by_their_shape(representation):
    """Joints become features, retargeted to the skeleton of the data set where it has one."""
    facts = get_motion_representation(representation)
    extractor = make_extractor(representation)
    joints = make_joints(25, representation)
    features = joints_to_features(joints, representation, retarget=facts.target_bone_lengths is not None)
    inputs = extractor(joints)
    assert inputs["motion_values"].shape == (1, 25 if representation == "streaming272" else 24, facts.num_features)
    np.testing.assert_allclose(
        inputs["motion_values"].numpy(), extractor(features)["motion_values"].numpy(), rtol=1e-5, atol=1e-5
    )


def test_the_skeletons_differ_in_scale_and_frame_rate():
    extractors = [MotionFeatureExtractor(name) for name in REPRESENTATIONS]
    facts = [(extractor.feature_size, extractor.sampling_rate) for extractor in extractors]
    assert facts == [(263, 20), (251, 12.5), (272, 30)]


@pytest.mark.parametrize("make", [make_features, make_joints])
@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor])
def test_a_clip_alone_in_a_list_or_in_a_batch_array_gives_the_same(make, convert):
    extractor = make_extractor()
    clip = convert(make(20))
    expected = extractor(clip)["motion_values"]
    stack = torch.stack if isinstance(clip, torch.Tensor) else np.stack
    for batch in ([clip, clip], (clip, clip), stack([clip, clip])):
        inputs = extractor(batch)
        assert len(inputs["motion_values"]) == 2
        for row in inputs["motion_values"]:
            assert torch.equal(row, expected[0])


@pytest.mark.parametrize("make", [make_features, make_joints])
def test_nested_lists_give_the_same_as_arrays(make):
    """One clip, a list of frames, and batches of clips of equal and of different lengths."""
    extractor = make_extractor()
    long, short = make(20).astype(np.float64), make(12).astype(np.float64)
    for nested, arrays in (
        (long.tolist(), long),
        (list(long), long),
        ([long.tolist()], [long]),
        ([long.tolist(), long.tolist()], [long, long]),
        ([long.tolist(), short.tolist()], [long, short]),
    ):
        inputs, expected = extractor(nested), extractor(arrays)
        assert torch.equal(inputs["motion_values"], expected["motion_values"])
        assert torch.equal(inputs["motion_mask"], expected["motion_mask"])


@pytest.mark.parametrize("make", [make_features, make_joints])
@pytest.mark.parametrize("frame", [0, 5])
def test_uneven_nested_lists_are_refused_by_name(make, frame):
    uneven = make(20).tolist()
    uneven[frame].pop()
    for motion, name in ((uneven, "motion 0"), ([uneven, make(20)], "motion 0"), ([make(20), uneven], "motion 1")):
        with pytest.raises(ValueError, match=f"{name} has "):
            MotionFeatureExtractor()(motion)


def test_features_and_joints_may_share_a_batch():
    inputs = make_extractor()([make_features(10), make_joints(21)])
    assert inputs["motion_mask"].sum(-1).tolist() == [10, 20]


def test_numpy_comes_out_on_request():
    inputs = make_extractor()(make_features(10), return_tensors="np")
    assert isinstance(inputs["motion_values"], np.ndarray) and inputs["motion_mask"].dtype == bool


# Padding


def test_shorter_clips_are_padded_on_the_right_and_masked():
    extractor = MotionFeatureExtractor(padding_value=-7.0)
    clips = [make_features(frames, seed=frames) for frames in (12, 30, 8)]
    inputs = extractor(clips)
    assert inputs["motion_values"].shape == (3, 30, 263)
    for values, mask, clip in zip(inputs["motion_values"], inputs["motion_mask"], clips, strict=True):
        assert mask.tolist() == [True] * len(clip) + [False] * (30 - len(clip))
        np.testing.assert_array_equal(values[: len(clip)].numpy(), clip)
        assert (values[len(clip) :] == -7).all()


# Statistics


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_denormalising_undoes_normalising(representation):
    extractor = make_extractor(representation)
    features = make_features(16, representation)
    values = extractor.normalise(features)
    assert np.abs(values - features).max() > 0.1
    for given in (values, torch.from_numpy(values), torch.from_numpy(values).requires_grad_()):
        np.testing.assert_allclose(extractor.denormalise(given), features, rtol=0, atol=1e-5)


def test_values_of_a_model_become_joints():
    extractor = make_extractor()
    features = joints_to_features(make_joints(30), retarget=False).astype(np.float32)
    expected = features_to_joints(features)
    assert expected.shape == (29, 22, 3)
    np.testing.assert_allclose(extractor.to_joints(extractor.normalise(features)), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (np.zeros(251), None, "mean must be 263 finite numbers.*'humanml3d'.*251"),
        (None, np.ones(262), "std must be 263 finite numbers"),
        (np.full(263, np.nan), None, "mean must be 263 finite numbers"),
        (None, np.full(263, np.inf), "std must be 263 finite numbers"),
        (None, np.arange(263), "std has entries that are not positive"),
        (None, np.linspace(-1, 1, 263), "std has entries that are not positive"),
    ],
)
def test_statistics_that_cannot_be_right_are_refused(mean, std, message):
    with pytest.raises(ValueError, match=message):
        MotionFeatureExtractor("humanml3d", mean, std)


def test_an_unknown_representation_is_refused_and_the_known_ones_are_named():
    with pytest.raises(ValueError, match="(?s)'amass'.*humanml3d"):
        MotionFeatureExtractor("amass")


# Saving and loading


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_a_saved_extractor_prepares_the_same_inputs(representation, tmp_path):
    saved = make_extractor(representation)
    saved.padding_value, saved.downsampling_factor = 2.0, 4
    saved.save_pretrained(tmp_path)
    loaded = MotionFeatureExtractor.from_pretrained(tmp_path)
    assert (loaded.mean, loaded.std) == (saved.mean, saved.std)
    clips = [make_features(5, representation), make_features(9, representation)]
    expected, inputs = saved(clips), loaded(clips)
    assert loaded.representation == representation and inputs.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(inputs[name], value), name


def test_auto_classes_find_the_extractor_in_the_folder_of_a_tokenizer(tmp_path):
    MotionTokenizer(MotionTokenizerConfig(num_codes=4, code_dim=4, hidden_size=4)).save_pretrained(tmp_path)
    saved = make_extractor()
    saved.save_pretrained(tmp_path)
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(loaded) is MotionFeatureExtractor and loaded.mean == saved.mean


# Bad clips


def broken(value, shape=(20, 263)):
    clip = np.zeros(shape)
    clip[(13,) + (1,) * (len(shape) - 1)] = value
    return clip


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (broken(np.nan), "a NaN or infinite value, first in frame 13"),
        (broken(-np.inf), "a NaN or infinite value, first in frame 13"),
        (broken(np.nan, (20, 22, 3)), "a NaN or infinite value, first in frame 13"),
        (np.zeros((20, 251)), r"shape \(20, 251\).*'humanml3d' takes features \(frames, 263\)"),
        (np.zeros((20, 21, 3)), r"shape \(20, 21, 3\).*joints \(frames, 22, 3\)"),
        (np.zeros((7, 263)), "7 frames; the model takes 8 or more"),
        (np.zeros((8, 22, 3)), r"8 frames; the model takes 8 or more \(one more as joints\)"),
        (np.full((20, 263), "x"), "shape"),
    ],
)
def test_a_bad_clip_is_refused_by_its_name(clip, message):
    extractor = MotionFeatureExtractor()
    with pytest.raises(ValueError, match=f"clip/000021.npy has .*{message}|clip/000021.npy has {message}"):
        extractor([make_features(20), clip], names=["clip/000020.npy", "clip/000021.npy"])
    with pytest.raises(ValueError, match="motion 1 has "):
        extractor([make_features(20), clip])


def test_the_shortest_clips_that_make_one_code_are_taken():
    inputs = MotionFeatureExtractor()([make_features(8), make_joints(9)])
    assert inputs["motion_mask"].tolist() == [[True] * 8] * 2
    streaming = MotionFeatureExtractor("streaming272")
    assert streaming(make_joints(8, "streaming272"))["motion_mask"].tolist() == [[True] * 8]
    with pytest.raises(ValueError, match="has 7 frames; the model takes 8 or more.$"):
        streaming(make_joints(7, "streaming272"))


def test_one_name_a_clip_is_wanted():
    with pytest.raises(ValueError):
        MotionFeatureExtractor()([make_features(8)], names=["a", "b"])


def test_a_tensor_in_bfloat16_is_read(tiny_feature_extractor, clips):
    motion = torch.from_numpy(clips[0]).bfloat16()
    inputs = tiny_feature_extractor(motion)["motion_values"]
    assert torch.equal(
        torch.as_tensor(inputs), torch.as_tensor(tiny_feature_extractor(motion.float())["motion_values"])
    )
