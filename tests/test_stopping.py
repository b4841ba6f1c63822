"""Ctrl-C, SIGTERM and a reader that goes away end the command in good order, whatever it is doing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from geomotiongpt import make_synthetic_dataset
from geomotiongpt.cli import main

pytestmark = pytest.mark.slow
RECIPES = Path(__file__).parent / "training"
COMMAND = [
    sys.executable,
    "-c",
    """
import signal, sys
from geomotiongpt.cli import main

def install_and_tell(number, handler):
    before = install(number, handler)
    if number == signal.SIGINT:
        signal.signal = install
        print("ready", file=sys.stderr)
    return before

install, signal.signal = signal.signal, install_and_tell
sys.argv[0] = "geomotiongpt"
sys.exit(main())
""",
]
UNFINISHED = (".partial", ".tmp")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Sixty embedded motions."""
    folder = tmp_path_factory.mktemp("stopping") / "data"
    make_synthetic_dataset(folder, 60, seed=0)
    return folder


@pytest.fixture(scope="module")
def long_clip(data, tmp_path_factory) -> Path:
    """Twenty minutes of features."""
    path = tmp_path_factory.mktemp("long") / "long.npy"
    clip = np.load(next((data / "new_joint_vecs").glob("*.npy")), allow_pickle=False)
    np.save(path, np.tile(clip, (24_000 // len(clip), 1)))
    return path


@pytest.fixture
def stop(tmp_path):
    """Starts a command, signals its whole group once `is_at_work`, and gives exit code, output and errors."""

    def stop(*argv, is_at_work: Callable[[], bool], number: int = signal.SIGINT) -> tuple[int, str, str]:
        environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
        with open(tmp_path / "stdout", "w+") as out, open(tmp_path / "stderr", "w+") as err:
            process = subprocess.Popen(
                [*COMMAND, *map(str, argv)], stdout=out, stderr=err, env=environment, start_new_session=True
            )
            try:
                deadline = time.monotonic() + 240
                while process.poll() is None and not is_at_work():
                    assert time.monotonic() < deadline, "the command does not get to work"
                    time.sleep(0.01)
                assert process.poll() is None, f"over before it was stopped: {(tmp_path / 'stderr').read_text()}"
                os.killpg(process.pid, number)
                code = process.wait(timeout=120)
                with pytest.raises(ProcessLookupError):  # no worker outlives it
                    os.killpg(process.pid, 0)
            finally:
                with suppress(ProcessLookupError):  # of a test that failed
                    os.killpg(process.pid, signal.SIGKILL)
        return code, (tmp_path / "stdout").read_text(), (tmp_path / "stderr").read_text()

    return stop


def unfinished(folder: Path) -> list[Path]:
    """What was written aside and is still there."""
    return [path for path in folder.rglob(".*") if path.name.endswith(UNFINISHED)]


def says_so(errors: str, verb: str, advice: str = "") -> bool:
    """One line, the last, and no traceback."""
    line = f"geomotiongpt {verb}: stopped{f'; {advice}' if advice else ''}"
    return errors.splitlines()[-1] == line and "Traceback" not in errors and "Exception ignored" not in errors


def test_build_data_goes_on_after_it_was_stopped(data, tmp_path, stop):
    source, output = tmp_path / "source", tmp_path / "built"
    source.mkdir()
    shutil.copytree(data / "new_joints", source / "joints")
    shutil.copytree(data / "texts", source / "texts")
    for name in ("train", "val", "test"):
        shutil.copy(data / f"{name}.txt", source)
    made = lambda: len(list(output.glob("new_joint_vecs/*.npy")))  # noqa: E731
    argv = ("build-data", source, output, "--no-mirror", "--num-proc", 2)
    code, _, errors = stop(*argv, is_at_work=made)
    assert code == 130 and says_so(errors, "build-data", "the same command goes on")
    assert not unfinished(output) and not list(output.glob("*.txt")) and not (output / "Mean.npy").exists()
    assert main(list(map(str, argv))) == 0
    assert (output / "Mean.npy").is_file() and made() == 120


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_render_leaves_no_file(number, long_clip, tmp_path, stop):
    output = tmp_path / "out" / "long.gif"
    code, _, errors = stop("render", long_clip, "-o", output, is_at_work=lambda: unfinished(tmp_path), number=number)
    assert code == 128 + number and says_so(errors, "render")
    assert list(output.parent.iterdir()) == []


def test_generate_leaves_no_folder(tiny_model_folder, tmp_path, stop):
    output = tmp_path / "generated"
    argv = ("generate", tiny_model_folder, "a person walks.", "--num-samples", 64, "--output", output)
    code, out, errors = stop(*argv, is_at_work=lambda: list(tmp_path.glob(".generated.*/*.gif")))
    assert code == 130 and says_so(errors, "generate") and out == ""
    assert not output.exists() and not unfinished(tmp_path)


def test_caption_leaves_whole_files_only(tiny_model_folder, long_clip, tmp_path, stop):
    files = [long_clip.with_name(f"{name}.npy") for name in "abcdefgh"]
    for path in files:
        shutil.copy(long_clip, path)
    output = tmp_path / "captions"
    argv = ("caption", tiny_model_folder, *files, "--segments", "--output", output, "--format", "srt")
    code, out, errors = stop(*argv, is_at_work=lambda: (output / "a.srt").exists())
    assert code == 130 and says_so(errors, "caption")
    assert (output / "a.srt").read_text().endswith("\n\n") and not (output / "h.srt").exists()
    assert not unfinished(output)


def test_evaluate_goes_on_after_it_was_stopped(tiny_model_folder, data, tmp_path, stop):
    output = tmp_path / "evaluation"
    argv = ["evaluate", tiny_model_folder, "--data", data, "--split", "test", "--batch-size", 1, "--output", output]
    rows = lambda: [row for part in output.glob("*.part") for row in part.read_text().splitlines()]  # noqa: E731
    code, _, errors = stop(*argv, is_at_work=rows)
    assert code == 130 and says_so(errors, "evaluate", "the same command goes on with what it had made")
    assert rows() and not (output / "result.json").exists() and not unfinished(output)
    begun = rows()
    assert main(list(map(str, argv))) == 0
    finished = list(map(json.loads, (output / "predictions.jsonl").read_text().splitlines()))
    assert (output / "result.json").is_file() and all(json.loads(row) in finished for row in begun)


def train(data: Path, output: Path, *overrides: str) -> list[str]:
    fixed = ("training.max_steps=100000", "training.save_steps=3")
    return ["train-tokenizer", str(RECIPES / "motion_tokenizer.yaml"), f"data.path={data}", *fixed, *overrides,
            f"training.output_dir={output}"]  # fmt: skip


def test_training_says_where_its_last_checkpoint_is(data, tmp_path, stop):
    output = tmp_path / "run"
    ready = lambda: (output / "checkpoint-3" / "trainer_state.json").exists()  # noqa: E731
    code, _, errors = stop(*train(data, output, "training.save_strategy=steps"), is_at_work=ready)
    assert code == 130
    last = max(output.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    advice = f"the last checkpoint is {last}; training.resume_from_checkpoint=true goes on from there"
    assert says_so(errors, "train-tokenizer", advice)
    for checkpoint in output.glob("checkpoint-*"):
        assert (checkpoint / "trainer_state.json").is_file(), "written to the end, or not there"
    assert not (output / "config.json").exists() and not unfinished(output)


def test_training_without_checkpoints_leaves_nothing(data, tmp_path, stop):
    output = tmp_path / "run"
    code, _, errors = stop(*train(data, output), is_at_work=lambda: "loss" in (tmp_path / "stdout").read_text())
    assert code == 130 and not output.exists()
    assert says_so(errors, "train-tokenizer", "there is no checkpoint; training.save_strategy=steps makes some")


@pytest.mark.parametrize("seconds", [0, 0.7, 1.4, 2.1])
def test_a_stop_while_libraries_are_imported_is_one_line(seconds, tiny_model_folder, tmp_path, stop):
    """An exception in an import hook may get lost, or become another one."""
    at: list[float] = []

    def is_at_work() -> bool:
        if not at and "ready" in (tmp_path / "stderr").read_text():
            at.append(time.monotonic() + seconds)
        return bool(at) and time.monotonic() > at[0]

    argv = ("generate", tiny_model_folder, "a person walks.", "--num-samples", 64, "--output", tmp_path / "generated")
    code, out, errors = stop(*argv, is_at_work=is_at_work)
    assert code == 130 and out == "" and not (tmp_path / "generated").exists()
    assert says_so(errors.replace("geomotiongpt: stopped", "geomotiongpt generate: stopped"), "generate")


def test_who_insists_is_obeyed_at_once(tmp_path):
    """Ctrl-C again while what is open is put away; one that comes at once is the first, passed on by a launcher."""
    code = (
        "import argparse, sys, time\nfrom geomotiongpt.console import run_verb\n"
        "def run(_):\n"
        "    try:\n        print('at work', flush=True); time.sleep(60)\n"
        "    finally:\n        print('closing', flush=True); time.sleep(60)\n"
        "sys.exit(run_verb(lambda: argparse.Namespace(verb='render', run=run, when_stopped=None)))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "closing\n"
    process.send_signal(signal.SIGINT)
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    process.stdout.close()


@pytest.mark.parametrize("argv", [["evaluate", "--help"], ["--print-completion", "bash"], ["caption"]])
def test_a_reader_that_goes_away_is_no_error(argv, tiny_model_folder, data, tmp_path):
    if argv == ["caption"]:
        files = sorted((data / "new_joint_vecs").glob("*.npy"))[:4]
        argv = ["caption", tiny_model_folder, *files, "--segments", "--format", "json"]
    reading, writing = os.pipe()
    os.close(reading)  # as after `| head -1`
    done = subprocess.run([*COMMAND, *map(str, argv)], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr and "rror" not in done.stderr
