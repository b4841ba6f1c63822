"""What the configurations share of language models in which motion is a second, continuous modality."""

from typing import ClassVar, cast

from transformers import CONFIG_MAPPING, PreTrainedConfig

from .configuration_motion_language import MotionLanguageConfig

STREAMS = ("dual", "single")


class ContinuousMotionConfig(MotionLanguageConfig):
    """A language model with a motion branch, and the layout of its token ids: [text | markers | motion slots].

    Text ids are the base model's. The markers are padding and the start and end of a motion; a slot holds the place
    of motion that is given or that is to be made.

    Args:
        text_config: of the base language model; GPT-2 by default.
        streams: "dual", two branches, or "single", the baseline: motion goes through the text weights.
        trained_tasks: names of the tasks that it was trained on. None: unknown.
        trained_stage: the last stage of training that it went through, one of `stages`. None: none, or unknown.

    Raises:
        ValueError: for streams or a stage that do not exist, or a base that transformers does not know.
    """

    stages: ClassVar[tuple[str, ...]] = ()  # of its training, in their order
    sampling_options: ClassVar[tuple[str, ...]] = ()  # its values that say how motion is made

    text_config: dict | PreTrainedConfig | None = None
    streams: str = "dual"
    trained_tasks: list[str] | None = None
    trained_stage: str | None = None

    def __post_init__(self, **kwargs):
        if self.text_config is None or isinstance(self.text_config, dict):
            values = dict(self.text_config or {})
            kind = values.pop("model_type", "gpt2")
            if kind not in CONFIG_MAPPING:
                raise ValueError(f"text_config is of a {kind!r} model, which transformers does not know.")
            self.text_config = CONFIG_MAPPING[kind](**values)
        self.drop_foreign_padding()
        super().__post_init__(**kwargs)
        for name, known in (("streams", STREAMS), ("trained_stage", (*self.stages, None))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; use one of {', '.join(map(str, known))}.")

    def drop_foreign_padding(self) -> None:
        """Takes out of the base's configuration the padding that a `Trainer` writes there: the processor's."""
        base = cast(PreTrainedConfig, self.text_config)
        if (getattr(base, "pad_token_id", None) or 0) >= base.vocab_size:
            base.pad_token_id = None

    @property
    def hidden_size(self) -> int:
        """Width of the language model."""
        return cast(PreTrainedConfig, self.text_config).hidden_size

    @property
    def num_hidden_layers(self) -> int:
        """Layers of the language model."""
        return cast(PreTrainedConfig, self.text_config).num_hidden_layers

    @property
    def max_position_embeddings(self) -> int:
        """Positions of the language model."""
        return cast(PreTrainedConfig, self.text_config).max_position_embeddings

    @property
    def text_vocab_size(self) -> int:
        """Rows of the base model's embedding."""
        return cast(PreTrainedConfig, self.text_config).vocab_size

    @property
    def padding_token_id(self) -> int:
        """Token id of `<motion_pad>`. (`pad_token_id` would have to be an id of the base model.)"""
        return self.text_vocab_size

    @property
    def motion_start_token_id(self) -> int:
        """Token id of `<motion>`."""
        return self.text_vocab_size + 1

    @property
    def motion_end_token_id(self) -> int:
        """Token id of `</motion>`."""
        return self.text_vocab_size + 2

    @property
    def first_slot_token_id(self) -> int:
        """From here on ids are motion's: `<motion_in>`, then `<motion_out>`."""
        return self.text_vocab_size + 3

    @property
    def motion_in_token_id(self) -> int:
        """Token id of `<motion_in>`, a slot of a motion that is given."""
        return self.first_slot_token_id

    @property
    def motion_out_token_id(self) -> int:
        """Token id of `<motion_out>`, a slot of a motion that is to be made."""
        return self.first_slot_token_id + 1

    @property
    def vocab_size(self) -> int:
        """All ids: the width of the logits."""
        return self.first_slot_token_id + 2
