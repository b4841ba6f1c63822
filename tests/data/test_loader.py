"""Loading motions: items, segments, what is left out and why, the cache, parquet, and bad folders."""

import logging
import os

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, disable_progress_bars
from motion_files import CAPTIONS, full_disk, write_finished, write_split_lists

from geomotiongpt.data.loader import load_motion_dataset, load_motion_statistics, motion_dataset_summary

SPLITS = {"train": ["000001", "000002", "M000001"], "val": ["000003"], "test_unseen": ["000004"]}


@pytest.fixture(autouse=True)
def quiet():
    disable_progress_bars()


@pytest.fixture
def folder(tmp_path):
    return write_finished(tmp_path / "motions", SPLITS)


@pytest.fixture
def load(tmp_path):
    def load(path, split=None, representation="humanml3d", **options):
        return load_motion_dataset(path, split, representation, **{"cache_dir": tmp_path / "cache"} | options)

    return load


def write_texts(folder, motion_id, *lines):
    (folder / f"texts/{motion_id}.txt").write_text("".join(f"{line}\n" for line in lines))


def test_every_split_list_becomes_a_split(folder, load):
    motions = load(folder)
    assert isinstance(motions, DatasetDict)
    assert {name: split["motion_id"][:] for name, split in motions.items()} == SPLITS
    train = load(folder, "train")
    assert isinstance(train, Dataset) and train.column_names == ["motion_id", "motion", "captions", "tokens"]
    item = train[1]
    assert item["motion_id"] == "000002" and item["captions"] == ["a person raises the left hand."]
    assert item["tokens"] == ["a/DET person/NOUN raise/VERB the/DET left/ADJ hand/NOUN"]
    assert item["motion"].dtype == np.float32
    np.testing.assert_array_equal(item["motion"], np.load(folder / "new_joint_vecs/000002.npy"))


def test_kit_folder(tmp_path, load):
    folder = write_finished(tmp_path / "kit", {"train": ["00001"]}, "kitml")
    write_texts(folder, "00001", "a human walks#human/NOUN walk/VERB#0.0#0.0", "a human stops#stop/VERB#1.0#3.0")
    train = load(folder, "train", "kitml")
    assert train["motion_id"][:] == ["00001", "00001#12-37"]  # 12.5 frames a second
    assert train[0]["motion"].shape == (50, 251)


def test_streaming_folder(tmp_path, load):
    folder = write_finished(tmp_path / "streaming", {"train": ["00001"]}, "streaming272")
    write_texts(folder, "00001", "a human walks#human/NOUN walk/VERB#0.0#0.0", "a human stops#stop/VERB#0.5#1.5")
    train = load(folder, "train", "streaming272")
    assert train["motion_id"][:] == ["00001", "00001#15-45"]  # 30 frames a second
    assert train[0]["motion"].shape == (50, 272)


def test_parts_of_a_clip_become_items_with_ids_of_their_own(folder, load):
    write_texts(
        folder,
        "000001",
        "walks then sits#walk/VERB#0.0#0.0",
        "walks#walk/VERB#0.0#1.52",
        "a man walks#walk/VERB#0.02#1.5",
        "sits#sit/VERB#1.5#9.0",
        "goes and sits#sit/VERB#nan#nan",
    )
    write_texts(folder, "000002", "only a part#part/NOUN#0.5#1.0")
    train = load(folder, "train")
    assert dict(zip(train["motion_id"], train["captions"], strict=True)) == {
        "000001": ["walks then sits", "goes and sits"],
        "000001#0-30": ["walks", "a man walks"],
        "000001#30-50": ["sits"],
        "000002#10-20": ["only a part"],
        "M000001": ["a person raises the left hand."],
    }
    assert train["tokens"][:2] == [["walk/VERB", "sit/VERB"], ["walk/VERB", "walk/VERB"]]
    whole = np.load(folder / "new_joint_vecs/000001.npy")
    np.testing.assert_array_equal(train[2]["motion"], whole[30:50])
    summary = motion_dataset_summary(train)
    assert (summary.clips, summary.items, summary.captions, summary.left_out) == (3, 5, 7, {})


def test_length_limits_are_inclusive_and_hold_for_parts_too(folder, load):
    for motion_id, num_frames in (("000001", 40), ("000002", 39), ("M000001", 61)):
        np.save(folder / f"new_joint_vecs/{motion_id}.npy", np.zeros((num_frames, 263), np.float32))
    write_texts(folder, "M000001", "walks#walk/VERB#0.0#0.0", "stops#stop/VERB#0.0#3.0")
    train = load(folder, "train", min_frames=40, max_frames=60)
    assert train["motion_id"][:] == ["000001", "M000001#0-60"]
    left_out = {"shorter than 40 frames": ["000002 (39)"], "longer than 60 frames": ["M000001 (61)"]}
    assert motion_dataset_summary(train).left_out == left_out
    assert len(load(folder, "train")) == 4


def test_mirrored_clips_can_be_left_out(folder, load):
    write_split_lists(folder, {"train": [*SPLITS["train"], "Marta"]})
    write_texts(folder, "Marta", "no mirrored clip#clip/NOUN#0.0#0.0")
    np.save(folder / "new_joint_vecs/Marta.npy", np.zeros((50, 263), np.float32))
    train = load(folder, "train", mirrored=False)
    assert train["motion_id"][:] == ["000001", "000002", "Marta"]
    assert motion_dataset_summary(train).left_out == {"mirrored": ["M000001"]}


@pytest.mark.parametrize("num_proc", [None, 2])
def test_everything_left_out_is_counted_and_named(folder, load, caplog, num_proc):
    vectors = folder / "new_joint_vecs"
    rows = np.zeros((50, 263), np.float32)
    nan = rows.copy()
    nan[3:5, 7] = np.nan
    bad = {"nan": nan, "wide": rows[:, :251], "short": rows[:1], "flat": rows[0], "mute": rows, "empty": rows}
    for name, values in (bad | {"binary": rows}).items():
        np.save(vectors / f"{name}.npy", values)
        write_texts(folder, name, CAPTIONS.strip())
    (vectors / "truncated.npy").write_bytes((vectors / "000001.npy").read_bytes()[:-1])
    for name in ("truncated", "motionless"):
        write_texts(folder, name, CAPTIONS.strip())
    (folder / "texts/mute.txt").unlink()
    (folder / "texts/empty.txt").write_text("\n")
    (folder / "texts/binary.txt").write_bytes(b"\xff\xfe\n")
    beyond = "late#late/ADV#7.0#9.0"
    write_texts(folder, "000001", CAPTIONS.strip(), "broken line", beyond, "backwards#back/ADV#2.0#1.0")
    write_split_lists(folder, {"train": ["000001", *bad, "binary", "truncated", "motionless", "000002", "000002"]})

    with caplog.at_level(logging.INFO):
        train = load(folder, "train", num_proc=num_proc)
    assert train["motion_id"][:] == ["000001", "000002"]
    summary = motion_dataset_summary(train)
    assert (summary.clips, summary.items, summary.captions) == (11, 2, 2)
    wanted = {
        "listed again": ["000002"],
        "malformed caption line": ["texts/000001.txt:2: 1 fields"],
        "segment of fewer than 2 frames": ["000001 (7.0 to 9.0 s in a clip of 50", "000001 (2.0 to 1.0 s"],
        "unusable motion file": [
            "new_joint_vecs/nan.npy: NaN or infinity in 2 of 50",
            "new_joint_vecs/truncated.npy: not",
        ],
        "wrong width": ["new_joint_vecs/wide.npy: shape (50, 251), wanted (frames, 263)", "new_joint_vecs/flat.npy"],
        "fewer than 2 frames": ["new_joint_vecs/short.npy: 1"],
        "no caption file": ["texts/mute.txt"],
        "no usable caption": ["empty"],
        "unreadable caption file": [f"{folder}/texts/binary.txt: not UTF-8"],
        "no motion file": ["new_joint_vecs/motionless.npy"],
    }
    assert summary.left_out.keys() == wanted.keys()
    for reason, names in wanted.items():
        found = summary.left_out[reason]
        assert len(found) == len(names) and all(f.startswith(n) for f, n in zip(found, names, strict=True)), found
    assert "left out: no motion file: 1 (new_joint_vecs/motionless.npy)" in caplog.text


def test_clip_of_10000_frames_is_loaded(folder, load):
    rows = np.random.default_rng(0).normal(size=(10_000, 263)).astype(np.float32)
    np.save(folder / "new_joint_vecs/000003.npy", rows)
    np.testing.assert_array_equal(load(folder, "val")[0]["motion"], rows)


def test_missing_parts_are_named(folder, tmp_path, load):
    for path in (tmp_path / "nowhere", "./nowhere", "nowhere", "/a/b"):
        with pytest.raises(FileNotFoundError, match=f"{path}: no such folder"):
            load(path)
    with pytest.raises(FileNotFoundError, match=r"test\.txt: no such split list; .*: train, val, test_unseen"):
        load(folder, "test")
    with pytest.raises(ValueError, match="known|humanml3d"):
        load(folder, "train", "smpl")
    (folder / "val.txt").write_text("")
    with pytest.raises(ValueError, match=r"val\.txt: the split is empty"):
        load(folder, "val")
    (folder / "val.txt").write_text("motionless\n")
    with pytest.raises(ValueError, match=r"no usable item in the split\n.*\n.*no motion file: 1 \(.*motionless\.npy"):
        load(folder, "val")
    for name in SPLITS:
        (folder / f"{name}.txt").unlink()
    with pytest.raises(FileNotFoundError, match="no split list"):
        load(folder)
    (folder / "texts").rename(folder / "text")
    with pytest.raises(FileNotFoundError, match="motions/texts: no such folder"):
        load(folder)
    (tmp_path / "blank").mkdir()
    with pytest.raises(FileNotFoundError, match="blank: no motion data; wanted new_joint_vecs/"):
        load(tmp_path / "blank")


def test_cache_is_reused_while_nothing_changes(folder, load, tmp_path):
    write_texts(folder, "000002", CAPTIONS.strip(), "broken")
    first = load(folder, "train")
    [file] = [entry["filename"] for entry in first.cache_files]
    written = os.stat(file).st_mtime_ns
    again = load(folder, "train", num_proc=2)
    assert [entry["filename"] for entry in again.cache_files] == [file] and os.stat(file).st_mtime_ns == written
    assert again._fingerprint == first._fingerprint
    summary = motion_dataset_summary(again)
    assert summary == motion_dataset_summary(first) and len(summary.left_out["malformed caption line"]) == 1
    for path in (tmp_path / "cache/motion_summaries").iterdir():
        path.unlink()
    assert motion_dataset_summary(load(folder, "train")) == summary


def test_cache_notices_changed_files_and_settings(folder, load):
    seen = {load(folder, "train")._fingerprint}

    def reload(**options):
        dataset = load(folder, "train", **options)
        assert dataset._fingerprint not in seen
        seen.add(dataset._fingerprint)
        return dataset

    text, vectors = folder / "texts/000002.txt", folder / "new_joint_vecs/000002.npy"
    text.write_text(CAPTIONS.replace("left", "next"))  # the same size
    assert reload()[1]["captions"] == ["a person raises the next hand."]
    np.save(vectors, np.full((50, 263), 3, np.float32))
    assert (reload()[1]["motion"] == 3).all()
    vectors.unlink()
    assert reload()["motion_id"][:] == ["000001", "M000001"]
    (folder / "train.txt").write_text("M000001\n000001\n")
    assert reload()["motion_id"][:] == ["M000001", "000001"]
    assert reload(mirrored=False)["motion_id"][:] == ["000001"]
    write_texts(folder, "000001", CAPTIONS.strip(), "a part#part/NOUN#0.0#1.0")
    assert len(reload()) == 3
    assert len(reload(min_frames=21)) == 2
    assert reload(max_frames=20)["motion_id"][:] == ["000001#0-20"]


def test_processes_give_the_same_items_in_the_same_order(folder, load, tmp_path):
    alone = load(folder, "train")
    together = load(folder, "train", num_proc=3, cache_dir=tmp_path / "other")
    assert together["motion_id"][:] == alone["motion_id"][:] == SPLITS["train"]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one["motion"], other["motion"])


@pytest.mark.parametrize("how", ["parquet", "save_to_disk"])
def test_stored_datasets_come_back_whole(folder, load, tmp_path, how):
    np.save(folder / "new_joint_vecs/000002.npy", np.ones((10, 263), np.float32))
    write_texts(folder, "M000001", CAPTIONS.strip(), "a part#part/NOUN#0.0#1.0")
    motions = load(folder)
    stored = tmp_path / "stored"
    if how == "parquet":
        (stored / "data").mkdir(parents=True)
        for name, split in motions.items():
            split.to_parquet(stored / f"data/{name}-00000-of-00001.parquet")
    else:
        motions.save_to_disk(stored)
    loaded = load(stored)
    assert loaded.keys() == motions.keys()
    for name, split in loaded.items():
        assert split.features == motions[name].features
        for item, original in zip(split, motions[name], strict=True):
            assert item["motion"].dtype == np.float32
            np.testing.assert_array_equal(item.pop("motion"), original.pop("motion"))
            assert item == original
    part = load(stored, "train", min_frames=20, max_frames=49)
    assert part["motion_id"][:] == ["M000001#0-20"] and part[0]["motion"].shape == (20, 263)
    left_out = {"longer than 49 frames": ["000001 (50)", "M000001 (50)"], "shorter than 20 frames": ["000002 (10)"]}
    assert motion_dataset_summary(part).left_out == left_out
    assert load(stored, "train", mirrored=False)["motion_id"][:] == ["000001", "000002"]
    with pytest.raises(FileNotFoundError, match="no split 'test'; splits there: "):
        load(stored, "test")
    with pytest.raises(ValueError, match="wanted Array2D of width 251 for kitml"):
        load(stored, "train", "kitml")


def test_mirrored_clips_of_stored_data_are_known_where_every_caption_is_of_a_part(folder, load, tmp_path):
    for name in SPLITS["train"]:
        write_texts(folder, name, "a part#part/NOUN#0.0#1.0")
    load(folder).save_to_disk(tmp_path / "stored")
    assert any(name.startswith("M") for name in load(tmp_path / "stored", "train")["motion_id"])
    for path in (folder, tmp_path / "stored"):
        assert not any(name.startswith("M") for name in load(path, "train", mirrored=False)["motion_id"])


def test_data_stored_without_tagged_words_have_empty_ones(folder, load, tmp_path):
    load(folder).remove_columns("tokens").save_to_disk(tmp_path / "stored")
    item = load(tmp_path / "stored", "train")[0]
    assert item["captions"] == ["a person raises the left hand."] and item["tokens"] == [""]
    assert item["motion"].dtype == np.float32


def test_caption_without_tagged_words_has_empty_ones(folder, load):
    write_texts(folder, "000002", "walks##0.0#0.0")
    assert load(folder, "train")[1]["tokens"] == [""]


def test_stored_data_of_another_kind_are_refused(tmp_path, load):
    Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "texts_only")
    with pytest.raises(ValueError, match="columns text; wanted motion_id, motion, captions"):
        load(tmp_path / "texts_only")
    with pytest.raises(ValueError, match="was not returned by load_motion_dataset"):
        motion_dataset_summary(Dataset.from_dict({"text": ["a"]}))


def test_cache_that_cannot_be_written_is_named(folder, load, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file/cache"):
        load(folder, "train", cache_dir=tmp_path / "file/cache")


def test_full_disk_is_named_and_the_next_run_succeeds(folder, load, tmp_path):
    with full_disk(after_bytes=50_000), pytest.raises(OSError, match="motions: cannot be put into the cache .*/cache"):
        load(folder, "train")
    assert len(load(folder, "train")) == 3


def test_a_folder_that_is_not_there_is_named_where_the_hub_does_not_answer(monkeypatch):
    """A mistyped folder looks like a name on the Hub."""

    def refused(*args, **kwargs):
        raise ConnectionError("nobody answers")

    monkeypatch.setattr("geomotiongpt.data.loader.hf_hub_download", refused)
    with pytest.raises(FileNotFoundError, match="quickstart/dta: no such folder, nor .* the Hub: nobody answers"):
        load_motion_statistics("quickstart/dta")


def test_statistics(folder, tmp_path):
    np.save(folder / "Mean.npy", np.arange(263.0))
    mean, std = load_motion_statistics(folder)
    assert mean.dtype == std.dtype == np.float32 and mean[262] == 262 and (std == 1).all()
    with pytest.raises(ValueError, match=r"Mean\.npy: shape \(263,\), wanted \(251,\)"):
        load_motion_statistics(folder, "kitml")
    np.save(folder / "Std.npy", np.zeros(263))
    with pytest.raises(ValueError, match=r"Std\.npy: 263 deviations are not above 0"):
        load_motion_statistics(folder)
    (folder / "Std.npy").write_bytes(b"")
    with pytest.raises(ValueError, match=r"Std\.npy: not a readable"):
        load_motion_statistics(folder)
    (folder / "Mean.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no Mean\.npy; .*write_motion_statistics"):
        load_motion_statistics(folder)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_motion_statistics(tmp_path / "nowhere")
