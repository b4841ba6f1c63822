"""Plots of an evaluation: scores of each action, what is taken for what, and scores against length."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .figure import BLUE, LINES, MUTED_TEXT, ORANGE, SUFFIXES, TEXT, make_figure, save_figure, style_axis
from .output import check_output_path

MAX_NUMBERED_CLASSES = 20


def plot_class_scores(
    scores: Mapping[str, Sequence[float]], path: str | os.PathLike, *, label: str = "named right"
) -> Path:
    """Draw the mean score of each class as a bar, the best first, with the number of motions behind it.

    Args:
        scores: class -> the score, 0 to 1, of each of its motions.
        path: file to write, `.png`, `.svg` or `.pdf`.
        label: what a score says.

    Returns:
        The path written.

    Raises:
        ValueError: if there is no class, or one without motions; on another suffix.
    """
    path = check_output_path(path, SUFFIXES)
    empty = [name for name, values in scores.items() if not len(values)]
    if not scores or empty:
        raise ValueError(f"no scores of {', '.join(empty) or 'any class'}: leave out classes without motions")
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    names = sorted(means, key=lambda name: (means[name], name))
    figure = make_figure(7.0, 0.26 * len(names) + 1.1, None)
    axis = figure.subplots()
    style_axis(axis, None, label, None)
    axis.barh(range(len(names)), [means[name] for name in names], color=BLUE, height=0.7)
    axis.set_yticks(range(len(names)), [f"{name} ({len(scores[name])})" for name in names], color=TEXT)
    axis.set_xlim(0, 1)
    axis.set_ylim(-0.6, len(names) - 0.4)
    overall = float(np.mean([value for values in scores.values() for value in values]))
    axis.axvline(overall, color=ORANGE, linewidth=1.2, linestyle="--")
    axis.set_title(f"all motions: {overall:.1%}", color=TEXT, fontsize=11, loc="left")
    return save_figure(figure, path)


def plot_confusion(
    shown: Sequence[str], said: Sequence[str | None], path: str | os.PathLike, *, nothing: str = "(none)"
) -> Path:
    """Draw how often a class that was shown was said to be which.

    Args:
        shown: the class of each motion.
        said: the class its caption names; None where it names none.
        path: file to write, `.png`, `.svg` or `.pdf`.
        nothing: what to call None.

    Returns:
        The path written.

    Raises:
        ValueError: if there are no motions, or the two differ in length; on another suffix.
    """
    path = check_output_path(path, SUFFIXES)
    if len(shown) != len(said) or not len(shown):
        raise ValueError(f"{len(shown)} classes shown and {len(said)} said; wanted one of each a motion")
    answers = [nothing if value is None else value for value in said]
    rows = sorted(set(shown))
    columns = [*rows, *sorted(set(answers) - set(rows))]
    counts = np.zeros((len(rows), len(columns)), int)
    np.add.at(counts, ([rows.index(x) for x in shown], [columns.index(x) for x in answers]), 1)
    shares = counts / counts.sum(1, keepdims=True)
    figure = make_figure(0.33 * len(columns) + 2.6, 0.33 * len(rows) + 1.8, None)
    axis = figure.subplots()
    style_axis(axis, f"{np.mean([a == b for a, b in zip(shown, answers, strict=True)]):.1%} right", "said", "shown")
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    axis.set_xticks(range(len(columns)), columns, rotation=90)
    axis.set_yticks(range(len(rows)), rows)
    if len(columns) <= MAX_NUMBERED_CLASSES:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.5 else TEXT
            axis.text(column, row, counts[row, column], ha="center", va="center", fontsize=8, color=colour)
    bar = figure.colorbar(image, ax=axis, shrink=0.7)
    bar.set_label("share of the motions shown", color=MUTED_TEXT)
    bar.outline.set_visible(False)
    bar.ax.tick_params(color=LINES, labelcolor=MUTED_TEXT, labelsize=9)
    return save_figure(figure, path)


def plot_score_against_length(
    seconds: Sequence[float], scores: Sequence[float], path: str | os.PathLike, *, label: str, num_bins: int = 8
) -> Path:
    """Draw the mean score of motions of about the same length, with its 95% interval, against their length.

    Args:
        seconds: length of each motion.
        scores: score of each motion, 0 to 1; intervals end there.
        path: file to write, `.png`, `.svg` or `.pdf`.
        label: what a score says.
        num_bins: bins, of about equally many motions.

    Returns:
        The path written.

    Raises:
        ValueError: if there are no motions, or the two differ in length; on another suffix.
    """
    path = check_output_path(path, SUFFIXES)
    lengths, values = np.asarray(seconds, np.float64), np.asarray(scores, np.float64)
    if lengths.shape != values.shape or lengths.ndim != 1 or not lengths.size:
        raise ValueError(f"{lengths.shape} lengths and {values.shape} scores; wanted one of each a motion")
    groups = [group for group in np.array_split(np.argsort(lengths, kind="stable"), num_bins) if len(group)]
    centres, means = (np.array([of[group].mean() for group in groups]) for of in (lengths, values))
    half = np.array([1.96 * values[group].std() / len(group) ** 0.5 for group in groups])
    intervals = np.minimum(half, means), np.minimum(half, 1 - means)
    figure = make_figure(6.4, 3.8, None)
    axis = figure.subplots()
    style_axis(axis, f"{len(values):,} motions in {len(groups)} groups", "seconds", label, grid=True)
    axis.errorbar(centres, means, intervals, color=BLUE, marker="o", markersize=4, linewidth=1.6, capsize=2)
    axis.set_xlim(left=0)
    return save_figure(figure, path)
