"""Batches for a language model for which a motion is a sequence of latents."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..models.processing_llamo import GIVEN, MADE, LLaMoProcessor
from ..models.task_prompts import MotionTaskExample, get_task


class LatentSequenceCollator:
    """Items of a `MotionCaptionDataset` whose codes are rows of a table -> the padded training batch of the model.

    Args:
        processor: of the model.
        latents: (rows, latent_dim), the latents of all motions.
    """

    def __init__(self, processor: LLaMoProcessor, latents: Tensor):
        self.processor, self.latents = processor, latents

    def __call__(self, items: Sequence[Mapping]) -> dict[str, Tensor]:
        """Pads to the longest of the batch; rows with fewer latents than others are filled with zeros."""
        examples, orders = zip(*(slots_of(item["example"]) for item in items), strict=True)
        prepared = self.processor.prepare_examples(examples, with_answers=True, names=[item["name"] for item in items])
        batch = {name: torch.from_numpy(array) for name, array in prepared.items()}
        if any(orders):
            rows = [self.latents[torch.tensor(order, dtype=torch.long)] for order in orders]
            batch["latents"] = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return batch


def slots_of(example: MotionTaskExample) -> tuple[MotionTaskExample, list[int]]:
    """The example with slots for its codes, and the codes in the order of the slots: end, start, what is made."""
    codes = list(example.motion_codes)
    if get_task(example.task).answer != "motion":
        return replace(example, motion_codes=[GIVEN] * len(codes)), codes
    first, stop = example.num_given_start, len(codes) - example.num_given_end
    kinds = [GIVEN] * first + [MADE] * (stop - first) + [GIVEN] * example.num_given_end
    return replace(example, motion_codes=kinds), [*codes[stop:], *codes[:stop]]
