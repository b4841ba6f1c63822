"""Captions of the parts of a long motion: windows over it, what the model sees in each, and where segments meet."""

import copy
import tracemalloc
from itertools import pairwise, product

import numpy as np
import pytest
import torch

from geomotiongpt import TimedCaption, caption_segments, joints_to_features
from geomotiongpt.models.motion_segments import cut_window, merge_captions, plan_windows, window_frames
from geomotiongpt.models.motion_skeletons import get_motion_representation

GENERATION = {"max_new_tokens": 6, "do_sample": False}
SPIN = np.deg2rad(6)  # a frame


def make_joints(representation: str, num_frames: int) -> np.ndarray:
    """A swaying body on a curved path that turns round once in 60 frames."""
    facts = get_motion_representation(representation)
    rng = np.random.default_rng(0)
    pose = np.zeros((facts.num_joints, 3))
    for joint in facts.outward_order:
        pose[joint] = pose[facts.parents[joint]] + 0.25 * np.asarray(facts.raw_offsets[joint])
    time = np.arange(num_frames)[:, None, None] / facts.fps
    body = pose + 0.05 * np.sin(rng.uniform(1, 4, pose.shape) * time + rng.uniform(0, 6, pose.shape))
    angle = SPIN * np.arange(num_frames)[:, None]
    x, y, z = np.moveaxis(body, -1, 0)
    turned = np.stack([x * np.cos(angle) + z * np.sin(angle), y, z * np.cos(angle) - x * np.sin(angle)], -1)
    path = np.concatenate([0.4 * np.sin(time), 0.1 * np.sin(0.3 * time), 0.8 * time], axis=2)
    return (turned + path) / facts.unit_in_metres


@pytest.fixture(scope="module")
def long_clip() -> np.ndarray:
    """300 frames of features, in a body that turns."""
    return joints_to_features(make_joints("humanml3d", 301)).astype(np.float32)


@pytest.fixture(params=["geomotiongpt", "motiongpt3", "llamo"])
def family(request, tiny_model, tiny_processor, tiny_motiongpt3, motiongpt3_processor, tiny_llamo, llamo_processor):
    """A model of each family with its processor; GeoMotionGPT trained on motions of 9 codes, as it seems."""
    if request.param == "motiongpt3":
        return tiny_motiongpt3, motiongpt3_processor
    if request.param == "llamo":
        model = copy.deepcopy(tiny_llamo)
        with torch.no_grad():
            model.motion_input.weight.mul_(5)  # so that what it says depends on small differences
        return model, llamo_processor
    model = copy.deepcopy(tiny_model)
    model.config.max_motion_codes = 9
    return model, tiny_processor


def caption(model, processor, clip: np.ndarray, **options) -> str:
    """What a model says of a clip on its own."""
    inputs = processor(motion=clip, task="motion-to-text")
    generated = model.generate(**inputs, **GENERATION | options)
    return processor.post_process_text(generated, inputs["input_ids"].shape[1])[0]


def test_windows_cover_a_motion_and_none_is_a_remainder():
    for num_frames, window, stride in product((1, 5, 39, 40, 41, 47, 97, 400, 72_000), (1, 2, 40, 41), (1, 2, 13, 41)):
        if stride > window or num_frames // stride > 2000:
            continue
        windows = plan_windows(num_frames, window, stride)
        assert windows[0][0] == 0 and windows[-1][1] == num_frames
        assert {end - start for start, end in windows} == {min(window, num_frames)}
        assert all(1 <= after[0] - before[0] <= stride for before, after in pairwise(windows))
    assert plan_windows(100, 40, 20) == [(0, 40), (20, 60), (40, 80), (60, 100)]
    assert plan_windows(101, 40, 40) == [(0, 40), (30, 70), (61, 101)]


def test_equal_captions_become_one_segment_and_others_meet_in_the_middle_of_the_overlap():
    windows = [(0, 40), (20, 60), (40, 80), (60, 100)]
    assert merge_captions(windows, ["walk", "walk", "jump", "jump"]) == [(0, 50, "walk"), (50, 100, "jump")]
    assert merge_captions(windows, ["walk"] * 4) == [(0, 100, "walk")]
    assert merge_captions(windows, ["walk", "jump", "walk", "sit"]) == [
        (0, 30, "walk"), (30, 50, "jump"), (50, 70, "walk"), (70, 100, "sit")
    ]  # fmt: skip
    assert merge_captions([(0, 40), (40, 80)], ["walk", "jump"]) == [(0, 40, "walk"), (40, 80, "jump")]
    assert merge_captions([(0, 7)], ["walk"]) == [(0, 7, "walk")]


def test_segments_have_no_gaps_overlaps_or_equal_neighbours():
    rng = np.random.default_rng(0)
    for _ in range(100):
        num_frames, window = rng.integers(1, 500), rng.integers(1, 60)
        windows = plan_windows(int(num_frames), int(window), int(rng.integers(1, window + 1)))
        captions = rng.choice(["walk", "jump", "sit"], len(windows)).tolist()
        segments = merge_captions(windows, captions)
        assert segments[0][0] == 0 and segments[-1][1] == num_frames
        assert all(start < end for start, end, _ in segments)
        for before, after in pairwise(segments):
            assert before[1] == after[0] and before[2] != after[2]


@pytest.mark.parametrize("representation", ["humanml3d", "kitml", "streaming272"])
@pytest.mark.parametrize(("start", "end"), [(0, 60), (37, 97), (200, 260)])
def test_a_window_of_features_is_what_its_joints_would_give(representation, start, end):
    """Though the heading has passed 180 degrees four times, and a slice of the features is something else."""
    facts = get_motion_representation(representation)
    joints = make_joints(representation, 260 + (facts.layout == "steps"))
    features = joints_to_features(joints, representation, retarget=False).astype(np.float32)
    assert len(features) == 260
    # After the last row there is no frame to end the window with: it begins one earlier
    early = int(end == 260 and facts.layout == "steps")
    of_joints = cut_window(joints, start - early, end - early, facts)
    expected = joints_to_features(of_joints, representation, retarget=False)
    window = cut_window(features, start, end, facts)
    assert window.shape == expected.shape == (60, facts.num_features)
    scale = np.full(facts.num_features, facts.unit_in_metres)
    scale[facts.feature_slices["rotations"]] = 1
    if "contacts" in facts.feature_slices:  # a foot may move as fast as the threshold
        contacts = facts.feature_slices["contacts"]
        assert (window[:, contacts] != expected[:, contacts]).mean() < 0.01
        scale[contacts] = 0
    assert np.abs((window - expected) * scale).max() < 1e-4
    if start:
        assert np.abs((features[start:end] - expected) * scale).max() > 0.01


def test_a_window_keeps_the_twists_that_joints_do_not_tell():
    facts = get_motion_representation("streaming272")
    joints = make_joints("streaming272", 90)
    rng = np.random.default_rng(1)
    rotations = np.linalg.qr(rng.normal(size=(90, 22, 3, 3)))[0]
    rotations *= np.linalg.det(rotations)[..., None, None]
    features = joints_to_features(joints, "streaming272", retarget=False, rotations=rotations)
    expected = joints_to_features(joints[30:80], "streaming272", retarget=False, rotations=rotations[30:80])
    np.testing.assert_allclose(cut_window(features, 30, 80, facts), expected, atol=1e-9)


def test_a_motion_that_is_no_window_longer_is_left_as_it_is(long_clip):
    facts = get_motion_representation("humanml3d")
    before = long_clip.copy()
    assert cut_window(long_clip, 0, 300, facts) is long_clip
    cut_window(long_clip, 90, 150, facts)
    assert np.array_equal(long_clip, before)


@pytest.mark.parametrize(("kind", "batch_size"), [("features", 4), ("features", 16), ("joints", 5)])
def test_every_window_gets_the_caption_that_it_gets_alone(kind, batch_size, family, long_clip):
    """Windows of 2 s, at most 1 s apart."""
    model, processor = family
    windows = plan_windows(300, 40, 20)
    if kind == "features":
        motion = long_clip
        clips = [cut_window(motion, *window, get_motion_representation("humanml3d")) for window in windows]
    else:
        motion = make_joints("humanml3d", 301)
        clips = [motion[start : end + 1] for start, end in windows]
    expected = merge_captions(windows, [caption(model, processor, clip) for clip in clips])
    assert len(expected) > 3, "equal captions test nothing"
    options = {"window": 2, "stride": 1, "batch_size": batch_size}
    segments = caption_segments(model, processor, motion, **options, **GENERATION)
    assert segments == [TimedCaption(start / 20, end / 20, said) for start, end, said in expected]
    assert segments[0].start == 0 and segments[-1].end == 15


def test_a_motion_of_one_window_gets_its_ordinary_caption(family, long_clip):
    model, processor = family
    for frames in (40, 48):  # the longest that llamo, the shortest-sighted, was trained on
        (segment,) = caption_segments(model, processor, long_clip[:frames], **GENERATION)
        assert segment == TimedCaption(0, frames / 20, caption(model, processor, long_clip[:frames]))


def test_the_window_is_what_the_model_was_trained_on(family):
    model, processor = family
    frames = window_frames(model, processor, None, GENERATION)
    assert frames == {"geomotiongpt": 9 * 8, "motiongpt3": 118, "llamo": 12 * 4}[model.config.model_type]
    assert window_frames(model, processor, frames / 20, GENERATION) == frames
    with pytest.raises(ValueError, match=rf"window is .* s; this model sees .* to {frames / 20:g} s at a time"):
        window_frames(model, processor, frames / 20 + 0.05, GENERATION)


@pytest.mark.parametrize("kind", ["geomotiongpt", "llamo"])
def test_no_window_is_longer_than_fits_beside_the_answer(
    kind, tiny_model, tiny_processor, tiny_llamo, llamo_processor
):
    shared, processor = (tiny_model, tiny_processor) if kind == "geomotiongpt" else (tiny_llamo, llamo_processor)
    model, unit = copy.deepcopy(shared), processor.feature_extractor.downsampling_factor
    setattr(model.config, "max_motion_codes" if kind == "geomotiongpt" else "max_motion_latents", 1000)
    frames = window_frames(model, processor, None, {"max_new_tokens": 30})
    assert frames % unit == 0 and frames < 128 * unit
    clip = np.random.default_rng(0).normal(size=(frames + unit, 263)).astype(np.float32)
    caption(model, processor, clip[:-unit], max_new_tokens=30)
    with pytest.raises(ValueError, match="128 positions"):
        caption(model, processor, clip, max_new_tokens=30)
    assert window_frames(model, processor, None, {"max_new_tokens": 20}) == frames + 10 * unit
    with pytest.raises(ValueError, match="an answer of 128 tokens leaves no room for a motion"):
        window_frames(model, processor, None, {"max_new_tokens": 128})


def test_a_model_that_does_not_say_what_it_was_trained_on_sees_ten_seconds(tiny_model, tiny_processor):
    assert tiny_model.config.max_frames is None
    assert window_frames(tiny_model, tiny_processor, None, GENERATION) == 200
    assert window_frames(tiny_model, tiny_processor, 20.0, GENERATION) == 400


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"window": 0.35}, "window is 0.35 s; this model sees 0.4 to"),
        ({"window": float("nan")}, "window is nan s"),
        ({"window": 2, "stride": 2.1}, "stride is 2.1 s; wanted one frame \\(0.05 s\\) up to the window, 2 s"),
        ({"stride": 0}, "stride is 0 s"),
        ({"stride": float("inf")}, "stride is inf s"),
    ],
)
def test_windows_that_cannot_be_are_refused(options, message, tiny_model, tiny_processor, long_clip):
    with pytest.raises(ValueError, match=message):
        caption_segments(tiny_model, tiny_processor, long_clip, **options)


def test_a_bad_frame_late_in_a_motion_is_named_before_anything_is_captioned(
    tiny_model, tiny_processor, tmp_path, monkeypatch
):
    monkeypatch.setattr(type(tiny_model), "generate", lambda *args, **kwargs: pytest.fail("captioned"))
    motion = np.zeros((9000, 263), np.float32)
    motion[8500, 3] = np.inf
    np.save(tmp_path / "long.npy", motion)
    mapped = np.load(tmp_path / "long.npy", mmap_mode="r", allow_pickle=False)
    for clip in (motion, mapped, torch.from_numpy(motion)):
        with pytest.raises(ValueError, match="long.npy has a NaN or infinite value, first in frame 8500"):
            caption_segments(tiny_model, tiny_processor, clip, name="long.npy")


def test_a_motion_four_times_as_long_takes_no_more_memory(tiny_model, tiny_processor, tmp_path):
    """Of arrays: 4 MB and 17 MB of motion."""
    peaks = []
    for frames in (4_000, 16_000):
        np.save(tmp_path / "motion.npy", np.random.default_rng(0).normal(size=(frames, 263)).astype(np.float32))
        mapped = np.load(tmp_path / "motion.npy", mmap_mode="r", allow_pickle=False)
        tracemalloc.start()
        options = {"window": 6.4, "stride": 6.4, "batch_size": 8, "max_new_tokens": 1}
        segments = caption_segments(tiny_model, tiny_processor, mapped, **options)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert segments[-1].end == frames / 20
    assert peaks[1] < 1.2 * peaks[0]
