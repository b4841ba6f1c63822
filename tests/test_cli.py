"""The `geomotiongpt` command: help, captions, and one clear line for whatever cannot be used."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from transformers import GenerationConfig, pipeline

from geomotiongpt import (
    MotionFeatureExtractor,
    MotionTokenizer,
    MotionTokenizerConfig,
    __version__,
    make_synthetic_dataset,
)
from geomotiongpt.cli import _parser, main

RECIPES = Path(__file__).parent / "training"
FIRST, SECOND = RECIPES / "motion_tokenizer.yaml", RECIPES / "language_model.yaml"
VERBS = tuple(next(iter(_parser()._subparsers._group_actions)).choices)


@pytest.fixture(scope="session", autouse=True)
def arrow_cache(tmp_path_factory) -> Path:
    """Arrow files of the tests do not go into the user's cache."""
    folder = tmp_path_factory.mktemp("datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
        yield folder


@pytest.fixture(scope="session")
def motion_folder(tmp_path_factory) -> Path:
    """Twenty embedded motions."""
    folder = tmp_path_factory.mktemp("motion_folder") / "data"
    make_synthetic_dataset(folder, 20, seed=0)
    return folder


@pytest.fixture(scope="module")
def files(motion_folder) -> list[str]:
    """Two files of features and one of joints."""
    ids = (motion_folder / "test.txt").read_text().split()
    return [
        str(motion_folder / "new_joint_vecs" / f"{ids[0]}.npy"),
        str(motion_folder / "new_joint_vecs" / f"{ids[1]}.npy"),
        str(motion_folder / "new_joints" / f"{ids[0]}.npy"),
    ]


@pytest.fixture
def fail(capsys):
    """Runs a verb that must exit with 2 and one line on standard error; returns that line."""

    def fail(*argv) -> str:
        assert main([str(argument) for argument in argv]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "Traceback" not in captured.err
        lines = captured.err.strip().splitlines()
        start = f"geomotiongpt {argv[0]}: error: "
        assert [index for index, line in enumerate(lines) if line.startswith(start)] == [len(lines) - 1]
        assert len(lines[-1]) < 700
        return lines[-1].removeprefix(start)

    return fail


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out == f"geomotiongpt {__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_has_an_example(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert f"example: geomotiongpt {verb} " in text


@pytest.mark.parametrize("argv", [[], ["explain"], ["caption"], ["caption", "model"], ["train"]])
def test_incomplete_command_exits_with_2(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    assert "usage: geomotiongpt" in capsys.readouterr().err


def test_one_file_prints_its_caption(tiny_model_folder, files, capsys):
    assert main(["caption", str(tiny_model_folder), files[0]]) == 0
    expected = pipeline("motion-to-text", model=str(tiny_model_folder))(files[0])["generated_text"]
    assert capsys.readouterr().out == expected + "\n"
    assert expected


def test_many_files_of_features_and_joints_print_a_line_each(tiny_model_folder, files, capsys):
    assert main(["caption", str(tiny_model_folder), *files, "--batch-size", "2"]) == 0
    plain = capsys.readouterr().out
    assert main(["caption", str(tiny_model_folder), *files, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file"] for row in rows] == files and all(set(row) == {"file", "caption"} for row in rows)
    assert plain == "".join(f"{row['file']}: {row['caption']}\n" for row in rows)


def test_the_caption_example_prints_what_the_command_prints(tiny_model_folder, files, capsys, monkeypatch):
    main(["caption", str(tiny_model_folder), *files[:2]])
    expected = capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["caption.py", str(tiny_model_folder), *files[:2]])
    runpy.run_path(str(Path(__file__).parents[1] / "examples" / "caption.py"), run_name="__main__")
    assert capsys.readouterr().out == expected


def bad_motion(kind: str, folder: Path) -> Path:
    """A file that cannot be captioned."""
    path = folder / f"{kind}.npy"
    rng = np.random.default_rng(0)
    frames = {"one_frame": 1, "ten_thousand_frames": 10_000, "long": 920}.get(kind, 40)
    clip = rng.normal(size=(frames, 251 if kind == "wrong_width" else 263)).astype(np.float32)
    if kind == "nan":
        clip[7, 3] = np.nan
    if kind == "words":
        clip = np.array(["walk", "jump"])
    np.save(path, clip)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    if kind == "text":
        path.write_text("not an array")
    if kind == "empty":
        path.write_bytes(b"")
    if kind == "pickled":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    if kind == "missing":
        path.unlink()
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such motion file"),
        ("truncated", "not a readable .npy file"),
        ("text", "not a readable .npy file"),
        ("empty", "not a readable .npy file"),
        ("pickled", "not a readable .npy file"),
        ("words", "takes features (frames, 263) or joints (frames, 22, 3)"),
        ("nan", "NaN or infinite value, first in frame 7"),
        ("wrong_width", "takes features (frames, 263) or joints (frames, 22, 3)"),
        ("one_frame", "has 1 frames; the model takes 8"),
        ("ten_thousand_frames", "the language model 128"),
    ],
)
def test_unusable_motion_is_named(kind, message, tiny_model_folder, files, tmp_path, fail):
    """Also when it comes last in a batch: nothing is captioned then."""
    path = bad_motion(kind, tmp_path)
    line = fail("caption", tiny_model_folder, *files[:2], path)
    assert str(path) in line and message in line


def model_copy(source: Path, folder: Path) -> Path:
    """The folder with links to what is in another."""
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def test_motion_that_leaves_no_room_for_an_answer_is_refused(tiny_model_folder, tmp_path, fail):
    """115 codes fit into 128 positions, the 40 tokens of the answer do not."""
    folder = model_copy(tiny_model_folder, tmp_path / "model")
    (folder / "generation_config.json").unlink()
    GenerationConfig(max_new_tokens=40, eos_token_id=0, pad_token_id=0).save_pretrained(folder)
    assert "128 positions" in fail("caption", folder, bad_motion("long", tmp_path))


def test_missing_model_folder_is_named(files, tmp_path, fail):
    assert fail("caption", tmp_path / "nothing", files[0]) == f"{tmp_path / 'nothing'}: no such folder."
    assert "holds no config.json" in fail("caption", tmp_path, files[0])


def test_folder_without_weights_is_named(tiny_model_folder, files, tmp_path, fail):
    folder = model_copy(tiny_model_folder, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    assert f"{folder} holds no *.safetensors" in fail("caption", folder, files[0])


@pytest.mark.parametrize("damage", ["truncated weights", "broken config", "no processor"])
def test_damaged_model_folder_is_named(damage, tiny_model_folder, files, tmp_path, fail):
    folder = model_copy(tiny_model_folder, tmp_path / "model")
    name = {"truncated weights": "model.safetensors", "broken config": "config.json"}.get(
        damage, "processor_config.json"
    )
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if damage != "no processor":
        (folder / name).write_bytes(content[: len(content) // 2])
    assert str(folder) in fail("caption", folder, files[0])


def test_folder_of_a_motion_tokenizer_is_not_captioned_with(tiny_model_folder, files, fail):
    folder = tiny_model_folder / "motion_tokenizer"
    assert str(folder) in fail("caption", folder, files[0])


def train_first(motion_folder: Path, output: Path, *overrides: str) -> list[str]:
    return ["train-tokenizer", str(FIRST), f"data.path={motion_folder}", f"training.output_dir={output}", *overrides]


def test_recipe_that_cannot_be_read_is_named(tmp_path, fail):
    assert "nowhere.yaml: no such recipe" in fail("train", tmp_path / "nowhere.yaml")
    (tmp_path / "broken.yaml").write_text("model: [\n  a: b:\n")
    assert "broken.yaml is not valid YAML" in fail("train-tokenizer", tmp_path / "broken.yaml")
    assert "did you mean 'num_codes'" in fail("train-tokenizer", FIRST, "model.num_code=3")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.path=NOWHERE/motions", "NOWHERE/motions"),
        ("data.representation=kitml", "shape (263,), wanted (251,)"),
        ("data.representation=smpl", "humanml3d"),
        (
            "data.train_split=training",
            "training.txt: no such split list; lists in this folder: train, val, test, empty",
        ),
        ("data.eval_split=empty", "empty.txt: the split is empty"),
        ("data.min_frames=5000", "no usable item in the split"),
        ("training.max_steps=many", "max_steps"),
        ("model.num_codes=many", "num_codes"),
        ("training.resume_from_checkpoint=NOWHERE/checkpoint-4", "NOWHERE/checkpoint-4"),
    ],
)
def test_recipe_with_unusable_data_or_values_is_refused(override, message, motion_folder, tmp_path, fail):
    """And nothing is written."""
    data = tmp_path / "data"
    data.mkdir()
    for path in motion_folder.iterdir():
        (data / path.name).symlink_to(path)
    (data / "empty.txt").touch()
    override, message = (text.replace("NOWHERE", str(tmp_path / "nowhere")) for text in (override, message))
    assert message in fail(*train_first(data, tmp_path / "run", override))
    assert not (tmp_path / "run" / "config.json").exists()


def test_motion_tokenizer_of_another_representation_is_refused(motion_folder, tmp_path, fail):
    config = MotionTokenizerConfig(num_features=251, num_codes=16, code_dim=16, hidden_size=8, num_residual_layers=1)
    MotionTokenizer(config).save_pretrained(tmp_path / "kit")
    MotionFeatureExtractor("kitml").save_pretrained(tmp_path / "kit")
    common = [f"data.path={motion_folder}", f"training.output_dir={tmp_path / 'run'}"]
    line = fail("train", SECOND, *common, f"model.motion_tokenizer={tmp_path / 'kit'}")
    assert f"{tmp_path / 'kit'} takes 'kitml' motions, the recipe's data are 'humanml3d'" in line
    missing = tmp_path / "nowhere" / "tokenizer"
    assert str(missing) in fail("train", SECOND, *common, f"model.motion_tokenizer={missing}")
    assert not (tmp_path / "run").exists()


def test_output_that_cannot_be_written_is_named_before_training(motion_folder, tmp_path, fail):
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in fail(*train_first(motion_folder, tmp_path / "file" / "run"))


def test_published_checkpoint_that_is_none_is_named(tmp_path, fail):
    (tmp_path / "weights.pth").write_bytes(b"not a checkpoint")
    assert str(tmp_path / "weights.pth") in fail("convert", tmp_path / "weights.pth", tmp_path / "out")
    assert "missing.pth: no such checkpoint" in fail("convert", tmp_path / "missing.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sources_that_are_missing_are_named(tmp_path, fail):
    assert str(tmp_path / "raw") in fail("build-data", tmp_path / "raw", tmp_path / "built")
    assert str(tmp_path / "gone") in fail("push", tmp_path / "gone", "tester/model")


FULL_DISK = """
import json, resource, sys
import geomotiongpt
from geomotiongpt.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
sys.exit(0 if [main(argv) for argv in json.loads(sys.argv[1])] == [2, 2] else 1)
"""


@pytest.mark.slow
def test_full_disk_leaves_no_model_that_looks_complete(motion_folder, arrow_cache, tmp_path):
    """Writing stops at 100 kB, in the middle of the weights; a model that was there before stays as it was."""
    output = tmp_path / "run"
    small = ("training.max_steps=1", "data.mirrored=false")
    assert main(train_first(motion_folder, output, *small)) == 0
    before = (output / "model.safetensors").read_bytes()
    assert len(before) > 150_000
    environment = {**os.environ, "HF_DATASETS_CACHE": str(arrow_cache), "OMP_NUM_THREADS": "1"}
    folders = (output, tmp_path / "new")
    commands = [train_first(motion_folder, folder, *small, "training.seed=1") for folder in folders]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, json.dumps(commands)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("geomotiongpt train-tokenizer: error: ")]
    for folder, error in zip(folders, errors, strict=True):
        assert f"{folder}: the model cannot be saved" in error
    assert (output / "model.safetensors").read_bytes() == before
    assert not any((folders[1] / name).exists() for name in ("model.safetensors", "config.json", "trainer_state.json"))
    assert not [path for folder in folders for path in folder.rglob("*partial*")]
