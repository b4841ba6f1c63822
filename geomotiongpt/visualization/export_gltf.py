"""A motion as binary glTF 2.0 (.glb): an animated skeleton with a simple body, for Blender, three.js, Unity, Windows.

Metres, Y up, facing +Z in the rest pose, as the format has it. The joints of the representation are nodes under their
names; one skin joins them to a mesh of a bone each, blue on the left and orange on the right as in the animations.
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from .animation import BONE_WIDTH, CENTRE, HEAD_RADIUS, LEFT, RIGHT, Colour, head_joint
from .armature import Armature, as_quaternions, make_armature
from .clip import Clip
from .output import write_aside

VERTICES, INDICES = 34962, 34963  # numbers of the format, as are those below
_COMPONENTS = {np.dtype(np.float32): 5126, np.dtype(np.uint8): 5121, np.dtype(np.uint16): 5123}
_KINDS = {1: "SCALAR", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
SIDES = 8  # of a rod


def export_glb(clip: Clip, path: Path) -> Path:
    """Write a `.glb` file."""
    armature = make_armature(clip)
    document = _Document()
    joints = range(clip.skeleton.num_joints)
    rest = armature.rest_joints
    offsets = armature.offsets.copy()
    offsets[0] = rest[0]
    nodes: list[dict[str, Any]] = []
    for joint in joints:
        node = {"name": clip.skeleton.joint_names[joint], "translation": offsets[joint].tolist()}
        children = [child for child in joints if armature.parents[child] == joint]
        nodes.append(node | ({"children": children} if children else {}))
    nodes.append({"name": "body", "mesh": 0, "skin": 0})
    unbind = np.tile(np.eye(4), (len(rest), 1, 1))
    unbind[:, 3, :3] = -rest  # columns one after the other
    skin = {"joints": list(joints), "inverseBindMatrices": document.add(unbind.reshape(-1, 16)), "skeleton": 0}
    extras = {"fps": clip.fps, "representation": clip.skeleton.name}
    tree = {
        "asset": {"version": "2.0", "generator": "geomotiongpt"},
        "scene": 0,
        "scenes": [
            {"nodes": [0, len(joints)], "extras": extras | ({"caption": clip.caption} if clip.caption else {})}
        ],
        "nodes": nodes,
        "meshes": [{"name": "body", "primitives": _primitives(clip, rest, document)}],
        "materials": [_material(name, colour) for name, colour in _COLOURS.items()],
        "skins": [skin],
        "animations": [_animation(armature, clip, document)],
    }
    return document.write(tree, path)


_COLOURS: dict[str, Colour] = {"left": LEFT, "right": RIGHT, "centre": CENTRE}


class _Document:
    """The binary chunk of a file and the tables that say what lies where in it."""

    def __init__(self) -> None:
        self.chunk = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(self, values: np.ndarray, *, target: int | None = None, bounds: bool = False) -> int:
        """Append (count,) or (count, components), float32 unless whole numbers, and return its accessor's number."""
        values = np.ascontiguousarray(values if values.dtype.kind == "u" else values.astype(np.float32))
        columns = values.reshape(len(values), -1)
        view = {"buffer": 0, "byteOffset": len(self.chunk), "byteLength": values.nbytes}
        self.views.append(view | ({} if target is None else {"target": target}))
        accessor: dict[str, Any] = {
            "bufferView": len(self.views) - 1,
            "componentType": _COMPONENTS[values.dtype],
            "count": len(values),
            "type": _KINDS[columns.shape[1]],
        }
        if bounds:
            accessor |= {"min": columns.min(axis=0).tolist(), "max": columns.max(axis=0).tolist()}
        self.accessors.append(accessor)
        self.chunk += values.tobytes() + bytes(-values.nbytes % 4)
        return len(self.accessors) - 1

    def write(self, tree: dict[str, Any], path: Path) -> Path:
        tree |= {
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": len(self.chunk)}],
        }
        text = json.dumps(tree, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        length = 12 + 8 + len(text) + 8 + len(self.chunk)
        parts = [
            struct.pack("<4sII", b"glTF", 2, length),
            struct.pack("<I4s", len(text), b"JSON"),
            text,
            struct.pack("<I4s", len(self.chunk), b"BIN\0"),
            bytes(self.chunk),
        ]
        return write_aside(path, lambda file: file.writelines(parts))


def _animation(armature: Armature, clip: Clip, document: _Document) -> dict[str, Any]:
    times = document.add(np.arange(len(armature.root)) / clip.fps, bounds=True)
    quaternions = as_quaternions(armature.rotations)
    paths = [(0, "translation", armature.root)]
    paths += [(joint, "rotation", quaternions[:, joint]) for joint in range(quaternions.shape[1])]
    return {
        "name": clip.caption or "motion",
        "channels": [
            {"sampler": index, "target": {"node": joint, "path": what}} for index, (joint, what, _) in enumerate(paths)
        ],
        "samplers": [
            {"input": times, "output": document.add(values), "interpolation": "LINEAR"} for _, _, values in paths
        ],
    }


def _material(name: str, colour: Colour) -> dict[str, Any]:
    linear = [((value / 255 + 0.055) / 1.055) ** 2.4 for value in colour]  # of sRGB, for values above 10
    return {
        "name": name,
        "pbrMetallicRoughness": {"baseColorFactor": [*linear, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.8},
    }


def _primitives(clip: Clip, rest: np.ndarray, document: _Document) -> list[dict[str, Any]]:
    """A rod a bone, which follows the joint that it starts from, and the head; one primitive a colour."""
    skeleton = clip.skeleton
    rods: dict[str, list[tuple[int, np.ndarray, np.ndarray, float]]] = {side: [] for side in _COLOURS}
    for joint in skeleton.outward_order:
        side = "left" if joint in skeleton.left_joints else "right" if joint in skeleton.right_joints else "centre"
        parent = skeleton.parents[joint]
        rods[side].append((parent, rest[parent], rest[joint], BONE_WIDTH / 2))
    head = head_joint(skeleton)
    half = np.array((0, HEAD_RADIUS / 3, 0))
    rods["centre"].append((head, rest[head] - half, rest[head] + half, HEAD_RADIUS))
    primitives = []
    for material, parts in enumerate(rods.values()):
        points, normals = (np.concatenate(arrays) for arrays in zip(*(_rod(*part[1:]) for part in parts), strict=True))
        joints, weights = np.zeros((len(points), 4), np.uint8), np.zeros((len(points), 4))
        joints[:, 0] = np.repeat([part[0] for part in parts], 2 * SIDES + 2)
        weights[:, 0] = 1
        triangles = _TRIANGLES + (2 * SIDES + 2) * np.arange(len(parts))[:, None, None]
        attributes = {
            "POSITION": document.add(points, target=VERTICES, bounds=True),
            "NORMAL": document.add(normals, target=VERTICES),
            "JOINTS_0": document.add(joints, target=VERTICES),
            "WEIGHTS_0": document.add(weights, target=VERTICES),
        }
        indices = document.add(triangles.reshape(-1).astype(np.uint16), target=INDICES)
        primitives.append({"attributes": attributes, "indices": indices, "material": material})
    return primitives


def _rod(start: np.ndarray, end: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Points and normals (2 SIDES + 2, 3): a tip beyond the start, a ring about it, a ring about the end, a tip."""
    along = end - start
    length = float(np.linalg.norm(along))
    axis = along / length if length else np.array((0.0, 1.0, 0.0))
    across = np.cross(axis, np.eye(3)[np.abs(axis).argmin()])
    across /= np.linalg.norm(across)
    angles = 2 * np.pi * np.arange(SIDES)[:, None] / SIDES
    ring = np.cos(angles) * across + np.sin(angles) * np.cross(axis, across)
    normals = np.concatenate([[-axis], ring, ring, [axis]])
    return np.concatenate(
        [[start], np.tile(start, (SIDES, 1)), np.tile(end, (SIDES, 1)), [end]]
    ) + radius * normals, normals


def _triangles() -> np.ndarray:
    """Triangles (4 SIDES, 3) of a rod's points, anticlockwise as seen from outside."""
    here = 1 + np.arange(SIDES)
    after, last = np.roll(here, -1), np.full(SIDES, 2 * SIDES + 1)
    first = np.zeros_like(last)
    faces = [(first, after, here), (here, after, after + SIDES), (here, after + SIDES, here + SIDES)]
    faces.append((last, here + SIDES, after + SIDES))
    return np.concatenate([np.stack(face, axis=1) for face in faces])


_TRIANGLES = _triangles()
