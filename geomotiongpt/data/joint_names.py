"""What the names of joints say in the rigs people use: side, body part, and whether a joint only helps to deform."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_LEFT = {"l", "left", "lft", "lf"}
_RIGHT = {"r", "right", "rgt", "rt"}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that say nothing of the part: what programs put before or behind the names of their joints.
_NOISE = _words(
    """armature b base bend bip bn bone bones c cc center centre character def j jc jnt joint joints jt m mch mid
    mixamorig org rig rl sk skel skeleton valve valvebiped"""
)
_HELPERS = _words(
    """adj control correct ctrl dummy effector fk helper ik jiggle offset phys pole prop roll share target twist
    weapon"""
)
_ENDS = _words("effector end nub nul null site tip")
_COMMON = 0.8  # share of the names that begin with a word for it to be the rig's, not the joint's

# Names of each part, those that say it most clearly first. Within a group they are equal.
PARTS: dict[str, tuple[frozenset[str], ...]] = {
    part: tuple(_words(group) for group in groups)
    for part, groups in {
        "hips": ("hips pelvis", "hip spinebase", "root"),
        "neck": ("neck lowerneck necklower neckbase", "upperneck"),
        "head": ("head", "skull", "upperneck"),
        "collar": ("collar clavicle clav collarbone scapula scap", "shoulder"),
        "shoulder": ("upperarm uparm armupper uarm humerus shldr bicep", "arm", "shoulder sjc shjc"),
        "elbow": ("elbow forearm lowerarm lowarm armlower farm loarm radius ulna ejc",),
        "wrist": ("wrist wjc handwrist", "hand palm"),
        "hip": ("upleg upperleg legupper thigh femur upthigh", "hip hjc", "leg"),
        "knee": ("knee shin calf tibia lowerleg lowleg leglower loleg foreleg kjc", "leg"),
        "ankle": ("ankle ajc footankle", "foot"),
        "foot": ("toe toes toebase ball toesbase foretoe bigtoe football", "foot"),
    }.items()
}
_KNOWN = frozenset().union(*(group for groups in PARTS.values() for group in groups))


@dataclass(frozen=True)
class JointName:
    """What a name says.

    Args:
        side: "left", "right" or "".
        part: its words without side, numbers and what all names of the rig share, in lower case, joined.
        is_helper: it is there to deform a mesh or to steer a rig, not to mark a joint.
        is_end: it marks the tip of a bone.
    """

    side: str
    part: str
    is_helper: bool
    is_end: bool


def read_joint_names(names: Sequence[str]) -> list[JointName]:
    """What each of a rig's names says, seen beside the others."""
    words = [_WORDS.findall(re.split(r"[:|]", name)[-1]) for name in names]
    words = _without_common_start(words)
    return [_read_name([word.lower() for word in of_name]) for of_name in words]


def _without_common_start(names: list[list[str]]) -> list[list[str]]:
    """Names without words that nearly all of them begin with, such as that of the figure."""
    for _ in range(3):
        counts = Counter(words[0].lower() for words in names if len(words) > 1)
        (first, count) = counts.most_common(1)[0] if counts else ("", 0)
        if count < max(3, _COMMON * len(names)) or first in _LEFT | _RIGHT:
            break
        names = [words[1:] if len(words) > 1 and words[0].lower() == first else words for words in names]
    return names


def _read_name(words: list[str]) -> JointName:
    sides = [word for word in words if word in _LEFT | _RIGHT]
    side = "" if not sides else "left" if sides[0] in _LEFT else "right"
    plain = [word for word in words if word not in _LEFT | _RIGHT and not word.isdigit()]
    kept = [word for word in plain if word not in _NOISE]
    part = "".join(word for word in kept if word not in _HELPERS | _ENDS)
    if not side:
        side, part = _fused_side(part)
    is_helper = not _HELPERS.isdisjoint(kept)
    return JointName(side, part, is_helper, not _ENDS.isdisjoint(kept))


def _fused_side(part: str) -> tuple[str, str]:
    """The side where it is written in one with the part: `leftthigh`, `lfemur`, `hipleft`."""
    for side, marks in (("left", ("left", "l")), ("right", ("right", "r"))):
        for mark in marks:
            if part.removeprefix(mark) != part and part.removeprefix(mark) in _KNOWN:
                return side, part.removeprefix(mark)
        if part.removesuffix(marks[0]) != part and part.removesuffix(marks[0]) in _KNOWN:
            return side, part.removesuffix(marks[0])
    return "", part
