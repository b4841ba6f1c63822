"""The motion VAE: padding, lengths, sampling, losses, and what is saved."""

import copy
import math
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

from geomotiongpt import MotionVAE, MotionVAEConfig

LENGTHS = (1, 2, 17, 40)


def make_clips(lengths=LENGTHS, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, 263, generator=generator) for length in lengths]


def pad(clips, num_frames=None, filling=0.0):
    lengths = torch.tensor([len(clip) for clip in clips])
    values = torch.full((len(clips), num_frames or int(lengths.max()), 263), filling)
    for row, clip in zip(values, clips, strict=True):
        row[: len(clip)] = clip
    return values, torch.arange(values.shape[1]) < lengths[:, None]


def assert_near(value, wanted, tolerance=1e-5):
    torch.testing.assert_close(value, wanted, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def shared(make_motion_vae) -> MotionVAE:
    return make_motion_vae()


@pytest.fixture
def model(shared) -> MotionVAE:
    return copy.deepcopy(shared)


# Padding and length


@pytest.mark.parametrize("with_gradient", [True, False], ids=["gradient", "no gradient"])
@pytest.mark.parametrize("num_frames", [40, 57])
def test_a_clip_is_encoded_alike_alone_and_in_a_padded_batch(model, num_frames, with_gradient):
    """Without gradients PyTorch takes another path through its layers."""
    clips = make_clips()
    with torch.set_grad_enabled(with_gradient):
        batch = model.encode(*pad(clips, num_frames))
        assert batch.mean.shape == batch.log_variance.shape == (4, 1, 16)
        assert (batch.mean[2] - batch.mean[3]).abs().max() > 0.1, "the latent hardly depends on the motion"
        for row, clip in enumerate(clips):
            alone = model.encode(clip[None])
            assert_near(batch.mean[row], alone.mean[0])
            assert_near(batch.log_variance[row], alone.log_variance[0])


@pytest.mark.parametrize("with_gradient", [True, False], ids=["gradient", "no gradient"])
def test_a_latent_is_decoded_alike_alone_and_in_a_padded_batch(model, with_gradient):
    latents = torch.randn(4, 1, 16)
    with torch.set_grad_enabled(with_gradient):
        batch = model.decode(latents, LENGTHS)
        assert batch.motion_values.shape == (4, 40, 263) and batch.motion_mask.sum(-1).tolist() == list(LENGTHS)
        for row, length in enumerate(LENGTHS):
            alone = model.decode(latents[row : row + 1], length)
            assert alone.motion_mask.all()
            assert_near(batch.motion_values[row, :length], alone.motion_values[0])
            assert (batch.motion_values[row, length:] == 0).all()


@pytest.mark.parametrize("filling", [math.nan, math.inf, 1e6])
def test_padding_leaks_neither_into_the_output_nor_into_loss_and_gradients(make_motion_vae, filling):
    clips, results = make_clips(), []
    for value in (0.0, filling):
        model = make_motion_vae(dropout=0.0).train()
        torch.manual_seed(7)
        output = model(*pad(clips, 50, filling=value))
        output.loss.backward()
        results.append((output, {name: weight.grad for name, weight in model.named_parameters()}))
    (clean, clean_gradients), (dirty, dirty_gradients) = results
    assert clean.motion_values.shape[1] == 40, "as long as the longest"
    for name, value in clean.items():
        assert torch.equal(dirty[name], value), name
    for name, gradient in clean_gradients.items():
        assert torch.equal(dirty_gradients[name], gradient) and gradient.any(), name


def test_the_length_is_an_input_of_the_decoder(model):
    """One latent gives motions of any length, and they are not one motion cut short."""
    latent = torch.randn(1, 1, 16)
    short, long = (model.decode(latent, frames).motion_values[0] for frames in (20, 30))
    assert short.shape == (20, 263) and long.shape == (30, 263)
    assert (short - long[:20]).abs().max() > 1e-3
    ways = [model.decode(latent.expand(2, 1, 16), lengths) for lengths in (20, [20, 20], torch.tensor([20, 20]))]
    assert all(torch.equal(way.motion_values, ways[0].motion_values) for way in ways)


def test_neighbouring_positions_are_alike_in_a_new_model(model):
    """The sinusoids that the position tables start from; no two positions are the same."""
    for table in (model.encoder_positions, model.decoder_positions):
        similar = functional.cosine_similarity(table[:, None], table[None], dim=-1)
        assert similar.diagonal(1).min() > 0.5 > similar.diagonal(60).max()
        assert (similar - torch.eye(len(table))).max() < 0.9999


# Sampling


def test_evaluation_decodes_the_mean_without_noise_and_dropout(model):
    values, mask = pad(make_clips())
    state = torch.get_rng_state()
    output = model(values, mask)
    assert torch.equal(torch.get_rng_state(), state)
    encoded = model.encode(values, mask)
    assert torch.equal(output.latents, encoded.mean)
    decoded = model.decode(encoded.mean, mask.sum(-1))
    assert torch.equal(output.motion_values, decoded.motion_values)
    assert torch.equal(output.motion_mask, mask) and torch.equal(decoded.motion_mask, mask)


def test_training_samples_the_distribution(make_motion_vae):
    """Means and standard deviations of 2,000 draws; dropout off, which would move the mean."""
    model = make_motion_vae(dropout=0.0, log_variance_offset=-1.0).train()
    clip = make_clips((12,))[0].expand(2000, -1, -1)
    with torch.no_grad():
        encoded = model.encode(clip[:1])
        latents = model(clip, return_loss=False).latents[:, 0]
    assert_near(latents.mean(0), encoded.mean[0, 0], tolerance=0.1)
    spread = (0.5 * encoded.log_variance[0, 0]).exp()
    assert (latents.std(0) / spread - 1).abs().max() < 0.1
    assert spread.max() > 1.2 * spread.min(), "all alike test nothing"


def test_samples_are_seeded(model):
    encoded = model.encode(make_clips((12,))[0][None])
    first, again, other = (encoded.sample(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    noise = torch.randn(1, 1, 16, generator=torch.Generator().manual_seed(0))
    assert_near(first, encoded.mean + (encoded.log_variance / 2).exp() * noise)


def test_dropout_is_active_in_training_only(model):
    values = make_clips((12,))[0][None]
    assert torch.equal(model.encode(values).mean, model.encode(values).mean)
    model.train()
    assert not torch.equal(model.encode(values).mean, model.encode(values).mean)


def test_the_log_variance_starts_at_its_offset(make_motion_vae):
    clip = make_clips((12,))[0][None]
    plain, lowered = (make_motion_vae(log_variance_offset=offset).encode(clip) for offset in (0.0, -6.0))
    assert_near(lowered.log_variance, plain.log_variance - 6)
    assert torch.equal(lowered.mean, plain.mean)


# Losses


def test_the_loss_is_the_weighted_sum_of_its_parts_by_hand(make_motion_vae):
    """Smooth L1 over valid frames, of all features, joint positions and root; and the divergence in closed form."""
    weights = {"reconstruction_weight": 0.7, "position_weight": 0.3, "root_weight": 0.2, "kl_weight": 0.05}
    model, clips = make_motion_vae(**weights), make_clips((17, 40, 2))
    output = model(*pad(clips, 44))
    made = [model.decode(model.encode(clip[None]).mean, len(clip)).motion_values[0] for clip in clips]
    gap = (torch.cat(made) - torch.cat(clips)).abs()
    error = torch.where(gap < 1, gap.square() / 2, gap - 0.5)
    normal = torch.distributions.Normal
    encoded = [model.encode(clip[None]) for clip in clips]
    mean, deviation = (
        torch.cat(parts) for parts in zip(*((e.mean, (e.log_variance / 2).exp()) for e in encoded), strict=True)
    )
    divergence = torch.distributions.kl_divergence(normal(mean, deviation), normal(0.0, 1.0))
    wanted = {
        "reconstruction_loss": error.mean(),
        "position_loss": error[:, 4:67].mean(),
        "root_loss": error[:, :4].mean(),
        "kl_loss": divergence.mean(),
    }
    for name, value in wanted.items():
        assert_near(output[name], value), name
    total = sum(weights[name.replace("_loss", "_weight")] * value for name, value in wanted.items())
    assert_near(output.loss, total)


def test_the_published_weights_and_sizes_are_the_defaults():
    """18,032,135 parameters, which are those of the published model."""
    config = MotionVAEConfig()
    assert (config.reconstruction_weight, config.position_weight, config.kl_weight) == (1.0, 0.5, 1e-5)
    assert (config.root_weight, config.log_variance_offset, config.num_joints) == (0.0, 0.0, 22)
    with torch.device("meta"):
        model = MotionVAE(config)
    assert sum(weight.numel() for weight in model.parameters()) == 18_032_135
    assert MotionVAEConfig(num_features=251).num_joints == 21


def test_the_loss_is_left_out_on_request(model):
    output = model(make_clips((16,))[0][None], return_loss=False)
    assert output.loss is None and output.kl_loss is None and output.motion_values is not None


@pytest.mark.parametrize("tokens", [1, 3])
def test_every_weight_learns(make_motion_vae, tokens):
    model = make_motion_vae(num_latent_tokens=tokens, num_layers=5).train()
    output = model(*pad(make_clips()))
    output.loss.backward()
    assert output.latents.shape == (4, tokens, 16)
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.any(), name


def test_the_skips_join_both_halves(make_motion_vae):
    """The last layer sees what the first one made, the one before it what the second one made."""
    model = make_motion_vae(num_layers=5)
    made, seen = [], []
    for block in model.encoder.input_blocks:
        block.register_forward_hook(lambda module, inputs, output: made.append(output))
    for projection in model.encoder.skip_projections:
        projection.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][..., 16:]))
    model.encode(make_clips((12,))[0][None])
    assert len(seen) == 2 and torch.equal(seen[0], made[1]) and torch.equal(seen[1], made[0])


def test_losses_are_computed_in_single_precision_under_autocast(model):
    with torch.autocast("cpu", torch.bfloat16):
        output = model(*pad(make_clips()))
    parts = ("loss", "reconstruction_loss", "position_loss", "root_loss", "kl_loss")
    assert {output[name].dtype for name in parts} == {torch.float32}


# Saving and loading


def test_a_saved_model_comes_back_as_it_was(model, tiny_feature_extractor, tmp_path):
    model.config.kl_weight = 0.25
    model.save_pretrained(tmp_path)
    tiny_feature_extractor.save_pretrained(tmp_path)
    values, mask = pad(make_clips())
    for loaded in (MotionVAE.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert type(loaded) is MotionVAE and not loaded.training
        weights = loaded.state_dict()
        assert weights.keys() == model.state_dict().keys()
        assert all(torch.equal(weights[name], weight) for name, weight in model.state_dict().items())
        assert torch.equal(loaded(values, mask).loss, model(values, mask).loss)
    assert AutoConfig.from_pretrained(tmp_path).kl_weight == 0.25
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert extractor.to_dict() == tiny_feature_extractor.to_dict()


def test_an_incomplete_checkpoint_is_refused(model, tmp_path):
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["unknown"] = weights.pop("distribution_tokens")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing: distribution_tokens; unexpected: unknown"):
        MotionVAE.from_pretrained(tmp_path)


def test_a_model_works_in_half_precision(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = MotionVAE.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {weight.dtype for weight in loaded.parameters()} == {torch.bfloat16}
    values, mask = pad(make_clips())
    with torch.no_grad():
        half, full = loaded(values, mask), model(values, mask)
    assert half.motion_values.dtype == torch.bfloat16 and half.loss.isfinite()
    assert (half.motion_values.float() - full.motion_values).norm() < 0.05 * full.motion_values.norm()


# Bad input


def masked(frames, num_frames=16):
    """Two rows; the first is padded on the right, the second is valid in the given frames."""
    mask = torch.zeros(2, num_frames, dtype=torch.bool)
    mask[0, :9] = mask[1, frames] = True
    return mask


@pytest.mark.parametrize(
    ("values", "mask", "message"),
    [
        (torch.zeros(1, 16, 251), None, "motion_values have the shape (1, 16, 251); wanted (batch, frames, 263)"),
        (torch.zeros(16, 263), None, "motion_values have the shape (16, 263); wanted (batch, frames, 263)"),
        (torch.zeros(2, 16, 263), masked([0], 15), "motion_mask has the shape (2, 15); wanted (2, 16)"),
        (torch.zeros(2, 16, 263), torch.ones(16), "motion_mask has the shape (16,); wanted (2, 16)"),
        (torch.zeros(2, 16, 263), masked(slice(1, 16)), "valid frames after padding; pad on the right"),
        (torch.zeros(2, 16, 263), masked([0, 2]), "valid frames after padding; pad on the right"),
        (torch.zeros(2, 16, 263), masked([]), "motions have 0 to 16 frames; this motion VAE encodes 1 to 118"),
        (torch.zeros(1, 0, 263), None, "motions have 0 to 0 frames; this motion VAE encodes 1 to 118"),
        (torch.zeros(1, 119, 263), None, "motions have 119 to 119 frames; this motion VAE encodes 1 to 118"),
        (
            torch.full((2, 16, 263), math.nan),
            masked([0], 16),
            "motion_values has a NaN or infinite value, first in row",
        ),
    ],
    ids=["width", "no batch", "mask length", "mask batch", "left", "gap", "no frames", "nothing", "too long", "NaN"],
)
def test_motion_of_the_wrong_form_is_refused(model, values, mask, message):
    for call in (model.encode, model):
        with pytest.raises(ValueError, match=re.escape(message)):
            call(values, mask)


def test_the_longest_motion_is_taken(model):
    assert model(make_clips((118,))[0][None]).motion_values.shape == (1, 118, 263)
    assert model.decode(torch.zeros(1, 1, 16), 120).motion_values.shape == (1, 120, 263)


@pytest.mark.parametrize(
    ("shape", "num_frames", "message"),
    [
        ((2, 16), 5, "latents have the shape (2, 16); wanted (batch, 1, 16)"),
        ((2, 2, 16), 5, "latents have the shape (2, 2, 16); wanted (batch, 1, 16)"),
        ((2, 1, 15), 5, "latents have the shape (2, 1, 15); wanted (batch, 1, 16)"),
        ((2, 1, 16), 0, "num_frames ranges from 0 to 0; this motion VAE decodes 1 to 120 frames"),
        ((2, 1, 16), [5, -1], "num_frames ranges from -1 to 5; this motion VAE decodes 1 to 120 frames"),
        ((2, 1, 16), [5, 100_000], "num_frames ranges from 5 to 100000; this motion VAE decodes 1 to 120 frames"),
        ((2, 1, 16), [5, 6, 7], "num_frames is [5, 6, 7]; give one whole number, or one for each of 2"),
        ((2, 1, 16), [5, 6.5], "num_frames is [5, 6.5]; give one whole number, or one for each of 2"),
    ],
)
def test_what_cannot_be_decoded_is_refused(model, shape, num_frames, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        model.decode(torch.zeros(shape), num_frames)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_layers": 4}, "num_layers is 4; it must be odd"),
        ({"num_layers": -1}, "num_layers is -1; it must be odd"),
        ({"latent_dim": 250}, "latent_dim is 250; it must be a multiple of num_heads, 4"),
        ({"num_latent_tokens": 0}, "with 0 latent tokens; there must be 1 token or more"),
        ({"max_positions": 4, "num_latent_tokens": 2}, "max_positions is 4 with 2 latent tokens"),
    ],
)
def test_an_impossible_setting_is_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        MotionVAEConfig(**settings)
