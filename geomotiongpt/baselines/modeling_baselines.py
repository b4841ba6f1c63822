"""Motion tokenizers to compare with: VQ with moving averages, residual VQ, FSQ, all in the trunk of `MotionTokenizer`.

The encoder gives a latent vector z for every latent frame instead of logits. A quantiser of vector-quantize-pytorch
finds its code and, for VQ and residual VQ, keeps the codebook; the decoder sees the code's vector, straight through.
"""

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from transformers import initialization as init

from ..models.configuration_motion_tokenizer import MotionTokenizerConfig
from ..models.modeling_motion_tokenizer import (
    MaskedConv1d,
    MotionTokenizer,
    MotionTokenizerDecoderOutput,
    MotionTokenizerEncoderOutput,
    MotionTokenizerOutput,
)
from .configuration_baselines import (
    BaselineMotionTokenizerConfig,
    FSQMotionTokenizerConfig,
    ResidualVQMotionTokenizerConfig,
    VQMotionTokenizerConfig,
)

_FSQ_MARGIN = 1e-3  # the library's: the outermost levels can be reached


@dataclass
class BaselineEncoderOutput(MotionTokenizerEncoderOutput):
    """Codes of a batch of motions; there are no logits.

    Args:
        latents: (batch, latent frames, code_dim), what was quantised; arbitrary where padded.
    """

    latents: Tensor | None = None


@dataclass
class BaselineTokenizerOutput(MotionTokenizerOutput):
    """Loss, its parts and the reconstruction; neither orthonormality nor utilisation loss.

    Args:
        loss: reconstruction_loss + commitment_weight * commitment_loss.
        commitment_loss: mean of (z - sg(code's vector))^2 over valid latent frames, values and quantisers; none for
            FSQ.
    """

    commitment_loss: Tensor | None = None


def _quantizer_library() -> ModuleType:
    try:
        import vector_quantize_pytorch
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the baseline motion tokenizers need {error.name}, which is not installed: "
            "pip install 'geomotiongpt[baselines]'"
        ) from error
    return vector_quantize_pytorch


class BaselineMotionTokenizer(MotionTokenizer):
    """What the baselines share: everything but how a latent vector becomes codes.

    `codebook.weight` (num_codes, code_dim) holds the codes' vectors, as in `MotionTokenizer`; no optimizer trains it.
    """

    config_class = BaselineMotionTokenizerConfig
    _auto_class = None
    codes_per_frame = 1

    def post_init(self) -> None:
        """Called by `MotionTokenizer.__init__` before weights are drawn: latents for logits, and the quantisers."""
        config = self.config
        self.encoder.output_conv = MaskedConv1d(config.hidden_size, config.code_dim, 3, padding=1)
        self.codebook.weight.requires_grad_(False)
        self.quantizers = nn.ModuleList(self._make_quantizer() for _ in range(self.codes_per_frame))
        super().post_init()

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """As in `MotionTokenizer`; the codebook is frozen again (loading makes all trainable)."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.codebook.weight.requires_grad_(False)
        return loaded

    def _make_quantizer(self) -> Any:
        raise NotImplementedError

    def _quantise(self, latents: Tensor, update: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Latent vectors (n, code_dim) -> what is decoded (n, code_dim), codes (n, codes_per_frame), commitment loss.

        Args:
            latents: of valid latent frames only.
            update: whether moving averages follow, and dead codes are reset.
        """
        raise NotImplementedError

    def _init_weights(self, module: nn.Module) -> None:
        if module is self.encoder.output_conv:
            # Latent values of about unit size, as the entries of a fresh codebook.
            init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            init.zeros_(module.bias)
        elif module in list(self.quantizers):
            # Loading leaves buffers empty that are not in the checkpoint: take the constants of a fresh quantiser.
            fresh, saved = dict(self._make_quantizer().named_buffers()), module.state_dict()
            for name, buffer in module.named_buffers():
                if name not in saved:
                    init.copy_(buffer, fresh[name])
        else:
            super()._init_weights(module)

    def encode(self, motion_values: Tensor, motion_mask: Tensor | None = None) -> BaselineEncoderOutput:
        """Codes of a batch of motions. Nothing is updated, in training mode neither.

        Args:
            motion_values: (batch, frames, num_features) normalised features.
            motion_mask: (batch, frames) bool, True = valid, padding on the right; None when all frames are valid.

        Raises:
            ValueError: as in `MotionTokenizer.encode`.
        """
        latents, frame_mask = self._latents(motion_values, motion_mask)
        _, frame_codes, _ = self._quantise(latents[frame_mask], update=False)
        codes, code_mask = self._lay_out(frame_codes, frame_mask)
        return BaselineEncoderOutput(motion_codes=codes, motion_code_mask=code_mask, latents=latents)

    def forward(
        self, motion_values: Tensor, motion_mask: Tensor | None = None, return_loss: bool = True
    ) -> BaselineTokenizerOutput:
        """Encodes, quantises and decodes a batch; in training mode moving averages follow and dead codes are reset.

        Under gradient accumulation they do so at every micro-batch.

        Args:
            motion_values: (batch, frames, num_features) normalised features.
            motion_mask: (batch, frames) bool, True = valid, padding on the right; None when all are.
            return_loss: whether to compute the losses.
        """
        latents, frame_mask = self._latents(motion_values, motion_mask)
        quantised, frame_codes, commitment = self._quantise(latents[frame_mask], update=self.training)
        vectors = torch.zeros_like(latents).masked_scatter(frame_mask.unsqueeze(-1), quantised.to(latents.dtype))
        values, mask = super()._decode_vectors(vectors, frame_mask)
        codes, code_mask = self._lay_out(frame_codes, frame_mask)
        losses: dict[str, Tensor] = {}
        if return_loss:
            target = motion_values[:, : values.shape[1]].to(values.dtype).masked_fill(~mask.unsqueeze(-1), 0)
            reconstruction = self._reconstruction_loss(values, target, mask)
            losses = {"loss": reconstruction, "reconstruction_loss": reconstruction, **self._usage(codes[code_mask])}
            if commitment is not None:
                losses["commitment_loss"] = commitment
                losses["loss"] = reconstruction + self.config.commitment_weight * commitment
        return BaselineTokenizerOutput(
            **losses, motion_values=values, motion_mask=mask, motion_codes=codes, motion_code_mask=code_mask
        )

    def to_motion_tokenizer(self) -> MotionTokenizer:
        """The same codes and the same reconstructions as a plain `MotionTokenizer`, for a language model.

        The nearest code is the largest of num_codes scores that are linear in the latent vector, so they become part
        of the encoder's last convolution. The result needs neither this package's baselines nor their library, and
        travels to the Hub. In evaluation mode; only codes that two scores share to the last digits may differ.

        Raises:
            ValueError: for residual quantisation, which has no single code a latent frame.
        """
        names = MotionTokenizerConfig.__annotations__
        plain = MotionTokenizer(MotionTokenizerConfig(**{name: getattr(self.config, name) for name in names}))
        state = {name: value for name, value in self.state_dict().items() if not name.startswith("quantizers.")}
        weights, biases = self._linear_scores()
        kernel, offset = (state[f"encoder.output_conv.{name}"].double() for name in ("weight", "bias"))
        state["encoder.output_conv.weight"] = torch.einsum("kd,dhw->khw", weights, kernel)
        state["encoder.output_conv.bias"] = biases + weights @ offset
        plain.load_state_dict(state)
        return plain.to(device=self.device, dtype=self.dtype).eval()

    def _linear_scores(self) -> tuple[Tensor, Tensor]:
        """W (num_codes, code_dim) and b (num_codes,), double: the code of z is argmax(W z + b)."""
        raise NotImplementedError

    def _latents(self, motion_values: Tensor, motion_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """z (batch, latent frames, code_dim) and the mask of valid latent frames."""
        # What the trunk's encoder gives takes the place of the logits; their argmax has no meaning here.
        _, frame_mask, latents = super().encode(motion_values, motion_mask).to_tuple()
        return latents, frame_mask

    def _lay_out(self, frame_codes: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of the valid latent frames (n, codes_per_frame) -> (batch, codes), -1 where padded, and their mask."""
        codes = frame_codes.new_full((*frame_mask.shape, self.codes_per_frame), -1)
        codes[frame_mask] = frame_codes
        return codes.flatten(1), frame_mask.repeat_interleave(self.codes_per_frame, dim=1)


class VQMotionTokenizer(BaselineMotionTokenizer):
    """Straight-through VQ with moving averages and resets of dead codes (T2M-GPT, arXiv 2301.06052; MotionGPT).

    The codes follow the means of their latent vectors; a code that is hardly used is moved to a latent vector of the
    batch. In several processes the library sums counts and vectors over all of them and every process draws the same
    resets, if `torch.distributed` is initialised before the model is made.
    """

    config_class = VQMotionTokenizerConfig

    def _make_quantizer(self) -> Any:
        quantizer = _quantizer_library().VectorQuantize(
            dim=self.config.code_dim,
            codebook_size=self.config.num_codes // self.codes_per_frame,
            decay=self.config.decay,
            threshold_ema_dead_code=self.config.dead_code_threshold,
            commitment_weight=0,  # commitment and straight-through gradient are in `_quantise`
            rotation_trick=False,
            route_gradients_to_input=False,
        )
        del quantizer._codebook.embed  # rows of `codebook.weight` take its place at every call
        return quantizer

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        for quantizer, rows in self._with_rows():
            averages = quantizer._codebook
            if quantizer is module:  # the sums of latent vectors begin as the codes themselves, each used once
                init.copy_(averages.embed_avg, rows)

    def _with_rows(self) -> list[tuple[Any, Tensor]]:
        """Each quantiser and its codes, (1, codes, code_dim), views of `codebook.weight`."""
        rows = self.codebook.weight.detach().unsqueeze(0).chunk(self.codes_per_frame, dim=1)
        return list(zip(self.quantizers, rows, strict=True))

    def _quantise(self, latents: Tensor, update: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        codes, commitments = [], []
        with torch.autocast(latents.device.type, enabled=False):
            latents = residual = latents.to(self.codebook.weight.dtype)
            quantised = torch.zeros_like(latents)
            for index, (quantizer, rows) in enumerate(self._with_rows()):
                quantizer._codebook.embed = rows  # what it writes into it, it writes into `codebook.weight`
                vectors, chosen, _ = quantizer(residual.unsqueeze(0), freeze_codebook=not update)
                codes.append(chosen[0] + index * rows.shape[1])
                quantised = quantised + vectors[0].detach()
                residual = residual - vectors[0].detach()
                commitments.append(residual.square().sum() / max(1, residual.numel()))
        straight_through = quantised + (latents - latents.detach())  # in this order the value is exactly the code's
        return straight_through, torch.stack(codes, dim=-1), torch.stack(commitments).mean()

    def _linear_scores(self) -> tuple[Tensor, Tensor]:
        """-|z - c|^2 / 2 = c z - |c|^2 / 2, up to what all codes share."""
        codebook = self.codebook.weight.detach().double()
        return codebook, -codebook.square().sum(-1) / 2


class ResidualVQMotionTokenizer(VQMotionTokenizer):
    """Residual VQ (MoMask, arXiv 2312.00063): the vectors of several codes add up to a latent frame's.

    `motion_codes` has all codes of a latent frame one after the other: (batch, latent frames * num_quantizers), the
    codes of quantiser q counted from q * codes_per_quantizer, as the rows of `codebook.weight`. Perplexity and dead
    codes are those of all quantisers' codes together.
    """

    config_class = ResidualVQMotionTokenizerConfig

    @property
    def codes_per_frame(self) -> int:  # type: ignore[override]
        """Codes of one latent frame."""
        return self.config.num_quantizers

    def decode(self, motion_codes: Tensor, motion_code_mask: Tensor | None = None) -> MotionTokenizerDecoderOutput:
        """Motion features of a batch of codes.

        Args:
            motion_codes: (batch, latent frames * num_quantizers) long; entries outside the mask are ignored.
            motion_code_mask: the same shape, bool, True = valid, padding on the right; None: entries that are not -1.

        Raises:
            ValueError: if latent frames are incomplete or a code stands in another quantiser's place, and as in
                `MotionTokenizer.decode`.
        """
        per_frame, size = self.codes_per_frame, self.config.codes_per_quantizer
        mask = motion_codes >= 0 if motion_code_mask is None else motion_code_mask.bool()
        counts = mask.sum(-1)
        if motion_codes.shape[1] % per_frame or (counts % per_frame).any():
            raise ValueError(
                f"the rows of motion_codes {tuple(motion_codes.shape)} hold {counts.tolist()} codes; a latent frame "
                f"has {per_frame} of them, one of each quantiser."
            )
        places = torch.arange(motion_codes.shape[1], device=motion_codes.device) % per_frame
        if (mask & (motion_codes.clamp(0, self.config.num_codes - 1) // size != places)).any():
            raise ValueError(
                f"a code of motion_codes is not in its place: the {per_frame} quantisers take turns, and quantiser q "
                f"has the codes q * {size} to q * {size} + {size - 1}."
            )
        return super().decode(motion_codes, motion_code_mask)

    def _decode_vectors(self, code_vectors: Tensor, code_mask: Tensor) -> tuple[Tensor, Tensor]:
        per_frame = self.codes_per_frame
        sums = code_vectors.unflatten(1, (-1, per_frame)).sum(2)
        return super()._decode_vectors(sums, code_mask[:, ::per_frame])

    def to_motion_tokenizer(self) -> NoReturn:
        """Not possible: a latent frame has several codes.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"a residual_vq_motion_tokenizer has {self.codes_per_frame} codes for each latent frame, and the language "
            "model takes one: use a vq_motion_tokenizer or an fsq_motion_tokenizer."
        )


class FSQMotionTokenizer(BaselineMotionTokenizer):
    """Finite scalar quantisation (arXiv 2309.15505): the codes are the points of a fixed lattice, nothing is learned.

    As in the paper the latent vector has as many values as there are levels, so the codes span that few dimensions.
    One of them is the zero vector, which has no direction: its row of the Gram matrix is zero.
    """

    config_class = FSQMotionTokenizerConfig

    def _make_quantizer(self) -> Any:
        with torch.device("cpu"):  # it reads values while it is made, which a model that is being loaded has not
            return _quantizer_library().FSQ(self.config.levels)

    def _init_weights(self, module: nn.Module) -> None:
        if module is self.codebook:
            init.copy_(module.weight, self._make_quantizer().indices_to_codes(torch.arange(self.config.num_codes)))
        else:
            super()._init_weights(module)

    def _quantise(self, latents: Tensor, update: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        with torch.autocast(latents.device.type, enabled=False):
            rounded, chosen = self.quantizers[0](latents.to(self.codebook.weight.dtype).unsqueeze(0))
        codes = chosen[0].long()
        straight_through = self.codebook(codes).detach() + (rounded[0] - rounded[0].detach())
        return straight_through, codes.unsqueeze(-1), None

    def _linear_scores(self) -> tuple[Tensor, Tensor]:
        """A value with thresholds t_1 < t_2 < ... is at the level l with the largest l z - (t_1 + ... + t_l).

        The thresholds are where the quantiser's bounded value, tanh(z + shift) * half - offset, is rounded up.
        """
        levels, scores = self._make_quantizer().indices_to_level_indices(torch.arange(self.config.num_codes)), []
        for value, count in enumerate(self.config.levels):
            half, offset = (count - 1) * (1 + _FSQ_MARGIN) / 2, 0.5 if count % 2 == 0 else 0.0
            edges = torch.arange(count - 1, dtype=torch.double) - count // 2 + 0.5
            thresholds = ((edges + offset) / half).atanh() - math.atanh(offset / half)
            sums = torch.cat([thresholds.new_zeros(1), thresholds.cumsum(0)])
            scores.append(-sums[levels[:, value]])
        return levels.double(), torch.stack(scores).sum(0)
