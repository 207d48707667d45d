"""How many answers a device has room for at once."""

from __future__ import annotations

import os

import torch

from ..lm import LM

MOST = 256
"""More at a time bring little: every product is long enough."""
SHARE = 0.5
"""Of the memory that the weights leave, what a batch may take by this estimate."""
UNKNOWN = 8 << 30
"""Bytes that a machine is taken to have which does not say."""


def fitting_batch(lm: LM, tokens: int) -> int:
    """How many sequences of ``tokens`` tokens, prompt and answer, to generate together.

    It follows from the model and from what memory the device has, not from what is free just now,
    so that the same command makes the same batches.
    """
    config, size = lm.config, lm.dtype.itemsize
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    cache = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    # What one layer's prefill holds besides: the stream, q, k, v and outputs, gate and up.
    work = 4 * config.hidden_size + 2 * heads * config.head_dim + 3 * config.intermediate_size
    logits = 3 * 4 * config.vocab_size
    each = tokens * (cache + work) * size + logits
    weights = sum(weight.nbytes for weight in lm.model.parameters())
    room = SHARE * max(0, memory(lm.device) - weights)
    return max(1, min(MOST, int(room // each)))


def memory(device: torch.device) -> int:
    """Bytes of memory that the device has."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return UNKNOWN
