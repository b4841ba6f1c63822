"""Two branches and one attention: what the base model computes stays, and each branch computes its own positions."""

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from geomotiongpt import MotionGPT3Config, MotionGPT3ForCausalLM

KINDS = ("gpt2", "llama", "qwen2", "qwen3", "smollm3")
LENGTH = 24
MOTIONS = ((slice(5, 11), slice(17, 19)), (slice(0, 4),), ())  # of each row


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


# In double precision: the order of a sum is no excuse for a difference


@pytest.fixture(scope="module")
def base(kind, make_text_base):
    return make_text_base(kind).double()


@pytest.fixture(scope="module")
def mixed(kind, make_motiongpt3):
    """With a motion branch of its own; never changed."""
    return make_motiongpt3(kind).double()


@pytest.fixture(scope="module")
def copied(kind, make_motiongpt3):
    """With a motion branch that is a copy of the text branch."""
    return make_motiongpt3(kind, start_from_text=True).double()


@pytest.fixture(scope="module")
def embeds(base):
    """Three rows, as the embedding of random tokens."""
    ids = torch.randint(base.config.vocab_size, (3, LENGTH), generator=torch.Generator().manual_seed(4))
    return base.get_input_embeddings()(ids).detach()


@pytest.fixture(scope="module")
def is_motion():
    mask = torch.zeros(3, LENGTH, dtype=torch.bool)
    for row, slices in zip(mask, MOTIONS, strict=True):
        for places in slices:
            row[places] = True
    return mask


def states(model, embeds, is_motion=None, **inputs):
    is_motion = torch.zeros(embeds.shape[:2], dtype=torch.bool) if is_motion is None else is_motion
    with torch.no_grad():
        return model.mix(embeds, is_motion, **inputs).last_hidden_state


def base_states(base, embeds, **inputs):
    with torch.no_grad():
        return base.base_model(inputs_embeds=embeds, **inputs).last_hidden_state


def assert_near(value, wanted, tolerance=1e-6):
    torch.testing.assert_close(value, wanted, rtol=tolerance, atol=tolerance)


def pad(rows, side, width=30, filling=0.0):
    """Rows of different lengths -> (rows, width, ...), their mask and positions that do not count the padding."""
    padded = torch.full((len(rows), width, *rows[0].shape[1:]), filling, dtype=rows[0].dtype)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        span = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        padded[index, span], mask[index, span] = row, 1
    return padded, mask, (mask.cumsum(-1) - 1).clamp(min=0)


# What the base computes stays


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_text_is_computed_as_by_the_base_bit_for_bit(base, mixed, embeds, attention):
    """In single precision; also in a padded batch."""
    base, model, embeds = copy.deepcopy(base).float(), copy.deepcopy(mixed).float(), embeds.float()
    mask = torch.ones(3, LENGTH, dtype=torch.long)
    mask[1, 9:] = mask[2, :7] = 0
    for language_model in (base, model.language_model):
        language_model.set_attn_implementation(attention)
    assert model.base.config._attn_implementation == attention
    assert torch.equal(states(model, embeds), base_states(base, embeds))
    padded = states(model, embeds, attention_mask=mask)
    assert torch.equal(padded, base_states(base, embeds, attention_mask=mask))
    assert not torch.equal(padded, base_states(base, embeds))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_copy_of_the_text_branch_gives_the_hidden_states_of_the_base(base, copied, embeds, is_motion, attention):
    model, tolerance = copy.deepcopy(copied), 1e-6
    if attention == "eager":  # made for single precision: in double, padding on the left becomes NaN
        base, model, embeds, tolerance = copy.deepcopy(base).float(), model.float(), embeds.float(), 1e-5
    for language_model in (base, model.language_model):
        language_model.set_attn_implementation(attention)
    wanted = base_states(base, embeds)
    assert wanted.std() > 0.3
    assert_near(states(model, embeds, is_motion), wanted, tolerance)
    mask = torch.ones(3, LENGTH, dtype=torch.long)
    mask[0, 20:] = mask[1, :2] = mask[2, :7] = 0
    real, padded = mask.bool(), base_states(base, embeds, attention_mask=mask)
    assert_near(states(model, embeds, is_motion, attention_mask=mask)[real], padded[real], tolerance)
    assert (padded - wanted)[1:, 8:].abs().amax(-1).min() > 1e-3, "what is padded is not attended to"
    assert_near(states(model, embeds, torch.ones_like(is_motion)), wanted, tolerance)


def test_the_attention_implementation_can_be_set(make_motiongpt3):
    """Of the whole model, which has a motion VAE too."""
    model = make_motiongpt3()
    for attention in ("eager", "sdpa"):
        model.set_attn_implementation(attention)
        assert model.base.config._attn_implementation == attention


def test_motion_goes_through_other_weights(base, mixed, embeds, is_motion):
    made, wanted = states(mixed, embeds, is_motion), base_states(base, embeds)
    assert (made - wanted)[is_motion].abs().amax(-1).min() > 1e-2
    assert_near(made[0, :5], wanted[0, :5])
    assert (made - wanted)[0, 11:].abs().amax(-1).min() > 1e-3, "text after motion attends to it"


def test_a_text_prefix_is_not_changed_by_later_motion(mixed, embeds, is_motion):
    made, text = states(mixed, embeds, is_motion), states(mixed, embeds)
    assert_near(made[0, :5], text[0, :5])
    assert_near(made[2], text[2])
    changed = embeds.clone()
    changed[:, 12:] = changed[:, 12:].flip(0)
    assert_near(states(mixed, changed, is_motion)[:, :12], made[:, :12])


@pytest.mark.parametrize("layers", ["qwen2", "qwen3", "mistral", "smollm3"])
def test_sliding_windows_are_those_of_the_base(make_text_base, make_motiongpt3, embeds_of, is_motion, layers):
    """Mistral's configuration says the window of all layers, the others' layers say their own."""
    options = {"sliding_window": 6}
    if layers != "mistral":
        kinds = ["sliding_attention", "full_attention"] + ["full_attention"] * (layers == "smollm3")
        options |= {"use_sliding_window": True, "layer_types": kinds}
    base = make_text_base(layers, **options)
    model = make_motiongpt3(base=base, start_from_text=True).double()
    base.double()
    embeds = embeds_of(base)
    wanted = base_states(base, embeds)
    assert (wanted - base_states(make_text_base(layers).double(), embeds)).abs().max() > 1e-2, (
        "the window changes nothing"
    )
    assert_near(states(model, embeds, is_motion), wanted)
    cache = DynamicCache(config=base.config)
    parts = [
        states(model, embeds[:, span], is_motion[:, span], past_key_values=cache, use_cache=True)
        for span in (slice(0, 8), slice(8, 20), slice(20, LENGTH))
    ]
    assert_near(torch.cat(parts, dim=1), wanted)


@pytest.fixture(scope="module")
def embeds_of():
    def embed(base):
        ids = torch.randint(base.config.vocab_size, (3, LENGTH), generator=torch.Generator().manual_seed(4))
        return base.get_input_embeddings()(ids).detach()

    return embed


# Cache, padding, batch


@pytest.mark.parametrize("cut", [1, 5, 8, 11, 18, 23])
def test_a_cache_gives_what_recomputing_gives(mixed, embeds, is_motion, cut):
    """Wherever the sequence is cut, also inside a motion."""
    wanted = states(mixed, embeds, is_motion)
    cache = None
    for span in (slice(0, cut), slice(cut, LENGTH)):
        with torch.no_grad():
            output = mixed.mix(embeds[:, span], is_motion[:, span], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        assert_near(output.last_hidden_state, wanted[:, span])
    assert cache.get_seq_length() == LENGTH


def test_one_position_after_another_gives_what_recomputing_gives(mixed, embeds, is_motion):
    cache, made = DynamicCache(config=mixed.base.config), []
    for place in range(LENGTH):
        span = slice(place, place + 1)
        made.append(states(mixed, embeds[:, span], is_motion[:, span], past_key_values=cache, use_cache=True))
    assert_near(torch.cat(made, dim=1), states(mixed, embeds, is_motion))


@pytest.mark.parametrize("side", ["left", "right"])
def test_neither_padding_nor_batch_size_changes_anything(mixed, embeds, is_motion, side):
    lengths = (LENGTH, 9, 17)
    rows = [row[:length] for row, length in zip(embeds, lengths, strict=True)]
    kinds = [row[:length] for row, length in zip(is_motion, lengths, strict=True)]
    padded, mask, positions = pad(rows, side, filling=3.0)
    padded_kinds = pad(kinds, side)[0]
    batch = states(mixed, padded, padded_kinds, attention_mask=mask, position_ids=positions)
    assert torch.isfinite(batch).all()
    for index, row in enumerate(rows):
        alone = states(mixed, row[None], kinds[index][None])[0]
        assert_near(batch[index][mask[index].bool()], alone)


# Each branch computes its own positions


def projection(layer, name):
    return layer.attn.c_attn if "attn" in dict(layer.named_children()) else getattr(layer.self_attn, name)


def test_each_branch_computes_its_own_positions_only(mixed, embeds, is_motion):
    """Rows that the query projections and the feed-forward networks of each layer see."""
    seen, hooks = {}, []
    for index, layer in enumerate(mixed.layers):
        for branch, part in (("text", layer), ("motion", layer.motion_branch)):
            for name, module in (("queries", projection(part, "q_proj")), ("mlp", part.mlp)):

                def count(module, inputs, key=(index, branch, name)):
                    seen[key] = seen.get(key, 0) + inputs[0].shape[:-1].numel()

                hooks.append(module.register_forward_pre_hook(count))
    states(mixed, embeds, is_motion)
    num_motion = int(is_motion.sum())
    wanted = {"text": is_motion.numel() - num_motion, "motion": num_motion}
    assert num_motion == 12 and len(seen) == 4 * len(mixed.layers)
    for (_, branch, _), rows in seen.items():
        assert rows == wanted[branch]
    seen.clear()
    states(mixed, embeds)
    assert {branch for _, branch, _ in seen} == {"text"}
    for hook in hooks:
        hook.remove()


def test_motion_weights_change_nothing_where_there_is_no_motion(mixed, embeds, is_motion):
    model = copy.deepcopy(mixed)
    names = [name for name, _ in model.named_parameters() if "motion_branch" in name]
    assert len(names) > 10 * len(model.layers) - 8
    with torch.no_grad():
        for name in names:
            model.get_parameter(name).normal_()
    assert torch.equal(states(model, embeds), states(mixed, embeds))
    before, after = states(mixed, embeds, is_motion), states(model, embeds, is_motion)
    assert_near(after[2], before[2])
    assert_near(after[0, :5], before[0, :5])
    assert (after - before)[is_motion].abs().amax(-1).min() > 1e-2


def test_a_motion_branch_has_the_weights_of_its_layer_at_the_scale_of_the_base(mixed):
    """Of the same names and shapes, drawn anew by the rules of the base; none is shared."""
    for layer in mixed.layers:
        branch = layer.motion_branch.state_dict()
        own = {name: weight for name, weight in layer.state_dict().items() if "motion_branch" not in name}
        assert {name: weight.shape for name, weight in branch.items()} == {n: w.shape for n, w in own.items()}
        for name, weight in branch.items():
            assert weight.data_ptr() != own[name].data_ptr()
            if weight.dim() == 2:
                assert not torch.equal(weight, own[name])
                assert 0.8 < weight.std() / own[name].std() < 1.25, name


# Gradients


def gradients(model, embeds, is_motion):
    model.zero_grad()
    target = torch.randn(embeds.shape, generator=torch.Generator().manual_seed(9))
    loss = (model.mix(embeds, is_motion, use_cache=False).last_hidden_state * target).mean()
    loss.backward()
    return loss.detach(), {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}


def test_gradients_reach_the_motion_branch_alone_when_text_is_frozen(mixed, embeds, is_motion):
    model = copy.deepcopy(mixed)
    for weight in model.text_parameters().values():
        weight.requires_grad_(False)
    _, found = gradients(model, embeds, is_motion)
    wanted = {name for name, _ in model.named_parameters() if "motion_branch" in name}
    assert found.keys() == wanted
    dead = {name for name, gradient in found.items() if not gradient.any()}
    assert dead <= {name for name in wanted if name.endswith("k_proj.bias")}, "softmax ignores a shift of all keys"


def test_gradient_checkpointing_gives_the_same_loss_and_gradients(mixed, embeds, is_motion):
    model = copy.deepcopy(mixed)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    evaluated, _ = gradients(model, embeds, is_motion)
    loss, wanted = gradients(model.train(), embeds, is_motion)
    assert_near(loss, evaluated)
    calls = []
    model.layers[0].mlp.register_forward_hook(lambda *_: calls.append(1))
    model.gradient_checkpointing_enable()
    checkpointed, found = gradients(model, embeds, is_motion)
    assert len(calls) == 2, "nothing was computed again"
    assert_near(checkpointed, loss, 1e-6)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert_near(found[name], gradient, 1e-6)


# Weights of the base


def test_the_base_keeps_the_names_of_its_weights(base, mixed, make_text_base, kind):
    """Its checkpoint loads as it is, apart from what has "motion_branch" in its name."""
    ours, theirs = mixed.language_model.state_dict(), base.state_dict()
    assert {name for name in ours if "motion_branch" not in name} == theirs.keys()
    for name, weight in theirs.items():
        assert torch.equal(ours[name], weight), name
    other = make_text_base(kind)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(1)
    model = copy.deepcopy(mixed)
    missing, unexpected = model.language_model.load_state_dict(other.state_dict(), strict=False)
    assert not unexpected and missing and all("motion_branch" in name for name in missing)
    assert set(model.text_parameters()) == {name for name, _ in base.named_parameters()}
    assert all(torch.equal(weight, other.get_parameter(name)) for name, weight in model.text_parameters().items())


# Layers with other parts than GPT-2's and Llama's, and layers that do something else with parts of the same names
REFUSED = {
    "gemma2": {"head_dim": 8},
    "gpt_neox": {"intermediate_size": 48},
    "olmo2": {},
    "phi": {},
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global"], 2]], "num_heads": 4},
    "falcon": {},
    "bloom": {"n_head": 4},
    "opt": {"ffn_dim": 32, "word_embed_proj_dim": 32},
    "granite": {"residual_multiplier": 0.5, "embedding_multiplier": 3.0, "logits_scaling": 2.0},
    "olmo": {"clip_qkv": 0.5},
    "starcoder2": {"sliding_window": 4},
    "mixtral": {"num_local_experts": 2},
}


def small_config(kind):
    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return AutoConfig.for_model(kind, **sizes | REFUSED[kind])


@pytest.mark.parametrize("kind", REFUSED)
def test_another_kind_of_base_is_refused_by_name(make_motion_vae, kind):
    base = AutoModelForCausalLM.from_config(small_config(kind))
    wanted = f"the language model is a '{kind}': a motion branch can be added to the layers of gpt2, llama"
    with pytest.raises(ValueError, match=wanted):
        MotionGPT3ForCausalLM.from_components(base, make_motion_vae())


@pytest.mark.parametrize("options", [{"add_cross_attention": True}, {"reorder_and_upcast_attn": True}])
def test_unusual_attention_is_refused(make_text_base, make_motion_vae, options):
    base = make_text_base("gpt2", **options)
    with pytest.raises(ValueError, match="a 'gpt2' with unusual attention: a motion branch can be added"):
        MotionGPT3ForCausalLM.from_components(base, make_motion_vae())


@pytest.mark.parametrize("kind", ["gemma2", "granite", "bloom"])
def test_another_kind_of_base_is_refused_where_a_configuration_names_it(kind):
    vae = {"latent_dim": 16, "num_layers": 1, "num_heads": 2}
    config = MotionGPT3Config(text_config=small_config(kind), motion_vae_config=vae, denoising_hidden_size=24)
    with pytest.raises(ValueError, match="a motion branch can be added to"):
        MotionGPT3ForCausalLM(config)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_layer_is_cut_with_its_motion_branch(make_motiongpt3, kind):
    """What FSDP and `device_map` take as one piece: the names are those of modules, and no motion branch is one."""
    model = make_motiongpt3(kind)
    pieces = [name for name, module in model.named_modules() if type(module).__name__ in model._no_split_modules]
    layers = {name for name, module in model.named_modules() if module in set(model.layers)}
    assert set(pieces) == {*layers, "motion_vae"}
