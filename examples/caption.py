"""Caption motion files: `python examples/caption.py quickstart/model walk.npy jump.npy`."""

import sys

from transformers import pipeline

import geomotiongpt as geomotiongpt  # registers the models and the pipeline

model, *files = sys.argv[1:]
describe = pipeline("motion-to-text", model=model)
for file, result in zip(files, describe(files), strict=True):
    print(f"{file}: {result['generated_text']}")
