"""A model pushed to the Hub works for someone who has transformers and not this package, over HTTP to a stand-in."""

import json
import shutil

import numpy as np
import pytest
import torch
from hub_stand_in import HubStandIn, run_python
from huggingface_hub import ModelCard
from transformers import PreTrainedTokenizerFast, pipeline

from geomotiongpt import (
    GeoMotionGPTForCausalLM,
    GeoMotionGPTProcessor,
    GeoMotionLlamaForCausalLM,
    GeoMotionQwen3ForCausalLM,
)
from geomotiongpt.evaluation.results import make_result
from geomotiongpt.models.motion_projections import PROJECTIONS
from geomotiongpt.training.model_card import write_model_card

CONSTRAINTS = ("orthonormal", "whitening", "spectral", "cluster", "none")
GENERATION = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}

PUSH = """
from huggingface_hub import upload_file
from geomotiongpt import GeoMotionGPTForCausalLM, GeoMotionGPTProcessor
from geomotiongpt.cli import main

folder = "FOLDER"
GeoMotionGPTForCausalLM.from_pretrained(folder).push_to_hub("tester/by-method")
GeoMotionGPTProcessor.from_pretrained(folder).push_to_hub("tester/by-method")
model = GeoMotionGPTForCausalLM.from_pretrained(folder)
model.save_pretrained("SAVED", push_to_hub=True, repo_id="tester/on-saving")
upload_file(path_or_fileobj=folder + "/README.md", path_in_repo="README.md", repo_id="tester/by-method")
assert main(["push", folder, "tester/by-command", "--private"]) == 0
"""

REFUSED = """
import contextlib
import os
import sys
from geomotiongpt.cli import main

for repo_id, token in {"tester/missing": "", "tester/wrong": "hf_wrong", "other/name": "hf_tester"}.items():
    os.environ["HF_TOKEN"] = token
    with contextlib.redirect_stderr(sys.stdout):
        assert main(["push", "FOLDER", repo_id]) == 2
"""

HIDE = """
import sys


class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "geomotiongpt":
            raise ImportError("hidden")


sys.meta_path.insert(0, Hidden())
try:
    import geomotiongpt
except ImportError:
    pass
else:
    raise AssertionError("the package is there: this would not test the code of the repository")
"""

PULL = (
    HIDE
    + """
import json
from pathlib import Path

import numpy as np
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForCausalLM, AutoProcessor, pipeline

repo, folder = "tester/by-method", Path("FOLDER")
expected = json.loads((folder / "expected.json").read_text())
files, generation = expected["files"], expected["generation"]
processor = AutoProcessor.from_pretrained(repo, trust_remote_code=True)
inputs = processor(motion=[np.load(file) for file in files])


def check(model):
    assert type(model).__name__ == "GeoMotionGPTForCausalLM", type(model)
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    assert model.generate(**inputs, **generation).tolist() == expected["ids"]


model = AutoModel.from_pretrained(repo, trust_remote_code=True)
check(model)
check(AutoModelForCausalLM.from_pretrained(repo, trust_remote_code=True))
model.save_pretrained(folder / "again")
check(AutoModel.from_pretrained(folder / "again", trust_remote_code=True))

describe = pipeline("motion-to-text", model=repo, trust_remote_code=True)
assert [result["generated_text"] for result in describe(files, **generation)] == expected["texts"]
assert describe(files[-1], segments=True, window=2, **generation) == expected["segments"]

make = pipeline("text-to-motion", model=repo, trust_remote_code=True)
assert make("a person walks", num_frames=40, do_sample=False)["motion"].tolist() == expected["made"]

alone = {"subfolder": "motion_tokenizer", "trust_remote_code": True}
motion = AutoFeatureExtractor.from_pretrained(repo, **alone)([np.load(file) for file in files])
motion_tokenizer = AutoModel.from_pretrained(repo, **alone)
assert type(motion_tokenizer).__name__ == "MotionTokenizer", type(motion_tokenizer)
assert motion_tokenizer.encode(**motion).motion_codes.tolist() == expected["codes"]
assert "geomotiongpt" not in sys.modules
"""
)

PUSH_ALL = """
from pathlib import Path
from transformers import AutoModelForCausalLM, AutoProcessor
import geomotiongpt

for folder in sorted(Path("FOLDER").iterdir()):
    AutoModelForCausalLM.from_pretrained(folder).push_to_hub(f"tester/{folder.name}")
    AutoProcessor.from_pretrained(folder).push_to_hub(f"tester/{folder.name}")
"""

PULL_ALL = (
    HIDE
    + """
import json
from pathlib import Path

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor

for folder in sorted(Path("FOLDER").iterdir()):
    repo, expected = f"tester/{folder.name}", json.loads((folder / "expected.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(repo, trust_remote_code=True).eval()
    assert type(model).__name__ == expected["class"], type(model)
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    assert type(AutoModel.from_pretrained(repo, trust_remote_code=True)).__name__ == expected["class"]
    processor = AutoProcessor.from_pretrained(repo, trust_remote_code=True)
    output = model(**processor(motion_codes=expected["codes"], text=["walks", "jumps"]))
    torch.testing.assert_close(output.logits[0, -1], torch.tensor(expected["logits"]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.orthonormality_loss.item(), expected["constraint"], rtol=1e-5, atol=1e-5)
    model.swap_projection("none")
    swapped = model(**processor(motion_codes=expected["codes"], text=["walks", "jumps"]))
    torch.testing.assert_close(swapped.logits, output.logits, rtol=1e-4, atol=1e-4)
    print("opened", repo)
assert "geomotiongpt" not in sys.modules
"""
)

CODE = {
    "configuration_geomotiongpt.py",
    "configuration_motion_tokenizer.py",
    "configuration_motion_vocabulary.py",
    "feature_extraction_motion.py",
    "geometry.py",
    "modeling_geomotiongpt.py",
    "modeling_motion_tokenizer.py",
    "motion_generation.py",
    "motion_projections.py",
    "motion_representation.py",
    "motion_vocabulary.py",
    "pipeline_motion_to_text.py",
    "processing_geomotiongpt.py",
    "strict_loading.py",
    "task_prompts.py",
}
MODEL = {"config.json", "generation_config.json", "model.safetensors", "processor_config.json", "tokenizer.json"}


@pytest.fixture
def folder(tiny_model, tiny_model_folder, tmp_path):
    """A model's folder as training leaves it, with its card."""
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    leftovers = (
        "checkpoint-10/optimizer.pt",
        "adapter/adapter_config.json",
        "training_args.bin",
        "trainer_state.json",
    )
    for leftover in (*leftovers, "caption_samples.jsonl"):
        (folder / leftover).parent.mkdir(exist_ok=True)
        (folder / leftover).write_bytes(b"not to be published")
    metrics = {"action": {"mean": 0.75, "ci95": 0.1, "n": 40}, "gram_error": 0.5}
    result = make_result(command="geomotiongpt quickstart", model={}, data={}, protocol={}, metrics=metrics)
    write_model_card(folder, tiny_model, name="tiny", data_name="random motions", result=result)
    return folder


def expect(folder, model, processor, clips) -> None:
    """Writes what model and processor give here for the clips, which are written too."""
    files = [str(folder / f"clip{index}.npy") for index in range(len(clips))]
    for file, clip in zip(files, clips, strict=True):
        np.save(file, clip)
    inputs = processor(motion=clips)
    ids = model.generate(**inputs, **GENERATION)
    codes = model.motion_tokenizer.encode(inputs["motion_values"], inputs["motion_mask"]).motion_codes
    texts = processor.post_process_text(ids, inputs["input_ids"].shape[1])
    assert len(set(texts)) == len(clips), "equal captions test nothing"
    made = pipeline("text-to-motion", model=model, processor=processor)(
        "a person walks", num_frames=40, do_sample=False
    )
    expected = {"files": files, "generation": GENERATION, "texts": texts, "ids": ids.tolist(), "codes": codes.tolist()}
    expected["made"] = made["motion"].tolist()
    describe = pipeline("motion-to-text", model=model, processor=processor)
    expected["segments"] = describe(files[-1], segments=True, window=2, **GENERATION)
    (folder / "expected.json").write_text(json.dumps(expected))


@pytest.mark.slow
def test_pushed_model_works_without_the_package(folder, tiny_model, tiny_processor, clips, tmp_path):
    expect(tmp_path, tiny_model, tiny_processor, clips)
    with HubStandIn() as hub:
        run_python(
            PUSH.replace("FOLDER", str(folder)).replace("SAVED", str(tmp_path / "saved")),
            env=hub.environment(tmp_path / "pusher"),
            timeout=600,
        )
        pushed, by_command = hub.files("tester/by-method"), hub.files("tester/by-command")
        weights = hub.files("tester/on-saving")["motion_tokenizer/model.safetensors"]
        assert weights == pushed["motion_tokenizer/model.safetensors"], "pushing on save leaves nothing out"
        assert hub.repositories["model", "tester/by-command"].private
        user = hub.environment(tmp_path / "puller", token=None)
        run_python(PULL.replace("FOLDER", str(tmp_path)), env=user, timeout=600)

    alone = {f"motion_tokenizer/{name}" for name in ("config.json", "model.safetensors", "preprocessor_config.json")}
    assert pushed.keys() >= MODEL | CODE | alone | {"README.md"}
    assert by_command.keys() >= pushed.keys() - {".gitattributes"}
    for name in CODE | {"model.safetensors", "motion_tokenizer/model.safetensors"}:
        assert by_command[name] == pushed[name], name
    private = ("checkpoint", "adapter", "trainer_state", "caption_samples")
    assert not [name for name in by_command if name.startswith(private) or name.endswith(".bin")]
    for files in (pushed, by_command):
        card = ModelCard(files["README.md"].decode()).data
        assert card.model_name == "tiny" and "motion-to-text" in card.tags and "text-to-motion" not in card.tags
        assert {result.metric_type: result.metric_value for result in card.eval_results} == {
            "action": 0.75,
            "gram_error": 0.5,
        }


@pytest.mark.slow
def test_every_base_projection_and_constraint_opens_without_the_package(
    tiny_language_model,
    make_base_model,
    tiny_tokenizer_model,
    tiny_feature_extractor,
    trained_text_tokenizer,
    tmp_path,
):
    """The code that travels with each model is complete, and its geometry is as it was."""
    cases = [
        (GeoMotionGPTForCausalLM, tiny_language_model, *case) for case in zip(PROJECTIONS, CONSTRAINTS, strict=True)
    ]
    cases.append((GeoMotionGPTForCausalLM, tiny_language_model, "sparse", "decorrelation"))
    cases.append((GeoMotionLlamaForCausalLM, make_base_model("llama"), "orthogonal", "cluster"))
    cases.append((GeoMotionQwen3ForCausalLM, make_base_model("qwen3"), "sparse", "pairwise_cosine"))
    codes = [[1, 5, 3], [2, 2, 31, 7]]
    for model_class, base, projection, constraint in cases:
        options = {"projection": projection, "geometric_constraint": constraint, "num_code_clusters": 4}
        model = model_class.from_components(base, tiny_tokenizer_model, **options).eval()
        with torch.no_grad():
            model.motion_codebook.weight.add_(torch.randn(model.motion_codebook.weight.shape))
        text_tokenizer = PreTrainedTokenizerFast.from_pretrained(trained_text_tokenizer)
        processor = GeoMotionGPTProcessor.from_components(tiny_feature_extractor, text_tokenizer, model.config)
        folder = tmp_path / "models" / f"{model.config.model_type}-{projection}-{constraint}".replace("_", "-")
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        output = model(**processor(motion_codes=codes, text=["walks", "jumps"]))
        expected = {"class": model_class.__name__, "codes": codes, "logits": output.logits[0, -1].tolist()}
        expected["constraint"] = output.orthonormality_loss.item()
        (folder / "expected.json").write_text(json.dumps(expected))
    with HubStandIn() as hub:
        pusher = hub.environment(tmp_path / "pusher")
        run_python(PUSH_ALL.replace("FOLDER", str(tmp_path / "models")), env=pusher, timeout=600)
        user = hub.environment(tmp_path / "puller", token=None)
        output = run_python(PULL_ALL.replace("FOLDER", str(tmp_path / "models")), env=user, timeout=600)
    assert output.count("opened tester/") == len(cases)


def test_a_refused_push_says_how_to_log_in(tiny_model_folder, tmp_path):
    """In one line: without a token, with a wrong one, and with one of another user."""
    with HubStandIn() as hub:
        output = run_python(REFUSED.replace("FOLDER", str(tiny_model_folder)), env=hub.environment(tmp_path))
        assert not hub.repositories
    lines = [line for line in output.splitlines() if line.startswith("geomotiongpt push: error: ")]
    assert all("`hf auth login`" in line and "HF_TOKEN" in line for line in lines)
    missing, wrong, foreign = lines
    assert "tester/missing" in missing and "401" in missing and "Invalid username" in missing
    assert "tester/wrong" in wrong and "401" in wrong and "Invalid credentials" in wrong
    assert "other/name" in foreign and "403" in foreign and "rights" in foreign
