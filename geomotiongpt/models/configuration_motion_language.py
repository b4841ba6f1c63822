"""What the configurations of all motion-language models share."""

import re
from pathlib import Path
from typing import ClassVar

from transformers import PreTrainedConfig


class MotionLanguageConfig(PreTrainedConfig):
    """Knows its own kind, its base, and where remote code has its pipelines.

    Args:
        base_model: name on the Hub of the pretrained language model that is in it; None: not known, or random weights.
    """

    # `Trainer.predict` collects the logits alone: which parts a loss has depends on the batch
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        "past_key_values",
        "language_modeling_loss",
        "orthonormality_loss",
        "denoising_loss",
        "exit_loss",
        "length_loss",
        "motion_states",
        "hidden_states_of_motion",
    ]

    base_model: str | None = None

    def __post_init__(self, **kwargs):
        # The installed package registers its pipelines itself; only code loaded from the Hub needs the declaration.
        custom_pipelines = kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)
        if custom_pipelines and type(self).__module__.startswith("transformers_modules"):
            self.custom_pipelines = custom_pipelines

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """As in `PreTrainedConfig`, which would take over another model's configuration with a warning.

        Raises:
            ValueError: if it is the configuration of another kind of model.
        """
        met = config_dict.get("model_type", cls.model_type)
        if met != cls.model_type:
            raise ValueError(
                f"this is the configuration of a {met!r} model, wanted {cls.model_type!r}: a trained motion-language "
                "model is loaded with `AutoModelForCausalLM`, and a plain language model becomes one by "
                "`from_components`."
            )
        return super().from_dict(config_dict, **kwargs)


def name_on_hub(name: str | None) -> str | None:
    """A name by which a model was loaded, if that was from the Hub; None of a folder."""
    is_name = re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name or "") is not None
    return name if is_name and not Path(str(name)).exists() else None
