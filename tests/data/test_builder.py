"""Building a HumanML3D folder: what it holds, that it resumes, and what bad sources do."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from motion_files import CAPTIONS, full_disk, make_joints, write_source, write_split_lists

from geomotiongpt.cli import main
from geomotiongpt.data.builder import (
    MotionClip,
    build_motion_dataset,
    finish_motion_folder,
    write_motion_clips,
    write_motion_statistics,
)
from geomotiongpt.data.loader import load_motion_statistics
from geomotiongpt.data.text_files import parse_caption_line, read_captions
from geomotiongpt.models.motion_conversion import resample_joints
from geomotiongpt.models.motion_representation import (
    features_to_joints,
    get_motion_representation,
    joints_to_features,
    mirror_joints,
)

SPLITS = {"train": ["a0", "a1", "a2"], "val": ["b0"], "test": ["c0"], "test_unseen": ["d0"]}


def build(source: Path, output: Path, **options):
    return build_motion_dataset(source, output, show_progress=False, **options)


def contents(folder: Path) -> dict[str, bytes]:
    """Everything built, without what differs from run to run."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths if p.suffix not in (".json", ".jsonl")}


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path / "source", SPLITS)


def test_folder_has_the_humanml3d_layout_with_mirrored_clips(source, tmp_path):
    output = tmp_path / "built"
    report = build(source, output)
    assert (report.written, report.reused, report.left_out) == (6, 0, [])
    assert report.splits == {"train": 6, "val": 2, "test": 2, "test_unseen": 2}
    assert (output / "train.txt").read_text().split() == ["a0", "a1", "a2", "Ma0", "Ma1", "Ma2"]
    assert (output / "test_unseen.txt").read_text().split() == ["d0", "Md0"]
    names = {motion_id for ids in SPLITS.values() for i in ids for motion_id in (i, f"M{i}")}
    for folder in ("new_joint_vecs", "new_joints", "texts"):
        assert {path.stem for path in (output / folder).iterdir()} == names
    features = np.load(output / "new_joint_vecs/a2.npy")
    assert features.shape == (21, 263) and features.dtype == np.float32
    assert np.load(output / "new_joints/a2.npy").shape == (21, 22, 3)
    assert read_captions(output / "texts/a2.txt") == read_captions(source / "texts/a2.txt")
    mirrored = "a person raises the right hand.#a/DET person/NOUN raise/VERB the/DET right/ADJ hand/NOUN#0.0#0.0\n"
    assert (output / "texts/Ma2.txt").read_text() == mirrored


def test_clip_in_a_batch_comes_out_as_it_does_alone(source, tmp_path):
    build(source, tmp_path / "built")
    for name in ("a0", "d0"):  # the shortest and the longest of the batch
        joints = np.load(source / f"joints/{name}.npy")
        for prefix, alone in (("", joints), ("M", mirror_joints(joints))):
            features = np.load(tmp_path / f"built/new_joint_vecs/{prefix}{name}.npy")
            np.testing.assert_allclose(features, joints_to_features(alone), atol=2e-5)
            recovered = np.load(tmp_path / f"built/new_joints/{prefix}{name}.npy")
            np.testing.assert_allclose(recovered, features_to_joints(features), atol=1e-5)


def test_without_mirroring_and_retargeting(source, tmp_path):
    report = build(source, tmp_path / "built", mirror=False, retarget=False)
    assert report.splits["train"] == 3
    assert not list((tmp_path / "built/new_joint_vecs").glob("M*"))
    features = np.load(tmp_path / "built/new_joint_vecs/a1.npy")
    unchanged = joints_to_features(np.load(source / "joints/a1.npy"), retarget=False)
    np.testing.assert_allclose(features, unchanged, atol=2e-5)


def test_kit_clips_take_the_bone_lengths_of_a_named_clip(tmp_path):
    source = write_source(tmp_path / "source", {"train": ["00001", "00002"]}, "kitml")
    with pytest.raises(ValueError, match="kitml has no target skeleton"):
        build(source, tmp_path / "built", representation="kitml")
    assert not (tmp_path / "built").exists()
    target = 2 * np.load(source / "joints/00001.npy")[0]
    build(source, tmp_path / "built", representation="kitml", target_skeleton=target)
    joints = np.load(tmp_path / "built/new_joints/00002.npy")
    assert joints.shape == (20, 21, 3)
    bone = np.linalg.norm(joints[:, 2] - joints[:, 1], axis=-1)
    np.testing.assert_allclose(bone, np.linalg.norm(target[2] - target[1]), rtol=1e-3)


def test_streaming_features_are_built_from_joints_at_another_frame_rate(source, tmp_path):
    """As many rows as frames, of the resampled joints; by the command line too."""
    report = build(source, tmp_path / "built", representation="streaming272", source_fps=20)
    assert report.splits == {"train": 6, "val": 2, "test": 2, "test_unseen": 2} and not report.left_out
    joints = np.load(source / "joints/a2.npy").astype(np.float64)
    resampled = resample_joints(joints, 20, 30)
    assert (len(joints), len(resampled)) == (22, 32)
    for prefix, alone in (("", resampled), ("M", mirror_joints(resampled, "streaming272"))):
        features = np.load(tmp_path / f"built/new_joint_vecs/{prefix}a2.npy")
        assert features.shape == (32, 272) and features.dtype == np.float32
        np.testing.assert_allclose(features, joints_to_features(alone, "streaming272"), atol=1e-6)
        recovered = np.load(tmp_path / f"built/new_joints/{prefix}a2.npy")
        np.testing.assert_allclose(recovered, features_to_joints(features, "streaming272"), atol=1e-5)
    rows = [np.load(tmp_path / f"built/new_joint_vecs/{name}.npy") for name in ("a0", "a1", "a2", "Ma0", "Ma1", "Ma2")]
    mean, std = load_motion_statistics(tmp_path / "built", "streaming272")
    np.testing.assert_allclose(mean, np.concatenate(rows).mean(0, dtype=np.float64), atol=1e-6)
    for start, stop in ((0, 2), (2, 8), (8, 74), (74, 140), (140, 272)):
        spread = np.concatenate(rows).std(0, dtype=np.float64)[start:stop].mean()
        np.testing.assert_allclose(std[start:stop], spread, rtol=1e-4)

    command = ["build-data", str(source), str(tmp_path / "by_command"), "--representation", "streaming272"]
    assert main([*command, "--source-fps", "20"]) == 0
    assert contents(tmp_path / "by_command") == contents(tmp_path / "built")


def test_another_source_frame_rate_builds_anew(source, tmp_path, capsys):
    output = tmp_path / "built"
    build(source, output)
    assert build(source, output, source_fps=20).reused == 6  # what HumanML3D has anyway
    report = build(source, output, source_fps=40)
    assert (report.written, report.reused) == (6, 0)
    assert np.load(output / "new_joint_vecs/a2.npy").shape == (10, 263)
    assert build(source, output, source_fps=40).reused == 6

    np.save(source / "joints/a1.npy", make_joints(7))
    report = build(source, output, source_fps=140)
    assert [name for name, _ in report.left_out] == ["a1"]
    assert "7 frames at 140 frames per second are 1 at 20, wanted at least 2" in report.left_out[0][1]
    with pytest.raises(ValueError, match="source_fps is 0; give the frames per second"):
        build(source, output, source_fps=0)
    assert main(["build-data", str(source), str(output), "--source-fps", "-5"]) == 2
    assert "source_fps is -5.0" in capsys.readouterr().err


def test_statistics_are_of_the_train_split_with_the_deviation_averaged_in_each_group(source, tmp_path):
    output = tmp_path / "built"
    build(source, output)
    rows = [np.load(output / f"new_joint_vecs/{name}.npy") for name in ("a0", "a1", "a2", "Ma0", "Ma1", "Ma2")]
    rows = np.concatenate(rows).astype(np.float64)
    np.testing.assert_allclose(np.load(output / "Mean.npy"), rows.mean(0), atol=1e-6)
    std = np.load(output / "Std.npy")
    assert std.dtype == np.float32
    for group in get_motion_representation("humanml3d").feature_slices.values():
        np.testing.assert_allclose(std[group], rows.std(0)[group].mean() or 1.0, rtol=1e-4)


def test_statistics_leave_out_nan_and_give_a_constant_group_one(tmp_path):
    (tmp_path / "new_joint_vecs").mkdir()
    rows = np.random.default_rng(0).normal(size=(30, 263)).astype(np.float32)
    rows[:, 3] = 0.9  # root height
    np.save(tmp_path / "new_joint_vecs/a.npy", rows)
    np.save(tmp_path / "new_joint_vecs/b.npy", np.full_like(rows, np.nan))
    mean, std = write_motion_statistics(tmp_path, ["a", "b"])
    np.testing.assert_allclose(mean, rows.mean(0, dtype=np.float64), atol=1e-6)
    assert std[3] == 1 and (std > 0).all()
    with pytest.raises(ValueError, match="none of the 1 clips"):
        write_motion_statistics(tmp_path, ["b"])


def test_second_run_reuses_everything_and_redoes_what_changed(source, tmp_path):
    output = tmp_path / "built"
    build(source, output)
    first, written = contents(output), (output / "new_joint_vecs/a0.npy").stat().st_mtime_ns
    report = build(source, output)
    assert (report.written, report.reused) == (0, 6)
    assert contents(output) == first and (output / "new_joint_vecs/a0.npy").stat().st_mtime_ns == written

    np.save(source / "joints/a1.npy", make_joints(33, seed=9))
    (source / "texts/b0.txt").write_text("another caption#caption/NOUN#0.0#0.0\n")
    (output / "new_joints/Mc0.npy").write_bytes(b"damaged")
    report = build(source, output)
    assert (report.written, report.reused) == (3, 3)
    assert np.load(output / "new_joint_vecs/Ma1.npy").shape == (32, 263)
    assert (output / "texts/Mb0.txt").read_text().startswith("another caption#")
    assert (output / "new_joint_vecs/a0.npy").stat().st_mtime_ns == written
    assert contents(output)["new_joints/Mc0.npy"] == first["new_joints/Mc0.npy"]


def test_other_settings_or_splits_leave_nothing_of_the_run_before(source, tmp_path):
    output = tmp_path / "built"
    build(source, output)
    report = build(source, output, mirror=False)
    assert (report.written, report.reused) == (6, 0)
    assert not list(output.glob("*/M*"))
    (source / "test_unseen.txt").unlink()
    report = build(source, output, mirror=False)
    assert (report.written, report.reused) == (0, 5)
    assert not (output / "test_unseen.txt").exists() and not (output / "new_joint_vecs/d0.npy").exists()
    build(source, tmp_path / "fresh", mirror=False)
    assert contents(output) == contents(tmp_path / "fresh")


def test_processes_build_the_same_files(source, tmp_path):
    build(source, tmp_path / "one")  # torch has run in this process before it forks
    write_split_lists(source, {"train": SPLITS["train"]})
    report = build(source, tmp_path / "two", num_proc=2)
    assert report.written == 6
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


KILLED_BUILD = """
import multiprocessing, os, signal, sys
from geomotiongpt.data import builder

class Progress(builder.tqdm):
    done = 0
    def update(self, n=1):  # nothing counts where no bar is shown
        self.done += n
        if self.done == 40:
            print(*(child.pid for child in multiprocessing.active_children()), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

builder.tqdm = Progress
builder.build_motion_dataset(*sys.argv[1:], num_proc=2)
"""


def test_killed_run_is_taken_up_without_redoing_or_corrupting(tmp_path):
    ids = [f"c{index:03d}" for index in range(100)]
    source, output = write_source(tmp_path / "source", {"train": ids[:1]}), tmp_path / "built"
    np.save(source / "joints/c000.npy", make_joints(80))
    for motion_id in ids[1:]:
        os.link(source / "joints/c000.npy", source / f"joints/{motion_id}.npy")
        os.link(source / "texts/c000.txt", source / f"texts/{motion_id}.txt")
    write_split_lists(source, {"train": ids})
    command = [sys.executable, "-c", KILLED_BUILD, source, output]
    killed = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert killed.stdout is not None
    workers = killed.stdout.readline().split()
    assert killed.wait() == -signal.SIGKILL and len(workers) == 2
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(_is_running(worker) for worker in workers):
        time.sleep(0.05)
    assert not any(_is_running(worker) for worker in workers), "workers outlive the run that was killed"
    assert not (output / "train.txt").exists()

    manifest = output / "build_manifest.jsonl"
    with manifest.open("a") as file:
        file.write('{"motion_id": "c09')  # a line torn by the kill
    (output / "texts/.c000.txt.1.partial").write_text("half")
    done = [json.loads(line)["motion_id"] for line in manifest.read_text().splitlines()[:-1]]
    times = {motion_id: (output / f"texts/M{motion_id}.txt").stat().st_mtime_ns for motion_id in done}
    report = build(source, output)
    assert report.reused == len(done) == 39 and report.written == 61
    assert times == {motion_id: (output / f"texts/M{motion_id}.txt").stat().st_mtime_ns for motion_id in done}
    assert not list(output.rglob("*.partial"))
    assert len(list((output / "new_joint_vecs").iterdir())) == 200
    features = [np.load(path) for path in (output / "new_joint_vecs").glob("c*.npy")]
    np.testing.assert_allclose(
        features, np.broadcast_to(joints_to_features(make_joints(80)), (100, 79, 263)), atol=2e-5
    )


def _is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_every_clip_left_out_is_reported_with_its_reason(source, tmp_path, caplog):
    joints = source / "joints"
    bad = make_joints(30)
    bad[4, 7, 1] = np.nan
    np.save(joints / "nan.npy", bad)
    np.save(joints / "wide.npy", np.zeros((30, 24, 3), np.float32))
    np.save(joints / "short.npy", make_joints(1))
    np.save(joints / "point.npy", np.zeros((30, 22, 3), np.float32))
    np.save(joints / "text.npy", np.array(["a"]))
    np.save(joints / "objects.npy", np.array([{}], dtype=object))
    (joints / "truncated.npy").write_bytes((joints / "a0.npy").read_bytes()[:-100])
    (joints / "empty.npy").write_bytes(b"")
    for name in ("mute", "unlisted", "garbled"):
        np.save(joints / f"{name}.npy", make_joints(30))
    names = [
        "nan",
        "wide",
        "short",
        "point",
        "text",
        "objects",
        "truncated",
        "empty",
        "garbled",
        "motionless",
        "unlisted",
    ]
    for name in names:
        (source / f"texts/{name}.txt").write_text(CAPTIONS)
    (source / "texts/garbled.txt").write_text("no fields\n")
    (source / "texts/a1.txt").write_text(f"{CAPTIONS}half a line#\n")
    write_split_lists(source, {"train": SPLITS["train"] + names[:-1] + ["mute", "a0"]})

    report = build(source, tmp_path / "built")
    reasons = dict(report.left_out)
    wanted = {
        "nan": "nan.npy: NaN or infinity in 1 of 30 frames",
        "wide": "wide.npy: shape (30, 24, 3), wanted (frames, 22, 3)",
        "short": "short.npy: 1 frame(s), wanted at least 2",
        "point": "point.npy: joints",
        "text": "text.npy: holds <U1, wanted real numbers",
        "objects": "objects.npy: not a readable .npy file",
        "truncated": "truncated.npy: not a readable .npy file, truncated",
        "empty": "empty.npy: not a readable .npy file, truncated",
        "garbled": "garbled.txt: no usable caption",
        "motionless": "joints/motionless.npy missing",
        "mute": "texts/mute.txt missing",
        "unlisted": "in no split list",
    }
    assert reasons.keys() == wanted.keys()
    assert all(part in reasons[name] for name, part in wanted.items()), reasons
    assert report.skipped_lines[0].endswith("train.txt: a0 is listed again")
    assert "texts/a1.txt:2: 2 fields" in report.skipped_lines[1] and len(report.skipped_lines) == 2
    assert report.written == 6 and report.splits["train"] == 6
    saved = json.loads((tmp_path / "built/report.json").read_text())
    assert saved["left_out"] == [list(entry) for entry in report.left_out]
    assert "nan.npy: NaN" in caplog.text
    assert build(source, tmp_path / "built").skipped_lines == report.skipped_lines  # also of reused clips


def test_clip_that_turned_bad_is_removed(source, tmp_path):
    build(source, tmp_path / "built")
    np.save(source / "joints/a0.npy", make_joints(1))
    report = build(source, tmp_path / "built")
    assert [name for name, _ in report.left_out] == ["a0"]
    assert (tmp_path / "built/train.txt").read_text().split() == ["a1", "a2", "Ma1", "Ma2"]
    assert not list((tmp_path / "built").rglob("*a0.*"))


def test_clip_of_10000_frames_is_built(tmp_path):
    source = write_source(tmp_path / "source", {"train": ["short", "long"]})
    np.save(source / "joints/long.npy", make_joints(10_000))
    report = build(source, tmp_path / "built")
    assert report.left_out == []
    features = np.load(tmp_path / "built/new_joint_vecs/Mlong.npy")
    assert features.shape == (9_999, 263) and np.isfinite(features).all()


def test_missing_parts_of_the_source_are_named(source, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        build(tmp_path / "nowhere", tmp_path / "built")
    (source / "train.txt").rename(source / "training.txt")
    with pytest.raises(
        FileNotFoundError, match=r"train\.txt: no such split list.*found: val, test, test_unseen, training"
    ):
        build(source, tmp_path / "built")
    (source / "training.txt").rename(source / "train.txt")
    (source / "val.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"val\.txt: the split is empty"):
        build(source, tmp_path / "built")
    (source / "val.txt").write_text("Read me first\n")
    with pytest.raises(ValueError, match=r"val\.txt:1: 'Read me first' is not a clip id"):
        build(source, tmp_path / "built")
    assert not (tmp_path / "built").exists()


def test_train_split_without_a_usable_clip_is_an_error(source, tmp_path):
    for name in SPLITS["train"]:
        np.save(source / f"joints/{name}.npy", make_joints(1))
    with pytest.raises(ValueError, match=r"train\.txt: none of its 3 clips can be used[\s\S]*a0\.npy: 1 frame"):
        build(source, tmp_path / "built")
    assert not list((tmp_path / "built").glob("*.txt"))
    assert len(json.loads((tmp_path / "built/report.json").read_text())["left_out"]) == 3


def test_folder_of_something_else_is_not_written_over(source, tmp_path):
    with pytest.raises(ValueError, match="the output folder is the source folder"):
        build(source, source)
    foreign = tmp_path / "HumanML3D"
    (foreign / "new_joint_vecs").mkdir(parents=True)
    with pytest.raises(ValueError, match="will not write over it"):
        build(source, foreign)


def test_id_that_a_mirrored_clip_would_take_is_refused(tmp_path):
    source = write_source(tmp_path / "source", {"train": ["a", "Ma"]})
    with pytest.raises(ValueError, match="1 clip ids are also the id of another's mirrored clip, Ma for one"):
        build(source, tmp_path / "built")
    assert build(source, tmp_path / "built", mirror=False).written == 2


def test_output_that_cannot_be_written_is_named(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file/built"):
        build(source, tmp_path / "file" / "built")


@pytest.mark.parametrize("num_proc", [None, 2])
def test_full_disk_stops_the_run_and_leaves_nothing_half_written(source, tmp_path, num_proc):
    output = tmp_path / "built"
    np.save(source / "joints/a2.npy", make_joints(10))
    with full_disk(after_bytes=15_000), pytest.raises(OSError, match=r"new_joint_vecs/\w+\.npy'"):
        build(source, output, num_proc=num_proc)
    assert not (output / "train.txt").exists() and not list(output.rglob("*.partial"))
    assert all(np.isfinite(np.load(path)).all() for path in output.rglob("*.npy"))
    assert build(source, output).splits["train"] == 6
    build(source, tmp_path / "fresh")
    assert contents(output) == contents(tmp_path / "fresh")


def test_clips_from_memory(tmp_path):
    captions = [parse_caption_line(CAPTIONS)]
    clips = [MotionClip(f"s{index}", make_joints(24 + index, index), captions) for index in range(3)]
    broken = make_joints(20)
    broken[3] = np.inf
    assert list(write_motion_clips([*clips, MotionClip("broken", broken, captions)], tmp_path)) == ["broken"]
    finish_motion_folder(tmp_path, {"train": ["s0", "s1", "Ms0", "Ms1"], "test": ["s2", "Ms2"]})
    assert np.load(tmp_path / "new_joint_vecs/Ms2.npy").shape == (25, 263)
    assert np.load(tmp_path / "Std.npy").shape == (263,)
    assert (tmp_path / "test.txt").read_text() == "s2\nMs2\n"


def test_real_clips_are_all_built(tmp_path):
    root = os.environ.get("GEOMOTIONGPT_REAL_DATA")
    if not root:
        pytest.skip("GEOMOTIONGPT_REAL_DATA does not name the folder of real data")
    unpack = [sys.executable, Path(root) / "unpack.py", tmp_path / "source", "--limit", "20"]
    subprocess.run(unpack, check=True, capture_output=True)
    report = build(tmp_path / "source", tmp_path / "built")
    assert (report.written, report.left_out, report.skipped_lines) == (80, [], [])
    assert report.splits == {"train": 40, "val": 40, "test": 40, "test_unseen": 40}
