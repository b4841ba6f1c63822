"""Every geometric switch for a short run on the embedded data, and what it does to the geometry of the codes.

    python examples/benchmarks/geometry_switches.py DATA [--output FILE.json] [--steps 300]

Short runs with one seed and the sparse model's learning rates: they show that every switch trains and what becomes of
the geometry, not which one is best.

- stage 1: the recipe of the quickstart's motion tokenizer under each constraint, and with each baseline quantiser;
- stage 2: the quickstart's language model behind each projection, and under each constraint (its codes are as wide as
  its embeddings, so that "sparse" is a permutation and trains as "none" does);
- swaps: the trained sparse model with another projection, before and after going on at a tenth of the learning rate.

`lost` is ||G - G_0||_F^2 of a new model, G the Gram matrix of the motion embeddings and G_0 that of the tokenizer's
codebook: what a projection loses of the geometry. Finished runs stay in the folder of runs and are not run again.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, GPT2Config, GPT2LMHeadModel

from geomotiongpt import (
    GeoMotionGPTForCausalLM,
    GeoMotionGPTProcessor,
    MotionFeatureExtractor,
    load_motion_dataset,
)
from geomotiongpt.data.training_sets import normalised_clips
from geomotiongpt.evaluation.attributes import EmbeddedAttributes, attribute_accuracy
from geomotiongpt.evaluation.reconstruction import encode_clips, evaluate_reconstruction
from geomotiongpt.evaluation.results import make_result, save_json
from geomotiongpt.models.geometry import GEOMETRIC_CONSTRAINTS, codebook_geometry, gram_matrix
from geomotiongpt.models.motion_projections import PROJECTIONS
from geomotiongpt.training.language_model import caption_codes, train_language_model
from geomotiongpt.training.motion_tokenizer import train_motion_tokenizer

RECIPES = Path("hub_configs/geomotiongpt-tiny")
BASELINES = ("vq", "residual_vq", "fsq")
WEIGHTS = {"pairwise_cosine": 1.0}  # a mean over pairs; the others are sums, and keep the recipe's weight
GOES_ON = ("model.motion_tokenizer=null", "model.language_model_config=null", "model.text_vocab_size=null")


def main() -> None:
    """Runs what is not there yet and saves after every run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--runs", type=Path, default=Path("runs/geometry_switches"), help="folder of finished runs")
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    runs, steps = arguments.runs, arguments.steps
    metrics: dict[str, dict[str, dict[str, float]]] = {"stage_1": {}, "stage_2": {}, "swaps": {}}

    def keep(stage: str, name: str, **figures: float) -> None:
        metrics[stage][name] = figures
        save(metrics, arguments)

    for constraint in GEOMETRIC_CONSTRAINTS:
        options = [f"model.geometric_constraint={constraint}", *_weight(constraint)]
        keep("stage_1", constraint, **tokenizer_run(constraint, "motion_tokenizer", options, arguments))
    for kind in BASELINES:
        keep("stage_1", kind, **tokenizer_run(kind, f"motion_tokenizer_{kind}", [], arguments))
    tokenizer, trained = runs / "stage_1" / "orthonormal", runs / "stage_2" / "sparse"
    for projection in PROJECTIONS:
        options = [f"model.motion_tokenizer={tokenizer}", f"model.projection={projection}"]
        figures = model_run(f"stage_2/{projection}", options, arguments, steps)
        keep("stage_2", projection, lost=lost_by_joining(projection, tokenizer), **figures)
    for constraint in GEOMETRIC_CONSTRAINTS[1:]:
        options = [f"model.motion_tokenizer={tokenizer}", f"model.geometric_constraint={constraint}"]
        figures = model_run(f"stage_2/sparse_{constraint}", [*options, *_weight(constraint)], arguments, steps)
        keep("stage_2", f"sparse, {constraint}", **figures)
    for projection in PROJECTIONS:
        options = [*GOES_ON, f"model.trained_model={trained}", f"model.projection={projection}"]
        options += ["training.learning_rate=5.0e-4", "training.muon_learning_rate=6.0e-4"]
        figures = model_run(f"swaps/{projection}", options, arguments, steps // 3)
        keep("swaps", projection, lost=lost_by_swapping(projection, trained), **figures)


def _weight(constraint: str) -> list[str]:
    return [f"model.orthonormality_weight={WEIGHTS[constraint]}"] if constraint in WEIGHTS else []


def tokenizer_run(name: str, recipe: str, options: list[str], arguments: argparse.Namespace) -> dict[str, float]:
    """A motion tokenizer, and its figures on the test split."""
    folder, path = arguments.runs / "stage_1" / name, arguments.runs / "stage_1" / f"{name}.json"
    if path.is_file():
        return json.loads(path.read_text())
    train_motion_tokenizer(RECIPES / f"{recipe}.yaml", [*_settings(folder, arguments.data, arguments.steps), *options])
    model, extractor = AutoModel.from_pretrained(folder).eval(), MotionFeatureExtractor.from_pretrained(folder)
    clips = normalised_clips(load_motion_dataset(arguments.data, "test", mirrored=False), extractor)
    measured, _ = evaluate_reconstruction(model, extractor, clips)
    kept = ("joint_error_mm", "perplexity", "codes_used", "gram_error", "max_abs_cosine")
    return _done({key: measured[key] for key in kept}, path)


def model_run(name: str, options: list[str], arguments: argparse.Namespace, steps: int) -> dict[str, float]:
    """A language model: its losses, its captions of the test split, and the geometry that it ends with."""
    folder, path = arguments.runs / name, arguments.runs / f"{name}.json"
    if path.is_file():
        return json.loads(path.read_text())
    settings = [*_settings(folder, arguments.data, steps), "training.eval_on_start=true"]
    train_language_model(RECIPES / "language_model.yaml", [*settings, *options])
    model = GeoMotionGPTForCausalLM.from_pretrained(folder).eval()
    processor = GeoMotionGPTProcessor.from_pretrained(folder)
    test = load_motion_dataset(arguments.data, "test", mirrored=False)
    codes = encode_clips(model.motion_tokenizer, normalised_clips(test, processor.feature_extractor))
    captions = caption_codes(model, processor, codes)
    scores = attribute_accuracy(captions, test["captions"], EmbeddedAttributes())
    losses = [
        row["eval_language_modeling_loss"]
        for row in json.loads((folder / "trainer_state.json").read_text())["log_history"]
        if "eval_language_modeling_loss" in row
    ]
    figures = {"loss_before": losses[0], "loss_after": losses[-1]}
    figures |= {key: scores[key]["mean"] for key in ("action", "side")}
    geometry = codebook_geometry(model.motion_embeddings)
    figures |= {key: geometry[key] for key in ("gram_error", "max_abs_cosine")}
    if model.motion_projection.matrix is not None:
        figures["projection_error"] = isometry_error(model.motion_projection.matrix)
    return _done(figures, path)


def lost_by_joining(projection: str, tokenizer_folder: Path) -> float:
    """||G - G_0||_F^2 of a model of GPT-2's width that has just been joined, against the tokenizer's codebook."""
    torch.manual_seed(0)
    base = GPT2LMHeadModel(GPT2Config(n_layer=1))
    model = GeoMotionGPTForCausalLM.from_components(base, tokenizer_folder, projection=projection)
    return _difference(model.motion_embeddings, model.motion_tokenizer.codebook.weight)


def lost_by_swapping(projection: str, trained: Path) -> float:
    """||G - G_0||_F^2 of the swapped model against the trained one."""
    model = GeoMotionGPTForCausalLM.from_pretrained(trained)
    before = model.motion_embeddings.detach()
    model.swap_projection(projection)
    return _difference(model.motion_embeddings, before)


def _difference(embeddings: torch.Tensor, others: torch.Tensor) -> float:
    return (gram_matrix(embeddings.detach()) - gram_matrix(others)).square().sum().item()


def isometry_error(matrix: torch.Tensor) -> float:
    """||P^T P - I||_F."""
    matrix = matrix.detach().double()
    return (matrix.T @ matrix - torch.eye(matrix.shape[1], dtype=matrix.dtype)).norm().item()


def _settings(folder: Path, data: Path, steps: int) -> list[str]:
    return [
        f"training.output_dir={folder}",
        f"data.path={data}",
        f"training.max_steps={steps}",
        f"training.eval_steps={steps}",
        "training.disable_tqdm=true",
    ]


def _done(figures: dict[str, float], path: Path) -> dict[str, float]:
    print(path.stem, {name: round(value, 4) for name, value in figures.items()}, flush=True)
    save_json(figures, path)
    return figures


def save(metrics: dict[str, Any], arguments: argparse.Namespace) -> None:
    """What has been run so far."""
    result = make_result(
        command="python examples/benchmarks/geometry_switches.py DATA",
        model={"recipes": str(RECIPES), "weights": {"others": "the recipe's", **WEIGHTS}},
        data={"name": "embedded synthetic motion", "evaluated": "test"},
        protocol={
            "steps": arguments.steps,
            "steps_after_a_swap": arguments.steps // 3,
            "learning_rate_after_a_swap": "a tenth",
            "seeds": [0],
            "lost": "||G - G_0||_F^2; of stage 2 at GPT-2's width",
            "threads": torch.get_num_threads(),
        },
        metrics=metrics,
    )
    save_json(result, arguments.output)


if __name__ == "__main__":
    main()
