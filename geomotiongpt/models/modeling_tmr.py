"""TMR: motions and captions in one latent space, by contrast and by generation (Petrovich et al., arXiv 2305.00976).

Two transformer encoders in the manner of ACTOR give a Gaussian for a motion and one for a caption; a decoder makes the
motion from a sample of either. Captions come as word vectors, in place of the frozen language model of the paper.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_tmr import TMRConfig
from .modeling_motion_text_evaluator import info_nce, motion_lengths, text_lengths
from .strict_loading import StrictLoadingMixin


@dataclass
class TMROutput(ModelOutput):
    """Embeddings of a batch of pairs, and the loss with its parts, unweighted.

    Args:
        loss: L_R + lambda_KL L_KL + lambda_E L_E + lambda_NCE L_NCE.
        reconstruction_loss: L_R, smooth L1 of the motions decoded from motions and from captions, over valid frames.
        kl_loss: L_KL, of each Gaussian to the other and to the standard one.
        latent_loss: L_E, smooth L1 between the latents of a pair.
        contrastive_loss: L_NCE, symmetric InfoNCE of cosines.
        motion_embeds: (batch, embedding_size), the means of the motions.
        text_embeds: (batch, embedding_size), the means of the captions.
    """

    loss: Tensor | None = None
    reconstruction_loss: Tensor | None = None
    kl_loss: Tensor | None = None
    latent_loss: Tensor | None = None
    contrastive_loss: Tensor | None = None
    motion_embeds: Tensor | None = None
    text_embeds: Tensor | None = None


def _sinusoids(length: int, width: int, like: Tensor) -> Tensor:
    """(length, width) sines and cosines of the position."""
    position = torch.arange(length, device=like.device, dtype=torch.float32).unsqueeze(1)
    frequency = torch.exp(torch.arange(0, width, 2, device=like.device) * (-math.log(10000.0) / width))
    return torch.stack([(position * frequency).sin(), (position * frequency).cos()], dim=-1).flatten(1).to(like.dtype)


class GaussianEncoder(nn.Module):
    """A sequence (batch, length, input_size) -> mean and log variance, (batch, embedding_size) each.

    Two learned tokens stand before the sequence; what a transformer makes of them is the Gaussian (ACTOR).
    """

    def __init__(self, config: TMRConfig, input_size: int):
        super().__init__()
        self.projection = nn.Linear(input_size, config.embedding_size)
        self.tokens = nn.Parameter(torch.zeros(2, config.embedding_size))
        layer = nn.TransformerEncoderLayer(**_layer_options(config))
        self.transformer = nn.TransformerEncoder(layer, config.num_layers, enable_nested_tensor=False)

    def forward(self, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        sequence = torch.cat([self.tokens.expand(len(inputs), -1, -1), self.projection(inputs)], dim=1)
        sequence = sequence + _sinusoids(sequence.shape[1], sequence.shape[2], sequence)
        outputs = self.transformer(sequence, src_key_padding_mask=_padding(lengths + 2, sequence.shape[1]))
        return outputs[:, 0], outputs[:, 1]


class MotionDecoder(nn.Module):
    """A latent (batch, embedding_size) -> motion features (batch, frames, num_features)."""

    def __init__(self, config: TMRConfig):
        super().__init__()
        self.transformer = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(**_layer_options(config)), config.num_layers
        )
        self.projection = nn.Linear(config.embedding_size, config.num_features)

    def forward(self, latent: Tensor, lengths: Tensor, num_frames: int) -> Tensor:
        queries = _sinusoids(num_frames, latent.shape[1], latent).expand(len(latent), -1, -1)
        outputs = self.transformer(queries, latent.unsqueeze(1), tgt_key_padding_mask=_padding(lengths, num_frames))
        return self.projection(outputs)


def _layer_options(config: TMRConfig) -> dict:
    return {
        "d_model": config.embedding_size,
        "nhead": config.num_heads,
        "dim_feedforward": config.feedforward_size,
        "dropout": config.dropout,
        "activation": "gelu",
        "batch_first": True,
    }


def _padding(lengths: Tensor, width: int) -> Tensor:
    """(batch, width) bool, True where padded."""
    return torch.arange(width, device=lengths.device) >= lengths.unsqueeze(-1)


class TMRModel(StrictLoadingMixin, PreTrainedModel):
    """Motions and captions in one space, compared by cosine; an embedding does not depend on the rest of the batch."""

    config_class = TMRConfig
    base_model_prefix = "tmr"
    main_input_name = "motion_values"

    def __init__(self, config: TMRConfig):
        super().__init__(config)
        self.motion_encoder = GaussianEncoder(config, config.num_features)
        self.text_encoder = GaussianEncoder(config, config.word_dim + config.num_pos_tags)
        self.motion_decoder = MotionDecoder(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        # The layers have the initial values that torch gives them.
        if isinstance(module, GaussianEncoder):
            init.normal_(module.tokens)

    def get_motion_features(self, motion_values: Tensor, motion_mask: Tensor | None = None) -> Tensor:
        """Embeddings of motions, the means of their Gaussians, (batch, embedding_size).

        Args:
            motion_values: (batch, frames, num_features), normalised with the evaluator's own statistics.
            motion_mask: (batch, frames) bool, True = valid, padding on the right; None when all frames are valid.

        Raises:
            ValueError: for another width or mask shape, padding that is not on the right, or a motion without frames
                or longer than `config.max_frames`.
        """
        return self._encode_motion(motion_values, motion_mask)[0]

    def get_text_features(
        self, word_embeddings: Tensor, pos_one_hots: Tensor, text_mask: Tensor | None = None
    ) -> Tensor:
        """Embeddings of captions, the means of their Gaussians, (batch, embedding_size).

        Args:
            word_embeddings: (batch, words, word_dim), from "sos" to "eos".
            pos_one_hots: (batch, words, num_pos_tags), the part of speech of each.
            text_mask: (batch, words) bool, True = valid, padding on the right; None when all words are valid.

        Raises:
            ValueError: for padding that is not on the right, or a caption without words.
        """
        return self._encode_text(word_embeddings, pos_one_hots, text_mask)[0]

    def forward(
        self,
        motion_values: Tensor,
        word_embeddings: Tensor,
        pos_one_hots: Tensor,
        motion_mask: Tensor | None = None,
        text_mask: Tensor | None = None,
        same_meaning: Tensor | None = None,
        return_loss: bool = True,
    ) -> TMROutput:
        """Embeds pairs of motions and captions; with `return_loss` (default) also the training loss and its parts.

        In training mode latents are drawn from the Gaussians, in evaluation mode they are the means.

        Args:
            motion_values, motion_mask: as in `get_motion_features`.
            word_embeddings, pos_one_hots, text_mask: as in `get_text_features`.
            same_meaning: (batch, batch) bool, True where pairs i and j mean the same: they are no negatives of each
                other. It stands for the paper's threshold on the similarity of captions.
            return_loss: whether to compute the loss.
        """
        motion = self._encode_motion(motion_values, motion_mask)
        text = self._encode_text(word_embeddings, pos_one_hots, text_mask)
        losses: dict[str, Tensor] = {}
        if return_loss:
            lengths = motion_lengths(motion_values, motion_mask, self.config.num_features)
            losses = self._losses(motion, text, motion_values.to(self.dtype), lengths, same_meaning)
        return TMROutput(**losses, motion_embeds=motion[0], text_embeds=text[0])

    def _encode_motion(self, motion_values: Tensor, motion_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        lengths = motion_lengths(motion_values, motion_mask, self.config.num_features)
        for row, length in enumerate(lengths.tolist()):
            if not 1 <= length <= self.config.max_frames:
                raise ValueError(
                    f"row {row} of motion_values has {length} frames; this evaluator takes 1 to "
                    f"{self.config.max_frames} (config.max_frames)."
                )
        padded = _padding(lengths, motion_values.shape[1]).unsqueeze(-1)
        return self.motion_encoder(motion_values.to(self.dtype).masked_fill(padded, 0), lengths)

    def _encode_text(
        self, word_embeddings: Tensor, pos_one_hots: Tensor, text_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        lengths = text_lengths(word_embeddings, text_mask)
        words = torch.cat([word_embeddings, pos_one_hots], dim=-1).to(self.dtype)
        return self.text_encoder(words, lengths)

    def _losses(
        self,
        motion: tuple[Tensor, Tensor],
        text: tuple[Tensor, Tensor],
        motion_values: Tensor,
        lengths: Tensor,
        same_meaning: Tensor | None,
    ) -> dict[str, Tensor]:
        """The loss and its parts, from the two Gaussians."""
        config = self.config
        motion_latent, text_latent = self._draw(*motion), self._draw(*text)
        valid = ~_padding(lengths, motion_values.shape[1])
        reconstruction = sum(
            functional.smooth_l1_loss(
                self.motion_decoder(latent, lengths, motion_values.shape[1])[valid], motion_values[valid]
            )
            for latent in (motion_latent, text_latent)
        )
        standard = (torch.zeros_like(motion[0]), torch.zeros_like(motion[1]))
        kl = _kl(text, motion) + _kl(motion, text) + _kl(motion, standard) + _kl(text, standard)
        latent = functional.smooth_l1_loss(text_latent, motion_latent)
        cosines = functional.normalize(text_latent, dim=-1) @ functional.normalize(motion_latent, dim=-1).T
        contrastive = info_nce(cosines / config.temperature, same_meaning)
        total = reconstruction + config.kl_weight * kl + config.latent_weight * latent
        return {
            "loss": total + config.contrastive_weight * contrastive,
            "reconstruction_loss": reconstruction,
            "kl_loss": kl,
            "latent_loss": latent,
            "contrastive_loss": contrastive,
        }

    def _draw(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        return mean + torch.randn_like(mean) * (log_variance / 2).exp() if self.training else mean


def _kl(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """KL(N_one || N_other), mean over batch and dimensions."""
    (mean, log_variance), (other_mean, other_log_variance) = one, other
    ratio = (log_variance - other_log_variance).exp()
    distance = (mean - other_mean).square() * (-other_log_variance).exp()
    return 0.5 * (ratio + distance - 1 - log_variance + other_log_variance).mean()
