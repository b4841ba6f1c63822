"""Files of other programs become joints that models take: unit, axes, rate and sides are found out and reported."""

import json

import numpy as np
import pytest
from rigs import FAMILIES, body_positions, make_rig
from scipy.spatial.transform import Rotation

import geomotiongpt as gm
from geomotiongpt.data import body_axes
from geomotiongpt.data.body_axes import TO_Y_UP
from geomotiongpt.data.import_motion import _without_reference_pose
from geomotiongpt.data.joint_matching import SKELETON

FRAMES = 60  # two seconds


def save_table(path, joints, names=SKELETON.joint_names, fps=30.0):
    """A CSV file of joints (frames, joints, 3)."""
    header = ["time", *(f"{name}.{axis}" for name in names for axis in "xyz")]
    rows = np.concatenate([np.arange(len(joints))[:, None] / fps, joints.reshape(len(joints), -1)], axis=1)
    lines = [",".join(header), *(",".join(f"{value:.5f}" for value in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def rig_file(tmp_path):
    """Writes a rig of a family as BVH, its offsets and positions scaled."""

    def rig_file(family="mixamo", scale=1.0, **options):
        bvh = make_rig(family, FRAMES, **options)
        columns = np.array([name.endswith("position") for names in bvh.channels for name in names])
        values = np.where(columns, bvh.values * scale, bvh.values)
        scaled = {"offsets": bvh.offsets * scale, "end_offsets": bvh.end_offsets * scale, "values": values}
        return gm.write_bvh(gm.Bvh(**{**vars(bvh), **scaled}), tmp_path / f"{family}.bvh")

    return rig_file


@pytest.mark.parametrize(
    ("representation", "frames", "shape", "unit"),
    [("humanml3d", 40, (22, 3), 1), ("streaming272", 60, (22, 3), 1), ("kitml", 25, (21, 3), 1000)],
)
def test_joints_are_of_the_representation(representation, frames, shape, unit, rig_file):
    imported = gm.import_motion(rig_file(), representation=representation)
    layout = gm.get_motion_representation(representation)
    assert imported.joints.shape == (frames, *shape) and imported.joints.dtype == np.float32
    named = dict(zip(layout.joint_names, imported.joints[0] / unit, strict=True))
    assert named["left_knee"] == pytest.approx([0.095, 0.49, 0.01], abs=1e-3)
    assert named["right_shoulder"] == pytest.approx([-0.18, 1.43, -0.02], abs=1e-3)
    retarget = layout.target_bone_lengths is not None
    features = gm.joints_to_features(imported.joints, representation, retarget=retarget)
    assert np.isfinite(features).all()
    assert 1.4 < imported.report.height < 2.0 and imported.report.floor < 0.03
    # 30 frames a second, 4 cm each
    path = imported.joints[-1, 0, 2] - imported.joints[0, 0, 2]
    assert path / unit == pytest.approx(1.2 * (frames - 1) / layout.fps, abs=1e-3)


def test_features_are_those_of_the_joints_themselves(rig_file):
    imported = gm.import_motion(rig_file("smpl"), representation="streaming272")
    joints = body_positions(FRAMES) / 100
    expected = gm.joints_to_features(joints, "streaming272")
    assert gm.joints_to_features(imported.joints, "streaming272") == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_left_is_left_in_every_family(family, rig_file):
    report = gm.import_motion(rig_file(family)).report
    assert report.sides == "left is left, by toes and knees" and not report.warnings
    assert report.up == ("y", "the head is above the feet") and report.unit[0] == 0.01 and report.fps[0] == 30


@pytest.mark.parametrize(
    ("scale", "metres", "words"),
    [
        (1, 0.01, "centimetres"),
        (0.01, 1, "metres"),
        (10, 0.001, "millimetres"),
        (1 / 2.54, 0.0254, "inches"),
        (0.45 / 2.54, 0.0254 / 0.45, "1/0.45 inch"),
        (1 / 30.48, 0.3048, "feet"),
        (0.8, 0.01, "centimetres"),
    ],
)
def test_the_unit_is_what_makes_the_figure_human(scale, metres, words, rig_file):
    imported = gm.import_motion(rig_file(scale=scale))
    assert imported.report.unit[0] == pytest.approx(metres) and words in imported.report.unit[1]
    assert imported.joints[0, 0, 1] == pytest.approx(0.95 * scale * metres / 0.01, abs=1e-3)
    assert not imported.report.warnings


def test_a_figure_of_no_human_size_is_scaled_with_a_warning_or_as_told(rig_file):
    file = rig_file(scale=4.5)
    imported = gm.import_motion(file)
    assert any("no human in any usual unit" in warning for warning in imported.report.warnings)
    assert 0.8 < imported.joints[0, 0, 1] < 1.1
    giant = gm.import_motion(file, unit="cm")
    assert giant.joints[0, 0, 1] == pytest.approx(4.275, abs=1e-3) and giant.report.unit == (0.01, "given")
    assert gm.import_motion(file, unit=0.002).joints[0, 0, 1] == pytest.approx(0.855, abs=1e-3)


@pytest.mark.parametrize("axis", TO_Y_UP)
def test_any_axis_may_point_up_and_nothing_is_mirrored(axis, tmp_path):
    turned = body_positions(FRAMES) @ np.array(TO_Y_UP[axis], float)  # the inverse of a rotation is its transpose
    imported = gm.import_motion(save_table(tmp_path / "walk.csv", turned))
    assert imported.report.up[0] == axis
    assert imported.report.sides.startswith("left is left") and not imported.report.warnings
    expected = gm.joints_to_features(body_positions(FRAMES) / 100)
    features = gm.joints_to_features(gm.resample_joints(imported.joints.astype(np.float64), 20, 30))
    assert features[:50, 4:67] == pytest.approx(expected[:50, 4:67], abs=0.01)
    given = gm.import_motion(tmp_path / "walk.csv", up=axis)
    assert given.joints == pytest.approx(imported.joints) and given.report.up == (axis, "given")


@pytest.mark.parametrize("still", [True, False])
def test_who_lies_all_the_time_is_not_set_upright(still, tmp_path):
    bvh = make_rig("mixamo", FRAMES)
    values = bvh.values.copy()
    values[:, 1], values[:, 2] = 12, 0
    values[:, 3:6] = [0, -90, 0]  # the root's Z, X and Y: on the back
    columns = [bvh.names[joint] for joint, names in enumerate(bvh.channels) for _ in names]
    legs = [at for at, name in enumerate(columns) if "Leg" in name]
    values[:, legs] = 0 if still else -np.abs(values[:, legs])  # knees and feet up from the floor
    file = gm.write_bvh(gm.Bvh(**{**vars(bvh), "values": values}), tmp_path / "lying.bvh")
    imported = gm.import_motion(file)
    assert imported.report.up[0] == "y" and "look at the result" in imported.report.up[1]
    assert imported.joints[:, 15, 1].max() < 0.5


def test_a_rig_at_rest_along_z_whose_root_sets_it_upright_is_upright(tmp_path):
    """As Blender and iClone write: everything hangs from a node that turns by 90 degrees."""
    bvh = make_rig("unreal", FRAMES)
    to_z_up = np.array(TO_Y_UP["z"], float)
    values = bvh.values.copy()
    root = values[:, :6].copy()
    values[:, :3] = root[:, :3] @ np.eye(3)
    values[:, 3:6] = [0, -90, 0]
    offsets = bvh.offsets @ to_z_up
    # turns about x, y, z become turns about x, z, -y: the same channels under other names
    names = {"Xrotation": "Xrotation", "Yrotation": "Zrotation", "Zrotation": "Yrotation"}
    channels = (bvh.channels[0], *(tuple(names[name] for name in of_joint) for of_joint in bvh.channels[1:]))
    columns = [name for of_joint in channels for name in of_joint]
    values[:, 6:] *= np.where(np.array(columns[6:]) == "Yrotation", -1, 1)
    turned = {"offsets": offsets, "end_offsets": bvh.end_offsets @ to_z_up, "channels": channels, "values": values}
    file = gm.write_bvh(gm.Bvh(**{**vars(bvh), **turned}), tmp_path / "turned.bvh")
    imported = gm.import_motion(file)
    assert imported.report.up[0] == "y" and imported.report.sides.startswith("left is left")
    assert imported.report.rest_pose == "stands along z" and imported.joints[:, 15, 1].min() > 1.4


def test_swapped_names_and_left_handed_axes_are_warned_of(rig_file, tmp_path):
    text = rig_file().read_text()
    swapped = tmp_path / "swapped.bvh"
    swapped.write_text(text.replace("Left", "Other").replace("Right", "Left").replace("Other", "Right"))
    handed = save_table(tmp_path / "handed.csv", body_positions(FRAMES) * [-1, 1, 1])
    for file in (swapped, handed):
        (warning,) = gm.import_motion(file).report.warnings
        assert "mirrored" in warning
    mapping = {name: name.replace("left", "tfel").replace("right", "left").replace("tfel", "right")
               for name in SKELETON.joint_names}  # fmt: skip
    both = gm.import_motion(handed, mapping=mapping)
    assert not both.report.warnings


def test_arms_of_one_side_over_legs_of_the_other_are_warned_of(tmp_path):
    joints = body_positions(FRAMES)
    order = [*range(13), 14, 13, 15, 17, 16, 19, 18, 21, 20]
    (warning,) = gm.import_motion(save_table(tmp_path / "a.csv", joints[:, order])).report.warnings
    assert "the left arm is over the right leg" in warning


@pytest.mark.parametrize(
    ("frame_time", "fps", "frames"),
    [(0.0333333, 30, 41), (0.033333, 30, 41), (0.016667, 60, 21), (0.00833333, 120, 11), (1 / 29.97, 29.97, 41)],
)
def test_rounded_frame_times_lose_no_frame(frame_time, fps, frames, tmp_path):
    bvh = make_rig("rokoko", 61)
    file = gm.write_bvh(gm.Bvh(**{**vars(bvh), "frame_time": frame_time}), tmp_path / "rig.bvh")
    imported = gm.import_motion(file)
    assert imported.report.fps[0] == pytest.approx(fps, rel=1e-6) and len(imported.joints) == frames
    assert imported.report.frames == (61, frames)
    assert len(gm.import_motion(file, fps=20).joints) == 61


@pytest.mark.parametrize("place", ["origin", "here"])
def test_a_first_frame_in_a_reference_pose_is_left_out(place, tmp_path):
    """As conversions of the CMU library have it: a T pose, often somewhere else."""
    bvh = make_rig("mixamo", FRAMES)
    pose = np.zeros((1, bvh.values.shape[1]))
    pose[0, :3] = bvh.values[0, :3] - [0, 0, 300] if place == "origin" else bvh.values[0, :3]
    whole = gm.Bvh(**{**vars(bvh), "values": np.concatenate([pose, bvh.values])})
    imported = gm.import_motion(gm.write_bvh(whole, tmp_path / "pose.bvh"))
    expected = gm.import_motion(gm.write_bvh(bvh, tmp_path / "walk.bvh"))
    assert imported.joints == pytest.approx(expected.joints)
    assert any(note.startswith("frame 1 is left out") for note in imported.report.notes)
    assert not expected.report.notes


@pytest.mark.parametrize("slope", [0.02, -0.03])
@pytest.mark.parametrize("heading", [0.0, 0.7])
def test_a_floor_that_leans_is_levelled(slope, heading, tmp_path):
    """The walk of the rigs slides; here each foot stands while the other goes."""
    flat = walk_that_steps(90) @ Rotation.from_euler("y", heading).as_matrix().T
    tilt = Rotation.from_rotvec([-np.arctan(slope) * np.cos(heading), 0, np.arctan(slope) * np.sin(heading)])
    leaning = flat @ tilt.as_matrix().T
    imported = gm.import_motion(save_table(tmp_path / "leaning.csv", leaning, fps=20))
    (note,) = imported.report.notes
    assert "the floor of the file leans" in note and "levelled" in note
    assert np.abs(imported.joints - flat).max() < 0.005 and imported.report.floor < 0.03
    straight = gm.import_motion(save_table(tmp_path / "flat.csv", flat, fps=20))
    assert not straight.report.notes and straight.joints == pytest.approx(flat, abs=1e-4)
    np.save(tmp_path / "own.npy", leaning)  # joints in this package's own order stay as they are
    assert gm.import_motion(tmp_path / "own.npy").joints == pytest.approx(leaning, abs=1e-6)


def test_stairs_and_ramps_stay_what_they_are(tmp_path):
    """A step of 15 cm every second, and a slope of one in ten."""
    flat = walk_that_steps(90)
    stairs, ramp = flat.copy(), flat.copy()
    stairs[:, :, 1] += 0.15 * (np.arange(90) // 20)[:, None]
    ramp[:, :, 1] += 0.1 * flat[:, [10, 11], 2].mean(axis=1, keepdims=True)
    for name, joints in (("stairs", stairs), ("ramp", ramp)):
        imported = gm.import_motion(save_table(tmp_path / f"{name}.csv", joints, fps=20))
        assert not imported.report.notes and imported.joints == pytest.approx(joints, abs=1e-4), name


def walk_that_steps(frames):
    """Joints (frames, 22, 3) in metres whose feet stand for half a second each, moving ahead 0.6 m at a time."""
    joints = body_positions(1).repeat(frames, axis=0) / 100
    time = np.arange(frames) / 10  # steps
    joints[..., 2] += 0.6 * time[:, None]
    joints[..., 1] += 0.01 * np.abs(np.sin(np.pi * time))[:, None]
    for side, hip, phase in ((0.09, 1, 0), (-0.09, 2, 1)):
        own = (time + phase) / 2
        swing = np.clip(2 * (own % 1), 0, 1)
        along, above = 1.2 * (np.floor(own) + swing) - 0.6, 0.1 * np.sin(np.pi * swing)
        ankle, foot = hip + 6, hip + 9
        joints[:, ankle] = np.stack([0 * along + side, 0.09 + above, along], axis=1)
        joints[:, foot] = np.stack([0 * along + side, 0.02 + above, along + 0.13], axis=1)
        joints[:, hip + 3] = (joints[:, hip] + joints[:, ankle]) / 2 + [0, 0, 0.05]
    return joints


@pytest.mark.parametrize("count", [22, 24, 52])
def test_arrays_of_smpl_joints_need_no_names(count, tmp_path):
    joints = np.concatenate([body_positions(FRAMES), np.zeros((FRAMES, count - 22, 3))], axis=1) / 100
    np.save(tmp_path / "a.npy", joints.astype(np.float32))
    np.savez(tmp_path / "a.npz", joints=joints, fps=30)
    plain, archive = gm.import_motion(tmp_path / "a.npy"), gm.import_motion(tmp_path / "a.npz")
    assert plain.joints == pytest.approx(joints[:, :22], abs=1e-6) and plain.report.fps[0] == 20
    assert len(archive.joints) == 40 and archive.report.fps == (30, "the file")
    assert all(match.reason == "the file's own order" for match in plain.report.matches)


def test_named_arrays_and_tables_are_matched_by_name(tmp_path):
    joints, names = body_positions(FRAMES), [*SKELETON.joint_names]
    order = np.random.default_rng(0).permutation(22)
    expected = gm.resample_joints(joints / 100, 30, 20)
    named = {"names": [names[i] for i in order], "fps": 30.0}
    np.savez(tmp_path / "a.npz", positions=joints[:, order], **named)
    assert gm.import_motion(tmp_path / "a.npz").joints == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="a.npz.*give fps="):
        np.savez(tmp_path / "a.npz", positions=joints[:, order], names=named["names"])
        gm.import_motion(tmp_path / "a.npz")
    file = save_table(tmp_path / "a.csv", joints[:, order], named["names"])
    assert gm.import_motion(file).joints == pytest.approx(expected, abs=1e-5)
    text = file.read_text().replace(",", ";").replace(".x", "_X").replace(".y", "_Y").replace(".z", "_Z")
    file.write_text(text.replace(".", ",").replace("time;", '"Time";'))
    assert gm.import_motion(file).joints == pytest.approx(expected, abs=1e-5)


def test_tables_without_spine_and_collars_are_filled_in(tmp_path):
    kept = [i for i, name in enumerate(SKELETON.joint_names) if "spine" not in name and "collar" not in name]
    joints = body_positions(FRAMES)
    imported = gm.import_motion(
        save_table(tmp_path / "a.csv", joints[:, kept], [SKELETON.joint_names[i] for i in kept])
    )
    assert np.abs(imported.joints[0] - joints[0] / 100).max() < 0.06
    assert sum("interpolated" in match.reason for match in imported.report.matches) == 5


@pytest.mark.parametrize("form", ["yaml", "json", "dict"])
def test_a_mapping_names_what_names_do_not_tell(form, rig_file, tmp_path):
    file = rig_file("rokoko")
    text = file.read_text()
    for name in ("LeftThigh", "LeftShin", "LeftFoot", "LeftToeEnd", "LeftToe"):
        text = text.replace(f"JOINT {name}\n", f"JOINT q{sum(map(ord, name))}\n")
    odd = tmp_path / "odd.bvh"
    odd.write_text(text)
    codes = {part: f"q{sum(map(ord, name))}" for part, name in
             (("hip", "LeftThigh"), ("knee", "LeftShin"), ("ankle", "LeftFoot"), ("foot", "LeftToe"))}  # fmt: skip
    mapping = {f"left_{part}": code for part, code in codes.items()}
    mapping["left_foot"] = {codes["ankle"]: 0.25, codes["foot"].upper(): 0.75}
    mapping["spine2"] = ["Hips", "Neck"]
    given = mapping
    if form != "dict":
        given = tmp_path / f"map.{form}"
        lines = [f"{joint}: {json.dumps(value)}" for joint, value in mapping.items()]
        given.write_text(json.dumps(mapping) if form == "json" else "# odd\n" + "\n".join(lines))
    imported, expected = gm.import_motion(odd, mapping=given), gm.import_motion(file)
    same = [i for i, name in enumerate(SKELETON.joint_names) if name not in ("left_foot", "spine2")]
    assert imported.joints[:, same] == pytest.approx(expected.joints[:, same], abs=1e-6)
    middle = (imported.joints[:, 0] + imported.joints[:, 12]) / 2
    assert imported.joints[:, 6] == pytest.approx(middle, abs=1e-6)
    toes = 0.25 * expected.joints[:, 7] + 0.75 * expected.joints[:, 10]
    assert imported.joints[:, 10] == pytest.approx(toes, abs=1e-5)
    reasons = {match.joint: match.reason for match in imported.report.matches}
    assert reasons["left_hip"] == "mapping" and reasons["right_hip"] == "name"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("left_hipp: Hips", "'left_hipp' is no joint of the skeleton"),
        ("left_hip: Nowhere", "has no joints 'Nowhere'; it has mixamorig:Hips"),
        ("left_hip: [Hips, {a: b}]", "left_hip"),
        ("left_hip: {Hips: many}", "left_hip: could not convert"),
        ("left_hip: {Hips: 1, Spine: -1}", "do not make one point"),
        ("left_hip: {Hips: .nan}", "do not make one point"),
        ("left_hip: []", "do not make one point"),
        ("- left_hip", "wanted a list of pairs"),
        ("just words", "wanted a list of pairs"),
        ("a: &a [*a]", "aliases"),
        ("{" * 5000, "no YAML or JSON mapping"),
        ("left_hip: " + "[" * 20 + "]" * 20, "brackets stand in each other 20 deep"),
        ("left_hip: !!python/object/apply:os.getcwd []", "no YAML or JSON mapping"),
        ("", "is empty"),
        ("# " + "x" * 70_000, "may have 65536"),
    ],
)
def test_what_is_wrong_with_a_mapping_is_said(content, message, rig_file, tmp_path):
    mapping = tmp_path / "map.yaml"
    mapping.write_text(content)
    with pytest.raises(ValueError, match=f"map.yaml.*{message}"):
        gm.import_motion(rig_file(), mapping=mapping)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 0}, "fps is 0"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"unit": "parsec"}, "unit is 'parsec'; choose one of m, cm"),
        ({"unit": -1}, "unit is -1"),
        ({"up": "w"}, "up is 'w'; choose one of x"),
        ({"skeleton": "a.asf"}, "skeleton goes with .amc files"),
        ({"body_models": "models"}, "body_models goes with .npz files"),
        ({"representation": "humanml4d"}, "unknown motion representation"),
        ({"fps": 1e4}, "wanted 2 to"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message, rig_file):
    with pytest.raises(ValueError, match=message):
        gm.import_motion(rig_file(), **options)


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.asf", "is a skeleton"), ("a.pkl", "never opened"), ("a.fbx", "wanted one of .bvh"), ("a", "wanted one of")],
)
def test_kinds_of_files_that_are_not_read_are_told(name, message, tmp_path):
    (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match=message):
        gm.import_motion(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="nowhere.bvh: no such motion file"):
        gm.import_motion(tmp_path / "nowhere.bvh")


def test_control_characters_in_names_do_not_reach_the_terminal(rig_file):
    file = rig_file("rokoko")
    file.write_text(file.read_text().replace("LeftShin", "Left\x1b[2JShin").replace("JOINT Chest", "JOINT \x07Chest"))
    with pytest.raises(ValueError, match="has no joints .Nobody.") as raised:
        gm.import_motion(file, mapping={"left_hip": "Nobody"})
    assert str(raised.value).isprintable()


def test_one_frame_is_no_motion(tmp_path):
    file = gm.write_bvh(make_rig("smpl", 1), tmp_path / "one.bvh")
    with pytest.raises(ValueError, match="one.bvh: it has 1 frame; a motion needs two"):
        gm.import_motion(file)


def test_a_motion_that_never_moves_is_imported(tmp_path):
    bvh = make_rig("smpl", 30)
    still = {"values": np.repeat(bvh.values[:1], 30, axis=0)}
    imported = gm.import_motion(gm.write_bvh(gm.Bvh(**{**vars(bvh), **still}), tmp_path / "still.bvh"))
    assert np.ptp(imported.joints, axis=0).max() == pytest.approx(0, abs=1e-6) and not imported.report.warnings


def test_the_report_is_a_table_that_says_how_each_thing_was_known(rig_file):
    file = rig_file("biovision")
    text = str(gm.import_motion(file, fps=60).report)
    lines = text.splitlines()
    assert lines[0].endswith(f"{file} (BVH)") and lines[1].split() == ["frames", "60", "->", "20"]
    assert "rest pose       stands along y" in lines
    assert "frame rate      60 (given)" in lines and "up              y (the head is above the feet)" in lines
    rows = {line.split()[0]: line for line in lines if line.startswith("  ")}
    assert set(rows) == set(SKELETON.joint_names)
    assert rows["left_hip"].split() == ["left_hip", "LeftHip", "name"]
    assert "65% end of LeftAnkle + 35% LeftAnkle" in rows["left_foot"] and "of the foot" in rows["left_foot"]


# Real files


@pytest.fixture(scope="module")
def real_imports(real_data):
    folder = real_data / "mocap_samples"
    files = sorted([*folder.glob("*.bvh"), *folder.glob("*.amc")])
    assert len(files) == 9
    return {file.stem: gm.import_motion(file) for file in files}


def test_real_files_import_by_themselves_and_stand_on_the_floor(real_imports):
    for name, imported in real_imports.items():
        report = imported.report
        assert not report.warnings and report.sides.startswith("left is left"), name
        assert 1.4 < report.height < 2.0, name
        assert report.floor < (0.07 if name == "cmu_002_03" else 0.03), name
        assert any("keeps one height" in note for note in report.notes) == (name == "cmu_002_03"), name
        assert report.up[0] == "y" and report.fps[0] in (30, 60, 120), name
        joints = gm.features_to_joints(gm.joints_to_features(imported.joints))
        assert joints[..., 1].min() == pytest.approx(0, abs=1e-5), name
        lowest = joints[:, [7, 8, 10, 11], 1].min(axis=1)
        assert np.quantile(lowest, 0.1) < 0.03, name
        if name != "cmu_002_03":  # a run, and its conversion has fixed the height of the pelvis
            assert np.median(lowest) < 0.03 and np.quantile(lowest, 0.95) < 0.045, name
        left_out = [note for note in report.notes if "frame 1 is left out" in note]
        assert len(left_out) == (name == "cmu_007_12"), name


def test_the_leaning_floor_of_the_cmu_studio_is_levelled_and_no_other(real_imports):
    levelled = {name for name, imported in real_imports.items() if any("leans" in n for n in imported.report.notes)}
    assert levelled == {"walk_03", "cmu_007_12", "cmu_006_09"}
    for name in levelled:
        assert not body_axes.level_floor(real_imports[name].joints.astype(np.float64), 20)[1], name


def bandai_clips(real_data):
    """Name and joints (frames, 22, 3) of every clip of the real set."""
    archive = np.load(real_data / "bandai" / "joints.npz", allow_pickle=False)
    roots, offsets = archive["root_m"], np.cumsum(archive["offsets_delta_tenth_mm"], axis=0, dtype=np.int16)
    ends = np.cumsum(archive["lengths"])
    for name, start, end in zip(archive["names"], ends - archive["lengths"], ends, strict=True):
        bones = np.pad(offsets[start:end].astype(np.float64) / 10000, ((0, 0), (1, 0), (0, 0)))
        yield str(name), roots[start:end, None] + bones


def test_no_frame_is_left_out_of_real_clips_and_no_floor_turned(real_data):
    """Not even where the clip's own first pose is the rest pose of its file."""
    count = 0
    for name, joints in bandai_clips(real_data):
        count += 1
        for rest in (None, joints[0]):
            assert not _without_reference_pose(joints, rest, 20.0)[1], name
        assert body_axes.level_floor(joints, 20)[0] is joints, name
    assert count == 2479


def steps_per_second(joints, fps=20):
    """By the strongest frequency of the distance between the ankles along the way."""
    apart = joints[:, 7] - joints[:, 8]
    apart = (apart * (joints[-1, 0] - joints[0, 0]) * [1, 0, 1]).sum(-1)
    spectrum = np.abs(np.fft.rfft(apart - apart.mean(), 1024))
    return 2 * np.argmax(spectrum) * fps / 1024


@pytest.mark.parametrize(
    ("name", "lowest", "highest"),
    [("walk_03", 1.3, 2.3), ("dataset-1_walk-left_normal_001", 1.3, 2.3), ("cmu_002_03", 2.2, 3.6)],
)
def test_real_walks_and_the_run_step_as_people_do(name, lowest, highest, real_imports):
    """cmu_002_03 is CMU's trial of a run."""
    joints = real_imports[name].joints
    assert lowest < steps_per_second(joints) < highest
    speed = np.linalg.norm((joints[-1, 0] - joints[0, 0])[::2]) / (len(joints) - 1) * 20
    assert (0.6 if highest < 3 else 2.2) < speed < (1.8 if highest < 3 else 4)


def test_real_rigs_give_the_joints_that_others_made_of_them(real_imports, real_data):
    """The data set beside them has four of the files as joints; it divides the lower spine in another way."""
    others = [i for i in range(22) if SKELETON.joint_names[i] not in ("spine1", "spine2")]
    clips = {name: joints for name, joints in bandai_clips(real_data) if name in real_imports}
    assert len(clips) == 4
    for name, joints in clips.items():
        found = real_imports[name].joints
        assert found.shape == joints.shape
        difference = (found - found[:1, :1]) - (joints - joints[:1, :1])
        assert np.abs(difference[:, others]).max() < 0.006, name
        assert np.abs(difference).max() < 0.06, name


def test_too_long_a_motion_is_refused_before_it_is_resampled(tmp_path, monkeypatch):
    np.savez(tmp_path / "slow.npz", joints=body_positions(FRAMES) / 100, fps=0.5)

    def fail(*_):
        raise AssertionError("resampled")

    monkeypatch.setattr("geomotiongpt.data.import_motion.resample_joints", fail)
    with pytest.raises(ValueError, match=r"slow\.npz: lasts 118\.0 s; wanted at most 60 s"):
        gm.import_motion(tmp_path / "slow.npz", max_seconds=60)
