"""Configuration of GeoMotionQwen3: a Qwen3 whose vocabulary is text, a few markers, and motion codes."""

from transformers import Qwen3Config

from .configuration_motion_vocabulary import MotionVocabularyConfig


class GeoMotionQwen3Config(MotionVocabularyConfig, Qwen3Config):
    """A Qwen3 configuration plus what the motion vocabulary needs, see `MotionVocabularyConfig`."""

    model_type = "geomotion_qwen3"

    text_vocab_size: int = 151936
