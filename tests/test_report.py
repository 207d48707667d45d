"""The report: its numbers are the summary's, foreign texts stay texts, the same file each time."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from minboost import InputError
from minboost.cli import main
from minboost.comparison.records import Rating
from minboost.comparison.results import read_results
from minboost.comparison.summary import summarise
from minboost.report import html_report
from minboost.report.formats import markdown, p_value, signed, visible
from minboost.report.page import markdown_page

from .results_files import ARMS, CASES, EVIL, HEAD, OBEYED, instaboost, unkind, write

pytestmark = pytest.mark.usefixtures("clean_settings")


class Page(HTMLParser):
    """The elements of a page, the rows of its tables, and its texts."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self.tables, self.path, self.texts = [], [], [], {}
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in ("meta", "input", "br", "path", "use", "line", "circle"):
            self.path.append(tag)

    def handle_endtag(self, tag):
        while self.path and self.path.pop() != tag:
            pass

    def handle_data(self, data):
        tag = self.path[-1] if self.path else ""
        self.texts.setdefault(tag, []).append(data)
        if any(cell in self.path for cell in ("td", "th")):
            self.tables[-1][-1][-1] += data.strip()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = write(tmp_path_factory.mktemp("report") / "unkind.jsonl", change=unkind)
    return read_results(path)


@pytest.fixture(scope="module")
def summary(results):
    return summarise(results)


@pytest.fixture(scope="module")
def html(results):
    return html_report(results)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def rows_of(summary, split):
    group = summary.group("unkind", split)
    rows = []
    for arm in group.arms:
        versus = arm.versus
        rows.append([
            arm.name, f"{arm.success.value:.3f}",
            f"{arm.success.low:.3f} to {arm.success.high:.3f}", f"{arm.control.value:.3f}",
            f"{arm.fluency.value:.3f}",
            *(["–"] * 5 if versus is None else [
                signed(versus.difference.value),
                f"{signed(versus.difference.low)} to {signed(versus.difference.high)}",
                p_value(versus.corrected), str(versus.gained), str(versus.lost),
            ]),
        ])  # fmt: skip
    return rows


def test_the_summary_tables_have_the_numbers_of_the_summary_test_first(page, summary):
    found = [rows for rows in page.tables if rows[0][-1] == "Lost"]
    for rows, split in zip(found, ("test", "validation"), strict=True):
        # Without the column of drawings.
        shown = [[cell for k, cell in enumerate(row) if k != 2] for row in rows[1:]]
        assert shown == rows_of(summary, split)
    shares = {row[0]: row[1] for row in found[0][1:]}
    assert shares == {arm: f"{OBEYED[arm] / CASES:.3f}" for arm in ARMS}


def test_the_task_tables_have_the_success_of_each_arm_and_task(page, summary):
    group = summary.group("unkind", "test")
    rows = next(rows for rows in page.tables if "language" in rows[0][1])
    for row in rows[1:]:
        for task, cell in zip(("language", "json & <more>"), row[1:], strict=True):
            found = next(t for t in group.tasks if t.task == task).arm(row[0])
            changes = f"+{found.gained}" if found.gained else ""
            changes += f" −{found.lost}" if found.lost else ""
            assert cell.replace(" ", "") == f"{found.success.value:.2f}{changes}".replace(" ", "")


def test_foreign_texts_stay_texts(html, page):
    names = [tag for tag, _ in page.elements]
    assert names.count("script") == 2  # the data, and the page's own
    assert "img" not in names
    assert "{{" not in html.replace("{{ 7 * 7 }}", "")  # a template in an answer stays one
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href", "action", "data", "srcset", "background", "poster"):
            assert (attributes.get(name) or "#").startswith("#")
    assert not re.findall(r"url\((?!#)", html)
    assert "@import" not in html
    style = "".join(page.texts["style"])
    assert "//" not in style
    code = page.texts["script"][-1]
    assert EVIL not in code
    assert "innerHTML" not in code


def test_the_policy_forbids_the_network_and_all_scripts_but_the_page_s_own(page):
    policy = next(e["content"] for t, e in page.elements if t == "meta" and "http-equiv" in e)
    code = page.texts["script"][-1]
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == f"'sha256-{digest}'"


def test_the_embedded_answers_are_what_the_models_wrote(results, page):
    data = json.loads(page.texts["script"][0])
    shown = {
        (data["arms"][arm], case["name"], run[0]): (data["texts"][run[1]], bool(run[2]))
        for case in data["cases"]
        for arm, runs in case["answers"]
        for run in runs
    }
    wanted = {(r.arm, r.case, r.run): (visible(r.text), r.passed) for r in results.answers}
    assert shown == wanted
    assert "nothing␀here␛[31m but ␡ signs" in data["texts"]


def test_no_character_of_an_answer_can_end_the_data(html):
    raw = html.split('id="data">')[1].split("</script>")[0]
    assert not set("<>&\u2028\u2029\x00") & set(raw)
    json.loads(raw)


@pytest.mark.slow
def test_the_same_results_give_the_same_bytes_in_another_process(results, html, tmp_path):
    out = tmp_path / "again.html"
    command = [
        sys.executable,
        "-m",
        "minboost.cli",
        "report",
        str(results.path),
        "--html",
        str(out),
    ]
    subprocess.run(command, check=True, capture_output=True, env={"PYTHONHASHSEED": "7"})
    assert out.read_bytes() == html.encode()


def test_the_same_results_give_the_same_page(results, html):
    assert html_report(results) == html


def test_the_markdown_has_the_same_table_and_links_the_figures(results, summary):
    text = markdown_page(results, summary, png="my%20figures.png")
    lines = text.split("\n")
    for split in ("test", "validation"):
        for row in rows_of(summary, split):
            assert "| " + " | ".join(map(markdown, row)) + " |" in lines
    assert "](<my%20figures.png>)" in text
    assert "![" not in markdown_page(results, summary)
    assert "<ins>Bleu caire.</ins>" in text
    assert "<script>" not in text.replace(results.runs[0].command, "")


def test_ratings_stand_in_the_tables(tmp_path):
    path = write(
        tmp_path / "r.jsonl",
        {"plain": (), "a": (instaboost(),)},
        ratings=lambda one: Rating(key=one.key, judge="<judge>", score=1.5, words="fair & <b>"),
    )
    results = read_results(path)
    page = Page(html_report(results))
    (head, *rows) = next(rows for rows in page.tables if "tokens" in rows[0])
    at = head.index("rated 0 to 2 by <judge>")
    assert all(row[at].startswith("1.500") for row in rows)
    assert "fair & <b>" in json.loads(page.texts["script"][0])["texts"]


def test_the_page_stands_beside_the_results_where_nothing_is_named(tmp_path, capfd):
    path = write(tmp_path / "mine.jsonl", {"plain": (), "a": (instaboost(),)}, cases=4, controls=0)
    assert main(["report", str(path)]) == 0
    out, err = capfd.readouterr()
    assert out.startswith("unkind, test: ")
    assert "wrote" in err
    assert path.with_suffix(".html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_markdown_and_png_are_written_and_linked(results, tmp_path, capfd):
    png, text = tmp_path / "the figures.png", tmp_path / "sub" / "r.md"
    text.parent.mkdir()
    command = ["report", str(results.path), "--png", str(png), "--markdown", str(text), "--json"]
    assert main(command) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["html"] is None
    assert [f["arm"] for f in found["findings"]] == ["instaboost multiplier=5"] * 2
    assert found["groups"] == summarise(results).as_json()["groups"]
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "](<../the%20figures.png>)" in text.read_text(encoding="utf-8")
    assert not Path("unkind.html").exists()
    first = png.read_bytes()
    assert main(["report", str(results.path), "--png", str(png)]) == 0
    assert png.read_bytes() == first


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--html", "unkind.jsonl"], "the results file and --html are the same file"),
        (["--html", "a.md", "--markdown", "a.md"], "are the same file"),
        (["--markdown", "nowhere/a.md"], "the folder nowhere is not there"),
        (["--png", "a.svg"], "--png must be a file ending in .png"),
        (["--html", "."], "is a folder"),
    ],
)
def test_outputs_that_cannot_be_are_refused_before_the_work(tmp_path, capfd, options, says):
    Path("unkind.jsonl").write_text("never read", encoding="utf-8")
    assert main(["report", "unkind.jsonl", *options]) == 2
    assert says in capfd.readouterr().err
    assert Path("unkind.jsonl").read_text(encoding="utf-8") == "never read"


def test_without_matplotlib_the_extra_is_named(results, monkeypatch, capfd, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["report", str(results.path), "--html", str(tmp_path / "r.html")]) == 2
    assert "minboost[plot]" in capfd.readouterr().err
    assert main(["report", str(results.path), "--markdown", str(tmp_path / "r.md")]) == 0


def test_a_file_without_answers_gives_a_page_that_says_so(tmp_path):
    from minboost.comparison.results import ResultsFile

    with ResultsFile(tmp_path / "r.jsonl", HEAD):
        pass
    assert "The results file holds no answers yet." in html_report(
        read_results(tmp_path / "r.jsonl")
    )


def test_no_figure_is_no_sheet(tmp_path, capfd):
    path = write(tmp_path / "r.jsonl", {"plain": ()}, cases=2, controls=0)
    assert main(["report", str(path), "--png", str(tmp_path / "f.png")]) == 0
    assert "there is no figure to draw" in capfd.readouterr().err
    assert not (tmp_path / "f.png").exists()


def test_a_missing_or_foreign_file_is_refused(tmp_path, capfd):
    assert main(["report", "missing.jsonl"]) == 2
    Path("foreign.jsonl").write_text("{}\n", encoding="utf-8")
    assert main(["report", "foreign.jsonl"]) == 2
    err = capfd.readouterr().err
    assert "missing.jsonl cannot be read" in err
    assert "foreign.jsonl is no file of results" in err
    with pytest.raises(InputError):
        read_results(Path("foreign.jsonl"))
