"""Which losses train the better motion tokenizer: the paper's, or the published code's? Side by side on real motion.

    python examples/benchmarks/tokenizer_losses.py DATA [--output FILE.json] [--steps 800] [--seeds 0 1 2]

DATA is a folder in the HumanML3D layout (`examples/real_motion.py` builds one). Architecture, initialisation, windows,
learning rate, reconstruction loss and noise-free sampling are the same for both; what differs is

- paper: lambda ||G - I||_F^2 and -H(q) of the assigned codes, tau falling from 1 to 0.5;
- published: the mean of the squared entries of G - I at weight 1, and 4 (1 - perplexity / K) at weight 0.25, tau 0.4
  to 60% of the steps, then falling to 0.01 at 80%.

Each had two learning rates tried for a quarter of the steps with seed 0, and keeps the better. Finished runs are in
the JSON beside the output and are not run again.
"""

import argparse
import json
import statistics
from pathlib import Path

import torch
from transformers import default_data_collator, set_seed

from geomotiongpt import MotionTokenizer, MotionTokenizerConfig, load_motion_dataset
from geomotiongpt.data.training_sets import MotionWindowDataset, drop_short_motions, normalised_clips
from geomotiongpt.evaluation.reconstruction import evaluate_reconstruction
from geomotiongpt.evaluation.results import make_result, save_json
from geomotiongpt.training.arguments import MotionDataArguments, MotionTokenizerTrainingArguments
from geomotiongpt.training.callbacks import GumbelTemperatureCallback
from geomotiongpt.training.motion_tokenizer import make_feature_extractor
from geomotiongpt.training.trainer import MotionTrainer

NUM_CODES, WIDTH, WINDOWS, WINDOW_FRAMES = 512, 128, 128, 64
LEARNING_RATES = (5e-4, 1e-3)
COLUMNS = ("joint_error_mm", "mpjpe_mm", "perplexity", "codes_used", "gram_error")
STUDENT_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}  # 95%, by number of seeds


class PublishedLossTokenizer(MotionTokenizer):
    """The published code's utilisation loss: 4 (1 - perplexity / K), perplexity of the assigned codes."""

    def _utilisation_loss(self, logits, assignment, mask):
        usage = (assignment * mask.unsqueeze(-1)).sum((0, 1)) / mask.sum()
        perplexity = (-(usage * (usage + 1e-7).log()).sum()).exp()
        return 4 * (1 - perplexity / self.config.num_codes)


RECIPES = {
    "paper": (
        MotionTokenizer,
        {"orthonormality_weight": 1 / NUM_CODES, "utilisation_weight": 0.1},
        (1.0, 0.5, 0.0, 0.9),
    ),
    "published": (
        PublishedLossTokenizer,
        {"orthonormality_weight": 1 / NUM_CODES**2, "utilisation_weight": 0.25},
        (0.4, 0.01, 0.6, 0.8),
    ),
}


def main() -> None:
    """Tunes, runs all seeds, saves after every run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--runs", type=Path, default=Path("runs/tokenizer_losses"), help="folder of finished runs")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    scores: dict[str, list[dict]] = {}
    chosen = {}
    for name in RECIPES:
        tuning = {rate: run(name, rate, 0, arguments.steps // 4, arguments) for rate in LEARNING_RATES}
        chosen[name] = min(tuning, key=lambda rate: tuning[rate]["joint_error_mm"])
    for seed in arguments.seeds:
        for name in RECIPES:
            scores.setdefault(name, []).append(run(name, chosen[name], seed, arguments.steps, arguments))
        save(scores, chosen, arguments)


def run(name: str, learning_rate: float, seed: int, steps: int, arguments: argparse.Namespace) -> dict:
    """One training and its figures on the test split; read from the folder of runs if it is there."""
    path = arguments.runs / f"{name}-lr{learning_rate:g}-seed{seed}-steps{steps}.json"
    if path.is_file():
        return json.loads(path.read_text())
    model_class, weights, (initial, final, hold, end) = RECIPES[name]
    set_seed(seed)
    config = MotionTokenizerConfig(
        num_codes=NUM_CODES,
        code_dim=NUM_CODES,
        hidden_size=WIDTH,
        gumbel_noise=0.0,
        gumbel_temperature=final,
        utilisation_estimate="assignment",
        position_weight=4.0,
        root_weight=10.0,
        **weights,
    )
    extractor = make_feature_extractor(MotionDataArguments(path=str(arguments.data)), config.downsampling_factor)
    train = load_motion_dataset(arguments.data, "train", mirrored=False)
    train, _ = drop_short_motions(train, config.downsampling_factor)
    model = model_class(config)
    training = MotionTokenizerTrainingArguments(
        output_dir=str(arguments.runs / path.stem),
        max_steps=steps,
        per_device_train_batch_size=WINDOWS,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.03,
        save_strategy="no",
        logging_steps=50,
        disable_tqdm=True,
        seed=seed,
    )
    MotionTrainer(
        model=model,
        args=training,
        train_dataset=MotionWindowDataset(train, extractor, window_frames=WINDOW_FRAMES, seed=seed),
        data_collator=default_data_collator,
        callbacks=[GumbelTemperatureCallback(initial, final, hold, end)],
    ).train()
    test, _ = drop_short_motions(
        load_motion_dataset(arguments.data, "test", mirrored=False), config.downsampling_factor
    )
    measured, _ = evaluate_reconstruction(model, extractor, normalised_clips(test, extractor))
    print(name, f"lr {learning_rate:g} seed {seed} steps {steps}:", {key: round(measured[key], 2) for key in COLUMNS})
    save_json(measured, path)
    return measured


def save(scores: dict[str, list[dict]], chosen: dict[str, float], arguments: argparse.Namespace) -> None:
    """Means and 95% intervals of the seeds that both recipes have finished."""
    count = min(map(len, scores.values()))
    metrics = {
        name: {column: summary([score[column] for score in runs[:count]]) for column in COLUMNS}
        for name, runs in scores.items()
    }
    result = make_result(
        command="python examples/benchmarks/tokenizer_losses.py DATA",
        model={"num_codes": NUM_CODES, "code_dim": NUM_CODES, "hidden_size": WIDTH},
        data={
            "name": "Bandai-Namco Research motion",
            "train": "without mirror images",
            "evaluated": "test, all lengths",
        },
        protocol={
            "steps": arguments.steps,
            "windows_per_step": WINDOWS,
            "window_frames": WINDOW_FRAMES,
            "seeds": arguments.seeds[:count],
            "learning_rates_tried": LEARNING_RATES,
            "learning_rate": chosen,
            "columns": COLUMNS,
            "threads": torch.get_num_threads(),
        },
        metrics=metrics,
    )
    save_json(result, arguments.output)


def summary(values: list[float]) -> dict[str, float | None]:
    """Mean and half width of the 95% interval (Student)."""
    count = len(values)
    half = STUDENT_T[count] * statistics.stdev(values) / count**0.5 if count > 1 else None
    return {"mean": statistics.fmean(values), "ci95": half, "n": count}


if __name__ == "__main__":
    main()
