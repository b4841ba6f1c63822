"""KIT-ML's release: joints by the kinematics of the MMM model, sentences as captions, what is left out."""

import json
from pathlib import Path

import numpy as np
import pytest

from geomotiongpt import load_motion_dataset
from geomotiongpt.cli import main
from geomotiongpt.data.kitml import build_kitml, kit_joints
from geomotiongpt.data.mmm import mmm_joints, read_mmm_model, read_mmm_motion
from geomotiongpt.data.motion_folder import read_array
from geomotiongpt.models.motion_representation import get_motion_representation

# A body one metre high, X to the right, Y ahead, Z up: joint, what it hangs from, millimetres. The angles of a joint
# turn about x, then z, then y, as in the model of the framework.
BODY = {
    "BP": ("root", (0, 0, 50)),
    "BT": ("BP", (0, 0, 60)),
    "BLN": ("BT", (0, 0, 190)),
    "BUN": ("BLN", (0, 0, 40)),
    **{f"{side}S": ("BT", (sign * 110, 0, 180)) for side, sign in (("L", -1), ("R", 1))},
    **{f"{side}E": (f"{side}S", (0, 0, -180)) for side in "LR"},
    **{f"{side}W": (f"{side}E", (0, 0, -150)) for side in "LR"},
    **{f"{side}H": ("root", (sign * 50, 0, -20)) for side, sign in (("L", -1), ("R", 1))},
    **{f"{side}K": (f"{side}H", (0, 0, -240)) for side in "LR"},
    **{f"{side}A": (f"{side}K", (0, 0, -240)) for side in "LR"},
}
AXES = {"x": "1 0 0", "z": "0 0 1", "y": "0 1 0"}


def node(name: str, place=(0, 0, 0), axis: str = "", children=()) -> str:
    rows = "".join(
        f"<row{r + 1} c1='{int(r == 0)}' c2='{int(r == 1)}' c3='{int(r == 2)}' c4='{place[r]}'/>" for r in range(3)
    )
    joint = "<Joint type='prismatic'><translationdirection x='0' y='0' z='1'/></Joint>"
    if axis:
        x, y, z = axis.split()
        joint = f"<Joint type='revolute'><axis x='{x}' y='{y}' z='{z}'/></Joint>"
    hanging = "".join(f"<Child name='{child}'/>" for child in children)
    transform = f"<Transform><Matrix4x4 units='mm'>{rows}</Matrix4x4></Transform>"
    return f"<RobotNode name='{name}'>{transform}{joint}{hanging}</RobotNode>\n"


def model_text() -> str:
    below: dict[str, list[str]] = {}
    for name, (parent, _) in BODY.items():
        below.setdefault(parent, []).append(f"{name}segment_joint")
    text = node("root_joint", axis=AXES["z"], children=below["root"])
    for name, (_, place) in BODY.items():
        feet = [f"{name[0]}Mrot_joint"] if name in ("LA", "RA") else []
        text += node(f"{name}segment_joint", place, children=[f"{name}x_joint"])
        text += node(f"{name}x_joint", axis=AXES["x"], children=[f"{name}z_joint"])
        text += node(f"{name}z_joint", axis=AXES["z"], children=[f"{name}y_joint"])
        text += node(f"{name}y_joint", axis=AXES["y"], children=[*below.get(name, []), *feet])
    for side in "LR":
        text += node(f"{side}Mrot_joint", (0, 30, -30), AXES["y"], [f"{side}Fx_joint"])
        text += node(f"{side}Fx_joint", (0, 50, -10), AXES["x"])
    return f"<?xml version='1.0'?>\n<Robot Type='x' RootNode='root_joint'>\n{text}</Robot>\n"


def motion_text(frames: int = 200, height: float = 2.0, **angles) -> str:
    """Walks ahead a metre a second at 100 frames per second, and moves the joints that are named."""
    order = "".join(f"<Joint name='{name}_joint'/>" for name in angles) or "<Joint name='BPx_joint'/>"
    rows = ""
    for frame in range(frames):
        values = " ".join(str(angle(frame / 100) if callable(angle) else angle) for angle in angles.values()) or "0"
        rows += f"<MotionFrame><Timestep>{frame / 100}</Timestep><RootPosition>0 {10 * frame} 1100</RootPosition>"
        rows += f"<RootRotation>0 0 0</RootRotation><JointPosition>{values} </JointPosition></MotionFrame>\n"
    config = f"<ModelProcessorConfig type='Winter'><Height>{height}</Height><Mass>70</Mass></ModelProcessorConfig>"
    motion = f"<Motion name='x'>{config}<JointOrder>{order}</JointOrder><MotionFrames>{rows}</MotionFrames></Motion>"
    return f"<?xml version='1.0'?>\n<MMM>{motion}</MMM>\n"


@pytest.fixture
def release(tmp_path) -> Path:
    """Six motions; one without annotations."""
    folder = tmp_path / "release"
    folder.mkdir()
    (tmp_path / "mmm.xml").write_text(model_text())
    ids = [f"0000{number}" for number in range(1, 6)] + ["03950"]
    for number, motion_id in enumerate(ids):
        text = motion_text(200 + 8 * number, LEx=lambda t: 0.4 * np.sin(5 * t), RHx=lambda t: 0.3 * np.sin(4 * t))
        (folder / f"{motion_id}_mmm.xml").write_text(text)
        sentences = [] if motion_id == "00002" else ["Someone walks ahead.", " waves  the left hand #1 "]
        (folder / f"{motion_id}_annotations.json").write_text(json.dumps(sentences))
        (folder / f"{motion_id}_meta.json").write_text("{}")
    return folder


def build(release: Path, **options):
    given = {"model": release.parent / "mmm.xml", "show_progress": False, **options}
    return build_kitml(release, release.parent / "built", **given)


def joint(name: str) -> int:
    return get_motion_representation("kitml").joint_names.index(name)


def test_joints_follow_from_angles_by_the_chain_of_the_model(tmp_path):
    (tmp_path / "mmm.xml").write_text(model_text())
    angles = {"BTz": 0.3, "LSx": 0.5, "LSz": -0.2, "LSy": 0.7, "LEx": 1.1}
    (tmp_path / "a_mmm.xml").write_text(motion_text(3, height=1.8, **angles))
    model, motion = read_mmm_model(tmp_path / "mmm.xml"), read_mmm_motion(tmp_path / "a_mmm.xml")
    wrist = mmm_joints(model, motion, ["LWx_joint"])[1, 0]

    def turn(axis: int, angle: float) -> np.ndarray:
        a, b = (axis + 1) % 3, (axis + 2) % 3
        matrix = np.eye(3)
        matrix[a, a] = matrix[b, b] = np.cos(angle)
        matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
        return matrix

    arm = turn(0, 0.5) @ turn(2, -0.2) @ turn(1, 0.7) @ (np.array([0, 0, -180]) + turn(0, 1.1) @ [0, 0, -150])
    chest = turn(2, 0.3) @ (np.array([-110, 0, 180]) + arm)
    np.testing.assert_allclose(wrist, [0, 10, 1100] + 1.8 * (np.array([0, 0, 110]) + chest), atol=1e-9)


def test_the_root_turns_by_roll_then_pitch_then_yaw_about_fixed_axes(tmp_path):
    (tmp_path / "mmm.xml").write_text(model_text())
    text = motion_text(2).replace("<RootRotation>0 0 0<", "<RootRotation>0.5 0 1.5707963267948966<")
    (tmp_path / "a_mmm.xml").write_text(text)
    motion = read_mmm_motion(tmp_path / "a_mmm.xml")
    spine = mmm_joints(read_mmm_model(tmp_path / "mmm.xml"), motion, ["BPx_joint"])[0, 0] - motion.root[0]
    np.testing.assert_allclose(spine, 100 * np.array([np.sin(0.5), 0, np.cos(0.5)]), atol=1e-9)


def test_joints_are_upright_go_ahead_and_left_is_left(release):
    joints = kit_joints(release / "00001_mmm.xml", release.parent / "mmm.xml")
    assert joints.shape == (25, 21, 3)  # 1.99 s at 12.5 frames per second
    travel = joints[-1, 0] - joints[0, 0]
    np.testing.assert_allclose(travel, [0, 0, 1920], atol=1e-6)
    up = joints[0, joint("upper_neck")] - joints[0, 0]
    assert up[1] > 600 and abs(up[0]) < 1e-6
    assert joints[0, joint("left_shoulder"), 0] > joints[0, 0, 0] > joints[0, joint("right_shoulder"), 0]
    assert joints[0, joint("left_toe"), 2] > joints[0, joint("left_ankle"), 2]
    still, moving = (
        np.ptp(joints[:, joint(name)] - joints[:, 0], axis=0).max() for name in ("right_wrist", "left_wrist")
    )
    assert moving > 100 > still, "the left elbow moves the left wrist"


def test_a_release_becomes_a_data_set_with_the_sentences_as_captions(release):
    report = build(release)
    built = release.parent / "built"
    assert dict(report.left_out)["00002"] == "nobody has annotated it"
    assert sum(report.splits.values()) == 2 * 5 and set(report.splits) == {"train", "val", "test"}
    assert (built / "texts/00001.txt").read_text() == "Someone walks ahead.##0.0#0.0\nwaves the left hand 1##0.0#0.0\n"
    assert (built / "texts/M00001.txt").read_text().splitlines()[1] == "waves the right hand 1##0.0#0.0"
    assert read_array(built / "new_joint_vecs/00001.npy").shape == (24, 251)
    assert len(load_motion_dataset(built, "train", "kitml")) == report.splits["train"]


def test_all_clips_get_the_bone_lengths_of_one_and_a_second_run_reads_nothing_anew(release):
    (release / "00001_mmm.xml").write_text(motion_text(200, height=1.5, LEx=lambda t: 0.4 * np.sin(5 * t)))
    build(release)

    def arm(name: str) -> float:
        joints = read_array(release.parent / f"built/new_joints/{name}.npy")
        return float(np.linalg.norm(joints[0, joint("left_wrist")] - joints[0, joint("left_elbow")]))

    assert arm("00001") == pytest.approx(arm("03950"), rel=1e-4) == pytest.approx(300, rel=1e-4)
    assert build(release).reused == 5
    (release.parent / "mmm.xml").write_text(model_text().replace("c4='-150'", "c4='-160'"))
    assert build(release).written == 5 and arm("03950") == pytest.approx(320, rel=1e-4)
    build(release, retarget=False)
    assert arm("00001") == pytest.approx(240, rel=1e-3)


def test_lists_and_tagged_captions_that_are_given_are_used(release, capsys):
    texts = release.parent / "texts_of_kit"
    (texts / "texts").mkdir(parents=True)
    (texts / "train.txt").write_text("00001\nM00001\n03950\n00009\n")
    (texts / "test.txt").write_text("00003\n")
    (texts / "texts/00003.txt").write_text("a man walks#a/DET man/NOUN walk/VERB#0.0#0.0\n")
    command = ["build-data", "kitml", str(release), str(release.parent / "built"), "--texts", str(texts)]
    assert main(command) == 2
    assert "give --mmm-model" in capsys.readouterr().err
    assert main([*command, "--mmm-model", str(release.parent / "mmm.xml")]) == 0
    assert "train 4, test 2" in capsys.readouterr().out
    assert (release.parent / "built/texts/00003.txt").read_text().startswith("a man walks#a/DET")


def test_what_is_missing_or_damaged_is_named(release):
    (release / "00001_mmm.xml").write_text(motion_text().replace("<RootPosition>0 20 1100", "<RootPosition>0 nan 1"))
    lists = release.parent / "lists"
    lists.mkdir()
    (lists / "train.txt").write_text("".join(f"0000{number}\n" for number in range(1, 6)))
    (release / "00003_annotations.json").write_text("{")
    (release / "00004_annotations.json").unlink()
    reasons = dict(build(release, texts_dir=lists).left_out)
    assert "00001_mmm.xml: <RootPosition> has 3 numbers; wanted 3 finite ones" in reasons["00001"]
    assert "is no JSON" in reasons["00003"] and "00004_annotations.json" in reasons["00004"]
    (release / "03950_mmm.xml").unlink()
    with pytest.raises(ValueError, match="has no 03950_mmm.xml, whose bone lengths all get; or retarget=False"):
        build(release)
    with pytest.raises(FileNotFoundError, match="no file <id>_mmm.xml there"):
        build(release.parent / "nowhere", model=release.parent / "mmm.xml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<Robot ", "<Rabbit ", "no XML"),
        ("RootNode='root_joint'", "RootNode='hip'", "the node hip is not there"),
        ("units='mm'", "units='foot'", "is in 'foot'; wanted one of mm"),
        ("'revolute'", "'spherical'", "is a spherical; wanted revolute with an axis"),
        ("<Child name='BPz_joint'/>", "<Child name='root_joint'/>", "some node is the child of several"),
        ("c1='1'", "c1='2'", "is no rotation and shift"),
        ("<?xml version='1.0'?>", "<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'c'>]>", "declares entities"),
        ("RSx_joint", "RSq_joint", "the model has no joint RSx_joint: it is not that of the motion"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused(tmp_path, old, new, message):
    (tmp_path / "mmm.xml").write_text(model_text().replace(old, new))
    (tmp_path / "a_mmm.xml").write_text(motion_text(20))
    with pytest.raises(ValueError, match=message):
        kit_joints(tmp_path / "a_mmm.xml", tmp_path / "mmm.xml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("type='Winter'", "type='Other'", "wanted a <ModelProcessorConfig type='Winter'>"),
        ("<Height>2.0", "<Height>200", "200 m high: no motion of a human"),
        ("<Timestep>0.05", "<Timestep>9", "the time steps are not even"),
        ("<Motion ", "<Emotion ", "no XML|no <Motion>"),
        ("BPx_joint", "BQx_joint", "the model has no joint BQx_joint"),
        ("BPx_joint", "BPsegment_joint", "the model has no joint BPsegment_joint"),
    ],
)
def test_a_motion_that_cannot_be_used_is_refused(tmp_path, old, new, message):
    (tmp_path / "mmm.xml").write_text(model_text())
    (tmp_path / "a_mmm.xml").write_text(motion_text(20).replace(old, new))
    with pytest.raises(ValueError, match=f"a_mmm.xml.*{message}|{message}"):
        kit_joints(tmp_path / "a_mmm.xml", tmp_path / "mmm.xml")
