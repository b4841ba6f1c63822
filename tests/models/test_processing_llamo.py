"""The processor of LLaMo: prompts with a slot for each latent, labels, the base's tokenizer, what is refused."""

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoProcessor

from geomotiongpt import CausalMotionCodecConfig, LLaMoConfig, LLaMoProcessor, MotionFeatureExtractor
from geomotiongpt.models.processing_llamo import GIVEN, MADE
from geomotiongpt.models.task_prompts import TASKS, MotionTaskExample

TEXTS = ["a person walks forward", "someone jumps", "the figure turns around to the right and sits down"]
END = "<|endoftext|>"


@pytest.fixture
def processor(llamo_processor) -> LLaMoProcessor:
    return llamo_processor


def config_for(rows: int, **options) -> LLaMoConfig:
    codec = CausalMotionCodecConfig(**{"num_features": 263, "hidden_size": 8, "latent_dim": 4} | options)
    return LLaMoConfig(text_config={"vocab_size": rows, "n_positions": 64}, motion_codec_config=codec)


def said(inputs, tokenizer) -> list[str]:
    """What each row says, without padding; slots as digits: how many latents are given, made."""
    rows = []
    for ids, mask in zip(np.asarray(inputs["input_ids"]), np.asarray(inputs["attention_mask"]), strict=True):
        row = tokenizer.decode(ids[mask == 1]).replace("> <", "><")
        rows.append(row.replace("<motion_in>", "i").replace("<motion_out>", "o"))
    return rows


def labelled(inputs, tokenizer) -> list[str]:
    return [tokenizer.decode(row[row != -100]) for row in np.asarray(inputs["labels"])]


# Prompts and labels


EXPECTED = {
    "motion-to-text": ("Describe the motion:<motion>iiiiii</motion>\nDescription:", f" a man{END}", f" a man{END}"),
    "text-to-motion": ("Show the motion: a man\nMotion:<motion>", f"oooooo</motion>{END}", ""),
    "motion-prediction": ("Go on with the motion.\nMotion:<motion>ii", f"oooo</motion>{END}", ""),
    "motion-in-between": (
        "Fill in the motion up to its end:<motion>i</motion>\nMotion:<motion>ii",
        f"ooo</motion>{END}",
        "",
    ),
    "unconditional": ("Show any motion.\nMotion:<motion>", f"oooooo</motion>{END}", ""),
    "motion-duration": (
        "How long is the motion?<motion>iiiiii</motion>\nDuration:",
        f" 1.2 seconds{END}",
        f" 1.2 seconds{END}",
    ),
}


def example_of(task, **options):
    """Of 6 latents, 2 at the start and, in between, 1 at the end are given."""
    start = 2 if task in ("motion-prediction", "motion-in-between") else 0
    end = 1 if task == "motion-in-between" else 0
    made = 6 - start - end if TASKS[task].answer == "motion" else 0
    kinds = [GIVEN] * start + [MADE] * made + [GIVEN] * (6 - start - made)
    return MotionTaskExample(task, "a man", kinds, start, end, **options)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_what_each_task_asks_and_answers(processor, task):
    """Words that answer are labelled; of a motion that answers nothing is: its heads say what comes next."""
    prompt, answer, labels = EXPECTED[task]
    training = processor.prepare_examples([example_of(task)], with_answers=True)
    assert said(training, processor.tokenizer) == [prompt + answer]
    assert labelled(training, processor.tokenizer) == [labels]
    kept = training["labels"] != -100
    assert np.array_equal(training["labels"][kept], training["input_ids"][kept])
    generation = processor.prepare_examples([example_of(task)], with_answers=False)
    assert said(generation, processor.tokenizer) == [prompt] and "labels" not in generation


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_wording_becomes_a_prompt_of_its_own(processor, task):
    wordings = [*TASKS[task].wordings, *TASKS[task].timed_wordings]
    lengths = (None, 6) if TASKS[task].timed_wordings else (None,)
    numbers = range(len(TASKS[task].wordings))
    examples = [example_of(task, num_codes=length, wording=number) for length in lengths for number in numbers]
    rows = said(processor.prepare_examples(examples, with_answers=False), processor.tokenizer)
    assert len(set(rows)) == len(wordings)
    for wording, row in zip(wordings, rows, strict=True):
        assert ("a man" in row) == ("{text}" in wording) and ("1.2 seconds" in row) == ("{duration}" in wording)


def test_rows_are_padded_on_the_right_in_training_and_on_the_left_in_generation(processor):
    examples = [example_of(task) for task in sorted(TASKS)]
    pad = processor.tokenizer.pad_token_id
    for with_answers in (True, False):
        rows = processor.prepare_examples(examples, with_answers=with_answers)
        assert np.array_equal(rows["input_ids"] != pad, rows["attention_mask"] == 1)
        real = rows["attention_mask"] if with_answers else rows["attention_mask"][:, ::-1]
        assert (np.diff(real, axis=1) <= 0).all() and not real.all()
        for row, example in enumerate(examples):
            single = processor.prepare_examples([example], with_answers=with_answers)
            real = rows["attention_mask"][row] == 1
            assert np.array_equal(rows["input_ids"][row][real], single["input_ids"][0])


def test_motions_have_as_many_slots_as_latents(processor, clips):
    """40, 16 and 67 frames: frames that fill no latent have none."""
    training, generation = processor(motion=clips, text=TEXTS), processor(motion=clips)
    slot = processor.tokenizer.convert_tokens_to_ids("<motion_in>")
    for inputs in (training, generation):
        assert (inputs["input_ids"] == slot).sum(-1).tolist() == [10, 4, 16]
        assert inputs["motion_mask"].sum(-1).tolist() == [40, 16, 67]
    assert labelled(training, processor.tokenizer) == [f" {text}{END}" for text in TEXTS]
    for row in range(3):
        prompt = generation["input_ids"][row][generation["attention_mask"][row].bool()]
        assert torch.equal(training["input_ids"][row][: len(prompt)], prompt)
    answers = [row[row != -100] for row in training["labels"]]
    pad = processor.tokenizer.pad_token_id
    written = torch.nn.utils.rnn.pad_sequence(answers, batch_first=True, padding_value=pad)
    generated = torch.cat([generation["input_ids"], written], dim=1)
    assert processor.post_process_text(generated, generation["input_ids"].shape[1]) == TEXTS


def test_prompts_for_motions_state_lengths(processor, clips):
    inputs = processor(text=TEXTS, task="text-to-motion", num_frames=[40, None, 41])
    assert said(inputs, processor.tokenizer) == [
        f"Show the motion for 2.0 seconds: {TEXTS[0]}\nMotion:<motion>",
        f"Show the motion: {TEXTS[1]}\nMotion:<motion>",
        f"Show the motion for 2.2 seconds: {TEXTS[2]}\nMotion:<motion>",
    ]
    inputs = processor(motion=clips[1], task="motion-prediction", num_frames=20)
    assert said(inputs, processor.tokenizer) == ["Go on with the motion to 1.0 seconds in all.\nMotion:<motion>iiii"]
    assert inputs["motion_values"].shape == (1, 16, 263)
    assert len(processor(task="unconditional", num_frames=[8, 8, 8])["input_ids"]) == 3
    assert "labels" not in processor(motion=clips, task="motion-duration")


def test_a_caption_that_spells_a_motion_token_is_words(processor):
    inputs = processor(text="a <motion_out> {end} b", task="text-to-motion")
    slot = processor.tokenizer.convert_tokens_to_ids("<motion_out>")
    assert slot not in inputs["input_ids"]
    (row,) = said(inputs, processor.tokenizer)
    assert row == "Show the motion: a o {end} b\nMotion:<motion>"


# Saving, and the tokenizer of the base


def test_a_processor_comes_back_as_saved(llamo_folder, processor, clips):
    for loaded in (LLaMoProcessor.from_pretrained(llamo_folder), AutoProcessor.from_pretrained(llamo_folder)):
        assert type(loaded) is LLaMoProcessor and loaded.tokenizer.model_max_length == 128
        for inputs in ({"motion": clips}, {"motion": clips, "text": TEXTS}, {"text": TEXTS, "task": "text-to-motion"}):
            made, wanted = loaded(**inputs), processor(**inputs)
            assert made.keys() == wanted.keys() and all(torch.equal(made[name], wanted[name]) for name in wanted)
    alone = AutoFeatureExtractor.from_pretrained(llamo_folder / "motion_codec")
    assert alone.to_dict() == processor.feature_extractor.to_dict()


def test_the_tokenizer_keeps_its_words_and_its_chat_template(text_tokenizer, llamo_feature_extractor, tmp_path):
    """A base model may have more embedding rows than its tokenizer has tokens."""
    size, words = len(text_tokenizer), text_tokenizer(TEXTS)["input_ids"]
    text_tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    talk = [{"role": "user", "content": TEXTS[0]}]
    wanted = text_tokenizer.apply_chat_template(talk, return_dict=False)
    config = config_for(size + 5)
    processor = LLaMoProcessor.from_components(llamo_feature_extractor, text_tokenizer, config)
    processor.save_pretrained(tmp_path)
    for tokenizer in (processor.tokenizer, AutoProcessor.from_pretrained(tmp_path).tokenizer):
        assert tokenizer.apply_chat_template(talk, return_dict=False) == wanted
        assert tokenizer(TEXTS)["input_ids"] == words and len(tokenizer) == config.vocab_size == size + 10
        tokens = ["<unused_" + str(size) + ">", "<motion_pad>", "<motion>", "</motion>", "<motion_in>", "<motion_out>"]
        ids = [size, config.padding_token_id, config.motion_start_token_id, config.motion_end_token_id]
        assert tokenizer.convert_tokens_to_ids(tokens) == [*ids, config.motion_in_token_id, config.motion_out_token_id]
        assert tokenizer.pad_token_id == config.padding_token_id and tokenizer.model_max_length == 64
    assert processor.tokenizer.padding_side == "left"


def test_what_does_not_fit_the_model_is_refused(text_tokenizer, llamo_feature_extractor):
    join, size = LLaMoProcessor.from_components, len(text_tokenizer)
    with pytest.raises(ValueError, match=f"{size} tokens, the base model's embedding {size - 1} rows"):
        join(llamo_feature_extractor, text_tokenizer, config_for(size - 1))
    with pytest.raises(ValueError, match=r"251 features and latents of 4 frames; the motion codec takes \(263, 4\)"):
        join(MotionFeatureExtractor("kitml", downsampling_factor=4), text_tokenizer, config_for(size))
    with pytest.raises(ValueError, match=r"263 features and latents of 8 frames; the motion codec takes \(263, 4\)"):
        join(MotionFeatureExtractor(downsampling_factor=8), text_tokenizer, config_for(size))
    join(llamo_feature_extractor, text_tokenizer, config_for(size))
    for rows in (size, size + 40):
        with pytest.raises(ValueError, match="the tokenizer already has <motion_pad>, <motion>, .* load the base's"):
            join(llamo_feature_extractor, text_tokenizer, config_for(rows))


def test_prompts_open_as_texts_of_the_base_do(enclosing_tokenizer, llamo_feature_extractor, tmp_path):
    """With `<s>`, where its tokenizer puts one; a `<pad>` of its own is no hindrance."""
    tokenizer = enclosing_tokenizer
    ids = tokenizer.convert_tokens_to_ids(["<s>", "</s>", "<pad>"])
    processor = LLaMoProcessor.from_components(llamo_feature_extractor, tokenizer, config_for(len(tokenizer)))
    processor.save_pretrained(tmp_path)
    for made in (processor, AutoProcessor.from_pretrained(tmp_path)):
        inputs = made(text=TEXTS, task="text-to-motion")
        rows = [
            row[mask.bool()].tolist() for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        ]
        assert all(row[0] == ids[0] and row.count(ids[0]) == 1 and ids[1] not in row for row in rows)
        assert made.tokenizer.pad_token_id != ids[2]
        examples = [example_of("motion-to-text")]
        whole = made.prepare_examples(examples, with_answers=True)
        assert whole["input_ids"][0, 0] == ids[0] and whole["labels"][0, 0] == -100


def test_conversations_are_written_as_the_base_wants_them(text_tokenizer, llamo_feature_extractor):
    text_tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    talk = [{"role": "user", "content": TEXTS[0]}]
    wanted = text_tokenizer.apply_chat_template(talk, return_dict=False)
    processor = LLaMoProcessor.from_components(
        llamo_feature_extractor, text_tokenizer, config_for(len(text_tokenizer))
    )
    assert processor.apply_chat_template(talk, return_dict=False) == wanted
    assert processor.apply_chat_template(talk, tokenize=False) == TEXTS[0] + "\n"


# Bad calls


def test_wrong_calls_say_what_is_wanted(processor, clips):
    for options, message in (
        ({"motion": clips, "task": "motion-to-music"}, "unknown task 'motion-to-music'; known tasks: motion-to-text"),
        ({"motion": clips, "text": TEXTS[:2]}, "2 texts for 3 motions; give one text a motion"),
        ({"text": TEXTS}, "'motion-to-text' is about a motion: give"),
        ({"task": "motion-prediction"}, "'motion-prediction' is about a motion: give"),
        ({"task": "text-to-motion"}, "'text-to-motion' is about a caption: give `text`"),
        ({"motion": clips, "text": TEXTS, "task": "text-to-motion"}, "'text-to-motion' has no use for a motion"),
        ({"motion": clips, "task": "unconditional"}, "'unconditional' has no use for a motion"),
        ({"motion": clips, "text": TEXTS, "task": "motion-prediction"}, "'motion-prediction' has no use for `text`"),
        ({"motion": clips, "task": "motion-in-between"}, "give the parts to `model.generate_motion"),
        ({"motion": clips, "num_frames": 20}, "num_frames is given, but 'motion-to-text' answers with text"),
        ({"text": TEXTS, "task": "text-to-motion", "num_frames": [20, 40]}, "2 lengths for 3 prompts"),
        ({"text": TEXTS, "task": "text-to-motion", "num_frames": 0}, "num_frames is 0; ask for at least 1"),
        ({"motion": clips[0][:3]}, "motion 0 has 3 frames; the model takes 4 or more"),
        ({"motion": clips[:2], "text": ["walks", "walks " * 128]}, r"motion 1 takes \d+ tokens .* model 128: cut the"),
        ({"motion": clips[:1], "text": "walks " * 128, "names": ["clip.npy"]}, r"clip\.npy takes \d+ tokens"),
    ):
        with pytest.raises(ValueError, match=message):
            processor(**options)


def test_an_answer_that_spells_a_motion_token_is_words(processor, clips):
    """A marker among the labels would end the answer, or be one that is never to be said."""
    tokenizer = processor.tokenizer
    caption = f"turns <motion> and </motion> {tokenizer.eos_token} stops"
    labels = processor(motion=clips[:1], text=[caption])["labels"][0]
    answer = labels[labels != -100].tolist()
    special = {*tokenizer.all_special_ids, *tokenizer.convert_tokens_to_ids(["<motion>", "</motion>"])}
    assert answer[-1] == tokenizer.eos_token_id and not special & {*answer[:-1]}
