"""Bytes of safetensors files → rows of parameters: a few readers, each with one small buffer.

What is resident while loading is the weights and those buffers. Files are read, not mapped. Mapping
could serve only a tensor that keeps its dtype, is not fused with others and goes to the CPU: about
half of a checkpoint. There it saves the copy, three quarters of the time. But a file that is
changed while the model lives would change its weights, and one that is cut short would end the
process: no error could name the damage. Huge pages for the weights brought no steady gain.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from .errors import ModelError
from .quantize import quantize_rows
from .safetensors_file import FLOATS, Stored

BUFFER_BYTES = 1 << 20  # stays in the processor's cache between reading, checking and copying
QUANTIZE_BYTES = 1 << 17  # read at a time where it is quantised, through several wider tensors
JOB_BYTES = 16 << 20  # what one reader takes at a time
MAX_READERS = 8


@dataclass(frozen=True)
class Piece:
    """Some rows of a stored tensor, from byte ``start`` of its file on, and where they go.

    ``target`` are rows of a parameter, of any dtype and device; where they are int8, ``scale``
    are the rows' factors (quantize.py). ``where`` names the tensor in errors.
    """

    where: str
    dtype: torch.dtype
    start: int
    target: Tensor
    scale: Tensor | None

    @property
    def nbytes(self) -> int:
        return self.target.numel() * self.dtype.itemsize


def pieces(where: str, stored: Stored, target: Tensor, scale: Tensor | None) -> Iterator[Piece]:
    """A stored tensor in pieces of whole rows, none much longer than a job."""
    dtype = FLOATS[stored.dtype]
    row_bytes = (stored.stop - stored.start) // len(target)
    rows = max(1, JOB_BYTES // row_bytes)
    for row in range(0, len(target), rows):
        yield Piece(
            where,
            dtype,
            stored.start + row * row_bytes,
            target[row : row + rows],
            None if scale is None else scale[row : row + rows],
        )


def read_pieces(
    files: Mapping[Path, Sequence[Piece]], *, progress: Callable[[int], object]
) -> None:
    """Fill every piece's target from its file; ``progress`` is told of the rows that are done.

    There are as many readers as torch has threads, at most 8, and each computes on its own: torch
    is set to one thread meanwhile.

    Raises:
        ModelError: a tensor holds NaN or infinite values, or values that its target's dtype
            cannot hold, or its file ends early. Of several, the first in the files' order is named.
    """
    jobs = [(path, job) for path, of in files.items() for job in _jobs(of)]
    stop = threading.Event()
    with _one_thread() as threads:
        pool = ThreadPoolExecutor(min(threads, MAX_READERS), "minboost-read")
        try:
            running = [pool.submit(_read_job, path, job, stop) for path, job in jobs]
            # Jobs begin in order, so the first that fails here is the first that could fail.
            for future, (_, job) in zip(running, jobs, strict=True):
                future.result()
                progress(sum(len(piece.target) for piece in job))
        finally:  # also after Ctrl-C: what runs ends with the part at hand
            stop.set()
            pool.shutdown(cancel_futures=True)


@contextmanager
def _one_thread() -> Iterator[int]:
    """Set torch to one thread, and afterwards to as many as before, which it yields.

    Readers whose operations asked for threads of their own would wait for one another.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def _jobs(of: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Neighbours together, until they are enough for one job."""
    job: list[Piece] = []
    size = 0
    for piece in of:
        job.append(piece)
        size += piece.nbytes
        if size >= JOB_BYTES:
            yield job
            job, size = [], 0
    if job:
        yield job


def _read_job(path: Path, job: Sequence[Piece], stop: threading.Event) -> None:
    buffer = bytearray(BUFFER_BYTES)
    # A caller's own mode does not reach this thread, and tensors made in it are filled in it only.
    with path.open("rb", buffering=0) as file, torch.inference_mode():
        for piece in job:
            file.seek(piece.start)
            if piece.scale is not None:
                row_bytes = piece.nbytes // len(piece.target)
                if row_bytes > len(buffer):
                    buffer = bytearray(row_bytes)
                _quantize(piece, piece.scale, file, buffer, stop)
            else:
                _copy(piece, file, buffer, stop)


def _copy(piece: Piece, file: BinaryIO, buffer: bytearray, stop: threading.Event) -> None:
    flat = piece.target.view(-1)  # a run of rows of a contiguous parameter
    step = len(buffer) // piece.dtype.itemsize
    for done in range(0, len(flat), step):
        if stop.is_set():
            return
        part = flat[done : done + step]
        values = _read_values(piece, file, buffer, len(part))
        _check_finite(values, part.dtype, piece.where)
        part.copy_(values)


def _quantize(
    piece: Piece, scale: Tensor, file: BinaryIO, buffer: bytearray, stop: threading.Event
) -> None:
    """Rows as they are in the file, of whatever dtype, become int8: they are rounded only once."""
    rows, columns = piece.target.shape
    step = max(1, min(len(buffer), QUANTIZE_BYTES) // (columns * piece.dtype.itemsize))
    for row in range(0, rows, step):
        if stop.is_set():
            return
        part = piece.target[row : row + step]
        values = _read_values(piece, file, buffer, part.numel())
        whole, factors = quantize_rows(values.view(-1, columns))
        if not math.isfinite(factors.sum().item()):
            _check_finite(values, factors.dtype, piece.where)
        part.copy_(whole)
        scale[row : row + step].copy_(factors)


def _read_values(piece: Piece, file: BinaryIO, buffer: bytearray, count: int) -> Tensor:
    part = memoryview(buffer)[: count * piece.dtype.itemsize]
    _read_exactly(file, part, piece.where)
    return torch.frombuffer(part, dtype=piece.dtype)


def _check_finite(values: Tensor, dtype: torch.dtype, where: str) -> None:
    """ModelError if ``values`` hold one that is not finite, or would not be in ``dtype``."""
    wider = torch.finfo(dtype).max >= torch.finfo(values.dtype).max
    # One pass, at twice the speed of aminmax: NaN and inf stay in a sum. (It may also overflow.)
    if wider and math.isfinite(values.sum().item()):
        return
    ends = torch.stack(torch.aminmax(values))  # NaN goes through, so two values tell of all
    if not ends.isfinite().all():
        raise ModelError(f"{where} holds NaN or infinite values")
    if not ends.to(dtype).isfinite().all():
        raise ModelError(f"{where} holds values too large for {dtype}; try bfloat16")


def _read_exactly(file: BinaryIO, part: memoryview, where: str) -> None:
    filled = 0
    while filled < len(part):
        count = file.readinto(part[filled:])  # type: ignore[attr-defined]
        if not count:
            raise ModelError(f"{where} ends early: the file became shorter while it was read")
        filled += count
