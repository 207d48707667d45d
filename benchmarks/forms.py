"""How fast each form of a batch-1 product reads its weights, beside the machine's plain read.

    python benchmarks/forms.py [--shape SmolLM2-135M] [--dtype bfloat16] [--no-compile]
        [--rounds 9] [--write]

Every matrix of a layer, and the head, of known shapes: float32 and bfloat16 in PyTorch's own forms
(minboost/cpu/forms.py), int8 in ``int8_linear`` with bfloat16 vectors, and all three as compiled
ahead of time (minboost/cpu/inductor.py), with one stream of rows and with several.

A matrix is there so many times that a sweep over the copies is larger than a cache; the forms sweep
in turn, in an order that is turned round every time. What calibration's rule chooses of them is
marked.

Compiling takes minutes; --no-compile leaves it out. --write puts the rows into
benchmarks/results/cpu_forms.json and cpu_forms.md, in place of older ones of the same kind and of a
processor with the same instructions: which form is fastest hangs on these.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from bandwidth import ReadBandwidth
from duel import spread
from engines import DTYPES, INT8_ACTIVATIONS
from result_rows import Row, machine, machines, store
from shapes import SHAPES
from torch import Tensor, nn

from minboost.config import ModelConfig
from minboost.cpu import calibrate, compiled, inductor
from minboost.cpu.forms import default, forms
from minboost.cpu.row import all_layer_weights, head_weights
from minboost.model import Transformer
from minboost.quantize import int8_linear, quantize_rows

NAME = "cpu_forms"
DEFAULT_SHAPES = ("SmolLM2-135M", "Llama-3.2-1B")
KINDS = ("qkv", "o", "gate_up", "down", "head")
STREAMS = (1, inductor.STREAMS)  # of the compiled form
SWEEP = 512  # MB of copies, of which a form reads all before it meets the first again
ABOUT = textwrap.fill(
    "GB/s of weights that a product with one vector reads: medians of rounds in which all forms "
    "take turns, over copies of the matrix that are larger than a cache together. Bold is what "
    "calibration's rule makes of these medians; int8 has one eager form, and nothing is chosen. "
    "Compiled forms have float32 vectors, with so many streams of rows side by side. The last "
    "column is the best plain read of the machine's memory during the same rounds.",
    100,
)
Use = Callable[[Tensor], Tensor]
"""A product of one matrix, (N, K) → (N,): its form and its vector are chosen."""


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    torch.set_num_threads(options.threads)
    bandwidth, rows = ReadBandwidth(), []
    for shape, dtype, kind in itertools.product(options.shape, options.dtype, KINDS):
        print(f"{shape} {dtype} {kind}", file=sys.stderr, flush=True)
        row = {"shape": shape, "dtype": dtype, "kind": kind, "threads": options.threads}
        row |= measure(shape, dtype, kind, options, bandwidth)
        rows.append({**row, "machine": machine()})
    command = f"python benchmarks/{Path(__file__).name} --write"
    print(markdown(rows, command))
    if options.write:
        store(NAME, command, rows, key=key, markdown=markdown)
    return 0


def measure(
    shape: str, dtype: str, kind: str, options: argparse.Namespace, bandwidth: ReadBandwidth
) -> dict[str, Any]:
    """What a row says of one matrix: GB/s of every form, the chosen one, and the plain read."""
    N, K = matrices(shape)[kind]
    copies, scale = many(N, K, dtype, options.megabytes << 20)
    uses = eager(copies[0], scale)
    if options.compile:
        uses |= {f"compiled, {n}": compiled_use(copies[0], scale, n) for n in STREAMS}
    speeds: dict[str, list[float]] = {name: [] for name in uses}
    order = list(uses)
    bandwidth.samples.clear()
    for _ in range(1 + options.rounds):
        bandwidth.sample()
        for name in order:
            speeds[name].append(sweep(uses[name], copies) / 1e9)
        order.reverse()
    found = {name: spread(of[1:]) for name, of in speeds.items()}  # the first is a warm-up
    chosen = None
    if scale is None:
        medians = {name: found[name]["median"] for name in forms(N, options.threads)}
        chosen = calibrate.best_form(medians, default(copies[0].dtype))
    return {
        "rows": N,
        "columns": K,
        "copies": len(copies),
        "forms": found,
        "chosen": chosen,
        "bandwidth": bandwidth.best / 1e9,
    }


@torch.inference_mode()
def sweep(use: Use, copies: Sequence[Tensor]) -> float:
    """Bytes a second."""
    began = time.perf_counter()
    for weight in copies:
        use(weight)
    return sum(copy.nbytes for copy in copies) / (time.perf_counter() - began)


def matrices(shape: str) -> dict[str, tuple[int, int]]:
    """The shape (N, K) of each kind of matrix that a decode step of such a model reads."""
    config = {"model_type": "llama", "hidden_act": "silu", **SHAPES[shape]}
    with torch.device("meta"):
        model = Transformer(ModelConfig.from_dict(config))
    found = {**all_layer_weights(model)[0], **head_weights(model)}
    return {kind: (found[kind].shape[0], found[kind].shape[1]) for kind in KINDS}


def many(N: int, K: int, dtype: str, size: int) -> tuple[list[Tensor], Tensor | None]:
    """At least ``size`` bytes of copies of one random matrix, and its scale if it is int8."""
    noise = torch.randn(N, K, generator=torch.Generator().manual_seed(0)) * 0.02
    quantized = dtype == "int8"
    weight, scale = quantize_rows(noise) if quantized else (noise.to(getattr(torch, dtype)), None)
    return [weight.clone() for _ in range(-(-size // weight.nbytes))], scale


def vector(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.randn(weight.shape[1], generator=torch.Generator().manual_seed(1)).to(dtype)


def eager(weight: Tensor, scale: Tensor | None) -> dict[str, Use]:
    """The forms that ``weight`` can take in PyTorch, or the one that int8 has."""
    if scale is not None:
        row = vector(weight, INT8_ACTIVATIONS)[None]
        return {"int8_linear": lambda matrix: int8_linear(row, matrix, scale)[0]}
    x = vector(weight, weight.dtype)
    out = x.new_empty(weight.shape[0])
    found = forms(weight.shape[0], torch.get_num_threads())
    return {name: lambda matrix, form=form: form(matrix, x, out) for name, form in found.items()}


class Product(nn.Module):
    """The product of inductor.py alone: x (K,), a matrix (N, K), and its scale (N,) if any."""

    def forward(self, x: Tensor, *weights: Tensor) -> Tensor:
        named = dict(zip(("matrix", "matrix_scale"), weights, strict=False))
        return inductor.Inductor().product(named, "matrix", x)


def compiled_use(weight: Tensor, scale: Tensor | None, streams: int) -> Use:
    """The compiled form with so many streams, compiled now and kept nowhere."""
    x, rest = vector(weight, torch.float32), [] if scale is None else [scale]
    with tempfile.TemporaryDirectory() as scratch, mock.patch.object(inductor, "STREAMS", streams):
        path = Path(scratch) / "product.pt2"
        compiled._compile(Product(), (x, weight, *rest), {}, path)
        run = compiled._load(path)
    return lambda matrix: run([x, matrix, *rest])[0]


def key(row: Row) -> tuple[Any, ...]:
    """What makes two rows the same measurement, in the order of the table."""
    shape, dtype = list(SHAPES).index(row["shape"]), DTYPES.index(row["dtype"])
    return shape, instructions(row), row["threads"], dtype, KINDS.index(row["kind"])


def instructions(row: Row) -> str:
    """Those of the processor that the row was measured on."""
    return str(row["machine"]["instructions"])


def markdown(rows: Sequence[Row], command: str) -> str:
    lines = ["# How fast a batch-1 product reads its weights", "", f"`{command}`", "", ABOUT]
    names = list(dict.fromkeys(name for row in rows for name in row["forms"]))
    names.sort(key=lambda name: name.startswith("compiled"))  # int8's eager form comes before
    for shape, kind in dict.fromkeys((row["shape"], instructions(row)) for row in rows):
        head = ["dtype", "matrix", "N × K", "threads", *names, "plain read"]
        lines += ["", f"## {shape}, {kind}", "", "| " + " | ".join(head) + " |"]
        lines += ["|---|---|---|" + "---:|" * (len(head) - 3)]
        chosen = [row for row in rows if (row["shape"], instructions(row)) == (shape, kind)]
        lines += [line(row, names) for row in chosen]
    return "\n".join([*lines, "", machines(rows), ""])


def line(row: Row, names: Sequence[str]) -> str:
    cells = [row["dtype"], row["kind"], f"{row['rows']} × {row['columns']}", str(row["threads"])]
    for name in names:
        speed = f"{row['forms'][name]['median']:.1f}" if name in row["forms"] else ""
        cells.append(f"**{speed}**" if name == row["chosen"] else speed)
    return "| " + " | ".join([*cells, f"{row['bandwidth']:.1f}"]) + " |"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", action="append", choices=SHAPES)
    parser.add_argument("--dtype", action="append", choices=DTYPES)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--megabytes", type=int, default=SWEEP, help="of copies of a matrix")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--write", action="store_true", help=f"write benchmarks/results/{NAME}.*")
    options = parser.parse_args(argv)
    if options.rounds < 1 or options.megabytes < 1:
        parser.error("--rounds and --megabytes must be at least 1")
    options.shape = options.shape or list(DEFAULT_SHAPES)
    options.dtype = options.dtype or list(DTYPES)
    return options


if __name__ == "__main__":
    sys.exit(main())
