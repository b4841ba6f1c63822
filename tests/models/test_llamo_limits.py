"""LLaMo at its limits: guidance that nothing taught, long and empty text, bases that cannot get a motion branch."""

import copy
import logging

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from geomotiongpt import LLaMoForCausalLM, MotionFeatureExtractor

TEXT = "a person walks forward"
# Recurrent, encoder-decoder, parallel attention and feed-forward, latent attention, normed after the layer
REFUSED = ("mamba", "t5", "gpt_neox", "phi", "deepseek_v3", "gemma3_text", "bert")


@pytest.fixture
def model(tiny_llamo, llamo_processor) -> LLaMoForCausalLM:
    model = copy.deepcopy(tiny_llamo)
    model._processor = llamo_processor
    return model


@pytest.fixture
def warnings():
    """What generation says."""
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger = logging.getLogger("geomotiongpt.models.autoregressive_motion_generation")
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def test_guidance_away_from_what_was_not_trained_is_named_once(model, warnings):
    """In a motion and in a stream; not without guidance, nor where it was trained or nobody knows."""
    options = {"num_frames": 4, "num_denoising_steps": 1}
    for trained, scale in ((["text-to-motion"], 1.0), (["text-to-motion", "unconditional"], 2.0), (None, 2.0)):
        model.config.trained_tasks, model.config.denoising_guidance_scale = trained, scale
        model.generate_motion(TEXT, **options)
    assert not warnings
    model.config.trained_tasks = ["text-to-motion"]
    model.generate_motion([TEXT, TEXT], **options)
    (said,) = warnings
    assert said.startswith("guidance_scale is 2.0, but the model was trained on text-to-motion and not on 'uncond")
    assert "give guidance_scale=1, or train with that task" in said
    list(model.stream_motion(TEXT, **options, guidance_scale=3.0))
    assert len(warnings) == 2 and warnings[1].startswith("guidance_scale is 3.0")


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_ten_thousand_words_are_refused_by_name(make_llamo, llamo_processor, clips, kind):
    model, long = make_llamo(kind), "walks " * 10_000
    model._processor = llamo_processor
    for call in (
        lambda: model.generate_motion(long, num_frames=8),
        lambda: llamo_processor(text=long, task="text-to-motion"),
        lambda: llamo_processor(motion=clips[:1], text=long),
    ):
        with pytest.raises(
            ValueError, match=r"motion 0 takes \d{5} tokens with its text, the language model 128: cut"
        ):
            call()


def test_more_text_than_a_base_has_positions_for_is_refused(model, make_llamo):
    """Where positions are embedded; also piece by piece. RoPE has no end: there the base's answer is the answer."""
    ids = torch.zeros(1, 10_000, dtype=torch.long)
    with pytest.raises(ValueError, match="10000 tokens are more than the 128 positions of the language model: short"):
        model(ids)
    with torch.no_grad():
        cache = model(ids[:, :128], use_cache=True).past_key_values
        with pytest.raises(ValueError, match="129 tokens are more than the 128 positions"):
            model(ids[:, :1], past_key_values=cache)
        assert make_llamo("llama")(ids[:, :130]).logits.shape[1] == 130


def test_empty_text_is_refused(model, llamo_processor, clips):
    for options in ({"text": "", "task": "text-to-motion"}, {"text": ["walks", " \n"], "task": "text-to-motion"}):
        with pytest.raises(ValueError, match=r"text \d is empty: give a caption, or use the task 'unconditional'"):
            llamo_processor(**options)
    with pytest.raises(ValueError, match="text 1 is empty"):
        llamo_processor(motion=clips[:2], text=["walks", ""])
    for text in ("", [" "], [["walks", ""]]):
        with pytest.raises(ValueError, match="a caption is .*: say what the motion is to show"):
            model.generate_motion(text, num_frames=8)


@pytest.mark.parametrize("kind", REFUSED)
def test_bases_of_other_architectures_are_refused_before_their_weights_are_read(make_motion_codec, kind, tmp_path):
    """A folder without weights shows that none were read."""
    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    wanted = rf"the language model is a '{kind}'.*: a motion branch can be added to the layers of gpt2, llama, mistral"
    with pytest.raises(ValueError, match=wanted):
        LLaMoForCausalLM.from_language_model(tmp_path, make_motion_codec())


def test_a_base_keeps_its_attention_its_ends_and_its_way_of_sampling(make_text_base, make_llamo, tmp_path):
    base = copy.deepcopy(make_text_base("llama")).to(torch.bfloat16)
    base.set_attn_implementation("eager")
    base.generation_config.update(eos_token_id=[0, 5, 7], do_sample=True, temperature=0.6)
    model = make_llamo(base=base)
    model.save_pretrained(tmp_path)
    for made in (model, LLaMoForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")):
        assert made.language_model.config._attn_implementation == "eager"
        settings = made.generation_config
        assert (settings.eos_token_id, settings.do_sample, settings.temperature) == ([0, 5, 7], True, 0.6)
        assert settings.pad_token_id == made.config.padding_token_id
    other = LLaMoForCausalLM.from_pretrained(tmp_path, attn_implementation="sdpa")
    assert other.language_model.config._attn_implementation == "sdpa"
    other.set_attn_implementation("eager")
    assert other.language_model.config._attn_implementation == "eager"
    assert {weight.dtype for weight in type(model)(model.config).parameters()} == {torch.float32}


def test_a_base_writes_what_it_wrote_alone(make_text_base, make_llamo):
    for kind in ("gpt2", "llama", "qwen3"):
        base = make_text_base(kind)
        model = make_llamo(kind, denoising_guidance_scale=4.0)
        ids = torch.randint(0, 40, (2, 7), generator=torch.Generator().manual_seed(0))
        options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
        wanted = base.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **options)
        assert torch.equal(model.generate(ids, attention_mask=torch.ones_like(ids), **options), wanted)


def test_a_processor_of_other_motions_is_refused(model, llamo_processor):
    other = copy.deepcopy(llamo_processor)
    other.feature_extractor = MotionFeatureExtractor("kitml", downsampling_factor=8)
    for call in (model.generate_motion, model.stream_motion):
        with pytest.raises(ValueError, match="251 features and latents of 8 frames; the motion codec takes"):
            call(TEXT, num_frames=8, processor=other)


def test_numbers_of_frames_and_steps(model):
    """Arrays and tensors are lists; a truth value or half a step is no number of anything."""
    for lengths in (np.array([8, 9]), torch.tensor([8, 9])):
        made = model.generate_motion([TEXT, TEXT], num_frames=lengths, num_denoising_steps=1)
        assert made.motion_mask.sum(-1).tolist() == [8, 9]
    with pytest.raises(ValueError, match="motion 0: True frames are asked for"):
        model.generate_motion(TEXT, num_frames=True)
    for steps in (2.5, 0):
        with pytest.raises(ValueError, match=f"num_denoising_steps is {steps}; it must be a whole number, 1 or more"):
            model.generate_motion(TEXT, num_frames=8, num_denoising_steps=steps)
