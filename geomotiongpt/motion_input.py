"""Motion files on the command line: `.npy` as the models take it as it is, any other file imported."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data.import_motion import ImportReport

MOTION_FILES = ".npy features or joints, or .bvh, .amc, .c3d, .npz (AMASS, SMPL, joints) or .csv"
_OPTIONS = ("fps", "unit", "up", "mapping", "skeleton", "body_models")


def add_import_options(
    verb: argparse.ArgumentParser, title: str = "motion files of other programs: what cannot be found out"
) -> None:
    """Adds the options of `import_motion` to a verb."""
    group = verb.add_argument_group(title)
    group.add_argument("--fps", type=float, help="frames per second of the file (default: what it says)")
    group.add_argument(
        "--unit", metavar="UNIT", help="m, cm, mm, in, ft, acclaim, or metres as a number (default: by the height)"
    )
    group.add_argument(
        "--up", metavar="AXIS", help="x, y, z, -x, -y or -z (default: from feet to head); write --up=-z"
    )
    group.add_argument("--mapping", type=Path, metavar="FILE", help="YAML or JSON, joint: joint of the file")
    group.add_argument("--skeleton", type=Path, metavar="FILE", help=".asf of an .amc file (default: that beside it)")
    group.add_argument(
        "--body-models", type=Path, metavar="PATH", help="SMPL model file or folder, for SMPL parameters"
    )


def import_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those that were given."""
    return {name: getattr(arguments, name) for name in _OPTIONS if getattr(arguments, name) is not None}


def is_taken_as_it_is(path: str | Path, representation: str, options: dict[str, Any]) -> bool:
    """Whether a file is not imported: `.npy` features, or without options joints (frames, J, 3) of the representation.

    Raises:
        FileNotFoundError, ValueError: as `read_motion`, for a `.npy` file that is not there or holds no array.
    """
    from .models.motion_representation import get_motion_representation
    from .models.pipeline_motion_to_text import read_motion

    if Path(path).suffix.lower() != ".npy":
        return False
    shape = read_motion(Path(path), mapped=True).shape
    return len(shape) != 3 or (not options and shape[1:] == (get_motion_representation(representation).num_joints, 3))


def read_motion_input(
    path: str | Path, representation: str, options: dict[str, Any]
) -> tuple[str | dict[str, Any], "ImportReport | None"]:
    """What the pipelines take for a motion file: a `.npy` path, or the imported joints of any other file.

    Joints in a `.npy` file are imported, too, if they are not those of the representation or options are given. Of an
    `.npz` file that `export_motion` wrote of features of this representation it is these features.

    Args:
        path: the file.
        representation: of the model.
        options: of `import_motion`.

    Returns:
        the motion, and the report of an import.

    Raises:
        FileNotFoundError, ModuleNotFoundError, ValueError: as `import_motion`; also for options of features.
    """
    from .data.import_motion import import_motion
    from .data.joint_files import read_own_features

    if is_taken_as_it_is(path, representation, options):
        if options:
            raise ValueError(
                f"{path}: {', '.join(sorted(options))} is of no use for features, which are as the model takes them."
            )
        return str(path), None
    if Path(path).suffix.lower() == ".npz" and not options:
        features = read_own_features(Path(path), representation)
        if features is not None:
            return {"motion": features, "name": str(path)}, None
    imported = import_motion(path, representation=representation, **options)
    report = imported.report
    if Path(path).suffix.lower() == ".npy" and "fps" not in options:
        assumed = f"nothing in it tells the frame rate: {report.fps[0]:g} a second are taken; give --fps for another"
        report = replace(report, warnings=(*report.warnings, assumed))
    return {"motion": imported.joints, "name": str(path)}, report
