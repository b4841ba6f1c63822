"""Imports every motion file of a folder by itself and says of each what was found, and what a model sees in it.

    python examples/import_table.py SAMPLES [--model MODEL] [--output FILE.json]

Prints a table and saves it. No file is copied, and no path but the files' own names is kept.
"""

import argparse
from collections import Counter
from pathlib import Path

from geomotiongpt.checkpoints import load_captioner
from geomotiongpt.data.import_motion import MOTION_SUFFIXES, ImportReport, import_motion
from geomotiongpt.evaluation.results import make_result, save_json

OUTPUT = Path(__file__).parent / "benchmarks" / "import_table.json"
# First word of the reason of a match -> how the joint was found.
FOUND_BY = {
    "name": "names",
    "hierarchy:": "hierarchy",
    "place:": "hierarchy",
    "end": "hierarchy",
    "mapping": "mapping",
}


def main() -> None:
    """Imports, prints and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path, help="folder of motion files")
    parser.add_argument("--model", help="of captions: a folder, or a name on the Hub")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    files = sorted(file for file in arguments.samples.iterdir() if file.suffix.lower() in MOTION_SUFFIXES)
    if not files:
        parser.error(f"{arguments.samples}: no motion file in it, {', '.join(MOTION_SUFFIXES)}")
    imported = [import_motion(file) for file in files]
    rows = [describe(file.name, motion.report) for file, motion in zip(files, imported, strict=True)]
    model: dict = {}
    if arguments.model:
        model = add_captions(rows, [motion.joints for motion in imported], arguments.model)
    result = make_result(
        command="python examples/import_table.py SAMPLES --model MODEL",
        model=model,
        data={"files": len(files), "folder": arguments.samples.name},
        protocol={"mapping": None, "representation": "humanml3d", "decoding": "greedy"},
        metrics={row.pop("file"): row for row in rows},
    )
    save_json(result, arguments.output)
    for name, row in result["metrics"].items():
        print(name)
        for key, value in row.items():
            print(f"  {key:10} {value}")


def describe(name: str, report: ImportReport) -> dict:
    """What a report says, in short."""
    joints = {match.joint: match for match in report.matches}
    return {
        "file": name,
        "kind": report.kind,
        "pelvis": joints["pelvis"].source,
        "left_hip": joints["left_hip"].source,
        "fps": report.fps[0],
        "frames": list(report.frames),
        "unit_m": round(report.unit[0], 6),
        "up": report.up[0],
        "sides": report.sides,
        "matched": dict(Counter(FOUND_BY.get(match.reason.split()[0], "interpolated") for match in report.matches)),
        "height_m": round(report.height, 3),
        "floor_cm": round(100 * report.floor, 2),
        "speed_m_per_s": round(report.speed, 2),
        "notes": list(report.notes),
        "warnings": list(report.warnings),
    }


def add_captions(rows: list[dict], motions: list, name: str) -> dict:
    """Adds the caption of each motion; what the model is."""
    from transformers import pipeline

    model, processor = load_captioner(name)
    captions = pipeline("motion-to-text", model=model, processor=processor)(motions)
    for row, caption in zip(rows, captions, strict=True):
        row["caption"] = caption["generated_text"]
    parameters = sum(weights.numel() for weights in model.parameters())
    return {"class": type(model).__name__, "parameters": parameters}


if __name__ == "__main__":
    main()
