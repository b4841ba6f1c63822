"""Loading that refuses incomplete checkpoints: `from_pretrained` would fill missing weights with random ones."""

from typing import Any

_HUB_OPTIONS = ("revision", "token", "cache_dir", "subfolder", "local_files_only")


class StrictLoadingMixin:
    """Put before `PreTrainedModel`: `from_pretrained` raises unless every weight fits its place."""

    _hub_options: dict[str, Any] = {}  # by which it was loaded

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, output_loading_info: bool = False, **kwargs):
        """As in `PreTrainedModel`.

        Raises:
            ValueError: if the checkpoint lacks weights, has unknown ones, or has some of another shape; it names them.
        """
        kwargs["ignore_mismatched_sizes"] = True  # reported, and refused below with the rest
        model, info = super().from_pretrained(  # type: ignore[misc]
            pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
        )
        problems = [
            f"{name.replace('_keys', '')}: {', '.join(sorted(str(key) for key in info[name])[:5])}"
            + (f" and {len(info[name]) - 5} more" if len(info[name]) > 5 else "")
            for name in ("missing_keys", "unexpected_keys", "mismatched_keys")
            if info.get(name)
        ]
        if problems:
            raise ValueError(
                f"{pretrained_model_name_or_path} does not hold the weights of a {cls.__name__} "
                f"({'; '.join(problems)}). Is it a checkpoint of another model, or was it saved incompletely?"
            )
        model._hub_options = {name: kwargs[name] for name in _HUB_OPTIONS if kwargs.get(name) is not None}
        return (model, info) if output_loading_info else model

    def load_own_processor(self, processor_class: Any) -> Any:
        """The processor beside the weights, of the same revision; by its code there if the model runs such code.

        Raises:
            ValueError: if the model was not loaded.
        """
        name = self.config._name_or_path  # type: ignore[attr-defined]
        if not name:
            raise ValueError("the model was not loaded from a folder with a processor: give `processor=`.")
        is_remote = type(self).__module__.startswith("transformers_modules.")
        return processor_class.from_pretrained(name, trust_remote_code=is_remote, **self._hub_options)


def refuse_offloaded(model, base: str) -> None:
    """The parts of motion and the head are read past the hooks that would bring offloaded weights back.

    Args:
        model: as it was loaded.
        base: name of its part whose layers may be offloaded.

    Raises:
        ValueError: if another part has weights that are not in memory.
    """
    tensors = (*model.named_parameters(remove_duplicate=False), *model.named_buffers())  # a tied head is one of them
    gone = sorted({name.partition(".")[0] for name, tensor in tensors if tensor.is_meta} - {base})
    if gone:
        raise ValueError(
            f"device_map offloads {', '.join(gone)}; only layers of {base!r} can be. Load without device_map, or with "
            "one that keeps them in memory."
        )
