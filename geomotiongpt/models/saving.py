"""What a saved motion-language model holds beside its weights: parts of it alone, and where its code is."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from .pipeline_motion_to_text import MotionToTextPipeline
from .pipeline_text_to_motion import TextToMotionPipeline

_PIPELINES = {"motion-to-text": MotionToTextPipeline, "text-to-motion": TextToMotionPipeline}
_HUB_OPTIONS = ("repo_id", "token", "private", "commit_message", "revision", "create_pr")


def save_with_parts(
    model: PreTrainedModel,
    save: Callable[..., None],
    save_directory: str | Path,
    parts: Mapping[str, PreTrainedModel],
    push_to_hub: bool,
    options: dict[str, Any],
) -> None:
    """Saves a model, and parts of it alone; `config.json` says which class `AutoModel` loads and names the pipelines.

    Args:
        model: the model.
        save: its `save_pretrained` of the library.
        save_directory: folder to write.
        parts: folder in it -> part.
        push_to_hub: whether to upload as well.
        options: for `save`; with `push_to_hub` those of the upload too.
    """
    hub_options = {name: options.pop(name) for name in _HUB_OPTIONS if push_to_hub and name in options}
    auto_map = getattr(model.config, "auto_map", None) or {}
    model.config.auto_map = {**auto_map, "AutoModel": _file_and_name(type(model))}
    model.config.custom_pipelines = {
        task: {"impl": _file_and_name(pipeline), "pt": ["AutoModelForCausalLM"], "type": "multimodal"}
        for task, pipeline in _PIPELINES.items()
    }
    try:
        if options.get("is_main_process", True):
            for name, part in parts.items():
                _let_code_travel(model, part)
                part.save_pretrained(Path(save_directory) / name, **_of_part(model, part, options))
        save(save_directory, **options)
    finally:
        del model.config.custom_pipelines
    if push_to_hub:
        # The base class would upload what it has written itself, without the folders of the parts.
        model.push_to_hub(hub_options.pop("repo_id", Path(save_directory).name), **hub_options)


def _let_code_travel(model: PreTrainedModel, part: PreTrainedModel) -> None:
    """Of classes that came as remote code only the model's own say so by themselves, not those of its parts."""
    if getattr(model, "_auto_class", None) is None:
        return
    for public, auto_class in ((type(part), "AutoModel"), (type(part.config), "AutoConfig")):
        is_of_the_same = public.__module__.rpartition(".")[0] == type(model).__module__.rpartition(".")[0]
        if is_of_the_same and getattr(public, "_auto_class", None) is None:
            public.register_for_auto_class(auto_class)


def _of_part(model: PreTrainedModel, part: PreTrainedModel, options: Mapping[str, Any]) -> dict[str, Any]:
    """Of the options of `save_pretrained`, what holds for a part: its share of given weights, and their variant."""
    shared = {name: options[name] for name in ("variant",) if name in options}
    weights = options.get("state_dict")
    if weights is None:
        return shared
    (prefix,) = (f"{name}." for name, module in model.named_modules() if module is part)
    own = {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
    return {**shared, "state_dict": own}


def _file_and_name(public: type) -> str:
    """How `config.json` names a class of the remote code."""
    return f"{public.__module__.rsplit('.', 1)[-1]}.{public.__name__}"
