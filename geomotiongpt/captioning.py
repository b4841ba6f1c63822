"""What `geomotiongpt caption --segments` does: what each part of long motions shows, as text, JSON or subtitles."""

import html
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .checkpoints import load_captioner
from .data.motion_folder import save_bytes
from .models.motion_segments import TimedCaption, caption_segments
from .models.pipeline_motion_to_text import read_motion


def caption_in_segments(
    model_name: str | Path,
    files: Sequence[Path],
    *,
    output: Path | None = None,
    format: str | None = None,
    trust_remote_code: bool = False,
    **options: Any,
) -> Iterator[str]:
    """Captions the parts of motions, one motion after another. All are checked before the first is captioned.

    Args:
        model_name: folder of a motion-language model, or its name on the Hub.
        files: `.npy` of features or joints; they are read as they are needed.
        output: of one motion the file to write, of several a folder for `<name of the motion>.<format>`; each is
            written whole or not at all, over what was there.
        format: "text", "json", "srt" or "vtt"; by default what the output's name ends in, else "text".
        trust_remote_code: run the code in the model's repository.
        **options: of `caption_segments`.

    Yields:
        for each motion its captions, or where they were saved, to be printed as it is.

    Raises:
        FileNotFoundError: if there is no such model or motion.
        ValueError: for several motions without a place for each, and as `caption_segments`.
    """
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such motion file.")
    by_suffix = {suffix: name for name, (suffix, _) in FORMATS.items()}
    asked = by_suffix.get(output.suffix) if output is not None and len(files) == 1 else None
    suffix, write = FORMATS[format or asked or "text"]
    targets = _targets(files, output, suffix)
    model, processor = load_captioner(model_name, trust_remote_code=trust_remote_code)
    motions = [read_motion(path, mapped=True) for path in files]
    for path, motion in zip(files, motions, strict=True):
        processor.feature_extractor.check(motion, str(path))
    for path, motion, target in zip(files, motions, targets, strict=True):
        segments = caption_segments(model, processor, motion, name=str(path), progress=True, **options)
        text = write(segments, path)
        if target is None:
            yield text
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        save_bytes(target, text.encode())
        yield f"saved {target}: {len(segments)} segments, {segments[-1].end:.1f} s\n"


def _targets(files: Sequence[Path], output: Path | None, suffix: str) -> list[Path | None]:
    """Where the captions of each motion go; None: to the standard output."""
    if output is None:
        if len(files) > 1 and suffix != ".json":
            raise ValueError(f"{len(files)} motions: give --output, a folder, or --format json, one line a motion.")
        return [None] * len(files)
    if len(files) == 1:
        if output.is_dir():
            raise ValueError(f"{output} is a folder; of one motion the output is a file: name one in it.")
        targets = [output]
    else:
        if output.exists() and not output.is_dir():
            raise ValueError(f"{output} is a file; of several motions the output is a folder: name another.")
        targets = [output / f"{path.stem}{suffix}" for path in files]
    taken: dict[Path, Path] = {path.resolve(): path for path in files}
    for path, target in zip(files, targets, strict=True):
        if target.resolve() in taken:
            raise ValueError(f"{target} cannot hold the captions of {path}: it is or is to hold another motion's.")
        taken[target.resolve()] = path
    return [*targets]


def format_text(segments: Sequence[TimedCaption], path: Path) -> str:
    """A line a segment."""
    return "".join(f"{start:.2f} - {end:.2f} s: {' '.join(caption.split())}\n" for start, end, caption in segments)


def format_json(segments: Sequence[TimedCaption], path: Path) -> str:
    """One line: the file, and its segments with the numbers that subtitles have too; times to the millisecond."""
    rows = [
        {"id": number, "start": round(start, 3), "end": round(end, 3), "caption": caption}
        for number, (start, end, caption) in enumerate(segments, 1)
    ]
    return json.dumps({"file": str(path), "segments": rows}, ensure_ascii=False) + "\n"


def format_srt(segments: Sequence[TimedCaption], path: Path) -> str:
    """SubRip. It has no way to write a `<` that is not the start of a tag."""
    return "".join(_cues(segments, ",", lambda caption: caption))


def format_webvtt(segments: Sequence[TimedCaption], path: Path) -> str:
    """WebVTT (W3C), in which `&`, `<` and the arrow `-->` must not stand in a caption as they are."""
    return "WEBVTT\n\n" + "".join(_cues(segments, ".", lambda caption: html.escape(caption, quote=False)))


def _cues(segments: Sequence[TimedCaption], point: str, escape: Callable[[str], str]) -> Iterator[str]:
    """Cues of subtitles. A segment without a caption has none, and a blank line would end one."""
    for number, (start, end, caption) in enumerate(segments, 1):
        if lines := [line.strip() for line in caption.splitlines() if line.strip()]:
            times = f"{_timestamp(start, point)} --> {_timestamp(end, point)}"
            yield f"{number}\n{times}\n{escape(chr(10).join(lines))}\n\n"


def _timestamp(seconds: float, point: str) -> str:
    """`hh:mm:ss,mmm`, with a comma or a point."""
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{point}{milliseconds % 1000:03d}"


FORMATS: dict[str, tuple[str, Callable[[Sequence[TimedCaption], Path], str]]] = {
    "text": (".txt", format_text),
    "json": (".json", format_json),
    "srt": (".srt", format_srt),
    "vtt": (".vtt", format_webvtt),
}
