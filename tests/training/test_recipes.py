"""Recipes: what is read, what is refused and how it is said, and that those we publish can be run."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from geomotiongpt import (
    LLaMoConfig,
    MotionGPT3Config,
    MotionTextEvaluatorConfig,
    MotionTokenizer,
    MotionTokenizerConfig,
    TMRConfig,
)
from geomotiongpt.data.training_sets import check_tasks
from geomotiongpt.models.task_prompts import LATENT_TASKS, TASKS
from geomotiongpt.resources import resource
from geomotiongpt.training import evaluator, language_model, motion_tokenizer
from geomotiongpt.training.arguments import (
    EvaluatorTrainingArguments,
    LanguageModelTrainingArguments,
    LLaMoTrainingArguments,
    LoraArguments,
    MotionDataArguments,
    MotionGPT3TrainingArguments,
    MotionTokenizerTrainingArguments,
    MotionVAETrainingArguments,
    MotionWindowTrainingArguments,
    TextTrainingArguments,
    WordArguments,
)
from geomotiongpt.training.evaluator import train_evaluator
from geomotiongpt.training.llamo import LLaMoModelArguments
from geomotiongpt.training.motiongpt3 import MotionGPT3ModelArguments
from geomotiongpt.training.recipes import build_section, load_recipe, set_generation
from geomotiongpt.training.text_model import TextModelArguments

PUBLISHED = sorted(resource("hub_configs").glob("*/*.yaml"))
PAPER = resource("hub_configs/geomotiongpt-humanml3d/motion_tokenizer.yaml")
SECTIONS = ("model", "data", "training")


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_missing_sections_are_empty_and_others_as_written(tmp_path):
    recipe = load_recipe(write(tmp_path, "model: {num_codes: 64}\n"), SECTIONS)
    assert recipe == {"model": {"num_codes": 64}, "data": {}, "training": {}}


def test_overrides_are_yaml_and_win_over_the_file(tmp_path):
    path = write(tmp_path, "training: {max_steps: 5, seed: 1}\n")
    overrides = ["training.max_steps=9", "data.path=a=b", "model.sizes=[1, 2]", "data.mirrored=false"]
    recipe = load_recipe(path, SECTIONS, overrides)
    assert recipe["training"] == {"max_steps": 9, "seed": 1}
    assert recipe["data"] == {"path": "a=b", "mirrored": False}
    assert recipe["model"] == {"sizes": [1, 2]}


@pytest.mark.parametrize("override", ["max_steps=3", "training.max_steps", "trainer.max_steps=3", "training.=3"])
def test_unreadable_override_is_named_with_the_form_wanted(tmp_path, override):
    with pytest.raises(ValueError, match=f"{override}.*section.key=value.*model, data, training"):
        load_recipe(write(tmp_path, ""), SECTIONS, [override])


def test_unknown_section_gets_a_suggestion(tmp_path):
    path = write(tmp_path, "trainning: {seed: 0}\n")
    with pytest.raises(ValueError, match="recipe.yaml: unknown section 'trainning' .did you mean 'training'"):
        load_recipe(path, SECTIONS)


def test_unknown_option_gets_a_suggestion():
    with pytest.raises(ValueError, match="section 'model' has no option 'num_code' .did you mean 'num_codes'"):
        build_section(MotionTokenizerConfig, {"num_code": 4}, "model")


def test_unknown_option_like_no_other_lists_the_known_ones():
    with pytest.raises(ValueError, match="no option 'zzz'; known: r, lora_alpha, lora_dropout, target_modules"):
        build_section(LoraArguments, {"zzz": 4}, "lora")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.yaml: no such recipe"):
        load_recipe(tmp_path / "nowhere.yaml", SECTIONS)


def test_recipes_of_the_package_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "hub_configs/geomotiongpt-tiny/motion_tokenizer.yaml"
    assert load_recipe(name, SECTIONS) == load_recipe(resource(name), SECTIONS)
    own = tmp_path / name
    own.parent.mkdir(parents=True)
    own.write_text("model: {num_codes: 3}")
    assert load_recipe(name, SECTIONS)["model"] == {"num_codes": 3}
    for other in ("hub_configs/none.yaml", "geomotiongpt-tiny/motion_tokenizer.yaml"):
        with pytest.raises(FileNotFoundError) as error:
            load_recipe(other, SECTIONS)
        assert f"{other}: no such recipe" in str(error.value) and str(resource("hub_configs")) in str(error.value)


@pytest.mark.parametrize("text", ["model: [", "model: {a: 1", "\t- x: :"])
def test_invalid_yaml_is_named(tmp_path, text):
    with pytest.raises(ValueError, match="recipe.yaml is not valid YAML"):
        load_recipe(write(tmp_path, text), SECTIONS)


def test_what_is_merged_in_gives_way(tmp_path):
    text = "data: &shared {path: x, seed: 1}\nmodel: {<<: *shared, seed: 2}\n"
    assert load_recipe(write(tmp_path, text), SECTIONS)["model"] == {"path": "x", "seed": 2}


@pytest.mark.parametrize("text", ["training: {seed: 1}\ntraining: {max_steps: 2}\n", "model: {a: 1, b: 2, a: 3}\n"])
def test_a_key_that_stands_twice_is_named(tmp_path, text):
    """YAML would take the last and drop what the first said."""
    with pytest.raises(ValueError, match="'(training|a)' stands here twice"):
        load_recipe(write(tmp_path, text), SECTIONS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tasks": {}}, "tasks are empty"),
        ({"prompt_wordings": 0}, "prompt_wordings is 0; it must be 1 or more"),
        ({"code_offsets": 0}, "code_offsets is 0; it must be 1 or more"),
        ({"code_dropout": 1.5}, "code_dropout is 1.5; it must be 0 or more, and less than 1"),
        ({"answer_dropout": -0.1}, "answer_dropout is -0.1"),
        (
            {"dataloader_num_workers": 1, "dataloader_persistent_workers": True},
            "every epoch the windows",
        ),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor: the library would take the labels without"),
        ({"push_to_hub": True}, "push_to_hub: checkpoints have no code and no card.*`geomotiongpt push`"),
    ],
)
def test_values_of_no_use_are_refused_by_name(values, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        build_section(LanguageModelTrainingArguments, {"output_dir": str(tmp_path), **values}, "training")


@pytest.mark.parametrize(("text", "message"), [("just words", "holds no sections"), ("model: 3", "'model' must hold")])
def test_yaml_of_another_shape_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(write(tmp_path, text), SECTIONS)


@pytest.mark.parametrize("written", ["1e-4", "1.0e-4", "1E-4", "0.0001"])
def test_scientific_notation_is_a_number(tmp_path, written):
    """YAML 1.1 takes 1e-4 for a string, and the optimiser would get it."""
    recipe = load_recipe(write(tmp_path, f"model: {{orthonormality_weight: {written}}}\n"), SECTIONS)
    config = build_section(MotionTokenizerConfig, recipe["model"], "model")
    assert isinstance(config.orthonormality_weight, float) and config.orthonormality_weight == 1e-4


def test_missing_option_is_named():
    with pytest.raises(ValueError, match="section 'data'.*path"):
        build_section(MotionDataArguments, {}, "data")


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (MotionTokenizerConfig, {"num_codes": "many"}),
        (MotionTokenizerConfig, {"gumbel_temperature": 0}),
        (MotionTokenizerTrainingArguments, {"eval_strategy": "sometimes"}),
        (MotionTokenizerTrainingArguments, {"learning_rate": "fast"}),
        (MotionTokenizerTrainingArguments, {"max_steps": "many"}),
        (MotionTokenizerTrainingArguments, {"window_frames": "long"}),
        (MotionDataArguments, {"path": "data", "min_frames": "few"}),
        (LoraArguments, {"r": "low"}),
    ],
)
def test_value_of_the_wrong_kind_is_refused_with_its_name_or_value(cls, values):
    """Not a traceback from the middle of a training run."""
    name, value = list(values.items())[-1]
    with pytest.raises(ValueError, match=f"{name}|{value}"):
        build_section(cls, values, "some")


def test_recipes_are_published():
    assert len(PUBLISHED) >= 7


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_published_recipe_fits_its_dataclasses(path):
    kind = yaml.safe_load(path.read_text())["model"].get("model_type")
    stage = evaluator if path.stem in ("evaluator", "tmr") else language_model
    encoders = ("motion_tokenizer", "motion_vae", "motion_codec")
    stage = motion_tokenizer if path.stem.startswith(encoders) else stage
    recipe = load_recipe(path, stage.SECTIONS)
    build_section(MotionDataArguments, recipe["data"], "data")
    if stage is motion_tokenizer:
        config_class = motion_tokenizer._model_class(recipe).config_class
        if path.stem not in ("motion_vae", "motion_codec"):
            quantiser = path.stem[17:].replace("annealed", "")  # the package's own, with other values
            assert config_class.model_type.partition("motion_tokenizer")[0].rstrip("_") == quantiser
        build_section(config_class, recipe["model"], "model")
        others = {"motion_vae": MotionVAETrainingArguments, "causal_motion_codec": MotionWindowTrainingArguments}
        arguments = others.get(kind, MotionTokenizerTrainingArguments)
        args = build_section(arguments, recipe["training"], "training")
    elif kind == "text":
        build_section(TextModelArguments, recipe["model"], "model")
        args = build_section(TextTrainingArguments, recipe["training"], "training")
    elif kind == "motiongpt3":
        model = build_section(MotionGPT3ModelArguments, recipe["model"], "model")
        MotionGPT3Config(**model.config)
        args = build_section(MotionGPT3TrainingArguments, recipe["training"], "training")
        check_tasks(args.tasks, LATENT_TASKS)
        assert GenerationConfig(**recipe["generation"]).max_new_tokens >= 40
    elif kind == "llamo":
        model = build_section(LLaMoModelArguments, recipe["model"], "model")
        config = LLaMoConfig(**model.config)
        args = build_section(LLaMoTrainingArguments, recipe["training"], "training")
        check_tasks(args.tasks, TASKS)
        assert "unconditional" in args.tasks, "what guidance leads away from"
        if path.stem.startswith("single_stream"):
            assert not args.frozen and (config.streams == "single" or model.trained_model)
        assert GenerationConfig(**recipe["generation"]).max_new_tokens >= 40
    elif stage is language_model:
        build_section(language_model.ModelArguments, recipe["model"], "model")
        args = build_section(LanguageModelTrainingArguments, recipe["training"], "training")
        build_section(LoraArguments, recipe["lora"], "lora")
        assert GenerationConfig(**recipe["generation"]).max_new_tokens >= 40
    else:
        kind = recipe["model"].pop("model_type")
        assert kind == {"evaluator": "motion_text_evaluator", "tmr": "tmr"}[path.stem]
        build_section(TMRConfig if kind == "tmr" else MotionTextEvaluatorConfig, recipe["model"], "model")
        build_section(WordArguments, recipe["words"], "words")
        args = build_section(EvaluatorTrainingArguments, recipe["training"], "training")
    assert args.seed == 0
    assert isinstance(args.learning_rate, float)


def test_published_pairs_agree():
    """The second stage reads what the first one writes."""
    for path in PUBLISHED:
        if path.stem == "language_model" and (path.parent / "motion_tokenizer.yaml").is_file():
            first = yaml.safe_load((path.parent / "motion_tokenizer.yaml").read_text())
            second = yaml.safe_load(path.read_text())
            assert second["model"]["motion_tokenizer"] == first["training"]["output_dir"]
            assert second["data"] == first["data"]


@pytest.mark.parametrize("folder", ["geomotiongpt-tiny-generation", "geomotiongpt-real-motion-generation"])
def test_the_judges_of_the_headers_are_those_of_the_results(folder):
    """The commands fit their recipes, the second goes on from the first, and makes what the result names."""
    header = (resource("hub_configs") / folder / "language_model.yaml").read_text().partition("\nmodel:")[0]
    commands = header.replace(" \\\n#", "").splitlines()
    first, second = (line.split()[2:] for line in commands if line.startswith("#   geomotiongpt"))
    recipe = load_recipe(first[1], motion_tokenizer.SECTIONS, first[2:])
    assert recipe["model"].pop("model_type") == "motion_tokenizer"
    build_section(MotionTokenizerConfig, recipe["model"], "model")
    tokenizer = build_section(MotionTokenizerTrainingArguments, recipe["training"], "training").output_dir
    recipe = load_recipe(second[1], language_model.SECTIONS, second[2:])
    judge = build_section(LanguageModelTrainingArguments, recipe["training"], "training").output_dir
    assert (first[0], second[0]) == ("train-tokenizer", "train") and recipe["model"]["motion_tokenizer"] == tokenizer
    result = json.loads((resource("hub_configs") / folder / "text_to_motion.json").read_text())
    assert judge == result["protocol"]["judge"] != tokenizer


def test_paper_recipe_has_the_published_sizes_and_schedule():
    """13.79M + 13.79M + 0.26M parameters; 500 epochs of 23,384 windows; tau 0.4 to 60%, 0.01 from 80% on."""
    recipe = load_recipe(PAPER, SECTIONS)
    assert recipe["model"].pop("model_type") == "motion_tokenizer"
    config = build_section(MotionTokenizerConfig, recipe["model"], "model")
    with torch.device("meta"):
        model = MotionTokenizer(config)
    millions = [
        round(sum(parameter.numel() for parameter in part.parameters()) / 1e6, 2)
        for part in (model.encoder, model.decoder, model.codebook)
    ]
    assert millions == [13.79, 13.79, 0.26]
    assert sum(millions) == pytest.approx(model.num_parameters() / 1e6, abs=0.01)
    args = build_section(MotionTokenizerTrainingArguments, recipe["training"], "training")
    assert (args.window_frames, args.per_device_train_batch_size, args.num_train_epochs) == (32, 512, 500)
    assert (args.learning_rate, args.codebook_learning_rate, args.weight_decay) == (2e-4, 1e-4, 1e-4)
    assert (args.initial_gumbel_temperature, config.gumbel_temperature) == (0.4, 0.01)
    assert (args.temperature_hold_ratio, args.temperature_end_ratio) == (0.6, 0.8)
    assert (config.gumbel_noise, config.position_weight) == (1.0, 1.0)


def test_a_trained_model_generates_with_its_cache():
    """A `Trainer` switches the cache off in the configuration, which a generation configuration is made from."""
    config = GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=16, use_cache=False)
    model = GPT2LMHeadModel(config)
    set_generation(model, {"max_new_tokens": 8})
    assert model.generation_config.use_cache is True and model.generation_config.max_new_tokens == 8
    set_generation(model, {"use_cache": False})
    assert model.generation_config.use_cache is False


@pytest.mark.parametrize(
    ("train", "model_type", "message"),
    [
        (
            language_model.train_language_model,
            "motion_vae",
            "is of a 'motion_vae': train it with `geomotiongpt train-tokenizer",
        ),
        (
            language_model.train_language_model,
            "bert",
            "'bert'; it can be motiongpt3, llamo, text, or be left out for GeoMotionGPT",
        ),
        (
            motion_tokenizer.train_motion_tokenizer,
            "llamo",
            "'llamo'; motion tokenizers are .* trained with `geomotiongpt train`",
        ),
        (
            language_model.train_language_model,
            "tmr",
            "is of a 'tmr': train it with `geomotiongpt train-evaluator",
        ),
        (
            train_evaluator,
            "motion_tokenizer",
            "'motion_tokenizer'; evaluators are .* tokenizers are trained with `geomotiongpt train-tokenizer`",
        ),
    ],
)
def test_a_recipe_of_another_command_names_that_command(tmp_path, train, model_type, message):
    recipe = write(tmp_path, f"model: {{model_type: {model_type}}}\n")
    with pytest.raises(ValueError, match=message):
        train(recipe)
