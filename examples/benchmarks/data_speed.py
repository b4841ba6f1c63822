"""Features from joints, in a batch and one by one in turn, and writing the embedded data set, on one core.

    python examples/benchmarks/data_speed.py [--output FILE.json]

Seconds are those of the processor, so that other programs count little; the best round is reported.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from geomotiongpt import joints_to_features
from geomotiongpt.data.synthetic import generate_synthetic_clips, make_synthetic_dataset
from geomotiongpt.evaluation.results import make_result, save_json

BATCH_SIZE, NUM_FRAMES, NUM_MOTIONS = 32, 200, 300


def main() -> None:
    """Measures and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clips = [torch.from_numpy(clip.joints) for clip in generate_synthetic_clips(BATCH_SIZE)]
    clips = [torch.cat([clip, clip[-1:].expand(NUM_FRAMES - len(clip), -1, -1)]) for clip in clips]
    batch = torch.stack(clips)
    batched, single, written = [], [], []
    for _ in range(arguments.rounds):
        batched.append(seconds(lambda: joints_to_features(batch)))
        single.append(seconds(lambda: [joints_to_features(clip) for clip in clips]))
    with tempfile.TemporaryDirectory() as folder:
        for index in range(3):
            written.append(seconds(partial(make_synthetic_dataset, Path(folder) / str(index), NUM_MOTIONS)))
    metrics = {
        "features_batched_ms_per_clip": 1e3 * min(batched) / BATCH_SIZE,
        "features_single_ms_per_clip": 1e3 * min(single) / BATCH_SIZE,
        "features_speedup": min(single) / min(batched),
        "synthetic_clips_per_second": NUM_MOTIONS / min(written),
    }
    result = make_result(
        command="python examples/benchmarks/data_speed.py",
        model={},
        data={"batch": BATCH_SIZE, "frames": NUM_FRAMES, "synthetic_clips": NUM_MOTIONS, "mirrored": True},
        protocol={"rounds": arguments.rounds, "clock": "processor time", "reported": "best round", "threads": 1},
        metrics=metrics,
    )
    save_json(result, arguments.output)
    for name, value in metrics.items():
        print(f"{name}: {value:.2f}")


def seconds(work: Callable[[], object]) -> float:
    """Processor time of a call."""
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
