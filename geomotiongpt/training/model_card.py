"""Fills the model card template, the README of every pushed model."""

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from transformers import PreTrainedModel

from ..evaluation.results import eval_results, format_score, save_json
from ..resources import resource

_GENERATION = """
make = pipeline("text-to-motion", model="<this repository>", trust_remote_code=True)
make("a person walks forward.", duration=4)  # features, joints and the number of frames"""


def write_model_card(
    folder: str | Path,
    model: PreTrainedModel,
    *,
    name: str,
    data_name: str,
    result: Mapping[str, Any],
    base_model: str | None = None,
    data_licence: str = "see the data set",
) -> Path:
    """Writes `README.md` (with a model-index) and `metrics.json` into a model's folder.

    Args:
        folder: where the model was saved.
        model: the motion-language model in it.
        name: of the model.
        data_name: of the data set it was trained on.
        result: in the common schema; its metrics become the model-index.
        base_model: name of the pretrained language model, if any.
        data_licence: licence of the data.

    Returns:
        path of the card.
    """
    folder, config = Path(folder), model.config
    tasks = config.trained_tasks or ["motion-to-text"]
    directions = [task for task in ("motion-to-text", "text-to-motion") if task in tasks]
    card_data = ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag=None,
        tags=[*directions, "human-motion", "geomotiongpt"],
        base_model=base_model,
        model_name=name,
        eval_results=eval_results(result, data_name),
    )
    motion = config.motion_tokenizer_config
    template = string.Template(resource("model_card.md").read_text(encoding="utf-8"))
    text = template.substitute(
        metadata=card_data.to_yaml(),
        name=name,
        data_name=data_name,
        data_licence=data_licence,
        base_model=base_model or "none: random weights",
        architecture=type(model).__name__,
        tasks=", ".join(tasks),
        projection=config.projection,
        geometric_constraint=config.geometric_constraint,
        generation=_GENERATION if "text-to-motion" in tasks else "",
        num_codes=motion.num_codes,
        code_dim=motion.code_dim,
        embedding_dim=config.hidden_size,
        num_layers=config.num_hidden_layers,
        frames_per_code=motion.downsampling_factor,
        command=result["command"],
        results="\n".join(f"| {key} | {format_score(value)} |" for key, value in result["metrics"].items()),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    save_json(result, folder / "metrics.json")
    return folder / "README.md"
