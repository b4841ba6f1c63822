"""BABEL (Punnakkal et al., CVPR 2021): labels of stretches of AMASS, read as captions of parts of a motion."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..models.motion_conversion import resample_joints, resampled_frames
from ..models.motion_representation import get_motion_representation
from .builder import SOURCE_JOINTS_DIR, BuildReport, build_motion_dataset, save_report
from .motion_folder import save_array
from .recordings import (
    Recording,
    extract_recordings,
    extracted_frames,
    make_source_folder,
    refuse_without_clips,
    write_source_lists,
)
from .text_files import CaptionSegment

SPLITS = ("train", "val", "test")
TRANSITION = "transition"
_NUM_JOINTS = 22

BodyJoints = Callable[[Path], tuple[np.ndarray, float]]


@dataclass(frozen=True)
class LabelledSequence:
    """A sequence of BABEL.

    Args:
        motion_id: its number.
        source: file of AMASS below the folder of AMASS, as BABEL writes it: the data set's name stands twice.
        segments: captions: the raw label of each stretch, or those of the whole sequence.
        num_transitions: labels that were left out because they say no more than "transition".
    """

    motion_id: str
    source: str
    segments: tuple[CaptionSegment, ...]
    num_transitions: int = 0


def read_babel(path: str | Path, *, transitions: bool = False) -> list[LabelledSequence]:
    """Reads a file of BABEL, such as `train.json`.

    The captions are the raw labels of the stretches (`frame_ann`), with their times, and where nobody has cut the
    sequence into stretches, those of the whole (`seq_ann`). Files that have several of either (`frame_anns`,
    `seq_anns`) are read alike.

    Args:
        path: the file.
        transitions: whether to keep labels that say no more than "transition".

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged; the message names the sequence.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: wanted sequences by their numbers, got a {type(content).__name__}.")
    sequences = []
    for motion_id, entry in content.items():
        try:
            labels = [label for part in _annotations(entry, "frame_ann") for label in part["labels"]]
            timed = bool(labels)
            labels = labels or [label for part in _annotations(entry, "seq_ann") for label in part["labels"]]
            kept = [label for label in labels if transitions or not _is_transition(label)]
            segments = dict.fromkeys(segment for segment in (_segment(label, timed) for label in kept) if segment)
            sequences.append(
                LabelledSequence(str(motion_id), str(entry["feat_p"]), tuple(segments), len(labels) - len(kept))
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            reason = f"no {error} in it" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{path}: sequence {motion_id} cannot be read: {reason}.") from None
    return sequences


def build_babel(
    output_dir: str | Path,
    *,
    babel_dir: str | Path,
    amass_dir: str | Path,
    body_joints: BodyJoints,
    representation: str = "humanml3d",
    transitions: bool = False,
    mirror: bool = True,
    num_proc: int | None = None,
    show_progress: bool = True,
) -> BuildReport:
    """Builds BABEL: sequences of AMASS, whole, with captions of their parts.

    Sequences are turned as HumanML3D's are (Y and Z change places, x is negated) but resampled to the frame rate of
    the representation exactly, because the labels tell seconds. The clips are kept as joints in `source/`: a run that
    was stopped is taken up again.

    Args:
        output_dir: folder to write; new, or of an earlier run.
        babel_dir: folder with `train.json`, `val.json` and `test.json`, or some of these. A file without labels, as
            the published `test.json` is, is left out with a note, and so are the `extra_*.json`.
        amass_dir: folder with AMASS, one folder a data set.
        body_joints: a file of AMASS -> joints (frames, joints, 3), Z up, and frames per second; it may go to other
            processes.
        representation: "humanml3d" or "streaming272".
        transitions: whether to keep labels that say no more than "transition".
        mirror: whether to add mirrored clips.
        num_proc: worker processes; by default the work is done in this one.
        show_progress: whether to show progress bars.

    Returns:
        what was built; its `notes` say what became of labels that do not fit their motion.

    Raises:
        FileNotFoundError: if a folder is missing, or no recording of a split is there.
        ValueError: for labels that cannot be read, or as `build_motion_dataset`.
    """
    output, layout = Path(output_dir), get_motion_representation(representation)
    if layout.num_joints != _NUM_JOINTS:
        raise ValueError(f"representation is {representation!r}; of BABEL it is humanml3d or streaming272.")
    if not Path(amass_dir).is_dir():
        raise FileNotFoundError(f"{amass_dir}: no such folder; give that of AMASS.")
    splits, notes = _read_splits(Path(babel_dir), transitions)
    sequences = {sequence.motion_id: sequence for group in splits.values() for sequence in group}
    source = make_source_folder(output)
    problems, recordings = {}, []
    for sequence in sequences.values():
        file = find_recording(Path(amass_dir), sequence.source)
        if not sequence.segments:
            problems[sequence.motion_id] = "no label that is a caption"
        elif file is None:
            problems[sequence.motion_id] = f"AMASS: {sequence.source} is not there"
        else:
            recordings.append(Recording(sequence.motion_id, file, (sequence.motion_id,), [layout.fps]))
    extract = partial(
        _extract, joints_dir=source / SOURCE_JOINTS_DIR, body_joints=body_joints, representation=representation
    )
    problems |= extract_recordings(recordings, extract, source, num_proc, show_progress)
    seconds = {
        motion_id: extracted_frames(source, motion_id) / layout.fps
        for motion_id in sequences
        if motion_id not in problems
    }
    texts, cut = _fit([sequences[motion_id] for motion_id in seconds], seconds)
    problems |= {motion_id: "no label lies in its motion" for motion_id in seconds if not texts[motion_id]}
    lists = {name: [sequence.motion_id for sequence in group] for name, group in splits.items()}
    kept = refuse_without_clips(lists, problems)
    write_source_lists(source, {motion_id: texts[motion_id] for ids in kept.values() for motion_id in ids}, kept)
    report = build_motion_dataset(
        source, output, representation, mirror=mirror, num_proc=num_proc, show_progress=show_progress
    )
    report.notes = [*notes, *cut]
    report.left_out = [*problems.items(), *report.left_out]
    save_report(report, output)
    return report


def find_recording(amass: Path, name: str) -> Path | None:
    """The file of AMASS that BABEL calls `KIT/KIT/3/walk_poses.npz`, also where the first name stands once."""
    parts = Path(name).parts
    if ".." in parts or Path(name).is_absolute():
        return None
    return next((path for path in (amass / name, amass.joinpath(*parts[1:])) if path.is_file()), None)


def _annotations(entry: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    one, several = entry.get(name), entry.get(f"{name}s")
    return [part for part in (one, *(several or ())) if part]


def _is_transition(label: Mapping[str, Any]) -> bool:
    return TRANSITION in (label.get("proc_label"), label.get("raw_label"))


def _segment(label: Mapping[str, Any], timed: bool) -> CaptionSegment | None:
    """The caption of a label; None if it has no words or no length."""
    words = " ".join((label.get("raw_label") or label.get("proc_label") or "").replace("#", " ").split())
    start, end = (float(label["start_t"]), float(label["end_t"])) if timed else (0.0, 0.0)
    if not (0 <= start < math.inf and 0 <= end < math.inf):
        raise ValueError(f"{words!r} goes from {start} to {end} s")
    return CaptionSegment(words, (), start, end) if words and (end > start or not timed) else None


def _read_splits(folder: Path, transitions: bool) -> tuple[dict[str, list[LabelledSequence]], list[str]]:
    """The sequences of each split, and what else to know of the files."""
    files = {name: folder / f"{name}.json" for name in SPLITS if (folder / f"{name}.json").is_file()}
    if "train" not in files:
        raise FileNotFoundError(f"{folder / 'train.json'}: no such file; give the folder of BABEL's labels.")
    splits: dict[str, list[LabelledSequence]] = {}
    notes = [f"{path}: not read; only {', '.join(SPLITS)}" for path in sorted(folder.glob("extra_*.json"))]
    seen: set[str] = set()
    left_out = 0
    for name, path in files.items():
        sequences = read_babel(path, transitions=transitions)
        if not any(sequence.segments for sequence in sequences):
            notes.append(f"{path}: it has no labels and is left out")
            continue
        if twice := seen.intersection(sequence.motion_id for sequence in sequences):
            raise ValueError(f"{path}: sequence {min(twice)} is in another split too.")
        seen.update(sequence.motion_id for sequence in sequences)
        left_out += sum(sequence.num_transitions for sequence in sequences)
        splits[name] = sequences
    if "train" not in splits:
        raise ValueError(f"{files['train']}: it has no labels.")
    if left_out:
        notes.append(f'{left_out} labels say "{TRANSITION}" and are left out (--transitions keeps them)')
    return splits, notes


def _extract(recording: Recording, joints_dir: Path, body_joints: BodyJoints, representation: str) -> dict[str, str]:
    """Writes a sequence as joints; why it could not be, by its id."""
    fps = get_motion_representation(representation).fps
    try:
        joints, rate = body_joints(recording.file)
    except ValueError as error:
        return {recording.name: str(error)}
    if len(joints) < 2 or resampled_frames(len(joints), rate, fps) < 2:
        return {recording.name: f"{recording.file}: {len(joints)} frames at {rate:g} frames per second are no motion"}
    turned = joints[:, :_NUM_JOINTS, [0, 2, 1]] * np.array([-1, 1, 1])
    save_array(joints_dir / f"{recording.name}.npy", resample_joints(turned, rate, fps).astype(np.float32))
    return {}


def _fit(
    sequences: Sequence[LabelledSequence], seconds: Mapping[str, float]
) -> tuple[dict[str, list[CaptionSegment]], list[str]]:
    """Captions cut to the motions, and how many had to be."""
    texts: dict[str, list[CaptionSegment]] = {}
    cut, beyond = [], []
    for sequence in sequences:
        length = seconds[sequence.motion_id]
        texts[sequence.motion_id] = []
        for segment in sequence.segments:
            fitted = segment.within(length)
            if fitted is None:
                beyond.append(f"{sequence.motion_id}, {segment.start:g} s of {length:g} s")
                continue
            if fitted != segment:
                cut.append(f"{sequence.motion_id}, {segment.end:g} s of {length:g} s")
            texts[sequence.motion_id].append(fitted)
    said = (("end after their motion and are cut", cut), ("begin after its end and are left out", beyond))
    return texts, [f"{len(which)} labels {what}: {which[0]} for one" for what, which in said if which]
