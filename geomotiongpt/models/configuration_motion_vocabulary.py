"""What the configuration of a language model gains with a motion vocabulary, whatever its base."""

from typing import cast

from transformers import PreTrainedConfig

from .configuration_motion_language import MotionLanguageConfig
from .configuration_motion_tokenizer import MotionTokenizerConfig
from .geometry import check_geometric_constraint
from .motion_projections import PROJECTIONS


class MotionVocabularyConfig(MotionLanguageConfig):
    """Put before the configuration of a language model, see `MotionVocabularyMixin`.

    Token ids are laid out as [text | markers | motion codes]; `vocab_size`, the width of the logits, counts all three.

    Args:
        text_vocab_size: rows of the text embedding (the base language model's vocabulary).
        num_markers: tokens of the motion vocabulary that are not codes: padding, start and end of motion, and the
            placeholder that the processor writes for each code.
        motion_tokenizer_config: the motion tokenizer inside the model; it fixes the number and width of the codes.
        projection: how codes become embeddings: "sparse" (the paper's frozen isometry P), "linear" (learned),
            "orthogonal" (learned, an isometry for ever), "none" or "dense_random" (each code has an embedding of its
            own; the two differ in what it starts from).
        projection_seed: seed of what is drawn of the projection.
        geometric_constraint: on the motion embeddings, see `geometric_loss`: "orthonormal" (the paper's),
            "decorrelation", "whitening", "spectral", "pairwise_cosine", "cluster" or "none".
        spectral_form: of "spectral": "log_determinant" or "condition_number".
        num_code_clusters: of "cluster": in how many clusters of similar codes the codebook falls.
        orthonormality_weight: lambda', weight of the geometric constraint beside the cross entropy.
        max_motion_codes: codes of the longest motion that the language model was trained on; longer ones are generated
            with a sliding window. None: as many as fit into its positions.
        trained_tasks: names of the tasks that it was trained on, see `task_prompts.TASKS`. None: unknown.
        freeze_text_embeddings: whether the text rows stay as they are (for a pretrained base; a random base must
            train them).

    Raises:
        ValueError: for a projection or constraint that does not exist, or a number of clusters that is not between 1
            and the number of codes.
    """

    sub_configs_defaults = {"motion_tokenizer_config": MotionTokenizerConfig}

    text_vocab_size: int = 50257
    num_markers: int = 4
    motion_tokenizer_config: dict | PreTrainedConfig | None = None
    projection: str = "sparse"
    projection_seed: int = 0
    geometric_constraint: str = "orthonormal"
    spectral_form: str = "log_determinant"
    num_code_clusters: int = 8
    orthonormality_weight: float = 1e-2
    max_motion_codes: int | None = None
    trained_tasks: list[str] | None = None
    freeze_text_embeddings: bool = True

    def __post_init__(self, **kwargs):
        if self.motion_tokenizer_config is None or isinstance(self.motion_tokenizer_config, dict):
            self.motion_tokenizer_config = MotionTokenizerConfig(**(self.motion_tokenizer_config or {}))
        super().__post_init__(**kwargs)
        self.vocab_size = self.text_vocab_size + self.num_markers + self.num_motion_codes
        if self.pad_token_id is None:
            self.pad_token_id = self.text_vocab_size
        if self.projection not in PROJECTIONS:
            raise ValueError(f"projection is {self.projection!r}; use one of {', '.join(PROJECTIONS)}.")
        check_geometric_constraint(
            self.geometric_constraint, self.spectral_form, self.num_code_clusters, self.num_motion_codes
        )

    @property
    def num_motion_codes(self) -> int:
        """K, rows of the motion codebook."""
        return cast(MotionTokenizerConfig, self.motion_tokenizer_config).num_codes

    @property
    def max_frames(self) -> int | None:
        """Frames of the longest motion that it was trained on; None: unknown."""
        codes = self.max_motion_codes
        return codes and codes * cast(MotionTokenizerConfig, self.motion_tokenizer_config).downsampling_factor

    @property
    def first_motion_token_id(self) -> int:
        """Token id of motion code 0."""
        return self.text_vocab_size + self.num_markers

    @property
    def motion_start_token_id(self) -> int:
        """Token id of `<motion>`."""
        return self.text_vocab_size + 1

    @property
    def motion_end_token_id(self) -> int:
        """Token id of `</motion>`."""
        return self.text_vocab_size + 2

    @property
    def motion_placeholder_token_id(self) -> int:
        """Token id that stands for one code of `motion_values` and is replaced by it (the last marker)."""
        return self.first_motion_token_id - 1
