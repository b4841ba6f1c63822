"""Joint positions to and from motion features: HumanML3D (263-d), KIT-ML (251-d) and streaming (272-d).

The last has a module of its own, `streaming_representation`. In the two others a clip of T frames of J joints gives
T - 1 feature rows; row t describes the step from t to t + 1. Each row is

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

Inside, tensors and headings are those of `joint_vectors`.
"""

import math
from functools import lru_cache
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from .joint_vectors import (
    bone_vectors,
    dot,
    drop_height,
    normalize,
    orthonormalize,
    over_time,
    rotate_about_y,
    take,
    turn_to_x,
    with_bone_lengths,
)
from .motion_skeletons import MOTION_REPRESENTATIONS, MotionRepresentation, get_motion_representation
from .streaming_representation import streaming_features, streaming_joints

HEADING_SMOOTHING_SIGMA = 20  # frames, at any frame rate
HEADING_SMOOTHING_RADIUS = 80  # four sigma
_ROTATION_TOLERANCE = 1e-3

Array = TypeVar("Array", Tensor, np.ndarray)


def joints_to_features(
    joints: Array,
    representation: str = "humanml3d",
    *,
    retarget: bool = True,
    target_skeleton: Tensor | np.ndarray | None = None,
    fix_heading_wrap: bool = False,
    rotations: Array | None = None,
) -> Array:
    """Turn clips of joint positions into motion features.

    Clips of unequal length go into one batch if the short ones repeat their last frame: the rows of a clip stay what
    they are alone, because smoothing continues the last frame too. Differentiable; joints that coincide and bones that
    point against their rest direction have finite gradients.

    Positions do not tell how a bone is turned about itself: rotations made of them are the shortest that lead to the
    next joint (of "streaming272" see `streaming_representation`).

    Args:
        joints (`torch.Tensor` or `np.ndarray` of shape `(..., T, J, 3)`): float32 or float64 positions in the unit of
            the representation, y up, at its frame rate; T at least 2, of "streaming272" at least 1.
        representation (`str`, defaults to `"humanml3d"`): a key of `MOTION_REPRESENTATIONS`.
        retarget (`bool`, defaults to `True`): give all bones the target lengths first. Published features have it;
            mirror joints before it, not after.
        target_skeleton (`torch.Tensor` or `np.ndarray` of shape `(J, 3)`, *optional*): one pose whose bone lengths are
            the target; the representation's own by default.
        fix_heading_wrap (`bool`, defaults to `False`): correct the yaw where the heading crosses 180 degrees.
            Published features have the wrong sign there, which leads the recovered path astray. "streaming272" has no
            such error.
        rotations (`torch.Tensor` or `np.ndarray` of shape `(..., T, J, 3, 3)`, *optional*): for "streaming272", local
            rotation matrices to put in instead, such as SMPL's: the first of them is the body's in the world, each
            other is relative to its parent and moves the joints beyond its own.

    Returns:
        `torch.Tensor` or `np.ndarray`, as `joints`, of shape `(..., T - 1, num_features)`, of "streaming272"
        `(..., T, num_features)`.

    Raises:
        ValueError: for a wrong shape or dtype, too few frames, nothing to retarget to, a leg without length,
            `rotations` that are none, or an option of another representation.

    Source: Guo et al., Generating Diverse and Natural 3D Human Motions from Text (CVPR 2022), and its published code;
        of "streaming272" Xiao et al., MotionStreamer (ICCV 2025), and its published code.
    """
    rep = get_motion_representation(representation)
    if target_skeleton is not None and not retarget:
        raise ValueError("target_skeleton has no effect with retarget=False; drop one of the two")
    tensor = _as_float_tensor(joints, "joints", rep, ("T", rep.num_joints, 3))
    if rep.num_rows(tensor.shape[-3]) < 1:
        needed = "a feature row needs two frames" if rep.layout == "steps" else "a clip needs a frame"
        raise ValueError(f"{needed}, got joints of shape {tuple(tensor.shape)}; drop the clip")

    lengths = _bone_lengths(rep, target_skeleton, tensor) if retarget else None
    clips = tensor.reshape(-1, *tensor.shape[-3:])
    if rep.layout == "frames":
        if fix_heading_wrap:
            raise ValueError(f"fix_heading_wrap has no effect on {rep.name}, whose heading has no wrap; drop it")
        matrices = None if rotations is None else _rotations_of(rotations, tensor, rep).reshape(*clips.shape, 3)
        features = streaming_features(clips, lengths, matrices, rep)
    else:
        if rotations is not None:
            raise ValueError(f"rotations have no effect on {rep.name}, which makes its own; drop them")
        features = _features(clips, lengths, rep, fix_heading_wrap)
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
            and heading come from its velocities. In "streaming272" rotations turn the bones of the first row's
            positions, whatever rest pose they are relative to.
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
    lengths = _bone_lengths(rep, target_skeleton, tensor) if source == "rotations" else None
    positions = streaming_joints(rows, lengths, rep) if rep.layout == "frames" else _joints(rows, lengths, rep)
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


def _rotations_of(rotations: Tensor | np.ndarray, joints: Tensor, rep: MotionRepresentation) -> Tensor:
    """Rotation matrices that go with joints (..., T, J, 3), checked (..., T, J, 3, 3)."""
    matrices = _as_float_tensor(rotations, "rotations", rep, ("T", rep.num_joints, 3, 3)).to(joints)
    if matrices.shape[:-1] != joints.shape:
        raise ValueError(
            f"rotations of shape {tuple(matrices.shape)} do not go with joints of shape {tuple(joints.shape)}; give "
            "one matrix for each joint of each frame"
        )
    error = (matrices.unsqueeze(-1) * matrices.unsqueeze(-2)).sum(-3) - torch.eye(3).to(joints)
    if (error.abs() > _ROTATION_TOLERANCE).any():
        raise ValueError(
            f"rotations must be rotation matrices, got columns up to {error.abs().nan_to_num().max():.2g} from "
            "orthonormal; convert axis-angle or 6D first"
        )
    return matrices


# Joints to features


def _features(clips: Tensor, lengths: Tensor | None, rep: MotionRepresentation, fix_heading_wrap: bool) -> Tensor:
    """Features (clips, T - 1, num_features) of clips (clips, T, J, 3), retargeted to bone lengths (J - 1) if given."""
    positions = clips.movedim((2, 3), (0, 1)).contiguous()  # time last: the fastest to run along
    if lengths is None:
        bones = bone_vectors(positions, rep)
    else:
        positions, bones = with_bone_lengths(positions, lengths, rep)
        lengths = lengths.view(-1, 1, 1, 1)
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
    root_velocity = rotate_about_y(start + yaw_after, steps[:1])[0, ::2]
    local_positions = rotate_about_y(start + yaw_now, frames[1:] - torch.stack([x, ground, z]))
    local_velocities = rotate_about_y(start + yaw_now, steps)
    bones = rotate_about_y(start.expand_as(y), bones[..., :-1])
    feet = take(steps, (*rep.left_foot, *rep.right_foot))
    groups = [
        root_yaw.unsqueeze(0),
        root_velocity,
        (y - ground).unsqueeze(0),
        local_positions.flatten(0, 1),
        _local_rotations(bones, lengths, yaw_now, rep).flatten(0, 2),
        local_velocities.flatten(0, 1),
        (dot(feet, feet)[:, 0] < rep.contact_threshold).to(steps.dtype),
    ]
    return torch.cat([group.movedim(0, -1) for group in groups], dim=-1)


def _headings(positions: Tensor, rep: MotionRepresentation) -> tuple[Tensor, Tensor]:
    """The turn that makes frame 0 face +Z (..., 1), and the headings after it (..., T).

    Those are as published: hips swapped, smoothed, and none at frame 0.
    """
    right_hip, left_hip, right_shoulder, left_shoulder = (positions[joint] for joint in rep.face_joints)
    hips, shoulders = left_hip - right_hip, left_shoulder - right_shoulder
    x, _, z = shoulders[..., :1] + hips[..., :1]
    start = turn_to_x(x, z)
    across = normalize((shoulders - hips).unsqueeze(0))
    x, z = _smooth(rotate_about_y(start.expand_as(x), across)[0, ::2])
    yaw = turn_to_x(x, z)
    return start, torch.cat([torch.zeros_like(start), yaw[..., 1:]], dim=-1)


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
        torch.as_tensor(array, dtype=bones.dtype, device=bones.device) for array in rep.half_turns
    )
    squared_lengths = dot(bones, bones) if lengths is None else lengths.square()
    squared_lengths = torch.where(squared_lengths > 0, squared_lengths, 1.0)  # a bone without length stays at rest
    halfway = bones + axes * squared_lengths.sqrt()
    squared = dot(halfway, halfway)
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
    before = take(torch.cat([root.unsqueeze(0), turned]), rep.rotation_parents[1:])
    normals = diagonals_before * normals
    ones = (diagonals_before * diagonals)[:, :2]

    factors = dot(before, normals) * turned[:, :2] - ones * before[:, :2]
    rotations = before.unsqueeze(1) * factors.unsqueeze(2)
    rotations.addcmul_(normals.unsqueeze(1), turned[:, :2].unsqueeze(2), value=-1)
    rotations.diagonal(dim1=1, dim2=2).movedim(-1, 1).add_(ones)
    return rotations


# Features to joints


def _joints(rows: Tensor, lengths: Tensor | None, rep: MotionRepresentation) -> Tensor:
    """Positions (J, 3, ..., T) from features (features, ..., T): by rotations if there are bone lengths for them."""
    yaw, root = _recover_root(rows, rep)
    if lengths is not None:
        return _forward_kinematics(
            root, yaw, rows[rep.feature_slices["rotations"]].unflatten(0, (-1, 2, 3)), lengths, rep
        )
    local = rows[rep.feature_slices["positions"]].unflatten(0, (-1, 3))
    return torch.cat([root, rotate_about_y(-yaw, local) + drop_height(root)])


def _recover_root(rows: Tensor, rep: MotionRepresentation) -> tuple[Tensor, Tensor]:
    """Heading (..., T) and position (1, 3, ..., T) of the root."""
    start = torch.zeros_like(rows[0, ..., :1])
    yaw = 2 * torch.cat([start, rows[0, ..., :-1]], dim=-1).cumsum(-1)
    x, z = rows[rep.feature_slices["root_velocity"], ..., :-1]
    # Row t has the step from t to t + 1 as seen from the heading at t + 1
    steps = rotate_about_y(-yaw[..., 1:], torch.stack([x, torch.zeros_like(x), z]).unsqueeze(0))[0]
    path_x, path_z = (torch.cat([start, step], dim=-1).cumsum(-1) for step in (steps[0], steps[2]))
    return yaw, torch.stack([path_x, rows[3], path_z]).unsqueeze(0)


def _forward_kinematics(
    root: Tensor, yaw: Tensor, rotations: Tensor, lengths: Tensor, rep: MotionRepresentation
) -> Tensor:
    """Positions (J, 3, ..., T) from local rotations (J - 1, column, row, ..., T) and bone lengths."""
    local = orthonormalize(rotations)
    axes = over_time(torch.eye(3, dtype=yaw.dtype, device=yaw.device), root).expand(3, 3, *yaw.shape)
    world = [rotate_about_y(yaw, axes)] * rep.num_joints  # (column, row, ..., T)
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
