"""Published MotionGPT3 models and motion VAEs become ours, with their outputs; incomplete ones are refused."""

import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForCausalLM, AutoProcessor, PreTrainedTokenizerFast

from geomotiongpt import MotionGPT3ForCausalLM, MotionVAE
from geomotiongpt.checkpoints import check_weights
from geomotiongpt.cli import main
from geomotiongpt.convert_motiongpt3 import (
    convert_motiongpt3,
    is_published_motiongpt3,
    read_config,
    read_published,
    rearrange,
)

TABLE = "lm.language_model.transformer.wte.weight"
ALIASES = tuple(f"lm.language_model.{name}.weight" for name in ("lm_head", "pre_processors.0", "post_processors.0"))
BESIDE = {
    "_losses.losses_train.total": torch.zeros(()),
    "metrics.TM2TMetrics.t2m_textencoder.hidden": torch.ones(2),
    "metrics.MMMetrics.t2m_moveencoder.main.0.weight": torch.ones(2),
}


# A checkpoint of the published layout, at any size


def linear(name, outputs, inputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def attention(name, width):
    packed = {f"{name}.in_proj_weight": (3 * width, width), f"{name}.in_proj_bias": (3 * width,)}
    return packed | linear(f"{name}.out_proj", width, width)


def vae_shapes(num_features=263, tokens=1, width=256, layers=9, intermediate=1024):
    shapes = {"vae.global_motion_token": (2 * tokens, width)}
    shapes |= linear("vae.skel_embedding", width, num_features) | linear("vae.final_layer", num_features, width)
    half = layers // 2
    blocks = [f"{side}_blocks.{index}" for side in ("input", "output") for index in range(half)]
    for stack, attentions in (("encoder", ["self_attn"]), ("decoder", ["self_attn", "multihead_attn"])):
        shapes[f"vae.query_pos_{stack}.pe"] = (500, 1, width)
        shapes |= norm(f"vae.{stack}.norm", width)
        for index in range(half):
            shapes |= linear(f"vae.{stack}.linear_blocks.{index}", width, 2 * width)
        for block in (*blocks, "middle_block"):
            name = f"vae.{stack}.{block}"
            shapes |= linear(f"{name}.linear1", intermediate, width) | linear(f"{name}.linear2", width, intermediate)
            for number, part in enumerate(attentions):
                shapes |= attention(f"{name}.{part}", width) | norm(f"{name}.norm{number + 1}", width)
            shapes |= norm(f"{name}.norm{len(attentions) + 1}", width)
    return shapes


def head_shapes(width=768, latent=256, hidden=1024, blocks=3):
    net = "lm.diffloss.net"
    encoder = f"{net}.cond_embed.hid_encoder_layer"
    shapes = {f"{net}.cond_embed.hidden_embedding": (1, width), f"{net}.cond_embed.hid_pos.pe": (500, 1, width)}
    shapes |= linear(f"{net}.time_embed.mlp.0", hidden, 256) | linear(f"{net}.time_embed.mlp.2", hidden, hidden)
    shapes |= linear(f"{net}.input_proj", hidden, latent) | linear(f"{net}.cond_embed.cond_proj", hidden, width)
    shapes |= attention(f"{encoder}.self_attn", width) | norm(f"{encoder}.norm1", width)
    shapes |= norm(f"{encoder}.norm2", width)
    shapes |= linear(f"{encoder}.linear1", 4 * width, width) | linear(f"{encoder}.linear2", width, 4 * width)
    for index in range(blocks):
        name = f"{net}.res_blocks.{index}"
        shapes |= norm(f"{name}.in_ln", hidden) | linear(f"{name}.adaLN_modulation.1", 3 * hidden, hidden)
        shapes |= linear(f"{name}.mlp.0", hidden, hidden) | linear(f"{name}.mlp.2", hidden, hidden)
    shapes |= linear(f"{net}.final_layer.linear", latent, hidden)
    return shapes | linear(f"{net}.final_layer.adaLN_modulation.1", 2 * hidden, hidden)


def language_model_shapes(num_text=50257, width=768, layers=12, positions=1024, latent=256, intermediate=3072):
    name = "lm.language_model"
    shapes = dict.fromkeys((TABLE, *ALIASES), (num_text + 2, width))
    shapes[f"{name}.transformer.wpe.weight"] = (positions, width)
    shapes |= dict.fromkeys((f"{name}.pre_processors.1.weight", f"{name}.post_processors.1.weight"), (6, width))
    transposed = {  # (in, out)
        "c_attn.fn.{}": (width, 3 * width),
        "c_proj.fn.{}": (width, width),
        "mlp.fn.{}.c_fc": (width, intermediate),
        "mlp.fn.{}.c_proj": (intermediate, width),
    }
    for branch in (0, 1):
        shapes |= norm(f"{name}.transformer.ln_f.fn.{branch}", width)
        for index in range(layers):
            layer = f"{name}.transformer.h.{index}"
            shapes |= norm(f"{layer}.ln_1.fn.{branch}", width) | norm(f"{layer}.ln_2.fn.{branch}", width)
            for part, shape in transposed.items():
                shapes[f"{layer}.{part.format(branch)}.weight"] = shape
                shapes[f"{layer}.{part.format(branch)}.bias"] = shape[1:]
    return shapes | {"lm.fake_latent": (4, width)} | linear("lm.motion_und_head.layers", 4 * width, latent)


def fill(shapes, seed=0):
    """Random weights; the aliases of the text table are the table."""
    generator = torch.Generator().manual_seed(seed)
    weights = {key: 0.2 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    return weights | {key: weights[TABLE] for key in ALIASES if key in shapes}


@pytest.fixture(scope="module")
def weights(trained_text_tokenizer):
    """A whole model of width 128, with the words of the text tokenizer."""
    num_text = len(PreTrainedTokenizerFast.from_pretrained(trained_text_tokenizer))
    shapes = language_model_shapes(num_text, 128, 2, 96, 16, 80) | head_shapes(128, 16, 32, 2)
    return fill(shapes | vae_shapes(width=16, layers=3, intermediate=24)) | BESIDE


@pytest.fixture(scope="module")
def statistics(tmp_path_factory):
    folder = tmp_path_factory.mktemp("statistics")
    generator = np.random.default_rng(0)
    np.save(folder / "Mean.npy", generator.normal(size=263).astype(np.float32))
    np.save(folder / "Std.npy", generator.uniform(1, 2, size=263).astype(np.float32))
    return folder


@pytest.fixture(scope="module", params=["bare.pth", "wrapped.ckpt", "bare.safetensors"])
def converted(request, weights, statistics, trained_text_tokenizer, tmp_path_factory):
    """Folder of the converted model, with its processor."""
    folder = tmp_path_factory.mktemp("published")
    checkpoint = folder / request.param
    if checkpoint.suffix == ".safetensors":  # which keeps one name of a tensor that several share
        save_file({key: weight for key, weight in weights.items() if key not in (TABLE, *ALIASES[1:])}, checkpoint)
    else:
        torch.save({"state_dict": weights, "epoch": 3} if checkpoint.stem == "wrapped" else weights, checkpoint)
    return convert_motiongpt3(checkpoint, folder / "converted", data=statistics, text_tokenizer=trained_text_tokenizer)


# Outputs match the published implementation


def assert_near(name, value, expected, tolerance=1e-5):
    assert value.shape == expected.shape, name
    error = float((value - expected).abs().max())
    print(f"{name}: largest error {error:.1e}")
    assert error < tolerance, f"{name}: largest error {error}"


@pytest.fixture(scope="module")
def parity(real_data):
    folder = real_data / "reference" / "parity"
    return {name: load_file(folder / f"{name}.safetensors") for name in ("motiongpt3_mot", "diffusion_head")}


def renamed(tensors, prefix):
    return {
        prefix + key.removeprefix("weights."): value for key, value in tensors.items() if key.startswith("weights.")
    }


@pytest.fixture(scope="module")
def published_model(parity, tmp_path_factory):
    """The published language model and diffusion head, with a random motion VAE, converted and loaded."""
    folder = tmp_path_factory.mktemp("published")
    weights = renamed(parity["motiongpt3_mot"], "lm.") | renamed(parity["diffusion_head"], "lm.diffloss.")
    torch.save(weights | fill(vae_shapes(width=16, layers=3, intermediate=24)), folder / "model.ckpt")
    convert_motiongpt3(folder / "model.ckpt", folder / "model", num_heads=4)
    return AutoModelForCausalLM.from_pretrained(folder / "model").eval()


NUM_TEXT, MASKED = 301, 303


def our_ids(published):
    """Published ids [text | start, end | masked, padding, output holder, input holder] as ours."""
    place = torch.tensor([*range(NUM_TEXT), 302, 303, 305, -1, 305, 304])  # masked motion has no id: some slot
    return place[published]


def published_logits(logits):
    """Ours [text | <motion_pad>, <motion>, </motion> | slots] as [text | start, end]."""
    return torch.cat([logits[..., :NUM_TEXT], logits[..., NUM_TEXT + 1 : NUM_TEXT + 3]], dim=-1)


@contextmanager
def recorded(model):
    """Inputs of every layer, and outputs of the last norms, of what runs inside: rows of text and rows of motion."""
    states, handles = {}, []

    def keep_inputs(name):
        return lambda _, rows: states.update(zip((f"{name}.text", f"{name}.motion"), rows, strict=True))

    def keep_output(name):
        return lambda _, inputs, output: states.update({name: output})

    for index, layer in enumerate(model.layers):
        handles.append(layer.register_forward_pre_hook(keep_inputs(f"layer{index}_input")))
    for kind, module in (("text", model.base.ln_f), ("motion", model.motion_branch_norm)):
        handles.append(module.register_forward_hook(keep_output(f"final.{kind}")))
    yield states
    for handle in handles:
        handle.remove()


def compare_states(states, published, scenario, kinds):
    """With the published ones, at the positions of each kind."""
    assert len(states) == 8
    for name, rows in states.items():
        expected = published[f"outputs.{scenario}.hidden.{name}"][: len(kinds)]
        expected = expected[kinds == int(name.endswith("motion"))]
        assert_near(f"{scenario} {name} (largest {float(expected.abs().max()):.1f})", rows, expected)


@torch.no_grad()
@pytest.mark.parametrize(("scenario", "num_rows"), [("train", 2), ("t2m", 2)])
def test_hidden_states_and_logits_are_the_published_ones(parity, published_model, scenario, num_rows):
    """Row 2 of "train" has two motions and masked ones: see below."""
    published = parity["motiongpt3_mot"]
    ids, mask, kinds, scaled = (
        published[f"inputs.{scenario}.{name}"][:num_rows]
        for name in ("global_ids", "attention_mask", "type_ids", "motion_latents_scaled")
    )
    assert published_model.config.num_motion_slots == 4
    latents = published_model.restore(scaled[:, :1])
    with recorded(published_model) as states:
        output = published_model(our_ids(ids), attention_mask=mask, latents=latents)
    compare_states(states, published, scenario, kinds)
    text = kinds == 0
    expected = published[f"outputs.{scenario}.logits.text"][:num_rows]
    assert_near(f"{scenario} logits", published_logits(output.logits)[text], expected[text], 2e-5)
    condition = published[f"outputs.{scenario}.motion_condition"][: len(output.motion_states)]
    assert_near(f"{scenario} motion condition", output.motion_states, condition)


@torch.no_grad()
def test_a_prompt_with_several_motions_and_the_published_loss(parity, published_model):
    """From the published input embeddings, which the slots of several motions and masked ones have of their own."""
    published, model = parity["motiongpt3_mot"], published_model
    kinds, labels = published["inputs.train.type_ids"], published["inputs.train.labels"]
    embeddings = published["outputs.train.input_embeddings.text"] + published["outputs.train.input_embeddings.motion"]
    mask = published["inputs.train.attention_mask"]
    with recorded(model) as states:
        last = model.mix(embeddings, kinds == 1, attention_mask=mask).last_hidden_state
    compare_states(states, published, "train", kinds)
    table = torch.cat([model.language_model.lm_head.weight, model.marker_embedding.weight[1:3]])
    logits = (last @ table.T) * (kinds == 0).unsqueeze(-1)
    assert_near("train logits", logits, published["outputs.train.logits.text"], 2e-5)
    targets = labels.masked_fill(kinds == 1, -100)[:, 1:]
    assert (targets == 300).sum() > 80, "targets at padding count"
    loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten())
    assert_near("text loss", loss, published["outputs.train.text_loss"])


@torch.no_grad()
def test_several_motions_fill_their_slots_one_after_the_other(parity, published_model):
    """On purpose: the published code interleaves them, (motion 0, part 0), (motion 1, part 0), ..."""
    published, model = parity["motiongpt3_mot"], published_model
    ids, raw = published["inputs.train.global_ids"][2:], published["inputs.train.motion_latents_raw"][2:]
    with recorded(model) as states:
        model(our_ids(ids), latents=raw[:, :2].unsqueeze(2))
    rows = (ids == 306)[published["inputs.train.type_ids"][2:] == 1]
    positions = (ids[0] == 306).nonzero().flatten()
    ours = states["layer0_input.motion"][rows] - model.base.wpe(positions)
    theirs = published["outputs.train.input_embeddings.motion"][2, positions]
    assert_near("slots", ours.unflatten(0, (2, 4)), theirs.unflatten(0, (4, 2)).transpose(0, 1))


@torch.no_grad()
def test_prompts_padded_on_the_left_score_as_published(parity, published_model):
    published = parity["motiongpt3_mot"]
    ids, mask = published["inputs.m2t.global_ids"], published["inputs.m2t.attention_mask"]
    position_ids = published["outputs.m2t.prefill_position_ids"]
    latents = published_model.restore(published["inputs.m2t.motion_latents_scaled"])
    output = published_model(our_ids(ids), attention_mask=mask, position_ids=position_ids, latents=latents)
    text = (mask == 1) & (published["inputs.m2t.type_ids"] == 0)
    expected = published["outputs.m2t.prefill_logits.text"][text]
    assert_near("m2t prompt", published_logits(output.logits)[text], expected, 2e-5)


@torch.no_grad()
def test_captions_are_the_published_ones(parity, published_model):
    """Greedy, with the repetition penalty that is saved with the model, and the cache."""
    published = parity["motiongpt3_mot"]
    prompts = our_ids(published["inputs.m2t.global_ids"])
    output = published_model.generate(
        prompts,
        attention_mask=published["inputs.m2t.attention_mask"],
        latents=published_model.restore(published["inputs.m2t.motion_latents_scaled"]),
        max_new_tokens=12,
        output_logits=True,
        return_dict_in_generate=True,
    )
    assert torch.equal(output.sequences[:, prompts.shape[1] :], published["outputs.m2t.generated_ids"])
    expected = published["outputs.m2t.step_logits.text"]
    assert_near("m2t steps", published_logits(torch.stack(output.logits, dim=1)), expected, 2e-5)


@torch.no_grad()
def test_the_diffusion_head_is_the_published_one(parity, published_model):
    published, head = parity["diffusion_head"], published_model.denoising_head
    embedding = head.condition_encoder(published["inputs.condition"])
    noisy = published["inputs.noisy_latents"].squeeze(1)
    predicted = head.denoiser(noisy, published["inputs.timesteps"], embedding)
    assert_near("predicted noise", predicted, published["outputs.predicted_noise"].squeeze(1))
    generator = torch.Generator().manual_seed(int(published["inputs.sample.entry_seed"]))
    sample = head.sample(published["inputs.sample.condition"], generator=generator)
    assert_near("sample", sample, published["outputs.sample.entry_point"].squeeze(1))
    null = parity["motiongpt3_mot"]["weights.fake_latent"]
    assert torch.equal(head.null_condition, null) and null.abs().max() > 0


@torch.no_grad()
@pytest.mark.parametrize("name", ["mld_vae", "mld_vae_multitoken"])
def test_a_motion_vae_alone_gives_the_published_numbers(real_data, tmp_path, name):
    published = load_file(real_data / "reference" / "parity" / f"{name}.safetensors")
    torch.save({"state_dict": renamed(published, "vae.") | BESIDE, "epoch": 1}, tmp_path / "vae.ckpt")
    assert is_published_motiongpt3(tmp_path / "vae.ckpt")
    model = AutoModel.from_pretrained(convert_motiongpt3(tmp_path / "vae.ckpt", tmp_path / "vae")).eval()
    assert isinstance(model, MotionVAE)
    lengths = published["inputs.lengths"]
    mask = torch.arange(60) < lengths.unsqueeze(-1)
    encoded = model.encode(published["inputs.features"], mask)
    assert_near(f"{name} mean", encoded.mean, published["outputs.mean"].transpose(0, 1))
    assert_near(f"{name} log variance", encoded.log_variance, published["outputs.logvar"].transpose(0, 1))
    decoded = model.decode(encoded.mean, lengths).motion_values
    assert_near(f"{name} decoded", decoded, published["outputs.decoded_features"])
    noise = published["inputs.eps"].transpose(0, 1)
    sampled = encoded.mean + (encoded.log_variance / 2).exp() * noise
    assert_near(f"{name} sample", sampled, published["outputs.latent_sampled"].transpose(0, 1))
    decoded = model.decode(sampled, lengths).motion_values
    assert_near(f"{name} sample decoded", decoded, published["outputs.decoded_features_sampled"])


# What becomes of a checkpoint


def test_every_weight_comes_from_its_place(converted, weights):
    model = AutoModel.from_pretrained(converted)
    assert isinstance(model, MotionGPT3ForCausalLM)
    state, num_text = model.state_dict(), model.config.text_vocab_size
    table, rows = weights[TABLE], weights["lm.language_model.pre_processors.1.weight"]
    assert num_text == len(table) - 2
    assert torch.equal(state["language_model.transformer.wte.weight"], table[:-2])
    assert torch.equal(state["language_model.lm_head.weight"], table[:-2])
    markers = torch.stack([table[model.config.text_config.eos_token_id], table[-2], table[-1], rows[3], rows[2]])
    assert torch.equal(state["marker_embedding.weight"], markers)
    assert (state["latent_shift"] == 0).all() and torch.equal(state["latent_scale"], torch.full((16,), 0.8457))
    lm, layer = "lm.language_model.transformer.", "language_model.transformer.h.1."
    for ours, theirs in {
        "language_model.transformer.wpe.weight": lm + "wpe.weight",
        "language_model.transformer.ln_f.bias": lm + "ln_f.fn.0.bias",
        "motion_branch_norm.bias": lm + "ln_f.fn.1.bias",
        layer + "attn.c_proj.weight": lm + "h.1.c_proj.fn.0.weight",
        layer + "motion_branch.attn.c_proj.weight": lm + "h.1.c_proj.fn.1.weight",
        layer + "motion_branch.mlp.c_proj.weight": lm + "h.1.mlp.fn.1.c_proj.weight",
        "motion_input.weight": "lm.motion_und_head.layers.weight",
        "denoising_head.null_condition": "lm.fake_latent",
        "motion_vae.decoder.output_blocks.0.multihead_attn.in_proj_weight": (
            "vae.decoder.output_blocks.0.multihead_attn.in_proj_weight"
        ),
    }.items():
        assert torch.equal(state[ours], weights[theirs]), ours
    positions = weights["lm.diffloss.net.cond_embed.hid_pos.pe"][:5, 0]
    assert torch.equal(state["denoising_head.condition_encoder.pooling.positions"], positions)
    taken = sum(weight.numel() for name, weight in state.items() if not name.startswith(("length_head", "latent_")))
    published = sum(weight.numel() for key, weight in weights.items() if key not in (*BESIDE, *ALIASES))
    dropped, doubled = 128 * (4 + 6 + 495), 128 * (num_text + 1)  # rows of motion and positions; head, <motion_pad>
    assert taken == published - dropped + doubled


def test_a_converted_model_captions_makes_motions_and_survives_another_save(converted, statistics, clips, tmp_path):
    model, processor = AutoModelForCausalLM.from_pretrained(converted).eval(), AutoProcessor.from_pretrained(converted)
    options, end = model.generation_config, processor.tokenizer.eos_token_id
    assert (options.max_new_tokens, options.do_sample, options.repetition_penalty) == (40, False, 1.1)
    assert options.eos_token_id == model.config.text_config.eos_token_id == end
    assert model.config.text_config.n_head == 2 and model.config.max_frames == 196
    np.testing.assert_array_equal(np.float32(processor.feature_extractor.mean), np.load(statistics / "Mean.npy"))
    assert processor.feature_extractor.downsampling_factor == 1
    inputs = processor(motion=clips)
    generated = model.generate(**inputs, max_new_tokens=4)
    assert len(processor.post_process_text(generated, inputs["input_ids"].shape[1])) == 3
    seeded = {"num_denoising_steps": 3, "num_frames": [20, 30], "processor": processor}
    captions = ["a person walks", "someone jumps"]
    made = model.generate_motion(captions, **seeded, generator=torch.Generator().manual_seed(0))
    assert made.motion_mask.sum(-1).tolist() == [20, 30] and made.motion_values.isfinite().all()
    model.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again").eval()
    assert all(torch.equal(again.state_dict()[name], weight) for name, weight in model.state_dict().items())
    remade = again.generate_motion(captions, **seeded, generator=torch.Generator().manual_seed(0))
    assert torch.equal(remade.motion_values, made.motion_values)


def test_a_converted_model_does_not_invent_lengths(converted):
    """The published model has no length predictor: one frame, or any other number, would be made up."""
    model = AutoModelForCausalLM.from_pretrained(converted)
    assert model.config.has_length_predictor is False
    options = {"num_denoising_steps": 1, "processor": AutoProcessor.from_pretrained(converted)}
    with pytest.raises(ValueError, match="no length predictor.*num_frames"):
        model.generate_motion("a person walks", **options)
    with pytest.raises(ValueError, match="no length predictor.*num_frames"):
        model.generate_motion(["a person walks", "someone jumps"], num_frames=[20, None], **options)


def test_heads_which_no_weight_shows_can_be_named(weights, tmp_path):
    torch.save(weights, tmp_path / "model.ckpt")
    heads = {"num_heads": 8, "num_vae_heads": 1, "num_condition_heads": 16}
    model = AutoModel.from_pretrained(convert_motiongpt3(tmp_path / "model.ckpt", tmp_path / "model", **heads))
    assert {layer.attn.num_heads for layer in model.layers} == {8}
    assert model.motion_vae.encoder.middle_block.self_attn.num_heads == 1
    assert model.denoising_head.condition_encoder.pooling.encoder_layer.self_attn.num_heads == 16


def test_a_motion_vae_alone_is_saved_with_its_statistics(statistics, tmp_path):
    for num_features, seed in ((263, 1), (251, 2)):
        folder = tmp_path / str(num_features)
        (folder / "data").mkdir(parents=True)
        for name in ("Mean", "Std"):
            np.save(folder / "data" / f"{name}.npy", np.load(statistics / f"{name}.npy")[:num_features])
        weights = fill(vae_shapes(num_features, 2, 16, 5, 24), seed)
        torch.save(weights, folder / "vae.pth")
        model = AutoModel.from_pretrained(
            convert_motiongpt3(folder / "vae.pth", folder / "vae", data=folder / "data", num_vae_heads=2)
        )
        config = model.config
        assert (config.num_features, config.num_latent_tokens, config.latent_dim) == (num_features, 2, 16)
        assert (config.num_layers, config.num_heads, config.intermediate_size) == (5, 2, 24)
        assert config.max_positions == 500
        assert torch.equal(model.decoder_positions, weights["vae.query_pos_decoder.pe"][:, 0])
        extractor = AutoFeatureExtractor.from_pretrained(folder / "vae")
        assert extractor.feature_size == num_features and extractor.downsampling_factor == 1
        np.testing.assert_array_equal(np.float32(extractor.std), np.load(folder / "data" / "Std.npy"))


def test_the_published_size_fits_completely(real_data):
    """Every key of the published checkpoint has its place, and the sizes are the published ones."""
    listed = json.loads((real_data / "reference/parity/published_state_dicts.json").read_text())["motiongpt3_full"]
    losses = {key for key in listed["keys"] if key.startswith("_losses.")}
    shapes = language_model_shapes() | head_shapes() | vae_shapes()
    assert {key: list(shape) for key, shape in shapes.items()} == {
        key: shape for key, shape in listed["keys"].items() if key not in losses
    }
    weights = read_published(
        {key: torch.zeros(()).expand(shape) for key, shape in listed["keys"].items()}, "published"
    )
    config = read_config(weights, "published")
    with torch.device("meta"):
        model = MotionGPT3ForCausalLM(config)
    check_weights(rearrange(weights, config), model.state_dict(), "published")
    text = config.text_config
    assert (text.n_layer, text.n_head, text.n_positions, text.vocab_size) == (12, 12, 1024, 50257)
    assert (config.text_config.eos_token_id, config.motion_start_token_id) == (50256, 50258)
    default, sizes = type(config)(), config.to_dict()
    facts_of_the_conversion = {"max_motion_frames", "has_length_predictor", "text_config", "trained_stage"}
    for name, value in default.to_dict().items():
        assert name in facts_of_the_conversion or sizes[name] == value, name
    parameters = {name: parameter.numel() for name, parameter in model.named_parameters()}

    def count(*words):
        return sum(size for name, size in parameters.items() if any(word in name for word in words))

    wanted, row = listed["parameters"], 768
    text_size = sum(parameter.numel() for parameter in model.text_parameters().values())
    assert text_size + 2 * row == wanted["language_model_text_branch"] == 124_441_344, "and <motion>, </motion>"
    motion_size = count("motion_branch") + 2 * row
    assert motion_size + (4 + 6) * row == wanted["language_model_motion_branch"] == 85_065_216, "unused rows, head"
    head_size = count("denoising_head.") - count("null_condition")
    assert head_size + 495 * row == wanted["diffusion_head"] == 27_947_776, "positions that are never read"
    assert count("motion_input") == wanted["input_projection"] == 789_504
    assert count("motion_vae") == wanted["vae"]


# Which checkpoint is it


def test_kinds_of_checkpoints_are_told_apart(weights, tmp_path):
    vae = {key: weight for key, weight in weights.items() if key.startswith("vae.")}
    geomotiongpt = {**vae, TABLE: weights[TABLE], "lm.language_model.transformer.h.0.ln_1.bias": torch.ones(2)}
    tokenizer = {"vqvae.quantizer.codebook.weight": torch.ones(2, 2)}
    kinds = ((weights, True), (vae, True), (geomotiongpt, False), (tokenizer, False), ([torch.ones(2)], False))
    for state, expected in kinds:
        torch.save(state, tmp_path / "any.ckpt")
        assert is_published_motiongpt3(tmp_path / "any.ckpt") is expected


def test_the_command_recognises_the_kind(weights, statistics, trained_text_tokenizer, tmp_path, capsys):
    torch.save(weights, tmp_path / "model.ckpt")
    torch.save({key: weight for key, weight in weights.items() if key.startswith("vae.")}, tmp_path / "vae.ckpt")
    options = ["--data", str(statistics), "--text-tokenizer", str(trained_text_tokenizer)]
    assert main(["convert", str(tmp_path / "model.ckpt"), str(tmp_path / "model"), *options]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "model")
    assert AutoProcessor.from_pretrained(tmp_path / "model").num_motion_slots == 4
    assert main(["convert", str(tmp_path / "vae.ckpt"), str(tmp_path / "vae")]) == 0
    assert isinstance(AutoModel.from_pretrained(tmp_path / "vae"), MotionVAE)
    capsys.readouterr()
    for checkpoint, given, message in (
        ("model.ckpt", ["--motion-tokenizer", "x"], "--motion-tokenizer: no effect on a MotionGPT3 checkpoint"),
        ("vae.ckpt", ["--word-vectors", "x"], "--word-vectors: no effect on a MotionGPT3 checkpoint"),
        ("vae.ckpt", options, "has no use for a text tokenizer"),
        ("model.ckpt", options[:2], "give both or none"),
    ):
        assert main(["convert", str(tmp_path / checkpoint), str(tmp_path / "other"), *given]) == 2
        assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.ckpt", "vae", "vae.ckpt"]


# What is refused


def test_incomplete_and_foreign_checkpoints_are_refused(weights, tmp_path):
    checkpoint, lm, net = tmp_path / "model.ckpt", "lm.language_model.", "lm.diffloss.net."

    def refuse(message, /, changes=None, **options):
        state = {key: weight for key, weight in {**weights, **(changes or {})}.items() if weight is not None}
        torch.save(state, checkpoint)
        with pytest.raises(ValueError, match=message):
            convert_motiongpt3(checkpoint, tmp_path / "model", **options)
        assert [path.name for path in tmp_path.iterdir()] == ["model.ckpt"]

    def without(beginning):
        return {key: None for key in weights if key.startswith(beginning)}

    refuse("unknown keys: lm.extra", {"lm.extra": torch.ones(2)})
    refuse("unknown keys: vqvae.x", {"vqvae.x": torch.ones(2)})
    refuse(r"unknown keys: .*h\.0\.c_attn\.fn\.2\.bias", {lm + "transformer.h.0.c_attn.fn.2.bias": torch.ones(2)})
    refuse("motion_vae.encoder.surplus; wanted no such weight", {"vae.encoder.surplus": torch.ones(2)})
    refuse("has no vae.global_motion_token: it is no published", {"vae.global_motion_token": None})
    refuse("has no tensor for lm.fake_latent", {"lm.fake_latent": 3.0})
    refuse("lacks the weights of denoising_head.null_condition", {"lm.fake_latent": None})
    refuse(r"lacks .*h\.1\.motion_branch\.ln_2\.bias", {lm + "transformer.h.1.ln_2.fn.1.bias": None})
    refuse(r"lacks .*transformer\.h\.0\.attn\.c_attn\.bias", {lm + "transformer.h.0.c_attn.fn.0.bias": None})
    refuse("lacks .*transformer.wpe.weight", {lm + "transformer.wpe.weight": None})
    refuse("lacks .*pre_processors.1.weight", {lm + "pre_processors.1.weight": None})
    refuse("lacks .*transformer.wte.weight", dict.fromkeys((TABLE, *ALIASES)))
    refuse("lacks .*transformer.h.0.mlp.fn.0.c_fc.weight", without(lm + "transformer.h."))
    refuse("lacks .*res_blocks.0.in_ln.weight", without(net + "res_blocks."))
    refuse("lacks .*denoiser.blocks.0.mlp.2.bias", {net + "res_blocks.0.mlp.2.bias": None})
    refuse("lacks .*motion_vae.decoder.skip_projections.0.bias", {"vae.decoder.linear_blocks.0.bias": None})
    refuse("lacks .*vae.query_pos_encoder.pe", {"vae.query_pos_encoder.pe": None})
    refuse(
        r"has \(3,\) for motion_branch_norm.bias; wanted \(128,\)", {lm + "transformer.ln_f.fn.1.bias": torch.ones(3)}
    )
    refuse(r"has \(3, 128\) for denoising_head.null_condition", {"lm.fake_latent": torch.ones(3, 128)})
    refuse(r"has \(7,\) for .*decoder_positions", {"vae.query_pos_decoder.pe": torch.ones(7)})
    refuse("no row for the input holder", {lm + "pre_processors.1.weight": torch.ones(3, 128)})
    for key in ALIASES:
        refuse(f"{key} is not {TABLE}; the published model has one", {key: weights[TABLE].flip(0)})
    narrow = {"vae.final_layer.weight": torch.ones(100, 16)}
    refuse("takes 100 features; known representations have", narrow)
    others = {key: weight[:251] for key, weight in weights.items() if key.startswith("vae.final_layer.")}
    refuse("takes 251 features; the published scale of latents, 0.8457, is that of HumanML3D", others)
    refuse("is of width 128; num_heads, 3, does not divide it", num_heads=3)
    refuse("is of width 128; num_condition_heads, 0, does not", num_condition_heads=0)
    refuse("latent_dim is 16; it must be a multiple of num_heads, 5", num_vae_heads=5)
    refuse("plain tensors: it would run code of .*print", {"metrics.payload": print})


def test_parts_of_another_model_are_refused(weights, statistics, trained_text_tokenizer, tmp_path):
    checkpoint, output = tmp_path / "model.ckpt", tmp_path / "model"
    torch.save(weights, checkpoint)
    both = {"data": statistics, "text_tokenizer": trained_text_tokenizer}
    for name, value in both.items():
        with pytest.raises(ValueError, match="a processor takes both"):
            convert_motiongpt3(checkpoint, output, **{name: value})
    with pytest.raises(FileNotFoundError, match="Mean.npy: no such file; it belongs to the data that the motion VAE"):
        convert_motiongpt3(checkpoint, output, **{**both, "data": tmp_path})
    with pytest.raises(ValueError, match="no folder of a text tokenizer"):
        convert_motiongpt3(checkpoint, output, **{**both, "text_tokenizer": tmp_path})
    with pytest.raises(FileNotFoundError, match="absent.ckpt: no such checkpoint"):
        convert_motiongpt3(tmp_path / "absent.ckpt", output)
    longer = torch.cat([weights[TABLE], torch.ones(1, 128)])
    torch.save(weights | dict.fromkeys((TABLE, *ALIASES), longer), checkpoint)
    with pytest.raises(ValueError, match=f"a table of {len(longer)} rows; that are not {len(longer) - 3} text tokens"):
        convert_motiongpt3(checkpoint, output, **both)
    torch.save({key: weight for key, weight in weights.items() if key.startswith("vae.")}, checkpoint)
    with pytest.raises(ValueError, match="holds a motion VAE alone, which has no use for a text tokenizer"):
        convert_motiongpt3(checkpoint, output, **both)
    assert [path.name for path in tmp_path.iterdir()] == ["model.ckpt"]
    output.mkdir()
    (output / "notes").touch()
    with pytest.raises(ValueError, match="is not an empty folder"):
        convert_motiongpt3(checkpoint, output)
    assert [path.name for path in output.iterdir()] == ["notes"]
