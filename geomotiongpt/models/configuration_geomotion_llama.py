"""Configuration of GeoMotionLlama: a Llama whose vocabulary is text, a few markers, and motion codes."""

from transformers import LlamaConfig

from .configuration_motion_vocabulary import MotionVocabularyConfig


class GeoMotionLlamaConfig(MotionVocabularyConfig, LlamaConfig):
    """A Llama configuration plus what the motion vocabulary needs, see `MotionVocabularyConfig`."""

    model_type = "geomotion_llama"

    text_vocab_size: int = 128256
