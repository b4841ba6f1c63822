"""Motion files and a table of captions: what becomes of them, and what is refused before anything is written."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from motion_files import make_joints

from geomotiongpt import build_from_files, export_motion, import_motion, load_motion_dataset
from geomotiongpt.cli import main
from geomotiongpt.data.caption_table import read_caption_table
from geomotiongpt.data.captioned_files import spread_over_splits
from geomotiongpt.data.motion_folder import read_array

SPLITS = ("train", "val", "test")


@pytest.fixture
def takes(tmp_path) -> Path:
    """Six BVH files, one of them in a folder of its own."""
    folder = tmp_path / "takes"
    (folder / "day 2").mkdir(parents=True)
    for number in range(5):
        export_motion(make_joints(60, seed=number), folder / f"take{number}.bvh")
    export_motion(make_joints(60, seed=5), folder / "day 2/walk #1.bvh")
    return folder


def write_table(takes: Path, *rows: str, columns: str = "file,caption,start,end,split") -> Path:
    table = takes.parent / "captions.csv"
    table.write_text("\n".join([columns, *rows]) + "\n", encoding="utf-8")
    return table


def build(takes: Path, *rows: str, columns: str = "file,caption,start,end,split", **options):
    table = write_table(takes, *rows, columns=columns)
    return build_from_files(takes, table, takes.parent / "built", show_progress=False, **options)


def lists(folder: Path) -> dict[str, list[str]]:
    return {name: (folder / f"{name}.txt").read_text().split() for name in SPLITS if (folder / f"{name}.txt").exists()}


ALL = [f"take{number}.bvh,someone turns left" for number in range(5)] + ["day 2/walk #1.bvh,walks"]


def test_clips_are_the_imported_files_with_all_their_captions(takes):
    rows = ["take0.bvh,someone turns left,,,train", 'take0,"bows, then waves",,,', "take0.bvh,bows,0.5,1.5,"]
    report = build(takes, *rows, *(f"{row},,,train" for row in ALL[1:]))
    built = takes.parent / "built"
    np.testing.assert_array_equal(
        read_array(built / "source/joints/take0.npy"), import_motion(takes / "take0.bvh").joints
    )
    assert (built / "texts/take0.txt").read_text().splitlines() == [
        "someone turns left##0.0#0.0",
        "bows, then waves##0.0#0.0",
        "bows##0.5#1.5",
    ]
    assert (built / "texts/Mtake0.txt").read_text().startswith("someone turns right#")
    assert (built / "texts/day_2_walk_1.txt").is_file()
    assert report.written == 6 and report.notes[0] == "6 of 6 files imported"
    assert "BVH, 20 frames per second, unit 0.01 m, y up" in report.notes[1]
    items = {item["motion_id"]: item["captions"] for item in load_motion_dataset(built, "train", mirrored=False)}
    assert items["take0"] == ["someone turns left", "bows, then waves"] and items["take0#10-30"] == ["bows"]


def test_a_part_without_an_end_goes_to_the_end_and_one_beyond_it_is_cut(takes):
    report = build(takes, "take0,waves,1,,train", "take0,bows,2,1000,train")
    assert (takes.parent / "built/texts/take0.txt").read_text() == "waves##1.0#3.0\nbows##2.0#3.0\n"
    assert "line 3: take0: ends at 1000 s, cut to the motion's 3 s" in report.notes
    with pytest.raises(ValueError, match="line 2: take0: starts at 3.1 s, but the motion lasts 3 s"):
        build(takes, "take0,waves,3.1,,train")


def test_splits_stay_as_they_were_when_files_come_to_them_and_none_is_empty(takes):
    for number in range(5, 40):
        export_motion(make_joints(20, seed=number), takes / f"take{number}.bvh")
    names = [f"take{number}" for number in range(40)]
    rows = [f"{name},walks" for name in names]
    build(takes, *rows[:30], columns="file,caption", mirror=False)
    before = lists(takes.parent / "built")
    build(takes, *rows, columns="file,caption", mirror=False)
    after = lists(takes.parent / "built")
    assert all(set(before[name]) <= set(after[name]) for name in SPLITS)
    assert sorted(sum(after.values(), [])) == sorted(names) and len(after["train"]) >= 25
    for count in (3, 6):
        report = build(takes, *rows[:count], columns="file,caption", mirror=False)
        assert set(report.splits) == set(SPLITS) and sum(report.splits.values()) == count


def test_a_clip_that_chance_did_not_put_into_its_split_stays_there_too(takes):
    """What was tested on yesterday is not trained on today."""
    build(takes, *ALL, columns="file,caption", mirror=False)
    before = lists(takes.parent / "built")
    assert set(before) == set(SPLITS)
    for number in range(5, 40):
        export_motion(make_joints(20, seed=number), takes / f"take{number}.bvh")
    build(takes, *ALL, *(f"take{number},walks" for number in range(5, 40)), columns="file,caption", mirror=False)
    after = lists(takes.parent / "built")
    assert all(set(before[name]) <= set(after[name]) for name in SPLITS)
    (split,) = (name for name in SPLITS if "take0" in after[name])
    other = "val" if split == "train" else "train"
    build(takes, f"take0,walks,,,{other}", *(f"take{number},walks,,," for number in range(1, 40)), mirror=False)
    assert "take0" in lists(takes.parent / "built")[other], "the table decides"


def test_clips_that_stay_against_chance_are_counted(takes):
    """Who takes a wrong split out of the table must learn that it still holds."""
    names = [f"take{number}" for number in range(5)]
    by_hash, _ = spread_over_splits({**dict.fromkeys(names, ""), "another": "train"})
    given = ["test" if name in by_hash["train"] else "train" for name in names]
    rows = [f"{name},walks,,,{split}" for name, split in zip(names, given, strict=True)]
    rows.append("day 2/walk #1,walks,,,train")

    def count(*rows: str) -> list[str]:
        notes = build(takes, *rows, mirror=False).notes
        return [note.partition("their name: ")[2] for note in notes if "where an earlier build had them" in note]

    assert count(*rows) == []
    before = lists(takes.parent / "built")
    assert count(*rows[:3], "take3,walks,,,", "take4,walks,,,", rows[5]) == [
        "2 (take3 ...); give them a split to move them"
    ]
    assert lists(takes.parent / "built") == before
    assert count(*(row.rpartition(",")[0] for row in rows[:5]), rows[5])[0].startswith("5 (take0 ...)")
    assert lists(takes.parent / "built") == before


def test_names_are_the_same_however_an_accent_is_spelt(takes):
    (takes / "take0.bvh").rename(takes / "cafe\u0301.bvh")
    report = build(takes, "caf\u00e9,walks,,,train", "take1,walks,,,train", mirror=False)
    assert report.splits == {"train": 2}


def test_splits_that_are_given_are_kept(takes):
    report = build(takes, "take0,walks,,,unseen", *(f"take{number},walks,,,train" for number in (1, 2)), mirror=False)
    assert report.splits == {"train": 2, "unseen": 1}


def test_a_second_build_makes_only_what_changed(takes):
    build(takes, *ALL, columns="file,caption")
    export_motion(make_joints(60, seed=99), takes / "take3.bvh")
    report = build(takes, *ALL[:5], columns="file,caption")
    assert (report.written, report.reused) == (1, 4)
    assert report.left_out == [("day_2_walk_1", f"{takes / 'day 2/walk #1.bvh'}: no caption")]
    assert not (takes.parent / "built/texts/day_2_walk_1.txt").exists()


def test_all_damaged_files_are_named_and_nothing_is_written_unless_they_may_be_left_out(takes, capsys):
    (takes / "take1.bvh").write_text("HIERARCHY\nROOT")
    (takes / "take2.bvh").write_bytes(b"\xff\xfe\x00")
    table = write_table(takes, *ALL, columns="file,caption")
    command = ["build-data", "files", str(takes), str(table), str(takes.parent / "built")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "take1.bvh" in error and "take2.bvh" in error and "--skip-damaged" in error
    assert sorted(path.name for path in takes.parent.iterdir()) == ["captions.csv", "takes"]
    assert main([*command, "--skip-damaged"]) == 0
    said = capsys.readouterr().out
    assert "4 of 6 files imported" in said and "left out: take1: " in said
    assert len(sum(lists(takes.parent / "built").values(), [])) == 2 * 4
    assert not list(takes.parent.glob(".*.partial"))


def test_a_folder_that_is_a_disk_of_its_own_is_built_into(takes, monkeypatch):
    """Nothing can be made beside it, nor moved into it from there."""
    built = takes.parent / "built"
    (built / ".built.1.partial").mkdir(parents=True)  # left by a run that was killed
    (built / ".built.1.partial/take0.npy").write_bytes(b"half")
    mkdir, replace = os.mkdir, os.replace

    def mkdir_on_it(path, *args, **kwargs):
        if built not in Path(path).parents:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        mkdir(path, *args, **kwargs)

    def replace_on_it(path, target):
        if built not in Path(path).parents:
            raise OSError(errno.EXDEV, "Invalid cross-device link", str(path))
        replace(path, target)

    monkeypatch.setattr(os, "mkdir", mkdir_on_it)
    monkeypatch.setattr(os, "replace", replace_on_it)
    assert build(takes, *ALL, columns="file,caption", mirror=False).written == 6
    assert not list(takes.parent.rglob("*.partial")) and (built / "source/joints/take0.npy").is_file()


def test_no_usable_file_at_all_is_an_error_even_where_damaged_ones_may_be_left_out(takes):
    (takes / "take1.bvh").write_text("HIERARCHY\nROOT")
    with pytest.raises(ValueError, match="nothing is written.*take1.bvh"):
        build(takes, "take1,walks", columns="file,caption", skip_damaged=True)
    assert not (takes.parent / "built").exists()


def test_what_import_is_told_reaches_every_file_of_its_kind(takes):
    np.save(takes / "joints.npy", make_joints(60, seed=7))
    build(takes, *ALL, "joints.npy,walks", columns="file,caption", fps=40, body_models="nowhere", unit="cm")
    length = {name: len(read_array(takes.parent / f"built/source/joints/{name}.npy")) for name in ("take0", "joints")}
    assert length == {"take0": 30, "joints": 30}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["take0,walks", "gone,walks", "also gone,walks"], "csv: .* 2: line 3: gone: not in .*; line 4: also"),
        (["take0.bvh,"], "line 2: the caption is empty"),
        ([",walks"], "line 2: the file is empty"),
        (["take0,walks, slowly,,,"], "line 2: more fields than columns; put a caption with commas into double quotes"),
        (["take0,walks #1"], "line 2: a caption cannot hold '#'"),
        (["take0,walks,x"], "line 2: the time 'x' is not a number of seconds"),
        (["take0,walks,-1"], "line 2: the time '-1' is not"),
        (["take0,walks,2,1"], "line 2: it ends at 1 s and starts at 2 s"),
        (["take0,walks,,,a/b"], "line 2: the split 'a/b' is no name of a file"),
        (["take0,walks,,,train", "take0,bows,,,test"], "take0.bvh is said to be in test and in train"),
        (['take0,"walks'], "captions.csv: cannot be read after line 1: .* is a quote not closed"),
        ([], "no rows below the names"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used_are_named(takes, rows, message):
    with pytest.raises(ValueError, match=message):
        build(takes, *rows)
    assert not (takes.parent / "built").exists()


def test_names_that_would_meet_are_refused(takes):
    (takes / "Mtake0.bvh").write_bytes((takes / "take0.bvh").read_bytes())
    with pytest.raises(ValueError, match="Mtake0.bvh is called as the mirrored clip of .*take0.bvh would be"):
        build(takes, "take0,walks", "Mtake0,walks", columns="file,caption")
    np.save(takes / "take0.npy", make_joints(60))
    with pytest.raises(ValueError, match="take0.npy would both be called take0"):
        build(takes, "take0.npy,walks", "take0.bvh,walks", columns="file,caption")
    with pytest.raises(ValueError, match="line 2: take0: which of take0.bvh, take0.npy"):
        build(takes, "take0,walks", columns="file,caption")


def test_a_table_of_another_program_is_read(takes):
    table = takes.parent / "captions.csv"
    table.write_bytes(
        "\ufeffFile ; Caption;start;end;mood\r\ntake0;walks, then\r\n".encode().replace(b"then", b"x;1,5;2;ok")
    )
    rows, unused = read_caption_table(table)
    assert [(row.file, row.segment.caption, row.segment.start, row.segment.end) for row in rows] == [
        ("take0", "walks, x", 1.5, 2.0)
    ]
    assert unused == ["mood"]
    assert "captions.csv: the column 'mood' is of no use" in build_from_files(
        takes, table, takes.parent / "built", show_progress=False
    ).notes[-1]  # fmt: skip


def test_a_table_that_is_none_is_refused(takes):
    with pytest.raises(FileNotFoundError, match="captions.csv: no such file; wanted a CSV file with the columns"):
        build_from_files(takes, takes / "captions.csv", takes.parent / "built")
    with pytest.raises(
        ValueError, match="no column caption; wanted file, caption and optionally .*; found file, captions"
    ):
        build(takes, "take0,walks", columns="file,captions")
    table = write_table(takes, "take0,walks")
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder; give the one with the motion files"):
        build_from_files(takes / "nowhere", table, takes.parent / "built")
    table.write_bytes(b"file,caption\ntake0,\xe9\n")
    with pytest.raises(ValueError, match="not UTF-8 text .* save it as UTF-8"):
        build_from_files(takes, table, takes.parent / "built")


def test_an_option_of_another_source_is_refused(takes, capsys):
    assert main(["build-data", "files", str(takes), "captions.csv", "out", "--index", "x"]) == 2
    assert "--index: no effect on `build-data files`" in capsys.readouterr().err
    assert main(["build-data", "raw", "out", "--skip-damaged", "--fps", "30"]) == 2
    assert "--fps, --skip-damaged: no effect on `build-data raw`" in capsys.readouterr().err
    assert main(["build-data", "files", str(takes)]) == 2
    assert "give folder, captions and output" in capsys.readouterr().err
