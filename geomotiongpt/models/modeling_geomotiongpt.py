"""GeoMotionGPT (arXiv 2601.07632): a GPT-2 that shares one geometry with its motion tokenizer."""

from transformers import GPT2LMHeadModel

from .configuration_geomotiongpt import GeoMotionGPTConfig
from .motion_vocabulary import MotionVocabularyMixin


class GeoMotionGPTForCausalLM(MotionVocabularyMixin, GPT2LMHeadModel):
    """GPT-2 over [text | markers | motion codes], with its motion tokenizer inside; see `MotionVocabularyMixin`."""

    config_class = GeoMotionGPTConfig
    base_model_type = "gpt2"
    _no_split_modules = ["GPT2Block", "MotionTokenizer"]
