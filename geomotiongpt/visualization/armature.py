"""Joint positions as a skeleton of constant bones with rotations: what BVH, glTF and AMASS files hold.

The rest pose is a T pose that faces +Z with its left side at +X: legs down, feet forward, arms to the sides. Lengths
are the medians over the clip. Hips and spine, and collars and neck, lie in it as they lie in the motion on average.
"""

from dataclasses import dataclass

import numpy as np
import torch

from ..models.motion_representation import MotionRepresentation
from ..models.streaming_representation import streaming_rotations
from .clip import Clip


@dataclass(frozen=True)
class Armature:
    """A skeleton and its motion.

    Args:
        offsets: (J, 3) each joint in the rest pose, from its parent, metres; zero for the root.
        root: (frames, 3) where the root is, metres.
        rotations: (frames, J, 3, 3) matrices: the root's in the world, each other relative to its parent. A rotation
            turns what lies beyond its joint.
        parents: joint that each hangs from; -1 for the root.
        order: joints in an order in which parents come first, from the root.
    """

    offsets: np.ndarray
    root: np.ndarray
    rotations: np.ndarray
    parents: tuple[int, ...]
    order: tuple[int, ...]

    @property
    def rest_joints(self) -> np.ndarray:
        """(J, 3) the rest pose, the lowest joint on the floor, the root above the origin."""
        joints = np.zeros_like(self.offsets)
        for joint in self.order[1:]:
            joints[joint] = joints[self.parents[joint]] + self.offsets[joint]
        joints[:, 1] -= joints[:, 1].min()
        return joints

    def joints(self) -> np.ndarray:
        """(frames, J, 3) where forward kinematics puts the joints."""
        world = list(self.rotations.swapaxes(0, 1))
        joints = [self.root] * len(world)
        for joint in self.order[1:]:
            parent = self.parents[joint]
            joints[joint] = joints[parent] + world[parent] @ self.offsets[joint]
            world[joint] = world[parent] @ world[joint]
        return np.stack(joints, axis=1)


def make_armature(clip: Clip) -> Armature:
    """Rotations and bones of a clip: those in "streaming272" features, else those that its joints allow.

    From joints: a joint with one child has the shortest rotation, relative to its parent, that points the bone at
    where the child is; pelvis and chest, with three, the rotation that brings all three nearest to where they are
    (Kabsch). The ends have none. Where bones keep their lengths, and pelvis and chest their shape, the joints come
    back; twist about a bone is not in positions.

    Source: Kabsch, A solution for the best rotation to relate two sets of vectors (Acta Cryst. A32, 1976).
    """
    if clip.has_features and clip.skeleton.layout == "frames":
        rows = torch.from_numpy(clip.given.astype(np.float64).T.copy())
        local = streaming_rotations(rows, clip.skeleton).movedim(-1, 0).numpy()
        return _with_offsets(clip, local)
    return _fitted(clip.joints, clip.skeleton)


def _with_offsets(clip: Clip, local: np.ndarray) -> Armature:
    """The bones that go with known rotations: on average over the frames, as the parent's rotation sees them."""
    skeleton = clip.skeleton
    offsets, world = np.zeros((skeleton.num_joints, 3)), list(local.swapaxes(0, 1))
    for joint in skeleton.outward_order:
        parent = skeleton.parents[joint]
        bone = clip.joints[:, joint] - clip.joints[:, parent]
        offsets[joint] = _seen_from(world[parent], bone[:, None]).mean(axis=(0, 1))
        world[joint] = world[parent] @ world[joint]
    return Armature(offsets, clip.joints[:, 0], local, skeleton.parents, (0, *skeleton.outward_order))


def _fitted(joints: np.ndarray, skeleton: MotionRepresentation) -> Armature:
    order = (0, *skeleton.outward_order)
    bones = joints - joints[:, list(skeleton.parents)]
    lengths = np.median(np.linalg.norm(bones, axis=-1), axis=0)
    offsets = lengths[:, None] * rest_directions(skeleton)
    offsets[0] = 0
    identity = np.broadcast_to(np.eye(3), (len(joints), 3, 3))
    local, world = [identity] * len(order), [identity] * len(order)
    placed = joints.copy()
    for joint in order:
        parent = skeleton.parents[joint]
        before = identity if joint == 0 else world[parent]
        if joint:
            placed[:, joint] = placed[:, parent] + before @ offsets[joint]
        children = [child for child, above in enumerate(skeleton.parents) if above == joint]
        # Aimed from where forward kinematics puts the joint, so that errors do not add up along a chain.
        aims = _seen_from(before, joints[:, children] - placed[:, [joint]])
        if len(children) == 1:
            local[joint] = _shortest_rotations(offsets[children[0]], aims[:, 0])
        elif children:
            offsets[children] = _hub(bones[:, children], lengths[children], children, skeleton)
            local[joint] = _best_rotations(offsets[children], aims)
        world[joint] = before @ local[joint]
    return Armature(offsets, joints[:, 0], np.stack(local, axis=1), skeleton.parents, order)


def rest_directions(skeleton: MotionRepresentation) -> np.ndarray:
    """Directions (J, 3) of the bone that ends in each joint, in a T pose that faces +Z; zero for the root."""
    directions = np.array(skeleton.raw_offsets)
    for side, joints in ((1, skeleton.left_joints), (-1, skeleton.right_joints)):
        directions[list(joints), 0] = side * np.abs(directions[list(joints), 0])
        for chain in skeleton.kinematic_chains:
            if chain[0] != 0 and chain[1] in joints:
                directions[list(chain[1:])] = (side, 0, 0)
    sided = {*skeleton.left_joints, *skeleton.right_joints}
    directions[[joint for joint in skeleton.outward_order if joint not in sided]] = (0, 1, 0)
    return directions


def _hub(bones: np.ndarray, lengths: np.ndarray, children: list[int], skeleton: MotionRepresentation) -> np.ndarray:
    """Rest offsets (3, 3) of a left, a right and a middle bone: as they lie on average, the middle one upwards."""
    left = next(index for index, child in enumerate(children) if child in skeleton.left_joints)
    right = next(index for index, child in enumerate(children) if child in skeleton.right_joints)
    across, up = bones[:, left] - bones[:, right], bones[:, 3 - left - right]
    x, z = _unit(across), _unit(np.cross(across, up))
    frames = np.stack([x, np.cross(z, x), z], axis=-1)
    mean = _seen_from(frames, bones).mean(axis=0)
    if np.linalg.norm(mean, axis=-1).min() == 0:
        return lengths[:, None] * rest_directions(skeleton)[children]
    return lengths[:, None] * _unit(mean)


def _seen_from(rotations: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Vectors (frames, n, 3) turned back by rotations (frames, 3, 3)."""
    return vectors @ rotations


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def _best_rotations(rest: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Rotations (frames, 3, 3) that bring `rest` (n, 3) nearest to `seen` (frames, n, 3), in squares."""
    left, _, right = np.linalg.svd(seen.swapaxes(-1, -2) @ rest)
    left[..., -1] *= np.linalg.det(left @ right)[:, None]
    return left @ right


def _shortest_rotations(rest: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Shortest rotations (frames, 3, 3) of a direction (3,) to directions (frames, 3); none where there is none.

    A half turn about the one, 2 r r' - 1, then one about the line halfway.
    """
    start, ends = _unit(rest), _unit(seen)
    halfway = start + ends
    # Opposite to the rest direction any perpendicular axis will do.
    opposite = (halfway**2).sum(-1) < 1e-12
    halfway[opposite] = np.cross(start, np.eye(3)[np.abs(start).argmin()])
    halfway = _unit(halfway)
    turns = (2 * halfway[..., :, None] * halfway[..., None, :] - np.eye(3)) @ (2 * np.outer(start, start) - np.eye(3))
    none = ~start.any() | ~ends.any(axis=-1)
    turns[none] = np.eye(3)
    return turns


def as_quaternions(rotations: np.ndarray) -> np.ndarray:
    """(frames, ..., 3, 3) matrices as unit quaternions (frames, ..., 4), x, y, z, w, without jumps of sign in time."""
    m = np.moveaxis(rotations, (-2, -1), (0, 1))
    # Four times the products of the components; the row with the largest diagonal is the most accurate.
    x, y, z = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
    xy, xz, yz = m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1]
    diagonal = [1 + 2 * m[axis, axis] - m[0, 0] - m[1, 1] - m[2, 2] for axis in range(3)]
    squares = (*diagonal, 1 + m[0, 0] + m[1, 1] + m[2, 2])
    rows = [(squares[0], xy, xz, x), (xy, squares[1], yz, y), (xz, yz, squares[2], z), (x, y, z, squares[3])]
    candidates = np.moveaxis(np.array(rows), (0, 1), (-2, -1))
    best = np.stack(squares, axis=-1).argmax(axis=-1)
    quaternions = _unit(np.take_along_axis(candidates, best[..., None, None], axis=-2)[..., 0, :])
    steps = np.where((quaternions[1:] * quaternions[:-1]).sum(-1) < 0, -1.0, 1.0)
    quaternions[1:] *= np.cumprod(steps, axis=0)[..., None]
    return quaternions


def as_rotation_vectors(rotations: np.ndarray) -> np.ndarray:
    """(frames, ..., 3, 3) matrices as axis times angle (frames, ..., 3), radians, the angle up to pi."""
    quaternions = as_quaternions(rotations)
    quaternions *= np.where(quaternions[..., 3:] < 0, -1.0, 1.0)
    sine = np.linalg.norm(quaternions[..., :3], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, quaternions[..., 3:])
    return quaternions[..., :3] * np.divide(angle, sine, out=np.full_like(sine, 2.0), where=sine > 1e-12)
