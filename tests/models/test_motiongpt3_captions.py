"""MotionGPT3: captions, joining, and what survives a save."""

import copy
import json
import shutil
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForCausalLM,
    AutoProcessor,
    GenerationConfig,
    pipeline,
)

from geomotiongpt import MotionGPT3Config, MotionGPT3ForCausalLM, MotionGPT3Processor, MotionVAE
from geomotiongpt.models.task_prompts import LONGEST_TEXT, LatentTaskExample


@pytest.fixture
def model(tiny_motiongpt3) -> MotionGPT3ForCausalLM:
    """A copy to change."""
    return copy.deepcopy(tiny_motiongpt3)


@pytest.fixture(scope="module")
def prompts(motiongpt3_processor, clips):
    """Motions of three lengths."""
    return motiongpt3_processor(motion=clips)


@pytest.fixture(scope="module")
def padded(motiongpt3_processor, tiny_motiongpt3, prompts):
    """The same motions in prompts of three lengths, padded on the left."""
    examples = [LatentTaskExample("motion-to-text", wording=wording) for wording in (0, 1, 3)]
    arrays = motiongpt3_processor.prepare_examples(examples, with_answers=False)
    rows = {name: torch.from_numpy(array) for name, array in arrays.items()}
    assert not rows["attention_mask"].all()
    return {**rows, "latents": tiny_motiongpt3.encode_motion(prompts["motion_values"], prompts["motion_mask"])}


def generate(model, inputs, **kwargs):
    options = {"min_new_tokens": 8, "max_new_tokens": 8, "do_sample": False, **kwargs}
    return model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]


def weights_differ(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    return {name for name, weight in ours.items() if not torch.equal(weight, theirs[name])}


# Captions


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_captions_do_not_depend_on_batch_and_padding(make_motiongpt3, padded, kind, num_beams):
    model = make_motiongpt3(kind)
    together = generate(model, padded, num_beams=num_beams)
    for row in range(3):
        real = padded["attention_mask"][row].bool()
        alone = {"input_ids": padded["input_ids"][row][real][None], "latents": padded["latents"][row : row + 1]}
        assert torch.equal(generate(model, alone, num_beams=num_beams)[0], together[row])
    assert len(together.unique()) > 3, "a model that repeats itself tests nothing"
    other = {**padded, "latents": padded["latents"].flip(0)}
    assert not torch.equal(generate(model, other, num_beams=num_beams), together), "the motion makes no difference"


@pytest.mark.parametrize("left", [LONGEST_TEXT + 5, 5, 0], ids=["more", "little", "none"])
def test_an_answer_of_which_nothing_is_said_takes_what_is_left(model, prompts, left, recwarn):
    """And the library says nothing of its own 20 tokens."""
    model, length = copy.deepcopy(model), prompts["input_ids"].shape[1]
    model.generation_config.max_new_tokens = None
    model.generation_config.eos_token_id = None  # it never ends by itself
    model.config.text_config.n_positions = length + left
    if left == 0:
        with pytest.raises(ValueError, match="positions of the language model"):
            model.generate(**prompts, do_sample=False)
        return
    assert model.generate(**prompts, do_sample=False).shape[1] == length + min(left, LONGEST_TEXT)
    assert model.generate(**prompts, do_sample=False, max_length=length + 3).shape[1] == length + 3
    assert not [warning for warning in recwarn if "max_length" in str(warning.message)]


@pytest.mark.parametrize(
    "options",
    [{}, {"cache_implementation": "static"}, {"num_beams": 3}, {"repetition_penalty": 1.5}],
    ids=["cache", "static cache", "beams", "penalty"],
)
def test_generation_with_a_cache_equals_generation_without(model, padded, options):
    wanted = generate(model, padded, **{**options, "use_cache": False, "cache_implementation": None})
    assert torch.equal(generate(model, padded, **options), wanted)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "smollm3"])
def test_a_cache_of_fixed_size_on_bases_that_name_their_kinds_of_layers(make_motiongpt3, padded, kind):
    model = make_motiongpt3(kind)
    wanted = generate(model, padded)
    assert torch.equal(generate(model, padded, cache_implementation="static"), wanted)


@pytest.mark.parametrize("num_beams", [1, 4])
def test_scores_of_an_answer_are_those_of_its_tokens(model, prompts, num_beams):
    """Over all ids: with those of the base alone every beam but the first would get the scores of other tokens."""
    made = model.generate(
        **prompts,
        do_sample=False,
        num_beams=num_beams,
        max_new_tokens=6,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
    )
    width, beams = prompts["input_ids"].shape[1], getattr(made, "beam_indices", None)
    scores = model.compute_transition_scores(made.sequences, made.scores, beams)
    if beams is not None:
        lengths = (scores < 0).sum(1)
        torch.testing.assert_close(scores.sum(1) / lengths, made.sequences_scores)
        return
    normalised = model.compute_transition_scores(made.sequences, made.scores, normalize_logits=True)
    for step, logits in enumerate(made.logits):
        said, rows = made.sequences[:, width + step], torch.arange(len(logits))
        text = logits.log_softmax(-1)[:, : model.config.text_vocab_size]
        wanted = text.log_softmax(-1)[rows, said]
        is_text = said < model.config.text_vocab_size
        torch.testing.assert_close(normalised[is_text, step], wanted[is_text])


def test_an_answer_ends_at_a_word(model, prompts, motiongpt3_processor):
    tokenizer = motiongpt3_processor.tokenizer
    free = generate(model, prompts)[0]
    word = tokenizer.decode(free[2:3])
    first = {**prompts, "input_ids": prompts["input_ids"][:1], "attention_mask": prompts["attention_mask"][:1]}
    first |= {name: prompts[name][:1] for name in ("motion_values", "motion_mask")}
    made = model.generate(**first, do_sample=False, max_new_tokens=8, stop_strings=[word], tokenizer=tokenizer)
    assert word in tokenizer.decode(made[0, prompts["input_ids"].shape[1] :]) and made.shape[1] < 8 + len(
        first["input_ids"][0]
    )


def test_only_the_base_is_offloaded(model, prompts, motiongpt3_folder, tmp_path):
    load = partial(MotionGPT3ForCausalLM.from_pretrained, motiongpt3_folder, offload_folder=tmp_path)
    with pytest.raises(ValueError, match="device_map offloads .*motion_vae; only layers of 'language_model' can be"):
        load(device_map="auto", max_memory={"cpu": 3 * model.get_memory_footprint() // 4})
    cpu = {name: "cpu" for name, _ in (*model.named_children(), *model.named_buffers(recurse=False))}
    base = load(device_map={**cpu, "language_model": "disk"})
    assert next(base.language_model.parameters()).is_meta
    assert torch.equal(generate(base, prompts), generate(model, prompts))


def test_captions_of_motions_are_those_of_their_latents(model, prompts):
    latents = model.encode_motion(prompts["motion_values"], prompts["motion_mask"])
    inputs = {name: prompts[name] for name in ("input_ids", "attention_mask")}
    assert torch.equal(generate(model, prompts), generate(model, {**inputs, "latents": latents}))


@pytest.mark.parametrize("options", [{"do_sample": True}, {"num_beams": 2}, {"suppress_tokens": [5]}])
def test_markers_are_never_an_answer(model, prompts, options):
    with torch.no_grad():
        model.marker_embedding.weight[:3] *= 100
        best = model(**prompts).logits[:, -1, :-2].argmax(-1)
    assert (best >= model.config.text_vocab_size).any(), "they would be"
    torch.manual_seed(0)
    made = generate(model, prompts, **{"max_new_tokens": 20, **options})
    assert (made < model.config.text_vocab_size).all()
    assert 5 not in made or "suppress_tokens" not in options


def test_repetition_penalty_ignores_the_prompt(model, prompts):
    """The first token has nothing before it; later ones are new ones."""
    plain, penalised = generate(model, prompts), generate(model, prompts, repetition_penalty=1e9)
    assert torch.equal(plain[:, 0], penalised[:, 0])
    assert all(len(set(row)) == 8 for row in penalised.tolist())
    twice = {**prompts, "input_ids": torch.cat([plain[:, :1].expand(-1, 3), prompts["input_ids"]], dim=1)}
    twice["attention_mask"] = torch.ones_like(twice["input_ids"])
    first = generate(model, twice)[:, 0]
    assert torch.equal(generate(model, twice, repetition_penalty=1e9)[:, 0], first)
    model.generation_config.repetition_penalty = 1e9
    assert torch.equal(generate(model, prompts), penalised), "of the generation configuration too"


def test_a_caption_ends_with_the_end_of_text(model, prompts):
    end = model.config.text_config.eos_token_id
    with torch.no_grad():
        model.get_input_embeddings().weight[end] = 0
        state = []
        model.language_model.lm_head.register_forward_pre_hook(lambda module, inputs: state.append(inputs[0][0, -1]))
        model(**prompts)
        model.get_input_embeddings().weight[end] = 100 * state[0]
    made = model.generate(**prompts, max_new_tokens=8, do_sample=False)
    assert end in made[0, prompts["input_ids"].shape[1] :].tolist()
    assert made.shape[1] < prompts["input_ids"].shape[1] + 8 or (made[1:] != model.config.padding_token_id).any()
    assert model.generation_config.eos_token_id == end
    assert model.generation_config.pad_token_id == model.config.padding_token_id


def test_generation_that_is_not_possible_is_refused(model, prompts):
    length = prompts["input_ids"].shape[1]
    for options in ({"max_new_tokens": 129 - length}, {"max_length": 129}):
        with pytest.raises(ValueError, match=f"{length} tokens and its answer take up to 129 of the 128 positions"):
            model.generate(**prompts, **options)
    assert model.generate(**prompts, max_new_tokens=128 - length, do_sample=False).shape[1] <= 128
    with pytest.raises(ValueError, match="give `input_ids`: a prompt"):
        model.generate(latents=torch.zeros(1, 1, 1, 16))
    model.config.trained_stage = "text-to-motion"
    with pytest.raises(ValueError, match="only been through the first stage of training"):
        model.generate(**prompts)
    model.config.trained_stage = "alignment"
    generate(model, prompts)
    with pytest.raises(ValueError, match="trained_stage is 'second'; use one of text-to-motion, alignment, joint"):
        MotionGPT3Config(trained_stage="second")
    with pytest.raises(ValueError, match="vocabulary of MotionGPT3ForCausalLM is fixed"):
        model.resize_token_embeddings(1000)


def test_the_pipeline_writes_the_same_captions(model, motiongpt3_processor, clips, prompts):
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    ids = model.generate(**prompts, **options)
    wanted = motiongpt3_processor.post_process_text(ids, prompts["input_ids"].shape[1])
    describe = pipeline("motion-to-text", model=model, processor=motiongpt3_processor)
    assert [result["generated_text"] for result in describe(clips, **options)] == wanted
    assert len(set(wanted)) > 1


# Joining


def test_parts_that_do_not_fit_are_refused(
    make_text_base, make_motion_vae, tiny_motiongpt3, tiny_tokenizer_model, tmp_path
):
    join, base, vae = MotionGPT3ForCausalLM.from_components, make_text_base("gpt2"), make_motion_vae()
    with pytest.raises(ValueError, match="`motion_vae` is a 'motion_tokenizer': give a 'motion_vae'"):
        join(base, tiny_tokenizer_model)
    with pytest.raises(ValueError, match="`motion_vae` is a 'gpt2': give a 'motion_vae'"):
        join(base, base)
    for wrong in (base.transformer, vae):
        with pytest.raises(ValueError, match=f"the language model is a {type(wrong).__name__} without a head: load"):
            join(wrong, vae)
    base.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a 'gpt2' model, wanted 'motiongpt3': .*by `from_components`"):
        MotionGPT3ForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="streams is 'triple'; use one of dual, single"):
        join(base, vae, streams="triple")


def test_joining_what_cannot_be_joined_is_refused(make_text_base, make_motion_vae, tiny_motiongpt3):
    join, vae = MotionGPT3ForCausalLM.from_components, make_motion_vae()
    with pytest.raises(ValueError, match="is a 'motiongpt3' and has a motion branch already: load it with `from_pre"):
        join(tiny_motiongpt3, vae)
    with pytest.raises(ValueError, match="a single stream has no motion branch to start; leave it out"):
        join(make_text_base("gpt2"), vae, streams="single", start_from_text=True)


def test_parts_are_taken_from_models_and_from_folders(make_text_base, make_motion_vae, tmp_path):
    """In the dtype of the motion branch, whatever theirs; the parts stay as they were."""
    base, vae = make_text_base("llama"), make_motion_vae(kl_weight=0.25)
    base.save_pretrained(tmp_path / "base")
    vae.save_pretrained(tmp_path / "vae")
    before = base.config.to_dict()
    joined = []
    for parts in ((base, vae), (tmp_path / "base", str(tmp_path / "vae"))):
        model = MotionGPT3ForCausalLM.from_components(*parts, denoising_hidden_size=24, start_from_text=True)
        assert model.config.vae.kl_weight == 0.25 and model.config.text_config._name_or_path == ""
        assert all(torch.equal(w, model.get_parameter(f"motion_vae.{n}")) for n, w in vae.named_parameters())
        assert all(torch.equal(w, model.text_parameters()[n]) for n, w in base.named_parameters())
        joined.append(model)
    assert not [name for name in weights_differ(*joined) if "motion_branch" in name]
    assert base.config.to_dict() == before and type(base.model.layers[0]).__name__ == "LlamaDecoderLayer"
    assert torch.equal(joined[0].layers[0].motion_branch.mlp.up_proj.weight, base.model.layers[0].mlp.up_proj.weight)


def test_a_base_in_half_precision_is_joined_in_one_dtype(make_text_base, make_motion_vae, prompts, tmp_path):
    make_text_base("llama").to(torch.bfloat16).save_pretrained(tmp_path)
    model = MotionGPT3ForCausalLM.from_components(tmp_path, make_motion_vae(), denoising_hidden_size=24).eval()
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert generate(model, prompts).shape == (3, 8)


# Saving and loading


@pytest.mark.parametrize(
    ("kind", "options"),
    [("gpt2", {}), ("llama", {"tie_word_embeddings": False}), ("qwen3", {}), ("gpt2", {"streams": "single"})],
    ids=["tied", "untied", "head norms", "single stream"],
)
def test_a_saved_model_comes_back_as_it_was(make_text_base, make_motiongpt3, prompts, tmp_path, kind, options):
    """From the file, through every Auto class; the motion VAE frozen, and the statistics of the latents."""
    base = make_text_base(kind, **{name: value for name, value in options.items() if name != "streams"})
    model = make_motiongpt3(base=base, streams=options.get("streams", "dual"), trained_stage="joint")
    model.save_pretrained(tmp_path)
    frozen = {name for name, _ in model.named_parameters() if name.startswith("motion_vae.")}
    for auto_class in (MotionGPT3ForCausalLM, AutoModel, AutoModelForCausalLM):
        loaded = auto_class.from_pretrained(tmp_path)
        assert type(loaded) is MotionGPT3ForCausalLM and not loaded.training
        assert not weights_differ(loaded, model)
        assert {name for name, weight in loaded.named_parameters() if not weight.requires_grad} == frozen
        assert loaded.config.streams == model.config.streams and loaded.config.trained_stage == "joint"
        tied = base.config.tie_word_embeddings
        assert (loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight) == tied
        with torch.no_grad():
            assert torch.equal(loaded(**prompts).logits, model(**prompts).logits)
    assert torch.equal(generate(loaded, prompts), generate(model, prompts))


def test_what_lies_in_the_folder(motiongpt3_folder, tiny_motiongpt3, motiongpt3_processor):
    """The motion VAE alone with its feature extractor, the processor, and where the code of each class is."""
    alone = AutoModel.from_pretrained(motiongpt3_folder, subfolder="motion_vae")
    assert type(alone) is MotionVAE and not weights_differ(alone, tiny_motiongpt3.motion_vae)
    extractor = AutoFeatureExtractor.from_pretrained(motiongpt3_folder / "motion_vae")
    assert extractor.to_dict() == motiongpt3_processor.feature_extractor.to_dict()
    assert type(AutoProcessor.from_pretrained(motiongpt3_folder)) is MotionGPT3Processor
    config = json.loads((motiongpt3_folder / "config.json").read_text())
    reference = "modeling_motiongpt3.MotionGPT3ForCausalLM"
    assert config["auto_map"]["AutoModel"] == config["auto_map"]["AutoModelForCausalLM"] == reference
    assert config["auto_map"]["AutoConfig"] == "configuration_motiongpt3.MotionGPT3Config"
    assert config["custom_pipelines"].keys() == {"motion-to-text", "text-to-motion"}
    for name in ("mixture_of_transformers", "denoising_heads", "latent_motion_generation", "modeling_motion_vae"):
        assert (motiongpt3_folder / f"{name}.py").is_file()


def test_an_incomplete_checkpoint_is_refused(motiongpt3_folder, tmp_path):
    folder = shutil.copytree(motiongpt3_folder, tmp_path / "incomplete")
    weights = load_file(folder / "model.safetensors")
    del weights["latent_shift"]
    weights["language_model.transformer.h.0.motion_branch.unknown"] = weights.pop("motion_branch_norm.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="missing: latent_shift, motion_branch_norm.weight; unexpected: .*unknown"):
        AutoModelForCausalLM.from_pretrained(folder)


def test_a_model_in_half_precision_keeps_its_latents(motiongpt3_folder, tiny_motiongpt3, prompts):
    """Motion VAE and statistics stay in float32; everything else is rounded, and works."""
    loaded = AutoModelForCausalLM.from_pretrained(motiongpt3_folder, dtype=torch.bfloat16)
    kept = {name for name, weight in loaded.state_dict().items() if weight.dtype == torch.float32}
    names = loaded.state_dict().keys()
    assert kept == {name for name in names if name.startswith(("motion_vae.", "latent_sh", "latent_sc"))}
    motions = prompts["motion_values"], prompts["motion_mask"]
    assert torch.equal(loaded.encode_motion(*motions), tiny_motiongpt3.encode_motion(*motions))
    with torch.no_grad():
        size = loaded.config.text_vocab_size
        half, full = (model(**prompts).logits[..., :size].float() for model in (loaded, tiny_motiongpt3))
    assert (half - full).norm() < 0.05 * full.norm()
    assert generate(loaded, prompts).shape == (3, 8)


def test_a_model_in_half_precision_learns_and_makes_motions(motiongpt3_folder, motiongpt3_processor):
    model = AutoModelForCausalLM.from_pretrained(motiongpt3_folder, dtype=torch.bfloat16)
    example = LatentTaskExample("text-to-motion", "someone jumps", 16)
    arrays = motiongpt3_processor.prepare_examples([example], with_answers=True)
    targets = {"target_latents": torch.randn(1, 1, 16), "target_num_frames": torch.tensor([16])}
    loss = model.train()(**{name: torch.from_numpy(array) for name, array in arrays.items()}, **targets).loss
    loss.backward()
    assert loss.isfinite() and model.motion_branch_norm.weight.grad.any()
    made = model.eval().generate_motion("someone jumps", num_frames=12)
    assert made.motion_values.dtype == torch.float32 and made.motion_values.isfinite().all()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_attention_implementation_is_that_of_the_language_model(motiongpt3_folder, prompts, attention):
    loaded = AutoModelForCausalLM.from_pretrained(motiongpt3_folder, attn_implementation=attention)
    assert loaded.base.config._attn_implementation == attention
    with torch.no_grad():
        assert loaded(**prompts).logits[..., : loaded.config.text_vocab_size].isfinite().all()


def test_a_copy_is_a_model_of_its_own(tiny_motiongpt3, prompts):
    model = copy.deepcopy(tiny_motiongpt3)
    with torch.no_grad():
        wanted = tiny_motiongpt3(**prompts).logits
        assert torch.equal(model(**prompts).logits, wanted)
        model.layers[0].motion_branch.mlp.c_fc.weight.zero_()
        assert torch.equal(tiny_motiongpt3(**prompts).logits, wanted)
        assert not torch.equal(model(**prompts).logits, wanted)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert type(model.layers[0]) is type(tiny_motiongpt3.layers[0])


def test_dropout_is_off_where_the_base_has_none(make_motiongpt3):
    """A layer in training drops out as the base's does: not at all with a probability of 0."""
    model = make_motiongpt3("llama").train()
    ids = torch.tensor([[3, 4, *[model.config.motion_out_token_id] * 4, 5]])
    states = [model(ids).motion_states for _ in range(2)]
    assert torch.equal(*states)
    gpt2 = make_motiongpt3("gpt2").train()
    assert not torch.equal(gpt2(ids).motion_states, gpt2(ids).motion_states)


def test_a_generation_configuration_of_the_caller_counts(model, prompts, recwarn):
    first = int(generate(model, prompts)[0, 0])
    settings = GenerationConfig(max_new_tokens=8, min_new_tokens=8, do_sample=False, suppress_tokens=[first])
    made = model.generate(**prompts, generation_config=settings)[:, prompts["input_ids"].shape[1] :]
    assert first not in made and (made < model.config.text_vocab_size).all()
    assert settings.suppress_tokens == [first], "the caller's stays as it is"
    with pytest.raises(ValueError, match="its answer take up to 129 of the 128 positions"):
        model.generate(**prompts, generation_config=GenerationConfig(max_length=129))
    assert not [warning for warning in recwarn if "generation_config" in str(warning.message)]


def test_motions_that_the_prompt_does_not_show_are_refused(model, prompts):
    words = prompts["input_ids"].where(prompts["input_ids"] < model.config.text_vocab_size, 0)
    with pytest.raises(ValueError, match="a motion is given, but the prompt shows none"):
        model.generate(**{**prompts, "input_ids": words})
    with pytest.raises(ValueError, match="assisted generation is not possible"):
        model.generate(**prompts, prompt_lookup_num_tokens=2)


def test_a_second_turn_takes_the_motions_that_the_cache_lacks(model, prompts, check_second_turn):
    """Their slots are counted from the start of the conversation, not from where the cache ends."""
    ids = prompts["input_ids"][:1, prompts["attention_mask"][0].bool()]
    vae = model.config.vae
    check_second_turn(model, ids, torch.randn(1, 3, vae.num_latent_tokens, vae.latent_dim) * 3, 1)
