"""A stand-in for the model hub on loopback: the few endpoints that fetching a snapshot asks for."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

MEMBER = "hf_memberMEMBERmember0123456789"  # has accepted every licence, may read private models
VISITOR = "hf_visitorVISITORvisitor0123456"  # a valid account without any of that


@dataclass
class Repo:
    """A repository: revision -> file name -> content, and how the hub guards or breaks it."""

    revisions: dict[str, dict[str, bytes]]
    gated: bool = False
    private: bool = False
    # file -> "cut" (the connection ends half-way, at every attempt), "short" (a body that is whole
    # by its own account, but not what the metadata promised) or "gone" (listed, but not there)
    faults: dict[str, str] = field(default_factory=dict)

    def commit(self, revision: str) -> str | None:
        """The commit hash that a branch, a tag or a commit hash stands for."""
        for branch, files in self.revisions.items():
            content = repr(sorted(files.items())).encode()
            commit = hashlib.sha1(content, usedforsecurity=False).hexdigest()
            if revision in (branch, commit):
                return commit
        return None

    def files(self, revision: str) -> dict[str, bytes]:
        """The files at a branch, a tag or a commit hash."""
        commit = self.commit(revision)
        return next(fs for branch, fs in self.revisions.items() if self.commit(branch) == commit)


class Seen(NamedTuple):
    """One request that arrived."""

    method: str
    path: str
    token: str | None


class HubServer(ThreadingHTTPServer):
    """The server; `with HubServer() as hub` runs it on a free port."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos: dict[str, Repo] = {}
        self.seen: list[Seen] = []
        self.status: int | None = None  # answers everything with this status, as a web page
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def tokens(self, name: str) -> set[str | None]:
        """The tokens that came with the requests for a repository."""
        return {seen.token for seen in self.seen if name in seen.path}

    def fetched(self, name: str) -> set[str]:
        """The files of a repository that were asked for in any way."""
        parts = [seen.path.split("/resolve/", 1) for seen in self.seen if name in seen.path]
        return {part[1].split("/", 1)[1] for part in parts if len(part) == 2}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: what arrived is in `seen`."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        self.server.seen.append(Seen(self.command, path, token))
        if self.server.status is not None:
            self._send(self.server.status, b"<html>not a hub</html>", {"Content-Type": "text/html"})
            return
        if token not in (None, MEMBER, VISITOR):
            self._refuse(401, "", "Invalid credentials in Authorization header")
            return
        is_api = path.startswith("/api/models/")
        rest = path.removeprefix("/api/models/") if is_api else path[1:]
        name = next((n for n in self.server.repos if f"{rest}/".startswith(f"{n}/")), None)
        repo = self.server.repos[name] if name is not None else None
        if name is None or repo is None or (repo.private and token != MEMBER):
            # The real hub does not tell strangers whether a repository exists.
            self._refuse(404 if token else 401, "RepoNotFound", "Repository not found")
            return
        action, _, revision = rest[len(name) + 1 :].partition("/")
        file = ""
        if action == "resolve":
            revision, _, file = revision.partition("/")
        commit = repo.commit(revision or "main")
        if commit is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        files = repo.files(commit)
        if action == "resolve":
            self._send_file(repo, files, file, commit, token)
        elif action == "tree":
            entries = [
                {"type": "file", "path": f, "size": len(b), "oid": _etag(b)}
                for f, b in files.items()
            ]
            self._send_json(entries)
        else:
            siblings = [{"rfilename": f} for f in files]
            self._send_json({"id": name, "modelId": name, "sha": commit, "siblings": siblings})

    def _send_file(
        self, repo: Repo, files: dict[str, bytes], file: str, commit: str, token: str | None
    ) -> None:
        if repo.gated and token != MEMBER:
            # As on the real hub, the listing of a gated model is public and only its files are not.
            self._refuse(403 if token else 401, "GatedRepo", "Access to this model is restricted")
            return
        if file not in files or repo.faults.get(file) == "gone":
            self._refuse(404, "EntryNotFound", "Entry not found")
            return
        body = files[file]
        headers = {"ETag": f'"{_etag(body)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        fault = repo.faults.get(file) if self.command == "GET" else None
        if fault == "short":
            body = body[: len(body) // 2]
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        if fault == "cut":
            self.close_connection = True
            sent = body[start : len(body) // 2]
        else:
            sent = body[start:]
        self._send(206 if start else 200, sent, headers, length=len(body) - start)

    def _refuse(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _send_json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], *, length: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _etag(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
