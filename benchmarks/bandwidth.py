"""How fast this machine reads its memory, and how much a decode token has to read of it."""

from __future__ import annotations

import time

import torch
from engines import INT8_ACTIVATIONS
from gguf_file import weight_bytes

from minboost.checkpoint import expected_slots
from minboost.config import ModelConfig

BUFFER = 1 << 30  # bytes: more than twice the largest cache of a processor today


class ReadBandwidth:
    """Reads a buffer much larger than any cache, with as many threads as torch has.

    Twice a sample: as a sum and as a product with a vector, the two plain reads of torch that use
    all threads. The best of all samples counts, for what slows a read down is other work.
    """

    def __init__(self, size: int = BUFFER) -> None:
        self.buffer = torch.ones(size // 4096, 1024)
        self.vector = torch.ones(1024)
        self.samples: list[float] = []

    def sample(self) -> None:
        for read in (self.buffer.sum, lambda: self.buffer @ self.vector):
            began = time.perf_counter()
            read()
            self.samples.append(self.buffer.nbytes / (time.perf_counter() - began))

    @property
    def best(self) -> float:
        """Bytes a second."""
        return max(self.samples)


def bytes_per_token(config: ModelConfig, dtype: str, *, context: float, blocks: bool) -> float:
    """Bytes that a decode step at batch 1 has to read: every matrix once, and the keys and values.

    Args:
        dtype: of the matrices, as in engines.DTYPES. Keys and values of float32 matrices are
            float32, others 16 bits; norms are small, and left out.
        context: keys that are attended to.
        blocks: int8 as llama.cpp's Q8_0, with a float16 scale every 32 weights, in place of a
            float32 scale a row.
    """
    matrices = 0
    for name, slot in expected_slots(config).items():
        if len(slot.shape) != 2 or (
            name.startswith("model.embed_tokens") and not config.tie_word_embeddings
        ):
            continue  # of an embedding that is not the head too, one row is read
        rows, columns = slot.shape
        if dtype == "int8" and not blocks:
            matrices += rows * columns + 4 * rows
        else:
            matrices += weight_bytes(dtype, rows, columns)
    cached = torch.float32 if dtype == "float32" else INT8_ACTIVATIONS
    keys = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    return matrices + keys * cached.itemsize * context
