"""The demo works with every family of models: it captions, and makes motions; tokens are shown where there are any."""

import numpy as np
import pytest

from geomotiongpt.demo.answers import MotionDemo


@pytest.mark.parametrize("family", ["tiny_model_folder", "motiongpt3_folder", "llamo_folder"])
def test_a_family_captions_and_makes_motions(family, request, tmp_path):
    demo = MotionDemo(request.getfixturevalue(family), tmp_path / "work", device="cpu")
    described = demo.describe([demo.samples["jump"]])
    assert isinstance(described.caption, str) and "jump.npz" in described.page
    assert ('"codes":' in described.page) == (family == "tiny_model_folder")
    made = demo.make("a person walks forward", 2, 0)
    assert made.motion.shape == (40, 263) and np.isfinite(made.motion).all()
    assert demo.write(made, "glb").read_bytes()[:4] == b"glTF"
