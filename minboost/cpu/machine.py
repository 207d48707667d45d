"""What is known of the machine, and where it is kept."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch


def cache_folder() -> Path:
    """MINBOOST_CACHE, or minboost's folder among the user's caches."""
    if given := os.environ.get("MINBOOST_CACHE"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME", "")
    # A relative one is to be ignored, by its specification: the folder one is in decides nothing.
    if os.path.isabs(base):
        return Path(base) / "minboost"
    try:
        return Path.home() / ".cache" / "minboost"
    except RuntimeError:  # no home at all, as in some containers
        return _for_this_process()


@cache
def _for_this_process() -> Path:
    return Path(tempfile.mkdtemp(prefix="minboost-"))


@cache
def processor() -> str:
    """The processor's name and its instruction sets, as far as the system tells."""
    lines: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            lines.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    name = lines.get("model name") or platform.processor() or platform.machine()
    return f"{name}; {lines.get('flags') or lines.get('Features') or ''}".strip("; ")


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself: AVX512-BF16 or AMX."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(check() for name in checks if (check := getattr(torch.cpu, name, None)))


def say(text: str) -> None:
    """Tell on stderr what takes a while."""
    if sys.stderr is not None:
        print(f"minboost: {text}", file=sys.stderr, flush=True)
