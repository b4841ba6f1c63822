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
from functools import cached_property
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

    positions = tensor.movedim((-2, -1), (0, 1)).contiguous()  # time last: the fastest to run along
    if retarget:
        positions = _set_bone_lengths(positions, _bone_lengths(rep, target_skeleton, tensor), rep)
    positions = _canonicalize(positions, rep)
    features = _features(positions, _headings(positions, rep), rep, fix_heading_wrap)
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

    rows = tensor.movedim(-1, 0).contiguous()
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


def _normalize(vectors: Tensor, length: Tensor | float = 1.0) -> Tensor:
    """Give vectors along dimension 1 a length; zero stays zero, with a finite gradient."""
    squared = vectors.square().sum(1, keepdim=True)
    return vectors * (length * torch.where(squared > 0, squared, 1.0).rsqrt())


def _cross(a: Tensor, b: Tensor) -> Tensor:
    (ax, ay, az), (bx, by, bz) = a.unbind(1), b.unbind(1)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], dim=1)


def _rotate_about_y(yaw: Tensor, vectors: Tensor) -> Tensor:
    cosine, sine = yaw.cos(), yaw.sin()
    x, y, z = vectors.unbind(1)
    return torch.stack([cosine * x + sine * z, y, cosine * z - sine * x], dim=1)


def _drop_height(vectors: Tensor) -> Tensor:
    return vectors * _over_time(vectors.new_tensor([(1, 0, 1)]), vectors)


def _bones(positions: Tensor, rep: MotionRepresentation) -> Tensor:
    """Vectors from the parent of each of joints 1.. to it."""
    return positions[1:] - positions[list(rep.parents[1:])]


# Joints to features


def _set_bone_lengths(positions: Tensor, lengths: Tensor, rep: MotionRepresentation) -> Tensor:
    """Keep the direction of every bone, set its length, and scale the root's path as the legs of frame 0."""
    bones = _bones(positions, rep)
    legs = [joint - 1 for joint in rep.leg_joints]
    leg_length = torch.linalg.vector_norm(bones[legs, ..., 0], dim=1).sum(0)
    if (leg_length == 0).any():
        raise ValueError(
            f"cannot scale a clip in which joints {rep.leg_joints} coincide with their parents in frame 0; "
            "drop it or pass retarget=False"
        )
    scale = lengths[legs].sum() / leg_length
    bones = _normalize(bones, _over_time(lengths.view(-1, 1), bones))
    joints = [positions[0] * scale.unsqueeze(-1)] * rep.num_joints
    for joint in rep.outward_order:
        joints[joint] = joints[rep.parents[joint]] + bones[joint - 1]
    return torch.stack(joints)


def _canonicalize(positions: Tensor, rep: MotionRepresentation) -> Tensor:
    """Put the clip's lowest point on the ground, and frame 0 above the origin, facing +Z."""
    lowest = positions[:, 1].amin((0, -1)).unsqueeze(-1)
    x, _, z = positions[0, ..., :1]
    positions = positions - torch.stack([x, lowest, z])
    right_hip, left_hip, right_shoulder, left_shoulder = positions[list(rep.face_joints), ..., :1]
    return _rotate_about_y(_yaw(_facing((right_hip - left_hip) + (right_shoulder - left_shoulder))), positions)


def _facing(across: Tensor) -> Tensor:
    """x and z of the direction at right angles to y and to a direction across the body (3, ...); (2, ...)."""
    x, _, z = _normalize(across.unsqueeze(0))[0]
    return torch.stack([z, -x])


def _yaw(facing: Tensor) -> Tensor:
    """The turn about y that takes a facing direction to +Z; none where there is no direction."""
    x, z = facing
    return torch.atan2(-x, torch.where((x == 0) & (z == 0), 1.0, z))


def _headings(positions: Tensor, rep: MotionRepresentation) -> Tensor:
    """The heading of every frame, as published: hips swapped, smoothed, and none at frame 0."""
    right_hip, left_hip, right_shoulder, left_shoulder = positions[list(rep.face_joints)]
    yaw = _yaw(_smooth(_facing((left_hip - right_hip) + (right_shoulder - left_shoulder))))
    return torch.cat([torch.zeros_like(yaw[..., :1]), yaw[..., 1:]], dim=-1)


def _smooth(signal: Tensor) -> Tensor:
    """Gaussian filter along time; the first and last value continue beyond the ends."""
    num_frames, radius = signal.shape[-1], HEADING_SMOOTHING_RADIUS
    offsets = torch.arange(-radius, radius + 1, dtype=signal.dtype, device=signal.device)
    kernel = torch.exp(-0.5 * (offsets / HEADING_SMOOTHING_SIGMA).square())
    ends = [end.expand(*signal.shape[:-1], radius) for end in (signal[..., :1], signal[..., -1:])]
    padded = torch.cat([ends[0], signal, ends[1]], dim=-1)
    length = padded.shape[-1]
    spectrum = torch.fft.rfft(padded) * torch.fft.rfft(kernel / kernel.sum(), n=length)
    return torch.fft.irfft(spectrum, n=length)[..., 2 * radius : 2 * radius + num_frames]


def _features(positions: Tensor, yaw: Tensor, rep: MotionRepresentation, fix_heading_wrap: bool) -> Tensor:
    """Features of each step (..., T - 1, num_features)."""
    frames, steps = positions[..., :-1], positions.diff(dim=-1)
    yaw_now, yaw_after = yaw[..., :-1], yaw[..., 1:]

    # The published value is an arcsine: where the angle jumps by a whole turn, it has the wrong sign
    half_turn = (yaw_after - yaw_now) / 2
    root_yaw = half_turn - math.pi * (half_turn / math.pi).round()
    if not fix_heading_wrap:
        root_yaw = torch.where(half_turn.abs() > math.pi / 2, -root_yaw, root_yaw)

    root_velocity = _rotate_about_y(yaw_after, steps[:1])[0, ::2]
    local_positions = _rotate_about_y(yaw_now, frames[1:] - _drop_height(frames[:1]))
    local_velocities = _rotate_about_y(yaw_now, steps)
    contacts = steps[[*rep.left_foot, *rep.right_foot]].square().sum(1) < rep.contact_threshold
    groups = [
        root_yaw.unsqueeze(0),
        root_velocity,
        frames[0, 1:2],
        local_positions.flatten(0, 1),
        _local_rotations(frames, yaw_now, rep).flatten(0, 2),
        local_velocities.flatten(0, 1),
        contacts.to(positions.dtype),
    ]
    return torch.cat([group.movedim(0, -1) for group in groups], dim=-1)


def _local_rotations(positions: Tensor, yaw: Tensor, rep: MotionRepresentation) -> Tensor:
    """First two columns of bone rotations from rest, relative to the bone before (J - 1, column, row, ..., T).

    The shortest rotation that takes a coordinate axis a to a direction b is G = H D: a half turn about a, D, then one
    about a + b, H = n n' - 1 with n of length sqrt(2). D is diagonal, and so, with bone p before it,

        G_p' G = D_p (n_p n_p' - 1) (n n' - 1) D = D_p (n_p ((n_p . n) n - n_p)' - n n' + 1) D.
    """
    bones = _bones(positions, rep)
    rest = positions.new_tensor(rep.raw_offsets[1:])
    axes = _over_time(rest, bones)
    squared_length = bones.square().sum(1, keepdim=True)
    squared_length = torch.where(squared_length > 0, squared_length, 1.0)  # a bone without length stays at rest
    halfway = torch.addcmul(bones, axes, squared_length.sqrt())
    squared = halfway.square().sum(1, keepdim=True)
    # Against the axis the shortest rotation is not unique (published: 0 / 0). Closer to it than rounding can tell,
    # take a half turn about the next coordinate axis.
    opposite = squared < torch.finfo(squared.dtype).eps * squared_length
    squared = torch.where(opposite, 1.0, squared)
    halfway = torch.where(opposite, axes.roll(1, dims=1), halfway)
    normals = halfway * (2 / squared).sqrt()

    # The heading, too, is such a product: of half turns about z and about (sin, 0, cos) of half its angle
    root = math.sqrt(2) * torch.stack([(yaw / 2).sin(), torch.zeros_like(yaw), (yaw / 2).cos()])
    before = torch.cat([root.unsqueeze(0), normals])[list(rep.rotation_parents[1:])]
    diagonals = 2 * torch.cat([rest.new_tensor([(0, 0, 1)]), rest]).square() - 1
    signs = diagonals[1:, :2].unsqueeze(2) * diagonals[list(rep.rotation_parents[1:])].unsqueeze(1)
    ones = signs * torch.eye(2, 3, dtype=signs.dtype, device=signs.device)

    dot = (before * normals).sum(1, keepdim=True)
    factors = (dot * normals[:, :2] - before[:, :2]).unsqueeze(2)
    products = before.unsqueeze(1) * factors
    products = products.addcmul_(normals.unsqueeze(1), normals[:, :2].unsqueeze(2), value=-1)
    return torch.addcmul(_over_time(ones, bones), products, _over_time(signs, bones))


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
