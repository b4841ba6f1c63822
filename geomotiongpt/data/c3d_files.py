"""C3D files: markers, or the joints that a program computed of them.

Reading needs the extra `mocap`: pip install 'geomotiongpt[mocap]'.
"""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from .bvh import MAX_JOINTS, MAX_POSITIONS
from .input_files import check_file
from .source_motion import SourceMotion

_UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254, "ft": 0.3048}
_SMALLEST_POINT = 8  # bytes: three coordinates and a word on their quality, as integers
# Markers of Plug-in Gait and of sets made from it; the first of each that is there.
_MARKERS = {
    "left_front": ("LASI", "LFWT"),
    "right_front": ("RASI", "RFWT"),
    "left_back": ("LPSI", "LBWT", "SACR"),
    "right_back": ("RPSI", "RBWT", "SACR"),
    **{
        f"{side}_{part}": (f"{side[0].upper()}{label}",)
        for side in ("left", "right")
        for part, label in (("knee", "KNE"), ("ankle", "ANK"), ("shoulder", "SHO"), ("elbow", "ELB"))
    },
}
_INNER = {
    "knee": ("KNM", "KNI", "MKN", "KNEM"),
    "ankle": ("ANM", "MED", "MMA", "ANKM"),
    "elbow": ("ELM", "MEL", "ELBM"),
}
# Half the breadth of knee and ankle, and how far the shoulder lies below its marker, in distances between the front
# markers of the pelvis (about 24 cm).
_INWARD = {"knee": 0.21, "ankle": 0.15, "elbow": 0.0}
_SHOULDER_DROP = 0.2
# The centre of the hip from the middle of those markers: to the side, back and down, in the same unit. Bell et al., A
# comparison of the accuracy of several hip center location prediction methods (Journal of Biomechanics 23, 1990).
_HIP = (0.36, 0.19, 0.30)
_HEAD_ABOVE_NECK = 0.6  # of the way from the neck to the middle of the head's markers


def read_c3d(path: str | Path) -> SourceMotion:
    """Read a C3D file.

    Markers of the Plug-in Gait set become joints; of others the points are left as they are, to be matched by name.
    Gaps of a marker are filled on a straight line.

    Raises:
        FileNotFoundError: if there is no such file.
        ModuleNotFoundError: if the library that reads it is not installed.
        ValueError: if it is damaged, or holds no points.
    """
    path = Path(path)
    size = check_file(path, "C3D")
    names, positions, seen, fps, unit = _read_points(path, size)
    labels = [name.split(":")[-1].strip() for name in names]
    kept = [at for at, label in enumerate(labels) if label and seen[:, at].any()]
    if not kept or not len(positions):
        raise ValueError(f"{path}: there is no point in it that is ever seen.")
    labels, positions, seen = [labels[at] for at in kept], positions[:, kept], seen[:, kept]
    longest = _fill_gaps(positions, seen)
    notes = [f"markers were lost for up to {longest} frames; gaps are straight lines"] if longest else []
    kind, points = "points of a C3D file", dict(zip(labels, np.moveaxis(positions, 1, 0), strict=True))
    joints = _joints_of_markers(points)
    if joints:
        kind, points = "markers of a C3D file", joints
        notes.append("joints are estimated from markers of the Plug-in Gait set, hips as Bell et al. (1990) do")
    return SourceMotion(
        kind=kind,
        names=tuple(points),
        positions=np.stack([*points.values()], axis=1),
        fps=fps,
        unit_in_metres=_UNITS.get(unit),
        unit_source=f"the file's unit, {unit}",
        notes=tuple(notes),
    )


def _read_points(path: Path, size: int) -> tuple[list[str], np.ndarray, np.ndarray, float | None, str]:
    """Labels, positions (frames, points, 3), whether each is seen (frames, points), frame rate, unit."""
    try:
        import c3d
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{path}: C3D files are read with the library c3d: pip install 'geomotiongpt[mocap]'", name="c3d"
        ) from None
    # Whatever goes wrong in the library, from an assertion to a missing key, means that it cannot read the file.
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader = c3d.Reader(file)
            count, num_frames = int(reader.point_used), int(reader.frame_count)
            if not 0 < count <= MAX_JOINTS or not 0 < num_frames * count <= min(
                MAX_POSITIONS, size // _SMALLEST_POINT
            ):
                raise ValueError(f"it declares {num_frames} frames of {count} points in {size} bytes")
            labels = [str(label) for label in reader.point_labels]
            frames = [points[:, :4].astype(np.float64) for _, points, _ in reader.read_frames(copy=False)]
            rate, unit = float(reader.point_rate), reader.get("POINT:UNITS")
            called = unit.string_value.strip().lower() if unit is not None else ""
    except Exception as error:
        message = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path} is not a readable C3D file: {message}.") from None
    if len(frames) != num_frames or {len(frame) for frame in frames} != {count} or len(labels) < count:
        raise ValueError(f"{path} is cut: it declares {num_frames} frames of {count} points and holds fewer.")
    points = np.stack(frames)
    seen = (points[:, :, 3] >= 0) & (np.abs(points[:, :, :3]) < 1e7).all(-1) & points[:, :, :3].any(-1)
    return labels[:count], points[:, :, :3], seen, rate if 1e-2 <= rate <= 1e5 else None, called


def _fill_gaps(positions: np.ndarray, seen: np.ndarray) -> int:
    """Fills what is not seen, in place; the length of the longest gap."""
    longest, frames = 0, np.arange(len(positions))
    for point in np.flatnonzero(~seen.all(axis=0)):
        here = seen[:, point]
        for axis in range(3):
            positions[:, point, axis] = np.interp(frames, frames[here], positions[here, point, axis])
        edges = np.flatnonzero(np.diff(np.concatenate([[0], ~here, [0]]).astype(int)))
        longest = max(longest, int((edges[1::2] - edges[::2]).max()))
    return longest


def _joints_of_markers(points: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Joints (frames, 3) by name, of markers (frames, 3) by label; none if these are not of the set."""
    known = {label.upper(): positions for label, positions in points.items()}
    marker = {name: _first(known, labels) for name, labels in _MARKERS.items()}
    wrists = [[known[f"{side}{end}"] for end in ("WRA", "WRB") if f"{side}{end}" in known] for side in "LR"]
    head = [known[label] for label in ("LFHD", "RFHD", "LBHD", "RBHD", "HEAD") if label in known]
    collar = [known[label] for label in ("C7", "CLAV") if label in known]
    placed = {name: positions for name, positions in marker.items() if positions is not None}
    if len(placed) < len(marker) or not (all(wrists) and head and collar):
        return {}

    front = (placed["left_front"] + placed["right_front"]) / 2
    back = (placed["left_back"] + placed["right_back"]) / 2
    width = np.linalg.norm(placed["left_front"] - placed["right_front"], axis=-1, keepdims=True)
    aside = _unit(placed["left_front"] - placed["right_front"])
    up = _unit(np.cross(front - back, aside))
    ahead = np.cross(aside, up)
    pelvis, neck = (front + back) / 2, np.mean(collar, axis=0)
    joints = {"pelvis": pelvis, "neck": neck}
    joints["head"] = neck + _HEAD_ABOVE_NECK * (np.mean(head, axis=0) - neck)
    if {"T10", "STRN"} <= set(known):
        joints["chest"] = (known["T10"] + known["STRN"]) / 2
    for number, (side, sign) in enumerate((("left", 1), ("right", -1))):
        letter = side[0].upper()
        outward, backward, down = _HIP
        joints[f"{side}_hip"] = front + width * (sign * outward * aside - backward * ahead - down * up)
        joints[f"{side}_shoulder"] = placed[f"{side}_shoulder"] - _SHOULDER_DROP * width * _unit(neck - pelvis)
        joints[f"{side}_wrist"] = np.mean(wrists[number], axis=0)
        for joint, labels in _INNER.items():
            outer, inner = placed[f"{side}_{joint}"], _first(known, [f"{letter}{label}" for label in labels])
            inward = outer - sign * _INWARD[joint] * width * aside
            joints[f"{side}_{joint}"] = inward if inner is None else (outer + inner) / 2
        toe = _first(known, [f"{letter}{label}" for label in ("TOE", "MT5", "MT1")])
        if toe is not None:
            joints[f"{side}_toe"] = toe
    return joints


def _first(known: Mapping[str, np.ndarray], labels: Iterable[str]) -> np.ndarray | None:
    return next((known[label] for label in labels if label in known), None)


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)
