"""Configuration of the motion-text evaluator (the co-embedding of Guo et al., CVPR 2022)."""

from transformers import PreTrainedConfig

NUM_CONTACTS = 4  # the last features of a HumanML3D-style frame, which are not looked at


class MotionTextEvaluatorConfig(PreTrainedConfig):
    """Everything the weights of a `MotionTextEvaluator` need, with the sizes of the official HumanML3D evaluator.

    Args:
        num_features: width of a motion frame, foot contacts included (263 for HumanML3D, 251 for KIT-ML); 272
            have none.
        movement_hidden_size: width of the first convolution.
        movement_size: width of a movement code (4 frames).
        motion_hidden_size: width of the motion GRU, in each direction.
        text_hidden_size: width of the text GRU, in each direction.
        embedding_size: E, width of the common space.
        word_dim: width of a word vector.
        num_pos_tags: kinds of part of speech.
        max_frames: longest motion, a multiple of 4; longer ones are refused.
        dropout: after each convolution, in training.
        reconstruction_weight: of the L1 autoencoder term. Above 0 the model has a movement decoder, used in training
            only; the official evaluators have none.
    """

    model_type = "motion_text_evaluator"

    num_features: int = 263
    movement_hidden_size: int = 512
    movement_size: int = 512
    motion_hidden_size: int = 1024
    text_hidden_size: int = 512
    embedding_size: int = 512
    word_dim: int = 300
    num_pos_tags: int = 15
    max_frames: int = 196
    dropout: float = 0.2
    reconstruction_weight: float = 0.0

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.max_frames < 4 or self.max_frames % 4:
            raise ValueError(f"max_frames is {self.max_frames}; it must be a multiple of 4.")
        if self.reconstruction_weight < 0:
            raise ValueError(f"reconstruction_weight is {self.reconstruction_weight}; it must not be negative.")

    @property
    def downsampling_factor(self) -> int:
        """Frames in one movement code."""
        return 4

    @property
    def similarity(self) -> str:
        """How embeddings are compared: by their Euclidean distance."""
        return "euclidean"

    @property
    def num_motion_features(self) -> int:
        """Features of a frame that are looked at: all but the contacts."""
        return self.num_features if self.num_features == 272 else self.num_features - NUM_CONTACTS
