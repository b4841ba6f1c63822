"""Folders of motions for the tests in this directory: sources for the builder and finished ones for the loader."""

import resource
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from datasets import Array2D, Dataset, Features, List, Value

from geomotiongpt.models.motion_representation import get_motion_representation

CAPTIONS = "a person raises the left hand.#a/DET person/NOUN raise/VERB the/DET left/ADJ hand/NOUN#0.0#0.0\n"


def make_joints(num_frames: int, seed: int = 0, representation: str = "humanml3d") -> np.ndarray:
    """A standing person that walks a curve and sways in every joint."""
    layout = get_motion_representation(representation)
    rng = np.random.default_rng(seed)
    pose = np.zeros((layout.num_joints, 3))
    for joint in range(1, layout.num_joints):
        parent = next(chain[chain.index(joint) - 1] for chain in layout.kinematic_chains if joint in chain[1:])
        pose[joint] = pose[parent] + 0.25 * np.asarray(layout.raw_offsets[joint])
    time = np.linspace(0, num_frames / layout.fps, num_frames)[:, None, None]
    sway = 0.05 * np.sin(rng.uniform(1, 4, pose.shape) * time + rng.uniform(0, 6, pose.shape))
    path = np.concatenate([0.4 * np.sin(time), 0 * time, 0.8 * time], axis=2)
    return ((pose + sway + path) / layout.unit_in_metres).astype(np.float32)


def write_split_lists(folder: Path, splits: Mapping[str, Sequence[str]]) -> None:
    for name, ids in splits.items():
        (folder / f"{name}.txt").write_text("".join(f"{motion_id}\n" for motion_id in ids))


def write_source(folder: Path, splits: Mapping[str, Sequence[str]], representation: str = "humanml3d") -> Path:
    """A folder for the builder: clips of 20, 21, ... frames."""
    for name in ("joints", "texts"):
        (folder / name).mkdir(parents=True)
    for index, motion_id in enumerate(dict.fromkeys(i for ids in splits.values() for i in ids)):
        np.save(folder / "joints" / f"{motion_id}.npy", make_joints(20 + index, index, representation))
        (folder / "texts" / f"{motion_id}.txt").write_text(CAPTIONS)
    write_split_lists(folder, splits)
    return folder


def write_finished(
    folder: Path, splits: Mapping[str, Sequence[str]], representation: str = "humanml3d", num_frames: int = 50
) -> Path:
    """A folder for the loader, with random features."""
    width = get_motion_representation(representation).num_features
    for name in ("new_joint_vecs", "texts"):
        (folder / name).mkdir(parents=True)
    for index, motion_id in enumerate(dict.fromkeys(i for ids in splits.values() for i in ids)):
        features = np.random.default_rng(index).normal(size=(num_frames, width)).astype(np.float32)
        np.save(folder / "new_joint_vecs" / f"{motion_id}.npy", features)
        (folder / "texts" / f"{motion_id}.txt").write_text(CAPTIONS)
    np.save(folder / "Mean.npy", np.zeros(width, np.float32))
    np.save(folder / "Std.npy", np.ones(width, np.float32))
    write_split_lists(folder, splits)
    return folder


@contextmanager
def full_disk(after_bytes: int) -> Iterator[None]:
    """No file can grow beyond some size, so that writing fails halfway, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


_NUMBERED = Features(
    {"motion_id": Value("string"), "motion": Array2D((None, 263), "float32"), "captions": List(Value("string"))}
)


def make_numbered_clips(*lengths: int) -> Dataset:
    """Clips whose features hold 1000 * clip + frame."""
    rows = [
        {
            "motion_id": f"clip{index}",
            "motion": np.repeat(1000.0 * index + np.arange(length)[:, None], 263, 1).astype(np.float32),
            "captions": [f"caption {index}"],
        }
        for index, length in enumerate(lengths)
    ]
    return Dataset.from_list(rows, features=_NUMBERED).with_format(
        "numpy", columns=["motion"], output_all_columns=True
    )
