"""How well a motion tokenizer gives back what it was given, and how it uses its codes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..models.feature_extraction_motion import MotionFeatureExtractor
from ..models.geometry import codebook_geometry, usage_statistics, welch_bound
from ..models.modeling_causal_motion_codec import CausalMotionCodec
from ..models.modeling_motion_tokenizer import MotionTokenizer
from ..models.modeling_motion_vae import MotionVAE
from ..models.motion_representation import features_to_joints, get_motion_representation
from .physics import MILLIMETRES_PER_METRE, acceleration_error


@dataclass(frozen=True)
class Reconstruction:
    """Clips as a motion tokenizer gives them back.

    Args:
        features: of each clip, not normalised, (frames, F) float32; frames that fill no code are missing.
        targets: what went in, not normalised, cut to the same frames.
        code_counts: (num_codes,) how often each code was chosen; None without codes.
    """

    features: list[np.ndarray]
    targets: list[np.ndarray]
    code_counts: Tensor | None


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
def encode_latents(
    model: MotionVAE, clips: Sequence[np.ndarray], *, batch_size: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Distributions of the latents of many clips, in batches of similar length.

    Args:
        model: the motion VAE, in evaluation mode.
        clips: normalised features (frames, F) each.
        batch_size: clips at a time.

    Returns:
        mean and standard deviation, each (clips, num_latent_tokens, latent_dim) float32.
    """
    shape = len(clips), model.config.num_latent_tokens, model.config.latent_dim
    means, stds = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for batch in _batches(clips, batch_size):
        values, mask = _pad([clips[index] for index in batch], model.device)
        mean, log_variance = model.encode(values, mask).to_tuple()
        means[batch], stds[batch] = mean.cpu().numpy(), (0.5 * log_variance).exp().cpu().numpy()
    return means, stds


@torch.no_grad()
def encode_latent_sequences(
    model: CausalMotionCodec, clips: Sequence[np.ndarray], *, batch_size: int = 64
) -> list[np.ndarray]:
    """Latents of many clips, in batches of similar length.

    Args:
        model: the motion codec, in evaluation mode.
        clips: normalised features (frames, F) each.
        batch_size: clips at a time.

    Returns:
        of each clip (latents, latent_dim) float32.
    """
    sequences: list[np.ndarray] = [np.zeros((0, 0), np.float32)] * len(clips)
    for batch in _batches(clips, batch_size):
        latents, mask = model.encode(*_pad([clips[index] for index in batch], model.device)).to_tuple()
        for index, row, valid in zip(batch, latents, mask, strict=True):
            sequences[index] = row[valid].cpu().numpy()
    return sequences


@torch.no_grad()
def reconstruct_clips(
    model: MotionTokenizer | MotionVAE | CausalMotionCodec,
    feature_extractor: MotionFeatureExtractor,
    clips: Sequence[np.ndarray],
    *,
    batch_size: int = 64,
) -> Reconstruction:
    """Encodes and decodes whole clips, without noise.

    Args:
        model: the motion tokenizer, motion VAE or causal motion codec; its training mode is left as it was.
        feature_extractor: that normalised the clips.
        clips: normalised features (frames, F) each.
        batch_size: clips at a time.

    Returns:
        the clips in their order, and how often each code was chosen.

    Raises:
        ValueError: if there are no clips, or one is shorter than one code.
    """
    shortest, wanted = min(map(len, clips), default=0), feature_extractor.downsampling_factor
    if shortest < wanted:
        raise ValueError(f"the shortest of {len(clips)} clips has {shortest} frames; one motion code takes {wanted}.")
    was_training = model.training
    model.eval()
    counts = torch.zeros(model.config.num_codes, dtype=torch.long) if isinstance(model, MotionTokenizer) else None
    features: list[np.ndarray] = [np.empty(0, np.float32)] * len(clips)
    for batch in _batches(clips, batch_size):
        values, mask = _pad([clips[index] for index in batch], model.device)
        output = model(values, mask, return_loss=False)
        if counts is not None:
            counts += torch.bincount(output.motion_codes[output.motion_code_mask].cpu(), minlength=len(counts))
        for row, index in enumerate(batch):
            features[index] = feature_extractor.denormalise(output.motion_values[row][output.motion_mask[row]])
    model.train(was_training)
    targets = [
        feature_extractor.denormalise(clip[: len(decoded)]) for clip, decoded in zip(clips, features, strict=True)
    ]
    return Reconstruction(features, targets, counts)


def reconstruction_metrics(
    reconstruction: Reconstruction, model: MotionTokenizer | MotionVAE | CausalMotionCodec, representation: str
) -> dict[str, float]:
    """The metrics of `evaluate_reconstruction`, from clips that are decoded already.

    Args:
        reconstruction: by `reconstruct_clips`.
        model: the motion tokenizer, motion VAE or causal motion codec that made it.
        representation: of the features.
    """
    errors = [
        reconstruction_errors(features, target, representation)
        for features, target in zip(reconstruction.features, reconstruction.targets, strict=True)
    ]
    means = {name: float(np.mean([error[name] for error in errors])) for name in errors[0]}
    if reconstruction.code_counts is None or not isinstance(model, MotionTokenizer):
        return means
    return {
        **means,
        **usage_statistics(reconstruction.code_counts),
        **codebook_geometry(model.codebook.weight),
        "welch_bound": welch_bound(*model.codebook.weight.shape),
    }


def evaluate_reconstruction(
    model: MotionTokenizer | MotionVAE | CausalMotionCodec,
    feature_extractor: MotionFeatureExtractor,
    clips: Sequence[np.ndarray],
    *,
    batch_size: int = 64,
) -> tuple[dict[str, float], Tensor | None]:
    """Encodes and decodes whole clips, without noise, and measures what came back.

    Args:
        model: the motion tokenizer, motion VAE or causal motion codec; its training mode is left as it was.
        feature_extractor: that normalised the clips.
        clips: normalised features (frames, F) each.
        batch_size: clips at a time.

    Returns:
        the metrics and the histogram of the codes (num_codes,), None without codes. Metrics: those of
        `reconstruction_errors` as means over clips; with codes `perplexity`, `codes_used`, `dead_codes`; the
        codebook's geometry, and `welch_bound`, the smallest `gram_error` that its size allows.

    Raises:
        ValueError: if there are no clips, or one is shorter than one code.
    """
    reconstruction = reconstruct_clips(model, feature_extractor, clips, batch_size=batch_size)
    metrics = reconstruction_metrics(reconstruction, model, feature_extractor.representation)
    return metrics, reconstruction.code_counts


def reconstruction_errors(features: np.ndarray, target: np.ndarray, representation: str) -> dict[str, float]:
    """How far a clip is from what it should be.

    Args:
        features: (frames, F), not normalised; at least 3 frames.
        target: (frames, F), not normalised.
        representation: their representation.

    Returns:
        means over frames. `joint_error_mm`: mean distance of joints 1.. relative to the root, in the body's own
        heading (no trajectory); `mpjpe_mm`: of all joints in the world, trajectory integrated; `pa_mpjpe_mm`: the same
        after the best similarity transform of each frame; `acceleration_error_mm_per_frame2`: of their accelerations
        in the world.
    """
    local, world, world_target = _compare(features, target, representation)
    to_mm = get_motion_representation(representation).unit_in_metres * MILLIMETRES_PER_METRE
    return {
        "joint_error_mm": float(local.mean()),
        "mpjpe_mm": float(np.linalg.norm(world - world_target, axis=-1).mean() * to_mm),
        "pa_mpjpe_mm": float(
            np.linalg.norm(procrustes_align(world, world_target) - world_target, axis=-1).mean() * to_mm
        ),
        "acceleration_error_mm_per_frame2": acceleration_error(world, world_target, representation),
    }


def frame_errors(features: np.ndarray, target: np.ndarray, representation: str) -> tuple[np.ndarray, np.ndarray]:
    """How far each frame of a clip is from what it should be: mean distance of its joints, in millimetres.

    Args:
        features: (frames, F), not normalised.
        target: (frames, F), not normalised.
        representation: their representation.

    Returns:
        (frames,) relative to the root as `joint_error_mm` is, and (frames,) in the world as `mpjpe_mm` is.
    """
    local, world, world_target = _compare(features, target, representation)
    to_mm = get_motion_representation(representation).unit_in_metres * MILLIMETRES_PER_METRE
    return local.mean(axis=-1), np.linalg.norm(world - world_target, axis=-1).mean(axis=-1) * to_mm


def _compare(
    features: np.ndarray, target: np.ndarray, representation: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Joints 1.. against their targets relative to the root, (frames, J - 1) in millimetres; and both in the world."""
    facts = get_motion_representation(representation)
    difference = np.asarray(features, np.float64) - np.asarray(target, np.float64)
    positions = difference[:, facts.feature_slices["positions"]].reshape(len(difference), -1, 3)
    if facts.layout == "frames":  # the root is among the joints
        height, positions = positions[:, :1, 1], positions[:, 1:]
    else:
        height = difference[:, facts.feature_slices["root_height"]]
    positions[..., 1] -= height
    local = np.linalg.norm(positions, axis=-1) * (facts.unit_in_metres * MILLIMETRES_PER_METRE)
    world, world_target = (
        features_to_joints(np.asarray(rows, np.float64), representation) for rows in (features, target)
    )
    return local, world, world_target


def procrustes_align(joints: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Each frame moved, turned and scaled to lie as close to its target as it can; never mirrored.

    Args:
        joints: (..., J, 3).
        target: (..., J, 3).

    Returns:
        the aligned joints, of the same shape; joints that all coincide come to lie on the target's mean.

    Source: Umeyama, Least-Squares Estimation of Transformation Parameters Between Two Point Patterns (PAMI 1991).
    """
    target_mean = target.mean(axis=-2, keepdims=True)
    centred = joints - joints.mean(axis=-2, keepdims=True)
    covariance = np.swapaxes(centred, -1, -2) @ (target - target_mean)
    u, scales, vt = np.linalg.svd(covariance)
    # Where the best orthogonal map is a reflection, the axis that matters least is turned round
    signs = np.ones_like(scales)
    signs[..., 2] = np.where(np.linalg.det(u @ vt) < 0, -1.0, 1.0)
    rotation = (u * signs[..., None, :]) @ vt
    spread = np.square(centred).sum(axis=(-1, -2))
    scale = (scales * signs).sum(axis=-1) / np.where(spread > 0, spread, 1.0)
    return scale[..., None, None] * (centred @ rotation) + target_mean


def _batches(clips: Sequence[np.ndarray], batch_size: int) -> list[list[int]]:
    by_length = sorted(range(len(clips)), key=lambda index: len(clips[index]))
    return [by_length[start : start + batch_size] for start in range(0, len(by_length), batch_size)]


def _pad(clips: Sequence[np.ndarray], device: torch.device) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(clip) for clip in clips])
    values = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(clip) for clip in clips], batch_first=True)
    mask = torch.arange(values.shape[1]) < lengths[:, None]
    return values.to(device), mask.to(device)
