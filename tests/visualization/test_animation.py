import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geomotiongpt.models.motion_representation import get_motion_representation
from geomotiongpt.visualization import animation
from geomotiongpt.visualization.animation import LEFT, RIGHT, TRAIL, animate_motion, animate_motions, draw_motion_strip


def walk(num_frames: int = 24, representation: str = "humanml3d", speed: float = 1.2) -> np.ndarray:
    """A rest pose with swinging legs, 0.25 m a bone, that faces and walks along +Z."""
    skeleton = get_motion_representation(representation)
    pose = np.zeros((skeleton.num_joints, 3))
    offsets = 0.25 * np.asarray(skeleton.raw_offsets)
    for chain in skeleton.kinematic_chains:
        for parent, child in zip(chain, chain[1:], strict=False):
            pose[child] = pose[parent] + offsets[child]
    pose[:, 0] *= np.sign(pose[skeleton.face_joints[1], 0])  # the left side at +X: it faces +Z
    time = np.arange(num_frames) / skeleton.fps
    motion = np.repeat(pose[None], num_frames, axis=0)
    for side, joints in ((1, skeleton.left_foot), (-1, skeleton.right_foot)):
        motion[:, list(joints), 2] += side * 0.2 * np.sin(2 * np.pi * time)[:, None]
    motion[..., 2] += speed * time[:, None]
    return motion / skeleton.unit_in_metres


def read_frames(path: Path) -> tuple[np.ndarray, list[int]]:
    """All frames (frames, height, width, 3) of a GIF and their durations in milliseconds."""
    frames, durations = [], []
    with Image.open(path) as image:
        for index in range(image.n_frames):
            image.seek(index)
            frames.append(np.asarray(image.convert("RGB")).astype(np.int16))
            durations.append(image.info["duration"])
    return np.stack(frames), durations


def near(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.abs(pixels - colour).max(axis=-1) < 25


def without_legend(frames: np.ndarray) -> np.ndarray:
    return frames[:, :-32]


@pytest.mark.parametrize(("fps", "every"), [(None, 1), (30, 1), (60, 3)])
def test_gif_lasts_as_long_as_the_clip(tmp_path, fps, every):
    path = animate_motion(walk(25), tmp_path / "walk.gif", fps=fps, every=every, size=(320, 240))
    frames, durations = read_frames(path)
    assert frames.shape == (math.ceil(25 / every), 240, 320, 3)
    assert sum(durations) == pytest.approx(1000 * 25 / (fps or 20), abs=5)


@pytest.mark.parametrize(("fps", "every"), [(None, 1), (12.5, 1), (120, 4)])
def test_mp4_shows_what_the_gif_shows_at_the_same_speed(tmp_path, fps, every):
    av = pytest.importorskip("av", reason="PyAV is not installed: no MP4")
    motion = walk(25)
    path = animate_motion(motion, tmp_path / "a.mp4", caption="a walk", fps=fps, every=every, size=(320, 240))
    with av.open(str(path)) as container:
        (stream,) = container.streams
        frames = [frame.to_ndarray(format="rgb24").astype(np.int16) for frame in container.decode(stream)]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert float(stream.average_rate) == pytest.approx((fps or 20) / every)
    assert len(frames) == math.ceil(25 / every)
    gif, _ = read_frames(
        animate_motion(motion, tmp_path / "a.gif", caption="a walk", fps=20, every=every, size=(320, 240))
    )
    above_the_clock = np.abs(np.stack(frames) - gif)[:, :200]
    assert above_the_clock.mean() < 4
    figure = (np.abs(frames[-1] - LEFT).max(-1) < 40) | (np.abs(frames[-1] - RIGHT).max(-1) < 40)
    assert figure[:200].mean() > 0.003


def test_sides_of_an_mp4_are_even(tmp_path):
    with pytest.raises(ValueError, match="even, got 321 x 240"):
        animate_motion(walk(5), tmp_path / "a.mp4", size=(321, 240))
    assert not any(tmp_path.iterdir())


def test_motions_side_by_side_have_one_scale_and_captions_below(tmp_path):
    long, short = walk(16, speed=6), walk(6, speed=0)
    path = animate_motions([long, short], tmp_path / "a.gif", captions=["the long one", "the short"], size=(320, 240))
    frames, durations = read_frames(path)
    assert frames.shape == (16, 240, 640, 3) and sum(durations) == 800
    figure = near(frames[:, :180], LEFT) | near(frames[:, :180], RIGHT)
    tall = [np.ptp(np.nonzero(figure[0][:, part])[0]) for part in (slice(0, 316), slice(324, 640))]
    assert abs(tall[0] - tall[1]) < 6
    right = slice(324, 640)
    assert (frames[6:, :200, right] == frames[6, :200, right]).all()  # over: it holds its last pose
    assert (frames[1, :200, right] != frames[5, :200, right]).any()
    text = frames[0].max(axis=-1) < 120
    assert text[182:208, :316].any() and text[182:208, 324:].any() and not text[:16].any()
    alone, _ = read_frames(animate_motion(short, tmp_path / "b.gif", caption="the short", size=(320, 240)))
    assert (alone[0].max(axis=-1) < 120)[16:42].any()


def test_captions_and_motions_go_together(tmp_path):
    with pytest.raises(ValueError, match="1 captions for 2 motions"):
        animate_motions([walk(5), walk(5)], tmp_path / "a.gif", captions=["one"])
    with pytest.raises(ValueError, match="0 motions"):
        animate_motions([], tmp_path / "a.gif")
    assert not any(tmp_path.iterdir())


def test_streaming_motion_plays_at_30_frames_per_second(tmp_path):
    path = animate_motion(walk(30, "streaming272"), tmp_path / "a.gif", representation="streaming272", size=(320, 240))
    assert sum(read_frames(path)[1]) == 1000


@pytest.mark.parametrize("representation", ["humanml3d", "kitml", "streaming272"])
def test_figure_walks_across_and_stays_in_view(tmp_path, representation):
    motion = walk(20, representation, speed=4)
    path = animate_motion(motion, tmp_path / "a.gif", representation=representation, size=(320, 240))
    frames = without_legend(read_frames(path)[0])
    assert (frames[:, :4] == 255).all()  # the page stays white
    figure = near(frames, LEFT) | near(frames, RIGHT)
    assert figure.any(axis=(1, 2)).all()
    assert not figure[:, :, :8].any() and not figure[:, :, -8:].any() and not figure[:, :8].any()
    rows, columns = np.nonzero(figure[0])[0], [np.nonzero(frame)[1].mean() for frame in figure]
    assert np.ptp(rows) > 0.3 * frames.shape[1]
    assert (np.diff(columns) > 0).all()
    trail = near(frames, TRAIL).sum(axis=(1, 2))
    assert trail[-1] > 2 * trail[0]


def test_limbs_are_as_thick_in_millimetres_as_in_metres(tmp_path):
    shares = []
    for representation in ("humanml3d", "kitml"):
        path = animate_motion(walk(1, representation), tmp_path / "a.gif", representation=representation)
        frames = without_legend(read_frames(path)[0])
        shares.append((near(frames, LEFT) | near(frames, RIGHT)).mean())
    assert shares[1] > 0.5 * shares[0]


def test_camera_pans_along_a_path_too_long_to_show(tmp_path):
    motion = walk(160, speed=6)
    frames, _ = read_frames(animate_motion(motion, tmp_path / "a.gif", every=8, size=(320, 240)))
    frames = without_legend(frames)
    figure = near(frames, LEFT) | near(frames, RIGHT)
    heights = [np.ptp(np.nonzero(frame)[0]) for frame in figure]
    assert min(heights) > 0.1 * frames.shape[1]
    assert figure.any(axis=(1, 2)).all() and not figure[:, :, :4].any() and not figure[:, :, -4:].any()


def test_colours_tell_left_from_right(tmp_path):
    motion = walk(1)
    left_wrist, elbow = 20, 18
    motion[:, left_wrist] = motion[:, elbow] + (0, 1, 0)
    image = np.asarray(Image.open(draw_motion_strip(motion, tmp_path / "pose.png"))).astype(int)
    highest_left, highest_right = (np.nonzero(near(image, colour))[0].min() for colour in (LEFT, RIGHT))
    assert highest_left + 20 < highest_right


def test_picture_does_not_depend_on_where_the_clip_begins(tmp_path):
    motion = walk(20)
    turn = np.array([[0.6, 0, 0.8], [0, 1, 0], [-0.8, 0, 0.6]])
    here = Image.open(draw_motion_strip(motion, tmp_path / "here.png"))
    there = Image.open(draw_motion_strip(motion @ turn.T + (3, 1, -2), tmp_path / "there.png"))
    difference = np.abs(np.asarray(here).astype(int) - np.asarray(there)).max(axis=-1)
    assert (difference > 60).mean() < 1e-3


def test_horizontal_and_vertical_have_one_scale(tmp_path):
    # A right angle of one metre either way, square to the camera (the upright leg foreshortened by its elevation).
    motion = walk(1)
    azimuth, elevation = np.radians(50), np.radians(16)
    across = np.array([np.cos(azimuth), 0, np.sin(azimuth)])
    motion[:] = 0
    motion[0, [2, 1, 17, 16]] = ((-0.01, 0, 0), (0.01, 0, 0), (-0.01, 0, 0), (0.01, 0, 0))
    motion[0, 15] = -0.5 * across  # the head, out of the way
    motion[0, 18] = across
    motion[0, 20] = across + (0, 1 / np.cos(elevation), 0)
    image = np.asarray(Image.open(draw_motion_strip(motion, tmp_path / "pose.png"))).astype(int)
    rows, columns = np.nonzero(near(image, LEFT))
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), rel=0.05)


@pytest.mark.parametrize(("num_frames", "num_poses", "shown"), [(40, 5, 5), (3, 8, 3)])
def test_strip_shows_its_poses_side_by_side(tmp_path, num_frames, num_poses, shown):
    path = draw_motion_strip(walk(num_frames), tmp_path / "strip.png", num_poses=num_poses)
    image = np.asarray(Image.open(path)).astype(int)[:-32]
    filled = (image.min(axis=-1) < 230).any(axis=0)
    assert np.count_nonzero(np.diff(filled.astype(int)) == 1) == shown
    lowest = [
        np.nonzero(near(image[:, part], RIGHT))[0].max() for part in np.array_split(np.arange(image.shape[1]), 2)
    ]
    assert abs(lowest[0] - lowest[1]) < 12  # all on one line, however far the clip goes


def test_long_captions_stay_inside_the_picture(tmp_path):
    caption = "a person walks, " * 40 + "x" * 200
    for path in (
        animate_motion(walk(2), tmp_path / "a.gif", caption=caption, size=(320, 320)),
        draw_motion_strip(walk(2), tmp_path / "a.png", caption=caption),
    ):
        title = np.asarray(Image.open(path).convert("L"))[16:94]
        assert (title < 120).any(axis=1).sum() > 20
        assert (title[:, :10] > 240).all() and (title[:, -10:] > 240).all()


def test_tensors_draw_as_arrays_do(tmp_path):
    motion = walk(4).astype(np.float32)
    as_array = animate_motion(motion, tmp_path / "array.gif").read_bytes()
    as_tensor = animate_motion(torch.from_numpy(motion).requires_grad_(), tmp_path / "tensor.gif").read_bytes()
    assert as_array == as_tensor


@pytest.mark.parametrize("draw", [animate_motion, draw_motion_strip])
def test_unusable_joints_are_refused_and_nothing_is_written(tmp_path, draw):
    path = tmp_path / ("a.gif" if draw is animate_motion else "a.png")
    path.write_bytes(b"before")
    motion = walk(5)
    motion[3, 7, 1] = np.nan
    with pytest.raises(ValueError, match="joint 7 of frame 3"):
        draw(motion, path)
    for shape in ((5, 21, 3), (22, 3), (2, 5, 22, 3), (0, 22, 3), (5, 22, 2)):
        with pytest.raises(ValueError, match=r"\(frames, 22, 3\)"):
            draw(np.zeros(shape), path)
    with pytest.raises(ValueError, match="must end in"):
        draw(walk(5), tmp_path / "a.webm")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_gif_leaves_out_frames_that_viewers_or_memory_cannot_hold(tmp_path, monkeypatch):
    for fps, most, drawn in ((20, 3000, 25), (120, 3000, 9), (20, 10, 9), (20, 25, 25), (20, 24, 13)):
        monkeypatch.setattr(animation, "MOST_GIF_FRAMES", most)
        path = animate_motion(walk(25), tmp_path / "a.gif", fps=fps, size=(160, 160))
        frames, durations = read_frames(path)
        assert len(frames) == drawn and sum(durations) == pytest.approx(1000 * 25 / fps, abs=5)


@pytest.mark.parametrize("wrong", [{"fps": 120, "every": 2}, {"fps": 0}, {"every": 0}, {"size": (640, 20)}])
def test_unplayable_requests_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="got"):
        animate_motion(walk(5), tmp_path / "a.gif", **wrong)
    with pytest.raises(ValueError, match="num_poses"):
        draw_motion_strip(walk(5), tmp_path / "a.png", num_poses=0)
    assert not any(tmp_path.iterdir())


def test_interrupted_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = animate_motion(walk(2), tmp_path / "a.gif")
    before = path.read_bytes()

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        animate_motion(walk(3), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_real_clip(tmp_path):
    if "GEOMOTIONGPT_REAL_DATA" not in os.environ:
        pytest.skip("GEOMOTIONGPT_REAL_DATA does not name the folder of real motion data")
    reference = Path(os.environ["GEOMOTIONGPT_REAL_DATA"]) / "reference" / "humanml3d_004822.npz"
    joints = np.load(reference, allow_pickle=False)["joints"][:80]
    frames, durations = read_frames(
        animate_motion(joints, tmp_path / "a.gif", caption="a person walks", every=4, size=(320, 240))
    )
    assert len(frames) == 20 and sum(durations) == 4000
    limbs = near(without_legend(frames), LEFT) | near(without_legend(frames), RIGHT)
    assert (limbs.mean(axis=(1, 2)) > 0.005).all()
