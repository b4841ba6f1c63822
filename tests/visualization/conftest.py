"""Motions for the tests of this folder: embedded ones, and real ones where they are."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from geomotiongpt import features_to_joints, joints_to_features
from geomotiongpt.data.synthetic import generate_synthetic_clips


@pytest.fixture(scope="session")
def synthetic_clips() -> list[np.ndarray]:
    """Joints (frames, 22, 3) of four embedded motions."""
    return [clip.joints.astype(np.float64) for clip in generate_synthetic_clips(4, seed=3)]


@pytest.fixture(scope="session")
def real_clips(real_data, tmp_path_factory) -> list[np.ndarray]:
    """Joints (frames, 22, 3) of twelve real motions, given constant bone lengths as features have them."""
    folder: Path = tmp_path_factory.mktemp("real") / "clips"
    command = [sys.executable, str(real_data / "unpack.py"), str(folder), "--limit", "3"]
    subprocess.run(command, check=True, capture_output=True)
    clips = [np.load(path, allow_pickle=False).astype(np.float64) for path in sorted((folder / "joints").glob("*"))]
    assert len(clips) == 12
    return [features_to_joints(joints_to_features(clip)) for clip in clips]
