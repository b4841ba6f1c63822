"""`Trainer` with what both stages share: the parts of the loss and the gradient norms in the log."""

import inspect
import json
import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import Dataset, Sampler
from transformers import (
    PreTrainedModel,
    ProcessorMixin,
    SequenceFeatureExtractor,
    Trainer,
    TrainerCallback,
    set_seed,
)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D
from transformers.trainer import TRAINER_STATE_NAME

from ..data.training_sets import LengthGroupedSampler, MotionCaptionDataset, MotionClipDataset
from ..visualization.plots import plot_training_history
from .optimizers import MuonAdamW

if TYPE_CHECKING:
    from peft import PeftModel

logger = logging.getLogger(__name__)

LOSS_PARTS = (
    "reconstruction_loss",
    "position_loss",
    "root_loss",
    "kl_loss",
    "language_modeling_loss",
    "denoising_loss",
    "length_loss",
    "exit_loss",
    "orthonormality_loss",
    "utilisation_loss",
    "commitment_loss",
    "perplexity",
    "dead_codes",
)


class _OwnNoise(TrainerCallback):
    """From the first step on each process draws noise of its own: with the same, more of them would average nothing.

    What they share, the model's first weights and the order of the data, has been drawn by then.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        """Seeds all processes but the first anew; a run that is resumed reads where each of them was."""
        if args.process_index:
            set_seed(args.seed + args.process_index)


class ResumableTrainer(Trainer):
    """Resumes from whole checkpoints only, and ends a run in a folder that `from_pretrained` opens."""

    model: Any

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.add_callback(_OwnNoise())

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """As in `Trainer`; a checkpoint whose saving was cut short is passed over (`True`) or refused (its path)."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint = str(last_whole_checkpoint(Path(self.args.output_dir)))
        elif resume_from_checkpoint and not _is_whole(Path(resume_from_checkpoint)):
            raise ValueError(f"{resume_from_checkpoint} is no checkpoint, or was not written to the end.")
        with self._saying_where_to_go_on():
            return super().train(resume_from_checkpoint, **kwargs)

    def _save_checkpoint(self, model, trial) -> None:
        """As in `Trainer`; one that is interrupted leaves nothing."""
        try:
            super()._save_checkpoint(model, trial)
        except KeyboardInterrupt:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            if self.is_world_process_zero() and not _is_whole(folder):
                shutil.rmtree(folder, ignore_errors=True)
            raise

    @contextmanager
    def _saying_where_to_go_on(self) -> Iterator[None]:
        """Gives a `KeyboardInterrupt` the message that whoever stops a run wants to read."""
        try:
            yield
        except KeyboardInterrupt:
            folder = Path(self.args.output_dir)
            try:
                last = last_whole_checkpoint(folder)
            except ValueError:
                with suppress(OSError):
                    folder.rmdir()  # if it is empty
                advice = "there is no checkpoint; training.save_strategy=steps makes some"
            else:
                advice = f"the last checkpoint is {last}; training.resume_from_checkpoint=true goes on from there"
            raise KeyboardInterrupt(advice) from None

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """As in `Trainer`; under FSDP a whole model is saved, which has no code of FSDP beside it."""
        if not (self.is_fsdp_enabled and state_dict):
            return super()._save(output_dir, state_dict)
        pieces: Any = self.model  # type: ignore[has-type]
        try:
            self.model = whole_model(self.accelerator.unwrap_model(pieces), state_dict)
            super()._save(output_dir)
        finally:
            self.model = pieces

    def finish(self, save: Callable[[torch.nn.Module, Path], None]) -> Path:
        """Evaluates, saves the model, the history's plot and the trainer's state, and waits for all processes.

        Args:
            save: takes the unwrapped model and the output folder, and saves the model; called in one process.

        Returns:
            the output folder.
        """
        with self._saying_where_to_go_on():
            self.evaluate()
        output_dir = Path(self.args.output_dir)
        # All processes put the pieces of the weights together
        weights = self.accelerator.get_state_dict(self.model) if self.is_fsdp_enabled else None
        if self.is_world_process_zero():
            trained = self.accelerator.unwrap_model(self.model)
            save(trained if weights is None else whole_model(trained, weights), output_dir)
            plot_training_history(self.state.log_history, output_dir / "plots" / "history.png")
        self.save_state()
        self.accelerator.wait_for_everyone()
        return output_dir


class MotionTrainer(ResumableTrainer):
    """Logs the parts of the loss, takes motions of similar length together, and knows Muon.

    Beside `loss`, the log has the means (over steps and processes) of the parts in `LOSS_PARTS` that the model
    returns.
    """

    optimizer: torch.optim.Optimizer | None

    def __init__(self, *args, muon_learning_rate: float | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.muon_learning_rate = muon_learning_rate
        self._part_sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.args.device))
        self._part_counts: dict[str, int] = defaultdict(int)
        # torch.compile would trace anew for every number of labels.
        forward = inspect.signature(without_adapters(self.accelerator.unwrap_model(self.model)).forward)
        self._skips_logits = "skip_logits" in forward.parameters and not self.args.torch_compile

    # Trainer finds lengths only in the columns of a `datasets.Dataset`, takes the batches of a group from long to
    # short, and draws them anew when a run is resumed within an epoch.
    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        grouped = self._group_by_length(dataset, self.args.train_batch_size)
        return super()._get_train_sampler(train_dataset) if grouped is None else grouped

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler | None:
        grouped = self._group_by_length(eval_dataset, self.args.eval_batch_size)
        return super()._get_eval_sampler(eval_dataset) if grouped is None else grouped

    def _group_by_length(self, dataset: Dataset | None, batch_size: int) -> LengthGroupedSampler | None:
        is_grouped = self.args.train_sampling_strategy == "group_by_length"
        if not is_grouped or not isinstance(dataset, (MotionCaptionDataset, MotionClipDataset)):
            return None
        return LengthGroupedSampler(dataset, batch_size, seed=self.args.seed)

    def training_step(self, model, inputs, num_items_in_batch=None):
        """One micro-batch. On a CPU in bfloat16 the flash kernel's backward pass takes longer than all else."""
        is_slow = self.args.bf16 and self.args.device.type == "cpu"
        with sdpa_kernel(SDPBackend.MATH) if is_slow else nullcontext():
            return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(self, model, inputs, return_outputs: bool = False, num_items_in_batch=None):
        """The model's loss; its parts are kept for the next log. In training only labelled positions are scored."""
        if self._skips_logits and model.training and "labels" in inputs and self.label_smoother is None:
            inputs = {**inputs, "skip_logits": True}
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        prefix = "" if model.training else "eval_"
        for name in LOSS_PARTS:
            value = outputs.get(name)
            if value is not None:
                # A part is normalised like the loss it is a part of: `num_items_in_batch` makes sums of means.
                summed = name == "language_modeling_loss" and model.training and num_items_in_batch is not None
                scale = self.current_gradient_accumulation_steps * self.args.world_size if summed else 1
                self._part_sums[prefix + name] += value.detach().float() * scale
                self._part_counts[prefix + name] += 1
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the parts to what is logged."""
        is_evaluation = any(name.startswith("eval_") for name in logs)
        if is_evaluation or "loss" in logs:
            # All names, in all processes: which parts there were may differ, and who gathers alone waits for ever
            names = [("eval_" if is_evaluation else "") + part for part in LOSS_PARTS]
            sums = torch.stack([self._part_sums[name] for name in names])
            counts = torch.tensor([self._part_counts[name] for name in names], device=sums.device, dtype=sums.dtype)
            totals = self.accelerator.reduce(torch.stack([sums, counts]), "sum").T.tolist()
            # Of several evaluation sets each logs by itself, as `eval_<set>_loss`.
            prefix = next((name.removesuffix("loss") for name in logs if name.endswith("_loss")), "eval_")
            for name, part, (total, count) in zip(names, LOSS_PARTS, totals, strict=True):
                del self._part_sums[name], self._part_counts[name]
                if count:
                    logs[prefix + part if is_evaluation else name] = total / count
        super().log(logs, start_time)

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """As in `Trainer`; with `muon_learning_rate` Muon updates the inner matrices, and AdamW the rest.

        Raises:
            ValueError: if Muon is asked for beside another optimizer than AdamW, or under FSDP or DeepSpeed, which cut
                matrices into pieces.
        """
        if self.optimizer is not None:
            return self.optimizer
        optimizer = super().create_optimizer(model)
        bare = self.accelerator.unwrap_model(self.model if model is None else model)
        self._group_parameters(optimizer, bare)
        if self.muon_learning_rate is not None:
            if not isinstance(optimizer, torch.optim.AdamW):
                raise ValueError(
                    f"muon_learning_rate: Muon stands beside torch's AdamW, but `optim` is {self.args.optim.value!r}."
                )
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise ValueError("muon_learning_rate: Muon needs whole matrices; train without FSDP and DeepSpeed.")
            matrices = inner_matrices(bare)
            _take_out(optimizer, matrices)
            group = {"params": matrices, "lr": self.muon_learning_rate, "weight_decay": self.args.weight_decay}
            optimizer = MuonAdamW(
                [*optimizer.param_groups, {**group, "momentum": 0.95}],
                lr=self.args.learning_rate,
                iteration_dtype=torch.bfloat16 if self.args.bf16 else torch.float32,
                betas=(self.args.adam_beta1, self.args.adam_beta2),
                eps=self.args.adam_epsilon,
            )
            self.optimizer = optimizer
        return optimizer

    def _group_parameters(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
        """Gives what needs a learning rate of its own a group of its own."""


class CodebookTrainer(MotionTrainer):
    """Also logs how strongly each term pulls at the motion codebook, and can give it a learning rate of its own.

    At each logging step there are the norms of the codebook's gradient from the geometric constraint and from the
    rest. With `codebook_learning_rate` the codebook has that rate and no weight decay.
    """

    def __init__(self, *args, codebook_learning_rate: float | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.codebook_learning_rate = codebook_learning_rate
        self._gradient_norms: dict[str, float] = {}

    def training_step(self, model, inputs, num_items_in_batch=None):
        """One micro-batch; before a logging step the codebook's gradients are measured."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        steps = self.state.logging_steps or self.args.logging_steps
        if self.accelerator.sync_gradients and (self.state.global_step + 1) % max(1, int(steps)) == 0:
            self._measure_codebook_gradients()
        return loss

    def _measure_codebook_gradients(self) -> None:
        model: Any = without_adapters(self.accelerator.unwrap_model(self.model))
        codebook = motion_codebook(model)
        if codebook.grad is None:
            return
        with torch.enable_grad():
            constraint = model.geometric_loss()
        gradient = torch.zeros_like(codebook)
        if constraint.requires_grad:  # "none" pulls at nothing
            weight = model.config.orthonormality_weight * model.orthonormality_weight_multiplier
            (gradient,) = torch.autograd.grad(weight * constraint, codebook)
        self._gradient_norms = {
            "codebook_gradient_norm_orthonormality": gradient.norm().item(),
            "codebook_gradient_norm_task": (codebook.grad - gradient).norm().item(),
        }

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the norms to what is logged."""
        if "loss" in logs:
            logs.update(self._gradient_norms)
        super().log(logs, start_time)

    def _group_parameters(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
        if self.codebook_learning_rate is not None:
            codebook = motion_codebook(model)
            _take_out(optimizer, [codebook])
            optimizer.add_param_group({"params": [codebook], "lr": self.codebook_learning_rate, "weight_decay": 0.0})


def inner_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The trainable matrices that Muon may update: kernels of convolutions, and what is inside transformer layers.

    These are the layers of transformers and of torch; embeddings, heads and what stands between layers are left to
    AdamW.
    """
    matrices: list[Any] = []
    for module in model.modules():
        if isinstance(module, (nn.Conv1d, Conv1D)):
            matrices.append(module.weight)
        elif isinstance(module, (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)):
            matrices += [parameter for parameter in module.parameters() if parameter.dim() == 2]
        elif isinstance(module, GradientCheckpointingLayer):  # each layer of a language model is one
            matrices += [part.weight for part in module.modules() if isinstance(part, nn.Linear)]
    # A motion branch is a layer inside a layer
    return list(dict.fromkeys(matrix for matrix in matrices if matrix.requires_grad))


def set_learning_rate(optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor], rate: float) -> None:
    """Gives parameters a learning rate of their own; what else their groups say stays.

    Args:
        optimizer: with groups.
        parameters: those that it does not have are passed over.
        rate: their learning rate.
    """
    chosen = set(map(id, parameters))
    for group in list(optimizer.param_groups):
        moved = [parameter for parameter in group["params"] if id(parameter) in chosen]
        if moved:
            _take_out(optimizer, moved)
            optimizer.add_param_group({**group, "params": moved, "lr": rate})


def _take_out(optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor]) -> None:
    """Leaves parameters out of the groups of an optimizer."""
    taken = set(map(id, parameters))
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in taken]


def save_whole(
    folder: Path, *parts: "PreTrainedModel | PeftModel | ProcessorMixin | SequenceFeatureExtractor"
) -> None:
    """Saves models and processors into a folder: it gets all of their files or, if one cannot be written, none.

    Args:
        folder: to write; other files in it stay.
        parts: what has `save_pretrained`.

    Raises:
        OSError: if the disk is full or the folder cannot be written; the message names it.
    """
    aside = folder / f".{os.getpid()}.partial"
    try:
        for part in parts:
            part.save_pretrained(aside)
        for path in sorted(aside.rglob("*")):
            if path.is_file():
                target = folder / path.relative_to(aside)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
    except (OSError, SafetensorError) as error:
        raise OSError(f"{folder}: the model cannot be saved: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def last_whole_checkpoint(folder: Path) -> Path:
    """The `checkpoint-N` of a run with the highest N that was written to the end; a later one is named in a warning.

    Args:
        folder: of the run.

    Raises:
        ValueError: if there is none.
    """
    steps = {path: path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*")}
    checkpoints = [path for path, step in steps.items() if step.isdecimal()]
    for path in sorted(checkpoints, key=lambda path: int(steps[path]), reverse=True):
        if _is_whole(path):
            return path
        logger.warning("%s was not written to the end: passed over", path)
    raise ValueError(f"{folder} has no checkpoint to resume from; start without `resume_from_checkpoint`.")


def _is_whole(checkpoint: Path) -> bool:
    """Whether `trainer_state.json` is there and readable: it is what `Trainer` writes last."""
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return True


def whole_model(model: Any, weights: dict[str, Tensor]) -> "PreTrainedModel | PeftModel":
    """A copy of a model that FSDP has cut into pieces.

    Args:
        model: with or without LoRA.
        weights: its whole weights.
    """
    pieces: Any = without_adapters(model)
    kind: Any = next(kind for kind in type(pieces).__mro__ if not issubclass(kind, FSDPModule))
    config = pieces.config
    whole = kind(type(config).from_dict(config.to_dict()))
    whole.generation_config = pieces.generation_config
    if pieces is not model:
        from peft import get_peft_model

        whole = get_peft_model(whole, model.peft_config["default"])
    whole.load_state_dict(weights)
    return whole


def without_adapters(model: nn.Module) -> nn.Module:
    """The model inside PEFT's wrapper."""
    get_base_model = getattr(model, "get_base_model", None)
    return get_base_model() if callable(get_base_model) else model


def motion_codebook(model: nn.Module) -> nn.Parameter:
    """The trainable codebook (num_codes, code_dim) of a motion tokenizer or a language model, with or without LoRA."""
    names = ("codebook.weight", "motion_codebook.weight", "motion_codebook.modules_to_save.default.weight")
    for name, parameter in model.named_parameters():
        inner = "motion_tokenizer." in name
        if name.endswith(names) and not inner and "original_module" not in name:
            return parameter
    raise ValueError(f"{type(model).__name__} has no motion codebook.")
