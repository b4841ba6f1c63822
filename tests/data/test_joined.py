"""Joining built folders: ids, files, statistics, weights, and what cannot be joined."""

import re
from pathlib import Path

import numpy as np
import pytest
from motion_files import write_source

from geomotiongpt.cli import main
from geomotiongpt.data.builder import build_motion_dataset
from geomotiongpt.data.joined import data_set_of, join_motion_folders, weighted_rows
from geomotiongpt.data.loader import load_motion_dataset, load_motion_statistics
from geomotiongpt.training.arguments import MotionDataArguments
from geomotiongpt.training.motion_tokenizer import load_split


def build(tmp_path: Path, name: str, splits: dict[str, list[str]], **options) -> Path:
    source = write_source(tmp_path / f"{name}-source", splits)
    build_motion_dataset(source, tmp_path / name, show_progress=False, **options)
    return tmp_path / name


@pytest.fixture
def first(tmp_path) -> Path:
    return build(tmp_path, "first", {"train": ["a0", "a1"], "val": ["b0"]})


@pytest.fixture
def second(tmp_path) -> Path:
    """Two of its ids are ids of the other; it has no mirrored clips, and a split of its own."""
    return build(tmp_path, "second", {"train": ["a0", "M7"], "test_unseen": ["a1"]}, mirror=False)


def test_clips_keep_their_files_under_ids_of_their_own(first, second, tmp_path):
    joined = tmp_path / "joined"
    assert join_motion_folders({"x": first, "y-2": second}, joined) == {"train": 6, "val": 2, "test_unseen": 1}
    assert (joined / "train.txt").read_text().split() == ["x_a0", "x_a1", "Mx_a0", "Mx_a1", "y-2_a0", "y-2_M7"]
    for folder, suffix in (("new_joint_vecs", ".npy"), ("new_joints", ".npy"), ("texts", ".txt")):
        for new, (old, clip_id) in {"Mx_a1": (first, "Ma1"), "y-2_M7": (second, "M7")}.items():
            assert (joined / folder / f"{new}{suffix}").read_bytes() == (
                old / folder / f"{clip_id}{suffix}"
            ).read_bytes()
    loaded = load_motion_dataset(joined, "train", mirrored=False)
    assert sorted(loaded["motion_id"]) == ["x_a0", "x_a1", "y-2_M7", "y-2_a0"]


def test_the_statistics_are_those_of_all_training_clips(first, second, tmp_path):
    joined = tmp_path / "joined"
    join_motion_folders({"x": first, "y": second}, joined)
    rows = np.concatenate(
        [np.load(joined / "new_joint_vecs" / f"{i}.npy") for i in ("x_a0", "x_a1", "Mx_a0", "Mx_a1")]
    )
    rows = np.concatenate([rows, *(np.load(second / "new_joint_vecs" / f"{i}.npy") for i in ("a0", "M7"))])
    np.testing.assert_allclose(load_motion_statistics(joined)[0], rows.mean(0), atol=1e-5)


def test_a_joined_folder_can_be_joined_again_and_later_changes_do_not_reach_it(first, second, tmp_path):
    joined = tmp_path / "joined"
    join_motion_folders({"x": first, "y": second}, joined)
    before = (joined / "texts" / "x_a0.txt").read_bytes()
    (tmp_path / "first-source" / "texts" / "a0.txt").write_text("he stops.#he/PRON stop/VERB#0.0#0.0\n")
    build_motion_dataset(tmp_path / "first-source", first, show_progress=False)
    assert (joined / "texts" / "x_a0.txt").read_bytes() == before
    join_motion_folders({"x": first, "y": second}, joined)
    assert (joined / "texts" / "x_a0.txt").read_text().startswith("he stops.")


def test_an_epoch_shows_a_clip_as_often_as_its_weight_says(first, second, tmp_path):
    joined = tmp_path / "joined"
    join_motion_folders({"x": first, "y": second}, joined)
    data = MotionDataArguments(str(joined), mirrored=False, weights={"y": 3})
    ids = load_split(data, "train", 2)["motion_id"]
    assert sorted(ids) == ["x_a0", "x_a1", *["y_M7"] * 3, *["y_a0"] * 3]
    assert load_split(data, "val", 2)["motion_id"] == ["x_b0"]  # of an evaluation split each clip counts once


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"y": 0}, "data.weights has {'y': 0}; give whole numbers, 1 or more"),
        ({"y": 1.5}, "data.weights has {'y': 1.5}; give whole numbers"),
        ({"z": 2}, "data.weights names z; the data sets of this folder are x, y"),
    ],
)
def test_weights_that_mean_nothing_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        weighted_rows(["x_a0", "Mx_a0", "y_M7"], weights)


def test_weights_of_a_folder_that_is_not_joined_are_refused():
    with pytest.raises(ValueError, match="are none, for it is not a joined folder"):
        weighted_rows(["000001", "M000001"], {"x": 2})
    assert [data_set_of(i) for i in ("x_a0", "Mx_a0", "x_a0#1-9", "M000001")] == ["x", "x", "x", ""]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["x"], "1 data set is given; give two or more"),
        (["x", "My"], "'My' cannot stand before an id"),
        (["x", "a_b"], "'a_b' cannot stand before an id"),
    ],
)
def test_names_that_cannot_be_told_apart_are_refused(names, message, first, second, tmp_path):
    with pytest.raises(ValueError, match=message):
        join_motion_folders(dict(zip(names, (first, second), strict=False)), tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


def test_what_cannot_be_joined_is_refused_and_leaves_no_complete_folder(first, second, tmp_path):
    joined = tmp_path / "joined"
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder; join what `geomotiongpt build-data` wrote"):
        join_motion_folders({"x": first, "y": tmp_path / "nowhere"}, joined)
    with pytest.raises(ValueError, match="motions have 263 features, those of kitml 251"):
        join_motion_folders({"x": first, "y": second}, joined, "kitml")
    with pytest.raises(ValueError, match="the output folder is one of those to join"):
        join_motion_folders({"x": first, "y": second}, second)
    (second / "texts" / "a1.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"a1.txt is missing, but a1 is in a split list of"):
        join_motion_folders({"x": first, "y": second}, joined)
    assert not joined.exists()
    join_motion_folders({"x": first, "y": first}, joined)
    with pytest.raises(ValueError, match="new_joint_vecs holds .*, which none of the data sets has: choose a new"):
        join_motion_folders({"p": first, "q": first}, joined)


def test_the_command_joins_and_refuses(first, second, tmp_path, capsys):
    joined = tmp_path / "joined"
    assert main(["build-data", "join", str(joined), f"x={first}", f"y={second}"]) == 0
    assert capsys.readouterr().out == f"{joined}: train 6, val 2, test_unseen 1 clips\n"
    for arguments, message in (
        (["join", str(joined), str(first)], "cannot read .*; write NAME=FOLDER"),
        (["join", str(joined), f"x={first}", f"x={second}"], "two data sets are called 'x'"),
        (
            ["join", str(joined), f"x={first}", f"y={second}", "--no-mirror"],
            "--no-mirror: no effect on `build-data",
        ),
        ([str(first), str(joined), f"x={first}"], "x=.*first: one folder to write is enough"),
    ):
        assert main(["build-data", *arguments]) == 2
        assert re.search(message, capsys.readouterr().err)
