"""The evaluator networks: published numbers, embeddings that are a motion's own, words, saving, remote code."""

import copy
import json

import numpy as np
import pytest
import torch
from hub_stand_in import run_python
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor

from geomotiongpt import (
    MotionFeatureExtractor,
    MotionTextEvaluator,
    MotionTextEvaluatorConfig,
    MotionTextEvaluatorProcessor,
)
from geomotiongpt.models.modeling_motion_text_evaluator import info_nce
from geomotiongpt.models.processing_motion_text_evaluator import POS_TAGS
from geomotiongpt.models.word_vectors import WordTable, hashed_word_vector

EXACT = {"rtol": 0, "atol": 1e-5}
SIZES = {
    "movement_hidden_size": 24,
    "movement_size": 20,
    "motion_hidden_size": 16,
    "text_hidden_size": 12,
    "embedding_size": 8,
}
CAPTIONS = ["a person walks forward", "someone jumps, then waves with the left hand twice", ""]


@pytest.fixture(scope="module")
def evaluator() -> MotionTextEvaluator:
    torch.manual_seed(0)
    model = MotionTextEvaluator(MotionTextEvaluatorConfig(**SIZES, max_frames=80))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    return model.eval()


@pytest.fixture(scope="module")
def processor(tiny_feature_extractor) -> MotionTextEvaluatorProcessor:
    return MotionTextEvaluatorProcessor(four_frame_extractor(tiny_feature_extractor))


def four_frame_extractor(extractor: MotionFeatureExtractor) -> MotionFeatureExtractor:
    return MotionFeatureExtractor("humanml3d", extractor.mean, extractor.std, 4)


def word_table(*words: str) -> WordTable:
    words = ("sos", "eos", "unk", *words)
    return WordTable(list(words), np.random.default_rng(0).normal(size=(len(words), 300)))


# Published numbers


@pytest.fixture(scope="module")
def parity(real_data):
    return load_file(real_data / "reference" / "parity" / "t2m_evaluator.safetensors")


@pytest.fixture(scope="module")
def published(parity) -> MotionTextEvaluator:
    sizes = zip(SIZES, (48, 40, 64, 36, 28), strict=True)
    model = MotionTextEvaluator(MotionTextEvaluatorConfig(**dict(sizes)))
    weights = {key.removeprefix("weights."): value for key, value in parity.items() if key.startswith("weights.")}
    model.load_state_dict(weights)
    return model.eval()


def motion_mask(parity) -> torch.Tensor:
    return torch.arange(196) < parity["inputs.motion_lengths"].unsqueeze(-1)


@torch.no_grad()
def test_motion_embeddings_are_the_published_ones(published, parity):
    motions = parity["inputs.motions"]
    codes = published.movement_encoder(motions[..., :-4])
    torch.testing.assert_close(codes, parity["outputs.movement_codes"], **EXACT)
    embeddings = published.get_motion_features(motions, motion_mask(parity))
    torch.testing.assert_close(embeddings, parity["outputs.motion_embeddings"], **EXACT)
    unpacked = parity["outputs.variant.motiongpt3_unpacked.motion_embeddings"]
    assert (embeddings - unpacked).abs().max() > 0.1, "a motion is read to its own length"


@torch.no_grad()
def test_text_embeddings_are_the_published_ones(published, parity):
    mask = torch.arange(22) < parity["inputs.caption_lengths"].unsqueeze(-1)
    embeddings = published.get_text_features(parity["inputs.word_embeddings"], parity["inputs.pos_one_hots"], mask)
    torch.testing.assert_close(embeddings, parity["outputs.text_embeddings"], **EXACT)


@torch.no_grad()
def test_order_and_padding_of_a_published_batch_do_not_matter(published, parity):
    order, mask = torch.tensor([2, 0, 3, 1]), motion_mask(parity)
    shuffled = published.get_motion_features(parity["inputs.motions"][order], mask[order])
    torch.testing.assert_close(shuffled, parity["outputs.motion_embeddings"][order], **EXACT)
    for row, length in enumerate(parity["inputs.motion_lengths"].tolist()):
        alone = published.get_motion_features(parity["inputs.motions"][row : row + 1, :length])
        torch.testing.assert_close(alone[0], parity["outputs.motion_embeddings"][row], **EXACT)


def test_full_sizes_are_the_published_ones(real_data):
    reference = json.loads((real_data / "reference/parity/published_state_dicts.json").read_text())["t2m_evaluator"]
    with torch.device("meta"):
        model, kit = (MotionTextEvaluator(MotionTextEvaluatorConfig(num_features=width)) for width in (263, 251))
    shapes = {name: list(weight.shape) for name, weight in model.state_dict().items()}
    assert shapes == reference["keys"]
    for name, count in reference["parameters"].items():
        assert sum(parameter.numel() for parameter in model.get_submodule(name).parameters()) == count
    assert kit.movement_encoder.main[0].weight.shape == (512, 247, 4)


# A motion's own embedding


@torch.no_grad()
def test_a_motion_has_one_embedding_alone_in_a_batch_and_after_garbage(evaluator, processor, clips):
    inputs = processor(clips)
    batch = evaluator.get_motion_features(**inputs)
    assert batch.shape == (3, 8) and (batch[0] - batch[1]).abs().max() > 1e-3
    garbage = torch.where(inputs["motion_mask"].unsqueeze(-1), inputs["motion_values"], torch.nan)
    torch.testing.assert_close(evaluator.get_motion_features(garbage, inputs["motion_mask"]), batch, **EXACT)
    for row, clip in enumerate(clips):
        torch.testing.assert_close(evaluator.get_motion_features(**processor(clip))[0], batch[row], **EXACT)


@torch.no_grad()
@pytest.mark.parametrize("frames", [72, 76, 80])
def test_padding_only_as_far_as_needed_equals_padding_to_max_frames(evaluator, processor, frames):
    values = processor(np.random.default_rng(2).normal(size=(frames, 263)))["motion_values"]
    padded = torch.nn.functional.pad(values[..., :-4], (0, 0, 0, 80 - frames))
    codes = evaluator.movement_encoder(padded)
    expected = evaluator.motion_encoder(codes, torch.tensor([frames // 4]))
    torch.testing.assert_close(evaluator.get_motion_features(values), expected, **EXACT)


@torch.no_grad()
def test_contacts_and_frames_that_fill_no_code_do_not_matter(evaluator, processor, clips):
    values = processor(clips[2])["motion_values"]
    embedding = evaluator.get_motion_features(values)
    changed = values.clone()
    changed[..., -4:] += 5
    changed[:, 64:] += 5
    torch.testing.assert_close(evaluator.get_motion_features(changed), embedding, **EXACT)
    changed[:, 63] += 5
    assert (evaluator.get_motion_features(changed) - embedding).abs().max() > 1e-3


@torch.no_grad()
def test_a_caption_has_one_embedding_alone_and_in_a_batch(evaluator, processor):
    inputs = processor(text=CAPTIONS)
    batch = evaluator.get_text_features(**inputs)
    garbage = torch.where(inputs["text_mask"].unsqueeze(-1), inputs["word_embeddings"], 7.0)
    again = evaluator.get_text_features(garbage, inputs["pos_one_hots"], inputs["text_mask"])
    torch.testing.assert_close(again, batch, **EXACT)
    for row, caption in enumerate(CAPTIONS):
        torch.testing.assert_close(evaluator.get_text_features(**processor(text=caption))[0], batch[row], **EXACT)


def test_unusable_inputs_are_named(evaluator):
    values, mask = torch.zeros(2, 90, 263), torch.ones(2, 90, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"row 0 of motion_values has 88 frames; .* 4 to 80 \(config.max_frames\)"):
        evaluator.get_motion_features(values)
    assert evaluator.get_motion_features(values[:, :83]).shape == (2, 8), "83 frames are 20 codes"
    with pytest.raises(ValueError, match="this evaluator takes .batch, frames, 263.*representation"):
        evaluator.get_motion_features(values[..., :251])
    with pytest.raises(ValueError, match=r"motion_mask has shape \(2, 90\); wanted \(2, 60\)"):
        evaluator.get_motion_features(values[:, :60], mask)
    mask[1, :40] = False
    with pytest.raises(ValueError, match="row 1 of motion_mask is padded on the left"):
        evaluator.get_motion_features(values, mask)
    with pytest.raises(ValueError, match="row 0 of word_embeddings has no words"):
        evaluator.get_text_features(torch.zeros(1, 3, 300), torch.zeros(1, 3, 15), torch.zeros(1, 3).bool())
    with pytest.raises(ValueError, match="max_frames is 198; it must be a multiple of 4"):
        MotionTextEvaluatorConfig(max_frames=198)


# The loss


def test_loss_is_the_one_of_the_recipe(processor, clips):
    torch.manual_seed(0)
    model = MotionTextEvaluator(MotionTextEvaluatorConfig(**SIZES, reconstruction_weight=0.5)).eval()
    output = model(**processor(clips, CAPTIONS))
    distances = torch.cdist(output.text_embeds, output.motion_embeds) ** 2
    logits = -distances / (2 * 8**0.5)
    contrastive = -(logits.log_softmax(0).diag() + logits.log_softmax(1).diag()).mean() / 2
    torch.testing.assert_close(output.contrastive_loss, contrastive, rtol=1e-4, atol=1e-5)
    inputs = processor(clips)
    errors = []
    for row, frames in enumerate((40, 16, 64)):
        motion = inputs["motion_values"][row : row + 1, :frames, :-4]
        padded = torch.nn.functional.pad(motion, (0, 0, 0, 68 - frames))
        errors.append((model.movement_decoder(model.movement_encoder(padded))[:, :frames] - motion).abs().flatten())
    torch.testing.assert_close(output.reconstruction_loss, torch.cat(errors).mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.loss, output.contrastive_loss + 0.5 * output.reconstruction_loss)
    output.loss.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without


def test_pairs_of_one_meaning_are_no_negatives():
    logits = torch.tensor([[2.0, 3.0, 0.0], [3.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
    same = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    # Without each other, the first two have one negative.
    expected = (2 * np.log(1 + np.exp(-2)) + np.log(np.exp(1) + 2) - 1) / 3
    assert info_nce(logits, same).item() == pytest.approx(expected, abs=1e-6)
    assert info_nce(logits).item() > expected + 0.3


# Words


def test_hashed_vectors_are_the_same_in_every_process():
    vector = hashed_word_vector("walk")
    np.testing.assert_allclose(vector[:4], HASHED_WALK, atol=1e-7)
    assert vector.dtype == np.float32 and abs(vector.std() - 1) < 0.1
    other = hashed_word_vector("walks")
    assert abs(np.corrcoef(vector, other)[0, 1]) < 0.2


HASHED_WALK = [-0.8607521, 0.4534522, 0.2578851, 1.4932791]


def test_captions_become_words_between_sos_and_eos(processor):
    inputs = processor(text=["A person Jumps, quickly!", "counter-clockwise"], return_tensors="np")
    assert inputs["text_mask"].sum(-1).tolist() == [6, 3]
    words = ["sos", "a", "person", "jumps", "quickly", "eos"]
    np.testing.assert_array_equal(inputs["word_embeddings"][0], [hashed_word_vector(word) for word in words])
    tags = [POS_TAGS[index] for index in inputs["pos_one_hots"][0].argmax(-1)]
    assert tags == ["OTHER", "OTHER", "OTHER", "OTHER", "Desc_VIP", "OTHER"]
    np.testing.assert_array_equal(inputs["word_embeddings"][1, 1], hashed_word_vector("counterclockwise"))
    assert inputs["pos_one_hots"][1, 1].argmax() == POS_TAGS.index("Loc_VIP")
    assert not inputs["pos_one_hots"][1, 3:].any() and not inputs["word_embeddings"][1, 3:].any()


def test_tagged_words_are_read_as_published(tiny_feature_extractor):
    table = word_table("walk", "man", "slow", "a")
    processor = MotionTextEvaluatorProcessor(four_frame_extractor(tiny_feature_extractor), table, tagged=True)
    tokens = ["a/DET", "man/NOUN", "walk/VERB", "gingerly/ADV", "slow/ADJ", "man/X"]
    inputs = processor(text="unread", tokens=[tokens], return_tensors="np")
    wanted = ["sos", "a", "man", "walk", "unk", "slow", "man", "eos"]
    np.testing.assert_array_equal(inputs["word_embeddings"][0], [table[word] for word in wanted])
    tags = [POS_TAGS[index] for index in inputs["pos_one_hots"][0].argmax(-1)]
    # A class of its own wins over the part of speech; unknown words and unknown tags are OTHER.
    assert tags == ["OTHER", "DET", "NOUN", "Act_VIP", "OTHER", "Desc_VIP", "OTHER", "OTHER"]
    untagged = processor(text=["a man"], tokens=[[]], return_tensors="np")
    assert untagged["text_mask"].sum() == 4 and untagged["pos_one_hots"][0, 2].argmax() == POS_TAGS.index("OTHER")
    with pytest.raises(ValueError, match="'walk' is no tagged word; wanted 'word/POS'"):
        processor(text="walk", tokens=[["walk"]])
    with pytest.raises(ValueError, match="tokens of 1 captions for 2"):
        processor(text=["a", "b"], tokens=[tokens])


def test_long_captions_are_read_to_the_published_length(processor):
    mask = processor(text=" ".join(["walk"] * 30))["text_mask"]
    assert mask.shape == (1, 22)


def test_a_processor_that_reads_no_tags_treats_references_and_predictions_alike(processor):
    with_tags = processor(text="he walks", tokens=[["he/PRON", "walk/VERB"]])
    assert torch.equal(with_tags["word_embeddings"], processor(text="he walks")["word_embeddings"])


def test_statistics_are_needed():
    with pytest.raises(ValueError, match="no mean and std"):
        MotionTextEvaluatorProcessor(MotionFeatureExtractor("humanml3d"))


def test_glove_files_are_read(tmp_path):
    rows = {
        word: np.random.default_rng(index).normal(size=3) for index, word in enumerate(("sos", "eos", "unk", "a", "b"))
    }
    glove = tmp_path / "glove.txt"
    glove.write_text("".join(f"{word} {' '.join(map(str, row))}\n" for word, row in rows.items()))
    table = WordTable.from_file(glove)
    assert table.words == list(rows) and table.dim == 3
    np.testing.assert_allclose(table["b"], rows["b"], rtol=1e-6)
    np.testing.assert_array_equal(table["missing"], table["unk"])
    (tmp_path / "words.txt").write_text("b\n")
    assert WordTable.from_file(glove, tmp_path / "words.txt").words == ["sos", "eos", "unk", "b"]
    np.save(tmp_path / "data.npy", np.stack(list(rows.values())))
    (tmp_path / "all.txt").write_text("\n".join(rows))
    assert WordTable.from_file(tmp_path / "data.npy", tmp_path / "all.txt").words == list(rows)
    with pytest.raises(ValueError, match="does not say which words its rows are"):
        WordTable.from_file(tmp_path / "data.npy")
    (tmp_path / "our_vab_words.pkl").write_bytes(b"cos\nsystem\n")
    with pytest.raises(ValueError, match="is a pickle, which can run code .* GloVe .txt"):
        WordTable.from_file(tmp_path / "data.npy", tmp_path / "our_vab_words.pkl")
    for text, message in (
        ("sos 1 2\neos 1\n", "glove.txt:2: 1 numbers after 'eos'; wanted 2"),
        ("sos 1 x\n", "glove.txt:1: not a word and its numbers"),
        ("sos 1\neos 2\n", "no vector for unk"),
        ("", "holds none of the words"),
    ):
        glove.write_text(text)
        with pytest.raises(ValueError, match=message):
            WordTable.from_file(glove)
    with pytest.raises(FileNotFoundError, match="nowhere.txt"):
        WordTable.from_file(tmp_path / "nowhere.txt")


# Saving and loading


@pytest.fixture(params=["hashed", "table"])
def saved(request, evaluator, processor, tmp_path):
    """Model and processor, and the folder they are saved in."""
    processor = copy.copy(processor)
    if request.param == "table":
        processor = MotionTextEvaluatorProcessor(processor.feature_extractor, word_table("a", "walks"), tagged=True)
    for part in (evaluator, processor):
        part.save_pretrained(tmp_path / "saved")
    return evaluator, processor, tmp_path / "saved"


@torch.no_grad()
def test_saved_evaluator_gives_the_same_embeddings(saved, clips):
    model, processor, folder = saved
    loaded, reader = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert isinstance(loaded, MotionTextEvaluator) and isinstance(reader, MotionTextEvaluatorProcessor)
    assert (reader.tagged, reader.feature_extractor.downsampling_factor) == (processor.tagged, 4)
    expected = model(**processor(clips, CAPTIONS), return_loss=False)
    output = loaded(**reader(clips, CAPTIONS), return_loss=False)
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    # Where weights lie in memory decides on some processors which kernel multiplies them, so that equal weights
    # give outputs that are close and not always equal.
    torch.testing.assert_close(output.motion_embeds, expected.motion_embeds, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.text_embeds, expected.text_embeds, rtol=1e-5, atol=1e-5)
    assert not list(folder.glob("*.bin")) and not list(folder.glob("*.pkl"))


def test_incomplete_weights_are_refused(evaluator, tmp_path):
    weights = {name: weight for name, weight in evaluator.state_dict().items() if "hidden" not in name}
    evaluator.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ValueError, match="missing: motion_encoder.hidden, text_encoder.hidden"):
        MotionTextEvaluator.from_pretrained(tmp_path)


REMOTE = """
import json
import sys
from pathlib import Path


class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "geomotiongpt":
            raise ImportError("hidden")


sys.meta_path.insert(0, Hidden())
import numpy as np
import torch
from transformers import AutoModel, AutoProcessor

folder = "FOLDER"
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model)
with torch.no_grad():
    motion = model.get_motion_features(**processor(np.load(folder + "/clip.npy")))
    text = model.get_text_features(**processor(text="a person walks"))
expected = np.load(folder + "/expected.npy")
np.testing.assert_allclose(torch.cat([motion, text]).numpy(), expected, atol=1e-5)
"""


@pytest.mark.slow
@torch.no_grad()
def test_a_saved_evaluator_works_without_the_package(saved, clips, tmp_path):
    model, processor, folder = saved
    np.save(folder / "clip.npy", clips[0])
    motion = model.get_motion_features(**processor(clips[0]))
    text = model.get_text_features(**processor(text="a person walks"))
    np.save(folder / "expected.npy", torch.cat([motion, text]).numpy())
    run_python(REMOTE.replace("FOLDER", str(folder)), env={"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"})
