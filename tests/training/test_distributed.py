"""Two CPU processes do what one does with the joined batch, and launchers that start lonely processes are refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from distributed_worker import STAGES, take_steps
from safetensors.torch import load_file
from transformers import AutoModel

from geomotiongpt.training.arguments import MotionTokenizerTrainingArguments

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
ACCELERATE = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1")


def launch(*command: str, cache: Path) -> str:
    """Runs Python with a launcher, without an accelerator; its output, or the test fails with it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_DATASETS_CACHE": str(cache)}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr[-6000:]
    return done.stdout


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> Path:
    """Both stages under torchrun."""
    folder = tmp_path_factory.mktemp("two")
    launch(*TORCHRUN, str(HERE / "distributed_worker.py"), str(folder), cache=folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_take_the_steps_of_one(stage, two_processes, tmp_path):
    """Weights, loss, its parts and the gradient norms; clips differ in length; utilisation is over all ranks."""
    take_steps(stage, tmp_path, num_processes=1)
    one, two = (json.loads((folder / f"{stage}.json").read_text()) for folder in (tmp_path, two_processes))
    assert (one["world_size"], two["world_size"]) == (1, 2)
    assert two["processes_agree"] and two["num_noises"] == 2, "one model, and noise of their own"
    assert one["moved"] > 1e-2
    reference, weights = (load_file(folder / f"{stage}.safetensors") for folder in (tmp_path, two_processes))
    for name in reference:
        torch.testing.assert_close(weights[name], reference[name], rtol=1e-4, atol=1e-6)
    for expected, met in zip(one["log"][:2], two["log"][:2], strict=True):
        # Perplexity and dead codes are of each process's own batch.
        names = [name for name in expected if name.endswith("loss") or "norm" in name]
        assert {"loss", "grad_norm", "orthonormality_loss", "codebook_gradient_norm_task"} <= set(names)
        for name in names:
            assert met[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-6), name


@pytest.mark.slow
def test_examples_train_both_stages_in_two_processes(motions, tokenizer_recipe, language_model_recipe, tmp_path):
    """`torchrun` and `accelerate launch`: both processes work on one run, and one of them writes."""
    first, second = tmp_path / "motion_tokenizer", tmp_path / "model"
    common = (f"data.path={motions}", "training.max_steps=3")
    launch(
        *TORCHRUN,
        str(EXAMPLES / "train_motion_tokenizer.py"),
        str(tokenizer_recipe),
        *common,
        f"training.output_dir={first}",
        *("training.eval_strategy=steps", "training.save_strategy=steps", "training.eval_steps=1"),
        *("training.save_steps=1", "training.load_best_model_at_end=true", "training.greater_is_better=false"),
        "training.metric_for_best_model=eval_joint_error_mm",
        cache=tmp_path / "cache",
    )
    assert AutoModel.from_pretrained(first).config.num_codes == 16
    launch(
        *ACCELERATE,
        str(EXAMPLES / "train.py"),
        str(language_model_recipe),
        *common,
        f"model.motion_tokenizer={first}",
        f"training.output_dir={second}",
        cache=tmp_path / "cache",
    )
    assert AutoModel.from_pretrained(second).config.num_motion_codes == 16
    state = json.loads((second / "trainer_state.json").read_text())
    # 48 training motions, sixteen a process: three steps are one and a half epochs only if there are two processes.
    assert (state["global_step"], state["epoch"]) == (3, 1.5)
    assert len((second / "caption_samples.jsonl").read_text().splitlines()) == 2


def test_process_that_believes_to_be_alone_is_refused(monkeypatch, tmp_path):
    """The launcher says two, the process sees one: both would train alone into one folder."""
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState(cpu=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="started 2 processes, but they see 1.*torchrun"):
        MotionTokenizerTrainingArguments(
            output_dir=str(tmp_path), accelerator_config={"use_configured_state": True}, use_cpu=True
        )
    AcceleratorState._reset_state(reset_partial_state=True)
