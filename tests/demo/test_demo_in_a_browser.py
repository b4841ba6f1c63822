"""The demo in a real browser: drop a file, read its caption, see it move; type a text, see a motion, download it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from rigs import make_rig

import geomotiongpt as gm
from geomotiongpt.demo import Limits
from geomotiongpt.demo import page as demo_page

pytest.importorskip("gradio", reason="Gradio is not installed: no demo")
sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: no browser")

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def app(tiny_model_folder) -> Iterator:
    limits = Limits(upload_megabytes=1, seconds=30, characters=60, made_seconds=3)
    app = demo_page.build_demo(tiny_model_folder, device="cpu", limits=limits)
    app.address = demo_page.serve_demo(app, port=None)
    yield app
    demo_page.close_demo(app)


@pytest.fixture
def rig_file(tmp_path) -> Path:
    """A rig of three seconds."""
    return gm.write_bvh(make_rig("mixamo", 90), tmp_path / "walk.bvh")


@contextmanager
def opened(browser, app, **options) -> Iterator:
    """The demo's page, which must not fail, ask anything of another server or be told a folder of this one."""
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 1000}, **options})
    page, failures, requests, told = context.new_page(), [], [], []

    def keep(response) -> None:
        if "/assets/" not in response.url and "/static/" not in response.url:
            told.append(response)

    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("dialog", lambda dialog: failures.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: requests.append(request.url))
    page.on("response", keep)
    page.goto(app.address)
    page.get_by_label("jump").wait_for()
    yield page
    page.wait_for_timeout(200)
    assert failures == []
    assert [url for url in requests if not url.startswith((app.address, "data:", "blob:", "about:"))] == []
    assert not [response.url for response in told if str(app.demo_folder) in response.url + str(response.headers)]
    kinds = ("application/json", "text/html", "text/plain")
    texts = [page.content(), *(one.text() for one in told if one.headers.get("content-type", "").startswith(kinds))]
    assert len(texts) > 1 and not [text for text in texts if str(app.demo_folder) in text]
    context.close()


def drop(page, *files: Path) -> None:
    page.locator("input[type=file]").first.set_input_files(list(files))


def caption(page) -> str:
    """What stands in the field of the caption, once something does."""
    field = page.get_by_label("Caption")
    for _ in range(600):
        if field.input_value():
            return field.input_value()
        page.wait_for_timeout(50)
    pytest.fail("no caption")


def message(page) -> str:
    return page.get_by_test_id("toast-body").first.inner_text()


def frame_of(page) -> int:
    return int(page.frame_locator("iframe:visible").locator("#timeline").input_value())


def test_a_dropped_file_is_captioned_and_plays(browser, app, rig_file):
    with opened(browser, app) as page:
        drop(page, rig_file)
        assert caption(page)
        viewer = page.frame_locator("iframe:visible")
        assert viewer.locator("h1").inner_text() == "walk.bvh"
        assert viewer.locator("canvas").bounding_box()["height"] > 200
        assert viewer.get_by_role("list", name="Motion tokens").locator("li").count() == 7
        seen = set()
        for _ in range(100):
            seen.add(frame_of(page))
            page.wait_for_timeout(50)
            if len(seen) > 3:
                break
        assert len(seen) > 3, "it plays by itself"
        report = page.get_by_label("Report")
        assert not report.is_visible()
        page.get_by_text("How the file was read").click()
        report.wait_for()
        assert "mixamorig:LeftUpLeg" in report.input_value() and str(rig_file.parent) not in report.input_value()


def test_the_motion_can_reach_nothing_of_the_page_around_it(browser, app):
    with opened(browser, app) as page:
        page.get_by_label("jump").check()
        page.locator("iframe").wait_for()
        assert page.locator("iframe").get_attribute("sandbox") == "allow-scripts"
        inner = page.locator("iframe").element_handle().content_frame()
        inner.locator("#timeline").wait_for()
        reach = "(() => { try { return String(parent.document.title) } catch (error) { return error.name } })()"
        assert inner.evaluate(reach) == "SecurityError"


def test_a_sample_follows_a_file_and_a_file_a_sample(browser, app, rig_file):
    with opened(browser, app) as page:
        title = page.frame_locator("iframe:visible").locator("h1")
        drop(page, rig_file)
        sync_api.expect(title).to_have_text("walk.bvh")
        page.get_by_label("kick").check()
        sync_api.expect(title).to_have_text("kick.npz")
        sync_api.expect(page.get_by_text("Drop File Here")).to_be_visible()
        drop(page, rig_file)
        sync_api.expect(title).to_have_text("walk.bvh")
        sync_api.expect(page.get_by_label("kick")).not_to_be_checked()
        page.get_by_label("Clear").first.click()
        sync_api.expect(page.get_by_label("Caption")).to_have_value("")


@pytest.mark.slow
def test_a_motion_is_made_of_a_text_and_downloaded(browser, app):
    with opened(browser, app, accept_downloads=True) as page:
        page.get_by_role("tab", name="Text to motion").click()
        page.get_by_label("Text", exact=True).fill("a person <i>walks</i>.")
        page.get_by_role("button", name="Make the motion").click()
        viewer = page.frame_locator("iframe:visible")
        sync_api.expect(viewer.locator("h1")).to_have_text("a person <i>walks</i>.")
        for name, start in (("BVH", b"HIERARCHY"), ("GLB", b"glTF"), ("NPZ", b"PK"), ("GIF", b"GIF8")):
            page.get_by_label(name, exact=True).check()
            link = page.locator(f"a[download='a-person-i-walks-i.{name.lower()}']")
            with page.expect_download() as download:
                link.click()
            assert download.value.suggested_filename == f"a-person-i-walks-i.{name.lower()}"
            assert Path(download.value.path()).read_bytes().startswith(start)


@pytest.mark.slow
def test_what_cannot_be_captioned_is_told(browser, app, rig_file, tmp_path):
    (tmp_path / "large.csv").write_bytes(b"0" * 1_100_000)
    (tmp_path / "cut.bvh").write_text(rig_file.read_text()[:-2000])
    (tmp_path / "odd.csv").write_text("time,<img src=x onerror=alert(1)>.x\n0,1\n")
    (tmp_path / "notes.txt").write_text("no motion")
    np.save(tmp_path / "long.npy", np.zeros((601, 263), np.float16))
    for name, wanted in (
        ("large.csv", 'exceed the maximum allowed size of 1.0 Mb: "large.csv"'),
        ("notes.txt", "Invalid file type: notes.txt. Only .bvh, .amc"),
        ("cut.bvh", "cut.bvh: it declares 90 frames"),
        ("odd.csv", "got 'time, <img src=x onerror=alert(1)>.x'"),
        ("long.npy", "long.npy: lasts 30.1 s; wanted at most 30 s: cut it"),
    ):
        with opened(browser, app) as page:
            drop(page, tmp_path / name)
            assert wanted in message(page)
            assert page.get_by_label("Caption").input_value() == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_follows_the_colour_scheme(scheme, browser, app):
    with opened(browser, app, color_scheme=scheme, **PHONE) as page:
        page.get_by_label("jump").check()
        viewer = page.frame_locator("iframe")
        viewer.locator("#timeline").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        for name in ("play", "timeline", "reset"):
            box = viewer.locator(f"#{name}").bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= 390
        colours = [
            place.evaluate("(element) => getComputedStyle(element).backgroundColor")
            for place in (page.locator("body"), viewer.locator("body"))
        ]
        lightness = [max(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours]
        assert min(lightness) > 240 if scheme == "light" else max(lightness) < 50
