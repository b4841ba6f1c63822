"""Schedules, and what the callbacks measure and write."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import TrainerControl, TrainerState, default_data_collator

from geomotiongpt import (
    GeoMotionGPTForCausalLM,
    GumbelTemperatureCallback,
    MotionTokenizer,
    MotionTokenizerConfig,
    OrthonormalLossCallback,
    train_motion_tokenizer,
)
from geomotiongpt.data.training_sets import MotionCaptionDataset
from geomotiongpt.models.geometry import GEOMETRIC_CONSTRAINTS, codebook_geometry, equal_clusters, geometric_loss
from geomotiongpt.training.arguments import LoraArguments, MotionTokenizerTrainingArguments
from geomotiongpt.training.callbacks import CaptionSamplesCallback, CodeUseCallback, EpochCallback
from geomotiongpt.training.language_model import add_lora
from geomotiongpt.training.trainer import CodebookTrainer

CONTROL = TrainerControl()


@pytest.fixture
def model() -> MotionTokenizer:
    """A tokenizer that a callback may change."""
    torch.manual_seed(0)
    return MotionTokenizer(MotionTokenizerConfig(num_codes=8, code_dim=8, hidden_size=8, gumbel_temperature=0.01))


def state_at(step: int, **values) -> TrainerState:
    return TrainerState(global_step=step, max_steps=1000, is_world_process_zero=True, **values)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.4), (300, 0.4), (600, 0.4), (650, 0.4 * 0.025**0.25), (700, 0.4 * 0.025**0.5), (800, 0.01), (1000, 0.01)],
)
def test_temperature_of_the_paper(step, expected):
    """0.4 until 60% of the steps, exponentially to 0.01 at 80%."""
    assert GumbelTemperatureCallback(0.4, 0.01, 0.6, 0.8).temperature(step, 1000) == pytest.approx(expected)


def test_temperature_may_jump():
    schedule = GumbelTemperatureCallback(1.0, 0.5, 0.5, 0.5)
    assert [schedule.temperature(step, 10) for step in (4, 5, 10)] == [1.0, 0.5, 0.5]


@pytest.mark.parametrize("values", [(0, 1, 0.1, 0.2), (1, -1, 0.1, 0.2), (1, 1, 0.3, 0.2), (1, 1, 0.3, 1.2)])
def test_impossible_temperature_schedule_is_refused(values):
    with pytest.raises(ValueError, match="0 <= hold_ratio <= end_ratio <= 1"):
        GumbelTemperatureCallback(*values)


def test_lambda_grows_linearly_then_stays():
    schedule = OrthonormalLossCallback(warmup_ratio=0.2)
    assert [schedule.multiplier(step, 1000) for step in (0, 50, 100, 200, 900)] == [0, 0.25, 0.5, 1, 1]
    assert OrthonormalLossCallback().multiplier(0, 1000) == 1


@pytest.mark.parametrize("ratio", [-0.1, 1.1])
def test_impossible_warmup_is_refused(ratio):
    with pytest.raises(ValueError, match=f"warmup_ratio is {ratio}"):
        OrthonormalLossCallback(ratio)


def test_lambda_follows_any_schedule():
    """Up over a tenth of the steps, level, down to a fifth, and constant outside the points."""
    schedule = OrthonormalLossCallback(schedule=[[0.1, 0.0], [0.2, 1], [0.5, 1.0], [0.7, 0.2]])
    expected = {0: 0, 100: 0, 150: 0.5, 200: 1, 350: 1, 600: 0.6, 700: 0.2, 1000: 0.2}
    for step, multiplier in expected.items():
        assert schedule.multiplier(step, 1000) == pytest.approx(multiplier), step
    assert OrthonormalLossCallback(schedule=[[0.5, 3.0]]).multiplier(7, 1000) == 3
    assert OrthonormalLossCallback(schedule=[[0, 2.0], [1, 0]]).multiplier(250, 1000) == 1.5


def test_a_schedule_reaches_the_model(model):
    callback = OrthonormalLossCallback(schedule=[[0, 2.0], [1, 0]])
    callback.on_step_begin(None, state_at(250), CONTROL, model=model)
    assert model.orthonormality_weight_multiplier == 1.5


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ([], r"is \[\]"),
        ([0.0, 1.0], "list of points"),
        ([[0.0, 1.0, 2.0]], "list of points"),
        ([[0.0, "1"]], "list of points"),
        ([[0.0, None]], "list of points"),
        (["01"], "list of points"),
        ([[-0.1, 1]], "shares rising from 0 to 1"),
        ([[0, 1], [1.1, 1]], "shares rising from 0 to 1"),
        ([[0.5, 1], [0.2, 1]], "shares rising from 0 to 1"),
        ([[0.5, 1], [0.5, 2]], "shares rising from 0 to 1"),
        ([[float("nan"), 1]], "shares rising from 0 to 1"),
        ([[0, -1]], "finite and not negative"),
        ([[0, float("inf")]], "finite and not negative"),
        ([[0, float("nan")]], "finite and not negative"),
    ],
)
def test_an_impossible_schedule_is_refused(schedule, message):
    with pytest.raises(ValueError, match=f"orthonormality_schedule .*{message}"):
        OrthonormalLossCallback(schedule=schedule)


def test_a_schedule_beside_a_warmup_is_refused():
    with pytest.raises(ValueError, match=r"warm-up over 0.1 of the steps and a schedule .*\[0, 0\], \[0.1, 1\]"):
        OrthonormalLossCallback(0.1, [[0, 1]])


@pytest.mark.parametrize("wrapped", [False, True])
def test_schedules_follow_the_global_step_alone(model, wrapped):
    """A resumed run, whose callbacks are new, gets the values of its step; also through the DDP wrapper."""
    outer = model
    if wrapped:
        outer = torch.nn.parallel.DistributedDataParallel.__new__(torch.nn.parallel.DistributedDataParallel)
        torch.nn.Module.__init__(outer)
        outer.module = model
    for step in (700, 100):
        GumbelTemperatureCallback(0.4, 0.01, 0.6, 0.8).on_step_begin(None, state_at(step), CONTROL, model=outer)
        OrthonormalLossCallback(0.2).on_step_begin(None, state_at(step), CONTROL, model=outer)
        temperature = model.config.gumbel_temperature * model.gumbel_temperature_multiplier
        assert temperature == pytest.approx({700: 0.4 * 0.025**0.5, 100: 0.4}[step])
        assert model.orthonormality_weight_multiplier == {700: 1, 100: 0.5}[step]
    assert model.config.gumbel_temperature == 0.01


def test_lambda_reaches_the_model_inside_peft(tiny_model):
    adapted = add_lora(copy.deepcopy(tiny_model), LoraArguments(r=2))
    OrthonormalLossCallback(0.2).on_step_begin(None, state_at(50), CONTROL, model=adapted)
    assert adapted.get_base_model().orthonormality_weight_multiplier == 0.25


@pytest.mark.parametrize(("epoch", "expected"), [(0, 0), (1.0, 1), (1.75, 1), (7.0, 7)])
def test_training_set_is_told_the_epoch(epoch, expected):
    """Also of a resumed run, which begins in the middle of one."""
    dataset = MotionCaptionDataset([[[1]]], [["a"]], ["x"], seed=0)
    EpochCallback(dataset).on_epoch_begin(None, TrainerState(epoch=epoch), CONTROL)
    assert dataset.epoch == expected


def test_lambda_multiplier_scales_the_term_in_the_loss(model):
    with torch.no_grad():
        model.codebook.weight.normal_()
    motion = torch.randn(2, 16, 263)
    model.eval()
    losses = {}
    for step in (0, 100):
        OrthonormalLossCallback(0.2).on_step_begin(None, state_at(step), CONTROL, model=model)
        losses[step] = model(motion)
    term = 0.5 * model.config.orthonormality_weight * losses[0].orthonormality_loss
    assert term > 0.01
    torch.testing.assert_close(losses[100].loss - losses[0].loss, term)


def test_geometry_is_in_the_log(model):
    """||G - I||_F^2 of two equal codes is 2, and their cosine 1."""
    with torch.no_grad():
        model.codebook.weight.copy_(torch.eye(8))
        model.codebook.weight[1] = 3 * model.codebook.weight[0]
    logs: dict = {"loss": 1.0}
    state = state_at(0, log_history=[dict(logs)])
    OrthonormalLossCallback().on_log(None, state, CONTROL, model=model, logs=logs)
    expected = {"loss": 1.0, "gram_error": 2.0, "gram_error_excess": 2.0, "max_abs_cosine": 1.0}
    assert logs == pytest.approx(expected)
    assert state.log_history[-1] == pytest.approx(expected)


def test_the_logged_geometry_is_that_of_the_motion_embeddings(tiny_language_model, tiny_tokenizer_model):
    """A linear projection distorts an orthonormal codebook; the log must tell."""
    reported = {}
    for kind in ("sparse", "linear"):
        language_model = GeoMotionGPTForCausalLM.from_components(
            tiny_language_model, tiny_tokenizer_model, projection=kind
        )
        state = state_at(0, log_history=[{}])
        OrthonormalLossCallback().on_log(None, state, CONTROL, model=language_model, logs={})
        expected = codebook_geometry(language_model.motion_embeddings)
        reported[kind] = state.log_history[-1]
        assert reported[kind] == pytest.approx(expected, abs=1e-6)
    assert reported["sparse"]["gram_error"] < 1e-6 and reported["linear"]["gram_error"] > 1


@pytest.mark.parametrize("constraint", GEOMETRIC_CONSTRAINTS)
def test_the_measured_gradient_is_that_of_the_chosen_constraint(constraint, tmp_path):
    """And of its multiplier at that step; what is left of the gradient is the task's."""
    torch.manual_seed(0)
    settings = {"num_codes": 8, "code_dim": 8, "hidden_size": 8, "num_code_clusters": 2, "gumbel_noise": 0.0}
    model = MotionTokenizer(
        MotionTokenizerConfig(**settings, geometric_constraint=constraint, orthonormality_weight=0.3)
    )
    with torch.no_grad():
        model.codebook.weight.normal_()
    codebook = model.codebook.weight.detach().clone().requires_grad_()
    inputs = [{"motion_values": torch.randn(16, 263)} for _ in range(4)]
    loss = model.train()(torch.stack([item["motion_values"] for item in inputs])).loss
    (total,) = torch.autograd.grad(loss, model.codebook.weight)
    args = MotionTokenizerTrainingArguments(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=4, logging_steps=1, save_strategy="no",
        disable_tqdm=True, orthonormality_schedule=[[0, 2.0]],
    )  # fmt: skip
    callback = OrthonormalLossCallback(args.orthonormality_warmup_ratio, args.orthonormality_schedule)
    trainer = CodebookTrainer(
        model=model, args=args, train_dataset=inputs, data_collator=default_data_collator, callbacks=[callback]
    )
    trainer.train()
    logged = trainer.state.log_history[0]
    constrained = geometric_loss(codebook, constraint, clusters=equal_clusters(8, 2))
    gradient = torch.zeros_like(codebook)
    if constraint != "none":
        (gradient,) = torch.autograd.grad(0.3 * constrained, codebook)
        assert gradient.norm() > 1e-3
    assert logged["orthonormality_loss"] == pytest.approx(constrained.item(), rel=1e-4)
    measured = logged["codebook_gradient_norm_orthonormality"]
    assert measured == pytest.approx(2 * gradient.norm().item(), rel=1e-4)
    assert logged["codebook_gradient_norm_task"] == pytest.approx((total - gradient).norm().item(), rel=1e-3)


def test_a_recipe_sets_the_constraint_and_its_schedule(motions, tokenizer_recipe, tmp_path):
    """Of the first stage: lambda is 0 at the first step and grows; the constraint is saved with the model."""
    overrides = [
        f"data.path={motions}",
        f"training.output_dir={tmp_path / 'run'}",
        "model.geometric_constraint=whitening",
        "training.orthonormality_warmup_ratio=0",
        "training.max_steps=2",
    ]
    with pytest.raises(ValueError, match="orthonormality_schedule has the shares"):
        train_motion_tokenizer(tokenizer_recipe, [*overrides, "training.orthonormality_schedule=[[0.5, 1], [0.1, 1]]"])
    assert not (tmp_path / "run").exists(), "a run that cannot start leaves nothing"
    folder = train_motion_tokenizer(
        tokenizer_recipe, [*overrides, "training.orthonormality_schedule=[[0, 0], [1, 1]]"]
    )
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    norms = [row["codebook_gradient_norm_orthonormality"] for row in history if "loss" in row]
    assert norms[0] == 0 and norms[1] > 0
    assert MotionTokenizer.from_pretrained(folder).config.geometric_constraint == "whitening"


def test_temperature_is_in_the_log_of_training_only():
    callback = GumbelTemperatureCallback(0.4, 0.01)
    for logs, wanted in (({"loss": 1.0}, True), ({"eval_loss": 1.0}, False)):
        state = state_at(700, log_history=[dict(logs)])
        callback.on_log(None, state, CONTROL, logs=logs)
        assert ("gumbel_temperature" in logs) == ("gumbel_temperature" in state.log_history[-1]) == wanted


def test_code_use_goes_into_the_log_and_the_plots(tiny_tokenizer_model, tiny_feature_extractor, clips, tmp_path):
    state, metrics = state_at(10, log_history=[{"eval_loss": 1.0}]), {"eval_loss": 1.0}
    args = SimpleNamespace(output_dir=str(tmp_path))
    callback = CodeUseCallback([clip[:40] for clip in clips], tiny_feature_extractor)
    callback.on_evaluate(args, state, CONTROL, model=tiny_tokenizer_model, metrics=metrics)
    assert metrics == state.log_history[-1]
    used, dead = metrics["eval_codes_used"], metrics["eval_dead_codes"]
    assert 1 <= used <= 12 and used + dead == 32  # 5 + 2 + 5 codes
    assert 1 <= metrics["eval_perplexity"] <= used + 1e-6
    assert metrics["eval_joint_error_mm"] > 0 and np.isfinite(metrics["eval_mpjpe_mm"])
    for name in ("gram_matrix.png", "code_usage.png"):
        assert (tmp_path / "plots" / name).read_bytes().startswith(b"\x89PNG")


def test_caption_samples_are_kept_line_by_line(model, tmp_path):
    """Spread over the set, one JSON line each, appended at every evaluation."""
    ids = [f"{index:06d}" for index in range(5)]
    references = [[f"caption {index}", "another"] for index in range(5)]

    def caption(given, indices):
        assert given is model
        return [f"é {index}" for index in indices]

    callback = CaptionSamplesCallback(caption, ids, references, num_samples=3)
    args = SimpleNamespace(output_dir=str(tmp_path))
    for step in (10, 20):
        callback.on_evaluate(args, state_at(step), CONTROL, model=model)
    lines = (tmp_path / "caption_samples.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["step"] for row in rows] == [10] * 3 + [20] * 3
    assert [row["motion_id"] for row in rows[:3]] == ["000000", "000002", "000004"]
    assert rows[1]["caption"] == "é 2" and rows[1]["references"] == ["caption 2", "another"]


def test_other_processes_write_nothing(model, tmp_path):
    state = TrainerState(global_step=1, max_steps=2, is_world_process_zero=False, log_history=[{}])
    args = SimpleNamespace(output_dir=str(tmp_path))
    CaptionSamplesCallback(lambda *_: ["x"], ["a"], [["b"]], 1).on_evaluate(args, state, CONTROL, model=model)
    CodeUseCallback([], None).on_evaluate(args, state, CONTROL, model=model, metrics={})
    assert not any(tmp_path.iterdir())
