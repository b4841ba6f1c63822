"""The public Bandai-Namco Research motion data set: 2,900 BVH files -> captions, splits and features.

The release names what each clip shows in its file name, `dataset-<n>_<content>_<style>_<number>.bvh`, and has no
captions. Those made here are templates of content, style, and the path that the body takes: real motion, but no human
sentences. Everything follows from file names and motion: the same release gives the same data set everywhere.
"""

import hashlib
import json
import random
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from .builder import BuildReport, build_motion_dataset, map_in_processes
from .import_motion import import_motion
from .motion_folder import TEXTS_DIR, remove_partial_files, save_array, save_bytes
from .text_files import CaptionSegment, format_caption_line

LICENCE = "Bandai-Namco Research motion data set: CC BY-NC 4.0, not for commercial use, with credit."
SOURCE_DIR = "source"  # of the folder that is built: clips as joints
_NAME = re.compile(r"(dataset-\d)_(?P<content>[a-z-]+)_(?P<style>[a-z-]+)_\d+")
_FPS = 20

ACTIONS = {
    "bow": ("bows", "bends forward to bow"),
    "bye": ("waves goodbye", "says goodbye with a wave", "waves bye bye"),
    "call": ("calls someone with a hand", "beckons someone over"),
    "dance-long": ("dances", "performs a dance"),
    "dance-short": ("dances", "performs a dance"),
    "dash": ("dashes forward", "sprints forward"),
    "guide": ("shows the way with a hand", "gestures to guide someone"),
    "kick": ("kicks several times", "throws kicks"),
    "punch": ("punches the air", "throws punches"),
    "respond": ("nods and responds", "responds with a gesture"),
    "run": ("runs forward", "jogs straight ahead"),
    "slash": ("slashes with the arms", "swings a sword"),
    "walk": ("walks forward", "walks straight ahead"),
    "walk-back": ("walks backwards", "steps backward"),
    "walk-left": ("walks diagonally to the left", "walks forward drifting left"),
    "walk-right": ("walks diagonally to the right", "walks forward drifting right"),
    "walk-turn-left": ("walks and turns left", "walks forward then turns to the left"),
    "walk-turn-right": ("walks and turns right", "walks forward then turns to the right"),
    "raise-up-both-hands": ("raises both hands", "lifts both arms up"),
    "raise-up-left-hand": ("raises the left hand", "lifts the left arm up"),
    "raise-up-right-hand": ("raises the right hand", "lifts the right arm up"),
    "wave-both-hands": ("waves both hands", "waves with both arms"),
    "wave-left-hand": ("waves the left hand", "waves with the left arm"),
    "wave-right-hand": ("waves the right hand", "waves with the right arm"),
}
STYLES = {
    "active": ("energetically", "in a lively way"),
    "angry": ("angrily", "in an angry way"),
    "childish": ("like a child", "in a childish way"),
    "chimpira": ("swaggering", "with a swagger"),
    "elderly": ("like an old person", "like an elder"),
    "exhausted": ("tiredly", "as if exhausted", "in an exhausted way", "as if tired"),
    "feminine": ("in a feminine way", "in a feminine style"),
    "giant": ("heavily like a giant", "with heavy limbs"),
    "happy": ("happily", "in a happy mood"),
    "masculine": ("in a masculine way", "in a masculine style"),
    "musical": ("rhythmically", "as if to music"),
    "normal": (),
    "not-confident": ("timidly", "without confidence"),
    "proud": ("proudly", "in a proud way"),
    "sad": ("sadly", "in a sad mood"),
    "youthful": ("youthfully", "like a young person"),
}
# Names of the release that mean the same
MERGED = {
    "action": {"byebye": "bye", "dance-long": "dance-short"},
    "style": {"masculinity": "masculine", "old": "elderly", "tired": "exhausted"},
}
UNSEEN_PAIRS = frozenset(
    {
        ("raise-up-left-hand", "feminine"),
        ("raise-up-right-hand", "masculine"),
        ("run", "feminine"),
        ("walk", "masculine"),
        ("walk-turn-left", "elderly"),
        ("walk-turn-right", "exhausted"),
        ("wave-left-hand", "active"),
        ("wave-right-hand", "youthful"),
    }
)
_SUBJECTS = ("a person", "the person", "someone", "a man", "a figure")
_NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_PATH_METRES = 2.0, 10.5  # of paths whose length a caption may say
_SLOW, _QUICK = 0.8, 2.6  # metres per second, of such a path
_TRAVELS = re.compile("walk|run|dash")
_VAL_SHARE, _TEST_SHARE = 0.055, 0.105
_NUM_CAPTIONS = 3
_TAGS = {
    "DET": "a an the both several",
    "PRON": "someone",
    "NUM": " ".join(_NUMBERS),
    "ADP": "in like with as for without over to",
    "CCONJ": "and",
    "SCONJ": "if",
    "ADJ": "lively angry childish feminine masculine heavy old proud sad happy tired exhausted young left right",
    "ADV": "forward energetically angrily happily rhythmically timidly slowly proudly heavily sadly tiredly about "
    "quickly straight ahead backwards backward diagonally up youthfully then",
    "VERB": "bows bends bow waves says calls beckons dances performs dashes sprints shows gestures guide kicks throws "
    "punches nods responds runs jogs slashes swings walks steps drifting turns raises lifts swaggering",
}
_TAG_OF = {word: tag for tag, words in _TAGS.items() for word in words.split()}


@dataclass(frozen=True)
class _Clip:
    motion_id: str
    path: Path
    action: str
    style: str


def build_bandai(
    source_dir: str | Path, output_dir: str | Path, *, num_proc: int | None = None, show_progress: bool = True
) -> BuildReport:
    """Builds the data set from the BVH files of the release.

    The splits: `test_unseen` has the pairs of action and style in `UNSEEN_PAIRS`, which training never sees; of the
    rest about one clip in ten is `test`, one in twenty `val`, by a hash of its name. `labels.json` says which words of
    a caption name its action, side and style, for `geomotiongpt evaluate --labels`. Clips whose joints are there
    already are not read again.

    Args:
        source_dir: folder with the BVH files, anywhere below it.
        output_dir: folder to write; new, or of an earlier run.
        num_proc: worker processes; by default the work is done in this one.
        show_progress: whether to show progress bars.

    Returns:
        what was built; files that cannot be imported are among `left_out`.

    Raises:
        FileNotFoundError: if the folder is missing, or has no BVH file of the release.
        ValueError: as `build_motion_dataset`.
    """
    root, output = Path(source_dir), Path(output_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; give the one with the BVH files of the release.")
    clips, others = _find_clips(root)
    if not clips:
        raise FileNotFoundError(f"{root}: no BVH file below it is called as in dataset-1_walk_normal_001.bvh.")
    source = output / SOURCE_DIR
    for folder in (source / "joints", source / TEXTS_DIR):
        folder.mkdir(parents=True, exist_ok=True)
        remove_partial_files(folder)
    pending = [clip for clip in clips if not _is_made(clip, source)]
    made = map_in_processes(partial(_make, source=source), pending, num_proc) if pending else iter(())
    failed: dict[str, str] = {}
    for clip, problem in zip(
        pending, tqdm(made, "Importing", len(pending), unit="file", disable=not show_progress or None), strict=True
    ):
        failed |= {clip.motion_id: problem} if problem else {}
    splits: dict[str, list[str]] = {}
    for clip in clips:
        if clip.motion_id not in failed:
            splits.setdefault(split_of(clip.motion_id, clip.action, clip.style), []).append(clip.motion_id)
    for name, ids in splits.items():
        save_bytes(source / f"{name}.txt", "".join(f"{motion_id}\n" for motion_id in ids).encode())
    report = build_motion_dataset(source, output, num_proc=num_proc, show_progress=show_progress)
    save_bytes(output / "labels.json", (json.dumps(labels(), indent=1) + "\n").encode())
    report.left_out = [*others, *failed.items(), *report.left_out]
    return report


def split_of(motion_id: str, action: str, style: str) -> str:
    """The split of a clip: "test_unseen", or "train", "val" or "test" by a hash of its id."""
    if (action, style) in UNSEEN_PAIRS:
        return "test_unseen"
    share = int(hashlib.sha256(motion_id.encode()).hexdigest()[:8], 16) / 16**8
    return "test" if share < _TEST_SHARE else "val" if share < _TEST_SHARE + _VAL_SHARE else "train"


def labels() -> dict:
    """The words that name actions, sides and styles, as `geomotiongpt evaluate --labels` reads them."""
    return {
        "about": "words of the captions that name action, side and style; 'merged': names that count as one",
        "action": {name: sorted(words) for name, words in ACTIONS.items() if name not in MERGED["action"]},
        "side": ["left", "right", "both"],
        "style": {name: sorted(words) for name, words in STYLES.items()},
        "merged": MERGED,
    }


def captions_of(motion_id: str, action: str, style: str, root: np.ndarray) -> list[CaptionSegment]:
    """Three captions of a clip; the draws depend on its id alone.

    Args:
        motion_id: its id.
        action: one of `ACTIONS`.
        style: one of `STYLES`.
        root: (frames, 3) of the pelvis in metres, Y up, 20 frames per second.
    """
    rng = random.Random(motion_id)
    path = float(np.linalg.norm(np.diff(root[:, [0, 2]], axis=0), axis=1).sum())
    extras = []
    if _TRAVELS.match(action) and _PATH_METRES[0] < path < _PATH_METRES[1]:
        extras.append(f"for about {_NUMBERS[round(path) - 2]} meters")
        speed = path * _FPS / max(len(root) - 1, 1)
        extras += ["slowly"] if speed < _SLOW else ["quickly"] if speed > _QUICK else []
    found: dict[str, CaptionSegment] = {}
    while len(found) < _NUM_CAPTIONS:
        parts = [rng.choice(STYLES[style])] if STYLES[style] else []
        if extras and rng.random() < 0.5:
            parts.insert(rng.randrange(len(parts) + 1), rng.choice(extras))
        caption = " ".join([rng.choice(_SUBJECTS), rng.choice(ACTIONS[action]), *parts])
        found[caption] = CaptionSegment(f"{caption}.", _tagged(caption))
    return list(found.values())


def _tagged(caption: str) -> tuple[str, ...]:
    return tuple(f"{word}/{_TAG_OF.get(word, 'NOUN')}" for word in caption.split())


def _find_clips(root: Path) -> tuple[list[_Clip], list[tuple[str, str]]]:
    """The clips of a release by their ids, and BVH files that are none."""
    clips: dict[str, _Clip] = {}
    others = []
    for path in sorted(root.rglob("*.bvh")):
        found = _NAME.fullmatch(path.stem)
        action = style = ""
        if found:
            action = MERGED["action"].get(found["content"], found["content"])
            style = MERGED["style"].get(found["style"], found["style"])
        if action not in ACTIONS or style not in STYLES:
            others.append((path.stem, f"{path}: its name is not that of a known action in a known style"))
        elif path.stem in clips:
            others.append((path.stem, f"{path}: {clips[path.stem].path} has the same name"))
        else:
            clips[path.stem] = _Clip(path.stem, path, action, style)
    return list(clips.values()), others


def _is_made(clip: _Clip, source: Path) -> bool:
    files = (source / "joints" / f"{clip.motion_id}.npy", source / TEXTS_DIR / f"{clip.motion_id}.txt")
    changed = clip.path.stat().st_mtime_ns
    return all(file.is_file() and file.stat().st_mtime_ns >= changed for file in files)


def _make(clip: _Clip, source: Path) -> str:
    """Writes joints and captions of a clip; returns why it could not be."""
    try:
        joints = import_motion(clip.path).joints
    except ValueError as error:
        return str(error)
    lines = map(format_caption_line, captions_of(clip.motion_id, clip.action, clip.style, joints[:, 0]))
    save_bytes(source / TEXTS_DIR / f"{clip.motion_id}.txt", "".join(f"{line}\n" for line in lines).encode())
    save_array(source / "joints" / f"{clip.motion_id}.npy", joints)
    return ""
