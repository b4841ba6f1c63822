"""Configuration of MotionGPT3."""

from typing import cast

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from .configuration_motion_language import MotionLanguageConfig
from .configuration_motion_vae import MotionVAEConfig

STREAMS = ("dual", "single")
STAGES = ("text-to-motion", "alignment", "joint")


class MotionGPT3Config(MotionLanguageConfig):
    """Configuration of `MotionGPT3ForCausalLM`; the defaults are the paper's (arXiv 2506.24086).

    Token ids are laid out as [text | markers | motion slots]. Text ids are the base model's. The markers, padding and
    the start and end of a motion, go through the text branch; the slots of motions that are given and of motions that
    are to be made, through the motion branch.

    Args:
        text_config: of the base language model; GPT-2 by default.
        motion_vae_config: of the motion VAE inside.
        streams: "dual", the paper's two branches, or "single", its baseline: motion goes through the text weights.
        num_latent_components: principal components of the training motions' latents that language model and head
            see. None, as in the paper: all entries. Where a latent has more entries than the motions have freedom, a
            head narrower than the latent cannot tell its noise, and learns nothing but the spread of the entries.
        num_motion_slots: positions that a motion takes.
        denoising_process: "diffusion" or "rectified_flow", see `DenoisingHead`.
        denoising_hidden_size: width of the denoising head.
        denoising_num_layers: its blocks.
        denoising_num_heads: attention heads where it reads the hidden states of the slots.
        target_repeats: how many times and noises each latent is trained with in a step.
        condition_dropout: how often training replaces the hidden states by the learned null.
        num_denoising_steps: of generation; the process's own number by default.
        denoising_guidance_scale: of generation; 1 is the conditional model.
        has_length_predictor: whether the length predictor has been trained; published models have none.
        language_modeling_weight: of the cross entropy over the answers' text.
        denoising_weight: of the denoising loss.
        length_weight: of the length predictor's loss, the squared error of the logarithm.
        max_motion_frames: longest motion that the language model was trained on; it makes longer ones, as long as the
            VAE's, with a warning. None: as long as those.
        trained_tasks: names of the tasks that it was trained on. None: unknown.
        trained_stage: the last stage of training that it went through, one of `STAGES`. None: none, or unknown.

    Raises:
        ValueError: for streams or a stage that do not exist, more components than a latent has entries, no slots, or
            heads that do not divide the width.
    """

    model_type = "motiongpt3"
    sub_configs = {"text_config": AutoConfig, "motion_vae_config": MotionVAEConfig}

    text_config: dict | PreTrainedConfig | None = None
    motion_vae_config: dict | PreTrainedConfig | None = None
    streams: str = "dual"
    num_latent_components: int | None = None
    num_motion_slots: int = 4
    denoising_process: str = "diffusion"
    denoising_hidden_size: int = 1024
    denoising_num_layers: int = 3
    denoising_num_heads: int = 4
    target_repeats: int = 4
    condition_dropout: float = 0.1
    num_denoising_steps: int | None = None
    denoising_guidance_scale: float = 3.0
    has_length_predictor: bool = True
    language_modeling_weight: float = 1.0
    denoising_weight: float = 1.0
    length_weight: float = 0.1
    max_motion_frames: int | None = None
    trained_tasks: list[str] | None = None
    trained_stage: str | None = None

    def __post_init__(self, **kwargs):
        if self.text_config is None or isinstance(self.text_config, dict):
            values = dict(self.text_config or {})
            kind = values.pop("model_type", "gpt2")
            if kind not in CONFIG_MAPPING:
                raise ValueError(f"text_config is of a {kind!r} model, which transformers does not know.")
            self.text_config = CONFIG_MAPPING[kind](**values)
        self.drop_foreign_padding()
        if self.motion_vae_config is None or isinstance(self.motion_vae_config, dict):
            self.motion_vae_config = MotionVAEConfig(**(self.motion_vae_config or {}))
        super().__post_init__(**kwargs)
        if self.num_motion_slots < 1:
            raise ValueError(f"num_motion_slots is {self.num_motion_slots}; a motion takes 1 or more.")
        if self.hidden_size % self.denoising_num_heads and self.num_motion_slots > 1:
            raise ValueError(
                f"denoising_num_heads is {self.denoising_num_heads}, which does not divide the width of the language "
                f"model, {self.hidden_size}."
            )
        entries = self.vae.num_latent_tokens * self.vae.latent_dim
        if self.num_latent_components is not None and not 1 <= self.num_latent_components <= entries:
            raise ValueError(
                f"num_latent_components is {self.num_latent_components}; a latent of this motion VAE has {entries} "
                "entries, so use 1 to that many, or None for all."
            )
        for name, known in (("streams", STREAMS), ("trained_stage", (*STAGES, None))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; use one of {', '.join(map(str, known))}.")

    def drop_foreign_padding(self) -> None:
        """Takes out of the base's configuration the padding that a `Trainer` writes there: the processor's."""
        base = cast(PreTrainedConfig, self.text_config)
        if (getattr(base, "pad_token_id", None) or 0) >= base.vocab_size:
            base.pad_token_id = None

    @property
    def vae(self) -> MotionVAEConfig:
        """`motion_vae_config`, as what it is."""
        return cast(MotionVAEConfig, self.motion_vae_config)

    @property
    def hidden_size(self) -> int:
        """Width of the language model."""
        return cast(PreTrainedConfig, self.text_config).hidden_size

    @property
    def num_hidden_layers(self) -> int:
        """Layers of the language model."""
        return cast(PreTrainedConfig, self.text_config).num_hidden_layers

    @property
    def max_position_embeddings(self) -> int:
        """Positions of the language model."""
        return cast(PreTrainedConfig, self.text_config).max_position_embeddings

    @property
    def text_vocab_size(self) -> int:
        """Rows of the base model's embedding."""
        return cast(PreTrainedConfig, self.text_config).vocab_size

    @property
    def padding_token_id(self) -> int:
        """Token id of `<pad>`. (`pad_token_id` would have to be an id of the base model.)"""
        return self.text_vocab_size

    @property
    def motion_start_token_id(self) -> int:
        """Token id of `<motion>`."""
        return self.text_vocab_size + 1

    @property
    def motion_end_token_id(self) -> int:
        """Token id of `</motion>`."""
        return self.text_vocab_size + 2

    @property
    def first_slot_token_id(self) -> int:
        """From here on ids are motion's: `<motion_in>`, then `<motion_out>`."""
        return self.text_vocab_size + 3

    @property
    def motion_in_token_id(self) -> int:
        """Token id of `<motion_in>`, a slot of a motion that is given."""
        return self.first_slot_token_id

    @property
    def motion_out_token_id(self) -> int:
        """Token id of `<motion_out>`, a slot of a motion that is to be made."""
        return self.first_slot_token_id + 1

    @property
    def vocab_size(self) -> int:
        """All ids: the width of the logits."""
        return self.first_slot_token_id + 2

    @property
    def max_frames(self) -> int:
        """Frames of the longest motion that it was trained on."""
        return min(self.vae.max_frames, self.max_motion_frames or self.vae.max_frames)
