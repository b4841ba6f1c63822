"""`build-data --push`: what is refused before anything is built, and what stands on the Hub afterwards."""

import json
import sys
from pathlib import Path

import pytest
import yaml
from hub_stand_in import TOKEN, HubStandIn, run_python

sys.path.insert(0, str(Path(__file__).parent / "data"))
from motion_files import write_source  # noqa: E402

from geomotiongpt.cli import main  # noqa: E402

SPLITS = {"train": ["a", "b"], "test": ["c"]}
# Runs commands, each with a token and an answer that is typed on a terminal, or without a terminal (None)
RUN = """
import contextlib, io, json, os, sys
from geomotiongpt.cli import main

class Typed(io.StringIO):
    def isatty(self):
        return bool(self.getvalue().strip())

with contextlib.redirect_stderr(sys.stdout):
    for command, token, answer in json.loads(sys.argv[1]):
        os.environ["HF_TOKEN"], sys.stdin = token, Typed(f"{answer or ''}\\n")
        print("exit", main(command), flush=True)
        print("=====")
exec(sys.argv[2])
"""
LOAD = """
from geomotiongpt import load_motion_dataset, load_motion_statistics
motions = load_motion_dataset("tester/mine", mirrored=False, cache_dir="CACHE")
assert {name: split["motion_id"][:] for name, split in motions.items()} == {"train": ["a", "b"], "test": ["c"]}
assert load_motion_statistics("tester/mine")[0].shape == (263,)
"""


@pytest.fixture
def raw(tmp_path) -> Path:
    return write_source(tmp_path / "raw", SPLITS)


def push(hub: HubStandIn, raw: Path, *calls: tuple[list[str], str, str | None], then: str = "") -> list[str]:
    """What each call says."""
    command = ["build-data", str(raw), str(raw.parent / "built"), "--push"]
    listed = json.dumps([([*command, *options], token, answer) for options, token, answer in calls])
    code = f"import sys; sys.argv = ['', {listed!r}, {then!r}]\n{RUN}"
    return run_python(code, env=hub.environment(raw.parent / "home")).split("=====\n")


@pytest.mark.slow
def test_what_is_built_becomes_a_private_data_set_with_a_card(raw):
    yes = ["tester/mine", "--yes"], TOKEN, None
    with HubStandIn() as hub:
        load = LOAD.replace("CACHE", str(raw.parent / "another"))
        first, second, _ = push(hub, raw, yes, yes, then=load)
        assert "exit 0" in first and f"pushed {hub.url}/datasets/tester/mine" in first
        assert "licence: the licence of your source applies" in first and "a new data set, private" in first
        assert "exit 0" in second and "whose motions are replaced" in second
        assert hub.repositories["dataset", "tester/mine"].private
        files = hub.files("tester/mine", repo_type="dataset")
        assert {"Mean.npy", "Std.npy", "README.md", "data/train-00000-of-00001.parquet"} <= files.keys()
        _, metadata, text = files["README.md"].decode().split("---\n", 2)
        facts = yaml.safe_load(metadata)
        assert "license" not in facts and "geomotiongpt" in facts["tags"]
        assert {split["split"] for split in facts["configs"][0]["data_files"]} == {"train", "test"}
        assert "| train | 4 | 4 |" in text and 'gm.load_motion_dataset("tester/mine"' in text


@pytest.mark.slow
def test_nothing_is_built_without_a_login_a_right_or_a_yes(raw):
    cases = [
        ((["tester/mine", "--yes"], "", None), "you are not logged in to the Hub: log in with"),
        ((["tester/mine"], "hf_wrong", None), "the Hub does not know your token"),
        ((["other/mine", "--yes"], TOKEN, None), "other is not you; you may write to tester"),
        ((["mine", "--yes"], TOKEN, None), "--push mine: wanted USER/NAME"),
        ((["tester/mine"], TOKEN, None), "nobody can answer here: add --yes"),
        ((["tester/mine"], TOKEN, "n"), "not pushed, and nothing is built"),
    ]
    with HubStandIn() as hub:
        replies = push(hub, raw, *(call for call, _ in cases))
        for reply, (_, wanted) in zip(replies, cases, strict=False):
            assert wanted in reply and "exit 2" in reply, reply
        assert not (raw.parent / "built").exists() and not hub.repositories


@pytest.mark.slow
def test_a_yes_on_a_terminal_is_enough_and_public_is_asked_for(raw):
    with HubStandIn() as hub:
        first, second, _ = push(
            hub, raw, (["tester/mine", "--public"], TOKEN, "y"), (["tester/mine", "--yes"], TOKEN, None)
        )
        assert "seen by EVERYBODY" in first and "exit 0" in first
        assert not hub.repositories["dataset", "tester/mine"].private
        assert "tester/mine is there and is public, but private (without --public) is asked for" in second


def test_options_of_a_push_are_refused_without_one(raw, capsys):
    assert main(["build-data", str(raw), "out", "--yes"]) == 2
    assert "--yes and --public have no effect without --push" in capsys.readouterr().err


def test_every_source_says_something_of_its_licence():
    from geomotiongpt.build_data import _BUILD
    from geomotiongpt.data.dataset_card import _SOURCES
    from geomotiongpt.data_push import LICENCES

    assert set(LICENCES) == set(_BUILD) == set(_SOURCES)
    assert LICENCES["bandai"][0] == "cc-by-nc-4.0" and all(notes for _, notes in LICENCES.values())
