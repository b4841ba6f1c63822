"""Processor of LLaMo: motions and texts -> the token ids of a task, in training and in generation alike."""

from collections.abc import Sequence

import numpy as np
from transformers import BatchFeature, PreTrainedConfig, PreTrainedTokenizerBase

from .feature_extraction_motion import MotionFeatureExtractor
from .processing_geomotiongpt import GeoMotionGPTProcessor
from .processing_motion_language import END_TOKEN, IN_TOKEN, OUT_TOKEN, PAD_TOKEN, START_TOKEN
from .task_prompts import MotionTaskExample, get_task

# What stands for a latent in the `motion_codes` of an example
GIVEN, MADE = 0, 1
MOTION_TOKENS = (PAD_TOKEN, START_TOKEN, END_TOKEN, IN_TOKEN, OUT_TOKEN)


class LLaMoProcessor(GeoMotionGPTProcessor):
    """Joins a `MotionFeatureExtractor` and a text tokenizer that knows the motion tokens.

    Prompts are those of `GeoMotionGPTProcessor`; where it has codes, there is a slot for each latent: `<motion_in>`
    for one that is given, `<motion_out>` for one that is to be made.

    Args:
        feature_extractor: for motions.
        tokenizer: for texts, with the motion tokens added (see `from_components`).
    """

    _motion_folder = "motion_codec"
    _first_code = IN_TOKEN
    _placeholder = GIVEN

    @classmethod
    def from_components(
        cls, feature_extractor: MotionFeatureExtractor, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig
    ) -> "LLaMoProcessor":
        """Adds the motion tokens of a model to the tokenizer of its base language model.

        Args:
            feature_extractor: with the statistics that the motion codec was trained on.
            tokenizer: of the base language model; it is extended in place, and keeps its chat template.
            config: the `LLaMoConfig` of the model.

        Raises:
            ValueError: if the tokenizer has more tokens than the base's embedding has rows, or motion tokens already,
                or the feature extractor and the motion codec disagree on the motion.
        """
        check_feature_extractor(feature_extractor, config.codec)
        cls._extend_tokenizer(tokenizer, config, MOTION_TOKENS)
        return cls(feature_extractor, tokenizer)

    def __call__(  # type: ignore[override]
        self,
        motion=None,
        text: str | Sequence[str] | None = None,
        *,
        task: str = "motion-to-text",
        num_frames: int | Sequence[int | None] | None = None,
        names: Sequence[str] | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Builds the prompts of a task; of "motion-to-text" with a text, answers and labels too (training).

        Prompts alone are padded on the left, ready for `generate`; with answers the batch is padded on the right, and
        `labels` hold the answer and its end-of-sequence token, -100 elsewhere. `generate_motion` makes motions.

        Args:
            motion: one motion or a list, as `MotionFeatureExtractor` takes them: what the prompt shows.
            text: one caption or a list.
            task: one of `task_prompts.TASKS` but "motion-in-between", whose parts go to `generate_motion`.
            num_frames: length to ask for, of every motion or of each; the prompt then states it.
            names: what to call the clips in errors.
            return_tensors: "pt" or "np".

        Returns:
            `input_ids`, `attention_mask`, and `motion_values` and `motion_mask` if `motion` is given; `labels` with an
            answer.

        Raises:
            ValueError: for an unknown task, a task without what it is about or with what it has no use for, another
                number of texts than of motions, an empty text, or a clip too long for the model.
        """
        if task == "text-to-motion" and motion is not None:
            raise ValueError("'text-to-motion' has no use for a motion.")
        texts = [text] if isinstance(text, str) else list(text or ())
        empty = [row for row, words in enumerate(texts) if not words.strip()]
        if empty:
            raise ValueError(f"text {empty[0]} is empty: give a caption, or use the task 'unconditional'.")
        return super().__call__(
            motion, text, task=task, num_frames=num_frames, names=names, return_tensors=return_tensors
        )

    def apply_chat_template(self, conversation, **kwargs):  # type: ignore[override]
        """That of the base's tokenizer: conversations in text, for `generate`.

        Args:
            conversation: messages, or a list of such lists, as the tokenizer takes them.
            **kwargs: as in the tokenizer's `apply_chat_template`.
        """
        return self.tokenizer.apply_chat_template(conversation, **kwargs)

    def prepare_examples(
        self, examples: Sequence[MotionTaskExample], *, with_answers: bool, names: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """As in `GeoMotionGPTProcessor`; the motion codes of examples are `GIVEN` and `MADE`, one for each latent.

        The latents of a row stand in the order of its slots: what the prompt shows, the start, what is to be made.
        """
        prepared = super().prepare_examples(examples, with_answers=with_answers, names=names)
        if with_answers:  # an answer that is motion has no labels: its heads say what comes next
            made = [get_task(example.task).answer == "motion" for example in examples]
            prepared["labels"][np.array(made)] = -100
        return prepared


def check_feature_extractor(feature_extractor: MotionFeatureExtractor, codec: PreTrainedConfig) -> None:
    """Whether a feature extractor makes what a motion codec takes.

    Raises:
        ValueError: if they disagree on the features, or on the frames of a latent.
    """
    expected = (codec.num_features, codec.downsampling_factor)
    if (feature_extractor.feature_size, feature_extractor.downsampling_factor) != expected:
        raise ValueError(
            f"the feature extractor makes {feature_extractor.feature_size} features and latents of "
            f"{feature_extractor.downsampling_factor} frames; the motion codec takes {expected}."
        )
