"""LLaMo's streaming: time to the first frame, frames per second, where the time goes, and memory of a long stream.

    python examples/benchmarks/streaming.py [--sizes tiny qwen3-0.6b] [--device cuda] [--output FILE.json]

Models have random weights: "tiny" the sizes of hub_configs/llamo-tiny, the others those of a published language model
with the paper's codec and flow head, all with 272 features at 30 frames per second. On a CPU times are those of the
processor, which other programs do not lengthen; on a GPU those of the clock. Contestants take turns in one run.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from geomotiongpt import (
    CausalMotionCodec,
    CausalMotionCodecConfig,
    DenoisingHead,
    LLaMoForCausalLM,
    LLaMoProcessor,
    MotionFeatureExtractor,
)
from geomotiongpt.evaluation.results import make_result, save_json
from geomotiongpt.models.flow_graphs import FlowGraphs
from geomotiongpt.models.processing_llamo import GIVEN
from geomotiongpt.models.task_prompts import MotionTaskExample
from geomotiongpt.training.text_tokenizer import train_text_tokenizer

TEXT = "a person walks forward, turns around to the left and sits down."
FPS, FRAMES_OF_LATENT = 30, 4
# Of the language model; of the codec; of the flow head; most latents that the language model sees
SIZES = {
    "tiny": (
        {"model_type": "llama", "num_hidden_layers": 4, "hidden_size": 128, "intermediate_size": 384,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "vocab_size": 2000},
        {"hidden_size": 256, "latent_dim": 16},
        {"denoising_hidden_size": 256, "denoising_num_layers": 3},
    ),
    "qwen3-0.6b": (
        {"model_type": "qwen3", "num_hidden_layers": 28, "hidden_size": 1024, "intermediate_size": 3072,
         "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960,
         "vocab_size": 151936},
        {},
        {},
    ),
    "llama-3.2-1b": (
        {"model_type": "llama", "num_hidden_layers": 16, "hidden_size": 2048, "intermediate_size": 8192,
         "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 131072,
         "vocab_size": 128256},
        {},
        {},
    ),
}  # fmt: skip
WINDOW = 50  # latents
MEMORY_MINUTES = (1, 5, 10)


def main() -> None:
    """Measures and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["tiny", "qwen3-0.6b"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--latents", type=int, default=48, help="of a motion; at most 50, the window (default: 48)")
    parser.add_argument("--large-latents", type=int, default=3, help="with the larger sizes on a CPU (default: 3)")
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 25, 50])
    parser.add_argument("--rounds", type=int, default=5, help="of what is compared (default: 5)")
    arguments = parser.parse_args()
    metrics, parameters = {}, {}
    for size in arguments.sizes:
        model, processor = make_model(size, arguments.device)
        parameters[size] = model.num_parameters()
        is_large = size != "tiny" and arguments.device == "cpu"
        latents = arguments.large_latents if is_large else arguments.latents
        rounds = 1 if is_large else arguments.rounds
        measured = {}
        if not is_large:  # first, before anything else can have taken memory
            measured |= memory(model, processor)
        measured |= flow_loops(model, max(arguments.steps), rounds)
        measured |= caches(model, processor, latents)
        if arguments.device == "cuda":
            model.compile_flow_loop()
        for steps in arguments.steps:
            for scale in (1.0, 4.0):
                for batch in (1, 4):
                    name = f"steps_{steps}_{'guided' if scale != 1 else 'unguided'}_batch_{batch}"
                    values = speed(model, processor, latents, steps, scale, batch)
                    measured |= {f"{name}_{key}": value for key, value in values.items()}
        for key, value in measured.items():
            print(f"{size}_{key}: {value:.4g}", flush=True)
        metrics |= {f"{size}_{key}": value for key, value in measured.items()}
        del model
    result = make_result(
        command=f"python examples/benchmarks/streaming.py --sizes {' '.join(arguments.sizes)} "
        f"--device {arguments.device} --large-latents {arguments.large_latents}",
        model={size: {"parameters": number, "weights": "random"} for size, number in parameters.items()},
        data={"text": TEXT, "frames_per_second": FPS, "frames_of_a_latent": FRAMES_OF_LATENT},
        protocol={
            "time": "of the processor" if arguments.device == "cpu" else "of the clock",
            "latents": {"tiny": arguments.latents, "larger": arguments.large_latents},
            "dtype": "float32",
            "batch 1": "stream_motion; frames per second are those after the first latent",
            "batch 4": "generate_motion; frames per second of each motion over the whole call, decoded at its end",
            "shares": "of the whole call",
            "order": "what is compared in turn, ratios are medians over rounds",
            "memory": "2 Euler steps a latent, with guidance",
        },
        metrics=metrics,
    )
    save_json(result, arguments.output)


def make_model(size: str, device: str) -> tuple[LLaMoForCausalLM, LLaMoProcessor]:
    """A model of random weights and its processor."""
    torch.manual_seed(0)
    language, codec, flow = SIZES[size]
    base = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**language, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0)
    )
    model = LLaMoForCausalLM.from_language_model(
        base, CausalMotionCodec(CausalMotionCodecConfig(**codec)), max_motion_latents=WINDOW, **flow
    )
    extractor = MotionFeatureExtractor(
        mean=np.zeros(272), std=np.ones(272), representation="streaming272", downsampling_factor=FRAMES_OF_LATENT
    )
    tokenizer = train_text_tokenizer([[TEXT]], 320)
    return model.to(device).eval(), LLaMoProcessor.from_components(extractor, tokenizer, model.config)


def now(model: LLaMoForCausalLM) -> float:
    """Seconds of the processor, or of the clock once the GPU has done what it was given."""
    if model.device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def timed_parts(model: LLaMoForCausalLM) -> Iterator[dict[str, float]]:
    """Seconds that flow loop, language model and codec decoder take meanwhile."""
    parts = {
        "flow_loop": (model.denoising_head, "sample"),
        "language_model": (model, "mix"),
        "decoder": (model.motion_codec.decoder, "forward"),
    }
    seconds = dict.fromkeys(parts, 0.0)

    def timed(part: str, function: Callable) -> Callable:
        def run(*args, **kwargs):
            started = now(model)
            result = function(*args, **kwargs)
            seconds[part] += now(model) - started
            return result

        return run

    for part, (owner, name) in parts.items():
        setattr(owner, name, timed(part, getattr(owner, name)))
    try:
        yield seconds
    finally:
        for owner, name in parts.values():
            delattr(owner, name)


def speed(
    model: LLaMoForCausalLM, processor: LLaMoProcessor, latents: int, steps: int, scale: float, batch: int
) -> dict[str, float]:
    """Time to the first frame (of a stream), frames per second of each motion, shares of the parts."""
    options = {
        "num_frames": latents * FRAMES_OF_LATENT,
        "num_denoising_steps": steps,
        "guidance_scale": scale,
        "processor": processor,
    }
    metrics: dict[str, float] = {}
    if model.device.type == "cuda":  # records the graph
        model.generate_motion([TEXT] * batch, **options | {"num_frames": FRAMES_OF_LATENT})
    with timed_parts(model) as seconds:
        started = now(model)
        if batch == 1:
            stream = model.stream_motion(TEXT, **options)
            next(stream)
            first = now(model)
            frames = sum(map(len, stream))
            metrics["seconds_to_first_frame"] = first - started
            metrics["frames_per_second"] = frames / (now(model) - first)
        else:
            model.generate_motion([TEXT] * batch, **options)
            metrics["frames_per_second"] = latents * FRAMES_OF_LATENT / (now(model) - started)
        whole = now(model) - started
    return metrics | {f"{part}_share": value / whole for part, value in seconds.items()}


@torch.no_grad()
def step_by_step(head: DenoisingHead, condition: Tensor, null: Tensor, steps: int, scale: float) -> Tensor:
    """What `DenoisingHead.sample` does, with the whole network at every step, as in training."""
    embeddings = head.condition_encoder(condition if scale == 1 else torch.cat([condition, null]))
    latents = torch.randn(len(condition), head.latent_size, generator=seeded()).to(condition.device)
    for step in range(steps):
        moment = torch.full((1,), 1000 * step / steps, device=condition.device)
        if scale == 1:
            velocity = head.denoiser(latents, moment, embeddings)
        else:
            given, without = head.denoiser(latents.repeat(2, 1), moment, embeddings).chunk(2)
            velocity = without + scale * (given - without)
        latents = latents + velocity / steps
    return latents


def flow_loops(model: LLaMoForCausalLM, steps: int, rounds: int) -> dict[str, float]:
    """The flow loop with all modulations at once against the whole network at every step, and as a CUDA graph."""
    head, width = model.denoising_head, model.config.hidden_size
    metrics = {}
    for scale in (1.0, 4.0):
        condition, null = torch.randn(2, 1, 1, width, generator=seeded()).to(model.device)
        options = {"num_steps": steps, "guidance_scale": scale, "unconditional": null}

        def sample(graphs: FlowGraphs | None = None, condition=condition, options=options) -> Tensor:
            head.flow_graphs = graphs
            return head.sample(condition, generator=seeded(), **options)

        contestants: dict[str, Callable[[], Tensor]] = {
            "together": sample,
            "step_by_step": partial(step_by_step, head, condition, null, steps, scale),
        }
        if model.device.type == "cuda":
            contestants["graph"] = partial(sample, FlowGraphs())
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        made = {}
        for number in range(rounds + 1):  # the first warms up
            for name, run in list(contestants.items())[:: -1 if number % 2 else 1]:
                started = now(model)
                made[name] = run()
                if number:
                    seconds[name].append(now(model) - started)
        for latents in made.values():
            torch.testing.assert_close(latents, made["together"], rtol=1e-3, atol=1e-3)
        head.flow_graphs = None
        prefix = f"flow_loop_{'guided' if scale != 1 else 'unguided'}"
        metrics[f"{prefix}_seconds"] = statistics.median(seconds["together"])
        metrics[f"{prefix}_speedup"] = ratio(seconds["step_by_step"], seconds["together"])
        if "graph" in seconds:
            metrics[f"{prefix}_graph_speedup"] = ratio(seconds["together"], seconds["graph"])
    return metrics


def caches(model: LLaMoForCausalLM, processor: LLaMoProcessor, latents: int) -> dict[str, float]:
    """The language model over one motion with its cache, and with a full pass for every latent."""
    options = {"num_denoising_steps": 1, "guidance_scale": 1, "processor": processor}
    with timed_parts(model) as seconds:
        made = model.generate_motion(TEXT, num_frames=latents * FRAMES_OF_LATENT, **options).latents
        cached = seconds["language_model"]
        for count in range(latents):
            example = MotionTaskExample("text-to-motion", TEXT, [GIVEN] * count, count, 0, latents)
            ids = processor.prepare_examples([example], with_answers=False)["input_ids"]
            with torch.no_grad():
                model(
                    torch.from_numpy(ids).to(model.device),
                    latents=made[:, :count] if count else None,
                    use_cache=False,
                    logits_to_keep=torch.zeros(0, dtype=torch.long),
                )
        full = seconds["language_model"] - cached
    return {"full_passes_over_cache": full / cached}


def memory(model: LLaMoForCausalLM, processor: LLaMoProcessor) -> dict[str, float]:
    """Megabytes over 1, 5 and 10 minutes of one stream: of the process, the most since the last figure; of tensors."""
    metrics: dict[str, float] = {}
    process, peak, frames, minutes = psutil.Process(), 0, 0, list(MEMORY_MINUTES)
    most = minutes[-1] * 60 * FPS
    for piece in model.stream_motion(
        TEXT, num_frames=most, num_denoising_steps=2, guidance_scale=4, processor=processor
    ):
        frames += len(piece)
        peak = max(peak, process.memory_info().rss)
        if frames < minutes[0] * 60 * FPS:
            continue
        gc.collect()
        name = f"memory_{minutes.pop(0)}_minutes"
        metrics[f"{name}_process_peak_mb"], peak = peak / 2**20, 0
        metrics[f"{name}_tensors_mb"] = tensor_bytes() / 2**20
        if model.device.type == "cuda":
            metrics[f"{name}_peak_allocated_mb"] = torch.cuda.max_memory_allocated() / 2**20
    return metrics


def tensor_bytes() -> int:
    """Of all tensors that there are, each storage once."""
    tensors = (one for one in gc.get_objects() if issubclass(type(one), torch.Tensor))
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
    return sum(storages.values())


def ratio(above: list[float], below: list[float]) -> float:
    """Median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def seeded() -> torch.Generator:
    """The same draws for every contestant."""
    return torch.Generator().manual_seed(0)


if __name__ == "__main__":
    main()
