"""Trains both stages on a folder of real motion and captions its test splits: one deterministic command.

    python examples/real_motion.py DATA [--output runs/real-motion] [--model-options section.key=value ...]

DATA holds `unpack.py` (writes joints, texts and split lists into the folder it is given) and `bandai/labels.json` (the
words by which captions name action, side and style). It is made of the public Bandai-Namco Research motion data set,
and not distributed here for its licence, see hub_configs/README.md. The motion is real; the captions are templates, no
sentences of people, so the accuracies say whether the model tells the motions apart, not whether it writes well.
"""

import argparse
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from geomotiongpt import GeoMotionGPTForCausalLM, GeoMotionGPTProcessor, build_motion_dataset, load_motion_dataset
from geomotiongpt.data.training_sets import drop_short_motions, normalised_clips
from geomotiongpt.evaluation.attributes import AttributeWords, attribute_accuracy
from geomotiongpt.evaluation.reconstruction import encode_clips, evaluate_reconstruction
from geomotiongpt.evaluation.results import make_result, save_json
from geomotiongpt.models.geometry import codebook_geometry
from geomotiongpt.training.language_model import caption_codes, train_language_model
from geomotiongpt.training.motion_tokenizer import train_motion_tokenizer

RECIPES = Path(__file__).parents[1] / "hub_configs" / "geomotiongpt-real-motion"
TEST_SPLITS = ("test", "test_unseen")


def main() -> None:
    """Data, both stages, figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    changes = "values to change in the recipe of this stage"
    parser.add_argument("data", type=Path, help="folder with unpack.py and bandai/labels.json")
    parser.add_argument("--output", type=Path, default=Path("runs/real-motion"))
    parser.add_argument("--recipes", type=Path, default=RECIPES, help="folder with the two recipes")
    parser.add_argument("--results", type=Path, help="JSON to write (default: results.json in the output folder)")
    parser.add_argument("--stages", choices=("both", "tokenizer", "language-model"), default="both")
    parser.add_argument("--tokenizer-options", nargs="*", default=[], metavar="section.key=value", help=changes)
    parser.add_argument("--model-options", nargs="*", default=[], metavar="section.key=value", help=changes)
    arguments = parser.parse_args()
    for file in ("unpack.py", "bandai/labels.json"):
        if not (arguments.data / file).is_file():
            parser.error(f"{arguments.data} has no {file}: see the section DATA of hub_configs/README.md")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    output = arguments.output
    folder = prepare_data(arguments.data, output)
    if arguments.stages != "language-model":
        options = [f"data.path={folder}", f"training.output_dir={output / 'motion_tokenizer'}"]
        with timed(output, "motion_tokenizer"):
            train_motion_tokenizer(
                arguments.recipes / "motion_tokenizer.yaml", [*options, *arguments.tokenizer_options]
            )
    if arguments.stages != "tokenizer":
        options = [f"data.path={folder}", f"training.output_dir={output / 'model'}"]
        options.append(f"model.motion_tokenizer={output / 'motion_tokenizer'}")
        with timed(output, "language_model"):
            train_language_model(arguments.recipes / "language_model.yaml", [*options, *arguments.model_options])
    seconds = {path.stem.removeprefix("seconds_"): float(path.read_text()) for path in output.glob("seconds_*.txt")}
    metrics = evaluate(output, folder, arguments.data / "bandai" / "labels.json", arguments.stages)
    result = make_result(
        command=" ".join(["python examples/real_motion.py DATA", *options_of(arguments)]),
        model={"recipes": arguments.recipes.name, "seconds": {name: round(value) for name, value in seconds.items()}},
        data={"name": "Bandai-Namco Research motion, templated captions", "lengths": "all", "mirrored": False},
        protocol={
            "joint_error_mm": "root-relative, joints 1 to 21, in the body's heading; mean over clips",
            "attributes": "phrases of labels.json",
            "decoding": "greedy",
            "code_use": "argmax codes of the train split without mirror images",
        },
        metrics=metrics,
    )
    path = save_json(result, arguments.results or output / "results.json")
    print(json.dumps(metrics, indent=2))
    print(f"saved {path}")


@contextmanager
def timed(output: Path, name: str) -> Iterator[None]:
    """Keeps the seconds that a part took in the output folder, for when the next part runs alone."""
    started = time.perf_counter()
    yield
    (output / f"seconds_{name}.txt").write_text(f"{time.perf_counter() - started:.0f}")


def options_of(arguments: argparse.Namespace) -> list[str]:
    """The options that matter for the figures, as typed."""
    options = ["--stages", "tokenizer"] if arguments.stages == "tokenizer" else []
    for name, values in (
        ("--tokenizer-options", arguments.tokenizer_options),
        ("--model-options", arguments.model_options),
    ):
        options += [name, *values] if values else []
    return options


def prepare_data(source: Path, output: Path) -> Path:
    """Plain files, then the HumanML3D layout; what is there already is kept."""
    raw, folder = output / "raw", output / "data"
    if not (raw / "test_unseen.txt").is_file():
        subprocess.run([sys.executable, str(source / "unpack.py"), str(raw)], check=True)
    print(build_motion_dataset(raw, folder, num_proc=2))
    return folder


def evaluate(output: Path, folder: Path, labels: Path, stages: str) -> dict:
    """All figures; the language model's only where it has been trained."""
    from geomotiongpt import MotionFeatureExtractor, MotionTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    extractor = MotionFeatureExtractor.from_pretrained(output / "motion_tokenizer")
    tokenizer = MotionTokenizer.from_pretrained(output / "motion_tokenizer").to(device).eval()
    metrics: dict = {
        f"tokenizer_{name}": value for name, value in codebook_geometry(tokenizer.codebook.weight).items()
    }
    splits = {name: load_clips(folder, name, extractor) for name in ("train", *TEST_SPLITS)}
    for name, (_, clips) in splits.items():
        measured, _ = evaluate_reconstruction(tokenizer, extractor, clips)
        wanted = ("perplexity", "codes_used") if name == "train" else ("joint_error_mm", "mpjpe_mm")
        metrics |= {f"{name}_{key}": measured[key] for key in wanted}
    metrics["num_codes"] = tokenizer.config.num_codes
    if stages == "tokenizer":
        return metrics
    words = AttributeWords.from_labels(json.loads(labels.read_text()))
    model = GeoMotionGPTForCausalLM.from_pretrained(output / "model").to(device).eval()
    processor = GeoMotionGPTProcessor.from_pretrained(output / "model")
    for name in TEST_SPLITS:
        dataset, clips = splits[name]
        captions = caption_codes(model, processor, encode_clips(model.motion_tokenizer, clips))
        for attribute, score in attribute_accuracy(captions, dataset["captions"], words).items():
            metrics[f"{name}_{attribute}"] = score
        lines = [
            json.dumps({"motion_id": motion_id, "caption": caption, "references": references})
            for motion_id, caption, references in zip(dataset["motion_id"], captions, dataset["captions"], strict=True)
        ]
        (output / f"captions_{name}.jsonl").write_text("\n".join(lines) + "\n")
    codebook = codebook_geometry(model.motion_geometry())
    return metrics | {f"language_model_{key}": value for key, value in codebook.items()}


def load_clips(folder: Path, split: str, extractor):
    """A split without mirror images, and its normalised clips."""
    dataset = load_motion_dataset(folder, split, mirrored=False)
    dataset, _ = drop_short_motions(dataset, extractor.downsampling_factor)
    return dataset, normalised_clips(dataset, extractor)


if __name__ == "__main__":
    main()
