"""The pipeline "text-to-motion": captions, or the parts of a motion that are given, in; motions out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from .motion_representation import features_to_joints, get_motion_representation
from .pipeline_motion_to_text import MotionPipeline
from .task_prompts import get_task


class TextToMotionPipeline(MotionPipeline):
    """Makes motions: `pipeline("text-to-motion", model=...)("a person walks forward")`.

    The result of a caption is `{"motion": (frames, F), "joints": (frames, J, 3), "num_frames": frames}`: features that
    are not normalised and the joints they stand for, float32, in the units and at the frame rate of the model's
    representation. Lists give lists, and `batch_size=` runs them in batches.
    """

    def __call__(
        self,
        text: str | Sequence[str | Sequence[str]] | None = None,
        *,
        motion: Any = None,
        task: str = "text-to-motion",
        num_frames: int | Sequence[int | None] | None = None,
        duration: float | Sequence[float | None] | None = None,
        keep: tuple[int, int] | None = None,
        progress: bool = False,
        **kwargs,
    ):
        """Makes one motion or a list of motions.

        Args:
            text: a caption, a list of captions, or a list of lists, each the captions that one motion shows in turn.
            motion: what is given of a motion: a `.npy` path or an array of features (frames, F) or joints (frames + 1,
                J, 3), also as `{"motion": array, "name": name}`, or a list of these, one for each result. Whole codes
                of it are given, counted from each end. "motion-prediction" goes on with it, "text-to-motion" begins
                with it, and "motion-in-between" takes its two ends (`keep`) and makes what lies between.
            task: "text-to-motion", "motion-prediction", "motion-in-between" or "unconditional".
            num_frames: length to ask for, given frames included: one for all, or one for each result. Of captions in
                turn it is the length of each. None: the model decides.
            duration: the same in seconds.
            keep: frames of `motion` that are given, at its start and at its end; all by default.
            progress: show a progress bar.
            **kwargs: `num_samples` (1; several give a list for each result), `seed` (of the sampling; the results of
                a seed depend on `batch_size`), and options of `generate` (`temperature`, `top_p`, `num_beams`, ...).
                Motions are sampled unless `num_beams` is above 1, `temperature` 0 or `do_sample` False. Of a LLaMo the
                options of its `generate_motion` (`guidance_scale`, `exact_length`, ...).

        Raises:
            FileNotFoundError: for a motion file that is not there.
            ValueError: for what a task lacks or has no use for, a length given twice, parts to keep that the motion
                does not have, or several samples without sampling.
        """
        several = not (text is None or isinstance(text, str)) or isinstance(motion, (list, tuple))
        texts = [text] if text is None or isinstance(text, str) else list(text)
        motions = list(motion) if isinstance(motion, (list, tuple)) else [motion]
        if not (texts and motions):
            return []
        count = max(len(texts), len(motions))
        texts, motions = (_one_each(values, count, what) for values, what in ((texts, "texts"), (motions, "motions")))
        lengths = _one_each(self._lengths(num_frames, duration), count, "lengths")
        _check_inputs(task, has_motion=motions[0] is not None, has_length=lengths != [None] * count, keep=keep)
        requests = [
            {"index": index, "text": said, "motion": given, "num_frames": frames, "keep": keep, "task": task}
            for index, (said, given, frames) in enumerate(zip(texts, motions, lengths, strict=True))
        ]
        made = super().__call__((request for request in requests), **kwargs)
        results = list(logging.tqdm(made, "making motions", len(requests), disable=not progress or None))
        return results if several else results[0]

    def _lengths(self, num_frames, duration) -> list[int | None]:
        """Frames to ask for; one for all, or one for each result."""
        if num_frames is not None and duration is not None:
            raise ValueError(f"num_frames is {num_frames} and duration {duration}; give one of them.")
        if duration is None:
            return _as_list(num_frames)
        fps = get_motion_representation(self.processor.feature_extractor.representation).fps
        seconds = _as_list(duration)
        for length in seconds:
            if length is not None and not 1 / fps <= length < float("inf"):
                raise ValueError(f"duration is {length} s; ask for one frame ({1 / fps:g} s) or more.")
        return [None if length is None else round(length * fps) for length in seconds]

    def _sanitize_parameters(self, **options):
        return {}, options, {}

    def preprocess(self, request: dict[str, Any]) -> dict[str, Any]:
        """Reads and checks the given motion of one request, and cuts it to what is kept."""
        if request["motion"] is None:
            return {"request": request}
        extractor = self.processor.feature_extractor
        features, name = self.read_features(request["motion"])
        start, end = request["keep"] or (len(features), 0)
        between = request["task"] == "motion-in-between"
        unit = extractor.downsampling_factor
        if min(start, end if between else unit) < unit:
            raise ValueError(f"{name}: keep is {request['keep']}; a part that is given has {unit} frames or more.")
        if start + end + unit * between > len(features):
            gap = f" and a gap of {unit} or more" if between else ""
            raise ValueError(f"{name} has {len(features)} frames; keep asks for {start} and {end}{gap}.")
        start, end = start // unit * unit, end // unit * unit
        given = np.ones(len(features), bool)
        given[start : len(features) - end] = False
        length = len(features) if between else start
        return {"request": {**request, "motion": extractor.normalise(features[:length]), "given": given[:length]}}

    def _forward(
        self, model_inputs: dict[str, Any], *, num_samples: int = 1, seed: int | None = None, **generate_kwargs
    ) -> dict[str, list]:
        if generate_kwargs.get("temperature") == 0:
            generate_kwargs = {**generate_kwargs, "temperature": None, "do_sample": False}
        sampled = generate_kwargs.setdefault("do_sample", generate_kwargs.get("num_beams", 1) == 1)
        if num_samples < 1 or (num_samples > 1 and not sampled):
            raise ValueError(
                f"num_samples is {num_samples} and do_sample {sampled}; without sampling make 1 motion of each text, "
                "for they would all be the same, and with sampling 1 or more."
            )
        requests = model_inputs["request"]
        requests = requests if isinstance(requests, list) else [requests]
        lengths = [request["num_frames"] for request in requests]
        output = self.model.generate_motion(
            None if requests[0]["text"] is None else [request["text"] for request in requests],
            **self._given_motion(requests),
            task=requests[0]["task"],
            num_frames=None if lengths.count(None) == len(lengths) else lengths,
            num_samples=num_samples,
            processor=self.processor,
            generator=None if seed is None else seeded_generator(seed, requests[0]["index"]),
            **generate_kwargs,
        )
        extractor = self.processor.feature_extractor
        rows = zip(output.motion_values, output.motion_mask, strict=True)
        motions = [extractor.denormalise(values[mask]) for values, mask in rows]
        groups = [motions[first : first + num_samples] for first in range(0, len(motions), num_samples)]
        return {"motions": groups}

    def _given_motion(self, requests: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """The motions of a batch, padded."""
        if requests[0]["motion"] is None:
            return {}
        return {
            name: torch.nn.utils.rnn.pad_sequence(
                [torch.from_numpy(request[key]) for request in requests], batch_first=True
            ).to(self.device)
            for name, key in (("motion_values", "motion"), ("motion_mask", "given"))
        }

    def postprocess(self, model_outputs: dict[str, list]) -> dict[str, Any] | list[dict[str, Any]]:
        """One motion, or the samples of one request."""
        motions = model_outputs["motions"]
        samples = motions[0] if isinstance(motions[0], list) else motions
        representation = self.processor.feature_extractor.representation
        results = [
            {"motion": motion, "joints": features_to_joints(motion, representation), "num_frames": len(motion)}
            for motion in samples
        ]
        return results if len(results) > 1 else results[0]


def seeded_generator(*numbers: int) -> torch.Generator:
    """A generator whose draws depend on all of the numbers (each 0 or more), and differ where one of them does."""
    if min(numbers) < 0:
        raise ValueError(f"seed is {min(numbers)}; it must be 0 or more.")
    (state,) = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state))


def _as_list(values) -> list:
    return [values] if values is None or np.ndim(values) == 0 else list(values)


def _one_each(values: list, count: int, what: str) -> list:
    """`values`, or its only one as often as wanted."""
    if len(values) not in (1, count):
        raise ValueError(f"{len(values)} {what} for {count} results; give one for each.")
    return values * count if len(values) == 1 else values


def _check_inputs(task: str, *, has_motion: bool, has_length: bool, keep: tuple[int, int] | None) -> None:
    """What concerns the given motion; `generate_motion` sees to the rest."""
    if get_task(task).answer != "motion":
        raise ValueError(f"task {task!r} answers with {get_task(task).answer}; this pipeline makes motions.")
    if has_motion and task == "unconditional":
        raise ValueError("'unconditional' has no use for `motion`; use 'motion-prediction'.")
    if not has_motion and task in ("motion-prediction", "motion-in-between"):
        raise ValueError(f"{task!r} goes on from a motion: give `motion`.")
    if keep is not None and not has_motion:
        raise ValueError(f"keep is {keep}, but there is no `motion` to keep frames of.")
    if task == "motion-in-between" and has_motion:
        if keep is None:
            raise ValueError("motion-in-between: give `keep`, the frames that are given at the start and at the end.")
        if has_length:
            raise ValueError("motion-in-between: `motion` sets the length; leave out num_frames and duration.")
    elif keep is not None and keep[1] != 0:
        raise ValueError(f"keep is {keep}; {task!r} is given a beginning only: (frames, 0).")
