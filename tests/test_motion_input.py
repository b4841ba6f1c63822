"""Motion files of other programs on the command line: captioned and gone on from, with a report and clear errors."""

import json

import numpy as np
import pytest
from rigs import make_rig
from transformers import pipeline

import geomotiongpt as gm
from geomotiongpt.cli import main


@pytest.fixture
def rig_file(tmp_path):
    """A rig of three seconds."""
    return gm.write_bvh(make_rig("mixamo", 90), tmp_path / "walk.bvh")


def test_files_of_any_kind_are_captioned_like_their_joints(tiny_model_folder, rig_file, clips, tmp_path, capsys):
    joints = gm.import_motion(rig_file).joints
    np.save(tmp_path / "features.npy", clips[0])
    np.savez(tmp_path / "joints.npz", joints=joints, fps=20)
    files = [str(rig_file), str(tmp_path / "features.npy"), str(tmp_path / "joints.npz")]
    assert main(["caption", str(tiny_model_folder), *files, "--json"]) == 0
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    describe = pipeline("motion-to-text", model=str(tiny_model_folder))
    expected = [result["generated_text"] for result in describe([joints, clips[0], joints])]
    assert [row["file"] for row in rows] == files and [row["caption"] for row in rows] == expected
    assert "warning" not in captured.err and "left_hip" not in captured.err


def test_arrays_of_other_joints_are_imported(tiny_model_folder, rig_file, tmp_path, capsys):
    joints = gm.import_motion(rig_file).joints
    hands = joints[:, 20:] + [0.08, 0, 0]
    np.save(tmp_path / "smpl.npy", np.concatenate([joints, hands], axis=1))
    np.save(tmp_path / "fast.npy", gm.resample_joints(joints, 20, 60))
    np.save(tmp_path / "own.npy", joints)
    lines = []
    for options in (["smpl.npy"], ["fast.npy", "--fps", "60"], ["own.npy"]):
        assert main(["caption", str(tiny_model_folder), str(tmp_path / options[0]), *options[1:], "--report"]) == 0
        lines.append(capsys.readouterr())
    assert len({line.out for line in lines}) == 1 and "frame rate      60 (given)" in lines[1].err
    assert "joints in an .npy file" in lines[0].err and "left_hip" not in lines[2].err
    told = "nothing in it tells the frame rate: 20 a second are taken"
    assert [told in line.err for line in lines] == [True, False, False]


def test_the_report_stands_beside_the_caption_and_not_in_it(tiny_model_folder, rig_file, capsys):
    assert main(["caption", str(tiny_model_folder), str(rig_file)]) == 0
    plain = capsys.readouterr().out
    assert main(["caption", str(tiny_model_folder), str(rig_file), "--report", "--fps", "60"]) == 0
    captured = capsys.readouterr()
    assert "frame rate      60 (given)" in captured.err and "mixamorig:LeftUpLeg" in captured.err
    assert captured.out.count("\n") == plain.count("\n") == 1


def test_what_is_probably_wrong_is_said_without_a_report(tiny_model_folder, rig_file, capsys):
    text = rig_file.read_text()
    rig_file.write_text(text.replace("Left", "Other").replace("Right", "Left").replace("Other", "Right"))
    assert main(["caption", str(tiny_model_folder), str(rig_file)]) == 0
    assert f"{rig_file}: warning: the body is mirrored" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("short.bvh", [], "short.bvh has 7 frames; the model takes 8"),
        ("long.bvh", [], "long.bvh"),
        ("broken.bvh", [], "broken.bvh: it declares 90 frames"),
        ("gone.bvh", [], "gone.bvh: no such motion file"),
        ("walk.fbx", [], "wanted one of .bvh"),
        ("walk.bvh", ["--up", "w"], "up is 'w'"),
        ("walk.bvh", ["--mapping", "gone.yaml"], "gone.yaml: no such mapping file"),
        ("features.npy", ["--fps", "30", "--up", "z"], "features.npy: fps, up is of no use for features"),
    ],
)
def test_what_cannot_be_imported_is_one_line_with_its_file(
    name, options, message, tiny_model_folder, rig_file, clips, tmp_path, capsys
):
    gm.write_bvh(make_rig("mixamo", 10), tmp_path / "short.bvh")
    gm.write_bvh(make_rig("mixamo", 4000), tmp_path / "long.bvh")
    np.save(tmp_path / "features.npy", clips[0])
    (tmp_path / "broken.bvh").write_text(rig_file.read_text()[:-2000])
    (tmp_path / "walk.fbx").write_bytes(b"Kaydara FBX Binary")
    assert main(["caption", str(tiny_model_folder), str(rig_file), str(tmp_path / name), *options]) == 2
    captured = capsys.readouterr()
    error = captured.err.strip().splitlines()[-1]
    assert error.startswith("geomotiongpt caption: error: ") and message in error
    assert captured.out == "" and "Traceback" not in captured.err


def test_a_motion_file_is_gone_on_from(tiny_model_folder, rig_file, tmp_path, capsys):
    given = ["--task", "motion-prediction", "--motion", str(rig_file), "--fps", "60", "--keep", "16", "0"]
    options = ["--frames", "40", "--no-animation", "--output", str(tmp_path / "out")]
    assert main(["generate", str(tiny_model_folder), *given, *options]) == 0
    make = pipeline("text-to-motion", model=str(tiny_model_folder))
    joints = gm.import_motion(rig_file, fps=60).joints
    expected = make(motion=joints, task="motion-prediction", keep=(16, 0), num_frames=40, seed=0, top_k=0)
    assert np.array_equal(np.load(tmp_path / "out" / "000.npy"), expected["motion"])
    assert main(["generate", str(tiny_model_folder), "a person walks", "--fps", "60", "--output", "unused"]) == 2
    assert "fps: no effect without a motion file" in capsys.readouterr().err


def test_the_missing_library_of_c3d_is_told_with_its_extra(tiny_model_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "c3d", None)
    (tmp_path / "walk.c3d").write_bytes(b"x" * 1000)
    assert main(["caption", str(tiny_model_folder), str(tmp_path / "walk.c3d")]) == 2
    assert "c3d is not installed: pip install 'geomotiongpt[mocap]'" in capsys.readouterr().err
