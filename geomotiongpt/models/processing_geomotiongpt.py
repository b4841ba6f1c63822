"""Processor of GeoMotionGPT: motions and texts -> the token ids of a task, in training and in generation alike."""

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from transformers import BatchFeature, PreTrainedConfig, PreTrainedTokenizerBase, ProcessorMixin

from .feature_extraction_motion import MotionFeatureExtractor

PAD_TOKEN, START_TOKEN, END_TOKEN, PLACEHOLDER_TOKEN = MARKER_TOKENS = (
    "<pad>",
    "<motion>",
    "</motion>",
    "<motion_placeholder>",
)

# The only place where prompts are written: what stands before and after the motion.
TASK_PROMPTS = {"motion-to-text": ("Describe the motion:", "\nDescription:")}


class GeoMotionGPTProcessor(ProcessorMixin):
    """Joins a `MotionFeatureExtractor` and a text tokenizer that knows the motion vocabulary.

    Args:
        feature_extractor: for motions.
        tokenizer: for texts, with the marker and code tokens added (see `from_components`).
    """

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
            ValueError: if the tokenizer has more tokens than the model's text embedding has rows, or the feature
                extractor and the model disagree on the motion.
        """
        if len(tokenizer) > config.text_vocab_size:
            raise ValueError(
                f"the tokenizer has {len(tokenizer)} tokens, the model's text embedding {config.text_vocab_size} rows."
            )
        motion = config.motion_tokenizer_config
        expected = (motion.num_features, motion.downsampling_factor)
        if (feature_extractor.feature_size, feature_extractor.downsampling_factor) != expected:
            raise ValueError(
                f"the feature extractor makes {feature_extractor.feature_size} features and codes of "
                f"{feature_extractor.downsampling_factor} frames; the motion tokenizer takes {expected}."
            )
        unused = [f"<unused_{index}>" for index in range(len(tokenizer), config.text_vocab_size)]
        codes = [f"<motion_{code}>" for code in range(config.num_motion_codes)]
        tokenizer.add_tokens([*unused, *MARKER_TOKENS, *codes], special_tokens=True)
        tokenizer.pad_token = PAD_TOKEN
        tokenizer.padding_side = "left"
        tokenizer.model_max_length = config.n_positions
        if tokenizer.convert_tokens_to_ids(codes[0]) != config.first_motion_token_id:
            raise ValueError("the tokenizer already has motion tokens of another model; load a fresh one.")
        return cls(feature_extractor, tokenizer)

    def __call__(
        self,
        motion=None,
        text: str | Sequence[str] | None = None,
        *,
        motion_codes: Iterable[Iterable[int]] | None = None,
        task: str = "motion-to-text",
        names: Sequence[str] | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Builds prompts; with `text` (training) the answers and labels too.

        Without `text` the batch is padded on the left, ready for `generate`; with it on the right, and `labels` hold
        the answer and its end-of-sequence token, -100 elsewhere.

        Args:
            motion: one motion or a list, as `MotionFeatureExtractor` takes them.
            text: the answer of each motion (a caption).
            motion_codes: codes computed before, instead of `motion`: a list of sequences of ints, or what the motion
                tokenizer's `encode` gives; -1 is padding and is left out.
            task: "motion-to-text".
            names: what to call the clips in errors.
            return_tensors: "pt" or "np".

        Returns:
            `input_ids`, `attention_mask`, and `motion_values` and `motion_mask` unless `motion_codes` are given;
            `labels` with `text`.

        Raises:
            ValueError: for an unknown task, a code that is not in the codebook, another number of texts than of
                motions, or a clip too long for the model.
        """
        if task not in TASK_PROMPTS:
            raise ValueError(f"unknown task {task!r}; known tasks: {', '.join(TASK_PROMPTS)}.")
        if (motion is None) == (motion_codes is None):
            raise ValueError("give either `motion` or `motion_codes`.")
        inputs: dict = {}
        if motion_codes is not None:
            code_ids = self._code_ids(motion_codes)
        else:
            inputs.update(self.feature_extractor(motion, names=names, return_tensors="np"))
            lengths = inputs["motion_mask"].sum(-1) // self.feature_extractor.downsampling_factor
            placeholder = self.tokenizer.convert_tokens_to_ids(PLACEHOLDER_TOKEN)
            code_ids = [[placeholder] * int(length) for length in lengths]
        prompts = self._prompt_ids(code_ids, task)
        answers = [[] for _ in prompts] if text is None else self._answer_ids(text, len(prompts))
        self._check_lengths(prompts, answers, names)
        inputs.update(self._pad(prompts, answers, with_labels=text is not None))
        return BatchFeature(inputs, tensor_type=return_tensors)

    def save_pretrained(self, save_directory, push_to_hub: bool = False, **kwargs):
        """As in `ProcessorMixin`; the feature extractor also goes beside the motion tokenizer."""
        if push_to_hub:
            raise ValueError(
                "save the processor, then call its `push_to_hub(repo_id)`: that uploads all of its files."
            )
        saved = super().save_pretrained(save_directory, **kwargs)
        self.feature_extractor.save_pretrained(Path(save_directory) / "motion_tokenizer")
        return saved

    def _code_ids(self, motion_codes: Iterable[Iterable[int]]) -> list[list[int]]:
        first = self.tokenizer.convert_tokens_to_ids("<motion_0>")
        num_codes = len(self.tokenizer) - first
        rows = [[int(code) for code in codes if code != -1] for codes in motion_codes]
        for code in chain.from_iterable(rows):
            if not 0 <= code < num_codes:
                raise ValueError(f"motion code {code} is not in the codebook; it has codes 0 to {num_codes - 1}.")
        return [[first + code for code in row] for row in rows]

    def _prompt_ids(self, code_ids: list[list[int]], task: str) -> list[list[int]]:
        before, after = self.tokenizer(list(TASK_PROMPTS[task]), add_special_tokens=False)["input_ids"]
        start, end = self.tokenizer.convert_tokens_to_ids([START_TOKEN, END_TOKEN])
        return [[*before, start, *ids, end, *after] for ids in code_ids]

    def _answer_ids(self, text: str | Sequence[str], count: int) -> list[list[int]]:
        texts = [text] if isinstance(text, str) else list(text)
        if len(texts) != count:
            raise ValueError(f"{len(texts)} texts for {count} motions; give one text a motion.")
        encoded = self.tokenizer([" " + answer.strip() for answer in texts], add_special_tokens=False)["input_ids"]
        return [[*ids, self.tokenizer.eos_token_id] for ids in encoded]

    def _check_lengths(self, prompts: list[list[int]], answers: list[list[int]], names: Sequence[str] | None) -> None:
        limit = self.tokenizer.model_max_length
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            if len(prompt) + len(answer) > limit:
                name = f"motion {row}" if names is None else names[row]
                raise ValueError(
                    f"{name} takes {len(prompt) + len(answer)} tokens, the language model {limit}: cut the motion to "
                    f"fewer than {limit * self.feature_extractor.downsampling_factor} frames."
                )

    def _pad(self, prompts: list[list[int]], answers: list[list[int]], *, with_labels: bool) -> dict[str, np.ndarray]:
        rows = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        width = max(map(len, rows))
        input_ids = np.full((len(rows), width), self.tokenizer.pad_token_id, np.int64)
        attention_mask = np.zeros((len(rows), width), np.int64)
        labels = np.full((len(rows), width), -100, np.int64)
        for index, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
            span = slice(0, len(row)) if with_labels else slice(width - len(row), width)
            input_ids[index, span], attention_mask[index, span] = row, 1
            labels[index, len(prompt) : len(row)] = row[len(prompt) :]
        padded = {"input_ids": input_ids, "attention_mask": attention_mask}
        return {**padded, "labels": labels} if with_labels else padded

    def post_process_text(self, generated_ids: torch.Tensor, prompt_length: int) -> list[str]:
        """Texts of what `generate` returned.

        Args:
            generated_ids: (batch, length), prompts included.
            prompt_length: width of the prompt's `input_ids`.
        """
        texts = self.tokenizer.batch_decode(generated_ids[:, prompt_length:], skip_special_tokens=True)
        return [text.strip() for text in texts]
