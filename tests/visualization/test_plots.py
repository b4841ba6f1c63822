import importlib
import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from geomotiongpt.visualization import plots
from geomotiongpt.visualization.plots import plot_code_usage, plot_gram_matrix, plot_training_history


def unit_codes(num_codes: int, code_dim: int) -> np.ndarray:
    codes = np.random.default_rng(0).normal(size=(num_codes, code_dim))
    return codes / np.linalg.norm(codes, axis=1, keepdims=True)


def written(path) -> str:
    """The words of an SVG plot: matplotlib names every label it draws as outlines in a comment."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(line.strip()[5:-4] for line in lines if line.strip().startswith("<!-- "))


HISTORY = [
    {"step": 10, "epoch": 0.5, "loss": 2.0, "reconstruction_loss": 1.5, "learning_rate": 1e-4, "note": "text"},
    {"step": 10, "epoch": 0.5, "eval_loss": 2.1, "eval_retrieval_top1": 0.3, "eval_runtime": 1.0},
    {"step": 20, "epoch": 1.0, "loss": math.nan, "reconstruction_loss": 1.0, "perplexity": 40.0},
    {"step": 20, "epoch": 1.0, "train_runtime": 3.0, "train_loss": 1.7, "total_flos": 1e9},
]


def test_gram_matrix_states_its_figures(tmp_path):
    codes = unit_codes(24, 16)
    gram = codes @ codes.T
    text = written(plot_gram_matrix(gram, tmp_path / "gram.svg", title="Step 500"))
    apart = gram - np.eye(24)
    assert "Step 500" in text and "24 codes" in text
    assert f"two codes: {np.abs(apart).max():.4g}" in text
    assert f"= {(apart**2).sum():.4g}" in text


def test_gram_matrix_colours_are_symmetric_about_zero(tmp_path):
    gram = np.array([[1, 0.4, -0.4], [0.4, 1, 0], [-0.4, 0, 1]])
    image = np.asarray(Image.open(plot_gram_matrix(gram, tmp_path / "gram.png")).convert("RGB")).astype(int)
    pixels = image.reshape(-1, 3)
    red, blue = ((pixels == colour).all(axis=1).sum() for colour in ((103, 0, 31), (5, 48, 97)))
    assert red > 2.2 * blue > 1000  # diagonal and two cells of +0.4; two cells of -0.4 at the other end of the scale


def test_orthonormal_codebook_and_tensors(tmp_path):
    path = plot_gram_matrix(torch.eye(8, requires_grad=True), tmp_path / "deep" / "gram.svg")
    assert "two codes: 0\n" in written(path) + "\n"


@pytest.mark.parametrize(
    ("gram", "message"),
    [
        (np.eye(3)[:2], "shape"),
        (np.eye(1), "num_codes >= 2"),
        (np.full((2, 2), np.nan), "4 values that are not finite"),
        (4 * np.eye(3), "normalise"),
    ],
)
def test_gram_matrix_refuses_what_is_no_gram_of_cosines(tmp_path, gram, message):
    with pytest.raises(ValueError, match=message):
        plot_gram_matrix(gram, tmp_path / "gram.png")
    assert not any(tmp_path.iterdir())


def test_code_usage_states_perplexity_and_dead_codes(tmp_path):
    text = written(plot_code_usage(np.array([7, 0, 7, 7, 7, 0, 7, 7, 7, 7]), tmp_path / "use.svg"))
    assert "perplexity 8.0, 8 of 10 codes used, 2 dead" in text
    assert "dead codes" in text
    text = written(plot_code_usage(torch.tensor([1, 3]), tmp_path / "use.svg"))
    assert f"perplexity {4 / 3**0.75:.1f}, 2 of 2 codes used, 0 dead" in text
    assert "dead codes" not in text


def test_code_usage_turns_logarithmic_for_heavy_tails(tmp_path):
    heavy = written(plot_code_usage(np.array([20_000, 30, 20, 10, 5]), tmp_path / "heavy.svg"))
    even = written(plot_code_usage(np.array([120, 100, 90, 80]), tmp_path / "even.svg"))
    assert "10^{4}" in heavy and "10^{" not in even


@pytest.mark.parametrize(
    "counts", [np.zeros(4), np.array([1, -1]), np.array([1, np.nan]), np.ones((2, 2)), np.array([])]
)
def test_code_usage_refuses_what_are_no_counts(tmp_path, counts):
    with pytest.raises(ValueError, match="counts must be"):
        plot_code_usage(counts, tmp_path / "use.png")
    assert not any(tmp_path.iterdir())


def test_history_draws_what_was_logged(tmp_path):
    text = written(plot_training_history(HISTORY, tmp_path / "history.svg")).splitlines()
    panels = ["loss", "reconstruction loss", "retrieval top1", "perplexity", "learning rate"]
    assert [line for line in text if line in panels] == panels
    assert {"training", "evaluation"} <= set(text)
    assert not {"epoch", "note", "runtime", "train loss", "train runtime", "total flos"} & set(text)


def test_history_leaves_out_keys_never_logged(tmp_path):
    keys = ("perplexity", "utilisation_loss", "loss")
    text = written(plot_training_history(HISTORY, tmp_path / "history.svg", keys=keys)).splitlines()
    assert [line for line in text if "loss" in line or "perplexity" in line] == ["perplexity", "loss"]


@pytest.mark.parametrize(("history", "keys"), [([], None), (HISTORY[3:], None), (HISTORY, ["accuracy"])])
def test_history_with_nothing_to_draw_is_refused(tmp_path, history, keys):
    with pytest.raises(ValueError, match="never logs"):
        plot_training_history(history, tmp_path / "history.png", keys=keys)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("suffix", "signature"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_suffix_names_the_format(tmp_path, suffix, signature):
    path = plot_code_usage(np.arange(4), tmp_path / f"use{suffix}")
    assert path.read_bytes().startswith(signature)
    assert list(tmp_path.iterdir()) == [path]


def test_unknown_suffix_is_refused(tmp_path):
    for plot, values in (
        (plot_gram_matrix, np.eye(2)),
        (plot_code_usage, np.ones(2)),
        (plot_training_history, HISTORY),
    ):
        with pytest.raises(ValueError, match=r"must end in \.png or \.svg or \.pdf"):
            plot(values, tmp_path / "plot.gif")


def test_pyplot_is_not_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it now fails
    importlib.reload(plots).plot_code_usage(np.ones(3), tmp_path / "use.png")
