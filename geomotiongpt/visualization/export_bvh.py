"""A motion as a BVH file, for Blender, MotionBuilder, Maya, Unreal and others.

The joints of the representation under their names, root first, Y up, facing +Z in the rest pose, in centimetres, the
habit of BVH: in Blender import with scale 0.01. The root has its position, which counts from the origin (its own
offset is zero), and every joint a rotation, the product of turns about Z, X and Y in this order, in degrees.
"""

from pathlib import Path

import numpy as np

from .armature import Armature, make_armature, rest_directions
from .clip import Clip
from .output import write_aside

CENTIMETRES = 100
TIP = 0.5  # length of what a hand, a foot or the head has beyond its joint, of the bone before
ROTATION_CHANNELS = "Zrotation Xrotation Yrotation"


def export_bvh(clip: Clip, path: Path) -> Path:
    """Write a BVH file."""
    armature = make_armature(clip)
    joints = _file_order(armature, 0)
    angles = np.degrees(_zxy_angles(armature.rotations))[:, joints]
    values = np.concatenate([CENTIMETRES * armature.root, angles.reshape(len(angles), -1)], axis=1)
    lines = [
        "HIERARCHY",
        *_joint_lines(0, armature, clip, depth=0),
        "MOTION",
        f"Frames: {len(values)}",
        f"Frame Time: {1 / clip.fps:.9f}",
        *(" ".join(f"{value:.6f}" for value in row) for row in values.tolist()),
    ]
    text = "\n".join(lines) + "\n"
    return write_aside(path, lambda file: file.write(text.encode()))


def _children(armature: Armature, joint: int) -> list[int]:
    return [child for child, parent in enumerate(armature.parents) if parent == joint]


def _file_order(armature: Armature, joint: int) -> list[int]:
    """A joint and all beyond it, in the order in which the file has their channels."""
    return [joint, *(beyond for child in _children(armature, joint) for beyond in _file_order(armature, child))]


def _joint_lines(joint: int, armature: Armature, clip: Clip, depth: int) -> list[str]:
    indent, inner = "\t" * depth, "\t" * (depth + 1)
    root = joint == 0
    channels = f"6 Xposition Yposition Zposition {ROTATION_CHANNELS}" if root else f"3 {ROTATION_CHANNELS}"
    lines = [
        f"{indent}{'ROOT' if root else 'JOINT'} {clip.skeleton.joint_names[joint]}",
        f"{indent}{{",
        f"{inner}OFFSET {_numbers(armature.offsets[joint])}",
        f"{inner}CHANNELS {channels}",
    ]
    children = _children(armature, joint)
    for child in children:
        lines += _joint_lines(child, armature, clip, depth + 1)
    if not children:
        tip = TIP * np.linalg.norm(armature.offsets[joint]) * rest_directions(clip.skeleton)[joint]
        lines += [f"{inner}End Site", f"{inner}{{", f"{inner}\tOFFSET {_numbers(tip)}", f"{inner}}}"]
    return [*lines, f"{indent}}}"]


def _numbers(vector: np.ndarray) -> str:
    return " ".join(f"{value:.6f}" for value in CENTIMETRES * vector + 0.0)


def _zxy_angles(rotations: np.ndarray) -> np.ndarray:
    """Angles (frames, joints, 3) about Z, X and Y, radians, that do not jump from frame to frame.

    Each rotation has two triples of angles, and whole turns more: curves are what is edited, so the triple nearest to
    that of the frame before is taken.
    """
    sine = np.clip(rotations[..., 2, 1], -1, 1)
    angles = np.stack(
        [
            np.arctan2(-rotations[..., 0, 1], rotations[..., 1, 1]),
            np.arcsin(sine),
            np.arctan2(-rotations[..., 2, 0], rotations[..., 2, 2]),
        ],
        axis=-1,
    )
    # Z and Y turn about one axis where X is a right angle: all of it goes to Z.
    locked = np.abs(sine) > 1 - 1e-12
    angles[locked] = np.stack(
        [np.arctan2(rotations[..., 1, 0], rotations[..., 0, 0]), angles[..., 1], np.zeros_like(sine)], axis=-1
    )[locked]
    other = angles * (1, -1, 1) + np.pi
    for frame in range(1, len(angles)):
        before = angles[frame - 1]
        both = np.stack([angles[frame], other[frame]])
        both -= 2 * np.pi * np.round((both - before) / (2 * np.pi))
        nearer = np.abs(both - before).sum(axis=-1).argmin(axis=0)
        angles[frame] = both[nearer, np.arange(len(nearer))]
    return angles
