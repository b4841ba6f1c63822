"""Training step of GeoMotionGPT against a stock GPT-2 with the same number of tokens, both in one run.

    python examples/benchmarks/language_model_step.py [--output FILE.json]

Both models see the same batch and train all weights; steps alternate, and the ratio of medians is reported. Beside it:
the step that scores labelled positions only (what training does), the one with motion values encoded on the fly, and
the one with text embeddings frozen, as with a pretrained base.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from geomotiongpt import GeoMotionGPTForCausalLM, MotionTokenizer, MotionTokenizerConfig
from geomotiongpt.evaluation.results import make_result, save_json

BATCH, CODES, ANSWER = 8, 24, 40
WIDTH, LAYERS, HEADS, TEXT_VOCABULARY = 512, 6, 8, 50257


def main() -> None:
    """Measures and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    steps = make_steps(device)
    seconds = time_in_turn(steps, arguments.rounds, device)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    stock = medians["stock_gpt2"]
    ratios = {
        f"{name}_over_stock": statistics.median(a / b for a, b in zip(values, seconds["stock_gpt2"], strict=True))
        for name, values in seconds.items()
        if name != "stock_gpt2"
    }
    result = make_result(
        command="python examples/benchmarks/language_model_step.py",
        model={"width": WIDTH, "layers": LAYERS, "heads": HEADS, "text_vocabulary": TEXT_VOCABULARY, "codes": 512},
        data={"batch": BATCH, "prompt_codes": CODES, "answer_tokens": ANSWER},
        protocol={
            "step": "forward, backward, AdamW; float32",
            "order": "in turn",
            "rounds": arguments.rounds,
            "ratio": "median over rounds",
        },
        metrics={**ratios, "stock_gpt2_median_seconds": stock},
    )
    save_json(result, arguments.output)
    for name, value in result["metrics"].items():
        print(f"{name}: {value:.3f}")


def make_steps(device: str) -> dict[str, Callable[[], None]]:
    """One optimisation step of each contestant, on the same batch."""
    motion = MotionTokenizerConfig(num_codes=512, code_dim=512, hidden_size=512)
    sizes = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS}
    base = GPT2LMHeadModel(GPT2Config(vocab_size=TEXT_VOCABULARY, **sizes))
    ours = GeoMotionGPTForCausalLM.from_components(base, MotionTokenizer(motion), freeze_text_embeddings=False)
    frozen = copy.deepcopy(ours)
    frozen.transformer.wte.weight.requires_grad_(False)
    stock = GPT2LMHeadModel(GPT2Config(vocab_size=ours.config.vocab_size, **sizes))
    config = ours.config
    text = torch.randint(TEXT_VOCABULARY, (BATCH, ANSWER))
    codes = torch.randint(config.first_motion_token_id, config.vocab_size, (BATCH, CODES))
    ids = torch.cat([codes, text], 1).to(device)
    labels = torch.cat([torch.full_like(codes, -100), text], 1).to(device)
    placeholders = torch.full_like(codes, config.motion_placeholder_token_id).to(device)
    with_values = {
        "input_ids": torch.cat([placeholders, ids[:, CODES:]], 1),
        "motion_values": torch.randn(BATCH, CODES * motion.downsampling_factor, motion.num_features, device=device),
    }
    return {
        "stock_gpt2": make_step(stock.to(device), {"input_ids": ids, "labels": labels}),
        "ours": make_step(ours.to(device), {"input_ids": ids, "labels": labels}),
        "ours_labelled_only": make_step(ours, {"input_ids": ids, "labels": labels, "skip_logits": True}),
        "ours_encoding_motion": make_step(ours, {**with_values, "labels": labels}),
        "ours_frozen_text": make_step(frozen.to(device), {"input_ids": ids, "labels": labels}),
    }


def make_step(model: torch.nn.Module, batch: dict) -> Callable[[], None]:
    """Forward, backward and update on one batch."""
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)

    def step() -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def time_in_turn(steps: dict[str, Callable[[], None]], rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of every step, the contestants taking turns, after two rounds of warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(rounds + 2):
        for name, step in steps.items():
            if device == "cuda":
                torch.cuda.synchronize()
            started = time.perf_counter()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            if index >= 2:
                seconds[name].append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    main()
