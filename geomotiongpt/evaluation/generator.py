"""Motions that a model makes of a whole split, written as they come: the counterpart of `captioner`."""

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset as HFDataset

from ..checkpoints import MotionLanguageModel, MotionProcessor
from ..data.motion_folder import read_array, save_array
from ..models.motion_generation import MotionGenerationOutput
from ..models.pipeline_text_to_motion import seeded_generator
from .captioner import data_hash, decoding_of, length_batches, processor_hash, weights_hash
from .resumable import Row, read_rows, write_rows

LENGTHS = ("data", "stated", "free")
COMPLETION_TASKS = ("motion-prediction", "motion-in-between")


@dataclass(frozen=True)
class MotionRequest:
    """What a model is asked for, of each motion of a split.

    Args:
        task: "text-to-motion" of the first caption, "motion-prediction" or "motion-in-between".
        lengths: of "text-to-motion", whether the length of the data is asked for ("data"), stated in the prompt while
            the model decides ("stated", of a LLaMo), or none is ("free"). The other tasks ask for the data's, in whole
            codes.
        keep: share of a motion's codes that is given at its start; "motion-in-between" gives as much at its end too.
        num_samples: motions for each.
        seed: of the sampling.

    Raises:
        ValueError: for a task that makes no motion of a split, or values out of range.
    """

    task: str = "text-to-motion"
    lengths: str = "data"
    keep: float = 0.25
    num_samples: int = 1
    seed: int = 0

    def __post_init__(self):
        if self.task not in ("text-to-motion", *COMPLETION_TASKS):
            raise ValueError(f"task {self.task!r} makes no motions of a split.")
        if self.lengths not in LENGTHS:
            raise ValueError(
                f"lengths is {self.lengths!r}; ask for the lengths of the 'data', have them 'stated', or leave them "
                "'free'."
            )
        if self.lengths == "stated" and self.task != "text-to-motion":
            raise ValueError(f"lengths is 'stated', but {self.task} asks for the data's: it is of 'text-to-motion'.")
        if not 0 < self.keep * (2 if self.task == "motion-in-between" else 1) < 1:
            raise ValueError(f"keep is {self.keep}; {self.task} must be given a share above 0 that leaves a gap.")
        if self.num_samples < 1:
            raise ValueError(f"num_samples is {self.num_samples}; make at least 1 motion.")

    @property
    def fewest_codes(self) -> int:
        """Codes of the shortest motion that can be asked for."""
        return {"text-to-motion": 1, "motion-prediction": 2, "motion-in-between": 3}[self.task]

    def given_codes(self, num_codes: int) -> tuple[int, int]:
        """How many of so many codes are given, at the start and at the end; at least one is left to be made."""
        if self.task == "text-to-motion":
            return 0, 0
        ends = 1 + (self.task == "motion-in-between")
        given = min(max(1, round(self.keep * num_codes)), (num_codes - 1) // ends)
        return given, given * (ends - 1)


@dataclass(frozen=True)
class MadeMotions:
    """What a model made of a split, in its order.

    Args:
        motions: of each row its samples, features (frames, F), not normalised.
        codes: the same as codes; none of a model without codes.
        asked_frames: the length that was asked for, None where it was free.
        given_codes: how many codes of each were given, at the start and at the end.
    """

    motions: list[list[np.ndarray]]
    codes: list[list[list[int]]]
    asked_frames: list[int | None]
    given_codes: list[tuple[int, int]]


def write_motions(
    model: MotionLanguageModel,
    processor: MotionProcessor,
    dataset: HFDataset,
    folder: str | Path,
    request: MotionRequest,
    *,
    batch_size: int = 64,
    **generate_kwargs,
) -> MadeMotions:
    """Makes motions of every row of a split, as `<folder>/<motion id>.npy`, or `<motion id>/<sample>.npy` of several.

    `<folder>.jsonl` says what was asked for and made, one JSON object a line. Batches depend on the data, `batch_size`
    and `num_samples` alone, and each has a seed of its own: the motions do not depend on how many processes share them
    (with as many threads each) or how often the run was stopped; see `write_rows`.

    Args:
        model: with `generate_motion`, in evaluation mode, on its device.
        processor: of the model.
        dataset: one split, as `load_motion_dataset` returns it; no motion is shorter than `request.fewest_codes`.
        folder: to write into.
        request: what to ask for.
        batch_size: motions at a time.
        **generate_kwargs: for `generate`; the model's generation configuration by default.

    Returns:
        the motions, in all processes.

    Raises:
        ValueError: for a batch size below 1; if what is there was made by another model, of other data or with other
            settings; if lengths are to be stated to a model that keeps them exactly; or if the processes of a launcher
            do not see each other.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; make at least 1 motion at a time.")
    if request.lengths == "stated" and "exact_length" not in inspect.signature(model.generate_motion).parameters:
        raise ValueError(
            f"lengths is 'stated', but a {model.config.model_type} makes motions exactly as long as asked for, or as "
            "it likes: use 'data' or 'free'."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows_at_a_time = max(1, batch_size // request.num_samples)
    settings = {
        "model": weights_hash(model),
        "processor": processor_hash(processor, request.task),
        "data": data_hash(dataset),
        "batch_size": rows_at_a_time,
        "request": asdict(request),
        "decoding": {**decoding_of(model), **generate_kwargs},
    }

    def make(number: int, batch: Sequence[int]) -> list[Row]:
        rows = dataset.select(batch)
        generator = seeded_generator(request.seed, number)
        return _make_batch(model, processor, rows, folder, request, generator, generate_kwargs)

    write_rows(
        log_of(folder),
        dataset["motion_id"],
        length_batches(dataset, rows_at_a_time),
        make,
        settings=settings,
        what="motions",
        progress="making motions",
    )
    return read_motions(folder)


def log_of(folder: Path) -> Path:
    """The JSONL beside a folder of motions."""
    return folder.with_name(f"{folder.name}.jsonl")


def read_motions(folder: str | Path) -> MadeMotions:
    """What `write_motions` wrote.

    Raises:
        ValueError: if motions are gone.
    """
    folder = Path(folder)
    rows = read_rows(log_of(folder))
    gone = [name for row in rows for name in row["files"] if not (folder / name).is_file()]
    if gone:
        raise ValueError(
            f"{folder}: {len(gone)} of the motions that {log_of(folder).name} lists are gone ({gone[0]} ...): remove "
            f"{log_of(folder)} too, and they are made again."
        )
    return MadeMotions(
        [[read_array(folder / name) for name in row["files"]] for row in rows],
        [row["codes"] for row in rows],
        [row["asked_frames"] for row in rows],
        [tuple(row["given_codes"]) for row in rows],
    )


@torch.no_grad()
def _make_batch(
    model: MotionLanguageModel,
    processor: MotionProcessor,
    rows: HFDataset,
    folder: Path,
    request: MotionRequest,
    generator: torch.Generator,
    generate_kwargs: dict[str, Any],
) -> list[Row]:
    """Makes the motions of some rows, saves them, and says what they are."""
    extractor = processor.feature_extractor
    clips, unit = list(rows["motion"]), extractor.downsampling_factor
    given = [request.given_codes(len(clip) // unit) for clip in clips]
    asks: dict[str, Any]
    asked: list[int | None]
    if request.task == "text-to-motion":
        texts = [captions[0] for captions in rows["captions"]]
        asked = [None if request.lengths == "free" else len(clip) for clip in clips]
        asks = {"text": texts, "num_frames": asked}
        if request.lengths == "stated":
            asks["exact_length"] = False
    else:
        asked = [len(clip) // unit * unit for clip in clips]
        asks = _given_parts(clips, given, unit, processor, model.device)
        if request.task == "motion-prediction":
            asks["num_frames"] = asked
    made = model.generate_motion(
        **asks,
        task=request.task,
        num_samples=request.num_samples,
        processor=processor,
        generator=generator,
        **generate_kwargs,
    )
    values, masks = cast(torch.Tensor, made.motion_values), cast(torch.Tensor, made.motion_mask)
    made_codes = made.motion_codes if isinstance(made, MotionGenerationOutput) else None
    written = []
    for row, motion_id in enumerate(rows["motion_id"]):
        said = {"text": asks["text"][row]} if "text" in asks else {}
        several = request.num_samples > 1
        files, codes, frames = [], [], []
        for sample in range(request.num_samples):
            index = row * request.num_samples + sample
            motion = extractor.denormalise(values[index][masks[index]])
            files.append(f"{motion_id}/{sample}.npy" if several else f"{motion_id}.npy")
            (folder / files[-1]).parent.mkdir(exist_ok=True)
            save_array(folder / files[-1], motion)
            codes.append([] if made_codes is None else [code for code in made_codes[index].tolist() if code >= 0])
            frames.append(len(motion))
        made_of = {"asked_frames": asked[row], "given_codes": given[row]}
        written.append({**said, "files": files, **made_of, "frames": frames, "codes": codes})
    return written


def _given_parts(
    clips: Sequence[np.ndarray],
    given: Sequence[tuple[int, int]],
    unit: int,
    processor: MotionProcessor,
    device: torch.device,
) -> dict[str, Any]:
    """Clips cut to whole codes, with a mask of what is given of them."""
    values, masks = [], []
    for clip, (start, end) in zip(clips, given, strict=True):
        frames = len(clip) // unit * unit
        mask = torch.zeros(frames, dtype=torch.bool)
        mask[: start * unit] = True
        mask[frames - end * unit :] = True
        # What is not given cannot be seen.
        normalised = torch.from_numpy(processor.feature_extractor.normalise(clip[:frames]))
        values.append(normalised.masked_fill(~mask.unsqueeze(-1), 0))
        masks.append(mask)
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "motion_values": pad(values, batch_first=True).to(device),
        "motion_mask": pad(masks, batch_first=True).to(device),
    }
