"""Damaged motion files, 80 of each kind with a fixed seed: imported, or refused in one line with their name."""

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rigs import body_positions, make_rig
from test_acclaim import AMC, ASF
from test_body_models import make_model, make_motion
from test_c3d_files import markers, write_c3d
from test_import_motion import save_table

import geomotiongpt as gm
from geomotiongpt.data import acclaim
from geomotiongpt.data.joint_matching import SKELETON

DAMAGES = 80
FRAMES = 12
NUMBERS = [
    b"nan",
    b"-inf",
    b"1e999",
    b"1e308",
    b"-1",
    b"0",
    b"999999999999",
    b"1,5",
    b"0x1F",
    b"1.#IND",
    b"-",
    b"1e-320",
]
WORDS = [
    b"{",
    b"}",
    b"JOINT",
    b"ROOT a",
    b"End Site",
    b"CHANNELS 6",
    b"MOTION",
    b"Frames: 9",
    b"begin",
    b"end",
    b"root",
]
WORDS += [b"#", b":", b"[", b"&a", b"*a", b"!!python/object:os.system", b"\xff\xfe", b"\x00", b'"', b";", b"\r", b"\t"]


class Trap:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def cut(rng, content):
    return content[: rng.integers(len(content) + 1)]


def cut_out(rng, content):
    start, end = np.sort(rng.integers(len(content) + 1, size=2))
    return content[:start] + content[end:]


def swap(rng, content):
    a, b, c = np.sort(rng.integers(len(content) + 1, size=3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def repeat(rng, content):
    a, b = np.sort(rng.integers(len(content) + 1, size=2))
    return content[:b] + content[a:b] * int(rng.integers(1, 4)) + content[b:]


def change_bytes(rng, content):
    changed = bytearray(content)
    for _ in range(rng.integers(1, 12)):
        changed[rng.integers(len(changed))] = rng.integers(256)
    return bytes(changed)


def change_start(rng, content):
    changed = bytearray(content)
    for _ in range(rng.integers(1, 12)):
        changed[rng.integers(min(len(changed), 200))] = rng.integers(256)
    return bytes(changed)


def put_in(rng, content):
    at = rng.integers(len(content) + 1)
    word = WORDS[rng.integers(len(WORDS))] if rng.random() < 0.7 else rng.bytes(int(rng.integers(1, 200)))
    return content[:at] + word + content[at:]


def change_words(rng, content):
    words = content.split(b" ")
    for _ in range(rng.integers(1, 4)):
        options = NUMBERS if rng.random() < 0.7 else WORDS
        words[rng.integers(len(words))] = options[rng.integers(len(options))]
    return b" ".join(words)


def move_lines(rng, content):
    lines = content.split(b"\n")
    a, b = rng.integers(len(lines), size=2)
    if rng.random() < 0.5:
        lines[a], lines[b] = lines[b], lines[a]
    else:
        del lines[a]
    return b"\n".join(lines)


def replace_all(rng, content):
    return [b"", b"\n" * 50, rng.bytes(500), b"\x00" * 300, b"(" * 5000, b"{" * 5000][rng.integers(6)]


ANY = (cut, cut_out, swap, repeat, change_bytes, change_start, put_in, replace_all)
OF_TEXT = (*ANY, change_words, change_words, move_lines, move_lines)


@pytest.fixture
def outcomes(tmp_path):
    """Imports damages of a file; how many were imported and how many refused."""

    def outcomes(file: Path, ways, importing: Callable[[], gm.ImportedMotion], names: tuple[str, ...], seed: int):
        whole = file.read_bytes()
        importing()  # what is not damaged is imported
        rng = np.random.default_rng(seed)
        imported = refused = 0
        for number in range(DAMAGES):
            file.write_bytes(ways[number % len(ways)](rng, whole))
            try:
                motion = importing()
            except (ValueError, FileNotFoundError) as error:
                refused += 1
                message = str(error)
                assert any(name in message for name in names), f"damage {number}: {message}"
                assert "\n" not in message and len(message) < 2000, f"damage {number}: {message}"
            else:
                imported += 1
                assert np.isfinite(motion.joints).all() and motion.joints.shape[1:] == (22, 3), f"damage {number}"
                assert str(motion.report)
        file.write_bytes(whole)
        importing()
        assert imported + refused == DAMAGES and refused > DAMAGES / 4
        return imported, refused

    return outcomes


@pytest.mark.parametrize(("family", "seed"), [("smpl", 0), ("unreal", 1)])
def test_bvh(family, seed, outcomes, tmp_path):
    file = gm.write_bvh(make_rig(family, FRAMES), tmp_path / "damaged.bvh")
    outcomes(file, OF_TEXT, lambda: gm.import_motion(file), ("damaged.bvh",), seed)


@pytest.mark.parametrize(("damaged", "seed"), [("amc", 2), ("asf", 3)])
def test_acclaim(damaged, seed, outcomes, tmp_path, monkeypatch):
    """The small figure of the other tests is no body: its bones stand for all joints."""
    skeleton, motion = tmp_path / "damaged.asf", tmp_path / "damaged.amc"
    skeleton.write_text(body_asf())
    motion.write_text(body_amc())
    file = motion if damaged == "amc" else skeleton
    names = ("damaged.amc", "damaged.asf")
    outcomes(file, OF_TEXT, lambda: gm.import_motion(motion), names, seed)
    assert acclaim.read_asf(skeleton).bones


def body_asf() -> str:
    """A figure with all limbs, in the manner of the CMU library."""
    bones = [
        ("lowerback", "root", (0, 1, 0), 4),
        ("thorax", "lowerback", (0, 1, 0), 5),
        ("head", "thorax", (0, 1, 0), 3),
    ]
    for letter, sign in (("l", 1), ("r", -1)):
        limbs = (("hipjoint", "root", (sign, -0.6, 0), 2), ("femur", "hipjoint", (0, -1, 0), 7))
        limbs += (
            ("tibia", "femur", (0, -1, 0), 7),
            ("foot", "tibia", (0, -0.3, 1), 2),
            ("toes", "foot", (0, 0, 1), 1),
        )
        limbs += (("clavicle", "thorax", (sign, 0.2, 0), 3), ("humerus", "clavicle", (0, -1, 0), 5))
        limbs += (("radius", "humerus", (0, -1, 0), 4.5), ("hand", "radius", (0, -1, 0), 1))
        shared = ("root", "thorax")
        bones += [(letter + name, on if on in shared else letter + on, way, size) for name, on, way, size in limbs]
    start, _, rest = ASF.partition(":bonedata\n")
    tail = "".join(f"    {parent} {name}\n" for name, parent, _, _ in bones)
    body = "".join(
        f"  begin\n    name {name}\n    direction {way[0]} {way[1]} {way[2]}\n    length {size}\n    axis 0 0 0 XYZ\n"
        f"    dof rx\n  end\n"
        for name, _, way, size in bones
    )
    assert rest
    return f"{start}:bonedata\n{body}:hierarchy\n  begin\n{tail}  end\n"


def body_amc() -> str:
    names = [line.split()[1] for line in body_asf().splitlines() if line.strip().startswith("name ")]
    header = AMC.partition("1\n")[0]
    frames = [
        f"{frame}\nroot 0 15 {0.2 * frame} 0 0 0\n" + "".join(f"{name} {5 * np.sin(frame)}\n" for name in names)
        for frame in range(1, 2 * FRAMES)
    ]
    return header + "".join(frames)


def test_csv(outcomes, tmp_path):
    file = save_table(tmp_path / "damaged.csv", body_positions(FRAMES))
    outcomes(file, OF_TEXT, lambda: gm.import_motion(file), ("damaged.csv",), 4)


@pytest.mark.parametrize(("kind", "seed"), [("yaml", 5), ("json", 6)])
def test_mapping(kind, seed, outcomes, tmp_path):
    motion = gm.write_bvh(make_rig("biovision", FRAMES), tmp_path / "whole.bvh")
    file = tmp_path / f"damaged.{kind}"
    rows = [
        "left_hip: LeftHip",
        "neck: [Neck]",
        "spine2: {Chest: 0.5, Neck: 0.5}",
        "head: Head",
        "left_knee: LeftKnee",
    ]
    text = "\n".join(rows)
    if kind == "json":
        text = '{"left_hip": "LeftHip", "neck": ["Neck"], "spine2": {"Chest": 0.5, "Neck": 0.5}, "head": "Head"}'
    file.write_text(text)
    outcomes(file, OF_TEXT, lambda: gm.import_motion(motion, mapping=file), (f"damaged.{kind}", "whole.bvh"), seed)


def test_npy(outcomes, tmp_path):
    file = tmp_path / "damaged.npy"
    np.save(file, body_positions(FRAMES).astype(np.float32) / 100)
    outcomes(file, ANY, lambda: gm.import_motion(file), ("damaged.npy",), 7)


def rebuilt(rng, content):
    """The same archive with one array damaged inside it, which the sums of the archive do not show."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        names = old.namelist()
        damaged = names[rng.integers(len(names))]
        for name in names:
            inside = old.read(name)
            way = ANY[rng.integers(len(ANY))] if rng.random() < 0.5 else change_start
            new.writestr(name, way(rng, inside) if name == damaged else inside)
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "seed"), [("joints", 8), ("parameters", 9), ("model", 10)])
def test_npz(kind, seed, outcomes, tmp_path):
    model, motion = tmp_path / "model.npz", tmp_path / "motion.npz"
    make_model(model)
    make_motion(motion)
    options = {"body_models": model}
    if kind == "joints":
        np.savez(motion, joints=body_positions(FRAMES), names=np.array(SKELETON.joint_names), fps=30.0)
        options = {}
    file = model if kind == "model" else motion
    ways = (*ANY, *[rebuilt] * len(ANY))
    outcomes(file, ways, lambda: gm.import_motion(motion, **options), ("motion.npz", "model.npz"), seed)


def test_c3d(outcomes, tmp_path):
    labels, positions = markers(body_positions(FRAMES))
    file = write_c3d(tmp_path / "damaged.c3d", labels, positions * 10)
    outcomes(file, ANY, lambda: gm.import_motion(file), ("damaged.c3d",), 11)


def test_amc_files_with_far_more_lines_than_frames_are_refused(tmp_path):
    (tmp_path / "a.asf").write_text(body_asf())
    (tmp_path / "long.amc").write_text(body_amc() + "1\n" * 5000)
    with pytest.raises(ValueError, match="long.amc: 23 frames of 22 bones, and far more lines"):
        gm.import_motion(tmp_path / "long.amc")


def npy_header(shape, descr="<f8") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    header = header + " " * (64 - (len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("(1000000, 22, 3)", "takes 528000000 bytes, and 1000 are there"),
        ("(99999999999999999999, 22, 3)", "bytes, and 1000 are there"),
        ("(-1, 22, 3)", "takes -528 bytes"),
        ("(12, 22, 3.0)", "shape is not valid"),
        ("(10**15,)", ""),
    ],
)
def test_declared_shapes_are_not_believed(suffix, shape, message, tmp_path):
    file = tmp_path / f"huge{suffix}"
    content = npy_header(shape) + bytes(1000)
    if suffix == ".npz":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("joints.npy", content)
    else:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=f"huge{suffix} is not a readable.*{message}"):
        gm.import_motion(file)


def test_archives_that_unpack_to_much_more_are_refused(tmp_path, monkeypatch):
    """A hundredth of the limit does for the test."""
    monkeypatch.setattr("geomotiongpt.data.input_files.MAX_FILE_BYTES", 5 * 2**20)
    file = tmp_path / "bomb.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("joints.npy", npy_header("(30000, 22, 3)") + bytes(30000 * 22 * 3 * 8))
        archive.writestr("unused.npy", npy_header("(30000, 22, 3)") + bytes(30000 * 22 * 3 * 8))
    assert file.stat().st_size < 50_000
    with pytest.raises(ValueError, match="bomb.npz .*unpacked it has more than 5242880 bytes"):
        gm.import_motion(file)


@pytest.mark.parametrize("member", ["joints", "names"])
def test_archives_of_almost_nothing_that_unpack_to_much_are_refused(member, tmp_path):
    """Unpacking alone would take seconds; a header may be as long as the format lets it."""
    file = tmp_path / "bomb.npz"
    filler = b"\x93NUMPY\x02\x00" + (40_000_000).to_bytes(4, "little") + b" " * 40_000_000
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{member}.npy", filler)
        if member == "names":
            archive.writestr("joints.npy", npy_header("(12, 22, 3)") + bytes(12 * 22 * 3 * 8))
    with pytest.raises(ValueError, match="bomb.npz .*bytes would be unpacked, over 100 times its own size"):
        gm.import_motion(file)


def test_names_and_headers_are_bounded(tmp_path):
    file = tmp_path / "names.npz"
    np.savez(file, joints=body_positions(FRAMES), names=np.zeros(2_000_000, "<U1"), fps=30.0)
    with pytest.raises(ValueError, match="names.npz: 2000000 names of joints; wanted 2000 at most"):
        gm.import_motion(file)
    file = tmp_path / "wide.csv"
    file.write_bytes(b"a.x,a.y,a.z," * 100_000 + b"\n1")
    with pytest.raises(ValueError, match="wide.csv: its first line has 1200000 bytes; wanted 1048576 at most"):
        gm.import_motion(file)


@pytest.mark.parametrize("suffix", [".bvh", ".amc", ".c3d", ".npz", ".npy", ".csv"])
def test_what_is_no_plain_file_is_not_opened(suffix, tmp_path):
    """Folders, pipes that nobody writes to, links in a circle, devices without an end."""
    names = [f"{kind}{suffix}" for kind in ("folder", "pipe", "circle", "endless")]
    folder, pipe, circle, endless = (tmp_path / name for name in names)
    folder.mkdir()
    os.mkfifo(pipe)
    circle.symlink_to(circle)
    endless.symlink_to("/dev/zero")
    for path in (folder, pipe, circle, endless):
        with pytest.raises(FileNotFoundError, match=f"{path.name}: no such motion file"):
            gm.import_motion(path)
        (tmp_path / "whole.bvh").write_text("")
        with pytest.raises((FileNotFoundError, ValueError), match=f"{path.name}: no such|whole.bvh"):
            gm.import_motion(tmp_path / "whole.bvh", mapping=path)
    empty = tmp_path / f"empty{suffix}"
    empty.write_bytes(b"")
    (tmp_path / "any.asf").write_text(body_asf())
    with pytest.raises(ValueError, match=f"empty{suffix}"):
        gm.import_motion(empty)


ONE_JOINT = b"HIERARCHY\nROOT a\n{\nOFFSET 0 0 0\nCHANNELS 0\n}\nMOTION\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"HIERARCHY\nROOT a\n" + b"{\nOFFSET 0 1 0\nCHANNELS 0\nJOINT b\n" * 10_000, "no line MOTION"),
        (b"HIERARCHY\nROOT a\n" + b"{\nOFFSET 0 1 0\nJOINT b\n" * 10_000 + b"MOTION\n", "more than 200 joints hang"),
        (b"HIERARCHY\n" + b"{" * 1_000_000 + b"\nMOTION\n", "a brace opens nothing"),
        (b"HIERARCHY " + b"a" * 20_000_000, "no line MOTION"),
        (b"HIERARCHY\n" + b"MOTION\n" * 1_000_000, "no ROOT joint"),
        (ONE_JOINT + b" " * 10_000_000 + b"Frames" + b" " * 10_000_000, "MOTION must be followed"),
        (bytes(20_000_000), "no line MOTION"),
    ],
)
def test_bvh_files_made_to_take_long_are_refused(content, message, tmp_path):
    """Nothing here may take time by the square of the size: this test would not end."""
    file = tmp_path / "slow.bvh"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"slow.bvh.*{message}"):
        gm.import_motion(file)


@pytest.mark.parametrize("change", ["crlf", "utf-16", "bom", "names", "wide digits"])
def test_texts_of_other_programs_are_read(change, tmp_path):
    file = gm.write_bvh(make_rig("smpl", FRAMES), tmp_path / "a.bvh")
    expected, text = gm.import_motion(file).joints, file.read_text()
    content = {
        "crlf": text.replace("\n", "\r\n").encode(),
        "utf-16": text.encode("utf-16"),
        "bom": b"\xef\xbb\xbf" + text.encode(),
        "names": text.replace("ROOT Pelvis", "ROOT 骨盤 ü").encode(),
        "wide digits": text.replace("Frames: 12", "Frames: １２").encode(),
    }[change]
    file.write_bytes(content)
    assert np.array_equal(gm.import_motion(file).joints, expected)


def test_archives_with_more_contents_than_arrays_are_refused(tmp_path):
    file = tmp_path / "many.npz"
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(20_000):
            archive.writestr(f"{number:07}.npy", b"")
    with pytest.raises(ValueError, match="many.npz .*table of contents"):
        gm.import_motion(file)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pkl"])
def test_nothing_is_unpickled(suffix, tmp_path):
    trap = Trap(tmp_path / "sprung")
    file = tmp_path / f"trap{suffix}"
    if suffix == ".npy":
        np.save(file, np.array([trap], dtype=object), allow_pickle=True)
    elif suffix == ".npz":
        np.savez(file, joints=np.array([trap], dtype=object), poses=np.array([trap], dtype=object))
    else:
        file.write_bytes(pickle.dumps(trap))
    with pytest.raises(ValueError, match=f"trap{suffix}.*never opened"):
        gm.import_motion(file, **({"body_models": file} if suffix == ".npz" else {}))
    file.rename(tmp_path / "trap.npy")
    (tmp_path / "trap.npy").write_bytes(pickle.dumps(trap))
    with pytest.raises(ValueError, match="trap.npy is not a readable"):
        gm.import_motion(tmp_path / "trap.npy")
    assert not trap.path.exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Frames: 12", b"Frames: 999999999"),
        (b"CHANNELS 3 ", b"CHANNELS 999999999 "),
        (b"HIERARCHY", b"HIERARCHY\n" + b"ROOT a\n{\nOFFSET 0 0 0\nCHANNELS 0\n}\n" * 5000),
        (b"MOTION", b"\n" * 100_000 + b"MOTIO"),
        (b"MOTION", b"JOINT \x00\nMOTION"),
    ],
)
def test_bvh_files_that_declare_much_are_refused(old, new, tmp_path):
    file = gm.write_bvh(make_rig("smpl", FRAMES), tmp_path / "much.bvh")
    content = file.read_bytes()
    assert old in content
    file.write_bytes(content.replace(old, new, 1))
    with pytest.raises(ValueError, match="much.bvh"):
        gm.import_motion(file)
