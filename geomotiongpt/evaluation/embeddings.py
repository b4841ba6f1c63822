"""Motions and captions -> embeddings of an evaluator network, for retrieval and distribution metrics."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModel, AutoProcessor, PreTrainedModel

from .. import models as models
from ..models.processing_motion_text_evaluator import MotionTextEvaluatorProcessor
from ..models.word_vectors import WordTable

EVALUATOR_TYPES = ("motion_text_evaluator", "tmr")


def load_evaluator(
    name: str | Path, *, device: str | torch.device = "cpu"
) -> tuple[PreTrainedModel, MotionTextEvaluatorProcessor]:
    """An evaluator network and its processor, ready to embed.

    Args:
        name: folder that `train_evaluator` or `convert_evaluator` wrote, or a name on the Hub.
        device: to compute on.

    Raises:
        ValueError: if it holds another kind of model.
    """
    model = AutoModel.from_pretrained(name)
    kind = model.config.model_type
    if kind not in EVALUATOR_TYPES:
        raise ValueError(f"{name} holds a {kind!r} model; an evaluator is one of {', '.join(EVALUATOR_TYPES)}.")
    return model.to(device).eval(), AutoProcessor.from_pretrained(name)


@torch.no_grad()
def embed_motions(
    model: PreTrainedModel,
    processor: MotionTextEvaluatorProcessor,
    motions: Sequence[np.ndarray],
    *,
    names: Sequence[str] | None = None,
    batch_size: int = 64,
) -> np.ndarray:
    """Embeddings of motions, (N, E) float32, in their order; none depends on the others.

    Args:
        model: a `MotionTextEvaluator` or `TMRModel`.
        processor: of the model.
        motions: features (frames, F) or joints (frames + 1, J, 3), not normalised.
        names: what to call the motions in errors; their position by default.
        batch_size: motions at a time; those of similar length come together.

    Raises:
        ValueError: for a motion with NaN, of another width, or shorter or longer than the evaluator takes; it is
            named.
    """
    names = [f"motion {index}" for index in range(len(motions))] if names is None else list(names)
    extractor, config = processor.feature_extractor, model.config
    clips = [extractor.to_features(motion, name) for motion, name in zip(motions, names, strict=True)]
    for clip, name in zip(clips, names, strict=True):
        if len(clip) // config.downsampling_factor * config.downsampling_factor > config.max_frames:
            raise ValueError(
                f"{name} has {len(clip)} frames; this evaluator takes {config.max_frames} (config.max_frames): leave "
                "it out or cut it, and say so in the protocol."
            )

    def embed(rows: np.ndarray) -> torch.Tensor:
        inputs = processor(motion=[clips[row] for row in rows], names=[names[row] for row in rows])
        return model.get_motion_features(**inputs.to(model.device))

    return _embed(embed, [len(clip) for clip in clips], model, batch_size, "motions")


@torch.no_grad()
def embed_texts(
    model: PreTrainedModel,
    processor: MotionTextEvaluatorProcessor,
    captions: Sequence[str],
    *,
    tokens: Sequence[Sequence[str]] | None = None,
    batch_size: int = 64,
) -> np.ndarray:
    """Embeddings of captions, (N, E) float32, in their order; none depends on the others.

    Args:
        model: a `MotionTextEvaluator` or `TMRModel`.
        processor: of the model.
        captions: any text, the empty one too.
        tokens: "word/POS" of each caption where known; see the processor.
        batch_size: captions at a time.
    """
    tokens = [()] * len(captions) if tokens is None else list(tokens)
    lengths = [len(words) or len(caption) for caption, words in zip(captions, tokens, strict=True)]

    def embed(rows: np.ndarray) -> torch.Tensor:
        inputs = processor(text=[captions[row] for row in rows], tokens=[tokens[row] for row in rows])
        return model.get_text_features(**inputs.to(model.device))

    return _embed(embed, lengths, model, batch_size, "captions")


def _embed(embed, lengths: list[int], model: PreTrainedModel, batch_size: int, what: str) -> np.ndarray:
    """Calls `embed` with the rows of batches of similar length, longest first."""
    model.eval()
    order = np.argsort(-np.asarray(lengths, np.int64), kind="stable")
    embeddings = np.zeros((len(lengths), model.config.embedding_size), np.float32)
    starts = range(0, len(order), batch_size)
    for start in tqdm(starts, desc=f"embedding {what}", disable=len(starts) < 20 or None):
        rows = order[start : start + batch_size]
        embeddings[rows] = embed(rows).float().cpu().numpy()
    if not np.isfinite(embeddings).all():
        row = int(np.argwhere(~np.isfinite(embeddings))[0, 0])
        raise ValueError(f"the evaluator gives NaN or infinity for number {row} of the {what}; are its weights whole?")
    return embeddings


def evaluator_hash(model: PreTrainedModel, processor: MotionTextEvaluatorProcessor) -> str:
    """sha256 over all that an evaluator's numbers depend on: weights, statistics, word vectors and how words are read.

    Args:
        model: the evaluator; on any device.
        processor: of the model.
    """
    digest = hashlib.sha256(model.config.model_type.encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    extractor = processor.feature_extractor
    digest.update(np.asarray([extractor.mean, extractor.std], "<f8").tobytes())
    table = processor.word_vectors
    words = table.fingerprint() if isinstance(table, WordTable) else table
    digest.update(f"{words} {processor.tagged} {processor.max_text_length} {model.config.max_frames}".encode())
    return digest.hexdigest()
