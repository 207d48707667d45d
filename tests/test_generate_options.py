"""The command line's promises: every option arrives, and every failure ends as it should."""

from __future__ import annotations

import inspect
import json

import pytest
import torch

import minboost
from minboost import generate, loading
from minboost.run import Run

from .test_generate import ASK, SHORT

pytestmark = pytest.mark.usefixtures("clean_settings")

TEXTS = {"instruction": ASK[1], "query": ASK[3]}
# Option, value, and what the model is asked for; every value differs from the default.
REQUEST = {
    "max_new_tokens": (["--max-new-tokens", "3"], 3),
    "temperature": (["--temperature", "0.5"], 0.5),
    "top_p": (["--top-p", "0.9"], 0.9),
    "top_k": (["--top-k", "4"], 4),
    "min_p": (["--min-p", "0.01"], 0.01),
    "repetition_penalty": (["--repetition-penalty", "1.1"], 1.1),
    "stop": (["--stop", "zq", "--stop", "qz"], ("zq", "qz")),
    "seed": (["--seed", "9"], 9),
    "role": (["--role", "user"], "user"),
}
LOAD = {
    "device": (["--device", "cpu"], "cpu"),
    "dtype": (["--dtype", "bfloat16"], "bfloat16"),
    "revision": (["--revision", "r"], "r"),
    "impl": (["--impl", "reference"], "reference"),
    "graph": (["--no-graph"], False),
    "quantize": (["--quantize", "int8"], "int8"),
    "compile": (["--compile"], True),
    "calibrate": (["--no-calibrate"], False),
}
BOOST = {
    "multiplier": (["--multiplier", "3"], 3.0),
    "layers": (["--layers", "1-2"], "1-2"),
    "heads": (["--heads", "0.5"], 0.5),
    "span": (["--span", "prefix"], "prefix"),
    "start_layer": (["--start-layer", "1"], 1),
    "num_middle_layers": (["--num-middle-layers", "2"], 2),
}


@pytest.fixture
def model(checkpoint):
    return ["--model", str(checkpoint("llama")[0]), "--device", "cpu"]


@pytest.fixture
def calls(checkpoint, monkeypatch):
    """What minboost.load and lm.stream were called with, as two lists."""
    lm = minboost.load(str(checkpoint("llama")[0]), device="cpu")
    loads, asks, real = [], [], lm.stream

    def load(name, **options):
        loads.append((name, options))
        return lm

    def stream(**options):
        asks.append(options)
        return real(**options)

    monkeypatch.setattr(loading, "load", load)
    monkeypatch.setattr(lm, "stream", stream)
    return loads, asks


def words(*tables):
    return [word for table in tables for words, _ in table.values() for word in words]


def values(table):
    return {name: value for name, (_, value) in table.items()}


def test_every_option_reaches_the_model_and_the_request(calls, capfd):
    loads, asks = calls
    args = [*ASK, "--model", "x/y", *words(REQUEST, LOAD, BOOST), "--json", "--compare"]
    assert generate.main(args) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["revision"] == "r"
    assert result["model"] == "x/y"
    assert result["seed"] == 9
    ((name, options),) = loads
    assert name == "x/y"
    assert options.pop("progress") in (True, False)
    assert options == values(LOAD)
    request = TEXTS | values(REQUEST)
    boost = minboost.Boost(**values(BOOST), head_seed=9)
    boosted, plain = asks
    assert boosted == {**request, "boost": boost, "measure_mass": True}
    assert plain == {**request, "boost": None}


def test_no_parameter_of_load_or_stream_is_without_an_option():
    """So that one that is added reaches the command line, or is left out here by name."""
    load = set(inspect.signature(loading.load).parameters)
    assert load - {"name", "progress"} == set(LOAD)
    stream = set(inspect.signature(minboost.LM.stream).parameters)
    assert stream - {"self", "boost", "measure_mass"} == set(TEXTS) | set(REQUEST)
    boost = set(inspect.signature(minboost.Boost).parameters)
    assert boost - {"head_seed"} == set(BOOST)


def test_mass_is_measured_for_json_only(calls, capfd):
    _, asks = calls
    assert generate.main([*ASK, *SHORT]) == 0
    assert generate.main([*ASK, *SHORT, "--json"]) == 0
    assert [ask["measure_mass"] for ask in asks] == [False, True]


def test_the_toy_note_is_for_the_demo_outside_its_world(model, capfd):
    assert generate.main([*ASK, *SHORT, "--device", "cpu"]) == 0
    assert "toy" not in capfd.readouterr().err
    foreign = ["--instruction", "Write Rust.", "--query", "Who won in 1998?", *SHORT]
    assert generate.main([*foreign, "--device", "cpu"]) == 0
    assert "the demo model is a toy" in capfd.readouterr().err
    assert generate.main([*foreign, *model]) == 0
    assert "toy" not in capfd.readouterr().err


def test_ctrl_c_in_the_plain_answer_ends_the_comparison(monkeypatch, model, capfd):
    real, steps = Run.step, []

    def step(self):
        steps.append(self)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(Run, "step", step)
    assert generate.main([*model, *ASK, *SHORT, "--compare"]) == 130
    out = capfd.readouterr().out
    assert "plain (m = 1)" in out
    assert "boosted (m" not in out


def test_the_baseline_of_the_json_is_the_plain_answer(model, capfd):
    assert generate.main([*model, *ASK, *SHORT, "--json", "--compare"]) == 0
    both = json.loads(capfd.readouterr().out)
    assert generate.main([*model, *ASK, *SHORT, "--json", "--multiplier", "1"]) == 0
    plain = json.loads(capfd.readouterr().out)
    assert both["baseline"]["text"] == plain["text"]
    assert both["text"] != plain["text"]


def test_the_json_writes_letters_of_every_language_as_they_are(model, capfd):
    args = ["--instruction", "é", "--query", "ü", *SHORT, "--json"]
    assert generate.main([*model, *args]) == 0
    assert '"instruction": "é"' in capfd.readouterr().out


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("not enough memory: x"),
        RuntimeError("can't allocate memory: x"),
    ],
    ids=str,
)
def test_every_form_of_out_of_memory_ends_with_4(monkeypatch, error, capfd):
    def run(options):
        raise error

    monkeypatch.setattr(generate, "run", run)
    assert generate.main(ASK) == 4
    assert "out of memory" in capfd.readouterr().err


def test_an_unexpected_error_is_not_swallowed(monkeypatch):
    def run(options):
        raise RuntimeError("a bug")

    monkeypatch.setattr(generate, "run", run)
    with pytest.raises(RuntimeError, match="a bug"):
        generate.main(ASK)
