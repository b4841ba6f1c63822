"""Make motions of captions: `python examples/generate.py MODEL "a person walks forward." "someone jumps."`.

The features of each go into `0.npy`, `1.npy`, ..., an animation beside them.
"""

import sys

import numpy as np
from transformers import pipeline

import geomotiongpt as geomotiongpt  # registers the models and the pipeline
from geomotiongpt.visualization.animation import animate_motion

model, *captions = sys.argv[1:]
make = pipeline("text-to-motion", model=model)
for number, (caption, result) in enumerate(zip(captions, make(captions, seed=0), strict=True)):
    np.save(f"{number}.npy", result["motion"])
    picture = animate_motion(result["joints"], f"{number}.gif", caption=caption)
    print(f"{picture}: {result['num_frames']} frames")
