"""MotionGPT3 (arXiv 2506.24086): a language model with motion as a second modality, kept continuous.

A motion is one latent of a motion VAE. Text goes through a pretrained language model, motion through a branch of its
own in every layer (`MixtureOfTransformers`). A motion that is given fills `<motion_in>` slots with its latent; of one
that is to be made, the hidden states at its `<motion_out>` slots are the condition of a denoising head, which samples
the latent.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from .configuration_motiongpt3 import MotionGPT3Config
from .continuous_motion_model import ContinuousMotionModel
from .denoising_heads import DenoisingHead
from .latent_motion_generation import LatentMotionGenerationMixin
from .modeling_motion_vae import MotionVAE


@dataclass
class MotionGPT3Output(CausalLMOutputWithPast):
    """A causal language model's output plus the parts of its loss.

    Args:
        language_modeling_loss: cross entropy over the labelled text.
        denoising_loss: of the latents of the motions that were to be made.
        length_loss: squared error of the logarithm of their lengths.
        motion_states: (motions, num_motion_slots, hidden_size) at the slots of motions that are to be made, row by
            row: what the denoising head is conditioned on.
    """

    language_modeling_loss: Tensor | None = None
    denoising_loss: Tensor | None = None
    length_loss: Tensor | None = None
    motion_states: Tensor | None = None


class MotionGPT3ForCausalLM(LatentMotionGenerationMixin, ContinuousMotionModel):
    """A causal language model with a motion branch, a motion VAE and a denoising head."""

    config_class = MotionGPT3Config
    motion_part = "motion_vae"
    heads = ("motion_input", "denoising_head", "length_head")
    # Rounded, it would give other latents than those that were trained on
    _keep_in_fp32_modules_strict = ["motion_vae", "latent_shift", "latent_scale", "latent_basis"]
    # What quantisation in 8 or 4 bits passes over, too
    _keep_in_fp32_modules = [*_keep_in_fp32_modules_strict, *heads]

    config: MotionGPT3Config
    latent_basis: Tensor | None

    @property
    def _slots_of_a_latent(self) -> int:  # type: ignore[override]
        return self.config.num_motion_slots

    def __init__(self, config: MotionGPT3Config):
        super().__init__(config)
        width, vae = config.hidden_size, config.vae
        num_entries = vae.num_latent_tokens * vae.latent_dim
        latent_size = config.num_latent_components or num_entries
        self._build_language_model()
        self.motion_input = nn.Linear(latent_size, config.num_motion_slots * width)
        self.denoising_head = DenoisingHead(
            latent_size=latent_size,
            condition_size=width,
            num_condition_tokens=config.num_motion_slots,
            hidden_size=config.denoising_hidden_size,
            num_layers=config.denoising_num_layers,
            num_condition_heads=config.denoising_num_heads,
            process=config.denoising_process,
            target_repeats=config.target_repeats,
            condition_dropout=config.condition_dropout,
        )
        self.length_head = nn.Linear(width, 1)
        # What head and language model see of a latent: basis (latent - shift), or without a basis all entries, * scale
        self.register_buffer("latent_shift", torch.zeros(num_entries))
        self.register_buffer("latent_scale", torch.ones(latent_size))
        basis = torch.eye(latent_size, num_entries) if config.num_latent_components else None
        self.register_buffer("latent_basis", basis)
        self.motion_vae = MotionVAE(vae)
        self._finish_building()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, DenoisingHead):
            module.reset_parameters()
        elif module in (self.motion_input, self.length_head):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)
        elif module is self:
            init.zeros_(self.latent_shift)
            init.ones_(self.latent_scale)
            if self.latent_basis is not None:
                init.copy_(self.latent_basis, torch.eye(*self.latent_basis.shape))
        else:
            super()._init_weights(module)

    @classmethod
    def from_components(
        cls,
        language_model: str | Path | PreTrainedModel,
        motion_vae: str | Path | MotionVAE,
        *,
        start_from_text: bool = False,
        **options: Any,
    ) -> "MotionGPT3ForCausalLM":
        """Joins a language model and a motion VAE. The motion branch starts from random weights.

        Args:
            language_model: a causal language model with layers like GPT-2's or Llama's, or its name or path.
            motion_vae: a `MotionVAE`, or its name or path.
            start_from_text: start the motion branch as a copy of the text branch instead.
            **options: of `MotionGPT3Config`.

        Raises:
            ValueError: for a base with other layers or without a head, another kind of model as motion VAE, or an
                option that does not exist.
        """
        return cls._join(language_model, motion_vae, start_from_text, options)

    def set_latent_statistics(self, means: Tensor, stds: Tensor | None = None) -> None:
        """Standardises what language model and head see of the latents: all entries, or the principal components.

        Args:
            means: (motions, num_latent_tokens, latent_dim), the latents of the training motions.
            stds: the same shape, of the noise in them, which spreads what training draws; without it none.

        Raises:
            ValueError: for fewer than two motions, or no more than there are principal components.
        """
        rows = means.flatten(1).to(self.latent_shift)
        fewest = 2 if self.latent_basis is None else len(self.latent_basis) + 1
        if len(rows) < fewest:
            raise ValueError(
                f"{len(rows)} latents do not show how {fewest - 1} values of them spread: give those of {fewest} "
                "motions or more."
            )
        self.latent_shift.copy_(rows.mean(0))
        if self.latent_basis is not None:
            directions = torch.linalg.eigh(rows.double().T.cov()).eigenvectors.flip(1)  # widest spread first
            self.latent_basis.copy_(directions.T[: len(self.latent_basis)])
        self.latent_scale.fill_(1.0)
        variances = self.standardise(means.to(rows)).var(0)
        if stds is not None:
            noise = stds.flatten(1).to(rows).square().mean(0)
            variances += noise if self.latent_basis is None else self.latent_basis.square() @ noise
        self.latent_scale.copy_(variances.clamp(min=1e-12).rsqrt())

    def standardise(self, latents: Tensor) -> Tensor:
        """(..., num_latent_tokens, latent_dim) of the VAE -> (..., latent_size) as language model and head see it."""
        centred = latents.flatten(-2) - self.latent_shift
        if self.latent_basis is not None:
            with torch.autocast(centred.device.type, enabled=False):
                centred = centred @ self.latent_basis.T
        return centred * self.latent_scale

    def restore(self, latents: Tensor) -> Tensor:
        """The inverse of `standardise`; what is outside the principal components is that of the mean."""
        centred = latents / self.latent_scale
        if self.latent_basis is not None:
            with torch.autocast(centred.device.type, enabled=False):
                centred = centred @ self.latent_basis
        return (centred + self.latent_shift).unflatten(-1, (self.config.vae.num_latent_tokens, -1))

    def encode_motion(self, motion_values: Tensor, motion_mask: Tensor | None = None) -> Tensor:
        """Latents of the motions of a batch, one a row: means, without noise.

        Args:
            motion_values: (batch, frames, num_features) normalised features.
            motion_mask: (batch, frames) bool, True = valid, padding on the right.

        Returns:
            (batch, 1, num_latent_tokens, latent_dim), as `forward` takes them.
        """
        with torch.no_grad(), torch.autocast(motion_values.device.type, enabled=False):
            mean = self.motion_vae.encode(motion_values, motion_mask).mean
        assert mean is not None
        return mean.unsqueeze(1)

    def _embed(self, input_ids: Tensor, latents: Tensor | None) -> Tensor:
        """(batch, length, hidden_size): text rows of the base, the other tokens' own, and slots that are filled."""
        embeds = self._embed_words(input_ids)
        if latents is not None and len(latents) != len(input_ids):
            raise ValueError(f"there are motions for {len(latents)} rows, and {len(input_ids)} rows of input_ids.")
        slots = input_ids == self.config.motion_in_token_id
        per_row = slots.sum(-1)
        given = 0 if latents is None else latents.shape[1] * self.config.num_motion_slots
        if int(per_row.max()) > given or (per_row % self.config.num_motion_slots).any():
            raise ValueError(
                f"input_ids have up to {int(per_row.max())} `<motion_in>` slots a row, {self.config.num_motion_slots} "
                f"a motion, but there are motions for {given}: make both with the same processor call."
            )
        if latents is None or not bool(slots.any()):
            return embeds
        filled = self.motion_input(self.standardise(latents).to(self.motion_input.weight.dtype))
        filled = filled.unflatten(-1, (self.config.num_motion_slots, -1)).flatten(1, 2)
        ranks = (slots.long().cumsum(-1) - 1).clamp(0, filled.shape[1] - 1)
        filled = filled.gather(1, ranks.unsqueeze(-1).expand(-1, -1, filled.shape[-1]))
        return torch.where(slots.unsqueeze(-1), filled.to(embeds.dtype), embeds)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        *,
        motion_values: Tensor | None = None,
        motion_mask: Tensor | None = None,
        latents: Tensor | None = None,
        target_latents: Tensor | None = None,
        target_num_frames: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values=None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        skip_logits: bool = False,
        **kwargs,
    ) -> MotionGPT3Output:
        """Next-token logits at text positions, hidden states at the slots of motions to be made, and losses.

        Args:
            input_ids: (batch, length) token ids.
            motion_values: (batch, frames, num_features), one motion a row: what fills its `<motion_in>` slots.
            motion_mask: (batch, frames) bool, True = valid.
            latents: (batch, motions, num_latent_tokens, latent_dim) of the VAE instead; several a row fill the slots
                in their order.
            target_latents: (motions, num_latent_tokens, latent_dim) of the motions that are to be made, one for each
                row with `<motion_out>` slots; with them there is a denoising loss.
            target_num_frames: (motions,) their lengths; with them there is a length loss, where they are above 0.
            attention_mask: (batch, length).
            position_ids: (batch, length).
            labels: (batch, length), -100 where no loss is taken (everything but the answer's text).
            past_key_values: a `Cache`.
            use_cache: whether to return the cache.
            logits_to_keep: compute logits for the last n positions only (0: all).
            skip_logits: score the vocabulary only where `labels` ask for it and return no logits.

        Raises:
            ValueError: for slots without motions, motions given twice, another number of targets than of motions, or
                an argument that has no effect here.
        """
        self._check_forward(labels, skip_logits, kwargs)
        if target_num_frames is not None and target_latents is None:
            raise ValueError("`target_num_frames` are the lengths of `target_latents`; give both.")
        if motion_values is not None:
            if latents is not None:
                raise ValueError("give either `motion_values` or their `latents`.")
            latents = self.encode_motion(motion_values, motion_mask)
        outputs = self.mix(
            self._embed(input_ids, latents),
            input_ids >= self.config.first_slot_token_id,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
        )
        states = outputs.last_hidden_state
        out_slots = input_ids == self.config.motion_out_token_id
        if (out_slots.sum(-1) % self.config.num_motion_slots).any():
            raise ValueError(
                f"input_ids have {out_slots.sum(-1).tolist()} `<motion_out>` slots a row; a motion takes "
                f"{self.config.num_motion_slots}."
            )
        motion_states = states[out_slots].unflatten(0, (-1, self.config.num_motion_slots))
        losses = {}
        logits, next_tokens = self._score_where_asked(states, labels, logits_to_keep, skip_logits)
        if next_tokens is not None or target_latents is not None:
            losses = self._losses(logits, next_tokens, motion_states, target_latents, target_num_frames)
        return MotionGPT3Output(
            **losses,
            logits=None if skip_logits else logits,
            past_key_values=outputs.past_key_values,
            motion_states=motion_states,
        )

    def _losses(
        self,
        logits: Tensor,
        next_tokens: Tensor | None,
        motion_states: Tensor,
        target_latents: Tensor | None,
        target_num_frames: Tensor | None,
    ) -> dict[str, Tensor]:
        config, zero = self.config, motion_states.sum() * 0
        parts = {}
        if next_tokens is not None and config.language_modeling_weight:
            parts["language_modeling_loss"] = self._language_modeling_loss(logits, next_tokens)
        if target_latents is not None:
            if len(target_latents) != len(motion_states):
                raise ValueError(
                    f"{len(target_latents)} target latents for {len(motion_states)} motions that are to be made."
                )
            target = self.standardise(target_latents)
            parts["denoising_loss"] = self.denoising_head.loss(target, motion_states) if len(target) else zero
            if target_num_frames is not None:
                if len(target_num_frames) != len(target_latents):
                    raise ValueError(f"{len(target_num_frames)} lengths for {len(target_latents)} target latents.")
                said = self._log_num_frames(motion_states)
                error = (said - target_num_frames.clamp(min=1).float().log()).square() * (target_num_frames > 0)
                parts["length_loss"] = error.sum() / (target_num_frames > 0).sum().clamp(min=1)
        weights = {
            "language_modeling_loss": config.language_modeling_weight,
            "denoising_loss": config.denoising_weight,
            "length_loss": config.length_weight,
        }
        return {"loss": sum((weights[name] * part for name, part in parts.items()), start=zero), **parts}

    def _log_num_frames(self, motion_states: Tensor) -> Tensor:
        """What the length predictor says: natural logarithm of the frames, (motions,)."""
        return self.length_head(motion_states.mean(1).to(self.length_head.weight.dtype)).squeeze(-1).float()

    def _check_writes_text(self) -> None:
        if self.config.trained_stage == "text-to-motion":
            raise ValueError(
                "the model has only been through the first stage of training, text to motion: captions and other "
                "texts come with the second (`stage: alignment` in its recipe)."
            )
