"""What the demo answers: a caption of motion files, a motion of a text. It knows nothing of the web page around it."""

import re
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import pipeline

from ..checkpoints import load_captioner
from ..data.import_motion import MOTION_SUFFIXES, ImportReport, import_motion
from ..data.input_files import read_npy
from ..data.synthetic_actions import MotionAttributes
from ..data.synthetic_motion import generate_motion
from ..models.motion_representation import get_motion_representation
from ..models.motion_segments import TimedCaption, caption_segments
from ..models.motion_vocabulary import MotionVocabularyMixin
from ..visualization.export import export_motion
from . import Limits

SKELETON_SUFFIX = ".asf"
DOWNLOADS = ("bvh", "glb", "npz", "gif")
_SAMPLES = {
    "walk": MotionAttributes("walk", count=6),
    "jump": MotionAttributes("jump", count=2),
    "kick": MotionAttributes("kick", side="right", count=2),
    "wave": MotionAttributes("wave", side="left"),
    "sit down": MotionAttributes("sit_down"),
    "turn": MotionAttributes("turn", side="left", degrees=180),
}
_LARGEST_SEED = 2**32 - 1
_SAMPLING: dict[str, Any] = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}


@dataclass(frozen=True)
class Described:
    """An answer of `describe`.

    Args:
        caption: what the motion shows; of one longer than the model's training motions a line a part, with its time.
        page: the HTML page that plays it, with its motion tokens where the model has any.
        report: how the file was read.
        warnings: what is probably wrong with it.
    """

    caption: str
    page: str
    report: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Made:
    """An answer of `make`.

    Args:
        text: what the motion is to show.
        motion: features (frames, F), not normalised.
        page: the HTML page that plays it.
    """

    text: str
    motion: np.ndarray
    page: str


class MotionDemo:
    """A model of any family, and the two things that the demo does with it.

    Args:
        model_name: folder of a motion-language model, or its name on the Hub.
        folder: for files; whoever makes it removes it.
        device: to run on; by default the first GPU, or the CPU.
        limits: of a request.

    Raises:
        FileNotFoundError, OSError: if there is no such model.
        ValueError: if it is another kind of model, or the device is not there.
    """

    def __init__(
        self,
        model_name: str | Path,
        folder: Path,
        *,
        device: str | None = None,
        limits: Limits | None = None,
    ):
        place = _checked_device(device)
        model, self.processor = load_captioner(model_name)
        self.model = model.to(place).eval()  # type: ignore[arg-type]
        self.name = Path(model_name).resolve().name if Path(model_name).exists() else str(model_name)
        self.folder, self.limits = folder, limits or Limits()
        self.representation: str = self.processor.feature_extractor.representation
        self.fps = get_motion_representation(self.representation).fps
        self._make = pipeline("text-to-motion", model=self.model, processor=self.processor, device=place)
        self.samples = self._write_samples()

    def is_trained_on(self, task: str) -> bool:
        """Whether the model was trained on a task, as far as it says."""
        return self.model.config.trained_tasks is None or task in self.model.config.trained_tasks

    def _write_samples(self) -> Mapping[str, Path]:
        """Embedded motions as files, which are then read like any other."""
        (self.folder / "samples").mkdir(parents=True)
        samples = {}
        for seed, (name, attributes) in enumerate(_SAMPLES.items()):
            joints = generate_motion([attributes], np.random.default_rng(seed))
            samples[name] = self.folder / "samples" / f"{name}.npz"
            np.savez(samples[name], joints=joints, fps=20.0)
        return samples

    def describe(self, files: Sequence[str | Path]) -> Described:
        """Caption a motion file.

        Args:
            files: one that `import_motion` takes, or `.npy` features; of an `.amc` file its `.asf` too.

        Raises:
            FileNotFoundError: if a file is gone.
            ModuleNotFoundError: as `import_motion`.
            ValueError: for other files, a damaged one, or too long a motion. No message says where a file is.
        """
        paths = [Path(file) for file in files]
        return _without_folders(paths, lambda: self._describe(paths))

    def _describe(self, files: Sequence[Path]) -> Described:
        path, skeleton = _motion_and_skeleton(files, self.limits)
        motion, report = self._read(path, skeleton)
        segments = caption_segments(self.model, self.processor, motion, name=path.name)
        if report is None:
            return Described(_as_text(segments), self._page(motion, path.name, True), _REPORT_OF_FEATURES, ())
        said = str(replace(report, path=path.name))
        return Described(_as_text(segments), self._page(motion, path.name, True), said, report.warnings)

    def _read(self, path: Path, skeleton: Path | None) -> tuple[np.ndarray, ImportReport | None]:
        """Features, or joints with the report of their import."""
        if path.suffix.lower() == ".npy" and (array := read_npy(path, "motion")).ndim == 2:
            self.processor.feature_extractor.check(array, path.name)
            seconds, most = len(array) / self.fps, self.limits.seconds
            if seconds > most:
                raise ValueError(f"{path.name}: lasts {seconds:.1f} s; wanted at most {most:g} s: cut it.")
            return array, None
        limit = self.limits.seconds
        imported = import_motion(path, representation=self.representation, skeleton=skeleton, max_seconds=limit)
        return imported.joints, imported.report

    def make(self, text: str, seconds: float, seed: int) -> Made:
        """Make a motion of a text.

        Args:
            text: what it is to show.
            seconds: its length.
            seed: of the sampling; the same one gives the same motion.

        Raises:
            ValueError: for no text or too long a one, or for another length or seed than may be asked for.
        """
        text = self._checked_text(text)
        most, least = self.limits.made_seconds, self.processor.feature_extractor.downsampling_factor / self.fps
        if not _is_number(seconds) or not least <= seconds <= most:
            raise ValueError(f"the length is {seconds} s; ask for {least:g} to {most:g} s.")
        if not _is_number(seed) or seed != int(seed) or not 0 <= seed <= _LARGEST_SEED:
            raise ValueError(f"the seed is {seed}; it is a whole number from 0 to {_LARGEST_SEED}.")
        result: Any = self._make(text, duration=seconds, seed=int(seed), **_SAMPLING)
        return Made(text, result["motion"], self._page(result["motion"], text, False))

    def write(self, made: Made, kind: str) -> Path:
        """Write a motion to a file that is called as its text.

        Raises:
            ValueError: for a kind that is none of `DOWNLOADS`.
        """
        if kind not in DOWNLOADS:
            raise ValueError(f"the format is {str(kind)[:20]!r}; choose one of {', '.join(DOWNLOADS)}.")
        stem = re.sub(r"[^a-z0-9]+", "-", made.text.lower())[:40].strip("-") or "motion"
        path = self._new_folder() / f"{stem}.{kind}"
        return export_motion(made.motion, path, representation=self.representation, caption=made.text)

    def _checked_text(self, text: str) -> str:
        text = " ".join(text.split()) if isinstance(text, str) else ""
        if not text:
            raise ValueError('say what the motion is to show, for example "a person walks forward.".')
        if len(text) > self.limits.characters:
            raise ValueError(f"the text has {len(text)} characters; it may have {self.limits.characters}: shorten it.")
        return text

    def _page(self, motion: np.ndarray, title: str, with_tokens: bool) -> str:
        codes = self._codes(motion) if with_tokens and isinstance(self.model, MotionVocabularyMixin) else None
        path = export_motion(
            motion,
            self._new_folder() / "motion.html",
            representation=self.representation,
            caption=title,
            codes=codes,
            frames_per_code=None if codes is None else self.processor.feature_extractor.downsampling_factor,
        )
        page = path.read_text(encoding="utf-8")
        shutil.rmtree(path.parent)
        return page

    def _new_folder(self) -> Path:
        """An empty one; an error once the demo is closed, so that the last request leaves nothing behind."""
        folder = self.folder / uuid.uuid4().hex
        folder.mkdir()
        return folder

    def _codes(self, motion: np.ndarray) -> list[int]:
        inputs = self.processor.feature_extractor(motion).to(self.model.device)
        with torch.inference_mode():
            codes = self.model.motion_tokenizer.encode(**inputs).motion_codes[0]
        return codes[codes >= 0].tolist()


_REPORT_OF_FEATURES = "Features as the model takes them: nothing had to be matched."


def _checked_device(device: str | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device is {device!r}; give one such as cpu, cuda or cuda:1.") from None
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device is {device!r}, and there are {torch.cuda.device_count()} CUDA devices; try cpu.")
    return place


def _motion_and_skeleton(files: Sequence[Path], limits: Limits) -> tuple[Path, Path | None]:
    """The motion among the files, and the skeleton that goes with it."""
    skeletons = [path for path in files if path.suffix.lower() == SKELETON_SUFFIX]
    motions = [path for path in files if path not in skeletons]
    if len(motions) > 1 or len(skeletons) > 1:
        raise ValueError(f"{', '.join(path.name for path in files)}: give one motion at a time.")
    if not motions:
        name = skeletons[0].name if skeletons else "nothing"
        raise ValueError(f"{name} holds no motion; give a {', '.join(MOTION_SUFFIXES)} file, with .amc its .asf too.")
    (path,) = motions
    if path.suffix.lower() == ".amc" and not skeletons:
        raise ValueError(f"{path.name}: an .amc file has no skeleton in it; give its .asf file too.")
    if path.suffix.lower() != ".amc" and skeletons:
        raise ValueError(f"{skeletons[0].name} is of no use for {path.name}: a skeleton goes with an .amc file.")
    for file in files:
        if file.is_file() and file.stat().st_size > limits.upload_megabytes * 2**20:
            raise ValueError(f"{file.name} is larger than {limits.upload_megabytes:g} MB.")
    return path, skeletons[0] if skeletons else None


def _without_folders(files: Sequence[Path], run: Callable[[], Described]) -> Described:
    """What `run` returns or raises, with files called by their own names."""

    def clean(text: str) -> str:
        for folder in {folder for file in files for folder in (file.parent, file.parent.resolve())}:
            text = text.replace(f"{folder}/", "")
        return text

    try:
        answer = run()
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(clean(str(error)), name=error.name) from None
    except FileNotFoundError as error:
        raise FileNotFoundError(clean(str(error))) from None
    except ValueError as error:
        raise ValueError(clean(str(error))) from None
    return replace(answer, report=clean(answer.report), warnings=tuple(map(clean, answer.warnings)))


def _as_text(segments: Sequence[TimedCaption]) -> str:
    if len(segments) == 1:
        return segments[0].caption
    return "\n".join(f"{start:.1f} - {end:.1f} s: {' '.join(caption.split())}" for start, end, caption in segments)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
