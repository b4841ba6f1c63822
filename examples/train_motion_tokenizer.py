"""First stage: train a motion tokenizer, or a motion VAE, from a recipe.

On one process, on two CPU processes, and on all GPUs of a machine:

    python examples/train_motion_tokenizer.py hub_configs/geomotiongpt-tiny/motion_tokenizer.yaml training.seed=1
    torchrun --nproc_per_node 2 examples/train_motion_tokenizer.py CONFIG
    accelerate launch examples/train_motion_tokenizer.py CONFIG
"""

import argparse
import logging

from geomotiongpt import train_motion_tokenizer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("config", help="YAML recipe, see hub_configs/")
parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="values to change in the recipe")

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = parser.parse_args()
    print(train_motion_tokenizer(arguments.config, arguments.overrides))
