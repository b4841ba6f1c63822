"""What every reader of motion files gives: the points of a file and how they move."""

from dataclasses import dataclass

import numpy as np

_LONGEST_NAME = 100


@dataclass(frozen=True, eq=False)
class SourceMotion:
    """The motion of a file, as it stands there.

    Args:
        kind: of file, in words.
        names: of the points: joints, end sites or markers.
        positions: (frames, points, 3) float64 in the file's unit and axes.
        parents: the point that each hangs from, -1 for a root; None where the file has no hierarchy.
        ends: points without a name of their own, such as end sites.
        fps: frames per second; None where nothing tells.
        fps_source: what told so.
        unit_in_metres: where the file tells, else None.
        unit_source: what told so.
        up: axis that points up, such as "y" or "-z", where the kind of file settles it, else None.
        rest: (points, 3) with all joints unturned, where the file has such a pose.
        layout: the points are the first joints of this skeleton, in its order: nothing needs to be matched.
        notes: what a reader of the report should know.
    """

    kind: str
    names: tuple[str, ...]
    positions: np.ndarray
    parents: tuple[int, ...] | None = None
    ends: frozenset[int] = frozenset()
    fps: float | None = None
    fps_source: str = "the file"
    unit_in_metres: float | None = None
    unit_source: str = ""
    up: str | None = None
    rest: np.ndarray | None = None
    layout: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        # Names are shown on terminals, where others' control characters have no business.
        shown = ("".join(sign if sign.isprintable() else "?" for sign in name[:_LONGEST_NAME]) for name in self.names)
        object.__setattr__(self, "names", tuple(shown))
