"""Two engines take turns on one prompt: times, ratios, and whether they say the same."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bandwidth import ReadBandwidth
from engine_process import EngineProcess

TURN = 16  # decode steps at a time: neighbours in time see the same machine
WARM = 4
Rates = dict[str, list[float]]
"""Tokens a second, by side ("ours", "theirs"), one number a turn."""


@dataclass
class Duel:
    """What two engines did in turn, once started."""

    prefill: Rates
    decode: Rates
    passes: int
    agreement: dict[str, Any]


def duel(
    ours: EngineProcess,
    theirs: EngineProcess,
    ids: Sequence[int],
    new: int,
    *,
    rounds: int,
    seconds: float,
    bandwidth: ReadBandwidth,
) -> Duel:
    """Prefill in turn, then decode ``new`` tokens in turns of TURN steps, A B B A A B …

    Both are done ``rounds`` times, or until ``seconds`` have gone by on each; a long prefill may
    well run once. Where it runs several times the first is a warm-up.
    """
    sides = {"ours": ours, "theirs": theirs}
    prefill: Rates = {name: [] for name in sides}
    decode: Rates = {name: [] for name in sides}
    said: dict[str, list[int]] = {name: [] for name in sides}
    for engine in sides.values():
        engine.prefill(ids[: 2 * WARM], WARM)
        engine.decode(WARM)
    with tempfile.TemporaryDirectory() as scratch:
        files = {name: Path(scratch) / name for name in sides}

        def run_prompt(name: str) -> None:
            answer = sides[name].prefill(ids, max(new, WARM), logits=files[name])
            prefill[name].append(len(ids) / answer["seconds"])

        in_turn(sides, run_prompt, rounds=rounds + 1, seconds=seconds)
        logits = {name: torch.load(file) for name, file in files.items()}
    for engine in sides.values():
        engine.decode(WARM)

    def take_turn(name: str) -> None:
        answer = sides[name].decode(min(TURN, new))
        decode[name].append(min(TURN, new) / answer["seconds"])
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
    if len(prefill["ours"]) > 1:
        prefill = {name: rates[1:] for name, rates in prefill.items()}
    length = len(said["ours"]) // passes
    agreement = {
        "same_tokens": same(said["ours"][:length], said["theirs"][:length]),
        "of": length,
        "logits_difference": difference(logits["ours"], logits["theirs"]),
    }
    return Duel(prefill, decode, passes, agreement)


def pooled(duels: Sequence[Duel]) -> dict[str, Any]:
    """What a row says of duels whose engines were started anew each time.

    Returns:
        "prefill" and "decode", each with what ``compare`` gives for all turns together, and
        "by_start", the median ratio of each duel; "starts"; "passes"; "agreement" of the first.
    """

    def both(found: Sequence[Rates]) -> dict[str, Any]:
        ours, theirs = ([rate for of in found for rate in of[side]] for side in ("ours", "theirs"))
        each = [compare(of["ours"], of["theirs"])["ratio"]["median"] for of in found]
        return {**compare(ours, theirs), "by_start": each}

    return {
        "prefill": both([of.prefill for of in duels]),
        "decode": both([of.decode for of in duels]),
        "starts": len(duels),
        "passes": sum(of.passes for of in duels),
        "agreement": duels[0].agreement,
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
