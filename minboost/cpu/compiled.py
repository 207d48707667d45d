"""The row's functions compiled ahead of time by Inductor, one for all layers, kept on disk.

What is compiled is a library that takes a layer's weights as arguments: the layers share it, a
call costs microseconds, and a later run loads it without tracing anything. It is made for the
shapes of one kind of model and for one kind of processor; caches and prompts may have any length.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, ModelError
from . import inductor, layer
from .layer import Row, Shape, Weights
from .machine import cache_folder, processor, say

Run = Callable[[list[Tensor | None]], list[Tensor]]
Inputs = tuple[Any, ...]
TORCH_NEEDED = (2, 7)  # the oldest whose names are used here
ROW = len(Row._fields)
# Positions of a cache, and keys in use, of the inputs that are traced. Others may have others, but
# it is by these that Inductor judges which loops are worth sharing out over the threads.
EXAMPLE = (2000, 1000)
ELSEWHERE = "MINBOOST_CACHE names another folder"


class Layer(nn.Module):
    """``layer.layer`` of a stream, a row and weights, all as positional arguments."""

    def __init__(self, names: Sequence[str], shape: Shape) -> None:
        super().__init__()
        self.names, self.shape = names, shape

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:
        row, weights = Row(*rest[:ROW]), dict(zip(self.names, rest[ROW:], strict=True))
        return layer.layer(x, row, weights, self.shape, inductor.Inductor(), range(0))


class Head(nn.Module):
    """``layer.head`` of a stream and weights."""

    def __init__(self, names: Sequence[str], eps: float) -> None:
        super().__init__()
        self.names, self.eps = names, eps

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:
        weights = dict(zip(self.names, rest, strict=True))
        return layer.head(x, weights, self.eps, inductor.Inductor())


def compiled(
    layer_weights: Weights, head_weights: Weights, shape: Shape, dtype: torch.dtype
) -> tuple[Run, Run]:
    """The layer and the head for weights of these shapes, compiled now or by an earlier run.

    Raises:
        InputError: this version of PyTorch, or this machine, cannot compile.
    """
    check_version()
    D, hidden = shape.head_dim, len(head_weights["norm"])
    length, keys = EXAMPLE
    row = Row(
        cos=torch.zeros(D),
        sin=torch.zeros(D),
        position=torch.zeros(1, dtype=torch.int64),
        k=torch.zeros(1, shape.kv_heads, length, D, dtype=dtype),
        v=torch.zeros(1, shape.kv_heads, length, D, dtype=dtype),
        bias=torch.zeros(keys, shape.heads),
    )
    x = torch.zeros(hidden)
    layer_inputs: Inputs = (x, *row, *layer_weights.values())
    head_inputs: Inputs = (x, *head_weights.values())
    some = torch.export.Dim("length", min=2, max=1 << 30)
    seen = torch.export.Dim("keys", min=2, max=1 << 30)
    free: dict[int, dict[int, Any]] = {
        1 + Row._fields.index("k"): {2: some},
        1 + Row._fields.index("v"): {2: some},
        1 + Row._fields.index("bias"): {0: seen},
    }
    functions: dict[str, tuple[nn.Module, Inputs, dict[int, dict[int, Any]]]] = {
        "layer": (Layer(tuple(layer_weights), shape), layer_inputs, free),
        "head": (Head(tuple(head_weights), shape.eps), head_inputs, {}),
    }
    made = {name: _ready(name, *function) for name, function in functions.items()}
    return made["layer"], made["head"]


def check_version() -> None:
    """InputError where PyTorch is too old to compile ahead of time."""
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < TORCH_NEEDED:
        needed = ".".join(map(str, TORCH_NEEDED))
        raise InputError(f"compile needs torch {needed} or newer, and {torch.__version__} is here")


def _ready(name: str, function: nn.Module, inputs: Inputs, free: dict[int, dict[int, Any]]) -> Run:
    path = _private("compiled") / f"{name}-{_key(function, inputs)}.pt2"
    if path.is_file():
        try:
            return _load(path)
        except RuntimeError:
            say(f"{path} is damaged and will be replaced")
    began = time.perf_counter()
    say(f"compiling the decode step's {name} for this model's shapes, once (10 to 30 s) …")
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            made = Path(scratch) / path.name
            with _inductor_folder():
                _compile(function, inputs, free, made)
            os.replace(made, path)  # whole or not at all, also beside another run
    except OSError as error:
        raise ModelError(
            f"the compiled {name} cannot be kept in {path.parent}: {error}; {ELSEWHERE}"
        ) from error
    say(f"compiled in {time.perf_counter() - began:.0f} s, kept in {path.parent}")
    try:
        return _load(path)
    except RuntimeError as error:
        raise ModelError(f"the compiled {name} in {path} cannot be loaded: {error}") from error


def _private(name: str) -> Path:
    """A folder of that name in the cache, from which code may be loaded: nobody else writes there.

    Raises:
        ModelError: it cannot be made, or others can write to it.
    """
    folder = cache_folder() / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.stat()
    except OSError as error:
        raise ModelError(f"{folder} cannot be made: {error}; {ELSEWHERE}") from error
    if hasattr(os, "getuid") and (state.st_uid != os.getuid() or state.st_mode & 0o022):
        raise ModelError(
            f"{folder} belongs to another user, or others may write to it; code is loaded only "
            f"from a folder that is the user's own; {ELSEWHERE}"
        )
    return folder


@contextmanager
def _inductor_folder() -> Iterator[None]:
    """Inductor's own files in a private folder.

    By default they lie where all users of a machine write, under a name that each can guess, and
    some of them are loaded.
    """
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    os.environ[name] = str(_private("inductor"))
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


def _compile(
    function: nn.Module, inputs: Inputs, free: dict[int, dict[int, Any]], path: Path
) -> None:
    import torch._inductor.config
    from torch import _inductor
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InductorError, InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise InputError(
            "compile needs a C++ compiler, and none was found: install g++ or clang (or name one "
            "in the environment variable CXX), or go without compile"
        ) from error
    shapes = tuple(free.get(at) for at in range(len(inputs)))
    # The code holds an array as long as there are threads; this makes it ask for as many, and not
    # for however many there are when it runs.
    options = {**inductor.OPTIONS, "cpp.threads": torch.get_num_threads()}
    # Headers that it compiles ahead of time would stay out of _inductor_folder.
    if hasattr(_inductor.config.aot_inductor, "precompile_headers"):
        options["aot_inductor.precompile_headers"] = False
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of torch's own making
            program = torch.export.export(function, inputs, dynamic_shapes=(shapes[0], shapes[1:]))
            _inductor.aoti_compile_and_package(
                program, package_path=str(path), inductor_configs=options
            )
    except InductorError as error:
        raise InputError(f"the C++ compiler failed: {str(error).strip()[-2000:]}") from error


def _key(function: nn.Module, inputs: Inputs) -> str:
    """A name for what is compiled: everything that it depends on, digested."""
    sources = [Path(module.__file__ or "").read_bytes() for module in (layer, inductor)]
    facts = [
        torch.__version__,
        processor(),
        torch.backends.cpu.get_cpu_capability(),
        torch.get_num_threads(),  # which Inductor writes into the code; for one, plain loops
        vars(function).get("names"),
        vars(function).get("shape", vars(function).get("eps")),
        [(tuple(x.shape), str(x.dtype)) for x in inputs],
    ]
    digest = hashlib.sha256(repr(facts).encode())
    for source in (Path(__file__).read_bytes(), *sources):
        digest.update(source)
    return digest.hexdigest()[:32]


def _load(path: Path) -> Run:
    loader: Any
    try:
        # The class behind torch's public function, which imports the compiler: a second and more.
        loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
    except (AttributeError, TypeError):
        from torch import _inductor

        loader = _inductor.aoti_load_package(str(path)).loader
    run: Run = loader.run
    return run
