"""What a model makes is compared with what was asked for: prompts, lengths, given codes, seams, durations."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

from geomotiongpt import (
    MotionFeatureExtractor,
    MotionTextEvaluator,
    MotionTextEvaluatorConfig,
    MotionTextEvaluatorProcessor,
    features_to_joints,
    load_motion_statistics,
    make_synthetic_dataset,
)
from geomotiongpt.cli import main
from geomotiongpt.evaluation import generation
from geomotiongpt.evaluation.attributes import EmbeddedAttributes
from geomotiongpt.evaluation.captioner import weights_hash
from geomotiongpt.evaluation.generation import (
    Judge,
    evaluate_completion,
    evaluate_durations,
    evaluate_text_to_motion,
)
from geomotiongpt.evaluation.generator import MotionRequest, read_motions
from geomotiongpt.evaluation.physics import evaluate_physics, joint_displacements
from geomotiongpt.evaluation.protocol import Population, evaluate_motions
from geomotiongpt.evaluation.reconstruction import frame_errors
from geomotiongpt.evaluation.semantics import Evaluator

SAMPLED = {"do_sample": True, "top_k": 0}


class Parity:
    """Reads whether a caption has an odd number of characters: half of all captions are right by chance."""

    names = ("action",)

    def read(self, caption):
        return {"action": "odd" if len(caption) % 2 else "even"}


@pytest.fixture(scope="module")
def motions(tmp_path_factory):
    """Forty embedded motions, of which twelve are in the test split with their mirror images."""
    folder = tmp_path_factory.mktemp("motions") / "data"
    make_synthetic_dataset(folder, 40, seed=0)
    return folder


@pytest.fixture(scope="module")
def evaluator_folder(motions, tmp_path_factory):
    """A small random evaluator, as saved."""
    folder = tmp_path_factory.mktemp("evaluator")
    torch.manual_seed(0)
    sizes = dict.fromkeys(("movement_hidden_size", "movement_size", "motion_hidden_size", "text_hidden_size"), 16)
    MotionTextEvaluator(MotionTextEvaluatorConfig(**sizes, embedding_size=8, max_frames=800)).save_pretrained(folder)
    mean, std = load_motion_statistics(motions)
    MotionTextEvaluatorProcessor(MotionFeatureExtractor("humanml3d", mean, std, 4)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def evaluator(evaluator_folder):
    """The same, opened."""
    model = MotionTextEvaluator.from_pretrained(evaluator_folder).eval()
    processor = MotionTextEvaluatorProcessor.from_pretrained(evaluator_folder)
    return Evaluator("small", model, processor, replications=2, pool_size=4)


@pytest.fixture(scope="module")
def judge(tiny_model, tiny_processor):
    """Another model that writes gibberish; what it says is read as a parity."""
    model = copy.deepcopy(tiny_model)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1.5)
    return Judge("tiny", model, tiny_processor, Parity())


@pytest.fixture(scope="module")
def made(motions, tiny_model_folder, evaluator, judge, tmp_path_factory):
    """Folder and result of an evaluation of the tiny model."""
    output = tmp_path_factory.mktemp("made")
    result = evaluate_text_to_motion(
        tiny_model_folder,
        Population(motions),
        output,
        request=MotionRequest(lengths="free", num_samples=2),
        evaluator=evaluator,
        judge=judge,
        reader=EmbeddedAttributes(),
        batch_size=12,
        decoding=SAMPLED,
        command="geomotiongpt evaluate tiny",
    )
    return output, result


@pytest.fixture(scope="module", params=["motion-prediction", "motion-in-between"])
def completed(request, motions, tiny_model_folder, tmp_path_factory):
    """Folder and result of an evaluation of the tiny model in a task of completion."""
    output = tmp_path_factory.mktemp("completed")
    asked = MotionRequest(request.param)
    return output, evaluate_completion(tiny_model_folder, Population(motions), output, request=asked, decoding=SAMPLED)


def test_the_result_says_what_was_measured_and_how(made, motions, judge, tiny_model):
    output, result = made
    assert json.loads((output / "result.json").read_text()) == json.loads(json.dumps(result))
    protocol, metrics = result["protocol"], result["metrics"]
    count = len(Population(motions).dataset)
    assert protocol["task"] == "text-to-motion" and protocol["population"]["motions"] == count
    assert SAMPLED.items() <= protocol["decoding"].items() and protocol["decoding"]["batch_size"] == 12
    assert protocol["lengths"] == "free" and protocol["seed_of_motions"] == 0
    assert protocol["judge"] == "tiny" and protocol["judge_sha256"] == weights_hash(judge.model)
    assert result["model"]["sha256"] == weights_hash(tiny_model) != protocol["judge_sha256"]
    assert (protocol["multimodality_texts"], protocol["motions_a_text"]) == (count, 2)
    expected = ("motion_to_text_r_at_1", "label_aware_text_to_motion_r_at_1", "mm_dist", "ground_truth_mm_dist")
    expected += ("fid", "fid_floor", "fid_of_halves", "fid_over_floor", "diversity", "multimodality")
    expected += ("foot_skating_ratio", "foot_skating_over_ground_truth", "floating_mm", "ground_penetration_mm")
    expected += ("jerk_m_per_s3", "ground_truth_jerk_m_per_s3", "relative_length_error", "length_within_10_percent")
    assert set(expected) <= set(metrics)
    assert metrics["multimodality"]["mean"] > 0
    text = (output / "report.md").read_text()
    assert all(f"| {name} | " in text for name in metrics) and text.count("![Made for") == 4
    assert all((output / f"example_{number}.png").stat().st_size > 1000 for number in range(4))


def test_the_motions_beside_the_result_measure_the_same_as_anybodys(made, motions, evaluator):
    output, result = made
    again = evaluate_motions(output / "motions", Population(motions), evaluator, reader=EmbeddedAttributes())
    assert len(again["metrics"]) > 20
    assert again["metrics"] == {name: result["metrics"][name] for name in again["metrics"]}
    several = evaluate_motions(output / "repeated", Population(motions), evaluator)
    assert several["metrics"]["multimodality"] == result["metrics"]["multimodality"]


def test_lengths_are_compared_with_those_of_the_data(made, motions):
    output, result = made
    real = [len(motion) for motion in Population(motions).dataset["motion"]]
    lengths = [len(group[0]) for group in read_motions(output / "motions").motions]
    errors = [abs(length - wanted) / wanted for length, wanted in zip(lengths, real, strict=True)]
    assert result["metrics"]["relative_length_error"] == pytest.approx(np.mean(errors)) and np.mean(errors) > 0.1
    assert result["metrics"]["length_within_10_percent"]["mean"] == np.mean([error <= 0.1 for error in errors])


def test_the_judge_is_compared_with_the_prompt_and_not_with_other_captions(made, motions):
    output, result = made
    captions = Population(motions).dataset["captions"]
    odd = [len(group[0]) % 2 for group in captions]
    assert odd != [sum(len(caption) % 2 for caption in group) > len(group) / 2 for group in captions]
    for file, name in (("judged.jsonl", "judged_action"), ("judged_ground_truth.jsonl", "ground_truth_judged_action")):
        said = [json.loads(line)["prediction"] for line in (output / file).read_text().splitlines()]
        right = [len(text) % 2 == parity for text, parity in zip(said, odd, strict=True)]
        assert result["metrics"][name]["mean"] == np.mean(right)
        assert result["metrics"][name]["n"] == len(captions) and result["metrics"][name]["ci95"] > 0


def test_a_judge_that_repeats_the_prompts_is_always_right(made, motions, tiny_model_folder, judge, tmp_path):
    """Of most captions of a motion the prompt says something else."""
    output, path = shutil.copytree(made[0], tmp_path / "made"), tmp_path / "made" / "judged.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    prompts = [group[0] for group in Population(motions).dataset["captions"]]
    said = [{**row, "prediction": prompt} for row, prompt in zip(rows, prompts, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in said))
    asked = {"request": MotionRequest(lengths="free"), "judge": judge, "batch_size": 12, "decoding": SAMPLED}
    metrics = evaluate_text_to_motion(tiny_model_folder, Population(motions), output, **asked)["metrics"]
    assert metrics["judged_action"]["mean"] == 1 > metrics["ground_truth_judged_action"]["mean"]


def test_the_judge_sees_the_motions_that_were_made(made, judge, tiny_processor):
    output, _ = made
    rows = [json.loads(line) for line in (output / "judged.jsonl").read_text().splitlines()]
    for row in rows[:3]:
        motion = np.load(output / "motions" / f"{row['id']}.npy")
        inputs = tiny_processor(motion=motion)
        said = judge.model.generate(**inputs, do_sample=False)
        assert row["prediction"] == tiny_processor.post_process_text(said, inputs["input_ids"].shape[1])[0]


def test_the_lengths_of_the_data_can_be_asked_for(motions, tiny_model_folder, tmp_path):
    population = Population(motions, mirrored=False)
    metrics = evaluate_text_to_motion(tiny_model_folder, population, tmp_path, decoding=SAMPLED)["metrics"]
    assert metrics["relative_length_error"] == 0 and metrics["length_within_10_percent"]["mean"] == 1
    assert "fid" not in metrics and "judged_action" not in metrics and metrics["jerk_m_per_s3"] > 0


@pytest.mark.parametrize("decoding", [None, {"do_sample": False}])
def test_several_motions_without_sampling_are_refused_before_any_is_made(
    decoding, motions, tiny_model_folder, tmp_path
):
    asked = {"request": MotionRequest(num_samples=3), "decoding": decoding}
    with pytest.raises(ValueError, match="num_samples is 3, but without sampling .*: give do_sample=True"):
        evaluate_text_to_motion(tiny_model_folder, Population(motions), tmp_path / "made", **asked)
    assert not (tmp_path / "made").exists()


def test_the_distance_of_halves_is_that_of_what_was_made_from_real_motions(evaluator):
    real = np.random.default_rng(0).normal(size=(200, 3))
    far, near = evaluator.score_halves(real + [10, 0, 0], real), evaluator.score_halves(real, real)
    assert near["fid_of_halves"]["mean"] < 1 and near["fid_over_floor"]["mean"] == 1
    assert far["fid_of_halves"]["mean"] == pytest.approx(100, abs=10)
    assert far["fid_over_floor"]["mean"] > 100


def test_motions_longer_than_the_evaluator_takes_are_cut_and_counted(motions, tiny_model_folder, evaluator, tmp_path):
    population = Population(motions, max_frames=72)
    evaluator.model.config.max_frames, usual = 72, evaluator.model.config.max_frames
    try:
        result = evaluate_text_to_motion(
            tiny_model_folder,
            population,
            tmp_path,
            request=MotionRequest(lengths="free", seed=1),
            evaluator=evaluator,
            decoding=SAMPLED,
        )
    finally:
        evaluator.model.config.max_frames = usual
    lengths = [len(group[0]) for group in read_motions(tmp_path / "motions").motions]
    long = sum(length > 75 for length in lengths)
    assert result["protocol"]["motions_cut_for_the_evaluator"] == long > 0


def test_completion_keeps_what_is_given_and_measures_the_rest(completed, motions):
    output, result = completed
    metrics, between = result["metrics"], result["protocol"]["task"] == "motion-in-between"
    dataset = Population(motions).dataset
    assert metrics["given_codes_kept"] == {**metrics["given_codes_kept"], "mean": 1.0, "n": len(dataset)}
    assert metrics["seam_within_limit"]["n"] == len(dataset) * (1 + between)
    assert (
        metrics["seam_displacement_mm"] <= metrics["seam_displacement_p99_mm"] <= metrics["seam_displacement_max_mm"]
    )
    written = read_motions(output / "motions")
    sums = {"ade_mm": [], "fde_mm": [], "world_ade_mm": [], "world_fde_mm": []}
    sums |= {f"baseline_{name}": [] for name in sums}
    crossed, real_crossed, steps = [], [], []
    for row, (start, end) in enumerate(written.given_codes):
        motion = written.motions[row][0]
        target = dataset[row]["motion"][: len(motion)]
        assert (end > 0) == between
        local, world = frame_errors(motion, target, "humanml3d")
        first, stop = start * 8, len(motion) - end * 8
        sums["ade_mm"].append(local[first:stop].mean())
        sums["fde_mm"].append(local[stop - 1])
        sums["world_ade_mm"].append(world[first:stop].mean())
        sums["world_fde_mm"].append(world[stop - 1])
        plain = target.astype(np.float64)
        if between:
            plain[first - 1 : stop + 1] = np.linspace(plain[first - 1], plain[stop], stop - first + 2)
        else:
            plain[first:, 3:], plain[first:, :3] = plain[first - 1, 3:], 0
        for prefix, values in zip(("", "world_"), frame_errors(plain, target, "humanml3d"), strict=True):
            sums[f"baseline_{prefix}ade_mm"].append(values[first:stop].mean())
            sums[f"baseline_{prefix}fde_mm"].append(values[stop - 1])
        joints = features_to_joints(motion.astype(np.float64))
        steps.append(joint_displacements(features_to_joints(target.astype(np.float64))))
        for frame in (first, *([stop] if between else [])):
            crossed.append(1000 * np.linalg.norm(joints[frame] - joints[frame - 1], axis=-1).max())
            real_crossed.append(steps[-1][frame - 1])
    for name, values in sums.items():
        assert metrics[name] == pytest.approx(np.mean(values), rel=1e-4), name
    usual = np.percentile(np.concatenate(steps), 99)
    assert metrics["ground_truth_displacement_p99_mm"] == pytest.approx(usual)
    assert metrics["seam_above_data_p99"]["mean"] == np.mean(np.array(crossed) > usual)
    assert metrics["ground_truth_seam_above_data_p99"]["mean"] == np.mean(np.array(real_crossed) > usual)
    limit = 2 * usual
    assert metrics["ground_truth_seam_limit_mm"] == pytest.approx(limit)
    assert metrics["seam_displacement_mm"] == pytest.approx(np.mean(crossed))
    assert metrics["seam_displacement_max_mm"] == pytest.approx(max(crossed))
    assert metrics["seam_within_limit"]["mean"] == np.mean(np.array(crossed) <= limit) < 1


def test_completed_motions_are_compared_whole_and_the_seam_limit_has_no_other_say(
    completed, motions, tiny_model_folder, evaluator, monkeypatch
):
    (output, result), titles = completed, []
    draw = generation.draw_motion_strip
    monkeypatch.setattr(generation, "draw_motion_strip", lambda *a, **k: titles.append(k["caption"]) or draw(*a, **k))
    monkeypatch.setattr(generation, "_SEAM_LIMIT", 1e9)
    asked = {"request": MotionRequest(result["protocol"]["task"]), "decoding": SAMPLED, "evaluator": evaluator}
    again = evaluate_completion(tiny_model_folder, Population(motions), output, **asked)["metrics"]
    assert again["seam_within_limit"]["mean"] == 1
    assert again["seam_above_data_p99"] == result["metrics"]["seam_above_data_p99"]
    assert again["seam_above_data_p99"]["mean"] > 0
    assert {"fid", "fid_over_floor", "diversity"} <= set(again) and "mm_dist" not in again
    real = [features_to_joints(motion.astype(np.float64)) for motion in Population(motions).dataset["motion"]]
    assert again["ground_truth_jerk_m_per_s3"] == pytest.approx(evaluate_physics(real)["jerk_m_per_s3"])
    start, end = read_motions(output / "motions").given_codes[0]
    assert titles[0] == f"given: the first {start * 0.4:.1f} s" + f", the last {end * 0.4:.1f} s" * (end > 0)


def test_a_model_that_changes_what_is_given_is_found_out(completed, motions, tiny_model_folder):
    """As if one given code had not been kept: the file says so, and the evaluation reads the file."""
    output, result = completed
    path = output / "motions.jsonl"
    whole = path.read_text()
    rows = [json.loads(line) for line in whole.splitlines()]
    at = -1 if result["protocol"]["task"] == "motion-in-between" else 0
    rows[0]["codes"][0][at] = (rows[0]["codes"][0][at] + 1) % 32
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        asked = MotionRequest(result["protocol"]["task"])
        again = evaluate_completion(tiny_model_folder, Population(motions), output, request=asked, decoding=SAMPLED)
    finally:
        path.write_text(whole)
    assert again["metrics"]["given_codes_kept"]["mean"] == pytest.approx(1 - 1 / len(rows))


def test_a_motion_too_short_for_a_gap_is_left_out_and_counted(motions, tiny_model_folder, tmp_path):
    lengths = sorted(len(motion) for motion in Population(motions).dataset["motion"])
    fewest = MotionRequest("motion-in-between").fewest_codes * 8
    assert lengths[0] >= fewest, "the embedded motions are all long enough"
    folder = tmp_path / "data"
    folder.mkdir()
    for path in motions.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "new_joint_vecs").unlink()
    (folder / "new_joint_vecs").mkdir()
    for path in (motions / "new_joint_vecs").iterdir():
        (folder / "new_joint_vecs" / path.name).symlink_to(path)
    short = Population(motions).dataset[0]["motion_id"]
    (folder / "new_joint_vecs" / f"{short}.npy").unlink()
    np.save(folder / "new_joint_vecs" / f"{short}.npy", Population(motions).dataset[0]["motion"][: fewest - 1])
    result = evaluate_completion(
        tiny_model_folder, Population(folder), tmp_path / "output", request=MotionRequest("motion-in-between")
    )
    assert result["protocol"]["population"]["left_out"] == {"too short for the task": 1}


def test_durations_are_read_from_the_answers(motions, tiny_model_folder, tmp_path):
    """The answers are written over with known ones: the tiny model says nothing of the kind."""
    population = Population(motions, mirrored=False)
    evaluate_durations(tiny_model_folder, population, tmp_path)
    path = tmp_path / "durations.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    seconds = [len(motion) / 20 for motion in population.dataset["motion"]]
    answers = [f"{second + 0.05:.2f} seconds" for second in seconds]
    answers[0], answers[1] = "no idea", f"{seconds[1] * 1.2:.3f} seconds"
    path.write_text(
        "".join(json.dumps({**row, "prediction": text}) + "\n" for row, text in zip(rows, answers, strict=True))
    )
    result = evaluate_durations(tiny_model_folder, population, tmp_path)
    metrics, count = result["metrics"], len(rows)
    assert result["protocol"]["task"] == "motion-duration"
    assert metrics["duration_answered"]["mean"] == (count - 1) / count
    assert metrics["duration_within_10_percent"]["mean"] == (count - 2) / count
    expected = (0.05 * (count - 2) + 0.2 * seconds[1]) / (count - 1)
    assert metrics["duration_error_seconds"] == pytest.approx(expected, abs=0.006)
    counted = [float(f"{round(second * 20) // 8 * 8 / 20:.1f}") for second in seconds]
    expected = np.abs(np.array(counted) - seconds).mean()
    assert metrics["ground_truth_duration_error_seconds"] == pytest.approx(expected)
    off = np.abs(np.array(seconds) - np.median(seconds))
    assert metrics["baseline_duration_error_seconds"] == pytest.approx(off.mean())
    assert metrics["baseline_duration_within_10_percent"]["mean"] == np.mean(off <= 0.1 * np.array(seconds))


# The command line


def test_command_line_measures_text_to_motion_and_updates_the_card(
    motions, tiny_model_folder, evaluator_folder, tmp_path, capsys
):
    card = tiny_model_folder / "README.md"
    card.write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    options = ["--task", "text-to-motion", "--data", motions, "--evaluator", evaluator_folder, "--labels", "embedded"]
    options += ["--judge", tiny_model_folder, "--output", tmp_path, "--replications", 2, "--no-mirrored"]
    options += ["--temperature", 0.8, "--top-p", 0.9, "--seed", 3, "--update-card"]
    try:
        assert main(["evaluate", *map(str, [tiny_model_folder, *options])]) == 0
        entries = ModelCard.load(card).data.eval_results
    finally:
        card.unlink()
    assert "| fid_over_floor |" in capsys.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text())
    decoding = {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0}
    assert decoding.items() <= result["protocol"]["decoding"].items()
    assert result["protocol"]["seed_of_motions"] == 3 and "judged_action" in result["metrics"]
    assert {entry.task_type for entry in entries} == {"text-to-motion"}
    configs = {entry.metric_type: entry.metric_config for entry in entries}
    assert configs["fid_over_floor"] == f"evaluator {result['protocol']['evaluator_sha256'][:12]}"


@pytest.mark.parametrize("task", ["motion-prediction", "motion-in-between", "motion-duration"])
def test_command_line_measures_the_other_tasks(task, motions, tiny_model_folder, tmp_path, capsys):
    options = ["--task", task, "--data", motions, "--no-mirrored", "--output", tmp_path]
    options += ["--temperature", 0, "--keep", 0.4] if task != "motion-duration" else ["--max-new-tokens", 4]
    assert main(["evaluate", *map(str, [tiny_model_folder, *options])]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["protocol"]["task"] == task and result["protocol"]["decoding"]["do_sample"] is False
    assert ("ade_mm" in result["metrics"]) == (task != "motion-duration")
    assert result["protocol"].get("given") == (0.4 if task != "motion-duration" else None)
    assert f"saved {tmp_path}/" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lengths", "free"], "--lengths: no effect on a model"),
        (["--task", "text-to-motion", "--keep", "0.3"], "--keep: no effect on --task text-to-motion"),
        (["--task", "text-to-motion", "--convention", "nlgmetricverse"], "--convention: no effect on --task text"),
        (["--task", "motion-prediction", "--judge", "MODEL"], "--judge: no effect on --task motion-prediction"),
        (["--task", "motion-prediction", "--labels", "embedded"], "--labels: no effect on --task motion-pred"),
        (["--task", "motion-duration", "--evaluator", "E", "--top-p", "0.9"], "--evaluator, --top-p: no effect"),
        (["--task", "text-to-motion", "--labels", "embedded"], "--labels: no effect without --judge or --evaluator"),
        (["--task", "text-to-motion", "--judge", "MODEL"], "--judge: give --labels"),
        (["--task", "text-to-motion", "--temperature", "0", "--top-p", "0.9"], "have no effect on a search"),
        (["--task", "text-to-motion", "--num-beams", "3", "--num-samples", "2"], "a search finds the same motion"),
        (["--task", "text-to-motion", "--temperature", "-1"], "temperature is -1.0"),
        (["--task", "motion-in-between", "--keep", "0.5"], "keep is 0.5"),
    ],
)
def test_command_line_refuses_what_has_no_effect(options, message, motions, tiny_model_folder, tmp_path, capsys):
    given = [str(tiny_model_folder) if option == "MODEL" else option for option in options]
    argv = ["evaluate", str(tiny_model_folder), "--data", str(motions), "--output", str(tmp_path / "out"), *given]
    assert main(argv) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("geomotiongpt evaluate: error: ") and message in error
    assert not (tmp_path / "out").exists()


def test_a_task_is_of_a_model(motions, evaluator_folder, capsys):
    argv = ["evaluate", "--probes", "--data", motions, "--evaluator", evaluator_folder, "--task", "text-to-motion"]
    assert main([*map(str, argv)]) == 2
    assert "--task: no effect on --probes" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_measure_what_one_does(motions, tiny_model_folder, evaluator_folder, tmp_path):
    script = Path(__file__).parents[2] / "examples" / "evaluate.py"
    options = ["--task", "text-to-motion", "--data", motions, "--evaluator", evaluator_folder, "--batch-size", 4]
    options += ["--judge", tiny_model_folder, "--labels", "embedded", "--replications", 2, "--num-samples", 2]
    results = []
    for number, launcher in enumerate(([], ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"])):
        output = tmp_path / str(number)
        command = [sys.executable, *launcher, script, tiny_model_folder, *options, "--output", output]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-4000:]
        assert done.stdout.count("| fid_over_floor |") == 1, "one process says it all"
        files = {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*.npy")}
        results.append((json.loads((output / "result.json").read_text())["metrics"], files))
    assert results[0] == results[1] and len(results[0][1]) > 20
