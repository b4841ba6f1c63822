"""What a motion-language model is asked: the tasks, and several wordings of the prompt of each.

The only place where prompts are written. `{motion}` stands for a motion between `<motion>` and `</motion>`, `{start}`
and `{end}` for what is given of one, between the same markers, `{text}` for a caption and `{duration}` for a length in
words. A prompt whose answer is a motion is followed by `<motion>`; where motions are codes, the codes that are given
of the start come next, and the model goes on. Where a motion is one latent (`LATENT_TASKS`), the start is a motion of
its own in the prompt.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

LONGEST_TEXT = 64  # tokens of an answer where nobody says how many
_FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class MotionTask:
    """A task.

    Args:
        wordings: of the prompt; the first is the one that generation uses, training draws from all.
        timed_wordings: of a prompt that also states how long the whole motion is to be.
        answer: "text", "motion" or "duration".
    """

    wordings: tuple[str, ...]
    timed_wordings: tuple[str, ...] = ()
    answer: str = "motion"


TASKS = {
    "motion-to-text": MotionTask(
        (
            "Describe the motion:{motion}\nDescription:",
            "What happens in this motion?{motion}\nDescription:",
            "Say what the person does here:{motion}\nDescription:",
            "Write a caption for{motion}\nDescription:",
        ),
        answer="text",
    ),
    "text-to-motion": MotionTask(
        (
            "Show the motion: {text}\nMotion:",
            "Move like this: {text}\nMotion:",
            "Make a motion for the caption: {text}\nMotion:",
            "Act it out: {text}\nMotion:",
        ),
        (
            "Show the motion for {duration}: {text}\nMotion:",
            "Move for {duration} like this: {text}\nMotion:",
            "Make a motion of {duration} for the caption: {text}\nMotion:",
            "Act it out for {duration}: {text}\nMotion:",
        ),
    ),
    "motion-prediction": MotionTask(
        (
            "Go on with the motion.\nMotion:",
            "What comes next in this motion?\nMotion:",
            "Continue what has begun.\nMotion:",
        ),
        (
            "Go on with the motion to {duration} in all.\nMotion:",
            "What comes next, {duration} in all?\nMotion:",
            "Continue what has begun to {duration} in all.\nMotion:",
        ),
    ),
    "motion-in-between": MotionTask(
        (
            "Fill in the motion up to its end:{end}\nMotion:",
            "What leads to this end?{end}\nMotion:",
            "Close the gap before{end}\nMotion:",
        ),
        (
            "Fill in the motion of {duration} up to its end:{end}\nMotion:",
            "What leads to this end, {duration} in all?{end}\nMotion:",
            "Close the gap, {duration} in all, before{end}\nMotion:",
        ),
    ),
    "unconditional": MotionTask(
        (
            "Show any motion.\nMotion:",
            "Move as you like.\nMotion:",
            "Make up a motion.\nMotion:",
        ),
        (
            "Show any motion for {duration}.\nMotion:",
            "Move as you like for {duration}.\nMotion:",
            "Make up a motion of {duration}.\nMotion:",
        ),
    ),
    "motion-duration": MotionTask(
        (
            "How long is the motion?{motion}\nDuration:",
            "How many seconds does this motion last?{motion}\nDuration:",
            "Say how long this takes:{motion}\nDuration:",
        ),
        answer="duration",
    ),
}


LATENT_TASKS = {
    **TASKS,
    "motion-prediction": MotionTask(
        (
            "Go on with the motion:{start}\nMotion:",
            "What comes next in this motion?{start}\nMotion:",
            "Continue what has begun:{start}\nMotion:",
        ),
        (
            "Go on with the motion for {duration}:{start}\nMotion:",
            "What comes next, for {duration}?{start}\nMotion:",
            "Continue for {duration} what has begun:{start}\nMotion:",
        ),
    ),
    "motion-in-between": MotionTask(
        (
            "Fill in the motion between start and end:{start}{end}\nMotion:",
            "What leads from this start to this end?{start}{end}\nMotion:",
            "Close the gap between these:{start}{end}\nMotion:",
        ),
        (
            "Fill in {duration} of motion between start and end:{start}{end}\nMotion:",
            "What leads in {duration} from this start to this end?{start}{end}\nMotion:",
            "Close the gap of {duration} between these:{start}{end}\nMotion:",
        ),
    ),
    # No task: the caption alone, as the base model was pretrained on text
    "text": MotionTask(("",), answer="text"),
}


@dataclass(frozen=True)
class LatentTaskExample:
    """One row of a batch where a motion is one latent: a task, and what it is about.

    Args:
        task: its name in `LATENT_TASKS`.
        text: the caption: of "text-to-motion" the question, of "motion-to-text" and "text" the answer.
        num_frames: of the motion that is to be made, to state in the prompt, or of "motion-duration" to be answered;
            None states none.
        wording: which wording of the prompt.
    """

    task: str
    text: str | None = None
    num_frames: int | None = None
    wording: int = 0

    @property
    def prompt(self) -> str:
        """The wording, with its fields."""
        task = get_task(self.task, LATENT_TASKS)
        wordings = task.timed_wordings if self.num_frames is not None and task.timed_wordings else task.wordings
        return wordings[self.wording % len(wordings)]


@dataclass(frozen=True)
class MotionTaskExample:
    """One row of a batch: a task, and what it is about.

    Args:
        task: its name.
        text: the caption: of "motion-to-text" the answer, of "text-to-motion" the question.
        motion_codes: of the motion (token ids of the placeholder are as good), given and to be answered alike.
        num_given_start: of a motion to be answered, how many of the codes are given at the start.
        num_given_end: the same at the end.
        num_codes: length to state in the prompt; None states none.
        wording: which wording of the prompt.
    """

    task: str
    text: str | None = None
    motion_codes: Sequence[int] = ()
    num_given_start: int = 0
    num_given_end: int = 0
    num_codes: int | None = None
    wording: int = 0

    @property
    def prompt(self) -> str:
        """The wording, with its fields."""
        task = TASKS[self.task]
        wordings = task.wordings if self.num_codes is None else task.timed_wordings
        return wordings[self.wording % len(wordings)]


def get_task(name: str, tasks: Mapping[str, MotionTask] = TASKS) -> MotionTask:
    """A task by its name.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in tasks:
        raise ValueError(f"unknown task {name!r}; known tasks: {', '.join(tasks)}.")
    return tasks[name]


def state_duration(seconds: float) -> str:
    """A duration as prompts and answers state it: to a tenth of a second."""
    return f"{seconds:.1f} seconds"


def read_duration(text: str) -> float | None:
    """Seconds that an answer states; None if it states none."""
    match = re.search(r"(\d+(?:\.\d+)?) *s", text)
    return float(match[1]) if match else None


def stated_numbers(seconds: Iterable[float]) -> list[str]:
    """The numbers by which prompts and answers state durations: "7.4"."""
    return list(dict.fromkeys(state_duration(length).split()[0] for length in seconds))


def state_any_duration(names: Sequence[str], tasks: Mapping[str, MotionTask] = TASKS) -> bool:
    """Whether prompts or answers of some tasks may state a duration."""
    asked = [get_task(name, tasks) for name in names]
    return any(task.timed_wordings or task.answer == "duration" for task in asked)


def split_prompt(prompt: str) -> Iterator[tuple[str, str]]:
    """Pieces of a prompt in their order: ("words", text) or ("field", name)."""
    for index, piece in enumerate(_FIELD.split(prompt)):
        if piece:
            yield ("field" if index % 2 else "words"), piece


def prompt_words(
    names: Sequence[str], num_wordings: int | None = None, tasks: Mapping[str, MotionTask] = TASKS
) -> list[str]:
    """The words of the prompts of some tasks, without what fills their fields, for whoever trains a text tokenizer.

    Args:
        names: of the tasks.
        num_wordings: how many wordings of each are used; all by default.
        tasks: all that there are.
    """
    prompts = []
    for name in names:
        task = get_task(name, tasks)
        prompts += [*task.wordings[:num_wordings], *task.timed_wordings[:num_wordings]]
    words = [piece for prompt in prompts for kind, piece in split_prompt(prompt) if kind == "words"]
    return [*words, " " + state_duration(1).split()[1]] if state_any_duration(names, tasks) else words
