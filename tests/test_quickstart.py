"""The quickstart's data and folders; that it trains a good model is what `make quickstart` and its report show."""

import json
import re
from pathlib import Path

import pytest

from geomotiongpt.quickstart import quickstart
from geomotiongpt.training.recipes import load_recipe


class StoppedError(Exception):
    """Enough was seen."""


@pytest.fixture
def asked(monkeypatch) -> list:
    """What the first stage is asked for; nothing is trained."""
    seen: list = []

    def train(recipe, overrides):
        seen.append(load_recipe(recipe, ("model", "data", "training"), overrides))
        raise StoppedError

    monkeypatch.setattr("geomotiongpt.quickstart.train_motion_tokenizer", train)
    return seen


def test_data_are_used_again_only_if_they_are_those_asked_for(asked, tmp_path):
    for _ in range(2):
        with pytest.raises(StoppedError):
            quickstart(tmp_path, num_motions=20, seed=1)
    made = (tmp_path / "data/Mean.npy").stat().st_mtime_ns
    assert json.loads((tmp_path / "data/quickstart.json").read_text()) == {"num_motions": 20, "seed": 1}
    for options in ({"num_motions": 21, "seed": 1}, {"num_motions": 20, "seed": 2}):
        with pytest.raises(ValueError, match="data: the data there are .*'seed': 1.*, not .*: remove them or give"):
            quickstart(tmp_path, **options)
    assert (tmp_path / "data/Mean.npy").stat().st_mtime_ns == made
    (tmp_path / "data/quickstart.json").unlink()
    with pytest.raises(ValueError, match="the data there are of unknown origin"):
        quickstart(tmp_path, num_motions=20, seed=1)


@pytest.mark.parametrize("name", ["demo #1", "demo: one", "1e3", "{a}", "\N{SNOWMAN}\N{GRINNING FACE}"])
def test_a_folder_may_have_any_name(asked, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoppedError):
        quickstart(name, num_motions=20)
    assert asked[0]["data"]["path"] == f"{name}/data"
    assert asked[0]["training"]["output_dir"] == f"{name}/motion_tokenizer"


def test_the_closing_lines_name_a_motion_that_training_has_not_seen(tmp_path, monkeypatch, capsys):
    right = {"n": 2, "mean": 1.0}
    for name in ("train_motion_tokenizer", "train_language_model"):
        monkeypatch.setattr(f"geomotiongpt.quickstart.{name}", lambda *_: None)
    monkeypatch.setattr("geomotiongpt.quickstart._report", lambda *_: {"metrics": {"action": right, "side": right}})
    quickstart(tmp_path, num_motions=20)
    (path,) = re.findall(r"geomotiongpt caption \S+ (\S+)", capsys.readouterr().out)
    assert Path(path).is_file() and Path(path).stem in (tmp_path / "data/test.txt").read_text().split()
