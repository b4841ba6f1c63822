"""The processor of MotionGPT3: prompts, answers and labels as token ids, the same in training and in generation."""

import copy

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from geomotiongpt import MotionFeatureExtractor, MotionGPT3Config, MotionGPT3Processor, MotionVAEConfig
from geomotiongpt.models.task_prompts import LATENT_TASKS, TASKS, LatentTaskExample, read_duration, state_any_duration

TEXTS = ["a person walks forward", "someone jumps", "the figure turns around to the right and sits down"]
IN = "<motion>" + 4 * "<motion_in>" + "</motion>"
OUT = "<motion>" + 4 * "<motion_out>" + "</motion>"
END = "<|endoftext|>"


@pytest.fixture
def processor(motiongpt3_processor) -> MotionGPT3Processor:
    return motiongpt3_processor


def config_for(rows: int, **options) -> MotionGPT3Config:
    vae = MotionVAEConfig(latent_dim=16, num_layers=1, num_heads=2)
    return MotionGPT3Config(text_config={"vocab_size": rows, "n_positions": 64}, motion_vae_config=vae, **options)


def said(inputs, tokenizer) -> list[str]:
    """What each row says, without padding."""
    pairs = zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    return [tokenizer.decode(np.asarray(ids)[np.asarray(mask) == 1]).replace("> <", "><") for ids, mask in pairs]


def labelled(inputs, tokenizer) -> list[str]:
    return [tokenizer.decode(row[row != -100]).replace("> <", "><") for row in np.asarray(inputs["labels"])]


def prepare(processor, *examples, with_answers=True):
    return processor.prepare_examples(examples, with_answers=with_answers)


# Prompts and labels


EXPECTED = {
    "motion-to-text": (f"Describe the motion:{IN}\nDescription:", f" a man{END}", f" a man{END}"),
    "text-to-motion": ("Show the motion for 2.0 seconds: a man\nMotion:", OUT + END, f"<motion>{END}"),
    "motion-prediction": (f"Go on with the motion for 2.0 seconds:{IN}\nMotion:", OUT + END, f"<motion>{END}"),
    "motion-in-between": (
        f"Fill in 2.0 seconds of motion between start and end:{IN}{IN}\nMotion:",
        OUT + END,
        f"<motion>{END}",
    ),
    "unconditional": ("Show any motion for 2.0 seconds.\nMotion:", OUT + END, f"<motion>{END}"),
    "motion-duration": (f"How long is the motion?{IN}\nDuration:", f" 2.0 seconds{END}", f" 2.0 seconds{END}"),
    "text": ("", f" a man{END}", f" a man{END}"),
}


@pytest.mark.parametrize("task", sorted(LATENT_TASKS))
def test_what_each_task_asks_and_answers(processor, task):
    """Labels are exactly on the answer; of a motion on what starts it and on the end of text."""
    prompt, answer, labels = EXPECTED[task]
    example = LatentTaskExample(task, "a man", 40)
    training = prepare(processor, example)
    assert said(training, processor.tokenizer) == [prompt + answer]
    assert labelled(training, processor.tokenizer) == [labels]
    kept = training["labels"] != -100
    assert np.array_equal(training["labels"][kept], training["input_ids"][kept])
    if prompt:
        assert said(prepare(processor, example, with_answers=False), processor.tokenizer) == [prompt]


@pytest.mark.parametrize("task", sorted(LATENT_TASKS))
def test_every_wording_of_every_task_becomes_a_prompt_of_its_own(processor, task):
    """With what it is about, and the length where it is stated."""
    wordings = [*LATENT_TASKS[task].wordings, *LATENT_TASKS[task].timed_wordings]
    assert len(set(wordings)) == len(wordings) >= (1 if task == "text" else 3)
    lengths = (None, 24) if LATENT_TASKS[task].timed_wordings else (None if task != "motion-duration" else 24,)
    numbers = range(len(LATENT_TASKS[task].wordings))
    examples = [LatentTaskExample(task, "a man", length, number) for length in lengths for number in numbers]
    rows = said(prepare(processor, *examples, with_answers=False), processor.tokenizer)
    assert len(set(rows)) == len(wordings) and set(TASKS) < set(LATENT_TASKS)
    for wording, row in zip(wordings, rows, strict=True):
        assert "{" not in row and ("a man" in row) == ("{text}" in wording) and ("1.2 s" in row) == ("{dur" in wording)
        assert row.count(IN) == sum(field in wording for field in ("{motion}", "{start}", "{end}"))
        assert "<motion_out>" not in row


def test_rows_of_all_tasks_are_padded_on_the_right_in_training_and_on_the_left_in_generation(processor):
    examples = [LatentTaskExample(task, TEXTS[2], 30) for task in sorted(LATENT_TASKS)]
    pad, end = processor.tokenizer.pad_token_id, processor.tokenizer.eos_token_id
    assert pad != end
    for with_answers in (True, False):
        rows = prepare(processor, *examples, with_answers=with_answers)
        lengths = rows["attention_mask"].sum(-1)
        assert len(set(lengths.tolist())) > 4 and rows["input_ids"].dtype == np.int64
        assert np.array_equal(rows["input_ids"] != pad, rows["attention_mask"] == 1)
        real = rows["attention_mask"] if with_answers else rows["attention_mask"][:, ::-1]
        assert (np.diff(real, axis=1) <= 0).all()
        if with_answers:
            assert (rows["labels"][rows["attention_mask"] == 0] == -100).all()
            assert [row[row != -100][-1] for row in rows["labels"]] == [end] * len(examples)
        alone = [prepare(processor, example, with_answers=with_answers) for example in examples]
        for row, single in enumerate(alone):
            real = rows["attention_mask"][row] == 1
            assert np.array_equal(rows["input_ids"][row][real], single["input_ids"][0])


def test_generation_starts_from_the_prompt_of_training(processor, clips):
    training, generation = processor(motion=clips, text=TEXTS), processor(motion=clips)
    assert "labels" not in generation and generation["attention_mask"][:, -1].all()
    for row, text in enumerate(TEXTS):
        prompt = generation["input_ids"][row][generation["attention_mask"][row].bool()].tolist()
        answer = [*processor.tokenizer(" " + text)["input_ids"], processor.tokenizer.eos_token_id]
        assert training["input_ids"][row][training["attention_mask"][row].bool()].tolist() == prompt + answer
        labels = training["labels"][row]
        assert labels[: len(prompt)].eq(-100).all() and labels[labels != -100].tolist() == answer
    for inputs in (generation, training):
        assert inputs["motion_mask"].sum(-1).tolist() == [40, 16, 67]
        assert inputs["motion_values"].shape == (3, 67, 263)


def test_a_prompt_for_a_motion_ends_with_its_slots(processor, clips):
    """And has no labels: what is asked is the motion, which `generate_motion` makes."""
    inputs = processor(text=TEXTS, task="text-to-motion", num_frames=[40, None, 41])
    asked = [f"Show the motion for 2.0 seconds: {TEXTS[0]}", f"Show the motion: {TEXTS[1]}"]
    asked.append(f"Show the motion for 2.0 seconds: {TEXTS[2]}")  # 2.05 seconds, to a tenth
    assert said(inputs, processor.tokenizer) == [f"{prompt}\nMotion:{OUT}{END}" for prompt in asked]
    assert "labels" not in inputs and "motion_values" not in inputs
    inputs = processor(motion=clips[:2], task="motion-prediction", num_frames=20)
    assert (
        said(inputs, processor.tokenizer) == [EXPECTED["motion-prediction"][0].replace("2.0", "1.0") + OUT + END] * 2
    )
    for num_frames, count in ((None, 1), ([8, 8, 8], 3)):
        assert len(processor(task="unconditional", num_frames=num_frames)["input_ids"]) == count


def test_a_plain_text_is_all_answer(processor):
    inputs = processor(text=TEXTS, task="text")
    assert labelled(inputs, processor.tokenizer) == [f" {text}{END}" for text in TEXTS]
    assert torch.equal(inputs["labels"] != -100, inputs["attention_mask"].bool())


def test_durations_are_asked_and_answered_in_seconds(processor, clips):
    (answer,) = labelled(prepare(processor, LatentTaskExample("motion-duration", None, 56)), processor.tokenizer)
    assert read_duration(answer) == 2.8
    inputs = processor(motion=clips, task="motion-duration")
    assert said(inputs, processor.tokenizer) == [f"How long is the motion?{IN}\nDuration:"] * 3
    assert "labels" not in inputs and processor.frames_to_seconds(30) == 1.5
    assert state_any_duration(["text", "motion-prediction"], LATENT_TASKS)
    assert not state_any_duration(["text", "motion-to-text"], LATENT_TASKS)


def test_a_caption_with_braces_stays_as_it_is(processor):
    (row,) = said(processor(text="says {start} {x}", task="text-to-motion"), processor.tokenizer)
    assert row == f"Show the motion: says {{start}} {{x}}\nMotion:{OUT}{END}"


def test_a_caption_that_spells_a_motion_token_is_words(processor):
    inputs = processor(text="a <motion_out> b", task="text-to-motion")
    slot = processor.tokenizer.convert_tokens_to_ids("<motion_out>")
    assert int((inputs["input_ids"] == slot).sum()) == 4


def test_generated_ids_become_texts(processor, clips):
    training, generation = processor(motion=clips, text=TEXTS), processor(motion=clips)
    answers = [row[row != -100] for row in training["labels"]]
    pad = processor.tokenizer.pad_token_id
    generated = torch.cat(
        [generation["input_ids"], torch.nn.utils.rnn.pad_sequence(answers, batch_first=True, padding_value=pad)], dim=1
    )
    assert processor.post_process_text(generated, generation["input_ids"].shape[1]) == TEXTS


def test_tensors_or_arrays(processor, clips):
    tensors, arrays = (processor(motion=clips, text=TEXTS, return_tensors=kind) for kind in ("pt", "np"))
    for name, tensor in tensors.items():
        assert isinstance(tensor, torch.Tensor) and isinstance(arrays[name], np.ndarray)
        assert np.array_equal(tensor, arrays[name])


# Bad calls


def test_wrong_calls_say_what_is_wanted(processor, clips):
    for options, message in (
        ({"text": [], "task": "text-to-motion"}, r"text is \[\]; give a caption or a list of captions"),
        ({"text": ["walks", 3], "task": "text-to-motion"}, "text is 3; give a caption or a list of captions"),
        ({"motion": clips, "task": "motion-to-music"}, "unknown task 'motion-to-music'; known tasks: motion-to-text"),
        ({"motion": clips, "text": TEXTS[:2]}, "2 texts for 3 motions; give one text a motion"),
        ({"text": TEXTS}, "'motion-to-text' is about a motion: give `motion`"),
        ({"task": "motion-prediction"}, "'motion-prediction' is about a motion: give `motion`"),
        ({"task": "text-to-motion"}, "'text-to-motion' is about a caption: give `text`"),
        ({"task": "text"}, "'text' is about a caption: give `text`"),
        ({"motion": clips, "text": TEXTS, "task": "text-to-motion"}, "'text-to-motion' has no use for a motion"),
        ({"motion": clips, "task": "unconditional"}, "'unconditional' has no use for a motion"),
        ({"motion": clips, "text": TEXTS, "task": "motion-prediction"}, "'motion-prediction' has no use for `text`"),
        ({"motion": clips, "task": "motion-in-between"}, "give the parts to `model.generate_motion"),
        ({"motion": clips, "num_frames": 20}, "num_frames is 20, but 'motion-to-text' answers with text"),
        (
            {"motion": clips, "task": "motion-duration", "num_frames": 20},
            "but 'motion-duration' answers with duration",
        ),
        ({"text": TEXTS, "task": "text-to-motion", "num_frames": [20, 40]}, "2 lengths for 3 prompts"),
        ({"text": TEXTS, "task": "text-to-motion", "num_frames": 0}, "num_frames is 0; ask for at least 1"),
        ({"text": TEXTS, "task": "text-to-motion", "num_frames": -4}, "num_frames is -4; ask for at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            processor(**options)
    with pytest.raises(ValueError, match="num_frames is 0; ask for at least 1"):
        prepare(processor, LatentTaskExample("motion-duration"))


@pytest.mark.parametrize("task", ["text-to-motion", "motion-to-text", "text"])
def test_an_example_without_its_caption_is_refused(processor, task):
    with pytest.raises(ValueError, match="caption"):
        prepare(processor, LatentTaskExample(task))


def test_rows_too_long_for_the_model_are_named(processor, clips):
    with pytest.raises(ValueError, match=r"motion 1 takes \d+ tokens with its text, the language model 128: shorten"):
        processor(motion=clips[:2], text=["walks", "walks " * 128])
    with pytest.raises(ValueError, match=r"clip\.npy takes"):
        processor(motion=clips[:1], text="walks " * 128, names=["clip.npy"])


# Saving, and the tokenizer of the base


def test_prompts_of_its_own_are_saved(motiongpt3_processor, tmp_path):
    """Of the tasks that they are for; the others keep theirs."""
    processor = copy.copy(motiongpt3_processor)
    processor.wordings = {"text-to-motion": ["Make {text}.\n", "Now {text}!\n"]}
    processor.save_pretrained(tmp_path)
    examples = [LatentTaskExample("text-to-motion", "a man", wording=wording) for wording in (0, 1, 2)]
    wanted = ["Make a man.\n", "Now a man!\n", "Make a man.\n", "Show any motion.\nMotion:"]
    for each in (processor, AutoProcessor.from_pretrained(tmp_path)):
        rows = prepare(each, *examples, LatentTaskExample("unconditional"), with_answers=False)
        assert said(rows, each.tokenizer) == wanted


@pytest.mark.parametrize("slots", [1, 4, 6])
def test_a_processor_comes_back_as_saved(make_motiongpt3_processor, tiny_motiongpt3, clips, tmp_path, slots):
    """With its number of slots; the feature extractor also beside the motion VAE."""
    config = copy.deepcopy(tiny_motiongpt3.config)
    config.num_motion_slots = slots
    model = copy.copy(tiny_motiongpt3)
    model.config = config
    processor = make_motiongpt3_processor(model)
    assert processor.num_motion_slots == slots
    processor.save_pretrained(tmp_path)
    for loaded in (MotionGPT3Processor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is MotionGPT3Processor and loaded.num_motion_slots == slots
        for inputs in ({"motion": clips}, {"motion": clips, "text": TEXTS}, {"text": TEXTS, "task": "text-to-motion"}):
            made, wanted = loaded(**inputs), processor(**inputs)
            assert made.keys() == wanted.keys() and all(torch.equal(made[name], wanted[name]) for name in wanted)
        assert loaded.tokenizer.model_max_length == 128
    slot = processor.tokenizer.convert_tokens_to_ids("<motion_in>")
    assert (processor(motion=clips)["input_ids"] == slot).sum(-1).tolist() == [slots] * 3
    alone = MotionFeatureExtractor.from_pretrained(tmp_path / "motion_vae")
    assert alone.to_dict() == processor.feature_extractor.to_dict()
    with pytest.raises(ValueError, match="save the processor, then call its `push_to_hub"):
        processor.save_pretrained(tmp_path, push_to_hub=True)


def test_rows_without_a_token_keep_the_motion_tokens_in_place(text_tokenizer, tiny_feature_extractor):
    """A base model may have more embedding rows than its tokenizer has tokens."""
    size = len(text_tokenizer)
    words = text_tokenizer(TEXTS)["input_ids"]
    config = config_for(size + 5)
    tokenizer = MotionGPT3Processor.from_components(tiny_feature_extractor, text_tokenizer, config).tokenizer
    assert len(tokenizer) == config.vocab_size == size + 10
    tokens = ["<unused_" + str(size) + ">", "<motion_pad>", "<motion>", "</motion>", "<motion_in>", "<motion_out>"]
    ids = [size, config.padding_token_id, config.motion_start_token_id, config.motion_end_token_id]
    assert tokenizer.convert_tokens_to_ids(tokens) == [*ids, config.motion_in_token_id, config.motion_out_token_id]
    assert tokenizer.pad_token_id == config.padding_token_id and tokenizer.padding_side == "left"
    assert tokenizer.model_max_length == 64 and tokenizer(TEXTS)["input_ids"] == words


def test_prompts_open_as_texts_of_the_base_do(enclosing_tokenizer, tiny_feature_extractor):
    """With `<s>`, where its tokenizer puts one; a `<pad>` of its own is no hindrance."""
    ids = enclosing_tokenizer.convert_tokens_to_ids(["<s>", "</s>", "<pad>"])
    config = config_for(len(enclosing_tokenizer))
    processor = MotionGPT3Processor.from_components(tiny_feature_extractor, enclosing_tokenizer, config)
    for task in ("text-to-motion", "text"):
        row = processor(text="a man", task=task)["input_ids"][0].tolist()
        assert row[0] == ids[0] and row.count(ids[0]) == 1 and ids[1] not in row
    whole = prepare(processor, LatentTaskExample("motion-to-text", "a man"))
    assert whole["input_ids"][0, 0] == ids[0] and whole["labels"][0, 0] == -100
    assert processor.tokenizer.pad_token_id == config.padding_token_id != ids[2]


def test_what_does_not_fit_the_model_is_refused(text_tokenizer, tiny_feature_extractor, trained_text_tokenizer):
    join, size = MotionGPT3Processor.from_components, len(text_tokenizer)
    with pytest.raises(ValueError, match=f"{size} tokens, the base model's embedding {size - 1} rows"):
        join(tiny_feature_extractor, text_tokenizer, config_for(size - 1))
    with pytest.raises(ValueError, match="the feature extractor makes 251 features; the VAE takes 263"):
        join(MotionFeatureExtractor("kitml"), text_tokenizer, config_for(size))
    join(tiny_feature_extractor, text_tokenizer, config_for(size))
    for rows in (size, size + 40):
        with pytest.raises(ValueError, match="already has <motion_pad>, <motion>, .* motion tokens of another model"):
            join(tiny_feature_extractor, text_tokenizer, config_for(rows))
