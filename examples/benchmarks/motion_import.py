"""Importing a minute of BVH at 120 frames per second, 7,200 frames, against reading and placing it number by number.

    python examples/benchmarks/motion_import.py [--output FILE.json]

The file is made here: a body with fingers, 52 joints. The naive side is what a short script does: `float` of each
word, and a chain of 3 x 3 products for each joint of each frame. Seconds are those of the processor, so that other
programs count little; the best round is reported.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from geomotiongpt import Bvh, import_motion, read_bvh, write_bvh
from geomotiongpt.evaluation.results import make_result, save_json

NUM_FRAMES, FPS = 7200, 120
ROUNDS = 5
# Name, parent and place in centimetres; L and R stand for both sides.
BODY = """Hips - 0 95 0
Spine Hips 0 107 -1
Spine1 Spine 0 119 0
Spine2 Spine1 0 131 0
Neck Spine2 0 147 -2
Head Neck 0 158 2
LeftShoulder Spine2 6 143 0
LeftArm LeftShoulder 18 143 -2
LeftForeArm LeftArm 45 143 -3
LeftHand LeftForeArm 70 143 -3
LeftUpLeg Hips 9 88 0
LeftLeg LeftUpLeg 9.5 49 1
LeftFoot LeftLeg 9 9 -3
LeftToeBase LeftFoot 9.5 2 10"""
FINGERS = ("Thumb", "Index", "Middle", "Ring", "Pinky")


def main() -> None:
    """Measures and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = write_bvh(make_motion(), Path(folder) / "minute.bvh")
        megabytes = path.stat().st_size / 2**20
        error = np.abs(read_naively(path) - read_bvh(path).joint_positions()).max()
        whole, read, naive = [], [], []
        for _ in range(ROUNDS):
            whole.append(seconds(lambda: import_motion(path)))
            read.append(seconds(lambda: read_bvh(path).joint_positions()))
        naive.append(seconds(lambda: read_naively(path)))
    metrics = {
        "import_seconds": min(whole),
        "read_and_place_seconds": min(read),
        "naive_read_and_place_seconds": min(naive),
        "read_and_place_speedup": min(naive) / min(read),
        "largest_difference_cm": float(error),
    }
    result = make_result(
        command="python examples/benchmarks/motion_import.py",
        model={},
        data={"frames": NUM_FRAMES, "fps": FPS, "joints": len(rows()), "megabytes": round(megabytes, 1)},
        protocol={"rounds": ROUNDS, "clock": "processor time", "reported": "best round; the naive side runs once"},
        metrics=metrics,
    )
    save_json(result, arguments.output)
    for name, value in metrics.items():
        print(f"{name}: {value:.3g}")


def rows() -> list[tuple[str, str, tuple[float, ...]]]:
    """Name, parent and place of each joint, parents first."""
    found = []
    for line in BODY.splitlines():
        name, parent, *place = line.split()
        found.append((name, parent, tuple(map(float, place))))
        if name == "LeftHand":
            for finger in FINGERS:
                for bone in "123":
                    before = "LeftHand" if bone == "1" else f"LeftHand{finger}{int(bone) - 1}"
                    found.append((f"LeftHand{finger}{bone}", before, (70 + 4.0 * int(bone), 143, -3)))
    right = [(n.replace("Left", "Right"), p.replace("Left", "Right"), (-x, y, z)) for n, p, (x, y, z) in found]
    return found + [row for row in right if row[0].startswith("Right")]


def make_motion() -> Bvh:
    """Every joint turns, and the root moves."""
    names, above, places = zip(*rows(), strict=True)
    parents = [names.index(parent) if parent != "-" else -1 for parent in above]
    offsets = np.array([np.subtract(at, places[p] if p >= 0 else 0) for at, p in zip(places, parents, strict=True)])
    time_, joint, axis = np.ogrid[:NUM_FRAMES, : len(names), :3]
    rotations = 15 * np.sin(time_ / (20 + joint) + axis)
    root = offsets[0] + np.arange(NUM_FRAMES)[:, None] * [0, 0, 1.0]
    return Bvh.from_rotations(names, parents, offsets, root, rotations, 1 / FPS)


def read_naively(path: Path) -> np.ndarray:
    """Positions (frames, joints, 3), as a short script has them; the hierarchy is taken from the fast reader."""
    bvh = read_bvh(path)
    lines = path.read_text().split("Frame Time:")[1].splitlines()[1:]
    turn = {"X": turn_x, "Y": turn_y, "Z": turn_z}
    frames = []
    for line in lines:
        values = iter([float(word) for word in line.split()])
        rotations: list[np.ndarray] = []
        places: list[np.ndarray] = []
        for joint, channels in enumerate(bvh.channels):
            parent = bvh.parents[joint]
            step, own = bvh.offsets[joint].copy(), np.eye(3)
            for channel in channels:
                if channel.endswith("position"):
                    step["XYZ".index(channel[0])] = next(values)
                else:
                    own = own @ turn[channel[0]](np.radians(next(values)))
            rotations.append(own if parent < 0 else rotations[parent] @ own)
            places.append(step if parent < 0 else places[parent] + rotations[parent] @ step)
        frames.append(places)
    return np.array(frames)


def turn_x(angle: float) -> np.ndarray:
    """Rotation about x."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])


def turn_y(angle: float) -> np.ndarray:
    """Rotation about y."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])


def turn_z(angle: float) -> np.ndarray:
    """Rotation about z."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


def seconds(work: Callable[[], object]) -> float:
    """Processor time of a call."""
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
