"""Measure a model, sharing the captioning between processes: the arguments of `geomotiongpt evaluate`.

python examples/evaluate.py quickstart/model --data quickstart/data --labels embedded --output evaluation
accelerate launch examples/evaluate.py MODEL --data data/HumanML3D --evaluator evaluators/t2m --output evaluation
"""

import sys
from pathlib import Path

# Python looks for modules beside the script first, and would take this file for the `evaluate` library.
sys.path = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]

from geomotiongpt.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
