"""Motions of a split do not depend on how often the run was stopped or who shares it, and nothing given is lost."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

from geomotiongpt.evaluation import generator
from geomotiongpt.evaluation.generator import MotionRequest, read_motions, write_motions

LENGTHS = (40, 24, 67, 24, 30, 90, 33)
DECODING = {"do_sample": True, "top_k": 0}
SETTINGS = {"batch_size": 2, **DECODING}


class KilledError(Exception):
    """Stands for a signal that ends the process."""


@pytest.fixture(scope="module")
def motions() -> datasets.Dataset:
    """Seven random motions of different length."""
    rng = np.random.default_rng(3)
    features = datasets.Features(
        motion_id=datasets.Value("string"),
        motion=datasets.Array2D((None, 263), "float32"),
        captions=datasets.List(datasets.Value("string")),
    )
    rows = {
        "motion_id": [f"clip{index}#1-9" for index in range(len(LENGTHS))],
        "motion": [rng.normal(size=(length, 263)).astype(np.float32) for length in LENGTHS],
        "captions": [[f"a person walks {index}", "another"] for index in range(len(LENGTHS))],
    }
    dataset = datasets.Dataset.from_dict(rows, features)
    return dataset.with_format("numpy", columns=["motion"], output_all_columns=True)


@pytest.fixture(scope="module")
def whole(tiny_model, tiny_processor, motions, tmp_path_factory) -> Path:
    """The folder of a run that was not stopped."""
    folder = tmp_path_factory.mktemp("whole") / "motions"
    write_motions(tiny_model, tiny_processor, motions, folder, MotionRequest(), **SETTINGS)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Of a folder of motions and the files beside it."""
    files = [path for path in folder.parent.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder.parent)): path.read_bytes() for path in files}


def codes_of(model, processor, features) -> list[int]:
    values = torch.from_numpy(processor.feature_extractor.normalise(features))[None]
    return model.motion_tokenizer.encode(values).motion_codes[0].tolist()


def test_a_motion_of_every_first_caption_is_written_with_what_was_asked_for(whole, motions):
    rows = [json.loads(line) for line in whole.with_name("motions.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == motions["motion_id"]
    assert [row["text"] for row in rows] == [captions[0] for captions in motions["captions"]]
    assert [row["asked_frames"] for row in rows] == list(LENGTHS)
    made = read_motions(whole)
    assert [len(group[0]) for group in made.motions] == list(LENGTHS)
    assert sorted(path.name for path in whole.iterdir()) == [f"{name}.npy" for name in sorted(motions["motion_id"])]
    assert sorted(path.name for path in whole.parent.glob("*.*")) == ["motions.jsonl", "motions.jsonl.settings.json"]


def test_motions_are_those_of_the_model_and_not_normalised(tiny_model, tiny_processor, motions, tmp_path):
    made = write_motions(tiny_model, tiny_processor, motions, tmp_path / "made", MotionRequest(), do_sample=False)
    said = tiny_model.generate_motion(
        motions[4]["captions"][0], num_frames=LENGTHS[4], processor=tiny_processor, do_sample=False
    )
    expected = tiny_processor.feature_extractor.denormalise(said.motion_values[0])
    assert np.allclose(made.motions[4][0], expected, atol=1e-4)
    assert made.codes[4][0] == said.motion_codes[0].tolist()


@pytest.mark.parametrize("torn", [b"", b'{"id": "clip5", "tex'], ids=["between lines", "within a line"])
def test_killed_run_goes_on_to_the_same_bytes(torn, tiny_model, tiny_processor, motions, whole, tmp_path, monkeypatch):
    calls, make_batch = [], generator._make_batch

    def make_twice(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KilledError
        return make_batch(*args)

    monkeypatch.setattr(generator, "_make_batch", make_twice)
    with pytest.raises(KilledError):
        write_motions(tiny_model, tiny_processor, motions, tmp_path / "motions", MotionRequest(), **SETTINGS)
    assert not (tmp_path / "motions.jsonl").exists()
    with open(tmp_path / "motions.jsonl.0.part", "ab") as file:
        file.write(torn)
    made = write_motions(tiny_model, tiny_processor, motions, tmp_path / "motions", MotionRequest(), **SETTINGS)
    assert len(calls) == 3 + 2  # of four batches two were done
    assert contents(tmp_path / "motions") == contents(whole) and len(contents(whole)) == len(LENGTHS) + 2
    again = write_motions(tiny_model, tiny_processor, motions, tmp_path / "motions", MotionRequest(), **SETTINGS)
    assert len(calls) == 5, "what is finished is read, not made again"
    assert again.codes == made.codes


def test_motions_of_another_request_model_or_data_are_not_mixed(tiny_model, tiny_processor, motions, whole):
    for change in ({"seed": 1}, {"lengths": "free"}, {"task": "motion-prediction"}):
        with pytest.raises(ValueError, match="the motions there were made with another .*request"):
            write_motions(tiny_model, tiny_processor, motions, whole, replace(MotionRequest(), **change), **SETTINGS)
    with pytest.raises(ValueError, match=r"another decoding; remove .*\.jsonl or name another output"):
        write_motions(tiny_model, tiny_processor, motions, whole, MotionRequest(), batch_size=2, do_sample=False)
    with pytest.raises(ValueError, match="another data"):
        write_motions(tiny_model, tiny_processor, motions.select(range(6)), whole, MotionRequest(), **SETTINGS)
    with pytest.raises(ValueError, match="another batch_size"):
        write_motions(tiny_model, tiny_processor, motions, whole, MotionRequest(), **{**SETTINGS, "batch_size": 3})


def test_motions_that_are_gone_are_missed_by_name(tiny_model, tiny_processor, motions, tmp_path):
    def write():
        return write_motions(tiny_model, tiny_processor, motions, tmp_path / "made", MotionRequest(), **SETTINGS)

    write()
    shutil.rmtree(tmp_path / "made")
    with pytest.raises(ValueError, match=r"made.jsonl lists are gone .*: remove .*made.jsonl too"):
        write()
    (tmp_path / "made.jsonl").unlink()
    assert len(write().motions) == len(LENGTHS)


def test_a_seed_decides_and_every_batch_has_draws_of_its_own(tiny_model, tiny_processor, motions, whole, tmp_path):
    other = write_motions(tiny_model, tiny_processor, motions, tmp_path / "other", MotionRequest(seed=1), **SETTINGS)
    assert other.codes != read_motions(whole).codes
    same = motions.select([1, 3])  # both have 24 frames
    same = same.map(lambda row: {"captions": ["a person walks"], "motion": row["motion"]})
    two = write_motions(tiny_model, tiny_processor, same, tmp_path / "two", MotionRequest(), batch_size=1, **DECODING)
    assert two.codes[0] != two.codes[1]


def test_several_samples_lie_in_a_folder_for_each_motion(tiny_model, tiny_processor, motions, tmp_path, monkeypatch):
    sizes, make_batch = [], generator._make_batch
    monkeypatch.setattr(generator, "_make_batch", lambda *args: sizes.append(len(args[2])) or make_batch(*args))
    request = MotionRequest(lengths="free", num_samples=3)
    made = write_motions(tiny_model, tiny_processor, motions, tmp_path / "made", request, **SETTINGS)
    assert [len(group) for group in made.motions] == [3] * len(LENGTHS)
    assert sizes == [1] * len(LENGTHS), "a batch of two has no room for a second text"
    files = sorted(path.relative_to(tmp_path / "made") for path in tmp_path.rglob("*.npy"))
    assert files[:3] == [Path("clip0#1-9") / f"{sample}.npy" for sample in range(3)]
    assert made.asked_frames == [None] * len(LENGTHS)
    assert any(len({tuple(codes) for codes in group}) > 1 for group in made.codes)


@pytest.mark.parametrize(("task", "ends"), [("motion-prediction", 1), ("motion-in-between", 2)])
def test_completion_is_given_whole_codes_and_sees_nothing_else(
    task, ends, tiny_model, tiny_processor, motions, tmp_path
):
    request = MotionRequest(task, keep=0.3)
    made = write_motions(tiny_model, tiny_processor, motions, tmp_path / "made", request, **SETTINGS)
    for row, length in enumerate(LENGTHS):
        codes, (start, end) = made.codes[row][0], made.given_codes[row]
        assert len(codes) == length // 8 and len(made.motions[row][0]) == length // 8 * 8
        assert start == max(1, min(round(0.3 * len(codes)), (len(codes) - 1) // ends)) and end == start * (ends - 1)
        clip = motions[row]["motion"][: len(codes) * 8]
        assert codes[:start] == codes_of(tiny_model, tiny_processor, clip[: start * 8])
        if end:
            assert codes[-end:] == codes_of(tiny_model, tiny_processor, clip[-end * 8 :])

    def change_the_rest(row):
        unit, (start, end) = 8, request.given_codes(len(row["motion"]) // 8)
        motion = row["motion"].copy()
        motion[start * unit : len(motion) // unit * unit - end * unit] += 3
        return {"motion": motion}

    other = motions.map(change_the_rest)
    blind = write_motions(tiny_model, tiny_processor, other, tmp_path / "blind", request, **SETTINGS)
    assert blind.codes == made.codes


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": "motion-to-text"}, "'motion-to-text' makes no motions"),
        (
            {"task": "motion-prediction", "lengths": "stated"},
            "lengths is 'stated', but motion-prediction asks for the data's: it is of 'text-to-motion'",
        ),
        ({"lengths": "long"}, "lengths is 'long'; ask for the lengths of the 'data', have them 'stated', or"),
        ({"task": "motion-in-between", "keep": 0.5}, "keep is 0.5"),
        ({"task": "motion-prediction", "keep": 0.0}, "keep is 0.0"),
        ({"num_samples": 0}, "num_samples is 0"),
    ],
)
def test_requests_that_cannot_be_made_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        MotionRequest(**values)


def test_a_model_that_keeps_lengths_cannot_be_told_one(tiny_model, tiny_processor, motions, tmp_path):
    request = MotionRequest(lengths="stated")
    with pytest.raises(ValueError, match="lengths is 'stated', but a geomotiongpt makes motions exactly as long"):
        write_motions(tiny_model, tiny_processor, motions, tmp_path / "made", request, **SETTINGS)
    assert not (tmp_path / "made").exists()


def test_a_gap_of_one_code_is_always_left():
    between = MotionRequest("motion-in-between", keep=0.4)
    assert [between.given_codes(count) for count in (3, 4, 5, 10)] == [(1, 1), (1, 1), (2, 2), (4, 4)]
    assert MotionRequest("motion-prediction", keep=0.9).given_codes(2) == (1, 0)


@pytest.mark.slow
def test_two_processes_write_the_bytes_of_one(tiny_model_folder, motions, tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import sys, datasets\n"
        "from geomotiongpt import GeoMotionGPTForCausalLM, GeoMotionGPTProcessor\n"
        "from geomotiongpt.evaluation.generator import MotionRequest, write_motions\n"
        "model, data, path = sys.argv[1:]\n"
        "dataset = datasets.load_from_disk(data).with_format('numpy', columns=['motion'], output_all_columns=True)\n"
        "write_motions(GeoMotionGPTForCausalLM.from_pretrained(model).eval(),\n"
        f"    GeoMotionGPTProcessor.from_pretrained(model), dataset, path, MotionRequest(), **{SETTINGS!r})\n"
    )
    motions.save_to_disk(tmp_path / "data")
    folders = [tmp_path / name / "motions" for name in ("one", "two")]
    launchers = ([], ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"])
    for folder, launcher in zip(folders, launchers, strict=True):
        command = [sys.executable, *launcher, worker, tiny_model_folder, tmp_path / "data", folder]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-4000:]
    assert contents(folders[0]) == contents(folders[1]) and len(contents(folders[0])) == len(LENGTHS) + 2
