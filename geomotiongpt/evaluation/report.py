"""A result as people read it: a Markdown report, plots, and entries for a model card."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard
from pycocoevalcap.rouge.rouge import Rouge

from ..visualization.evaluation_plots import plot_class_scores, plot_confusion, plot_score_against_length
from ..visualization.output import write_aside
from .attributes import AttributeReader, EmbeddedAttributes, shown_attributes
from .results import eval_results, format_score

REPORT = "report.md"


def write_report(result: Mapping[str, Any], output: str | Path, plots: Mapping[str, Path] | None = None) -> Path:
    """Writes `report.md`: metrics, plots, protocol and environment.

    Args:
        result: in the common schema.
        output: folder to write into.
        plots: heading -> picture in that folder.
    """
    output = Path(output)
    lines = [f"# {result['model'].get('name', 'evaluation')} on {result['data'].get('name', 'its data')}", ""]
    lines += [f"`{result['command']}`", "", metric_table(result["metrics"]), ""]
    for heading, path in (plots or {}).items():
        lines += [f"## {heading}", "", f"![{heading}]({path.name})", ""]
    for heading in ("protocol", "environment"):
        lines += [f"## {heading.capitalize()}", "", *_bullets(result[heading]), ""]
    return write_aside(output / REPORT, lambda file: file.write("\n".join(lines).encode()))


def metric_table(metrics: Mapping[str, Any]) -> str:
    """Markdown: a line for each metric with its 95% interval, or with a column for each of several systems.

    Args:
        metrics: name -> value or {"mean", "ci95", "n"}; or system -> the same.
    """
    values = list(metrics.values())
    if values and all(isinstance(value, Mapping) and "mean" not in value for value in values):
        names = list(dict.fromkeys(name for scores in values for name in scores))
        rows = [[name, *(format_score(scores.get(name)) for scores in values)] for name in names]
        header = ["metric", *metrics]
    else:
        rows = [[name, format_score(value)] for name, value in metrics.items()]
        header = ["metric", "value"]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] + ["---:"] * (len(header) - 1), *rows])


def _bullets(entries: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, value in entries.items():
        if isinstance(value, Mapping):
            lines += [f"- {name}", *(f"  {line}" for line in _bullets(value))]
        else:
            lines.append(f"- {name}: {value}")
    return lines


def draw_plots(
    predictions: str | Path, output: str | Path, lengths: Sequence[int], reader: AttributeReader | None, fps: float
) -> dict[str, Path]:
    """Plots of the captions of a split.

    Args:
        predictions: JSONL by `write_captions`.
        output: folder for the pictures.
        lengths: frames of each motion.
        reader: of attributes; without one only ROUGE-L against length is drawn.
        fps: frames a second.

    Returns:
        heading -> picture.
    """
    output = Path(output)
    with open(predictions, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    captions, references = [row["prediction"] for row in rows], [row["references"] for row in rows]
    seconds = [length / fps for length in lengths]
    rouge = [Rouge().calc_score([caption], group) for caption, group in zip(captions, references, strict=True)]
    path = plot_score_against_length(
        seconds, rouge, output / "rouge_l_by_length.png", label="ROUGE-L of a caption (coco, all references)"
    )
    plots = {"ROUGE-L against length": path}
    if reader is None:
        return plots
    shown = shown_attributes(references, reader)["action"]
    pairs = [
        (action, reader.read(caption)["action"], second)
        for action, caption, second in zip(shown, captions, seconds, strict=True)
        if action is not None
    ]
    if not pairs:
        return plots
    right = [float(action == said) for action, said, _ in pairs]
    path = output / "action_by_length.png"
    plots["Actions right against length"] = plot_score_against_length(
        [second for *_, second in pairs], right, path, label="share of captions with the right action"
    )
    alone = ""
    if isinstance(reader, EmbeddedAttributes):  # sequences of actions are too many classes to draw
        alone = ", motions of one action"
        pairs = [pair for pair in pairs if reader.is_single(pair[0])]
    scores: dict[str, list[float]] = {}
    for action, said, _ in pairs:
        scores.setdefault(action, []).append(float(action == said))
    if scores:
        path = output / "actions.png"
        plots[f"Score of each action{alone}"] = plot_class_scores(
            scores, path, label="share of captions with the right action"
        )
        shown_actions, said_actions = [pair[0] for pair in pairs], [_class_of(pair[1], reader) for pair in pairs]
        plots[f"Actions taken for others{alone}"] = plot_confusion(
            shown_actions, said_actions, output / "confusion.png"
        )
    return plots


def _class_of(action: str | None, reader: AttributeReader) -> str | None:
    several = isinstance(reader, EmbeddedAttributes) and action is not None and not reader.is_single(action)
    return "(several)" if several else action


def update_model_card(card: str | Path, result: Mapping[str, Any], data_name: str) -> None:
    """Puts a result into the model-index of a model card, in the place of an older one of the same metrics and data.

    Args:
        card: the `README.md` of a model.
        result: in the common schema.
        data_name: of the data set measured on.

    Raises:
        FileNotFoundError: if there is no such card.
    """
    card = Path(card)
    if not card.is_file():
        raise FileNotFoundError(f"{card}: no such model card; training and `geomotiongpt quickstart` write one.")
    content = ModelCard.load(card)
    new = eval_results(result, data_name)
    places = {_place(entry) for entry in new}
    kept = [entry for entry in content.data.eval_results or [] if _place(entry) not in places]
    content.data.eval_results = [*kept, *new]
    content.data.model_name = content.data.model_name or card.parent.name
    write_aside(card, lambda file: file.write(str(content).encode()))


def _place(entry: EvalResult) -> tuple:
    """What an entry of a model-index is about."""
    return entry.task_type, entry.dataset_name, entry.dataset_split, entry.metric_type, entry.metric_config
