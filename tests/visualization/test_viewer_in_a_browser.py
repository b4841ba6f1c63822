"""The page in a real browser: it plays, scrubs, orbits, tells the tokens, and asks nothing of the network."""

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from geomotiongpt import export_motion

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: no browser")

CAPTION = 'a "person" walks </script><script>document.title = "broken"</script> & waves \u2028 歩く'
CODES = [7, 300, 7, 12, 511]


@pytest.fixture(scope="module")
def page_path(synthetic_clips, tmp_path_factory):
    """Forty frames, two seconds, a token each eight."""
    path = tmp_path_factory.mktemp("viewer") / "a.html"
    return export_motion(synthetic_clips[0][:40], path, caption=CAPTION, codes=CODES, frames_per_code=8)


@contextmanager
def opened(browser, path, **options) -> Iterator:
    """A page that must not fail, nor ask for anything but itself."""
    context = browser.new_context(**{"reduced_motion": "reduce", "viewport": {"width": 900, "height": 700}, **options})
    page, failures, requests = context.new_page(), [], []
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("console", lambda message: failures.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    yield page
    assert failures == [] and [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    context.close()


def picture(page, index: int = 0) -> np.ndarray:
    """Pixels (height, width, 4) of a canvas, once what was asked for is drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    address = page.locator("canvas").nth(index).evaluate("(canvas) => canvas.toDataURL()")
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGBA")).astype(np.int16)


def near(pixels: np.ndarray, colour: str) -> np.ndarray:
    wanted = [int(colour[index : index + 2], 16) for index in (1, 3, 5)]
    return (np.abs(pixels[..., :3] - wanted).max(axis=-1) < 12) & (pixels[..., 3] > 250)


LEFT, RIGHT, TRAIL = "#2563eb", "#ea580c", "#0e8f6f"


def frame_of(page) -> int:
    return int(page.locator("#timeline").input_value())


def wait_for(page, reached: Callable[[int], bool]) -> None:
    """Until the frame shown is the right one. (Playwright's own wait runs code that the page's policy forbids.)"""
    for _ in range(600):
        if reached(frame_of(page)):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"still at frame {frame_of(page)}")


def test_it_waits_for_play_and_pauses_and_goes_round(browser, page_path):
    with opened(browser, page_path) as page:
        play = page.get_by_role("button", name="Play")
        page.wait_for_timeout(300)
        assert frame_of(page) == 0
        play.click()
        wait_for(page, lambda frame: frame > 2)
        pause = page.get_by_role("button", name="Pause")
        pause.click()
        stopped = frame_of(page)
        page.wait_for_timeout(300)
        assert frame_of(page) == stopped > 2
        page.locator("#timeline").fill("39")
        page.locator("body").press("Space")
        wait_for(page, lambda frame: frame < 30)  # from the start again
        page.locator("body").press("Space")
        assert page.get_by_role("button", name="Play").is_visible()


def test_it_plays_by_itself_only_where_motion_is_welcome(browser, page_path):
    with opened(browser, page_path, reduced_motion="no-preference") as page:
        wait_for(page, lambda frame: frame > 2)
        assert page.get_by_role("button", name="Pause").is_visible()


def test_speed_is_that_of_the_motion(browser, page_path):
    """At half the speed half the frames; by the page's own clock, so that a slow machine does not count."""
    with opened(browser, page_path) as page:
        passed = page.evaluate(
            """(speed) => new Promise((done) => {
                const select = document.getElementById("speed"), line = document.getElementById("timeline");
                select.value = speed;
                select.dispatchEvent(new Event("change"));
                document.getElementById("play").click();
                requestAnimationFrame((start) => requestAnimationFrame(function wait(now) {
                    if (now - start < 1500) requestAnimationFrame(wait);
                    else requestAnimationFrame(() => done([now - start, Number(line.value)]));
                }));
            })""",
            "0.5",
        )
        assert passed[1] == pytest.approx(passed[0] / 1000 * 20 * 0.5, abs=4)


def test_scrubbing_shows_the_frame(browser, page_path):
    with opened(browser, page_path) as page:
        before = picture(page)
        page.locator("#timeline").fill("20")
        assert page.locator("#clock").inner_text() == "1.0 of 2.0 s"
        assert page.locator("#timeline").get_attribute("aria-valuetext") == "1.0 of 2.0 s"
        after = picture(page)
        assert (near(before, LEFT) != near(after, LEFT)).sum() > 50
        page.locator("#timeline").press("ArrowRight")
        assert frame_of(page) == 21
        page.locator("#timeline").press("End")
        assert frame_of(page) == 39


def test_caption_and_tokens_can_be_read(browser, page_path):
    with opened(browser, page_path) as page:
        assert page.title() == CAPTION and page.locator("h1").text_content() == CAPTION
        assert CAPTION in page.locator("canvas").get_attribute("aria-label")
        tokens = page.get_by_role("list", name="Motion tokens").locator("li")
        assert [int(tokens.nth(index).get_attribute("data-code")) for index in range(5)] == CODES
        colours = [
            tokens.nth(index).evaluate("(item) => getComputedStyle(item).backgroundColor") for index in range(5)
        ]
        assert colours[0] == colours[2] and len(set(colours)) == 4
        boxes = [tokens.nth(index).bounding_box() for index in range(5)]
        line = page.locator("#timeline").bounding_box()
        assert all(box["y"] > line["y"] for box in boxes)
        assert boxes[-1]["x"] + boxes[-1]["width"] == pytest.approx(line["x"] + line["width"] - 10, abs=2)
        assert "token 1 of 5: code 7, 0.00 to 0.40 s" in page.locator("#readout").inner_text()
        tokens.nth(1).hover()
        assert page.locator("#readout").inner_text() == "token 2 of 5: code 300, 0.40 to 0.80 s"
        page.mouse.move(5, 5)
        page.locator("#timeline").fill("33")
        assert "token 5 of 5: code 511" in page.locator("#readout").inner_text()
        assert page.locator("li.now").get_attribute("data-code") == "511"
        tokens.nth(3).click()
        assert frame_of(page) == 24


def test_figure_has_its_colours_its_path_and_a_floor(browser, page_path):
    with opened(browser, page_path) as page:
        page.locator("#timeline").fill("39")
        pixels = picture(page)
        height, width = pixels.shape[:2]
        for colour in (LEFT, RIGHT, TRAIL):
            assert near(pixels, colour).sum() > 30
        rows, columns = np.nonzero(near(pixels, LEFT) | near(pixels, RIGHT))
        assert np.ptp(rows) > 0.3 * height and 0.2 * width < columns.mean() < 0.8 * width
        assert (pixels[int(0.8 * height) :, : int(0.3 * width), 3] > 20).mean() > 0.01  # lines of the floor
        assert (pixels[: int(0.1 * height), :, 3] == 0).all()  # and none in the sky


def test_dragging_orbits_and_the_wheel_zooms(browser, page_path):
    with opened(browser, page_path) as page:
        first = picture(page)
        box = page.locator("canvas").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 150, y + 10, steps=4)
        page.mouse.up()
        turned = picture(page)
        assert (near(first, LEFT) != near(turned, LEFT)).sum() > 100
        page.mouse.move(x + 90, y)  # the button is up: nothing is dragged
        assert np.array_equal(picture(page), turned)
        page.mouse.wheel(0, -400)
        page.wait_for_timeout(100)
        closer = picture(page)
        assert (near(closer, LEFT) | near(closer, RIGHT)).sum() > 1.3 * (
            near(turned, LEFT) | near(turned, RIGHT)
        ).sum()
        page.get_by_role("button", name="Reset view").click()
        assert np.array_equal(picture(page), first)
        for _ in range(30):
            page.mouse.wheel(0, -2000)
        page.wait_for_timeout(100)
        assert (picture(page)[..., 3] > 0).any()  # inside the figure nothing fails


def test_dragging_to_the_right_turns_the_figure_to_the_right(browser, page_path):
    """What is in front follows the pointer."""
    with opened(browser, page_path) as page:
        page.locator("canvas").focus()

        def hand_over_root(picture: np.ndarray) -> float:
            columns = np.nonzero(near(picture, RIGHT))[1]
            return columns.mean() - picture.shape[1] / 2

        before = hand_over_root(picture(page))  # the right side is in front, to the left
        box = page.locator("canvas").bounding_box()
        page.mouse.move(box["x"] + 300, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + 360, box["y"] + 100, steps=3)
        page.mouse.up()
        assert hand_over_root(picture(page)) > before + 5


def test_the_keyboard_does_all_of_it(browser, page_path):
    with opened(browser, page_path) as page:
        first = picture(page)
        canvas = page.locator("canvas")
        canvas.press("ArrowLeft")
        canvas.press("ArrowUp")
        canvas.press("+")
        assert frame_of(page) == 0 and (picture(page) != first).any()
        canvas.press("0")
        assert np.array_equal(picture(page), first)
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert frame_of(page) == 2
        page.keyboard.press("End")
        assert frame_of(page) == 39
        reached = []
        for _ in range(7):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        assert {"CANVAS", "play", "speed", "follow", "reset", "timeline"} <= set(reached)


def test_several_motions_share_clock_and_camera(browser, synthetic_clips, tmp_path):
    path = export_motion(
        [synthetic_clips[0][:40], synthetic_clips[1][:10]], tmp_path / "a.html", caption=["one", "<i>two</i>"]
    )
    with opened(browser, path) as page:
        assert page.locator("figcaption").all_text_contents() == ["one", "<i>two</i>"]
        boxes = [page.locator("canvas").nth(index).bounding_box() for index in range(2)]
        assert boxes[0]["y"] == boxes[1]["y"] and boxes[1]["x"] > boxes[0]["x"] + boxes[0]["width"] - 1
        page.locator("#timeline").fill("9")
        ended = picture(page, 1)
        page.locator("#timeline").fill("35")
        assert np.array_equal(picture(page, 1), ended)
        still = [picture(page, index) for index in range(2)]
        page.locator("canvas").first.press("ArrowLeft")
        assert all((picture(page, index) != still[index]).any() for index in range(2))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_follows_the_colour_scheme(scheme, browser, page_path):
    phone = {"width": 360, "height": 740}
    with opened(browser, page_path, viewport=phone, color_scheme=scheme, has_touch=True, is_mobile=True) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        for name in ("play", "timeline", "reset"):
            box = page.locator(f"#{name}").bounding_box()
            assert box["height"] >= 35 and box["x"] >= 0 and box["x"] + box["width"] <= 360
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(18, 22, 28)")
        assert near(picture(page), LEFT if scheme == "light" else "#6ea8ff").sum() > 30


def test_one_frame_is_a_picture(browser, synthetic_clips, tmp_path):
    path = export_motion(synthetic_clips[0][:1], tmp_path / "a.html")
    with opened(browser, path, reduced_motion="no-preference") as page:
        assert near(picture(page), RIGHT).any() and page.get_by_role("button", name="Play").is_visible()
        page.locator("body").press("Space")
        page.wait_for_timeout(200)
        assert page.locator("#clock").inner_text() == "0.0 of 0.1 s"
