"""The embedded data set: what the captions say is what the joints do."""

import hashlib
import time
from dataclasses import replace

import numpy as np
import pytest

from geomotiongpt.data.synthetic import generate_synthetic_clips, make_synthetic_dataset
from geomotiongpt.data.synthetic_actions import ACTIONS, MAX_FRAMES, MIN_FRAMES, MotionAttributes
from geomotiongpt.data.synthetic_captions import read_attributes
from geomotiongpt.data.synthetic_motion import generate_motion
from geomotiongpt.data.text_files import mirror_caption, read_captions
from geomotiongpt.models.motion_representation import (
    features_to_joints,
    get_motion_representation,
    joints_to_features,
    mirror_joints,
)

HUMANML3D = get_motion_representation("humanml3d")
L_KNEE, R_KNEE, L_TOE, R_TOE, HEAD, L_WRIST, R_WRIST = 4, 5, 10, 11, 15, 20, 21
SIDED = [(name, side) for name, action in ACTIONS.items() for side in action.sides]


@pytest.fixture(scope="module")
def clips():
    return list(generate_synthetic_clips(600, seed=3))


def make(seed=0, **attributes):
    """One clip, seen from its own start: the person at the origin looks along +z, reference body size."""
    joints = generate_motion([MotionAttributes(**attributes)], np.random.default_rng(seed))
    return canonical(joints)


def canonical(joints):
    size = np.linalg.norm(joints[0, 8] - joints[0, 5]) / HUMANML3D.target_bone_lengths[7]
    across = joints[0, 1] - joints[0, 2] + joints[0, 16] - joints[0, 17]
    across = across * (1, 0, 1) / np.hypot(across[0], across[2])
    ahead = np.array([-across[2], 0, across[0]])
    local = (joints - joints[0, 0] * (1, 0, 1)) / size
    return np.stack([local @ across, local[..., 1], local @ ahead], -1)


def heading(joints):
    """Degrees, unwrapped; to the left is positive."""
    across = joints[:, 1] - joints[:, 2]
    angle = np.rad2deg(np.unwrap(np.arctan2(-across[:, 2], across[:, 0])))
    return angle - angle[0]


def count_peaks(signal, threshold):
    above = signal > threshold
    return int((above[1:] & ~above[:-1]).sum() + above[0])


def acts_on_left(action, j):
    """How much the left side does what the action is about, less how much the right side does."""
    wrists, toes = j[:, [L_WRIST, R_WRIST]], j[:, [L_TOE, R_TOE]]
    if action == "sidestep":
        return j[-1, 0, 0]
    if action in ("turn", "spin", "circle"):
        return heading(j)[-1]
    if action in ("hop", "balance"):  # the other foot is up
        return toes[:, 1, 1].mean() - toes[:, 0, 1].mean()
    if action in ("kick", "lunge"):
        return toes[:, 0, 2].max() - toes[:, 1, 2].max()
    if action in ("wave", "raise_arm", "throw"):
        return wrists[:, 0, 1].max() - wrists[:, 1, 1].max()
    if action == "punch":
        return wrists[:, 0, 2].max() - wrists[:, 1, 2].max()
    return wrists[:, 1, 1].min() - wrists[:, 0, 1].min()  # pick_up


# -------- Captions


def test_oracle_inverts_every_caption(clips):
    for clip in clips:
        assert len({c.caption for c in clip.captions}) == 3
        readings = [read_attributes(c.caption) for c in clip.captions]
        assert readings[0] == clip.segments, clip.captions[0].caption
        for reading, line in zip(readings, clip.captions, strict=True):
            assert [(s.action, s.side) for s in reading] == [(s.action, s.side) for s in clip.segments], line.caption
            for told, shown in zip(reading, clip.segments, strict=True):
                known = {name: value for name, value in vars(told).items() if value is not None}
                assert replace(shown, **known) == shown, line.caption


def test_mirrored_captions_read_as_mirrored_attributes(clips):
    for clip in clips:
        for line in clip.captions:
            mirrored = tuple(s.mirrored() for s in read_attributes(line.caption))
            assert read_attributes(mirror_caption(line.caption)) == mirrored, line.caption


def test_captions_are_tagged_word_by_word(clips):
    for clip in clips[:200]:
        for line in clip.captions:
            words = line.caption.replace(",", "").rstrip(".").split()
            assert len(line.tokens) == len(words)
            assert all(token.count("/") == 1 and token.split("/")[1].isupper() for token in line.tokens)


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a person",
        "a person left right walks",
        "colourless green ideas sleep furiously",
        "a person walks forward walks forward",
        "a person walks walks forward",
        "a person waves",
        "a person waves with the left right hand",
        "a person kicks with both hands",
        "a person walks forward slowly quickly",
        "a person walks forward to the left",
        "a person jumps three",
        "a person jumps slowly",
        "a person jumps up twice three times",
        "a person walks forward, then",
        "a person walks forward, then the the the",
    ],
)
def test_oracle_reads_nothing_from_garbage(caption):
    assert read_attributes(caption) == ()


def test_oracle_reads_by_meaning_not_by_template():
    walk, wave = read_attributes("A person walks forward slowly for two meters, and then waves the right hand.")
    assert walk == MotionAttributes("walk", speed="slow", distance=2)
    assert wave == MotionAttributes("wave", side="right")
    assert read_attributes("someone walks in a clockwise circle") == (MotionAttributes("circle", side="right"),)


# -------- Motion


def test_bodies_are_sound(clips):
    """Bones keep their length, feet stay above the floor and planted toes where they are; nothing jerks."""
    parents = {b: a for chain in HUMANML3D.kinematic_chains for a, b in zip(chain, chain[1:], strict=False)}
    lengths = np.array(HUMANML3D.target_bone_lengths)
    slides = []
    for clip in clips:
        joints = clip.joints.astype(np.float64)
        assert MIN_FRAMES <= len(joints) <= MAX_FRAMES
        bones = np.stack([np.linalg.norm(joints[:, j] - joints[:, parents[j]], axis=-1) for j in range(1, 22)], 1)
        size = bones[0, 4] / lengths[4]
        assert 0.89 < size < 1.11
        np.testing.assert_allclose(bones, np.broadcast_to(size * lengths, bones.shape), atol=1e-5)
        assert -1e-3 < joints[..., 1].min() < 0.03, clip.segments
        acceleration = np.linalg.norm(np.diff(joints, 2, axis=0), axis=-1).max()
        assert acceleration < 0.5, clip.segments  # metres per frame per frame
        for toe in (L_TOE, R_TOE):
            planted = (joints[1:, toe, 1] < 0.005) & (joints[:-1, toe, 1] < 0.005)
            slides.append(np.linalg.norm(np.diff(joints[:, toe], axis=0), axis=-1)[planted])
    slides = np.concatenate(slides)
    assert slides.mean() < 2e-4  # 4 mm/s
    assert np.quantile(slides, 0.99) < 4e-3


@pytest.mark.parametrize("action", ACTIONS)
def test_knees_bend_forward(action):
    j = make(action=action, side=(ACTIONS[action].sides or (None,))[0])
    across = j[:, 1] - j[:, 2]
    for hip, knee, ankle in ((1, 4, 7), (2, 5, 8)):
        bend = np.cross(j[:, knee] - j[:, hip], j[:, ankle] - j[:, knee])
        assert (np.einsum("tx,tx->t", bend, across) > -1e-4).all()


@pytest.mark.parametrize(("action", "side"), SIDED)
@pytest.mark.parametrize("seed", range(4))
def test_side_is_seen(action, side, seed):
    joints = generate_motion([MotionAttributes(action, side)], np.random.default_rng(seed))
    leftness = acts_on_left(action, canonical(joints))
    mirrored = acts_on_left(action, canonical(mirror_joints(joints)))
    if side == "both":
        assert abs(leftness) < 0.15 and canonical(joints)[:, [L_WRIST, R_WRIST], 1].max(0).min() > 1.4
    else:
        assert leftness * (1 if side == "left" else -1) > 0.1
    np.testing.assert_allclose(mirrored, -leftness, atol=0.05 * max(1, abs(leftness)))


@pytest.mark.parametrize("distance", [2, 4])
@pytest.mark.parametrize(("action", "sign"), [("walk", 1), ("run", 1), ("walk_backward", -1)])
def test_distance_is_walked(action, sign, distance):
    travelled = make(action=action, distance=distance)[-1, 0] - make(action=action, distance=distance)[0, 0]
    np.testing.assert_allclose(travelled[[0, 2]], (0, sign * distance), atol=0.25)


@pytest.mark.parametrize("degrees", [90, 180])
def test_angle_is_turned(degrees):
    assert abs(heading(make(action="turn", side="left", degrees=degrees))[-1] - degrees) < 6
    assert abs(heading(make(action="turn", side="right", degrees=degrees))[-1] + degrees) < 6


def test_spins_and_circles_come_around():
    assert abs(heading(make(action="spin", side="left", count=2))[-1] - 720) < 6
    circle = make(action="circle", side="right")
    assert abs(heading(circle)[-1] + 360) < 6
    assert np.linalg.norm(circle[-1, 0] - circle[0, 0]) < 0.1 and circle[:, 0, 0].min() < -0.8


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(
    ("action", "side", "signal", "threshold"),
    [
        ("jump", None, lambda j: j[:, [L_TOE, R_TOE], 1].min(1), 0.1),
        ("jump_forward", None, lambda j: j[:, [L_TOE, R_TOE], 1].min(1), 0.1),
        ("hop", "left", lambda j: j[:, L_TOE, 1], 0.03),
        ("jumping_jack", None, lambda j: j[:, L_WRIST, 1] - j[:, HEAD, 1], 0.1),
        ("squat", None, lambda j: -j[:, 0, 1], -0.7),
        ("kick", "right", lambda j: j[:, R_TOE, 2], 0.6),
        ("punch", "right", lambda j: j[:, R_WRIST, 2], 0.4),
        ("clap", None, lambda j: -np.linalg.norm(j[:, L_WRIST] - j[:, R_WRIST], axis=-1), -0.22),
        ("walk", None, lambda j: j[:, [L_TOE, R_TOE], 1].max(1), 0.03),
        ("sidestep", "left", lambda j: j[:, L_TOE, 1], 0.03),
    ],
)
def test_repetitions_are_counted(action, side, signal, threshold, count):
    for seed in range(3):
        assert count_peaks(signal(make(seed, action=action, side=side, count=count)), threshold) == count


def test_speed_is_seen():
    def pace(speed):
        joints = make(action="walk", speed=speed, count=6)
        return np.linalg.norm(np.diff(joints[:, 0], axis=0), axis=-1).max()

    assert pace("slow") < 0.75 * pace(None) < 0.75 * 0.8 * pace("fast")


def test_segments_join_smoothly_where_the_last_one_ended():
    segments = [MotionAttributes("turn", "left", degrees=90), MotionAttributes("walk", distance=3)]
    joints = canonical(generate_motion(segments, np.random.default_rng(0)))
    np.testing.assert_allclose(joints[-1, 0, [0, 2]], (3, 0), atol=0.25)
    assert np.linalg.norm(np.diff(joints, axis=0), axis=-1).max() < 0.4


def test_too_many_segments_are_refused():
    with pytest.raises(ValueError, match="longer than 160 frames; .* fit"):
        generate_motion([MotionAttributes("circle", "left", "slow")] * 3, np.random.default_rng(0))


# -------- Data set


def test_clips_are_drawn_evenly_and_from_the_seed_alone(clips):
    again = list(generate_synthetic_clips(30, seed=3))
    for first, second in zip(clips, again, strict=False):
        assert first.captions == second.captions and first.split == second.split
        np.testing.assert_allclose(first.joints, second.joints, atol=1e-6)
    other = next(generate_synthetic_clips(1, seed=4))
    assert other.joints.shape != clips[0].joints.shape or not np.allclose(other.joints, clips[0].joints)
    starts = [clip.segments[0].action for clip in clips]
    assert max(map(starts.count, ACTIONS)) - min(map(starts.count, ACTIONS)) <= 1
    composed = {
        split: np.mean([len(c.segments) > 1 for c in clips if c.split == split]) for split in ("train", "test")
    }
    assert 0.62 < composed["train"] < 0.78 and 0.15 < composed["test"] < 0.35
    assert [sum(c.split == s for c in clips) for s in ("train", "val", "test")] == [480, 30, 90]


def test_generation_keeps_pace():
    """At least 300 clips a second on one core."""
    list(generate_synthetic_clips(64))
    rates = []
    for seed in range(3):
        start = time.process_time()
        assert len(list(generate_synthetic_clips(192, seed))) == 192
        rates.append(192 / (time.process_time() - start))
    assert max(rates) > 300


def digest(folder):
    return {
        p.relative_to(folder): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


def test_folder_is_complete_and_the_same_every_time(tmp_path):
    """Also when processes share the work."""
    make_synthetic_dataset(tmp_path / "a", 40, seed=1)
    (tmp_path / "b").mkdir()  # may be a disk of its own: it stays the same folder
    there = (tmp_path / "b").stat().st_ino
    make_synthetic_dataset(tmp_path / "b", 40, seed=1, num_proc=2)
    assert (tmp_path / "b").stat().st_ino == there
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]
    splits = {name: (tmp_path / "a" / f"{name}.txt").read_text().split() for name in ("train", "val", "test")}
    assert {name: len(ids) for name, ids in splits.items()} == {"train": 64, "val": 4, "test": 12}
    clips = {clip.motion_id: clip for clip in generate_synthetic_clips(40, seed=1)}
    for name, ids in splits.items():
        for motion_id in ids:
            clip, mirrored = clips[motion_id[-6:]], motion_id.startswith("M")
            assert clip.split == name
            features = np.load(tmp_path / "a" / "new_joint_vecs" / f"{motion_id}.npy", allow_pickle=False)
            joints = mirror_joints(clip.joints) if mirrored else clip.joints
            np.testing.assert_allclose(features, joints_to_features(joints), atol=2e-4)
            recovered = np.load(tmp_path / "a" / "new_joints" / f"{motion_id}.npy", allow_pickle=False)
            np.testing.assert_allclose(recovered, features_to_joints(features), atol=1e-5)
            captions = read_captions(tmp_path / "a" / "texts" / f"{motion_id}.txt")
            wanted = tuple(s.mirrored() for s in clip.segments) if mirrored else clip.segments
            assert read_attributes(captions[0].caption) == wanted
            assert len(captions) == 3


def test_streaming_features_are_of_the_same_motion_at_30_frames_per_second(tmp_path):
    make_synthetic_dataset(tmp_path / "steps", num_motions=20, seed=4)
    make_synthetic_dataset(tmp_path / "streaming", num_motions=20, seed=4, representation="streaming272")
    for name in ("train.txt", "val.txt", "test.txt", "texts/000003.txt", "texts/M000003.txt"):
        assert (tmp_path / "streaming" / name).read_bytes() == (tmp_path / "steps" / name).read_bytes()
    assert np.load(tmp_path / "streaming/Mean.npy").shape == (272,)
    for clip in generate_synthetic_clips(20, seed=4):
        features = np.load(tmp_path / f"streaming/new_joint_vecs/{clip.motion_id}.npy")
        assert features.shape == ((len(clip.joints) - 1) * 3 // 2 + 1, 272)
        joints = np.load(tmp_path / f"streaming/new_joints/{clip.motion_id}.npy")[::3]
        at_20 = features_to_joints(
            joints_to_features(clip.joints[::2].astype(np.float64), "streaming272"), "streaming272"
        )
        heights, expected = (
            j[: len(joints), :, 1] - j[0, 0, 1] for j in (joints, at_20)
        )  # each has a floor of its own
        np.testing.assert_allclose(heights, expected, atol=1e-5)
    with pytest.raises(ValueError, match="representation is 'kitml'; the motions have the 22 joints"):
        make_synthetic_dataset(tmp_path / "kit", num_motions=20, representation="kitml")


def test_failed_runs_leave_nothing(tmp_path, monkeypatch):
    def disk_full(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr("geomotiongpt.data.synthetic.finish_motion_folder", disk_full)
    with pytest.raises(OSError, match="no space left"):
        make_synthetic_dataset(tmp_path / "out", 20)
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match="num_motions is 5; at least 20"):
        make_synthetic_dataset(tmp_path / "out", 5)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep me")
    with pytest.raises(ValueError, match="not an empty folder"):
        make_synthetic_dataset(tmp_path / "full", 20)
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep me"
