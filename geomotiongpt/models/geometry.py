"""Geometry of a motion codebook: Gram matrix, orthonormality, and the isometry into a language model's embedding."""

import math

import torch
from torch import Tensor, nn
from transformers import initialization as init


def gram_matrix(codebook: Tensor) -> Tensor:
    """Gram matrix of the row-normalised codebook, G = C^ C^^T: the cosines between all pairs of codes.

    Args:
        codebook: (num_codes, code_dim), any floating dtype; computed in float32 at least.

    Returns:
        (num_codes, num_codes) cosines; the diagonal is 1.
    """
    codebook = codebook.to(torch.promote_types(codebook.dtype, torch.float32))
    normalised = nn.functional.normalize(codebook, dim=-1)
    with torch.autocast(codebook.device.type, enabled=False):
        return normalised @ normalised.transpose(-1, -2)


def orthonormality_loss(codebook: Tensor, reduction: str = "sum") -> Tensor:
    """||G - I||_F^2, the paper's orthonormal regulariser (arXiv 2601.07632, the L_ortho term of both stages).

    Args:
        codebook: (num_codes, code_dim).
        reduction: "sum", the squared Frobenius norm of the paper (its lambda belongs to this form), or "mean", the
            mean over all num_codes^2 entries.

    Raises:
        ValueError: for another reduction.
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction is {reduction!r}; use 'sum' (the paper's form) or 'mean'.")
    gram = gram_matrix(codebook)
    squares = (gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)).square()
    return squares.sum() if reduction == "sum" else squares.mean()


def welch_bound(num_codes: int, code_dim: int) -> float:
    """Smallest possible ||G - I||_F^2 for num_codes unit vectors in code_dim dimensions: max(0, K^2/D - K).

    Zero while K <= D (an orthonormal set exists); report the excess above it when K > D (Welch, 1974).
    """
    return max(0.0, num_codes**2 / code_dim - num_codes)


def codebook_geometry(codebook: Tensor) -> dict[str, float]:
    """How orthonormal a codebook is.

    Returns:
        `gram_error`: ||G - I||_F^2; `gram_error_excess`: the same above the Welch bound; `max_abs_cosine`: the largest
        |cosine| of two different codes.
    """
    gram = gram_matrix(codebook.detach().double())
    num_codes, code_dim = codebook.shape
    error = (gram - torch.eye(num_codes, dtype=gram.dtype, device=gram.device)).square().sum().item()
    off_diagonal = gram.abs().fill_diagonal_(0)
    return {
        "gram_error": error,
        "gram_error_excess": error - welch_bound(num_codes, code_dim),
        "max_abs_cosine": off_diagonal.max().item(),
    }


def usage_statistics(counts: Tensor) -> dict[str, float]:
    """Code use from a histogram of codes.

    Args:
        counts: (num_codes,), how often each code was chosen.

    Returns:
        `perplexity`: exp of the entropy of the usage frequencies; `codes_used` and `dead_codes`: how many codes were
        chosen at least once, and never.
    """
    frequencies = counts.double() / counts.sum().clamp(min=1)
    entropy = -torch.special.xlogy(frequencies, frequencies).sum().item()
    used = int((counts > 0).sum())
    return {"perplexity": math.exp(entropy), "codes_used": used, "dead_codes": len(counts) - used}


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
        if code_dim > embedding_dim:
            raise ValueError(
                f"code_dim {code_dim} does not fit into an embedding of {embedding_dim} dimensions: a sparse "
                f"isometric projection needs code_dim <= {embedding_dim}. Train the motion tokenizer with a "
                "smaller code_dim or take a wider language model."
            )
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
