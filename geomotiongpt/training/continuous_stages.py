"""What the stages of the families that keep motion continuous share: what they start from, what trains, and how."""

from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer

from ..checkpoints import check_model_folder
from ..models.continuous_motion_model import ContinuousMotionModel
from ..models.feature_extraction_motion import MotionFeatureExtractor
from ..models.mixture_of_transformers import MOTION_BRANCH
from ..models.processing_motion_language import MotionLanguageProcessor
from .arguments import ContinuousTrainingArguments
from .callbacks import CaptionSamplesCallback, EpochCallback
from .recipes import set_generation
from .trainer import MotionTrainer, set_learning_rate, without_adapters


@dataclass
class ContinuousModelArguments:
    """What the model is made of: new, from a base and what encodes motion, or the model of the stage before.

    Args:
        model_type (`str`): of the family.
        language_model (`str`, *optional*): of a new model: a pretrained causal language model, by name or path.
        config (`dict`, *optional*): of a new model: options of its configuration.
        start_from_text (`bool`, defaults to `False`): of a new model: start the motion branch as a copy of the text's.
        trained_model (`str`, *optional*): what the stage before has written, by path or name.
        language_modeling_weight (`float`, *optional*): of the cross entropy; by default as it is.
        denoising_weight (`float`, *optional*): of the denoising loss; by default as it is.
    """

    motion_part: ClassVar[str]  # the section's name for what encodes motion

    model_type: str
    language_model: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    start_from_text: bool = False
    trained_model: str | None = None
    language_modeling_weight: float | None = None
    denoising_weight: float | None = None

    def __post_init__(self):
        if self.trained_model is None and None in (self.language_model, self.motion_encoder):
            raise ValueError(
                f"section 'model' needs 'language_model' and {self.motion_part!r} for a new model, or 'trained_model'."
            )
        of_new = ("language_model", self.motion_part, "config", "start_from_text")
        default = {each.name: each.default for each in fields(self) if each.default is not MISSING} | {"config": {}}
        idle = [name for name in of_new if self.trained_model is not None and getattr(self, name) != default[name]]
        if idle:
            raise ValueError(
                f"section 'model' has 'trained_model', which leaves nothing for {', '.join(idle)} to say: take out "
                f"{'it' if len(idle) == 1 else 'them'}."
            )

    @property
    def motion_encoder(self) -> str | None:
        """Name or path of what encodes motion."""
        return getattr(self, self.motion_part)

    @property
    def weights(self) -> dict[str, float]:
        """Those of the losses that the recipe gives."""
        given = {each.name: getattr(self, each.name) for each in fields(self) if each.name.endswith("_weight")}
        return {name: value for name, value in given.items() if value is not None}


class ContinuousMotionTrainer(MotionTrainer):
    """Gives the heads, and the text branch, learning rates of their own."""

    def __init__(
        self, *args, head_learning_rate: float | None = None, text_learning_rate: float | None = None, **kwargs
    ):
        super().__init__(*args, **kwargs)
        self.head_learning_rate, self.text_learning_rate = head_learning_rate, text_learning_rate

    def _group_parameters(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
        model = without_adapters(model)
        assert isinstance(model, ContinuousMotionModel)
        if self.head_learning_rate is not None:
            heads = [getattr(model, name) for name in model.heads]
            parameters = [parameter for head in heads for parameter in head.parameters()]
            set_learning_rate(optimizer, parameters, self.head_learning_rate)
        if self.text_learning_rate is not None:
            set_learning_rate(optimizer, model.text_parameters().values(), self.text_learning_rate)


def load_model(
    model_args: ContinuousModelArguments,
    stage: str,
    make_model: Callable[..., Any],
    model_class: type[ContinuousMotionModel],
    processor_class: Any,
) -> tuple[Any, Any]:
    """The model that a stage trains, new or trained by the stage before or by the same one, and its processor.

    Raises:
        FileNotFoundError, ValueError: for components that cannot be used, or a model of another stage.
    """
    stages = model_class.config_class.stages
    position = stages.index(stage)
    if model_args.trained_model is None:
        if position > 0:
            raise ValueError(
                f"stage {stage!r} goes on from a trained model: give `model.trained_model`, what stage "
                f"{stages[position - 1]!r} has written."
            )
        return _new_model(model_args, make_model, processor_class)
    check_model_folder(model_args.trained_model)
    model = model_class.from_pretrained(model_args.trained_model)
    met, wanted = model.config.trained_stage, (stages[position - 1] if position else None, stage)
    if met not in wanted:
        names = " or ".join("no stage yet" if each is None else repr(each) for each in wanted)
        raise ValueError(
            f"{model_args.trained_model} has been through {'no stage' if met is None else f'stage {met!r}'}; stage "
            f"{stage!r} goes on from {names}."
        )
    return model, processor_class.from_pretrained(model_args.trained_model)


def _new_model(
    model_args: ContinuousModelArguments, make_model: Callable[..., Any], processor_class: Any
) -> tuple[Any, Any]:
    assert model_args.motion_encoder is not None and model_args.language_model is not None
    for name in (model_args.motion_encoder, model_args.language_model):
        check_model_folder(name)
    model = make_model(
        model_args.language_model,
        AutoModel.from_pretrained(model_args.motion_encoder),
        start_from_text=model_args.start_from_text,
        **model_args.config,
    )
    text_tokenizer = AutoTokenizer.from_pretrained(model_args.language_model)
    extractor = MotionFeatureExtractor.from_pretrained(model_args.motion_encoder)
    return model, processor_class.from_components(extractor, text_tokenizer, model.config)


def check_representation(extractor: MotionFeatureExtractor, representation: str) -> None:
    """Raises a ValueError if the data of a recipe are not what the model takes."""
    if extractor.representation != representation:
        raise ValueError(
            f"the model takes {extractor.representation!r} motions, the recipe's data are {representation!r}: give "
            "data of the model's representation, or a model whose motions were encoded from that of the data."
        )


def set_answers(model: ContinuousMotionModel, processor: MotionLanguageProcessor, values: dict[str, Any]) -> None:
    """How the model answers with text: a recipe's values, and what ends an answer: what ends the base's, and ours."""
    known = model.generation_config.eos_token_id
    known = known if isinstance(known, list) else [] if known is None else [known]  # a base may know several
    end = processor.tokenizer.eos_token_id
    ends: dict[str, Any] = {"pad_token_id": model.config.padding_token_id}
    if end not in known:
        ends["eos_token_id"] = [*known, end] if known else end
    set_generation(model, {"max_new_tokens": 40, "do_sample": False, **values, **ends})


def freeze(model: ContinuousMotionModel, parts: Sequence[str]) -> None:
    """Freezes the named parts, and what encodes motion, and nothing else.

    Raises:
        ValueError: for parts of a single stream, in which motion goes through all weights.
    """
    model.requires_grad_(True)
    model.motion_encoder.requires_grad_(False)
    if model.config.streams == "single" and parts:
        raise ValueError(f"frozen has {', '.join(parts)}, but with a single stream motion goes through all weights.")
    if "text" in parts:
        for parameter in model.text_parameters().values():
            parameter.requires_grad_(False)
    if "motion_branch" in parts:
        for name, parameter in model.named_parameters():
            if MOTION_BRANCH in name:
                parameter.requires_grad_(False)


def make_trainer(
    model: nn.Module,
    args: ContinuousTrainingArguments,
    processor: Any,
    train_items: Any,
    eval_items: Any,
    collator: Callable[[list[Any]], dict[str, Any]],
    caption: Callable[[Any, Sequence[int]], list[str]] | None,
) -> ContinuousMotionTrainer:
    """The trainer of a stage; `caption` writes the captions of evaluation motions to look at."""
    callbacks: list[Any] = [EpochCallback(train_items)]
    if caption is not None:
        shown = (eval_items.motion_ids, eval_items.captions, args.num_caption_samples)
        callbacks.append(CaptionSamplesCallback(caption, *shown))
    return ContinuousMotionTrainer(
        model=model,
        args=args,
        muon_learning_rate=args.muon_learning_rate,
        head_learning_rate=args.head_learning_rate,
        text_learning_rate=args.text_learning_rate,
        train_dataset=train_items,
        eval_dataset=eval_items,
        data_collator=collator,
        processing_class=processor,
        callbacks=callbacks,
    )
