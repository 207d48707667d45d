"""What a result was measured on: processor, versions, commit."""

from __future__ import annotations

import os
import platform
from typing import Any

PACKAGES = ("torch", "triton", "transformers", "transformer-lens", "safetensors", "tokenizers")


def describe() -> dict[str, Any]:
    """Processor, cores, device, versions and commit, as the results files hold them."""
    # Not above: a benchmark may make minboost importable after it has imported this.
    import torch

    from minboost.comparison.provenance import commit, versions
    from minboost.cpu.machine import has_amx, processor_name

    cuda = torch.cuda.is_available()
    return {
        "processor": processor_name(),
        "instructions": torch.backends.cpu.get_cpu_capability() + (" and AMX" if has_amx() else ""),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "python": platform.python_version(),
        "versions": versions(PACKAGES),
        "commit": commit(),
    }
