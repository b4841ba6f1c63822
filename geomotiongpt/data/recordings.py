"""Recordings of a public release -> clips as joints; a run that was stopped goes on where it was."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from .builder import SOURCE_JOINTS_DIR, map_in_processes
from .motion_folder import TEXTS_DIR, remove_partial_files, save_bytes, update_file
from .text_files import CaptionSegment, format_caption_line

SOURCE_DIR = "source"  # of the folder that is built: clips as joints
_MANIFEST = "extracted.jsonl"


@dataclass(frozen=True)
class Recording:
    """A file, and the clips that are made of it.

    Args:
        name: by which it is known.
        file: of the recording.
        motion_ids: of the clips.
        settings: what the clips depend on beside the file, as JSON has it.
        clips: whatever else `extract` needs to know.
    """

    name: str
    file: Path
    motion_ids: tuple[str, ...]
    settings: list
    clips: tuple[Any, ...] = ()

    def signature(self) -> list:
        """What the clips depend on."""
        return [self.file.stat().st_size, self.file.stat().st_mtime_ns, *self.settings]


def make_source_folder(output: Path) -> Path:
    """The folder below `output` that clips are extracted into."""
    source = output / SOURCE_DIR
    for folder in (source / SOURCE_JOINTS_DIR, source / TEXTS_DIR):
        folder.mkdir(parents=True, exist_ok=True)
        remove_partial_files(folder)
    return source


def extract_recordings(
    recordings: Sequence[Recording],
    extract: Callable[[Recording], dict[str, str]],
    source: Path,
    num_proc: int | None,
    show_progress: bool,
) -> dict[str, str]:
    """Writes the clips of all recordings that are not written yet, or not of this file with these settings.

    Args:
        recordings: to read.
        extract: writes `joints/<id>.npy` of a recording's clips; returns why clips could not be, by their ids.
        source: as `make_source_folder` makes it.
        num_proc: worker processes.
        show_progress: whether to show a progress bar.

    Returns:
        why clips could not be written, by their ids.
    """
    done = _read_manifest(source / _MANIFEST)
    pending = []
    for recording in recordings:
        written = all((source / SOURCE_JOINTS_DIR / f"{clip}.npy").is_file() for clip in recording.motion_ids)
        if not written or done.get(recording.name) != recording.signature():
            pending.append(recording)
    problems: dict[str, str] = {}
    with (
        open(source / _MANIFEST, "a", encoding="utf-8") as manifest,
        tqdm(
            total=len(pending), desc="Reading recordings", unit="file", disable=not show_progress or None
        ) as progress,
    ):
        results = map_in_processes(extract, pending, num_proc) if pending else iter(())
        for recording, failed in zip(pending, results, strict=True):
            progress.update()
            problems |= failed
            if not failed:
                manifest.write(_line(recording.name, recording.signature()))
                manifest.flush()
    return problems


def write_source_lists(
    source: Path, texts: Mapping[str, Sequence[CaptionSegment]], splits: Mapping[str, Sequence[str]]
) -> None:
    """Writes caption files and split lists beside the joints, and removes those that are no longer wanted."""
    for path in (source / TEXTS_DIR).glob("*.txt"):
        if path.stem not in texts:
            path.unlink()
    for motion_id, segments in texts.items():
        lines = "".join(f"{format_caption_line(segment)}\n" for segment in segments)
        update_file(source / TEXTS_DIR / f"{motion_id}.txt", lines.encode())
    for path in source.glob("*.txt"):
        if path.stem not in splits:
            path.unlink()
    for name, ids in splits.items():
        save_bytes(source / f"{name}.txt", "".join(f"{motion_id}\n" for motion_id in ids).encode())


def extracted_frames(source: Path, motion_id: str) -> int:
    """Frames of a clip that was extracted."""
    path = source / SOURCE_JOINTS_DIR / f"{motion_id}.npy"
    return len(np.load(path, mmap_mode="r", allow_pickle=False))


def refuse_without_clips(splits: Mapping[str, Sequence[str]], problems: Mapping[str, str]) -> dict[str, list[str]]:
    """The split lists without clips that have problems.

    Raises:
        FileNotFoundError: if a list would be empty; the message says why.
    """
    kept = {name: [motion_id for motion_id in ids if motion_id not in problems] for name, ids in splits.items()}
    for name, ids in kept.items():
        if not ids:
            reasons = "; ".join(sorted({problems[motion_id] for motion_id in splits[name]})[:3])
            raise FileNotFoundError(f"none of the {len(splits[name])} clips of {name} could be made: {reasons}")
    return kept


def _line(name: str, signature: list) -> str:
    return json.dumps({"recording": name, "signature": signature}) + "\n"


def _read_manifest(path: Path) -> dict[str, list]:
    """Recordings whose clips are written; without a last line that a kill tore."""
    content = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = content[: content.rfind("\n") + 1].splitlines()
    records = {record["recording"]: record["signature"] for record in map(json.loads, lines)}
    save_bytes(path, "".join(_line(name, signature) for name, signature in records.items()).encode())
    return records
