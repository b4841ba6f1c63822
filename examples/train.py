"""Second stage: train a motion-language model from a recipe, on the motion tokenizer of the first.

On one process, on two CPU processes, and on all GPUs of a machine:

    python examples/train.py hub_configs/geomotiongpt-tiny/language_model.yaml training.seed=1
    torchrun --nproc_per_node 2 examples/train.py CONFIG
    accelerate launch examples/train.py CONFIG
"""

import argparse
import logging

from geomotiongpt import train_language_model

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("config", help="YAML recipe, see hub_configs/")
parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="values to change in the recipe")

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = parser.parse_args()
    print(train_language_model(arguments.config, arguments.overrides))
