"""HumanML3D's own steps: which frames of a recording make a clip, how it is turned, missing files."""

import json
from pathlib import Path

import numpy as np
import pytest
from motion_files import make_joints

from geomotiongpt.data.builder import build_motion_dataset
from geomotiongpt.data.humanml3d import build_humanml3d, compare_with_reference, read_index
from geomotiongpt.data.motion_folder import read_array

INDEX = """source_path,start_frame,end_frame,new_name
./pose_data/KIT/3/walk_poses.npy,0,60,000000.npy
./pose_data/KIT/3/walk_poses.npy,20,90,000001.npy
./pose_data/MPI_HDM05/bk/step_poses.npy,5,45,000002.npy
./pose_data/humanact12/humanact12/P01.npy,0,-1,000003.npy
./pose_data/CMU/07/gone_poses.npy,0,50,000004.npy
"""
CAPTION = "a man walks to the left.#a/DET man/NOUN walk/VERB to/ADP the/DET left/NOUN#0.0#0.0\n"


def body_joints(path: Path) -> tuple[np.ndarray, float]:
    """What a body model makes of a recording: here the file holds its joints, Z up."""
    with np.load(path, allow_pickle=False) as file:
        return file["joints"], float(file["mocap_framerate"])


def z_up(joints: np.ndarray) -> np.ndarray:
    """(x, y, z) with Y up -> what AMASS has, as HumanML3D undoes it: x negated, Y and Z change places."""
    return joints[..., [0, 2, 1]] * np.array([-1, 1, 1])


@pytest.fixture
def raw(tmp_path) -> dict[str, Path]:
    """Recordings as published: 120 frames per second, of HumanAct12 20."""
    (tmp_path / "amass/KIT/3").mkdir(parents=True)
    (tmp_path / "amass/MPI_HDM05/bk").mkdir(parents=True)
    (tmp_path / "humanact12").mkdir()
    (tmp_path / "h3d/texts").mkdir(parents=True)
    walk, step, act = (make_joints(600, seed=0), make_joints(660, seed=1), make_joints(40, seed=2))
    for name, joints in (("KIT/3/walk_poses", walk), ("MPI_HDM05/bk/step_poses", step)):
        np.savez(tmp_path / f"amass/{name}.npz", joints=z_up(joints), mocap_framerate=120.0)
    np.save(tmp_path / "humanact12/P01.npy", act)
    (tmp_path / "index.csv").write_text(INDEX)
    for number in range(5):
        (tmp_path / f"h3d/texts/00000{number}.txt").write_text(CAPTION)
    (tmp_path / "h3d/texts/M000001.txt").write_text("he goes right.#he/PRON go/VERB right/ADV#0.0#0.0\n")
    (tmp_path / "h3d/train.txt").write_text("000000\n000001\nM000000\nM000001\n000003\n000004\n")
    (tmp_path / "h3d/test.txt").write_text("000002\nM000002\n")
    return {"root": tmp_path, "walk": walk, "step": step, "act": act}


def build(raw, **options):
    root = raw["root"]
    given = {"amass_dir": root / "amass", "humanact12_dir": root / "humanact12", "body_joints": body_joints}
    return build_humanml3d(
        root / "built",
        index=root / "index.csv",
        texts_dir=root / "h3d",
        show_progress=False,
        **{**given, **options},
    )


def test_a_clip_is_every_sixth_frame_of_its_part_of_the_recording(raw):
    build(raw)
    joints = {name: read_array(raw["root"] / f"built/source/joints/00000{name}.npy") for name in range(4)}
    np.testing.assert_allclose(joints[0], raw["walk"][::6][:60], atol=1e-6)
    np.testing.assert_allclose(joints[1], raw["walk"][::6][20:90], atol=1e-6)
    # Three seconds of HDM05 come before what the index counts
    np.testing.assert_allclose(joints[2], raw["step"][::6][60 + 5 : 60 + 45], atol=1e-6)
    np.testing.assert_allclose(joints[3], raw["act"], atol=1e-6)


def test_what_comes_of_it_is_what_the_builder_makes_of_these_clips(raw):
    report = build(raw)
    assert report.splits == {"train": 6, "test": 2}
    assert report.left_out == [("000004", "AMASS: CMU/07/gone_poses is not there")]
    texts = raw["root"] / "built/texts"
    assert (texts / "M000000.txt").read_text().startswith("a man walks to the right.")
    assert (texts / "M000001.txt").read_text().startswith("he goes right.")  # as somebody wrote it
    build_motion_dataset(raw["root"] / "built/source", raw["root"] / "again", show_progress=False)
    differences = compare_with_reference(raw["root"] / "built", raw["root"] / "again")
    assert len(differences) == 4 * 2 + 2 and max(differences.values()) == 0


def test_a_second_run_reads_only_recordings_that_changed(raw):
    build(raw)

    def refuse(path: Path):
        raise AssertionError(f"{path} is read again")

    report = build(raw, body_joints=refuse)
    assert (report.written, report.reused) == (0, 4)
    path = raw["root"] / "amass/KIT/3/walk_poses.npz"
    np.savez(path, joints=z_up(raw["step"]), mocap_framerate=120.0)
    report = build(raw)
    assert (report.written, report.reused) == (2, 2)
    np.testing.assert_allclose(
        read_array(raw["root"] / "built/source/joints/000000.npy"), raw["step"][::6][:60], atol=1e-6
    )


def test_processes_make_the_same_files(raw, tmp_path):
    build(raw)
    alone = {path.name: path.read_bytes() for path in (raw["root"] / "built/new_joint_vecs").iterdir()}
    (raw["root"] / "built").rename(raw["root"] / "alone")
    build(raw, num_proc=2)
    assert alone == {path.name: path.read_bytes() for path in (raw["root"] / "built/new_joint_vecs").iterdir()}


def test_recordings_that_cannot_be_used_are_named(raw):
    root = raw["root"]
    np.savez(root / "amass/KIT/3/walk_poses.npz", joints=z_up(raw["walk"]), mocap_framerate=15.0)
    np.save(root / "humanact12/P01.npy", np.zeros((40, 5, 3)))
    with pytest.raises(FileNotFoundError, match="none of the 4 clips of train could be made: .*P01.npy: shape"):
        build(raw)
    (root / "h3d/train.txt").write_text("000002\n")
    reasons = dict(build(raw).left_out)
    assert "15 frames per second; HumanML3D takes recordings of 20 or more" in reasons["000000"]
    assert "shape (40, 5, 3), wanted (frames, 22 joints or more, 3)" in reasons["000003"]


def test_without_a_source_its_clips_are_left_out_and_without_all_nothing_is_built(raw):
    reasons = dict(build(raw, humanact12_dir=None).left_out)
    assert reasons["000003"] == "HumanAct12 is not given"
    with pytest.raises(FileNotFoundError, match="none of the 4 clips of train could be made: AMASS is not given; Hu"):
        build(raw, amass_dir=None, humanact12_dir=None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source_path,start_frame,new_name\n", "no column end_frame; wanted source_path, start_frame, end_frame"),
        ("source_path,start_frame,end_frame,new_name\na.npy,x,3,b.npy\n", r"index.csv:2: cannot be read: invalid"),
        ("source_path,start_frame,end_frame,new_name\n", "the index has no clips"),
    ],
)
def test_an_index_that_cannot_be_read_is_refused(tmp_path, text, message):
    (tmp_path / "index.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_index(tmp_path / "index.csv")
    with pytest.raises(FileNotFoundError, match="nowhere.csv: no such index"):
        read_index(tmp_path / "nowhere.csv")


def test_a_line_of_the_manifest_that_a_kill_tore_is_forgotten(raw):
    build(raw)
    manifest = raw["root"] / "built/source/extracted.jsonl"
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([*lines[:-1], lines[-1][:20]]))
    assert build(raw).reused >= 3
    assert [json.loads(line)["recording"] for line in manifest.read_text().splitlines()]


def test_nothing_in_common_with_a_reference_is_an_error(raw, tmp_path):
    build(raw)
    np.save(tmp_path / "Mean.npy", np.zeros(3))
    assert compare_with_reference(raw["root"] / "built", tmp_path) == {"Mean.npy": float("inf")}
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="has no clip, Mean.npy or Std.npy"):
        compare_with_reference(raw["root"] / "built", tmp_path / "empty")
