"""`geomotiongpt caption --segments`: text, JSON, SubRip and WebVTT that other software reads, whole or not at all."""

import html
import io
import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import srt
import webvtt
from transformers import AutoModelForCausalLM, AutoProcessor

from geomotiongpt import TimedCaption, caption_segments, captioning
from geomotiongpt.captioning import format_json, format_srt, format_text, format_webvtt
from geomotiongpt.cli import main
from geomotiongpt.data import motion_folder
from geomotiongpt.models import motion_segments

WINDOW = ["--window", "2", "--stride", "1.5"]
NASTY = [
    TimedCaption(0, 1.25, "walks <b>fast</b> & then --> jumps\n\n  sits\u2028 down "),
    TimedCaption(1.25, 59.9996, " \n"),
    TimedCaption(59.9996, 3599.9996, "&lt; \u00e9t\u00e9"),
    TimedCaption(3599.9996, 360_061.5, "turns\r\n\r\nround"),
]


def caption(*argv) -> int:
    return main(["caption", *map(str, argv)])


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """Motions of 10 and of 5.5 seconds, of features."""
    folder = tmp_path_factory.mktemp("motions")
    rng = np.random.default_rng(3)
    for name, frames in (("long", 200), ("short", 110)):
        np.save(folder / f"{name}.npy", rng.normal(size=(frames, 263)).astype(np.float32))
    return [folder / "long.npy", folder / "short.npy"]


@pytest.fixture(scope="module")
def segments(tiny_model_folder, files) -> list[list[TimedCaption]]:
    """What `caption_segments` finds in them."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    processor = AutoProcessor.from_pretrained(tiny_model_folder)
    found = [caption_segments(model, processor, np.load(path), window=2, stride=1.5, batch_size=1) for path in files]
    assert min(map(len, found)) > 2
    return found


def times(segments) -> list[tuple[float, float]]:
    return [(round(start, 3), round(end, 3)) for start, end, _ in segments]


def seconds(stamp: str) -> float:
    hours, minutes, rest = stamp.split(":")
    return round(3600 * int(hours) + 60 * int(minutes) + float(rest), 3)


def test_subtitles_keep_times_and_captions(files):
    """Of captions with what subtitles must not hold; one without words has no cue."""
    cues = list(srt.parse(format_srt(NASTY, files[0])))
    assert [cue.index for cue in cues] == [1, 3, 4]
    spoken = ["walks <b>fast</b> & then --> jumps\nsits\ndown", "&lt; \u00e9t\u00e9", "turns\nround"]
    assert [cue.content for cue in cues] == spoken
    assert [cue.end for cue in cues] == [timedelta(seconds=end) for end in (1.25, 3600, 360_061.5)]
    text = format_webvtt(NASTY, files[0])
    assert text.startswith("WEBVTT\n\n") and text.count("-->") == 3 and "<" not in text
    shown = list(webvtt.from_buffer(io.StringIO(text)))
    assert [html.unescape(cue.text) for cue in shown] == spoken
    assert [cue.identifier for cue in shown] == ["1", "3", "4"]
    assert [(cue.start, cue.end) for cue in shown] == [
        ("00:00:00.000", "00:00:01.250"), ("00:01:00.000", "01:00:00.000"), ("01:00:00.000", "100:01:01.500")
    ]  # fmt: skip


def test_json_and_text_hold_every_segment(files):
    read = json.loads(format_json(NASTY, files[0]))
    assert read["file"] == str(files[0]) and "\n" not in format_json(NASTY, files[0])[:-1]
    assert [row["id"] for row in read["segments"]] == [1, 2, 3, 4]
    assert [(row["start"], row["end"]) for row in read["segments"]] == times(NASTY)
    assert [row["caption"] for row in read["segments"]] == [caption for _, _, caption in NASTY]
    assert format_text(NASTY, files[0]).splitlines()[0] == (
        "0.00 - 1.25 s: walks <b>fast</b> & then --> jumps sits down"
    )
    assert len(format_text(NASTY, files[0]).splitlines()) == 4


@pytest.mark.parametrize("name", ["text", "json", "srt", "vtt"])
def test_every_format_is_printed_and_saved_alike(name, tiny_model_folder, files, segments, tmp_path, capsys):
    assert caption(tiny_model_folder, files[0], "--segments", *WINDOW, "--format", name) == 0
    printed = capsys.readouterr().out
    assert printed == captioning.FORMATS[name][1](segments[0], files[0])
    target = tmp_path / "new" / f"captions{captioning.FORMATS[name][0]}"
    options = ["--output", target, "--batch-size", 3]
    assert caption(tiny_model_folder, files[0], "--segments", *WINDOW, *options) == 0
    assert target.read_text(encoding="utf-8") == printed, "the name of the output says the format"
    assert capsys.readouterr().out == f"saved {target}: {len(segments[0])} segments, 10.0 s\n"
    assert list(target.parent.iterdir()) == [target]


def test_several_motions_get_a_file_each(tiny_model_folder, files, segments, tmp_path):
    options = ["--segments", *WINDOW, "--format", "vtt", "--output", tmp_path / "out"]
    assert caption(tiny_model_folder, *files, *options) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"long.vtt", "short.vtt"}
    for path, found in zip(files, segments, strict=True):
        cues = webvtt.read(str(tmp_path / "out" / f"{path.stem}.vtt"))
        assert [(seconds(cue.start), seconds(cue.end)) for cue in cues] == times(found)


def test_several_motions_are_a_line_of_json_each(tiny_model_folder, files, segments, capsys):
    assert caption(tiny_model_folder, *files, "--segments", *WINDOW, "--format", "json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file"] for row in rows] == [str(path) for path in files]
    for row, found in zip(rows, segments, strict=True):
        assert [(part["start"], part["end"]) for part in row["segments"]] == times(found)
        assert [part["caption"] for part in row["segments"]] == [said for _, _, said in found]


def test_what_was_finished_before_an_error_is_kept_and_nothing_half_written(
    tiny_model_folder, files, tmp_path, monkeypatch, capsys
):
    written, save = [], motion_folder.save_bytes

    def fail_at_the_second(path, *contents):
        written.append(path)
        if len(written) == 2:
            raise OSError(28, "No space left on device", str(path))
        save(path, *contents)

    monkeypatch.setattr(motion_folder, "save_bytes", fail_at_the_second)
    options = ["--segments", *WINDOW, "--format", "srt", "--output", tmp_path / "out"]
    assert caption(tiny_model_folder, *files, *options) == 2
    assert "short.srt" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["long.srt"]


def test_the_motion_stays_in_its_file(tiny_model_folder, files, monkeypatch, capsys):
    def tell(model, processor, motion, **options):
        return [TimedCaption(0, 1, type(motion).__name__)]

    monkeypatch.setattr(motion_segments, "caption_segments", tell)
    assert caption(tiny_model_folder, files[0], "--segments") == 0
    assert capsys.readouterr().out == "0.00 - 1.00 s: memmap\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["MODEL", "LONG", "--window", "2"], "--window: no effect without --segments"),
        (["MODEL", "LONG", "--format", "srt", "--output", "x.srt"], "--format, --output: no effect without"),
        (["MODEL", "LONG", "--stride", "2"], "--stride: no effect without --segments"),
        (["MODEL", "LONG", "--segments", "--json"], "use --format json"),
        (["MODEL", "LONG", "--segments", "--window", "200"], "window is 200 s; this model sees 0.4 to"),
        (["MODEL", "LONG", "--segments", "--window", "2", "--stride", "3"], "stride is 3 s"),
        (["MODEL", "LONG", "SHORT", "--segments"], "2 motions: give --output, a folder, or --format json"),
        (["MODEL", "LONG", "SHORT", "--segments", "--format", "vtt"], "give --output, a folder"),
        (["MODEL", "LONG", "LONG", "--segments", "--output", "OUT"], "it is or is to hold another motion's"),
        (["MODEL", "LONG", "SHORT", "--segments", "--output", "LONG"], "is a file; of several motions"),
        (["MODEL", "LONG", "--segments", "--output", "a.csv"], "a.csv: name a file that ends in .txt, .json, .srt"),
        (["MODEL", "LONG", "--segments", "--output", "FOLDER"], "is a folder; of one motion the output is a file"),
        (["MODEL", "LONG", "--segments", "--output", "LONG"], "it is or is to hold another motion's"),
        (["MODEL", "LONG", "GONE", "--segments", "--format", "json"], "gone.npy: no such motion file"),
        (["MODEL", "LONG", "BROKEN", "--segments", "--format", "json"], "broken.npy is not a readable .npy file"),
        (["MODEL", "LONG", "EMPTY", "--segments", "--format", "json"], "empty.npy has 0 frames"),
        (["MODEL/none", "LONG", "--segments"], "none: no such folder"),
    ],
)
def test_what_cannot_be_captioned_is_one_clear_line(argv, message, tiny_model_folder, files, tmp_path, capsys):
    """And nothing is captioned or written, whichever of the motions it is."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken.npy").write_bytes(files[0].read_bytes()[:1000])
    np.save(tmp_path / "empty.npy", np.zeros((0, 263), np.float32))
    before = files[0].read_bytes()
    places = {"MODEL": tiny_model_folder, "LONG": files[0], "SHORT": files[1], "OUT": tmp_path / "out"}
    places |= {name.upper(): tmp_path / f"{name}.npy" for name in ("gone", "broken", "empty")}
    places["FOLDER"] = tmp_path / "folder"
    for name, place in places.items():
        argv = [argument.replace(name, str(place)) for argument in argv]
    assert caption(*argv) == 2
    captured = capsys.readouterr()
    error = captured.err.strip().splitlines()[-1]
    assert error.startswith("geomotiongpt caption: error: ") and message in error
    assert captured.out == "" and "Traceback" not in captured.err
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "broken.npy", "empty.npy"}
    assert files[0].read_bytes() == before
