"""LoRA on the motion branch of a LLaMo: what trains, what stays bit for bit, and that merging gives the same model."""

import copy

import pytest
import torch
from peft import PeftModel

from geomotiongpt import LLaMoForCausalLM
from geomotiongpt.data.latent_sequences import LatentSequenceCollator
from geomotiongpt.models.task_prompts import MotionTaskExample
from geomotiongpt.training.arguments import LoraArguments
from geomotiongpt.training.llamo import add_motion_lora

LAYERS = {
    "gpt2": ["c_attn", "c_fc", "c_proj"],
    "llama": ["q_proj", "v_proj", "down_proj"],
    "qwen3": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}
WHOLE = ("marker_embedding", "motion_input", "denoising_head", "exit_head")
TABLE = torch.randn(8, 8, generator=torch.Generator().manual_seed(4))
EXAMPLES = [
    MotionTaskExample("motion-to-text", "a person walks forward", range(5)),
    MotionTaskExample("text-to-motion", "someone jumps", range(5, 8), num_codes=3),
]


@pytest.fixture(scope="module")
def batch(llamo_processor):
    items = [{"example": example, "name": f"row {row}"} for row, example in enumerate(EXAMPLES)]
    return LatentSequenceCollator(llamo_processor, TABLE)(items)


def adapt(model, kind, **options) -> PeftModel:
    torch.manual_seed(0)
    return add_motion_lora(
        copy.deepcopy(model), LoraArguments(**{"r": 4, "lora_dropout": 0.0, "target_modules": LAYERS[kind], **options})
    ).eval()


@torch.no_grad()
def states(model, batch) -> torch.Tensor:
    return model(**batch).hidden_states_of_motion


@pytest.mark.parametrize("kind", LAYERS)
def test_adapters_train_beside_what_is_new_and_text_stays_bit_for_bit(make_llamo, batch, kind, tmp_path):
    """Targets of the same names in the text branch have no adapters; merged, the model is that of the adapters."""
    model = make_llamo(kind)
    text = torch.randint(model.config.text_vocab_size, (1, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = model(text).logits[..., : model.config.text_vocab_size]
    adapted = adapt(model, kind)
    assert torch.equal(states(adapted, batch), states(model, batch)), "an untrained adapter changes the model"
    before = {name: weight.clone() for name, weight in adapted.named_parameters()}
    trainable = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    adapters = {name for name in trainable if ".lora_" in name}
    layers = {name.split(".lora_")[0] for name in adapters}
    assert all("motion_branch." in name for name in layers)
    assert {name.rpartition(".")[2] for name in layers} == set(LAYERS[kind])
    assert len(layers) == model.config.num_hidden_layers * len(LAYERS[kind]) + (2 if kind == "gpt2" else 0)
    rest = {name.removeprefix("base_model.model.").split(".modules_to_save")[0] for name in trainable - adapters}
    assert rest == set(WHOLE)
    optimizer = torch.optim.AdamW([weight for weight in adapted.parameters() if weight.requires_grad], lr=1e-2)
    adapted.train()
    for _ in range(2):
        optimizer.zero_grad()
        adapted(**batch).loss.backward()
        optimizer.step()
    moved = {name for name, weight in adapted.eval().named_parameters() if not torch.equal(weight, before[name])}
    # Nothing is dropped from the condition of the flow head
    assert moved <= trainable and all("null_condition" in name for name in trainable - moved)
    with torch.no_grad():
        assert torch.equal(adapted(text).logits[..., : model.config.text_vocab_size], wanted)
    trained = states(adapted, batch)
    assert (trained - states(model, batch)).abs().max() > 1e-3
    adapted.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path / "adapter").eval()
    assert torch.equal(states(again, batch), trained)
    merged = adapted.merge_and_unload()
    assert type(merged) is LLaMoForCausalLM and merged.state_dict().keys() == model.state_dict().keys()
    torch.testing.assert_close(states(merged, batch), trained, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        assert torch.equal(merged(text).logits[..., : model.config.text_vocab_size], wanted)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            "llama",
            {"target_modules": ["c_attn", "q_proj"]},
            "has c_attn; the linear layers of the motion branch are down",
        ),
        (
            "gpt2",
            {"target_modules": ["q_proj"]},
            "has q_proj; the linear layers of the motion branch are c_attn, c_fc",
        ),
        ("gpt2", {"target_modules": ["wte"]}, "lora.target_modules has wte"),
        ("gpt2", {"target_modules": []}, "lora.target_modules has nothing"),
    ],
)
def test_layers_that_a_motion_branch_does_not_have_are_named(make_llamo, kind, options, message):
    with pytest.raises(ValueError, match=message):
        adapt(make_llamo(kind), kind, **options)


def test_a_single_stream_has_nothing_to_adapt(make_llamo):
    with pytest.raises(ValueError, match="adapts the motion branch, which a single stream does not have"):
        adapt(make_llamo(streams="single"), "gpt2")
