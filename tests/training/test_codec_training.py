"""A causal motion codec from a recipe to a folder that opens, on the embedded motions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoFeatureExtractor, AutoModel

from geomotiongpt import CausalMotionCodec, load_motion_dataset, load_motion_statistics, train_motion_tokenizer

pytestmark = pytest.mark.usefixtures("no_history_plot")

RECIPE = Path(__file__).parent / "causal_motion_codec.yaml"
CHECKPOINTS = ("training.save_strategy=steps", "training.save_steps=4")


@pytest.fixture(scope="module")
def train(motions, tmp_path_factory):
    """Trains the recipe into a new folder."""

    def run(*overrides: str) -> Path:
        folder = tmp_path_factory.mktemp("codec") / "run"
        torch.set_num_threads(1)
        return train_motion_tokenizer(RECIPE, [f"data.path={motions}", f"training.output_dir={folder}", *overrides])

    return run


@pytest.fixture(scope="module")
def codec_run(train) -> Path:
    """Eight steps without a break, with a checkpoint after four."""
    return train(*CHECKPOINTS)


def history(folder: Path) -> list[dict]:
    return json.loads((folder / "trainer_state.json").read_text())["log_history"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_codec_opens_with_its_feature_extractor(codec_run, motions):
    model, extractor = AutoModel.from_pretrained(codec_run), AutoFeatureExtractor.from_pretrained(codec_run)
    assert isinstance(model, CausalMotionCodec)
    assert (model.config.num_features, model.config.latent_dim, model.config.num_root_features) == (263, 8, 4)
    assert extractor.downsampling_factor == 4, "shorter motions are refused by name"
    mean, std = load_motion_statistics(motions)
    np.testing.assert_allclose(extractor.mean, mean)
    np.testing.assert_allclose(extractor.std, std)
    inputs = extractor(load_motion_dataset(motions, "test")[0]["motion"])
    assert torch.isfinite(model(**inputs).loss)


def test_the_parts_of_the_loss_and_the_reconstruction_are_logged(codec_run):
    steps = [row for row in history(codec_run) if "loss" in row]
    assert [row["step"] for row in steps] == list(range(1, 9))
    for row in steps:
        parts = row["reconstruction_loss"] + 60 * row["root_loss"] + 0.01 * row["kl_loss"]
        assert row["loss"] == pytest.approx(parts, rel=1e-4)
    evaluation = history(codec_run)[-1]
    names = {"eval_loss", "eval_root_loss", "eval_joint_error_mm", "eval_mpjpe_mm", "eval_pa_mpjpe_mm"}
    assert names <= evaluation.keys() and "eval_codes_used" not in evaluation


def test_a_resumed_codec_is_the_same_to_the_bit(train, codec_run):
    """With noise, Muon, and a checkpoint in the middle of an epoch."""
    resumed = train(*CHECKPOINTS, f"training.resume_from_checkpoint={codec_run / 'checkpoint-4'}")
    assert same(weights(codec_run), weights(resumed))
    assert not same(weights(codec_run), weights(codec_run / "checkpoint-4"))


def test_noise_and_optimizer_are_those_of_the_recipe(train, codec_run):
    for override in ("model.sigma_max=0.5", "training.muon_learning_rate=null", "training.seed=1"):
        assert not same(weights(train(override)), weights(codec_run)), override


def test_training_in_half_precision_saves_whole_weights(train):
    saved = weights(train("training.bf16=true", "training.max_steps=2"))
    assert {weight.dtype for weight in saved.values()} == {torch.float32}


def test_what_only_a_tokenizer_has_is_refused(train):
    with pytest.raises(ValueError, match="'training' has no option 'codebook_learning_rate'"):
        train("training.codebook_learning_rate=1.0e-3")
    with pytest.raises(ValueError, match="'model' has no option 'num_codes'"):
        train("model.num_codes=16")
    with pytest.raises(ValueError, match="causal_motion_codec"):
        train("model.model_type=causal_codec")
