"""Captions of a whole split, or its answers to another question, written as they come."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset as HFDataset
from torch import nn

from ..checkpoints import MotionLanguageModel, MotionProcessor
from ..models.motion_vocabulary import MotionVocabularyMixin
from ..models.task_prompts import get_task
from .resumable import write_rows


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over the names, shapes, types and values of a model's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_captions(
    model: MotionLanguageModel,
    processor: MotionProcessor,
    dataset: HFDataset,
    path: str | Path,
    *,
    task: str = "motion-to-text",
    batch_size: int = 64,
    **generate_kwargs,
) -> list[str] | None:
    """Captions every motion of a split and writes `{"id", "prediction", "references"}`, one JSON object a line.

    Batches depend on the data and `batch_size` alone, so that with as many threads a process the captions do not
    depend on how many processes share them or how often the run was stopped; see `write_rows`.

    Args:
        model: in evaluation mode, on its device.
        processor: of the model.
        dataset: one split, as `load_motion_dataset` returns it.
        path: the JSONL to write. If it is there already, from the same model, data and settings, it is read.
        task: what is asked about the motions: "motion-to-text" or "motion-duration".
        batch_size: motions at a time.
        **generate_kwargs: for `generate`; the model's generation configuration by default.

    Returns:
        the captions, in the order of the split; None in all processes but the first.

    Raises:
        ValueError: for a batch size below 1; if the files there come from another model, other data or other settings;
            or if the processes of a launcher do not see each other.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; caption at least 1 motion at a time.")
    settings = {
        "model": weights_hash(model),
        "processor": processor_hash(processor, task),
        "data": data_hash(dataset),
        "batch_size": batch_size,
        "decoding": {**model.generation_config.to_diff_dict(), **generate_kwargs},
    }

    def make(_: int, batch) -> list[dict[str, Any]]:
        rows = dataset.select(batch)
        captions = _caption(model, processor, rows, task, generate_kwargs)
        pairs = zip(captions, rows["captions"], strict=True)
        return [{"prediction": caption, "references": references} for caption, references in pairs]

    rows = write_rows(
        path,
        dataset["motion_id"],
        length_batches(dataset, batch_size),
        make,
        settings=settings,
        what="captions",
        progress="captioning",
    )
    return None if rows is None else [row["prediction"] for row in rows]


@torch.no_grad()
def _caption(
    model: MotionLanguageModel,
    processor: MotionProcessor,
    rows: HFDataset,
    task: str,
    generate_kwargs: dict[str, Any],
) -> list[str]:
    inputs = processor(motion=list(rows["motion"]), names=rows["motion_id"], task=task).to(model.device)
    generated = model.generate(**inputs, **generate_kwargs)
    return processor.post_process_text(generated, inputs["input_ids"].shape[1])


def length_batches(dataset: HFDataset, batch_size: int) -> list[list[int]]:
    """Rows of similar length, the longest first: what does not fit into memory fails at once."""
    lengths = motion_lengths(dataset)
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def motion_lengths(dataset: HFDataset) -> list[int]:
    """Frames of every motion of a split."""
    return [len(motion) for rows in dataset.select_columns(["motion"]).iter(100) for motion in rows["motion"]]


def data_hash(dataset: HFDataset) -> str:
    """SHA-256 over ids, motions and captions of a split."""
    digest = hashlib.sha256()
    for rows in dataset.select_columns(["motion_id", "motion", "captions"]).iter(100):
        digest.update(json.dumps([rows["motion_id"], rows["captions"]]).encode())
        for motion in rows["motion"]:
            digest.update(np.ascontiguousarray(motion, np.float32).tobytes())
    return digest.hexdigest()


def processor_hash(processor: MotionProcessor, task: str) -> str:
    """SHA-256 over statistics, vocabulary and the prompts of a task."""
    extractor, asked = processor.feature_extractor, get_task(task, processor.tasks)
    parts = [
        extractor.mean,
        extractor.std,
        processor.tokenizer.backend_tokenizer.to_str(),
        [asked.wordings[0], *asked.timed_wordings[:1]],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def decoding_of(model: MotionLanguageModel) -> dict[str, Any]:
    """What the model says about decoding, token ids and bookkeeping left out."""
    settings = {**model.generation_config.to_diff_dict(), **denoising_of(model)}
    return {
        name: value
        for name, value in settings.items()
        if not name.startswith(("_", "output_", "transformers")) and not name.endswith("_token_id")
    }


def denoising_of(model: MotionLanguageModel) -> dict[str, Any]:
    """How a model without motion codes makes motions, unless it is told otherwise."""
    if isinstance(model, MotionVocabularyMixin):
        return {}
    return {name: getattr(model.config, name) for name in model.config.sampling_options}
