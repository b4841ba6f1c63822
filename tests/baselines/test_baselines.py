"""The baseline quantisers: codes, moving averages, resets, padding, saving, and the way into a language model."""

import copy
import itertools
import math
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import AutoModel

from geomotiongpt import GeoMotionGPTForCausalLM, MotionTokenizer
from geomotiongpt.baselines import (
    FSQMotionTokenizer,
    FSQMotionTokenizerConfig,
    ResidualVQMotionTokenizer,
    ResidualVQMotionTokenizerConfig,
    VQMotionTokenizer,
    VQMotionTokenizerConfig,
)

LENGTHS = (8, 9, 15, 16, 23, 31, 40, 61, 64)
TRUNK = {"hidden_size": 16, "num_residual_layers": 1}
SETTINGS = {
    VQMotionTokenizer: {"num_codes": 24, "code_dim": 6},
    ResidualVQMotionTokenizer: {"num_quantizers": 3, "codes_per_quantizer": 8, "code_dim": 6},
    FSQMotionTokenizer: {"levels": [5, 4, 3]},
}
LEARNED = (VQMotionTokenizer, ResidualVQMotionTokenizer)
SINGLE = (VQMotionTokenizer, FSQMotionTokenizer)


def make(model_class, **settings):
    """A small tokenizer in evaluation mode, its latent values spread around zero so that it uses many codes."""
    torch.manual_seed(0)
    model = model_class(model_class.config_class(**TRUNK | SETTINGS[model_class] | settings))
    with torch.no_grad():
        latents, _ = valid_latents(model.eval(), *pad(make_clips()))
        last = model.encoder.output_conv
        scale = 1.5 / latents.std(0)
        last.weight.mul_(scale[:, None, None])
        last.bias.copy_(-latents.mean(0) * scale)
        for weight in model.decoder.parameters():
            weight.mul_(1.5)
    return model


def make_clips(lengths=LENGTHS):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(length, 263, generator=generator) for length in lengths]


def pad(clips, num_frames=None, filling=0.0):
    lengths = torch.tensor([len(clip) for clip in clips])
    values = torch.full((len(clips), num_frames or int(lengths.max()), 263), filling)
    for row, clip in zip(values, clips, strict=True):
        row[: len(clip)] = clip
    return values, torch.arange(values.shape[1]) < lengths[:, None]


def valid_latents(model, values, mask):
    """Latent vectors (n, code_dim) and codes (n, codes_per_frame) of the valid latent frames."""
    output = model.encode(values, mask)
    codes = output.motion_codes.unflatten(1, (-1, model.codes_per_frame))
    frames = output.motion_code_mask[:, :: model.codes_per_frame]
    return output.latents[frames].detach(), codes[frames]


def state(model):
    return copy.deepcopy(model.state_dict())


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(params=SETTINGS, ids=lambda model_class: model_class.__name__)
def model(request):
    return make(request.param)


@pytest.fixture(params=LEARNED, ids=lambda model_class: model_class.__name__)
def learned(request):
    return request.param


@pytest.fixture(params=SINGLE, ids=lambda model_class: model_class.__name__)
def single(request):
    return make(request.param)


# Padding


def test_a_clip_has_the_same_codes_alone_and_in_a_padded_batch(model):
    clips = make_clips()
    per_frame = model.codes_per_frame
    batch = model.encode(*pad(clips, 83))
    assert batch.motion_codes.shape == batch.motion_code_mask.shape == (len(clips), 10 * per_frame)
    assert len(batch.motion_codes[batch.motion_code_mask].unique()) > 6, "the codes hardly depend on the motion"
    for row, clip in enumerate(clips):
        alone = model.encode(clip[None])
        length = len(clip) // 8 * per_frame
        assert alone.motion_codes.shape == (1, length) and alone.motion_code_mask.all()
        assert torch.equal(batch.motion_codes[row, :length], alone.motion_codes[0])
        assert (batch.motion_codes[row, length:] == -1).all()
        assert batch.motion_code_mask[row].sum() == length


@pytest.mark.parametrize("filling", [math.nan, 1e6])
def test_padding_touches_neither_loss_nor_gradients_nor_moving_averages(model, filling):
    clips = make_clips((15, 40, 8))
    results = []
    for arguments in ((None, 0.0), (None, filling), (80, filling)):
        trained = copy.deepcopy(model).train()
        torch.manual_seed(2)
        output = trained(*pad(clips, *arguments))
        output.loss.backward()
        gradients = {name: weight.grad for name, weight in trained.named_parameters() if weight.grad is not None}
        results.append((output.loss.detach(), gradients, state(trained)))
    clean = results[0]
    for loss, gradients, after in results[1:]:
        torch.testing.assert_close(loss, clean[0])
        assert gradients.keys() == clean[1].keys() and len(gradients) > 10
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, clean[1][name])
        for name, value in after.items():
            torch.testing.assert_close(value, clean[2][name])


def test_rows_without_a_motion_have_no_codes_and_no_loss(model):
    values, mask = torch.zeros(2, 16, 263), torch.zeros(2, 16, dtype=torch.bool)
    assert (model.encode(values, mask).motion_codes == -1).all()
    before = state(model)
    assert model.train()(values, mask).loss == 0
    if isinstance(model, FSQMotionTokenizer):
        assert same(state(model), before)


# Quantisation


def test_evaluation_decodes_the_codes_that_it_reports_and_changes_nothing(model):
    values, mask = pad(make_clips())
    before, random_state = state(model), torch.get_rng_state()
    output = model(values, mask)
    assert torch.equal(output.motion_codes, model.encode(values, mask).motion_codes)
    decoded = model.decode(output.motion_codes)
    torch.testing.assert_close(decoded.motion_values, output.motion_values)
    assert torch.equal(decoded.motion_mask, output.motion_mask)
    assert torch.equal(decoded.motion_mask.sum(-1), mask.sum(-1) // 8 * 8)
    assert same(state(model), before) and torch.equal(torch.get_rng_state(), random_state)


def test_encoding_in_training_mode_changes_nothing(model):
    values, mask = pad(make_clips())
    expected, before = model.encode(values, mask).motion_codes, state(model)
    assert torch.equal(model.train().encode(values, mask).motion_codes, expected)
    assert same(state(model), before)


def test_each_quantiser_takes_the_code_nearest_to_what_the_others_leave(learned):
    model = make(learned)
    latents, codes = valid_latents(model, *pad(make_clips()))
    size = model.config.num_codes // model.codes_per_frame
    for place in range(model.codes_per_frame):
        rows = model.codebook.weight[place * size : (place + 1) * size]
        nearest = torch.cdist(latents, rows).argmin(-1)
        assert torch.equal(codes[:, place], nearest + place * size)
        latents = latents - rows[nearest]
    assert len(codes[:, 0].unique()) > 4


def test_fsq_rounds_each_bounded_value_to_its_levels():
    model = make(FSQMotionTokenizer)
    latents, codes = valid_latents(model, *pad(make_clips()))
    # Odd numbers of levels: half * tanh(z), rounded, in units of (L - 1) / 2.
    for value, levels in ((0, 5), (2, 3)):
        half = (levels - 1) / 2
        expected = (half * 1.001 * latents[:, value].tanh()).round() / half
        torch.testing.assert_close(model.codebook.weight[codes[:, 0], value], expected)
        assert len(expected.unique()) == levels


def test_the_fsq_codebook_is_the_whole_lattice():
    model = make(FSQMotionTokenizer)
    lattice = itertools.product([-1, -0.5, 0, 0.5, 1], [-1, -0.5, 0, 0.5], [-1, 0, 1])
    assert {tuple(row) for row in model.codebook.weight.tolist()} == set(lattice)
    assert model.config.num_codes == len(model.codebook.weight) == 60 and model.config.code_dim == 3


def test_the_decoder_sees_the_sum_of_the_codes_vectors(model):
    seen = []
    model.decoder.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    for training in (False, True):
        codebook = model.codebook.weight.detach().clone()
        output = model.train(training)(*pad(make_clips()))
        frames = output.motion_code_mask[:, :: model.codes_per_frame]
        codes = output.motion_codes.unflatten(1, (-1, model.codes_per_frame))[frames]
        vectors = seen[-1].transpose(1, 2)
        torch.testing.assert_close(vectors[frames], codebook[codes].sum(1))
        assert (vectors[~frames] == 0).all()


def test_the_gradient_passes_straight_through(learned):
    """The encoder's gradient is the decoder's, and nothing reaches the codebook."""
    model = make(learned, commitment_weight=0.0).train()
    kept = {}

    def keep(name, tensor):
        tensor.retain_grad()
        kept[name] = tensor

    model.encoder.register_forward_hook(lambda module, arguments, output: keep("latents", output))
    model.decoder.register_forward_pre_hook(lambda module, arguments: keep("vectors", arguments[0]))
    model(make_clips((64,))[0][None]).loss.backward()
    assert kept["latents"].grad.abs().max() > 1e-5
    torch.testing.assert_close(kept["latents"].grad, kept["vectors"].grad)
    assert model.codebook.weight.grad is None


def test_the_gradient_of_fsq_passes_through_its_bounds():
    model = make(FSQMotionTokenizer).train()
    kept = {}

    def keep(name, tensor):
        tensor.retain_grad()
        kept[name] = tensor

    model.encoder.register_forward_hook(lambda module, arguments, output: keep("latents", output))
    model.decoder.register_forward_pre_hook(lambda module, arguments: keep("vectors", arguments[0]))
    model(make_clips((64,))[0][None]).loss.backward()
    # The first value has five levels: d(tanh(z) * 2.002 / 2) / dz.
    slope = 1.001 * (1 - kept["latents"][:, 0].detach().tanh().square())
    torch.testing.assert_close(kept["latents"].grad[:, 0], kept["vectors"].grad[:, 0] * slope)


@pytest.mark.parametrize("training", [False, True])
def test_the_loss_is_reconstruction_and_weighted_commitment(learned, training):
    model = make(learned, commitment_weight=0.3)
    values, mask = pad(make_clips())
    latents, codes = valid_latents(model, values, mask)
    sums = model.codebook.weight.detach()[codes].cumsum(1)
    commitment = (latents.unsqueeze(1) - sums).square().mean()
    output = model.train(training)(values, mask)
    torch.testing.assert_close(output.commitment_loss, commitment)
    torch.testing.assert_close(output.loss, output.reconstruction_loss + 0.3 * commitment)
    errors = functional.smooth_l1_loss(output.motion_values, values[:, :64], reduction="none").mean(-1)
    torch.testing.assert_close(output.reconstruction_loss, errors[output.motion_mask].mean())


def test_commitment_pulls_the_latents_to_their_codes():
    model = make(VQMotionTokenizer).train()
    model.encoder.register_forward_hook(lambda module, arguments, output: kept.append(output) or output.retain_grad())
    kept = []
    output = model(make_clips((64,))[0][None])
    output.commitment_loss.backward()
    latents = kept[0].transpose(1, 2)[0]
    vectors = make(VQMotionTokenizer).codebook.weight[output.motion_codes[0]]
    torch.testing.assert_close(kept[0].grad.transpose(1, 2)[0], 2 * (latents - vectors) / latents.numel())


def test_perplexity_and_dead_codes_are_those_of_the_codes_of_the_batch(model):
    output = model(*pad(make_clips()))
    codes = output.motion_codes[output.motion_code_mask].tolist()
    shares = [codes.count(code) / len(codes) for code in set(codes)]
    assert output.perplexity.item() == pytest.approx(math.exp(-sum(share * math.log(share) for share in shares)))
    assert output.dead_codes.item() == model.config.num_codes - len(shares)


# Codebooks that learn


def test_codes_follow_the_means_of_their_latents():
    model = make(VQMotionTokenizer, decay=0.7, dead_code_threshold=0.0)
    values, mask = pad(make_clips())
    before = model.codebook.weight.detach().clone()
    latents, codes = valid_latents(model, values, mask)
    model.train()(values, mask)
    counts = torch.bincount(codes[:, 0], minlength=24)
    assert (counts == 0).any() and counts.max() > 2
    for code, count in enumerate(counts.tolist()):
        # Each code begins as used once, at its own place.
        total = 0.7 * before[code] + 0.3 * latents[codes[:, 0] == code].sum(0)
        expected = total / (0.7 + 0.3 * count)
        torch.testing.assert_close(model.codebook.weight[code], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_dead_codes_move_to_latents_of_the_batch_if_asked(learned, threshold):
    model = make(learned, dead_code_threshold=threshold, decay=0.9)
    values, mask = pad(make_clips())
    before = model.codebook.weight.detach().clone()
    latents, codes = valid_latents(model, values, mask)
    model.train()(values, mask)
    size = model.config.num_codes // model.codes_per_frame
    num_dead = 0
    for place in range(model.codes_per_frame):
        first = place * size
        used = torch.bincount(codes[:, place] - first, minlength=size)
        dead = first + (used == 0).nonzero()[:, 0]
        num_dead += len(dead)
        if threshold:
            differences = model.codebook.weight[dead].unsqueeze(1) - latents
            assert (differences.norm(dim=-1).amin(-1) < 1e-4).all()
        else:
            torch.testing.assert_close(model.codebook.weight[dead], before[dead], rtol=1e-3, atol=1e-3)
        latents = latents - before[codes[:, place]]
    assert num_dead > 1, "all codes are used"


def test_a_collapsed_codebook_comes_back_to_life():
    model = make(VQMotionTokenizer, decay=0.9)
    with torch.no_grad():
        model.codebook.weight[1:].add_(1e3)
    values, mask = pad(make_clips())
    assert model(values, mask).perplexity == 1
    for _ in range(3):
        model.train()(values, mask)
    assert model.eval()(values, mask).perplexity > 8


def test_no_optimizer_and_no_gradient_trains_the_codebook(model):
    model.train()(*pad(make_clips())).loss.backward()
    assert not model.codebook.weight.requires_grad and model.codebook.weight.grad is None
    others = [weight for name, weight in model.named_parameters() if name != "codebook.weight"]
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in others)


# Several codes a latent frame


def test_residual_codes_stand_frame_by_frame_in_the_order_of_the_quantisers():
    model = make(ResidualVQMotionTokenizer)
    codes = model.encode(*pad(make_clips((16, 40)))).motion_codes
    assert codes.shape == (2, 15) and (codes[0, 6:] == -1).all()
    for row, length in ((0, 6), (1, 15)):
        assert (codes[row, :length] // 8).tolist() == [0, 1, 2] * (length // 3)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([[0, 8]], "a latent frame has 3 of them"),
        ([[0, 8, 16, 1, 9, -1]], r"hold \[5\] codes; a latent frame has 3"),
        ([[8, 0, 16]], "not in its place"),
        ([[0, 8, 24]], "codes 0 to 23"),
    ],
)
def test_codes_that_are_no_residual_codes_are_refused(codes, message):
    with pytest.raises(ValueError, match=message):
        make(ResidualVQMotionTokenizer).decode(torch.tensor(codes))


# Saving and loading


def test_a_saved_baseline_comes_back_and_trains_on_alike(model, tmp_path):
    values, mask = pad(make_clips())
    model.train()(values, mask)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is type(model) and not loaded.training
    assert same(loaded.state_dict(), model.state_dict())
    buffers = dict(loaded.named_buffers())
    assert all(torch.equal(buffers[name], buffer) for name, buffer in model.named_buffers())
    assert not loaded.codebook.weight.requires_grad
    torch.testing.assert_close(loaded(values, mask).motion_values, model.eval()(values, mask).motion_values)
    for one in (model, loaded):
        torch.manual_seed(3)
        one.train()(values, mask)
    assert same(loaded.state_dict(), model.state_dict())


def test_a_saved_baseline_promises_no_code_that_travels(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    assert "auto_map" not in (tmp_path / "config.json").read_text()


def test_missing_weights_are_refused(model, tmp_path):
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for name in ("codebook.weight", next((n for n in weights if n.endswith("embed_avg")), "decoder.output_conv.bias")):
        kept = {key: value for key, value in weights.items() if key != name}
        save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
        with pytest.raises(ValueError, match=f"missing: {name}"):
            AutoModel.from_pretrained(tmp_path)


def test_a_baseline_works_in_half_precision(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    values, mask = pad(make_clips())
    assert loaded(values, mask).motion_values.dtype == torch.bfloat16
    agreement = loaded.encode(values, mask).motion_codes == model.encode(values, mask).motion_codes
    assert agreement.double().mean() > 0.7


def test_autocast_leaves_codes_and_averages_in_full_precision(model):
    values, mask = pad(make_clips())
    expected = copy.deepcopy(model).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        latents, codes = valid_latents(model, values, mask)
        torch.manual_seed(4)
        output = model.train()(values, mask)
    output.loss.backward()
    assert latents.dtype == torch.bfloat16 and output.loss.isfinite()
    torch.manual_seed(4)
    _, expected_codes, _ = expected._quantise(latents, update=True)
    assert torch.equal(codes, expected_codes)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected.state_dict()[name])


def test_every_setting_survives_saving(tmp_path):
    settings = {
        VQMotionTokenizerConfig: {"decay": 0.9, "dead_code_threshold": 0.5, "commitment_weight": 0.2},
        ResidualVQMotionTokenizerConfig: {"num_quantizers": 2, "codes_per_quantizer": 7, "num_codes": 14},
        FSQMotionTokenizerConfig: {"levels": [5, 3], "num_codes": 15, "code_dim": 2},
    }
    for config_class, values in settings.items():
        config_class(**values, hidden_size=24).save_pretrained(tmp_path)
        loaded = config_class.from_pretrained(tmp_path)
        assert {name: getattr(loaded, name) for name in values} == values and loaded.hidden_size == 24


# Into a language model


def test_a_plain_tokenizer_gives_the_same_codes_and_motions(single):
    values, mask = pad(make_clips())
    single.train()(values, mask)
    single.eval()
    plain = single.to_motion_tokenizer()
    assert type(plain) is MotionTokenizer and plain.config.model_type == "motion_tokenizer"
    expected, output = single(values, mask), plain(values, mask)
    assert torch.equal(output.motion_codes, expected.motion_codes)
    assert len(output.motion_codes.unique()) > 6
    torch.testing.assert_close(output.motion_values, expected.motion_values)
    assert torch.equal(plain.codebook.weight, single.codebook.weight)


def test_every_fsq_threshold_is_in_its_place():
    """Right beside each threshold the plain scores and the quantiser agree, for even and odd numbers of levels."""
    model = make(FSQMotionTokenizer, levels=[8, 5, 3, 4])
    weights, biases = model._linear_scores()
    grid = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    for value in range(4):
        latents = torch.zeros(len(grid), 4, dtype=torch.float64)
        latents[:, value] = grid
        model.double()
        _, codes, _ = model._quantise(latents, update=False)
        assert torch.equal((latents @ weights.T + biases).argmax(-1), codes[:, 0])
        assert len(codes.unique()) == model.config.levels[value]


def test_a_language_model_takes_a_baseline_as_a_plain_tokenizer(single, tiny_language_model, tmp_path):
    single.save_pretrained(tmp_path / "baseline")
    model = GeoMotionGPTForCausalLM.from_components(tiny_language_model, tmp_path / "baseline").eval()
    direct = GeoMotionGPTForCausalLM.from_components(tiny_language_model, single)
    assert torch.equal(model.motion_codebook.weight, single.codebook.weight)
    assert torch.equal(direct.motion_codebook.weight, single.codebook.weight)
    assert type(model.motion_tokenizer) is type(direct.motion_tokenizer) is MotionTokenizer
    values, mask = pad(make_clips((40,)))
    placeholders = torch.full((1, 5), model.config.motion_placeholder_token_id)
    ids = model.encode_motion(placeholders, values, mask)
    assert torch.equal(ids - model.config.first_motion_token_id, single.encode(values, mask).motion_codes)
    model.save_pretrained(tmp_path)
    loaded = GeoMotionGPTForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_residual_codes_cannot_go_into_a_language_model(tiny_language_model):
    with pytest.raises(ValueError, match="3 codes for each latent frame.*vq_motion_tokenizer"):
        GeoMotionGPTForCausalLM.from_components(tiny_language_model, make(ResidualVQMotionTokenizer))
    with pytest.raises(ValueError, match="the motion tokenizer is a 'gpt2': give a MotionTokenizer"):
        GeoMotionGPTForCausalLM.from_components(tiny_language_model, tiny_language_model)


# Configuration and the library


@pytest.mark.parametrize(
    ("config_class", "settings", "message"),
    [
        (VQMotionTokenizerConfig, {"decay": 1.0}, "decay is 1.0"),
        (VQMotionTokenizerConfig, {"dead_code_threshold": -1.0}, "dead_code_threshold is -1.0"),
        (VQMotionTokenizerConfig, {"commitment_weight": -0.1}, "commitment_weight is -0.1"),
        (VQMotionTokenizerConfig, {"orthonormality_weight": 0.01}, "orthonormality_weight is 0.01; a vq_motion_token"),
        (FSQMotionTokenizerConfig, {"utilisation_weight": 0.1}, "utilisation_weight is 0.1; an? fsq_motion_tokenizer"),
        (ResidualVQMotionTokenizerConfig, {"num_quantizers": 0}, "num_quantizers is 0"),
        (ResidualVQMotionTokenizerConfig, {"num_codes": 512}, "num_codes is 512, but .* make it 3072"),
        (FSQMotionTokenizerConfig, {"levels": [8, 2]}, r"levels are \[8, 2\]"),
        (FSQMotionTokenizerConfig, {"levels": []}, r"levels are \[\]"),
        (FSQMotionTokenizerConfig, {"num_codes": 500}, r"num_codes is 500, but levels \[8, 8, 8\] make it 512"),
        (FSQMotionTokenizerConfig, {"code_dim": 128}, r"code_dim is 128, but levels \[8, 8, 8\] make it 3"),
    ],
)
def test_an_impossible_setting_is_refused_by_name(config_class, settings, message):
    with pytest.raises(ValueError, match=message):
        config_class(**settings)


def test_without_the_library_the_error_says_what_to_install(model, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "vector_quantize_pytorch", None)
    for call in (lambda: type(model)(model.config), lambda: AutoModel.from_pretrained(tmp_path)):
        with pytest.raises(ValueError, match=r"vector_quantize_pytorch.*pip install 'geomotiongpt\[baselines\]'"):
            call()


def test_importing_the_package_does_not_import_the_library():
    code = "import sys, geomotiongpt.baselines; sys.exit('vector_quantize_pytorch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
