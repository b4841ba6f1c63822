"""Geometry of a motion codebook: the Gram matrix, what training may ask of it, and how far a codebook is from that."""

import math

import torch
from torch import Tensor, nn

GEOMETRIC_CONSTRAINTS = (
    "orthonormal",
    "decorrelation",
    "whitening",
    "spectral",
    "pairwise_cosine",
    "cluster",
    "none",
)
SPECTRAL_FORMS = ("log_determinant", "condition_number")

# Share of the identity mixed into a Gram matrix, so that logarithms of its eigenvalues and their gradients are finite.
_SHRINKAGE = 1e-3
_MAX_ITERATIONS = 100
# Below this share of the codebook's size, what a code dimension varies by is rounding.
_RELATIVE_FLOOR = 1e-6


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


def geometric_loss(
    codebook: Tensor,
    constraint: str = "orthonormal",
    *,
    spectral_form: str = "log_determinant",
    clusters: Tensor | None = None,
) -> Tensor:
    """What a geometric constraint costs, unweighted.

    "orthonormal" and "cluster" are sums over all pairs of codes, as in the paper, "decorrelation" and "whitening" over
    pairs of code dimensions; "pairwise_cosine" is a mean, as in the published code, and wants a weight of about 1.

    | constraint | loss | reaches its smallest value, and 0 where that can be, for |
    |---|---|---|
    | orthonormal | sum over pairs of squared cosines, ||G - I||_F^2 | orthonormal codes (K <= D) |
    | decorrelation | `decorrelation_loss` | uncorrelated code dimensions (K > D) |
    | whitening | `whitening_loss` | uncorrelated code dimensions of equal variance (K > D) |
    | spectral | `spectral_loss` | orthonormal codes (K <= D), tight frames (K > D) |
    | pairwise_cosine | `pairwise_cosine_loss` | codes that point away from each other: negative |
    | cluster | `cluster_loss` | codes orthogonal to those of other clusters |
    | none | 0, without gradient | |

    Args:
        codebook: (num_codes, code_dim), any floating dtype; computed in float32 at least.
        constraint: one of `GEOMETRIC_CONSTRAINTS`.
        spectral_form: "log_determinant" or "condition_number"; only for "spectral".
        clusters: (num_codes,) long, the cluster of each code; only for "cluster".

    Returns:
        a scalar, in float32 at least.

    Raises:
        ValueError: for another constraint or spectral form, or for "cluster" without a cluster for each code.
    """
    if constraint == "orthonormal":
        return orthonormality_loss(codebook)
    if constraint == "decorrelation":
        return decorrelation_loss(codebook)
    if constraint == "whitening":
        return whitening_loss(codebook)
    if constraint == "spectral":
        return spectral_loss(codebook, spectral_form)
    if constraint == "pairwise_cosine":
        return pairwise_cosine_loss(codebook)
    if constraint == "cluster":
        return cluster_loss(codebook, clusters)
    if constraint == "none":
        return torch.zeros((), dtype=_precise(codebook.dtype), device=codebook.device)
    raise ValueError(f"geometric_constraint is {constraint!r}; use one of {', '.join(GEOMETRIC_CONSTRAINTS)}.")


def check_geometric_constraint(constraint: str, spectral_form: str, num_clusters: int, num_codes: int) -> None:
    """Refuses settings that `geometric_loss` cannot be called with.

    Raises:
        ValueError: for an unknown constraint or spectral form, or, with "cluster", for clusters that some code would
            be missing for.
    """
    if constraint not in GEOMETRIC_CONSTRAINTS:
        raise ValueError(f"geometric_constraint is {constraint!r}; use one of {', '.join(GEOMETRIC_CONSTRAINTS)}.")
    if spectral_form not in SPECTRAL_FORMS:
        raise ValueError(f"spectral_form is {spectral_form!r}; use {' or '.join(map(repr, SPECTRAL_FORMS))}.")
    if constraint == "cluster":
        _check_cluster_number(num_clusters, num_codes)


def decorrelation_loss(codebook: Tensor) -> Tensor:
    """Sum over pairs of different code dimensions of their squared correlation over the codebook.

    The redundancy term of Barlow Twins (arXiv 2103.03230, eq. 1) on the codebook itself; DeCov (arXiv 1511.06068) is
    the same with covariances. Dimensions may be shifted and scaled at will, and one that does not vary counts as
    uncorrelated. K centred codes span K - 1 directions: with K <= D, and all dimensions varying, the smallest value is
    D^2 / (K - 1) - D.

    Args:
        codebook: (num_codes, code_dim).
    """
    centred, floor = _centred(codebook)
    deviations = centred.norm(dim=0).clamp(min=floor)
    with torch.autocast(codebook.device.type, enabled=False):
        correlations = (centred / deviations).T @ (centred / deviations)
    return correlations.square().sum() - correlations.diagonal().square().sum()


def whitening_loss(codebook: Tensor) -> Tensor:
    """||Cov - I||_F^2, Cov the covariance of the code dimensions over the codebook, scaled to a mean variance of 1.

    The soft form of what whitening layers enforce (decorrelated batch normalisation, arXiv 1804.08450; W-MSE, arXiv
    2007.06346). The scale is divided out because another part of the model sets it (the embedding scale s): 0 means
    that the codes vary alike in every direction around their mean, and neither scale, shift nor rotation matters. K
    centred codes span K - 1 directions: with K <= D the smallest value is D^2 / (K - 1) - D.

    Args:
        codebook: (num_codes, code_dim).
    """
    centred, floor = _centred(codebook)
    deviation = (centred.norm() / centred.shape[-1] ** 0.5).clamp(min=floor)
    with torch.autocast(codebook.device.type, enabled=False):
        covariance = (centred / deviation).T @ (centred / deviation)
    return (covariance - torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)).square().sum()


def spectral_loss(codebook: Tensor, form: str = "log_determinant") -> Tensor:
    """How far the spectrum of the row-normalised codebook is from that of an orthonormal set.

    Let mu be the min(K, D) largest eigenvalues of the Gram matrix G, over their mean, and shrunken a little to 1 so
    that dependent codes keep a finite loss and gradient. The loss is

    - "log_determinant": -sum log mu. While K <= D this is -log det G, the LogDet divergence of G from I (Kulis, Sustik
      and Dhillon, JMLR 2009), 0 exactly where G = I.
    - "condition_number": log(max mu / min mu), the logarithm of the condition number of G. It pulls at the two extreme
      directions only, and has a kink where it is 0.

    With K > D both are 0 exactly where all D directions are equally filled: at tight frames, which reach the Welch
    bound of the orthonormal constraint.

    Args:
        codebook: (num_codes, code_dim).
        form: "log_determinant" or "condition_number".

    Raises:
        ValueError: for another form.
    """
    if form not in SPECTRAL_FORMS:
        raise ValueError(f"spectral_form is {form!r}; use {' or '.join(map(repr, SPECTRAL_FORMS))}.")
    rows = nn.functional.normalize(codebook.to(_precise(codebook.dtype)), dim=-1)
    num_codes, code_dim = rows.shape
    with torch.autocast(codebook.device.type, enabled=False):
        smaller = rows @ rows.T if num_codes <= code_dim else rows.T @ rows * (code_dim / num_codes)
        identity = torch.eye(len(smaller), dtype=smaller.dtype, device=smaller.device)
        shrunken = (1 - _SHRINKAGE) * smaller + _SHRINKAGE * identity
        if form == "log_determinant":
            return -torch.linalg.slogdet(shrunken).logabsdet
        eigenvalues = torch.linalg.eigvalsh(shrunken)
    return eigenvalues[-1].log() - eigenvalues[0].log()


def pairwise_cosine_loss(codebook: Tensor) -> Tensor:
    """Mean cosine of two different codes, with its sign, as in the published code (the paper's ablation).

    It asks for codes that point apart, not for right angles: the smallest value is -1 / (K - 1), for example where the
    codes of unit length sum to 0.

    Args:
        codebook: (num_codes, code_dim).
    """
    gram = gram_matrix(codebook)
    num_codes = len(gram)
    return (gram.sum() - gram.diagonal().sum()) / max(1, num_codes * (num_codes - 1))


def cluster_loss(codebook: Tensor, clusters: Tensor | None) -> Tensor:
    """Sum of squared cosines over the pairs of codes of different clusters: orthonormal between, free within.

    With every code in a cluster of its own this is the orthonormal constraint, with one cluster it is 0.

    Args:
        codebook: (num_codes, code_dim).
        clusters: (num_codes,) long, the cluster of each code (`equal_clusters`, `cluster_codes`).

    Raises:
        ValueError: unless there is a cluster for each code.
    """
    if clusters is None or clusters.shape != codebook.shape[:1]:
        met = "none" if clusters is None else f"shape {tuple(clusters.shape)}"
        raise ValueError(
            f"the constraint 'cluster' takes a cluster for each of the {len(codebook)} codes, (num_codes,); met "
            f"{met}. Make them with `equal_clusters` or `cluster_codes`."
        )
    different = clusters[:, None] != clusters[None, :]
    return gram_matrix(codebook).square().masked_fill(~different, 0).sum()


def equal_clusters(num_codes: int, num_clusters: int) -> Tensor:
    """Clusters of consecutive codes, equal in size up to one: what to start from, while codes are exchangeable.

    Returns:
        (num_codes,) long, the cluster of each code, in [0, num_clusters).

    Raises:
        ValueError: unless there is at least one code for each cluster and at least one cluster.
    """
    _check_cluster_number(num_clusters, num_codes)
    return torch.arange(num_codes, device="cpu") * num_clusters // num_codes


def cluster_codes(vectors: Tensor, num_clusters: int, seed: int) -> Tensor:
    """Clusters of similar codes by k-means: at most 100 of Lloyd's iterations from a k-means++ start.

    Args:
        vectors: (num_codes, width), what the codes are compared by: the motion each decodes to, or the codes.
        num_clusters: how many; a cluster is empty only if there are fewer different vectors.
        seed: of the start; the same seed gives the same clusters.

    Returns:
        (num_codes,) long on the CPU, the cluster of each code, in [0, num_clusters).

    Raises:
        ValueError: unless there is at least one code for each cluster and at least one cluster.
    """
    _check_cluster_number(num_clusters, len(vectors))
    points = vectors.detach().cpu().double()
    generator = torch.Generator("cpu").manual_seed(seed)
    centres = points[torch.randint(len(points), (1,), generator=generator)]
    while len(centres) < num_clusters:
        distances = torch.cdist(points, centres).amin(-1).square()
        shares = distances if distances.sum() > 0 else torch.ones_like(distances)
        centres = torch.cat([centres, points[torch.multinomial(shares, 1, generator=generator)]])
    clusters = torch.full((len(points),), -1)
    for _ in range(_MAX_ITERATIONS):
        distances, nearest = torch.cdist(points, centres).min(-1)
        if torch.equal(nearest, clusters):
            break
        clusters = nearest
        for cluster in range(num_clusters):
            members = points[clusters == cluster]
            # An empty cluster starts again from the code that is worst represented.
            centres[cluster] = members.mean(0) if len(members) else points[distances.argmax()]
    return clusters


def _check_cluster_number(num_clusters: int, num_codes: int) -> None:
    if not 1 <= num_clusters <= num_codes:
        raise ValueError(
            f"num_code_clusters is {num_clusters}; of {num_codes} codes there can be 1 to {num_codes} clusters."
        )


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _centred(codebook: Tensor) -> tuple[Tensor, Tensor]:
    """The codebook without its mean code, and the size below which what is left of a dimension is rounding."""
    codebook = codebook.to(_precise(codebook.dtype))
    floor = (_RELATIVE_FLOOR * codebook.detach().norm()).clamp(min=torch.finfo(codebook.dtype).tiny)
    return codebook - codebook.mean(dim=0), floor


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
