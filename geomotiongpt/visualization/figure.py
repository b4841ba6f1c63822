"""The look of every plot, drawn without pyplot: the caller's backend and figures stay untouched."""

from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .output import write_aside

TEXT, MUTED_TEXT, LINES = "#1f2937", "#6b7280", "#d1d5db"
BLUE, ORANGE, PALE_RED = "#2563eb", "#ea580c", "#fbd9d6"
SUFFIXES = (".png", ".svg", ".pdf")


def make_figure(width: float, height: float, title: str | None) -> Figure:
    """An empty figure of that many inches."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, color=TEXT, fontsize=13)
    return figure


def style_axis(axis: Axes, title: str | None, x_label: str, y_label: str | None, *, grid: bool = False) -> None:
    """Title, labels and quiet lines."""
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


def add_legend(figure: Figure, place: Literal["outside upper right", "outside lower right"]) -> None:
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


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes the figure aside and renames it; the suffix says which format."""
    suffix = path.suffix.lower().removeprefix(".")
    return write_aside(path, lambda file: figure.savefig(file, format=suffix))
