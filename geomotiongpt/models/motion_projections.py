"""Projections from the code dimensions D into the D' dimensions of a language model's embedding: e = P c.

`FrozenSparseProjection` is the paper's (arXiv 2601.07632); the others are what it can be compared with. All have
`matrix`, P itself, (embedding_dim, code_dim), and map (..., code_dim) to (..., embedding_dim).
"""

import math

import torch
from torch import Tensor, nn
from transformers import initialization as init

PROJECTIONS = ("sparse", "linear", "orthogonal", "none", "dense_random")


class FrozenSparseProjection(nn.Module):
    """The paper's sparse projection e = P c: each code dimension goes to a distinct embedding dimension.

    P is in {0, 1}^(embedding_dim x code_dim) with exactly one 1 in each column and at most one in each row, so
    P^T P = I: lengths and angles of the codebook are those of its embeddings. P is drawn once from `seed`, never
    trained, and saved with the model as the row number of each column's 1. It is applied as an index copy.

    Args:
        code_dim: D, width of a code.
        embedding_dim: D', width of the language model's embedding; at least `code_dim`.
        seed: of the random choice of dimensions.

    Raises:
        ValueError: if `code_dim` exceeds `embedding_dim` (no isometry exists).
    """

    indices: Tensor

    def __init__(self, code_dim: int, embedding_dim: int, seed: int = 0):
        super().__init__()
        _check_isometry("sparse", code_dim, embedding_dim)
        self.code_dim, self.embedding_dim, self.seed = code_dim, embedding_dim, seed
        self.register_buffer("indices", torch.empty(code_dim, dtype=torch.long))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws P from the seed, always on the CPU, so that every device and process gets the same."""
        generator = torch.Generator("cpu").manual_seed(self.seed)
        permutation = torch.randperm(self.embedding_dim, generator=generator, device="cpu")
        init.copy_(self.indices, permutation[: self.code_dim])

    @property
    def matrix(self) -> Tensor:
        """P itself, (embedding_dim, code_dim)."""
        columns = torch.arange(self.code_dim, device=self.indices.device)
        matrix = torch.zeros(self.embedding_dim, self.code_dim, device=self.indices.device)
        matrix[self.indices, columns] = 1.0
        return matrix

    def forward(self, codes: Tensor) -> Tensor:
        """(..., code_dim) -> (..., embedding_dim): c -> P c."""
        embeddings = codes.new_zeros(*codes.shape[:-1], self.embedding_dim)
        return embeddings.index_copy(-1, self.indices, codes)

    def transpose(self, embeddings: Tensor) -> Tensor:
        """(..., embedding_dim) -> (..., code_dim): e -> P^T e, which undoes `forward`."""
        return embeddings.index_select(-1, self.indices)

    def extra_repr(self) -> str:
        return f"code_dim={self.code_dim}, embedding_dim={self.embedding_dim}, seed={self.seed}"


class LinearProjection(nn.Module):
    """A learned linear map e = P c without bias, free to change lengths and angles (the paper's ablation).

    Args:
        code_dim: D, width of a code.
        embedding_dim: D', width of the language model's embedding.
        seed: of the random start, whose columns have about unit length.
    """

    def __init__(self, code_dim: int, embedding_dim: int, seed: int = 0):
        super().__init__()
        self.code_dim, self.embedding_dim, self.seed = code_dim, embedding_dim, seed
        self.weight = nn.Parameter(torch.empty(embedding_dim, code_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the start from the seed, always on the CPU: normal entries of variance 1 / embedding_dim."""
        start = _normal_matrix(self.embedding_dim, self.code_dim, self.seed)
        init.copy_(self.weight, start / math.sqrt(self.embedding_dim))

    @torch.no_grad()
    def start_from(self, matrix: Tensor) -> None:
        """Makes P equal to a matrix (embedding_dim, code_dim), such as another projection's.

        Raises:
            ValueError: for another shape.
        """
        _check_shape(matrix, self.weight)
        self.weight.copy_(matrix)

    @property
    def matrix(self) -> Tensor:
        """P itself, (embedding_dim, code_dim)."""
        return self.weight

    def forward(self, codes: Tensor) -> Tensor:
        """(..., code_dim) -> (..., embedding_dim): c -> P c."""
        return nn.functional.linear(codes, self.weight.to(codes.dtype))

    def extra_repr(self) -> str:
        return f"code_dim={self.code_dim}, embedding_dim={self.embedding_dim}, seed={self.seed}"


class OrthogonalProjection(nn.Module):
    """A learned isometry e = P c: the columns of P are orthonormal before, during and after training.

    P is the Q factor of the QR decomposition of a free parameter W (embedding_dim, code_dim), with signs such that R
    has a positive diagonal. That makes P a smooth function of W onto the Stiefel manifold (Edelman, Arias and Smith,
    arXiv physics/9806030, give its geometry), any optimiser may move W, and P = W where the columns of W are
    orthonormal already. Decomposition and product run in float32 at least, whatever the dtype around them.

    Args:
        code_dim: D, width of a code.
        embedding_dim: D', width of the language model's embedding; at least `code_dim`.
        seed: of the random start.

    Raises:
        ValueError: if `code_dim` exceeds `embedding_dim` (no isometry exists).
    """

    def __init__(self, code_dim: int, embedding_dim: int, seed: int = 0):
        super().__init__()
        _check_isometry("orthogonal", code_dim, embedding_dim)
        self.code_dim, self.embedding_dim, self.seed = code_dim, embedding_dim, seed
        self.weight = nn.Parameter(torch.empty(embedding_dim, code_dim, dtype=torch.float32))
        self._decomposed: tuple[Tensor, Tensor] | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the start from the seed, always on the CPU: uniform among the matrices with orthonormal columns."""
        init.copy_(self.weight, _positive_qr(_normal_matrix(self.embedding_dim, self.code_dim, self.seed)))

    @torch.no_grad()
    def start_from(self, matrix: Tensor) -> None:
        """Makes P the matrix with orthonormal columns that is nearest to a matrix (embedding_dim, code_dim).

        It is the orthogonal factor of the polar decomposition: the matrix itself if its columns are orthonormal.

        Raises:
            ValueError: for another shape.
        """
        _check_shape(matrix, self.weight)
        left, _, right = torch.linalg.svd(matrix.double(), full_matrices=False)
        self.weight.copy_(left @ right)

    @property
    def matrix(self) -> Tensor:
        """P itself, (embedding_dim, code_dim), in float32 at least."""
        weight = self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return _positive_qr(weight)
        # Decoding asks for the same P at every token. Values are compared because not every change of a parameter
        # (through `.data`, or when a module is moved) leaves a trace.
        if self._decomposed is not None:
            known, matrix = self._decomposed
            if (known.dtype, known.device) == (weight.dtype, weight.device) and torch.equal(known, weight):
                return matrix
        with torch.inference_mode(False), torch.no_grad():  # what is kept must serve outside inference mode too
            matrix = _positive_qr(weight)
            self._decomposed = weight.clone(), matrix
        return matrix

    def forward(self, codes: Tensor) -> Tensor:
        """(..., code_dim) -> (..., embedding_dim): c -> P c, in the dtype of the codes."""
        with torch.autocast(codes.device.type, enabled=False):
            matrix = self.matrix
            dtype = torch.promote_types(codes.dtype, matrix.dtype)
            return nn.functional.linear(codes.to(dtype), matrix.to(dtype)).to(codes.dtype)

    def extra_repr(self) -> str:
        return f"code_dim={self.code_dim}, embedding_dim={self.embedding_dim}, seed={self.seed}"


class IdentityProjection(nn.Module):
    """No projection: the motion rows are embeddings themselves, each free to move on its own.

    Args:
        embedding_dim: D', width of the language model's embedding and of the rows.
    """

    def __init__(self, embedding_dim: int):
        super().__init__()
        self.code_dim = self.embedding_dim = embedding_dim

    @property
    def matrix(self) -> Tensor:
        """The identity, (embedding_dim, embedding_dim)."""
        return torch.eye(self.embedding_dim)

    def forward(self, codes: Tensor) -> Tensor:
        """(..., embedding_dim), unchanged."""
        return codes

    def extra_repr(self) -> str:
        return f"embedding_dim={self.embedding_dim}"


def make_projection(kind: str, code_dim: int, embedding_dim: int, seed: int = 0) -> nn.Module:
    """The projection of a kind.

    Args:
        kind: "sparse" (the paper's, frozen), "linear" (learned), "orthogonal" (learned, its columns orthonormal), or
            "none" and "dense_random" (the identity: the rows are of width `embedding_dim` and free; the two differ in
            what the rows start from, see `dense_random_embeddings`).
        code_dim: D, width of a code.
        embedding_dim: D', width of the language model's embedding.
        seed: of what is drawn.

    Raises:
        ValueError: for another kind, or if codes are too wide for an isometry.
    """
    if kind == "sparse":
        return FrozenSparseProjection(code_dim, embedding_dim, seed)
    if kind == "linear":
        return LinearProjection(code_dim, embedding_dim, seed)
    if kind == "orthogonal":
        return OrthogonalProjection(code_dim, embedding_dim, seed)
    if kind in ("none", "dense_random"):
        return IdentityProjection(embedding_dim)
    raise ValueError(f"projection is {kind!r}; use one of {', '.join(PROJECTIONS)}.")


def dense_random_projection(code_dim: int, embedding_dim: int, generator: torch.Generator) -> Tensor:
    """The random matrix of the published code, P^T with shape (code_dim, embedding_dim): no isometry.

    A tenth of the entries is kept, at +-sqrt(10 / code_dim) with random sign, so that an entry has variance
    1 / code_dim.

    Args:
        code_dim: D, width of a code.
        embedding_dim: D', width of the language model's embedding.
        generator: on the CPU; the published code seeds it with 42.
    """
    kept = torch.rand(code_dim, embedding_dim, generator=generator, device="cpu") < 0.1
    signs = torch.randint(0, 2, (code_dim, embedding_dim), generator=generator, device="cpu") * 2 - 1
    return kept * signs * (math.sqrt(10) / math.sqrt(code_dim))


def dense_random_embeddings(
    codebook: Tensor, embedding_dim: int, target_norm: float | Tensor, generator: torch.Generator
) -> Tensor:
    """What the published code starts its motion rows from, instead of the paper's isometry.

    The codes go through `dense_random_projection`, and every row is rescaled to one length. Neither keeps the angles:
    of an orthonormal codebook with 512 codes, 768 embedding dimensions leave ||G - I||_F^2 at about 346.

    Args:
        codebook: (num_codes, code_dim).
        embedding_dim: D', width of the language model's embedding.
        target_norm: length of every row; the published code takes the mean length of the text rows.
        generator: on the CPU; the published code seeds it with 42.

    Returns:
        (num_codes, embedding_dim), in the codebook's dtype and on its device.
    """
    codes = codebook.detach().to(torch.promote_types(codebook.dtype, torch.float32))
    projection = dense_random_projection(codebook.shape[-1], embedding_dim, generator).to(codes)
    with torch.autocast(codes.device.type, enabled=False):
        projected = codes @ projection
    rows = nn.functional.normalize(projected, dim=-1) * target_norm
    return rows.to(codebook.dtype)


def _positive_qr(weight: Tensor) -> Tensor:
    """Q of the QR decomposition whose R has a positive diagonal."""
    q, r = torch.linalg.qr(weight)
    return q * torch.where(r.diagonal() < 0, -1.0, 1.0).to(q.dtype)


def _normal_matrix(rows: int, columns: int, seed: int) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, device="cpu", dtype=torch.float32)


def _check_isometry(kind: str, code_dim: int, embedding_dim: int) -> None:
    if code_dim > embedding_dim:
        raise ValueError(
            f"code_dim {code_dim} does not fit into an embedding of {embedding_dim} dimensions: "
            f"{'a sparse isometric' if kind == 'sparse' else 'an orthogonal'} projection needs "
            f"code_dim <= {embedding_dim}. Train the motion tokenizer with a smaller code_dim or take a wider "
            "language model."
        )


def _check_shape(matrix: Tensor, weight: Tensor) -> None:
    if matrix.shape != weight.shape:
        raise ValueError(
            f"the matrix to start from has shape {tuple(matrix.shape)}; this projection is (embedding_dim, code_dim) "
            f"= {tuple(weight.shape)}."
        )
