"""Motions of the Master Motor Map (MMM; Terlemez et al., Humanoids 2014): joint angles -> places, by the model file.

A motion file (`..._mmm.xml`) has the root's place and three angles and one angle for each joint, frame by frame. The
model file (`mmm.xml`, in Simox' robot format) has the body, one metre high; it is scaled to the height of the subject.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .input_files import read_bytes

_LENGTHS = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
_FIXED = ("fixed", "prismatic")  # the lengths of the segments, which stay what the model says
_MOST_NODES = 1000


@dataclass(frozen=True, eq=False)
class MMMModel:
    """A body of nodes that hang from each other, parents before children.

    Args:
        names: of the nodes.
        parents: index of each node's parent, -1 of the root.
        transforms: (nodes, 4, 4) from the parent, in millimetres of a body one metre high.
        axes: (nodes, 3) that each turns about; zero if it does not turn.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    transforms: np.ndarray
    axes: np.ndarray


@dataclass(frozen=True, eq=False)
class MMMMotion:
    """A motion of MMM.

    Args:
        height: of the subject, metres.
        fps: frames per second.
        root: (frames, 3) in millimetres, Z up.
        turn: (frames, 3) roll, pitch and yaw of the root, radians.
        angles: name of each joint -> (frames,) radians.
    """

    height: float
    fps: float
    root: np.ndarray
    turn: np.ndarray
    angles: dict[str, np.ndarray]


def read_mmm_model(path: Path) -> MMMModel:
    """Reads the body.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no such model, or has what is not known here.
    """
    robot = _parse(path, "model")
    if robot.tag != "Robot":
        raise ValueError(f"{path} is a <{robot.tag}>; wanted the model, mmm.xml of the MMM framework, a <Robot>.")
    try:
        nodes = {_attribute(node, "name"): node for node in robot.iter("RobotNode")}
        children = {
            name: [_attribute(child, "name") for child in node.findall("Child")] for name, node in nodes.items()
        }
        order = [(_attribute(robot, "RootNode"), -1)]
        for index, (name, _) in enumerate(order):  # grows as it goes
            if name not in nodes:
                raise ValueError(f"the node {name} is not there")
            order += [(child, index) for child in children[name]]
            if len(order) > min(_MOST_NODES, len(nodes)):
                raise ValueError("some node is the child of several, or there are too many")
        transforms = np.stack([_transform(nodes[name]) for name, _ in order])
        axes = np.stack([_axis(nodes[name]) for name, _ in order])
    except ValueError as error:
        raise ValueError(f"{path}: {error}.") from None
    names, parents = zip(*order, strict=True)
    return MMMModel(names, parents, transforms, axes)


def read_mmm_motion(path: Path) -> MMMMotion:
    """Reads the first motion of a file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or its body was made in another way than by Winter's proportions.
    """
    motion = _parse(path, "motion").find("Motion")
    try:
        if motion is None:
            raise ValueError("no <Motion> in it")
        config = motion.find("ModelProcessorConfig")
        if config is None or config.get("type") != "Winter" or config.find("SegmentLength") is not None:
            raise ValueError("wanted a <ModelProcessorConfig type='Winter'> with the height of the subject")
        height = float(_numbers(config, "Height", 1)[0])
        names = [_attribute(joint, "name") for joint in motion.findall("JointOrder/Joint")]
        frames = motion.findall("MotionFrames/MotionFrame")
        if not names or len(frames) < 2 or not 0.3 < height < 3:
            raise ValueError(f"{len(names)} joints, {len(frames)} frames, {height:g} m high: no motion of a human")
        rows = [
            np.concatenate(
                [
                    _numbers(frame, "Timestep", 1),
                    _numbers(frame, "RootPosition", 3),
                    _numbers(frame, "RootRotation", 3),
                    _numbers(frame, "JointPosition", len(names)),
                ]
            )
            for frame in frames
        ]
        table = np.stack(rows)
        step = np.diff(table[:, 0])
        if not (step > 0).all() or np.ptp(step) > 0.5 * np.median(step):
            raise ValueError("the time steps are not even")
    except ValueError as error:
        raise ValueError(f"{path}: {error}.") from None
    fps = float(len(step) / (table[-1, 0] - table[0, 0]))
    angles = dict(zip(names, table[:, 7:].T, strict=True))
    return MMMMotion(height, round(fps, 3), table[:, 1:4], table[:, 4:7], angles)


def mmm_joints(model: MMMModel, motion: MMMMotion, nodes: Sequence[str]) -> np.ndarray:
    """Places of nodes.

    Args:
        model: the body.
        motion: how it moves; the joints that it leaves out stay at zero.
        nodes: names of the nodes wanted; "" is the root.

    Returns:
        (frames, nodes, 3) in millimetres, Z up.

    Raises:
        ValueError: for a joint or a node that the model does not have.
    """
    known = dict(zip(model.names, range(len(model.names)), strict=True))
    still = {name for name, axis in zip(model.names, model.axes, strict=True) if not axis.any()}
    wrong = sorted(set(motion.angles).difference(known).union(still.intersection(motion.angles)))
    wrong += sorted(set(nodes) - set(known) - {""})
    if wrong:
        raise ValueError(f"the model has no joint {', '.join(wrong[:5])}: it is not that of the motion")
    roll, pitch, yaw = motion.turn.T
    turns = [_turn(yaw, (0, 0, 1)) @ _turn(pitch, (0, 1, 0)) @ _turn(roll, (1, 0, 0))]
    places = [motion.root]
    for name, parent, transform, axis in zip(
        model.names[1:], model.parents[1:], model.transforms[1:], model.axes[1:], strict=True
    ):
        places.append(places[parent] + turns[parent] @ (motion.height * transform[:3, 3]))
        turn = turns[parent] @ transform[:3, :3]
        turns.append(turn @ _turn(motion.angles[name], axis) if name in motion.angles else turn)
    return np.stack([places[known[name] if name else 0] for name in nodes], axis=1)


def _parse(path: Path, what: str) -> ET.Element:
    content = read_bytes(path, f"MMM {what}")
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ValueError(f"{path} declares entities, which an MMM {what} has no use for.")
    try:
        return ET.fromstring(content)
    except ET.ParseError as error:
        raise ValueError(f"{path} is no XML: {error}.") from None


def _attribute(element: ET.Element, name: str) -> str:
    value = element.get(name)
    if not value:
        raise ValueError(f"a <{element.tag}> has no {name}")
    return value


def _numbers(parent: ET.Element, tag: str, count: int) -> np.ndarray:
    element = parent.find(tag)
    words = [] if element is None else (element.text or "").split()
    numbers = np.array([float(word) for word in words])
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(f"<{tag}> has {len(words)} numbers; wanted {count} finite ones")
    return numbers


def _vector(element: ET.Element, names: str = "xyz") -> np.ndarray:
    vector = np.array([float(_attribute(element, name)) for name in names])
    if not np.isfinite(vector).all():
        raise ValueError(f"a <{element.tag}> has numbers that are not finite")
    return vector


def _transform(node: ET.Element) -> np.ndarray:
    """(4, 4) from the parent of a node, millimetres."""
    matrix = np.eye(4)
    for part in node.findall("Transform/*"):
        unit = part.get("units", "")
        if unit not in _LENGTHS:
            raise ValueError(
                f"a <{part.tag}> of {node.get('name')} is in {unit!r}; wanted one of {', '.join(_LENGTHS)}"
            )
        if part.tag == "Matrix4x4":
            for row in range(3):
                element = part.find(f"row{row + 1}")
                if element is None:
                    raise ValueError(f"a <Matrix4x4> of {node.get('name')} is not whole")
                matrix[row] = [float(_attribute(element, f"c{column}")) for column in range(1, 5)]
        elif part.tag == "Translation":
            matrix[:3, 3] = _vector(part)
        else:
            raise ValueError(f"<{part.tag}> of {node.get('name')} is not known; wanted Matrix4x4 or Translation")
        matrix[:3, 3] *= _LENGTHS[unit]
    if not np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-3) or not np.isfinite(matrix).all():
        raise ValueError(f"the transform of {node.get('name')} is no rotation and shift")
    return matrix


def _axis(node: ET.Element) -> np.ndarray:
    joint = node.find("Joint")
    if joint is None or joint.get("type") in _FIXED:
        return np.zeros(3)
    axis = next((child for child in joint if child.tag.lower() == "axis"), None)
    if joint.get("type") != "revolute" or axis is None or joint.get("offset"):
        raise ValueError(f"the joint of {node.get('name')} is a {joint.get('type')}; wanted revolute with an axis")
    vector = _vector(axis)
    length = float(np.linalg.norm(vector))
    if not length > 0:
        raise ValueError(f"the axis of {node.get('name')} has no direction")
    return vector / length


def _turn(angles: np.ndarray, axis: Sequence[float] | np.ndarray) -> np.ndarray:
    """(frames,) radians about an axis -> (frames, 3, 3)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]], np.float64)
    sin, cos = np.sin(angles)[:, None, None], np.cos(angles)[:, None, None]
    return np.eye(3) + sin * cross + (1 - cos) * (cross @ cross)  # Rodrigues
