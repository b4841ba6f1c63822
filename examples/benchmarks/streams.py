"""How fast a model with a motion branch of its own learns, against one stream: losses and scores against steps.

    python examples/benchmarks/streams.py --judge JUDGE [--recipes hub_configs/motiongpt3-tiny] [--output streams.json]

Trains stages I and II of the recipes twice, with two streams (text frozen, as in the paper) and with one (motion
through the text weights, which therefore train), from the same base model and motion VAE, and measures every
checkpoint on the validation split: what a judge, a captioning model, sees in the motions made of captions (stage I),
and what the captions of motions say (stage II). Everything that is there already is kept.
"""

import argparse
import json
import logging
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure

from geomotiongpt import load_motion_dataset, train_language_model
from geomotiongpt.checkpoints import load_captioner
from geomotiongpt.evaluation.attributes import (
    AttributeReader,
    AttributeWords,
    EmbeddedAttributes,
    attribute_accuracy,
)
from geomotiongpt.evaluation.captioner import write_captions
from geomotiongpt.evaluation.generation import Judge, evaluate_text_to_motion
from geomotiongpt.evaluation.protocol import Population
from geomotiongpt.evaluation.results import make_result, save_json

STAGES = ("text_to_motion", "alignment")
STREAMS = {"dual": "", "single": "single_stream_"}
LOSSES = {"text_to_motion": "eval_denoising_loss", "alignment": "eval_language_modeling_loss"}
SCORES = {"text_to_motion": "judged_action", "alignment": "action"}


def train(streams: str, stage: str, arguments: argparse.Namespace) -> Path:
    """One run with a checkpoint every so many steps."""
    folder = arguments.runs / f"{streams}_{stage}"
    if (folder / "model.safetensors").is_file():
        return folder
    options = [
        f"training.output_dir={folder}",
        f"training.max_steps={arguments.steps}",
        f"training.eval_steps={arguments.every}",
        "training.save_strategy=steps",
        f"training.save_steps={arguments.every}",
        "training.save_only_model=true",
    ]
    if stage != STAGES[0]:
        options.append(f"model.trained_model={arguments.runs / f'{streams}_{STAGES[0]}'}")
    return train_language_model(arguments.recipes / f"{STREAMS[streams]}{stage}.yaml", [*options, *arguments.options])


def score(checkpoint: Path, stage: str, data: str, judge: Judge) -> dict:
    """Shares of attributes that are right, over the validation split."""
    output = checkpoint / "scores"
    if stage == STAGES[0]:
        result = evaluate_text_to_motion(
            checkpoint, Population(data, "val", mirrored=False), output, judge=judge, reader=judge.reader
        )
        return {name: value for name, value in result["metrics"].items() if name.startswith("judged_")}
    model, processor = load_captioner(checkpoint)
    output.mkdir(exist_ok=True)
    dataset = load_motion_dataset(data, "val", mirrored=False)
    captions = write_captions(model.eval(), processor, dataset, output / "captions.jsonl", do_sample=False)
    return attribute_accuracy(captions, dataset["captions"], judge.reader)


def draw(curves: dict, path: Path) -> None:
    """Losses above, scores below, a column a stage."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    for column, stage in enumerate(STAGES):
        for row, (names, what) in enumerate(((LOSSES, "validation loss"), (SCORES, "actions right"))):
            axes = figure.add_subplot(2, 2, 2 * row + column + 1)
            for streams in STREAMS:
                points = curves[f"{streams}_{stage}"]
                values = [point["scores"][names[stage]]["mean"] if row else point["loss"] for point in points]
                axes.plot([point["step"] for point in points], values, marker="o", label=f"{streams} stream")
            axes.set(xlabel="steps", ylabel=what, title="" if row else stage.replace("_", " "))
            axes.grid(alpha=0.3)
            axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Trains, measures, draws and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", required=True, help="folder of a captioning model")
    parser.add_argument("--recipes", type=Path, default=Path("hub_configs/motiongpt3-tiny"))
    parser.add_argument("--data", default="quickstart/data")
    parser.add_argument("--labels", default="embedded", help="as of `geomotiongpt evaluate`")
    parser.add_argument("--runs", type=Path, default=Path("runs/motiongpt3-tiny/streams"))
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--every", type=int, default=500)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("options", nargs="*", metavar="section.key=value", help="for all recipes")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    model, processor = load_captioner(arguments.judge)
    reader: AttributeReader = EmbeddedAttributes()
    if arguments.labels != "embedded":
        reader = AttributeWords.from_labels(json.loads(Path(arguments.labels).read_text(encoding="utf-8")))
    judge = Judge(arguments.judge, model.eval(), processor, reader)
    curves: dict[str, list[dict]] = {}
    for streams in STREAMS:
        for stage in STAGES:
            folder = train(streams, stage, arguments)
            history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
            losses = {row["step"]: row[LOSSES[stage]] for row in history if LOSSES[stage] in row}
            curves[f"{streams}_{stage}"] = [
                {
                    "step": step,
                    "loss": losses[step],
                    "scores": score(folder / f"checkpoint-{step}", stage, arguments.data, judge),
                }
                for step in range(arguments.every, arguments.steps + 1, arguments.every)
            ]
    result = make_result(
        command=" ".join(["python examples/benchmarks/streams.py", *sys.argv[1:]]),
        model={"recipes": arguments.recipes.name, "judge": Path(arguments.judge).name},
        data={"name": arguments.data, "split": "val, without mirror images"},
        protocol={"steps": arguments.steps, "text": "frozen with two streams, trained with one", "seed": 0},
        metrics=curves,
    )
    draw(curves, arguments.output.with_suffix(".png"))
    print(f"saved {save_json(result, arguments.output)}")


if __name__ == "__main__":
    main()
