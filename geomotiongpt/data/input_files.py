"""Files of other people: read whole, within bounds, and with every fault told in one line that names the file."""

import io
import re
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy_format

MAX_FILE_BYTES = 512 * 2**20  # also of one array inside an .npz file
# Of arrays that unpack to more than so many bytes, at most so many times what is stored: floats never get so small.
_UNPACKED_UNASKED, _MOST_UNPACKED = 2**25, 100
_ZIP_END = 22 + 2**16  # bytes at the end of a zip file in which the table of contents is pointed to
_MAX_CONTENTS_BYTES = 2**20
_NO_NUMBER = re.compile(rb"[^\s0-9eE+.\-]")


def check_file(path: Path, what: str, max_bytes: int = MAX_FILE_BYTES) -> int:
    """The size of a file that is there and not too large.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is larger than `max_bytes`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such {what} file.")
    size = path.stat().st_size
    if size > max_bytes:
        raise ValueError(f"{path} has {size} bytes; a {what} file may have {max_bytes}: cut it into parts.")
    return size


def read_bytes(path: Path, what: str, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of a file, without a byte order mark; UTF-16 as UTF-8.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is too large, or empty.
    """
    check_file(path, what, max_bytes)
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        content = content.decode("utf-16", errors="replace").encode()
    content = content.removeprefix(b"\xef\xbb\xbf")
    if not content or content.isspace():
        raise ValueError(f"{path} is empty; wanted a {what} file.")
    return content


def to_text(content: bytes) -> str:
    """Text in UTF-8, or else in Latin-1, which any bytes are: names in it are only compared."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def read_number(word: str) -> float:
    """One finite number; the decimal sign may be a comma.

    Raises:
        ValueError: if it is none; the message has no file yet.
    """
    try:
        number = float(word.rstrip(",").replace(",", "."))
    except ValueError:
        number = np.nan
    if not np.isfinite(number) or "_" in word:
        raise ValueError(f"{word[:40]!r} is no finite number")
    return number


def read_numbers(content: bytes) -> np.ndarray:
    """All numbers of a text, float64 of shape (n,); NaN and infinity stay what they are.

    Numbers stand between white space or commas; a text without any dot may have decimal commas.

    Raises:
        ValueError: if something else stands between them; the message has no file yet.
    """
    if b"," in content:
        separates = b"." in content or re.search(rb",\s", content)
        content = content.replace(b",", b" " if separates else b".")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # how older releases of numpy tell a fault
            return np.fromstring(content, sep=" ")
    except (ValueError, DeprecationWarning):
        found = _NO_NUMBER.search(content)
        near = content[max(found.start() - 10, 0) : found.start() + 20] if found else b""
        raise ValueError(f"something that is no number stands among the numbers{_quote(near)}") from None


def _quote(near: bytes) -> str:
    text = " ".join(near.decode("latin-1").split())
    return f", near {text!r}" if text else ""


def read_npy(path: Path, what: str) -> np.ndarray:
    """The array of a `.npy` file; nothing is unpickled, and what the header declares must be in the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, too large, or holds no numbers.
    """
    size = check_file(path, what)
    try:
        with open(path, "rb") as file:
            _check_header(file, size)
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # of damaged headers numpy raises what its parser of Python raises
        raise ValueError(f"{path} is not a readable .npy file of numbers: {_one_line(error)}") from None
    return _real(array, f"{path}")


def npz_names(path: Path) -> set[str]:
    """Names of the arrays in an `.npz` file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is none.
    """
    check_file(path, "motion")
    try:
        with _open_archive(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except Exception as error:  # as below
        raise ValueError(f"{path} is not a readable .npz file of numbers: {_one_line(error)}") from None


def read_npz(path: Path, what: str, wanted: set[str]) -> dict[str, np.ndarray]:
    """Those of the wanted arrays that an `.npz` file has, by name; others are not looked at.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or an array wanted is too large or would have to be unpickled.
    """
    check_file(path, what)
    arrays: dict[str, np.ndarray] = {}
    name = ""
    try:
        with _open_archive(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            total = 0
            for name in sorted(wanted.intersection(members)):
                total += members[name].file_size
                if total > MAX_FILE_BYTES:
                    raise ValueError(f"unpacked it has more than {MAX_FILE_BYTES} bytes")
                if total > max(_UNPACKED_UNASKED, _MOST_UNPACKED * path.stat().st_size):
                    raise ValueError(
                        f"{total} bytes would be unpacked, over {_MOST_UNPACKED} times its own size; save it without "
                        "compression"
                    )
                with archive.open(members[name]) as file:
                    content = file.read(members[name].file_size)
                _check_header(io.BytesIO(content), len(content))
                arrays[name] = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # damage shows in many ways: bad sums, unknown methods, passwords, headers
        at = f" (array {name!r})" if name else ""
        raise ValueError(f"{path} is not a readable .npz file of numbers{at}: {_one_line(error)}") from None
    return arrays


def _open_archive(path: Path) -> zipfile.ZipFile:
    """A zip file, whose table of contents is read whole; it must not be what fills the file."""
    with open(path, "rb") as file:
        file.seek(max(path.stat().st_size - _ZIP_END, 0))
        end = file.read()
    start = end.rfind(b"PK\x05\x06")
    if start < 0 or int.from_bytes(end[start + 12 : start + 16], "little") > _MAX_CONTENTS_BYTES:
        raise ValueError("it has no table of contents, or an absurdly large one")
    return zipfile.ZipFile(path)


def read_texts(array: np.ndarray) -> list[str]:
    """The texts of an array of texts or bytes; none if it holds something else.

    Raises:
        ValueError: for characters that do not exist; the message has no file yet.
    """
    if array.dtype.kind == "S":
        return [item.decode("latin-1") for item in array.ravel().tolist()]
    if array.dtype.kind != "U" or not array.dtype.itemsize:
        return []
    codes = np.frombuffer(array.tobytes(), np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
    if (codes > sys.maxunicode).any():  # Python itself breaks off over them
        raise ValueError("it has characters that do not exist")
    return [str(item) for item in array.ravel().tolist()]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _check_header(file, size: int) -> None:
    """Whether the array that a `.npy` header declares is there, before room is made for it."""
    version = npy_format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = npy_format.read_array_header_1_0(file)
    elif version in ((2, 0), (3, 0)):
        shape, _, dtype = npy_format.read_array_header_2_0(file)
    else:
        raise ValueError(f"format version {version} is unknown")
    if dtype.hasobject:
        raise ValueError("it holds pickled Python objects, which are never opened; save plain numbers")
    declared = dtype.itemsize
    for length in shape:
        declared *= length
    if min(shape, default=0) < 0 or declared > size - file.tell():
        raise ValueError(f"an array of shape {shape} takes {declared} bytes, and {size - file.tell()} are there")


def _real(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} holds {array.dtype}; wanted real numbers.")
    return array
