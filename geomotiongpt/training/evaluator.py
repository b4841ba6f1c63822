"""Trains an evaluator network, `MotionTextEvaluator` or `TMRModel`, for data without an official one."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset as HFDataset
from torch.utils.data import Dataset
from transformers import PreTrainedModel, set_seed

from ..data.training_sets import normalised_clips
from ..models.configuration_motion_text_evaluator import MotionTextEvaluatorConfig
from ..models.configuration_tmr import TMRConfig
from ..models.modeling_motion_text_evaluator import MotionTextEvaluator
from ..models.modeling_tmr import TMRModel
from ..models.motion_representation import get_motion_representation
from ..models.processing_motion_text_evaluator import MotionTextEvaluatorProcessor
from ..models.word_vectors import WordTable, split_words
from .arguments import EvaluatorTrainingArguments, MotionDataArguments, WordArguments
from .callbacks import EpochCallback
from .motion_tokenizer import load_split, make_feature_extractor
from .recipes import build_section, load_recipe
from .trainer import ResumableTrainer, save_whole

logger = logging.getLogger(__name__)

SECTIONS = ("model", "words", "data", "training")
EVALUATORS: dict[str, tuple[type, type[PreTrainedModel]]] = {
    "motion_text_evaluator": (MotionTextEvaluatorConfig, MotionTextEvaluator),
    "tmr": (TMRConfig, TMRModel),
}


def train_evaluator(recipe: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Trains an evaluator network and saves it with its processor.

    Args:
        recipe: YAML file with the sections `model` (`model_type`, "motion_text_evaluator" or "tmr", and the options of
            its config), `words` (`WordArguments`), `data` (`MotionDataArguments`) and `training`
            (`EvaluatorTrainingArguments`).
        overrides: `section.key=value` strings.

    Returns:
        the output folder: model, processor, trainer state and `plots/`.

    Raises:
        FileNotFoundError, ValueError: for a recipe or data that cannot be used (a motion longer than
            `model.max_frames`, for example); nothing is written then.
    """
    sections = load_recipe(recipe, SECTIONS, overrides)
    kind = sections["model"].pop("model_type", "motion_text_evaluator")
    if kind not in EVALUATORS:
        raise ValueError(
            f"model.model_type is {kind!r}; evaluators are {', '.join(EVALUATORS)}. Motion tokenizers are trained "
            "with `geomotiongpt train-tokenizer`, language models with `geomotiongpt train`."
        )
    config_class, model_class = EVALUATORS[kind]
    data = build_section(MotionDataArguments, sections["data"], "data")
    words = build_section(WordArguments, sections["words"], "words")
    processor = make_processor(words, data, config_class().downsampling_factor)
    defaults = {
        "num_features": get_motion_representation(data.representation).num_features,
        "word_dim": processor.word_dim,
    }
    config: MotionTextEvaluatorConfig | TMRConfig = build_section(
        config_class, {**defaults, **sections["model"]}, "model"
    )
    resume = sections["training"].pop("resume_from_checkpoint", None)
    args = build_section(EvaluatorTrainingArguments, sections["training"], "training")
    train_items, eval_items = (
        MotionTextDataset(load_split(data, split, config.downsampling_factor), processor, config.max_frames, seed=seed)
        for split, seed in ((data.train_split, args.seed), (data.eval_split, None))
    )

    set_seed(args.seed)
    model = model_class(config)
    trainer = ResumableTrainer(
        model=model,
        args=args,
        train_dataset=train_items,
        eval_dataset=eval_items,
        data_collator=MotionTextCollator(processor),
        callbacks=[EpochCallback(train_items)],  # type: ignore[arg-type]
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer.finish(lambda trained, folder: save_whole(folder, trained, processor))


def make_processor(
    words: WordArguments, data: MotionDataArguments, downsampling_factor: int
) -> MotionTextEvaluatorProcessor:
    """The processor of an evaluator, with the Mean and Std of the data.

    Args:
        words: how captions are read.
        data: where the statistics lie.
        downsampling_factor: frames in one step of the evaluator.

    Raises:
        FileNotFoundError, ValueError: if the statistics or the word vectors are missing or cannot be read, or a
            vocabulary is given without vectors.
    """
    if words.vectors is None and words.vocabulary is not None:
        raise ValueError("words.vocabulary says which words of a file to keep, but words.vectors names no file.")
    return MotionTextEvaluatorProcessor(
        make_feature_extractor(data, downsampling_factor),
        "hashed" if words.vectors is None else WordTable.from_file(words.vectors, words.vocabulary),
        words.tagged,
        words.max_text_length,
    )


class MotionTextDataset(Dataset):
    """Motions, each with one of its captions.

    Args:
        dataset: with the columns `motion_id`, `motion` (not normalised), `captions` and `tokens`.
        processor: of the evaluator; its feature extractor normalises and checks the motions.
        max_frames: of the evaluator.
        seed: of the draws, which depend on epoch and item alone; None takes the first caption, for evaluation.

    Raises:
        ValueError: if a motion is longer than the evaluator takes.
    """

    def __init__(
        self, dataset: HFDataset, processor: MotionTextEvaluatorProcessor, max_frames: int, *, seed: int | None
    ):
        self.clips = normalised_clips(dataset, processor.feature_extractor)
        self.captions, self.tokens = list(dataset["captions"]), list(dataset["tokens"])
        self.meanings = [frozenset(" ".join(split_words(caption)) for caption in group) for group in self.captions]
        self.seed, self.epoch = seed, 0
        longest = int(np.argmax([len(clip) for clip in self.clips]))
        num_frames, unit = len(self.clips[longest]), processor.feature_extractor.downsampling_factor
        if num_frames // unit * unit > max_frames:
            raise ValueError(
                f"{dataset[longest]['motion_id']} has {num_frames} frames, the evaluator takes {max_frames}: raise "
                "model.max_frames in the recipe, or leave longer motions out with data.max_frames."
            )

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer: another epoch draws other captions."""
        self.epoch = int(epoch)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict:
        """`motion` (frames, F) normalised; `text`, its tagged words `tokens`; `meaning`, all that is said of it."""
        captions = self.captions[index]
        choice = 0
        if self.seed is not None:
            choice = int(np.random.default_rng((self.seed, self.epoch, index)).integers(len(captions)))
        return {
            "motion": self.clips[index],
            "text": captions[choice],
            "tokens": self.tokens[index][choice].split(),
            "meaning": self.meanings[index],
        }


class MotionTextCollator:
    """Items of a `MotionTextDataset` -> a padded batch.

    Two motions that share a caption mean the same: they are no negatives of each other.

    Args:
        processor: of the evaluator.
    """

    def __init__(self, processor: MotionTextEvaluatorProcessor):
        self.processor = processor

    def __call__(self, items: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        """Pads to the longest of the batch."""
        clips = [torch.from_numpy(item["motion"]) for item in items]
        lengths = torch.tensor([len(clip) for clip in clips])
        motion_values = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
        texts = self.processor(text=[item["text"] for item in items], tokens=[item["tokens"] for item in items])
        meanings = [item["meaning"] for item in items]
        return {
            "motion_values": motion_values,
            "motion_mask": torch.arange(motion_values.shape[1]) < lengths.unsqueeze(-1),
            **texts,
            "same_meaning": torch.tensor([[not one.isdisjoint(other) for other in meanings] for one in meanings]),
        }
