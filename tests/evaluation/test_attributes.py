"""Whether a caption names what a motion shows."""

import json

import pytest

from geomotiongpt.data.synthetic import generate_synthetic_clips
from geomotiongpt.evaluation.attributes import AttributeWords, EmbeddedAttributes, attribute_accuracy, shown_attributes

LABELS = {
    "about": "which words name what",
    "action": {"walk": ["walks", "walks forward"], "march": ["walks forward in step"], "wave": ["waves"]},
    "side": ["left", "right"],
    "style": {"normal": [], "tired": ["as if tired", "wearily"], "proud": ["proudly"]},
}


def scores(accuracy: dict) -> dict:
    """Mean and number, without the interval."""
    return {name: (score["mean"], score["n"]) for name, score in accuracy.items()}


def embedded_accuracy(captions, references) -> dict:
    """Mean and number on the embedded data."""
    return scores(attribute_accuracy(captions, references, EmbeddedAttributes()))


@pytest.fixture
def words():
    return AttributeWords.from_labels(LABELS)


# Reading a caption


@pytest.mark.parametrize(
    ("caption", "action"),
    [
        ("a person walks", "walk"),
        ("A person WALKS forward.", "walk"),
        ("a person walks forward in step", "march"),
        ("a person walks forward, in step", "walk"),
        ("a person sleepwalks", None),
        ("a person walkspeeds", None),
        ("a person", None),
        ("", None),
    ],
)
def test_the_longest_whole_phrase_names_the_action(words, caption, action):
    assert words.read(caption)["action"] == action


@pytest.mark.parametrize(
    ("caption", "style"),
    [("walks", "normal"), ("walks wearily", "tired"), ("walks as if tired", "tired"), ("walks tired", "normal")],
)
def test_a_caption_that_names_no_style_means_the_one_without_phrases(words, caption, style):
    assert words.read(caption)["style"] == style


def test_every_attribute_is_read_on_its_own(words):
    assert words.read("waves the left hand proudly") == {"action": "wave", "side": "left", "style": "proud"}
    assert words.read("turns upright") == {"action": None, "side": None, "style": "normal"}


def test_phrases_are_words_and_no_patterns():
    words = AttributeWords({"speed": {"fast": ["1.5 m/s"], "slow": ["0+5 m/s"]}})
    assert words.read("at 1.5 m/s")["speed"] == "fast" and words.read("at 1x5 m/s")["speed"] is None
    assert words.read("at 0+5 m/s")["speed"] == "slow" and words.read("at 005 m/s")["speed"] is None


@pytest.mark.parametrize("missing", ["action", "side", "style"])
def test_labels_without_an_attribute_are_refused(missing):
    with pytest.raises(ValueError, match=f"name no {missing}"):
        AttributeWords.from_labels({name: value for name, value in LABELS.items() if name != missing})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"action": ["walk"]}, r"action of the labels is \['walk'\]; wanted an object of value -> phrases"),
        ({"style": "tired"}, "style of the labels is 'tired'; wanted an object"),
        ({"action": {"walk": ["walks"], "run": "a"}}, "action 'run' of the labels is 'a'; wanted a list of strings"),
        ({"style": {"normal": None}}, "style 'normal' of the labels is None; wanted a list"),
        ({"style": {"tired": ["wearily", 3]}}, r"style 'tired' of the labels is \['wearily', 3\]; wanted a list"),
        ({"action": {"walk": [" "]}}, r"action 'walk' of the labels is \[' '\]; wanted a list of strings with words"),
        ({"side": "left"}, "side of the labels is 'left'; wanted a list"),
        ({"side": ["left", ["right"]]}, r"side of the labels is \['left', \['right'\]\]; wanted a list"),
    ],
)
def test_labels_that_are_no_lists_of_phrases_are_refused_by_name(labels, message):
    with pytest.raises(ValueError, match=message):
        AttributeWords.from_labels({**LABELS, **labels})


def test_labels_that_are_no_object_are_refused():
    with pytest.raises(ValueError, match="wanted an object with action, side and style"):
        AttributeWords.from_labels(["action", "side", "style"])


# Accuracy


def test_accuracy_is_the_share_of_captions_that_name_what_their_references_name(words):
    captions = ["walks with the left leg", "waves", "waves right proudly", "stands"]
    references = [["walks left"], ["waves the right hand"], ["walks to the right, proudly"], ["a person stands"]]
    accuracy = scores(attribute_accuracy(captions, references, words))
    assert accuracy["action"] == (pytest.approx(2 / 3), 3)  # the last references name none
    assert accuracy["side"] == (pytest.approx(2 / 3), 3)
    assert accuracy["style"] == (1, 4)


@pytest.mark.parametrize(("right", "n", "half"), [(50, 100, 0.0961), (100, 100, 0.0259), (2, 2, 0.3810)])
def test_the_interval_of_a_share_does_not_vanish_at_its_ends(words, right, n, half):
    captions = ["walks"] * right + ["waves"] * (n - right)
    score = attribute_accuracy(captions, [["walks"]] * n, words)["action"]
    assert score == {"mean": right / n, "ci95": pytest.approx(half, abs=2e-4), "n": n}


def test_an_attribute_that_no_reference_names_has_no_accuracy(words):
    score = attribute_accuracy(["walks left"], [["walks"]], words)["side"]
    assert score == {"mean": None, "ci95": None, "n": 0}


def test_what_a_motion_shows_is_what_most_references_name(words):
    shown = shown_attributes([["walks left", "waves left", "walks"], ["stands", "turns"]], words)
    assert shown == {"action": ["walk", None], "side": ["left", None], "style": ["normal", "normal"]}


def test_the_references_of_a_motion_vote(words):
    references = [["walks left", "waves left", "walks", "goes right"]]
    for caption, right in (("walks left", 1), ("waves left", 0)):
        assert attribute_accuracy([caption], references, words)["action"]["mean"] == right
    assert scores(attribute_accuracy(["to the right"], references, words))["side"] == (0, 1)


def test_captions_and_references_must_belong_together(words):
    with pytest.raises(ValueError):
        attribute_accuracy(["walks"], [["walks"], ["waves"]], words)
    with pytest.raises(ValueError):
        embedded_accuracy(["a person walks forward."], [])


def test_accuracy_on_the_embedded_data_asks_for_actions_and_sides_in_order():
    references = [
        ["a person walks forward, then waves the left hand."],
        ["a person raises the right arm."],
        ["a person squats twice."],
    ]
    perfect = embedded_accuracy([group[0] for group in references], references)
    assert perfect == {"action": (1, 3), "side": (1, 2)}
    swapped = [
        "a person waves the left hand, then walks forward.",
        "a person raises the left arm.",
        "a person squats.",
    ]
    assert embedded_accuracy(swapped, references) == {"action": (pytest.approx(2 / 3), 3), "side": (0, 2)}
    gibberish = embedded_accuracy(["walks walks left", "", "the the the"], references)
    assert gibberish == {"action": (0, 3), "side": (0, 2)}


def test_the_captions_of_the_embedded_data_agree_with_each_other():
    groups = [[segment.caption for segment in clip.captions] for clip in generate_synthetic_clips(20)]
    for said in (-1, 0):
        accuracy = embedded_accuracy([group[said] for group in groups], groups)
        assert accuracy["action"] == (1, 20) and accuracy["side"][0] == 1
    shifted = embedded_accuracy([group[0] for group in groups[1:] + groups[:1]], groups)
    assert shifted["action"][0] < 0.5


def test_phrases_are_read_whatever_their_letters_and_their_ends():
    labels = {"action": {"walk": ["Walks"], "fall": ["falls (slow)"]}, "side": ["Left"], "style": {"plain": []}}
    words = AttributeWords.from_labels(labels)
    assert words.read("a person WALKS left")["action"] == "walk"
    assert words.read("he falls (slow), twice") == {"action": "fall", "side": None, "style": "plain"}
    assert words.read("to the left")["side"] == "Left" and words.read("leftover")["side"] is None


def test_the_labels_of_the_real_motions_read_their_captions(real_data):
    """Every caption names the action and style that its clip is labelled with."""
    folder = real_data / "bandai"
    labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    words = AttributeWords.from_labels(labels)
    with open(folder / "captions.jsonl", encoding="utf-8") as lines:
        clips = [json.loads(line) for line in lines][::5]
    assert len(clips) > 100
    for clip in clips:
        for text in clip["texts"]:
            told = words.read(text.split("#")[0])
            for name, source in (("action", clip["content"]), ("style", clip["style"])):
                assert told[name] == labels["merged"][name].get(source, source), (clip["id"], text)


def test_an_empty_caption_earns_nothing(words):
    assert words.read(" ") == {"action": None, "side": None, "style": None}
    accuracy = scores(attribute_accuracy(["", "walks"], [["walks"], ["walks"]], words))
    assert accuracy["style"] == (0.5, 2)
