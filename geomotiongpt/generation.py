"""What `geomotiongpt generate` does: motions as files, with the joints and a picture of each."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm
from transformers import pipeline

from .checkpoints import check_output, load_captioner
from .data.motion_folder import written_aside
from .models.motion_representation import get_motion_representation
from .motion_input import read_motion_input
from .visualization.animation import animate_motion, draw_motion_strip

logger = logging.getLogger(__name__)

INDEX = "motions.jsonl"
_DRAW: dict[str, Callable[..., Path]] = {"gif": animate_motion, "png": draw_motion_strip}


def generate_motions(
    model_name: str | Path,
    texts: Sequence[str | Sequence[str]],
    output: str | Path,
    *,
    task: str = "text-to-motion",
    motion: str | Path | None = None,
    import_options: Mapping[str, Any] | None = None,
    num_samples: int = 1,
    seed: int = 0,
    batch_size: int = 16,
    animation: str | None = "gif",
    **options: Any,
) -> list[dict[str, Any]]:
    """Makes motions and writes a folder of them, whole or not at all.

    For each motion there are its features `<number>.npy` (frames, F), its joints `<number>_joints.npy` (frames, J, 3)
    and a picture, and in `motions.jsonl` a JSON object: files, text, task, seed, number of the sample, frames.

    Args:
        model_name: folder of a motion-language model, or its name on the Hub.
        texts: captions, or sequences of captions that one motion shows one after another; none for tasks that take
            none.
        output: folder to write; it must not exist yet or be empty.
        task: see `TextToMotionPipeline`, as for the next three.
        motion: `.npy` file of features or joints, or a file that `import_motion` takes.
        import_options: for `import_motion`.
        num_samples: motions for each text.
        seed: of the sampling.
        batch_size: texts at a time.
        animation: "gif", "png" (a strip of poses) or None.
        **options: for the pipeline.

    Returns:
        what stands in `motions.jsonl`.

    Raises:
        FileNotFoundError: if there is no such model or motion.
        ValueError: for an output folder that is in use, and as `TextToMotionPipeline`.
    """
    output = Path(output)
    check_output(output)
    if import_options and motion is None:
        raise ValueError(f"{', '.join(sorted(import_options))}: no effect without a motion file to go on from.")
    # Loaded here: `pipeline` answers a model that cannot be loaded with a page of tracebacks.
    model, processor = load_captioner(model_name)
    make = pipeline("text-to-motion", model=model, processor=processor)
    representation = processor.feature_extractor.representation
    given = None
    if motion is not None:
        given, report = read_motion_input(motion, representation, dict(import_options or {}))
        for warning in () if report is None else report.warnings:
            logger.warning("%s: warning: %s", motion, warning)
    asked: list[Any] = list(texts) or [None]
    results = make(
        asked,
        motion=given,
        task=task,
        num_samples=num_samples,
        seed=seed,
        batch_size=batch_size,
        progress=len(asked) > 1,
        **options,
    )
    made = [
        {"text": text, "sample": sample, **result}
        for text, group in zip(asked, results, strict=True)
        for sample, result in enumerate(group if isinstance(group, list) else [group])
    ]
    with written_aside(output) as aside:
        return _write(aside, made, {"task": task, "seed": seed}, animation, representation)


def _write(
    folder: Path, made: Sequence[dict[str, Any]], facts: dict[str, Any], animation: str | None, representation: str
) -> list[dict[str, Any]]:
    rows = []
    fps = get_motion_representation(representation).fps
    digits = max(3, len(str(len(made) - 1)))
    for number, motion in enumerate(tqdm(made, "writing", disable=len(made) < 4 or None)):
        name, text = f"{number:0{digits}d}", motion["text"]
        row = {"file": f"{name}.npy", "joints": f"{name}_joints.npy"}
        np.save(folder / row["file"], motion["motion"])
        np.save(folder / row["joints"], motion["joints"])
        if animation is not None:
            row["animation"] = f"{name}.{animation}"
            caption = text if isinstance(text, str) or text is None else " / ".join(text)
            picture = folder / row["animation"]
            _DRAW[animation](motion["joints"], picture, caption=caption, representation=representation)
        frames = motion["num_frames"]
        rows.append({**row, "text": text, **facts, "sample": motion["sample"], "frames": frames})
        rows[-1]["seconds"] = round(frames / fps, 2)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (folder / INDEX).write_text("".join(lines), encoding="utf-8")
    return rows
