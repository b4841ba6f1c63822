"""Captions of motions that training has encoded already."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..models.processing_motion_language import MotionLanguageProcessor


def caption_in_batches(
    model: Any,
    processor: MotionLanguageProcessor,
    num_motions: int,
    prepare: Callable[[slice], Mapping[str, Tensor]],
    batch_size: int,
    generate_kwargs: dict[str, Any],
) -> list[str]:
    """Captions of so many motions; the model is left in the mode, training or evaluation, that it was in.

    Args:
        model: a motion-language model, with or without LoRA.
        processor: of the model.
        num_motions: how many there are.
        prepare: what `generate` takes for these rows of them, `input_ids` among it.
        batch_size: motions at a time.
        generate_kwargs: for `generate`; the model's generation configuration by default.
    """
    was_training = model.training
    model.eval()
    captions: list[str] = []
    for start in range(0, num_motions, batch_size):
        inputs = prepare(slice(start, start + batch_size))
        on_device = {name: value.to(model.device) for name, value in inputs.items()}
        generated = model.generate(**on_device, **generate_kwargs)
        captions += processor.post_process_text(generated, inputs["input_ids"].shape[1])
    model.train(was_training)
    return captions
