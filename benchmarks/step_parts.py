"""What one decode step consists of: time by kind of operator, calls, and memory.

Operators are those that Python calls, with what they call in turn inside them. torch.profiler gives
their times, and makes the step longer, which must not count as time of the step with more calls:

- What it costs a call is the difference of a step's time with and without it, through the calls
  that it records, inner ones included.
- It notes a call before that call's clock starts and after it has stopped. So it does not stretch
  the call itself but what is around it: an operator is corrected by the cost of its inner calls.
- What is left, Python and the way into operators, is the time without it less the operators'.

Into a compiled library the profiler does not see; there, clocks around its calls take its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from engines import Minboost
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

TURN = 4  # steps at a time
TOKEN = 1  # any: what a step costs does not depend on it
PRODUCTS = ("linear", "mv", "addmv", "bmm", "_weight_int8pack_mm")  # with weights
OPERATORS = ("products", "attention", "other operators")
LIBRARY = ("layers", "head")
Sums = dict[str, float]


def timed(engine: Minboost) -> float:
    """Seconds of a step, seen from outside: the median of a turn behind the prompt."""
    engine.rewind()
    engine.step(TOKEN)
    return median(_step(engine) for _ in range(TURN))


def inside(engine: Minboost, *, compiled: bool) -> Sums:
    """Of a step, mean of a turn: the seconds of each group, by clocks if it is compiled.

    By the profiler also "wall" seconds, calls "recorded", and "inner" calls of each group.
    """
    return _clocked(engine) if compiled else _profiled(engine)


def parts(wall: float, turns: Sequence[Sums]) -> Sums:
    """Seconds of each group, what is "left" of ``wall``, and the profiler's cost a call.

    Args:
        wall: seconds of a step without a profiler.
        turns: what ``inside`` gave; their medians count.
    """
    of = {name: median(turn[name] for turn in turns) for name in turns[0]}
    cost = max(0.0, of["wall"] - wall) / of["recorded"] if "recorded" in of else 0.0
    found = {
        group: max(0.0, of[group] - cost * of.get(f"inner {group}", 0.0))
        for group in (*OPERATORS, *LIBRARY)
        if group in of
    }
    return {**found, "left": wall - sum(found.values()), "profiler a call": cost}


def calls(engine: Minboost, *, compiled: bool) -> int:
    """Calls that Python makes in a step: of operators, and of the compiled library."""
    (step,) = _steps(_profile(engine, 1))
    return len(step.cpu_children) + (1 + len(engine.decoder.row.layers) if compiled else 0)


def memory(engine: Minboost) -> dict[str, int | None]:
    """What a step asks of PyTorch's allocator, freed soon or not, and what that costs.

    Returns:
        "allocations" and the bytes "allocated" of a step; "page_faults" of a turn's steps (None on
        Windows): how often they touched memory that the process did not have yet. Where there are
        none, the same memory is handed out again and again, which takes next to no time.
    """
    engine.rewind()
    engine.step(TOKEN)  # makes what later steps use again
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as found:
        engine.step(TOKEN)
    assert found.profiler is not None
    events: Any = found.profiler.kineto_results
    sizes = [event.nbytes() for event in events.events() if event.name() == "[memory]"]
    given = [size for size in sizes if size > 0]
    return {
        "allocations": len(given),
        "allocated": sum(given),
        "page_faults": _page_faults(engine),
    }


def group_of(operator: str) -> str:
    """The group of an operator that Python called."""
    name = operator.removeprefix("aten::")
    if name in PRODUCTS:
        return "products"
    return "attention" if "scaled_dot_product" in name else "other operators"


def _page_faults(engine: Minboost) -> int | None:
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:
        return None
    engine.rewind()
    engine.step(TOKEN)
    before = getrusage(RUSAGE_SELF).ru_minflt
    for _ in range(TURN):
        engine.step(TOKEN)
    return getrusage(RUSAGE_SELF).ru_minflt - before


def _step(engine: Minboost) -> float:
    began = time.perf_counter()
    engine.step(TOKEN)
    return time.perf_counter() - began


def _profile(engine: Minboost, steps: int) -> Any:
    engine.rewind()
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as found:
        engine.step(TOKEN)  # what is set up once is part of it, and so it has no mark
        for _ in range(steps):
            with record_function("step"):
                engine.step(TOKEN)
    return found


def _steps(found: Any) -> list[FunctionEvent]:
    return [event for event in found.events() if event.name == "step"]


def _profiled(engine: Minboost) -> Sums:
    sums = dict.fromkeys(("wall", "recorded"), 0.0)
    sums |= {f"{inner}{group}": 0.0 for group in OPERATORS for inner in ("", "inner ")}
    for step in _steps(_profile(engine, TURN)):
        sums["wall"] += step.cpu_time_total / 1e6
        for call in step.cpu_children:
            group, inner = group_of(call.name), _descendants(call)
            sums["recorded"] += 1 + inner
            sums[group] += call.cpu_time_total / 1e6
            sums[f"inner {group}"] += inner
    return {name: value / TURN for name, value in sums.items()}


def _descendants(call: FunctionEvent) -> int:
    return sum(1 + _descendants(child) for child in call.cpu_children)


def _clocked(engine: Minboost) -> Sums:
    seconds = dict.fromkeys(LIBRARY, 0.0)

    def clock(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            began = time.perf_counter()
            out = run(*args)
            seconds[name] += time.perf_counter() - began
            return out

        return call

    row = engine.decoder.row
    layers, head = row.layers, row.head
    engine.rewind()
    engine.step(TOKEN)
    row.layers, row.head = [clock("layers", layer) for layer in layers], clock("head", head)
    for _ in range(TURN):
        engine.step(TOKEN)
    row.layers, row.head = layers, head
    return {name: of / TURN for name, of in seconds.items()}
