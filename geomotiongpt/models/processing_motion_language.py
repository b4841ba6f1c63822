"""What the processors of motion-language models share: words and tokens in one row, padding, texts read back."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase, ProcessorMixin
from transformers.utils import ModelOutput

from .task_prompts import MotionTask

PAD_TOKEN = "<motion_pad>"  # many a base has a `<pad>` of its own
START_TOKEN, END_TOKEN = "<motion>", "</motion>"
IN_TOKEN, OUT_TOKEN = "<motion_in>", "<motion_out>"  # slots of motion that is given and that is to be made


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

    @staticmethod
    def _extend_tokenizer(
        tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, motion_tokens: Sequence[str]
    ) -> None:
        """Adds, in place, tokens of motion right after the rows of the base's embedding; padding is the first.

        Raises:
            ValueError: if the tokenizer has more tokens than the base's embedding has rows, or motion tokens already.
        """
        vocabulary = tokenizer.get_vocab()
        known = [token for token in motion_tokens if token in vocabulary]
        if known:
            more = f" and {len(known) - 5} more" if len(known) > 5 else ""
            raise ValueError(
                f"the tokenizer already has {', '.join(known[:5])}{more}, motion tokens of another model: load the "
                "base's."
            )
        rows = config.text_vocab_size
        if len(tokenizer) > rows:
            raise ValueError(f"the tokenizer has {len(tokenizer)} tokens, the base model's embedding {rows} rows.")
        unused = [f"<unused_{index}>" for index in range(len(tokenizer), rows)]
        tokenizer.add_tokens([*unused, *motion_tokens], special_tokens=True)
        if tokenizer.convert_tokens_to_ids(motion_tokens[0]) != rows:
            raise ValueError("the tokenizer already has tokens named like `<unused_0>`: load the base's.")
        tokenizer.pad_token = motion_tokens[0]
        tokenizer.padding_side = "left"
        tokenizer.model_max_length = config.max_position_embeddings

    def _opening(self) -> list[int]:
        """What the base's tokenizer puts before any text, like `<s>`: the base is used to it."""
        plain, whole = self.tokenizer("a", add_special_tokens=False)["input_ids"], self.tokenizer("a")["input_ids"]
        return whole[: whole.index(plain[0])]

    def frames_beside(self, num_new_tokens: int) -> int | None:
        """Frames of the longest motion that fits into a prompt beside a caption of so many tokens; None: any does."""
        return None

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

    def post_process_text(self, generated_ids: torch.Tensor | ModelOutput, prompt_length: int) -> list[str]:
        """Texts of what `generate` returned.

        Args:
            generated_ids: (batch, length), prompts included, or an output that has them as `sequences`.
            prompt_length: width of the prompt's `input_ids`.
        """
        ids = generated_ids if isinstance(generated_ids, torch.Tensor) else generated_ids["sequences"]
        texts = self.tokenizer.batch_decode(ids[:, prompt_length:], skip_special_tokens=True)
        return [text.strip() for text in texts]
