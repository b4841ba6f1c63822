"""Parameter files of SMPL, SMPL-H and SMPL-X, AMASS among them, and their joints by the licensed model files.

Only joints are computed: those of the shape, which the model regresses from its vertices, moved by the chain of
rotations. Model files are read as plain `.npz`, and pickles are never opened.

Source: Loper et al., SMPL: A Skinned Multi-Person Linear Model (SIGGRAPH Asia 2015): shape, joints and pose, no skin.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ..models.motion_representation import get_motion_representation
from .bvh import MAX_POSITIONS
from .input_files import read_npz, read_texts
from .joint_files import FRAME_RATES, read_frame_rate
from .source_motion import SourceMotion

_SKELETON = get_motion_representation("humanml3d")
_NUM_JOINTS = _SKELETON.num_joints
_WIDTHS = {72: "SMPL", 156: "SMPL-H", 165: "SMPL-X"}
_NUMBERS_OF_JOINTS = {24: "SMPL", 52: "SMPL-H", 55: "SMPL-X"}
_KINDS = {"smpl": "SMPL", "smplh": "SMPL-H", "smplx": "SMPL-X"}
_PARTS = {
    "poses": ("poses", "pose"),
    "root": ("root_orient", "global_orient"),
    "body": ("pose_body", "body_pose"),
    "trans": ("trans", "transl"),
    "betas": ("betas", "shape"),
}
_GENDERS = ("neutral", "female", "male")
_MODEL_ARRAYS = {"v_template", "shapedirs", "J_regressor", "kintree_table"}
_LARGEST_VALUE = 1e5
_WAY_OUT = (
    "Download the model files (free for research, after registration): SMPL-H for AMASS from mano.is.tue.mpg.de "
    "('Extended SMPL+H model', .npz), SMPL-X from smpl-x.is.tue.mpg.de (.npz), and give their folder as body_models"
)
PARAMETER_NAMES = frozenset(name for names in (_PARTS["poses"], _PARTS["root"], _PARTS["body"]) for name in names)


def read_body_motion(path: Path, body_models: str | Path | None) -> SourceMotion:
    """Joints of a parameter file: `poses` (frames, 3 x joints) as axis and angle, `trans`, `betas`, a frame rate.

    Args:
        path: `.npz` file. Instead of `poses` it may have `root_orient` and `pose_body`, or `global_orient` and
            `body_pose`, as SMPL-X programs write them.
        body_models: the model file, or a folder in which it lies, of the kind and the gender of the motion.

    Raises:
        FileNotFoundError: if there is no such file, or no model file.
        ValueError: if one is damaged, or they do not go together.
    """
    wanted = {name for names in _PARTS.values() for name in names} | {"gender", "surface_model_type", *FRAME_RATES}
    arrays = read_npz(path, "motion", wanted)
    parameters = {
        part: next((arrays[name] for name in names if name in arrays), None) for part, names in _PARTS.items()
    }
    poses, kind = _read_poses(parameters, path)
    try:
        stated, gender = (_text(arrays.get(name)).lower() for name in ("surface_model_type", "gender"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}.") from None
    kind = _KINDS.get(stated, kind)
    frames = len(poses)
    trans, notes = parameters["trans"], []
    if trans is None:
        trans, notes = np.zeros((frames, 3)), ["no `trans` in the file: the body stays at one place"]
    trans = _numbers(trans, "trans", path)
    if trans.shape != (frames, 3):
        raise ValueError(f"{path}: trans has the shape {trans.shape}; wanted ({frames}, 3), as there are poses.")
    betas = _numbers(np.zeros(0) if parameters["betas"] is None else parameters["betas"], "betas", path)
    if betas.ndim == 2:
        if not len(betas):
            raise ValueError(f"{path}: betas have the shape {betas.shape}; wanted (numbers,).")
        notes += ["the shape of the first frame is taken for all"] if np.ptp(betas, axis=0).any() else []
        betas = betas[0]
    if betas.ndim != 1:
        raise ValueError(f"{path}: betas have the shape {betas.shape}; wanted (numbers,).")
    gender = next((word for word in _GENDERS if gender.startswith(word[0])), "neutral")
    file, rest = _find_model(body_models, kind, gender, betas, path)
    return SourceMotion(
        kind=f"parameters of {kind or 'a body model'}",
        names=_SKELETON.joint_names,
        positions=_move(rest, poses, trans),
        fps=read_frame_rate(arrays, path),
        unit_in_metres=1.0,
        unit_source="body models are in metres",
        up="z" if {"mocap_framerate", "mocap_frame_rate"} & set(arrays) else None,  # AMASS
        layout=_SKELETON.joint_names,
        notes=(*notes, f"body model: {file.name}"),
    )


def humanml3d_joints(path: Path, body_models: str | Path) -> tuple[np.ndarray, float]:
    """Joints of a file of AMASS as HumanML3D takes them: ten numbers of the shape, and a female body unless male.

    Genders that a file stores as bytes count as female, as in the code that the data set was made with.

    Args:
        path: `.npz` file of AMASS, with SMPL-H parameters.
        body_models: folder of the SMPL-H models.

    Returns:
        (frames, 22, 3) in metres, Z up, and frames per second.

    Raises:
        FileNotFoundError, ValueError: as `read_body_motion`.
    """
    arrays = read_npz(path, "motion", {"poses", "trans", "betas", "gender", *FRAME_RATES})
    if missing := {"poses", "trans", "betas"}.difference(arrays):
        raise ValueError(f"{path}: no `{min(missing)}` in it; wanted a file of AMASS.")
    poses, _ = _read_poses({"poses": arrays["poses"]}, path)
    trans, betas = (_numbers(arrays[name], name, path) for name in ("trans", "betas"))
    if trans.shape != (len(poses), 3) or betas.ndim != 1:
        raise ValueError(f"{path}: trans {trans.shape} and betas {betas.shape} do not go with {len(poses)} poses.")
    fps = read_frame_rate(arrays, path)
    if fps is None:
        raise ValueError(f"{path}: no frame rate in it; wanted a file of AMASS.")
    stored = arrays.get("gender")
    is_male = stored is not None and stored.size == 1 and stored.dtype.kind == "U" and stored.item() == "male"
    _, rest = _find_model(body_models, "SMPL-H", "male" if is_male else "female", betas[:10], path)
    return _move(rest, poses, trans), fps


def _text(value: np.ndarray | None) -> str:
    texts = [] if value is None or value.size != 1 else read_texts(value)
    return texts[0] if texts else ""


def _numbers(values: np.ndarray, name: str, path: Path) -> np.ndarray:
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{path}: `{name}` holds {values.dtype}; wanted numbers.")
    values = values.astype(np.float64)
    if not (np.abs(values) < _LARGEST_VALUE).all():
        raise ValueError(f"{path}: `{name}` has NaN, infinite or absurdly large values.")
    return values


def _read_poses(parameters: dict[str, Any], path: Path) -> tuple[np.ndarray, str]:
    """Rotations (frames, 22, 3) as axis and angle, and the kind of model that the width tells, if it does."""
    if parameters["poses"] is not None:
        poses = _flat(_numbers(parameters["poses"], "poses", path))
        kind = _WIDTHS.get(poses.shape[1], "")
    else:
        if parameters["root"] is None or parameters["body"] is None:
            raise ValueError(f"{path}: no `poses` in it, nor both of the body's pose and the root's orientation.")
        root, body = (_flat(_numbers(parameters[part], part, path)) for part in ("root", "body"))
        if root.shape != (len(body), 3):
            raise ValueError(f"{path}: orientations {root.shape} do not go with poses {body.shape}, frame by frame.")
        poses, kind = np.concatenate([root, body], axis=1), ""
    if poses.shape[1] < 3 * _NUM_JOINTS or poses.shape[1] % 3 or not len(poses):
        raise ValueError(
            f"{path}: poses have the shape {poses.shape}; wanted (frames, 3 x joints) of {_NUM_JOINTS} joints or more."
        )
    if len(poses) * _NUM_JOINTS > MAX_POSITIONS:
        raise ValueError(f"{path}: {len(poses)} frames; cut it into parts.")
    return poses[:, : 3 * _NUM_JOINTS].reshape(len(poses), _NUM_JOINTS, 3), kind


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1) if values.ndim > 1 and len(values) else values.reshape(-1, 1)


# The model


def _find_model(
    body_models: str | Path | None, kind: str, gender: str, betas: np.ndarray, path: Path
) -> tuple[Path, np.ndarray]:
    """The model file of a kind and a gender, and the joints (22, 3) that it has in this shape."""
    what = f"{path} holds parameters of {kind or 'a body model'} ({gender})"
    if body_models is None:
        raise FileNotFoundError(f"{what}: its joints need the model file. {_WAY_OUT}.")
    place = Path(body_models)
    if place.suffix.lower() == ".pkl":
        raise ValueError(f"{place} is a pickle, which may run code and is never opened here. {_WAY_OUT}.")
    if place.is_file():
        return place, _joints_of_shape(place, betas, kind)[0]
    if not place.is_dir():
        raise FileNotFoundError(f"{place}: no such folder of body models. {_WAY_OUT}.")
    files = sorted(file for level in ("*", "*/*", "*/*/*") for file in place.glob(f"{level}.npz"))
    fitting: dict[str, Path] = {}
    for file in files:
        words = str(file.relative_to(place)).lower().replace("female", "f_male")
        if (gender == "female") == ("f_male" in words) and (gender == "female" or gender in words):
            found = _kind_of_model(file)
            fitting.setdefault(found, file)
    # SMPL itself comes as pickles only; SMPL-H has the same body, and its first shapes are the same.
    accepted = {"": list(_NUMBERS_OF_JOINTS.values()), "SMPL": ["SMPL", "SMPL-H"]}.get(kind, [kind])
    chosen = next((fitting[name] for name in accepted if name in fitting), None)
    if chosen is None:
        pickles = any(next(place.glob(f"{level}.pkl"), None) for level in ("*", "*/*", "*/*/*"))
        raise FileNotFoundError(
            f"{what}: no .npz model of that kind and gender in {place}"
            f"{', and the .pkl files there are never opened' if pickles else ''}. {_WAY_OUT}."
        )
    return chosen, _joints_of_shape(chosen, betas, kind)[0]


def _kind_of_model(file: Path) -> str:
    """ "" of a file that is no body model."""
    tree = read_npz(file, "body model", {"kintree_table"}).get("kintree_table")
    return _NUMBERS_OF_JOINTS.get(tree.shape[-1], "") if tree is not None and tree.ndim == 2 else ""


def _joints_of_shape(file: Path, betas: np.ndarray, kind: str) -> tuple[np.ndarray, str]:
    """Joints (22, 3) of a model in a shape, and its kind."""
    arrays = read_npz(file, "body model", _MODEL_ARRAYS)
    if missing := _MODEL_ARRAYS.difference(arrays):
        raise ValueError(f"{file}: no array {min(missing)} in it; wanted the .npz file of SMPL, SMPL-H or SMPL-X.")
    template, directions, regressor, tree = (
        _numbers(arrays[name], name, file) if name != "kintree_table" else arrays[name]
        for name in ("v_template", "shapedirs", "J_regressor", "kintree_table")
    )
    vertices = len(template)
    found = _NUMBERS_OF_JOINTS.get(tree.shape[-1], "") if tree.ndim == 2 else ""
    fits = template.shape == (vertices, 3) and directions.shape[:2] == (vertices, 3) and directions.ndim == 3
    if not found or not fits or regressor.shape != (tree.shape[-1], vertices) or tree.dtype.kind not in "iu":
        raise ValueError(f"{file}: its arrays do not go together; wanted the .npz file of SMPL, SMPL-H or SMPL-X.")
    if tuple(tree[0, 1:_NUM_JOINTS].tolist()) != _SKELETON.parents[1:]:
        raise ValueError(f"{file}: its joints do not hang together as those of SMPL do.")
    if kind and found != kind and not (kind == "SMPL" and found == "SMPL-H"):
        raise ValueError(f"{file} is a model of {found}, and the motion one of {kind}: their shapes differ.")
    if len(betas) > directions.shape[2]:
        raise ValueError(f"{file} knows {directions.shape[2]} shapes, and the motion has {len(betas)}.")
    rows = regressor[:_NUM_JOINTS]
    shaped = template + directions[:, :, : len(betas)] @ betas
    return rows @ shaped, found


def _move(rest: np.ndarray, poses: np.ndarray, trans: np.ndarray) -> np.ndarray:
    """Joints (frames, 22, 3) of those at rest (22, 3), turned by poses (frames, 22, 3) and moved by trans."""
    angles = np.linalg.norm(poses, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(poses / np.where(angles[..., 0] > 0, angles[..., 0], 1), -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    turns = np.eye(3) + np.sin(angles) * cross + (1 - np.cos(angles)) * (cross @ cross)  # Rodrigues
    world: list[np.ndarray] = []
    places: list[np.ndarray] = []
    for joint, parent in enumerate(_SKELETON.parents):
        if parent < 0:
            world.append(turns[:, joint])
            places.append(rest[joint] + trans)
        else:
            world.append(world[parent] @ turns[:, joint])
            places.append(places[parent] + np.einsum("tij,j->ti", world[parent], rest[joint] - rest[parent]))
    return np.stack(places, axis=1)
