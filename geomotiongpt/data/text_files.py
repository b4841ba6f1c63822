"""HumanML3D caption files: one caption a line, `caption#word/POS word/POS#start#end`, times in seconds."""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

_DIRECTION = re.compile(
    # a caption says "counter-clockwise", its tagged words say "counter/NOUN clockwise/NOUN"
    r"\b(?:(?P<counter>(?:counter|anti)(?:/[A-Z]+)?[ -]?)?clockwise"
    r"|(?P<side>left|right)(?=(?:wards?|most|hand(?:ed)?)?\b))",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class CaptionSegment:
    """One caption of a clip, or of the part of it between `start` and `end`.

    Args:
        caption (`str`): The sentence.
        tokens (`tuple[str, ...]`): Its words with their part of speech, as `word/POS`; may be empty.
        start (`float`): First second described.
        end (`float`): Last second described; `start = end = 0` means the whole clip.
    """

    caption: str
    tokens: tuple[str, ...] = ()
    start: float = 0.0
    end: float = 0.0

    @property
    def is_whole_clip(self) -> bool:
        """Whether the caption describes the whole clip."""
        return self.start == 0 and self.end == 0

    def frame_span(self, fps: float, num_frames: int) -> tuple[int, int]:
        """First frame and end frame (exclusive) in a clip of `num_frames`: `int(start * fps)`, `int(end * fps)`."""
        if self.is_whole_clip:
            return 0, num_frames
        return int(self.start * fps), min(int(self.end * fps), num_frames)

    def within(self, seconds: float) -> "CaptionSegment | None":
        """The caption of a motion of so many seconds, cut to it; None if it begins after the end."""
        if self.start >= seconds:
            return None
        return self if self.end <= seconds else replace(self, end=seconds)

    def mirrored(self) -> "CaptionSegment":
        """The caption of the mirrored motion."""
        tokens = tuple(mirror_caption(" ".join(self.tokens)).split())
        return replace(self, caption=mirror_caption(self.caption), tokens=tokens)


def parse_caption_line(line: str, path: str | Path = "<line>", number: int = 1) -> CaptionSegment:
    """Read one line of a caption file.

    Args:
        line (`str`): `caption#word/POS word/POS#start#end`; a time of `nan` counts as 0.
        path (`str` or `Path`): File the line stands in, for the error message.
        number (`int`, defaults to 1): Line number, for the error message.

    Raises:
        `ValueError`: The line has not four fields, no caption, or times that are not seconds >= 0.
    """
    where = f"{path}:{number}"
    fields = [field.strip() for field in line.strip().split("#")]
    if len(fields) != 4:
        raise ValueError(
            f"{where}: {len(fields)} fields between '#' signs, wanted 4 as in 'caption#word/POS#start#end': {line!r}"
        )
    caption, tokens, start, end = fields
    if not caption:
        raise ValueError(f"{where}: the caption is empty: {line!r}")
    return CaptionSegment(caption, tuple(tokens.split()), _parse_seconds(start, where), _parse_seconds(end, where))


def _parse_seconds(text: str, where: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError(f"{where}: the time {text!r} is not a number of seconds") from None
    if math.isnan(seconds):
        return 0.0
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{where}: the time {text!r} is not a number of seconds >= 0")
    return seconds


def read_caption_lines(path: str | Path) -> list[tuple[int, str]]:
    """Read the non-empty lines of a caption file with their line numbers.

    Raises:
        `FileNotFoundError`: The file does not exist.
        `ValueError`: The file is not UTF-8 text.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def read_captions(path: str | Path) -> list[CaptionSegment]:
    """Read a caption file; every line must be well formed.

    Raises:
        `FileNotFoundError`: The file does not exist.
        `ValueError`: A line is malformed; the message names file and line number.
    """
    return [parse_caption_line(line, path, number) for number, line in read_caption_lines(path)]


def read_valid_captions(path: str | Path) -> tuple[list[CaptionSegment], list[str]]:
    """Read a caption file where the job can go on without its malformed lines.

    Returns:
        `tuple[list[CaptionSegment], list[str]]`: The captions, and for each line left out a message that begins with
        `<path>:<line number>:`.

    Raises:
        `FileNotFoundError`: The file does not exist.
        `ValueError`: The file is not UTF-8 text.
    """
    captions, problems = [], []
    for number, line in read_caption_lines(path):
        try:
            captions.append(parse_caption_line(line, path, number))
        except ValueError as error:
            problems.append(str(error))
    return captions, problems


def format_caption_line(segment: CaptionSegment) -> str:
    """Write a caption as a line of a caption file, without the line end: the inverse of `parse_caption_line`.

    Raises:
        `ValueError`: Caption or words hold a '#' or a line break, which the format cannot carry.
    """
    tokens = " ".join(segment.tokens)
    for text in (segment.caption, tokens):
        if any(sign in text for sign in "#\n\r"):
            raise ValueError(f"a caption line cannot hold '#' or line breaks: {text!r}")
    return f"{segment.caption}#{tokens}#{float(segment.start)}#{float(segment.end)}"


def mirror_caption(text: str) -> str:
    """Swap left with right and clockwise with counterclockwise.

    Whole words (and `leftward`, `rightmost`, `left-handed` ...) are swapped in the case they are written in, in plain
    captions as well as in tagged words (`left/ADJ`). `counter-clockwise` and `anticlockwise` become `clockwise`.
    """
    return _DIRECTION.sub(_swap_direction, text)


def _swap_direction(match: re.Match[str]) -> str:
    word = match.group()
    if match["side"]:
        swapped = "right" if word.lower() == "left" else "left"
    else:
        swapped = "clockwise" if match["counter"] else "counterclockwise"
    if word.isupper():
        return swapped.upper()
    return swapped.capitalize() if word[0].isupper() else swapped
