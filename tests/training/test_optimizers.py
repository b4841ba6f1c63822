"""Muon beside AdamW: against torch's, and as a Trainer's optimizer."""

import pytest
import torch

from geomotiongpt.training.optimizers import MuonAdamW, orthogonalise


def parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(16, 48), (48, 16), (16, 16), (16, 48), (16,)]
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def give_gradients(weights: list[torch.nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=generator)


def test_orthogonalising_keeps_the_singular_vectors_and_flattens_the_values():
    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 32, 96), (3, 96, 32)):
        matrices = torch.randn(shape, generator=generator)
        near = orthogonalise(matrices)
        u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
        values = u.mT @ near @ vh.mT
        diagonal = values.diagonal(dim1=-2, dim2=-1)
        assert diagonal.min() > 0.6 and diagonal.max() < 1.3
        assert (values - torch.diag_embed(diagonal)).abs().max() < 1e-4
        torch.testing.assert_close(orthogonalise(matrices[1:2])[0], near[1], rtol=1e-4, atol=1e-5)


def test_matrices_follow_torchs_muon_and_the_rest_torchs_adamw():
    """torch's Muon iterates in bfloat16: the steps agree to its precision."""
    ours, theirs = parameters(), parameters()
    start = [weight.detach().clone() for weight in ours]
    together = MuonAdamW(
        [
            {"params": ours[:3], "lr": 0.02, "momentum": 0.95, "weight_decay": 0.1},
            {"params": ours[3:], "lr": 0.01, "weight_decay": 0.2},
        ],
        betas=(0.9, 0.95),
    )
    muon = torch.optim.Muon(theirs[:3], lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(theirs[3:], lr=0.01, weight_decay=0.2, betas=(0.9, 0.95))
    for step in range(4):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        for optimizer in (together, muon, adamw):
            optimizer.step()
    for first, ours_now, theirs_now in zip(start[:3], ours[:3], theirs[:3], strict=True):
        apart, moved = (ours_now - theirs_now).norm(), (theirs_now - first).norm()
        assert apart < 0.02 * moved
    for ours_now, theirs_now in zip(ours[3:], theirs[3:], strict=True):
        torch.testing.assert_close(ours_now, theirs_now, rtol=0, atol=0)


def test_saved_and_loaded_it_goes_on_as_if_never_stopped():
    straight, stopped = parameters(), parameters()

    def make(weights):
        return MuonAdamW([{"params": weights[:3], "momentum": 0.95}, {"params": weights[3:]}], lr=0.01)

    one, before = make(straight), make(stopped)
    for step in range(4):
        if step == 2:
            after = make(stopped)
            after.load_state_dict(before.state_dict())
            before = after
        for weights, optimizer in ((straight, one), (stopped, before)):
            give_gradients(weights, step)
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(straight, stopped, strict=True))


def test_kernels_are_taken_as_matrices_and_parameters_without_gradient_stay():
    kernel, unused = torch.nn.Parameter(torch.zeros(4, 2, 3)), torch.nn.Parameter(torch.ones(2, 2))
    kernel.grad = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    MuonAdamW([{"params": [kernel, unused], "momentum": 0.0}], lr=1.0, weight_decay=0.0).step()
    moved = orthogonalise(kernel.grad.flatten(1)[None])[0] * -0.2 * 6**0.5
    torch.testing.assert_close(kernel.detach().flatten(1), moved)
    assert torch.equal(unused.detach(), torch.ones(2, 2))


def test_a_vector_is_refused():
    with pytest.raises(ValueError, match=r"Muon takes matrices; a parameter of shape \(3,\)"):
        MuonAdamW([{"params": [torch.nn.Parameter(torch.zeros(3))], "momentum": 0.95}])
