"""Frames while they are made: `python examples/stream.py runs/llamo-tiny/motion "a person walks." "someone jumps."`.

The captions are shown one after another, in one motion. Its joints go into `stream.npy`, (frames, joints, 3).
"""

import argparse
import time

import numpy as np
import torch

from geomotiongpt import LLaMoForCausalLM, LLaMoProcessor

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", help="folder of a LLaMo")
parser.add_argument("captions", nargs="+")
parser.add_argument("--frames", type=int, help="of each caption (default: until the model ends it)")
parser.add_argument("--steps", type=int, help="Euler steps of a latent (default: the model's)")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
parser.add_argument("--output", default="stream.npy")
arguments = parser.parse_args()

model = LLaMoForCausalLM.from_pretrained(arguments.model).to(arguments.device)
if model.device.type == "cuda":
    model.compile_flow_loop()
processor = LLaMoProcessor.from_pretrained(arguments.model)
stream = model.stream_motion(
    arguments.captions,
    num_frames=arguments.frames and [arguments.frames] * len(arguments.captions),
    num_denoising_steps=arguments.steps,
    generator=torch.Generator().manual_seed(arguments.seed),
    processor=processor,
)
pieces, frames, start = [], 0, time.perf_counter()
for piece in stream:  # a viewer would show these frames now
    pieces.append(piece.cpu())
    frames += len(piece)
    seconds = time.perf_counter() - start
    print(f"\r{frames} frames, {frames / seconds:.1f} a second", end="", flush=True)
joints = processor.feature_extractor.to_joints(torch.cat(pieces))
np.save(arguments.output, joints)
print(f"\n{arguments.output}: {len(joints)} frames at {processor.feature_extractor.sampling_rate} frames a second")
