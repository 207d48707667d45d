"""The launch table: complete for every GPU, known or not, and consistent in itself."""

from __future__ import annotations

import functools
import importlib
import itertools
import json
from types import SimpleNamespace

import pytest
import torch
from minboost.kernels import launch

KNOWN = ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "gfx942"]
UNKNOWN = ["sm_75", "sm_87", "sm_103", "sm_120"]
OTHER_AMD = ["gfx90a", "gfx950", "gfx1100"]


@pytest.fixture
def module(request, monkeypatch):
    """module(name) → that module of benchmarks/, imported as the scripts import each other."""
    monkeypatch.syspath_prepend(request.config.rootpath / "benchmarks")
    return importlib.import_module


@pytest.fixture
def gpu(monkeypatch):
    """gpu(…) → a CUDA device with those properties, on a torch for its vendor."""

    def make(**properties):
        hip = "7.0" if "gcnArchName" in properties else None
        monkeypatch.setattr(torch.version, "hip", hip)
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda device: SimpleNamespace(**properties)
        )
        launch.architecture.cache_clear()
        return torch.device("cuda")

    yield make
    launch.architecture.cache_clear()


@pytest.mark.parametrize("arch", [*KNOWN, *UNKNOWN, *OTHER_AMD, "interpreter"])
def test_every_kernel_has_sizes_on_every_gpu(arch, module):
    for example in module("examples").examples():
        sizes = launch.sizes_for(arch, example.kernel, example.shape)
        assert sizes["num_warps"] in (1, 2, 4, 8)
        for name, value in sizes.items():
            if name not in ("pdl", "num_stages", "least", "splits"):
                assert value & (value - 1) == 0, f"{name} {value} is no power of two"


@pytest.mark.parametrize("arch", UNKNOWN)
def test_an_unknown_gpu_gets_the_default(arch):
    major, minor = arch[3:-1], arch[-1]
    assert launch.TABLE.get(f"sm_{major}{minor}") is None
    for kernel, shapes in launch.TABLE["default"].items():
        for shape, sizes in shapes.items():
            assert launch.sizes_for(arch, kernel, shape) == sizes


def test_the_key_is_the_architecture_of_the_device(gpu):
    assert launch.architecture(gpu(major=9, minor=0)) == "sm_90"
    assert launch.architecture(gpu(major=12, minor=0)) == "sm_120"
    assert launch.architecture(gpu(gcnArchName="gfx942:sramecc+:xnack-")) == "gfx942"
    assert launch.architecture(torch.device("cpu")) == "interpreter"


def test_launch_asks_for_the_architecture_of_the_device(gpu):
    want = launch.TABLE["sm_90"]["prefill"]["d128"]
    assert launch.launch("prefill", "d128", gpu(major=9, minor=0)) == want
    want = launch.TABLE["default"]["prefill"]["d128"]
    assert launch.launch("prefill", "d128", gpu(major=8, minor=7)) == want


@pytest.mark.parametrize("arch", OTHER_AMD)
def test_other_amd_gpus_get_the_sizes_of_gfx942(arch):
    for kernel, shapes in launch.TABLE["gfx942"].items():
        for shape, sizes in shapes.items():
            assert launch.sizes_for(arch, kernel, shape) == sizes


def test_what_the_table_does_not_have_is_named():
    with pytest.raises(KeyError, match=r"launch\.json has no entry for prefill d512"):
        launch.sizes_for("sm_90", "prefill", "d512")


@pytest.mark.parametrize(
    ("head_dim", "shape"),
    [(16, "d64"), (64, "d64"), (80, "d128"), (96, "d128"), (128, "d128"), (256, "d256")],
)
def test_a_head_dim_goes_up_to_the_next_class(head_dim, shape):
    assert launch.attention_shape(head_dim, torch.bfloat16) == shape
    assert launch.attention_shape(head_dim, torch.float16) == shape
    assert launch.attention_shape(head_dim, torch.float32) == f"{shape}-fp32"


@pytest.mark.parametrize("arch", [*KNOWN, *UNKNOWN, *OTHER_AMD, "interpreter"])
@pytest.mark.parametrize("shape", ["d64", "d128", "d256"])
def test_a_decode_workspace_suits_every_dtype(arch, shape):
    """Its room is for ``splits`` programs, and it is made before a dtype is known."""
    wide = launch.sizes_for(arch, "decode", f"{shape}-fp32")
    assert launch.sizes_for(arch, "decode", shape)["splits"] == wide["splits"]


def test_every_entry_belongs_to_a_kernel_and_is_compiled_for_a_known_gpu(module):
    known = {(e.kernel, e.shape) for e in module("examples").examples()}
    for arch, kernels in launch.TABLE.items():
        assert arch in (*KNOWN, "default", "interpreter")
        for kernel, shapes in kernels.items():
            assert {(kernel, shape) for shape in shapes} <= known
    limits = module("resources").SHARED
    assert {*KNOWN, *module("resources").DEFAULT} <= set(limits)


def test_tuning_asks_only_for_entries_that_there_are(module):
    tune = module("tune")
    names = [f"{e.kernel}:{e.shape}" for e in module("examples").examples()]
    assert sorted(tune.ORDER) == sorted(set(names))
    for entry in tune.entries(None, "sm_90"):
        assert entry.timed, entry.name
        assert entry.tried[0] == launch.sizes_for("sm_90", entry.kernel, entry.shape)
        assert all(set(sizes) == set(entry.tried[0]) for sizes in entry.tried)
        assert not any(a == b for a, b in itertools.combinations(entry.tried, 2))


def test_a_written_table_reads_as_it_was_and_is_the_committed_file(module):
    tune = module("tune")
    assert tune.formatted(launch.TABLE) == tune.TABLE.read_text()


def test_tuning_without_a_gpu_says_so(module, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert module("tune").main([]) == 2
    err = capsys.readouterr().err
    assert err == "benchmarks/tune.py needs a CUDA GPU; --dry-run does without\n"


def test_a_rehearsal_runs_every_candidate_against_the_first(module, capsys, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert module("tune").main(["--dry-run", "--only", "rope"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "rope:any: 3 candidates, on 64 heads"
    assert [line.split()[-1] for line in lines[1:]] == ["ran"] * 3


def test_a_candidate_that_disagrees_is_out(module, capsys, monkeypatch):
    tune = module("tune")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(tune, "agrees", lambda got, want: got is want)
    assert tune.main(["--dry-run", "--only", "rope"]) == 1
    assert "disagrees" in capsys.readouterr().out


@pytest.fixture
def tiny_tune(module, monkeypatch):
    """benchmarks/tune.py with tiny inputs, on a device without programmatic dependent launch."""
    tune, where = module("tune"), module("examples").Where
    monkeypatch.setattr(tune, "Where", functools.partial(where, tiny=True))
    monkeypatch.setattr(tune, "has_pdl", lambda device: False)
    monkeypatch.setattr(tune, "COPIES", 1)
    return tune


@pytest.mark.slow
def test_what_is_measured_fastest_is_chosen(tiny_tune, monkeypatch, tmp_path, capsys):
    (entry,) = tiny_tune.entries(["rope"], "sm_90")
    present = entry.tried[0]
    took = {present["num_warps"]: 3.0, 2: 2.0, 4: 2.5}
    warps = []

    def captured(self, run):
        run()
        warps.append(launch.launch("rope", "any", torch.device("cpu"))["num_warps"])
        return warps[-1]

    monkeypatch.setattr(tiny_tune.Clock, "captured", captured)
    monkeypatch.setattr(
        tiny_tune.Clock,
        "in_turn",
        lambda self, runs: {name: [took[run]] for name, run in runs.items()},
    )
    tiny_tune.measure(entry, torch.device("cpu"))
    assert entry.tried[entry.best]["num_warps"] == 2
    assert entry.times == pytest.approx({0: 1.0, 1: 2 / 3, 2: 2.5 / 3})
    tiny_tune.report(entry)
    assert "chosen" in capsys.readouterr().out.splitlines()[2]

    monkeypatch.setattr(tiny_tune, "TABLE", tmp_path / "launch.json")
    (tmp_path / "launch.json").write_text('{"default": {}}')
    tiny_tune.write("sm_90", entry)
    written = json.loads((tmp_path / "launch.json").read_text())
    assert written == {"default": {}, "sm_90": {"rope": {"any": {**present, "num_warps": 2}}}}


def test_a_gain_within_the_noise_changes_nothing(tiny_tune, monkeypatch):
    (entry,) = tiny_tune.entries(["rope"], "sm_90")
    monkeypatch.setattr(
        tiny_tune.Clock, "in_turn", lambda self, runs: {name: [1.0] for name in runs}
    )
    tiny_tune.measure(entry, torch.device("cpu"))
    assert entry.best == 0
