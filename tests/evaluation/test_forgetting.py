"""Forgetting: equal bits where text stayed as it was, a difference where it did not, perplexity by hand."""

import json
import math
import runpy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from geomotiongpt import (
    CausalMotionCodec,
    CausalMotionCodecConfig,
    LLaMoForCausalLM,
    MotionGPT3ForCausalLM,
    MotionVAE,
    MotionVAEConfig,
)
from geomotiongpt.evaluation.forgetting import (
    forgetting_table,
    measure_forgetting,
    perplexity,
    text_windows,
    weights_sha256,
)

TEXTS = ["a person walks forward and sits down", "someone jumps up and down and then turns around"]
SCRIPT = Path(__file__).parents[2] / "examples" / "benchmarks" / "forgetting.py"


@pytest.fixture(scope="module")
def tokenizer(trained_text_tokenizer):
    return PreTrainedTokenizerFast.from_pretrained(trained_text_tokenizer)


@pytest.fixture(scope="module")
def base(make_base_model):
    return make_base_model("llama")


@pytest.fixture(scope="module")
def folders(base, tokenizer, tmp_path_factory) -> dict[str, Path]:
    """The base in bfloat16, a LLaMo and a MotionGPT3 made from it, and a LLaMo whose text has moved by one bit."""
    root = tmp_path_factory.mktemp("models")
    names = {name: root / name for name in ("base", "llamo", "motiongpt3", "moved")}
    base.bfloat16().save_pretrained(names["base"])
    tokenizer.save_pretrained(names["base"])
    codec = CausalMotionCodec(CausalMotionCodecConfig(num_features=263, hidden_size=8, latent_dim=4))
    LLaMoForCausalLM.from_language_model(
        names["base"], codec, denoising_hidden_size=8, denoising_num_layers=1
    ).save_pretrained(names["llamo"])
    vae = MotionVAE(MotionVAEConfig(latent_dim=8, num_layers=1, num_heads=2, intermediate_size=8, max_positions=60))
    MotionGPT3ForCausalLM.from_components(
        names["base"], vae, denoising_hidden_size=8, denoising_num_layers=1
    ).save_pretrained(names["motiongpt3"])
    LLaMoForCausalLM.from_pretrained(names["llamo"]).save_pretrained(names["moved"])
    weights = load_file(names["moved"] / "model.safetensors")
    row = weights["language_model.model.layers.1.self_attn.o_proj.weight"][0]
    row[0] = torch.nextafter(row[0], torch.tensor(9.0))
    save_file(weights, names["moved"] / "model.safetensors", {"format": "pt"})
    base.float()
    return names


def test_text_that_stayed_as_it_was_is_equal_bit_for_bit_and_one_bit_is_seen(folders):
    models = [folders[name] for name in ("llamo", "motiongpt3", "moved")]
    found = measure_forgetting(folders["base"], models, TEXTS)
    assert [name.split("/")[-1] for name in found] == ["base", "llamo", "motiongpt3", "moved"]
    before, same, other = found["base"], list(found.values())[1:3], list(found.values())[3]
    assert len(before["text_weights_sha256"]) == 64
    for row in same:
        assert row["weights_equal_base"] and row["logits_equal_base"] and row["perplexity_over_base"] == 1.0
        assert {name: row[name] for name in before} == before
    assert not other["weights_equal_base"] and other["text_weights_sha256"] != before["text_weights_sha256"]
    table = forgetting_table(found).splitlines()
    assert len(table) == 6 and table[3].count("bit for bit") == 2 and "| no |" in table[5]


def test_names_shapes_and_bits_count_and_order_does_not():
    ones, zeros = torch.ones(2, 3), torch.zeros(2, 3)
    wanted = weights_sha256({"a": ones, "b": zeros})
    assert weights_sha256({"b": zeros, "a": ones}) == wanted
    for other in ({"a": zeros, "b": ones}, {"a": ones, "c": zeros}, {"a": ones.T, "b": zeros}, {"a": ones}):
        assert weights_sha256(other) != wanted
    assert weights_sha256({"a": ones, "b": -zeros}) != wanted, "-0 is not 0"


def test_perplexity_is_that_of_all_words_but_the_first(base, tokenizer):
    rows = text_windows(tokenizer, TEXTS, 5)
    assert max(map(len, rows)) == 5 and sum(map(len, rows)) <= sum(len(tokenizer(text)["input_ids"]) for text in TEXTS)
    losses = []
    for row in rows:
        with torch.no_grad():
            probabilities = base(row[None]).logits[0].softmax(-1)
        losses += [-math.log(probabilities[place, row[place + 1]]) for place in range(len(row) - 1)]
    assert perplexity(base, rows) == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-4)


def test_what_cannot_be_compared_is_refused(folders, make_base_model, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="no text has two tokens: there is nothing to predict"):
        measure_forgetting(folders["base"], [folders["llamo"]], [""])
    with pytest.raises(ValueError, match="two models are called .*llamo': their results would be one"):
        measure_forgetting(folders["base"], [folders["llamo"]] * 2, TEXTS)
    with pytest.raises(ValueError, match="holds a 'llama' model; what is compared is a 'llamo' or a 'motiongpt3'"):
        measure_forgetting(folders["base"], [folders["base"]], TEXTS)
    with pytest.raises(FileNotFoundError, match="/nowhere/llamo: no such folder"):
        measure_forgetting(folders["base"], ["/nowhere/llamo"], TEXTS)
    make_base_model("llama", num_hidden_layers=3).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"was not made from .*: model.layers.2\S+ is missing there and \("):
        measure_forgetting(tmp_path, [folders["llamo"]], TEXTS)


def test_the_script_prints_a_table_and_saves_a_result(folders, tmp_path, monkeypatch, capsys):
    text, output = tmp_path / "text.txt", tmp_path / "forgetting.json"
    text.write_text(" ".join(TEXTS))
    command = [str(SCRIPT), str(folders["base"]), str(folders["llamo"]), "--text", str(text), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", command)
    runpy.run_path(str(SCRIPT), run_name="__main__")
    result = json.loads(output.read_text())
    assert result.keys() == {"schema", "command", "model", "data", "protocol", "metrics", "environment"}
    assert result["metrics"][result["model"]["models"][0]]["logits_equal_base"] is True
    assert result["data"] == {"name": "text.txt", "texts": 1, "characters": len(" ".join(TEXTS))}
    assert str(tmp_path) not in output.read_text() and str(folders["base"].parent) not in output.read_text()
    assert "| base | `" in capsys.readouterr().out
