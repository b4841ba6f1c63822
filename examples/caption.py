"""Caption motion files: `python examples/caption.py quickstart/model walk.npy jump.npy`."""

import argparse

from transformers import pipeline

import geomotiongpt as geomotiongpt  # registers the models and the pipeline

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", help="folder of a model, or its name on the Hub")
parser.add_argument("files", nargs="+", help=".npy of features or joints")
arguments = parser.parse_args()

describe = pipeline("motion-to-text", model=arguments.model)
for file, result in zip(arguments.files, describe(arguments.files), strict=True):
    print(f"{file}: {result['generated_text']}")
