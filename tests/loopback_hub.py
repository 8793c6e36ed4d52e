"""A stand-in for the Hugging Face Hub that listens on 127.0.0.1: no hub can be reached from the tests, and with
`HF_ENDPOINT` set to this one they run `push_to_hub` and `from_pretrained("user/name")` for real. It keeps model and
dataset repositories in memory (the latter as `datasets/user/name`), one `{path: content}` mapping per commit, and
answers what huggingface_hub 2.4 asks to create a repository, upload to it and download from it: `/api/repos/create`,
`/api/validate-yaml`, `/api/models/{repo}` and `/api/datasets/{repo}` with their `revision`, `tree`, `preupload` and
`commit`, and `/{repo}/resolve/{revision}/{path}` (HEAD, GET and byte ranges). Each file is announced as "regular", so
its content arrives within the commit and neither git-LFS nor Xet is involved. There is one branch, `main`, and no
authentication; any other request (pull requests, spaces, ...) is refused with 501.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit


REPO = re.compile(
    r"/api/(?:models/|(datasets/))([^/]+(?:/[^/]+)?)(?:/(revision|tree|preupload|commit)/([^/]+)(?:/(.+))?)?"
)
RESOLVE = re.compile(r"/((?:datasets/)?[^/]+(?:/[^/]+)?)/resolve/([^/]+)/(.+)")
BYTE_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class Refusal(Exception):
    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def list_tree(files: Mapping[str, bytes], folder: str, recursive: bool) -> list[dict[str, Any]]:
    entries: dict[PurePosixPath, dict[str, Any]] = {}
    for name, content in files.items():
        path = PurePosixPath(name)
        entries[path] = {"type": "file", "path": name, "size": len(content), "oid": blob_id(content)}
        for parent in path.parents[:-1]:
            entries[parent] = {"type": "directory", "path": str(parent), "oid": blob_id(bytes(parent))}
    root = PurePosixPath(folder)
    return [entries[path] for path in sorted(entries) if root in (path.parents if recursive else path.parents[:1])]


class LoopbackHub:
    """A hub to use as a context manager; `user` owns the repositories that are created without a namespace."""

    user = "user"

    def __init__(self) -> None:
        self._commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (RequestHandler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> LoopbackHub:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def files(self, repo_id: str) -> Mapping[str, bytes]:
        """The content of each file of `repo_id` at its latest commit."""
        return self.snapshot(repo_id, "main")[1]

    def environment(self, home: str | os.PathLike[str]) -> dict[str, str]:
        """All variables (`env=`) of a subprocess that uses this hub alone and keeps its cache under `home`."""
        prefixes = ("HF_", "HUGGINGFACE_", "HUGGING_FACE_", "TRANSFORMERS_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
        return inherited | {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(Path(home) / "huggingface"),
            "HF_TOKEN": "hf_test",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def snapshot(self, repo_id: str, revision: str) -> tuple[str, dict[str, bytes]]:
        commits = self._commits.get(repo_id)
        if commits is None:
            raise Refusal(404, "Repository not found", {"X-Error-Code": "RepoNotFound"})
        sha = list(commits)[-1] if revision == "main" else revision
        if sha not in commits:
            raise Refusal(404, f"Invalid rev id: {revision}", {"X-Error-Code": "RevisionNotFound"})
        return sha, commits[sha]

    def create(self, request: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        kind = "datasets/" if request.get("type") == "dataset" else ""
        repo_id = f"{kind}{request.get('organization') or self.user}/{request['name']}"
        with self._lock:
            if repo_id in self._commits:
                return 409, {"error": "You already created this repo", "url": f"{self.url}/{repo_id}"}
            self._commits[repo_id] = {hashlib.sha1(repo_id.encode()).hexdigest(): {}}
            if request.get("visibility") == "private" or request.get("private"):
                self.private.add(repo_id)
        return 200, {"url": f"{self.url}/{repo_id}"}

    def commit(self, repo_id: str, operations: list[dict[str, Any]]) -> dict[str, Any]:
        with self._lock:
            parent, before = self.snapshot(repo_id, "main")
            files = dict(before)
            for key, value in ((operation["key"], operation["value"]) for operation in operations):
                if key == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif key in ("deletedFile", "deletedFolder"):
                    path = value["path"].rstrip("/")
                    files = {name: files[name] for name in files if name != path and not name.startswith(f"{path}/")}
                elif key != "header":
                    raise Refusal(501, f"a commit cannot hold '{key}' here")
            tree = [parent, sorted((path, blob_id(content)) for path, content in files.items())]
            sha = hashlib.sha1(json.dumps(tree).encode()).hexdigest()
            self._commits[repo_id][sha] = files
        return {"success": True, "commitOid": sha, "commitUrl": f"{self.url}/{repo_id}/commit/{sha}"}


class RequestHandler(BaseHTTPRequestHandler):
    hub: LoopbackHub

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path
        try:
            if match := RESOLVE.fullmatch(path):
                self.send_file(*map(unquote, match.groups()))
            elif match := REPO.fullmatch(path):
                kind, repo_id, *rest = (unquote(group or "") for group in match.groups())
                self.send(200, self.answer(kind + repo_id, *rest, body))
            elif path == "/api/repos/create":
                self.send(*self.hub.create(json.loads(body)))
            elif path == "/api/validate-yaml":
                self.send(200, {"errors": [], "warnings": []})
            else:
                raise Refusal(501, f"{self.command} {path} is not answered here")
        except Refusal as refusal:
            self.send(refusal.status, {"error": str(refusal)}, refusal.headers)

    do_HEAD = do_POST = do_GET

    def answer(self, repo_id: str, action: str, revision: str, folder: str, body: bytes) -> Any:
        query = dict(parse_qsl(urlsplit(self.path).query))
        if "create_pr" in query:
            raise Refusal(501, "no pull request is kept here")
        sha, files = self.hub.snapshot(repo_id, revision or "main")
        blobs = {path: blob_id(content) for path, content in files.items()}
        if action == "preupload":
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            return {"files": [{"path": path, "oid": blobs.get(path), **modes} for path in paths]}
        if action == "commit":
            return self.hub.commit(repo_id, [json.loads(line) for line in body.splitlines()])
        if action == "tree":
            tree = list_tree(files, folder, query.get("recursive") == "true")
            if folder and not tree:
                raise Refusal(404, "Entry not found", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
            return tree
        siblings = [{"rfilename": path, "size": len(files[path]), "blobId": blobs[path]} for path in sorted(files)]
        return {
            "id": repo_id,
            "sha": sha,
            "private": repo_id in self.hub.private,
            "gated": False,
            "tags": [],
            "siblings": siblings,
        }

    def send_file(self, repo_id: str, revision: str, path: str) -> None:
        sha, files = self.hub.snapshot(repo_id, revision)
        if path not in files:
            raise Refusal(404, "Entry not found", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
        content, size = files[path], len(files[path])
        headers = {"ETag": f'"{blob_id(content)}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        asked = BYTE_RANGE.fullmatch(self.headers.get("Range", ""))
        if asked is None or (start := int(asked[1])) >= size:
            return self.send(200, content, headers)
        end = min(int(asked[2] or size), size - 1)
        self.send(206, content[start : end + 1], headers | {"Content-Range": f"bytes {start}-{end}/{size}"})

    def send(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        pass
