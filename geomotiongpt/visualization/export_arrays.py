"""A motion as arrays: `.npz` in the manner of AMASS and exactly as it was given, and `.csv`."""

from pathlib import Path
from typing import Any

import numpy as np

from .armature import as_rotation_vectors, make_armature
from .clip import Clip
from .output import write_aside

AMASS_JOINTS = 52  # of SMPL-H: 22 of the body, then the fingers
AMASS_SHAPE = 16  # numbers that tell a body's shape
# Our axes (Y up) to those of AMASS (Z up): the inverse of what HumanML3D does to AMASS.
TO_AMASS = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])


def export_npz(clip: Clip, path: Path) -> Path:
    """Write a `.npz` file without pickled objects.

    Exact: `features` as given, where features were, `joints` in the unit of the representation (as given, or
    recovered), `fps`, `representation` and, if there is one, `caption`.

    Of skeletons in SMPL order also what AMASS has, Z up, metres and radians: `poses` (frames, 156) axis-angle, fingers
    at rest, `trans` (frames, 3), `mocap_framerate`, `gender` "neutral", `betas` zeros. No body model was fitted:
    `trans` is where the pelvis is, which a body model puts at `trans` plus its own rest pelvis, and rotations made of
    joints are swings from our T pose, without twist. Those of "streaming272" features are taken as they are.
    """
    skeleton = clip.skeleton
    joints = clip.joints / skeleton.unit_in_metres if clip.has_features else clip.given
    arrays: dict[str, Any] = {"joints": joints, "fps": np.float64(clip.fps), "representation": np.str_(skeleton.name)}
    if clip.has_features:
        arrays["features"] = clip.given
        arrays["joints"] = joints.astype(clip.given.dtype) if clip.given.dtype.kind == "f" else joints
    if clip.caption:
        arrays["caption"] = np.str_(clip.caption)
    if skeleton.num_joints == 22:
        arrays |= _amass(clip)
    return write_aside(path, lambda file: np.savez_compressed(file, **arrays))


def _amass(clip: Clip) -> dict[str, np.ndarray]:
    armature = make_armature(clip)
    rotations = armature.rotations.copy()
    rotations[:, 0] = TO_AMASS @ rotations[:, 0]
    poses = np.zeros((len(rotations), AMASS_JOINTS, 3))
    poses[:, : rotations.shape[1]] = as_rotation_vectors(rotations)
    return {
        "poses": poses.reshape(len(poses), -1),
        "trans": armature.root @ TO_AMASS.T,
        "mocap_framerate": np.float64(clip.fps),
        "gender": np.str_("neutral"),
        "betas": np.zeros(AMASS_SHAPE),
    }


def export_csv(clip: Clip, path: Path) -> Path:
    """Write a table: a row a frame, with its number, its time in seconds and x, y, z of every joint in metres."""
    names = [f"{joint}_{axis}" for joint in clip.skeleton.joint_names for axis in "xyz"]
    lines = [",".join(["frame", "time", *names])]
    for frame, row in enumerate(clip.joints.reshape(len(clip.joints), -1).tolist()):
        lines.append(",".join([str(frame), f"{frame / clip.fps:.6f}", *(f"{value:.6f}" for value in row)]))
    text = "\n".join(lines) + "\n"
    return write_aside(path, lambda file: file.write(text.encode()))
