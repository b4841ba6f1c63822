"""Processor of GeoMotionGPT: motions and texts -> the token ids of a task, in training and in generation alike."""

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
from transformers import BatchFeature, PreTrainedConfig, PreTrainedTokenizerBase

from .feature_extraction_motion import MotionFeatureExtractor
from .motion_representation import get_motion_representation
from .processing_motion_language import END_TOKEN, PAD_TOKEN, START_TOKEN, MotionLanguageProcessor
from .task_prompts import TASKS, MotionTaskExample, get_task, split_prompt, state_duration

PLACEHOLDER_TOKEN = "<motion_placeholder>"
MARKER_TOKENS = (PAD_TOKEN, START_TOKEN, END_TOKEN, PLACEHOLDER_TOKEN)


class GeoMotionGPTProcessor(MotionLanguageProcessor):
    """Joins a `MotionFeatureExtractor` and a text tokenizer that knows the motion vocabulary.

    Args:
        feature_extractor: for motions.
        tokenizer: for texts, with the marker and code tokens added (see `from_components`).
    """

    tasks = TASKS
    _motion_folder = "motion_tokenizer"
    _first_code = "<motion_0>"
    _placeholder = -1  # counted from the first code, the placeholder is the last of the markers

    def __init__(self, feature_extractor: MotionFeatureExtractor, tokenizer: PreTrainedTokenizerBase):
        super().__init__(feature_extractor, tokenizer)

    @classmethod
    def from_components(
        cls, feature_extractor: MotionFeatureExtractor, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig
    ) -> "GeoMotionGPTProcessor":
        """Adds the motion vocabulary of a model to the tokenizer of its base language model.

        Args:
            feature_extractor: with the statistics that the motion tokenizer was trained on.
            tokenizer: of the base language model; it is extended in place.
            config: the `GeoMotionGPTConfig` of the model.

        Raises:
            ValueError: if the tokenizer has more tokens than the base's embedding has rows, or motion tokens already,
                or the feature extractor and the model disagree on the motion.
        """
        motion = config.motion_tokenizer_config
        expected = (motion.num_features, motion.downsampling_factor)
        if (feature_extractor.feature_size, feature_extractor.downsampling_factor) != expected:
            raise ValueError(
                f"the feature extractor makes {feature_extractor.feature_size} features and codes of "
                f"{feature_extractor.downsampling_factor} frames; the motion tokenizer takes {expected}."
            )
        codes = [f"<motion_{code}>" for code in range(config.num_motion_codes)]
        cls._extend_tokenizer(tokenizer, config, [*MARKER_TOKENS, *codes])
        return cls(feature_extractor, tokenizer)

    def __call__(
        self,
        motion=None,
        text: str | Sequence[str] | None = None,
        *,
        motion_codes: Iterable[Iterable[int]] | None = None,
        task: str = "motion-to-text",
        num_frames: int | Sequence[int | None] | None = None,
        names: Sequence[str] | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Builds the prompts of a task; where the answer is given too (training), answers and labels.

        What the task answers with is the answer, if it is given: the text of "motion-to-text", the motion of
        "text-to-motion". Prompts alone are padded on the left, ready for `generate`; with answers the batch is padded
        on the right, and `labels` hold the answer and its end-of-sequence token, -100 elsewhere. Of
        "motion-prediction" the motion is the part that is given. `generate_motion` makes motions for every task,
        "motion-in-between" too, whose given parts this call cannot tell apart.

        Args:
            motion: one motion or a list, as `MotionFeatureExtractor` takes them.
            text: one caption or a list.
            motion_codes: codes computed before, instead of `motion`: a list of sequences of ints, or what the motion
                tokenizer's `encode` gives; -1 is padding and is left out.
            task: one of `task_prompts.TASKS`.
            num_frames: length to ask for, of every motion or of each; the prompt then states it. None: the model
                decides.
            names: what to call the clips in errors.
            return_tensors: "pt" or "np".

        Returns:
            `input_ids`, `attention_mask`, and `motion_values` and `motion_mask` if `motion` is given; `labels` with
            an answer.

        Raises:
            ValueError: for an unknown task, a code that is not in the codebook, a task without what it is about or
                with what it has no use for, another number of texts than of motions, or a clip too long for the model.
        """
        answers_with = get_task(task).answer
        if task == "motion-in-between":
            raise ValueError("motion-in-between: give the parts to `model.generate_motion(..., task=...)`.")
        if motion is not None and motion_codes is not None:
            raise ValueError("give either `motion` or `motion_codes`.")
        texts = [text] if isinstance(text, str) else None if text is None else list(text)
        inputs, codes = self._motion_inputs(motion, motion_codes, names)
        _check_needs(task, has_text=texts is not None, has_motion=codes is not None)
        if texts is not None and codes is not None and len(texts) != len(codes):
            raise ValueError(f"{len(texts)} texts for {len(codes)} motions; give one text a motion.")
        count = len(codes if codes is not None else texts if texts is not None else [None])
        if isinstance(num_frames, Sequence):
            if task == "unconditional":
                count = len(num_frames)
            if len(num_frames) != count:
                raise ValueError(f"{len(num_frames)} lengths for {count} prompts; give one number, or one a prompt.")
        asked = list(num_frames) if isinstance(num_frames, Sequence) else [num_frames] * count
        if answers_with != "motion" and any(asked):
            raise ValueError(f"num_frames is given, but {task!r} answers with {answers_with}.")
        examples = [
            MotionTaskExample(
                task,
                None if texts is None else texts[row],
                () if codes is None else codes[row],
                num_given_start=len(codes[row]) if codes is not None and task == "motion-prediction" else 0,
                num_codes=self.frames_to_codes(asked[row]),
            )
            for row in range(count)
        ]
        with_answers = texts is not None and codes is not None
        inputs.update(self.prepare_examples(examples, with_answers=with_answers, names=names))
        return BatchFeature(inputs, tensor_type=return_tensors)

    def prepare_examples(
        self, examples: Sequence[MotionTaskExample], *, with_answers: bool, names: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Token ids of rows of any tasks, see `__call__`.

        Args:
            examples: the rows; their motion codes are codes, or the token id of the placeholder.
            with_answers: whether the answers follow the prompts, with labels (padded on the right), or not (left).
            names: what to call the rows in errors.

        Returns:
            `input_ids`, `attention_mask` (rows, length) int64, and `labels` with answers.

        Raises:
            ValueError: for an unknown task or a row too long for the model.
        """
        prompts = self._prompt_ids(examples)
        answers = self._answer_ids(examples) if with_answers else [[] for _ in prompts]
        self._check_lengths(prompts, answers, names)
        return self._pad(prompts, answers, with_labels=with_answers)

    def frames_to_codes(self, num_frames: int | None) -> int | None:
        """Codes that are needed for so many frames: the last may be cut.

        Raises:
            ValueError: for fewer frames than 1.
        """
        if num_frames is None:
            return None
        if num_frames < 1:
            raise ValueError(f"num_frames is {num_frames}; ask for at least 1.")
        return -(-num_frames // self.feature_extractor.downsampling_factor)

    def frames_beside(self, num_new_tokens: int) -> int:
        """Frames of the longest motion that fits into a prompt beside a caption of so many tokens, 0 if none does."""
        words = len(self._prompt_ids([MotionTaskExample("motion-to-text")])[0])
        codes = self.tokenizer.model_max_length - words - num_new_tokens
        return max(0, codes) * self.feature_extractor.downsampling_factor

    def codes_to_seconds(self, num_codes: int) -> float:
        """How long so many codes last, in seconds."""
        frames = num_codes * self.feature_extractor.downsampling_factor
        return frames / get_motion_representation(self.feature_extractor.representation).fps

    def _motion_inputs(self, motion, motion_codes, names) -> tuple[dict, list[list[int]] | None]:
        """Features for the model, and for each motion its code ids or as many placeholders."""
        if motion_codes is not None:
            return {}, self._checked_codes(motion_codes)
        if motion is None:
            return {}, None
        inputs = dict(self.feature_extractor(motion, names=names, return_tensors="np"))
        lengths = inputs["motion_mask"].sum(-1) // self.feature_extractor.downsampling_factor
        return inputs, [[self._placeholder] * int(length) for length in lengths]

    def _checked_codes(self, motion_codes: Iterable[Iterable[int]]) -> list[list[int]]:
        num_codes = len(self.tokenizer) - self._first_code_id
        rows = [[int(code) for code in codes if code != -1] for codes in motion_codes]
        for code in chain.from_iterable(rows):
            if not 0 <= code < num_codes:
                raise ValueError(f"motion code {code} is not in the codebook; it has codes 0 to {num_codes - 1}.")
        return rows

    def _way_out(self) -> str:
        return f"cut the motion (a token is {self.feature_extractor.downsampling_factor} frames) or the text."

    @property
    def _first_code_id(self) -> int:
        return self.tokenizer.convert_tokens_to_ids(self._first_code)

    def _prompt_ids(self, examples: Sequence[MotionTaskExample]) -> list[list[int]]:
        """The words of prompts, with what stands before and between them in its place."""
        opening = self._opening()
        start, end = self.tokenizer.convert_tokens_to_ids([START_TOKEN, END_TOKEN])
        first = self._first_code_id
        rows: list[list[int | str]] = []
        for example in examples:
            ids = [first + code for code in example.motion_codes]
            row: list[int | str] = [*opening]
            text = ""
            for kind, piece in split_prompt(example.prompt):
                if kind == "words" or piece in ("text", "duration"):
                    text += piece if kind == "words" else self._field(piece, example)
                    continue
                shown = ids if piece == "motion" else ids[len(ids) - example.num_given_end :]
                row += [text, start, *shown, end]
                text = ""
            row.append(text)
            if get_task(example.task).answer == "motion":
                row += [start, *ids[: example.num_given_start]]
            rows.append(row)
        return self._encode_words(rows)

    def _field(self, name: str, example: MotionTaskExample) -> str:
        if name == "text":
            return str(example.text).strip()
        return state_duration(self.codes_to_seconds(example.num_codes or 0))

    def _answer_ids(self, examples: Sequence[MotionTaskExample]) -> list[list[int]]:
        first, end = self._first_code_id, self.tokenizer.convert_tokens_to_ids(END_TOKEN)
        texts = []
        for example in examples:
            if get_task(example.task).answer == "text":
                texts.append(" " + str(example.text).strip())
            else:
                texts.append(" " + state_duration(self.codes_to_seconds(len(example.motion_codes))))
        encoded = self._encode_words([[text] for text in texts])
        answers = []
        for example, ids in zip(examples, encoded, strict=True):
            if get_task(example.task).answer == "motion":
                stop = len(example.motion_codes) - example.num_given_end
                ids = [*(first + code for code in example.motion_codes[example.num_given_start : stop]), end]
            answers.append([*ids, self.tokenizer.eos_token_id])
        return answers


def _check_needs(task: str, *, has_text: bool, has_motion: bool) -> None:
    """Whether a task got what it is about, and nothing that it has no use for."""
    takes_text = task in ("motion-to-text", "text-to-motion")
    takes_motion = task != "unconditional"
    needs_text, needs_motion = task == "text-to-motion", takes_motion and task != "text-to-motion"
    if needs_motion and not has_motion:
        raise ValueError(f"{task!r} is about a motion: give either `motion` or `motion_codes`.")
    if needs_text and not has_text:
        raise ValueError(f"{task!r} is about a caption: give `text`.")
    if (has_text and not takes_text) or (has_motion and not takes_motion):
        raise ValueError(f"{task!r} has no use for {'`text`' if has_text and not takes_text else 'a motion'}.")
