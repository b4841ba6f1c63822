"""pipeline("motion-to-text"): files, arrays and lists of either in, captions out."""

import copy

import numpy as np
import pytest
from transformers import pipeline

from geomotiongpt import MotionToTextPipeline, caption_segments, features_to_joints

GENERATION = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}


@pytest.fixture(scope="module")
def describe(tiny_model_folder) -> MotionToTextPipeline:
    return pipeline("motion-to-text", model=str(tiny_model_folder), device="cpu")


@pytest.fixture(scope="module")
def captions(tiny_model, tiny_processor, clips) -> list[dict[str, str]]:
    """What model and processor give for each clip on its own."""
    results = []
    for clip in clips:
        inputs = tiny_processor(motion=clip)
        generated = tiny_model.generate(**inputs, **GENERATION)
        texts = tiny_processor.post_process_text(generated, inputs["input_ids"].shape[1])
        results += [{"generated_text": text} for text in texts]
    assert len({result["generated_text"] for result in results}) == len(clips), "equal captions test nothing"
    return results


@pytest.fixture
def files(clips, tmp_path) -> list[str]:
    """The clips as `.npy` files."""
    paths = [tmp_path / f"clip{index}.npy" for index in range(len(clips))]
    for path, clip in zip(paths, clips, strict=True):
        np.save(path, clip)
    return [str(path) for path in paths]


def test_a_file_or_an_array_gives_a_caption(describe, captions, clips, files, tmp_path):
    assert type(describe) is MotionToTextPipeline
    for motion in (files[0], tmp_path / "clip0.npy", clips[0]):
        assert describe(motion, **GENERATION) == captions[0]


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_a_list_gives_a_list_whatever_the_batch_size(describe, captions, clips, files, batch_size):
    assert describe(files, batch_size=batch_size, **GENERATION) == captions
    assert describe(clips, batch_size=batch_size, **GENERATION) == captions


def test_joints_give_the_caption_of_their_features(describe, clips, tiny_processor, tmp_path):
    joints = features_to_joints(clips[0].astype(np.float64))
    features = tiny_processor.feature_extractor.to_features(joints)
    assert features.shape == (len(joints) - 1, 263)
    np.save(tmp_path / "joints.npy", joints)
    wanted = describe(features, **GENERATION)
    assert describe([joints, str(tmp_path / "joints.npy")], **GENERATION) == [wanted, wanted]


def test_generation_arguments_are_passed_on(describe, clips, tiny_model, tiny_processor):
    inputs = tiny_processor(motion=clips[0])
    generated = tiny_model.generate(**inputs, max_new_tokens=5, num_beams=3, do_sample=False)
    (text,) = tiny_processor.post_process_text(generated, inputs["input_ids"].shape[1])
    assert describe(clips[0], max_new_tokens=5, num_beams=3, do_sample=False) == {"generated_text": text}


@pytest.mark.parametrize("batch_size", [1, 2])
def test_several_captions_stay_with_their_motion(describe, clips, batch_size):
    options = {**GENERATION, "num_beams": 3, "num_return_sequences": 3}
    results = describe(clips, batch_size=batch_size, **options)
    assert results == [describe(clip, **options) for clip in clips]
    best = describe(clips, **GENERATION, num_beams=3)
    assert [candidates[0] for candidates in results] == best and all(len(candidates) == 3 for candidates in results)
    with pytest.raises(ValueError, match="num_return_sequences: a segment has one caption"):
        describe(clips[0], segments=True, **options)


def test_unreadable_files_are_named(describe, files, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npy: no such motion file"):
        describe(str(tmp_path / "nowhere.npy"))
    truncated = tmp_path / "truncated.npy"
    truncated.write_bytes((tmp_path / "clip0.npy").read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"truncated\.npy is not a readable \.npy"):
        describe([files[1], str(truncated)], **GENERATION)
    pickled = tmp_path / "pickled.npy"
    np.save(pickled, np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"pickled\.npy is not a readable \.npy"):
        describe(str(pickled))
    large = tmp_path / "large.npy"
    np.lib.format.open_memmap(tmp_path / "small.npy", "w+", np.float32, (30, 263)).flush()
    content = (tmp_path / "small.npy").read_bytes()
    assert b"(30, 263), }         " in content
    large.write_bytes(content.replace(b"(30, 263), }         ", b"(30000000000, 263), }"))
    with pytest.raises(ValueError, match=r"large\.npy is not a readable \.npy"):
        describe(str(large))
    for other in ("walk.bvh", "walk.npz"):
        (tmp_path / other).write_bytes(b"HIERARCHY")
        with pytest.raises(ValueError, match=r"is no \.npy file; of another file give geomotiongpt.import_motion\('"):
            describe(str(tmp_path / other))
    (tmp_path / "text.npy").write_bytes(b"HIERARCHY")
    with pytest.raises(ValueError) as raised:
        describe(str(tmp_path / "text.npy"))
    assert "does not begin like one" in str(raised.value) and "allow_pickle" not in str(raised.value)


def test_nothing_gives_nothing(describe):
    assert describe([]) == describe([], segments=True) == []


def test_a_motion_longer_than_in_training_is_warned_of(tiny_model, tiny_processor, clips, caplog):
    describe = pipeline("motion-to-text", model=copy.deepcopy(tiny_model), processor=tiny_processor, device="cpu")
    longest = max(clips, key=len)
    codes, rest = divmod(len(longest), tiny_processor.feature_extractor.downsampling_factor)
    assert rest, "the last frames are not encoded"
    for most, warnings in ((None, 0), (codes, 0), (codes - 1, 1)):
        caplog.clear()
        describe.model.config.max_motion_codes = most
        describe({"motion": longest, "name": "a.npy"}, **GENERATION)
        told = [text for text in caplog.messages if "longest motion in training" in text]
        assert len(told) == warnings and all("a.npy has" in text and "--segments" in text for text in told)


def test_unusable_motions_are_named_by_file(describe, clips, tmp_path):
    for name, motion, problem in (
        ("wide", np.zeros((30, 251)), r"wide\.npy has shape \(30, 251\)"),
        ("short", clips[0][:7], r"short\.npy has 7 frames"),
        ("broken", np.full((30, 263), np.nan), r"broken\.npy has a NaN"),
        ("endless", np.zeros((10_000, 263), np.float32), r"endless\.npy takes \d+ tokens"),
    ):
        np.save(tmp_path / f"{name}.npy", motion)
        with pytest.raises(ValueError, match=problem):
            describe(str(tmp_path / f"{name}.npy"))


def test_segments_of_files_arrays_and_lists(describe, tiny_model, tiny_processor, clips, files):
    """Windows of 2 s: of the clips of 2, 0.8 and 3.35 s the last has three."""
    options = {"window": 2, "stride": 1, **GENERATION}
    expected = [
        {"segments": [part._asdict() for part in caption_segments(tiny_model, tiny_processor, clip, **options)]}
        for clip in clips
    ]
    assert [len(result["segments"]) for result in expected] == [1, 1, 3]
    (whole,) = expected[0]["segments"]
    assert whole == {"start": 0, "end": 2, "caption": describe(clips[0], **GENERATION)["generated_text"]}
    for motion in (files[2], clips[2]):
        assert describe(motion, segments=True, **options) == expected[2]
    for motions in (files, clips):
        assert describe(motions, segments=True, batch_size=2, **options) == expected


def test_windows_without_segments_are_refused(describe, clips, files, tmp_path):
    with pytest.raises(ValueError, match="window, progress: no effect without segments=True"):
        describe(clips[0], window=2, progress=True)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npy: no such motion file"):
        describe(str(tmp_path / "nowhere.npy"), segments=True)
    np.save(tmp_path / "wide.npy", np.zeros((30, 251)))
    with pytest.raises(ValueError, match=r"wide\.npy has shape \(30, 251\)"):
        describe(str(tmp_path / "wide.npy"), segments=True)
