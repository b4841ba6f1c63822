"""Motion VAE of MotionGPT3 (arXiv 2506.24086), which is that of MLD (arXiv 2212.04048): a motion <-> one latent.

Encoder and decoder are transformers with the skips of a U-Net. The length of a motion is not in the latent: the
decoder is told.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_motion_vae import MotionVAEConfig
from .motion_mask import check_finite
from .strict_loading import StrictLoadingMixin


@dataclass
class MotionVAEEncoderOutput(ModelOutput):
    """The distribution of the latents of a batch of motions: normal, with a diagonal covariance.

    Args:
        mean: (batch, num_latent_tokens, latent_dim).
        log_variance: the same shape.
    """

    mean: Tensor | None = None
    log_variance: Tensor | None = None

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """mean + exp(log_variance / 2) eps, of the shape of the mean."""
        mean, log_variance = self.to_tuple()
        noise_device = mean.device if generator is None else generator.device
        noise = torch.randn(mean.shape, generator=generator, device=noise_device).to(mean)
        return mean + (0.5 * log_variance).exp() * noise


@dataclass
class MotionVAEDecoderOutput(ModelOutput):
    """Motion decoded from latents.

    Args:
        motion_values: (batch, frames, num_features), normalised as in training; 0 where padded.
        motion_mask: (batch, frames) bool, True = valid.
    """

    motion_values: Tensor | None = None
    motion_mask: Tensor | None = None


@dataclass
class MotionVAEOutput(ModelOutput):
    """Loss, its parts, and the reconstruction.

    Args:
        loss: the weighted sum of the parts.
        reconstruction_loss: smooth L1 of the features, mean over valid frames and features.
        position_loss: the same of the joint positions among them.
        root_loss: the same of the root's features among them.
        kl_loss: divergence from the standard normal distribution, mean over the entries of the latents, in nats.
        motion_values: (batch, frames, num_features) reconstruction, cut to the longest motion.
        motion_mask: (batch, frames) bool.
        latents: (batch, num_latent_tokens, latent_dim): what was decoded.
    """

    loss: Tensor | None = None
    reconstruction_loss: Tensor | None = None
    position_loss: Tensor | None = None
    root_loss: Tensor | None = None
    kl_loss: Tensor | None = None
    motion_values: Tensor | None = None
    motion_mask: Tensor | None = None
    latents: Tensor | None = None


class SkipTransformer(nn.Module):
    """Post-norm layers in the shape of a U: the second half also sees what the first half made, the last of it first.

    Args:
        layers: input blocks, a middle block and as many output blocks.
        width: of the hidden states.
    """

    def __init__(self, layers: Sequence[nn.Module], width: int):
        super().__init__()
        half = len(layers) // 2
        self.input_blocks = nn.ModuleList(layers[:half])
        self.middle_block = layers[half]
        self.output_blocks = nn.ModuleList(layers[half + 1 :])
        self.skip_projections = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(half))
        self.norm = nn.LayerNorm(width)

    def forward(self, hidden_states: Tensor, *memory: Tensor, padding: Tensor) -> Tensor:
        """`padding` (batch, length) bool is True where a position is no key; `memory` is what a decoder attends to."""
        name = "tgt_key_padding_mask" if memory else "src_key_padding_mask"
        skipped = []
        for block in self.input_blocks:
            hidden_states = block(hidden_states, *memory, **{name: padding})
            skipped.append(hidden_states)
        hidden_states = self.middle_block(hidden_states, *memory, **{name: padding})
        for block, project in zip(self.output_blocks, self.skip_projections, strict=True):
            hidden_states = project(torch.cat([hidden_states, skipped.pop()], dim=-1))
            hidden_states = block(hidden_states, *memory, **{name: padding})
        return self.norm(hidden_states)


def _layers(config: MotionVAEConfig, kind: type) -> list[nn.Module]:
    options = {"dropout": config.dropout, "activation": "gelu", "batch_first": True}
    sizes = config.latent_dim, config.num_heads, config.intermediate_size
    return [kind(*sizes, **options) for _ in range(config.num_layers)]


class MotionVAE(StrictLoadingMixin, PreTrainedModel):
    """Motion features <-> one latent, [num_latent_tokens, latent_dim].

    loss = smooth_L1(features) + 0.5 smooth_L1(joint positions) + 1e-5 KL, with the paper's weights.
    """

    config_class = MotionVAEConfig
    base_model_prefix = "motion_vae"
    main_input_name = "motion_values"
    # Its layers are torch's, which choose by themselves
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: MotionVAEConfig):
        super().__init__(config)
        width = config.latent_dim
        self.frame_embedding = nn.Linear(config.num_features, width)
        # The learned queries of the mean and the log variance, in that order
        self.distribution_tokens = nn.Parameter(torch.empty(2 * config.num_latent_tokens, width))
        self.encoder_positions = nn.Parameter(torch.empty(config.max_positions, width))
        self.decoder_positions = nn.Parameter(torch.empty(config.max_positions, width))
        self.encoder = SkipTransformer(_layers(config, nn.TransformerEncoderLayer), width)
        self.decoder = SkipTransformer(_layers(config, nn.TransformerDecoderLayer), width)
        self.frame_head = nn.Linear(width, config.num_features)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.MultiheadAttention):
            init.xavier_uniform_(module.in_proj_weight)
            init.zeros_(module.in_proj_bias)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif module is self:
            init.normal_(self.distribution_tokens)
            for positions in (self.encoder_positions, self.decoder_positions):
                # Learned from a start at which neighbouring frames are alike; the paper's is random
                init.copy_(positions, _sinusoids(*positions.shape).to(positions))

    def encode(self, motion_values: Tensor, motion_mask: Tensor | None = None) -> MotionVAEEncoderOutput:
        """The distribution of the latents of a batch of motions. A clip gets the same alone and in a padded batch.

        Args:
            motion_values: (batch, frames, num_features) normalised features.
            motion_mask: (batch, frames) bool, True = valid, padding on the right; None when all frames are valid.

        Raises:
            ValueError: for another width, another mask shape, padding that is not on the right, a motion without
                frames, one of more than `config.max_frames`, or a NaN or infinite value among the valid.
        """
        mask = self._check_motion(motion_values, motion_mask)
        frames = self.frame_embedding(motion_values.to(self.dtype).masked_fill(~mask.unsqueeze(-1), 0))
        tokens = self.distribution_tokens.expand(len(frames), -1, -1)
        hidden_states = torch.cat([tokens, frames], dim=1)
        hidden_states = hidden_states + self.encoder_positions[: hidden_states.shape[1]]
        padding = functional.pad(~mask, (tokens.shape[1], 0), value=False)
        mean, log_variance = self.encoder(hidden_states, padding=padding)[:, : tokens.shape[1]].chunk(2, dim=1)
        return MotionVAEEncoderOutput(mean=mean, log_variance=log_variance + self.config.log_variance_offset)

    def decode(self, latents: Tensor, num_frames: int | Sequence[int] | Tensor) -> MotionVAEDecoderOutput:
        """Motions of given lengths from their latents.

        Args:
            latents: (batch, num_latent_tokens, latent_dim).
            num_frames: length of all motions, or of each.

        Raises:
            ValueError: for latents of another shape, or a length below 1 or above `config.max_positions`.
        """
        config = self.config
        if latents.dim() != 3 or latents.shape[1:] != (config.num_latent_tokens, config.latent_dim):
            raise ValueError(
                f"latents have the shape {tuple(latents.shape)}; wanted (batch, {config.num_latent_tokens}, "
                f"{config.latent_dim})."
            )
        lengths = torch.as_tensor(num_frames, device=latents.device)
        if lengths.dim() > 1 or (lengths.dim() and len(lengths) != len(latents)) or lengths.is_floating_point():
            raise ValueError(f"num_frames is {num_frames}; give one whole number, or one for each of {len(latents)}.")
        lengths = lengths.expand(len(latents))
        if len(lengths) and not 1 <= int(lengths.min()) <= int(lengths.max()) <= config.max_positions:
            raise ValueError(
                f"num_frames ranges from {int(lengths.min())} to {int(lengths.max())}; this motion VAE decodes 1 to "
                f"{config.max_positions} frames."
            )
        frames = int(lengths.max()) if len(lengths) else 0
        mask = torch.arange(frames, device=latents.device) < lengths.unsqueeze(-1)
        # Zero queries, told apart by their positions alone
        queries = self.decoder_positions[:frames].expand(len(latents), -1, -1)
        hidden_states = self.decoder(queries, latents.to(self.dtype), padding=~mask)
        values = self.frame_head(hidden_states).masked_fill(~mask.unsqueeze(-1), 0)
        return MotionVAEDecoderOutput(motion_values=values, motion_mask=mask)

    def forward(
        self, motion_values: Tensor, motion_mask: Tensor | None = None, return_loss: bool = True
    ) -> MotionVAEOutput:
        """Encodes and decodes a batch; with `return_loss` (default) also the loss and its parts.

        In training mode a sample of the distribution is decoded, in evaluation mode its mean.

        Args:
            motion_values: (batch, frames, num_features) normalised features.
            motion_mask: (batch, frames) bool, True = valid, padding on the right; None when all are.
            return_loss: whether to compute the losses.
        """
        encoded = self.encode(motion_values, motion_mask)
        mask = self._check_motion(motion_values, motion_mask)
        latents = encoded.sample() if self.training else encoded.mean
        assert latents is not None
        values, decoded_mask = self.decode(latents, mask.sum(-1)).to_tuple()
        losses = {}
        if return_loss:
            frames = values.shape[1]
            losses = self._losses(values[decoded_mask], motion_values[:, :frames][decoded_mask].to(values), encoded)
        return MotionVAEOutput(**losses, motion_values=values, motion_mask=decoded_mask, latents=latents)

    def _losses(self, values: Tensor, targets: Tensor, encoded: MotionVAEEncoderOutput) -> dict[str, Tensor]:
        """Of valid frames, (frames, num_features)."""
        config = self.config
        values, targets = values.float(), targets.float()
        error = functional.smooth_l1_loss(values, targets, reduction="none")
        mean, log_variance = (part.float() for part in encoded.to_tuple())
        kl = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1)
        parts = {
            "reconstruction_loss": error.mean(),
            "position_loss": error[:, config.position_features].mean(),
            "root_loss": error[:, : config.num_root_features].mean(),
            "kl_loss": kl.mean(),
        }
        weights = config.reconstruction_weight, config.position_weight, config.root_weight, config.kl_weight
        loss = torch.stack([weight * part for weight, part in zip(weights, parts.values(), strict=True)]).sum()
        return {"loss": loss, **parts}

    def _check_motion(self, motion_values: Tensor, motion_mask: Tensor | None) -> Tensor:
        """The mask as bool, all True if there is none."""
        if motion_values.dim() != 3 or motion_values.shape[-1] != self.config.num_features:
            raise ValueError(
                f"motion_values have the shape {tuple(motion_values.shape)}; wanted (batch, frames, "
                f"{self.config.num_features})."
            )
        if motion_mask is None:
            motion_mask = motion_values.new_ones(motion_values.shape[:2], dtype=torch.bool)
        mask = motion_mask.bool()
        if mask.shape != motion_values.shape[:2]:
            raise ValueError(
                f"motion_mask has the shape {tuple(mask.shape)}; wanted {tuple(motion_values.shape[:2])}."
            )
        lengths = mask.sum(-1)
        if not torch.equal(mask, torch.arange(mask.shape[1], device=mask.device) < lengths.unsqueeze(-1)):
            raise ValueError("motion_mask has valid frames after padding; pad on the right.")
        if len(lengths) and not 1 <= int(lengths.min()) <= mask.shape[1] <= self.config.max_frames:
            raise ValueError(
                f"motions have {int(lengths.min())} to {mask.shape[1]} frames; this motion VAE encodes 1 to "
                f"{self.config.max_frames}."
            )
        check_finite("motion_values", motion_values, mask)
        return mask


def _sinusoids(length: int, width: int) -> Tensor:
    """(length, width): sines and cosines of the position, at wavelengths from 4 positions to twice the length."""
    wavelengths = torch.logspace(math.log10(4), math.log10(2 * max(length, 4)), (width + 1) // 2)
    angles = torch.arange(length).unsqueeze(-1) * (2 * math.pi / wavelengths)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)[:, :width]
