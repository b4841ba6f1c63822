"""Writes the tables of the README files from the committed results, so that text and figures cannot drift apart.

python examples/results_table.py          prints them
python examples/results_table.py --write  puts them into their files
python examples/results_table.py --check  ends with 1 and names the files whose tables are others
"""

import argparse
import posixpath
import re
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent / "results")
import benchmark_tables as benchmarks  # noqa: E402
import model_tables as models  # noqa: E402
from committed import ROOT  # noqa: E402

START, END = "<!-- results: python examples/results_table.py --write -->", "<!-- end of results -->"
PAGES = {
    "README.md": (models.headline_table,),
    "hub_configs/README.md": (
        models.families_table,
        models.real_motion_table,
        models.quickstart_table,
        models.evaluation_table,
        models.generation_tables,
    ),
    "examples/benchmarks/README.md": (
        benchmarks.systems_table,
        benchmarks.probes_table,
        benchmarks.losses_table,
        benchmarks.switches_table,
        benchmarks.streams_table,
        benchmarks.two_modes_table,
        benchmarks.forgetting_figures,
        benchmarks.streaming_table,
        benchmarks.speed_table,
        benchmarks.import_table,
    ),
}


def main() -> int:
    """Prints, writes or compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--write", action="store_true")
    modes.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    drifted = []
    for page in PAGES:
        path = ROOT / page
        before = path.read_text(encoding="utf-8")
        after = with_tables(before, page)
        if arguments.write:
            path.write_text(after, encoding="utf-8")
        elif not arguments.check:
            print(tables(page))
        elif before != after:
            drifted.append(page)
    if drifted:
        print(f"{', '.join(drifted)}: not the committed results; python examples/results_table.py --write")
    return len(drifted) > 0


def with_tables(text: str, page: str) -> str:
    """A page with its tables made anew."""
    before, rest = text.split(START)
    after = rest.split(END)[1]
    return f"{before}{START}\n{tables(page)}\n{END}{after}"


def tables(page: str) -> str:
    """The tables of a page as Markdown, with links that lead from its folder."""
    text = "\n\n".join(make() for make in PAGES[page])
    folder = posixpath.dirname(page) or "."
    return re.sub(
        r"\]\(((?:hub_configs|examples)/[^)]+)\)", lambda link: f"]({posixpath.relpath(link[1], folder)})", text
    )


if __name__ == "__main__":
    sys.exit(main())
