"""Asking a judge model behind an OpenAI-compatible endpoint, with the standard library alone."""

from __future__ import annotations

import email.utils
import http.client
import ipaddress
import json
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any
from urllib.parse import urlsplit

from .. import __version__
from ..checks import as_integer, as_number, as_text
from ..errors import InputError, ModelError

KEY_VARIABLE = "MINBOOST_JUDGE_KEY"
MAX_TOKENS = 1024
"""Of a reply: a verdict takes about 50, and a model that thinks first needs room for that."""
MAX_REPLY_BYTES = 1 << 18
FIRST_WAIT = 1.0
"""Seconds before the second attempt; each further wait is twice as long."""
LONGEST_WAIT = 60.0
"""Seconds that no wait exceeds, whatever the server asks for."""
SHORTEST_SECRET = 8
"""Characters from which a key is struck out of what a server says: "x" or "EMPTY", which servers
without keys are given, would be struck out of words."""
QUOTED = 200
"""Characters of a server's words that an error quotes."""

Message = dict[str, str]
"""{"role": "user" or "assistant", "content": …}."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A model's words, and whether ``MAX_TOKENS`` cut them off."""

    text: str
    cut_off: bool


@dataclass(frozen=True)
class JudgeClient:
    """A model that replies to messages: ``model`` behind POST ``url``/chat/completions.

    It is asked with temperature 0, seed 0 and ``MAX_TOKENS``. No reply in time, a lost connection,
    and the statuses 408, 429 and 5xx are tried again, after the time that the server asks for
    (Retry-After) or after 1, 2, 4 … seconds, never more than ``LONGEST_WAIT``. Redirections are
    not followed, and what runs on this machine is asked without a proxy. Threads may share it.

    Attributes:
        url: such as http://localhost:8000/v1; over plain http a key goes to this machine alone.
        api_key: sent in the Authorization header, and shown nowhere; None or blank for none.
        timeout: seconds without a sign of the server until an attempt is given up.
        retries: attempts after the first.
        wait: called with an event and seconds, to wait for the event for at most so long.

    Raises:
        InputError: a url, a model, a key or a number that cannot be.
    """

    url: str
    model: str
    _: KW_ONLY
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    retries: int = 4
    wait: Callable[[threading.Event, float], object] = field(
        default=threading.Event.wait, repr=False
    )

    def __post_init__(self) -> None:
        host = _checked_host(as_text("the judge's url", self.url))
        if not as_text("the judge's model", self.model).strip():
            raise InputError("the judge's model is an empty name")
        key = (self.api_key or "").strip() or None
        if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
            raise InputError(
                f"the key in {KEY_VARIABLE} holds white space or characters beyond ASCII, which no "
                "key has"
            )
        if key is not None and urlsplit(self.url).scheme == "http" and not _is_here(host):
            raise InputError(
                f"the judge at {self.url} would be sent the key of {KEY_VARIABLE} over plain http, "
                "for all on the way to read: use https, or unset the key if that server needs none"
            )
        if as_number("timeout", self.timeout) <= 0:
            raise InputError(f"timeout must be above 0 seconds, got {self.timeout!r}")
        as_integer("retries", self.retries, 0)
        object.__setattr__(self, "url", self.url.rstrip("/"))
        object.__setattr__(self, "api_key", key)

    def __str__(self) -> str:
        return f"the judge {self.model} at {self.url}"

    def reply(self, messages: Sequence[Message], *, stop: threading.Event | None = None) -> Reply:
        """What the model replies to ``messages``.

        Args:
            stop: set from another thread, ends the waiting: no attempt follows.

        Raises:
            ModelError: the server refuses, still fails at the last attempt, or is none of this
                kind. The message names url, model and status, and never the key.
        """
        stop = stop or threading.Event()
        body = {
            "model": self.model,
            "messages": list(messages),
            "temperature": 0,
            "seed": 0,
            "max_tokens": MAX_TOKENS,
        }
        data = json.dumps(body).encode()
        for attempt in range(self.retries + 1):
            try:
                return self._reply(self._sent(data))
            except _PassingError as error:
                if attempt < self.retries and not stop.is_set():
                    seconds = FIRST_WAIT * 2**attempt if error.after is None else error.after
                    self.wait(stop, min(seconds, LONGEST_WAIT))
                if attempt == self.retries or stop.is_set():
                    tried = f" ({attempt + 1} attempts)" if attempt else ""
                    raise ModelError(f"{self} {error}{tried}") from None
        raise AssertionError("the last attempt returns or raises")

    def _sent(self, data: bytes) -> bytes:
        """One attempt: the body of the answer."""
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": f"minboost/{__version__}",
        }
        request = urllib.request.Request(f"{self.url}/chat/completions", data, headers)
        if self.api_key is not None:
            request.add_unredirected_header("Authorization", f"Bearer {self.api_key}")
        # The errors raised below have no cause chained: a server's words may hold the key.
        try:
            with self._opener().open(request, timeout=self.timeout) as response:
                found: bytes = response.read(MAX_REPLY_BYTES + 1)
                missing = response.length  # None where the server did not say how much comes
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from None
        except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
            raise self._unreached(error) from None
        if len(found) > MAX_REPLY_BYTES:
            raise ModelError(f"{self} sent a reply of more than {MAX_REPLY_BYTES} bytes")
        if missing:
            raise _PassingError("broke off in the middle of a reply", None)
        return found

    def _opener(self) -> urllib.request.OpenerDirector:
        host = urlsplit(self.url).hostname or ""
        direct = [urllib.request.ProxyHandler({})] if _is_here(host) else []
        return urllib.request.build_opener(_NoRedirects, *direct)

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        """What a status other than 200 comes to."""
        try:
            said = self._said(error.read(MAX_REPLY_BYTES))
        except (OSError, http.client.HTTPException):
            said = ""
        status = f"{error.code}: {said}" if said else str(error.code)
        if error.code in (408, 429) or error.code >= 500:
            return _PassingError(f"answered {status}", _seconds(error.headers.get("Retry-After")))
        if error.code == 401:
            advice = "does not accept the key of" if self.api_key else "asks for a key: set"
            return ModelError(f"{self} {advice} the environment variable {KEY_VARIABLE} ({status})")
        if error.code == 404:
            return ModelError(
                f"{self} is not there ({status}): the url usually ends in /v1, and the model is "
                "one that GET /models lists"
            )
        if 300 <= error.code < 400:
            target = self._scrubbed(error.headers.get("Location") or "nowhere")
            return ModelError(f"{self} sends on to {target!r} ({error.code}): give that address")
        return ModelError(f"{self} refused ({status})")

    def _unreached(self, error: OSError | http.client.HTTPException) -> Exception:
        """What the lack of an answer comes to."""
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, TimeoutError):
            return _PassingError(f"did not answer within {self.timeout:g} s", None)
        why = self._scrubbed(str(cause) or type(cause).__name__)
        unknown = isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN
        if unknown or isinstance(cause, ssl.SSLCertVerificationError):
            return ModelError(f"{self} cannot be reached: {why}")
        return _PassingError(f"cannot be reached: {why}", None)

    def _reply(self, body: bytes) -> Reply:
        """The reply in a body of the endpoint's format."""
        try:
            choice = json.loads(body)["choices"][0]
            text, ended = choice["message"]["content"] or "", choice.get("finish_reason")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            text, ended = None, None
        if not isinstance(text, str):
            raise ModelError(
                f"{self} is no OpenAI-compatible endpoint: its answer is {self._said(body)}"
            )
        return Reply(text=self._scrubbed(text), cut_off=ended == "length")

    def _said(self, body: bytes) -> str:
        """The start of a server's words, quoted; of an error in the usual format its message."""
        text = body.decode(errors="replace")
        try:
            found: Any = json.loads(text)
            for name in ("error", "message", "detail"):
                if isinstance(found, dict) and found.get(name):
                    found = found[name]
            text = found if isinstance(found, str) else text
        except (ValueError, RecursionError):
            pass
        return quoted(self._scrubbed(text))

    def _scrubbed(self, text: str) -> str:
        if self.api_key is None or len(self.api_key) < SHORTEST_SECRET:
            return text
        return text.replace(self.api_key, "[key]")


class _PassingError(Exception):
    """What another attempt may not meet; ``after`` are the seconds that the server asks for."""

    def __init__(self, text: str, after: float | None) -> None:
        super().__init__(text)
        self.after = after


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST becomes a GET: a wrong address is better named than followed."""

    def redirect_request(self, *_: Any) -> None:
        return None


def quoted(text: str) -> str:
    """The start of ``text`` as an error quotes it, on one line."""
    text = " ".join(text.split())
    return repr(text if len(text) <= QUOTED else text[:QUOTED] + "…")


def _checked_host(url: str) -> str:
    if any(sign in url for sign in "@?#"):
        # Not shown: what stands there may be a secret.
        raise InputError(
            "the judge's url holds more than an address: give it without user name and query, and "
            f"a key in the environment variable {KEY_VARIABLE}"
        )
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise InputError(f"the judge's url {url!r} cannot be read: {error}") from error
    plain = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not host or not plain:
        raise InputError(f"the judge's url must be like http://localhost:8000/v1, got {url!r}")
    if parts.path.rstrip("/").endswith("/chat/completions"):
        raise InputError(f"the judge's url ends before /chat/completions, got {url!r}")
    return host


def _is_here(host: str) -> bool:
    """Whether ``host`` is this machine's loopback."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _seconds(retry_after: str | None) -> float | None:
    """A Retry-After header in seconds from now; None where there is none to read."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(int(retry_after)))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
