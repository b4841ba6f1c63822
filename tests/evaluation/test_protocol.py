"""A run measures a stated population, says what it did, and refuses what it cannot measure."""

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
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
    load_motion_statistics,
    make_synthetic_dataset,
)
from geomotiongpt.cli import main
from geomotiongpt.evaluation.attributes import EmbeddedAttributes
from geomotiongpt.evaluation.protocol import (
    Population,
    compare_physics,
    evaluate_model,
    evaluate_motions,
    evaluate_probes,
    evaluate_retrieval,
    motions_of,
    pair_labels,
)
from geomotiongpt.evaluation.semantics import Evaluator


@pytest.fixture(scope="module")
def motions(tmp_path_factory):
    """Sixty embedded motions, of which eighteen are in the test split with their mirror images."""
    folder = tmp_path_factory.mktemp("motions") / "data"
    make_synthetic_dataset(folder, 60, seed=0)
    return folder


@pytest.fixture(scope="module")
def evaluator_folder(motions, tmp_path_factory):
    """A small random evaluator, as saved."""
    folder = tmp_path_factory.mktemp("evaluator")
    torch.manual_seed(0)
    sizes = dict.fromkeys(("movement_hidden_size", "movement_size", "motion_hidden_size", "text_hidden_size"), 16)
    MotionTextEvaluator(MotionTextEvaluatorConfig(**sizes, embedding_size=8)).save_pretrained(folder)
    mean, std = load_motion_statistics(motions)
    MotionTextEvaluatorProcessor(MotionFeatureExtractor("humanml3d", mean, std, 4)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def evaluator(evaluator_folder):
    """The same, opened."""
    model = MotionTextEvaluator.from_pretrained(evaluator_folder).eval()
    processor = MotionTextEvaluatorProcessor.from_pretrained(evaluator_folder)
    return Evaluator("small", model, processor, replications=3, pool_size=8)


@pytest.fixture(scope="module")
def report(motions, tiny_model_folder, evaluator, tmp_path_factory):
    """The folder that an evaluation of the tiny model writes."""
    output = tmp_path_factory.mktemp("report")
    evaluate_model(
        tiny_model_folder,
        Population(motions, mirrored=False),
        output,
        evaluator=evaluator,
        reader=EmbeddedAttributes(),
        max_new_tokens=8,
        command="geomotiongpt evaluate tiny",
    )
    return output


def test_the_result_of_a_model_says_what_was_measured_and_how(report, motions):
    result = json.loads((report / "result.json").read_text())
    protocol, metrics = result["protocol"], result["metrics"]
    count = len((motions / "test.txt").read_text().split()) // 2
    assert protocol["population"]["motions"] == protocol["population"]["left_out"]["mirrored"] == count
    assert protocol["population"]["split"] == "test" and not protocol["population"]["mirrored"]
    named = ("convention", "reference_policy", "track", "direction", "evaluator_sha256", "replications", "seed")
    assert all(protocol[name] not in (None, "") for name in named)
    decoding = {"max_new_tokens": 8, "num_beams": 1, "do_sample": False, "batch_size": 64}
    assert decoding.items() <= protocol["decoding"].items()
    assert not any(name.endswith("token_id") for name in protocol["decoding"])
    assert protocol["fid_sizes"] == [count, count] and protocol["diversity_pairs"] == count
    assert protocol["motions_without_label"] == 0 and len(result["data"]["sha256"]) == 64
    assert len(result["model"]["sha256"]) == 64 and "git_commit" in result["environment"]
    assert metrics["motion_to_text_r_at_1"]["n"] == 3 and metrics["action"]["n"] == count
    expected = ("bleu_4", "cider", "distinct_2", "mm_dist", "label_aware_text_to_motion_r_at_3", "pa_mpjpe_mm")
    expected += ("ground_truth_mm_dist", "reconstruction_fid", "fid_floor", "language_model_gram_error")
    expected += ("ground_truth_foot_skating_ratio", "reconstruction_jerk_m_per_s3", "perplexity", "welch_bound")
    assert set(expected) <= set(metrics)


def test_predictions_lie_beside_the_result_and_score_the_same_with_the_same_ruler(report, tmp_path, capsys):
    scores = tmp_path / "scores.json"
    assert main(["evaluate", "--predictions", str(report / "predictions.jsonl"), "--output", str(scores)]) == 0
    assert "| bleu_4 |" in capsys.readouterr().out
    scored, metrics = (json.loads(path.read_text())["metrics"] for path in (scores, report / "result.json"))
    assert len(scored) > 8 and scored == {name: metrics[name] for name in scored}


def test_the_report_shows_every_metric_and_picture(report):
    text, metrics = (report / "report.md").read_text(), json.loads((report / "result.json").read_text())["metrics"]
    assert all(f"| {name} | " in text for name in metrics)
    pictures = {path.name for path in report.glob("*.png")}
    assert pictures == {"rouge_l_by_length.png", "action_by_length.png", "actions.png", "confusion.png"}
    assert all(f"]({name})" in text for name in pictures)


def test_the_same_evaluation_again_gives_the_same_metrics(report, motions, tiny_model_folder, evaluator, tmp_path):
    arguments = {"evaluator": evaluator, "reader": EmbeddedAttributes(), "max_new_tokens": 8}
    again = evaluate_model(tiny_model_folder, Population(motions, mirrored=False), tmp_path, **arguments)
    assert again["metrics"] == json.loads((report / "result.json").read_text())["metrics"]


def test_the_population_is_filtered_and_counted(motions, evaluator):
    population = Population(motions, min_frames=60, max_frames=100)
    said = population.describe(population.dataset)
    frames = [len(motion) for motion in population.dataset["motion"]]
    assert said["frames"]["min"] == min(frames) >= 60 and said["frames"]["max"] == max(frames) <= 100
    listed = len((motions / "test.txt").read_text().split())
    assert said["motions"] == len(frames) and len(frames) + sum(said["left_out"].values()) == listed


def test_real_motions_measured_as_generated_ones_are_ground_truth(motions, evaluator, tmp_path):
    population = Population(motions)
    for motion_id, motion in zip(population.dataset["motion_id"], population.dataset["motion"], strict=True):
        np.save(tmp_path / f"{motion_id}.npy", motion)
    np.save(tmp_path / "unknown.npy", motion)
    result = evaluate_motions(tmp_path, population, evaluator, reader=EmbeddedAttributes())
    metrics, said = result["metrics"], result["protocol"]["population"]
    texts = evaluator.embed_texts([group[0] for group in population.dataset["captions"]])
    distances = np.linalg.norm(texts - evaluator.embed_motions(list(population.dataset["motion"])), axis=1)
    assert metrics["mm_dist"]["mean"] == pytest.approx(distances.mean(), rel=1e-5)
    assert metrics["fid"] == pytest.approx(0, abs=1e-9)
    assert metrics["text_to_motion_r_at_1"] == metrics["ground_truth_text_to_motion_r_at_1"]
    assert metrics["foot_skating_ratio"] == metrics["ground_truth_foot_skating_ratio"]
    assert metrics["foot_skating_over_ground_truth"] == 1
    assert metrics["fid_of_halves"] == pytest.approx(metrics["fid_floor"]) and metrics["fid_floor"]["mean"] > 0
    assert metrics["fid_over_floor"] == pytest.approx({"mean": 1, "ci95": 0, "n": 3})
    assert "multimodality" not in metrics
    assert (said["without_a_file"], said["files_of_no_motion"], said["motions_a_caption"]) == (0, 1, 1)


def test_several_motions_of_a_caption_give_multimodality(motions, evaluator, tmp_path):
    dataset = Population(motions).dataset
    for row in range(4):
        folder = tmp_path / dataset[row]["motion_id"]
        folder.mkdir()
        for number in range(5):
            np.save(folder / f"{number}.npy", dataset[row + number]["motion"])
    result = evaluate_motions(tmp_path, Population(motions), evaluator)
    groups = evaluator.embed_motions(list(dataset["motion"][:8]))[np.arange(4)[:, None] + np.arange(5)]
    apart = [np.linalg.norm(group[one] - group[other]) for group in groups for one in range(5) for other in range(one)]
    assert result["metrics"]["multimodality"] == pytest.approx({"mean": np.mean(apart), "ci95": 0, "n": 3}, rel=1e-5)
    assert "all pairs of different motions, 5 of a text" in result["protocol"]["multimodality_pairs"]
    assert result["protocol"]["population"]["without_a_file"] == len(dataset) - 4
    np.save(tmp_path / f"{dataset[10]['motion_id']}.npy", dataset[10]["motion"])
    mixed = evaluate_motions(tmp_path, Population(motions), evaluator)
    assert mixed["metrics"]["multimodality"] == result["metrics"]["multimodality"]
    said = mixed["protocol"]["population"]
    assert (said["motions"], said["motions_a_caption"], said["captions_with_several"]) == (5, 5, 4)
    (folder / "4.npy").unlink()
    with pytest.raises(ValueError, match="between 1 and 5 motions a caption; wanted as many of each"):
        evaluate_motions(tmp_path, Population(motions), evaluator)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((40, 263), np.nan, np.float32), "{id}.npy cannot be measured: NaN or infinity in 40 of 40 frames"),
        (np.zeros((40, 251), np.float32), r"{id}.npy has shape \(40, 251\)"),
        (np.zeros((3, 251), np.float32), r"{id}.npy has shape \(3, 251\)"),
        (np.zeros((0, 263), np.float32), "{id}.npy has 0 frames"),
        (np.float32(1), r"{id}.npy has shape \(\)"),
    ],
)
def test_motions_that_cannot_be_measured_are_named(array, message, motions, evaluator, tmp_path):
    motion_id = Population(motions).dataset[0]["motion_id"]
    np.save(tmp_path / f"{motion_id}.npy", array)
    with pytest.raises(ValueError, match=message.format(id=motion_id)):
        evaluate_motions(tmp_path, Population(motions), evaluator)


def test_a_folder_without_motions_of_the_split_is_refused(motions, evaluator, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        evaluate_motions(tmp_path / "none", Population(motions), evaluator)
    np.save(tmp_path / "walk.npy", np.zeros((40, 263)))
    with pytest.raises(ValueError, match="holds no motion of split 'test': its files are called like walk"):
        evaluate_motions(tmp_path, Population(motions), evaluator)
    (tmp_path / "walk").mkdir()
    np.save(tmp_path / "walk" / "0.npy", np.zeros((40, 263)))
    with pytest.raises(ValueError, match="both walk.npy and a folder walk"):
        evaluate_motions(tmp_path, Population(motions), evaluator)


def test_probes_measure_ground_truth_first(motions, evaluator):
    result = evaluate_probes(Population(motions), evaluator, reader=EmbeddedAttributes())
    truth = result["metrics"]["ground_truth"]
    assert next(iter(result["metrics"])) == "ground_truth" and len(result["metrics"]) == 9
    assert truth["bleu_1"] == pytest.approx(100) and truth["fid"] == pytest.approx(0, abs=1e-9)
    assert result["metrics"]["half_blank"]["bleu_1"] < 90 and result["metrics"]["noise_5cm"]["fid"] > 1e-3
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("reader", [None, EmbeddedAttributes()], ids=["captions", "labels"])
def test_retrieval_measures_the_evaluator_itself(reader, motions, evaluator):
    result = evaluate_retrieval(Population(motions, mirrored=False), evaluator, reader=reader)
    metrics, count = result["metrics"], result["protocol"]["population"]["motions"]
    assert metrics["all_num_pairs"] == count and metrics["small_batches_num_pairs"] == count // 8 * 8
    assert metrics["threshold_text_to_motion_r_at_5"] >= metrics["all_text_to_motion_r_at_5"]
    assert 1 <= metrics["all_motion_to_text_median_rank"] <= count
    assert metrics["fid_floor"]["mean"] > 0 and "fid" not in metrics
    assert ("label_aware_motion_to_text_r_at_1" in metrics) == (reader is not None)


def test_pairs_of_equal_attributes_have_equal_labels():
    references = [["a person waves the left hand."], ["someone waves with the left hand."], ["a person sits down."]]
    labels = pair_labels(references, EmbeddedAttributes())
    assert labels[0] == labels[1] == ("wave", "left") and labels[2] == ("sit_down", None)


def test_motions_whose_action_cannot_be_read_are_like_no_other():
    labels = pair_labels([["gibberish"], ["more gibberish"], ["a person waves the left hand."]], EmbeddedAttributes())
    assert len(set(labels)) == 3


def test_physics_of_joints_are_of_the_joints_as_given(motions, evaluator, tmp_path):
    """Turned into features first, they would stand on the ground whatever they did."""
    ids = Population(motions).dataset["motion_id"][:6]
    for motion_id in ids:
        np.save(tmp_path / f"{motion_id}.npy", np.load(motions / "new_joints" / f"{motion_id}.npy") - [0, 0.2, 0])
    metrics = evaluate_motions(tmp_path, Population(motions), evaluator)["metrics"]
    assert 190 < metrics["ground_penetration_mm"] <= 200
    assert metrics["ground_truth_ground_penetration_mm"] < 1


def test_motions_too_long_for_the_evaluator_are_cut_and_counted(motions, evaluator, tmp_path):
    dataset = Population(motions).dataset
    for row in range(8):
        motion = dataset[row]["motion"]
        np.save(
            tmp_path / f"{dataset[row]['motion_id']}.npy", np.concatenate([motion] * 6)[: 250 if row == 0 else 100]
        )
    result = evaluate_motions(tmp_path, Population(motions), evaluator)
    assert result["protocol"]["motions_cut_for_the_evaluator"] == 1
    assert result["protocol"]["pools"] == {"8": 1} and result["metrics"]["motions_without_physics"] == 0


@pytest.mark.parametrize("kind", ["features", "joints"])
def test_motions_too_short_for_the_evaluator_are_lengthened_and_counted(kind, motions, evaluator, tmp_path):
    """One that a model ended at once must not end the measurement of all the others."""
    dataset = Population(motions).dataset
    fewest, folder = (4, "new_joint_vecs") if kind == "features" else (5, "new_joints")
    for row, length in enumerate((1, fewest - 1, fewest, 12)):
        motion = np.load(motions / folder / f"{dataset[row]['motion_id']}.npy")[:length]
        (tmp_path / dataset[row]["motion_id"]).mkdir()
        for number in range(2):
            np.save(tmp_path / dataset[row]["motion_id"] / f"{number}.npy", motion[: length if number == 0 else 1])
    result = evaluate_motions(tmp_path, Population(motions), evaluator)
    said = {name: count for name, count in result["protocol"].items() if name.endswith("_for_the_evaluator")}
    assert said == {"motions_cut_for_the_evaluator": 0, "motions_lengthened_for_the_evaluator": 2}
    assert result["metrics"]["motions_without_physics"] == 2 - (kind == "joints")
    assert result["metrics"]["multimodality"]["mean"] > 0


def test_motions_too_short_for_physics_are_counted(motions):
    real = motions_of(Population(motions).dataset)
    whole, some = (compare_physics(made, real, "humanml3d") for made in (real, [real[0][:3], *real]))
    assert some == {**whole, "motions_without_physics": 1}
    none = compare_physics([real[0][:2]], real, "humanml3d")
    assert none["jerk_m_per_s3"] is None and none["ground_truth_jerk_m_per_s3"] == whole["jerk_m_per_s3"]


def test_pools_are_said_as_they_are(motions, evaluator, caplog):
    count = len(Population(motions).dataset)
    for last_pool, rest in (("smaller", {str(count % 8): 1}), ("drop", {})):
        said = replace(evaluator, last_pool=last_pool)
        said.check_number(count)
        assert said.describe_distribution(count, count)["pools"] == {"8": count // 8, **rest}
    assert not caplog.messages
    few = replace(evaluator, pool_size=64)
    assert few.describe_distribution(count, count)["pools"] == {str(count): 1}
    few.check_number(count)
    assert f"that of one pool of {count}, not of 64" in caplog.text
    with pytest.raises(ValueError, match="motions fill no pool of 64.*--pool-size"):
        evaluate_retrieval(Population(motions), replace(evaluator, pool_size=64, last_pool="drop"))
    with pytest.raises(ValueError, match="the pool size is 1"):
        evaluate_retrieval(Population(motions), replace(evaluator, pool_size=1))


def test_references_are_also_read_as_captions_of_a_model_are(motions, tiny_model_folder, evaluator, tmp_path):
    tagged = copy.deepcopy(evaluator)
    tagged.processor.tagged = True
    options = {"evaluator": tagged, "max_new_tokens": 4}
    metrics = evaluate_model(tiny_model_folder, Population(motions), tmp_path, **options)["metrics"]
    plain = evaluate_retrieval(Population(motions), evaluator)["metrics"]  # reads every caption word by word
    name = "motion_to_text_r_at_3"
    assert metrics[f"ground_truth_untagged_{name}"] == plain[name] != metrics[f"ground_truth_{name}"]


def test_an_incomplete_pool_can_be_left_out(motions, evaluator):
    count = len(Population(motions).dataset)
    pairs = {
        last_pool: evaluate_retrieval(Population(motions), replace(evaluator, last_pool=last_pool))["metrics"]
        for last_pool in ("smaller", "drop")
    }
    assert [pairs[name]["r_precision_pairs"] for name in pairs] == [count, count // 8 * 8] and count % 8


def test_what_an_evaluator_cannot_take_is_said_before_captioning(motions, tiny_model_folder, evaluator, tmp_path):
    short = replace(evaluator, model=copy.deepcopy(evaluator.model))
    short.model.config.max_frames = 60
    with pytest.raises(ValueError, match="has .* frames; this evaluator takes at most 60"):
        evaluate_model(tiny_model_folder, Population(motions), tmp_path / "output", evaluator=short)
    longest = sorted(map(len, Population(motions).dataset["motion"]))[-2]  # a motion and its mirror image
    few = Population(motions, min_frames=longest)
    with pytest.raises(ValueError, match="2 motions are too few"):
        evaluate_model(tiny_model_folder, few, tmp_path / "output", evaluator=evaluator)
    assert not (tmp_path / "output").exists()


# The command line


def test_command_line_measures_a_model_and_updates_its_card(
    motions, tiny_model_folder, evaluator_folder, tmp_path, capsys
):
    card = tiny_model_folder / "README.md"
    card.write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    options = ["--data", motions, "--output", tmp_path, "--evaluator", evaluator_folder, "--replications", 2]
    options += ["--max-new-tokens", 4, "--min-frames", 75, "--labels", "embedded", "--pool-size", 4, "--update-card"]
    for _ in range(2):  # the second time the entries are replaced
        assert main(["evaluate", *map(str, [tiny_model_folder, *options])]) == 0
    assert "| motion_to_text_r_at_1 |" in capsys.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["command"].startswith(f"geomotiongpt evaluate {tiny_model_folder} --data")
    entries = ModelCard.load(card).data.eval_results
    values = {entry.metric_type: entry.metric_value for entry in entries}
    assert len(values) == len(entries) and values["cider"] == result["metrics"]["cider"]
    configs = {entry.metric_type: entry.metric_config for entry in entries}
    assert {entry.dataset_name for entry in entries} == {motions.name}, "no folder of this machine"
    assert configs["cider"] == "coco, references first-three"
    assert configs["mm_dist"] == f"evaluator {result['protocol']['evaluator_sha256'][:12]}"
    assert not any(name.startswith("ground_truth") or name == "fid_floor" for name in configs)
    assert "# A model" in card.read_text()


@pytest.mark.slow
def test_two_processes_give_the_metrics_of_one_to_the_bit(motions, tiny_model_folder, evaluator_folder, tmp_path):
    script = Path(__file__).parents[2] / "examples" / "evaluate.py"
    options = ["--data", motions, "--evaluator", evaluator_folder, "--replications", 2, "--batch-size", 4]
    results = []
    for number, launcher in enumerate(([], ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"])):
        output = tmp_path / str(number)
        command = [sys.executable, *launcher, script, tiny_model_folder, *options, "--output", output]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-4000:]
        assert done.stdout.count("| bleu_1 |") == 1, "one process says it all"
        results.append((json.loads((output / "result.json").read_text()), (output / "predictions.jsonl").read_bytes()))
    assert results[0][0]["metrics"] == results[1][0]["metrics"] and results[0][1] == results[1][1]


def test_command_line_prints_the_table_of_probes(motions, evaluator_folder, tmp_path, capsys):
    output = tmp_path / "probes.json"
    options = ["--probes", "--data", motions, "--evaluator", evaluator_folder, "--output", output]
    assert main(["evaluate", *map(str, options)]) == 0
    assert "| metric | ground_truth | shuffled_pairs |" in capsys.readouterr().out
    assert json.loads(output.read_text())["metrics"]["mirrored"]["jerk_m_per_s3"] > 0


def test_command_line_measures_the_evaluator_itself(motions, evaluator_folder, capsys):
    options = ["--data", motions, "--evaluator", evaluator_folder, "--replications", 2, "--pool-size", 8]
    assert main(["evaluate", "--retrieval", *map(str, options)]) == 0
    assert "| dissimilar_text_to_motion_r_at_10 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--probes", "--evaluator", "EVALUATOR"], "give --data"),
        (["MODEL", "--data", "DATA", "--track", "token"], "--track: no effect on a model"),
        (["--motions", "DATA", "--bert-model", "DATA", "--num-beams", "2"], "--bert-model, --num-beams: no effect"),
        (["EVALUATOR", "--data", "DATA"], "holds a 'motion_text_evaluator' model; captions take a 'geomotiongpt'"),
        (["MODEL/none", "--data", "DATA"], "no such folder, and not to be had from the Hub"),
        (["--probes", "--data", "DATA"], "give --evaluator"),
        (["MODEL", "--data", "DATA", "--update-card"], "no model card to update"),
        (
            ["MODEL", "--data", "DATA", "--output", "DONE"],
            "done has the result of text-to-motion, which would be lost",
        ),
        (["--probes", "--data", "DATA", "--evaluator", "EVALUATOR", "--output", "DONE"], "done is a folder"),
        (["MODEL", "--data", "DATA", "--output", "NEW", "--bert-model", "none"], "bert-score knows no best layer of"),
        (["MODEL", "--data", "DATA", "--output", "LABELS"], "labels.json is a file; the evaluation of a model is a"),
        (["--probes", "--data", "DATA", "--evaluator", "EVALUATOR", "--labels", "LABELS"], "labels.json is no JSON"),
        (
            ["--probes", "--data", "DATA", "--evaluator", "MODEL"],
            "holds a 'geomotiongpt' model; an evaluator is one of",
        ),
    ],
)
def test_command_line_says_what_is_missing(
    options, message, motions, evaluator_folder, tiny_model_folder, tmp_path, capsys
):
    (tmp_path / "labels.json").write_text("{")
    (tiny_model_folder / "README.md").unlink(missing_ok=True)
    names = {"DATA": motions, "EVALUATOR": evaluator_folder, "MODEL": tiny_model_folder}
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "result.json").write_text('{"protocol": {"task": "text-to-motion"}}')
    names |= {"LABELS": tmp_path / "labels.json", "DONE": tmp_path / "done", "NEW": tmp_path / "new"}
    assert main(["evaluate", *(str(names.get(option, option)) for option in options)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("geomotiongpt evaluate: error: ") and message in error
