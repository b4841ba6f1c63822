"""Published motion tokenizers and evaluators become ours, with the same outputs; incomplete ones are refused."""

import copy
import json
import math
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from geomotiongpt import (
    GeoMotionGPTForCausalLM,
    GeoMotionGPTProcessor,
    MotionFeatureExtractor,
    MotionTextEvaluator,
    MotionTextEvaluatorConfig,
    MotionTokenizer,
    MotionTokenizerConfig,
)
from geomotiongpt.checkpoints import check_model_folder, convert_evaluator, convert_motion_tokenizer
from geomotiongpt.cli import main
from geomotiongpt.evaluation.embeddings import load_evaluator
from geomotiongpt.models.configuration_motion_language import name_on_hub
from geomotiongpt.training.model_card import write_training_card

TOLERANCE = {"rtol": 0, "atol": 2e-5}
# Decoded features have a spread of 16, and the published ones are 5e-5 away from the same arithmetic in float64.
DECODED_TOLERANCE = {"rtol": 0, "atol": 1e-4}


def published_shapes(num_features=263, width=4, num_codes=6, code_dim=5):
    """Keys and shapes of a published tokenizer."""
    shapes = {"vqvae.quantizer.codebook.weight": (num_codes, code_dim)}

    def convolution(name, outputs, inputs, kernel):
        shapes[f"vqvae.{name}.weight"], shapes[f"vqvae.{name}.bias"] = (outputs, inputs, kernel), (outputs,)

    convolution("encoder.model.0", width, num_features, 3)
    convolution("decoder.model.0", width, code_dim, 3)
    for stage in (2, 3, 4):
        convolution(f"encoder.model.{stage}.0", width, width, 4)
        convolution(f"decoder.model.{stage}.2", width, width, 3)
        for unit in range(3):
            for side, position in (("encoder", 1), ("decoder", 0)):
                for conv, kernel in ((1, 3), (2, 1)):
                    name = f"{side}.model.{stage}.{position}.model.{unit}.conv{conv}"
                    convolution(name, width, width, kernel)
    convolution("encoder.model.5", num_codes, width, 3)
    convolution("decoder.model.5", width, width, 3)
    convolution("decoder.model.7", num_features, width, 3)
    return shapes


def published_weights(**sizes):
    generator = torch.Generator().manual_seed(0)
    return {key: torch.randn(shape, generator=generator) for key, shape in published_shapes(**sizes).items()}


@pytest.fixture
def folder(tmp_path):
    """An otherwise empty folder for checkpoints and what is made of them."""
    return tmp_path


def assert_refused(checkpoint, message, error=ValueError, **options):
    """One clear error, and nothing new in the folder."""
    before = sorted(checkpoint.parent.rglob("*"))
    with pytest.raises(error, match=message):
        convert_motion_tokenizer(checkpoint, checkpoint.parent / "converted", **options)
    assert sorted(checkpoint.parent.rglob("*")) == before


# Outputs match the published implementation


@pytest.fixture(scope="module")
def parity(real_data):
    return load_file(real_data / "reference" / "parity" / "dvq.safetensors")


@pytest.fixture(scope="module", params=["dvq.pth", "dvq.safetensors", "wrapped.ckpt"])
def converted(request, parity, tmp_path_factory):
    """The published tokenizer, converted, and loaded from the folder."""
    checkpoint = tmp_path_factory.mktemp("published") / request.param
    weights = {key.removeprefix("weights."): value for key, value in parity.items() if key.startswith("weights.")}
    if checkpoint.suffix == ".safetensors":
        save_file(weights, checkpoint)
    else:
        torch.save({"state_dict": weights} if checkpoint.stem == "wrapped" else weights, checkpoint)
    return MotionTokenizer.from_pretrained(convert_motion_tokenizer(checkpoint, checkpoint.parent / "converted"))


@torch.no_grad()
def test_logits_and_codes_match_the_published_ones(converted, parity):
    encoded = converted.encode(parity["inputs.features"])
    torch.testing.assert_close(encoded.logits, parity["outputs.encoder_logits"], **TOLERANCE)
    assert torch.equal(encoded.motion_codes, parity["outputs.codes"])
    odd = converted.encode(parity["inputs.features_odd"])
    assert torch.equal(odd.motion_codes, parity["outputs.codes_odd"])


@torch.no_grad()
def test_code_vectors_and_decoded_features_match_the_published_ones(converted, parity):
    codes = parity["outputs.codes"]
    torch.testing.assert_close(converted.codebook(codes), parity["outputs.dequantized"], **TOLERANCE)
    decoded = converted.decode(codes).motion_values
    torch.testing.assert_close(decoded, parity["outputs.decoded_features"], **DECODED_TOLERANCE)
    odd = converted.decode(parity["outputs.codes_odd"]).motion_values
    torch.testing.assert_close(odd, parity["outputs.decoded_features_odd"], **DECODED_TOLERANCE)
    sampled = converted.decode(parity["outputs.forward.sampled_codes"]).motion_values
    torch.testing.assert_close(sampled, parity["outputs.forward.features"], **DECODED_TOLERANCE)


@torch.no_grad()
def test_a_padded_batch_of_published_clips_matches_them_alone(converted, parity):
    values = torch.cat([parity["inputs.features"], torch.full((1, 64, 263), torch.nan)])
    values[2, :61] = parity["inputs.features_odd"][0]
    mask = torch.ones(3, 64, dtype=torch.bool)
    mask[2, 61:] = False
    output = converted(values, mask, return_loss=False)
    assert torch.equal(output.motion_codes[:2], parity["outputs.codes"])
    assert output.motion_codes[2].tolist() == [*parity["outputs.codes_odd"][0].tolist(), -1]
    torch.testing.assert_close(output.motion_values[:2], parity["outputs.decoded_features"], **DECODED_TOLERANCE)
    torch.testing.assert_close(
        output.motion_values[2, :56], parity["outputs.decoded_features_odd"][0], **DECODED_TOLERANCE
    )


@torch.no_grad()
def test_training_samples_what_the_published_tokenizer_samples_from_the_same_noise(converted, parity, monkeypatch):
    """Gumbel noise g is what our generator draws as an exponential variable exp(-g)."""
    exponential = parity["inputs.gumbel_noise_hard"].neg().exp().view(2, 8, 24)
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda tensor: tensor.copy_(exponential))
    sampled = converted.train()(parity["inputs.features"]).motion_values
    converted.eval()
    torch.testing.assert_close(sampled, parity["outputs.forward.features"], **DECODED_TOLERANCE)


@torch.no_grad()
def test_losses_and_perplexities_match_the_published_ones(converted, parity):
    """Where the forms coincide; the published softmax is tempered by 0.4, so the logits are scaled for it."""
    output = converted(parity["inputs.features"])
    torch.testing.assert_close(
        output.perplexity.float(), parity["outputs.forward_hard1.perplexity"], rtol=1e-5, atol=0
    )
    mean_square = output.orthonormality_loss / 24**2
    torch.testing.assert_close(mean_square, parity["outputs.loss_ortho_codebook"], **TOLERANCE)
    layer = converted.encoder.output_conv
    saved = [weight.clone() for weight in layer.parameters()]
    for weight in layer.parameters():
        weight.div_(parity["inputs.tau"])
    tempered = converted(parity["inputs.features"]).utilisation_loss.neg().exp()
    for weight, value in zip(layer.parameters(), saved, strict=True):
        weight.copy_(value)
    torch.testing.assert_close(tempered, parity["outputs.perplexity_softmax"], rtol=1e-5, atol=0)


# Sizes


@pytest.mark.parametrize(("representation", "num_features"), [("humanml3d", 263), ("kitml", 251)])
def test_the_published_size_converts_completely(real_data, folder, representation, num_features):
    listed = json.loads((real_data / "reference" / "parity" / "published_state_dicts.json").read_text())
    shapes = listed["geomotiongpt_dvq"]["keys"] | {
        "vqvae.encoder.model.0.weight": [512, num_features, 3],
        "vqvae.decoder.model.7.weight": [num_features, 512, 3],
        "vqvae.decoder.model.7.bias": [num_features],
    }
    save_file({key: torch.zeros(shape) for key, shape in shapes.items()}, folder / "dvq.safetensors")
    convert_motion_tokenizer(folder / "dvq.safetensors", folder / "converted")
    config = MotionTokenizerConfig.from_pretrained(folder / "converted")
    expected = MotionTokenizerConfig(num_features=num_features).to_diff_dict()
    assert {name: value for name, value in config.to_diff_dict().items() if name in expected} == expected
    weights = load_file(folder / "converted" / "model.safetensors")
    assert sum(weight.numel() for weight in weights.values()) == sum(np.prod(shape) for shape in shapes.values())
    if num_features == 263:
        assert sum(weight.numel() for weight in weights.values()) == listed["geomotiongpt_dvq"]["parameters"]


def test_the_test_checkpoints_have_the_published_keys(real_data):
    listed = json.loads((real_data / "reference" / "parity" / "published_state_dicts.json").read_text())
    assert published_shapes().keys() == listed["geomotiongpt_dvq"]["keys"].keys()


# Command line and statistics


@pytest.mark.parametrize(("representation", "num_features"), [("humanml3d", 263), ("kitml", 251)])
def test_the_command_converts_a_checkpoint_with_the_statistics_of_its_data(
    folder, capsys, representation, num_features
):
    weights = published_weights(num_features=num_features)
    torch.save(weights, folder / "dvq.pth")
    mean, std = np.random.default_rng(0).uniform(0.5, 2, (2, num_features)).astype(np.float32)
    (folder / "data").mkdir()
    np.save(folder / "data" / "Mean.npy", mean)
    np.save(folder / "data" / "Std.npy", std)
    output = folder / "converted"
    assert main(["convert", str(folder / "dvq.pth"), str(output), "--data", str(folder / "data")]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    model = MotionTokenizer.from_pretrained(output)
    sizes = (model.config.num_features, model.config.num_codes, model.config.code_dim, model.config.hidden_size)
    assert sizes == (num_features, 6, 5, 4) and model.config.downsampling_factor == 8
    assert torch.equal(model.codebook.weight, weights["vqvae.quantizer.codebook.weight"])
    extractor = MotionFeatureExtractor.from_pretrained(output)
    assert extractor.representation == representation and extractor.downsampling_factor == 8
    np.testing.assert_array_equal(np.float32(extractor.mean), mean)
    np.testing.assert_array_equal(np.float32(extractor.std), std)
    assert sorted(path.name for path in folder.iterdir()) == ["converted", "data", "dvq.pth"]


def test_the_command_ends_with_one_line_on_a_bad_checkpoint(folder, capsys):
    (folder / "dvq.pth").write_text("not a checkpoint")
    assert main(["convert", str(folder / "dvq.pth"), str(folder / "converted")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("geomotiongpt convert: error: ") and "dvq.pth" in lines[0]


# What is refused


def test_missing_statistics_are_named(folder):
    torch.save(published_weights(), folder / "dvq.pth")
    (folder / "data").mkdir()
    np.save(folder / "data" / "Mean.npy", np.zeros(263))
    assert_refused(folder / "dvq.pth", "Std.npy: no such file", FileNotFoundError, data=folder / "data")


def test_statistics_of_another_representation_are_refused(folder):
    torch.save(published_weights(), folder / "dvq.pth")
    (folder / "data").mkdir()
    for name in ("Mean", "Std"):
        np.save(folder / "data" / f"{name}.npy", np.ones(251))
    assert_refused(folder / "dvq.pth", "263 finite numbers.*251", data=folder / "data")


def test_a_checkpoint_that_is_not_there(folder):
    assert_refused(folder / "dvq.pth", "dvq.pth: no such checkpoint", FileNotFoundError)


@pytest.mark.parametrize(
    "key",
    ["vqvae.encoder.model.0.gain", "optimizer.step", "vqvae.decoder.model.9.0.model.0.conv1.weight",
     "vqvae.encoder.model.2.1.model.0.conv3.weight", "vqvae.decoder.model.6.bias"],
)  # fmt: skip
def test_an_unknown_key_is_named(folder, key):
    torch.save(published_weights() | {key: torch.ones(2)}, folder / "dvq.pth")
    assert_refused(folder / "dvq.pth", key.replace(".", r"\.") if ".9." not in key else "decoder.stages.7")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("vqvae.decoder.model.4.2.bias", "decoder.stages.2.upsampling_conv.bias"),
        ("vqvae.encoder.model.3.1.model.2.conv2.weight", "encoder.stages.1.residual_units.2.pointwise_conv.weight"),
        ("vqvae.decoder.model.7.weight", "decoder.output_conv.weight"),
        ("vqvae.quantizer.codebook.weight", "it is not a published GeoMotionGPT motion tokenizer"),
        ("vqvae.encoder.model.0.weight", "encoder"),
    ],
)
def test_a_missing_weight_is_named(folder, key, message):
    weights = published_weights()
    del weights[key]
    torch.save(weights, folder / "dvq.pth")
    assert_refused(folder / "dvq.pth", message)


def test_a_weight_of_another_shape_is_named(folder):
    torch.save(published_weights() | {"vqvae.decoder.model.2.2.weight": torch.ones(4, 4, 5)}, folder / "dvq.pth")
    assert_refused(folder / "dvq.pth", "decoder.stages.0.upsampling_conv.weight")


def test_a_width_of_no_known_representation_is_refused(folder):
    torch.save(published_weights(num_features=100), folder / "dvq.pth")
    assert_refused(folder / "dvq.pth", "takes 100 features; known representations have")


@pytest.mark.parametrize("name", ["dvq.pth", "dvq.ckpt", "dvq.safetensors"])
@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"PK\x03\x04 cut off"])
def test_a_file_that_is_not_a_checkpoint_is_refused(folder, name, content):
    (folder / name).write_bytes(content)
    assert_refused(folder / name, f"{name} .*checkpoint")


@pytest.mark.parametrize("value", [torch.ones(3), [torch.ones(3)], {"model": {"weight": torch.ones(3)}}])
def test_another_torch_file_is_refused(folder, value):
    torch.save(value, folder / "dvq.pth")
    assert_refused(folder / "dvq.pth", "it is not a published GeoMotionGPT motion tokenizer")


class TouchWhenUnpickled:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("write", [partial(pickle.dump, protocol=2), torch.save])
def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(folder, write):
    with open(folder / "dvq.pth", "wb") as file:
        write(published_weights() | {"payload": TouchWhenUnpickled(folder / "touched")}, file)
    assert_refused(folder / "dvq.pth", "dvq.pth .*checkpoint")
    assert not (folder / "touched").exists()


def test_an_output_folder_in_use_is_left_alone(folder):
    torch.save(published_weights(), folder / "dvq.pth")
    (folder / "converted").mkdir()
    (folder / "converted" / "notes.txt").write_text("mine")
    assert_refused(folder / "dvq.pth", "converted exists and is not an empty folder")
    (folder / "converted" / "notes.txt").unlink()
    assert convert_motion_tokenizer(folder / "dvq.pth", folder / "converted") == folder / "converted"
    assert sorted(path.name for path in folder.iterdir()) == ["converted", "dvq.pth"]


# Loading is strict


@pytest.fixture(scope="module")
def saved_models(tmp_path_factory, tiny_tokenizer_model, tiny_model):
    folders = {}
    for model in (tiny_tokenizer_model, tiny_model):
        folders[type(model)] = tmp_path_factory.mktemp(type(model).__name__)
        model.save_pretrained(folders[type(model)])
    return folders


@pytest.mark.parametrize(
    ("model_class", "key"),
    [
        (MotionTokenizer, "encoder.stages.1.downsampling_conv.bias"),
        (MotionTokenizer, "codebook.weight"),
        (GeoMotionGPTForCausalLM, "motion_codebook.weight"),
        (GeoMotionGPTForCausalLM, "motion_tokenizer.decoder.hidden_conv.weight"),
        (GeoMotionGPTForCausalLM, "motion_projection.indices"),
        (GeoMotionGPTForCausalLM, "motion_embedding_scale"),
        (GeoMotionGPTForCausalLM, "transformer.h.1.attn.c_attn.weight"),
    ],
)
def test_a_checkpoint_with_a_weight_missing_surplus_or_of_another_shape_does_not_load(saved_models, model_class, key):
    folder = saved_models[model_class]
    weights = load_file(folder / "model.safetensors")
    broken = (
        ("missing", key, {name: weight for name, weight in weights.items() if name != key}),
        ("unexpected", "surplus.weight", weights | {"surplus.weight": torch.ones(2)}),
        ("mismatched", key, weights | {key: torch.ones(3, 2, dtype=weights[key].dtype)}),
    )
    for kind, name, content in broken:
        save_file(content, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match=rf"{model_class.__name__} \({kind}: .*{name}"):
            model_class.from_pretrained(folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model, info = model_class.from_pretrained(folder, output_loading_info=True)
    assert isinstance(model, model_class) and not info["missing_keys"]


# Is a folder a model


def test_a_model_folder_passes_and_a_hub_name_is_left_to_the_hub(saved_models):
    for folder in saved_models.values():
        check_model_folder(folder)
    check_model_folder("someone/some-model")


def test_a_mistyped_folder_is_not_looked_for_on_the_hub(folder):
    for name in (folder / "absent", "./absent", "/absent", "~/absent", "a/b/absent"):
        with pytest.raises(FileNotFoundError, match="absent: no such folder"):
            check_model_folder(name)
    with pytest.raises(FileNotFoundError, match="no config.json"):
        check_model_folder(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="weights are missing"):
        check_model_folder(folder)


# Evaluator networks


PUBLISHED_TRAINING = {"opt_text_encoder": {"state": {}}, "opt_motion_encoder": {"state": {}}, "epoch": 3, "iter": 7}


@pytest.fixture(scope="module")
def word_files(tmp_path_factory):
    """A GloVe file, and the statistics of an evaluator in a folder."""
    folder = tmp_path_factory.mktemp("words")
    generator = np.random.default_rng(0)
    rows = (
        f"{word} {' '.join(f'{x:.4f}' for x in generator.normal(size=300))}" for word in ("sos", "eos", "unk", "a")
    )
    (folder / "glove.txt").write_text("\n".join(rows) + "\n")
    for width, name in ((263, "humanml3d"), (251, "kitml")):
        (folder / name).mkdir()
        np.save(folder / name / "mean.npy", generator.normal(size=width))
        np.save(folder / name / "std.npy", generator.uniform(1, 2, size=width))
    return folder


def networks(weights):
    """Joined keys -> one dictionary a network, as published."""
    parts = {}
    for key, weight in weights.items():
        network, _, name = key.partition(".")
        parts.setdefault(network, {})[name] = weight
    return parts


def evaluator_weights(num_features=263):
    sizes = {"movement_hidden_size": 6, "movement_size": 5, "motion_hidden_size": 4, "text_hidden_size": 3}
    torch.manual_seed(0)
    return MotionTextEvaluator(
        MotionTextEvaluatorConfig(num_features=num_features, embedding_size=7, **sizes)
    ).state_dict()


def convert(checkpoint, word_files, output, representation="humanml3d"):
    options = {"statistics": word_files / representation, "word_vectors": word_files / "glove.txt"}
    return convert_evaluator(checkpoint, output, **options)


@torch.no_grad()
def test_published_evaluator_gives_the_published_embeddings(real_data, word_files, tmp_path):
    reference = load_file(real_data / "reference" / "parity" / "t2m_evaluator.safetensors")
    weights = {key.removeprefix("weights."): value for key, value in reference.items() if key.startswith("weights.")}
    torch.save({**networks(weights), **PUBLISHED_TRAINING}, tmp_path / "finest.tar")
    model, processor = load_evaluator(convert(tmp_path / "finest.tar", word_files, tmp_path / "evaluator"))
    mask = torch.arange(196) < reference["inputs.motion_lengths"].unsqueeze(-1)
    motions = model.get_motion_features(reference["inputs.motions"], mask)
    torch.testing.assert_close(motions, reference["outputs.motion_embeddings"], rtol=0, atol=1e-5)
    mask = torch.arange(22) < reference["inputs.caption_lengths"].unsqueeze(-1)
    texts = model.get_text_features(reference["inputs.word_embeddings"], reference["inputs.pos_one_hots"], mask)
    torch.testing.assert_close(texts, reference["outputs.text_embeddings"], rtol=0, atol=1e-5)
    assert processor.tagged and processor.word_vectors.words == ["sos", "eos", "unk", "a"]
    np.testing.assert_array_equal(processor.feature_extractor.mean, np.load(word_files / "humanml3d" / "mean.npy"))
    assert not list((tmp_path / "evaluator").glob("*.tar"))


@pytest.mark.parametrize(("representation", "width"), [("humanml3d", 263), ("kitml", 251)])
def test_full_size_evaluators_are_told_apart_and_converted(real_data, word_files, tmp_path, representation, width):
    reference = json.loads((real_data / "reference/parity/published_state_dicts.json").read_text())["t2m_evaluator"]
    shapes = {**reference["keys"], "movement_encoder.main.0.weight": [512, width - 4, 4]}
    generator = torch.Generator().manual_seed(0)
    weights = {key: torch.rand(shape, generator=generator) for key, shape in shapes.items()}
    torch.save({**networks(weights), **PUBLISHED_TRAINING}, tmp_path / "finest.tar")
    folder = convert(tmp_path / "finest.tar", word_files, tmp_path / "evaluator", representation)
    model, processor = load_evaluator(folder)
    assert processor.feature_extractor.representation == representation
    assert model.config.max_frames == 196 and model.config.num_features == width
    assert all(torch.equal(model.state_dict()[key], weight) for key, weight in weights.items())


def test_incomplete_and_foreign_evaluators_are_refused(word_files, tmp_path):
    checkpoint, weights = tmp_path / "finest.tar", evaluator_weights()

    def refuse(state, message, representation="humanml3d"):
        torch.save(state, checkpoint)
        with pytest.raises(ValueError, match=message):
            convert(checkpoint, word_files, tmp_path / "evaluator", representation)
        assert [path.name for path in tmp_path.iterdir()] == ["finest.tar"]

    whole = networks(weights)
    refuse({name: whole[name] for name in ("text_encoder", "motion_encoder")}, "has no movement_encoder: it is not a")
    refuse({**whole, "decoder": {}}, "unknown keys: decoder")
    for key in ("text_encoder.hidden", "movement_encoder.main.0.weight"):
        refuse(networks({name: weight for name, weight in weights.items() if name != key}), f"lacks the .*{key}")
    refuse(networks({**weights, "motion_encoder.extra": torch.zeros(1)}), "for motion_encoder.extra; wanted no such")
    refuse(networks({**weights, "text_encoder.hidden": torch.zeros(2, 1, 4)}), r"has \(2, 1, 4\) for text_encoder.hid")
    refuse(networks(evaluator_weights(300)), r"takes 300 features; known representations have \[263, 251, 272\]")
    refuse(whole, "mean must be 263 finite numbers", "kitml")
    torch.save({**whole, "iter": print}, checkpoint)
    with pytest.raises(ValueError, match="not a checkpoint of plain tensors"):
        convert(checkpoint, word_files, tmp_path / "evaluator")


def test_an_evaluator_needs_its_own_statistics_and_words(word_files, tmp_path):
    checkpoint = tmp_path / "finest.tar"
    torch.save(networks(evaluator_weights()), checkpoint)
    with pytest.raises(FileNotFoundError, match="Mean.npy: no such file; .* not those of the data set"):
        convert(checkpoint, word_files, tmp_path / "evaluator", "nowhere")
    (tmp_path / "our_vab_words.pkl").write_bytes(b"")
    options = {"statistics": word_files / "humanml3d", "word_vectors": tmp_path / "our_vab_words.pkl"}
    with pytest.raises(ValueError, match="is a pickle"):
        convert_evaluator(checkpoint, tmp_path / "evaluator", **options)
    (tmp_path / "narrow.txt").write_text("sos 1\neos 2\nunk 3\n")
    with pytest.raises(ValueError, match="vectors of width 1; the evaluator takes 300"):
        convert_evaluator(checkpoint, tmp_path / "evaluator", **{**options, "word_vectors": tmp_path / "narrow.txt"})
    with pytest.raises(FileNotFoundError, match="finest.pt: no such checkpoint"):
        convert(tmp_path / "finest.pt", word_files, tmp_path / "evaluator")
    (tmp_path / "evaluator").mkdir()
    (tmp_path / "evaluator" / "notes").touch()
    with pytest.raises(ValueError, match="is not an empty folder"):
        convert(checkpoint, word_files, tmp_path / "evaluator")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("gpt2", "gpt2"),
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
        ("a/b/c", None),
        ("/models/gpt2", None),
        ("./gpt2", None),
        ("", None),
        (None, None),
        ("here", None),
    ],
)
def test_a_base_is_named_by_its_name_on_the_hub_and_by_no_folder(name, wanted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert name_on_hub(name) == wanted


def test_the_base_is_known_in_the_model_and_on_its_card(tiny_language_model, tiny_tokenizer_model, tmp_path):
    base = copy.deepcopy(tiny_language_model)
    base.config._name_or_path = "someone/gpt2"
    model = GeoMotionGPTForCausalLM.from_components(base, tiny_tokenizer_model)
    model.save_pretrained(tmp_path / "model")
    again = GeoMotionGPTForCausalLM.from_pretrained(tmp_path / "model")
    assert again.config.base_model == "someone/gpt2" and model.config._name_or_path == ""
    written = write_training_card(tmp_path / "model", again, [{"eval_loss": math.nan}], "someone/motions")
    card = ModelCard.load(written)
    assert written.read_text().startswith("---\n")
    assert card.data.model_name == tmp_path.name and "| trained on | someone/motions (" in card.text
    assert card.data.base_model == "someone/gpt2" and "someone/gpt2" in card.text and not card.data.license


def test_the_processor_comes_from_where_the_model_came_from(tiny_model_folder, tmp_path, monkeypatch):
    """The same revision, token and cache: another revision could run other code."""
    options = {"revision": "0123abc", "cache_dir": str(tmp_path), "local_files_only": True}
    model = GeoMotionGPTForCausalLM.from_pretrained(tiny_model_folder, **options)
    plain = GeoMotionGPTForCausalLM.from_pretrained(tiny_model_folder)
    seen = []
    load = GeoMotionGPTProcessor.from_pretrained
    monkeypatch.setattr(
        GeoMotionGPTProcessor, "from_pretrained", lambda name, **given: seen.append(given) or load(name, **given)
    )
    for each in (model, plain):
        each.generate_motion("a person walks", num_frames=8)
    assert seen == [{"trust_remote_code": False, **options}, {"trust_remote_code": False}]
