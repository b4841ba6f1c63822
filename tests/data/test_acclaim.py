"""ASF/AMC files: positions by hand, the right skeleton beside a motion, and faults told with their file."""

import shutil

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import geomotiongpt as gm
from geomotiongpt.data.acclaim import read_acclaim, read_asf

ASF = """# a comment
:version 1.10
:name Test Figure
:units
  mass 1.0
  length 0.45
  angle deg
:documentation
  words: of any kind
:root
  order TX TY TZ RX RY RZ
  axis XYZ
  position 0 0 0
  orientation 0 0 0
:bonedata
  begin
    id 1
    name thigh
    direction 0 -1 0
    length 4
    axis 0 0 0 XYZ
    dof rx ry rz
    limits (-160.0 20.0)
           (-70.0 70.0)
           (-60.0 70.0)
  end
  begin
    id 2
    name shin
    direction 0 -1 0
    length 5
    axis 0 0 90 XYZ
    dof rx
    limits (-10.0 170.0)
  end
:hierarchy
  begin
    root thigh
    thigh shin
  end
"""
AMC = """#!OML:ASF C:\\Studio\\Figures of Tests\\other.ASF
:FULLY-SPECIFIED
:DEGREES
1
root 0 9 0 0 0 0
thigh 0 0 0
shin 0
2
root 1 9 2 0 0 90
thigh 30 0 0
shin 90
"""


@pytest.fixture
def files(tmp_path):
    """A motion and its skeleton."""
    (tmp_path / "walk.asf").write_text(ASF)
    (tmp_path / "walk_03.amc").write_text(AMC)
    return tmp_path / "walk_03.amc", tmp_path / "walk.asf"


def test_positions_are_those_of_the_format(files):
    motion = read_acclaim(*files)
    assert motion.names == ("root", "thigh", "shin", "end of shin") and motion.parents == (-1, 0, 1, 2)
    assert motion.ends == {3} and motion.unit_in_metres == pytest.approx(0.0254 / 0.45) and motion.fps == 120
    assert motion.positions[0] == pytest.approx(np.array([[0, 9, 0], [0, 9, 0], [0, 5, 0], [0, 0, 0]]))
    # A bone turns by C R C^-1 against its parent, where C are its own axes.
    root, thigh = Rotation.from_euler("z", 90, degrees=True), Rotation.from_euler("x", 30, degrees=True)
    own = Rotation.from_euler("z", 90, degrees=True)
    shin = own * Rotation.from_euler("x", 90, degrees=True) * own.inv()
    knee = np.array([1, 9, 2]) + (root * thigh).apply([0, -4, 0])
    ankle = knee + (root * thigh * shin).apply([0, -5, 0])
    assert motion.positions[1, 2:] == pytest.approx(np.stack([knee, ankle]))


def test_rotations_apply_in_the_order_of_the_axis(files):
    path, skeleton = files
    path.write_text(AMC.replace("thigh 30 0 0", "thigh 30 40 50"))
    knee = read_acclaim(path, skeleton).positions[1, 2]
    turn = Rotation.from_euler("z", 90, degrees=True) * Rotation.from_euler("xyz", [30, 40, 50], degrees=True)
    assert knee == pytest.approx(np.array([1, 9, 2]) + turn.apply([0, -4, 0]))


def test_radians_and_windows_lines(files):
    path, skeleton = files
    expected = read_acclaim(path, skeleton).positions
    radians = AMC.replace(":DEGREES", ":RADIANS").replace("0 0 90", f"0 0 {np.pi / 2}")
    radians = radians.replace("thigh 30", f"thigh {np.pi / 6}").replace("shin 90", f"shin {np.pi / 2}")
    path.write_bytes(radians.replace("\n", "\r\n").encode())
    skeleton.write_bytes(ASF.replace("\n", "\r\n").encode())
    assert read_acclaim(path, skeleton).positions == pytest.approx(expected)


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        ({}, "walk.asf"),
        ({"walk_03.asf": ASF}, "walk_03.asf"),
        ({"zombie.asf": ASF, "broken.asf": "nothing", "fewer.asf": ASF.replace("dof rx ry rz", "dof rx")}, "walk.asf"),
    ],
)
def test_the_skeleton_beside_is_found_by_its_name(others, chosen, files):
    for name, text in others.items():
        (files[0].parent / name).write_text(text)
    assert read_acclaim(files[0]).notes == (f"skeleton: {chosen}",)


def test_the_skeleton_that_the_motion_names_is_found(files):
    path, skeleton = files
    skeleton.rename(skeleton.with_name("run.asf"))
    skeleton.with_name("other.asf").write_text(ASF.replace("Test Figure", "Nobody"))
    assert read_acclaim(path).notes == ("skeleton: other.asf",)
    skeleton.with_name("other.asf").rename(skeleton.with_name("nobody.asf"))
    assert read_acclaim(path).notes == ("skeleton: run.asf",)  # "Figures of Tests" has the words of "Test Figure"


def test_no_skeleton_one_that_does_not_fit_and_several_are_told(files):
    path, skeleton = files
    shutil.copy(skeleton, skeleton.with_name("a.asf"))
    skeleton.rename(skeleton.with_name("b.asf"))
    with pytest.raises(ValueError, match=r"walk_03.amc: several skeletons beside it fit \(a.asf, b.asf\)"):
        read_acclaim(path)
    other = skeleton.with_name("a.asf")
    other.write_text(ASF.replace("name shin", "name leg").replace("thigh shin", "thigh leg"))
    with pytest.raises(ValueError, match="does not go with the skeleton .*a.asf: it has no bone 'shin'"):
        read_acclaim(path, other)
    skeleton.with_name("b.asf").unlink()
    with pytest.raises(ValueError, match="no skeleton beside it fits .*a.asf: it has no bone 'shin'"):
        read_acclaim(path)
    other.unlink()
    with pytest.raises(FileNotFoundError, match="walk_03.amc: no skeleton"):
        read_acclaim(path)
    with pytest.raises(FileNotFoundError, match="a.asf: no such ASF file"):
        read_acclaim(path, other)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("root thigh\n", "root thigh shin\n", "has bone 'shin' twice"),
        ("    root thigh\n    thigh shin\n", "    thigh shin\n    shin thigh\n", "does not hang from the root"),
        ("thigh shin", "shin shin", "does not hang from the root"),
        ("thigh shin", "thigh root shin", "in a circle"),
        ("thigh shin", "thigh arm", "'arm', which is no bone"),
        ("direction 0 -1 0", "direction 0 -1", "a direction is '0 -1'; wanted 3 numbers"),
        ("length 4", "length nan", "'nan' is no finite number"),
        ("length 0.45", "length 0", "unit of length is 0.0"),
        ("axis 0 0 90 XYZ", "axis 0 0 90 XYY", "wanted three angles and an order"),
        ("dof rx\n", "dof rx rx\n", "a dof is 'rx rx'"),
        ("name shin", "name thigh", "the name of another"),
        (":hierarchy", ":hierarchies", "no section :hierarchy"),
        ("    limits (-10.0 170.0)\n  end\n", "    limits (-10.0 170.0)\n", "it is cut"),
        ("  begin\n    id 2", "    id 2", "stands between bones"),
    ],
)
def test_what_is_wrong_with_a_skeleton_is_said(old, new, message, files):
    assert old in ASF
    files[1].write_text(ASF.replace(old, new))
    with pytest.raises(ValueError, match=f"walk.asf: .*{message}"):
        read_asf(files[1])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("thigh 30 0 0\nshin 90\n", "thigh 30 0 0\n", "do not all have the same bones"),
        ("shin 90", "shin", "it is cut or damaged"),
        ("thigh 30 0 0\nshin 90", "thigh 30 0\nshin 90 0", "more numbers for a bone than the first"),
        ("shin 90", "shin nan", "frame 2 has a NaN"),
        ("shin 90", "shin 1e99", "frame 2 has a NaN or infinite value"),
        ("shin 90", "shin 9x0", "no number stands among the numbers"),
        ("\n2\n", "\n7\n", "not numbered 1, 2, 3"),
        ("\n1\n", "\n0\n", "no line with the number of a first frame"),
        ("thigh 30 0 0\nshin", "shin 30 0 0\nthigh", "do not all have the same bones"),
    ],
)
def test_what_is_wrong_with_a_motion_is_said(old, new, message, files):
    assert old in AMC
    files[0].write_text(AMC.replace(old, new))
    with pytest.raises(ValueError, match=f"walk_03.amc.*{message}"):
        read_acclaim(*files)


def test_real_feet_stand_still_on_the_floor(real_data):
    """The order of the rotations shows in the feet: a wrong one makes them slide and sink."""
    motion = read_acclaim(real_data / "mocap_samples" / "walk_03.amc")
    positions = motion.positions * motion.unit_in_metres
    for side in "lr":
        toes = positions[:, motion.names.index(f"{side}toes")]
        speed = np.linalg.norm(np.diff(toes, axis=0), axis=-1) * 120
        assert np.quantile(speed, 0.2) < 0.15 < 2 < np.quantile(speed, 0.95)  # metres per second
        assert 0 < toes[:, 1].min() < 0.03 and np.median(toes[:, 1]) < 0.08


def test_the_skeleton_of_a_real_motion_can_be_given(real_data):
    folder = real_data / "mocap_samples"
    own, other = (
        gm.import_motion(folder / "135_08.amc", skeleton=folder / name) for name in ("martialwalk.asf", "walk.asf")
    )
    assert own.joints == pytest.approx(gm.import_motion(folder / "135_08.amc").joints)
    assert np.abs(own.joints - other.joints).max() > 0.01
