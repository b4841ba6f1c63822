"""Captioning metrics: hand-made cases, agreement with the libraries, the published row, and no network."""

import json
import math
import random
import shutil
import subprocess
import sys

import pytest
import torch
from bert_score.utils import get_idf_dict
from pycocoevalcap.cider.cider import Cider as LibraryCider
from safetensors.torch import load_file, save_file
from tokenizers import pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
)

from geomotiongpt.evaluation.captioning import (
    BertScore,
    Bleu,
    CaptionDiversity,
    CaptionScorer,
    Cider,
    RougeL,
    _BertScoreTokenizer,
    bert_scores,
    caption_diversity,
    caption_protocol,
    caption_scores,
)
from geomotiongpt.evaluation.predictions import select_references

WORDS = ["a", "person", "walks", "jumps", "waves", "with", "the", "left", "hand", "then", "turns", "around", "slowly"]


def compute(metric, convention, predictions, references, **options):
    return metric(config_name=convention).compute(predictions=predictions, references=references, **options)


def test_the_published_row_of_tm2t_comes_out_to_the_last_digit(real_data):
    lines = (real_data / "reference" / "m2t_humanml3d_test.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    references = [select_references(row["references"], "first-three") for row in rows]
    scores = caption_scores([row["outputs"]["tm2t"] for row in rows], references, convention="coco")
    assert len(rows) == 4400
    for name, published in {"bleu_1": 49.12, "bleu_4": 7.60, "rouge_l": 38.08, "cider": 17.19}.items():
        assert scores[name] == pytest.approx(published, abs=0.0051), name


@pytest.mark.parametrize("convention", ["coco", "nlgmetricverse"])
def test_bleu_clips_counts_to_the_reference_that_has_most(convention):
    # unigrams 4 of 5 ("the" twice in one reference, not three times), bigrams 1 of 4 ("the hand")
    scores = compute(Bleu, convention, ["the the the hand turns"], [["the hand the person turns", "the hand"]])
    assert scores["bleu_1"] == pytest.approx(100 * 4 / 5)
    assert scores["bleu_2"] == pytest.approx(100 * math.sqrt(4 / 5 * 1 / 4))


def test_bleu_without_a_match_of_an_order_is_zero():
    for convention, largest in {"coco": 0.1, "nlgmetricverse": 0}.items():  # pycocoevalcap adds 1e-15 to its counts
        assert compute(Bleu, convention, ["a person walks slowly"], [["a person jumps slowly"]])["bleu_4"] <= largest


def test_bleu_takes_the_closest_length_in_coco_and_the_shortest_in_nlgmetricverse():
    predictions, references = ["a man walks"], [["a man walks slowly", "man"]]
    assert compute(Bleu, "coco", predictions, references)["bleu_1"] == pytest.approx(100 * math.exp(1 - 4 / 3))
    assert compute(Bleu, "nlgmetricverse", predictions, references)["bleu_1"] == pytest.approx(100)


def test_case_and_punctuation_count_in_coco_only():
    predictions, references = ["A man walks counter-clockwise."], [["a man walks counter clockwise"]]
    assert compute(Bleu, "coco", predictions, references)["bleu_1"] == pytest.approx(100 * 2 / 4 * math.exp(1 - 5 / 4))
    assert compute(Bleu, "nlgmetricverse", predictions, references)["bleu_4"] == pytest.approx(100)
    assert compute(RougeL, "nlgmetricverse", predictions, references)["rouge_l"] == pytest.approx(100)
    assert compute(RougeL, "coco", predictions, references)["rouge_l"] < 50


def test_rouge_l_takes_precision_and_recall_apart_in_coco_and_the_best_f1_in_nlgmetricverse():
    predictions, references = ["a b c"], [["a b x y", "c"]]  # precision 2/3 and 1/3, recall 2/4 and 1
    coco = 100 * (1 + 1.2**2) * (2 / 3) / (1 + 1.2**2 * 2 / 3)
    assert compute(RougeL, "coco", predictions, references)["rouge_l"] == pytest.approx(coco)
    assert compute(RougeL, "nlgmetricverse", predictions, references)["rouge_l"] == pytest.approx(100 * 4 / 7)


@pytest.mark.parametrize("convention", ["coco", "nlgmetricverse"])
def test_cider_of_a_hand_made_corpus(convention):
    predictions, references = ["red cat", "blue dog"], [["red cat"], ["green dog"]]
    # Every n-gram is in one case of two. Cosines of orders 1 to 4: 1, 1, 0, 0; and 1/2, 0, 0, 0.
    expected = 100 * 10 * ((1 + 1) / 4 + (1 / 2) / 4) / 2
    assert compute(Cider, convention, predictions, references)["cider"] == pytest.approx(expected)


def test_cider_is_that_of_pycocoevalcap():
    generator = random.Random(0)

    def caption(least: int) -> str:
        return " ".join(generator.choices(WORDS, k=generator.randint(least, 12)))

    references = [[caption(1) for _ in range(generator.randint(1, 4))] for _ in range(80)]
    predictions = [generator.choice([caption(0), references[index][0]]) for index in range(80)]
    assert "" in predictions
    expected, _ = LibraryCider().compute_score(
        dict(enumerate(references)), {i: [p] for i, p in enumerate(predictions)}
    )
    assert compute(Cider, "coco", predictions, references)["cider"] == pytest.approx(100 * expected, rel=1e-12)
    assert 50 < 100 * expected < 900


def test_cider_of_a_single_case_is_zero_by_construction():
    assert compute(Cider, "coco", ["a person walks"], [["a person walks", "he walks"]])["cider"] == 0


@pytest.mark.parametrize("convention", ["coco", "nlgmetricverse"])
def test_an_empty_prediction_counts_as_an_empty_string_in_every_metric(convention):
    references = [["a person walks forward slowly"], ["a man jumps up and down"]]
    full = caption_scores([group[0] for group in references], references, convention=convention)
    half = caption_scores([references[0][0], ""], references, convention=convention)
    assert full["bleu_1"] == pytest.approx(100) and full["cider"] == pytest.approx(1000)
    assert half["bleu_1"] == pytest.approx(100 * math.exp(1 - 11 / 5))
    assert half["rouge_l"] == pytest.approx(50) and half["cider"] == pytest.approx(500)
    assert half["mean_length"] == 2.5
    nothing = caption_scores(["", " "], references, convention=convention)
    assert all(value == pytest.approx(0, abs=1e-9) for value in nothing.values())


def test_diversity_counts_words_of_the_convention():
    captions = ["a man walks", "A man walks."]
    assert caption_diversity(captions, "coco") == {
        "distinct_1": 5 / 6,
        "distinct_2": 4 / 4,
        "vocabulary_size": 5,
        "mean_length": 3,
    }
    normalised = compute(CaptionDiversity, "nlgmetricverse", captions, [["x"], ["x"]])
    assert normalised["distinct_1"] == 3 / 6 and normalised["distinct_2"] == 2 / 4
    assert normalised["vocabulary_size"] == 3 and normalised["convention"] == "nlgmetricverse"


@pytest.mark.parametrize("convention", ["coco", "nlgmetricverse"])
def test_one_scorer_scores_many_systems_as_the_single_metrics_do(convention):
    references = [["a person walks", "someone walks forward", "he goes"], ["a man jumps"], ["she turns left", "turns"]]
    scorer = CaptionScorer(references, convention)
    for predictions in (["a person walks", "a man jumps", "turns left"], ["he goes", "", "A person turns."]):
        expected = {}
        for metric in (Bleu, RougeL, Cider, CaptionDiversity):
            expected |= compute(metric, convention, predictions, references)
        assert expected.pop("convention").startswith(convention)
        assert scorer.score(predictions) == expected == caption_scores(predictions, references, convention=convention)


def test_every_metric_states_its_convention():
    for convention in ("coco", "nlgmetricverse"):
        for metric in (Bleu, RougeL, Cider):
            stated = compute(metric, convention, ["a man"], [["a man"]])["convention"]
            definition = caption_protocol(convention)["metric_definitions"]
            assert stated in [f"{convention}: {text}" for text in definition.values()]
    assert caption_protocol("coco")["metric_definitions"] != caption_protocol("nlgmetricverse")["metric_definitions"]
    assert caption_protocol("coco")["libraries"].keys() >= {"pycocoevalcap", "sacrebleu", "rouge-score", "evaluate"}


@pytest.mark.parametrize("metric", [Bleu, RougeL, Cider, CaptionDiversity])
def test_a_convention_must_be_named(metric):
    for name in (None, "sacrebleu"):
        with pytest.raises(ValueError, match="'coco' or 'nlgmetricverse'"):
            metric(config_name=name)


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([], [], "no predictions"),
        (["a"], [["a"], ["b"]], "1 predictions, but references of 2"),
        (["a"], [[]], "references of case 0 are \\[\\]"),
        (["a"], ["a person"], "references of case 0 are 'a person'; wanted a list"),
        (["a"], [["b", " "]], "reference of case 0 is ' '"),
        (["a"], [["b", None]], "reference of case 0 is None"),
        (["a", None], [["b"], ["b"]], "prediction 1 is None"),
        (["a", float("nan")], [["b"], ["b"]], "prediction 1 is nan"),
    ],
)
def test_what_is_no_caption_is_refused(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        caption_scores(predictions, references, convention="coco")


def test_metrics_need_neither_network_nor_cache_nor_java(tmp_path):
    script = """
import socket, subprocess
def refuse(*_, **__): raise RuntimeError("something outside was called")
socket.socket.connect = socket.getaddrinfo = subprocess.Popen.__init__ = refuse
from geomotiongpt.evaluation.captioning import Bleu, RougeL, Cider, CaptionDiversity
for convention in ("coco", "nlgmetricverse"):
    for metric in (Bleu, RougeL, Cider, CaptionDiversity):
        print(metric(config_name=convention).compute(predictions=["a", "b"], references=[["a"], ["b", "c"]]))
"""
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path), "PATH": ""}
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 8


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory):
    """A random BERT of three layers and a word tokenizer that names no largest length."""
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    folder.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(vocabulary)})
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "initializer_range": 1.0}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(vocabulary), num_hidden_layers=3, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny_roberta_large(tmp_path_factory):
    """Byte-level, 18 tiny layers, in a folder of the name under which bert-score keeps layer and baseline."""
    folder = tmp_path_factory.mktemp("models") / "roberta-large"
    folder.mkdir()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: index for index, piece in enumerate([*specials, *alphabet])}
    tokenizer = RobertaTokenizer(vocab=vocabulary, merges=[], model_max_length=64)
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 70}
    torch.manual_seed(0)
    config = RobertaConfig(vocab_size=len(vocabulary), num_hidden_layers=18, initializer_range=1.0, **sizes)
    RobertaModel(config).save_pretrained(folder)
    return folder


def expected_bert_score(folder, prediction, reference, layer, weight):
    """Precision, recall and F1 of one pair, from the paper's equations 1 to 3 and its idf."""
    tokenizer = BertTokenizer.from_pretrained(folder)
    model = BertModel.from_pretrained(folder).eval()
    tokens, vectors = [], []
    for text in (prediction, reference):
        encoded = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**encoded, output_hidden_states=True).hidden_states[layer][0]
        tokens.append(encoded["input_ids"][0].tolist())
        vectors.append(torch.nn.functional.normalize(hidden, dim=-1))
    similarity = vectors[0] @ vectors[1].T
    weights = [torch.tensor([weight(token) for token in row]) for row in tokens]
    precision = (weights[0] * similarity.max(dim=1).values).sum() / weights[0].sum()
    recall = (weights[1] * similarity.max(dim=0).values).sum() / weights[1].sum()
    return float(precision), float(recall), float(2 * precision * recall / (precision + recall))


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_bert_score_matches_its_definition_at_every_layer(tiny_bert, layer):
    prediction, reference = "a person walks forward", "the person turns around slowly"
    scores = bert_scores([prediction], [[reference]], tiny_bert, layer=layer, idf=False)
    outer = BertTokenizer.from_pretrained(tiny_bert).encode("")  # [CLS] and [SEP]; the unknown "forward" counts
    expected = expected_bert_score(tiny_bert, prediction, reference, layer, lambda token: float(token not in outer))
    assert list(scores.values()) == pytest.approx([100 * value for value in expected], abs=1e-3)
    assert list(scores) == ["bert_score_precision", "bert_score_recall", "bert_score_f1"]


def test_bert_score_weighs_words_by_their_rarity_in_all_references(tiny_bert):
    predictions = ["a person walks", "a person jumps slowly"]
    references = [["a person walks slowly", "a person turns"], ["a hand waves"]]
    tokenizer = BertTokenizer.from_pretrained(tiny_bert)
    flat = [set(tokenizer(text)["input_ids"]) for group in references for text in group]
    idf = lambda token: math.log((len(flat) + 1) / (1 + sum(token in row for row in flat)))  # noqa: E731
    first = [expected_bert_score(tiny_bert, predictions[0], text, 2, idf) for text in references[0]]
    second = expected_bert_score(tiny_bert, predictions[1], references[1][0], 2, idf)
    best = [max(values) for values in zip(*first, strict=True)]
    expected = [100 * (one + two) / 2 for one, two in zip(best, second, strict=True)]
    scores = bert_scores(predictions, references, tiny_bert, layer=2)
    assert list(scores.values()) == pytest.approx(expected, abs=1e-3)


def test_bert_score_of_an_empty_caption_is_zero(tiny_bert):
    scores = bert_scores(["a person walks", ""], [["a person walks"], ["she turns left"]], tiny_bert, layer=2)
    assert scores["bert_score_f1"] == pytest.approx(50, abs=1e-3)


def test_bert_score_is_rescaled_by_the_published_english_baseline(tiny_roberta_large):
    metric = BertScore()
    arguments = {"predictions": ["a person walks", "he jumps"], "references": [["a man walks"], ["she jumps", "jump"]]}
    scores = metric.compute(**arguments, model=tiny_roberta_large, rescale=True)
    raw = scores["bert_score_f1"] / 100
    assert scores["bert_score_f1_rescaled"] == pytest.approx(100 * (raw - 0.83122575) / (1 - 0.83122575))
    assert 0 < raw < 1 and scores["layer"] == 17 and scores["model"] == "roberta-large"
    assert scores["scores"] == "raw and rescaled" and scores["baseline"][2] == 0.83122575
    plain = metric.compute(**arguments, model=str(tiny_roberta_large))
    assert plain["scores"] == "raw" and plain["baseline"] is None and not any("rescaled" in name for name in plain)
    assert plain["bert_score_f1"] == pytest.approx(scores["bert_score_f1"])


def test_the_first_word_of_a_byte_level_model_begins_with_a_space(tiny_roberta_large):
    tokenizer = RobertaTokenizer.from_pretrained(tiny_roberta_large)
    wrapped = _BertScoreTokenizer(tokenizer)
    seen = wrapped.encode("walks")
    assert seen == tokenizer.encode(" walks") != tokenizer.encode("walks")
    assert wrapped.encode("") == wrapped.encode("  ") == tokenizer.encode("")
    assert get_idf_dict(["", "walks"], wrapped, nthreads=0)[seen[1]] == math.log(3 / 2)


def test_caption_scores_and_protocol_take_a_bert_model(tiny_roberta_large):
    options = {"bert_model": tiny_roberta_large, "bert_layer": 3, "bert_rescale": True}
    predictions, references = ["a person walks", "he jumps"], [["a man walks"], ["she jumps", "jump"]]
    scores = caption_scores(predictions, references, convention="coco", **options)
    direct = bert_scores(predictions, references, tiny_roberta_large, layer=3, rescale=True)
    assert {name: scores[name] for name in direct} == pytest.approx(direct) and "cider" in scores
    stated = caption_protocol("coco", **options)
    assert stated["bert_score"]["layer"] == 3 and stated["bert_score"]["baseline"][0] == 0.7080897
    assert "bert-score" in stated["libraries"]


def test_a_bert_score_that_cannot_be_is_an_error(tiny_bert):
    captions = (["a person walks"], [["a person turns"]])
    with pytest.raises(ValueError, match="knows no best layer of 'tiny-bert'"):
        bert_scores(*captions, tiny_bert)
    with pytest.raises(ValueError, match="layer 4 of 'tiny-bert'.*layers 1 to 3"):
        bert_scores(*captions, tiny_bert, layer=4)
    with pytest.raises(ValueError, match="no English baseline of 'tiny-bert'"):
        bert_scores(*captions, tiny_bert, layer=2, rescale=True)
    with pytest.raises(ValueError, match="idf=False"):  # a single reference: every idf is log(2 / 2)
        bert_scores(["a person turns"], [["a person turns"]], tiny_bert, layer=2)
    with pytest.raises(ValueError, match="no convention 'coco'"):
        BertScore(config_name="coco")


def test_an_encoder_without_all_its_weights_is_refused(tiny_bert, tmp_path):
    folder = shutil.copytree(tiny_bert, tmp_path / "cut-bert")
    weights = load_file(folder / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    del weights[name]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    captions = (["a person walks", "he jumps"], [["a person turns"], ["she jumps"]])
    assert bert_scores(*captions, folder, layer=1)
    with pytest.raises(ValueError, match=f"lacks 1 weights of its encoder, as {name}"):
        bert_scores(*captions, folder, layer=2)


@pytest.mark.parametrize("convention", ["coco", "nlgmetricverse"])
def test_an_empty_caption_has_nothing_of_a_reference_with_two_spaces(convention):
    references = [["a man  walks"], ["he jumps"]]
    for empty in ("", " "):
        scores = caption_scores([empty, empty], references, convention=convention)
        assert scores["rouge_l"] == scores["bleu_1"] == 0
