"""First stage: trains a `MotionTokenizer`, a `MotionVAE` or a `CausalMotionCodec` from a recipe."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset as HFDataset
from transformers import TrainerCallback, default_data_collator, set_seed

from ..baselines import BaselineMotionTokenizer, FSQMotionTokenizer, ResidualVQMotionTokenizer, VQMotionTokenizer
from ..data.joined import weighted_rows
from ..data.loader import load_motion_dataset, load_motion_statistics
from ..data.training_sets import (
    MotionClipDataset,
    MotionWindowDataset,
    drop_short_motions,
    pad_motions,
)
from ..models.feature_extraction_motion import MotionFeatureExtractor
from ..models.modeling_causal_motion_codec import CausalMotionCodec
from ..models.modeling_motion_tokenizer import MotionTokenizer
from ..models.modeling_motion_vae import MotionVAE
from ..models.motion_representation import get_motion_representation
from .arguments import (
    MotionDataArguments,
    MotionTokenizerTrainingArguments,
    MotionVAETrainingArguments,
    MotionWindowTrainingArguments,
)
from .callbacks import (
    CodeUseCallback,
    EpochCallback,
    GumbelTemperatureCallback,
    OrthonormalLossCallback,
    ReconstructionCallback,
)
from .recipes import build_section, load_recipe
from .trainer import CodebookTrainer, MotionTrainer, save_whole

logger = logging.getLogger(__name__)

SECTIONS = ("model", "data", "training")
_TOKENIZERS = (MotionTokenizer, VQMotionTokenizer, ResidualVQMotionTokenizer, FSQMotionTokenizer)
MOTION_TOKENIZERS: dict[str, type[MotionTokenizer] | type[MotionVAE] | type[CausalMotionCodec]] = {
    model_class.config_class.model_type: model_class for model_class in (*_TOKENIZERS, MotionVAE, CausalMotionCodec)
}


def train_motion_tokenizer(recipe: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Trains a motion tokenizer, a motion VAE or a causal motion codec, and saves it with its feature extractor.

    Args:
        recipe: YAML file with the sections `model` (`model_type`, by default "motion_tokenizer", or that of a
            baseline, or "motion_vae" or "causal_motion_codec", and the options of its config), `data`
            (`MotionDataArguments`) and `training` (`MotionTokenizerTrainingArguments`, for the last two
            `MotionVAETrainingArguments` and `MotionWindowTrainingArguments`).
        overrides: `section.key=value` strings.

    Returns:
        the output folder: model, feature extractor, trainer state and `plots/`.

    Raises:
        FileNotFoundError, ValueError: for a recipe or data that cannot be used; nothing is written then.
    """
    sections = load_recipe(recipe, SECTIONS, overrides)
    model_class = _model_class(sections)
    data = build_section(MotionDataArguments, sections["data"], "data")
    size = {"num_features": get_motion_representation(data.representation).num_features}
    config: Any = build_section(model_class.config_class, {**size, **sections["model"]}, "model")
    is_vae = issubclass(model_class, MotionVAE)
    arguments: Any = MotionVAETrainingArguments if is_vae else MotionTokenizerTrainingArguments
    make_trainer: Any = _vae_trainer if is_vae else _tokenizer_trainer
    if issubclass(model_class, CausalMotionCodec):
        arguments, make_trainer = MotionWindowTrainingArguments, _codec_trainer
    feature_extractor = make_feature_extractor(data, 1 if is_vae else config.downsampling_factor)
    resume = sections["training"].pop("resume_from_checkpoint", None)
    args: Any = build_section(arguments, sections["training"], "training")
    train_set = load_split(data, data.train_split, feature_extractor.downsampling_factor)
    eval_set = load_split(data, data.eval_split, feature_extractor.downsampling_factor)

    set_seed(args.seed)
    trainer = make_trainer(model_class(config), args, feature_extractor, train_set, eval_set)
    trainer.train(resume_from_checkpoint=resume)
    return trainer.finish(lambda trained, folder: save_whole(folder, trained, feature_extractor))


def _tokenizer_trainer(
    model: MotionTokenizer,
    args: MotionTokenizerTrainingArguments,
    feature_extractor: MotionFeatureExtractor,
    train_set: HFDataset,
    eval_set: HFDataset,
) -> CodebookTrainer:
    if args.codebook_start == "normal":  # models draw it orthogonal
        torch.nn.init.normal_(model.codebook.weight)
    windows, eval_windows = _windows(args, feature_extractor, train_set, eval_set)
    watch = CodeUseCallback(eval_windows.clips, feature_extractor)
    return CodebookTrainer(
        model=model,
        args=args,
        train_dataset=windows,
        eval_dataset=eval_windows,
        data_collator=default_data_collator,
        processing_class=feature_extractor,
        callbacks=[EpochCallback(windows), *_schedules(model, args), watch],
        codebook_learning_rate=args.codebook_learning_rate,
        muon_learning_rate=args.muon_learning_rate,
    )


def _codec_trainer(
    model: CausalMotionCodec,
    args: MotionWindowTrainingArguments,
    feature_extractor: MotionFeatureExtractor,
    train_set: HFDataset,
    eval_set: HFDataset,
) -> MotionTrainer:
    windows, eval_windows = _windows(args, feature_extractor, train_set, eval_set)
    return MotionTrainer(
        model=model,
        args=args,
        train_dataset=windows,
        eval_dataset=eval_windows,
        data_collator=default_data_collator,
        processing_class=feature_extractor,
        callbacks=[EpochCallback(windows), ReconstructionCallback(eval_windows.clips, feature_extractor)],
        muon_learning_rate=args.muon_learning_rate,
    )


def _windows(
    args: MotionWindowTrainingArguments,
    feature_extractor: MotionFeatureExtractor,
    train_set: HFDataset,
    eval_set: HFDataset,
) -> tuple[MotionWindowDataset, MotionWindowDataset]:
    """To train and to evaluate on."""
    return (
        MotionWindowDataset(
            train_set,
            feature_extractor,
            window_frames=args.window_frames,
            num_windows=args.windows_per_epoch,
            seed=args.seed,
        ),
        MotionWindowDataset(eval_set, feature_extractor, window_frames=args.window_frames),
    )


def _vae_trainer(
    model: MotionVAE,
    args: MotionVAETrainingArguments,
    feature_extractor: MotionFeatureExtractor,
    train_set: HFDataset,
    eval_set: HFDataset,
) -> MotionTrainer:
    max_frames = args.max_frames or model.config.max_frames
    if max_frames > model.config.max_frames:
        raise ValueError(f"max_frames is {max_frames}; this motion VAE encodes {model.config.max_frames} at most.")
    pieces = {"piece_ratio": args.piece_ratio, "min_piece_frames": args.min_piece_frames, "seed": args.seed}
    clips = MotionClipDataset(train_set, feature_extractor, max_frames=max_frames, **pieces)
    eval_clips = MotionClipDataset(eval_set, feature_extractor, max_frames=max_frames)
    shown = [clip[:max_frames] for clip in eval_clips.clips]
    return MotionTrainer(
        model=model,
        args=args,
        train_dataset=clips,
        eval_dataset=eval_clips,
        data_collator=pad_motions,
        processing_class=feature_extractor,
        callbacks=[EpochCallback(clips), ReconstructionCallback(shown, feature_extractor)],
        muon_learning_rate=args.muon_learning_rate,
    )


_OF_CODEBOOKS = (  # that are drawn, learned and sampled from, as a baseline's is not
    "codebook_start",
    "codebook_learning_rate",
    "initial_gumbel_temperature",
    "temperature_hold_ratio",
    "temperature_end_ratio",
)


def _model_class(
    sections: dict[str, dict[str, Any]],
) -> type[MotionTokenizer] | type[MotionVAE] | type[CausalMotionCodec]:
    """What a recipe asks for with `model.model_type`, which is taken out."""
    model_type = sections["model"].pop("model_type", MotionTokenizer.config_class.model_type)
    if model_type not in MOTION_TOKENIZERS:
        raise ValueError(
            f"model.model_type is {model_type!r}; motion tokenizers are {', '.join(MOTION_TOKENIZERS)}. "
            "Language models are trained with `geomotiongpt train`, evaluators with `geomotiongpt train-evaluator`."
        )
    model_class = MOTION_TOKENIZERS[model_type]
    if issubclass(model_class, BaselineMotionTokenizer):
        for name in _OF_CODEBOOKS:
            if sections["training"].get(name) is not None:
                raise ValueError(
                    f"training.{name} is {sections['training'][name]}, but a {model_type} draws its codes in its own "
                    "way, and no optimizer trains them: leave it out."
                )
    return model_class


def _schedules(model: MotionTokenizer, args: MotionTokenizerTrainingArguments) -> list[TrainerCallback]:
    """Of lambda, which also logs the geometry of a baseline's codebook, and of tau where codes are sampled."""
    schedules = [OrthonormalLossCallback(args.orthonormality_warmup_ratio, args.orthonormality_schedule)]
    if isinstance(model, BaselineMotionTokenizer):
        return schedules
    temperature = GumbelTemperatureCallback(
        args.initial_gumbel_temperature,
        model.config.gumbel_temperature,
        args.temperature_hold_ratio,
        args.temperature_end_ratio,
    )
    return [*schedules, temperature]


def make_feature_extractor(data: MotionDataArguments, downsampling_factor: int) -> MotionFeatureExtractor:
    """The feature extractor of a data set, with its Mean and Std."""
    mean, std = load_motion_statistics(data.path, data.representation)
    return MotionFeatureExtractor(data.representation, mean, std, downsampling_factor)


def load_split(data: MotionDataArguments, split: str, min_frames: int):
    """One split of a recipe's data; clips of less than `min_frames` frames are left out and named in the log.

    Evaluation splits never hold mirrored clips. Training clips of a joined folder come as often as their weight says.
    """
    dataset = load_motion_dataset(
        data.path,
        split,
        data.representation,
        min_frames=data.min_frames,
        max_frames=data.max_frames,
        mirrored=data.mirrored and split == data.train_split,
    )
    dataset, short = drop_short_motions(dataset, min_frames)
    if short:
        names = ", ".join(short[:5])
        logger.warning("%s: left out %d motions of less than %d frames: %s", split, len(short), min_frames, names)
    if data.weights and split == data.train_split:
        dataset = dataset.select(weighted_rows(dataset["motion_id"], data.weights))
    return dataset
