"""Whether a caption names what a motion shows: action, side and style, read from its words."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..data.synthetic_captions import read_attributes

_THEN = " then "
_Z = 1.96  # standard deviations on either side of a 95% interval


class AttributeReader(Protocol):
    """Reads attributes from captions."""

    @property
    def names(self) -> Sequence[str]:
        """Of the attributes."""

    def read(self, caption: str) -> dict[str, str | None]:
        """The value of each attribute that a caption names; None where it names none."""


@dataclass(frozen=True)
class AttributeWords:
    """The phrases by which captions of a data set name its attributes.

    Args:
        phrases: attribute -> value -> phrases that name it. A value without phrases is what a caption means that
            names no other (an ordinary style). Where phrases overlap in a caption, the longest counts.
    """

    phrases: Mapping[str, Mapping[str, Sequence[str]]]

    @property
    def names(self) -> Sequence[str]:
        """Of the attributes."""
        return tuple(self.phrases)

    @classmethod
    def from_labels(cls, labels: Mapping) -> "AttributeWords":
        """From a `labels.json` with `action` and `style` (value -> phrases) and `side` (a list of words).

        Raises:
            ValueError: if one of the three is missing or no such thing.
        """
        if not isinstance(labels, Mapping):
            raise ValueError(f"the labels are {labels!r}; wanted an object with action, side and style.")
        missing = [name for name in ("action", "side", "style") if name not in labels]
        if missing:
            raise ValueError(f"the labels name no {', '.join(missing)}; wanted action, side and style.")
        lists = {"side": labels["side"]}
        for name in ("action", "style"):
            if not isinstance(labels[name], Mapping):
                raise ValueError(f"{name} of the labels is {labels[name]!r}; wanted an object of value -> phrases.")
            lists |= {f"{name} {value!r}": phrases for value, phrases in labels[name].items()}
        for name, phrases in lists.items():
            if not isinstance(phrases, list) or not all(isinstance(text, str) and text.strip() for text in phrases):
                raise ValueError(f"{name} of the labels is {phrases!r}; wanted a list of strings with words.")
        side = {word: [word] for word in labels["side"]}
        return cls({"action": labels["action"], "side": side, "style": labels["style"]})

    def read(self, caption: str) -> dict[str, str | None]:
        """The value of each attribute that a caption names; None where it names none.

        An empty caption names nothing, also no value without phrases (see the class).
        """
        if not caption.strip():
            return dict.fromkeys(self.phrases)
        return {name: self._read_one(caption.lower(), values) for name, values in self.phrases.items()}

    @staticmethod
    def _read_one(caption: str, values: Mapping[str, Sequence[str]]) -> str | None:
        found = [
            (len(phrase), value)
            for value, phrases in values.items()
            for phrase in phrases
            if re.search(rf"(?<!\w){re.escape(phrase.lower())}(?!\w)", caption)
        ]
        if found:
            return max(found)[1]
        return next((value for value, phrases in values.items() if not phrases), None)


class EmbeddedAttributes:
    """Reads captions of the embedded synthetic data by its oracle: the actions in order, and the sides in order."""

    names = ("action", "side")

    def read(self, caption: str) -> dict[str, str | None]:
        """Actions joined by "then", and sides likewise ("-" for a part without one); None where there is none."""
        parts = read_attributes(caption)
        sides = _THEN.join(part.side or "-" for part in parts) if any(part.side for part in parts) else None
        return {"action": _THEN.join(part.action for part in parts) or None, "side": sides}

    @staticmethod
    def is_single(action: str) -> bool:
        """Whether it is one action and no sequence of several."""
        return _THEN not in action


def shown_attributes(references: Sequence[Sequence[str]], reader: AttributeReader) -> dict[str, list[str | None]]:
    """What each motion shows, as most of its references name it.

    Args:
        references: the captions of each motion.
        reader: how captions name attributes.

    Returns:
        attribute -> value of each motion; None where no reference names one.
    """
    shown: dict[str, list[str | None]] = {name: [] for name in reader.names}
    for group in references:
        read = [reader.read(reference) for reference in group]
        for name, values in shown.items():
            named = [reference[name] for reference in read if reference[name] is not None]
            values.append(max(named, key=named.count) if named else None)
    return shown


def attribute_accuracy(
    captions: Sequence[str], references: Sequence[Sequence[str]], reader: AttributeReader
) -> dict[str, dict[str, float | None]]:
    """Share of captions that name an attribute as the references do.

    Args:
        captions: one generated caption a motion.
        references: the captions of each motion; the value of an attribute is the one that most of them name.
        reader: how captions name attributes.

    Returns:
        for each attribute `mean` (share right among the motions whose references name it), `ci95` (half the width of
        its 95% interval, Agresti and Coull 1998, which is not 0 at 0% and 100%) and `n` (how many motions those are);
        None for both where there are none.
    """
    read = [reader.read(caption) for caption in captions]
    result = {}
    for name, values in shown_attributes(references, reader).items():
        pairs = zip(read, values, strict=True)
        result[name] = share([caption[name] == value for caption, value in pairs if value is not None])
    return result


def share(right: Sequence[bool]) -> dict[str, float | None]:
    """How many are right, as `mean`, `ci95` and `n`; see `attribute_accuracy`."""
    n = len(right)
    if not n:
        return {"mean": None, "ci95": None, "n": 0}
    adjusted = (sum(right) + _Z**2 / 2) / (n + _Z**2)
    return {"mean": sum(right) / n, "ci95": _Z * (adjusted * (1 - adjusted) / (n + _Z**2)) ** 0.5, "n": n}
