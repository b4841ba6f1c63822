"""Rows of a JSONL file, written as they come: a killed run goes on, and several processes share the work."""

import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from tqdm.auto import tqdm

from .results import save_json

logger = logging.getLogger(__name__)

Row = dict[str, Any]


def write_rows(
    path: str | Path,
    ids: Sequence[str],
    batches: Sequence[Sequence[int]],
    make: Callable[[int, Sequence[int]], Sequence[Row]],
    *,
    settings: dict[str, Any],
    what: str,
    progress: str,
) -> list[Row] | None:
    """Makes a row for every id, batch by batch, and writes them as JSON, one object a line, in the order of the ids.

    Under the launcher of `accelerate` every process makes some of the batches. Until all are done the rows stand in
    `<path>.<process>.part`; then `path` is written. If it is there already, with the same settings, it is read.

    Args:
        path: the JSONL to write.
        ids: of the rows, each once.
        batches: which rows are made at a time.
        make: takes the number of a batch and its rows, and gives their objects, without their ids. What it gives must
            depend on these alone.
        settings: what the rows depend on; anything JSON can hold.
        what: what to call the rows in errors.
        progress: what to call the work at the progress bar.

    Returns:
        the rows with their `id`, in the order of the ids; None in all processes but the first.

    Raises:
        ValueError: if what is there was made with other settings; or if the processes of a launcher do not see each
            other.
    """
    path, state = Path(path), join_processes()
    if state.is_main_process:
        _claim(path, settings, what)
    state.wait_for_everyone()
    if path.is_file():
        if state.is_main_process:
            _remove_parts(path)
    else:
        done = _read_parts(path)
        state.wait_for_everyone()  # before anybody writes more
        numbered = [item for item in enumerate(batches) if not all(ids[index] in done for index in item[1])]
        if done:
            logger.info("%s: going on after %d of %d %s", path, len(done), len(ids), what)
        part = path.with_name(f"{path.name}.{state.process_index}.part")
        mine = numbered[state.process_index :: state.num_processes]
        with open(part, "a", encoding="utf-8") as file:
            for number, batch in tqdm(mine, desc=progress, disable=not state.is_local_main_process or None):
                for index, row in zip(batch, make(number, batch), strict=True):
                    file.write(json.dumps({"id": ids[index], **row}) + "\n")
                file.flush()
        state.wait_for_everyone()
        if state.is_main_process:
            _join_parts(path, ids, what)
        state.wait_for_everyone()
    if not state.is_main_process:
        return None
    return read_rows(path)


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a finished file."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


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
            f"the launcher started {expected} processes, but they see {state.num_processes}: every one would do "
            "everything. Start with `torchrun` or `accelerate launch --multi_gpu`."
        )
    return state


def _claim(path: Path, settings: dict[str, Any], what: str) -> None:
    """Notes whose rows these are, or refuses where others lie."""
    note = path.with_name(f"{path.name}.settings.json")
    has_rows = path.exists() or bool(list(path.parent.glob(f"{path.name}.*.part")))
    if note.is_file() and has_rows:
        found = json.loads(note.read_text(encoding="utf-8"))
        different = [key for key, value in settings.items() if found.get(key) != json.loads(json.dumps(value))]
        if different:
            raise ValueError(
                f"{path}: the {what} there were made with another {', '.join(different)}; remove {path.name} or name "
                "another output."
            )
    elif has_rows:
        raise ValueError(f"{path}: there are {what} of unknown origin; remove them or name another output.")
    else:
        save_json(settings, note)


def _read_parts(path: Path) -> dict[str, Row]:
    """Rows of all processes of all runs so far; a line that a kill cut short is cut off."""
    done: dict[str, Row] = {}
    for part in sorted(path.parent.glob(f"{path.name}.*.part")):
        raw = part.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if PartialState().is_main_process and len(whole) < len(raw):
            os.truncate(part, len(whole))
        rows = [json.loads(line) for line in whole.decode("utf-8").splitlines()]
        done.update({row["id"]: row for row in rows})
    return done


def _join_parts(path: Path, ids: Sequence[str], what: str) -> None:
    done = _read_parts(path)
    missing = [row_id for row_id in ids if row_id not in done]
    if missing:
        raise ValueError(f"{path}: {len(missing)} {what} are gone ({missing[0]} ...). Does another run write there?")
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        lines = [json.dumps(done[row_id], ensure_ascii=False) + "\n" for row_id in ids]
        aside.write_text("".join(lines), encoding="utf-8")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    _remove_parts(path)


def _remove_parts(path: Path) -> None:
    for part in path.parent.glob(f"{path.name}.*.part"):
        part.unlink()
