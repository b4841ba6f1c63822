"""Evaluator networks from a recipe to a folder that opens, on the embedded motions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from geomotiongpt import MotionTextEvaluator, TMRModel, load_motion_dataset, load_motion_statistics, train_evaluator
from geomotiongpt.evaluation.embeddings import embed_motions, embed_texts, load_evaluator
from geomotiongpt.models.word_vectors import WordTable
from geomotiongpt.training.evaluator import MotionTextCollator, MotionTextDataset

pytestmark = pytest.mark.usefixtures("no_history_plot")

RECIPE = Path(__file__).parent / "evaluator.yaml"


@pytest.fixture(scope="module")
def train(motions, tmp_path_factory):
    """Trains into a new folder."""

    def train(*overrides: str, recipe: Path = RECIPE) -> Path:
        folder = tmp_path_factory.mktemp("evaluator") / "run"
        torch.set_num_threads(1)
        return train_evaluator(recipe, [f"data.path={motions}", f"training.output_dir={folder}", *overrides])

    return train


@pytest.fixture(scope="module")
def run(train) -> Path:
    return train()


@pytest.fixture(scope="module")
def tmr_recipe(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tmr.yaml"
    _, _, rest = RECIPE.read_text().partition("data:")
    sizes = {"model_type": "tmr", "embedding_size": 16, "num_layers": 1, "num_heads": 2, "feedforward_size": 16}
    options = "".join(f"  {name}: {value}\n" for name, value in {**sizes, "max_frames": 200}.items())
    path.write_text(f"model:\n{options}data:{rest}")
    return path


def losses(folder: Path) -> list[float]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [row["loss"] for row in history if "loss" in row]


def test_a_recipe_gives_an_evaluator_that_opens(run, motions):
    model, processor = load_evaluator(run)
    assert isinstance(model, MotionTextEvaluator) and model.config.num_features == 263
    mean, std = load_motion_statistics(motions)
    np.testing.assert_allclose(processor.feature_extractor.mean, mean)
    np.testing.assert_allclose(processor.feature_extractor.std, std)
    assert processor.feature_extractor.downsampling_factor == 4 and processor.word_vectors == "hashed"
    test = load_motion_dataset(motions, "test", mirrored=False)
    captions = [group[0] for group in test["captions"]]
    shapes = {embed_motions(model, processor, test["motion"]).shape, embed_texts(model, processor, captions).shape}
    assert shapes == {(len(test), 8)}


def test_training_lowers_the_loss_and_the_seed_decides_it(run, train):
    assert len(losses(run)) == 8 and np.mean(losses(run)[-2:]) < np.mean(losses(run)[:2])
    weights, again, other = (
        load_file(folder / "model.safetensors") for folder in (run, train(), train("training.seed=1"))
    )
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert not any(torch.equal(weights[name], other[name]) for name in weights if name.endswith("weight"))


def test_tmr_trains_from_the_same_kind_of_recipe(train, tmr_recipe, motions):
    folder = train(recipe=tmr_recipe)
    model, processor = load_evaluator(folder)
    assert isinstance(model, TMRModel) and processor.feature_extractor.downsampling_factor == 1
    test = load_motion_dataset(motions, "test")
    dataset = MotionTextDataset(test, processor, 200, seed=None)
    batch = MotionTextCollator(processor)([dataset[index] for index in range(len(dataset))])
    torch.manual_seed(0)
    assert model(**batch).loss < 0.9 * TMRModel(model.config).eval()(**batch).loss
    assert embed_motions(model, processor, test["motion"]).shape == (len(test), 16)


def test_word_vectors_come_from_the_users_file(train, tmp_path):
    words = ("sos", "eos", "unk", "walks")
    table = WordTable(list(words), np.random.default_rng(0).normal(size=(4, 6)))
    lines = (f"{word} {' '.join(map(str, row))}" for word, row in zip(words, table.vectors, strict=True))
    (tmp_path / "glove.txt").write_text("\n".join(lines))
    folder = train(f"words.vectors={tmp_path / 'glove.txt'}", "words.tagged=true", "training.max_steps=1")
    model, processor = load_evaluator(folder)
    assert model.config.word_dim == 6 and processor.tagged
    np.testing.assert_allclose(processor.word_vectors["walks"], table["walks"], rtol=1e-6)


def test_unusable_recipes_are_refused_before_anything_is_written(train, tmp_path):
    for overrides, message in (
        (["model.model_type=clip"], "model_type is 'clip'; evaluators are motion_text_evaluator, tmr"),
        (["model.max_frames=40"], r"has \d+ frames, the evaluator takes 40: raise model.max_frames"),
        (["model.embeding_size=3"], "did you mean 'embedding_size'"),
        (["words.vocabulary=words.txt"], "words.vectors names no file"),
        (["training.muon_learning_rate=0.1"], "no option 'muon_learning_rate'"),
    ):
        with pytest.raises(ValueError, match=message):
            train(f"training.output_dir={tmp_path / 'run'}", *overrides)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def items(run, motions):
    """Dataset builder of the training split, with another seed and with none."""
    _, processor = load_evaluator(run)
    train_set = load_motion_dataset(motions, "train")
    return lambda seed: MotionTextDataset(train_set, processor, 200, seed=seed), processor, train_set


def test_captions_are_drawn_anew_each_epoch_by_seed_and_item(items):
    build, _, train_set = items
    dataset = build(0)
    captions = list(train_set["captions"])

    def drawn(epoch):
        dataset.set_epoch(epoch)
        texts = [dataset[index]["text"] for index in range(len(dataset))]
        assert all(text in group for text, group in zip(texts, captions, strict=True))
        return texts

    first = drawn(0)
    assert drawn(1) != first and drawn(0) == first
    for_evaluation = build(None)
    assert [for_evaluation[index]["text"] for index in range(len(dataset))] == [group[0] for group in captions]
    index = next(index for index, text in enumerate(first) if text != captions[index][0])
    dataset.set_epoch(0)
    choice = captions[index].index(first[index])
    assert dataset[index]["tokens"] == list(train_set["tokens"])[index][choice].split()


def test_motions_that_share_a_caption_mean_the_same(items):
    build, processor, _ = items
    dataset = build(None)
    items = [dict(dataset[index]) for index in range(3)]
    items[2]["meaning"] = frozenset(["something else"]) | {next(iter(items[0]["meaning"]))}
    items[1]["meaning"] = frozenset(["another thing"])
    batch = MotionTextCollator(processor)(items)
    wanted = torch.eye(3, dtype=torch.bool)
    wanted[0, 2] = wanted[2, 0] = True
    assert torch.equal(batch["same_meaning"], wanted)
    lengths = [len(item["motion"]) for item in items]
    assert batch["motion_mask"].sum(-1).tolist() == lengths
    for row, item in enumerate(items):
        np.testing.assert_array_equal(batch["motion_values"][row, : lengths[row]], item["motion"])
        assert not batch["motion_values"][row, lengths[row] :].any()


def test_a_killed_run_goes_on_from_its_last_whole_checkpoint_to_the_same_weights(train):
    options = ["training.save_strategy=steps", "training.save_steps=2"]
    folder = train(*options)
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for step in (6, 8):  # the kill came while these were written
        (folder / f"checkpoint-{step}" / "trainer_state.json").unlink()
    train(*options, "training.resume_from_checkpoint=true", f"training.output_dir={folder}")
    resumed = load_file(folder / "model.safetensors")
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
