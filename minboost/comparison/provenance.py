"""What a result was made with: versions and commit."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import __version__

PACKAGES = ("torch", "triton", "safetensors", "tokenizers", "numpy")


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """The versions of minboost, of Python, and of those ``packages`` that are installed."""
    found = {"minboost": __version__, "python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of the source tree that minboost runs from, with "+" where it has changes that
    are not committed outside of benchmarks/results; None where it runs from no git tree."""
    package = Path(__file__).parents[1]

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", "-C", str(package), *args], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # A virtual environment may lie within the tree of another project.
        git("ls-files", "--error-unmatch", "--", "__init__.py")
        root = git("rev-parse", "--show-toplevel")
        changed = git("-C", root, "status", "--porcelain", "--", ".", ":!benchmarks/results")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
