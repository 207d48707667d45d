"""load: a model's name → an LM ready to generate."""

from __future__ import annotations

import os

import torch

from .checkpoint import load_model
from .config import ModelConfig
from .cpu import prepare
from .cpu.machine import has_bfloat16
from .errors import InputError
from .hub import resolve
from .lm import LM
from .tokenizer import Tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DEVICES = ("auto", "cuda", "mps", "cpu")


def load(
    name: str | os.PathLike[str] = "demo",
    *,
    device: str | torch.device = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    impl: str = "auto",
    graph: bool = True,
    quantize: str | None = None,
    compile: bool = False,
    calibrate: bool = True,
    progress: bool = False,
) -> LM:
    """Load a model.

    Args:
        name: "demo" (the model that ships with minboost), a folder in Hugging Face's layout, or a
            hub id such as "HuggingFaceTB/SmolLM2-135M-Instruct".
        device: "cuda" (also "cuda:1"), "mps", "cpu", or "auto": the first of these that is there.
        dtype: "float32", "bfloat16", "float16", or "auto": the checkpoint's own, but on a CPU
            float32, unless it is bfloat16 and the processor has instructions for that (AVX512-BF16
            or AMX).
        revision: branch, tag or commit of a hub id.
        impl: "torch", "triton" (GPU), "reference", or "auto": what MINBOOST_IMPL says, else by
            device. ``LM.impl`` tells what it became.
        graph: capture decode steps as CUDA graphs, where the Triton implementation runs on CUDA.
        quantize: "int8" keeps the matrices in eight bits, with a scale a row: half the memory of
            bfloat16 (quantize.py). None keeps them in ``dtype``.
        compile: on a CPU, decode single sequences through a function compiled for this model's
            shapes and this processor; takes a C++ compiler and half a minute, once.
        calibrate: on a CPU, measure which products are fastest here, once for a machine and a
            model's shapes (a second); otherwise, and for small models, take those that mostly are.
        progress: a bar on stderr where loading takes longer than a second.

    Raises:
        ModelError: the model is missing, gated, malformed or unsupported.
        InputError: a device, dtype, quantisation or implementation that does not exist here, or
            ``compile`` where nothing can be compiled.
    """
    where = _device(str(device))
    folder = resolve(name, revision=revision)
    config = ModelConfig.from_folder(folder)
    tokenizer = Tokenizer.from_folder(folder)
    model = load_model(
        folder,
        config,
        device=where,
        dtype=_dtype(dtype, where, config),
        impl=impl,
        quantize=quantize,
        progress=progress,
    )
    prepare(model, compile=compile, calibrate=calibrate)
    return LM(model, tokenizer, name=os.fspath(name), graph=graph)


def _device(name: str) -> torch.device:
    kind = name.split(":")[0]
    if kind not in DEVICES:
        raise InputError(f"device {name!r} is not known; choose {', '.join(DEVICES)}")
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if kind == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    if (kind == "cuda" and not cuda) or (kind == "mps" and not mps):
        raise InputError(f"device {name!r} is not available on this machine")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name!r} is not known: {error}") from error


def _dtype(name: str, device: torch.device, config: ModelConfig) -> torch.dtype:
    if name == "auto":
        own = DTYPES[config.dtype]
        if device.type != "cpu" or (own == torch.bfloat16 and has_bfloat16()):
            return own
        return torch.float32
    if name not in DTYPES:
        raise InputError(f"dtype {name!r} is not known; choose auto, {', '.join(DTYPES)}")
    return DTYPES[name]
