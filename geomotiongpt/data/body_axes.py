"""What joints themselves tell of a file: which way is up, where the floor is, the unit, and whether left is left."""

import numpy as np

from .joint_matching import SKELETON

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254, "ft": 0.3048, "acclaim": 0.0254 / 0.45}
_NAMES_OF_UNITS = {"m": "metres", "cm": "centimetres", "mm": "millimetres", "in": "inches", "ft": "feet"}
_NAMES_OF_UNITS["acclaim"] = "the CMU library's unit, 1/0.45 inch"
# Rows of rotations (no mirrors) that take each axis to y.
TO_Y_UP = {
    "x": ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
    "-x": ((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
    "y": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "-y": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "z": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "-z": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
}
_HUMAN_HEIGHT, _HUMAN_HEIGHTS = 1.7, (1.0, 2.3)  # metres
_POSSIBLE_HEIGHTS = (0.5, 3.0)  # of a unit that the file states
_HEIGHT_OF_BONES = 1.12  # height of a body, against its legs and the way from pelvis to head
_UPRIGHT, _STRAIGHT = 0.8, 0.85
_STEADIER, _LEVEL = 0.5, 0.01  # of another axis; of the height of the body
_FRAMES = 1000  # looked at, spread over the motion
_SURE = 0.2
# A floor that leans: what feet at rest show of it, and by how much (metres, except the last).
_PLANTED_SPEED, _FEWEST_PLANTED, _SHORTEST_WAY = 0.3, 8, 1.0  # the first in metres a second
_SMALLEST_RISE, _STEEPEST, _RISE_EXPLAINED = 0.03, 0.05, 4  # the second is a slope, the third a ratio
_FIXED = 1e-4  # metres
_ROUNDS, _OUTLYING, _NEAR = 3, 2, 0.005

_INDEX = {name: index for index, name in enumerate(SKELETON.joint_names)}
_LEGS = [[_INDEX[f"{side}_{part}"] for part in ("hip", "knee", "ankle")] for side in ("left", "right")]
_TOES = [_INDEX["left_foot"], _INDEX["right_foot"]]
_TRUNK = [_INDEX[name] for name in ("pelvis", "spine1", "spine2", "spine3", "neck", "head")]


def body_height(joints: np.ndarray) -> float:
    """Height of a body, measured along its bones, in the unit of its joints (frames, 22, 3)."""
    frames = _some(joints)
    legs = [_length(frames, leg) for leg in _LEGS]
    return _HEIGHT_OF_BONES * float(np.median(sum(legs) / 2 + _length(frames, _TRUNK)))


def _some(joints: np.ndarray) -> np.ndarray:
    return joints[:: -(-len(joints) // _FRAMES)]


def _length(joints: np.ndarray, chain: list[int]) -> np.ndarray:
    return np.linalg.norm(np.diff(joints[:, chain], axis=1), axis=-1).sum(axis=1)


def find_unit(joints: np.ndarray, stated: float | None, stated_by: str) -> tuple[float, str, str]:
    """Metres of a unit, what tells so, and a warning where nothing does.

    Args:
        joints: (frames, 22, 3).
        stated: what the file states, if anything.
        stated_by: the words for it.

    Raises:
        ValueError: if the body has no size.
    """
    height = body_height(joints)
    if not 0 < height < float("inf"):
        raise ValueError(f"its figure is {height} units high; all joints lie at one place")
    if stated is not None:
        metres = height * stated
        if _POSSIBLE_HEIGHTS[0] < metres < _POSSIBLE_HEIGHTS[1]:
            return stated, f"{stated_by}; the figure is {metres:.2f} m high", ""
    name = min(UNITS, key=lambda unit: abs(np.log(height * UNITS[unit] / _HUMAN_HEIGHT)))
    metres = height * UNITS[name]
    if _HUMAN_HEIGHTS[0] <= metres <= _HUMAN_HEIGHTS[1]:
        why = f"the figure is {height:.4g} units high: {_NAMES_OF_UNITS[name]}, {metres:.2f} m"
        return UNITS[name], why, f"{stated_by} is not believed" if stated is not None else ""
    scale = _HUMAN_HEIGHT / height
    warning = f"a figure {height:.4g} units high is no human in any usual unit: it is scaled to {_HUMAN_HEIGHT} m"
    return scale, "none fits", f"{warning}; give unit= to have its own size"


def find_up(joints: np.ndarray, rest: np.ndarray | None) -> tuple[str, str]:
    """The axis that points up, and what tells so.

    Through most motions the head is above the feet. Where it is not, or the rest pose has it elsewhere, the axis is
    that along which the lowest joint moves least: a floor bears it. If that does not tell clearly, it is y. Joints of
    somebody who lies still all the time tell nothing, unless the file has a rest pose.

    Args:
        joints: (frames, 22, 3).
        rest: (22, 3) joints unturned, if the file has that.
    """
    frames = _some(joints)
    axis, strength = _main_axis(_head_above_feet(frames).mean(axis=0))
    rest_axis = None if rest is None else axis_of_rest(rest)
    if strength >= _UPRIGHT and rest_axis in (None, axis):
        return axis, "the head is above the feet"
    candidates = {axis, rest_axis} if rest_axis else {axis, "y", "z"}
    usual = "y" if "y" in candidates else rest_axis or axis
    least = _LEVEL * body_height(frames)
    unsteady = {name: least + _unsteadiness(frames, name) for name in sorted(candidates)}
    best = min(unsteady, key=lambda name: unsteady[name])
    if unsteady[best] >= _STEADIER * unsteady[usual]:
        best = usual
    why = "the lowest joint stays at one level along it" if best != usual else "nothing speaks against it"
    return best, f"{why}; the head is mostly towards {axis}, so look at the result"


def axis_of_rest(pose: np.ndarray) -> str | None:
    """The axis along which a rest pose (22, 3) stands; None if it does not stand, as in rigs of many programs."""
    rest = pose[None]
    axis, upright = _main_axis(_head_above_feet(rest)[0])
    bones = sum(_length(rest, leg)[0] for leg in _LEGS) / 2 + _length(rest, _TRUNK)[0]
    return axis if upright > _UPRIGHT and _head_to_feet(rest)[0] > _STRAIGHT * bones else None


def _head_above_feet(joints: np.ndarray) -> np.ndarray:
    """Directions (frames, 3)."""
    vectors = joints[:, _INDEX["head"]] - joints[:, [leg[2] for leg in _LEGS]].mean(axis=1)
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def _head_to_feet(joints: np.ndarray) -> np.ndarray:
    return np.linalg.norm(joints[:, _INDEX["head"]] - joints[:, [leg[2] for leg in _LEGS]].mean(axis=1), axis=-1)


def _main_axis(direction: np.ndarray) -> tuple[str, float]:
    """The axis nearest to a direction, and the direction's share along it."""
    axis = int(np.argmax(np.abs(direction)))
    return ("-" if direction[axis] < 0 else "") + "xyz"[axis], float(abs(direction[axis]))


def _unsteadiness(joints: np.ndarray, axis: str) -> float:
    return float((joints @ np.array(TO_Y_UP[axis][1], float)).min(axis=1).std())


def left_is_left(joints: np.ndarray, trust_feet: bool) -> float:
    """How far the sides are what they are called, from -1 (mirrored) to 1; about 0: nothing tells.

    Toes point ahead and knees bend ahead; left is where up and ahead have it.

    Args:
        joints: (frames, 22, 3), y up.
        trust_feet: whether the toes are measured.
    """
    frames = _some(joints)
    across = frames[:, _INDEX["left_hip"]] - frames[:, _INDEX["right_hip"]]
    across = across + frames[:, _INDEX["left_shoulder"]] - frames[:, _INDEX["right_shoulder"]]
    ahead = np.zeros_like(across)
    for side, (hip, knee, ankle) in zip(("left", "right"), _LEGS, strict=True):
        ahead += frames[:, knee] - (frames[:, hip] + frames[:, ankle]) / 2
        if trust_feet:
            ahead += frames[:, _INDEX[f"{side}_foot"]] - frames[:, ankle]
    left_of_ahead = ahead[:, 2] * across[:, 0] - ahead[:, 0] * across[:, 2]  # (up x ahead) . across
    sizes = np.linalg.norm(ahead[:, ::2], axis=-1) * np.linalg.norm(across[:, ::2], axis=-1)
    return float(left_of_ahead.sum() / sizes.sum()) if sizes.sum() > 0 else 0.0


def side_warning(joints: np.ndarray, trust_feet: bool) -> tuple[str, str]:
    """What to say of left and right, and a warning if something is wrong with them."""
    sureness = left_is_left(joints, trust_feet)
    frames = _some(joints)
    hips, shoulders = (
        frames[:, _INDEX[f"left_{part}"]] - frames[:, _INDEX[f"right_{part}"]] for part in ("hip", "shoulder")
    )
    if (hips * shoulders).sum() < 0:
        return "arms and legs disagree", "the left arm is over the right leg: a mapping has to name the sides"
    if sureness < -_SURE:
        return "mirrored", (
            "the body is mirrored: toes and knees point backwards. Either left and right are called by each other's "
            "names (name them in a mapping file), or the file has left-handed axes (negate one of them)"
        )
    return ("left is left, by toes and knees" if sureness > _SURE else "toes and knees do not tell"), ""


def level_floor(joints: np.ndarray, fps: float) -> tuple[np.ndarray, str]:
    """Joints turned so that the floor is level, where the feet show that it leans, and a note on it.

    Where a studio's axes are off by a degree, as in trials of the CMU library, people climb by centimetres on the way
    through the room. A plane is fitted to the toes that stand still, and believed if it rises by more than they
    scatter about it, and less than a ramp does.

    Args:
        joints: (frames, 22, 3) in metres, y up.
        fps: frames per second.
    """
    toes = joints[:, _TOES]
    points = toes[standing_still(toes, fps)]
    if len(points) < _FEWEST_PLANTED:
        return joints, ""
    ground = points[:, ::2] - points[:, ::2].mean(axis=0)
    directions = np.linalg.svd(ground, full_matrices=False)[2]
    directions = directions[np.ptp(ground @ directions.T, axis=0) > _SHORTEST_WAY]  # of others nothing is known
    if not len(directions):
        return joints, ""
    columns = np.concatenate([np.ones((len(points), 1)), ground @ directions.T], axis=1)
    kept = np.ones(len(points), bool)
    for _ in range(_ROUNDS):  # a toe about to leave the floor is an outlier
        plane = np.linalg.lstsq(columns[kept], points[kept, 1], rcond=None)[0]
        off = points[:, 1] - columns @ plane
        kept = np.abs(off) <= max(_OUTLYING * off[kept].std(), _NEAR)
    slope, rise = plane[1:] @ directions, float(np.ptp(columns @ plane))
    if not (rise > max(_SMALLEST_RISE, _RISE_EXPLAINED * off.std()) and np.linalg.norm(slope) < _STEEPEST):
        return joints, ""
    note = f"the floor of the file leans: feet rise by {100 * rise:.0f} cm on the way; it is levelled"
    return joints @ _upright(np.array([-slope[0], 1.0, -slope[1]])).T, note


def fixed_height_note(joints: np.ndarray) -> str:
    """What to say where a body (frames, 22, 3) in metres goes along while its pelvis keeps one height; else ""."""
    along, height = np.ptp(joints[:, 0, ::2], axis=0).max(), np.ptp(joints[:, 0, 1])
    if along > _SHORTEST_WAY and height < _FIXED:
        return "the pelvis keeps one height on the way, which no body does: feet cannot keep to the floor"
    return ""


def standing_still(points: np.ndarray, fps: float) -> np.ndarray:
    """Whether points (frames, n, 3) in metres hardly move before or after a frame: bool (frames, n)."""
    speed = fps * np.linalg.norm(np.diff(points, axis=0), axis=-1)
    if not len(speed):
        return np.zeros(points.shape[:2], bool)
    return np.minimum(np.concatenate([speed[:1], speed]), np.concatenate([speed, speed[-1:]])) < _PLANTED_SPEED


def _upright(normal: np.ndarray) -> np.ndarray:
    """The shortest rotation that takes a direction near y to y."""
    x, y, z = normal / np.linalg.norm(normal)
    return np.array(
        [[1 - x * x / (1 + y), -x, -x * z / (1 + y)], [x, y, z], [-x * z / (1 + y), -z, 1 - z * z / (1 + y)]]
    )
