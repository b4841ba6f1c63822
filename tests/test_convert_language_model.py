"""Published language models become ours, with the outputs of a stock GPT-2; incomplete ones are refused."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoProcessor, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from geomotiongpt import GeoMotionGPTForCausalLM, MotionTokenizer, MotionTokenizerConfig
from geomotiongpt.checkpoints import save_aside
from geomotiongpt.cli import main
from geomotiongpt.convert_language_model import PREFIX, convert_language_model

NUM_CODES = 32
BESIDE = {"vae.final_layer.bias": torch.ones(3), "_losses.losses_train.total": torch.zeros(())}


@pytest.fixture(scope="module")
def stock(trained_text_tokenizer):
    """A plain GPT-2 over [text | codes | start, end, mask], as published: two heads of 64."""
    num_text = len(PreTrainedTokenizerFast.from_pretrained(trained_text_tokenizer))
    torch.manual_seed(0)
    sizes = {"n_embd": 128, "n_layer": 2, "n_head": 2, "n_positions": 96, "initializer_range": 0.2}
    return GPT2LMHeadModel(GPT2Config(vocab_size=num_text + NUM_CODES + 3, **sizes)).eval()


@pytest.fixture(scope="module")
def weights(stock):
    """The state dict of the published trainer."""
    return {**{PREFIX + name: weight.clone() for name, weight in stock.state_dict().items()}, **BESIDE}


@pytest.fixture(scope="module")
def motion_tokenizer(tiny_tokenizer_model, tiny_feature_extractor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("motion_tokenizer")
    tiny_tokenizer_model.save_pretrained(folder)
    tiny_feature_extractor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["bare.pth", "wrapped.ckpt", "bare.safetensors"])
def converted(request, weights, motion_tokenizer, trained_text_tokenizer, tmp_path_factory):
    """Folder of the converted model, with its processor."""
    folder = tmp_path_factory.mktemp("published")
    checkpoint = folder / request.param
    if checkpoint.suffix == ".safetensors":
        save_file(weights, checkpoint)
    else:
        torch.save({"state_dict": weights, "epoch": 3} if checkpoint.stem == "wrapped" else weights, checkpoint)
    options = {"motion_tokenizer": motion_tokenizer, "text_tokenizer": trained_text_tokenizer}
    return convert_language_model(checkpoint, folder / "converted", **options)


def in_published_order(values, num_text):
    """Our [text | padding, start, end, placeholder | codes] as [text | codes | start, end, mask]."""
    text, markers, codes = values.split([num_text, 4, NUM_CODES], dim=-1)
    return torch.cat([text, codes, markers[..., 1:]], dim=-1)


@torch.no_grad()
def test_outputs_are_those_of_the_stock_gpt2(converted, stock, weights):
    model = AutoModelForCausalLM.from_pretrained(converted).eval()
    num_text = model.config.text_vocab_size
    assert num_text == stock.config.vocab_size - NUM_CODES - 3
    generator = torch.Generator().manual_seed(1)
    published = torch.randint(stock.config.vocab_size, (3, 40), generator=generator)
    published[0, :36] = torch.arange(num_text - 1, num_text + NUM_CODES + 3)  # every code, start, end and mask
    place = in_published_order(torch.arange(model.config.vocab_size), num_text)
    ours = place[published]
    assert ours[0, 1:36].tolist() == [*range(num_text + 4, num_text + 36), num_text + 1, num_text + 2, num_text + 3]
    wanted, met = stock(published, output_hidden_states=True), model(ours, output_hidden_states=True)
    for state, other in zip(met.hidden_states, wanted.hidden_states, strict=True):
        assert torch.equal(state, other)
    torch.testing.assert_close(in_published_order(met.logits, num_text), wanted.logits, rtol=1e-5, atol=1e-5)
    targets = published[:, 1:].flatten()
    scores = in_published_order(met.logits, num_text)[:, :-1].flatten(0, 1)
    torch.testing.assert_close(
        torch.nn.functional.cross_entropy(scores, targets), stock(published, labels=published).loss
    )
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "attention_mask": torch.ones_like(ours), "do_sample": False}
    greedy = stock.generate(published, **options, pad_token_id=0, eos_token_id=num_text - 1)
    assert torch.equal(model.generate(ours, **options, eos_token_id=num_text - 1, constrained=False), place[greedy])


def test_converted_model_has_free_rows_and_the_tokenizer_inside(converted, stock, tiny_tokenizer_model):
    model = GeoMotionGPTForCausalLM.from_pretrained(converted)
    table, num_text = stock.transformer.wte.weight, model.config.text_vocab_size
    assert model.config.projection == "none" and model.motion_embedding_scale == 1
    assert torch.equal(model.motion_embeddings, table[num_text:-3])
    start, end, mask = table[-3:]
    assert torch.equal(model.marker_embedding.weight, torch.stack([mask, start, end, mask])), (
        "<motion_pad> takes the mask's"
    )
    for name, weight in tiny_tokenizer_model.state_dict().items():
        assert torch.equal(model.motion_tokenizer.state_dict()[name], weight), name
    assert model.config.max_frames == 196 // 8 * 8, "HumanML3D's longest clip, in whole codes"
    options = model.generation_config
    assert (options.max_new_tokens, options.do_sample, options.pad_token_id) == (40, False, num_text)


def test_converted_model_captions_and_trains_on(converted, clips):
    model, processor = AutoModelForCausalLM.from_pretrained(converted), AutoProcessor.from_pretrained(converted)
    inputs = processor(motion=clips)
    generated = model.generate(**inputs, max_new_tokens=4)
    assert len(processor.post_process_text(generated, inputs["input_ids"].shape[1])) == 3
    assert model.config.eos_token_id == model.generation_config.eos_token_id == processor.tokenizer.eos_token_id
    output = model(**processor(motion=clips, text=["walks"] * 3))
    output.loss.backward()
    assert model.motion_codebook.weight.grad.abs().sum() > 0
    model.swap_projection("orthogonal")
    assert model.config.projection == "orthogonal"


def test_the_command_converts_and_opens(weights, motion_tokenizer, trained_text_tokenizer, tmp_path, capsys):
    """Without a text tokenizer there is a model and no processor, and the last text row ends a text."""
    torch.save(weights, tmp_path / "m2t.ckpt")
    command = ["convert", str(tmp_path / "m2t.ckpt"), str(tmp_path / "model")]
    assert main([*command, "--motion-tokenizer", str(motion_tokenizer)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.config.eos_token_id == model.config.text_vocab_size - 1
    assert not (tmp_path / "model" / "processor_config.json").exists()
    command[-1] = str(tmp_path / "both")
    text = ["--text-tokenizer", str(trained_text_tokenizer)]
    assert main([*command, "--motion-tokenizer", str(motion_tokenizer), *text]) == 0
    assert (tmp_path / "both" / "processor_config.json").is_file()
    capsys.readouterr()
    for options, message in (
        (text, "--text-tokenizer: no effect without --motion-tokenizer or --word-vectors"),
        (["--motion-tokenizer", "x", "--words", "y"], "--words: no effect with --motion-tokenizer"),
        ([], "m2t.ckpt is a language model: give --motion-tokenizer"),
    ):
        assert main([*command[:2], str(tmp_path / "other"), *options]) == 2
        assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both", "m2t.ckpt", "model"]


def test_the_test_checkpoint_has_the_published_keys(real_data, weights):
    """Of a GPT-2 with two layers instead of twelve."""
    listed = json.loads((real_data / "reference/parity/published_state_dicts.json").read_text())
    published = listed["geomotiongpt_lightning_checkpoint"]["keys"].keys()
    deeper = {key for key in published if re.search(r"\.h\.([2-9]|1\d)\.", key)}
    assert {key for key in published - deeper if key.startswith(PREFIX)} == {k for k in weights if k not in BESIDE}
    assert BESIDE.keys() <= published


@pytest.mark.slow
def test_the_published_size_converts_completely(real_data, tmp_path):
    listed = json.loads((real_data / "reference/parity/published_state_dicts.json").read_text())
    published = listed["geomotiongpt_lightning_checkpoint"]
    weights = {key: torch.zeros(shape) for key, shape in published["keys"].items()}
    table = torch.randn(published["keys"][PREFIX + "transformer.wte.weight"])
    weights[PREFIX + "transformer.wte.weight"] = weights[PREFIX + "lm_head.weight"] = table
    torch.save({"state_dict": weights}, tmp_path / "m2t.ckpt")
    MotionTokenizer(MotionTokenizerConfig(hidden_size=16)).save_pretrained(tmp_path / "motion_tokenizer")
    convert_language_model(tmp_path / "m2t.ckpt", tmp_path / "model", motion_tokenizer=tmp_path / "motion_tokenizer")
    model = GeoMotionGPTForCausalLM.from_pretrained(tmp_path / "model")
    sizes = (model.config.n_layer, model.config.n_head, model.config.n_positions, model.config.text_vocab_size)
    assert sizes == (12, 12, 1024, 50257)
    assert (model.config.eos_token_id, model.config.vocab_size) == (50256, 50257 + 4 + 512)
    ours = sum(parameter.numel() for name, parameter in model.named_parameters() if "motion_tokenizer" not in name)
    assert ours == published["parameters_language_model"] + 768, "one row more: <motion_pad>"


# What is refused


def changed(weights, **changes):
    """The state dict with some entries of the language model replaced, or left out where the value is None."""
    state = dict(weights)
    for name, value in changes.items():
        key = PREFIX + name.replace("__", ".")
        state.pop(key, None)
        if value is not None:
            state[key] = value
    return state


def test_incomplete_and_foreign_checkpoints_are_refused(weights, motion_tokenizer, tmp_path):
    checkpoint = tmp_path / "m2t.ckpt"

    def refuse(state, message, **options):
        torch.save(state, checkpoint)
        with pytest.raises(ValueError, match=message):
            convert_language_model(checkpoint, tmp_path / "model", **{"motion_tokenizer": motion_tokenizer, **options})
        assert [path.name for path in tmp_path.iterdir()] == ["m2t.ckpt"]

    refuse(changed(weights, transformer__h__1__ln_2__bias=None), r"lacks the weights of transformer\.h\.1\.ln_2\.bias")
    refuse(changed(weights, transformer__ln_f__weight=None), r"lacks the weights of transformer\.ln_f\.weight")
    refuse(changed(weights, transformer__wpe__weight=None), r"lacks the weights of .*transformer\.wpe\.weight")
    refuse(changed(weights, lm_head__weight=None), r"lacks the weights of .*lm_head\.weight")
    no_layers = {key: weight for key, weight in weights.items() if ".h." not in key}
    refuse(no_layers, r"lacks the weights of transformer\.h\.0\.")
    flat = torch.ones(3)
    refuse(
        changed(weights, transformer__wte__weight=flat, lm_head__weight=flat), r"wte\.weight, or they are no matrix"
    )
    refuse(changed(weights, transformer__wpe__weight=torch.ones(())), r"wpe\.weight, or they are no matrix")
    refuse(changed(weights, lm_head__weight="text"), r"lm_head\.weight, or they are no matrix")
    refuse(changed(weights, transformer__ln_f__bias=3.0), f"has no tensor for {PREFIX}transformer.ln_f.bias")
    refuse(changed(weights, transformer__wte__weight=None), "it is not a published GeoMotionGPT caption model")
    refuse(changed(weights, codebook_projection__weight=torch.ones(2)), "for codebook_projection.weight; wanted no su")
    refuse({**weights, "codebook_projection.bias": torch.ones(2)}, "unknown keys: codebook_projection.bias")
    refuse(changed(weights, transformer__ln_f__bias=torch.ones(2)), r"has \(2,\) for transformer.ln_f.bias; wanted")
    head = weights[PREFIX + "lm_head.weight"].flip(0)
    refuse(changed(weights, lm_head__weight=head), "the published model ties the two")
    refuse({"lm.language_model": {}}, "it is not a published GeoMotionGPT caption model")
    narrow = weights[PREFIX + "transformer.wte.weight"][:, :100]
    refuse(
        changed(weights, transformer__wte__weight=narrow.clone(), lm_head__weight=narrow.clone()), "is of width 100;"
    )
    few = weights[PREFIX + "transformer.wte.weight"][:35].clone()
    refuse(
        changed(weights, transformer__wte__weight=few, lm_head__weight=few.clone()),
        "a table of 35 rows; that are not 32 motion codes and 3 rows for start, end and mask",
    )
    refuse(
        {**weights, "vae.payload": print}, "plain tensors: it would run code of .*print.* save its state dict alone"
    )


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut off", b"\x80\x02}q\x00(X"])
@pytest.mark.parametrize("name", ["m2t.ckpt", "m2t.bin", "m2t.safetensors"])
def test_files_that_are_no_checkpoint_are_refused(motion_tokenizer, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="is not a checkpoint of plain tensors, or is damaged: .+"):
        convert_language_model(tmp_path / name, tmp_path / "model", motion_tokenizer=motion_tokenizer)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_save_that_fails_leaves_nothing(tiny_tokenizer_model, tmp_path):
    class FullDisk:
        def save_pretrained(self, folder):
            assert (folder / "model.safetensors").is_file(), "the first part is there already"
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        save_aside(tmp_path / "model", tiny_tokenizer_model, FullDisk())
    assert not list(tmp_path.iterdir())


def test_tokenizers_of_another_model_are_refused(weights, motion_tokenizer, trained_text_tokenizer, tmp_path):
    """Rows would be taken for codes that are words."""
    torch.save(weights, tmp_path / "m2t.ckpt")
    MotionTokenizer(MotionTokenizerConfig(num_codes=16, code_dim=16, hidden_size=8)).save_pretrained(tmp_path / "16")
    options = {"text_tokenizer": trained_text_tokenizer}
    with pytest.raises(ValueError, match="text tokens, 16 motion codes and 3 rows .* another model's tokenizer"):
        convert_language_model(tmp_path / "m2t.ckpt", tmp_path / "model", motion_tokenizer=tmp_path / "16", **options)
    with pytest.raises(FileNotFoundError, match="absent: no such folder"):
        convert_language_model(tmp_path / "m2t.ckpt", tmp_path / "model", motion_tokenizer=tmp_path / "absent")
    for wrong in (tmp_path / "no_words", motion_tokenizer):
        options = {"motion_tokenizer": motion_tokenizer, "text_tokenizer": wrong}
        with pytest.raises(ValueError, match=f"{wrong.name}: no folder of a text tokenizer, and none to be had"):
            convert_language_model(tmp_path / "m2t.ckpt", tmp_path / "model", **options)
    MotionTokenizer.from_pretrained(motion_tokenizer).save_pretrained(tmp_path / "bare")
    options = {"motion_tokenizer": tmp_path / "bare", "text_tokenizer": trained_text_tokenizer}
    with pytest.raises(FileNotFoundError, match="bare holds no preprocessor_config.json.*tokenizer with --data, or"):
        convert_language_model(tmp_path / "m2t.ckpt", tmp_path / "model", **options)
    with pytest.raises(FileNotFoundError, match=r"m2t\.pth: no such checkpoint"):
        convert_language_model(tmp_path / "m2t.pth", tmp_path / "model", motion_tokenizer=motion_tokenizer)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes").touch()
    with pytest.raises(ValueError, match="is not an empty folder"):
        convert_language_model(tmp_path / "m2t.ckpt", tmp_path / "model", motion_tokenizer=motion_tokenizer)
