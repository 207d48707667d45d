"""What is known of the machine, and where it is kept."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch

from ..errors import InputError


def cache_folder() -> Path:
    """MINBOOST_CACHE, or minboost's folder among the user's caches.

    Raises:
        InputError: MINBOOST_CACHE is relative: the folder one is in must decide nothing.
    """
    if given := os.environ.get("MINBOOST_CACHE"):
        if not os.path.isabs(given):
            raise InputError(f"MINBOOST_CACHE must be an absolute path, got {given!r}")
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME", "")
    # A relative one is to be ignored, by its specification.
    if os.path.isabs(base):
        return Path(base) / "minboost"
    try:
        return Path.home() / ".cache" / "minboost"
    except RuntimeError:  # no home at all, as in some containers
        return _for_this_process()


@cache
def _for_this_process() -> Path:
    return Path(tempfile.mkdtemp(prefix="minboost-"))


def processor() -> str:
    """The processor's name and its instruction sets, as far as the system tells."""
    facts = _cpuinfo()
    flags = facts.get("flags") or facts.get("Features") or ""
    return f"{processor_name()}; {flags}".strip("; ")


def processor_name() -> str:
    """What the processor calls itself."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


@cache
def _cpuinfo() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; none where there is no such file."""
    lines: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            lines.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    return lines


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself: AVX512-BF16 or AMX."""
    return _has("_is_avx512_bf16_supported") or has_amx()


def has_amx() -> bool:
    """Whether the processor multiplies tiles of bfloat16."""
    return _has("_is_amx_tile_supported")


def _has(check: str) -> bool:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    found = getattr(torch.cpu, check, None)
    return found is not None and bool(found())


def say(text: str) -> None:
    """Tell on stderr what takes a while."""
    if sys.stderr is not None:
        print(f"minboost: {text}", file=sys.stderr, flush=True)
