"""Results files made by hand, for the proofs of the report: known outcomes, unkind texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from minboost.comparison.records import ArmInfo, Rating, Record, RunInfo
from minboost.comparison.results import ResultsFile

HEAD = {
    "name": "models/tiny",
    "revision": None,
    "weights": "0123456789abcdef",
    "device": "cpu",
    "dtype": "float32",
    "impl": "torch",
    "generation": {"role": "system", "max_new_tokens": 8, "temperature": 0.0, "stop": ["\n\n"]},
}
EVIL = "http://127.0.0.1:9/evil"
UNKIND = (
    "</script><script>document.title = 'taken'</script>",
    f'"><img src={EVIL} onerror="document.title = 1"><!-- {{{{ 7 * 7 }}}} {{% raw %}}',
    'it\'s "quoted" & `ticked` | piped \\ **bold** [a](b) <b>',
    "\U0001f469\u200d\U0001f680 launches \U0001f600",
    "\u0645\u0631\u062d\u0628\u0627 \u202e turned \u2066 round",
    "two\nlines\r\n\tand a tab",
    "nothing\x00here\x1b[31m but \x7f signs",
    "line\u2028and paragraph\u2029separators",
    "\u5929\u7a7a\u662f\u84dd\u8272\u7684\u3002",
    "word " * 3000,
    "x" * 5000,
    "]]> --> ${1} <?php ?>",
)


def instaboost(**changes: Any) -> dict[str, Any]:
    """The setting of a boost as a results file has it."""
    usual = {"method": "instaboost", "multiplier": 10.0, "layers": "all", "heads": "all",
             "span": "instruction"}  # fmt: skip
    return {**usual, **changes}


ARMS: Mapping[str, tuple[dict[str, Any], ...]] = {
    "plain": (),
    **{f"instaboost multiplier={m}": (instaboost(multiplier=float(m)),) for m in (2, 5, 10)},
    **{
        f"one {layer}.{head}": (instaboost(multiplier=5.0, heads={str(layer): [head]}),)
        for layer in range(2)
        for head in range(2)
    },
    **{f"layer {layer}": (instaboost(layers=str(layer)),) for layer in range(2)},
    "broken <b>&</b>": ({"method": "spotlight", "target": 0.4, "form": "exact", "layers": "all",
                         "heads": "all", "span": "instruction"},),
}  # fmt: skip
CASES = 12
"""Of each split, and half as many controls."""
OBEYED = {"plain": 3, "instaboost multiplier=2": 6, "instaboost multiplier=5": 12,
          "instaboost multiplier=10": 11, "one 0.0": 4, "one 0.1": 9, "one 1.0": 3, "one 1.1": 2,
          "layer 0": 10, "layer 1": 3, "broken <b>&</b>": 0}  # fmt: skip
"""Of the cases, so many from the first on pass under each arm; 9 under any other."""


def passes(arm: str, number: int, run: int) -> bool:
    return number < OBEYED.get(arm, 9)


def record(arm: str, number: int, *, passed: bool, **changes: Any) -> Record:
    values: dict[str, Any] = {
        "key": f"{arm}/{number}",
        "suite": "unkind",
        "case": f"case-{number:03d}",
        "task": ("language", "json & <more>")[number % 2],
        "split": "test",
        "control": False,
        "instruction": "Answer in French.",
        "query": f"What is {number}?",
        "arm": arm,
        "run": 1,
        "seed": 1,
        "text": "Bleu caire." if passed else "Blue cat.",
        "finish_reason": "stop",
        "new_tokens": 4,
        "passed": passed,
        "why": "" if passed else "not exactly 'Bleu caire.'",
        "parts": (passed,),
        "fluent": True,
        "faults": (),
        "repeated": None,
        "entropy": None,
        "excess": 0.25,
        "surprisal": 0.5,
    }
    return Record(**{**values, **changes})


def run_info(arms: Mapping[str, Any], keys: Mapping[str, Sequence[str]], **changes: Any) -> RunInfo:
    values: dict[str, Any] = {
        "command": "minboost compare --suite unkind --arm '<script>'",
        "commit": "0123456789ab+",
        "versions": {"minboost": "0.1.0", "torch": "2.9"},
        "suites": {"unkind": "feedfacefeedface"},
        "split": "all",
        "arms": tuple(ArmInfo(name=name, methods=methods) for name, methods in arms.items()),
        "seed": 42,
        "runs": 1,
        "keys": {name: tuple(of) for name, of in keys.items()},
    }
    return RunInfo(**{**values, **changes})


def write(
    path: Path,
    arms: Mapping[str, tuple[dict[str, Any], ...]] = ARMS,
    *,
    cases: int = CASES,
    controls: int = CASES // 2,
    splits: Sequence[str] = ("validation", "test"),
    runs: int = 1,
    passes: Callable[[str, int, int], bool] = passes,
    change: Callable[[Record], Mapping[str, Any]] = lambda _: {},
    ratings: Callable[[Record], Rating | None] = lambda _: None,
    head: Mapping[str, Any] = HEAD,
) -> Path:
    """A results file of so many cases and controls, each answered under every arm.

    Args:
        passes: of arm, number of the case, and run. Controls, whose numbers come after those of
            the cases, always pass.
        change: fields of a record that are other than usual.
    """
    from dataclasses import replace

    from minboost.comparison.results import read_results

    records = []
    for at, split in enumerate(splits):
        for arm in arms:
            for number in range(cases + controls):
                for run in range(1, runs + 1):
                    control = number >= cases
                    one = record(
                        arm,
                        number,
                        passed=control or passes(arm, number, run),
                        key=f"{arm}/{split}/{number}/{run}",
                        case=f"case-{at}{number:02d}",
                        split=split,
                        control=control,
                        run=run,
                    )
                    records.append(replace(one, **change(one)))
    with ResultsFile(path, head) as file:
        keys = {arm: [r.key for r in records if r.arm == arm] for arm in arms}
        file.add_run(run_info(arms, keys, runs=runs))
        file.add(records)
        for one in records:
            rating = ratings(one)
            if rating is not None:
                file.add_rating(rating)
    assert len(read_results(path).answers) == len(records)
    return path


def unkind(one: Record) -> dict[str, Any]:
    """Unkind texts in answers, questions and reasons, and faults for the broken arm."""
    number = int(one.case[-2:])
    text = UNKIND[number % len(UNKIND)]
    broken = one.arm.startswith("broken")
    return {
        "text": text if one.arm == "plain" else f"{text} {one.text}",
        "query": text[:200],
        "why": "" if one.passed else f"not {text[:100]!r}",
        "fluent": not broken,
        "faults": ("cut off", "surprising") if broken else (),
    }
