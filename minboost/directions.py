"""Directions in the residual stream, as latent steering takes them, and the files they are kept in.

A file is safetensors with one tensor for each direction, "{kind}.{layer}" (hidden_size,) float32,
and what they were found from in its metadata. Nothing in it is ever executed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checks import as_integer
from .errors import InputError, ModelError
from .output import whole

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("diffmean", "linear", "pcact", "pcdiff", "random", "projection")
FORMAT = "minboost directions 1"
MAX_FILE_BYTES = 256 << 20  # six kinds on 126 layers of 84,000 numbers each
MAX_HEADER_BYTES = 1 << 20
MAX_LAYER = 1 << 16
MAX_SEED = 1 << 62
TOLERANCE = 1e-3
"""How far from 1 a direction's norm may lie: rounding, and not another thing."""


@dataclass(frozen=True, eq=False)
class Direction:
    """A unit vector (hidden_size,) float32 on the CPU, how it was found, on which layer's input.

    Raises:
        InputError: a kind that is none of ``KINDS``, a layer that is no number, a vector that is
            not finite or whose norm is not 1.
    """

    kind: str
    layer: int
    vector: Tensor = field(repr=False)

    def __post_init__(self) -> None:
        import torch

        if self.kind not in KINDS:
            raise InputError(f"the kind {self.kind!r} is none of {', '.join(KINDS)}")
        object.__setattr__(self, "layer", as_integer("the layer", self.layer, 0, MAX_LAYER))
        vector = self.vector
        if not isinstance(vector, torch.Tensor) or vector.dim() != 1 or not len(vector):
            got = tuple(vector.shape) if isinstance(vector, torch.Tensor) else repr(vector)
            raise InputError(f"the vector of {self} must be a tensor (hidden_size,), got {got}")
        if not vector.is_floating_point() or not vector.isfinite().all():
            raise InputError(f"the vector of {self} must hold finite numbers")
        norm = float(vector.double().norm())
        if abs(norm - 1) > TOLERANCE:
            raise InputError(f"the vector of {self} must have norm 1, got {norm:.6g}")
        object.__setattr__(self, "vector", vector.detach().to("cpu", torch.float32))

    @property
    def name(self) -> str:
        """What it is called: "diffmean.2"."""
        return f"{self.kind}.{self.layer}"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False, kw_only=True)
class Directions:
    """Directions of one model that were found together, and from what.

    Attributes:
        found: the directions, no two of one name, all of one width.
        model: the name under which the model was loaded.
        seed: of the random ones.
        prompts: how many prompts there were, positive and negative.
    """

    found: tuple[Direction, ...]
    model: str
    seed: int
    prompts: tuple[int, int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", as_integer("seed", self.seed, 0, MAX_SEED))
        names = [direction.name for direction in self.found]
        if not names:
            raise InputError("there is no direction")
        if len(set(names)) < len(names):
            raise InputError(f"a direction is there twice: {', '.join(names)}")
        if widths := sorted({len(direction.vector) for direction in self.found})[1:]:
            raise InputError(f"the directions have different widths: {self.hidden_size}, {widths}")

    @property
    def hidden_size(self) -> int:
        return len(self.found[0].vector)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(direction.name for direction in self.found)

    def named(self, name: str) -> Direction:
        """The direction called "diffmean.2", or "diffmean" if there is one layer of that kind.

        Raises:
            InputError: there is none, or "diffmean" could be several.
        """
        fits = [direction for direction in self.found if name in (direction.name, direction.kind)]
        if len(fits) > 1:
            raise InputError(
                f"the direction {name!r} could be any of {', '.join(d.name for d in fits)}: "
                "say which"
            )
        if not fits:
            raise InputError(f"there is no direction {name!r}; there are: {', '.join(self.names)}")
        return fits[0]


def save_directions(path: Path, directions: Directions) -> None:
    """Write the file, whole or not at all.

    Raises:
        InputError: the folder cannot be written to.
    """
    from safetensors.torch import save

    data = save(
        {direction.name: direction.vector.contiguous() for direction in directions.found},
        metadata={
            "format": FORMAT,
            "model": directions.model,
            "hidden_size": str(directions.hidden_size),
            "seed": str(directions.seed),
            "positive_prompts": str(directions.prompts[0]),
            "negative_prompts": str(directions.prompts[1]),
        },
    )
    try:
        with whole(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise InputError(f"the directions file {path} cannot be written: {error}") from error


def load_directions(path: Path) -> Directions:
    """Read a file that ``save_directions`` wrote.

    Raises:
        ModelError: the file is missing, too large or not one of directions, or holds a tensor that
            is no direction; the message names the file and the tensor.
    """
    path = Path(path)
    metadata, tensors = _read(path)
    try:
        if metadata.get("format") != FORMAT:
            raise InputError(f"its format is {metadata.get('format')!r}, not {FORMAT!r}")
        numbers = {
            name: _number(metadata, name)
            for name in ("hidden_size", "seed", "positive_prompts", "negative_prompts")
        }
        if "model" not in metadata:
            raise InputError("its metadata has no 'model'")
        return Directions(
            found=tuple(
                _direction(name, tensor, numbers["hidden_size"])
                for name, tensor in sorted(tensors.items(), key=lambda item: _order(item[0]))
            ),
            model=metadata["model"],
            seed=numbers["seed"],
            prompts=(numbers["positive_prompts"], numbers["negative_prompts"]),
        )
    except InputError as error:
        raise ModelError(f"{path} is no usable directions file: {error}") from error


def load_direction(path: Path, name: str) -> Direction:
    """The direction called ``name`` of a file: "diffmean.2", or "diffmean" if it has one layer.

    Raises:
        ModelError: as ``load_directions``.
        InputError: the file has no direction of that name, or several; the message lists them.
    """
    try:
        return load_directions(path).named(name)
    except InputError as error:
        raise InputError(f"in {path}, {error}") from error


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file, its header bounded before it is parsed."""
    from safetensors import SafetensorError, safe_open

    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ModelError(f"{path} is no file")
        if size > MAX_FILE_BYTES:
            raise ModelError(f"{path} is larger than {MAX_FILE_BYTES} bytes: no directions file")
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if size >= 8 and header > MAX_HEADER_BYTES:
            raise ModelError(f"{path} is no directions file: its header would be {header} bytes")
        with safe_open(path, framework="pt") as opened:
            names = opened.keys()
            # Copies: what is mapped from a file would change with it.
            tensors = {name: opened.get_tensor(name).clone() for name in names}
            return opened.metadata() or {}, tensors
    except FileNotFoundError as error:
        raise ModelError(f"the directions file {path} is missing") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is truncated or no directions file: {error}") from error


def _direction(name: str, tensor: Tensor, hidden_size: int) -> Direction:
    import torch

    match = re.fullmatch(r"([a-z]+)\.(0|[1-9][0-9]{0,4})", name)
    if match is None:
        raise InputError(f"the tensor {name!r} is not called KIND.LAYER")
    if tensor.dtype != torch.float32 or tuple(tensor.shape) != (hidden_size,):
        raise InputError(
            f"the tensor {name!r} must be float32 of shape ({hidden_size},), got "
            f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
        )
    return Direction(match[1], int(match[2]), tensor)


def _number(metadata: dict[str, str], name: str) -> int:
    text = metadata.get(name, "")
    if not re.fullmatch(r"[0-9]{1,19}", text):
        raise InputError(f"its metadata says {name} = {text[:40]!r}, which is no number")
    return int(text)


def _order(name: str) -> tuple[Any, ...]:
    kind, _, layer = name.partition(".")
    return KINDS.index(kind) if kind in KINDS else len(KINDS), int(
        layer
    ) if layer.isdecimal() else 0
