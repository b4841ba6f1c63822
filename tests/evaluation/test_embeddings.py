"""Embeddings for metrics: a clip's own in any order and batch, named errors, and a hash of all they depend on."""

import copy

import numpy as np
import pytest
import torch

from geomotiongpt import (
    MotionFeatureExtractor,
    MotionTextEvaluator,
    MotionTextEvaluatorConfig,
    MotionTextEvaluatorProcessor,
    TMRConfig,
    TMRModel,
)
from geomotiongpt.evaluation.embeddings import embed_motions, embed_texts, evaluator_hash, load_evaluator
from geomotiongpt.models.word_vectors import WordTable

CAPTIONS = ["a person walks", "", "someone jumps up and waves with the left hand", "he sits"]


@pytest.fixture(scope="module", params=["motion_text_evaluator", "tmr"])
def evaluator(request, tiny_feature_extractor):
    torch.manual_seed(0)
    if request.param == "tmr":
        config = TMRConfig(embedding_size=16, num_layers=1, num_heads=2, feedforward_size=16, max_frames=80)
        model = TMRModel(config)
    else:
        sizes = {"movement_hidden_size": 16, "movement_size": 16, "motion_hidden_size": 16, "text_hidden_size": 16}
        model = MotionTextEvaluator(MotionTextEvaluatorConfig(**sizes, embedding_size=8, max_frames=80))
    extractor = MotionFeatureExtractor("humanml3d", tiny_feature_extractor.mean, tiny_feature_extractor.std, 4)
    return model, MotionTextEvaluatorProcessor(extractor)


def test_a_clip_has_its_own_embedding_in_any_order_and_batch(evaluator, clips):
    model, processor = evaluator
    embeddings = embed_motions(model.train(), processor, clips)
    assert embeddings.dtype == np.float32 and embeddings.shape == (3, model.config.embedding_size)
    alone = np.concatenate([embed_motions(model, processor, [clip]) for clip in clips])
    np.testing.assert_allclose(embeddings, alone, atol=1e-5)
    order = [2, 0, 1]
    shuffled = embed_motions(model, processor, [clips[index] for index in order], batch_size=2)
    np.testing.assert_allclose(shuffled, embeddings[order], atol=1e-5)
    with torch.no_grad():
        expected = model.get_motion_features(**processor(clips)).numpy()
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)


def test_a_caption_has_its_own_embedding_in_any_order_and_batch(evaluator):
    model, processor = evaluator
    embeddings = embed_texts(model, processor, CAPTIONS)
    alone = np.concatenate([embed_texts(model, processor, [caption]) for caption in CAPTIONS])
    np.testing.assert_allclose(embeddings, alone, atol=1e-5)
    np.testing.assert_allclose(embed_texts(model, processor, CAPTIONS[::-1], batch_size=3), alone[::-1], atol=1e-5)
    assert np.abs(embeddings[0] - embeddings[2]).max() > 1e-3


def test_tagged_words_are_read_where_they_are_known(evaluator):
    model, processor = copy.deepcopy(evaluator)
    processor.tagged = True
    tokens = [["he/PRON", "walk/VERB"], []]
    embeddings = embed_texts(model, processor, ["he walks", "he walks"], tokens=tokens)
    plain = embed_texts(model, processor, ["he walks"])[0]
    np.testing.assert_allclose(embeddings[1], plain, atol=1e-5)
    assert np.abs(embeddings[0] - plain).max() > 1e-4
    with pytest.raises(ValueError, match="zip"):
        embed_texts(model, processor, ["he walks"], tokens=tokens)


def test_unusable_motions_are_named(evaluator, clips):
    model, processor = evaluator
    with pytest.raises(ValueError, match=r"motion 1 has 90 frames; this evaluator takes 80"):
        embed_motions(model, processor, [clips[0], np.zeros((90, 263))])
    with pytest.raises(ValueError, match="walk.npy has 90 frames"):
        embed_motions(model, processor, [np.zeros((90, 263))], names=["walk.npy"])
    with pytest.raises(ValueError, match="motion 0 has a NaN"):
        embed_motions(model, processor, [np.full((40, 263), np.nan)])
    with pytest.raises(ValueError, match=r"motion 0 has shape \(40, 251\)"):
        embed_motions(model, processor, [np.zeros((40, 251))])


def test_nan_embeddings_are_an_error(evaluator, clips):
    model, processor = copy.deepcopy(evaluator)
    with torch.no_grad():
        next(model.motion_encoder.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="gives NaN or infinity for number 0 of the motions"):
        embed_motions(model, processor, clips)


def test_no_motions_give_no_embeddings(evaluator):
    model, processor = evaluator
    assert embed_motions(model, processor, []).shape == (0, model.config.embedding_size)


def test_hash_is_of_all_that_embeddings_depend_on(evaluator, tmp_path):
    model, processor = evaluator
    for part in (model, processor):
        part.save_pretrained(tmp_path)
    whole = evaluator_hash(model, processor)
    assert evaluator_hash(*load_evaluator(tmp_path)) == whole and len(whole) == 64
    seen = {whole}

    def is_new(model, processor):
        digest = evaluator_hash(model, processor)
        assert digest not in seen
        seen.add(digest)

    changed = copy.deepcopy(model)
    with torch.no_grad():
        next(changed.text_encoder.parameters()).view(-1)[0] += 1e-3
    is_new(changed, processor)
    for name, value in {"tagged": True, "max_text_length": 5, "word_vectors": word_table(0)}.items():
        other = copy.deepcopy(processor)
        setattr(other, name, value)
        is_new(model, other)
    other = copy.deepcopy(processor)
    other.word_vectors = word_table(1)
    is_new(model, other)
    other = copy.deepcopy(processor)
    other.feature_extractor.mean[5] += 1e-3
    is_new(model, other)


def word_table(seed: int) -> WordTable:
    return WordTable(["sos", "eos", "unk"], np.random.default_rng(seed).normal(size=(3, 300)))


def test_another_model_is_no_evaluator(tiny_tokenizer_model, tmp_path):
    tiny_tokenizer_model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a 'motion_tokenizer' model; an evaluator is one of"):
        load_evaluator(tmp_path)
