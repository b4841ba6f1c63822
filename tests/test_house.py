"""Rules of the house that a machine can check."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM

from geomotiongpt import CausalMotionCodecConfig, MotionTokenizerConfig, MotionVAEConfig
from geomotiongpt.models.configuration_llamo import STAGES as STAGES_OF_LLAMO
from geomotiongpt.models.configuration_motiongpt3 import STAGES
from geomotiongpt.models.motion_representation import get_motion_representation

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "geomotiongpt"
CONFIGS = sorted(path.parent for path in (ROOT / "hub_configs").glob("*/language_model.yaml"))
STAGED_CONFIGS = sorted(path.parent for path in (ROOT / "hub_configs").glob("*/text_to_motion.yaml"))
LLAMO_CONFIGS = sorted(path.parent for path in (ROOT / "hub_configs").glob("llamo-*/motion.yaml"))
TRAVELLERS = sorted(path for path in (PACKAGE / "models").glob("*.py") if path.name != "__init__.py")
LAYERS = ("models", "baselines", "data", "evaluation", "visualization", "training")


def imported_modules(path: Path) -> list[tuple[int, str]]:
    """Level (dots) and name of everything that a file imports."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or ""))
    return found


@pytest.mark.parametrize("path", TRAVELLERS, ids=lambda path: path.name)
def test_the_hub_layer_imports_only_what_a_user_without_the_package_has(path):
    allowed = {"torch", "numpy", "transformers", *sys.stdlib_module_names}
    neighbours = {traveller.stem for traveller in TRAVELLERS}
    for level, name in imported_modules(path):
        if level:
            assert level == 1 and name in neighbours, f"{path.name} imports {'.' * level}{name}"
        else:
            assert name.split(".")[0] in allowed, f"{path.name} imports {name}"


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_run_one_way(layer):
    forbidden = {
        "models": {"baselines", "data", "evaluation", "visualization", "training", "cli", "quickstart"},
        "baselines": {"data", "evaluation", "visualization", "training", "cli", "quickstart"},
        "data": {"baselines", "evaluation", "visualization", "training", "cli", "quickstart"},
        "evaluation": {"baselines", "training", "cli", "quickstart"},
        "visualization": {"baselines", "evaluation", "training", "cli", "quickstart"},
        "training": {"cli", "quickstart"},
    }[layer]
    for path in (PACKAGE / layer).glob("*.py"):
        for level, name in imported_modules(path):
            assert not (level == 2 and name.split(".")[0] in forbidden), f"{path.name} imports ..{name}"


def test_no_file_is_too_long_to_read():
    for folder in (PACKAGE, ROOT / "examples"):
        for path in folder.rglob("*.py"):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 700, path.name


def test_nothing_is_unpickled():
    wanted = {"np.load": "allow_pickle", "torch.load": "weights_only"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in wanted:
                keyword = wanted[ast.unparse(node.func)]
                values = {argument.arg: ast.unparse(argument.value) for argument in node.keywords}
                assert values.get(keyword) == str(keyword == "weights_only"), f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("folder", CONFIGS, ids=lambda path: path.name)
def test_committed_configurations_are_those_of_the_recipes(folder):
    config = AutoConfig.from_pretrained(folder)
    recipe = yaml.safe_load((folder / "language_model.yaml").read_text())
    model_class = AutoModelForCausalLM._model_mapping[type(config)]
    assert config.architectures == [model_class.__name__]
    for name, value in (recipe["model"].get("language_model_config") or {}).items():
        assert getattr(config, name) == value
    assert config.orthonormality_weight == float(recipe["model"]["orthonormality_weight"])
    for name in ("projection", "projection_seed", "geometric_constraint", "spectral_form", "num_code_clusters"):
        assert getattr(config, name) == recipe["model"].get(name, getattr(type(config)(), name))
    assert config.freeze_text_embeddings == ("language_model" in recipe["model"])
    base = recipe["model"].get("language_model", "gpt2").lower()
    assert model_class.base_model_type in base, "the kind of the base is in its name"
    tokenizer_recipe = folder / "motion_tokenizer.yaml"
    if tokenizer_recipe.is_file():
        values = yaml.safe_load(tokenizer_recipe.read_text())
        facts = get_motion_representation(values["data"].get("representation", "humanml3d"))
        expected = MotionTokenizerConfig(num_features=facts.num_features, **values["model"]).to_dict()
        assert config.motion_tokenizer_config.to_dict() == expected
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["pad_token_id"] == config.pad_token_id != generation["eos_token_id"]


@pytest.mark.parametrize("folder", STAGED_CONFIGS, ids=lambda path: path.name)
def test_committed_stages_chain_and_make_the_committed_configuration(folder):
    names = ("motion_vae", "text_to_motion", "alignment", "joint")
    vae, *stages = (yaml.safe_load((folder / f"{name}.yaml").read_text()) for name in names)
    first, second, third = stages
    assert [stage["training"]["stage"] for stage in stages] == list(STAGES)
    assert first["model"]["motion_vae"] == vae["training"]["output_dir"]
    assert second["model"]["trained_model"] == first["training"]["output_dir"]
    assert third["model"]["trained_model"] == second["training"]["output_dir"]
    assert [stage["training"]["frozen"] for stage in stages] == [["text"], ["text"], []]
    config = AutoConfig.from_pretrained(folder)
    assert config.architectures == ["MotionGPT3ForCausalLM"]
    values = {name: value for name, value in vae["model"].items() if name != "model_type"}
    assert config.vae.to_dict() == MotionVAEConfig(**values).to_dict()
    text = folder / "text.yaml"
    if text.is_file():
        base = yaml.safe_load(text.read_text())
        assert first["model"]["language_model"] == base["training"]["output_dir"]
        expected = base["model"]["language_model_config"]
    else:
        expected = {"model_type": first["model"]["language_model"]}
    for name, value in {**expected, **first["model"].get("config", {})}.items():
        assert getattr(config.text_config if name in expected else config, name) == value
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["pad_token_id"] == config.padding_token_id != generation["eos_token_id"]
    assert {**generation, **third["generation"]} == generation


@pytest.mark.parametrize("folder", LLAMO_CONFIGS, ids=lambda path: path.name)
def test_committed_stages_of_llamo_chain_and_make_the_committed_configuration(folder):
    first, second, third = (yaml.safe_load((folder / f"{name}.yaml").read_text()) for name in STAGES_OF_LLAMO)
    assert [stage["training"]["stage"] for stage in (first, second, third)] == list(STAGES_OF_LLAMO)
    assert second["model"]["trained_model"] == first["training"]["output_dir"]
    assert third["model"]["trained_model"] == second["training"]["output_dir"]
    frozen = [stage["training"]["frozen"] for stage in (first, second, third)]
    assert frozen == [["text", "motion_branch"], ["text"], ["text"]]
    codec_recipe = ROOT / "hub_configs" / Path(first["model"]["motion_codec"]).parent.name / "motion_codec.yaml"
    codec = yaml.safe_load(codec_recipe.read_text())
    assert first["model"]["motion_codec"] == codec["training"]["output_dir"]
    representations = {recipe["data"].get("representation") for recipe in (codec, first, second, third)}
    facts = get_motion_representation(representations.pop() or "humanml3d")
    assert not representations
    config = AutoConfig.from_pretrained(folder)
    assert config.architectures == ["LLaMoForCausalLM"]
    values = {name: value for name, value in codec["model"].items() if name != "model_type"}
    assert config.codec.to_dict() == CausalMotionCodecConfig(num_features=facts.num_features, **values).to_dict()
    for name, value in first["model"].get("config", {}).items():
        assert getattr(config, name) == value
    text = folder / "text.yaml"
    if text.is_file():
        base = yaml.safe_load(text.read_text())
        assert first["model"]["language_model"] == base["training"]["output_dir"]
        for name, value in base["model"]["language_model_config"].items():
            assert getattr(config.text_config, name) == value
    else:
        assert config.text_config.model_type in first["model"]["language_model"].lower()
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["pad_token_id"] == config.padding_token_id != generation["eos_token_id"]
    assert generation["eos_token_id"] == config.text_config.eos_token_id
    assert {**generation, **third["generation"]} == generation


@pytest.mark.parametrize(
    ("name", "parameters"), [("llamo-llama3.2-1b", 1_235_814_400), ("llamo-qwen3-0.6b", 596_049_920)]
)
def test_the_text_branch_of_a_committed_llamo_is_the_released_base(name, parameters):
    """And its motion branch is as large, but for the embedding."""
    config = AutoConfig.from_pretrained(ROOT / "hub_configs" / name)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(weight.numel() for weight in model.text_parameters().values()) == parameters
    branch = sum(weight.numel() for name, weight in model.named_parameters() if "motion_branch" in name)
    assert branch == parameters - config.text_vocab_size * config.hidden_size


def test_the_tables_of_the_pages_are_those_of_the_committed_results():
    check = [sys.executable, str(ROOT / "examples" / "results_table.py"), "--check"]
    drift = subprocess.run(check, capture_output=True, text=True)
    assert drift.returncode == 0, drift.stdout + drift.stderr


def test_links_of_the_pages_lead_somewhere():
    pages = [path for folder in (ROOT, ROOT / "hub_configs", ROOT / "examples") for path in folder.glob("*.md")]
    pages += [path for folder in ("benchmarks", "studies") for path in (ROOT / "examples" / folder).rglob("*.md")]
    for page in pages:
        for link in re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link.partition("#")[0]).exists(), f"{page.relative_to(ROOT)}: {link}"
