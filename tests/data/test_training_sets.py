"""What the trainers read: windows, codes with captions, batches; every draw from the seed, the epoch and the item."""

from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from motion_files import make_numbered_clips as make_motions

from geomotiongpt import MotionFeatureExtractor
from geomotiongpt.data.training_sets import (
    LengthGroupedSampler,
    MotionCaptionDataset,
    MotionTaskCollator,
    MotionWindowDataset,
    drop_short_motions,
    normalised_clips,
)
from geomotiongpt.models.task_prompts import TASKS, MotionTaskExample


def windows(*lengths: int, **options) -> MotionWindowDataset:
    return MotionWindowDataset(make_motions(*lengths), MotionFeatureExtractor(), **{"window_frames": 16} | options)


def first_values(dataset) -> list[int]:
    return [int(dataset[index]["motion_values"][0, 0]) for index in range(len(dataset))]


def test_window_is_a_piece_of_one_clip():
    dataset = windows(40, 64, 16, num_windows=200)
    for index in range(200):
        item = dataset[index]
        values = item["motion_values"]
        assert values.shape == (16, 263) and values.dtype == torch.float32 and item["motion_mask"].all()
        start = values[0, 0]
        torch.testing.assert_close(values, (start + torch.arange(16.0))[:, None].expand(16, 263))


def test_every_place_where_a_window_fits_is_equally_likely():
    """25 starts in 40 frames, 49 in 64, one in 16: long clips are not undersampled."""
    counts = Counter(first_values(windows(40, 64, 16, num_windows=7500)))
    assert set(counts) == {*range(25), *range(1000, 1049), 2000}
    assert all(60 <= count <= 145 for count in counts.values())  # 100 each, four and a half deviations


def test_short_clip_is_padded_at_the_end_and_masked():
    item = windows(10, num_windows=1)[0]
    assert item["motion_mask"].tolist() == [True] * 10 + [False] * 6
    assert item["motion_values"][:10, 5].tolist() == list(range(10))
    assert (item["motion_values"][10:] == 0).all()


def test_windows_are_normalised():
    extractor = MotionFeatureExtractor("humanml3d", np.full(263, 3.0), np.full(263, 2.0))
    item = MotionWindowDataset(make_motions(16), extractor, window_frames=16)[0]
    torch.testing.assert_close(item["motion_values"][:, 0], (torch.arange(16.0) - 3) / 2)


def test_epoch_has_as_many_windows_as_the_frames_fill():
    assert len(windows(40, 64, 16)) == 120 // 16
    assert len(windows(10)) == 1
    assert len(windows(40, num_windows=3)) == 3


def test_draws_depend_on_seed_epoch_and_item_alone():
    """Whatever was read before, so that a resumed run sees what an uninterrupted one would have seen."""
    one, other = windows(200, 200, num_windows=20), windows(200, 200, num_windows=20)
    expected = first_values(one)
    assert [int(other[index]["motion_values"][0, 0]) for index in reversed(range(20))] == expected[::-1]
    other.set_epoch(1)
    second = first_values(other)
    assert second != expected
    other.set_epoch(0)
    assert first_values(other) == expected
    assert first_values(windows(200, 200, num_windows=20, seed=1)) not in (expected, second)


def test_training_draws_codes_and_captions_evaluation_takes_the_first():
    codes, captions = [[[1], [2], [3]], [[4]]], [["a", "b"], ["c"]]
    training = MotionCaptionDataset(codes, captions, ["x", "y"], seed=0)
    seen = set()
    for epoch in range(60):
        training.set_epoch(epoch)
        item = training[0]
        assert item == training[0] and item["name"] == "x"
        example = item["example"]
        seen.add((example.motion_codes[0], example.text, example.wording))
    assert {drawn[:2] for drawn in seen} == {(code, caption) for code in (1, 2, 3) for caption in "ab"}
    assert {drawn[2] for drawn in seen} == set(range(len(TASKS["motion-to-text"].wordings)))
    item = MotionCaptionDataset(codes, captions, ["x", "y"], seed=0, num_wordings=1)[1]
    assert item == {"example": MotionTaskExample("motion-to-text", "c", [4]), "name": "y", "draw": (0, 0, 1)}
    evaluation = MotionCaptionDataset(codes, captions, ["x", "y"], seed=None)
    evaluation.set_epoch(5)
    assert [evaluation[index] for index in range(len(evaluation))] == [
        {"example": MotionTaskExample("motion-to-text", "a", [1]), "name": "x", "draw": None},
        {"example": MotionTaskExample("motion-to-text", "c", [4]), "name": "y", "draw": None},
    ]


def test_tasks_are_drawn_by_their_weights_and_cut_motions_within():
    """Every task comes as often as asked; what is given of a motion leaves at least one code to answer with."""
    weights = {"motion-to-text": 2, "text-to-motion": 1, "motion-prediction": 1, "motion-in-between": 1}
    codes = [[list(range(length))] for length in (3, 5, 40)] * 400
    items = MotionCaptionDataset(codes, [["a"]] * 1200, ["x"] * 1200, seed=0, tasks={**weights, "unconditional": 0})
    examples = [items[index]["example"] for index in range(1200)]
    shares = Counter(example.task for example in examples)
    assert set(shares) == set(weights)
    for name, weight in weights.items():
        assert shares[name] / 1200 == pytest.approx(weight / 5, abs=0.04), name
    cuts = defaultdict(set)
    for example in examples:
        assert example.text == (None if example.task.startswith(("motion-p", "motion-in")) else "a")
        cuts[example.task].add((len(example.motion_codes), example.num_given_start, example.num_given_end))
    assert {cut for cut in cuts["motion-prediction"] if cut[0] == 5} == {(5, start, 0) for start in (1, 2, 3, 4)}
    wanted = {(5, start, end) for start in (1, 2, 3) for end in (1, 2, 3) if start + end < 5}
    assert {cut for cut in cuts["motion-in-between"] if cut[0] == 5} == wanted
    assert {cut[1:] for name in ("motion-to-text", "text-to-motion") for cut in cuts[name]} == {(0, 0)}
    stated = [example.num_codes for example in examples if example.task == "text-to-motion"]
    assert 0.4 < np.mean([number is None for number in stated]) < 0.6
    assert {number for number in stated if number} == {3, 5, 40}
    assert all(example.num_codes is None for example in examples if example.task == "motion-to-text")


def test_evaluation_asks_each_motion_the_same_in_every_epoch():
    tasks = {"motion-to-text": 1, "text-to-motion": 1}
    items = MotionCaptionDataset([[[1, 2]]] * 50, [["a"]] * 50, ["x"] * 50, seed=None, tasks=tasks)
    first = [items[index]["example"] for index in range(50)]
    items.set_epoch(3)
    assert [items[index]["example"] for index in range(50)] == first
    assert {example.task for example in first} == set(tasks) and {example.wording for example in first} == {0}


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"motion-to-music": 1}, "unknown task 'motion-to-music'; known tasks: motion-to-text, text-to-motion"),
        ({"text-to-motion": -1}, "the weight of task 'text-to-motion' is -1; it must be 0 or more"),
        ({"text-to-motion": float("nan")}, "is nan; it must be 0 or more"),
        ({"text-to-motion": 0}, "no task has a weight above 0"),
    ],
)
def test_mixtures_that_cannot_be_drawn_are_refused(tasks, message):
    with pytest.raises(ValueError, match=message):
        MotionCaptionDataset([[[1]]], [["a"]], ["x"], seed=0, tasks=tasks)


def test_grouped_order_has_every_motion_once_in_batches_of_similar_length_that_change_with_the_epoch():
    lengths = np.random.default_rng(0).integers(1, 50, 203).tolist()
    items = MotionCaptionDataset([[[0] * length] for length in lengths], [["a"]] * 203, ["x"] * 203, seed=0)
    sampler = LengthGroupedSampler(items, 8, group_size=64, seed=0)
    order = list(sampler)
    assert len(sampler) == 203 and sorted(order) == list(range(203))
    assert order == list(sampler)
    batches = [[lengths[index] for index in order[start : start + 8]] for start in range(0, 200, 8)]
    assert np.mean([max(batch) - min(batch) for batch in batches]) < 10  # about 40 in random batches
    means = [np.mean(batch) for batch in batches]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5
    items.set_epoch(1)
    assert list(sampler) != order and sorted(sampler) == list(range(203))


def test_collator_pads_on_the_right_and_labels_the_answer_alone(tiny_processor):
    tokenizer = tiny_processor.tokenizer
    items = [
        {"example": MotionTaskExample("motion-to-text", "a person jumps in place", [3, 1]), "name": "x", "draw": None},
        {"example": MotionTaskExample("motion-to-text", "a man", [0, 0, 5, 31]), "name": "y", "draw": None},
    ]
    batch = MotionTaskCollator(tiny_processor)(items)
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    first_code = tokenizer.convert_tokens_to_ids("<motion_0>")
    for row, item in enumerate(items):
        ids, labels = batch["input_ids"][row], batch["labels"][row]
        length = int(batch["attention_mask"][row].sum())
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (len(ids) - length)
        assert (ids[length:] == tokenizer.pad_token_id).all() and (labels[length:] == -100).all()
        answer = labels[labels != -100]
        assert torch.equal(answer, ids[length - len(answer) : length])
        assert tokenizer.decode(answer[:-1]).strip() == item["example"].text and answer[-1] == tokenizer.eos_token_id
        assert (ids[ids >= first_code] - first_code).tolist() == item["example"].motion_codes
    assert max(int(mask.sum()) for mask in batch["attention_mask"]) == batch["input_ids"].shape[1]


def test_dropout_hides_codes_and_answer_tokens_of_the_input_alone(tiny_processor):
    """The shares asked for, drawn from the item's seed, epoch and index; labels and the prompt stay."""
    text = "a person walks forward " * 4
    items = [
        {
            "example": MotionTaskExample("motion-to-text", text, [3] * 60),
            "name": str(row),
            "draw": (0, 0, row),
        }
        for row in range(20)
    ]
    plain = MotionTaskCollator(tiny_processor)(items)
    collator = MotionTaskCollator(tiny_processor, code_dropout=0.3, answer_dropout=0.5)
    dropped = collator(items)
    ids = tiny_processor.tokenizer.convert_tokens_to_ids
    is_code, is_answer = plain["input_ids"] == ids("<motion_3>"), plain["labels"] != -100
    hidden = dropped["input_ids"] == ids("<motion_placeholder>")
    blank = (dropped["input_ids"] == tiny_processor.tokenizer.pad_token_id) & is_answer
    assert torch.equal(dropped["labels"], plain["labels"])
    assert torch.equal(dropped["attention_mask"], plain["attention_mask"])
    assert torch.equal(dropped["input_ids"] != plain["input_ids"], hidden | blank)
    assert not (hidden & ~is_code).any()
    assert hidden.sum() / is_code.sum() == pytest.approx(0.3, abs=0.05)
    assert blank.sum() / is_answer.sum() == pytest.approx(0.5, abs=0.07)
    # An item's draw does not depend on the batch it is in, and changes with the epoch.
    alone = collator(items[3:4])["input_ids"][0]
    assert torch.equal(alone, dropped["input_ids"][3])
    assert not torch.equal(collator([items[3] | {"draw": (0, 1, 3)}])["input_ids"][0], alone)
    evaluated = collator([item | {"draw": None} for item in items])
    assert torch.equal(evaluated["input_ids"], plain["input_ids"])


def test_collator_names_the_motion_that_is_too_long(tiny_processor):
    items = [
        {"example": MotionTaskExample("motion-to-text", "a man", [1] * length), "name": f"clip {length}", "draw": None}
        for length in (2, 300)
    ]
    with pytest.raises(ValueError, match="clip 300 takes .* tokens with its text, the language model 128"):
        MotionTaskCollator(tiny_processor)(items)


def test_clip_that_cannot_be_used_is_named():
    motions = make_motions(16, 4)
    with pytest.raises(ValueError, match="clip1 has 4 frames; the model takes 8"):
        normalised_clips(motions, MotionFeatureExtractor())


def test_short_motions_are_left_out_and_named():
    motions = make_motions(16, 4, 7, 8)
    kept, short = drop_short_motions(motions, 8)
    assert kept["motion_id"][:] == ["clip0", "clip3"] and short == ["clip1", "clip2"]
    assert kept[1]["motion"].shape == (8, 263)
    assert drop_short_motions(kept, 8) == (kept, [])
