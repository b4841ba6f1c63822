"""The Hub layer: the files of this folder travel with `push_to_hub`. Importing it registers its Auto classes."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForCausalLM,
    AutoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_causal_motion_codec import CausalMotionCodecConfig
from .configuration_geomotion_llama import GeoMotionLlamaConfig
from .configuration_geomotion_qwen3 import GeoMotionQwen3Config
from .configuration_geomotiongpt import GeoMotionGPTConfig
from .configuration_llamo import LLaMoConfig
from .configuration_motion_text_evaluator import MotionTextEvaluatorConfig
from .configuration_motion_tokenizer import MotionTokenizerConfig
from .configuration_motion_vae import MotionVAEConfig
from .configuration_motiongpt3 import MotionGPT3Config
from .configuration_tmr import TMRConfig
from .feature_extraction_motion import MotionFeatureExtractor
from .modeling_causal_motion_codec import CausalMotionCodec
from .modeling_geomotion_llama import GeoMotionLlamaForCausalLM
from .modeling_geomotion_qwen3 import GeoMotionQwen3ForCausalLM
from .modeling_geomotiongpt import GeoMotionGPTForCausalLM
from .modeling_llamo import LLaMoForCausalLM
from .modeling_motion_text_evaluator import MotionTextEvaluator
from .modeling_motion_tokenizer import MotionTokenizer
from .modeling_motion_vae import MotionVAE
from .modeling_motiongpt3 import MotionGPT3ForCausalLM
from .modeling_tmr import TMRModel
from .pipeline_motion_to_text import MotionToTextPipeline
from .pipeline_text_to_motion import TextToMotionPipeline
from .processing_geomotiongpt import GeoMotionGPTProcessor
from .processing_llamo import LLaMoProcessor
from .processing_motion_text_evaluator import MotionTextEvaluatorProcessor
from .processing_motiongpt3 import MotionGPT3Processor

_LANGUAGE_MODELS = (
    (GeoMotionGPTConfig, GeoMotionGPTForCausalLM, GeoMotionGPTProcessor),
    (GeoMotionLlamaConfig, GeoMotionLlamaForCausalLM, GeoMotionGPTProcessor),
    (GeoMotionQwen3Config, GeoMotionQwen3ForCausalLM, GeoMotionGPTProcessor),
    (MotionGPT3Config, MotionGPT3ForCausalLM, MotionGPT3Processor),
    (LLaMoConfig, LLaMoForCausalLM, LLaMoProcessor),
)

AutoConfig.register("motion_tokenizer", MotionTokenizerConfig, exist_ok=True)
AutoConfig.register("motion_vae", MotionVAEConfig, exist_ok=True)
AutoConfig.register("causal_motion_codec", CausalMotionCodecConfig, exist_ok=True)
AutoConfig.register("motion_text_evaluator", MotionTextEvaluatorConfig, exist_ok=True)
AutoConfig.register("tmr", TMRConfig, exist_ok=True)
AutoModel.register(MotionTokenizerConfig, MotionTokenizer, exist_ok=True)
AutoModel.register(MotionVAEConfig, MotionVAE, exist_ok=True)
AutoModel.register(CausalMotionCodecConfig, CausalMotionCodec, exist_ok=True)
AutoModel.register(MotionTextEvaluatorConfig, MotionTextEvaluator, exist_ok=True)
AutoModel.register(TMRConfig, TMRModel, exist_ok=True)
AutoFeatureExtractor.register(MotionTokenizerConfig, MotionFeatureExtractor, exist_ok=True)
AutoFeatureExtractor.register(MotionVAEConfig, MotionFeatureExtractor, exist_ok=True)
AutoFeatureExtractor.register(CausalMotionCodecConfig, MotionFeatureExtractor, exist_ok=True)
AutoProcessor.register(MotionTextEvaluatorConfig, MotionTextEvaluatorProcessor, exist_ok=True)
AutoProcessor.register(TMRConfig, MotionTextEvaluatorProcessor, exist_ok=True)
for _config_class, _model_class, _processor_class in _LANGUAGE_MODELS:
    AutoConfig.register(_config_class.model_type, _config_class, exist_ok=True)
    AutoModel.register(_config_class, _model_class, exist_ok=True)
    AutoModelForCausalLM.register(_config_class, _model_class, exist_ok=True)
    AutoProcessor.register(_config_class, _processor_class, exist_ok=True)
PIPELINE_REGISTRY.register_pipeline(
    "motion-to-text", pipeline_class=MotionToTextPipeline, pt_model=AutoModelForCausalLM, type="multimodal"
)
PIPELINE_REGISTRY.register_pipeline(
    "text-to-motion", pipeline_class=TextToMotionPipeline, pt_model=AutoModelForCausalLM, type="multimodal"
)

# What is saved takes its code along, so that it loads where this package is not installed.
for _config_class, _model_class, _processor_class in _LANGUAGE_MODELS:
    _processor_class.register_for_auto_class()
    _config_class.register_for_auto_class()
    _model_class.register_for_auto_class("AutoModelForCausalLM")
MotionTokenizerConfig.register_for_auto_class()
MotionVAEConfig.register_for_auto_class()
CausalMotionCodecConfig.register_for_auto_class()
MotionTextEvaluatorConfig.register_for_auto_class()
TMRConfig.register_for_auto_class()
MotionTokenizer.register_for_auto_class("AutoModel")
MotionVAE.register_for_auto_class("AutoModel")
CausalMotionCodec.register_for_auto_class("AutoModel")
MotionTextEvaluator.register_for_auto_class("AutoModel")
TMRModel.register_for_auto_class("AutoModel")
MotionFeatureExtractor.register_for_auto_class()
MotionTextEvaluatorProcessor.register_for_auto_class()
