"""The verb `demo` of the command line: a web page that captions motion files and makes motions of texts."""

import argparse
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

EXIT_TERMINATED = 143


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Args:
        upload_megabytes: of each file, in units of 2**20 bytes.
        seconds: of a motion to caption.
        characters: of a text to make a motion of.
        made_seconds: of a motion to make.

    Raises:
        ValueError: if one is not positive, or infinite.
    """

    upload_megabytes: float = 20
    seconds: float = 60
    characters: int = 300
    made_seconds: float = 20

    def __post_init__(self):
        for name, value in vars(self).items():
            if not 0 < value < float("inf"):
                raise ValueError(f"{name.replace('_', ' ')} is {value}; a limit is above 0 and finite.")


def add_demo(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the verb to a parser.

    Args:
        add: makes the parser of a verb of its name, function, purpose and example.
    """
    verb = add(
        "demo",
        _run,
        "a web page that captions motion files and makes motions of texts",
        "quickstart/model\n         geomotiongpt demo USER/NAME --host 0.0.0.0 --port 8000 --max-upload-mb 5",
    )
    verb.add_argument("model", help="folder of a model, or its name on the Hub")
    verb.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    verb.add_argument("--port", type=int, default=7860, help="(default: 7860)")
    verb.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: the first GPU, or the CPU)")
    usual = Limits()
    verb.add_argument(
        "--max-upload-mb", type=float, default=usual.upload_megabytes, help="of a file (default: %(default)s)"
    )
    verb.add_argument(
        "--max-seconds", type=float, default=usual.seconds, help="of a motion to caption (default: %(default)s)"
    )


def wait_for_signals() -> None:
    """Does nothing until a signal ends it.

    Handlers run in the main thread, as soon as it is awake. One that waits for a lock is not woken by a signal that
    came just before, or to another thread: Ctrl-C would be lost until the next one.
    """
    while True:
        time.sleep(0.2)


def _run(arguments: argparse.Namespace) -> int:
    limits = Limits(upload_megabytes=arguments.max_upload_mb, seconds=arguments.max_seconds)
    options = {"device": arguments.device, "limits": limits}
    from .page import build_demo, check_address, close_demo, serve_demo

    check_address(arguments.host, arguments.port)  # sooner than a model is loaded
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    app = build_demo(arguments.model, **options)
    try:
        address = serve_demo(app, host=arguments.host, port=arguments.port)
        print(f"{address} (Ctrl-C ends it)", flush=True)
        wait_for_signals()
    finally:
        close_demo(app)
    return 0
