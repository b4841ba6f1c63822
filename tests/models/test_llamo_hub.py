"""A LLaMo saved in a folder or pushed to the Hub comes back whole, on every kind of base, also without the package."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_stand_in import HubStandIn, run_python
from test_hub import HIDE
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForCausalLM,
    AutoProcessor,
    PreTrainedTokenizerFast,
)

from geomotiongpt import CausalMotionCodec, LLaMoForCausalLM, LLaMoProcessor, MotionFeatureExtractor

CAPTION = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
TEXTS = ["a person walks forward", "someone jumps up and down"]
CHAT = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
NEAR = {"rtol": 1e-3, "atol": 1e-3}
MESSAGES = [{"role": "user", "content": "how does a person walk?"}]
# A SmolLM is a Llama; three query heads share one key-value head
BASES = {"gpt2": {}, "llama": {}, "qwen3": {}, "smollm": {"num_attention_heads": 3, "num_key_value_heads": 1}}
OF_272 = "llama"  # whose motions are those of MotionStreamer

PUSH = """
from pathlib import Path

from geomotiongpt import LLaMoForCausalLM, LLaMoProcessor
from geomotiongpt.cli import main

for folder in sorted(Path("FOLDER").iterdir()):
    repo = f"tester/{folder.name}"
    if folder.name == "gpt2":
        assert main(["push", str(folder), repo]) == 0
        continue
    shards = {"max_shard_size": "100KB"} if folder.name == "qwen3" else {}
    LLaMoForCausalLM.from_pretrained(folder).push_to_hub(repo, **shards)
    LLaMoProcessor.from_pretrained(folder).push_to_hub(repo)
model = LLaMoForCausalLM.from_pretrained(Path("FOLDER") / "gpt2")
model.save_pretrained("SAVED", push_to_hub=True, repo_id="tester/on-saving")
"""

PULL = (
    HIDE
    + """
import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForCausalLM, AutoProcessor, pipeline

remote = {"trust_remote_code": True}
for folder in sorted(Path("FOLDER").iterdir()):
    repo, expected = f"tester/{folder.name}", json.loads((folder / "expected.json").read_text())
    clips = [np.load(folder / name) for name in expected["files"]]
    processor = AutoProcessor.from_pretrained(repo, **remote)
    inputs = processor(motion=clips)
    for auto_class in (AutoModel, AutoModelForCausalLM):
        model = auto_class.from_pretrained(repo, **remote)
        assert type(model).__name__ == "LLaMoForCausalLM", type(model)
        assert type(model).__module__.startswith("transformers_modules."), type(model)
        assert model.generate(**inputs, **expected["caption"]).tolist() == expected["ids"]
    options = {"num_frames": [30, 21], "generator": torch.Generator().manual_seed(0), "guidance_scale": 1}
    made = model.generate_motion(expected["texts"], **options)
    torch.testing.assert_close(made.latents, torch.tensor(expected["latents"]), rtol=1e-3, atol=1e-3)
    pieces = model.stream_motion(expected["texts"][0], num_frames=30, generator=torch.Generator().manual_seed(0))
    assert torch.cat(list(pieces)).shape == made.motion_values[0].shape
    alone = {"subfolder": "motion_codec", **remote}
    motion = AutoFeatureExtractor.from_pretrained(repo, **alone)(clips)
    codec = AutoModel.from_pretrained(repo, **alone)
    assert type(codec).__name__ == "CausalMotionCodec", type(codec)
    latents = codec.encode(**motion).latents
    torch.testing.assert_close(latents, torch.tensor(expected["encoded"]), rtol=1e-4, atol=1e-4)
    said = processor.tokenizer.apply_chat_template(expected["messages"], tokenize=False) if expected["chat"] else None
    assert said == expected["chat"]
    print("works from", repo)
files = [str(folder / name) for name in expected["files"]]
describe = pipeline("motion-to-text", model=repo, **remote)
said = processor.post_process_text(torch.tensor(expected["ids"]), inputs["input_ids"].shape[1])
assert [result["generated_text"] for result in describe(files, **expected["caption"])] == said
make = pipeline("text-to-motion", model=repo, **remote)
assert make(expected["texts"][0], num_frames=30, seed=0)["joints"].shape == (30, 22, 3)
model.save_pretrained(folder / "again")
again = AutoModel.from_pretrained(folder / "again", **remote)
assert again.generate(**inputs, **expected["caption"]).tolist() == expected["ids"]
codec = AutoModel.from_pretrained(folder / "again" / "motion_codec", **remote)
torch.testing.assert_close(codec.encode(**motion).latents, torch.tensor(expected["encoded"]), rtol=1e-4, atol=1e-4)
assert "geomotiongpt" not in sys.modules
"""
)

CODE = {
    "autoregressive_motion_generation.py",
    "configuration_causal_motion_codec.py",
    "configuration_llamo.py",
    "continuous_motion_model.py",
    "denoising_heads.py",
    "mixture_of_transformers.py",
    "modeling_causal_motion_codec.py",
    "modeling_llamo.py",
    "pipeline_motion_to_text.py",
    "pipeline_text_to_motion.py",
    "processing_llamo.py",
    "streaming_representation.py",
}
MODEL = {"config.json", "generation_config.json", "model.safetensors", "processor_config.json", "tokenizer.json"}
ALONE = {f"motion_codec/{name}" for name in ("config.json", "model.safetensors", "preprocessor_config.json")}


@pytest.fixture(scope="module")
def save(make_llamo, make_motion_codec, make_text_base, llamo_feature_extractor, trained_text_tokenizer):
    """Saves a model on a kind of base into a folder, with its processor."""

    def save(name: str, folder: Path, **options) -> tuple[LLaMoForCausalLM, LLaMoProcessor]:
        base = make_text_base("llama" if name == "smollm" else name, **BASES[name])
        extractor, codec = llamo_feature_extractor, make_motion_codec()
        if name == OF_272:
            rng = np.random.default_rng(0)
            statistics = rng.normal(size=272), rng.uniform(0.5, 2, size=272)
            extractor, codec = (
                MotionFeatureExtractor("streaming272", *statistics, 4),
                make_motion_codec(num_features=272),
            )
        model = make_llamo(base=base, codec=codec)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(trained_text_tokenizer)
        if name == "qwen3":
            tokenizer.chat_template = CHAT
        processor = LLaMoProcessor.from_components(extractor, tokenizer, model.config)
        model.save_pretrained(folder, **options)
        processor.save_pretrained(folder)
        return model, processor

    return save


def make_clips(processor: LLaMoProcessor) -> list[np.ndarray]:
    """Of 40 and 17 frames."""
    rng, width = np.random.default_rng(1), processor.feature_extractor.feature_size
    return [rng.normal(size=(frames, width)).astype(np.float32) for frames in (40, 17)]


def make_latents(model: LLaMoForCausalLM, **options) -> torch.Tensor:
    """Without guidance, which makes much of rounding."""
    options |= {"generator": torch.Generator().manual_seed(0), "guidance_scale": 1}
    return model.generate_motion(TEXTS, num_frames=[30, 21], **options).latents


@pytest.mark.parametrize(("name", "shards"), [*((name, 1) for name in BASES), ("qwen3", 3)])
def test_a_folder_gives_back_the_model_the_processor_and_the_codec(save, tmp_path, name, shards):
    """By the Auto classes, from one file of weights or several, and from safetensors alone."""
    model, processor = save(name, tmp_path, **({} if shards == 1 else {"max_shard_size": "150KB"}))
    weights = sorted(tmp_path.glob("*.safetensors"))
    assert len(weights) == 1 if shards == 1 else len(weights) >= shards
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")]
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is LLaMoProcessor
    inputs, reread = (part(motion=make_clips(processor)) for part in (processor, again))
    assert inputs.keys() == reread.keys() and all(torch.equal(inputs[key], reread[key]) for key in inputs)
    for kind in (AutoModel, AutoModelForCausalLM):
        loaded = kind.from_pretrained(tmp_path)
        assert type(loaded) is LLaMoForCausalLM
        assert torch.equal(loaded.generate(**inputs, **CAPTION), model.generate(**inputs, **CAPTION))
        torch.testing.assert_close(make_latents(loaded), make_latents(model, processor=processor), **NEAR)
    codec = AutoModel.from_pretrained(tmp_path / "motion_codec")
    assert type(codec) is CausalMotionCodec
    motion = AutoFeatureExtractor.from_pretrained(tmp_path / "motion_codec")(make_clips(processor))
    assert torch.equal(codec.encode(**motion).latents, model.encode_motion(**motion))


def test_a_chat_template_stays_with_the_tokenizer(save, tmp_path):
    _, processor = save("qwen3", tmp_path / "first")
    said = processor.tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    assert said == "user: how does a person walk?\n"
    again = AutoProcessor.from_pretrained(tmp_path / "first")
    again.save_pretrained(tmp_path / "second")
    twice = AutoProcessor.from_pretrained(tmp_path / "second")
    for loaded in (again, twice):
        assert loaded.tokenizer.apply_chat_template(MESSAGES, tokenize=False) == said


def test_captions_are_not_guided_by_what_guides_motion(save, tmp_path):
    model, processor = save("gpt2", tmp_path)
    assert model.config.denoising_guidance_scale == 4
    inputs = processor(motion=make_clips(processor)[0])
    motion, ids = {name: inputs[name] for name in ("motion_values", "motion_mask")}, inputs["input_ids"]
    for _ in range(CAPTION["max_new_tokens"]):
        scores = model(ids, **motion).logits[:, -1, : model.config.text_vocab_size]
        scores[:, processor.tokenizer.eos_token_id] = -torch.inf
        ids = torch.cat([ids, scores.argmax(-1, keepdim=True)], dim=1)
    for loaded in (model, LLaMoForCausalLM.from_pretrained(tmp_path)):
        assert torch.equal(loaded.generate(**inputs, **CAPTION), ids)
    said = "guidance_scale is {}, but only motion is guided here, by `generate_motion`"
    with pytest.raises(ValueError, match=said.format("2")):
        model.generate(**inputs, **CAPTION, guidance_scale=2)
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    (tmp_path / "generation_config.json").write_text(json.dumps({**generation, "guidance_scale": 4.0}))
    with pytest.raises(ValueError, match=said.format("4.0")):
        LLaMoForCausalLM.from_pretrained(tmp_path).generate(**inputs, **CAPTION)


@pytest.fixture
def folder(save, tmp_path) -> Path:
    """A folder of models on every base, each with motions and what they give here."""
    for name in BASES:
        folder = tmp_path / "models" / name
        model, processor = save(name, folder)
        clips = make_clips(processor)
        files = [f"clip{index}.npy" for index in range(len(clips))]
        for file, clip in zip(files, clips, strict=True):
            np.save(folder / file, clip)
        inputs = processor(motion=clips)
        encoded = model.encode_motion(inputs["motion_values"], inputs["motion_mask"])
        tokenizer = processor.tokenizer
        expected = {
            "files": files,
            "texts": TEXTS,
            "caption": CAPTION,
            "ids": model.generate(**inputs, **CAPTION).tolist(),
            "latents": make_latents(model, processor=processor).tolist(),
            "encoded": encoded.tolist(),
            "messages": MESSAGES,
            "chat": tokenizer.apply_chat_template(MESSAGES, tokenize=False) if tokenizer.chat_template else None,
        }
        (folder / "expected.json").write_text(json.dumps(expected))
    return tmp_path


@pytest.mark.slow
def test_pushed_models_work_without_the_package(folder):
    """Pushed by method, in shards, by the command and on saving."""
    with HubStandIn() as hub:
        push = PUSH.replace("FOLDER", str(folder / "models")).replace("SAVED", str(folder / "saved"))
        run_python(push, env=hub.environment(folder / "pusher"), timeout=900)
        pushed = {name: hub.files(f"tester/{name}") for name in (*BASES, "on-saving")}
        user = hub.environment(folder / "puller", token=None)
        output = run_python(PULL.replace("FOLDER", str(folder / "models")), env=user, timeout=900)
    assert output.count("works from") == len(BASES)
    for name in ("gpt2", "llama", "smollm"):
        assert pushed[name].keys() >= MODEL | CODE | ALONE
    assert "model.safetensors.index.json" in pushed["qwen3"] and pushed["qwen3"].keys() >= CODE | ALONE
    assert pushed["on-saving"].keys() >= {"motion_codec/model.safetensors", "model.safetensors"} | CODE
    for files in pushed.values():
        assert not [file for file in files if file.endswith((".bin", ".pt", ".pkl"))]
