"""The kernels compile for GPUs that are not there, within what those have, and spill nothing.

In processes of their own: here triton was imported for its interpreter.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")
from minboost.kernels.launch import TABLE

ARCHITECTURES = [arch for arch in TABLE if arch != "interpreter"]


@pytest.fixture
def compiled(request):
    """compiled(*options) → the rows of benchmarks/resources.py, none of which may have a fault."""
    script = request.config.rootpath / "benchmarks" / "resources.py"

    def run(*options):
        env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        command = [sys.executable, str(script), "--json", *options]
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        assert done.stdout, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["faults"] == []
        assert done.returncode == 0, done.stderr
        return found["rows"]

    return run


@pytest.fixture
def module(request, monkeypatch):
    """module(name) → that module of benchmarks/, imported as the scripts import each other."""
    monkeypatch.syspath_prepend(request.config.rootpath / "benchmarks")
    return importlib.import_module


def test_one_form_of_each_kernel_compiles(compiled, module):
    rows = compiled("--arch", "sm_90", "--smoke")
    assert {row["kernel"] for row in rows} == {e.kernel for e in module("examples").examples()}
    assert all(row["registers"] > 0 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_entry_of_the_table_fits_its_gpu_and_spills_nothing(arch, compiled):
    rows = compiled("--arch", arch)
    dots = {"sm_90": {"wgmma"}, "sm_100": {"tcgen05.mma"}, "gfx942": {"v_mfma"}}
    used = {row["mma"] for row in rows if row["kernel"] == "prefill" and "fp32" not in row["shape"]}
    assert used == dots.get(arch, {"mma.sync"})


@pytest.mark.slow
def test_programmatic_dependent_launch_compiles_on_hopper(compiled):
    rows = compiled("--arch", "sm_90", "--pdl")
    assert {row["kernel"] for row in rows} == {"decode", "linear", "rope"}


def test_the_committed_figures_are_those_of_the_committed_table(module):
    """python benchmarks/resources.py --write brings them up to date."""
    resources = module("resources")
    committed = json.loads((resources.RESULTS / f"{resources.NAME}.json").read_text())
    keys = [{key: row[key] for key in resources.KEYS} for row in committed["rows"]]
    assert keys == resources.planned()
    assert resources.faults(committed["rows"]) == []
    rows = committed.pop("rows")
    text = resources.markdown(rows, committed)
    assert (resources.RESULTS / f"{resources.NAME}.md").read_text() == text
