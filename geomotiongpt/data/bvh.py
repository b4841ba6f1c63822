"""BVH files: a skeleton and its motion as text, read, written, and turned into positions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from .input_files import read_bytes, read_number, read_numbers, to_text
from .motion_folder import save_bytes

MAX_JOINTS = 2000
MAX_DEPTH = 200  # joints on the way from a root to a tip
MAX_POSITIONS = 40_000_000  # joints times frames: an hour of 90 joints at 120 frames per second
_MAX_HIERARCHY_BYTES = 4 * 2**20
_LARGEST_VALUE = 1e7  # degrees, or units of length: beyond it sums lose what matters
_FRAMES_AT_ONCE = 1024  # these stay in the cache of a processor
_AXES = "XYZ"
_CHANNELS = {f"{axis}{kind}".lower(): f"{axis}{kind}" for axis in _AXES for kind in ("position", "rotation")}
_MOTION = re.compile(rb"^[ \t]*MOTION[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_MOTION_HEADER = re.compile(
    rb"\s*+Frames\s*+:?+\s*+(?P<frames>\S++)\s++Frame\s*+Time\s*+:?+\s*+(?P<time>\S++)[ \t]*+(?:\r?\n|\r|$)",
    re.IGNORECASE,
)


@dataclass(frozen=True, eq=False)
class Bvh:
    """A BVH file: joints with their channels, and the value of each channel in each frame.

    Args:
        names: of the joints; parents come before their children.
        parents: index of the joint that each hangs from, -1 for a root.
        offsets: (joints, 3) from the parent to the joint, in the file's own unit of length.
        channels: of each joint, in the order of its values: `"Xposition"` to `"Zposition"`, `"Xrotation"` to
            `"Zrotation"`. Rotations apply from the last to the first: Z, X, Y stands for the matrix Rz Rx Ry.
        frame_time: seconds from a frame to the next.
        values: (frames, all channels) float64, joint after joint; rotations in degrees.
        end_parents: joints that end in an end site.
        end_offsets: (end sites, 3) from each of them to its end site.

    Raises:
        ValueError: if these do not fit each other, or there are too many joints or frames.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: np.ndarray
    channels: tuple[tuple[str, ...], ...]
    frame_time: float
    values: np.ndarray
    end_parents: tuple[int, ...] = ()
    end_offsets: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))

    def __post_init__(self):
        joints, ends = len(self.names), len(self.end_parents)
        if not (0 < joints == len(self.parents) == len(self.channels)) or self.offsets.shape != (joints, 3):
            raise ValueError(f"{joints} joints need as many parents, offsets and lists of channels")
        if self.end_offsets.shape != (ends, 3) or not all(0 <= parent < joints for parent in self.end_parents):
            raise ValueError(f"{ends} end sites need a joint and an offset each")
        if not all(-1 <= parent < joint for joint, parent in enumerate(self.parents)):
            raise ValueError("a joint must come after its parent; -1 is the parent of a root")
        known = set(_CHANNELS.values())
        if any(len(set(names)) != len(names) or not known.issuperset(names) for names in self.channels):
            raise ValueError(f"channels are {sorted(known)}, each at most once for a joint")
        if self.values.ndim != 2 or self.values.shape[1] != sum(map(len, self.channels)):
            wanted = sum(map(len, self.channels))
            raise ValueError(f"values have the shape {self.values.shape}; wanted (frames, {wanted}), one a channel")
        if not 0 < self.frame_time < float("inf"):
            raise ValueError(f"frame_time is {self.frame_time}; wanted seconds above 0")
        if (joints + ends) * len(self.values) > MAX_POSITIONS:
            raise ValueError(f"{len(self.values)} frames of {joints} joints; cut it into parts of fewer frames")

    @classmethod
    def from_rotations(
        cls,
        names: Sequence[str],
        parents: Sequence[int],
        offsets: np.ndarray,
        root_positions: np.ndarray,
        rotations: np.ndarray,
        frame_time: float,
        *,
        order: str = "ZXY",
        end_parents: Sequence[int] = (),
        end_offsets: np.ndarray | None = None,
    ) -> "Bvh":
        """A BVH of joints that turn, of which only roots move.

        Args:
            names, parents, offsets, frame_time, end_parents, end_offsets: as above.
            root_positions: (frames, 3) of the one root.
            rotations: (frames, joints, 3) in degrees, the angles in the order of `order`.
            order: of the rotation channels.
        """
        if sorted(order) != list(_AXES) or list(parents).count(-1) != 1:
            raise ValueError(f"order is {order!r} and {list(parents).count(-1)} joints are roots; wanted 'ZXY' and 1")
        turns = tuple(f"{axis}rotation" for axis in order)
        moves = tuple(f"{axis}position" for axis in _AXES)
        return cls(
            tuple(names),
            tuple(parents),
            np.asarray(offsets, np.float64),
            tuple((*moves, *turns) if parent < 0 else turns for parent in parents),
            frame_time,
            np.concatenate([root_positions, np.reshape(rotations, (len(rotations), -1))], axis=1, dtype=np.float64),
            tuple(end_parents),
            np.zeros((0, 3)) if end_offsets is None else np.asarray(end_offsets, np.float64),
        )

    @property
    def num_frames(self) -> int:
        return len(self.values)

    @cached_property
    def _columns(self) -> list[tuple[list[tuple[int, int]], list[tuple[int, int]]]]:
        """For each joint its position and its rotation channels: axis and column of `values`, in their order."""
        columns, start = [], 0
        for names in self.channels:
            numbered = [(_AXES.index(name[0]), name[1], start + place) for place, name in enumerate(names)]
            moves, turns = ([(axis, at) for axis, kind, at in numbered if kind == wanted] for wanted in "pr")
            columns.append((moves, turns))
            start += len(names)
        return columns

    @cached_property
    def _positions_add_to_offsets(self) -> bool:
        """Whether position channels of joints that are no roots count from the offset, instead of replacing it."""
        added = replaced = 0.0
        for joint, (moves, _) in enumerate(self._columns):
            if self.parents[joint] >= 0:
                for axis, column in moves:
                    added += np.abs(self.values[:, column]).sum()
                    replaced += np.abs(self.values[:, column] - self.offsets[joint, axis]).sum()
        return added < replaced

    def joint_positions(self, *, end_sites: bool = False) -> np.ndarray:
        """Positions in the world, (frames, joints, 3) float64 in the file's unit; end sites behind them, if wanted.

        Position channels of a joint replace its offset, as most programs write them; where those of a file's joints
        are nearer to 0 than to the offsets, they are added to these.
        """
        joints = len(self.names)
        positions = np.empty((self.num_frames, joints + len(self.end_parents) * end_sites, 3))
        for start in range(0, self.num_frames, _FRAMES_AT_ONCE):
            frames = slice(start, start + _FRAMES_AT_ONCE)
            self._place(np.ascontiguousarray(self.values[frames].T), positions[frames], end_sites)
        return positions

    def _place(self, values: np.ndarray, positions: np.ndarray, end_sites: bool) -> None:
        """Fills positions (frames, joints, 3) from values (channels, frames)."""
        frames = values.shape[1]
        world: list[np.ndarray] = []  # of each joint the columns of its rotation in the world, (3, 3, frames)
        places: list[np.ndarray] = []
        for joint, (moves, turns) in enumerate(self._columns):
            parent = self.parents[joint]
            step = np.repeat(self.offsets[joint][:, None], frames, axis=1)
            for axis, column in moves:
                step[axis] = values[column] + step[axis] * (parent >= 0 and self._positions_add_to_offsets)
            if parent < 0:
                place, columns = step, np.repeat(np.eye(3)[:, :, None], frames, axis=2)
            else:
                place = places[parent] + _along(world[parent], step)
                columns = world[parent].copy() if turns else world[parent]
            for axis, column in turns:
                _turn(columns, axis, np.radians(values[column]))
            world.append(columns)
            places.append(place)
            positions[:, joint] = place.T
        if end_sites:
            for end, (parent, offset) in enumerate(zip(self.end_parents, self.end_offsets, strict=True)):
                positions[:, len(places) + end] = (places[parent] + _along(world[parent], offset[:, None])).T


def _along(columns: np.ndarray, step: np.ndarray) -> np.ndarray:
    """A step (3, frames) in a frame of axes (3, 3, frames), seen from the world."""
    return columns[0] * step[0] + columns[1] * step[1] + columns[2] * step[2]


def _turn(columns: np.ndarray, axis: int, angles: np.ndarray) -> None:
    """Turns a frame of axes (3, 3, frames) about one of them, in place."""
    first, second = columns[(axis + 1) % 3], columns[(axis + 2) % 3]
    cosine, sine = np.cos(angles), np.sin(angles)
    turned = first * cosine + second * sine
    second *= cosine
    second -= first * sine
    columns[(axis + 1) % 3] = turned


# Reading


def read_bvh(path: str | Path) -> Bvh:
    """Read a BVH file as programs write them: any order of channels, several roots, names with spaces, decimal commas.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no BVH file, is damaged or cut, holds NaN, or is larger than the limits of this module and
            of `input_files`.
    """
    path = Path(path)
    content = read_bytes(path, "BVH")
    found = _MOTION.search(content, 0, _MAX_HIERARCHY_BYTES)
    if not found:
        raise ValueError(f"{path}: no line MOTION in it; wanted a BVH file with HIERARCHY and MOTION.")
    reader = _HierarchyReader()
    try:
        for number, line in enumerate(to_text(content[: found.start()]).splitlines(), 1):
            reader.read_line(line, number)
        reader.check_end()
        frame_time, values = _read_motion(content, found.end(), sum(map(len, reader.channels)), reader.num_points)
        return Bvh(
            tuple(reader.names),
            tuple(reader.parents),
            np.array(reader.offsets, np.float64),
            tuple(reader.channels),
            frame_time,
            values,
            tuple(reader.end_parents),
            np.array(reader.end_offsets, np.float64).reshape(-1, 3),
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}.") from None


class _HierarchyReader:
    """Reads the lines of HIERARCHY."""

    def __init__(self):
        self.names: list[str] = []
        self.parents: list[int] = []
        self.offsets: list[list[float] | None] = []
        self.channels: list[tuple[str, ...]] = []
        self.end_parents: list[int] = []
        self.end_offsets: list[list[float] | None] = []
        self._open: list[int] = []  # joints whose brace is open; -1 for an end site
        self._pending: int | None = None  # what the next brace opens

    @property
    def num_points(self) -> int:
        return len(self.names) + len(self.end_parents)

    def read_line(self, line: str, number: int) -> None:
        """One line, or several that are written in one with their braces."""
        try:
            for piece in re.split(r"([{}])", line):
                if piece.strip():
                    self._read_piece(piece.strip())
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None

    def _read_piece(self, piece: str) -> None:
        keyword, _, rest = piece.replace("\t", " ").partition(" ")
        keyword = keyword.upper()
        if keyword == "{":
            self._open_brace()
        elif keyword == "}":
            if not self._open or self._pending is not None:
                raise ValueError("a brace closes what none has opened")
            self._open.pop()
        elif keyword in ("ROOT", "JOINT"):
            self._start_joint(rest.strip(), is_root=keyword == "ROOT")
        elif keyword in ("END", "ENDSITE"):
            if len(self.end_parents) == MAX_JOINTS:
                raise ValueError(f"more than {MAX_JOINTS} end sites")
            self.end_parents.append(self._inside())
            self.end_offsets.append(None)
            self._pending = -1
        elif keyword == "OFFSET":
            self._set_offset(rest.split())
        elif keyword == "CHANNELS":
            self._set_channels(rest.split())
        elif keyword != "HIERARCHY":
            raise ValueError(f"{piece[:60]!r} is not part of a hierarchy")

    def _inside(self) -> int:
        """The joint whose braces we are in."""
        if self._pending is not None or not self._open or self._open[-1] < 0:
            raise ValueError("this belongs between the braces of a joint")
        return self._open[-1]

    def _open_brace(self) -> None:
        if self._pending is None:
            raise ValueError("a brace opens nothing")
        self._open.append(self._pending)
        self._pending = None
        if len(self._open) > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} joints hang from each other")

    def _start_joint(self, name: str, *, is_root: bool) -> None:
        if is_root and (self._open or self._pending is not None):
            raise ValueError("a root stands inside another joint")
        parent = -1 if is_root else self._inside()
        if len(self.names) == MAX_JOINTS:
            raise ValueError(f"more than {MAX_JOINTS} joints")
        self._pending = len(self.names)
        self.names.append(name or f"joint{len(self.names)}")
        self.parents.append(parent)
        self.offsets.append(None)
        self.channels.append(())

    def _set_offset(self, words: list[str]) -> None:
        if self._pending is not None or not self._open:
            raise ValueError("an OFFSET outside of braces")
        offset = [read_number(word) for word in words]
        if len(offset) != 3 or max(map(abs, offset)) > _LARGEST_VALUE:
            raise ValueError(f"OFFSET has {' '.join(words)[:60]!r}; wanted three lengths")
        if self._open[-1] < 0:
            self.end_offsets[-1] = offset
        else:
            self.offsets[self._open[-1]] = offset

    def _set_channels(self, words: list[str]) -> None:
        joint = self._inside()
        names = [_CHANNELS.get(word.lower()) for word in words[1:]]
        if not words or words[0] != str(len(names)) or None in names or len(set(names)) < len(names):
            wanted = "their number and as many different names, Xposition to Zrotation"
            raise ValueError(f"CHANNELS has {' '.join(words)[:80]!r}; wanted {wanted}")
        self.channels[joint] = tuple(name for name in names if name)

    def check_end(self) -> None:
        """Raises `ValueError` if the hierarchy has an end missing."""
        if self._open or self._pending is not None:
            raise ValueError("the hierarchy is cut: a brace that was opened is not closed")
        if not self.names:
            raise ValueError("there is no ROOT joint in it")
        for name, offset in zip(self.names, self.offsets, strict=True):
            if offset is None:
                raise ValueError(f"joint {name[:60]!r} has no OFFSET")
        if None in self.end_offsets:
            joint = self.end_parents[self.end_offsets.index(None)]
            raise ValueError(f"the end site of {self.names[joint][:60]!r} has no OFFSET")


def _read_motion(content: bytes, start: int, num_channels: int, num_points: int) -> tuple[float, np.ndarray]:
    """Seconds a frame, and values (frames, channels)."""
    header = _MOTION_HEADER.match(content, start)
    if not header:
        raise ValueError("MOTION must be followed by the lines 'Frames: <number>' and 'Frame Time: <seconds>'")
    frame_time = read_number(to_text(header["time"]))
    frames = to_text(header["frames"])
    if not frames.isdecimal() or int(frames[:20]) < 1 or not num_channels:
        raise ValueError(f"it declares {frames[:20]} frames of {num_channels} channels; wanted 1 or more of both")
    num_frames = int(frames[:20])
    if not 1e-5 <= frame_time <= 60:
        raise ValueError(f"the frame time is {frame_time} s; wanted seconds from a frame to the next, such as 0.0333")
    declared = num_frames * num_channels
    if declared > (len(content) - header.end() + 1) // 2:  # a number and a space each
        raise ValueError(
            f"it declares {num_frames} frames of {num_channels} numbers, more than a file of this size can hold; it "
            "is cut, or the line 'Frames:' is wrong"
        )
    if num_frames * num_points > MAX_POSITIONS:
        raise ValueError(f"{num_frames} frames of {num_points} joints; cut it into parts of fewer frames")
    numbers = read_numbers(content[header.end() :])
    if len(numbers) != declared:
        raise ValueError(
            f"it declares {num_frames} frames of {num_channels} numbers, but holds {len(numbers)} numbers, "
            f"{len(numbers) / num_channels:.6g} frames; it is damaged, or the line 'Frames:' is wrong"
        )
    values = numbers.reshape(num_frames, num_channels)
    wrong = ~(np.abs(values) <= _LARGEST_VALUE)
    if wrong.any():
        frame, channel = np.argwhere(wrong)[0]
        raise ValueError(f"number {channel + 1} of frame {frame + 1} is {values[frame, channel]}; wanted finite ones")
    return frame_time, values


# Writing


def write_bvh(bvh: Bvh, path: str | Path) -> Path:
    """Write a BVH file, whole or not at all; numbers have six decimals.

    Raises:
        ValueError: if the path does not end in `.bvh`, or a value is not finite.
        OSError: if the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".bvh":
        raise ValueError(f"cannot write {path}: the file name must end in .bvh")
    if not all(np.isfinite(array).all() for array in (bvh.offsets, bvh.end_offsets, bvh.values)):
        raise ValueError(f"cannot write {path}: there is a NaN or infinite value in it")
    if unfit := [
        name for name in bvh.names if not name.strip() or len(name.splitlines()) > 1 or set(name) & set("{}")
    ]:
        raise ValueError(f"cannot write {path}: a joint cannot be called {unfit[0]!r}")
    lines, order = _hierarchy_lines(bvh)
    starts = np.cumsum([0, *map(len, bvh.channels)])
    columns = np.concatenate([np.arange(starts[joint], starts[joint + 1]) for joint in order])
    row = " ".join(["%.6f"] * len(columns)) + "\n"
    header = ["HIERARCHY", *lines, "MOTION", f"Frames: {bvh.num_frames}", f"Frame Time: {bvh.frame_time:.9g}", ""]
    rows = [row % tuple(frame) for frame in bvh.values[:, columns].tolist()]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_bytes(path, "\n".join(header).encode(), "".join(rows).encode())
    return path


def _hierarchy_lines(bvh: Bvh) -> tuple[list[str], list[int]]:
    """The lines of the hierarchy, and the joints in the order in which they stand there."""
    children: dict[int, list[int]] = {}
    for joint, parent in enumerate(bvh.parents):
        children.setdefault(parent, []).append(joint)
    ends: dict[int, list[np.ndarray]] = {}
    for parent, offset in zip(bvh.end_parents, bvh.end_offsets, strict=True):
        ends.setdefault(parent, []).append(offset)
    lines: list[str] = []
    order: list[int] = []
    # Joints to write, and lines that close one; a list instead of recursion, whose depth is limited elsewhere.
    pending: list[tuple[int, int] | str] = [(root, 0) for root in reversed(children[-1])]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            lines.append(item)
            continue
        joint, depth = item
        indent = "\t" * depth
        keyword = "ROOT" if bvh.parents[joint] < 0 else "JOINT"
        lines += [f"{indent}{keyword} {bvh.names[joint]}", f"{indent}{{", _offset_line(bvh.offsets[joint], depth + 1)]
        lines.append(f"{indent}\tCHANNELS {len(bvh.channels[joint])} {' '.join(bvh.channels[joint])}".rstrip())
        for offset in ends.get(joint, []):
            lines += [f"{indent}\tEnd Site", f"{indent}\t{{", _offset_line(offset, depth + 2), f"{indent}\t}}"]
        order.append(joint)
        pending.append(f"{indent}}}")
        pending += [(child, depth + 1) for child in reversed(children.get(joint, []))]
    return lines, order


def _offset_line(offset: np.ndarray, depth: int) -> str:
    return "\t" * depth + "OFFSET " + " ".join(f"{value:.6f}" for value in offset)
