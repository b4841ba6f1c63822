"""The denoising head: what it draws, how it learns, and the published numbers."""

import copy
import json
import math
import re

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

from geomotiongpt.models.denoising_heads import DenoisingHead, diffusion_schedule, time_sinusoids
from geomotiongpt.models.flow_graphs import FlowGraphs

PROCESSES = ("diffusion", "rectified_flow")
SAMPLERS = (("diffusion", "ancestral"), ("diffusion", "ddim"), ("rectified_flow", "euler"))


def make_head(seed=0, **settings):
    """A small head whose output depends on all of its inputs: the zero layers of a fresh one are filled.

    Its process adds little noise: at the usual amount the samples of an untrained network are in the hundreds.
    """
    torch.manual_seed(seed)
    sizes = {"latent_size": 16, "condition_size": 12, "hidden_size": 24, "num_layers": 2, "beta_end": 0.002}
    head = DenoisingHead(**sizes | settings).eval()
    with torch.no_grad():
        for weight in head.parameters():
            weight.normal_(std=0.2)
    return head


def make_condition(rows=3, tokens=4, seed=5):
    return torch.randn(rows, tokens, 12, generator=seeded(seed))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def record_inputs(module):
    """A list that will hold the positional inputs of each call of a module."""
    calls = []
    module.register_forward_pre_hook(lambda _, inputs: calls.append(inputs))
    return calls


# Published numbers (the fixture was computed with the published code, see its README)


@pytest.fixture(scope="module")
def published(real_data):
    """The tensors of the fixture; latents as rows, (..., rows, 16)."""
    with safe_open(real_data / "reference/parity/diffusion_head.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    return {name: t.squeeze(-2) if t.shape[-2:] in ((1, 16), (1, 64)) else t for name, t in tensors.items()}


@pytest.fixture(scope="module")
def published_head(published):
    head = DenoisingHead(latent_size=16, condition_size=48, hidden_size=64, num_layers=3)
    prefix = "weights."
    weights = {name.removeprefix(prefix): t for name, t in published.items() if name.startswith(prefix)}
    weights = convert_published_weights(weights)
    head.load_state_dict({**weights, "null_condition": published["inputs.sample.null_condition"]})
    return head.eval()


def assert_near(name, value, expected, tolerance=1e-5):
    assert value.shape == expected.shape and value.dtype == expected.dtype, name
    error = float((value - expected).abs().max())
    print(f"{name}: largest error {error:.1e}")
    assert error < tolerance, f"{name}: largest error {error}"


@torch.no_grad()
def test_the_networks_give_the_published_numbers(published, published_head):
    head, time = published_head, published["inputs.timesteps"]
    embedding = head.condition_encoder(published["inputs.condition"])
    assert_near("condition embedding", embedding, published["outputs.condition_embedding"])
    time_embedding = head.denoiser.time_embedding(time_sinusoids(time))
    assert_near("timestep embedding", time_embedding, published["outputs.timestep_embedding"])
    noise = head.denoiser(published["inputs.noisy_latents"], time, embedding)
    assert_near("predicted noise", noise, published["outputs.predicted_noise"])


@pytest.mark.parametrize(("name", "num_steps"), [("base", 1000), ("respaced", 100)])
def test_the_schedules_are_the_published_ones(published, name, num_steps):
    schedule = diffusion_schedule(num_steps=num_steps)
    share = schedule.alphas_cumprod
    variance = np.exp(schedule.posterior_log_variance)
    tables = {
        "alphas_cumprod": share,
        "alphas_cumprod_prev": schedule.alphas_cumprod_prev,
        "betas": 1 - share / schedule.alphas_cumprod_prev,
        "sqrt_alphas_cumprod": np.sqrt(share),
        "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - share),
        "sqrt_recip_alphas_cumprod": np.sqrt(1 / share),
        "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / share - 1),
        "posterior_log_variance_clipped": schedule.posterior_log_variance,
        "posterior_variance": np.append(0.0, variance[1:]),
        "posterior_mean_coef1": schedule.posterior_mean_clean,
        "posterior_mean_coef2": schedule.posterior_mean_noisy,
    }
    expected = {
        key.rsplit(".", 1)[1]: t for key, t in published.items() if key.startswith(f"outputs.schedule.{name}.")
    }
    assert np.array_equal(schedule.timesteps, expected.pop("timestep_map"))
    assert tables.keys() == expected.keys()
    for key, table in tables.items():
        assert_near(f"{name} {key}", torch.tensor(table), expected[key], 1e-12)


@torch.no_grad()
def test_one_ancestral_step_is_the_published_one(published, published_head):
    schedule, index = diffusion_schedule(num_steps=100), int(published["inputs.step.index"])
    noisy, noise = published["inputs.step.x"], published["inputs.step.noise"]
    embedding = published_head.condition_encoder(published["inputs.sample.condition"])
    time = torch.tensor([schedule.timesteps[index]])
    predicted = published_head.denoiser(noisy, time, embedding)
    clean = schedule.predict_clean(noisy, predicted, index)
    assert_near("clean latent of one step", clean, published["outputs.step.pred_xstart"])
    mean = schedule.ancestral_step(noisy, predicted, torch.zeros_like(noise), index)
    assert_near("mean of one step", mean, published["outputs.step.mean"])
    log_variance = torch.full_like(mean, schedule.posterior_log_variance[index])
    assert_near("log variance of one step", log_variance, published["outputs.step.log_variance"])
    sample = schedule.ancestral_step(noisy, predicted, noise, index)
    assert_near("sample of one step", sample, published["outputs.step.sample"])


@torch.no_grad()
@pytest.mark.parametrize("guided", [False, True])
def test_whole_trajectories_are_the_published_ones(published, published_head, guided):
    head, schedule = published_head, diffusion_schedule(num_steps=100)
    name = "sample_cfg" if guided else "sample"
    condition = published["inputs.sample.condition"]
    embedding = head.condition_encoder(condition)
    null_embedding = head.condition_encoder(head.null_condition.expand_as(condition))
    latents, states, clean_states = published["inputs.sample.initial_noise"], [], []
    for index, noise in zip(reversed(range(100)), published[f"inputs.{name}.step_noises"], strict=True):
        time = torch.tensor([schedule.timesteps[index]])
        predicted = head.denoiser(latents, time, embedding)
        if guided:
            plain = head.denoiser(latents, time, null_embedding)
            predicted = plain + published["inputs.sample.cfg_scale"] * (predicted - plain)
        clean_states.append(schedule.predict_clean(latents, predicted, index))
        latents = schedule.ancestral_step(latents, predicted, noise, index)
        states.append(latents)
    assert_near(f"{name} trajectory", torch.stack(states), published[f"outputs.{name}.trajectory"])
    if not guided:
        # x_0 magnifies the error of the predicted noise, 25 times at the first step: measured before that.
        magnification = torch.tensor((1 / schedule.alphas_cumprod[::-1] - 1) ** 0.5).clamp(min=1).float()
        expected = published["outputs.sample.pred_xstart"] / magnification[:, None, None]
        assert_near("clean latents", torch.stack(clean_states) / magnification[:, None, None], expected)


def test_sample_is_the_published_one_for_the_same_seed(published, published_head):
    generator = seeded(int(published["inputs.sample.entry_seed"]))
    sample = published_head.sample(published["inputs.sample.condition"], generator=generator)
    assert_near("entry point", sample, published["outputs.sample.entry_point"])
    # The generator stands where the published one does: the last step, which adds no noise, has drawn too.
    reference = seeded(int(published["inputs.sample.entry_seed"]))
    torch.randn(101, 3, 16, generator=reference)
    assert torch.equal(torch.randn(48, generator=generator), torch.randn(48, generator=reference))


@torch.no_grad()
def test_the_training_loss_is_the_published_one(published, published_head):
    target, noise, time = (published[f"inputs.{name}"] for name in ("train.x_start", "train.noise", "timesteps"))
    noisy = published_head.schedule().add_noise(target, noise, time)
    assert_near("noisy latents", noisy, published["outputs.train.noisy"])
    embedding = published_head.condition_encoder(published["inputs.condition"])
    errors = published_head.squared_error(target, embedding, time, noise)
    assert_near("squared error of each row", errors.mean(-1), published["outputs.train.mse_per_sample"])
    assert_near("loss", errors.mean(), published["outputs.train.loss"])


def test_every_published_weight_has_its_place_at_the_published_size(real_data):
    shapes = json.loads((real_data / "reference/parity/published_state_dicts.json").read_text())
    shapes, prefix = shapes["motiongpt3_full"]["keys"], "lm.diffloss."
    with torch.device("meta"):
        head = DenoisingHead(latent_size=256, condition_size=768)
        weights = {name.removeprefix(prefix): torch.empty(shapes[name]) for name in shapes if prefix in name}
    ours = {name: weight.shape for name, weight in head.state_dict().items()}
    del ours["null_condition"]  # it belongs to the language model in the published code
    assert {name: weight.shape for name, weight in convert_published_weights(weights).items()} == ours
    assert rename_published_diffusion_head("net.unknown.weight") is None


# Schedule and steps


def test_a_ddim_step_stays_on_the_path_of_its_noise():
    schedule = diffusion_schedule(num_steps=7)
    clean, noise = torch.randn(2, 5, 3, generator=seeded())
    path = [schedule.add_noise(clean, noise, torch.full((5,), index)) for index in range(7)]
    for index in range(1, 7):
        assert_near(f"step {index}", schedule.ddim_step(path[index], noise, index), path[index - 1], 2e-6)
    assert_near("step 0", schedule.ddim_step(path[0], noise, 0), clean, 2e-6)


@pytest.mark.parametrize(("num_steps", "kept"), [(1, [999]), (2, [0, 999]), (4, [0, 333, 666, 999])])
def test_the_kept_steps_spread_over_all_and_include_the_noisiest(num_steps, kept):
    assert diffusion_schedule(num_steps=num_steps).timesteps.tolist() == kept


def test_a_schedule_first_used_in_inference_mode_can_be_trained_with():
    head = make_head(num_train_steps=37)
    with torch.inference_mode():
        head.loss(torch.zeros(3, 16), make_condition(), seeded())
    target = torch.zeros(3, 16, requires_grad=True)
    head.loss(target, make_condition(), seeded()).backward()
    assert target.grad.abs().sum() > 0


# Loss


@pytest.mark.parametrize(
    ("process", "mean"), [("diffusion", None), ("rectified_flow", None), ("rectified_flow", -1.0)]
)
def test_the_loss_is_the_mean_error_of_the_draws_of_its_generator(process, mean):
    head, condition = make_head(process=process, beta_end=0.012, time_logit_mean=mean), make_condition()
    target = torch.randn(3, 16, generator=seeded(1))
    generator = seeded(2)
    if mean is None:
        time = torch.rand(12, generator=generator)
    else:
        time = 1 / (1 + torch.exp(-(torch.randn(12, generator=generator) + mean)))
    noise = torch.randn(12, 16, generator=generator)
    repeated = target.repeat_interleave(4, 0)
    if process == "diffusion":
        step = (1000 * time).long()
        share = torch.tensor(np.cumprod(1 - np.linspace(0.00085, 0.012, 1000)))[step, None].float()
        noisy, wanted = share.sqrt() * repeated + (1 - share).sqrt() * noise, noise
    else:
        step = 1000 * time
        noisy, wanted = torch.lerp(noise, repeated, time[:, None]), repeated - noise
    embedding = head.condition_encoder(condition).repeat_interleave(4, 0)
    expected = functional.mse_loss(head.denoiser(noisy, step, embedding), wanted)
    torch.testing.assert_close(head.loss(target, condition, seeded(2)), expected, rtol=1e-6, atol=0)
    assert not torch.equal(head.loss(target, condition, seeded(3)), expected)


@pytest.mark.parametrize("process", PROCESSES)
def test_training_times_are_uniform(process):
    head = make_head(process=process, target_repeats=1)
    calls = record_inputs(head.denoiser)
    head.loss(torch.zeros(20000, 16), make_condition(1).expand(20000, -1, -1), seeded())
    times = calls[0][1]
    if process == "diffusion":
        assert times.dtype == torch.long and set(times.tolist()) == set(range(1000))
    shares = torch.histc(times.float(), 10, 0, 1000) / 20000
    torch.testing.assert_close(shares, torch.full((10,), 0.1), rtol=0, atol=0.01)


def test_training_drops_the_condition_of_whole_rows():
    head = make_head(condition_dropout=0.3, dropout=0.0).train()
    target, condition = torch.zeros(400, 16), make_condition(400).requires_grad_()
    head.loss(target, condition, seeded(7)).backward()
    dropped = condition.grad.abs().amax((1, 2)) == 0
    assert torch.equal(dropped, torch.rand(400, generator=seeded(7)) < 0.3)
    assert head.null_condition.grad.abs().min() > 0
    condition.grad = None
    head.eval().loss(target, condition, seeded(7)).backward()
    assert (condition.grad.abs().amax((1, 2)) > 0).all(), "evaluation drops nothing"


def test_a_dropped_condition_is_the_null():
    head = make_head(condition_dropout=1.0, dropout=0.0)
    target, condition, generator = torch.ones(5, 16), make_condition(5), seeded(4)
    loss = head.train().loss(target, condition, seeded(4))
    torch.rand(5, generator=generator)
    expected = head.eval().loss(target, head.null_condition.expand_as(condition), generator)
    assert torch.equal(loss, expected)


# Sampling


@torch.no_grad()
@pytest.mark.parametrize(("process", "sampler"), SAMPLERS)
def test_guidance_of_scale_one_is_the_conditional_model(process, sampler):
    head, condition = make_head(process=process), make_condition()
    generator = seeded(3)
    latents, embedding = torch.randn(3, 16, generator=generator), head.condition_encoder(condition)
    schedule = head.schedule(8)
    for step in range(8):
        index = 7 - step
        time = 1000 * step / 8 if sampler == "euler" else float(schedule.timesteps[index])
        predicted = head.denoiser(latents, torch.tensor([time]), embedding)
        if sampler == "euler":
            latents = latents + predicted / 8
        elif sampler == "ddim":
            latents = schedule.ddim_step(latents, predicted, index)
        else:
            noise = torch.randn(3, 16, generator=generator)
            latents = schedule.ancestral_step(latents, predicted, noise, index)
    # The unconditional branch is not even computed: it would make everything NaN.
    head.null_condition.fill_(math.nan)
    nothing = torch.full_like(condition, math.nan)
    for unconditional in (None, nothing):
        sample = head.sample(
            condition, generator=seeded(3), num_steps=8, sampler=sampler, unconditional=unconditional, guidance_scale=1
        )
        torch.testing.assert_close(sample, latents, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("rows", "num_steps"), [(1, 5), (3, 50), (5, 26), (100, 3)])
def test_what_is_computed_for_many_steps_at_once_is_what_each_step_gives(rows, num_steps):
    """All steps at once, several times as many as fit (the last ones fewer), and one by one."""
    head = make_head(process="rectified_flow")
    condition, other = make_condition(rows), make_condition(rows, seed=6)
    calls = record_inputs(head.denoiser.time_embedding)
    sample = head.sample(condition, generator=seeded(3), num_steps=num_steps, guidance_scale=2.5, unconditional=other)
    together = max(1, 128 // (2 * rows))
    assert [len(sinusoids) for (sinusoids,) in calls] == [
        min(together, num_steps - first) for first in range(0, num_steps, together)
    ]
    latents = torch.randn(rows, 16, generator=seeded(3))
    for step in range(num_steps):
        time = torch.tensor([1000 * step / num_steps])
        given, null = (head.denoiser(latents, time, head.condition_encoder(one)) for one in (condition, other))
        latents = latents + (null + 2.5 * (given - null)) / num_steps
    assert latents.std() > 0.1
    torch.testing.assert_close(sample, latents, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("process", PROCESSES)
def test_every_layer_listens_to_time_and_condition(process):
    """Shift, scale and gate of each block, shift and scale of the last layer."""
    head = make_head(process=process)
    wanted = head.sample(make_condition(), generator=seeded(3), num_steps=4)
    for layer in head.denoiser.layers:
        weight = layer.modulation.weight
        for part in range(len(weight) // 24):
            kept = weight[24 * part : 24 * part + 24].clone()
            with torch.no_grad():
                weight[24 * part : 24 * part + 24] = 0
            changed = head.sample(make_condition(), generator=seeded(3), num_steps=4)
            assert (changed - wanted).abs().max() > 1e-4, (layer, part)
            with torch.no_grad():
                weight[24 * part : 24 * part + 24] = kept


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")
def test_a_graph_of_the_flow_loop_gives_what_its_steps_give():
    """For other inputs than it was recorded with, after a change of the weights, and where they have moved."""
    head = make_head(process="rectified_flow").cuda()
    head.flow_graphs = FlowGraphs()
    stepwise = copy.deepcopy(head)
    stepwise.flow_graphs = None
    for change in ("none", "in place", "moved"):
        for rows, scale in ((1, 1.0), (1, 3.0), (4, 3.0), (1, 1.0)):
            for seed in (1, 2):
                condition = make_condition(rows, seed=seed).cuda()
                options = {"num_steps": 10, "guidance_scale": scale}
                made, wanted = (one.sample(condition, generator=seeded(seed), **options) for one in (head, stepwise))
                torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-4, msg=change)
        for one in (head, stepwise):
            weight = one.denoiser.blocks[0].mlp[0].weight
            with torch.no_grad():
                if change == "none":
                    weight.mul_(0.5)
                else:
                    one.denoiser.blocks[0].mlp[0].weight = nn.Parameter(2 * weight)


@pytest.mark.parametrize(("process", "sampler"), SAMPLERS)
def test_guidance_leads_from_the_unconditional_to_beyond_the_conditional(process, sampler):
    head, condition, other = make_head(process=process), make_condition(), make_condition(seed=6)

    def sample(condition, **options):
        return head.sample(condition, generator=seeded(3), num_steps=4, sampler=sampler, **options)

    null = head.null_condition.expand_as(condition)
    torch.testing.assert_close(sample(condition, guidance_scale=0), sample(null), rtol=0, atol=1e-5)
    given = sample(condition, guidance_scale=0, unconditional=other)
    torch.testing.assert_close(given, sample(other), rtol=0, atol=1e-5)
    # One step is linear in the prediction.
    low, middle, high = (
        head.sample(condition, generator=seeded(3), num_steps=1, sampler=sampler, guidance_scale=scale)
        for scale in (0, 1, 3)
    )
    assert (middle - low).abs().max() > 1e-2
    torch.testing.assert_close(high, low + 3 * (middle - low), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("process", "sampler"), SAMPLERS)
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_sample_encodes_its_condition_once_and_guides_in_one_call_a_step(process, sampler, scale):
    head = make_head(process=process)
    encoder_calls, denoiser_calls = (
        record_inputs(module) for module in (head.condition_encoder, head.denoiser.input_projection)
    )
    head.sample(make_condition(), num_steps=5, sampler=sampler, guidance_scale=scale)
    rows = 3 if scale == 1 else 6
    assert [len(condition) for (condition,) in encoder_calls] == [rows]
    assert [len(latents) for (latents,) in denoiser_calls] == [rows] * 5


@pytest.mark.parametrize(
    ("process", "sampler", "num_steps"),
    [("diffusion", None, 100), ("diffusion", "ddim", 50), ("rectified_flow", None, 50)],
)
def test_the_usual_number_of_steps(process, sampler, num_steps):
    head = make_head(process=process)
    steps = record_inputs(head.denoiser.input_projection)
    calls = record_inputs(head.denoiser.time_embedding)
    head.sample(make_condition(), sampler=sampler)
    assert len(steps) == num_steps
    expected = np.arange(50) * 20 if process == "rectified_flow" else np.rint(np.linspace(999, 0, num_steps))
    sinusoids = torch.cat([sinusoids.flatten(0, -2) for (sinusoids,) in calls])
    assert torch.equal(sinusoids, time_sinusoids(torch.from_numpy(expected)))


@pytest.mark.parametrize(("process", "sampler"), SAMPLERS)
def test_a_seed_fixes_the_sample_and_the_global_generator_is_left_alone(process, sampler):
    head, condition = make_head(process=process), make_condition()
    state = torch.get_rng_state()
    first, again, other = (
        head.sample(condition, generator=seeded(seed), num_steps=5, sampler=sampler) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and (first - other).abs().max() > 1e-2
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == (3, 16) and not first.requires_grad
    torch.manual_seed(8)
    drawn = head.sample(condition, num_steps=5, sampler=sampler)
    torch.manual_seed(8)
    assert torch.equal(head.sample(condition, num_steps=5, sampler=sampler), drawn)


@pytest.mark.parametrize(("process", "sampler"), SAMPLERS[1:])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_row_has_the_same_sample_alone_and_in_a_batch(process, sampler, scale):
    head, condition = make_head(process=process), make_condition()
    options = {"sampler": sampler, "guidance_scale": scale, "num_steps": 20}
    generator = seeded()
    rows = torch.cat([torch.randn(1, 16, generator=generator) for _ in range(3)])
    assert torch.equal(rows, torch.randn(3, 16, generator=seeded())), "rows must get the same noise to be compared"
    generator = seeded()
    alone = torch.cat([head.sample(row[None], generator=generator, **options) for row in condition])
    torch.testing.assert_close(head.sample(condition, generator=seeded(), **options), alone, rtol=0, atol=1e-5)


def test_sampling_leaves_the_mode_as_it_is():
    head = make_head()
    for training in (True, False):
        head.train(training).sample(make_condition(), num_steps=2)
        assert head.training is training and head.condition_encoder.training is training


# Precision, initialisation, life inside a model


@pytest.mark.parametrize(("process", "sampler"), SAMPLERS)
@pytest.mark.parametrize("tokens", [1, 4])
def test_half_precision_moves_samples_and_loss_only_a_little(process, sampler, tokens):
    head, condition = make_head(process=process, num_condition_tokens=tokens), make_condition(tokens=tokens)
    target = torch.randn(3, 16, generator=seeded(1))

    def results(head, *inputs):
        options = {"sampler": sampler, "guidance_scale": 1.5, "num_steps": 20}
        return head.loss(*inputs, seeded(2)), head.sample(inputs[1], generator=seeded(2), **options)

    loss, sample = results(head, target, condition)
    with torch.autocast("cpu", torch.bfloat16):
        outcomes = [results(head, target, condition)]
        outcomes.append(results(head, target.bfloat16(), condition.bfloat16()))
        predicted = head.denoiser(target, torch.zeros(1), head.condition_encoder(condition))
        assert predicted.dtype == torch.float32, "the steps of the process must not be computed in half precision"
        head.train().loss(target, condition, seeded(2)).backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in head.parameters())
    outcomes.append(results(copy.deepcopy(head).eval().bfloat16(), target.bfloat16(), condition.bfloat16()))
    for half_loss, half_sample in outcomes:
        assert half_loss.dtype == half_sample.dtype == torch.float32
        torch.testing.assert_close(half_loss, loss, rtol=0.05, atol=0)
        assert (half_sample - sample).abs().max() < 0.1 * sample.abs().max()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("process", "sampler"), SAMPLERS)
def test_a_generator_on_the_cpu_gives_the_same_sample_on_a_gpu(process, sampler):
    head, condition = make_head(process=process), make_condition()
    options = {"sampler": sampler, "num_steps": 10, "guidance_scale": 2.0}
    sample = head.sample(condition, generator=seeded(), **options)
    loss = head.loss(sample, condition, seeded())
    on_gpu = head.cuda().sample(condition.cuda(), generator=seeded(), **options)
    torch.testing.assert_close(on_gpu.cpu(), sample, rtol=0, atol=1e-3)
    torch.testing.assert_close(head.loss(sample.cuda(), condition.cuda(), seeded()).cpu(), loss, rtol=1e-3, atol=0)
    head.sample(condition.cuda(), generator=torch.Generator("cuda"), **options)


@pytest.mark.parametrize("process", PROCESSES)
def test_a_fresh_head_predicts_zero_for_every_condition(process):
    head = DenoisingHead(latent_size=16, condition_size=12, hidden_size=24, process=process)
    condition = make_condition(500)
    assert (head.denoiser(torch.ones(500, 16), torch.tensor([3.0]), head.condition_encoder(condition)) == 0).all()
    assert (head.null_condition == 0).all()
    target = torch.full((500, 16), 2.0)
    expected = 1.0 if process == "diffusion" else 5.0  # mean of epsilon^2; of (x_0 - epsilon)^2
    assert abs(head.loss(target, condition, seeded()).item() - expected) < 0.05
    for _ in range(2):  # the modulation starts to learn as soon as the output layer is not zero any more
        head.loss(target, condition, seeded()).backward()
        torch.optim.SGD(head.parameters(), lr=0.1).step()
    assert head.denoiser.final_layer.linear.weight.abs().max() > 0


class HeadOwner(PreTrainedModel):
    """The least model that owns a head."""

    config_class = PretrainedConfig

    def __init__(self, config):
        super().__init__(config)
        self.head = DenoisingHead(latent_size=16, condition_size=12, hidden_size=24, num_layers=2, beta_end=0.002)
        self.extra = nn.Linear(2, 2)
        self.post_init()

    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, DenoisingHead):
            module.reset_parameters()


def test_a_model_that_owns_a_head_initialises_saves_and_loads_it(tmp_path):
    model = HeadOwner(PretrainedConfig())
    assert (model.head.denoiser.final_layer.linear.weight == 0).all() and (model.head.null_condition == 0).all()
    assert 0.01 < model.head.condition_encoder.pooling.query.std().item() < 0.04
    model.head.load_state_dict(make_head().state_dict())
    model.save_pretrained(tmp_path)
    loaded = HeadOwner.from_pretrained(tmp_path)
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    condition = make_condition()
    expected = model.eval().head.sample(condition, generator=seeded(), num_steps=5)
    sample = loaded.head.sample(condition, generator=seeded(), num_steps=5)
    torch.testing.assert_close(sample, expected, rtol=0, atol=1e-5)


def test_one_condition_state_is_only_projected():
    head = make_head(num_condition_tokens=1)
    names = {name for name in head.state_dict() if "denoiser" not in name}
    assert names == {"null_condition", "condition_encoder.projection.weight", "condition_encoder.projection.bias"}
    assert head.null_condition.shape == (1, 12)
    condition = make_condition(tokens=1)
    assert torch.equal(head.condition_encoder(condition), head.condition_encoder.projection(condition[:, 0]))


def test_every_condition_state_and_its_place_matter():
    head, condition = make_head(), make_condition(1)
    embedding = head.condition_encoder(condition)
    changed = [condition.flip(1)]
    for token in range(4):
        changed.append(condition.clone())
        changed[-1][:, token, 0] += 1
    for other in changed:
        assert (head.condition_encoder(other) - embedding).abs().max() > 1e-4


# Bad input


@pytest.mark.parametrize(
    ("process", "options", "message"),
    [
        ("diffusion", {"sampler": "euler"}, "sampler is 'euler'; for diffusion it must be one of ancestral, ddim"),
        ("rectified_flow", {"sampler": "ddim"}, "sampler is 'ddim'; for rectified_flow it must be one of euler"),
        ("diffusion", {"num_steps": 0}, "num_steps is 0; for diffusion it must be 1 to 1000"),
        ("diffusion", {"num_steps": 1001}, "num_steps is 1001; for diffusion it must be 1 to 1000"),
        ("rectified_flow", {"num_steps": 0}, "num_steps is 0; for rectified_flow it must be 1 or more"),
        ("diffusion", {"guidance_scale": -1.0}, "guidance_scale is -1.0"),
        ("diffusion", {"guidance_scale": math.nan}, "guidance_scale is nan"),
        ("rectified_flow", {"guidance_scale": math.inf}, "guidance_scale is inf"),
        ("diffusion", {"unconditional": torch.zeros(1, 4, 12)}, r"unconditional has shape \(1, 4, 12\).*\(3, 4, 12\)"),
    ],
)
def test_an_impossible_way_to_sample_is_refused(process, options, message):
    with pytest.raises(ValueError, match=message):
        make_head(process=process).sample(make_condition(), **options)


def test_times_of_diffusion_are_uniform():
    with pytest.raises(ValueError, match="time_logit_mean is -1.0, but the steps of 'diffusion' are drawn alike"):
        make_head(time_logit_mean=-1.0)


@pytest.mark.parametrize("shape", [(3, 12), (3, 1, 12), (3, 4, 11)])
def test_a_condition_of_another_shape_is_refused(shape):
    head, condition = make_head(), torch.zeros(shape)
    message = re.escape(f"condition has shape {shape}; it must be (rows, 4, 12)")
    with pytest.raises(ValueError, match=message):
        head.sample(condition)
    with pytest.raises(ValueError, match=message):
        head.loss(torch.zeros(3, 16), condition)


@pytest.mark.parametrize("shape", [(3, 15), (2, 16), (3, 1, 16), (0, 16)])
def test_a_target_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=re.escape(f"target has shape {shape}")):
        make_head().loss(torch.zeros(shape), make_condition(3 if shape[0] else 0))


def test_an_unknown_process_is_refused():
    with pytest.raises(ValueError, match="process is 'flow'; it must be one of diffusion, rectified_flow"):
        DenoisingHead(latent_size=2, condition_size=2, process="flow")


def test_a_head_with_few_training_steps_samples_with_all_of_them():
    head = make_head(num_train_steps=20)
    calls = record_inputs(head.denoiser.input_projection)
    assert head.sample(make_condition()).isfinite().all()
    assert len(calls) == 20


# Published names


_PUBLISHED_PREFIXES = {
    "net.input_proj.": "denoiser.input_projection.",
    "net.time_embed.mlp.": "denoiser.time_embedding.",
    "net.res_blocks.": "denoiser.blocks.",
    "net.final_layer.": "denoiser.final_layer.",
    "net.cond_embed.hidden_embedding": "condition_encoder.pooling.query",
    "net.cond_embed.hid_pos.pe": "condition_encoder.pooling.positions",
    "net.cond_embed.hid_encoder_layer.": "condition_encoder.pooling.encoder_layer.",
    "net.cond_embed.cond_proj.": "condition_encoder.projection.",
}


def rename_published_diffusion_head(key: str) -> str | None:
    """Our name of a weight of the published diffusion head, None if it has none.

    The position table keeps its name but not its shape: of its 500 rows (500, 1, size) the head has the first ones.
    """
    for prefix, ours in _PUBLISHED_PREFIXES.items():
        if key.startswith(prefix):
            name = ours + key.removeprefix(prefix)
            return name.replace(".in_ln.", ".norm.").replace(".adaLN_modulation.1.", ".modulation.")
    return None


def convert_published_weights(weights, num_condition_tokens=4):
    """Renamed, with the rows of the position table that are used."""
    renamed = {rename_published_diffusion_head(name): weight for name, weight in weights.items()}
    positions = "condition_encoder.pooling.positions"
    renamed[positions] = renamed[positions][: num_condition_tokens + 1, 0]
    return renamed
