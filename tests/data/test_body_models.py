"""Parameters of SMPL, SMPL-H and SMPL-X become joints by model files that the user has; none of them is unpickled."""

import numpy as np
import pytest
from rigs import body_positions
from scipy.spatial.transform import Rotation

import geomotiongpt as gm
from geomotiongpt.data.joint_matching import SKELETON

FRAMES, JOINTS = 12, {"SMPL": 24, "SMPL-H": 52, "SMPL-X": 55}


def make_model(path, kind="SMPL-H", seed=0):
    """A model of so many joints: two vertices beside each joint, which is their middle, and three shapes."""
    count = JOINTS[kind]
    rng = np.random.default_rng(seed)
    rest = np.concatenate([body_positions(1)[0] / 100 - [0, 0.95, 0], rng.normal(0, 0.1, (count - 22, 3))])
    apart = rng.normal(0, 0.05, (count, 3))
    regressor = np.zeros((count, 2 * count))
    regressor[np.arange(count), 2 * np.arange(count)] = regressor[np.arange(count), 2 * np.arange(count) + 1] = 0.5
    parents = np.array([*SKELETON.parents, *([20] * (count - 22))])
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        v_template=np.stack([rest + apart, rest - apart], axis=1).reshape(-1, 3),
        shapedirs=rng.normal(0, 0.01, (2 * count, 3, 3)),
        J_regressor=regressor,
        kintree_table=np.stack([parents, np.arange(count)]).astype(np.uint32),
        joint2num=np.array({"a": 1}, dtype=object),  # as SMPL-X has: a pickle that nobody asks for
    )
    return path


def make_motion(path, width=156, **changes):
    rng = np.random.default_rng(1)
    arrays = {
        "poses": rng.normal(0, 0.2, (FRAMES, width)),
        "trans": rng.normal(0, 0.2, (FRAMES, 3)),
        "betas": np.array([1.0, -2.0, 0.5]),
        "mocap_framerate": np.array(40.0),
        "gender": np.array("male"),
        **changes,
    }
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def expected_joints(motion, model):
    """By scipy, and one joint at a time."""
    parameters, arrays = np.load(motion, allow_pickle=False), np.load(model, allow_pickle=False)
    vertices = arrays["v_template"] + np.einsum("vab,b->va", arrays["shapedirs"], parameters["betas"])
    rest = (arrays["J_regressor"] @ vertices)[:22]
    joints = np.zeros((FRAMES, 22, 3))
    for frame in range(FRAMES):
        world: list[Rotation] = []
        for joint, parent in enumerate(SKELETON.parents):
            turn = Rotation.from_rotvec(parameters["poses"][frame, 3 * joint : 3 * joint + 3])
            world.append(turn if parent < 0 else world[parent] * turn)
            joints[frame, joint] = (
                rest[0] + parameters["trans"][frame]
                if parent < 0
                else joints[frame, parent] + world[parent].apply(rest[joint] - rest[parent])
            )
    return joints


@pytest.mark.parametrize(("kind", "width"), [("SMPL", 72), ("SMPL-H", 156), ("SMPL-X", 165)])
def test_joints_are_those_of_the_model(kind, width, tmp_path):
    model = make_model(tmp_path / "models" / kind / "SMPL_MALE.npz", kind)
    motion = make_motion(tmp_path / "motion.npz", width)
    imported = gm.import_motion(motion, body_models=tmp_path / "models")
    x, y, z = np.moveaxis(expected_joints(motion, model), -1, 0)
    expected = gm.resample_joints(np.stack([x, z, -y], axis=-1), 40, 20)  # AMASS has z up
    assert imported.joints == pytest.approx(expected, abs=1e-6)
    report = imported.report
    assert report.up == ("z", "this kind of file") and report.unit[0] == 1 and report.fps == (40, "the file")
    assert kind in report.kind and "body model: SMPL_MALE.npz" in report.notes
    assert gm.import_motion(motion, body_models=model).joints == pytest.approx(expected, abs=1e-6)


def test_parameters_under_the_names_of_other_programs(tmp_path):
    model = make_model(tmp_path / "model.npz", "SMPL-X")
    motion = make_motion(tmp_path / "a.npz", 165)
    expected = gm.import_motion(motion, body_models=model).joints
    poses = np.load(motion)["poses"]
    trans = np.load(motion)["trans"]
    split = {"poses": None, "root_orient": poses[:, :3], "pose_body": poses[:, 3:66]}
    split["betas"] = np.repeat([[1.0, -2.0, 0.5]], FRAMES, axis=0)
    other = make_motion(tmp_path / "b.npz", 165, **split, surface_model_type=np.array("smplx"))
    assert gm.import_motion(other, body_models=model).joints == pytest.approx(expected)
    split = {"global_orient": poses[:, :3], "body_pose": poses[:, 3:66].reshape(-1, 21, 3), "transl": trans}
    third = make_motion(tmp_path / "c.npz", 165, poses=None, trans=None, **split)
    assert gm.import_motion(third, body_models=model).joints == pytest.approx(expected)


@pytest.mark.parametrize(
    ("gender", "file"), [("female", "b"), (b"male", "a"), ("neutral", "c"), (None, "c"), ("Female", "b")]
)
def test_the_model_of_the_gender_is_taken(gender, file, tmp_path):
    names = {"a": "smplh/male/model.npz", "b": "smplh/female/model.npz", "c": "smplh/neutral/model.npz"}
    for seed, name in enumerate(names.values()):
        make_model(tmp_path / "models" / name, seed=seed)
    motion = make_motion(tmp_path / "a.npz", gender=None if gender is None else np.array(gender))
    found = gm.import_motion(motion, body_models=tmp_path / "models").joints
    assert found == pytest.approx(
        gm.import_motion(motion, body_models=tmp_path / "models" / names[file]).joints, abs=1e-7
    )


def test_smpl_motions_take_the_model_of_smpl_h_and_nothing_else_is_mixed(tmp_path):
    make_model(tmp_path / "h" / "male.npz", "SMPL-H")
    motion = make_motion(tmp_path / "a.npz", 72)
    assert len(gm.import_motion(motion, body_models=tmp_path / "h").joints) == 6
    motion = make_motion(tmp_path / "b.npz", 165)
    with pytest.raises(FileNotFoundError, match="b.npz holds parameters of SMPL-X .male.: no .npz model"):
        gm.import_motion(motion, body_models=tmp_path / "h")
    with pytest.raises(ValueError, match="male.npz is a model of SMPL-H, and the motion one of SMPL-X"):
        gm.import_motion(motion, body_models=tmp_path / "h" / "male.npz")


def test_missing_models_and_pickles_say_where_to_get_them(tmp_path):
    motion = make_motion(tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError, match="its joints need the model file. Download .*mano.is.tue.mpg.de.*npz"):
        gm.import_motion(motion)
    with pytest.raises(FileNotFoundError, match="no such folder of body models"):
        gm.import_motion(motion, body_models=tmp_path / "nowhere")
    (tmp_path / "models").mkdir()
    pickle = tmp_path / "models" / "SMPLH_MALE.pkl"
    pickle.write_bytes(b"\x80\x03cos\nsystem\nq\x00X\x04\x00\x00\x00echoq\x01\x85q\x02Rq\x03.")
    with pytest.raises(ValueError, match="SMPLH_MALE.pkl is a pickle, which may run code.*Download"):
        gm.import_motion(motion, body_models=pickle)
    with pytest.raises(FileNotFoundError, match="the .pkl files there are never opened"):
        gm.import_motion(motion, body_models=tmp_path / "models")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"poses": np.zeros((FRAMES, 60))}, "poses have the shape"),
        ({"poses": np.zeros(66)}, "poses have the shape"),
        ({"poses": np.full((FRAMES, 156), np.nan)}, "`poses` has NaN"),
        ({"poses": np.full((FRAMES, 156), "a")}, "`poses` holds <U1"),
        ({"poses": np.array([{}] * FRAMES, dtype=object)}, "pickled Python objects"),
        ({"trans": np.zeros((FRAMES - 1, 3))}, "trans has the shape"),
        ({"betas": np.zeros(9)}, "knows 3 shapes, and the motion has 9"),
        ({"betas": np.zeros((2, 3, 4))}, "betas have the shape"),
        ({"mocap_framerate": np.array("fast")}, "`mocap_framerate` is fast"),
        ({"mocap_framerate": None}, "give fps="),
        ({"poses": None, "root_orient": np.zeros((FRAMES, 3))}, "no `poses` in it, nor both"),
    ],
)
def test_what_is_wrong_with_a_motion_is_said(changes, message, tmp_path):
    model = make_model(tmp_path / "model.npz")
    with pytest.raises(ValueError, match=message):
        gm.import_motion(make_motion(tmp_path / "a.npz", **changes), body_models=model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("shapedirs"), "no array shapedirs in it"),
        (lambda a: a.update(J_regressor=np.zeros((52, 3))), "do not go together"),
        (lambda a: a.update(kintree_table=a["kintree_table"][:, ::-1]), "do not hang together as those of SMPL"),
        (lambda a: a.update(v_template=a["v_template"] * np.nan), "has NaN"),
        (lambda a: a.update(J_regressor=np.array({}, dtype=object)), "pickled Python objects"),
    ],
)
def test_what_is_wrong_with_a_model_is_said(change, message, tmp_path):
    arrays = dict(np.load(make_model(tmp_path / "model.npz"), allow_pickle=True))
    change(arrays)
    np.savez(tmp_path / "model.npz", **arrays)
    with pytest.raises(ValueError, match=f"model.npz.*{message}"):
        gm.import_motion(make_motion(tmp_path / "a.npz"), body_models=tmp_path / "model.npz")
