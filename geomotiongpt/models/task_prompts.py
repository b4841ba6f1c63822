"""What a motion-language model is asked: the tasks, and several wordings of the prompt of each.

The only place where prompts are written. `{motion}` stands for `<motion>` codes `</motion>`, `{end}` for the codes
that are given of the end between the same markers, `{text}` for a caption and `{duration}` for a length in words. A
prompt whose answer is a motion is followed by `<motion>` and the codes that are given of the start.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

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


def get_task(name: str) -> MotionTask:
    """A task by its name.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; known tasks: {', '.join(TASKS)}.")
    return TASKS[name]


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


def state_any_duration(tasks: Sequence[str]) -> bool:
    """Whether prompts or answers of some tasks may state a duration."""
    return any(get_task(name).timed_wordings or get_task(name).answer == "duration" for name in tasks)


def split_prompt(prompt: str) -> Iterator[tuple[str, str]]:
    """Pieces of a prompt in their order: ("words", text) or ("field", name)."""
    for index, piece in enumerate(_FIELD.split(prompt)):
        if piece:
            yield ("field" if index % 2 else "words"), piece


def prompt_words(tasks: Sequence[str], num_wordings: int | None = None) -> list[str]:
    """The words of the prompts of some tasks, without what fills their fields, for whoever trains a text tokenizer.

    Args:
        tasks: their names.
        num_wordings: how many wordings of each are used; all by default.
    """
    prompts = []
    for name in tasks:
        task = get_task(name)
        prompts += [*task.wordings[:num_wordings], *task.timed_wordings[:num_wordings]]
    words = [piece for prompt in prompts for kind, piece in split_prompt(prompt) if kind == "words"]
    return [*words, " " + state_duration(1).split()[1]] if state_any_duration(tasks) else words
