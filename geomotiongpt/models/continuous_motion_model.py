"""What language models in which motion is a second, continuous modality share: text as it was, rows for markers."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
    RepetitionPenaltyLogitsProcessor,
)
from transformers import initialization as init

from .configuration_continuous_motion import ContinuousMotionConfig
from .configuration_motion_language import name_on_hub
from .generation_settings import bound_answer, merge_settings
from .mixture_of_transformers import (
    MOTION_BRANCH,
    MixtureOfTransformersMixin,
    check_base_config,
    check_base_model,
)
from .saving import save_with_parts
from .strict_loading import StrictLoadingMixin, refuse_offloaded

_NUM_MARKERS = 3  # <motion_pad>, <motion>, </motion>
_WITHOUT_EFFECT = ("tokenizer",)  # what `generate` may say, and the output is as it is all the same


class ContinuousMotionModel(MixtureOfTransformersMixin, StrictLoadingMixin, PreTrainedModel, GenerationMixin):
    """A causal language model with a motion branch beside it and a frozen model that turns motion into latents.

    The text branch keeps the base model's weights under their own names (`language_model`); the rows of the markers
    are apart from its embedding, so that its logits over its own vocabulary stay what they are, bit for bit.
    """

    config_class: type[ContinuousMotionConfig]
    base_model_prefix = "language_model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # losses are means over what a micro-batch holds
    _supports_sdpa = True
    _supports_flash_attn = True
    motion_part: str  # name of the module that turns motion into latents, and of its folder in a saved model
    _slots_of_a_latent = 1  # tokens of the prompt that one of `latents` fills
    heads: tuple[str, ...]  # names of the modules that are new beside base, branch and markers

    config: ContinuousMotionConfig
    latent_shift: Tensor
    latent_scale: Tensor

    def _build_language_model(self) -> None:
        config = self.config
        check_base_config(config.text_config)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.motion_branch_norm = None
        if config.streams == "dual":
            self.add_motion_branch()
        self.marker_embedding = nn.Embedding(config.vocab_size - config.text_vocab_size, config.hidden_size)

    def _finish_building(self) -> None:
        self.post_init()
        # Not the base's own layers too: a motion branch is one, and FSDP would cut it out of the layer that it is in
        self._no_split_modules = [type(self.layers[0]).__name__, type(self.motion_encoder).__name__]
        self.motion_encoder.requires_grad_(False)
        self.generation_config.pad_token_id = self.config.padding_token_id

    @property
    def motion_encoder(self) -> PreTrainedModel:
        """What turns motion into latents and back; it never trains here."""
        return getattr(self, self.motion_part)

    def _init_weights(self, module: nn.Module) -> None:
        if module is self.marker_embedding:
            init.normal_(module.weight, std=0.02)

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """As in `PreTrainedModel`; what encodes motion is frozen again (loading makes everything trainable).

        Raises:
            ValueError: as `StrictLoadingMixin`, or if a `device_map` offloads more than the base model.
        """
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        refuse_offloaded(model, model.base_model_prefix)
        model.motion_encoder.requires_grad_(False)
        return loaded

    @classmethod
    def _join(
        cls,
        language_model: str | Path | PreTrainedModel,
        motion_encoder: str | Path | PreTrainedModel,
        start_from_text: bool,
        options: dict[str, Any],
    ):
        if not isinstance(language_model, PreTrainedModel):
            check_base_config(AutoConfig.from_pretrained(language_model))  # before its weights are read
            language_model = AutoModelForCausalLM.from_pretrained(language_model)
        encoder: Any = motion_encoder
        if not isinstance(encoder, PreTrainedModel):
            encoder = AutoModel.from_pretrained(encoder)
        kind, wanted = encoder.config.model_type, cls.config_class.sub_configs[f"{cls.motion_part}_config"].model_type
        if kind != wanted:
            raise ValueError(f"`{cls.motion_part}` is a {kind!r}: give a {wanted!r}.")
        check_base_model(language_model)
        unknown = options.keys() - {field.name for field in dataclasses.fields(cls.config_class)}
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))}: no such option of {cls.config_class.__name__}.")
        if start_from_text and options.get("streams") == "single":
            raise ValueError("start_from_text: a single stream has no motion branch to start; leave it out.")
        config = cls.config_class(
            **{"text_config": _without_origin(language_model.config)},
            **{f"{cls.motion_part}_config": _without_origin(encoder.config)},
            **{"base_model": name_on_hub(language_model.config._name_or_path), **options},
        )
        config._attn_implementation = language_model.config._attn_implementation
        model = cls(config)
        if language_model.generation_config is not None:  # what ends its texts, and how it samples them
            padding = model.generation_config.pad_token_id
            model.generation_config = copy.deepcopy(language_model.generation_config)
            model.generation_config.pad_token_id = padding
        model.float()  # a base in half precision is joined in the precision of what trains
        missing, unexpected = model.language_model.load_state_dict(language_model.state_dict(), strict=False)
        wrong = [name for name in (*missing, *unexpected) if MOTION_BRANCH not in name]
        if wrong:
            raise ValueError(f"the language model does not fit its configuration: {', '.join(sorted(wrong)[:5])}.")
        model.motion_encoder.load_state_dict(encoder.state_dict())
        if start_from_text:
            model.start_from_text()
        return model

    def get_input_embeddings(self) -> nn.Module:
        """The base model's."""
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module | None:
        """The base model's."""
        return self.language_model.get_output_embeddings()

    def text_parameters(self) -> dict[str, nn.Parameter]:
        """The weights of the base model, by their names there; with a single stream motion uses them too."""
        named = self.language_model.named_parameters()
        return {name: parameter for name, parameter in named if MOTION_BRANCH not in name}

    def train(self, mode: bool = True):
        """As in `torch.nn.Module`; what encodes motion, which never trains, stays in evaluation mode."""
        super().train(mode)
        self.motion_encoder.eval()
        return self

    def _embed_words(self, input_ids: Tensor) -> Tensor:
        """(batch, length, hidden_size): text rows of the base, and the rows of markers and slots."""
        first = self.config.text_vocab_size
        text = self.get_input_embeddings()(input_ids.clamp(max=first - 1))
        other = self.marker_embedding((input_ids - first).clamp(min=0))
        return torch.where((input_ids >= first).unsqueeze(-1).to(text.device), other.to(text), text)

    def _score(self, states: Tensor) -> Tensor:
        """Logits over all ids: the base's, those of `<motion>` and `</motion>`, and -inf for what is no answer."""
        text = self.language_model.lm_head(states)
        markers = functional.linear(states, self.marker_embedding.weight[1:_NUM_MARKERS].to(states))
        never = text.new_full((*text.shape[:-1], 2), -torch.inf)
        return torch.cat([text, never[..., :1], markers, never], dim=-1)

    def _score_where_asked(
        self, states: Tensor, labels: Tensor | None, logits_to_keep: int | Tensor, skip_logits: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Logits, and the next tokens that belong to them where there are labels."""
        next_tokens = None if labels is None else functional.pad(labels[:, 1:], (0, 1), value=-100)
        if skip_logits and next_tokens is not None:
            labelled = next_tokens != -100
            return self._score(states[labelled]), next_tokens[labelled]
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        return self._score(states[:, kept]), next_tokens

    @staticmethod
    def _language_modeling_loss(logits: Tensor, next_tokens: Tensor) -> Tensor:
        """Mean cross entropy over what is labelled; 0 where nothing is."""
        total = functional.cross_entropy(
            logits.flatten(0, -2).float(), next_tokens.flatten(), ignore_index=-100, reduction="sum"
        )
        return total / (next_tokens != -100).sum().clamp(min=1)

    def _check_forward(self, labels: Tensor | None, skip_logits: bool, options: dict[str, Any]) -> None:
        idle = [name for name, value in options.items() if value is not None and value is not False]
        idle = [name for name in idle if name not in _WITHOUT_EFFECT]
        if idle:
            raise ValueError(f"{', '.join(idle)}: no effect on {type(self).__name__}; leave it out.")
        if skip_logits and labels is None:
            raise ValueError("`skip_logits=True` leaves nothing to return without `labels`.")

    def encode_motion(self, motion_values: Tensor, motion_mask: Tensor | None = None) -> Tensor:
        """Latents of the motions of a batch, as `forward` takes them."""
        raise NotImplementedError

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        *,
        motion_values: Tensor | None = None,
        motion_mask: Tensor | None = None,
        latents: Tensor | None = None,
        **kwargs,
    ):
        """`GenerationMixin.generate` for answers that are text, with the motions of the prompt encoded once.

        Markers and motion tokens are never an answer. A repetition penalty counts what was generated, not the prompt.

        Args:
            inputs: (batch, length) prompt ids (or `input_ids=`).
            motion_values: (batch, frames, num_features), one motion a row.
            motion_mask: (batch, frames) bool.
            latents: as in `forward`, instead.
            **kwargs: as in `GenerationMixin.generate`. Where nothing says how long an answer may be, it takes the
                positions that are left, up to `LONGEST_TEXT`.

        Raises:
            ValueError: if prompt and `max_new_tokens` are more than the model has positions, the model has only been
                trained to make motions, a motion is given to a prompt that shows none, or generation is assisted or
                guided.
        """
        config = self.config
        input_ids = kwargs.pop("input_ids", inputs)
        if input_ids is None:
            raise ValueError("give `input_ids`: a prompt, as the processor makes it.")
        self._check_writes_text()
        settings, kwargs = merge_settings(self.generation_config, kwargs)
        if settings.prompt_lookup_num_tokens is not None or kwargs.get("assistant_model") is not None:
            raise ValueError("assisted generation is not possible here: it reads prompts without their motions.")
        if settings.prefill_chunk_size is not None:
            raise ValueError("prefill_chunk_size: a prompt is read whole here, with its motions; leave it out.")
        if settings.guidance_scale not in (None, 1):
            raise ValueError(
                f"guidance_scale is {settings.guidance_scale}, but only motion is guided here, by `generate_motion`."
            )
        bound_answer(settings, input_ids.shape[1], config.max_position_embeddings)
        if motion_values is not None:
            latents = self.encode_motion(motion_values, motion_mask)
        if latents is not None and not bool((input_ids == config.motion_in_token_id).any()):
            raise ValueError("a motion is given, but the prompt shows none: make both with the same processor call.")
        if motion_values is not None:
            self._check_slots(input_ids, motion_values, motion_mask)
        penalty = settings.repetition_penalty
        if penalty is not None and penalty != 1:
            only_new = RepetitionPenaltyLogitsProcessor(penalty, prompt_ignore_length=input_ids.shape[1])
            kwargs["logits_processor"] = [only_new, *(kwargs.get("logits_processor") or [])]
            settings.repetition_penalty = 1.0
        markers = list(range(config.text_vocab_size, config.vocab_size))
        settings.suppress_tokens = [*markers, *(settings.suppress_tokens or [])]
        return super().generate(input_ids, generation_config=settings, latents=latents, **kwargs)

    def compute_transition_scores(
        self,
        sequences: Tensor,
        scores: tuple[Tensor, ...],
        beam_indices: Tensor | None = None,
        normalize_logits: bool = False,
    ) -> Tensor:
        """As in `GenerationMixin`, which would count the ids of the base model alone.

        Args:
            sequences: (rows, length) prompts and answers.
            scores: of each step, (rows or beams, vocab_size).
            beam_indices: (rows, steps) which beam a token was taken from; -1: the sequence had ended.
            normalize_logits: whether to make them log probabilities.

        Returns:
            (rows, steps) scores of the tokens of the answers.
        """
        stacked = torch.stack(scores, dim=1)  # (rows, steps, ids)
        if normalize_logits:
            stacked = stacked.log_softmax(-1)
        if beam_indices is None:
            beam_indices = torch.arange(len(sequences), device=sequences.device).unsqueeze(-1).expand(-1, len(scores))
        is_over = beam_indices < 0
        steps = torch.arange(int((~is_over).sum(-1).max()), device=sequences.device)
        is_over, beams = is_over[:, : len(steps)], beam_indices[:, : len(steps)].clamp(min=0)
        return stacked[beams, steps, sequences[:, -len(steps) :]].masked_fill(is_over, 0)

    def _check_slots(self, input_ids: Tensor, motion_values: Tensor, motion_mask: Tensor | None) -> None:
        """Raises a ValueError if the slots of a prompt cannot hold its motion."""

    def _check_writes_text(self) -> None:
        """Raises a ValueError if the model was trained to make motions alone."""

    def prepare_inputs_for_generation(self, input_ids, *args, **kwargs):
        """As in `GenerationMixin`; the motions of the prompt are needed once, those that the cache lacks."""
        inputs = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)
        new, latents = inputs["input_ids"].shape[1], inputs.get("latents")
        slots = input_ids == self.config.motion_in_token_id
        if not bool(slots[:, -new:].any()):
            inputs["latents"] = None
        elif latents is not None and bool(slots[:, :-new].any()):
            seen = slots[:, :-new].sum(-1, keepdim=True) // self._slots_of_a_latent
            index = (torch.arange(latents.shape[1], device=seen.device) + seen).clamp(max=latents.shape[1] - 1)
            inputs["latents"] = latents[torch.arange(len(latents), device=latents.device)[:, None], index]
        return inputs

    def resize_token_embeddings(self, *args, **kwargs):
        """Not possible: ids are laid out as [text | markers | motion slots].

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"the vocabulary of {type(self).__name__} is fixed: text rows are the base model's. Extend the base "
            "language model before `from_components`."
        )

    def save_pretrained(self, save_directory: str | Path, *, push_to_hub: bool = False, **kwargs) -> None:
        """Saves the model, and what encodes motion alone in a folder of its own (from the weights inside).

        Args:
            save_directory: folder to write.
            push_to_hub: whether to upload as well, as `push_to_hub()` does.
            **kwargs: as in `PreTrainedModel.save_pretrained`; `repo_id` names the repository (default: the folder).
        """
        self.config.drop_foreign_padding()
        parts = {self.motion_part: self.motion_encoder}
        save_with_parts(self, super().save_pretrained, save_directory, parts, push_to_hub, kwargs)


def _without_origin(config: PreTrainedConfig) -> PreTrainedConfig:
    """A copy that does not say where it came from, a folder of whoever trained it, nor in which precision."""
    config = copy.deepcopy(config)
    config._name_or_path = ""
    config.dtype = None
    return config
