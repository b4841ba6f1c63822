"""The one result schema of quickstart, evaluation, benchmarks and studies."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import EvalResult

SCHEMA_VERSION = 1
_TASK_NAMES = {
    "motion-to-text": "Motion captioning",
    "text-to-motion": "Text to motion",
    "motion-prediction": "Motion prediction",
    "motion-in-between": "Motion in-betweening",
    "motion-duration": "Motion duration",
    "unconditional": "Unconditional motion",
    "text": "Text",
}
_OF_EVALUATOR = ("mm_dist", "fid", "fid_of_halves", "fid_over_floor", "diversity", "multimodality")


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
    from .. import __version__

    packages = ("torch", "transformers", "datasets", "accelerate", "numpy")
    environment = {
        "geomotiongpt": __version__,
        "git_commit": git_commit(),
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


def git_commit() -> str | None:
    """The commit of the source checkout that runs, "-modified" behind it if files differ; None for an installation."""
    package = Path(__file__).parents[1]
    if not (package.parent / ".git").exists():
        return None
    try:
        done = subprocess.run(
            [
                "git",
                "-C",
                str(package.parent),
                "describe",
                "--always",
                "--abbrev=40",
                "--dirty=-modified",
                "--exclude=*",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
    except (FileNotFoundError, subprocess.CalledProcessError):  # no git, or a checkout it does not trust
        return None
    return done.stdout.strip()


def format_score(value: Any) -> str:
    """One score: at least four digits, with its interval and number where it has them."""
    if value is None:
        return "-"
    if not isinstance(value, Mapping):
        return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1000 else f"{value:.0f}"
    if value["mean"] is None:
        return "-"
    if not value["ci95"]:  # the same in every replication
        return f"{value['mean']:.4g}"
    return f"{value['mean']:.4g} ± {value['ci95']:.2g} (n = {value['n']})"


def name_data(data: str | Path) -> str:
    """What a data set is called: by the name of its folder, or on the Hub."""
    return Path(data).resolve().name if Path(data).exists() else str(data)


def eval_results(result: Mapping[str, Any], data_name: str) -> list[EvalResult]:
    """Entries of a model card's model-index, one for each metric of the model that has a value.

    Those of ground truth and baselines, and the floor of FID, are no metrics of the model. `metric_config` says by
    which convention or evaluator a metric was taken.

    Args:
        result: in the common schema.
        data_name: of the data set measured on.
    """
    protocol = result["protocol"]
    task = protocol.get("task", "motion-to-text")
    values = {key: value["mean"] if isinstance(value, Mapping) else value for key, value in result["metrics"].items()}
    return [
        EvalResult(
            task_type=task,
            task_name=_TASK_NAMES[task],
            dataset_type="motion",
            dataset_name=data_name,
            dataset_split=protocol.get("population", {}).get("split"),
            metric_type=key,
            metric_value=value,
            metric_config=_metric_config(key, protocol),
        )
        for key, value in values.items()
        if value is not None and not key.startswith(("ground_truth_", "baseline_")) and key != "fid_floor"
    ]


def _metric_config(metric: str, protocol: Mapping[str, Any]) -> str | None:
    if metric.startswith(("bleu_", "rouge_", "cider")) and "convention" in protocol:
        return f"{protocol['convention']}, references {protocol['reference_policy']}"
    if metric.startswith("bert_score_") and "bert_score" in protocol:
        bert = protocol["bert_score"]
        return f"{bert['model']}, layer {bert['layer']}, references {protocol['reference_policy']}"
    if "evaluator_sha256" in protocol and ("_r_at_" in metric or metric.endswith(_OF_EVALUATOR)):
        return f"evaluator {protocol['evaluator_sha256'][:12]}"
    return None


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
