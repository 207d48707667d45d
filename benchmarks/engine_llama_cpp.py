"""llama.cpp through llama-cpp-python's low-level functions: token ids in, logits out."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engines import Job
from gguf_file import gguf_of
from torch import Tensor


class LlamaCpp:
    """The same weights from a GGUF file.

    Keys and values are float32 for float32 matrices, else float16, llama.cpp's own default. Its
    flash attention is off: on a CPU it decodes more slowly (by half at 1,024 keys) and computes in
    float16 even for float32. It would prefill long prompts about a fifth faster.

    On some processors with AMX its int8 product of several tokens crashes (llama.cpp issue 20824),
    while that of one token is its fastest way to decode. There, and only there, prompts go in token
    by token; ``about`` says so.
    """

    def __init__(self, job: Job, *, trying: bool = False) -> None:
        import llama_cpp

        # Its threads are its own. Those of torch, which here only finds the largest logit, would
        # wait in their way.
        torch.set_num_threads(1)
        self.api: Any = llama_cpp
        path = gguf_of(Path(job.folder), job.dtype)
        self.api.llama_log_set(_silent, ctypes.c_void_p(0))
        self.api.llama_backend_init()
        options = self.api.llama_model_default_params()
        options.n_gpu_layers = 0
        self.model = self.api.llama_model_load_from_file(str(path).encode(), options)
        if not self.model:
            raise RuntimeError(f"llama.cpp could not load {path}")
        settings = self.api.llama_context_default_params()
        settings.n_ctx = job.length
        settings.n_batch = max(job.length, settings.n_batch)
        settings.n_threads = settings.n_threads_batch = job.threads
        kind = self.api.GGML_TYPE_F32 if job.dtype == "float32" else self.api.GGML_TYPE_F16
        settings.type_k = settings.type_v = kind
        settings.flash_attn_type = self.api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        settings.no_perf = True
        self.one_by_one = not trying and job.dtype == "int8" and self._crashes(job)
        if self.one_by_one:
            settings.n_ubatch = 1
        self.context = self.api.llama_init_from_model(self.model, settings)
        if not self.context:
            raise RuntimeError("llama.cpp could not make a context")
        self.memory = self.api.llama_get_memory(self.context)
        vocab = self.api.llama_model_get_vocab(self.model)
        self.vocab_size = int(self.api.llama_vocab_n_tokens(vocab))
        self.prompt = 0

    def prefill(self, ids: Sequence[int], new: int) -> Tensor:
        self.api.llama_memory_clear(self.memory, True)
        self.prompt = len(ids)
        return self._decode(ids)

    def step(self, token: int) -> Tensor:
        return self._decode([token])

    def rewind(self) -> None:
        self.api.llama_memory_seq_rm(self.memory, 0, self.prompt, -1)

    def about(self) -> dict[str, Any]:
        return {
            "flash_attention": False,
            "one_token_at_a_time": self.one_by_one,
            "build": self.build,
        }

    @property
    def build(self) -> str:
        return str(self.api.llama_print_system_info().decode()).strip()

    def _crashes(self, job: Job) -> bool:
        """Does a prompt of two tokens end the process? Tried in another one."""
        if "AMX_INT8 = 1" not in self.build:
            return False
        tried = [sys.executable, __file__, json.dumps(asdict(job))]
        return subprocess.run(tried, capture_output=True).returncode < 0  # a signal

    def _decode(self, ids: Sequence[int]) -> Tensor:
        tokens = (ctypes.c_int32 * len(ids))(*ids)
        # Continues where the memory ends, and gives the logits of the last token alone.
        batch = self.api.llama_batch_get_one(tokens, len(ids))
        code = self.api.llama_decode(self.context, batch)
        if code:
            raise RuntimeError(f"llama_decode of {len(ids)} tokens ended with {code}")
        last = self.api.llama_get_logits_ith(self.context, -1)
        return torch.from_numpy(np.ctypeslib.as_array(last, (self.vocab_size,)))


def _no_log(level: int, text: bytes, data: object) -> None:
    """Its progress would fill the screen."""


try:
    from llama_cpp import llama_log_callback

    _silent = llama_log_callback(_no_log)  # must outlive the library's use of it
except ImportError:
    _silent = None


if __name__ == "__main__":
    LlamaCpp(Job(**json.loads(sys.argv[1])), trying=True).prefill([0, 0], 1)
