"""Muon for weight matrices beside AdamW for everything else, as one optimizer.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) replaces the momentum of a matrix by nearly the
nearest orthogonal matrix. The update is scaled so that its entries have the root mean square of AdamW's
(0.2 sqrt(max(rows, columns)), arXiv 2502.16982), and learning rates mean the same for both.

`torch.optim.Muon` iterates in bfloat16, which costs more than the training step itself on a CPU without hardware
for it; here the iteration is in float32 unless training is in bfloat16 (`bf16`), and matrices of one shape go through
it together.
"""

from collections import defaultdict

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_UPDATE_RMS = 0.2


class MuonAdamW(torch.optim.AdamW):
    """AdamW, but the parameter groups with a `momentum` follow Muon (with Nesterov's momentum).

    Args:
        params: parameter groups; those with a key `momentum` (0.95 is usual) hold matrices, or convolution kernels,
            whose trailing dimensions are then taken together.
        lr (`float`): learning rate of groups without their own.
        iteration_dtype (`torch.dtype`): of Muon's iteration.
        **kwargs: as in `torch.optim.AdamW`, for the other groups; weight decay is decoupled in both.

    Raises:
        ValueError: if a group with a momentum holds a parameter with fewer than two dimensions.
    """

    def __init__(self, params, lr: float = 1e-3, *, iteration_dtype: torch.dtype = torch.float32, **kwargs):
        super().__init__(params, lr=lr, **kwargs)
        self.iteration_dtype = iteration_dtype
        for parameter in (p for group in self.param_groups if _is_muon(group) for p in group["params"]):
            if parameter.ndim < 2:
                raise ValueError(f"Muon takes matrices; a parameter of shape {tuple(parameter.shape)} is none.")

    @torch.no_grad()
    def step(self, closure=None):
        """One update of all groups."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not _is_muon(group)]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in filter(_is_muon, groups):
            self._step_muon(group)
        return loss

    def _step_muon(self, group: dict) -> None:
        by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape[parameter.shape].append(parameter)
        for parameters in by_shape.values():
            updates = torch.stack([self._momentum_of(parameter, group["momentum"]) for parameter in parameters])
            updates = orthogonalise(updates, dtype=self.iteration_dtype)
            scale = _UPDATE_RMS * max(updates.shape[-2:]) ** 0.5
            for parameter, update in zip(parameters, updates, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.view_as(parameter), alpha=-group["lr"] * scale)

    def _momentum_of(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """Nesterov's: the gradient mixed into the running mean that already has it; (rows, columns)."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if not state:
            state["step"] = torch.zeros(())  # AdamW expects it of every state that it loads
            state["momentum_buffer"] = torch.zeros_like(gradient)
        state["step"] += 1
        mean = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(mean, momentum).flatten(1)


def orthogonalise(matrices: Tensor, iterations: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """Nearly the nearest (semi-)orthogonal matrices: U V^T of U S V^T, its singular values within about 0.7 to 1.2.

    A quintic Newton-Schulz iteration with Muon's coefficients.

    Args:
        matrices: (n, rows, columns).
        iterations: of the quintic.
        dtype: that they are computed in.
    """
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).to(dtype)
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


def _is_muon(group: dict) -> bool:
    return "momentum" in group
