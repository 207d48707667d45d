"""What an installed minboost holds, and what it imports when it starts."""

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


def packages_after(code):
    """The third-party packages that ``code`` imports, by their first names."""
    code += "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = {name for name in out.stdout.splitlines()[-1].split() if not name.startswith("_")}
    return found - sys.stdlib_module_names


@pytest.mark.parametrize("command", ["minboost.generate", "minboost.cli"])
def test_help_needs_click_and_nothing_else(command):
    plain = packages_after("pass")  # what the environment itself imports
    code = f"from {command} import main; main(['--help'])"
    assert packages_after(code) - plain - {"colorama"} == {"minboost", "click"}


def test_the_demos_answer_needs_little_beside_torch():
    code = (
        "import minboost; lm = minboost.load('demo', device='cpu')\n"
        "lm.generate(instruction='Answer in French.', query='What colour is the sky?',"
        " boost=minboost.Boost())"
    )
    extra = packages_after(code) - packages_after("import torch")
    assert extra == {"minboost", "jinja2", "markupsafe", "safetensors", "tokenizers"}


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
