"""Fixtures shared by the proofs: tiny checkpoints on disk, one of each kind a session."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Before numpy is imported, in which Triton's interpreter computes: for its tiny products a second
# thread costs more than it brings.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported: kernels then run on the CPU

from minboost.checkpoint import load_model
from minboost.config import ModelConfig
from minboost.model import Transformer

from . import tiny


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny models gain nothing from a second thread, and lose much on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is measured and compiled here stays here."""
    with pytest.MonkeyPatch.context() as patch:
        # Not MINBOOST_CACHE, which tests of the settings take away.
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Any]]:
    """checkpoint(name) → (folder, the transformers model that was saved there)."""
    made: dict[str, tuple[Path, Any]] = {}

    def get(name: str) -> tuple[Path, Any]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = (folder, tiny.save(name, folder))
        if name.endswith("dynamic"):
            # transformers' dynamic rope keeps the angles of the longest sequence that it has seen,
            # until it sees one within the original context: here is one, of a single token.
            with torch.no_grad():
                made[name][1](torch.zeros(1, 1, dtype=torch.int64))
        return made[name]

    return get


@pytest.fixture(scope="session")
def bridge(checkpoint: Callable[[str], tuple[Path, Any]]) -> Callable[[str], Any]:
    """bridge(name) → the checkpoint of that name in TransformerLens."""

    @functools.cache
    def get(name: str) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own dependencies
            from transformer_lens.model_bridge import TransformerBridge

            folder, _ = checkpoint(name)
            model = TransformerBridge.boot_transformers(
                str(folder), dtype=torch.float32, device="cpu"
            )
            return model.eval()

    return get


@pytest.fixture
def clean_settings(tmp_path: Path) -> Iterator[None]:
    """An empty folder to run in and no settings from the machine's own environment.

    Afterwards the environment is what it was: a .env of the test writes there as well. It has its
    own MonkeyPatch, since the test's would bring back what that .env had brought in.
    """
    before = dict(os.environ)
    with pytest.MonkeyPatch.context() as patch:
        for name in before:
            if name.startswith("MINBOOST_"):
                patch.delenv(name)
        patch.chdir(tmp_path)
        yield
    os.environ.clear()
    os.environ.update(before)


def load(folder: Path, *, dtype: torch.dtype = torch.float32, impl: str = "auto") -> Transformer:
    config = ModelConfig.from_folder(folder)
    return load_model(folder, config, device=torch.device("cpu"), dtype=dtype, impl=impl)
