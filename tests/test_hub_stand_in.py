"""The stand-in answers the real clients (huggingface_hub, transformers, datasets) as the Hub does."""

import json
from pathlib import Path

import pytest
from hub_stand_in import HubStandIn, run_python

MODEL = """
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=11, n_positions=16))
tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "walk": 1}, unk_token="[UNK]"))
model.push_to_hub("tester/tiny")
PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").push_to_hub("tester/tiny")

assert AutoTokenizer.from_pretrained("tester/tiny")("walk").input_ids == [1]
loaded = AutoModelForCausalLM.from_pretrained("tester/tiny").state_dict()
assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())
"""

DATASETS = """
import numpy as np
from datasets import Array2D, Dataset, DatasetDict, Features, Value, load_dataset

features = Features({"motion_id": Value("string"), "motion": Array2D((None, 263), "float32")})


def clips(count):
    motion = [np.full((20 + index, 263), index, np.float32) for index in range(count)]
    return Dataset.from_dict({"motion_id": [f"{i:06d}" for i in range(count)], "motion": motion}, features=features)


DatasetDict(train=clips(9), test=clips(2)).push_to_hub("tester/motions")
DatasetDict(train=clips(5), test=clips(2)).push_to_hub("tester/motions")  # replaces the files of the first
loaded = load_dataset("tester/motions")
assert {name: len(split) for name, split in loaded.items()} == {"train": 5, "test": 2}
assert loaded["train"].features == features
motion = loaded["train"].with_format("numpy")[4]["motion"]
assert motion.shape == (24, 263) and (motion == 4).all()
streamed = list(load_dataset("tester/motions", split="test", streaming=True).with_format("numpy"))
assert [item["motion"].shape for item in streamed] == [(20, 263), (21, 263)]
"""

COMMITS = """
import json
from pathlib import Path
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download, upload_folder

api = HfApi()
repo = api.create_repo("notes", private=True).repo_id
first = api.upload_file(path_or_fileobj=b"one", path_in_repo="a/b.txt", repo_id=repo)
again = api.upload_file(path_or_fileobj=b"one", path_in_repo="a/b.txt", repo_id=repo)
assert again.oid == first.oid, "an unchanged file made a commit"
api.create_branch(repo, branch="dev/x")
api.upload_file(path_or_fileobj=b"dev", path_in_repo="a/b.txt", repo_id=repo, revision="dev/x")
folder = Path("folder")
(folder / "deep").mkdir(parents=True)
(folder / "deep" / "weights.bin").write_bytes(bytes(range(256)) * 9)
(folder / "b.txt").write_text("two")
upload_folder(repo_id=repo, folder_path=folder, path_in_repo="a", delete_patterns="*.txt")
card = b"---\\npipeline_tag: text-generation\\n---\\n# Notes"
api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=repo)
snapshot = Path(snapshot_download(repo))
assert (snapshot / "a/deep/weights.bin").read_bytes() == bytes(range(256)) * 9
assert {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()} == {
    "README.md", "a/b.txt", "a/deep/weights.bin"
}
for revision, text in {first.oid: "one", "dev/x": "dev", "main": "two"}.items():
    assert Path(hf_hub_download(repo, "a/b.txt", revision=revision)).read_text() == text
assert [entry.path for entry in api.list_repo_tree(repo, "a")] == ["a/b.txt", "a/deep"]
part = HfFileSystem().cat_file(f"{repo}/a/deep/weights.bin", start=250, end=260)
assert part == bytes([250, 251, 252, 253, 254, 255, 0, 1, 2, 3])
info = api.model_info(repo)
assert info.private and info.pipeline_tag == "text-generation" and info.sha == snapshot.name
[weights] = api.get_paths_info(repo, "a/deep/weights.bin")
assert weights.lfs.size == weights.size == 9 * 256
api.delete_file("a/b.txt", repo)
assert api.list_repo_files(repo) == ["README.md", "a/deep/weights.bin"]
api.delete_folder("a", repo)
print(json.dumps({"user": api.whoami()["name"], "left": api.list_repo_files(repo)}))
"""

CREATE = """
from huggingface_hub import HfApi

for name in ("public", "private"):
    HfApi().create_repo(f"tester/{name}", private=name == "private")
    HfApi().upload_file(path_or_fileobj=b"# Card", path_in_repo="README.md", repo_id=f"tester/{name}")
"""

REFUSALS = """
import json
from huggingface_hub import HfApi, hf_hub_download

api = HfApi()
attempts = {
    "write": lambda: api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="tester/public"),
    "create": lambda: api.create_repo("tester/new"),
    "elsewhere": lambda: api.create_repo("someone/new"),
    "entry": lambda: hf_hub_download("tester/public", "none"),
    "revision": lambda: hf_hub_download("tester/public", "README.md", revision="none"),
    "private": lambda: hf_hub_download("tester/private", "README.md"),
    "repository": lambda: hf_hub_download("tester/none", "README.md"),
    "card": lambda: api.upload_file(
        path_or_fileobj=b"---\\ntags: [\\n---\\n", path_in_repo="README.md", repo_id="tester/public"
    ),
    "delete": lambda: api.delete_file("none", "tester/public"),
    "stale": lambda: api.upload_file(
        path_or_fileobj=b"y", path_in_repo="y", repo_id="tester/public", parent_commit="0" * 40
    ),
}
outcomes = {}
for name, attempt in attempts.items():
    try:
        attempt()
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        outcomes[name] = f"{type(error).__name__} {status}"
print(json.dumps(outcomes))
"""


@pytest.fixture
def hub():
    with HubStandIn() as hub:
        yield hub


def test_pushed_model_and_tokenizer_load_from_the_hub(hub, tmp_path):
    run_python(MODEL, env=hub.environment(tmp_path))
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= hub.files("tester/tiny").keys()
    assert any(request.startswith("200 GET /tester/tiny/resolve/") for request in hub.requests)


def test_dataset_with_variable_length_motion_survives_push_load_and_stream(hub, tmp_path):
    run_python(DATASETS, env=hub.environment(tmp_path))
    assert "data/train-00000-of-00001.parquet" in hub.files("tester/motions", repo_type="dataset")


def test_commits_branches_folders_and_byte_ranges(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = json.loads(run_python(COMMITS, env=hub.environment(tmp_path / "home")))
    assert answer == {"user": hub.user, "left": ["README.md"]}
    assert list(hub.files("tester/notes")) == ["README.md"]


def refusals(hub: HubStandIn, home: Path, token: str | None) -> dict[str, str]:
    run_python(CREATE, env=hub.environment(home))
    return json.loads(run_python(REFUSALS, env=hub.environment(home, token=token)))


def test_owner_gets_the_errors_of_the_hub(hub, tmp_path):
    assert refusals(hub, tmp_path, hub.token) == {
        "elsewhere": "HfHubHTTPError 403",
        "entry": "RemoteEntryNotFoundError 404",
        "revision": "RevisionNotFoundError 404",
        "repository": "RepositoryNotFoundError 404",
        "card": "ValueError None",
        "delete": "RemoteEntryNotFoundError 404",
        "stale": "HfHubHTTPError 412",
    }


@pytest.mark.parametrize(("token", "private"), [(None, "RepositoryNotFoundError"), ("hf_wrong", "HfHubHTTPError")])
def test_without_the_right_token_nothing_is_written_and_nothing_private_read(hub, tmp_path, token, private):
    outcomes = refusals(hub, tmp_path, token)
    assert {outcomes[name] for name in ("write", "create", "delete", "stale")} == {"HfHubHTTPError 401"}
    assert outcomes["private"] == f"{private} 401"
    assert hub.files("tester/public") == {"README.md": b"# Card"}


def test_nothing_reaches_other_hosts(hub, tmp_path):
    code = "from huggingface_hub import get_session; print(get_session().get('http://example.org/x').status_code)"
    assert run_python(code, env=hub.environment(tmp_path)).strip() == "501"
    assert hub.requests == ["501 GET http://example.org/x"]
