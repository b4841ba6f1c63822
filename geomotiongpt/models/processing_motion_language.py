"""What the processors of motion-language models share: words and tokens in one row, padding, texts read back."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from transformers import ProcessorMixin

from .task_prompts import MotionTask


class MotionLanguageProcessor(ProcessorMixin):
    """A feature extractor for motions beside a text tokenizer that knows the motion tokens of a model."""

    tasks: Mapping[str, MotionTask]  # that it writes prompts for
    _motion_folder: str  # where, beside a saved model, what encodes its motions is saved alone

    def save_pretrained(self, save_directory, push_to_hub: bool = False, **kwargs):
        """As in `ProcessorMixin`; the feature extractor also goes beside what encodes motions."""
        if push_to_hub:
            raise ValueError(
                "save the processor, then call its `push_to_hub(repo_id)`: that uploads all of its files."
            )
        saved = super().save_pretrained(save_directory, **kwargs)
        self.feature_extractor.save_pretrained(Path(save_directory) / self._motion_folder)
        return saved

    def _way_out(self) -> str:
        """What to do about a row that is too long."""
        return "shorten the text."

    def _encode_words(self, rows: Sequence[Sequence[int | str]]) -> list[list[int]]:
        """Rows of words and token ids -> token ids. The words of all rows are tokenized at once."""
        words = dict.fromkeys(piece for row in rows for piece in row if isinstance(piece, str))
        # Words that spell a motion token stay words
        options = {"add_special_tokens": False, "split_special_tokens": True}
        encoded = self.tokenizer(list(words), **options)["input_ids"] if words else []
        tokens = dict(zip(words, encoded, strict=True))
        return [list(chain.from_iterable(tokens[p] if isinstance(p, str) else (p,) for p in row)) for row in rows]

    def _check_lengths(self, prompts: list[list[int]], answers: list[list[int]], names: Sequence[str] | None) -> None:
        limit = self.tokenizer.model_max_length
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            if len(prompt) + len(answer) > limit:
                name = f"motion {row}" if names is None else names[row]
                raise ValueError(
                    f"{name} takes {len(prompt) + len(answer)} tokens with its text, the language model {limit}: "
                    f"{self._way_out()}"
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
