"""What int8 weights cost: bytes, next-token distributions, and answers, next to bfloat16's.

    python benchmarks/quantized.py [--limit 20] [--shape SmolLM2-135M] [--write]

The demo model, with its trained weights, in each form: the next token's distribution at every
position of the demo suite's prompts and of the float32 model's answers to them, in one forward; and
the greedy answers to the cases of the test split, one at a time. Plain and boosted, with the same
boost in every form. Shapes of known models with random weights show how much room int8 saves, and
how far a forward over random ids errs; each takes the memory of its float32 weights.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from machine import describe
from quantized_table import markdown
from shapes import SHAPES, write
from torch import Tensor

import minboost
from minboost.analysis.intervals import sign_test, wilson
from minboost.checkpoint import load_model
from minboost.commands.threads import fitting_threads
from minboost.config import ModelConfig
from minboost.loading import DTYPES
from minboost.model import Transformer
from minboost.request import Generation
from minboost.suites import Case, load_suite

NAME = "quantized"
RESULTS = Path(__file__).parent / "results"
INT8, INT8_WIDE = "int8, bfloat16 activations", "int8, float32 activations"
FORMS: dict[str, tuple[str, str | None]] = {  # dtype and quantize of a load
    "float32": ("float32", None),
    "bfloat16": ("bfloat16", None),
    INT8: ("bfloat16", "int8"),
    INT8_WIDE: ("float32", "int8"),
}
REFERENCES = ("float32", "bfloat16")
MULTIPLIER = 7.0
ARMS = {"plain": None, f"boosted × {MULTIPLIER:g}": minboost.Boost(MULTIPLIER)}
ANSWER_TOKENS = 24
DEFAULT_SHAPES = ("SmolLM2-135M", "Llama-3.2-1B")
RANDOM_IDS = 256
ROWS = 32  # of logits that are compared at a time: a large vocabulary's, all in float64, are much


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--limit", type=int, help="cases with conflict, and without, of each split; all by default"
    )
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results")
    arguments = sys.argv[1:] if argv is None else argv
    options = parser.parse_args(arguments)
    if options.limit is not None and options.limit < 1:
        parser.error(f"--limit must be at least 1, got {options.limit}")
    results = {
        "command": " ".join([f"python benchmarks/{NAME}.py", *arguments]),
        "machine": describe(),
        "decoding": "greedy",
        "interval": "Wilson, 95 %",
        "demo": demo(chosen(load_suite("demo").cases, options.limit)),
        "random_ids": RANDOM_IDS,
        "shapes": [shape(name) for name in options.shape or DEFAULT_SHAPES],
    }
    table = markdown(results)
    print(table)
    if options.write:
        text = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
        (RESULTS / f"{NAME}.json").write_text(text, encoding="utf-8")
        (RESULTS / f"{NAME}.md").write_text(table, encoding="utf-8")
    return 0


def chosen(cases: Iterable[Case], limit: int | None) -> list[Case]:
    """The first ``limit`` cases of each split and side."""
    sides: dict[tuple[str, bool], list[Case]] = {}
    for case in cases:
        sides.setdefault((case.split, case.control), []).append(case)
    return [case for side in sides.values() for case in side[:limit]]


def demo(cases: Sequence[Case]) -> dict[str, Any]:
    """The demo model in all forms: what its weights take, and a row for each form and arm."""
    lms = {
        form: minboost.load("demo", device="cpu", dtype=dtype, quantize=quantize)
        for form, (dtype, quantize) in FORMS.items()
    }
    test = [case for case in cases if case.split == "test"]
    rows = []
    with fitting_threads(lms["float32"]):
        for arm, boost in ARMS.items():
            exact = answers(lms["float32"], cases, boost)
            near = distances(lms, exact, boost)
            kept = [out for case, out in zip(cases, exact, strict=True) if case.split == "test"]
            for form, lm in lms.items():
                outs = kept if form == "float32" else answers(lm, test, boost)
                about = {"form": form, "arm": arm, "from": near[form]}
                rows.append({**about, **outcome(test, outs, kept)})
                say(f"demo, {form}, {arm}: success {rows[-1]['success']:.3f}")
    return {
        "cases": len(cases),
        "test_cases": len(test),
        "bytes": {form: weight_bytes(lm.model) for form, lm in lms.items()},
        "rows": rows,
    }


def answers(
    lm: minboost.LM, cases: Sequence[Case], boost: minboost.Boost | None
) -> list[Generation]:
    ask: dict[str, Any] = {"boost": boost, "max_new_tokens": ANSWER_TOKENS}
    return [lm.generate(instruction=case.instruction, query=case.query, **ask) for case in cases]


def distances(
    lms: Mapping[str, minboost.LM], outs: Sequence[Generation], boost: minboost.Boost | None
) -> dict[str, dict[str, dict[str, float]]]:
    """Of each form, how far it is from each reference over the prompts and answers of ``outs``."""
    found: dict[tuple[str, str], list[Tensor]] = {
        (form, reference): [] for form in lms for reference in REFERENCES
    }
    for out in outs:
        ids = [*out.prompt.ids, *out.ids[:-1]]  # the last one is foretold, not read
        spans = None if boost is None else out.boosted_spans
        logits = {form: lm.logits(ids, boost, spans) for form, lm in lms.items()}
        answer = torch.arange(len(ids)) >= len(ids) - len(out.ids)
        for form, reference in found:
            kl, same = compare(logits[reference], logits[form])
            found[form, reference].append(torch.stack([kl, same.double(), answer.double()]))
    return {
        form: {of: summary(torch.cat(found[form, of], dim=1)) for of in REFERENCES} for form in lms
    }


def compare(reference: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """KL(reference ‖ logits) in nats, float64, and whether the likeliest token is the same.

    Row by row: (T, V) and (T, V) to (T,) and (T,).
    """
    kl = []
    parts = torch.split(reference, ROWS), torch.split(logits, ROWS)
    for one, other in zip(*parts, strict=True):
        log_p, log_q = one.double().log_softmax(-1), other.double().log_softmax(-1)
        kl.append((log_p.exp() * (log_p - log_q)).sum(-1))
    return torch.cat(kl), reference.argmax(-1) == logits.argmax(-1)


def summary(rows: Tensor) -> dict[str, float]:
    """Means of (3, positions): divergences, same likeliest token, is it one of the answer."""
    kl, same, answer = rows[0], rows[1], rows[2].bool()
    return {
        "positions": len(kl),
        "kl": kl.mean().item(),
        "kl_max": kl.max().item(),
        "same": same.mean().item(),
        "answer_positions": int(answer.sum()),
        "answer_kl": kl[answer].mean().item(),
        "answer_same": same[answer].mean().item(),
    }


def outcome(
    cases: Sequence[Case], outs: Sequence[Generation], exact: Sequence[Generation]
) -> dict[str, Any]:
    """How many answers pass, with a competing request and without, next to float32's ``exact``."""
    result: dict[str, Any] = {}
    passed, exact_passed = judged(cases, outs), judged(cases, exact)
    for name, control in (("success", False), ("control", True)):
        of = [good for good, case in zip(passed, cases, strict=True) if case.control is control]
        result[name] = sum(of) / len(of)
        result[f"{name}_interval"] = wilson(sum(of), len(of))
        result[f"{name}_cases"] = len(of)
    pairs = list(zip(passed, exact_passed, strict=True))
    better, worse = pairs.count((True, False)), pairs.count((False, True))
    result["passed"] = "".join("1" if good else "0" for good in passed)  # case by case
    result["other_answers"] = sum(a.ids != b.ids for a, b in zip(outs, exact, strict=True))
    result["against_float32"] = {"better": better, "worse": worse, "p": sign_test(better, worse)}
    return result


def judged(cases: Sequence[Case], outs: Sequence[Generation]) -> list[bool]:
    return [
        case.passed(out.text, finished=out.finish_reason == "stop")
        for case, out in zip(cases, outs, strict=True)
    ]


def weight_bytes(model: Transformer) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


def shape(name: str) -> dict[str, Any]:
    """A shape with random weights: what they take, and how far a forward over random ids errs."""
    found: dict[str, Tensor] = {}
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write(name, folder)
        config = ModelConfig.from_folder(folder)
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(config.vocab_size, (1, RANDOM_IDS), generator=generator)
        for form in ("float32", "bfloat16", INT8):
            dtype, quantize = FORMS[form]
            model = load_model(
                folder, config, device=torch.device("cpu"), dtype=DTYPES[dtype], quantize=quantize
            )
            sizes[form] = weight_bytes(model)
            with torch.inference_mode():
                found[form] = model.logits(model(ids).hidden)[0]
            del model
            say(f"{name}, {form}: {sizes[form] / 1e6:.2f} MB")
    pairs = (("float32", "bfloat16"), ("float32", INT8), ("bfloat16", INT8))
    return {
        "shape": name,
        "bytes": sizes,
        "rows": [
            {"form": form, "from": reference, **strayed(found[reference], found[form])}
            for reference, form in pairs
        ],
    }


def strayed(reference: Tensor, logits: Tensor) -> dict[str, float]:
    """The mean divergence, and the logits' root mean square error as a share of their spread."""
    kl, same = compare(reference, logits)
    error = (logits - reference).square().mean().sqrt() / reference.std()
    return {"kl": kl.mean().item(), "same": same.double().mean().item(), "error": error.item()}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
