"""The verb `caption` of the command line: what motions show, or each part of them, as text, JSON or subtitles."""

import argparse
import html
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .console import positive
from .motion_input import MOTION_FILES, add_import_options, import_options, read_motion_input

if TYPE_CHECKING:
    import numpy as np

    from .models.feature_extraction_motion import MotionFeatureExtractor
    from .models.motion_segments import TimedCaption


def add_caption(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the verb to a parser.

    Args:
        add: makes the parser of a verb of its name, function, purpose and example.
    """
    verb = add(
        "caption",
        _run,
        "describe motion files",
        "quickstart/model walk.npy jump.npy --json\n"
        "         geomotiongpt caption MODEL walk.bvh --report\n"
        "         geomotiongpt caption MODEL hour.npy --segments --window 4 --output hour.vtt",
    )
    verb.add_argument("model", help="folder of a model, or its name on the Hub")
    verb.add_argument("files", nargs="+", type=Path, metavar="FILE", help=MOTION_FILES)
    verb.add_argument("--json", action="store_true", help="one JSON object a line: file and caption")
    verb.add_argument("--report", action="store_true", help="say how each file was imported, on standard error")
    add_import_options(verb)
    verb.add_argument("--batch-size", type=positive, default=16, help="motions at a time")
    verb.add_argument("--num-beams", type=positive, default=1, help="above 1 a beam search")
    group = verb.add_argument_group("motions of any length: --segments, and what needs it")
    group.add_argument(
        "--segments", action="store_true", help="caption each part, with its time, instead of the whole"
    )
    group.add_argument("--window", type=float, metavar="SECONDS", help="seen at a time (default: as in training)")
    group.add_argument("--stride", type=float, metavar="SECONDS", help="between windows (default: half of one)")
    group.add_argument(
        "--format", choices=list(FORMATS), help="of the captions (default: as the output is named, else text)"
    )
    group.add_argument(
        "--output", type=Path, metavar="PATH", help="file to write; of several motions, a folder (default: print)"
    )


def _run(arguments: argparse.Namespace) -> int:
    from tqdm.auto import tqdm
    from transformers import pipeline

    from .checkpoints import load_captioner

    if arguments.segments:
        return _run_segments(arguments)
    idle = [name for name in ("window", "stride", "format", "output") if getattr(arguments, name) is not None]
    if idle:
        raise ValueError(f"{', '.join(f'--{name}' for name in idle)}: no effect without --segments.")
    _check_files(arguments.files)
    # Loaded here: `pipeline` answers a model that cannot be loaded with a page of tracebacks.
    model, processor = load_captioner(arguments.model)
    describe = pipeline("motion-to-text", model=model, processor=processor)
    read = partial(_read, processor.feature_extractor.representation, import_options(arguments), arguments.report)
    motions = [read(path) for path in arguments.files]
    for path, motion in zip(arguments.files, motions, strict=True):  # before the first is captioned
        _check_motion(processor.feature_extractor, motion, path)
    made = describe((motion for motion in motions), batch_size=arguments.batch_size, num_beams=arguments.num_beams)
    results = tqdm(made, "captioning", len(motions), disable=len(motions) <= arguments.batch_size or None)
    for path, result in zip(arguments.files, results, strict=True):
        line = result["generated_text"]
        if arguments.json:
            line = json.dumps({"file": str(path), "caption": line}, ensure_ascii=False)
        elif len(arguments.files) > 1:
            line = f"{path}: {line}"
        tqdm.write(line)  # above the bar
    return 0


def _check_motion(extractor: "MotionFeatureExtractor", motion: str | dict[str, Any], path: Path) -> "np.ndarray":
    """The motion, of a `.npy` file mapped; `ValueError` if the model does not take it."""
    from .models.pipeline_motion_to_text import read_motion

    array = read_motion(Path(motion), mapped=True) if isinstance(motion, str) else motion["motion"]
    extractor.check(array, str(path))
    return array


def _run_segments(arguments: argparse.Namespace) -> int:
    if arguments.json:
        raise ValueError("--json: no effect with --segments; use --format json.")
    names = ("output", "format", "report", "window", "stride", "batch_size", "num_beams")
    options = {name: getattr(arguments, name) for name in names}
    options["import_options"] = import_options(arguments)
    for lines in caption_in_segments(arguments.model, arguments.files, **options):
        print(lines, end="", flush=True)
    return 0


def _check_files(files: Sequence[Path]) -> None:
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such motion file.")


def _read(representation: str, options: dict[str, Any], report: bool, path: Path) -> str | dict[str, Any]:
    """A motion as the pipeline takes it; what its import has to say goes to standard error."""
    motion, found = read_motion_input(path, representation, options)
    if found is not None:
        lines = [str(found)] if report else [f"{path}: warning: {text}" for text in found.warnings]
        print(*lines, sep="\n", end="\n" if lines else "", file=sys.stderr)
    return motion


def caption_in_segments(
    model_name: str | Path,
    files: Sequence[Path],
    *,
    output: Path | None = None,
    format: str | None = None,
    import_options: dict[str, Any] | None = None,
    report: bool = False,
    **options: Any,
) -> Iterator[str]:
    """Captions the parts of motions, one motion after another. All are checked before the first is captioned.

    Args:
        model_name: folder of a motion-language model, or its name on the Hub.
        files: `.npy` of features or joints, which are read as they are needed, or any file that `import_motion` takes.
        output: of one motion the file to write, of several a folder for `<name of the motion>.<format>`; each is
            written whole or not at all, over what was there.
        format: "text", "json", "srt" or "vtt"; by default what the output's name ends in, else "text".
        import_options: of `import_motion`.
        report: say on standard error how files were imported.
        **options: of `caption_segments`.

    Yields:
        for each motion its captions, or where they were saved, to be printed as it is.

    Raises:
        FileNotFoundError: if there is no such model or motion.
        ValueError: for several motions without a place for each, and as `caption_segments`.
    """
    from .checkpoints import load_captioner
    from .data.motion_folder import check_writable, save_bytes
    from .models.motion_segments import caption_segments

    _check_files(files)
    by_suffix = {suffix: name for name, (suffix, _) in FORMATS.items()}
    ending = output.suffix.lower() if output is not None and len(files) == 1 else ""
    asked = by_suffix.get(ending)
    suffix, write = FORMATS[format or asked or "text"]
    targets = _targets(files, output, suffix)
    if ending and not (format or asked):
        raise ValueError(f"{output}: name a file that ends in {', '.join(by_suffix)}, or give --format.")
    if output is not None:
        check_writable(output)
    model, processor = load_captioner(model_name)
    extractor = processor.feature_extractor
    given = [_read(extractor.representation, import_options or {}, report, path) for path in files]
    motions = [_check_motion(extractor, motion, path) for path, motion in zip(files, given, strict=True)]
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


def format_text(segments: Sequence["TimedCaption"], path: Path) -> str:
    """A line a segment."""
    return "".join(f"{start:.2f} - {end:.2f} s: {' '.join(caption.split())}\n" for start, end, caption in segments)


def format_json(segments: Sequence["TimedCaption"], path: Path) -> str:
    """One line: the file, and its segments with the numbers that subtitles have too; times to the millisecond."""
    rows = [
        {"id": number, "start": round(start, 3), "end": round(end, 3), "caption": caption}
        for number, (start, end, caption) in enumerate(segments, 1)
    ]
    return json.dumps({"file": str(path), "segments": rows}, ensure_ascii=False) + "\n"


def format_srt(segments: Sequence["TimedCaption"], path: Path) -> str:
    """SubRip. It has no way to write a `<` that is not the start of a tag."""
    return "".join(_cues(segments, ",", lambda caption: caption))


def format_webvtt(segments: Sequence["TimedCaption"], path: Path) -> str:
    """WebVTT (W3C), in which `&`, `<` and the arrow `-->` must not stand in a caption as they are."""
    return "WEBVTT\n\n" + "".join(_cues(segments, ".", lambda caption: html.escape(caption, quote=False)))


def _cues(segments: Sequence["TimedCaption"], point: str, escape: Callable[[str], str]) -> Iterator[str]:
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


FORMATS: dict[str, tuple[str, Callable[[Sequence["TimedCaption"], Path], str]]] = {
    "text": (".txt", format_text),
    "json": (".json", format_json),
    "srt": (".srt", format_srt),
    "vtt": (".vtt", format_webvtt),
}
