"""Fifty steps of both stages at test size, seeded: `trajectories.json` holds their losses and gradient norms.

Made again, after a change of the mathematics that is wanted, by `python tests/training/make_trajectories.py`.
"""

import json
import tempfile
from pathlib import Path

import torch

from geomotiongpt import MotionTokenizer, MotionTokenizerConfig, make_synthetic_dataset
from geomotiongpt.training.arguments import MotionDataArguments
from geomotiongpt.training.language_model import train_language_model
from geomotiongpt.training.motion_tokenizer import make_feature_extractor, train_motion_tokenizer

HERE = Path(__file__).parent
TRAJECTORIES = HERE / "trajectories.json"
STEPS = 50
NAMES = ("loss", "grad_norm", "orthonormality_loss", "codebook_gradient_norm_orthonormality")
# Draws of noise and dropout differ between builds of torch; everything else does not.
WITHOUT_DROPOUT = "resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0"
LANGUAGE_MODEL = f"{{n_layer: 1, n_embd: 32, n_head: 2, n_positions: 256, {WITHOUT_DROPOUT}}}"


def motion_tokenizer_trajectory(data: Path, folder: Path) -> dict[str, list[float]]:
    """Losses and gradient norms of the first stage, with more codes than dimensions, so that lambda matters.

    Args:
        data: folder of embedded motions.
        folder: to train in.
    """
    overrides = ["model.gumbel_noise=0.0", "model.num_codes=24", f"data.path={data}", f"training.output_dir={folder}"]
    return _read(train_motion_tokenizer(HERE / "motion_tokenizer.yaml", [*overrides, f"training.max_steps={STEPS}"]))


def language_model_trajectory(data: Path, folder: Path) -> dict[str, list[float]]:
    """Losses and gradient norms of the second stage, on a random motion tokenizer, so that it does not depend on the
    first; its codebook is not orthonormal, so that lambda' matters.

    Args:
        data: folder of embedded motions.
        folder: to train in.
    """
    torch.manual_seed(0)
    tokenizer = MotionTokenizer(MotionTokenizerConfig(num_codes=16, code_dim=16, hidden_size=16))
    with torch.no_grad():
        tokenizer.codebook.weight.normal_()
    tokenizer.save_pretrained(folder / "motion_tokenizer")
    make_feature_extractor(MotionDataArguments(str(data)), 8).save_pretrained(folder / "motion_tokenizer")
    overrides = [
        f"model.motion_tokenizer={folder / 'motion_tokenizer'}",
        f"model.language_model_config={LANGUAGE_MODEL}",
        f"data.path={data}",
        f"training.output_dir={folder / 'model'}",
        f"training.max_steps={STEPS}",
    ]
    return _read(train_language_model(HERE / "language_model.yaml", overrides))


def _read(folder: Path) -> dict[str, list[float]]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    steps = [row for row in history if "loss" in row]
    return {name: [row[name] for row in steps] for name in NAMES}


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_synthetic_dataset(folder / "data", 60, seed=0)
        trajectories = {
            "motion_tokenizer": motion_tokenizer_trajectory(folder / "data", folder / "first"),
            "language_model": language_model_trajectory(folder / "data", folder / "second"),
        }
    rounded = {
        stage: {key: [float(f"{value:.6g}") for value in values] for key, values in trajectory.items()}
        for stage, trajectory in trajectories.items()
    }
    TRAJECTORIES.write_text(json.dumps(rounded, indent=1) + "\n")


if __name__ == "__main__":
    main()
