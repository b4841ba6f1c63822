"""Words -> 300-d vectors: a table such as GloVe, or vectors that are a function of the word's letters alone."""

import hashlib
import re
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

import numpy as np
from transformers.utils import cached_file

HASHED_DIM = 300
VECTORS_FILE, WORDS_FILE = "word_vectors.npy", "words.txt"
UNKNOWN = "unk"
_NEEDED = ("sos", "eos", UNKNOWN)


@lru_cache(maxsize=20_000)
def hashed_word_vector(word: str) -> np.ndarray:
    """(300,) float32 of mean 0 and variance 1, the same on every machine; different words are nearly orthogonal."""
    digest = hashlib.shake_256(word.encode()).digest(4 * HASHED_DIM)
    uniform = np.frombuffer(digest, "<u4") / 2**31 - 1
    vector = (3**0.5 * uniform).astype(np.float32)
    vector.setflags(write=False)
    return vector


class WordTable:
    """Vectors of known words; the others share that of "unk".

    Args:
        words: the words; "sos", "eos" and "unk" must be among them.
        vectors: (words, dim).

    Raises:
        ValueError: if their numbers differ, a word comes twice or a needed one is missing, or a vector is not finite.
    """

    def __init__(self, words: list[str], vectors: np.ndarray):
        self.words, self.vectors = words, np.ascontiguousarray(vectors, np.float32)
        self._rows = {word: row for row, word in enumerate(words)}
        if self.vectors.ndim != 2 or len(self.vectors) != len(words):
            raise ValueError(f"{len(words)} words for vectors of shape {self.vectors.shape}; wanted one row a word.")
        if len(self._rows) != len(words):
            raise ValueError(f"{len(words) - len(self._rows)} words of the word table come twice.")
        missing = [word for word in _NEEDED if word not in self._rows]
        if missing:
            raise ValueError(f"the word table has no vector for {', '.join(missing)}, which every caption needs.")
        if not np.isfinite(self.vectors).all():
            raise ValueError("the word table has NaN or infinite vectors.")

    def __contains__(self, word: str) -> bool:
        return word in self._rows

    def __getitem__(self, word: str) -> np.ndarray:
        return self.vectors[self._rows.get(word, self._rows[UNKNOWN])]

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return self.vectors.shape[1]

    def fingerprint(self) -> str:
        """sha256 of words and vectors."""
        return hashlib.sha256("\n".join(self.words).encode() + self.vectors.astype("<f4").tobytes()).hexdigest()

    @classmethod
    def from_file(cls, vectors: str | Path, words: str | Path | None = None) -> "WordTable":
        """Reads a GloVe text file, or the array of a published evaluator's vocabulary.

        Args:
            vectors: GloVe's `.txt` (a word and its numbers a line), or a `.npy` array with a row a word.
            words: text file with one word a line: of a GloVe file the words to keep (all by default), of an array
                the words of its rows (needed).

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: for a pickle, which can run code when it is opened; for a malformed line, or an array without
                words.
        """
        for path in (vectors, words):
            if path is not None and not Path(path).is_file():
                raise FileNotFoundError(f"{path}: no such file of word vectors or words.")
            if path is not None and Path(path).suffix in (".pkl", ".pickle"):
                raise ValueError(
                    f"{path} is a pickle, which can run code when it is opened: give the GloVe .txt file it was made "
                    "from, or the words as a text file with one word a line."
                )
        listed = None if words is None else Path(words).read_text(encoding="utf-8-sig").split()
        if Path(vectors).suffix != ".npy":
            return cls._from_glove(Path(vectors), None if listed is None else {*listed, *_NEEDED})
        if listed is None:
            raise ValueError(f"{vectors} does not say which words its rows are: give them as a text file.")
        return cls(listed, np.load(vectors, allow_pickle=False))

    @classmethod
    def _from_glove(cls, path: Path, kept: Collection[str] | None) -> "WordTable":
        rows: dict[str, np.ndarray] = {}
        dim = None
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                word, _, rest = line.rstrip("\n").partition(" ")
                if kept is not None and word not in kept:
                    continue
                try:
                    vector = np.array(rest.split(), np.float32)
                except ValueError as error:
                    raise ValueError(f"{path}:{number}: not a word and its numbers: {error}") from error
                dim = dim or len(vector)
                if len(vector) != dim or not dim:
                    raise ValueError(f"{path}:{number}: {len(vector)} numbers after {word!r}; wanted {dim or 'some'}.")
                rows.setdefault(word, vector)
        if not rows:
            raise ValueError(f"{path} holds none of the words.")
        return cls(list(rows), np.stack(list(rows.values())))

    def save(self, folder: str | Path) -> None:
        """Writes `word_vectors.npy` and `words.txt`."""
        np.save(Path(folder) / VECTORS_FILE, self.vectors)
        (Path(folder) / WORDS_FILE).write_text("\n".join(self.words), encoding="utf-8")

    @classmethod
    def load(cls, name: str | Path, **kwargs) -> "WordTable":
        """Reads what `save` wrote, from a folder or from the Hub.

        Args:
            name: the folder, or the model's name on the Hub.
            kwargs: as `cached_file` of transformers takes them (revision, token ...).
        """
        vectors, words = (cached_file(name, file, **kwargs) for file in (VECTORS_FILE, WORDS_FILE))
        return cls(Path(words).read_text(encoding="utf-8").split("\n"), np.load(vectors, allow_pickle=False))


def split_words(caption: str) -> list[str]:
    """Lower-cased words without punctuation; hyphens join ("counter-clockwise" is one word)."""
    return re.findall(r"\w+", caption.lower().replace("-", ""))
