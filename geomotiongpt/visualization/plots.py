"""Plots of a codebook and of a training run."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .figure import (
    BLUE,
    LINES,
    MUTED_TEXT,
    ORANGE,
    PALE_RED,
    SUFFIXES,
    add_legend,
    make_figure,
    save_figure,
    style_axis,
)
from .output import check_output_path, to_array

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

    figure = make_figure(10.0, 4.6, title)
    matrix, histogram = figure.subplots(1, 2, width_ratios=(1.15, 1))
    style_axis(matrix, rf"{num_codes:,} codes, $\Vert G - I \Vert_F^2$ = {distance:.4g}", "code", "code")
    image = matrix.imshow(gram, cmap="RdBu_r", vmin=-limit, vmax=limit)
    matrix.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    matrix.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    bar = figure.colorbar(image, ax=matrix, extend="neither" if limit == 1.0 else "both", shrink=0.9)
    bar.set_label("cosine", color=MUTED_TEXT)
    bar.outline.set_visible(False)
    bar.ax.tick_params(color=LINES, labelcolor=MUTED_TEXT, labelsize=9)

    style_axis(
        histogram, f"Largest |cosine| of two codes: {between.max():.4g}", "|cosine|", "pairs of codes", grid=True
    )
    histogram.hist(between, bins=min(50, max(10, num_codes)), range=(0.0, limit), color=BLUE, log=True)
    histogram.set_xlim(0, limit * 1.03)
    histogram.axvline(between.max(), color=ORANGE, linewidth=1.5)
    return save_figure(figure, path)


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

    figure = make_figure(8.0, 4.4, title)
    axis = figure.subplots()
    heading = f"perplexity {perplexity:.1f}, {len(used):,} of {num_codes:,} codes used, {num_dead:,} dead"
    style_axis(axis, heading, "code, by rank of use", "times used", grid=True)
    axis.bar(np.arange(num_codes) + 0.5, ranked, width=1.0, color=BLUE, linewidth=0)
    axis.axhline(used.sum() / num_codes, color=ORANGE, linewidth=1.2, linestyle="--", label="even use")
    if num_dead:
        axis.axvspan(len(used), num_codes, color=PALE_RED, linewidth=0, zorder=0, label="dead codes")
    if used[0] >= 50 * np.median(used):
        axis.set_yscale("log")
    axis.set_xlim(0, num_codes)
    add_legend(figure, "outside lower right")
    return save_figure(figure, path)


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
    figure = make_figure(4.2 * columns, 2.8 * rows + 0.4, None)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, key in zip(axes, panels, strict=False):
        _draw_curves(axis, key, curves)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    add_legend(figure, "outside upper right")
    return save_figure(figure, path)


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
    style_axis(axis, key.replace("_", " "), "step", None, grid=True)
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
