"""A byte-level BPE for language models that start from nothing."""

from collections.abc import Iterable, Sequence

from tokenizers import ByteLevelBPETokenizer
from transformers import AddedToken, PreTrainedTokenizerFast

from ..models.task_prompts import prompt_words

END_OF_TEXT = "<|endoftext|>"


def train_text_tokenizer(
    captions: Iterable[Sequence[str]],
    vocab_size: int,
    prompts: Sequence[str] | None = None,
    numbers: Sequence[str] = (),
) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on captions and prompts, for a language model that starts from nothing.

    Args:
        captions: the captions of each motion.
        vocab_size: largest vocabulary, the 256 bytes and the end of text included.
        prompts: the words of the prompts; by default those of captioning.
        numbers: durations that the prompts state. Each becomes one more token: a small model that starts from nothing
            has enough to do without reading digits.
    """
    trainer = ByteLevelBPETokenizer()
    texts = [" " + caption for group in captions for caption in group]
    prompts = prompt_words(["motion-to-text"], 1) if prompts is None else prompts
    # As often as captions, so that the words of a prompt become few tokens.
    texts += list(prompts) * max(1, 2 * len(texts) // len(prompts))
    trainer.train_from_iterator(texts, vocab_size=vocab_size, special_tokens=[END_OF_TEXT], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trainer._tokenizer, eos_token=END_OF_TEXT, bos_token=END_OF_TEXT
    )
    tokenizer.add_tokens([AddedToken(number, single_word=True, normalized=False) for number in numbers])
    return tokenizer
