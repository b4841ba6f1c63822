"""Decoding: what constraints cost, and what batches gain, all sides in one run.

    python examples/benchmarks/decoding.py [--output FILE.json]

Two sizes with random weights: that of the small recipes, and GPT-2's 124M with the paper's codes. Captions are decoded
to a fixed length, constrained and unconstrained in turn; then 32 motions in one batch against one by one.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from geomotiongpt import GeoMotionGPTForCausalLM, MotionTokenizer, MotionTokenizerConfig
from geomotiongpt.evaluation.results import make_result, save_json

BATCH, CODES = 32, 24
SIZES = {
    "small": ({"n_embd": 128, "n_inner": 256, "n_layer": 2, "n_head": 4, "vocab_size": 500}, 128, 40),
    "gpt2": ({"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257}, 512, 40),
}


def main() -> None:
    """Measures and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--rounds", type=int, default=80, help="of the small size; a twentieth of them of GPT-2's")
    arguments = parser.parse_args()
    metrics = {}
    for name, (sizes, num_codes, new_tokens) in SIZES.items():
        rounds = arguments.rounds if name == "small" else max(3, arguments.rounds // 20)
        metrics |= {f"{name}_{key}": value for key, value in measure(sizes, num_codes, new_tokens, rounds).items()}
    result = make_result(
        command="python examples/benchmarks/decoding.py",
        model={name: {**sizes, "num_codes": codes} for name, (sizes, codes, _) in SIZES.items()},
        data={"batch": BATCH, "prompt_codes": CODES, "new_tokens": {name: size[2] for name, size in SIZES.items()}},
        protocol={
            "decoding": "greedy, with cache, float32, always to the full length",
            "order": "in turn, every other round in reverse",
            "ratio": "median over rounds",
        },
        metrics=metrics,
    )
    save_json(result, arguments.output)
    for name, value in metrics.items():
        print(f"{name}: {value:.3f}")


def measure(sizes: dict[str, int], num_codes: int, new_tokens: int, rounds: int) -> dict[str, float]:
    """Ratios of one size."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    base = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    tokenizer = MotionTokenizer(MotionTokenizerConfig(num_codes=num_codes, code_dim=num_codes, hidden_size=32))
    model = GeoMotionGPTForCausalLM.from_components(base, tokenizer).to(device).eval()
    config = model.config
    codes = torch.randint(config.first_motion_token_id, config.vocab_size, (BATCH, CODES), device=device)
    end = torch.full((BATCH, 1), config.motion_end_token_id, device=device)
    prompts = torch.cat([codes, end], 1)
    options = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False}

    def caption(ids: torch.Tensor, constrained: bool = True) -> torch.Tensor:
        return model.generate(ids, attention_mask=torch.ones_like(ids), constrained=constrained, **options)

    seconds = time_in_turn(
        {
            "constrained": lambda: caption(prompts),
            "free": lambda: caption(prompts, constrained=False),
            "one": lambda: caption(prompts[:1]),
            "one_free": lambda: caption(prompts[:1], constrained=False),
            "singly": lambda: [caption(row[None]) for row in prompts],
        },
        rounds,
    )
    return {
        "constrained_over_free_batch": ratio(seconds["constrained"], seconds["free"]),
        "constrained_over_free_single": ratio(seconds["one"], seconds["one_free"]),
        "singly_over_batch": ratio(seconds["singly"], seconds["constrained"]),
    }


def ratio(above: list[float], below: list[float]) -> float:
    """Median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def time_in_turn(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every contestant, which take turns, in this order and in the reverse, after a round of warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for index in range(rounds + 1):
        for name, run in list(contestants.items())[:: -1 if index % 2 else 1]:
            started = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if index:
                seconds[name].append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    main()
