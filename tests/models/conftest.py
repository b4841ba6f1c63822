"""Tiny random models with motion as a second modality, whose outputs depend on all of their inputs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import processors
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerFast

from geomotiongpt import (
    CausalMotionCodec,
    CausalMotionCodecConfig,
    LLaMoForCausalLM,
    LLaMoProcessor,
    MotionFeatureExtractor,
    MotionGPT3ForCausalLM,
    MotionGPT3Processor,
    MotionVAE,
    MotionVAEConfig,
)

SPARE_ROWS = 3  # of the text embedding, beyond the tokenizer
SMOLLM3 = {"pad_token_id": None, "num_hidden_layers": 3, "no_rope_layers": [1, 0, 1]}


@pytest.fixture(scope="session")
def make_motion_vae() -> Callable[..., MotionVAE]:
    """Makes a motion VAE of 118 frames and latents of 16 numbers, in evaluation mode."""

    def make(**options) -> MotionVAE:
        sizes = {"latent_dim": 16, "num_layers": 3, "num_heads": 2, "intermediate_size": 24, "max_positions": 120}
        torch.manual_seed(0)
        model = MotionVAE(MotionVAEConfig(**sizes | options)).eval()
        with torch.no_grad():
            for weight in model.parameters():  # no bias and no scale is what it would be if left out
                if weight.dim() == 1:
                    weight.add_(0.1 * torch.randn(weight.shape))
        return model

    return make


@pytest.fixture(scope="session")
def make_text_base(make_base_model, trained_text_tokenizer) -> Callable[..., PreTrainedModel]:
    """Makes a base language model of two or three layers: "gpt2", "llama", "qwen2", "qwen3", "smollm3", "mistral"."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(trained_text_tokenizer)
    rows = len(tokenizer) + SPARE_ROWS

    def make(kind: str, **options) -> PreTrainedModel:
        if kind != "gpt2":
            return make_base_model(kind, **{"vocab_size": rows, **(SMOLLM3 if kind == "smollm3" else {}), **options})
        end = tokenizer.eos_token_id
        sizes = {"vocab_size": rows, "n_positions": 128, "n_embd": 48, "n_layer": 2, "n_head": 4}
        torch.manual_seed(3)
        config = GPT2Config(**sizes | options, initializer_range=0.3, bos_token_id=end, eos_token_id=end)
        return GPT2LMHeadModel(config).eval()

    return make


@pytest.fixture(scope="session")
def make_motiongpt3(make_text_base, make_motion_vae) -> Callable[..., MotionGPT3ForCausalLM]:
    """Joins a base and a motion VAE, in evaluation mode. What starts at zero or near it is filled."""

    def make(kind: str = "gpt2", base: PreTrainedModel | None = None, **options) -> MotionGPT3ForCausalLM:
        sizes = {"denoising_hidden_size": 24, "denoising_num_layers": 2, "num_denoising_steps": 5}
        base = make_text_base(kind) if base is None else base
        torch.manual_seed(5)
        model = MotionGPT3ForCausalLM.from_components(base, make_motion_vae(), **sizes | options).eval()
        with torch.no_grad():
            for weight in model.denoising_head.parameters():
                weight.normal_(std=0.1)
            model.marker_embedding.weight.normal_(std=0.3)
            model.motion_input.weight.mul_(3)
            model.length_head.bias.fill_(3.4)
            model.latent_shift.normal_(std=0.3)
            model.latent_scale.uniform_(0.5, 1.5)
        return model

    return make


@pytest.fixture(scope="session")
def tiny_motiongpt3(make_motiongpt3) -> MotionGPT3ForCausalLM:
    """On a GPT-2 of two layers. Shared: who changes it works on a `copy.deepcopy`."""
    return make_motiongpt3()


@pytest.fixture(scope="session")
def make_motiongpt3_processor(tiny_feature_extractor, trained_text_tokenizer) -> Callable[..., MotionGPT3Processor]:
    """Makes the processor of a model."""

    def make(model: MotionGPT3ForCausalLM, extractor: MotionFeatureExtractor | None = None) -> MotionGPT3Processor:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(trained_text_tokenizer)
        return MotionGPT3Processor.from_components(extractor or tiny_feature_extractor, tokenizer, model.config)

    return make


@pytest.fixture(scope="session")
def motiongpt3_processor(make_motiongpt3_processor, tiny_motiongpt3) -> MotionGPT3Processor:
    """Of `tiny_motiongpt3`."""
    return make_motiongpt3_processor(tiny_motiongpt3)


@pytest.fixture(scope="session")
def motiongpt3_folder(tiny_motiongpt3, motiongpt3_processor, tmp_path_factory) -> Path:
    """Both, as saved."""
    folder = tmp_path_factory.mktemp("motiongpt3")
    tiny_motiongpt3.save_pretrained(folder)
    motiongpt3_processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_motion_codec() -> Callable[..., CausalMotionCodec]:
    """Makes a causal motion codec with latents of 8 numbers for 4 frames, in evaluation mode."""

    def make(**options) -> CausalMotionCodec:
        torch.manual_seed(0)
        return CausalMotionCodec(
            CausalMotionCodecConfig(**{"num_features": 263, "hidden_size": 16, "latent_dim": 8} | options)
        ).eval()

    return make


@pytest.fixture(scope="session")
def make_llamo(make_text_base, make_motion_codec) -> Callable[..., LLaMoForCausalLM]:
    """Joins a base and a motion codec, in evaluation mode; trained on motions of 12 latents, as it seems.

    What starts at zero is filled, and the motion branch is no copy of the text's.
    """

    def make(
        kind: str = "gpt2",
        base: PreTrainedModel | None = None,
        codec: CausalMotionCodec | None = None,
        **options,
    ) -> LLaMoForCausalLM:
        sizes = {
            "denoising_hidden_size": 24,
            "denoising_num_layers": 2,
            "num_denoising_steps": 3,
            "max_motion_latents": 12,
        }
        base = make_text_base(kind) if base is None else base
        codec = make_motion_codec() if codec is None else codec
        torch.manual_seed(5)
        model = LLaMoForCausalLM.from_language_model(base, codec, **sizes | options).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "motion_branch" in name:
                    weight.add_(0.1 * torch.randn(weight.shape))
            for weight in model.denoising_head.parameters():
                weight.normal_(std=0.15)
            model.marker_embedding.weight.normal_(std=0.3)
            model.latent_shift.normal_(std=0.3)
            model.latent_scale.uniform_(0.5, 1.5)
        return model

    return make


@pytest.fixture(scope="session")
def tiny_llamo(make_llamo) -> LLaMoForCausalLM:
    """On a GPT-2 of two layers. Shared: who changes it works on a `copy.deepcopy`."""
    return make_llamo()


@pytest.fixture
def text_tokenizer(trained_text_tokenizer) -> PreTrainedTokenizerFast:
    """Of a base, not yet extended."""
    return PreTrainedTokenizerFast.from_pretrained(trained_text_tokenizer)


@pytest.fixture
def enclosing_tokenizer(text_tokenizer) -> PreTrainedTokenizerFast:
    """Puts `<s>` before a text and `</s>` after it, and has a `<pad>` of its own."""
    text_tokenizer.add_tokens(["<s>", "</s>", "<pad>"], special_tokens=True)
    ids = text_tokenizer.convert_tokens_to_ids(["<s>", "</s>"])
    text_tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", ids[0]), ("</s>", ids[1])]
    )
    plain = text_tokenizer("a man", add_special_tokens=False)["input_ids"]
    assert text_tokenizer("a man")["input_ids"] == [ids[0], *plain, ids[1]]
    return text_tokenizer


@pytest.fixture(scope="session")
def llamo_feature_extractor(tiny_feature_extractor) -> MotionFeatureExtractor:
    """`tiny_feature_extractor`, for latents of 4 frames."""
    return MotionFeatureExtractor(
        mean=tiny_feature_extractor.mean, std=tiny_feature_extractor.std, downsampling_factor=4
    )


@pytest.fixture(scope="session")
def llamo_processor(llamo_feature_extractor, trained_text_tokenizer, tiny_llamo) -> LLaMoProcessor:
    """Of all that `make_llamo` makes."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(trained_text_tokenizer)
    return LLaMoProcessor.from_components(llamo_feature_extractor, tokenizer, tiny_llamo.config)


@pytest.fixture(scope="session")
def llamo_folder(tiny_llamo, llamo_processor, tmp_path_factory) -> Path:
    """`tiny_llamo` and its processor, as saved."""
    folder = tmp_path_factory.mktemp("llamo")
    tiny_llamo.save_pretrained(folder)
    llamo_processor.save_pretrained(folder)
    return folder
