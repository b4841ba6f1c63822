"""Motion files on the command line: `.npy` as the models take it, any other file imported."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data.import_motion import ImportReport

MOTION_FILES = ".npy features or joints, or .bvh, .amc, .c3d, .npz (AMASS, SMPL, joints) or .csv"
_OPTIONS = ("fps", "unit", "up", "mapping", "skeleton", "body_models")


def add_import_options(
    verb: argparse.ArgumentParser, title: str = "motion files that are not .npy: what cannot be found out"
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


def read_motion_input(
    path: str | Path, representation: str, options: dict[str, Any]
) -> tuple[str | dict[str, Any], "ImportReport | None"]:
    """What the pipelines take for a motion file: a `.npy` path as it is, any other file as imported joints.

    Of an `.npz` file that `export_motion` wrote of features of this representation it is these features.

    Args:
        path: the file.
        representation: of the model.
        options: of `import_motion`.

    Returns:
        the motion, and the report of an import.

    Raises:
        FileNotFoundError, ModuleNotFoundError, ValueError: as `import_motion`; also for options of a `.npy` file.
    """
    if Path(path).suffix.lower() == ".npy":
        if options:
            raise ValueError(
                f"{path}: {', '.join(sorted(options))} is of no use for a .npy file, which has features or joints as "
                "the model takes them; import it in Python with import_motion."
            )
        return str(path), None
    from .data.import_motion import import_motion
    from .data.joint_files import read_own_features

    if Path(path).suffix.lower() == ".npz" and not options:
        features = read_own_features(Path(path), representation)
        if features is not None:
            return {"motion": features, "name": str(path)}, None
    imported = import_motion(path, representation=representation, **options)
    return {"motion": imported.joints, "name": str(path)}, imported.report
