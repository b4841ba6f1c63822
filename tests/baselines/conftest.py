"""Embedded motions for the training runs of the baselines."""

from pathlib import Path

import datasets
import pytest

from geomotiongpt import make_synthetic_dataset


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Arrow files of the tests do not go into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield


@pytest.fixture(scope="session")
def motions(tmp_path_factory) -> Path:
    """Folder of 40 embedded motions."""
    folder = tmp_path_factory.mktemp("motions") / "data"
    make_synthetic_dataset(folder, 40, seed=0)
    return folder
