"""Motions as files that other programs open; the suffix says which."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.import_motion import ImportedMotion
from .animation import animate_motions, draw_motion_strip
from .clip import Clip, read_clip
from .export_arrays import export_csv, export_npz
from .export_bvh import export_bvh
from .export_gltf import export_glb
from .export_html import export_html
from .output import check_output_path

Motion = np.ndarray | torch.Tensor | ImportedMotion

_WRITERS: dict[str, Callable[[Clip, Path], Path]] = {
    ".bvh": export_bvh,
    ".glb": export_glb,
    ".npz": export_npz,
    ".csv": export_csv,
}
SIDE_BY_SIDE = (".html", ".gif", ".mp4")
PART = (420, 480)  # pixels of each of several
SUFFIXES = (*SIDE_BY_SIDE, ".png", *_WRITERS)


def export_motion(
    motion: Motion | Sequence[Motion],
    path: str | os.PathLike,
    *,
    representation: str | None = None,
    caption: str | Sequence[str | None] | None = None,
    fps: float | None = None,
    codes: Sequence[Any] | None = None,
    frames_per_code: float | None = None,
) -> Path:
    """Write a motion to a file of the format that the suffix names, whole or not at all.

    - `.html`: a page that plays the motion offline, to orbit and scrub, with the motion tokens if there are `codes`
    - `.gif`, `.mp4`: stick figures; the latter takes PyAV, `pip install 'geomotiongpt[video]'`
    - `.png`: poses side by side
    - `.bvh`: skeleton and rotations in centimetres, Y up, see `export_bvh`
    - `.glb`: animated glTF 2.0 in metres, Y up, see `export_gltf`
    - `.npz`: the motion exactly, and poses in the manner of AMASS, see `export_npz`
    - `.csv`: joints in metres, a row a frame

    Positions do not say how a bone is turned about itself: rotations made of joints are the shortest, those of
    "streaming272" features are the features' own. Pictures and the page start every motion above the origin, facing
    the same way; the other formats keep its place.

    Args:
        motion: joints (frames, J, 3) in the unit of the representation, Y up, or features (frames, F), not
            normalised; or what `import_motion` gives. For `.html`, `.gif` and `.mp4` also a list of several, which
            are shown side by side.
        path: file to write.
        representation: "humanml3d", "kitml" or "streaming272": what joints or features these are. By default that for
            which motions were imported, else "humanml3d".
        caption: what the motion shows, of several one each; formats without room for it leave it out.
        fps: frames a second; the representation's own by default.
        codes: of `.html`, motion tokens as whole numbers, of several a list each (or None).
        frames_per_code: frames that a token covers; by default a motion's tokens share its frames evenly.

    Returns:
        The path written.

    Raises:
        ValueError: for another suffix, a motion of another shape or with values that are not finite, one imported for
            another representation, several motions in a file of one, `codes` in another format, or an MP4 without
            PyAV.
    """
    path = check_output_path(path, SUFFIXES)
    suffix = path.suffix.lower()
    several = isinstance(motion, (list, tuple))
    motions: list[Any] = list(motion) if isinstance(motion, (list, tuple)) else [motion]
    captions = _one_each(caption, len(motions), "caption", several and not isinstance(caption, str))
    if not motions or (len(motions) > 1 and suffix not in SIDE_BY_SIDE):
        raise ValueError(
            f"{path}: got {len(motions)} motions; give one, or several to {', '.join(SIDE_BY_SIDE)} to see them side "
            "by side"
        )
    if suffix != ".html" and not codes is frames_per_code is None:
        raise ValueError(f"{path}: codes and frames_per_code are shown by .html only; leave them out")
    motions, representation = _joints_of_imported(motions, representation)
    clips = [
        read_clip(one, representation, fps=fps, caption=said) for one, said in zip(motions, captions, strict=True)
    ]
    if suffix in _WRITERS:
        return _WRITERS[suffix](clips[0], path)
    if suffix == ".html":
        tokens = _one_each(codes, len(motions), "list of codes", several)
        return export_html(clips, path, codes=tokens, frames_per_code=frames_per_code)
    return _draw(clips, path)


def _joints_of_imported(motions: list[Any], representation: str | None) -> tuple[list[Any], str]:
    """Motions as arrays, and the representation of them all."""
    imported = [motion for motion in motions if isinstance(motion, ImportedMotion)]
    if representation is None:
        representation = imported[0].representation if imported else "humanml3d"
    for motion in imported:
        if motion.representation != representation:
            raise ValueError(
                f"{motion.report.path} was imported for {motion.representation!r}, not {representation!r}; give "
                "representation= to import_motion"
            )
    return [motion.joints if isinstance(motion, ImportedMotion) else motion for motion in motions], representation


def _draw(clips: list[Clip], path: Path) -> Path:
    """A picture of motions, by the functions that draw joints in the unit of the representation."""
    skeleton, fps = clips[0].skeleton, clips[0].fps
    joints = [clip.joints / skeleton.unit_in_metres for clip in clips]
    if path.suffix.lower() == ".png":
        return draw_motion_strip(joints[0], path, caption=clips[0].caption, representation=skeleton.name, fps=fps)
    captions = [clip.caption for clip in clips]
    return animate_motions(
        joints,
        path,
        captions=captions,
        representation=skeleton.name,
        fps=fps,
        size=(640, 480) if len(clips) == 1 else PART,
    )


def _one_each(values: Any, count: int, what: str, is_list: bool) -> list[Any]:
    """One value a motion: `values` itself is that of a single motion unless it is a list of theirs."""
    if values is None:
        return [None] * count
    found = list(values) if is_list else [values]
    if len(found) != count:
        raise ValueError(f"got {count} motions and {len(found)} for them; give one {what} a motion")
    return found
