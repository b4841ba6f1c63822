"""A caption that means two things: does a denoising head make both, where a squared error makes neither?

    python examples/benchmarks/two_modes.py --judge JUDGE [--output two_modes.json]

From the embedded data come all motions of one action with one side, half of them left and half right (mirror images
of each other); their captions are replaced by one that names no side. The first stage of hub_configs/motiongpt3-tiny
is trained on them. A judge, a captioning model, then says which side it sees in motions made of that caption, and in
what the squared error's optimum is, whatever network is trained with it: the mean latent of the training motions.
"""

import argparse
import json
import logging
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from geomotiongpt import MotionGPT3ForCausalLM, MotionGPT3Processor, load_motion_dataset, train_language_model
from geomotiongpt.checkpoints import load_captioner
from geomotiongpt.data.training_sets import normalised_clips
from geomotiongpt.evaluation.attributes import EmbeddedAttributes, shown_attributes
from geomotiongpt.evaluation.reconstruction import encode_latents
from geomotiongpt.evaluation.results import make_result, save_json

RECIPE = Path(__file__).parents[2] / "hub_configs" / "motiongpt3-tiny" / "text_to_motion.yaml"
CAPTIONS = {"kick": "someone kicks.", "wave": "someone waves.", "punch": "someone punches."}


def select(source: Path, output: Path) -> None:
    """The motions of one action and side, captioned by the action alone; split lists keep their splits."""
    if output.is_dir():
        return
    reader = EmbeddedAttributes()
    for name in ("new_joint_vecs", "texts"):
        (output / name).mkdir(parents=True)
    for statistic in ("Mean.npy", "Std.npy"):
        shutil.copy(source / statistic, output)
    for split in ("train", "val", "test"):
        dataset = load_motion_dataset(source, split)
        shown = shown_attributes(dataset["captions"], reader)
        kept = []
        for motion_id, action, side in zip(dataset["motion_id"], shown["action"], shown["side"], strict=True):
            if action in CAPTIONS and side in ("left", "right"):
                shutil.copy(source / "new_joint_vecs" / f"{motion_id}.npy", output / "new_joint_vecs")
                (output / "texts" / f"{motion_id}.txt").write_text(f"{CAPTIONS[action]}##0.0#0.0\n")
                kept.append(motion_id)
        (output / f"{split}.txt").write_text("\n".join(kept) + "\n")


def sides_seen(judge, processor, extractor, motions: list[torch.Tensor], action: str) -> dict[str, float]:
    """Shares of the motions in which the judge sees the action on either side, and something else."""
    clips = [extractor.denormalise(motion) for motion in motions]
    inputs = processor(motion=clips).to(judge.device)
    said = processor.post_process_text(judge.generate(**inputs, do_sample=False), inputs["input_ids"].shape[1])
    reader, counts = EmbeddedAttributes(), Counter()
    for caption in said:
        read = reader.read(caption)
        counts[read["side"] if read["action"] == action and read["side"] in ("left", "right") else "other"] += 1
    return {name: counts[name] / len(said) for name in ("left", "right", "other")}


def main() -> None:
    """Selects, trains, samples, judges and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", required=True, help="folder of a captioning model")
    parser.add_argument("--data", type=Path, default=Path("quickstart/data"))
    parser.add_argument("--runs", type=Path, default=Path("runs/motiongpt3-tiny/two_modes"))
    parser.add_argument("--samples", type=int, default=200, help="of each caption (default: 200)")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("options", nargs="*", metavar="section.key=value", help="for the recipe")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder, model_folder = arguments.runs / "data", arguments.runs / "model"
    select(arguments.data, folder)
    if not (model_folder / "model.safetensors").is_file():
        options = [f"data.path={folder}", f"training.output_dir={model_folder}", "training.max_steps=1500"]
        train_language_model(RECIPE, [*options, *arguments.options])
    model = MotionGPT3ForCausalLM.from_pretrained(model_folder).eval()
    processor = MotionGPT3Processor.from_pretrained(model_folder)
    judge, judge_processor = load_captioner(arguments.judge)
    dataset = load_motion_dataset(folder, "train")
    clips = normalised_clips(dataset, processor.feature_extractor)
    means, _ = encode_latents(model.motion_vae, clips)
    metrics: dict = {}
    for action, caption in CAPTIONS.items():
        rows = [row for row, captions in enumerate(dataset["captions"]) if captions[0] == caption]
        frames = np.random.default_rng(0).choice([len(clips[row]) for row in rows], arguments.samples)
        made = model.generate_motion(
            [caption] * arguments.samples,
            num_frames=frames.tolist(),
            processor=processor,
            generator=torch.Generator().manual_seed(0),
        )
        motions = [values[mask] for values, mask in zip(made.motion_values, made.motion_mask, strict=True)]
        mean = torch.from_numpy(means[rows].mean(0)).expand(arguments.samples, -1, -1)
        with torch.no_grad():
            decoded = model.motion_vae.decode(mean, frames.tolist())
        collapsed = [values[mask] for values, mask in zip(decoded.motion_values, decoded.motion_mask, strict=True)]
        real = [torch.from_numpy(clips[row]) for row in rows]
        for name, group in (("denoising", motions), ("squared_error", collapsed), ("training", real)):
            seen = sides_seen(judge, judge_processor, processor.feature_extractor, group, action)
            metrics |= {f"{action}_{name}_{side}": value for side, value in seen.items()}
    result = make_result(
        command="python examples/benchmarks/two_modes.py --judge JUDGE",
        model={"recipe": "motiongpt3-tiny/text_to_motion.yaml", "judge": Path(arguments.judge).name},
        data={"name": "embedded synthetic motions of one action and side", "motions": len(dataset)},
        protocol={"samples": arguments.samples, "captions": CAPTIONS, "seed": 0},
        metrics=metrics,
    )
    print(json.dumps(metrics, indent=1))
    print(f"saved {save_json(result, arguments.output)}")


if __name__ == "__main__":
    main()
