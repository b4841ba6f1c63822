"""The Bandai-Namco Research release: what its file names say becomes captions, labels and splits."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from geomotiongpt.data.bandai import ACTIONS, STYLES, UNSEEN_PAIRS, build_bandai, captions_of, labels, split_of
from geomotiongpt.data.bvh import Bvh, write_bvh
from geomotiongpt.data.loader import load_motion_dataset
from geomotiongpt.evaluation.attributes import AttributeWords, attribute_accuracy
from geomotiongpt.models.motion_representation import get_motion_representation

SKELETON = get_motion_representation("humanml3d")


def write_walk(path: Path, speed: float = 1.0, frames: int = 60) -> None:
    """A figure of 22 joints in centimetres that slides along at so many metres a second, 30 frames per second."""
    offsets = 25.0 * np.array(SKELETON.raw_offsets)
    channels = ("Xposition", "Yposition", "Zposition", "Zrotation", "Xrotation", "Yrotation")
    values = np.zeros((frames, 6 + 3 * 21))
    values[:, 1], values[:, 2] = 100.0, 100.0 * speed * np.arange(frames) / 30
    path.parent.mkdir(parents=True, exist_ok=True)
    every = (channels, *[channels[3:]] * 21)
    write_bvh(Bvh(SKELETON.joint_names, SKELETON.parents, offsets, every, 1 / 30, values), path)


@pytest.fixture
def release(tmp_path) -> Path:
    folder = tmp_path / "release"
    for number in range(1, 13):
        write_walk(folder / f"dataset-2/data/dataset-2_walk_sad_{number:03d}.bvh", frames=60 + number)
    write_walk(folder / "dataset-2/data/dataset-2_walk_masculinity_001.bvh")
    write_walk(folder / "dataset-1/data/dataset-1_byebye_old_001.bvh")
    write_walk(folder / "dataset-1/data/dataset-1_fly_old_001.bvh")
    (folder / "dataset-1/data/dataset-1_bow_normal_001.bvh").write_text("HIERARCHY\nROOT")
    return folder


def test_the_release_becomes_a_data_set_with_captions_and_splits(release, tmp_path):
    report = build_bandai(release, tmp_path / "built", show_progress=False)
    reasons = dict(report.left_out)
    assert sorted(reasons) == ["dataset-1_bow_normal_001", "dataset-1_fly_old_001"]
    assert "its name is not that of a known action" in reasons["dataset-1_fly_old_001"]
    assert "dataset-1_bow_normal_001.bvh" in reasons["dataset-1_bow_normal_001"]
    unseen = load_motion_dataset(tmp_path / "built", "test_unseen", mirrored=False)
    assert unseen["motion_id"] == ["dataset-2_walk_masculinity_001"]
    assert len(unseen["motion"][0]) == 39  # two seconds at 20 frames per second
    train = load_motion_dataset(tmp_path / "built", "train", mirrored=False)
    assert all(len(set(captions)) == 3 for captions in train["captions"])
    again = build_bandai(release, tmp_path / "built", show_progress=False)
    assert again.written == 0 and again.reused == report.written


def test_the_labels_beside_it_read_the_captions(release, tmp_path):
    build_bandai(release, tmp_path / "built", show_progress=False)
    reader = AttributeWords.from_labels(json.loads((tmp_path / "built" / "labels.json").read_text()))
    for action, style in ((action, style) for action in ACTIONS for style in STYLES if action != "dance-long"):
        captions = [each.caption for each in captions_of(f"{action}_{style}", action, style, np.zeros((40, 3)))]
        shown = reader.read(captions[0])
        assert shown["action"] == action and shown["style"] == style, captions[0]
    assert set(labels()["style"]) == set(STYLES)
    assert attribute_accuracy(["a man bows."], [["someone bends forward to bow."]], reader)["action"]["mean"] == 1
    assert json.loads((tmp_path / "built" / "labels.json").read_text()) == json.loads(json.dumps(labels()))


@pytest.mark.parametrize(
    ("metres", "seconds", "said", "never"),
    [
        (8.4, 2.5, {"eight", "quickly"}, {"slowly"}),
        (3.0, 6.0, {"three", "slowly"}, {"quickly"}),
        (0.5, 2.0, set(), {"meters", "slowly"}),
    ],
)
def test_captions_say_how_far_and_how_fast_only_where_it_is_so(metres, seconds, said, never):
    frames = int(20 * seconds) + 1
    root = np.zeros((frames, 3))
    root[:, 2] = np.linspace(0, metres, frames)
    segments = [each for number in range(40) for each in captions_of(f"clip{number}", "walk", "sad", root)]
    words = {word for each in segments for word in each.caption.rstrip(".").split()}
    assert said <= words and not never & words
    for each in segments:
        assert [token.rpartition("/")[0] for token in each.tokens] == each.caption.rstrip(".").split()


def test_the_splits_follow_from_the_names():
    names = [f"dataset-2_run_sad_{number:03d}" for number in range(2000)]
    counts = Counter(split_of(name, "run", "sad") for name in names)
    assert 0.8 < counts["train"] / 2000 < 0.88 and 0.03 < counts["val"] / 2000 < 0.08
    assert all(split_of("x", *pair) == "test_unseen" for pair in UNSEEN_PAIRS)


def test_a_folder_without_the_release_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder; give the one with the BVH files"):
        build_bandai(tmp_path / "nowhere", tmp_path / "built")
    write_walk(tmp_path / "walk.bvh")
    with pytest.raises(FileNotFoundError, match="no BVH file below it is called as in dataset-1_walk_normal_001.bvh"):
        build_bandai(tmp_path, tmp_path / "built")
    assert not (tmp_path / "built").exists()
