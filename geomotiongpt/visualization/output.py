"""What every viewer shares: arrays in, finished files out."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch


def to_array(values: np.ndarray | torch.Tensor) -> np.ndarray:
    """Return `values` (array, list or tensor on any device) as a float64 array."""
    if isinstance(values, torch.Tensor):
        values = values.detach().double().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


def check_output_path(path: str | os.PathLike, suffixes: tuple[str, ...]) -> Path:
    """Return `path` as a `Path`, or raise `ValueError` unless it ends in one of `suffixes`."""
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"cannot write {path}: the file name must end in {' or '.join(suffixes)}")
    return path


def write_aside(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    """Let `write` fill a file beside `path`, then rename it: `path` is complete or untouched.

    Missing parent folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "wb") as file:
            write(file)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return path
