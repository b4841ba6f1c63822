"""TMR: its loss is the paper's, embeddings are a motion's own, what is saved opens."""

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional
from transformers import AutoModel, AutoProcessor

from geomotiongpt import MotionTextEvaluatorProcessor, TMRConfig, TMRModel

EXACT = {"rtol": 0, "atol": 1e-5}
SIZES = {"embedding_size": 16, "num_layers": 2, "num_heads": 2, "feedforward_size": 24, "max_frames": 80}
CAPTIONS = ["a person walks forward", "someone jumps, then waves with the left hand twice", ""]


@pytest.fixture(scope="module")
def model() -> TMRModel:
    torch.manual_seed(0)
    return TMRModel(TMRConfig(**SIZES)).eval()


@pytest.fixture(scope="module")
def processor(tiny_feature_extractor) -> MotionTextEvaluatorProcessor:
    return MotionTextEvaluatorProcessor(tiny_feature_extractor)


@torch.no_grad()
def test_an_embedding_is_the_same_alone_in_a_batch_and_before_garbage(model, processor, clips):
    motions, texts = processor(clips), processor(text=CAPTIONS)
    motion_batch, text_batch = model.get_motion_features(**motions), model.get_text_features(**texts)
    assert motion_batch.shape == text_batch.shape == (3, 16)
    garbage = torch.where(motions["motion_mask"].unsqueeze(-1), motions["motion_values"], torch.nan)
    torch.testing.assert_close(model.get_motion_features(garbage, motions["motion_mask"]), motion_batch, **EXACT)
    for row in range(3):
        alone = model.get_motion_features(**processor(clips[row]))
        torch.testing.assert_close(alone[0], motion_batch[row], **EXACT)
        alone = model.get_text_features(**processor(text=CAPTIONS[row]))
        torch.testing.assert_close(alone[0], text_batch[row], **EXACT)
    assert (motion_batch[0] - motion_batch[1]).abs().max() > 1e-2
    assert (text_batch[0] - text_batch[1]).abs().max() > 1e-2


@torch.no_grad()
def test_order_of_frames_and_words_matters(model, processor, clips):
    values = processor(clips[0])["motion_values"]
    assert (model.get_motion_features(values) - model.get_motion_features(values.flip(1))).abs().max() > 1e-3
    one, other = (model.get_text_features(**processor(text=text)) for text in ("left then right", "right then left"))
    assert (one - other).abs().max() > 1e-3


@torch.no_grad()
def test_the_last_frame_and_the_last_word_are_read(model, processor, clips):
    values = processor(clips[0])["motion_values"]
    changed = values.clone()
    changed[:, -1] += 5
    assert (model.get_motion_features(values) - model.get_motion_features(changed)).abs().max() > 1e-4
    inputs = processor(text="walks")
    embedding = model.get_text_features(**inputs)
    inputs["word_embeddings"][:, -1] += 1
    assert (model.get_text_features(**inputs) - embedding).abs().max() > 1e-4


@torch.no_grad()
def test_loss_has_the_parts_of_the_paper(model, processor, clips):
    inputs = processor(clips, CAPTIONS)
    output = model(**inputs)
    again = model(**inputs)
    assert torch.equal(output.loss, again.loss), "in evaluation mode nothing is drawn"
    motion = model._encode_motion(inputs["motion_values"], inputs["motion_mask"])
    text = model._encode_text(inputs["word_embeddings"], inputs["pos_one_hots"], inputs["text_mask"])
    one, other = (Normal(mean, (log_variance / 2).exp()) for mean, log_variance in (motion, text))
    standard = Normal(torch.zeros(()), torch.ones(()))
    pairs = ((one, other), (other, one), (one, standard), (other, standard))
    kl = sum(kl_divergence(*pair).mean() for pair in pairs)
    torch.testing.assert_close(output.kl_loss, kl, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.latent_loss, functional.smooth_l1_loss(motion[0], text[0]))
    cosines = functional.cosine_similarity(text[0].unsqueeze(1), motion[0].unsqueeze(0), dim=-1) / 0.1
    contrastive = -(cosines.log_softmax(0).diag() + cosines.log_softmax(1).diag()).mean() / 2
    torch.testing.assert_close(output.contrastive_loss, contrastive, rtol=1e-4, atol=1e-5)
    total = output.reconstruction_loss + 1e-5 * kl + 1e-5 * output.latent_loss + 0.1 * contrastive
    torch.testing.assert_close(output.loss, total, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_reconstruction_is_scored_over_valid_frames_from_both_latents(model, processor, clips):
    inputs = processor(clips, CAPTIONS)
    mask = inputs["motion_mask"]
    output = model(**inputs)
    expected = 0
    for latents in (output.motion_embeds, output.text_embeds):
        decoded = [
            model.motion_decoder(latents[row : row + 1], torch.tensor([len(clip)]), len(clip))[0]
            for row, clip in enumerate(clips)
        ]
        expected += functional.smooth_l1_loss(torch.cat(decoded), inputs["motion_values"][mask])
    torch.testing.assert_close(output.reconstruction_loss, expected, rtol=1e-4, atol=1e-5)


def test_every_weight_learns_and_latents_are_drawn_in_training(processor, clips):
    torch.manual_seed(0)
    model = TMRModel(TMRConfig(**SIZES, dropout=0.0)).train()
    inputs = processor(clips, CAPTIONS)
    first, second = model(**inputs), model(**inputs)
    assert not torch.equal(first.reconstruction_loss, second.reconstruction_loss)
    assert torch.equal(first.motion_embeds, second.motion_embeds)
    first.loss.backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_pairs_of_one_meaning_are_no_negatives(model, processor, clips):
    inputs = processor(clips, CAPTIONS)
    same = torch.ones(3, 3, dtype=torch.bool)
    assert model(**inputs, same_meaning=same).contrastive_loss.item() == 0
    assert model(**inputs).contrastive_loss.item() > 0.1


def test_unusable_inputs_are_named(model):
    with pytest.raises(ValueError, match=r"row 0 of motion_values has 81 frames; .* 1 to 80"):
        model.get_motion_features(torch.zeros(1, 81, 263))
    with pytest.raises(ValueError, match="embedding_size is 20; .* twice the 4 heads"):
        TMRConfig(embedding_size=20)


@torch.no_grad()
def test_saved_model_gives_the_same_embeddings(model, processor, clips, tmp_path):
    for part in (model, processor):
        part.save_pretrained(tmp_path)
    loaded, reader = AutoModel.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded, TMRModel) and isinstance(reader, MotionTextEvaluatorProcessor)
    assert loaded.config.similarity == "cosine" and loaded.config.temperature == 0.1
    inputs = reader([np.asarray(clip) for clip in clips], CAPTIONS)
    expected, output = model(**inputs, return_loss=False), loaded(**inputs, return_loss=False)
    assert torch.equal(output.motion_embeds, expected.motion_embeds)
    assert torch.equal(output.text_embeds, expected.text_embeds)
