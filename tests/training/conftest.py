"""Embedded motions and the test-size recipes that the training tests share."""

from pathlib import Path

import datasets
import pytest
import torch

from geomotiongpt import make_synthetic_dataset

HERE = Path(__file__).parent


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Arrow files of the tests do not go into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in the same order in every run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def motions(tmp_path_factory) -> Path:
    """Folder of 60 embedded motions."""
    folder = tmp_path_factory.mktemp("motions") / "data"
    make_synthetic_dataset(folder, 60, seed=0)
    return folder


@pytest.fixture(scope="session")
def tokenizer_recipe() -> Path:
    return HERE / "motion_tokenizer.yaml"


@pytest.fixture(scope="session")
def language_model_recipe() -> Path:
    return HERE / "language_model.yaml"
