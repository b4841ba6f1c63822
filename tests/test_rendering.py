"""`geomotiongpt render`: every format from files of features or joints, and one clear line for bad input."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geomotiongpt import GeoMotionGPTForCausalLM, GeoMotionGPTProcessor, features_to_joints, joints_to_features
from geomotiongpt.cli import main
from geomotiongpt.data.synthetic import generate_synthetic_clips
from geomotiongpt.models.motion_representation import get_motion_representation
from geomotiongpt.visualization.export import SUFFIXES


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    """Features of 41 frames, and joints of 30."""
    folder = tmp_path_factory.mktemp("motions")
    first, second = (clip.joints for clip in generate_synthetic_clips(2, seed=3))
    np.save(folder / "walk.npy", joints_to_features(first[:42]))
    np.save(folder / "joints.npy", second[:30])
    return folder / "walk.npy", folder / "joints.npy"


def render(*argv) -> int:
    return main(["render", *map(str, argv)])


def page_data(path: Path) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"))[1])


@pytest.fixture
def fail(capsys, tmp_path):
    """Runs a command that must exit with 2, one line on standard error and nothing written; returns that line."""

    def fail(*argv) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert render(*argv) == 2
        captured = capsys.readouterr()
        (line,) = [line for line in captured.err.splitlines() if line.startswith("geomotiongpt render: error: ")]
        assert captured.out == "" and captured.err.endswith(line + "\n") and sorted(tmp_path.rglob("*")) == before
        return line.removeprefix("geomotiongpt render: error: ")

    return fail


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", [0, 1], ids=["features", "joints"])
def test_every_format_of_features_and_joints(suffix, kind, files, tmp_path, capsys):
    path = tmp_path / "new folder" / f"out{suffix}"
    assert render(files[kind], "-o", path, "--caption", "a person walks") == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert path.stat().st_size > 1000 and list(path.parent.iterdir()) == [path]


def test_a_motion_is_not_overwritten_by_its_picture(fail, files, tmp_path):
    np.savez(tmp_path / "walk.npz", joints=np.load(files[1]), fps=20)
    before = (tmp_path / "walk.npz").read_bytes()
    (tmp_path / "link.npz").symlink_to(tmp_path / "walk.npz")
    for output in ("walk.npz", "link.npz"):
        assert "is the motion itself, and would be lost" in fail(tmp_path / "walk.npz", "-o", tmp_path / output)
    (tmp_path / "folder.html").mkdir()
    assert "folder.html is a folder" in fail(tmp_path / "walk.npz", "-o", tmp_path / "folder.html")
    assert (tmp_path / "walk.npz").read_bytes() == before


def test_the_motion_in_the_file_is_what_comes_out(files, tmp_path):
    assert render(files[0], "-o", tmp_path / "a.npz", "--fps", 25, "--caption", "läuft") == 0
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        features = np.load(files[0])
        assert np.array_equal(archive["features"], features) and archive["fps"] == 25
        assert np.allclose(archive["joints"], features_to_joints(features), atol=1e-5)
        assert str(archive["caption"]) == "läuft"


@pytest.fixture
def other_joints(files, tmp_path) -> tuple[Path, Path]:
    """The 24 joints of SMPL, and joints of another count with a mapping beside them; 30 frames each."""
    joints = np.load(files[1])
    np.save(tmp_path / "smpl.npy", np.concatenate([joints, joints[:, 20:22]], 1))
    np.save(tmp_path / "more.npy", np.concatenate([joints, np.repeat(joints[:, 20:21], 8, 1)], 1))
    names = get_motion_representation("humanml3d").joint_names
    (tmp_path / "map.json").write_text(json.dumps({name: str(index) for index, name in enumerate(names)}))
    return tmp_path / "smpl.npy", tmp_path / "more.npy"


def test_the_frame_rate_of_joints_that_are_imported_is_theirs(files, other_joints, tmp_path, capsys):
    smpl, more = other_joints
    assert render(smpl, "-o", tmp_path / "a.npz", "--fps", 60) == 0
    assert "frame rate" not in capsys.readouterr().err
    assert render(more, "-o", tmp_path / "b.npz", "--fps", 60, "--mapping", tmp_path / "map.json") == 0
    assert render(files[1], "-o", tmp_path / "c.npz", "--fps", 60, "--unit", "m") == 0
    for name in "abc":
        with np.load(tmp_path / f"{name}.npz", allow_pickle=False) as archive:
            assert (archive["fps"], len(archive["joints"])) == (20, 10)
    assert render(smpl, "-o", tmp_path / "d.npz") == 0
    assert "nothing in it tells the frame rate: 20 a second are taken; give --fps" in capsys.readouterr().err


def test_the_frame_rate_of_files_of_two_kinds_is_not_guessed(files, other_joints, tmp_path, fail):
    said = fail(files[1], other_joints[0], "-o", tmp_path / "a.html", "--fps", 60)
    assert said == "--fps: of which files? Some are taken as they are, others imported; render them apart."
    assert render(files[1], other_joints[0], "-o", tmp_path / "a.html") == 0


def test_several_files_stand_side_by_side_under_their_names(files, tmp_path):
    assert render(*files, "-o", tmp_path / "a.html") == 0
    assert [motion["caption"] for motion in page_data(tmp_path / "a.html")["motions"]] == ["walk", "joints"]
    assert render(*files, "-o", tmp_path / "b.html", "--caption", "one", "--caption", "two") == 0
    assert [motion["caption"] for motion in page_data(tmp_path / "b.html")["motions"]] == ["one", "two"]
    assert render(*files, "-o", tmp_path / "a.gif") == 0
    with Image.open(tmp_path / "a.gif") as image:
        assert image.width > 640


def test_the_page_shows_the_tokens_of_a_model(files, tiny_model_folder, tmp_path):
    assert render(*files, "-o", tmp_path / "a.html", "--model", tiny_model_folder) == 0
    found = page_data(tmp_path / "a.html")["motions"]
    model = GeoMotionGPTForCausalLM.from_pretrained(tiny_model_folder)
    extractor = GeoMotionGPTProcessor.from_pretrained(tiny_model_folder).feature_extractor
    for motion, path, count in zip(found, files, (5, 3), strict=True):
        codes = model.motion_tokenizer.encode(**extractor(np.load(path))).motion_codes[0].tolist()
        assert motion["codes"] == codes and len(codes) == count and motion["framesPerCode"] == 8
    assert render(files[0], "-o", tmp_path / "one.html", "--model", tiny_model_folder) == 0
    assert page_data(tmp_path / "one.html")["motions"][0]["codes"] == found[0]["codes"]


def test_kit_motion_has_its_own_skeleton(tmp_path):
    motion = np.random.default_rng(0).normal(size=(5, 21, 3)) * 300
    np.save(tmp_path / "kit.npy", motion)
    assert render(tmp_path / "kit.npy", "-o", tmp_path / "a.csv", "--representation", "kitml") == 0
    assert (tmp_path / "a.csv").read_text().startswith("frame,time,root_x,")


def test_bad_input_ends_in_one_line(files, tiny_model_folder, tmp_path, fail):
    out = tmp_path / "a.html"
    assert "none.npy: no such motion file" in fail(tmp_path / "none.npy", "-o", out)
    assert "must end in .html or .gif" in fail(files[0], "-o", tmp_path / "a.fbx")
    assert "2 motions; give one" in fail(*files, "-o", tmp_path / "a.bvh")
    assert "1 captions for 2 files" in fail(*files, "-o", out, "--caption", "one")
    assert "shown by .html only" in fail(files[0], "-o", tmp_path / "a.gif", "--model", tiny_model_folder)
    line = fail(files[0], "-o", out, "--representation", "kitml")
    assert str(files[0]) in line and "(frames, 21, 3)" in line
    line = fail(files[0], "-o", out, "--model", tiny_model_folder, "--representation", "kitml")
    assert "takes humanml3d" in line
    assert "no such folder" in fail(files[0], "-o", out, "--model", tmp_path / "model")
    assert "fps=-1.0" in fail(files[0], "-o", out, "--fps", -1)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array(["walk", "jump"]), "could not convert"),
        (np.full((9, 22, 3), np.nan), "joint 0 of frame 0 is not finite"),
        (np.zeros((9, 5)), "(9, 5)"),
        (np.zeros((0, 22, 3)), "(0, 22, 3)"),
    ],
    ids=["words", "nan", "width", "empty"],
)
def test_files_without_a_motion_are_named(array, said, tmp_path, fail):
    path = tmp_path / "bad.npy"
    np.save(path, array)
    line = fail(path, "-o", tmp_path / "a.glb")
    assert line.startswith(f"{path}: ") and said in line


def test_pickled_and_broken_files_are_refused(tmp_path, fail):
    np.save(tmp_path / "pickle.npy", np.array([{"a": 1}]), allow_pickle=True)
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY half")
    for name in ("pickle.npy", "broken.npy"):
        assert "not a readable .npy file" in fail(tmp_path / name, "-o", tmp_path / "a.glb")
