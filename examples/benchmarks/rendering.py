"""Seconds of motion drawn or exported a second, on one core, beside the same GIF by a 3-d matplotlib axis.

    python examples/benchmarks/rendering.py [--output FILE.json]

Seconds are those of the processor, so that other programs count little; one run.
"""

import argparse
import itertools
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from geomotiongpt import export_motion, get_motion_representation
from geomotiongpt.data.synthetic import generate_synthetic_clips
from geomotiongpt.evaluation.results import make_result, save_json

SECONDS, SIZE = 10, (640, 480)
SUFFIXES = (".gif", ".mp4", ".png", ".html", ".bvh", ".glb", ".npz", ".csv")


def main() -> None:
    """Measures and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    fps = get_motion_representation("humanml3d").fps
    joints = np.concatenate([clip.joints for clip in generate_synthetic_clips(10)])[: int(SECONDS * fps)]
    metrics, sizes = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for suffix in SUFFIXES:
            path = Path(folder) / f"motion{suffix}"
            export_motion(joints[:4], path)  # loads what it needs
            started = time.process_time()
            export_motion(joints, path, caption="a person moves")
            metrics[f"{suffix[1:]}_times_real_time"] = SECONDS / (time.process_time() - started)
            sizes[suffix[1:]] = path.stat().st_size
        started = time.process_time()
        draw_with_matplotlib(joints, Path(folder) / "matplotlib.gif", fps)
        metrics["matplotlib_gif_times_real_time"] = SECONDS / (time.process_time() - started)
    metrics["gif_over_matplotlib"] = metrics["gif_times_real_time"] / metrics["matplotlib_gif_times_real_time"]
    result = make_result(
        command="python examples/benchmarks/rendering.py",
        model={},
        data={"motion": "embedded", "seconds": SECONDS, "fps": fps},
        protocol={"clock": "processor time", "rounds": 1, "size": list(SIZE), "bytes": sizes},
        metrics=metrics,
    )
    save_json(result, arguments.output)
    for name, value in metrics.items():
        print(f"{name}: {value:.2f}")


def draw_with_matplotlib(joints: np.ndarray, path: Path, fps: float) -> None:
    """The usual way: a line a bone on a 3-d axis, and the root's path."""
    skeleton = get_motion_representation("humanml3d")
    bones = [bone for chain in skeleton.kinematic_chains for bone in itertools.pairwise(chain)]
    figure = Figure(figsize=(SIZE[0] / 100, SIZE[1] / 100), dpi=100)
    FigureCanvasAgg(figure)
    axis = figure.add_subplot(projection="3d")
    low, high = joints.min(axis=(0, 1)), joints.max(axis=(0, 1))
    axis.set(xlim=(low[0], high[0]), ylim=(low[2], high[2]), zlim=(0, high[1]), title="a person moves")
    lines = [axis.plot([], [], [], linewidth=4)[0] for _ in bones]
    (trail,) = axis.plot([], [], [])

    def draw(frame: int):
        for line, bone in zip(lines, bones, strict=True):
            line.set_data_3d(*joints[frame, list(bone)][:, [0, 2, 1]].T)
        path_so_far = joints[: frame + 1, 0]
        trail.set_data_3d(path_so_far[:, 0], path_so_far[:, 2], 0 * path_so_far[:, 1])
        return [*lines, trail]

    FuncAnimation(figure, draw, frames=len(joints)).save(path, PillowWriter(fps=int(fps)))


if __name__ == "__main__":
    main()
