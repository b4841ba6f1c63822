"""Plots of an evaluation draw the numbers they are given."""

import matplotlib.figure
import numpy as np
import pytest
from PIL import Image

from geomotiongpt.visualization.evaluation_plots import plot_class_scores, plot_confusion, plot_score_against_length


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, to look into."""
    saved, save = [], matplotlib.figure.Figure.savefig

    def keep(self, *args, **kwargs):
        saved.append(self)
        return save(self, *args, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", keep)
    return saved


def test_a_bar_a_class_the_best_on_top(figures, tmp_path):
    path = plot_class_scores({"kick": [0, 1], "walk": [1, 1, 1], "wave": [0]}, tmp_path / "scores.png")
    assert Image.open(path).size[0] > 500
    axis = figures[0].axes[0]
    assert [bar.get_width() for bar in axis.patches] == [0, 0.5, 1]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["wave (1)", "kick (2)", "walk (3)"]
    assert axis.get_title(loc="left") == "all motions: 66.7%"


def test_confusion_counts_what_was_said_for_what_was_shown(figures, tmp_path):
    shown, said = ["walk", "walk", "walk", "kick"], ["walk", "walk", "run", None]
    plot_confusion(shown, said, tmp_path / "confusion.svg")
    axis = figures[0].axes[0]
    rows, columns = (
        [label.get_text() for label in labels] for labels in (axis.get_yticklabels(), axis.get_xticklabels())
    )
    assert rows == ["kick", "walk"] and columns == ["kick", "walk", "(none)", "run"]
    np.testing.assert_allclose(axis.images[0].get_array(), [[0, 0, 1, 0], [0, 2 / 3, 0, 1 / 3]])
    assert axis.get_title(loc="left") == "50.0% right"
    assert sorted(text.get_text() for text in axis.texts) == ["1", "1", "2"]


def test_scores_are_averaged_over_motions_of_similar_length(figures, tmp_path):
    plot_score_against_length([4, 1, 3, 2], [1, 0, 0.5, 0], tmp_path / "length.png", label="score", num_bins=2)
    line = figures[0].axes[0].lines[0]
    np.testing.assert_allclose(line.get_xydata(), [[1.5, 0], [3.5, 0.75]])
    lower, upper = figures[0].axes[0].collections[0].get_segments()[1][:, 1]
    assert lower == pytest.approx(0.75 - 1.96 * 0.25 / 2**0.5) and upper == 1


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda path: plot_class_scores({}, path), "no scores of any class"),
        (lambda path: plot_class_scores({"walk": []}, path), "no scores of walk"),
        (lambda path: plot_confusion(["walk"], [], path), "1 classes shown and 0 said"),
        (lambda path: plot_confusion([], [], path), "0 classes shown"),
        (lambda path: plot_score_against_length([1], [1, 2], path, label="x"), "wanted one of each a motion"),
        (lambda path: plot_confusion(["a"], ["a"], path.with_suffix(".gif")), "must end in .png"),
    ],
)
def test_what_cannot_be_drawn_is_refused_and_nothing_written(draw, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        draw(tmp_path / "plot.png")
    assert not list(tmp_path.iterdir())
