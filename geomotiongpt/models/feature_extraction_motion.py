"""Motion clips -> padded, normalised model inputs."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from transformers import BatchFeature, SequenceFeatureExtractor

from .motion_representation import features_to_joints, get_motion_representation, joints_to_features

_FRAMES_AT_A_TIME = 4096  # of a motion of an hour, while it is checked


class MotionFeatureExtractor(SequenceFeatureExtractor):
    """Turns features or joints into normalised, padded `motion_values` with a `motion_mask`.

    Args:
        representation: "humanml3d", "kitml" or "streaming272"; fixes the width of a frame and the frame rate.
        mean: (F,) mean of the training features; None for 0.
        std: (F,) scale of the training features; None for 1.
        downsampling_factor: frames in one motion code; shorter clips are refused.
        padding_value: written where `motion_mask` is False.

    Raises:
        ValueError: if mean or std has the wrong width, is not finite, or std is not positive.
    """

    model_input_names = ["motion_values", "motion_mask"]

    def __init__(
        self,
        representation: str = "humanml3d",
        mean: ArrayLike | None = None,
        std: ArrayLike | None = None,
        downsampling_factor: int = 8,
        padding_value: float = 0.0,
        **kwargs,
    ):
        facts = get_motion_representation(representation)
        kwargs.update(feature_size=facts.num_features, sampling_rate=facts.fps)
        super().__init__(padding_value=padding_value, **kwargs)
        self.representation = representation
        self.mean = self._statistic("mean", mean, 0.0)
        self.std = self._statistic("std", std, 1.0)
        if min(self.std) <= 0:
            raise ValueError("std has entries that are not positive; a constant feature needs a scale, 1 for example.")
        self.downsampling_factor = downsampling_factor

    def _statistic(self, name: str, values: ArrayLike | None, default: float) -> list[float]:
        array = np.full(self.feature_size, default) if values is None else np.asarray(values, np.float64).reshape(-1)
        if len(array) != self.feature_size or not np.isfinite(array).all():
            raise ValueError(
                f"{name} must be {self.feature_size} finite numbers for representation {self.representation!r}, got "
                f"{len(array)}. Is it from another representation?"
            )
        return array.tolist()

    def __call__(
        self,
        motion: ArrayLike | torch.Tensor | Sequence[ArrayLike | torch.Tensor],
        *,
        names: Sequence[str] | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Prepares one motion or a batch.

        Args:
            motion: features (frames, F), joints (frames + 1, J, 3), of "streaming272" (frames, J, 3), in the units
                and at the frame rate of the representation, a batch of either as one array, or a list of either;
                numpy, torch or nested lists of numbers.
            names: what to call the clips in errors; their position by default.
            return_tensors: "pt" or "np".

        Returns:
            `motion_values` (batch, frames, F) float32 and `motion_mask` (batch, frames) bool.

        Raises:
            ValueError: for a clip with NaN or infinite values, of the wrong shape, or shorter than one code.
        """
        clips = _split_batch(motion)
        names = [f"motion {index}" for index in range(len(clips))] if names is None else list(names)
        features = [self.normalise(self.to_features(clip, name)) for clip, name in zip(clips, names, strict=True)]
        length = max(len(clip) for clip in features)
        values = np.full((len(features), length, self.feature_size), self.padding_value, np.float32)
        mask = np.zeros((len(features), length), bool)
        for row, clip in enumerate(features):
            values[row, : len(clip)], mask[row, : len(clip)] = clip, True
        return BatchFeature({"motion_values": values, "motion_mask": mask}, tensor_type=return_tensors)

    def to_features(self, clip: ArrayLike | torch.Tensor, name: str = "motion") -> np.ndarray:
        """Checks one clip and turns joints into features; not normalised, (frames, F) float32."""
        array, _ = self.check(clip, name)
        if array.ndim == 3:
            retarget = get_motion_representation(self.representation).target_bone_lengths is not None
            array = joints_to_features(array.astype(np.float64), self.representation, retarget=retarget)
        return array.astype(np.float32)

    def check(self, clip: ArrayLike | torch.Tensor, name: str = "motion") -> tuple[np.ndarray, int]:
        """One clip as an array, not copied where it is one, and how many rows of features it gives.

        Raises:
            ValueError: as in a call.
        """
        facts = get_motion_representation(self.representation)
        array = _to_array(clip, name)
        is_joints = array.ndim == 3 and array.shape[1:] == (facts.num_joints, 3)
        is_features = array.ndim == 2 and array.shape[1] == facts.num_features
        if not (is_joints or is_features) or not np.issubdtype(array.dtype, np.number):
            raise ValueError(
                f"{name} has shape {array.shape} ({array.dtype}); representation {self.representation!r} takes "
                f"features (frames, {facts.num_features}) or joints (frames, {facts.num_joints}, 3)."
            )
        for start in range(0, len(array), _FRAMES_AT_A_TIME):
            finite = np.isfinite(array[start : start + _FRAMES_AT_A_TIME])
            if not finite.all():
                frame = start + int(np.argwhere(~finite)[0, 0])
                raise ValueError(
                    f"{name} has a NaN or infinite value, first in frame {frame}; repair or leave out the clip."
                )
        num_rows = facts.num_rows(len(array)) if is_joints else len(array)
        if num_rows < self.downsampling_factor:
            raise ValueError(
                f"{name} has {len(array)} frames; the model takes {self.downsampling_factor} or more"
                + (" (one more as joints)." if num_rows < len(array) else ".")
            )
        return array, num_rows

    def normalise(self, features: np.ndarray) -> np.ndarray:
        """(..., F) features -> (x - mean) / std, float32."""
        return ((features - np.asarray(self.mean)) / np.asarray(self.std)).astype(np.float32)

    def denormalise(self, motion_values: ArrayLike | torch.Tensor) -> np.ndarray:
        """(..., F) model values -> features, the inverse of `normalise`, float32."""
        if isinstance(motion_values, torch.Tensor):
            motion_values = motion_values.detach().float().cpu().numpy()
        return (np.asarray(motion_values) * np.asarray(self.std) + np.asarray(self.mean)).astype(np.float32)

    def to_joints(self, motion_values: ArrayLike | torch.Tensor) -> np.ndarray:
        """(..., frames, F) model values -> (..., frames, J, 3) joints in the units of the representation."""
        return features_to_joints(self.denormalise(motion_values), self.representation)


def _split_batch(motion) -> list:
    """One clip or a batch, as an array or a list -> a list of clips."""
    # A frame is (F,) or (J, 3), a clip has one dimension more.
    first = _to_array(motion[0], "motion 0").shape if len(motion) else ()
    is_batch = len(first) == 3 or (len(first) == 2 and first[-1] != 3)
    return list(motion) if is_batch else [motion]


def _to_array(values, name: str) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values  # NumPy has none
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} has lists of different lengths or types: {error}") from error
