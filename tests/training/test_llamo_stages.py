"""From a base language model and a motion codec through the three stages of LLaMo, on the embedded motions."""

import json
import logging
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from test_distributed import launch
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor, AutoTokenizer

from geomotiongpt import (
    LLaMoForCausalLM,
    MotionFeatureExtractor,
    features_to_joints,
    load_motion_dataset,
)
from geomotiongpt.data.documentation import python_documentation, split_documentation
from geomotiongpt.data.training_sets import MotionCaptionDataset, normalised_clips
from geomotiongpt.evaluation.forgetting import measure_forgetting
from geomotiongpt.evaluation.reconstruction import encode_latent_sequences
from geomotiongpt.models.processing_llamo import LLaMoProcessor
from geomotiongpt.training.arguments import LLaMoTrainingArguments
from geomotiongpt.training.continuous_stages import set_answers
from geomotiongpt.training.lengths import check_lengths, token_example
from geomotiongpt.training.llamo import _drop_slow_motions, caption_latent_sequences

HERE = Path(__file__).parent
pytestmark = pytest.mark.usefixtures("no_history_plot")
TASKS = "{text-to-motion: 1, unconditional: 0.2, motion-prediction: 0.5, motion-in-between: 0.5, motion-to-text: 1}"
LLAMA = (
    "{model_type: llama, num_hidden_layers: 2, hidden_size: 32, intermediate_size: 48, num_attention_heads: 4, "
    "num_key_value_heads: 2, max_position_embeddings: 160}"
)


LORA = ("lora.r=4", "lora.lora_alpha=8", "lora.lora_dropout=0.0", "lora.target_modules=[q_proj, up_proj]")


@pytest.fixture(scope="module")
def codec_run(run) -> Path:
    return run("causal_motion_codec.yaml")


@pytest.fixture(scope="module")
def text_run(run) -> Path:
    """A Llama with two key-value heads for four query heads."""
    return run("text_model.yaml", f"model.language_model_config={LLAMA}")


@pytest.fixture(scope="module")
def train_first(run, codec_run, text_run):
    def train(*overrides: str) -> Path:
        return run("llamo.yaml", f"model.language_model={text_run}", f"model.motion_codec={codec_run}", *overrides)

    return train


@pytest.fixture(scope="module")
def first_run(train_first) -> Path:
    return train_first("training.save_strategy=steps", "training.save_steps=2")


def next_stage(folder: Path, stage: str, frozen: str = "[text]", tasks: str = TASKS) -> list[str]:
    """What turns the recipe of the first stage into a later one."""
    return [
        *(f"model.{name}=null" for name in ("language_model", "motion_codec")),
        "model.config={}",
        f"model.trained_model={folder}",
        f"training.stage={stage}",
        f"training.frozen={frozen}",
        f"training.tasks={tasks}",
        "training.max_steps=2",
    ]


@pytest.fixture(scope="module")
def second_run(run, first_run) -> Path:
    weights = ("model.language_modeling_weight=0.5", "model.denoising_weight=2.0", "model.exit_weight=0.25")
    return run("llamo.yaml", *next_stage(first_run, "joint"), *weights)


@pytest.fixture(scope="module")
def third_run(run, second_run) -> Path:
    tasks = "{text-to-motion: 0.9, unconditional: 0.1, motion-to-text: 0.0}"
    return run("llamo.yaml", *next_stage(second_run, "motion", tasks=tasks))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def history(folder: Path) -> list[dict]:
    rows = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [row for row in rows if "loss" in row]


def test_all_stages_leave_every_text_weight_as_it_was(text_run, first_run, second_run, third_run):
    base = AutoModelForCausalLM.from_pretrained(text_run).eval()
    assert base.config.model_type == "llama"
    text = torch.randint(len(AutoTokenizer.from_pretrained(text_run)), (2, 20))
    expected = base(text).logits
    for folder in (first_run, second_run, third_run):
        model = LLaMoForCausalLM.from_pretrained(folder).eval()
        assert all(torch.equal(weight, base.state_dict()[name]) for name, weight in model.text_parameters().items())
        assert torch.equal(model(text).logits[..., : expected.shape[-1]], expected)


def test_each_stage_trains_what_it_declares(text_run, codec_run, first_run, second_run, third_run):
    """The first adapter, heads and markers; later ones the motion branch too; none the codec and the statistics."""
    first, second, third = map(weights, (first_run, second_run, third_run))
    parts = {"motion_input", "denoising_head", "exit_head", "marker_embedding"}
    begin = weights(first_run / "checkpoint-2")
    assert {name.split(".")[0] for name in changed(begin, first)} == parts
    text = load_file(text_run / "model.safetensors")
    branch = {name: weight for name, weight in first.items() if "layers.0.motion_branch" in name}
    assert len(branch) == 9, "it still is the copy that it began as"
    for name, weight in branch.items():
        assert torch.equal(weight, text[name.replace("language_model.", "", 1).replace(".motion_branch", "")])
    for before, after in ((first, second), (second, third)):
        moved = changed(before, after)
        assert {name.split(".")[0] for name in moved} >= {"language_model", "motion_branch_norm", *parts}
        assert all("motion_branch" in name for name in moved if name.startswith("language_model."))
        assert not any(name.startswith(("motion_codec.", "latent_")) for name in moved)
    codec = load_file(codec_run / "model.safetensors")
    assert all(torch.equal(third[f"motion_codec.{name}"], weight) for name, weight in codec.items())


def test_the_first_stage_standardises_the_latents_of_the_training_motions(first_run, motions):
    """At all offsets; the longest motion is kept in mind."""
    model, processor = LLaMoForCausalLM.from_pretrained(first_run), AutoProcessor.from_pretrained(first_run)
    clips = normalised_clips(load_motion_dataset(motions, "train", mirrored=False), processor.feature_extractor)
    rows = [
        row
        for offset in (0, 1)
        for row in encode_latent_sequences(model.motion_codec, [clip[offset:] for clip in clips])
    ]
    seen = model.standardise(torch.from_numpy(np.concatenate(rows)))
    torch.testing.assert_close(seen.mean(0), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.std(0), torch.ones(8), atol=1e-4, rtol=0)
    assert model.config.max_motion_latents == max(map(len, rows)) == max(map(len, clips)) // 4


def test_losses_are_those_of_the_stage(first_run, second_run, third_run):
    for row in history(first_run):
        parts = row["language_modeling_loss"] + row["denoising_loss"] + row["exit_loss"]
        assert row["loss"] == pytest.approx(parts, rel=1e-3)
    for row in history(second_run):
        parts = 0.5 * row["language_modeling_loss"] + 2.0 * row["denoising_loss"] + 0.25 * row["exit_loss"]
        assert row["loss"] == pytest.approx(parts, rel=1e-3)
    assert all(row["language_modeling_loss"] == 0 for row in history(third_run))


def test_heads_have_a_learning_rate_of_their_own(first_run):
    groups = torch.load(first_run / "checkpoint-2" / "optimizer.pt", weights_only=True)["param_groups"]
    assert {group["initial_lr"] for group in groups} == {2e-3, 4e-3}


def test_a_resumed_run_ends_as_one_without_a_break(train_first, first_run):
    resumed = train_first(f"training.resume_from_checkpoint={first_run / 'checkpoint-2'}")
    assert not changed(weights(first_run), weights(resumed))


def test_a_trained_model_captions_and_makes_motions(second_run, third_run):
    model, processor = AutoModel.from_pretrained(third_run).eval(), AutoProcessor.from_pretrained(third_run)
    assert (model.config.trained_stage, model.config.trained_tasks) == ("motion", ["text-to-motion", "unconditional"])
    assert model.generation_config.max_new_tokens == 8
    made = model.generate_motion("a person walks", num_frames=30, generator=torch.Generator().manual_seed(0))
    assert made.motion_values.shape == (1, 30, 263)
    inputs = processor(motion=[processor.feature_extractor.denormalise(made.motion_values[0])])
    assert len(model.generate(**inputs)) == 1
    assert (third_run / "README.md").is_file() and not (third_run / "caption_samples.jsonl").exists()
    assert (second_run / "caption_samples.jsonl").is_file()


def test_captions_of_latents_are_those_of_their_motions(second_run, motions):
    model, processor = AutoModel.from_pretrained(second_run).eval(), AutoProcessor.from_pretrained(second_run)
    dataset = load_motion_dataset(motions, "val", mirrored=False)
    inputs = processor(motion=list(dataset["motion"]))
    expected = processor.post_process_text(model.generate(**inputs), inputs["input_ids"].shape[1])
    clips = normalised_clips(dataset, processor.feature_extractor)
    rows = [torch.from_numpy(row) for row in encode_latent_sequences(model.motion_codec, clips)]
    for batch_size in (64, 2):
        assert caption_latent_sequences(model.train(), processor, rows, batch_size=batch_size) == expected
        assert model.training, "is left as it was"


# Motions that stand still


def speeds_of(motions: Path) -> dict[str, float]:
    """Metres per second: the mean over joints and steps, 20 frames a second."""
    dataset = load_motion_dataset(motions, "train", mirrored=False)
    speeds = {}
    for motion_id, motion in zip(dataset["motion_id"], dataset["motion"], strict=True):
        joints = features_to_joints(np.asarray(motion, np.float64))
        speeds[motion_id] = float(np.linalg.norm(joints[1:] - joints[:-1], axis=-1).mean() * 20)
    return speeds


@pytest.fixture
def messages():
    """What the training says: its loggers do not propagate in every setting."""
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger = logging.getLogger("geomotiongpt.training.llamo")
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def test_slow_motions_are_left_out_of_training_and_named(run, second_run, motions, messages):
    speeds = speeds_of(motions)
    ordered = sorted(speeds, key=speeds.get)
    assert speeds[ordered[0]] > 0 and speeds[ordered[-1]] > 2 * speeds[ordered[0]]
    threshold = (speeds[ordered[2]] + speeds[ordered[3]]) / 2
    folder = run("llamo.yaml", *next_stage(second_run, "motion"), f"training.min_speed={threshold!r}")
    (said,) = [message for message in messages if "slower" in message]
    slow = [motion_id for motion_id in speeds if motion_id in ordered[:3]]
    assert said == f"left out 3 motions slower than {threshold:g} m/s: {', '.join(slow)}"
    epochs = [row["epoch"] for row in history(folder)]
    batches = -(-(len(speeds) - 3) // 16)
    assert epochs[0] == pytest.approx(1 / batches, abs=1e-3)


def test_a_threshold_that_leaves_out_nothing_says_nothing(motions, messages):
    dataset, extractor = load_motion_dataset(motions, "train", mirrored=False), MotionFeatureExtractor()
    kept = _drop_slow_motions(dataset, extractor, 1e-9)
    assert list(kept["motion_id"]) == list(dataset["motion_id"]) and not messages


def test_kit_motions_have_their_speed_in_metres():
    """In millimetres and at 12.5 frames a second: a root that moves by 80 mm a frame makes 1 m/s."""
    still = np.zeros((20, 251), np.float32)
    moving = still.copy()
    moving[:, 2] = 80.0
    rows = Dataset.from_dict({"motion_id": ["still", "moving"], "motion": [still, moving]})
    extractor = MotionFeatureExtractor("kitml", np.full(251, 3.0), np.full(251, 2.0), downsampling_factor=4)
    for threshold, kept in ((0.99, ["moving"]), (0.0, ["still", "moving"])):
        assert list(_drop_slow_motions(rows, extractor, threshold)["motion_id"]) == kept
    with pytest.raises(ValueError, match="min_speed is 1.01, but no motion is faster than 1 m/s: lower it"):
        _drop_slow_motions(rows, extractor, 1.01)


# What is refused


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.stage=joint"], "goes on from a trained model: give `model.trained_model`, what stage 'alignment'"),
        (["training.stage=third"], "stage is 'third'; use one of alignment, joint, motion"),
        (["training.frozen=[head]"], "frozen has head; what can be frozen is text, motion_branch"),
        (["training.tasks={dancing: 1}"], "unknown task 'dancing'"),
        (["training.tasks={text: 1}"], "unknown task 'text'"),
        (["training.min_speed=-1"], "min_speed is -1; it must be 0 or more"),
        (["training.min_speed=1000"], "min_speed is 1000, but no motion is faster than"),
        (["training.latent_offsets=0"], "latent_offsets is 0; it must be 1 or more"),
        (["training.text_learning_rate=1e-4"], "text_learning_rate has no effect on a text branch that is frozen"),
        (["model.config={streams: single}"], "frozen has text, motion_branch, but with a single stream motion goes"),
        (["model.config={streams: triple}"], "streams is 'triple'; use one of dual, single"),
        (["model.config={flow_hiden_size: 8}"], "flow_hiden_size: no such option of LLaMoConfig"),
        (["model.motion_codec=/nowhere/codec"], "/nowhere/codec: no such folder"),
        (["model.motion_codec=null"], "needs 'language_model' and 'motion_codec' for a new model, or 'trained_model'"),
        (["model.trained_model=x"], "leaves nothing for language_model, motion_codec, config to say"),
        (["lora.r=4"], "'lora' adapts the motion branch, which stage 'alignment' with .* does not train: take it out"),
        (["generation.max_new_token=8"], r"'generation' has no option 'max_new_token' \(did you mean"),
        (
            ["data.representation=kitml"],
            "takes 'humanml3d' motions, the recipe's data are 'kitml': give data of the model's representation",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(train_first, overrides, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train_first(*overrides)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_caption_too_long_for_the_model_ends_the_run_before_it_begins(train_first, motions, tmp_path, split):
    """It is named at once, not hours later, when its batch comes; nothing is evaluated here."""
    folder = tmp_path / "motions"
    shutil.copytree(motions, folder)
    name = (folder / f"{split}.txt").read_text().split()[0]
    texts = folder / "texts" / f"{name}.txt"
    texts.write_text(texts.read_text() + " ".join(["walks"] * 200) + "#walk/VERB#0.0#0.0\n")
    with pytest.raises(ValueError, match=f"^{name}.* takes .* tokens with its text, the language model 160"):
        train_first(f"data.path={folder}")


@pytest.mark.parametrize("task", ["motion-to-text", "text-to-motion", "motion-duration", "motion-in-between"])
def test_the_longest_row_of_every_task_is_looked_at(task, first_run, tmp_path):
    """Of all captions, wordings in use, and prompts that state a length or do not."""
    processor = LLaMoProcessor.from_pretrained(first_run)
    captions = [["a man walks."], ["he sits.", "a person jumps up and down, and down again.", "she runs."]]
    dataset = Dataset.from_dict({"motion_id": ["short", "long"], "captions": captions})
    args = LLaMoTrainingArguments(stage="joint", tasks={task: 1.0}, prompt_wordings=3, output_dir=str(tmp_path))
    items = MotionCaptionDataset(
        [[[0, 0, 0]], [[0] * 9]], captions, dataset["motion_id"], seed=0, tasks={task: 1.0}, num_wordings=3
    )
    rows = []
    for epoch in range(100):
        items.set_epoch(epoch)
        rows.append(items[1]["example"])
    mask = processor.prepare_examples(rows, with_answers=True)["attention_mask"]
    longest = int(mask.sum(-1).max())
    make = partial(token_example, [3, 9])
    processor.tokenizer.model_max_length = longest
    check_lengths(processor, args, dataset, make)
    processor.tokenizer.model_max_length = longest - 1
    with pytest.raises(
        ValueError, match=f"^long takes {longest} tokens with its text, the language model {longest - 1}"
    ):
        check_lengths(processor, args, dataset, make)


@pytest.mark.parametrize("ends, all_ends", [([0, 7], [0, 7]), ([7], [7, 0]), (7, [7, 0]), (0, 0)])
def test_what_ends_the_answers_of_the_base_ends_those_of_the_model(ends, all_ends, first_run, tmp_path):
    """And what training puts there, token 0."""
    model, processor = LLaMoForCausalLM.from_pretrained(first_run), LLaMoProcessor.from_pretrained(first_run)
    assert processor.tokenizer.eos_token_id == 0
    model.generation_config.eos_token_id = ends
    set_answers(model, processor, {})
    assert model.generation_config.eos_token_id == all_ends


def test_stages_go_on_from_the_one_before(run, first_run, second_run, text_run):
    for folder, stage, message in (
        (first_run, "motion", "has been through stage 'alignment'; stage 'motion' goes on from 'joint' or 'motion'"),
        (
            second_run,
            "alignment",
            "has been through stage 'joint'; stage 'alignment' goes on from no stage yet or 'alignment'",
        ),
        (text_run, "joint", "configuration of a 'llama' model, wanted 'llamo'"),
    ):
        with pytest.raises(ValueError, match=message):
            run("llamo.yaml", *next_stage(folder, stage))


@pytest.mark.parametrize("damage", ["missing", "unexpected"])
def test_a_checkpoint_with_other_keys_is_no_stage(run, first_run, tmp_path, damage):
    folder = shutil.copytree(first_run, tmp_path / "model")
    tensors, name = weights(folder), "exit_head.bias"
    if damage == "missing":
        del tensors[name]
    else:
        name = "exit_head.of_another_model"
        tensors[name] = torch.zeros(2)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"{damage}: {name}"):
        run("llamo.yaml", *next_stage(folder, "joint"))


def test_a_model_without_a_stage_starts_with_the_first(run, codec_run, text_run, first_run, tmp_path):
    """Where its latents are standardised, as those of a new one."""
    LLaMoForCausalLM.from_language_model(
        text_run, codec_run, denoising_hidden_size=32, denoising_num_layers=1
    ).save_pretrained(tmp_path)
    AutoProcessor.from_pretrained(first_run).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has been through no stage yet; |has been through no stage; stage 'joint'"):
        run("llamo.yaml", *next_stage(tmp_path, "joint"))
    model = LLaMoForCausalLM.from_pretrained(run("llamo.yaml", *next_stage(tmp_path, "alignment")))
    assert model.config.trained_stage == "alignment"
    wanted = weights(first_run)
    assert torch.equal(model.latent_shift, wanted["latent_shift"])
    assert torch.equal(model.latent_scale, wanted["latent_scale"])


def test_a_single_stream_trains_the_text_weights(train_first, text_run):
    folder = train_first(
        "model.config={denoising_hidden_size: 32, denoising_num_layers: 1, streams: single}",
        "training.frozen=[]",
        "training.max_steps=1",
    )
    model = LLaMoForCausalLM.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(text_run).state_dict()
    assert not any("motion_branch" in name for name in model.state_dict())
    assert any(not torch.equal(weight, base[name]) for name, weight in model.text_parameters().items())


# Less memory


@pytest.fixture(scope="module")
def adapted_run(run, first_run) -> Path:
    """The second stage with adapters, and a checkpoint on the way."""
    saved = ("training.save_strategy=steps", "training.save_steps=1")
    return run("llamo.yaml", *next_stage(first_run, "joint"), *LORA, *saved)


def test_adapters_leave_text_as_it_was_and_the_next_stage_goes_on(run, text_run, first_run, adapted_run):
    """Of the motion branch the layers named change, and nothing else; then it trains in full, and adapted again."""
    base = AutoModelForCausalLM.from_pretrained(text_run).eval()
    text = torch.randint(len(AutoTokenizer.from_pretrained(text_run)), (2, 20))
    expected = base(text).logits
    moved = changed(weights(first_run), weights(adapted_run))
    parts = {"motion_input", "denoising_head", "exit_head", "marker_embedding"}
    assert {name.split(".")[0] for name in moved} == {"language_model", *parts}
    branch = {name for name in moved if name.startswith("language_model.")}
    layers = [f"language_model.model.layers.{layer}.motion_branch" for layer in (0, 1)]
    assert branch == {f"{layer}.{name}.weight" for layer in layers for name in ("self_attn.q_proj", "mlp.up_proj")}
    adapter = load_file(adapted_run / "adapter" / "adapter_model.safetensors")
    low, high = (adapter[f"base_model.model.{layers[0]}.mlp.up_proj.lora_{side}.weight"] for side in "AB")
    assert low.shape == (4, 32) and high.any()
    name = f"{layers[0]}.mlp.up_proj.weight"
    difference = weights(adapted_run)[name] - weights(first_run)[name]
    torch.testing.assert_close(difference, 2 * high @ low, rtol=1e-3, atol=1e-6)
    groups = torch.load(adapted_run / "checkpoint-1" / "optimizer.pt", weights_only=True)["param_groups"]
    assert {group["initial_lr"] for group in groups} == {2e-3, 4e-3}
    assert (adapted_run / "caption_samples.jsonl").is_file() and (adapted_run / "README.md").is_file()
    whole = run("llamo.yaml", *next_stage(adapted_run, "motion"))
    again = run("llamo.yaml", *next_stage(adapted_run, "motion"), *LORA, "training.gradient_checkpointing=true")
    assert f"{layers[0]}.mlp.gate_proj.weight" in changed(weights(adapted_run), weights(whole))
    assert changed(weights(adapted_run), weights(again)) <= moved
    for folder in (adapted_run, whole, again):
        model = LLaMoForCausalLM.from_pretrained(folder).eval()
        assert torch.equal(model(text).logits[..., : expected.shape[-1]], expected)


def test_a_resumed_run_with_adapters_ends_as_one_without_a_break(run, first_run, adapted_run):
    resume = f"training.resume_from_checkpoint={adapted_run / 'checkpoint-1'}"
    assert not changed(
        weights(adapted_run), weights(run("llamo.yaml", *next_stage(first_run, "joint"), *LORA, resume))
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["lora.target_modules=[c_attn]"], "lora.target_modules has c_attn; the linear layers of .* are down_proj, g"),
        (["training.frozen=[]"], "section 'lora' leaves text as it is: give `training.frozen: .text.`"),
        (["training.frozen=[text, motion_branch]"], "which stage 'joint' with .*motion_branch.* does not train"),
        (["lora.rank=4"], "section 'lora' has no option 'rank'"),
    ],
)
def test_adapters_that_cannot_be_trained_are_refused(run, first_run, overrides, message):
    with pytest.raises(ValueError, match=message):
        run("llamo.yaml", *next_stage(first_run, "joint"), *LORA, *overrides)


def test_gradient_checkpointing_trains_every_stage_to_the_same_weights(train_first, run, first_run, second_run):
    """The noise on the history included."""
    checkpointed = "training.gradient_checkpointing=true"
    joint = ("model.language_modeling_weight=0.5", "model.denoising_weight=2.0", "model.exit_weight=0.25")
    pairs = [
        (first_run, train_first(checkpointed)),
        (second_run, run("llamo.yaml", *next_stage(first_run, "joint"), *joint, checkpointed)),
        [run("llamo.yaml", *next_stage(second_run, "motion"), *more) for more in ((), (checkpointed,))],
    ]
    for plain, saving in pairs:
        wanted, found = weights(plain), weights(saving)
        for name in wanted:
            torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-5)


def test_half_precision_with_gradient_checkpointing_trains_and_saves_whole_weights(run, first_run):
    options = ("training.bf16=true", "training.gradient_checkpointing=true")
    folder = run("llamo.yaml", *next_stage(first_run, "joint"), *options)
    assert all(np.isfinite(row["loss"]) and np.isfinite(row["grad_norm"]) for row in history(folder))
    assert {weight.dtype for weight in weights(folder).values()} == {torch.float32}
    moved = changed(weights(first_run), weights(folder))
    assert any("motion_branch" in name for name in moved) and not any("motion_codec" in name for name in moved)


# Several processes, and what is forgotten


@pytest.mark.slow
def test_two_processes_train_with_the_configuration_of_the_examples(codec_run, text_run, motions, tmp_path):
    """Stage after stage, bfloat16 and one motion a process: which losses there are differs between them."""
    examples, recipe = HERE.parents[1] / "examples", HERE / "llamo.yaml"
    command = ("-m", "accelerate.commands.launch", "--config_file", str(examples / "accelerate_configs" / "ddp.yaml"))
    command = (*command, "--num_processes", "2", str(examples / "train.py"), str(recipe), f"data.path={motions}")
    common = ("training.per_device_train_batch_size=1", "training.max_steps=6", "training.num_caption_samples=2")
    first, second = tmp_path / "first", tmp_path / "second"
    parts = (f"model.language_model={text_run}", f"model.motion_codec={codec_run}", f"training.output_dir={first}")
    launch(*command, *common, *parts, cache=tmp_path / "cache")
    options = (*next_stage(first, "joint"), *LORA, *common, "training.gradient_checkpointing=true")
    launch(*command, *options, f"training.output_dir={second}", cache=tmp_path / "cache")
    base = load_file(text_run / "model.safetensors")
    for folder in (first, second):
        state, rows = json.loads((folder / "trainer_state.json").read_text()), history(folder)
        assert len(rows) == 6 and all(np.isfinite(row["loss"]) for row in rows)
        # 48 motions, one a process: six steps are a quarter of an epoch only if there are two processes
        assert state["epoch"] == 0.25
        trained = LLaMoForCausalLM.from_pretrained(folder)
        assert all(torch.equal(weight, base[name]) for name, weight in trained.text_parameters().items())


@pytest.mark.slow
@pytest.mark.parametrize("adapters", [(), LORA], ids=["in full", "with adapters"])
def test_weights_in_pieces_are_saved_whole(first_run, text_run, codec_run, motions, tmp_path, adapters):
    """FSDP with the configuration of the examples: frozen and trained weights and a float32 codec in one model."""
    configuration = HERE.parents[1] / "examples" / "accelerate_configs" / "fsdp.yaml"
    command = ("-m", "accelerate.commands.launch", "--config_file", str(configuration), "--num_processes", "2")
    saved = ("training.save_strategy=steps", "training.save_steps=1", "training.gradient_checkpointing=true")
    options = (*next_stage(first_run, "joint"), f"data.path={motions}", f"training.output_dir={tmp_path}", *saved)
    worker, recipe = HERE / "sharded_worker.py", HERE / "llamo.yaml"
    launch(*command, str(worker), str(recipe), *options, *adapters, cache=tmp_path / "cache")
    rows = history(tmp_path)
    assert len(rows) == 2 and all(np.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in rows)
    base, codec = load_file(text_run / "model.safetensors"), load_file(codec_run / "model.safetensors")
    moved = changed(weights(first_run), weights(tmp_path))
    assert "exit_head.weight" in moved and any("motion_branch.mlp.up_proj" in name for name in moved)
    assert any("mlp.down_proj" in name for name in moved) == (not adapters)
    assert {weight.dtype for weight in weights(tmp_path).values()} == {torch.float32}
    for folder in (tmp_path, *([] if adapters else [tmp_path / "checkpoint-1"])):
        model = LLaMoForCausalLM.from_pretrained(folder)
        assert all(torch.equal(weight, base[name]) for name, weight in model.text_parameters().items())
        alone = AutoModel.from_pretrained(folder / "motion_codec").state_dict()
        assert all(torch.equal(alone[name], weight) for name, weight in codec.items())
        written = json.loads((folder / "config.json").read_text())
        assert written["auto_map"]["AutoModelForCausalLM"] == "modeling_llamo.LLaMoForCausalLM"
    assert bool(adapters) == (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_a_motion_branch_forgets_nothing_and_a_single_stream_forgets(run, codec_run, tmp_path):
    """Both train on the same data, from a base that has learned some of Python's documentation."""
    base = run(
        "text_model.yaml",
        f"model.language_model_config={LLAMA.replace('128', '256')}",
        "model.text_vocab_size=500",
        "training.documentation_ratio=0.8",
        "training.max_steps=200",
        "training.learning_rate=5e-3",
    )
    parts = [f"model.language_model={base}", f"model.motion_codec={codec_run}", "training.max_steps=40"]
    sizes = "denoising_hidden_size: 32, denoising_num_layers: 1"
    models = []
    for streams, frozen in (("dual", "[text]"), ("single", "[]")):
        first = run("llamo.yaml", *parts, f"model.config={{streams: {streams}, {sizes}}}", f"training.frozen={frozen}")
        joint = run("llamo.yaml", *next_stage(first, "joint", frozen), "training.max_steps=40")
        models.append(joint.rename(tmp_path / streams))
    texts = split_documentation(python_documentation(), 0.01)[1]
    before, dual, single = measure_forgetting(base, models, texts).values()
    assert before["perplexity"] < 250, "nothing was learned that could be forgotten"
    assert dual["weights_equal_base"] and dual["logits_equal_base"] and dual["perplexity"] == before["perplexity"]
    assert not single["weights_equal_base"] and not single["logits_equal_base"]
    assert single["perplexity_over_base"] > 1.1
