"""Motion as an answer: what decoding may say and when it ends, given codes, windows, sequences and streams."""

import copy
import threading
from functools import partial

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, LogitsProcessor

from geomotiongpt import GeoMotionGPTForCausalLM
from geomotiongpt.models.motion_generation import (
    MotionLengthLogitsProcessor,
    MotionStreamer,
    MotionVocabularyLogitsProcessor,
    receptive_codes,
)
from geomotiongpt.models.motion_lengths import share_tokens

TEXTS = ["a person walks forward", "someone jumps", "the figure turns around"]
FACTOR = 8


@pytest.fixture
def model(tiny_model) -> GeoMotionGPTForCausalLM:
    """Of its own, trained on motions of at most 10 codes, as far as it knows."""
    model = copy.deepcopy(tiny_model)
    model.config.max_motion_codes = 10
    return model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def codes_of(output) -> list[list[int]]:
    return [[code for code in row if code >= 0] for row in output.motion_codes.tolist()]


class TestVocabulary:
    """What may follow a token, by hand on a vocabulary of 5 texts, 4 markers and 3 codes."""

    PAD, START, END, PLACEHOLDER = range(5, 9)

    def allowed_after(self, token: int) -> set[int]:
        processor = MotionVocabularyLogitsProcessor(5, self.START, self.END, 9, 12)
        scores = processor(torch.tensor([[0, token]]), torch.zeros(1, 12))
        return set(scores[0].isfinite().nonzero().flatten().tolist())

    @pytest.mark.parametrize("token", [0, 4, 6 + 1, 5])
    def test_text_or_a_motion_may_follow_outside(self, token):
        assert self.allowed_after(token) == {0, 1, 2, 3, 4, self.START}

    def test_a_motion_begins_with_a_code(self):
        assert self.allowed_after(self.START) == {9, 10, 11}

    @pytest.mark.parametrize("token", [9, 11])
    def test_codes_or_the_end_follow_a_code(self, token):
        assert self.allowed_after(token) == {9, 10, 11, self.END}

    def test_rows_are_judged_one_by_one_and_scores_of_what_may_follow_stay(self):
        processor = MotionVocabularyLogitsProcessor(5, self.START, self.END, 9, 12)
        scores = torch.randn(2, 12)
        result = processor(torch.tensor([[9], [1]]), scores)
        assert torch.equal(result[0, 9:], scores[0, 9:]) and torch.equal(result[1, :5], scores[1, :5])
        assert result[0, :5].isinf().all() and result[1, 9:].isinf().all()


def test_length_holds_for_each_row_and_its_beams():
    """Rows of 2 exactly, 3 at most and 1 exactly; two beams each; prompts of 4 tokens; 7 is the end."""
    processor = MotionLengthLogitsProcessor([2, 3, 1], [True, False, True], 4, 7)
    for step, (may_end, must_end) in enumerate(
        [
            ([False, True, False], [False] * 3),
            ([False, True, True], [False, False, True]),
            ([True] * 3, [True, False, True]),
        ]
    ):
        scores = processor(torch.zeros(6, 4 + step, dtype=torch.long), torch.zeros(6, 9))
        for row in range(6):
            assert scores[row, 7].isfinite() == may_end[row // 2]
            assert bool(scores[row, :7].isinf().all()) == must_end[row // 2]


@pytest.mark.parametrize("options", [{"do_sample": True}, {"num_beams": 3}, {"do_sample": True, "num_beams": 2}])
def test_motion_tokens_alone_answer_text_to_motion(model, tiny_processor, options):
    """A random model says anything; constrained, it says codes and ends its motion, in a padded batch too."""
    torch.manual_seed(0)
    inputs = tiny_processor(text=TEXTS, task="text-to-motion")
    width = inputs["input_ids"].shape[1]
    free = model.generate(**inputs, max_new_tokens=20, constrained=False, **options)[:, width:]
    made = model.generate(**inputs, max_new_tokens=20, **options)[:, width:]
    config = model.config
    assert (free < config.text_vocab_size).any()
    for row in made.tolist():
        end = row.index(config.motion_end_token_id) if config.motion_end_token_id in row else len(row)
        assert end > 0 and all(token >= config.first_motion_token_id for token in row[:end])
        assert all(token < config.first_motion_token_id for token in row[end + 1 :])


def test_captions_hold_no_motion_tokens(model, tiny_processor, clips):
    torch.manual_seed(0)
    inputs = tiny_processor(motion=clips)
    width = inputs["input_ids"].shape[1]
    options = {"do_sample": True, "max_new_tokens": 30, "suppress_tokens": [model.config.motion_start_token_id]}
    assert (model.generate(**inputs, **options)[:, width:] < model.config.first_motion_token_id).all()
    torch.manual_seed(0)
    free = model.generate(**inputs, constrained=False, **options)[:, width:]
    assert (free >= model.config.first_motion_token_id).any()


def test_length_is_as_asked_in_frames(model, tiny_processor):
    """Not only in whole codes; the mask and the zeros after the end say so."""
    output = model.generate_motion(TEXTS, num_frames=[33, 8, 80], processor=tiny_processor, do_sample=True)
    assert output.motion_mask.sum(-1).tolist() == [33, 8, 80] and output.motion_values.shape == (3, 80, 263)
    assert [len(codes) for codes in codes_of(output)] == [5, 1, 10]
    assert (output.motion_values[~output.motion_mask] == 0).all()
    decoded = model.motion_tokenizer.decode(output.motion_codes).motion_values
    assert torch.equal(output.motion_values[output.motion_mask], decoded[output.motion_mask])


def test_lengths_may_be_mixed_with_none(model, tiny_processor):
    output = model.generate_motion(
        TEXTS, num_frames=[33, None, 80], processor=tiny_processor, do_sample=True, generator=seeded()
    )
    lengths = output.motion_mask.sum(-1).tolist()
    assert lengths[0] == 33 and lengths[2] == 80 and lengths[1] % FACTOR == 0 and 8 <= lengths[1] <= 80


def test_free_length_ends_where_the_model_says_so(model, tiny_processor):
    """At the latest after the longest motion of training."""

    class EndAfterThree(LogitsProcessor):
        def __call__(self, input_ids, scores):
            codes = (input_ids >= model.config.first_motion_token_id).sum(-1)
            scores[codes == 3, model.config.motion_end_token_id] = 1e4
            return scores

    options = {"processor": tiny_processor, "do_sample": True, "generator": seeded()}
    ended = model.generate_motion(TEXTS, logits_processor=[EndAfterThree()], **options)
    assert [len(codes) for codes in codes_of(ended)] == [3, 3, 3]
    endless = model.generate_motion(TEXTS, suppress_tokens=[model.config.motion_end_token_id], **options)
    assert [len(codes) for codes in codes_of(endless)] == [10, 10, 10]


def test_seed_decides_the_motion_and_leaves_the_global_state_alone(model, tiny_processor):
    def make(generator) -> torch.Tensor:
        output = model.generate_motion(
            TEXTS, num_frames=64, processor=tiny_processor, do_sample=True, generator=generator
        )
        return output.motion_codes

    torch.manual_seed(5)
    state = torch.get_rng_state()
    generator = seeded(1)
    first, second = make(generator), make(generator)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, second)
    assert torch.equal(make(seeded(1)), first) and not torch.equal(make(seeded(2)), first)


def test_samples_of_a_caption_stand_next_to_each_other_and_differ(model, tiny_processor):
    options = {"num_frames": [16, 40], "processor": tiny_processor, "do_sample": True, "generator": seeded()}
    output = model.generate_motion(TEXTS[:2], num_samples=3, **options)
    assert output.motion_mask.sum(-1).tolist() == [16] * 3 + [40] * 3
    assert len({tuple(codes) for codes in codes_of(output)[3:]}) == 3


def test_prediction_keeps_the_given_codes_and_goes_on(model, tiny_processor, clips):
    inputs = tiny_processor.feature_extractor(clips)
    given = model.motion_tokenizer.encode(inputs["motion_values"], inputs["motion_mask"]).motion_codes
    output = model.generate_motion(
        **inputs, task="motion-prediction", num_frames=80, processor=tiny_processor, do_sample=True
    )
    for row, codes in zip(given.tolist(), codes_of(output), strict=True):
        start = [code for code in row if code >= 0]
        assert codes[: len(start)] == start and len(codes) == 10
    assert output.motion_mask.sum(-1).tolist() == [80] * 3


def gap(frames: int, start: int, stop: int, padding: int = 0) -> torch.Tensor:
    mask = torch.ones(frames + padding, dtype=torch.bool)
    mask[start:stop] = False
    mask[frames:] = False
    return mask


def test_in_between_keeps_both_ends_and_fills_the_gap(model, tiny_processor):
    """Rows with other gaps and other lengths in one batch."""
    values = torch.randn(2, 80, 263)
    mask = torch.stack([gap(80, 17, 56), gap(64, 8, 44, padding=16)])
    output = model.generate_motion(
        motion_values=values, motion_mask=mask, task="motion-in-between", processor=tiny_processor, do_sample=True
    )
    encode = model.motion_tokenizer.encode
    for row, (start, stop, end) in enumerate([(17, 56, 80), (8, 44, 64)]):
        first = encode(values[row : row + 1, :start]).motion_codes[0].tolist()
        stop += (end - stop) % FACTOR  # whole codes up to the last frame
        last = encode(values[row : row + 1, stop:end]).motion_codes[0].tolist()
        codes = codes_of(output)[row]
        assert codes[: len(first)] == first and codes[-len(last) :] == last and len(codes) == end // FACTOR
    assert output.motion_mask.sum(-1).tolist() == [80, 64]


def test_nothing_given_makes_motions_too(model, tiny_processor):
    output = model.generate_motion(
        task="unconditional", num_frames=[16, 24], processor=tiny_processor, do_sample=True, generator=seeded()
    )
    assert output.motion_mask.sum(-1).tolist() == [16, 24]


class PromptRecorder(LogitsProcessor):
    """Keeps the prompts of all calls of `generate`, without padding."""

    def __init__(self, pad_token_id: int):
        self.pad_token_id, self.prompts, self._length = pad_token_id, [], 0

    def __call__(self, input_ids, scores):
        if input_ids.shape[1] != self._length + 1:
            self.prompts += [[token for token in row if token != self.pad_token_id] for row in input_ids.tolist()]
        self._length = input_ids.shape[1]
        return scores


def prompts_of(recorder: PromptRecorder, processor) -> list[str]:
    return [processor.tokenizer.decode(ids).replace("> <", "><") for ids in recorder.prompts]


def shown(codes: list[int]) -> str:
    return "<motion>" + "".join(f"<motion_{code}>" for code in codes)


def test_long_motion_is_made_in_windows_that_keep_the_newest_half(model, tiny_processor):
    """Five times the length of training; no window is longer than training, and none states the whole length."""
    recorder = PromptRecorder(model.config.pad_token_id)
    output = model.generate_motion(
        TEXTS[0], num_frames=400, processor=tiny_processor, do_sample=True, logits_processor=[recorder]
    )
    codes = codes_of(output)[0]
    assert output.motion_mask.sum().item() == 400 and len(codes) == 50
    asked = f"Show the motion: {TEXTS[0]}\nMotion:"
    wanted = [asked + "<motion>", *(asked + shown(codes[end - 5 : end]) for end in range(10, 45, 5))]
    last = f"Show the motion for 4.0 seconds: {TEXTS[0]}\nMotion:" + shown(codes[40:45])
    assert prompts_of(recorder, tiny_processor) == [*wanted, last]


def test_captions_in_sequence_take_over_from_each_other(model, tiny_processor):
    """One motion, each caption with its length; the next prompt begins with the last codes of what there is."""
    recorder = PromptRecorder(model.config.pad_token_id)
    output = model.generate_motion(
        [TEXTS[:2], TEXTS],
        num_frames=24,
        num_context_codes=2,
        processor=tiny_processor,
        do_sample=True,
        logits_processor=[recorder],
    )
    first, second = codes_of(output)
    assert output.motion_mask.sum(-1).tolist() == [48, 72] and len(first) == 6 and len(second) == 9
    seconds = "Show the motion for {} seconds: {}\nMotion:"
    assert prompts_of(recorder, tiny_processor) == [
        seconds.format("1.2", TEXTS[0]) + "<motion>",
        seconds.format("1.2", TEXTS[0]) + "<motion>",
        seconds.format("2.0", TEXTS[1]) + shown(first[1:3]),
        seconds.format("2.0", TEXTS[1]) + shown(second[1:3]),
        seconds.format("2.0", TEXTS[2]) + shown(second[4:6]),
    ]


def test_captions_in_sequence_have_the_lengths_asked_for(model, tiny_processor):
    """Lengths of one and a half codes add up: rounded up one by one, the last caption would pay for the others."""
    assert share_tokens(0, 41, 10, FACTOR) == ([6, 5, 5, 5, 5, 5, 5, 5, 6, 5], 410)
    assert share_tokens(0, [12, None, 2], 3, FACTOR) == ([2, None, 1], None)
    recorder = PromptRecorder(model.config.pad_token_id)
    options = {"processor": tiny_processor, "num_context_codes": 1, "logits_processor": [recorder]}
    made = model.generate_motion([TEXTS, TEXTS], num_frames=[[12] * 3, [12, 20, 4]], **options)
    assert made.motion_mask.sum(-1).tolist() == [36, 36] and list(map(len, codes_of(made))) == [5, 5]
    texts = prompts_of(recorder, tiny_processor)
    stated = [float(text.split("seconds")[0].split()[-1]) for text in texts]
    assert stated == [0.8, 0.8, 0.8, 1.2, 1.2, 0.8], "with the one code that the prompt begins with"
    whole = model.generate_motion(TEXTS[:2], num_frames=torch.tensor([12, 20]), processor=tiny_processor)
    assert whole.motion_mask.sum(-1).tolist() == [12, 20]


def test_sampling_draws_from_all_codes(model, tiny_processor, monkeypatch):
    """Where transformers would draw from the fifty likeliest."""
    asked, generate = [], model.generate
    monkeypatch.setattr(model, "generate", lambda **options: asked.append(options.get("top_k")) or generate(**options))
    for options in ({"do_sample": True}, {"do_sample": True, "top_k": 3}, {}):
        model.generate_motion(TEXTS[0], num_frames=8, processor=tiny_processor, **options)
    model.generation_config.update(do_sample=True, top_k=5)
    for options in ({}, {"generation_config": GenerationConfig(temperature=0.8)}):
        model.generate_motion(TEXTS[0], num_frames=8, processor=tiny_processor, **options)
    assert asked == [0, 3, None, None, None], "what the model's configuration says holds"


def test_a_configuration_may_ask_for_more_than_ids(model, tiny_processor):
    """Of the model: how many answers, and in which form; both hold for captions alone."""
    model.generation_config.update(num_return_sequences=2, num_beams=2, return_dict_in_generate=True)
    made = model.generate_motion(TEXTS[0], num_frames=8, processor=tiny_processor)
    assert len(made.motion_values) == 1
    inputs = tiny_processor(motion=torch.zeros(12, 263))
    generated = model.generate(**inputs, max_new_tokens=4)
    assert len(tiny_processor.post_process_text(generated, inputs["input_ids"].shape[1])) == 2


def test_in_between_of_broken_codes_keeps_the_end_to_its_last_frame(model, tiny_processor):
    """47 frames with a gap of 15: the gap takes the nearest number of codes, and the last frames are not lost."""
    values = torch.randn(1, 47, 263)
    mask = gap(47, 16, 31)[None]
    made = model.generate_motion(
        motion_values=values, motion_mask=mask, task="motion-in-between", processor=tiny_processor
    )
    encode = model.motion_tokenizer.encode
    first, last = encode(values[:, :16]).motion_codes[0].tolist(), encode(values[:, 31:47]).motion_codes[0].tolist()
    codes = codes_of(made)[0]
    assert len(codes) == 6 and codes[:2] == first and codes[-2:] == last


def test_text_to_motion_may_begin_with_given_motion(model, tiny_processor):
    values = torch.randn(1, 24, 263)
    recorder = PromptRecorder(model.config.pad_token_id)
    output = model.generate_motion(
        TEXTS[0],
        motion_values=values,
        num_frames=48,
        processor=tiny_processor,
        do_sample=True,
        logits_processor=[recorder],
    )
    given = model.motion_tokenizer.encode(values).motion_codes[0].tolist()
    assert codes_of(output)[0][:3] == given
    assert prompts_of(recorder, tiny_processor)[0].endswith(shown(given))


@pytest.mark.parametrize("task", ["text-to-motion", "motion-prediction", "motion-in-between"])
def test_streamed_frames_are_those_of_the_whole_motion(model, tiny_processor, task):
    """With the decoder's whole reach awaited; pieces come before generation has ended, and over several windows."""
    options = {"num_frames": 30 * FACTOR} if task != "motion-in-between" else {}
    if task == "text-to-motion":
        options["text"] = TEXTS[0]
    else:
        options["motion_values"] = torch.randn(1, 80, 263)
        options["motion_mask"] = gap(80, 16, 64)[None] if task == "motion-in-between" else None
    arguments = {**options, "task": task, "processor": tiny_processor, "do_sample": True}
    whole = model.generate_motion(**arguments, generator=seeded(3)).motion_values[0]
    streamer = MotionStreamer(model, lookahead=None, timeout=60)
    thread = threading.Thread(
        target=model.generate_motion, kwargs={**arguments, "generator": seeded(3), "streamer": streamer}
    )
    thread.start()
    pieces = list(streamer)
    thread.join()
    assert torch.cat(pieces).shape == whole.shape
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=1e-4, atol=1e-4)
    if len(whole) // FACTOR > streamer.reach:
        assert len(pieces) > 1


def test_a_streamer_gives_the_frames_asked_for_and_can_be_used_again(model, tiny_processor):
    streamer = MotionStreamer(model, lookahead=1)
    for num_frames in (9 * FACTOR - 3, 4 * FACTOR):
        made = model.generate_motion(TEXTS[0], num_frames=num_frames, processor=tiny_processor, streamer=streamer)
        pieces = list(streamer)
        assert sum(map(len, pieces)) == num_frames == len(made.motion_values[0]) and len(pieces) > 1
    again = MotionStreamer(model, lookahead=1)
    model.generate_motion(TEXTS[0], num_frames=4 * FACTOR, processor=tiny_processor, streamer=again)
    assert torch.equal(torch.cat(pieces), torch.cat(list(again)))


def test_a_stream_ends_when_generation_fails(model, tiny_processor):
    for options in ({"num_frames": -3}, {"max_new_tokens": 3}, {"num_frames": 80, "num_beams": "many"}):
        streamer = MotionStreamer(model, timeout=5)
        with pytest.raises(Exception):  # noqa: B017 whatever it is
            model.generate_motion(TEXTS[0], processor=tiny_processor, streamer=streamer, **options)
        with pytest.raises(RuntimeError, match="the motion was not made to its end: ."):
            list(streamer)


def test_a_streamer_forgets_a_motion_that_failed_when_the_next_begins(model, tiny_processor):
    streamer = MotionStreamer(model, timeout=5)
    make = partial(model.generate_motion, TEXTS[0], processor=tiny_processor, streamer=streamer)
    make(num_frames=4 * FACTOR)
    with pytest.raises(ValueError):
        make(num_frames=0)
    make(num_frames=2 * FACTOR)
    assert [sum(map(len, streamer)) for _ in range(2)] == [4 * FACTOR, 2 * FACTOR]


def test_generate_itself_streams(model, tiny_processor):
    """With a prompt that begins the motion; a short lookahead lets every code go as soon as the next is there."""
    inputs = tiny_processor(motion_codes=[[3, 1, 4]], task="motion-prediction")
    streamer = MotionStreamer(model, lookahead=1)
    made = model.generate(
        **inputs, max_new_tokens=6, suppress_tokens=[model.config.motion_end_token_id], streamer=streamer
    )
    pieces = [len(piece) // FACTOR for piece in streamer]
    assert pieces == [2, 1, 1, 1, 1, 1, 1, 1] and sum(pieces) == 3 + 6
    assert made.shape[1] == inputs["input_ids"].shape[1] + 6


def test_reach_of_the_decoder_is_what_changes(tiny_tokenizer_model):
    """A code changes frames up to `receptive_codes` codes away, and none beyond."""
    reach = receptive_codes(tiny_tokenizer_model.config)
    assert reach == 25
    codes = torch.zeros(1, 2 * reach + 5, dtype=torch.long)
    other = codes.clone()
    middle = reach + 2
    other[0, middle] = 7
    difference = (tiny_tokenizer_model.decode(codes)[0] - tiny_tokenizer_model.decode(other)[0]).abs().amax(-1)[0]
    changed = difference.reshape(-1, FACTOR).amax(-1).nonzero().flatten().tolist()
    assert middle - reach <= min(changed) and max(changed) <= middle + reach


def test_processor_beside_the_model_is_found(tiny_model_folder):
    model = GeoMotionGPTForCausalLM.from_pretrained(tiny_model_folder)
    assert model.generate_motion(TEXTS[0], num_frames=16).motion_mask.sum() == 16


def test_requests_that_cannot_be_met_say_why(model, tiny_processor):
    values, mask = torch.randn(1, 40, 263), gap(40, 16, 24)[None]

    def refused(message, *args, **options):
        with pytest.raises(ValueError, match=message):
            model.generate_motion(*args, processor=tiny_processor, **options)

    refused("'motion-to-text' answers with text", task="motion-to-text")
    refused("give `text`")
    refused("a caption is empty", ["a person walks", " "])
    refused("a caption is empty", [["a person walks", ""]])
    refused("num_samples is 0", TEXTS[0], num_samples=0)
    refused("'motion-prediction' has no use for `text`", TEXTS, task="motion-prediction", motion_values=values)
    refused("give `motion_values`", task="motion-prediction")
    refused("give `motion_mask`", task="motion-in-between", motion_values=values)
    refused("takes no motion", task="unconditional", motion_values=values)
    refused("2 and 3 captions, motions or lengths", TEXTS[:2], num_frames=[8, 8, 8])
    refused("3 and 1 captions, motions or lengths", TEXTS, motion_values=values)
    refused("40 frames are asked for, but 40 are given", TEXTS[0], motion_values=values, num_frames=40)
    refused("motion 0: -3 frames are asked for", TEXTS[0], num_frames=-3)
    refused("motion 0: 60.0 frames are asked for", TEXTS[0], num_frames=60.0)
    refused("2 lengths for 3 captions", [TEXTS], num_frames=[[8, 8]])
    refused("num_samples is 3, but without sampling", TEXTS[0], num_samples=3)
    between = {"task": "motion-in-between", "motion_values": values}
    refused("given frames, a gap and given frames", **between, motion_mask=mask | True)
    refused("not `num_frames`", **between, motion_mask=mask, num_frames=50)
    short = gap(40, 4, 24)[None]
    refused("shorter than the 8 frames of one code", **between, motion_mask=short)
    small = gap(39, 16, 17, padding=1)[None]
    refused("the gap is shorter", **between, motion_mask=small)
    refused(r"motion_mask has the shape \(1, 60\); wanted", **between, motion_mask=gap(60, 16, 24)[None])
    refused("leaves no room for a motion: shorten", "walks " * 105)
    refused("sets max_new_tokens itself; use `num_frames`", TEXTS, max_new_tokens=20)
    refused("sets num_return_sequences itself; use `num_samples`", TEXTS, num_return_sequences=2)
    refused("one motion at a time, not 3", TEXTS, streamer=MotionStreamer(model))
    with pytest.raises(ValueError, match="give `processor=`"):
        copy.deepcopy(model).generate_motion(TEXTS[0])
    with pytest.raises(ValueError, match="lookahead is -1"):
        MotionStreamer(model, lookahead=-1)


def test_batch_makes_what_single_calls_make(model, tiny_processor):
    """Greedy, with prompts of other lengths; left padding changes nothing."""
    together = model.generate_motion(TEXTS, num_frames=64, processor=tiny_processor)
    for row, text in enumerate(TEXTS):
        alone = model.generate_motion(text, num_frames=64, processor=tiny_processor)
        assert codes_of(alone)[0] == codes_of(together)[row]
        np.testing.assert_allclose(alone.motion_values[0], together.motion_values[row], rtol=1e-4, atol=1e-4)


def test_a_task_that_the_model_was_not_trained_on_is_warned_of(model, tiny_processor, caplog):
    model.config.trained_tasks = ["motion-to-text", "unconditional"]
    model.generate_motion(task="unconditional", num_frames=8, processor=tiny_processor)
    assert not caplog.messages
    model.generate_motion("a person walks", num_frames=8, processor=tiny_processor)
    assert "trained on motion-to-text, unconditional, not on text-to-motion" in caplog.text
