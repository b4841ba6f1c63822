"""Motion files of other programs and a table of captions -> a data set."""

import hashlib
import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..models.motion_representation import get_motion_representation
from .builder import SOURCE_JOINTS_DIR, BuildReport, build_motion_dataset, map_in_processes, save_report
from .caption_table import CaptionRow, raise_problems, read_caption_table
from .import_motion import MOTION_SUFFIXES, import_motion
from .motion_folder import TEXTS_DIR, remove_partial_files, save_array, save_bytes
from .text_files import CaptionSegment, format_caption_line

SOURCE_DIR = "source"  # of the folder that is built: clips as joints
_NOT_IN_IDS = re.compile(r"[\s#]+")
_VAL_SHARE, _TEST_SHARE = 0.1, 0.1
_OPTIONS_OF = {"skeleton": ".amc", "body_models": ".npz"}  # import_motion refuses them for other files


@dataclass(frozen=True)
class _Captioned:
    """A motion file and what the table says of it."""

    motion_id: str
    path: Path
    rows: tuple[CaptionRow, ...]

    @property
    def split(self) -> str:
        return next((row.split for row in self.rows if row.split), "")


@dataclass(frozen=True)
class _Imported:
    """What came of a file: its length in seconds, how it was read and what is probably wrong, or why it was not."""

    seconds: float = 0.0
    reading: str = ""
    warnings: tuple[str, ...] = ()
    problem: str = ""


def build_from_files(
    source_dir: str | Path,
    captions: str | Path,
    output_dir: str | Path,
    *,
    representation: str = "humanml3d",
    mirror: bool = True,
    retarget: bool = True,
    skip_damaged: bool = False,
    num_proc: int | None = None,
    show_progress: bool = True,
    **import_options: Any,
) -> BuildReport:
    """Builds a data set from motion files (BVH, AMC, C3D, SMPL parameters, joints) and a table of their captions.

    Files are imported by `import_motion`. Nothing is written before all of them and all rows of the table are found
    to be of use. Files without a caption are left out. Clips are called after their files: `takes/walk 1.bvh` becomes
    `takes_walk_1`. Those without a split in the table stay where an earlier build into the same folder had them, even
    if only its table said so; new ones fall into train, val (1 in 10) and test (1 in 10) by a hash of their name. If
    the table gives no splits, and chance none to val or test, the clip that comes nearest goes there.

    Args:
        source_dir: folder with the motion files, anywhere below it.
        captions: CSV file with the columns `file` (its path below the folder; the ending may be left out) and
            `caption`, and optionally `start` and `end` in seconds, of captions of a part, and `split`. Several rows of
            a file are several captions.
        output_dir: folder to write; new, or of an earlier run.
        representation: name of the motion representation.
        mirror: whether to add mirrored clips.
        retarget: whether to give all clips the bone lengths of the representation's target skeleton.
        skip_damaged: leave out files that cannot be imported, and say so, instead of building nothing.
        num_proc: worker processes; by default the work is done in this one.
        show_progress: whether to show progress bars.
        **import_options: `fps`, `unit`, `up`, `mapping`, `skeleton` (of `.amc` files) and `body_models` (of `.npz`
            files), for all files: see `import_motion`.

    Returns:
        what was built; its `notes` say how the files were read and what is probably wrong with them.

    Raises:
        FileNotFoundError: if the folder or the table is missing.
        ModuleNotFoundError: for C3D files, if the extra `mocap` is not installed.
        ValueError: for rows or files that cannot be used, all in one message; or as `build_motion_dataset`.
    """
    output, layout = Path(output_dir), get_motion_representation(representation)
    if retarget and layout.target_bone_lengths is None:
        raise ValueError(f"{representation} has no target skeleton of its own: retarget=False (--no-retarget).")
    files, notes, left_out = _pair(Path(source_dir), Path(captions), mirror)
    place = output.resolve()  # "." has no name
    name = f".{place.name}.{os.getpid()}.partial"
    # A folder that is there may be a disk of its own, or all that may be written to.
    aside = place / name if place.is_dir() else place.with_name(name)
    aside.mkdir(parents=True)
    try:
        read = partial(_import, aside=aside, representation=representation, options=import_options)
        results = tqdm(
            map_in_processes(read, files, num_proc),
            "Importing",
            len(files),
            unit="file",
            disable=not show_progress or None,
        )
        imported = dict(zip(files, results, strict=True))
        texts, cut = _texts(imported)
        damaged = {file: result.problem for file, result in imported.items() if result.problem}
        if not skip_damaged or len(damaged) == len(files):
            raise_problems(
                list(damaged.values()),
                "nothing is written, for some files cannot be used; repair them, take them out of the table, or leave "
                "them out (--skip-damaged, skip_damaged=True)",
            )
        usable = [file for file in files if file not in damaged]
        earlier = read_splits(output / SOURCE_DIR)
        splits, moved = spread_over_splits({file.motion_id: file.split for file in usable}, earlier)
        _write_source(output / SOURCE_DIR, aside, texts, splits)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    report = build_motion_dataset(
        output / SOURCE_DIR,
        output,
        representation,
        mirror=mirror,
        retarget=retarget,
        num_proc=num_proc,
        show_progress=show_progress,
    )
    readings = Counter(result.reading for result in imported.values() if not result.problem)
    report.notes = [f"{len(usable)} of {len(files)} files imported"]
    report.notes += [f"{count} {reading}" for reading, count in readings.most_common()]
    report.notes += moved
    report.notes += [f"{file.path}: {text}" for file, result in imported.items() for text in result.warnings]
    report.notes += notes + cut
    report.left_out += [*((file.motion_id, problem) for file, problem in damaged.items()), *left_out]
    save_report(report, output)
    return report


# Files and rows


def _pair(root: Path, table: Path, mirror: bool) -> tuple[list[_Captioned], list[str], list[tuple[str, str]]]:
    """The files with captions, what else to know of the table, and files without captions."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; give the one with the motion files.")
    rows, unused = read_caption_table(table)
    found = {
        unicodedata.normalize("NFC", path.relative_to(root).as_posix()): path  # a Mac spells an accent apart
        for path in sorted(root.rglob("*"))
        if path.suffix.lower() in MOTION_SUFFIXES and path.is_file() and path.resolve() != table.resolve()
    }
    stems: dict[str, list[str]] = {}
    for name in found:
        stems.setdefault(name[: -len(Path(name).suffix)], []).append(name)
    of_file: dict[str, list[CaptionRow]] = {}
    problems = []
    for row in rows:
        wanted = unicodedata.normalize("NFC", row.file.replace("\\", "/").removeprefix("./"))
        names = [wanted] if wanted in found else stems.get(wanted, [])
        if len(names) == 1:
            of_file.setdefault(names[0], []).append(row)
        else:
            problems.append(
                f"line {row.line}: {row.file}: {'which of ' + ', '.join(names) if names else f'not in {root}'}"
            )
    files = [_Captioned(_id_of(name), found[name], tuple(of)) for name, of in sorted(of_file.items())]
    problems += _conflicts(files, mirror)
    raise_problems(problems, f"{table}: rows that cannot be used")
    notes = [f"{table}: the column {name!r} is of no use" for name in unused]
    left_out = [(_id_of(name), f"{path}: no caption") for name, path in found.items() if name not in of_file]
    return files, notes, left_out


def _id_of(name: str) -> str:
    return _NOT_IN_IDS.sub("_", name[: -len(Path(name).suffix)].replace("/", "_"))


def _conflicts(files: Sequence[_Captioned], mirror: bool) -> list[str]:
    """Files that would have one name, and such of which the table gives two splits."""
    problems: list[str] = []
    by_id: dict[str, Path] = {}
    for file in files:
        if file.motion_id in by_id:
            problems.append(f"{by_id[file.motion_id]} and {file.path} would both be called {file.motion_id}")
        by_id[file.motion_id] = file.path
        splits = sorted({row.split for row in file.rows if row.split})
        if len(splits) > 1:
            problems.append(f"{file.path} is said to be in {' and in '.join(splits)}")
    for taken in sorted(by_id) if mirror else ():
        if f"M{taken}" in by_id:
            problems.append(f"{by_id[f'M{taken}']} is called as the mirrored clip of {by_id[taken]} would be")
    return problems


def _import(file: _Captioned, aside: Path, representation: str, options: Mapping[str, Any]) -> _Imported:
    """Writes the joints of a file into the folder `aside`."""
    suffix = file.path.suffix.lower()
    options = {name: value for name, value in options.items() if _OPTIONS_OF.get(name, suffix) == suffix}
    try:
        motion = import_motion(file.path, representation=representation, **options)
    except (ValueError, FileNotFoundError) as error:
        return _Imported(problem=str(error))
    save_array(aside / f"{file.motion_id}.npy", motion.joints)
    report = motion.report
    reading = f"as {report.kind}, {report.fps[0]:g} frames per second, unit {report.unit[0]:.4g} m, {report.up[0]} up"
    seconds = len(motion.joints) / get_motion_representation(representation).fps
    return _Imported(seconds, reading, report.warnings)


def _texts(imported: dict[_Captioned, _Imported]) -> tuple[dict[str, str], list[str]]:
    """Content of the caption files by ids, and what was cut; who has no caption left becomes a problem."""
    texts, notes = {}, []
    for file, result in imported.items():
        if result.problem:
            continue
        kept: list[CaptionSegment] = []
        for row in file.rows:
            segment = row.segment.within(result.seconds)
            where = f"line {row.line}: {row.file}"
            if segment is None:
                problem = f"{where}: starts at {row.segment.start:g} s, but the motion lasts {result.seconds:g} s"
                imported[file] = _Imported(problem=problem)
                break
            kept.append(segment)
            if row.segment.end > result.seconds and np.isfinite(row.segment.end):
                notes.append(f"{where}: ends at {row.segment.end:g} s, cut to the motion's {result.seconds:g} s")
        else:
            texts[file.motion_id] = "".join(f"{format_caption_line(segment)}\n" for segment in kept)
    return texts, notes


# Splits


def read_splits(source: Path) -> dict[str, str]:
    """Id of each clip -> its split, as an earlier build from files left it."""
    lists = {path.stem: path.read_text(encoding="utf-8").split() for path in sorted(source.glob("*.txt"))}
    return {motion_id: split for split, ids in lists.items() for motion_id in ids}


def spread_over_splits(
    given: Mapping[str, str], earlier: Mapping[str, str] | None = None
) -> tuple[dict[str, list[str]], list[str]]:
    """The clips of each split: the one that is given, or that it was in, or train, val or test by a hash of its name.

    Args:
        given: id of each clip -> its split, or "". If all have "" and chance leaves a split empty, the clip that comes
            nearest goes there.
        earlier: id -> split of clips that were spread before: what was tested on is not trained on later.

    Returns:
        the clips of each split, and notes on those that are not where chance would have put them.
    """
    shares = {motion_id: _share(motion_id) for motion_id in given}
    earlier = earlier or {}
    chosen = {
        motion_id: split or earlier.get(motion_id) or _split_of(shares[motion_id])
        for motion_id, split in given.items()
    }
    notes = []
    if not any(given.values()):
        for split, nearest in (("train", max), ("val", min), ("test", min)):
            others = [motion_id for motion_id, of in chosen.items() if list(chosen.values()).count(of) > 1]
            if split not in chosen.values() and (others or split == "train"):
                moved = nearest(others or list(chosen), key=shares.__getitem__)
                chosen[moved] = split
                notes.append(f"{moved} is in {split}, which would have no clip by chance")
    stay = [
        motion_id
        for motion_id, split in chosen.items()
        if not given[motion_id] and split == earlier.get(motion_id) != _split_of(shares[motion_id])
    ]
    if stay:
        notes.append(
            "clips without a split in the table that stay where an earlier build had them, and not by the hash of "
            f"their name: {len(stay)} ({stay[0]} ...); give them a split to move them"
        )
    splits: dict[str, list[str]] = {}
    for motion_id, split in chosen.items():
        splits.setdefault(split, []).append(motion_id)
    return splits, notes


def _share(motion_id: str) -> float:
    """A number from 0 to 1 that depends on the name alone."""
    return int(hashlib.sha256(motion_id.encode()).hexdigest()[:8], 16) / 16**8


def _split_of(share: float) -> str:
    return "test" if share < _TEST_SHARE else "val" if share < _TEST_SHARE + _VAL_SHARE else "train"


# Writing


def _write_source(source: Path, aside: Path, texts: Mapping[str, str], splits: Mapping[str, Sequence[str]]) -> None:
    """The folder that the builder reads; what has not changed keeps its time, by which the builder knows it."""
    for folder, suffix in ((source / SOURCE_JOINTS_DIR, ".npy"), (source / TEXTS_DIR, ".txt")):
        folder.mkdir(parents=True, exist_ok=True)
        remove_partial_files(folder)
        for path in folder.iterdir():
            if path.stem not in texts:
                path.unlink()
        for motion_id in texts:
            path, new = folder / f"{motion_id}{suffix}", aside / f"{motion_id}{suffix}"
            if suffix == ".txt":
                save_bytes(new, texts[motion_id].encode())
            if not path.is_file() or path.read_bytes() != new.read_bytes():
                os.replace(new, path)
    for path in source.glob("*.txt"):
        if path.stem not in splits:
            path.unlink()
    for name, ids in splits.items():
        save_bytes(source / f"{name}.txt", "".join(f"{motion_id}\n" for motion_id in ids).encode())
