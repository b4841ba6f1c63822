"""Whether the rows of a training run fit into the language model, before it begins."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from datasets import Dataset as HFDataset

from ..models.processing_motion_language import MotionLanguageProcessor
from ..models.task_prompts import MotionTaskExample, get_task
from .arguments import ContinuousTrainingArguments, LanguageModelTrainingArguments


def check_lengths(
    processor: MotionLanguageProcessor,
    args: LanguageModelTrainingArguments | ContinuousTrainingArguments,
    dataset: HFDataset,
    make_example: Callable[[str, int, str, int, bool], Any],
) -> None:
    """Whether the language model has room for every motion with every caption, in each of its tasks.

    Args:
        processor: of the model.
        args: the tasks, and how many wordings of their prompts.
        dataset: a split.
        make_example: the example of a task's name, a row, its caption, a wording, and whether the length is stated.

    Raises:
        ValueError: for a motion that it has no room for, with its name.
    """
    names, captions_of = list(dataset["motion_id"]), list(dataset["captions"])  # a column is read at every access
    for task in (name for name, weight in args.tasks.items() if weight > 0):
        asked = get_task(task, processor.tasks)
        kinds = list(product(range(len(asked.wordings[: args.prompt_wordings])), (False, bool(asked.timed_wordings))))
        first = [make_example(task, 0, captions_of[0][0], *kind) for kind in kinds]
        masks = processor.prepare_examples(first, with_answers=True, names=names[:1] * len(kinds))["attention_mask"]
        longest = kinds[int(masks.sum(-1).argmax())]
        captions = captions_of if asked.answer == "text" or task == "text-to-motion" else [[""]] * len(names)
        rows = [(row, caption) for row, several in enumerate(captions) for caption in several]
        for start in range(0, len(rows), 1000):
            part = rows[start : start + 1000]
            examples = [make_example(task, row, caption, *longest) for row, caption in part]
            processor.prepare_examples(examples, with_answers=True, names=[names[row] for row, _ in part])


def token_example(
    num_tokens: Sequence[int], task: str, row: int, caption: str, wording: int, is_stated: bool
) -> MotionTaskExample:
    """A row of the motion with so many motion tokens, for `check_lengths`: which they are makes no difference."""
    count = num_tokens[row]
    return MotionTaskExample(task, caption, [0] * count, 0, 0, count if is_stated else None, wording)
