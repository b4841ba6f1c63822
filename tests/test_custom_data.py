"""The walk-through of examples/custom_data.md: its own commands, at a small size."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import datasets
import pytest

from geomotiongpt import load_motion_dataset, quickstart
from geomotiongpt.cli import main

ROOT = Path(__file__).parents[1]
# The quickstart's model is that of fewer motions and steps: it is only a start
SMALL = {"train_motion_tokenizer": 60, "train_language_model": 60}


def blocks(language: str) -> list[str]:
    """Those of the page, in order."""
    text = (ROOT / "examples/custom_data.md").read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for said, block in found if said == language]


def commands() -> list[list[str]]:
    """Every line of a block without a language."""
    return [shlex.split(line) for block in blocks("") for line in block.splitlines()]


def form(output: str) -> list[bool]:
    """Of each line of what `caption` prints, whether it begins with a file."""
    return [line.startswith("takes/") for line in output.splitlines()]


def run(command: list[str], monkeypatch) -> None:
    if command[0] == "geomotiongpt":
        assert main(command[1:]) == 0, command
    else:
        assert command[0] == "python"
        monkeypatch.setattr(sys, "argv", command[1:])
        runpy.run_path(command[1], run_name="__main__")


@pytest.mark.slow
def test_the_walk_through_ends_in_captions_worded_as_in_the_table(tmp_path, monkeypatch, capsys):
    for name in ("examples", "hub_configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(quickstart, "NUM_MOTIONS", 160)
    for name, steps in SMALL.items():
        train, fewer = getattr(quickstart, name), [f"training.max_steps={steps}", "training.eval_strategy=no"]
        monkeypatch.setattr(quickstart, name, lambda recipe, more, t=train, f=fewer: t(recipe, [*more, *f]))
    listed = commands()
    assert [command[1] for command in listed] == [
        "quickstart",
        "examples/custom_data.py",
        "build-data",
        "train",
        "caption",
    ]
    for command in listed:
        capsys.readouterr()
        run(command, monkeypatch)
    said, (shown,) = capsys.readouterr().out, blocks("text")
    assert "bow" in said and form(said) == form(shown), "the caption of greeting_03.bvh"
    assert len(load_motion_dataset("data/mine", mirrored=False)["train"]) > 50
    takes = [f"takes/{name}_04.bvh" for name in ("warmup", "rush", "retreat", "break", "applause")]
    assert main(["caption", "runs/mine/model", *takes]) == 0
    said = capsys.readouterr().out.splitlines()
    words = {
        "warmup": "warms up",
        "rush": "table",
        "retreat": "retreats|backs",
        "break": "seat|break",
        "applause": "cook",
    }
    right = [bool(re.search(words[line.partition("_")[0].removeprefix("takes/")], line)) for line in said]
    assert len(right) == 5 and sum(right) >= 4, said


def test_the_walk_through_shows_a_table_that_is_read(tmp_path):
    from geomotiongpt.data.caption_table import read_caption_table

    (table,) = blocks("csv")
    (tmp_path / "captions.csv").write_text(table)
    rows, unused = read_caption_table(tmp_path / "captions.csv")
    assert [row.split for row in rows] == ["", "", "test"] and rows[2].segment.start == 12.5 and not unused
