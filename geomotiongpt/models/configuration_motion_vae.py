"""Configuration of the motion VAE."""

from transformers import PreTrainedConfig


class MotionVAEConfig(PreTrainedConfig):
    """Configuration of `MotionVAE`; the defaults are MotionGPT3's for HumanML3D (arXiv 2506.24086).

    Args:
        num_features: features of a frame.
        num_latent_tokens: latent vectors of a motion. The paper has 1, which leaves the decoder's cross-attention
            nothing to choose from: it adds the same vector to all frames, whatever their queries. With 4 a small
            model learned faster, in a single run of each.
        latent_dim: width of a latent vector, and of the transformers.
        num_layers: of the encoder and of the decoder, each; odd: as many before the middle layer as after it.
        num_heads: attention heads.
        intermediate_size: width of the feed-forward layers.
        dropout: on attention weights, in the feed-forward layers and on residual branches.
        log_variance_offset: added to what the encoder says of the log variance. The paper has 0: training starts with
            as much noise as signal in the latents, and needs long to be rid of it.
        max_positions: rows of the learned position tables: frames, and in the encoder the tokens of the distribution.
        reconstruction_weight: of the smooth L1 loss on the features.
        position_weight: of the same on the joint positions among them.
        root_weight: of the same on the root's velocities and height among them; the paper has none.
        kl_weight: of the Kullback-Leibler divergence from the standard normal distribution.

    Raises:
        ValueError: for an even number of layers, a width that the heads do not divide, or too few positions.
    """

    model_type = "motion_vae"

    num_features: int = 263
    num_latent_tokens: int = 1
    latent_dim: int = 256
    num_layers: int = 9
    num_heads: int = 4
    intermediate_size: int = 1024
    dropout: float = 0.1
    log_variance_offset: float = 0.0
    max_positions: int = 500
    reconstruction_weight: float = 1.0
    position_weight: float = 0.5
    root_weight: float = 0.0
    kl_weight: float = 1e-5

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.num_layers < 1 or self.num_layers % 2 == 0:
            raise ValueError(
                f"num_layers is {self.num_layers}; it must be odd: a middle layer, and as many each side."
            )
        if self.latent_dim % self.num_heads:
            raise ValueError(f"latent_dim is {self.latent_dim}; it must be a multiple of num_heads, {self.num_heads}.")
        if self.num_latent_tokens < 1 or self.max_frames < 1:
            raise ValueError(
                f"max_positions is {self.max_positions} with {self.num_latent_tokens} latent tokens; there must be 1 "
                "token or more, and room for their means, variances and a frame."
            )

    @property
    def max_frames(self) -> int:
        """Frames of the longest motion that can be encoded."""
        return self.max_positions - 2 * self.num_latent_tokens

    @property
    def num_joints(self) -> int:
        """Joints J of the skeleton: a HumanML3D-style frame has 12 J - 1 features."""
        return (self.num_features + 1) // 12

    @property
    def num_root_features(self) -> int:
        """Features of the root, which stand first: 8 of 272 (see `streaming_representation`), else 4."""
        return 8 if self.num_features == 272 else 4

    @property
    def position_features(self) -> slice:
        """Where the joint positions stand; in 272 features the root's are among them."""
        joints = self.num_joints if self.num_features == 272 else self.num_joints - 1
        return slice(self.num_root_features, self.num_root_features + 3 * joints)
