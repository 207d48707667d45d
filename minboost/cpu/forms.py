"""A matrix times one vector, in every form that PyTorch has: which is fastest is for the machine
to say (calibrate.py).

Batch-1 products read each weight once, so what counts is how much of the memory's speed a form
reaches. That differs by processor, dtype, shape and thread count: on some, ``linear`` runs on one
thread.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .machine import has_amx

Form = Callable[[Tensor, Tensor, Tensor], Tensor]
"""f(weight (N, K), x (K,), out (N,)) → ``out``, which is written to."""


def linear(weight: Tensor, x: Tensor, out: Tensor) -> Tensor:
    """As a batch of one."""
    F.linear(x[None], weight, out=out[None])  # type: ignore[call-arg]  # not in its stub
    return out


def mv(weight: Tensor, x: Tensor, out: Tensor) -> Tensor:
    """The product of a matrix and a vector."""
    return torch.mv(weight, x, out=out)


def chunked(chunks: int) -> Form:
    """The rows in ``chunks`` parts, as a batch of products: shared out over the threads."""

    def form(weight: Tensor, x: Tensor, out: Tensor) -> Tensor:
        N, K = weight.shape
        parts = weight.view(chunks, N // chunks, K).transpose(1, 2)
        torch.bmm(x.expand(chunks, 1, K), parts, out=out.view(chunks, 1, N // chunks))
        return out

    return form


def forms(rows: int, threads: int) -> dict[str, Form]:
    """The forms that a matrix of ``rows`` rows can take, by name."""
    found: dict[str, Form] = {"linear": linear, "mv": mv}
    for chunks in (threads, 4 * threads):
        if chunks > 1 and rows % chunks == 0:
            found[f"bmm{chunks}"] = chunked(chunks)
    return found


def default(dtype: torch.dtype) -> str:
    """The form taken where nothing has been measured.

    Of those that every shape can take, the one that did best on the machines measured so far. In
    float32 that is ``mv``, never behind by more than a tenth. In bfloat16 it is ``mv`` where there
    is AMX, by 1.2 to 1.7 times, and elsewhere ``linear``, by 1.5 to 2.3. In float16 ``linear``.
    """
    if dtype == torch.bfloat16:
        return "mv" if has_amx() else "linear"
    return "linear" if dtype == torch.float16 else "mv"
