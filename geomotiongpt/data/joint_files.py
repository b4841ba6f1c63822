"""Joint positions as plain tables: `.npy`, `.npz` and `.csv`; also what this package itself writes."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..models.motion_representation import (
    MOTION_REPRESENTATIONS,
    MotionRepresentation,
    features_to_joints,
    get_motion_representation,
)
from .bvh import MAX_JOINTS, MAX_POSITIONS
from .input_files import read_bytes, read_npy, read_npz, read_texts, to_text
from .source_motion import SourceMotion

# Joints of SMPL, SMPL-H and SMPL-X as their programs give them; the first 22 are those of "humanml3d".
_COUNTS_OF_SMPL = (22, 24, 52, 55, 73, 127, 144)
JOINT_ARRAYS = ("joints", "positions", "joint_positions", "keypoints3d")
_NAMES = ("names", "joint_names")
_FEATURES, _REPRESENTATION = "features", "representation"  # as `export_motion` writes them
FRAME_RATES = ("fps", "mocap_framerate", "mocap_frame_rate", "framerate", "frame_rate")
_SEPARATORS = " _.:-("
_LONGEST_COLUMN, _LONGEST_HEADER = 200, 2**20
_SECONDS = {"time", "seconds", "time_s", "time (s)", "time (seconds)", "timestamp", "t"}
_AXES = "xyz"


def read_joint_array(path: Path, representation: str = "humanml3d") -> SourceMotion:
    """Joints (frames, joints, 3) of a `.npy` file, or those of features (frames, F) of this package.

    As many joints as the wanted representation has, and SMPL has not, are taken for its own.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds something else.
    """
    array = read_npy(path, "motion")
    of_width = {layout.num_features: layout for layout in MOTION_REPRESENTATIONS.values()}
    if array.ndim == 2 and len(array) and array.shape[1] in of_width and array.dtype.kind == "f":
        layout = of_width[array.shape[1]]
        return _own_joints(f"{layout.name} features in an .npy file", _joints_of(array, layout, path), path, layout)
    layout = get_motion_representation(representation)
    if array.ndim == 3 and array.shape[1:] == (layout.num_joints, 3) and layout.num_joints not in _COUNTS_OF_SMPL:
        return _own_joints(f"{layout.name} joints in an .npy file", array, path, layout)
    return _to_source("joints in an .npy file", array, path)


def read_joint_archive(path: Path) -> SourceMotion:
    """Joints of an `.npz` file: `joints` (frames, joints, 3), and if it has them `names` and `fps`.

    Files that `export_motion` wrote say in `representation` what joints they are.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds something else.
    """
    arrays = read_npz(path, "motion", {*JOINT_ARRAYS, *_NAMES, *FRAME_RATES, _REPRESENTATION})
    key = next((name for name in JOINT_ARRAYS if name in arrays), None)
    if key is None:
        raise ValueError(
            f"{path}: no array `joints` (frames, joints, 3) in it, nor `poses` and `trans` of a body model."
        )
    called = next((arrays[name] for name in _NAMES if name in arrays), None)
    try:
        if called is not None and called.size > MAX_JOINTS:
            raise ValueError(f"{called.size} names of joints; wanted {MAX_JOINTS} at most")
        names = None if called is None else tuple(read_texts(called))
        layout = _own_layout(arrays)
    except ValueError as error:
        raise ValueError(f"{path}: {error}.") from None
    fps = read_frame_rate(arrays, path)
    if names is None and layout is not None and arrays[key].shape[1:] == (layout.num_joints, 3):
        return _own_joints(f"{layout.name} joints in an .npz file", arrays[key], path, layout, fps)
    return _to_source("joints in an .npz file", arrays[key], path, names, fps)


def read_own_features(path: Path, representation: str) -> np.ndarray | None:
    """The features (frames, F) in an `.npz` file that `export_motion` wrote; None if it has none of this kind.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged.
    """
    arrays = read_npz(path, "motion", {_FEATURES, _REPRESENTATION, *FRAME_RATES})
    layout = get_motion_representation(representation)
    try:
        is_own = _own_layout(arrays) is layout and read_frame_rate(arrays, path) == layout.fps
    except ValueError:
        return None  # which the reader of joints tells
    features = arrays.get(_FEATURES)
    return features if is_own and features is not None and features.shape[1:] == (layout.num_features,) else None


def _joints_of(features: np.ndarray, layout: MotionRepresentation, path: Path) -> np.ndarray:
    if not np.isfinite(features).all():
        raise ValueError(f"{path}: there is a NaN or infinite value among its features.")
    return features_to_joints(features.astype(np.float64), layout.name)


def _own_layout(arrays: dict[str, np.ndarray]) -> MotionRepresentation | None:
    """What a file of this package says of itself."""
    texts = read_texts(arrays[_REPRESENTATION]) if _REPRESENTATION in arrays else []
    return MOTION_REPRESENTATIONS.get(texts[0]) if len(texts) == 1 else None


def _own_joints(
    kind: str, joints: np.ndarray, path: Path, layout: MotionRepresentation, fps: float | None = None
) -> SourceMotion:
    """Joints (frames, J, 3) in the unit and the axes of a representation, at its frame rate unless told."""
    source = _to_source(kind, joints, path, layout.joint_names, fps or layout.fps)
    in_order = layout.joint_names == get_motion_representation("humanml3d").joint_names
    return replace(
        source,
        parents=layout.parents,
        layout=layout.joint_names if in_order else None,
        unit_in_metres=layout.unit_in_metres,
        unit_source=f"that of {layout.name}",
        up="y",
    )


def read_frame_rate(arrays: dict[str, np.ndarray], path: Path) -> float | None:
    """The frame rate in an archive; None if there is none.

    Raises:
        ValueError: if it is no positive number.
    """
    for name in FRAME_RATES:
        if name in arrays:
            value = arrays[name]
            if value.size != 1 or value.dtype.kind not in "fiu" or not 1e-2 <= float(value.ravel()[0]) <= 1e5:
                raise ValueError(f"{path}: `{name}` is {str(value)[:60]}; wanted frames per second.")
            return float(value.ravel()[0])
    return None


def _to_source(
    kind: str, joints: np.ndarray, path: Path, names: tuple[str, ...] | None = None, fps: float | None = None
) -> SourceMotion:
    if joints.ndim != 3 or joints.shape[2] != 3 or joints.dtype.kind not in "fiu":
        raise ValueError(f"{path}: joints have the shape {joints.shape} ({joints.dtype}); wanted (frames, joints, 3).")
    count = joints.shape[1]
    if not 0 < count <= MAX_JOINTS or joints.shape[0] * count > MAX_POSITIONS:
        raise ValueError(f"{path}: {joints.shape[0]} frames of {count} joints; cut it into parts of fewer frames.")
    if names is not None and len(names) != count:
        raise ValueError(f"{path}: {len(names)} names for {count} joints; give one for each.")
    layout = None
    if names is None:
        layout = get_motion_representation("humanml3d").joint_names if count in _COUNTS_OF_SMPL else None
        names = tuple(map(str, range(count)))
        if layout is not None:
            names = (*layout, *names[len(layout) :])
    with np.errstate(invalid="ignore"):  # NaN is told of where joints are used
        positions = joints.astype(np.float64)
    return SourceMotion(kind, names, positions, fps=fps, layout=layout)


def read_joint_table(path: Path) -> SourceMotion:
    """Joints of a `.csv` file: a first line of names such as `Hips.x`, `Hips.y`, `Hips.z`, then a line a frame.

    Commas, semicolons or tabs stand between the cells; beside the latter two numbers may have decimal commas. A column
    `time`, in seconds, gives the frame rate.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds something else, or a cell is empty.
    """
    content = read_bytes(path, "CSV")
    line, _, body = content.partition(b"\n")
    if len(line) > _LONGEST_HEADER:
        raise ValueError(f"{path}: its first line has {len(line)} bytes; wanted {_LONGEST_HEADER} at most, of names.")
    header = to_text(line).strip()
    delimiter = max(",;\t", key=header.count)
    try:
        columns = [name.strip() for name in next(csv.reader([header], delimiter=delimiter))]
    except csv.Error as error:
        raise ValueError(f"{path}: its first line is no list of names: {error}.") from None
    joints = _joint_columns(columns, path)
    if delimiter != ",":
        body = body.replace(b",", b".")
    if not body.strip():
        raise ValueError(f"{path}: there is no line of numbers in it.")
    try:
        used = [at for places in joints.values() for at in places]
        times = next((at for at, name in enumerate(columns) if name.lower() in _SECONDS), None)
        used += [] if times is None else [times]
        table = np.loadtxt(
            io.BytesIO(body),
            delimiter=delimiter,
            usecols=used,
            ndmin=2,
            comments=None,
            quotechar='"',
            encoding="latin-1",
        )
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"{path}: line 1 and those below it do not go together: {' '.join(str(error).split())}"
        ) from None
    positions = table[:, : 3 * len(joints)].reshape(len(table), len(joints), 3)
    if positions.size // 3 > MAX_POSITIONS:
        raise ValueError(f"{path}: {len(table)} frames of {len(joints)} joints; cut it into parts of fewer frames.")
    fps = None if times is None else _rate_of_times(table[:, -1], path)
    source = SourceMotion("joints in a CSV file", tuple(joints), positions, fps=fps)
    layouts = [layout for layout in MOTION_REPRESENTATIONS.values() if layout.joint_names == source.names]
    return replace(source, parents=layouts[0].parents) if layouts else source  # as this package writes them


def _joint_columns(columns: list[str], path: Path) -> dict[str, list[int]]:
    """For each joint its columns of x, y and z."""
    places: dict[str, list[int | None]] = {}
    for at, column in enumerate(columns):
        joint, axis = _read_column(column[:_LONGEST_COLUMN])
        if joint:
            places.setdefault(joint, [None] * 3)[axis] = at
    joints = {name: [at for at in axes if at is not None] for name, axes in places.items() if None not in axes}
    if not 0 < len(joints) <= MAX_JOINTS:
        raise ValueError(
            f"{path}: its first line names {len(joints)} joints; wanted columns such as Hips.x, Hips.y, Hips.z for 1 "
            f"to {MAX_JOINTS} joints, and got {', '.join(columns[:20])[:120]!r}."
        )
    return joints


def _read_column(column: str) -> tuple[str, int]:
    """`"Hips_Tx"`, `"Hips.position.x"`, `"Hips (x)"`, `"HipsX"` -> `("Hips", 0)`; `("", 0)` of another column."""
    name = column.rstrip(") ")
    axis = _AXES.find(name[-1:].lower())
    name, before = name[:-1], name[-2:-1]
    apart = before in _SEPARATORS or before in "tT" or (column.rstrip(") ")[-1:].isupper() and before.islower())
    if axis < 0 or not before or not apart:
        return "", 0
    for word in ("", "position", "translate", "pos", "t"):
        stem = name.rstrip(_SEPARATORS)
        start = stem[: len(stem) - len(word)]
        if stem.lower().endswith(word) and (start[-1:] in _SEPARATORS or (start[-1:].islower() and stem[-1:] == "T")):
            name = start
    return name.rstrip(_SEPARATORS), axis


def _rate_of_times(times: np.ndarray, path: Path) -> float:
    steps = np.diff(times)
    if not len(steps):
        raise ValueError(f"{path}: one frame; a motion needs two.")
    step = float(np.median(steps))
    if not (1e-5 <= step <= 100 and np.abs(steps - step).max() < step / 2):
        raise ValueError(
            f"{path}: its times do not go up in equal steps; repair them, or drop the column and give fps=."
        )
    return (len(times) - 1) / float(times[-1] - times[0])
