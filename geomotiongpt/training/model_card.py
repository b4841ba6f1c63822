"""Fills the model card template, the README of every pushed model."""

import math
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from ..checkpoints import MotionLanguageModel, representation_of_width
from ..evaluation.results import eval_results, format_score, make_result, name_data, save_json
from ..models.modeling_llamo import LLaMoForCausalLM
from ..models.modeling_motiongpt3 import MotionGPT3ForCausalLM
from ..models.motion_skeletons import MotionRepresentation, get_motion_representation
from ..models.motion_vocabulary import MotionVocabularyMixin
from ..resources import resource

_GEOMETRY = """\
A motion-language model: human motion (features or joints of a skeleton over time) and words in one vocabulary. Made
after [GeoMotionGPT](https://arxiv.org/abs/2601.07632), in which motion tokens and the language model share one
geometry: the codebook of the motion tokenizer is kept orthonormal and becomes the language model's motion embeddings
through a frozen sparse isometric projection."""
_CITE = """\
@article{geomotiongpt2026,
  title   = {GeoMotionGPT: Geometry-Aligned Motion Understanding with Large Language Models},
  journal = {arXiv preprint arXiv:2601.07632},
  year    = {2026}
}"""
_MOTIONGPT3 = """\
A motion-language model: human motion (features or joints of a skeleton over time) as a second modality beside words.
Made after [MotionGPT3](https://arxiv.org/abs/2506.24086), in which a motion stays continuous: it is one latent of a
motion VAE, goes through a branch of its own in every layer of the language model, and is made by a denoising head."""
_CITE_3 = """\
@article{motiongpt3_2025,
  title   = {MotionGPT3: Human Motion as a Second Modality},
  journal = {arXiv preprint arXiv:2506.24086},
  year    = {2025}
}"""
_LLAMO = """\
A motion-language model: a pretrained language model with human motion (features or joints of a skeleton over time) as
a second modality. Made after [LLaMo](https://arxiv.org/abs/2602.12370): a motion is a sequence of continuous latents
of a causal codec, goes through a branch of its own in every layer, and is made one latent after another by a
flow-matching head, so that it can be streamed."""
_TEXT_BRANCH = """
Text goes through the weights of the base model alone: where training froze them, what it says about text is what the
base says."""
_CITE_L = """\
@article{llamo_2026,
  title   = {LLaMo: Scaling Pretrained Language Models with Continuous Autoregressive Motion Tokens},
  journal = {arXiv preprint arXiv:2602.12370},
  year    = {2026}
}"""
_CAPTIONING = """\
describe = pipeline("motion-to-text", model="<this repository>", trust_remote_code=True)
describe("motion.npy")  # features (frames, {features}) or joints (frames, {joints}, 3); a list gives a list"""
_GENERATION = """\
make = pipeline("text-to-motion", model="<this repository>", trust_remote_code=True)
make("a person walks forward.", duration=4)  # features, joints and the number of frames"""
_STREAMING = """
make([["a person walks forward.", "a person sits down."]], duration=4)  # one motion, 4 seconds of each
for values in make.model.stream_motion("a person walks forward.", num_frames={frames}):  # frames as they are made
    features = make.processor.feature_extractor.denormalise(values)"""


def write_training_card(
    folder: str | Path, model: MotionLanguageModel, log_history: Sequence[Mapping[str, Any]], data: str | Path
) -> Path:
    """A card with what training measured itself; `geomotiongpt evaluate --update-card` adds what counts.

    Args:
        folder: where the model was saved; the model is called as it is, or as the folder above `model`.
        model: the model in it.
        log_history: of the trainer; the last evaluation counts.
        data: folder of the data set it was trained on, or its name on the Hub.
    """
    losses: dict[str, float] = {}
    for row in log_history:  # where each task has a loss of its own, rows follow one another
        losses |= {name: value for name, value in row.items() if name.startswith("eval_") and name.endswith("loss")}
    losses = {name: value for name, value in losses.items() if math.isfinite(value)}  # JSON has no others
    result = make_result(
        command="geomotiongpt train",
        model={"parameters": model.num_parameters()},
        data={"name": name_data(data)},
        protocol={"task": (model.config.trained_tasks or ["motion-to-text"])[0]},
        metrics=losses,
    )
    path = Path(folder).resolve()
    name = path.parent.name if path.name == "model" else path.name
    return write_model_card(folder, model, name=name, data_name=name_data(data), result=result)


def _family(model: MotionLanguageModel) -> dict[str, str]:
    """What the card says of the kind of model."""
    if isinstance(model, MotionGPT3ForCausalLM):
        config = model.config
        vae, latents = config.vae, config.vae.num_latent_tokens
        rows = {
            "streams": config.streams,
            "denoising head": config.denoising_process.replace("_", " "),
            "guidance": f"{config.denoising_guidance_scale:g}",
            "motion latent": f"{latents} x {vae.latent_dim}, for a motion of up to {config.max_frames} frames",
            "last stage": config.trained_stage or "unknown",
        }
        return {"introduction": _MOTIONGPT3, "motion_folder": "motion_vae", "citation": _CITE_3, "facts": _rows(rows)}
    if isinstance(model, LLaMoForCausalLM):
        config, codec = model.config, model.config.codec
        rows = {
            "streams": config.streams,
            "guidance": f"{config.denoising_guidance_scale:g}",
            "motion latents": f"{codec.latent_dim} numbers for {codec.downsampling_factor} frames",
            "last stage": config.trained_stage or "unknown",
        }
        introduction = _LLAMO + (_TEXT_BRANCH if config.streams == "dual" else "")
        return {
            "introduction": introduction,
            "motion_folder": "motion_codec",
            "citation": _CITE_L,
            "facts": _rows(rows),
        }
    motion = model.config.motion_tokenizer_config
    rows = {
        "projection, geometric constraint": f"{model.config.projection}, {model.config.geometric_constraint}",
        "motion codes": f"{motion.num_codes} codes of {motion.code_dim} dimensions, {motion.downsampling_factor} "
        "frames each",
    }
    return {"introduction": _GEOMETRY, "motion_folder": "motion_tokenizer", "citation": _CITE, "facts": _rows(rows)}


def _usage(model: MotionLanguageModel, directions: Sequence[str], facts: MotionRepresentation) -> str:
    """Code that a reader can run."""
    generation = _GENERATION + (_STREAMING if isinstance(model, LLaMoForCausalLM) else "")
    code = "\n".join({"motion-to-text": _CAPTIONING, "text-to-motion": generation}[task] for task in directions)
    return code.format(features=facts.num_features, joints=facts.num_joints, frames=round(4 * facts.fps))


def _representation(model: MotionLanguageModel) -> MotionRepresentation:
    has_codes = isinstance(model, MotionVocabularyMixin)
    part: Any = model.motion_tokenizer if has_codes else model.motion_encoder
    return get_motion_representation(representation_of_width(part.config.num_features, Path("the model")))


def _rows(facts: Mapping[str, str]) -> str:
    return "\n".join(f"| {name} | {value} |" for name, value in facts.items())


def write_model_card(
    folder: str | Path,
    model: MotionLanguageModel,
    *,
    name: str,
    data_name: str,
    result: Mapping[str, Any],
    licence: str | None = None,
    data_licence: str = "see the data set",
) -> Path:
    """Writes `README.md` (with a model-index) and `metrics.json` into a model's folder.

    Args:
        folder: where the model was saved.
        model: the motion-language model in it.
        name: of the model.
        data_name: of the data set it was trained on.
        result: in the common schema; its metrics become the model-index.
        licence: of the weights, as the Hub calls it; left out by default: it depends on the base and on the data.
        data_licence: licence of the data.

    Returns:
        path of the card.
    """
    folder, config = Path(folder), model.config
    tasks, facts = config.trained_tasks or ["motion-to-text"], _representation(model)
    directions = [task for task in ("motion-to-text", "text-to-motion") if task in tasks]
    card_data = ModelCardData(
        license=licence,
        library_name="transformers",
        pipeline_tag=None,
        tags=[*directions, "human-motion", "geomotiongpt"],
        base_model=config.base_model,
        model_name=name,
        eval_results=eval_results(result, data_name),
    )
    _, _, body = resource("model_card.md").read_text(encoding="utf-8").partition("-->\n")
    template = string.Template(body)
    text = template.substitute(
        metadata=card_data.to_yaml(),
        name=name,
        data_name=data_name,
        data_licence=data_licence,
        base_model=config.base_model or "trained from random weights, or one that is not on the Hub",
        architecture=type(model).__name__,
        tasks=", ".join(tasks),
        usage=_usage(model, directions, facts),
        representation=f"{facts.name}, {facts.num_features} features at {facts.fps:g} frames a second",
        **_family(model),
        embedding_dim=config.hidden_size,
        num_layers=config.num_hidden_layers,
        command=result["command"],
        results="\n".join(f"| {key} | {format_score(value)} |" for key, value in result["metrics"].items()),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    save_json(result, folder / "metrics.json")
    return folder / "README.md"
