"""benchmarks/quantized.py: its distances are what they are called, its table holds its figures."""

from __future__ import annotations

import importlib
import json
import math

import pytest
import torch

import minboost
from minboost.analysis.intervals import wilson
from minboost.suites import load_suite

from . import tiny

LIMIT = 2


@pytest.fixture(scope="module")
def script(request):
    """benchmarks/quantized.py, imported as the scripts import each other, with a tiny shape."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(request.config.rootpath / "benchmarks")
        patch.setitem(importlib.import_module("shapes").SHAPES, "tiny", tiny.SHAPE)
        yield importlib.import_module("quantized")


@pytest.fixture(scope="module")
def written(script, tmp_path_factory):
    """The results and the table of a run over a few cases and the tiny shape."""
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "RESULTS", folder)
        assert script.main(["--limit", str(LIMIT), "--shape", "tiny", "--write"]) == 0
    results = json.loads((folder / "quantized.json").read_text(encoding="utf-8"))
    return results, (folder / "quantized.md").read_text(encoding="utf-8")


def cells(table, *start):
    """The cells of the row that begins with ``start``, without those."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    (found,) = [row for row in rows if tuple(row[: len(start)]) == start]
    return found[len(start) :]


def test_the_divergence_is_that_of_the_second_from_the_first(script):
    reference, other = torch.log(torch.tensor([[[0.75, 0.25]], [[0.5, 0.5]]]))
    there, same = script.compare(reference, other + 3)  # logits are free of a constant
    assert there.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-6)
    assert same.tolist() == [True]
    back, _ = script.compare(other, reference)
    assert back.item() == pytest.approx(0.5 * math.log(4 / 3), rel=1e-6)


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 70])
def test_rows_are_compared_one_by_one(script, rows):
    generator = torch.Generator().manual_seed(rows)
    one, other = torch.randn(2, rows, 9, generator=generator)
    kl, same = script.compare(one, other)
    log_p, log_q = one.double().log_softmax(-1), other.double().log_softmax(-1)
    exact = torch.nn.functional.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)
    assert torch.allclose(kl, exact, rtol=1e-12)
    assert torch.equal(same, one.argmax(-1) == other.argmax(-1))
    assert script.compare(one, one)[0].abs().max() == 0


def test_the_forward_that_is_compared_is_the_one_that_answered(script):
    """Its likeliest tokens are the greedy answer: it has the same prompt, and the same boost."""
    lm = minboost.load("demo", device="cpu", dtype="float32")
    cases = [case for case in load_suite("demo").cases if not case.control][:6]
    told = []
    for boost in script.ARMS.values():
        outs = script.answers(lm, cases, boost)
        told.append([out.ids for out in outs])
        for out in outs:
            ids = [*out.prompt.ids, *out.ids[:-1]]
            logits = lm.logits(ids, boost, None if boost is None else out.boosted_spans)
            assert tuple(logits[-len(out.ids) :].argmax(-1).tolist()) == out.ids
        found = script.distances({"float32": lm, "bfloat16": lm}, outs, boost)["float32"]
        for of in found.values():
            assert of["answer_positions"] == sum(len(out.ids) for out in outs)
            assert of["positions"] == sum(len(out.prompt.ids) + len(out.ids) - 1 for out in outs)
            assert (of["kl"], of["same"], of["answer_same"]) == (0, 1, 1)
    assert told[0] != told[1]


def test_every_form_stands_in_every_arm_beside_both_references(script, written):
    results, table = written
    demo = results["demo"]
    assert demo["cases"] == 4 * LIMIT
    assert demo["test_cases"] == 2 * LIMIT
    assert [(row["arm"], row["form"]) for row in demo["rows"]] == [
        (arm, form) for arm in script.ARMS for form in script.FORMS
    ]
    for row in demo["rows"]:
        for reference, of in row["from"].items():
            if reference == row["form"]:
                assert (of["kl"], of["same"]) == (0, 1)
                continue
            assert of["kl_max"] >= of["kl"] > 0
            if row["form"] != "float32":
                figures = [f"{of['kl'] * 1e4:.2f}", f"{of['same']:.4f}"]
                figures += [f"{of['answer_kl'] * 1e4:.2f}", f"{of['answer_same']:.4f}"]
                assert cells(table, row["form"], row["arm"], reference) == figures


def test_shares_are_those_of_the_cases_and_float32_is_what_others_are_held_against(written):
    results, _ = written
    exact = {row["arm"]: row["passed"] for row in results["demo"]["rows"][::4]}
    for row in results["demo"]["rows"]:
        sides = {"success": row["passed"][:LIMIT], "control": row["passed"][LIMIT:]}
        for name, passed in sides.items():
            assert row[name] == passed.count("1") / LIMIT
            assert tuple(row[f"{name}_interval"]) == wilson(passed.count("1"), LIMIT)
        pairs = list(zip(row["passed"], exact[row["arm"]], strict=True))
        assert row["against_float32"]["better"] == pairs.count(("1", "0"))
        assert row["against_float32"]["worse"] == pairs.count(("0", "1"))
        assert len(set(pairs) - {("0", "0"), ("1", "1")}) <= row["other_answers"] <= 2 * LIMIT


def test_the_table_gives_answers_with_their_intervals(script, written):
    results, table = written
    answers = table[table.index("## Answers") : table.index("## The next token: random")]
    for row in results["demo"]["rows"]:
        conflict, without, others, against = cells(answers, row["form"], row["arm"])
        for cell, name in ((conflict, "success"), (without, "control")):
            low, high = row[f"{name}_interval"]
            assert cell == f"{row[name]:.3f} ({low:.3f} to {high:.3f})"
        if row["form"] == "float32":
            assert (others, against) == ("", "")
        else:
            assert others == f"{row['other_answers']} of {2 * LIMIT}"
            assert against.startswith("+{better} −{worse}, p = ".format(**row["against_float32"]))


def test_int8_takes_a_byte_an_element_and_its_scales(script, written):
    results, table = written
    (shape,) = results["shapes"]
    assert shape["shape"] == "tiny"
    wide, narrow = shape["bytes"]["float32"], shape["bytes"][script.INT8]
    hidden, inner, layers = tiny.SHAPE["hidden_size"], tiny.SHAPE["intermediate_size"], 3
    norms = (2 * layers + 1) * hidden
    matrices = wide // 4 - norms
    rows = tiny.SHAPE["vocab_size"] + layers * (2 * hidden + hidden + 2 * inner + hidden)
    assert shape["bytes"]["bfloat16"] == wide / 2
    assert narrow == matrices + 4 * rows + 2 * norms
    assert cells(table, "tiny", f"{wide / 1e6:.2f} MB")[-2:] == [
        f"{2 * narrow / wide:.3f}",
        f"{narrow / wide:.3f}",
    ]
    assert cells(table, "demo")[-1] == "0.257"


def test_random_weights_err_more_in_int8_than_in_bfloat16(script, written):
    """Next to float32, on logits whose spread is theirs: were the rows mixed up, so would this."""
    results, table = written
    (shape,) = results["shapes"]
    found = {(row["form"], row["from"]): row for row in shape["rows"]}
    assert found.keys() == {
        ("bfloat16", "float32"),
        (script.INT8, "float32"),
        (script.INT8, "bfloat16"),
    }
    rounded = found["bfloat16", "float32"]
    for (form, reference), row in found.items():
        if form == script.INT8:
            assert row["error"] > rounded["error"] > 0
            assert row["kl"] > rounded["kl"] > 0
        figures = [f"{row['kl'] * 1e4:.2f}", f"{row['same']:.4f}", f"{row['error']:.4f}"]
        assert cells(table, "tiny", form, reference) == figures
