"""HumanML3D from AMASS and HumanAct12 (Guo et al., CVPR 2022), by the steps that its authors published."""

import csv
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from .builder import SOURCE_JOINTS_DIR, BuildReport, build_motion_dataset
from .motion_folder import (
    FEATURES_DIR,
    TEXTS_DIR,
    list_splits,
    read_array,
    read_split_list,
    save_array,
    save_bytes,
)
from .recordings import Recording, extract_recordings, make_source_folder, refuse_without_clips

logger = logging.getLogger(__name__)

FPS, NUM_JOINTS = 20, 22
_COLUMNS = ("source_path", "start_frame", "end_frame", "new_name")
_POSES, _HUMANACT12 = "pose_data", "humanact12"
# Seconds at the start of a recording, of a calibration pose for example, that the index does not count
_LEAD_IN = {"Eyes_Japan_Dataset": 3.0, "MPI_HDM05": 3.0, "TotalCapture": 1.0, "MPI_Limits": 1.0}
_LEAD_IN |= {"Transitions_mocap": 0.5}

BodyJoints = Callable[[Path], tuple[np.ndarray, float]]


@dataclass(frozen=True)
class IndexRow:
    """A clip of `index.csv`.

    Args:
        motion_id: name of the clip.
        source: path of the recording below the folder of poses, without its suffix.
        start: first frame, at 20 frames per second, after the lead-in.
        end: frame after the last.
    """

    motion_id: str
    source: str
    start: int
    end: int

    @property
    def is_humanact12(self) -> bool:
        """Whether it comes from HumanAct12, whose recordings are clips already."""
        return _HUMANACT12 in self.source


def read_index(path: str | Path) -> list[IndexRow]:
    """Reads HumanML3D's `index.csv`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a missing column, or a line that cannot be read; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such index; HumanML3D's repository has it as index.csv.")
    rows = []
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = set(_COLUMNS) - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{path}: no column {', '.join(sorted(missing))}; wanted {', '.join(_COLUMNS)}.")
        for line in reader:
            try:
                start, end = int(line["start_frame"]), int(line["end_frame"])
                source = Path(line["source_path"]).with_suffix("")
                rows.append(IndexRow(Path(line["new_name"]).stem, _below_poses(source), start, end))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}:{reader.line_num}: cannot be read: {error}") from None
    if not rows:
        raise ValueError(f"{path}: the index has no clips.")
    return rows


def build_humanml3d(
    output_dir: str | Path,
    *,
    index: str | Path,
    texts_dir: str | Path,
    amass_dir: str | Path | None,
    humanact12_dir: str | Path | None,
    body_joints: BodyJoints,
    mirror: bool = True,
    num_proc: int | None = None,
    show_progress: bool = True,
) -> BuildReport:
    """Builds HumanML3D: recordings -> joints at 20 frames per second -> the clips of the index -> features.

    As the data set's authors do it: every n-th frame is kept, n the whole part of the frame rate over 20; Y and Z
    change places, so that Y is up; x is negated (not of HumanAct12); the first 22 joints stay. The clips are kept as
    joints in `source/`, from which `build_motion_dataset` makes the rest: a run that was stopped is taken up again.

    Args:
        output_dir: folder to write; new, or of an earlier run.
        index: HumanML3D's `index.csv`.
        texts_dir: folder with `texts/` (of mirrored clips too, which are used where they are there) and split lists.
        amass_dir: folder with AMASS, one folder a data set. None: its clips are left out.
        humanact12_dir: folder with HumanAct12's joints, `.npy`. None: its clips are left out.
        body_joints: a file of AMASS -> joints (frames, joints, 3), Z up, and frames per second; it may go to other
            processes.
        mirror: whether to add mirrored clips.
        num_proc: worker processes; by default the work is done in this one.
        show_progress: whether to show progress bars.

    Returns:
        what was built; recordings that are missing or damaged are among `left_out`.

    Raises:
        FileNotFoundError: if a folder, the index or the split lists are missing, or no recording of a split is there.
        ValueError: as `build_motion_dataset`.
    """
    output, texts = Path(output_dir), Path(texts_dir)
    rows = read_index(index)
    splits = _read_splits(texts, {row.motion_id for row in rows})
    source = make_source_folder(output)
    roots = {True: humanact12_dir, False: amass_dir}
    problems = _extract_all(
        rows,
        {key: None if root is None else Path(root) for key, root in roots.items()},
        source,
        body_joints,
        num_proc,
        show_progress,
    )
    kept = refuse_without_clips(splits, problems)
    _copy_texts(texts, source, [row.motion_id for row in rows if row.motion_id not in problems], mirror)
    for name, ids in kept.items():
        save_bytes(source / f"{name}.txt", "".join(f"{motion_id}\n" for motion_id in ids).encode())
    report = build_motion_dataset(source, output, mirror=mirror, num_proc=num_proc, show_progress=show_progress)
    report.left_out = [*problems.items(), *report.left_out]
    return report


def compare_with_reference(output_dir: str | Path, reference_dir: str | Path) -> dict[str, float]:
    """The largest difference of statistics and clips from those that the authors publish, to check what was built.

    Args:
        output_dir: a built folder.
        reference_dir: folder with `new_joint_vecs/`, `Mean.npy` and `Std.npy`, or some of these.

    Returns:
        name of each array that both folders have -> the largest absolute difference; clips of other lengths have inf.

    Raises:
        FileNotFoundError: if they have none in common.
    """
    output, reference = Path(output_dir), Path(reference_dir)
    names = [path.relative_to(reference) for path in sorted(reference.glob(f"{FEATURES_DIR}/*.npy"))]
    names += [Path(name) for name in ("Mean.npy", "Std.npy")]
    differences = {}
    for name in names:
        if (output / name).is_file() and (reference / name).is_file():
            ours, theirs = read_array(output / name), read_array(reference / name)
            same = ours.shape == theirs.shape
            differences[str(name)] = float(np.abs(ours - theirs).max()) if same else float("inf")
    if not differences:
        raise FileNotFoundError(f"{reference} has no clip, Mean.npy or Std.npy that {output} has too.")
    return differences


def _below_poses(source: Path) -> str:
    parts = source.parts
    return "/".join(parts[parts.index(_POSES) + 1 :] if _POSES in parts else parts)


def _read_splits(texts: Path, known: set[str]) -> dict[str, list[str]]:
    """The split lists, of clips that are not mirrored."""
    if not (texts / TEXTS_DIR).is_dir() or not list_splits(texts):
        raise FileNotFoundError(f"{texts}: wanted {TEXTS_DIR}/ and split lists (train.txt, ...) there.")
    return {
        name: [motion_id for motion_id in read_split_list(texts, name) if motion_id in known]
        for name in list_splits(texts)
    }


def _extract_all(
    rows: Sequence[IndexRow],
    roots: dict[bool, Path | None],
    source: Path,
    body_joints: BodyJoints,
    num_proc: int | None,
    show_progress: bool,
) -> dict[str, str]:
    """Writes the clips of all recordings that are not written yet; why clips could not be, by their ids."""
    by_source: dict[str, list[IndexRow]] = {}
    for row in rows:
        by_source.setdefault(row.source, []).append(row)
    problems: dict[str, str] = {}
    recordings = []
    for name, clips in by_source.items():
        file = _find_recording(clips[0], roots[clips[0].is_humanact12])
        ids = tuple(clip.motion_id for clip in clips)
        if isinstance(file, str):
            problems |= dict.fromkeys(ids, file)
        else:
            settings = [[clip.motion_id, clip.start, clip.end] for clip in clips]
            recordings.append(Recording(name, file, ids, settings, tuple(clips)))
    extract = partial(_extract, joints_dir=source / SOURCE_JOINTS_DIR, body_joints=body_joints)
    return problems | extract_recordings(recordings, extract, source, num_proc, show_progress)


def _find_recording(row: IndexRow, root: Path | None) -> Path | str:
    """The file of a recording, or why there is none."""
    kind = "HumanAct12" if row.is_humanact12 else "AMASS"
    if root is None:
        return f"{kind} is not given"
    if row.is_humanact12:
        name = Path(row.source).name
        found = [path for path in (root / f"{name}.npy", root / _HUMANACT12 / f"{name}.npy") if path.is_file()]
    else:
        found = [path for path in (root / f"{row.source}.npz",) if path.is_file()]
    return found[0] if found else f"{kind}: {row.source} is not there"


def _extract(recording: Recording, joints_dir: Path, body_joints: BodyJoints) -> dict[str, str]:
    """Writes the clips of one recording; why clips could not be written, by their ids."""
    file, clips = recording.file, recording.clips
    try:
        joints = _humanact12(file) if clips[0].is_humanact12 else _joints_at_20_fps(*body_joints(file))
    except ValueError as error:
        return {clip.motion_id: str(error) for clip in clips}
    problems = {}
    for clip in clips:
        part = joints[:, :NUM_JOINTS] if clip.is_humanact12 else _cut(joints, clip)
        if len(part) < 2:
            problems[clip.motion_id] = f"{file}: {len(joints)} frames, the clip is of {clip.start} to {clip.end}"
            continue
        save_array(joints_dir / f"{clip.motion_id}.npy", np.ascontiguousarray(part, np.float32))
    return problems


def _humanact12(file: Path) -> np.ndarray:
    """(frames, joints, 3), Y up, at 20 frames per second already."""
    try:
        joints = read_array(file)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    if joints.ndim != 3 or joints.shape[1] < NUM_JOINTS or joints.shape[2] != 3:
        raise ValueError(f"{file}: shape {joints.shape}, wanted (frames, {NUM_JOINTS} joints or more, 3)")
    return joints


def _joints_at_20_fps(joints: np.ndarray, fps: float) -> np.ndarray:
    """(frames, joints, 3), Z up, at any rate -> (fewer frames, 22, 3), Y up."""
    stride = int(fps / FPS)
    if stride < 1:
        raise ValueError(f"{fps:g} frames per second; HumanML3D takes recordings of {FPS} or more.")
    return joints[::stride, :NUM_JOINTS, [0, 2, 1]]


def _cut(joints: np.ndarray, clip: IndexRow) -> np.ndarray:
    lead_in = next((int(seconds * FPS) for name, seconds in _LEAD_IN.items() if name in clip.source), 0)
    return joints[lead_in:][clip.start : clip.end] * np.array([-1, 1, 1])


def _copy_texts(texts: Path, source: Path, motion_ids: Sequence[str], mirror: bool) -> None:
    """Captions of the clips that there are, and of their mirrored ones where somebody wrote them."""
    names = [f"{prefix}{motion_id}.txt" for motion_id in motion_ids for prefix in (("", "M") if mirror else ("",))]
    for name in names:
        file, target = texts / TEXTS_DIR / name, source / TEXTS_DIR / name
        if not file.is_file():
            target.unlink(missing_ok=True)
        elif not target.is_file() or target.stat().st_mtime_ns != file.stat().st_mtime_ns:
            save_bytes(target, file.read_bytes())
            shutil.copystat(file, target)
