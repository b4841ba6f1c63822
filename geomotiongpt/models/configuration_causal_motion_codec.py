"""Configuration of the causal motion codec."""

from transformers import PreTrainedConfig


class CausalMotionCodecConfig(PreTrainedConfig):
    """Configuration of `CausalMotionCodec`; the defaults are LLaMo's (arXiv 2602.12370), and MotionStreamer's where
    that paper is silent.

    Args:
        num_features: features of a frame.
        latent_dim: width of a latent vector.
        hidden_size: width of the convolutions.
        num_downsampling_layers: halvings of the frame rate between motion and latents (2: one latent for 4 frames).
        num_residual_layers: residual units in each stage.
        dilation_growth_rate: ratio of the dilations of successive residual units (largest first: 9, 3, 1).
        sigma_max: training adds noise to the latents, with a standard deviation that is drawn for each motion, evenly
            between 0 and this.
        root_weight: how much more each feature of the root counts than any other (7: eight times as much). They are
            few, and alone carry where a body goes and turns.
        kl_weight: weight of 0.5 mu^2, mean over the entries of the latents. The paper does not say it.

    Raises:
        ValueError: for a size below 1, or noise or a weight below 0.
    """

    model_type = "causal_motion_codec"

    num_features: int = 272
    latent_dim: int = 32
    hidden_size: int = 1024
    num_downsampling_layers: int = 2
    num_residual_layers: int = 3
    dilation_growth_rate: int = 3
    sigma_max: float = 0.01
    root_weight: float = 7.0
    kl_weight: float = 1e-4

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        for name in ("num_features", "latent_dim", "hidden_size", "dilation_growth_rate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("num_downsampling_layers", "num_residual_layers", "sigma_max", "root_weight", "kl_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative.")

    @property
    def downsampling_factor(self) -> int:
        """Frames in one latent."""
        return 2**self.num_downsampling_layers

    @property
    def num_root_features(self) -> int:
        """Features of the root, which stand first.

        8 of 272 (two velocities and the change of heading as 6 numbers), else 4 as in HumanML3D (yaw, two velocities
        and the height).
        """
        return 8 if self.num_features == 272 else 4
