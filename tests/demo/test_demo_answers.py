"""What the demo answers: captions of files of every kind, motions of texts, within limits, without folders of ours."""

import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rigs import make_rig
from transformers import pipeline

import geomotiongpt as gm
from geomotiongpt.demo import Limits
from geomotiongpt.demo.answers import DOWNLOADS, Made, MotionDemo


@pytest.fixture(scope="module")
def demo(tiny_model_folder, tmp_path_factory) -> MotionDemo:
    limits = Limits(upload_megabytes=1, seconds=30, characters=60, made_seconds=3)
    return MotionDemo(tiny_model_folder, tmp_path_factory.mktemp("demo") / "work", device="cpu", limits=limits)


@pytest.fixture
def rig_file(tmp_path) -> Path:
    """A rig of three seconds."""
    return gm.write_bvh(make_rig("mixamo", 90), tmp_path / "walk.bvh")


def test_files_of_any_kind_get_the_caption_of_the_pipeline(demo, tiny_model_folder, rig_file, clips, tmp_path):
    joints = gm.import_motion(rig_file).joints
    np.save(tmp_path / "features.npy", clips[0])
    np.save(tmp_path / "joints.npy", joints)
    np.savez(tmp_path / "joints.npz", joints=joints, fps=20)
    describe = pipeline("motion-to-text", model=str(tiny_model_folder))
    of_joints, of_features = (result["generated_text"] for result in describe([joints, clips[0]]))
    for name in ("walk.bvh", "joints.npy", "joints.npz"):
        answer = demo.describe([tmp_path / name])
        assert answer.caption == of_joints and f'<h1 id="title" dir="auto">{name}</h1>' in answer.page
        assert f"file            {name} (" in answer.report and "left_hip" in answer.report
    assert demo.describe([tmp_path / "features.npy"]).caption == of_features != of_joints


def test_real_amc_with_its_skeleton_is_captioned(demo, real_data):
    samples = real_data / "mocap_samples"
    answer = demo.describe([samples / "walk.asf", samples / "walk_03.amc"])
    assert answer.caption and "walk_03.amc" in answer.report and str(samples) not in answer.report


def test_the_page_shows_the_motion_tokens(demo, rig_file, tiny_model, tiny_processor):
    inputs = tiny_processor.feature_extractor(gm.import_motion(rig_file).joints)
    codes = tiny_model.motion_tokenizer.encode(**inputs).motion_codes[0].tolist()
    assert f'"codes":{codes}'.replace(" ", "") in demo.describe([rig_file]).page


def test_samples_are_read_like_files(demo):
    assert len(demo.samples) >= 4
    for name, path in demo.samples.items():
        answer = demo.describe([path])
        assert f"file            {name}.npz (joints in an .npz file)" in answer.report and answer.warnings == ()


def test_a_motion_longer_than_training_is_captioned_part_by_part(demo, clips, tmp_path):
    np.save(tmp_path / "long.npy", np.concatenate([*clips] * 4))
    lines = demo.describe([tmp_path / "long.npy"]).caption.splitlines()
    assert len(lines) > 1 and lines[0].startswith("0.0 - ") and " - 24.6 s: " in lines[-1]


def test_what_is_probably_wrong_is_warned_of(demo, rig_file):
    text = rig_file.read_text()
    rig_file.write_text(text.replace("Left", "Other").replace("Right", "Left").replace("Other", "Right"))
    (warning,) = demo.describe([rig_file]).warnings
    assert warning.startswith("the body is mirrored")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "nothing holds no motion; give a .bvh"),
        (["walk.bvh", "other.bvh"], "walk.bvh, other.bvh: give one motion at a time"),
        (["walk.asf"], "walk.asf holds no motion"),
        (["walk.amc"], "walk.amc: an .amc file has no skeleton in it; give its .asf file too"),
        (["walk.bvh", "walk.asf"], "walk.asf is of no use for walk.bvh"),
        (["walk.amc", "walk.asf"], "walk.asf: there is no section :root"),
        (["broken.bvh"], "broken.bvh: it declares 90 frames"),
        (["gone.bvh"], "gone.bvh: no such motion file"),
        (["walk.pkl"], "walk.pkl is a pickle, which may run code and is never opened"),
        (["pickled.npy"], "pickled.npy"),
        (["pickled.npz"], "pickled.npz"),
        (["walk.fbx"], "walk.fbx: .fbx ending; wanted one of .bvh"),
        (["empty.npy"], "empty.npy"),
        (["wide.npy"], "wide.npy has shape (40, 7)"),
        (["nan.npy"], "nan.npy has a NaN or infinite value, first in frame 3"),
        (["long.npy"], "long.npy: lasts 35.0 s; wanted at most 30 s: cut it"),
        (["slow.npz"], "slow.npz: lasts 8"),
        (["large.npy"], "large.npy is larger than 1 MB"),
        (["bomb.npz"], "bomb.npz"),
    ],
)
def test_what_cannot_be_captioned_is_one_line_without_a_folder(names, message, demo, rig_file, tmp_path):
    lines = rig_file.read_text().splitlines(keepends=True)
    (tmp_path / "broken.bvh").write_text("".join(lines[:-5]))
    for name in ("walk.asf", "walk.amc", "walk.pkl", "walk.fbx", "other.bvh"):
        (tmp_path / name).write_text("1\nhips 1 2 3")
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "pickled.npz", joints=np.array([{"a": 1}], dtype=object))
    (tmp_path / "empty.npy").write_bytes(b"")
    np.save(tmp_path / "wide.npy", np.zeros((40, 7), np.float32))
    np.save(tmp_path / "nan.npy", np.where(np.arange(40)[:, None] == 3, np.nan, np.zeros((40, 263), np.float32)))
    np.save(tmp_path / "long.npy", np.zeros((700, 263), np.float32))
    np.savez(tmp_path / "slow.npz", joints=gm.import_motion(rig_file).joints[:45], fps=0.5)
    np.save(tmp_path / "large.npy", np.zeros((1100, 263), np.float32))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("joints.npy", b"0" * 50_000_000)
    with pytest.raises((ValueError, FileNotFoundError)) as failure:
        demo.describe([tmp_path / name for name in names])
    told = str(failure.value)
    assert message in told and str(tmp_path) not in told and "\n" not in told and len(told) < 700


def test_a_motion_is_made_and_can_be_downloaded_in_every_format(demo):
    made = demo.make("  a person walks <b>forward</b>. ", 2, 5)
    assert "a person walks &lt;b&gt;forward&lt;/b&gt;." in made.page and "<b>" not in made.page
    bvh, glb, npz, gif = (demo.write(made, kind) for kind in DOWNLOADS)
    assert {path.stem for path in (bvh, glb, npz, gif)} == {"a-person-walks-b-forward-b"}
    assert gm.read_bvh(bvh).joint_positions().shape[0] == 40
    assert glb.read_bytes()[:4] == b"glTF"
    assert np.array_equal(np.load(npz, allow_pickle=False)["features"], made.motion)
    with Image.open(gif) as image:
        assert image.n_frames > 5
    with pytest.raises(ValueError, match="the format is '../x'; choose one of bvh, glb, npz, gif"):
        demo.write(made, "../x")


@pytest.mark.parametrize("text", ["\u6b69\u304f", "../../etc/passwd", "...", "a" * 60])
def test_the_name_of_a_download_is_plain(text, demo):
    path = demo.write(Made(text, np.zeros((8, 263), np.float32), ""), "bvh")
    assert path.parents[1] == demo.folder and re.fullmatch(r"[a-z-]{1,40}\.bvh", path.name)


def test_a_seed_makes_the_same_motion_and_another_another(demo):
    first, again, other = (demo.make("jumps", 2, seed).motion for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("text", "seconds", "seed", "message"),
    [
        (" \n", 2, 0, "say what the motion is to show"),
        (None, 2, 0, "say what the motion is to show"),
        ("x" * 61, 2, 0, "the text has 61 characters; it may have 60"),
        ("walks", 3.5, 0, "the length is 3.5 s; ask for 0.4 to 3 s"),
        ("walks", 0.1, 0, "the length is 0.1 s"),
        ("walks", float("nan"), 0, "the length is nan s"),
        ("walks", None, 0, "the length is None s"),
        ("walks", "2", 0, "the length is 2 s"),
        ("walks", 2, -1, "the seed is -1"),
        ("walks", 2, 2**32, "the seed is 4294967296"),
        ("walks", 2, 1.5, "the seed is 1.5"),
        ("walks", 2, None, "the seed is None"),
    ],
)
def test_what_cannot_be_made_is_said(text, seconds, seed, message, demo):
    with pytest.raises(ValueError, match=re.escape(message)):
        demo.make(text, seconds, seed)


def test_no_file_is_left_but_those_to_download(demo):
    before = set(demo.folder.iterdir())
    demo.describe([demo.samples["walk"]])
    path = demo.write(demo.make("walks", 1, 0), "bvh")
    assert set(demo.folder.iterdir()) - before == {path.parent}


def test_a_request_that_ends_after_the_demo_leaves_nothing(tiny_model_folder, tmp_path):
    demo = MotionDemo(tiny_model_folder, tmp_path / "demo" / "work", device="cpu")
    shutil.rmtree(tmp_path / "demo")
    with pytest.raises(FileNotFoundError):
        demo.make("walks", 1, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_limits_are_positive(value):
    with pytest.raises(ValueError, match=f"seconds is {value}"):
        Limits(seconds=value)
