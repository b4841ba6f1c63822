"""GeoMotionGPT's method on a Llama (the paper's LLaMA-3.2-1B row): one geometry for text and motion tokens."""

from transformers import LlamaForCausalLM

from .configuration_geomotion_llama import GeoMotionLlamaConfig
from .motion_vocabulary import MotionVocabularyMixin


class GeoMotionLlamaForCausalLM(MotionVocabularyMixin, LlamaForCausalLM):
    """Llama over [text | markers | motion codes], with its motion tokenizer inside; see `MotionVocabularyMixin`."""

    config_class = GeoMotionLlamaConfig
    base_model_type = "llama"
    _no_split_modules = ["LlamaDecoderLayer", "MotionTokenizer"]
