"""Motion as latents one after another: each is drawn from what the language model says after the one before."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.utils import ModelOutput, logging

from .denoising_heads import DenoisingHead
from .flow_graphs import FlowGraphs
from .modeling_causal_motion_codec import CausalMotionCodec
from .motion_frame_streamer import MotionFrameStreamer
from .motion_requests import MotionRequest, read_requests
from .processing_llamo import GIVEN, LLaMoProcessor, check_feature_extractor
from .task_prompts import MotionTaskExample

logger = logging.get_logger(__name__)

# What callers may say of sampling tokens, because it says nothing: motion has no tokens here.
_NEUTRAL = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "num_beams": 1}
_NULL_TASK = "unconditional"  # what guidance leads away from
# First latents of a given end: the codec knows too little of what was before to encode them well
_BLIND_LATENTS = 3


@dataclass
class AutoregressiveMotionOutput(ModelOutput):
    """Motions that a model made.

    Args:
        motion_values: (batch, frames, num_features), normalised as in training; 0 where padded. Given frames are as
            they were given.
        motion_mask: (batch, frames) bool, True = valid, padding on the right.
        latents: (batch, latents, latent_dim) of all of it, what was given included; 0 where padded.
    """

    motion_values: Tensor | None = None
    motion_mask: Tensor | None = None
    latents: Tensor | None = None


@dataclass
class _Window:
    """What the language model sees: prompts and latents of several motions, and its cache.

    Args:
        states: (rows, hidden_size) after the newest latent; with guidance the rows without a caption stand behind.
        cache: of the layers.
        attention_mask: (rows, length).
        positions: (rows, 1) of the newest.
        num_latents: in the window.
        most: latents that it has room for.
    """

    states: Tensor
    cache: DynamicCache
    attention_mask: Tensor
    positions: Tensor
    num_latents: int
    most: int


@dataclass
class _Settings:
    """How motion is made, see `generate_motion`; with `keep`, motions hold that many of their newest latents."""

    num_context_latents: int
    max_frames: int | None
    num_steps: int
    guidance_scale: float
    generator: torch.Generator | None
    exact_length: bool = True
    keep: int = 0


class AutoregressiveMotionGenerationMixin:
    """Motion from text, from a motion's beginning, between two ends, or from nothing."""

    config: Any
    motion_codec: CausalMotionCodec
    denoising_head: DenoisingHead
    exit_head: nn.Linear
    _processor: LLaMoProcessor | None = None

    @torch.no_grad()
    def generate_motion(
        self,
        text: str | Sequence[str] | Sequence[Sequence[str]] | None = None,
        *,
        motion_values: Tensor | None = None,
        motion_mask: Tensor | None = None,
        task: str = "text-to-motion",
        num_frames: int | Sequence[Any] | None = None,
        exact_length: bool = True,
        num_samples: int = 1,
        num_context_latents: int = 8,
        max_frames: int | None = None,
        num_denoising_steps: int | None = None,
        guidance_scale: float | None = None,
        processor: LLaMoProcessor | None = None,
        generator: torch.Generator | None = None,
        streamer: MotionFrameStreamer | None = None,
        **kwargs,
    ) -> AutoregressiveMotionOutput:
        """Makes motions, latent by latent.

        "text-to-motion": of a caption; of a list, one motion each; of a list of lists, one motion for each inner list,
        whose captions it shows one after another. "motion-prediction" goes on with given motion; "motion-in-between"
        fills the gap in `motion_mask`; "unconditional" takes nothing. Where there is more than the language model was
        trained on, its window slides: the newest half stays.

        Args:
            text: captions, for "text-to-motion".
            motion_values: (batch, frames, num_features), normalised; what does not fill a latent is left out.
            motion_mask: (batch, frames) bool, True = given. For "motion-in-between" True at both ends and False in the
                gap; frames after the last True belong to no motion.
            task: see above.
            num_frames: length of the motions, given frames included (one number, or one for each); of several captions
                in sequence, the length of each (to the next latent; the whole is as long as their sum). None: the exit
                head decides. The gap of "motion-in-between" has its own.
            exact_length: whether motions are as long as `num_frames` says. False: the prompt states it, and the exit
                head decides; of text, of a motion's beginning or of nothing.
            num_samples: motions for each row; they stand next to each other.
            num_context_latents: last latents of what there is that the prompt of the next caption begins with; at most
                half of the window.
            max_frames: where the exit head decides: most frames of a caption. By default those of the longest motion
                of training, or the length that is stated, if that is longer.
            num_denoising_steps: Euler steps of a latent; by default the configuration's.
            guidance_scale: by default the configuration's; 1 is the conditional model, at half the work.
            processor: of the model; by default the one saved beside it.
            generator: seeds the sampling.
            streamer: a `MotionFrameStreamer`, for one motion at a time.
            **kwargs: options of sampling tokens, if they change nothing.

        Returns:
            the motions: number of rows times `num_samples`.

        Raises:
            ValueError: for a task that makes no motion or that the model was not trained on, what the task needs and
                lacks or does not use, a mask without a gap or with two, a length that is shorter than what is given,
                a gap whose length is not to be exact, several motions with a streamer, or an option of sampling
                tokens.
        """
        try:
            settings = self._settings(num_context_latents, max_frames, num_denoising_steps, guidance_scale, generator)
            settings.exact_length = exact_length
            _check_options(kwargs, num_samples)
            processor = processor or self._load_processor()
            asked = (num_frames, exact_length, num_samples)
            motions = self._read(processor, text, motion_values, motion_mask, task, *asked)
            if streamer is not None and len(motions) > 1:
                raise ValueError(f"a streamer takes one motion at a time, not {len(motions)}.")
            if streamer is None:
                for _ in self._make(processor, motions, task, settings):
                    pass
            else:
                for frames in self._stream(processor, motions[0], task, settings):
                    streamer.put(frames)
        except BaseException as error:  # whoever reads the stream must not wait for ever
            if isinstance(streamer, MotionFrameStreamer):
                streamer.fail(error)
            elif streamer is not None:
                streamer.end()
            raise
        if streamer is not None:
            streamer.end()
        return self._decode(motions)

    def stream_motion(
        self,
        text: str | Sequence[str] | None = None,
        *,
        motion_values: Tensor | None = None,
        motion_mask: Tensor | None = None,
        task: str = "text-to-motion",
        num_frames: int | Sequence[int | None] | None = None,
        exact_length: bool = True,
        num_context_latents: int = 8,
        max_frames: int | None = None,
        num_denoising_steps: int | None = None,
        guidance_scale: float | None = None,
        processor: LLaMoProcessor | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[Tensor]:
        """Frames of one motion, as soon as they are made: pieces (frames, num_features), normalised.

        Memory does not grow with the length. Whoever stops iterating stops the making.

        Args:
            text: a caption, or several for one motion that shows one after another.
            motion_values: as in `generate_motion`, like all that follow; of one motion.
            motion_mask: of one motion.
            task: the task.
            num_frames: length, or one for each caption.
            exact_length: whether it is kept exactly.
            num_context_latents: what the next caption's prompt begins with.
            max_frames: most frames of a caption.
            num_denoising_steps: Euler steps of a latent.
            guidance_scale: of the sampling.
            processor: of the model.
            generator: seeds the sampling.

        Raises:
            ValueError: as `generate_motion`.
        """
        captions = [list(text)] if isinstance(text, Sequence) and not isinstance(text, str) else text
        lengths = [num_frames] if isinstance(num_frames, Sequence) else num_frames
        settings = self._settings(num_context_latents, max_frames, num_denoising_steps, guidance_scale, generator)
        processor = processor or self._load_processor()
        motions = self._read(processor, captions, motion_values, motion_mask, task, lengths, exact_length, 1)
        if len(motions) > 1:
            raise ValueError(f"a stream is of one motion, not of {len(motions)}.")
        settings = replace(settings, exact_length=exact_length, keep=self._window_size)
        return self._stream(processor, motions[0], task, settings)

    def compile_flow_loop(self) -> None:
        """From now on, takes all Euler steps of a latent as one CUDA graph: the same results, to rounding, sooner.

        It is recorded with the first latent of each number of motions, number of steps and guidance scale. Where the
        model is not on a GPU, the steps go on one by one, and a warning says so.
        """
        device = self.exit_head.weight.device
        if device.type != "cuda":
            logger.warning(
                f"the flow loop is not compiled: a CUDA graph needs a GPU, and the model is on {device.type!r}. Move "
                "it to one first, with `model.to('cuda')`."
            )
            return
        self.denoising_head.flow_graphs = FlowGraphs()

    def _settings(self, num_context_latents, max_frames, num_steps, guidance_scale, generator) -> _Settings:
        unit = self.motion_codec.config.downsampling_factor
        for name, value in (("num_context_latents", num_context_latents), ("num_denoising_steps", num_steps)):
            if value is not None and (not isinstance(value, Integral) or value < 1):
                raise ValueError(f"{name} is {value}; it must be a whole number, 1 or more.")
        if max_frames is not None and max_frames < unit:
            raise ValueError(f"max_frames is {max_frames}; a latent takes {unit}: allow that many or more.")
        scale = self.config.denoising_guidance_scale if guidance_scale is None else guidance_scale
        trained = self.config.trained_tasks
        if scale != 1 and trained is not None and _NULL_TASK not in trained:
            logger.warning(
                f"guidance_scale is {scale}, but the model was trained on {', '.join(trained)} and not on "
                f"{_NULL_TASK!r}, which guidance leads away from: give guidance_scale=1, or train with that task."
            )
        steps = self.config.num_denoising_steps if num_steps is None else num_steps
        return _Settings(num_context_latents, max_frames, steps, scale, generator)

    @torch.no_grad()
    def _stream(self, processor, motion: MotionRequest, task: str, settings: _Settings) -> Iterator[Tensor]:
        """Decodes what `_make` makes, as it comes."""
        decoder, sent = self.motion_codec.streaming_decoder(), 0

        def frames_of(latents: Tensor) -> Tensor:
            nonlocal sent
            values = decoder.push(self.restore(latents).unsqueeze(0))[0]  # type: ignore[attr-defined]
            if motion.given is not None and sent < len(motion.given):
                values[: len(motion.given) - sent] = motion.given[sent : sent + len(values)].to(values)
            if motion.num_frames is not None:
                end = motion.num_frames - (0 if motion.given_end is None else len(motion.given_end))
                values = values[: end - sent]
            sent += len(values)
            return values

        if motion.latents:
            yield frames_of(torch.stack(motion.latents))
        for latents in self._make(processor, [motion], task, settings):
            if len(values := frames_of(latents)):
                yield values
        if motion.given_end is not None:
            yield motion.given_end.to(self.motion_codec.device, self.motion_codec.dtype)

    @property
    def _window_size(self) -> int:
        """Most latents that the language model sees of a motion."""
        return self.config.max_motion_latents or self.config.max_position_embeddings // 2

    def _make(
        self, processor: LLaMoProcessor, motions: list[MotionRequest], task: str, settings: _Settings
    ) -> Iterator[Tensor]:
        """Latents of all motions, one caption after another; yields (rows, latent_dim) of those of a caption."""
        unit, scale = self.motion_codec.config.downsampling_factor, settings.guidance_scale
        longest = self._window_size if settings.max_frames is None else settings.max_frames // unit
        half = max(1, self._window_size // 2)
        for turn in range(max(len(motion.captions) for motion in motions)):
            rows = [motion for motion in motions if turn < len(motion.captions)]
            sizes = [motion.num_latents[turn] for motion in rows]
            # Of the first caption, what is given counts
            left = [
                None if size is None else size - (len(motion.latents) if turn == 0 else 0)
                for size, motion in zip(sizes, rows, strict=True)
            ]
            context = min(settings.num_context_latents, half) if turn else None
            if turn == 0 and max(len(motion.latents) for motion in rows) >= self._window_size:
                context = half
            made, window = 0, None
            is_open = torch.tensor([size is None or size > 0 for size in left])
            while bool(is_open.any()):
                if window is None or window.num_latents >= window.most:
                    shown = context if window is None else window.most // 2
                    window = self._open_window(processor, rows, task, turn, shown, left, made, scale)
                condition = window.states[: len(rows)]
                if made:
                    logits = self.exit_head(condition.to(self.exit_head.weight.dtype))
                    ended = logits.squeeze(-1).float().sigmoid() > self.config.exit_threshold
                    for row, size in enumerate(left):
                        if size is not None and settings.exact_length:
                            is_done = made >= size
                        else:
                            is_done = bool(ended[row]) or made >= (
                                longest if settings.max_frames else max(longest, size or 0)
                            )
                        is_open[row] &= not is_done
                    if not bool(is_open.any()):
                        break
                unconditional = window.states[len(rows) :].unsqueeze(1) if scale != 1 else None
                latents = self.denoising_head.sample(
                    condition.unsqueeze(1),
                    generator=settings.generator,
                    num_steps=settings.num_steps,
                    guidance_scale=scale,
                    unconditional=unconditional,
                )
                for motion, latent, goes_on in zip(rows, latents, is_open.tolist(), strict=True):
                    if goes_on:
                        motion.latents = [*motion.latents, latent][-settings.keep :]
                made += 1
                yield latents
                self._extend(window, latents)

    def _open_window(
        self,
        processor: LLaMoProcessor,
        motions: list[MotionRequest],
        task: str,
        turn: int,
        context: int | None,
        left: list[int | None],
        made: int,
        guidance_scale: float,
    ) -> _Window:
        """Reads prompts, and the newest latents of what there is."""
        shown = [motion.latents if context is None else motion.latents[-context:] for motion in motions]
        asked = task if turn == 0 else "text-to-motion"
        tasks = [asked] if guidance_scale == 1 else [asked, _NULL_TASK]
        examples = []
        for name in tasks:
            for motion, latents, size in zip(motions, shown, left, strict=True):
                stated = None
                if size is not None:  # as long as what the prompt can see, with what is still to come
                    end = len(motion.end) if name == "motion-in-between" else 0
                    stated = min(len(latents) + max(size - made, 0) + end, self._window_size)
                ends = [GIVEN] * (len(motion.end) if name == "motion-in-between" else 0)
                examples.append(
                    MotionTaskExample(
                        name,
                        motion.captions[turn] if name == "text-to-motion" else None,
                        [GIVEN] * len(latents) + ends,
                        num_given_start=len(latents),
                        num_given_end=len(ends),
                        num_codes=stated,
                    )
                )
        prepared = processor.prepare_examples(examples, with_answers=False)
        device = self.exit_head.weight.device
        input_ids, mask = (torch.from_numpy(prepared[name]).to(device) for name in ("input_ids", "attention_mask"))
        order = [
            [*(motion.end if name == "motion-in-between" else []), *latents]
            for name in tasks
            for motion, latents in zip(motions, shown, strict=True)
        ]
        seen = None
        if any(order):
            width = self.motion_codec.config.latent_dim
            seen = torch.zeros(len(order), max(map(len, order)), width, device=device)
            for row, latents in zip(seen, order, strict=True):
                if latents:
                    row[: len(latents)] = torch.stack(latents).to(device)
            seen = self.restore(seen)  # type: ignore[attr-defined]
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache(config=self.base.config)  # type: ignore[attr-defined]
        outputs = self.mix(  # type: ignore[attr-defined]
            self._embed(input_ids, seen, self._roles(input_ids).slot),  # type: ignore[attr-defined]
            self._is_motion(input_ids),  # type: ignore[attr-defined]
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        num_latents = max(map(len, shown))
        most = min(self._window_size, num_latents + self.config.max_position_embeddings - input_ids.shape[1])
        if most < max(num_latents + 1, 2):
            raise ValueError(
                f"a prompt of {input_ids.shape[1]} tokens leaves no room in the "
                f"{self.config.max_position_embeddings} positions of the language model: shorten the text or what is "
                "given of the motion."
            )
        return _Window(outputs.last_hidden_state[:, -1], cache, mask, positions[:, -1:], num_latents, most)

    def _extend(self, window: _Window, latents: Tensor) -> None:
        """Lets the language model see the latents that were drawn, (rows, latent_dim)."""
        embeds = self.motion_input(latents.to(self.motion_input.weight.dtype))  # type: ignore[attr-defined]
        embeds = embeds.repeat(len(window.states) // len(latents), 1).unsqueeze(1).to(window.states.dtype)
        ones = window.attention_mask.new_ones(len(embeds), 1)
        window.attention_mask = torch.cat([window.attention_mask, ones], dim=1)
        window.positions = window.positions + 1
        outputs = self.mix(  # type: ignore[attr-defined]
            embeds,
            ones.bool(),
            attention_mask=window.attention_mask,
            position_ids=window.positions,
            past_key_values=window.cache,
            use_cache=True,
        )
        window.states = outputs.last_hidden_state[:, -1]
        window.num_latents += 1

    def _decode(self, motions: Sequence[MotionRequest]) -> AutoregressiveMotionOutput:
        """Puts together what was given and what was made."""
        sequences = [torch.stack([*motion.latents, *motion.end]) for motion in motions]
        sequences = [self.restore(latents) for latents in sequences]  # type: ignore[attr-defined]
        latents = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
        lengths = torch.tensor([len(rows) for rows in sequences], device=latents.device)
        mask = torch.arange(latents.shape[1], device=latents.device) < lengths.unsqueeze(-1)
        decoded = cast(Tensor, self.motion_codec.decode(latents, mask).motion_values)
        unit = self.motion_codec.config.downsampling_factor
        values = []
        for motion, row, count in zip(motions, decoded, lengths.tolist(), strict=True):
            frames = row[: count * unit].clone()
            if motion.given_end is not None:
                # The gap need not be a whole number of latents
                frames = frames[: cast(int, motion.num_frames) - len(motion.given_end)]
                frames = torch.cat([frames, motion.given_end.to(frames)])
            frames = frames if motion.num_frames is None else frames[: motion.num_frames]
            if motion.given is not None:
                frames[: len(motion.given)] = motion.given.to(frames)
            values.append(frames)
        frames_of = torch.tensor([len(rows) for rows in values], device=latents.device)
        padded = torch.nn.utils.rnn.pad_sequence(values, batch_first=True)
        motion_mask = torch.arange(padded.shape[1], device=latents.device) < frames_of.unsqueeze(-1)
        return AutoregressiveMotionOutput(motion_values=padded, motion_mask=motion_mask, latents=latents)

    def _read(
        self, processor, text, motion_values, motion_mask, task, num_frames, exact_length, num_samples
    ) -> list[MotionRequest]:
        """What is asked for, with the latents of what is given."""
        check_feature_extractor(processor.feature_extractor, self.motion_codec.config)
        motions = read_requests(
            processor,
            self.config.trained_tasks,
            text=text,
            motion_values=motion_values,
            motion_mask=motion_mask,
            task=task,
            num_frames=num_frames,
        )
        if not exact_length and task == "motion-in-between":
            raise ValueError("exact_length is False, but the gap of 'motion-in-between' has a length of its own.")
        if not exact_length:
            motions = [replace(motion, num_frames=None) for motion in motions]
        for motion in motions:
            if motion.given is not None:
                motion.latents = self._standardised(motion.given)
            if motion.given_end is not None:
                end = self._standardised(motion.given_end)
                # They are made too, and their frames are then those that are given
                blind = min(_BLIND_LATENTS, len(end) - 1)
                motion.end = end[blind:]
                motion.num_latents = [cast(int, motion.num_latents[0]) + blind]
        return [replace(motion) for motion in motions for _ in range(num_samples)]

    def _standardised(self, values: Tensor) -> list[Tensor]:
        latents = self.encode_motion(values.unsqueeze(0).to(self.motion_codec.device))  # type: ignore[attr-defined]
        return list(self.standardise(latents)[0])  # type: ignore[attr-defined]

    def _load_processor(self) -> LLaMoProcessor:
        if self._processor is None:
            self._processor = self.load_own_processor(LLaMoProcessor)  # type: ignore[attr-defined]
        return self._processor


def _check_options(options: dict[str, Any], num_samples: int) -> None:
    if not isinstance(num_samples, Integral) or num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; make at least 1.")
    for name, value in options.items():
        if name not in _NEUTRAL or value not in (None, _NEUTRAL[name]):
            raise ValueError(
                f"{name} is {value!r}, but no tokens of motion are sampled here: num_denoising_steps and "
                "guidance_scale say how a motion is made."
            )
