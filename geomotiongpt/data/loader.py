"""HumanML3D and KIT-ML folders, and the same data on the Hub, as `datasets` with one item a clip or segment."""

import io
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import datasets
import numpy as np
import pyarrow.compute as pc
from datasets import Array2D, Dataset, DatasetDict, Features, List, NamedSplit, Value
from datasets.exceptions import DatasetGenerationError
from huggingface_hub import CommitOperationAdd, DatasetCard, DatasetCardData, HfApi, hf_hub_download
from huggingface_hub.errors import RemoteEntryNotFoundError

from ..models.motion_representation import MotionRepresentation, get_motion_representation
from .motion_folder import (
    FEATURES_DIR,
    TEXTS_DIR,
    list_splits,
    read_array,
    read_split_list,
    save_bytes,
    without_repeats,
)
from .text_files import CaptionSegment, read_valid_captions

logger = logging.getLogger(__name__)

# Part of the fingerprint: raise it when the same files give other items.
_FORMAT_VERSION = 2
_STATISTICS = ("Mean.npy", "Std.npy")
_NOWHERE = "no such folder, nor a dataset to be had from the Hub"


@dataclass
class LoadSummary:
    """What `load_motion_dataset` took from a split and what it left out.

    Args:
        split (`str`): Name of the split.
        clips (`int`): Clips in the split list (for parquet data: items stored).
        items (`int`): Items in the dataset.
        captions (`int`): Captions of all items.
        left_out (`dict[str, list[str]]`): Reason -> what was left out for it: a clip id, an item id or
            `<file>:<line>`, with the details where there are any.
    """

    split: str
    clips: int = 0
    items: int = 0
    captions: int = 0
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, name: str) -> None:
        self.left_out.setdefault(reason, []).append(name)

    def add(self, other: "LoadSummary") -> None:
        self.clips, self.items = self.clips + other.clips, self.items + other.items
        self.captions += other.captions
        for reason, names in other.left_out.items():
            self.left_out.setdefault(reason, []).extend(names)

    def __str__(self) -> str:
        lines = [f"{self.split}: {self.items} items with {self.captions} captions from {self.clips} clips"]
        for reason, names in self.left_out.items():
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            lines.append(f"  left out: {reason}: {len(names)} ({shown})")
        return "\n".join(lines)


def load_motion_dataset(
    path: str | Path,
    split: str | None = None,
    representation: str = "humanml3d",
    *,
    min_frames: int | None = None,
    max_frames: int | None = None,
    mirrored: bool = True,
    num_proc: int | None = None,
    cache_dir: str | Path | None = None,
) -> Dataset | DatasetDict:
    """Load motions with their captions from a HumanML3D or KIT-ML folder, or from the Hub.

    A clip is an item with the captions of the whole clip. Captions of a part of a clip become items of their own,
    `<motion_id>#<first frame>-<end frame>` with frames `int(seconds * fps)`, one for each part however many captions
    it has. What cannot be used (no file, no caption, malformed line, NaN, wrong width, one frame ...) is left out,
    counted and named in the summary, which is logged and kept with the dataset: see `motion_dataset_summary`.

    The Arrow cache is reused as long as files (name, size, modification time) and settings stay the same.

    Args:
        path (`str` or `Path`): Folder with `new_joint_vecs/`, `texts/` and split lists; or a Hub dataset, or a local
            copy of one, made by `push_motion_dataset`; or a folder made by `save_to_disk`.
        split (`str`, *optional*): Name of a split list, such as `"train"`; by default all of them.
        representation (`str`, defaults to `"humanml3d"`): Name of the motion representation.
        min_frames (`int`, *optional*): Length of the shortest items kept; the usual protocol has 40, KIT-ML 24,
            "streaming272" (of 30 frames per second) 60.
        max_frames (`int`, *optional*): Length of the longest items kept; the usual protocol has 199, "streaming272"
            299.
        mirrored (`bool`, defaults to `True`): Whether to keep mirrored clips: `M<id>` where `<id>` is a clip too.
        num_proc (`int`, *optional*): Processes that read files; by default this one.
        cache_dir (`str` or `Path`, *optional*): Folder for the Arrow cache; by default that of `datasets`.

    Returns:
        `Dataset`, or without `split` `DatasetDict`: columns `motion_id` (`str`), `motion` (float32 `np.ndarray` of
        shape `(frames, features)`), `captions` (`list[str]`) and `tokens` (`list[str]`: the words of each caption with
        their parts of speech, `"a/DET man/NOUN walk/VERB"`; empty where the file has none).

    Raises:
        `FileNotFoundError`: The folder, one of its parts, or the split list does not exist.
        `ValueError`: A split list is empty, or nothing in it can be used; or the stored data are of another kind.
    """
    layout = get_motion_representation(representation)
    selection = _Selection(layout, min_frames, max_frames, mirrored)
    folder = Path(path)
    cache = Path(cache_dir or datasets.config.HF_DATASETS_CACHE).expanduser()
    if (folder / FEATURES_DIR).is_dir() or (folder / TEXTS_DIR).is_dir():
        loaded = _load_folder(folder, split, selection, num_proc, cache)
    else:
        loaded = _load_stored(path, split, selection, cache)
    for dataset in loaded.values():
        summary = motion_dataset_summary(dataset)
        if not summary.items:
            raise ValueError(f"{path}: no usable item in the split\n{summary}")
        logger.log(logging.WARNING if summary.left_out else logging.INFO, "%s: %s", path, summary)
    loaded = loaded.with_format("numpy", columns=["motion"], output_all_columns=True)
    return loaded if split is None else loaded[split]


def motion_dataset_summary(dataset: Dataset) -> LoadSummary:
    """What `load_motion_dataset` took into a split and what it left out, by reason.

    Args:
        dataset (`Dataset`): One split, as `load_motion_dataset` returned it.

    Raises:
        `ValueError`: The dataset does not come from `load_motion_dataset`.
    """
    try:
        return LoadSummary(**json.loads(dataset.info.description))
    except (json.JSONDecodeError, TypeError):
        raise ValueError("the dataset carries no summary: it was not returned by load_motion_dataset") from None


def push_motion_dataset(
    dataset: Dataset | DatasetDict,
    repo_id: str,
    *,
    mean: np.ndarray,
    std: np.ndarray,
    private: bool = True,
    token: str | None = None,
    card: DatasetCard | None = None,
) -> None:
    """Push motions to the Hub as parquet, with their normalisation statistics.

    Args:
        dataset (`Dataset` or `DatasetDict`): What `load_motion_dataset` returned.
        repo_id (`str`): Dataset repository, `user/name`.
        mean (`np.ndarray` of shape `(features,)`): As `load_motion_statistics` gives it.
        std (`np.ndarray` of shape `(features,)`): The same.
        private (`bool`, defaults to `True`):
            Whether a new repository is private; most motion data may not be passed on.
        token (`str`, *optional*): Hub token; by default the one stored.
        card (`DatasetCard`, *optional*): What the card is to say; the facts that `datasets` writes there stay.
    """
    splits = dataset if isinstance(dataset, DatasetDict) else DatasetDict({str(dataset.split): dataset})
    width = next(iter(splits.values())).features["motion"].shape[1]
    operations = []
    for name, values in zip(_STATISTICS, (mean, std), strict=True):
        values = np.asarray(values, dtype=np.float32)
        _check_statistics(values, name, width)
        buffer = io.BytesIO()
        np.save(buffer, values)
        operations.append(CommitOperationAdd(path_in_repo=name, path_or_fileobj=buffer.getvalue()))
    splits.push_to_hub(repo_id, private=private, token=token)
    message = "Add normalisation statistics"
    if card is not None:
        written = DatasetCard.load(repo_id, token=token)
        facts = {**written.data.to_dict(), **card.data.to_dict()}
        merged = f"---\n{DatasetCardData(**facts).to_yaml()}\n---\n\n{card.text.strip()}\n"
        operations.append(CommitOperationAdd(path_in_repo="README.md", path_or_fileobj=merged.encode()))
        message += " and a card"
    HfApi(token=token).create_commit(repo_id, operations, commit_message=message, repo_type="dataset")


def load_motion_statistics(path: str | Path, representation: str = "humanml3d") -> tuple[np.ndarray, np.ndarray]:
    """Load the mean and standard deviation that go with a motion dataset.

    Args:
        path (`str` or `Path`): Folder or Hub dataset.
        representation (`str`, defaults to `"humanml3d"`): Name of the motion representation.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: Mean and standard deviation, float32 of shape `(features,)`.

    Raises:
        `FileNotFoundError`: `Mean.npy` or `Std.npy` is missing.
        `ValueError`: One of them is not an array of that width with finite values, or a deviation is not above 0.
    """
    width = get_motion_representation(representation).num_features
    arrays = []
    for name in _STATISTICS:
        file = _find_statistics(path, name)
        try:
            array = read_array(file).astype(np.float32)
        except ValueError as error:
            raise ValueError(f"{path}: {name}: {error}") from None
        _check_statistics(array, f"{path}: {name}", width)
        arrays.append(array)
    return arrays[0], arrays[1]


def _find_statistics(path: str | Path, name: str) -> Path:
    if not Path(path).is_dir():
        repo_id = _hub_name(path)
        try:
            return Path(hf_hub_download(repo_id, name, repo_type="dataset"))
        except RemoteEntryNotFoundError:
            pass
        except OSError as error:
            raise FileNotFoundError(f"{path}: {_NOWHERE}: {error}") from error
    elif (Path(path) / name).is_file():
        return Path(path) / name
    raise FileNotFoundError(
        f"{path}: has no {name}; geomotiongpt.data.builder.write_motion_statistics(folder, train_ids) computes "
        "Mean.npy and Std.npy of a HumanML3D folder"
    )


def _hub_name(path: str | Path) -> str:
    parts = str(path).split("/")
    if len(parts) != 2 or not all(parts) or parts[0] in (".", "..", "~"):
        raise FileNotFoundError(f"{path}: no such folder, and no Hub dataset either, which has the form user/name")
    return str(path)


def _check_statistics(values: np.ndarray, name: str, width: int) -> None:
    if values.shape != (width,):
        raise ValueError(f"{name}: shape {values.shape}, wanted ({width},)")
    if name.endswith("Std.npy") and not (values > 0).all():
        raise ValueError(
            f"{name}: {int((values <= 0).sum())} deviations are not above 0; features cannot be divided by them"
        )


@dataclass(frozen=True)
class _Selection:
    """Which items to keep."""

    representation: MotionRepresentation
    min_frames: int | None
    max_frames: int | None
    mirrored: bool

    @property
    def features(self) -> Features:
        motion = Array2D((None, self.representation.num_features), "float32")
        texts = List(Value("string"))
        return Features({"motion_id": Value("string"), "motion": motion, "captions": texts, "tokens": texts})

    def length_problem(self, num_frames: int) -> str:
        if self.min_frames is not None and num_frames < self.min_frames:
            return f"shorter than {self.min_frames} frames"
        if self.max_frames is not None and num_frames > self.max_frames:
            return f"longer than {self.max_frames} frames"
        return ""


def _is_mirrored(motion_id: str, all_ids: set[str]) -> bool:
    return motion_id.startswith("M") and motion_id[1:] in all_ids


# ---- folders


def _load_folder(
    folder: Path, split: str | None, selection: _Selection, num_proc: int | None, cache: Path
) -> DatasetDict:
    for part in (FEATURES_DIR, TEXTS_DIR):
        if not (folder / part).is_dir():
            raise FileNotFoundError(
                f"{folder / part}: no such folder; wanted {FEATURES_DIR}/ and {TEXTS_DIR}/ in {folder}"
            )
    names = [split] if split else list_splits(folder)
    if not names:
        raise FileNotFoundError(f"{folder}: no split list such as train.txt; was the folder built to the end?")
    return DatasetDict({name: _load_folder_split(folder, name, selection, num_proc, cache) for name in names})


def _load_folder_split(folder: Path, split: str, selection: _Selection, num_proc: int | None, cache: Path) -> Dataset:
    ids, repeated = without_repeats(read_split_list(folder, split))
    summary = LoadSummary(split, clips=len(ids), left_out={"listed again": repeated} if repeated else {})
    if not selection.mirrored:
        stems = {name.removesuffix(".npy") for name in os.listdir(folder / FEATURES_DIR)}
        for motion_id in filter(lambda motion_id: _is_mirrored(motion_id, stems), ids):
            summary.leave_out("mirrored", motion_id)
        ids = [motion_id for motion_id in ids if not _is_mirrored(motion_id, stems)]
    fingerprint = _fingerprint(folder, split, ids, selection)
    summary_path = cache / "motion_summaries" / f"{fingerprint}.json"
    num_shards = max(1, min(num_proc or 1, len(ids)))
    shards = [ids[k * len(ids) // num_shards : (k + 1) * len(ids) // num_shards] for k in range(num_shards)]
    kwargs = {"folder": folder, "selection": selection, "summary_path": summary_path, "shards": shards}
    try:
        dataset = Dataset.from_generator(
            _read_shards,
            features=selection.features,
            cache_dir=str(cache),
            gen_kwargs=kwargs,
            num_proc=num_shards if num_shards > 1 else None,
            split=NamedSplit(split),
            fingerprint=fingerprint,
            writer_batch_size=64,  # a long clip has millions of values, and Arrow counts those of a batch in 31 bits
        )
    except DatasetGenerationError as error:
        cause = error.__cause__ or error
        raise OSError(
            f"{folder}: cannot be put into the cache {cache} (cache_dir=... chooses another): {cause}"
        ) from error
    except ValueError:  # a split without rows
        summary.add(_read_summaries(summary_path, shards, folder, selection))
        if summary.items:
            raise
        raise ValueError(f"{folder}: no usable item in the split\n{summary}") from None
    summary.add(_read_summaries(summary_path, shards, folder, selection))
    dataset.info.description = json.dumps(asdict(summary))
    return dataset


def _fingerprint(folder: Path, split: str, ids: list[str], selection: _Selection) -> str:
    hasher = datasets.fingerprint.Hasher()
    hasher.update([_FORMAT_VERSION, str(folder.resolve()), split, selection.representation.name])
    hasher.update([selection.min_frames, selection.max_frames])
    for name, suffix in ((FEATURES_DIR, ".npy"), (TEXTS_DIR, ".txt")):
        with os.scandir(folder / name) as entries:
            stats = {entry.name: entry.stat() for entry in entries}
        found = [(motion_id, stats.get(motion_id + suffix)) for motion_id in ids]
        hasher.update([(motion_id, stat and (stat.st_size, stat.st_mtime_ns)) for motion_id, stat in found])
    return hasher.hexdigest()


def _shard_summary_path(path: Path, shard: list[str]) -> Path:
    return path.with_name(f"{path.stem}-{datasets.fingerprint.Hasher.hash(shard)}.json")


def _read_shards(folder: Path, selection: _Selection, summary_path: Path, shards: list[list[str]]) -> Iterator[dict]:
    """Yield the items of some clips; then keep beside the cache what was left out."""
    for shard in shards:
        summary = LoadSummary("")
        yield from _read_items(folder, shard, selection, summary)
        summary_path.parent.mkdir(parents=True, exist_ok=True)
        save_bytes(_shard_summary_path(summary_path, shard), json.dumps(asdict(summary)).encode())


def _read_summaries(path: Path, shards: list[list[str]], folder: Path, selection: _Selection) -> LoadSummary:
    """The summary of a cached split; made anew if its file is gone."""
    if path.exists():
        return LoadSummary(**json.loads(path.read_text()))
    total = LoadSummary("")
    for shard in shards:
        shard_path = _shard_summary_path(path, shard)
        if not shard_path.exists():
            for _ in _read_shards(folder, selection, path, [shard]):
                pass
        total.add(LoadSummary(**json.loads(shard_path.read_text())))
    save_bytes(path, json.dumps(asdict(total)).encode())
    return total


def _read_items(folder: Path, motion_ids: list[str], selection: _Selection, summary: LoadSummary) -> Iterator[dict]:
    for motion_id in motion_ids:
        text_path = folder / TEXTS_DIR / f"{motion_id}.txt"
        motion = _read_motion(folder / FEATURES_DIR / f"{motion_id}.npy", selection.representation, summary)
        if motion is None:
            continue
        try:
            captions, problems = read_valid_captions(text_path)
        except FileNotFoundError:
            summary.leave_out("no caption file", str(text_path.relative_to(folder)))
            continue
        except ValueError as error:
            summary.leave_out("unreadable caption file", str(error))
            continue
        for problem in problems:
            summary.leave_out("malformed caption line", problem.removeprefix(f"{folder}{os.sep}"))
        if not captions:
            summary.leave_out("no usable caption", motion_id)
        for (start, end), group in _group_captions(motion_id, captions, len(motion), selection, summary).items():
            whole = (start, end) == (0, 0)
            item_id = motion_id if whole else f"{motion_id}#{start}-{end}"
            part = motion if whole else motion[start:end]
            problem = selection.length_problem(len(part))
            if problem:
                summary.leave_out(problem, f"{item_id} ({len(part)})")
                continue
            summary.items, summary.captions = summary.items + 1, summary.captions + len(group)
            yield {
                "motion_id": item_id,
                "motion": part,
                "captions": [caption.caption for caption in group],
                "tokens": [" ".join(caption.tokens) for caption in group],
            }


def _read_motion(path: Path, representation: MotionRepresentation, summary: LoadSummary) -> np.ndarray | None:
    name = f"{path.parent.name}/{path.name}"
    try:
        motion = read_array(path)
    except FileNotFoundError:
        summary.leave_out("no motion file", name)
        return None
    except ValueError as error:
        summary.leave_out("unusable motion file", f"{name}: {error}")
        return None
    if motion.ndim != 2 or motion.shape[1] != representation.num_features:
        wanted = f"(frames, {representation.num_features})"
        summary.leave_out("wrong width", f"{name}: shape {motion.shape}, wanted {wanted} for {representation.name}")
        return None
    if len(motion) < 2:
        summary.leave_out("fewer than 2 frames", f"{name}: {len(motion)}")
        return None
    return motion.astype(np.float32, copy=False)


def _group_captions(
    motion_id: str, captions: list[CaptionSegment], num_frames: int, selection: _Selection, summary: LoadSummary
) -> dict[tuple[int, int], list[CaptionSegment]]:
    """Captions by the frames they describe, the whole clip as (0, 0), in the order of the file."""
    groups: dict[tuple[int, int], list[CaptionSegment]] = {}
    for caption in captions:
        start, end = caption.frame_span(selection.representation.fps, num_frames)
        if end - start < 2:
            where = f"{motion_id} ({caption.start} to {caption.end} s in a clip of {num_frames} frames)"
            summary.leave_out("segment of fewer than 2 frames", where)
            continue
        groups.setdefault((0, 0) if caption.is_whole_clip else (start, end), []).append(caption)
    return groups


# ---- parquet and save_to_disk


def _load_stored(path: str | Path, split: str | None, selection: _Selection, cache: Path) -> DatasetDict:
    """Load what `push_motion_dataset`, `to_parquet` or `save_to_disk` stored, and apply the selection."""
    folder = Path(path)
    if folder.is_dir():
        saved = any((folder / name).exists() for name in ("dataset_dict.json", "state.json"))
        if not saved and not any(folder.rglob("*.parquet")):
            raise FileNotFoundError(
                f"{folder}: no motion data; wanted {FEATURES_DIR}/, {TEXTS_DIR}/ and split lists, or parquet files"
            )
        loaded = (
            datasets.load_from_disk(str(folder)) if saved else datasets.load_dataset(str(folder), cache_dir=str(cache))
        )
    else:
        repo_id = _hub_name(path)
        try:
            loaded = datasets.load_dataset(repo_id, cache_dir=str(cache))
        except (FileNotFoundError, ConnectionError) as error:
            raise FileNotFoundError(f"{path}: {_NOWHERE}: {error}") from error
    splits = loaded if isinstance(loaded, DatasetDict) else DatasetDict({str(loaded.split): loaded})
    splits = splits.with_format(None)
    if split is not None and split not in splits:
        raise FileNotFoundError(f"{path}: no split {split!r}; splits there: {', '.join(splits)}")
    for name, dataset in splits.items():
        if "captions" in dataset.features and "tokens" not in dataset.features:
            splits[name] = dataset = _without_tokens(dataset, selection)
        _check_stored_features(path, dataset.features, selection)
    all_ids: set[str] = set()
    if not selection.mirrored:  # clips, not the parts of them that a caption is timed for
        all_ids = {motion_id.split("#")[0] for dataset in splits.values() for motion_id in dataset["motion_id"]}
    names = [split] if split else list(splits)
    return DatasetDict({name: _select_stored(splits[name], name, selection, all_ids) for name in names})


def _without_tokens(dataset: Dataset, selection: _Selection) -> Dataset:
    """The same with an empty `tokens` for every caption: what was stored without tagged words."""
    empty = [[""] * len(captions) for captions in dataset["captions"]]
    return dataset.add_column("tokens", empty, feature=selection.features["tokens"])


def _check_stored_features(path: str | Path, features: Features, selection: _Selection) -> None:
    wanted = selection.features
    if not set(wanted) <= set(features):
        raise ValueError(f"{path}: columns {', '.join(features)}; wanted {', '.join(wanted)}")
    motion = features["motion"]
    if not isinstance(motion, Array2D) or motion.shape[1] != selection.representation.num_features:
        name, width = selection.representation.name, selection.representation.num_features
        raise ValueError(f"{path}: motion is {motion}; wanted Array2D of width {width} for {name}")


def _select_stored(dataset: Dataset, split: str, selection: _Selection, all_ids: set[str]) -> Dataset:
    summary = LoadSummary(split, clips=len(dataset))
    lengths = [n for chunk in dataset.data["motion"].chunks for n in pc.list_value_length(chunk.storage).to_pylist()]
    kept = []
    for index, (motion_id, num_frames) in enumerate(zip(dataset["motion_id"], lengths, strict=True)):
        if not selection.mirrored and _is_mirrored(motion_id.split("#")[0], all_ids):
            summary.leave_out("mirrored", motion_id)
        elif problem := selection.length_problem(num_frames):
            summary.leave_out(problem, f"{motion_id} ({num_frames})")
        else:
            kept.append(index)
    if len(kept) < len(dataset):
        dataset = dataset.select(kept)
    summary.items = len(dataset)
    summary.captions = sum(map(len, dataset["captions"]))
    dataset.info.description = json.dumps(asdict(summary))
    return dataset
