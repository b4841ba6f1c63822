"""The motion vocabulary of GeoMotionGPT (arXiv 2601.07632), for any causal language model.

The embedding of a code c_k is e_k = s P c_k: P a projection (the paper's is a frozen sparse isometry), s one saved
scale that matches the text embeddings. Of all codes at once that is E = s C P^T, C the motion codebook. E serves both
ends of the model: it embeds motion tokens and scores them. Training adds lambda' ||G - I||_F^2, G the Gram matrix of
E, so that the geometry stays orthonormal while its meaning adapts; other projections and constraints take the place of
the paper's for comparison.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions
from transformers.utils import can_return_tuple

from .configuration_motion_language import name_on_hub
from .configuration_motion_tokenizer import MotionTokenizerConfig
from .generation_settings import bound_answer, merge_settings
from .geometry import check_geometric_constraint, cluster_codes, geometric_loss
from .modeling_motion_tokenizer import MotionTokenizer
from .motion_generation import MotionGenerationMixin
from .motion_projections import (
    FrozenSparseProjection,
    LinearProjection,
    OrthogonalProjection,
    dense_random_embeddings,
    make_projection,
)
from .saving import save_with_parts
from .strict_loading import StrictLoadingMixin, refuse_offloaded

FREE_ROWS_STARTS = ("projected", "random")
_FREE_ROWS = ("none", "dense_random")
_CLASS_OF_BASE = {
    "gpt2": "GeoMotionGPTForCausalLM",
    "llama": "GeoMotionLlamaForCausalLM",
    "qwen3": "GeoMotionQwen3ForCausalLM",
}
# What the joined model does not take over from its base.
_NOT_OF_THE_BASE = {
    *("architectures", "transformers_version", "model_type", "dtype", "pad_token_id", "vocab_size"),
    "_name_or_path",  # libraries look there for what the joined model was loaded from
}


@dataclass
class GeoMotionGPTOutput(CausalLMOutputWithCrossAttentions):
    """A causal language model's output plus the parts of its loss.

    Args:
        language_modeling_loss: cross entropy over the labelled (answer) tokens.
        orthonormality_loss: what the geometric constraint costs, unweighted: ||G - I||_F^2 by default.
    """

    language_modeling_loss: Tensor | None = None
    orthonormality_loss: Tensor | None = None


class MotionVocabularyMixin(MotionGenerationMixin, StrictLoadingMixin, PreTrainedModel):
    """Put before a causal language model: one over [text | markers | motion codes], with its motion tokenizer inside.

    `motion_values` go in beside `input_ids`: the frozen tokenizer encodes them and the placeholders in `input_ids` are
    replaced by the codes. Text rows stay in the base model's embedding (tied to `lm_head` if the base ties them),
    markers in `marker_embedding`, codes in `motion_codebook`; each serves as input and as output embedding.
    """

    base_model_type: str
    config: Any
    lm_head: nn.Linear
    code_clusters: Tensor | None  # (num_motion_codes,) long; only for the constraint "cluster"
    # A rounded encoder would give other codes, and the columns of a rounded P are not orthonormal. What holds integers
    # (the rows of a sparse P) must not be named: it would become float32 as well.
    _keep_in_fp32_modules_strict = [
        *(f"motion_tokenizer.{part}" for part in ("encoder", "decoder", "codebook")),
        "motion_projection.weight",
    ]
    _keep_in_fp32_modules = _keep_in_fp32_modules_strict  # what quantisation in 8 or 4 bits passes over

    def __init__(self, config: Any):
        super().__init__(config)
        width = config.hidden_size
        self.set_input_embeddings(nn.Embedding(config.text_vocab_size, width))
        self.lm_head = nn.Linear(width, config.text_vocab_size, bias=False)
        self.marker_embedding = nn.Embedding(config.num_markers, width)
        tokenizer_config = cast(MotionTokenizerConfig, config.motion_tokenizer_config)
        num_codes, code_dim = tokenizer_config.num_codes, tokenizer_config.code_dim
        self.motion_codebook = nn.Embedding(num_codes, width if config.projection in _FREE_ROWS else code_dim)
        self.motion_projection = make_projection(config.projection, code_dim, width, config.projection_seed)
        self.register_buffer("motion_embedding_scale", torch.ones(()))
        has_clusters = config.geometric_constraint == "cluster"
        self.register_buffer("code_clusters", torch.zeros(num_codes, dtype=torch.long) if has_clusters else None)
        self.motion_tokenizer = MotionTokenizer(tokenizer_config)
        # Set by callbacks from the global step; a fresh or reloaded model is at its configured weight.
        self.orthonormality_weight_multiplier = 1.0
        self.post_init()
        self._freeze()

    def _freeze(self) -> None:
        self.motion_tokenizer.requires_grad_(False)
        for text in (self.get_input_embeddings(), self.lm_head):  # one weight, unless the base model's are not tied
            text.weight.requires_grad_(not self.config.freeze_text_embeddings)

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """As in `PreTrainedModel`; what training must not change is frozen again (loading makes all trainable).

        Raises:
            ValueError: as `StrictLoadingMixin`, or if a `device_map` offloads more than the layers of the base model.
        """
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        refuse_offloaded(model, model.base_model_prefix)
        model._freeze()
        return loaded

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, (FrozenSparseProjection, LinearProjection, OrthogonalProjection)):
            module.reset_parameters()

    @classmethod
    def from_components(
        cls,
        language_model: str | Path | PreTrainedModel,
        motion_tokenizer: str | Path | MotionTokenizer,
        *,
        projection: str = "sparse",
        projection_seed: int = 0,
        free_rows_start: str = "projected",
        geometric_constraint: str = "orthonormal",
        spectral_form: str = "log_determinant",
        num_code_clusters: int = 8,
        orthonormality_weight: float = 1e-2,
        freeze_text_embeddings: bool = True,
    ):
        """Joins a language model and a motion tokenizer: the codebook becomes the motion embeddings, through P.

        The embedding scale is set so that motion and text embeddings have the same mean norm.

        Args:
            language_model: a causal language model of this class's kind, or its name or path.
            motion_tokenizer: a `MotionTokenizer`, or its name or path.
            projection: "sparse", "linear", "orthogonal", "none" or "dense_random", see `MotionVocabularyConfig`.
            projection_seed: seed of what is drawn: P, free rows, the start of the clusters.
            free_rows_start: of "none": "projected", the rows that "sparse" would have, or "random" ones of their
                length.
            geometric_constraint: what the motion embeddings are held to, see `geometric_loss`.
            spectral_form: of "spectral".
            num_code_clusters: of "cluster": into how many clusters codes fall by the motion that each decodes to.
            orthonormality_weight: lambda'.
            freeze_text_embeddings: False for a base that is not pretrained.

        Returns:
            the model, an instance of this class.

        Raises:
            ValueError: if the base is of another kind or has no head, the codes are wider than its embedding, or a
                geometric option does not exist.
        """
        if free_rows_start not in FREE_ROWS_STARTS:
            raise ValueError(f"free_rows_start is {free_rows_start!r}; use one of {', '.join(FREE_ROWS_STARTS)}.")
        base, tokenizer = _load_components(language_model, motion_tokenizer)
        cls._check_base(base)
        tokenizer_config = copy.deepcopy(tokenizer.config)
        tokenizer_config._name_or_path = ""  # would be saved: a folder of whoever trained it
        config = cls.config_class(
            **{name: getattr(base.config, name) for name in base.config.to_dict() if name not in _NOT_OF_THE_BASE},
            base_model=name_on_hub(base.config._name_or_path),
            text_vocab_size=base.config.vocab_size,
            motion_tokenizer_config=tokenizer_config,
            projection=projection,
            projection_seed=projection_seed,
            geometric_constraint=geometric_constraint,
            spectral_form=spectral_form,
            num_code_clusters=num_code_clusters,
            orthonormality_weight=orthonormality_weight,
            freeze_text_embeddings=freeze_text_embeddings,
        )
        config._attn_implementation = base.config._attn_implementation
        model = cls(config)
        model.base_model.load_state_dict(base.base_model.state_dict())
        model.lm_head.load_state_dict(base.lm_head.state_dict())
        model.motion_tokenizer.load_state_dict(tokenizer.state_dict())
        model._start_motion_embeddings(free_rows_start)
        if model.code_clusters is not None:
            model.code_clusters.copy_(model._cluster_codes())
        return model

    @classmethod
    def _check_base(cls, base: PreTrainedModel) -> None:
        model_type = base.config.model_type
        if isinstance(base, MotionVocabularyMixin):
            raise ValueError(
                f"the language model is a {model_type!r} and has a motion vocabulary already: load it with "
                "`from_pretrained`; `swap_projection` gives it another projection."
            )
        if model_type != cls.base_model_type:
            others = [f"{name} a {kind!r}" for kind, name in _CLASS_OF_BASE.items() if kind != cls.base_model_type]
            fitting = _CLASS_OF_BASE.get(model_type)
            way_out = f"use {fitting}" if fitting else f"{', '.join(others)}"
            raise ValueError(
                f"the language model is a {model_type!r}; {cls.__name__} takes a {cls.base_model_type!r}: {way_out}."
            )
        if base.get_output_embeddings() is None:
            raise ValueError(
                f"the language model is a {type(base).__name__} without a head: load it with `AutoModelForCausalLM`."
            )

    @torch.no_grad()
    def _start_motion_embeddings(self, free_rows_start: str) -> None:
        """C and s of a model that has just been joined.

        Rows are as long as the codes and s does the rest, so that a step of an optimizer moves all kinds alike.
        """
        config, codebook = self.config, self.motion_tokenizer.codebook.weight
        generator = torch.Generator("cpu").manual_seed(config.projection_seed)
        text_norm = self._mean_text_norm()
        rows, row_norm = codebook, codebook.norm(dim=-1).mean()
        if config.projection == "dense_random":
            rows = dense_random_embeddings(codebook, config.hidden_size, row_norm, generator)
        elif config.projection == "none" and free_rows_start == "projected":
            rows = FrozenSparseProjection(codebook.shape[1], config.hidden_size, config.projection_seed)(codebook)
        elif config.projection == "none":
            rows = torch.randn(len(codebook), config.hidden_size, generator=generator).to(codebook.device)
            rows *= row_norm / rows.norm(dim=-1).mean()
        elif config.projection == "linear":
            row_norm = self.motion_projection(codebook).norm(dim=-1).mean()
        self.motion_codebook.weight.copy_(rows)
        self.motion_embedding_scale.copy_(text_norm / row_norm)

    def _mean_text_norm(self) -> Tensor:
        return self.get_input_embeddings().weight.norm(dim=-1).mean()

    @torch.no_grad()
    def _cluster_codes(self) -> Tensor:
        """Clusters of codes by the motion that each decodes to, alone."""
        codes = torch.arange(self.config.num_motion_codes, device=self.motion_tokenizer.device)
        motions = cast(Tensor, self.motion_tokenizer.decode(codes[:, None]).motion_values)
        return cluster_codes(motions.flatten(1), self.config.num_code_clusters, self.config.projection_seed)

    @torch.no_grad()
    def swap_projection(self, projection: str, *, seed: int | None = None) -> None:
        """Gives a trained model another projection, for training to go on with; `config` follows.

        The embeddings E stay as they are where the new projection can express them: "none" always can, "linear" and
        "orthogonal" if E spans no more than code_dim directions (it does behind any projection, and free rows do if
        there are no more codes than code_dim; otherwise the directions of the largest singular values are kept). A
        swap to "sparse" draws P anew and gives every code another embedding, but keeps all lengths and angles; a swap
        to "dense_random" keeps neither. Codebook and projection are new parameters afterwards: make a new optimizer.

        Args:
            projection: one of `PROJECTIONS`.
            seed: of what is drawn ("sparse", "dense_random"); the configured one by default.

        Raises:
            ValueError: for a projection that does not exist, codes too wide for an isometry, a seed for what is not
                drawn, or a model inside PEFT.
        """
        config, code_dim = self.config, self.config.motion_tokenizer_config.code_dim
        if type(self.motion_codebook) is not nn.Embedding:
            raise ValueError("the model has adapters: merge them (`merge_and_unload`), swap, then adapt it again.")
        if seed is not None and projection not in ("sparse", "dense_random"):
            raise ValueError(f"seed is {seed}, but nothing of the projection {projection!r} is drawn; leave it out.")
        if projection == config.projection and seed is None:
            return
        seed = config.projection_seed if seed is None else seed
        old, weight, device = self.motion_projection, self.motion_codebook.weight, self.motion_embedding_scale.device
        new = make_projection(projection, code_dim, config.hidden_size, seed).to(device)
        basis, rows = self._coordinates(code_dim)
        if projection == "none":
            rows = old(weight)
        elif projection == "dense_random":
            generator = torch.Generator("cpu").manual_seed(seed)
            rows = dense_random_embeddings(rows, config.hidden_size, self._mean_text_norm(), generator)
            self.motion_embedding_scale.fill_(1)
        elif isinstance(new, (LinearProjection, OrthogonalProjection)):
            new.start_from(basis)
        rows = rows.to(weight.dtype, copy=True)
        self.motion_codebook = nn.Embedding.from_pretrained(rows, freeze=not weight.requires_grad)
        self.motion_projection = new
        config.projection, config.projection_seed = projection, seed

    def swap_constraint(
        self, constraint: str, *, spectral_form: str | None = None, num_code_clusters: int | None = None
    ) -> None:
        """Holds the motion embeddings of a trained model to another constraint, for training to go on with.

        Args:
            constraint: one of `GEOMETRIC_CONSTRAINTS`.
            spectral_form: of "spectral"; the configured one by default.
            num_code_clusters: of "cluster"; the configured number by default. Codes are clustered anew, by the motion
                that each decodes to.

        Raises:
            ValueError: for what `geometric_loss` does not know, or an option of another constraint; the model is then
                as before.
        """
        config = self.config
        for option, value, owner in (
            ("spectral_form", spectral_form, "spectral"),
            ("num_code_clusters", num_code_clusters, "cluster"),
        ):
            if value is not None and constraint != owner:
                raise ValueError(f"{option} is {value!r}, but the constraint is {constraint!r}; leave it out.")
        form = config.spectral_form if spectral_form is None else spectral_form
        clusters = config.num_code_clusters if num_code_clusters is None else num_code_clusters
        check_geometric_constraint(constraint, form, clusters, config.num_motion_codes)
        config.geometric_constraint, config.spectral_form, config.num_code_clusters = constraint, form, clusters
        device = self.motion_embedding_scale.device
        self.code_clusters = self._cluster_codes().to(device) if constraint == "cluster" else None

    def _coordinates(self, code_dim: int) -> tuple[Tensor, Tensor]:
        """Q (hidden_size, code_dim) with orthonormal columns and C (num_motion_codes, code_dim): E = s C Q^T.

        Of free rows Q has the directions of the largest singular values: E is s C Q^T if it spans no more than those.
        """
        codes, kind = self.motion_codebook.weight.double(), self.config.projection
        if kind in _FREE_ROWS:
            basis = torch.linalg.svd(codes).Vh[:code_dim].T
            # Codes that are wider than the embedding ("linear" alone takes them) have dimensions to spare.
            basis = functional.pad(basis, (0, code_dim - basis.shape[1]))
            return basis, codes @ basis
        matrix = cast(Tensor, self.motion_projection.matrix).double()
        if kind == "linear":
            basis, triangle = torch.linalg.qr(matrix)
            return basis, codes @ triangle.T
        return matrix, codes

    @property
    def motion_embeddings(self) -> Tensor:
        """E = s C P^T, (num_motion_codes, hidden_size)."""
        codes = torch.arange(self.config.num_motion_codes, device=self.motion_embedding_scale.device)
        return self.motion_projection(self.motion_codebook(codes)) * self.motion_embedding_scale

    def geometric_loss(self) -> Tensor:
        """What the configured constraint costs the motion embeddings, unweighted."""
        return geometric_loss(
            self.motion_geometry(),
            self.config.geometric_constraint,
            spectral_form=self.config.spectral_form,
            clusters=self.code_clusters,
        )

    def motion_geometry(self) -> Tensor:
        """The matrix (num_motion_codes, width) that gives E its lengths and angles: what a constraint acts on.

        It is the codebook C where P keeps lengths and angles ("sparse", "orthogonal") and where the rows of C are
        those of E ("none", "dense_random"). A "linear" P changes them: there it is C P^T, and a constraint trains P as
        well.
        """
        codebook = self.motion_codebook.weight
        if self.config.projection != "linear":
            return codebook
        with torch.autocast(codebook.device.type, enabled=False):
            return self.motion_projection(codebook)

    def _motion_vocabulary(self) -> Tensor:
        """Embeddings of the markers and codes, (num_markers + num_motion_codes, hidden_size)."""
        markers = torch.arange(self.config.num_markers, device=self.motion_embedding_scale.device)
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
        text = self.get_input_embeddings()(input_ids.clamp(max=first - 1))
        other = functional.embedding((input_ids - first).clamp(min=0).to(motion_vocabulary.device), motion_vocabulary)
        return torch.where((input_ids >= first).unsqueeze(-1).to(text.device), other.to(text), text)

    @can_return_tuple
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
        """Next-token logits over the joint vocabulary; with labels, L = cross entropy + lambda' ||G - I||_F^2
        (or another geometric constraint in place of ||G - I||_F^2).

        Args:
            input_ids: (batch, length) token ids.
            motion_values: (batch, frames, num_features); its codes replace the placeholders in `input_ids`.
            motion_mask: (batch, frames) bool, True = valid.
            attention_mask: (batch, length).
            position_ids: (batch, length).
            inputs_embeds: (batch, length, hidden_size), instead of `input_ids`.
            labels: (batch, length), -100 where no loss is taken (everything but the answer). Placeholders in them are
                replaced by the codes of the same positions in `input_ids`.
            past_key_values: a `Cache`.
            use_cache: whether to return the cache.
            logits_to_keep: compute logits for the last n positions only (0: all).
            num_items_in_batch: labelled tokens in the whole optimisation step, given by `Trainer`; the regulariser is
                then scaled by this batch's share of them, so that the sum over the micro-batches adds it once.
            skip_logits: score the vocabulary only where `labels` ask for it and return no logits: the same loss for
                less time and memory.

        Raises:
            ValueError: without input or with both, for a motion without `input_ids`, or if logits are to be skipped
                and there are no labels.
        """
        if skip_logits and labels is None:
            raise ValueError("`skip_logits=True` leaves nothing to return without `labels`.")
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either `input_ids` or `inputs_embeds`.")
        if input_ids is None and motion_values is not None:
            raise ValueError("`motion_values` take the place of placeholders: give `input_ids`, not `inputs_embeds`.")
        motion_vocabulary = self._motion_vocabulary()
        if input_ids is not None:
            if motion_values is not None:
                input_ids = self.encode_motion(input_ids, motion_values, motion_mask)
                if labels is not None:
                    labels = torch.where(labels == self.config.motion_placeholder_token_id, input_ids, labels)
            inputs_embeds = self._embed(input_ids, motion_vocabulary)
        outputs = self.base_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        next_tokens = None if labels is None else functional.pad(labels[:, 1:], (0, 1), value=-100)
        if skip_logits and next_tokens is not None:
            labelled = next_tokens != -100
            hidden_states, next_tokens = outputs.last_hidden_state[labelled], next_tokens[labelled]
        else:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            hidden_states = outputs.last_hidden_state[:, kept]
        words = self.lm_head.weight  # on the last of several devices
        logits = self._score(hidden_states.to(words.device), motion_vocabulary.to(words))
        losses = {} if next_tokens is None else self._losses(logits, next_tokens, num_items_in_batch)
        return GeoMotionGPTOutput(
            **losses,
            logits=None if skip_logits else logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _check_no_placeholder(self, input_ids: Tensor) -> None:
        """A placeholder without its motion would be read like a word; training does so, to hide a code."""
        if bool((input_ids == self.config.motion_placeholder_token_id).any()):
            raise ValueError(
                "input_ids have placeholders of a motion, but there is none: give `motion_values` and `motion_mask` "
                "as the processor made them, `model.generate(**inputs)`."
            )

    def _score(self, hidden_states: Tensor, motion_vocabulary: Tensor) -> Tensor:
        """Logits over the joint vocabulary; of text and motion, the smaller things are put side by side."""
        head = self.lm_head
        is_plain = type(head) is nn.Linear and not (head._forward_hooks or head._forward_pre_hooks)
        if not is_plain or hidden_states.shape[:-1].numel() < hidden_states.shape[-1]:  # decoding: few positions
            return torch.cat([self.lm_head(hidden_states), functional.linear(hidden_states, motion_vocabulary)], -1)
        return functional.linear(hidden_states, torch.cat([self.lm_head.weight, motion_vocabulary]))

    def _losses(self, logits: Tensor, targets: Tensor, num_items_in_batch: Tensor | int | None) -> dict[str, Tensor]:
        language_modeling = self.loss_function(
            logits,
            None,
            vocab_size=self.config.vocab_size,
            num_items_in_batch=num_items_in_batch,
            shift_labels=targets,
        )
        orthonormality = self.geometric_loss()
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
        self,
        inputs: Tensor | None = None,
        *,
        motion_values: Tensor | None = None,
        motion_mask: Tensor | None = None,
        constrained: bool = True,
        **kwargs,
    ):
        """`GenerationMixin.generate`, with the motion encoded into the prompt first.

        A `MotionStreamer` as `streamer` gives motion frames as codes arrive; `generate_motion` does the rest.

        Args:
            inputs: (batch, length) prompt ids with placeholders (or `input_ids=`).
            motion_values: (batch, frames, num_features).
            motion_mask: (batch, frames) bool.
            constrained: whether motion codes may come only between `<motion>` and `</motion>`, and text only outside;
                and placeholders only with their motion.
            **kwargs: as in `GenerationMixin.generate`. Where nothing says how long an answer may be, it takes the
                positions that are left, up to `LONGEST_TEXT`.

        Raises:
            ValueError: without a prompt as ids, if prompt and answer may be more than the model has positions, or for
                placeholders without a motion.
        """
        input_ids = kwargs.pop("input_ids", inputs)
        if input_ids is None and constrained:
            raise ValueError(
                "give `input_ids`: a prompt, as the processor makes it. Embeddings alone do not say what is motion; "
                "they need `constrained=False`."
            )
        prompt = kwargs.get("inputs_embeds") if input_ids is None else input_ids
        settings, kwargs = merge_settings(self.generation_config, kwargs)
        bound_answer(settings, 0 if prompt is None else prompt.shape[1], self.config.max_position_embeddings)
        if motion_values is not None:
            input_ids = self.encode_motion(input_ids, motion_values, motion_mask)
        elif input_ids is not None and constrained:
            self._check_no_placeholder(input_ids)
        if constrained:
            kwargs["logits_processor"] = [*self.constraints(), *(kwargs.get("logits_processor") or [])]
        return super().generate(input_ids, generation_config=settings, **kwargs)

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
        save_with_parts(
            self,
            super().save_pretrained,
            save_directory,
            {"motion_tokenizer": self.motion_tokenizer},
            push_to_hub,
            kwargs,
        )


def _load_components(
    language_model: str | Path | PreTrainedModel, motion_tokenizer: str | Path | MotionTokenizer
) -> tuple[PreTrainedModel, MotionTokenizer]:
    if not isinstance(language_model, PreTrainedModel):
        language_model = AutoModelForCausalLM.from_pretrained(language_model)
    tokenizer: Any = motion_tokenizer
    if not isinstance(tokenizer, PreTrainedModel):
        model_type = PreTrainedConfig.get_config_dict(tokenizer)[0].get("model_type")
        loader = MotionTokenizer if model_type == MotionTokenizerConfig.model_type else AutoModel
        tokenizer = loader.from_pretrained(tokenizer)
    if tokenizer.config.model_type == MotionTokenizerConfig.model_type:
        return language_model, tokenizer
    if not hasattr(tokenizer, "to_motion_tokenizer"):
        inside = " (the one in its folder `motion_tokenizer`)" if isinstance(tokenizer, MotionVocabularyMixin) else ""
        raise ValueError(f"the motion tokenizer is a {tokenizer.config.model_type!r}: give a MotionTokenizer{inside}.")
    return language_model, tokenizer.to_motion_tokenizer()  # of another quantiser
