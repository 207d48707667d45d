"""An engine in a process of its own: lines of JSON in and out, so that its memory is its own.

The parent asks and waits; meanwhile another engine's process may not take its turn. How much
processor time a process burns while it waits is told with every answer, since threads that spin
would slow the other engine down.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from engines import ENGINES, Job, needs


class EngineError(RuntimeError):
    """An engine that is not there, or whose process failed; the message says why."""


def missing(engine: str) -> list[str]:
    """The modules that an engine needs and that are not installed."""
    return [name for name in needs(engine) if find_spec(name) is None]


class EngineProcess:
    """The parent's side. Used as a context: the process ends with it."""

    def __init__(self, job: Job) -> None:
        if without := missing(job.engine):
            raise EngineError(f"{', '.join(without)} not installed")
        self.job = job
        environment = os.environ | {"OMP_NUM_THREADS": str(job.threads), "TQDM_DISABLE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(asdict(job))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        try:
            self.loaded = self._answer()
        except EngineError:
            self.close()
            raise

    def prefill(
        self, ids: Sequence[int], new: int, *, logits: Path | None = None
    ) -> dict[str, Any]:
        """Run a prompt that ``new`` tokens will follow: its "seconds".

        ``logits``: a file that its last logits are written to.
        """
        return self._ask(do="prefill", ids=list(ids), new=new, logits=logits and str(logits))

    def rewind(self) -> dict[str, Any]:
        """Back to the end of the prompt."""
        return self._ask(do="rewind")

    def decode(self, count: int) -> dict[str, Any]:
        """Go on by ``count`` greedy tokens: "seconds", and the "tokens" that were appended."""
        return self._ask(do="decode", count=count)

    def finish(self) -> dict[str, Any]:
        """ "peak" resident bytes so far, and "waiting", the share of a core burnt while waiting."""
        return self._ask(do="finish")

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for the process to end, and end it if it does not."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()  # it reads the end of the file and leaves
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answer, or its absence, tells
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            raise EngineError(f"{self.job.engine} ended with exit code {code}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            self.process.wait()
            raise EngineError(f"{self.job.engine}: {answer['error']}")
        return answer


class Worker:
    """The child's side: an engine and the requests it knows."""

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(job.threads)
        began = time.perf_counter()
        self.engine = ENGINES[job.engine](job)
        self.loading = time.perf_counter() - began
        self.first = self.token = 0
        self.waited = self.burnt = 0.0

    def prefill(self, ids: list[int], new: int, logits: str | None) -> dict[str, Any]:
        began = time.perf_counter()
        last = self.engine.prefill(ids, new)
        self.first = self.token = int(last.argmax())
        seconds = time.perf_counter() - began
        if logits is not None:
            torch.save(last.clone(), logits)
        return {"seconds": seconds}

    def rewind(self) -> dict[str, Any]:
        self.engine.rewind()
        self.token = self.first
        return {}

    def decode(self, count: int) -> dict[str, Any]:
        tokens = []
        began = time.perf_counter()
        for _ in range(count):
            tokens.append(self.token)
            self.token = int(self.engine.step(self.token).argmax())
        return {"seconds": time.perf_counter() - began, "tokens": tokens}

    def finish(self) -> dict[str, Any]:
        waiting = self.burnt / self.waited if self.waited else 0.0
        return {"peak": peak(), "waiting": waiting}


def peak() -> int | None:
    """Peak resident bytes of this process, pages of mapped files included; None off Linux."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024


def main() -> int:
    # Libraries print as they like: what they print goes to stderr, the answers to the real stdout.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        worker = Worker(Job(**json.loads(sys.argv[1])))
        tell({"seconds": worker.loading, **worker.engine.about()})
        while True:
            clock, used = time.perf_counter(), time.process_time()
            line = sys.stdin.readline()
            worker.waited += time.perf_counter() - clock
            worker.burnt += time.process_time() - used
            if not line:
                return 0
            request = json.loads(line)
            tell(getattr(worker, request.pop("do"))(**request))
    except Exception as error:  # told to the parent, whose row says so
        tell({"error": f"{type(error).__name__}: {error}"})
        return 1


if __name__ == "__main__":
    sys.exit(main())
