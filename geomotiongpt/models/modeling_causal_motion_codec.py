"""Causal motion codec of LLaMo (arXiv 2602.12370): motion <-> continuous latents, four frames each.

Its body is that of MotionStreamer's causal autoencoder (arXiv 2503.15451): convolutions that see no later input.
Latent i depends on no frame after 4 i + 3, and frame t of the decoded motion on no latent after t // 4.
So a motion can be encoded while it is recorded and decoded while it is made; `streaming_encoder` and
`streaming_decoder` do that, with the results of `encode` and `decode`.

The frames at the end of a motion that do not fill a latent, three at most, are dropped: a latent that was padded would
differ from the one that a stream gives once the missing frames have come.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_causal_motion_codec import CausalMotionCodecConfig
from .motion_mask import check_finite
from .strict_loading import StrictLoadingMixin

# The inputs that each convolution of a stream still needs, (batch, channels, number)
Contexts = dict[nn.Module, Tensor]


@dataclass
class CausalMotionCodecEncoderOutput(ModelOutput):
    """Latents of a batch of motions.

    Args:
        latents: (batch, frames // downsampling_factor, latent_dim), the means mu; 0 where padded.
        latent_mask: (batch, frames // downsampling_factor) bool, True = valid.
    """

    latents: Tensor | None = None
    latent_mask: Tensor | None = None


@dataclass
class CausalMotionCodecDecoderOutput(ModelOutput):
    """Motion decoded from latents.

    Args:
        motion_values: (batch, latents * downsampling_factor, num_features), normalised as in training; 0 where padded.
        motion_mask: (batch, latents * downsampling_factor) bool, True = valid.
    """

    motion_values: Tensor | None = None
    motion_mask: Tensor | None = None


@dataclass
class CausalMotionCodecOutput(ModelOutput):
    """Loss, its parts, and the reconstruction.

    Args:
        loss: reconstruction_loss + root_weight * root_loss + kl_weight * kl_loss.
        reconstruction_loss: smooth L1 of the features, mean over valid frames and features.
        root_loss: what the root's features contribute to it.
        kl_loss: 0.5 mu^2, mean over the entries of valid latents: up to a constant the divergence of a normal
            distribution of fixed variance from the standard one.
        motion_values: (batch, latents * downsampling_factor, num_features) reconstruction.
        motion_mask: (batch, latents * downsampling_factor) bool.
        latents: (batch, latents, latent_dim): what was decoded, in training with noise.
        latent_mask: (batch, latents) bool.
    """

    loss: Tensor | None = None
    reconstruction_loss: Tensor | None = None
    root_loss: Tensor | None = None
    kl_loss: Tensor | None = None
    motion_values: Tensor | None = None
    motion_mask: Tensor | None = None
    latents: Tensor | None = None
    latent_mask: Tensor | None = None


class CausalConv1d(nn.Conv1d):
    """Convolution whose outputs see no later input: all of its padding is before the first.

    With a stride s, output i sees the inputs up to s (i + 1) - 1.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, dilation: int = 1):
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, dilation=dilation)
        self.num_context = dilation * (kernel_size - 1) + 1 - stride

    def forward(self, hidden_states: Tensor, contexts: Contexts | None) -> Tensor:  # type: ignore[override]
        """(batch, channels, length) -> (batch, channels, length / stride); a stream's `contexts` are read and set."""
        if contexts is None or self not in contexts:
            hidden_states = functional.pad(hidden_states, (self.num_context, 0))
        else:
            hidden_states = torch.cat([contexts[self], hidden_states], dim=-1)
        if contexts is not None:
            # A view would keep all of the inputs
            contexts[self] = hidden_states[..., hidden_states.shape[-1] - self.num_context :].clone()
        return super().forward(hidden_states)


class CausalResidualUnit(nn.Module):
    """ReLU, dilated width-3 causal convolution, ReLU, width-1 convolution, add."""

    def __init__(self, hidden_size: int, dilation: int):
        super().__init__()
        self.dilated_conv = CausalConv1d(hidden_size, hidden_size, 3, dilation=dilation)
        self.pointwise_conv = nn.Conv1d(hidden_size, hidden_size, 1)

    def forward(self, hidden_states: Tensor, contexts: Contexts | None) -> Tensor:
        residual = self.dilated_conv(functional.relu(hidden_states), contexts)
        return hidden_states + self.pointwise_conv(functional.relu(residual))


class CausalStage(nn.Module):
    """A residual stack behind a convolution that halves the frame rate, or before one that follows its doubling.

    Args:
        config: of the codec.
        downsampling: whether the frame rate is halved.
    """

    def __init__(self, config: CausalMotionCodecConfig, *, downsampling: bool):
        super().__init__()
        width, depths = config.hidden_size, reversed(range(config.num_residual_layers))
        self.downsampling = downsampling
        self.conv = CausalConv1d(width, width, 4, stride=2) if downsampling else CausalConv1d(width, width, 3)
        self.residual_units = nn.ModuleList(
            CausalResidualUnit(width, config.dilation_growth_rate**depth) for depth in depths
        )

    def forward(self, hidden_states: Tensor, contexts: Contexts | None) -> Tensor:
        if self.downsampling:
            hidden_states = self.conv(hidden_states, contexts)
        for unit in self.residual_units:
            hidden_states = unit(hidden_states, contexts)
        if self.downsampling:
            return hidden_states
        return self.conv(hidden_states.repeat_interleave(2, dim=-1), contexts)


class CausalMotionEncoder(nn.Module):
    """(batch, frames, num_features), a multiple of downsampling_factor frames -> mu (batch, latents, latent_dim)."""

    def __init__(self, config: CausalMotionCodecConfig):
        super().__init__()
        stages = range(config.num_downsampling_layers)
        self.input_conv = CausalConv1d(config.num_features, config.hidden_size, 3)
        self.stages = nn.ModuleList(CausalStage(config, downsampling=True) for _ in stages)
        self.output_conv = CausalConv1d(config.hidden_size, config.latent_dim, 3)

    def forward(self, motion_values: Tensor, contexts: Contexts | None = None) -> Tensor:
        hidden_states = functional.relu(self.input_conv(motion_values.transpose(1, 2), contexts))
        for stage in self.stages:
            hidden_states = stage(hidden_states, contexts)
        return self.output_conv(hidden_states, contexts).transpose(1, 2)


class CausalMotionDecoder(nn.Module):
    """Latents (batch, latents, latent_dim) -> (batch, latents * downsampling_factor, num_features)."""

    def __init__(self, config: CausalMotionCodecConfig):
        super().__init__()
        stages = range(config.num_downsampling_layers)
        self.input_conv = CausalConv1d(config.latent_dim, config.hidden_size, 3)
        self.stages = nn.ModuleList(CausalStage(config, downsampling=False) for _ in stages)
        self.hidden_conv = CausalConv1d(config.hidden_size, config.hidden_size, 3)
        self.output_conv = CausalConv1d(config.hidden_size, config.num_features, 3)

    def forward(self, latents: Tensor, contexts: Contexts | None = None) -> Tensor:
        hidden_states = functional.relu(self.input_conv(latents.transpose(1, 2), contexts))
        for stage in self.stages:
            hidden_states = stage(hidden_states, contexts)
        hidden_states = functional.relu(self.hidden_conv(hidden_states, contexts))
        return self.output_conv(hidden_states, contexts).transpose(1, 2)


class CausalMotionStream:
    """Encodes or decodes sequences that come in pieces; the pieces that it returns join to what the whole would give.

    It keeps the last inputs of each convolution, whose number does not grow with what has gone through, and at most
    `unit - 1` values that wait for others. Made by `CausalMotionCodec.streaming_encoder` and `streaming_decoder`.

    Args:
        network: encoder or decoder of a codec.
        name: what to call its values in errors.
        unit: values that the network takes together.
    """

    def __init__(self, network: CausalMotionEncoder | CausalMotionDecoder, name: str, unit: int):
        self.network, self.name, self.unit = network, name, unit
        self.reset()

    def reset(self) -> None:
        """Forgets all: what is pushed next begins another sequence."""
        self.contexts: Contexts = {}
        self.waiting: Tensor | None = None

    @torch.no_grad()
    def push(self, values: Tensor) -> Tensor:
        """Takes the next piece of a batch of sequences, and returns what can be made of it.

        Args:
            values: (batch, any number, width): frames of normalised features for an encoder, latents for a decoder.
                Rows of a batch go on together; where one has ended, push anything finite and drop what comes of it.

        Returns:
            (batch, number, width): of an encoder one latent for each `unit` frames that have come together, perhaps
            none; of a decoder the frames of each latent.

        Raises:
            ValueError: for another width, values that are not finite, or another batch size than before.
        """
        _check_shape(self.name, values, self.network.input_conv.in_channels)
        check_finite(self.name, values)
        weight = self.network.output_conv.weight
        values = values.to(weight)
        if self.waiting is not None:
            if len(values) != len(self.waiting):
                raise ValueError(
                    f"{len(values)} sequences were pushed, {len(self.waiting)} before; `reset()` begins other ones."
                )
            values = torch.cat([self.waiting, values], dim=1)
        number = values.shape[1] // self.unit * self.unit
        self.waiting = values[:, number:].clone()
        if number == 0:
            return values.new_zeros(len(values), 0, len(weight))
        return self.network(values[:, :number], self.contexts)

    def finish(self) -> int:
        """Ends the sequences and resets.

        Returns:
            how many values at their end nothing came of: of an encoder the frames that fill no latent, which `encode`
            drops as well; of a decoder 0.
        """
        number = 0 if self.waiting is None else self.waiting.shape[1]
        self.reset()
        return number


class CausalMotionCodec(StrictLoadingMixin, PreTrainedModel):
    """Motion features <-> continuous latents, one for four frames, without a look ahead.

    loss = smooth_L1(features) + lambda_root smooth_L1(root) + kl_weight 0.5 ||mu||^2. The paper does not name its
    reconstruction loss. Smooth L1 is that of the other models here: squared where errors are small, and where features
    leap, as velocities and foot contacts do, it does not let a few frames rule the gradient as a squared error does.

    The encoder predicts the mean alone. Training decodes z = mu + sigma eps with sigma ~ U(0, sigma_max), drawn for
    each motion: the decoder learns to bear latents that are a little off, as a language model will give it.
    """

    config_class = CausalMotionCodecConfig
    base_model_prefix = "causal_motion_codec"
    main_input_name = "motion_values"
    # It has no attention: whatever a model around it uses
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: CausalMotionCodecConfig):
        super().__init__(config)
        self.encoder = CausalMotionEncoder(config)
        self.decoder = CausalMotionDecoder(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv1d):
            init.kaiming_uniform_(module.weight, a=5**0.5)
            bound = module.weight[0].numel() ** -0.5
            init.uniform_(module.bias, -bound, bound)

    def encode(self, motion_values: Tensor, motion_mask: Tensor | None = None) -> CausalMotionCodecEncoderOutput:
        """Latents of a batch of motions: their means. A clip gets the same alone and in a padded batch.

        Trailing frames that do not fill a latent are dropped.

        Args:
            motion_values: (batch, frames, num_features) normalised features.
            motion_mask: (batch, frames) bool, True = valid, padding on the right; None when all frames are valid.

        Raises:
            ValueError: for another width, another mask shape, padding that is not on the right, values that are not
                finite, or a motion with fewer frames than one latent takes.
        """
        unit = self.config.downsampling_factor
        _check_shape("motion_values", motion_values, self.config.num_features)
        mask = _check_mask("motion_mask", motion_mask, motion_values, unit)
        check_finite("motion_values", motion_values, mask)
        number = mask.shape[1] // unit
        values = motion_values[:, : number * unit].masked_fill(~mask[:, : number * unit].unsqueeze(-1), 0)
        latent_mask = mask[:, unit - 1 : number * unit : unit]
        latents = self.encoder(values.to(self.dtype)).masked_fill(~latent_mask.unsqueeze(-1), 0)
        return CausalMotionCodecEncoderOutput(latents=latents, latent_mask=latent_mask)

    def decode(self, latents: Tensor, latent_mask: Tensor | None = None) -> CausalMotionCodecDecoderOutput:
        """Motion of a batch of latents. A sequence gives the same alone and in a padded batch.

        Args:
            latents: (batch, latents, latent_dim).
            latent_mask: (batch, latents) bool, True = valid, padding on the right; None when all are valid.

        Raises:
            ValueError: for another width, another mask shape, padding that is not on the right, values that are not
                finite, or a sequence without latents.
        """
        _check_shape("latents", latents, self.config.latent_dim)
        mask = _check_mask("latent_mask", latent_mask, latents, 1)
        check_finite("latents", latents, mask)
        values = self.decoder(latents.masked_fill(~mask.unsqueeze(-1), 0).to(self.dtype))
        motion_mask = mask.repeat_interleave(self.config.downsampling_factor, dim=1)
        return CausalMotionCodecDecoderOutput(
            motion_values=values.masked_fill(~motion_mask.unsqueeze(-1), 0), motion_mask=motion_mask
        )

    def forward(
        self, motion_values: Tensor, motion_mask: Tensor | None = None, return_loss: bool = True
    ) -> CausalMotionCodecOutput:
        """Encodes and decodes a batch; with `return_loss` (default) also the loss and its parts.

        In training mode the latents get noise (`add_noise`), in evaluation mode they do not.

        Args:
            motion_values: (batch, frames, num_features) normalised features.
            motion_mask: (batch, frames) bool, True = valid, padding on the right; None when all are.
            return_loss: whether to compute the losses.
        """
        means, latent_mask = self.encode(motion_values, motion_mask).to_tuple()
        latents = self.add_noise(means) if self.training else means
        values, decoded_mask = self.decode(latents, latent_mask).to_tuple()
        losses = {}
        if return_loss:
            targets = motion_values[:, : values.shape[1]]
            losses = self._losses(values[decoded_mask], targets[decoded_mask], means[latent_mask])
        return CausalMotionCodecOutput(
            **losses, motion_values=values, motion_mask=decoded_mask, latents=latents, latent_mask=latent_mask
        )

    def add_noise(self, latents: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """z = mu + sigma eps, sigma ~ U(0, sigma_max) for each row.

        Args:
            latents: (batch, latents, latent_dim), the means.
            generator: of the draws; torch's own by default.
        """
        device = latents.device if generator is None else generator.device
        sigma = self.config.sigma_max * torch.rand(len(latents), 1, 1, generator=generator, device=device)
        noise = torch.randn(latents.shape, generator=generator, device=device)
        return latents + (sigma * noise).to(latents)

    def streaming_encoder(self) -> CausalMotionStream:
        """Takes frames as they come and gives latents as soon as they can be known."""
        return CausalMotionStream(self.encoder, "motion_values", self.config.downsampling_factor)

    def streaming_decoder(self) -> CausalMotionStream:
        """Takes latents as they come and gives the frames of each at once."""
        return CausalMotionStream(self.decoder, "latents", 1)

    def _losses(self, values: Tensor, targets: Tensor, means: Tensor) -> dict[str, Tensor]:
        """Of valid frames, (frames, num_features), and of valid latents, (latents, latent_dim)."""
        error = functional.smooth_l1_loss(values.float(), targets.float(), reduction="none")
        parts = {
            "reconstruction_loss": error.mean(),
            "root_loss": error[:, : self.config.num_root_features].sum(-1).mean() / self.config.num_features,
            "kl_loss": 0.5 * means.float().square().mean(),
        }
        weights = 1.0, self.config.root_weight, self.config.kl_weight
        loss = torch.stack([weight * part for weight, part in zip(weights, parts.values(), strict=True)]).sum()
        return {"loss": loss, **parts}


def _check_shape(name: str, values: Tensor, width: int) -> None:
    if values.dim() != 3 or values.shape[-1] != width:
        raise ValueError(
            f"{name} has the shape {tuple(values.shape)}; this codec takes (batch, length, {width}). Is the motion in "
            "the representation the codec was trained on?"
        )


def _check_mask(name: str, mask: Tensor | None, values: Tensor, shortest: int) -> Tensor:
    """The mask of (batch, length, width) values as bool, all True if there is none."""
    shape = values.shape[:2]
    mask = torch.ones(shape, dtype=torch.bool, device=values.device) if mask is None else mask.bool()
    if mask.shape != shape:
        raise ValueError(f"{name} has the shape {tuple(mask.shape)}; wanted {tuple(shape)}.")
    if torch.compiler.is_compiling():  # a compiled graph cannot raise for a value
        return mask
    lengths = mask.sum(-1)
    if not torch.equal(mask, torch.arange(shape[1], device=mask.device) < lengths.unsqueeze(-1)):
        raise ValueError(f"{name} has valid entries after padding; pad on the right.")
    length = min(lengths.tolist(), default=0)
    if length < shortest:
        raise ValueError(f"{name}: the shortest of {shape[0]} rows has {length} valid entries; wanted {shortest}.")
    return mask
