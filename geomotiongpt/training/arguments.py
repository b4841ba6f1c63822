"""What a training run needs beside the model's configuration."""

import math
import os
import sys
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from transformers import TrainingArguments

from ..models.configuration_llamo import STAGES as LLAMO_STAGES
from ..models.configuration_motiongpt3 import STAGES


@dataclass
class MotionDataArguments:
    """Which motions to train on.

    Args:
        path (`str`): folder in the HumanML3D layout, or a data set's name on the Hub.
        representation (`str`, defaults to `"humanml3d"`): "humanml3d" or "kitml".
        train_split (`str`, defaults to `"train"`): trained on.
        eval_split (`str`, defaults to `"val"`): evaluated on while training.
        min_frames (`int`, *optional*): shorter clips are left out; none by default.
        max_frames (`int`, *optional*): longer clips are left out; none by default.
        mirrored (`bool`, defaults to `True`): whether to train on the mirrored clips too (evaluation never does).
        weights (`dict[str, int]`): of a joined folder: how often an epoch shows each clip of a data set, by its name;
            once by default.
    """

    path: str
    representation: str = "humanml3d"
    train_split: str = "train"
    eval_split: str = "val"
    min_frames: int | None = None
    max_frames: int | None = None
    mirrored: bool = True
    weights: dict[str, int] = field(default_factory=dict)


@dataclass
class _RunArguments(TrainingArguments):
    def __post_init__(self):
        self.remove_unused_columns = False  # the data sets make their own items
        if self.dataloader_persistent_workers:
            raise ValueError(
                "dataloader_persistent_workers: workers that live on would show every epoch the windows, captions and "
                "tasks of the first; leave it out."
            )
        if self.push_to_hub:
            raise ValueError(
                "push_to_hub: checkpoints have no code and no card beside them; leave it out, and upload the trained "
                "model with `geomotiongpt push`."
            )
        if self.label_smoothing_factor:
            raise ValueError(
                "label_smoothing_factor: the library would take the labels without their shift, and drop the other "
                "parts of the loss; leave it out."
            )
        # Two CPU processes form one world only when asked not to look for an accelerator.
        if not torch.cuda.is_available():
            self.use_cpu = True
        if self.disable_tqdm is None and not sys.stderr.isatty():
            self.disable_tqdm = True  # a bar is for a terminal; the log says the same in lines
        super().__post_init__()
        expected = int(os.environ.get("WORLD_SIZE", "1"))
        if self.world_size != expected:
            raise ValueError(
                f"the launcher started {expected} processes, but they see {self.world_size}: training would run "
                "several times into one folder. Start with `torchrun` or `accelerate launch --multi_gpu`."
            )


def _check_counts(args: Any, *names: str) -> None:
    """What is counted, and whether there are tasks at all."""
    if not args.tasks:
        raise ValueError("tasks are empty; give one or more with their weights, or leave them out.")
    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it must be 1 or more.")


@dataclass
class MotionWindowTrainingArguments(_RunArguments):
    """`TrainingArguments` of what learns from windows of motion: a causal motion codec.

    Parameters that control the batches:
        window_frames (`int`, defaults to 64): length of the windows cut from the clips.
        windows_per_epoch (`int`, *optional*): windows in one epoch; by default one for each `window_frames` frames.
    Parameters that control the optimizer:
        muon_learning_rate (`float`, *optional*): with it Muon trains the kernels of the convolutions at this rate,
            and AdamW the rest at `learning_rate`; by default AdamW trains everything.
    """

    muon_learning_rate: float | None = field(default=None)
    window_frames: int = field(default=64)
    windows_per_epoch: int | None = field(default=None)


CODEBOOK_STARTS = ("orthogonal", "normal")


@dataclass
class MotionTokenizerTrainingArguments(MotionWindowTrainingArguments):
    """`MotionWindowTrainingArguments` of a motion tokenizer.

    Parameters that control the codebook:
        codebook_start (`str`, defaults to "orthogonal"): how the codebook is drawn: as "orthogonal" rows, or "normal",
            independent entries; the rows of both are of about the same length.
        codebook_learning_rate (`float`, *optional*): of the codebook, which has no weight decay; `learning_rate` by
            default.
        initial_gumbel_temperature (`float`, defaults to 0.4): tau at the start; it falls exponentially to the model's
            configured temperature.
        temperature_hold_ratio (`float`, defaults to 0.6): share of the steps before tau starts to fall.
        temperature_end_ratio (`float`, defaults to 0.8): share of the steps after which tau has arrived.
        orthonormality_warmup_ratio (`float`, defaults to 0): share of the steps over which lambda_ortho grows from 0.
        orthonormality_schedule (`list[list[float]]`, *optional*): any other course of lambda_ortho, as points [share
            of the steps, multiplier], straight between them and constant before and after.
    """

    codebook_start: str = field(default="orthogonal")
    codebook_learning_rate: float | None = field(default=None)
    initial_gumbel_temperature: float = field(default=0.4)
    temperature_hold_ratio: float = field(default=0.6)
    temperature_end_ratio: float = field(default=0.8)
    orthonormality_warmup_ratio: float = field(default=0.0)
    orthonormality_schedule: list[list[float]] | None = field(default=None)

    def __post_init__(self):
        if self.codebook_start not in CODEBOOK_STARTS:
            raise ValueError(f"codebook_start is {self.codebook_start!r}; use one of {', '.join(CODEBOOK_STARTS)}.")
        super().__post_init__()


@dataclass
class MotionVAETrainingArguments(_RunArguments):
    """`TrainingArguments` of a motion VAE.

    Parameters that control the motions:
        max_frames (`int`, *optional*): longest motion to train on; longer ones are cut somewhere. By default as many
            as the model encodes.
        piece_ratio (`float`, defaults to 0.5): share of the draws that are pieces of a motion, which prediction and
            in-betweening encode.
        min_piece_frames (`int`, defaults to 8): shortest piece.
    Parameters that control the optimizer:
        muon_learning_rate (`float`, *optional*): with it Muon trains the matrices of the transformer layers at this
            rate, and AdamW the rest at `learning_rate`; by default AdamW trains everything.
    """

    muon_learning_rate: float | None = field(default=None)
    max_frames: int | None = field(default=None)
    piece_ratio: float = field(default=0.5)
    min_piece_frames: int = field(default=8)


@dataclass
class LanguageModelTrainingArguments(_RunArguments):
    """`TrainingArguments` of the second stage.

    Parameters that control the tasks:
        tasks (`dict[str, float]`, defaults to captioning alone): the weight of each task, see `task_prompts.TASKS`; a
            training motion is a row of a task drawn by them. Evaluation, too, draws a task for each motion, always
            the same one, unless `eval_each_task`.
        prompt_wordings (`int`, *optional*): how many wordings of a task's prompt training draws from; all by default.
    Parameters that control the data:
        code_offsets (`int`, defaults to 1): a training motion is encoded this many times, each time without its first
            0, 1, ... frames, and an epoch draws one of the results: how the motion falls into codes varies.
        code_dropout (`float`, defaults to 0): share of the motion codes that training hides.
        answer_dropout (`float`, defaults to 0): share of the answer's tokens that training blanks in the input (never
            in the labels), so that the next word is read from the motion rather than from the words before.
    Parameters that control the optimizer:
        muon_learning_rate (`float`, *optional*): with it Muon trains the matrices of GPT-2's blocks at this rate,
            and AdamW the rest at `learning_rate`; by default AdamW trains everything.
    Parameters that control the geometry:
        orthonormality_warmup_ratio (`float`, defaults to 0): share of the steps over which lambda' grows from 0.
        orthonormality_schedule (`list[list[float]]`, *optional*): any other course of lambda', as points [share of the
            steps, multiplier], straight between them and constant before and after.
    Parameters that control evaluation:
        eval_each_task (`bool`, defaults to `False`): evaluate every task on all motions, each by itself: the log has
            `eval_<task>_loss` and its parts in place of `eval_loss`.
        num_caption_samples (`int`, defaults to 4): captions of evaluation motions printed at every evaluation.
    """

    muon_learning_rate: float | None = field(default=None)
    tasks: dict[str, float] = field(default_factory=lambda: {"motion-to-text": 1.0})
    prompt_wordings: int | None = field(default=None)
    eval_each_task: bool = field(default=False)
    code_offsets: int = field(default=1)
    code_dropout: float = field(default=0.0)
    answer_dropout: float = field(default=0.0)
    orthonormality_warmup_ratio: float = field(default=0.0)
    orthonormality_schedule: list[list[float]] | None = field(default=None)
    num_caption_samples: int = field(default=4)

    def __post_init__(self):
        _check_counts(self, "prompt_wordings", "code_offsets")
        for name in ("code_dropout", "answer_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more, and less than 1.")
        super().__post_init__()


@dataclass
class TextTrainingArguments(_RunArguments):
    """`TrainingArguments` of a small language model that is pretrained on captions and prompts.

    Parameters that control the texts:
        tasks (`dict[str, float]`): the weight of each task whose prompts it is to know; "text" is a caption alone.
        second_caption_ratio (`float`, defaults to 0.0): share of the rows of "text" in which a second caption of the
            same motion follows.
        documentation_ratio (`float`, defaults to 0.0): share of the rows that are pieces of Python's documentation
            instead, see `geomotiongpt.data.documentation`: a language that training on motion must not forget.
        frozen_embeddings (`bool`, defaults to `False`): leave the word embeddings, and with them a tied head, as they
            were drawn. Trained on captions alone, words that stand in the same places come to share an embedding, like
            left and right where every motion has a mirror image, and a text branch that is frozen later can then not
            tell them apart.
        prompt_wordings (`int`, *optional*): how many wordings of a task's prompt training draws from; all by default.
    Parameters that control the optimizer:
        muon_learning_rate (`float`, *optional*): with it Muon trains the matrices of GPT-2's blocks at this rate,
            and AdamW the rest at `learning_rate`; by default AdamW trains everything.
    """

    tasks: dict[str, float] = field(default_factory=lambda: {"text": 1.0})
    second_caption_ratio: float = field(default=0.0)
    documentation_ratio: float = field(default=0.0)
    frozen_embeddings: bool = field(default=False)
    prompt_wordings: int | None = field(default=None)
    muon_learning_rate: float | None = field(default=None)

    def __post_init__(self):
        _check_counts(self, "prompt_wordings")
        for name in ("second_caption_ratio", "documentation_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be between 0 and 1.")
        super().__post_init__()


FREEZABLE = ("text", "motion_branch")


@dataclass
class ContinuousTrainingArguments(_RunArguments):
    """`TrainingArguments` of a stage of a family that keeps motion continuous.

    Parameters that control the stage:
        stage (`str`): one of `stages`; each goes on from the one before.
        frozen (`list[str]`): what does not train: "text", "motion_branch". What encodes motion never does.
        tasks (`dict[str, float]`): the weight of each task; a training motion is a row of a task drawn by them.
        prompt_wordings (`int`, *optional*): how many wordings of a task's prompt training draws from; all by default.
    Parameters that control the data:
        latent_offsets (`int`, defaults to 1): a training motion is encoded this many times, each time without its
            first 0, 1, ... frames, and an epoch draws one of the results.
    Parameters that control the optimizer:
        head_learning_rate (`float`, *optional*): of the heads and of what takes motion in; `learning_rate` by default.
        text_learning_rate (`float`, *optional*): of the text branch; `learning_rate` by default.
        muon_learning_rate (`float`, *optional*): with it Muon trains the matrices of the layers at this rate, and
            AdamW the rest; by default AdamW trains everything.
    Parameters that control evaluation:
        num_caption_samples (`int`, defaults to 4): captions of evaluation motions printed at every evaluation.
    """

    stages: ClassVar[tuple[str, ...]]

    stage: str = field(default="")
    frozen: list[str] = field(default_factory=lambda: ["text"])
    tasks: dict[str, float] = field(default_factory=lambda: {"text-to-motion": 1.0})
    prompt_wordings: int | None = field(default=None)
    latent_offsets: int = field(default=1)
    head_learning_rate: float | None = field(default=None)
    text_learning_rate: float | None = field(default=None)
    muon_learning_rate: float | None = field(default=None)
    num_caption_samples: int = field(default=4)

    def __post_init__(self):
        if self.stage not in self.stages:
            raise ValueError(f"stage is {self.stage!r}; use one of {', '.join(self.stages)}.")
        unknown = [part for part in self.frozen if part not in FREEZABLE]
        if unknown:
            raise ValueError(f"frozen has {', '.join(unknown)}; what can be frozen is {', '.join(FREEZABLE)}.")
        if self.text_learning_rate is not None and "text" in self.frozen:
            raise ValueError("text_learning_rate has no effect on a text branch that is frozen: take one of them out.")
        _check_counts(self, "prompt_wordings", "latent_offsets")
        if self.ddp_find_unused_parameters is None:
            # A batch without motion to make leaves the heads out, one without text to write something else
            self.ddp_find_unused_parameters = True
        super().__post_init__()


@dataclass
class MotionGPT3TrainingArguments(ContinuousTrainingArguments):
    """`TrainingArguments` of a stage of MotionGPT3: those of `ContinuousTrainingArguments`, with its own defaults.

    Parameters that control the stage:
        stage (`str`, defaults to `"text-to-motion"`): or "alignment" or "joint".
        tasks (`dict[str, float]`): see `task_prompts.LATENT_TASKS`. Evaluation, too, draws a task for each motion,
            always the same one.
    Parameters that control the data:
        splits_per_motion (`int`, defaults to 2): how many ways a motion is cut for prediction and in-betweening.
    """

    stages = STAGES

    stage: str = field(default="text-to-motion")
    splits_per_motion: int = field(default=2)

    def __post_init__(self):
        super().__post_init__()
        if self.splits_per_motion < 1:
            raise ValueError(f"splits_per_motion is {self.splits_per_motion}; it must be 1 or more.")


@dataclass
class LLaMoTrainingArguments(ContinuousTrainingArguments):
    """`TrainingArguments` of a stage of LLaMo: those of `ContinuousTrainingArguments`, with its own defaults.

    Parameters that control the stage:
        stage (`str`, defaults to `"alignment"`): or "joint" or "motion".
        tasks (`dict[str, float]`): see `task_prompts.TASKS`. "unconditional" teaches what guidance leads away from: it
            stands for dropped captions.
    Parameters that control the data:
        min_speed (`float`, defaults to 0.0): metres per second; motions whose joints move slower on average are left
            out.
    """

    stages = LLAMO_STAGES

    stage: str = field(default="alignment")
    min_speed: float = field(default=0.0)

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.min_speed < math.inf:
            raise ValueError(f"min_speed is {self.min_speed}; it must be 0 or more metres per second.")


@dataclass
class EvaluatorTrainingArguments(_RunArguments):
    """`TrainingArguments` of an evaluator network; only the loss is kept of an evaluation."""

    def __post_init__(self):
        super().__post_init__()
        self.prediction_loss_only = True


@dataclass
class WordArguments:
    """How an evaluator reads captions.

    Args:
        vectors (`str`, *optional*): GloVe text file, or a `.npy` array; by default vectors made from the letters.
        vocabulary (`str`, *optional*): text file with one word a line: those to keep of a GloVe file, all by default;
            those of the rows of an array.
        tagged (`bool`, defaults to `False`): whether to read words with their parts of speech where the data have
            them. Captions that a model writes come without.
        max_text_length (`int`, defaults to 20): words of a caption that are read.
    """

    vectors: str | None = None
    vocabulary: str | None = None
    tagged: bool = False
    max_text_length: int = 20


@dataclass
class LoraArguments:
    """LoRA on the language model (PEFT). The motion codebook and the markers train in full beside it.

    In a LLaMo it is on the motion branch, and markers, input adapter and heads train in full beside it.

    Args:
        r (`int`, defaults to 16): rank.
        lora_alpha (`int`, defaults to 32): scale.
        lora_dropout (`float`, defaults to 0.05): dropout of the adapter's input.
        target_modules (`list[str]`): adapted layers; by default those of GPT-2.
    """

    r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.05
    target_modules: list[str] = field(default_factory=lambda: ["c_attn", "c_proj"])
