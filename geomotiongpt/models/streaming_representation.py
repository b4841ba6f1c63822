"""Joint positions to and from the streaming motion features of MotionStreamer (272-d, 30 frames per second).

A clip of T frames of 22 joints gives T rows. Row t describes frame t and how it came from frame t - 1, and nothing in
it depends on later frames but for the height of the floor. Each row is

    root velocity (2)        x and z displacement of the root since t - 1, seen from the heading at t - 1, metres
    heading change (6)       the turn from the heading at t - 1 to that at t
    positions (66)           joints 0.., relative to the root in x and z (its own are 0), in y above the clip's lowest
                             point, seen from the heading at t
    velocities (66)          positions less those of t - 1: they know neither the root's path nor its turning
    rotations (132)          local rotations of joints 0.., the root's without the heading

A rotation is the first two rows of its matrix, one after the other (HumanML3D has columns). Row 0 has no velocities
and the identity as its change of heading, so that a clip begins above the origin and faces +Z.

Rotations are those of SMPL: the root's is that of the body in the world, each other is relative to its parent, and it
turns what lies beyond its joint (in HumanML3D: the bone that ends there). The heading is that of the root's rotation,
the direction of its z axis on the floor, as it is in this frame, without smoothing. It jumps where that axis passes
the vertical, as when somebody bends down to the toes or rolls over; the joints that come back are right all the same.

Positions alone do not tell rotations. What `joints_to_features` makes of them is this, relative to a T pose:

- the pelvis and the chest, from which three bones come, have their x axis along the line from the right bone's end to
  the left one's, and their y axis as near to the middle bone as a right angle lets it;
- a joint with one bone has the shortest rotation, relative to its parent, that takes the bone from rest to where it
  is;
- the ends, head, hands and toes, have none.

They lead back to the joints, if pelvis and chest are rigid, but they are not those of a body model, about whose twists
they know nothing. Published vectors have the rotations of SMPL parameters; `rotations=` takes such.

Two things differ from the published code. Recovering, it multiplies the changes of heading as matrices, so that
features that are not exact, as a model's, can tip the body over; here only their turn about y counts. And it applies
the velocity and the turn of row 0, which are none in a whole clip; here row 0 is where the motion begins.

Inside, tensors and headings are those of `joint_vectors`, and rotations are (joints, row, column, ..., T).
"""

import torch
from torch import Tensor

from .joint_vectors import (
    bone_vectors,
    cross,
    dot,
    drop_height,
    normalize,
    orthonormalize,
    over_time,
    rotate_about_y,
    with_bone_lengths,
)
from .motion_skeletons import MotionRepresentation

# Joints to features


def streaming_features(
    clips: Tensor, lengths: Tensor | None, rotations: Tensor | None, rep: MotionRepresentation
) -> Tensor:
    """Features of clips.

    Args:
        clips: (clips, T, J, 3) joint positions, metres.
        lengths: (J - 1,) of the bones that end in joints 1.., to give to all bodies first; None keeps their own.
        rotations: (clips, T, J, 3, 3) local rotation matrices; None makes them of the positions.
        rep: representation in the layout "frames".

    Returns:
        (clips, T, num_features).
    """
    positions = clips.movedim((2, 3), (0, 1)).contiguous()  # time last: the fastest to run along
    if lengths is not None:
        positions, _ = with_bone_lengths(positions, lengths, rep)
    if rotations is None:
        local = _rotations_from_positions(positions, rep)
    else:
        local = rotations.movedim((2, 3, 4), (0, 1, 2)).contiguous()
    yaw = -_heading(local[0, :, 2])

    x, y, z = positions[0]
    ground = positions[:, 1].amin((0, -1)).unsqueeze(-1).expand_as(y)
    seen = rotate_about_y(yaw, positions - torch.stack([x, ground, z]))
    path = rotate_about_y(yaw[..., :-1], positions[:1].diff(dim=-1))[0]
    change = yaw.diff(dim=-1)
    root = rotate_about_y(yaw, local[0].transpose(0, 1)).transpose(0, 1)
    groups = [
        _after_start(path[::2]),
        _after_start(change.cos().unsqueeze(0), start=1.0),
        torch.zeros_like(yaw).unsqueeze(0),
        _after_start(change.sin().unsqueeze(0)),
        *(torch.full_like(yaw, value).unsqueeze(0) for value in (0.0, 1.0, 0.0)),
        seen.flatten(0, 1),
        _after_start(seen.diff(dim=-1)).flatten(0, 1),
        torch.cat([root[None, :2], local[1:, :2]]).flatten(0, 2),
    ]
    return torch.cat([group.movedim(0, -1) for group in groups], dim=-1)


def _after_start(steps: Tensor, start: float = 0.0) -> Tensor:
    """Steps between frames (..., T - 1) as what each frame came by (..., T)."""
    return torch.cat([steps.new_full((*steps.shape[:-1], 1), start), steps], dim=-1)


def _heading(forward: Tensor) -> Tensor:
    """The turn about y from +Z to a direction (3, ..., T); none where it is vertical."""
    x, _, z = forward
    return torch.atan2(x, torch.where((x == 0) & (z == 0), 1.0, z))


def _rotations_from_positions(positions: Tensor, rep: MotionRepresentation) -> Tensor:
    """Local rotations (J, row, column, ..., T) that positions (J, 3, ..., T) allow: see the top of this file."""
    bones = bone_vectors(positions, rep)
    identity = over_time(torch.eye(3).to(positions), positions).expand(3, 3, *positions.shape[2:])
    local = [identity] * rep.num_joints
    world = [identity] * rep.num_joints
    for joint in (0, *rep.outward_order):
        before = world[max(rep.parents[joint], 0)]
        children = [child for child, parent in enumerate(rep.parents) if parent == joint]
        if len(children) == 1:
            axis = positions.new_tensor(rep.raw_offsets[children[0]])
            local[joint] = _shortest_rotation(axis, _turn_back(before, bones[children[0] - 1]))
        elif children:
            (left,), (right,) = (set(children).intersection(side) for side in (rep.left_joints, rep.right_joints))
            (middle,) = set(children) - {left, right}
            frame = _frame(bones[left - 1] - bones[right - 1], bones[middle - 1], identity)
            local[joint] = torch.stack([_turn_back(before, column) for column in frame.unbind(1)], dim=1)
        world[joint] = _compose(before, local[joint])
    return torch.stack(local)


def _turn_back(rotation: Tensor, vector: Tensor) -> Tensor:
    """A vector (3, ..., T) as seen from a rotated frame (row, column, ..., T)."""
    return (rotation * vector.unsqueeze(1)).sum(0)


def _compose(first: Tensor, second: Tensor) -> Tensor:
    return (first.unsqueeze(2) * second.unsqueeze(0)).sum(1)


def _frame(across: Tensor, up: Tensor, identity: Tensor) -> Tensor:
    """The rotation (row, column, ..., T) whose x axis points across and whose y axis points up; none if parallel."""
    across, up = across.unsqueeze(0), up.unsqueeze(0)
    x, z = normalize(across), normalize(cross(across, up))
    none = dot(z, z)[0, 0] == 0
    return torch.where(none, identity, torch.cat([x, cross(z, x), z]).transpose(0, 1))


def _shortest_rotation(axis: Tensor, direction: Tensor) -> Tensor:
    """The shortest rotation (row, column, ..., T) that takes a coordinate axis (3,) to a direction (3, ..., T).

    A half turn about the axis, D, then one about the line halfway, n n' - 1 with n of length sqrt(2).
    """
    direction = normalize(direction.unsqueeze(0))[0]
    start = over_time(axis.unsqueeze(0), direction.unsqueeze(0))[0]
    halfway = direction + start
    squared = (halfway * halfway).sum(0)
    # Against the axis the shortest rotation is not unique. Closer to it than rounding can tell, take a half turn about
    # the next coordinate axis.
    opposite = squared < torch.finfo(squared.dtype).eps
    if opposite.any():
        halfway = torch.where(opposite, start.roll(1, dims=0), halfway)
        squared = torch.where(opposite, 1.0, squared)
    normal = halfway * (2 / squared).sqrt()
    half_turn = normal.unsqueeze(1) * normal.unsqueeze(0) - over_time(
        torch.eye(3).to(direction), direction.unsqueeze(0)
    )
    return half_turn * (2 * start**2 - 1)


# Features to joints


def streaming_joints(rows: Tensor, lengths: Tensor | None, rep: MotionRepresentation) -> Tensor:
    """Joint positions from features; those of a frame depend on no later row.

    Args:
        rows: (features, ..., T); after the positions nothing is needed unless there are lengths.
        lengths: (J - 1,) of the bones that end in joints 1.., to place the joints by their rotations; None places them
            by their positions.
        rep: representation in the layout "frames".

    Returns:
        (J, 3, ..., T), metres.
    """
    slices = rep.feature_slices
    yaw = _recovered_yaw(rows, rep)
    x, z = rows[slices["root_velocity"], ..., 1:]
    steps = rotate_about_y(-yaw[..., :-1], torch.stack([x, torch.zeros_like(x), z]).unsqueeze(0))
    path = _after_start(steps).cumsum(-1)
    seen = rows[slices["positions"]].unflatten(0, (-1, 3))
    if lengths is None:
        return rotate_about_y(-yaw, seen) + path
    root = drop_height(path) + seen[:1] - drop_height(seen[:1])
    return _forward_kinematics(root[0], streaming_rotations(rows, rep), bone_vectors(seen[..., :1], rep), lengths, rep)


def streaming_rotations(rows: Tensor, rep: MotionRepresentation) -> Tensor:
    """The rotations in features.

    Args:
        rows: (features, ..., T).
        rep: representation in the layout "frames".

    Returns:
        (J, row, column, ..., T): the first is the body's in the world, each other is relative to its parent.
    """
    local = orthonormalize(rows[rep.feature_slices["rotations"]].unflatten(0, (-1, 2, 3)))
    root = rotate_about_y(-_recovered_yaw(rows, rep), local[0].transpose(0, 1)).transpose(0, 1)
    return torch.cat([root.unsqueeze(0), local[1:]])


def _recovered_yaw(rows: Tensor, rep: MotionRepresentation) -> Tensor:
    """The turn about y (..., T) that takes the heading of each frame to that of the first."""
    change = _heading(rows[rep.feature_slices["heading_change"]][[2, 1, 0], ..., 1:])
    return _after_start(change).cumsum(-1)


def _forward_kinematics(
    root: Tensor, local: Tensor, first_bones: Tensor, lengths: Tensor, rep: MotionRepresentation
) -> Tensor:
    """Positions (J, 3, ..., T) from local rotations (J, row, column, ..., T) and row 0's bones (J - 1, 3, ..., 1)."""
    bones = normalize(first_bones, lengths.view(-1, *[1] * (first_bones.dim() - 1)))
    world = [local[0]] * rep.num_joints
    joints = [root] * rep.num_joints
    for joint in rep.outward_order:
        before = world[rep.parents[joint]]
        offset = _turn_back(before[..., :1], bones[joint - 1])
        joints[joint] = joints[rep.parents[joint]] + (before * offset.unsqueeze(0)).sum(1)
        world[joint] = _compose(before, local[joint])
    return torch.stack(joints)
