"""The page of `geomotiongpt demo`, made with Gradio and served within bounds."""

import html
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..data.import_motion import MOTION_SUFFIXES
from .answers import DOWNLOADS, SKELETON_SUFFIX, MotionDemo
from .guard import DemoGuard

MOST_WAITING = 16
MOST_SESSIONS = 200  # whose last motion is kept, to be written in another format
KEEP_SECONDS = 30 * 60  # a file that was uploaded or made
CLEANING_SECONDS = 30
_STYLE = """
.motion .html-container { padding: 0; }
.motion iframe { display: block; width: 100%; height: 48.5rem; border: 1px solid var(--border-color-primary);
  border-radius: 8px; }
.motion p { margin: 0; padding: 4rem 1rem; text-align: center; color: var(--body-text-color-subdued);
  border: 1px dashed var(--border-color-primary); border-radius: 8px; }
.caption textarea { font-size: 1.25rem; line-height: 1.4; }
.report textarea { font-family: ui-monospace, monospace; font-size: 0.8rem; white-space: pre; overflow-x: auto; }
@media (max-width: 40rem) { .motion iframe { height: 49rem; } }
"""
_NOTHING_YET = "<p>{}</p>"
_FRAME = (
    '<iframe sandbox="allow-scripts" referrerpolicy="no-referrer" title="The motion, to play and to turn" '
    'srcdoc="{}"></iframe>'
)


def _import_gradio() -> Any:
    """Gradio, told not to report its use to anybody."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio

    return gradio


def build_demo(model_name: str | Path, **options: Any) -> Any:
    """Load a model and make the page; nothing is served yet.

    Args:
        model_name: folder of a motion-language model, or its name on the Hub.
        **options: of `MotionDemo`.

    Returns:
        the `gradio.Blocks`. Its `demo_files`, a temporary folder, holds what is uploaded and made, and goes with it.

    Raises:
        FileNotFoundError, OSError, ValueError: as `MotionDemo`.
        ModuleNotFoundError: if Gradio is not installed.
    """
    gr = _import_gradio()
    files = tempfile.TemporaryDirectory(prefix="geomotiongpt-demo-", ignore_cleanup_errors=True)
    folder = Path(files.name).resolve()
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "gradio")
    demo = MotionDemo(model_name, folder / "work", **options)
    with gr.Blocks(title="geomotiongpt", analytics_enabled=False) as app:
        gr.Markdown(f"# Motion and language\n{html.escape(demo.name)}, a {type(demo.model).__name__}")
        with gr.Tabs(selected="caption" if demo.is_trained_on("motion-to-text") else "generate"):
            with gr.Tab("Motion to text", id="caption"):
                _add_caption_tab(gr, demo)
            with gr.Tab("Text to motion", id="generate"):
                _add_generate_tab(gr, demo)
    app.queue(max_size=MOST_WAITING, default_concurrency_limit=1, api_open=False)
    app.demo_files, app.demo_folder, app.demo_limits = files, folder, demo.limits
    return app


def serve_demo(app: Any, *, host: str = "127.0.0.1", port: int | None = 7860) -> str:
    """Serve the page in threads of its own.

    Args:
        app: of `build_demo`.
        host: address to listen on.
        port: to listen on; None for one that is free.

    Returns:
        the page's address.

    Raises:
        OSError: if the port is taken or the address is not this machine's.
    """
    gr = _import_gradio()
    from starlette.middleware import Middleware

    theme = gr.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    check_address(host, port)
    most_bytes = int(app.demo_limits.upload_megabytes * 2**20)
    _, address, _ = app.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        inbrowser=False,
        prevent_thread_lock=True,
        show_error=False,  # of errors that are not ours to tell, only that there was one
        max_file_size=most_bytes,
        app_kwargs={"middleware": [Middleware(DemoGuard, folder=app.demo_folder, most_bytes=most_bytes)]},
        state_session_capacity=MOST_SESSIONS,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        theme=theme,
        css=_STYLE,
    )
    threading.Thread(target=_keep_clean, args=(app,), daemon=True).start()
    return address


def check_address(host: str, port: int | None) -> None:
    """Raise `OSError` if nothing can be served there. (Gradio says it with advice on its own options.)"""
    try:
        with socket.create_server((host, port or 0)):
            pass
    except (OSError, OverflowError) as error:
        raise OSError(f"cannot listen on port {port} of {host} ({error}): choose others (--port, --host).") from None


def close_demo(app: Any) -> None:
    """Stop serving the page, and remove its files."""
    app.close(verbose=False)
    app.demo_files.cleanup()


def _keep_clean(app: Any) -> None:
    while app.is_running:
        remove_old_files(app.demo_folder, KEEP_SECONDS)
        time.sleep(CLEANING_SECONDS)


def remove_old_files(folder: Path, seconds: float) -> None:
    """Remove what is older, but for the samples; also the empty files that Gradio leaves."""
    before = time.time() - seconds
    for path in sorted(folder.glob("*/*/**/*"), reverse=True) + sorted(folder.glob("*/*")):
        with suppress(OSError):  # a folder that is not empty, or a file that is gone already
            if path.stat().st_ctime < before and "samples" not in path.relative_to(folder).parts[:2]:
                path.rmdir() if path.is_dir() else path.unlink()


def _add_caption_tab(gr: Any, demo: MotionDemo) -> None:
    limits, knows = demo.limits, demo.is_trained_on("motion-to-text")
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            if not knows:
                gr.Markdown("This model was not trained to caption motions.")
            files = gr.File(
                label="Motion file",
                file_count="multiple",
                file_types=[*MOTION_SUFFIXES, SKELETON_SUFFIX],
                interactive=knows,
                elem_classes="files",
            )
            gr.Markdown(
                "BVH, AMC together with its ASF, C3D, or joints as NPZ, NPY or CSV; up to "
                f"{limits.upload_megabytes:g} MB and {limits.seconds:g} s. Files are kept for half an hour at most."
            )
            sample = gr.Radio(list(demo.samples), label="Or a sample", interactive=knows)
        with gr.Column(scale=3, min_width=280):
            caption = gr.Textbox(label="Caption", lines=1, interactive=False, elem_classes="caption")
            page = gr.HTML(_NOTHING_YET.format("The motion is shown here."), elem_classes="motion")
            with gr.Accordion("How the file was read", open=False):
                report = gr.Textbox(
                    label="Report", show_label=False, container=False, lines=12, max_lines=40, elem_classes="report"
                )

    def describe(paths: Sequence[str]) -> tuple[str, str, str]:
        with _clear_errors(gr):
            answer = demo.describe(paths)
        for warning in answer.warnings:
            gr.Warning(html.escape(warning))
        return answer.caption, _frame(answer.page), answer.report

    def caption_files(files):
        if not files:
            return "", _NOTHING_YET.format("The motion is shown here."), "", None
        return *describe(files), None

    def caption_sample(sample):
        return *describe([demo.samples[sample]]), None

    shown = [caption, page, report]
    common = {"concurrency_id": "model", "concurrency_limit": 1, "show_progress_on": [page]}
    gr.on(
        [files.upload, files.delete, files.clear], caption_files, files, [*shown, sample], api_name="caption", **common
    )
    sample.input(caption_sample, sample, [*shown, files], api_name="caption_sample", **common)


def _add_generate_tab(gr: Any, demo: MotionDemo) -> None:
    limits, knows = demo.limits, demo.is_trained_on("text-to-motion")
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            if not knows:
                gr.Markdown("This model was not trained to make motions.")
            text = gr.Textbox(
                label="Text",
                placeholder="a person walks forward.",
                lines=2,
                max_length=limits.characters,
                interactive=knows,
            )
            seconds = gr.Slider(
                1, limits.made_seconds, value=min(4, limits.made_seconds), step=0.5, label="Seconds", interactive=knows
            )
            seed = gr.Number(0, label="Seed", precision=0, info="Another seed, another motion.", interactive=knows)
            button = gr.Button("Make the motion", variant="primary", interactive=knows)
            kind = gr.Radio(
                [(name.upper(), name) for name in DOWNLOADS], value="bvh", label="Format", interactive=knows
            )
            file = gr.File(label="Download", interactive=False, visible=False)
        with gr.Column(scale=3, min_width=280):
            page = gr.HTML(_NOTHING_YET.format("The motion is shown here."), elem_classes="motion")

    made = gr.State(time_to_live=KEEP_SECONDS)

    def make_motion(text, seconds, seed, kind):
        with _clear_errors(gr):
            answer = demo.make(text, seconds, seed)
            return _frame(answer.page), gr.update(value=str(demo.write(answer, kind)), visible=True), answer

    def write_again(answer, kind):
        if answer is None:
            return gr.update(visible=False)
        with _clear_errors(gr):
            return gr.update(value=str(demo.write(answer, kind)), visible=True)

    common = {"concurrency_id": "model", "concurrency_limit": 1}
    asked = [text, seconds, seed, kind]
    gr.on(
        [button.click, text.submit],
        make_motion,
        asked,
        [page, file, made],
        api_name="generate",
        show_progress_on=[page],
        **common,
    )
    kind.input(write_again, [made, kind], file, api_visibility="private", **common)


@contextmanager
def _clear_errors(gr: Any) -> Iterator[None]:
    """What is wrong with a request is told in a line."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise gr.Error(html.escape(f"{error.name} is not installed on this server."), print_exception=False) from None
    except (ValueError, FileNotFoundError) as error:
        message = " ".join(str(error).split())
        raise gr.Error(html.escape(message, quote=False), duration=20, print_exception=False) from None


def _frame(page: str) -> str:
    """The page in a frame that can run its own script and reach nothing of ours."""
    return _FRAME.format(html.escape(page))
