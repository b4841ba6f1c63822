"""MotionGPT3 in the commands and pipelines that were made for models with motion codes."""

import json

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast, pipeline

from geomotiongpt import MotionFeatureExtractor, make_synthetic_dataset
from geomotiongpt.cli import main


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twenty embedded motions."""
    folder = tmp_path_factory.mktemp("motions") / "data"
    make_synthetic_dataset(folder, 20, seed=0)
    return folder


@pytest.fixture(scope="module")
def folder(make_motiongpt3, make_motion_vae, make_text_base, make_motiongpt3_processor, tmp_path_factory):
    """A model that takes motions of any length of the data, as training leaves it."""
    model = make_motiongpt3(trained_tasks=["text-to-motion", "motion-to-text", "motion-prediction"])
    model.config.trained_tasks += ["motion-in-between", "motion-duration"]
    vae = make_motion_vae(max_positions=200)
    model.motion_vae, model.config.motion_vae_config = vae, vae.config
    model.generation_config.update(max_new_tokens=6, do_sample=False)
    processor = make_motiongpt3_processor(model, MotionFeatureExtractor(downsampling_factor=1))
    assert isinstance(processor.tokenizer, PreTrainedTokenizerFast)
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(data):
    return data / "new_joint_vecs" / "000001.npy"


def test_a_motion_is_captioned(folder, clip, capsys):
    assert main(["caption", str(folder), str(clip), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    describe = pipeline("motion-to-text", model=str(folder))
    assert said == {"file": str(clip), "caption": describe(str(clip))["generated_text"]} and said["caption"]


def test_motions_are_made_of_captions(folder, tmp_path):
    options = ["--seconds", "2.5", "--num-samples", "2", "--format", "png", "--guidance-scale", "2"]
    command = ["generate", str(folder), "a person walks", "someone jumps", "--denoising-steps", "3", *options]
    assert main([*command, "--output", str(tmp_path / "made")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "made" / "motions.jsonl").read_text().splitlines()]
    assert [row["frames"] for row in rows] == [50] * 4
    motions = [np.load(tmp_path / "made" / row["file"]) for row in rows]
    assert all(motion.shape == (50, 263) for motion in motions) and not np.allclose(motions[0], motions[1])
    assert main([*command, "--output", str(tmp_path / "again")]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "again" / "000.npy"), motions[0], atol=1e-4)


def test_a_motion_goes_on_from_its_beginning_and_fills_its_gap(folder, clip, tmp_path):
    given = np.load(clip)
    asks = {"motion-prediction": ["--keep", "20", "0", "--frames", "45"], "motion-in-between": ["--keep", "10", "12"]}
    for task, options in asks.items():
        output = tmp_path / task
        command = ["generate", str(folder), "--task", task, "--motion", str(clip), "--no-animation", *options]
        assert main([*command, "--denoising-steps", "2", "--output", str(output)]) == 0
        made = np.load(output / "000.npy")
        assert len(made) == (45 if task == "motion-prediction" else len(given))
        np.testing.assert_allclose(made[:10], given[:10], atol=1e-4)
    np.testing.assert_allclose(made[-12:], given[-12:], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["a person walks", "--frames", "100000"], "100000 frames are to be made; this model makes 1 to 198"),
        (["a person walks", "--temperature", "0.5"], "temperature is 0.5, but no tokens of motion are sampled here"),
        (["a person walks", "then sits", "--sequence"], "several captions in one motion are not possible here"),
        (["--task", "unconditional"], "the model was trained on text-to-motion, motion-to-text, motion-prediction"),
    ],
)
def test_what_cannot_be_made_ends_with_one_line(folder, tmp_path, capsys, options, message):
    assert main(["generate", str(folder), *options, "--output", str(tmp_path / "made")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and not (tmp_path / "made").exists()


def test_a_model_whose_motion_is_a_latent_has_no_tokens_to_show(folder, clip, tmp_path, capsys):
    assert main(["render", str(clip), "-o", str(tmp_path / "a.html"), "--model", str(folder)]) == 2
    assert "whose motion is continuous" in capsys.readouterr().err and not any(tmp_path.iterdir())


def test_a_model_with_codes_has_no_use_for_denoising(tiny_model_folder, tmp_path, capsys):
    command = ["generate", str(tiny_model_folder), "a person walks", "--guidance-scale", "2"]
    assert main([*command, "--output", str(tmp_path / "made")]) == 2
    assert "guidance_scale: no effect where motion is tokens" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["motion-to-text", "text-to-motion", "motion-prediction", "motion-in-between"])
def test_every_direction_is_evaluated(folder, data, tmp_path, task):
    command = ["evaluate", str(folder), "--data", str(data), "--split", "train", "--no-mirrored", "--task", task]
    if task != "motion-to-text":
        command += ["--denoising-steps", "2"]
    assert main([*command, "--output", str(tmp_path / "evaluation")]) == 0
    result = json.loads((tmp_path / "evaluation" / "result.json").read_text())
    metrics, decoding = result["metrics"], result["protocol"]["decoding"]
    assert result["protocol"]["task"] == task and "perplexity" not in metrics and "given_codes_kept" not in metrics
    assert decoding["denoising_process"] == "diffusion"
    if task == "motion-to-text":
        assert metrics["joint_error_mm"] > 0 and "reconstruction_jerk_m_per_s3" in metrics
    elif task == "text-to-motion":
        assert metrics["relative_length_error"] == 0 and decoding["num_denoising_steps"] == 2
    else:
        assert metrics["given_frames_kept"]["mean"] == 1.0 and metrics["ade_mm"] > 0


def test_durations_are_asked_for(folder, data, tmp_path):
    command = ["evaluate", str(folder), "--data", str(data), "--split", "val", "--task", "motion-duration"]
    assert main([*command, "--output", str(tmp_path / "evaluation")]) == 0
    assert "duration_error_seconds" in json.loads((tmp_path / "evaluation" / "result.json").read_text())["metrics"]
