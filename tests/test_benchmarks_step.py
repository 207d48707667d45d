"""benchmarks/forms.py and profile_step.py: what is measured is what they say, and adds up."""

from __future__ import annotations

import importlib
import json
from unittest import mock

import pytest
import torch

from minboost.cpu import compiled as compiling
from minboost.cpu import inductor

from . import tiny

LAYERS = tiny.SHAPE["num_hidden_layers"]


@pytest.fixture
def module(request, monkeypatch, tmp_path):
    """module(name) → that module of benchmarks/, which measures small things and writes here."""
    monkeypatch.syspath_prepend(request.config.rootpath / "benchmarks")
    monkeypatch.setenv("MINBOOST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    monkeypatch.setitem(importlib.import_module("shapes").SHAPES, "tiny", tiny.SHAPE)
    monkeypatch.setattr(importlib.import_module("result_rows"), "RESULTS", tmp_path)
    bandwidth = importlib.import_module("bandwidth").ReadBandwidth

    def get(name):
        found = importlib.import_module(name)
        if hasattr(found, "ReadBandwidth"):
            monkeypatch.setattr(found, "ReadBandwidth", lambda: bandwidth(1 << 20))
        return found

    return get


@pytest.fixture
def uncompiled(monkeypatch):
    """The functions that would be compiled run as they are: what is around them is the same."""

    def compiled(layer_weights, head_weights, shape, dtype):
        layer = compiling.Layer(tuple(layer_weights), shape)
        head = compiling.Head(tuple(head_weights), shape.eps)
        return lambda inputs: [layer(*inputs)], lambda inputs: [head(*inputs)]

    monkeypatch.setattr(compiling, "compiled", compiled)


@pytest.fixture
def arms(module, tmp_path):
    """arms(compile) → profile_step's engines on the tiny shape."""

    def start(*, compile=False):
        folder = tmp_path / "checkpoint"
        folder.mkdir()
        module("shapes").write("tiny", folder, dtype=torch.float32)
        engines, steps = module("engines"), module("profile_step")
        engine = engines.Minboost(engines.Job("minboost", str(folder), "float32", 1, 64))
        return steps.start(engine, 24, compile=compile)

    return start


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(("N", "K"), [(96, 64), (13, 64)])
def test_every_form_and_the_compiled_product_are_the_same_product(module, dtype, N, K):
    forms = module("forms")
    copies, scale = forms.many(N, K, dtype, 1)
    exact = copies[0].double() * (1 if scale is None else scale.double()[:, None])
    want = exact @ forms.vector(exact, torch.float32).double()
    for name, use in forms.eager(copies[0], scale).items():
        share = 1e-6 if dtype == "float32" else 2e-2  # a bfloat16 vector is off by 2⁻⁹
        assert (use(copies[0]) - want).abs().max() < share * want.abs().max(), name
    x, rest = forms.vector(exact, torch.float32), () if scale is None else (scale,)
    for streams in forms.STREAMS:
        with mock.patch.object(inductor, "STREAMS", streams):
            got = forms.Product()(x, copies[0], *rest)
        assert (got - want).abs().max() < 1e-6 * want.abs().max()


def test_copies_of_a_matrix_are_apart_and_as_large_as_asked_for(module):
    copies, _ = module("forms").many(8, 16, "float32", 2000)
    assert len({copy.data_ptr() for copy in copies}) == len(copies) == 4
    assert sum(copy.nbytes for copy in copies) >= 2000


def test_matrices_are_those_that_a_decode_step_reads(module):
    assert module("forms").matrices("Llama-3.2-1B") == {
        "qkv": (3072, 2048),
        "o": (2048, 2048),
        "gate_up": (16384, 2048),
        "down": (2048, 8192),
        "head": (128256, 2048),
    }


def test_forms_has_a_row_for_each_matrix_and_marks_what_calibration_chooses(module, tmp_path):
    forms = module("forms")
    options = ["--shape", "tiny", "--no-compile", "--rounds", "2", "--megabytes", "1"]
    assert forms.main([*options, "--threads", "1", "--write"]) == 0
    rows = json.loads((tmp_path / "cpu_forms.json").read_text())["rows"]
    assert [(row["dtype"], row["kind"]) for row in rows] == [
        (dtype, kind) for dtype in ("float32", "bfloat16", "int8") for kind in forms.KINDS
    ]
    for row in rows:
        assert row["bandwidth"] > 0 < min(form["median"] for form in row["forms"].values())
        assert {form["runs"] for form in row["forms"].values()} == {2}
    assert {tuple(row["forms"]) for row in rows[:10]} == {("linear", "mv", "bmm4")}
    assert all(row["chosen"] in row["forms"] for row in rows[:10])
    assert {(*row["forms"], row["chosen"]) for row in rows[10:]} == {("int8_linear", None)}
    table = (tmp_path / "cpu_forms.md").read_text(encoding="utf-8")
    assert table.count("**") == 2 * 10
    assert "| bfloat16 | gate_up | 192 × 64 | 1 |" in table


def test_forms_of_other_instructions_are_kept_beside_the_new_ones(module, tmp_path):
    forms, path = module("forms"), tmp_path / "cpu_forms.json"
    options = ["--shape", "tiny", "--dtype", "float32", "--no-compile", "--rounds", "1"]
    once = [*options, "--megabytes", "1", "--threads", "1", "--write"]
    assert forms.main(once) == 0
    rows = json.loads(path.read_text())["rows"]
    for row in rows:
        row["machine"]["instructions"] = "others"
    path.write_text(json.dumps({"rows": rows}))
    assert forms.main(once) == 0
    assert forms.main(once) == 0
    here = module("machine").describe()["instructions"]
    kept = json.loads(path.read_text())["rows"]
    assert sorted(map(forms.instructions, kept)) == sorted([here, "others"] * len(forms.KINDS))
    table = path.with_suffix(".md").read_text(encoding="utf-8")
    assert f"## tiny, {here}\n" in table
    assert "## tiny, others\n" in table


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_compiled_products_of_any_streams_are_the_product(module, dtype):
    forms = module("forms")
    copies, scale = forms.many(100, 64, dtype, 1)
    exact = copies[0].double() * (1 if scale is None else scale.double()[:, None])
    want = exact @ forms.vector(exact, torch.float32).double()
    for streams in forms.STREAMS:
        got = forms.compiled_use(copies[0], scale, streams)(copies[0])
        assert (got - want).abs().max() < 1e-6 * want.abs().max()


def test_a_steps_parts_add_up_to_it_for_every_way(module, uncompiled, tmp_path):
    script = module("profile_step")
    options = ["--shape", "tiny", "--dtype", "float32", "--prompt", "24", "--rounds", "2"]
    assert script.main([*options, "--threads", "1", "--write"]) == 0
    rows = json.loads((tmp_path / "cpu_profile.json").read_text())["rows"]
    assert [(row["boosted"], row["way"]) for row in rows] == [
        (boosted, way) for boosted in (False, True) for way in script.WAYS
    ]
    for row in rows:
        cost = row["parts"].pop("profiler a call")
        assert cost >= 0
        assert sum(row["parts"].values()) == pytest.approx(row["wall"]["median"])
        library = row["way"] == "compiled"
        assert row["parts"].keys() == {*(script.LIBRARY if library else script.OPERATORS), "left"}
        assert row["wall"]["runs"] == row["ratio"]["runs"] == 2
    assert {row["ratio"]["median"] for row in rows if row["way"] == "forward"} == {1.0}
    table = (tmp_path / "cpu_profile.md").read_text(encoding="utf-8")
    assert "| float32 | 24 | plain | forward |" in table
    assert "| float32 | 24 | × 10 | compiled |" in table


def test_products_and_attention_are_recognised_in_every_way(module, arms):
    """A product that was not would count among the other operators."""
    parts = module("step_parts")
    for arm, engine in arms().items():
        (step,) = parts._steps(parts._profile(engine, 1))
        groups = [parts.group_of(call.name) for call in step.cpu_children]
        assert groups.count("products") == 4 * LAYERS + 1, arm
        assert groups.count("attention") == LAYERS, arm


def test_the_fast_ways_make_fewer_calls_and_allocations(module, arms, uncompiled):
    parts, engines = module("step_parts"), arms(compile=True)
    for boosted in (False, True):
        calls = {way: parts.calls(engines[way, boosted], compiled=False) for way in
                 ("forward", "eager")}  # fmt: skip
        assert calls["eager"] < 0.75 * calls["forward"]
        memory = {way: parts.memory(engines[way, boosted]) for way in ("forward", "eager")}
        assert memory["eager"]["allocations"] < 0.3 * memory["forward"]["allocations"]
        assert memory["eager"]["allocated"] < memory["forward"]["allocated"]


def test_calls_of_the_library_count_beside_those_of_operators(module, arms, uncompiled):
    parts, engine = module("step_parts"), arms(compile=True)["compiled", False]
    library = 1 + LAYERS
    difference = parts.calls(engine, compiled=True) - parts.calls(engine, compiled=False)
    assert difference == library


def test_all_that_is_allocated_counts_though_it_is_freed(module):
    class Engine:
        size = 1000

        def rewind(self):
            pass

        def step(self, token):
            for _ in range(3):
                torch.ones(self.size, dtype=torch.uint8)

    parts, engine = module("step_parts"), Engine()
    found = parts.memory(engine)
    assert found["allocations"] >= 3
    assert 3000 <= found["allocated"] < 10_000
    engine.size = 64 << 20  # so large that the system takes it back every time
    assert parts.memory(engine)["page_faults"] >= 3


def test_clocks_leave_the_step_as_it_was(module, arms, uncompiled):
    parts, engine = module("step_parts"), arms(compile=True)["compiled", True]
    row = engine.decoder.row
    before = (row.layers, row.head)
    found = parts.inside(engine, compiled=True)
    assert found["layers"] > 0 < found["head"]
    assert (row.layers, row.head) == before


def test_the_profilers_cost_is_taken_off_where_calls_have_inner_calls(module):
    turn = {
        "wall": 12e-3, "recorded": 1000.0,  # 2 ms for 1000 calls: 2 µs each
        "products": 6e-3, "inner products": 100.0,
        "attention": 1e-3, "inner attention": 0.0,
        "other operators": 2e-3, "inner other operators": 400.0,
    }  # fmt: skip
    found = module("step_parts").parts(10e-3, [turn, turn])
    assert found == pytest.approx(
        {
            "products": 5.8e-3,
            "attention": 1e-3,
            "other operators": 1.2e-3,
            "left": 2e-3,
            "profiler a call": 2e-6,
        }
    )


def test_a_step_that_was_no_slower_under_the_profiler_is_not_corrected(module):
    parts = module("step_parts")
    turn = {"wall": 9e-3, "recorded": 10.0}
    turn |= {f"{inner}{group}": 1e-3 for group in parts.OPERATORS for inner in ("", "inner ")}
    found = parts.parts(10e-3, [turn])
    assert found["profiler a call"] == 0
    assert found["products"] == 1e-3
    assert found["left"] == pytest.approx(7e-3)
