"""What routing saves: each branch of a Mixture of Transformers on its own positions, against both on every position.

    python examples/benchmarks/routed_branches.py [--output FILE.json]

Both compute the same hidden states, which is checked first. Half of the positions are text, half motion.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor
from transformers import GPT2Config

from geomotiongpt import MotionGPT3Config, MotionGPT3ForCausalLM, MotionVAEConfig
from geomotiongpt.evaluation.results import make_result, save_json
from geomotiongpt.models.mixture_of_transformers import Routing


class EverywhereRouting(Routing):
    """Sends every position through both branches and keeps what the position's own branch made of it."""

    def split(self, states: Tensor) -> tuple[Tensor, Tensor]:
        rows = states.flatten(0, 1)
        return rows, rows

    def merge(self, text: Tensor, motion: Tensor) -> Tensor:
        is_motion = torch.zeros(len(text), dtype=torch.bool, device=text.device)
        is_motion[self.motion] = True
        is_motion = is_motion.view(-1, *[1] * (text.dim() - 1))
        return torch.where(is_motion, motion, text).unflatten(0, self.shape)


class EverywhereMotionGPT3(MotionGPT3ForCausalLM):
    """The same model, computing both branches on every position."""

    def _routing(self, *args) -> Routing:
        return EverywhereRouting(**vars(super()._routing(*args)))


def make_model(kind: type[MotionGPT3ForCausalLM], arguments: argparse.Namespace) -> MotionGPT3ForCausalLM:
    torch.manual_seed(0)
    text = GPT2Config(
        n_embd=arguments.width,
        n_layer=arguments.layers,
        n_head=arguments.width // 64,
        vocab_size=1000,
        bos_token_id=0,
        eos_token_id=0,
    )
    text.update({"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0})
    vae = MotionVAEConfig(latent_dim=64, num_layers=1, intermediate_size=64)
    config = MotionGPT3Config(text_config=text, motion_vae_config=vae, denoising_hidden_size=64)
    return kind(config).to(arguments.device)


def seconds(model: MotionGPT3ForCausalLM, embeds: Tensor, is_motion: Tensor, backward: bool) -> float:
    start = time.perf_counter()
    states = model.mix(embeds, is_motion).last_hidden_state
    if backward:
        states.square().mean().backward()
        model.zero_grad()
    if embeds.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Measures and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    models = {kind: make_model(kind, arguments) for kind in (MotionGPT3ForCausalLM, EverywhereMotionGPT3)}
    embeds = torch.randn(arguments.batch, arguments.length, arguments.width, device=arguments.device)
    is_motion = torch.zeros(arguments.batch, arguments.length, dtype=torch.bool, device=arguments.device)
    is_motion[:, : arguments.length // 2] = True
    with torch.no_grad():
        routed, everywhere = (model.mix(embeds, is_motion).last_hidden_state for model in models.values())
    metrics = {"largest_difference": (routed - everywhere).abs().max().item()}
    assert metrics["largest_difference"] < 1e-4, metrics
    for name, backward in (("forward", False), ("training_step", True)):
        ratios = []
        for number in range(arguments.rounds):  # in turn, so that both see the same machine
            times = {}
            for kind, model in list(models.items())[:: -1 if number % 2 else 1]:
                with torch.set_grad_enabled(backward):
                    times[kind] = seconds(model, embeds, is_motion, backward)
            ratios.append(times[EverywhereMotionGPT3] / times[MotionGPT3ForCausalLM])
        metrics[f"{name}_speedup"] = statistics.median(ratios)
    result = make_result(
        command="python examples/benchmarks/routed_branches.py",
        model={"width": arguments.width, "layers": arguments.layers, "parameters": model.num_parameters()},
        data={"batch": arguments.batch, "length": arguments.length, "motion": "half of the positions"},
        protocol={"order": "in turn, every other round in reverse", "ratio": "median over rounds", "dtype": "float32"},
        metrics=metrics,
    )
    save_json(result, arguments.output)
    for name, value in metrics.items():
        print(f"{name}: {value:.3g}")


if __name__ == "__main__":
    main()
