"""A stand-in for an OpenAI-compatible endpoint on loopback, which says what a test tells it to."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

ANSWER = re.compile(r"<answer (\w+)>\n(.*?)\n</answer \1>", re.DOTALL)
QUERY = re.compile(r"<query (\w+)>\n(.*?)\n</query \1>", re.DOTALL)


@dataclass
class Say:
    """One answer: a reply's text in the usual form, or a body of its own."""

    text: str | None = None
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    finish_reason: str = "stop"
    length: int | None = None  # what Content-Length claims

    @property
    def content(self) -> bytes:
        if self.text is None:
            return self.body
        message = {"role": "assistant", "content": self.text}
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        return json.dumps({"object": "chat.completion", "choices": [choice]}).encode()


def score(value: object, words: str = "because") -> Say:
    return Say(json.dumps({"score": value, "words": words}))


@dataclass(frozen=True)
class Seen:
    """One request that arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def prompt(self) -> str:
        return self.body["messages"][0]["content"]

    @property
    def pair(self) -> tuple[str, str]:
        """The query and the answer that the request is about."""
        query, answer = QUERY.search(self.prompt), ANSWER.search(self.prompt)
        assert query is not None
        assert answer is not None
        return query[2], answer[2]


class JudgeServer(ThreadingHTTPServer):
    """The server; ``with JudgeServer(say)`` runs it on a free port.

    ``say`` is called with each request, in the thread that serves it; or a list, one a request.
    """

    daemon_threads = True

    def __init__(self, say: Callable[[Seen], Say] | list[Say]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.seen: list[Seen] = []
        self._say = say
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def answer(self, seen: Seen) -> Say:
        with self._lock:
            number = len(self.seen)
            self.seen.append(seen)
        return self._say[number] if isinstance(self._say, list) else self._say(seen)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that gave up is no news."""

    def __enter__(self) -> JudgeServer:
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


class _Handler(BaseHTTPRequestHandler):
    server: JudgeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._send(self.server.answer(Seen(self.path, dict(self.headers), body)))

    def do_GET(self) -> None:
        self._send(self.server.answer(Seen(f"GET {self.path}", dict(self.headers), {})))

    def _send(self, say: Say) -> None:
        self.send_response(say.status)
        for name, value in say.headers.items():
            self.send_header(name, value)
        content = say.content
        self.send_header("Content-Length", str(len(content) if say.length is None else say.length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests look at ``seen``."""
