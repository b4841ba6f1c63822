"""What routing saves: each branch of a Mixture of Transformers on its own positions, against both on every position.

Both compute the same hidden states (checked first). Half of the positions are text, half motion. Writes a JSON:

    python examples/benchmarks/routed_branches.py --output routed_branches.json
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from geomotiongpt import MotionGPT3Config, MotionGPT3ForCausalLM, MotionVAEConfig
from geomotiongpt.models.mixture_of_transformers import Routing

ROUNDS = 7


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
    text = GPT2Config(n_embd=arguments.width, n_layer=arguments.layers, n_head=arguments.width // 64, vocab_size=1000)
    text.update({"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0})
    vae = MotionVAEConfig(latent_dim=64, num_layers=1, intermediate_size=64)
    config = MotionGPT3Config(text_config=text, motion_vae_config=vae, denoising_hidden_size=64)
    assert isinstance(GPT2LMHeadModel(text).lm_head, torch.nn.Module)
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    arguments = parser.parse_args()
    models = {kind.__name__: make_model(kind, arguments) for kind in (MotionGPT3ForCausalLM, EverywhereMotionGPT3)}
    embeds = torch.randn(arguments.batch, arguments.length, arguments.width, device=arguments.device)
    is_motion = torch.zeros(arguments.batch, arguments.length, dtype=torch.bool, device=arguments.device)
    is_motion[:, : arguments.length // 2] = True
    with torch.no_grad():
        routed, everywhere = (model.mix(embeds, is_motion).last_hidden_state for model in models.values())
    difference = (routed - everywhere).abs().max().item()
    assert difference < 1e-4, f"the two differ by {difference}"
    result = {"largest_difference": difference, "threads": torch.get_num_threads(), **vars(arguments)}
    result["output"] = None if arguments.output is None else arguments.output.name
    for name, backward in (("forward", False), ("training_step", True)):
        times: dict[str, list[float]] = {kind: [] for kind in models}
        for _ in range(ROUNDS):  # in turn, so that both see the same machine
            for kind, model in models.items():
                with torch.set_grad_enabled(backward):
                    times[kind].append(seconds(model, embeds, is_motion, backward))
        best = {kind: min(values) for kind, values in times.items()}
        result[name] = {"seconds": best, "speedup": best["EverywhereMotionGPT3"] / best["MotionGPT3ForCausalLM"]}
        print(f"{name}: {result[name]['speedup']:.2f} times as fast")
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
