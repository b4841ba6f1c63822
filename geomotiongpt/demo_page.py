"""The page of `geomotiongpt demo`, made with Gradio and served within bounds."""

import html
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .data.import_motion import MOTION_SUFFIXES
from .demo_answers import DOWNLOADS, SKELETON_SUFFIX, MotionDemo
from .demo_guard import DemoGuard

MOST_WAITING = 16
KEEP_SECONDS = 30 * 60  # of a file that was uploaded or made
_STYLE = """
.motion iframe { display: block; width: 100%; height: 40rem; border: 1px solid var(--border-color-primary);
  border-radius: 8px; color-scheme: light; }
.dark .motion iframe { color-scheme: dark; }
.motion p { margin: 0; padding: 4rem 1rem; text-align: center; color: var(--body-text-color-subdued);
  border: 1px dashed var(--border-color-primary); border-radius: 8px; }
.caption textarea { font-size: 1.25rem; line-height: 1.4; }
.report textarea { font-family: ui-monospace, monospace; font-size: 0.8rem; white-space: pre; overflow-x: auto; }
@media (max-width: 40rem) { .motion iframe { height: 34rem; } }
"""
_NOTHING_YET = "<p>{}</p>"
_FRAME = (
    '<iframe sandbox="allow-scripts" referrerpolicy="no-referrer" title="The motion, to play and to turn" '
    'srcdoc="{}"></iframe>'
)


@contextmanager
def opened_demo(model_name: str | Path, **options: Any) -> Iterator[Any]:
    """The demo's page, as `build_demo` makes it, in a folder of its own that goes when it is closed."""
    import_gradio()  # which may be missing, and is found out sooner than a model is loaded
    with tempfile.TemporaryDirectory(prefix="geomotiongpt-demo-", ignore_cleanup_errors=True) as folder:
        yield build_demo(model_name, Path(folder).resolve(), **options)


def import_gradio() -> Any:
    """Gradio, told not to report its use to anybody."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio

    return gradio


def build_demo(model_name: str | Path, folder: Path, **options: Any) -> Any:
    """Load a model and make the page; nothing is served yet.

    Args:
        model_name: folder of a motion-language model, or its name on the Hub.
        folder: an empty one, for what is uploaded and made. Gradio is told to use it (`GRADIO_TEMP_DIR`).
        **options: of `MotionDemo`.

    Returns:
        the `gradio.Blocks`.

    Raises:
        FileNotFoundError, OSError, ValueError: as `MotionDemo`.
        ModuleNotFoundError: if Gradio is not installed.
    """
    gr = import_gradio()
    uploads = folder / "gradio"
    uploads.mkdir()
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    demo = MotionDemo(model_name, folder / "work", **options)
    with gr.Blocks(title="geomotiongpt", analytics_enabled=False, delete_cache=(60, KEEP_SECONDS)) as app:
        gr.Markdown(
            f"# Motion and language\n**{demo.name}**, a {type(demo.model).__name__}: from a motion to a caption, and "
            "from a text to a motion."
        )
        with gr.Tab("Motion to text"):
            _add_caption_tab(gr, demo)
        with gr.Tab("Text to motion"):
            _add_generate_tab(gr, demo)
    app.queue(max_size=MOST_WAITING, default_concurrency_limit=1, api_open=False)
    app.demo_folder, app.demo_limits = folder, demo.limits
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
    gr = import_gradio()
    from starlette.middleware import Middleware

    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    _, address, _ = app.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        inbrowser=False,
        prevent_thread_lock=True,
        show_error=False,  # of errors that are not ours to tell, only that there was one
        max_file_size=int(app.demo_limits.upload_megabytes * 2**20),
        app_kwargs={"middleware": [Middleware(DemoGuard, folder=app.demo_folder)]},
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        theme=theme,
        css=_STYLE,
    )
    return address


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
                report = gr.Textbox(label="Report", lines=12, max_lines=40, interactive=False, elem_classes="report")

    def describe(paths: Sequence[str]) -> tuple[str, str, str]:
        with _clear_errors(gr, demo):
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
    common = {"concurrency_id": "model", "concurrency_limit": 1}
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
            names = ", ".join(suffix.strip(".").upper() for suffix in DOWNLOADS)
            files = gr.File(label=f"Download: {names}", file_count="multiple", interactive=False)
        with gr.Column(scale=3, min_width=280):
            page = gr.HTML(_NOTHING_YET.format("The motion is shown here."), elem_classes="motion")

    def make_motion(text, seconds, seed):
        with _clear_errors(gr, demo):
            answer = demo.make(text, seconds, seed)
        return _frame(answer.page), [str(path) for path in answer.files]

    gr.on(
        [button.click, text.submit],
        make_motion,
        [text, seconds, seed],
        [page, files],
        api_name="generate",
        concurrency_id="model",
        concurrency_limit=1,
    )


@contextmanager
def _clear_errors(gr: Any, demo: MotionDemo) -> Iterator[None]:
    """What is wrong with a request is told in a line; files of requests long gone are removed before it."""
    _remove_old_files(demo.folder.parent)
    try:
        yield
    except ModuleNotFoundError as error:
        raise gr.Error(html.escape(f"{error.name} is not installed on this server."), print_exception=False) from None
    except (ValueError, FileNotFoundError) as error:
        message = " ".join(str(error).split())
        raise gr.Error(html.escape(message, quote=False), duration=20, print_exception=False) from None


def _remove_old_files(folder: Path) -> None:
    """What was made, and the empty file that Gradio leaves for each that it hands over."""
    before = time.time() - KEEP_SECONDS
    made = [path for path in (folder / "work").iterdir() if path.name != "samples"]
    left = [path for path in (folder / "gradio").iterdir() if path.is_file()]
    for path in made + left:
        if path.stat().st_mtime < before:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _frame(page: str) -> str:
    """The page in a frame that can run its own script and reach nothing of ours."""
    return _FRAME.format(html.escape(page))
