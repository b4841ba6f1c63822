"""Runs a study: a grid of cells, each with several seeds, one row of figures a run; and writes its report.

    python examples/geometry_study.py STUDY.yaml [--real-data DIR] [--processes 2]    whatever is not there yet
    python examples/geometry_study.py STUDY.yaml --list                               what is there and what is missing
    python examples/geometry_study.py STUDY.yaml --cell NAME --seed 1 --again         one run, beside its committed row
    python examples/geometry_study.py --report examples/studies/geometry              tables, figures, README.md

Rows go into the JSONL of the study's name, beside it, as runs end. A killed study goes on where it was: trained stages
and rows stay. A row of other settings than the study's counts as missing, and is replaced.
"""

import argparse
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from filelock import FileLock
from tqdm import tqdm

# The modules of studies; not what lies beside this script, of which one would be taken for the library `evaluate`.
sys.path[0] = str(Path(__file__).resolve().parent / "studies")

from study_report import compare_with_rows, write_study_report  # noqa: E402
from study_rows import Row, read_rows  # noqa: E402
from study_runs import Cell, Study, command_of, load_study, prepare_study, rows_of_other_evaluators, run_cell  # noqa: E402

Run = tuple[Cell, int]


def main() -> int:
    """What the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="STUDY.yaml; with --report the folder of the studies")
    parser.add_argument(
        "--real-data",
        type=Path,
        default=os.environ.get("GEOMOTIONGPT_REAL_DATA"),
        metavar="DIR",
        help="DATA of hub_configs/README.md, for studies of real motion (default: $GEOMOTIONGPT_REAL_DATA)",
    )
    parser.add_argument(
        "--work", type=Path, help="folder for data, trained stages and logs (default: in runs/studies)"
    )
    parser.add_argument("--rows", type=Path, help="JSONL of the rows (default: beside the study)")
    parser.add_argument("--processes", type=_count, default=1, help="runs at a time (default: 1)")
    parser.add_argument(
        "--threads", type=_count, default=1, help="of each run: other numbers round differently (default: 1)"
    )
    parser.add_argument("--cell", action="append", help="only this cell; may be given again")
    parser.add_argument("--seed", type=int, action="append", help="only this seed; may be given again")
    parser.add_argument("--list", action="store_true", help="show all runs, and stop")
    parser.add_argument("--again", action="store_true", help="repeat runs in a folder of their own; no row is written")
    parser.add_argument("--report", action="store_true", help="write the report from the rows, and stop")
    parser.add_argument("--row", type=Path, help=argparse.SUPPRESS)  # of a process that was started for one run
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    torch.set_num_threads(arguments.threads)  # here too: what is trained in this process is rounded as in the others
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and so takes the runs along
    try:
        return _do(arguments)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2


def _do(arguments: argparse.Namespace) -> int:
    if arguments.report:
        for path in write_study_report(arguments.study):
            print(path)
        return 0
    study = load_study(arguments.study, arguments.work, arguments.real_data)
    rows_path = arguments.rows or study.path.with_suffix(".jsonl")
    rows = read_rows(rows_path)
    chosen = choose_runs(study, arguments.cell, arguments.seed)
    if arguments.list:
        _show(study, chosen, rows)
        return 0
    if arguments.again:
        study = load_study(arguments.study, study.work / "again", arguments.real_data)
        for name in {"measured", *(stage.name for cell in study.cells for stage in cell.stages)}:
            shutil.rmtree(study.work / name, ignore_errors=True)  # of the time before: it is all done again
        for cell, seed in chosen:
            print(compare_with_rows(run_cell(study, cell, seed), list(rows.values())))
        return 0
    if arguments.row is not None:
        ((cell, seed),) = chosen
        arguments.row.write_text(json.dumps(run_cell(study, cell, seed)))
        return 0
    missing = missing_runs(study, chosen, rows)
    print(f"{study.path}: {len(chosen) - len(missing)} of {len(chosen)} runs are there.")
    if not missing:
        return 0
    if not rows_path.parent.is_dir():
        raise FileNotFoundError(f"{rows_path.parent}: no such folder to write the rows into.")
    prepare_study(study)
    stale = {(cell.name, seed) for cell, seed in missing_runs(study, study.runs, rows)}
    known = {(cell.name, seed) for cell, seed in study.runs}
    others = rows_of_other_evaluators(study, [row for key, row in rows.items() if key in known - stale])
    if others:
        print(
            f"{others} rows were measured by another evaluator network than the one trained here (other threads, "
            "versions or processors round differently): FID and retrieval will be compared within the larger part."
        )
    return run_all(study, missing, rows_path, arguments)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def choose_runs(study: Study, cells: Sequence[str] | None, seeds: Sequence[int] | None) -> list[Run]:
    """The runs that were asked for, in the order of the study: seed 0 of a question's cells before its seed 1.

    Raises:
        ValueError: for a cell or a seed that the study does not have.
    """
    wanted = [study.cell(name) for name in cells] if cells else list(study.cells)
    chosen = [(cell, seed) for cell, seed in study.runs if cell in wanted and (seeds is None or seed in seeds)]
    if not chosen:
        raise ValueError(f"no such run: {study.path} has seeds 0 to {max(cell.seeds for cell in wanted) - 1} there.")
    return chosen


def missing_runs(study: Study, runs: Sequence[Run], rows: dict[tuple[str, int], Row]) -> list[Run]:
    """The runs without a row of the study's settings."""
    return [
        (cell, seed)
        for cell, seed in runs
        if rows.get((cell.name, seed), {}).get("protocol", {}).get("settings") != study.settings(cell, seed)
    ]


def run_all(study: Study, missing: Sequence[Run], rows_path: Path, arguments: argparse.Namespace) -> int:
    """Each run in a process of its own, several at a time; rows are written as they come."""
    failed = []
    with tqdm(total=len(missing), unit="run", smoothing=0) as bar:
        for (cell, seed), row, log in _finished(study, missing, arguments):
            bar.update()
            if row is None:
                failed.append(f"{cell.name}, seed {seed}: {log}")
                continue
            write_row(study, row, rows_path)
            bar.set_postfix_str(f"{cell.name}, seed {seed}")
    for name in failed:
        print(f"failed: {name}", file=sys.stderr)
    return 1 if failed else 0


def _finished(
    study: Study, missing: Sequence[Run], arguments: argparse.Namespace
) -> Iterator[tuple[Run, Row | None, Path]]:
    waiting, running = list(missing), {}
    logs = study.work / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as folder:
        try:
            while waiting or running:
                while waiting and len(running) < arguments.processes:
                    cell, seed = run = waiting.pop(0)
                    row, log = Path(folder) / f"{cell.name}-{seed}.json", logs / f"{cell.name}-{seed}.log"
                    command = [sys.executable, __file__, str(study.path), "--work", str(study.work)]
                    command += ["--cell", cell.name, "--seed", str(seed), "--row", str(row)]
                    command += ["--threads", str(arguments.threads)]
                    with log.open("w") as stream:
                        process = subprocess.Popen(
                            command, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment
                        )
                    running[process] = run, row, log
                for process in [process for process in running if process.poll() is not None]:
                    run, row, log = running.pop(process)
                    yield run, json.loads(row.read_text()) if process.returncode == 0 else None, log
                time.sleep(0.2)
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()


def write_row(study: Study, row: Row, path: Path) -> None:
    """Adds a row to those that are there by now, in the order of the study; those of unknown cells come last."""
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir()) / f"rows-{name}.lock"):  # of whatever work folder
        rows = read_rows(path)
        rows[row["model"]["cell"], row["model"]["seed"]] = row
        known = [(cell.name, seed) for cell, seed in study.runs]
        order = [*known, *(key for key in rows if key not in known)]
        lines = [json.dumps(rows[key], ensure_ascii=False) for key in order if key in rows]
        aside = path.with_name(f".{path.name}.tmp")
        aside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        aside.replace(path)


def _show(study: Study, runs: Sequence[Run], rows: dict[tuple[str, int], Row]) -> None:
    missing = missing_runs(study, runs, rows)
    for cell, seed in runs:
        print(f"{'missing' if (cell, seed) in missing else 'there  '}  {command_of(study, cell, seed)}")
    print(f"{len(runs) - len(missing)} of {len(runs)} runs are there.")


if __name__ == "__main__":
    sys.exit(main())
