"""What a trained denoising head draws: a mixture of two Gaussians in the plane for each of two conditions."""

import copy
import math

import pytest
import torch
from torch.nn import functional

from geomotiongpt.models.denoising_heads import DenoisingHead, diffusion_schedule

WEIGHTS = torch.tensor([[0.7, 0.3], [0.2, 0.8]])
MODES = 2 * torch.tensor([[[1.0, 0.0], [-1.0, 0.0]], [[0.0, 1.0], [0.0, -1.0]]])  # (condition, component, 2)
DEVIATION = 0.3
CONDITIONS = torch.eye(2)[:, None]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def draw_mixture(labels, generator):
    """A latent for each condition number (rows,)."""
    components = (torch.rand(len(labels), generator=generator) < WEIGHTS[labels, 1]).long()
    return MODES[labels, components] + DEVIATION * torch.randn(len(labels), 2, generator=generator)


def mixture_errors(samples, label):
    """Largest error of the weights, of the means and of the deviations (each axis of each component)."""
    components = torch.cdist(samples, MODES[label]).argmin(-1)
    parts = [samples[components == number] for number in (0, 1)]
    return {
        "weights": max(abs(len(part) / len(samples) - WEIGHTS[label, i].item()) for i, part in enumerate(parts)),
        "means": max((part.mean(0) - MODES[label, i]).abs().max().item() for i, part in enumerate(parts)),
        "deviations": max((part.std(0) - DEVIATION).abs().max().item() for part in parts),
    }


def train_on_mixture(network, loss, seed, num_steps=3000, batch_size=256):
    """Adam with a warm-up and a cosine; returns the exponential moving average of the weights."""
    generator, average = seeded(seed), copy.deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, betas=(0.9, 0.99))
    for step in range(num_steps):
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1, step / 100) * (1 + math.cos(math.pi * step / num_steps))
        labels = torch.randint(2, (batch_size,), generator=generator)
        optimizer.zero_grad()
        loss(draw_mixture(labels, generator), CONDITIONS[labels], generator).backward()
        optimizer.step()
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(weight, 0.002)
    return average.eval()


def make_mixture_head(process, seed):
    torch.manual_seed(seed)
    sizes = {"latent_size": 2, "condition_size": 2, "num_condition_tokens": 1, "hidden_size": 64, "num_layers": 2}
    return DenoisingHead(**sizes, process=process)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("process", "samplers", "training"),
    [("diffusion", {"ancestral": 500, "ddim": 500}, (6000, 512)), ("rectified_flow", {"euler": 50}, (3000, 256))],
)
def test_a_trained_head_recovers_a_conditional_mixture(process, samplers, training, seed=0):
    """With more steps than usual for diffusion: see the next test."""
    head = make_mixture_head(process, seed)
    head = train_on_mixture(head.train(), head.loss, seed, *training)
    generator, errors = seeded(100 + seed), {}
    for sampler, num_steps in samplers.items():
        for label, condition in enumerate(CONDITIONS):
            samples = head.sample(
                condition.expand(10000, 1, 2), generator=generator, sampler=sampler, num_steps=num_steps
            )
            errors[sampler, label] = mixture_errors(samples, label)
            print(sampler, num_steps, label, errors[sampler, label])
    for (sampler, _), found in errors.items():
        # DDIM starts from noise in which, at T, some of the latent is left, and adds none that would hide it
        assert found["weights"] < (0.03 if sampler == "ddim" else 0.02), errors
        assert found["means"] < 0.05 and found["deviations"] < 0.02, errors


def exact_noise(noisy, share, label):
    """E[epsilon | x_i] for the mixture, where alpha_bar_i = share."""
    variance = share * DEVIATION**2 + 1 - share
    distances = noisy[:, None] - share**0.5 * MODES[label]
    posterior = (WEIGHTS[label].log() - distances.square().sum(-1) / (2 * variance)).softmax(-1)
    return (posterior[..., None] * distances).sum(1) * (1 - share) ** 0.5 / variance


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "usual", "more"), [("ancestral", 100, 500), ("ddim", 50, 200)])
def test_the_usual_steps_make_even_an_exact_denoiser_too_narrow(sampler, usual, more):
    """The deviation that is missing at the usual number of steps is the sampler's, not the network's."""
    deviations = []
    for num_steps in (usual, more):
        generator, schedule = seeded(), diffusion_schedule(num_steps=num_steps)
        latents = torch.randn(20000, 2, generator=generator)
        for index in reversed(range(num_steps)):
            predicted = exact_noise(latents, float(schedule.alphas_cumprod[index]), 0)
            if sampler == "ddim":
                latents = schedule.ddim_step(latents, predicted, index)
            else:
                noise = torch.randn(20000, 2, generator=generator)
                latents = schedule.ancestral_step(latents, predicted, noise, index)
        errors = mixture_errors(latents, 0)
        print(sampler, num_steps, errors)
        assert errors["weights"] < 0.02 and errors["means"] < 0.02
        deviations.append(errors["deviations"])
    assert deviations[0] > 0.025 and deviations[1] < 0.015


@pytest.mark.slow
def test_a_squared_error_head_collapses_the_mixture():
    """The contrast: the same network, trained to predict the latent itself, answers with the mean of the modes."""
    head = make_mixture_head("diffusion", 0)

    def predict(head, condition):
        rows = len(condition)
        return head.denoiser(torch.ones(rows, 2), torch.zeros(1), head.condition_encoder(condition))

    def loss(target, condition, generator):
        return functional.mse_loss(predict(head, condition), target)

    prediction = predict(train_on_mixture(head, loss, 0, num_steps=2000), CONDITIONS)
    torch.testing.assert_close(prediction, (WEIGHTS[..., None] * MODES).sum(1), rtol=0, atol=0.1)
    for label, latent in enumerate(prediction):
        assert (latent - MODES[label]).norm(dim=-1).min() > 2 * DEVIATION
