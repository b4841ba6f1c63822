"""Make motions of captions: `python examples/generate.py MODEL "a person walks forward." "someone jumps."`.

The features of each go into `0.npy`, `1.npy`, ..., an animation beside them.
"""

import argparse

import numpy as np
from transformers import pipeline

import geomotiongpt as geomotiongpt  # registers the models and the pipeline
from geomotiongpt.visualization.animation import animate_motion

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", help="folder of a model, or its name on the Hub")
parser.add_argument("captions", nargs="+")
arguments = parser.parse_args()

make = pipeline("text-to-motion", model=arguments.model)
results = make(arguments.captions, seed=0)
for number, (caption, result) in enumerate(zip(arguments.captions, results, strict=True)):
    np.save(f"{number}.npy", result["motion"])
    picture = animate_motion(result["joints"], f"{number}.gif", caption=caption)
    print(f"{picture}: {result['num_frames']} frames")
