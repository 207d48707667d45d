"""The last program of several to finish: it may read what all of them have stored."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.target_info import is_hip


@triton.jit
def is_last(count_ptr, programs):
    """Count this program as done; True for the last of ``programs``, which resets the count.

    Every thread's stores must have arrived before the one atomic that publishes them. On NVIDIA
    GPUs the barrier sees to that; AMD's lets a wave pass whose stores are still on their way.
    """
    if is_hip():
        tl.inline_asm_elementwise(
            "s_waitcnt vmcnt(0)\n\tv_mov_b32 $0, $1", "=v,v,~{memory}", [tl.arange(0, 1024)],
            dtype=tl.int32, is_pure=False, pack=1,
        )  # fmt: skip
    tl.debug_barrier()
    last = tl.atomic_add(count_ptr, 1, sem="acq_rel") == programs - 1
    if last:
        tl.store(count_ptr, 0)  # ready for the next launch
    return last
