"""From a base language model and a motion VAE through the three stages of MotionGPT3, on the embedded motions."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from test_distributed import TORCHRUN, launch
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor, AutoTokenizer

from geomotiongpt import MotionGPT3ForCausalLM, MotionVAE, load_motion_dataset
from geomotiongpt.data.latent_sets import Latent, LatentMotion, MotionLatentDataset
from geomotiongpt.data.training_sets import normalised_clips
from geomotiongpt.evaluation.reconstruction import encode_latents
from geomotiongpt.models.processing_motiongpt3 import MotionGPT3Processor
from geomotiongpt.training.arguments import MotionGPT3TrainingArguments
from geomotiongpt.training.lengths import check_lengths
from geomotiongpt.training.motiongpt3 import _example, caption_latents

HERE = Path(__file__).parent
pytestmark = pytest.mark.usefixtures("no_history_plot")
TASKS = "{text-to-motion: 1, motion-to-text: 1, motion-prediction: 0.5, motion-in-between: 0.5, motion-duration: 0.2}"
LLAMA = (
    "{model_type: llama, num_hidden_layers: 2, hidden_size: 32, intermediate_size: 48, num_attention_heads: 4, "
    "num_key_value_heads: 2, max_position_embeddings: 128}"
)
CHECKPOINTS = ("training.save_strategy=steps", "training.save_steps=3")


@pytest.fixture(scope="module")
def vae_run(run) -> Path:
    return run("motion_vae.yaml")


@pytest.fixture(scope="module")
def text_run(run) -> Path:
    return run("text_model.yaml")


@pytest.fixture(scope="module")
def train_first(run, vae_run, text_run):
    def train(*overrides: str) -> Path:
        return run("motiongpt3.yaml", f"model.language_model={text_run}", f"model.motion_vae={vae_run}", *overrides)

    return train


@pytest.fixture(scope="module")
def first_run(train_first) -> Path:
    return train_first(*CHECKPOINTS)


def next_stage(folder: Path, stage: str, frozen: str = "[text]") -> list[str]:
    """What turns the recipe of the first stage into a later one."""
    taken_out = [f"model.{name}=null" for name in ("language_model", "motion_vae")]
    return [
        *taken_out,
        "model.config={}",
        f"model.trained_model={folder}",
        "model.language_modeling_weight=1.0",
        "model.denoising_weight=0.5",
        f"training.stage={stage}",
        f"training.frozen={frozen}",
        f"training.tasks={TASKS}",
    ]


@pytest.fixture(scope="module")
def second_run(run, first_run) -> Path:
    return run("motiongpt3.yaml", *next_stage(first_run, "alignment"), "training.max_steps=3")


@pytest.fixture(scope="module")
def third_run(run, second_run) -> Path:
    return run("motiongpt3.yaml", *next_stage(second_run, "joint", "[]"), "training.max_steps=3")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def history(folder: Path) -> list[dict]:
    rows = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [row for row in rows if "loss" in row]


def test_the_motion_vae_opens_and_logs_the_parts_of_its_loss(vae_run, motions):
    model = AutoModel.from_pretrained(vae_run)
    assert isinstance(model, MotionVAE) and model.config.latent_dim == 16
    assert {"reconstruction_loss", "position_loss", "root_loss", "kl_loss"} <= history(vae_run)[0].keys()
    evaluation = json.loads((vae_run / "trainer_state.json").read_text())["log_history"][-1]
    assert {"eval_loss", "eval_joint_error_mm", "eval_mpjpe_mm"} <= evaluation.keys()


def test_a_motion_vae_refuses_to_train_on_more_frames_than_it_takes(run):
    with pytest.raises(ValueError, match="max_frames is 500; this motion VAE encodes 198 at most"):
        run("motion_vae.yaml", "training.max_frames=500")


def test_the_text_model_knows_captions_prompts_and_durations(text_run):
    tokenizer = AutoTokenizer.from_pretrained(text_run)
    assert "2.5" in tokenizer.tokenize(" for 2.5 seconds"), "a duration is one token"
    assert len(tokenizer.tokenize("Show the motion:")) < 8
    model = AutoModelForCausalLM.from_pretrained(text_run)
    losses = [row["loss"] for row in history(text_run)]
    assert losses[-1] < losses[0] and model.config.vocab_size == len(tokenizer)


def test_stages_one_and_two_leave_every_text_weight_as_it_was(text_run, first_run, second_run):
    base = AutoModelForCausalLM.from_pretrained(text_run).eval()
    inputs = {"input_ids": torch.randint(len(AutoTokenizer.from_pretrained(text_run)), (2, 20))}
    expected = base(**inputs).logits
    for folder in (first_run, second_run):
        model = MotionGPT3ForCausalLM.from_pretrained(folder).eval()
        assert all(torch.equal(weight, base.state_dict()[name]) for name, weight in model.text_parameters().items())
        assert torch.equal(model(**inputs).logits[..., : expected.shape[-1]], expected)


def test_each_stage_trains_what_it_declares(first_run, second_run, third_run, vae_run):
    before, after = weights(second_run), weights(third_run)
    trained = changed(before, after)
    assert not any(name.startswith(("motion_vae.", "latent_")) for name in trained)
    assert any("wte" in name for name in trained) and any("motion_branch" in name for name in trained)
    trained = changed(weights(first_run), before)
    assert {name.split(".")[0] for name in trained if name.startswith("language_model.")} == {"language_model"}
    assert all("motion_branch" in name for name in trained if name.startswith("language_model."))
    assert any(name.startswith("denoising_head.") for name in trained)
    vae = load_file(vae_run / "model.safetensors")
    assert all(torch.equal(after[f"motion_vae.{name}"], weight) for name, weight in vae.items())


def test_the_first_stage_standardises_the_latents_of_the_training_motions(first_run, motions):
    model, processor = MotionGPT3ForCausalLM.from_pretrained(first_run), AutoProcessor.from_pretrained(first_run)
    clips = normalised_clips(load_motion_dataset(motions, "train", mirrored=False), processor.feature_extractor)
    means, stds = encode_latents(model.motion_vae.eval(), clips)
    drawn = means + stds * np.random.default_rng(0).standard_normal((500, *means.shape))
    seen = model.standardise(torch.from_numpy(drawn).float()).flatten(0, 1)
    torch.testing.assert_close(seen.mean(0), torch.zeros(16), atol=0.02, rtol=0)
    torch.testing.assert_close(seen.std(0), torch.ones(16), atol=0.02, rtol=0)
    assert model.config.max_motion_frames == max(map(len, clips))


def test_losses_are_those_of_the_stage(first_run, second_run):
    first, second = history(first_run)[0], history(second_run)[0]
    assert "language_modeling_loss" not in first
    assert first["loss"] == pytest.approx(first["denoising_loss"] + 0.1 * first["length_loss"], rel=1e-3)
    parts = second["language_modeling_loss"] + 0.5 * second["denoising_loss"] + 0.1 * second["length_loss"]
    assert second["loss"] == pytest.approx(parts, rel=1e-3)


def test_heads_have_a_learning_rate_of_their_own(first_run):
    groups = torch.load(first_run / "checkpoint-3" / "optimizer.pt", weights_only=True)["param_groups"]
    assert {group["initial_lr"] for group in groups} == {2e-3, 4e-3}


def test_a_resumed_run_ends_as_one_without_a_break(train_first, first_run):
    resumed = train_first(f"training.resume_from_checkpoint={first_run / 'checkpoint-3'}")
    assert not changed(weights(first_run), weights(resumed))


def test_a_trained_model_captions_and_makes_motions(third_run):
    model, processor = AutoModel.from_pretrained(third_run).eval(), AutoProcessor.from_pretrained(third_run)
    assert (model.config.trained_stage, model.config.trained_tasks[0]) == ("joint", "text-to-motion")
    assert model.generation_config.max_new_tokens == 8
    made = model.generate_motion("a person walks", num_frames=30, generator=torch.Generator().manual_seed(0))
    assert made.motion_values.shape == (1, 30, 263)
    inputs = processor(motion=[processor.feature_extractor.denormalise(made.motion_values[0])])
    assert len(model.generate(**inputs)) == 1
    assert (third_run / "README.md").is_file() and (third_run / "caption_samples.jsonl").is_file()


def test_captions_of_latents_are_those_of_their_motions(second_run, motions):
    model, processor = AutoModel.from_pretrained(second_run).eval(), AutoProcessor.from_pretrained(second_run)
    dataset = load_motion_dataset(motions, "val", mirrored=False)
    inputs = processor(motion=list(dataset["motion"]))
    expected = processor.post_process_text(model.generate(**inputs), inputs["input_ids"].shape[1])
    from geomotiongpt.data.latent_sets import Latent, LatentMotion

    means, stds = encode_latents(model.motion_vae, normalised_clips(dataset, processor.feature_extractor))
    rows = [LatentMotion([Latent(mean, std, 1)]) for mean, std in zip(means, stds, strict=True)]
    assert caption_latents(model, processor, rows) == expected


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.stage=alignment"], "goes on from a trained model: give `model.trained_model`"),
        (["training.stage=third"], "stage is 'third'; use one of text-to-motion, alignment, joint"),
        (["training.frozen=[head]"], "frozen has head; what can be frozen is text, motion_branch"),
        (["training.tasks={dancing: 1}"], "unknown task 'dancing'"),
        (
            ["model.config={streams: single}"],
            "frozen has text, but with a single stream motion goes through all weights",
        ),
        (["model.config={streams: triple}"], "streams is 'triple'; use one of dual, single"),
        (["model.motion_vae=/nowhere/vae"], "/nowhere/vae: no such folder"),
        (["lora.r=4"], "section 'lora' has no effect on MotionGPT3"),
        (["model.config={denoising_hiden_size: 8}"], "denoising_hiden_size: no such option of MotionGPT3Config"),
        (
            ["generation.max_new_token=8"],
            r"'generation' has no option 'max_new_token' \(did you mean 'max_new_tokens'",
        ),
        (["training.text_learning_rate=1e-4"], "text_learning_rate has no effect on a text branch that is frozen"),
        (["training.splits_per_motion=0"], "splits_per_motion is 0; it must be 1 or more"),
        (["model.trained_model=x"], "leaves nothing for language_model, motion_vae, config to say"),
    ],
)
def test_what_cannot_be_trained_is_refused(train_first, overrides, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train_first(*overrides)


def test_a_caption_too_long_for_the_model_ends_the_run_before_it_begins(train_first, motions, tmp_path):
    """It is named at once, not hours later, when its batch comes; nothing is evaluated here."""
    folder = tmp_path / "motions"
    shutil.copytree(motions, folder)
    name = (folder / "val.txt").read_text().split()[0]
    texts = folder / "texts" / f"{name}.txt"
    texts.write_text(texts.read_text() + " ".join(["walks"] * 200) + "#walk/VERB#0.0#0.0\n")
    with pytest.raises(ValueError, match=f"^{name}.* takes .* tokens with its text, the language model 128"):
        train_first(f"data.path={folder}")


@pytest.mark.parametrize("task", ["motion-to-text", "text-to-motion", "motion-duration", "motion-in-between", "text"])
def test_the_longest_row_of_every_task_is_looked_at(task, first_run, tmp_path):
    """Of all captions, wordings in use, and prompts that state a length or do not."""
    processor = MotionGPT3Processor.from_pretrained(first_run)
    captions = [["a man walks."], ["he sits.", "a person jumps up and down, and down again.", "she runs."]]
    dataset = Dataset.from_dict(
        {"motion_id": ["short", "long"], "captions": captions, "motion": [np.zeros((40, 1)), np.zeros((200, 1))]}
    )
    args = MotionGPT3TrainingArguments(stage="joint", tasks={task: 1.0}, prompt_wordings=3, output_dir=str(tmp_path))
    motions = []
    for frames in (40, 200):
        latent = Latent(np.zeros((1, 4), np.float32), np.ones((1, 4), np.float32), frames)
        motions.append(LatentMotion([latent], [(latent, latent)], [(latent, latent, latent)]))
    items = MotionLatentDataset(motions, captions, dataset["motion_id"], seed=0, tasks={task: 1.0}, num_wordings=3)
    rows = []
    for epoch in range(100):
        items.set_epoch(epoch)
        rows.append(items[1]["example"])
    mask = processor.prepare_examples(rows, with_answers=True)["attention_mask"]
    longest = int(mask.sum(-1).max())
    make = partial(_example, [40, 200])
    processor.tokenizer.model_max_length = longest
    check_lengths(processor, args, dataset, make)
    processor.tokenizer.model_max_length = longest - 1
    name = "long" if task in ("motion-to-text", "text-to-motion", "text") else "(long|short)"
    with pytest.raises(
        ValueError, match=f"^{name} takes {longest} tokens with its text, the language model {longest - 1}"
    ):
        check_lengths(processor, args, dataset, make)


def test_stages_go_on_from_the_one_before(run, first_run, second_run, text_run):
    with pytest.raises(ValueError, match="has been through stage 'text-to-motion'; stage 'joint' goes on from"):
        run("motiongpt3.yaml", *next_stage(first_run, "joint"))
    with pytest.raises(ValueError, match="has been through stage 'alignment'; stage 'text-to-motion' goes on from"):
        run("motiongpt3.yaml", *next_stage(second_run, "text-to-motion"))
    with pytest.raises(ValueError, match="configuration of a 'gpt2' model, wanted 'motiongpt3'"):
        run("motiongpt3.yaml", *next_stage(text_run, "alignment"))


@pytest.mark.parametrize("damage", ["missing", "unexpected"])
def test_a_checkpoint_with_other_keys_is_no_stage(run, first_run, tmp_path, damage):
    folder = shutil.copytree(first_run, tmp_path / "model")
    tensors = weights(folder)
    name = "language_model.transformer.h.0.motion_branch.ln_1.weight"
    if damage == "missing":
        del tensors[name]
    else:
        name = "motion_branch.of_another_model"
        tensors[name] = torch.zeros(2)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"{damage}: {name}"):
        run("motiongpt3.yaml", *next_stage(folder, "alignment"))


def test_a_single_stream_trains_the_text_weights(train_first, text_run):
    folder = train_first("model.config={denoising_hidden_size: 32, streams: single}", "training.frozen=[]")
    model = MotionGPT3ForCausalLM.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(text_run).state_dict()
    assert not any("motion_branch" in name for name in model.state_dict())
    assert any(not torch.equal(weight, base[name]) for name, weight in model.text_parameters().items())


def test_a_single_stream_has_no_branch_to_freeze(train_first):
    with pytest.raises(
        ValueError, match="frozen has motion_branch, but with a single stream motion goes through all weights"
    ):
        train_first("model.config={streams: single}", "training.frozen=[motion_branch]")


def test_a_caption_too_long_for_the_text_model_is_named(run):
    with pytest.raises(ValueError, match=r"a caption of \w+ takes \d+ tokens, .* of the 40 positions"):
        run("text_model.yaml", "model.language_model_config={n_layer: 1, n_embd: 32, n_head: 2, n_positions: 40}")


def test_motions_longer_than_the_vae_takes_are_refused(train_first, run, motions, tmp_path):
    short = run("motion_vae.yaml", "model.max_positions=62", "training.max_frames=60", "data.max_frames=60")
    with pytest.raises(ValueError, match="motions have more than the 60 frames that the motion VAE takes"):
        train_first(f"model.motion_vae={short}")


def test_given_and_made_parts_make_up_the_motion(motions, first_run):
    from geomotiongpt.data.latent_sets import cut_points

    rng = np.random.default_rng(0)
    for frames in (3, 4, 10, 155):
        for _ in range(50):
            start, end = cut_points(frames, rng)
            assert 1 <= start < end < frames and start <= max(1, round(frames / 2))


def test_stages_on_another_base_than_gpt2(run, vae_run):
    """What the trainer writes into the base's configuration must not keep the model from being loaded again."""
    text = run("text_model.yaml", f"model.language_model_config={LLAMA}")
    base = AutoModelForCausalLM.from_pretrained(text)
    assert base.config.model_type == "llama"
    first = run("motiongpt3.yaml", f"model.language_model={text}", f"model.motion_vae={vae_run}")
    second = run("motiongpt3.yaml", *next_stage(first, "alignment"), "training.max_steps=2")
    for folder in (first, second):
        written = json.loads((folder / "config.json").read_text())["text_config"]["pad_token_id"]
        assert written is None or written < base.config.vocab_size
    model = MotionGPT3ForCausalLM.from_pretrained(second)
    assert all(torch.equal(weight, base.state_dict()[name]) for name, weight in model.text_parameters().items())


def test_a_model_without_a_stage_starts_with_the_first(run, vae_run, text_run, first_run, tmp_path):
    model = MotionGPT3ForCausalLM.from_components(text_run, vae_run, denoising_hidden_size=32)
    model.save_pretrained(tmp_path)
    AutoProcessor.from_pretrained(first_run).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has been through no stage; stage 'alignment' goes on from 'text-to-motion'"):
        run("motiongpt3.yaml", *next_stage(tmp_path, "alignment"))
    folder = run("motiongpt3.yaml", *next_stage(tmp_path, "text-to-motion"), "training.max_steps=1")
    assert MotionGPT3ForCausalLM.from_pretrained(folder).config.trained_stage == "text-to-motion"


@pytest.mark.slow
def test_two_processes_of_which_one_makes_no_motion(vae_run, text_run, motions, tmp_path):
    """One motion a process: which losses and which weights there are differs between them."""
    examples, recipe = HERE.parents[1] / "examples" / "train.py", HERE / "motiongpt3.yaml"
    common = (f"data.path={motions}", "training.per_device_train_batch_size=1", "training.max_steps=6")
    common = (*common, "training.per_device_eval_batch_size=1", "training.gradient_checkpointing=true")
    first, second = tmp_path / "first", tmp_path / "second"
    parts = (f"model.language_model={text_run}", f"model.motion_vae={vae_run}", f"training.output_dir={first}")
    launch(*TORCHRUN, str(examples), str(recipe), *common, *parts, cache=tmp_path / "cache")
    tasks = "training.tasks={text-to-motion: 1, motion-to-text: 1, text: 1}"
    options = (*next_stage(first, "joint", "[]"), tasks, "training.stage=alignment", f"training.output_dir={second}")
    launch(*TORCHRUN, str(examples), str(recipe), *common, *options, cache=tmp_path / "cache")
    rows = history(second)
    assert len(rows) == 6 and any("denoising_loss" in row for row in rows)
    assert {"language_modeling_loss", "denoising_loss"} <= {name for row in rows for name in row}
    assert all(np.isfinite(row["loss"]) for row in rows)
