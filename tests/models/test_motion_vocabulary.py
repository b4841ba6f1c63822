"""Geometry as a switch: every projection and constraint starts, trains, saves and loads, and can be swapped."""

import copy
import itertools
from functools import partial

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GenerationConfig

from geomotiongpt import (
    FrozenSparseProjection,
    GeoMotionGPTConfig,
    GeoMotionGPTForCausalLM,
    MotionTokenizer,
    MotionTokenizerConfig,
    gram_matrix,
    orthonormality_loss,
)
from geomotiongpt.models.geometry import GEOMETRIC_CONSTRAINTS, geometric_loss
from geomotiongpt.models.motion_projections import PROJECTIONS

ISOMETRIC = ("sparse", "orthogonal")
FREE = ("none", "dense_random")
LEARNED = ("linear", "orthogonal")
TEXTS = ["a person walks forward", "someone jumps", "the figure turns around to the right and sits down"]


@pytest.fixture(scope="module")
def join(tiny_language_model, tiny_tokenizer_model):
    """Joins the tiny components, in evaluation mode."""

    def joined(**options) -> GeoMotionGPTForCausalLM:
        return GeoMotionGPTForCausalLM.from_components(tiny_language_model, tiny_tokenizer_model, **options).eval()

    return joined


@pytest.fixture(scope="module")
def batch(tiny_processor, clips):
    return tiny_processor(motion=clips, text=TEXTS)


def disturb(model: GeoMotionGPTForCausalLM) -> GeoMotionGPTForCausalLM:
    """As after training: codebook, projection and scale are none that anything starts from."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for weight in (model.motion_codebook.weight, *model.motion_projection.parameters()):
            weight += 0.5 * weight.std() * torch.randn(weight.shape, generator=generator)
        model.motion_embedding_scale.mul_(1.7)
    return model


def relative_error(value: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((value.double() - wanted.double()).norm() / wanted.double().norm()).item()


def take_step(model: GeoMotionGPTForCausalLM, batch, learning_rate: float = 1e-2) -> dict[str, torch.Tensor]:
    """One step on a batch; what every weight was before."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    model(**batch).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return before


# What a model starts from


def test_default_model_has_the_weights_it_always_had(tiny_model):
    """Checkpoints from before the switches load, and those from now load there."""
    names = {name.split(".")[0] for name in tiny_model.state_dict()}
    assert names == {
        *("transformer", "lm_head", "marker_embedding", "motion_codebook", "motion_projection"),
        *("motion_embedding_scale", "motion_tokenizer"),
    }
    projection = {name for name in tiny_model.state_dict() if name.startswith("motion_projection")}
    assert projection == {"motion_projection.indices"}
    config = tiny_model.config
    assert (config.projection, config.geometric_constraint) == ("sparse", "orthonormal")


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_embeddings_start_from_the_codebook_at_the_length_of_text(join, projection):
    """E = s C P^T; behind an isometry and as free rows with the codebook's angles, behind the others without."""
    model = join(projection=projection)
    codebook = model.motion_tokenizer.codebook.weight.detach()
    embeddings = model.motion_embeddings.detach()
    text_norm = model.transformer.wte.weight.norm(dim=-1).mean().item()
    assert embeddings.norm(dim=-1).mean().item() == pytest.approx(text_norm, rel=1e-5)
    scale, matrix = model.motion_embedding_scale, model.motion_projection.matrix
    assert relative_error(embeddings, scale * model.motion_codebook.weight @ matrix.T) < 1e-6
    lost = (gram_matrix(embeddings) - gram_matrix(codebook)).square().sum()
    if projection in ("linear", "dense_random"):
        assert lost > 10, "a random map keeps no angles"
    else:
        assert lost < 1e-8
    assert model.motion_codebook.weight.shape == (32, 48 if projection in FREE else 32)
    if projection not in FREE:
        assert torch.equal(model.motion_codebook.weight, codebook)


def test_free_rows_start_where_the_sparse_projection_puts_them_or_at_random(join):
    for seed in (0, 3):
        projected = join(projection="none", projection_seed=seed)
        assert torch.equal(projected.motion_embeddings, join(projection_seed=seed).motion_embeddings)
    random = [join(projection="none", free_rows_start="random", projection_seed=seed) for seed in (0, 0, 1)]
    first, again, other = (model.motion_embeddings for model in random)
    assert torch.equal(first, again) and not torch.allclose(first, other)
    assert orthonormality_loss(first) > 5
    text_norm = random[0].transformer.wte.weight.norm(dim=-1).mean()
    torch.testing.assert_close(first.norm(dim=-1).mean(), text_norm)


def test_dense_random_rows_have_the_published_lengths_and_another_draw_a_seed(join):
    model = join(projection="dense_random", projection_seed=5)
    text_norm = model.transformer.wte.weight.norm(dim=-1).mean()
    torch.testing.assert_close(model.motion_embeddings.norm(dim=-1), text_norm.expand(32))
    # A step of an optimizer moves them as it moves any other rows.
    lengths = [each.motion_codebook.weight.norm(dim=-1).mean() for each in (model, join(projection="none"))]
    torch.testing.assert_close(*lengths)
    other = join(projection="dense_random", projection_seed=6)
    assert not torch.allclose(other.motion_embeddings, model.motion_embeddings, atol=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"projection": "dense"}, "projection is 'dense'; use one of sparse, linear, orthogonal, none, dense_random"),
        ({"geometric_constraint": "isometry"}, "geometric_constraint is 'isometry'; use one of orthonormal, "),
        ({"spectral_form": "determinant"}, "spectral_form is 'determinant'; use 'log_determinant' or "),
        ({"geometric_constraint": "cluster", "num_code_clusters": 33}, "num_code_clusters is 33; of 32 codes"),
        ({"projection": "none", "free_rows_start": "zero"}, "free_rows_start is 'zero'; use one of projected, random"),
    ],
)
def test_options_that_do_not_exist_are_refused(join, options, message):
    with pytest.raises(ValueError, match=message):
        join(**options)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_codes_wider_than_the_embedding_need_a_projection_that_is_no_isometry(tiny_language_model, projection):
    wide = MotionTokenizer(MotionTokenizerConfig(num_codes=8, code_dim=64, hidden_size=8))
    if projection in ("linear", "dense_random"):
        model = GeoMotionGPTForCausalLM.from_components(tiny_language_model, wide, projection=projection)
        assert model.motion_embeddings.shape == (8, 48)
    else:
        with pytest.raises(ValueError, match="code_dim 64 does not fit into an embedding of 48"):
            GeoMotionGPTForCausalLM.from_components(tiny_language_model, wide, projection=projection)


# Constraints


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_constraint_is_measured_on_the_geometry_of_the_embeddings(join, batch, projection):
    model = disturb(join(projection=projection))
    output = model(**batch)
    geometry = orthonormality_loss(model.motion_embeddings)
    torch.testing.assert_close(output.orthonormality_loss, geometry, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.loss, output.language_modeling_loss + 1e-2 * geometry, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_constraint_alone_pulls_at_what_shapes_the_embeddings(join, projection):
    """At the codebook always; at P where P changes lengths and angles, and not where it is an isometry."""
    model = disturb(join(projection=projection))
    model.geometric_loss().backward()
    assert model.motion_codebook.weight.grad.abs().max() > 1e-3
    pulled = {name for name, weight in model.motion_projection.named_parameters() if weight.grad is not None}
    assert pulled == ({"weight"} if projection == "linear" else set())
    before = orthonormality_loss(model.motion_embeddings)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.grad is not None:
                weight -= 1e-2 * weight.grad
    assert orthonormality_loss(model.motion_embeddings) < before


@pytest.mark.parametrize("constraint", GEOMETRIC_CONSTRAINTS)
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_every_projection_trains_under_every_constraint(join, batch, projection, constraint):
    """A step changes the codebook, a learned P, and nothing that is frozen."""
    model = disturb(join(projection=projection, geometric_constraint=constraint, num_code_clusters=5))
    before = take_step(model, batch)
    after = model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert "motion_codebook.weight" in changed and "marker_embedding.weight" in changed
    assert ("motion_projection.weight" in changed) == (projection in LEARNED)
    assert not {name for name in changed if name.startswith("motion_tokenizer.")}
    assert not changed & {"motion_projection.indices", "motion_embedding_scale", "code_clusters"}
    assert ("code_clusters" in after) == (constraint == "cluster")
    if projection == "orthogonal":
        matrix = model.motion_projection.matrix
        assert (matrix.T @ matrix - torch.eye(32)).norm() < 5e-5


@pytest.mark.parametrize(
    ("projection", "constraint"),
    [
        *((projection, "cluster") for projection in PROJECTIONS),
        *(("linear", other) for other in GEOMETRIC_CONSTRAINTS),
    ],
)
def test_trained_model_comes_back_and_goes_on_alike(join, batch, tmp_path, projection, constraint):
    model = disturb(join(projection=projection, geometric_constraint=constraint, num_code_clusters=5))
    take_step(model, batch)
    after = model.state_dict()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert loaded.state_dict().keys() == after.keys()
    assert (loaded.config.projection, loaded.config.geometric_constraint) == (projection, constraint)
    outputs = [trained(**batch) for trained in (model, loaded)]
    assert torch.equal(outputs[0].logits, outputs[1].logits)
    assert torch.equal(outputs[0].orthonormality_loss, outputs[1].orthonormality_loss)
    for output in outputs:
        output.loss.backward()
    gradients = [
        {n: p.grad for n, p in trained.named_parameters() if p.grad is not None} for trained in (model, loaded)
    ]
    assert gradients[0].keys() == gradients[1].keys() and "motion_codebook.weight" in gradients[0]
    assert all(torch.equal(gradient, gradients[1][name]) for name, gradient in gradients[0].items())


@pytest.mark.parametrize("constraint", GEOMETRIC_CONSTRAINTS)
def test_constraint_is_the_one_that_was_asked_for(join, constraint):
    options = {"geometric_constraint": constraint, "spectral_form": "condition_number", "num_code_clusters": 4}
    model = disturb(join(**options))
    clusters = {"clusters": model.code_clusters} if constraint == "cluster" else {}
    wanted = geometric_loss(model.motion_codebook.weight, constraint, spectral_form="condition_number", **clusters)
    assert torch.equal(model.geometric_loss(), wanted)
    others = [other for other in GEOMETRIC_CONSTRAINTS if other not in (constraint, "cluster")]
    assert all(geometric_loss(model.motion_codebook.weight, other) != wanted for other in others)


def test_clusters_are_of_codes_that_decode_alike_and_are_saved(tiny_language_model, tiny_tokenizer_model, tmp_path):
    """Not of codes that look alike, and not drawn again on loading."""
    tokenizer = copy.deepcopy(tiny_tokenizer_model)
    generator = torch.Generator().manual_seed(0)
    groups = torch.randint(3, (32,), generator=generator)
    seen = tokenizer.decoder.input_conv.weight
    with torch.no_grad():
        # The decoder sees the first half of a code only, where three kinds of codes differ; the rest differs at will.
        seen[:, 16:] = 0
        tokenizer.codebook.weight[:, :16] = 5 * torch.eye(16)[groups]
        tokenizer.codebook.weight[:, 16:] = 20 * torch.randn(32, 16, generator=generator)
    model = GeoMotionGPTForCausalLM.from_components(
        tiny_language_model, tokenizer, geometric_constraint="cluster", num_code_clusters=3
    )
    same = model.code_clusters[:, None] == model.code_clusters
    assert torch.equal(same, groups[:, None] == groups)
    model.code_clusters.copy_(model.code_clusters.roll(1))
    model.save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors")["code_clusters"].dtype == torch.long
    for dtype in (torch.float32, torch.bfloat16):
        loaded = GeoMotionGPTForCausalLM.from_pretrained(tmp_path, dtype=dtype)
        assert torch.equal(loaded.code_clusters, model.code_clusters) and loaded.code_clusters.dtype == torch.long


def test_linear_map_under_autocast_is_measured_in_float32(join):
    """Rounding to bfloat16 alone would read as lost orthonormality."""
    model = join(projection="linear")
    wanted = model.geometric_loss()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.geometric_loss(), wanted)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_bfloat16_model_keeps_its_geometry(join, batch, tmp_path, projection):
    """The orthonormal columns stay in float32, and the rows of the sparse projection integers."""
    model = join(projection=projection)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    assert loaded.motion_codebook.weight.dtype == torch.bfloat16
    for name, value in loaded.motion_projection.state_dict().items():
        assert value.dtype == (torch.long if name == "indices" else torch.float32)
        assert torch.equal(value, model.motion_projection.state_dict()[name])
    with torch.no_grad():
        assert relative_error(loaded(**batch).logits, model(**batch).logits) < 0.05


# Swapping the projection of a trained model


@pytest.mark.parametrize(("old", "new"), itertools.product(PROJECTIONS, PROJECTIONS))
def test_swapped_projection_keeps_what_it_can_of_the_embeddings(join, batch, old, new):
    """All of them where it can express them, else (a new sparse P) their lengths and angles."""
    model = disturb(join(projection=old))
    with torch.no_grad():
        embeddings, logits = model.motion_embeddings, model(**batch).logits
    model.swap_projection(new)
    with torch.no_grad():
        swapped = model.motion_embeddings
        if new == old or new in ("linear", "orthogonal", "none"):
            exact = new == old or new == "none" or (old in ISOMETRIC and new == "linear")
            assert torch.equal(swapped, embeddings) if exact else relative_error(swapped, embeddings) < 1e-5
            torch.testing.assert_close(model(**batch).logits, logits, rtol=1e-4, atol=1e-3)
        else:
            assert relative_error(swapped, embeddings) > 0.5, "nothing has been re-embedded"
            kept = relative_error(swapped @ swapped.T, embeddings @ embeddings.T)
            assert kept < 1e-5 if new == "sparse" else kept > 0.1
            if new == "dense_random":
                text_norm = model.transformer.wte.weight.norm(dim=-1).mean()
                torch.testing.assert_close(swapped.norm(dim=-1), text_norm.expand(32))
    assert model.config.projection == new


@pytest.mark.parametrize("new", PROJECTIONS)
def test_swapped_model_comes_back(join, tmp_path, new):
    model = disturb(join(projection="none" if new == "sparse" else "sparse"))
    model.swap_projection(new)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.projection == new
    assert torch.equal(loaded.motion_embeddings, model.motion_embeddings)
    assert type(loaded.motion_projection) is type(join(projection=new).motion_projection)


@pytest.mark.parametrize("new", PROJECTIONS)
def test_training_goes_on_after_a_swap(join, batch, new):
    model = disturb(join(projection="none" if new == "sparse" else "sparse"))
    model.swap_projection(new)
    losses = []
    for _ in range(8):
        losses.append(model(**batch).loss.item())
        before = take_step(model, batch, learning_rate=3e-3)
        after = model.state_dict()
        assert not torch.equal(after["motion_codebook.weight"], before["motion_codebook.weight"])
        if new in LEARNED:
            assert not torch.equal(after["motion_projection.weight"], before["motion_projection.weight"])
    assert losses[-1] < 0.9 * losses[0]
    if new in ISOMETRIC:
        assert relative_error(gram_matrix(model.motion_embeddings), gram_matrix(model.motion_codebook.weight)) < 1e-5


def test_swap_takes_a_seed_where_something_is_drawn(join):
    model = join()
    model.swap_projection("sparse", seed=7)
    assert model.config.projection_seed == 7
    assert torch.equal(model.motion_embeddings, join(projection_seed=7).motion_embeddings)
    model = join(projection="none")
    model.swap_projection("dense_random", seed=8)
    drawn = [model.motion_embeddings]
    for seed in (8, 9):
        model = join(projection="none")
        model.swap_projection("dense_random", seed=seed)
        drawn.append(model.motion_embeddings)
    assert torch.equal(drawn[0], drawn[1]) and not torch.allclose(drawn[0], drawn[2], atol=0.1)
    for projection in ("linear", "orthogonal", "none"):
        with pytest.raises(ValueError, match=f"seed is 1, but nothing of the projection '{projection}' is drawn"):
            join().swap_projection(projection, seed=1)


def test_a_swap_that_cannot_be_leaves_the_model_as_it_is(tiny_language_model):
    wide = MotionTokenizer(MotionTokenizerConfig(num_codes=8, code_dim=64, hidden_size=8))
    model = GeoMotionGPTForCausalLM.from_components(tiny_language_model, wide, projection="linear")
    before = copy.deepcopy(model.state_dict())
    for projection, message in (("sparse", "code_dim 64 does not fit"), ("dense", "projection is 'dense'")):
        with pytest.raises(ValueError, match=message):
            model.swap_projection(projection)
    assert model.config.projection == "linear" and model.config.projection_seed == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    embeddings = model.motion_embeddings
    model.swap_projection("none")
    assert torch.equal(model.motion_embeddings, embeddings)


def test_more_free_rows_than_directions_keep_those_that_matter_most(tiny_language_model):
    """The best that an isometry of code_dim columns can do: what is lost are the smallest singular values."""
    tokenizer = MotionTokenizer(MotionTokenizerConfig(num_codes=40, code_dim=16, hidden_size=8))
    model = GeoMotionGPTForCausalLM.from_components(
        tiny_language_model, tokenizer, projection="none", free_rows_start="random"
    )
    embeddings = model.motion_embeddings.detach()
    model.swap_projection("orthogonal")
    lost = (model.motion_embeddings.detach() - embeddings).norm()
    torch.testing.assert_close(lost, torch.linalg.svdvals(embeddings)[16:].norm())


def test_free_rows_narrower_than_the_codes_become_linear_ones_that_train(tiny_language_model):
    """Codes of 64 dimensions in an embedding of 48 leave some to spare."""
    wide = MotionTokenizer(MotionTokenizerConfig(num_codes=8, code_dim=64, hidden_size=8))
    model = GeoMotionGPTForCausalLM.from_components(tiny_language_model, wide, projection="dense_random")
    embeddings = model.motion_embeddings.detach()
    model.swap_projection("linear")
    assert model.motion_codebook.weight.shape == (8, 64)
    torch.testing.assert_close(model.motion_embeddings, embeddings, rtol=1e-5, atol=1e-5)
    model.motion_embeddings.square().sum().backward()
    assert model.motion_codebook.weight.grad.abs().sum() > 0 and model.motion_projection.weight.grad.abs().sum() > 0


def test_a_swap_keeps_device_type_and_frozen_state(join):
    model = join().to(torch.bfloat16)
    model.motion_codebook.weight.requires_grad_(False)
    embeddings = model.motion_embeddings
    model.swap_projection("none")
    assert torch.equal(model.motion_embeddings, embeddings) and model.motion_embeddings.dtype == torch.bfloat16
    assert not model.motion_codebook.weight.requires_grad


def test_no_clusters_at_all_are_refused_in_a_swap(join):
    model = join()
    with pytest.raises(ValueError, match="num_code_clusters is 0; of 32 codes"):
        model.swap_constraint("cluster", num_code_clusters=0)
    with pytest.raises(ValueError, match="spectral_form is ''; use 'log_determinant' or"):
        model.swap_constraint("spectral", spectral_form="")
    assert model.config.geometric_constraint == "orthonormal" and model.code_clusters is None


def test_only_the_main_process_writes(join, tmp_path):
    """The motion tokenizer beside the model, too."""
    join().save_pretrained(tmp_path, is_main_process=False)
    assert not list(tmp_path.iterdir())


# Motion as the answer


def test_contradictory_inputs_are_refused(join, batch):
    """Rather than that one of them is left unread."""
    model = join()
    embeddings = torch.zeros(3, 4, 48)
    for inputs in ({}, {"input_ids": batch["input_ids"], "inputs_embeds": embeddings}):
        with pytest.raises(ValueError, match="give either `input_ids` or `inputs_embeds`"):
            model(**inputs)
    with pytest.raises(ValueError, match="give `input_ids`, not `inputs_embeds`"):
        model(inputs_embeds=embeddings, motion_values=batch["motion_values"])


def test_a_head_that_is_adapted_is_asked_however_many_positions_there_are(join, batch):
    """An adapter is more than the weight of its base; a hook wants to be called."""
    model = get_peft_model(join(), LoraConfig(target_modules=["lm_head"], init_lora_weights=False)).eval()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "motion_values", "motion_mask")}
    whole, last = model(**inputs).logits, model(**inputs, logits_to_keep=1).logits
    assert whole.shape[:2].numel() > model.config.hidden_size
    torch.testing.assert_close(whole[:, -1:], last, rtol=1e-4, atol=1e-4)


def test_given_weights_are_saved_in_the_part_too(join, tmp_path):
    """As accelerate puts together the weights of a model in pieces."""
    model = join()
    given = {name: weight + 1 if "codebook" in name else weight for name, weight in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=given)
    part = load_file(tmp_path / "motion_tokenizer/model.safetensors")["codebook.weight"]
    assert torch.equal(part, model.motion_tokenizer.codebook.weight + 1)


def test_trainers_collect_logits_alone(join, batch):
    ignored = join().config.keys_to_ignore_at_inference
    outputs = join()(**batch)
    assert {name for name in outputs if name not in ignored} == {"loss", "logits"}


def test_placeholders_without_their_motion_are_refused(join, batch):
    """They would be read like words: the same caption for every motion."""
    prompt = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with pytest.raises(ValueError, match="placeholders of a motion, but there is none: give `motion_values`"):
        join().generate(**prompt)


def test_prompts_that_cannot_be_answered_are_refused(join, batch):
    model = join()
    with pytest.raises(ValueError, match="take up to 1000 of the 128 positions"):
        model.generate(**batch, max_length=1000)
    width = batch["input_ids"].shape[1]
    with pytest.raises(ValueError, match=f"max_length is {width}, but the prompt alone takes {width}"):
        model.generate(**batch, max_length=width)
    embeddings = torch.zeros(3, 4, 48)
    with pytest.raises(ValueError, match="Embeddings alone do not say what is motion"):
        model.generate(inputs_embeds=embeddings)
    assert model.generate(inputs_embeds=embeddings, constrained=False, max_new_tokens=2).shape == (3, 2)


def test_a_configuration_goes_before_the_model_s_own_and_lacks_what_that_has(join, batch):
    model = join()
    width = batch["input_ids"].shape[1]
    model.generation_config.update(max_new_tokens=6, min_new_tokens=6, do_sample=False)
    assert model.generate(**batch, generation_config=GenerationConfig(num_beams=2)).shape[1] == width + 6
    model.generation_config.update(max_new_tokens=1000, min_new_tokens=None)
    for said in ({"generation_config": GenerationConfig(max_length=width + 3)}, {"max_length": width + 3}):
        assert model.generate(**batch, **said).shape[1] <= width + 3  # not 1000 more
    with pytest.raises(ValueError, match=f"up to {width + 1000} of the 128 positions"):
        model.generate(**batch, generation_config=GenerationConfig(num_beams=2))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_is_as_asked_for_or_the_base_s(
    tiny_language_model, tiny_tokenizer_model, batch, tmp_path, attention
):
    base = copy.deepcopy(tiny_language_model)
    base.set_attn_implementation(attention)
    model = GeoMotionGPTForCausalLM.from_components(base, tiny_tokenizer_model).eval()
    assert model.config._attn_implementation == attention
    model.save_pretrained(tmp_path)
    loaded = GeoMotionGPTForCausalLM.from_pretrained(tmp_path, attn_implementation=attention)
    assert loaded.config._attn_implementation == attention
    wanted = model(**batch).logits
    for other in ("eager", "sdpa"):
        loaded.set_attn_implementation(other)
        torch.testing.assert_close(loaded(**batch).logits, wanted, rtol=1e-4, atol=1e-4)


def test_only_layers_of_the_base_are_offloaded(join, batch, tmp_path):
    """Parts of motion are read directly: from the disk they would be no numbers."""
    model = join()
    model.save_pretrained(tmp_path / "model")
    load = partial(GeoMotionGPTForCausalLM.from_pretrained, tmp_path / "model", offload_folder=tmp_path / "offloaded")
    with pytest.raises(ValueError, match="offloads .*motion_tokenizer; only layers of 'transformer' can be"):
        load(device_map="auto", max_memory={"cpu": 3 * model.get_memory_footprint() // 4})
    cpu = {f"transformer.{name}": "cpu" for name in ("wte", "wpe", "drop", "ln_f")}
    cpu |= {name: "cpu" for name, _ in (*model.named_children(), *model.named_buffers(recurse=False))}
    del cpu["transformer"]
    with pytest.raises(ValueError, match="device_map offloads lm_head; "):
        load(device_map={**cpu, "transformer.h": "cpu", "transformer.wte": "disk", "lm_head": "disk"})
    layers = load(device_map={**cpu, "transformer.h": "disk"})
    assert next(layers.transformer.h.parameters()).is_meta
    torch.testing.assert_close(layers(**batch).logits, model(**batch).logits)


def test_placeholders_in_the_labels_become_the_codes_in_their_places(join, batch):
    """As when text-to-motion is trained from features: the answer is the motion itself."""
    model = join()
    placeholder = model.config.motion_placeholder_token_id
    ids = batch["input_ids"]
    labels = torch.where(ids == placeholder, ids, -100)
    encoded = model.encode_motion(ids, batch["motion_values"], batch["motion_mask"])
    codes = torch.where(ids == placeholder, encoded, -100)
    assert (codes >= model.config.first_motion_token_id).sum() == 15
    inputs = {name: batch[name] for name in ("motion_values", "motion_mask", "attention_mask")}
    for skip in (False, True):
        output = model(ids, labels=labels, skip_logits=skip, **inputs)
        wanted = model(encoded, labels=codes, attention_mask=batch["attention_mask"])
        torch.testing.assert_close(output.language_modeling_loss, wanted.language_modeling_loss, rtol=1e-6, atol=0)
    assert (labels == placeholder).sum() == 15, "the caller's labels are left as they are"


def test_configuration_survives_json_with_every_choice(tmp_path):
    choices = {"projection": "orthogonal", "geometric_constraint": "cluster", "num_code_clusters": 3}
    choices |= {"spectral_form": "condition_number", "projection_seed": 9, "orthonormality_weight": 0.5}
    motion = MotionTokenizerConfig(num_codes=8, code_dim=4)
    GeoMotionGPTConfig(**choices, motion_tokenizer_config=motion).save_pretrained(tmp_path)
    loaded = GeoMotionGPTConfig.from_pretrained(tmp_path)
    assert {name: getattr(loaded, name) for name in choices} == choices
    assert loaded.motion_tokenizer_config.num_codes == 8


def test_sparse_projection_is_still_found_at_the_top():
    assert FrozenSparseProjection(2, 3).matrix.sum() == 2
