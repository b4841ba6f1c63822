"""MotionGPT3: what stays of the base, slots and losses."""

import copy
import hashlib
import re

import pytest
import torch

from geomotiongpt import MotionGPT3Config, MotionGPT3ForCausalLM
from geomotiongpt.models.task_prompts import LatentTaskExample

TEXTS = ["a person walks forward", "someone jumps", "the figure turns around to the right and sits down"]


@pytest.fixture
def model(tiny_motiongpt3) -> MotionGPT3ForCausalLM:
    """A copy to change."""
    return copy.deepcopy(tiny_motiongpt3)


@pytest.fixture(scope="module")
def prompts(motiongpt3_processor, clips):
    """What `generate` gets: motions of three lengths."""
    return motiongpt3_processor(motion=clips)


@pytest.fixture
def batch(motiongpt3_processor, tiny_motiongpt3, clips):
    """What training gets: captions to be written and motions to be made, without the motions themselves."""
    examples = [
        LatentTaskExample("motion-to-text", TEXTS[0]),
        LatentTaskExample("text-to-motion", TEXTS[1], 16),
        LatentTaskExample("motion-prediction"),
        LatentTaskExample("text", TEXTS[2]),
    ]
    arrays = motiongpt3_processor.prepare_examples(examples, with_answers=True)
    rows = {name: torch.from_numpy(array) for name, array in arrays.items()}
    latents = 3 * torch.randn(6, 1, 16, generator=torch.Generator().manual_seed(2))
    targets = {"target_latents": latents[:2], "target_num_frames": torch.tensor([16, 0])}
    return {**rows, "latents": latents[2:].unsqueeze(1), **targets}


def assert_near(value, wanted, tolerance=1e-5):
    torch.testing.assert_close(value, wanted, rtol=tolerance, atol=tolerance)


def train(model, batch, steps=3):
    """A few optimizer steps of what has a gradient."""
    model.train()
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


def hash_of_text(model):
    digest = hashlib.sha256()
    for name, weight in model.text_parameters().items():
        digest.update(name.encode() + weight.detach().numpy().tobytes())
    return digest.hexdigest()


def test_published_sizes():
    """124.4M of text, 85.1M of motion and 0.8M where latents go in, as the paper counts them."""
    with torch.device("meta"):
        model = MotionGPT3ForCausalLM(MotionGPT3Config())
    sizes = {name: weight.numel() for name, weight in model.named_parameters()}
    assert sum(weight.numel() for weight in model.text_parameters().values()) == 124_439_808
    assert sum(size for name, size in sizes.items() if "motion_branch" in name) == 85_056_000
    assert sum(size for name, size in sizes.items() if name.startswith("motion_input")) == 789_504
    config = model.config
    assert (config.target_repeats, config.condition_dropout, config.num_motion_slots) == (4, 0.1, 4)


# What stays of the base


@pytest.mark.parametrize(("kind", "tied"), [("gpt2", True), ("gpt2", False), ("llama", False), ("qwen3", True)])
def test_text_logits_are_those_of_the_base_bit_for_bit(make_text_base, make_motiongpt3, batch, kind, tied):
    """Over its own vocabulary, before and after motion was learned with the text frozen; markers are apart."""
    base = make_text_base(kind, tie_word_embeddings=tied)
    model = make_motiongpt3(base=base)
    size = model.config.text_vocab_size
    text = torch.randint(size, (2, 17), generator=torch.Generator().manual_seed(0))
    text[0, 0] = size - 1
    with torch.no_grad():
        wanted = base(text).logits
        assert torch.equal(model(text).logits[..., :size], wanted)
    before = hash_of_text(model)
    for weight in model.text_parameters().values():
        weight.requires_grad_(False)
    markers, motion = model.marker_embedding.weight.clone(), model.motion_branch_norm.weight.clone()
    train(model, batch)
    assert hash_of_text(model) == before
    assert not torch.equal(model.marker_embedding.weight, markers)
    assert not torch.equal(model.motion_branch_norm.weight, motion)
    with torch.no_grad():
        assert torch.equal(model(text).logits[..., :size], wanted)


def test_text_parameters_are_those_of_the_base(model, make_text_base):
    wanted = dict(make_text_base("gpt2").named_parameters())
    found = model.text_parameters()
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert found["transformer.wte.weight"] is model.get_input_embeddings().weight


def test_logits_of_markers_and_slots(model, prompts):
    """Markers are scored by their own rows; padding and the slots of motions are never predicted."""
    config = model.config
    first = config.text_vocab_size
    assert (config.padding_token_id, config.motion_start_token_id, config.motion_end_token_id) == (
        first,
        first + 1,
        first + 2,
    )
    assert (config.motion_in_token_id, config.motion_out_token_id, config.vocab_size) == (
        first + 3,
        first + 4,
        first + 5,
    )
    states = []
    model.language_model.lm_head.register_forward_pre_hook(lambda module, inputs: states.append(inputs[0]))
    with torch.no_grad():
        logits = model(**prompts).logits
        assert_near(logits[..., first + 1 : first + 3], states[0] @ model.marker_embedding.weight[1:3].T)
        assert_near(logits[..., :first], states[0] @ model.get_input_embeddings().weight.T)
        assert_near(model(**prompts, logits_to_keep=2).logits, logits[:, -2:])
    never = logits[..., [config.padding_token_id, config.motion_in_token_id, config.motion_out_token_id]]
    assert (never == -torch.inf).all() and logits.shape[-1] == config.vocab_size


# Slots


def test_slots_are_filled_in_their_order(model):
    """Two motions in a row, one in another, none in a third; each slot by its own part of the projection."""
    text, slot, width = 7, model.config.motion_in_token_id, model.config.hidden_size
    motion = [model.config.motion_start_token_id, *[slot] * 4, model.config.motion_end_token_id]
    ids = torch.tensor([[text, *motion, *motion, 9], [*motion, *[text] * 8], [text] * 14])
    latents = torch.randn(3, 2, 1, 16)
    with torch.no_grad():
        embeds = model._embed(ids, latents)
        filled = model.motion_input((latents[:, :, 0] - model.latent_shift) * model.latent_scale).view(3, 2, 4, width)
        for row in range(3):  # the rows of a batch do not mix
            logits = model(ids[row : row + 1], latents=latents[row : row + 1]).logits[0]
            assert_near(logits, model(ids, latents=latents).logits[row])
    assert_near(embeds[0, 2:6], filled[0, 0])
    assert_near(embeds[0, 8:12], filled[0, 1])
    assert_near(embeds[1, 1:5], filled[1, 0])
    table, markers = model.get_input_embeddings().weight, model.marker_embedding.weight
    assert torch.equal(embeds[2], table[text].expand(14, -1))
    assert torch.equal(embeds[0, 1], markers[1]) and torch.equal(embeds[0, 6], markers[2])
    assert torch.equal(embeds[0, 13], table[9])


def test_motions_and_their_latents_are_the_same_prompt(model, prompts):
    inputs = {name: prompts[name] for name in ("input_ids", "attention_mask")}
    latents = model.encode_motion(prompts["motion_values"], prompts["motion_mask"])
    mean = model.motion_vae.encode(prompts["motion_values"], prompts["motion_mask"]).mean
    assert latents.shape == (3, 1, 1, 16) and not latents.requires_grad
    assert_near(latents[:, 0], mean)
    with torch.no_grad():
        from_motion = model(**prompts).logits
        assert torch.equal(model(**inputs, latents=latents).logits, from_motion)
        other = model(**inputs, latents=latents.flip(0)).logits
        assert (other - from_motion)[:, -1, : model.config.text_vocab_size].abs().max() > 1e-2
    with pytest.raises(ValueError, match="give either `motion_values` or their `latents`"):
        model(**prompts, latents=latents)


def test_training_sees_the_latents_that_generation_sees(model, prompts):
    motions = prompts["motion_values"], prompts["motion_mask"]
    wanted = model.encode_motion(*motions)
    assert_near(model.train().encode_motion(*motions), wanted)


def test_autocast_leaves_latents_as_they_are(model, prompts):
    motions = prompts["motion_values"], prompts["motion_mask"]
    wanted = model.encode_motion(*motions)
    with torch.autocast("cpu", torch.bfloat16):
        assert_near(model.encode_motion(*motions), wanted)


def test_slots_without_motions_are_refused(model, prompts):
    ids = prompts["input_ids"]
    wanted = "up to 4 `<motion_in>` slots a row, 4 a motion, but there are motions for 0: make both with the same proc"
    with pytest.raises(ValueError, match=re.escape(wanted)):
        model(ids)
    slot = model.config.motion_in_token_id
    for row in ([slot] * 3, [slot] * 8):
        message = f"up to {len(row)} `<motion_in>` slots a row, 4 a motion, but there are motions for 4"
        with pytest.raises(ValueError, match=re.escape(message)):
            model(torch.tensor([row]), latents=torch.zeros(1, 1, 1, 16))


@pytest.mark.parametrize("rows", [1, 4])
def test_motions_of_another_batch_are_refused(model, prompts, rows):
    with pytest.raises(ValueError, match=f"there are motions for {rows} rows, and 3 rows of input_ids"):
        model(prompts["input_ids"], latents=torch.zeros(rows, 1, 1, 16))


@pytest.mark.parametrize("slots", [(3, 3), (3, 5)])
def test_cut_slots_of_a_motion_to_be_made_are_refused(model, slots):
    ids = torch.zeros(2, 5, dtype=torch.long)
    for row, count in zip(ids, slots, strict=True):
        row[:count] = model.config.motion_out_token_id
    with pytest.raises(ValueError, match=rf"\[{slots[0]}, {slots[1]}\] `<motion_out>` slots a row; a motion takes 4"):
        model(ids)


# Losses


def test_losses_by_hand(model, batch):
    """Cross entropy on labels only, the head's loss under the same seed, lengths where they are known; weights."""
    config = model.config
    assert (config.language_modeling_weight, config.denoising_weight, config.length_weight) == (1.0, 1.0, 0.1)
    config.language_modeling_weight, config.denoising_weight, config.length_weight = 0.7, 0.5, 0.3
    torch.manual_seed(11)
    output = model(**batch)
    labels, terms = batch["labels"], []
    log_probabilities = output.logits.log_softmax(-1)
    for row, place in (labels != -100).nonzero().tolist():
        if place:
            terms.append(-log_probabilities[row, place - 1, labels[row, place]])
    assert_near(output.language_modeling_loss, torch.stack(terms).mean())
    states = output.motion_states
    assert states.shape == (2, 4, config.hidden_size)
    torch.manual_seed(11)
    targets = (batch["target_latents"].flatten(1) - model.latent_shift) * model.latent_scale
    assert_near(output.denoising_loss, model.denoising_head.loss(targets, states))
    said = model.length_head(states.mean(1))[0, 0]
    assert_near(output.length_loss, (said - torch.tensor(16.0).log()).square())
    total = 0.7 * output.language_modeling_loss + 0.5 * output.denoising_loss + 0.3 * output.length_loss
    assert_near(output.loss, total)


def test_motion_states_are_those_of_the_slots(model, batch):
    seen = []
    model.motion_branch_norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    motion = batch["input_ids"][batch["input_ids"] >= model.config.first_slot_token_id]
    with torch.no_grad():
        states = model(**batch).motion_states
    assert torch.equal(states.flatten(0, 1), seen[0][motion == model.config.motion_out_token_id])


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_skipping_logits_gives_the_same_loss(make_motiongpt3, batch, kind):
    model = make_motiongpt3(kind)
    losses, gradients = [], []
    for skip in (False, True):
        torch.manual_seed(0)
        model.zero_grad()
        losses.append(model(**batch, skip_logits=skip))
        losses[-1].loss.backward()
        gradients.append(model.marker_embedding.weight.grad.clone())
    assert losses[0].logits is not None and losses[1].logits is None
    assert_near(losses[1].loss, losses[0].loss)
    assert_near(gradients[1], gradients[0], 1e-4)
    with pytest.raises(ValueError, match="`skip_logits=True` leaves nothing to return without `labels`"):
        model(batch["input_ids"], skip_logits=True)


def test_the_loss_is_safe_without_labels_and_without_targets(model, batch):
    """Gradients are zero or finite, never missing from the loss: a batch of captions, and one of motions alone."""
    model.train()
    captions = {name: batch[name][:1] for name in ("input_ids", "attention_mask", "labels", "latents")}
    nothing = {"target_latents": torch.zeros(0, 1, 16), "target_num_frames": torch.zeros(0)}
    output = model(**captions, **nothing)
    assert output.denoising_loss == 0 and output.length_loss == 0
    assert_near(output.loss, output.language_modeling_loss)
    output.loss.backward()
    captions["labels"] = torch.full_like(captions["labels"], -100)
    output = model(**captions, **nothing)
    assert output.loss == 0
    output.loss.backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.grad is not None)
    with pytest.raises(ValueError, match="1 target latents for 2 motions that are to be made"):
        model(**{**batch, "target_latents": batch["target_latents"][:1]})


def test_a_step_reaches_everything_but_the_motion_vae(model, batch):
    model.train()
    model.config.language_modeling_weight = 0.0
    assert model(**batch).language_modeling_loss is None
    model.config.language_modeling_weight = 1.0
    model(**batch).loss.backward()
    without = {name for name, weight in model.named_parameters() if weight.grad is None}
    assert without == {name for name, _ in model.named_parameters() if name.startswith("motion_vae.")}
    model.zero_grad()
    for weight in model.text_parameters().values():
        weight.requires_grad_(False)
    model(**batch).loss.backward()
    found = {name for name, weight in model.named_parameters() if weight.grad is not None}
    parts = ("motion_branch", "marker_embedding", "motion_input", "denoising_head", "length_head")
    assert found == {name for name, _ in model.named_parameters() if any(part in name for part in parts)}


def test_training_lowers_the_losses(model, batch):
    losses = train(model, {**batch, "target_num_frames": torch.tensor([16, 40])}, steps=25)
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_a_single_stream_sends_motion_through_the_weights_of_text(make_motiongpt3, make_text_base, batch):
    model = make_motiongpt3(streams="single")
    assert not any("motion_branch" in name for name, _ in model.named_parameters())
    embeds = model._embed(batch["input_ids"], batch["latents"])
    base = make_text_base("gpt2")
    with torch.no_grad():
        wanted = base.transformer(inputs_embeds=embeds, attention_mask=batch["attention_mask"]).last_hidden_state
        states = model(**batch).motion_states
    assert torch.equal(states.flatten(0, 1), wanted[batch["input_ids"] == model.config.motion_out_token_id])
    model.train()
    model(**batch).loss.backward()
    assert model.layers[0].mlp.c_fc.weight.grad.any()
    for streams in ("triple", None):
        with pytest.raises(ValueError, match="streams is .*; use one of dual, single"):
            MotionGPT3Config(streams=streams)


def test_latents_are_standardised_and_restored(model):
    latents = 5 * torch.randn(200, 1, 16) + torch.arange(16.0)
    model.set_latent_statistics(latents)
    rows = model.standardise(latents)
    assert rows.shape == (200, 16)
    assert_near(rows.mean(0), torch.zeros(16), 1e-4)
    assert_near(rows.std(0), torch.ones(16), 1e-4)
    assert_near(model.restore(rows), latents, 1e-4)
    assert model.latent_shift.dtype == torch.float32 and "latent_shift" in model.state_dict()
    with pytest.raises(ValueError, match="1 latents do not show how 1 values of them spread: give those of 2 motions"):
        model.set_latent_statistics(latents[:1])


def test_principal_components_of_the_latents(make_motiongpt3, tmp_path):
    """Latents that vary in 3 directions are 3 numbers of spread 1, widest first, and come back from them."""
    model = make_motiongpt3(num_latent_components=3)
    spreads, directions = torch.tensor([4.0, 2.0, 0.5]), torch.linalg.qr(torch.randn(16, 3)).Q
    latents = (spreads * torch.randn(500, 3) @ directions.T + torch.arange(16.0)).unsqueeze(1)
    model.set_latent_statistics(latents)
    rows = model.standardise(latents)
    assert rows.shape == (500, 3) and model.motion_input.in_features == model.denoising_head.latent_size == 3
    assert_near(rows.T.cov(), torch.eye(3), 1e-3)
    assert_near(model.restore(rows), latents, 1e-4)
    assert_near((model.latent_basis @ directions).abs(), torch.eye(3), 0.1)
    assert (1 / model.latent_scale).diff().lt(0).all()
    model.set_latent_statistics(latents, torch.full_like(latents, 0.5))
    drawn = model.standardise(latents + 0.5 * torch.randn_like(latents))
    assert_near(drawn.std(0), torch.ones(3), 0.1)
    model.set_latent_statistics(latents)
    outside = latents + torch.linalg.qr(directions, mode="complete").Q[:, 3]
    assert_near(model.standardise(outside), rows, 1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_near(model.standardise(latents), rows)
        assert_near(model.restore(rows), latents, 1e-4)
    model.save_pretrained(tmp_path)
    loaded = MotionGPT3ForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.latent_basis.dtype == torch.float32
    assert_near(loaded.standardise(latents), rows)
    with pytest.raises(ValueError, match="3 latents do not show how 3 values of them spread: give those of 4 motions"):
        model.set_latent_statistics(latents[:3])


@pytest.mark.parametrize("number", [0, 17])
def test_components_are_no_more_than_a_latent_has(number):
    with pytest.raises(ValueError, match=f"num_latent_components is {number}; .* has 16 entries"):
        MotionGPT3Config(motion_vae_config={"latent_dim": 16}, num_latent_components=number)


def test_lengths_belong_to_targets_and_nothing_is_swallowed(model, batch):
    inputs = {name: value for name, value in batch.items() if not name.startswith("target_")}
    with pytest.raises(ValueError, match="`target_num_frames` are the lengths of `target_latents`"):
        model(**inputs, target_num_frames=torch.tensor([5]))
    with pytest.raises(ValueError, match="lengths for"):
        model(**inputs, target_latents=batch["target_latents"], target_num_frames=torch.tensor([5]))
    with pytest.raises(ValueError, match="target_latnets: no effect on MotionGPT3"):
        model(**inputs, target_latnets=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_config": {"model_type": "nope"}}, "text_config is of a 'nope' model"),
        ({"num_motion_slots": 0}, "num_motion_slots is 0; a motion takes 1 or more"),
        ({"denoising_num_heads": 5}, "denoising_num_heads is 5, which does not divide .* 768"),
    ],
)
def test_configurations_that_no_model_has_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MotionGPT3Config(**options)


def test_padding_of_a_processor_is_not_that_of_the_base():
    config = MotionGPT3Config(text_config={"model_type": "llama", "vocab_size": 100, "pad_token_id": 100})
    assert config.text_config.pad_token_id is None
    config = MotionGPT3Config(text_config={"model_type": "llama", "vocab_size": 100, "pad_token_id": 7})
    assert config.text_config.pad_token_id == 7
