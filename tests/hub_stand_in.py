"""A stand-in for the Hugging Face Hub on 127.0.0.1, for tests that run the real client over real HTTP.

It serves model and dataset repositories from memory: creation, branches, commits with regular and LFS files, listings
and downloads by branch or commit. Reading a public repository is free; writing, and reading a private one, needs the
token. The client reads `HF_ENDPOINT` when it is imported, so whatever talks to the stand-in runs in a subprocess:

    with HubStandIn() as hub:
        run_python("...; model.push_to_hub('tester/name')", env=hub.environment(tmp_path))
        assert "model.safetensors" in hub.files("tester/name")
"""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote

import yaml

USER = "tester"
TOKEN = "hf_tester"


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


class HubError(Exception):
    """What the Hub refuses; the client turns `code` into RepositoryNotFoundError, EntryNotFoundError ..."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}
        self.reply = _json({"error": message}, status, headers)


@dataclass(frozen=True)
class File:
    content: bytes
    is_lfs: bool = False

    @property
    def git_id(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.git_id

    def entry(self, path: str) -> dict[str, Any]:
        """The file as listings show it."""
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(self.content), "oid": self.git_id}
        if self.is_lfs:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": 130}
        return entry


class Repository:
    """Branches point to commits, and a commit is a full snapshot: path -> File."""

    def __init__(self, repo_type: str, repo_id: str, private: bool):
        self.url = f"/{repo_id}" if repo_type == "model" else f"/{repo_type}s/{repo_id}"
        self.private = private
        self.branches: dict[str, str] = {}
        self.commits: dict[str, dict[str, File]] = {}
        self.commit("main", {})

    def commit(self, branch: str, files: dict[str, File]) -> str:
        sha = hashlib.sha1(f"{self.url} {branch} {len(self.commits)}".encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def at(self, revision: str) -> tuple[str, dict[str, File]]:
        """The commit id and the files of a branch or commit."""
        sha = self.branches.get(revision, revision)
        if sha not in self.commits:
            raise HubError(404, "Invalid rev id", "RevisionNotFound")
        return sha, self.commits[sha]


def _entries(files: dict[str, File]) -> dict[str, dict[str, Any]]:
    """Files and the folders above them, by path."""
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."}
    entries = {
        path: {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest()} for path in folders
    }
    return entries | {path: file.entry(path) for path, file in files.items()}


def _card_metadata(readme: str) -> dict[str, Any]:
    match = re.match(r"---\s*\n(.*?)\n---", readme, re.DOTALL)
    return (yaml.safe_load(match[1]) if match else None) or {}


class HubStandIn:
    """The server; use it as a context manager.

    Attributes:
        url (`str`): the address, what `HF_ENDPOINT` must be.
        user (`str`), token (`str`): the one account; it may write under its own name only.
        requests (`list[str]`): every request served, as `"<status> <method> <path>"`.
    """

    def __init__(self) -> None:
        self.user, self.token = USER, TOKEN
        self.requests: list[str] = []
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.uploads: dict[str, bytes] = {}
        self.lock = threading.Lock()
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "HubStandIn":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Path, token: str | None = TOKEN) -> dict[str, str]:
        """The whole environment of a subprocess that uses this Hub, with its caches under `home`.

        Settings and proxies of the person who runs the tests are left out. The stand-in is also named as the proxy for
        all other hosts, and refuses: nothing reaches the network. `token=None` is a user who has not logged in.
        """
        foreign = re.compile(r"(HF|HUGGING_?FACE|TRANSFORMERS|DATASETS)_.*|XDG_CACHE_HOME|.*_PROXY", re.IGNORECASE)
        environment = {name: value for name, value in os.environ.items() if not foreign.fullmatch(name)}
        environment |= {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),  # the caches of models, datasets and remote code follow it
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HTTP_PROXY": self.url,
            "HTTPS_PROXY": self.url,
            "NO_PROXY": "127.0.0.1",
        }
        return environment if token is None else environment | {"HF_TOKEN": token}

    def files(self, repo_id: str, repo_type: str = "model") -> dict[str, bytes]:
        """The content of the main branch by path."""
        _, files = self.repositories[repo_type, repo_id].at("main")
        return {path: file.content for path, file in files.items()}


class _Server(ThreadingHTTPServer):
    request_queue_size = 64

    def __init__(self, hub: HubStandIn):
        self.hub = hub
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    """One connection. The methods named in `_ROUTES` are the endpoints; each returns a Reply or raises a HubError."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two packets: without it each reply waits 40 ms
    server: _Server

    def serve(self) -> None:
        self.hub = self.server.hub
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.hub.lock:
            reply = self.route()
        self.hub.requests.append(f"{reply.status} {self.command} {self.path}")
        self.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    do_GET = do_HEAD = do_POST = do_PUT = serve  # noqa: N815 (names that http.server looks for)

    def route(self) -> Reply:
        path, _, self.query = self.path.partition("?")
        for methods, pattern, endpoint in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in methods.split():
                try:
                    return endpoint(self, **{name: unquote(value or "") for name, value in match.groupdict().items()})
                except HubError as error:
                    return error.reply
        return _json({"error": f"the stand-in has no {self.command} {path}"}, 501)

    def log_message(self, *args: object) -> None:
        """Silent: `HubStandIn.requests` keeps the record."""

    # Accounts and repositories

    def is_user(self) -> bool:
        authorization = self.headers.get("Authorization")
        if authorization not in (None, f"Bearer {self.hub.token}"):
            raise HubError(401, "Invalid credentials in Authorization header")
        return authorization is not None

    def require_user(self, repo_id: str) -> None:
        if not self.is_user():
            raise HubError(401, "Invalid username or password.")
        if not repo_id.startswith(f"{self.hub.user}/"):
            raise HubError(403, "You don't have the rights to write to this namespace")

    def repository(self, repo_type: str, repo_id: str, *, write: bool = False) -> Repository:
        is_user = self.is_user()
        repository = self.hub.repositories.get((repo_type, repo_id))
        if repository is None or (repository.private and not is_user):
            raise HubError(404 if is_user else 401, "Repository not found", "RepoNotFound")
        if write:
            self.require_user(repo_id)
        return repository

    def whoami(self) -> Reply:
        if not self.is_user():
            raise HubError(401, "Invalid username or password.")
        return _json({"type": "user", "name": self.hub.user, "fullname": self.hub.user, "orgs": []})

    def create_repository(self) -> Reply:
        payload = json.loads(self.body)
        key = payload.get("type", "model"), f"{payload['organization'] or self.hub.user}/{payload['name']}"
        self.require_user(key[1])
        status = 409 if key in self.hub.repositories else 200
        if status == 200:
            self.hub.repositories[key] = Repository(*key, private=payload.get("visibility") == "private")
        return _json({"url": self.hub.url + self.hub.repositories[key].url, "name": key[1]}, status)

    def create_branch(self, repo_type: str, repo_id: str, revision: str) -> Reply:
        repository = self.repository(repo_type, repo_id, write=True)
        if revision in repository.branches:
            raise HubError(409, "Reference already exists")
        repository.branches[revision] = repository.at(json.loads(self.body).get("startingPoint", "main"))[0]
        return _json({})

    # Reading

    def info(self, repo_type: str, repo_id: str, revision: str) -> Reply:
        repository = self.repository(repo_type, repo_id)
        sha, files = repository.at(revision or "main")
        card = _card_metadata(files["README.md"].content.decode()) if "README.md" in files else {}
        info = {"id": repo_id, "sha": sha, "private": repository.private, "cardData": card}
        info["siblings"] = [{"rfilename": path} for path in sorted(files)]
        return _json(info | {key: card[key] for key in ("tags", "pipeline_tag", "library_name") if key in card})

    def tree(self, repo_type: str, repo_id: str, revision: str, path: str) -> Reply:
        _, files = self.repository(repo_type, repo_id).at(revision)
        prefix = f"{path}/" if path else ""
        entries = {name: entry for name, entry in _entries(files).items() if name.startswith(prefix)}
        if path and not entries:
            raise HubError(404, "Entry not found", "EntryNotFound")
        if parse_qs(self.query).get("recursive") != ["true"]:
            entries = {name: entry for name, entry in entries.items() if "/" not in name[len(prefix) :]}
        return _json([entries[name] for name in sorted(entries)])

    def paths_info(self, repo_type: str, repo_id: str, revision: str) -> Reply:
        _, files = self.repository(repo_type, repo_id).at(revision)
        entries = _entries(files)
        return _json([entries[path] for path in parse_qs(self.body.decode())["paths"] if path in entries])

    def resolve(self, repo_type: str, repo_id: str, revision: str, path: str) -> Reply:
        sha, files = self.repository(repo_type or "model", repo_id).at(revision)
        headers = {"X-Repo-Commit": sha}
        if path not in files:
            raise HubError(404, "Entry not found", "EntryNotFound", headers)
        content = files[path].content
        headers |= {"ETag": f'"{files[path].etag}"', "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            return Reply(200, content, headers)
        first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        if first > last:
            return Reply(416, b"", headers | {"Content-Range": f"bytes */{len(content)}"})
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return Reply(206, content[first : last + 1], headers)

    # Writing: preupload says how to send each file, LFS files are PUT, then one commit takes up all

    def validate_yaml(self) -> Reply:
        try:
            _card_metadata(json.loads(self.body)["content"])
        except yaml.YAMLError as error:
            return _json({"errors": [{"message": str(error)}], "warnings": []}, 400)
        return _json({"errors": [], "warnings": []})

    def preupload(self, repo_type: str, repo_id: str, revision: str) -> Reply:
        _, files = self.repository(repo_type, repo_id, write=True).at(revision)
        answers = []
        for file in json.loads(self.body)["files"]:
            is_binary = b"\0" in base64.b64decode(file["sample"])  # the rule of git
            answer = {"path": file["path"], "uploadMode": "lfs" if is_binary else "regular", "shouldIgnore": False}
            if file["path"] in files:
                answer["oid"] = files[file["path"]].etag  # the client leaves out what has not changed
            answers.append(answer)
        return _json({"files": answers})

    def lfs_batch(self, repo_type: str, repo_id: str) -> Reply:
        self.repository(repo_type or "model", repo_id, write=True)
        objects = [{"oid": wanted["oid"], "size": wanted["size"]} for wanted in json.loads(self.body)["objects"]]
        for wanted in objects:
            if wanted["oid"] not in self.hub.uploads:
                wanted["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}}
        return _json({"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid: str) -> Reply:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise HubError(400, "The content does not have the SHA-256 announced")
        self.hub.uploads[oid] = self.body
        return _json({})

    def commit(self, repo_type: str, repo_id: str, revision: str) -> Reply:
        repository = self.repository(repo_type, repo_id, write=True)
        head, files = repository.at(revision)
        files = dict(files)
        for line in self.body.splitlines():
            key, value = itemgetter("key", "value")(json.loads(line))
            if key == "header" and value.get("parentCommit", head) != head:
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
            if key == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]))
            elif key == "lfsFile":
                if value["oid"] not in self.hub.uploads:
                    raise HubError(400, "LFS pointer to an object that was not uploaded")
                files[value["path"]] = File(self.hub.uploads[value["oid"]], is_lfs=True)
            elif key in ("deletedFile", "deletedFolder"):
                folder = value["path"].rstrip("/") + "/"
                doomed = [path for path in files if path == value["path"] or path.startswith(folder)]
                if not doomed:
                    raise HubError(404, "Entry not found", "EntryNotFound")
                for path in doomed:
                    del files[path]
        sha = repository.commit(revision, files)
        return _json({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}{repository.url}/commit/{sha}"})


def _repository_route(action: str) -> str:
    return rf"/api/(?P<repo_type>model|dataset)s/(?P<repo_id>[^/]+(?:/[^/]+)?){action}"


_AT_REVISION = r"/(?P<revision>[^/]+)"
_WEB_ROUTE = r"/(?:(?P<repo_type>dataset)s/)?(?P<repo_id>[^/]+(?:/[^/]+)?)"
_ROUTES: list[tuple[str, str, Callable[..., Reply]]] = [
    ("GET", r"/api/whoami-v2", _Handler.whoami),
    ("POST", r"/api/validate-yaml", _Handler.validate_yaml),
    ("POST", r"/api/repos/create", _Handler.create_repository),
    ("POST", _repository_route("/branch" + _AT_REVISION), _Handler.create_branch),
    ("POST", _repository_route("/preupload" + _AT_REVISION), _Handler.preupload),
    ("POST", _repository_route("/commit" + _AT_REVISION), _Handler.commit),
    ("POST", _repository_route("/paths-info" + _AT_REVISION), _Handler.paths_info),
    ("GET", _repository_route("/tree" + _AT_REVISION + "(?:/(?P<path>.+))?"), _Handler.tree),
    ("GET", _repository_route("(?:/revision" + _AT_REVISION + ")?"), _Handler.info),
    ("POST", _WEB_ROUTE + r"\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", _Handler.lfs_upload),
    ("GET HEAD", _WEB_ROUTE + "/resolve" + _AT_REVISION + "/(?P<path>.+)", _Handler.resolve),
]


def run_python(code: str, env: dict[str, str], timeout: float = 120) -> str:
    """Run `code` in a fresh interpreter and return what it printed; AssertionError with its output if it fails."""
    process = subprocess.run(
        [sys.executable, "-c", code], env=env, timeout=timeout, capture_output=True, text=True, check=False
    )
    if process.returncode:
        raise AssertionError(f"exit status {process.returncode}\n{process.stdout}\n{process.stderr}")
    return process.stdout
