"""Training recipes: YAML files with one section for each thing that is configured."""

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from huggingface_hub.errors import StrictDataclassError
from transformers import GenerationConfig

from ..resources import resource

Section = TypeVar("Section")

_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")


class _RecipeLoader(yaml.SafeLoader):
    """YAML 1.2 scalars: 1e-4 is a number, and only true and false are truth values (`no` is a word)."""


def _construct_mapping(loader: _RecipeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    """A mapping in which no key comes twice: the first would be dropped without a word."""
    own = (key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge")  # what `<<` brings gives way to them
    keys = [loader.construct_object(key, deep=True) for key in own]
    for index, key in enumerate(keys):
        if key in keys[:index]:
            raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands here twice", node.start_mark)
    return loader.construct_mapping(node, deep=True)


_RecipeLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)
_FLOAT = re.compile(r"[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.inf|\.nan)$")
_RecipeLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("bool", "float")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_RecipeLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(?:true|false)$", re.I), list("tTfF"))
_RecipeLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def load_recipe(path: str | Path, sections: Sequence[str], overrides: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Reads a recipe and applies overrides from the command line.

    Args:
        path: the YAML file; `hub_configs/...` is that of the package where the current folder has none.
        sections: the sections it may have; missing ones are empty.
        overrides: `section.key=value` strings, the value in YAML (`training.max_steps=100`).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not YAML, or a section or an override is not understood; the message names it.
    """
    path = Path(path)
    packaged = resource("hub_configs")
    if not path.is_file() and path.parts[:1] == (packaged.name,):
        path = packaged.parent / path
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such recipe; the ones that come with the package are in {packaged}.")
    try:
        recipe = yaml.load(path.read_text(encoding="utf-8"), _RecipeLoader) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} holds no sections; a recipe has: {', '.join(sections)}.")
    for name, section in recipe.items():
        if name not in sections:
            raise ValueError(f"{path}: unknown section {name!r}{_suggestion(name, sections)}.")
        if not isinstance(section, dict):
            raise ValueError(f"{path}: section {name!r} must hold `key: value` lines.")
    recipe = {name: dict(recipe.get(name, {})) for name in sections}
    for override in overrides:
        key, separator, value = override.partition("=")
        section_name, dot, option = key.partition(".")
        if not (separator and dot and option) or section_name not in sections:
            raise ValueError(
                f"cannot read {override!r}; write section.key=value, section one of {', '.join(sections)}."
            )
        try:
            recipe[section_name][option] = yaml.load(value, _RecipeLoader)
        except yaml.YAMLError as error:
            raise ValueError(f"override {override!r}: the value is not valid YAML: {error}") from error
    return recipe


def build_section(cls: type[Section], values: dict[str, Any], name: str) -> Section:
    """An instance of a configuration dataclass from a recipe's section.

    Raises:
        ValueError: for a key that the dataclass does not have (with the nearest one), or a value it refuses.
    """
    known = {field.name: field.type for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"section {name!r} has no option {key!r}{_suggestion(key, list(known))}.")
        if not _is_of_kind(value, known[key]):
            raise ValueError(f"section {name!r}: {key} is {value!r}; wanted {_kind_name(known[key])}.")
    try:
        return cls(**values)
    except (TypeError, StrictDataclassError) as error:
        raise ValueError(f"section {name!r}: {error}") from error


def set_generation(model: Any, values: Mapping[str, Any]) -> None:
    """Sets options of a model's generation configuration.

    Raises:
        ValueError: for an option that it does not have (with the nearest one), or options that do not go together and
            could not be saved after training.
    """
    known = list(GenerationConfig().to_dict())
    for name in values:
        if name not in known:
            raise ValueError(f"section 'generation' has no option {name!r}{_suggestion(name, known)}.")
    if values.get("do_sample") is False:  # how a base samples has then nothing to say, and may not be saved
        values = {**dict.fromkeys(_SAMPLING), **values}
    # A `Trainer` switches the cache off for good, in the configuration of a base that it trained too
    model.generation_config.update(**{"use_cache": True, **values})
    try:
        model.generation_config.validate(strict=True)
    except ValueError as error:
        raise ValueError(f"section 'generation': {' '.join(str(error).split())}") from None


def _is_of_kind(value: Any, kind: Any) -> bool:
    """Whether a value suits an annotation that is made of plain types; other annotations are not judged."""
    kinds = set(_parts(kind))
    if not kinds <= {bool, int, float, str, type(None)}:
        return True
    return type(value) in kinds or (type(value) is int and float in kinds)


def _kind_name(kind: Any) -> str:
    return " or ".join("null" if part is type(None) else part.__name__ for part in _parts(kind))


def _parts(kind: Any) -> tuple:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _suggestion(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(word), known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else f"; known: {', '.join(known)}"
