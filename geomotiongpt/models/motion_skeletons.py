"""The motion representations: their skeletons, their conventions, and where each feature lies in a row."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class MotionRepresentation:
    """A skeleton and the conventions by which its motion becomes features.

    Joints are numbered as in the data set. A chain lists joints from the body outwards, first the one it hangs from.

    Args:
        name (`str`): how functions and configurations call it.
        fps (`float`): frames per second.
        unit_in_metres (`float`): length of one unit: 1.0 for metres, 0.001 for millimetres.
        joint_names (`tuple[str, ...]`): one name a joint.
        kinematic_chains (`tuple[tuple[int, ...], ...]`): together they reach every joint once.
        raw_offsets (`tuple` of shape `(num_joints, 3)`): direction of the bone that ends in each joint, in the rest
            pose; always along an axis, and zero for the root.
        left_joints, right_joints (`tuple[int, ...]`): counterparts, in the same order.
        face_joints (`tuple[int, int, int, int]`): right hip, left hip, right shoulder, left shoulder.
        left_foot, right_foot (`tuple[int, int]`): the joints whose contact with the ground is a feature.
        leg_joints (`tuple[int, int]`): the joints whose bone lengths set the scale when a clip is retargeted.
        contact_threshold (`float`): squared displacement per frame below which a foot joint stands still; of no use in
            the layout "frames".
        target_bone_lengths (`tuple[float, ...]`, *optional*): lengths of the bones that end in joints 1.., in units;
            what retargeting gives to every clip. None where the data set publishes none.
        layout (`"steps"` or `"frames"`, defaults to `"steps"`): what a row of features describes: the step from a
            frame to the next, in the groups of HumanML3D, so that T frames give T - 1 rows; or a frame and how it came
            from the one before, in the groups of `streaming_representation`, so that T frames give T rows.
    """

    name: str
    fps: float
    unit_in_metres: float
    joint_names: tuple[str, ...]
    kinematic_chains: tuple[tuple[int, ...], ...]
    raw_offsets: tuple[tuple[float, float, float], ...]
    left_joints: tuple[int, ...]
    right_joints: tuple[int, ...]
    face_joints: tuple[int, int, int, int]
    left_foot: tuple[int, int]
    right_foot: tuple[int, int]
    leg_joints: tuple[int, int]
    contact_threshold: float
    target_bone_lengths: tuple[float, ...] | None = None
    layout: Literal["steps", "frames"] = "steps"

    @property
    def num_joints(self) -> int:
        return len(self.joint_names)

    @property
    def num_features(self) -> int:
        return sum(self._group_sizes.values())

    def num_rows(self, num_frames: int) -> int:
        """Rows of features that a clip of so many frames of joints gives."""
        return num_frames - 1 if self.layout == "steps" else num_frames

    @cached_property
    def feature_slices(self) -> dict[str, slice]:
        """Where each group of features lies, in order."""
        slices, start = {}, 0
        for group, size in self._group_sizes.items():
            slices[group] = slice(start, start + size)
            start += size
        return slices

    @cached_property
    def _group_sizes(self) -> dict[str, int]:
        joints, bones = self.num_joints, self.num_joints - 1
        if self.layout == "frames":
            local = {"positions": 3 * joints, "velocities": 3 * joints, "rotations": 6 * joints}
            return {"root_velocity": 2, "heading_change": 6, **local}
        local = {"positions": 3 * bones, "rotations": 6 * bones, "velocities": 3 * joints}
        return {"root_yaw": 1, "root_velocity": 2, "root_height": 1, **local, "contacts": 4}

    @cached_property
    def parents(self) -> tuple[int, ...]:
        """The joint that each joint hangs from; -1 for the root."""
        parents = [-1] * self.num_joints
        for chain in self.kinematic_chains:
            for parent, joint in zip(chain, chain[1:], strict=False):
                parents[joint] = parent
        return tuple(parents)

    @cached_property
    def rotation_parents(self) -> tuple[int, ...]:
        """The joint whose rotation each joint's is relative to: its parent, or the root where a chain starts."""
        starts = {chain[1] for chain in self.kinematic_chains}
        return tuple(0 if joint in starts else parent for joint, parent in enumerate(self.parents))

    @cached_property
    def half_turns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each bone its axis, and the diagonals of half turns about it and about that of the bone before."""
        axes = np.array(self.raw_offsets)[:, :, None, None]
        diagonals = 2 * axes**2 - 1
        diagonals[0, 2] = 1  # the root's axis is z
        return axes[1:], diagonals[1:], diagonals[list(self.rotation_parents[1:])]

    @cached_property
    def outward_order(self) -> tuple[int, ...]:
        """Joints 1.. in an order in which parents come first."""
        return tuple(sorted(range(1, self.num_joints), key=self._depth))

    def _depth(self, joint: int) -> int:
        return 0 if joint == 0 else 1 + self._depth(self.parents[joint])

    @cached_property
    def mirrored_joints(self) -> tuple[int, ...]:
        """For each joint, the one whose place it takes in the mirror."""
        order = list(range(self.num_joints))
        for left, right in zip(self.left_joints, self.right_joints, strict=True):
            order[left], order[right] = right, left
        return tuple(order)

    @cached_property
    def mirrored_features(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """For each feature, the one whose place it takes in the mirror, and the sign it takes."""
        joints, slices = np.array(self.mirrored_joints), self.feature_slices
        order, signs = np.arange(self.num_features), np.ones(self.num_features)
        vector, rotation = (-1, 1, 1), (1, -1, -1, -1, 1, 1)
        signs[slices["root_velocity"]] = (-1, 1)
        for group, joint_signs in (("positions", vector), ("rotations", rotation), ("velocities", vector)):
            part, width = slices[group], len(joint_signs)
            first = self.num_joints - self._group_sizes[group] // width  # 1 where the root has none
            order[part] = order[part].reshape(-1, width)[joints[first:] - first].reshape(-1)
            signs[part] = np.tile(joint_signs, self.num_joints - first)
        if self.layout == "frames":
            signs[slices["heading_change"]] = rotation
        else:
            signs[slices["root_yaw"]] = -1
            order[slices["contacts"]] = np.roll(order[slices["contacts"]], 2)
        return tuple(order.tolist()), tuple(signs.tolist())


def _axis_directions(axes: str) -> tuple[tuple[float, float, float], ...]:
    """`"0xY"` -> `((0, 0, 0), (1, 0, 0), (0, -1, 0))`."""
    table = {"0": (0.0, 0.0, 0.0), "x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}
    return tuple(table[a] if a in table else tuple(-v for v in table[a.lower()]) for a in axes)  # type: ignore[misc]


MOTION_REPRESENTATIONS: dict[str, MotionRepresentation] = {
    "humanml3d": MotionRepresentation(
        name="humanml3d",
        fps=20.0,
        unit_in_metres=1.0,
        joint_names=(
            *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle"),
            *("right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head"),
            *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
        ),
        kinematic_chains=(
            (0, 2, 5, 8, 11),
            (0, 1, 4, 7, 10),
            (0, 3, 6, 9, 12, 15),
            (9, 14, 17, 19, 21),
            (9, 13, 16, 18, 20),
        ),
        raw_offsets=_axis_directions("0xXyYYyYYyzzyxXzYYYYYY"),
        left_joints=(1, 4, 7, 10, 13, 16, 18, 20),
        right_joints=(2, 5, 8, 11, 14, 17, 19, 21),
        face_joints=(2, 1, 17, 16),
        left_foot=(7, 10),
        right_foot=(8, 11),
        leg_joints=(5, 8),
        contact_threshold=0.002,
        target_bone_lengths=(
            *(0.1030740, 0.1098834, 0.1315682, 0.3936232, 0.3901882, 0.1431902, 0.4324330),
            *(0.4256434, 0.0573647, 0.1433818, 0.1494191, 0.2193601, 0.1374868, 0.1433828),
            *(0.1030392, 0.1316140, 0.1229844, 0.2568399, 0.2630919, 0.2660118, 0.2698763),
        ),
    ),
    # Left and right are those of the published feature code; the names of the KIT markers have them the other way
    # round.
    "kitml": MotionRepresentation(
        name="kitml",
        fps=12.5,
        unit_in_metres=0.001,
        joint_names=(
            *("root", "pelvis", "thorax", "lower_neck", "upper_neck"),
            *("right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
            *("right_hip", "right_knee", "right_ankle", "right_foot", "right_toe"),
            *("left_hip", "left_knee", "left_ankle", "left_foot", "left_toe"),
        ),
        kinematic_chains=(
            (0, 11, 12, 13, 14, 15),
            (0, 16, 17, 18, 19, 20),
            (0, 1, 2, 3, 4),
            (3, 5, 6, 7),
            (3, 8, 9, 10),
        ),
        raw_offsets=_axis_directions("0yyyyxYYXYYxYYzzXYYzz"),
        left_joints=(8, 9, 10, 16, 17, 18, 19, 20),
        right_joints=(5, 6, 7, 11, 12, 13, 14, 15),
        face_joints=(11, 16, 5, 8),
        left_foot=(19, 20),
        right_foot=(14, 15),
        leg_joints=(17, 18),
        contact_threshold=0.05,
    ),
}
MOTION_REPRESENTATIONS["streaming272"] = replace(
    MOTION_REPRESENTATIONS["humanml3d"],
    name="streaming272",
    fps=30.0,
    # SMPL's rest pose, a T: arms to the sides, the head above the neck
    raw_offsets=_axis_directions("0xXyYYyYYyzzyxXyxXxXxX"),
    layout="frames",
)


def get_motion_representation(name: str) -> MotionRepresentation:
    """The motion representation of that name.

    Raises:
        ValueError: if there is none; the message lists those there are.
    """
    if name not in MOTION_REPRESENTATIONS:
        raise ValueError(f"unknown motion representation {name!r}; choose one of {sorted(MOTION_REPRESENTATIONS)}")
    return MOTION_REPRESENTATIONS[name]
