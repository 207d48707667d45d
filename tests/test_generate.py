"""The command line: what is printed where, which setting wins, and how each failure ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest
import yaml

from minboost import settings
from minboost.cli import main as minboost_main
from minboost.generate import command, main

from .test_checkpoint import DAMAGES

pytestmark = pytest.mark.usefixtures("clean_settings")

ASK = ["--instruction", "Answer in French.", "--query", "What colour is the sky?"]
SHORT = ["--max-new-tokens", "12"]


@pytest.fixture
def model(checkpoint):
    return ["--model", str(checkpoint("llama")[0]), "--device", "cpu"]


@pytest.fixture
def endless(checkpoint, tmp_path_factory):
    """A checkpoint whose context is so long that a generation can be interrupted."""
    folder = tmp_path_factory.mktemp("endless") / "model"
    shutil.copytree(checkpoint("llama")[0], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 10**7}))
    return folder


def shell(*args, **options):
    command_line = [sys.executable, "-m", "minboost.generate", *args]
    return subprocess.run(command_line, capture_output=True, text=True, **options)


def test_stdout_holds_the_answer_and_stderr_the_rest(model, capfd):
    assert main([*model, *ASK, *SHORT]) == 0
    out, err = capfd.readouterr()
    assert main([*model, *ASK, *SHORT, "--no-stream"]) == 0
    assert capfd.readouterr().out == out
    assert out.endswith("\n")
    assert "boosted 'instruction' = tokens [2, 10) x 10 on 3 layers, 18 heads" in err
    assert "prompt 23 tokens" in err
    assert "answer 12 tokens" in err
    assert "peak memory" in err


def test_json_has_the_documented_fields(model, capfd):
    assert main([*model, *ASK, *SHORT, "--json", "--compare", "--layers", "1-2"]) == 0
    out, err = capfd.readouterr()
    result = json.loads(out)
    assert result["device"] == "cpu"
    assert result["dtype"] == "float32"
    assert result["role"] == "system"
    assert result["prompt_tokens"] == 23
    assert result["instruction_span"] == [2, 10]
    assert result["multiplier"] == 10.0
    assert result["boosted_layers"] == [1, 2]
    assert result["boosted_heads"] == 12
    assert result["new_tokens"] == 12
    assert result["finish_reason"] == "length"
    assert result["prefill_seconds"] > 0
    assert result["decode_tokens_per_second"] > 0
    assert 0 < result["attention_mass"]["baseline"] < result["attention_mass"]["boosted"] < 1
    assert result["baseline"]["text"] != result["text"]
    assert err.count("\n") == 2  # the stats


def test_compare_prints_both_answers_of_the_same_engine(model, capfd):
    assert main([*model, *ASK, *SHORT, "--compare"]) == 0
    both = capfd.readouterr().out
    assert main([*model, *ASK, *SHORT]) == 0
    boosted = capfd.readouterr().out
    assert main([*model, *ASK, *SHORT, "--multiplier", "1"]) == 0
    plain, err = capfd.readouterr()
    assert both == f"--- plain (m = 1) ---\n{plain}--- boosted (m = 10) ---\n{boosted}"
    assert "nothing boosted (m = 1)" in err


def test_a_text_can_come_from_stdin(model, capfd, monkeypatch):
    import io

    assert main([*model, *ASK, *SHORT]) == 0
    want = capfd.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO("What colour is the sky?"))
    assert main([*model, *ASK[:3], "-", *SHORT]) == 0
    assert capfd.readouterr().out == want


def test_a_fallback_of_the_prompt_is_said_aloud(model, checkpoint, tmp_path, capfd):
    folder = tmp_path / "base"
    shutil.copytree(checkpoint("llama")[0], folder)
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<|bos|>"}')
    assert main(["--model", str(folder), *ASK, *SHORT, "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["role"] == "raw"
    assert "note: " in err
    assert json.loads(out)["notes"]


def shown(capfd, *args):
    assert main(["--show-config", *args]) == 0
    lines = capfd.readouterr().out.splitlines()[1:]
    return {line.split(":")[0]: line.split(": ", 1)[1] for line in lines}


def test_command_line_beats_environment_beats_dotenv_beats_file_beats_default(
    tmp_path, monkeypatch, capfd
):
    def value():
        return shown(capfd)["multiplier"]

    assert value() == "10.0  # default"
    (tmp_path / "config.yaml").write_text("instaboost:\n  multiplier: 3.0\n")
    assert value() == "3.0  # config file"
    (tmp_path / ".env").write_text("MINBOOST_MULTIPLIER=4.5\nHUGGINGFACE_TOKEN=hf_x\nPATH=/x\n")
    assert value() == "4.5  # .env"
    assert os.environ["PATH"] != "/x"
    assert os.environ["HUGGINGFACE_TOKEN"] == "hf_x"
    monkeypatch.setenv("MINBOOST_MULTIPLIER", "6.0")
    assert value() == "6.0  # environment"
    assert shown(capfd, "--multiplier", "7")["multiplier"] == "7.0  # command line"


def test_a_folders_dotenv_cannot_say_where_the_token_is_sent(tmp_path):
    (tmp_path / ".env").write_text("HF_ENDPOINT=http://elsewhere\nHF_TOKEN=hf_x\n")
    assert settings.read_dotenv(tmp_path) == {"HF_TOKEN"}


def test_tokens_are_never_shown(tmp_path, capfd):
    (tmp_path / ".env").write_text("HUGGINGFACE_TOKEN=hf_secret\n")
    assert main(["--show-config"]) == 0
    assert "hf_secret" not in "".join(capfd.readouterr())


def boost_of(*args, monkeypatch):
    """The Boost that a command line arrives at."""
    from minboost import generate

    seen = []
    keep = lambda options: seen.append(generate.method_of(options)) or 0  # noqa: E731
    monkeypatch.setattr(generate, "run", keep)
    assert main([*ASK, *args]) == 0
    return seen[0]


def test_every_key_of_the_scripts_config_reaches_the_boost(tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text(
        textwrap.dedent(
            """
            random_seed: 7
            instaboost:
              multiplier: 4
              boost_middle_layers_only: true
              num_middle_layers: 3
              start_layer: 5
              head_boost_percentage: 0.25
            testing: {num_runs: 1}
            """
        )
    )
    boost = boost_of(monkeypatch=monkeypatch)
    assert list(boost.heads_by_layer(16, 8)) == [5, 6, 7]
    assert {len(heads) for heads in boost.heads_by_layer(16, 8).values()} == {2}
    assert (boost.multiplier, boost.head_seed) == (4, 7)


@pytest.mark.parametrize("word", ["false", "False", "0", "no", "off"])
def test_false_in_the_environment_is_false(word, tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text("instaboost: {boost_middle_layers_only: true}\n")
    monkeypatch.setenv("MINBOOST_BOOST_MIDDLE_LAYERS_ONLY", word)
    assert boost_of(monkeypatch=monkeypatch).layers == "all"


def test_the_setting_closest_to_the_user_wins_when_two_say_the_same_thing(tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text(
        "instaboost: {boost_middle_layers_only: true, head_boost_percentage: 0.5}\n"
    )
    assert boost_of(monkeypatch=monkeypatch).layers == "middle"
    assert boost_of(monkeypatch=monkeypatch).heads == 0.5
    assert boost_of("--layers", "1-3", monkeypatch=monkeypatch).layers == "1-3"
    assert boost_of("--heads", "all", monkeypatch=monkeypatch).heads == "all"
    (tmp_path / "config.yaml").write_text('instaboost: {layers: "2", heads: "all"}\n')
    monkeypatch.setenv("MINBOOST_BOOST_MIDDLE_LAYERS_ONLY", "true")
    monkeypatch.setenv("MINBOOST_HEAD_BOOST_PERCENTAGE", "0.125")
    assert boost_of(monkeypatch=monkeypatch).layers == "middle"
    assert boost_of(monkeypatch=monkeypatch).heads == 0.125


def test_the_shipped_config_is_the_defaults_written_out(request):
    shipped = settings.read_config(request.config.rootpath / "config.yaml")
    from minboost.commands.compare import command as compare

    defaults = {p.name: p.default for p in [*compare.params, *command.params]}
    defaults |= {"boost_middle_layers_only": False, "head_boost_percentage": 1.0}
    assert shipped == {name: str(defaults[name]) for name in shipped}
    lines = (request.config.rootpath / "config.yaml").read_text().splitlines()
    settled = [line for line in lines if ":" in line and not line.strip().endswith(":")]
    assert all("#" in line for line in settled)  # commented line by line


def test_another_programs_config_yaml_is_left_alone(tmp_path, capfd):
    (tmp_path / "config.yaml").write_text("database: postgres\n")
    assert shown(capfd)["multiplier"] == "10.0  # default"


def test_help_shows_examples_and_exit_codes(capfd):
    assert main(["--help"]) == 0
    text = capfd.readouterr().out
    assert "Examples:" in text
    assert "--compare" in text
    assert "130 interrupted" in text
    assert minboost_main(["generate", "--help"]) == 0


def test_the_version_is_the_packages(capfd):
    import minboost

    assert main(["--version"]) == 0
    assert minboost.__version__ in capfd.readouterr().out


USAGE = {
    "no-query": (["--instruction", "a"], "--query is missing"),
    "unknown-option": ([*ASK, "--boost", "3"], "No such option"),
    "not-a-number": ([*ASK, "--multiplier", "ten"], "'ten' is not a valid float"),
    "role": ([*ASK, "--role", "assistant"], "'assistant' is not one of"),
    "empty-instruction": (["--instruction", "", "--query", "b"], "the instruction is empty"),
    "empty-query": (["--instruction", "a", "--query", " "], "the query is empty"),
    "zero": ([*ASK, "--multiplier", "0"], "multiplier must be a finite number above 0, got 0.0"),
    "negative": ([*ASK, "--multiplier", "-1"], "above 0, got -1.0"),
    "nan": ([*ASK, "--multiplier", "nan"], "above 0, got nan"),
    "inf": ([*ASK, "--multiplier", "inf"], "above 0, got inf"),
    "layers": ([*ASK, "--layers", "3"], "layer 3 does not exist: the model has layers 0 to 2"),
    "middle": ([*ASK, "--layers", "middle"], "start_layer 8 of layers='middle' does not exist"),
    "heads": ([*ASK, "--heads", '{"0": [6]}'], "head 6 of layer 0 does not exist"),
    "share": ([*ASK, "--heads", "1.5"], "fraction of heads must lie in (0, 1], got 1.5"),
    "heads-file": (
        [*ASK, "--heads", "none.json"],
        "heads must be 'all', a share, PASTA's JSON or a file",
    ),
    "span": ([*ASK, "--span", "grass"], "'grass' does not occur"),
    "temperature": ([*ASK, "--temperature", "-1"], "temperature must be"),
    "overlong": ([*ASK[:3], "sky " * 300], "tokens, and the model's context holds 256"),
    "two-stdins": (["--instruction", "-", "--query", "-"], "cannot both be read from stdin"),
    "device": ([*ASK, "--device", "tpu"], "device 'tpu' is not known"),
    "config-missing": ([*ASK, "--config", "none.yaml"], "config file none.yaml cannot be read"),
}


@pytest.mark.parametrize(("args", "message"), USAGE.values(), ids=USAGE)
def test_a_wrong_request_ends_with_2_and_says_why(checkpoint, args, message, capfd):
    model = [] if "--device" in args else ["--device", "cpu"]
    assert main(["--model", str(checkpoint("llama")[0]), *model, *args]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "cannot be read"),
        ("- 1\n", "must hold a mapping, got a list"),
        ("instaboost: {multiplyer: 3}", "key 'instaboost.multiplyer' does not exist"),
        ("instaboost: {multiplier: ten}", "'ten' is not a valid float"),
    ],
)
def test_a_wrong_config_file_ends_with_2(tmp_path, text, message, capfd):
    (tmp_path / "mine.yaml").write_text(text)
    assert main([*ASK, "--config", "mine.yaml"]) == 2
    assert message in capfd.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "config.json is missing"), ("{", "cannot be read as JSON")],
    ids=["missing", "malformed"],
)
def test_an_unreadable_config_ends_with_3(checkpoint, tmp_path, content, message, capfd):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("llama")[0], folder)
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)
    assert main([*ASK, "--model", str(folder)]) == 3
    assert message in capfd.readouterr().err


def test_a_missing_folder_ends_with_3(capfd):
    assert main([*ASK, "--model", "./nowhere"]) == 3
    assert "model folder ./nowhere does not exist" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("damage", "message"), DAMAGES.items(), ids=[d.__name__[7:] for d in DAMAGES]
)
def test_a_damaged_checkpoint_ends_with_3(checkpoint, tmp_path, damage, message, capfd):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("llama")[0], folder)
    damage(folder)
    assert main([*ASK, "--model", str(folder)]) == 3
    out, err = capfd.readouterr()
    assert out == ""
    assert re.search(message, err)
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not supported"),
        ({"rope_parameters": {"rope_type": "spiral"}}, "rope type 'spiral' is not supported"),
        ({"quantization_config": {"quant_method": "awq"}}, "the checkpoint is quantised (awq)"),
    ],
    ids=["model-type", "rope-type", "quantised"],
)
def test_an_unsupported_config_ends_with_3(checkpoint, tmp_path, change, message, capfd):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("llama")[0], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    assert main([*ASK, "--model", str(folder)]) == 3
    assert message in capfd.readouterr().err


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for i in range(10**9) %}{% for j in range(10**9) %}{% endfor %}{% endfor %}", ""),
        ("{{ raise_exception('no such luck') }}", "no such luck"),
        ("{% if %}", ""),
    ],
    ids=["loops", "raises", "syntax"],
)
def test_a_bad_template_ends_with_3(checkpoint, tmp_path, template, message, capfd):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("llama")[0], folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    assert main([*ASK, "--model", str(folder)]) == 3
    err = capfd.readouterr().err
    assert "template" in err
    assert message in err


def test_out_of_memory_ends_with_4(endless):
    code = textwrap.dedent(
        f"""
        import resource, sys, torch
        from minboost.generate import main
        limit = 5 << 29
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        sys.exit(main({[*ASK, "--model", str(endless), "--max-new-tokens", "9900000"]}))
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 4, done.stderr
    assert "out of memory" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["stream", "json"])
def test_ctrl_c_ends_with_130_and_keeps_the_text(endless, form):
    # Without a chat template a note goes to stderr just before the first token.
    (endless / "tokenizer_config.json").write_text("{}")
    args = [*ASK, "--model", str(endless), "--max-new-tokens", "200000", "--device", "cpu", *form]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "minboost.generate", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Shells start background jobs with SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert b"note: " in process.stderr.readline()
    first = b"" if form else process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"interrupted" in err
    assert b"Traceback" not in err
    if form:
        assert json.loads(out)["finish_reason"] == "interrupted"
    else:
        assert first + out


def test_the_exit_code_reaches_the_shell(checkpoint):
    assert shell(*ASK, "--model", "./nowhere").returncode == 3
    assert shell(*ASK, "--multiplier", "0").returncode == 2


def test_yaml_and_json_agree_on_what_a_show_config_says(capfd):
    """--show-config prints YAML that can be read back."""
    assert main(["--show-config"]) == 0
    assert yaml.safe_load(capfd.readouterr().out)["multiplier"] == 10.0


def test_every_option_has_an_environment_variable_of_its_name(capfd, monkeypatch, model):
    monkeypatch.setenv("MINBOOST_JSON", "true")
    monkeypatch.setenv("MINBOOST_MAX_NEW_TOKENS", "3")
    monkeypatch.setenv("MINBOOST_STOP", "no such text\nnor this")
    for run in (main, lambda args: minboost_main(["generate", *args])):
        assert run([*model, *ASK]) == 0
        assert json.loads(capfd.readouterr().out)["new_tokens"] == 3
        assert run(["--show-config"]) == 0
        shown = yaml.safe_load(capfd.readouterr().out)
        assert shown["stop"] == ["no such text", "nor this"]
        assert shown["max_new_tokens"] == 3


def test_the_config_file_can_be_named_in_the_environment_and_in_dotenv(tmp_path, capfd):
    (tmp_path / "mine.yaml").write_text("generation: {max_new_tokens: 7}\n")
    (tmp_path / ".env").write_text("MINBOOST_CONFIG=mine.yaml\n")
    assert shown(capfd)["max_new_tokens"] == "7  # config file"


def test_a_misspelt_environment_variable_is_said_aloud(monkeypatch, capfd):
    monkeypatch.setenv("MINBOOST_MULTIPLER", "3")
    assert main(["--show-config"]) == 0
    assert "MINBOOST_MULTIPLER names no option" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "layers", "heads"),
    [
        ("instaboost: {layers: [0, 2]}", [0, 2], None),
        ("instaboost: {heads: {0: [1, 2]}}", [0], {0: (1, 2)}),
        ("instaboost: {heads: [1]}", [1], None),
        ("instaboost:\n", [0, 1, 2], None),
    ],
)
def test_a_config_file_may_say_layers_and_heads_in_yaml(tmp_path, monkeypatch, text, layers, heads):
    (tmp_path / "config.yaml").write_text(text)
    chosen = boost_of(monkeypatch=monkeypatch).heads_by_layer(3, 4)
    assert list(chosen) == layers
    if heads is not None:
        assert chosen == heads


@pytest.mark.parametrize(
    "text",
    ["instaboost: {multiplier: true}", "generation: {max_new_tokens: 1.9}"],
)
def test_a_value_of_the_wrong_kind_in_a_config_file_ends_with_2(tmp_path, text, capfd):
    (tmp_path / "config.yaml").write_text(text)
    assert main([*ASK]) == 2
    assert "is not a valid" in capfd.readouterr().err


def test_a_config_file_that_is_passed_over_is_said_aloud(tmp_path, capfd):
    (tmp_path / "config.yaml").write_text("database: postgres\n")
    assert main(["--show-config"]) == 0
    assert "config.yaml is not one of minboost's" in capfd.readouterr().err
    (tmp_path / "config.yaml").write_text("generation: {max_new_tokens: 1}\n")
    assert shown(capfd)["max_new_tokens"] == "1  # config file"


def test_the_line_break_that_ends_stdin_is_no_part_of_the_text(model, capfd, monkeypatch):
    import io

    spans = []
    for text in ("Answer in French.", "Answer in French.\n", "Answer in French.\r\n"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text, newline=""))
        assert main([*model, "--instruction", "-", *ASK[2:], *SHORT, "--json"]) == 0
        spans.append(json.loads(capfd.readouterr().out)["instruction_span"])
    assert spans == [[2, 10]] * 3


def test_ctrl_c_in_the_plain_half_of_a_comparison_still_prints_the_json(model, capfd, monkeypatch):
    from minboost.lm import Stream

    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Stream, "__next__", interrupt)
    assert main([*model, *ASK, "--compare", "--json"]) == 130
    result = json.loads(capfd.readouterr().out)
    assert result["finish_reason"] == result["baseline"]["finish_reason"] == "interrupted"


def test_an_output_that_cannot_be_written_ends_with_1(model):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "minboost.generate", *model, *ASK, *SHORT],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert "could not be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_python_dash_m_minboost_is_the_minboost_command():
    done = subprocess.run(
        [sys.executable, "-m", "minboost", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "generate" in done.stdout
