"""Configuration of TMR, a motion-text evaluator with transformers (arXiv 2305.00976)."""

from transformers import PreTrainedConfig


class TMRConfig(PreTrainedConfig):
    """Everything the weights of a `TMRModel` need, with the published sizes and loss weights as defaults.

    Args:
        num_features: width of a motion frame (263 for HumanML3D, 251 for KIT-ML).
        embedding_size: E, width of the latent space and of the transformers.
        num_layers: of the motion encoder, the text encoder and the motion decoder.
        num_heads: of their attention.
        feedforward_size: of their layers.
        dropout: of their layers, in training.
        word_dim: width of a word vector.
        num_pos_tags: kinds of part of speech.
        max_frames: longest motion; longer ones are refused.
        temperature: tau of InfoNCE.
        contrastive_weight: lambda_NCE.
        kl_weight: lambda_KL.
        latent_weight: lambda_E, of the distance between the two latents of a pair.
    """

    model_type = "tmr"

    num_features: int = 263
    embedding_size: int = 256
    num_layers: int = 6
    num_heads: int = 4
    feedforward_size: int = 1024
    dropout: float = 0.1
    word_dim: int = 300
    num_pos_tags: int = 15
    max_frames: int = 196
    temperature: float = 0.1
    contrastive_weight: float = 0.1
    kl_weight: float = 1e-5
    latent_weight: float = 1e-5

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.embedding_size % (2 * self.num_heads):
            raise ValueError(
                f"embedding_size is {self.embedding_size}; it must be a multiple of twice the {self.num_heads} heads."
            )
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; it must be positive.")
        if self.max_frames < 1:
            raise ValueError(f"max_frames is {self.max_frames}; it must be at least 1.")

    @property
    def downsampling_factor(self) -> int:
        """Frames in one step of the motion encoder."""
        return 1

    @property
    def similarity(self) -> str:
        """How embeddings are compared: by the cosine of their angle."""
        return "cosine"
