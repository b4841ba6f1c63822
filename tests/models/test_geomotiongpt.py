"""GeoMotionGPT: one geometry for both vocabularies, the losses, generation, and what survives a save."""

import copy
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoProcessor,
    GPT2Config,
    GPT2LMHeadModel,
    OPTConfig,
    OPTForCausalLM,
)

from geomotiongpt import (
    GeoMotionGPTForCausalLM,
    GeoMotionGPTProcessor,
    MotionTokenizer,
    MotionTokenizerConfig,
)
from geomotiongpt.models.task_prompts import LONGEST_TEXT

TEXTS = ["a person walks forward", "someone jumps", "the figure turns around to the right and sits down"]


@pytest.fixture
def model(tiny_model) -> GeoMotionGPTForCausalLM:
    """A copy to change, whose codebook has left orthonormality as in training."""
    model = copy.deepcopy(tiny_model)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        weight = model.motion_codebook.weight
        weight += 2 * torch.randn(weight.shape, generator=generator)
    return model


@pytest.fixture
def prompts(tiny_processor, clips):
    """What `generate` gets: three clips of different lengths, padded on the left."""
    return tiny_processor(motion=clips)


@pytest.fixture
def batch(tiny_processor, clips):
    """What training gets: the same clips with their answers, padded on the right."""
    return tiny_processor(motion=clips, text=TEXTS)


def relative_error(value: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((value.double() - wanted.double()).norm() / wanted.double().norm()).item()


def trainable_parameters(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def generate(model: GeoMotionGPTForCausalLM, inputs, **kwargs) -> torch.Tensor:
    """The eight tokens that follow the prompts."""
    generated = model.generate(**inputs, min_new_tokens=8, max_new_tokens=8, do_sample=False, **kwargs)
    return generated[:, inputs["input_ids"].shape[1] :]


# Joining a language model and a motion tokenizer


def test_motion_embeddings_have_the_gram_matrix_of_the_tokenizers_codebook(tiny_language_model, tiny_tokenizer_model):
    motion_tokenizer = copy.deepcopy(tiny_tokenizer_model)
    generator = torch.Generator().manual_seed(3)
    motion_tokenizer.codebook.weight.data = torch.randn(32, 32, generator=generator) * torch.arange(1, 33)[:, None]
    joined = GeoMotionGPTForCausalLM.from_components(tiny_language_model, motion_tokenizer)
    codebook = motion_tokenizer.codebook.weight.detach().double()
    embeddings = joined.motion_embeddings.detach().double()
    scale = joined.motion_embedding_scale.double()
    assert relative_error(embeddings @ embeddings.T, scale**2 * codebook @ codebook.T) < 1e-6
    text_norm = tiny_language_model.transformer.wte.weight.norm(dim=-1).mean().item()
    assert embeddings.norm(dim=-1).mean().item() == pytest.approx(text_norm, rel=1e-6)


def test_language_model_is_the_stock_one_on_text(tiny_language_model, tiny_model):
    """Same weights, tied head, bit-equal hidden states and the same text logits."""
    assert tiny_model.lm_head.weight is tiny_model.transformer.wte.weight
    weights = tiny_model.transformer.state_dict()
    for name, weight in tiny_language_model.transformer.state_dict().items():
        assert torch.equal(weights[name], weight), name
    text = torch.randint(tiny_model.config.text_vocab_size, (2, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        stock = tiny_language_model(text, output_hidden_states=True)
        ours = tiny_model(text, output_hidden_states=True)
    for state, wanted in zip(ours.hidden_states, stock.hidden_states, strict=True):
        assert torch.equal(state, wanted)
    torch.testing.assert_close(ours.logits[..., : stock.logits.shape[-1]], stock.logits, rtol=1e-6, atol=1e-5)


def test_vocabulary_is_text_then_markers_then_codes(model, tiny_processor):
    config = model.config
    text_size = model.transformer.wte.num_embeddings
    assert config.text_vocab_size == text_size
    assert config.vocab_size == text_size + 4 + 32
    ids = ["<motion_pad>", "<motion>", "</motion>", "<motion_placeholder>", "<motion_0>", "<motion_31>"]
    assert tiny_processor.tokenizer.convert_tokens_to_ids(ids) == [text_size + i for i in (0, 1, 2, 3, 4, 35)]
    assert config.pad_token_id == model.generation_config.pad_token_id == text_size != config.eos_token_id
    assert config.motion_placeholder_token_id == text_size + 3
    assert config.first_motion_token_id == text_size + 4
    rows = torch.cat([model.transformer.wte.weight, model.marker_embedding.weight, model.motion_embeddings])
    ids = torch.arange(0, config.vocab_size, 5)[None]
    with torch.no_grad():
        output = model(ids, output_hidden_states=True)
        assert torch.equal(output.logits, model(inputs_embeds=rows[ids]).logits), "input embeddings"
        torch.testing.assert_close(output.logits, output.hidden_states[-1] @ rows.T, rtol=1e-5, atol=1e-5)


def test_codes_wider_than_the_embedding_are_refused(tiny_language_model):
    wide = MotionTokenizer(MotionTokenizerConfig(num_codes=8, code_dim=64, hidden_size=8))
    with pytest.raises(ValueError, match="code_dim 64 does not fit into an embedding of 48"):
        GeoMotionGPTForCausalLM.from_components(tiny_language_model, wide)


def test_another_language_model_is_refused(tiny_tokenizer_model):
    sizes = {
        "hidden_size": 48,
        "num_hidden_layers": 1,
        "ffn_dim": 8,
        "num_attention_heads": 4,
        "word_embed_proj_dim": 48,
    }
    other = OPTForCausalLM(OPTConfig(vocab_size=10, **sizes))
    with pytest.raises(ValueError, match="'opt'.*'gpt2'"):
        GeoMotionGPTForCausalLM.from_components(other, tiny_tokenizer_model)


def test_an_untied_language_model_keeps_its_head(tiny_tokenizer_model):
    config = GPT2Config(vocab_size=20, n_positions=16, n_embd=48, n_layer=1, n_head=4, tie_word_embeddings=False)
    untied = GPT2LMHeadModel(config).eval()
    joined = GeoMotionGPTForCausalLM.from_components(untied, tiny_tokenizer_model).eval()
    text = torch.arange(16)[None]
    with torch.no_grad():
        torch.testing.assert_close(joined(text).logits[..., :20], untied(text).logits)
    assert not trainable_parameters(joined) & {"transformer.wte.weight", "lm_head.weight"}


# What trains


@pytest.mark.parametrize("frozen", [True, False])
def test_what_trains_is_the_same_after_loading(tiny_language_model, tiny_tokenizer_model, tmp_path, frozen):
    """Everything but the motion tokenizer, and but the text embeddings if they are to be frozen."""
    joined = GeoMotionGPTForCausalLM.from_components(
        tiny_language_model, tiny_tokenizer_model, freeze_text_embeddings=frozen
    )
    names = {name for name, _ in joined.named_parameters()}
    wanted = {name for name in names if not name.startswith("motion_tokenizer.")}
    assert {"motion_codebook.weight", "marker_embedding.weight", "transformer.wte.weight"} <= wanted
    if frozen:
        wanted -= {"transformer.wte.weight"}
    assert trainable_parameters(joined) == wanted
    joined.save_pretrained(tmp_path)
    for auto_class in (GeoMotionGPTForCausalLM, AutoModelForCausalLM):
        assert trainable_parameters(auto_class.from_pretrained(tmp_path)) == wanted


def test_motion_tokenizer_gets_no_gradient(model, batch):
    """Not even when someone has unfrozen it."""
    model.requires_grad_(True).train()
    model(**batch).loss.backward()
    assert model.motion_codebook.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.motion_tokenizer.parameters())


# Forward and loss


def test_placeholders_are_replaced_by_the_codes_of_their_row(model, tiny_processor, clips, prompts):
    extractor, first = tiny_processor.feature_extractor, model.config.first_motion_token_id
    with_codes = prompts["input_ids"].clone()
    for row, clip in enumerate(clips):
        codes = model.motion_tokenizer.encode(**extractor(clip)).motion_codes[0]
        with_codes[row, with_codes[row] == model.config.motion_placeholder_token_id] = codes + first
    assert len(with_codes[with_codes >= first].unique()) > 5, "clips with few codes test nothing"
    assert torch.equal(
        model.encode_motion(prompts["input_ids"], prompts["motion_values"], prompts["motion_mask"]), with_codes
    )
    with torch.no_grad():
        given = model(with_codes, attention_mask=prompts["attention_mask"]).logits
        assert torch.equal(model(**prompts).logits, given)


def test_other_motions_than_the_prompts_are_refused(model, prompts):
    prompts["motion_values"], prompts["motion_mask"] = prompts["motion_values"].flip(0), prompts["motion_mask"].flip(0)
    with pytest.raises(ValueError, match=r"\[5, 2, 8\] motion placeholders a row, but the motions have \[8, 2, 5\]"):
        model(**prompts)


def test_motions_padded_on_the_left_are_refused(model, prompts):
    """The number of codes is the same: only the mask tells."""
    for name in ("motion_values", "motion_mask"):
        prompts[name] = prompts[name].flip(1)
    for call in (model, model.generate):
        with pytest.raises(ValueError, match="row 0 of motion_mask .* padding must be on the right"):
            call(**prompts)


def test_loss_is_cross_entropy_of_the_answer_and_its_end_plus_orthonormality(model, tiny_processor, batch):
    """By hand: no prompt, no motion, no padding; the end of text is an answer token."""
    tokenizer = tiny_processor.tokenizer
    output = model(**batch)
    log_probabilities, losses = output.logits.log_softmax(-1), []
    for row, text in enumerate(TEXTS):
        answer = [*tokenizer(" " + text)["input_ids"], tokenizer.eos_token_id]
        start = int(batch["attention_mask"][row].sum()) - len(answer)
        losses += [-log_probabilities[row, start - 1 + i, token] for i, token in enumerate(answer)]
    cross_entropy = torch.stack(losses).mean()
    torch.testing.assert_close(output.language_modeling_loss, cross_entropy, rtol=1e-5, atol=0)
    normalised = functional.normalize(model.motion_codebook.weight.double(), dim=-1)
    error = (normalised @ normalised.T - torch.eye(32)).square().sum()
    assert error > 10
    torch.testing.assert_close(output.orthonormality_loss.double(), error, rtol=1e-5, atol=0)
    assert model.config.orthonormality_weight == 1e-2
    assert output.loss.item() == pytest.approx(cross_entropy.item() + 1e-2 * error.item(), rel=1e-5)
    model.orthonormality_weight_multiplier = 0.5
    assert model(**batch).loss.item() == pytest.approx(cross_entropy.item() + 0.5e-2 * error.item(), rel=1e-5)


def test_skipping_logits_leaves_loss_and_gradients_as_they_are(model, batch):
    """Only labelled positions are scored: with and without the count that `Trainer` gives."""
    model.double()
    for count in (None, torch.tensor(40)):
        outputs, gradients = [], []
        for skip in (False, True):
            model.zero_grad()
            outputs.append(model(**batch, num_items_in_batch=count, skip_logits=skip))
            outputs[-1].loss.backward()
            gradients.append({name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad})
        full, skipped = outputs
        assert full.logits is not None and skipped.logits is None
        torch.testing.assert_close(skipped.loss, full.loss, rtol=1e-6, atol=0)  # scored in float32
        assert skipped.orthonormality_loss == full.orthonormality_loss
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-8)
    with pytest.raises(ValueError, match="skip_logits=True. leaves nothing .* without `labels`"):
        model(batch["input_ids"], skip_logits=True)


def test_micro_batches_sum_to_the_full_batch(model, batch):
    """Loss and gradient, when `Trainer` tells the number of labelled tokens of the whole step."""
    model.double()
    full = model(**batch).loss
    full.backward()
    wanted = gradients(model)
    model.zero_grad()
    num_items = (batch["labels"] != -100).sum()
    total = 0.0
    for rows in (slice(0, 1), slice(1, 3)):
        loss = model(**{name: value[rows] for name, value in batch.items()}, num_items_in_batch=num_items).loss
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(full.item(), rel=1e-6)
    summed = gradients(model)
    assert summed.keys() == wanted.keys() and "motion_codebook.weight" in wanted
    for name, gradient in wanted.items():
        assert relative_error(summed[name], gradient) < 1e-6, name


def test_orthonormality_gradient_reaches_the_motion_codebook(model, batch):
    """A step along it alone brings the codebook nearer to orthonormality."""
    model.config.orthonormality_weight = 3.0
    output = model(**batch)
    codebook = model.motion_codebook.weight
    language, geometry, total = (
        torch.autograd.grad(loss, codebook, retain_graph=True)[0]
        for loss in (output.language_modeling_loss, output.orthonormality_loss, output.loss)
    )
    torch.testing.assert_close(total, language + 3.0 * geometry, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        codebook -= 1e-2 * geometry
    assert model(**batch).orthonormality_loss < output.orthonormality_loss


def test_gradient_checkpointing_gives_the_same_gradients(model, batch):
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model(**batch).loss.backward()
    wanted = gradients(model)
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model(**batch).loss.backward()
    checkpointed = gradients(model)
    assert checkpointed.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_as_one_graph(model, batch, backend):
    """Motion encoding, embedding, transformer and loss, without a graph break."""
    with torch.no_grad():
        wanted = model(**batch)
        compiled = torch.compile(model, fullgraph=True, backend=backend)(**batch)
    torch.testing.assert_close(compiled.logits, wanted.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(compiled.loss, wanted.loss, rtol=1e-5, atol=1e-5)


# Generation


@pytest.mark.parametrize(
    "options",
    [{"use_cache": True}, {"cache_implementation": "static"}, {"num_beams": 3}],
    ids=["cache", "static cache", "beams"],
)
def test_generation_with_a_cache_equals_generation_without(model, prompts, options):
    wanted = generate(model, prompts, **{"num_beams": 1, **options, "use_cache": False, "cache_implementation": None})
    assert len(wanted.unique()) > 3, "a model that repeats itself tests nothing"
    assert torch.equal(generate(model, prompts, **options), wanted)


@pytest.mark.parametrize("left", [LONGEST_TEXT + 5, 5, 0], ids=["more", "little", "none"])
def test_an_answer_of_which_nothing_is_said_takes_what_is_left(model, prompts, left, recwarn):
    """And the library says nothing of its own 20 tokens."""
    model, length = copy.deepcopy(model), prompts["input_ids"].shape[1]
    model.generation_config.max_new_tokens = None
    model.generation_config.eos_token_id = None  # it never ends by itself
    model.config.n_positions = length + left
    if left == 0:
        with pytest.raises(ValueError, match="positions of the language model"):
            model.generate(**prompts, do_sample=False)
        return
    assert model.generate(**prompts, do_sample=False).shape[1] == length + min(left, LONGEST_TEXT)
    assert model.generate(**prompts, do_sample=False, max_length=length + 3).shape[1] == length + 3
    assert not [warning for warning in recwarn if "max_length" in str(warning.message)]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_generation_in_a_padded_batch_equals_one_by_one(model, tiny_processor, clips, prompts, num_beams):
    assert not prompts["attention_mask"].all()
    together = generate(model, prompts, num_beams=num_beams)
    for row, clip in enumerate(clips):
        assert torch.equal(generate(model, tiny_processor(motion=clip), num_beams=num_beams)[0], together[row])
    assert not torch.equal(together[0], together[1]), "the motion makes no difference"


def test_logits_to_keep_are_the_last(model, prompts):
    with torch.no_grad():
        torch.testing.assert_close(model(**prompts, logits_to_keep=2).logits, model(**prompts).logits[:, -2:])


# Saving and loading


def test_saved_model_comes_back_bit_equal(model, batch, tmp_path):
    """From the file, not redrawn from a seed: the projection and the scale saved here come from none."""
    model.motion_projection.indices.copy_(model.motion_projection.indices.flip(0))
    model.motion_embedding_scale.fill_(0.123)
    model.config.orthonormality_weight = 0.456
    model.save_pretrained(tmp_path)
    loaded = GeoMotionGPTForCausalLM.from_pretrained(tmp_path)
    saved, weights = model.state_dict(), loaded.state_dict()
    assert weights.keys() == saved.keys() >= {"motion_projection.indices", "motion_embedding_scale"}
    for name, weight in saved.items():
        assert torch.equal(weights[name], weight) and weights[name].dtype == weight.dtype, name
    assert loaded.lm_head.weight is loaded.transformer.wte.weight
    assert vars(loaded.config.motion_tokenizer_config).items() >= {"num_codes": 32, "hidden_size": 32}.items()
    changed_by_saving = {"_name_or_path": None, "motion_tokenizer_config": None}
    assert {**loaded.config.to_dict(), **changed_by_saving} == {**model.config.to_dict(), **changed_by_saving}
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, model(**batch).logits)


def test_motion_tokenizer_beside_the_model_is_the_one_inside(model, tmp_path, prompts):
    with torch.no_grad():
        model.motion_tokenizer.encoder.input_conv.weight.mul_(1.5)
    model.save_pretrained(tmp_path)
    for loaded in (
        MotionTokenizer.from_pretrained(tmp_path / "motion_tokenizer"),
        AutoModel.from_pretrained(tmp_path, subfolder="motion_tokenizer"),
    ):
        assert type(loaded) is MotionTokenizer
        weights = loaded.state_dict()
        for name, weight in model.motion_tokenizer.state_dict().items():
            assert torch.equal(weights.pop(name), weight), name
        assert not weights
        inputs = prompts["motion_values"], prompts["motion_mask"]
        assert torch.equal(loaded.encode(*inputs).motion_codes, model.motion_tokenizer.encode(*inputs).motion_codes)


def test_auto_classes_give_ours(tiny_model_folder):
    assert type(AutoModel.from_pretrained(tiny_model_folder)) is GeoMotionGPTForCausalLM
    assert type(AutoModelForCausalLM.from_pretrained(tiny_model_folder)) is GeoMotionGPTForCausalLM
    assert type(AutoProcessor.from_pretrained(tiny_model_folder)) is GeoMotionGPTProcessor


def test_config_says_where_the_code_of_each_auto_class_is(tiny_model_folder):
    config = json.loads((tiny_model_folder / "config.json").read_text())
    model_class = "modeling_geomotiongpt.GeoMotionGPTForCausalLM"
    assert config["auto_map"]["AutoModel"] == config["auto_map"]["AutoModelForCausalLM"] == model_class
    assert config["auto_map"]["AutoConfig"] == "configuration_geomotiongpt.GeoMotionGPTConfig"
    pipelines = {task: pipeline["impl"] for task, pipeline in config["custom_pipelines"].items()}
    assert pipelines == {
        "motion-to-text": "pipeline_motion_to_text.MotionToTextPipeline",
        "text-to-motion": "pipeline_text_to_motion.TextToMotionPipeline",
    }
    for name in (
        "modeling_geomotiongpt",
        "configuration_geomotiongpt",
        *(i.split(".")[0] for i in pipelines.values()),
    ):
        assert (tiny_model_folder / f"{name}.py").is_file()
    assert (tiny_model_folder / "generation_config.json").is_file()


def test_incomplete_checkpoint_is_refused(tiny_model_folder, tmp_path):
    """Instead of captions from a scale or a projection that nobody trained."""
    folder = shutil.copytree(tiny_model_folder, tmp_path / "incomplete")
    weights = load_file(folder / "model.safetensors")
    del weights["motion_projection.indices"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="motion_projection.indices"):
        AutoModelForCausalLM.from_pretrained(folder)


def test_bfloat16_model_keeps_its_codes(tiny_model_folder, tiny_model, prompts):
    """The motion tokenizer stays in float32: rounding would change codes."""
    loaded = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.bfloat16).eval()
    assert {parameter.dtype for parameter in loaded.motion_tokenizer.parameters()} == {torch.float32}
    assert loaded.transformer.wte.weight.dtype == loaded.motion_codebook.weight.dtype == torch.bfloat16
    codes = [
        model.encode_motion(**{k: prompts[k] for k in ("input_ids", "motion_values", "motion_mask")})
        for model in (loaded, tiny_model)
    ]
    assert torch.equal(*codes)
    with torch.no_grad():
        logits = loaded(**prompts).logits
        wanted = tiny_model(**prompts).logits
    assert logits.dtype == torch.bfloat16
    assert relative_error(logits, wanted) < 0.05
    assert generate(loaded, prompts).shape == (3, 8)


def test_vocabulary_cannot_be_resized(model):
    with pytest.raises(ValueError, match="vocabulary of GeoMotionGPT is fixed"):
        model.resize_token_embeddings(1000)
