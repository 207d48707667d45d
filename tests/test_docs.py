"""The pages are true: every command that they show runs, and prints what they show."""

from __future__ import annotations

import json
import re
import shlex
import shutil

import pytest

from minboost.cli import main as minboost_command
from minboost.generate import main as generate

pytestmark = pytest.mark.usefixtures("clean_settings")


def shown(page):
    """(command, what it printed) of every command in a page's blocks."""
    for block in re.findall(r"```\n(\$ .*?)```", page, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command = re.match(r"(?:.*\\\n)*.*\n", part).group()
            yield command.replace("\\\n", "").strip(), part[len(command) :]


def blurred(text):
    """Without what another processor may round otherwise: digits, and bars of their height."""
    text = re.sub(r"[░▒▓█▁▂▃▄▅▆▇]+", "", re.sub(r"[+-]?\d+(\.\d+)?(e-\d+)?", "#", text))
    return [" ".join(line.split()) for line in text.splitlines()]


@pytest.fixture
def page(request, tmp_path):
    """page(name) → its text; its commands find the files that they name."""
    docs = request.config.rootpath / "docs"
    shutil.copytree(docs / "examples", tmp_path / "docs" / "examples")
    return lambda name: (docs / name).read_text(encoding="utf-8")


def test_every_method_prints_what_its_section_shows(page, capfd):
    """One command a method, exactly as it comes out."""
    methods = set()
    for command, printed in shown(page("methods.md")):
        words = shlex.split(command)
        if words[0] == "minboost":
            assert minboost_command(words[1:]) == 0
            assert blurred(capfd.readouterr().out) == blurred(printed)
            continue
        assert generate(words[3:]) == 0
        out, err = capfd.readouterr()
        assert printed == out + err.splitlines()[0] + "\n"
        methods.add(words[words.index("--method") + 1])
    assert methods == {"instaboost", "pasta", "guide", "spotlight", "latent"}


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("inspecting.md", 2),
        ("comparing.md", 3),
        pytest.param("choosing.md", 2, marks=pytest.mark.slow),
    ],
)
def test_every_command_of_a_page_prints_what_it_shows(page, name, count, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    commands = list(shown(page(name)))
    assert len(commands) == count
    for command, printed in commands:
        assert minboost_command(shlex.split(command)[1:]) == 0
        assert blurred(capfd.readouterr().out) == blurred(printed)


def test_the_comparing_page_names_every_field_of_a_results_file_and_of_its_table(page):
    from dataclasses import fields

    from minboost.comparison import csv_file, records

    text = page("comparing.md")
    for line in (records.Record, records.RunInfo, records.Rating):
        for field in fields(line):
            assert f"`{field.name}`" in text
    for name in csv_file.JUDGED:
        assert f"`…_{name}`" in text
    for name in csv_file.CASE:
        assert f"`{name}`" in text


def test_the_arms_file_of_the_comparing_page_is_read(page, tmp_path):
    from minboost.comparison.arms import read_arms

    (block,) = re.findall(r"```yaml\n(.*?)```", page("comparing.md"), re.DOTALL)
    (tmp_path / "arms.yaml").write_text(block, encoding="utf-8")
    arms = read_arms(tmp_path / "arms.yaml", {})
    assert [arm.name for arm in arms[:3]] == ["pasta alpha=0.1 layers=0-1", "mild", "both"]
    assert [arm.by_concept for arm in arms] == [False, False, False, True]


def test_the_memory_figures_are_those_of_the_results_file(page, request):
    results = request.config.rootpath / "benchmarks/results"
    rows = json.loads((results / "mass_memory.json").read_text())["rows"]
    long = [row for row in rows if row["tokens"] >= 2048]
    extra = [row["extra_bytes_per_token"]["measured"] / 1000 for row in long]
    text = " ".join(page("inspecting.md").split())
    assert f"it takes {min(extra):.1f} to {max(extra):.1f} kB a token" in text
    assert f"would take {long[-1]['all_layers_matrices_bytes'] / 1e9:.1f} GB" in text


def test_the_methods_page_lists_every_option_of_a_method(page):
    from minboost.commands.options import OWN

    text = page("methods.md") + page("command-line.md")
    for option in OWN:
        assert f"`--{option.replace('_', '-')}`" in text


def test_every_command_is_on_the_command_lines_page(page):
    from minboost.cli import program

    for name in program.commands:
        assert f"`minboost {name}`" in page("command-line.md")


def test_the_table_of_shipped_suites_counts_their_cases_and_names_one(page):
    from minboost.suites import load_suite, shipped_suites

    row = re.compile(r"^\| `([a-z-]+)` \| .* \| (\d+) \((\d+)\) \| `([a-z-]+)`", re.MULTILINE)
    table = {name: rest for name, *rest in row.findall(page("suites.md"))}
    assert ["demo", *sorted(table)] == shipped_suites()
    for name, (cases, controls, example) in table.items():
        suite = load_suite(name)
        assert (len(suite.cases), sum(case.control for case in suite.cases)) == (
            int(cases),
            int(controls),
        )
        assert example in {case.name for case in suite.cases}


@pytest.fixture
def measured(request):
    """measured(name) → the rows of a results file, or all of it where it has none."""

    def read(name):
        path = request.config.rootpath / "benchmarks" / "results" / f"{name}.json"
        results = json.loads(path.read_text(encoding="utf-8"))
        return results.get("rows", results)

    return read


def test_the_steps_of_the_cpu_page_are_those_that_were_profiled(page, measured):
    text = page("cpu.md")
    small = [row for row in measured("cpu_profile") if row["shape"] == "SmolLM2-135M"]
    plain = {(row["dtype"], row["way"]): row for row in small if not row["boosted"]}
    for dtype in ("float32", "bfloat16"):
        for way in ("forward", "eager", "compiled"):
            row = plain.pop((dtype, way))
            floor = row["bytes_per_token"] / row["bandwidth"]
            step = row["wall"]["median"]
            cells = [dtype, way, row["calls"], f"{step * 1e3:.1f}", f"{floor * 1e3:.1f}"]
            assert f"| {' | '.join(map(str, cells))} |" in text
            if (dtype, way) == ("bfloat16", "eager"):
                products = row["parts"]["products"]
                assert f"takes {products * 1e3:.1f} ms of the step" in " ".join(text.split())
    assert not plain


def test_what_a_step_allocates_is_what_was_counted(page, measured):
    text = " ".join(page("cpu.md").split())
    plain = {
        (row["dtype"], row["way"]): row
        for row in measured("cpu_profile")
        if row["shape"] == "SmolLM2-135M" and not row["boosted"]
    }

    def pieces(dtype, way):
        row = plain[dtype, way]
        return f"{row['allocations']}", f"{row['allocated'] / 1e6:.1f} MB"

    eager32, mb32 = pieces("float32", "eager")
    eager16, mb16 = pieces("bfloat16", "eager")
    forward32, forward16 = (pieces(dtype, "forward")[0] for dtype in ("float32", "bfloat16"))
    fused32, fused16 = (pieces(dtype, "compiled") for dtype in ("float32", "bfloat16"))
    assert (
        f"asks for {eager32} pieces of memory ({mb32}), in bfloat16 for {eager16} ({mb16}," in text
    )
    assert f"`forward` asks for {forward32} and {forward16}:" in text
    assert f"asks for {fused32[0]} or {fused16[0]} ({fused32[1]})" in text
    assert fused32[1] == fused16[1]
    faults = {row["page_faults"] for row in measured("cpu_profile")}
    assert faults == {0}
    assert "in four steps there are 0 page faults" in text


def test_the_shares_of_bandwidth_are_those_that_were_measured(page, measured):
    text = " ".join(page("cpu.md").split())

    def share(dtype, ours):
        found = sorted(
            f"{row['engines']['ours']['share']:.2f}"
            for row in measured("cpu")
            if (row["shape"], row["dtype"], row["ours"]) == ("Llama-3.2-1B", dtype, ours)
        )
        return found[0] if found[0] == found[-1] else f"{found[0]} to {found[-1]}"

    eager, fused = ([share(dtype, ours) for dtype in ("float32", "bfloat16", "int8")]
                    for ours in ("eager", "compile"))  # fmt: skip
    assert f"reaches {eager[0]} in float32 and {eager[1]} in bfloat16" in text
    assert f"compiled {fused[0]} and {fused[1]}, int8 compiled {fused[2]}." in text


def test_what_int8_costs_stands_beside_what_it_brings(page, measured):
    text, results = page("cpu.md"), measured("quantized")
    (small,) = (shape for shape in results["shapes"] if shape["shape"] == "SmolLM2-135M")
    speed = {
        (row["dtype"], row["ours"]): f"{row['decode']['ours']['median']:.0f}"
        for row in measured("cpu")
        if (row["shape"], row["prompt"], row["rival"]) == ("SmolLM2-135M", 128, "llama.cpp")
    }
    assert list(small["bytes"]) == ["float32", "bfloat16", "int8, bfloat16 activations"]
    for form, size in small["bytes"].items():
        dtype = form.split(",")[0]
        of = [row for row in results["demo"]["rows"] if row["form"] == form]
        assert [row["arm"] for row in of] == ["plain", "boosted × 7"]
        strayed = [f"{row['from']['float32']['kl'] * 1e4:.1f}" for row in of]
        cells = [
            form,
            f"{size / 1e6:.0f} MB",
            *(speed[dtype, ours] for ours in ("eager", "compile")),
            "0" if form == "float32" else " / ".join(strayed),
            " / ".join(f"{row['success']:.3f}" for row in of),
        ]
        assert f"| {' | '.join(cells)} |" in text
