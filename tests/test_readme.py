"""The README is true: its snippet runs, its output is what comes out, its numbers are measured."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex

import pytest

import minboost
from minboost.generate import main
from minboost.methods import METHODS


@pytest.fixture(scope="module")
def root(request):
    return request.config.rootpath


@pytest.fixture(scope="module")
def readme(root):
    return (root / "README.md").read_text(encoding="utf-8")


def test_the_python_snippet_runs(readme, capfd):
    (snippet,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    exec(snippet, {})
    assert capfd.readouterr().out.count("Bleu.") == 2


def test_the_demo_output_is_what_the_command_prints(readme, root, capfd, monkeypatch):
    (block,) = re.findall(r"```\n\$ (.*?)```", readme, re.DOTALL)
    command, _, printed = block.replace("\\\n", "").partition("\n")
    monkeypatch.chdir(root)
    assert main(shlex.split(command)[3:]) == 0
    out, err = capfd.readouterr()
    assert printed.startswith(out)
    assert err.splitlines()[0] == printed.splitlines()[-2]  # what was boosted; times differ


def test_make_demo_runs_the_command_that_the_readme_shows(readme, root):
    recipe = re.search(
        r"-m minboost\.generate (.*?)\n\n", (root / "Makefile").read_text(), re.DOTALL
    )
    shown = re.search(r"\$ python -m minboost\.generate (.*?)\n---", readme, re.DOTALL)
    made, said = (shlex.split(m.group(1).replace("\\\n", "")) for m in (recipe, shown))
    assert made == said


def test_the_dose_response_figures_are_those_of_the_results_file(readme, root):
    results = json.loads((root / "benchmarks/results/demo_dose_response.json").read_text())
    rows = {row["multiplier"]: row for row in results["rows"]}
    conflict, without = ([rows[m][side]["success"] for m in (1.0, 7.0, 10.0)]
                         for side in ("conflict", "no_conflict"))  # fmt: skip
    text = " ".join(readme.split())
    low, high = (rows[1.0]["conflict"][end] for end in ("low", "high"))
    assert f"obeys its instruction in {conflict[0]:.3f} of them" in text
    assert f"(95 % interval {low:.3f} to {high:.3f})" in text
    assert f"boosted in {conflict[1]:.3f} at m = 7 and {conflict[2]:.3f} at m = 10" in text
    assert "without conflict in {:.3f}, {:.3f} and {:.3f}".format(*without) in text
    assert f"On {results['cases']['conflict']} held-out cases" in text


def test_the_methods_table_is_that_of_the_results_file(readme, root):
    results = json.loads((root / "benchmarks/results/methods.json").read_text())
    rows = {row["method"]: row for row in results["rows"]}
    names = {"spotlight": "spotlight, exact", "latent": "latent, diffmean"}
    shown = re.findall(
        r"\| `?(\(plain\)|\w+)`? \| `(.*?)` \|.*\| (0\.\d+) \| ([01]\.\d+) \|", readme
    )
    assert [name for name, *_ in shown] == ["(plain)", *METHODS]
    for name, python, success, control in shown:
        if name == "(plain)":
            side = results["plain"]
        else:
            row = rows[names.get(name, name)]
            side = row["test"]
            assert f"{row['chosen']:g}" == re.search(r"[\d.]+", python).group()
        assert (success, control) == (f"{side['success']:.3f}", f"{side['control']:.3f}")


def test_the_methods_report_is_made_of_its_json(root):
    path = root / "benchmarks/methods_report.py"
    spec = importlib.util.spec_from_file_location("methods_report", path)
    report = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(report)
    results = root / "benchmarks/results"
    made = report.markdown(json.loads((results / "methods.json").read_text()))
    assert made == (results / "methods.md").read_text(encoding="utf-8")


def test_what_is_said_of_profiled_heads_is_what_was_measured(root):
    """In the README's limits: no difference, and for Spotlight a worse result."""
    results = json.loads((root / "benchmarks/results/methods.json").read_text())
    against = {row["method"].split(",")[0]: row["against_all_heads"]
               for row in results["rows"] if "against_all_heads" in row}  # fmt: skip
    assert all(against[name]["p"] > 0.05 for name in ("instaboost", "pasta"))
    assert against["spotlight"]["p"] < 0.05
    assert against["spotlight"]["worse"] > against["spotlight"]["better"]


def test_the_load_figure_is_that_of_the_results_file(readme, root):
    results = json.loads((root / "benchmarks/results/load.json").read_text())
    ours = [row for row in results["rows"] if row["library"] == "minboost"]
    worst = max(row["peak_over_weights_max"] for row in ours)
    assert worst <= 1.2
    assert f"resident memory is at most {worst:.2f} × the weights" in " ".join(readme.split())


def test_every_file_that_the_readme_and_docs_link_to_exists(root):
    pages = [root / "README.md", root / "CONTRIBUTING.md", *(root / "docs").glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("https://"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.fixture(scope="module")
def demo_page(root):
    return (root / "docs" / "demo-model.md").read_text(encoding="utf-8")


def test_the_demo_pages_dose_response_is_the_results_table(demo_page, root):
    table = (root / "benchmarks/results/demo_dose_response.md").read_text(encoding="utf-8")
    rows = [line for line in table.splitlines() if re.match(r"\| [\d.]+ \|.*\(", line)]
    assert len(rows) == 12
    assert all(row in demo_page for row in rows)


def test_the_demo_pages_outputs_are_what_comes_out(demo_page):
    lm = minboost.load("demo", device="cpu")
    section = demo_page.split("| instruction | query | m = 1 | m = 3 | m = 10 |")[1].split("\n\n")[
        0
    ]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines()[2:]]
    assert len(rows) >= 5
    for instruction, query, *outputs in rows:
        for m, output in zip((1.0, 3.0, 10.0), outputs, strict=True):
            out = lm.generate(instruction=instruction, query=query, boost=minboost.Boost(m))
            assert f"`{out.text}`" == output


def test_the_committed_report_has_every_method_on_validation_and_on_test(root):
    text = (root / "benchmarks/results/demo_report.md").read_text(encoding="utf-8")
    for split in ("test", "validation"):
        summary = text.split(f"### demo, {split}\n")[1].split("\n### ")[0]
        arms = {line.split(" | ")[0].removeprefix("| ").split(" ")[0]
                for line in summary.splitlines() if line.startswith("| ")}  # fmt: skip
        assert {"plain", *METHODS} <= arms


def test_the_throughput_of_compare_is_that_of_the_results_file(readme, root):
    rows = json.loads((root / "benchmarks/results/throughput.json").read_text())["rows"]
    least = min(row["compare_is_faster_by"] for row in rows if row["way"] != "compare")
    assert f"{least:.1f} times as fast on the demo suite" in " ".join(readme.split())


def test_the_table_of_speeds_is_that_of_the_results_file(readme, root):
    """Every cell is the ratio of a row; where there is no cell, there is no row."""
    results = json.loads((root / "benchmarks/results/cpu.json").read_text())
    rows = {
        (row["rival"], row["dtype"], row["ours"]): row["decode"]["ratio"]["median"]
        for row in results["rows"]
        if (row["shape"], row["prompt"], row["new"]) == ("SmolLM2-135M", 128, 64)
    }
    rivals = {
        "transformers": "transformers",
        "transformers, boosted by a float mask": "transformers-mask",
        "TransformerLens, boosted by a hook": "transformer-lens",
        "llama.cpp": "llama.cpp",
    }
    columns = [(dtype, ours) for dtype in ("float32", "bfloat16", "int8")
               for ours in ("eager", "compile")]  # fmt: skip
    head = "| against | float32 | compiled | bfloat16 | compiled | int8 | compiled |\n"
    table = readme.split(head)[1].split("\n\n")[0].splitlines()[1:]
    shown = {}
    for line in table:
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        for column, cell in zip(columns, cells, strict=True):
            if cell:
                shown[(rivals[name], *column)] = cell
    assert shown == {at: f"{ratio:.2f} ×" for at, ratio in rows.items()}


def test_no_other_pytorch_engine_is_faster_in_any_row(readme, root):
    rows = json.loads((root / "benchmarks/results/cpu.json").read_text())["rows"]
    lowest = min(row["decode"]["ratio"]["median"] for row in rows if row["rival"] != "llama.cpp")
    assert lowest > 1
    assert f"at least {lowest:.2f} times as fast as" in " ".join(readme.split())


def test_what_boosting_costs_is_what_was_measured(readme, root):
    rows = json.loads((root / "benchmarks/results/overhead.json").read_text())["rows"]
    decode = [row["decode"]["boosted"]["ratio"] for row in rows]
    prefill = [row["prefill"]["boosted"]["ratio"] for row in rows]
    text = " ".join(readme.split())
    assert f"at least {min(decode):.3f} of the plain model's speed in decoding" in text
    assert f"at least {min(prefill):.2f} in prefill" in text
