"""From joints, texts and split lists to a HumanML3D folder: features, mirrored clips, statistics and a report."""

import hashlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from tqdm.auto import tqdm

from ..models.motion_conversion import resample_joints
from ..models.motion_representation import (
    MotionRepresentation,
    features_to_joints,
    get_motion_representation,
    joints_to_features,
    mirror_joints,
)
from .motion_folder import (
    FEATURES_DIR,
    JOINTS_DIR,
    TEXTS_DIR,
    list_splits,
    read_array,
    read_split_list,
    remove_partial_files,
    save_array,
    save_bytes,
    without_repeats,
)
from .text_files import CaptionSegment, format_caption_line, read_valid_captions

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
logger = logging.getLogger(__name__)

SOURCE_JOINTS_DIR = "joints"
MANIFEST_NAME = "build_manifest.jsonl"
REPORT_NAME = "report.json"
# Part of every manifest line: raise it when the files come out differently, and old folders are built anew.
_FORMAT_VERSION = 1
# Frames (padding included) that go through joints_to_features at once.
_FRAMES_PER_CHUNK = 4096
_SMALLEST_STD = 1e-6
_NOTES_SHOWN = 20


@dataclass(frozen=True)
class MotionClip:
    """A clip to write.

    Args:
        motion_id (`str`): Name of its files.
        joints (`np.ndarray` of shape `(frames, joints, 3)`): World positions in the unit and at the frame rate of the
            representation, y up.
        captions (`Sequence[CaptionSegment]`): Its captions, at least one.
        mirrored_captions (`Sequence[CaptionSegment]`, *optional*): Those of its mirrored clip; by default the same
            with the sides swapped.
    """

    motion_id: str
    joints: np.ndarray
    captions: Sequence[CaptionSegment]
    mirrored_captions: Sequence[CaptionSegment] | None = None


@dataclass
class BuildReport:
    """What `build_motion_dataset` did.

    Args:
        written (`int`): Source clips built in this run.
        reused (`int`): Source clips that an earlier run had built from the same files with the same settings.
        splits (`dict[str, int]`): Clips in each split list written, mirrored ones included.
        left_out (`list[tuple[str, str]]`): Id and reason of every source clip that was not built.
        skipped_lines (`list[str]`): File, line number and reason of every caption line that was not used, and of every
            id that a split list repeats.
        seconds (`float`): Time this run took.
        notes (`list[str]`): What else to know of the sources.
    """

    written: int = 0
    reused: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    skipped_lines: list[str] = field(default_factory=list)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        splits = ", ".join(f"{name} {count}" for name, count in self.splits.items())
        lines = [
            f"{self.written} clips written, {self.reused} reused, {len(self.left_out)} left out, "
            f"{len(self.skipped_lines)} lines skipped in {self.seconds:.1f} s; clips in the split lists: {splits}"
        ]
        notes = [f"note: {note}" for note in self.notes]
        notes += [f"left out: {clip_id}: {reason}" for clip_id, reason in self.left_out]
        notes += [f"skipped line: {line}" for line in self.skipped_lines]
        lines += [f"  {note}" for note in notes[:_NOTES_SHOWN]]
        if len(notes) > _NOTES_SHOWN:
            lines.append(f"  and {len(notes) - _NOTES_SHOWN} more in {REPORT_NAME}")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Settings:
    representation: MotionRepresentation
    mirror: bool
    retarget: bool
    target_skeleton: np.ndarray | None
    source_fps: float

    def digest(self) -> str:
        """What a clip's files depend on beside its source."""
        target = None if self.target_skeleton is None else self.target_skeleton.tolist()
        values = [_FORMAT_VERSION, self.representation.name, self.mirror, self.retarget, target]
        if self.source_fps != self.representation.fps:
            values.append(self.source_fps)
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


@dataclass
class _Outcome:
    """A source clip after the worker: `files` (path below the output folder -> bytes) where built, else `reason`."""

    motion_id: str
    source: list[int]
    files: dict[str, int] = field(default_factory=dict)
    skipped_lines: list[str] = field(default_factory=list)
    reason: str = ""


def build_motion_dataset(
    source_dir: str | Path,
    output_dir: str | Path,
    representation: str = "humanml3d",
    *,
    mirror: bool = True,
    retarget: bool = True,
    target_skeleton: np.ndarray | torch.Tensor | None = None,
    source_fps: float | None = None,
    num_proc: int | None = None,
    show_progress: bool = True,
) -> BuildReport:
    """Build a HumanML3D folder from a folder of joints, texts and split lists.

    `source_dir` holds `joints/<id>.npy` of shape `(frames, joints, 3)`, `texts/<id>.txt` and split lists: every `.txt`
    file at its top, `train.txt` among them. `output_dir` gets `new_joint_vecs/` (features: one row fewer than frames,
    of "streaming272" as many), `new_joints/` (the joints recovered from them), `texts/`, `Mean.npy` and `Std.npy` of
    the train split (see `write_motion_statistics`), the split lists, and `report.json`. The mirrored clip of `<id>` is
    `M<id>`, made from mirrored joints before retargeting, and stands in the same splits. Its captions are those of
    `texts/M<id>.txt`, or else those of the clip with the sides swapped.

    A run that was killed is taken up by the next one: clips whose files are all there, made from the same source files
    (size and modification time) with the same settings, are kept. Files appear whole or not at all, and the split
    lists last: a folder that has them is complete. A clip that cannot be used is left out, and the report says why.

    Args:
        source_dir (`str` or `Path`): Folder to read.
        output_dir (`str` or `Path`): Folder to write; new, or of an earlier run.
        representation (`str`, defaults to `"humanml3d"`): Name of the motion representation.
        mirror (`bool`, defaults to `True`): Whether to add mirrored clips.
        retarget (`bool`, defaults to `True`): Whether to give all clips the bone lengths of the target skeleton.
        target_skeleton (array of shape `(joints, 3)`, *optional*): A pose with the wanted bone lengths; by default
            those of the representation.
        source_fps (`float`, *optional*): Frames per second of the joints, which `resample_joints` brings to the frame
            rate of the representation; by default they have it.
        num_proc (`int`, *optional*): Worker processes; by default the work is done in this one.
        show_progress (`bool`, defaults to `True`): Whether to show a progress bar.

    Raises:
        `FileNotFoundError`: A source folder or `train.txt` is missing.
        `ValueError`: A split list is empty, no clip of the train split is usable, a mirrored id is taken,
            `source_fps` is not positive, or `output_dir` was made by something else.
        `OSError`: A file cannot be written (disk full, no permission).
    """
    start = time.monotonic()
    source, output = Path(source_dir), Path(output_dir)
    target = None if target_skeleton is None else np.asarray(target_skeleton, dtype=np.float64)
    layout = get_motion_representation(representation)
    settings = _Settings(layout, mirror, retarget, target, layout.fps if source_fps is None else float(source_fps))
    if not 0 < settings.source_fps < float("inf"):
        raise ValueError(f"source_fps is {source_fps}; give the frames per second of the joints, 20 for example")
    if retarget and target is None and layout.target_bone_lengths is None:
        raise ValueError(
            f"{representation} has no target skeleton of its own: pass target_skeleton=joints[0] of the clip whose "
            "bone lengths all shall have, or retarget=False"
        )
    report = BuildReport()
    splits = _read_source_splits(source, report)
    ids = list(dict.fromkeys(chain.from_iterable(splits.values())))
    _check_mirrored_ids_are_free(ids, mirror)
    _prepare_output(source, output)

    records = _read_manifest(output / MANIFEST_NAME)
    sources, missing = _find_sources(source, ids, mirror)
    complete = {
        clip_id: records[clip_id]
        for clip_id, signature in sources.items()
        if _is_complete(records.get(clip_id), signature, settings, output)
    }
    report.reused = len(complete)
    pending = {clip_id: signature for clip_id, signature in sources.items() if clip_id not in complete}
    failed = _build_pending(pending, complete, source, output, settings, num_proc, show_progress)
    report.written = len(complete) - report.reused

    _remove_stale_files(output, records, complete)
    report.left_out += [(clip_id, reason) for clip_id, reason in (missing | failed).items()]
    report.left_out += _unlisted_clips(source, set(ids), mirror)
    report.skipped_lines += [line for clip_id in ids for line in complete.get(clip_id, {}).get("skipped_lines", [])]
    kept = {name: [clip_id for clip_id in split if clip_id in complete] for name, split in splits.items()}
    with_mirrored = {name: split + [f"M{i}" for i in split] if mirror else split for name, split in kept.items()}
    report.splits = {name: len(split) for name, split in with_mirrored.items()}
    report.seconds = round(time.monotonic() - start, 2)
    save_report(report, output)
    if not kept["train"]:
        raise ValueError(f"{source / 'train.txt'}: none of its {len(splits['train'])} clips can be used\n{report}")
    for name in set(list_splits(output)).difference(splits):
        (output / f"{name}.txt").unlink()
    finish_motion_folder(output, with_mirrored, representation)
    report.seconds = round(time.monotonic() - start, 2)
    save_report(report, output)
    logger.log(logging.WARNING if report.left_out or report.skipped_lines else logging.INFO, "%s: %s", output, report)
    return report


def write_motion_clips(
    clips: Sequence[MotionClip],
    output_dir: str | Path,
    representation: str = "humanml3d",
    *,
    mirror: bool = True,
    retarget: bool = True,
    target_skeleton: np.ndarray | None = None,
) -> dict[str, str]:
    """Write the features, recovered joints and captions of a few clips, computed in one batch.

    Clips of about the same length, one or two thousand frames in all, are fastest. The arithmetic is that of the
    joints: float32 is faster, float64 gives the same files whatever the batch. End with `finish_motion_folder`.

    Args:
        clips (`Sequence[MotionClip]`): Clips of at least 2 frames without NaN.
        output_dir (`str` or `Path`): Folder to write.
        representation, mirror, retarget, target_skeleton: As in `build_motion_dataset`.

    Returns:
        `dict[str, str]`: Id and reason of each clip that was not written, because it has no proper skeleton.

    Raises:
        `OSError`: A file cannot be written (disk full, no permission).
    """
    output = Path(output_dir)
    for name in (FEATURES_DIR, JOINTS_DIR, TEXTS_DIR):
        (output / name).mkdir(parents=True, exist_ok=True)
    layout = get_motion_representation(representation)
    lengths = [len(clip.joints) for clip in clips]
    # Repeating the last frame changes no row of the clip itself: the heading is smoothed as if it went on so.
    frames = np.arange(max(lengths))
    padded = [c.joints[np.minimum(frames, n - 1)] for c, n in zip(clips, lengths, strict=True)]
    joints = torch.from_numpy(np.stack(padded))
    joints = torch.stack([joints, mirror_joints(joints, representation)]) if mirror else joints[None]
    features = joints_to_features(joints, representation, retarget=retarget, target_skeleton=target_skeleton)
    recovered = features_to_joints(features, representation)
    failed = {}
    for index, (clip, length) in enumerate(zip(clips, lengths, strict=True)):
        num_rows = layout.num_rows(length)
        rows = features[:, index, :num_rows].float().numpy()
        if not np.isfinite(rows).all():
            failed[clip.motion_id] = "the joints have no proper skeleton: their features hold NaN"
            continue
        clip_joints = recovered[:, index, :num_rows].float().numpy()
        for side, prefix in enumerate(("", "M") if mirror else ("",)):
            captions = clip.captions
            if prefix:
                captions = clip.mirrored_captions or [caption.mirrored() for caption in clip.captions]
            lines = "".join(format_caption_line(caption) + "\n" for caption in captions)
            name = prefix + clip.motion_id
            save_array(output / FEATURES_DIR / f"{name}.npy", rows[side])
            save_array(output / JOINTS_DIR / f"{name}.npy", clip_joints[side])
            save_bytes(output / TEXTS_DIR / f"{name}.txt", lines.encode())
    return failed


def finish_motion_folder(
    output_dir: str | Path, splits: Mapping[str, Sequence[str]], representation: str = "humanml3d"
) -> None:
    """Write the statistics of the train split and, last, the split lists.

    Args:
        output_dir (`str` or `Path`): Folder whose clips are all written.
        splits (`Mapping[str, Sequence[str]]`): Clip ids of each split, mirrored ones included; `train` among them.
        representation (`str`, defaults to `"humanml3d"`): Name of the motion representation.
    """
    output = Path(output_dir)
    write_motion_statistics(output, splits["train"], representation)
    for name, ids in splits.items():
        save_bytes(output / f"{name}.txt", "".join(f"{clip_id}\n" for clip_id in ids).encode())


def write_motion_statistics(
    output_dir: str | Path, motion_ids: Sequence[str], representation: str = "humanml3d"
) -> tuple[np.ndarray, np.ndarray]:
    """Write `Mean.npy` and `Std.npy` over the frames of the named clips, as HumanML3D normalises.

    The mean is per dimension, the standard deviation averaged within each group of features, of which HumanML3D has 7
    (root yaw, root velocity, root height, positions, rotations, velocities, contacts) and "streaming272" 5 (see
    `MotionRepresentation.feature_slices`). A group that never varies gets 1, so that normalised features stay finite.
    Clips with NaN are left out.

    Args:
        output_dir (`str` or `Path`): Folder with `new_joint_vecs/`.
        motion_ids (`Sequence[str]`): Clips to count.
        representation (`str`, defaults to `"humanml3d"`): Name of the motion representation.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: Mean and standard deviation, float32 of shape `(features,)`.

    Raises:
        `ValueError`: No clip is left.
    """
    folder = Path(output_dir) / FEATURES_DIR
    layout = get_motion_representation(representation)
    count, total, squares, shift = 0, 0.0, 0.0, None
    for motion_id in motion_ids:
        features = np.load(folder / f"{motion_id}.npy", allow_pickle=False)
        if not np.isfinite(features).all():
            logger.warning("%s: NaN, not counted in the statistics", folder / f"{motion_id}.npy")
            continue
        shift = features[0].astype(np.float64) if shift is None else shift  # keeps the difference of squares exact
        rows = features - shift
        count, total, squares = count + len(rows), total + rows.sum(0), squares + np.einsum("tf,tf->f", rows, rows)
    if shift is None:
        raise ValueError(f"{folder}: none of the {len(motion_ids)} clips named can be counted in Mean.npy and Std.npy")
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    for group in layout.feature_slices.values():
        group_std = std[group].mean()
        std[group] = group_std if group_std > _SMALLEST_STD else 1.0
    mean, std = (mean + shift).astype(np.float32), std.astype(np.float32)
    save_array(Path(output_dir) / "Mean.npy", mean)
    save_array(Path(output_dir) / "Std.npy", std)
    return mean, std


def _read_source_splits(source: Path, report: BuildReport) -> dict[str, list[str]]:
    for folder in (source, source / SOURCE_JOINTS_DIR, source / TEXTS_DIR):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder; wanted joints/, texts/ and split lists in {source}")
    names = list_splits(source)
    if "train" not in names:
        found = ", ".join(names) or "none"
        raise FileNotFoundError(
            f"{source / 'train.txt'}: no such split list, and Mean and Std need it; found: {found}"
        )
    splits = {}
    for name in names:
        splits[name], repeated = without_repeats(read_split_list(source, name))
        report.skipped_lines += [f"{source / name}.txt: {clip_id} is listed again" for clip_id in repeated]
    return splits


def _check_mirrored_ids_are_free(ids: list[str], mirror: bool) -> None:
    taken = set(ids).intersection(f"M{clip_id}" for clip_id in ids) if mirror else ()
    if taken:
        raise ValueError(
            f"{len(taken)} clip ids are also the id of another's mirrored clip, {min(taken)} for one: "
            "rename them, or pass mirror=False if the source is mirrored already"
        )


def _prepare_output(source: Path, output: Path) -> None:
    if output.resolve() == source.resolve():
        raise ValueError(f"{output}: the output folder is the source folder; choose another")
    if (output / FEATURES_DIR).exists() and not (output / MANIFEST_NAME).exists():
        raise ValueError(
            f"{output}: has {FEATURES_DIR}/ but no {MANIFEST_NAME}, so build_motion_dataset did not make it and will "
            "not write over it; choose a new folder"
        )
    output.mkdir(parents=True, exist_ok=True)
    for folder in (output, output / FEATURES_DIR, output / JOINTS_DIR, output / TEXTS_DIR):
        remove_partial_files(folder)


def _read_manifest(path: Path) -> dict[str, dict]:
    """Records of the clips built so far; without the last line if a kill tore it."""
    content = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = content[: content.rfind("\n") + 1].splitlines()
    records = {record["motion_id"]: record for record in map(json.loads, lines)}
    _save_manifest(path, records)
    return records


def _save_manifest(path: Path, records: Mapping[str, dict]) -> None:
    save_bytes(path, "".join(json.dumps(record) + "\n" for record in records.values()).encode())


def save_report(report: BuildReport, output: Path) -> None:
    """Write `report.json` into a built folder."""
    save_bytes(output / REPORT_NAME, (json.dumps(asdict(report), indent=2) + "\n").encode())


def _find_sources(source: Path, ids: list[str], mirror: bool) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Sizes and modification times of each clip's files, and why other clips have none."""
    found, missing = {}, {}
    for clip_id in ids:
        paths = [source / SOURCE_JOINTS_DIR / f"{clip_id}.npy", source / TEXTS_DIR / f"{clip_id}.txt"]
        absent = [path for path in paths if not path.is_file()]
        if absent:
            missing[clip_id] = " and ".join(f"{path.parent.name}/{path.name}" for path in absent) + " missing"
        else:
            written = source / TEXTS_DIR / f"M{clip_id}.txt"
            paths += [written] if mirror and written.is_file() else []
            found[clip_id] = [value for path in paths for value in (path.stat().st_size, path.stat().st_mtime_ns)]
    return found, missing


def _unlisted_clips(source: Path, listed: set[str], mirror: bool) -> list[tuple[str, str]]:
    stems = {path.stem for path in (source / TEXTS_DIR).glob("*.txt")}
    if mirror:
        stems -= {f"M{clip_id}" for clip_id in listed}
    stems |= {path.stem for path in (source / SOURCE_JOINTS_DIR).glob("*.npy")}
    return [(clip_id, "in no split list") for clip_id in sorted(stems - listed)]


def _is_complete(record: dict | None, signature: list[int], settings: _Settings, output: Path) -> bool:
    if record is None or record["source"] != signature or record["settings"] != settings.digest():
        return False
    try:
        return all(os.stat(output / name).st_size == size for name, size in record["files"].items())
    except FileNotFoundError:
        return False


def _build_pending(
    pending: dict[str, list[int]],
    complete: dict[str, dict],
    source: Path,
    output: Path,
    settings: _Settings,
    num_proc: int | None,
    show_progress: bool,
) -> dict[str, str]:
    """Build clips, add their records to `complete` and to the manifest, and return why others were not built."""
    if not pending:
        return {}
    for path in chain(output.glob("*.txt"), output.glob("Mean.npy"), output.glob("Std.npy")):
        path.unlink()  # not complete any more
    failed = {}
    build = partial(_build_chunk, source=source, output=output, settings=settings)
    chunks = _make_chunks(pending, settings.representation.num_joints)
    digest = settings.digest()
    with (
        open(output / MANIFEST_NAME, "a", encoding="utf-8") as manifest,
        tqdm(total=len(pending), desc="Building motions", unit="clip", disable=not show_progress or None) as progress,
    ):
        for outcome in chain.from_iterable(map_in_processes(build, chunks, num_proc)):
            progress.update()
            if outcome.reason:
                failed[outcome.motion_id] = outcome.reason
                continue
            record = asdict(outcome) | {"settings": digest}
            del record["reason"]
            manifest.write(json.dumps(record) + "\n")
            manifest.flush()
            complete[outcome.motion_id] = record
    return failed


def _make_chunks(pending: dict[str, list[int]], num_joints: int) -> list[list[tuple[str, list[int]]]]:
    """Clips of like length together, longest first; the size of the joint file stands for the length."""
    chunks: list[list[tuple[str, list[int]]]] = []
    longest = 0
    for clip_id, signature in sorted(pending.items(), key=lambda item: -item[1][0]):
        if not chunks or (len(chunks[-1]) + 1) * longest > _FRAMES_PER_CHUNK:
            chunks.append([])
            longest = signature[0] // (num_joints * 3 * 4)
        chunks[-1].append((clip_id, signature))
    return chunks


def map_in_processes(
    function: Callable[[_Item], _Result], items: Sequence[_Item], num_proc: int | None
) -> Iterator[_Result]:
    """Results in the order of the items; with `num_proc` above 1 from as many processes, which end with this one."""
    if num_proc is None or num_proc <= 1:
        yield from map(function, items)
        return
    executor = ProcessPoolExecutor(min(num_proc, len(items)), initializer=_start_worker)
    try:
        yield from executor.map(function, items)
    finally:
        executor.shutdown(cancel_futures=True)


def _start_worker() -> None:
    torch.set_num_threads(1)  # also what makes torch safe in a forked process
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the work
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Keep workers from outliving a parent that was killed."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _build_chunk(
    chunk: list[tuple[str, list[int]]], source: Path, output: Path, settings: _Settings
) -> list[_Outcome]:
    outcomes = {clip_id: _Outcome(clip_id, signature) for clip_id, signature in chunk}
    clips = []
    for outcome in outcomes.values():
        try:
            joints = _read_joints(source / SOURCE_JOINTS_DIR / f"{outcome.motion_id}.npy", settings)
            text_path = source / TEXTS_DIR / f"{outcome.motion_id}.txt"
            captions, outcome.skipped_lines = read_valid_captions(text_path)
            if not captions:
                raise ValueError("; ".join([f"{text_path}: no usable caption", *outcome.skipped_lines]))
            mirrored, skipped = _mirrored_captions(text_path) if settings.mirror else (None, [])
            outcome.skipped_lines += skipped
        except ValueError as error:
            outcome.reason = str(error)
        else:
            clips.append(MotionClip(outcome.motion_id, joints, captions, mirrored))
    failed = {}
    if clips:
        failed = write_motion_clips(
            clips,
            output,
            settings.representation.name,
            mirror=settings.mirror,
            retarget=settings.retarget,
            target_skeleton=settings.target_skeleton,
        )
    for clip in clips:
        outcome = outcomes[clip.motion_id]
        outcome.reason = failed.get(clip.motion_id, "")
        if not outcome.reason:
            outcome.files = _output_files(clip.motion_id, output, settings.mirror)
    return list(outcomes.values())


def _mirrored_captions(text_path: Path) -> tuple[list[CaptionSegment] | None, list[str]]:
    """Captions that somebody wrote for the mirrored clip, and lines of them that are left out."""
    path = text_path.with_name(f"M{text_path.name}")
    return read_valid_captions(path) if path.is_file() else (None, [])


def _read_joints(path: Path, settings: _Settings) -> np.ndarray:
    """Joints (frames, J, 3), float64, at the frame rate of the representation."""
    representation = settings.representation
    try:
        joints = read_array(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if joints.ndim != 3 or joints.shape[1:] != (representation.num_joints, 3):
        wanted = f"(frames, {representation.num_joints}, 3)"
        raise ValueError(f"{path}: shape {joints.shape}, wanted {wanted} for {representation.name}")
    if len(joints) < 2:
        raise ValueError(f"{path}: {len(joints)} frame(s), wanted at least 2: motion is from frame to frame")
    legs = list(representation.leg_joints)
    hips = [representation.parents[joint] for joint in legs]
    if np.array_equal(joints[0, legs], joints[0, hips]):
        raise ValueError(f"{path}: joints {legs} lie on their parents in frame 0: no skeleton")
    resampled = resample_joints(joints.astype(np.float64), settings.source_fps, representation.fps)
    if len(resampled) < 2:
        raise ValueError(
            f"{path}: {len(joints)} frames at {settings.source_fps:g} frames per second are {len(resampled)} at "
            f"{representation.fps:g}, wanted at least 2"
        )
    return resampled


def _output_files(motion_id: str, output: Path, mirror: bool) -> dict[str, int]:
    names = [
        f"{folder}/{prefix}{motion_id}{suffix}"
        for prefix in (("", "M") if mirror else ("",))
        for folder, suffix in ((FEATURES_DIR, ".npy"), (JOINTS_DIR, ".npy"), (TEXTS_DIR, ".txt"))
    ]
    return {name: os.stat(output / name).st_size for name in names}


def _remove_stale_files(output: Path, records: Mapping[str, dict], complete: Mapping[str, dict]) -> None:
    """Remove what earlier runs wrote for clips or mirrored clips that are no longer wanted; tidy the manifest."""
    wanted = {name for record in complete.values() for name in record["files"]}
    for record in records.values():
        for name in record["files"]:
            if name not in wanted:
                (output / name).unlink(missing_ok=True)
    _save_manifest(output / MANIFEST_NAME, complete)
