"""Makes what `custom_data.md` starts from: a folder of BVH files and a table of their captions.

    python examples/custom_data.py takes [--takes-per-action 12] [--seed 0]

They stand in for your own recordings. Each of six actions is drawn anew for every file: another body, another pace,
another heading. The captions are worded as in no data set of the package.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from geomotiongpt import export_motion
from geomotiongpt.data.synthetic_actions import MotionAttributes
from geomotiongpt.data.synthetic_motion import generate_motion

ACTIONS = {
    "greeting": (MotionAttributes("bow", count=1), "the waiter greets a guest with a bow", "a waiter bows to a guest"),
    "warmup": (
        MotionAttributes("jumping_jack", count=4),
        "the waiter warms up with jumping jacks",
        "a waiter warms up",
    ),
    "applause": (MotionAttributes("clap", count=5), "the waiter applauds the cook", "a waiter claps for the cook"),
    "rush": (MotionAttributes("run", count=6), "the waiter rushes to a table", "a waiter runs to a table"),
    "retreat": (MotionAttributes("walk_backward", count=4), "the waiter retreats with a tray", "a waiter backs away"),
    "break": (MotionAttributes("sit_down"), "the waiter sits down for a break", "a waiter takes a seat"),
}


def main() -> None:
    """Writes the files and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder to write: BVH files and captions.csv")
    parser.add_argument("--takes-per-action", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(arguments.seed)
    with open(arguments.output / "captions.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "caption"])
        for name, (attributes, *captions) in ACTIONS.items():
            for number in range(arguments.takes_per_action):
                path = arguments.output / f"{name}_{number:02d}.bvh"
                export_motion(generate_motion([attributes], rng), path)
                table.writerows([path.name, caption] for caption in captions)
    print(f"{arguments.output}: {len(ACTIONS) * arguments.takes_per_action} BVH files and captions.csv")


if __name__ == "__main__":
    main()
