"""Motion as an answer: constrained decoding, lengths, several captions in sequence, and frames while codes arrive."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from queue import Queue
from typing import Any, cast

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation.streamers import BaseStreamer
from transformers.utils import ModelOutput, logging

from .configuration_motion_tokenizer import MotionTokenizerConfig
from .generation_settings import merge_settings
from .modeling_motion_tokenizer import MotionTokenizer
from .motion_lengths import as_numbers, share_tokens
from .motion_mask import check_mask, find_gap
from .processing_geomotiongpt import GeoMotionGPTProcessor
from .task_prompts import MotionTaskExample, get_task

logger = logging.get_logger(__name__)

_OUTSIDE, _OPENED, _INSIDE = range(3)
_STATED_LENGTH = 24  # tokens, at most, for the length that a prompt may state
# Options of `generate` that `generate_motion` sets itself -> what to use.
_OWN_OPTIONS = dict.fromkeys(("max_new_tokens", "max_length", "min_new_tokens", "min_length"), "num_frames")
_OWN_OPTIONS |= {"num_return_sequences": "num_samples", "eos_token_id": "num_frames"}
_OF_LATENTS = ("num_denoising_steps", "guidance_scale", "sampler")


@dataclass
class MotionGenerationOutput(ModelOutput):
    """Motions that a model made.

    Args:
        motion_values: (batch, frames, num_features), normalised as in training; 0 where padded.
        motion_mask: (batch, frames) bool, True = valid, padding on the right.
        motion_codes: (batch, codes) long, padded with -1; the codes of given frames are as they were given.
    """

    motion_values: Tensor | None = None
    motion_mask: Tensor | None = None
    motion_codes: Tensor | None = None


class MotionVocabularyLogitsProcessor(LogitsProcessor):
    """Motion codes only between `<motion>` and `</motion>`, text only outside; no empty motion.

    Which side a row is on is read from its last token alone.

    Args:
        text_vocab_size: ids below it are text.
        start_id: of `<motion>`.
        end_id: of `</motion>`.
        first_code_id: ids from here on are motion codes.
        vocab_size: all ids.
    """

    def __init__(self, text_vocab_size: int, start_id: int, end_id: int, first_code_id: int, vocab_size: int):
        self._state = torch.full((vocab_size,), _OUTSIDE)
        self._state[start_id] = _OPENED
        self._state[first_code_id:] = _INSIDE
        self._bias = torch.full((3, vocab_size), -torch.inf)
        self._bias[_OUTSIDE, :text_vocab_size] = 0
        self._bias[_OUTSIDE, start_id] = 0
        self._bias[_OPENED:, first_code_id:] = 0
        self._bias[_INSIDE, end_id] = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Adds 0 to what may come next and -inf to the rest."""
        if self._state.device != scores.device:
            self._state, self._bias = self._state.to(scores.device), self._bias.to(scores.device)
        return scores + self._bias.index_select(0, self._state.index_select(0, input_ids[:, -1]))


class MotionLengthLogitsProcessor(LogitsProcessor):
    """Ends the motion of each row after so many codes: exactly, or at the latest.

    Args:
        num_codes: of each prompt; beams and repeated sequences of a prompt share its number.
        is_exact: of each prompt, whether its motion must not end before.
        prompt_length: width of the prompts, which end inside a motion.
        end_id: of `</motion>`.
    """

    def __init__(self, num_codes: Sequence[int], is_exact: Sequence[bool], prompt_length: int, end_id: int):
        self.num_codes, self.is_exact = torch.tensor(num_codes), torch.tensor(is_exact)
        self.prompt_length, self.end_id = prompt_length, end_id
        self._shortest = min(num_codes)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Forbids the end before its time, and everything else when it has come."""
        if self.num_codes.device != scores.device:
            self.num_codes, self.is_exact = self.num_codes.to(scores.device), self.is_exact.to(scores.device)
        repeats = len(scores) // len(self.num_codes)
        step = input_ids.shape[1] - self.prompt_length
        is_early = (self.is_exact & (step < self.num_codes)).repeat_interleave(repeats)
        scores = scores.clone()
        scores[:, self.end_id] = scores[:, self.end_id].masked_fill(is_early, -torch.inf)
        if step >= self._shortest:
            is_done = (step >= self.num_codes).repeat_interleave(repeats)
            scores[is_done] = -torch.inf
            scores[is_done, self.end_id] = 0
        return scores


class MotionStreamer(BaseStreamer):
    """Motion frames while `generate` is still making codes; iterate over it from another thread:

        streamer = MotionStreamer(model, lookahead=8)
        Thread(target=model.generate_motion, args=["a person walks."], kwargs={"streamer": streamer}).start()
        for values in streamer:
            features = processor.feature_extractor.denormalise(values)

    The decoder looks at later codes too. A code's frames leave as soon as `lookahead` codes after it are known, and
    then never change. By default so many are awaited that the frames equal those of decoding all codes at once
    (`receptive_codes`: 22 for the small recipes, 25 at the paper's size, where no motion of HumanML3D is longer).
    Fewer give frames earlier, and others: with 8 the joints were 2 to 10 mm off, with 4 it was 6 to 25 mm. Frames are
    pieces (frames, num_features), normalised as the model's are. A streamer can be used again when a motion has ended.
    Where making the motion fails, the iteration raises a RuntimeError.

    Args:
        model: a language model with a motion tokenizer inside.
        lookahead: codes to wait for; None: as many as matter.
        timeout: seconds an iteration waits for the next frames before it raises `queue.Empty`; None waits for ever.

    Raises:
        ValueError: when more than one motion is generated at a time.
    """

    def __init__(self, model: "MotionGenerationMixin", *, lookahead: int | None = None, timeout: float | None = None):
        if lookahead is not None and lookahead < 0:
            raise ValueError(f"lookahead is {lookahead}; it must be 0 or more codes, or None.")
        self.tokenizer = model.motion_tokenizer
        self.reach = receptive_codes(self.tokenizer.config)
        self.lookahead = self.reach if lookahead is None else lookahead
        self.timeout = timeout
        self._first_code_id = model.config.first_motion_token_id
        self._frames: Queue[Tensor | BaseException | None] = Queue()
        self._has_failed = False
        self._begin()

    def _begin(self) -> None:
        """Before a motion, and after it, so that the streamer can be used again."""
        self.num_frames: int | None = None  # of a motion that does not end with a whole code; set by generate_motion
        self._codes: list[int] = []
        self._num_decoded = 0
        self._has_prompt = False

    def put(self, value: Tensor) -> None:
        """Token ids: first the prompt, of which the codes that the motion begins with are kept, then one by one."""
        ids = value.flatten().tolist() if value.dim() < 2 or len(value) == 1 else None
        if ids is None:
            raise ValueError(f"a MotionStreamer takes one motion at a time, not {len(value)}.")
        if self._has_failed:
            self._forget_failed()
        if not self._has_prompt:
            self._has_prompt = True
            begun = len(ids)
            while begun and ids[begun - 1] >= self._first_code_id:
                begun -= 1
            ids = ids[begun:]
        self._codes += [token - self._first_code_id for token in ids if token >= self._first_code_id]
        self._decode(len(self._codes) - self.lookahead)

    def end(self) -> None:
        """Decodes what is left."""
        try:
            self._decode(len(self._codes))
        finally:
            self._frames.put(None)
            self._begin()

    def fail(self, error: BaseException) -> None:
        """Nothing more comes, because of an error: the reader is told."""
        self._frames.put(error)
        self._begin()
        self._has_failed = True

    def _forget_failed(self) -> None:
        """What a motion that failed has left, where nobody read it: the next one begins."""
        with self._frames.mutex:
            left = self._frames.queue
            while left and left[-1] is not None:
                left.pop()
        self._has_failed = False

    @torch.no_grad()
    def _decode(self, num_codes: int) -> None:
        if num_codes <= self._num_decoded:
            return
        first = max(0, self._num_decoded - self.reach)
        codes = torch.tensor([self._codes[first:]], device=self.tokenizer.device)
        values = cast(Tensor, self.tokenizer.decode(codes).motion_values)[0]
        factor = self.tokenizer.config.downsampling_factor
        start, stop = self._num_decoded * factor, num_codes * factor
        stop = stop if self.num_frames is None else min(stop, self.num_frames)
        self._frames.put(values[start - first * factor : stop - first * factor])
        self._num_decoded = num_codes

    def __iter__(self) -> Iterator[Tensor]:
        while (frames := self._frames.get(timeout=self.timeout)) is not None:
            if isinstance(frames, BaseException):
                raise RuntimeError(f"the motion was not made to its end: {frames}") from frames
            yield frames


class _Continued(BaseStreamer):
    """Passes on the codes of one of several calls of `generate`: no prompt, no end."""

    def __init__(self, streamer: BaseStreamer):
        self.streamer, self._has_prompt = streamer, False

    def put(self, value: Tensor) -> None:
        if self._has_prompt:
            self.streamer.put(value)
        self._has_prompt = True

    def end(self) -> None:
        pass


def receptive_codes(config: MotionTokenizerConfig) -> int:
    """How many codes to either side of a code have a say in its decoded frames."""
    reach, rate = 1.0, 1  # the first convolution; positions of the current stage in one code
    stack = sum(config.dilation_growth_rate**depth for depth in range(config.num_residual_layers))
    for _ in range(config.num_downsampling_layers):
        reach += stack / rate
        rate *= 2
        reach += 1 / rate
    return int(-(-(reach + 2 / rate) // 1))


@dataclass
class _Motion:
    """One motion in the making: what is asked for, and the codes so far."""

    captions: list[str | None]
    num_codes: list[int | None]
    codes: list[int] = field(default_factory=list)
    end_codes: list[int] = field(default_factory=list)
    num_frames: int | None = None
    context: int = 0  # how many of the codes belong to the present prompt
    missing: int | None = None  # how many codes the present caption still needs; None: until the model ends it


class MotionGenerationMixin:
    """Motion from text, from a motion's beginning, between two ends, or from nothing."""

    config: Any
    motion_tokenizer: MotionTokenizer
    _processor: GeoMotionGPTProcessor | None = None

    def constraints(self) -> LogitsProcessorList:
        """What keeps motion codes and text apart; `generate` applies it."""
        config = self.config
        return LogitsProcessorList(
            [
                MotionVocabularyLogitsProcessor(
                    config.text_vocab_size,
                    config.motion_start_token_id,
                    config.motion_end_token_id,
                    config.first_motion_token_id,
                    config.vocab_size,
                )
            ]
        )

    @torch.no_grad()
    def generate_motion(
        self,
        text: str | Sequence[str] | Sequence[Sequence[str]] | None = None,
        *,
        motion_values: Tensor | None = None,
        motion_mask: Tensor | None = None,
        task: str = "text-to-motion",
        num_frames: int | Sequence[int | None] | None = None,
        num_samples: int = 1,
        num_context_codes: int = 4,
        processor: GeoMotionGPTProcessor | None = None,
        generator: torch.Generator | None = None,
        streamer: BaseStreamer | None = None,
        **kwargs,
    ) -> MotionGenerationOutput:
        """Makes motions.

        "text-to-motion": of a caption; of a list, one motion each; of a list of lists, one motion for each inner list,
        whose captions it shows one after another. Given motion (the same number of rows) is what the motions begin
        with. "motion-prediction" goes on with given motion; "motion-in-between" fills the gap in `motion_mask`;
        "unconditional" takes nothing. Where more is asked for than the language model was trained on, the prompt
        keeps the newest half of the longest motion of training.

        Args:
            text: captions, for "text-to-motion".
            motion_values: (batch, frames, num_features), normalised.
            motion_mask: (batch, frames) bool, True = given. For "motion-in-between" True at both ends and False in the
                gap; frames after the last True belong to no motion.
            task: see above.
            num_frames: length of the motions, given frames included (one number, or one for each); of several captions
                in sequence, the length of each (one number, or a list for each motion). None: the model decides. The
                gap of "motion-in-between" has its own, rounded to whole codes.
            num_samples: motions for each row; they stand next to each other.
            num_context_codes: last codes of what there is that the prompt of the next caption begins with.
            processor: of the model; by default the one saved beside it.
            generator: seeds the sampling; one draw is taken from it.
            streamer: for one motion at a time, a `MotionStreamer` for example.
            **kwargs: for `generate` (`do_sample`, `temperature`, `top_p`, `num_beams`, ...). Without `do_sample=True`,
                here or in the model's generation configuration, the likeliest codes are taken; with it they are
                drawn from all (`top_k` 0), unless one of the two says otherwise.

        Returns:
            the motions: number of rows times `num_samples`.

        Raises:
            ValueError: for a task that makes no motion, what the task needs and lacks or does not use, a mask without
                a gap or with two, a length that is shorter than what is given, several motions with a streamer, or an
                option of `generate` that is set here.
        """
        try:
            if taken := sorted(_OWN_OPTIONS.keys() & kwargs):
                raise ValueError(f"generate_motion sets {taken[0]} itself; use `{_OWN_OPTIONS[taken[0]]}`.")
            if idle := [name for name in _OF_LATENTS if name in kwargs]:
                raise ValueError(f"{idle[0]}: no effect where motion is tokens; use `temperature`, `top_p`.")
            kwargs = self._sampling(num_samples, kwargs)
            processor = processor or self._load_processor()
            motions = self._motions_to_make(processor, text, motion_values, motion_mask, task, num_frames)
            motions = [replace(motion, codes=[*motion.codes]) for motion in motions for _ in range(num_samples)]
            self._make(motions, processor, task, num_context_codes, generator, streamer, kwargs)
        except BaseException as error:  # whoever reads the stream must not wait for ever
            if isinstance(streamer, MotionStreamer):
                streamer.fail(error)
            elif streamer is not None:
                streamer.end()
            raise
        if streamer is not None:
            streamer.end()
        return self._decode_motions(motions)

    def _sampling(self, num_samples: int, options: dict[str, Any]) -> dict[str, Any]:
        """Options of `generate`: all codes are drawn from, where transformers would take the 50 likeliest."""
        settings, _ = merge_settings(self.generation_config, options)  # type: ignore[attr-defined]
        if num_samples < 1:
            raise ValueError(f"num_samples is {num_samples}; make at least 1.")
        if num_samples > 1 and not settings.do_sample:
            raise ValueError(
                f"num_samples is {num_samples}, but without sampling all motions of a row are the same: give "
                "do_sample=True, or make 1."
            )
        return {"top_k": 0, **options} if settings.do_sample and settings.top_k is None else options

    def _make(self, motions, processor, task, num_context_codes, generator, streamer, kwargs) -> None:
        """Codes of all motions, one caption after another."""
        trained = self.config.trained_tasks
        if trained is not None and task not in trained:
            logger.warning(f"the model was trained on {', '.join(trained)}, not on {task}: expect noise.")
        if streamer is not None:
            if len(motions) > 1:
                raise ValueError(f"a streamer takes one motion at a time, not {len(motions)}.")
            if isinstance(streamer, MotionStreamer):
                streamer.num_frames = motions[0].num_frames
            given = torch.tensor(motions[0].codes, dtype=torch.long) + self.config.first_motion_token_id
            streamer.put(given)
        device = self.motion_tokenizer.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else [], enabled=generator is not None):
            if generator is not None:
                seed = torch.randint(2**62, (), generator=generator, device=generator.device)
                torch.manual_seed(int(seed))
            for turn in range(max(len(motion.captions) for motion in motions)):
                self._take_turn(processor, motions, task, turn, num_context_codes, streamer, kwargs)
        if streamer is not None and motions[0].end_codes:
            streamer.put(torch.tensor(motions[0].end_codes) + self.config.first_motion_token_id)

    def _take_turn(self, processor, motions, task, turn, num_context_codes, streamer, kwargs) -> None:
        """One caption of each motion that has so many, in as many windows as its length takes."""
        acting = [motion for motion in motions if turn < len(motion.captions)]
        longest = self._longest_motion(processor, [self._example(motion, task, turn, 0, None) for motion in acting])
        for motion in acting:
            given = len(motion.codes)
            motion.context = given if turn == 0 else min(num_context_codes, given)
            asked = motion.num_codes[turn]
            motion.missing = None if asked is None else asked - (given if turn == 0 else 0)
        while acting:
            examples, budgets = [], []
            for motion in acting:
                fits = motion.context + (motion.missing or 1) <= longest
                shown = motion.context if fits else min(motion.context, longest // 2)
                room, missing = longest - shown, motion.missing
                budgets.append(room if missing is None else min(room, missing))
                stated = missing if missing is not None and missing <= room else None
                examples.append(self._example(motion, task, turn, shown, stated))
            is_exact = [motion.missing is not None for motion in acting]
            made = self._generate_codes(processor, examples, budgets, is_exact, streamer, kwargs)
            for motion, codes in zip(acting, made, strict=True):
                motion.codes += codes
                motion.context += len(codes)
                motion.missing = 0 if motion.missing is None else motion.missing - len(codes)
            acting = [motion for motion in acting if motion.missing]

    def _example(self, motion: _Motion, task: str, turn: int, shown: int, missing: int | None) -> MotionTaskExample:
        begun = motion.codes[len(motion.codes) - shown :]
        return MotionTaskExample(
            task,
            motion.captions[turn],
            [*begun, *motion.end_codes],
            num_given_start=len(begun),
            num_given_end=len(motion.end_codes),
            num_codes=None if missing is None else shown + missing + len(motion.end_codes),
        )

    def _generate_codes(self, processor, examples, budgets, is_exact, streamer, kwargs) -> list[list[int]]:
        """New codes of each prompt: exactly as many as its budget if positions suffice, or at most."""
        prepared = processor.prepare_examples(examples, with_answers=False)
        inputs = {name: torch.from_numpy(array).to(self.motion_tokenizer.device) for name, array in prepared.items()}
        width = inputs["input_ids"].shape[1]
        budgets = [min(budget, processor.tokenizer.model_max_length - width - 1) for budget in budgets]
        end_id, first = self.config.motion_end_token_id, self.config.first_motion_token_id
        length = MotionLengthLogitsProcessor(budgets, is_exact, width, end_id)
        options = {
            **kwargs,
            "max_new_tokens": max(budgets) + 1,
            "eos_token_id": end_id,
            "logits_processor": LogitsProcessorList([*(kwargs.get("logits_processor") or []), length]),
            "streamer": None if streamer is None else _Continued(streamer),
            "num_return_sequences": 1,  # whatever the model's own configuration says
            "return_dict_in_generate": False,
        }
        generated = self.generate(**inputs, **options)  # type: ignore[attr-defined]
        rows = [[token - first for token in ids] for ids in generated[:, width:].tolist()]
        return [list(takewhile(lambda code: code >= 0, codes)) for codes in rows]

    def _longest_motion(self, processor: GeoMotionGPTProcessor, examples: Sequence[MotionTaskExample]) -> int:
        """Codes that a motion may have in one prompt, beside the words."""
        words = processor.prepare_examples(examples, with_answers=False)["input_ids"].shape[1]
        positions = processor.tokenizer.model_max_length
        room = positions - words - _STATED_LENGTH - 1
        if room < 2:
            raise ValueError(
                f"the prompt takes {words} of the {positions} positions of the language model and leaves no room for "
                "a motion: shorten the caption."
            )
        return min(room, self.config.max_motion_codes or room)

    def _motions_to_make(self, processor, text, motion_values, motion_mask, task, num_frames) -> list[_Motion]:
        captions, num_frames = _sequences(text), as_numbers(num_frames)
        factor = self.motion_tokenizer.config.downsampling_factor
        _check_task_inputs(task, captions, motion_values, motion_mask, num_frames)
        if task == "motion-in-between":
            return self._gaps_to_fill(motion_values, motion_mask)
        given = None if motion_values is None else self._given_codes(motion_values, motion_mask)
        lengths = list(num_frames) if isinstance(num_frames, Sequence) else None
        sizes = [len(rows) for rows in (captions, given, lengths) if rows is not None]
        if len(set(sizes)) > 1:
            raise ValueError(
                f"{' and '.join(map(str, sizes))} captions, motions or lengths: give as many of each, or one length."
            )
        motions = []
        for row in range(sizes[0] if sizes else 1):
            says = captions[row] if captions is not None else [None]
            frames = num_frames if lengths is None else lengths[row]
            begun = [] if given is None else given[row]
            num_codes, total = share_tokens(row, frames, len(says), factor)
            if num_codes[0] is not None and num_codes[0] <= len(begun):
                raise ValueError(
                    f"motion {row}: {frames} frames are asked for, but {len(begun) * factor} are given already."
                )
            motions.append(_Motion(list(says), num_codes, list(begun), num_frames=total))
        return motions

    def _given_codes(self, motion_values: Tensor, motion_mask: Tensor | None) -> list[list[int]]:
        codes, _, _ = self.motion_tokenizer.encode(motion_values, motion_mask).to_tuple()
        rows = [[code for code in row if code >= 0] for row in codes.tolist()]
        for row, given in enumerate(rows):
            if not given:
                raise ValueError(f"row {row}: what is given is shorter than one code; leave it out or give more.")
        return rows

    def _gaps_to_fill(self, motion_values: Tensor, motion_mask: Tensor) -> list[_Motion]:
        """The start is encoded from its first frame on, the end up to its last, and the gap takes whole codes too."""
        factor = self.motion_tokenizer.config.downsampling_factor
        motions = []
        for row, (values, mask) in enumerate(zip(motion_values, motion_mask.bool(), strict=True)):
            first, second, stop = find_gap(row, mask)
            if min(first, stop - second) < factor:
                raise ValueError(f"row {row}: a given part is shorter than the {factor} frames of one code.")
            second += (stop - second) % factor  # whole codes, the last frame included
            parts = values[None, :first], values[None, second:stop]
            start, end = (cast(Tensor, self.motion_tokenizer.encode(part).motion_codes)[0].tolist() for part in parts)
            gap = second - len(start) * factor
            if gap < factor:
                raise ValueError(f"row {row}: the gap is shorter than the {factor} frames of one code.")
            motions.append(_Motion([None], [len(start) + round(gap / factor)], start, end))
        return motions

    def _decode_motions(self, motions: Sequence[_Motion]) -> MotionGenerationOutput:
        rows = [torch.tensor([*motion.codes, *motion.end_codes]) for motion in motions]
        codes = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
        codes = codes.to(self.motion_tokenizer.device)
        values, mask = self.motion_tokenizer.decode(codes).to_tuple()
        for row, motion in enumerate(motions):
            if motion.num_frames is not None:
                mask[row, motion.num_frames :] = False
        frames = int(mask.sum(-1).max())
        values = values.masked_fill(~mask.unsqueeze(-1), 0)
        return MotionGenerationOutput(
            motion_values=values[:, :frames], motion_mask=mask[:, :frames], motion_codes=codes
        )

    def _load_processor(self) -> GeoMotionGPTProcessor:
        if self._processor is None:
            self._processor = self.load_own_processor(GeoMotionGPTProcessor)  # type: ignore[attr-defined]
        return self._processor


def _sequences(text: str | Sequence[str] | Sequence[Sequence[str]] | None) -> list[list[str]] | None:
    """Captions of each motion, one after another."""
    if text is None:
        return None
    if isinstance(text, str):
        return [[text]]
    return [[item] if isinstance(item, str) else list(item) for item in text]


def _check_task_inputs(task: str, captions, motion_values, motion_mask, num_frames) -> None:
    answer = get_task(task).answer
    if answer != "motion":
        raise ValueError(f"task {task!r} answers with {answer}: use the processor and `generate`.")
    if task == "text-to-motion" and not (captions and all(captions)):
        raise ValueError("text-to-motion is about captions: give `text`.")
    if any(not caption.strip() for group in captions or [] for caption in group):
        raise ValueError("a caption is empty: say what the motion is to show, or make one with task='unconditional'.")
    if task != "text-to-motion" and captions is not None:
        raise ValueError(f"{task!r} has no use for `text`; text-to-motion also takes the motion it begins with.")
    if task in ("motion-prediction", "motion-in-between") and motion_values is None:
        raise ValueError(f"{task!r} goes on from a motion: give `motion_values`.")
    if task == "motion-in-between" and motion_mask is None:
        raise ValueError("motion-in-between: give `motion_mask`, False in the gap to be filled.")
    check_mask(motion_values, motion_mask)
    if task == "motion-in-between" and num_frames is not None:
        raise ValueError("motion-in-between: the gap in `motion_mask` says how long the motion is, not `num_frames`.")
    if task == "unconditional" and motion_values is not None:
        raise ValueError("'unconditional' takes no motion; use 'motion-prediction'.")
