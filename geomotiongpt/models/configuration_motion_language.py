"""What the configurations of all motion-language models share."""

from transformers import PreTrainedConfig


class MotionLanguageConfig(PreTrainedConfig):
    """Knows its own kind, and where remote code has its pipelines."""

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
