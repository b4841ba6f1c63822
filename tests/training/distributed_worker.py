"""Two steps of both stages over four clips of different lengths, without noise or dropout.

Alone it is the reference; under `torchrun --nproc_per_node 2` each process gets two of the clips:

    torchrun --nproc_per_node 2 tests/training/distributed_worker.py OUTPUT
"""

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, default_data_collator

from geomotiongpt import (
    GeoMotionGPTForCausalLM,
    GeoMotionGPTProcessor,
    MotionFeatureExtractor,
    MotionTokenizer,
    MotionTokenizerConfig,
)
from geomotiongpt.data.training_sets import MotionTaskCollator
from geomotiongpt.models.task_prompts import MotionTaskExample
from geomotiongpt.training.arguments import LanguageModelTrainingArguments, MotionTokenizerTrainingArguments
from geomotiongpt.training.text_tokenizer import train_text_tokenizer
from geomotiongpt.training.trainer import CodebookTrainer

NUM_CLIPS, STEPS = 4, 2
JUMP = "someone jumps up and down and then sits down slowly"
CAPTIONED_CODES = [
    {"example": MotionTaskExample("motion-to-text", "a person walks forward", [1, 2, 3, 4, 5]), "name": "a"},
    {"example": MotionTaskExample("motion-to-text", JUMP, [7, 7]), "name": "b"},
    {"example": MotionTaskExample("motion-to-text", "a man", [0, 9, 11]), "name": "c"},
    {"example": MotionTaskExample("motion-to-text", "a person waves with the left hand", [15, 2, 8]), "name": "d"},
]
SETTINGS = {
    "max_steps": STEPS,
    "optim": "sgd",
    "learning_rate": 0.1,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "save_strategy": "no",
    "disable_tqdm": True,
}


def make_tokenizer() -> MotionTokenizer:
    """Random, with a codebook far from orthonormal and weights that make every term of the loss count."""
    torch.manual_seed(0)
    config = MotionTokenizerConfig(
        num_codes=16,
        code_dim=16,
        hidden_size=8,
        num_residual_layers=1,
        gumbel_noise=0.0,
        orthonormality_weight=0.01,
        utilisation_weight=1.0,
    )
    model = MotionTokenizer(config)
    with torch.no_grad():
        model.codebook.weight.normal_()
        model.encoder.output_conv.weight.mul_(5)
    return model


def tokenizer_trainer(folder: Path, batch_size: int) -> CodebookTrainer:
    """First stage; the clips have 40, 16, 33 and 8 frames."""
    model = make_tokenizer()
    values = torch.randn(NUM_CLIPS, 40, 263, generator=torch.Generator().manual_seed(1))
    masks = torch.arange(40) < torch.tensor([40, 16, 33, 8])[:, None]
    items = [{"motion_values": value, "motion_mask": mask} for value, mask in zip(values, masks, strict=True)]
    args = MotionTokenizerTrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=batch_size, max_grad_norm=1e3, **SETTINGS
    )
    return CodebookTrainer(model=model, args=args, train_dataset=items, data_collator=default_data_collator)


def language_model_trainer(folder: Path, batch_size: int) -> CodebookTrainer:
    """Second stage; prompts and answers differ in length."""
    tokenizer = make_tokenizer()
    text_tokenizer = train_text_tokenizer([[item["example"].text for item in CAPTIONED_CODES]], 300)
    end = text_tokenizer.eos_token_id
    base = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(text_tokenizer),
            n_positions=64,
            n_embd=16,
            n_layer=1,
            n_head=2,
            bos_token_id=end,
            eos_token_id=end,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    )
    model = GeoMotionGPTForCausalLM.from_components(
        base, tokenizer, orthonormality_weight=0.05, freeze_text_embeddings=False
    )
    processor = GeoMotionGPTProcessor.from_components(MotionFeatureExtractor(), text_tokenizer, model.config)
    args = LanguageModelTrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=batch_size, max_grad_norm=1e3, **SETTINGS
    )
    return CodebookTrainer(
        model=model, args=args, train_dataset=CAPTIONED_CODES, data_collator=MotionTaskCollator(processor)
    )


STAGES = {"motion_tokenizer": tokenizer_trainer, "language_model": language_model_trainer}


def take_steps(stage: str, folder: Path, num_processes: int) -> None:
    """Trains; the main process writes `<stage>.safetensors` and `<stage>.json` (world size, log, agreement)."""
    trainer = STAGES[stage](folder / stage, NUM_CLIPS // num_processes)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    after = {name: value.detach().contiguous() for name, value in trainer.model.state_dict().items()}
    flat = torch.cat([value.double().reshape(-1) for value in after.values()])
    gathered = trainer.accelerator.gather(flat[None])
    noises = trainer.accelerator.gather(torch.rand(1))
    if trainer.is_world_process_zero():
        report = {
            "world_size": trainer.args.world_size,
            "processes_agree": bool((gathered == gathered[0]).all()),
            "num_noises": len(noises.unique()),
            "moved": max(float((after[name].double() - before[name].double()).abs().max()) for name in after),
            "log": trainer.state.log_history,
        }
        (folder / f"{stage}.json").write_text(json.dumps(report))
        after.pop("lm_head.weight", None)  # shares its memory with the text embedding
        save_file(after, folder / f"{stage}.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in STAGES:
        take_steps(name, Path(sys.argv[1]), int(os.environ["WORLD_SIZE"]))
