"""Motion-text evaluator: the co-embedding that R-precision, MM-Dist and FID of the field are measured in.

The networks are those of the official HumanML3D and KIT-ML evaluators (Guo et al., "Generating Diverse and Natural 3D
Human Motions from Text", CVPR 2022), with their weight names; smaller ones are trained for data without an official
one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_motion_text_evaluator import MotionTextEvaluatorConfig
from .strict_loading import StrictLoadingMixin

_LEAK = 0.2


@dataclass
class MotionTextEvaluatorOutput(ModelOutput):
    """Embeddings of a batch of pairs, and the loss that brings them together.

    Args:
        loss: contrastive_loss + w * reconstruction_loss.
        contrastive_loss: symmetric InfoNCE.
        reconstruction_loss: L1 of the movement autoencoder over valid frames, without contacts; None without decoder.
        motion_embeds: (batch, embedding_size).
        text_embeds: (batch, embedding_size).
    """

    loss: Tensor | None = None
    contrastive_loss: Tensor | None = None
    reconstruction_loss: Tensor | None = None
    motion_embeds: Tensor | None = None
    text_embeds: Tensor | None = None


class MovementEncoder(nn.Module):
    """Motion features without contacts (batch, frames, features) -> movement codes (batch, frames // 4, size)."""

    def __init__(self, config: MotionTextEvaluatorConfig):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv1d(config.num_motion_features, config.movement_hidden_size, 4, stride=2, padding=1),
            nn.Dropout(config.dropout),
            nn.LeakyReLU(_LEAK),
            nn.Conv1d(config.movement_hidden_size, config.movement_size, 4, stride=2, padding=1),
            nn.Dropout(config.dropout),
            nn.LeakyReLU(_LEAK),
        )
        self.out_net = nn.Linear(config.movement_size, config.movement_size)

    def forward(self, motion: Tensor) -> Tensor:
        return self.out_net(self.main(motion.transpose(1, 2)).transpose(1, 2))


class MovementDecoder(nn.Module):
    """Movement codes -> motion features without contacts: the other half of the autoencoder, in training only."""

    def __init__(self, config: MotionTextEvaluatorConfig):
        super().__init__()
        num_features = config.num_motion_features
        self.main = nn.Sequential(
            nn.ConvTranspose1d(config.movement_size, config.movement_hidden_size, 4, stride=2, padding=1),
            nn.LeakyReLU(_LEAK),
            nn.ConvTranspose1d(config.movement_hidden_size, num_features, 4, stride=2, padding=1),
        )

    def forward(self, movement: Tensor) -> Tensor:
        return self.main(movement.transpose(1, 2)).transpose(1, 2)


class BiGRUEncoder(nn.Module):
    """A sequence (batch, length, input_size) -> an embedding (batch, output_size).

    A bidirectional GRU that starts from a learned state reads each sequence to its own end; both last states go
    through a small head.
    """

    def __init__(self, input_size: int, hidden_size: int, output_size: int):
        super().__init__()
        self.input_emb = nn.Linear(input_size, hidden_size)
        self.gru = nn.GRU(hidden_size, hidden_size, batch_first=True, bidirectional=True)
        self.output_net = nn.Sequential(
            nn.Linear(2 * hidden_size, hidden_size),
            nn.LayerNorm(hidden_size),
            nn.LeakyReLU(_LEAK),
            nn.Linear(hidden_size, output_size),
        )
        self.hidden = nn.Parameter(torch.zeros(2, 1, hidden_size))

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.input_emb(inputs), lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, (forward, backward) = self.gru(packed, self.hidden.expand(-1, len(inputs), -1).contiguous())
        return self.output_net(torch.cat([forward, backward], dim=-1))


class TextEncoder(BiGRUEncoder):
    """Word vectors (batch, words, word_dim) and their parts of speech (batch, words, tags) -> an embedding."""

    def __init__(self, config: MotionTextEvaluatorConfig):
        super().__init__(config.word_dim, config.text_hidden_size, config.embedding_size)
        self.pos_emb = nn.Linear(config.num_pos_tags, config.word_dim)

    def forward(self, words: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(words + self.pos_emb(tags), lengths)


class MotionTextEvaluator(StrictLoadingMixin, PreTrainedModel):
    """Motions and captions in one Euclidean space.

    An embedding does not depend on the rest of the batch: motions are read to their own length, and padded as the
    official evaluators' were.
    """

    config_class = MotionTextEvaluatorConfig
    base_model_prefix = "evaluator"
    main_input_name = "motion_values"

    def __init__(self, config: MotionTextEvaluatorConfig):
        super().__init__(config)
        self.movement_encoder = MovementEncoder(config)
        self.motion_encoder = BiGRUEncoder(config.movement_size, config.motion_hidden_size, config.embedding_size)
        self.text_encoder = TextEncoder(config)
        self.movement_decoder = MovementDecoder(config) if config.reconstruction_weight else None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.ConvTranspose1d)):
            init.xavier_normal_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, BiGRUEncoder):
            init.normal_(module.hidden)

    def get_motion_features(self, motion_values: Tensor, motion_mask: Tensor | None = None) -> Tensor:
        """Embeddings of motions, (batch, embedding_size).

        The last frames that do not fill a movement code of 4 are dropped, and foot contacts are not looked at.

        Args:
            motion_values: (batch, frames, num_features), normalised with the evaluator's own statistics.
            motion_mask: (batch, frames) bool, True = valid, padding on the right; None when all frames are valid.

        Raises:
            ValueError: for another width or mask shape, padding that is not on the right, or a motion that is
                shorter than 4 frames or longer than `config.max_frames`.
        """
        motion, lengths = self._prepare_motion(motion_values, motion_mask)
        return self.motion_encoder(self.movement_encoder(motion), lengths // self.config.downsampling_factor)

    def get_text_features(
        self, word_embeddings: Tensor, pos_one_hots: Tensor, text_mask: Tensor | None = None
    ) -> Tensor:
        """Embeddings of captions, (batch, embedding_size).

        Args:
            word_embeddings: (batch, words, word_dim), from "sos" to "eos".
            pos_one_hots: (batch, words, num_pos_tags), the part of speech of each.
            text_mask: (batch, words) bool, True = valid, padding on the right; None when all words are valid.

        Raises:
            ValueError: for padding that is not on the right, or a caption without words.
        """
        lengths = text_lengths(word_embeddings, text_mask)
        return self.text_encoder(word_embeddings.to(self.dtype), pos_one_hots.to(self.dtype), lengths)

    def forward(
        self,
        motion_values: Tensor,
        word_embeddings: Tensor,
        pos_one_hots: Tensor,
        motion_mask: Tensor | None = None,
        text_mask: Tensor | None = None,
        same_meaning: Tensor | None = None,
        return_loss: bool = True,
    ) -> MotionTextEvaluatorOutput:
        """Embeds pairs of motions and captions; with `return_loss` (default) also the training loss.

        Args:
            motion_values, motion_mask: as in `get_motion_features`.
            word_embeddings, pos_one_hots, text_mask: as in `get_text_features`.
            same_meaning: (batch, batch) bool, True where pairs i and j mean the same: they are no negatives of each
                other.
            return_loss: whether to compute the loss.
        """
        motion, lengths = self._prepare_motion(motion_values, motion_mask)
        movement = self.movement_encoder(motion)
        motion_embeds = self.motion_encoder(movement, lengths // self.config.downsampling_factor)
        text_embeds = self.get_text_features(word_embeddings, pos_one_hots, text_mask)
        if not return_loss:
            return MotionTextEvaluatorOutput(motion_embeds=motion_embeds, text_embeds=text_embeds)
        # -||t - m||^2 / (2 sqrt(E))
        distances = (text_embeds.unsqueeze(1) - motion_embeds.unsqueeze(0)).square().sum(-1)
        contrastive = info_nce(-distances / (2 * self.config.embedding_size**0.5), same_meaning)
        loss, reconstruction = contrastive, None
        if self.movement_decoder is not None:
            valid = torch.arange(motion.shape[1], device=motion.device) < lengths.unsqueeze(-1)
            reconstruction = functional.l1_loss(self.movement_decoder(movement)[valid], motion[valid])
            loss = contrastive + self.config.reconstruction_weight * reconstruction
        return MotionTextEvaluatorOutput(
            loss=loss,
            contrastive_loss=contrastive,
            reconstruction_loss=reconstruction,
            motion_embeds=motion_embeds,
            text_embeds=text_embeds,
        )

    def _prepare_motion(self, motion_values: Tensor, motion_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Motion without contacts, zero after its length, (batch, frames, features); and the lengths (batch,)."""
        config, unit = self.config, self.config.downsampling_factor
        lengths = motion_lengths(motion_values, motion_mask, config.num_features) // unit * unit
        for row, length in enumerate(lengths.tolist()):
            if not unit <= length <= config.max_frames:
                raise ValueError(
                    f"row {row} of motion_values has {length} frames; this evaluator takes {unit} to "
                    f"{config.max_frames} (config.max_frames)."
                )
        # The last code of a motion sees what comes after: zeros, unless the motion ends where max_frames does, as in
        # the official evaluators. It sees two frames of it, so that padding to max_frames is not needed.
        num_frames = min(int(lengths.max()) + unit, config.max_frames)
        motion = motion_values[:, :num_frames, : config.num_motion_features].to(self.dtype)
        motion = functional.pad(motion, (0, 0, 0, num_frames - motion.shape[1]))
        padded = torch.arange(num_frames, device=motion.device) >= lengths.unsqueeze(-1)
        return motion.masked_fill(padded.unsqueeze(-1), 0), lengths


def info_nce(logits: Tensor, same_meaning: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE.

    Args:
        logits: (batch, batch), how well text i suits motion j; pairs are on the diagonal.
        same_meaning: (batch, batch) bool, True where i and j mean the same and are no negatives of each other.
    """
    targets = torch.arange(len(logits), device=logits.device)
    if same_meaning is not None:
        others = same_meaning.bool() & ~torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(others, -torch.inf)
    return (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)) / 2


def motion_lengths(motion_values: Tensor, motion_mask: Tensor | None, num_features: int) -> Tensor:
    """Frames of each motion, (batch,); checks width, mask and padding.

    Raises:
        ValueError: for another width or mask shape, or padding that is not on the right.
    """
    if motion_values.dim() != 3 or motion_values.shape[-1] != num_features:
        raise ValueError(
            f"motion_values has shape {tuple(motion_values.shape)}; this evaluator takes (batch, frames, "
            f"{num_features}). Is the motion in the representation the evaluator was trained on?"
        )
    return _lengths("motion", motion_values, motion_mask)


def text_lengths(word_embeddings: Tensor, text_mask: Tensor | None) -> Tensor:
    """Words of each caption, (batch,); checks mask and padding.

    Raises:
        ValueError: for another mask shape, padding that is not on the right, or a caption without words.
    """
    lengths = _lengths("text", word_embeddings, text_mask)
    if not lengths.all():
        raise ValueError(f"row {int(lengths.argmin())} of word_embeddings has no words, not even 'sos' and 'eos'.")
    return lengths


def _lengths(kind: str, values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return torch.full(values.shape[:1], values.shape[1], device=values.device)
    if mask.shape != values.shape[:2]:
        raise ValueError(f"{kind}_mask has shape {tuple(mask.shape)}; wanted {tuple(values.shape[:2])}.")
    mask = mask.bool()
    has_gap = (mask[:, 1:] & ~mask[:, :-1]).any(-1)
    if has_gap.any():
        raise ValueError(
            f"row {int(has_gap.int().argmax())} of {kind}_mask is padded on the left or has a gap; padding must be "
            "on the right, after all that is valid."
        )
    return mask.sum(-1)
