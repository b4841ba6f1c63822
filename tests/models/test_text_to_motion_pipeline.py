"""pipeline("text-to-motion"): captions, sequences of captions and parts of motions in, features and joints out."""

import numpy as np
import pytest
import torch
from transformers import pipeline

from geomotiongpt import TextToMotionPipeline, features_to_joints

GREEDY = {"do_sample": False}
CAPTION = "a person walks forward"


@pytest.fixture(scope="module")
def make(tiny_model_folder) -> TextToMotionPipeline:
    return pipeline("text-to-motion", model=str(tiny_model_folder), device="cpu")


def same(results, others) -> bool:
    """Whether two results, or lists of them, hold the same motions, but for the rounding of batches."""
    if isinstance(results, dict):
        motion, other = results["motion"], others["motion"]
        return motion.shape == other.shape and np.allclose(motion, other, atol=1e-4)
    return len(results) == len(others) and all(map(same, results, others))


def codes_of(model, processor, features) -> list[int]:
    """Codes of features that are not normalised."""
    values = torch.from_numpy(processor.feature_extractor.normalise(features))[None]
    return model.motion_tokenizer.encode(values).motion_codes[0].tolist()


@pytest.fixture
def decoded(make, monkeypatch) -> list[list[int]]:
    """The codes of every motion that the pipeline's model decodes."""
    seen, decode = [], make.model.motion_tokenizer.decode

    def recording(codes):
        seen.extend([code for code in row if code >= 0] for row in codes.tolist())
        return decode(codes)

    monkeypatch.setattr(make.model.motion_tokenizer, "decode", recording)
    return seen


def test_a_caption_gives_what_the_model_makes_of_it(make, tiny_model, tiny_processor):
    assert type(make) is TextToMotionPipeline
    result = make(CAPTION, num_frames=37, **GREEDY)
    made = tiny_model.generate_motion(CAPTION, num_frames=37, processor=tiny_processor, **GREEDY)
    assert set(result) == {"motion", "joints", "num_frames"} and result["num_frames"] == 37
    expected = tiny_processor.feature_extractor.denormalise(made.motion_values[0])
    assert result["motion"].dtype == np.float32 and np.array_equal(result["motion"], expected)
    assert result["joints"].shape == (37, 22, 3)
    assert np.array_equal(result["joints"], features_to_joints(result["motion"]))


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_a_list_gives_a_list_whatever_the_batch_size(make, batch_size):
    texts = [CAPTION, "someone jumps up and down", [CAPTION, "a man sits down slowly"]]
    lengths = [40, 24, 16]
    alone = [make([text], num_frames=length, **GREEDY)[0] for text, length in zip(texts, lengths, strict=True)]
    assert [result["num_frames"] for result in alone] == [40, 24, 32], "of two captions in turn each has 16"
    assert same(make(texts, num_frames=lengths, batch_size=batch_size, **GREEDY), alone)
    assert make([]) == []


def test_a_seed_decides_and_every_text_has_draws_of_its_own(make):
    first = make([CAPTION] * 3, seed=5, num_frames=64)
    torch.manual_seed(1)
    assert same(make([CAPTION] * 3, seed=5, num_frames=64), first)
    assert same(make(CAPTION, seed=5, num_frames=64), first[0])
    assert not same(first[0], first[1]) and not same(first[1], first[2])
    assert not same(make(CAPTION, seed=6, num_frames=64), first[0])


def test_options_can_be_given_once_and_for_all(tiny_model_folder, make):
    other = pipeline("text-to-motion", model=str(tiny_model_folder), seed=5, num_samples=2)
    assert same(other(CAPTION, num_frames=24), make(CAPTION, num_frames=24, seed=5, num_samples=2))


def test_several_samples_are_a_list_for_each_text(make):
    samples = make(CAPTION, num_samples=3, seed=0, num_frames=48)
    assert len(samples) == 3 and not same(samples[0], samples[1])
    groups = make([CAPTION, "a man sits down slowly"], num_samples=2, seed=0, num_frames=[16, 24], batch_size=2)
    assert [[result["num_frames"] for result in group] for group in groups] == [[16, 16], [24, 24]]


def test_a_length_in_seconds_is_frames_at_the_frame_rate(make):
    results = make([CAPTION, CAPTION], duration=[1.5, 2], **GREEDY)
    assert [result["num_frames"] for result in results] == [30, 40]


def test_generation_arguments_are_passed_on(make, tiny_model, tiny_processor):
    made = tiny_model.generate_motion(CAPTION, num_frames=40, processor=tiny_processor, num_beams=3, do_sample=False)
    expected = tiny_processor.feature_extractor.denormalise(made.motion_values[0])
    assert np.array_equal(make(CAPTION, num_frames=40, num_beams=3)["motion"], expected)


def test_prediction_goes_on_from_files_arrays_and_joints(make, tiny_model, tiny_processor, clips, tmp_path):
    np.save(tmp_path / "clip.npy", clips[0])
    options = {"task": "motion-prediction", "num_frames": 64, **GREEDY}
    expected = make(motion=clips[0], **options)
    assert expected["num_frames"] == 64
    assert same(make(motion=tmp_path / "clip.npy", **options), expected)
    assert same(make(motion=[str(tmp_path / "clip.npy"), clips[0]], batch_size=2, **options), [expected, expected])
    assert not same(make(motion=clips[2], **options, keep=(40, 0)), expected)
    joints = features_to_joints(clips[0].astype(np.float64))
    features = tiny_processor.feature_extractor.to_features(joints)
    assert same(make(motion=joints, **options), make(motion=features, **options))


def test_given_frames_keep_their_codes(make, tiny_model, tiny_processor, clips, decoded):
    make(motion=clips[2], task="motion-prediction", keep=(24, 0), num_frames=64, seed=0)
    make(CAPTION, motion=clips[0], num_frames=64, seed=0)
    make(motion=[clips[2], clips[0]], task="motion-in-between", keep=(16, 8), seed=0, batch_size=2)
    given = [codes_of(tiny_model, tiny_processor, part) for part in (clips[2][:24], clips[0])]
    assert decoded[0][:3] == given[0] and len(decoded[0]) == 8
    assert decoded[1][:5] == given[1] and len(decoded[1]) == 8, "text-to-motion may begin with a motion"
    for codes, clip in zip(decoded[2:], (clips[2], clips[0]), strict=True):
        assert codes[:2] == codes_of(tiny_model, tiny_processor, clip[:16])
        assert codes[-1:] == codes_of(tiny_model, tiny_processor, clip[-8:])
        assert len(codes) == len(clip) // 8


def test_whole_codes_are_given_counted_from_each_end(make, clips):
    options = {"motion": clips[2], "task": "motion-in-between", **GREEDY}
    assert same(make(keep=(23, 15), **options), make(keep=(16, 8), **options))
    assert not same(make(keep=(24, 15), **options), make(keep=(16, 8), **options))
    assert not same(make(keep=(23, 16), **options), make(keep=(16, 8), **options))


def test_the_gap_of_a_motion_is_not_seen(make, clips):
    changed = clips[2].copy()
    changed[16:-16] += 1
    options = {"task": "motion-in-between", "keep": (16, 16), **GREEDY}
    assert same(make(motion=changed, **options), make(motion=clips[2], **options))


def test_unconditional_motions_need_nothing(make):
    assert make(task="unconditional", num_frames=24, seed=1)["num_frames"] == 24
    assert len(make(task="unconditional", num_samples=2, seed=1)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "text-to-motion is about captions"),
        ({"text": CAPTION, "num_frames": 20, "duration": 1.0}, "give one of them"),
        ({"text": CAPTION, "num_frames": 0}, "0 frames are asked for"),
        ({"text": CAPTION, "duration": 0.01}, r"duration is 0.01 s; ask for one frame \(0.05 s\) or more"),
        ({"text": CAPTION, "duration": -3.0}, "duration is -3.0 s"),
        ({"text": CAPTION, "duration": float("nan")}, "duration is nan s"),
        ({"text": CAPTION, "duration": float("inf")}, "duration is inf s"),
        ({"text": CAPTION, "seed": -1}, "seed is -1; it must be 0 or more"),
        ({"text": [CAPTION, CAPTION], "num_frames": [8, 8, 8]}, "3 lengths for 2 results"),
        ({"text": [CAPTION] * 3, "motion": ["a.npy", "b.npy"]}, "2 motions for 3 results"),
        ({"text": CAPTION, "num_samples": 3, "do_sample": False}, "num_samples is 3 and do_sample False"),
        ({"text": CAPTION, "num_samples": 0}, "num_samples is 0"),
        ({"text": CAPTION, "task": "motion-to-text"}, "'motion-to-text' answers with text; this pipeline makes"),
        ({"text": CAPTION, "task": "dance"}, "unknown task 'dance'"),
        ({"text": CAPTION, "task": "unconditional"}, "'unconditional' has no use for `text`"),
        ({"task": "motion-prediction"}, "'motion-prediction' goes on from a motion: give `motion`"),
        ({"text": CAPTION, "keep": (8, 8)}, "there is no `motion` to keep frames of"),
        ({"motion": "CLIP", "task": "unconditional"}, "has no use for `motion`"),
        ({"motion": "CLIP", "task": "motion-in-between"}, "give `keep`"),
        ({"motion": "CLIP", "task": "motion-in-between", "keep": (16, 16), "num_frames": 48}, "sets the length"),
        ({"motion": "CLIP", "task": "motion-in-between", "keep": (16, 4)}, "has 8 frames or more"),
        ({"motion": "CLIP", "task": "motion-in-between", "keep": (16, 24)}, "CLIP has 40 frames; keep asks for 16"),
        ({"motion": "CLIP", "task": "motion-prediction", "keep": (16, 8)}, "given a beginning only"),
        ({"motion": "CLIP", "task": "motion-prediction", "keep": (48, 0)}, "CLIP has 40 frames; keep asks for 48"),
        ({"motion": "CLIP", "task": "motion-prediction", "num_frames": 32}, "32 frames are asked for, but 40"),
        ({"motion": "nowhere.npy", "task": "motion-prediction"}, "nowhere.npy: no such motion file"),
    ],
)
def test_what_cannot_be_made_is_said(arguments, message, make, clips, tmp_path):
    path = tmp_path / "clip.npy"
    np.save(path, clips[0])
    if arguments.get("motion") == "CLIP":
        arguments = {**arguments, "motion": str(path)}
    with pytest.raises((ValueError, FileNotFoundError), match=message.replace("CLIP", str(path))):
        make(**arguments)


def test_temperature_0_is_greedy_and_lengths_may_be_arrays(make):
    expected = make(CAPTION, num_frames=24, **GREEDY)
    assert same(make(CAPTION, num_frames=24, temperature=0), expected)
    several = make([CAPTION, CAPTION], duration=np.array([1.2, 1.2]), temperature=0)
    assert same(several, [expected, expected])
