"""What trains a motion VAE, and a language model for which a motion is one latent."""

from collections import Counter

import numpy as np
import pytest
import torch
from motion_files import make_numbered_clips as make_motions
from transformers import GPT2Config, PreTrainedTokenizerFast

from geomotiongpt import MotionFeatureExtractor, MotionGPT3Config, MotionGPT3Processor, MotionVAEConfig
from geomotiongpt.data.latent_sets import Latent, LatentMotion, LatentTaskCollator, MotionLatentDataset, cut_points
from geomotiongpt.data.training_sets import LengthGroupedSampler, MotionClipDataset, pad_motions
from geomotiongpt.models.task_prompts import LATENT_TASKS


def clips(*lengths: int, **options) -> MotionClipDataset:
    extractor = MotionFeatureExtractor(downsampling_factor=1)
    return MotionClipDataset(make_motions(*lengths), extractor, **{"max_frames": 100, **options})


def test_evaluation_takes_every_motion_from_its_start():
    dataset = clips(40, 150)
    assert [len(dataset[index]) for index in range(2)] == [40, 100]
    assert dataset[1][0, 0] == 1000 and dataset[1].dtype == torch.float32


def test_pieces_are_of_any_length_from_anywhere_and_others_whole():
    dataset = clips(40, 150, piece_ratio=0.5, min_piece_frames=8, seed=0)
    lengths, starts = Counter(), set()
    for epoch in range(300):
        dataset.set_epoch(epoch)
        motion = dataset[0]
        lengths[len(motion)] += 1
        starts.add(int(motion[0, 0]))
        torch.testing.assert_close(motion[:, 0], motion[0, 0] + torch.arange(float(len(motion))))
    assert min(lengths) == 8 and max(lengths) == 40 and len(lengths) > 28 and 120 < lengths[40] < 190
    assert starts <= set(range(33)) and len(starts) > 25


def test_motions_shorter_than_a_piece_are_whole():
    dataset = clips(5, piece_ratio=1.0, min_piece_frames=8, seed=0)
    assert len(dataset[0]) == 5


def test_draws_depend_on_seed_epoch_and_item_alone():
    one, other = (clips(40, 90, piece_ratio=1.0, seed=seed) for seed in (0, 1))
    again = clips(40, 90, piece_ratio=1.0, seed=0)
    again.set_epoch(3)
    assert not torch.equal(one[1][:1], again[1][:1]) or len(one[1]) != len(again[1])
    again.set_epoch(0)
    assert torch.equal(one[1], again[1]) and len(one[1]) != len(other[1])


def test_batches_hold_motions_of_similar_length():
    dataset = clips(*range(20, 84), seed=0)
    sampler = LengthGroupedSampler(dataset, 8, seed=0)
    batches = np.array(list(sampler)).reshape(-1, 8)
    assert sorted(batches.flatten()) == list(range(64))
    assert all(np.ptp(dataset.lengths[batch]) == 7 for batch in batches)


def test_motions_are_padded_on_the_right():
    batch = pad_motions([torch.ones(3, 5), torch.ones(1, 5)])
    assert batch["motion_values"].sum((1, 2)).tolist() == [15, 5]
    assert batch["motion_mask"].tolist() == [[True] * 3, [True, False, False]]


def latent(number: float, frames: int = 10) -> Latent:
    return Latent(np.full((1, 4), number, np.float32), np.full((1, 4), 0.1, np.float32), frames)


def make_items(tasks, seed=0, count=3):
    motions = [
        LatentMotion(
            [latent(10 * row, 40), latent(10 * row + 1, 39)],
            [(latent(10 * row + 2, 8), latent(10 * row + 3, 32))],
            [(latent(10 * row + 4, 8), latent(10 * row + 5, 20), latent(10 * row + 6, 12))],
        )
        for row in range(count)
    ]
    captions = [[f"caption {row}", f"another {row}"] for row in range(count)]
    return MotionLatentDataset(motions, captions, [f"clip{row}" for row in range(count)], tasks=tasks, seed=seed)


@pytest.mark.parametrize(
    ("task", "given", "target", "frames"),
    [
        ("motion-to-text", [10], None, 0),
        ("text-to-motion", [], 10, 40),
        ("motion-prediction", [12], 13, 32),
        ("motion-in-between", [14, 16], 15, 20),
        ("unconditional", [], 10, 40),
        ("motion-duration", [10], None, 0),
        ("text", [], None, 0),
    ],
)
def test_a_task_gives_and_asks_for_its_parts(task, given, target, frames):
    dataset = make_items({task: 1.0}, seed=None)
    item = dataset[1]
    assert item["name"] == "clip1" and item["example"].task == task
    assert [part[0, 0] for part in item["given"]] == given
    assert (None if item["target"] is None else item["target"][0, 0]) == target
    stated = item["example"].num_frames
    asked = LATENT_TASKS[task].answer == "motion"
    assert item["target_num_frames"] == (frames if asked and stated is None else 0)
    assert stated in ((None, frames) if asked else (40,) if task == "motion-duration" else (None,))
    takes_text = task in ("motion-to-text", "text-to-motion", "text")
    assert item["example"].text == ("caption 1" if takes_text else None)


def test_training_draws_noise_offsets_captions_and_whether_a_length_is_stated():
    dataset = make_items({"text-to-motion": 1.0})
    seen = Counter()
    for epoch in range(400):
        dataset.set_epoch(epoch)
        item = dataset[0]
        seen[item["example"].text, round(float(item["target"].mean())), item["example"].num_frames is None] += 1
        assert 0 < np.abs(item["target"] - round(float(item["target"].mean()))).max() < 0.6
    assert len(seen) == 8 and all(20 < count < 85 for count in seen.values())


def test_draws_are_the_same_again():
    one, again = make_items({"text-to-motion": 1.0}), make_items({"text-to-motion": 1.0})
    assert np.array_equal(one[1]["target"], again[1]["target"])
    again.set_epoch(1)
    assert not np.array_equal(one[1]["target"], again[1]["target"])


@pytest.mark.parametrize("frames", [3, 4, 7, 40, 200])
def test_cuts_leave_a_start_a_gap_and_an_end(frames):
    rng = np.random.default_rng(0)
    cuts = [cut_points(frames, rng) for _ in range(200)]
    assert all(1 <= start < end < frames for start, end in cuts)
    if frames == 200:
        starts = [start for start, _ in cuts]
        assert min(starts) < 40 and 80 < max(starts) <= 100


@pytest.fixture
def processor(trained_text_tokenizer) -> MotionGPT3Processor:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(trained_text_tokenizer)
    config = MotionGPT3Config(
        text_config=GPT2Config(vocab_size=len(tokenizer), n_positions=96), motion_vae_config=MotionVAEConfig()
    )
    return MotionGPT3Processor.from_components(MotionFeatureExtractor(downsampling_factor=1), tokenizer, config)


def test_a_batch_holds_each_rows_motions_in_their_places(processor):
    kinds = ("motion-in-between", "text-to-motion", "motion-to-text")
    items = [make_items({task: 1.0}, seed=None)[row] for row, task in enumerate(kinds)]
    batch = LatentTaskCollator(processor)(items)
    assert batch["latents"][:, :, 0, 0].tolist() == [[4, 6], [0, 0], [20, 0]]
    assert batch["target_latents"][:, 0, 0].tolist() == [5, 10]
    assert len(batch["target_num_frames"]) == 2 and batch["input_ids"].shape == batch["labels"].shape
    slots = processor.tokenizer.convert_tokens_to_ids(["<motion_in>", "<motion_out>"])
    counts = [[int((row == slot).sum()) for slot in slots] for row in batch["input_ids"]]
    assert counts == [[8, 4], [0, 4], [4, 0]]


def test_a_batch_without_motions_has_none(processor):
    batch = LatentTaskCollator(processor)([make_items({"text": 1.0}, seed=None)[0]])
    assert batch.keys() == {"input_ids", "attention_mask", "labels"}
    assert (batch["labels"] == batch["input_ids"]).all(), "a text is learnt whole"
