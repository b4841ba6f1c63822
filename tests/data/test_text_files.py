"""Caption lines: what is read, what is refused, what mirroring does."""

import pytest

from geomotiongpt.data.text_files import (
    CaptionSegment,
    format_caption_line,
    mirror_caption,
    parse_caption_line,
    read_captions,
    read_valid_captions,
)


def test_line_is_read_into_caption_words_and_times():
    segment = parse_caption_line("a man walks left.#a/DET man/NOUN walk/VERB left/ADV#1.5#3.0\n")
    assert segment == CaptionSegment("a man walks left.", ("a/DET", "man/NOUN", "walk/VERB", "left/ADV"), 1.5, 3.0)
    assert not segment.is_whole_clip


def test_nan_times_mean_the_whole_clip():
    assert parse_caption_line("a man jumps#jump/VERB#nan#nan").is_whole_clip


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("a man walks", "1 fields"),
        ("a man # walks#walk/VERB#0.0#0.0", "5 fields"),
        ("#walk/VERB#0.0#0.0", "caption is empty"),
        ("a man walks#walk/VERB#zero#0.0", "'zero' is not a number"),
        ("a man walks#walk/VERB#0.0#inf", "'inf' is not a number of seconds >= 0"),
        ("a man walks#walk/VERB#-1#0.0", "'-1' is not a number of seconds >= 0"),
    ],
)
def test_malformed_line_is_refused_by_file_and_line_number(line, problem):
    with pytest.raises(ValueError, match=r"texts/000021\.txt:7: ") as error:
        parse_caption_line(line, "texts/000021.txt", 7)
    assert problem in str(error.value)


def test_file_with_a_malformed_line_strict_and_lenient(tmp_path):
    path = tmp_path / "clip.txt"
    path.write_text("a man walks#walk/VERB#0.0#0.0\n\nbroken\na man runs#run/VERB#0.5#2.0\n", encoding="utf-8-sig")
    with pytest.raises(ValueError, match=r"clip\.txt:3: 1 fields"):
        read_captions(path)
    captions, problems = read_valid_captions(path)
    assert [caption.caption for caption in captions] == ["a man walks", "a man runs"]
    assert len(problems) == 1 and problems[0].startswith(f"{path}:3: ")


def test_file_that_is_not_text_is_named(tmp_path):
    path = tmp_path / "clip.txt"
    path.write_bytes(b"a man \xff walks#walk/VERB#0.0#0.0\n")
    with pytest.raises(ValueError, match=r"clip\.txt: not UTF-8"):
        read_captions(path)


def test_format_is_the_inverse_of_parse():
    line = "a man walks left.#a/DET man/NOUN#1.25#3.0"
    assert format_caption_line(parse_caption_line(line)) == line
    assert parse_caption_line(format_caption_line(CaptionSegment("no words"))) == CaptionSegment("no words")


@pytest.mark.parametrize("caption", ["number #1", "two\nlines"])
def test_caption_that_the_format_cannot_hold_is_refused(caption):
    with pytest.raises(ValueError, match="cannot hold"):
        format_caption_line(CaptionSegment(caption))


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("raises the left hand, then the right", "raises the right hand, then the left"),
        ("Left foot. LEFT FOOT.", "Right foot. RIGHT FOOT."),
        ("stands upright under a bright light, leftover", "stands upright under a bright light, leftover"),
        (
            "steps leftwards with the rightmost foot, right-handed",
            "steps rightwards with the leftmost foot, left-handed",
        ),
        ("turns clockwise", "turns counterclockwise"),
        ("turns counter-clockwise, anticlockwise, Counter clockwise", "turns clockwise, clockwise, Clockwise"),
        ("left/ADJ hand/NOUN clockwise/ADV", "right/ADJ hand/NOUN counterclockwise/ADV"),
        ("counter/NOUN clockwise/NOUN circle/NOUN", "clockwise/NOUN circle/NOUN"),
    ],
)
def test_mirrored_captions(text, mirrored):
    assert mirror_caption(text) == mirrored


def test_mirrored_segment_keeps_its_times():
    segment = CaptionSegment("turns left", ("turn/VERB", "left/ADV"), 1.0, 2.0)
    assert segment.mirrored() == CaptionSegment("turns right", ("turn/VERB", "right/ADV"), 1.0, 2.0)
    assert segment.mirrored().mirrored() == segment


def test_frame_span_uses_the_frame_rate_and_stays_in_the_clip():
    segment = CaptionSegment("walks", start=1.03, end=3.99)
    assert segment.frame_span(20, 100) == (20, 79)
    assert segment.frame_span(12.5, 100) == (12, 49)
    assert segment.frame_span(20, 50) == (20, 50)
    assert CaptionSegment("walks").frame_span(20, 50) == (0, 50)
