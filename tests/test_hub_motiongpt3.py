"""A MotionGPT3 pushed to the Hub, or saved in a folder, captions and moves where this package is not installed."""

import json

import numpy as np
import pytest
import torch
from hub_stand_in import HubStandIn, run_python
from test_hub import HIDE
from transformers import PreTrainedTokenizerFast

from geomotiongpt import MotionGPT3ForCausalLM, MotionGPT3Processor, MotionVAE, MotionVAEConfig

CAPTION = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
TEXTS = ["a person walks forward", "someone jumps up and down"]

PUSH = """
from geomotiongpt import MotionGPT3ForCausalLM, MotionGPT3Processor

MotionGPT3ForCausalLM.from_pretrained("FOLDER").push_to_hub("tester/moves")
MotionGPT3Processor.from_pretrained("FOLDER").push_to_hub("tester/moves")
"""

PULL = (
    HIDE
    + """
import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForCausalLM, AutoProcessor

folder = Path("FOLDER")
expected = json.loads((folder / "expected.json").read_text())
clips = [np.load(file) for file in expected["files"]]
for source in ("tester/moves", str(folder / "model")):
    processor = AutoProcessor.from_pretrained(source, trust_remote_code=True)
    inputs = processor(motion=clips)
    for auto_class in (AutoModel, AutoModelForCausalLM):
        model = auto_class.from_pretrained(source, trust_remote_code=True)
        assert type(model).__name__ == "MotionGPT3ForCausalLM", type(model)
        assert type(model).__module__.startswith("transformers_modules."), type(model)
        assert model.generate(**inputs, **expected["caption"]).tolist() == expected["ids"]
        options = {"num_frames": [30, 21], "generator": torch.Generator().manual_seed(0), "processor": processor}
        made = model.generate_motion(expected["texts"], **options)
        torch.testing.assert_close(made.latents, torch.tensor(expected["latents"]), rtol=1e-4, atol=1e-4)
        assert made.motion_mask.sum(-1).tolist() == [30, 21]
    alone = {"subfolder": "motion_vae", "trust_remote_code": True}
    motion = AutoFeatureExtractor.from_pretrained(source, **alone)(clips)
    motion_vae = AutoModel.from_pretrained(source, **alone)
    assert type(motion_vae).__name__ == "MotionVAE", type(motion_vae)
    mean = motion_vae.encode(**motion).mean
    torch.testing.assert_close(mean, torch.tensor(expected["means"]), rtol=1e-5, atol=1e-5)
    print("works from", source)
model.save_pretrained(folder / "again")
again = AutoModel.from_pretrained(folder / "again", trust_remote_code=True)
assert again.generate(**inputs, **expected["caption"]).tolist() == expected["ids"]
assert "geomotiongpt" not in sys.modules
"""
)

ALONE = (
    HIDE
    + """
from transformers import AutoModel

model = AutoModel.from_pretrained("FOLDER/model", trust_remote_code=True)
assert model.generate_motion("a person walks", num_frames=10).motion_values.shape == (1, 10, 263)
"""
)

CODE = {
    "configuration_motion_vae.py",
    "configuration_motiongpt3.py",
    "denoising_heads.py",
    "feature_extraction_motion.py",
    "flow_graphs.py",
    "latent_motion_generation.py",
    "mixture_of_transformers.py",
    "modeling_motion_vae.py",
    "modeling_motiongpt3.py",
    "motion_representation.py",
    "processing_motion_language.py",
    "processing_motiongpt3.py",
    "saving.py",
    "strict_loading.py",
    "task_prompts.py",
}
MODEL = {"config.json", "generation_config.json", "model.safetensors", "processor_config.json", "tokenizer.json"}


@pytest.fixture
def folder(tiny_language_model, tiny_feature_extractor, trained_text_tokenizer, clips, tmp_path):
    """A model, its processor, motions, and what they give here."""
    torch.manual_seed(0)
    vae = MotionVAE(MotionVAEConfig(latent_dim=16, num_layers=3, num_heads=2, intermediate_size=24))
    sizes = {"denoising_hidden_size": 24, "denoising_num_layers": 1, "num_denoising_steps": 5}
    model = MotionGPT3ForCausalLM.from_components(tiny_language_model, vae, **sizes).eval()
    with torch.no_grad():
        for weight in (*model.denoising_head.parameters(), model.marker_embedding.weight):
            weight.normal_(std=0.1)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(trained_text_tokenizer)
    processor = MotionGPT3Processor.from_components(tiny_feature_extractor, tokenizer, model.config)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    files = [str(tmp_path / f"clip{index}.npy") for index in range(len(clips))]
    for file, clip in zip(files, clips, strict=True):
        np.save(file, clip)
    inputs = processor(motion=clips)
    generator = torch.Generator().manual_seed(0)
    made = model.generate_motion(TEXTS, num_frames=[30, 21], generator=generator, processor=processor)
    means = model.encode_motion(inputs["motion_values"], inputs["motion_mask"])[:, 0]
    expected = {"files": files, "texts": TEXTS, "caption": CAPTION, "latents": made.latents.tolist()}
    expected |= {"ids": model.generate(**inputs, **CAPTION).tolist(), "means": means.tolist()}
    (tmp_path / "expected.json").write_text(json.dumps(expected))
    return tmp_path


@pytest.mark.slow
def test_pushed_and_saved_models_work_without_the_package(folder):
    with HubStandIn() as hub:
        pusher = hub.environment(folder / "pusher")
        run_python(PUSH.replace("FOLDER", str(folder / "model")), env=pusher, timeout=900)
        pushed = hub.files("tester/moves")
        user = hub.environment(folder / "puller", token=None)
        output = run_python(PULL.replace("FOLDER", str(folder)), env=user, timeout=900)
    assert output.count("works from") == 2
    alone = {f"motion_vae/{name}" for name in ("config.json", "model.safetensors", "preprocessor_config.json")}
    assert pushed.keys() >= MODEL | CODE | alone


@pytest.mark.slow
def test_a_model_finds_the_processor_beside_it_without_the_package(folder):
    with HubStandIn() as hub:
        user = hub.environment(folder / "user", token=None)
        run_python(ALONE.replace("FOLDER", str(folder)), env=user, timeout=900)
