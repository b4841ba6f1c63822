"""Text that every Python brings along: its documentation, for a small language model to learn and not to forget."""

import ast
import hashlib
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

_LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "turtledemo", "__pycache__"}
_FEWEST_CHARACTERS = 80


def python_documentation() -> list[str]:
    """The reference by topics (`pydoc_data`) and the longer docstrings of the standard library, two megabytes.

    Sources are parsed, not run. Other versions of Python have other texts.
    """
    texts = [*topics.values(), *_docstrings(Path(sysconfig.get_paths()["stdlib"]))]
    return list(dict.fromkeys(text.strip() for text in texts if len(text.strip()) >= _FEWEST_CHARACTERS))


def split_documentation(texts: list[str], held_out: float = 0.05) -> tuple[list[str], list[str]]:
    """Texts to train on, and those held out; which is which depends on the text alone.

    Args:
        texts: all.
        held_out: share of the texts that are held out.
    """
    parts: tuple[list[str], list[str]] = ([], [])
    for text in texts:
        draw = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32
        parts[draw < held_out].append(text)
    return parts


def _docstrings(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*.py")):
        if _LEFT_OUT & set(path.relative_to(folder).parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):  # some files are there to be wrong
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield ast.get_docstring(node) or ""
