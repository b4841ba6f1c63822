"""The page as a file: what it holds, how large it is, and that no caption breaks out of it."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from geomotiongpt import export_motion, joints_to_features

WILD = (
    "a \"person\" </script><script>alert(1)</script> & <img src=x onerror=alert(2)> 'quoted' "
    "\u2028line\u2029 separators --> ]]> @DATA@ @SCRIPT@ \\u003c ünïcode 歩く 🚶"
)


class Page(HTMLParser):
    """Elements with their attributes, and the text of each element, in order."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.texts: list[tuple[str, str]] = []
        self.stack: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "input"):  # these have no end
            self.stack.append(tag)

    def handle_endtag(self, tag):
        while self.stack and self.stack.pop() != tag:
            pass

    def handle_data(self, data):
        if self.stack:
            self.texts.append((self.stack[-1], data))

    def text_of(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


def read_page(path: Path) -> tuple[Page, dict]:
    page = Page(path.read_text(encoding="utf-8"))
    scripts = page.text_of("script")
    assert len(scripts) == 2
    return page, json.loads(scripts[0])


def test_page_holds_the_motion_above_the_origin_facing_z(synthetic_clips, tmp_path):
    turn = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    joints = synthetic_clips[0] @ turn.T + (4, 1, -3)
    _, data = read_page(export_motion(joints, tmp_path / "a.html", caption="walks", fps=25))
    (motion,) = data["motions"]
    found = np.frombuffer(base64.b64decode(motion["joints"]), "<f4").reshape(-1, 22, 3)
    assert motion["frames"] == len(found) == len(joints) and data["fps"] == 25
    assert motion["caption"] == "walks" and "codes" not in motion
    assert np.allclose(found[0, 0, [0, 2]], 0, atol=1e-6) and found[..., 1].min() == pytest.approx(0, abs=1e-6)
    across = found[0, 1] - found[0, 2] + found[0, 16] - found[0, 17]
    assert across[0] > 0.3 and across[2] == pytest.approx(0, abs=1e-5)
    lengths = [np.linalg.norm(clip[:, 4] - clip[:, 1], axis=-1) for clip in (found, joints)]
    assert np.allclose(*lengths, atol=1e-5)
    assert len(data["bones"]) == 21 and data["sides"][20:] == ["left", "right"] and data["head"] == 15


@pytest.mark.parametrize("caption", [WILD, "</script>", "<!--<script>", "\ud800 half a character", ""])
def test_captions_do_not_break_out(caption, synthetic_clips, tmp_path):
    path = export_motion(synthetic_clips[0][:5], tmp_path / "a.html", caption=caption)
    page, data = read_page(path)
    assert data["motions"][0]["caption"] == caption
    plain = read_page(export_motion(synthetic_clips[0][:5], tmp_path / "b.html", caption="plain"))[0]
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    title = "".join(page.text_of("title"))
    assert title == (caption.replace("\ud800", "?") or "A motion")


def test_page_runs_its_own_script_and_fetches_nothing(synthetic_clips, tmp_path):
    path = export_motion(synthetic_clips[0][:5], tmp_path / "a.html", caption=WILD)
    page, _ = read_page(path)
    policy = next(
        attributes["content"]
        for tag, attributes in page.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    script, style = page.text_of("script")[1], "".join(page.text_of("style"))
    for what, text in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{what} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    for tag, attributes in page.elements:
        addresses = [value for name, value in attributes.items() if name in ("src", "href", "action", "srcset")]
        assert addresses == (["data:,"] if tag == "link" else [])
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"https?:|@import|url\(|fetch\(|XMLHttpRequest|import\(", script + style)


def test_page_of_ten_seconds_is_small(tmp_path):
    joints = np.random.default_rng(0).normal(size=(300, 22, 3))
    path = export_motion(
        joints, tmp_path / "a.html", representation="streaming272", codes=list(range(75)), frames_per_code=4
    )
    assert path.stat().st_size < 300_000


def test_tokens_lie_on_the_frames_that_they_stand_for(synthetic_clips, tmp_path):
    features = joints_to_features(synthetic_clips[0])[:39]
    even = read_page(export_motion(features, tmp_path / "a.html", codes=[3, 1, 4]))[1]["motions"][0]
    assert even["codes"] == [3, 1, 4] and even["framesPerCode"] == 13
    path = export_motion(features, tmp_path / "a.html", codes=np.array([3, 1, 4, 1]), frames_per_code=8)
    assert read_page(path)[1]["motions"][0]["framesPerCode"] == 8


def test_page_shows_several_motions(synthetic_clips, tmp_path):
    path = export_motion(synthetic_clips[:2], tmp_path / "a.html", caption=["one", "two"], codes=[[5], None])
    page, data = read_page(path)
    assert [motion["caption"] for motion in data["motions"]] == ["one", "two"]
    assert ["codes" in motion for motion in data["motions"]] == [True, False]
    assert page.text_of("h1") == ["2 motions side by side"]


def test_controls_have_names(synthetic_clips, tmp_path):
    page, _ = read_page(export_motion(synthetic_clips[0][:5], tmp_path / "a.html"))
    assert ("html", {"lang": "en"}) in page.elements
    assert any(tag == "meta" and values.get("name") == "viewport" for tag, values in page.elements)
    timeline = next(values for tag, values in page.elements if values.get("id") == "timeline")
    assert timeline["type"] == "range" and timeline["aria-label"]
    assert [text.strip() for text in page.text_of("button") if text.strip()] == ["Play", "Reset view"]
    labels = [text.strip() for text in page.text_of("label") if text.strip()]
    assert labels == ["Speed", "Follow"]
