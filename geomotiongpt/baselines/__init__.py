"""What we compare with and do not offer: other quantisers in the trunk of `MotionTokenizer`.

They need the package and `pip install 'geomotiongpt[baselines]'`, and do not travel to the Hub as code. Importing this
package registers them with the Auto classes; the library is imported when a model is made.
"""

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

from ..models.feature_extraction_motion import MotionFeatureExtractor
from .configuration_baselines import (
    FSQMotionTokenizerConfig,
    ResidualVQMotionTokenizerConfig,
    VQMotionTokenizerConfig,
)
from .modeling_baselines import (
    BaselineMotionTokenizer,
    FSQMotionTokenizer,
    ResidualVQMotionTokenizer,
    VQMotionTokenizer,
)

__all__ = [
    "BaselineMotionTokenizer",
    "FSQMotionTokenizer",
    "FSQMotionTokenizerConfig",
    "ResidualVQMotionTokenizer",
    "ResidualVQMotionTokenizerConfig",
    "VQMotionTokenizer",
    "VQMotionTokenizerConfig",
]

for _model_class in (VQMotionTokenizer, ResidualVQMotionTokenizer, FSQMotionTokenizer):
    AutoConfig.register(_model_class.config_class.model_type, _model_class.config_class, exist_ok=True)
    AutoModel.register(_model_class.config_class, _model_class, exist_ok=True)
    AutoFeatureExtractor.register(_model_class.config_class, MotionFeatureExtractor, exist_ok=True)
