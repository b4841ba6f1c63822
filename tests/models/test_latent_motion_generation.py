"""Motion as an answer where a motion is one latent: lengths, samples, what is given, and what is refused."""

import copy

import pytest
import torch
from transformers import TextStreamer, pipeline
from transformers.utils import logging

from geomotiongpt import MotionGPT3ForCausalLM

TEXTS = ["a person walks forward", "someone jumps", "the figure turns around"]


@pytest.fixture
def model(tiny_motiongpt3, motiongpt3_processor) -> MotionGPT3ForCausalLM:
    """A copy to change, as loaded from the folder of its processor."""
    model = copy.deepcopy(tiny_motiongpt3)
    model._processor = motiongpt3_processor
    return model


@pytest.fixture
def motions():
    """Three motions of which 30, 12 and 21 frames are given."""
    values = torch.randn(3, 30, 263, generator=torch.Generator().manual_seed(3))
    return values, torch.arange(30) < torch.tensor([30, 12, 21])[:, None]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lengths(output) -> list[int]:
    return output.motion_mask.sum(-1).tolist()


def asked(model, processor) -> list[str]:
    """Will hold what the language model reads in each call."""
    calls = []

    def read(module, inputs, options):
        pairs = zip(options["input_ids"], options["attention_mask"], strict=True)
        calls.append([processor.tokenizer.decode(ids[mask.bool()]).partition("<motion>")[0] for ids, mask in pairs])

    model.register_forward_pre_hook(read, with_kwargs=True)
    return calls


# Lengths


def test_length_is_as_asked(model, motiongpt3_processor):
    """Each of its own; the prompt states it; zeros and a mask after the end."""
    calls = asked(model, motiongpt3_processor)
    output = model.generate_motion(TEXTS, num_frames=[33, 1, 118], generator=seeded())
    assert lengths(output) == [33, 1, 118] and output.motion_values.shape == (3, 118, 263)
    assert (output.motion_values[~output.motion_mask] == 0).all() and output.latents.shape == (3, 1, 16)
    assert calls == [
        [f"Show the motion for {s} seconds: {t}\nMotion:" for s, t in zip((1.6, 0.1, 5.9), TEXTS, strict=True)]
    ]
    decoded = model.motion_vae.decode(output.latents, [33, 1, 118])
    assert torch.equal(output.motion_values, decoded.motion_values)
    assert lengths(model.generate_motion(TEXTS, num_frames=20)) == [20, 20, 20]
    assert lengths(model.generate_motion(TEXTS[0], num_frames=20)) == [20]


def test_the_length_predictor_decides_and_the_prompt_then_states_it(model, motiongpt3_processor):
    """It reads the prompt without a length; its answer is the exponential, in frames; given lengths stay."""
    inputs = motiongpt3_processor(text=TEXTS, task="text-to-motion")
    with torch.no_grad():
        states = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).motion_states
        wanted = model.length_head(states.mean(1))[:, 0].exp().round().int().clamp(1, 118).tolist()
    assert len(set(wanted)) == 3, "lengths that do not depend on the caption test nothing"
    calls = asked(model, motiongpt3_processor)
    output = model.generate_motion(TEXTS, generator=seeded())
    assert lengths(output) == wanted
    stated = [f"Show the motion for {frames / 20:.1f} seconds: " for frames in wanted]
    assert calls == [
        [f"Show the motion: {text}\nMotion:" for text in TEXTS],
        [f"{start}{text}\nMotion:" for start, text in zip(stated, TEXTS, strict=True)],
    ]
    again = model.generate_motion(TEXTS, num_frames=wanted, generator=seeded())
    assert torch.equal(again.motion_values, output.motion_values)
    assert lengths(model.generate_motion(TEXTS, num_frames=[None, 7, None])) == [wanted[0], 7, wanted[2]]
    model.config.max_motion_frames = min(wanted)
    assert lengths(model.generate_motion(TEXTS)) == [min(wanted)] * 3


def test_a_motion_goes_on_for_as_long_as_is_predicted(model, motions, motiongpt3_processor):
    calls = asked(model, motiongpt3_processor)
    output = model.generate_motion(motion_values=motions[0], motion_mask=motions[1], task="motion-prediction")
    made = [total - given for total, given in zip(lengths(output), (30, 12, 21), strict=True)]
    assert min(made) >= 1
    assert calls[0] == ["Go on with the motion:"] * 3
    assert calls[1] == [f"Go on with the motion for {frames / 20:.1f} seconds:" for frames in made]
    assert len(lengths(model.generate_motion(task="unconditional"))) == 1


# Samples


def test_the_same_seed_makes_the_same_motion_also_after_saving(model, motiongpt3_processor, motiongpt3_folder):
    made = [model.generate_motion(TEXTS, num_frames=20, generator=seeded(seed)).motion_values for seed in (0, 0, 1)]
    assert torch.equal(made[0], made[1]) and (made[0] - made[2]).abs().max() > 1e-2
    for options in ({}, {"processor": motiongpt3_processor}):
        loaded = MotionGPT3ForCausalLM.from_pretrained(motiongpt3_folder)
        again = loaded.generate_motion(TEXTS, num_frames=20, generator=seeded(), **options).motion_values
        torch.testing.assert_close(again, made[0], rtol=1e-5, atol=1e-5)  # sums depend on where weights lie in memory
    torch.manual_seed(0)
    first = model.generate_motion(TEXTS, num_frames=20).motion_values
    torch.manual_seed(0)
    assert torch.equal(model.generate_motion(TEXTS, num_frames=20).motion_values, first)


def test_samples_stand_next_to_each_other_and_are_different(model, motiongpt3_processor):
    calls = asked(model, motiongpt3_processor)
    output = model.generate_motion(TEXTS[:2], num_frames=[10, 20], num_samples=3)
    assert lengths(output) == [10, 10, 10, 20, 20, 20]
    assert [prompt.split(": ")[1] for prompt in calls[0]] == [
        f"{text}\nMotion:" for text in TEXTS[:2] for _ in range(3)
    ]
    latents = output.latents[:, 0]
    assert (torch.cdist(latents, latents) + torch.eye(6)).min() > 1e-2
    free = model.generate_motion(TEXTS[0], num_samples=4)
    assert len(set(lengths(free))) == 1 and len(free.latents) == 4


def test_the_motion_depends_on_the_caption_and_not_on_the_batch(model):
    """Noise is drawn for the whole batch at once, so one row after another needs the same rows."""
    one = model.generate_motion([TEXTS[0], TEXTS[0]], num_frames=20, generator=seeded())
    other = model.generate_motion([TEXTS[0], TEXTS[2]], num_frames=[20, 60], generator=seeded())
    torch.testing.assert_close(other.motion_values[0, :20], one.motion_values[0], rtol=1e-4, atol=1e-4)
    assert (other.latents[1] - one.latents[1]).abs().max() > 1e-2


def test_guidance_of_one_is_the_conditional_model(model, motiongpt3_processor):
    """The head under the same seed, without the null; the configured scale and steps are the defaults."""
    inputs = motiongpt3_processor(text=TEXTS, task="text-to-motion", num_frames=20)
    with torch.no_grad():
        states = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).motion_states
        sampled = model.denoising_head.sample(states, generator=seeded(), num_steps=7)
    made = model.generate_motion(TEXTS, num_frames=20, generator=seeded(), guidance_scale=1, num_denoising_steps=7)
    torch.testing.assert_close(made.latents, model.restore(sampled))
    model.config.denoising_guidance_scale, model.config.num_denoising_steps = 1.0, 7
    assert torch.equal(model.generate_motion(TEXTS, num_frames=20, generator=seeded()).latents, made.latents)
    with torch.no_grad():
        model.denoising_head.null_condition.normal_(std=2)
    assert torch.equal(model.generate_motion(TEXTS, num_frames=20, generator=seeded()).latents, made.latents)
    guided = model.generate_motion(TEXTS, num_frames=20, generator=seeded(), guidance_scale=3.0)
    assert (guided.latents - made.latents).abs().max() > 1e-2
    ways = [{}, {"num_denoising_steps": 4}, {"sampler": "ddim"}]
    made = [model.generate_motion(TEXTS[0], num_frames=20, generator=seeded(), **way).latents for way in ways]
    assert not torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


@pytest.mark.parametrize(
    ("process", "samplers"), [("diffusion", ("ancestral", "ddim")), ("rectified_flow", ("euler",))]
)
def test_both_processes_make_motions(make_motiongpt3, motiongpt3_processor, process, samplers):
    model = make_motiongpt3(denoising_process=process)
    for sampler in samplers:
        made = model.generate_motion(TEXTS, num_frames=8, sampler=sampler, processor=motiongpt3_processor)
        assert made.motion_values.isfinite().all()
    with pytest.raises(ValueError, match=f"sampler is 'heun'; for {process} it must be one of {samplers[0]}"):
        model.generate_motion(TEXTS, num_frames=8, sampler="heun", processor=motiongpt3_processor)


# What is given


def test_given_frames_of_a_prediction_are_kept(model, motions):
    values, mask = motions
    output = model.generate_motion(
        motion_values=values, motion_mask=mask, task="motion-prediction", num_frames=[40, 13, 60], generator=seeded()
    )
    assert lengths(output) == [40, 13, 60]
    for row, (given, total) in enumerate(((30, 40), (12, 13), (21, 60))):
        assert torch.equal(output.motion_values[row, :given], values[row, :given])
        assert (output.motion_values[row, given:total] != 0).all()
        alone = model.motion_vae.decode(output.latents[row : row + 1], total - given).motion_values[0]
        torch.testing.assert_close(output.motion_values[row, given:total], alone)
    options = {"task": "motion-prediction", "num_frames": 40, "generator": seeded()}
    whole = model.generate_motion(motion_values=values[:1], **options)
    assert torch.equal(whole.motion_values[0, :30], values[0])


def test_given_ends_of_a_gap_are_kept(model, motions, motiongpt3_processor):
    """Frames after the last given one belong to no motion, whatever they hold."""
    values, _ = motions
    mask = torch.ones(3, 30, dtype=torch.bool)
    mask[0, 10:25] = mask[1, 4:5] = mask[2, 12:20] = mask[2, 26:] = False
    values[2, 26:], values[0, 10:25] = torch.nan, torch.nan
    calls = asked(model, motiongpt3_processor)
    output = model.generate_motion(
        motion_values=values, motion_mask=mask, task="motion-in-between", generator=seeded()
    )
    assert lengths(output) == [30, 30, 26] and output.motion_values.isfinite().all()
    assert calls == [[f"Fill in {s} seconds of motion between start and end:" for s in ("0.8", "0.1", "0.4")]]
    for row, (first, second, end) in enumerate(((10, 25, 30), (4, 5, 30), (12, 20, 26))):
        for part in (slice(0, first), slice(second, end)):
            assert torch.equal(output.motion_values[row, part], values[row, part])
        assert output.motion_values[row, first:second].ne(0).all()


def test_what_is_given_changes_what_is_made(model, motions):
    """The start and the end each: the latents of both are read, in this order."""
    values = motions[0][:1]
    mask = torch.ones(1, 30, dtype=torch.bool)
    mask[:, 10:20] = False
    changed = [values.clone() for _ in range(3)]
    changed[1][:, 2] += 3
    changed[2][:, 25] += 3
    task = {"motion_mask": mask, "task": "motion-in-between"}
    read = []
    hook = model.register_forward_pre_hook(
        lambda module, inputs, given: read.append(given["latents"]), with_kwargs=True
    )
    model.generate_motion(motion_values=values, **task)
    hook.remove()
    ends = [model.encode_motion(part) for part in (values[:, :10], values[:, 20:])]
    torch.testing.assert_close(read[0], torch.cat(ends, dim=1))
    made = [model.generate_motion(motion_values=v, **task, generator=seeded()).latents for v in changed]
    assert (made[1] - made[0]).abs().max() > 1e-3 and (made[2] - made[0]).abs().max() > 1e-3
    made = [
        model.generate_motion(motion_values=v, task="motion-prediction", num_frames=40, generator=seeded()).latents
        for v in changed[:2]
    ]
    assert (made[1] - made[0]).abs().max() > 1e-3


# What is refused

GAP = torch.ones(3, 30, dtype=torch.bool)
ONE_END, TWO_GAPS, NO_START = GAP.clone(), GAP.clone(), GAP.clone()
ONE_END[:, 20:], NO_START[:, :3] = False, False
TWO_GAPS[:, 5:8] = TWO_GAPS[:, 20:22] = False
VALUES = torch.zeros(3, 30, 263)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": TEXTS, "num_frames": 0}, "motion 0: 0 frames are asked for"),
        ({"text": TEXTS, "num_frames": -5}, "motion 0: -5 frames are asked for"),
        (
            {"text": TEXTS, "num_frames": [8, 100_000, 8]},
            "motion 1: 100000 frames are to be made; this model makes 1 to",
        ),
        ({"text": TEXTS, "num_frames": [8, 8]}, "3 and 2 captions, motions or lengths: give as many of each"),
        ({"text": TEXTS, "num_samples": 0}, "num_samples is 0; make at least 1"),
        (
            {"text": TEXTS, "temperature": 0.5},
            "temperature is 0.5, but no tokens of motion are sampled here: num_deno",
        ),
        ({"text": TEXTS, "max_new_tokens": 5}, "max_new_tokens is 5, but no tokens of motion are sampled"),
        ({"text": TEXTS, "guidance_scale": -1.0}, "guidance_scale is -1.0; it must be finite and not negative"),
        ({"text": TEXTS, "num_denoising_steps": 0}, "num_steps is 0; for diffusion it must be 1 to 1000"),
        ({"text": TEXTS, "task": "text-to-music"}, "unknown task 'text-to-music'; known tasks: motion-to-text"),
        ({"text": TEXTS, "task": "motion-to-text"}, "'motion-to-text' answers with text: use the processor and `gen"),
        ({"text": TEXTS, "task": "text"}, "task 'text' answers with text: use the processor and `generate`"),
        ({"text": TEXTS, "task": "unconditional"}, "'unconditional' has no use for `text`"),
        ({"text": TEXTS, "motion_values": VALUES}, "'text-to-motion' takes no motion; use 'motion-prediction'"),
        ({}, "text-to-motion is about captions: give `text`"),
        ({"text": []}, "text-to-motion is about captions: give `text`"),
        ({"text": ["walks", " "]}, "a caption is empty: say what the motion is to show"),
        ({"text": ""}, "a caption is empty: say what the motion is to show"),
        ({"text": [TEXTS, TEXTS]}, "several captions in one motion are not possible here: make a motion of each"),
        ({"task": "motion-prediction"}, "'motion-prediction' goes on from a motion: give `motion_values`"),
        (
            {"task": "motion-prediction", "motion_values": VALUES, "num_frames": 30},
            "30 frames .*, but 30 are given alr",
        ),
        ({"task": "motion-prediction", "motion_values": VALUES, "num_frames": 149}, "119 frames are to be made; this"),
        (
            {"task": "motion-prediction", "motion_values": VALUES, "motion_mask": GAP & False},
            "row 0: nothing is given",
        ),
        ({"task": "motion-in-between", "motion_values": VALUES}, "give `motion_mask`, False in the gap"),
        ({"task": "motion-in-between", "motion_values": VALUES, "motion_mask": GAP}, "row 0 of motion_mask must have"),
        ({"task": "motion-in-between", "motion_values": VALUES, "motion_mask": ONE_END}, "row 0 of motion_mask must"),
        ({"task": "motion-in-between", "motion_values": VALUES, "motion_mask": NO_START}, "row 0 of motion_mask must"),
        ({"task": "motion-in-between", "motion_values": VALUES, "motion_mask": TWO_GAPS}, "row 0 of motion_mask must"),
        (
            {"task": "motion-in-between", "motion_values": VALUES, "motion_mask": ONE_END, "num_frames": 30},
            "the gap in `motion_mask` says how long the motion is, not `num_frames`",
        ),
    ],
)
def test_what_is_not_possible_is_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        model.generate_motion(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"task": "motion-prediction", "motion_values": VALUES[0], "num_frames": 40},
            r"the shape \(30, 263\); wanted \(batch",
        ),
        (
            {"task": "motion-prediction", "motion_values": VALUES, "motion_mask": GAP[:, :20], "num_frames": 40},
            r"motion_mask has the shape \(3, 20\); wanted that of the motions, \(3, 30\)",
        ),
        ({"text": TEXTS, "num_frames": torch.tensor([8, 9, 10])}, "num_frames is tensor.*; give whole numbers"),
        ({"text": TEXTS, "num_frames": [8, 20.5, 8]}, "num_frames is 20.5; give whole numbers"),
        ({"text": 7}, "text is 7; give a caption or a list of captions"),
    ],
    ids=["no batch", "mask", "tensor of lengths", "half a frame", "no text"],
)
def test_what_is_of_another_form_is_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        model.generate_motion(**options)


def test_a_streamer_is_refused(model, motiongpt3_processor):
    with pytest.raises(ValueError, match="comes in one piece: there is nothing to stream"):
        model.generate_motion(TEXTS, streamer=TextStreamer(motiongpt3_processor.tokenizer))


def test_a_task_that_the_model_was_not_trained_on_is_refused(model):
    model.config.trained_tasks = ["text-to-motion", "motion-to-text"]
    with pytest.raises(ValueError, match="trained on text-to-motion, motion-to-text, not on unconditional"):
        model.generate_motion(task="unconditional")
    assert lengths(model.generate_motion(TEXTS, num_frames=5)) == [5, 5, 5]
    model.config.trained_stage = "text-to-motion"
    assert lengths(model.generate_motion(TEXTS, num_frames=5)) == [5, 5, 5]


def test_a_model_without_a_length_predictor_is_told_the_length(model):
    model.config.has_length_predictor = False
    with pytest.raises(ValueError, match="no length predictor .*: give num_frames"):
        model.generate_motion(TEXTS, num_frames=[8, None, 8])
    assert lengths(model.generate_motion(TEXTS, num_frames=8)) == [8, 8, 8]


def test_a_model_without_a_processor_says_so(tiny_motiongpt3):
    model = copy.deepcopy(tiny_motiongpt3)
    with pytest.raises(ValueError, match="not loaded from a folder with a processor: give `processor=`"):
        model.generate_motion(TEXTS)


def test_options_of_sampling_tokens_that_say_nothing_are_taken(model):
    wanted = model.generate_motion(TEXTS, num_frames=9, generator=seeded()).motion_values
    neutral = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "num_beams": 1}
    for options in (neutral, dict.fromkeys(neutral)):
        made = model.generate_motion(TEXTS, num_frames=9, generator=seeded(), **options)
        assert torch.equal(made.motion_values, wanted)


def test_the_pipeline_makes_the_same_motions(model, motiongpt3_processor):
    """Denormalised, with joints; what the pipeline says of sampling is taken."""
    make = pipeline("text-to-motion", model=model, processor=motiongpt3_processor)
    results = make(TEXTS, num_frames=[12, 20, 30], seed=3)
    assert [result["motion"].shape for result in results] == [(12, 263), (20, 263), (30, 263)]
    assert results[1]["joints"].shape == (20, 22, 3)
    again = make(TEXTS, num_frames=[12, 20, 30], seed=3)
    assert all((one["motion"] == other["motion"]).all() for one, other in zip(results, again, strict=True))
    given = torch.randn(40, 263).numpy()
    result = make(motion=given, task="motion-prediction", keep=(16, 0), num_frames=24)
    torch.testing.assert_close(torch.from_numpy(result["motion"][:16]), torch.from_numpy(given[:16]))
    assert len(result["motion"]) == 24
    (result,) = make(motion=[given], task="motion-in-between", keep=(16, 8))
    torch.testing.assert_close(torch.from_numpy(result["motion"][32:]), torch.from_numpy(given[32:]))
    assert make(task="unconditional", num_frames=9)["num_frames"] == 9


def test_given_motion_must_be_finite_tensors(model):
    values = VALUES.clone()
    values[1, 3, 7] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite"):
        model.generate_motion(task="motion-prediction", motion_values=values, num_frames=60)
    with pytest.raises(ValueError, match="motion_values are a ndarray; give a tensor"):
        model.generate_motion(task="motion-prediction", motion_values=VALUES.numpy(), num_frames=60)


def test_more_frames_than_in_training_are_made_with_a_warning(model, caplog):
    model.config.max_motion_frames = 30
    with caplog.at_level("WARNING", logger="transformers"):
        logging.enable_propagation()
        made = model.generate_motion("walks", num_frames=41, generator=seeded())
        logging.disable_propagation()
    assert lengths(made) == [41]
    assert "41 frames are to be made; motions in training had 30 at most" in caplog.text


def test_given_frames_come_first_and_samples_are_counted(model, motions):
    values, mask = motions[0], motions[1].clone()
    mask[0, 3] = False
    with pytest.raises(ValueError, match="row 0 of motion_mask has a hole"):
        model.generate_motion(motion_values=values, motion_mask=mask, task="motion-prediction", num_frames=60)
    with pytest.raises(ValueError, match="num_samples is 1.5"):
        model.generate_motion("walks", num_samples=1.5)
