"""Motion datasets pushed to and loaded from the Hub, over HTTP to a stand-in."""

from hub_stand_in import HubStandIn, run_python

PUSH = """
import sys
from pathlib import Path
import numpy as np
from geomotiongpt.data.loader import load_motion_dataset, load_motion_statistics, push_motion_dataset

folder = Path("FOLDER")
for name in ("new_joint_vecs", "texts"):
    (folder / name).mkdir(parents=True)
for index, name in enumerate(("a", "Ma", "b")):
    np.save(folder / f"new_joint_vecs/{name}.npy", np.full((30 + index, 263), index, np.float32))
    (folder / f"texts/{name}.txt").write_text("walks#walk/VERB#0.0#0.0\\nstops#stop/VERB#0.5#1.0\\n")
(folder / "train.txt").write_text("a\\nMa\\n")
(folder / "test.txt").write_text("b\\n")
np.save(folder / "Mean.npy", np.arange(263, dtype=np.float32))
np.save(folder / "Std.npy", np.ones(263, np.float32))
mean, std = load_motion_statistics(folder)
motions = load_motion_dataset(folder)
try:
    push_motion_dataset(motions, "tester/motions", mean=mean[:5], std=std)
except ValueError as error:
    assert "Mean.npy: shape (5,), wanted (263,)" in str(error)
else:
    raise AssertionError("statistics of the wrong width were pushed")
push_motion_dataset(motions, "tester/motions", mean=mean, std=std)
"""

PULL = """
import numpy as np
from geomotiongpt.data.loader import load_motion_dataset, load_motion_statistics, motion_dataset_summary

motions = load_motion_dataset("tester/motions", min_frames=20, mirrored=False)
assert {name: split["motion_id"][:] for name, split in motions.items()} == {"train": ["a"], "test": ["b"]}
assert motions["test"][0]["captions"] == ["walks"]
motion = motions["test"][0]["motion"]
assert motion.shape == (32, 263) and motion.dtype == np.float32 and (motion == 2).all()
left_out = motion_dataset_summary(motions["train"]).left_out
assert left_out == {"shorter than 20 frames": ["a#10-20 (10)"], "mirrored": ["Ma", "Ma#10-20"]}, left_out
assert len(load_motion_dataset("tester/motions", "test")) == 2
mean, std = load_motion_statistics("tester/motions")
assert mean[262] == 262 and (std == 1).all()
for call in (load_motion_dataset, load_motion_statistics):
    try:
        call("tester/unknown")
    except OSError as error:
        assert "tester/unknown" in str(error)
    else:
        raise AssertionError("a repository that does not exist was loaded")
"""


def test_motions_and_statistics_survive_push_and_pull(tmp_path):
    with HubStandIn() as hub:
        run_python(PUSH.replace("FOLDER", str(tmp_path / "motions")), env=hub.environment(tmp_path / "first"))
        files = hub.files("tester/motions", repo_type="dataset")
        assert {"Mean.npy", "Std.npy", "data/train-00000-of-00001.parquet"} <= files.keys()
        run_python(PULL, env=hub.environment(tmp_path / "second"))
