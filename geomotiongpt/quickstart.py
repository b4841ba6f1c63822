"""`geomotiongpt quickstart`: data, both training stages, captions of unseen motions and a report, on any machine."""

import gc
import json
import logging
import os
import time
from pathlib import Path

import numpy as np
import torch

from .data.loader import load_motion_dataset
from .data.synthetic import make_synthetic_dataset
from .data.training_sets import normalised_clips
from .evaluation.attributes import EmbeddedAttributes, attribute_accuracy
from .evaluation.reconstruction import encode_clips, evaluate_reconstruction
from .evaluation.results import make_result, save_json
from .models.geometry import codebook_geometry, gram_matrix
from .models.modeling_geomotiongpt import GeoMotionGPTForCausalLM
from .models.motion_representation import features_to_joints
from .models.processing_geomotiongpt import GeoMotionGPTProcessor
from .resources import resource
from .training.language_model import caption_codes, train_language_model
from .training.model_card import write_model_card
from .training.motion_tokenizer import train_motion_tokenizer
from .visualization.animation import animate_motion
from .visualization.plots import plot_code_usage, plot_gram_matrix

logger = logging.getLogger(__name__)

RECIPES = "hub_configs/geomotiongpt-tiny"
NUM_MOTIONS = 6000
TABLE_ROWS = 8


def quickstart(output: str | Path = "quickstart", *, num_motions: int | None = None, seed: int = 0) -> Path:
    """Makes the embedded data, trains both stages on them and captions motions the model has never seen.

    Args:
        output: folder to write: `data/`, `motion_tokenizer/`, `model/` (what `from_pretrained` opens) and `report/`.
            Data of the same number and seed that are already there are used again.
        num_motions: motions to make, without mirror images.
        seed: of the data and of both training runs.

    Returns:
        the model's folder.

    Raises:
        ValueError: if other data are there.
    """
    started = time.perf_counter()
    output = Path(output)
    data, tokenizer_dir, model_dir = output / "data", output / "motion_tokenizer", output / "model"
    num_motions = NUM_MOTIONS if num_motions is None else num_motions
    _say(f"1/4 making {num_motions} motions in {data}")
    _make_data(data, num_motions, seed)
    _say(f"2/4 training the motion tokenizer in {tokenizer_dir}")
    overrides = [_override("data.path", data), f"training.seed={seed}"]
    train_motion_tokenizer(
        resource(f"{RECIPES}/motion_tokenizer.yaml"), [*overrides, _override("training.output_dir", tokenizer_dir)]
    )
    gc.collect()  # trainers hold themselves, and with them the motions
    _say(f"3/4 training the language model in {model_dir}")
    train_language_model(
        resource(f"{RECIPES}/language_model.yaml"),
        [
            *overrides,
            _override("training.output_dir", model_dir),
            _override("model.motion_tokenizer", tokenizer_dir),
        ],
    )
    _say("4/4 captioning motions that training has not seen")
    result = _report(output, data, model_dir, num_motions, seed)
    minutes, seconds = divmod(round(time.perf_counter() - started), 60)
    metrics = result["metrics"]
    unseen = (data / "test.txt").read_text(encoding="utf-8").split()[0]
    _say(
        f"\nDone in {minutes} min {seconds} s. Of {metrics['action']['n']} unseen motions, "
        f"{_percent(metrics['action'])} have the right actions and {_percent(metrics['side'])} the right side.\n"
        f"  the model      {model_dir}   (AutoModel.from_pretrained opens it)\n"
        f"  the report     {output / 'report'}\n"
        f"  caption more   geomotiongpt caption {model_dir} {data}/new_joint_vecs/{unseen}.npy\n"
        "  train for real see hub_configs/ and the README: the same commands take a HumanML3D folder"
    )
    return model_dir


def _make_data(folder: Path, num_motions: int, seed: int) -> None:
    """Makes the embedded data, or leaves those that are there if they are these."""
    note, wanted = folder / "quickstart.json", {"num_motions": num_motions, "seed": seed}
    if (folder / "Mean.npy").is_file():
        found = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else "of unknown origin"
        if found != wanted:
            raise ValueError(f"{folder}: the data there are {found}, not {wanted}: remove them or give --output.")
        return
    make_synthetic_dataset(folder, num_motions, seed, num_proc=os.cpu_count())
    save_json(wanted, note)


def _override(option: str, path: Path) -> str:
    """Of a recipe; quoted, for a name may look like more of YAML than a word."""
    return f"{option}={json.dumps(str(path), ensure_ascii=False)}"


def _report(output: Path, data: Path, model_dir: Path, num_motions: int, seed: int) -> dict:
    """Captions the test split, prints a table, and writes `report/` and the model card."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = GeoMotionGPTForCausalLM.from_pretrained(model_dir).to(device).eval()
    processor = GeoMotionGPTProcessor.from_pretrained(model_dir)
    extractor, report = processor.feature_extractor, output / "report"
    test = load_motion_dataset(data, "test", mirrored=False)
    clips = normalised_clips(test, extractor)
    reconstruction, counts = evaluate_reconstruction(model.motion_tokenizer, extractor, clips)
    codes = encode_clips(model.motion_tokenizer, clips)
    captions, references = caption_codes(model, processor, codes), test["captions"]
    accuracy = attribute_accuracy(captions, references, EmbeddedAttributes())
    geometry = {f"language_model_{key}": value for key, value in _geometry(model).items()}
    result = make_result(
        command=f"geomotiongpt quickstart --num-motions {num_motions} --seed {seed}",
        model={"recipes": RECIPES, "parameters": model.num_parameters()},
        data={"name": "embedded synthetic motions", "split": "test, without mirror images", "motions": len(test)},
        protocol={"decoding": "greedy", "attributes": "read by the oracle of the embedded data", "seed": seed},
        metrics={**accuracy, **reconstruction, **geometry},
    )
    write_model_card(
        model_dir,
        model,
        name="geomotiongpt-tiny",
        data_name="geomotiongpt embedded synthetic motions",
        licence="apache-2.0",
        data_licence="made by the package, Apache-2.0",
        result=result,
    )
    (report / "metrics.json").parent.mkdir(parents=True, exist_ok=True)
    (report / "metrics.json").write_bytes((model_dir / "metrics.json").read_bytes())
    rows = _table(test["motion_id"], captions, references)
    (report / "captions.md").write_text(rows, encoding="utf-8")
    _say("\n" + "\n".join(rows.splitlines()[: TABLE_ROWS + 2]))
    plot_gram_matrix(gram_matrix(model.motion_geometry().detach()), report / "gram_matrix.png")
    assert counts is not None  # a motion tokenizer has codes
    plot_code_usage(counts, report / "code_usage.png")
    for stage in ("motion_tokenizer", "model"):
        history = output / stage / "plots" / "history.png"
        (report / f"{stage}_history.png").write_bytes(history.read_bytes())
    longest = int(np.argmax([len(clip) for clip in clips]))
    joints = features_to_joints(np.asarray(test[longest]["motion"], np.float64))
    animate_motion(joints, report / "motion.gif", caption=captions[longest])
    return result


def _geometry(model: GeoMotionGPTForCausalLM) -> dict[str, float]:
    return codebook_geometry(model.motion_geometry())


def _table(motion_ids: list[str], captions: list[str], references: list[list[str]]) -> str:
    lines = ["| motion | caption | a reference |", "|---|---|---|"]
    for motion_id, caption, group in zip(motion_ids, captions, references, strict=True):
        lines.append(f"| {motion_id} | {caption} | {group[0]} |")
    return "\n".join(lines) + "\n"


def _percent(score: dict) -> str:
    return "none" if score["mean"] is None else f"{score['mean']:.1%}"


def _say(text: str) -> None:
    print(text, flush=True)
