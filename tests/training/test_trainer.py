"""`CodebookTrainer`: its log against values computed by hand, accumulated gradients, and the codebook's group."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from transformers import default_data_collator

from geomotiongpt import MotionTokenizer, MotionTokenizerConfig
from geomotiongpt.data.training_sets import MotionTaskCollator
from geomotiongpt.models.geometry import orthonormality_loss
from geomotiongpt.models.task_prompts import MotionTaskExample
from geomotiongpt.training.arguments import LanguageModelTrainingArguments, MotionTokenizerTrainingArguments
from geomotiongpt.training.trainer import CodebookTrainer, motion_codebook

JUMP = "someone jumps up and down and then sits down slowly"
CAPTIONED_CODES = [
    {"example": MotionTaskExample("motion-to-text", "a person walks forward", [1, 2, 3, 4, 5]), "name": "a"},
    {"example": MotionTaskExample("motion-to-text", JUMP, [7, 7]), "name": "b"},
    {"example": MotionTaskExample("motion-to-text", "a man", [0, 9, 11]), "name": "c"},
    {"example": MotionTaskExample("motion-to-text", "a person waves with the left hand", [30, 31, 2, 8]), "name": "d"},
]
SETTINGS = {"save_strategy": "no", "logging_steps": 1, "disable_tqdm": True, "lr_scheduler_type": "constant"}


@pytest.fixture
def tokenizer() -> MotionTokenizer:
    """Without noise, with a codebook that is far from orthonormal."""
    torch.manual_seed(0)
    config = MotionTokenizerConfig(
        num_codes=16, code_dim=8, hidden_size=8, num_residual_layers=1, gumbel_noise=0.0, orthonormality_weight=0.002
    )
    model = MotionTokenizer(config)
    with torch.no_grad():
        model.codebook.weight.normal_()
    return model


@pytest.fixture
def language_model(tiny_model):
    """Without dropout, with a codebook that is far from orthonormal."""
    model = copy.deepcopy(tiny_model)
    with torch.no_grad():
        model.motion_codebook.weight.normal_(generator=torch.Generator().manual_seed(0))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def windows(lengths=(32, 32, 32, 32)) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(len(lengths), 32, 263, generator=generator)
    masks = torch.arange(32) < torch.tensor(lengths)[:, None]
    return [{"motion_values": value, "motion_mask": mask} for value, mask in zip(values, masks, strict=True)]


def tokenizer_trainer(model, folder, items, **settings) -> CodebookTrainer:
    args = MotionTokenizerTrainingArguments(output_dir=str(folder), **{**SETTINGS, **settings})
    return CodebookTrainer(
        model=model,
        args=args,
        train_dataset=items,
        eval_dataset=items,
        data_collator=default_data_collator,
        codebook_learning_rate=args.codebook_learning_rate,
        muon_learning_rate=args.muon_learning_rate,
    )


def language_model_trainer(model, processor, folder, **settings) -> CodebookTrainer:
    args = LanguageModelTrainingArguments(output_dir=str(folder), **{**SETTINGS, **settings})
    collator = MotionTaskCollator(processor)
    return CodebookTrainer(
        model=model,
        args=args,
        train_dataset=CAPTIONED_CODES,
        eval_dataset=CAPTIONED_CODES,
        data_collator=collator,
        muon_learning_rate=args.muon_learning_rate,
    )


def gradients_by_hand(model, inputs, codebook) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """The model's output, and the codebook's gradients from lambda ||G - I||_F^2 and from the rest of the loss."""
    output = model(**inputs)
    weight = model.config.orthonormality_weight
    (total,) = torch.autograd.grad(output.loss, codebook, retain_graph=True)
    (orthonormal,) = torch.autograd.grad(weight * orthonormality_loss(codebook), codebook)
    return output, orthonormal, total - orthonormal


def test_tokenizer_log_has_the_parts_and_gradient_norms_of_the_batch(tokenizer, tmp_path):
    items = windows((32, 24, 16, 32))
    by_hand = copy.deepcopy(tokenizer).train()
    inputs = default_data_collator(items)
    output, orthonormal, task = gradients_by_hand(by_hand, inputs, by_hand.codebook.weight)
    trainer = tokenizer_trainer(tokenizer, tmp_path, items, per_device_train_batch_size=4, max_steps=1)
    trainer.train()
    logged = trainer.state.log_history[0]
    for name in ("loss", "reconstruction_loss", "orthonormality_loss", "utilisation_loss", "perplexity", "dead_codes"):
        assert logged[name] == pytest.approx(output[name].item(), rel=1e-4), name
    parts = output.reconstruction_loss + 0.002 * output.orthonormality_loss + 0.05 * output.utilisation_loss
    assert logged["loss"] == pytest.approx(parts.item(), rel=1e-4)
    assert logged["codebook_gradient_norm_orthonormality"] == pytest.approx(float(orthonormal.norm()), rel=1e-4)
    assert logged["codebook_gradient_norm_task"] == pytest.approx(float(task.norm()), rel=1e-3)
    assert float(orthonormal.norm()) > 0.01 and float(task.norm()) > 1e-5


def test_language_model_log_has_the_parts_and_gradient_norms_of_the_batch(language_model, tiny_processor, tmp_path):
    by_hand = copy.deepcopy(language_model).train()
    inputs = MotionTaskCollator(tiny_processor)(CAPTIONED_CODES)
    output, orthonormal, task = gradients_by_hand(by_hand, inputs, by_hand.motion_codebook.weight)
    trainer = language_model_trainer(
        language_model, tiny_processor, tmp_path, per_device_train_batch_size=4, max_steps=1
    )
    trainer.train()
    logged = trainer.state.log_history[0]
    for name in ("loss", "language_modeling_loss", "orthonormality_loss"):
        assert logged[name] == pytest.approx(output[name].item(), rel=1e-4), name
    assert logged["codebook_gradient_norm_orthonormality"] == pytest.approx(float(orthonormal.norm()), rel=1e-4)
    assert logged["codebook_gradient_norm_task"] == pytest.approx(float(task.norm()), rel=1e-3)
    assert float(orthonormal.norm()) > 0.01 and float(task.norm()) > 0.1


def test_log_has_means_over_the_steps_and_evaluation_its_own(tokenizer, tmp_path):
    """With a learning rate of 0, two steps of two windows each log the mean of the two batches."""
    items = windows()
    by_hand = copy.deepcopy(tokenizer).train()
    expected = [float(by_hand(**default_data_collator(items[i : i + 2])).perplexity) for i in (0, 2)]
    trainer = tokenizer_trainer(
        tokenizer,
        tmp_path,
        items,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
        max_steps=2,
        logging_steps=2,
        learning_rate=0.0,
        train_sampling_strategy="sequential",
    )
    trainer.train()
    trainer.evaluate()
    train_log, _, eval_log = trainer.state.log_history
    assert expected[0] != expected[1]
    assert train_log["perplexity"] == pytest.approx(sum(expected) / 2, rel=1e-4)
    assert "eval_perplexity" not in train_log and "perplexity" not in eval_log
    # Without noise the argmax codes that evaluation decodes are those that training samples.
    assert eval_log["eval_reconstruction_loss"] == pytest.approx(train_log["reconstruction_loss"], rel=1e-4)


def weights_after_a_step(trainer: CodebookTrainer) -> dict[str, torch.Tensor]:
    trainer.train()
    assert trainer.state.global_step == 1
    return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}


def assert_same_step(before, one, other) -> None:
    moved = max((one[name] - before[name]).abs().max() for name in one)
    assert moved > 1e-3
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=1e-4, atol=1e-6)


def test_accumulated_tokenizer_step_is_that_of_one_batch(tokenizer, tmp_path):
    """The utilisation term, which the docstring says is taken per micro-batch, is left out."""
    tokenizer.config.utilisation_weight = 0.0
    settings = {"max_steps": 1, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 1e3}
    items, before = windows(), dict(copy.deepcopy(tokenizer).named_parameters())
    one = weights_after_a_step(
        tokenizer_trainer(copy.deepcopy(tokenizer), tmp_path, items, per_device_train_batch_size=4, **settings)
    )
    accumulated = weights_after_a_step(
        tokenizer_trainer(
            copy.deepcopy(tokenizer),
            tmp_path,
            items,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            **settings,
        )
    )
    assert_same_step(before, one, accumulated)


def test_accumulated_language_model_step_is_that_of_one_batch(language_model, tiny_processor, tmp_path):
    """Answers of different lengths: micro-batches weigh by their labels, and lambda' counts once."""
    settings = {"max_steps": 1, "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 1e3}
    before = dict(copy.deepcopy(language_model).named_parameters())
    runs = []
    for batch_size, accumulation in ((4, 1), (2, 2), (1, 4)):
        trainer = language_model_trainer(
            copy.deepcopy(language_model),
            tiny_processor,
            tmp_path,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            **settings,
        )
        runs.append((weights_after_a_step(trainer), trainer.state.log_history[0]))
    for weights, log in runs[1:]:
        assert_same_step(before, runs[0][0], weights)
        for name in ("loss", "language_modeling_loss", "codebook_gradient_norm_orthonormality", "grad_norm"):
            assert log[name] == pytest.approx(runs[0][1][name], rel=1e-3), name


def test_training_scores_labelled_positions_only(language_model, tiny_processor, tmp_path):
    """Evaluation, and training under torch.compile, keep the logits."""
    for compiled in (False, True):
        trainer = language_model_trainer(
            language_model, tiny_processor, tmp_path, per_device_train_batch_size=4, torch_compile=compiled
        )
        batch = next(iter(trainer.get_train_dataloader()))
        for training in (True, False):
            language_model.train(training)
            _, outputs = trainer.compute_loss(language_model, batch, return_outputs=True)
            assert (outputs.logits is None) == (training and not compiled)
        assert "skip_logits" not in batch


def test_codebook_has_its_own_learning_rate_and_no_decay(tokenizer, tmp_path):
    trainer = tokenizer_trainer(
        tokenizer,
        tmp_path,
        windows(),
        learning_rate=2e-4,
        codebook_learning_rate=1e-4,
        weight_decay=0.1,
    )
    groups = trainer.create_optimizer().param_groups
    (own,) = [group for group in groups if any(p is tokenizer.codebook.weight for p in group["params"])]
    assert len(own["params"]) == 1
    assert (own["lr"], own["weight_decay"]) == (1e-4, 0.0)
    others = [group for group in groups if group is not own]
    assert {group["lr"] for group in others} == {2e-4} and {group["weight_decay"] for group in others} == {0.1, 0.0}
    assert sum(len(group["params"]) for group in groups) == len(list(tokenizer.parameters()))


def test_muon_trains_kernels_and_matrices_and_adamw_the_rest(language_model, tokenizer, tiny_processor, tmp_path):
    rates = {"learning_rate": 1e-3, "muon_learning_rate": 2e-3, "weight_decay": 0.1}
    layers = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    blocks = [f"transformer.h.{b}.{n}.weight" for b in range(language_model.config.n_layer) for n in layers]
    kernels = [name for name, parameter in tokenizer.named_parameters() if parameter.ndim == 3]
    trainers = (
        (language_model, language_model_trainer(language_model, tiny_processor, tmp_path, **rates), blocks),
        (tokenizer, tokenizer_trainer(tokenizer, tmp_path, windows(), codebook_learning_rate=1e-4, **rates), kernels),
    )
    for model, trainer, wanted in trainers:
        optimizer = trainer.create_optimizer()
        assert trainer.create_optimizer() is optimizer
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        (muon,) = [group for group in optimizer.param_groups if "momentum" in group]
        assert (muon["lr"], muon["weight_decay"], muon["momentum"]) == (2e-3, 0.1, 0.95)
        assert [names[id(parameter)] for parameter in muon["params"]] == wanted != []
        rest = {names[id(p)]: g["lr"] for g in optimizer.param_groups if g is not muon for p in g["params"]}
        trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert set(rest) == trainable - set(wanted)
        codebook_rates = {rate for name, rate in rest.items() if name.endswith("codebook.weight")}
        assert codebook_rates == {1e-4 if model is tokenizer else 1e-3}
    trainers[1][1].train()
    assert torch.isfinite(tokenizer.codebook.weight).all()


def test_muon_beside_another_optimizer_is_refused(tokenizer, tmp_path):
    trainer = tokenizer_trainer(tokenizer, tmp_path, windows(), muon_learning_rate=1e-3, optim="sgd")
    with pytest.raises(ValueError, match="Muon stands beside torch's AdamW, but `optim` is 'sgd'"):
        trainer.create_optimizer()


@pytest.mark.parametrize("state", [None, '{"global_step": 2, "log_his'], ids=["without state", "half a state"])
def test_a_checkpoint_that_was_not_written_to_the_end_is_not_resumed(tokenizer, tmp_path, caplog, state):
    """The run goes on from the one before, to the same weights as without a break."""
    settings = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1, "per_device_train_batch_size": 2}
    tokenizer_trainer(copy.deepcopy(tokenizer), tmp_path, windows(), **settings).train()
    (tmp_path / "checkpoint-3").rename(tmp_path / "whole")
    half = tmp_path / "checkpoint-2"
    (half / "model.safetensors").write_bytes((half / "model.safetensors").read_bytes()[:1000])
    (half / "trainer_state.json").unlink()
    if state is not None:
        (half / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoint-best").mkdir()

    with pytest.raises(ValueError, match="checkpoint-2 is no checkpoint, or was not written to the end"):
        tokenizer_trainer(tokenizer, tmp_path, windows(), **settings).train(resume_from_checkpoint=str(half))
    resumed = tokenizer_trainer(tokenizer, tmp_path, windows(), **settings)
    resumed.train(resume_from_checkpoint=True)
    assert f"{half} was not written to the end" in caplog.text and "checkpoint-1 " not in caplog.text
    assert [log["step"] for log in resumed.state.log_history if "loss" in log] == [1, 2, 3]
    for name, weight in load_file(tmp_path / "whole" / "model.safetensors").items():
        assert torch.equal(tokenizer.state_dict()[name], weight), name


def test_a_run_without_a_checkpoint_is_not_resumed(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="no checkpoint to resume from"):
        tokenizer_trainer(tokenizer, tmp_path / "new", windows(), max_steps=1).train(resume_from_checkpoint=True)


def test_the_codebook_that_trains_is_found(tokenizer, language_model):
    """Not the one of the frozen tokenizer inside the language model, nor PEFT's copy of the original."""
    from geomotiongpt.training.arguments import LoraArguments
    from geomotiongpt.training.language_model import add_lora

    assert motion_codebook(tokenizer) is tokenizer.codebook.weight
    assert motion_codebook(language_model) is language_model.motion_codebook.weight
    adapted = add_lora(language_model, LoraArguments(r=2))
    assert motion_codebook(adapted).requires_grad
    assert motion_codebook(adapted).shape == tokenizer_shape(language_model)
    with pytest.raises(ValueError, match="Linear has no motion codebook"):
        motion_codebook(torch.nn.Linear(2, 2))


def tokenizer_shape(model) -> tuple[int, int]:
    config = model.config.motion_tokenizer_config
    return (config.num_codes, config.code_dim)
