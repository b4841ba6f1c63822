"""Configurations of the baseline motion tokenizers: the trunk's sizes, and what each quantiser needs beside them."""

import math

from ..models.configuration_motion_tokenizer import MotionTokenizerConfig

_DVQ_WEIGHTS = ("orthonormality_weight", "utilisation_weight")


class BaselineMotionTokenizerConfig(MotionTokenizerConfig):
    """What the baselines share: the trunk of `MotionTokenizerConfig`, and neither of the two terms of L_DVQ.

    The Gumbel settings have no effect: nothing is sampled.

    Args:
        orthonormality_weight: 0; no gradient reaches these codebooks.
        utilisation_weight: 0; there are no logits whose entropy it could raise.
    """

    model_type = "baseline_motion_tokenizer"
    _auto_class = None  # they need the package and its extra: what is saved must not promise code that travels

    orthonormality_weight: float = 0.0
    utilisation_weight: float = 0.0

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        for name in _DVQ_WEIGHTS:
            if getattr(self, name) != 0:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; a {self.model_type} has no such term: leave it out, or train a "
                    f"{MotionTokenizerConfig.model_type}."
                )

    def _derive(self, name: str, value: int, source: str) -> None:
        """Sets a size that follows from other settings; a saved configuration repeats it."""
        if getattr(self, name) not in (0, value):
            raise ValueError(f"{name} is {getattr(self, name)}, but {source} make it {value}: leave it out.")
        setattr(self, name, value)


class VQMotionTokenizerConfig(BaselineMotionTokenizerConfig):
    """Straight-through vector quantisation with moving averages and resets (T2M-GPT, MotionGPT).

    Args:
        decay: of the moving averages that the codes follow.
        dead_code_threshold: a code is reset to a latent vector of the batch when the moving average of its uses in a
            step falls below this; 0: never.
        commitment_weight: weight of the distance between latent vectors and their codes.
    """

    model_type = "vq_motion_tokenizer"

    decay: float = 0.99
    dead_code_threshold: float = 1.0
    commitment_weight: float = 0.02

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay is {self.decay}; it must be at least 0 and below 1.")
        for name in ("dead_code_threshold", "commitment_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative.")


class ResidualVQMotionTokenizerConfig(VQMotionTokenizerConfig):
    """Residual vector quantisation (MoMask): each further quantiser codes what the ones before leave over.

    Args:
        num_quantizers: quantisers in a row, and codes of one latent frame.
        codes_per_quantizer: size of the codebook of each.
        num_codes: of all quantisers together; follows from the two and is left out.
    """

    model_type = "residual_vq_motion_tokenizer"

    num_quantizers: int = 6
    codes_per_quantizer: int = 512
    num_codes: int = 0

    def __post_init__(self, **kwargs):
        for name in ("num_quantizers", "codes_per_quantizer"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        self._derive(
            "num_codes", self.num_quantizers * self.codes_per_quantizer, "num_quantizers and codes_per_quantizer"
        )
        super().__post_init__(**kwargs)


class FSQMotionTokenizerConfig(BaselineMotionTokenizerConfig):
    """Finite scalar quantisation (arXiv 2309.15505): each of a few latent values is rounded to one of its levels.

    Args:
        levels: how many levels each latent value has, at least 3; the paper takes 5 or more ([8, 8, 8] for 512 codes,
            [8, 5, 5, 5] for 1,000).
        num_codes: the product of the levels; follows from them and is left out.
        code_dim: the number of levels; the same.
    """

    model_type = "fsq_motion_tokenizer"

    levels: list[int] | tuple[int, ...] = (8, 8, 8)
    num_codes: int = 0
    code_dim: int = 0

    def __post_init__(self, **kwargs):
        self.levels = list(self.levels)
        if not self.levels or min(self.levels) < 3:
            raise ValueError(f"levels are {self.levels}; give at least one number, each at least 3.")
        self._derive("num_codes", math.prod(self.levels), f"levels {self.levels}")
        self._derive("code_dim", len(self.levels), f"levels {self.levels}")
        super().__post_init__(**kwargs)
