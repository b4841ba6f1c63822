"""Joint positions to and from the motion features of HumanML3D (263-d) and KIT-ML (251-d).

A clip of T frames of J joints gives T - 1 feature rows; row t describes the step from t to t + 1. Each row is

    root yaw (1)             half the angle the body turns by in this step, radians
    root velocity (2)        x and z displacement of the root, seen from the heading at t + 1
    root height (1)          above the clip's lowest point
    positions (3 (J - 1))    joints 1.., relative to the root in x and z, absolute in y, seen from the heading at t
    rotations (6 (J - 1))    local rotation of joints 1.., as the first two columns of its matrix
    velocities (3 J)         displacement of every joint, seen from the heading at t
    contacts (4)             1 where a foot joint stands still: left ankle and toe, right ankle and toe

Vectors are interchangeable with the published ones only because four oddities of the published code are kept:

- the per-frame heading is measured with left and right hip swapped (only frame 0, which sets the clip's orientation,
  has them right), so that hips and shoulders largely cancel;
- every chain, the arms included, starts from the root rotation, although the arms hang from the chest;
- the heading of frame 0 is set to the identity after smoothing;
- the root's velocity is seen from the heading at t + 1, all other velocities from the heading at t.

The data set's maintainer has confirmed the first two and frozen them (HumanML3D issues 107, 119 and 131).

Inside, a tensor of vectors is (joints, 3, ..., T), so that arithmetic runs along time, and a heading is the turn about
y, in radians, that takes the facing direction to +Z (..., T). All arithmetic is element by element, or a Fourier
transform: matrix products and convolutions may run in TF32 or under autocast, and a heading that is off by 1e-3 moves
the whole body.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

HEADING_SMOOTHING_SIGMA = 20  # frames, at any frame rate
HEADING_SMOOTHING_RADIUS = 80  # four sigma

Array = TypeVar("Array", Tensor, np.ndarray)


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
        contact_threshold (`float`): squared displacement per frame below which a foot joint stands still.
        target_bone_lengths (`tuple[float, ...]`, *optional*): lengths of the bones that end in joints 1.., in units;
            what retargeting gives to every clip. None where the data set publishes none.
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

    @property
    def num_joints(self) -> int:
        return len(self.joint_names)

    @property
    def num_features(self) -> int:
        return 12 * self.num_joints - 1

    @cached_property
    def feature_slices(self) -> dict[str, slice]:
        """Where each group of features lies, in order."""
        bones = self.num_joints - 1
        sizes = {
            "root_yaw": 1,
            "root_velocity": 2,
            "root_height": 1,
            "positions": 3 * bones,
            "rotations": 6 * bones,
            "velocities": 3 * self.num_joints,
            "contacts": 4,
        }
        slices, start = {}, 0
        for group, size in sizes.items():
            slices[group] = slice(start, start + size)
            start += size
        return slices

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
    def _half_turns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
        joints = np.array(self.mirrored_joints)
        order, signs = np.arange(self.num_features), np.ones(self.num_features)
        signs[self.feature_slices["root_yaw"]] = -1
        signs[self.feature_slices["root_velocity"]] = (-1, 1)
        for group, joint_signs, first in (
            ("positions", (-1, 1, 1), 1),
            ("rotations", (1, -1, -1, -1, 1, 1), 1),
            ("velocities", (-1, 1, 1), 0),
        ):
            part, width = self.feature_slices[group], len(joint_signs)
            order[part] = order[part].reshape(-1, width)[joints[first:] - first].reshape(-1)
            signs[part] = np.tile(joint_signs, self.num_joints - first)
        contacts = self.feature_slices["contacts"]
        order[contacts] = np.roll(order[contacts], 2)
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


def get_motion_representation(name: str) -> MotionRepresentation:
    """The motion representation of that name.

    Raises:
        ValueError: if there is none; the message lists those there are.
    """
    if name not in MOTION_REPRESENTATIONS:
        raise ValueError(f"unknown motion representation {name!r}; choose one of {sorted(MOTION_REPRESENTATIONS)}")
    return MOTION_REPRESENTATIONS[name]


def joints_to_features(
    joints: Array,
    representation: str = "humanml3d",
    *,
    retarget: bool = True,
    target_skeleton: Tensor | np.ndarray | None = None,
    fix_heading_wrap: bool = False,
) -> Array:
    """Turn clips of joint positions into motion features.

    Clips of unequal length go into one batch if the short ones repeat their last frame: the first T - 1 rows of a clip
    of T frames stay what they are alone, because smoothing continues the last frame too. Differentiable; joints that
    coincide and bones that point against their rest direction have finite gradients.

    Args:
        joints (`torch.Tensor` or `np.ndarray` of shape `(..., T, J, 3)`): float32 or float64 positions in the unit of
            the representation, y up, at its frame rate; T at least 2.
        representation (`str`, defaults to `"humanml3d"`): a key of `MOTION_REPRESENTATIONS`.
        retarget (`bool`, defaults to `True`): give all bones the target lengths first. Published features have it;
            mirror joints before it, not after.
        target_skeleton (`torch.Tensor` or `np.ndarray` of shape `(J, 3)`, *optional*): one pose whose bone lengths are
            the target; the representation's own by default.
        fix_heading_wrap (`bool`, defaults to `False`): correct the yaw where the heading crosses 180 degrees.
            Published features have the wrong sign there, which leads the recovered path astray.

    Returns:
        `torch.Tensor` or `np.ndarray`, as `joints`, of shape `(..., T - 1, num_features)`.

    Raises:
        ValueError: for a wrong shape or dtype, fewer than two frames, nothing to retarget to, or a leg without length.

    Source: Guo et al., Generating Diverse and Natural 3D Human Motions from Text (CVPR 2022), and its published code.
    """
    rep = get_motion_representation(representation)
    if target_skeleton is not None and not retarget:
        raise ValueError("target_skeleton has no effect with retarget=False; drop one of the two")
    tensor = _as_float_tensor(joints, "joints", rep, ("T", rep.num_joints, 3))
    if tensor.shape[-3] < 2:
        raise ValueError(f"a feature row needs two frames, got joints of shape {tuple(tensor.shape)}; drop the clip")

    lengths = _bone_lengths(rep, target_skeleton, tensor) if retarget else None
    features = _features(tensor.reshape(-1, *tensor.shape[-3:]), lengths, rep, fix_heading_wrap)
    features = features.view(*tensor.shape[:-3], *features.shape[1:])
    return features.numpy() if isinstance(joints, np.ndarray) else features


def features_to_joints(
    features: Array,
    representation: str = "humanml3d",
    *,
    source: Literal["positions", "rotations"] = "positions",
    target_skeleton: Tensor | np.ndarray | None = None,
) -> Array:
    """Recover joint positions from motion features (not normalised). Differentiable.

    Args:
        features (`torch.Tensor` or `np.ndarray` of shape `(..., T, num_features)`): float32 or float64.
        representation (`str`, defaults to `"humanml3d"`): a key of `MOTION_REPRESENTATIONS`.
        source (`"positions"` or `"rotations"`, defaults to `"positions"`): place the joints by their positions, as the
            published metrics do, or by forward kinematics, which keeps bone lengths constant. In both, the root's path
            and heading come from its velocities.
        target_skeleton (`torch.Tensor` or `np.ndarray` of shape `(J, 3)`, *optional*): for `"rotations"`, one pose
            that gives the bone lengths; the representation's own by default.

    Returns:
        `torch.Tensor` or `np.ndarray`, as `features`, of shape `(..., T, J, 3)`: from above the origin, facing +Z.

    Raises:
        ValueError: for a wrong shape, dtype or source, or no bone lengths to place `"rotations"` with.

    Source: as for [`joints_to_features`].
    """
    rep = get_motion_representation(representation)
    if source not in ("positions", "rotations"):
        raise ValueError(f"unknown source {source!r}; choose 'positions' or 'rotations'")
    if target_skeleton is not None and source == "positions":
        raise ValueError("target_skeleton has no effect with source='positions'; drop it or pass source='rotations'")
    tensor = _as_float_tensor(features, "features", rep, ("T", rep.num_features))

    used = rep.feature_slices[source].stop
    rows = tensor[..., :used].movedim(-1, 0).contiguous()
    yaw, root = _recover_root(rows, rep)
    if source == "positions":
        local = rows[rep.feature_slices["positions"]].unflatten(0, (-1, 3))
        positions = torch.cat([root, _rotate_about_y(-yaw, local) + _drop_height(root)])
    else:
        rotations = rows[rep.feature_slices["rotations"]].unflatten(0, (-1, 2, 3))
        positions = _forward_kinematics(root, yaw, rotations, _bone_lengths(rep, target_skeleton, tensor), rep)
    joints = positions.movedim((0, 1), (-2, -1)).contiguous()
    return joints.numpy() if isinstance(features, np.ndarray) else joints


def mirror_joints(joints: Array, representation: str = "humanml3d") -> Array:
    """Mirror joint positions in the plane x = 0: negate x and swap left and right joints.

    Mirror before retargeting, as the published data does: the target skeleton is not symmetric.

    Args:
        joints (`torch.Tensor` or `np.ndarray` of shape `(..., J, 3)`): float32 or float64 positions.
        representation (`str`, defaults to `"humanml3d"`): a key of `MOTION_REPRESENTATIONS`.

    Returns:
        `torch.Tensor` or `np.ndarray`, as `joints`: the mirrored positions, of the same shape.

    Raises:
        ValueError: for a wrong shape or dtype.
    """
    rep = get_motion_representation(representation)
    tensor = _as_float_tensor(joints, "joints", rep, (rep.num_joints, 3))
    mirrored = tensor[..., list(rep.mirrored_joints), :] * tensor.new_tensor((-1, 1, 1))
    return mirrored.numpy() if isinstance(joints, np.ndarray) else mirrored


def mirror_features(features: Array, representation: str = "humanml3d") -> Array:
    """Mirror motion features (not normalised) in the plane x = 0.

    Exact for features made without retargeting. With it, the features of mirrored joints differ a little, because the
    target skeleton is not symmetric: data that is to match the published mirrors joints.

    Args:
        features (`torch.Tensor` or `np.ndarray` of shape `(..., num_features)`): float32 or float64.
        representation (`str`, defaults to `"humanml3d"`): a key of `MOTION_REPRESENTATIONS`.

    Returns:
        `torch.Tensor` or `np.ndarray`, as `features`: the mirrored features, of the same shape.

    Raises:
        ValueError: for a wrong shape or dtype.
    """
    rep = get_motion_representation(representation)
    tensor = _as_float_tensor(features, "features", rep, (rep.num_features,))
    order, signs = rep.mirrored_features
    mirrored = tensor[..., list(order)] * tensor.new_tensor(signs)
    return mirrored.numpy() if isinstance(features, np.ndarray) else mirrored


# Input


def _as_float_tensor(
    values: Tensor | np.ndarray, name: str, rep: MotionRepresentation, last_dims: tuple[int | str, ...]
) -> Tensor:
    """A checked tensor; last_dims are the dimensions it must end with, a letter where any size will do."""
    tensor = torch.tensor(np.ascontiguousarray(values)) if isinstance(values, np.ndarray) else values
    if tensor.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} must be float32 or float64, got {tensor.dtype}; convert them first")
    found = tensor.shape[-len(last_dims) :]
    if len(found) < len(last_dims) or any(
        isinstance(want, int) and want != got for want, got in zip(last_dims, found, strict=True)
    ):
        wanted = ", ".join(map(str, ("...", *last_dims)))
        raise ValueError(
            f"{rep.name} {name} must have shape ({wanted}), got {tuple(tensor.shape)}; "
            f"representations to choose from: {sorted(MOTION_REPRESENTATIONS)}"
        )
    return tensor


def _bone_lengths(rep: MotionRepresentation, skeleton: Tensor | np.ndarray | None, like: Tensor) -> Tensor:
    """Target lengths of the bones that end in joints 1.. (J - 1)."""
    if skeleton is not None:
        pose = _as_float_tensor(skeleton, "target_skeleton", rep, (rep.num_joints, 3)).to(like)
        if pose.dim() > 2:
            raise ValueError(f"target_skeleton must be one pose, got shape {tuple(pose.shape)}; pass one frame of it")
        return torch.linalg.vector_norm(pose[1:] - pose[list(rep.parents[1:])], dim=-1)
    if rep.target_bone_lengths is None:
        raise ValueError(
            f"no target bone lengths are published for {rep.name}: pass target_skeleton, joints of shape "
            f"({rep.num_joints}, 3) such as the first frame of a clip, or keep each clip's own with retarget=False"
        )
    return like.new_tensor(rep.target_bone_lengths)


# Geometry


def _over_time(constant: Tensor, like: Tensor) -> Tensor:
    """Append dimensions so that constants of joints broadcast over the batch and time of (joints, 3, ..., T)."""
    return constant.view(*constant.shape, *[1] * (like.dim() - 2))


def _take(values: Tensor, indices: tuple[int, ...]) -> Tensor:
    """`values[list(indices)]`, but faster."""
    return values.index_select(0, torch.as_tensor(_index_array(indices), device=values.device))


@lru_cache
def _index_array(indices: tuple[int, ...]) -> np.ndarray:
    return np.array(indices)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    (ax, ay, az), (bx, by, bz) = a.unbind(1), b.unbind(1)
    return torch.addcmul(torch.addcmul(ax * bx, ay, by), az, bz).unsqueeze(1)


def _normalize(vectors: Tensor, length: Tensor | float = 1.0) -> Tensor:
    """Give vectors along dimension 1 a length; zero stays zero, with a finite gradient."""
    squared = _dot(vectors, vectors)
    none = squared == 0
    if none.any():
        squared = torch.where(none, 1.0, squared)
    return vectors * (length * squared.rsqrt())


def _cross(a: Tensor, b: Tensor) -> Tensor:
    (ax, ay, az), (bx, by, bz) = a.unbind(1), b.unbind(1)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], dim=1)


def _rotate_about_y(yaw: Tensor, vectors: Tensor) -> Tensor:
    cosine, sine = yaw.cos(), yaw.sin()
    turned = vectors * torch.stack([cosine, torch.ones_like(cosine), cosine])
    turned[:, 0].addcmul_(sine, vectors[:, 2])
    turned[:, 2].addcmul_(sine, vectors[:, 0], value=-1)
    return turned


def _drop_height(vectors: Tensor) -> Tensor:
    return vectors * _over_time(vectors.new_tensor([(1, 0, 1)]), vectors)


def _bones(positions: Tensor, rep: MotionRepresentation) -> Tensor:
    """Vectors from the parent of each of joints 1.. to it."""
    return positions[1:] - _take(positions, rep.parents[1:])


# Joints to features


def _features(clips: Tensor, lengths: Tensor | None, rep: MotionRepresentation, fix_heading_wrap: bool) -> Tensor:
    """Features (clips, T - 1, num_features) of clips (clips, T, J, 3), retargeted to bone lengths (J - 1) if given."""
    positions = clips.movedim((2, 3), (0, 1)).contiguous()  # time last: the fastest to run along
    bones = _bones(positions, rep)
    if lengths is not None:
        root = positions[0] * _leg_scale(bones, lengths, rep)
        lengths = lengths.view(-1, 1, 1, 1)
        bones = _normalize(bones, lengths)
        positions = _place_joints(root, bones, rep)
    start, yaw = _headings(positions, rep)
    yaw_now, yaw_after = yaw[..., :-1], yaw[..., 1:]

    half_turn = (yaw_after - yaw_now) / 2
    if fix_heading_wrap:
        root_yaw = half_turn - math.pi * (half_turn / math.pi).round()
    else:  # arcsin(sin(half_turn)), as published: where the angle jumps by a whole turn, it has the wrong sign
        root_yaw = torch.maximum(torch.minimum(half_turn, math.pi - half_turn), -math.pi - half_turn)

    frames, steps = positions[..., :-1], positions.diff(dim=-1)
    x, y, z = frames[0]
    ground = positions[:, 1].amin((0, -1)).unsqueeze(-1).expand_as(y)
    root_velocity = _rotate_about_y(start + yaw_after, steps[:1])[0, ::2]
    local_positions = _rotate_about_y(start + yaw_now, frames[1:] - torch.stack([x, ground, z]))
    local_velocities = _rotate_about_y(start + yaw_now, steps)
    bones = _rotate_about_y(start.expand_as(y), bones[..., :-1])
    feet = _take(steps, (*rep.left_foot, *rep.right_foot))
    groups = [
        root_yaw.unsqueeze(0),
        root_velocity,
        (y - ground).unsqueeze(0),
        local_positions.flatten(0, 1),
        _local_rotations(bones, lengths, yaw_now, rep).flatten(0, 2),
        local_velocities.flatten(0, 1),
        (_dot(feet, feet)[:, 0] < rep.contact_threshold).to(steps.dtype),
    ]
    return torch.cat([group.movedim(0, -1) for group in groups], dim=-1)


def _leg_scale(bones: Tensor, lengths: Tensor, rep: MotionRepresentation) -> Tensor:
    """How much longer the legs of frame 0 become (..., 1)."""
    legs = tuple(joint - 1 for joint in rep.leg_joints)
    leg_length = torch.linalg.vector_norm(_take(bones[..., :1], legs), dim=1).sum(0)
    if (leg_length == 0).any():
        raise ValueError(
            f"cannot scale a clip in which joints {rep.leg_joints} coincide with their parents in frame 0; "
            "drop it or pass retarget=False"
        )
    return _take(lengths, legs).sum() / leg_length


def _place_joints(root: Tensor, bones: Tensor, rep: MotionRepresentation) -> Tensor:
    """Positions (J, 3, ..., T) from that of the root (3, ..., T) and bones (J - 1, 3, ..., T)."""
    joints, vectors = [root] * rep.num_joints, bones.unbind()
    for joint in rep.outward_order:
        joints[joint] = joints[rep.parents[joint]] + vectors[joint - 1]
    return torch.stack(joints)


def _headings(positions: Tensor, rep: MotionRepresentation) -> tuple[Tensor, Tensor]:
    """The turn that makes frame 0 face +Z (..., 1), and the headings after it (..., T).

    Those are as published: hips swapped, smoothed, and none at frame 0.
    """
    right_hip, left_hip, right_shoulder, left_shoulder = (positions[joint] for joint in rep.face_joints)
    hips, shoulders = left_hip - right_hip, left_shoulder - right_shoulder
    x, _, z = shoulders[..., :1] + hips[..., :1]
    start = _yaw(x, z)
    across = _normalize((shoulders - hips).unsqueeze(0))
    x, z = _smooth(_rotate_about_y(start.expand_as(x), across)[0, ::2])
    yaw = _yaw(x, z)
    return start, torch.cat([torch.zeros_like(start), yaw[..., 1:]], dim=-1)


def _yaw(x: Tensor, z: Tensor) -> Tensor:
    """The turn about y that takes the direction from right to left to +X; none where there is no direction."""
    return torch.atan2(z, torch.where((x == 0) & (z == 0), 1.0, x))


def _smooth(signal: Tensor) -> Tensor:
    """Gaussian filter along time; the first and last value continue beyond the ends."""
    num_frames, radius = signal.shape[-1], HEADING_SMOOTHING_RADIUS
    length = math.ceil((num_frames + 2 * radius) / 64) * 64  # transforms of a prime length are slow
    before = signal[..., :1].expand(*signal.shape[:-1], radius)
    after = signal[..., -1:].expand(*signal.shape[:-1], length - num_frames - radius)
    spectrum = torch.fft.rfft(torch.cat([before, signal, after], dim=-1))
    kernel = torch.as_tensor(_smoothing_spectrum(length), dtype=spectrum.dtype, device=signal.device)
    return torch.fft.irfft(spectrum * kernel, n=length)[..., 2 * radius : 2 * radius + num_frames]


@lru_cache
def _smoothing_spectrum(length: int) -> np.ndarray:
    offsets = np.arange(-HEADING_SMOOTHING_RADIUS, HEADING_SMOOTHING_RADIUS + 1)
    kernel = np.exp(-0.5 * (offsets / HEADING_SMOOTHING_SIGMA) ** 2)
    return np.fft.rfft(kernel / kernel.sum(), n=length)


def _local_rotations(bones: Tensor, lengths: Tensor | None, yaw: Tensor, rep: MotionRepresentation) -> Tensor:
    """First two columns of bone rotations from rest, relative to the bone before (J - 1, column, row, ..., T).

    The shortest rotation that takes a coordinate axis a to a direction b is G = H D: a half turn about a, D, then one
    about a + b, H = n n' - 1 with n of length sqrt(2). D is diagonal. So, with m = D n, and bone p before it,

        G_p' G = D_p (n_p n_p' - 1) (n n' - 1) D = m_p ((n_p . n) m - D_p D m_p)' - (D_p n) m' + D_p D.
    """
    axes, diagonals, diagonals_before = (
        torch.as_tensor(array, dtype=bones.dtype, device=bones.device) for array in rep._half_turns
    )
    squared_lengths = _dot(bones, bones) if lengths is None else lengths.square()
    squared_lengths = torch.where(squared_lengths > 0, squared_lengths, 1.0)  # a bone without length stays at rest
    halfway = bones + axes * squared_lengths.sqrt()
    squared = _dot(halfway, halfway)
    # Against the axis the shortest rotation is not unique (published: 0 / 0). Closer to it than rounding can tell,
    # take a half turn about the next coordinate axis.
    opposite = squared < torch.finfo(squared.dtype).eps * squared_lengths
    if opposite.any():
        halfway = torch.where(opposite, axes.roll(1, dims=1), halfway)
        squared = torch.where(opposite, 1.0, squared)
    normals = halfway * (2 / squared).sqrt()

    turned = diagonals * normals
    # The heading, too, is such a product: of half turns about z and about (sin, 0, cos) of half its angle
    root = math.sqrt(2) * torch.stack([-(yaw / 2).sin(), torch.zeros_like(yaw), (yaw / 2).cos()])
    before = _take(torch.cat([root.unsqueeze(0), turned]), rep.rotation_parents[1:])
    normals = diagonals_before * normals
    ones = (diagonals_before * diagonals)[:, :2]

    factors = _dot(before, normals) * turned[:, :2] - ones * before[:, :2]
    rotations = before.unsqueeze(1) * factors.unsqueeze(2)
    rotations.addcmul_(normals.unsqueeze(1), turned[:, :2].unsqueeze(2), value=-1)
    rotations.diagonal(dim1=1, dim2=2).movedim(-1, 1).add_(ones)
    return rotations


# Features to joints


def _recover_root(rows: Tensor, rep: MotionRepresentation) -> tuple[Tensor, Tensor]:
    """Heading (..., T) and position (1, 3, ..., T) of the root."""
    start = torch.zeros_like(rows[0, ..., :1])
    yaw = 2 * torch.cat([start, rows[0, ..., :-1]], dim=-1).cumsum(-1)
    x, z = rows[rep.feature_slices["root_velocity"], ..., :-1]
    # Row t has the step from t to t + 1 as seen from the heading at t + 1
    steps = _rotate_about_y(-yaw[..., 1:], torch.stack([x, torch.zeros_like(x), z]).unsqueeze(0))[0]
    path_x, path_z = (torch.cat([start, step], dim=-1).cumsum(-1) for step in (steps[0], steps[2]))
    return yaw, torch.stack([path_x, rows[3], path_z]).unsqueeze(0)


def _forward_kinematics(
    root: Tensor, yaw: Tensor, rotations: Tensor, lengths: Tensor, rep: MotionRepresentation
) -> Tensor:
    """Positions (J, 3, ..., T) from local rotations (J - 1, column, row, ..., T) and bone lengths."""
    first = _normalize(rotations[:, 0])
    third = _normalize(_cross(first, rotations[:, 1]))
    local = torch.stack([first, _cross(third, first), third], dim=1)

    axes = _over_time(torch.eye(3, dtype=yaw.dtype, device=yaw.device), root).expand(3, 3, *yaw.shape)
    world = [_rotate_about_y(yaw, axes)] * rep.num_joints  # (column, row, ..., T)
    offsets = lengths.unsqueeze(1) * lengths.new_tensor(rep.raw_offsets[1:])
    joints = [root[0]] * rep.num_joints
    for joint in rep.outward_order:
        x, y, z = world[rep.rotation_parents[joint]]
        a, b, c = local[joint - 1].unsqueeze(2).unbind(1)
        world[joint] = a * x + b * y + c * z
        u, v, w = world[joint]
        along_x, along_y, along_z = offsets[joint - 1]
        joints[joint] = joints[rep.parents[joint]] + (along_x * u + along_y * v + along_z * w)
    return torch.stack(joints)
