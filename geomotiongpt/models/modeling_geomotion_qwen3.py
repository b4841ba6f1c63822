"""GeoMotionGPT's method on a Qwen3 (the paper's Qwen3-0.6B row): one geometry for text and motion tokens."""

from transformers import Qwen3ForCausalLM

from .configuration_geomotion_qwen3 import GeoMotionQwen3Config
from .motion_vocabulary import MotionVocabularyMixin


class GeoMotionQwen3ForCausalLM(MotionVocabularyMixin, Qwen3ForCausalLM):
    """Qwen3 over [text | markers | motion codes], with its motion tokenizer inside; see `MotionVocabularyMixin`."""

    config_class = GeoMotionQwen3Config
    base_model_type = "qwen3"
    _no_split_modules = ["Qwen3DecoderLayer", "MotionTokenizer"]
