"""Configuration of GeoMotionGPT: a GPT-2 whose vocabulary is text, a few markers, and motion codes."""

from typing import cast

from transformers import GPT2Config, PreTrainedConfig

from .configuration_motion_tokenizer import MotionTokenizerConfig


class GeoMotionGPTConfig(GPT2Config):
    """A GPT-2 configuration plus what the motion vocabulary needs.

    Token ids are laid out as [text | markers | motion codes]; `vocab_size`, the width of the logits, counts all three.

    Args:
        text_vocab_size: rows of the text embedding (the base language model's vocabulary).
        num_markers: tokens of the motion vocabulary that are not codes: padding, start and end of motion, and the
            placeholder that the processor writes for each code.
        motion_tokenizer_config: the motion tokenizer inside the model; it fixes the number and width of the codes.
        projection_seed: seed of the frozen sparse projection P.
        orthonormality_weight: lambda', weight of ||G - I||_F^2 of the motion codebook beside the cross entropy.
        freeze_text_embeddings: whether the text rows stay as they are (for a pretrained base; a random base must
            train them).
    """

    model_type = "geomotiongpt"
    sub_configs_defaults = {"motion_tokenizer_config": MotionTokenizerConfig}

    text_vocab_size: int = 50257
    num_markers: int = 4
    motion_tokenizer_config: dict | PreTrainedConfig | None = None
    projection_seed: int = 0
    orthonormality_weight: float = 1e-2
    freeze_text_embeddings: bool = True

    def __post_init__(self, **kwargs):
        # The installed package registers its pipelines itself; only code loaded from the Hub needs the declaration.
        custom_pipelines = kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)
        if custom_pipelines and type(self).__module__.startswith("transformers_modules"):
            self.custom_pipelines = custom_pipelines
        self.vocab_size = self.text_vocab_size + self.num_markers + self.num_motion_codes
        if self.pad_token_id is None:
            self.pad_token_id = self.text_vocab_size

    @property
    def num_motion_codes(self) -> int:
        """K, rows of the motion codebook."""
        return cast(MotionTokenizerConfig, self.motion_tokenizer_config).num_codes

    @property
    def first_motion_token_id(self) -> int:
        """Token id of motion code 0."""
        return self.text_vocab_size + self.num_markers

    @property
    def motion_placeholder_token_id(self) -> int:
        """Token id that stands for one code of `motion_values` and is replaced by it (the last marker)."""
        return self.first_motion_token_id - 1
