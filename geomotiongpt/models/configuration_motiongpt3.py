"""Configuration of MotionGPT3."""

from typing import cast

from transformers import AutoConfig, PreTrainedConfig

from .configuration_continuous_motion import ContinuousMotionConfig
from .configuration_motion_vae import MotionVAEConfig

STAGES = ("text-to-motion", "alignment", "joint")


class MotionGPT3Config(ContinuousMotionConfig):
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
    stages = STAGES
    sampling_options = ("denoising_process", "num_denoising_steps", "denoising_guidance_scale")
    sub_configs = {"text_config": AutoConfig, "motion_vae_config": MotionVAEConfig}

    motion_vae_config: dict | PreTrainedConfig | None = None
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

    def __post_init__(self, **kwargs):
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

    @property
    def vae(self) -> MotionVAEConfig:
        """`motion_vae_config`, as what it is."""
        return cast(MotionVAEConfig, self.motion_vae_config)

    @property
    def max_frames(self) -> int:
        """Frames of the longest motion that it was trained on."""
        return min(self.vae.max_frames, self.max_motion_frames or self.vae.max_frames)
