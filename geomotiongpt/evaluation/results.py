"""The one result schema of quickstart, evaluation, benchmarks and studies."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

SCHEMA_VERSION = 1


def make_result(
    *, command: str, model: dict[str, Any], data: dict[str, Any], protocol: dict[str, Any], metrics: dict[str, Any]
) -> dict[str, Any]:
    """A result in the common schema.

    Args:
        command: that makes it again.
        model: what was measured.
        data: on what.
        protocol: how.
        metrics: name -> value, or {"mean", "ci95", "n"}.
    """
    packages = ("torch", "transformers", "datasets", "accelerate", "numpy")
    environment = {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
    }
    return {
        "schema": SCHEMA_VERSION,
        "command": command,
        "model": model,
        "data": data,
        "protocol": protocol,
        "metrics": metrics,
        "environment": environment,
    }


def save_json(value: Any, path: str | Path) -> Path:
    """Writes JSON aside and renames it, so that the file is whole or absent.

    Args:
        value: anything JSON can hold.
        path: of the file; its folder is made.

    Raises:
        ValueError: for NaN or infinity, which JSON does not have.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return path
