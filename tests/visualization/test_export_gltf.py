"""Binary glTF files, read back by a reader of their own and by pygltflib."""

import itertools
import json
import struct
from pathlib import Path

import numpy as np
import pygltflib
import pytest
from pygltflib.validator import validate
from scipy.spatial.transform import Rotation

from geomotiongpt import export_motion, get_motion_representation
from geomotiongpt.visualization.animation import LEFT, RIGHT

TYPES = {5121: np.uint8, 5123: np.uint16, 5126: np.float32}
WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}


def read_chunks(path: Path) -> tuple[dict, bytes]:
    """The JSON and the binary chunk, the lengths of the container checked."""
    content = path.read_bytes()
    assert struct.unpack("<4sII", content[:12]) == (b"glTF", 2, len(content))
    length, kind = struct.unpack("<I4s", content[12:20])
    assert kind == b"JSON" and length % 4 == 0
    size, kind = struct.unpack("<I4s", content[20 + length : 28 + length])
    assert kind == b"BIN\0" and size % 4 == 0 and 28 + length + size == len(content)
    return json.loads(content[20 : 20 + length]), content[28 + length :]


def read_accessor(tree: dict, chunk: bytes, index: int) -> np.ndarray:
    """(count, components), the view checked to lie in the chunk and to be aligned."""
    accessor = tree["accessors"][index]
    view, kind = tree["bufferViews"][accessor["bufferView"]], TYPES[accessor["componentType"]]
    width = WIDTHS[accessor["type"]]
    assert view["byteOffset"] % 4 == 0 and view["byteOffset"] + view["byteLength"] <= len(chunk)
    assert view["byteLength"] == accessor["count"] * width * np.dtype(kind).itemsize
    values = np.frombuffer(chunk, kind, accessor["count"] * width, view["byteOffset"]).reshape(-1, width)
    for name, found in (("min", values.min(axis=0)), ("max", values.max(axis=0))):
        assert name not in accessor or np.array_equal(np.float32(accessor[name]), found)
    return values


def play(tree: dict, chunk: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, and the place (frames, joints, 3) and turn (frames, joints, 3, 3) of the joints that are animated."""
    (animation,) = tree["animations"]
    tracks, times = {}, None
    for channel in animation["channels"]:
        sampler = animation["samplers"][channel["sampler"]]
        times = read_accessor(tree, chunk, sampler["input"])[:, 0]
        values = read_accessor(tree, chunk, sampler["output"])
        assert len(values) == len(times) and sampler["interpolation"] == "LINEAR"
        tracks[channel["target"]["node"], channel["target"]["path"]] = values.astype(np.float64)
    joints = tree["skins"][0]["joints"]
    places, turns = np.zeros((2, len(times), len(joints), 3)), np.zeros((len(times), len(joints), 3, 3))

    def visit(node: int, place, turn) -> None:
        offset = tracks.get((node, "translation"), np.array(tree["nodes"][node]["translation"]))
        place = place + (turn @ np.broadcast_to(offset, (len(times), 3))[..., None])[..., 0]
        turn = turn @ Rotation.from_quat(tracks[node, "rotation"]).as_matrix()
        places[0, :, joints.index(node)], turns[:, joints.index(node)] = place, turn
        for child in tree["nodes"][node].get("children", ()):
            visit(child, place, turn)

    visit(joints[0], np.zeros((len(times), 3)), np.tile(np.eye(3), (len(times), 1, 1)))
    return times, places[0], turns


def deform(tree: dict, chunk: bytes, places: np.ndarray, turns: np.ndarray) -> dict[str, np.ndarray]:
    """Points (frames, points, 3) of the skinned mesh by the name of their material."""
    skin = tree["skins"][0]
    unbind = read_accessor(tree, chunk, skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(-1, -2)
    found = {}
    for primitive in tree["meshes"][0]["primitives"]:
        values = {name: read_accessor(tree, chunk, index) for name, index in primitive["attributes"].items()}
        owners = values["JOINTS_0"][:, 0]
        assert np.array_equal(values["WEIGHTS_0"], np.eye(4)[np.zeros(len(owners), int)])
        assert np.allclose(np.linalg.norm(values["NORMAL"], axis=-1), 1, atol=1e-6)
        triangles = read_accessor(tree, chunk, primitive["indices"]).reshape(-1, 3)
        corners, outwards = values["POSITION"][triangles], values["NORMAL"][triangles].mean(axis=1)
        faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        assert ((faces * outwards).sum(-1) > 0).all()  # seen from outside anticlockwise
        points = np.concatenate([values["POSITION"], np.ones((len(owners), 1))], axis=1)
        local = (unbind[owners] @ points[..., None])[:, :3, 0]
        moved = (turns[:, owners] @ local[..., None])[..., 0] + places[:, owners]
        found[tree["materials"][primitive["material"]]["name"]] = moved
    return found


def test_animation_brings_the_joints_back_in_metres(synthetic_clips, tmp_path):
    clip = synthetic_clips[0] + (1.0, 0.0, 2.0)
    tree, chunk = read_chunks(export_motion(clip, tmp_path / "a.glb", caption="a person walks <b>"))
    times, places, _ = play(tree, chunk)
    assert np.linalg.norm(places - clip, axis=-1).max() < 1e-5
    assert np.allclose(times, np.arange(len(clip)) / 20)
    names = [tree["nodes"][node]["name"] for node in tree["skins"][0]["joints"]]
    assert tuple(names) == get_motion_representation("humanml3d").joint_names
    assert tree["scenes"][0]["extras"] == {"fps": 20, "representation": "humanml3d", "caption": "a person walks <b>"}


def test_real_motion_comes_back(real_clips, tmp_path):
    for clip in real_clips[:4]:
        _, places, _ = play(*read_chunks(export_motion(clip, tmp_path / "a.glb")))
        assert np.linalg.norm(places - clip, axis=-1).max() < 1e-3


def test_file_holds_to_the_format(synthetic_clips, tmp_path):
    path = export_motion(synthetic_clips[0], tmp_path / "a.glb")
    tree, chunk = read_chunks(path)
    assert tree["asset"]["version"] == "2.0" and tree["buffers"] == [{"byteLength": len(chunk)}]
    for index in range(len(tree["accessors"])):
        assert np.isfinite(read_accessor(tree, chunk, index)).all()
    assert [view["bufferView"] for view in tree["accessors"]] == list(range(len(tree["bufferViews"])))
    children = [child for node in tree["nodes"] for child in node.get("children", ())]
    roots = tree["scenes"][0]["nodes"]
    assert sorted(children + roots) == list(range(len(tree["nodes"])))  # one tree a root, nothing twice
    for primitive in tree["meshes"][0]["primitives"]:
        position = tree["accessors"][primitive["attributes"]["POSITION"]]
        assert {"min", "max"} <= position.keys()
        triangles = read_accessor(tree, chunk, primitive["indices"])
        assert triangles.max() == position["count"] - 1 and len(triangles) % 3 == 0
    for sampler in tree["animations"][0]["samplers"]:
        assert {"min", "max"} <= tree["accessors"][sampler["input"]].keys()
    with pytest.warns(UserWarning, match="provisional"):
        validate(pygltflib.GLTF2().load(path))


@pytest.mark.parametrize("representation", ["humanml3d", "kitml"])
def test_body_moves_with_its_bones_in_the_colours_of_the_sides(representation, synthetic_clips, tmp_path):
    skeleton = get_motion_representation(representation)
    motion = synthetic_clips[1][:20]
    if representation == "kitml":
        pose = np.zeros((21, 3))
        for joint in skeleton.outward_order:
            pose[joint] = pose[skeleton.parents[joint]] + 200 * np.array(skeleton.raw_offsets[joint])
        motion = np.tile(pose * (-1, 1, 1), (3, 1, 1))
    path = export_motion(motion, tmp_path / "a.glb", representation=representation)
    tree, chunk = read_chunks(path)
    _, places, turns = play(tree, chunk)
    mesh = deform(tree, chunk, places, turns)
    metres = motion * skeleton.unit_in_metres
    for side, joints in (("left", skeleton.left_joints), ("right", skeleton.right_joints)):
        away = np.linalg.norm(mesh[side][:, :, None] - metres[:, None, list(joints)], axis=-1)
        assert away.min(axis=1).max() < 0.03  # at every joint of the side, in every frame, there is a rod's end
    everything = np.concatenate(list(mesh.values()), axis=1)
    bones = np.array([bone for chain in skeleton.kinematic_chains for bone in itertools.pairwise(chain)])
    starts, along = metres[:, bones[:, 0]], metres[:, bones[:, 1]] - metres[:, bones[:, 0]]
    from_start = everything[:, :, None] - starts[:, None]
    share = (from_start * along[:, None]).sum(-1) / (along**2).sum(-1)[:, None]
    away = np.linalg.norm(from_start - np.clip(share, 0, 1)[..., None] * along[:, None], axis=-1).min(axis=-1)
    assert np.quantile(away, 0.9, axis=1).max() < 0.026 and away.max() < 0.13  # the rods on their bones; the head
    head = metres[:, [chain[-1] for chain in skeleton.kinematic_chains][2]]
    assert (everything[..., 1].max(axis=1) > head[:, 1]).all()
    colours = {material["name"]: material["pbrMetallicRoughness"]["baseColorFactor"] for material in tree["materials"]}
    for side, colour in (("left", LEFT), ("right", RIGHT)):
        linear = np.array(colours[side][:3])
        back = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
        assert np.allclose(255 * back, colour, atol=0.6)


def test_one_frame_is_a_pose(synthetic_clips, tmp_path):
    times, places, _ = play(*read_chunks(export_motion(synthetic_clips[0][:1], tmp_path / "a.glb")))
    assert times.tolist() == [0] and np.linalg.norm(places - synthetic_clips[0][:1], axis=-1).max() < 1e-5
