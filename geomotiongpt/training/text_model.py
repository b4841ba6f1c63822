"""Pretrains a small language model on captions and prompts alone, where no pretrained one is at hand.

It stands in for the pretrained base of a model that keeps its text branch frozen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset as HFDataset
from torch.utils.data import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase, set_seed

from ..data.documentation import python_documentation, split_documentation
from ..data.training_sets import check_tasks
from ..evaluation.captioner import motion_lengths
from ..models.motion_representation import get_motion_representation
from ..models.task_prompts import (
    LATENT_TASKS,
    LatentTaskExample,
    prompt_words,
    split_prompt,
    state_duration,
    stated_numbers,
)
from .arguments import MotionDataArguments, TextTrainingArguments
from .callbacks import EpochCallback
from .motion_tokenizer import load_split
from .recipes import build_section
from .text_tokenizer import train_text_tokenizer
from .trainer import MotionTrainer, save_whole

_AROUND, _BETWEEN = 32, 4  # tokens beside a caption: for the words of a prompt, for what joins it to another one
_PIECE_CHARACTERS = 400  # of a piece of documentation
TEXT_MODEL = "text"  # the model_type of a recipe


@dataclass
class TextModelArguments:
    """The language model.

    Args:
        model_type (`str`): "text".
        language_model_config (`dict`): values of its configuration; `model_type` is by default "gpt2".
        text_vocab_size (`int`, defaults to 2000): largest vocabulary of its byte-level BPE.
    """

    model_type: str
    language_model_config: dict[str, Any] = field(default_factory=dict)
    text_vocab_size: int = 2000


class PromptTextDataset(Dataset):
    """Captions alone and inside the prompts of tasks, as plain text: where a motion would stand, there is nothing.

    Args:
        captions: of each motion.
        seconds: how long each motion lasts.
        tasks: weight of each task, see `LATENT_TASKS`.
        seed: of the draws; None always draws the same, for evaluation.
        num_wordings: how many wordings of the prompts are drawn from; all by default.
        second_caption_ratio: share of the rows of "text" that have two captions of the motion.
        documentation: other texts, of which pieces are taken.
        documentation_ratio: share of the rows that are such pieces.
    """

    def __init__(
        self,
        captions: Sequence[Sequence[str]],
        seconds: Sequence[float],
        *,
        tasks: Mapping[str, float],
        seed: int | None,
        num_wordings: int | None = None,
        second_caption_ratio: float = 0.0,
        documentation: Sequence[str] = (),
        documentation_ratio: float = 0.0,
    ):
        self.documentation, self.documentation_ratio = list(documentation), documentation_ratio
        self.second_caption_ratio = second_caption_ratio
        self.captions, self.seconds, self.num_wordings = list(captions), list(seconds), num_wordings
        self.seed, self.epoch = seed, 0
        self.tasks, self._task_ends = check_tasks(tasks, LATENT_TASKS)

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer: another epoch draws other texts."""
        self.epoch = int(epoch)

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> str:
        """A text."""
        rng = np.random.default_rng((self.seed or 0, self.epoch if self.seed is not None else 0, index))
        if self.documentation_ratio and rng.random() < self.documentation_ratio:
            text = self.documentation[int(rng.integers(len(self.documentation)))]
            start = int(rng.integers(max(1, len(text) - _PIECE_CHARACTERS)))
            return text[start : start + _PIECE_CHARACTERS]
        name = self.tasks[int(np.searchsorted(self._task_ends, rng.random(), side="right"))]
        task, captions = LATENT_TASKS[name], self.captions[index]
        caption = captions[int(rng.integers(len(captions)))].strip()
        wordings = len(task.wordings[: self.num_wordings])
        is_timed = bool(task.timed_wordings) and rng.random() < 0.5
        example = LatentTaskExample(name, caption, 1 if is_timed else None, int(rng.integers(wordings)))
        fields = {"text": caption, "duration": state_duration(self.seconds[index])}
        pieces = [piece if kind == "words" else fields.get(piece, "") for kind, piece in split_prompt(example.prompt)]
        if name == "text" and rng.random() < self.second_caption_ratio:
            caption = f"{caption}\n {captions[int(rng.integers(len(captions)))].strip()}"
        answers = {"text": " " + caption, "duration": " " + fields["duration"]}
        return "".join(pieces) + answers.get(task.answer, "")


class TextCollator:
    """Texts -> token ids with the end of text, padded on the right, and labels.

    Args:
        tokenizer: of the model.
        max_length: most tokens of a row; what is longer is cut.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int):
        self.tokenizer, self.max_length = tokenizer, max_length

    def __call__(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask`, `labels`, each (batch, length)."""
        end = self.tokenizer.eos_token_id
        encoded = self.tokenizer(list(texts))["input_ids"]
        rows = [torch.tensor([*ids, end][: self.max_length]) for ids in encoded]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end)
        valid = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows]).unsqueeze(-1)
        return {"input_ids": ids, "attention_mask": valid.long(), "labels": ids.masked_fill(~valid, -100)}


def train_text_model(sections: dict[str, dict[str, Any]]) -> Path:
    """Trains a byte-level BPE and a language model on the captions of a data set, and saves both.

    Args:
        sections: of a recipe: `model` (`TextModelArguments`), `data` (`MotionDataArguments`), `training`
            (`TextTrainingArguments`).

    Returns:
        the output folder, which `AutoModelForCausalLM` and `AutoTokenizer` open.

    Raises:
        FileNotFoundError, ValueError: for data or options that cannot be used; nothing is written then.
    """
    idle = [name for name in ("lora", "generation") if sections[name]]
    if idle:
        raise ValueError(f"section {idle[0]!r} has no effect on a text model: take it out.")
    data = build_section(MotionDataArguments, sections["data"], "data")
    model_args = build_section(TextModelArguments, sections["model"], "model")
    resume = sections["training"].pop("resume_from_checkpoint", None)
    args = build_section(TextTrainingArguments, sections["training"], "training")
    set_seed(args.seed)
    sets = [load_split(data, split, 1) for split in (data.train_split, data.eval_split)]
    fps = get_motion_representation(data.representation).fps
    lengths = [motion_lengths(dataset) for dataset in sets]
    numbers = stated_numbers(frames / fps for frames in range(1, max(lengths[0]) + 1))
    prompts = prompt_words(list(args.tasks), args.prompt_wordings, LATENT_TASKS)
    documentation: tuple[list[str], list[str]] = ([], [])
    if args.documentation_ratio:
        documentation = split_documentation(python_documentation())
    captions = [*sets[0]["captions"], documentation[0]] if documentation[0] else sets[0]["captions"]
    tokenizer = train_text_tokenizer(captions, model_args.text_vocab_size, prompts, numbers)
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    values = {**ends, **model_args.language_model_config}
    config = AutoConfig.for_model(values.pop("model_type", "gpt2"), **values, vocab_size=len(tokenizer))
    model = AutoModelForCausalLM.from_config(config)
    model.get_input_embeddings().requires_grad_(not args.frozen_embeddings)
    texts = [
        PromptTextDataset(
            dataset["captions"],
            [frames / fps for frames in counted],
            tasks=args.tasks,
            seed=seed,
            num_wordings=args.prompt_wordings,
            second_caption_ratio=args.second_caption_ratio,
            documentation=documents,
            documentation_ratio=args.documentation_ratio,
        )
        for dataset, counted, documents, seed in zip(sets, lengths, documentation, (args.seed, None), strict=True)
    ]
    _check_captions(sets, tokenizer, model.config.max_position_embeddings, args.second_caption_ratio > 0)
    trainer = MotionTrainer(
        model=model,
        args=args,
        train_dataset=texts[0],
        eval_dataset=texts[1],
        data_collator=TextCollator(tokenizer, model.config.max_position_embeddings),
        processing_class=tokenizer,
        callbacks=[EpochCallback(texts[0])],
        muon_learning_rate=args.muon_learning_rate,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer.finish(lambda trained, folder: save_whole(folder, trained, tokenizer))


def _check_captions(
    sets: Sequence[HFDataset], tokenizer: PreTrainedTokenizerBase, limit: int, second_captions: bool
) -> None:
    """Before a step is taken; the words of a prompt around a caption take tokens too."""
    for dataset in sets:
        for name, captions in zip(dataset["motion_id"], dataset["captions"], strict=True):
            longest = max(map(len, tokenizer(list(captions))["input_ids"]))
            needed = max(longest + _AROUND, 2 * longest + _BETWEEN if second_captions else 0)
            if needed > limit:
                raise ValueError(
                    f"a caption of {name} takes {longest} tokens, and with the prompt or caption beside it {needed} "
                    f"of the {limit} positions of the model: shorten it, or give the model more positions "
                    "(`language_model_config: {n_positions: ...}`)."
                )
