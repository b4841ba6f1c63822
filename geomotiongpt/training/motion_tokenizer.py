"""First stage: trains a `MotionTokenizer` from a recipe."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, default_data_collator, set_seed

from ..baselines import BaselineMotionTokenizer, FSQMotionTokenizer, ResidualVQMotionTokenizer, VQMotionTokenizer
from ..data.loader import load_motion_dataset, load_motion_statistics
from ..data.training_sets import MotionWindowDataset, drop_short_motions, normalised_clips
from ..models.feature_extraction_motion import MotionFeatureExtractor
from ..models.modeling_motion_tokenizer import MotionTokenizer
from ..models.motion_representation import get_motion_representation
from .arguments import MotionDataArguments, MotionTokenizerTrainingArguments
from .callbacks import CodeUseCallback, EpochCallback, GumbelTemperatureCallback, OrthonormalLossCallback
from .recipes import build_section, load_recipe
from .trainer import MotionTrainer, save_whole

logger = logging.getLogger(__name__)

SECTIONS = ("model", "data", "training")
_MODELS: dict[str, type[MotionTokenizer]] = {
    model_class.config_class.model_type: model_class
    for model_class in (MotionTokenizer, VQMotionTokenizer, ResidualVQMotionTokenizer, FSQMotionTokenizer)
}


def train_motion_tokenizer(recipe: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Trains a motion tokenizer and saves it with its feature extractor.

    Args:
        recipe: YAML file with the sections `model` (`model_type`, by default "motion_tokenizer", or that of a
            baseline, and the options of its config), `data` (`MotionDataArguments`) and `training`
            (`MotionTokenizerTrainingArguments`).
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
    config = build_section(model_class.config_class, {**size, **sections["model"]}, "model")
    feature_extractor = make_feature_extractor(data, config.downsampling_factor)
    resume = sections["training"].pop("resume_from_checkpoint", None)
    args = build_section(MotionTokenizerTrainingArguments, sections["training"], "training")
    train_set = load_split(data, data.train_split, feature_extractor.downsampling_factor)
    eval_set = load_split(data, data.eval_split, feature_extractor.downsampling_factor)

    set_seed(args.seed)
    model = model_class(config)
    eval_clips = normalised_clips(eval_set, feature_extractor)
    windows = MotionWindowDataset(
        train_set,
        feature_extractor,
        window_frames=args.window_frames,
        num_windows=args.windows_per_epoch,
        seed=args.seed,
    )
    trainer = MotionTrainer(
        model=model,
        args=args,
        train_dataset=windows,
        eval_dataset=MotionWindowDataset(eval_set, feature_extractor, window_frames=args.window_frames),
        data_collator=default_data_collator,
        processing_class=feature_extractor,
        callbacks=[EpochCallback(windows), *_schedules(model, args), CodeUseCallback(eval_clips, feature_extractor)],
        codebook_learning_rate=args.codebook_learning_rate,
        muon_learning_rate=args.muon_learning_rate,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer.finish(lambda trained, folder: save_whole(folder, trained, feature_extractor))


def _model_class(sections: dict[str, dict[str, Any]]) -> type[MotionTokenizer]:
    """What a recipe asks for with `model.model_type`, which is taken out."""
    model_type = sections["model"].pop("model_type", MotionTokenizer.config_class.model_type)
    if model_type not in _MODELS:
        raise ValueError(f"model.model_type is {model_type!r}; motion tokenizers are {', '.join(_MODELS)}.")
    model_class, rate = _MODELS[model_type], sections["training"].get("codebook_learning_rate")
    if rate is not None and issubclass(model_class, BaselineMotionTokenizer):
        raise ValueError(
            f"training.codebook_learning_rate is {rate}, but no optimizer trains the codebook of a {model_type}: "
            "leave it out."
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
    """One split of a recipe's data; clips too short for one code are left out and named in the log.

    Evaluation splits never hold mirrored clips.
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
        logger.warning("%s: left out %d motions shorter than one code: %s", split, len(short), ", ".join(short[:5]))
    return dataset
