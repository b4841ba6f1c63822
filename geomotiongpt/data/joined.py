"""Several built data sets as one folder: ids with the name of their set before them, statistics over all."""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..models.motion_representation import get_motion_representation
from .builder import finish_motion_folder
from .motion_folder import (
    FEATURES_DIR,
    JOINTS_DIR,
    TEXTS_DIR,
    list_splits,
    read_array,
    read_split_list,
    remove_partial_files,
    save_bytes,
    without_repeats,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_SEPARATOR = "_"


def join_motion_folders(
    sources: Mapping[str, str | Path], output_dir: str | Path, representation: str = "humanml3d"
) -> dict[str, int]:
    """Join built folders into one, with files that are linked where the disk can, else copied.

    The clip `<id>` of the data set `<name>` becomes `<name>_<id>`, its mirrored clip `M<id>` becomes `M<name>_<id>`.
    Split lists of the same name become one. `Mean.npy` and `Std.npy` are made anew over all clips of `train`, and the
    split lists are written last: a folder that has them is complete. A run that was stopped can be run again.

    Args:
        sources: name of each data set (letters, digits and `-`) -> its folder in the HumanML3D layout.
        output_dir: folder to write; new, or of an earlier run over the same sources.
        representation: name of the motion representation of all of them.

    Returns:
        clips in each split list written.

    Raises:
        FileNotFoundError: if a folder, one of its parts or a file of a listed clip is missing, or no data set has a
            split `train`.
        ValueError: for fewer than two data sets, a name that cannot be part of an id, motions of another width, ids
            that would meet, or an output folder that holds other files.
    """
    output, folders = Path(output_dir), {name: Path(folder) for name, folder in sources.items()}
    _check_sources(folders, output)
    splits: dict[str, list[str]] = {}
    clips: dict[str, tuple[Path, str]] = {}
    for name, folder in folders.items():
        lists = {split: without_repeats(read_split_list(folder, split))[0] for split in list_splits(folder)}
        ids = {clip_id for listed in lists.values() for clip_id in listed}
        _check_width(folder, next(iter(lists.values()))[0], representation)
        new = {clip_id: _joined_id(name, clip_id, ids) for clip_id in ids}
        for clip_id, joined in new.items():
            if joined in clips:
                other, its_id = clips[joined]
                raise ValueError(f"{folder}: {clip_id} would be {joined}, as {its_id} of {other}: rename a data set.")
            clips[joined] = folder, clip_id
        for split, listed in lists.items():
            splits.setdefault(split, []).extend(new[clip_id] for clip_id in listed)
    if "train" not in splits:
        raise FileNotFoundError(f"none of {', '.join(map(str, folders.values()))} has a train.txt, which Mean needs.")
    _write_clips(clips, output)
    finish_motion_folder(output, splits, representation)
    return {split: len(listed) for split, listed in splits.items()}


def data_set_of(motion_id: str) -> str:
    """The name of the data set that a clip of a joined folder comes from; "" if it has none before its id."""
    name, separator, _ = motion_id.removeprefix("M").partition(_SEPARATOR)
    return name if separator else ""


def weighted_rows(motion_ids: Sequence[str], weights: Mapping[str, int]) -> list[int]:
    """Rows of a joined data set, each as often as the weight of its data set says; 1 where it has none.

    Raises:
        ValueError: for a weight below 1, or a data set that no clip comes from.
    """
    names = [data_set_of(motion_id) for motion_id in motion_ids]
    wrong = {name: weight for name, weight in weights.items() if weight < 1 or int(weight) != weight}
    if wrong:
        raise ValueError(f"data.weights has {wrong}; give whole numbers, 1 or more: how often an epoch shows a clip.")
    unknown = sorted(set(weights) - set(names))
    if unknown:
        known = ", ".join(sorted(set(names) - {""})) or "none, for it is not a joined folder"
        raise ValueError(f"data.weights names {', '.join(unknown)}; the data sets of this folder are {known}.")
    return [row for row, name in enumerate(names) for _ in range(int(weights.get(name, 1)))]


def _joined_id(name: str, clip_id: str, ids: set[str]) -> str:
    if clip_id.startswith("M") and clip_id[1:] in ids:
        return f"M{name}{_SEPARATOR}{clip_id[1:]}"
    return f"{name}{_SEPARATOR}{clip_id}"


def _check_sources(folders: Mapping[str, Path], output: Path) -> None:
    if len(folders) < 2:
        raise ValueError(f"{len(folders)} data set is given; give two or more to join.")
    for name, folder in folders.items():
        if not _NAME.fullmatch(name) or name.startswith("M"):
            raise ValueError(f"{name!r} cannot stand before an id: letters, digits and '-', not an M at the start.")
        for part in (folder, folder / FEATURES_DIR, folder / TEXTS_DIR):
            if not part.is_dir():
                raise FileNotFoundError(f"{part}: no such folder; join what `geomotiongpt build-data` wrote.")
        if folder.resolve() == output.resolve():
            raise ValueError(f"{output}: the output folder is one of those to join; choose another.")


def _check_width(folder: Path, clip_id: str, representation: str) -> None:
    wanted = get_motion_representation(representation).num_features
    width = read_array(folder / FEATURES_DIR / f"{clip_id}.npy").shape[-1]
    if width != wanted:
        raise ValueError(f"{folder}: motions have {width} features, those of {representation} {wanted}.")


def _write_clips(clips: Mapping[str, tuple[Path, str]], output: Path) -> None:
    parts = ((FEATURES_DIR, ".npy"), (JOINTS_DIR, ".npy"), (TEXTS_DIR, ".txt"))
    links: list[tuple[Path, Path]] = []
    for joined, (folder, clip_id) in clips.items():
        for part, suffix in parts:
            source = folder / part / f"{clip_id}{suffix}"
            if source.is_file():
                links.append((source, output / part / f"{joined}{suffix}"))
            elif part != JOINTS_DIR:  # nothing is trained on joints
                raise FileNotFoundError(f"{source} is missing, but {clip_id} is in a split list of {folder}.")
    for part, suffix in parts:
        (output / part).mkdir(parents=True, exist_ok=True)
        remove_partial_files(output / part)
        others = sorted({path.name for path in (output / part).iterdir()} - {f"{joined}{suffix}" for joined in clips})
        if others:
            raise ValueError(
                f"{output / part} holds {others[0]}, which none of the data sets has: choose a new folder."
            )
    for path in (*output.glob("*.txt"), *output.glob("Mean.npy"), *output.glob("Std.npy")):
        path.unlink()  # not complete any more
    for source, target in links:
        _link_or_copy(source, target)


def _link_or_copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        save_bytes(target, source.read_bytes())
        shutil.copystat(source, target)
