"""Baselines through `train_motion_tokenizer`: the committed recipes, at test size, on the embedded motions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoFeatureExtractor, AutoModel

from geomotiongpt import load_motion_dataset, train_motion_tokenizer
from geomotiongpt.baselines import FSQMotionTokenizer, ResidualVQMotionTokenizer, VQMotionTokenizer
from geomotiongpt.data.training_sets import normalised_clips
from geomotiongpt.evaluation.reconstruction import evaluate_reconstruction
from geomotiongpt.training import trainer

RECIPES = Path(__file__).parents[2] / "hub_configs" / "geomotiongpt-tiny"
KINDS = {
    "vq": (VQMotionTokenizer, {"num_codes": 12, "code_dim": 8}),
    "residual_vq": (ResidualVQMotionTokenizer, {"codes_per_quantizer": 12, "code_dim": 8}),
    "fsq": (FSQMotionTokenizer, {}),
}
SMALL = (
    "model.hidden_size=16",
    "model.num_residual_layers=1",
    "training.window_frames=32",
    "training.windows_per_epoch=40",
    "training.per_device_train_batch_size=8",
    "training.max_steps=20",
    "training.eval_strategy=no",
    "training.logging_steps=1",
    "training.disable_tqdm=true",
)


@pytest.fixture(scope="module")
def train(motions, tmp_path_factory):
    """Runs a baseline's recipe into a new folder."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def run(kind: str, *overrides: str) -> Path:
        folder = tmp_path_factory.mktemp(kind) / "run"
        sizes = [f"model.{name}={value}" for name, value in KINDS[kind][1].items()]
        places = [f"data.path={motions}", f"training.output_dir={folder}"]
        return train_motion_tokenizer(RECIPES / f"motion_tokenizer_{kind}.yaml", [*places, *SMALL, *sizes, *overrides])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "plot_training_history", lambda history, path: None)  # takes longer than training here
        yield run
    torch.set_num_threads(threads)


def history(folder: Path) -> list[dict]:
    return json.loads((folder / "trainer_state.json").read_text())["log_history"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_trains_a_baseline_that_opens_and_reconstructs_alike(train, motions, kind):
    folder = train(kind)
    steps = [row for row in history(folder) if "loss" in row]
    first, last = (np.mean([row["reconstruction_loss"] for row in part]) for part in (steps[:5], steps[-5:]))
    assert len(steps) == 20 and last < 0.97 * first
    assert {"perplexity", "dead_codes", "gram_error", "max_abs_cosine"} <= steps[0].keys()
    assert not {"gumbel_temperature", "codebook_gradient_norm_task"} & steps[0].keys()
    model, extractor = AutoModel.from_pretrained(folder), AutoFeatureExtractor.from_pretrained(folder)
    assert type(model) is KINDS[kind][0]
    clips = normalised_clips(load_motion_dataset(motions, "val", mirrored=False), extractor)
    metrics, counts = evaluate_reconstruction(model, extractor, clips)
    logged = next(row for row in reversed(history(folder)) if "eval_joint_error_mm" in row)
    assert metrics["joint_error_mm"] == pytest.approx(logged["eval_joint_error_mm"], rel=1e-4)
    assert metrics["codes_used"] == logged["eval_codes_used"] > 3 and len(counts) == model.config.num_codes


def test_a_resumed_run_ends_where_an_unbroken_one_does(train):
    """Moving averages and the draws of the resets go on from the checkpoint."""
    unbroken = train("vq", "training.save_strategy=steps", "training.save_steps=10")
    resumed = train("vq", f"training.resume_from_checkpoint={unbroken / 'checkpoint-10'}")
    one, other = (load_file(folder / "model.safetensors") for folder in (unbroken, resumed))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    before = load_file(unbroken / "checkpoint-10" / "model.safetensors")
    assert not torch.equal(before["codebook.weight"], one["codebook.weight"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model.model_type=lfq_motion_tokenizer",
            "model_type is 'lfq_motion_tokenizer'; motion tokenizers are m",
        ),
        ("training.codebook_learning_rate=1e-3", "codebook_learning_rate is 0.001, but a vq_motion_tokenizer draws"),
        ("training.codebook_start=normal", "codebook_start is normal, but a vq_motion_tokenizer draws its codes"),
        ("training.initial_gumbel_temperature=5", "initial_gumbel_temperature is 5, but a vq_motion_tokenizer"),
        ("model.orthonormality_weight=0.01", "orthonormality_weight is 0.01; a vq_motion_tokenizer has no such term"),
        ("model.levels=[5, 5]", "has no option 'levels'"),
    ],
)
def test_a_recipe_that_asks_for_what_a_baseline_has_not_is_refused(train, override, message):
    with pytest.raises(ValueError, match=message):
        train("vq", override)


def test_the_recipes_differ_from_that_of_the_dvq_in_the_quantiser_alone():
    recipes = {kind: yaml.safe_load((RECIPES / f"motion_tokenizer_{kind}.yaml").read_text()) for kind in KINDS}
    dvq = yaml.safe_load((RECIPES / "motion_tokenizer.yaml").read_text())
    trunk = ("hidden_size", "num_downsampling_layers", "num_residual_layers", "position_weight", "root_weight")
    for recipe in recipes.values():
        assert {name: recipe["model"][name] for name in trunk} == {name: dvq["model"][name] for name in trunk}
        own = {name: value for name, value in recipe["training"].items() if name != "output_dir"}
        assert own.items() <= dvq["training"].items() and recipe["data"] == dvq["data"]
