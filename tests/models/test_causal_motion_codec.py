"""The causal motion codec: what depends on what, streams, padding, noise, losses, and what is saved."""

import copy
import math
import os
import re
from pathlib import Path

import pytest
import torch
from hub_stand_in import run_python
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

from geomotiongpt import CausalMotionCodec, CausalMotionCodecConfig
from geomotiongpt.training.arguments import MotionDataArguments, MotionWindowTrainingArguments
from geomotiongpt.training.recipes import build_section, load_recipe

RECIPES = sorted((Path(__file__).parents[2] / "hub_configs").glob("llamo-*/motion_codec.yaml"))
LENGTHS = (4, 7, 18, 40)
FRAMES = 28


def make_clips(lengths=LENGTHS, seed=1, width=263):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, width, generator=generator) for length in lengths]


def pad(clips, num_frames=None, filling=0.0):
    lengths = torch.tensor([len(clip) for clip in clips])
    values = torch.full((len(clips), num_frames or int(lengths.max()), clips[0].shape[-1]), filling)
    for row, clip in zip(values, clips, strict=True):
        row[: len(clip)] = clip
    return values, torch.arange(values.shape[1]) < lengths[:, None]


def assert_near(value, wanted, tolerance=1e-6):
    torch.testing.assert_close(value, wanted, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def make_codec():
    """Makes a codec of 263 features with latents of 8 numbers, in evaluation mode.

    Outputs of size one, so that 1e-6 means something.
    """

    def make(**options) -> CausalMotionCodec:
        torch.manual_seed(0)
        model = CausalMotionCodec(
            CausalMotionCodecConfig(**{"num_features": 263, "hidden_size": 16, "latent_dim": 8} | options)
        )
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith("weight"):
                    weight.mul_(1.5)
        return model.eval()

    return make


@pytest.fixture(scope="module")
def shared(make_codec) -> CausalMotionCodec:
    return make_codec()


@pytest.fixture
def model(shared) -> CausalMotionCodec:
    return copy.deepcopy(shared)


# What depends on what


@pytest.mark.parametrize("frame", range(FRAMES))
@torch.no_grad()
def test_a_latent_depends_on_the_frames_up_to_its_last_and_on_no_later(model, frame):
    clip = make_clips((FRAMES,))[0][None]
    other = clip.clone()
    other[:, frame:] += 10
    change = (model.encode(other).latents - model.encode(clip).latents).abs().amax((0, 2))
    assert change[: frame // 4].numel() == 0 or change[: frame // 4].max() <= 1e-6
    assert change[frame // 4] > 1e-3, "the latent whose last frames these are"
    other = clip.clone()
    other[:, frame] += 10
    change = (model.encode(other).latents - model.encode(clip).latents).abs().amax((0, 2))
    assert change[frame // 4] > 1e-3, "each of its frames counts"


@pytest.mark.parametrize("latent", range(FRAMES // 4))
@torch.no_grad()
def test_a_frame_depends_on_the_latents_up_to_its_own_and_on_no_later(model, latent):
    latents = make_clips((FRAMES // 4,), width=8)[0][None]
    other = latents.clone()
    other[:, latent:] += 10
    change = (model.decode(other).motion_values - model.decode(latents).motion_values).abs().amax((0, 2))
    assert change.shape == (FRAMES,)
    assert latent == 0 or change[: 4 * latent].max() <= 1e-6
    assert change[4 * latent :].min() > 1e-3, "the frames of the latent and those after it"


@torch.no_grad()
def test_the_past_matters(model):
    """Not a code for every four frames on its own: a latent sees beyond its frames, a frame beyond its latent."""
    clip = make_clips((FRAMES,))[0][None]
    other, latents = clip.clone(), model.encode(clip).latents
    other[:, 0] += 10
    assert (model.encode(other).latents - latents)[:, 1:].abs().amax((0, 2)).min() > 1e-4
    changed = latents.clone()
    changed[:, 0] += 10
    decoded = (model.decode(changed).motion_values - model.decode(latents).motion_values).abs()
    assert decoded[:, 4:].amax((0, 2)).min() > 1e-4


# Streams


def random_chunks(values, seed):
    """Pieces of 0 to 7 along the second dimension."""
    generator, chunks, start = torch.Generator().manual_seed(seed), [], 0
    while start < values.shape[1]:
        size = int(torch.randint(8, (), generator=generator))
        chunks.append(values[:, start : start + size])
        start += size
    return chunks


@pytest.mark.parametrize("seed", range(6))
@torch.no_grad()
def test_streams_give_what_the_whole_gives_whatever_the_pieces(model, seed):
    values = torch.randn(3, 62, 263, generator=torch.Generator().manual_seed(seed))
    whole = model(values, return_loss=False)
    encoder, decoder = model.streaming_encoder(), model.streaming_decoder()
    latents = [encoder.push(chunk) for chunk in random_chunks(values, seed)]
    assert_near(torch.cat(latents, dim=1), whole.latents)
    assert encoder.finish() == 2, "the frames that fill no latent"
    frames = [decoder.push(chunk) for chunk in random_chunks(whole.latents, seed + 100)]
    assert_near(torch.cat(frames, dim=1), whole.motion_values)
    assert decoder.finish() == 0


@torch.no_grad()
def test_a_latent_leaves_with_its_last_frame_and_its_frames_with_the_latent(model):
    encoder, decoder = model.streaming_encoder(), model.streaming_decoder()
    latents = [encoder.push(frame[None, None]) for frame in make_clips((9,))[0]]
    assert [piece.shape[1] for piece in latents] == [0, 0, 0, 1, 0, 0, 0, 1, 0]
    assert {piece.shape[0::2] for piece in latents} == {(1, 8)}
    frames = [decoder.push(piece) for piece in latents]
    assert [piece.shape for piece in frames] == [(1, 4 * piece.shape[1], 263) for piece in latents]


@torch.no_grad()
def test_a_stream_keeps_no_more_after_a_minute_than_after_seconds(model):
    """Counted in the memory behind the tensors, which a view keeps whole."""
    encoder, decoder = model.streaming_encoder(), model.streaming_decoder()
    sizes = []
    for frames in (49, 1152):  # each leaves one frame waiting
        decoder.push(encoder.push(torch.randn(2, frames, 263)))
        tensors = [*encoder.contexts.values(), encoder.waiting, *decoder.contexts.values(), decoder.waiting]
        sizes.append(sum(tensor.untyped_storage().nbytes() for tensor in tensors))
    # Numbers of a row. Each stage has a stack of dilations 9, 3 and 1, which look back twice as far, and a convolution
    stack = 2 * (9 + 3 + 1) + 2
    encoder_numbers = 2 * 263 + 2 * stack * 16 + 2 * 16 + 263
    decoder_numbers = 2 * 8 + 2 * stack * 16 + 2 * 2 * 16
    assert sizes == [2 * 4 * (encoder_numbers + decoder_numbers)] * 2


@pytest.mark.parametrize("end", ["reset", "finish"])
@torch.no_grad()
def test_a_stream_starts_anew_after_its_end(model, end):
    clip = make_clips((22,))[0][None]
    encoder, decoder = model.streaming_encoder(), model.streaming_decoder()
    fresh = encoder.push(clip)
    decoder.push(fresh)
    for stream in (encoder, decoder):
        getattr(stream, end)()
    latents = encoder.push(clip)
    assert torch.equal(latents, fresh)
    assert_near(decoder.push(latents), model.decode(latents).motion_values)


@torch.no_grad()
def test_streams_of_a_codec_do_not_disturb_each_other(model):
    first, second = make_clips((16, 16))
    streams = [model.streaming_encoder(), model.streaming_encoder()]
    latents: list[list[torch.Tensor]] = [[], []]
    for start in range(0, 16, 4):
        for clip, stream, made in zip((first, second), streams, latents, strict=True):
            made.append(stream.push(clip[None, start : start + 4]))
    for clip, made in zip((first, second), latents, strict=True):
        assert_near(torch.cat(made, dim=1), model.encode(clip[None]).latents)


@torch.no_grad()
def test_a_stream_works_in_half_precision(model):
    model = model.to(torch.bfloat16)
    clip = make_clips((24,))[0][None]
    encoder, decoder = model.streaming_encoder(), model.streaming_decoder()
    latents = torch.cat([encoder.push(clip[:, :10]), encoder.push(clip[:, 10:])], dim=1)
    assert latents.dtype == torch.bfloat16
    assert_near(latents.float(), model.encode(clip).latents.float(), tolerance=0.02)
    frames = torch.cat([decoder.push(latents[:, :1]), decoder.push(latents[:, 1:])], dim=1)
    assert_near(frames.float(), model.decode(latents).motion_values.float(), tolerance=0.05)


# Padding and length


@pytest.mark.parametrize("num_frames", [40, 59])
@torch.no_grad()
def test_a_clip_is_encoded_and_decoded_alike_alone_and_in_a_padded_batch(model, num_frames):
    clips = make_clips()
    encoded = model.encode(*pad(clips, num_frames))
    assert encoded.latents.shape == (4, num_frames // 4, 8)
    assert encoded.latent_mask.sum(-1).tolist() == [1, 1, 4, 10]
    decoded = model.decode(*encoded.to_tuple())
    assert decoded.motion_mask.sum(-1).tolist() == [4, 4, 16, 40]
    for row, clip in enumerate(clips):
        alone = model.encode(clip[None])
        number = len(clip) // 4
        assert alone.latent_mask.all() and alone.latents.shape == (1, number, 8)
        assert_near(encoded.latents[row, :number], alone.latents[0])
        values = model.decode(alone.latents).motion_values[0]
        assert_near(decoded.motion_values[row, : 4 * number], values)
        assert (encoded.latents[row, number:] == 0).all() and (decoded.motion_values[row, 4 * number :] == 0).all()


@pytest.mark.parametrize("num_frames", [4, 5, 7, 8, 11])
@torch.no_grad()
def test_frames_that_fill_no_latent_are_dropped(model, num_frames):
    clip = make_clips((11,))[0][None]
    output = model(clip[:, :num_frames], return_loss=False)
    assert output.latents.shape[1] == num_frames // 4 and output.motion_values.shape[1] == num_frames // 4 * 4
    assert_near(output.latents, model.encode(clip).latents[:, : num_frames // 4])


@pytest.mark.parametrize("filling", [math.nan, math.inf, 1e6])
def test_padding_leaks_neither_into_the_output_nor_into_loss_and_gradients(make_codec, filling):
    clips, results = make_clips(), []
    for value in (0.0, filling):
        model = make_codec().train()
        torch.manual_seed(7)
        output = model(*pad(clips, 50, filling=value))
        output.loss.backward()
        results.append((output, {name: weight.grad for name, weight in model.named_parameters()}))
    (clean, clean_gradients), (dirty, dirty_gradients) = results
    for name, value in clean.items():
        assert torch.equal(dirty[name], value), name
    for name, gradient in clean_gradients.items():
        assert torch.equal(dirty_gradients[name], gradient) and gradient.any(), name


# Noise


def test_evaluation_decodes_the_means_without_noise(model):
    values, mask = pad(make_clips())
    state = torch.get_rng_state()
    output = model(values, mask)
    assert torch.equal(torch.get_rng_state(), state)
    encoded = model.encode(values, mask)
    assert torch.equal(output.latents, encoded.latents) and torch.equal(output.latent_mask, encoded.latent_mask)
    decoded = model.decode(encoded.latents, encoded.latent_mask)
    assert torch.equal(output.motion_values, decoded.motion_values)
    assert torch.equal(output.motion_mask, decoded.motion_mask)


@torch.no_grad()
def test_training_draws_a_deviation_for_each_motion_evenly_up_to_the_largest(make_codec):
    """Of 500 motions of 80 numbers each, of which one alone has the deviation to 8%."""
    model = make_codec(sigma_max=0.2).train()
    clip = make_clips((40,))[0][None]
    noise = model(clip.expand(500, -1, -1), return_loss=False).latents - model.encode(clip).latents
    sigmas = noise.flatten(1).std(1).sort().values
    assert noise.flatten(1).mean(1).abs().max() < 0.1
    quantiles = sigmas[[50, 125, 250, 375, 450]]
    torch.testing.assert_close(quantiles, 0.2 * torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9]), rtol=0.1, atol=0.01)
    halves = noise[:, :5].flatten(1).std(1), noise[:, 5:].flatten(1).std(1)
    assert torch.corrcoef(torch.stack(halves))[0, 1] > 0.95, "one deviation for a whole motion"


def test_noise_is_seeded(model):
    latents = model.encode(make_clips((40,))[0][None].expand(3, -1, -1)).latents
    first, again, other = (model.add_noise(latents, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    generator = torch.Generator().manual_seed(0)
    sigma = 0.01 * torch.rand(3, 1, 1, generator=generator)
    assert_near(first, latents + sigma * torch.randn(3, 10, 8, generator=generator))
    model.train()
    torch.manual_seed(5)
    seeded = model(make_clips((40,))[0][None]).latents
    torch.manual_seed(5)
    assert torch.equal(model(make_clips((40,))[0][None]).latents, seeded)


def test_without_noise_training_decodes_the_means(make_codec):
    model = make_codec(sigma_max=0.0).train()
    values, mask = pad(make_clips())
    assert torch.equal(model(values, mask).latents, model.encode(values, mask).latents)


# Losses


@pytest.mark.parametrize(("width", "root"), [(263, 4), (272, 8), (251, 4)])
def test_the_loss_is_the_weighted_sum_of_its_parts_by_hand(make_codec, width, root):
    """Smooth L1 over valid frames, of all features and of the root; and half the square of the latents."""
    model, clips = (
        make_codec(num_features=width, root_weight=0.3, kl_weight=0.05),
        make_clips((17, 40, 6), width=width),
    )
    output = model(*pad(clips, 44))
    means = [model.encode(clip[None]).latents[0] for clip in clips]
    made = [model.decode(mean[None]).motion_values[0] for mean in means]
    gap = torch.cat([one - clip[: len(one)] for one, clip in zip(made, clips, strict=True)]).abs()
    error = torch.where(gap < 1, gap.square() / 2, gap - 0.5)
    assert (gap > 1).any() and (gap < 1).any() and len(gap) == 16 + 40 + 4
    wanted = {
        "reconstruction_loss": error.mean(),
        "root_loss": error[:, :root].sum() / error.numel(),
        "kl_loss": 0.5 * torch.cat(means).square().mean(),
    }
    for name, value in wanted.items():
        assert_near(output[name], value, tolerance=1e-5)
    weights = torch.tensor([1.3] * root + [1.0] * (width - root))
    assert_near(output.loss, (weights * error).mean() + 0.05 * wanted["kl_loss"], tolerance=1e-5)
    total = wanted["reconstruction_loss"] + 0.3 * wanted["root_loss"] + 0.05 * wanted["kl_loss"]
    assert_near(output.loss, total, tolerance=1e-5)


def test_the_divergence_is_of_the_means_and_not_of_the_noise(make_codec):
    model = make_codec(sigma_max=5.0)
    values = make_clips((40,))[0][None]
    assert_near(model.train()(values).kl_loss, model.eval()(values).kl_loss)


def test_the_published_weights_and_sizes_are_the_defaults():
    config = CausalMotionCodecConfig()
    assert (config.num_features, config.num_root_features, config.latent_dim) == (272, 8, 32)
    assert (config.downsampling_factor, config.sigma_max, config.root_weight) == (4, 0.01, 7.0)
    with torch.device("meta"):
        model = CausalMotionCodec(config)
        frames = torch.empty(2, 66, 272)
        latents = model.encoder(frames[:, :64])
    dilations = [unit.dilated_conv.dilation[0] for stage in model.encoder.stages for unit in stage.residual_units]
    assert dilations == [9, 3, 1, 9, 3, 1] and latents.shape == (2, 16, 32)
    assert model.decoder(latents).shape == (2, 64, 272)
    assert sum(weight.numel() for weight in model.parameters()) == 70_057_264


def test_the_loss_is_left_out_on_request(model):
    output = model(make_clips((16,))[0][None], return_loss=False)
    assert output.loss is None and output.kl_loss is None and output.motion_values is not None


def test_every_weight_learns(make_codec):
    model = make_codec().train()
    model(*pad(make_clips())).loss.backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.any(), name


def test_a_clip_is_learned_by_heart():
    """A swing of one frequency, other in each feature; noise would not fit through the latents."""
    torch.manual_seed(0)
    model = CausalMotionCodec(CausalMotionCodecConfig(num_features=263, hidden_size=16, latent_dim=8)).train()
    phases = 6 * torch.rand(263, generator=torch.Generator().manual_seed(0))
    clip = torch.sin(0.4 * torch.arange(32)[:, None] + phases)[None]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    before = float(model(clip).reconstruction_loss.detach())
    for _ in range(60):
        optimizer.zero_grad()
        model(clip).loss.backward()
        optimizer.step()
    assert float(model.eval()(clip).reconstruction_loss.detach()) < 0.1 * before


def test_losses_are_computed_in_single_precision_under_autocast(model):
    with torch.autocast("cpu", torch.bfloat16):
        output = model.train()(*pad(make_clips()))
    parts = ("loss", "reconstruction_loss", "root_loss", "kl_loss")
    assert {output[name].dtype for name in parts} == {torch.float32}
    output.loss.backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


# Saving and loading


def test_a_saved_codec_comes_back_as_it_was(model, tiny_feature_extractor, tmp_path):
    model.config.kl_weight = 0.25
    model.save_pretrained(tmp_path)
    tiny_feature_extractor.save_pretrained(tmp_path)
    values, mask = pad(make_clips())
    for loaded in (CausalMotionCodec.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert type(loaded) is CausalMotionCodec and not loaded.training
        weights = loaded.state_dict()
        assert weights.keys() == model.state_dict().keys()
        assert all(torch.equal(weights[name], weight) for name, weight in model.state_dict().items())
        assert torch.equal(loaded(values, mask).loss, model(values, mask).loss)
    assert AutoConfig.from_pretrained(tmp_path).kl_weight == 0.25
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert extractor.to_dict() == tiny_feature_extractor.to_dict()


WITHOUT_THE_PACKAGE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "geomotiongpt":
            raise ImportError("hidden")

sys.meta_path.insert(0, Hidden())
import torch
from transformers import AutoModel

model = AutoModel.from_pretrained("FOLDER", trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model)
saved = torch.load("FOLDER/expected.pt", weights_only=True)
torch.testing.assert_close(model.encode(saved["values"]).latents, saved["latents"], rtol=1e-6, atol=1e-6)
decoder = model.streaming_decoder()
torch.testing.assert_close(decoder.push(saved["latents"]), saved["made"], rtol=1e-6, atol=1e-6)
assert "geomotiongpt" not in sys.modules
"""


@pytest.mark.slow
@torch.no_grad()
def test_a_saved_codec_works_where_the_package_is_not_installed(model, tmp_path):
    model.save_pretrained(tmp_path)
    values = make_clips((40,))[0][None]
    output = model(values, return_loss=False)
    saved = {"values": values, "latents": output.latents, "made": output.motion_values}
    torch.save(saved, tmp_path / "expected.pt")
    env = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    run_python(WITHOUT_THE_PACKAGE.replace("FOLDER", str(tmp_path)), env=env)


def test_an_incomplete_checkpoint_is_refused(model, tmp_path):
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["unknown"] = weights.pop("decoder.output_conv.bias")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing: decoder.output_conv.bias; unexpected: unknown"):
        CausalMotionCodec.from_pretrained(tmp_path)


def test_a_codec_works_in_half_precision(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = CausalMotionCodec.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {weight.dtype for weight in loaded.parameters()} == {torch.bfloat16}
    values, mask = pad(make_clips())
    with torch.no_grad():
        half, full = loaded(values, mask), model(values, mask)
    assert half.motion_values.dtype == torch.bfloat16 and half.loss.dtype == torch.float32
    assert float(half.loss) == pytest.approx(float(full.loss), rel=0.02)
    assert (half.motion_values.float() - full.motion_values).norm() < 0.05 * full.motion_values.norm()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.parent.name)
def test_committed_recipes_are_understood(path):
    sections = load_recipe(path, ("model", "data", "training"))
    assert sections["model"].pop("model_type") == "causal_motion_codec"
    build_section(CausalMotionCodecConfig, sections["model"], "model")
    data = build_section(MotionDataArguments, sections["data"], "data")
    arguments = build_section(MotionWindowTrainingArguments, sections["training"], "training")
    assert arguments.window_frames == 64
    if "1b" in path.parent.name:
        assert sections["model"] == {} and data.representation == "streaming272", "the paper's size is the default"


# Bad input


def masked(frames, num_frames=16):
    """Two rows; the first is padded on the right, the second is valid in the given frames."""
    mask = torch.zeros(2, num_frames, dtype=torch.bool)
    mask[0, :9] = mask[1, frames] = True
    return mask


@pytest.mark.parametrize(
    ("values", "mask", "message"),
    [
        (
            torch.zeros(1, 16, 272),
            None,
            "motion_values has the shape (1, 16, 272); this codec takes (batch, length, 263",
        ),
        (torch.zeros(16, 263), None, "motion_values has the shape (16, 263); this codec takes (batch, length, 263)"),
        (torch.zeros(2, 16, 263), masked([0], 15), "motion_mask has the shape (2, 15); wanted (2, 16)"),
        (torch.zeros(2, 16, 263), torch.ones(16), "motion_mask has the shape (16,); wanted (2, 16)"),
        (
            torch.zeros(2, 16, 263),
            masked(slice(1, 16)),
            "motion_mask has valid entries after padding; pad on the right",
        ),
        (torch.zeros(2, 16, 263), masked([0, 2]), "motion_mask has valid entries after padding; pad on the right"),
        (torch.zeros(2, 16, 263), masked([]), "the shortest of 2 rows has 0 valid entries; wanted 4"),
        (torch.zeros(2, 16, 263), masked(slice(3)), "the shortest of 2 rows has 3 valid entries; wanted 4"),
        (torch.zeros(1, 3, 263), None, "the shortest of 1 rows has 3 valid entries; wanted 4"),
        (torch.zeros(1, 0, 263), None, "the shortest of 1 rows has 0 valid entries; wanted 4"),
        (torch.zeros(0, 16, 263), None, "the shortest of 0 rows has 0 valid entries; wanted 4"),
    ],
    ids=[
        "width",
        "no batch",
        "mask length",
        "mask batch",
        "left",
        "gap",
        "no frames",
        "short row",
        "too short",
        "empty",
        "no rows",
    ],
)
def test_motion_of_the_wrong_form_is_refused(model, values, mask, message):
    for call in (model.encode, model):
        with pytest.raises(ValueError, match=re.escape(message)):
            call(values, mask)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused_by_their_place(model, value):
    values = torch.zeros(2, 16, 263)
    values[1, 15, 7] = value  # in a frame that is encoded, or dropped
    for length in (16, 17):
        values = torch.nn.functional.pad(values, (0, 0, 0, length - 16))
        with pytest.raises(ValueError, match="motion_values has a NaN or infinite value, first in row 1 at 15"):
            model(values)
    stream = model.streaming_encoder()
    with pytest.raises(ValueError, match="motion_values has a NaN or infinite value, first in row 1 at 15"):
        stream.push(values)
    with pytest.raises(ValueError, match="latents has a NaN or infinite value, first in row 0 at 2"):
        model.decode(torch.tensor([0, 0, value, 0]).view(1, 4, 1).expand(1, 4, 8))


@pytest.mark.parametrize(
    ("shape", "mask", "message"),
    [
        ((2, 8), None, "latents has the shape (2, 8); this codec takes (batch, length, 8)"),
        ((2, 5, 32), None, "latents has the shape (2, 5, 32); this codec takes (batch, length, 8)"),
        ((2, 0, 8), None, "latent_mask: the shortest of 2 rows has 0 valid entries; wanted 1"),
        ((2, 5, 8), torch.ones(2, 4), "latent_mask has the shape (2, 4); wanted (2, 5)"),
        ((1, 3, 8), torch.tensor([[0, 1, 1]]), "latent_mask has valid entries after padding; pad on the right"),
    ],
)
def test_what_cannot_be_decoded_is_refused(model, shape, mask, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        model.decode(torch.zeros(shape), mask)


def test_a_stream_refuses_another_width_or_batch(model):
    for stream, width in ((model.streaming_encoder(), 263), (model.streaming_decoder(), 8)):
        with pytest.raises(ValueError, match=re.escape(f"this codec takes (batch, length, {width})")):
            stream.push(torch.zeros(2, 4, width + 1))
        stream.push(torch.zeros(2, 4, width))
        with pytest.raises(ValueError, match=re.escape("3 sequences were pushed, 2 before; `reset()` begins other")):
            stream.push(torch.zeros(3, 4, width))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": 0}, "hidden_size is 0; it must be at least 1"),
        ({"latent_dim": -2}, "latent_dim is -2; it must be at least 1"),
        ({"sigma_max": -0.1}, "sigma_max is -0.1; it must not be negative"),
        ({"root_weight": math.nan}, "root_weight is nan; it must not be negative"),
        ({"num_downsampling_layers": -1}, "num_downsampling_layers is -1; it must not be negative"),
    ],
)
def test_an_impossible_setting_is_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        CausalMotionCodecConfig(**settings)
