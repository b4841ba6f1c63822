"""Motion tokenizer of GeoMotionGPT (arXiv 2601.07632): a decoder-only quantiser with an orthonormal codebook.

The encoder gives K logits for every latent frame and nothing else passes to the decoder: a Gumbel-Softmax sample y
(one-hot, straight through) picks the code h = y^T C that is decoded. C is the codebook whose rows the language model
later uses as its motion embeddings.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_motion_tokenizer import MotionTokenizerConfig
from .geometry import equal_clusters, geometric_loss, usage_statistics
from .motion_mask import check_finite
from .strict_loading import StrictLoadingMixin

_USAGE_FLOOR = 1e-10
_LOGIT_GAIN = 5.0


@dataclass
class MotionTokenizerEncoderOutput(ModelOutput):
    """Codes of a batch of motions.

    Args:
        motion_codes: (batch, frames // downsampling_factor) long, -1 where padded.
        motion_code_mask: the same shape, bool, True = valid.
        logits: (batch, codes, num_codes), the encoder's scores; arbitrary where padded.
    """

    motion_codes: Tensor | None = None
    motion_code_mask: Tensor | None = None
    logits: Tensor | None = None


@dataclass
class MotionTokenizerDecoderOutput(ModelOutput):
    """Motion decoded from codes.

    Args:
        motion_values: (batch, codes * downsampling_factor, num_features), normalised as in training; 0 where padded.
        motion_mask: (batch, codes * downsampling_factor) bool, True = valid.
    """

    motion_values: Tensor | None = None
    motion_mask: Tensor | None = None


@dataclass
class MotionTokenizerOutput(ModelOutput):
    """Loss of the first training stage, its parts, and the reconstruction.

    Args:
        loss: reconstruction_loss + lambda_ortho * orthonormality_loss + lambda_util * utilisation_loss.
        reconstruction_loss: L_rec, mean over valid frames and features.
        orthonormality_loss: what the geometric constraint costs, unweighted: ||G - I||_F^2 by default.
        utilisation_loss: -H(q), unweighted, in nats.
        perplexity: of the codes of this batch (argmax, no noise).
        dead_codes: how many codes this batch does not use.
        motion_values: (batch, codes * downsampling_factor, num_features) reconstruction.
        motion_mask: (batch, codes * downsampling_factor) bool.
        motion_codes: (batch, codes) long, -1 where padded: argmax of the logits, whatever was sampled.
        motion_code_mask: (batch, codes) bool.
    """

    loss: Tensor | None = None
    reconstruction_loss: Tensor | None = None
    orthonormality_loss: Tensor | None = None
    utilisation_loss: Tensor | None = None
    perplexity: Tensor | None = None
    dead_codes: Tensor | None = None
    motion_values: Tensor | None = None
    motion_mask: Tensor | None = None
    motion_codes: Tensor | None = None
    motion_code_mask: Tensor | None = None


class MaskedConv1d(nn.Conv1d):
    """Convolution whose padded outputs are zero, so that what follows sees the zero padding of a clip on its own."""

    def forward(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:  # type: ignore[override]
        hidden_states = super().forward(hidden_states)
        return hidden_states if mask is None else hidden_states * mask


class ResidualUnit(nn.Module):
    """ReLU, dilated width-3 convolution, ReLU, width-1 convolution, add."""

    def __init__(self, hidden_size: int, dilation: int):
        super().__init__()
        self.dilated_conv = MaskedConv1d(hidden_size, hidden_size, 3, padding=dilation, dilation=dilation)
        self.pointwise_conv = MaskedConv1d(hidden_size, hidden_size, 1)

    def forward(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        residual = self.dilated_conv(functional.relu(hidden_states), mask)
        return hidden_states + self.pointwise_conv(functional.relu(residual), mask)


def _residual_stack(config: MotionTokenizerConfig) -> nn.ModuleList:
    depths = reversed(range(config.num_residual_layers))
    return nn.ModuleList(ResidualUnit(config.hidden_size, config.dilation_growth_rate**depth) for depth in depths)


class EncoderStage(nn.Module):
    """Halves the frame rate, then a residual stack. An odd last frame is dropped."""

    def __init__(self, config: MotionTokenizerConfig):
        super().__init__()
        self.downsampling_conv = MaskedConv1d(config.hidden_size, config.hidden_size, 4, stride=2, padding=1)
        self.residual_units = _residual_stack(config)

    def forward(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        hidden_states = self.downsampling_conv(hidden_states, mask)
        for unit in self.residual_units:
            hidden_states = unit(hidden_states, mask)
        return hidden_states


class DecoderStage(nn.Module):
    """A residual stack, then doubles the frame rate (nearest neighbour, width-3 convolution)."""

    def __init__(self, config: MotionTokenizerConfig):
        super().__init__()
        self.residual_units = _residual_stack(config)
        self.upsampling_conv = MaskedConv1d(config.hidden_size, config.hidden_size, 3, padding=1)

    def forward(self, hidden_states: Tensor, mask: Tensor | None, upsampled_mask: Tensor | None) -> Tensor:
        for unit in self.residual_units:
            hidden_states = unit(hidden_states, mask)
        return self.upsampling_conv(hidden_states.repeat_interleave(2, dim=-1), upsampled_mask)


def _convolution_mask(lengths: Tensor | None, num_frames: int) -> Tensor | None:
    """(batch,) lengths -> (batch, 1, num_frames) factors; None when nothing is padded."""
    if lengths is None:
        return None
    return (torch.arange(num_frames, device=lengths.device) < lengths[:, None]).unsqueeze(1)


class MotionEncoder(nn.Module):
    """Motion features (batch, num_features, frames) -> logits (batch, num_codes, frames // downsampling_factor)."""

    def __init__(self, config: MotionTokenizerConfig):
        super().__init__()
        self.input_conv = MaskedConv1d(config.num_features, config.hidden_size, 3, padding=1)
        self.stages = nn.ModuleList(EncoderStage(config) for _ in range(config.num_downsampling_layers))
        self.output_conv = MaskedConv1d(config.hidden_size, config.num_codes, 3, padding=1)

    def forward(self, motion: Tensor, lengths: Tensor | None) -> Tensor:
        num_frames = motion.shape[-1]
        hidden_states = functional.relu(self.input_conv(motion, _convolution_mask(lengths, num_frames)))
        for stage in self.stages:
            num_frames //= 2
            lengths = None if lengths is None else lengths // 2
            hidden_states = stage(hidden_states, _convolution_mask(lengths, num_frames))
        return self.output_conv(hidden_states, None)


class MotionDecoder(nn.Module):
    """Code vectors (batch, code_dim, codes) -> motion features (batch, num_features, codes * downsampling_factor)."""

    def __init__(self, config: MotionTokenizerConfig):
        super().__init__()
        self.input_conv = MaskedConv1d(config.code_dim, config.hidden_size, 3, padding=1)
        self.stages = nn.ModuleList(DecoderStage(config) for _ in range(config.num_downsampling_layers))
        self.hidden_conv = MaskedConv1d(config.hidden_size, config.hidden_size, 3, padding=1)
        self.output_conv = MaskedConv1d(config.hidden_size, config.num_features, 3, padding=1)

    def forward(self, code_vectors: Tensor, lengths: Tensor | None) -> Tensor:
        num_frames = code_vectors.shape[-1]
        mask = _convolution_mask(lengths, num_frames)
        hidden_states = functional.relu(self.input_conv(code_vectors, mask))
        for stage in self.stages:
            num_frames *= 2
            lengths = None if lengths is None else lengths * 2
            upsampled_mask = _convolution_mask(lengths, num_frames)
            hidden_states = stage(hidden_states, mask, upsampled_mask)
            mask = upsampled_mask
        hidden_states = functional.relu(self.hidden_conv(hidden_states, mask))
        return self.output_conv(hidden_states, mask)


class MotionTokenizer(StrictLoadingMixin, PreTrainedModel):
    """Motion features <-> discrete codes (DVQ, arXiv 2601.07632).

    L_DVQ = L_rec + lambda_ortho ||G - I||_F^2 + lambda_util (-H(q)), with G the Gram matrix of the row-normalised
    codebook and q the code usage: the mean, over the valid latent frames of all processes, of softmax(logits) at
    temperature 1 or, with `utilisation_estimate="assignment"`, of the straight-through assignments y. Under gradient
    accumulation q is taken per micro-batch. `config.geometric_constraint` can put another loss of the codebook in the
    place of ||G - I||_F^2.
    """

    config_class = MotionTokenizerConfig
    base_model_prefix = "motion_tokenizer"
    main_input_name = "motion_values"
    _supports_sdpa = True  # it has no attention: a language model that it is part of may have any
    _supports_flash_attn = True
    _supports_flex_attn = True

    code_clusters: Tensor | None  # (num_codes,) long, the cluster of each code; only for the constraint "cluster"

    def __init__(self, config: MotionTokenizerConfig):
        super().__init__(config)
        self.encoder = MotionEncoder(config)
        self.decoder = MotionDecoder(config)
        self.codebook = nn.Embedding(config.num_codes, config.code_dim)
        has_clusters = config.geometric_constraint == "cluster"
        self.register_buffer("code_clusters", torch.empty(config.num_codes).long() if has_clusters else None)
        # Set by callbacks from the global step; a fresh or reloaded model is at its configured values.
        self.gumbel_temperature_multiplier = 1.0
        self.orthonormality_weight_multiplier = 1.0
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if module is self.encoder.output_conv:
            # Logits that differ by several units: codes depend on the motion from the first step.
            init.normal_(module.weight, std=_LOGIT_GAIN / module.weight[0].numel() ** 0.5)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Conv1d):
            init.kaiming_uniform_(module.weight, a=5**0.5)
            fan_in = module.weight[0].numel()
            init.uniform_(module.bias, -(fan_in**-0.5), fan_in**-0.5)
        elif isinstance(module, nn.Embedding):
            # Orthogonal codes of length sqrt(D): entries of unit size, and the smallest Gram error from the start.
            init.orthogonal_(module.weight, gain=self.config.code_dim**0.5)
        elif module is self and self.code_clusters is not None:
            init.copy_(self.code_clusters, equal_clusters(self.config.num_codes, self.config.num_code_clusters))

    def geometric_loss(self) -> Tensor:
        """What the configured constraint costs the codebook, unweighted."""
        return geometric_loss(
            self.codebook.weight,
            self.config.geometric_constraint,
            spectral_form=self.config.spectral_form,
            clusters=self.code_clusters,
        )

    def encode(self, motion_values: Tensor, motion_mask: Tensor | None = None) -> MotionTokenizerEncoderOutput:
        """Codes of a batch of motions: the argmax of the encoder's logits.

        A clip gets the same codes alone and in a padded batch. Trailing frames that do not fill a code are dropped.

        Args:
            motion_values: (batch, frames, num_features) normalised features.
            motion_mask: (batch, frames) bool, True = valid, padding on the right; None when all frames are valid.

        Raises:
            ValueError: for another width, another mask shape, padding that is not on the right, fewer frames than
                one code takes, or a NaN or infinite value among the valid.
        """
        self._check_motion(motion_values, motion_mask)
        lengths = None if motion_mask is None else motion_mask.long().sum(-1)
        if motion_mask is not None:
            motion_values = motion_values.masked_fill(~motion_mask.bool().unsqueeze(-1), 0)
        logits = self.encoder(motion_values.to(self.dtype).transpose(1, 2), lengths).transpose(1, 2)
        code_mask = torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device)
        if lengths is not None:
            steps = torch.arange(logits.shape[1], device=logits.device)
            code_mask = steps < (lengths // self.config.downsampling_factor).unsqueeze(-1)
        codes = logits.argmax(-1).masked_fill(~code_mask, -1)
        return MotionTokenizerEncoderOutput(motion_codes=codes, motion_code_mask=code_mask, logits=logits)

    def decode(self, motion_codes: Tensor, motion_code_mask: Tensor | None = None) -> MotionTokenizerDecoderOutput:
        """Motion features of a batch of codes.

        Args:
            motion_codes: (batch, codes) long; entries outside the mask are ignored.
            motion_code_mask: (batch, codes) bool, True = valid, padding on the right; None: entries that are not -1.

        Raises:
            ValueError: for a valid code outside [0, num_codes), or padding that is not on the right.
        """
        code_mask = motion_codes >= 0 if motion_code_mask is None else motion_code_mask.bool()
        _check_right_padding("motion_codes", code_mask)
        codes = motion_codes.masked_fill(~code_mask, 0)
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.config.num_codes:
            raise ValueError(
                f"motion_codes range from {int(codes.min())} to {int(codes.max())}; this tokenizer has codes 0 to "
                f"{self.config.num_codes - 1} (mask or pad with -1 what is not a code)."
            )
        values, mask = self._decode_vectors(self.codebook(codes), code_mask)
        return MotionTokenizerDecoderOutput(motion_values=values, motion_mask=mask)

    def forward(
        self, motion_values: Tensor, motion_mask: Tensor | None = None, return_loss: bool = True
    ) -> MotionTokenizerOutput:
        """Encodes, quantises and decodes a batch; with `return_loss` (default) also the loss and its parts.

        In training mode the decoder sees a straight-through Gumbel-Softmax sample (eq. L_DVQ), in evaluation mode the
        argmax codes, without noise.

        Args:
            motion_values: (batch, frames, num_features) normalised features.
            motion_mask: (batch, frames) bool, True = valid, padding on the right; None when all are.
            return_loss: whether to compute the losses.
        """
        codes, code_mask, logits = self.encode(motion_values, motion_mask).to_tuple()
        assignment = self._assign(logits, codes)
        values, mask = self._decode_vectors(assignment @ self.codebook.weight, code_mask)
        losses: dict[str, Tensor] = {}
        if return_loss:
            target = motion_values[:, : values.shape[1]].to(values.dtype).masked_fill(~mask.unsqueeze(-1), 0)
            losses = {
                **self._losses(self._reconstruction_loss(values, target, mask), logits, assignment, code_mask),
                **self._usage(codes[code_mask]),
            }
        return MotionTokenizerOutput(
            **losses, motion_values=values, motion_mask=mask, motion_codes=codes, motion_code_mask=code_mask
        )

    def _assign(self, logits: Tensor, codes: Tensor) -> Tensor:
        """y, (batch, codes, num_codes): a hard straight-through Gumbel-Softmax sample in training, else argmax."""
        num_codes = self.config.num_codes
        if not self.training:
            return functional.one_hot(codes.clamp(min=0), num_codes).to(logits.dtype)
        # -log of a standard exponential variable is a standard Gumbel variable.
        gumbel = -torch.empty_like(logits).exponential_().log() * self.config.gumbel_noise
        noisy = logits + gumbel
        temperature = self.config.gumbel_temperature * self.gumbel_temperature_multiplier
        soft = (noisy / temperature).softmax(-1)
        hard = functional.one_hot(noisy.argmax(-1), num_codes).to(soft.dtype)
        return hard + (soft - soft.detach())  # in this order the value is exactly one-hot

    def _decode_vectors(self, code_vectors: Tensor, code_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Motion features (batch, frames, num_features) and their mask (batch, frames)."""
        code_vectors = code_vectors.masked_fill(~code_mask.unsqueeze(-1), 0)
        values = self.decoder(code_vectors.transpose(1, 2), code_mask.long().sum(-1)).transpose(1, 2)
        return values, code_mask.repeat_interleave(self.config.downsampling_factor, dim=1)

    def _losses(
        self, reconstruction: Tensor, logits: Tensor, assignment: Tensor, code_mask: Tensor
    ) -> dict[str, Tensor]:
        """L_DVQ and its parts."""
        orthonormality = self.geometric_loss()
        orthonormality_weight = self.config.orthonormality_weight * self.orthonormality_weight_multiplier
        utilisation = self._utilisation_loss(logits, assignment, code_mask)
        total = reconstruction + orthonormality_weight * orthonormality + self.config.utilisation_weight * utilisation
        return {
            "loss": total,
            "reconstruction_loss": reconstruction,
            "orthonormality_loss": orthonormality,
            "utilisation_loss": utilisation,
        }

    def _usage(self, codes: Tensor) -> dict[str, Tensor]:
        """Perplexity and number of dead codes of a batch."""
        statistics = usage_statistics(torch.bincount(codes, minlength=self.config.num_codes))
        return {name: torch.tensor(statistics[name], device=codes.device) for name in ("perplexity", "dead_codes")}

    def _utilisation_loss(self, logits: Tensor, assignment: Tensor, mask: Tensor) -> Tensor:
        """-H(q) in nats; q from softmax(logits) at temperature 1, or from the codes that were assigned."""
        by_assignment = self.config.utilisation_estimate == "assignment"
        probabilities = assignment if by_assignment else logits.softmax(-1)
        totals = (probabilities * mask.unsqueeze(-1)).sum((0, 1))
        usage, count = _mean_over_processes(totals, mask.sum())
        # Without a floor the log of a code that is never used is infinite. Of assigned codes, less than one is none.
        floor = 1 / count.clamp(min=1) if by_assignment else _USAGE_FLOOR
        return (usage * (usage + floor).log()).sum()

    def _reconstruction_loss(self, values: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Smooth L1, averaged over features (root and positions weighted) and the valid frames of all processes."""
        errors = functional.smooth_l1_loss(values, target, reduction="none")
        weights = errors.new_ones(self.config.num_features)
        weights[: self.config.num_root_features] = self.config.root_weight
        weights[self.config.position_features] = self.config.position_weight
        per_frame = errors @ (weights / weights.sum())
        return _mean_over_processes((per_frame * mask).sum(), mask.sum())[0]

    def _check_motion(self, motion_values: Tensor, motion_mask: Tensor | None) -> None:
        config = self.config
        if motion_values.dim() != 3 or motion_values.shape[-1] != config.num_features:
            raise ValueError(
                f"motion_values has shape {tuple(motion_values.shape)}; this tokenizer takes (batch, frames, "
                f"{config.num_features}). Is the motion in the representation the tokenizer was trained on?"
            )
        if motion_mask is not None and motion_mask.shape != motion_values.shape[:2]:
            raise ValueError(
                f"motion_mask has shape {tuple(motion_mask.shape)}, motion_values {tuple(motion_values.shape)}: "
                "the mask must be (batch, frames)."
            )
        if motion_values.shape[1] < config.downsampling_factor:
            raise ValueError(
                f"a motion of {motion_values.shape[1]} frames is too short: one code takes "
                f"{config.downsampling_factor} frames."
            )
        if motion_mask is not None:
            _check_right_padding("motion_mask", motion_mask.bool())
        check_finite("motion_values", motion_values, motion_mask)


def _check_right_padding(name: str, mask: Tensor) -> None:
    """Only the length of a row is used: what stands after a gap would be cut off, not masked."""
    if torch.compiler.is_compiling():  # a compiled graph cannot raise for a value
        return
    has_gap = (mask[:, 1:] & ~mask[:, :-1]).any(-1)
    if has_gap.any():
        raise ValueError(
            f"row {int(has_gap.int().argmax())} of {name} is padded on the left or has a gap; padding must be on the "
            "right, after all that is valid."
        )


def _mean_over_processes(total: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """sum(total) / sum(count) over all processes, and sum(count), with the gradient of the joined batch.

    Gradients are summed over processes in the backward pass and averaged by DistributedDataParallel afterwards, which
    together give every process the gradient that one process with the joined batch would have.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        from torch.distributed.nn.functional import all_reduce

        total = all_reduce(total)
        torch.distributed.all_reduce(count)
    return total / count.clamp(min=1), count
