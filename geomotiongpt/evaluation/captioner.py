"""Captions of a whole split, written as they come: a killed run goes on, and several processes share the work."""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset as HFDataset
from torch import nn
from tqdm.auto import tqdm

from ..models.modeling_geomotiongpt import GeoMotionGPTForCausalLM
from ..models.processing_geomotiongpt import TASK_PROMPTS, GeoMotionGPTProcessor
from .results import save_json

logger = logging.getLogger(__name__)


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over the names, shapes, types and values of a model's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_captions(
    model: GeoMotionGPTForCausalLM,
    processor: GeoMotionGPTProcessor,
    dataset: HFDataset,
    path: str | Path,
    *,
    batch_size: int = 64,
    **generate_kwargs,
) -> list[str] | None:
    """Captions every motion of a split and writes `{"id", "prediction", "references"}`, one JSON object a line.

    Batches depend on the data and `batch_size` alone, so that with as many threads a process the captions do not
    depend on how many processes share them or how often the run was stopped. Under `accelerate launch` every process
    takes some of the batches. Until all are done they stand in `<path>.<process>.part`; then `path` is written, in the
    order of the split.

    Args:
        model: in evaluation mode, on its device.
        processor: of the model.
        dataset: one split, as `load_motion_dataset` returns it.
        path: the JSONL to write. If it is there already, from the same model, data and settings, it is read.
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
    path, state = Path(path), join_processes()
    settings = {
        "model": weights_hash(model),
        "processor": _processor_hash(processor),
        "data": data_hash(dataset),
        "batch_size": batch_size,
        "decoding": {**model.generation_config.to_diff_dict(), **generate_kwargs},
    }
    ids = dataset["motion_id"]
    if state.is_main_process:
        _claim(path, settings)
    state.wait_for_everyone()
    if path.is_file():
        if state.is_main_process:
            _remove_parts(path)
    else:
        done = _read_parts(path)
        state.wait_for_everyone()  # before anybody writes more
        batches = [batch for batch in _batches(dataset, batch_size) if not all(ids[index] in done for index in batch)]
        if done:
            logger.info("%s: going on after %d of %d motions", path, len(done), len(ids))
        part = path.with_name(f"{path.name}.{state.process_index}.part")
        mine = batches[state.process_index :: state.num_processes]
        with open(part, "a", encoding="utf-8") as file:
            for batch in tqdm(mine, desc="captioning", disable=not state.is_local_main_process):
                captions = _caption(model, processor, dataset.select(batch), generate_kwargs)
                for index, caption in zip(batch, captions, strict=True):
                    file.write(json.dumps({"id": ids[index], "prediction": caption}) + "\n")
                file.flush()
        state.wait_for_everyone()
        if state.is_main_process:
            _join_parts(path, ids, dataset["captions"])
        state.wait_for_everyone()
    if not state.is_main_process:
        return None
    with open(path, encoding="utf-8") as file:
        return [json.loads(line)["prediction"] for line in file]


def join_processes() -> PartialState:
    """The processes of a launcher; each has its own device.

    Raises:
        ValueError: if they do not see each other.
    """
    # Two CPU processes form one world only when asked not to look for an accelerator.
    state = PartialState(cpu=not torch.cuda.is_available())
    expected = int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != expected:
        raise ValueError(
            f"the launcher started {expected} processes, but they see {state.num_processes}: every one would caption "
            "everything. Start with `torchrun` or `accelerate launch --multi_gpu`."
        )
    return state


@torch.no_grad()
def _caption(
    model: GeoMotionGPTForCausalLM, processor: GeoMotionGPTProcessor, rows: HFDataset, generate_kwargs: dict[str, Any]
) -> list[str]:
    inputs = processor(motion=list(rows["motion"]), names=rows["motion_id"]).to(model.device)
    generated = model.generate(**inputs, **generate_kwargs)
    return processor.post_process_text(generated, inputs["input_ids"].shape[1])


def _batches(dataset: HFDataset, batch_size: int) -> list[list[int]]:
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


def _processor_hash(processor: GeoMotionGPTProcessor) -> str:
    """Statistics, vocabulary and prompts."""
    extractor = processor.feature_extractor
    parts = [extractor.mean, extractor.std, processor.tokenizer.backend_tokenizer.to_str(), TASK_PROMPTS]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _claim(path: Path, settings: dict[str, Any]) -> None:
    """Notes whose captions these are, or refuses where others lie."""
    note = path.with_name(f"{path.name}.settings.json")
    if note.is_file():
        found = json.loads(note.read_text(encoding="utf-8"))
        different = [key for key, value in settings.items() if found.get(key) != json.loads(json.dumps(value))]
        if different:
            raise ValueError(
                f"{path}: the captions there were made with another {', '.join(different)}; remove them or name "
                "another output."
            )
    elif path.exists() or list(path.parent.glob(f"{path.name}.*.part")):
        raise ValueError(f"{path}: there are captions of unknown origin; remove them or name another output.")
    else:
        save_json(settings, note)


def _read_parts(path: Path) -> dict[str, str]:
    """Captions of all processes of all runs so far; a line that a kill cut short is cut off."""
    done: dict[str, str] = {}
    for part in sorted(path.parent.glob(f"{path.name}.*.part")):
        raw = part.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if PartialState().is_main_process and len(whole) < len(raw):
            os.truncate(part, len(whole))
        rows = [json.loads(line) for line in whole.decode("utf-8").splitlines()]
        done.update({row["id"]: row["prediction"] for row in rows})
    return done


def _join_parts(path: Path, ids: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    done = _read_parts(path)
    missing = [motion_id for motion_id in ids if motion_id not in done]
    if missing:
        raise ValueError(
            f"{path}: captions of {len(missing)} motions are gone ({missing[0]} ...). Does another run write there?"
        )
    rows = [
        {"id": motion_id, "prediction": done[motion_id], "references": group}
        for motion_id, group in zip(ids, references, strict=True)
    ]
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    _remove_parts(path)


def _remove_parts(path: Path) -> None:
    for part in path.parent.glob(f"{path.name}.*.part"):
        part.unlink()
