"""Geometry of a codebook: Gram matrix, orthonormality, Welch bound, usage."""

import math

import pytest
import torch
from safetensors.torch import load_file

from geomotiongpt import gram_matrix, orthonormality_loss, welch_bound
from geomotiongpt.models.geometry import codebook_geometry, usage_statistics


@pytest.fixture
def codebook():
    return torch.randn(24, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def orthonormal_rows(num_codes, code_dim):
    torch.manual_seed(0)
    return torch.linalg.qr(torch.randn(code_dim, code_dim, dtype=torch.float64))[0][:num_codes]


def tight_frame(num_codes, code_dim):
    """Harmonic frame: unit rows whose Gram matrix attains the Welch bound; code_dim even and below num_codes."""
    angle = 2 * math.pi * torch.arange(num_codes, dtype=torch.float64)[:, None] / num_codes
    angle = angle * torch.arange(1, code_dim // 2 + 1)
    return torch.cat([angle.cos(), angle.sin()], dim=1) / math.sqrt(code_dim / 2)


# Gram matrix and losses


def test_the_gram_matrix_holds_the_cosines_of_all_pairs(codebook):
    gram = gram_matrix(codebook)
    for i, j in ((0, 0), (0, 1), (7, 19), (19, 7)):
        expected = torch.nn.functional.cosine_similarity(codebook[i], codebook[j], dim=0)
        torch.testing.assert_close(gram[i, j], expected)
    scales = torch.linspace(0.1, 30, 24, dtype=torch.float64)[:, None]
    torch.testing.assert_close(gram_matrix(codebook * scales), gram)


def test_the_gram_matrix_of_a_half_precision_codebook_is_computed_in_single_precision(codebook):
    halved = codebook.bfloat16()
    expected = gram_matrix(halved.double()).float()
    for autocast in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            gram = gram_matrix(halved)
        assert gram.dtype == torch.float32
        torch.testing.assert_close(gram, expected)


def test_the_orthonormality_loss_is_the_squared_distance_of_the_gram_matrix_from_the_identity(codebook):
    expected = sum(
        ((codebook[i] @ codebook[j]) / (codebook[i].norm() * codebook[j].norm()) - int(i == j)) ** 2
        for i in range(24)
        for j in range(24)
    )
    torch.testing.assert_close(orthonormality_loss(codebook), expected)
    torch.testing.assert_close(orthonormality_loss(codebook, reduction="mean"), expected / 24**2)
    assert orthonormality_loss(3 * orthonormal_rows(12, 20)).item() == pytest.approx(0, abs=1e-24)


def test_descending_the_loss_makes_a_codebook_orthonormal(codebook):
    rows = codebook[:12].clone().requires_grad_()
    optimizer = torch.optim.SGD([rows], lr=0.5)
    before = orthonormality_loss(rows).item()
    for _ in range(300):
        optimizer.zero_grad()
        orthonormality_loss(rows).backward()
        optimizer.step()
    assert before > 3 and orthonormality_loss(rows).item() < 1e-6


def test_another_reduction_is_refused(codebook):
    with pytest.raises(ValueError, match="'none'.*'sum'"):
        orthonormality_loss(codebook, reduction="none")


@pytest.mark.parametrize(("num_codes", "code_dim"), [(8, 6), (24, 20), (512, 64)])
def test_a_tight_frame_reaches_the_welch_bound_and_a_random_codebook_does_not(num_codes, code_dim):
    bound = welch_bound(num_codes, code_dim)
    assert bound == pytest.approx(num_codes**2 / code_dim - num_codes) and bound > 0
    assert orthonormality_loss(tight_frame(num_codes, code_dim)).item() == pytest.approx(bound)
    assert orthonormality_loss(torch.randn(num_codes, code_dim, dtype=torch.float64)).item() > 1.05 * bound


@pytest.mark.parametrize(("num_codes", "code_dim"), [(20, 20), (3, 20), (512, 512)])
def test_the_welch_bound_is_zero_where_an_orthonormal_codebook_exists(num_codes, code_dim):
    assert welch_bound(num_codes, code_dim) == 0


def test_codebook_geometry_reports_error_excess_and_largest_cosine():
    frame = tight_frame(8, 6)
    report = codebook_geometry(frame)
    assert report["gram_error"] == pytest.approx(welch_bound(8, 6))
    assert report["gram_error_excess"] == pytest.approx(0, abs=1e-12)
    opposite = torch.tensor([[1.0, 0.0, 0.0], [-2.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    report = codebook_geometry(opposite)
    assert report["max_abs_cosine"] == pytest.approx(1) and report["gram_error"] == pytest.approx(2)


# Against the published implementation


def test_mean_square_form_agrees_with_the_published_tokenizer_regulariser(real_data):
    published = load_file(real_data / "reference" / "parity" / "dvq.safetensors")
    codebook = published["weights.vqvae.quantizer.codebook.weight"]
    expected = published["outputs.loss_ortho_codebook"]
    torch.testing.assert_close(orthonormality_loss(codebook, reduction="mean"), expected, rtol=0, atol=1e-6)
    off_diagonal = gram_matrix(codebook).fill_diagonal_(0).sum() / (24 * 23)
    torch.testing.assert_close(off_diagonal, published["outputs.loss_pairwise_cosine_codebook"], rtol=0, atol=1e-6)


def test_sum_form_agrees_with_the_published_embedding_regulariser(real_data):
    """The published one divides the same sum by n (n - 1): its diagonal is zero either way."""
    published = load_file(real_data / "reference" / "parity" / "geometry_regulariser.safetensors")
    embeddings = published["weights.embedding"][published["inputs.motion_ids"]]
    pairs = len(embeddings) * (len(embeddings) - 1)
    torch.testing.assert_close(
        orthonormality_loss(embeddings) / pairs, published["outputs.ortho_loss"], rtol=0, atol=1e-6
    )


# Usage


def test_usage_statistics_of_a_histogram():
    uniform = usage_statistics(torch.tensor([5, 5, 0, 5, 5]))
    assert uniform["perplexity"] == pytest.approx(4)
    assert (uniform["codes_used"], uniform["dead_codes"]) == (4, 1)
    skewed = usage_statistics(torch.tensor([6, 2, 0]))
    assert skewed["perplexity"] == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))
    assert usage_statistics(torch.tensor([0, 9]))["perplexity"] == 1
