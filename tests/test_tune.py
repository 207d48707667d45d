"""Choosing a strength: the protocol on made-up curves; the command from cases to config.yaml."""

from __future__ import annotations

import json
import math

import pytest
import torch
import yaml

import minboost
from minboost import Boost, Guide, InputError, Latent, Pasta, Spotlight
from minboost.analysis.evaluate import Answered, Evaluation
from minboost.analysis.tuning import (
    Point,
    choose,
    curve,
    default_values,
    ordered,
    tune,
)
from minboost.cli import main
from minboost.directions import Direction, Directions, save_directions
from minboost.suites import Case, load_cases, sample

pytestmark = pytest.mark.usefixtures("clean_settings")

CASES = 20


def evaluation(success, *, fluency=1.0, control=None):
    """An evaluation of 20 cases, and as many controls where there are any, with those shares."""

    def answers(share, *, control):
        case = Case(instruction="a", query="b", answer="c", control=control)
        return [
            Answered(
                case=case,
                text="",
                finish_reason="stop",
                passed=k < round(CASES * share),
                fluent=k < round(CASES * fluency),
            )
            for k in range(CASES)
        ]

    controls = [] if control is None else answers(control, control=True)
    return Evaluation((*answers(success, control=False), *controls))


def run(shares, *, floor=0.95, full_curve=False):
    """Measure the values of {value: evaluation}; the values tried, and the one chosen."""
    points = curve(
        list(shares),
        lambda value: Point(value, shares[value]),
        floor=floor,
        full_curve=full_curve,
    )
    chosen = choose(points, floor)
    return [point.value for point in points], None if chosen is None else chosen.value


def test_the_best_success_before_the_floor_is_chosen():
    shares = {
        1: evaluation(0.2),
        2: evaluation(0.6),
        3: evaluation(0.5, fluency=0.95),
        4: evaluation(0.9, fluency=0.9),
        5: evaluation(1.0),
    }
    assert run(shares) == ([1, 2, 3, 4], 2)


def test_a_full_curve_tries_all_and_chooses_the_same():
    shares = {1: evaluation(0.2), 2: evaluation(0.9, fluency=0.5), 3: evaluation(1.0)}
    assert run(shares, full_curve=True) == ([1, 2, 3], 1)


def test_of_equals_the_weakest_is_chosen():
    assert run({k: evaluation(0.8 if k > 1 else 0.5) for k in range(1, 6)})[1] == 2


def test_broken_control_cases_end_the_search_too():
    shares = {1: evaluation(0.3, control=1.0), 2: evaluation(0.9, control=0.9)}
    assert run(shares) == ([1, 2], 1)
    assert run(shares, floor=0.9) == ([1, 2], 2)
    assert Point(2, shares[2]).below(0.95) == ["control"]
    assert Point(2, evaluation(1, fluency=0.5, control=0.5)).below(0.95) == ["fluency", "control"]


def test_nothing_is_chosen_where_the_first_value_falls_below():
    assert run({1: evaluation(0.9, fluency=0.9), 2: evaluation(1.0)}) == ([1], None)
    assert choose([], 0.95) is None


def test_the_default_grids_are_the_papers_weak_to_strong():
    assert default_values(Boost()) == tuple(range(1, 20, 2))
    assert default_values(Pasta()) == (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
    assert default_values(Pasta(scale_position="include"))[:4] == (2, 5, 10, 20)
    assert default_values(Guide()) == tuple(k / 2 for k in range(1, 11))
    assert default_values(Spotlight()) == tuple(round(0.05 * k, 2) for k in range(1, 13))
    for method in (Boost(), Pasta(), Pasta(scale_position="include"), Guide(), Spotlight()):
        values = default_values(method)
        assert ordered(method, values[::-1]) == values


def test_values_are_ordered_by_their_distance_from_the_plain_model():
    assert ordered(Boost(), [10, 1, 2, 2]) == (1, 2, 10)
    assert ordered(Boost(), [0.1, 0.9, 0.5]) == (0.9, 0.5, 0.1)
    assert ordered(Pasta(), [0.001, 0.3]) == (0.3, 0.001)
    assert ordered(Guide(), [-2, 0, -0.5]) == (0, -0.5, -2)


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        (Boost(), [0.5, 2], "must lie on one side of 1"),
        (Guide(), [-1, 1], "must lie on one side of 0"),
        (Boost(), [], "no value of multiplier"),
        (Boost(), [0], "multiplier must be a finite number above 0"),
        (Spotlight(), [0.5, 1.5], r"target must lie in \(0, 1\), got 1.5"),
        (Guide(), [math.nan], "delta must be a finite number"),
        (Guide(), ["x"], "delta must be a finite number"),
    ],
)
def test_values_that_cannot_be_tried_are_refused(method, values, message):
    with pytest.raises(InputError, match=message):
        ordered(method, values)


def test_a_projection_has_no_strength_to_tune():
    direction = Direction(kind="projection", layer=1, vector=torch.tensor([1.0, 0.0]))
    with pytest.raises(InputError, match="has no strength to tune"):
        ordered(Latent(direction=direction), [0.5])


# On the demo model.


@pytest.fixture(scope="module")
def demo():
    return minboost.load("demo", device="cpu")


@pytest.fixture(scope="module")
def splits():
    return [sample(load_cases("demo", split=split), 16) for split in ("validation", "test")]


def test_tuning_is_its_parts_done_by_hand(demo, splits):
    from minboost.analysis.evaluate import evaluate

    validation, test = splits
    counts: list[int] = []
    found = tune(demo, validation, test, Boost(), values=[5, 1], progress=counts.append)
    assert [point.value for point in found.points] == [1, 5]
    assert found.plain == found.points[0].evaluation == evaluate(demo, validation, None)
    assert found.points[1].evaluation == evaluate(demo, validation, Boost(5.0))
    assert found.chosen == found.points[1]
    assert found.best_method == Boost(5.0)
    assert found.test == evaluate(demo, test, Boost(5.0))
    assert found.test_plain == evaluate(demo, test, None)
    assert sum(counts) == 4 * 16  # m = 1 is the plain model: it is not asked twice


def test_the_test_split_is_left_alone_where_nothing_passes(demo, splits):
    validation, test = splits
    counts: list[int] = []
    found = tune(
        demo, validation, test, Boost(), values=[1e5, 2e5], floor=1, progress=counts.append
    )
    assert found.chosen is found.best_method is found.test is found.test_plain is None
    assert found.skipped == (2e5,)
    assert found.failed == found.points[0]
    assert sum(counts) == 2 * 16


def test_the_plain_arm_of_a_guide_reads_its_tags(demo):
    case = Case(
        instruction="<!!!->Answer in French.<-!!!>", query="What colour is the sky?", answer="Bleu."
    )
    found = tune(demo, [case], [case], Guide(), values=[1.0])
    assert found.plain.success == 1
    assert Guide(2.0, span="prefix").plain() == Guide(0.0, span="prefix")
    assert Boost().plain() is None


@pytest.mark.parametrize("which", [0, 1])
def test_splits_with_nothing_to_succeed_in_are_refused(demo, splits, which):
    for left, said in (
        ([], "has 0 cases:"),
        ([splits[0][-1]], "has 1 cases, all of them controls"),
    ):
        assert all(case.control for case in left)
        given = list(splits)
        given[which] = left
        with pytest.raises(InputError, match=f"{('validation', 'test')[which]} split {said}"):
            tune(demo, *given, Boost())


def test_a_floor_outside_of_its_range_is_refused(demo, splits):
    with pytest.raises(InputError, match=r"floor must lie in \[0, 1\], got 1.5"):
        tune(demo, *splits, Boost(), floor=1.5)


# The command.

FEW = ["--limit", "12", "--device", "cpu"]


def tuned(capfd, *args):
    code = main(["tune", *FEW, *args])
    out, err = capfd.readouterr()
    return code, out, err


def test_the_command_prints_curve_choice_test_and_config(capfd):
    code, out, err = tuned(capfd, "--values", "1,4")
    assert code == 0
    lines = out.splitlines()
    assert (
        lines[0] == "multiplier of instaboost, on 12 validation cases of demo, 3 of them controls"
    )
    assert [line.split()[0] for line in lines[2:5]] == ["plain", "multiplier", "multiplier"]
    assert "█" in lines[4]
    assert "chosen: multiplier 4, with the best success" in out
    assert "on 12 test cases, once, with 95 % intervals" in out
    block = yaml.safe_load(out[out.index("# multiplier chosen by") :])
    assert block == {"method": "instaboost", "instaboost": {"multiplier": 4.0}}
    assert "demo on cpu, float32, torch" in err
    assert "note: the strongest value that was tried, 4, is the best" in err


def test_json_holds_the_curve_case_by_case_and_nothing_else_is_on_stdout(capfd):
    code, out, err = tuned(capfd, "--values", "1,4,1000,2000", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["cases"] == {"validation": 12, "test": 12}
    assert (found["method"], found["parameter"], found["floor"]) == (
        "instaboost",
        "multiplier",
        0.95,
    )
    assert [point["value"] for point in found["points"]] == [1, 4, 1000]
    assert "fluency" in found["points"][2]["below_floor"]
    assert sum(found["points"][2]["faults"].values()) > 0
    assert found["not_tried"] == [2000]
    assert found["chosen"] == 4
    for side in (found["plain"], *found["points"], found["test"]["plain"], found["test"]["chosen"]):
        assert len(side["passed"]) == len(side["fluent"]) == 12
        assert side["success_interval"][0] <= side["success"] <= side["success_interval"][1]
    difference = found["test"]["only_chosen"] - found["test"]["only_plain"]
    sides = [found["test"][side]["success"] for side in ("chosen", "plain")]
    assert difference == round(9 * (sides[0] - sides[1]))
    assert yaml.safe_load(found["config"])["instaboost"] == {"multiplier": 4}
    assert "multiplier 1000" in err  # the curve, while it grows


def test_a_full_curve_on_the_command_line_goes_on_past_the_floor(capfd):
    _, out, _ = tuned(capfd, "--values", "4,1000,2000", "--json", "--full-curve")
    found = json.loads(out)
    assert [point["value"] for point in found["points"]] == [4, 1000, 2000]
    assert (found["chosen"], found["not_tried"]) == (4, [])


def test_no_value_above_the_floor_is_an_error_without_a_config(capfd, tmp_path):
    out_file = tmp_path / "tuned.yaml"
    code, out, err = tuned(capfd, "--values", "1000,2000", "--out", str(out_file))
    assert code == 2
    assert "multiplier 1000" in out
    assert "method:" not in out
    assert "error: no value passed the floor of 0.95: at the weakest, multiplier 1000" in err
    assert "plain: fluency 1.000, control 1.000" in err
    assert not out_file.exists()
    code, out, _ = tuned(capfd, "--values", "1000", "--json")
    assert code == 2
    assert json.loads(out)["chosen"] is json.loads(out)["config"] is json.loads(out)["test"] is None


def read_back(path, monkeypatch):
    """The method that ``python -m minboost.generate --config`` arrives at."""
    from minboost import generate

    seen = []
    keep = lambda options: seen.append((generate.method_of(options), options)) or 0  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(generate, "run", keep)
        arguments = ["--config", str(path), "--instruction", "Be brief.", "--query", "Why?"]
        assert generate.main(arguments) == 0
    return seen[0]


HEADS = '{"0": [0, 2], "2": [1]}'
ROUND_TRIPS = {
    "instaboost": ([], "3", Boost(3.0)),
    "layers and heads": (
        ["--layers", "0-1,3", "--heads", HEADS],
        "3",
        Boost(3.0, layers="0-1,3", heads={0: (0, 2), 2: (1,)}),
    ),
    "a share of heads": (
        ["--heads", "0.5", "--seed", "7"],
        "3",
        Boost(3.0, heads=0.5, head_seed=7),
    ),
    "middle layers": (
        ["--layers", "middle", "--start-layer", "1", "--num-middle-layers", "2"],
        "3",
        Boost(3.0, layers="middle", start_layer=1, num_middle_layers=2),
    ),
    "prefix": (["--span", "prefix"], "3", Boost(3.0, span="prefix")),
    "pasta": (
        ["--method", "pasta", "--scale-position", "include"],
        "2.5",
        Pasta(2.5, scale_position="include"),
    ),
    "pasta on heads": (
        ["--method", "pasta", "--heads", HEADS],
        "1e-05",
        Pasta(1e-5, heads={0: (0, 2), 2: (1,)}),
    ),
    "guide": (["--method", "guide"], "0.5", Guide(0.5)),
    "spotlight": (
        ["--method", "spotlight", "--form", "published", "--layers", "0"],
        "0.2",
        Spotlight(0.2, form="published", layers="0"),
    ),
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_generate_reads_the_config_as_the_method_that_was_tuned(name, tmp_path, capfd, monkeypatch):
    args, value, wanted = ROUND_TRIPS[name]
    path = tmp_path / "tuned.yaml"
    code, out, err = tuned(
        capfd, *args, "--values", value, "--limit", "2", "--fluency-floor", "0", "--out", str(path)
    )
    assert code == 0
    assert "method:" not in out
    assert f"wrote {path}" in err
    assert [file.name for file in tmp_path.iterdir()] == ["tuned.yaml"]
    assert read_back(path, monkeypatch)[0] == wanted


def test_a_latent_method_keeps_its_direction(demo, tmp_path, capfd, monkeypatch):
    size = demo.config.hidden_size
    direction = Direction(kind="diffmean", layer=2, vector=torch.ones(size) / size**0.5)
    path = tmp_path / "found.safetensors"
    save_directions(path, Directions(found=(direction,), model="demo", seed=42, prompts=(1, 1)))
    code, *_ = tuned(
        capfd, "--method", "latent", "--directions", str(path), "--layers", "1-2",
        "--values", "0.1", "--limit", "2", "--fluency-floor", "0", "--out", "tuned.yaml",
    )  # fmt: skip
    assert code == 0
    found, _ = read_back("tuned.yaml", monkeypatch)
    assert (found.factor, found.layers, found.direction.name) == (0.1, "1-2", direction.name)
    assert found.direction.vector.equal(direction.vector)


def test_texts_and_roles_and_models_survive_the_config(checkpoint, tmp_path, capfd, monkeypatch):
    folder = str(checkpoint("llama")[0])
    span = "Straße: – 'no' \"yes\" #1"
    rows = [
        {"instruction": f"Say {span} now.", "query": "Why?", "answer": "x", "split": split}
        for split in ("validation", "test")
    ]
    (tmp_path / "cases.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code = main(
        ["tune", "--tasks", "cases.jsonl", "--model", folder, "--device", "cpu", "--role", "raw",
         "--span", span, "--values", "2", "--fluency-floor", "0", "--max-new-tokens", "3",
         "--out", "tuned.yaml"]
    )  # fmt: skip
    _, err = capfd.readouterr()
    assert code == 0
    assert "1 of the 1 plain answers were cut off at 3 tokens: raise --max-new-tokens" in err
    assert "the plain model does as well on the validation cases, 0.000" in err
    method, options = read_back("tuned.yaml", monkeypatch)
    assert method == Boost(2.0, span=span)
    assert (options["model"], options["role"]) == (folder, "raw")


def test_the_tuned_config_generates(tmp_path, capfd):
    from minboost import generate

    assert tuned(capfd, "--values", "6", "--out", "tuned.yaml")[0] == 0
    asked = ["--instruction", "Answer in French.", "--query", "What colour is the sky?"]
    assert generate.main(["--config", "tuned.yaml", *asked]) == 0
    out, err = capfd.readouterr()
    assert out == "Bleu.\n"
    assert "x 6 on 4 layers, 16 heads" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--multiplier", "3"], "--multiplier is what is tuned: name the values with --values"),
        (["--method", "pasta", "--alpha", "3"], "--alpha is what is tuned"),
        (["--method", "pasta", "--delta", "3"], "--delta belongs to --method guide"),
        (["--values", "1,two"], "--values must be numbers with commas, got '1,two'"),
        (["--values", ""], "--values must be numbers with commas, got ''"),
        (["--values", "0.5,2"], "must lie on one side of 1"),
        (["--fluency-floor", "1.5"], "1.5 is not in the range 0<=x<=1"),
        (["--limit", "0"], "the limit must be at least 1 case, got 0"),
        (["--batch-size", "0"], "batch must be an integer of at least 1, got 0"),
        (["--tasks", "none.jsonl"], "the suite none.jsonl cannot be read"),
        (["--tasks", "empty.jsonl"], "the suite empty.jsonl holds no case"),
        (["--out", "no/where.yaml"], "the folder no is not there"),
        (["--out", "."], "--out . is a folder; name a file"),
        (["--layers", "9"], "layer 9 does not exist"),
        (["--method", "latent"], "--method latent needs --directions"),
    ],
)
def test_mistakes_are_named_and_exit_with_two(args, message, tmp_path, capfd):
    (tmp_path / "empty.jsonl").write_text("")
    code, out, err = tuned(capfd, *args)
    assert code == 2
    assert message in err
    assert "Traceback" not in out + err


def test_a_terminal_without_block_characters_gets_plain_ones(capfd, monkeypatch):
    import io
    import sys

    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["tune", *FEW, "--limit", "3", "--values", "4"]) == 0
    stream.flush()
    text = stream.buffer.getvalue().decode("ascii")
    assert "####" in text
    assert "method: instaboost" in text
