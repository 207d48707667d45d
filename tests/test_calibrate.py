"""The forms of a product, and the choice among them that is measured once and kept."""

from __future__ import annotations

import itertools
import json

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from minboost import InputError
from minboost.cpu import calibrate, machine
from minboost.cpu.calibrate import choose
from minboost.cpu.forms import forms, linear, mv
from minboost.cpu.inductor import Inductor


@settings(deadline=None, max_examples=60)
@given(
    N=st.integers(1, 70),
    K=st.integers(1, 70),
    threads=st.integers(1, 4),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 99),
)
def test_every_form_is_the_product_to_a_rounding(N, K, threads, dtype, seed):
    g = torch.Generator().manual_seed(seed)
    weight, x = (torch.randn(*shape, generator=g).to(dtype) for shape in ((N, K), (K,)))
    want = weight.double() @ x.double()
    # Sums of K products may be formed in the dtype itself: an eps for each of them.
    bound = torch.finfo(dtype).eps * (weight.double().abs() @ x.double().abs() + 1) * (K**0.5 + 1)
    for name, form in forms(N, threads).items():
        out = torch.full((N,), torch.nan, dtype=dtype)
        got = form(weight, x, out)
        assert got.data_ptr() == out.data_ptr(), name
        assert got.shape == (N,), name
        assert ((got.double() - want).abs() <= bound).all(), name
    streams = Inductor().product({"w": weight}, "w", x)
    assert ((streams.double() - want).abs() <= bound).all()


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """An empty cache folder, every model large enough; the matrices of a model."""
    monkeypatch.setenv("MINBOOST_CACHE", str(tmp_path))
    monkeypatch.setattr(calibrate, "SMALL", 0)
    return {"qkv": [torch.randn(12, 8) for _ in range(3)], "head": [torch.randn(20, 8)]}


@pytest.fixture
def measurements(monkeypatch):
    """Which kinds of matrices are measured; of the forms, "linear" comes out fastest."""
    seen = []

    def measured(matrices, candidates):
        seen.append(list(matrices))
        return {
            kind: {name: 2.0 if name == "linear" else 1.0 for name in of}
            for kind, of in candidates.items()
        }

    monkeypatch.setattr(calibrate, "measured", measured)
    return seen


def test_what_was_measured_is_said_once_and_kept(kept, measurements, capfd):
    assert set(choose(kept).values()) == {linear}
    assert measurements == [["qkv", "head"]]
    assert "measuring products of this model (qkv, head)" in capfd.readouterr().err
    assert set(choose(kept).values()) == {linear}
    assert len(measurements) == 1
    assert capfd.readouterr().err == ""
    path = machine.cache_folder() / "calibration.json"
    before = json.loads(path.read_text())
    kept["o"] = [torch.randn(8, 8)]
    choose(kept)
    assert len(measurements) == 2
    assert "measuring products of this model (o)" in capfd.readouterr().err
    after = json.loads(path.read_text())
    assert before.items() < after.items()  # what is new is added, what is known stays
    assert len(after) == 3


def test_another_thread_count_is_measured_anew(kept, measurements, monkeypatch):
    choose(kept)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    choose(kept)
    assert len(measurements) == 2


@pytest.mark.parametrize("without", ["measure", "size", "int8"])
def test_nothing_is_measured_where_it_does_not_matter(kept, measurements, monkeypatch, without):
    if without == "size":
        monkeypatch.setattr(calibrate, "SMALL", 1 << 20)
    if without == "int8":
        kept = {name: [m.to(torch.int8) for m in kind] for name, kind in kept.items()}
    chosen = choose(kept, measure=without != "measure")
    assert set(chosen.values()) == {mv}
    assert measurements == []
    assert not (machine.cache_folder() / "calibration.json").exists()


@pytest.mark.parametrize(("amx", "form"), [(True, mv), (False, linear)])
def test_unmeasured_bfloat16_takes_the_form_that_suits_the_instructions(
    kept, measurements, monkeypatch, amx, form
):
    monkeypatch.setattr("minboost.cpu.forms.has_amx", lambda: amx)
    kept = {name: [m.bfloat16() for m in kind] for name, kind in kept.items()}
    assert set(choose(kept, measure=False).values()) == {form}


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"x": 1}', "\ud800", "[" * 100_000], ids=lambda text: text[:8]
)
def test_a_damaged_file_is_measured_over(kept, measurements, content):
    path = machine.cache_folder() / "calibration.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    choose(kept)
    assert len(measurements) == 1
    assert len(json.loads(path.read_text())) >= 2


def test_a_form_that_no_longer_exists_is_measured_again(kept, measurements):
    choose(kept)
    path = machine.cache_folder() / "calibration.json"
    for other in ('"gone"', "[]", "{}", "null"):
        seen = len(measurements)
        path.write_text(path.read_text().replace('"best": "linear"', f'"best": {other}'))
        choose(kept)
        assert len(measurements) == seen + 1


def test_a_folder_that_cannot_be_written_is_said_and_no_error(
    kept, measurements, monkeypatch, capfd
):
    file = machine.cache_folder() / "a file"
    file.write_text("")
    monkeypatch.setenv("MINBOOST_CACHE", str(file / "below"))
    assert set(choose(kept).values()) == {linear}
    assert "could not be kept" in capfd.readouterr().err


def test_a_measurement_names_every_form_of_every_kind_and_its_speed(kept):
    candidates = {"qkv": forms(12, 2), "head": forms(20, 2)}
    speeds = calibrate.measured(kept, candidates)
    assert {kind: set(of) for kind, of in speeds.items()} == {
        "qkv": {"linear", "mv", "bmm2"},
        "head": {"linear", "mv", "bmm2"},
    }
    assert all(speed > 0 for of in speeds.values() for speed in of.values())


def test_a_form_is_measured_on_the_layers_in_the_order_of_a_step(kept, monkeypatch):
    """Alone, a kind's matrices may lie in a cache that all of a model's together do not fit."""
    kept["o"] = [torch.randn(8, 8) for _ in range(3)]
    read = []

    def form(weight, x, out):
        read.append(weight.data_ptr())

    calibrate.measured(kept, {kind: {"mv": form} for kind in kept})
    order = [kept["qkv"][0], kept["head"][0], kept["o"][0],
             kept["qkv"][1], kept["o"][1], kept["qkv"][2], kept["o"][2]]  # fmt: skip
    assert read == [weight.data_ptr() for weight in order] * (1 + calibrate.ROUNDS)
    monkeypatch.setattr(calibrate, "SAMPLE", kept["qkv"][0].nbytes)
    read.clear()
    calibrate.measured(kept, {kind: {"mv": form} for kind in kept})
    assert read == [weight.data_ptr() for weight in order[:3]] * (1 + calibrate.ROUNDS)


def test_a_form_is_timed_with_all_that_a_step_does_for_its_product(kept, monkeypatch):
    """Forms differ in that: ``mv`` adds the residual stream by itself."""
    kept["o"] = [torch.randn(8, 8)]
    added = set()

    class Timed(calibrate.Eager):
        def product(self, weights, name, x, plus=None):
            y = super().product(weights, name, x, plus)
            added.add((name, plus is not None))
            torch.testing.assert_close(y, weights[name] @ x)
            return y

    monkeypatch.setattr(calibrate, "Eager", Timed)
    calibrate.measured(kept, {kind: forms(4, 2) for kind in kept})
    assert added == {("qkv", False), ("o", True), ("head", False)}


def test_slow_rounds_do_not_count(kept, monkeypatch):
    """Of what slows a round down, nothing says how fast a form is: here four of five are slow."""
    reads, clock = itertools.count(), [0]

    def perf_counter():  # called before a product and after it
        number, after = divmod(next(reads), 2)
        clock[0] += 1 if not after else 10 if number % 5 == 0 else 1000
        return clock[0] * 1e-9

    monkeypatch.setattr(calibrate.time, "perf_counter", perf_counter)
    one = {"qkv": [torch.randn(12, 8)]}
    speeds = calibrate.measured(one, {"qkv": {"linear": linear, "mv": mv}})["qkv"]
    assert speeds["linear"] == speeds["mv"] == pytest.approx(12 * 8 * 4 / 10, abs=0.01)


def test_noise_does_not_decide_between_forms():
    speeds = {"linear": 10.3, "mv": 10.0, "bmm2": 10.4}
    assert calibrate.best_form(speeds, "mv") == "mv"
    assert calibrate.best_form(speeds | {"bmm2": 11.1}, "mv") == "bmm2"


def test_the_cache_lies_where_the_system_or_the_user_wants_it(tmp_path, monkeypatch):
    monkeypatch.delenv("MINBOOST_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert machine.cache_folder() == tmp_path / "x" / "minboost"
    monkeypatch.setenv("MINBOOST_CACHE", str(tmp_path / "y"))
    assert machine.cache_folder() == tmp_path / "y"
    monkeypatch.setenv("MINBOOST_CACHE", "y")
    with pytest.raises(InputError, match="must be an absolute path, got 'y'"):
        machine.cache_folder()


def test_without_a_home_there_is_a_folder_for_the_process(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("MINBOOST_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # is not taken
    monkeypatch.setattr(machine.Path, "home", no_home)
    folder = machine.cache_folder()
    assert folder.is_dir()
    assert folder == machine.cache_folder()
