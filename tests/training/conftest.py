"""Embedded motions and the test-size recipes that the training tests share."""

from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
import torch

from geomotiongpt import make_synthetic_dataset
from geomotiongpt.training import trainer
from geomotiongpt.training.language_model import train_language_model
from geomotiongpt.training.motion_tokenizer import train_motion_tokenizer

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


@pytest.fixture(scope="module")
def no_history_plot():
    """Drawing takes longer than training here; `test_history_is_drawn` of test_stages.py draws it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "plot_training_history", lambda history, path: None)
        yield


@pytest.fixture(scope="module")
def run(motions, tmp_path_factory) -> Callable[..., Path]:
    """Trains a recipe of this folder into a new one."""

    def train(recipe: str, *overrides: str) -> Path:
        folder = tmp_path_factory.mktemp("run") / Path(recipe).stem
        torch.set_num_threads(1)
        options = [f"data.path={motions}", f"training.output_dir={folder}", *overrides]
        encodes_motion = recipe in ("causal_motion_codec.yaml", "motion_vae.yaml")
        return (train_motion_tokenizer if encodes_motion else train_language_model)(HERE / recipe, options)

    return train
