"""LoRA: adapters on the language model; the motion codebook, the markers and a learned projection train in full."""

import copy

import pytest
import torch
from peft import PeftModel

from geomotiongpt import (
    GeoMotionGPTForCausalLM,
    GeoMotionLlamaForCausalLM,
    GeoMotionQwen3ForCausalLM,
    orthonormality_loss,
)
from geomotiongpt.training.arguments import LoraArguments
from geomotiongpt.training.language_model import add_lora

TEXTS = ["a person walks forward", "someone jumps", "the figure turns around to the right and sits down"]


@pytest.fixture(scope="module")
def batch(tiny_processor, clips):
    return tiny_processor(motion=clips, text=TEXTS)


def adapt(tiny_model) -> PeftModel:
    torch.manual_seed(0)
    return add_lora(copy.deepcopy(tiny_model), LoraArguments(r=4, lora_alpha=8, lora_dropout=0.0)).eval()


@pytest.fixture(scope="module")
def trained(tiny_model, batch) -> PeftModel:
    """After three steps."""
    adapted = adapt(tiny_model)
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        adapted(**batch).loss.backward()
        optimizer.step()
    return adapted


@torch.no_grad()
def logits(model, batch) -> torch.Tensor:
    return model(**batch).logits


def test_adapters_codebook_and_markers_train_and_nothing_else(tiny_model, batch):
    adapted = adapt(tiny_model)
    assert torch.equal(logits(adapted, batch), logits(tiny_model, batch)), "an untrained adapter changes the model"
    trainable = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    blocks = [f"base_model.model.transformer.h.{layer}" for layer in range(tiny_model.config.n_layer)]
    layers = [f"{block}.{layer}" for block in blocks for layer in ("attn.c_attn", "attn.c_proj", "mlp.c_proj")]
    wanted = {f"{layer}.lora_{side}.default.weight" for layer in layers for side in "AB"}
    for whole in ("motion_codebook", "marker_embedding"):
        wanted.add(f"base_model.model.{whole}.modules_to_save.default.weight")
    assert trainable == wanted


def test_training_changes_what_trains_and_nothing_else(tiny_model, trained):
    before = dict(adapt(tiny_model).named_parameters())
    for name, parameter in trained.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name


def test_orthonormality_is_that_of_the_codebook_that_trains(trained, batch):
    """Not of the original that PEFT keeps beside it."""
    wrapper = trained.base_model.model.motion_codebook
    training, original = wrapper.modules_to_save["default"].weight, wrapper.original_module.weight
    loss = trained(**batch).orthonormality_loss
    torch.testing.assert_close(loss, orthonormality_loss(training))
    assert loss > orthonormality_loss(original) + 1e-3
    (gradient,) = torch.autograd.grad(loss, training)
    assert gradient.abs().sum() > 0


def test_adapter_reloads_on_a_fresh_base(tiny_model_folder, trained, batch, tmp_path):
    trained.save_pretrained(tmp_path)
    base = GeoMotionGPTForCausalLM.from_pretrained(tiny_model_folder)
    reloaded = PeftModel.from_pretrained(base, tmp_path).eval()
    assert torch.equal(logits(reloaded, batch), logits(trained, batch))


def test_disabled_adapter_leaves_the_base(tiny_model, trained, batch):
    changed = logits(trained, batch)
    with trained.disable_adapter():
        assert torch.equal(logits(trained, batch), logits(tiny_model, batch))
    assert torch.equal(logits(trained, batch), changed)
    assert not torch.allclose(changed, logits(tiny_model, batch), atol=1e-2)


def test_merged_model_is_the_adapted_one_and_survives_a_save(
    tiny_model, tiny_processor, trained, batch, clips, tmp_path
):
    merged = copy.deepcopy(trained).merge_and_unload()
    assert type(merged) is GeoMotionGPTForCausalLM
    assert merged.state_dict().keys() == tiny_model.state_dict().keys()
    torch.testing.assert_close(logits(merged, batch), logits(trained, batch), rtol=1e-4, atol=1e-4)
    merged.save_pretrained(tmp_path)
    loaded = GeoMotionGPTForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded, batch), logits(merged, batch))
    prompts = tiny_processor(motion=clips)
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    assert torch.equal(loaded.generate(**prompts, **options), trained.generate(**prompts, **options))


# Every projection and constraint, on every base


ATTENTION = {"gpt2": ["c_attn", "c_proj"], "llama": ["q_proj", "o_proj"], "qwen3": ["q_proj", "k_proj", "v_proj"]}
CASES = [
    ("gpt2", "sparse", "whitening"),
    ("gpt2", "linear", "orthonormal"),
    ("gpt2", "orthogonal", "spectral"),
    ("gpt2", "none", "decorrelation"),
    ("gpt2", "dense_random", "cluster"),
    ("llama", "sparse", "pairwise_cosine"),
    ("llama", "orthogonal", "cluster"),
    ("qwen3", "sparse", "orthonormal"),
    ("qwen3", "linear", "none"),
]


@pytest.fixture(params=CASES, ids="-".join)
def case(request, make_base_model, tiny_language_model, tiny_tokenizer_model):
    """A model of a kind of base with a projection and a constraint, and the layers to adapt."""
    kind, projection, constraint = request.param
    base = tiny_language_model if kind == "gpt2" else make_base_model(kind)
    classes = {"gpt2": GeoMotionGPTForCausalLM, "llama": GeoMotionLlamaForCausalLM, "qwen3": GeoMotionQwen3ForCausalLM}
    model = classes[kind].from_components(
        base, tiny_tokenizer_model, projection=projection, geometric_constraint=constraint
    )
    return model.eval(), ATTENTION[kind]


def test_every_projection_trains_reloads_is_disabled_and_merges_under_lora(case, batch, tmp_path):
    model, layers = case
    whole = {"motion_codebook", "marker_embedding"}
    if model.config.projection in ("linear", "orthogonal"):
        whole.add("motion_projection")
    torch.manual_seed(0)
    adapted = add_lora(copy.deepcopy(model), LoraArguments(r=4, lora_dropout=0.0, target_modules=layers)).eval()
    assert torch.equal(logits(adapted, batch), logits(model, batch)), "an untrained adapter changes the model"
    before = {name: parameter.clone() for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    saved = {name.split(".modules_to_save")[0].rpartition(".")[2] for name in before if "modules_to_save" in name}
    assert saved == whole
    adapters = {name.split(".lora_")[0].rpartition(".")[2] for name in before if ".lora_" in name}
    assert adapters == set(layers)
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        adapted(**batch).loss.backward()
        optimizer.step()
    changed = {
        name for name, parameter in adapted.named_parameters() if name in before and (parameter != before[name]).any()
    }
    assert changed == before.keys()
    trained = logits(adapted, batch)

    adapted.save_pretrained(tmp_path)
    reloaded = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path).eval()
    assert torch.equal(logits(reloaded, batch), trained)
    with adapted.disable_adapter():
        assert torch.equal(logits(adapted, batch), logits(model, batch))
    with pytest.raises(ValueError, match="merge them"):
        adapted.base_model.model.swap_projection("none")
    merged = adapted.merge_and_unload()
    assert type(merged) is type(model) and merged.state_dict().keys() == model.state_dict().keys()
    torch.testing.assert_close(logits(merged, batch), trained, rtol=1e-4, atol=1e-4)
    merged.swap_projection("none")
    torch.testing.assert_close(logits(merged, batch), trained, rtol=1e-4, atol=1e-4)
