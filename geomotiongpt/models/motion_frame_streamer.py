"""Frames on their way from the thread that makes a motion to the one that reads it."""

from collections.abc import Iterator
from contextlib import suppress
from queue import Empty, Full, Queue

from torch import Tensor
from transformers.generation.streamers import BaseStreamer


class MotionFrameStreamer(BaseStreamer):
    """Motion frames while `generate_motion` is still making more; iterate over it from another thread:

        streamer = MotionFrameStreamer()
        Thread(target=model.generate_motion, args=["a person walks."], kwargs={"streamer": streamer}).start()
        for values in streamer:
            features = processor.feature_extractor.denormalise(values)

    Frames are pieces (frames, num_features), normalised as the model's are; a latent's frames leave as soon as it is
    drawn. In one thread, `model.stream_motion` does the same.

    A reader that leaves the iteration before its end, by `break` or by an error, closes the stream: otherwise the
    other thread would wait for it for ever. Where making the motion fails, the iteration raises a RuntimeError.

    Args:
        timeout: seconds an iteration waits for the next frames before it raises `queue.Empty`; None waits for ever.
        ahead: pieces that are made before the reader takes them, at most.
    """

    def __init__(self, *, timeout: float | None = None, ahead: int = 64):
        self.timeout = timeout
        self._frames: Queue[Tensor | BaseException | None] = Queue(ahead)
        self._is_closed = False

    def put(self, value: Tensor) -> None:
        """Takes the next frames, (frames, num_features).

        Raises:
            RuntimeError: if the reader has closed the stream: nobody waits for more.
        """
        while not self._is_closed:
            try:
                return self._frames.put(value.detach().cpu(), timeout=0.1)
            except Full:
                continue
        raise RuntimeError("the reader has closed the stream: the motion is not made any further.")

    def end(self) -> None:
        """Nothing more comes."""
        self._end(None)

    def fail(self, error: BaseException) -> None:
        """Nothing more comes, because of an error: the reader is told."""
        self._end(error)

    def _end(self, reason: BaseException | None) -> None:
        while not self._is_closed:
            try:
                return self._frames.put(reason, timeout=0.1)
            except Full:
                continue

    def close(self) -> None:
        """For the reader: no more is wanted. Making it ends, and what was ready is dropped."""
        self._is_closed = True
        with suppress(Empty):
            while True:
                self._frames.get_nowait()
        with suppress(Full):  # a reader in another thread need not wait either
            self._frames.put_nowait(None)

    def __iter__(self) -> Iterator[Tensor]:
        is_whole = False
        try:
            while not self._is_closed and (frames := self._frames.get(timeout=self.timeout)) is not None:
                if isinstance(frames, BaseException):
                    raise RuntimeError(f"the motion was not made to its end: {frames}") from frames
                yield frames
            is_whole = True
        finally:
            if not is_whole:
                self.close()
