"""The motion tokenizer: padding, quantisation, losses, and what is saved."""

import copy
import math

import pytest
import torch
from torch.nn import functional

from geomotiongpt import MotionTokenizer, MotionTokenizerConfig
from geomotiongpt.models.geometry import GEOMETRIC_CONSTRAINTS, equal_clusters, geometric_loss

LENGTHS = (8, 9, 15, 16, 23, 31, 40, 61, 64)


def make_tokenizer(seed=0, **settings):
    """A small tokenizer in double precision with weights large enough for codes and motion to depend on the input."""
    torch.manual_seed(seed)
    sizes = {"num_codes": 24, "code_dim": 32, "hidden_size": 16}
    model = MotionTokenizer(MotionTokenizerConfig(**sizes | settings)).double()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 3:
                weight.mul_(0.2 if name == "encoder.output_conv.weight" else 2)
    return model.eval()


def make_clips(lengths=LENGTHS, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, 263, generator=generator, dtype=torch.float64) for length in lengths]


def pad(clips, num_frames=None, filling=0.0):
    lengths = torch.tensor([len(clip) for clip in clips])
    values = torch.full((len(clips), num_frames or int(lengths.max()), 263), filling, dtype=torch.float64)
    for row, clip in zip(values, clips, strict=True):
        row[: len(clip)] = clip
    return values, torch.arange(values.shape[1]) < lengths[:, None]


def decoder_input(model, *inputs):
    """The code vectors (batch, codes, code_dim) that a forward pass decodes, and its output."""
    seen = []
    handle = model.decoder.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    output = model(*inputs)
    handle.remove()
    return seen[0].transpose(1, 2), output


@pytest.fixture
def model():
    return make_tokenizer()


# Padding


@pytest.mark.parametrize("num_frames", [64, 83])
def test_a_clip_has_the_same_codes_alone_and_in_a_padded_batch(model, num_frames):
    clips = make_clips()
    batch = model.encode(*pad(clips, num_frames))
    assert batch.motion_codes.shape == batch.motion_code_mask.shape == (len(clips), num_frames // 8)
    assert len(batch.motion_codes[batch.motion_code_mask].unique()) > 6, "the codes hardly depend on the motion"
    for row, clip in enumerate(clips):
        alone = model.encode(clip[None])
        num_codes = len(clip) // 8
        assert alone.motion_codes.shape == (1, num_codes) and alone.motion_code_mask.all()
        assert batch.motion_code_mask[row].tolist() == [True] * num_codes + [False] * (num_frames // 8 - num_codes)
        torch.testing.assert_close(batch.logits[row, :num_codes], alone.logits[0], rtol=0, atol=1e-12)
        assert torch.equal(batch.motion_codes[row, :num_codes], alone.motion_codes[0])
        assert (batch.motion_codes[row, num_codes:] == -1).all()


def test_codes_are_decoded_alike_alone_and_in_a_padded_batch(model):
    codes = torch.full((4, 9), -1)
    lengths = (1, 2, 5, 8)
    for row, length in zip(codes, lengths, strict=True):
        row[:length] = torch.randint(24, (length,))
    batch = model.decode(codes)
    assert batch.motion_values.shape == (4, 72, 263)
    for row, length in enumerate(lengths):
        alone = model.decode(codes[row : row + 1, :length])
        assert alone.motion_mask.all() and batch.motion_mask[row].sum() == 8 * length
        torch.testing.assert_close(batch.motion_values[row, : 8 * length], alone.motion_values[0], rtol=0, atol=1e-12)
        assert (batch.motion_values[row, 8 * length :] == 0).all()


def test_what_the_mask_leaves_out_is_not_decoded(model):
    codes = torch.tensor([[3, 7, 999, -5], [1, 2, 4, 5]])
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    decoded = model.decode(codes, mask)
    expected = model.decode(torch.tensor([[3, 7, -1, -1], [1, 2, 4, 5]]))
    assert torch.equal(decoded.motion_values, expected.motion_values)
    assert torch.equal(decoded.motion_mask, expected.motion_mask)


@pytest.mark.parametrize("filling", [math.nan, math.inf, 1e6])
def test_padding_leaks_neither_into_the_output_nor_into_loss_and_gradients(filling):
    clips = make_clips((15, 40, 8))
    results = []
    for value in (0.0, filling):
        model = make_tokenizer(gumbel_noise=0.0).train()
        output = model(*pad(clips, filling=value))
        output.loss.backward()
        results.append((output, {name: weight.grad for name, weight in model.named_parameters()}))
    (clean, clean_gradients), (dirty, dirty_gradients) = results
    for name, value in clean.items():
        assert torch.equal(dirty[name], value), name
    for name, gradient in clean_gradients.items():
        assert torch.equal(dirty_gradients[name], gradient), name


def test_trailing_frames_that_fill_no_code_are_dropped(model):
    clip = make_clips((31,))[0]
    output = model(clip[None])
    assert output.motion_codes.shape == (1, 3) and output.motion_values.shape == (1, 24, 263)


# Quantisation


def test_evaluation_decodes_the_argmax_codes_without_noise(model):
    values, mask = pad(make_clips())
    state = torch.get_rng_state()
    output = model(values, mask)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(output.motion_codes, model.encode(values, mask).motion_codes)
    assert torch.equal(output.motion_values, model.decode(output.motion_codes).motion_values)
    valid = output.motion_code_mask
    assert torch.equal(output.motion_codes[valid], model.encode(values, mask).logits.argmax(-1)[valid])


def test_training_without_gumbel_noise_decodes_what_evaluation_decodes():
    model = make_tokenizer(gumbel_noise=0.0)
    values, mask = pad(make_clips())
    expected = model(values, mask)
    model.train()
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.testing.assert_close(model(values, mask).motion_values, expected.motion_values, rtol=0, atol=1e-12)


def test_training_with_gumbel_noise_draws_from_the_global_generator():
    model = make_tokenizer().train()
    values = make_clips((64,))[0][None]
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(model(values).motion_values)
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


@torch.no_grad()
def test_gumbel_noise_samples_the_softmax_of_the_logits():
    """Noise 1 is the Gumbel-max trick: code frequencies are softmax(logits), at any temperature."""
    model = make_tokenizer(hidden_size=4).float().train()
    probabilities = torch.arange(1, 25) / 300
    model.encoder.output_conv.weight.zero_()
    model.encoder.output_conv.bias.copy_(probabilities.log())
    vectors, output = decoder_input(model, torch.zeros(200, 80, 263))
    codes = torch.cdist(vectors.flatten(0, 1), model.codebook.weight).argmin(-1)
    assert (output.motion_codes == 23).all(), "reported codes are without noise"
    torch.testing.assert_close(torch.bincount(codes, minlength=24) / 2000, probabilities, rtol=0, atol=0.025)


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_decoder_sees_exactly_one_row_of_the_codebook(noise, dtype):
    model = make_tokenizer(gumbel_noise=noise).to(dtype).train()
    values, mask = pad(make_clips())
    vectors, output = decoder_input(model, values, mask)
    same = (vectors.unsqueeze(2) == model.codebook.weight).all(-1)
    assert (same.sum(-1)[output.motion_code_mask] == 1).all()
    assert (vectors[~output.motion_code_mask] == 0).all()


def test_the_gradient_passes_straight_through_to_encoder_and_codebook():
    """The reconstruction alone trains both sides; the encoder's gradient is that of the soft assignment."""
    model = make_tokenizer(gumbel_noise=0.0, orthonormality_weight=0.0, utilisation_weight=0.0).train()
    values = make_clips((64,))[0][None]
    kept = {}

    def keep(name, tensor):
        tensor.retain_grad()
        kept[name] = tensor

    model.encoder.register_forward_hook(lambda module, arguments, output: keep("logits", output))
    model.decoder.register_forward_pre_hook(lambda module, arguments: keep("vectors", arguments[0]))
    model(values).loss.backward()
    assert all(weight.grad.abs().sum() > 0 for weight in model.parameters())
    logits = kept["logits"].detach().transpose(1, 2).requires_grad_()
    soft_vectors = (logits / 0.4).softmax(-1) @ model.codebook.weight.detach()
    soft_vectors.backward(kept["vectors"].grad.transpose(1, 2))
    assert logits.grad.abs().max() > 1e-4
    torch.testing.assert_close(kept["logits"].grad.transpose(1, 2), logits.grad)


def test_the_temperature_multiplier_multiplies_the_temperature():
    gradients = []
    for temperature, multiplier in ((0.4, 1.0), (0.4, 2.0), (0.8, 1.0)):
        model = make_tokenizer(gumbel_temperature=temperature).train()
        model.gumbel_temperature_multiplier = multiplier
        torch.manual_seed(3)
        model(make_clips((64,))[0][None]).reconstruction_loss.backward()
        gradients.append(model.encoder.input_conv.weight.grad)
    torch.testing.assert_close(gradients[1], gradients[2])
    assert (gradients[0] - gradients[1]).abs().max() > 1e-4


# Losses


def test_the_loss_is_the_weighted_sum_of_its_parts():
    model = make_tokenizer(orthonormality_weight=0.03, utilisation_weight=0.7)
    with torch.no_grad():
        model.codebook.weight.add_(torch.randn_like(model.codebook.weight))
    values, mask = pad(make_clips())
    output = model(values, mask)
    assert output.orthonormality_loss > 1 and output.utilisation_loss < -0.5
    parts = output.reconstruction_loss + 0.7 * output.utilisation_loss
    torch.testing.assert_close(output.loss, parts + 0.03 * output.orthonormality_loss)
    model.orthonormality_weight_multiplier = 0.25
    torch.testing.assert_close(model(values, mask).loss, parts + 0.25 * 0.03 * output.orthonormality_loss)


def test_the_orthonormality_loss_is_the_sum_over_the_gram_matrix(model):
    with torch.no_grad():
        model.codebook.weight.add_(torch.randn_like(model.codebook.weight))
    rows = functional.normalize(model.codebook.weight, dim=-1)
    expected = (rows @ rows.T - torch.eye(24, dtype=rows.dtype)).square().sum()
    torch.testing.assert_close(model(make_clips((8,))[0][None]).orthonormality_loss, expected)


@pytest.mark.parametrize("constraint", GEOMETRIC_CONSTRAINTS)
def test_the_codebook_is_held_to_the_configured_constraint(constraint):
    """Its value, its weight in the loss, and its pull at the codebook; "spectral" in the form that is no default."""
    settings = {"geometric_constraint": constraint, "spectral_form": "condition_number", "num_code_clusters": 5}
    model = make_tokenizer(**settings, orthonormality_weight=0.03, gumbel_noise=0.0).train()
    with torch.no_grad():
        model.codebook.weight.normal_()
    codebook = model.codebook.weight.detach().clone().requires_grad_()
    expected = geometric_loss(codebook, constraint, spectral_form="condition_number", clusters=equal_clusters(24, 5))
    values, mask = pad(make_clips())
    output = model(values, mask)
    torch.testing.assert_close(output.orthonormality_loss.double(), expected.double())
    torch.testing.assert_close(model.geometric_loss().double(), expected.double())
    parts = output.reconstruction_loss + 0.05 * output.utilisation_loss
    torch.testing.assert_close(output.loss, parts + 0.03 * expected)
    (gradient,) = torch.autograd.grad(output.loss - parts, model.codebook.weight, allow_unused=True)
    if constraint == "none":
        assert expected == 0 and (gradient is None or not gradient.any())
    else:
        (wanted,) = torch.autograd.grad(0.03 * expected, codebook)
        torch.testing.assert_close(gradient, wanted)
        assert wanted.norm() > 1e-5


def test_the_utilisation_loss_is_the_negative_entropy_of_the_mean_assignment_over_valid_codes(model):
    clips = make_clips()
    assignments = torch.cat([model.encode(clip[None]).logits[0].softmax(-1) for clip in clips])
    usage = assignments.mean(0)
    torch.testing.assert_close(model(*pad(clips, 100)).utilisation_loss, (usage * usage.log()).sum())


def test_the_utilisation_loss_can_be_that_of_the_assigned_codes():
    model = make_tokenizer(utilisation_estimate="assignment", gumbel_noise=0.0).train()
    output = model(*pad(make_clips(), 100))
    codes = output.motion_codes[output.motion_code_mask]
    usage = torch.bincount(codes, minlength=24).double() / len(codes)
    # Less than one of all assigned codes is none: a floor of 1 / n inside the logarithm.
    torch.testing.assert_close(output.utilisation_loss, (usage * (usage + 1 / len(codes)).log()).sum())
    output.utilisation_loss.backward()
    assert model.encoder.input_conv.weight.grad.abs().sum() > 0, "straight through to the encoder"


def test_the_reconstruction_loss_counts_every_valid_frame_once(model):
    clips = make_clips()
    alone = [model(clip[None]).reconstruction_loss for clip in clips]
    frames = [len(clip) // 8 * 8 for clip in clips]
    expected = sum(loss * count for loss, count in zip(alone, frames, strict=True)) / sum(frames)
    torch.testing.assert_close(model(*pad(clips, 100)).reconstruction_loss, expected)


@pytest.mark.parametrize(("weight", "root_weight"), [(1.0, 1.0), (4.0, 1.0), (3.0, 20.0)])
def test_the_reconstruction_loss_is_a_smooth_l1_with_weighted_root_and_joint_positions(weight, root_weight):
    model = make_tokenizer(position_weight=weight, root_weight=root_weight)
    clip = make_clips((40,))[0][None]
    output = model(clip)
    errors = functional.smooth_l1_loss(output.motion_values, clip, reduction="none").mean((0, 1))
    root, positions = errors[:4].sum(), errors[4:67].sum()  # yaw, velocity and height; 21 joints x 3
    others = errors[67:].sum()
    expected = (root_weight * root + weight * positions + others) / (root_weight * 4 + weight * 63 + 196)
    torch.testing.assert_close(output.reconstruction_loss, expected)


def test_perplexity_and_dead_codes_are_those_of_the_codes_of_the_batch(model):
    clips = make_clips()
    output = model(*pad(clips, 100))
    codes = torch.cat([model.encode(clip[None]).motion_codes[0] for clip in clips]).tolist()
    shares = [codes.count(code) / len(codes) for code in set(codes)]
    assert output.perplexity.item() == pytest.approx(math.exp(-sum(share * math.log(share) for share in shares)))
    assert output.dead_codes.item() == 24 - len(shares)


def test_a_collapsed_tokenizer_has_perplexity_one(model):
    with torch.no_grad():
        model.encoder.output_conv.bias[5] = 1e6
    output = model(*pad(make_clips()))
    assert (output.motion_codes[output.motion_code_mask] == 5).all()
    assert output.perplexity.item() == 1 and output.dead_codes.item() == 23


def test_the_loss_is_left_out_on_request(model):
    output = model(make_clips((16,))[0][None], return_loss=False)
    assert output.loss is None and output.perplexity is None and output.motion_values is not None


def test_a_fresh_codebook_is_orthonormal_up_to_scale():
    model = MotionTokenizer(MotionTokenizerConfig(num_codes=24, code_dim=32, hidden_size=8))
    rows = model.codebook.weight.detach()
    torch.testing.assert_close(rows @ rows.T, 32 * torch.eye(24), rtol=0, atol=1e-4)


# Saving and loading


def test_a_saved_tokenizer_comes_back_bit_for_bit_with_its_configured_weights(model, tmp_path):
    model.float().gumbel_temperature_multiplier = 0.5
    model.orthonormality_weight_multiplier = 3.0
    values, mask = pad(make_clips())
    model.save_pretrained(tmp_path)
    loaded, untouched = MotionTokenizer.from_pretrained(tmp_path), copy.deepcopy(model)
    assert not loaded.training
    assert loaded.gumbel_temperature_multiplier == loaded.orthonormality_weight_multiplier == 1.0
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, untouched.state_dict()[name]), name
    untouched.orthonormality_weight_multiplier = 1.0
    expected, output = untouched(values, mask), loaded(values, mask)
    assert torch.equal(output.motion_values, expected.motion_values) and torch.equal(output.loss, expected.loss)


def test_every_setting_survives_saving(tmp_path):
    settings = {
        "num_features": 251, "num_codes": 6, "code_dim": 7, "hidden_size": 8, "num_downsampling_layers": 2,
        "num_residual_layers": 1, "dilation_growth_rate": 2, "gumbel_temperature": 0.9, "gumbel_noise": 0.1,
        "orthonormality_weight": 0.2, "utilisation_weight": 0.3, "utilisation_estimate": "assignment",
        "position_weight": 5.0, "root_weight": 6.0, "geometric_constraint": "cluster",
        "spectral_form": "condition_number", "num_code_clusters": 3,
    }  # fmt: skip
    MotionTokenizer(MotionTokenizerConfig(**settings)).save_pretrained(tmp_path)
    config = MotionTokenizer.from_pretrained(tmp_path).config
    assert {name: getattr(config, name) for name in settings} == settings
    assert settings.keys() <= set(MotionTokenizerConfig.__annotations__), "a setting was renamed"


def test_the_clusters_of_codes_are_saved_where_they_are_used(tmp_path):
    """A checkpoint of any other constraint holds what it always held."""
    assert not any("cluster" in name for name in make_tokenizer(geometric_constraint="spectral").state_dict())
    model = make_tokenizer(geometric_constraint="cluster", num_code_clusters=5).float()
    assert torch.equal(model.code_clusters, equal_clusters(24, 5)), "equal clusters to start from"
    model.code_clusters.copy_(torch.arange(24) % 5)
    model.save_pretrained(tmp_path)
    for dtype in (torch.float32, torch.bfloat16):
        loaded = MotionTokenizer.from_pretrained(tmp_path, dtype=dtype)
        assert loaded.code_clusters.dtype == torch.long
        assert torch.equal(loaded.code_clusters, torch.arange(24) % 5)
    with torch.no_grad():
        model.codebook.weight.normal_()
        loss = model.geometric_loss()
        model.code_clusters.copy_(equal_clusters(24, 5))
        assert (model.geometric_loss() - loss).abs() > 1e-3


def test_a_tokenizer_loads_and_works_in_half_precision(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = MotionTokenizer.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {weight.dtype for weight in loaded.parameters()} == {torch.bfloat16}
    values, mask = pad(make_clips())
    output = loaded.train()(values.float(), mask)
    output.loss.backward()
    assert output.motion_values.dtype == torch.bfloat16 and output.loss.isfinite()
    same = loaded.encode(values.float(), mask).motion_codes == model.encode(values, mask).motion_codes
    assert same.double().mean() > 0.8


@pytest.mark.slow
def test_encode_compiles_into_one_graph(model):
    values, mask = pad(make_clips((15, 40)))
    compiled = torch.compile(model.encode, backend="eager", fullgraph=True, dynamic=True)
    for motion, frames in ((values, mask), (values[:, :33], mask[:, :33])):
        assert torch.equal(compiled(motion, frames).motion_codes, model.encode(motion, frames).motion_codes)


# Bad input


@pytest.mark.parametrize(
    ("values", "mask", "message"),
    [
        (torch.zeros(1, 16, 251), None, r"\(1, 16, 251\).*263"),
        (torch.zeros(16, 263), None, r"\(16, 263\).*\(batch, frames, 263\)"),
        (torch.zeros(2, 16, 263), torch.ones(2, 15, dtype=torch.bool), r"motion_mask has shape \(2, 15\)"),
        (torch.zeros(2, 16, 263), torch.ones(16, dtype=torch.bool), r"motion_mask has shape \(16,\)"),
        (torch.zeros(1, 7, 263), None, "7 frames is too short: one code takes 8"),
    ],
)
def test_motion_of_the_wrong_form_is_refused(model, values, mask, message):
    for call in (model.encode, model):
        with pytest.raises(ValueError, match=message):
            call(values, mask)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused_unless_it_is_padding(model, value):
    """The largest of logits that are no numbers is code 0: a caption of nothing."""
    values = torch.randn(2, 40, 263)
    values[1, 30, 5] = value
    with pytest.raises(ValueError, match="motion_values has a NaN or infinite value, first in row 1 at 30"):
        model.encode(values)
    mask = torch.arange(40) < torch.tensor([[40], [24]])
    assert torch.equal(model.encode(values, mask).motion_codes[1, :3], model.encode(values[1:, :24]).motion_codes[0])


def padding_of_row(frames):
    """Two rows of 16; the first is padded on the right, the second is valid in the given frames."""
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[0, :9] = mask[1, frames] = True
    return mask


@pytest.mark.parametrize("frames", [slice(1, 16), [*range(8), 15]], ids=["left", "gap"])
@pytest.mark.parametrize("dtype", [torch.bool, torch.long])
def test_padding_that_is_not_on_the_right_is_refused(model, frames, dtype):
    mask = padding_of_row(frames)
    values, codes = torch.zeros(2, 16, 263), torch.zeros(2, 16, dtype=torch.long)
    for call in (model.encode, model):
        with pytest.raises(ValueError, match="row 1 of motion_mask .* padding must be on the right"):
            call(values, mask.to(dtype))
    for arguments in ((codes, mask.to(dtype)), (codes.masked_fill(~mask, -1),)):
        with pytest.raises(ValueError, match="row 1 of motion_codes .* padding must be on the right"):
            model.decode(*arguments)


def test_rows_without_a_motion_are_no_gap(model):
    mask = padding_of_row([])
    assert model.encode(torch.zeros(2, 16, 263), mask).motion_code_mask.tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize(("codes", "mask"), [([[0, 24]], None), ([[-1, 3]], [[True, True]])])
def test_a_code_that_the_codebook_does_not_have_is_refused(model, codes, mask):
    with pytest.raises(ValueError, match="this tokenizer has codes 0 to 23"):
        model.decode(torch.tensor(codes), None if mask is None else torch.tensor(mask))


# Configuration


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_features", 0),
        ("num_codes", 0),
        ("code_dim", -1),
        ("hidden_size", 0),
        ("gumbel_temperature", 0.0),
        ("gumbel_noise", -0.5),
        ("utilisation_estimate", "perplexity"),
        ("geometric_constraint", "orthogonal"),
        ("spectral_form", "trace"),
    ],
)
def test_an_impossible_setting_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value!r}"):
        MotionTokenizerConfig(**{name: value})


def test_clusters_are_counted_only_where_they_are_used():
    MotionTokenizerConfig(num_codes=6)
    for number in (0, 7):
        with pytest.raises(ValueError, match=f"num_code_clusters is {number}; of 6 codes"):
            MotionTokenizerConfig(num_codes=6, geometric_constraint="cluster", num_code_clusters=number)


@pytest.mark.parametrize(("layers", "factor"), [(1, 2), (2, 4), (3, 8)])
def test_each_downsampling_layer_halves_the_frame_rate(layers, factor):
    model = make_tokenizer(num_downsampling_layers=layers)
    assert model.config.downsampling_factor == factor
    output = model(make_clips((41,))[0][None])
    assert output.motion_codes.shape == (1, 41 // factor)
    assert output.motion_values.shape == (1, 41 // factor * factor, 263)


def test_the_number_of_joints_follows_from_the_width_of_a_frame():
    assert MotionTokenizerConfig(num_features=263).num_joints == 22
    assert MotionTokenizerConfig(num_features=251).num_joints == 21
