"""How many threads a command computes with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..lm import LM

TINY = 8_000_000
"""Parameters up to which a second thread costs more than it brings."""


@contextmanager
def fitting_threads(lm: LM) -> Iterator[None]:
    """One thread for a tiny model on the CPU, and afterwards as many as there were.

    Its products gain little from a second thread, and on a busy machine lose most of their time to
    it: threads that wait for each other do so at full load.
    """
    import torch

    before = torch.get_num_threads()
    size = sum(weight.numel() for weight in lm.model.parameters())
    if lm.device.type == "cpu" and size <= TINY:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
