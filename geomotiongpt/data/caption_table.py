"""A table of captions: a CSV file with a row for each caption of a motion file."""

import csv
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path

from .text_files import CaptionSegment

REQUIRED, OPTIONAL = ("file", "caption"), ("start", "end", "split")
_SPLIT = re.compile(r"\w+")  # the Hub takes no others
_PROBLEMS_SHOWN = 20


@dataclass(frozen=True)
class CaptionRow:
    """A row of the table.

    Args:
        line: number of its last line in the file.
        file: of the motion, as it is written there.
        segment: the caption; without a time it is of the whole motion, and one that has no end goes up to infinity.
        split: name of a split, or "".
    """

    line: int
    file: str
    segment: CaptionSegment
    split: str


def read_caption_table(path: str | Path) -> tuple[list[CaptionRow], list[str]]:
    """Reads a CSV file with the columns `file`, `caption` and optionally `start` and `end` (seconds) and `split`.

    The separator is a comma, a semicolon or a tab, whichever the first line has most of.

    Args:
        path: the file, UTF-8.

    Returns:
        its rows, and the names of columns that are of no use.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not UTF-8, a column is missing, there are no rows, or rows cannot be read: all are named.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; wanted a CSV file with the columns {', '.join(REQUIRED)}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8.") from None
    first = text.partition("\n")[0]
    # A quote that is never closed ends in an error instead of a caption that swallows the rest of the table
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    try:
        reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
        missing = set(REQUIRED).difference(reader.fieldnames)
        if missing:
            found = ", ".join(reader.fieldnames) or "none"
            raise ValueError(
                f"{path}: no column {' or '.join(sorted(missing))}; wanted {', '.join(REQUIRED)} and optionally "
                f"{', '.join(OPTIONAL)}; found {found}."
            )
        rows, problems = [], []
        for values in reader:
            try:
                rows.append(_read_row(values, reader.line_num))
            except ValueError as error:
                problems.append(f"line {reader.line_num}: {error}")
    except csv.Error as error:
        raise ValueError(
            f"{path}: cannot be read after line {reader.line_num}: {error}; is a quote not closed?"
        ) from None
    raise_problems(problems, f"{path}: rows that cannot be used")
    if not rows:
        raise ValueError(f"{path}: no rows below the names of the columns.")
    return rows, [name for name in reader.fieldnames if name and name not in (*REQUIRED, *OPTIONAL)]


def raise_problems(problems: list[str], what: str) -> None:
    """One ValueError that names all problems, if there are any."""
    if problems:
        shown = "; ".join(problem.rstrip(".") for problem in problems[:_PROBLEMS_SHOWN])
        more = f"; and {len(problems) - _PROBLEMS_SHOWN} more" if len(problems) > _PROBLEMS_SHOWN else ""
        raise ValueError(f"{what}: {len(problems)}: {shown}{more}")


def _read_row(values: dict, line: int) -> CaptionRow:
    if None in values:
        raise ValueError("more fields than columns; put a caption with commas into double quotes")
    texts = {name: " ".join((value or "").split()) for name, value in values.items()}
    if not texts["file"] or not texts["caption"]:
        raise ValueError(f"the {'caption' if texts['file'] else 'file'} is empty")
    if "#" in texts["caption"]:
        raise ValueError(f"a caption cannot hold '#', which parts the fields of a caption file: {texts['caption']!r}")
    split = texts.get("split", "")
    if split and not _SPLIT.fullmatch(split):
        raise ValueError(f"the split {split!r} is no name of a file, such as train, val or test")
    start, end = _seconds(texts.get("start", ""), 0.0), _seconds(texts.get("end", ""), math.inf)
    if start == 0 and end in (0.0, math.inf):
        end = 0.0  # the whole motion
    elif end <= start:
        raise ValueError(f"it ends at {end:g} s and starts at {start:g} s")
    return CaptionRow(line, texts["file"], CaptionSegment(texts["caption"], (), start, end), split)


def _seconds(text: str, default: float) -> float:
    if not text:
        return default
    try:
        seconds = float(text.replace(",", "."))  # tables with semicolons write 1,5
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"the time {text!r} is not a number of seconds, 0 or more")
    return seconds
