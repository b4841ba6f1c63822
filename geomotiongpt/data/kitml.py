"""KIT-ML (Plappert et al., Big Data 2016) from its release: MMM motions and sentences of people -> a data set."""

import json
from functools import partial
from pathlib import Path

import numpy as np

from ..models.motion_conversion import resample_joints, resampled_frames
from ..models.motion_representation import get_motion_representation
from .builder import SOURCE_JOINTS_DIR, BuildReport, build_motion_dataset, save_report
from .captioned_files import spread_over_splits
from .mmm import mmm_joints, read_mmm_model, read_mmm_motion
from .motion_folder import TEXTS_DIR, list_splits, read_array, read_split_list, save_array
from .recordings import Recording, extract_recordings, make_source_folder, refuse_without_clips, write_source_lists
from .text_files import CaptionSegment, read_captions

REPRESENTATION = "kitml"
TARGET_CLIP = "03950"  # whose bone lengths in frame 0 all clips get, as HumanML3D's authors did it
_MOTION, _ANNOTATIONS = "_mmm.xml", "_annotations.json"
_SIDES = {"right": "R", "left": "L"}
_MARKS = {"shoulder": "Sx", "elbow": "Ex", "wrist": "Wx", "hip": "Hx", "knee": "Kx", "ankle": "Ax", "foot": "Mrot"}
_MARKS |= {"toe": "Fx"}
_TRUNK = {"root": "", "pelvis": "BPx_joint", "thorax": "BTx_joint", "lower_neck": "BLNx_joint"}
_TRUNK |= {"upper_neck": "BUNx_joint"}


def node_names() -> tuple[str, ...]:
    """The nodes of the MMM model at the joints of "kitml", in their order; right is the body's own right."""
    names = []
    for joint in get_motion_representation(REPRESENTATION).joint_names:
        side, _, part = joint.partition("_")
        names.append(_TRUNK[joint] if joint in _TRUNK else f"{_SIDES[side]}{_MARKS[part]}_joint")
    return tuple(names)


def build_kitml(
    release_dir: str | Path,
    output_dir: str | Path,
    *,
    model: str | Path,
    texts_dir: str | Path | None = None,
    retarget: bool = True,
    mirror: bool = True,
    num_proc: int | None = None,
    show_progress: bool = True,
) -> BuildReport:
    """Builds KIT-ML: `<id>_mmm.xml` -> 21 joints at 12.5 frames per second, `<id>_annotations.json` -> captions.

    The joints follow from the angles by the kinematics of the MMM model, scaled to the subject; Y becomes the axis
    that points up, without a mirror, and left stays the body's left. Motions without annotations are left out.

    The features that HumanML3D's authors distribute are other numbers: how they came from MMM to joints is not
    published, and which side they call left is not certain. Do not measure a model of the one on the other.

    Args:
        release_dir: folder with the files of the release.
        output_dir: folder to write; new, or of an earlier run.
        model: `mmm.xml`, the body of the MMM framework, which is not part of the release.
        texts_dir: folder with split lists, and `texts/` with tagged words for the clips that have a file there; by
            default clips fall into train, val and test by a hash of their number.
        retarget: whether to give all clips the bone lengths of clip 03950, which must be there.
        mirror: whether to add mirrored clips.
        num_proc: worker processes; by default the work is done in this one.
        show_progress: whether to show progress bars.

    Returns:
        what was built; motions that cannot be read are among `left_out`.

    Raises:
        FileNotFoundError: if the folder or the model is missing, or no motion of a split is there.
        ValueError: if the model is damaged, clip 03950 is missing, or as `build_motion_dataset`.
    """
    release, output, model = Path(release_dir), Path(output_dir), Path(model)
    files = {path.name.removesuffix(_MOTION): path for path in sorted(release.glob(f"*{_MOTION}"))}
    if not files:
        raise FileNotFoundError(f"{release}: no file <id>{_MOTION} there; give the folder of the KIT-ML release.")
    read_mmm_model(model)
    if retarget and TARGET_CLIP not in files:
        raise ValueError(f"{release} has no {TARGET_CLIP}{_MOTION}, whose bone lengths all get; or retarget=False.")
    texts, problems = _read_captions(release, list(files), None if texts_dir is None else Path(texts_dir))
    if texts_dir is not None and list_splits(Path(texts_dir)):
        notes: list[str] = []
        lists = {name: read_split_list(Path(texts_dir), name) for name in list_splits(Path(texts_dir))}
        splits = {name: [motion_id for motion_id in ids if motion_id in files] for name, ids in lists.items()}
    else:
        splits, notes = spread_over_splits(dict.fromkeys(texts, ""))
    source = make_source_folder(output)
    wanted = {motion_id for ids in splits.values() for motion_id in ids if motion_id in texts}
    wanted |= {TARGET_CLIP} if retarget else set()
    stat = model.stat()
    settings = [stat.st_size, stat.st_mtime_ns]
    recordings = [Recording(name, files[name], (name,), settings) for name in sorted(wanted)]
    extract = partial(_extract, joints_dir=source / SOURCE_JOINTS_DIR, model=model)
    damaged = extract_recordings(recordings, extract, source, num_proc, show_progress)
    problems |= damaged
    target = None
    if retarget:
        if TARGET_CLIP in damaged:
            raise ValueError(f"{damaged[TARGET_CLIP]}: its bone lengths are those that all get; or retarget=False.")
        target = read_array(source / SOURCE_JOINTS_DIR / f"{TARGET_CLIP}.npy")[0]
    kept = refuse_without_clips(splits, problems)
    write_source_lists(source, {motion_id: texts[motion_id] for ids in kept.values() for motion_id in ids}, kept)
    report = build_motion_dataset(
        source,
        output,
        REPRESENTATION,
        mirror=mirror,
        retarget=retarget,
        target_skeleton=target,
        num_proc=num_proc,
        show_progress=show_progress,
    )
    report.notes, report.left_out = notes, [*problems.items(), *report.left_out]
    save_report(report, output)
    return report


def kit_joints(path: Path, model: Path) -> np.ndarray:
    """Joints of a motion of the release.

    Args:
        path: `<id>_mmm.xml`.
        model: `mmm.xml`.

    Returns:
        (frames, 21, 3) millimetres at 12.5 frames per second, Y up.

    Raises:
        FileNotFoundError, ValueError: as `read_mmm_motion` and `mmm_joints`.
    """
    motion, fps = read_mmm_motion(path), get_motion_representation(REPRESENTATION).fps
    try:
        joints = mmm_joints(read_mmm_model(model), motion, node_names())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if resampled_frames(len(joints), motion.fps, fps) < 2:
        raise ValueError(f"{path}: {len(joints)} frames at {motion.fps:g} frames per second are no motion")
    # MMM has X to the right, Y ahead and Z up; the joints have X to the left, Y up and Z ahead
    return resample_joints(joints[..., [0, 2, 1]] * np.array([-1, 1, 1]), motion.fps, fps)


def _extract(recording: Recording, joints_dir: Path, model: Path) -> dict[str, str]:
    try:
        joints = kit_joints(recording.file, model)
    except ValueError as error:
        return {recording.name: str(error)}
    save_array(joints_dir / f"{recording.name}.npy", joints.astype(np.float32))
    return {}


def _read_captions(
    release: Path, ids: list[str], texts_dir: Path | None
) -> tuple[dict[str, list[CaptionSegment]], dict[str, str]]:
    """Captions of the motions that have some, and why others have none."""
    texts: dict[str, list[CaptionSegment]] = {}
    problems = {}
    for motion_id in ids:
        tagged = None if texts_dir is None else texts_dir / TEXTS_DIR / f"{motion_id}.txt"
        path = release / f"{motion_id}{_ANNOTATIONS}"
        try:
            if tagged is not None and tagged.is_file():
                segments = read_captions(tagged)
            else:
                segments = [CaptionSegment(text) for text in _read_annotations(path)]
        except (ValueError, FileNotFoundError) as error:
            problems[motion_id] = str(error)
            continue
        if segments:
            texts[motion_id] = segments
        else:
            problems[motion_id] = "nobody has annotated it"
    return texts, problems


def _read_annotations(path: Path) -> list[str]:
    try:
        texts = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{path}: wanted a list of sentences")
    cleaned = (" ".join(text.replace("#", " ").split()) for text in texts)
    return [text for text in cleaned if text]
