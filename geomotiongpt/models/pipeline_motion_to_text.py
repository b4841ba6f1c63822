"""The pipeline "motion-to-text": motion files or arrays in, captions out."""

from pathlib import Path

import numpy as np
from numpy.lib import format as npy_format
from transformers import Pipeline
from transformers.utils import logging

from .motion_segments import caption_segments

logger = logging.get_logger(__name__)


class MotionPipeline(Pipeline):
    """What the pipelines of motion share: a processor that prepares everything, and motions as files or arrays."""

    _load_processor = True
    _load_tokenizer = False
    _load_feature_extractor = False
    _load_image_processor = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # Batches are lists of clips, padded by the processor; the base class would pad with one side for all.
        self.tokenizer, self.feature_extractor = self.processor.tokenizer, None

    def save_pretrained(self, save_directory, **kwargs):
        """Saves the model and its processor, which the base class leaves out; arguments are the base class's."""
        super().save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)

    def read_features(self, motion) -> tuple[np.ndarray, str]:
        """Features of a motion, and its name in errors.

        A motion is a `.npy` path, an array of features or joints, or `{"motion": array, "name": name}`.
        """
        name = "motion"
        if isinstance(motion, dict):
            name, motion = motion["name"], motion["motion"]
        elif isinstance(motion, (str, Path)):
            name, motion = str(motion), read_motion(Path(motion))
        return self.processor.feature_extractor.to_features(motion, name), name


class MotionToTextPipeline(MotionPipeline):
    """Captions motions: `pipeline("motion-to-text", model=...)(motion)`.

    A motion is a `.npy` path, or an array of features (frames, F) or joints (frames, J, 3), or such an array with the
    name that errors shall call it by, `{"motion": array, "name": name}`; `geomotiongpt.import_motion` makes joints of
    other files. Lists give lists, and `batch_size=` runs them
    in batches. The result of each is `{"generated_text": caption}`, or a list of such with `num_return_sequences`.
    Arguments of `generate` (`max_new_tokens`, `num_beams`, ...) are passed on.

    With `segments=True` a motion may be of any length, and the result is `{"segments": [{"start", "end", "caption"},
    ...]}`, in seconds: what each part of it shows, see `caption_segments`.
    """

    def __call__(self, motion, *, segments: bool = False, window=None, stride=None, progress: bool = False, **kwargs):
        """Captions one motion or a list of motions.

        Args:
            motion: see above.
            segments: caption the parts of a motion, one motion after another, each in batches of windows.
            window: with segments, seconds that the model sees at a time.
            stride: with segments, seconds from a window to the next.
            progress: with segments, show a progress bar for each motion.
            **kwargs: `batch_size` (motions at a time, 1; of segments windows, 16), and arguments of `generate`.

        Raises:
            FileNotFoundError: for a motion file that is not there.
            ValueError: for a motion that cannot be used, or as `caption_segments`.
        """
        options = {"window": window, "stride": stride, "progress": progress or None}
        if isinstance(motion, (list, tuple)) and not motion:
            return []
        if segments:
            return self._caption_segments(motion, {**options, **self._forward_params, **kwargs})
        idle = [name for name, value in options.items() if value is not None]
        if idle:
            raise ValueError(f"{', '.join(idle)}: no effect without segments=True; leave it out.")
        return super().__call__(motion, **kwargs)

    def _caption_segments(self, motion, options: dict):
        motions = motion if isinstance(motion, (list, tuple)) else [motion]
        options["batch_size"] = options.get("batch_size") or self._batch_size or 16
        results = []
        for one in motions:
            name = "motion"
            if isinstance(one, (str, Path)):
                name, one = str(one), read_motion(Path(one), mapped=True)
            segments = caption_segments(self.model, self.processor, one, name=name, **options)
            results.append({"segments": [segment._asdict() for segment in segments]})
        return results if motions is motion else results[0]

    def _sanitize_parameters(self, **generate_kwargs):
        return {}, generate_kwargs, {}

    def preprocess(self, motion) -> dict[str, list]:
        """Reads and checks one motion."""
        features, name = self.read_features(motion)
        trained, unit = self.model.config.max_frames, self.processor.feature_extractor.downsampling_factor
        if trained is not None and len(features) // unit * unit > trained:  # what is encoded of it
            logger.warning(
                f"{name} has {len(features)} frames, the longest motion in training had {trained}: the caption may be "
                "noise. Caption its parts: segments=True, on the command line --segments."
            )
        return {"motion": [features], "name": [name]}

    def _forward(self, model_inputs: dict[str, list], **generate_kwargs) -> dict[str, list]:
        clips, names = model_inputs["motion"], model_inputs["name"]
        if isinstance(names[0], list):  # a batch: one list of one for each motion
            clips, names = [clip for (clip,) in clips], [name for (name,) in names]
        inputs = self.processor(motion=clips, names=names, task="motion-to-text").to(self.device)
        generated = self.model.generate(**inputs, **generate_kwargs)
        texts = self.processor.post_process_text(generated, inputs["input_ids"].shape[1])
        several = len(texts) // len(clips)
        return {"generated_text": [texts[first : first + several] for first in range(0, len(texts), several)]}

    def postprocess(self, model_outputs: dict[str, list]) -> dict[str, str] | list[dict[str, str]]:
        """One caption, or a list of them where several were asked for."""
        texts = model_outputs["generated_text"]
        texts = texts[0] if isinstance(texts[0], list) else texts  # not taken out of a batch
        captions = [{"generated_text": text} for text in texts]
        return captions[0] if len(captions) == 1 else captions


def read_motion(path: Path, *, mapped: bool = False) -> np.ndarray:
    """An array from a `.npy` file; mapped, it is read where and when it is looked at.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no `.npy` file, or holds no array of numbers.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such motion file.")
    if path.suffix.lower() != ".npy":
        raise ValueError(
            f"{path} is no .npy file; of another file give geomotiongpt.import_motion({str(path)!r}).joints."
        )
    try:
        with open(path, "rb") as file:
            if file.read(len(npy_format.MAGIC_PREFIX)) != npy_format.MAGIC_PREFIX:
                raise ValueError("it does not begin like one")
        # Mapped first: what the header declares must be there before room is made for it.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # of damaged headers numpy raises what its parser of Python raises
        raise ValueError(f"{path} is not a readable .npy file of numbers: {error}") from error
    return array if mapped else np.array(array)
