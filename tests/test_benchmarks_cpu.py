"""benchmarks/cpu.py and overhead.py: engines that say the same, and tables that hold what was said.

That all engines give the same tokens on the same weights is what makes comparing them fair.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from minboost.config import ModelConfig

from . import tiny

RIVALS = (
    "transformers",
    "transformers-mask",
    "transformers-mask-sdpa",
    "transformer-lens",
    "llama.cpp",
)
PROMPT = torch.randint(0, 320, (40,), generator=torch.Generator().manual_seed(1)).tolist()
STEPS = 20


@pytest.fixture
def module(request, monkeypatch):
    """module(name) → that module of benchmarks/, imported as the scripts import each other."""
    monkeypatch.syspath_prepend(request.config.rootpath / "benchmarks")
    shapes = importlib.import_module("shapes")
    monkeypatch.setitem(shapes.SHAPES, "tiny", tiny.SHAPE)
    return importlib.import_module


@pytest.fixture
def folder(module, tmp_path):
    """folder(dtype) → a checkpoint whose weights are large enough for the boost to matter."""

    def write(dtype):
        made = tmp_path / str(dtype)
        made.mkdir()
        module("shapes").write("tiny", made, dtype=dtype)
        weights = load_file(made / "model.safetensors")
        larger = {k: v if "norm" in k else v * 6 for k, v in weights.items()}
        save_file(larger, made / "model.safetensors", metadata={"format": "pt"})
        return made

    return write


@pytest.fixture(scope="module", autouse=True)
def _no_open_files():
    """llama_cpp leaves two open; Python would complain at its end."""
    yield
    if "llama_cpp" in sys.modules:
        utils = importlib.import_module("llama_cpp._utils")
        utils.outnull_file.close()
        utils.errnull_file.close()


@pytest.fixture
def start(module):
    """start(name, folder, dtype, boosted) → that engine, or the test is skipped."""
    engines = module("engines")

    def get(name, folder, dtype="float32", boosted=False):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the rivals' own dependencies
            for needed in engines.needs(name):
                pytest.importorskip(needed)
            job = engines.Job(name, str(folder), dtype, threads=1, length=64, boosted=boosted)
            return engines.ENGINES[name](job)

    return get


def greedy(engine):
    """The tokens that follow the prompt, and the logits (STEPS + 1, V) on the way."""
    engine.prefill(PROMPT[:7], 1)  # what was before must not matter
    rows, tokens = [engine.prefill(PROMPT, STEPS).clone()], []
    for _ in range(STEPS):
        tokens.append(int(rows[-1].argmax()))
        rows.append(engine.step(tokens[-1]).clone())
    return tokens, torch.stack(rows)


@pytest.mark.parametrize("name", RIVALS)
def test_every_engine_gives_minboosts_logits_and_tokens(module, folder, start, name):
    checkpoint = folder(torch.float32)
    boosted = name in module("engines").BOOSTED
    tokens, logits = greedy(start("minboost", checkpoint, boosted=boosted))
    their_tokens, their_logits = greedy(start(name, checkpoint, boosted=boosted))
    assert their_tokens == tokens
    assert (their_logits - logits).abs().max() <= 1e-5 * logits.abs().max()


@pytest.mark.parametrize("name", ["minboost", *RIVALS])
def test_after_rewinding_an_engine_decodes_as_before(folder, start, name):
    engine = start(name, folder(torch.float32))
    tokens, logits = greedy(engine)
    engine.rewind()
    for token, want in zip(tokens[:3], logits[1:4], strict=True):
        assert (engine.step(token) - want).abs().max() <= 1e-6 * want.abs().max()


def test_the_boost_changes_the_tokens(folder, start):
    """The comparison of boosted engines would pass on a boost that does nothing; this would not."""
    checkpoint = folder(torch.float32)
    plain, boosted = (greedy(start("minboost", checkpoint, boosted=b))[0] for b in (False, True))
    assert plain != boosted


@pytest.mark.parametrize(("dtype", "share"), [("bfloat16", 0.03), ("int8", 0.06)])
@pytest.mark.parametrize("name", ["minboost", "llama.cpp"])
def test_fewer_bits_stay_near_the_exact_logits(folder, start, name, dtype, share):
    """Root mean square error, as a share of the logits' spread: alike for both, so both do it."""
    checkpoint = folder(torch.bfloat16)
    exact = start("minboost", checkpoint, "float32").prefill(PROMPT, STEPS)
    error = (start(name, checkpoint, dtype).prefill(PROMPT, STEPS) - exact).square().mean().sqrt()
    assert share / 8 * exact.std() < error < share * exact.std()


def test_gguf_refuses_what_it_would_write_wrongly(module, folder, tmp_path):
    pytest.importorskip("gguf")
    write_gguf = module("gguf_file").write_gguf
    checkpoint = folder(torch.float32)
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "attention_bias": True}))
    with pytest.raises(ValueError, match="is no plain Llama"):
        write_gguf(checkpoint, tmp_path / "x.gguf", "float32")


@pytest.mark.parametrize(
    ("shape", "matrices", "keys_a_token"),
    [("Llama-3.2-1B", 2.471e9, 32 << 10), ("Llama-3.1-8B", 15.009e9, 128 << 10)],
)
def test_a_token_reads_all_matrices_once_and_all_keys(module, shape, matrices, keys_a_token):
    raw = {"model_type": "llama", "hidden_act": "silu", **module("shapes").SHAPES[shape]}
    config, needed = ModelConfig.from_dict(raw), module("bandwidth").bytes_per_token
    none = needed(config, "bfloat16", context=0, blocks=False)
    assert none == pytest.approx(matrices, rel=1e-3)
    assert needed(config, "bfloat16", context=10, blocks=False) - none == 10 * keys_a_token
    assert needed(config, "float32", context=0, blocks=True) == 2 * none
    # Eight bits and a float16 scale every 32 weights: 34 bytes where bfloat16 takes 64.
    assert needed(config, "int8", context=0, blocks=True) == pytest.approx(none * 34 / 64)
    assert none / 2 < needed(config, "int8", context=0, blocks=False) < none / 2 * 1.005


def test_bandwidth_is_the_best_of_its_samples(module):
    bandwidth = module("bandwidth").ReadBandwidth(1 << 20)
    bandwidth.sample()
    bandwidth.sample()
    assert len(bandwidth.samples) == 4
    assert bandwidth.best == max(bandwidth.samples) > 0


def test_turns_swap_their_order_and_ratios_stay_within_a_turn(module):
    duel = module("duel")
    order = []
    duel.in_turn(["a", "b"], order.append, rounds=3)
    assert order == list("abbaab")
    order.clear()
    duel.in_turn(["a", "b"], order.append, rounds=3, seconds=0)
    assert order == list("ab")
    found = duel.compare([10.0, 20.0, 3.0], [5.0, 20.0, 1.0])
    assert found["ratio"] == {"median": 2.0, "range": [1.0, 3.0], "runs": 3}
    assert (duel.same([1, 2, 3], [1, 2, 4]), duel.same([1], [1])) == (2, 1)


def test_starts_count_together_and_one_by_one(module):
    """The pooled ratio weighs every turn alike; a slow start still shows on its own."""
    duel = module("duel")

    def start(ours, theirs, same):
        rates = {"ours": ours, "theirs": theirs}
        return duel.Duel(rates, rates, passes=2, agreement={"same_tokens": same})

    starts = [start([30, 33], [10, 10], 1), start([5, 5], [10, 10], 2), start([31], [10], 3)]
    found = duel.pooled(starts)
    assert found["decode"]["ratio"] == {"median": 3.0, "range": [0.5, 3.3], "runs": 5}
    assert found["decode"]["by_start"] == pytest.approx([3.15, 0.5, 3.1])
    assert found["decode"]["ours"]["median"] == 30
    assert (found["starts"], found["passes"], found["agreement"]["same_tokens"]) == (3, 6, 1)


def test_an_engine_that_fails_says_so(module, tmp_path):
    engines, process = module("engines"), module("engine_process")
    job = engines.Job("minboost", str(tmp_path), "float32", 1, 8)
    with pytest.raises(process.EngineError, match=r"minboost: ModelError: .*config\.json"):
        process.EngineProcess(job)


@pytest.fixture
def cpu(module, monkeypatch, tmp_path):
    """cpu(*options) → the rows of benchmarks/cpu.py on the tiny shape, and its table."""
    script, bandwidth = module("cpu"), module("bandwidth").ReadBandwidth
    monkeypatch.setattr(importlib.import_module("result_rows"), "RESULTS", tmp_path)
    monkeypatch.setattr(script, "ReadBandwidth", lambda: bandwidth(1 << 20))

    def run(*options):
        tiny = ["--shape", "tiny", "--dtype", "float32", "--prompt", "24+16", "--ours", "eager"]
        once = ["--starts", "1", "--rounds", "1", "--threads", "1"]
        assert script.main([*tiny, *once, *options]) == 0
        rows = json.loads((tmp_path / "cpu.json").read_text())["rows"]
        return rows, (tmp_path / "cpu.md").read_text(encoding="utf-8")

    return run


def test_two_processes_take_turns_and_their_row_is_written(cpu, capsys):
    (row,), table = cpu("--engine", "transformers-mask", "--write")
    assert row["agreement"]["same_tokens"] == row["agreement"]["of"] == 16
    assert row["agreement"]["logits_difference"] <= 1e-5
    assert row["boosted"]
    assert row["machine"]["versions"]["torch"] == torch.__version__
    for name in ("ours", "theirs"):
        assert row["engines"][name]["share"] > 0
        assert row["decode"][name]["median"] > 0 < row["prefill"][name]["median"]
        if sys.platform == "linux":
            assert row["engines"][name]["peak"] > 50e6
    assert "| float32 | 24 + 16 | eager | transformers-mask |" in table
    assert "16 of 16" in table
    assert capsys.readouterr().out == table + "\n"


def test_every_start_is_a_new_process_and_a_prompt_that_failed_later_keeps_its_row(
    cpu, module, monkeypatch
):
    script, began = module("cpu"), []

    class Fails(script.EngineProcess):
        def __init__(self, job):
            if len(began) == 6:
                raise script.EngineError("no more")
            super().__init__(job)
            began.append((job.engine, self.process.pid))

    monkeypatch.setattr(script, "EngineProcess", Fails)
    (row,), table = cpu("--engine", "transformers", "--starts", "2", "--write")
    assert [name for name, _ in began] == ["transformers", "minboost"] * 2
    assert len({process for _, process in began}) == 4
    assert row["starts"] == len(row["decode"]["by_start"]) == 2
    by_start = " ".join(f"{ratio:.2f}" for ratio in row["decode"]["by_start"])
    assert f" | {by_start} | " in table
    (row,), _ = cpu("--engine", "transformers", "--starts", "2", "--write")
    assert row["starts"] == 1


def test_an_engine_that_is_not_installed_has_a_row_that_says_so(cpu, module, monkeypatch):
    monkeypatch.setattr(module("engine_process"), "find_spec", lambda name: None)
    (row,), table = cpu("--engine", "llama.cpp", "--write")
    assert row["error"] == "llama_cpp, gguf not installed"
    assert "| float32 | 24 + 16 | eager | llama.cpp | llama_cpp, gguf not installed |" in table


def test_new_rows_take_the_place_of_old_ones(module):
    table, rows = module("cpu_table"), module("result_rows")

    def row(rival, prompt, mark):
        return {"shape": "tiny", "threads": 1, "dtype": "int8", "ours": "eager", "rival": rival,
                "prompt": prompt, "new": 8, "mark": mark}  # fmt: skip

    old = [row("llama.cpp", 128, "old"), row("llama.cpp", 2048, "old")]
    new = [row("llama.cpp", 128, "new"), row("transformers", 128, "new")]
    found = rows.merged(old, new, table.key)
    assert [(r["rival"], r["prompt"], r["mark"]) for r in found] == [
        ("transformers", 128, "new"),
        ("llama.cpp", 128, "new"),
        ("llama.cpp", 2048, "old"),
    ]


def test_prompts_are_asked_for_as_lengths(module, capsys):
    script = module("cpu")
    assert script.lengths("128+64") == (128, 64)
    with pytest.raises(SystemExit):
        script.main(["--prompt", "128"])
    assert "'128' is not PROMPT+NEW, as in 128+64" in capsys.readouterr().err


def test_overhead_compares_three_decoders_of_one_model(module, monkeypatch, tmp_path):
    script = module("overhead")
    monkeypatch.setattr(importlib.import_module("result_rows"), "RESULTS", tmp_path)
    options = ["--shape", "tiny", "--dtype", "float32", "--prompt", "24+12", "--rounds", "2"]
    assert script.main([*options, "--threads", "1", "--write"]) == 0
    (row,) = json.loads((tmp_path / "overhead.json").read_text())["rows"]
    assert row["decode"].keys() == {"plain", "boosted", "again"}
    assert row["prefill"].keys() == {"plain", "boosted"}
    assert row["decode"]["boosted"]["runs"] == 2 * 12 // 4
    table = (tmp_path / "overhead.md").read_text(encoding="utf-8")
    assert "| tiny | float32 | eager | 24 + 12 |" in table


def test_overhead_finds_a_difference_and_none_where_there_is_none(module):
    """Turns spread by 2 %, a boost that costs 2 %: of 95 % intervals, not quite all hold."""
    against_plain, draws = module("overhead").against_plain, 20
    held = {"boosted": 0, "again": 0}
    for seed in range(draws):
        noise = 1 + 0.02 * torch.randn(3, 80, generator=torch.Generator().manual_seed(seed))
        noise[1] *= 0.98
        found = against_plain(dict(zip(("plain", "boosted", "again"), noise.tolist(), strict=True)))
        for name, true in (("boosted", 0.98), ("again", 1.0)):
            low, high = found[name]["interval"]
            held[name] += low < true < high
        assert found["boosted"]["interval"][1] < 1
    assert min(held.values()) >= 0.8 * draws
