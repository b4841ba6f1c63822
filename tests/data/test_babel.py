"""BABEL: which labels become captions of which parts, and what happens where labels and motion do not fit."""

import json
from pathlib import Path

import numpy as np
import pytest
from motion_files import make_joints
from test_humanml3d import body_joints, write_body_model, write_recording, z_up

from geomotiongpt import load_motion_dataset
from geomotiongpt.cli import main
from geomotiongpt.data.babel import build_babel, read_babel
from geomotiongpt.data.motion_folder import read_array


def label(text: str, start: float | None = None, end: float | None = None, **more) -> dict:
    times = {} if start is None else {"start_t": start, "end_t": end}
    return {"raw_label": text, "proc_label": text, "act_cat": [text], **times, **more}


def entry(source: str, frames: list | None = None, sequence: list | None = None) -> dict:
    parts = {"frame_ann": frames and {"labels": frames}, "seq_ann": sequence and {"labels": sequence}}
    return {"babel_sid": 1, "url": "", "feat_p": source, "dur": 5.0, **parts}


WALK = [label("walk", 0, 2.0), label("transition", 2.0, 2.5), label("turn  left #1", 2.5, 4.25, proc_label="turn")]


@pytest.fixture
def raw(tmp_path) -> Path:
    """Recordings of five seconds at 120 frames per second, one of three at 60, and labels of them."""
    amass, babel = tmp_path / "amass", tmp_path / "babel"
    for name, frames, fps in (("KIT/3/walk", 601, 120.0), ("CMU/CMU/07/step", 601, 120.0), ("SSM/sit", 180, 60.0)):
        (amass / name).parent.mkdir(parents=True)
        np.savez(amass / f"{name}_poses.npz", joints=z_up(make_joints(frames)), mocap_framerate=fps)
    babel.mkdir()
    write(
        babel / "train.json",
        {
            "11": entry("KIT/KIT/3/walk_poses.npz", WALK, [label("walks around")]),
            "12": entry("CMU/CMU/07/step_poses.npz", None, [label("steps"), label("a step")]),
        },
    )
    write(babel / "val.json", {"21": entry("SSM/SSM/sit_poses.npz", [label("sit", 0.5, 99), label("rise", 50, 60)])})
    write(babel / "test.json", {"31": entry("KIT/KIT/3/walk_poses.npz")})
    return tmp_path  # fmt: skip


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def build(raw: Path, **options):
    given = {"amass_dir": raw / "amass", "babel_dir": raw / "babel", "body_joints": body_joints, **options}
    return build_babel(raw / "built", show_progress=False, **given)


def lines(raw: Path, name: str) -> list[str]:
    return (raw / f"built/texts/{name}.txt").read_text().splitlines()


def test_stretches_become_captions_of_parts_and_a_whole_sequence_has_those_of_the_whole(raw):
    report = build(raw)
    assert lines(raw, "11") == ["walk##0.0#2.0", "turn left 1##2.5#4.25"]
    assert lines(raw, "M11")[1] == "turn right 1##2.5#4.25"
    assert lines(raw, "12") == ["steps##0.0#0.0", "a step##0.0#0.0"]
    assert report.splits == {"train": 4, "val": 2}
    assert f"{raw / 'babel/test.json'}: it has no labels and is left out" in report.notes
    assert '1 labels say "transition" and are left out (--transitions keeps them)' in report.notes
    items = {item["motion_id"]: item["captions"] for item in load_motion_dataset(raw / "built", "train")}
    assert items["11#0-40"] == ["walk"] and items["11#50-85"] == ["turn left 1"] and items["12"] == ["steps", "a step"]


def test_transitions_can_be_kept(raw):
    report = build(raw, transitions=True)
    assert lines(raw, "11")[1] == "transition##2.0#2.5" and not any("labels say" in note for note in report.notes)


def test_times_beyond_the_motion_are_cut_and_said(raw):
    report = build(raw)
    assert lines(raw, "21") == ["sit##0.5#3.0"]
    assert "1 labels end after their motion and are cut: 21, 99 s of 3 s for one" in report.notes
    assert "1 labels begin after its end and are left out: 21, 50 s of 3 s for one" in report.notes


@pytest.mark.parametrize(("representation", "fps"), [("humanml3d", 20), ("streaming272", 30)])
def test_sequences_keep_their_time_at_any_frame_rate(raw, representation, fps):
    """150 frames per second are no multiple of 20: every seventh frame would be 21.4 a second."""
    joints = make_joints(751)
    np.savez(raw / "amass/KIT/3/walk_poses.npz", joints=z_up(joints), mocap_framerate=150.0)
    build(raw, representation=representation)
    made = read_array(raw / "built/source/joints/11.npy")
    assert len(made) == 5 * fps + 1
    np.testing.assert_allclose(made[:: 2 * fps], joints[::300], atol=1e-5)


def test_another_representation_reads_the_recordings_anew_and_the_same_one_does_not(raw):
    build(raw)
    assert build(raw).reused == 3
    build(raw, representation="streaming272")
    assert len(read_array(raw / "built/source/joints/11.npy")) == 151
    with pytest.raises(ValueError, match="of BABEL it is humanml3d or streaming272"):
        build(raw, representation="kitml")


def test_recordings_that_are_missing_or_damaged_are_named(raw):
    (raw / "amass/CMU/CMU/07/step_poses.npz").unlink()
    np.savez(raw / "amass/SSM/sit_poses.npz", joints=np.zeros((1, 22, 3)), mocap_framerate=60.0)
    with pytest.raises(FileNotFoundError, match="none of the 1 clips of val could be made: .* 1 frames at 60 frames"):
        build(raw)
    write(
        raw / "babel/val.json",
        {"21": entry("../outside.npz", [label("sit", 0, 1)]), "22": entry("SSM/SSM/sit_poses.npz")},
    )
    (raw / "babel/val.json").unlink()
    assert build(raw).left_out == [("12", "AMASS: CMU/CMU/07/step_poses.npz is not there")]


def test_labels_of_several_people_are_read_alike(tmp_path):
    several = {
        "feat_p": "a/b.npz",
        "seq_anns": [{"labels": [label("x")]}],
        "frame_anns": [{"labels": [label("walk", 0, 1)]}, {"labels": [label("go", 0, 1.5), label("walk", 0, 1)]}],
    }
    write(tmp_path / "train.json", {"1": several, "2": {**several, "frame_anns": None}})
    first, second = read_babel(tmp_path / "train.json")
    assert [(part.caption, part.end) for part in first.segments] == [("walk", 1.0), ("go", 1.5)]
    assert [(part.caption, part.end) for part in second.segments] == [("x", 0.0)]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "wanted sequences by their numbers, got a list"),
        ("{", "train.json is no JSON"),
        ({"7": {"feat_p": "x", "frame_ann": {}}, "8": {"frame_ann": None}}, "sequence 8 cannot be read: no 'feat_p'"),
        (
            {"7": entry("x", [{"raw_label": "walk", "start_t": "a", "end_t": 2}])},
            "sequence 7 cannot be read: ",
        ),
        ({"7": entry("x", [label("walk", -1, 2)])}, "'walk' goes from -1.0 to 2.0 s"),
        ({"7": entry("x")}, "train.json: it has no labels"),
    ],
)
def test_labels_that_cannot_be_read_are_refused(raw, content, message):
    (raw / "babel/train.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=message):
        build(raw)
    assert not (raw / "built").exists()


def test_a_sequence_in_two_splits_and_a_missing_folder_are_refused(raw):
    write(raw / "babel/val.json", {"11": entry("KIT/KIT/3/walk_poses.npz", WALK)})
    with pytest.raises(ValueError, match="val.json: sequence 11 is in another split too"):
        build(raw)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder; give that of AMASS"):
        build(raw, amass_dir=raw / "nowhere")
    with pytest.raises(FileNotFoundError, match="train.json: no such file; give the folder of BABEL's labels"):
        build(raw, babel_dir=raw)


def test_one_command_builds_it_from_files_of_amass(raw, capsys):
    for gender in ("male", "female"):
        write_body_model(raw / "smplh", gender, 2.0)
    for name in ("KIT/3/walk", "CMU/CMU/07/step", "SSM/sit"):
        write_recording(raw / f"amass/{name}_poses.npz", "male", frames=600)
    command = ["build-data", "babel", str(raw / "built"), "--amass", str(raw / "amass"), "--babel", str(raw / "babel")]
    assert main(command) == 2
    assert "give --smplh" in capsys.readouterr().err
    assert main([*command, "--smplh", str(raw / "smplh")]) == 0
    assert "3 clips written" in capsys.readouterr().out
    joints = read_array(raw / "built/source/joints/11.npy")
    assert joints.shape == (100, 22, 3) and np.ptp(joints[0, :, 1]) > 2 * np.ptp(joints[0, :, 2])
    assert joints[-1, 0, 2] < joints[0, 0, 2] - 1 and joints[0, 1, 0] < joints[0, 2, 0]  # as HumanML3D turns it
    assert main(["build-data", "babel", "out", "--amass", "x", "--smplh", "y"]) == 2
    assert "give --babel" in capsys.readouterr().err
