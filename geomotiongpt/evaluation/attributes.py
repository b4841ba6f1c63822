"""Whether a caption names what a motion shows: action, side and style, read from its words."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..data.synthetic_captions import read_attributes


@dataclass(frozen=True)
class AttributeWords:
    """The phrases by which captions of a data set name its attributes.

    Args:
        phrases: attribute -> value -> phrases that name it. A value without phrases is what a caption means that
            names no other (an ordinary style). Where phrases overlap in a caption, the longest counts.
    """

    phrases: Mapping[str, Mapping[str, Sequence[str]]]

    @classmethod
    def from_labels(cls, labels: Mapping) -> "AttributeWords":
        """From a `labels.json` with `action` and `style` (value -> phrases) and `side` (a list of words).

        Raises:
            ValueError: if one of the three is missing.
        """
        missing = [name for name in ("action", "side", "style") if name not in labels]
        if missing:
            raise ValueError(f"the labels name no {', '.join(missing)}; wanted action, side and style.")
        side = {word: [word] for word in labels["side"]}
        return cls({"action": labels["action"], "side": side, "style": labels["style"]})

    def read(self, caption: str) -> dict[str, str | None]:
        """The value of each attribute that a caption names; None where it names none."""
        return {name: self._read_one(caption.lower(), values) for name, values in self.phrases.items()}

    @staticmethod
    def _read_one(caption: str, values: Mapping[str, Sequence[str]]) -> str | None:
        found = [
            (len(phrase), value)
            for value, phrases in values.items()
            for phrase in phrases
            if re.search(rf"\b{re.escape(phrase)}\b", caption)
        ]
        if found:
            return max(found)[1]
        return next((value for value, phrases in values.items() if not phrases), None)


def attribute_accuracy(
    captions: Sequence[str], references: Sequence[Sequence[str]], words: AttributeWords
) -> dict[str, dict[str, float | None]]:
    """Share of captions that name an attribute as the references do.

    Args:
        captions: one generated caption a motion.
        references: the captions of each motion; the value of an attribute is the one that most of them name.
        words: how captions name attributes.

    Returns:
        for each attribute `mean` (share right among the motions whose references name it, None if there are none)
        and `n` (how many those are).
    """
    result = {}
    read_captions = [words.read(caption) for caption in captions]
    read_references = [[words.read(reference) for reference in group] for group in references]
    for name in words.phrases:
        right = []
        for caption, group in zip(read_captions, read_references, strict=True):
            named = [reference[name] for reference in group if reference[name] is not None]
            if named:
                right.append(caption[name] == max(named, key=named.count))
        result[name] = _share(right)
    return result


def synthetic_accuracy(
    captions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, dict[str, float | None]]:
    """Accuracy on the embedded data, by its oracle.

    Args:
        captions: one generated caption a motion.
        references: the captions of each motion.

    Returns:
        `action`: share whose actions are those shown, in order; `side`: among the motions with a side, share whose
        sides are right, in order; each as `mean` and `n`.
    """
    actions, sides = [], []
    for caption, group in zip(captions, references, strict=True):
        said, shown = read_attributes(caption), read_attributes(group[0])
        actions.append([part.action for part in said] == [part.action for part in shown])
        if any(part.side for part in shown):
            sides.append([part.side for part in said] == [part.side for part in shown])
    return {
        "action": _share(actions),
        "side": _share(sides),
    }


def _share(right: Sequence[bool]) -> dict[str, float | None]:
    return {"mean": sum(right) / len(right) if right else None, "n": len(right)}
