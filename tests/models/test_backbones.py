"""The motion vocabulary on a Llama and a Qwen3: with grouped-query attention and rotary positions, as on the GPT-2."""

import copy
import json
from functools import partial

import pytest
import torch
import yaml
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoProcessor,
    PreTrainedTokenizerFast,
)

from geomotiongpt import (
    GeoMotionGPTForCausalLM,
    GeoMotionGPTProcessor,
    GeoMotionLlamaForCausalLM,
    GeoMotionQwen3ForCausalLM,
    MotionTokenizer,
)
from geomotiongpt.checkpoints import load_captioner
from geomotiongpt.resources import resource
from geomotiongpt.training.language_model import ModelArguments, build_language_model

TEXTS = ["a person walks forward", "someone jumps", "the figure turns around to the right and sits down"]
CLASSES = {"llama": GeoMotionLlamaForCausalLM, "qwen3": GeoMotionQwen3ForCausalLM}
SPARE_ROWS = 5  # of the text embedding, beyond the tokenizer, as Qwen3 has 267


@pytest.fixture(scope="module")
def text_tokenizer(trained_text_tokenizer):
    """As Llama's and Qwen3's: beginning, end and padding are tokens of their own, added after the vocabulary."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(trained_text_tokenizer)
    tokenizer.add_special_tokens({"bos_token": "<|begin|>", "eos_token": "<|end|>", "pad_token": "<|filler|>"})
    return tokenizer


@pytest.fixture(scope="module")
def base_model(make_base_model, text_tokenizer):
    """Makes a base for the text tokenizer."""
    special = {"bos_token_id": text_tokenizer.bos_token_id, "eos_token_id": text_tokenizer.eos_token_id}
    special["pad_token_id"] = text_tokenizer.pad_token_id
    return partial(make_base_model, vocab_size=len(text_tokenizer) + SPARE_ROWS, **special)


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def base(kind, base_model):
    return base_model(kind)


@pytest.fixture(scope="module")
def joined(kind, base, tiny_tokenizer_model):
    """The two joined, with a codebook that has left orthonormality."""
    model = CLASSES[kind].from_components(base, tiny_tokenizer_model).eval()
    with torch.no_grad():
        weight = model.motion_codebook.weight
        weight += 2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    return model


@pytest.fixture
def model(joined):
    return copy.deepcopy(joined)


@pytest.fixture(scope="module")
def processor(joined, tiny_feature_extractor, text_tokenizer):
    tokenizer = copy.deepcopy(text_tokenizer)
    return GeoMotionGPTProcessor.from_components(tiny_feature_extractor, tokenizer, joined.config)


@pytest.fixture(scope="module")
def batch(processor, clips):
    return processor(motion=clips, text=TEXTS)


@pytest.fixture(scope="module")
def prompts(processor, clips):
    return processor(motion=clips)


@pytest.fixture(scope="module")
def folder(joined, processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbone")
    joined.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def generate(model, inputs, **kwargs):
    options = {"min_new_tokens": 8, "max_new_tokens": 8, "do_sample": False, **kwargs}
    return model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]


def relative_error(value, wanted):
    return ((value.double() - wanted.double()).norm() / wanted.double().norm()).item()


# Joining


@pytest.mark.parametrize("tied", [True, False])
def test_language_model_is_the_stock_one_on_text(kind, base_model, tiny_tokenizer_model, tied):
    """Same weights, bit-equal hidden states and the same text logits; a head of its own stays one."""
    base = base_model(kind, tie_word_embeddings=tied)
    model = CLASSES[kind].from_components(base, tiny_tokenizer_model).eval()
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert base.model.layers[0].self_attn.k_proj.weight.shape[0] == 2 * 16
    text = torch.randint(model.config.text_vocab_size, (2, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        stock = base(text, output_hidden_states=True)
        ours = model(text, output_hidden_states=True)
    for state, wanted in zip(ours.hidden_states, stock.hidden_states, strict=True):
        assert torch.equal(state, wanted)
    torch.testing.assert_close(ours.logits[..., : stock.logits.shape[-1]], stock.logits, rtol=1e-5, atol=1e-5)
    for name in ("hidden_size", "rope_parameters", "head_dim", "num_key_value_heads", "max_position_embeddings"):
        assert getattr(model.config, name) == getattr(base.config, name), name


def test_vocabulary_is_text_then_markers_then_codes(model, processor):
    config, tokenizer = model.config, processor.tokenizer
    text_size = model.model.embed_tokens.num_embeddings
    assert config.vocab_size == text_size + 4 + 32 == len(tokenizer)
    ids = [
        "<unused_" + str(text_size - 1) + ">",
        "<motion_pad>",
        "<motion>",
        "</motion>",
        "<motion_placeholder>",
        "<motion_0>",
    ]
    assert tokenizer.convert_tokens_to_ids(ids) == list(range(text_size - 1, text_size + 5))
    marker_ids = (config.motion_start_token_id, config.motion_end_token_id, config.motion_placeholder_token_id)
    assert marker_ids == (text_size + 1, text_size + 2, text_size + 3)
    assert tokenizer.pad_token_id == config.pad_token_id == model.generation_config.pad_token_id == text_size
    assert tokenizer.eos_token_id == config.eos_token_id < text_size - SPARE_ROWS
    assert tokenizer.model_max_length == config.max_position_embeddings == 128
    rows = torch.cat([model.model.embed_tokens.weight, model.marker_embedding.weight, model.motion_embeddings])
    with torch.no_grad():
        output = model(torch.arange(0, config.vocab_size, 5)[None], output_hidden_states=True)
        torch.testing.assert_close(output.logits, output.hidden_states[-1] @ rows.T, rtol=1e-5, atol=1e-5)


def test_the_class_for_another_base_is_named(base, kind, tiny_language_model, tiny_tokenizer_model):
    with pytest.raises(
        ValueError, match=f"'{kind}'; GeoMotionGPTForCausalLM takes a 'gpt2': use {CLASSES[kind].__name__}"
    ):
        GeoMotionGPTForCausalLM.from_components(base, tiny_tokenizer_model)
    with pytest.raises(ValueError, match=f"takes a '{kind}': use GeoMotionGPTForCausalLM"):
        CLASSES[kind].from_components(tiny_language_model, tiny_tokenizer_model)


def test_bases_that_cannot_be_joined_say_what_to_load_instead(
    base, joined, kind, folder, tiny_tokenizer_model, tmp_path
):
    """One that is joined already, one without a head, and a whole model where its motion tokenizer is wanted."""
    ours = CLASSES[kind]
    for again in (joined, folder):
        with pytest.raises(ValueError, match=f"'geomotion_{kind}' and has a motion vocabulary already: .*from_pretr"):
            ours.from_components(again, tiny_tokenizer_model)
    with pytest.raises(ValueError, match=f"is a {type(base.model).__name__} without a head"):
        ours.from_components(base.model, tiny_tokenizer_model)
    with pytest.raises(ValueError, match="'geomotion_.*give a MotionTokenizer .the one in its folder `motion_tokeniz"):
        ours.from_components(base, folder)
    base.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"a '{kind}' model, wanted 'geomotion_{kind}': .*by `from_components`"):
        ours.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"a 'geomotion_{kind}' model, wanted 'geomotiongpt'"):
        GeoMotionGPTForCausalLM.from_pretrained(folder)


def test_stage_two_takes_every_kind_of_base(base, kind, text_tokenizer, tiny_tokenizer_model, tmp_path):
    """A pretrained one by its folder, whatever dtype it was saved in, and a random one by `model_type`."""
    base.to(torch.bfloat16).save_pretrained(tmp_path)
    base.to(torch.float32)
    text_tokenizer.save_pretrained(tmp_path)
    options = {"geometric_constraint": "cluster", "num_code_clusters": 3, "projection": "orthogonal"}
    args = ModelArguments("unused", language_model=str(tmp_path), **options)
    model, tokenizer = build_language_model(args, tiny_tokenizer_model, [])
    assert type(model) is CLASSES[kind] and len(tokenizer) == len(text_tokenizer)
    assert model.dtype == torch.float32 and not model.model.embed_tokens.weight.requires_grad
    assert {name: getattr(model.config, name) for name in options} == options
    sizes = {"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 1, "head_dim": 16}
    args = ModelArguments("unused", language_model_config={"model_type": kind, **sizes})
    model, tokenizer = build_language_model(args, tiny_tokenizer_model, [TEXTS])
    assert type(model) is CLASSES[kind] and model.config.text_vocab_size == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id and model.model.embed_tokens.weight.requires_grad
    args.language_model_config["model_type"] = "opt"
    with pytest.raises(ValueError, match="is a 'opt'; bases can be gpt2, llama, qwen3"):
        build_language_model(args, tiny_tokenizer_model, [TEXTS])


# Training


@pytest.mark.parametrize("frozen", [True, False])
def test_what_trains_is_the_same_after_loading(base, kind, tiny_tokenizer_model, tmp_path, frozen):
    joined = CLASSES[kind].from_components(base, tiny_tokenizer_model, freeze_text_embeddings=frozen)
    names = {name for name, _ in joined.named_parameters()}
    wanted = {name for name in names if not name.startswith("motion_tokenizer.")}
    wanted -= {"model.embed_tokens.weight"} if frozen else set()
    joined.save_pretrained(tmp_path)
    for model in (joined, AutoModelForCausalLM.from_pretrained(tmp_path)):
        assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == wanted


def test_loss_is_cross_entropy_of_the_answer_plus_the_constraint(model, batch):
    output = model(**batch)
    targets = batch["labels"][:, 1:]
    cross_entropy = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), targets.flatten())
    torch.testing.assert_close(output.language_modeling_loss, cross_entropy)
    assert output.orthonormality_loss > 10
    torch.testing.assert_close(output.loss, cross_entropy + 1e-2 * output.orthonormality_loss)
    skipped = model(**batch, skip_logits=True)
    assert skipped.logits is None
    torch.testing.assert_close(skipped.loss, output.loss)


def test_gradient_checkpointing_gives_the_same_gradients(model, batch):
    found = []
    model.train()
    for enable in (False, True):
        if enable:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(**batch).loss.backward()
        found.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
    assert found[0].keys() == found[1].keys() and "motion_codebook.weight" in found[0]
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def test_compiles_as_one_graph(model, batch):
    with torch.no_grad():
        wanted = model(**batch)
        compiled = torch.compile(model, fullgraph=True, backend="eager")(**batch)
    torch.testing.assert_close(compiled.logits, wanted.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(compiled.loss, wanted.loss, rtol=1e-5, atol=1e-5)


# Generation


@pytest.mark.parametrize(
    "options",
    [{"use_cache": True}, {"cache_implementation": "static"}, {"num_beams": 3}],
    ids=["cache", "static cache", "beams"],
)
def test_generation_with_a_cache_equals_generation_without(model, prompts, options):
    wanted = generate(model, prompts, **{**options, "use_cache": False, "cache_implementation": None})
    assert len(wanted.unique()) > 3, "a model that repeats itself tests nothing"
    assert torch.equal(generate(model, prompts, **options), wanted)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_generation_in_a_padded_batch_equals_one_by_one(model, processor, clips, prompts, num_beams):
    assert not prompts["attention_mask"].all()
    together = generate(model, prompts, num_beams=num_beams)
    for row, clip in enumerate(clips):
        assert torch.equal(generate(model, processor(motion=clip), num_beams=num_beams)[0], together[row])
    assert not torch.equal(together[0], together[1]), "the motion makes no difference"


def test_logits_to_keep_are_the_last(model, prompts):
    with torch.no_grad():
        torch.testing.assert_close(model(**prompts, logits_to_keep=2).logits, model(**prompts).logits[:, -2:])


def test_more_tokens_than_positions_are_refused(model, prompts):
    length = prompts["input_ids"].shape[1]
    assert model.generate(**prompts, max_new_tokens=128 - length, do_sample=False).shape[1] <= 128
    with pytest.raises(ValueError, match=f"{length} tokens and its answer take up to 129 of the 128 posi"):
        model.generate(**prompts, max_new_tokens=129 - length)


# Saving and loading


def test_saved_model_comes_back_bit_equal(joined, kind, folder, batch):
    for auto_class in (AutoModel, AutoModelForCausalLM):
        loaded = auto_class.from_pretrained(folder).eval()
        assert type(loaded) is CLASSES[kind]
        weights = loaded.state_dict()
        assert weights.keys() == joined.state_dict().keys()
        for name, weight in joined.state_dict().items():
            assert torch.equal(weights[name], weight), name
    changed_by_saving = {"_name_or_path": None, "motion_tokenizer_config": None}
    assert {**loaded.config.to_dict(), **changed_by_saving} == {**joined.config.to_dict(), **changed_by_saving}
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, joined(**batch).logits)
    assert type(AutoModel.from_pretrained(folder, subfolder="motion_tokenizer")) is MotionTokenizer


def test_processor_comes_back_and_captions(joined, folder, batch, clips):
    model, processor = load_captioner(folder)
    assert type(AutoProcessor.from_pretrained(folder)) is type(processor) is GeoMotionGPTProcessor
    again = processor(motion=clips, text=TEXTS)
    assert all(torch.equal(again[name], value) for name, value in batch.items())
    answers = batch["labels"][2][batch["labels"][2] != -100]
    assert answers[-1] == joined.config.eos_token_id
    assert processor.tokenizer.decode(answers, skip_special_tokens=True).strip() == TEXTS[2]
    inputs = processor(motion=clips)
    generated = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert len(processor.post_process_text(generated, inputs["input_ids"].shape[1])) == 3


def test_config_says_where_the_code_of_each_auto_class_is(kind, folder):
    config = json.loads((folder / "config.json").read_text())
    reference = f"modeling_geomotion_{kind}.{CLASSES[kind].__name__}"
    assert config["auto_map"]["AutoModel"] == config["auto_map"]["AutoModelForCausalLM"] == reference
    assert config["auto_map"]["AutoConfig"].startswith(f"configuration_geomotion_{kind}.")
    for module in (f"modeling_geomotion_{kind}", f"configuration_geomotion_{kind}", "motion_vocabulary"):
        assert (folder / f"{module}.py").is_file()


def test_bfloat16_model_keeps_its_codes(joined, folder, prompts):
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    assert loaded.model.embed_tokens.weight.dtype == loaded.motion_codebook.weight.dtype == torch.bfloat16
    inputs = {name: prompts[name] for name in ("input_ids", "motion_values", "motion_mask")}
    assert torch.equal(loaded.encode_motion(**inputs), joined.encode_motion(**inputs))
    with torch.no_grad():
        assert relative_error(loaded(**prompts).logits, joined(**prompts).logits) < 0.05


def test_projection_of_a_trained_model_is_swapped(model, batch):
    with torch.no_grad():
        wanted = model(**batch).logits
        for projection in ("orthogonal", "linear", "none"):
            model.swap_projection(projection)
            torch.testing.assert_close(model(**batch).logits, wanted, rtol=1e-4, atol=1e-3)


# Recipes


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("geomotiongpt-humanml3d-lora", 124_439_808),
        ("geomotiongpt-llama3.2-1b-lora", 1_235_814_400),
        ("geomotiongpt-qwen3-0.6b-lora", 596_049_920),
    ],
)
def test_published_lora_recipes_adapt_the_attention_of_their_base(name, parameters):
    """A base of the released size: rank 16, twice that as scale, dropout 0.05, on layers that are there."""
    folder = resource("hub_configs") / name
    recipe = yaml.safe_load((folder / "language_model.yaml").read_text())["lora"]
    assert (recipe["r"], recipe["lora_alpha"], recipe["lora_dropout"]) == (16, 32, 0.05)
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    layers = {
        path.rsplit(".", 1)[-1] for path, _ in model.named_modules() if ".attn." in path or ".self_attn." in path
    }
    assert set(recipe["target_modules"]) <= layers
    assert model.motion_embeddings.shape == (512, config.hidden_size)
    assert sum(weight.numel() for weight in model.base_model.parameters()) == parameters
