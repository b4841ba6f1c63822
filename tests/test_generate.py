"""`geomotiongpt generate`: features, joints and pictures, whole or not at all, and one clear line for bad input."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

from geomotiongpt import features_to_joints, generation
from geomotiongpt.cli import main
from geomotiongpt.data.motion_folder import written_aside

FIRST, SECOND = "a person walks forward", "a man sits down slowly"


def generate(*argv) -> int:
    return main(["generate", *map(str, argv)])


def read_index(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "motions.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def output(tiny_model_folder, tmp_path_factory) -> Path:
    """Two motions of each of two captions."""
    folder = tmp_path_factory.mktemp("generate") / "motions"
    options = ["--num-samples", 2, "--frames", 20, "--seed", 4, "--output", folder]
    assert generate(tiny_model_folder, FIRST, SECOND, *options) == 0
    return folder


def test_every_motion_has_features_joints_a_picture_and_a_line(output, tiny_model_folder):
    rows = read_index(output)
    assert [(row["text"], row["sample"]) for row in rows] == [(FIRST, 0), (FIRST, 1), (SECOND, 0), (SECOND, 1)]
    assert all((row["task"], row["seed"], row["frames"]) == ("text-to-motion", 4, 20) for row in rows)
    assert all(row["seconds"] == 1.0 for row in rows)
    named = {row[name] for row in rows for name in ("file", "joints", "animation")}
    assert {path.name for path in output.iterdir()} == named | {"motions.jsonl"} and len(named) == 12
    make = pipeline("text-to-motion", model=str(tiny_model_folder))
    groups = make([FIRST, SECOND], num_samples=2, num_frames=20, seed=4, batch_size=16, top_k=0)
    for row, result in zip(rows, [result for group in groups for result in group], strict=True):
        motion = np.load(output / row["file"])
        assert np.array_equal(motion, result["motion"]) and motion.dtype == np.float32
        assert np.array_equal(np.load(output / row["joints"]), features_to_joints(motion))
        with Image.open(output / row["animation"]) as picture:
            assert picture.format == "GIF" and picture.n_frames == 20
    assert len({np.load(output / row["file"]).tobytes() for row in rows}) == 4


def test_the_same_command_gives_the_same_bytes(output, tiny_model_folder, tmp_path):
    options = ["--num-samples", 2, "--frames", 20, "--seed", 4, "--output", tmp_path / "again"]
    assert generate(tiny_model_folder, FIRST, SECOND, *options) == 0
    for path in output.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_a_sequence_is_one_motion(tiny_model_folder, tmp_path, capsys):
    options = ["--sequence", "--seconds", 1.2, "--format", "png", "--output", tmp_path / "out", "--temperature", 0]
    assert generate(tiny_model_folder, FIRST, SECOND, *options) == 0
    (row,) = read_index(tmp_path / "out")
    assert row["text"] == [FIRST, SECOND] and row["frames"] == 48
    with Image.open(tmp_path / "out" / row["animation"]) as picture:
        assert picture.format == "PNG"
    assert capsys.readouterr().out == f"{tmp_path / 'out' / '000.npy'}: 48 frames, 2.4 s\n"


def test_parts_of_a_motion_are_given(tiny_model_folder, clips, tmp_path):
    np.save(tmp_path / "walk.npy", clips[2])
    given = ["--motion", tmp_path / "walk.npy", "--no-animation"]
    between = ["--task", "motion-in-between", "--keep", 16, 24, *given]
    assert generate(tiny_model_folder, *between, "--output", tmp_path / "between") == 0
    prediction = ["--task", "motion-prediction", "--keep", 16, 0, "--frames", 40, *given, "--num-samples", 2]
    assert generate(tiny_model_folder, *prediction, "--output", tmp_path / "prediction") == 0
    assert generate(tiny_model_folder, "--task", "unconditional", "--no-animation", "--frames", 16, "--num-samples", 2,
                    "--output", tmp_path / "any") == 0  # fmt: skip
    assert [row["frames"] for row in read_index(tmp_path / "between")] == [64]
    assert [(row["frames"], row["sample"]) for row in read_index(tmp_path / "prediction")] == [(40, 0), (40, 1)]
    assert [(row["frames"], row["text"]) for row in read_index(tmp_path / "any")] == [(16, None)] * 2
    assert not list(tmp_path.rglob("*.gif"))
    make = pipeline("text-to-motion", model=str(tiny_model_folder))
    expected = make(motion=clips[2], task="motion-in-between", keep=(16, 24), seed=0, top_k=0)
    assert np.array_equal(np.load(tmp_path / "between" / "000.npy"), expected["motion"])


def test_decoding_options_reach_the_model(tiny_model_folder, tmp_path):
    make = pipeline("text-to-motion", model=str(tiny_model_folder))
    for name, options, kwargs in (
        ("beams", ["--num-beams", 6], {"num_beams": 6}),
        ("nucleus", ["--temperature", 3, "--top-p", 0.9], {"temperature": 3.0, "top_p": 0.9, "top_k": 0}),
        ("greedy", ["--temperature", 0], {"do_sample": False}),
    ):
        options = [*options, "--frames", 160, "--no-animation", "--output", tmp_path / name]
        assert generate(tiny_model_folder, FIRST, *options) == 0
        expected = make([FIRST], num_frames=160, seed=0, **kwargs)[0]["motion"]
        assert np.array_equal(np.load(tmp_path / name / "000.npy"), expected)
    motions = {np.load(tmp_path / name / "000.npy").tobytes() for name in ("beams", "nucleus", "greedy")}
    assert len(motions) == 3


def test_nothing_half_written_is_left(tiny_model_folder, tmp_path, monkeypatch, capsys):
    drawn, draw = [], generation._DRAW["gif"]

    def fail_at_the_second(*args, **kwargs):
        drawn.append(args)
        if len(drawn) == 2:
            raise OSError(28, "No space left on device")
        return draw(*args, **kwargs)

    monkeypatch.setitem(generation._DRAW, "gif", fail_at_the_second)
    assert generate(tiny_model_folder, FIRST, SECOND, "--frames", 16, "--output", tmp_path / "out") == 2
    assert "No space left" in capsys.readouterr().err
    assert len(drawn) == 2 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["where one works", "a link", "made before"])
def test_an_empty_folder_stays_the_one_it_is(kind, tiny_model_folder, tmp_path, monkeypatch):
    folder, output = tmp_path / "folder", tmp_path / "folder"
    folder.mkdir()
    identity = folder.stat().st_ino
    if kind == "where one works":
        monkeypatch.chdir(folder)
        output = Path(".")
    elif kind == "a link":
        output = tmp_path / "link"
        output.symlink_to(folder)
    assert generate(tiny_model_folder, FIRST, "--frames", 8, "--no-animation", "--output", output) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["000.npy", "000_joints.npy", "motions.jsonl"]
    assert folder.stat().st_ino == identity and (output / "motions.jsonl").is_file()


def test_what_came_into_the_folder_meanwhile_stays(tmp_path):
    with pytest.raises(FileExistsError, match="is no longer empty"), written_aside(tmp_path) as aside:
        (aside / "a").write_text("ours")
        (tmp_path / "a").write_text("theirs")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["theirs"]


def test_a_folder_in_use_is_left_alone(output, tiny_model_folder, tmp_path, capsys):
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    assert generate(tiny_model_folder, FIRST, "--output", output) == 2
    assert f"{output} exists and is not an empty folder" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    (tmp_path / "empty").mkdir()
    assert generate(tiny_model_folder, FIRST, "--frames", 8, "--no-animation", "--output", tmp_path / "empty") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["MODEL"], "give a TEXT"),
        (["MODEL", "walk", "--task", "motion-prediction"], "motion-prediction has no use for a TEXT"),
        (["MODEL", "--task", "motion-prediction"], "goes on from a motion: give `motion`"),
        (["MODEL", "--task", "motion-prediction", "--motion", "gone.npy"], "gone.npy: no such motion file"),
        (["MODEL", "walk", "--keep", "8", "8"], "no `motion` to keep frames of"),
        (["MODEL", "walk", " "], "give a TEXT"),
        (["MODEL", "--task", "unconditional", "--sequence"], "unconditional has no use for a TEXT or --sequence"),
        (["MODEL", "walk", "--seconds", "0"], "duration is 0.0 s"),
        (["MODEL", "walk", "--seconds", "inf"], "duration is inf s"),
        (["MODEL", "walk", "--seed", "-1"], "seed is -1"),
        (["MODEL", "walk", "--temperature", "0", "--num-samples", "2"], "a search finds the same motion every time"),
        (["MODEL", "walk", "--num-beams", "2", "--top-p", "0.5"], "have no effect on a search"),
        (["MODEL", "walk", "--top-p", "1.5"], "top-p 1.5"),
        (["MODEL/none", "walk"], "none: no such folder"),
        (["MODEL/motion_tokenizer", "walk"], "holds a 'motion_tokenizer' model"),
    ],
)
def test_what_cannot_be_made_is_one_clear_line(options, message, tiny_model_folder, tmp_path, capsys):
    options = [option.replace("MODEL", str(tiny_model_folder)) for option in options]
    assert generate(*options, "--output", tmp_path / "out") == 2
    captured = capsys.readouterr()
    error = captured.err.strip().splitlines()[-1]
    assert error.startswith("geomotiongpt generate: error: ") and message in error
    assert captured.out == "" and "Traceback" not in captured.err and not (tmp_path / "out").exists()


def test_the_example_writes_motions_and_animations(tiny_model_folder, tmp_path, monkeypatch, capsys):
    """Of a model that makes short motions."""
    model = tmp_path / "model"
    shutil.copytree(tiny_model_folder, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_motion_codes": 4}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["generate.py", str(model), FIRST, SECOND])
    runpy.run_path(str(Path(__file__).parents[1] / "examples" / "generate.py"), run_name="__main__")
    assert {path.name for path in tmp_path.iterdir()} == {"model", "0.npy", "0.gif", "1.npy", "1.gif"}
    expected = pipeline("text-to-motion", model=str(model))([FIRST, SECOND], seed=0)
    assert np.array_equal(np.load("1.npy"), expected[1]["motion"])
    frames = [result["num_frames"] for result in expected]
    assert capsys.readouterr().out.splitlines()[-2:] == [f"{row}.gif: {frames[row]} frames" for row in (0, 1)]
