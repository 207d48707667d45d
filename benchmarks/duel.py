"""Two engines take turns on one prompt: times, ratios, and whether they say the same."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from bandwidth import ReadBandwidth
from engine_process import EngineProcess

TURN = 16  # decode steps at a time: neighbours in time see the same machine
WARM = 4


def duel(
    ours: EngineProcess,
    theirs: EngineProcess,
    ids: Sequence[int],
    new: int,
    *,
    rounds: int,
    seconds: float,
    bandwidth: ReadBandwidth,
) -> dict[str, Any]:
    """Prefill in turn, then decode ``new`` tokens in turns of TURN steps, A B B A A B …

    Both are done ``rounds`` times, or until ``seconds`` have gone by on each; a long prefill may
    well run once. Where it runs several times the first is a warm-up.

    Returns:
        "decode" and "prefill", each with what ``compare`` gives, and "agreement".
    """
    sides = {"ours": ours, "theirs": theirs}
    prefill: dict[str, list[float]] = {name: [] for name in sides}
    decode: dict[str, list[float]] = {name: [] for name in sides}
    said: dict[str, list[int]] = {name: [] for name in sides}
    for engine in sides.values():
        engine.prefill(ids[: 2 * WARM], WARM)
        engine.decode(WARM)
    with tempfile.TemporaryDirectory() as scratch:
        files = {name: Path(scratch) / name for name in sides}

        def run_prompt(name: str) -> None:
            answer = sides[name].prefill(ids, max(new, WARM), logits=files[name])
            prefill[name].append(answer["seconds"])

        in_turn(sides, run_prompt, rounds=rounds + 1, seconds=seconds)
        logits = {name: torch.load(file) for name, file in files.items()}
    for engine in sides.values():
        engine.decode(WARM)

    def take_turn(name: str) -> None:
        answer = sides[name].decode(min(TURN, new))
        decode[name].append(answer["seconds"] / min(TURN, new))
        said[name] += answer["tokens"]

    def one_pass() -> None:
        for engine in sides.values():
            engine.rewind()
        bandwidth.sample()
        in_turn(sides, take_turn, rounds=max(1, new // TURN))

    began, passes = time.perf_counter(), 0
    while passes < rounds and (not passes or time.perf_counter() - began < seconds):
        one_pass()
        passes += 1
        print(".", end="", file=sys.stderr, flush=True)
    if len(prefill["ours"]) > 1:
        prefill = {name: times[1:] for name, times in prefill.items()}
    length = len(said["ours"]) // passes
    return {
        "prefill": compare(*([len(ids) / t for t in times] for times in prefill.values())),
        "decode": compare(*([1 / t for t in times] for times in decode.values())),
        "passes": passes,
        "agreement": {
            "same_tokens": same(said["ours"][:length], said["theirs"][:length]),
            "of": length,
            "logits_difference": difference(logits["ours"], logits["theirs"]),
        },
    }


def in_turn(
    names: Sequence[str] | dict[str, Any],
    act: Callable[[str], None],
    *,
    rounds: int,
    seconds: float = float("inf"),
) -> None:
    """``act`` on each name, round after round, in an order that is turned round every time."""
    order, began = list(names), time.perf_counter()
    for number in range(rounds):
        if number and time.perf_counter() - began > seconds:
            return
        for name in order:
            act(name)
        order.reverse()


def compare(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Medians and ranges of two rates measured in turn, and of their ratio, ours over theirs."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {"ours": spread(ours), "theirs": spread(theirs), "ratio": spread(ratios)}


def spread(values: Sequence[float]) -> dict[str, Any]:
    return {
        "median": statistics.median(values),
        "range": [min(values), max(values)],
        "runs": len(values),
    }


def same(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """How many tokens are equal before the first that is not."""
    pairs = zip(ours, theirs, strict=True)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), len(ours))


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference of two logit vectors, as a part of the largest logit."""
    return float((ours - theirs).abs().max() / theirs.abs().max())
