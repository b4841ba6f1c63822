"""Acclaim files: a skeleton (ASF) and a motion of it (AMC), as the CMU motion-capture library has them."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .bvh import MAX_DEPTH, MAX_JOINTS, MAX_POSITIONS
from .input_files import read_bytes, read_number, read_numbers, to_text
from .source_motion import SourceMotion

METRES_PER_INCH = 0.0254
_MAX_SKELETON_BYTES = _MAX_HEADER_BYTES = 2**20
_FRAMES_AT_ONCE = 1024
_FPS = 120.0
_AXES = "xyz"
_LARGEST_VALUE = 1e7
_FIRST_FRAME = re.compile(rb"^[ \t]*1[ \t]*\r?$", re.MULTILINE)
_BONE_NAME = re.compile(rb"^[ \t]*([A-Za-z_][^\s]*)", re.MULTILINE)
_NAMED_SKELETON = re.compile(r"^#!?\s*OML:\s*ASF\s+(.+)$", re.IGNORECASE | re.MULTILINE)


@dataclass
class AcclaimBone:
    """A bone of an ASF file.

    Args:
        name: its name.
        direction: (3,) in the rest pose, in the world.
        length: in the file's unit.
        axis: (3, 3) rotation of its own axes against the world's, in the rest pose.
        dof: what an AMC file says of it, in its order: `"tx"`, `"rz"`, ...
        parent: index of the bone it hangs from; -1 for the root.
    """

    name: str
    direction: np.ndarray = field(default_factory=lambda: np.zeros(3))
    length: float = 0.0
    axis: np.ndarray = field(default_factory=lambda: np.eye(3))
    dof: tuple[str, ...] = ()
    parent: int = -1


@dataclass
class AcclaimSkeleton:
    """An ASF file. Bone 0 is the root, which has no length; parents come first."""

    name: str
    bones: list[AcclaimBone]
    length_unit: float
    in_degrees: bool


def read_acclaim(path: str | Path, skeleton: str | Path | None = None) -> SourceMotion:
    """Read an AMC file with its ASF file.

    A bone of the result stands where it begins: the femur at the hip, the tibia at the knee. Tips are end sites.

    Args:
        path: AMC file.
        skeleton: ASF file; by default the one beside the AMC file that fits it. Where several do: of the same name,
            with a name that the motion's begins with (`07.asf` of `07_12.amc`), or that the AMC file names in its
            first lines.

    Raises:
        FileNotFoundError: if a file is not there, or no ASF file is beside the AMC file.
        ValueError: if a file is damaged, they do not fit, or several ASF files fit.
    """
    path = Path(path)
    content = read_bytes(path, "AMC")
    found = _FIRST_FRAME.search(content, 0, _MAX_HEADER_BYTES)
    if not found:
        raise ValueError(f"{path}: no line with the number of a first frame, 1; wanted an AMC file.")
    header, body = to_text(content[: found.start()]), content[found.start() :]
    layout = _frame_layout(body, path)
    if skeleton is None:
        skeleton = _find_skeleton(path, layout, header)
    bones = read_asf(Path(skeleton))
    if problem := _misfit(bones, layout):
        raise ValueError(f"{path} does not go with the skeleton {skeleton}: {problem}; name another with skeleton=.")
    try:
        values = _read_values(body, layout)
        degrees = bones.in_degrees if ":RADIANS" not in header.upper() else False
        return _to_source(bones, values, layout, degrees, Path(skeleton))
    except ValueError as error:
        raise ValueError(f"{path}: {error}.") from None


# The skeleton


def read_asf(path: Path) -> AcclaimSkeleton:
    """Read an ASF file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no ASF file or is damaged: bones that hang from each other in a circle, for example.
    """
    text = to_text(read_bytes(path, "ASF", _MAX_SKELETON_BYTES))
    try:
        return _parse_asf(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}.") from None


def _parse_asf(text: str) -> AcclaimSkeleton:
    sections: dict[str, list[list[str]]] = {}
    lines: list[list[str]] = []
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if words and words[0].startswith(":"):
            lines = sections.setdefault(words[0].lower(), [])
            words = words[1:]
        if words:
            lines.append(words)
    if missing := [name for name in (":root", ":bonedata", ":hierarchy") if not sections.get(name)]:
        raise ValueError(f"there is no section {' and no '.join(missing)} in it; wanted an ASF file")
    units = {words[0].lower(): words[1:] for words in sections.get(":units", [])}
    unit = read_number((units.get("length") or ["1"])[0])
    if not 1e-6 < unit < 1e6:
        raise ValueError(f"its unit of length is {unit}; wanted a number such as 0.45 or 1.0")
    in_degrees = (units.get("angle") or ["deg"])[0].lower().startswith("deg")
    bones = [_read_root(sections[":root"], in_degrees), *_read_bones(sections[":bonedata"], in_degrees)]
    name = " ".join(word for words in sections.get(":name", []) for word in words)
    return AcclaimSkeleton(name, _with_parents(bones, sections[":hierarchy"]), unit, in_degrees)


def _read_root(lines: list[list[str]], in_degrees: bool) -> AcclaimBone:
    entries = {words[0].lower(): words[1:] for words in lines}
    order = tuple(word.lower() for word in entries.get("order", ["tx", "ty", "tz", "rx", "ry", "rz"]))
    root = AcclaimBone("root", dof=_checked_dof(order, "the root's order"))
    root.direction = np.array(_numbers(entries.get("position", ["0"] * 3), 3, "the root's position"))
    root.axis = _axis_rotation([*entries.get("orientation", ["0"] * 3), *entries.get("axis", ["XYZ"])], in_degrees)
    return root


def _read_bones(lines: list[list[str]], in_degrees: bool) -> list[AcclaimBone]:
    bones: list[AcclaimBone] = []
    inside = False
    for keyword, *words in lines:
        keyword = keyword.lower()
        if keyword in ("begin", "end"):
            if inside == (keyword == "begin"):
                raise ValueError("the begin and end of its bones do not go together")
            inside = not inside
            if inside:
                bones.append(AcclaimBone(""))
        elif not inside:
            raise ValueError(f"{keyword[:40]!r} stands between bones")
        elif keyword == "name":
            bones[-1].name = " ".join(words)
        elif keyword == "direction":
            bones[-1].direction = np.array(_numbers(words, 3, "a direction"))
        elif keyword == "length":
            (bones[-1].length,) = _numbers(words, 1, "a length")
        elif keyword == "axis":
            bones[-1].axis = _axis_rotation(words, in_degrees)
        elif keyword == "dof":
            bones[-1].dof = _checked_dof(tuple(word.lower() for word in words), "a dof")
        if len(bones) > MAX_JOINTS:
            raise ValueError(f"more than {MAX_JOINTS} bones")
    if inside:
        raise ValueError("it is cut: the last bone has no end")
    names = ["root", *(bone.name for bone in bones)]
    if not all(names) or len(set(names)) < len(names):
        raise ValueError("a bone has no name, or the name of another")
    return bones


def _checked_dof(words: tuple[str, ...], what: str) -> tuple[str, ...]:
    known = {f"{kind}{axis}" for kind in "tr" for axis in _AXES} | {"l"}
    if not known.issuperset(words) or len(set(words)) < len(words):
        raise ValueError(f"{what} is {' '.join(words)[:60]!r}; wanted some of {' '.join(sorted(known))}")
    return words


def _numbers(words: list[str], count: int, what: str) -> list[float]:
    numbers = [read_number(word) for word in words]
    if len(numbers) != count or max(map(abs, numbers)) > _LARGEST_VALUE:
        raise ValueError(f"{what} is {' '.join(words)[:60]!r}; wanted {count} numbers")
    return numbers


def _axis_rotation(words: list[str], in_degrees: bool) -> np.ndarray:
    """`["0", "0", "20", "XYZ"]` -> the matrix that turns about x first, then y, then z."""
    order = words[-1].lower() if words else ""
    if sorted(order) != list(_AXES):
        raise ValueError(f"an axis is {' '.join(words)[:60]!r}; wanted three angles and an order such as XYZ")
    angles = np.array(_numbers(words[:-1], 3, "an axis"))
    angles = np.radians(angles) if in_degrees else angles
    return _rotation([f"r{axis}" for axis in order], angles[:, None])[:, :, 0]


def _with_parents(bones: list[AcclaimBone], lines: list[list[str]]) -> list[AcclaimBone]:
    """The bones, parents first, each with the index of its parent."""
    children: dict[str, list[str]] = {}
    parent_of: dict[str, str] = {}
    for parent, *names in lines:
        if parent.lower() in ("begin", "end"):
            continue
        for name in names:
            if name in parent_of:
                raise ValueError(f"the hierarchy has bone {name[:40]!r} twice")
            parent_of[name] = parent
        children.setdefault(parent, []).extend(names)
    by_name = {bone.name: bone for bone in bones}
    if unknown := [name for name in [*parent_of, *children] if name not in by_name]:
        raise ValueError(f"the hierarchy has {unknown[0][:40]!r}, which is no bone")
    ordered, depths = [bones[0]], [0]
    for index, bone in enumerate(ordered):  # grows as it runs
        for name in children.get(bone.name, []):
            by_name[name].parent = index
            ordered.append(by_name[name])
            depths.append(depths[index] + 1)
            if depths[-1] > MAX_DEPTH:
                raise ValueError(f"its bones hang from each other in a circle, or more than {MAX_DEPTH} deep")
    if loose := set(by_name).difference(bone.name for bone in ordered):
        raise ValueError(f"bone {min(loose)[:40]!r} does not hang from the root")
    return ordered


def _find_skeleton(path: Path, layout: list[tuple[str, int]], header: str) -> Path:
    """The ASF file beside an AMC file that fits it."""
    beside = sorted(file for file in path.parent.iterdir() if file.suffix.lower() == ".asf" and file.is_file())
    if not beside:
        raise FileNotFoundError(f"{path}: no skeleton (.asf) beside it; name one with skeleton=.")
    fitting: dict[Path, str] = {}
    misfit = ""
    for file in beside:
        try:
            bones = read_asf(file)
        except ValueError as error:
            misfit = str(error)
            continue
        if problem := _misfit(bones, layout):
            misfit = f"{file}: {problem}"
        else:
            fitting[file] = bones.name
    if not fitting:
        raise ValueError(f"{path}: no skeleton beside it fits ({misfit}); name one with skeleton=.")
    named = [Path(name.strip().replace("\\", "/")) for name in _NAMED_SKELETON.findall(header)]
    stem = path.stem.lower()
    rules = (
        [file for file in fitting if file.stem.lower() == stem],
        [file for file in fitting if re.match(re.escape(file.stem.lower()) + r"[\W_]", stem)],
        [file for file in fitting if any(file.stem.lower() == name.stem.lower() for name in named)],
        [file for file, name in fitting.items() if name and any(_is_named(name, origin) for origin in named)],
        list(fitting),
    )
    chosen = next(files for files in rules if files)
    if len(chosen) > 1:
        names = ", ".join(file.name for file in chosen)
        raise ValueError(f"{path}: several skeletons beside it fit ({names}); name one with skeleton=.")
    return chosen[0]


def _is_named(name: str, origin: Path) -> bool:
    """Whether every word of a skeleton's name begins a word of the path that the motion says it was made with."""
    words = re.findall(r"[a-z]+", str(origin).lower())
    return all(any(word.startswith(part) for word in words) for part in re.findall(r"[a-z]+", name.lower()))


# The motion


def _frame_layout(body: bytes, path: Path) -> list[tuple[str, int]]:
    """Name and count of numbers of each line of the first frame, which all frames must have."""
    layout: list[tuple[str, int]] = []
    for line in body[:_MAX_SKELETON_BYTES].splitlines()[1:]:
        words = to_text(line).split()
        if words and not words[0][0].isalpha() and words[0][0] != "_":
            break
        if words:
            layout.append((words[0], len(words) - 1))
        if len(layout) > MAX_JOINTS:
            break
    if not 0 < len(layout) <= MAX_JOINTS:
        raise ValueError(f"{path}: frame 1 has {len(layout)} bones; wanted 1 to {MAX_JOINTS}.")
    return layout


def _misfit(skeleton: AcclaimSkeleton, layout: list[tuple[str, int]]) -> str:
    """Why the frames of a motion are not of this skeleton; "" if they are."""
    dof = {bone.name: len(bone.dof) for bone in skeleton.bones}
    for name, count in layout:
        if name not in dof:
            return f"it has no bone {name[:40]!r}"
        if count != dof[name]:
            return f"bone {name!r} has {dof[name]} degrees of freedom there, {count} numbers in the motion"
    names = [name for name, _ in layout]
    if len(set(names)) < len(names) or "root" not in names:
        return "a frame has a bone twice, or no root"
    if missing := [name for name, count in dof.items() if count and name not in names]:
        return f"the motion says nothing of bone {missing[0]!r}"
    return ""


def _read_values(body: bytes, layout: list[tuple[str, int]]) -> np.ndarray:
    """Values (frames, all degrees of freedom) in the order of the layout."""
    names = _BONE_NAME.findall(body)
    wanted = [name.encode() for name, _ in layout]
    num_frames, left = divmod(len(names), len(wanted))
    if left or names != wanted * num_frames:
        raise ValueError("its frames do not all have the same bones in the same order; it is cut or damaged")
    if body.count(b"\n") > 2 * (len(names) + num_frames) + MAX_JOINTS:  # before as many numbers are read
        raise ValueError(f"{num_frames} frames of {len(wanted)} bones, and far more lines; it is cut or damaged")
    # A name becomes NaN, so that each number must stand where the first frame has it.
    numbers = read_numbers(_BONE_NAME.sub(b"nan", body))
    width = 1 + sum(1 + count for _, count in layout)
    if len(numbers) != num_frames * width:
        raise ValueError(
            f"{num_frames} frames of {width - len(layout) - 1} numbers were expected, and {len(numbers)} numbers, "
            "names included, found; it is cut or damaged"
        )
    table = numbers.reshape(num_frames, width)
    is_name = np.zeros(width, bool)
    is_name[np.cumsum([1, *(1 + count for _, count in layout[:-1])])] = True
    values = table[:, ~is_name][:, 1:]
    if not np.isnan(table[:, is_name]).all() or not (np.abs(values) <= _LARGEST_VALUE).all():
        frame = int(np.argmax(~(np.abs(values) <= _LARGEST_VALUE).all(axis=1)))
        raise ValueError(f"frame {frame + 1} has a NaN or infinite value, or more numbers for a bone than the first")
    if not np.array_equal(table[:, 0], np.arange(1, num_frames + 1)):
        raise ValueError("its frames are not numbered 1, 2, 3 ...; it is damaged")
    return values


def _to_source(
    skeleton: AcclaimSkeleton, values: np.ndarray, layout: list[tuple[str, int]], degrees: bool, path: Path
) -> SourceMotion:
    bones = skeleton.bones
    tips = sorted(set(range(1, len(bones))).difference(bone.parent for bone in bones))
    if len(values) * (len(bones) + len(tips)) > MAX_POSITIONS:
        raise ValueError(f"{len(values)} frames of {len(bones)} bones; cut it into parts of fewer frames")
    starts = dict(zip([name for name, _ in layout], np.cumsum([0, *(count for _, count in layout)]), strict=False))
    columns = [values[:, starts.get(bone.name, 0) :][:, : len(bone.dof)].T for bone in bones]
    positions = np.empty((len(values), len(bones) + len(tips), 3))
    for start in range(0, len(values), _FRAMES_AT_ONCE):
        frames = slice(start, start + _FRAMES_AT_ONCE)
        positions[frames] = _place(bones, [column[:, frames] for column in columns], tips, degrees)
    still = [np.zeros((len(bone.dof), 1)) for bone in bones]
    return SourceMotion(
        kind="Acclaim",
        names=(*(bone.name for bone in bones), *(f"end of {bones[tip].name}" for tip in tips)),
        positions=positions,
        parents=(*(bone.parent for bone in bones), *tips),
        ends=frozenset(range(len(bones), len(bones) + len(tips))),
        fps=_FPS,
        fps_source="not in AMC files; 120 is that of the CMU library",
        unit_in_metres=METRES_PER_INCH / skeleton.length_unit,
        unit_source=f"the skeleton's unit of length, {skeleton.length_unit:g}, in inches",
        rest=_place(bones, still, tips, degrees)[0],
        notes=(f"skeleton: {path.name}",),
    )


def _place(bones: list[AcclaimBone], columns: list[np.ndarray], tips: list[int], degrees: bool) -> np.ndarray:
    """Positions (frames, bones and tips, 3) of where bones begin, and of tips."""
    frames = columns[0].shape[1]
    positions = np.empty((frames, len(bones) + len(tips), 3))
    turns: list[np.ndarray] = []  # of each bone its rotation from the rest pose, (3, 3, frames)
    ends: list[np.ndarray] = []  # of each bone, (3, frames)
    for index, (bone, values) in enumerate(zip(bones, columns, strict=True)):
        angles = [np.radians(v) if degrees else v for kind, v in zip(bone.dof, values, strict=True) if kind[0] == "r"]
        local = np.broadcast_to(np.eye(3)[:, :, None], (3, 3, frames))
        if angles:
            local = _rotation([kind for kind in bone.dof if kind[0] == "r"], np.stack(angles))
            local = np.einsum("ij,jkt,lk->ilt", bone.axis, local, bone.axis)
        moved = np.zeros((3, frames))
        stretch = np.zeros(frames)
        for kind, value in zip(bone.dof, values, strict=True):
            if kind[0] == "t":
                moved[_AXES.index(kind[1])] = value
            elif kind == "l":
                stretch = value
        if index == 0:
            turns.append(local if not bone.axis.any() else np.einsum("ijt,jk->ikt", local, bone.axis))
            ends.append(bone.direction[:, None] + moved)
            positions[:, 0] = ends[0].T
            continue
        positions[:, index] = ends[bone.parent].T
        turn = np.einsum("ijt,jkt->ikt", turns[bone.parent], local)
        length = bone.length + stretch
        vector = np.einsum("ijt,j->it", turn, bone.direction) * length + np.einsum("ijt,jt->it", turn, moved)
        turns.append(turn)
        ends.append(ends[bone.parent] + vector)
    for number, tip in enumerate(tips):
        positions[:, len(bones) + number] = ends[tip].T
    return positions


def _rotation(kinds: list[str], angles: np.ndarray) -> np.ndarray:
    """The matrices (3, 3, frames) that turn about the axis of the first kind first; angles (kinds, frames)."""
    turned = np.repeat(np.eye(3)[:, :, None], angles.shape[1], axis=2)
    for kind, angle in zip(kinds, angles, strict=True):
        axis = _AXES.index(kind[1])
        first, second = turned[(axis + 1) % 3], turned[(axis + 2) % 3]
        cosine, sine = np.cos(angle), np.sin(angle)
        turned[(axis + 1) % 3], turned[(axis + 2) % 3] = first * cosine - second * sine, first * sine + second * cosine
    return turned
