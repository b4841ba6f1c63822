"""The verb `build-data` of the command line: folders in the HumanML3D layout, from joints or from public releases."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from .console import positive
from .motion_input import add_import_options, import_options

_EXAMPLES = """files takes/ captions.csv data/mine --push USER/NAME
         geomotiongpt build-data raw/ data/mine --num-proc 2
         geomotiongpt build-data raw/ data/mine --representation streaming272 --source-fps 20
         geomotiongpt build-data humanml3d --amass amass/ --humanact12 humanact12/ --index index.csv \\
             --texts HumanML3D/ --smplh smplh/ --num-proc 8
         geomotiongpt build-data babel --amass amass/ --babel babel_v1.0_release/ --smplh smplh/ --num-proc 8
         geomotiongpt build-data kitml kit-ml/ --mmm-model mmm.xml
         geomotiongpt build-data bandai Bandai-Namco-Research-Motiondataset/ data/bandai
         geomotiongpt build-data join data/all h3d=data/HumanML3D mine=data/mine"""
_IMPORT_OPTIONS = ("fps", "unit", "up", "mapping", "skeleton", "body_models")
# Options that each source has a use for, beside --num-proc
_OPTIONS = {
    "joints": {"representation", "source_fps", "no_mirror", "no_retarget"},
    "files": {"representation", "no_mirror", "no_retarget", "skip_damaged", *_IMPORT_OPTIONS},
    "humanml3d": {"amass", "humanact12", "index", "texts", "smplh", "reference", "no_mirror"},
    "babel": {"amass", "babel", "smplh", "representation", "transitions", "no_mirror"},
    "kitml": {"mmm_model", "texts", "no_mirror", "no_retarget"},
    "bandai": set(),
    "join": {"representation"},
}


def add_build_data(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the verb to a parser.

    Args:
        add: makes the parser of a verb of its name, function, purpose and example.
    """
    verb = add(
        "build-data",
        _run,
        "make a data set in HumanML3D's layout from joints, captions and split lists, or from a public release",
        _EXAMPLES,
    )
    verb.set_defaults(when_stopped="the same command goes on")
    verb.add_argument(
        "source",
        help="folder with joints/, texts/ and split lists; or files, humanml3d, babel, kitml, bandai, join",
    )
    verb.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="the folder to write or to go on with; before it, of `files` the folder of the motion files and a CSV "
        "file of their captions, of `kitml` and `bandai` the release; behind it, of `join` NAME=FOLDER of each built "
        "folder (defaults: data/HumanML3D, data/BABEL, data/KIT-ML, data/bandai)",
    )
    verb.add_argument(
        "--representation", default="humanml3d", choices=["humanml3d", "kitml", "streaming272"], help="to make"
    )
    verb.add_argument(
        "--source-fps", type=float, help="frames per second of the joints (default: the representation's)"
    )
    verb.add_argument("--no-mirror", action="store_true", help="do not add mirrored clips")
    verb.add_argument("--no-retarget", action="store_true", help="keep the bone lengths of the source")
    verb.add_argument("--num-proc", type=positive, help="processes (default: 1)")
    group = verb.add_argument_group("to the Hub")
    group.add_argument("--push", metavar="USER/NAME", help="upload what was built, as a private data set with a card")
    group.add_argument("--public", action="store_true", help="let everybody see it, where its licences allow that")
    group.add_argument("--yes", action="store_true", help="do not ask before")
    group = verb.add_argument_group(
        "of files", "The CSV file has the columns file, caption and optionally start, end (seconds) and split."
    )
    group.add_argument("--skip-damaged", action="store_true", help="leave out files that cannot be imported")
    add_import_options(verb, "motion files: what cannot be found out")
    group = verb.add_argument_group("of humanml3d and babel")
    group.add_argument("--amass", type=Path, metavar="DIR", help="AMASS, SMPL+H G, one folder a data set")
    group.add_argument("--smplh", type=Path, metavar="DIR", help="folder with the SMPL-H body models, .npz")
    group.add_argument("--humanact12", type=Path, metavar="DIR", help="joints of HumanAct12, .npy")
    group.add_argument("--index", type=Path, metavar="FILE", help="index.csv of HumanML3D's repository")
    group.add_argument(
        "--texts", type=Path, metavar="DIR", help="folder with texts/ and the split lists; of kitml too"
    )
    group.add_argument("--reference", type=Path, metavar="DIR", help="published clips or statistics to compare with")
    group.add_argument("--babel", type=Path, metavar="DIR", help="folder with BABEL's train.json, val.json, test.json")
    group.add_argument("--transitions", action="store_true", help='keep labels that say no more than "transition"')
    group = verb.add_argument_group("of kitml")
    group.add_argument("--mmm-model", type=Path, metavar="FILE", help="mmm.xml, the body model of the MMM framework")


def _run(arguments: argparse.Namespace) -> int:
    kind = arguments.source if arguments.source in _OPTIONS and arguments.source != "joints" else "joints"
    idle = [
        f"--{name.replace('_', '-')}"
        for name in sorted(set().union(*_OPTIONS.values()) - _OPTIONS[kind])
        if getattr(arguments, name) not in (None, False, "humanml3d")
    ]
    if kind == "join" and arguments.num_proc is not None:
        idle.append("--num-proc")
    if idle:
        raise ValueError(f"{', '.join(idle)}: no effect on `build-data {arguments.source}`.")
    if arguments.push is None and (arguments.yes or arguments.public):
        raise ValueError("--yes and --public have no effect without --push.")
    if arguments.push is not None:
        from .data_push import check_push

        check_push(arguments.push, kind, public=arguments.public, confirmed=arguments.yes)
    output = _BUILD[kind](arguments)
    if arguments.push is not None:
        from .data_push import push_folder

        representation = "kitml" if kind == "kitml" else arguments.representation
        print(f"pushed {push_folder(output, arguments.push, kind, representation, public=arguments.public)}")
    return 0


def _one_path(paths: Sequence[str], default: str | None = None) -> Path:
    """The only one of some paths."""
    if len(paths) > 1:
        raise ValueError(f"{paths[1]}: one folder to write is enough.")
    if not paths and default is None:
        raise ValueError("say where to write: `geomotiongpt build-data raw/ data/mine`.")
    return Path(paths[0] if paths else str(default))


def _require(arguments: argparse.Namespace, *names: str) -> None:
    for name in names:
        if getattr(arguments, name) is None:
            why = ", the folder of the body models: AMASS holds rotations, and no joints" if name == "smplh" else ""
            raise ValueError(f"give --{name.replace('_', '-')}{why}: see `geomotiongpt build-data --help`.")


def _joints(arguments: argparse.Namespace) -> Path:
    from .data.builder import build_motion_dataset

    output = _one_path(arguments.paths)
    report = build_motion_dataset(
        arguments.source,
        output,
        arguments.representation,
        mirror=not arguments.no_mirror,
        retarget=not arguments.no_retarget,
        source_fps=arguments.source_fps,
        num_proc=arguments.num_proc,
    )
    print(report)
    return output


def _files(arguments: argparse.Namespace) -> Path:
    from .data.captioned_files import build_from_files

    if len(arguments.paths) < 3:
        raise ValueError(
            "give folder, captions and output: `geomotiongpt build-data files takes/ captions.csv data/mine`."
        )
    output = _one_path(arguments.paths[2:])
    report = build_from_files(
        arguments.paths[0],
        arguments.paths[1],
        output,
        representation=arguments.representation,
        mirror=not arguments.no_mirror,
        retarget=not arguments.no_retarget,
        skip_damaged=arguments.skip_damaged,
        num_proc=arguments.num_proc,
        **import_options(arguments),
    )
    print(report)
    return output


def _humanml3d(arguments: argparse.Namespace) -> Path:
    from .data.body_models import humanml3d_joints
    from .data.humanml3d import build_humanml3d, compare_with_reference

    _require(arguments, "index", "texts")
    if arguments.amass is not None:
        _require(arguments, "smplh")
    output = _one_path(arguments.paths, "data/HumanML3D")
    report = build_humanml3d(
        output,
        index=arguments.index,
        texts_dir=arguments.texts,
        amass_dir=arguments.amass,
        humanact12_dir=arguments.humanact12,
        body_joints=partial(humanml3d_joints, body_models=arguments.smplh),
        mirror=not arguments.no_mirror,
        num_proc=arguments.num_proc,
    )
    print(report)
    if arguments.reference is not None:
        for name, difference in compare_with_reference(output, arguments.reference).items():
            print(f"  {name}: differs by {difference:.2g} at most from {arguments.reference / name}")
    return output


def _babel(arguments: argparse.Namespace) -> Path:
    from .data.babel import build_babel
    from .data.body_models import humanml3d_joints

    _require(arguments, "amass", "babel", "smplh")
    output = _one_path(arguments.paths, "data/BABEL")
    report = build_babel(
        output,
        babel_dir=arguments.babel,
        amass_dir=arguments.amass,
        body_joints=partial(humanml3d_joints, body_models=arguments.smplh),
        representation=arguments.representation,
        transitions=arguments.transitions,
        mirror=not arguments.no_mirror,
        num_proc=arguments.num_proc,
    )
    print(report)
    return output


def _kitml(arguments: argparse.Namespace) -> Path:
    from .data.kitml import build_kitml

    if not arguments.paths:
        raise ValueError("give the folder of the release: `geomotiongpt build-data kitml RELEASE data/KIT-ML`.")
    _require(arguments, "mmm_model")
    output = _one_path(arguments.paths[1:], "data/KIT-ML")
    report = build_kitml(
        arguments.paths[0],
        output,
        model=arguments.mmm_model,
        texts_dir=arguments.texts,
        retarget=not arguments.no_retarget,
        mirror=not arguments.no_mirror,
        num_proc=arguments.num_proc,
    )
    print(report)
    return output


def _bandai(arguments: argparse.Namespace) -> Path:
    from .data.bandai import LICENCE, build_bandai

    if not arguments.paths:
        raise ValueError("give the folder of the release: `geomotiongpt build-data bandai RELEASE data/bandai`.")
    output = _one_path(arguments.paths[1:], "data/bandai")
    print(LICENCE)
    print(build_bandai(arguments.paths[0], output, num_proc=arguments.num_proc))
    return output


def _join(arguments: argparse.Namespace) -> Path:
    from .data.joined import join_motion_folders

    output, sources = _one_path(arguments.paths[:1]), {}
    for part in arguments.paths[1:]:
        name, separator, folder = part.partition("=")
        if not (name and separator and folder):
            raise ValueError(f"cannot read {part!r}; write NAME=FOLDER, h3d=data/HumanML3D for example.")
        if name in sources:
            raise ValueError(f"two data sets are called {name!r}: their ids would meet.")
        sources[name] = folder
    splits = join_motion_folders(sources, output, arguments.representation)
    print(f"{output}: {', '.join(f'{split} {count}' for split, count in splits.items())} clips")
    return output


_BUILD: dict[str, Callable[[argparse.Namespace], Path]] = {
    "joints": _joints,
    "files": _files,
    "humanml3d": _humanml3d,
    "babel": _babel,
    "kitml": _kitml,
    "bandai": _bandai,
    "join": _join,
}
