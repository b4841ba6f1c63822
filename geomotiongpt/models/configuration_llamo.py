"""Configuration of LLaMo."""

from typing import cast

from transformers import AutoConfig, PreTrainedConfig

from .configuration_causal_motion_codec import CausalMotionCodecConfig
from .configuration_continuous_motion import ContinuousMotionConfig

STAGES = ("alignment", "joint", "motion")


class LLaMoConfig(ContinuousMotionConfig):
    """Configuration of `LLaMoForCausalLM` (arXiv 2602.12370).

    Token ids are laid out as [text | markers | motion slots]; text ids are the base model's. Padding and the end of a
    motion go through the text branch. The start of a motion, from which its first latent is made, and the latents go
    through the motion branch.

    Args:
        text_config: of the base language model; GPT-2 by default.
        motion_codec_config: of the motion codec inside.
        streams: "dual", two branches, or "single", the control: motion goes through the text weights.
        denoising_hidden_size: width of the flow-matching head.
        denoising_num_layers: its blocks.
        target_repeats: how many times and noises each latent is trained with in a step.
        time_logit_mean: where training draws the flow's times, see `DenoisingHead`. None: uniform.
        num_denoising_steps: Euler steps of generation.
        denoising_guidance_scale: of generation, away from what the prompt without a caption says; 1 is the
            conditional model.
        history_noise: standard deviation of what training adds to the latents that the model has made (in units of
            their spread), against errors that add up.
        random_history_noise: whether it is the most of it, and each row of training draws its own, from 0 to there, as
            in diffusion forcing (arXiv 2407.01392): where the past says little, the caption has to.
        exit_threshold: probability above which a motion ends.
        exit_positive_weight: how much more a last latent counts in the loss of the exit head than another one.
        language_modeling_weight: of the cross entropy over the answers' text.
        denoising_weight: of the flow-matching loss.
        exit_weight: of the exit head's loss.
        max_motion_latents: most latents of a motion that the language model was trained on; longer motions are made
            with a window that slides. None: half as many as there are positions.
        trained_tasks: names of the tasks that it was trained on. None: unknown.
        trained_stage: the last stage of training that it went through, one of `STAGES`. None: none, or unknown.

    Raises:
        ValueError: for streams or a stage that do not exist, or a number that is out of its range.
    """

    model_type = "llamo"
    stages = STAGES
    sampling_options = ("num_denoising_steps", "denoising_guidance_scale")
    sub_configs = {"text_config": AutoConfig, "motion_codec_config": CausalMotionCodecConfig}

    motion_codec_config: dict | PreTrainedConfig | None = None
    denoising_hidden_size: int = 1792
    denoising_num_layers: int = 9
    target_repeats: int = 4
    time_logit_mean: float | None = None
    num_denoising_steps: int = 50
    denoising_guidance_scale: float = 4.0
    history_noise: float = 0.1
    random_history_noise: bool = False
    exit_threshold: float = 0.5
    exit_positive_weight: float = 10.0
    language_modeling_weight: float = 1.0
    denoising_weight: float = 1.0
    exit_weight: float = 1.0
    max_motion_latents: int | None = None

    def __post_init__(self, **kwargs):
        if self.motion_codec_config is None or isinstance(self.motion_codec_config, dict):
            self.motion_codec_config = CausalMotionCodecConfig(**(self.motion_codec_config or {}))
        super().__post_init__(**kwargs)
        for name in ("denoising_hidden_size", "denoising_num_layers", "target_repeats", "num_denoising_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        for name in ("denoising_guidance_scale", "language_modeling_weight", "denoising_weight", "exit_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more.")
        if self.history_noise < 0 or self.exit_positive_weight <= 0 or not 0 < self.exit_threshold < 1:
            raise ValueError(
                f"history_noise is {self.history_noise}, exit_positive_weight {self.exit_positive_weight}, "
                f"exit_threshold {self.exit_threshold}; they must be 0 or more, above 0, and between 0 and 1."
            )
        if self.max_motion_latents is not None and self.max_motion_latents < 2:
            raise ValueError(f"max_motion_latents is {self.max_motion_latents}; motions have 2 or more.")

    @property
    def codec(self) -> CausalMotionCodecConfig:
        """`motion_codec_config`, as what it is."""
        return cast(CausalMotionCodecConfig, self.motion_codec_config)

    @property
    def max_frames(self) -> int | None:
        """Frames of the longest motion that it was trained on; None: unknown."""
        return self.max_motion_latents and self.max_motion_latents * self.codec.downsampling_factor
