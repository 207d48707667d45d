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
