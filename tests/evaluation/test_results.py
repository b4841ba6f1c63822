"""The common schema of results, and JSON files that are whole or absent."""

import json
import platform

import pytest
import torch
import transformers

from geomotiongpt.evaluation.results import make_result, save_json


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
    assert environment["python"] == platform.python_version()
    assert environment["transformers"] == transformers.__version__
    assert torch.__version__.startswith(environment["torch"].split("+")[0])
    assert environment["threads"] == torch.get_num_threads()
    assert json.loads(save_json(result, tmp_path / "result.json").read_text()) == result


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
