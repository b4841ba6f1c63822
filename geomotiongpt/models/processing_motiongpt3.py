"""Processor of MotionGPT3: motions and texts -> the token ids of a task, in training and in generation alike."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import BatchFeature, PreTrainedConfig, PreTrainedTokenizerBase

from .feature_extraction_motion import MotionFeatureExtractor
from .motion_representation import get_motion_representation
from .processing_motion_language import (
    END_TOKEN,
    IN_TOKEN,
    OUT_TOKEN,
    PAD_TOKEN,
    START_TOKEN,
    MotionLanguageProcessor,
)
from .task_prompts import LATENT_TASKS, LatentTaskExample, get_task, split_prompt, state_duration

MOTION_TOKENS = (PAD_TOKEN, START_TOKEN, END_TOKEN, IN_TOKEN, OUT_TOKEN)
_TEXT_FIELDS = ("text", "duration")


class MotionGPT3Processor(MotionLanguageProcessor):
    """Joins a `MotionFeatureExtractor` and a text tokenizer that knows the motion tokens.

    Args:
        feature_extractor: for motions.
        tokenizer: for texts, with the motion tokens added (see `from_components`).
        num_motion_slots: positions that a motion takes.
        wordings: of the prompts of tasks, where they are other ones than in `LATENT_TASKS`: those that a converted
            model was trained on. They state no durations.
    """

    tasks = LATENT_TASKS
    _motion_folder = "motion_vae"

    def __init__(
        self,
        feature_extractor: MotionFeatureExtractor,
        tokenizer: PreTrainedTokenizerBase,
        num_motion_slots: int = 4,
        wordings: dict[str, list[str]] | None = None,
    ):
        super().__init__(feature_extractor, tokenizer)
        self.num_motion_slots = num_motion_slots
        self.wordings = wordings

    @classmethod
    def from_components(
        cls,
        feature_extractor: MotionFeatureExtractor,
        tokenizer: PreTrainedTokenizerBase,
        config: PreTrainedConfig,
        *,
        wordings: dict[str, list[str]] | None = None,
    ) -> "MotionGPT3Processor":
        """Adds the motion tokens of a model to the tokenizer of its base language model.

        Args:
            feature_extractor: with the statistics that the motion VAE was trained on.
            tokenizer: of the base language model; it is extended in place.
            config: the `MotionGPT3Config` of the model.
            wordings: of its prompts, if they are its own.

        Raises:
            ValueError: if the tokenizer has more tokens than the base's embedding has rows, or motion tokens already,
                or the feature extractor and the motion VAE disagree on the width of a frame.
        """
        wanted = config.vae.num_features
        if feature_extractor.feature_size != wanted:
            raise ValueError(
                f"the feature extractor makes {feature_extractor.feature_size} features; the VAE takes {wanted}."
            )
        cls._extend_tokenizer(tokenizer, config, MOTION_TOKENS)
        return cls(feature_extractor, tokenizer, config.num_motion_slots, wordings)

    def __call__(
        self,
        motion=None,
        text: str | Sequence[str] | None = None,
        *,
        task: str = "motion-to-text",
        num_frames: int | Sequence[int | None] | None = None,
        names: Sequence[str] | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Builds the prompts of a task; where a text that answers is given too (training), answers and labels.

        Prompts whose answer is text are padded on the left, ready for `generate`; with answers the batch is padded on
        the right, and `labels` hold the answer and its end-of-sequence token, -100 elsewhere. Prompts whose answer is
        a motion end with its slots; `generate_motion` fills them.

        Args:
            motion: one motion or a list, as `MotionFeatureExtractor` takes them: what the prompt shows.
            text: one caption or a list.
            task: one of `task_prompts.LATENT_TASKS` but "motion-in-between", whose parts go to `generate_motion`.
            num_frames: length to ask for, of every motion or of each; the prompt then states it.
            names: what to call the clips in errors.
            return_tensors: "pt" or "np".

        Returns:
            `input_ids`, `attention_mask`, and `motion_values` and `motion_mask` if `motion` is given; `labels` with
            answers.

        Raises:
            ValueError: for an unknown task, one without what it is about or with what it has no use for, another
                number of texts than of motions, or a prompt too long for the model.
        """
        asked = get_task(task, LATENT_TASKS)
        if task == "motion-in-between":
            raise ValueError("motion-in-between: give the parts to `model.generate_motion(..., task=...)`.")
        texts = [text] if isinstance(text, str) else None if text is None else list(text)
        wrong = [row for row in texts or [] if not isinstance(row, str)]
        if wrong or texts == []:
            raise ValueError(f"text is {wrong[0] if wrong else texts!r}; give a caption or a list of captions.")
        inputs = {}
        if motion is not None:
            inputs = dict(self.feature_extractor(motion, names=names, return_tensors="np"))
        _check_needs(task, has_text=texts is not None, has_motion=motion is not None)
        sizes = [len(rows) for rows in (inputs.get("motion_values"), texts) if rows is not None]
        if len(set(sizes)) > 1:
            raise ValueError(f"{sizes[1]} texts for {sizes[0]} motions; give one text a motion.")
        if isinstance(num_frames, Sequence):
            sizes = sizes or [len(num_frames)]
            if len(num_frames) != sizes[0]:
                raise ValueError(
                    f"{len(num_frames)} lengths for {sizes[0]} prompts; give one number, or one a prompt."
                )
        count = sizes[0] if sizes else 1
        lengths = list(num_frames) if isinstance(num_frames, Sequence) else [num_frames] * count
        if asked.answer != "motion" and any(lengths):
            raise ValueError(f"num_frames is {num_frames}, but {task!r} answers with {asked.answer}.")
        examples = [
            LatentTaskExample(task, None if texts is None else texts[row], lengths[row]) for row in range(count)
        ]
        with_answers = asked.answer == "motion" or (asked.answer == "text" and texts is not None)
        prepared = self.prepare_examples(examples, with_answers=with_answers, names=names)
        if asked.answer == "motion":
            del prepared["labels"]
        return BatchFeature({**inputs, **prepared}, tensor_type=return_tensors)

    def prepare_examples(
        self, examples: Sequence[LatentTaskExample], *, with_answers: bool, names: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Token ids of rows of any tasks, see `__call__`.

        Args:
            examples: the rows.
            with_answers: whether the answers follow the prompts, with labels (padded on the right), or not (left).
            names: what to call the rows in errors.

        Returns:
            `input_ids`, `attention_mask` (rows, length) int64, and `labels` with answers: of a motion the token that
            starts it and the end of the sequence, which are text.

        Raises:
            ValueError: for an unknown task, a length below 1, or a row too long for the model.
        """
        opening = self._opening()
        prompts = self._encode_words([[*opening, *self._prompt(example)] for example in examples])
        answers: list[list[int]] = [[] for _ in prompts]
        if with_answers:
            answers = self._encode_words([self._answer(example) for example in examples])
        self._check_lengths(prompts, answers, names)
        padded = self._pad(prompts, answers, with_labels=with_answers)
        if with_answers:
            start, end, slot = self.tokenizer.convert_tokens_to_ids([START_TOKEN, END_TOKEN, OUT_TOKEN])
            is_slot = padded["input_ids"] == slot
            follows = np.roll(is_slot, 1, axis=1) & (padded["input_ids"] == end)
            padded["labels"][is_slot | follows] = -100
        return padded

    def prepare_prompts(self, task: str, count: int) -> dict[str, torch.Tensor]:
        """The same prompt many times, without an answer, for motions that are latents already.

        Args:
            task: one whose answer is text.
            count: how many.
        """
        prepared = self.prepare_examples([LatentTaskExample(task)] * count, with_answers=False)
        return {name: torch.from_numpy(array) for name, array in prepared.items()}

    def post_process_text(self, generated_ids: torch.Tensor, prompt_length: int) -> list[str]:
        """As in `MotionLanguageProcessor`; a model with wordings of its own may answer in quotation marks."""
        texts = super().post_process_text(generated_ids, prompt_length)
        return [text.strip('" ') for text in texts] if self.wordings else texts

    def frames_to_seconds(self, num_frames: int) -> float:
        """How long so many frames last.

        Raises:
            ValueError: for fewer frames than 1.
        """
        if num_frames < 1:
            raise ValueError(f"num_frames is {num_frames}; ask for at least 1.")
        return num_frames / get_motion_representation(self.feature_extractor.representation).fps

    def _prompt(self, example: LatentTaskExample) -> list[int | str]:
        row: list[int | str] = []
        text = ""
        own = (self.wordings or {}).get(example.task)
        for kind, piece in split_prompt(own[example.wording % len(own)] if own else example.prompt):
            if kind == "words":
                text += piece
            elif piece in _TEXT_FIELDS:
                text += self._field(piece, example)
            else:
                row += [text, *self._slots(IN_TOKEN)]
                text = ""
        return [*row, text]

    def _answer(self, example: LatentTaskExample) -> list[int | str]:
        kind = get_task(example.task, LATENT_TASKS).answer
        if kind == "text":
            _check_caption(example)
        end: int = self.tokenizer.eos_token_id
        if kind == "motion":
            return [*self._slots(OUT_TOKEN), end]
        if kind == "duration":
            return [" " + state_duration(self.frames_to_seconds(example.num_frames or 0)), end]
        return [" " + str(example.text).strip(), end]

    def _slots(self, token: str) -> list[int]:
        """`<motion>`, the slots of one motion, `</motion>`."""
        start, end, slot = self.tokenizer.convert_tokens_to_ids([START_TOKEN, END_TOKEN, token])
        return [start, *[slot] * self.num_motion_slots, end]

    def _field(self, name: str, example: LatentTaskExample) -> str:
        if name == "text":
            _check_caption(example)
            return str(example.text).strip()
        return state_duration(self.frames_to_seconds(example.num_frames or 0))


def _check_caption(example: LatentTaskExample) -> None:
    if example.text is None:
        raise ValueError(f"an example of {example.task!r} has no text: give its caption.")


def _check_needs(task: str, *, has_text: bool, has_motion: bool) -> None:
    """Whether a task got what it is about, and nothing that it has no use for."""
    takes_text = task in ("motion-to-text", "text-to-motion", "text")
    takes_motion = task in ("motion-to-text", "motion-prediction", "motion-duration")
    if takes_motion and not has_motion:
        raise ValueError(f"{task!r} is about a motion: give `motion`.")
    if task in ("text-to-motion", "text") and not has_text:
        raise ValueError(f"{task!r} is about a caption: give `text`.")
    if (has_text and not takes_text) or (has_motion and not takes_motion):
        raise ValueError(f"{task!r} has no use for {'`text`' if has_text and not takes_text else 'a motion'}.")
