"""Batches for a language model for which a motion is a sequence of latents: each slot has its own."""

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from geomotiongpt import CausalMotionCodecConfig, LLaMoConfig, LLaMoProcessor, MotionFeatureExtractor
from geomotiongpt.data.latent_sequences import LatentSequenceCollator, slots_of
from geomotiongpt.data.training_sets import MotionCaptionDataset
from geomotiongpt.models.task_prompts import TASKS, MotionTaskExample

TABLE = torch.arange(60.0).unsqueeze(-1).expand(-1, 4)  # a latent says which row it is


@pytest.fixture(scope="module")
def processor(trained_text_tokenizer) -> LLaMoProcessor:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(trained_text_tokenizer)
    config = LLaMoConfig(
        text_config={"vocab_size": len(tokenizer), "n_positions": 128},
        motion_codec_config=CausalMotionCodecConfig(num_features=263, hidden_size=8, latent_dim=4),
    )
    return LLaMoProcessor.from_components(MotionFeatureExtractor(downsampling_factor=4), tokenizer, config)


def collate(processor, *examples):
    items = [{"example": example, "name": f"row {row}"} for row, example in enumerate(examples)]
    return LatentSequenceCollator(processor, TABLE)(items)


def shown_and_made(processor, batch, row):
    """Latents between the markers of the prompt, given at the start of the answer, and made."""
    slots = processor.tokenizer.convert_tokens_to_ids(["<motion>", "<motion_in>", "<motion_out>"])
    parts, rank = [], 0
    for token in batch["input_ids"][row].tolist():
        if token == slots[0]:
            parts.append(([], []))
        elif token in slots[1:]:
            parts[-1][token == slots[2]].append(int(batch["latents"][row, rank, 0]))
            rank += 1
    assert (batch["latents"][row, rank:] == 0).all()
    return parts


CODES = [30, 7, 52, 11, 3, 25]
EXPECTED = {
    "motion-to-text": (0, 0, [(CODES, [])]),
    "motion-duration": (0, 0, [(CODES, [])]),
    "text-to-motion": (0, 0, [([], CODES)]),
    "unconditional": (0, 0, [([], CODES)]),
    "motion-prediction": (2, 0, [([30, 7], [52, 11, 3, 25])]),
    "motion-in-between": (2, 1, [([25], []), ([30, 7], [52, 11, 3])]),
}


@pytest.mark.parametrize("task", sorted(TASKS))
def test_latents_stand_in_the_order_of_their_slots(processor, task):
    """Beside a row with more of them."""
    start, end, wanted = EXPECTED[task]
    example = MotionTaskExample(task, "a man", CODES, start, end)
    batch = collate(processor, example, MotionTaskExample("unconditional", None, range(40, 50)))
    assert shown_and_made(processor, batch, 0) == wanted
    assert shown_and_made(processor, batch, 1) == [([], list(range(40, 50)))]
    assert batch["latents"].shape == (2, 10, 4)
    with_slots, order = slots_of(example)
    assert len(with_slots.motion_codes) == len(order) == 6 and sorted(order) == sorted(CODES)
    assert (with_slots.task, with_slots.text, with_slots.num_given_start) == (task, "a man", start)


def test_every_draw_of_a_data_set_has_its_latents_in_place(processor):
    """Start, what is made and end make up the motion."""
    codes = [[list(range(start, start + length))] for start, length in ((0, 2), (10, 5), (20, 12), (40, 1))]
    tasks = dict.fromkeys(TASKS, 1.0)
    dataset = MotionCaptionDataset(codes, [["a man"]] * 4, list("abcd"), seed=0, tasks=tasks)
    seen = set()
    for epoch in range(40):
        dataset.set_epoch(epoch)
        items = [dataset[index] for index in range(4)]
        batch = LatentSequenceCollator(processor, TABLE)(items)
        for row, item in enumerate(items):
            example = item["example"]
            seen.add(example.task)
            parts = shown_and_made(processor, batch, row)
            closing = parts[0][0] if example.task == "motion-in-between" else []
            given, made = parts[-1]
            assert [*given, *made, *closing] == codes[row][0]
            assert bool(made) == (TASKS[example.task].answer == "motion")
            assert len(given) == (example.num_given_start if made else len(codes[row][0]))
            labels = batch["labels"][row]
            assert bool((labels != -100).any()) == (not made)
    assert seen == set(TASKS)


def test_rows_are_padded_and_named(processor):
    batch = collate(processor, *(MotionTaskExample("motion-to-text", "a man", codes) for codes in ([1, 2, 3], [4])))
    assert batch["latents"][:, :, 0].tolist() == [[1, 2, 3], [4, 0, 0]]
    assert batch["latents"].dtype == torch.float32
    assert {name: tuple(batch[name].shape) for name in ("attention_mask", "labels")} == dict.fromkeys(
        ("attention_mask", "labels"), tuple(batch["input_ids"].shape)
    )
    assert np.array_equal(batch["input_ids"] != processor.tokenizer.pad_token_id, batch["attention_mask"] == 1)
    with pytest.raises(ValueError, match=r"row 1 takes \d+ tokens with its text, the language model 128"):
        collate(processor, *(MotionTaskExample("motion-to-text", "a man", [0] * count) for count in (3, 128)))
