"""Tokenizing clips in padded batches against one by one, both in one run.

    python examples/benchmarks/batched_tokenizing.py [--output FILE.json]

Clips of 40 to 196 frames, a tokenizer of the small recipe and one of the paper's size; the codes of both ways are
compared, and the ratio of the medians is reported.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from geomotiongpt import MotionTokenizer, MotionTokenizerConfig
from geomotiongpt.evaluation.reconstruction import encode_clips
from geomotiongpt.evaluation.results import make_result, save_json

NUM_CLIPS, BATCH_SIZE = 128, 64
SIZES = {"small": {"num_codes": 128, "code_dim": 128, "hidden_size": 96}, "paper": {}}


def main() -> None:
    """Measures and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    clips = [rng.standard_normal((length, 263), np.float32) for length in rng.integers(40, 197, NUM_CLIPS)]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    metrics = {}
    for size, overrides in SIZES.items():
        model = MotionTokenizer(MotionTokenizerConfig(**overrides)).to(device).eval()
        seconds: dict[int, list[float]] = {1: [], BATCH_SIZE: []}
        codes = {}
        for index in range(arguments.rounds + 1):
            for batch_size in seconds:
                started = time.perf_counter()
                codes[batch_size] = encode_clips(model, clips, batch_size=batch_size)
                if index:
                    seconds[batch_size].append(time.perf_counter() - started)
        same = np.mean([np.array_equal(a, b) for a, b in zip(codes[1], codes[BATCH_SIZE], strict=True)])
        pairs = zip(seconds[1], seconds[BATCH_SIZE], strict=True)
        metrics[f"{size}_speedup"] = statistics.median(single / batched for single, batched in pairs)
        metrics[f"{size}_clips_per_second"] = NUM_CLIPS / statistics.median(seconds[BATCH_SIZE])
        metrics[f"{size}_clips_with_equal_codes"] = float(same)
    result = make_result(
        command="python examples/benchmarks/batched_tokenizing.py",
        model=SIZES,
        data={"clips": NUM_CLIPS, "frames": "40 to 196"},
        protocol={"batch_size": BATCH_SIZE, "rounds": arguments.rounds, "order": "in turn", "ratio": "median"},
        metrics=metrics,
    )
    save_json(result, arguments.output)
    for name, value in metrics.items():
        print(f"{name}: {value:.2f}")


if __name__ == "__main__":
    main()
