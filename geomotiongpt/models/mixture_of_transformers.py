"""Mixture of Transformers (arXiv 2411.04996): text and motion with weights of their own and one attention.

Any causal language model whose layers are those of GPT-2 or of Llama (Qwen, SmolLM, ...) gains a motion branch: in
every layer a second layer of the same class, with norms, query, key, value and output projections and a feed-forward
network of its own. A position's branch is fixed by the kind of its token (hard routing), and each branch computes its
own positions only. Queries, keys and values are put together in the order of the sequence: one causal attention, one
position index, one cache. Where there is no motion, the base model's own code runs on its own weights.
"""

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

MOTION_BRANCH = "motion_branch"  # in the names of the motion weights, and in those of no others
_GPT2_ATTENTION = {"c_attn", "c_proj", "attn_dropout", "resid_dropout"}
_LLAMA_LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_LLAMA_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
_HEAD_NORMS = {"q_norm", "k_norm"}
# Kinds of base model whose layers do with their parts what is done here; others may only look like them.
BASE_MODEL_TYPES = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "smollm3")
_FULL, _SLIDING = "full_attention", "sliding_attention"


class Heads(NamedTuple):
    """Queries, keys and values of some positions, each (positions, heads, head_dim)."""

    queries: Tensor
    keys: Tensor
    values: Tensor


@dataclass
class Routing:
    """Which positions of a batch belong to which branch, and what attention needs to know of all of them.

    Args:
        text: indices of the text positions among the batch * length positions, in their order.
        motion: those of the motion positions.
        order: where each position stands when the rows of motion are put behind those of text.
        shape: (batch, length).
        masks: attention mask of each kind of layer that there is ("full_attention", "sliding_attention").
        position_embeddings: cosines and sines of RoPE; None where positions are embedded.
    """

    text: Tensor
    motion: Tensor
    order: Tensor
    shape: tuple[int, int]
    masks: dict[str, Tensor | None]
    position_embeddings: tuple[Tensor, Tensor] | None

    def merge(self, text: Tensor, motion: Tensor) -> Tensor:
        """Rows of both branches -> (batch, length, ...), in the order of the sequence."""
        # The gradient of index_select adds rows; that of indexing puts them one by one
        return torch.cat([text, motion]).index_select(0, self.order).unflatten(0, self.shape)

    def split(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, length, ...) -> the rows of text and those of motion."""
        rows = states.flatten(0, 1)
        return rows.index_select(0, self.text), rows.index_select(0, self.motion)


class _GPT2Style:
    """How a layer of GPT-2 comes apart: before the attention, and after it."""

    def attention(self, layer: Any) -> nn.Module:
        return layer.attn

    def heads(self, layer: Any, states: Tensor) -> Heads:
        attention = layer.attn
        projected = attention.c_attn(layer.ln_1(states)).split(attention.split_size, dim=-1)
        queries, keys, values = (part.unflatten(-1, (-1, attention.head_dim)) for part in projected)
        return Heads(queries, keys, values)

    def finish(self, layer: Any, states: Tensor, attended: Tensor) -> Tensor:
        states = states + layer.attn.resid_dropout(layer.attn.c_proj(attended))
        return states + layer.mlp(layer.ln_2(states))

    def rotate(self, layer: Any, heads: Heads, position_embeddings: Any) -> Heads:
        return heads

    def dropout(self, layer: Any) -> float:
        return layer.attn.attn_dropout.p


class _LlamaStyle:
    """How a layer of Llama comes apart; of Qwen3, with norms of queries and keys; of SmolLM3, some without RoPE."""

    def attention(self, layer: Any) -> nn.Module:
        return layer.self_attn

    def heads(self, layer: Any, states: Tensor) -> Heads:
        attention = layer.self_attn
        states = layer.input_layernorm(states)
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        queries, keys, values = (project(states).unflatten(-1, (-1, attention.head_dim)) for project in projections)
        if _children(attention) >= _HEAD_NORMS:
            queries, keys = attention.q_norm(queries), attention.k_norm(keys)
        return Heads(queries, keys, values)

    def finish(self, layer: Any, states: Tensor, attended: Tensor) -> Tensor:
        states = states + layer.self_attn.o_proj(attended)
        return states + layer.mlp(layer.post_attention_layernorm(states))

    def rotate(self, layer: Any, heads: Heads, position_embeddings: Any) -> Heads:
        if not getattr(layer.self_attn, "use_rope", True):  # SmolLM3 says so of each layer
            return heads
        apply = vars(sys.modules[_original_class(layer.self_attn).__module__])["apply_rotary_pos_emb"]
        queries, keys = apply(heads.queries, heads.keys, *position_embeddings)
        return Heads(queries, keys, heads.values)

    def dropout(self, layer: Any) -> float:
        return layer.self_attn.attention_dropout


def _children(module: nn.Module) -> set[str]:
    return {name for name, _ in module.named_children()}


def _original_class(module: nn.Module) -> type:
    """The class of the library, also of a module that FSDP or we have given a subclass."""
    return next(kind for kind in type(module).__mro__ if kind.__module__.startswith("transformers.models."))


def check_base_model(language_model: PreTrainedModel) -> None:
    """
    Raises:
        ValueError: for a model that has a motion branch already, or is without a head, or as `check_base_config`.
    """
    config = language_model.config
    if isinstance(language_model, MixtureOfTransformersMixin):
        raise ValueError(
            f"the language model is a {config.model_type!r} and has a motion branch already: load it with "
            "`from_pretrained`."
        )
    if language_model.get_output_embeddings() is None:
        raise ValueError(
            f"the language model is a {type(language_model).__name__} without a head: load it with "
            "`AutoModelForCausalLM`."
        )
    check_base_config(config)


def check_base_config(config: Any) -> None:
    """
    Raises:
        ValueError: for a kind of model that cannot get a motion branch.
    """
    kinds = set(getattr(config, "layer_types", None) or ()) - {_FULL, _SLIDING}
    unusual = config.model_type == "gpt2" and (config.reorder_and_upcast_attn or config.add_cross_attention)
    if config.model_type not in BASE_MODEL_TYPES or kinds or unusual:
        met = f" with {', '.join(sorted(kinds))}" if kinds else " with unusual attention" if unusual else ""
        raise ValueError(
            f"the language model is a {config.model_type!r}{met}: a motion branch can be added to the layers of "
            f"{', '.join(BASE_MODEL_TYPES)} with full or sliding attention. Use a base model of one of these kinds."
        )


def _layer_style(layer: nn.Module) -> _GPT2Style | _LlamaStyle:
    """
    Raises:
        ValueError: if a layer has other parts than those of GPT-2 or Llama: they would be left out.
    """
    parts = _children(layer) - {MOTION_BRANCH}
    if parts == {"ln_1", "attn", "ln_2", "mlp"} and _children(cast(nn.Module, layer.attn)) == _GPT2_ATTENTION:
        return _GPT2Style()
    if parts == _LLAMA_LAYER:
        attention = _children(cast(nn.Module, layer.self_attn))
        if attention in (_LLAMA_ATTENTION, _LLAMA_ATTENTION | _HEAD_NORMS):
            return _LlamaStyle()
        parts = attention
    raise ValueError(
        f"a {type(layer).__name__} has {', '.join(sorted(parts))}: a motion branch can be added to layers with the "
        "parts of GPT-2's or Llama's. Is this another version of the library?"
    )


class _MixtureLayer:
    """Put before a layer class of a base model: the layer, as it is, and a motion branch of the same class."""

    motion_branch: nn.Module

    def __reduce__(self):
        """For processes that models are sent to: its class has no name that is found again."""
        return _empty_mixture_layer, (type(self).__bases__[1],), self.__dict__

    def add_motion_branch(self, branch: nn.Module) -> None:
        """Gives the layer its second set of weights."""
        self.motion_branch = branch

    def forward(self, hidden_states: Tensor, *args, routing: Routing | None = None, **kwargs):
        """As the base's layer; with a routing, rows of text and of motion (positional) -> the same."""
        if routing is None:
            return super().forward(hidden_states, *args, **kwargs)  # type: ignore[misc]
        return self._route(hidden_states, args[0], routing, **kwargs)

    def _route(self, text: Tensor, motion: Tensor, routing: Routing, past_key_values=None) -> tuple[Tensor, Tensor]:
        layer = cast(nn.Module, self)
        style = _layer_style(layer)
        parts = zip(style.heads(layer, text), style.heads(self.motion_branch, motion), strict=True)
        heads = Heads(*(routing.merge(*part).transpose(1, 2) for part in parts))
        heads = style.rotate(layer, heads, routing.position_embeddings)
        attention: Any = style.attention(layer)
        if past_key_values is not None:
            keys, values = past_key_values.update(heads.keys, heads.values, attention.layer_idx)
            heads = heads._replace(keys=keys, values=values)
        attended = _attend(attention, heads, routing, style.dropout(layer) if layer.training else 0.0)
        text_attended, motion_attended = routing.split(attended.flatten(2))
        text = style.finish(layer, text, text_attended)
        return text, style.finish(self.motion_branch, motion, motion_attended)


def _attend(attention: Any, heads: Heads, routing: Routing, dropout: float) -> Tensor:
    """(batch, length, heads, head_dim), by the attention implementation that the base model is set to."""
    eager = vars(sys.modules[_original_class(attention).__module__])["eager_attention_forward"]
    implementation = attention.config._attn_implementation
    attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager)
    kind = _attention_kind(attention.config, attention.layer_idx)
    options = {"sliding_window": attention.config.sliding_window} if kind == _SLIDING else {}
    return attend(attention, *heads, routing.masks[kind], dropout=dropout, scaling=attention.scaling, **options)[0]


def _attention_kind(config: Any, layer: int) -> str:
    """Whether a layer sees everything before it or a window: Mistral says so for all layers, others of each."""
    if getattr(config, "layer_types", None):
        return config.layer_types[layer]
    return _FULL if getattr(config, "sliding_window", None) is None else _SLIDING


@lru_cache
def _mixture_class(layer_class: type) -> type:
    return type(f"Mixture{layer_class.__name__}", (_MixtureLayer, layer_class), {})


def _empty_mixture_layer(layer_class: type) -> Any:
    mixture = _mixture_class(layer_class)
    return object.__new__(mixture)


class MixtureOfTransformersMixin:
    """For a model that holds a causal language model of the library as `language_model`: a motion branch beside it.

    The base keeps the names of its weights: what is left of `language_model.state_dict()` without the names that
    contain "motion_branch" is that of the base, whose checkpoints load as they are. Without a motion branch, motion
    goes through the weights of text (a single stream).
    """

    language_model: PreTrainedModel
    motion_branch_norm: nn.Module | None

    def add_motion_branch(self) -> None:
        """Gives every layer of `language_model`, and its last norm, a second set of weights.

        Raises:
            ValueError: if the layers have other parts than GPT-2's or Llama's.
        """
        layers: Any = self.layers
        for index, layer in enumerate(layers):
            _layer_style(layer)
            kind: Any = type(layer)
            branch = kind(self.base.config, index)
            # Here, as the base does it: in models outside the library, modules without weights of their own are passed
            # over, and with them GPT-2's rule for what adds to the residual stream
            branch.apply(self.language_model._init_weights)
            for module in branch.modules():
                module._is_hf_initialized = True
            layer.__class__ = _mixture_class(kind)
            layer.add_motion_branch(branch)
        self.motion_branch_norm = copy.deepcopy(self._final_norm)

    @property
    def base(self) -> Any:
        """The base model without its head."""
        return self.language_model.base_model

    @property
    def _is_gpt2(self) -> bool:
        return "wpe" in _children(self.base)

    @property
    def layers(self) -> nn.ModuleList:
        """The layers of the base model."""
        return self.base.h if self._is_gpt2 else self.base.layers

    @property
    def _final_norm(self) -> nn.Module:
        return self.base.ln_f if self._is_gpt2 else self.base.norm

    def start_from_text(self) -> None:
        """Makes the motion branch a copy of the text branch."""
        for layer in self.layers:
            branch, weights = cast(nn.Module, layer.motion_branch), layer.state_dict()
            branch.load_state_dict({name: weights[name] for name in branch.state_dict()})
        cast(nn.Module, self.motion_branch_norm).load_state_dict(self._final_norm.state_dict())

    def mix(
        self,
        inputs_embeds: Tensor,
        is_motion: Tensor,
        *,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
    ) -> BaseModelOutputWithPast:
        """Hidden states after the last norm, of each position by its branch.

        Args:
            inputs_embeds: (batch, length, hidden_size), without positions.
            is_motion: (batch, length) bool, which positions are motion's.
            attention_mask: (batch, length), or as the base model takes it.
            position_ids: (batch, length); by default the count of what came before.
            past_key_values: a `Cache`.
            use_cache: whether to fill and return one.

        Raises:
            ValueError: for more positions than a base has that embeds them.
        """
        seen = 0 if past_key_values is None else past_key_values.get_seq_length()
        most = self.base.config.max_position_embeddings
        if self._is_gpt2 and seen + inputs_embeds.shape[1] > most:
            raise ValueError(
                f"{seen + inputs_embeds.shape[1]} tokens are more than the {most} positions of the language model: "
                "shorten the text."
            )
        if self.motion_branch_norm is None or not bool(is_motion.any()):
            return self.base(
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=use_cache,
                return_dict=True,
            )
        config = self.base.config
        if use_cache is None:
            use_cache = config.use_cache and not cast(nn.Module, self).training
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=config)
        if position_ids is None:
            position_ids = (torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device) + seen).unsqueeze(0)
        routing = self._routing(inputs_embeds, is_motion, attention_mask, position_ids, past_key_values)
        if self._is_gpt2:
            inputs_embeds = self.base.drop(inputs_embeds + self.base.wpe(position_ids))
        text, motion = routing.split(inputs_embeds)
        for layer in self.layers:
            text, motion = layer(text, motion, routing=routing, past_key_values=past_key_values)
        states = routing.merge(self._final_norm(text), self.motion_branch_norm(motion))
        return BaseModelOutputWithPast(
            last_hidden_state=states, past_key_values=past_key_values if use_cache else None
        )

    def _routing(self, inputs_embeds, is_motion, attention_mask, position_ids, past_key_values) -> Routing:
        config = self.base.config
        facts = {
            "config": config,
            "inputs_embeds": inputs_embeds,
            "attention_mask": attention_mask,
            "past_key_values": past_key_values,
            "position_ids": position_ids,
        }
        make = {_FULL: create_causal_mask, _SLIDING: create_sliding_window_causal_mask}
        kinds = {_attention_kind(config, index) for index in range(len(self.layers))}
        made = attention_mask if isinstance(attention_mask, dict) else {}  # by `generate`, for a cache of fixed size
        masks = {kind: made[kind] if kind in made else make[kind](**facts) for kind in kinds}
        flat = is_motion.flatten()
        text, motion = (~flat).nonzero().squeeze(-1), flat.nonzero().squeeze(-1)
        return Routing(
            text,
            motion,
            torch.cat([text, motion]).argsort(),
            tuple(is_motion.shape),
            masks,
            None if self._is_gpt2 else self.base.rotary_emb(inputs_embeds, position_ids=position_ids),
        )
