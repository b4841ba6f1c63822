"""The Hub layer: the files of this folder travel with `push_to_hub`. Importing it registers its Auto classes."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForCausalLM,
    AutoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_geomotiongpt import GeoMotionGPTConfig
from .configuration_motion_text_evaluator import MotionTextEvaluatorConfig
from .configuration_motion_tokenizer import MotionTokenizerConfig
from .configuration_tmr import TMRConfig
from .feature_extraction_motion import MotionFeatureExtractor
from .modeling_geomotiongpt import GeoMotionGPTForCausalLM
from .modeling_motion_text_evaluator import MotionTextEvaluator
from .modeling_motion_tokenizer import MotionTokenizer
from .modeling_tmr import TMRModel
from .pipeline_motion_to_text import MotionToTextPipeline
from .processing_geomotiongpt import GeoMotionGPTProcessor
from .processing_motion_text_evaluator import MotionTextEvaluatorProcessor

AutoConfig.register("motion_tokenizer", MotionTokenizerConfig, exist_ok=True)
AutoConfig.register("geomotiongpt", GeoMotionGPTConfig, exist_ok=True)
AutoConfig.register("motion_text_evaluator", MotionTextEvaluatorConfig, exist_ok=True)
AutoConfig.register("tmr", TMRConfig, exist_ok=True)
AutoModel.register(MotionTokenizerConfig, MotionTokenizer, exist_ok=True)
AutoModel.register(GeoMotionGPTConfig, GeoMotionGPTForCausalLM, exist_ok=True)
AutoModel.register(MotionTextEvaluatorConfig, MotionTextEvaluator, exist_ok=True)
AutoModel.register(TMRConfig, TMRModel, exist_ok=True)
AutoModelForCausalLM.register(GeoMotionGPTConfig, GeoMotionGPTForCausalLM, exist_ok=True)
AutoFeatureExtractor.register(MotionTokenizerConfig, MotionFeatureExtractor, exist_ok=True)
AutoProcessor.register(GeoMotionGPTConfig, GeoMotionGPTProcessor, exist_ok=True)
AutoProcessor.register(MotionTextEvaluatorConfig, MotionTextEvaluatorProcessor, exist_ok=True)
AutoProcessor.register(TMRConfig, MotionTextEvaluatorProcessor, exist_ok=True)
PIPELINE_REGISTRY.register_pipeline(
    "motion-to-text", pipeline_class=MotionToTextPipeline, pt_model=AutoModelForCausalLM, type="multimodal"
)

# What is saved takes its code along, so that it loads where this package is not installed.
for _config_class in (MotionTokenizerConfig, GeoMotionGPTConfig, MotionTextEvaluatorConfig, TMRConfig):
    _config_class.register_for_auto_class()
MotionTokenizer.register_for_auto_class("AutoModel")
MotionTextEvaluator.register_for_auto_class("AutoModel")
TMRModel.register_for_auto_class("AutoModel")
GeoMotionGPTForCausalLM.register_for_auto_class("AutoModelForCausalLM")
MotionFeatureExtractor.register_for_auto_class()
GeoMotionGPTProcessor.register_for_auto_class()
MotionTextEvaluatorProcessor.register_for_auto_class()
