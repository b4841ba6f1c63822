"""LLaMo: what stays of the base, roles of positions, losses, padding, captions, and what survives a save."""

import copy
import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor

from geomotiongpt import CausalMotionCodec, LLaMoConfig, LLaMoForCausalLM, LLaMoProcessor
from geomotiongpt.data.latent_sequences import LatentSequenceCollator
from geomotiongpt.models.task_prompts import MotionTaskExample

TEXTS = ["a person walks forward", "someone jumps", "the figure turns around to the right and sits down"]
EXAMPLES = [
    MotionTaskExample("motion-to-text", TEXTS[0], range(5)),
    MotionTaskExample("text-to-motion", TEXTS[1], range(5, 8), num_codes=3),
    MotionTaskExample("motion-prediction", None, range(8, 14), num_given_start=2),
    MotionTaskExample("motion-in-between", None, range(14, 21), num_given_start=2, num_given_end=3),
    MotionTaskExample("unconditional", None, range(21, 23)),
    MotionTaskExample("motion-duration", None, range(23, 27)),
]
TABLE = 2 * torch.randn(27, 8, generator=torch.Generator().manual_seed(4))


def collate(processor, *examples):
    items = [{"example": example, "name": f"row {row}"} for row, example in enumerate(examples)]
    return LatentSequenceCollator(processor, TABLE)(items)


@pytest.fixture
def model(tiny_llamo) -> LLaMoForCausalLM:
    """A copy to change."""
    return copy.deepcopy(tiny_llamo)


@pytest.fixture(scope="module")
def batch(llamo_processor):
    """What training gets: every task once."""
    return collate(llamo_processor, *EXAMPLES)


@pytest.fixture(scope="module")
def prompts(llamo_processor, clips):
    """What `generate` gets: motions of 10, 4 and 16 latents."""
    return llamo_processor(motion=clips)


def assert_near(value, wanted, tolerance=1e-5):
    torch.testing.assert_close(value, wanted, rtol=tolerance, atol=tolerance)


def freeze_text(model):
    for weight in model.text_parameters().values():
        weight.requires_grad_(False)


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


def places(config, ids):
    """(positions that a latent is made from, positions that end a motion), by reading the row."""
    out, end = config.motion_out_token_id, config.motion_end_token_id
    before = [place for place in range(len(ids) - 1) if ids[place + 1] == out]
    last = [place for place in range(len(ids) - 1) if ids[place] == out and ids[place + 1] == end]
    return before, last


# What stays of the base


@pytest.mark.parametrize(
    ("kind", "tied"), [("gpt2", True), ("gpt2", False), ("llama", False), ("qwen3", True), ("smollm3", True)]
)
def test_text_logits_are_those_of_the_base_bit_for_bit(make_text_base, make_llamo, batch, kind, tied):
    """Before and after motion was learned with the text frozen, also of a padded batch; markers are apart."""
    base = make_text_base(kind, tie_word_embeddings=tied)
    model = make_llamo(base=base)
    size = model.config.text_vocab_size
    text = torch.randint(size, (2, 17), generator=torch.Generator().manual_seed(0))
    text[0, 0] = size - 1
    mask = torch.ones_like(text)
    mask[1, :4] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        wanted = base(text).logits, base(text, attention_mask=mask, position_ids=positions).logits

        def found():
            padded = model(text, attention_mask=mask, position_ids=positions).logits
            return model(text).logits[..., :size], padded[..., :size]

        assert all(map(torch.equal, found(), wanted))
    freeze_text(model)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    train(model, batch)
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert not moved & {f"language_model.{name}" for name in model.text_parameters()}
    assert {"marker_embedding.weight", "motion_input.weight", "exit_head.weight"} <= moved
    assert any("motion_branch" in name for name in moved)
    with torch.no_grad():
        assert all(map(torch.equal, found(), wanted))


def test_text_parameters_are_those_of_the_base_and_motion_has_as_many(model, make_text_base):
    base = make_text_base("gpt2")
    wanted, found = dict(base.named_parameters()), model.text_parameters()
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    branch = sum(weight.numel() for name, weight in model.named_parameters() if "motion_branch" in name)
    layers = [*base.transformer.h.parameters(), *base.transformer.ln_f.parameters()]
    assert branch == sum(weight.numel() for weight in layers)


def test_gradients_reach_motion_weights_and_markers_only(model, batch):
    freeze_text(model)
    train_only = ("motion_branch", "marker_embedding", "motion_input", "denoising_head", "exit_head")
    model.train()(**batch).loss.backward()
    found = {name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()}
    wanted = {name for name, _ in model.named_parameters() if any(part in name for part in train_only)}
    # Keys of attention have a bias that changes nothing; nothing is dropped from the head; the last text is frozen
    assert found <= wanted and wanted - found <= {"denoising_head.null_condition"}
    model.zero_grad()
    model.requires_grad_(True)
    model(**batch).loss.backward()
    without = {name for name, weight in model.named_parameters() if weight.grad is None}
    assert without == {name for name, _ in model.named_parameters() if name.startswith("motion_codec.")}


@pytest.mark.parametrize("kind", ["gpt2", "llama", "smollm3"])
def test_text_before_a_motion_does_not_know_of_it(make_llamo, batch, kind):
    """And text after it does."""
    model = make_llamo(kind)
    ids, latents = batch["input_ids"][:1], batch["latents"][:1]
    slots = (ids[0] >= model.config.first_slot_token_id).nonzero().flatten()
    first, size = int(slots[0]) - 1, model.config.text_vocab_size
    with torch.no_grad():
        full = model(ids, latents=latents).logits[:, :, :size]
        prefix = model(ids[:, :first]).logits[..., :size]
        assert_near(full[:, :first], prefix, 1e-4)
        other = model(ids, latents=latents + 1).logits[:, :, :size]
    assert torch.equal(other[:, :first], full[:, :first])
    assert (other[:, int(slots[-1]) + 1 :] - full[:, int(slots[-1]) + 1 :]).abs().amax((0, 2)).min() > 1e-3


def test_motion_goes_through_its_own_branch(model, batch):
    """The start of a motion and its latents; padding and the end of a motion are text's."""
    seen = []
    model.motion_branch_norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    ids = batch["input_ids"]
    with torch.no_grad():
        states = model(**batch).hidden_states_of_motion
    start, slot = model.config.motion_start_token_id, model.config.first_slot_token_id
    assert torch.equal(states[(ids == start) | (ids >= slot)], seen[0])


def test_logits_of_markers_and_slots(model, batch):
    config, first = model.config, model.config.text_vocab_size
    with torch.no_grad():
        output = model(**batch)
        states = output.hidden_states_of_motion
        assert_near(output.logits[..., first + 1 : first + 3], states @ model.marker_embedding.weight[1:3].T)
        assert_near(output.logits[..., :first], states @ model.get_input_embeddings().weight.T)
    never = output.logits[..., [config.padding_token_id, config.motion_in_token_id, config.motion_out_token_id]]
    assert (never == -torch.inf).all() and output.logits.shape[-1] == config.vocab_size


# Roles of positions


def test_roles_of_positions(model):
    """A latent is made from the start or the latent before it; only what closes a motion that is made ends it."""
    config, text = model.config, 7
    start, end = config.motion_start_token_id, config.motion_end_token_id
    given, made = config.motion_in_token_id, config.motion_out_token_id
    rows = [
        [text, start, made, made, made, end, text, text, text],
        [start, made, end, text, text, text, text, text, text],  # one latent: first and last
        [start, given, end, start, given, given, made, made, end],  # an end, then a start and what lies between
        [text, start, given, given, end, text, text, text, text],  # shown, not made
        [text, text, text, text, text, start, made, made, made],  # cut: no end
    ]
    roles = model._roles(torch.tensor(rows))
    before = [[1, 2, 3], [0], [5, 6], [], [5, 6, 7]]
    last = [[4], [1], [7], [], []]
    for row, ids in enumerate(rows):
        assert roles.slot[row].tolist() == [token in (given, made) for token in ids]
        assert roles.before_target[row].nonzero().flatten().tolist() == before[row]
        assert roles.last[row].nonzero().flatten().tolist() == last[row]


def test_exit_labels(model, batch):
    """0 at the start and before each latent, 1 at the last; none where a piece has no end."""
    config = model.config
    with torch.no_grad():
        model.exit_head.weight.zero_()
        model.exit_head.bias.fill_(0.7)
        output = model(**batch)
        said = torch.tensor(0.7)
        counts = [places(config, row) for row in batch["input_ids"].tolist()]
        going, ending = (sum(len(count[kind]) for count in counts) for kind in (0, 1))
        assert (going, ending) == (3 + 4 + 2 + 2, 4)
        on, off = config.exit_positive_weight * -said.sigmoid().log(), -(1 - said.sigmoid()).log()
        assert_near(output.exit_loss, (ending * on + going * off) / (going + ending))
        last = int(places(config, batch["input_ids"][1].tolist())[1][0])
        cut = {name: batch[name][1:2, : last + 1] for name in ("input_ids", "attention_mask", "labels")}
        output = model(**cut, latents=batch["latents"][1:2])
        assert_near(output.exit_loss, off)


def test_slots_are_filled_in_their_order(model, batch):
    """Each slot by its own latent, also where a row has motion in two places."""
    ids, latents = batch["input_ids"], batch["latents"]
    with torch.no_grad():
        embeds = model._embed(ids, latents, model._roles(ids).slot)
        for row in range(len(ids)):
            slots = ids[row] >= model.config.first_slot_token_id
            seen = (latents[row, : int(slots.sum())] - model.latent_shift) * model.latent_scale
            assert_near(embeds[row, slots], model.motion_input(seen))
            words = ids[row] < model.config.text_vocab_size
            assert torch.equal(embeds[row, words], model.get_input_embeddings()(ids[row, words]))
            markers = ~slots & ~words
            rows = model.marker_embedding(ids[row, markers] - model.config.text_vocab_size)
            assert torch.equal(embeds[row, markers], rows)


# Losses


def test_losses_by_hand(model, batch):
    config = model.config
    assert (config.language_modeling_weight, config.denoising_weight, config.exit_weight) == (1.0, 1.0, 1.0)
    config.language_modeling_weight, config.denoising_weight, config.exit_weight = 0.7, 0.5, 0.3
    config.exit_positive_weight = 3.0
    torch.manual_seed(11)
    with torch.no_grad():
        output = model(**batch)
    log_probabilities, states = output.logits.log_softmax(-1), output.hidden_states_of_motion
    words, conditions, targets, exits = [], [], [], []
    for row, ids in enumerate(batch["input_ids"].tolist()):
        for place in (batch["labels"][row] != -100).nonzero().flatten().tolist():
            words.append(-log_probabilities[row, place - 1, ids[place]])
        before, last = places(config, ids)
        for place in before:
            rank = sum(token >= config.first_slot_token_id for token in ids[: place + 1])
            conditions.append(states[row, place])
            targets.append((batch["latents"][row, rank] - model.latent_shift) * model.latent_scale)
        for place in sorted({*before, *last}):
            said = model.exit_head(states[row, place]).sigmoid()
            exits.append(-3.0 * said.log() if place in last else -(1 - said).log())
    assert len(targets) == 11 and len(exits) == 15
    assert_near(output.language_modeling_loss, torch.stack(words).mean())
    torch.manual_seed(11)
    with torch.no_grad():
        wanted = model.denoising_head.loss(torch.stack(targets), torch.stack(conditions).unsqueeze(1))
    assert_near(output.denoising_loss, wanted)
    assert_near(output.exit_loss, torch.stack(exits).mean())
    total = 0.7 * output.language_modeling_loss + 0.5 * output.denoising_loss + 0.3 * output.exit_loss
    assert_near(output.loss, total)


def test_the_flow_learns_the_latents_themselves(model, batch):
    """The targets are those of the table, in the order of the rows: a head that knows them has no loss."""
    ids, seen = batch["input_ids"], []
    model.denoising_head.target_repeats = 1
    original = model.denoising_head.squared_error
    model.denoising_head.squared_error = lambda target, *rest: (seen.append(target), original(target, *rest))[1]
    with torch.no_grad():
        model(**batch)
    made = [*range(5, 8), *range(10, 14), *range(16, 18), *range(21, 23)]
    assert_near(model.restore(seen[0]), TABLE[made])
    assert len(made) == int((ids == model.config.motion_out_token_id).sum())


def test_history_noise_is_on_latents_that_are_made_in_training(make_llamo, batch):
    """And the targets are clean. Llama has no dropout."""
    model, seen = make_llamo("llama"), []
    model.motion_input.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    ids, latents = batch["input_ids"], batch["latents"].repeat(1, 1, 1)
    slot = ids >= model.config.first_slot_token_id
    made = ids == model.config.motion_out_token_id
    with torch.no_grad():
        model(ids, latents=latents)
        model.train()
        outputs = [model(**batch) for _ in range(60)]
        model.config.history_noise = 0.0
        model(ids, latents=latents)
    clean, noisy, without = seen[0], torch.stack(seen[1:-1]), seen[-1]
    assert torch.equal(without[slot], clean[slot])
    given = slot & ~made
    assert torch.equal(noisy[:, given], clean[given].expand(60, -1, -1))
    added = (noisy - clean)[:, made]
    assert added.std().item() == pytest.approx(0.1, rel=0.03) and abs(added.mean().item()) < 0.005
    assert not torch.equal(outputs[0].hidden_states_of_motion[made], outputs[1].hidden_states_of_motion[made])
    model.config.history_noise = 0.1
    torch.manual_seed(3)
    with torch.no_grad():
        output = model(**batch)
        torch.manual_seed(3)
        torch.randn_like(clean)
        targets, conditions = [], []
        for row, token_ids in enumerate(ids.tolist()):
            for place in places(model.config, token_ids)[0]:
                rank = int(slot[row, : place + 1].sum())
                targets.append((latents[row, rank] - model.latent_shift) * model.latent_scale)
                conditions.append(output.hidden_states_of_motion[row, place])
        wanted = model.denoising_head.loss(torch.stack(targets), torch.stack(conditions).unsqueeze(1))
    assert_near(output.denoising_loss, wanted)


def test_every_row_of_training_may_have_a_history_noise_of_its_own(make_llamo, batch):
    """Uniform from 0 to the most; one deviation in a row."""
    model, seen = make_llamo("llama", history_noise=0.6, random_history_noise=True), []
    model.motion_input.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    ids = batch["input_ids"]
    rows = (ids == model.config.motion_out_token_id).sum(-1).topk(2).indices
    with torch.no_grad():
        model(ids, latents=batch["latents"])
        model.train()
        for _ in range(100):
            model(ids, latents=batch["latents"])
    added = torch.stack(seen[1:]) - seen[0]
    made = [added[:, row, ids[row] == model.config.motion_out_token_id] for row in rows]
    deviations = torch.stack([noise.flatten(1).std(-1) for noise in made])  # (rows, 100)
    assert 0 < deviations.min() < 0.06 and 0.5 < deviations.max() < 0.8
    assert deviations.mean().item() == pytest.approx(0.3, rel=0.15)
    assert abs(torch.corrcoef(deviations)[0, 1].item()) < 0.4
    first, second = (made[0][:, index].flatten(1).std(-1) for index in (0, 1))
    assert torch.corrcoef(torch.stack([first, second]))[0, 1] > 0.7


def test_times_of_the_flow_are_drawn_where_the_configuration_says(make_llamo):
    assert make_llamo(time_logit_mean=-1.0).denoising_head.time_logit_mean == -1.0
    assert make_llamo().denoising_head.time_logit_mean is None


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_skipping_logits_gives_the_same_loss(make_llamo, batch, kind):
    model = make_llamo(kind)
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


def test_batches_without_motion_or_without_words(model, llamo_processor):
    """A part that a batch has nothing for is left out, or 0; gradients stay finite."""
    model.train()
    captions = collate(llamo_processor, EXAMPLES[0], EXAMPLES[5])
    output = model(**captions)
    assert output.denoising_loss is None and output.exit_loss is None
    assert_near(output.loss, output.language_modeling_loss)
    output.loss.backward()
    motions = collate(llamo_processor, *EXAMPLES[1:5])
    output = model(**motions)
    assert output.language_modeling_loss == 0 and output.denoising_loss > 0
    output.loss.backward()
    nothing = {**captions, "labels": torch.full_like(captions["labels"], -100)}
    output = model(**nothing)
    assert output.loss == 0
    output.loss.backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.grad is not None)
    model.config.language_modeling_weight = 0.0
    output = model(**captions)
    assert output.language_modeling_loss is None and output.loss == 0 and output.loss.requires_grad
    assert "loss" not in model(captions["input_ids"], latents=captions["latents"])


def test_training_lowers_the_losses(model, batch):
    losses = train(model, batch, steps=25)
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3"])
def test_gradient_checkpointing_gives_the_same_gradients(make_llamo, batch, kind, half):
    """With dropout (GPT-2) and in bfloat16 too; each layer is computed again, in the branch of text and of motion."""
    model, counts = make_llamo(kind).train(), []
    freeze_text(model)
    layer, found = model.layers[1], []
    for part in (layer.mlp, layer.motion_branch.mlp):
        part.register_forward_pre_hook(lambda *_: counts.append(1))
    for times in (1, 2):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model(**batch).loss
        model.zero_grad()
        loss.backward()
        model.gradient_checkpointing_enable()
        assert len(counts) == 2 * times
        counts.clear()
        found.append((loss, {name: weight.grad for name, weight in model.named_parameters()}))
    assert_near(found[1][0], found[0][0])
    assert found[0][1]["motion_input.weight"].any()
    for name, gradient in found[0][1].items():
        assert (gradient is None) == (found[1][1][name] is None)
        if gradient is not None:
            assert_near(found[1][1][name], gradient, 1e-4)


# Padding and batches


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3"])
def test_padding_on_either_side_and_other_rows_change_nothing(make_llamo, batch, kind):
    model = make_llamo(kind)
    ids, mask, latents = batch["input_ids"], batch["attention_mask"].bool(), batch["latents"]
    lengths, width, size = mask.sum(-1).tolist(), ids.shape[1] + 3, model.config.text_vocab_size
    left = torch.full((len(ids), width), model.config.padding_token_id)
    left_mask = torch.zeros_like(left)
    for row, length in enumerate(lengths):
        left[row, width - length :], left_mask[row, width - length :] = ids[row, :length], 1
    positions = (left_mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        right = model(ids, attention_mask=mask.long(), latents=latents)
        padded = model(left, attention_mask=left_mask, position_ids=positions, latents=latents)
        for row, length in enumerate(lengths):
            alone = model(ids[row : row + 1, :length], latents=latents[row : row + 1])
            for output, real in ((right, mask[row]), (padded, left_mask[row].bool())):
                assert_near(output.hidden_states_of_motion[row, real], alone.hidden_states_of_motion[0], 1e-4)
                assert_near(output.logits[row, real][:, :size], alone.logits[0, :, :size], 1e-4)


def test_motions_and_their_latents_are_the_same_prompt(model, prompts):
    inputs = {name: prompts[name] for name in ("input_ids", "attention_mask")}
    motions = prompts["motion_values"], prompts["motion_mask"]
    latents = model.encode_motion(*motions)
    assert latents.shape == (3, 16, 8) and not latents.requires_grad
    assert torch.equal(latents, model.motion_codec.encode(*motions).latents)
    with torch.no_grad():
        from_motion = model(**prompts).logits
        assert torch.equal(model(**inputs, latents=latents).logits, from_motion)
        other = model(**inputs, latents=latents.flip(1)).logits
    assert (other - from_motion)[:, -1, : model.config.text_vocab_size].abs().max() > 1e-2
    assert torch.equal(model.train().encode_motion(*motions), latents), "training sees what generation sees"
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.encode_motion(*motions), latents)


def test_a_single_stream_sends_motion_through_the_weights_of_text(make_llamo, make_text_base, batch):
    model = make_llamo(streams="single")
    assert not any("motion_branch" in name for name, _ in model.named_parameters())
    ids = batch["input_ids"]
    base = make_text_base("gpt2")
    with torch.no_grad():
        embeds = model._embed(ids, batch["latents"], model._roles(ids).slot)
        wanted = base.transformer(inputs_embeds=embeds, attention_mask=batch["attention_mask"]).last_hidden_state
        assert torch.equal(model(**batch).hidden_states_of_motion, wanted)
    model.train()(**batch).loss.backward()
    assert model.layers[0].mlp.c_fc.weight.grad.any()


def test_latents_are_standardised_and_restored(model):
    latents = 5 * torch.randn(200, 8) + torch.arange(8.0)
    model.set_latent_statistics(latents)
    rows = model.standardise(latents)
    assert_near(rows.mean(0), torch.zeros(8), 1e-4)
    assert_near(rows.std(0), torch.ones(8), 1e-4)
    assert_near(model.restore(rows), latents, 1e-4)
    with pytest.raises(ValueError, match="1 latents have no spread: give those of many motions"):
        model.set_latent_statistics(latents[:1])


# Captions


def generate(model, inputs, **kwargs):
    options = {"min_new_tokens": 8, "max_new_tokens": 8, "do_sample": False, **kwargs}
    return model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_captions_do_not_depend_on_batch_padding_and_cache(make_llamo, prompts, kind, num_beams):
    model = make_llamo(kind)
    assert not prompts["attention_mask"].all()
    together = generate(model, prompts, num_beams=num_beams)
    for row in range(3):
        real, frames = prompts["attention_mask"][row].bool(), int(prompts["motion_mask"][row].sum())
        motion = prompts["motion_values"][row : row + 1, :frames]
        alone = {"input_ids": prompts["input_ids"][row][real][None], "motion_values": motion}
        assert torch.equal(generate(model, alone, num_beams=num_beams)[0], together[row])
    assert len(together.unique()) > 3, "a model that repeats itself tests nothing"
    assert torch.equal(generate(model, prompts, num_beams=num_beams, use_cache=False), together)
    assert (together < model.config.text_vocab_size).all()
    other = {**prompts, "motion_values": -2 * prompts["motion_values"]}
    assert not torch.equal(generate(model, other, num_beams=num_beams), together), "the motion makes no difference"


# Saving and joining


def test_a_model_comes_back_as_saved(tiny_llamo, llamo_folder, llamo_processor, batch):
    """With the codec alone beside it, and the code that it needs."""
    for kind in (AutoModel, AutoModelForCausalLM, LLaMoForCausalLM):
        loaded = kind.from_pretrained(llamo_folder)
        assert type(loaded) is LLaMoForCausalLM and not loaded.training
        ours, theirs = loaded.state_dict(), tiny_llamo.state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert not any(weight.requires_grad for weight in loaded.motion_codec.parameters())
    with torch.no_grad():
        assert_near(loaded(**batch).logits, tiny_llamo(**batch).logits, 1e-5)
    assert type(AutoProcessor.from_pretrained(llamo_folder)) is LLaMoProcessor
    alone = CausalMotionCodec.from_pretrained(llamo_folder / "motion_codec")
    assert all(torch.equal(weight, ours[f"motion_codec.{name}"]) for name, weight in alone.state_dict().items())
    config = json.loads((llamo_folder / "config.json").read_text())
    assert config["auto_map"]["AutoModelForCausalLM"] == "modeling_llamo.LLaMoForCausalLM"
    generation = ("autoregressive_motion_generation", "motion_requests", "motion_frame_streamer", "flow_graphs")
    for name in ("mixture_of_transformers", "denoising_heads", *generation, "processing_llamo"):
        assert (llamo_folder / f"{name}.py").is_file()


def test_an_incomplete_checkpoint_is_refused(llamo_folder, tmp_path):
    folder = shutil.copytree(llamo_folder, tmp_path / "incomplete")
    weights = load_file(folder / "model.safetensors")
    del weights["latent_shift"]
    weights["exit_head.unknown"] = weights.pop("exit_head.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing: exit_head.weight, latent_shift; unexpected: exit_head.unknown"):
        LLaMoForCausalLM.from_pretrained(folder)


def test_a_model_in_half_precision_keeps_its_latents(llamo_folder, tiny_llamo, llamo_processor, prompts, batch):
    """Codec and statistics stay in float32; everything else is rounded, learns and makes motions."""
    loaded = LLaMoForCausalLM.from_pretrained(llamo_folder, dtype=torch.bfloat16)
    kept = {name for name, weight in loaded.state_dict().items() if weight.dtype == torch.float32}
    assert kept == {
        name for name in loaded.state_dict() if name.startswith(("motion_codec.", "latent_shift", "latent_scale"))
    }
    motions = prompts["motion_values"], prompts["motion_mask"]
    assert torch.equal(loaded.encode_motion(*motions), tiny_llamo.encode_motion(*motions))
    with torch.no_grad():
        half, full = (model(**prompts).hidden_states_of_motion[:, -1].float() for model in (loaded, tiny_llamo))
    assert (half - full).norm() < 0.05 * full.norm()
    loss = loaded.train()(**batch).loss
    loss.backward()
    assert loss.isfinite() and loaded.motion_input.weight.grad.any()
    made = loaded.eval().generate_motion(TEXTS[0], num_frames=10, processor=llamo_processor)
    assert made.motion_values.dtype == torch.float32 and made.motion_values.isfinite().all()


def test_parts_are_taken_from_models_and_from_folders(make_text_base, make_motion_codec, tmp_path):
    """In float32, whatever the base's dtype; the branch starts as a copy of the text's unless it is not to."""
    base, codec = make_text_base("llama"), make_motion_codec(kl_weight=0.25)
    codec.save_pretrained(tmp_path / "codec")
    half = copy.deepcopy(base).to(torch.bfloat16)
    half.save_pretrained(tmp_path / "base")
    join = LLaMoForCausalLM.from_language_model
    for parts, original in (((base, codec), base), ((tmp_path / "base", str(tmp_path / "codec")), half)):
        model = join(*parts, denoising_hidden_size=24, denoising_num_layers=1)
        assert model.config.codec.kl_weight == 0.25 and model.config.text_config._name_or_path == ""
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}
        assert all(torch.equal(w, model.get_parameter(f"motion_codec.{n}")) for n, w in codec.named_parameters())
        assert all(torch.equal(w.float(), model.text_parameters()[n]) for n, w in original.named_parameters())
        layer = model.layers[0]
        assert torch.equal(layer.motion_branch.mlp.up_proj.weight, layer.mlp.up_proj.weight)
        assert torch.equal(model.motion_branch_norm.weight, model.base.norm.weight)
    other = join(base, codec, denoising_hidden_size=24, denoising_num_layers=1, start_from_text=False).layers[0]
    assert not torch.equal(other.motion_branch.mlp.up_proj.weight, other.mlp.up_proj.weight)
    assert type(base.model.layers[0]).__name__ == "LlamaDecoderLayer", "the base stays as it was"


def test_parts_that_do_not_fit_are_refused(make_text_base, make_motion_codec, make_motion_vae, tiny_llamo):
    join, base, codec = LLaMoForCausalLM.from_language_model, make_text_base("gpt2"), make_motion_codec()
    for arguments, options, message in (
        ((base, make_motion_vae()), {}, "`motion_codec` is a 'motion_vae': give a 'causal_motion_codec'"),
        ((base.transformer, codec), {}, "the language model is a GPT2Model without a head"),
        ((tiny_llamo, codec), {}, "is a 'llamo' and has a motion branch already: load it with `from_pretrained`"),
        ((base, codec), {"flow_width": 3}, "flow_width: no such option of LLaMoConfig"),
        ((base, codec), {"streams": "triple"}, "streams is 'triple'; use one of dual, single"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            join(*arguments, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"history_noise": -0.1}, "history_noise is -0.1"),
        ({"exit_positive_weight": 0}, "exit_positive_weight 0"),
        ({"exit_threshold": 1.0}, "exit_threshold 1.0"),
        ({"exit_threshold": 0.0}, "exit_threshold 0.0"),
        ({"num_denoising_steps": 0}, "num_denoising_steps is 0; it must be 1 or more"),
        ({"target_repeats": 0}, "target_repeats is 0; it must be 1 or more"),
        ({"denoising_guidance_scale": -1.0}, "denoising_guidance_scale is -1.0; it must be 0 or more"),
        ({"exit_weight": -1.0}, "exit_weight is -1.0; it must be 0 or more"),
        ({"max_motion_latents": 1}, "max_motion_latents is 1; motions have 2 or more"),
        (
            {"trained_stage": "text-to-motion"},
            "trained_stage is 'text-to-motion'; use one of alignment, joint, motion",
        ),
        ({"text_config": {"model_type": "nope"}}, "text_config is of a 'nope' model"),
    ],
)
def test_configurations_that_no_model_has_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LLaMoConfig(**options)


def test_wrong_inputs_are_refused(model, batch, prompts):
    ids, latents = batch["input_ids"], batch["latents"]
    for inputs, message in (
        ({"input_ids": ids}, "input_ids have up to 7 slots of motion a row, but there are 0 latents"),
        ({"input_ids": ids, "latents": latents[:, :6]}, "up to 7 slots of motion a row, but there are 6 latents"),
        ({"input_ids": ids, "latents": latents[:1]}, "there are motions for 1 rows, and 6 rows of input_ids"),
        ({**prompts, "latents": latents[:3]}, "give either `motion_values` or their `latents`"),
        ({"input_ids": ids, "latents": latents, "skip_logits": True}, "leaves nothing to return without `labels`"),
        ({"input_ids": ids, "latnets": latents}, "latnets: no effect on LLaMoForCausalLM"),
    ):
        with pytest.raises(ValueError, match=message):
            model(**inputs)
    swapped = {**prompts, **{name: prompts[name].flip(0) for name in ("motion_values", "motion_mask")}}
    for call in (model, model.generate):
        with pytest.raises(ValueError, match=r"row 0 of input_ids has \d+ slots of motion, its motion \d+ latents"):
            call(**swapped)
    words = prompts["input_ids"].where(prompts["input_ids"] < model.config.text_vocab_size, 0)
    with pytest.raises(ValueError, match="a motion is given, but the prompt shows none"):
        model.generate(**{**prompts, "input_ids": words})
    with pytest.raises(ValueError, match="its answer take up to 129 of the 128 positions"):
        model.generate(**prompts, max_new_tokens=129 - words.shape[1])


def test_a_second_turn_takes_the_motions_that_the_cache_lacks(model, prompts, check_second_turn):
    """Their slots are counted from the start of the conversation, not from where the cache ends."""
    ids = prompts["input_ids"][:1, prompts["attention_mask"][0].bool()]
    count = int((ids == model.config.motion_in_token_id).sum())
    check_second_turn(model, ids, torch.randn(1, 3 * count, model.config.codec.latent_dim) * 3, count)
