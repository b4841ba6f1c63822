"""Motion as latents one after another: cache, lengths, windows, sequences, what is given, streams, what is refused."""

import copy
import gc
import logging
import queue
import re
import threading
import time
import weakref

import pytest
import torch
from transformers import TextStreamer, pipeline

from geomotiongpt import LLaMoForCausalLM, LLaMoProcessor, MotionFrameStreamer
from geomotiongpt.models.motion_requests import MotionRequest
from geomotiongpt.models.task_prompts import MotionTaskExample

TEXTS = ["a person walks forward", "someone jumps", "the figure turns around"]
PREDICTION = {"task": "motion-prediction"}
BETWEEN = {"task": "motion-in-between"}


@pytest.fixture
def model(tiny_llamo, llamo_processor) -> LLaMoForCausalLM:
    """A copy to change, as loaded from the folder of its processor; its motions do not end by themselves."""
    model = copy.deepcopy(tiny_llamo)
    model._processor = llamo_processor
    with torch.no_grad():
        model.exit_head.bias.fill_(-100)
    return model


@pytest.fixture
def values():
    """Three motions of 30 frames."""
    return torch.randn(3, 30, 263, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def gaps():
    """Of motions of 30, 30 and 26 frames; gaps of 15, 7 and 9."""
    mask = torch.ones(3, 30, dtype=torch.bool)
    mask[0, 10:25] = mask[1, 8:15] = mask[2, 12:21] = mask[2, 26:] = False
    return mask


class Recorder(LLaMoProcessor):
    """Keeps the examples that it writes prompts for."""

    def prepare_examples(self, examples, **options):
        vars(self).setdefault("examples", []).append(examples)
        return super().prepare_examples(examples, **options)


@pytest.fixture
def recorder(llamo_processor) -> Recorder:
    return Recorder(llamo_processor.feature_extractor, llamo_processor.tokenizer)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lengths(output) -> list[int]:
    return output.motion_mask.sum(-1).tolist()


def near(value, wanted, tolerance=1e-5):
    torch.testing.assert_close(value, wanted, rtol=tolerance, atol=tolerance)


def replay(model, processor, prompt, shown, made, generator, scale=1.0, null=None, ends=()):
    """Latents drawn anew from states of one full pass each over all that there is, without a cache.

    Args:
        prompt: (task, text, stated length) of the prompt.
        shown: latents that it begins with.
        made: those that were made then.
        null: what guidance leads away from, as `prompt`.
    """
    drawn, dim = [], 8
    for count in range(len(made)):
        states = []
        for (task, text, stated), closing in ((prompt, ends), *([(null, ())] if null else [])):
            motion = [*shown, *made[:count]]
            kinds = [0] * len(shown) + [1] * count + [0] * len(closing)
            example = MotionTaskExample(task, text, kinds, len(motion), len(closing), stated)
            prepared = processor.prepare_examples([example], with_answers=False)
            rows = [*closing, *motion]
            latents = torch.stack(rows)[None] if rows else None
            with torch.no_grad():
                output = model(torch.from_numpy(prepared["input_ids"]), latents=latents, use_cache=False)
            states.append(output.hidden_states_of_motion[:, -1:])
        drawn.append(
            model.denoising_head.sample(
                states[0],
                generator=generator,
                num_steps=model.config.num_denoising_steps,
                guidance_scale=scale,
                unconditional=states[1] if null else None,
            )[0]
        )
    return model.restore(torch.stack(drawn)) if drawn else torch.zeros(0, dim)


# The cache


@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "smollm3"])
def test_a_cache_gives_what_full_passes_give(make_llamo, llamo_processor, kind, scale):
    """For as many key-value heads as query heads, and for fewer. Guidance adds up the errors of two predictions."""
    model = make_llamo(kind)
    made = model.generate_motion(
        TEXTS[0], num_frames=40, processor=llamo_processor, generator=seeded(), guidance_scale=scale
    ).latents[0]
    assert made.std(0).min() > 0.05, "latents that are all the same test nothing"
    null = None if scale == 1 else ("unconditional", None, 10)
    prompt = ("text-to-motion", TEXTS[0], 10)
    near(replay(model, llamo_processor, prompt, [], made, seeded(), scale, null), made, (2 * scale - 1) * 1e-5)


def test_a_single_stream_makes_motions_too(make_llamo, llamo_processor):
    model = make_llamo(streams="single")
    made = model.generate_motion(TEXTS[0], num_frames=12, processor=llamo_processor, generator=seeded()).latents[0]
    null = ("unconditional", None, 3)
    again = replay(model, llamo_processor, ("text-to-motion", TEXTS[0], 3), [], made, seeded(), 4.0, null)
    near(again, made)


def test_the_same_seed_makes_the_same_latents_also_after_saving(model, llamo_processor, llamo_folder):
    options = {"num_frames": 20, "guidance_scale": 1}
    made = [model.generate_motion(TEXTS, **options, generator=seeded(seed)).latents for seed in (0, 0, 1)]
    assert torch.equal(made[0], made[1]) and (made[0] - made[2]).abs().max() > 1e-2
    for more in ({}, {"processor": llamo_processor}):
        loaded = LLaMoForCausalLM.from_pretrained(llamo_folder)
        near(loaded.generate_motion(TEXTS, **options, **more, generator=seeded()).latents, made[0])
    torch.manual_seed(0)
    first = model.generate_motion(TEXTS, num_frames=20).latents
    torch.manual_seed(0)
    assert torch.equal(model.generate_motion(TEXTS, num_frames=20).latents, first)


def test_guidance_of_one_is_the_conditional_model(model):
    """Configured scale and steps are the defaults; with guidance the result depends on the scale."""
    made = model.generate_motion(TEXTS, num_frames=20, generator=seeded(), guidance_scale=1, num_denoising_steps=5)
    rows = []
    hook = model.motion_branch_norm.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    model.config.denoising_guidance_scale, model.config.num_denoising_steps = 1.0, 5
    assert torch.equal(model.generate_motion(TEXTS, num_frames=20, generator=seeded()).latents, made.latents)
    assert set(rows) == {3}, "half the work"
    hook.remove()
    guided = [
        model.generate_motion(TEXTS, num_frames=20, generator=seeded(), guidance_scale=scale).latents
        for scale in (1.001, 3.0)
    ]
    near(guided[0], made.latents, 0.02)
    assert (guided[1] - made.latents).abs().max() > 0.05


# Lengths


def test_length_is_as_asked(model, recorder):
    """Multiples of a latent's frames or not; the prompt states it; zeros and a mask after the end."""
    asked = [30, 41, 1, 44]
    output = model.generate_motion([*TEXTS, TEXTS[0]], num_frames=asked, generator=seeded(), processor=recorder)
    assert lengths(output) == asked and output.motion_values.shape == (4, 44, 263)
    assert output.latents.shape == (4, 11, 8)
    assert (output.motion_values[~output.motion_mask] == 0).all()
    assert [row.any(-1).sum().item() for row in output.latents] == [8, 11, 1, 11]
    for row, frames in enumerate(asked):
        alone = model.motion_codec.decode(output.latents[row : row + 1, : -(-frames // 4)]).motion_values
        near(output.motion_values[row, :frames], alone[0, :frames])
    (first,) = recorder.examples
    assert [(e.task, e.text, e.num_codes) for e in first] == [
        *(("text-to-motion", text, size) for text, size in zip([*TEXTS, TEXTS[0]], (8, 11, 1, 11), strict=True)),
        *(("unconditional", None, size) for size in (8, 11, 1, 11)),
    ]
    assert lengths(model.generate_motion(TEXTS, num_frames=20)) == [20, 20, 20]
    assert lengths(model.generate_motion(task="unconditional", num_frames=[7, 9])) == [7, 9]


def test_the_exit_head_ends_a_motion(model, recorder, llamo_processor):
    """Where its probability first is above the threshold; one latent at least; the prompt states no length.

    The state is that of the prompt with the caption, whatever guidance leads away from.
    """
    whole = model.generate_motion(TEXTS[0], max_frames=40, generator=seeded(), guidance_scale=2, processor=recorder)
    assert lengths(whole) == [40] and recorder.examples[0][0].num_codes is None
    example = MotionTaskExample("text-to-motion", TEXTS[0], [1] * 10)
    ids = torch.from_numpy(llamo_processor.prepare_examples([example], with_answers=True)["input_ids"])
    with torch.no_grad():
        states = model(ids, latents=whole.latents).hidden_states_of_motion
        said = model.exit_head(states[ids == model.config.motion_out_token_id])[:, 0]
    record = [step for step in range(1, 10) if said[step] > said[:step].max()][-1]
    between = (said[record] + said[:record].max()) / 2 - model.exit_head.bias
    model.config.exit_threshold = 0.7
    with torch.no_grad():
        model.exit_head.bias.copy_(torch.tensor(0.7).logit() - between)
    made = model.generate_motion(TEXTS[0], max_frames=40, generator=seeded(), guidance_scale=2)
    assert lengths(made) == [4 * (record + 1)] and record > 0
    near(made.latents[0], whole.latents[0, : record + 1])
    with torch.no_grad():
        model.exit_head.bias.fill_(100)
    assert lengths(model.generate_motion([TEXTS[0], TEXTS[1]], num_frames=[None, 17])) == [4, 17]


def test_a_stated_length_may_leave_the_end_to_the_exit_head(model, recorder):
    """The prompt says how long, as it does for a length that is kept; the exit head ends the motion."""
    options = {"num_frames": [18, 60], "exact_length": False, "guidance_scale": 1}
    made = model.generate_motion(TEXTS[:2], processor=recorder, **options)
    assert [example.num_codes for example in recorder.examples[0]] == [5, 12] and lengths(made) == [48, 60]
    assert lengths(model.generate_motion(TEXTS[:2], max_frames=40, **options)) == [40, 40]
    with torch.no_grad():
        model.exit_head.bias.fill_(100)
    assert lengths(model.generate_motion(TEXTS[:2], **options)) == [4, 4]
    assert sum(map(len, model.stream_motion(TEXTS[0], num_frames=18, exact_length=False, guidance_scale=1))) == 4
    assert sum(map(len, model.stream_motion(TEXTS[0], num_frames=18, guidance_scale=1))) == 18
    given = {"motion_values": torch.zeros(1, 40, 263), "motion_mask": torch.arange(40)[None] % 30 < 10}
    with pytest.raises(ValueError, match="exact_length is False, but the gap of 'motion-in-between' has a length"):
        model.generate_motion(task="motion-in-between", exact_length=False, **given)


def test_a_motion_without_end_is_as_long_as_the_longest_of_training(model):
    assert lengths(model.generate_motion(TEXTS[0])) == [48]
    for most, wanted in ((4, 4), (7, 4), (11, 8), (60, 60)):
        assert lengths(model.generate_motion(TEXTS[0], max_frames=most)) == [wanted]


# The window


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_window_slides_over_ten_times_the_training_length(make_llamo, recorder, kind):
    """Latents before the slide are as without it; then the newest half is what the prompt begins with."""
    model, cached = make_llamo(kind), []
    hook = model.layers[0].register_forward_hook(
        lambda module, inputs, options, output: cached.append(options["past_key_values"].get_seq_length()),
        with_kwargs=True,
    )
    options = {"generator": seeded(), "guidance_scale": 1, "processor": recorder}
    made = model.generate_motion(TEXTS[0], num_frames=480, **options).latents[0]
    hook.remove()
    assert made.shape == (120, 8)
    widths = [recorder._prompt_ids(examples) for examples in recorder.examples]
    assert max(cached) <= max(len(ids) for rows in widths for ids in rows) + 6 + 6
    assert len(recorder.examples) == 20 and {len(rows[0].motion_codes) for rows in recorder.examples} == {0, 6}
    assert {rows[0].num_codes for rows in recorder.examples[:-2]} == {12}
    generator = seeded()
    options |= {"generator": generator}
    near(model.generate_motion(TEXTS[0], num_frames=48, **options).latents[0], made[:12])
    prompt = ("text-to-motion", TEXTS[0], 12)
    near(replay(model, recorder, prompt, made[6:12], made[12:18], generator), made[12:18], 1e-4)


def test_without_a_length_of_training_the_window_is_what_the_positions_hold(model, recorder):
    model.config.max_motion_latents = None
    made = model.generate_motion(TEXTS, num_frames=[600, 20, 333], generator=seeded(), processor=recorder)
    assert lengths(made) == [600, 20, 333] and made.motion_values.isfinite().all()
    assert min(example.num_codes for rows in recorder.examples for example in rows) >= 0
    long = " and ".join(TEXTS * 2)
    assert lengths(model.generate_motion(long, num_frames=400)) == [400]


# Several captions


def test_captions_in_sequence_take_over_from_each_other(model, recorder):
    """One motion; the next prompt begins with the last latents of what there is."""
    options = {"generator": seeded(), "guidance_scale": 1, "processor": recorder, "num_context_latents": 3}
    output = model.generate_motion([TEXTS[:2], TEXTS], num_frames=[[20, 16], [8, 12, 4]], **options)
    assert lengths(output) == [36, 24]
    asked = [[(e.text, len(e.motion_codes), e.num_codes) for e in rows] for rows in recorder.examples]
    assert asked == [
        [(TEXTS[0], 0, 5), (TEXTS[0], 0, 2)],
        [(TEXTS[1], 3, 7), (TEXTS[1], 2, 5)],
        [(TEXTS[2], 3, 4)],
    ]
    options |= {"generator": seeded()}
    made = model.generate_motion([TEXTS[:2]], num_frames=[[20, 16]], **options).latents[0]
    generator = seeded()
    near(replay(model, recorder, ("text-to-motion", TEXTS[0], 5), [], made[:5], generator), made[:5])
    near(replay(model, recorder, ("text-to-motion", TEXTS[1], 7), made[2:5], made[5:], generator), made[5:])


def test_lengths_of_captions_in_sequence_need_not_be_whole_latents(model, recorder):
    """The motion is as long as their sum; every caption has its share."""
    output = model.generate_motion([[TEXTS[0], TEXTS[1], TEXTS[2], TEXTS[0]]], num_frames=[[5, 5, 5, 6]])
    assert lengths(output) == [21] and output.latents.shape[1] == 6
    output = model.generate_motion([TEXTS[:2]], num_frames=41, processor=recorder)
    assert lengths(output) == [82]
    assert lengths(model.generate_motion([TEXTS[:2]], num_frames=[[10, None]], max_frames=8)) == [20]
    pieces = list(model.stream_motion(TEXTS, num_frames=[1, 1, 2]))
    assert sum(map(len, pieces)) == 4 and min(map(len, pieces)) > 0


def test_a_context_is_half_of_the_window_at_most(model, recorder):
    model.generate_motion([TEXTS[:2]], num_frames=[[40, 8]], num_context_latents=50, processor=recorder)
    assert len(recorder.examples[-1][0].motion_codes) == 6
    model.config.max_motion_latents = 4
    assert lengths(model.generate_motion([TEXTS[:2]], num_frames=[[40, 8]])) == [48]


# Samples and batches


def test_samples_stand_next_to_each_other_and_are_different(model):
    output = model.generate_motion(TEXTS[:2], num_frames=[10, 20], num_samples=3)
    assert lengths(output) == [10, 10, 10, 20, 20, 20]
    latents = output.latents[:, :3].flatten(1)
    assert (torch.cdist(latents, latents) + torch.eye(6)).min() > 1e-2


def test_a_motion_does_not_depend_on_the_other_rows(model):
    """Noise is drawn for the whole batch at once, so one row after another needs the same rows."""
    same = model.generate_motion([TEXTS[0], TEXTS[0]], num_frames=20, generator=seeded())
    other = model.generate_motion([TEXTS[0], TEXTS[2]], num_frames=[20, 48], generator=seeded())
    near(other.latents[0, :5], same.latents[0], 1e-4)
    near(other.motion_values[0, :20], same.motion_values[0], 1e-4)
    assert (other.latents[1, :5] - same.latents[1]).abs().max() > 1e-2


# What is given


def test_a_motion_goes_on_from_what_is_given(model, values, recorder):
    """Of 30, 12 and 21 frames 28, 12 and 20 fill latents."""
    mask = torch.arange(30) < torch.tensor([30, 12, 21])[:, None]
    values[1, 12:] = torch.nan
    asked = {"num_frames": [40, 13, 45], "guidance_scale": 1, "processor": recorder}
    output = model.generate_motion(motion_values=values, motion_mask=mask, **PREDICTION, **asked, generator=seeded())
    assert lengths(output) == [40, 13, 45] and output.motion_values.isfinite().all()
    for row, (given, total) in enumerate(((28, 40), (12, 13), (20, 45))):
        assert torch.equal(output.motion_values[row, :given], values[row, :given])
        near(output.latents[row, : given // 4], model.encode_motion(values[row : row + 1, :given])[0])
        alone = model.motion_codec.decode(output.latents[row : row + 1]).motion_values[0]
        near(output.motion_values[row, given:total], alone[given:total])
    assert [example.num_codes for example in recorder.examples[0]] == [10, 4, 12]
    options = {"num_frames": 40, "guidance_scale": 1, "generator": seeded()}
    made = model.generate_motion(motion_values=values[:1], **PREDICTION, **options).latents[0]
    prompt = ("motion-prediction", None, 10)
    near(replay(model, recorder, prompt, made[:7], made[7:], seeded()), made[7:])


def test_more_can_be_given_than_was_trained_on(model, recorder):
    """The window then begins with its newest half."""
    values = torch.randn(1, 100, 263, generator=seeded(9))
    options = {"generator": seeded(), "guidance_scale": 1, "processor": recorder}
    output = model.generate_motion(motion_values=values, **PREDICTION, num_frames=120, **options)
    assert lengths(output) == [120] and torch.equal(output.motion_values[:, :100], values)
    made = output.latents[0]
    prompt = ("motion-prediction", None, 11)
    near(replay(model, recorder, prompt, made[19:25], made[25:], seeded()), made[25:])
    assert len(list(model.stream_motion(motion_values=values, **PREDICTION, num_frames=120))) == 6


def test_given_ends_of_a_gap_are_kept(model, values, gaps, recorder):
    """Of each end what fills latents, of which the first of a later end are made too and not shown, because alone they
    would be encoded otherwise than behind the gap. In the gap and after the last given frame there may be anything."""
    holes = values.clone()
    holes[~gaps] = torch.nan
    options = {"guidance_scale": 1, "processor": recorder}
    output = model.generate_motion(motion_values=holes, motion_mask=gaps, **BETWEEN, **options, generator=seeded())
    assert lengths(output) == [30, 30, 26] and output.motion_values.isfinite().all()
    for row, (first, second, end) in enumerate(((8, 26, 30), (8, 18, 30), (12, 22, 26))):
        for part in (slice(0, first), slice(second, end)):
            assert torch.equal(output.motion_values[row, part], values[row, part])
        assert output.motion_values[row, first:second].ne(0).any(-1).all()
    shape = [(len(e.motion_codes), e.num_given_start, e.num_given_end, e.num_codes) for e in recorder.examples[0]]
    assert shape == [(3, 2, 1, 8), (3, 2, 1, 8), (4, 3, 1, 7)]
    one = {"motion_values": holes[:1], "motion_mask": gaps[:1], "generator": seeded()}
    made = model.generate_motion(**one, **BETWEEN, **options).latents[0]
    near(made[:2], model.encode_motion(values[:1, :8])[0])
    near(made[7:], model.encode_motion(values[:1, 26:])[0])
    prompt = ("motion-in-between", None, 8)
    near(replay(model, recorder, prompt, made[:2], made[2:7], seeded(), ends=made[7:]), made[2:7])


def test_a_long_gap_is_filled_with_a_window_that_keeps_the_end(model, recorder):
    values, mask = torch.randn(1, 200, 263), torch.zeros(1, 200, dtype=torch.bool)
    mask[:, :8] = mask[:, -8:] = True
    output = model.generate_motion(motion_values=values, motion_mask=mask, **BETWEEN, processor=recorder)
    assert lengths(output) == [200] and output.latents.shape == (1, 50, 8)
    assert torch.equal(output.motion_values[mask], values[mask])
    assert all(rows[0].num_given_end == 1 for rows in recorder.examples) and len(recorder.examples) > 5


# Streams


REQUESTS = {
    "caption": {"text": TEXTS[0], "num_frames": 101},
    "until it ends": {"text": TEXTS[0], "max_frames": 60},
    "captions": {"text": TEXTS, "num_frames": [21, 33, 9]},
    "prediction": {**PREDICTION, "num_frames": 75},
    "in-between": BETWEEN,
    "unconditional": {"task": "unconditional", "num_frames": 14},
}


def request_of(name, values, gaps):
    request = dict(REQUESTS[name])
    if "task" in request and name != "unconditional":
        request["motion_values"] = values[:1]
    if name == "in-between":
        request["motion_mask"] = gaps[:1]
    return request


def offline(model, request):
    request = dict(request)
    if isinstance(request.get("text"), list):
        request |= {"text": [request["text"]], "num_frames": [request["num_frames"]]}
    return model.generate_motion(**request, generator=seeded())


@pytest.mark.parametrize("name", REQUESTS)
def test_a_stream_is_what_is_made_at_once(model, values, gaps, name):
    request = request_of(name, values, gaps)
    wanted = offline(model, request)
    pieces = list(model.stream_motion(**request, generator=seeded()))
    near(torch.cat(pieces), wanted.motion_values[0])
    made = pieces[1:] if "motion_values" in request else pieces
    assert all(0 < len(piece) <= 4 for piece in made) and len(made) > 2


@pytest.mark.parametrize("name", REQUESTS)
def test_a_streamer_gets_what_is_made_and_the_whole_comes_back(model, values, gaps, name):
    request = request_of(name, values, gaps)
    wanted = offline(model, request)
    if isinstance(request.get("text"), list):
        request |= {"text": [request["text"]], "num_frames": [request["num_frames"]]}
    streamer, results = MotionFrameStreamer(timeout=60), []

    def make():
        results.append(model.generate_motion(**request, streamer=streamer, generator=seeded()))

    thread = threading.Thread(target=make)
    thread.start()
    pieces = list(streamer)
    thread.join(60)
    assert not thread.is_alive()
    near(torch.cat(pieces), wanted.motion_values[0])
    near(results[0].motion_values, wanted.motion_values)
    near(results[0].latents, wanted.latents)


def test_a_stream_needs_no_more_memory_and_stops_with_its_reader(model):
    calls = []
    model.denoising_head.condition_encoder.register_forward_hook(lambda *call: calls.append(1))
    stream = model.stream_motion(TEXTS[0], num_frames=2000)
    assert not calls, "nothing is made before it is asked for"
    threads = threading.active_count()
    for count, _ in enumerate(stream, 1):
        if count == 60:
            break
    assert len(calls) == 60 and threading.active_count() == threads
    (motion,) = [one for one in gc.get_objects() if isinstance(one, MotionRequest)]
    assert len(motion.latents) <= 12
    stream.close()
    assert len(calls) == 60 and torch.is_grad_enabled()


def test_who_closes_a_stream_ends_the_making(model):
    """The maker gets one clear error, whether it waits for room or makes more."""
    for ahead in (1, 64):
        streamer, errors = MotionFrameStreamer(timeout=60, ahead=ahead), []

        def make(streamer=streamer, errors=errors):
            try:
                model.generate_motion(TEXTS[0], num_frames=90_000, streamer=streamer)
            except RuntimeError as error:
                errors.append(str(error))

        thread = threading.Thread(target=make, daemon=True)
        thread.start()
        for _ in streamer:
            break
        streamer.close()
        thread.join(60)
        assert not thread.is_alive()
        assert errors == ["the reader has closed the stream: the motion is not made any further."]


def live_tensors() -> list[torch.Tensor]:
    gc.collect()
    return [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]


def start_making(model, streamer, **options) -> tuple[threading.Thread, list[str]]:
    """A thread that makes a motion far longer than anybody waits for, and the errors that end it."""
    errors = []

    def make():
        try:
            model.generate_motion(TEXTS[0], **{"num_frames": 90_000} | options, streamer=streamer)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    return thread, errors


@pytest.mark.parametrize("how", ["break", "error", "timeout"])
def test_a_reader_that_leaves_ends_the_making_without_a_word(model, how):
    """It does not call `close`: nothing is left running, no motion is kept, and nobody can wait for more."""
    streamer = MotionFrameStreamer(timeout=None if how != "timeout" else 0.001, ahead=2)
    thread, errors = start_making(model, streamer)
    if how == "break":
        for _ in streamer:
            break
    else:
        with pytest.raises(queue.Empty if how == "timeout" else KeyError):
            while True:
                for piece in streamer:
                    raise KeyError(len(piece)) if how == "error" else time.sleep(0)
    thread.join(30)
    assert not thread.is_alive()
    assert errors == ["the reader has closed the stream: the motion is not made any further."]
    left = weakref.WeakSet(one for one in gc.get_objects() if isinstance(one, MotionRequest))
    gc.collect()
    assert not left, "the motion is still held"
    assert list(streamer) == []


def test_close_drops_the_frames_that_were_ready():
    streamer = MotionFrameStreamer()
    for _ in range(5):
        streamer.put(torch.zeros(4, 263))
    next(iter(streamer))
    streamer.close()
    assert [frames for frames in streamer._frames.queue if frames is not None] == []


def test_close_wakes_a_reader_that_waits(model):
    streamer, pieces = MotionFrameStreamer(), []
    reader = threading.Thread(target=lambda: pieces.extend(streamer), daemon=True)
    reader.start()
    streamer.close()
    reader.join(30)
    assert not reader.is_alive() and pieces == []


def test_a_stream_that_is_cut_leaves_nothing_behind(model):
    """Of the model, of its cache, of its threads: tensors are as many as before."""
    model.generate_motion(TEXTS[0], num_frames=8, guidance_scale=2)

    def count() -> int:
        return len(live_tensors())

    before, threads = count(), threading.active_count()
    stream = model.stream_motion(TEXTS, num_frames=[300, 300, 300], guidance_scale=2)
    for pieces, _ in enumerate(stream, 1):
        if pieces == 14:
            break
    assert count() > before, "while it is open it holds its cache"
    del stream, _
    assert count() == before and threading.active_count() == threads


def test_tensors_of_a_stream_do_not_grow_with_its_length(model):
    """Their bytes, over windows that slide many times; at the same place of a window they are the same."""
    stream = model.stream_motion(TEXTS[0], num_frames=2000, guidance_scale=1)
    sizes = []
    for number, _ in enumerate(stream, 1):
        if number in (18, 60):  # windows slide every 6 latents
            sizes.append(sum(one.untyped_storage().nbytes() for one in live_tensors()))
            if number == 60:
                break
    assert sizes[0] == sizes[1] > 0


def test_the_flow_loop_is_not_compiled_without_a_gpu(model, caplog, monkeypatch):
    """It says why, and goes on as before."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("geomotiongpt"), "propagate", True)
    wanted = model.generate_motion(TEXTS[0], num_frames=8, generator=seeded()).latents
    model.compile_flow_loop()
    assert "the flow loop is not compiled: a CUDA graph needs a GPU, and the model is on 'cpu'" in caplog.text
    assert torch.equal(model.generate_motion(TEXTS[0], num_frames=8, generator=seeded()).latents, wanted)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")
def test_a_compiled_flow_loop_makes_the_same_motions(model):
    model.cuda()
    options = {"num_frames": 40, "guidance_scale": 2.0}
    wanted = model.generate_motion(TEXTS, **options, generator=seeded())
    model.compile_flow_loop()
    for _ in range(2):
        near(model.generate_motion(TEXTS, **options, generator=seeded()).latents, wanted.latents, 1e-4)
    assert len(model.denoising_head.flow_graphs._recorded) == 1
    copied = copy.deepcopy(model)
    near(copied.generate_motion(TEXTS, **options, generator=seeded()).latents, wanted.latents, 1e-4)


def test_a_streamer_is_no_more_than_so_many_pieces_ahead_and_can_be_used_again(model):
    streamer, calls = MotionFrameStreamer(timeout=60, ahead=3), []
    model.denoising_head.condition_encoder.register_forward_hook(lambda *call: calls.append(1))
    for _ in range(2):
        calls.clear()
        thread = threading.Thread(
            target=model.generate_motion, args=[TEXTS[0]], kwargs={"num_frames": 40, "streamer": streamer}
        )
        thread.start()
        for count, _ in enumerate(streamer, 1):
            assert len(calls) <= count + 3 + 2
        thread.join(60)
        assert count == 10 and not thread.is_alive()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": TEXTS}, "a streamer takes one motion at a time, not 3"),
        ({"text": TEXTS[0], "num_samples": 2}, "a streamer takes one motion at a time, not 2"),
        ({"text": TEXTS[0], "num_context_latents": 0}, "num_context_latents is 0"),
        ({"text": TEXTS[0], "max_frames": 0}, "max_frames is 0"),
        ({"text": ""}, "a caption is ''"),
        ({"text": TEXTS[0], "guidance_scale": -1.0}, "guidance_scale is -1.0"),
    ],
)
def test_after_an_error_nobody_waits(model, options, message):
    streamer = MotionFrameStreamer(timeout=5)
    with pytest.raises(ValueError, match=message):
        model.generate_motion(**options, streamer=streamer)
    with pytest.raises(RuntimeError, match=f"the motion was not made to its end: .*{message}"):
        list(streamer)


def test_a_reader_knows_that_the_making_failed(model):
    """Frames that came before are read; a motion that is cut does not look like a whole one."""
    streamer, made = MotionFrameStreamer(timeout=60), []
    model.exit_head.register_forward_hook(lambda *_: made.append(1) or (1 / 0 if len(made) == 3 else None))
    with pytest.raises(ZeroDivisionError):
        model.generate_motion(TEXTS[0], max_frames=400, streamer=streamer)
    pieces = []
    with pytest.raises(RuntimeError, match="the motion was not made to its end: division by zero"):
        for piece in streamer:
            pieces.append(piece)
    assert pieces and sum(map(len, pieces)) < 400


def test_a_reader_does_not_wait_for_ever():
    with pytest.raises(queue.Empty):
        next(iter(MotionFrameStreamer(timeout=0.01)))


def test_the_stream_of_several_motions_is_refused(model, values, llamo_processor):
    with pytest.raises(ValueError, match="a stream is of one motion, not of 3"):
        model.stream_motion(motion_values=values, **PREDICTION)
    with pytest.raises(ValueError, match="2 lengths for 1 captions; give one for each"):
        model.stream_motion(TEXTS[0], num_frames=[8, 8])
    with pytest.raises(ValueError, match="give `text`, a caption or a list of captions"):
        model.stream_motion()
    with pytest.raises(ValueError, match="a caption is"):
        model.stream_motion([])
    with pytest.raises(ValueError, match="TextStreamer only supports batch size 1"):
        model.generate_motion(TEXTS[0], num_frames=8, streamer=TextStreamer(llamo_processor.tokenizer))


# What is refused

GAP = torch.ones(3, 30, dtype=torch.bool)
ONE_END, TWO_GAPS, NO_START, SHORT_END, HOLE = (GAP.clone() for _ in range(5))
ONE_END[:, 20:], NO_START[:, :3], SHORT_END[:, 20:27], HOLE[:, 3] = False, False, False, False
TWO_GAPS[:, 5:8] = TWO_GAPS[:, 20:22] = False
VALUES = torch.zeros(3, 30, 263)
BROKEN = VALUES.clone()
BROKEN[1, 3, 7] = torch.nan


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": TEXTS, "num_frames": 0}, "motion 0: 0 frames are asked for; ask for 1 to 100000"),
        ({"text": TEXTS, "num_frames": [8, -5, 8]}, "motion 1: -5 frames are asked for"),
        ({"text": TEXTS, "num_frames": 100_001}, "motion 0: 100001 frames are asked for"),
        ({"text": TEXTS, "num_frames": 8.5}, "motion 0: 8.5 frames are asked for"),
        ({"text": TEXTS, "num_frames": [8, 8]}, "2 lengths for 3 motions; give one number, or one for each"),
        ({"text": [TEXTS], "num_frames": [[8, 8]]}, "2 lengths for 3 captions; give one for each"),
        ({"text": TEXTS, "num_samples": 0}, "num_samples is 0; make at least 1"),
        ({"text": TEXTS, "num_samples": 1.5}, "num_samples is 1.5; make at least 1"),
        ({"text": TEXTS, "num_context_latents": 0}, "num_context_latents is 0; it must be a whole number"),
        ({"text": TEXTS, "max_frames": 3}, "max_frames is 3; a latent takes 4: allow that many or more"),
        (
            {"text": TEXTS, "temperature": 0.5},
            "temperature is 0.5, but no tokens of motion are sampled here: num_deno",
        ),
        ({"text": TEXTS, "max_new_tokens": 5}, "max_new_tokens is 5, but no tokens of motion are sampled"),
        ({"text": TEXTS, "guidance_scale": -1.0}, "guidance_scale is -1.0; it must be finite and not negative"),
        ({"text": TEXTS, "num_denoising_steps": 0}, "num_denoising_steps is 0; it must be a whole number"),
        ({"text": TEXTS, "task": "text-to-music"}, "unknown task 'text-to-music'; known tasks: motion-to-text"),
        ({"text": TEXTS, "task": "motion-to-text"}, "task 'motion-to-text' answers with text: use `generate`"),
        ({"text": TEXTS, "task": "motion-duration"}, "task 'motion-duration' answers with duration: use `generate`"),
        ({"text": TEXTS, "task": "unconditional"}, "'unconditional' has no use for `text`"),
        ({"text": TEXTS, "motion_values": VALUES}, "'text-to-motion' takes no motion; use 'motion-prediction'"),
        ({"text": TEXTS, "motion_mask": GAP}, "motion_mask is given without `motion_values`"),
        ({}, "text-to-motion is about captions: give `text`"),
        ({"text": []}, "text-to-motion is about captions: give `text`"),
        ({"text": 5}, "text-to-motion is about captions: give `text`"),
        ({"text": ["walks", " "]}, "a caption is ' ': say what the motion is to show"),
        ({"text": [["walks"], []]}, "a caption is '': say what the motion is to show"),
        ({"text": ["walks", None]}, "a caption is None: say what the motion is to show"),
        (
            {"text": "walks " * 128, "num_frames": 8},
            r"motion 0 takes \d+ tokens with its text, the language model 128",
        ),
        (PREDICTION, "'motion-prediction' goes on from a motion: give `motion_values`"),
        ({**PREDICTION, "motion_values": VALUES.numpy()}, "motion_values must be a tensor"),
        ({**PREDICTION, "motion_values": VALUES[0]}, "motion_values must be a tensor"),
        ({**PREDICTION, "motion_values": VALUES[:0]}, "the batch has no rows"),
        ({**PREDICTION, "motion_values": BROKEN}, "row 1: what is given has a NaN or infinite value"),
        ({**PREDICTION, "motion_values": VALUES[..., :7]}, r"this codec takes \(batch, length, 263\)"),
        ({**PREDICTION, "motion_values": VALUES, "num_frames": 28}, "28 frames are asked for, but 28 are given alr"),
        ({**PREDICTION, "motion_values": VALUES, "motion_mask": GAP & False}, "row 0: a given part is shorter than"),
        ({**PREDICTION, "motion_values": VALUES, "motion_mask": HOLE}, "row 0 of motion_mask has a hole"),
        (
            {**PREDICTION, "motion_values": VALUES, "motion_mask": GAP[:2]},
            r"motion_mask has the shape \(2, 30\); want",
        ),
        ({**BETWEEN, "motion_values": VALUES}, "give `motion_mask`, False in the gap"),
        ({**BETWEEN, "motion_values": VALUES, "motion_mask": GAP}, "row 0 of motion_mask must have"),
        ({**BETWEEN, "motion_values": VALUES, "motion_mask": ONE_END}, "row 0 of motion_mask must have"),
        ({**BETWEEN, "motion_values": VALUES, "motion_mask": NO_START}, "row 0 of motion_mask must have"),
        ({**BETWEEN, "motion_values": VALUES, "motion_mask": TWO_GAPS}, "row 0 of motion_mask must have"),
        ({**BETWEEN, "motion_values": VALUES, "motion_mask": SHORT_END}, "a given part is shorter than the 4 frames"),
        (
            {**BETWEEN, "motion_values": VALUES, "motion_mask": HOLE, "num_frames": 30},
            "the gap in `motion_mask` says how long",
        ),
    ],
    ids=lambda value: re.sub(r"\W+", " ", value)[:60] if isinstance(value, str) else "",
)
def test_wrong_calls_say_what_is_wanted(model, options, message):
    with pytest.raises(ValueError, match=message):
        model.generate_motion(**options)


def test_a_prompt_that_leaves_no_room_is_refused(model, llamo_processor):
    text = "walks"
    while len(llamo_processor(text=text, task="text-to-motion", num_frames=48)["input_ids"][0]) < 128:
        text += "s"
    with pytest.raises(ValueError, match="a prompt of 128 tokens leaves no room in the 128 positions"):
        model.generate_motion(text, num_frames=48, guidance_scale=1)


def test_a_task_that_the_model_was_not_trained_on_is_refused(model):
    model.config.trained_tasks = ["text-to-motion", "motion-to-text"]
    with pytest.raises(ValueError, match="trained on text-to-motion, motion-to-text, not on unconditional"):
        model.generate_motion(task="unconditional")
    assert lengths(model.generate_motion(TEXTS, num_frames=5)) == [5, 5, 5]


def test_a_model_without_a_processor_says_so(tiny_llamo):
    with pytest.raises(ValueError, match="not loaded from a folder with a processor: give `processor=`"):
        copy.deepcopy(tiny_llamo).generate_motion(TEXTS)


def test_options_of_sampling_tokens_that_say_nothing_are_taken(model):
    wanted = model.generate_motion(TEXTS[0], num_frames=5, generator=seeded()).motion_values
    neutral = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "num_beams": 1}
    for options in (neutral, dict.fromkeys(neutral)):
        made = model.generate_motion(TEXTS[0], num_frames=5, generator=seeded(), **options)
        assert torch.equal(made.motion_values, wanted)


def test_the_pipeline_makes_motions(model, llamo_processor):
    """Denormalised, with joints; what is given is kept."""
    make = pipeline("text-to-motion", model=model, processor=llamo_processor)
    results = make(TEXTS, num_frames=[12, 20, 30], seed=3)
    assert [result["motion"].shape for result in results] == [(12, 263), (20, 263), (30, 263)]
    assert results[1]["joints"].shape == (20, 22, 3)
    given = torch.randn(40, 263).numpy()
    result = make(motion=given, task="motion-prediction", keep=(16, 0), num_frames=24)
    near(torch.from_numpy(result["motion"][:16]), torch.from_numpy(given[:16]))
    (result,) = make(motion=[given], task="motion-in-between", keep=(16, 8))
    near(torch.from_numpy(result["motion"][32:]), torch.from_numpy(given[32:]))
