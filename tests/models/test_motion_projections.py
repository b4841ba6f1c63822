"""Projections into a language model's embedding: the paper's, the learned ones, and what the published code does."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch.nn import functional

from geomotiongpt import FrozenSparseProjection, GeoMotionGPTForCausalLM, gram_matrix, orthonormality_loss
from geomotiongpt.models.motion_projections import (
    PROJECTIONS,
    IdentityProjection,
    LinearProjection,
    OrthogonalProjection,
    dense_random_embeddings,
    dense_random_projection,
    make_projection,
)

LEARNED = (LinearProjection, OrthogonalProjection)


@pytest.fixture
def codebook():
    return torch.randn(24, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def isometry_error(projection):
    """||P^T P - I||_F, of P as it is."""
    matrix = projection.matrix.detach().double()
    return (matrix.T @ matrix - torch.eye(matrix.shape[1], dtype=torch.float64)).norm().item()


def orthonormal_columns(rows, columns, seed=0):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(matrix)[0]


def train(projection, steps, lr, batch=64, seed=1):
    """AdamW towards random embeddings of random codes; yields after every step."""
    generator = torch.Generator().manual_seed(seed)
    code_dim, embedding_dim = projection.code_dim, projection.embedding_dim
    codes = torch.randn(code_dim, code_dim, generator=generator)
    targets = codes @ orthonormal_columns(embedding_dim, code_dim, seed=9).float().T
    optimizer = torch.optim.AdamW(projection.parameters(), lr=lr)
    for _ in range(steps):
        rows = torch.randint(code_dim, (batch,), generator=generator)
        optimizer.zero_grad()
        (projection(codes[rows]) - targets[rows]).square().mean().backward()
        optimizer.step()
        yield functional.mse_loss(projection(codes), targets).item()


# The frozen sparse projection


@pytest.mark.parametrize(("code_dim", "embedding_dim"), [(1, 1), (20, 48), (48, 48), (512, 768)])
def test_the_projection_is_a_zero_one_isometry(code_dim, embedding_dim):
    matrix = FrozenSparseProjection(code_dim, embedding_dim, seed=3).matrix
    assert matrix.shape == (embedding_dim, code_dim)
    assert ((matrix == 0) | (matrix == 1)).all()
    assert (matrix.sum(0) == 1).all() and (matrix.sum(1) <= 1).all()
    assert torch.equal(matrix.T @ matrix, torch.eye(code_dim))


def test_applying_the_projection_multiplies_by_its_matrix(codebook):
    projection = FrozenSparseProjection(20, 48)
    embeddings = projection(codebook)
    assert torch.equal(embeddings, codebook @ projection.matrix.double().T)
    assert torch.equal(projection.transpose(embeddings), codebook)
    batch = codebook.view(2, 3, 4, 20)
    assert torch.equal(projection(batch), embeddings.view(2, 3, 4, 48))
    other = torch.randn(5, 48, dtype=torch.float64)
    assert torch.equal(projection.transpose(other), other @ projection.matrix.double())


def test_the_projection_preserves_the_geometry_of_the_codebook(codebook):
    embeddings = FrozenSparseProjection(20, 48)(codebook)
    torch.testing.assert_close(gram_matrix(embeddings), gram_matrix(codebook), rtol=0, atol=1e-14)
    torch.testing.assert_close(embeddings.norm(dim=-1), codebook.norm(dim=-1))


def test_the_seed_decides_which_dimensions_are_taken():
    torch.manual_seed(0)
    first = FrozenSparseProjection(20, 48, seed=7).indices
    torch.manual_seed(1)
    assert torch.equal(FrozenSparseProjection(20, 48, seed=7).indices, first)
    assert not torch.equal(FrozenSparseProjection(20, 48, seed=8).indices, first)
    assert not torch.equal(first, torch.arange(20)), "the dimensions are chosen at random"


def test_drawing_the_projection_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    FrozenSparseProjection(20, 48, seed=7)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_projection_is_frozen_and_saved_as_drawn():
    saved = FrozenSparseProjection(20, 48, seed=7)
    assert not list(saved.parameters()) and list(saved.state_dict()) == ["indices"]
    loaded = FrozenSparseProjection(20, 48, seed=8)
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(loaded.matrix, saved.matrix)


def test_the_gradient_reaches_the_codes_through_the_projection(codebook):
    projection = FrozenSparseProjection(20, 48)
    codebook.requires_grad_()
    weights = torch.randn(24, 48, dtype=torch.float64)
    (projection(codebook) * weights).sum().backward()
    assert torch.equal(codebook.grad, projection.transpose(weights))


def test_the_projection_survives_a_cast_to_half_precision(codebook):
    projection = FrozenSparseProjection(512, 768, seed=2)
    expected = projection.indices.clone()
    projection.to(torch.bfloat16)
    assert projection.indices.dtype == torch.long and torch.equal(projection.indices, expected)
    codes = torch.randn(3, 512, dtype=torch.bfloat16)
    assert torch.equal(projection.transpose(projection(codes)), codes)
    assert projection(codes).dtype == torch.bfloat16


def test_codes_wider_than_the_embedding_are_refused():
    with pytest.raises(ValueError, match="code_dim 49 does not fit into an embedding of 48"):
        FrozenSparseProjection(49, 48)


# Learned projections


@pytest.mark.parametrize("kind", LEARNED)
def test_a_learned_projection_multiplies_by_its_matrix(kind, codebook):
    projection = kind(20, 48, seed=1).double()
    assert projection.matrix.shape == (48, 20)
    embeddings = projection(codebook)
    torch.testing.assert_close(embeddings, codebook @ projection.matrix.T)
    torch.testing.assert_close(projection(codebook.view(2, 3, 4, 20)), embeddings.view(2, 3, 4, 48))


@pytest.mark.parametrize("kind", LEARNED)
def test_the_seed_decides_where_a_learned_projection_starts(kind):
    state = torch.get_rng_state()
    first = kind(20, 48, seed=7).matrix
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    torch.manual_seed(3)
    assert torch.equal(kind(20, 48, seed=7).matrix, first)
    assert not torch.equal(kind(20, 48, seed=8).matrix, first)


@pytest.mark.parametrize("kind", LEARNED)
def test_the_gradient_trains_projection_and_codes(kind, codebook):
    projection = kind(20, 48).double()
    assert [name for name, weight in projection.named_parameters() if weight.requires_grad] == ["weight"]
    codebook.requires_grad_()
    weights = torch.randn(24, 48, dtype=torch.float64)
    (projection(codebook) * weights).sum().backward()
    torch.testing.assert_close(codebook.grad, weights @ projection.matrix.detach())
    assert projection.weight.grad.norm() > 0.1
    small = kind(4, 6, seed=2).double()

    def project(weight, codes):
        return torch.func.functional_call(small, {"weight": weight}, (codes,))

    weight = small.weight.detach() + 0.3 * torch.randn(6, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(project, (weight.requires_grad_(), codebook[:5, :4].detach().requires_grad_()))


def test_a_linear_projection_starts_with_columns_of_about_unit_length():
    norms = LinearProjection(512, 768).matrix.norm(dim=0)
    assert norms.mean().item() == pytest.approx(1, abs=0.01) and norms.min() > 0.85 and norms.max() < 1.15
    assert LinearProjection(60, 40).matrix.shape == (40, 60), "a linear map may reduce the width"


def test_a_linear_projection_starts_from_any_matrix_and_learns_to_distort():
    projection = LinearProjection(20, 48)
    matrix = torch.randn(48, 20)
    projection.start_from(matrix)
    assert torch.equal(projection.matrix, matrix) and projection.weight.requires_grad
    projection.start_from(FrozenSparseProjection(20, 48).matrix)
    assert isometry_error(projection) == 0
    list(train(projection, 100, lr=1e-2))
    assert isometry_error(projection) > 0.1


@pytest.mark.parametrize(("code_dim", "embedding_dim"), [(1, 1), (20, 48), (48, 48), (512, 768)])
def test_an_orthogonal_projection_starts_as_an_isometry(code_dim, embedding_dim):
    projection = OrthogonalProjection(code_dim, embedding_dim, seed=3)
    assert isometry_error(projection) < 2e-5
    codes = torch.randn(50, code_dim, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(gram_matrix(projection(codes)), gram_matrix(codes), rtol=0, atol=2e-6)
    torch.testing.assert_close(projection(codes).norm(dim=-1), codes.norm(dim=-1))


@pytest.mark.parametrize("steps_and_rate", [(200, 1e-2), (50, 0.3)])
def test_an_orthogonal_projection_learns_and_stays_an_isometry(steps_and_rate):
    projection = OrthogonalProjection(32, 48)
    start, losses = projection.matrix.detach().clone(), []
    for loss in train(projection, *steps_and_rate):
        losses.append(loss)
        assert isometry_error(projection) < 5e-6
    assert losses[-1] < 0.2 * losses[0] and (projection.matrix - start).norm() > 2
    weight = projection.weight.detach()
    assert (weight.T @ weight - torch.eye(32)).norm() > 0.1, "the parameter itself is free"


@pytest.mark.slow
def test_an_orthogonal_projection_of_published_size_stays_an_isometry_through_1000_steps():
    """||P^T P - I||_F below 5e-5 in float32, at a rate that moves the parameter far."""
    projection = OrthogonalProjection(512, 768)
    generator = torch.Generator().manual_seed(1)
    codes = torch.randn(512, 512, generator=generator)
    targets = codes @ orthonormal_columns(768, 512, seed=9).float().T
    optimizer = torch.optim.AdamW(projection.parameters(), lr=3e-2)
    worst, start = 0.0, projection.matrix.detach().clone()
    for step in range(1000):
        rows = torch.randint(512, (64,), generator=generator)
        optimizer.zero_grad()
        functional.mse_loss(projection(codes[rows]), targets[rows]).backward()
        optimizer.step()
        if step % 20 == 19:
            worst = max(worst, isometry_error(projection))
    assert worst < 5e-5
    assert (projection.matrix - start).norm() > 10, "it has hardly moved"


def test_a_parameter_with_orthonormal_columns_is_the_projection():
    """Also where the decomposition of the library would turn a column around."""
    for seed in range(3):
        columns = orthonormal_columns(48, 20, seed)
        for signs in (torch.ones(20), -torch.ones(20), torch.arange(20) % 2 * 2 - 1):
            projection = OrthogonalProjection(20, 48).double()
            with torch.no_grad():
                projection.weight.copy_(columns * signs)
            torch.testing.assert_close(projection.matrix, columns * signs)


def test_an_orthogonal_projection_starts_from_the_nearest_isometry():
    """Of the polar decomposition: P^T M is symmetric and positive, and an isometry is its own."""
    projection = OrthogonalProjection(20, 48)
    sparse = FrozenSparseProjection(20, 48, seed=2).matrix
    projection.start_from(-sparse)
    torch.testing.assert_close(projection.matrix, -sparse, rtol=0, atol=1e-6)
    matrix = torch.randn(48, 20, generator=torch.Generator().manual_seed(0))
    projection.start_from(matrix)
    assert isometry_error(projection) < 5e-6
    inner = (projection.matrix.T @ matrix).detach()
    torch.testing.assert_close(inner, inner.T, rtol=0, atol=1e-4)
    assert torch.linalg.eigvalsh(inner).min() > 0


@pytest.mark.parametrize("kind", LEARNED)
def test_a_start_of_another_shape_is_refused(kind):
    with pytest.raises(ValueError, match=r"shape \(20, 48\); this projection is .*\(48, 20\)"):
        kind(20, 48).start_from(torch.zeros(20, 48))


def test_without_gradients_the_projection_follows_every_change_of_its_parameter():
    """P is kept between calls; a stale one would answer with the weights of an earlier step."""
    projection = OrthogonalProjection(20, 48)
    other = OrthogonalProjection(20, 48, seed=5)
    optimizer = torch.optim.SGD(projection.parameters(), lr=1.0)

    def step():
        projection.weight.grad = torch.randn(48, 20)
        optimizer.step()

    def write_aside():
        projection.weight.data[0] += 1.0

    for change in (step, write_aside, lambda: projection.load_state_dict(other.state_dict()), projection.double):
        with torch.no_grad():
            before = projection.matrix
            assert projection.matrix is before, "decomposed once"
        change()
        with torch.no_grad():
            after = projection.matrix
        fresh = torch.linalg.qr(projection.weight.detach())
        torch.testing.assert_close(after, fresh.Q * fresh.R.diagonal().sign())
        assert change == projection.double or (after - before).norm() > 1e-2
    assert projection.matrix.requires_grad, "with gradients it is computed"


def test_a_projection_kept_in_inference_mode_serves_training_too():
    projection, codes = OrthogonalProjection(20, 48), torch.randn(3, 20, requires_grad=True)
    with torch.inference_mode():
        projection(codes.detach())
    with torch.no_grad():
        matrix = projection.matrix
    (codes @ matrix.T).sum().backward()
    assert codes.grad is not None


def test_an_orthogonal_projection_is_an_isometry_in_half_precision_and_under_autocast():
    codes = torch.randn(50, 512, generator=torch.Generator().manual_seed(0))
    projection = OrthogonalProjection(512, 768)
    expected = projection(codes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embeddings = projection(codes)
        assert isometry_error(projection) < 5e-5
    assert embeddings.dtype == torch.float32 and torch.equal(embeddings, expected)
    projection.to(torch.bfloat16)
    assert projection.matrix.dtype == torch.float32 and isometry_error(projection) < 5e-5
    embeddings = projection(codes.bfloat16())
    assert embeddings.dtype == torch.bfloat16
    torch.testing.assert_close(
        embeddings.float().norm(dim=-1), codes.bfloat16().float().norm(dim=-1), rtol=2e-3, atol=0
    )
    embeddings.sum().backward()
    assert projection.weight.grad.dtype == torch.bfloat16 and projection.weight.grad.isfinite().all()


def test_an_orthogonal_projection_is_made_in_single_precision_inside_a_model_in_half():
    """As when a model is built from its configuration in bfloat16."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        projection = OrthogonalProjection(20, 48, seed=7)
    finally:
        torch.set_default_dtype(default)
    assert projection.weight.dtype == torch.float32
    assert torch.equal(projection.matrix, OrthogonalProjection(20, 48, seed=7).matrix)


@pytest.mark.parametrize("kind", LEARNED)
def test_a_learned_projection_compiles_to_one_graph(kind, codebook):
    projection, codes = kind(20, 48), codebook.float()
    compiled = torch.compile(projection, backend="aot_eager", fullgraph=True)
    embeddings = compiled(codes)
    torch.testing.assert_close(embeddings, projection(codes))
    (gradient,) = torch.autograd.grad(embeddings.square().mean(), projection.weight)
    (expected,) = torch.autograd.grad(projection(codes).square().mean(), projection.weight)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


# All kinds


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_every_kind_can_be_made(kind, codebook):
    projection = make_projection(kind, 20, 48, 7)
    free = kind in ("none", "dense_random")
    codes = torch.randn(24, 48) if free else codebook.float()
    embeddings = projection(codes)
    assert embeddings.shape == (24, 48) and projection.embedding_dim == 48
    torch.testing.assert_close(embeddings, codes @ projection.matrix.T)
    expected = {"sparse": FrozenSparseProjection, "linear": LinearProjection, "orthogonal": OrthogonalProjection}
    assert type(projection) is expected.get(kind, IdentityProjection)
    if free:
        assert embeddings is codes and not projection.state_dict()
    else:
        assert torch.equal(projection.matrix, expected[kind](20, 48, 7).matrix), "the seed is passed on"


def test_impossible_projections_are_refused():
    with pytest.raises(ValueError, match="projection is 'dense'; use one of sparse, linear, orthogonal, none"):
        make_projection("dense", 20, 48, 0)
    with pytest.raises(ValueError, match="code_dim 49 does not fit into .* 48 dimensions: an orthogonal projection"):
        make_projection("orthogonal", 49, 48, 0)


@pytest.mark.parametrize("kind", ["sparse", "linear", "orthogonal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_projection_survives_saving_and_loading_in_a_language_model(
    kind, dtype, tiny_language_model, tiny_tokenizer_model, tmp_path
):
    """`from_pretrained` builds the model without data first; the trained values must replace those of the seed."""
    model = GeoMotionGPTForCausalLM.from_components(tiny_language_model, tiny_tokenizer_model, projection=kind)
    saved = model.motion_projection
    if kind == "sparse":
        saved.indices.copy_(saved.indices.flip(0))
    else:
        saved.start_from(torch.randn(48, 32, generator=torch.Generator().manual_seed(4)))
    model.save_pretrained(tmp_path)
    loaded = GeoMotionGPTForCausalLM.from_pretrained(tmp_path, dtype=dtype).motion_projection
    assert type(loaded) is type(saved)
    assert torch.equal(loaded.matrix, saved.matrix if kind != "linear" else saved.matrix.to(loaded.matrix.dtype))
    fresh = make_projection(kind, 32, 48, model.config.projection_seed)
    assert not torch.equal(loaded.matrix, fresh.matrix.to(loaded.matrix.dtype)), "the seed's values came back"


@pytest.mark.parametrize("kind", LEARNED)
def test_peft_trains_and_saves_a_learned_projection_in_full(kind, tmp_path):
    base = torch.nn.ModuleDict({"projection": kind(20, 48), "head": torch.nn.Linear(48, 3)})
    base.forward = lambda codes: base["head"](base["projection"](codes))
    original = base["projection"].matrix.detach().clone()
    config = LoraConfig(r=2, target_modules=["head"], modules_to_save=["projection"])
    adapted = get_peft_model(base, config)
    wrapper = adapted.base_model.model["projection"]
    optimizer = torch.optim.SGD([weight for weight in adapted.parameters() if weight.requires_grad], lr=1.0)
    adapted(torch.randn(5, 20)).square().sum().backward()
    optimizer.step()
    assert (wrapper.matrix - original).norm() > 1e-2, "the copy that trains is the one that is read"
    torch.testing.assert_close(wrapper.original_module.matrix, original)
    merged = adapted.merge_and_unload()["projection"]
    assert type(merged) is kind and torch.equal(merged.matrix, wrapper.modules_to_save["default"].matrix)


# What the published code does


def test_the_published_projection_loses_the_geometry_that_the_sparse_one_keeps():
    """||G - I||_F^2 of an orthonormal codebook, K = D = 512, D' = 768: about 346 against rounding."""
    codebook = orthonormal_columns(512, 512).float().T
    dense = dense_random_embeddings(codebook, 768, 1.0, torch.Generator().manual_seed(42))
    assert orthonormality_loss(dense).item() == pytest.approx(346, abs=6)
    assert orthonormality_loss(FrozenSparseProjection(512, 768)(codebook)).item() < 1e-8
    for kind in LEARNED:
        error = orthonormality_loss(kind(512, 768)(codebook)).item()
        assert error < 1e-8 if kind is OrthogonalProjection else error > 300


def test_a_tenth_of_the_published_projection_is_kept_with_random_sign():
    matrix = dense_random_projection(512, 768, torch.Generator().manual_seed(1))
    assert matrix.shape == (512, 768)
    kept = matrix[matrix != 0]
    assert len(kept) / matrix.numel() == pytest.approx(0.1, abs=0.002)
    torch.testing.assert_close(kept.abs(), torch.full_like(kept, (10 / 512) ** 0.5))
    assert (kept > 0).float().mean().item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_published_rows_have_one_length_and_the_dtype_of_the_codebook(codebook, dtype):
    codes = codebook.to(dtype).requires_grad_()
    rows = dense_random_embeddings(codes, 48, 3.5, torch.Generator().manual_seed(42))
    assert rows.shape == (24, 48) and rows.dtype == dtype and not rows.requires_grad
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(rows.norm(dim=-1), torch.full((24,), 3.5, dtype=dtype), rtol=tolerance, atol=0)
    other = dense_random_embeddings(codes, 48, 3.5, torch.Generator().manual_seed(43))
    assert (rows - other).abs().max() > 0.1


def test_dense_random_agrees_with_the_published_initialiser(real_data):
    published = load_file(real_data / "reference" / "parity" / "geometry_regulariser.safetensors")
    matrix = dense_random_projection(20, 48, torch.Generator().manual_seed(42))
    torch.testing.assert_close(matrix, published["outputs.sparse_projection"], rtol=0, atol=1e-7)
    before, after = published["weights.embedding"], published["outputs.embedding_after_sparse_init"]
    text_norm = before[: int(published["inputs.text_vocab_size"])].norm(dim=-1).mean()
    rows = dense_random_embeddings(published["weights.codebook"], 48, text_norm, torch.Generator().manual_seed(42))
    torch.testing.assert_close(rows, after[published["inputs.motion_ids"]], rtol=0, atol=1e-6)


def test_the_linear_projection_agrees_with_the_published_one_without_its_bias(real_data):
    published = load_file(real_data / "reference" / "parity" / "geometry_regulariser.safetensors")
    projection = LinearProjection(20, 48)
    projection.start_from(published["weights.linear.projection.weight"])
    rows = projection(published["weights.linear.codebook"]) + published["weights.linear.projection.bias"]
    torch.testing.assert_close(rows, published["outputs.linear_projection_table"][:24], rtol=0, atol=1e-5)
