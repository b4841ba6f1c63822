"""Processor of the evaluators: motions -> normalised features, captions -> word vectors and parts of speech."""

from collections.abc import Sequence

import numpy as np
from transformers import BatchFeature, ProcessorMixin
from transformers.utils import logging

from .feature_extraction_motion import MotionFeatureExtractor
from .word_vectors import WordTable, hashed_word_vector, split_words

logger = logging.get_logger(__name__)

POS_TAGS = (
    *("VERB", "NOUN", "DET", "ADP", "NUM", "AUX", "PRON", "ADJ", "ADV"),
    *("Loc_VIP", "Body_VIP", "Obj_VIP", "Act_VIP", "Desc_VIP", "OTHER"),
)
# Words that motion captions turn on have a class of their own, whatever their part of speech (published protocol).
_VIP_WORDS = {
    "Loc_VIP": "left right clockwise counterclockwise anticlockwise forward back backward up down straight curve",
    "Body_VIP": "arm chin foot feet face hand mouth leg waist eye knee shoulder thigh",
    "Obj_VIP": "stair dumbbell chair window floor car ball handrail baseball basketball",
    "Act_VIP": (
        "walk run swing pick bring kick put squat throw hop dance jump turn stumble stop sit lift lower raise wash "
        "stand kneel stroll rub bend balance flap jog shuffle lean rotate spin spread climb"
    ),
    "Desc_VIP": "slowly carefully fast careful slow quickly happy angry sad happily angrily sadly",
}
_VIP_TAG = {word: tag for tag, words in _VIP_WORDS.items() for word in words.split()}
_TAG_INDEX = {tag: index for index, tag in enumerate(POS_TAGS)}


class MotionTextEvaluatorProcessor(ProcessorMixin):
    """Joins a `MotionFeatureExtractor`, with the evaluator's own statistics, and the vectors of words.

    Args:
        feature_extractor: for motions.
        word_vectors: a `WordTable`; "hashed" for vectors made from the letters; ("table" stands for the saved one).
        tagged: whether captions are read as tagged words ("walk/VERB") where these are given, as the official
            evaluators were trained. Captions that a model writes come without: an evaluator that reads none treats
            both alike.
        max_text_length: words of a caption that are read, beside "sos" and "eos".

    Raises:
        ValueError: if the feature extractor has no statistics.
    """

    def __init__(
        self,
        feature_extractor: MotionFeatureExtractor,
        word_vectors: WordTable | str = "hashed",
        tagged: bool = False,
        max_text_length: int = 20,
    ):
        super().__init__(feature_extractor)
        if not any(feature_extractor.mean) and set(feature_extractor.std) == {1.0}:
            raise ValueError(
                "the feature extractor has no mean and std; an evaluator needs the ones that it was trained with."
            )
        if isinstance(word_vectors, str) and word_vectors not in ("hashed", "table"):
            raise ValueError(f"word_vectors is {word_vectors!r}; give a WordTable or 'hashed'.")
        self.word_vectors, self.tagged, self.max_text_length = word_vectors, tagged, max_text_length

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """As in `ProcessorMixin`, with the word table, if there is one."""
        processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        if processor.word_vectors == "table":
            known = ("cache_dir", "force_download", "token", "revision", "subfolder", "local_files_only")
            options = {name: kwargs[name] for name in known if kwargs.get(name) is not None}
            processor.word_vectors = WordTable.load(pretrained_model_name_or_path, **options)
        return processor

    def save_pretrained(self, save_directory, push_to_hub: bool = False, **kwargs):
        """As in `ProcessorMixin`, with the word table, if there is one."""
        if push_to_hub:
            raise ValueError(
                "save the processor, then call its `push_to_hub(repo_id)`: that uploads all of its files."
            )
        saved = super().save_pretrained(save_directory, **kwargs)
        if isinstance(self.word_vectors, WordTable):
            self.word_vectors.save(save_directory)
        return saved

    def to_dict(self) -> dict:
        """As in `ProcessorMixin`; a word table has files of its own."""
        table = self.word_vectors
        if not isinstance(table, WordTable):
            return super().to_dict()
        self.word_vectors = "table"
        try:
            return super().to_dict()
        finally:
            self.word_vectors = table

    @property
    def word_dim(self) -> int:
        """Width of a word vector."""
        return self.word_vectors.dim if isinstance(self.word_vectors, WordTable) else len(hashed_word_vector("unk"))

    def __call__(
        self,
        motion=None,
        text: str | Sequence[str] | None = None,
        *,
        tokens: Sequence[Sequence[str]] | None = None,
        names: Sequence[str] | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Prepares motions, captions, or both.

        Args:
            motion: one motion or a list, as `MotionFeatureExtractor` takes them.
            text: a caption or a list of captions.
            tokens: the words of each caption with their parts of speech, "walk/VERB". They are read in place of the
                caption by a processor that is `tagged`. Where there are none, the caption's lower-cased words without
                punctuation stand in, as "OTHER" unless they have a class of their own.
            names: what to call the motions in errors.
            return_tensors: "pt" or "np".

        Returns:
            `motion_values`, `motion_mask` with `motion`; `word_embeddings` (batch, words, dim), `pos_one_hots`
            (batch, words, 15) and `text_mask` (batch, words) with `text`.

        Raises:
            ValueError: without motion and text, for another number of tokens than of captions, a word that is not
                tagged, or a motion that the feature extractor refuses.
        """
        if motion is None and text is None:
            raise ValueError("give `motion`, `text` or both.")
        inputs: dict = {}
        if motion is not None:
            inputs.update(self.feature_extractor(motion, names=names, return_tensors="np"))
        if text is not None:
            inputs.update(self._embed_words([text] if isinstance(text, str) else list(text), tokens))
        return BatchFeature(inputs, tensor_type=return_tensors)

    def _embed_words(self, captions: list[str], tokens: Sequence[Sequence[str]] | None) -> dict[str, np.ndarray]:
        if tokens is not None and len(tokens) != len(captions):
            raise ValueError(f"tokens of {len(tokens)} captions for {len(captions)} captions.")
        rows = [
            self._tagged_words(caption, () if tokens is None else tokens[index])
            for index, caption in enumerate(captions)
        ]
        width = max(map(len, rows))
        words = np.zeros((len(rows), width, self.word_dim), np.float32)
        tags = np.zeros((len(rows), width, len(POS_TAGS)), np.float32)
        mask = np.zeros((len(rows), width), bool)
        for row, pairs in enumerate(rows):
            for column, (word, tag) in enumerate(pairs):
                words[row, column], index = self._look_up(word, tag)
                tags[row, column, index], mask[row, column] = 1, True
        return {"word_embeddings": words, "pos_one_hots": tags, "text_mask": mask}

    def _tagged_words(self, caption: str, tokens: Sequence[str]) -> list[tuple[str, str]]:
        """(word, tag) of a caption, between "sos" and "eos"."""
        if not isinstance(caption, str):
            raise ValueError(f"a caption is {caption!r}; wanted text.")
        if self.tagged and len(tokens):
            pairs = [_split_token(token) for token in tokens]
        else:
            if self.tagged:
                logger.warning_once(
                    "captions without tagged words: their words are read as they are written, and count as OTHER "
                    "unless they have a class of their own."
                )
            pairs = [(word, "OTHER") for word in split_words(caption)]
        return [("sos", "OTHER"), *pairs[: self.max_text_length], ("eos", "OTHER")]

    def _look_up(self, word: str, tag: str) -> tuple[np.ndarray, int]:
        """Vector and tag index of a word; what the table does not know is "unk" and OTHER."""
        if not isinstance(self.word_vectors, WordTable):
            vector = hashed_word_vector(word)
        else:
            vector = self.word_vectors[word]
            if word not in self.word_vectors:
                return vector, _TAG_INDEX["OTHER"]
        return vector, _TAG_INDEX.get(_VIP_TAG.get(word, tag), _TAG_INDEX["OTHER"])


def _split_token(token: str) -> tuple[str, str]:
    word, slash, tag = token.rpartition("/")
    if not slash:
        raise ValueError(f"{token!r} is no tagged word; wanted 'word/POS'.")
    return word, tag
