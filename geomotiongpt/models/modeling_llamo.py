"""LLaMo (arXiv 2602.12370): any pretrained language model, with motion as continuous latents, one after another.

Text goes through the base model as it is, motion through a branch of its own in every layer
(`MixtureOfTransformers`). At the start of a motion and at each of its latents, the hidden state h_i is the condition
of a flow-matching head, which draws the next latent, and of an exit head, which says whether this was the last one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from .autoregressive_motion_generation import AutoregressiveMotionGenerationMixin
from .configuration_llamo import LLaMoConfig
from .continuous_motion_model import ContinuousMotionModel
from .denoising_heads import DenoisingHead
from .modeling_causal_motion_codec import CausalMotionCodec


@dataclass
class LLaMoOutput(CausalLMOutputWithPast):
    """A causal language model's output plus the parts of its loss.

    Args:
        language_modeling_loss: L_NTP, cross entropy over the labelled text.
        denoising_loss: L_FM, flow matching of the latents that are to be made.
        exit_loss: L_end, binary cross entropy of the exit head.
        hidden_states_of_motion: (batch, length, hidden_size) after the last norm; at the start of a motion and at its
            latents what the heads are conditioned on.
    """

    language_modeling_loss: Tensor | None = None
    denoising_loss: Tensor | None = None
    exit_loss: Tensor | None = None
    hidden_states_of_motion: Tensor | None = None


class _Roles(NamedTuple):
    """What the positions of a batch are there for, each (batch, length) bool.

    Args:
        slot: holds a latent.
        before_target: the next position holds a latent that is to be made.
        last: holds the last latent of a motion that is to be made.
    """

    slot: Tensor
    before_target: Tensor
    last: Tensor


class LLaMoForCausalLM(AutoregressiveMotionGenerationMixin, ContinuousMotionModel):
    """A causal language model with a motion branch, a motion codec, a flow-matching head and an exit head."""

    config_class = LLaMoConfig
    motion_part = "motion_codec"
    heads = ("motion_input", "denoising_head", "exit_head")
    # Rounded, it would give other latents than those that were trained on
    _keep_in_fp32_modules_strict = ["motion_codec", "latent_shift", "latent_scale"]
    # What quantisation in 8 or 4 bits passes over, too
    _keep_in_fp32_modules = [*_keep_in_fp32_modules_strict, *heads]

    config: LLaMoConfig

    def __init__(self, config: LLaMoConfig):
        super().__init__(config)
        latent_dim, width = config.codec.latent_dim, config.hidden_size
        self._build_language_model()
        self.motion_input = nn.Linear(latent_dim, width)
        self.denoising_head = DenoisingHead(
            latent_size=latent_dim,
            condition_size=width,
            num_condition_tokens=1,
            hidden_size=config.denoising_hidden_size,
            num_layers=config.denoising_num_layers,
            process="rectified_flow",
            target_repeats=config.target_repeats,
            condition_dropout=0.0,  # training drops captions, not states: see the task "unconditional"
            time_logit_mean=config.time_logit_mean,
        )
        self.exit_head = nn.Linear(width, 1)
        # What head and language model see of a latent: (latent - shift) * scale
        self.register_buffer("latent_shift", torch.zeros(latent_dim))
        self.register_buffer("latent_scale", torch.ones(latent_dim))
        self.motion_codec = CausalMotionCodec(config.codec)
        self._finish_building()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, DenoisingHead):
            module.reset_parameters()
        elif module in (self.motion_input, self.exit_head):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)
        elif module is self:
            init.zeros_(self.latent_shift)
            init.ones_(self.latent_scale)
        else:
            super()._init_weights(module)

    @classmethod
    def from_language_model(
        cls,
        language_model: str | Path | PreTrainedModel,
        motion_codec: str | Path | CausalMotionCodec,
        *,
        start_from_text: bool = True,
        **options: Any,
    ) -> "LLaMoForCausalLM":
        """Gives a language model a motion branch, a motion codec and heads.

        Args:
            language_model: a causal language model with layers like Llama's or GPT-2's, or its name or path.
            motion_codec: a `CausalMotionCodec`, or its name or path.
            start_from_text: start the motion branch as a copy of the text branch; else from random weights.
            **options: of `LLaMoConfig`.

        Raises:
            ValueError: for a base with other layers or without a head, another kind of model as motion codec, or an
                option that does not exist.
        """
        start = start_from_text and options.get("streams") != "single"
        return cls._join(language_model, motion_codec, start, options)

    def set_latent_statistics(self, latents: Tensor) -> None:
        """Standardises what language model and head see of the latents.

        Args:
            latents: (any number, latent_dim) of the training motions.
        """
        if len(latents) < 2:
            raise ValueError(f"{len(latents)} latents have no spread: give those of many motions.")
        rows = latents.to(self.latent_shift)
        self.latent_shift.copy_(rows.mean(0))
        self.latent_scale.copy_(1 / rows.std(0).clamp(min=1e-6))

    def standardise(self, latents: Tensor) -> Tensor:
        """(..., latent_dim) of the codec -> the same as language model and head see it."""
        return (latents - self.latent_shift) * self.latent_scale

    def restore(self, latents: Tensor) -> Tensor:
        """The inverse of `standardise`."""
        return latents / self.latent_scale + self.latent_shift

    def encode_motion(self, motion_values: Tensor, motion_mask: Tensor | None = None) -> Tensor:
        """Latents of the motions of a batch, one motion a row, 0 where padded.

        Args:
            motion_values: (batch, frames, num_features) normalised features.
            motion_mask: (batch, frames) bool, True = valid, padding on the right.

        Returns:
            (batch, latents, latent_dim), as `forward` takes them.
        """
        with torch.no_grad(), torch.autocast(motion_values.device.type, enabled=False):
            latents = self.motion_codec.encode(motion_values, motion_mask).latents
        assert latents is not None
        return latents

    def _check_slots(self, input_ids: Tensor, motion_values: Tensor, motion_mask: Tensor | None) -> None:
        """Raises a ValueError if a row has other slots than its motion has latents."""
        slots = (input_ids >= self.config.first_slot_token_id).sum(-1)
        frames = slots.new_full(slots.shape, motion_values.shape[1]) if motion_mask is None else motion_mask.sum(-1)
        latents = frames // self.config.codec.downsampling_factor
        if slots.shape == latents.shape and not torch.equal(slots, latents):
            row = int((slots != latents).nonzero()[0])
            raise ValueError(
                f"row {row} of input_ids has {slots[row]} slots of motion, its motion {latents[row]} latents: make "
                "both with the same processor call."
            )

    def _roles(self, input_ids: Tensor) -> _Roles:
        config = self.config
        following = functional.pad(input_ids[:, 1:], (0, 1), value=config.padding_token_id)
        made = input_ids == config.motion_out_token_id
        return _Roles(
            slot=input_ids >= config.first_slot_token_id,
            before_target=following == config.motion_out_token_id,
            last=made & (following == config.motion_end_token_id),
        )

    def _is_motion(self, input_ids: Tensor) -> Tensor:
        config = self.config
        return (input_ids >= config.first_slot_token_id) | (input_ids == config.motion_start_token_id)

    def _embed(self, input_ids: Tensor, latents: Tensor | None, slot: Tensor) -> Tensor:
        """(batch, length, hidden_size): text rows, the other tokens' own, and the input adapter's of latents."""
        embeds = self._embed_words(input_ids)
        most = int(slot.sum(-1).max()) if slot.numel() else 0
        given = 0 if latents is None else latents.shape[1]
        if latents is not None and len(latents) != len(input_ids):
            raise ValueError(f"there are motions for {len(latents)} rows, and {len(input_ids)} rows of input_ids.")
        if most > given:
            raise ValueError(
                f"input_ids have up to {most} slots of motion a row, but there are {given} latents: make both with "
                "the same processor call."
            )
        if latents is None or most == 0:
            return embeds
        seen = self.standardise(latents)
        ranks = (slot.long().cumsum(-1) - 1).clamp(0, given - 1).unsqueeze(-1)
        seen = seen.gather(1, ranks.expand(-1, -1, seen.shape[-1]))
        if self.training and self.config.history_noise:
            made = (input_ids == self.config.motion_out_token_id).unsqueeze(-1)
            deviation = torch.full((len(seen), 1, 1), self.config.history_noise, device=seen.device)
            if self.config.random_history_noise:
                deviation = deviation * torch.rand_like(deviation)
            seen = seen + deviation * torch.randn_like(seen) * made
        filled = self.motion_input(seen.to(self.motion_input.weight.dtype))
        return torch.where(slot.unsqueeze(-1), filled.to(embeds.dtype), embeds)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        *,
        motion_values: Tensor | None = None,
        motion_mask: Tensor | None = None,
        latents: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values=None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        skip_logits: bool = False,
        **kwargs,
    ) -> LLaMoOutput:
        """Next-token logits at text positions, hidden states at those of motion, and losses.

        Args:
            input_ids: (batch, length) token ids; of motion `<motion_in>` for latents that are given, `<motion_out>`
                for those that are to be made (which are given too: each is made from those before it).
            motion_values: (batch, frames, num_features), one motion a row: what fills its slots.
            motion_mask: (batch, frames) bool, True = valid.
            latents: (batch, most slots of a row, latent_dim) of the codec instead, in the order of the slots.
            attention_mask: (batch, length).
            position_ids: (batch, length).
            labels: (batch, length), -100 where no loss is taken (everything but the answer's text); with them there
                are losses, also of the motions that are to be made.
            past_key_values: a `Cache`.
            use_cache: whether to return the cache.
            logits_to_keep: compute logits for the last n positions only (0: all).
            skip_logits: score the vocabulary only where `labels` ask for it and return no logits.

        Raises:
            ValueError: for slots without latents, motions given twice, or an argument that has no effect here.
        """
        self._check_forward(labels, skip_logits, kwargs)
        if motion_values is not None:
            if latents is not None:
                raise ValueError("give either `motion_values` or their `latents`.")
            latents = self.encode_motion(motion_values, motion_mask)
            self._check_slots(input_ids, motion_values, motion_mask)
        roles = self._roles(input_ids)
        outputs = self.mix(
            self._embed(input_ids, latents, roles.slot),
            self._is_motion(input_ids),
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
        )
        states = outputs.last_hidden_state
        logits, next_tokens = self._score_where_asked(states, labels, logits_to_keep, skip_logits)
        losses = {}
        if next_tokens is not None:
            losses = self._losses(logits, next_tokens, states, latents, roles)
        return LLaMoOutput(
            **losses,
            logits=None if skip_logits else logits,
            past_key_values=outputs.past_key_values,
            hidden_states_of_motion=states,
        )

    def _losses(
        self, logits: Tensor, next_tokens: Tensor, states: Tensor, latents: Tensor | None, roles: _Roles
    ) -> dict[str, Tensor]:
        """L = L_NTP + L_FM + L_end, with weights."""
        config, parts = self.config, {}
        if config.language_modeling_weight:
            parts["language_modeling_loss"] = self._language_modeling_loss(logits, next_tokens)
        if latents is not None and bool(roles.before_target.any()):
            before = states[roles.before_target]
            # The latent at position i + 1 has the rank of the slots up to there
            ranks = roles.slot.long().cumsum(-1)[roles.before_target]
            rows = roles.before_target.nonzero()[:, 0]
            target = self.standardise(latents[rows, ranks])
            parts["denoising_loss"] = self.denoising_head.loss(target, before.unsqueeze(1))
            made = roles.before_target | roles.last
            parts["exit_loss"] = functional.binary_cross_entropy_with_logits(
                self.exit_head(states[made].to(self.exit_head.weight.dtype)).squeeze(-1).float(),
                roles.last[made].float(),
                pos_weight=torch.tensor(config.exit_positive_weight, device=states.device),
            )
        weights = {
            "language_modeling_loss": config.language_modeling_weight,
            "denoising_loss": config.denoising_weight,
            "exit_loss": config.exit_weight,
        }
        zero = states.sum() * 0
        return {"loss": sum((weights[name] * part for name, part in parts.items()), start=zero), **parts}
