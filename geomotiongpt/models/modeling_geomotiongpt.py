"""GeoMotionGPT (arXiv 2601.07632): a GPT-2 that shares one geometry with its motion tokenizer.

The motion embeddings are E = s P C: C the motion codebook, P a frozen sparse isometry, s one saved scale that matches
the text embeddings. E serves both ends of the model: it embeds motion tokens and scores them. Training adds
lambda' ||G - I||_F^2, G the Gram matrix of C, so that the geometry stays orthonormal while its meaning adapts.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, GPT2LMHeadModel, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions

from .configuration_geomotiongpt import GeoMotionGPTConfig
from .configuration_motion_tokenizer import MotionTokenizerConfig
from .geometry import FrozenSparseProjection, orthonormality_loss
from .modeling_motion_tokenizer import MotionTokenizer
from .pipeline_motion_to_text import MotionToTextPipeline
from .strict_loading import StrictLoadingMixin

_HUB_OPTIONS = ("repo_id", "token", "private", "commit_message", "revision", "create_pr")


@dataclass
class GeoMotionGPTOutput(CausalLMOutputWithCrossAttentions):
    """A causal language model's output plus the parts of its loss.

    Args:
        language_modeling_loss: cross entropy over the labelled (answer) tokens.
        orthonormality_loss: ||G - I||_F^2 of the motion codebook, unweighted.
    """

    language_modeling_loss: Tensor | None = None
    orthonormality_loss: Tensor | None = None


class GeoMotionGPTForCausalLM(StrictLoadingMixin, GPT2LMHeadModel):
    """GPT-2 over [text | markers | motion codes], with its motion tokenizer inside.

    `motion_values` go in beside `input_ids`: the frozen tokenizer encodes them and the placeholders in `input_ids` are
    replaced by the codes. Text rows stay in `transformer.wte` (tied to `lm_head`, as in GPT-2), markers in
    `marker_embedding`, codes in `motion_codebook`; each serves as input and as output embedding.
    """

    config_class = GeoMotionGPTConfig
    _keep_in_fp32_modules_strict = ["motion_tokenizer"]
    _no_split_modules = ["GPT2Block", "MotionTokenizer"]

    def __init__(self, config: GeoMotionGPTConfig):
        super().__init__(config)
        self.transformer.wte = nn.Embedding(config.text_vocab_size, config.n_embd)
        self.lm_head = nn.Linear(config.n_embd, config.text_vocab_size, bias=False)
        self.marker_embedding = nn.Embedding(config.num_markers, config.n_embd)
        tokenizer_config = cast(MotionTokenizerConfig, config.motion_tokenizer_config)
        self.motion_codebook = nn.Embedding(tokenizer_config.num_codes, tokenizer_config.code_dim)
        self.motion_projection = FrozenSparseProjection(
            tokenizer_config.code_dim, config.n_embd, config.projection_seed
        )
        self.register_buffer("motion_embedding_scale", torch.ones(()))
        self.motion_tokenizer = MotionTokenizer(tokenizer_config)
        # Set by callbacks from the global step; a fresh or reloaded model is at its configured weight.
        self.orthonormality_weight_multiplier = 1.0
        self.post_init()
        self._freeze()

    def _freeze(self) -> None:
        self.motion_tokenizer.requires_grad_(False)
        for text in (self.transformer.wte, self.lm_head):  # one weight, unless the base model's are not tied
            text.weight.requires_grad_(not self.config.freeze_text_embeddings)

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """As in `PreTrainedModel`; what training must not change is frozen again (loading makes all trainable)."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model._freeze()
        return loaded

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, FrozenSparseProjection):
            module.reset_parameters()
        elif module is self:
            init.ones_(self.motion_embedding_scale)

    @classmethod
    def from_components(
        cls,
        language_model: str | Path | GPT2LMHeadModel,
        motion_tokenizer: str | Path | MotionTokenizer,
        *,
        projection_seed: int = 0,
        orthonormality_weight: float = 1e-2,
        freeze_text_embeddings: bool = True,
    ) -> "GeoMotionGPTForCausalLM":
        """Joins a GPT-2 and a motion tokenizer: the codebook becomes the motion embeddings, through P.

        The embedding scale is set so that motion and text embeddings have the same mean norm.

        Args:
            language_model: a GPT-2 model, or its name or path.
            motion_tokenizer: a `MotionTokenizer`, or its name or path.
            projection_seed: seed of P.
            orthonormality_weight: lambda'.
            freeze_text_embeddings: False for a base that is not pretrained.

        Raises:
            ValueError: if the base is no GPT-2, or the codes are wider than its embedding.
        """
        if not isinstance(language_model, PreTrainedModel):
            language_model = AutoModelForCausalLM.from_pretrained(language_model)
        if isinstance(motion_tokenizer, PreTrainedModel):
            tokenizer = motion_tokenizer
        else:
            tokenizer = MotionTokenizer.from_pretrained(motion_tokenizer)
        base = language_model.config
        if base.model_type != "gpt2":
            raise ValueError(f"the language model is a {base.model_type!r}; GeoMotionGPTForCausalLM takes a 'gpt2'.")
        names = set(base.to_dict()) - {"architectures", "transformers_version", "model_type", "dtype", "pad_token_id"}
        config = cls.config_class(
            **{name: getattr(base, name) for name in names if name != "vocab_size"},
            text_vocab_size=base.vocab_size,
            motion_tokenizer_config=tokenizer.config,
            projection_seed=projection_seed,
            orthonormality_weight=orthonormality_weight,
            freeze_text_embeddings=freeze_text_embeddings,
        )
        model = cls(config)
        model.transformer.load_state_dict(language_model.transformer.state_dict())
        model.lm_head.load_state_dict(language_model.lm_head.state_dict())
        model.motion_tokenizer.load_state_dict(tokenizer.state_dict())
        with torch.no_grad():
            codebook = model.motion_tokenizer.codebook.weight
            text_norms = model.transformer.wte.weight.norm(dim=-1)
            model.motion_codebook.weight.copy_(codebook)
            model.motion_embedding_scale.copy_(text_norms.mean() / codebook.norm(dim=-1).mean())
        return model

    @property
    def motion_embeddings(self) -> Tensor:
        """E = s P C, (num_motion_codes, n_embd)."""
        codes = torch.arange(self.config.num_motion_codes, device=self.motion_projection.indices.device)
        return self.motion_projection(self.motion_codebook(codes)) * self.motion_embedding_scale

    def _motion_vocabulary(self) -> Tensor:
        """Embeddings of the markers and codes, (num_markers + num_motion_codes, n_embd)."""
        markers = torch.arange(self.config.num_markers, device=self.motion_projection.indices.device)
        return torch.cat([self.marker_embedding(markers), self.motion_embeddings])

    def encode_motion(self, input_ids: Tensor, motion_values: Tensor, motion_mask: Tensor | None = None) -> Tensor:
        """Replaces the placeholders in `input_ids` by the codes of the motion of the same row.

        Args:
            input_ids: (batch, length) token ids.
            motion_values: (batch, frames, num_features) normalised features.
            motion_mask: (batch, frames) bool, True = valid, padding on the right; a row without a motion is all False.

        Raises:
            ValueError: if a row has not as many placeholders as its motion has codes, or is not padded on the right.
        """
        with torch.no_grad():
            codes, code_mask, _ = self.motion_tokenizer.encode(motion_values, motion_mask).to_tuple()
        placeholders = input_ids == self.config.motion_placeholder_token_id
        wanted, met = code_mask.sum(-1), placeholders.sum(-1)
        if not torch.compiler.is_compiling() and not torch.equal(wanted, met):
            raise ValueError(
                f"input_ids have {met.tolist()} motion placeholders a row, but the motions have {wanted.tolist()} "
                "codes: make both with the same processor call."
            )
        ranks = (placeholders.long().cumsum(-1) - 1).clamp(0, codes.shape[1] - 1)
        token_ids = codes.gather(1, ranks) + self.config.first_motion_token_id
        return torch.where(placeholders, token_ids, input_ids)

    def _embed(self, input_ids: Tensor, motion_vocabulary: Tensor) -> Tensor:
        first = self.config.text_vocab_size
        text = self.transformer.wte(input_ids.clamp(max=first - 1))
        other = functional.embedding((input_ids - first).clamp(min=0), motion_vocabulary)
        return torch.where((input_ids >= first).unsqueeze(-1), other.to(text.dtype), text)

    def forward(
        self,
        input_ids: Tensor | None = None,
        *,
        motion_values: Tensor | None = None,
        motion_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values=None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        skip_logits: bool = False,
        **kwargs,
    ) -> GeoMotionGPTOutput:
        """Next-token logits over the joint vocabulary; with labels, L = cross entropy + lambda' ||G - I||_F^2.

        Args:
            input_ids: (batch, length) token ids.
            motion_values: (batch, frames, num_features); its codes replace the placeholders in `input_ids`.
            motion_mask: (batch, frames) bool, True = valid.
            attention_mask: (batch, length).
            position_ids: (batch, length).
            inputs_embeds: (batch, length, n_embd), instead of `input_ids`.
            labels: (batch, length), -100 where no loss is taken (everything but the answer).
            past_key_values: a `Cache`.
            use_cache: whether to return the cache.
            logits_to_keep: compute logits for the last n positions only (0: all).
            num_items_in_batch: labelled tokens in the whole optimisation step, given by `Trainer`; the regulariser is
                then scaled by this batch's share of them, so that the sum over the micro-batches adds it once.
            skip_logits: score the vocabulary only where `labels` ask for it and return no logits: the same loss for
                less time and memory.

        Raises:
            ValueError: without input, or if logits are to be skipped and there are no labels.
        """
        if skip_logits and labels is None:
            raise ValueError("`skip_logits=True` leaves nothing to return without `labels`.")
        motion_vocabulary = self._motion_vocabulary()
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("give either `input_ids` or `inputs_embeds`.")
            if motion_values is not None:
                input_ids = self.encode_motion(input_ids, motion_values, motion_mask)
            inputs_embeds = self._embed(input_ids, motion_vocabulary)
        outputs = self.transformer(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )
        next_tokens = None if labels is None else functional.pad(labels[:, 1:], (0, 1), value=-100)
        if skip_logits and next_tokens is not None:
            labelled = next_tokens != -100
            hidden_states, next_tokens = outputs.last_hidden_state[labelled], next_tokens[labelled]
        else:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            hidden_states = outputs.last_hidden_state[:, kept]
        vocabulary = torch.cat([self.lm_head.weight, motion_vocabulary.to(self.lm_head.weight.dtype)])
        logits = functional.linear(hidden_states, vocabulary)
        losses = {} if next_tokens is None else self._losses(logits, next_tokens, num_items_in_batch)
        return GeoMotionGPTOutput(
            **losses,
            logits=None if skip_logits else logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _losses(self, logits: Tensor, targets: Tensor, num_items_in_batch: Tensor | int | None) -> dict[str, Tensor]:
        language_modeling = self.loss_function(
            logits,
            None,
            vocab_size=self.config.vocab_size,
            num_items_in_batch=num_items_in_batch,
            shift_labels=targets,
        )
        # P is an isometry and s a scalar, so the Gram matrix of E is that of C.
        orthonormality = orthonormality_loss(self.motion_codebook.weight)
        share: Tensor | float = 1.0
        if num_items_in_batch is not None:
            share = (targets != -100).sum() / num_items_in_batch
        weight = self.config.orthonormality_weight * self.orthonormality_weight_multiplier
        return {
            "loss": language_modeling + weight * share * orthonormality,
            "language_modeling_loss": language_modeling,
            "orthonormality_loss": orthonormality,
        }

    @torch.no_grad()
    def generate(
        self, inputs: Tensor | None = None, *, motion_values: Tensor | None = None, motion_mask=None, **kwargs
    ):
        """`GenerationMixin.generate`, with the motion encoded into the prompt first.

        Args:
            inputs: (batch, length) prompt ids with placeholders (or `input_ids=`).
            motion_values: (batch, frames, num_features).
            motion_mask: (batch, frames) bool.
            **kwargs: as in `GenerationMixin.generate`.

        Raises:
            ValueError: if prompt and `max_new_tokens` are more than the model has positions.
        """
        input_ids = kwargs.pop("input_ids", inputs)
        defaults = kwargs.get("generation_config") or self.generation_config
        new_tokens = kwargs.get("max_new_tokens", defaults.max_new_tokens)
        if input_ids is not None and input_ids.shape[1] + (new_tokens or 0) > self.config.n_positions:
            raise ValueError(
                f"a prompt of {input_ids.shape[1]} tokens and {new_tokens} new ones do not fit into the "
                f"{self.config.n_positions} positions of the language model: cut the motion or ask for fewer tokens."
            )
        if motion_values is not None:
            input_ids = self.encode_motion(input_ids, motion_values, motion_mask)
        return super().generate(input_ids, **kwargs)

    def resize_token_embeddings(self, *args, **kwargs):
        """Not possible: ids are laid out as [text | markers | motion codes].

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "the vocabulary of GeoMotionGPT is fixed: text rows are the base model's, motion rows the codebook's. "
            "Extend the base language model before `from_components`."
        )

    def save_pretrained(self, save_directory: str | Path, *, push_to_hub: bool = False, **kwargs) -> None:
        """Saves the model, and its motion tokenizer alone in `motion_tokenizer/` (from the weights inside).

        `config.json` says which class to load for `AutoModel` and where the pipelines are.

        Args:
            save_directory: folder to write.
            push_to_hub: whether to upload as well, as `push_to_hub()` does.
            **kwargs: as in `PreTrainedModel.save_pretrained`; `repo_id` names the repository (default: the folder).
        """
        hub_options = {name: kwargs.pop(name) for name in _HUB_OPTIONS if push_to_hub and name in kwargs}
        module, name = type(self).__module__.rsplit(".", 1)[-1], type(self).__name__
        self.config.auto_map = {**(getattr(self.config, "auto_map", None) or {}), "AutoModel": f"{module}.{name}"}
        pipeline_module = MotionToTextPipeline.__module__.rsplit(".", 1)[-1]
        self.config.custom_pipelines = {
            "motion-to-text": {
                "impl": f"{pipeline_module}.{MotionToTextPipeline.__name__}",
                "pt": ["AutoModelForCausalLM"],
                "type": "multimodal",
            }
        }
        try:
            if kwargs.get("is_main_process", True):
                self.motion_tokenizer.save_pretrained(Path(save_directory) / "motion_tokenizer")
            super().save_pretrained(save_directory, **kwargs)
        finally:
            del self.config.custom_pipelines
        if push_to_hub:
            # The base class would upload what it has written itself, without the folder of the motion tokenizer.
            self.push_to_hub(hub_options.pop("repo_id", Path(save_directory).name), **hub_options)
