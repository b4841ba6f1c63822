"""The HumanML3D folder on disk: split lists, arrays, and writes that leave nothing half-written."""

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np

FEATURES_DIR = "new_joint_vecs"
JOINTS_DIR = "new_joints"
TEXTS_DIR = "texts"
_TEMPORARY_PATTERN = ".*.partial"
_STANDARD_SPLITS = ("train", "val", "test")


def list_splits(folder: Path) -> list[str]:
    """Names of the split lists (`*.txt`) at the top of a folder: train, val and test first, others by name."""
    names = {path.stem for path in folder.glob("*.txt")}
    return [name for name in _STANDARD_SPLITS if name in names] + sorted(names.difference(_STANDARD_SPLITS))


def read_split_list(folder: Path, split: str) -> list[str]:
    """Read the clip ids of a split list, in order.

    Raises:
        `FileNotFoundError`: The list does not exist; the message names those that do.
        `ValueError`: The list is empty, or a line is not one word.
    """
    path = folder / f"{split}.txt"
    if not path.is_file():
        found = ", ".join(list_splits(folder)) or "none (was the folder built to the end?)"
        raise FileNotFoundError(f"{path}: no such split list; lists in this folder: {found}")
    ids = [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n")]
    for number, clip_id in enumerate(ids, 1):
        if len(clip_id.split()) > 1 or "/" in clip_id or "#" in clip_id:
            raise ValueError(
                f"{path}:{number}: {clip_id[:60]!r} is not a clip id; every .txt file at the top of the folder is "
                "read as a split list with one id a line, so move other text files away"
            )
    ids = [clip_id for clip_id in ids if clip_id]
    if not ids:
        raise ValueError(f"{path}: the split is empty; wanted one clip id a line")
    return ids


def without_repeats(ids: list[str]) -> tuple[list[str], list[str]]:
    """The ids in order, each once; and those that came again."""
    seen: set[str] = set()
    repeated = [clip_id for clip_id in ids if clip_id in seen or seen.add(clip_id)]  # type: ignore[func-returns-value]
    return list(dict.fromkeys(ids)), repeated


def read_array(path: Path) -> np.ndarray:
    """Read a float array.

    Raises:
        `FileNotFoundError`: The file does not exist.
        `ValueError`: The file is truncated, is no `.npy` file, holds no real numbers, or holds NaN or infinity.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"not a readable .npy file, truncated perhaps ({error})") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise ValueError(f"holds {getattr(array, 'dtype', type(array).__name__)}, wanted real numbers")
    if not np.isfinite(array).all():
        frames = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(1)) if array.ndim else [0]
        raise ValueError(f"NaN or infinity in {len(frames)} of {len(array) if array.ndim else 1} frames")
    return array


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a `.npy` file, whole or not at all."""
    save_bytes(path, _npy_header(array.dtype.str, array.shape), np.ascontiguousarray(array).data)


@lru_cache
def _npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def save_bytes(path: Path, *contents: bytes | memoryview) -> None:
    """Write a file, whole or not at all.

    Raises:
        `OSError`: The file cannot be written (disk full, no permission); the message names it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(temporary, "wb") as file:
            file.writelines(contents)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):  # a failed write does not say which file it was
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def check_writable(path: Path) -> None:
    """Find out before long work that its result could be written: a file, or a folder.

    Raises:
        `OSError`: It cannot be (disk full, no permission, a file where a folder should be); the message names it.
    """
    wanted = path.absolute() if path.is_dir() else path.absolute().parent
    there = next(folder for folder in (wanted, *wanted.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"0")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def update_file(path: Path, content: bytes) -> None:
    """Write a file if its content is another: one that stays keeps its time, by which what is made of it knows it."""
    if not path.is_file() or path.read_bytes() != content:
        save_bytes(path, content)


def remove_partial_files(folder: Path) -> None:
    """Remove what a killed run left in a folder: files of `save_bytes`, and folders to write aside."""
    for path in folder.glob(_TEMPORARY_PATTERN):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def written_aside(output: Path) -> Iterator[Path]:
    """A new folder to write into. What is in it moves to `output`, which is empty or absent; on an error none does.

    A folder that is there stays the same one: it may be where the user is, a disk, or all that may be written to.
    """
    output = output.resolve()
    name, is_there = f".{output.name}.{os.getpid()}.partial", output.is_dir()
    aside = output / name if is_there else output.with_name(name)
    try:
        aside.mkdir(parents=True)
        yield aside
        if is_there:
            if [path for path in output.iterdir() if path != aside]:
                raise FileExistsError(f"{output} is no longer empty: nothing was written; name a new folder.")
            for path in sorted(aside.iterdir()):
                os.replace(path, output / path.name)
        else:
            os.replace(aside, output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
