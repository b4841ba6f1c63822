"""What the library asks of a model of every family: quantisation, half precision, tuples, processes, pipelines."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoProcessor, pipeline
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

FAMILIES = ["tiny_model_folder", "motiongpt3_folder", "llamo_folder"]
GREEDY = {"max_new_tokens": 5, "do_sample": False}


@pytest.fixture(params=FAMILIES)
def folder(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def clip() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(40, 263)).astype(np.float32)


def test_in_8_or_4_bits_the_base_alone_is_quantised(folder):
    """By the rule of the library's quantisers, which replace layers."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    kept = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    layers = {name for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))}
    quantised = {name for name in layers if should_convert_module(name, kept)}
    inner = {name for name in layers if name.startswith(f"{model.base_model_prefix}.") and "lm_head" not in name}
    assert quantised == inner and inner


def test_in_float16_it_captions_and_makes_motions(folder, clip):
    describe = pipeline("motion-to-text", model=str(folder), dtype=torch.float16)
    assert describe.model.dtype == torch.float16
    assert isinstance(describe(clip, **GREEDY)["generated_text"], str)
    make = pipeline("text-to-motion", model=str(folder), dtype=torch.float16)
    made = make("a person walks.", num_frames=40, seed=0)
    assert made["motion"].shape == (40, 263) and np.isfinite(made["motion"]).all()


def test_without_return_dict_the_output_is_a_tuple(folder, clip):
    model = AutoModelForCausalLM.from_pretrained(folder)
    inputs = AutoProcessor.from_pretrained(folder)(motion=[clip])
    with torch.no_grad():
        output = model(**inputs)
        asked = model(**inputs, return_dict=False)
        expected = model.generate(**inputs, **GREEDY)
        model.config.return_dict = False
        by_configuration = model(**inputs)
    for told in (asked, by_configuration):
        assert type(told) is tuple and torch.equal(told[0], output.logits)
    assert torch.equal(model.generate(**inputs, **GREEDY), expected)


def test_a_model_can_be_sent_to_another_process(folder, clip):
    model = AutoModelForCausalLM.from_pretrained(folder)
    sent = pickle.loads(pickle.dumps(model))
    assert [type(module) for module in sent.modules()] == [type(module) for module in model.modules()]
    inputs = AutoProcessor.from_pretrained(folder)(motion=[clip])
    with torch.no_grad():
        torch.testing.assert_close(sent(**inputs).logits, model(**inputs).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", ["motion-to-text", "text-to-motion"])
def test_a_saved_pipeline_loads(task, folder, clip, tmp_path):
    given, options = (clip, GREEDY) if task == "motion-to-text" else ("a person walks.", {"num_frames": 40, "seed": 0})
    first = pipeline(task, model=str(folder))
    first.save_pretrained(tmp_path)
    results = [pipe(given, **options) for pipe in (first, pipeline(task, model=str(tmp_path)))]
    np.testing.assert_equal(results[1], results[0])
