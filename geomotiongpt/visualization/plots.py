"""Plots of a codebook and of a training run, drawn without pyplot: the caller's backend and figures stay untouched."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .output import check_output_path, to_array, write_aside

TEXT, MUTED_TEXT, LINES = "#1f2937", "#6b7280", "#d1d5db"
BLUE, ORANGE, PALE_RED = "#2563eb", "#ea580c", "#fbd9d6"
SUFFIXES = (".png", ".svg", ".pdf")
COLUMNS = 3  # of small multiples
# What the Trainer logs about itself rather than about the model.
BOOKKEEPING = ("step", "epoch", "total_flos", "num_input_tokens_seen")
BOOKKEEPING_SUFFIXES = ("_runtime", "_per_second", "_time")


def plot_gram_matrix(gram: np.ndarray | torch.Tensor, path: str | os.PathLike, *, title: str | None = None) -> Path:
    """Draw how far a codebook is from orthonormal: its Gram matrix, and a histogram of |cosine| between two codes.

    The colour scale is symmetric about 0 and ends at the largest off-diagonal |cosine|, but not below 0.1: the
    diagonal, always 1, would else hide everything beside it.

    Args:
        gram: cosines (num_codes, num_codes) between the codes.
        path: file to write, `.png`, `.svg` or `.pdf`.
        title: heading; none by default.

    Returns:
        The path written.

    Raises:
        ValueError: if `gram` is not square, of fewer than two codes, not finite or not of cosines; on another suffix.
    """
    path = check_output_path(path, SUFFIXES)
    gram = to_array(gram)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or len(gram) < 2:
        raise ValueError(f"gram must have shape (num_codes, num_codes) with num_codes >= 2, got {gram.shape}")
    if not np.isfinite(gram).all():
        raise ValueError(f"gram holds {np.count_nonzero(~np.isfinite(gram))} values that are not finite")
    if np.abs(gram).max() > 1.01:
        raise ValueError(
            f"gram holds {gram.flat[np.abs(gram).argmax()]:.4g}, and cosines lie in [-1, 1]: "
            "normalise the codes to length 1 first"
        )
    num_codes = len(gram)
    between = np.abs(gram[np.triu_indices(num_codes, 1)])
    distance = np.sum((gram - np.eye(num_codes)) ** 2)
    limit = float(np.clip(between.max(), 0.1, 1.0))

    figure = _figure(10.0, 4.6, title)
    matrix, histogram = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _style(matrix, rf"{num_codes:,} codes, $\Vert G - I \Vert_F^2$ = {distance:.4g}", "code", "code")
    image = matrix.imshow(gram, cmap="RdBu_r", vmin=-limit, vmax=limit)
    matrix.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    matrix.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    bar = figure.colorbar(image, ax=matrix, extend="neither" if limit == 1.0 else "both", shrink=0.9)
    bar.set_label("cosine", color=MUTED_TEXT)
    bar.outline.set_visible(False)
    bar.ax.tick_params(color=LINES, labelcolor=MUTED_TEXT, labelsize=9)

    _style(histogram, f"Largest |cosine| of two codes: {between.max():.4g}", "|cosine|", "pairs of codes", grid=True)
    histogram.hist(between, bins=min(50, max(10, num_codes)), range=(0.0, limit), color=BLUE, log=True)
    histogram.set_xlim(0, limit * 1.03)
    histogram.axvline(between.max(), color=ORANGE, linewidth=1.5)
    return _save(figure, path)


def plot_code_usage(counts: np.ndarray | torch.Tensor, path: str | os.PathLike, *, title: str | None = None) -> Path:
    """Draw how often each code is used, the most used first, with the perplexity, codes used and dead codes.

    The count axis is logarithmic when the most used code is met 50 times as often as the median used one.

    Args:
        counts: times each code was used, (num_codes,).
        path: file to write, `.png`, `.svg` or `.pdf`.
        title: heading; none by default.

    Returns:
        The path written.

    Raises:
        ValueError: if `counts` is not one-dimensional, not finite, has a negative count or counts nothing; on another
            suffix.
    """
    path = check_output_path(path, SUFFIXES)
    counts = to_array(counts)
    if counts.ndim != 1 or not np.isfinite(counts).all() or (counts < 0).any() or not counts.any():
        raise ValueError(
            f"counts must be (num_codes,) finite numbers >= 0 that are not all 0, got shape {counts.shape}"
            + (f" from {counts.min():.4g} to {counts.max():.4g}" if counts.size else "")
        )
    ranked = np.sort(counts)[::-1]
    used = ranked[ranked > 0]
    shares = used / used.sum()
    perplexity = math.exp(-np.sum(shares * np.log(shares)))
    num_codes, num_dead = len(counts), len(counts) - len(used)

    figure = _figure(8.0, 4.4, title)
    axis = figure.subplots()
    heading = f"perplexity {perplexity:.1f}, {len(used):,} of {num_codes:,} codes used, {num_dead:,} dead"
    _style(axis, heading, "code, by rank of use", "times used", grid=True)
    axis.bar(np.arange(num_codes) + 0.5, ranked, width=1.0, color=BLUE, linewidth=0)
    axis.axhline(used.sum() / num_codes, color=ORANGE, linewidth=1.2, linestyle="--", label="even use")
    if num_dead:
        axis.axvspan(len(used), num_codes, color=PALE_RED, linewidth=0, zorder=0, label="dead codes")
    if used[0] >= 50 * np.median(used):
        axis.set_yscale("log")
    axis.set_xlim(0, num_codes)
    _legend(figure, "outside lower right")
    return _save(figure, path)


def plot_training_history(
    history: Sequence[Mapping[str, Any]], path: str | os.PathLike, *, keys: Iterable[str] | None = None
) -> Path:
    """Draw what a run logged over its steps, a panel a quantity: training as a line, evaluation as dots on a line.

    Args:
        history: `trainer.state.log_history`: dicts with `step` and named numbers; `eval_<key>` shares the panel of
            `<key>`.
        path: file to write, `.png`, `.svg` or `.pdf`.
        keys: quantities to draw, named without `eval_`; those never logged are left out. By default every number
            logged, the losses first.

    Returns:
        The path written.

    Raises:
        ValueError: if nothing of `keys` was logged; on another suffix.
    """
    path = check_output_path(path, SUFFIXES)
    curves = _curves(history)
    found = sorted(dict.fromkeys(name.removeprefix("eval_") for name in curves), key=_panel_order)
    wanted = found if keys is None else list(dict.fromkeys(keys))
    panels = [key for key in wanted if key in found]
    if not panels:
        raise ValueError(
            f"a history of {len(history)} entries never logs {' or '.join(wanted) or 'a number'}: "
            f"it logs {', '.join(found) or 'nothing'}"
        )
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = _figure(4.2 * columns, 2.8 * rows + 0.4, None)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, key in zip(axes, panels, strict=False):
        _draw_curves(axis, key, curves)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    _legend(figure, "outside upper right")
    return _save(figure, path)


def _curves(history: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """Steps and values of every number logged, without the Trainer's own bookkeeping."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for entry in history:
        for name, value in entry.items():
            ours = (
                name not in BOOKKEEPING and not name.startswith("train_") and not name.endswith(BOOKKEEPING_SUFFIXES)
            )
            if ours and "step" in entry and isinstance(value, (int, float)):
                steps, values = curves.setdefault(name, ([], []))
                steps.append(entry["step"])
                values.append(value)
    return curves


def _panel_order(key: str) -> int:
    """The loss, then its parts, then what else describes the model, then the optimiser."""
    if key in ("learning_rate", "grad_norm"):
        return 3
    return 0 if key == "loss" else 1 if key.endswith("loss") else 2


def _draw_curves(axis: Axes, key: str, curves: dict[str, tuple[list[float], list[float]]]) -> None:
    _style(axis, key.replace("_", " "), "step", None, grid=True)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    drawn: list[float] = []
    for name, label, colour in ((key, "training", BLUE), (f"eval_{key}", "evaluation", ORANGE)):
        if name in curves:
            steps, values = curves[name]
            marker = "o" if label == "evaluation" or len(steps) < 3 else None
            axis.plot(steps, values, color=colour, linewidth=1.6, marker=marker, markersize=4, label=label)
            drawn += [value for value in values if math.isfinite(value)]
    if drawn and min(drawn) > 0 and max(drawn) > 100 * min(drawn):
        axis.set_yscale("log")
    else:
        axis.ticklabel_format(axis="y", scilimits=(-3, 5), useOffset=False)


def _figure(width: float, height: float, title: str | None) -> Figure:
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, color=TEXT, fontsize=13)
    return figure


def _style(axis: Axes, title: str | None, x_label: str, y_label: str | None, *, grid: bool = False) -> None:
    if title:
        axis.set_title(title, color=TEXT, fontsize=11, loc="left")
    axis.set_xlabel(x_label, color=MUTED_TEXT)
    if y_label:
        axis.set_ylabel(y_label, color=MUTED_TEXT)
    axis.tick_params(which="both", color=LINES, labelcolor=MUTED_TEXT, labelsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(LINES)
    if grid:
        axis.grid(axis="y", color=LINES, linewidth=0.6, alpha=0.7)
        axis.set_axisbelow(True)


def _legend(figure: Figure, place: Literal["outside upper right", "outside lower right"]) -> None:
    """One legend for all panels, outside them."""
    found = (pair for axis in figure.axes for pair in zip(*axis.get_legend_handles_labels(), strict=True))
    handles = {label: handle for handle, label in found}
    figure.legend(
        list(handles.values()),
        list(handles),
        loc=place,
        ncols=len(handles),
        frameon=False,
        labelcolor=MUTED_TEXT,
        fontsize=9,
    )


def _save(figure: Figure, path: Path) -> Path:
    suffix = path.suffix.lower().removeprefix(".")
    return write_aside(path, lambda file: figure.savefig(file, format=suffix))
