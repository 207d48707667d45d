"""Every method at its best on the demo model: table, figure and JSON.

    python benchmarks/methods.py

A strength is chosen on the validation split, by the protocol of `minboost tune`: the best share of
obeying answers under conflict, among the strengths that keep 95 % of the answers without conflict
right and 95 % of all answers fluent. The test split, the cases of dose_response.py, is then
answered once. Heads are profiled, as `minboost profile` does it, on other draws of the validation
split, each method at the strength that was chosen for all heads. A latent direction serves one
value of an instruction ("French"), so each case gets that of its own, from the training split; its
layer is chosen with the factor. Needs matplotlib (`pip install minboost[plot]`).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

from demo_directions import CONTRAST_PROMPTS, LAYERS, demo_directions
from machine import describe
from methods_report import draw, markdown

import minboost
from minboost.analysis.evaluate import Evaluation, evaluate
from minboost.analysis.intervals import sign_test
from minboost.analysis.tuning import Point, choose
from minboost.directions import KINDS as DIRECTIONS
from minboost.directions import Direction
from minboost.methods import Boost, Guide, Latent, Method, Pasta, Spotlight
from minboost.suites import Case
from minboost.suites.demo import demo_cases

NAME = "methods"
ROOT = Path(__file__).parents[1]
FLOOR = 0.95
ANSWER_TOKENS = 24
MULTIPLIERS = (1.5, 2, 3, 4, 5, 7, 9, 11, 13, 15, 17, 19)
ALPHAS = (0.7, 0.5, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01)
DELTAS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0)
TARGETS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
PUBLISHED = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
FACTORS = (0.5, 1, 2, 4, 6, 8, 10, 12, 16, 20)

Steer = Method | Callable[[Case], Method] | None


@dataclass(frozen=True)
class Arm:
    """A method, the values of its parameter that are tried, and how one is made of each."""

    name: str
    parameter: str
    values: Sequence[float]
    make: Callable[[float], Steer]
    profiled: bool = False
    """Whether its heads are to be profiled as well."""
    detail: str = ""
    """What tells it from others of its name: "layer 2"."""


@dataclass(frozen=True)
class Found:
    """An arm, its curve on validation, the point chosen, and the test split at that point."""

    arm: Arm
    curve: tuple[Point, ...]
    chosen: Point | None
    test: Evaluation | None
    heads: int | None = None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cases", type=int, default=420, help="with conflict, and without, of test"
    )
    parser.add_argument("--validation", type=int, default=210, help="the same, of validation")
    parser.add_argument("--profiling", type=int, default=70, help="with conflict, for the heads")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args(argv)
    lm = minboost.load("demo", device="cpu")
    started = time.monotonic()
    validation = cases_of("validation", 0, options.validation, options.validation)
    test = cases_of("test", 0, options.cases, options.cases)
    profiling = cases_of("validation", 7, options.profiling, 0)
    bench = Bench(
        lm, validation, test, evaluate_at(lm, validation, None), evaluate_at(lm, test, None)
    )
    directions = {
        (direction.kind, direction.layer, concept): direction
        for concept, of in demo_directions(lm).items()
        for direction in of.found
    }
    found = []
    for alternatives in arms(directions):
        found.append(bench.run(*alternatives))
        say(found[-1], started)
        arm, chosen = found[-1].arm, found[-1].chosen
        if arm.profiled and chosen is not None:
            found.append(bench.run_profiled(arm, chosen.value, profiling))
            say(found[-1], started)
    results = {
        "command": "python benchmarks/methods.py",
        "model": "demo",
        "device": "cpu",
        "dtype": str(lm.dtype).removeprefix("torch."),
        "floor": FLOOR,
        "heads": lm.config.num_hidden_layers * lm.config.num_attention_heads,
        "cases": {
            "profiling": len(profiling),
            "validation": len(validation),
            "test": len(test),
            "contrasting prompts": 2 * CONTRAST_PROMPTS,
        },
        "interval": "Wilson, 95 %",
        "seconds": round(time.monotonic() - started, 1),
        "machine": describe(),
        "plain": outcome(bench.plain_test),
        "rows": [row(one, bench.plain_test, found) for one in found],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / NAME
    text = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    path.with_suffix(".json").write_text(text, encoding="utf-8")
    table = markdown(results)
    path.with_suffix(".md").write_text(table, encoding="utf-8")
    draw(results, path)
    print(table)
    return 0


def cases_of(split: str, seed: int, conflict: int, control: int) -> list[Case]:
    """Cases of a split of the demo world, those without a competing request as controls."""
    drawn = demo_cases(conflict=conflict, control=control, seed=seed)
    return [case for case in drawn if case.split == split]


def arms(directions: dict[tuple[str, int, str], Direction]) -> list[list[Arm]]:
    """Each method as the arms of which the best on validation counts."""

    def latent(kind: str, layer: int) -> Arm:
        def make(factor: float) -> Callable[[Case], Method]:
            return lambda case: Latent(factor, direction=directions[kind, layer, case.concept])

        factors = (1.0,) if kind == "projection" else FACTORS
        return Arm(f"latent, {kind}", "factor", factors, make, detail=f"layer {layer}")

    single = [
        Arm("instaboost", "multiplier", MULTIPLIERS, Boost, profiled=True),
        Arm("instaboost, prefix", "multiplier", MULTIPLIERS, lambda m: Boost(m, span="prefix")),
        Arm("pasta", "alpha", ALPHAS, Pasta, profiled=True),
        Arm("guide", "delta", DELTAS, Guide),
        Arm("spotlight, exact", "target", TARGETS, Spotlight, profiled=True),
        Arm("spotlight, published", "target", PUBLISHED, lambda t: Spotlight(t, form="published")),
    ]
    return [[arm] for arm in single] + [
        [latent(kind, layer) for layer in LAYERS] for kind in DIRECTIONS
    ]


def evaluate_at(
    lm: minboost.LM, cases: Sequence[Case], steer: Steer, plain: Evaluation | None = None
) -> Evaluation:
    return evaluate(lm, cases, steer, max_new_tokens=ANSWER_TOKENS, batch=70, plain=plain)


@dataclass(frozen=True)
class Bench:
    lm: minboost.LM
    validation: Sequence[Case]
    test: Sequence[Case]
    plain_validation: Evaluation
    plain_test: Evaluation

    def run(self, *alternatives: Arm, heads: int | None = None) -> Found:
        """All values on validation, and the best of them that passes the floor on test."""
        tried = [(arm, self.curve(arm)) for arm in alternatives]
        passing = [(arm, curve, chosen) for arm, curve in tried if (chosen := choose(curve, FLOOR))]
        if not passing:
            return Found(*tried[0], None, None, heads)
        arm, curve, chosen = max(passing, key=lambda one: one[2].evaluation.success or 0.0)
        test = evaluate_at(self.lm, self.test, arm.make(chosen.value), self.plain_test)
        return Found(arm, curve, chosen, test, heads)

    def curve(self, arm: Arm) -> tuple[Point, ...]:
        return tuple(
            Point(
                value,
                evaluate_at(self.lm, self.validation, arm.make(value), self.plain_validation),
            )
            for value in arm.values
        )

    def run_profiled(self, arm: Arm, value: float, cases: Sequence[Case]) -> Found:
        """The same on the heads that `minboost profile` finds for the arm at ``value``."""
        heads = profiled_heads(arm.name.split(",")[0], arm.parameter, value, cases)

        def make(value: float) -> Method:
            method = arm.make(value)
            assert isinstance(method, Method)
            return replace(method, heads=heads)

        name = f"{arm.name}, profiled heads"
        return self.run(replace(arm, name=name, make=make), heads=sum(map(len, heads.values())))


def profiled_heads(
    method: str, parameter: str, value: float, cases: Sequence[Case]
) -> dict[int, list[int]]:
    from minboost.cli import main as minboost_command

    with tempfile.TemporaryDirectory() as folder:
        tasks, out = Path(folder) / "tasks.jsonl", Path(folder) / "heads.json"
        lines = [json.dumps(case.as_json()) + "\n" for case in cases]
        tasks.write_text("".join(lines), encoding="utf-8")
        with redirect_stdout(StringIO()):
            code = minboost_command([
                "profile", "--tasks", str(tasks), "--method", method, f"--{parameter}", str(value),
                "--out", str(out), "--device", "cpu", "--json",
            ])  # fmt: skip
        if code:
            raise SystemExit(f"minboost profile ended with {code}")
        chosen = json.loads(out.read_text(encoding="utf-8"))
    return {int(layer): heads for layer, heads in chosen.items()}


def outcome(evaluation: Evaluation) -> dict[str, Any]:
    success, control = evaluation.success_interval, evaluation.control_interval
    assert success is not None
    assert control is not None
    return {
        "success": evaluation.success,
        "success_interval": success,
        "control": evaluation.control,
        "control_interval": control,
        "fluency": evaluation.fluency,
        "passed": "".join("1" if a.passed else "0" for a in evaluation.answers),  # case by case
    }


def row(found: Found, plain: Evaluation, others: Sequence[Found]) -> dict[str, Any]:
    arm = found.arm
    result: dict[str, Any] = {
        "method": arm.name,
        "parameter": arm.parameter,
        "heads": found.heads,
        "detail": arm.detail,
        "chosen": None if found.chosen is None else found.chosen.value,
        "validation": [
            {
                "value": point.value,
                "success": point.evaluation.success,
                "control": point.evaluation.control,
                "fluency": point.evaluation.fluency,
            }
            for point in found.curve
        ],
    }
    if found.test is not None:
        result["test"] = outcome(found.test)
        result["against_plain"] = paired(found.test, plain)
        full = next((o for o in others if arm.name == f"{o.arm.name}, profiled heads"), None)
        if full is not None and full.test is not None:
            result["against_all_heads"] = paired(found.test, full.test)
    return result


def paired(one: Evaluation, other: Evaluation) -> dict[str, Any]:
    """Cases under conflict that only one of the two answers rightly, and McNemar's exact p."""
    pairs = [
        (a.passed, b.passed)
        for a, b in zip(one.answers, other.answers, strict=True)
        if not a.case.control
    ]
    better, worse = pairs.count((True, False)), pairs.count((False, True))
    return {"better": better, "worse": worse, "p": sign_test(better, worse)}


def say(found: Found, started: float) -> None:
    chosen = "none" if found.chosen is None else f"{found.chosen.value:g}"
    success = "" if found.test is None else f", test {found.test.success:.3f}"
    seconds = time.monotonic() - started
    print(f"{seconds:6.0f} s  {found.arm.name}: {found.arm.parameter} {chosen}{success}",
          file=sys.stderr, flush=True)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
