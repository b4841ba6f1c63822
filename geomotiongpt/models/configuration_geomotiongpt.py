"""Configuration of GeoMotionGPT: a GPT-2 whose vocabulary is text, a few markers, and motion codes."""

from transformers import GPT2Config

from .configuration_motion_vocabulary import MotionVocabularyConfig


class GeoMotionGPTConfig(MotionVocabularyConfig, GPT2Config):
    """A GPT-2 configuration plus what the motion vocabulary needs, see `MotionVocabularyConfig`."""

    model_type = "geomotiongpt"
