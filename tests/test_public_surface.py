"""What others may rely on: the public names, and an import that stays light."""

from __future__ import annotations

import subprocess
import sys

import minboost

PUBLIC = {
    "LM",
    "Boost",
    "Generation",
    "Guide",
    "InputError",
    "Latent",
    "MinboostError",
    "ModelError",
    "Pasta",
    "Request",
    "Span",
    "Spotlight",
    "load",
    "load_direction",
}


def test_all_is_the_public_surface_and_every_name_resolves():
    assert set(minboost.__all__) == PUBLIC
    assert set(dir(minboost)) >= PUBLIC
    for name in PUBLIC:
        assert getattr(minboost, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(minboost, "nothing")


def modules_after(code, *, whole=False):
    out = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name if whole else name.split(".")[0] for name in out.stdout.split()}


def test_importing_does_nothing_heavy():
    assert not {"torch", "tokenizers", "click", "yaml"} & modules_after("import minboost")


def test_loading_and_generating_needs_only_the_light_dependencies(checkpoint):
    folder, _ = checkpoint("llama")
    code = (
        f"import minboost; lm = minboost.load({str(folder)!r}, device='cpu')\n"
        "lm.generate(instruction='a', query='b', boost=minboost.Boost(), max_new_tokens=2)"
    )
    heavy = {"transformers", "transformer_lens", "huggingface_hub", "click", "dotenv", "yaml",
             "triton", "tqdm", "matplotlib", "scipy", "sklearn"}  # fmt: skip
    # torch itself imports some of these where they are installed; that is not ours to count.
    assert not (heavy & modules_after(code)) - modules_after("import torch")


def test_loading_and_generating_leaves_torchs_compiler_alone():
    """torch._dynamo takes longer to import than the demo model to load and to answer."""
    code = (
        "import minboost; lm = minboost.load('demo', device='cpu')\n"
        "lm.generate(instruction='Answer in French.', query='What colour is the sky?',"
        " boost=minboost.Boost())"
    )
    assert "torch._dynamo" not in modules_after(code, whole=True)


def test_the_command_line_answers_help_without_torch():
    code = "from minboost.generate import main\nmain(['--help'])"
    assert "torch" not in modules_after(code)
