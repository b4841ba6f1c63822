"""The processor: prompts, answers and labels as token ids, the same in training and in generation."""

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from geomotiongpt import GeoMotionGPTConfig, GeoMotionGPTProcessor, MotionFeatureExtractor, MotionTokenizerConfig
from geomotiongpt.models.task_prompts import (
    TASKS,
    MotionTaskExample,
    prompt_words,
    read_duration,
    state_any_duration,
    stated_numbers,
)
from geomotiongpt.training.text_tokenizer import train_text_tokenizer

TEXTS = ["a person walks forward", "someone jumps", "the figure turns around to the right and sits down"]


def config_for(text_vocab_size: int) -> GeoMotionGPTConfig:
    motion_tokenizer_config = MotionTokenizerConfig(num_codes=32, code_dim=32)
    return GeoMotionGPTConfig(text_vocab_size=text_vocab_size, motion_tokenizer_config=motion_tokenizer_config)


def codes_of(model, processor, clips) -> list[list[int]]:
    inputs = processor.feature_extractor(clips)
    encoded = model.motion_tokenizer.encode(inputs["motion_values"], inputs["motion_mask"])
    return [row[mask].tolist() for row, mask in zip(encoded.motion_codes, encoded.motion_code_mask, strict=True)]


def test_generation_starts_from_the_prompt_of_training(tiny_processor, clips):
    """Token by token; labels hold the answer and its end of text, and nothing else."""
    training, generation = tiny_processor(motion=clips, text=TEXTS), tiny_processor(motion=clips)
    tokenizer = tiny_processor.tokenizer
    assert "labels" not in generation
    for row, text in enumerate(TEXTS):
        prompt = generation["input_ids"][row][generation["attention_mask"][row].bool()].tolist()
        trained = training["input_ids"][row][training["attention_mask"][row].bool()].tolist()
        answer = [*tokenizer(" " + text)["input_ids"], tokenizer.eos_token_id]
        assert trained == prompt + answer
        width = training["input_ids"].shape[1]
        padding = width - len(trained)
        assert training["labels"][row].tolist() == [-100] * len(prompt) + answer + [-100] * padding
        motion = ["<motion>", *["<motion_placeholder>"] * (len(clips[row]) // 8), "</motion>"]
        text_after = tokenizer.decode(prompt).partition("</motion>")[2]
        assert "".join(motion) in tokenizer.decode(prompt).replace(" ", "") and text_after.strip() == "Description:"


def test_padding_is_left_for_generation_and_right_for_training(tiny_processor, clips):
    pad = tiny_processor.tokenizer.pad_token_id
    assert pad != tiny_processor.tokenizer.eos_token_id
    generation, training = tiny_processor(motion=clips), tiny_processor(motion=clips, text=TEXTS)
    lengths = generation["attention_mask"].sum(-1).tolist()
    assert len(set(lengths)) == 3
    for row, length in enumerate(lengths):
        assert generation["attention_mask"][row, -length:].all()
        assert (generation["input_ids"][row, :-length] == pad).all()
        length = int(training["attention_mask"][row].sum())
        assert training["attention_mask"][row, :length].all()
        assert (training["input_ids"][row, length:] == pad).all()
    assert (training["input_ids"] != pad).equal(training["attention_mask"].bool())
    for inputs in (generation, training):
        assert inputs["motion_mask"].sum(-1).tolist() == [40, 16, 67]


def test_processor_comes_back_as_saved(tiny_processor, clips, tmp_path):
    """With the vocabulary, the padding and the statistics; the feature extractor also beside the motion tokenizer."""
    tiny_processor.save_pretrained(tmp_path)
    for processor in (GeoMotionGPTProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert type(processor) is GeoMotionGPTProcessor
        for texts in (None, TEXTS):
            inputs, wanted = processor(motion=clips, text=texts), tiny_processor(motion=clips, text=texts)
            assert inputs.keys() == wanted.keys()
            for name, value in wanted.items():
                assert torch.equal(inputs[name], value), name
        assert processor.tokenizer.model_max_length == tiny_processor.tokenizer.model_max_length == 128
    alone = MotionFeatureExtractor.from_pretrained(tmp_path / "motion_tokenizer")
    assert alone.to_dict() == tiny_processor.feature_extractor.to_dict()


def test_generated_ids_become_texts(tiny_processor, clips):
    """Without prompt, motion, end of text and padding."""
    training, generation = tiny_processor(motion=clips, text=TEXTS), tiny_processor(motion=clips)
    tokenizer = tiny_processor.tokenizer
    answers = [row[row != -100] for row in training["labels"]]
    padded = torch.nn.utils.rnn.pad_sequence(answers, batch_first=True, padding_value=tokenizer.pad_token_id)
    generated = torch.cat([generation["input_ids"], padded], dim=1)
    assert tiny_processor.post_process_text(generated, generation["input_ids"].shape[1]) == TEXTS


@pytest.mark.parametrize("texts", [None, TEXTS], ids=["generation", "training"])
def test_codes_instead_of_motions_give_the_same_ids(tiny_model, tiny_processor, clips, texts):
    from_motion = tiny_processor(motion=clips, text=texts)
    from_codes = tiny_processor(motion_codes=codes_of(tiny_model, tiny_processor, clips), text=texts)
    encoded = tiny_model.encode_motion(
        from_motion["input_ids"], from_motion["motion_values"], from_motion["motion_mask"]
    )
    assert torch.equal(from_codes["input_ids"], encoded)
    assert torch.equal(from_codes["attention_mask"], from_motion["attention_mask"])
    assert "motion_values" not in from_codes
    if texts:
        assert torch.equal(from_codes["labels"], from_motion["labels"])


def test_codes_as_the_motion_tokenizer_pads_them(tiny_model, tiny_processor, clips):
    """-1 is padding, not a token."""
    inputs = tiny_processor.feature_extractor(clips)
    padded = tiny_model.motion_tokenizer.encode(inputs["motion_values"], inputs["motion_mask"]).motion_codes
    assert (padded == -1).any()
    wanted = tiny_processor(motion_codes=codes_of(tiny_model, tiny_processor, clips))
    assert torch.equal(tiny_processor(motion_codes=padded)["input_ids"], wanted["input_ids"])


def test_codes_outside_the_codebook_are_refused(tiny_processor):
    with pytest.raises(ValueError, match="motion code 32 is not in the codebook; it has codes 0 to 31"):
        tiny_processor(motion_codes=[[0, 32]])


def test_tensors_or_arrays(tiny_processor, clips):
    tensors, arrays = (tiny_processor(motion=clips, text=TEXTS, return_tensors=kind) for kind in ("pt", "np"))
    for name, tensor in tensors.items():
        assert isinstance(tensor, torch.Tensor) and isinstance(arrays[name], np.ndarray)
        assert np.array_equal(tensor, arrays[name])


def test_motion_too_long_for_the_model_is_named(tiny_processor, clips):
    endless = np.zeros((10_000, 263), np.float32)
    with pytest.raises(ValueError, match=r"endless\.npy takes \d{4} tokens with its text, the language model 128"):
        tiny_processor(motion=[clips[0], endless], names=["short.npy", "endless.npy"])
    with pytest.raises(ValueError, match="motion 1 takes"):
        tiny_processor(motion=[clips[0], endless])


def test_answer_too_long_for_the_model_is_refused(tiny_processor, clips):
    with pytest.raises(ValueError, match="motion 0 takes"):
        tiny_processor(motion=clips[:1], text=["walks " * 128])


def test_wrong_calls_say_what_is_wanted(tiny_processor, clips):
    with pytest.raises(ValueError, match="unknown task 'motion-to-music'; known tasks: motion-to-text"):
        tiny_processor(motion=clips, task="motion-to-music")
    with pytest.raises(ValueError, match="2 texts for 3 motions"):
        tiny_processor(motion=clips, text=TEXTS[:2])
    with pytest.raises(ValueError, match="'motion-to-text' is about a motion: give either `motion` or `motion_codes`"):
        tiny_processor(text=TEXTS)
    with pytest.raises(ValueError, match="'text-to-motion' is about a caption: give `text`"):
        tiny_processor(motion=clips, task="text-to-motion")
    with pytest.raises(ValueError, match="'unconditional' has no use for a motion"):
        tiny_processor(motion=clips, task="unconditional")
    with pytest.raises(ValueError, match="'motion-prediction' has no use for `text`"):
        tiny_processor(motion=clips, text=TEXTS, task="motion-prediction")
    with pytest.raises(ValueError, match="give the parts to `model.generate_motion"):
        tiny_processor(motion=clips, task="motion-in-between")
    with pytest.raises(ValueError, match="num_frames is given, but 'motion-to-text' answers with text"):
        tiny_processor(motion=clips, num_frames=20)
    with pytest.raises(ValueError, match="2 lengths for 3 prompts"):
        tiny_processor(text=TEXTS, task="text-to-motion", num_frames=[20, 40])
    with pytest.raises(ValueError, match="num_frames is 0; ask for at least 1"):
        tiny_processor(text=TEXTS, task="text-to-motion", num_frames=0)
    with pytest.raises(ValueError, match="either `motion` or `motion_codes`"):
        tiny_processor(motion=clips, motion_codes=[[1]] * 3)


def rows_of(inputs, tokenizer) -> list[str]:
    """What each row says, without padding."""
    pairs = zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    return [tokenizer.decode(ids[mask.bool()]).replace("> <", "><") for ids, mask in pairs]


def test_text_to_motion_asks_with_the_caption_and_answers_with_the_motion(tiny_processor):
    """The prompt ends inside the motion; the answer is its codes, its end and the end of text."""
    tokenizer, codes = tiny_processor.tokenizer, [[3, 1], [5], [7, 7, 7]]
    prompts = tiny_processor(text=TEXTS, task="text-to-motion")
    said = rows_of(prompts, tokenizer)
    assert said == [f"Show the motion: {text}\nMotion:<motion>" for text in TEXTS]
    assert "labels" not in prompts and prompts["attention_mask"][:, -1].all()
    training = tiny_processor(text=TEXTS, motion_codes=codes, task="text-to-motion")
    for row, motion in enumerate(codes):
        answer = tokenizer.convert_tokens_to_ids([*(f"<motion_{code}>" for code in motion), "</motion>"])
        labels = training["labels"][row]
        assert labels[labels != -100].tolist() == [*answer, tokenizer.eos_token_id]
        prompt = training["input_ids"][row][(labels == -100) & training["attention_mask"][row].bool()]
        assert prompt.tolist() == prompts["input_ids"][row][prompts["attention_mask"][row].bool()].tolist()


def test_lengths_are_stated_in_seconds_of_whole_codes(tiny_processor):
    """8 frames at 20 frames a second a code; a length that is not a multiple takes one more code."""
    inputs = tiny_processor(text=TEXTS, task="text-to-motion", num_frames=[40, None, 41])
    said = rows_of(inputs, tiny_processor.tokenizer)
    assert said[0] == f"Show the motion for 2.0 seconds: {TEXTS[0]}\nMotion:<motion>"
    assert said[1] == f"Show the motion: {TEXTS[1]}\nMotion:<motion>"
    assert said[2].startswith("Show the motion for 2.4 seconds: ")
    assert tiny_processor.frames_to_codes(40) == 5 and tiny_processor.frames_to_codes(41) == 6


def test_what_is_given_of_a_motion_begins_the_answer(tiny_processor):
    said = rows_of(tiny_processor(motion_codes=[[3, 1]], task="motion-prediction"), tiny_processor.tokenizer)
    assert said == ["Go on with the motion.\nMotion:<motion><motion_3><motion_1>"]


@pytest.mark.parametrize("with_answers", [False, True], ids=["prompt", "answer"])
def test_a_gap_is_asked_for_between_its_ends(tiny_processor, with_answers):
    """The end stands before the answer, the start begins it; only the gap is labelled."""
    codes = [3, 1, 8, 9, 5] if with_answers else [3, 1, 5]
    example = MotionTaskExample("motion-in-between", None, codes, num_given_start=2, num_given_end=1, num_codes=5)
    inputs = tiny_processor.prepare_examples([example], with_answers=with_answers)
    inputs = {name: torch.from_numpy(array) for name, array in inputs.items()}
    question = "Fill in the motion of 2.0 seconds up to its end:<motion><motion_5></motion>\nMotion:"
    prompt = question + "<motion><motion_3><motion_1>"
    answer = "<motion_8><motion_9></motion><|endoftext|>"
    (said,) = rows_of(inputs, tiny_processor.tokenizer)
    assert said == prompt + answer * with_answers
    if with_answers:
        labels = inputs["labels"][0]
        assert tiny_processor.tokenizer.decode(labels[labels != -100]).replace("> <", "><") == answer


def test_duration_is_asked_and_answered_in_seconds(tiny_processor):
    example = MotionTaskExample("motion-duration", motion_codes=[4] * 7)
    inputs = tiny_processor.prepare_examples([example], with_answers=True)
    labels = inputs["labels"][0]
    answer = tiny_processor.tokenizer.decode(labels[labels != -100])
    assert answer == " 2.8 seconds<|endoftext|>" and read_duration(answer) == 2.8
    assert read_duration("a while") is None


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_wording_of_every_task_becomes_a_prompt_of_its_own(tiny_processor, task):
    """With what it is about: the motion or the caption, and the length where it is stated."""
    task_prompts = [*TASKS[task].wordings, *TASKS[task].timed_wordings]
    assert len(set(task_prompts)) == len(task_prompts) >= 3
    examples = [
        MotionTaskExample(task, "a man", [1, 2, 3], num_codes=length, wording=wording)
        for length in (None, 3)
        for wording in range(len(TASKS[task].wordings))
        if length is None or TASKS[task].timed_wordings
    ]
    rows = tiny_processor.prepare_examples(examples, with_answers=False)
    said = rows_of({name: torch.from_numpy(array) for name, array in rows.items()}, tiny_processor.tokenizer)
    assert len(set(said)) == len(task_prompts)
    for prompt, row in zip(task_prompts, said, strict=True):
        assert "{" not in row and ("a man" in row) == ("{text}" in prompt) and ("1.2 s" in row) == ("{dur" in prompt)
        assert ("<motion><motion_1><motion_2><motion_3></motion>" in row) == ("{motion}" in prompt)
        assert row.endswith("<motion>") == (TASKS[task].answer == "motion")


def test_a_caption_with_braces_stays_as_it_is(tiny_processor):
    (said,) = rows_of(tiny_processor(text="says {motion} {x}", task="text-to-motion"), tiny_processor.tokenizer)
    assert said == "Show the motion: says {motion} {x}\nMotion:<motion>"


def test_prompts_open_as_texts_of_the_base_do(enclosing_tokenizer, tiny_feature_extractor):
    """With `<s>`, where its tokenizer puts one; a `<pad>` of its own is no hindrance."""
    ids = enclosing_tokenizer.convert_tokens_to_ids(["<s>", "</s>", "<pad>"])
    config = config_for(len(enclosing_tokenizer))
    processor = GeoMotionGPTProcessor.from_components(tiny_feature_extractor, enclosing_tokenizer, config)
    row = processor(text="a man", task="text-to-motion")["input_ids"][0].tolist()
    assert row[0] == ids[0] and row.count(ids[0]) == 1 and ids[1] not in row
    assert processor.tokenizer.pad_token_id == config.pad_token_id != ids[2]


def test_text_rows_without_a_token_keep_the_motion_ids_in_place(text_tokenizer, tiny_feature_extractor):
    """A base model may have more embedding rows than its tokenizer has tokens."""
    config = config_for(len(text_tokenizer) + 5)
    tokenizer = GeoMotionGPTProcessor.from_components(tiny_feature_extractor, text_tokenizer, config).tokenizer
    assert len(tokenizer) == config.vocab_size
    assert tokenizer.convert_tokens_to_ids("<motion_0>") == config.first_motion_token_id
    assert tokenizer.convert_tokens_to_ids("<motion_placeholder>") == config.motion_placeholder_token_id
    assert tokenizer.pad_token_id == config.pad_token_id


def test_tokenizer_with_more_tokens_than_rows_is_refused(text_tokenizer, tiny_feature_extractor):
    size = len(text_tokenizer)
    with pytest.raises(ValueError, match=f"{size} tokens, the base model's embedding {size - 1} rows"):
        GeoMotionGPTProcessor.from_components(tiny_feature_extractor, text_tokenizer, config_for(size - 1))


def test_tokenizer_of_another_motion_model_is_refused(text_tokenizer, tiny_feature_extractor):
    GeoMotionGPTProcessor.from_components(tiny_feature_extractor, text_tokenizer, config_for(len(text_tokenizer)))
    with pytest.raises(
        ValueError, match="already has <motion_pad>, <motion>, .* and 31 more, motion tokens of another"
    ):
        GeoMotionGPTProcessor.from_components(tiny_feature_extractor, text_tokenizer, config_for(len(text_tokenizer)))


@pytest.mark.parametrize("options", [{"representation": "kitml"}, {"downsampling_factor": 4}])
def test_feature_extractor_of_another_motion_tokenizer_is_refused(text_tokenizer, options):
    with pytest.raises(ValueError, match=r"the motion tokenizer takes \(263, 8\)"):
        GeoMotionGPTProcessor.from_components(
            MotionFeatureExtractor(**options), text_tokenizer, config_for(len(text_tokenizer))
        )


def test_durations_are_stated_by_numbers_and_by_some_tasks_only():
    seconds = [frames / 20 for frames in (4, 8, 12, 12, 148)]
    assert stated_numbers(seconds) == ["0.2", "0.4", "0.6", "7.4"]
    assert state_any_duration(["motion-to-text", "text-to-motion"]) and state_any_duration(["motion-duration"])
    assert not state_any_duration(["motion-to-text"])
    assert " seconds" in prompt_words(["motion-duration"]) and " seconds" not in prompt_words(["motion-to-text"])


def test_a_number_is_one_token_of_a_text_tokenizer_that_knows_it():
    tokenizer = train_text_tokenizer([["a person walks 7.4 metres"]], 300, None, ["7.4", "0.2"])
    for text, tokens in ((" for 7.4 seconds", 1), (" for 17.4 seconds", 0), (" 7.45", 0), (" 0.2.", 1)):
        ids = tokenizer(text).input_ids
        assert sum(token in ("7.4", "0.2") for token in tokenizer.convert_ids_to_tokens(ids)) == tokens
        assert tokenizer.decode(ids) == text


def test_an_answer_that_spells_a_motion_token_is_words(tiny_processor, clips):
    """A marker among the labels would end the answer, or be one that is never to be said."""
    tokenizer = tiny_processor.tokenizer
    caption = f"turns <motion> and </motion> {tokenizer.eos_token} stops"
    labels = tiny_processor(motion=clips[:1], text=[caption])["labels"][0]
    answer = labels[labels != -100].tolist()
    special = {*tokenizer.all_special_ids, *tokenizer.convert_tokens_to_ids(["<motion>", "</motion>"])}
    assert answer[-1] == tokenizer.eos_token_id and not special & {*answer[:-1]}
