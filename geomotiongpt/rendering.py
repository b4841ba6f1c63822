"""What `geomotiongpt render` does: motion files as pictures, pages and files of other programs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .motion_input import MOTION_FILES, add_import_options, import_options, is_taken_as_it_is, read_motion_input

if TYPE_CHECKING:
    import numpy as np


def add_render(add) -> None:
    """Adds the verb to the command line."""
    verb = add(
        "render",
        _render,
        "make an animation, a page, or a file that other programs open of motion files",
        'walk.npy -o walk.gif --caption "a person walks"\n'
        "         geomotiongpt render walk.bvh -o walk.glb\n"
        "         geomotiongpt render walk.npy -o walk.html --model MODEL\n"
        '         geomotiongpt render walk.npy made.npy -o both.mp4 --caption "the data" --caption "a model"\n'
        "         geomotiongpt render walk.npy -o walk.bvh",
    )
    verb.add_argument("files", nargs="+", type=Path, metavar="FILE", help=f"{MOTION_FILES}; several side by side")
    verb.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="file to write: .gif, .mp4 or .html of one FILE or several; .png (a strip of poses), .bvh, .glb, .npz or "
        ".csv of one",
    )
    verb.add_argument(
        "--caption", action="append", metavar="TEXT", help="what FILE shows; one for each (default: of several, names)"
    )
    verb.add_argument(
        "--representation",
        choices=["humanml3d", "kitml", "streaming272"],
        help="of the files (default: the model's, or humanml3d)",
    )
    verb.add_argument("--model", help="of .html: show the motion tokens of this model, a folder or a name on the Hub")
    add_import_options(verb)


def _render(arguments: argparse.Namespace) -> int:
    print(
        render_motions(
            arguments.files,
            arguments.output,
            captions=arguments.caption,
            representation=arguments.representation,
            import_options=import_options(arguments),
            model_name=arguments.model,
        )
    )
    return 0


def render_motions(
    files: Sequence[Path],
    output: Path,
    *,
    captions: Sequence[str] | None = None,
    representation: str | None = None,
    import_options: dict[str, Any] | None = None,
    model_name: str | None = None,
) -> Path:
    """Writes motion files as what `export_motion` makes of them.

    Args:
        files: motion files; several are shown side by side, named by their captions or else their names.
        output: file to write.
        captions: one a file.
        representation: of all files; the model's by default, or "humanml3d".
        import_options: of `import_motion`; of `.npy` files that are taken as they are `fps` alone, that of the motion.
        model_name: folder or Hub name of a model with motion tokens, to show them; of `.html`.

    Returns:
        the path written.

    Raises:
        FileNotFoundError: for a file or a model that is not there.
        ValueError: for another number of captions, a file that holds no motion or is the output, a folder as output, a
            model without motion tokens or of another representation, and as `export_motion`.
    """
    from .data.motion_folder import check_writable
    from .visualization.export import SUFFIXES, export_motion
    from .visualization.output import check_output_path

    suffix = check_output_path(output, SUFFIXES).suffix.lower()
    if captions is not None and len(captions) != len(files):
        raise ValueError(f"{len(captions)} captions for {len(files)} files: give --caption once for each FILE.")
    if model_name is not None and suffix != ".html":
        raise ValueError(f"--model: motion tokens are shown by .html only, not {suffix}.")
    if output.is_dir():
        raise ValueError(f"{output} is a folder; name a file in it.")
    if output.exists() and any(path.exists() and output.samefile(path) for path in files):
        raise ValueError(f"{output} is the motion itself, and would be lost: name another file.")
    check_writable(output)
    tokenize = None if model_name is None else _MotionTokens(model_name, representation)
    representation = tokenize.representation if tokenize else representation or "humanml3d"
    options = import_options or {}
    others = {name: value for name, value in options.items() if name != "fps"}
    kinds = {is_taken_as_it_is(path, representation, others) for path in files}
    if "fps" in options and len(kinds) > 1:
        raise ValueError("--fps: of which files? Some are taken as they are, others imported; render them apart.")
    motions = [load_motion_file(path, representation, others if True in kinds else options) for path in files]
    if captions is None and len(files) > 1:
        captions = [path.stem for path in files]
    tokens = tokenize(motions, files) if tokenize else None
    return export_motion(
        motions if len(motions) > 1 else motions[0],
        output,
        representation=representation,
        caption=captions if captions is None or len(motions) > 1 else captions[0],
        fps=options.get("fps") if True in kinds else None,
        codes=tokens if tokens is None or len(motions) > 1 else tokens[0],
        frames_per_code=tokenize.frames_per_code if tokenize else None,
    )


def load_motion_file(path: Path, representation: str, options: dict[str, Any]) -> "np.ndarray":
    """A motion, features (frames, F) or joints (frames, J, 3), of a `.npy` file as it is, or imported joints.

    Args:
        path: the file.
        representation: of the motion.
        options: of `import_motion`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no motion of that representation, and as `import_motion`.
    """
    from .models.pipeline_motion_to_text import read_motion
    from .visualization.clip import read_clip

    given, report = read_motion_input(path, representation, options)
    if isinstance(given, dict):
        for warning in report.warnings if report else ():
            print(f"{path}: warning: {warning}", file=sys.stderr)
        return given["motion"]
    motion = read_motion(path)
    try:
        return read_clip(motion, representation).given
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


class _MotionTokens:
    """The motion tokens that a model makes of motions: a list of codes each."""

    def __init__(self, model_name: str, representation: str | None):
        from .checkpoints import load_captioner
        from .models.configuration_llamo import LLaMoConfig
        from .models.configuration_motiongpt3 import MotionGPT3Config

        model, processor = load_captioner(model_name)
        if model.config.model_type in (MotionGPT3Config.model_type, LLaMoConfig.model_type):
            raise ValueError(
                f"{model_name} is a {type(model).__name__}, whose motion is continuous: only models with motion "
                "tokens have any to show; leave out --model."
            )
        self.model, self.extractor = model, processor.feature_extractor
        self.representation = self.extractor.representation
        self.frames_per_code = self.extractor.downsampling_factor
        if representation not in (None, self.representation):
            raise ValueError(f"--representation is {representation}, and {model_name} takes {self.representation}.")

    def __call__(self, motions: Sequence["np.ndarray"], files: Sequence[Path]) -> list[list[int]]:
        import numpy as np
        import torch

        inputs = self.extractor(motions, names=[str(path) for path in files])
        with torch.inference_mode():
            codes = np.asarray(self.model.motion_tokenizer.encode(**inputs).motion_codes)
        return [row[row >= 0].tolist() for row in codes]
