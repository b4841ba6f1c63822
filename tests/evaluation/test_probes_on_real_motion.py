"""An evaluator trained on real motion tells motions apart, and every metric reacts to damage as documented."""

import json
import subprocess
import sys

import pytest

from geomotiongpt import build_motion_dataset
from geomotiongpt.evaluation.attributes import AttributeWords
from geomotiongpt.evaluation.embeddings import load_evaluator
from geomotiongpt.evaluation.probes import CAPTION_PROBES, MOTION_PROBES
from geomotiongpt.evaluation.protocol import Population, evaluate_probes
from geomotiongpt.evaluation.semantics import Evaluator
from geomotiongpt.resources import resource
from geomotiongpt.training.evaluator import train_evaluator

R_AT_1 = "label_aware_motion_to_text_r_at_1"


@pytest.fixture(scope="module")
def probed(real_data, tmp_path_factory) -> dict[str, dict[str, float]]:
    """Probe -> metric -> value, on the test split, by the recipe's evaluator."""
    folder = tmp_path_factory.mktemp("real")
    subprocess.run([sys.executable, str(real_data / "unpack.py"), str(folder / "raw")], check=True)
    build_motion_dataset(folder / "raw", folder / "data", num_proc=2)
    overrides = [f"data.path={folder / 'data'}", f"training.output_dir={folder / 'evaluator'}"]
    train_evaluator(resource("hub_configs/geomotiongpt-real-motion/evaluator.yaml"), overrides)
    reader = AttributeWords.from_labels(json.loads((real_data / "bandai" / "labels.json").read_text()))
    evaluator = Evaluator("real", *load_evaluator(folder / "evaluator"))
    population = Population(folder / "data", "test", mirrored=False)
    return evaluate_probes(population, evaluator, reader=reader)["metrics"]


@pytest.mark.slow
def test_the_evaluator_finds_captions_of_real_motion(probed):
    for direction in ("motion_to_text", "text_to_motion"):
        assert probed["ground_truth"][f"label_aware_{direction}_r_at_1"] >= 0.85
    assert probed["ground_truth"]["side_accuracy"] > 0.9


@pytest.mark.slow
def test_every_metric_reacts_to_damage_as_documented(probed):
    """One look at all: the fixture takes minutes."""
    truth = probed["ground_truth"]
    floor = truth["fid_floor"]
    assert truth["fid"] < 1e-6 < floor
    for name in CAPTION_PROBES:  # texts
        assert probed[name][R_AT_1] < 0.7 * truth[R_AT_1] and probed[name]["mm_dist"] > 1.1 * truth["mm_dist"]
        assert probed[name]["bleu_4"] < truth["bleu_4"] and probed[name]["cider"] < truth["cider"]
        assert probed[name]["fid"] == truth["fid"] and probed[name]["jerk_m_per_s3"] == truth["jerk_m_per_s3"]
    for name in MOTION_PROBES:
        assert probed[name]["bleu_4"] == truth["bleu_4"]
    assert probed["mirrored"]["side_accuracy"] < 0.1 and probed["mirrored"][R_AT_1] < 0.8 * truth[R_AT_1]
    assert probed["mirrored"]["fid"] < floor, "the blind spot: most of a mirrored set looks like the set"
    held = probed["first_frame_held"]
    assert held[R_AT_1] < 0.5 * truth[R_AT_1] and held["fid"] > 5 * floor and held["jerk_m_per_s3"] < 1e-3
    assert held["foot_skating_ratio"] == 0, "the blind spot: who stands still does not skate"
    noisy = [truth, *(probed[f"noise_{centimetres}cm"] for centimetres in (1, 2, 5))]
    for less, more in zip(noisy, noisy[1:], strict=False):
        assert more["jerk_m_per_s3"] > 1.5 * less["jerk_m_per_s3"] and more["fid"] > less["fid"]
        assert more[R_AT_1] < less[R_AT_1] + 0.02 and more["floating_mm"] > less["floating_mm"]
    assert noisy[-1]["fid"] > 5 * floor and noisy[-1][R_AT_1] < 0.9 * truth[R_AT_1]
    smoothed = probed["smoothed"]
    assert smoothed["jerk_m_per_s3"] < 0.2 * truth["jerk_m_per_s3"]
    assert smoothed["foot_skating_ratio"] > 2 * truth["foot_skating_ratio"] and smoothed["fid"] > 100 * truth["fid"]
    assert smoothed["fid"] < 2 * floor, "the blind spot: over-smoothing hardly shows"
