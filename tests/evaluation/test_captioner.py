"""Captions of a split do not depend on how often the run was stopped, and never mix models, data or settings."""

import copy
import json
import os
import subprocess
import sys

import datasets
import numpy as np
import pytest

from geomotiongpt import GeoMotionGPTForCausalLM
from geomotiongpt.evaluation import captioner
from geomotiongpt.evaluation.captioner import weights_hash, write_captions

LENGTHS = (40, 16, 67, 24, 24, 90, 33)
SETTINGS = {"batch_size": 2, "max_new_tokens": 6}


class KilledError(Exception):
    """Stands for a signal that ends the process."""


@pytest.fixture(scope="module")
def motions() -> datasets.Dataset:
    """Seven random motions of different length."""
    generator = np.random.default_rng(3)
    features = datasets.Features(
        motion_id=datasets.Value("string"),
        motion=datasets.Array2D((None, 263), "float32"),
        captions=datasets.List(datasets.Value("string")),
    )
    rows = {
        "motion_id": [f"clip{index}" for index in range(len(LENGTHS))],
        "motion": [generator.normal(size=(length, 263)).astype(np.float32) for length in LENGTHS],
        "captions": [[f"motion {index}", "another"] for index in range(len(LENGTHS))],
    }
    dataset = datasets.Dataset.from_dict(rows, features)
    return dataset.with_format("numpy", columns=["motion"], output_all_columns=True)


@pytest.fixture(scope="module")
def whole(tiny_model, tiny_processor, motions, tmp_path_factory):
    """The file of a run that was not stopped."""
    path = tmp_path_factory.mktemp("whole") / "captions.jsonl"
    write_captions(tiny_model, tiny_processor, motions, path, **SETTINGS)
    return path


def test_file_holds_one_line_a_motion_in_the_order_of_the_split(whole, motions):
    rows = [json.loads(line) for line in whole.read_text().splitlines()]
    assert [row["id"] for row in rows] == motions["motion_id"]
    assert [row["references"] for row in rows] == motions["captions"]
    assert len({row["prediction"] for row in rows}) > 1
    assert sorted(path.name for path in whole.parent.iterdir()) == ["captions.jsonl", "captions.jsonl.settings.json"]


@pytest.mark.parametrize("torn", [b"", b'{"id": "clip5", "predi'], ids=["between lines", "within a line"])
def test_killed_run_goes_on_to_the_same_bytes(torn, tiny_model, tiny_processor, motions, whole, tmp_path, monkeypatch):
    path, calls, caption = tmp_path / "captions.jsonl", [], captioner._caption

    def caption_twice(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KilledError
        return caption(*args)

    monkeypatch.setattr(captioner, "_caption", caption_twice)
    with pytest.raises(KilledError):
        write_captions(tiny_model, tiny_processor, motions, path, **SETTINGS)
    assert not path.exists()
    with open(tmp_path / "captions.jsonl.0.part", "ab") as file:
        file.write(torn)
    write_captions(tiny_model, tiny_processor, motions, path, **SETTINGS)
    assert len(calls) == 3 + 2  # of four batches two were done
    assert path.read_bytes() == whole.read_bytes()
    assert write_captions(tiny_model, tiny_processor, motions, path, **SETTINGS)[0]
    assert len(calls) == 5, "a finished file is read, not made again"


def test_parts_left_by_a_kill_after_the_last_rename_are_removed(tiny_model, tiny_processor, motions, tmp_path):
    path = tmp_path / "captions.jsonl"
    captions = write_captions(tiny_model, tiny_processor, motions, path, **SETTINGS)
    (tmp_path / "captions.jsonl.0.part").write_text('{"id": "clip0", "prediction": "old"}\n')
    assert write_captions(tiny_model, tiny_processor, motions, path, **SETTINGS) == captions
    assert not list(tmp_path.glob("*.part"))


def test_captions_of_another_model_data_or_settings_are_not_mixed(
    tiny_model, tiny_processor, motions, whole, tiny_language_model, tiny_tokenizer_model
):
    with pytest.raises(ValueError, match=r"made with another decoding; remove .*\.jsonl or name another output"):
        write_captions(tiny_model, tiny_processor, motions, whole, batch_size=2, max_new_tokens=7)
    moved = motions.map(lambda row: {"motion": row["motion"] + 1e-3})
    with pytest.raises(ValueError, match="another data"):
        write_captions(tiny_model, tiny_processor, moved, whole, **SETTINGS)
    changed = copy.deepcopy(tiny_model)
    changed.generation_config.repetition_penalty = 1.5
    with pytest.raises(ValueError, match="another decoding"):
        write_captions(changed, tiny_processor, motions, whole, **SETTINGS)
    rescaled = copy.deepcopy(tiny_processor)
    rescaled.feature_extractor.std[0] *= 2
    with pytest.raises(ValueError, match="another processor"):
        write_captions(tiny_model, rescaled, motions, whole, **SETTINGS)
    with pytest.raises(ValueError, match="another data"):
        write_captions(tiny_model, tiny_processor, motions.select(range(6)), whole, **SETTINGS)
    other = GeoMotionGPTForCausalLM.from_components(tiny_language_model, tiny_tokenizer_model, projection_seed=1)
    with pytest.raises(ValueError, match="another model"):
        write_captions(other, tiny_processor, motions, whole, **SETTINGS)


def test_what_was_removed_is_made_again_with_other_settings(tiny_model, tiny_processor, motions, tmp_path):
    path = tmp_path / "captions.jsonl"
    write_captions(tiny_model, tiny_processor, motions, path, **SETTINGS)
    path.unlink()
    other = {**SETTINGS, "max_new_tokens": 3}
    write_captions(tiny_model, tiny_processor, motions, path, **other)
    assert write_captions(tiny_model, tiny_processor, motions, path, **other) is not None
    with pytest.raises(ValueError, match="another decoding"):
        write_captions(tiny_model, tiny_processor, motions, path, **SETTINGS)


def test_captions_of_unknown_origin_are_left_alone(tiny_model, tiny_processor, motions, tmp_path):
    path = tmp_path / "captions.jsonl"
    path.write_text("mine\n")
    with pytest.raises(ValueError, match="captions of unknown origin"):
        write_captions(tiny_model, tiny_processor, motions, path, **SETTINGS)
    assert path.read_text() == "mine\n"


def test_weights_hash_is_of_names_and_values(tiny_model, tiny_model_folder, tiny_tokenizer_model):
    reloaded = GeoMotionGPTForCausalLM.from_pretrained(tiny_model_folder)
    assert weights_hash(reloaded) == weights_hash(tiny_model) != weights_hash(tiny_tokenizer_model)
    reloaded.transformer.ln_f.bias.data[0] += 1e-6
    assert weights_hash(reloaded) != weights_hash(tiny_model)


@pytest.mark.slow
def test_two_processes_write_the_bytes_of_one(tiny_model_folder, motions, tiny_model, tiny_processor, tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import sys, datasets, torch\n"
        "from geomotiongpt import GeoMotionGPTForCausalLM, GeoMotionGPTProcessor\n"
        "from geomotiongpt.evaluation.captioner import write_captions\n"
        "model, data, path = sys.argv[1:]\n"
        "dataset = datasets.load_from_disk(data).with_format('numpy', columns=['motion'], output_all_columns=True)\n"
        "write_captions(GeoMotionGPTForCausalLM.from_pretrained(model).eval(),\n"
        f"    GeoMotionGPTProcessor.from_pretrained(model), dataset, path, **{SETTINGS!r})\n"
    )
    motions.save_to_disk(tmp_path / "data")
    paths = [tmp_path / name / "captions.jsonl" for name in ("one", "two")]
    launchers = ([], ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"])
    for path, launcher in zip(paths, launchers, strict=True):
        path.parent.mkdir()
        command = [sys.executable, *launcher, worker, tiny_model_folder, tmp_path / "data", path]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-4000:]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert len(paths[1].read_text().splitlines()) == len(LENGTHS)
    assert not list(paths[1].parent.glob("*.part"))
