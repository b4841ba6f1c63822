"""Captions of the synthetic data, and the oracle that reads attributes back from a caption.

Every caption names the action of each segment and its side where it has one. Speed, count, distance and angle are
always in the first caption of a clip and may be left out of the others.
"""

import re
from collections.abc import Sequence

import numpy as np

from .synthetic_actions import ACTIONS, MotionAttributes
from .text_files import CaptionSegment

NUM_CAPTIONS = 3

_SUBJECTS = ("a person", "the person", "someone", "a figure", "the figure", "this person", "somebody")
_LINKS = (", then ", " then ", " and then ", ", and then ", ", after that ")

# Slots: {side} left, right; {limb} "the left" or "both"; {s} plural with both; {rotation} counterclockwise, clockwise;
# {amount} steps, metres, degrees or times; {number} "three" or nothing; {speed} an adverb or nothing.
_PHRASES: dict[str, tuple[str, ...]] = {
    "idle": ("stands still", "stays still", "is standing still in place", "remains still", "stands motionless"),
    "walk": (
        "{speed} walks forward {amount}",
        "walks forward {amount} {speed}",
        "walks straight ahead {amount} {speed}",
        "is {speed} walking forward {amount}",
        "walks ahead {amount} {speed}",
    ),
    "run": (
        "{speed} runs forward {amount}",
        "runs forward {amount} {speed}",
        "is {speed} running forward {amount}",
        "runs straight ahead {amount} {speed}",
    ),
    "walk_backward": (
        "{speed} walks backward {amount}",
        "walks backwards {amount} {speed}",
        "moves backward {amount} {speed}",
        "is {speed} walking backwards {amount}",
    ),
    "sidestep": (
        "sidesteps to the {side} {amount} {speed}",
        "{speed} steps sideways to the {side} {amount}",
        "sidesteps {side} {amount} {speed}",
        "is {speed} stepping sideways to the {side} {amount}",
    ),
    "turn": (
        "turns {amount} to the {side} {speed}",
        "turns {side} {amount} {speed}",
        "{speed} turns {rotation} {amount}",
        "is {speed} turning {amount} to the {side}",
    ),
    "spin": (
        "spins around to the {side} {amount} {speed}",
        "{speed} spins {rotation} {amount} with the arms out",
        "spins {rotation} on the spot {amount} {speed}",
        "{speed} spins {side} {amount}",
    ),
    "circle": (
        "{speed} walks in a circle to the {side}",
        "walks in a {rotation} circle {speed}",
        "is {speed} walking {rotation} in a circle",
        "walks around in a circle to the {side} {speed}",
    ),
    "march": (
        "marches in place {speed}",
        "{speed} marches on the spot",
        "is {speed} marching in place lifting the knees",
        "marches in place with high knees {speed}",
    ),
    "jump": (
        "jumps up {amount}",
        "jumps up and down in place {amount}",
        "jumps in place {amount}",
        "jumps straight up {amount} on the spot",
    ),
    "jump_forward": (
        "jumps forward {amount}",
        "jumps ahead {amount} with both feet",
        "is jumping forward {amount}",
        "jumps forward {amount} with both feet",
    ),
    "hop": (
        "hops on the {side} leg {amount}",
        "hops {amount} on the {side} foot",
        "is hopping on the {side} leg {amount}",
        "hops {amount} in place on the {side} leg",
    ),
    "jumping_jack": (
        "does {number} jumping jacks",
        "performs {number} jumping jacks",
        "is doing {number} jumping jacks",
        "does {number} jumping jacks in place",
    ),
    "squat": (
        "squats down {amount} {speed}",
        "{speed} squats {amount}",
        "is {speed} squatting down {amount}",
        "squats down and gets up again {amount} {speed}",
    ),
    "sit_down": ("sits down {speed}", "{speed} sits down", "takes a seat {speed}", "{speed} lowers down to sit"),
    "stand_up": (
        "stands up {speed}",
        "{speed} stands up from sitting",
        "gets up from a seat {speed}",
        "{speed} rises from sitting",
    ),
    "lunge": (
        "lunges forward with the {side} leg {amount} {speed}",
        "{speed} lunges {amount} with the {side} leg",
        "is {speed} lunging {amount} with the {side} foot in front",
        "lunges {amount} onto the {side} leg {speed}",
    ),
    "kick": (
        "kicks with the {side} leg {amount} {speed}",
        "{speed} kicks the {side} foot forward {amount}",
        "kicks {amount} with the {side} foot {speed}",
        "is {speed} kicking {amount} with the {side} leg",
    ),
    "punch": (
        "punches with the {side} hand {amount} {speed}",
        "{speed} punches forward {amount} with the {side} fist",
        "punches {amount} with the {side} arm {speed}",
        "is {speed} punching {amount} with the {side} hand",
    ),
    "wave": (
        "waves with {limb} hand{s} {speed}",
        "{speed} waves {limb} hand{s}",
        "is {speed} waving {limb} arm{s}",
        "waves {limb} arm{s} {speed}",
    ),
    "raise_arm": (
        "raises {limb} arm{s} {speed}",
        "{speed} raises {limb} hand{s} above the head",
        "lifts {limb} arm{s} up {speed}",
        "{speed} lifts {limb} hand{s} overhead",
    ),
    "throw": (
        "throws something with the {side} hand",
        "throws something overhand with the {side} arm",
        "is throwing something with the {side} hand",
        "throws an object forward with the {side} hand",
    ),
    "balance": (
        "balances on the {side} leg",
        "balances on the {side} foot with the arms out",
        "stands on the {side} leg only",
        "is balancing on the {side} leg",
    ),
    "bow": (
        "bows {amount} {speed}",
        "{speed} bows {amount}",
        "bends forward at the waist {amount} {speed}",
        "is {speed} bowing {amount}",
    ),
    "clap": (
        "claps {amount} {speed}",
        "{speed} claps the hands {amount}",
        "claps the hands together {amount} {speed}",
        "is {speed} clapping {amount}",
    ),
    "pick_up": (
        "picks something up from the floor with the {side} hand {speed}",
        "{speed} picks up something from the ground with the {side} hand",
        "picks something up with the {side} hand {speed}",
        "{speed} reaches down and picks something up with the {side} hand",
    ),
}

_SPEED_WORDS = {"slow": ("slowly",), "fast": ("quickly", "fast")}
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TIMES = {1: "once", 2: "twice"}
_STEPPED = ("walk", "run", "walk_backward")
_ROTATION = {"left": "counterclockwise", "right": "clockwise"}


# -------- Writing


def write_captions(segments: Sequence[MotionAttributes], rng: np.random.Generator) -> list[CaptionSegment]:
    """Three differently worded captions of a clip, the first of which tells every attribute.

    Args:
        segments: what the clip shows, one after another.
        rng: chooses the words.

    Returns:
        `NUM_CAPTIONS` captions with tagged words, each of the whole clip.
    """
    captions: list[str] = []
    subjects = rng.permutation(len(_SUBJECTS))
    phrases = [rng.permutation(len(_PHRASES[segment.action])) for segment in segments]
    for number in range(NUM_CAPTIONS):
        parts = [_phrase(s, int(p[number]), number == 0, rng) for s, p in zip(segments, phrases, strict=True)]
        link = _LINKS[rng.integers(len(_LINKS))]
        captions.append(f"{_SUBJECTS[subjects[number]]} {link.join(parts)}.")
    return [CaptionSegment(caption, tag_words(caption)) for caption in captions]


def _phrase(attributes: MotionAttributes, choice: int, tell_all: bool, rng: np.random.Generator) -> str:
    template = _PHRASES[attributes.action][choice]
    tell_speed, tell_amount = (True, True) if tell_all else rng.random(2) < 0.7
    speed = ""
    if attributes.speed and tell_speed:
        words = _SPEED_WORDS[attributes.speed]
        # "fast" stands only after its verb
        speed = words[rng.integers(len(words))] if template.endswith("{speed}") else words[0]
    both = attributes.side == "both"
    text = template.format(
        side=attributes.side,
        limb="both" if both else f"the {attributes.side}",
        s="s" if both else "",
        rotation=_ROTATION.get(attributes.side or ""),
        amount=_amount(attributes) if tell_amount else "",
        number=_NUMBERS[attributes.count] if attributes.count and tell_amount else "",
        speed=speed,
    )
    return " ".join(text.split())


def _amount(attributes: MotionAttributes) -> str:
    if attributes.degrees:
        return f"{attributes.degrees} degrees"
    if attributes.distance:
        return f"for {_NUMBERS[attributes.distance]} meter{'s' if attributes.distance > 1 else ''}"
    if attributes.count and attributes.action in _STEPPED:
        return f"for {_NUMBERS[attributes.count]} steps"
    if attributes.count:
        return _TIMES.get(attributes.count, f"{_NUMBERS[attributes.count]} times")
    return ""


# -------- Words

_TAGS = {
    "DET": "a an the this both",
    "NOUN": (
        "person figure circle place spot foot/feet feet leg arm arms/arm hand hands/hand fist head knees/knee "
        "waist floor ground object seat jacks/jack step steps/step meter meters/meter degrees/degree "
        "times/time front"
    ),
    "PRON": "someone somebody something",
    "AUX": "is/be",
    "CCONJ": "and",
    "PART": "to/to",
    "ADP": "in on onto with for from at above",
    "NUM": "one two three four five six seven eight nine 90 180",
    "ADJ": "left right still motionless high straight",
    "ADV": (
        "then slowly quickly fast forward backward backwards ahead sideways around up down again after "
        "together only overhead overhand once twice out that counterclockwise clockwise"
    ),
    "VERB": (
        "moves/move "
        "stands/stand standing/stand stays/stay remains/remain walks/walk walking/walk runs/run running/run "
        "sidesteps/sidestep stepping/step turns/turn turning/turn spins/spin marches/march marching/march "
        "lifting/lift jumps/jump jumping/jump hops/hop hopping/hop does/do doing/do performs/perform "
        "squats/squat squatting/squat gets/get sits/sit sit sitting/sit takes/take lowers/lower rises/rise "
        "lunges/lunge lunging/lunge kicks/kick kicking/kick punches/punch punching/punch waves/wave "
        "waving/wave raises/raise lifts/lift throws/throw throwing/throw balances/balance balancing/balance "
        "bows/bow bowing/bow bends/bend claps/clap clapping/clap picks/pick reaches/reach"
    ),
}


def _lexicon() -> dict[str, str]:
    entries = {}
    for tag, words in _TAGS.items():
        for entry in words.split():
            word, _, lemma = entry.partition("/")
            entries[word] = f"{lemma or word}/{tag}"
    return entries


_LEXICON = _lexicon()
_WORD = re.compile(r"[a-z0-9]+")


def tag_words(caption: str) -> tuple[str, ...]:
    """The words of a synthetic caption as `lemma/PART-OF-SPEECH`."""
    return tuple(_LEXICON[word] for word in _WORD.findall(caption))


# -------- Reading

_LINK = re.compile(r",? (?:and )?then(?: |$)|, after that(?: |$)")
_SUBJECT = re.compile(rf"^(?:{'|'.join(_SUBJECTS)}) ")
_NUMBER = rf"(?:{'|'.join(_NUMBERS[1:])}|[1-9])"
_IS = r"(?:is )?"
# What the phrase of each action, less its adverbs of speed, begins with.
_VERBS: dict[str, str] = {
    "idle": r"(?:stand(?:s|ing)|stays?|remains?) (?:still|motionless)\b",
    "walk": r"walk(?:s|ing) (?:straight )?(?:forward|ahead)\b",
    "run": r"run(?:s|ning) (?:straight )?(?:forward|ahead)\b",
    "walk_backward": r"(?:walks|walking|moves) backwards?\b",
    "sidestep": r"sidesteps\b|step(?:s|ping) sideways\b",
    "turn": r"turn(?:s|ing)\b",
    "spin": r"spin(?:s|ning)\b",
    "circle": r"walk(?:s|ing) (?=.*\bcircle\b)",
    "march": r"march(?:es|ing) (?:in place|on the spot)\b",
    "jump": r"jump(?:s|ing)\b(?!.*\b(?:forward|ahead|jacks)\b)",
    "jump_forward": r"jump(?:s|ing) (?:forward|ahead)\b",
    "hop": r"hop(?:s|ping)\b",
    "jumping_jack": rf"(?:does|doing|performs?) (?:{_NUMBER} )?jumping jacks\b",
    "squat": r"squat(?:s|ting)\b",
    "sit_down": r"sits down\b|takes a seat\b|lowers down to sit\b",
    "stand_up": r"stands up\b|gets up from (?:a seat|sitting)\b|rises from (?:a seat|sitting)\b",
    "lunge": r"lung(?:es|ing)\b",
    "kick": r"kick(?:s|ing)\b",
    "punch": r"punch(?:es|ing)\b",
    "wave": r"wav(?:es|ing)\b",
    "raise_arm": r"(?:raises|lifts) (?:both|the (?:left|right)) (?:arm|hand)s?\b",
    "throw": r"throw(?:s|ing) (?:something|an object)\b",
    "balance": r"balanc(?:es|ing) on the\b|stands on the (?:left|right) (?:leg|foot)\b",
    "bow": r"bow(?:s|ing)\b|bends forward at the waist\b",
    "clap": r"clap(?:s|ping)\b",
    "pick_up": r"picks (?:something up|up something)\b|reaches down and picks something up\b",
}
_PATTERNS = {action: re.compile(f"{_IS}(?:{pattern})") for action, pattern in _VERBS.items()}
_MAY_RECUR = ("the", "up")
_SIDE = re.compile(r"\b(?:left|right|counterclockwise|clockwise|both(?! feet))\b")
_SIDES = {"left": "left", "counterclockwise": "left", "right": "right", "clockwise": "right", "both": "both"}
_SPEEDS = {word: speed for speed, words in _SPEED_WORDS.items() for word in words}
_AMOUNT = re.compile(rf"\b(?:once|twice|({_NUMBER}|[1-9]0|180) (times?|steps?|meters?|degrees|jumping jacks))\b")
_ANY_NUMBER = re.compile(rf"\b(?:once|twice|\d+|{'|'.join(_NUMBERS)})\b")


def read_attributes(caption: str) -> tuple[MotionAttributes, ...]:
    """The oracle: the attributes that a caption tells, one entry a segment.

    It is strict. A caption with a word that no synthetic caption has, with a segment it cannot name, a side too few or
    too many, a contradiction or a repetition is not read at all: the result is empty.

    Args:
        caption: a sentence in the manner of `write_captions`; case, full stop and spacing do not matter.

    Returns:
        What each segment tells; an attribute it does not tell is `None`.
    """
    text = " ".join(caption.lower().rstrip(" .\n").split())
    words = _WORD.findall(text)
    if any(word not in _LEXICON for word in words):
        return ()
    text = _SUBJECT.sub("", text)
    segments = [_read_segment(part) for part in _LINK.split(text)]
    return tuple(segment for segment in segments if segment) if all(segments) else ()


def _read_segment(text: str) -> MotionAttributes | None:
    words = [word for word in _WORD.findall(text) if word not in _MAY_RECUR]
    speeds = [word for word in text.split() if word in _SPEEDS]
    phrase = " ".join(word for word in text.split() if word not in _SPEEDS)
    actions = [action for action, pattern in _PATTERNS.items() if pattern.match(phrase)]
    sides = {_SIDES[word] for word in _SIDE.findall(phrase)}
    amounts = list(_AMOUNT.finditer(phrase))
    if len(actions) != 1 or len(speeds) > 1 or len(sides) > 1 or len(amounts) > 1:
        return None
    if len(set(words)) < len(words) or len(_ANY_NUMBER.findall(phrase)) != len(amounts):
        return None
    action = ACTIONS[actions[0]]
    side = next(iter(sides), None)
    speed = _SPEEDS[speeds[0]] if speeds else None
    count, distance, degrees = _read_amount(amounts[0]) if amounts else (None, None, None)
    told_wrongly = (
        (side not in action.sides if action.sides else side is not None)
        or (speed is not None and not action.paced)
        or (count is not None and not action.counts)
        or (distance is not None and not action.distances)
        or (degrees is not None and not action.degrees)
    )
    return None if told_wrongly else MotionAttributes(actions[0], side, speed, count, distance, degrees)


def _read_amount(match: re.Match[str]) -> tuple[int | None, int | None, int | None]:
    """Count, distance and degrees, one of which is told."""
    number, unit = match.groups()
    if number is None:
        return (1 if match.group() == "once" else 2), None, None
    value = _NUMBERS.index(number) if number in _NUMBERS else int(number)
    if unit.startswith("meter"):
        return None, value, None
    return (None, None, value) if unit == "degrees" else (value, None, None)
