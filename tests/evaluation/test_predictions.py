"""Anybody's captions: files in the usual layouts are read, everything else is refused by name."""

import csv
import hashlib
import json
import logging

import pytest

from geomotiongpt.evaluation.captioning import caption_scores
from geomotiongpt.evaluation.predictions import (
    read_predictions,
    score_predictions,
    select_references,
)

ROWS = [
    {"id": "000001", "prediction": "a person walks", "references": ["a man walks", "someone walks slowly"]},
    {"id": "M000002#0", "prediction": "", "references": ["a person jumps"]},
    {"id": "3", "prediction": "he waves, then sits", "references": ["a wave", "waving", "a hand waves", "he waves"]},
]
SYSTEMS = [
    {"id": row["id"], "references": row["references"], "outputs": {"good": row["references"][0], "poor": "a dog"}}
    for row in ROWS
]


def write(path, rows):
    """Writes rows (or any JSON value) in the format that the suffix names."""
    if path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def without(name, rows=ROWS):
    return [{key: value for key, value in row.items() if key != name} for row in rows]


def renamed(names, rows=ROWS):
    return [{names.get(key, key): value for key, value in row.items()} for row in rows]


def assert_read(captions):
    assert captions.ids == [row["id"] for row in ROWS]
    assert captions.predictions == {"prediction": [row["prediction"] for row in ROWS]}
    assert captions.references == [row["references"] for row in ROWS]


def test_first_three_references_repeat_in_turn_and_all_keeps_them():
    assert select_references(["a", "b", "c", "d"]) == ["a", "b", "c"]
    assert select_references(["a", "b"], "first-three") == ["a", "b", "a"]
    assert select_references(["a"], "first-three") == ["a", "a", "a"]
    assert select_references(["a", "b", "c", "d"], "all") == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match="'three'; choose 'first-three' or 'all'"):
        select_references(["a"], "three")
    with pytest.raises(ValueError, match="no references"):
        select_references([])


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".JSONL"])
def test_json_files_are_read(tmp_path, suffix):
    assert_read(read_predictions(write(tmp_path / f"captions{suffix.lower()}", ROWS).rename(tmp_path / f"x{suffix}")))


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("spell", [json.dumps, repr])
def test_lists_spelled_out_in_the_cells_of_a_table_are_read(tmp_path, suffix, spell):
    rows = [{**row, "references": spell(row["references"])} for row in ROWS]
    assert_read(read_predictions(write(tmp_path / f"captions{suffix}", rows)))


def test_numbered_reference_columns_are_read_in_order_without_their_empty_cells(tmp_path):
    numbered = [dict(zip(("gt_10", "GT 2", "gt-1"), "cba", strict=True)), dict.fromkeys(("gt_10", "GT 2", "gt-1"), "")]
    numbered[1]["GT 2"] = "only"
    rows = [{**row, **extra} for row, extra in zip(without("references")[:2], numbered, strict=True)]
    assert read_predictions(write(tmp_path / "captions.csv", rows)).references == [["a", "b", "c"], ["only"]]


def test_a_reference_column_without_a_number_is_the_first_of_its_numbered_ones(tmp_path):
    rows = [
        {"id": "1", "prediction": "a", "reference_3": "third", "reference": "first", "reference_2": "second"},
        {"id": "2", "prediction": "a", "reference_3": "", "reference": "['one', 'two']", "reference_2": "three"},
    ]
    assert read_predictions(write(tmp_path / "captions.csv", rows)).references == [
        ["first", "second", "third"],
        ["one", "two", "three"],
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["ref_1", "ref_2", "gt_1"], r"columns of 2 names \(ref_1, ref_2, gt_1\).*references_1, references_2"),
        (["label", "ref_1"], r"columns of 2 names \(label, ref_1\)"),
        (["ref_1", "gt_1"], r"columns of 2 names \(ref_1, gt_1\)"),
        (["ref", "ref_1", "ref_2"], r"columns of one number \(ref, ref_1, ref_2; a name without"),
        (["ref_2", "ref2"], r"columns of one number \(ref2, ref_2;"),
        (["reference", "reference.1"], r"columns of one number \(reference, reference\.1;"),
    ],
)
def test_reference_columns_whose_order_is_not_told_are_refused(tmp_path, names, message):
    rows = [{**row, **dict.fromkeys(names, "a")} for row in without("references")]
    path = write(tmp_path / "captions.csv", rows)
    with pytest.raises(ValueError, match=message):
        read_predictions(path)


@pytest.mark.parametrize(
    "cell",
    [
        "['a man walks' 'a person runs']",
        "['a man walks'\n 'a person runs']",
        "['a man walks'\r\n \"it's a run\"]",
        " ['one', 'two' 'three'] ",
    ],
)
def test_a_list_as_numpy_prints_it_is_refused_rather_than_joined(tmp_path, cell):
    rows = [{**ROWS[0], "references": "['one, two', 'it\\'s \"three\" \\'four\\'']"}, {**ROWS[1], "references": cell}]
    path = write(tmp_path / "captions.csv", rows)
    with pytest.raises(ValueError, match=r"captions\.csv: 'references' of row 2 is a list without commas.*tolist"):
        read_predictions(path)
    assert read_predictions(write(path, rows[:1])).references == [["one, two", "it's \"three\" 'four'"]]


@pytest.mark.parametrize(
    "names",
    [
        {"id": "Motion_ID", "prediction": "Pred", "references": "GT"},
        {"id": "name", "prediction": "caption", "references": "ground-truth"},
        {"id": "KEY", "prediction": "generated text", "references": "refs"},
        {"id": "file", "prediction": " Hypothesis ", "references": "Captions"},
        {"id": "image_id", "prediction": "candidate", "references": "targets"},
        {"id": "uid", "prediction": "output", "references": "reference"},
        {"id": "index", "prediction": "outputs", "references": "labels"},
    ],
)
def test_the_usual_column_names_are_known_in_any_case(tmp_path, names):
    assert_read(read_predictions(write(tmp_path / "captions.jsonl", renamed(names))))


def test_our_own_column_names_win_over_others(tmp_path):
    rows = [{**row, "name": "x", "output": "y", "gt": "z", "ref_1": "r"} for row in ROWS]
    assert_read(read_predictions(write(tmp_path / "captions.json", rows)))


def test_a_json_object_maps_ids_to_captions_or_to_objects(tmp_path):
    texts = {row["id"]: row["prediction"] for row in ROWS}
    lists = {row["id"]: [row["prediction"]] for row in ROWS}
    objects = {row["id"]: {"pred": row["prediction"], "refs": row["references"]} for row in ROWS}
    references = write(tmp_path / "references.json", {row["id"]: row["references"] for row in ROWS})
    assert_read(read_predictions(write(tmp_path / "texts.json", texts), references))
    assert_read(read_predictions(write(tmp_path / "lists.json", lists), references))
    assert_read(read_predictions(write(tmp_path / "objects.json", objects)))


def test_an_object_under_an_id_has_that_id_or_none(tmp_path):
    objects = {"7": {**ROWS[0], "id": 7}, "8": without("id")[1]}
    assert read_predictions(write(tmp_path / "objects.json", objects)).ids == ["7", "8"]
    path = write(tmp_path / "other.json", {**objects, "x": {**ROWS[2], "id": "other"}})
    with pytest.raises(ValueError, match="other.json: the object under 'x' has the id 'other'; wanted one id"):
        read_predictions(path)


def test_references_of_another_file_are_matched_by_id_and_what_is_left_is_counted(tmp_path, caplog):
    predictions = write(tmp_path / "predictions.csv", without("references"))
    extra = {"id": "000009", "references": ["never predicted"]}
    rows = renamed({"references": "caption"}, [extra, *reversed(without("prediction"))])
    references = write(tmp_path / "references.jsonl", rows)
    assert_read(read_predictions(predictions, references))
    with caplog.at_level(logging.WARNING):
        result = score_predictions(predictions, references, convention="coco")
    assert result["protocol"]["population"]["references_without_prediction"] == 1
    assert "000009" in caplog.text and "1 of 3 captions are empty" in caplog.text
    assert result["metrics"] == score_predictions(write(tmp_path / "one.json", ROWS), convention="coco")["metrics"]


def test_whole_numbers_are_ids_and_a_byte_order_mark_is_none_of_the_header(tmp_path):
    path = tmp_path / "captions.csv"
    path.write_text("\ufeffid,prediction,reference\n7,a man,a man\n\n8,a dog,a cat\n", encoding="utf-8")
    assert read_predictions(path).ids == ["7", "8"]
    assert read_predictions(write(tmp_path / "captions.json", [{**ROWS[0], "id": 7}])).ids == ["7"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (without("id"), "no column for the id; its columns are prediction, references.*motion_id"),
        (without("prediction"), "no column for the prediction; its columns are id, references"),
        (without("references"), "no column for the references; its columns are id, prediction"),
        (renamed({"id": "who", "prediction": "what"}), "its columns are who, what, references"),
        (
            [{**row, "pred": "a", "output": "b"} for row in without("prediction")],
            r"2 columns \(pred, output\) for the pre",
        ),
        ([{**row, "Prediction": "a"} for row in ROWS], "'prediction' and 'Prediction' have one name"),
        ([ROWS[0], *ROWS], "1 ids are there more than once \\(000001\\)"),
        ([*ROWS, {"id": "4", "references": ["a"]}], "row 4 has no 'prediction'"),
        ([*ROWS, {"id": "4", "prediction": "a"}], "row 4 has no 'references'"),
        ([{**ROWS[0], "id": None}], "id of row 1 is None"),
        ([{**ROWS[0], "id": ""}], "id of row 1 is ''"),
        ([{**ROWS[0], "id": 1.5}], "id of row 1 is 1.5"),
        ([{**ROWS[0], "prediction": None}], "'prediction' of row 1 is None; wanted a string"),
        ([{**ROWS[0], "prediction": float("nan")}], "'prediction' of row 1 is nan"),
        ([{**ROWS[0], "prediction": 3}], "'prediction' of row 1 is 3"),
        ([{**ROWS[0], "prediction": ["a", "b"]}], "row 1 has 2 captions in 'prediction'; wanted the one"),
        ([{**ROWS[0], "prediction": [None]}], "'prediction' of row 1 is None"),
        ([{**ROWS[0], "references": []}], "row 1 has no references"),
        ([{**ROWS[0], "references": ["a", ""]}], "a reference of row 1 is ''"),
        ([{**ROWS[0], "references": ["a", 2]}], "a reference of row 1 is 2"),
        (
            [{**ROWS[0], "references": "[a, b"}, {**ROWS[1], "references": "['a', b]"}],
            "of row 2 is neither a JSON nor",
        ),
        ([], "holds no captions"),
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_what_is_missing_or_wrong_is_said(tmp_path, suffix, rows, message):
    with pytest.raises(ValueError, match=message):
        read_predictions(write(tmp_path / f"captions{suffix}", rows))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "a person walks", r"wanted a file that ends in \.jsonl, \.json, \.csv, \.tsv"),
        ("a.jsonl", '{"id": "1"}\n{"id": \n', r"a\.jsonl:2 is not JSON"),
        ("a.jsonl", '["1", "a"]\n', r"a\.jsonl:1: wanted an object, met"),
        ("a.json", '["a"]', "item 0 is 'a'; wanted an object"),
        ("a.json", '"a"', "wanted a list of objects"),
        ("a.json", '{"1": "a", "1": "b"}', "a.json: 1 is there more than once"),
        ("a.csv", "id,prediction,reference\n1,a man, who walks,a man\n", r"a\.csv:2: 4 cells under 3 columns"),
        ("a.csv", "id,prediction,reference\n1,a man\n", r"a\.csv:2: 2 cells under 3 columns"),
        ("a.csv", "id,id,prediction\n1,2,a\n", "column id is there more than once"),
        ("a.csv", 'id,prediction\n1,"a\n', r"a\.csv:\d is not CSV"),
        ("a.csv", "id;prediction;reference\n1;a;b\n", "its columns are id;prediction;reference"),
        ("a.csv", "", "holds no captions"),
        ("a.csv", "id,prediction,ref1,ref2\n1,a,,\n", "row 1 has no references"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_place(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_predictions(path)


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.csv: no such file"):
        read_predictions(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes("id,prediction\n1,Läufer\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.csv is not UTF-8 text"):
        read_predictions(tmp_path / "latin.csv")


def test_an_id_without_references_is_refused_by_name(tmp_path):
    predictions = write(tmp_path / "predictions.jsonl", without("references"))
    references = write(tmp_path / "references.jsonl", without("prediction", ROWS[:1]))
    with pytest.raises(ValueError, match=r"no references of 2 of the 3 ids .*\(M000002#0, 3\).*are like 000001"):
        read_predictions(predictions, references)
    twice = write(tmp_path / "twice.jsonl", without("prediction", [*ROWS, ROWS[0]]))
    with pytest.raises(ValueError, match="twice.jsonl: 1 ids are there more than once"):
        read_predictions(predictions, twice)


def test_a_file_of_several_systems_wants_one_chosen(tmp_path):
    path = write(tmp_path / "systems.jsonl", SYSTEMS)
    with pytest.raises(ValueError, match="systems good, poor; none was chosen: name one, or 'all'"):
        score_predictions(path, convention="coco")
    with pytest.raises(ValueError, match="systems good, poor; there is no 'best'"):
        score_predictions(path, convention="coco", system="best")
    one = score_predictions(path, convention="coco", system="good")
    every = score_predictions(path, convention="coco", system="all")
    assert one["model"] == {"system": "good"} and every["model"] == {"system": ["good", "poor"]}
    assert list(every["metrics"]) == list(every["protocol"]["population"]) == ["good", "poor"]
    assert every["metrics"]["good"] == one["metrics"] and every["metrics"]["poor"]["bleu_1"] < one["metrics"]["bleu_1"]
    ragged = write(tmp_path / "ragged.jsonl", [*SYSTEMS, {**SYSTEMS[0], "id": "9", "outputs": {"good": "a"}}])
    with pytest.raises(ValueError, match=r"only some rows have the systems poor \(row 4\)"):
        read_predictions(ragged)


@pytest.mark.parametrize("name", ["prediction", "Caption"])
def test_several_systems_beside_a_column_of_captions_are_refused(tmp_path, name):
    for count, rows in enumerate((SYSTEMS, [*SYSTEMS[:2], {**SYSTEMS[2], "outputs": "a"}])):
        path = write(tmp_path / f"both{count}.jsonl", [{**row, name: "a"} for row in rows])
        with pytest.raises(ValueError, match=f"several systems in 'outputs' and captions in {name} too; drop one"):
            read_predictions(path)


@pytest.mark.parametrize("convention", ["coco", "nlgmetricverse"])
@pytest.mark.parametrize("policy", ["first-three", "all"])
def test_a_result_says_how_it_was_made(tmp_path, convention, policy):
    path = write(tmp_path / "captions.jsonl", ROWS)
    result = score_predictions(path, convention=convention, reference_policy=policy, track="token")
    references = [select_references(row["references"], policy) for row in ROWS]
    assert result["metrics"] == caption_scores([row["prediction"] for row in ROWS], references, convention=convention)
    protocol = result["protocol"]
    assert (protocol["convention"], protocol["reference_policy"], protocol["track"]) == (convention, policy, "token")
    assert protocol["direction"] == "motion-to-text" and protocol["libraries"]["pycocoevalcap"]
    population = protocol["population"]
    assert population["n"] == 3 and population["empty_predictions"] == 1
    assert population["cases_by_available_references"] == {"1": 1, "2": 1, "4": 1}
    assert result["data"]["predictions"] == {
        "file": "captions.jsonl",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert f"--reference-policy {policy} --track token" in result["command"] and result["schema"] == 1


def test_the_five_published_systems_are_scored_from_one_file(real_data):
    path = real_data / "reference" / "m2t_humanml3d_test.jsonl"
    captions = read_predictions(path)
    assert list(captions.predictions) == ["tm2t", "motiongpt", "motiongpt3", "vermo", "unimumo"]
    result = score_predictions(path, convention="nlgmetricverse", system="motiongpt3")
    population = result["protocol"]["population"]
    assert population["n"] == 4400 and population["empty_predictions"] == 32
    assert population["cases_by_available_references"] == {"1": 455, "2": 433, "3": 3512}
    assert result["metrics"]["bleu_1"] == pytest.approx(58.63, abs=0.01)
