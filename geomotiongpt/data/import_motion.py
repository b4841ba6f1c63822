"""Motion files of other programs -> joints that this package's models take, and a report on how they were found."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..models.motion_conversion import resample_joints, resampled_frames
from ..models.motion_representation import (
    MotionRepresentation,
    features_to_joints,
    get_motion_representation,
    joints_to_features,
)
from .acclaim import read_acclaim
from .body_axes import (
    TO_Y_UP,
    UNITS,
    axis_of_rest,
    body_height,
    find_unit,
    find_up,
    fixed_height_note,
    level_floor,
    side_warning,
    standing_still,
)
from .body_models import PARAMETER_NAMES, read_body_motion
from .bvh import read_bvh
from .c3d_files import read_c3d
from .input_files import check_file, npz_names, read_bytes, to_text
from .joint_files import JOINT_ARRAYS, read_joint_archive, read_joint_array, read_joint_table
from .joint_matching import SKELETON, JointMatch, Point, match_joints, place_joints
from .source_motion import SourceMotion

MOTION_SUFFIXES = (".bvh", ".amc", ".c3d", ".npz", ".npy", ".csv")
_MAX_MAPPING_BYTES, _DEEPEST_MAPPING = 64 * 2**10, 10
# A first frame is no part of the motion if the body leaves it faster than it ever moves after, so many times, and
# as no body can. Where the frame is the file's own rest pose, faster than ever after is enough.
_JUMP, _JUMP_FROM_REST, _JUMP_SPEED, _FEWEST_FRAMES = 5, 1.5, 2, 4  # the speed in heights of the body a second
_LARGEST_PLACE = 1e9  # units of the file
_MOST_FRAMES = 1_000_000  # after resampling: fourteen hours at 20 frames per second
_FOOT_JOINTS, _TOES, _HEAD_JOINT = [7, 8, 10, 11], (10, 11), 15
# Joints of KIT-ML between those of SMPL: the nearest ones, with the middle of the foot between ankle and toes.
_KIT_FROM_SMPL = (0, 3, 9, 12, 15, 17, 19, 21, 16, 18, 20, 2, 5, 8, (8, 11), 11, 1, 4, 7, (7, 10), 10)


@dataclass(frozen=True)
class ImportReport:
    """How a motion was imported; as a string a table.

    Args:
        path: of the file.
        kind: of file.
        matches: one for each of the 22 joints.
        unit: metres of one unit of the file, and how that is known.
        up: axis of the file that points up, and how that is known.
        fps: frames per second of the file, and how that is known.
        frames: of the file, and of the joints.
        sides: whether left is left.
        rest_pose: what is known of it.
        height: metres of the body, measured along its bones, after retargeting where the representation has a target
            skeleton.
        head: metres of the head joint above the lowest joint, at most.
        floor: metres of the lowest foot joint above the floor, which is the clip's lowest point: the middle of the
            frames in which that joint stands still, or of all if it never does.
        speed: of the pelvis along the floor, metres per second, on average; a wrong frame rate shows in it.
        notes: what else to know.
        warnings: what is probably wrong.
    """

    path: str
    kind: str
    matches: tuple[JointMatch, ...]
    unit: tuple[float, str]
    up: tuple[str, str]
    fps: tuple[float, str]
    frames: tuple[int, int]
    sides: str
    rest_pose: str
    height: float
    head: float
    floor: float
    speed: float
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        width = max(len(match.source) for match in self.matches)
        rows = [
            ("file", f"{self.path} ({self.kind})"),
            ("frames", f"{self.frames[0]} -> {self.frames[1]}"),
            ("frame rate", f"{self.fps[0]:g} ({self.fps[1]})"),
            ("unit", f"{self.unit[0]:.6g} m ({self.unit[1]})"),
            ("up", f"{self.up[0]} ({self.up[1]})"),
            ("sides", self.sides),
            ("rest pose", self.rest_pose),
            ("height", f"{self.height:.2f} m along the bones; the head joint is up to {self.head:.2f} m high"),
            ("floor", f"feet stand {100 * self.floor:.1f} cm above it"),
            ("speed", f"{self.speed:.2f} m/s along the floor, on average"),
            *(("note", note) for note in self.notes),
            *(("WARNING", warning) for warning in self.warnings),
        ]
        lines = [f"{name:15} {text}" for name, text in rows]
        lines += [f"  {match.joint:14} {match.source:{width}}  {match.reason}" for match in self.matches]
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class ImportedMotion:
    """A motion that the models of a representation take.

    Args:
        joints: (frames, 22, 3) float32, of "kitml" (frames, 21, 3), in the unit and at the frame rate of the
            representation, y up. Bone lengths are the file's own: `joints_to_features` retargets.
        representation: its name.
        report: how the joints were found.
    """

    joints: np.ndarray
    representation: str
    report: ImportReport


def import_motion(
    path: str | PathLike[str],
    *,
    representation: str = "humanml3d",
    fps: float | None = None,
    unit: str | float | None = None,
    up: str | None = None,
    mapping: str | PathLike[str] | Mapping[str, Any] | None = None,
    skeleton: str | PathLike[str] | None = None,
    body_models: str | PathLike[str] | None = None,
    max_seconds: float | None = None,
) -> ImportedMotion:
    """Import a motion file: BVH, ASF/AMC, C3D, AMASS and SMPL parameters (`.npz`), or joints (`.npy`, `.npz`, `.csv`).

    What `export_motion` and `geomotiongpt generate` write as one of these is read back.

    Joints of any rig are matched with the 22 of the "humanml3d" skeleton by what they are called and what they hang
    from; what a rig lacks is interpolated. Whatever is not given is found out, and the report says how.

    Args:
        path: the file; its ending tells the kind.
        representation: for which the joints are: "humanml3d", "kitml" or "streaming272".
        fps: frames per second of the file, in place of what it says. `.npy` files say nothing and have those of the
            representation, as everywhere in this package; AMC files neither: 120, the CMU library's.
        unit: of length in the file, "m", "cm", "mm", "in", "ft", "acclaim" (1/0.45 inch), or metres as a number; by
            default what makes the figure as high as a human.
        up: axis of the file that points up: "x", "y", "z", "-x", "-y" or "-z"; by default that from feet to head.
        mapping: YAML or JSON file, or its content: joint of the skeleton -> joint of the file, a list of joints whose
            middle it is, or joints with weights. It need name only what is not found by itself.
        skeleton: ASF file of an AMC file; by default the one that fits beside it.
        body_models: folder or file of the licensed SMPL, SMPL-H or SMPL-X model, for files of their parameters.
        max_seconds: longer motions are refused, before they are resampled; for files of strangers.

    Returns:
        the joints and a report, whose `warnings` say what is probably wrong.

    Raises:
        FileNotFoundError: if a file is not there.
        ModuleNotFoundError: for C3D files, if the extra `mocap` is not installed.
        ValueError: for a file that is damaged or of an unknown kind, joints that cannot be matched, fewer than two
            frames, or too long a motion; the message names the file.
    """
    layout = get_motion_representation(representation)
    file = Path(path)
    source = _read_source(file, representation, skeleton, body_models)
    given = _given_unit(unit), _given_axis(up)
    points = None if mapping is None else _read_mapping(mapping, source, file)
    try:
        _check_length(source, _frame_rate(source, fps, layout)[0], max_seconds)
        joints, report = _bring_into(layout, source, file, match_joints(source, points), fps, *given)
    except ValueError as error:
        raise ValueError(f"{file}: {str(error).rstrip('.')}.") from None
    return ImportedMotion(joints, representation, report)


def _bring_into(
    layout: MotionRepresentation,
    source: SourceMotion,
    path: Path,
    matches: list[JointMatch],
    fps: float | None,
    scale: float | None,
    axis: str | None,
) -> tuple[np.ndarray, ImportReport]:
    """Joints of a representation, and how they were found."""
    rate, rate_source = _frame_rate(source, fps, layout)
    rest = None if source.rest is None else place_joints(matches, source.rest[None])[0]
    joints, notes = _without_reference_pose(_finite(place_joints(matches, source.positions)), rest, rate)
    joints = _resampled(joints, rate, layout)
    axis, axis_source = (axis, "given") if axis else (source.up, "this kind of file")
    if axis is None:
        axis, axis_source = find_up(joints, rest)
    joints = joints @ np.array(TO_Y_UP[axis], np.float64).T
    scale_source, doubt = "given", ""
    if scale is None:
        scale, scale_source, doubt = find_unit(joints, source.unit_in_metres, source.unit_source)
    joints *= scale
    if source.layout is None:  # joints in this package's own order stay as they are
        joints, leaning = level_floor(joints, layout.fps)
        notes += [note for note in (leaning, fixed_height_note(joints)) if note]
    sides, wrong_sides = side_warning(joints, all(matches[foot].weights for foot in _TOES))
    joints, sizes = _for_representation(joints, layout)
    report = ImportReport(
        path=str(path),
        kind=source.kind,
        matches=tuple(matches),
        unit=(scale, scale_source),
        up=(axis, axis_source),
        fps=(rate, rate_source),
        frames=(len(source.positions), len(joints)),
        sides=sides,
        rest_pose=_describe_rest(rest),
        notes=(*source.notes, *notes),
        warnings=tuple(warning for warning in (doubt, wrong_sides) if warning),
        **sizes,
    )
    return joints, report


# Reading


def _read_source(path: Path, representation: str, skeleton: Any, body_models: Any) -> SourceMotion:
    suffix = path.suffix.lower()
    if suffix == ".asf":
        raise ValueError(f"{path} is a skeleton; give the motion, an .amc file, and this as skeleton=.")
    if suffix == ".pkl":
        raise ValueError(f"{path} is a pickle, which may run code and is never opened; save it as .npz.")
    if suffix not in MOTION_SUFFIXES:
        raise ValueError(f"{path}: {suffix or 'no'} ending; wanted one of {', '.join(MOTION_SUFFIXES)}.")
    check_file(path, "motion")
    for name, value, wanted in (("skeleton", skeleton, ".amc"), ("body_models", body_models, ".npz")):
        if value is not None and suffix != wanted:
            raise ValueError(f"{path}: {name} goes with {wanted} files; leave it out.")
    if suffix == ".amc":
        return read_acclaim(path, skeleton)
    if suffix == ".npz":
        names = npz_names(path)
        # With both, as `export_motion` writes them, joints do: they need no body model.
        if not PARAMETER_NAMES.isdisjoint(names) and (body_models is not None or names.isdisjoint(JOINT_ARRAYS)):
            return read_body_motion(path, body_models)
    readers: dict[str, Callable[[Path], SourceMotion]] = {
        ".bvh": _read_bvh,
        ".c3d": read_c3d,
        ".npy": partial(read_joint_array, representation=representation),
        ".npz": read_joint_archive,
        ".csv": read_joint_table,
    }
    return readers[suffix](path)


def _read_bvh(path: Path) -> SourceMotion:
    bvh = read_bvh(path)
    first = len(bvh.names)
    rest = np.zeros((first + len(bvh.end_parents), 3))
    for joint, parent in enumerate(bvh.parents):
        rest[joint] = bvh.offsets[joint] + (rest[parent] if parent >= 0 else 0)
    for end, parent in enumerate(bvh.end_parents):
        rest[first + end] = rest[parent] + bvh.end_offsets[end]
    return SourceMotion(
        kind="BVH",
        names=(*bvh.names, *(f"end of {bvh.names[parent]}" for parent in bvh.end_parents)),
        positions=bvh.joint_positions(end_sites=True),
        parents=(*bvh.parents, *bvh.end_parents),
        ends=frozenset(range(first, first + len(bvh.end_parents))),
        fps=1 / bvh.frame_time,
        rest=rest,
    )


# What is given


def _given_unit(unit: str | float | None) -> float | None:
    if unit is None or (isinstance(unit, str) and unit in UNITS):
        return None if unit is None else UNITS[unit]
    try:
        metres = float(unit)
    except (TypeError, ValueError):
        metres = float("nan")
    if not 1e-6 <= metres <= 1e6:
        raise ValueError(f"unit is {unit!r}; choose one of {', '.join(UNITS)}, or give metres as a number")
    return metres


def _given_axis(up: str | None) -> str | None:
    axis = None if up is None else str(up).lower().removeprefix("+")
    if axis is not None and axis not in TO_Y_UP:
        raise ValueError(f"up is {up!r}; choose one of {', '.join(TO_Y_UP)}")
    return axis


def _frame_rate(source: SourceMotion, fps: float | None, layout: MotionRepresentation) -> tuple[float, str]:
    if fps is not None:
        if not 1e-2 <= fps <= 1e5:
            raise ValueError(f"fps is {fps}; give the frames per second of the file, 120 for example")
        return float(fps), "given"
    if source.fps is not None:
        # A frame time of 0.0333333 s means 30, not 30.00003 frames per second.
        whole = round(source.fps)
        rate = float(whole) if whole and abs(source.fps - whole) < 5e-4 * whole else source.fps
        return rate, source.fps_source
    if source.layout is not None and source.kind.endswith(".npy file"):
        return layout.fps, "not in .npy files; that of the representation is taken"
    raise ValueError("nothing in it tells the frame rate; give fps=, its frames per second")


def _read_mapping(mapping: Any, source: SourceMotion, path: Path) -> dict[str, Point]:
    """Joints that a mapping gives, as weighted source points."""
    name = "mapping"
    if isinstance(mapping, str | PathLike):
        name, mapping = str(mapping), _load_mapping(Path(mapping))
    if not isinstance(mapping, Mapping) or not mapping:
        raise ValueError(f"{name}: wanted a list of pairs such as `left_hip: LeftUpLeg`, got {str(mapping)[:60]!r}.")
    points: dict[str, Point] = {}
    for joint, value in mapping.items():
        if joint not in SKELETON.joint_names:
            wanted = ", ".join(SKELETON.joint_names)
            raise ValueError(f"{name}: {str(joint)[:40]!r} is no joint of the skeleton, which has {wanted}.")
        pairs = value.items() if isinstance(value, Mapping) else [(one, 1) for one in _as_list(value)]
        try:
            weights = {_find_point(point, source, path): float(share) for point, share in pairs}
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: {joint}: {error}") from None
        total = sum(weights.values())
        if not weights or not np.isfinite(total) or abs(total) < 1e-6 or max(map(abs, weights.values())) > 1e3:
            raise ValueError(f"{name}: {joint}: the weights {str(value)[:60]} do not make one point.")
        points[str(joint)] = {index: weight / total for index, weight in weights.items()}
    return points


def _as_list(value: Any) -> list:
    return value if isinstance(value, list) else [value]


def _load_mapping(path: Path) -> Any:
    text = to_text(read_bytes(path, "mapping", _MAX_MAPPING_BYTES))
    depth = max(accumulate((char in "[{") - (char in "]}") for char in text), default=0)
    if depth > _DEEPEST_MAPPING:  # which takes the parser time by the square
        raise ValueError(f"{path} is no YAML or JSON mapping of joints: brackets stand in each other {depth} deep.")
    try:
        # An alias may stand for something that holds it, or for a thousand others.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError("it has aliases (*name), which a mapping has no use for")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, AttributeError, OverflowError) as error:
        message = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is no YAML or JSON mapping of joints: {message}") from None


def _find_point(wanted: Any, source: SourceMotion, path: Path) -> int:
    """A point by its name, or by its name in whatever case and without the name of the figure."""
    if isinstance(wanted, dict | list):
        raise ValueError(f"{str(wanted)[:40]} is no name of a joint")
    name = str(wanted)
    if name in source.names:
        return source.names.index(name)
    short = name.split(":")[-1].lower()
    found = [index for index, other in enumerate(source.names) if other.split(":")[-1].lower() == short]
    if len(found) != 1:
        names = ", ".join(source.names[:40])
        raise ValueError(f"{path} has {len(found) or 'no'} joints {name[:40]!r}; it has {names}")
    return found[0]


# Bringing it into the representation


def _describe_rest(rest: np.ndarray | None) -> str:
    if rest is None:
        return "none in this kind of file"
    axis = axis_of_rest(rest)
    return f"stands along {axis}" if axis else "does not stand; the motion alone tells which way is up"


def _finite(joints: np.ndarray) -> np.ndarray:
    wrong = ~(np.abs(joints) < _LARGEST_PLACE).all(axis=-1)
    if wrong.any():
        frame, joint = np.argwhere(wrong)[0]
        place = joints[frame, joint].tolist()
        raise ValueError(f"{SKELETON.joint_names[joint]} is at {place} in frame {frame + 1}; wanted finite places")
    return joints


def _without_reference_pose(joints: np.ndarray, rest: np.ndarray | None, rate: float) -> tuple[np.ndarray, list[str]]:
    """Joints without a first frame that is no part of the motion, such as a T pose at the origin, and a note on it."""
    if len(joints) < _FEWEST_FRAMES:
        return joints, []
    steps = np.linalg.norm(np.diff(joints, axis=0), axis=-1).mean(axis=1)
    height = body_height(joints)
    at_rest = rest is not None and np.allclose(joints[0] - joints[0, 0], rest - rest[0], rtol=0, atol=1e-3 * height)
    jump = _JUMP_FROM_REST if at_rest else _JUMP
    if steps[0] <= jump * steps[1:].max() or steps[0] * rate <= _JUMP_SPEED * height:
        return joints, []
    note = (
        f"frame 1 is left out: the next is {steps[0] / height:.2g} heights of the body away, so it is a reference pose"
    )
    return joints[1:], [note]


def _check_length(source: SourceMotion, rate: float, max_seconds: float | None) -> None:
    seconds = (len(source.positions) - 1) / rate
    if max_seconds is not None and seconds > max_seconds:
        raise ValueError(f"lasts {seconds:.1f} s; wanted at most {max_seconds:g} s: cut it")


def _resampled(joints: np.ndarray, rate: float, layout: MotionRepresentation) -> np.ndarray:
    if len(joints) < 2:
        raise ValueError(f"it has {len(joints)} frame; a motion needs two")
    frames = resampled_frames(len(joints), rate, layout.fps)
    if not 2 <= frames <= _MOST_FRAMES:
        raise ValueError(
            f"{len(joints)} frames at {rate:g} frames per second are {frames} at {layout.fps:g}; wanted 2 to "
            f"{_MOST_FRAMES}"
        )
    return resample_joints(joints, rate, layout.fps)


def _for_representation(joints: np.ndarray, layout: MotionRepresentation) -> tuple[np.ndarray, dict[str, float]]:
    """Joints of the representation in its unit; and height, head and floor as its models will see them."""
    seen = joints
    if layout.name == "kitml":
        joints = np.stack([joints[:, list(np.atleast_1d(of))].mean(axis=1) for of in _KIT_FROM_SMPL], axis=1)
    else:
        seen = features_to_joints(joints_to_features(joints, layout.name), layout.name)
    heights = seen[..., 1]
    steps = np.diff(seen[:, 0, ::2], axis=0)
    sizes = {
        "height": body_height(seen),
        "head": float((heights[:, _HEAD_JOINT] - heights.min(axis=1)).max()),
        "floor": _height_of_feet(seen, layout.fps) - float(heights.min()),
        "speed": layout.fps * float(np.linalg.norm(steps, axis=-1).mean()) if len(steps) else 0.0,
    }
    if not np.isfinite([*sizes.values()]).all():
        raise ValueError("its joints make no skeleton: some lie on the joints they hang from")
    return (joints / layout.unit_in_metres).astype(np.float32), sizes


def _height_of_feet(joints: np.ndarray, fps: float) -> float:
    """Height of the lowest foot joint where it stands still; joints (frames, 22, 3) in metres."""
    feet = joints[:, _FOOT_JOINTS]
    lowest = feet[..., 1].min(axis=1)
    still = standing_still(feet, fps)[np.arange(len(feet)), feet[..., 1].argmin(axis=1)]
    return float(np.median(lowest[still] if still.any() else lowest))
