"""Motion as an answer where a motion is one latent: slots, a sampled latent, and a decoder that is told the length."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, cast

import torch
from torch import Tensor
from transformers.generation.streamers import BaseStreamer
from transformers.utils import ModelOutput, logging

from .denoising_heads import DenoisingHead
from .modeling_motion_vae import MotionVAE
from .motion_mask import check_mask, find_gap
from .processing_motiongpt3 import MotionGPT3Processor
from .task_prompts import LATENT_TASKS, LatentTaskExample, get_task

logger = logging.get_logger(__name__)

# What callers may say of sampling tokens, because it says nothing: motion has no tokens here.
_NEUTRAL = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "num_beams": 1}


@dataclass
class LatentMotionOutput(ModelOutput):
    """Motions that a model made.

    Args:
        motion_values: (batch, frames, num_features), normalised as in training; 0 where padded. Given frames are as
            they were given.
        motion_mask: (batch, frames) bool, True = valid, padding on the right.
        latents: (batch, num_latent_tokens, latent_dim) of what was made.
    """

    motion_values: Tensor | None = None
    motion_mask: Tensor | None = None
    latents: Tensor | None = None


@dataclass
class _Request:
    """One motion to make: its words, what is given of it, and how many frames are missing (None: unknown)."""

    text: str | None = None
    start: Tensor | None = None
    end: Tensor | None = None
    num_missing: int | None = None


class LatentMotionGenerationMixin:
    """Motion from text, from a motion's beginning, between two ends, or from nothing."""

    config: Any
    motion_vae: MotionVAE
    denoising_head: DenoisingHead
    _processor: MotionGPT3Processor | None = None

    @torch.no_grad()
    def generate_motion(
        self,
        text: str | Sequence[str] | None = None,
        *,
        motion_values: Tensor | None = None,
        motion_mask: Tensor | None = None,
        task: str = "text-to-motion",
        num_frames: int | Sequence[int | None] | None = None,
        num_samples: int = 1,
        num_denoising_steps: int | None = None,
        guidance_scale: float | None = None,
        sampler: str | None = None,
        processor: MotionGPT3Processor | None = None,
        generator: torch.Generator | None = None,
        streamer: BaseStreamer | None = None,
        **kwargs,
    ) -> LatentMotionOutput:
        """Makes motions: one pass of the language model with the slots in place, the denoising head, the decoder.

        Args:
            text: a caption, or one for each motion, for "text-to-motion".
            motion_values: (batch, frames, num_features), normalised: what "motion-prediction" goes on with, and what
                "motion-in-between" lies between.
            motion_mask: (batch, frames) bool, True = given. For "motion-in-between" True at both ends and False in the
                gap; frames after the last True belong to no motion.
            task: "text-to-motion", "motion-prediction", "motion-in-between" or "unconditional".
            num_frames: length of the motions, given frames included: one number, or one for each. None: what the
                length predictor says. The gap of "motion-in-between" has its own.
            num_samples: motions for each row; they stand next to each other.
            num_denoising_steps: by default the configuration's.
            guidance_scale: by default the configuration's; 1 is the conditional model.
            sampler: of the denoising head, see `DenoisingHead.sample`.
            processor: of the model; by default the one saved beside it.
            generator: seeds the sampling.
            streamer: not possible: a motion comes in one piece.
            **kwargs: options of sampling tokens, if they change nothing.

        Returns:
            the motions: number of rows times `num_samples`.

        Raises:
            ValueError: for a task that makes no motion or that the model was not trained on, what the task needs and
                lacks or does not use, a mask without a gap or with two, a length that is below what is given or above
                what the model makes, a streamer, or an option of sampling tokens.
        """
        self._check_options(task, kwargs, num_samples, streamer)
        requests = _read_requests(text, motion_values, motion_mask, task, num_frames)
        processor = processor or self._load_processor()
        requests = [request for request in requests for _ in range(num_samples)]
        if any(request.num_missing is None for request in requests):
            if not self.config.has_length_predictor:
                raise ValueError(
                    "the model has no length predictor (published MotionGPT3 models have none): give num_frames, how "
                    "long the motions are to be."
                )
            self._predict_lengths(processor, task, requests)
        self._check_lengths(requests)
        states = self._motion_states(processor, task, requests)
        steps = self.config.num_denoising_steps if num_denoising_steps is None else num_denoising_steps
        scale = self.config.denoising_guidance_scale if guidance_scale is None else guidance_scale
        sampled = self.denoising_head.sample(
            states, generator=generator, num_steps=steps, guidance_scale=scale, sampler=sampler
        )
        latents = self.restore(sampled)  # type: ignore[attr-defined]
        values, mask = self.motion_vae.decode(latents, [cast(int, r.num_missing) for r in requests]).to_tuple()
        return _join(requests, [row[valid] for row, valid in zip(values, mask, strict=True)], latents)

    def _check_options(self, task: str, options: dict[str, Any], num_samples: int, streamer) -> None:
        trained = self.config.trained_tasks
        get_task(task, LATENT_TASKS)
        if trained is not None and task not in trained:
            raise ValueError(f"the model was trained on {', '.join(trained)}, not on {task}.")
        if streamer is not None:
            raise ValueError("a motion is one latent here and comes in one piece: there is nothing to stream.")
        if not isinstance(num_samples, Integral) or num_samples < 1:
            raise ValueError(f"num_samples is {num_samples}; make at least 1.")
        for name, value in options.items():
            if name not in _NEUTRAL or value not in (None, _NEUTRAL[name]):
                raise ValueError(
                    f"{name} is {value!r}, but no tokens of motion are sampled here: num_denoising_steps, "
                    "guidance_scale and sampler say how a motion is made."
                )

    def _check_lengths(self, requests: Sequence[_Request]) -> None:
        most, trained = self.config.vae.max_frames, self.config.max_frames
        for row, request in enumerate(requests):
            if not 1 <= cast(int, request.num_missing) <= most:
                raise ValueError(
                    f"motion {row}: {request.num_missing} frames are to be made; this model makes 1 to {most}."
                )
        longest = max(cast(int, request.num_missing) for request in requests)
        if longest > trained:
            logger.warning_once(f"{longest} frames are to be made; motions in training had {trained} at most.")

    def _predict_lengths(self, processor: MotionGPT3Processor, task: str, requests: list[_Request]) -> None:
        """Asks the length predictor, under the prompt that states no length."""
        free = [request for request in requests if request.num_missing is None]
        said = self._log_num_frames(self._motion_states(processor, task, free))  # type: ignore[attr-defined]
        for request, frames in zip(free, said.exp().round().clamp(1, self.config.max_frames), strict=True):
            request.num_missing = int(frames)

    def _motion_states(self, processor: MotionGPT3Processor, task: str, requests: Sequence[_Request]) -> Tensor:
        """Hidden states at the slots of the motions to be made, (requests, slots, hidden_size)."""
        examples = [LatentTaskExample(task, request.text, request.num_missing) for request in requests]
        prepared = processor.prepare_examples(examples, with_answers=True)
        device = self.motion_vae.device
        inputs = {name: torch.from_numpy(prepared[name]).to(device) for name in ("input_ids", "attention_mask")}
        given = [[part for part in (request.start, request.end) if part is not None] for request in requests]
        if given[0]:
            inputs["latents"] = torch.cat(
                [self._encode_parts([parts[place] for parts in given]) for place in range(len(given[0]))], dim=1
            )
        return self(**inputs, return_dict=True).motion_states  # type: ignore[operator]

    def _encode_parts(self, parts: Sequence[Tensor]) -> Tensor:
        values = torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True).to(self.motion_vae.device)
        lengths = torch.tensor([len(part) for part in parts], device=values.device)
        mask = torch.arange(values.shape[1], device=values.device) < lengths.unsqueeze(-1)
        return self.encode_motion(values, mask)  # type: ignore[attr-defined]

    def _load_processor(self) -> MotionGPT3Processor:
        if self._processor is None:
            self._processor = self.load_own_processor(MotionGPT3Processor)  # type: ignore[attr-defined]
        return self._processor


def _read_requests(text, motion_values, motion_mask, task: str, num_frames) -> list[_Request]:
    _check_forms(text, motion_values, motion_mask, num_frames)
    texts = [text] if isinstance(text, str) else None if text is None else list(text)
    _check_task_inputs(task, texts, motion_values, motion_mask, num_frames)
    if task == "motion-in-between":
        return [
            _read_gap(row, *given) for row, given in enumerate(zip(motion_values, motion_mask.bool(), strict=True))
        ]
    lengths = list(num_frames) if isinstance(num_frames, Sequence) else None
    sizes = [len(rows) for rows in (texts, motion_values, lengths) if rows is not None]
    if len(set(sizes)) > 1:
        raise ValueError(
            f"{' and '.join(map(str, sizes))} captions, motions or lengths: give as many of each, or one length."
        )
    requests = []
    for row in range(sizes[0] if sizes else 1):
        frames = num_frames if lengths is None else lengths[row]
        start = None
        if motion_values is not None:
            start = motion_values[row]
            if motion_mask is not None:
                start = start[: int(motion_mask[row].sum())]
                if not motion_mask[row, : len(start)].all():
                    raise ValueError(f"row {row} of motion_mask has a hole: the frames that are given come first.")
            if not len(start):
                raise ValueError(f"row {row}: nothing is given; give one frame or more to go on with.")
        given = 0 if start is None else len(start)
        if frames is not None and frames <= given:
            raise ValueError(f"motion {row}: {frames} frames are asked for, but {given} are given already.")
        missing = None if frames is None else frames - given
        requests.append(_Request(None if texts is None else texts[row], start, None, missing))
    return requests


def _read_gap(row: int, values: Tensor, mask: Tensor) -> _Request:
    first, second, stop = find_gap(row, mask)
    return _Request(None, values[:first], values[second:stop], second - first)


def _check_forms(text, motion_values, motion_mask, num_frames) -> None:
    """Whether everything is of the kind that `generate_motion` says."""
    if text is not None and not isinstance(text, (str, Sequence)):
        raise ValueError(f"text is {text!r}; give a caption or a list of captions.")
    if motion_values is not None and not isinstance(motion_values, Tensor):
        raise ValueError(f"motion_values are a {type(motion_values).__name__}; give a tensor.")
    if motion_values is not None and motion_values.dim() != 3:
        raise ValueError(
            f"motion_values have the shape {tuple(motion_values.shape)}; wanted (batch, frames, num_features)."
        )
    check_mask(motion_values, motion_mask)
    if motion_values is not None:
        given = motion_values if motion_mask is None else motion_values[motion_mask.bool()]
        if not torch.isfinite(given).all():
            raise ValueError("motion_values have a NaN or infinite value; repair or leave out the motion.")
    for length in num_frames if isinstance(num_frames, Sequence) else [num_frames]:
        if not (length is None or isinstance(length, Integral)):
            raise ValueError(f"num_frames is {length!r}; give whole numbers, one or a list.")


def _check_task_inputs(task: str, texts, motion_values, motion_mask, num_frames) -> None:
    answer = get_task(task, LATENT_TASKS).answer
    if answer != "motion":
        raise ValueError(f"task {task!r} answers with {answer}: use the processor and `generate`.")
    if task == "text-to-motion" and not texts:
        raise ValueError("text-to-motion is about captions: give `text`.")
    if task != "text-to-motion" and texts is not None:
        raise ValueError(f"{task!r} has no use for `text`.")
    for caption in texts or []:
        if not isinstance(caption, str):
            raise ValueError("several captions in one motion are not possible here: make a motion of each.")
        if not caption.strip():
            raise ValueError(
                "a caption is empty: say what the motion is to show, or make one with task='unconditional'."
            )
    takes_motion = task in ("motion-prediction", "motion-in-between")
    if takes_motion and motion_values is None:
        raise ValueError(f"{task!r} goes on from a motion: give `motion_values`.")
    if not takes_motion and motion_values is not None:
        raise ValueError(f"{task!r} takes no motion; use 'motion-prediction'.")
    if task == "motion-in-between" and motion_mask is None:
        raise ValueError("motion-in-between: give `motion_mask`, False in the gap to be filled.")
    if task == "motion-in-between" and num_frames is not None:
        raise ValueError("motion-in-between: the gap in `motion_mask` says how long the motion is, not `num_frames`.")


def _join(requests: Sequence[_Request], made: Sequence[Tensor], latents: Tensor) -> LatentMotionOutput:
    """Puts what was made where it was missing."""
    motions = []
    for request, values in zip(requests, made, strict=True):
        parts = [part for part in (request.start, values, request.end) if part is not None]
        motions.append(torch.cat([part.to(values) for part in parts]))
    values = torch.nn.utils.rnn.pad_sequence(motions, batch_first=True)
    lengths = torch.tensor([len(motion) for motion in motions], device=values.device)
    mask = torch.arange(values.shape[1], device=values.device) < lengths.unsqueeze(-1)
    return LatentMotionOutput(motion_values=values, motion_mask=mask, latents=latents)
