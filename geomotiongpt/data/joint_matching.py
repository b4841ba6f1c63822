"""Any rig's joints -> the 22 joints of the "humanml3d" skeleton, by what they are called and what they hang from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..models.motion_representation import get_motion_representation
from .joint_names import PARTS, JointName, read_joint_names
from .source_motion import SourceMotion

SKELETON = get_motion_representation("humanml3d")
_SIDES = ("left", "right")
_LIMBS = {"leg": ("hip", "knee", "ankle"), "arm": ("shoulder", "elbow", "wrist")}
# How the skeleton divides the way from pelvis to neck.
_SPINE = ("spine1", "spine2", "spine3")
_SPINE_PLACES = (0.24, 0.50, 0.60)
_SPINE_TOLERANCE = 0.08
_NAMES_OF_SPINE = ("spine", "chest", "thorax", "torso", "back", "abdomen", "waist", "sternum", "lumbar")
_NARROWEST_COLLARS = 0.15  # of the width of the shoulders
_SHORT = 0.02  # of the way from pelvis to neck: joints nearer than this are at one place
_ALONG = 0.9  # cosine
_NAMES_SHOWN = 40

Point = dict[int, float]  # a weighted sum of source points; the weights sum to 1


@dataclass(frozen=True)
class JointMatch:
    """How a joint of the skeleton was found.

    Args:
        joint: its name in the skeleton.
        weights: source points and their weights, which sum to 1; none of a joint that is estimated.
        source: the source points in words.
        reason: why these.
    """

    joint: str
    weights: Point
    source: str
    reason: str


def match_joints(source: SourceMotion, mapping: Mapping[str, Point] | None = None) -> list[JointMatch]:
    """Find the 22 joints of the "humanml3d" skeleton among the points of a file.

    Limbs are followed from hand and foot to the body by hierarchy, and named joints taken on the way; spine joints,
    collars, neck, head and toes that a rig lacks lie between those it has, or at end sites.

    Args:
        source: the file.
        mapping: joints that are given: name in the skeleton -> weighted source points.

    Returns:
        one match for each joint, in the order of the skeleton. The toes of a foot that ends in the ankle have no
        weights.

    Raises:
        ValueError: if joints that nothing can stand in for are missing; the message names them.
    """
    if source.layout is not None and not mapping:
        return [
            JointMatch(joint, {index: 1.0}, source.names[index], "the file's own order")
            for index, joint in enumerate(SKELETON.joint_names)
        ]
    return _Matcher(source, mapping or {}).match()


class _Matcher:
    def __init__(self, source: SourceMotion, mapping: Mapping[str, Point]):
        self.names, self.parents, self.ends = source.names, source.parents, source.ends
        self.pose = source.positions[0]
        # End sites have no names of their own, which would hide what those of the joints share.
        named = iter(read_joint_names([name for index, name in enumerate(self.names) if index not in self.ends]))
        self.read = [JointName("", "", False, True) if i in self.ends else next(named) for i in range(len(self.names))]
        self.found: dict[str, tuple[Point, str]] = {joint: (point, "mapping") for joint, point in mapping.items()}
        self.above: list[list[int]] = []  # of each point those it hangs from, nearest first
        self.hanging: list[list[int]] = [[] for _ in self.names]
        for index, parent in enumerate(self.parents or ()):
            self.above.append([] if parent < 0 else [parent, *self.above[parent]])
            if parent >= 0:
                self.hanging[parent].append(index)

    def match(self) -> list[JointMatch]:
        for side in _SIDES:
            for limb, parts in _LIMBS.items():
                self._match_limb(side, limb, parts)
        self._match_body()
        missing = [joint for joint in self._needed() if joint not in self.found]
        if missing:
            raise ValueError(
                f"no joint was recognised as {', '.join(missing)}. The file has: {_listed(self.names)}. Name the "
                "joints in a mapping file"
            )
        self._match_pelvis()
        self._match_spine()
        for side in _SIDES:
            self._match_collar(side)
            self._match_foot(side)
        return [self._told(joint) for joint in SKELETON.joint_names]

    def _needed(self) -> list[str]:
        return [f"{side}_{part}" for parts in _LIMBS.values() for part in parts for side in _SIDES] + ["head"]

    def _told(self, joint: str) -> JointMatch:
        point, reason = self.found[joint]
        shares = sorted(point.items(), key=lambda item: -item[1])
        if len(shares) == 1:
            return JointMatch(joint, point, self.names[shares[0][0]], reason)
        text = " + ".join(f"{weight:.0%} {self.names[index]}" for index, weight in shares)
        return JointMatch(joint, point, text or "-", reason)

    # Looking for names

    def _set(self, joint: str, point: int | Point, reason: str) -> None:
        self.found.setdefault(joint, ({point: 1.0} if isinstance(point, int) else point, reason))

    def _node(self, joint: str) -> int | None:
        """The source point that a joint was matched with, if it is one."""
        point = self.found.get(joint, ({}, ""))[0]
        return next(iter(point)) if len(point) == 1 else None

    def _named(self, part: str, side: str, among: Iterable[int], *, helpers: bool = False) -> int | None:
        """The point whose name says this part best; of equal ones that nearest to the root."""
        known = [i for i in among if self.read[i].side == side and i not in self.ends and not self.read[i].is_end]
        known = [i for i in known if helpers or not self.read[i].is_helper]
        for group in PARTS[part]:
            candidates = [index for index in known if self.read[index].part in group]
            if candidates:
                return min(candidates, key=self._depth)
        return None

    def _depth(self, index: int) -> tuple[int, int]:
        return (len(self.above[index]) if self.above else 0, index)

    def _below(self, index: int) -> list[int]:
        below = list(self.hanging[index])
        for other in below:  # grows as it runs
            below += self.hanging[other]
        return sorted(below)

    def _end_of(self, index: int) -> int | None:
        """The tip that hangs from a joint: an end site, or a joint named so."""
        tips = [i for i in self.hanging[index] if i in self.ends or self.read[i].is_end]
        return next((tip for tip in tips if self._distance(tip, index) > 0), None)

    def _off_the_middle(self, first: int, last: int, index: int) -> float:
        return abs(self._distance(index, first) - self._distance(index, last))

    def _distance(self, first: int, second: int) -> float:
        return float(np.linalg.norm(self.pose[first] - self.pose[second]))

    # Limbs

    def _match_limb(self, side: str, limb: str, parts: tuple[str, str, str]) -> None:
        """The three joints of a leg or an arm, from those named so on the way from hand or foot to the body."""
        first, middle, last = (f"{side}_{part}" for part in parts)
        tip = self._node(last)
        if tip is None and last not in self.found:
            tip = self._find_tip(side, parts)
        way = list(range(len(self.names))) if not self.above or tip is None else self.above[tip]
        start = self._named(parts[0], side, way) if first not in self.found else self._node(first)
        between = [i for i in way if i != start and (not self.above or start is None or start in self.above[i])]
        bend = self._named(parts[1], side, between) if middle not in self.found else self._node(middle)
        reasons = {first: "name", middle: "name", last: "name"}
        if self.above and tip is not None:
            plain = [index for index in between if not self.read[index].is_helper]
            if bend is None and start is not None and plain:
                bend = min(plain, key=partial(self._off_the_middle, start, tip))
                reasons[middle] = f"hierarchy: between {self.names[start]} and {self.names[tip]}"
            if start is None and bend is not None:
                start = next((i for i in self.above[bend] if self._distance(i, bend) > 0), None)
                reasons[first] = f"hierarchy: {self.names[bend]} hangs from it"
        if self.above and tip is None and bend is not None:
            tip = self._end_of(bend)
            reasons[last] = f"end of {self.names[bend]}"
        for joint, index in ((first, start), (middle, bend), (last, tip)):
            if index is not None:
                self._set(joint, index, reasons[joint])

    def _find_tip(self, side: str, parts: tuple[str, str, str]) -> int | None:
        """The wrist or the ankle by its name."""
        everything = range(len(self.names))
        if not self.above:
            return self._named(parts[2], side, everything)
        names = frozenset().union(*PARTS[parts[2]])
        middles = frozenset().union(*PARTS[parts[1]])
        candidates = [
            index
            for index in everything
            if self.read[index].side == side and self.read[index].part in names and index not in self.ends
            if not (self.read[index].is_helper or self.read[index].is_end)
        ]
        attached = [i for i in candidates if any(self.read[above].part in middles for above in self.above[i])]
        tip = min(attached or candidates, key=self._depth, default=None)
        if parts[2] == "wrist" and tip is not None:
            tip = self._real_wrist(side, tip, candidates)
        return tip

    def _real_wrist(self, side: str, tip: int, candidates: list[int]) -> int:
        """Acclaim's wrist turns in the middle of the forearm, and the hand begins at the real one."""
        elbow = self._named("elbow", side, self.above[tip])
        shoulder = self._named("shoulder", side, self.above[tip])
        if elbow is None or shoulder is None or elbow == shoulder:
            return tip
        upper = self._distance(shoulder, elbow)
        below = [index for index in candidates if tip in self.above[index]]
        return min([tip, *below], key=lambda index: abs(self._distance(elbow, index) - upper))

    # Body

    def _match_body(self) -> None:
        """Head and neck."""
        everything = range(len(self.names))
        chest = self._common([self._node(f"{side}_shoulder") for side in _SIDES])
        head = self._node("head") if "head" in self.found else self._named("head", "", everything)
        reason = "name"
        neck = self._named("neck", "", self.above[head] if self.above and head is not None else everything)
        if neck is None and self.above:
            neck = self._named("neck", "", self.above[head] if head is not None else everything, helpers=True)
        below = neck if neck is not None else chest
        if head is None and self.above and below is not None:
            head, neck_by_place = self._end_of_spine(below, 1 if neck is not None else 2)
            reason = "hierarchy: the end of the spine"
            neck = neck if neck is not None else neck_by_place
        if head is not None and head != neck:
            self._set("head", head, reason)
        if neck is not None:
            reason = "name" if "neck" in self.read[neck].part else "hierarchy: between chest and head"
            self._set("neck", neck, reason)
        elif head is not None and chest is not None and chest in self.above[head][1:]:
            neck = self.above[head][self.above[head].index(chest) - 1]
            self._set("neck", neck, "hierarchy: between chest and head")
        shoulders = [self.found[f"{side}_shoulder"][0] for side in _SIDES if f"{side}_shoulder" in self.found]
        if "head" in self.found and len(shoulders) == 2:
            low = _blend((0.5, shoulders[0]), (0.5, shoulders[1]))
            self._set("neck", _blend((0.64, low), (0.36, self.found["head"][0])), "between shoulders and head")

    def _end_of_spine(self, below: int, most: int) -> tuple[int | None, int | None]:
        """Head and neck where no joint is called head: the last joints in the middle of the body, going up.

        An end site is one of them if at most so many joints, that below included, are.
        """
        arms = {i for side in _SIDES for i in [self._node(f"{side}_shoulder")] if i is not None}
        way = [below]
        while True:
            hanging = [i for i in self.hanging[way[-1]] if not self.read[i].side]
            hanging = [i for i in hanging if not any(i == arm or i in self.above[arm] for arm in arms)]
            centred = [i for i in hanging if i not in self.ends] or (hanging if len(way) <= most else [])
            if len(centred) != 1:
                break
            way.append(centred[0])
        middle = [index for index in way[1:] if self._distance(index, below) > 0]
        if not middle:
            return None, None
        return middle[-1], middle[0] if len(middle) > 1 else None

    def _common(self, points: Sequence[int | None]) -> int | None:
        """The joint from which all of them hang."""
        known = [point for point in points if point is not None]
        if not self.above or len(known) < len(points):
            return None
        return next((i for i in self.above[known[0]] if all(i in self.above[other] for other in known)), None)

    def _match_pelvis(self) -> None:
        hips = [self._node(f"{side}_hip") for side in _SIDES]
        common = self._common(hips)
        if common is None:
            pelvis = self._named("hips", "", [i for i in range(len(self.names)) if i not in hips])
            if pelvis is not None:
                self._set("pelvis", pelvis, "name")
            low = _blend(*((0.5, self.found[f"{side}_hip"][0]) for side in _SIDES))
            self._set("pelvis", _blend((0.86, low), (0.14, self.found["neck"][0])), "between hips and neck")
            return
        shared = [common, *self.above[common]]
        for group in PARTS["hips"][:2]:
            named = [i for i in shared if self.read[i].part in group and not self.read[i].side]
            if named:
                self._set("pelvis", named[0], "name")
        self._set("pelvis", common, "hierarchy: both legs hang from it")

    def _match_spine(self) -> None:
        """Spine joints that lie about where the skeleton has them are taken, others interpolated."""
        if all(joint in self.found for joint in _SPINE):
            return
        pelvis, neck = self.found["pelvis"][0], self.found["neck"][0]
        way = [pelvis, *({index: 1.0} for index in self._spine_between(pelvis, neck)), neck]
        places = np.array([_place(point, self.pose) for point in way])
        lengths = np.linalg.norm(np.diff(places, axis=0), axis=1)
        total = lengths.sum()
        if not total > 0:
            raise ValueError("pelvis and neck are at one place: the file has no body")
        shares = np.concatenate([[0.0], np.cumsum(lengths)]) / total
        for joint, share in zip(_SPINE, _SPINE_PLACES, strict=True):
            near = [i for i in range(1, len(way) - 1) if abs(shares[i] - share) <= _SPINE_TOLERANCE]
            near = [i for i in near if all(self._node(other) != next(iter(way[i])) for other in _SPINE)]
            if near:
                best = min(near, key=lambda index: abs(shares[index] - share))
                self._set(joint, way[best], f"place: {shares[best]:.0%} of the way from pelvis to neck")
                continue
            after = int(np.searchsorted(shares, share))
            part = (share - shares[after - 1]) / (shares[after] - shares[after - 1])
            point = _blend((1 - part, way[after - 1]), (part, way[after]))
            self._set(joint, point, f"interpolated: {share:.0%} of the way from pelvis to neck")

    def _spine_between(self, pelvis: Point, neck: Point) -> list[int]:
        """Joints between pelvis and neck, going up, without those at the place of another."""
        low, high = _place(pelvis, self.pose), _place(neck, self.pose)
        taken = {*pelvis, *neck}
        if self.above:
            tops = [next(iter(neck))] if len(neck) == 1 else [i for i in (self._node("head"),) if i is not None]
            start = next(iter(pelvis))
            way = [i for i in self.above[tops[0]] if i != start and i not in self.above[start]] if tops else []
            way.reverse()
        else:
            named = [i for i, name in enumerate(self.read) if any(word in name.part for word in _NAMES_OF_SPINE)]
            way = [i for i in named if not self.read[i].side]
            way = [i for i in way if 0 < (self.pose[i] - low) @ (high - low) < (high - low) @ (high - low)]
            way.sort(key=lambda index: (self.pose[index] - low) @ (high - low))
        spine: list[int] = []
        shortest = _SHORT * float(np.linalg.norm(high - low))
        for index in way:
            before = self.pose[spine[-1]] if spine else low
            apart = min(np.linalg.norm(self.pose[index] - before), np.linalg.norm(self.pose[index] - high))
            if index not in taken and apart > shortest:
                spine.append(index)
        return spine

    def _match_collar(self, side: str) -> None:
        joint = f"{side}_collar"
        if joint in self.found:
            return
        collars = [self._find_collar(each) for each in _SIDES]
        shoulders = [_place(self.found[f"{each}_shoulder"][0], self.pose) for each in _SIDES]
        collar = collars[_SIDES.index(side)]
        reason = "interpolated: between chest, neck and shoulder"
        if collar is not None and None not in collars:
            width = np.linalg.norm(self.pose[collars[0]] - self.pose[collars[1]])
            if width >= _NARROWEST_COLLARS * np.linalg.norm(shoulders[0] - shoulders[1]):
                self._set(joint, collar, "name" if self._is_called_collar(collar) else "hierarchy: holds the shoulder")
                return
            reason += f" ({self.names[collar]} lies in the middle)"
        # as the collars of the skeleton lie in its rest pose
        parts = (0.37, self.found["spine3"][0]), (0.26, self.found["neck"][0])
        self._set(joint, _blend(*parts, (0.37, self.found[f"{side}_shoulder"][0])), reason)

    def _is_called_collar(self, index: int) -> bool:
        return any(self.read[index].part in group for group in PARTS["collar"])

    def _find_collar(self, side: str) -> int | None:
        shoulder = self._node(f"{side}_shoulder")
        way = [index for index in range(len(self.names)) if index != shoulder]
        if self.above and shoulder is not None:
            way = self.above[shoulder]
        collar = self._named("collar", side, way)
        if collar is None and self.above and shoulder is not None:
            collar = next((i for i in way if self.read[i].side == side and not self.read[i].is_helper), None)
        return collar

    def _match_foot(self, side: str) -> None:
        joint, ankle = f"{side}_foot", self._node(f"{side}_ankle")
        if joint in self.found:
            return
        everything = [index for index in range(len(self.names)) if index != ankle]
        below = everything
        if self.above and ankle is not None:
            below = [index for index in self._below(ankle) if self._distance(index, ankle) > 0]
        foot = self._named("foot", side, below)
        if foot is not None:
            self._set(joint, self._ball_of_foot(side, foot), "name")
            return
        tip = self._end_of(ankle) if self.above and ankle is not None else None
        if tip is not None and ankle is not None and not self._goes_on(f"{side}_knee", ankle, tip):
            self._set(joint, {ankle: 0.35, tip: 0.65}, "65 % of the way from the ankle to the end of the foot")
            return
        self._set(joint, {}, "estimated: ahead of the ankle, square to the shin")

    def _ball_of_foot(self, side: str, toe: int) -> int:
        """Of ankle, foot and toe, as some rigs have them, foot or toe: what is as far from the ankle as usual."""
        ankle, knee = (self._node(f"{side}_{part}") for part in ("ankle", "knee"))
        foot = self.above[toe][0] if self.above else toe
        if ankle is None or knee is None or foot == ankle or self.read[foot].part != "foot":
            return toe
        usual = _FOOT_LENGTH * self._distance(knee, ankle)
        return min(toe, foot, key=lambda index: abs(self._distance(ankle, index) - usual))

    def _goes_on(self, knee: str, ankle: int, tip: int) -> bool:
        """Whether an end site goes on along the shin: programs put one there that know of no foot."""
        shin = self.pose[ankle] - _place(self.found[knee][0], self.pose)
        foot = self.pose[tip] - self.pose[ankle]
        return bool(shin @ foot > _ALONG * np.linalg.norm(shin) * np.linalg.norm(foot))


def _blend(*parts: tuple[float, Point]) -> Point:
    """A weighted sum of points."""
    total: Point = {}
    for weight, point in parts:
        for index, share in point.items():
            total[index] = total.get(index, 0.0) + weight * share
    return {index: share for index, share in total.items() if share}


def _place(point: Point, pose: np.ndarray) -> np.ndarray:
    """Where a weighted sum of points is in a pose (points, 3)."""
    return sum((weight * pose[index] for index, weight in point.items()), start=np.zeros(3))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(name[:40] for name in names[:_NAMES_SHOWN]) + more


# Placing them


def place_joints(matches: Sequence[JointMatch], positions: np.ndarray) -> np.ndarray:
    """Joints (frames, 22, 3) float64 of positions (frames, points, 3); the unit and the axes stay as they are."""
    joints = np.zeros((len(positions), len(matches), 3))
    for target, match in enumerate(matches):
        for index, weight in match.weights.items():
            joints[:, target] += weight * positions[:, index]
    for knee, ankle, foot in ((4, 7, 10), (5, 8, 11)):
        if not matches[foot].weights:
            across = joints[:, 1] - joints[:, 2]
            shin = joints[:, ankle] - joints[:, knee]
            ahead = np.cross(across, -shin)
            joints[:, foot] = joints[:, ankle] + _FOOT_LENGTH * (0.9 * _of_length(ahead, shin) + 0.42 * shin)
    return joints


_FOOT_LENGTH = 0.33  # of the shin


def _of_length(vectors: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Vectors (..., 3) with the lengths of others."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1) * np.linalg.norm(like, axis=-1, keepdims=True)
