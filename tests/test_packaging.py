"""What an installed minboost holds."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile

import pytest


def test_the_kernels_package_is_importable_and_imports_no_triton():
    code = (
        "import sys, minboost.kernels as k; assert k.__version__ == '0'; "
        "assert 'triton' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_the_wheel_holds_the_demo_model_and_the_kernels(request, tmp_path):
    source = tmp_path / "source"  # a copy: setuptools leaves its build folder behind
    parts = ("minboost", "kernels", "pyproject.toml", "README.md", "LICENSE")
    for part in (request.config.rootpath / name for name in parts):
        target = source / part.name
        source.mkdir(exist_ok=True)
        shutil.copytree(part, target) if part.is_dir() else shutil.copy(part, target)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), "."]
    subprocess.run(command, cwd=source, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    model = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
             "generation_config.json", "README.md")  # fmt: skip
    assert {f"minboost/demo/model/{name}" for name in model} <= names
    assert {"minboost/kernels/__init__.py", "minboost/kernels/launch.json"} <= names
    assert "minboost/py.typed" in names
    assert not any(name.startswith(("tests/", "benchmarks/", "kernels/")) for name in names)
