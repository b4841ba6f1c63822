"""LLaMo in the commands and pipelines: motions of MotionStreamer's 272 features at 30 frames a second."""

import json
import re
import shutil

import numpy as np
import pytest
from transformers import AutoProcessor, PreTrainedTokenizerFast, pipeline

from geomotiongpt import (
    LLaMoProcessor,
    MotionFeatureExtractor,
    MotionTextEvaluator,
    MotionTextEvaluatorConfig,
    MotionTextEvaluatorProcessor,
    convert_features,
    features_to_joints,
    make_synthetic_dataset,
)
from geomotiongpt.cli import main
from geomotiongpt.data.loader import load_motion_statistics
from geomotiongpt.evaluation.embeddings import embed_motions, load_evaluator
from geomotiongpt.models.task_prompts import TASKS
from geomotiongpt.training.model_card import write_training_card

WALK, JUMP = "a person walks", "someone jumps"
IN_272 = ["--representation", "streaming272"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twenty embedded motions."""
    folder = tmp_path_factory.mktemp("motions") / "data"
    make_synthetic_dataset(folder, 20, seed=0, representation="streaming272")
    return folder


@pytest.fixture(scope="module")
def folder(data, make_llamo, make_text_base, make_motion_codec, trained_text_tokenizer, tmp_path_factory):
    """A model on a Llama, as training leaves it."""
    base = make_text_base("llama", max_position_embeddings=512)
    model = make_llamo(base=base, codec=make_motion_codec(num_features=272), trained_tasks=list(TASKS))
    model.generation_config.update(max_new_tokens=6, do_sample=False)
    extractor = MotionFeatureExtractor("streaming272", *load_motion_statistics(data, "streaming272"), 4)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(trained_text_tokenizer)
    processor = LLaMoProcessor.from_components(extractor, tokenizer, model.config)
    folder = tmp_path_factory.mktemp("llamo") / "model"
    for part in (model, processor):
        part.save_pretrained(folder)
    write_training_card(folder, model, [], "embedded motions")
    return folder


@pytest.fixture(scope="module")
def clip(data):
    return data / "new_joint_vecs" / "000001.npy"


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory):
    """Folder of a random evaluator of HumanML3D's 263 features."""
    sizes = {"movement_hidden_size": 8, "movement_size": 8, "motion_hidden_size": 8, "text_hidden_size": 8}
    folder = tmp_path_factory.mktemp("evaluator")
    MotionTextEvaluator(MotionTextEvaluatorConfig(**sizes, embedding_size=8)).save_pretrained(folder)
    MotionTextEvaluatorProcessor(MotionFeatureExtractor("humanml3d", None, np.full(263, 2.0), 4)).save_pretrained(
        folder
    )
    return folder


def read_index(folder):
    return [json.loads(line) for line in (folder / "motions.jsonl").read_text().splitlines()]


# Captions


def test_motions_are_captioned_from_features_joints_arrays_and_lists(folder, clip, data, capsys):
    joints = data / "new_joints" / clip.name
    assert main(["caption", str(folder), str(clip), str(joints), "--json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    describe = pipeline("motion-to-text", model=str(folder))
    captions = [result["generated_text"] for result in describe([np.load(clip), np.load(joints)], batch_size=2)]
    assert [row["caption"] for row in said] == captions and captions[0]
    assert describe(str(clip))["generated_text"] == captions[0]


def test_a_motion_of_another_representation_is_named(folder, tmp_path, capsys):
    np.save(tmp_path / "walk.npy", np.zeros((40, 263), np.float32))
    assert main(["caption", str(folder), str(tmp_path / "walk.npy")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "walk.npy has shape (40, 263)" in error and "'streaming272' takes features (frames, 272)" in error


# Motions


def test_motions_are_made_of_captions(folder, tmp_path):
    """Seconds are those of 30 frames; files hold 272 features and the joints they stand for."""
    options = ["--seconds", "1.5", "--num-samples", "2", "--format", "png", "--guidance-scale", "2"]
    command = ["generate", str(folder), WALK, JUMP, "--denoising-steps", "2", *options]
    assert main([*command, "--output", str(tmp_path / "made")]) == 0
    rows = read_index(tmp_path / "made")
    assert [(row["text"], row["frames"], row["seconds"]) for row in rows] == [(WALK, 45, 1.5)] * 2 + [
        (JUMP, 45, 1.5)
    ] * 2
    motions = [np.load(tmp_path / "made" / row["file"]) for row in rows]
    assert all(motion.shape == (45, 272) for motion in motions) and not np.allclose(motions[0], motions[1])
    joints = np.load(tmp_path / "made" / rows[0]["joints"])
    np.testing.assert_allclose(joints, features_to_joints(motions[0], "streaming272"), atol=1e-5)
    make = pipeline("text-to-motion", model=str(folder))
    groups = make([WALK, JUMP], duration=1.5, num_samples=2, seed=0, batch_size=16, guidance_scale=2,
                  num_denoising_steps=2)  # fmt: skip
    assert groups[1][0]["joints"].shape == (45, 22, 3)
    np.testing.assert_allclose(groups[1][0]["motion"], motions[2], atol=1e-3)


def test_one_motion_shows_several_captions_and_may_be_longer_than_training_had(folder, tmp_path, capsys):
    """Training had 12 latents, 1.6 s."""
    command = ["generate", str(folder), WALK, JUMP, WALK, "--sequence", "--seconds", "3", "--no-animation"]
    assert main([*command, "--denoising-steps", "1", "--output", str(tmp_path / "made")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'made' / '000.npy'}: 270 frames, 9.0 s\n"
    (row,) = read_index(tmp_path / "made")
    assert row["text"] == [WALK, JUMP, WALK]
    assert np.isfinite(np.load(tmp_path / "made" / row["joints"])).all()


def test_a_motion_goes_on_from_its_beginning_and_fills_its_gap(folder, clip, tmp_path):
    given = np.load(clip)
    asks = {"motion-prediction": ["--keep", "20", "0", "--frames", "45"], "motion-in-between": ["--keep", "10", "12"]}
    for task, options in asks.items():
        command = ["generate", str(folder), "--task", task, "--motion", str(clip), "--no-animation", *options]
        assert main([*command, "--denoising-steps", "1", "--output", str(tmp_path / task)]) == 0
        made = np.load(tmp_path / task / "000.npy")
        assert len(made) == (45 if task == "motion-prediction" else len(given))
        np.testing.assert_allclose(made[:8], given[:8], atol=1e-4)
    np.testing.assert_allclose(made[-12:], given[-12:], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([WALK, "--temperature", "0.5"], "temperature is 0.5, but no tokens of motion are sampled here"),
        ([WALK, "--num-beams", "3"], "num_beams is 3, but no tokens of motion are sampled here"),
        ([WALK, "--motion", "CLIP"], "'text-to-motion' takes no motion; use 'motion-prediction'"),
        ([WALK, "--frames", "200000"], "200000 frames are asked for; ask for 1 to 100000"),
    ],
)
def test_what_cannot_be_made_ends_with_one_line(folder, clip, tmp_path, capsys, options, message):
    options = [option.replace("CLIP", str(clip)) for option in options]
    assert main(["generate", str(folder), *options, "--output", str(tmp_path / "made")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and not (tmp_path / "made").exists()


# Evaluation


def test_lengths_may_be_stated_and_left_to_the_exit_head(folder, data, tmp_path, capsys):
    command = ["evaluate", str(folder), "--data", str(data), "--split", "val", "--task", "text-to-motion", *IN_272]
    command += ["--denoising-steps", "1", "--lengths", "stated", "--output", str(tmp_path)]
    assert main(command) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    rows = read_index(tmp_path)
    close = [abs(row["frames"][0] - row["asked_frames"]) <= 4 for row in rows]
    assert result["metrics"]["length_within_one_token"]["mean"] == np.mean(close) < 1
    assert result["metrics"]["relative_length_error"] > 0 and result["protocol"]["lengths"] == "stated"


@pytest.mark.parametrize(
    "task", ["motion-to-text", "text-to-motion", "motion-prediction", "motion-in-between", "motion-duration"]
)
def test_every_direction_is_evaluated(folder, data, tmp_path, task):
    command = ["evaluate", str(folder), "--data", str(data), "--split", "val", "--task", task, *IN_272]
    makes_motions = task not in ("motion-to-text", "motion-duration")
    if makes_motions:
        command += ["--denoising-steps", "1"]
    assert main([*command, "--output", str(tmp_path / "evaluation")]) == 0
    result = json.loads((tmp_path / "evaluation" / "result.json").read_text())
    metrics, decoding = result["metrics"], result["protocol"]["decoding"]
    assert result["protocol"]["task"] == task and "perplexity" not in metrics
    assert decoding["num_denoising_steps"] == (1 if makes_motions else 3)  # the configuration has 3
    if task == "motion-to-text":
        assert metrics["joint_error_mm"] > 0 and "reconstruction_jerk_m_per_s3" in metrics
    elif task == "text-to-motion":
        assert metrics["relative_length_error"] == 0
    elif task == "motion-duration":
        assert metrics["duration_answered"]["n"] == 2
    else:
        assert metrics["given_frames_kept"]["mean"] == 1.0 and metrics["ade_mm"] > 0


def test_an_evaluator_of_263_features_gets_the_motions_converted_and_the_report_says_so(
    folder, data, evaluator, tmp_path
):
    of_data = ["--data", str(data), "--split", "train", "--no-mirrored", *IN_272]
    of_evaluator = ["--evaluator", str(evaluator), "--replications", "2", "--pool-size", "4"]
    common, output = [*of_data, *of_evaluator], tmp_path / "evaluation"
    command = ["evaluate", str(folder), "--task", "text-to-motion", "--denoising-steps", "1", *common]
    assert main([*command, "--output", str(output)]) == 0
    result = json.loads((output / "result.json").read_text())
    said = "streaming272 at 30 frames a second to humanml3d at 20"
    assert result["protocol"]["motions_converted_for_the_evaluator"].startswith(said)
    assert said in (output / "report.md").read_text()
    made = [np.load(path) for path in sorted((output / "motions").glob("*.npy"))]
    converted = [convert_features(motion.astype(np.float64), "streaming272", "humanml3d") for motion in made]
    model, processor = load_evaluator(evaluator)
    spread = embed_motions(model, processor, converted).std(0).sum()
    assert spread > 0
    # The same motions as files: features, and joints at 30 frames a second
    joints = tmp_path / "joints"
    joints.mkdir()
    for path in (output / "motions").glob("*.npy"):
        np.save(joints / path.name, features_to_joints(np.load(path).astype(np.float64), "streaming272"))
    for motions, tolerance in ((output / "motions", 1e-6), (joints, 2e-2)):
        assert main(["evaluate", "--motions", str(motions), *common, "--output", str(tmp_path / "again.json")]) == 0
        again = json.loads((tmp_path / "again.json").read_text())
        assert again["protocol"]["motions_converted_for_the_evaluator"].startswith(said)
        for name in ("fid", "ground_truth_diversity"):
            values = [metrics[name] for metrics in (result["metrics"], again["metrics"])]
            first, second = (value["mean"] if isinstance(value, dict) else value for value in values)
            assert second == pytest.approx(first, rel=tolerance, abs=1e-6)


@pytest.mark.parametrize("task", ["motion-to-text", "text-to-motion"])
def test_data_of_another_representation_are_refused_before_anything_is_made(folder, data, tmp_path, capsys, task):
    command = ["evaluate", str(folder), "--data", str(data), "--split", "val", "--task", task]
    assert main([*command, "--output", str(tmp_path / "evaluation")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the model takes 'streaming272' motions" in error and "--representation streaming272" in error


def test_a_judge_of_another_representation_is_refused(folder, data, llamo_folder, tmp_path, capsys):
    judge = ["--judge", str(llamo_folder), "--labels", "embedded"]
    command = ["evaluate", str(folder), "--data", str(data), "--task", "text-to-motion", *IN_272, *judge]
    assert main([*command, "--output", str(tmp_path / "evaluation")]) == 2
    assert "the model takes 'humanml3d' motions" in capsys.readouterr().err


# The card


def test_the_code_of_the_card_runs(folder, clip, tmp_path, monkeypatch):
    card = (folder / "README.md").read_text()
    assert "features (frames, 272) or joints (frames, 22, 3)" in card
    assert "| motion | streaming272, 272 features at 30 frames a second |" in card
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    shutil.copy(clip, "motion.npy")
    names: dict = {}
    exec(code.replace("<this repository>", str(folder)).replace(", trust_remote_code=True", ""), names)
    assert names["describe"]("motion.npy")["generated_text"]
    assert names["features"].shape == (4, 272), "the last of 120 frames, as they were made"
    assert "`, subfolder" not in card and 'subfolder="motion_codec"' in card


def test_the_card_of_a_single_stream_does_not_say_that_text_stays(make_llamo, tmp_path):
    for streams, stays in (("dual", True), ("single", False)):
        card = write_training_card(tmp_path, make_llamo(streams=streams), [], "motions").read_text()
        assert ("Text goes through the weights of the base model alone" in card) == stays
        assert "features (frames, 263)" in card


def test_a_model_of_263_features_is_measured_as_before(llamo_folder, evaluator):
    """Nothing is converted, and nothing is said of it."""
    from geomotiongpt.evaluation.semantics import Evaluator

    assert AutoProcessor.from_pretrained(llamo_folder).feature_extractor.representation == "humanml3d"
    judge = Evaluator("small", *load_evaluator(evaluator)).of_motions_in("humanml3d")
    assert "motions_converted_for_the_evaluator" not in judge.protocol
