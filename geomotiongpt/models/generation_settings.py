"""What a call of `generate` goes by: its options, the configuration it is given, and the model's own."""

import copy
from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig

from .task_prompts import LONGEST_TEXT


def merge_settings(own: GenerationConfig, options: Mapping[str, Any]) -> tuple[GenerationConfig, dict[str, Any]]:
    """As transformers merges them: an option goes first, then `generation_config`, then the model's own.

    Whoever says `max_length` and not `max_new_tokens` does not mean the model's own `max_new_tokens`.

    Args:
        own: of the model; left as it is.
        options: of `generate`.

    Returns:
        a new configuration, and the options that are none of it.
    """
    options = dict(options)
    given = options.pop("generation_config", None)
    settings = GenerationConfig() if given is None else copy.deepcopy(given)
    said = [options.get(name, getattr(settings, name)) for name in ("max_new_tokens", "max_length")]
    settings.update(**own.to_dict(), defaults_only=True, allow_custom_entries=True)
    rest = settings.update(**options)
    if said[0] is None and said[1] is not None:
        settings.max_new_tokens = None
    return settings, rest


def bound_answer(settings: GenerationConfig, width: int, positions: int) -> None:
    """Settles how long an answer may be: `max_new_tokens`, or the positions that are left, up to `LONGEST_TEXT`.

    Args:
        settings: changed in place.
        width: tokens of the prompt.
        positions: of the language model.

    Raises:
        ValueError: if prompt and answer may be more than the positions, or `max_length` is not more than the prompt.
    """
    longest, new_tokens = settings.max_length, settings.max_new_tokens
    if new_tokens is None and longest is not None:
        if longest <= width:
            raise ValueError(f"max_length is {longest}, but the prompt alone takes {width}: give max_new_tokens.")
        new_tokens = longest - width
    elif new_tokens is None:
        new_tokens = max(1, min(positions - width, LONGEST_TEXT))
    if width + new_tokens > positions:
        raise ValueError(
            f"a prompt of {width} tokens and its answer take up to {width + new_tokens} of the {positions} positions "
            "of the language model: cut the motion or ask for fewer tokens."
        )
    settings.max_new_tokens, settings.max_length = new_tokens, None
