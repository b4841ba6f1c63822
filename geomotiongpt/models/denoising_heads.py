"""Denoising head: draws a continuous motion latent, given hidden states of a language model.

MotionGPT3 (arXiv 2506.24086) predicts the noise of a diffusion process, LLaMo (arXiv 2602.12370) the velocity of a
rectified flow. Both use a small MLP with adaptive layer norms, as MAR does (arXiv 2406.11838). The file reads from top
to bottom: noise schedule, condition encoder, network, head.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import initialization as init

from .flow_graphs import FlowGraphs

_NUM_SINUSOIDS = 256
_ROWS_TOGETHER = 128  # rows times steps whose modulations are computed, and kept, at once
_FLOW_TIME_SCALE = 1000.0  # flow times lie in [0, 1], the sinusoids are made for step numbers

# The samplers of each process with their usual number of steps; the first one is the default.
_SAMPLERS = {"diffusion": {"ancestral": 100, "ddim": 50}, "rectified_flow": {"euler": 50}}


@dataclass(frozen=True, eq=False)
class DiffusionSchedule:
    """Tables of a diffusion process over the kept steps, float64, each (num_steps,); index 0 is the least noisy.

    Args:
        timesteps: the step numbers of the training process, which the network receives.
        alphas_cumprod: alpha_bar_i, the share of the clean latent in the variance after step i.
        alphas_cumprod_prev: alpha_bar_(i-1); 1 at index 0.
        posterior_log_variance: logarithm of the variance of x_(i-1) given x_i and the clean latent (the "small" fixed
            variance); the first entry, which would be infinite, is the second one.
        posterior_mean_clean: factor of the clean latent in the posterior mean.
        posterior_mean_noisy: factor of x_i in the posterior mean.
    """

    timesteps: np.ndarray
    alphas_cumprod: np.ndarray
    alphas_cumprod_prev: np.ndarray
    posterior_log_variance: np.ndarray
    posterior_mean_clean: np.ndarray
    posterior_mean_noisy: np.ndarray

    def add_noise(self, clean: Tensor, noise: Tensor, indices: Tensor) -> Tensor:
        """x_i = sqrt(alpha_bar_i) x_0 + sqrt(1 - alpha_bar_i) epsilon; latents (rows, size), indices (rows,) long."""
        # Only arrays are kept: a cached tensor could stem from inference mode and refuse to be trained with.
        shares = np.stack([self.alphas_cumprod, 1 - self.alphas_cumprod], axis=-1)
        factors = torch.tensor(np.sqrt(shares), dtype=clean.dtype, device=clean.device)[indices]
        signal, spread = factors.unsqueeze(-2).unbind(-1)
        return signal * clean + spread * noise

    def predict_clean(self, noisy: Tensor, predicted_noise: Tensor, index: int) -> Tensor:
        """x_0 = (x_i - sqrt(1 - alpha_bar_i) epsilon) / sqrt(alpha_bar_i), not clipped."""
        inverse = 1 / self.alphas_cumprod[index]
        return math.sqrt(inverse) * noisy - math.sqrt(inverse - 1) * predicted_noise

    def ancestral_step(self, noisy: Tensor, predicted_noise: Tensor, noise: Tensor, index: int) -> Tensor:
        """x_(i-1), drawn from the posterior with the standard normal `noise`; at index 0 its mean."""
        clean = self.predict_clean(noisy, predicted_noise, index)
        mean = float(self.posterior_mean_clean[index]) * clean + float(self.posterior_mean_noisy[index]) * noisy
        if index == 0:
            return mean
        return mean + math.exp(0.5 * self.posterior_log_variance[index]) * noise

    def ddim_step(self, noisy: Tensor, predicted_noise: Tensor, index: int) -> Tensor:
        """x_(i-1) on the deterministic path (DDIM, arXiv 2010.02502 eq. 12 with eta = 0)."""
        previous = self.alphas_cumprod_prev[index]
        clean = self.predict_clean(noisy, predicted_noise, index)
        return math.sqrt(previous) * clean + math.sqrt(1 - previous) * predicted_noise


@lru_cache
def diffusion_schedule(
    num_train_steps: int = 1000, num_steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
) -> DiffusionSchedule:
    """The schedule of MotionGPT3: betas linear over the training steps, of which `num_steps` are kept evenly.

    The published code calls it "scaled_linear", which elsewhere means linear in the square root; it is linear.

    Args:
        num_train_steps: steps of the training process.
        num_steps: how many are kept, 1 to num_train_steps. Of several the first and the last are always kept, of one
            the last, where sampling starts.
        beta_start: variance that the first step adds.
        beta_end: variance that the last step adds.
    """
    timesteps = np.rint(np.linspace(num_train_steps - 1, 0, num_steps))[::-1].astype(np.int64)
    alphas_cumprod = np.cumprod(1 - np.linspace(beta_start, beta_end, num_train_steps))[timesteps]
    alphas_cumprod_prev = np.append(1.0, alphas_cumprod[:-1])
    betas = 1 - alphas_cumprod / alphas_cumprod_prev
    log_variance = np.log((betas * (1 - alphas_cumprod_prev) / (1 - alphas_cumprod))[1:])
    return DiffusionSchedule(
        timesteps=timesteps,
        alphas_cumprod=alphas_cumprod,
        alphas_cumprod_prev=alphas_cumprod_prev,
        posterior_log_variance=np.append(log_variance[:1], log_variance),
        posterior_mean_clean=betas * np.sqrt(alphas_cumprod_prev) / (1 - alphas_cumprod),
        posterior_mean_noisy=(1 - alphas_cumprod_prev) * np.sqrt(1 - betas) / (1 - alphas_cumprod),
    )


class AttentionPooling(nn.Module):
    """Condition states (rows, tokens, size) -> (rows, size): a learned query in one post-norm encoder layer."""

    def __init__(self, size: int, num_tokens: int, num_heads: int, dropout: float):
        super().__init__()
        self.query = nn.Parameter(torch.empty(1, size))
        self.positions = nn.Parameter(torch.empty(num_tokens + 1, size))
        self.encoder_layer = nn.TransformerEncoderLayer(
            size, num_heads, 4 * size, dropout, activation="gelu", batch_first=True
        )

    def forward(self, condition: Tensor) -> Tensor:
        query = self.query.expand(len(condition), 1, -1)
        return self.encoder_layer(torch.cat([query, condition], dim=1) + self.positions)[:, 0]


class ConditionEncoder(nn.Module):
    """Condition states (rows, tokens, condition_size) -> (rows, hidden_size): several are pooled, then projected."""

    def __init__(self, condition_size: int, hidden_size: int, num_tokens: int, num_heads: int, dropout: float):
        super().__init__()
        self.pooling = AttentionPooling(condition_size, num_tokens, num_heads, dropout) if num_tokens > 1 else None
        self.projection = nn.Linear(condition_size, hidden_size)

    def forward(self, condition: Tensor) -> Tensor:
        return self.projection(condition[:, 0] if self.pooling is None else self.pooling(condition))


def time_sinusoids(time: Tensor) -> Tensor:
    """Step numbers (...,) -> (..., 256) float32, cosines first."""
    half = _NUM_SINUSOIDS // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, device=time.device, dtype=torch.float32) / half)
    angles = time.float().unsqueeze(-1) * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class AdaptiveBlock(nn.Module):
    """x + gate * MLP(LayerNorm(x) * (1 + scale) + shift), where time and condition set shift, scale and gate."""

    def __init__(self, size: int):
        super().__init__()
        self.norm = nn.LayerNorm(size, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(size, size), nn.SiLU(), nn.Linear(size, size))
        self.modulation = nn.Linear(size, 3 * size)

    def modulate(self, modulator: Tensor) -> tuple[Tensor, ...]:
        """(..., size) -> shift, 1 + scale and gate, (..., size) each."""
        shift, scale, gate = self.modulation(modulator).chunk(3, dim=-1)
        return shift, 1 + scale, gate

    def forward(self, hidden_states: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
        """(rows, size) -> (rows, size), with what `modulate` gives."""
        return torch.addcmul(hidden_states, gate, self.mlp(torch.addcmul(shift, self.norm(hidden_states), scale)))


class FinalLayer(nn.Module):
    """Linear(LayerNorm(x) * (1 + scale) + shift), (rows, size) -> (rows, latent_size)."""

    def __init__(self, size: int, latent_size: int):
        super().__init__()
        self.norm = nn.LayerNorm(size, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(size, 2 * size)
        self.linear = nn.Linear(size, latent_size)

    def modulate(self, modulator: Tensor) -> tuple[Tensor, ...]:
        """(..., size) -> shift and 1 + scale, (..., size) each."""
        shift, scale = self.modulation(modulator).chunk(2, dim=-1)
        return shift, 1 + scale

    def forward(self, hidden_states: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """(rows, size) -> (rows, latent_size), with what `modulate` gives."""
        return self.linear(torch.addcmul(shift, self.norm(hidden_states), scale))


class DenoiserMLP(nn.Module):
    """Noisy latents, time and condition -> predicted noise (diffusion) or velocity (rectified flow)."""

    def __init__(self, latent_size: int, hidden_size: int, num_layers: int):
        super().__init__()
        self.input_projection = nn.Linear(latent_size, hidden_size)
        self.time_embedding = nn.Sequential(
            nn.Linear(_NUM_SINUSOIDS, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size)
        )
        self.blocks = nn.ModuleList(AdaptiveBlock(hidden_size) for _ in range(num_layers))
        self.final_layer = FinalLayer(hidden_size, latent_size)

    @property
    def layers(self) -> list[Any]:
        """Those that time and condition modulate."""
        return [*self.blocks, self.final_layer]

    def modulator(self, time: Tensor, condition_embedding: Tensor) -> Tensor:
        """Times (...,) and conditions (..., hidden_size), which broadcast -> (..., hidden_size)."""
        sinusoids = time_sinusoids(time).to(self.input_projection.weight.dtype)
        return functional.silu(self.time_embedding(sinusoids) + condition_embedding)

    def modulate_steps(self, times: Tensor, condition_embedding: Tensor) -> Iterator[list[tuple[Tensor, ...]]]:
        """For `denoise`, what time and condition set in each layer, at one step after another.

        None of it depends on the latents, so it is computed for many steps at once: their layers' weights, which are
        more than those of the rest, are read once, and not at every step.

        Args:
            times: (steps,), as in `forward`, each the same for all rows.
            condition_embedding: (rows, hidden_size).
        """
        for together in times.split(max(1, _ROWS_TOGETHER // len(condition_embedding))):
            modulator = self.modulator(together.unsqueeze(-1), condition_embedding)
            steps = [zip(*layer.modulate(modulator), strict=True) for layer in self.layers]
            yield from map(list, zip(*steps, strict=True))

    def forward(self, noisy: Tensor, time: Tensor, condition_embedding: Tensor) -> Tensor:
        """Always float32, so that the steps of a process are computed in it.

        Args:
            noisy: (rows, latent_size).
            time: (rows,) or, the same for all rows, (1,): step numbers of the training process, or 1000 t.
            condition_embedding: (rows, hidden_size).
        """
        modulator = self.modulator(time, condition_embedding)
        return self.denoise(noisy, [layer.modulate(modulator) for layer in self.layers])

    def denoise(self, noisy: Tensor, modulations: Sequence[tuple[Tensor, ...]]) -> Tensor:
        """`forward`, with what time and condition set in each layer."""
        hidden_states = self.input_projection(noisy.to(self.input_projection.weight.dtype))
        for layer, modulation in zip(self.layers, modulations, strict=True):
            hidden_states = layer(hidden_states, *modulation)
        return hidden_states.float()


class DenoisingHead(nn.Module):
    """Samples a latent x_0 given hidden states of a language model, and gives the loss that teaches it.

    A `PreTrainedModel` that holds one calls its `reset_parameters` from `_init_weights`.

    Args:
        latent_size: width of a latent.
        condition_size: width of a hidden state.
        num_condition_tokens: hidden states that condition one latent; 1 is projected, more are pooled by attention.
        hidden_size: width of the denoiser.
        num_layers: residual blocks of the denoiser.
        num_condition_heads: attention heads of the pooling; not used for one condition state.
        process: "diffusion" (the network predicts the noise) or "rectified_flow" (it predicts the velocity).
        num_train_steps: T, steps of the diffusion process in training.
        beta_start: variance that its first step adds.
        beta_end: variance that its last step adds.
        target_repeats: how often the loss uses each target, each time with another time and noise.
        condition_dropout: probability that, in training, the learned null takes the place of a row's condition.
        dropout: of the attention pooling; the denoiser has none.
        time_logit_mean: of rectified flow: training draws times whose logits are normal around it, with deviation 1
            (arXiv 2403.03206); below 0 they are nearer to noise, where the condition says what x_t does not. None:
            uniform times.

    Raises:
        ValueError: for a process that is neither of the two, or times of diffusion that are not uniform.
    """

    def __init__(
        self,
        *,
        latent_size: int,
        condition_size: int,
        num_condition_tokens: int = 4,
        hidden_size: int = 1024,
        num_layers: int = 3,
        num_condition_heads: int = 4,
        process: str = "diffusion",
        num_train_steps: int = 1000,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        target_repeats: int = 4,
        condition_dropout: float = 0.1,
        dropout: float = 0.1,
        time_logit_mean: float | None = None,
    ):
        super().__init__()
        if process not in _SAMPLERS:
            raise ValueError(f"process is {process!r}; it must be one of {', '.join(_SAMPLERS)}.")
        if time_logit_mean is not None and process != "rectified_flow":
            raise ValueError(f"time_logit_mean is {time_logit_mean}, but the steps of {process!r} are drawn alike.")
        self.latent_size = latent_size
        self.process = process
        self.num_train_steps = num_train_steps
        self.beta_start = beta_start
        self.beta_end = beta_end
        self.target_repeats = target_repeats
        self.condition_dropout = condition_dropout
        self.time_logit_mean = time_logit_mean
        self.null_condition = nn.Parameter(torch.empty(num_condition_tokens, condition_size))
        encoder_sizes = (condition_size, hidden_size, num_condition_tokens, num_condition_heads)
        self.condition_encoder = ConditionEncoder(*encoder_sizes, dropout)
        self.flow_graphs: FlowGraphs | None = None  # see `compile_flow_loop`
        self.denoiser = DenoiserMLP(latent_size, hidden_size, num_layers)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises all weights (DiT, arXiv 2212.09748): at first every block is the identity, the output zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                init.xavier_uniform_(module.weight)
                init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm) and module.elementwise_affine:
                init.ones_(module.weight)
                init.zeros_(module.bias)
            elif isinstance(module, nn.MultiheadAttention):
                init.xavier_uniform_(module.in_proj_weight)
                init.zeros_(module.in_proj_bias)
        for layer in self.denoiser.time_embedding:
            if isinstance(layer, nn.Linear):
                init.normal_(layer.weight, std=0.02)
        modulations = [layer.modulation for layer in self.modules() if isinstance(layer, AdaptiveBlock | FinalLayer)]
        for layer in (*modulations, self.denoiser.final_layer.linear):
            init.zeros_(layer.weight)
            init.zeros_(layer.bias)
        pooling = self.condition_encoder.pooling
        if pooling is not None:
            init.normal_(pooling.query, std=0.02)
            init.normal_(pooling.positions, std=0.02)
        init.zeros_(self.null_condition)

    def schedule(self, num_steps: int | None = None) -> DiffusionSchedule:
        """Of the diffusion process, with `num_steps` steps or all of them."""
        num_steps = self.num_train_steps if num_steps is None else num_steps
        return diffusion_schedule(self.num_train_steps, num_steps, self.beta_start, self.beta_end)

    def loss(self, target: Tensor, condition: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Mean squared error of the predicted noise or velocity over rows, repeats and entries.

        In training mode the null replaces a row's condition with probability `condition_dropout`, in all its repeats.

        Args:
            target: (rows, latent_size), the latents x_0.
            condition: (rows, num_condition_tokens, condition_size).
            generator: for the dropped conditions (training mode only), then the times, then the noise.

        Raises:
            ValueError: for inputs of another shape, or without a row.
        """
        if target.shape != (len(condition), self.latent_size) or not len(target):
            raise ValueError(
                f"target has shape {tuple(target.shape)} for a condition of {len(condition)} rows; it must be (rows, "
                f"{self.latent_size}) with one row or more. Leave the loss out where there is no latent to learn."
            )
        self._check_condition(condition)
        device = target.device
        condition = condition.to(self.null_condition.dtype)
        if self.training:
            dropped = _draw(torch.rand, (len(target),), generator, device) < self.condition_dropout
            condition = torch.where(dropped[:, None, None], self.null_condition, condition)
        embedding = self.condition_encoder(condition).repeat_interleave(self.target_repeats, dim=0)
        target = target.float().repeat_interleave(self.target_repeats, dim=0)
        time = self._draw_times(len(target), generator, device)
        noise = _draw(torch.randn, target.shape, generator, device)
        return self.squared_error(target, embedding, time, noise).mean()

    def _draw_times(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """(count,) of training: steps of diffusion, or times of rectified flow between 0 and 1."""
        if self.time_logit_mean is not None:
            return torch.sigmoid(_draw(torch.randn, (count,), generator, device) + self.time_logit_mean)
        time = _draw(torch.rand, (count,), generator, device)
        return (time * self.num_train_steps).long() if self.process == "diffusion" else time

    def squared_error(self, target: Tensor, condition_embedding: Tensor, time: Tensor, noise: Tensor) -> Tensor:
        """(rows, latent_size) squared errors of the prediction, for given times and noise.

        Args:
            target: (rows, latent_size) float32, the latents x_0.
            condition_embedding: (rows, hidden_size), from the condition encoder.
            time: (rows,) long, 0 to num_train_steps - 1 (diffusion), or float in [0, 1], 1 = clean (rectified flow).
            noise: (rows, latent_size) float32, standard normal.
        """
        if self.process == "diffusion":
            noisy = self.schedule().add_noise(target, noise, time)
            return (self.denoiser(noisy, time, condition_embedding) - noise).square()
        share = time[:, None]
        noisy = (1 - share) * noise + share * target  # x_t = (1 - t) epsilon + t x_0
        velocity = target - noise
        return (self.denoiser(noisy, _FLOW_TIME_SCALE * time, condition_embedding) - velocity).square()

    @torch.no_grad()
    def sample(
        self,
        condition: Tensor,
        *,
        generator: torch.Generator | None = None,
        num_steps: int | None = None,
        guidance_scale: float = 1.0,
        sampler: str | None = None,
        unconditional: Tensor | None = None,
    ) -> Tensor:
        """Draws one latent a row, (rows, latent_size) float32. The head should be in evaluation mode.

        Args:
            condition: (rows, num_condition_tokens, condition_size).
            generator: for all noise; it may live on another device than the head.
            num_steps: network calls; by default 100 for "ancestral", 50 for "ddim" and "euler".
            guidance_scale: s, how far from the unconditional (0) to the conditional prediction (1) and beyond; 1 is
                the plain conditional model, at half the work.
            sampler: "ancestral" (default) or "ddim" for diffusion, "euler" for rectified flow.
            unconditional: in the shape of `condition`, what to guide away from; by default the learned null.

        Raises:
            ValueError: for a condition of another shape, a sampler that the process does not have, a number of steps
                that it cannot take, or a guidance scale that is negative or not finite.
        """
        sampler, num_steps = self._check_sampler(sampler, num_steps, guidance_scale)
        self._check_condition(condition)
        if unconditional is None:
            unconditional = self.null_condition.expand_as(condition)
        elif unconditional.shape != condition.shape:
            raise ValueError(
                f"unconditional has shape {tuple(unconditional.shape)}, condition {tuple(condition.shape)}."
            )
        conditions = condition if guidance_scale == 1 else torch.cat([condition, unconditional.to(condition)])
        embeddings = self.condition_encoder(conditions.to(self.null_condition.dtype))
        shape = (len(condition), self.latent_size)
        latents = _draw(torch.randn, shape, generator, condition.device)
        if sampler == "euler":
            # What autocast makes of the weights is gone after it: no graph can hold that
            if self.flow_graphs is not None and latents.is_cuda and not torch.is_autocast_enabled("cuda"):
                options = latents, embeddings, num_steps, guidance_scale
                return self.flow_graphs.run(self.follow_flow, self.denoiser, *options)
            return self.follow_flow(latents, embeddings, num_steps, guidance_scale)
        schedule = self.schedule(num_steps)
        times = torch.from_numpy(schedule.timesteps[::-1].copy()).to(condition.device)
        for step, modulations in enumerate(self.denoiser.modulate_steps(times, embeddings), 1):
            index = num_steps - step
            predicted = self._predict(latents, modulations, guidance_scale)
            if sampler == "ddim":
                latents = schedule.ddim_step(latents, predicted, index)
            else:  # the last step draws too, although it adds no noise: the published sampler does
                noise = _draw(torch.randn, shape, generator, condition.device)
                latents = schedule.ancestral_step(latents, predicted, noise, index)
        return latents

    def follow_flow(self, latents: Tensor, embeddings: Tensor, num_steps: int, guidance_scale: float) -> Tensor:
        """From noise to latents in Euler steps. All of it happens on the device, so that a graph can hold it."""
        times = torch.arange(num_steps, device=latents.device) * _FLOW_TIME_SCALE / num_steps
        for modulations in self.denoiser.modulate_steps(times, embeddings):
            velocity = self._predict(latents, modulations, guidance_scale)
            latents = torch.add(latents, velocity, alpha=1 / num_steps)
        return latents

    def _predict(self, latents: Tensor, modulations: list[tuple[Tensor, ...]], guidance_scale: float) -> Tensor:
        """Noise or velocity; where guided, modulations (2 rows, ...) hold the unconditional ones last."""
        if guidance_scale == 1:
            return self.denoiser.denoise(latents, modulations)
        conditional, plain = self.denoiser.denoise(latents.repeat(2, 1), modulations).chunk(2)
        return plain + guidance_scale * (conditional - plain)  # e_u + s (e_c - e_u)

    def _check_condition(self, condition: Tensor) -> None:
        num_tokens, size = self.null_condition.shape
        if condition.dim() != 3 or condition.shape[1:] != (num_tokens, size):
            raise ValueError(f"condition has shape {tuple(condition.shape)}; it must be (rows, {num_tokens}, {size}).")

    def _check_sampler(self, sampler: str | None, num_steps: int | None, guidance_scale: float) -> tuple[str, int]:
        """The sampler and the number of steps, by default the usual ones."""
        samplers = _SAMPLERS[self.process]
        sampler = next(iter(samplers)) if sampler is None else sampler
        if sampler not in samplers:
            raise ValueError(f"sampler is {sampler!r}; for {self.process} it must be one of {', '.join(samplers)}.")
        most = self.num_train_steps if self.process == "diffusion" else math.inf
        num_steps = int(min(samplers[sampler], most)) if num_steps is None else num_steps
        if not 1 <= num_steps <= most:
            wanted = "1 or more" if most == math.inf else f"1 to {most}, the steps of training"
            raise ValueError(f"num_steps is {num_steps}; for {self.process} it must be {wanted}.")
        if not (math.isfinite(guidance_scale) and guidance_scale >= 0):
            raise ValueError(f"guidance_scale is {guidance_scale}; it must be finite and not negative.")
        return sampler, num_steps


def _draw(
    function: Callable[..., Tensor], shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """torch.rand or torch.randn in float32, on the generator's own device, then moved: the same draws everywhere."""
    source = device if generator is None else generator.device
    return function(shape, generator=generator, device=source, dtype=torch.float32).to(device)
