"""load: a model's name → an LM ready to generate."""

from __future__ import annotations

import os

import torch

from .checkpoint import load_model
from .config import ModelConfig
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
    progress: bool = False,
) -> LM:
    """Load a model.

    Args:
        name: "demo" (the model that ships with minboost), a folder in Hugging Face's layout, or a
            hub id such as "HuggingFaceTB/SmolLM2-135M-Instruct".
        device: "cuda" (also "cuda:1"), "mps", "cpu", or "auto": the first of these that is there.
        dtype: "float32", "bfloat16", "float16", or "auto": float32 on the CPU, the checkpoint's
            own elsewhere.
        revision: branch, tag or commit of a hub id.
        impl: "torch", "triton" (GPU), "reference", or "auto": what MINBOOST_IMPL says, else by
            device. ``LM.impl`` tells what it became.
        graph: capture decode steps as CUDA graphs, where the Triton implementation runs on CUDA.
        progress: a bar on stderr where loading takes longer than a second.

    Raises:
        ModelError: the model is missing, gated, malformed or unsupported.
        InputError: a device, dtype or implementation that does not exist here.
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
        progress=progress,
    )
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
        return torch.float32 if device.type == "cpu" else DTYPES[config.dtype]
    if name not in DTYPES:
        raise InputError(f"dtype {name!r} is not known; choose auto, {', '.join(DTYPES)}")
    return DTYPES[name]
