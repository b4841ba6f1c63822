"""What a small language model is pretrained on, where no pretrained one is at hand."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from geomotiongpt import train_language_model
from geomotiongpt.training.arguments import TextTrainingArguments
from geomotiongpt.training.text_model import PromptTextDataset

CAPTIONS = [["a man walks.", "someone walks."], ["he jumps."]]


def texts(seed=0, epochs=1, **options) -> list[list[str]]:
    dataset = PromptTextDataset(CAPTIONS, [2.0, 3.5], **{"tasks": {"text": 1.0}, "seed": seed, **options})
    rows = []
    for epoch in range(epochs):
        dataset.set_epoch(epoch)
        rows.append([dataset[index] for index in range(len(dataset))])
    return rows


def test_a_caption_alone():
    rows = texts(epochs=20)
    assert {row[0] for row in rows} == {" a man walks.", " someone walks."} and {row[1] for row in rows} == {
        " he jumps."
    }
    assert texts(seed=None, epochs=3) == 3 * texts(seed=None)


def test_a_second_caption_of_the_same_motion_follows():
    rows = texts(epochs=60, second_caption_ratio=0.5)
    second = {row[0] for row in rows if "\n" in row[0]}
    both = ("a man walks.", "someone walks.")
    assert second == {f" {one}\n {other}" for one in both for other in both}
    assert 15 < sum("\n" in row[1] for row in rows) < 45
    assert not any("\n" in row[0] for row in texts(epochs=20))


def test_only_captions_alone_get_a_second_one():
    rows = texts(epochs=5, tasks={"text-to-motion": 1.0}, second_caption_ratio=1.0, num_wordings=1)
    assert {row[1].count("he jumps.") for row in rows} == {1}
    assert {row[1] for row in rows} <= {
        "Show the motion: he jumps.\nMotion:",
        "Show the motion for 3.5 seconds: he jumps.\nMotion:",
    }


def test_a_share_is_between_0_and_1(tmp_path):
    with pytest.raises(ValueError, match="second_caption_ratio is 2; it must be between 0 and 1"):
        TextTrainingArguments(output_dir=str(tmp_path), second_caption_ratio=2)


def test_frozen_embeddings_stay_as_drawn(motions, tmp_path):
    recipe, embeddings = Path(__file__).parent / "text_model.yaml", []
    for steps, frozen in ((1, "true"), (4, "true"), (4, "false")):
        options = [f"data.path={motions}", f"training.output_dir={tmp_path / f'{steps}{frozen}'}"]
        options += [f"training.max_steps={steps}", f"training.frozen_embeddings={frozen}"]
        model = AutoModelForCausalLM.from_pretrained(train_language_model(recipe, options))
        embeddings.append(model.get_input_embeddings().weight)
    assert torch.equal(embeddings[0], embeddings[1])
    assert not torch.equal(embeddings[1], embeddings[2])
