"""The report of studies, from their rows alone: tables, figures and the text around them.

`report.md` in the folder is the text; what stands in double braces there is filled in from the rows, so that no figure
is typed by hand:

    {{table STUDY QUESTION KIND}}         cells of a question; KIND is "codes", "captions", "motions" or "differences"
    {{value STUDY CELL METRIC}}           mean and 95 % interval over the seeds
    {{difference STUDY CELL METRIC}}      mean and 95 % interval of the differences from the default, paired by seed
    {{plot NAME}}                         a figure of `study_plots`
    {{runs STUDY}}  {{missing STUDY}}  {{hours STUDY}}  {{comparisons STUDY}}  {{command STUDY CELL}}
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from study_plots import PLOTS
from study_rows import METRICS, Measured, interval, is_clear
from study_runs import command_of

KINDS = {
    "codes": (
        *("joint_error_mm", "reconstruction_fid", "perplexity", "dead_codes", "gram_error_excess"),
        *("gram_error_excess_before", "language_model_gram_error_excess"),
    ),
    "captions": (
        *("bleu_4", "rouge_l", "cider", "action", "side", "style", "test_unseen_action", "test_unseen_style"),
        *("motion_to_text_r_at_3", "text_to_motion_r_at_3", "steps_to_loss"),
    ),
    "motions": (
        *("generated_fid", "generated_fid_over_floor", "generated_motion_to_text_r_at_3"),
        *("generated_text_to_motion_r_at_3", "generated_mm_dist", "generated_jerk_m_per_s3"),
    ),
    "differences": (
        *("joint_error_mm", "bleu_4", "cider", "action", "style", "test_unseen_cider", "final_loss", "steps_to_loss"),
        *("generated_fid", "generated_text_to_motion_r_at_3"),
    ),
}


_NOTE = "<!-- Made of report.md and the rows by `python examples/geometry_study.py --report`; edit report.md. -->"


def write_study_report(folder: str | Path) -> list[Path]:
    """Makes README.md and the figures of a folder of studies from their rows and `report.md`.

    Raises:
        FileNotFoundError: if there is no `report.md`.
        ValueError: for something in braces that cannot be filled in.
    """
    folder = Path(folder)
    if not (folder / "report.md").is_file():
        raise FileNotFoundError(f"{folder / 'report.md'}: no such text; a report is made from it and the rows.")
    studies = {path.stem: Measured.read(path) for path in sorted(folder.glob("*.yaml"))}
    written: list[Path] = []

    def fill(match: re.Match) -> str:
        kind, *names = match.group(1).split()
        try:
            if kind == "plot":
                written.append(PLOTS[names[0]](studies, folder / f"{names[0]}.png"))
                return f"![{names[0].replace('_', ' ')}]({names[0]}.png)"
            return _FILLED[kind](studies[names[0]], *names[1:])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{folder / 'report.md'}: cannot fill in {match.group(0)} ({error}).") from error

    text = re.sub(r"\{\{(.+?)\}\}", fill, (folder / "report.md").read_text(encoding="utf-8"))
    target = folder / "README.md"
    target.write_text(f"{_NOTE}\n\n{text}", encoding="utf-8")
    return [target, *written]


def compare_with_rows(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """A repeated run beside the committed row of its seed and the interval of its cell."""
    same = [other for other in rows if other["model"]["cell"] == row["model"]["cell"]]
    committed = next((other for other in same if other["model"]["seed"] == row["model"]["seed"]), None)
    lines = [f"{row['model']['cell']}, seed {row['model']['seed']}: again, the committed row, all seeds of the cell"]
    for name, value in row["metrics"].items():
        values = [other["metrics"][name] for other in same if other["metrics"].get(name) is not None]
        mean, width = interval(values) if values else (math.nan, math.nan)
        before = None if committed is None else committed["metrics"].get(name)
        lines.append(f"  {name:45} {_plain(value):>10} {_plain(before):>10}   {mean:.5g} ± {width:.2g}")
    return "\n".join(lines)


def table(measured: Measured, question: str, kind: str) -> str:
    """Markdown: the cells of a question, and the metrics of a kind that any of them has."""
    cells = measured.cells(question)
    names = [name for name in KINDS[kind] if any(measured.values(cell, name) for cell in cells)]
    if kind == "differences":
        cells = [cell for cell in cells if cell is not measured.default]
    if not cells or not names:
        return "*No run of this question has ended yet.*"
    lines = [f"| | {' | '.join(METRICS[name].label for name in names)} |", f"|---|{'---|' * len(names)}"]
    for cell in cells:
        shown = [value(measured, cell.name, name) for name in names]
        if kind == "differences":
            shown = [difference(measured, cell.name, name) for name in names]
        reached = sum((cell.name, seed) in measured.rows for seed in range(cell.seeds))
        lines.append(f"| {cell.title} ({reached}) | {' | '.join(shown)} |")
    return "\n".join(lines)


def value(measured: Measured, cell: str, name: str) -> str:
    """Mean ± interval over the seeds; how many of them where it is not all."""
    return _show(list(measured.values(measured.study.cell(cell), name).values()), name, signed=False)


def difference(measured: Measured, cell: str, name: str) -> str:
    """Mean ± interval of the differences from the default; bold where the interval leaves out 0."""
    values = measured.differences(measured.study.cell(cell), name)
    shown = _show(values, name, signed=True)
    return f"**{shown}**" if is_clear(values) else shown


def comparisons(measured: Measured) -> str:
    """How many of the differences in the tables leave out 0, and how many would by chance if none were real."""
    clear = tested = 0
    for cell in measured.study.cells[1:]:
        for name in KINDS["differences"]:
            values = measured.differences(cell, name)
            tested, clear = tested + (len(values) > 2), clear + is_clear(values)
    return f"{clear} of {tested} (by chance alone: about {tested / 20:.0f})"


def _show(values: Sequence[float], name: str, *, signed: bool) -> str:
    metric = METRICS[name]
    if not values:
        return "–"
    mean, width = (metric.factor * part for part in interval(values))
    shown = f"{mean:{'+' if signed else ''}.{metric.decimals}f}"
    return shown if math.isnan(width) else f"{shown} ± {width:.{metric.decimals}f}"


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.5g}"


def _missing(measured: Measured) -> str:
    if not measured.missing:
        return "none"
    seeds: dict[str, list[str]] = {}
    for cell, seed in measured.missing:
        seeds.setdefault(cell.name, []).append(str(seed))
    return ", ".join(f"`{name}` (seeds {', '.join(numbers)})" for name, numbers in seeds.items())


def _hours(measured: Measured) -> str:
    stages: dict[str, float] = {}
    measuring = 0.0
    for row in measured.rows.values():
        seconds = row["model"]["seconds"]
        stages |= {key: seconds[name] for name, key in row["model"]["stages"].items()}
        measuring += seconds["measuring"]
    return f"{(sum(stages.values()) + measuring) / 3600:.1f}"


def _command(measured: Measured, cell: str) -> str:
    return f"`{command_of(measured.study, measured.study.cell(cell), 0)}`"


_FILLED = {
    "table": table,
    "value": value,
    "difference": difference,
    "runs": lambda measured: f"{len(measured.rows)} of {len(measured.study.runs)}",
    "missing": _missing,
    "hours": _hours,
    "comparisons": comparisons,
    "command": _command,
}
