"""Stick figures of motions: an animated GIF, an MP4, or a strip of poses for a page.

Pictures are drawn with Pillow under an orthographic camera: many times faster than a 3-d matplotlib axis.
"""

import functools
import itertools
import math
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from tqdm.auto import tqdm

from ..models.motion_representation import MotionRepresentation, get_motion_representation
from .clip import check_fps, joints_in_metres
from .output import check_output_path, write_aside

Colour = tuple[int, int, int]

BACKGROUND: Colour = (255, 255, 255)
FLOOR: tuple[Colour, Colour] = ((236, 239, 243), (245, 247, 249))
SHADOW: Colour = (205, 210, 218)
TEXT: Colour = (31, 41, 55)
MUTED_TEXT: Colour = (107, 114, 128)
TRAIL: Colour = (16, 163, 127)
LEFT: Colour = (37, 99, 235)
RIGHT: Colour = (234, 88, 12)
CENTRE: Colour = (51, 65, 85)

SUPERSAMPLING = 2  # drawn this many times larger, then averaged: Pillow's strokes are not antialiased
MARGIN = 16  # pixels, as are the next three
TITLE_SIZE, TITLE_LEADING, LABEL_SIZE = 18, 26, 13
FOOTER = 32
STRIP_HEIGHT = 240
FLOOR_TILE, FLOOR_BORDER = 0.5, 0.4  # metres; tiles double in size until MOST_TILES reach along the path
MOST_TILES = 32
BONE_WIDTH, HEAD_RADIUS = 0.05, 0.09  # metres
SMALLEST_FIGURE = 0.2  # of the picture's height: on longer paths the camera pans instead of drawing back further
MOST_TITLE_LINES = 3
MOST_GIF_FPS = 50
MOST_GIF_FRAMES = 3000  # all are in memory, 0.3 MB each, until the file is written
LONG_CLIP = 600  # frames; drawing them takes so long that a terminal sees a progress bar
VIDEO_QUALITY = "20"  # constant rate factor of H.264; flat colours need little


def animate_motion(
    joints: np.ndarray | torch.Tensor,
    path: str | os.PathLike,
    *,
    caption: str | None = None,
    representation: str = "humanml3d",
    fps: float | None = None,
    every: int | None = None,
    size: tuple[int, int] = (640, 480),
) -> Path:
    """Write an animated GIF or an MP4 of a stick figure on a tiled floor, with its root's path traced on the floor.

    Args:
        joints: positions (frames, joints, 3), Y up, in the representation's unit of length.
        path: file to write, `.gif` or `.mp4`; the latter takes PyAV, `pip install 'geomotiongpt[video]'`.
        caption: title above the picture, wrapped to its width.
        representation: name of the skeleton.
        fps: frames a second of `joints`; the representation's own by default.
        every: draw every n-th frame; the speed of the motion stays the same. By default every one, of a GIF as many as
            viewers play (50 a second) and memory holds (3000).
        size: width and height in pixels, at least 160 each; of an MP4 even.

    Returns:
        The path written.

    Raises:
        ValueError: on another shape, a joint that is not finite, another suffix, an MP4 without PyAV, or `every` too
            small for a GIF.
    """
    return animate_motions(
        [joints], path, captions=[caption], representation=representation, fps=fps, every=every, size=size
    )


def animate_motions(
    motions: Sequence[np.ndarray | torch.Tensor],
    path: str | os.PathLike,
    *,
    captions: Sequence[str | None] | None = None,
    representation: str = "humanml3d",
    fps: float | None = None,
    every: int | None = None,
    size: tuple[int, int] = (640, 480),
) -> Path:
    """Write an animated GIF or an MP4 of motions side by side, at one scale, with a caption under each.

    They start together; one that is over holds its last pose.

    Args:
        motions: positions (frames, joints, 3) of each, as of `animate_motion`. One alone has its caption above.
        path, representation, fps, every: as of `animate_motion`.
        captions: one a motion.
        size: width and height in pixels of each part.

    Returns:
        The path written.

    Raises:
        ValueError: as `animate_motion`, and without motions or with another number of captions.
    """
    path = check_output_path(path, (".gif", ".mp4"))
    is_gif = path.suffix.lower() == ".gif"
    skeleton = get_motion_representation(representation)
    fps = check_fps(fps, skeleton)
    if min(size) < 160 or not (is_gif or size[0] % 2 == size[1] % 2 == 0):
        raise ValueError(
            f"size must be at least 160 x 160 pixels{'' if is_gif else ', and even'}, got {size[0]} x {size[1]}"
        )
    captions = [None] * len(motions) if captions is None else list(captions)
    if not motions or len(captions) != len(motions):
        raise ValueError(
            f"got {len(captions)} captions for {len(motions)} motions; give one motion or more, and one a motion"
        )
    clips = [stand_on_floor(joints_in_metres(motion, skeleton), skeleton) for motion in motions]
    num_frames = max(map(len, clips))
    least = max(math.ceil(fps / MOST_GIF_FPS), -(-num_frames // MOST_GIF_FRAMES), 1) if is_gif else 1
    every = least if every is None else every
    if every < least:
        raise ValueError(
            f"got every={every} of {num_frames} frames, {fps:g} a second; a {path.suffix} takes {least} or more"
            + (f": {MOST_GIF_FPS} frames a second and {MOST_GIF_FRAMES} in all; or write an .mp4" if is_gif else "")
        )
    picture = _Picture(clips, skeleton, fps, size, captions)
    drawn = range(0, picture.num_frames, every)
    if is_gif:
        return _write_gif(picture, drawn, path)
    return _write_mp4(picture, drawn, path)


def _write_gif(picture: "_Picture", drawn: range, path: Path) -> Path:
    # One palette for all frames: palettes of their own would flicker, and cost most of the time.
    first, last = picture.draw_frame(drawn[0]), picture.draw_frame(drawn[-1])
    sample = Image.new("RGB", (first.width, 2 * first.height))
    sample.paste(first, (0, 0))
    sample.paste(last, (0, first.height))
    palette = sample.quantize(128)
    colours = np.array(palette.getpalette()).reshape(-1, 3)
    colours[colours.mean(axis=1) > 249] = BACKGROUND  # Pillow matches colours coarsely: keep the page white
    palette.putpalette(colours.ravel().tolist())
    frames = (
        picture.draw_frame(index).quantize(palette=palette, dither=Image.Dither.NONE) for index in _progress(drawn)
    )

    # GIF counts hundredths of a second: rounding when a frame ends, not how long it lasts, keeps the clip's length.
    ends = np.rint(np.array([*drawn, picture.num_frames]) * 100 / picture.fps).astype(int)
    durations = 10 * np.diff(ends)

    def write(file: BinaryIO) -> None:
        first = next(frames)
        first.save(file, "GIF", save_all=True, append_images=frames, duration=durations.tolist(), loop=0)

    return write_aside(path, write)


def _write_mp4(picture: "_Picture", drawn: range, path: Path) -> Path:
    """H.264, which browsers and presentations play."""
    av = _video_library()
    rate = Fraction(picture.fps / drawn.step).limit_denominator(1001)

    def write(file: BinaryIO) -> None:
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=rate, options={"crf": VIDEO_QUALITY})
            stream.width, stream.height, stream.pix_fmt = *picture.size, "yuv420p"
            for index in _progress(drawn):
                container.mux(stream.encode(av.VideoFrame.from_image(picture.draw_frame(index))))
            container.mux(stream.encode())

    return write_aside(path, write)


def _progress(drawn: range) -> "tqdm[int]":
    return tqdm(drawn, "drawing", leave=False, disable=len(drawn) < LONG_CLIP or None)


def _video_library() -> ModuleType:
    try:
        import av
    except ModuleNotFoundError:
        raise ValueError("an MP4 takes PyAV: pip install 'geomotiongpt[video]', or write a .gif") from None
    return av


def draw_motion_strip(
    joints: np.ndarray | torch.Tensor,
    path: str | os.PathLike,
    *,
    caption: str | None = None,
    num_poses: int = 8,
    representation: str = "humanml3d",
    fps: float | None = None,
) -> Path:
    """Write a PNG of poses side by side, evenly spaced from the first frame to the last, each with its time.

    Args:
        joints: positions (frames, joints, 3), Y up, in the representation's unit of length.
        path: file to write, `.png`.
        caption: title above the poses, wrapped to the picture's width.
        num_poses: poses to draw; a clip of fewer frames shows each frame once.
        representation: name of the skeleton.
        fps: frames a second of `joints`; the representation's own by default.

    Returns:
        The path written.

    Raises:
        ValueError: on another shape, a joint that is not finite, another suffix, or `num_poses` or `fps` not positive.
    """
    path = check_output_path(path, (".png",))
    skeleton = get_motion_representation(representation)
    fps = check_fps(fps, skeleton)
    if num_poses < 1:
        raise ValueError(f"num_poses must be positive, got num_poses={num_poses}")
    motion = stand_on_floor(joints_in_metres(joints, skeleton), skeleton)
    frames = np.unique(np.rint(np.linspace(0, len(motion) - 1, num_poses)).astype(int))
    poses = motion[frames]
    poses[..., [0, 2]] -= poses[:, :1, [0, 2]]  # every figure on a spot of its own

    low, high = _bounds(poses)
    bottom, top = low[:, 1].min(), high[:, 1].max()
    scale = STRIP_HEIGHT / max(top - bottom, 1.0)
    cells = scale * (high - low)[:, 0] + 2 * MARGIN
    width = max(round(cells.sum()) + 2 * MARGIN, 480)
    cells += (width - 2 * MARGIN - cells.sum()) / len(cells)
    middles = MARGIN + np.cumsum(cells) - cells / 2

    title = _wrap(caption, width - 2 * MARGIN)
    head = 2 * MARGIN + TITLE_LEADING * len(title)
    pen = _Pen((width, head + round(scale * (top - bottom)) + MARGIN + FOOTER))
    pen.title(title, MARGIN)
    for index, pose, middle, centre in zip(frames, poses, middles, (low + high)[:, 0] / 2, strict=True):
        view = _View(scale, np.array([middle - scale * centre, head + scale * top]))
        _draw_shadow(pen, pose, skeleton, view)
        _draw_figure(pen, pose, skeleton, view)
        pen.text((middle, pen.size[1] - FOOTER / 2), f"{index / fps:.1f} s", MUTED_TEXT, LABEL_SIZE)
    image = pen.image()
    return write_aside(path, lambda file: image.save(file, "PNG"))


class _View:
    """Orthographic camera, a little above the floor, that sees a figure facing +Z from its right front."""

    AZIMUTH, ELEVATION = np.radians(50.0), np.radians(16.0)
    TOWARDS_EYE = np.array(
        [-np.sin(AZIMUTH) * np.cos(ELEVATION), np.sin(ELEVATION), np.cos(AZIMUTH) * np.cos(ELEVATION)]
    )
    ACROSS = np.array([np.cos(AZIMUTH), 0.0, np.sin(AZIMUTH)])
    PLANE = np.stack([ACROSS, np.cross(TOWARDS_EYE, ACROSS)], axis=1)  # world -> (right, up)

    def __init__(self, scale: float, origin: np.ndarray):
        self.scale = scale  # pixels a metre
        self.origin = origin  # pixel of the world's origin

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) -> pixels (..., 2), the second counted downwards."""
        return self.origin + self.scale * (points @ self.PLANE) * (1, -1)


class _Pen:
    """A canvas drawn larger than it comes out, addressed in the pixels that come out."""

    def __init__(self, size: tuple[int, int]):
        self.size = size
        self.canvas = Image.new("RGB", (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING), BACKGROUND)
        self.draw = ImageDraw.Draw(self.canvas)

    def image(self) -> Image.Image:
        return self.canvas.reduce(SUPERSAMPLING)

    def polygon(self, corners: np.ndarray, colour: Colour) -> None:
        self.draw.polygon((corners * SUPERSAMPLING).ravel().tolist(), fill=colour)

    def line(self, points: np.ndarray, colour: Colour, width: float) -> None:
        width = max(1, round(width * SUPERSAMPLING))
        self.draw.line((points * SUPERSAMPLING).ravel().tolist(), fill=colour, width=width, joint="curve")

    def rectangle(self, low: tuple[float, float], high: tuple[float, float], colour: Colour) -> None:
        corners = [SUPERSAMPLING * value for value in (*low, *high)]
        self.draw.rectangle(corners, fill=colour)

    def bone(self, ends: np.ndarray, colour: Colour, width: float) -> None:
        self.line(ends, colour, width)
        for end in ends:
            self.dot(end, colour, width / 2)

    def dot(self, centre: np.ndarray, colour: Colour, radius: float) -> None:
        low, high = (centre - radius) * SUPERSAMPLING, (centre + radius) * SUPERSAMPLING
        self.draw.ellipse((*low.tolist(), *high.tolist()), fill=colour)

    def text(self, point: tuple[float, float], text: str, colour: Colour, size: int, anchor: str = "mm") -> None:
        place = (point[0] * SUPERSAMPLING, point[1] * SUPERSAMPLING)
        self.draw.text(place, text, colour, _font(size * SUPERSAMPLING), anchor=anchor)

    def title(self, lines: list[str], top: float) -> None:
        for row, line in enumerate(lines):
            self.text((self.size[0] / 2, top + TITLE_LEADING * (row + 0.5)), line, TEXT, TITLE_SIZE)


class _Picture:
    """Clips side by side, their captions, and a footer with the clock."""

    def __init__(
        self,
        clips: Sequence[np.ndarray],
        skeleton: MotionRepresentation,
        fps: float,
        size: tuple[int, int],
        captions: Sequence[str | None],
    ):
        self.fps, self.num_frames = fps, max(map(len, clips))
        self.size = (size[0] * len(clips), size[1])
        titles = [_wrap(caption, size[0] - 2 * MARGIN) for caption in captions]
        part, lines = (size[0], size[1] - FOOTER), max(map(len, titles))
        self.scenes = [
            _Scene(clip, skeleton, part, title, lines, above=len(clips) == 1)
            for clip, title in zip(clips, titles, strict=True)
        ]
        scale = min(scene.scale for scene in self.scenes)
        for scene in self.scenes:
            scene.scale = scale  # one for all: figures can be compared

    def draw_frame(self, index: int) -> Image.Image:
        image = Image.new("RGB", self.size, BACKGROUND)
        for column, scene in enumerate(self.scenes):
            part = scene.draw_frame(min(index, len(scene.motion) - 1))
            image.paste(part, (column * part.width, 0))
            if column:
                ImageDraw.Draw(image).line([(column * part.width, MARGIN), (column * part.width, part.height)], SHADOW)
        image.paste(self._footer(index), (0, self.size[1] - FOOTER))
        return image

    def _footer(self, index: int) -> Image.Image:
        width, line = self.size[0], FOOTER / 2
        pen = _Pen((width, FOOTER))
        for x, label, colour in ((MARGIN + 5, "left", LEFT), (MARGIN + 53, "right", RIGHT)):
            pen.dot(np.array([x, line]), colour, 5)
            pen.text((x + 10, line), label, MUTED_TEXT, LABEL_SIZE, anchor="lm")
        clock = f"{index / self.fps:.1f} of {self.num_frames / self.fps:.1f} s"
        pen.text((width - MARGIN, line), clock, MUTED_TEXT, LABEL_SIZE, anchor="rm")
        tiles = {scene.tile_width for scene in self.scenes}
        if width >= 400 and len(tiles) == 1:
            pen.text((width / 2, line), f"tiles of {tiles.pop():g} m", MUTED_TEXT, LABEL_SIZE)
        return pen.image()


class _Scene:
    """A clip on its floor, framed so that all of it stays in view, with a title above or below."""

    def __init__(
        self,
        motion: np.ndarray,
        skeleton: MotionRepresentation,
        size: tuple[int, int],
        title: list[str],
        title_lines: int,
        *,
        above: bool,
    ):
        self.motion, self.skeleton, self.size, self.title = motion, skeleton, size, title
        self.tiles, self.tile_width = _tile_floor(motion)
        title_room = TITLE_LEADING * title_lines
        self.top = MARGIN + title_room * above
        self.bottom = size[1] - title_room * (not above)
        self.title_top = MARGIN if above else self.bottom

        low, high = _bounds(motion)
        self.low, self.high = low.min(axis=0), high.max(axis=0)
        self.room = np.array([size[0] - 2 * MARGIN, self.bottom - self.top - 2 * MARGIN])
        figure = (high - low)[:, 1].max()
        self.scale = max((self.room / (self.high - self.low)).min(), SMALLEST_FIGURE * self.room[1] / max(figure, 1.0))

    def draw_frame(self, index: int) -> Image.Image:
        view = self._view(index)
        pen = _Pen(self.size)
        corners = view.project(self.tiles)
        for row, column in np.ndindex(corners.shape[:2]):
            pen.polygon(corners[row, column], FLOOR[(row + column) % 2])
        _draw_shadow(pen, self.motion[index], self.skeleton, view)
        trail = view.project(self.motion[: index + 1, 0] * (1, 0, 1))
        if index > 0:
            pen.line(trail, TRAIL, 2.5)
        pen.dot(trail[-1], TRAIL, 4)
        _draw_figure(pen, self.motion[index], self.skeleton, view)
        pen.rectangle((0, 0), (self.size[0], self.top), BACKGROUND)
        pen.rectangle((0, self.bottom), self.size, BACKGROUND)
        pen.title(self.title, self.title_top)
        return pen.image()

    def _view(self, index: int) -> _View:
        """Centre on the whole path; where that does not fit, on the root, as far as the path reaches."""
        half_view = self.room / self.scale / 2
        first, last = self.low + half_view, self.high - half_view
        root = self.motion[index, 0] @ _View.PLANE
        centre = np.where(first < last, np.clip(root, first, last), (self.low + self.high) / 2)
        middle = np.array([self.size[0] / 2, (self.top + self.bottom) / 2])
        return _View(self.scale, middle - self.scale * centre * (1, -1))


def stand_on_floor(joints: np.ndarray, skeleton: MotionRepresentation) -> np.ndarray:
    """Bring a clip in metres to where it is drawn: lowest point on the floor, facing +Z over the origin at first."""
    motion = joints - (joints[0, 0, 0], joints[..., 1].min(), joints[0, 0, 2])
    right_hip, left_hip, right_shoulder, left_shoulder = motion[0, list(skeleton.face_joints)]
    across = right_hip - left_hip + right_shoulder - left_shoulder
    heading = np.arctan2(-across[2], -across[0])  # of the body's left: +X when it faces +Z
    turned = motion.copy()
    turned[..., 0] = np.cos(heading) * motion[..., 0] + np.sin(heading) * motion[..., 2]
    turned[..., 2] = np.cos(heading) * motion[..., 2] - np.sin(heading) * motion[..., 0]
    return turned


def _bounds(motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest (frames, 2) picture coordinates, in metres, of each frame's figure, head and shadow."""
    points = np.concatenate([motion, motion * (1, 0, 1)], axis=1) @ _View.PLANE
    return points.min(axis=1) - HEAD_RADIUS, points.max(axis=1) + HEAD_RADIUS


def _tile_floor(motion: np.ndarray) -> tuple[np.ndarray, float]:
    """Corners (tiles along X, tiles along Z, 4, 3) of the tiles under the whole path, and a tile's width in metres."""
    ground = motion[..., [0, 2]].reshape(-1, 2)
    low, high = ground.min(axis=0) - FLOOR_BORDER, ground.max(axis=0) + FLOOR_BORDER
    tile = FLOOR_TILE
    while (high - low).max() > MOST_TILES * tile:
        tile *= 2
    x, z = (
        tile * np.arange(np.floor(first / tile), np.ceil(last / tile)) for first, last in zip(low, high, strict=True)
    )
    tiles = np.zeros((len(x), len(z), 4, 3))
    tiles[..., 0] = x[:, None, None] + tile * np.array([0, 1, 1, 0])
    tiles[..., 2] = z[:, None] + tile * np.array([0, 0, 1, 1])
    return tiles, tile


def _draw_shadow(pen: _Pen, pose: np.ndarray, skeleton: MotionRepresentation, view: _View) -> None:
    points = view.project(pose * (1, 0, 1))
    for bone in list_bones(skeleton):
        pen.bone(points[bone], SHADOW, max(BONE_WIDTH * view.scale, 2.0))


def _draw_figure(pen: _Pen, pose: np.ndarray, skeleton: MotionRepresentation, view: _View) -> None:
    """Draw one pose (joints, 3), the bones nearest to the eye last."""
    width = max(BONE_WIDTH * view.scale, 2.0)
    points, nearness = view.project(pose), pose @ _View.TOWARDS_EYE
    for bone in sorted(list_bones(skeleton), key=lambda bone: nearness[bone].mean()):
        pen.line(points[bone], BACKGROUND, width + 3)  # an outline keeps crossing limbs apart
        pen.bone(points[bone], _side_colour(bone[1], skeleton), width)
    pen.dot(points[head_joint(skeleton)], CENTRE, HEAD_RADIUS * view.scale)


def list_bones(skeleton: MotionRepresentation) -> list[list[int]]:
    return [[parent, child] for chain in skeleton.kinematic_chains for parent, child in itertools.pairwise(chain)]


def _side_colour(joint: int, skeleton: MotionRepresentation) -> Colour:
    if joint in skeleton.left_joints:
        return LEFT
    return RIGHT if joint in skeleton.right_joints else CENTRE


def head_joint(skeleton: MotionRepresentation) -> int:
    """The joint at the end of the chain that belongs to neither side."""
    sided = {*skeleton.left_joints, *skeleton.right_joints}
    return next(chain[-1] for chain in skeleton.kinematic_chains if chain[-1] not in sided)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # The font that comes with matplotlib: no system font is needed, and accents are covered.
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def _wrap(caption: str | None, width: int) -> list[str]:
    """Break a caption into lines of at most `width` pixels; what does not fit the last line ends in an ellipsis."""
    font = _font(TITLE_SIZE)
    lines: list[str] = []
    for word in (caption or "").split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    if len(lines) > MOST_TITLE_LINES:
        lines = [*lines[: MOST_TITLE_LINES - 1], " ".join(lines[MOST_TITLE_LINES - 1 :])]
    return [_shorten(line, font, width) for line in lines]


def _shorten(line: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line.rstrip() + "…"
