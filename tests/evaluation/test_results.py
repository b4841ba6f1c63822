"""The common schema of results, and JSON files that are whole or absent."""

import json
import platform
import subprocess

import pytest
import torch
import transformers

from geomotiongpt.evaluation import results
from geomotiongpt.evaluation.results import eval_results, git_commit, make_result, save_json


def test_a_result_holds_what_was_measured_how_and_in_what_environment(tmp_path):
    parts = {
        "command": "geomotiongpt evaluate model data --split test",
        "model": {"name": "geomotiongpt-tiny"},
        "data": {"name": "synthetic", "split": "test"},
        "protocol": {"num_beams": 1},
        "metrics": {"perplexity": 3.5, "action": {"mean": 0.5, "ci95": 0.1, "n": 20}},
    }
    result = make_result(**parts)
    assert list(result) == ["schema", "command", "model", "data", "protocol", "metrics", "environment"]
    assert result["schema"] == 1 and {name: result[name] for name in parts} == parts
    environment = result["environment"]
    assert environment["git_commit"] == git_commit()
    assert environment["python"] == platform.python_version()
    assert environment["transformers"] == transformers.__version__
    assert torch.__version__.startswith(environment["torch"].split("+")[0])
    assert environment["threads"] == torch.get_num_threads()
    assert json.loads(save_json(result, tmp_path / "result.json").read_text()) == result


def test_the_commit_is_that_of_the_checkout_and_says_when_files_differ(tmp_path, monkeypatch):
    package = tmp_path / "project" / "geomotiongpt"
    (package / "evaluation").mkdir(parents=True)
    (package / "file.py").write_text("1")
    monkeypatch.setattr(results, "__file__", str(package / "evaluation" / "results.py"))
    assert git_commit() is None, "an installed package is no checkout"

    def git(*command):
        identity = ["-c", "user.name=Tester", "-c", "user.email=tester@example.com"]
        done = subprocess.run(["git", "-C", package.parent, *identity, *command], capture_output=True, text=True)
        return done.stdout.strip()

    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    git("tag", "-a", "v1", "-m", "a tag is no commit")
    assert git_commit() == git("rev-parse", "HEAD") and len(git_commit()) == 40
    (package / "file.py").write_text("2")
    assert git_commit() == git("rev-parse", "HEAD") + "-modified"


def test_json_is_written_readably_into_a_new_folder(tmp_path):
    path = save_json({"caption": "läuft", "values": [1, 2]}, tmp_path / "a" / "b" / "result.json")
    text = path.read_text(encoding="utf-8")
    assert "läuft" in text and text.endswith("}\n") and len(text.splitlines()) > 3
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = save_json({"value": 1}, tmp_path / "result.json")
    for value in ({"tensor": torch.ones(1)}, {"text": "\ud800"}):  # not JSON; not UTF-8
        with pytest.raises((TypeError, UnicodeEncodeError)):
            save_json(value, path)
        assert json.loads(path.read_text()) == {"value": 1} and list(tmp_path.iterdir()) == [path]
    save_json({"value": 2}, path)
    assert json.loads(path.read_text()) == {"value": 2} and list(tmp_path.iterdir()) == [path]


def test_entries_of_a_card_are_of_the_task_and_the_model_alone():
    metrics = {"fid": 3.0, "fid_floor": {"mean": 2.0, "ci95": 0.1, "n": 20}, "ground_truth_diversity": 5.0}
    metrics |= {"baseline_ade_mm": 4.0}
    metrics |= {"fid_over_floor": {"mean": 1.5, "ci95": 0.1, "n": 20}, "foot_skating_over_ground_truth": None}
    named = {"text-to-motion": "Text to motion", "unconditional": "Unconditional motion", "text": "Text"}
    for task, name in {**named, "motion-to-text": "Motion captioning"}.items():
        protocol = {"task": task, "evaluator_sha256": "0123456789abcdef"}
        entries = eval_results({"protocol": protocol, "metrics": metrics}, "data")
        assert {entry.metric_type: entry.metric_value for entry in entries} == {"fid": 3.0, "fid_over_floor": 1.5}
        assert {(entry.task_type, entry.task_name) for entry in entries} == {(task, name)}
        assert {entry.metric_config for entry in entries} == {"evaluator 0123456789ab"}
