"""Motion-language models whose motion tokens share one geometry with the language model.

Importing the package registers its models with the Auto classes and its pipelines; everything else loads on first use.
"""

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# The Auto classes want the classes themselves, and those want torch. The command answers --help and completes words
# without; it imports these two before a verb runs.
if Path(*sys.argv[:1]).stem != "geomotiongpt":
    from . import baselines as baselines
    from . import models as models

try:
    __version__ = version("geomotiongpt")
except PackageNotFoundError:  # run from a source folder that is not installed
    __version__ = "0.0.0"

_PUBLIC = {
    "models.motion_representation": (
        "joints_to_features",
        "features_to_joints",
        "mirror_joints",
        "mirror_features",
        "get_motion_representation",
    ),
    "models.motion_conversion": ("convert_features", "resample_joints"),
    "models.feature_extraction_motion": ("MotionFeatureExtractor",),
    "models.configuration_motion_tokenizer": ("MotionTokenizerConfig",),
    "models.modeling_motion_tokenizer": ("MotionTokenizer",),
    "models.configuration_motion_vae": ("MotionVAEConfig",),
    "models.modeling_motion_vae": ("MotionVAE",),
    "models.configuration_geomotiongpt": ("GeoMotionGPTConfig",),
    "models.modeling_geomotiongpt": ("GeoMotionGPTForCausalLM",),
    "models.configuration_geomotion_llama": ("GeoMotionLlamaConfig",),
    "models.modeling_geomotion_llama": ("GeoMotionLlamaForCausalLM",),
    "models.configuration_geomotion_qwen3": ("GeoMotionQwen3Config",),
    "models.modeling_geomotion_qwen3": ("GeoMotionQwen3ForCausalLM",),
    "models.processing_geomotiongpt": ("GeoMotionGPTProcessor",),
    "models.configuration_motiongpt3": ("MotionGPT3Config",),
    "models.modeling_motiongpt3": ("MotionGPT3ForCausalLM",),
    "models.processing_motiongpt3": ("MotionGPT3Processor",),
    "models.configuration_causal_motion_codec": ("CausalMotionCodecConfig",),
    "models.modeling_causal_motion_codec": ("CausalMotionCodec",),
    "models.configuration_llamo": ("LLaMoConfig",),
    "models.modeling_llamo": ("LLaMoForCausalLM",),
    "models.processing_llamo": ("LLaMoProcessor",),
    "models.motion_frame_streamer": ("MotionFrameStreamer",),
    "models.denoising_heads": ("DenoisingHead",),
    "models.configuration_motion_text_evaluator": ("MotionTextEvaluatorConfig",),
    "models.modeling_motion_text_evaluator": ("MotionTextEvaluator",),
    "models.configuration_tmr": ("TMRConfig",),
    "models.modeling_tmr": ("TMRModel",),
    "models.processing_motion_text_evaluator": ("MotionTextEvaluatorProcessor",),
    "models.motion_segments": ("caption_segments", "TimedCaption"),
    "models.pipeline_motion_to_text": ("MotionToTextPipeline",),
    "models.pipeline_text_to_motion": ("TextToMotionPipeline",),
    "models.geometry": ("gram_matrix", "orthonormality_loss", "welch_bound"),
    "models.motion_projections": ("FrozenSparseProjection",),
    "models.motion_generation": ("MotionStreamer",),
    "data.builder": ("build_motion_dataset",),
    "data.captioned_files": ("build_from_files",),
    "data.bvh": ("Bvh", "read_bvh", "write_bvh"),
    "data.import_motion": ("ImportedMotion", "ImportReport", "import_motion"),
    "data.loader": ("load_motion_dataset", "load_motion_statistics", "motion_dataset_summary", "push_motion_dataset"),
    "data.synthetic": ("make_synthetic_dataset",),
    "visualization.export": ("export_motion",),
    "training.motion_tokenizer": ("train_motion_tokenizer",),
    "training.language_model": ("train_language_model",),
    "training.evaluator": ("train_evaluator",),
    "training.callbacks": ("OrthonormalLossCallback", "GumbelTemperatureCallback"),
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
