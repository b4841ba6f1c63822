"""Configuration of the motion tokenizer (GeoMotionGPT's decoder-only quantiser, DVQ)."""

from transformers import PreTrainedConfig

from .geometry import check_geometric_constraint


class MotionTokenizerConfig(PreTrainedConfig):
    """Everything the weights of a `MotionTokenizer` need, with the published sizes as defaults.

    Args:
        num_features: width of a motion frame (263 for HumanML3D, 251 for KIT-ML).
        num_codes: K, size of the codebook.
        code_dim: D, width of a code; an exactly orthonormal codebook needs num_codes <= code_dim.
        hidden_size: width of the convolutions.
        num_downsampling_layers: halvings of the frame rate between motion and codes (3: one code for 8 frames).
        num_residual_layers: residual units in each stage.
        dilation_growth_rate: ratio of the dilations of successive residual units (largest first: 9, 3, 1).
        gumbel_temperature: tau of the Gumbel-Softmax at the end of training; schedules multiply it.
        gumbel_noise: scale of the Gumbel noise by which training samples codes (1: samples of softmax(logits), as in
            the paper; 0: the plain straight-through argmax).
        geometric_constraint: what the codebook is held to: "orthonormal" (the paper's ||G - I||_F^2), "decorrelation",
            "whitening", "spectral", "pairwise_cosine", "cluster" or "none" (see `geometric_loss`).
        spectral_form: "log_determinant" or "condition_number"; only for "spectral".
        num_code_clusters: how many clusters of codes, orthonormal to each other and free within; only for "cluster".
        orthonormality_weight: lambda_ortho, weight of the constraint (||G - I||_F^2 is the sum over all entries).
        utilisation_weight: lambda_util, weight of -H(q) in nats.
        utilisation_estimate: what the code usage q is the mean of: "softmax", softmax(logits) at temperature 1, or
            "assignment", the codes that training assigns, straight through. Soft usage can be balanced while few codes
            are ever chosen; assigned usage cannot.
        position_weight: weight of the joint positions in the reconstruction loss (1: as any other feature).
        root_weight: weight of the root's yaw, velocity and height, 4 features that alone carry where a body goes and
            turns (1: as any other feature).
    """

    model_type = "motion_tokenizer"

    num_features: int = 263
    num_codes: int = 512
    code_dim: int = 512
    hidden_size: int = 512
    num_downsampling_layers: int = 3
    num_residual_layers: int = 3
    dilation_growth_rate: int = 3
    gumbel_temperature: float = 0.4
    gumbel_noise: float = 1.0
    geometric_constraint: str = "orthonormal"
    spectral_form: str = "log_determinant"
    num_code_clusters: int = 8
    orthonormality_weight: float = 1e-2
    utilisation_weight: float = 0.05
    utilisation_estimate: str = "softmax"
    position_weight: float = 1.0
    root_weight: float = 1.0

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        for name in ("num_features", "num_codes", "code_dim", "hidden_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.gumbel_temperature <= 0:
            raise ValueError(f"gumbel_temperature is {self.gumbel_temperature}; it must be positive.")
        if self.utilisation_estimate not in ("softmax", "assignment"):
            raise ValueError(f"utilisation_estimate is {self.utilisation_estimate!r}; use 'softmax' or 'assignment'.")
        if self.gumbel_noise < 0:
            raise ValueError(f"gumbel_noise is {self.gumbel_noise}; it must not be negative.")
        check_geometric_constraint(
            self.geometric_constraint, self.spectral_form, self.num_code_clusters, self.num_codes
        )

    def to_dict(self) -> dict:
        """As in `PreTrainedConfig`; `auto_map` holds plain class references."""
        values = super().to_dict()
        # Saving takes every class with "Tokenizer" in its name for a text tokenizer and notes a (slow, fast) pair.
        for name, reference in values.get("auto_map", {}).items():
            if not isinstance(reference, str):
                values["auto_map"][name] = reference[0]
        return values

    @property
    def downsampling_factor(self) -> int:
        """Frames in one code."""
        return 2**self.num_downsampling_layers

    @property
    def num_joints(self) -> int:
        """Joints J of the skeleton: a HumanML3D-style frame has 12 J - 1 features."""
        return (self.num_features + 1) // 12

    @property
    def num_root_features(self) -> int:
        """Features of the root, which stand first: 8 of 272 (see `streaming_representation`), else 4."""
        return 8 if self.num_features == 272 else 4

    @property
    def position_features(self) -> slice:
        """Where the joint positions stand; in 272 features the root's are among them."""
        joints = self.num_joints if self.num_features == 272 else self.num_joints - 1
        return slice(self.num_root_features, self.num_root_features + 3 * joints)
