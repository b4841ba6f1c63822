"""Tiny random components that the tests share. Session-wide: who changes one works on a `copy.deepcopy`."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from geomotiongpt import (
    GeoMotionGPTForCausalLM,
    GeoMotionGPTProcessor,
    MotionFeatureExtractor,
    MotionTokenizer,
    MotionTokenizerConfig,
)
from geomotiongpt.training.text_tokenizer import train_text_tokenizer

# Tiny layers gain nothing from threads, and the tests share the machine with what else runs on it.
torch.set_num_threads(min(2, torch.get_num_threads()))

# What a shell starts in the background ignores SIGINT, and behind `nohup` SIGHUP, and so would the commands that tests
# stop by them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

CAPTIONS = (
    ["a person walks forward", "a person walks straight ahead"],
    ["someone jumps up and down", "a person jumps in place"],
    ["a person waves with the left hand"],
    ["the figure turns around to the right and sits down", "a man sits down slowly"],
)


@pytest.fixture(scope="session")
def tiny_tokenizer_model() -> MotionTokenizer:
    """A random `MotionTokenizer`, K = D = 32; without biases, so that its codes depend on the motion."""
    torch.manual_seed(0)
    model = MotionTokenizer(MotionTokenizerConfig(num_codes=32, code_dim=32, hidden_size=32))
    with torch.no_grad():
        for name, parameter in model.encoder.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    return model.eval()


@pytest.fixture(scope="session")
def trained_text_tokenizer(tmp_path_factory) -> Path:
    """Folder of a byte-level BPE trained on `CAPTIONS`; processors extend a tokenizer, so each loads its own."""
    folder = tmp_path_factory.mktemp("text_tokenizer")
    train_text_tokenizer(CAPTIONS, 320).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_language_model(trained_text_tokenizer) -> GPT2LMHeadModel:
    """A random GPT-2 of two layers; its weights are large enough for its output to depend on its input."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(trained_text_tokenizer)
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=128,
        n_embd=48,
        n_layer=2,
        n_head=4,
        initializer_range=0.3,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="session")
def make_base_model(trained_text_tokenizer) -> Callable[..., PreTrainedModel]:
    """Makes a random "llama" or "qwen3" of two layers, with two key-value heads for four query heads."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(trained_text_tokenizer)

    def make(kind: str, **options) -> PreTrainedModel:
        values = {
            "vocab_size": len(tokenizer),
            "hidden_size": 48,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 128,
            "rope_parameters": {"rope_type": "default", "rope_theta": 300.0},
            "initializer_range": 0.3,
            "tie_word_embeddings": True,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            **options,
        }
        torch.manual_seed(3)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **values)).eval()

    return make


@pytest.fixture(scope="session")
def tiny_model(tiny_language_model, tiny_tokenizer_model) -> GeoMotionGPTForCausalLM:
    """The two joined, in evaluation mode."""
    return GeoMotionGPTForCausalLM.from_components(tiny_language_model, tiny_tokenizer_model).eval()


@pytest.fixture(scope="session")
def tiny_feature_extractor() -> MotionFeatureExtractor:
    """For HumanML3D features, with statistics that are not the identity."""
    generator = np.random.default_rng(0)
    return MotionFeatureExtractor("humanml3d", generator.normal(size=263), generator.uniform(0.5, 2, size=263))


@pytest.fixture(scope="session")
def tiny_processor(tiny_feature_extractor, trained_text_tokenizer, tiny_model) -> GeoMotionGPTProcessor:
    """Of `tiny_model`."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(trained_text_tokenizer)
    return GeoMotionGPTProcessor.from_components(tiny_feature_extractor, tokenizer, tiny_model.config)


@pytest.fixture(scope="session")
def tiny_model_folder(tiny_model, tiny_processor, tmp_path_factory) -> Path:
    """`tiny_model` and `tiny_processor` as saved."""
    folder = tmp_path_factory.mktemp("tiny_model")
    tiny_model.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clips() -> list[np.ndarray]:
    """Three random feature clips of 40, 16 and 67 frames (5, 2 and 8 codes)."""
    generator = np.random.default_rng(1)
    return [generator.normal(size=(frames, 263)).astype(np.float32) for frames in (40, 16, 67)]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real motions that `GEOMOTIONGPT_REAL_DATA` names."""
    folder = os.environ.get("GEOMOTIONGPT_REAL_DATA")
    if not folder:
        pytest.skip("GEOMOTIONGPT_REAL_DATA is not set: no folder of real motions")
    if not Path(folder).is_dir():
        pytest.fail(f"GEOMOTIONGPT_REAL_DATA is {folder}: no such folder")
    return Path(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Headless Chromium, as Playwright drives it."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: no browser")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if path is None:
        pytest.skip("no Chromium on the path: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []  # root has no sandbox
        browser = playwright.chromium.launch(executable_path=path, args=flags, timeout=120_000)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def check_second_turn():
    """For a model, the ids of a turn, the latents of three motions and how many there are of one."""

    def check(model, ids, latents, per_motion):
        turn = partial(model.generate, do_sample=False, eos_token_id=None, max_new_tokens=4)
        cache = DynamicCache(config=model.config.text_config)
        said = turn(input_ids=ids, latents=latents[:, :per_motion], past_key_values=cache)
        ask = partial(turn, input_ids=torch.cat([said, ids, ids], 1), return_dict_in_generate=True, output_logits=True)
        whole, other = ask(latents=latents).logits[0], ask(latents=latents.roll(per_motion, 1)).logits[0]
        answered = ask(latents=latents, past_key_values=cache).logits[0]
        words = slice(model.config.text_vocab_size)
        torch.testing.assert_close(answered[:, words], whole[:, words], rtol=1e-4, atol=1e-4)
        assert (whole - other)[:, words].abs().max() > 1e-2, "which motion is which matters"
        with pytest.raises(ValueError, match="prefill_chunk_size: a prompt is read whole here"):
            ask(latents=latents, prefill_chunk_size=7)

    return check
