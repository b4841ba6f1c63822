"""What stands between the demo and the network: no path of the server gets out, and nothing is asked of elsewhere.

Gradio names uploaded and made files by their places on the server, in every answer about them, and takes such names
back. The guard swaps the folder for an alias on the way out and back on the way in. It also lets through only the
addresses that the demo's page needs: Gradio serves many more, some of which fetch from other servers.
"""

import json
import os
import re
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_NEEDED = re.compile(
    r"/(|config/?|theme\.css|robots\.txt|favicon\.ico|manifest\.json|(assets|static|svelte)/.*"
    r"|gradio_api/(info/?|app_id/?|startup-events|heartbeat/[^/]*|upload|upload_progress|queue/(join|data)"
    r"|call/[^/]+(/[^/]+)?|cancel|reset/?))"
)
_FILE = "/gradio_api/file="
_UPLOAD = "/gradio_api/upload"
_MOST_BODY = 2**20  # bytes of a request that is no upload; and of an upload beside its files
_FILES_OF_A_REQUEST = 2  # a motion and its skeleton
MOST_STORED = 2**30  # bytes of what all visitors have uploaded, until it is removed
_LEAST_STORED = 4096  # what a file takes on a disk
_POLICY = (
    b"default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    b"style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'"
)


class DemoGuard:
    """ASGI middleware.

    Args:
        app: what it guards.
        folder: the only folder whose files may be named.
        most_bytes: of an uploaded file.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], folder: Path, most_bytes: int):
        self.app = app
        self.folder = str(folder)
        self.most_upload = _FILES_OF_A_REQUEST * most_bytes + _MOST_BODY
        self.coming = 0  # bytes that uploads in progress have announced
        # As long as the folder's name, so that no length in a header changes.
        self.alias = "/files".ljust(len(self.folder), "-")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        path = scope["path"]
        is_file = path.startswith(f"{_FILE}{self.alias}/") and ".." not in path
        if not is_file and not _NEEDED.fullmatch(path):
            await _answer(send, 404, "this demo has no such page.")
            return
        if is_file:
            scope = {**scope, "path": self._inward(path), "raw_path": self._inward(path).encode()}
        elif path == _UPLOAD:
            refusal = self._refusal_of_upload(headers := dict(scope["headers"]))
            if refusal is not None:
                await _answer(send, *refusal)
                return
            length = int(headers[b"content-length"])
            self.coming += length
            try:
                await self.app(scope, receive, self._outward(send, is_file))
            finally:
                self.coming -= length
            return
        elif scope["method"] == "POST":
            try:
                body = self._checked((await _read(receive)).decode())
            except ValueError as error:
                await _answer(send, 400, str(error))
                return
            receive = _replay(self._inward(body).encode(), receive)
        await self.app(scope, receive, self._outward(send, is_file))

    def _inward(self, text: str) -> str:
        return text.replace(self.alias, self.folder)

    def _refusal_of_upload(self, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        """Status and reason. Gradio bounds each file, not how many come at once, nor what all of them take."""
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or b"transfer-encoding" in headers:  # which would overrule the length
            return 411, "an upload must say how long it is."
        if int(length) > self.most_upload:
            return 413, f"an upload has {_FILES_OF_A_REQUEST} files and {self.most_upload} bytes at most."
        if stored_bytes(Path(self.folder)) + self.coming + int(length) > MOST_STORED:
            return 507, "there is no room for more files now; try again in half an hour."
        return None

    def _checked(self, body: str) -> str:
        """A request; `ValueError` if it names a file that is not one of the demo's."""
        try:
            content = json.loads(body or "null")
        except (ValueError, RecursionError):
            raise ValueError("the request is no JSON.") from None
        for path in _paths(content):
            if not isinstance(path, str) or not path.startswith(f"{self.alias}/") or ".." in path:
                raise ValueError("the request names a file that was not uploaded to this demo.")
        return body

    def _outward(self, send: Send, is_file: bool) -> Send:
        """Sends answers with the alias in place of the folder, files as they are; an event of a stream comes whole."""
        folder, alias = self.folder.encode(), self.alias.encode()
        untouched = False

        async def cleaned(message: Message) -> None:
            nonlocal untouched
            if message["type"] == "http.response.start":
                untouched = is_file and message["status"] < 400
                headers = [(name, value.replace(folder, alias)) for name, value in message.get("headers", ())]
                if dict(headers).get(b"content-type", b"").startswith(b"text/html"):
                    headers.append((b"content-security-policy", _POLICY))
                message = {**message, "headers": headers}
            elif message.get("body") and not untouched:
                message = {**message, "body": bytes(message["body"]).replace(folder, alias)}
            await send(message)

        return cleaned


def stored_bytes(folder: Path) -> int:
    """Bytes that the files in a folder take, each at least as much as a disk gives it."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # it was removed meanwhile
                total += max(os.stat(os.path.join(parent, name)).st_size, _LEAST_STORED)
    return total


def _paths(content: Any) -> Iterator[Any]:
    """Whatever a request calls the path of a file."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "path" in value:
                yield value["path"]
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


async def _read(receive: Receive) -> bytes:
    """The body of a request; `ValueError` if it is too large."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > _MOST_BODY:
            raise ValueError(f"the request has more than {_MOST_BODY} bytes.")
        if not message.get("more_body"):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed


async def _answer(send: Send, status: int, text: str) -> None:
    body = json.dumps({"detail": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
