"""Studies: grid and seeds, rows that survive a kill, reports that say what the rows say."""

import json
import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from scipy import stats

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "examples" / "geometry_study.py"
STUDIES = ROOT / "examples" / "studies" / "geometry"
TINY = {
    "data": {"source": "embedded", "num_motions": 120, "seed": 0},
    "evaluator": {
        "recipe": "hub_configs/geomotiongpt-tiny/evaluator.yaml",
        "options": ["training.max_steps=2", "training.eval_strategy=no", "model.motion_hidden_size=16"],
    },
    "splits": ["test", "val"],
    "generation": {"do_sample": False},
    "seeds": 2,
    "validation_loss": 100.0,
    "stages": {
        "motion_tokenizer": {
            "recipe": "hub_configs/geomotiongpt-tiny/motion_tokenizer.yaml",
            "options": ["model.hidden_size=16", "model.num_codes=32", "model.code_dim=32", "training.max_steps=2"],
        },
        "language_model": {
            "recipe": "hub_configs/geomotiongpt-tiny/language_model.yaml",
            "options": [
                "model.motion_tokenizer={motion_tokenizer}",
                "model.projection_seed={seed}",
                "model.language_model_config={n_layer: 1, n_embd: 48, n_head: 2, n_positions: 256}",
                "training.tasks={motion-to-text: 1, text-to-motion: 1}",
                "training.eval_each_task=true",
                "training.eval_steps=1",
                "training.max_steps=2",
                "generation.max_new_tokens=4",
            ],
        },
    },
    "cells": [
        {"name": "default", "question": "main", "title": "the default"},
        {
            "name": "neither",
            "question": "main",
            "title": "neither",
            "changes": {
                "motion_tokenizer": ["model.orthonormality_weight=0"],
                "language_model": ["model.projection=none", "model.free_rows_start=random"],
            },
        },
    ],
}


def run(*options, check=True):
    command = [sys.executable, str(SCRIPT), *map(str, options)]
    return subprocess.run(command, check=check, capture_output=True, text=True, cwd=ROOT)


def write_study(folder, **changes):
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, **changes}, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def study_modules():
    """The modules of examples/studies, as the script sees them."""
    sys.path.insert(0, str(ROOT / "examples" / "studies"))
    import study_report
    import study_rows
    import study_runs

    yield study_runs, study_rows, study_report
    sys.path.remove(str(ROOT / "examples" / "studies"))


def make_row(study_runs, study, name, seed, **metrics):
    cell = study.cell(name)
    return {
        "model": {
            "cell": name,
            "seed": seed,
            "stages": study.stage_keys(cell, seed),
            "seconds": {"motion_tokenizer": 1800, "language_model": 3600, "measuring": 0},
            "curve": [[50, 2.0], [100, 1.0 - 0.1 * seed]],
        },
        "data": {"test": "same"},
        "protocol": {"settings": study.settings(cell, seed), "evaluator_sha256": "one"},
        "metrics": metrics,
    }


def write_rows(path, rows):
    path.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
def test_a_killed_study_goes_on_and_only_what_is_missing_runs(tmp_path):
    alone = {"name": "alone", "question": "main", "title": "a tokenizer alone", "changes": {"language_model": None}}
    study, rows = write_study(tmp_path, cells=[TINY["cells"][0], alone]), tmp_path / "tiny.jsonl"
    work = ["--work", tmp_path / "work"]
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(study), *map(str, work)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    while not rows.is_file():
        assert process.poll() is None
        time.sleep(0.1)
    children = psutil.Process(process.pid).children()
    process.terminate()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert not any(child.is_running() for child in children)
    (first,) = rows.read_text().splitlines()
    assert "1 of 4 runs are there" in run(study, *work, "--processes", 2).stdout
    complete = rows.read_text().splitlines()
    found = [(row["model"]["cell"], row["model"]["seed"]) for row in map(json.loads, complete)]
    assert found == [("default", 0), ("default", 1), ("alone", 0), ("alone", 1)] and complete[0] == first
    assert {row["environment"]["threads"] for row in map(json.loads, complete)} == {1}
    shared = [row["model"]["stages"]["motion_tokenizer"] for row in map(json.loads, complete)]
    assert shared[:2] == shared[2:] and shared[0] != shared[1]
    # Half of the rows gone, and a trained model: exactly these run again, and give the same figures.
    rows.write_text(f"{complete[0]}\n{complete[3]}\n")
    shutil.rmtree(tmp_path / "work" / "language_model")
    assert "2 of 4 runs are there" in run(study, *work, "--processes", 2).stdout
    again = rows.read_text().splitlines()
    assert [again[0], again[3]] == [complete[0], complete[3]]
    for before, after in zip(map(json.loads, complete), map(json.loads, again), strict=True):
        assert after["metrics"] == before["metrics"]
        assert after["model"].get("curve") == before["model"].get("curve")
    # One cell changed: its runs alone.
    changed = {**alone, "changes": {"language_model": None, "motion_tokenizer": ["model.orthonormality_weight=0"]}}
    write_study(tmp_path, cells=[TINY["cells"][0], changed])
    listed = run(study, *work, "--list").stdout.splitlines()
    assert [line.split()[0] for line in listed[:4]] == ["there", "there", "missing", "missing"]
    write_study(tmp_path, cells=[TINY["cells"][0], alone])
    repeated = run(study, *work, "--cell", "alone", "--seed", 1, "--again").stdout
    figures = {line.split()[0]: line.split()[1:3] for line in repeated.splitlines()[1:]}
    assert figures["perplexity"][0] == figures["perplexity"][1]
    assert rows.read_text().splitlines() == again


def test_stages_of_equal_settings_are_shared_and_others_are_not(study_modules, tmp_path):
    study_runs, _, _ = study_modules
    study = study_runs.load_study(write_study(tmp_path))
    default, neither = study.cells
    keys = [study.stage_keys(default, 0), study.stage_keys(neither, 0), study.stage_keys(default, 1)]
    assert len({key["motion_tokenizer"] for key in keys}) == len({key["language_model"] for key in keys}) == 3
    changed = {"language_model": ["model.projection=none"]}
    cells = [TINY["cells"][0], {**TINY["cells"][1], "changes": changed}]
    study = study_runs.load_study(write_study(tmp_path, cells=cells))
    default, other = (study.stage_keys(cell, 0) for cell in study.cells)
    assert default["motion_tokenizer"] == other["motion_tokenizer"]
    assert default["language_model"] != other["language_model"]
    assert study.settings(study.cells[0], 0) != study.settings(study.cells[0], 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sedes": 3}, "must have the keys"),
        ({"cells": [{"name": "default", "question": "main"}]}, "a cell has name, question and title"),
        ({"cells": [TINY["cells"][0], TINY["cells"][0]]}, "two cells are called 'default'"),
        ({"cells": [{**TINY["cells"][0], "changes": {"tokenizer": []}}]}, "changes the stage 'tokenizer'"),
        ({"evaluator": {"recipe": "hub_configs/none.yaml"}}, "which does not exist"),
    ],
)
def test_a_study_that_cannot_be_understood_says_where(study_modules, changes, said, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        study_modules[0].load_study(write_study(tmp_path, **changes))


def test_differences_are_paired_by_seed(study_modules, tmp_path):
    study_runs, study_rows, study_report = study_modules
    path = write_study(tmp_path, seeds=3)
    study = study_runs.load_study(path)
    rows = [make_row(study_runs, study, "default", seed, cider=100.0 * seed) for seed in (0, 1, 2)]
    rows += [make_row(study_runs, study, "neither", seed, cider=100.0 * seed - 2 + 0.1 * seed) for seed in (0, 1, 2)]
    write_rows(path, rows)
    measured = study_rows.Measured.read(path)
    assert measured.differences(study.cell("neither"), "cider") == pytest.approx([-2, -1.9, -1.8])
    # Student's t with 2 degrees of freedom: 4.303 * 0.1 / sqrt(3)
    assert study_report.difference(measured, "neither", "cider") == "**-1.9 ± 0.2**", "100 a seed is much noise"
    assert study_report.value(measured, "default", "cider") == "100.0 ± 248.4"
    assert study_report.extent(measured, "default", "cider") == "0.0 to 200.0"
    # The loss and the steps to it are the same.
    assert study_report.comparisons(measured).startswith("of 2 differences 1 are bold ")
    assert study_report.comparisons(measured).endswith(", 0 have †")
    assert measured.values(study.cell("default"), "steps_to_loss") == {}, "there before the first evaluation"
    mean, width = study_rows.interval([3.0])
    assert mean == 3 and math.isnan(width)


def test_noise_is_pooled_over_cells_and_discoveries_are_few(study_modules, tmp_path):
    study_runs, study_rows, study_report = study_modules
    cells = [dict(cell) for cell in TINY["cells"]]
    for name in ("linear", "orthogonal"):
        changes = {"language_model": [f"model.projection={name}"]}
        cells.append({"name": name, "question": "projection", "title": name, "changes": changes})
    changes = {**cells[1]["changes"], "language_model": ["model.projection=linear"]}
    cells.append({"name": "both", "question": "main", "title": "both", "against": "neither", "changes": changes})
    dead = {"motion_tokenizer": ["model.utilisation_weight=0"]}
    cells.append({"name": "dead", "question": "main", "title": "dead", "apart": True, "changes": dead})
    path = write_study(tmp_path, seeds=3, cells=cells)
    study = study_runs.load_study(path)
    cider = {"default": (10, 12, 14), "neither": (30, 33, 36), "linear": (13, 15.5, 18), "orthogonal": (10, 13, 13)}
    cider |= {"both": (31, 33, 35), "dead": (0, 30, 90)}
    error = {cell: 50 if cell in ("default", "linear", "orthogonal") else 60 for cell in cider}
    rows = [
        make_row(study_runs, study, cell, seed, cider=values[seed], joint_error_mm=error[cell] + seed)
        for cell, values in cider.items()
        for seed in range(3)
    ]
    write_rows(path, rows)
    measured = study_rows.Measured.read(path)
    # With the default's tokenizer, less the means of cells and of seeds: a block of 3 x 3 with 4 degrees of freedom;
    # with that of "neither": 31 - 30, 33 - 33, 35 - 36 to either side, with 2.
    block = np.array([cider[name] for name in ("default", "linear", "orthogonal")], float)
    left = block - block.mean(0) - block.mean(1, keepdims=True) + block.mean()
    squares = (left**2).sum() + 4 * 0.5**2
    assert measured.spread("cider", True) == (pytest.approx(math.sqrt(squares / 6)), 6)
    # Within cells, those of one tokenizer as one: variances 4, 6.25, 3 and 9, 4; "dead" stands apart
    within = (np.mean([4, 6.25, 3]) + np.mean([9, 4])) / 2
    assert measured.spread("cider", False) == (pytest.approx(math.sqrt(within)), 4)
    assert measured.resolution("cider", False, 3) == pytest.approx(2.776 * math.sqrt(within * 2 / 3), abs=1e-3)
    assert measured.spread("joint_error_mm", True) is None, "a shared tokenizer is no comparison"
    tested = {cell for cell, metric in measured.probabilities if metric == "cider"}
    assert tested == {"neither", "linear", "orthogonal", "both", "dead"}
    size = 21 / math.sqrt(within * 2 / 3)
    assert measured.probabilities["neither", "cider"] == pytest.approx(2 * stats.t.sf(size, 4))
    assert measured.error(study.cell("dead"), "cider")[1] == 2, "by its own differences"
    # "both" has the tokenizer of "neither"; the differences of "dead" have no scatter of their own
    assert {cell for cell, metric in measured.probabilities if metric == "joint_error_mm"} == {"neither"}
    assert study_report.difference(measured, "linear", "joint_error_mm") == "same"
    assert study_report.changes(measured, "neither", "cider") == "+20.0 to +22.0"
    assert study_report.between(measured, "neither", "default", "cider", "joint_error_mm").startswith(
        "CIDEr +21.0 ± 2.5;"
    )
    found = {(cell, metric) for cell, metric in measured.probabilities if measured.stands(study.cell(cell), metric)}
    assert found == {("neither", "cider"), ("linear", "cider")}
    assert study_report.difference(measured, "neither", "cider") == "**+21.0 ± 2.5 †**"
    assert study_report.difference(measured, "both", "cider") == "+0.0 ± 2.5"
    assert study_report.effects(measured, "neither", "cider") == "CIDEr +21.0 ± 2.5 †"
    assert study_report.effects(measured, "both", "cider") == "CIDEr +0.0 ± 2.5, against `neither` (none has †)"
    assert study_report.effects(measured, "default", "cider").endswith("(too few seeds yet to tell)")
    assert "against `neither`" in study_report.table(measured, "main", "differences")
    assert "| CIDEr | 12.0 ± 5.0 |" in study_report.noise(measured)
    width = 100 * 2.776 * math.sqrt(within * 2 / 3) / 12
    assert study_report.verdict(measured, "neither", "cider", "170") == f"+175.0 ± {width:.1f} % | seen"
    assert study_report.verdict(measured, "neither", "cider", "10").endswith("| seen, larger")
    assert study_report.verdict(measured, "neither", "cider", "-10").endswith("| not seen")
    assert study_report.percent(measured, "neither", "cider") == f"+175.0 ± {width:.1f} %"
    assert study_rows.is_clear([0.1, 0.11, 0.12]) and not study_rows.is_clear([1 / 231, 3 / 231 - 2 / 231, 1 / 231])
    assert study_report.verdict(measured, "both", "cider", "1").endswith("| cannot tell")


def test_what_no_difference_makes_is_found_by_chance_alone(study_modules, tmp_path):
    """Figures drawn with a scatter of tokenizers and one of runs: one in twenty differences is significant at 5 %."""
    study_runs, study_rows, _ = study_modules
    cells = [TINY["cells"][0]]
    for number in range(3):
        seeds = {"motion_tokenizer": [f"model.root_weight={number + 2}"]}
        cells.append({"name": f"own{number}", "question": "main", "title": "own", "changes": seeds})
        options = {"language_model": [f"model.orthonormality_weight={number + 2}"]}
        cells.append({"name": f"shared{number}", "question": "main", "title": "shared", "changes": options})
    path = write_study(tmp_path, seeds=3, cells=cells)
    study = study_runs.load_study(path)
    rows = {(cell.name, seed): make_row(study_runs, study, cell.name, seed) for cell, seed in study.runs}
    tokenizers = {key: next(iter(row["model"]["stages"].values())) for key, row in rows.items()}
    rng, levels = np.random.default_rng(0), {"own": [], "shared": []}
    for _ in range(300):
        of_tokenizers = {key: 3 * rng.standard_normal() for key in sorted(set(tokenizers.values()))}
        for key, row in rows.items():
            row["metrics"] = {"cider": 300 + of_tokenizers[tokenizers[key]] + rng.standard_normal()}
        measured = study_rows.Measured(study, rows)
        for (cell, metric), probability in measured.probabilities.items():
            if metric == "cider":
                levels[cell.rstrip("012")].append(probability)
    for kind, found in levels.items():
        share = np.mean(np.array(found) < 0.05)
        assert len(found) == 900 and 0.03 < share < 0.075, (kind, share)


def test_steps_to_a_loss_are_read_between_evaluations_and_only_where_it_is_reached(study_modules, tmp_path):
    study_runs, study_rows, study_report = study_modules
    path = write_study(tmp_path, seeds=3, validation_loss=0.95)
    study = study_runs.load_study(path)
    write_rows(path, [make_row(study_runs, study, "default", seed, cider=1.0) for seed in range(3)])
    measured = study_rows.Measured.read(path)
    # From 2 at step 50 to 1, 0.9 and 0.8 at step 100
    found = {1: 50 + 50 * 1.05 / 1.1, 2: 50 + 50 * 1.05 / 1.2}
    assert measured.values(study.cells[0], "steps_to_loss") == pytest.approx(found)
    assert study_report.value(measured, "default", "steps_to_loss").endswith(" (2 seeds)")


def test_rows_of_another_evaluator_are_compared_by_what_it_has_no_part_in(study_modules, tmp_path):
    study_runs, study_rows, study_report = study_modules
    path = write_study(tmp_path, seeds=3)
    study = study_runs.load_study(path)
    rows = [make_row(study_runs, study, "default", seed, cider=1.0, generated_fid=2.0 + seed) for seed in range(3)]
    rows[1]["protocol"]["evaluator_sha256"] = "another"
    write_rows(path, rows)
    measured = study_rows.Measured.read(path)
    assert measured.evaluator == "one" and list(measured.values(study.cells[0], "cider")) == [0, 1, 2]
    assert list(measured.values(study.cells[0], "generated_fid")) == [0, 2]
    assert study_report.evaluators(measured).endswith(
        "but for 1 rows of another, whose FID and retrieval are left out"
    )
    rows[2]["data"] = {"test": "other"}
    write_rows(path, rows)
    with pytest.raises(ValueError, match="data of 2 kinds"):
        study_rows.Measured.read(path)
    path.with_suffix(".jsonl").write_text('{"model": {}}\n')
    with pytest.raises(ValueError, match=r"tiny\.jsonl, line 1 is no row"):
        study_rows.Measured.read(path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--processes", "0"], "0 is less than 1"),
        (["--rows", "nowhere/rows.jsonl"], "nowhere: no such folder to write the rows into"),
    ],
)
def test_options_that_cannot_be_met_are_refused_before_anything_runs(options, said, tmp_path):
    process = run(write_study(tmp_path), *options, check=False)
    assert process.returncode == 2 and said in process.stderr and "Traceback" not in process.stderr
    assert not (ROOT / "runs" / "studies" / f"{tmp_path.name}-tiny").exists()


def test_a_folder_without_the_real_motion_is_named(study_modules, tmp_path):
    study_runs, _, _ = study_modules
    path = write_study(tmp_path, data={"source": "real"})
    study = study_runs.load_study(path, tmp_path / "work", tmp_path)
    with pytest.raises(FileNotFoundError, match="is no folder of the real motion: it has no unpack.py"):
        study_runs.prepare_study(study)


def test_a_repeated_run_stands_beside_what_another_seed_would_give(study_modules, tmp_path):
    study_runs, _, study_report = study_modules
    study = study_runs.load_study(write_study(tmp_path, seeds=3))
    rows = [make_row(study_runs, study, "default", seed, cider=value) for seed, value in enumerate((10.0, 12.0, 14.0))]
    again = make_row(study_runs, study, "default", 1, cider=21.0)
    # Student's t with 2 degrees of freedom, a deviation of 2, and one more value: 4.303 * 2 * sqrt(1 + 1 / 3)
    figures, summary = study_report.compare_with_rows(again, rows).splitlines()[1:]
    assert figures.split() == ["cider", "21", "12", "12", "±", "9.9", "inside"]
    assert summary == "0 of 1 figures are the committed ones; 1 of 1 lie inside."
    again["metrics"]["cider"] = 22.5
    assert study_report.compare_with_rows(again, rows).splitlines()[1].split()[-1] == "outside"


def test_rows_of_other_settings_are_not_reported(study_modules, tmp_path):
    study_runs, study_rows, study_report = study_modules
    path = write_study(tmp_path)
    study = study_runs.load_study(path)
    stale = make_row(study_runs, study, "neither", 0, cider=1.0)
    stale["protocol"]["settings"] = "of another study"
    write_rows(path, [make_row(study_runs, study, "default", 0, cider=5.0), stale])
    measured = study_rows.Measured.read(path)
    assert [(cell.name, seed) for cell, seed in measured.missing] == [("default", 1), ("neither", 0), ("neither", 1)]
    assert "neither" not in study_report.table(measured, "main", "captions")


def test_text_is_filled_in_from_the_rows_and_nothing_is_left_open(study_modules, tmp_path):
    study_runs, _, study_report = study_modules
    path = write_study(tmp_path, validation_loss=0.95)
    study = study_runs.load_study(path)
    write_rows(path, [make_row(study_runs, study, "default", seed, cider=50.0) for seed in (0, 1)])
    (tmp_path / "report.md").write_text("{{runs tiny}}: loss {{value tiny default final_loss}}\n{{missing tiny}}")
    readme, *plots = study_report.write_study_report(tmp_path)
    assert not plots and readme.read_text().splitlines()[2:] == [
        "2 of 4: loss 0.950 ± 0.635",
        "`neither` (seeds 0, 1)",
    ]
    for wrong in ("{{value tiny default sider}}", "{{value other default cider}}", "{{valeu tiny default cider}}"):
        (tmp_path / "report.md").write_text(wrong)
        with pytest.raises(ValueError, match="cannot fill in"):
            study_report.write_study_report(tmp_path)


def test_the_committed_report_is_what_its_rows_say(study_modules, tmp_path):
    for folder in ("examples", "hub_configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    studies = tmp_path / STUDIES.relative_to(ROOT)
    (studies / "README.md").unlink()
    script = tmp_path / "examples" / "geometry_study.py"
    subprocess.run([sys.executable, str(script), "--report", str(studies)], check=True, capture_output=True)
    assert (studies / "README.md").read_text() == (STUDIES / "README.md").read_text()
