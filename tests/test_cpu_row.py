"""A single sequence decoded on the CPU's fast path, against ``Transformer.forward``."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

import minboost
from minboost import Boost, Guide, InputError, Latent, ModelError, Span, Spotlight, cpu
from minboost.checkpoint import load_model
from minboost.config import ModelConfig
from minboost.cpu import compiled as compiling
from minboost.cpu import machine
from minboost.cpu.inductor import Inductor
from minboost.cpu.layer import Row, layer
from minboost.cpu.row import all_layer_weights, shape_of
from minboost.decode import Decoder
from minboost.directions import Direction
from minboost.model import Transformer
from minboost.plan import Plan, sequence_plan

from . import tiny
from .conftest import load

PROMPT = [5, 9, 2, 7, 11, 3, 8, 1, 40, 22, 17]
STEPS = 20  # past every window and into the dynamic angles
SPAN = Span(2, 6)
METHODS = {
    "plain": lambda model: [],
    "boosted": lambda model: [(Boost(7.0), [SPAN])],
    "some heads": lambda model: [(Boost(7.0, layers=[1], heads=0.5), [SPAN]), (Guide(2), [SPAN])],
    "latent": lambda model: [(Latent(2.0, direction=direction(model)), [])],
}


def direction(model):
    ramp = torch.arange(model.config.hidden_size).float()
    return Direction("diffmean", 1, torch.nn.functional.normalize(ramp, dim=0))


def decoder(model, method="plain", *, new=STEPS):
    methods = METHODS[method](model)
    size, hidden = model.config.size, model.config.hidden_size
    plan = None
    if methods:
        sequence = sequence_plan(methods, tokens=len(PROMPT), hidden_size=hidden, **size)
        plan = Plan.build([sequence], **size, device=model.device)
    return Decoder(model, [PROMPT], max_new_tokens=new, plan=plan)


def decoded(model, method="plain", tokens=None):
    """Logits of prefill and steps (1 + STEPS, V), and the tokens: greedy, or those given."""
    run = decoder(model, method, new=STEPS + 1)
    logits = [run.prefill()[0][0]]
    chosen = []
    for step in range(STEPS):
        chosen.append(int(logits[-1].argmax()) if tokens is None else tokens[step])
        logits.append(run.step([chosen[-1]])[0])
    return torch.stack(logits), chosen


def prepared(folder, **options):
    prepare = {name: options.pop(name) for name in ("compile",) if name in options}
    model = load_model(
        folder,
        ModelConfig.from_folder(folder),
        device=torch.device("cpu"),
        dtype=options.pop("dtype", torch.float32),
        **options,
    )
    cpu.prepare(model, **prepare)
    return model


@pytest.fixture
def by_forward(monkeypatch):
    """by_forward(model, …) → ``decoded`` without the fast path."""

    def run(model, *rest):
        row, model.row = model.row, None
        out = decoded(model, *rest)
        model.row = row
        return out

    return run


@pytest.fixture
def no_forward(monkeypatch):
    """Decode steps that go through ``forward`` are an error."""
    forward = Transformer.forward

    def refused(self, ids, **rest):
        assert ids.shape[1] > 1, "a decode step went through forward"
        return forward(self, ids, **rest)

    def forbid():
        monkeypatch.setattr(Transformer, "forward", refused)

    return forbid


def assert_alike(got, want):
    assert got.dtype == want.dtype == torch.float32
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", tiny.CHECKPOINTS)
def test_eager_rows_give_forwards_logits_and_greedy_tokens(
    checkpoint, by_forward, no_forward, name, method
):
    model = prepared(checkpoint(name)[0])
    want, tokens = by_forward(model, method)
    no_forward()
    got, got_tokens = decoded(model, method)
    assert got_tokens == tokens
    assert_alike(got, want)


def errs_at_most_twice(model, exact, by_forward, method="boosted"):
    """The row's logits err at most twice as much as forward's do in the model's dtype."""
    want, tokens = by_forward(exact, method)
    forward, _ = by_forward(model, method, tokens)
    got, _ = decoded(model, method, tokens)
    rounding = torch.finfo(model.dtype).eps * want.abs().max()
    assert (got - want).norm() <= 2 * (forward - want).norm() + rounding
    assert (got - want).abs().max() <= 2 * (forward - want).abs().max() + rounding


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("name", ["llama", "mistral", "qwen3-bias-yarn"])
def test_eager_rows_in_16_bits_err_no_more_than_forward(checkpoint, by_forward, name, dtype):
    folder = checkpoint(name)[0]
    exact = prepared(folder, dtype=dtype).float()
    errs_at_most_twice(prepared(folder, dtype=dtype), exact, by_forward)


@pytest.mark.parametrize("method", ["plain", "boosted"])
def test_a_multiplier_of_one_is_plain_bit_for_bit(checkpoint, monkeypatch, method):
    monkeypatch.setitem(METHODS, "one", lambda model: [(Boost(1.0), [SPAN])])
    model = prepared(checkpoint("llama")[0])
    assert torch.equal(decoded(model, "one")[0], decoded(model, "plain")[0])


def test_a_target_mass_and_a_batch_go_through_forward(checkpoint):
    model = prepared(checkpoint("llama")[0])
    size = model.config.size
    sequence = sequence_plan([(Spotlight(0.6), [SPAN])], tokens=len(PROMPT), **size)
    plan = Plan.build([sequence], **size, device=model.device)
    assert Decoder(model, [PROMPT], max_new_tokens=2, plan=plan).row is None
    assert Decoder(model, [PROMPT, PROMPT], max_new_tokens=2).row is None
    assert Decoder(model, [PROMPT], max_new_tokens=2).row is not None


def test_weights_that_were_changed_since_are_the_ones_that_count(checkpoint, by_forward):
    model = prepared(checkpoint("llama")[0])
    decoded(model)
    for parameter in model.parameters():
        parameter.data = parameter.data * 1.1
    assert_alike(decoded(model)[0], by_forward(model)[0])
    double = model.double()
    assert decoder(double).row is not None  # and in another dtype


class Count(TorchDispatchMode):
    """How often each operator is called."""

    def __enter__(self):
        self.calls = 0
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        return function(*args, **(kwargs or {}))


def calls_of_a_step(model, method):
    run = decoder(model, method)
    run.prefill()
    run.step([1])
    with Count() as count:
        run.step([2])
    return count.calls


def test_a_boost_adds_no_call_a_layer_to_an_eager_step(checkpoint):
    """Its bias is laid out once for a run; a step takes one view of it."""
    model = prepared(checkpoint("llama")[0])
    plain, boosted = (calls_of_a_step(model, method) for method in ("plain", "boosted"))
    assert boosted - plain == 1  # the view, for all layers
    model.row = None
    assert plain < 0.75 * calls_of_a_step(model, "plain")


def allocations_of_a_step(model):
    """Pieces of memory that are more than a number."""
    run = decoder(model)
    run.prefill()
    run.step([1])
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as found:
        run.step([2])
    events = found.profiler.kineto_results.events()
    return sum(event.name() == "[memory]" and event.nbytes() > 8 for event in events)


@pytest.mark.parametrize(
    ("dtype", "a_layer"),
    [
        (torch.float32, 1 + 3),  # a rotated copy; attention's result, its sums and its workspace
        (torch.bfloat16, 1 + 4 + 4),  # one workspace more, and oneDNN's of each product
    ],
)
def test_an_eager_layer_allocates_only_what_pytorchs_kernels_do_themselves(
    checkpoint, dtype, a_layer
):
    model = prepared(checkpoint("llama")[0], dtype=dtype)
    around = 8  # the layers: token, embedding, logits
    assert allocations_of_a_step(model) <= a_layer * len(model.layers) + around
    model.row = None
    assert allocations_of_a_step(model) > 2 * (a_layer * len(model.layers) + around)


def test_logits_are_the_callers(checkpoint):
    """Later steps do not write to them."""
    run = decoder(prepared(checkpoint("llama")[0]))
    run.prefill()
    logits = run.step([1])
    before = logits.clone()
    run.step([2])
    assert torch.equal(logits, before)


def test_two_runs_in_turn_do_not_disturb_each_other(checkpoint):
    model = prepared(checkpoint("llama")[0])
    want = {method: decoded(model, method, range(STEPS)) for method in ("plain", "boosted")}
    runs = {method: decoder(model, method) for method in want}
    for run in runs.values():
        run.prefill()
    for token in range(STEPS):
        for method, run in runs.items():
            assert torch.equal(run.step([token])[0], want[method][0][1 + token])


COMPILED = "qwen3-bias-yarn"  # biases, norms of q and k, heads in groups, an odd vocabulary


@pytest.fixture(scope="module")
def compiled_model(checkpoint, tmp_path_factory):
    """The checkpoint COMPILED, with its decode step compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINBOOST_CACHE", str(tmp_path_factory.mktemp("compiled")))
        yield prepared(checkpoint(COMPILED)[0], compile=True)


@pytest.mark.parametrize("method", METHODS)
def test_compiled_rows_give_forwards_logits_and_greedy_tokens(
    compiled_model, by_forward, no_forward, method
):
    want, tokens = by_forward(compiled_model, method)
    no_forward()
    got, got_tokens = decoded(compiled_model, method)
    assert got_tokens == tokens
    assert_alike(got, want)


def test_a_compiled_boost_runs_the_very_code_of_the_plain_model(compiled_model):
    """So it can cost nothing: the calls of a step are the same."""
    plain, boosted = (calls_of_a_step(compiled_model, method) for method in ("plain", "boosted"))
    assert plain == boosted


def test_one_compiled_function_serves_all_layers_and_later_runs(
    compiled_model, checkpoint, monkeypatch, capfd
):
    kept = sorted(
        path.name.split("-")[0] for path in (machine.cache_folder() / "compiled").iterdir()
    )
    assert kept == ["head", "layer"]  # of three layers

    def never(*_):
        raise AssertionError("compiled a second time")

    monkeypatch.setattr(compiling, "_compile", never)
    again = prepared(checkpoint(COMPILED)[0], compile=True)
    assert torch.equal(decoded(again)[0], decoded(compiled_model)[0])
    assert "compil" not in capfd.readouterr().err


@pytest.mark.parametrize("threads", [2, 4])
def test_a_thread_count_that_has_grown_since_is_harmless(compiled_model, threads):
    want = decoded(compiled_model)[0]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_alike(decoded(compiled_model)[0], want)
    finally:
        torch.set_num_threads(before)


def test_a_compiled_model_in_another_dtype_goes_through_forward(compiled_model):
    model = copy.copy(compiled_model)
    model.row = cpu.RowDecoder({}, compiled_model.row.compiled, made_for=[])
    assert decoder(model).row is None
    assert decoder(compiled_model).row is not None


def test_a_copy_of_a_compiled_model_decodes_as_it_does(compiled_model):
    again = copy.deepcopy(compiled_model)
    assert torch.equal(decoded(again)[0], decoded(compiled_model)[0])


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="of POSIX")
def test_code_is_loaded_only_from_a_folder_that_is_the_users_own(
    compiled_model, checkpoint, monkeypatch
):
    folder = machine.cache_folder() / "compiled"
    assert folder.stat().st_mode & 0o077 == 0
    folder.chmod(0o777)
    with pytest.raises(ModelError, match="others may write to it; code is loaded only"):
        prepared(checkpoint(COMPILED)[0], compile=True)
    folder.chmod(0o700)
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(ModelError, match="belongs to another user"):
        prepared(checkpoint(COMPILED)[0], compile=True)


@pytest.mark.slow
def test_compiling_leaves_nothing_where_others_write(checkpoint, tmp_path):
    """Inductor's own files, some of which it loads, lie in the cache; its variable is as before."""
    script = """
import os, sys, tempfile, torch
from pathlib import Path
from minboost import cpu
from minboost.checkpoint import load_model
from minboost.config import ModelConfig

folder = Path(sys.argv[1])
model = load_model(folder, ModelConfig.from_folder(folder),
                   device=torch.device("cpu"), dtype=torch.float32)
before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
cpu.prepare(model, compile=True)
assert os.environ.get("TORCHINDUCTOR_CACHE_DIR") == before
print(os.listdir(tempfile.gettempdir()))
"""
    shared, cache = tmp_path / "shared", tmp_path / "cache"
    shared.mkdir()
    environment = {**os.environ, "TMPDIR": str(shared), "MINBOOST_CACHE": str(cache)}
    out = subprocess.run(
        [sys.executable, "-c", script, str(checkpoint("llama")[0])],
        env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    # What it loads, it unpacks into folders with names of their own, which nobody can guess.
    assert "torchinductor" not in out
    assert any((cache / "inductor").rglob("*.so"))


def test_a_damaged_library_is_compiled_again(compiled_model, checkpoint, monkeypatch, capfd):
    folder = machine.cache_folder() / "compiled"
    whole = {path: path.read_bytes() for path in folder.iterdir() if path.name.startswith("head")}
    ((path, content),) = whole.items()
    path.write_bytes(content[: len(content) // 2])
    monkeypatch.setattr(compiling, "_compile", lambda *args: args[-1].write_bytes(content))
    again = prepared(checkpoint(COMPILED)[0], compile=True)
    assert "is damaged and will be replaced" in capfd.readouterr().err
    assert torch.equal(decoded(again)[0], decoded(compiled_model)[0])


def test_without_a_compiler_the_error_says_what_to_install(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("MINBOOST_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    from torch._inductor import config  # slow to import, and not all need it

    without = config.patch({"cpp.cxx": (None, "no-such-compiler")})
    wanted = pytest.raises(InputError, match=r"needs a C\+\+ compiler.* install g\+\+ or clang")
    with without, wanted:
        prepared(checkpoint("llama")[0], compile=True)


def test_an_older_torch_is_refused_by_version(checkpoint, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.5.1")
    with pytest.raises(InputError, match=r"compile needs torch 2\.7 or newer, and 2\.5\.1 is here"):
        prepared(checkpoint("llama")[0], compile=True)


def test_compile_is_refused_where_it_cannot_serve(checkpoint):
    model = load(checkpoint("llama")[0], impl="reference")
    with pytest.raises(InputError, match="this model runs reference on cpu"):
        cpu.prepare(model, compile=True)
    cpu.prepare(model)
    assert model.row is None


@pytest.mark.parametrize("supported", [True, False])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_auto_is_bfloat16_where_checkpoint_and_processor_both_have_it(
    tmp_path, monkeypatch, stored, supported
):
    tiny.save("llama", tmp_path, dtype=stored)
    monkeypatch.setattr("minboost.loading.has_bfloat16", lambda: supported)
    both = supported and stored == torch.bfloat16
    lm = minboost.load(tmp_path, device="cpu")
    assert lm.dtype == (torch.bfloat16 if both else torch.float32)


def test_the_compiled_forms_equal_the_eager_ones_uncompiled(checkpoint):
    """The sums by rows, of sizes that the number of streams does not divide."""
    model = load(checkpoint("llama-biases")[0])
    weights, shape = all_layer_weights(model)[0], shape_of(model)
    config = model.config
    x = torch.randn(config.hidden_size, generator=torch.Generator().manual_seed(0))
    angles = torch.linspace(0, 3, shape.head_dim)
    bias = torch.randn(shape.heads, 5, generator=torch.Generator().manual_seed(1))
    groups = (1, shape.kv_heads, shape.heads // shape.kv_heads, 5)
    outs = []
    for by, laid_out in ((Inductor(), bias.t()), (cpu.Eager({}), bias.view(groups))):
        cache = torch.zeros(2, 1, shape.kv_heads, 9, shape.head_dim)
        row = Row(
            angles.cos(),
            angles.sin(),
            torch.tensor([4]),
            *cache,
            laid_out,
        )
        outs.append((layer(x, row, weights, shape, by, range(5)), cache))
    for got, want in zip(*outs, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype", "int8"),
    [
        ("llama-biases", torch.float32, True),
        ("llama-tied", torch.bfloat16, False),
        ("mistral", torch.bfloat16, True),
        ("qwen2-window", torch.float32, False),
    ],
    ids=["biases-fp32-int8", "tied-bf16", "window-bf16-int8", "window-biases-fp32"],
)
def test_every_kind_of_model_compiles(
    checkpoint, by_forward, tmp_path, monkeypatch, name, dtype, int8
):
    monkeypatch.setenv("MINBOOST_CACHE", str(tmp_path))
    folder, quantize = checkpoint(name)[0], "int8" if int8 else None
    model = prepared(folder, compile=True, dtype=dtype, quantize=quantize)
    if dtype == torch.float32:
        want, tokens = by_forward(model, "boosted")
        got, got_tokens = decoded(model, "boosted")
        assert got_tokens == tokens
        assert_alike(got, want)
    else:
        exact = prepared(folder, dtype=dtype, quantize=quantize).float()
        errs_at_most_twice(model, exact, by_forward)
