"""Geometric constraints, each against formulas by hand: values, gradients, minimisers, invariances, precision."""

import copy
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from geomotiongpt.models.geometry import (
    GEOMETRIC_CONSTRAINTS,
    check_geometric_constraint,
    cluster_codes,
    decorrelation_loss,
    equal_clusters,
    geometric_loss,
    spectral_loss,
    welch_bound,
    whitening_loss,
)

# Every constraint that pulls at something, with its settings.
CASES = {
    "orthonormal": {"constraint": "orthonormal"},
    "decorrelation": {"constraint": "decorrelation"},
    "whitening": {"constraint": "whitening"},
    "log_determinant": {"constraint": "spectral", "spectral_form": "log_determinant"},
    "condition_number": {"constraint": "spectral", "spectral_form": "condition_number"},
    "pairwise_cosine": {"constraint": "pairwise_cosine"},
    "cluster": {"constraint": "cluster"},
}
SHRINKAGE = 1e-3


def loss_of(case, codebook, num_clusters=3):
    clusters = equal_clusters(len(codebook), num_clusters) if case == "cluster" else None
    return geometric_loss(codebook, **CASES[case], clusters=clusters)


def by_hand(case, codebook):
    """The losses from numpy's own correlation, covariance and singular values, or pair by pair."""
    codes = codebook.detach().double().numpy()
    num_codes, code_dim = codes.shape
    if case == "decorrelation":
        correlations = np.corrcoef(codes, rowvar=False)
        return (correlations**2).sum() - code_dim
    if case == "whitening":
        covariance = np.cov(codes, rowvar=False)
        covariance = covariance * code_dim / np.trace(covariance)
        return ((covariance - np.eye(code_dim)) ** 2).sum()
    rows = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    if case in ("log_determinant", "condition_number"):
        eigenvalues = np.linalg.svd(rows, compute_uv=False) ** 2
        spectrum = (1 - SHRINKAGE) * eigenvalues / eigenvalues.mean() + SHRINKAGE
        logs = np.log(spectrum)
        return -logs.sum() if case == "log_determinant" else logs.max() - logs.min()
    clusters = equal_clusters(num_codes, 3).tolist()
    cosines = {(i, j): rows[i] @ rows[j] for i in range(num_codes) for j in range(num_codes) if i != j}
    if case == "pairwise_cosine":
        return np.mean(list(cosines.values()))
    if case == "cluster":
        return sum(cosine**2 for (i, j), cosine in cosines.items() if clusters[i] != clusters[j])
    return sum(cosine**2 for cosine in cosines.values())


def random_codebook(num_codes, code_dim, seed=0):
    """Codes around a mean that is not 0, in dimensions of unlike size."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randn(num_codes, code_dim, generator=generator, dtype=torch.float64)
    return (codes + 0.5) * torch.linspace(0.5, 2, code_dim, dtype=torch.float64)


def rotation(dim):
    generator = torch.Generator().manual_seed(5)
    return torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))[0]


def descend(case, codebook, steps=400, lr=0.05, **settings):
    """Where gradient descent (Adam, its rate falling to 0) takes a codebook."""
    codebook = codebook.clone().requires_grad_()
    optimizer = torch.optim.Adam([codebook], lr=lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-3, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(case, codebook, **settings).backward()
        optimizer.step()
        schedule.step()
    return codebook.detach()


def cosines(codebook):
    rows = codebook / codebook.norm(dim=-1, keepdim=True)
    return rows @ rows.T


# Values


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [(7, 12), (9, 9), (30, 6)])
def test_the_loss_of_a_random_codebook_is_the_formula(case, size):
    codebook = random_codebook(*size)
    assert loss_of(case, codebook).item() == pytest.approx(by_hand(case, codebook), rel=1e-9)


@pytest.mark.parametrize("case", ["orthonormal", "log_determinant", "condition_number", "pairwise_cosine", "cluster"])
def test_an_orthonormal_set_costs_nothing(case):
    rows = 3 * rotation(9)[:6]
    assert loss_of(case, rows).item() == pytest.approx(0, abs=1e-12)
    if case != "pairwise_cosine":  # which an angle above 90 degrees makes negative
        for bent in (rows + 0.1 * rows.roll(1, 0), rows - 0.1 * rows.roll(1, 0)):
            assert loss_of(case, bent).item() > 0.01


@pytest.mark.parametrize("case", CASES)
def test_equal_codes(case):
    """Six times the same code in nine dimensions: a Gram matrix of ones, and no variance."""
    codebook = torch.arange(1.0, 10, dtype=torch.float64).repeat(6, 1)
    smallest, largest = SHRINKAGE, 6 * (1 - SHRINKAGE) + SHRINKAGE
    expected = {
        "orthonormal": 6 * 5,
        "decorrelation": 0,
        "whitening": 9,
        "log_determinant": -5 * math.log(smallest) - math.log(largest),
        "condition_number": math.log(largest / smallest),
        "pairwise_cosine": 1,
        "cluster": 6 * 4,
    }
    assert loss_of(case, codebook).item() == pytest.approx(expected[case], rel=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_antipodal_codes(case):
    """e1, -e1, e2, -e2, e3, -e3: a tight frame, white, each pair a cluster; only cosines of -1 are met."""
    codebook = torch.eye(3, dtype=torch.float64).repeat_interleave(2, dim=0)
    codebook[1::2] *= -1
    expected = dict.fromkeys(CASES, 0) | {"orthonormal": 6, "pairwise_cosine": -6 / 30}
    assert expected["orthonormal"] == welch_bound(6, 3)
    assert loss_of(case, codebook).item() == pytest.approx(expected[case], abs=1e-12)


def test_the_spectral_losses_of_two_codes_are_functions_of_their_angle():
    codebook = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0]], dtype=torch.float64)
    assert spectral_loss(codebook).item() == pytest.approx(-math.log(1 - 0.6**2), rel=5e-3)
    assert spectral_loss(codebook, "condition_number").item() == pytest.approx(math.log(1.6 / 0.4), rel=5e-3)


@pytest.mark.parametrize("loss", [decorrelation_loss, whitening_loss])
def test_too_few_codes_for_their_dimensions_leave_the_documented_remainder(loss):
    """Six codes span five directions around their mean: 9^2 / 5 - 9."""
    bound = 9**2 / 5 - 9
    assert loss(torch.eye(6, 9, dtype=torch.float64) @ rotation(9)).item() >= bound - 1e-9
    spread = torch.eye(6, 9, dtype=torch.float64) @ rotation(9)
    assert whitening_loss(spread).item() == pytest.approx(bound)
    assert loss(random_codebook(6, 9)).item() > bound + 0.1


def test_no_constraint_costs_nothing_and_pulls_at_nothing():
    codebook = random_codebook(4, 5).bfloat16().requires_grad_()
    loss = geometric_loss(codebook, "none")
    assert loss.shape == () and loss.item() == 0 and loss.dtype == torch.float32
    assert not loss.requires_grad


# Gradients


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [(5, 8), (9, 4)])
def test_the_gradient_is_that_of_the_loss(case, size):
    codebook = random_codebook(*size).requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: loss_of(case, rows), codebook)
    (gradient,) = torch.autograd.grad(loss_of(case, codebook), codebook)
    assert gradient.norm() > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_degenerate_codebooks_have_finite_losses_and_gradients(case):
    """In single precision: equal codes, two equal ones, more codes than dimensions, a constant or zero dimension."""
    generic = torch.randn(24, 16, generator=torch.Generator().manual_seed(0))
    twice, flat, empty = generic.clone(), generic.clone(), generic.clone()
    twice[1], flat[:, 3], empty[:, 3] = twice[0], 0.3, 0
    for codebook in (generic[:1].repeat(24, 1), twice, twice[:12], flat, empty, torch.eye(16)):
        codebook = codebook.clone().requires_grad_()
        loss = loss_of(case, codebook)
        loss.backward()
        assert loss.isfinite() and loss > -1, codebook
        assert codebook.grad.isfinite().all() and codebook.grad.abs().max() < 1e5


def test_dimensions_that_do_not_vary_are_correlated_with_nothing():
    """In single precision their codes differ from their mean by rounding."""
    codebook = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    constant = torch.linspace(0.1, 3, 20).expand(50, 20)
    assert 0 < (constant - constant.mean(0)).abs().max() < 1e-5
    together = torch.cat([codebook, constant], dim=1)
    torch.testing.assert_close(decorrelation_loss(together), decorrelation_loss(codebook), rtol=1e-3, atol=0)


# Minimisers


def test_descending_the_decorrelation_leaves_dimensions_uncorrelated_and_of_unlike_variance():
    codebook = descend("decorrelation", random_codebook(40, 6))
    correlations = np.corrcoef(codebook.numpy(), rowvar=False)
    np.testing.assert_allclose(correlations, np.eye(6), atol=1e-3)
    deviations = codebook.std(dim=0)
    assert deviations.max() > 2 * deviations.min()


def test_descending_the_whitening_makes_the_codes_vary_alike_in_every_direction():
    start = random_codebook(40, 6)
    codebook = descend("whitening", start)
    before, after = (np.linalg.eigvalsh(np.cov(codes.numpy(), rowvar=False)) for codes in (start, codebook))
    assert before[-1] > 10 * before[0] and after[-1] < 1.01 * after[0]
    assert codebook.mean(0).norm() > 0.1, "the mean is free"


def test_descending_the_log_determinant_makes_codes_orthonormal_where_they_can_be():
    codebook = descend("log_determinant", random_codebook(6, 8))
    torch.testing.assert_close(cosines(codebook), torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-3)


def test_descending_the_log_determinant_makes_more_codes_than_dimensions_a_tight_frame():
    codebook = descend("log_determinant", random_codebook(12, 4))
    assert cosines(codebook).square().sum().item() - 12 == pytest.approx(welch_bound(12, 4), rel=1e-3)


@pytest.mark.parametrize("size", [(5, 8), (9, 4)])
def test_descending_the_condition_number_equalises_the_singular_values(size):
    start = random_codebook(*size)
    codebook = descend("condition_number", start, steps=800)
    before, after = (np.linalg.cond((codes / codes.norm(dim=-1, keepdim=True)).numpy()) for codes in (start, codebook))
    assert before > 2 and after < 1.05


def test_descending_the_pairwise_cosine_makes_unit_codes_sum_to_zero_and_not_orthonormal():
    codebook = descend("pairwise_cosine", random_codebook(6, 8))
    rows = codebook / codebook.norm(dim=-1, keepdim=True)
    assert rows.sum(0).norm() < 1e-2
    assert loss_of("pairwise_cosine", codebook).item() == pytest.approx(-1 / 5, abs=1e-4)
    assert loss_of("orthonormal", codebook).item() > 6 / 5 - 1e-4, "a simplex at best"


def test_descending_the_cluster_loss_separates_clusters_and_leaves_similar_codes_similar():
    generator = torch.Generator().manual_seed(2)
    centres = torch.randn(3, 10, generator=generator, dtype=torch.float64).repeat_interleave(3, dim=0)
    codebook = centres + 0.2 * torch.randn(9, 10, generator=generator, dtype=torch.float64)
    codebook = descend("cluster", codebook)
    same = equal_clusters(9, 3)[:, None] == equal_clusters(9, 3)
    assert cosines(codebook)[~same].abs().max() < 1e-3
    assert cosines(codebook)[same].min() > 0.7


# Invariances


@pytest.mark.parametrize("case", CASES)
def test_what_the_loss_does_not_depend_on(case):
    codebook = random_codebook(9, 6)
    loss = loss_of(case, codebook).item()
    by_rows = torch.linspace(0.1, 30, 9, dtype=torch.float64)[:, None]
    changed = {
        "scale": 7 * codebook,
        "rotation": codebook @ rotation(6),
        "lengths": by_rows * codebook,
        "shift": codebook + torch.arange(6),
        "units": codebook * torch.linspace(0.2, 4, 6, dtype=torch.float64),
    }
    free = {"decorrelation": {"scale", "shift", "units"}, "whitening": {"scale", "rotation", "shift"}}
    for name, codes in changed.items():
        same = loss_of(case, codes).item() == pytest.approx(loss, rel=1e-8)
        assert same == (name in free.get(case, {"scale", "rotation", "lengths"})), name


@pytest.mark.parametrize("case", CASES)
def test_codes_are_exchangeable(case):
    codebook, order = random_codebook(9, 6), torch.randperm(9, generator=torch.Generator().manual_seed(0))
    clusters = equal_clusters(9, 3)
    loss = geometric_loss(codebook, **CASES[case], clusters=clusters)
    torch.testing.assert_close(geometric_loss(codebook[order], **CASES[case], clusters=clusters[order]), loss)


# Precision


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_codebooks_are_measured_in_single_precision(case, dtype):
    halved = random_codebook(24, 20).to(dtype).requires_grad_()
    expected = loss_of(case, halved.detach().float())
    for autocast in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = loss_of(case, halved)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    assert halved.grad.dtype == dtype and halved.grad.isfinite().all()


# Settings


@pytest.mark.parametrize("constraint", GEOMETRIC_CONSTRAINTS)
def test_every_constraint_can_be_chosen(constraint):
    check_geometric_constraint(constraint, "log_determinant", 3, 9)
    loss = geometric_loss(random_codebook(9, 6), constraint, clusters=equal_clusters(9, 3))
    assert loss.shape == () and loss.isfinite()


def test_impossible_settings_are_refused():
    codebook = random_codebook(9, 6)
    for constraint in ("orthogonal", "", "Orthonormal"):
        with pytest.raises(ValueError, match=f"geometric_constraint is '{constraint}'.*pairwise_cosine"):
            geometric_loss(codebook, constraint)
        with pytest.raises(ValueError, match=f"geometric_constraint is '{constraint}'.*pairwise_cosine"):
            check_geometric_constraint(constraint, "log_determinant", 3, 9)
    for refused in (
        lambda: geometric_loss(codebook, "spectral", spectral_form="norm"),
        lambda: check_geometric_constraint("orthonormal", "norm", 3, 9),
    ):
        with pytest.raises(ValueError, match="spectral_form is 'norm'; use 'log_determinant' or 'condition_number'"):
            refused()
    with pytest.raises(ValueError, match="each of the 9 codes.*met none.*equal_clusters"):
        geometric_loss(codebook, "cluster")
    with pytest.raises(ValueError, match=r"each of the 9 codes.*met shape \(8,\)"):
        geometric_loss(codebook, "cluster", clusters=equal_clusters(8, 2))


# Clusters


@pytest.mark.parametrize(("num_codes", "num_clusters"), [(16, 4), (10, 3), (512, 8), (5, 5), (7, 1)])
def test_equal_clusters_are_consecutive_and_equal_in_size(num_codes, num_clusters):
    clusters = equal_clusters(num_codes, num_clusters)
    assert clusters.dtype == torch.long and (clusters.diff() >= 0).all()
    sizes = torch.bincount(clusters, minlength=num_clusters)
    assert len(sizes) == num_clusters and sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("num_clusters", [0, 10, -1])
def test_an_impossible_number_of_clusters_is_refused(num_clusters):
    for refused in (
        lambda: equal_clusters(9, num_clusters),
        lambda: cluster_codes(torch.zeros(9, 2), num_clusters, seed=0),
        lambda: check_geometric_constraint("cluster", "log_determinant", num_clusters, 9),
    ):
        with pytest.raises(ValueError, match=f"num_code_clusters is {num_clusters}; of 9 codes"):
            refused()
    check_geometric_constraint("orthonormal", "log_determinant", num_clusters, 9)


def blobs(seed=0):
    """Sixty points around five far centres, in mixed order, and which centre each belongs to."""
    generator = torch.Generator().manual_seed(seed)
    belongs = torch.randperm(60, generator=generator) % 5
    centres = 10 * torch.eye(5, 7)
    return centres[belongs] + torch.randn(60, 7, generator=generator), belongs


@pytest.mark.parametrize("seed", range(5))
def test_similar_codes_come_into_one_cluster(seed):
    vectors, belongs = blobs()
    clusters = cluster_codes(vectors, 5, seed)
    assert clusters.dtype == torch.long and clusters.shape == (60,)
    pairs = {(int(a), int(b)) for a, b in zip(clusters, belongs, strict=True)}
    assert len(pairs) == 5 and {a for a, _ in pairs} == set(range(5)), "one cluster for each centre"


def test_clusters_are_a_fixed_point_of_k_means():
    """Every code is nearest to the mean of its own cluster, where clusters overlap too; no cluster is empty."""
    vectors = torch.randn(200, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    clusters = cluster_codes(vectors, 12, seed=0)
    means = torch.stack([vectors[clusters == cluster].mean(0) for cluster in range(12)])
    assert not means.isnan().any() and torch.equal(torch.cdist(vectors, means).argmin(-1), clusters)


def test_clusters_depend_on_the_seed_alone():
    vectors = torch.randn(200, 4, generator=torch.Generator().manual_seed(3))
    state = torch.get_rng_state()
    first = cluster_codes(vectors, 12, seed=4)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    torch.manual_seed(1)
    assert torch.equal(cluster_codes(vectors.requires_grad_(), 12, seed=4), first)
    assert not torch.equal(cluster_codes(vectors, 12, seed=5), first)


def test_fewer_different_codes_than_clusters_are_no_obstacle():
    vectors = torch.tensor([[0.0, 1.0], [2.0, 2.0]]).repeat(4, 1)
    clusters = cluster_codes(vectors, 3, seed=0)
    assert len(set(clusters[::2].tolist())) == len(set(clusters[1::2].tolist())) == 1
    assert clusters[0] != clusters[1]
    assert torch.equal(cluster_codes(torch.ones(4, 2), 4, seed=0).unique(), torch.tensor([0]))


# Against the published implementation


def test_pairwise_cosine_agrees_with_the_published_regularisers(real_data):
    parity = real_data / "reference" / "parity"
    embedding = load_file(parity / "geometry_regulariser.safetensors")
    rows = embedding["weights.embedding"][embedding["inputs.motion_ids"]]
    codebook = load_file(parity / "dvq.safetensors")
    for vectors, expected in (
        (rows, embedding["outputs.pairwise_cosine_loss"]),
        (
            codebook["weights.vqvae.quantizer.codebook.weight"],
            codebook["outputs.loss_pairwise_cosine_codebook"],
        ),
    ):
        torch.testing.assert_close(geometric_loss(vectors, "pairwise_cosine"), expected, rtol=0, atol=1e-7)
    pairs = len(rows) * (len(rows) - 1)
    torch.testing.assert_close(geometric_loss(rows) / pairs, embedding["outputs.ortho_loss"], rtol=0, atol=1e-7)


def test_a_trained_model_is_held_to_another_constraint_in_one_call(tiny_model, tmp_path):
    model = copy.deepcopy(tiny_model)
    for constraint in GEOMETRIC_CONSTRAINTS:
        model.swap_constraint(constraint, **({"num_code_clusters": 4} if constraint == "cluster" else {}))
        assert model.config.geometric_constraint == constraint
        expected = geometric_loss(model.motion_geometry(), constraint, clusters=model.code_clusters)
        assert torch.equal(model.geometric_loss(), expected)
        assert (model.code_clusters is None) == (constraint != "cluster")
    model.swap_constraint("spectral", spectral_form="condition_number")
    assert model.geometric_loss() != geometric_loss(model.motion_geometry(), "spectral")
    model.swap_constraint("cluster", num_code_clusters=2)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert torch.equal(loaded.code_clusters, model.code_clusters) and loaded.config.num_code_clusters == 2


@pytest.mark.parametrize(
    ("constraint", "options"),
    [
        ("square", {}),
        ("spectral", {"spectral_form": "trace"}),
        ("cluster", {"num_code_clusters": 1000}),
        ("none", {"num_code_clusters": 4}),
        ("cluster", {"spectral_form": "log_determinant"}),
    ],
)
def test_a_constraint_that_cannot_be_leaves_the_model_as_it_was(tiny_model, constraint, options):
    model = copy.deepcopy(tiny_model)
    with pytest.raises(ValueError):
        model.swap_constraint(constraint, **options)
    assert model.config.to_dict() == tiny_model.config.to_dict() and model.code_clusters is None
