"""How well a motion tokenizer gives back what it was given, and how it uses its codes."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..models.feature_extraction_motion import MotionFeatureExtractor
from ..models.geometry import codebook_geometry, usage_statistics
from ..models.modeling_motion_tokenizer import MotionTokenizer
from ..models.motion_representation import features_to_joints, get_motion_representation

MILLIMETRES_PER_METRE = 1000.0


@torch.no_grad()
def encode_clips(model: MotionTokenizer, clips: Sequence[np.ndarray], *, batch_size: int = 64) -> list[np.ndarray]:
    """Codes of many clips, in batches of similar length.

    Args:
        model: the tokenizer.
        clips: normalised features (frames, F) each.
        batch_size: clips at a time.

    Returns:
        for each clip its codes, (frames // downsampling_factor,) int64.
    """
    codes: list[np.ndarray] = [np.empty(0, np.int64)] * len(clips)
    for batch in _batches(clips, batch_size):
        values, mask = _pad([clips[index] for index in batch], model.device)
        batch_codes, code_mask, _ = model.encode(values, mask).to_tuple()
        for row, index in enumerate(batch):
            codes[index] = batch_codes[row][code_mask[row]].cpu().numpy()
    return codes


@torch.no_grad()
def evaluate_reconstruction(
    model: MotionTokenizer,
    feature_extractor: MotionFeatureExtractor,
    clips: Sequence[np.ndarray],
    *,
    batch_size: int = 64,
) -> tuple[dict[str, float], Tensor]:
    """Encodes and decodes whole clips, without noise.

    Args:
        model: the tokenizer; its training mode is left as it was.
        feature_extractor: that normalised the clips.
        clips: normalised features (frames, F) each.
        batch_size: clips at a time.

    Returns:
        the metrics and the histogram of the codes (num_codes,). Metrics: `joint_error_mm`, mean distance of joints
        1.. relative to the root, in the body's own heading (no trajectory); `mpjpe_mm`, mean distance of all joints in
        the world, trajectory integrated; both are means over clips of means over frames. Also `perplexity`,
        `codes_used`, `dead_codes` and the codebook's geometry.

    Raises:
        ValueError: if there are no clips, or one is shorter than one code.
    """
    shortest, wanted = min(map(len, clips), default=0), model.config.downsampling_factor
    if shortest < wanted:
        raise ValueError(f"the shortest of {len(clips)} clips has {shortest} frames; one motion code takes {wanted}.")
    was_training = model.training
    model.eval()
    counts = torch.zeros(model.config.num_codes, dtype=torch.long)
    local_errors, world_errors = [], []
    for batch in _batches(clips, batch_size):
        values, mask = _pad([clips[index] for index in batch], model.device)
        output = model(values, mask, return_loss=False)
        counts += torch.bincount(output.motion_codes[output.motion_code_mask].cpu(), minlength=len(counts))
        for row, index in enumerate(batch):
            decoded = output.motion_values[row][output.motion_mask[row]]
            target = feature_extractor.denormalise(clips[index][: len(decoded)])
            local, world = joint_errors(
                feature_extractor.denormalise(decoded), target, feature_extractor.representation
            )
            local_errors.append(local)
            world_errors.append(world)
    model.train(was_training)
    metrics = {"joint_error_mm": float(np.mean(local_errors)), "mpjpe_mm": float(np.mean(world_errors))}
    return {**metrics, **usage_statistics(counts), **codebook_geometry(model.codebook.weight)}, counts


def joint_errors(features: np.ndarray, target: np.ndarray, representation: str) -> tuple[float, float]:
    """Mean joint error without and with trajectory, in millimetres.

    Args:
        features: (frames, F), not normalised.
        target: (frames, F), not normalised.
        representation: their representation.

    Returns:
        root-relative error of joints 1.. in the body's heading, and MPJPE of all joints in the world.
    """
    facts = get_motion_representation(representation)
    to_mm = facts.unit_in_metres * MILLIMETRES_PER_METRE
    difference = np.asarray(features, np.float64) - np.asarray(target, np.float64)
    positions = difference[:, facts.feature_slices["positions"]].reshape(len(difference), -1, 3)
    positions[..., 1] -= difference[:, facts.feature_slices["root_height"]]
    world = features_to_joints(np.asarray(features, np.float64), representation)
    world_target = features_to_joints(np.asarray(target, np.float64), representation)
    local_error = np.linalg.norm(positions, axis=-1).mean()
    return float(local_error * to_mm), float(np.linalg.norm(world - world_target, axis=-1).mean() * to_mm)


def _batches(clips: Sequence[np.ndarray], batch_size: int) -> list[list[int]]:
    by_length = sorted(range(len(clips)), key=lambda index: len(clips[index]))
    return [by_length[start : start + batch_size] for start in range(0, len(by_length), batch_size)]


def _pad(clips: Sequence[np.ndarray], device: torch.device) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(clip) for clip in clips])
    values = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(clip) for clip in clips], batch_first=True)
    mask = torch.arange(values.shape[1]) < lengths[:, None]
    return values.to(device), mask.to(device)
