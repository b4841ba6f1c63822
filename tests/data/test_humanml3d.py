"""HumanML3D's own steps: which frames of a recording make a clip, how it is turned, missing files."""

import json
from pathlib import Path

import numpy as np
import pytest
from motion_files import make_joints

from geomotiongpt.cli import main
from geomotiongpt.data.body_models import humanml3d_joints
from geomotiongpt.data.builder import build_motion_dataset
from geomotiongpt.data.humanml3d import build_humanml3d, compare_with_reference, read_index
from geomotiongpt.data.motion_folder import read_array
from geomotiongpt.models.motion_representation import get_motion_representation

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


def write_body_model(folder: Path, gender: str, height: float) -> None:
    """An SMPL-H whose 52 vertices are its joints; each number of the shape makes it wider."""
    parents = [*get_motion_representation("humanml3d").parents, *[20] * 15, *[21] * 15]
    template = np.zeros((52, 3))
    for joint, parent in enumerate(parents[1:], 1):
        direction = get_motion_representation("humanml3d").raw_offsets[joint] if joint < 22 else (0, 0, 0)
        template[joint] = template[parent] + 0.1 * height * np.array(direction)
    directions = np.zeros((52, 3, 16))
    directions[:, 0] = template[:, :1]
    tree = np.array([parents, range(52)])
    (folder / gender).mkdir(parents=True)
    arrays = {"v_template": template, "shapedirs": directions, "J_regressor": np.eye(52), "kintree_table": tree}
    np.savez(folder / gender / "model.npz", **arrays)


def write_recording(path: Path, gender, frames: int = 360, betas: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    poses = np.zeros((frames, 156))
    poses[:, 0] = np.pi / 2  # AMASS stands up along Z
    poses[:, 3 * 16 + 2] = np.sin(np.arange(frames) / 20)
    trans = np.stack([np.zeros(frames), -np.arange(frames) / 120, np.ones(frames)], axis=1)
    np.savez(
        path,
        poses=poses,
        trans=trans,
        betas=np.zeros(16) if betas is None else betas,
        gender=np.array(gender),
        mocap_framerate=np.array(120.0),
    )


def test_joints_of_amass_have_ten_shape_numbers_and_a_female_body_unless_male(tmp_path):
    for gender, height in (("male", 2.0), ("female", 1.0)):
        write_body_model(tmp_path / "smplh", gender, height)
    span = {}
    for gender in ("male", "female", "neutral", b"male"):
        write_recording(tmp_path / "walk.npz", gender)
        joints, fps = humanml3d_joints(tmp_path / "walk.npz", tmp_path / "smplh")
        assert joints.shape == (360, 22, 3) and fps == 120
        span[gender] = float(np.ptp(joints[0, :, 2]))
    assert span["male"] == pytest.approx(2 * span["female"])
    assert span["neutral"] == span[b"male"] == span["female"]
    wide = {}
    for name, betas in {"none": np.zeros(16), "tenth": np.eye(16)[9], "eleventh": np.eye(16)[10]}.items():
        write_recording(tmp_path / "walk.npz", "male", betas=betas)
        wide[name] = float(np.ptp(humanml3d_joints(tmp_path / "walk.npz", tmp_path / "smplh")[0][0, :, 0]))
    assert wide["tenth"] > 1.5 * wide["none"] and wide["eleventh"] == wide["none"]


def test_one_command_builds_it_and_compares_it(raw, tmp_path, capsys, monkeypatch):
    root = raw["root"]
    for gender in ("male", "female"):
        write_body_model(root / "smplh", gender, 2.0)
    for name in ("KIT/3/walk_poses", "MPI_HDM05/bk/step_poses"):
        write_recording(root / f"amass/{name}.npz", "male", frames=660)
    command = ["build-data", "humanml3d", str(root / "built"), "--index", str(root / "index.csv")]
    command += ["--texts", str(root / "h3d")]
    assert main([*command, "--humanact12", str(root / "humanact12"), "--amass", str(root / "amass")]) == 2
    assert "give --smplh, the folder of the body models" in capsys.readouterr().err
    command += ["--humanact12", str(root / "humanact12"), "--amass", str(root / "amass")]
    command += ["--smplh", str(root / "smplh")]
    assert main(command) == 0
    joints = read_array(root / "built/source/joints/000000.npy")
    assert joints.shape == (60, 22, 3)
    assert np.ptp(joints[0, :, 1]) > 2 * np.ptp(joints[0, :, 2])  # it stands up along Y
    assert joints[-1, 0, 2] < joints[0, 0, 2] - 1  # it goes along -Z, the way it looks,
    assert joints[0, 1, 0] < joints[0, 2, 0]  # and its left hip is on that side's left
    (root / "reference").mkdir()
    (root / "built/Mean.npy").rename(root / "reference/Mean.npy")
    assert main([*command, "--reference", str(root / "reference")]) == 0
    assert "Mean.npy: differs by 0 at most from" in capsys.readouterr().out
    assert main(["build-data", "humanml3d", "--amass", "x"]) == 2
    assert "give --index: see" in capsys.readouterr().err
    assert main(["build-data", "raw", "out", "--amass", "x"]) == 2
    assert "--amass: no effect on `build-data raw`" in capsys.readouterr().err
