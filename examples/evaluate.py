"""Measure a model, sharing the captioning between processes: the arguments of `geomotiongpt evaluate`.

python examples/evaluate.py quickstart/model --data quickstart/data --labels embedded --output evaluation
accelerate launch examples/evaluate.py MODEL --data data/HumanML3D --evaluator evaluators/t2m --output evaluation
"""

import sys

from geomotiongpt.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
