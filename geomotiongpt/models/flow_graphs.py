"""The Euler steps of a flow head as one CUDA graph (LLaMo, arXiv 2602.12370, does the same).

A step is dozens of small kernels: to start them one by one takes longer than they run. A graph starts all at once.
"""

from collections.abc import Callable
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor, nn

_MOST_GRAPHS = 8  # each keeps what its steps need in memory


class _Recorded(NamedTuple):
    """A graph, the tensors that it reads, and the one that it writes."""

    graph: torch.cuda.CUDAGraph
    latents: Tensor
    embeddings: Tensor
    result: Tensor


class FlowGraphs:
    """Graphs of the Euler steps, one for each number of rows, of steps and guidance scale.

    A graph is recorded when it is first needed, which takes as long as a few runs. It reads the weights where they
    lie; where they have moved, another one is recorded. Copied or saved with a model, none comes along.
    """

    def __init__(self):
        self._recorded: dict[tuple, _Recorded] = {}
        self._lock = Lock()  # streams in several threads share the tensors of a graph

    def __reduce__(self):
        return FlowGraphs, ()

    def run(
        self,
        follow_flow: Callable[[Tensor, Tensor, int, float], Tensor],
        network: nn.Module,
        latents: Tensor,
        embeddings: Tensor,
        num_steps: int,
        guidance_scale: float,
    ) -> Tensor:
        """What `follow_flow` returns for the same arguments, all on one CUDA device.

        Args:
            follow_flow: takes all Euler steps, see `DenoisingHead.follow_flow`.
            network: whose weights it reads.
            latents: (rows, latent_size), the noise.
            embeddings: (rows or twice as many, hidden_size) of the conditions.
            num_steps: Euler steps.
            guidance_scale: of the steps.
        """
        places = (weight.data_ptr() for weight in network.parameters())
        key = (latents.shape, embeddings.shape, embeddings.dtype, num_steps, guidance_scale, *places)
        with self._lock, torch.cuda.device(latents.device):
            if key not in self._recorded:
                if len(self._recorded) == _MOST_GRAPHS:
                    del self._recorded[next(iter(self._recorded))]
                self._recorded[key] = _record(
                    follow_flow, latents.clone(), embeddings.clone(), num_steps, guidance_scale
                )
            recorded = self._recorded[key]
            recorded.latents.copy_(latents)
            recorded.embeddings.copy_(embeddings)
            recorded.graph.replay()
            return recorded.result.clone()


def _record(
    follow_flow: Callable[[Tensor, Tensor, int, float], Tensor],
    latents: Tensor,
    embeddings: Tensor,
    num_steps: int,
    guidance_scale: float,
) -> _Recorded:
    """A run beforehand, on a stream of its own, sets up what a recording must not: see torch.cuda.graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        follow_flow(latents, embeddings, num_steps, guidance_scale)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Other threads may go on using the device meanwhile
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = follow_flow(latents, embeddings, num_steps, guidance_scale)
    return _Recorded(graph, latents, embeddings, result)
