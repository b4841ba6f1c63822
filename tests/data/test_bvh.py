"""BVH files: positions by hand, everything programs write, and what is written is what is read."""

import numpy as np
import pytest
from rigs import make_rig

from geomotiongpt import Bvh, read_bvh, write_bvh
from geomotiongpt.data import bvh as bvh_module

TEXT = """HIERARCHY
ROOT Hips
{
  OFFSET 0 10 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Leg
  {
    OFFSET 0 -4 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 -5 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.0333333
0 10 0 0 0 0 0 0 0
1 10 2 90 0 0 0 90 0
"""


@pytest.fixture
def read(tmp_path):
    """Reads a text as a BVH file."""

    def read(text: str | bytes) -> Bvh:
        path = tmp_path / "motion.bvh"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_bvh(path)

    return read


def test_positions_are_those_worked_out_by_hand(read):
    bvh = read(TEXT)
    assert bvh.names == ("Hips", "Leg") and bvh.parents == (-1, 0) and bvh.num_frames == 2
    positions = bvh.joint_positions(end_sites=True)
    assert positions[0] == pytest.approx(np.array([[0, 10, 0], [0, 6, 0], [0, 1, 0]]))
    # A quarter turn about z takes -y to x; then the leg turns about its own x, which points to y: -y goes to -z.
    assert positions[1] == pytest.approx(np.array([[1, 10, 2], [5, 10, 2], [5, 10, -3]]))
    assert bvh.joint_positions().shape == (2, 2, 3)


def test_the_order_of_channels_is_the_order_of_rotations(read):
    turned = TEXT.replace("0 10 0 0 0 0 0 0 0", "0 10 0 90 90 0 0 0 0")
    swapped = turned.replace("Zposition Zrotation Xrotation Yrotation", "Zposition Xrotation Zrotation Yrotation")
    # Rz Rx on -y: about x to -z, which z leaves alone; Rx Rz: about z to x, which x leaves alone.
    assert read(turned).joint_positions()[0, 1] == pytest.approx([0, 10, -4])
    assert read(swapped).joint_positions()[0, 1] == pytest.approx([4, 10, 0])


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r\n").replace("  ", "\t"),
        lambda text: "\ufeff" + text,
        lambda text: text.encode("utf-16"),
        lambda text: text.replace("0.0333333", "0,0333333").replace("1 10 2", "1,0 1,0e1 +2,0"),
        lambda text: text.replace("1 10 2 90", "1.0, 1e+01, 2.0E0, 0.9e2,"),
        lambda text: text.replace("Frames: 2", "Frames:\t2").replace("Frame Time: ", "frame time:"),
        lambda text: text.replace("1 10 2 90 0", "1 10 2\n90 0"),
        lambda text: text.replace("\n  {", " {").replace("End Site\n    {\n", "End Site {\n"),
        lambda text: text.replace("Zrotation Xrotation", "ZROTATION xrotation").replace("End Site", "End site"),
        lambda text: text + "\n\n  \n",
        lambda text: text.rstrip("\n"),
    ],
)
def test_writings_of_many_programs_are_read_alike(change, read):
    expected = read(TEXT).joint_positions(end_sites=True)
    assert read(change(TEXT)).joint_positions(end_sites=True) == pytest.approx(expected)


def test_missing_end_sites_several_roots_and_joints_without_channels(read):
    text = TEXT.replace("    End Site\n    {\n      OFFSET 0 -5 0\n    }\n", "")
    prop = "ROOT Sword of \u00e9toile\n{\nOFFSET 1 2 3\nCHANNELS 0\n}\nMOTION"
    bvh = read(text.replace("MOTION", prop))
    assert bvh.names == ("Hips", "Leg", "Sword of \u00e9toile") and bvh.parents == (-1, 0, -1)
    assert bvh.joint_positions(end_sites=True)[1] == pytest.approx(np.array([[1, 10, 2], [5, 10, 2], [1, 2, 3]]))


@pytest.mark.parametrize("shift", [0.0, -4.0])
def test_positions_of_joints_replace_the_offset_or_add_to_it(shift, read):
    """-4: as MotionBuilder writes; 0: as programs do that write what is moved from the rest pose."""
    text = TEXT.replace("CHANNELS 3 Zrotation", "CHANNELS 6 Xposition Yposition Zposition Zrotation")
    text = text.replace("0 10 0 0 0 0 0 0 0", f"0 10 0 0 0 0 0 {shift} 0 0 0 0")
    text = text.replace("1 10 2 90 0 0 0 90 0", f"1 10 2 90 0 0 0 {shift + 0.5} 0 0 90 0")
    positions = read(text).joint_positions()
    assert positions[:, 1] == pytest.approx(np.array([[0, 6, 0], [4.5, 10, 2]]))


def test_only_one_position_channel_leaves_the_rest_of_the_offset(read):
    text = TEXT.replace("CHANNELS 6 Xposition Yposition Zposition", "CHANNELS 4 Yposition")
    text = text.replace("0 10 0 0 0 0 0 0 0", "7 0 0 0 0 0 0").replace("1 10 2 90", "8 90")
    assert read(text.replace("OFFSET 0 10 0", "OFFSET 3 10 4")).joint_positions()[:, 0].tolist() == [
        [3, 7, 4],
        [3, 8, 4],
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("MOTION", "MOVES", "no line MOTION"),
        ("Frames: 2", "Frames: 1", "declares 1 frames of 9 numbers, but holds 18 numbers, 2 frames"),
        ("Frames: 2", "Frames: 3", "more than a file of this size can hold"),
        ("Frames: 2", "Frames: 99999999999", "more than a file of this size can hold"),
        ("Frames: 2", "Frames: -2", "declares -2 frames"),
        ("Frames: 2", "Frames: 0", "declares 0 frames"),
        ("0.0333333", "0", "frame time is 0.0 s"),
        ("0.0333333", "nan", "'nan' is no finite number"),
        ("1 10 2 90", "1 nan 2 90", "number 2 of frame 2 is nan"),
        ("1 10 2 90", "1 1e300 2 90", "number 2 of frame 2 is 1e\\+300"),
        ("1 10 2 90", "1 10 2 9o", "near '.*9o"),
        ("1 10 2 90", "1 10 2", "holds 17 numbers"),
        ("CHANNELS 3 Zrotation Xrotation", "CHANNELS 3 Zrotation Zrotation", "line 9: CHANNELS has"),
        ("CHANNELS 3 ", "CHANNELS 300000000 ", "line 9: CHANNELS has"),
        ("Zrotation Xrotation Yrotation\n  JOINT", "Zrotation Wrotation Yrotation\n  JOINT", "line 5: CHANNELS has"),
        ("OFFSET 0 -4 0", "OFFSET 0 -4", "line 8: OFFSET has '0 -4'"),
        ("OFFSET 0 -4 0", "", "joint 'Leg' has no OFFSET"),
        ("      OFFSET 0 -5 0\n", "", "end site of 'Leg' has no OFFSET"),
        ("OFFSET 0 -4 0", "OFFSET 0 inf 0", "'inf' is no finite number"),
        ("  JOINT Leg\n  {", "  JOINT Leg", "line 7: an OFFSET outside"),
        ("ROOT Hips", "JOINT Hips", "line 2: this belongs between the braces of a joint"),
        ("}\nMOTION", "MOTION", "a brace that was opened is not closed"),
        ("}\nMOTION", "}\n}\nMOTION", "line 16: a brace closes what none has opened"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_place(old, new, message, read):
    assert old in TEXT
    with pytest.raises(ValueError, match=f"motion.bvh.*{message}"):
        read(TEXT.replace(old, new))


@pytest.mark.parametrize("depth", [100, 100_000])
def test_depth_is_limited_and_needs_no_recursion(depth, read, tmp_path):
    head = "HIERARCHY\nROOT r\n{\nOFFSET 0 1 0\nCHANNELS 1 Xrotation\n"
    joints = "JOINT j\n{\nOFFSET 0 1 0\nCHANNELS 0\n" * depth
    text = head + joints + "}\n" * (depth + 1) + "MOTION\nFrames: 1\nFrame Time: 0.1\n0\n"
    if depth == 100:
        path = write_bvh(read(text), tmp_path / "deep.bvh")
        assert read_bvh(path).joint_positions()[0, -1] == pytest.approx([0, 101, 0])
    else:
        with pytest.raises(ValueError, match="more than 200 joints hang from each other"):
            read(text)


def test_the_size_of_a_file_and_of_its_positions_is_limited(read, monkeypatch):
    monkeypatch.setattr(bvh_module, "MAX_POSITIONS", 5)
    with pytest.raises(ValueError, match="2 frames of 3 joints; cut it"):
        read(TEXT)
    monkeypatch.undo()
    monkeypatch.setattr(bvh_module.read_bytes, "__defaults__", (100,))
    with pytest.raises(ValueError, match="a BVH file may have 100"):
        read(TEXT)


@pytest.mark.parametrize(("family", "moving"), [("unreal", False), ("character_creator", True)])
def test_what_is_written_is_read_again(family, moving, tmp_path):
    bvh = make_rig(family, 30, moving_joints=moving)
    again = read_bvh(write_bvh(bvh, tmp_path / "deep" / "rig.bvh"))
    assert (again.names, again.parents, again.channels) == (bvh.names, bvh.parents, bvh.channels)
    assert again.frame_time == pytest.approx(bvh.frame_time, rel=1e-6)
    difference = again.joint_positions(end_sites=True) - bvh.joint_positions(end_sites=True)
    assert np.abs(difference).max() < 1e-4  # centimetres: a thousandth of a millimetre
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["rig.bvh"]


def test_joints_in_any_order_keep_their_values(tmp_path):
    names, parents = ("root", "a", "b", "a1"), (-1, 0, 0, 1)  # breadth first; a file is depth first
    rotations = np.random.default_rng(0).uniform(-90, 90, (5, 4, 3))
    ends = {"end_parents": (2, 3), "end_offsets": np.ones((2, 3))}
    bvh = Bvh.from_rotations(names, parents, np.eye(4, 3) + 1, np.zeros((5, 3)), rotations, 0.05, order="XYZ", **ends)
    again = read_bvh(write_bvh(bvh, tmp_path / "order.bvh"))
    assert again.names == ("root", "a", "a1", "b")
    order = [*(again.names.index(name) for name in names), 5, 4]
    found = again.joint_positions(end_sites=True)[:, order]
    assert np.abs(found - bvh.joint_positions(end_sites=True)).max() < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ("a{",)}, "cannot be called"),
        ({"values": np.full((2, 6), np.nan)}, "NaN or infinite"),
    ],
)
def test_what_cannot_be_written_leaves_no_file(change, message, tmp_path):
    bvh = Bvh.from_rotations(["a"], [-1], np.zeros((1, 3)), np.zeros((2, 3)), np.zeros((2, 1, 3)), 0.1)
    broken = Bvh(**{**vars(bvh), **change})
    with pytest.raises(ValueError, match=message):
        write_bvh(broken, tmp_path / "a.bvh")
    with pytest.raises(ValueError, match="must end in .bvh"):
        write_bvh(bvh, tmp_path / "a.txt")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parents": (0,)}, "a joint must come after its parent"),
        ({"channels": (("Xposition", "Xposition"),)}, "each at most once"),
        ({"values": np.zeros((2, 5))}, "wanted \\(frames, 6\\)"),
        ({"frame_time": 0.0}, "frame_time is 0.0"),
        ({"end_parents": (3,)}, "end sites need a joint"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    bvh = Bvh.from_rotations(["a"], [-1], np.zeros((1, 3)), np.zeros((2, 3)), np.zeros((2, 1, 3)), 0.1)
    with pytest.raises(ValueError, match=message):
        Bvh(**{**vars(bvh), **change})


def test_real_files_come_back_as_they_were(real_data, tmp_path):
    files = sorted((real_data / "mocap_samples").glob("*.bvh"))
    assert len(files) == 7
    for file in files:
        bvh = read_bvh(file)
        again = read_bvh(write_bvh(bvh, tmp_path / "again.bvh"))
        difference = again.joint_positions(end_sites=True) - bvh.joint_positions(end_sites=True)
        assert np.abs(difference).max() < 1e-4, file.name  # the files are in centimetres
