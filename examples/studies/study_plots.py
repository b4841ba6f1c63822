"""Figures of studies, each a function of the measured studies and the PNG to write."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import yaml
from study_rows import METRICS, Measured, interval
from study_runs import ROOT, Cell

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

WEIGHT = "orthonormality_weight"
BLUE, ORANGE, GREY = "#1f6fb4", "#d95f02", "#888888"


def main_claim(studies: Mapping[str, Measured], path: Path) -> Path:
    """Every seed of the cells of the main claim, with mean and 95 % interval: a row a study, a panel a metric."""
    names = ("joint_error_mm", "cider", "style", "final_loss", "generated_fid", "generated_text_to_motion_r_at_3")
    begun = {study: measured for study, measured in studies.items() if measured.rows} or studies
    figure, rows = plt.subplots(len(begun), len(names), figsize=(13, 2.6 * len(begun)), squeeze=False)
    for panels, (study, measured) in zip(rows, begun.items(), strict=True):
        cells = measured.cells("main")
        for panel, usual in zip(panels, names, strict=True):
            name = usual if any(measured.values(cell, usual) for cell in cells) else "action"  # no styles are named
            _draw_cells(panel, measured, [cell.name for cell in cells], name)
            panel.set_yticks(range(len(cells)), [cell.name.replace("_", " ") for cell in cells])
            panel.set_ylim(len(cells) - 0.5, -0.5)
            if panel is not panels[0]:
                panel.set_yticklabels([])
        panels[0].set_ylabel(study)
    return _save(figure, path)


def lambdas(studies: Mapping[str, Measured], path: Path) -> Path:
    """What the weight of L_ortho does in each stage: Gram error, reconstruction, captions, motions."""
    measured = studies["real"]
    names = ("gram_error_excess", "joint_error_mm", "cider", "generated_fid")
    figure, panels = plt.subplots(1, len(names), figsize=(13, 3))
    for stage, colour in (("motion_tokenizer", BLUE), ("language_model", ORANGE)):
        found = measured.cells("lambda_tokenizer" if stage == "motion_tokenizer" else "lambda_model")
        if stage == "motion_tokenizer":
            found = [cell for cell in found if cell is not measured.default]  # of another start
        places = [_constraint_weight(cell, stage) or 1e-5 for cell in found]
        for panel, name in zip(panels, names, strict=True):
            own = f"language_model_{name}" if name.startswith("gram") and stage == "language_model" else name
            _draw_course(panel, measured, [cell.name for cell in found], places, own, colour, stage.replace("_", " "))
    for panel, name in zip(panels, names, strict=True):
        panel.set_xscale("log")
        panel.set_xticks([1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1], ["0", "1e-4", "1e-3", "1e-2", "1e-1", "1"])
        panel.minorticks_off()
        panel.set_xlabel("weight of the constraint")
        if name.endswith("excess"):
            panel.set_yscale("log")
        panel.set_title("Gram error after the stage" if name.startswith("gram") else _label(name), fontsize=9)
    _add_legend(panels[0])
    return _save(figure, path)


def learning(studies: Mapping[str, Measured], path: Path) -> Path:
    """The captioning loss on the validation split over the steps, mean over seeds, of the main cells."""
    begun = {study: measured for study, measured in studies.items() if measured.rows} or studies
    figure, panels = plt.subplots(1, len(begun), figsize=(6.5 * len(begun), 3.4), squeeze=False)
    for panel, (study, measured) in zip(panels[0], begun.items(), strict=True):
        for cell in measured.cells("main"):
            curves = [row["model"]["curve"] for (name, _), row in measured.rows.items() if name == cell.name]
            steps = [step for step, _ in curves[0]]
            means = np.mean([[loss for _, loss in curve] for curve in curves], axis=0)
            panel.plot(steps, means, label=cell.name.replace("_", " "))
        panel.axhline(measured.study.loss, color=GREY, linewidth=0.8, linestyle=":")
        panel.set_xlabel("step of stage 2")
        panel.set_title(f"{study}: caption loss, validation split", fontsize=9)
        _add_legend(panel)
    return _save(figure, path)


def differences(studies: Mapping[str, Measured], path: Path) -> Path:
    """Every cell's difference from what it stands against with its 95 % interval, for four metrics."""
    measured = studies["real"]
    names = ("joint_error_mm", "cider", "final_loss", "generated_fid")
    cells = [cell for cell in measured.study.cells[1:] if cell.is_counted and measured.differences(cell, names[0])]
    figure, panels = plt.subplots(1, len(names), figsize=(13, 1 + 0.22 * len(cells)), sharey=True)
    for panel, name in zip(panels, names, strict=True):
        for place, cell in enumerate(cells):
            values = measured.differences(cell, name)
            if values and not measured.is_same(cell, name):
                _draw_values(panel, place, values, name)
        panel.axvline(0, color=GREY, linewidth=0.8)
        panel.set_title(_label(name), fontsize=9)
    panels[0].set_yticks(range(len(cells)), [_against(cell, measured) for cell in cells], fontsize=8)
    panels[0].invert_yaxis()
    return _save(figure, path)


def _constraint_weight(cell: Cell, stage: str) -> float:
    """Weight of the constraint in a stage of a cell: by its options, or its recipe."""
    (chosen,) = (each for each in cell.stages if each.name == stage)
    said = [option.partition("=")[2] for option in chosen.options if option.startswith(f"model.{WEIGHT}=")]
    recipe = yaml.safe_load((ROOT / chosen.recipe).read_text(encoding="utf-8"))
    return float(said[-1] if said else recipe["model"][WEIGHT])


def _draw_cells(panel: Axes, measured: Measured, cells: Sequence[str], name: str) -> None:
    for place, cell in enumerate(cells):
        values = list(measured.values(measured.study.cell(cell), name).values())
        if values:
            _draw_values(panel, place, values, name)
    panel.set_title(_label(name), fontsize=9)


def _draw_values(panel: Axes, place: float, values: Sequence[float], name: str) -> None:
    scaled = [value * METRICS[name].factor for value in values]
    mean, width = interval(scaled)
    panel.plot(scaled, [place] * len(scaled), "o", color=GREY, markersize=3, alpha=0.7)
    shown = width if len(values) > 2 else None  # of two it would hide all others
    panel.errorbar(mean, place, xerr=shown, fmt="o", color=BLUE, markersize=4, capsize=2)


def _draw_course(
    panel: Axes,
    measured: Measured,
    cells: Sequence[str],
    places: Sequence[float],
    name: str,
    colour: str,
    label: str,
) -> None:
    found = [list(measured.values(measured.study.cell(cell), name).values()) for cell in cells]
    points = [(place, *interval(values)) for place, values in zip(places, found, strict=True) if values]
    if points:
        places_, means, widths = (np.array(column) for column in zip(*sorted(points), strict=True))
        factor = METRICS[name].factor
        panel.errorbar(places_, means * factor, np.nan_to_num(widths) * factor, color=colour, marker="o", label=label)


def _add_legend(panel: Axes) -> None:
    if panel.get_legend_handles_labels()[0]:
        panel.legend(fontsize=8, frameon=False)


def _against(cell: Cell, measured: Measured) -> str:
    base = measured.base(cell)
    shown = cell.name.replace("_", " ")
    return shown if base is measured.default else f"{shown} – {base.name.replace('_', ' ')}"


def _label(name: str) -> str:
    metric = METRICS[name]
    kind = "made of captions:\n" if name.startswith("generated_") and "made" not in metric.label else ""
    return f"{kind}{metric.label}{ {True: ' ↓', False: ' ↑', None: ''}[metric.less_is_better] }"


def _save(figure: plt.Figure, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return path


PLOTS: dict[str, Callable[[Mapping[str, Measured], Path], Path]] = {
    plot.__name__: plot for plot in (main_claim, lambdas, learning, differences)
}
