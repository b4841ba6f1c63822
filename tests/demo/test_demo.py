"""`geomotiongpt demo`: its API, what it lets through and what not, and how it starts and ends."""

import json
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rigs import make_rig

import geomotiongpt as gm
from geomotiongpt.cli import main
from geomotiongpt.demo import Limits, guard
from geomotiongpt.demo import page as demo_page

pytest.importorskip("gradio", reason="Gradio is not installed: no demo")
httpx = pytest.importorskip("httpx", reason="httpx comes with Gradio")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def app(tiny_model_folder) -> Iterator:
    limits = Limits(upload_megabytes=1, seconds=30, characters=60, made_seconds=3)
    app = demo_page.build_demo(tiny_model_folder, device="cpu", limits=limits)
    app.address = demo_page.serve_demo(app, port=None).rstrip("/")
    yield app
    demo_page.close_demo(app)
    assert not app.demo_folder.exists()


@pytest.fixture(scope="module")
def web(app) -> Iterator:
    with httpx.Client(base_url=app.address, timeout=120, trust_env=False) as web:
        yield web


@pytest.fixture
def tell_tales(app, tiny_model_folder) -> tuple[str, ...]:
    """What no answer may hold: folders of this machine."""
    folders = (app.demo_folder, ROOT, Path.cwd(), Path.home(), tiny_model_folder, Path(sys.prefix), Path(os.__file__))
    return tuple(str(folder) for folder in folders if str(folder) != "/")


@pytest.fixture
def rig_file(tmp_path) -> Path:
    """A rig of three seconds."""
    return gm.write_bvh(make_rig("mixamo", 90), tmp_path / "walk.bvh")


def upload(web, path: Path):
    return web.post("/gradio_api/upload", files={"files": (path.name, path.read_bytes())})


def call(web, name: str, *data) -> tuple[str, str]:
    """How a call ends, "complete" or "error", and all that was sent."""
    started = web.post(f"/gradio_api/call/{name}", json={"data": data})
    assert started.status_code == 200, started.text
    answer = web.get(f"/gradio_api/call/{name}/{started.json()['event_id']}").text
    return re.findall(r"^event: (\w+)", answer, re.MULTILINE)[-1], answer


def file_data(place: str) -> dict:
    return {"path": place, "meta": {"_type": "gradio.FileData"}}


def test_a_file_is_captioned_over_the_api_and_no_answer_tells_a_folder(web, rig_file, tell_tales):
    uploaded = upload(web, rig_file)
    (place,) = uploaded.json()
    ended, answer = call(web, "caption", [file_data(place)])
    assert ended == "complete" and "left_hip" in answer and "walk.bvh (BVH)" in answer and "srcdoc" in answer
    file = web.get(f"/gradio_api/file={place}")
    assert file.content == rig_file.read_bytes()
    pages = [web.get(path).text for path in ("/", "/config", "/gradio_api/info", "/theme.css")]
    for text in (uploaded.text, answer, *pages, str(file.headers)):
        assert not [folder for folder in tell_tales if folder in text]


def test_a_motion_is_made_over_the_api_and_downloaded_by_its_name(web, tell_tales):
    ended, answer = call(web, "generate", "a person walks", 2, 1, "bvh")
    assert ended == "complete" and not [folder for folder in tell_tales if folder in answer]
    _, file, *_ = json.loads(re.findall(r"^data: (.*)", answer, re.MULTILINE)[-1])
    assert file["value"]["orig_name"] == "a-person-walks.bvh"
    made = web.get(f"/gradio_api/file={file['value']['path']}")
    assert made.text.startswith("HIERARCHY") and str(made.headers).count("/tmp") == 0


def test_errors_are_one_line_and_tell_no_folder(web, tmp_path, rig_file, tell_tales):
    (tmp_path / "odd.csv").write_text("time,<img src=x onerror=alert(1)>.x\n0,1\n")
    (tmp_path / "picture.png").write_text("no picture")
    np.save(tmp_path / "odd.npy", np.zeros((40, 7), np.float32))
    for name, message in (
        ("odd.csv", "got 'time, &lt;img src=x onerror=alert(1)&gt;.x'"),
        ("odd.npy", "odd.npy has shape (40, 7)"),
        ("picture.png", "Invalid file type"),
    ):
        (place,) = upload(web, tmp_path / name).json()
        ended, answer = call(web, "caption", [file_data(place)])
        assert ended == "error" and message in answer and "Traceback" not in answer and "<img" not in answer
        assert not [folder for folder in tell_tales if folder in answer]
    ended, answer = call(web, "generate", "x" * 99, 2, 0, "bvh")
    assert ended == "error" and "the text has 99 characters; it may have 60" in answer
    for data in (["walks", 2, 0, "exe"], ["walks", 99, 0, "bvh"], ["walks", 2, -1, "bvh"], [None, 2, 0, "bvh"]):
        ended, answer = call(web, "generate", *data)
        assert ended == "error" and not [folder for folder in tell_tales if folder in answer]


def test_an_error_of_our_own_making_is_not_told(app, web, rig_file, monkeypatch, capsys):
    """Whatever it says, a path for example: only that there was one."""

    def fail(*_, **options):
        raise RuntimeError(f"{ROOT}: weights on fire")

    monkeypatch.setattr("geomotiongpt.demo.answers.caption_segments", fail)
    (place,) = upload(web, rig_file).json()
    ended, answer = call(web, "caption", [file_data(place)])
    assert ended == "error" and "fire" not in answer and str(ROOT) not in answer
    assert "weights on fire" in capsys.readouterr().err, "who runs the demo is told"


def test_a_file_that_is_too_large_is_refused_before_it_is_kept(app, web, tmp_path):
    (tmp_path / "large.csv").write_bytes(b"0" * (2**20 + 1))
    before = sorted((app.demo_folder / "gradio").rglob("large.csv"))
    answer = upload(web, tmp_path / "large.csv")
    assert answer.status_code == 413 and "exceeded maximum allowed size of 1048576 bytes" in answer.text
    assert sorted((app.demo_folder / "gradio").rglob("large.csv")) == before == []


def test_many_files_at_once_or_in_all_are_refused(app, web, rig_file, tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_bytes(b"0" * (2**20 - 1000))
    parts = [("files", (f"{number}.csv", (tmp_path / "a.csv").read_bytes())) for number in range(4)]
    kept = guard.stored_bytes(app.demo_folder)
    answer = web.post("/gradio_api/upload", files=parts)
    assert answer.status_code == 413 and "2 files" in answer.text
    without_length = web.post("/gradio_api/upload", content=iter([b"x"]))
    assert without_length.status_code == 411
    chunked = [(b"content-length", b"10"), (b"transfer-encoding", b"chunked")]
    assert guard.DemoGuard(None, app.demo_folder, 2**20)._refusal_of_upload(dict(chunked))[0] == 411
    assert guard.stored_bytes(app.demo_folder) == kept
    assert web.post("/gradio_api/upload", files=parts[:2]).status_code == 200
    assert guard.stored_bytes(app.demo_folder) > kept + 2**20
    monkeypatch.setattr(guard, "MOST_STORED", kept + 2**20)
    answer = upload(web, rig_file)
    assert answer.status_code == 507 and "no room for more files now" in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file={folder}/work/samples/walk.npz",
        "/gradio_api/file={alias}/work/samples/walk.npz",
        "/gradio_api/file={alias}/gradio/../../../etc/passwd",
        "/gradio_api/file={alias}/gradio/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/gradio_api/file={alias}/gradio/none",
        "/gradio_api/file=http://127.0.0.1/x",
        "/gradio_api/proxy=http://127.0.0.1/x",
        "/gradio_api/runs",
        "/gradio_api/openapi.json",
        "/gradio_api/deep_link",
        "/monitoring",
        "/docs",
    ],
)
def test_nothing_else_is_served(path, app, web, tell_tales):
    alias = "/files".ljust(len(str(app.demo_folder)), "-")
    answer = web.get(path.format(folder=app.demo_folder, alias=alias))
    assert answer.status_code in (403, 404) and not [folder for folder in tell_tales if folder in answer.text]


@pytest.mark.parametrize("place", ["/etc/passwd", "http://127.0.0.1/x.bvh", "{folder}/gradio", "{alias}/../x", 7])
def test_a_file_that_was_not_uploaded_is_not_read(place, app, web):
    alias = "/files".ljust(len(str(app.demo_folder)), "-")
    place = place.format(folder=app.demo_folder, alias=alias) if isinstance(place, str) else place
    answer = web.post("/gradio_api/call/caption", json={"data": [[file_data(place)]]})
    assert answer.status_code == 400 and "was not uploaded to this demo" in answer.text


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[" * 100_000, b" " * (2**20 + 1)])
def test_a_request_that_is_none_is_refused(body, web):
    answer = web.post("/gradio_api/call/caption", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and answer.json()["detail"]


def test_more_requests_than_may_wait_are_told_so(app, web, monkeypatch):
    """One runs, and `MOST_WAITING` wait."""
    make = demo_page.MotionDemo.make
    monkeypatch.setattr(demo_page.MotionDemo, "make", lambda *of: time.sleep(1) or make(*of))
    joined = [
        web.post("/gradio_api/call/generate", json={"data": ["walks", 1, 0, "bvh"]})
        for _ in range(demo_page.MOST_WAITING + 3)
    ]
    assert {answer.status_code for answer in joined[: demo_page.MOST_WAITING]} == {200}
    refused = [answer for answer in joined if answer.status_code != 200]
    assert refused and all("Queue is full. Max size is 16" in answer.text for answer in refused)
    monkeypatch.undo()
    for answer in joined:
        if answer.status_code == 200:
            web.get(f"/gradio_api/call/generate/{answer.json()['event_id']}")


def test_old_files_are_removed_and_samples_and_new_ones_kept(app, web, rig_file):
    (place,) = upload(web, rig_file).json()
    kept = sorted((app.demo_folder / "work" / "samples").iterdir())
    demo_page.remove_old_files(app.demo_folder, 3600)
    assert list((app.demo_folder / "gradio").rglob("walk.bvh")) != []
    demo_page.remove_old_files(app.demo_folder, -1)
    assert list((app.demo_folder / "gradio").iterdir()) == []
    assert sorted((app.demo_folder / "work").rglob("*.npz")) == kept != []
    ended, answer = call(web, "caption", [file_data(place)])
    assert ended == "error" and str(app.demo_folder) not in answer


def test_the_page_forbids_the_browser_to_ask_elsewhere(web):
    policy = web.get("/").headers["content-security-policy"]
    assert policy.startswith("default-src 'self'") and "http" not in policy


def test_the_space_builds_the_demo_of_the_model_that_it_is_given(tiny_model_folder, monkeypatch):
    monkeypatch.setenv("GEOMOTIONGPT_MODEL", str(tiny_model_folder))
    built = runpy.run_path(str(ROOT / "hub_configs" / "space" / "app.py"))["demo"]
    named = [function.api_name for function in built.fns.values()]
    assert {"caption", "generate"} <= set(named)
    header = (ROOT / "hub_configs" / "space" / "README.md").read_text(encoding="utf-8").split("---")[1]
    installed = re.search(r"^gradio==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    assert f"\nsdk_version: {installed}\n" in header and "\napp_file: app.py\n" in header
    demo_page.close_demo(built)
    monkeypatch.delenv("GEOMOTIONGPT_MODEL")
    with pytest.raises(FileNotFoundError, match="model: no such folder"):
        runpy.run_path(str(ROOT / "hub_configs" / "space" / "app.py"))


def test_what_a_model_was_not_trained_on_is_said_and_cannot_be_asked_for(tiny_model_folder, tmp_path):
    shutil.copytree(tiny_model_folder, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "trained_tasks": ["motion-to-text"]}))
    built = demo_page.build_demo(tmp_path / "model", device="cpu")
    parts = {block.label: block for block in built.blocks.values() if getattr(block, "label", None)}
    assert parts["Motion file"].interactive and not parts["Text"].interactive
    said = [block.value for block in built.blocks.values() if type(block).__name__ == "Markdown"]
    assert "This model was not trained to make motions." in said
    assert not any("not trained to caption" in text for text in said)
    demo_page.close_demo(built)


def demo_fails(capsys, *argv) -> str:
    assert main(["demo", *map(str, argv)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    return captured.err.strip().splitlines()[-1].removeprefix("geomotiongpt demo: error: ")


def test_without_gradio_the_extra_is_named(tiny_model_folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    told = demo_fails(capsys, tiny_model_folder, "--port", 0)
    assert told == "gradio is not installed: pip install 'geomotiongpt[demo]'"


def test_what_cannot_be_served_is_said_before_the_model_is_loaded(tiny_model_folder, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot listen on port {port} of 127.0.0.1" in demo_fails(capsys, "none/such/model", "--port", port)
    assert "port 70000" in demo_fails(capsys, "none/such/model", "--port", 70000)
    assert "upload megabytes is 0" in demo_fails(capsys, "none/such/model", "--max-upload-mb", 0)
    assert "no such folder" in demo_fails(capsys, "none/such/model", "--port", 0)
    assert "device is 'gpu7'" in demo_fails(capsys, tiny_model_folder, "--port", 0, "--device", "gpu7")


def test_a_signal_that_another_thread_gets_ends_the_waiting():
    code = """
import signal, threading, time
from geomotiongpt.demo import wait_for_signals
signal.signal(signal.SIGINT, signal.default_int_handler)
def stop():
    time.sleep(0.5)  # until the main thread waits
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
threading.Thread(target=stop, daemon=True).start()
wait_for_signals()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stderr.splitlines()[-1] == "KeyboardInterrupt"


# A shell that starts the tests in the background lets its children ignore Ctrl-C.
HEEDS_INTERRUPTS = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("geomotiongpt.cli", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_ends_without_a_traceback_and_leaves_nothing(stop, code, tiny_model_folder, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", HEEDS_INTERRUPTS, "demo", str(tiny_model_folder), "--port", str(port)]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONFAULTHANDLER": "1"}
    with open(tmp_path / "errors", "w+") as errors:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        late = threading.Timer(240, process.send_signal, [signal.SIGABRT])  # it says where it was
        late.start()
        try:
            line = process.stdout.readline()
            there = list(tmp_path.glob("geomotiongpt-demo-*"))
            process.send_signal(stop)
            ended = process.wait()
        finally:
            late.cancel()
            process.kill()
            process.stdout.close()
        told = (tmp_path / "errors").read_text()
    assert line == f"http://127.0.0.1:{port}/ (Ctrl-C ends it)\n" and there, told
    assert ended == code and "Traceback" not in told, told
    assert list(tmp_path.glob("geomotiongpt-demo-*")) == []
