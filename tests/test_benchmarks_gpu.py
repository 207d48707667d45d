"""benchmarks/gpu.py as far as it goes without a GPU: its order, its limits, its judgement."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import subprocess
import sys
import textwrap
import time

import pytest
import torch

pytest.importorskip("triton")
# What the interpreter does with numpy is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture
def module(request, monkeypatch):
    """module(name) → that module of benchmarks/, imported as the scripts import each other."""
    monkeypatch.syspath_prepend(request.config.rootpath / "benchmarks")
    return importlib.import_module


@pytest.fixture
def lab(module):
    return module("gpu_lab").Lab.open(dry=True)


@pytest.mark.slow
def test_the_rehearsal_takes_every_group_and_passes_every_check(request, module, tmp_path):
    script = request.config.rootpath / "benchmarks" / "gpu.py"
    done = subprocess.run(
        [sys.executable, str(script), "--dry-run", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "gpu_dry_run.json").read_text())
    assert results["dry_run"]
    assert results["complete"]
    assert results["passed"]
    rows = results["rows"]
    groups = (
        "checks step-1b decode prefill step-8b compare batch-8 transformers first-token compiled"
    )
    assert list(dict.fromkeys(row["group"] for row in rows)) == groups.split()
    assert [row for row in rows if "error" in row] == []
    assert all(row["passed"] for row in rows if row["group"] == "checks")
    if not torch.cuda.is_available():
        assert [row["name"] for row in rows if "skipped" in row] == ["memory of the boost"]
    contenders = {row["contender"] for row in rows if row["group"] == "compare"}
    assert contenders == {"sdpa plain", "sdpa float mask", "flex score_mod"}
    table = (tmp_path / "gpu_dry_run.md").read_text()
    assert table == done.stdout.rstrip("\n") + "\n"
    assert "no figure here means anything" in table
    assert table.count("## ") >= 9


def test_one_group_alone_gets_a_file_of_its_own(module, tmp_path, capsys):
    assert module("gpu").main(["--dry-run", "--only", "prefill", "--out", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "gpu_dry_run_prefill.json").read_text())
    boosts = [(row["shape"], row["boost"]) for row in results["rows"]]
    assert boosts == [(s, b) for s in ("1B", "8B") for b in ("none", "one span", "four spans")]
    assert all(row["us"] > 0 for row in results["rows"])
    assert results["passed"] is None  # nothing was checked
    assert results["command"] == "python benchmarks/gpu.py --only prefill --dry-run"
    assert "## Prefill attention" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line(module, capsys):
    assert module("gpu").main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "benchmarks/gpu.py needs a CUDA GPU; --dry-run does without\n"


def test_a_wrong_kernel_fails_the_run(module, tmp_path, monkeypatch, capsys):
    checks, gpu = module("gpu_checks"), module("gpu")
    right = checks.gate_up
    monkeypatch.setattr(checks, "gate_up", lambda *a, **k: right(*a, **k) * 1.02)
    jobs = [job for job in checks.jobs() if job.name.startswith("gate_up")]
    measured = module("gpu_runner").Job("prefill", "after", 0, lambda lab: [{"us": 1.0}])
    monkeypatch.setattr(gpu, "all_jobs", lambda lab: [*jobs, measured])
    assert gpu.main(["--dry-run", "--out", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "!!! CHECK FAILED: gate_up" in err
    assert "**NO**" in out
    rows = json.loads((tmp_path / "gpu_dry_run.json").read_text())["rows"]
    assert [row.get("passed") for row in rows] == [False, None]  # measured all the same
    assert gpu.main(["--dry-run", "--strict", "--out", str(tmp_path)]) == 1
    assert len(json.loads((tmp_path / "gpu_dry_run.json").read_text())["rows"]) == 1


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_nan_never_passes_a_check(module, broken):
    worst = module("gpu_checks").Worst()
    exact = torch.ones(3, dtype=torch.float64)
    worst.add("right", exact.float(), exact, exact.float())
    assert worst.row()["passed"]
    worst.add("broken", torch.tensor([1.0, 1.0, broken]), exact, exact.float())
    assert not worst.row()["passed"]
    assert worst.row()["worst_case"] == "broken"
    json.dumps(worst.row(), allow_nan=False)


def test_the_checks_poison_what_a_kernel_leaves_unwritten(module):
    with module("gpu_checks").poisoned():
        assert torch.empty(5).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


def run(module, lab, jobs, minutes=1.0, **options):
    runner = module("gpu_runner")
    rows = []
    made = [runner.Job(*job) for job in jobs]
    passed = runner.run_jobs(made, lab, runner.Budget(minutes), rows.append, **options)
    return passed, rows


def test_a_measurement_that_raises_is_a_row_and_the_rest_goes_on(module, lab, capsys):
    def breaks(lab):
        yield {"us": 1.0}
        raise RuntimeError("out of luck\nand more")

    passed, rows = run(
        module, lab, [("decode", "a", 0, breaks), ("prefill", "b", 0, lambda lab: [{"us": 2.0}])]
    )
    assert passed
    assert [row.get("us") for row in rows] == [1.0, None, 2.0]
    assert rows[1]["error"] == "RuntimeError: out of luck"
    assert "Traceback" in capsys.readouterr().err


def test_a_check_that_raises_or_is_not_reached_has_not_passed(module, lab):
    assert not run(module, lab, [("checks", "a", 0, lambda lab: 1 / 0)])[0]
    assert not run(module, lab, [("checks", "a", 99, lambda lab: [{"passed": True}])])[0]


def test_what_time_does_not_reach_is_left_out_by_name(module, lab):
    passed, rows = run(
        module,
        lab,
        [("decode", "long", 90, lambda lab: [{}]), ("decode", "short", 1, lambda lab: [{"us": 1}])],
    )
    assert passed
    assert rows[0]["name"] == "long"
    assert rows[0]["skipped"].endswith("s left, about 90 s needed")
    assert rows[1]["us"] == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no alarm there")
def test_a_measurement_is_stopped_when_the_time_is_over(module, lab):
    def endless(lab):
        yield {"us": 1.0}
        try:
            while True:
                time.sleep(0.01)
        except Exception:  # as libraries do
            pytest.fail("the end of time was swallowed")

    began = time.monotonic()
    _, rows = run(module, lab, [("decode", "endless", 0, endless)], minutes=0.3 / 60)
    assert time.monotonic() - began < 5
    assert rows[0]["us"] == 1.0
    assert rows[1]["skipped"].startswith("stopped after")


def test_the_results_file_is_whole_after_every_row(module, tmp_path):
    results = module("gpu").Results(tmp_path / "new" / "gpu_x.json", {"date": "today"})
    for count in range(3):
        content = json.loads(results.path.read_text())
        assert len(content["rows"]) == count
        assert not content["complete"]
        results.keep({"us": 1.0})
    assert [path.name for path in results.path.parent.iterdir()] == ["gpu_x.json"]


def test_bandwidth_is_held_to_both_ceilings_and_to_none_that_is_not_known(module, lab):
    assert module("gpu_timing").BANDWIDTH["NVIDIA H200"] == 4.8e12
    assert module("gpu_timing").BANDWIDTH.get("NVIDIA GH200 480GB") is None
    lab.sheet, lab.copy = 4.8e12, 4.0e12
    assert lab.percent(2_400_000_000, 1000.0) == {
        "gb_per_s": 2400.0,
        "percent_of_sheet": 50.0,
        "percent_of_copy": 60.0,
    }
    lab.sheet = None
    assert lab.percent(1, 1.0)["percent_of_sheet"] is None


def test_the_bytes_of_a_step_are_those_of_the_published_shapes(module):
    lab_module, shapes = module("gpu_lab"), module("shapes").SHAPES
    from minboost.config import ModelConfig
    from minboost.model import Transformer

    for shape, weights, a_key in (
        ("Llama-3.2-1B", 2.471e9, 32 << 10),
        ("Llama-3.1-8B", 15.009e9, 128 << 10),
    ):
        config = ModelConfig.from_dict({"model_type": "llama", **shapes[shape]})
        with torch.device("meta"):
            model = Transformer(config).to(torch.bfloat16)
        assert lab_module.weights_read(model) == pytest.approx(weights, rel=1e-3)
        assert lab_module.keys_read(config, 2, 100, torch.bfloat16) == 200 * a_key


@pytest.mark.parametrize("count", [0, 1, 4])
@pytest.mark.parametrize("length", [9, 24, 128, 32768])
def test_spans_lie_in_the_keys_and_apart(module, count, length):
    spans = module("gpu_lab").spans(count, length)
    assert len(spans) == count
    ends = [end for span in spans for end in span]
    assert ends == sorted(ends)
    assert all(0 <= a < b <= length for a, b in spans)


def test_random_models_keep_tied_weights_tied(module, lab):
    tied = lab.model("Llama-3.2-1B")
    assert tied.lm_head.weight is tied.embed_tokens.weight
    assert lab.model("Llama-3.2-1B") is tied
    untied = lab.model("Llama-3.1-8B")
    assert not torch.equal(untied.lm_head.weight, untied.embed_tokens.weight)
    assert all(parameter.isfinite().all() for parameter in untied.parameters())


def test_times_are_taken_in_turn(module):
    timing = module("gpu_timing")
    calls = []
    clock = timing.Clock(torch.device("cpu"), rounds=3, warm=1)
    times = clock.in_turn(
        {"a": lambda: calls.append("A"), "b": lambda: calls.append("B")}, before=calls.append
    )
    assert calls == ["a", "A", "b", "B"] * 4
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}
    assert timing.spread([1.0, 2.0, 30.0], per=2)["us"] == 1.0
    assert timing.versus([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])["ratio"] == 2.0
    assert timing.percentile([0.0, 10.0], 0.1) == 1.0


def test_on_a_gpu_events_time_the_runs_and_a_graph_leaves_the_host_out(module, monkeypatch):
    log = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            log.append("event")

        def elapsed_time(self, end):
            return 0.25  # ms

    class Graph:
        def replay(self):
            log.append("replay")

    class Stream:
        def wait_stream(self, other): ...

    for name, fake in {
        "Event": Event,
        "CUDAGraph": Graph,
        "Stream": Stream,
        "current_stream": Stream,
        "stream": lambda stream: contextlib.nullcontext(),
        "graph": lambda graph: contextlib.nullcontext(),
        "synchronize": lambda: log.append("wait"),
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    clock = module("gpu_timing").Clock(torch.device("cuda"), rounds=2, warm=1)
    run = clock.captured(lambda: log.append("kernel"))
    assert log == ["kernel"] * 3  # twice to warm up, once into the graph
    log.clear()
    assert clock.in_turn({"a": run}) == {"a": [250.0, 250.0]}
    assert log == ["event", "replay", "event"] * 3 + ["wait"]  # no wait between two runs


def test_targets_are_judged_on_the_device_they_were_set_for_alone(module):
    table = module("gpu_table")
    rows = [
        {
            "group": "step-1b",
            "timed": "wall clock",
            "context": 2048,
            "boost": "none",
            "us_mean": 700.0,
        }
    ]
    lines = [target.line(rows, "NVIDIA H200") for target in table.TARGETS]
    assert [line.split("|")[-2].strip() for line in lines[3:6]] == ["yes", "**no**", "not measured"]
    other = table.TARGETS[4].line(rows, "NVIDIA H100 80GB HBM3")
    assert other == "| 1B, a token at 2k context, batch 1: then | 700 µs | ≤ 678 µs | — |"


@pytest.mark.parametrize(
    ("name", "slug"),
    [("NVIDIA H200", "h200"), ("NVIDIA H100 80GB HBM3", "h100_80gb_hbm3"), ("A/B (c)", "a_b_c")],
)
def test_the_files_are_named_after_the_device(module, name, slug):
    assert module("gpu").slug_of(name) == slug


def test_the_kernels_are_found_in_a_checkout_that_is_not_installed(request, tmp_path):
    code = """
        import sys
        root = sys.argv[1]
        # Neither an installation nor its import hook.
        sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
        sys.path[:] = [p for p in sys.path if p != root]
        sys.path_hooks[:] = [h for h in sys.path_hooks if "editable" not in repr(h).lower()]
        sys.path.insert(0, root + "/benchmarks")
        import gpu
        gpu.find_kernels()
        import minboost, minboost.kernels.decode
        print(minboost.kernels.decode.__file__)
    """
    root = str(request.config.rootpath)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), root],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{root}/kernels/decode.py"
