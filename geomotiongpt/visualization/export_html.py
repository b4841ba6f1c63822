"""A motion as one HTML page that plays offline: the viewer and the motion in one file, nothing fetched.

The page is the three files of `viewer_page/` put together. Its content security policy lets nothing run but that
script, by its hash; captions reach the page as JSON without `<`, `>` and `&`, and the script sets them as text.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .animation import head_joint, list_bones, stand_on_floor
from .clip import Clip
from .output import write_aside

PAGE = Path(__file__).with_name("viewer_page")


def export_html(
    clips: Sequence[Clip],
    path: Path,
    *,
    codes: Sequence[Sequence[int] | None],
    frames_per_code: float | None,
) -> Path:
    """Write the page.

    Args:
        clips: one motion, or several of one skeleton side by side.
        path: file to write.
        codes: motion tokens of each, or None.
        frames_per_code: frames that a token covers; by default a motion's tokens share its frames evenly.

    Raises:
        ValueError: for codes that are not whole numbers >= 0, or frames_per_code that is not positive.
    """
    skeleton = clips[0].skeleton
    data = {
        "fps": clips[0].fps,
        "bones": list_bones(skeleton),
        "sides": [
            "left" if joint in skeleton.left_joints else "right" if joint in skeleton.right_joints else "centre"
            for joint in range(skeleton.num_joints)
        ],
        "head": head_joint(skeleton),
        "motions": [_motion(clip, tokens, frames_per_code) for clip, tokens in zip(clips, codes, strict=True)],
    }
    text = _fill(data, _title(clips))
    return write_aside(path, lambda file: file.write(text.encode("utf-8", "replace")))


def _title(clips: Sequence[Clip]) -> str:
    if len(clips) == 1:
        return clips[0].caption or "A motion"
    return f"{len(clips)} motions side by side"


def _motion(clip: Clip, codes: Sequence[int] | None, frames_per_code: float | None) -> dict[str, Any]:
    joints = stand_on_floor(clip.joints, clip.skeleton)
    motion = {
        "caption": clip.caption,
        "frames": len(joints),
        "joints": base64.b64encode(joints.astype("<f4").tobytes()).decode(),
    }
    if codes is None:
        return motion
    values = np.asarray(codes)
    if values.ndim != 1 or not len(values) or values.dtype.kind not in "iu" or values.min() < 0:
        raise ValueError(f"codes must be whole numbers >= 0, one a motion token, got {str(list(codes))[:60]}")
    length = len(joints) / len(values) if frames_per_code is None else frames_per_code
    if not 0 < length < float("inf"):
        raise ValueError(f"frames_per_code must be positive, got {frames_per_code}")
    return motion | {"codes": values.tolist(), "framesPerCode": length}


def _fill(data: dict[str, Any], title: str) -> str:
    """The page with everything in its place, in one pass: nothing that was put in is searched for marks."""
    script, style = ((PAGE / name).read_text(encoding="utf-8") for name in ("viewer.js", "style.css"))
    policy = f"default-src 'none'; img-src data:; script-src {_hash(script)}; style-src {_hash(style)}"
    text = json.dumps(data, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    parts = {
        "@POLICY@": policy,
        "@TITLE@": html.escape(title),
        "@STYLE@": style,
        "@DATA@": text,
        "@SCRIPT@": script,
    }
    page = (PAGE / "page.html").read_text(encoding="utf-8")
    return re.sub("@[A-Z]+@", lambda mark: parts[mark.group()], page)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
