"""Fifty steps of the stages at test size, seeded: `trajectories.json` holds their losses and gradient norms.

Made again, after a change of the mathematics that is wanted, by `python tests/training/make_trajectories.py`.
"""

import json
import tempfile
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from geomotiongpt import (
    MotionGPT3ForCausalLM,
    MotionGPT3Processor,
    MotionTokenizer,
    MotionTokenizerConfig,
    MotionVAE,
    MotionVAEConfig,
    make_synthetic_dataset,
)
from geomotiongpt.training.arguments import MotionDataArguments
from geomotiongpt.training.language_model import train_language_model
from geomotiongpt.training.motion_tokenizer import make_feature_extractor, train_motion_tokenizer
from geomotiongpt.training.text_tokenizer import train_text_tokenizer

HERE = Path(__file__).parent
TRAJECTORIES = HERE / "trajectories.json"
STEPS = 50
NAMES = ("loss", "grad_norm", "orthonormality_loss", "codebook_gradient_norm_orthonormality")
VAE_NAMES = ("loss", "grad_norm", "position_loss", "kl_loss")
CODEC_NAMES = ("loss", "grad_norm", "root_loss", "kl_loss")
MOTIONGPT3_NAMES = ("loss", "grad_norm", "language_modeling_loss", "length_loss")
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


def motion_vae_trajectory(data: Path, folder: Path) -> dict[str, list[float]]:
    """Losses and gradient norms of a motion VAE whose latents have as good as no noise.

    Args:
        data: folder of embedded motions.
        folder: to train in.
    """
    options = ["model.dropout=0.0", "model.log_variance_offset=-30.0", "training.piece_ratio=0.5"]
    overrides = [*options, f"data.path={data}", f"training.output_dir={folder}", f"training.max_steps={STEPS}"]
    return _read(train_motion_tokenizer(HERE / "motion_vae.yaml", overrides), VAE_NAMES)


def causal_motion_codec_trajectory(data: Path, folder: Path) -> dict[str, list[float]]:
    """Losses and gradient norms of a causal motion codec without noise, with AdamW.

    Args:
        data: folder of embedded motions.
        folder: to train in.
    """
    options = ["model.sigma_max=0.0", "training.muon_learning_rate=null"]
    overrides = [*options, f"data.path={data}", f"training.output_dir={folder}", f"training.max_steps={STEPS}"]
    return _read(train_motion_tokenizer(HERE / "causal_motion_codec.yaml", overrides), CODEC_NAMES)


def motiongpt3_trajectory(data: Path, folder: Path) -> dict[str, list[float]]:
    """Losses and gradient norms of the second stage of MotionGPT3, both branches trained, on random components.

    The denoising loss, which draws noise, has no weight.

    Args:
        data: folder of embedded motions.
        folder: to train in.
    """
    tokenizer = train_text_tokenizer([["a person walks.", "someone turns left twice."]], 300)
    end = tokenizer.eos_token_id
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 256, "initializer_range": 0.1}
    ends = {"vocab_size": len(tokenizer), "bos_token_id": end, "eos_token_id": end}
    base = GPT2LMHeadModel(GPT2Config(**sizes, **ends, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0))
    vae = MotionVAE(MotionVAEConfig(latent_dim=16, num_layers=1, intermediate_size=32, dropout=0.0))
    options = {"denoising_hidden_size": 32, "denoising_num_layers": 1, "trained_stage": "text-to-motion"}
    model = MotionGPT3ForCausalLM.from_components(base, vae, **options)
    extractor = make_feature_extractor(MotionDataArguments(str(data)), 1)
    first = folder / "first"
    model.save_pretrained(first)
    MotionGPT3Processor.from_components(extractor, tokenizer, model.config).save_pretrained(first)
    overrides = [
        *(f"model.{name}=null" for name in ("language_model", "motion_vae")),
        "model.config={}",
        f"model.trained_model={first}",
        "model.language_modeling_weight=1.0",
        "model.denoising_weight=0.0",
        "training.stage=alignment",
        "training.frozen=[]",
        "training.tasks={motion-to-text: 1, text-to-motion: 1, motion-prediction: 0.5}",
        f"data.path={data}",
        f"training.output_dir={folder / 'second'}",
        f"training.max_steps={STEPS}",
    ]
    return _read(train_language_model(HERE / "motiongpt3.yaml", overrides), MOTIONGPT3_NAMES)


def _read(folder: Path, names: tuple[str, ...] = NAMES) -> dict[str, list[float]]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    steps = [row for row in history if "loss" in row]
    return {name: [row[name] for row in steps] for name in names}


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_synthetic_dataset(folder / "data", 60, seed=0)
        trajectories = {
            "motion_tokenizer": motion_tokenizer_trajectory(folder / "data", folder / "first"),
            "language_model": language_model_trajectory(folder / "data", folder / "second"),
            "motion_vae": motion_vae_trajectory(folder / "data", folder / "vae"),
            "causal_motion_codec": causal_motion_codec_trajectory(folder / "data", folder / "codec"),
            "motiongpt3": motiongpt3_trajectory(folder / "data", folder / "motiongpt3"),
        }
    rounded = {
        stage: {key: [float(f"{value:.6g}") for value in values] for key, values in trajectory.items()}
        for stage, trajectory in trajectories.items()
    }
    TRAJECTORIES.write_text(json.dumps(rounded, indent=1) + "\n")


if __name__ == "__main__":
    main()
