"""What the command owes a terminal: one line for a mistake, a stop in good order, completions; all without torch."""

import argparse
import atexit
import io
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

EXIT_BAD_INPUT, EXIT_NO_READER = 2, 128 + 13  # what a shell reports of a program that SIGPIPE ended
SHELLS = ("bash", "zsh", "fish")
# Module that only some verbs need -> the extra of setup.py that installs it.
EXTRAS = {
    "av": "video",
    "bert_score": "bert-score",
    "c3d": "mocap",
    "evaluate": "evaluation",
    "gradio": "demo",
    "pycocoevalcap": "evaluation",
    "rouge_score": "evaluation",
    "sacrebleu": "evaluation",
    "vector_quantize_pytorch": "baselines",
}
_PROGRESS_SWITCHES = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")
_PATIENCE = 1.0  # seconds in which a second signal is the first one again: launchers pass on what the terminal sent


def positive(text: str) -> int:
    """A whole number above 0, as a type of arguments."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


class CommandParser(argparse.ArgumentParser):
    """An `ArgumentParser` whose help may be read by a program that stops reading."""

    def exit(self, status: int = 0, message: str | None = None):
        """Ends the command."""
        if message:
            self._print_message(message, sys.stderr)
        sys.exit(status if _flush_output() else EXIT_NO_READER)


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Shows every default, once, and says what kind of value an option takes where nothing else does."""

    _METAVARS = {int: "N", positive: "N", float: "X", Path: "PATH"}

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_default = action.option_strings and action.default not in (None, False, argparse.SUPPRESS)
        if has_default and "(default: " not in (action.help or ""):
            return f"{action.help or ''} (default: %(default)s)".strip()
        return action.help

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return self._METAVARS.get(action.type) or super()._get_default_metavar_for_optional(action)  # type: ignore


class PrintCompletion(argparse.Action):
    """Prints what makes a shell complete the command, and ends."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Marks what takes a file, and prints."""
        import shtab

        for verb in [parser, *_verbs(parser).values()]:
            for action in verb._actions:
                if action.nargs != 0 and action.choices is None and action.type in (None, Path):
                    action.complete = shtab.FILE
        parser._print_message(shtab.complete(parser, values) + "\n", sys.stdout)
        parser.exit()


def _verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    actions = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return next(actions).choices


def run_verb(parse: Callable[[], argparse.Namespace]) -> int:
    """Runs a verb.

    Args:
        parse: gives `verb`, its name; `run`, its function, which takes all this and gives an exit code; and
            `when_stopped`, what to say to whoever stops it. A `KeyboardInterrupt` with a message of its own says that
            instead.

    Returns:
        the exit code: the function's; 2 after one line on standard error for what cannot be used; 130 after SIGINT
        (Ctrl-C), 143 after SIGTERM, 129 after SIGHUP; 141 where nobody reads the output any more.
    """
    stop, arguments = _Stop(), argparse.Namespace(verb=None, when_stopped=None)
    try:
        with stop:
            logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
            for noisy in ("httpx", "httpx2", "huggingface_hub", "datasets", "matplotlib", "PIL"):
                logging.getLogger(noisy).setLevel(logging.WARNING)
            logging.getLogger("huggingface_hub").propagate = False  # it prints what it has to say itself
            if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be text
                sys.stdout.reconfigure(errors="backslashreplace")
            if not _is_terminal(sys.stderr):
                for switch in _PROGRESS_SWITCHES:  # read when the libraries are imported
                    os.environ.setdefault(switch, "1")
            arguments = parse()
            from . import baselines as baselines
            from . import models as models

            code = arguments.run(arguments)
            if sys.stdout is not None:
                sys.stdout.flush()
            return code
    except KeyboardInterrupt as error:
        return stop.report(_name(arguments), str(error) or arguments.when_stopped)
    except Exception as error:
        if stop.number is not None:  # a library made another error of the interruption
            return stop.report(_name(arguments), arguments.when_stopped)
        if isinstance(error, BrokenPipeError) and not _flush_output():  # as after `| head -1`
            return EXIT_NO_READER
        message = _message_of(error)
        if message is None:
            raise
        print(f"{_name(arguments)}: {_red('error:')} {message}", file=sys.stderr)
        _flush_output()
        return EXIT_BAD_INPUT


def _name(arguments: argparse.Namespace) -> str:
    return f"geomotiongpt {arguments.verb}" if arguments.verb else "geomotiongpt"


def _message_of(error: Exception) -> str | None:
    """One line for an error that is the user's to mend; None of any other."""
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        wanted = f"'geomotiongpt[{EXTRAS[package]}]'" if package in EXTRAS else package
        return f"{package} is not installed: pip install {wanted}" if package else None
    if isinstance(error, (ValueError, OSError)):
        return " ".join(str(error).split())  # the Hub client writes several lines
    if is_network_error(error):
        return f"the Hub does not answer ({' '.join(str(error).split()) or type(error).__name__}); try again later"
    return None


def is_network_error(error: Exception) -> bool:
    """Whether it is of the HTTP client of huggingface_hub, which depends on its version: no answer, no line."""
    bases = ((base.__name__, base.__module__.partition(".")[0]) for base in type(error).__mro__)
    return any(name == "HTTPError" and module in ("httpx", "httpx2") for name, module in bases)


class _Stop:
    """Turns the signals that ask a program to end into `KeyboardInterrupt`, so that whatever is open is put away.

    Who asks again, later than an accident would, is obeyed at once.
    """

    def __init__(self) -> None:
        self.number: int | None = None  # of the signal
        self._at = 0.0
        self._process = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # no SIGHUP on Windows
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                self._before[number] = signal.signal(number, self._handle)
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._retry

    def __exit__(self, *_: object) -> None:
        if self._before:
            sys.unraisablehook = self._unraisable
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _handle(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked worker
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif self.number is None:
            self.number, self._at = number, time.monotonic()
            raise KeyboardInterrupt
        elif time.monotonic() - self._at > _PATIENCE:
            os._exit(128 + number)

    def _retry(self, unraisable: Any) -> None:
        """Where Python drops exceptions, in a destructor for one, ours would be lost: it comes again soon after."""
        if issubclass(unraisable.exc_type, KeyboardInterrupt) and self.number is not None:
            number, self.number = self.number, None
            threading.Timer(0.05, os.kill, (self._process, number)).start()
        else:
            self._unraisable(unraisable)

    def report(self, name: str, advice: str | None) -> int:
        """Says so in one line; the exit code."""
        start = "\n" if _is_terminal(sys.stderr) else ""  # a progress bar may stand on the line
        print(f"{start}{name}: stopped{f'; {advice}' if advice else ''}", file=sys.stderr)
        atexit.register(logging.disable)  # before what libraries have to tell as Python ends
        _flush_output()
        return 128 + (self.number or signal.SIGINT)


def _flush_output() -> bool:
    """Writes out what was printed; False if it cannot be, and then nothing more is tried at exit."""
    if sys.stdout is None:
        return True
    try:
        sys.stdout.flush()
    except OSError:
        pass
    else:
        if _has_reader(sys.stdout):
            return True
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return False


def _has_reader(stream: Any) -> bool:
    """Whether a stream is anything but a pipe that nobody reads: what failed to be written once is not tried again."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
    except (AttributeError, OSError):  # Windows, and streams in memory
        return True
    return not any(event & select.POLLERR for _, event in poll.poll(0))


def _is_terminal(stream: Any) -> bool:
    return stream is not None and stream.isatty()


def _red(text: str) -> str:
    """On a terminal in colour, unless it has none or its user wants none (no-color.org)."""
    plain = not _is_terminal(sys.stderr) or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else f"\033[1;31m{text}\033[0m"
