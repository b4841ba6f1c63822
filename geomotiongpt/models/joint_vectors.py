"""Arithmetic on the joints of many clips at once.

A tensor of vectors is (joints, 3, ..., T), so that arithmetic runs along time, and a heading is the turn about y, in
radians, that takes the facing direction to +Z (..., T). All arithmetic is element by element: matrix products may run
in TF32 or under autocast, and a heading that is off by 1e-3 moves the whole body.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .motion_skeletons import MotionRepresentation


def over_time(constant: Tensor, like: Tensor) -> Tensor:
    """Append dimensions so that constants of joints broadcast over the batch and time of (joints, 3, ..., T)."""
    return constant.view(*constant.shape, *[1] * (like.dim() - 2))


def take(values: Tensor, indices: tuple[int, ...]) -> Tensor:
    """`values[list(indices)]`, but faster."""
    return values.index_select(0, torch.as_tensor(_index_array(indices), device=values.device))


@lru_cache
def _index_array(indices: tuple[int, ...]) -> np.ndarray:
    return np.array(indices)


def dot(a: Tensor, b: Tensor) -> Tensor:
    (ax, ay, az), (bx, by, bz) = a.unbind(1), b.unbind(1)
    return torch.addcmul(torch.addcmul(ax * bx, ay, by), az, bz).unsqueeze(1)


def normalize(vectors: Tensor, length: Tensor | float = 1.0) -> Tensor:
    """Give vectors along dimension 1 a length; zero stays zero, with a finite gradient."""
    squared = dot(vectors, vectors)
    none = squared == 0
    if none.any():
        squared = torch.where(none, 1.0, squared)
    return vectors * (length * squared.rsqrt())


def cross(a: Tensor, b: Tensor) -> Tensor:
    (ax, ay, az), (bx, by, bz) = a.unbind(1), b.unbind(1)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], dim=1)


def orthonormalize(pairs: Tensor) -> Tensor:
    """Two columns or rows of rotations (joints, 2, 3, ..., T) -> all three, perpendicular, (joints, 3, 3, ..., T)."""
    first = normalize(pairs[:, 0])
    third = normalize(cross(first, pairs[:, 1]))
    return torch.stack([first, cross(third, first), third], dim=1)


def rotate_about_y(yaw: Tensor, vectors: Tensor) -> Tensor:
    cosine, sine = yaw.cos(), yaw.sin()
    turned = vectors * torch.stack([cosine, torch.ones_like(cosine), cosine])
    turned[:, 0].addcmul_(sine, vectors[:, 2])
    turned[:, 2].addcmul_(sine, vectors[:, 0], value=-1)
    return turned


def turn_to_x(x: Tensor, z: Tensor) -> Tensor:
    """The turn about y that takes a direction to +X; none where there is no direction."""
    return torch.atan2(z, torch.where((x == 0) & (z == 0), 1.0, x))


def drop_height(vectors: Tensor) -> Tensor:
    return vectors * over_time(vectors.new_tensor([(1, 0, 1)]), vectors)


def bone_vectors(positions: Tensor, rep: MotionRepresentation) -> Tensor:
    """Vectors from the parent of each of joints 1.. to it."""
    return positions[1:] - take(positions, rep.parents[1:])


def place_joints(root: Tensor, bones: Tensor, rep: MotionRepresentation) -> Tensor:
    """Positions (J, 3, ..., T) from that of the root (3, ..., T) and bones (J - 1, 3, ..., T)."""
    joints, vectors = [root] * rep.num_joints, bones.unbind()
    for joint in rep.outward_order:
        joints[joint] = joints[rep.parents[joint]] + vectors[joint - 1]
    return torch.stack(joints)


def with_bone_lengths(positions: Tensor, lengths: Tensor, rep: MotionRepresentation) -> tuple[Tensor, Tensor]:
    """Positions and bones of the same poses with other bone lengths (J - 1); the root's path scales with the legs."""
    bones = bone_vectors(positions, rep)
    root = positions[0] * _leg_scale(bones, lengths, rep)
    bones = normalize(bones, lengths.view(-1, 1, 1, 1))
    return place_joints(root, bones, rep), bones


def _leg_scale(bones: Tensor, lengths: Tensor, rep: MotionRepresentation) -> Tensor:
    """How much longer the legs of frame 0 become (..., 1)."""
    legs = tuple(joint - 1 for joint in rep.leg_joints)
    leg_length = torch.linalg.vector_norm(take(bones[..., :1], legs), dim=1).sum(0)
    if (leg_length == 0).any():
        raise ValueError(
            f"cannot scale a clip in which joints {rep.leg_joints} coincide with their parents in frame 0; "
            "drop it or pass retarget=False"
        )
    return take(lengths, legs).sum() / leg_length
