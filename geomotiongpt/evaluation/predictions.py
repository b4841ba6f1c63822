"""Anybody's captions from a file, and their scores by the same ruler."""

import ast
import csv
import hashlib
import io
import json
import logging
import re
import shlex
import tokenize
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from .captioning import CaptionScorer, bert_scores, caption_protocol
from .results import make_result

logger = logging.getLogger(__name__)

REFERENCE_POLICIES = ("first-three", "all")
ALL_SYSTEMS = "all"
# The first name of each is ours and wins; columns are compared in lower case, with "_" for spaces and hyphens.
ID_COLUMNS = (
    *("id", "motion_id", "name", "key", "uid", "sample_id", "clip_id", "item_id", "caption_id", "image_id"),
    *("video_id", "motion", "motion_name", "file", "filename", "file_name", "idx", "index"),
)
PREDICTION_COLUMNS = (
    *("prediction", "predictions", "pred", "preds", "predicted", "predicted_caption", "pred_caption", "pred_text"),
    *("generated", "generated_text", "generated_caption", "output", "hypothesis", "hypotheses", "hyp", "candidate"),
    *("caption", "text", "answer", "response", "result"),
)
REFERENCE_COLUMNS = (
    *("references", "reference", "refs", "ref", "reference_captions", "reference_caption", "captions"),
    *("gt", "gts", "gt_caption", "gt_captions", "gt_text", "gt_texts", "ground_truth", "ground_truths", "groundtruth"),
    *("target", "targets", "label", "labels"),
)
SYSTEM_COLUMN = "outputs"


@dataclass(frozen=True)
class CaptionFile:
    """Captions to score and what they are scored against, in the order of the file.

    Args:
        ids: of the cases.
        predictions: system -> one caption a case; a file of one system names it "prediction".
        references: the captions of each case, as they stand in the file.
        unpredicted: ids of the references file that have no prediction.
    """

    ids: list[str]
    predictions: dict[str, list[str]]
    references: list[list[str]]
    unpredicted: list[str]


def select_references(references: Sequence[str], policy: str = "first-three") -> list[str]:
    """The references that count.

    Args:
        references: all captions of a motion, in their order.
        policy: "first-three" (the published protocol: of two captions A, B, A, of one A, A, A) or "all".

    Raises:
        ValueError: for another policy, or no references.
    """
    if policy not in REFERENCE_POLICIES:
        raise ValueError(
            f"there is no reference policy {policy!r}; choose {' or '.join(map(repr, REFERENCE_POLICIES))}."
        )
    if not references:
        raise ValueError("a motion has no references; wanted at least one.")
    if policy == "all":
        return list(references)
    return [references[index % len(references)] for index in range(3)]


def read_predictions(path: str | Path, references_path: str | Path | None = None) -> CaptionFile:
    """Reads captions, and their references from the same file or another.

    Args:
        path: JSONL, JSON (a list of objects, or id -> caption or object), CSV or TSV. Columns are found by their
            usual names (`ID_COLUMNS`, `PREDICTION_COLUMNS`, `REFERENCE_COLUMNS`) in any case; `outputs`
            (system -> caption) holds several systems, and then there is no other column of captions.
        references_path: a file of the same formats with an id and references (a list; JSON or a Python list in a
            cell; one string; or numbered columns `reference_1`, `reference_2`, ..., of which empty ones do not count
            and the first may stand without its number).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming file, row and column, for what cannot be read: another format, a missing column, an id that
            is there twice, a caption that is no string, no references, several columns of either, a list without
            its commas, an id that the references file lacks.
    """
    path = Path(path)
    rows = _read_rows(path, value_name="prediction")
    columns = _columns(rows, path)
    id_column = _find(columns, ID_COLUMNS, "id", path)
    ids = _unique_ids(rows, id_column, path)
    predictions = _read_systems(rows, columns, path)
    if references_path is None:
        return CaptionFile(ids, predictions, _read_references(rows, columns, REFERENCE_COLUMNS, path), [])

    references_path = Path(references_path)
    rows = _read_rows(references_path, value_name="references")
    columns = _columns(rows, references_path)
    names = (*REFERENCE_COLUMNS, "caption", "text", "texts")
    groups = _read_references(rows, columns, names, references_path)
    reference_ids = _unique_ids(rows, _find(columns, ID_COLUMNS, "id", references_path), references_path)
    by_id = dict(zip(reference_ids, groups, strict=True))
    unknown = [name for name in ids if name not in by_id]
    if unknown:
        raise ValueError(
            f"{references_path.name} has no references of {len(unknown)} of the {len(ids)} ids in {path.name} "
            f"({_some(unknown)}); its own ids are like {_some(reference_ids)}."
        )
    predicted = set(ids)
    unpredicted = [name for name in reference_ids if name not in predicted]
    return CaptionFile(ids, predictions, [by_id[name] for name in ids], unpredicted)


def score_predictions(
    predictions_path: str | Path,
    references_path: str | Path | None = None,
    *,
    convention: str,
    reference_policy: str = "first-three",
    track: str = "raw",
    system: str | None = None,
    bert_model: str | Path | None = None,
    bert_layer: int | None = None,
    bert_rescale: bool = False,
    device: str | torch.device = "cpu",
) -> dict[str, Any]:
    """Scores the captions of a file.

    Args:
        predictions_path: see `read_predictions`.
        references_path: see `read_predictions`; by default the references stand beside the predictions.
        convention: "coco" or "nlgmetricverse", see `CONVENTIONS`.
        reference_policy: "first-three" or "all", see `select_references`.
        track: what the references are, as it goes into the result: "raw" captions, "token" (lemmas), ...
        system: of a file with several; "all" scores each.
        bert_model: folder or Hub name of the encoder of BERTScore; without one there is none.
        bert_layer: see `bert_scores`.
        bert_rescale: see `bert_scores`.
        device: of that encoder.

    Returns:
        a result in the common schema, metrics as in `caption_scores`. With `system="all"` its metrics, and in
        `protocol` its `population`, are system -> the same.

    Raises:
        FileNotFoundError: as `read_predictions` does.
        ValueError: as it and `caption_scores` do; or for a system that the file has not, or none where it has several.
    """
    protocol = {
        "direction": "motion-to-text",
        "reference_policy": reference_policy,
        "track": track,
        **caption_protocol(convention, bert_model=bert_model, bert_layer=bert_layer, bert_rescale=bert_rescale),
    }
    captions = read_predictions(predictions_path, references_path)
    systems = _choose_systems(captions, system, Path(predictions_path))
    references = [select_references(group, reference_policy) for group in captions.references]
    scorer = CaptionScorer(references, convention)
    metrics, population = {}, {}
    for name in systems:
        predictions = captions.predictions[name]
        metrics[name] = scorer.score(predictions)
        if bert_model is not None:
            metrics[name] |= bert_scores(
                predictions, references, bert_model, layer=bert_layer, rescale=bert_rescale, device=device
            )
        population[name] = _population(captions, name)
    several = system == ALL_SYSTEMS
    sources = {"predictions": predictions_path, "references": references_path or predictions_path}
    options = {
        "predictions": predictions_path,
        "references": references_path,
        "convention": convention,
        "reference-policy": reference_policy,
        "track": track,
        "system": system,
        "bert-model": bert_model,
        "bert-layer": bert_layer,
    }
    command = ["geomotiongpt", "evaluate"]
    for name, value in options.items():
        command += [] if value is None else [f"--{name}", str(value)]
    command += ["--bert-rescale"] if bert_rescale else []
    return make_result(
        command=shlex.join(command),
        model={"system": systems if several else systems[0]},
        data={name: {"file": Path(path).name, "sha256": _sha256(path)} for name, path in sources.items()},
        protocol={**protocol, "population": population if several else population[systems[0]]},
        metrics=metrics if several else metrics[systems[0]],
    )


def _population(captions: CaptionFile, system: str) -> dict[str, Any]:
    empty = sum(not text.strip() for text in captions.predictions[system])
    if empty:
        logger.warning(
            "%s: %d of %d captions are empty; they count as empty strings.", system, empty, len(captions.ids)
        )
    if captions.unpredicted:
        logger.warning(
            "%d of the references' ids have no prediction and are not scored: %s",
            len(captions.unpredicted),
            _some(captions.unpredicted),
        )
    available = Counter(len(group) for group in captions.references)
    return {
        "n": len(captions.ids),
        "filter": "none: every case of the predictions file",
        "empty_predictions": empty,
        "references_without_prediction": len(captions.unpredicted),
        "cases_by_available_references": {str(number): available[number] for number in sorted(available)},
    }


def _choose_systems(captions: CaptionFile, system: str | None, path: Path) -> list[str]:
    names = list(captions.predictions)
    if system == ALL_SYSTEMS:
        return names
    if system is None and len(names) == 1:
        return names
    if system not in names:
        met = "none was chosen" if system is None else f"there is no {system!r}"
        raise ValueError(f"{path.name} holds the systems {', '.join(names)}; {met}: name one, or {ALL_SYSTEMS!r}.")
    return [system]


def _read_rows(path: Path, value_name: str) -> list[dict[str, Any]]:
    """The file's records; `value_name` is the column of the values in an id -> value file."""
    readers = {".jsonl": _read_json_lines, ".json": _read_json, ".csv": _read_csv, ".tsv": _read_csv}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path.name}: wanted a file that ends in {', '.join(readers)}.")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    try:
        rows = readers[path.suffix.lower()](path, value_name)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not UTF-8 text: {error}") from error
    if not rows:
        raise ValueError(f"{path.name} holds no captions.")
    return rows


def _read_json_lines(path: Path, value_name: str) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if line.strip():
            row = _parse_json(line, f"{path.name}:{number}")
            if not isinstance(row, dict):
                raise ValueError(f"{path.name}:{number}: wanted an object, met {line.strip()[:60]!r}.")
            rows.append(row)
    return rows


def _read_json(path: Path, value_name: str) -> list[dict[str, Any]]:
    value = _parse_json(path.read_text(encoding="utf-8-sig"), path.name)
    if isinstance(value, list):
        for index, row in enumerate(value):
            if not isinstance(row, dict):
                raise ValueError(f"{path.name}: item {index} is {row!r}; wanted an object with an id.")
        return value
    if not isinstance(value, dict):
        raise ValueError(f"{path.name}: wanted a list of objects, or an object of id -> {value_name}.")
    for name, content in value.items():
        if isinstance(content, dict) and str(content.get("id", name)) != name:
            raise ValueError(
                f"{path.name}: the object under {name!r} has the id {content['id']!r}; wanted one id: make them the "
                "same, or drop the inner one."
            )
    return [
        {**content, "id": name} if isinstance(content, dict) else {"id": name, value_name: content}
        for name, content in value.items()
    ]


def _parse_json(text: str, where: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
        if twice:
            raise ValueError(f"{where}: {_some(twice)} is there more than once.")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON: {error}") from error


def _read_csv(path: Path, value_name: str) -> list[dict[str, Any]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = next(reader, [])
            rows = []
            for cells in reader:
                if not cells:
                    continue  # an empty line
                if len(cells) != len(header):
                    raise ValueError(
                        f"{path.name}:{reader.line_num}: {len(cells)} cells under {len(header)} columns; "
                        "a caption with a separator stands in quotes."
                    )
                rows.append(dict(zip(header, cells, strict=True)))
        except csv.Error as error:
            raise ValueError(f"{path.name}:{reader.line_num} is not CSV: {error}") from error
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise ValueError(f"{path.name}: the column {_some(twice)} is there more than once.")
    return rows


def _columns(rows: Sequence[Mapping[str, Any]], path: Path) -> dict[str, str]:
    """Normalised name -> name of each column; every row has the same."""
    columns: dict[str, str] = {}
    for name in {name: None for row in rows for name in row}:
        normalised = re.sub(r"[\s-]+", "_", name.strip().lower())
        if normalised in columns:
            raise ValueError(f"{path.name}: the columns {columns[normalised]!r} and {name!r} have one name.")
        columns[normalised] = name
    return columns


def _find(columns: Mapping[str, str], names: Sequence[str], role: str, path: Path) -> str:
    if names[0] in columns:
        return columns[names[0]]
    found = [columns[name] for name in names if name in columns]
    if len(found) == 1:
        return found[0]
    met = "has no column" if not found else f"has {len(found)} columns ({_some(found)})"
    raise ValueError(
        f"{path.name} {met} for the {role}; its columns are {', '.join(columns.values())}. "
        f"Name one {names[0]!r} (or {', '.join(names[1:4])}, ...)."
    )


def _cell(row: Mapping[str, Any], column: str, name: str, path: Path) -> Any:
    if column not in row:
        raise ValueError(f"{path.name}: {name} has no {column!r}.")
    return row[column]


def _unique_ids(rows: Sequence[Mapping[str, Any]], column: str, path: Path) -> list[str]:
    ids = []
    for number, row in enumerate(rows, 1):
        value = _cell(row, column, f"row {number}", path)
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
            raise ValueError(f"{path.name}: the id of row {number} is {value!r}; wanted a string or a whole number.")
        ids.append(str(value))
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise ValueError(
            f"{path.name}: {len(twice)} ids are there more than once ({_some(twice)}); wanted one row a case, "
            "with all its references."
        )
    return ids


def _read_systems(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], path: Path) -> dict[str, list[str]]:
    several = columns.get(SYSTEM_COLUMN)
    others = [columns[name] for name in PREDICTION_COLUMNS if name in columns]
    if several is not None and others and any(isinstance(row.get(several), dict) for row in rows):
        raise ValueError(
            f"{path.name} has several systems in {several!r} and captions in {_some(others)} too; drop one, or put "
            f"all captions into {several!r}."
        )
    if several is None or not all(isinstance(row.get(several), dict) for row in rows):
        column = _find(columns, (*PREDICTION_COLUMNS, SYSTEM_COLUMN), "prediction", path)
        return {"prediction": [_prediction(row, column, f"row {n}", path) for n, row in enumerate(rows, 1)]}
    systems = list(rows[0][several])
    for number, row in enumerate(rows, 1):
        differing = set(row[several]) ^ set(systems)
        if differing:
            raise ValueError(
                f"{path.name}: only some rows have the systems {_some(sorted(differing))} (row {number})."
            )
    return {
        system: [_prediction(row[several], system, f"row {n}", path) for n, row in enumerate(rows, 1)]
        for system in systems
    }


def _prediction(row: Mapping[str, Any], column: str, name: str, path: Path) -> str:
    value = _cell(row, column, name, path)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list):
        raise ValueError(f"{path.name}: {name} has {len(value)} captions in {column!r}; wanted the one to score.")
    if not isinstance(value, str):
        raise ValueError(f"{path.name}: {column!r} of {name} is {value!r}; wanted a string, empty for no caption.")
    return value


def _read_references(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], names: Sequence[str], path: Path
) -> list[list[str]]:
    parts = _reference_columns(columns, names, path)
    groups = []
    for number, row in enumerate(rows, 1):
        group: list[Any] = []
        for column in parts:
            value = _cell(row, column, f"row {number}", path)
            if value != "":
                group += _reference_list(value, f"{path.name}: {column!r} of row {number}")
        if not group:
            raise ValueError(f"{path.name}: row {number} has no references; wanted at least one.")
        for text in group:
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"{path.name}: a reference of row {number} is {text!r}; wanted a string with words.")
        groups.append(group)
    return groups


def _reference_columns(columns: Mapping[str, str], names: Sequence[str], path: Path) -> list[str]:
    """The column of the references, or those of one name in the order of their numbers."""
    families: dict[str, list[tuple[int, str]]] = {}
    for name, column in columns.items():
        match = re.fullmatch(r"(.+?)(?:[_.]?(\d+))?", name)
        if match and match[1] in names:
            families.setdefault(match[1], []).append((int(match[2] or 1), column))
    if names[0] in columns:  # ours wins
        families = {names[0]: families[names[0]]}
    if all(name in columns and len(family) == 1 for name, family in families.items()):
        return [_find(columns, names, "references", path)]
    found = [column for family in families.values() for _, column in sorted(family)]
    if len(families) > 1:
        raise ValueError(
            f"{path.name} has reference columns of {len(families)} names ({_some(found)}); wanted those of one name, "
            f"numbered. Drop the others, or name all {names[0]}_1, {names[0]}_2, ..."
        )
    numbers = Counter(number for family in families.values() for number, _ in family)
    if len(numbers) < len(found):
        raise ValueError(
            f"{path.name} has reference columns of one number ({_some(found)}; a name without a number is number 1). "
            f"Name them {names[0]}_1, {names[0]}_2, ..."
        )
    return found


def _reference_list(value: Any, where: str) -> list[Any]:
    """A list as it is; a list that a CSV cell spells out, in JSON or Python; any other value as the one reference."""
    if isinstance(value, str) and re.fullmatch(r"\s*\[.*\]\s*", value, re.DOTALL):
        text = value
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            try:
                value = ast.literal_eval(text.strip())
            except (SyntaxError, ValueError) as error:
                raise ValueError(f"{where} is neither a JSON nor a Python list: {text[:60]!r}.") from error
            if _joins_strings(text):
                raise ValueError(
                    f"{where} is a list without commas, as NumPy prints arrays: {text[:60]!r}. "
                    "Write array.tolist(), or json.dumps of it, into the cell."
                ) from None
    return value if isinstance(value, list) else [value]


def _joins_strings(source: str) -> bool:
    """Whether Python reads strings that stand side by side as one."""
    tokens = tokenize.generate_tokens(io.StringIO(source.strip(), newline=None).readline)
    types = [token.type for token in tokens if token.type not in (tokenize.NL, tokenize.COMMENT)]
    return (tokenize.STRING, tokenize.STRING) in pairwise(types)


def _some(names: Sequence[str], limit: int = 5) -> str:
    return ", ".join(map(str, names[:limit])) + (", ..." if len(names) > limit else "")


def _sha256(path: str | Path) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
