"""The report in a browser: its script runs, draws the cases, filters them, and asks for nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlencode

import pytest

from minboost.comparison.results import read_results
from minboost.comparison.summary import summarise
from minboost.report import html_report
from minboost.report.formats import visible
from minboost.report.words import GONE, NEW, differing

from .results_files import ARMS, EVIL, UNKIND, instaboost, unkind, write

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on the path")
BEST = "instaboost multiplier=5"


class Dom(HTMLParser):
    """The drawn cases of a page as it stands after its script ran."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.cases, self.count, self.title, self.open, self.tables = [], "", "", [], 0
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        kind = attributes.get("class") or ""
        self.tables += tag == "table"
        if tag == "article" and kind == "case":
            self.cases.append({"name": "", "columns": []})
        if tag == "section" and kind.startswith("answer"):
            column = {"arm": "", "text": "", "del": [], "ins": [], "badges": [], "why": []}
            self.cases[-1]["columns"].append(column)
        for mark in ("del", "ins"):
            if tag == mark:
                self.cases[-1]["columns"][-1][mark].append("")
        if tag == "span" and "badge" in kind and self.cases and self.cases[-1]["columns"]:
            self.cases[-1]["columns"][-1]["badges"].append("")
        if tag not in ("meta", "input", "line", "circle", "path", "use"):
            self.open.append((tag, kind, attributes.get("id")))

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        tag, kind, name = self.open[-1] if self.open else ("", "", "")
        if name == "count":
            self.count += data
        if tag == "title":
            self.title += data
        if not self.cases:
            return
        case = self.cases[-1]
        if tag == "h3":
            case["name"] += data
        if not case["columns"]:
            return
        column = case["columns"][-1]
        if tag == "h4":
            column["arm"] += data
        if any(kind == "text" for _, kind, _ in self.open):
            column["text"] += data
        if tag in ("del", "ins"):
            column[tag][-1] += data
        if "badge" in kind and column["badges"]:
            column["badges"][-1] += data
        if kind == "why":
            column["why"].append(data)


@pytest.fixture(scope="module")
def server():
    """A server of which the unkind texts ask for things, and what it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield http.server_address[1], asked
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture(scope="module")
def results(tmp_path_factory, server):
    address = f"http://127.0.0.1:{server[0]}/evil"

    def change(one):
        changed = unkind(one)
        return {
            k: v.replace(EVIL, address) if isinstance(v, str) else v for k, v in changed.items()
        }

    return read_results(write(tmp_path_factory.mktemp("browser") / "r.jsonl", change=change))


@pytest.fixture(scope="module")
def browse(results, tmp_path_factory):
    """browse(filters, page) → the DOM; of the results, or of the HTML ``page``."""
    folder = tmp_path_factory.mktemp("chromium")
    whole = html_report(results)

    def get(filters=(), page=None):
        path = folder / "page.html"
        path.write_text(page or whole, encoding="utf-8")
        address = path.as_uri() + ("#" + urlencode(filters) if filters else "")
        assert CHROMIUM is not None
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
                   "--disable-background-networking", f"--user-data-dir={folder / 'profile'}",
                   address]  # fmt: skip
        done = subprocess.run(command, capture_output=True, timeout=60, check=True)
        return Dom(done.stdout.decode())

    return get


def test_the_first_cases_are_drawn_with_the_best_arm_beside_plain(browse, results, server):
    dom = browse()
    assert dom.count == "36 cases of 36, the first 20 shown"
    assert len(dom.cases) == 20
    assert dom.tables >= 4
    for case in dom.cases:
        assert [column["arm"] for column in case["columns"]] == [
            "plain", BEST,
        ]  # fmt: skip
    assert dom.title == "How steering changes the answers of tiny"  # no answer's script ran
    assert server[1] == []  # and nothing was asked for


def test_words_are_marked_as_difflib_marks_them(browse, results):
    dom = browse({"split": "test", "arm": BEST})
    texts = {(r.arm, r.case): visible(r.text) for r in results.answers}
    seen = set()
    for case in dom.cases:
        name = case["name"][: len("case-000")]
        plain, steered = (texts[arm, name] for arm in ("plain", BEST))
        if len(steered) > 1500:
            continue
        parts = differing(plain, steered)
        seen.add(plain)
        left, right = case["columns"]
        assert left["del"] == [part.before for part in parts if part.kind == GONE]
        assert right["ins"] == [part.after for part in parts if part.kind == NEW]
        assert (left["text"], right["text"]) == (plain, steered)
    assert len(seen) >= len(UNKIND) - 2


PAIRS = (
    ("The sky is blue, and so is the sea.", "The sea is blue; and the sky, too: blue."),
    ("a b c a b c a b d", "b c a b d a b c a"),
    ("天空是蓝色的。", "海是蓝色的!"),
    ('{"colour": "blue",\n "n": 1}', '{ "colour":"red", "n": 12 }'),
    ("\U0001f600 ok don't  stop", "ok\tdon't \U0001f469\u200d\U0001f680 stop now"),
    ("", "something"),
    ("naïve_case x", "naïve_case y z"),
)


@pytest.mark.slow
def test_words_are_marked_as_difflib_marks_them_where_much_differs(browse, tmp_path):
    path = write(
        tmp_path / "r.jsonl",
        {"plain": (), "a": (instaboost(),)},
        cases=len(PAIRS),
        controls=0,
        splits=("test",),
        change=lambda one: {"text": PAIRS[int(one.case[-2:])][one.arm == "a"]},
    )
    dom = browse(page=html_report(read_results(path)))
    for case, (plain, steered) in zip(dom.cases, PAIRS, strict=True):
        parts = differing(plain, steered)
        left, right = case["columns"]
        assert left["del"] == [part.before for part in parts if part.kind == GONE]
        assert right["ins"] == [part.after for part in parts if part.kind == NEW]


@pytest.mark.slow
@pytest.mark.parametrize("outcome", ["gained", "lost"])
@pytest.mark.parametrize("arm", ["instaboost multiplier=2", "one 1.1", "broken <b>&</b>"])
def test_a_number_of_the_summary_is_the_number_of_cases_behind_it(browse, results, arm, outcome):
    versus = summarise(results).group("unkind", "test").arm(arm).versus
    filters = {"suite": "unkind", "split": "test", "arm": arm, "control": "no", "outcome": outcome}
    dom = browse(filters)
    wanted = getattr(versus, outcome)
    assert len(dom.cases) == wanted
    assert dom.count == (
        f"{wanted} case{'s' * (wanted != 1)} of 36" if wanted else "No case matches."
    )
    assert all(outcome in case["columns"][1]["badges"] for case in dom.cases)


@pytest.mark.slow
def test_filters_are_taken_together(browse):
    dom = browse([
        ("split", "validation"), ("task", "json & <more>"), ("outcome", "pass"), ("control", "yes"),
        ("q", "TICKED"), ("arm", "layer 0"), ("arm", "broken <b>&</b>"),
    ])  # fmt: skip
    assert dom.count == "No case matches."  # the ticked one has an even number
    dom = browse([
        ("split", "validation"), ("task", "language"), ("outcome", "fail"), ("q", "TICKED"),
        ("arm", "layer 1"), ("arm", "broken <b>&</b>"),
    ])  # fmt: skip
    assert dom.count == "No case matches."  # plain passes the first three
    dom = browse([
        ("split", "validation"), ("task", "language"), ("outcome", "lost"), ("q", "TICKED"),
        ("arm", "layer 1"), ("arm", "broken <b>&</b>"),
    ])  # fmt: skip
    (case,) = dom.cases
    assert [column["arm"] for column in case["columns"]] == [
        "plain",
        "layer 1",
        "broken <b>&</b>",
    ]
    assert case["columns"][2]["badges"] == ["lost", "✗ fails", "cut off", "surprising"]
    assert case["columns"][2]["why"][0].startswith("not ")


@pytest.mark.slow
def test_any_two_arms_stand_side_by_side(browse):
    dom = browse(
        {"with": BEST, "arm": "one 1.1", "outcome": "lost", "control": "no", "split": "test"}
    )
    assert len(dom.cases) == 10
    assert [c["arm"] for c in dom.cases[0]["columns"]] == [BEST, "one 1.1"]


@pytest.mark.slow
def test_runs_that_are_alike_are_shown_once(browse, tmp_path):
    path = write(
        tmp_path / "r.jsonl",
        {"plain": (), "a": (instaboost(),)},
        cases=4,
        controls=0,
        splits=("test",),
        runs=3,
        passes=lambda arm, number, run: arm == "a" and run <= number,
    )
    page = html_report(read_results(path))
    dom = browse(page=page)
    verdicts = [[b for b in case["columns"][1]["badges"] if b[0] in "✓✗"] for case in dom.cases]
    assert verdicts == [["✗ fails"], ["✓ passes", "✗ fails"], ["✓ passes", "✗ fails"], ["✓ passes"]]
    assert len(browse({"outcome": "gained"}, page).cases) == 3
    assert len(browse({"outcome": "mixed"}, page).cases) == 0


def test_without_javascript_the_tables_stand_there(results):
    html = html_report(results)
    body = html.split("<script")[0]
    assert all(json.dumps(arm)[1:-1] in body for arm in ARMS if "<" not in arm)
    assert "To show and to filter the 36 cases takes JavaScript" in body
