"""Attention mass: measured as explicit softmax weights have it, and shown as it was measured."""

from __future__ import annotations

import io
import json
import math
import shutil
import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import minboost
from minboost import Boost, Guide, InputError, Latent, Pasta, Request, Span, Spotlight
from minboost.analysis.heatmap import Style, heat_map, label, picture, printable, steps
from minboost.analysis.mass import MassMap, measure
from minboost.analysis.mass_figure import draw
from minboost.cli import main as minboost_main
from minboost.directions import Direction
from minboost.generate import main as generate_main
from minboost.plan import Plan, sequence_plan

from .conftest import load
from .test_method_proofs import ids_of, steered_pattern

TEXTS = {"instruction": "Answer in French.", "query": "What colour is the sky?"}
ASK = ["--instruction", TEXTS["instruction"], "--query", TEXTS["query"]]
SHORT = ["--max-new-tokens", "5"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def lm(checkpoint):
    return minboost.load(str(checkpoint("llama")[0]), device="cpu")


# --- measured -------------------------------------------------------------------------------------


def stepwise(theirs, ids, start, span, monkeypatch, *, asked=(), prompt=0, cached=True):
    """transformers, a token a step: the weights on ``span`` of positions ``start`` on, (L, H, R).

    ``asked`` steers the weights of its eager attention as the methods' papers do.
    """
    module = sys.modules[type(theirs).__module__]
    eager = module.eager_attention_forward

    def steered(attn, query, key, value, mask, **options):
        _, weights = eager(attn, query, key, value, mask, **options)
        weights = steered_pattern(weights, None, attn.layer_idx, asked, prompt)
        value = value.repeat_interleave(attn.num_key_value_groups, dim=1)
        return (weights @ value).transpose(1, 2).contiguous(), weights

    masses, past = [], None
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(module, "eager_attention_forward", steered)
        for stop in range(start + 1, len(ids) + 1):
            fed = ids[:stop] if past is None else ids[stop - 1 : stop]
            out = theirs(
                torch.tensor([fed]), past_key_values=past, use_cache=cached, output_attentions=True
            )
            past = out.past_key_values if cached else None
            last = torch.stack([weights[0, :, -1] for weights in out.attentions])  # (L, H, S)
            masses.append(last[..., span.start : span.stop].sum(-1))
    return torch.stack(masses, dim=-1)


STEERING = {
    "boosted": Boost(6.0),
    "boosted-heads": Boost(20.0, heads={0: [1, 4], 2: [0]}),
    "spotlight": Spotlight(0.6),
    "pasta": Pasta(0.05, layers="1-2"),
}


@pytest.mark.parametrize("method", STEERING.values(), ids=STEERING)
@pytest.mark.parametrize("name", ["llama", "qwen3", "llama-multi-query"])
def test_mass_equals_the_explicit_weights_of_decoding_step_by_step(
    checkpoint, monkeypatch, name, method
):
    folder, theirs = checkpoint(name)
    lm = minboost.load(str(folder), device="cpu")
    out = lm.generate(**TEXTS, boost=method, max_new_tokens=8)
    mass = measure(lm, Request(**TEXTS, boost=method), answer=out.ids)
    assert mass.baseline.shape == mass.steered.shape == (3, 6, 8)
    assert mass.spans == (out.prompt.instruction,)
    ids, n = [*out.prompt.ids, *out.ids[:-1]], len(out.prompt.ids)
    span = out.prompt.instruction
    before = stepwise(theirs, ids, n - 1, span, monkeypatch)
    asked = [(method, [span])]
    after = stepwise(theirs, ids, n - 1, span, monkeypatch, asked=asked, prompt=n)
    torch.testing.assert_close(mass.baseline, before, atol=1e-5, rtol=0)
    torch.testing.assert_close(mass.steered, after, atol=1e-5, rtol=0)
    assert (after - before).abs().max() > 0.1


def test_a_window_that_moves_on_takes_the_mass_with_it(checkpoint, monkeypatch):
    """A sliding window of 12: the text is seen from the prompt's end, and later no more."""
    folder, theirs = checkpoint("mistral")
    lm = minboost.load(str(folder), device="cpu")
    boost = Boost(5.0, span="sky")
    out = lm.generate(**TEXTS, boost=boost, max_new_tokens=12)
    (span,) = out.prompt.find("sky")
    mass = measure(lm, Request(**TEXTS, boost=boost), answer=out.ids, prompt=out.prompt)
    ids, n = [*out.prompt.ids, *out.ids[:-1]], len(out.prompt.ids)
    ask = {"cached": False}  # their sliding cache renumbers the keys
    before = stepwise(theirs, ids, n - 1, span, monkeypatch, **ask)
    asked = [(boost, [span])]
    after = stepwise(theirs, ids, n - 1, span, monkeypatch, asked=asked, prompt=n, **ask)
    torch.testing.assert_close(mass.baseline, before, atol=1e-5, rtol=0)
    torch.testing.assert_close(mass.steered, after, atol=1e-5, rtol=0)
    unseen = torch.arange(n - 1, len(ids)) - (span.stop - 1) >= 12
    assert unseen.any()
    assert not unseen.all()
    assert (mass.steered[:, :, unseen] == 0).all()
    assert (mass.steered[:, :, ~unseen] > 0).all()


def plan_of(model, methods):
    """A batch: sequence b has ``methods[b]`` on a span of its own."""
    spans = [Span(3, 9), Span(1, 14)]
    size = model.config.size
    sequences = [
        sequence_plan([(method, [span])], tokens=30, **size)
        for method, span in zip(methods, spans, strict=True)
    ]
    return Plan.build(sequences, **size, device=CPU)


@pytest.mark.parametrize("rows", [range(29, 30), range(30, 41), range(41)], ids=str)
@pytest.mark.parametrize(
    "methods",
    [(Boost(6.0), Boost(0.3)), (Spotlight(0.5), Boost(6.0)), (Boost(1.0), Boost(1.0))],
    ids=["boosted", "spotlight", "plain"],
)
@pytest.mark.parametrize("impl", ["torch", "reference"])
@pytest.mark.parametrize("name", ["llama", "llama-multi-head", "mistral", "qwen2-window"])
@torch.inference_mode()
def test_chosen_rows_have_the_mass_that_all_rows_have_and_change_nothing(
    checkpoint, name, impl, methods, rows
):
    model = load(checkpoint(name)[0], impl=impl)
    ids = torch.cat((ids_of(41), ids_of(41, seed=8)))
    plan = plan_of(model, methods)
    whole = model(ids, plan=plan, return_mass=True)
    some = model(ids, plan=plan, return_mass=True, rows=rows)
    torch.testing.assert_close(
        some.mass, whole.mass[:, :, :, rows.start : rows.stop], atol=2e-6, rtol=1e-5
    )
    assert torch.equal(some.hidden, model(ids, plan=plan).hidden)


@pytest.mark.parametrize("rows", [range(15, 16), range(12, 18)], ids=str)
@torch.inference_mode()
def test_the_kernels_give_chosen_rows_the_same_mass(checkpoint, rows):
    pytest.importorskip("triton")
    folder, _ = checkpoint("llama")
    ids = ids_of(18)
    masses = {}
    for impl in ("torch", "triton"):
        model = load(folder, impl=impl)
        size = model.config.size
        sequence = sequence_plan([(Boost(6.0), [Span(3, 9)])], tokens=18, **size)
        plan = Plan.build([sequence], **size, device=CPU)
        masses[impl] = model(ids, plan=plan, return_mass=True, rows=rows).mass
    torch.testing.assert_close(masses["triton"], masses["torch"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "nothing",
    [None, Boost(1.0), Pasta(1.0), Guide(0.0), Boost(1.0, span="sky")],
    ids=["None", "boost", "pasta", "guide", "span"],
)
def test_what_steers_nothing_leaves_the_mass_as_it_was(lm, nothing):
    mass = measure(lm, Request(**TEXTS, boost=nothing, max_new_tokens=4))
    assert torch.equal(mass.baseline, mass.steered)
    assert mass.baseline.min() > 0
    assert "no head changed" in picture(mass, Style())


@pytest.mark.parametrize("m", [0.2, 10.0])
def test_a_boost_makes_of_p_on_layer_0_mp_over_1_plus_m_minus_1_p(lm, m):
    """Every row and head; the layers after it see another stream."""
    mass = measure(lm, Request(**TEXTS, boost=Boost(m), max_new_tokens=9))
    p = mass.baseline.double()
    want = m * p / (1 + (m - 1) * p)
    torch.testing.assert_close(mass.steered[0].double(), want[0], atol=1e-6, rtol=0)
    assert (mass.steered[1:] - want[1:]).abs().max() > 1e-3


def test_a_target_is_reached_where_the_mass_fell_short(lm):
    mass = measure(lm, Request(**TEXTS, boost=Spotlight(0.7), max_new_tokens=6))
    want = mass.baseline[0].clamp(min=0.7)
    torch.testing.assert_close(mass.steered[0], want, atol=1e-5, rtol=0)


def test_a_direction_in_the_stream_moves_the_mass_of_later_layers_alone(lm):
    vector = torch.ones(48) / math.sqrt(48)
    latent = Latent(8.0, layers=[0], direction=Direction("random", 0, vector))
    mass = measure(lm, Request(**TEXTS, boost=latent, max_new_tokens=4))
    assert mass.measured == "the instruction"
    assert torch.equal(mass.baseline[0], mass.steered[0])
    assert (mass.baseline[1:] - mass.steered[1:]).abs().max() > 1e-3


def test_what_is_measured_is_what_the_method_names(lm):
    prompt = lm.generate(**TEXTS, max_new_tokens=1).prompt

    def of(boost, **changes):
        return measure(lm, Request(**{**TEXTS, **changes}, boost=boost), answer=[7], prompt=None)

    assert of(None).spans == of(Pasta()).spans == (prompt.instruction,)
    prefix = of(Boost(span="prefix"))
    assert (prefix.spans, prefix.measured) == ((prompt.prefix,), "the prefix")
    overlapping = of([Boost(span="the sky"), Boost(span="is the")])
    whole = of(Boost(span="is the sky"))
    assert overlapping.spans == whole.spans
    torch.testing.assert_close(overlapping.baseline, whole.baseline)
    twice = of(Boost(span="sky"), query="The sky? The sky.")
    assert len(twice.spans) == 2
    assert (twice.measured, overlapping.measured) == ("'sky'", "the named text")
    parts = [of(Boost(span=span), query="The sky? The sky.") for span in twice.spans]
    torch.testing.assert_close(twice.baseline, sum(part.baseline for part in parts))
    tagged = of(Guide(1.0), instruction=None, query="What <!-> colour <-!> is <!!->it?<-!!>")
    assert (len(tagged.spans), tagged.measured) == (2, "the named text")


def test_a_request_is_answered_first_where_no_answer_is_given(lm):
    request = Request(**TEXTS, boost=Boost(4.0), max_new_tokens=6)
    out = lm.generate_batch([request])[0]
    first, then = measure(lm, request), measure(lm, request, answer=out.ids)
    assert torch.equal(first.steered, then.steered)
    assert first.tokens == then.tokens
    assert "".join(first.tokens).startswith(out.text[:3])
    other = measure(lm, request, answer=[9, 9, 9])
    assert other.steered.shape[2] == 3
    assert torch.equal(other.steered[:, :, 0], first.steered[:, :, 0])  # the same last position


def test_no_answer_leaves_the_prompts_last_position(lm):
    request = Request(**TEXTS, boost=Boost(4.0))
    mass = measure(lm, request, answer=[])
    assert mass.tokens == ()
    torch.testing.assert_close(mass.steered, measure(lm, request, answer=[5]).steered)
    assert mass.as_json()["steps"] == []
    assert "token" not in picture(mass, Style()).splitlines()[-1]
    out = lm.generate(**TEXTS, boost=Boost(4.0), measure_mass=True).attention_mass
    torch.testing.assert_close(mass.baseline[:, :, 0], out.baseline)
    torch.testing.assert_close(mass.steered[:, :, 0], out.boosted)


@pytest.mark.parametrize(
    ("request_", "answer", "message"),
    [
        (Request(query="Why?"), None, "there is nothing whose attention mass could be measured"),
        (Request(query="Why?", boost=Boost()), None, "the request has no instruction"),
        (Request(query="Why?", boost=Boost(span="x")), [1], "'x' does not occur"),
        (Request(**TEXTS), [300], r"an id of the answer must be an integer in \[0, 300\), got 300"),
        (Request(**TEXTS), [1] * 235, "an answer of 235 are more than the model's context of 256"),
    ],
    ids=["nothing", "no-instruction", "no-such-text", "id", "context"],
)
def test_what_cannot_be_measured_is_refused(lm, request_, answer, message):
    with pytest.raises(InputError, match=message):
        measure(lm, request_, answer=answer)


class Largest(TorchDispatchMode):
    """Records the largest tensor that any operation made."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize(
    "method", [Boost(5.0), Spotlight(0.5), Pasta(0.1)], ids=["boosted", "spotlight", "pasta"]
)
@pytest.mark.parametrize("impl", ["torch", "reference"])
def test_nothing_of_the_size_of_the_attention_matrix_is_made(checkpoint, tmp_path, impl, method):
    """At T = 600, in all heads together; the reference, which holds the matrix, is seen to."""
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("llama")[0], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1024}))
    lm = minboost.load(str(folder), device="cpu", impl=impl)
    request = Request(instruction=TEXTS["instruction"], query="sky " * 565, boost=method)
    prompt = lm.generate(instruction=request.instruction, query=request.query, max_new_tokens=1)
    T = len(prompt.prompt.ids) + 20
    assert 570 < T < 700
    with Largest() as largest:
        measure(lm, request, answer=[7] * 21)
    assert (largest.elements >= T * T) == (impl == "reference")


# --- shown ----------------------------------------------------------------------------------------

BEFORE = torch.tensor([[0.0, 0.1, 0.29], [0.25, 0.5, 0.0]])
AFTER = torch.tensor([[0.2, 0.4, 0.994], [0.25, 1.0, 0.61]])


def mass_map(before=BEFORE, after=AFTER, tokens=("Bleu",)):
    def rows(side):
        return torch.stack([side / (k + 1) for k in range(max(1, len(tokens)))], dim=-1)

    return MassMap(
        baseline=rows(before),
        steered=rows(after),
        tokens=tokens,
        spans=(Span(2, 6),),
        measured="the instruction",
    )


def test_a_known_matrix_is_drawn_so():
    assert picture(mass_map(), Style(80)).splitlines() == [
        "Attention mass on the instruction, tokens [2, 6), at the prompt's last position,",
        "  in %",
        "",
        "                before                  after",
        "head        0   1   2    mean      0   1   2    mean",
        "layer 0     0  10  29░   13.0     20░ 40▒ 99█   53.1",
        "layer 1    25░ 50▒  0    25.0     25░100█ 61▓   62.0",
        "scale, from: blank 0.0  ░ 20.0  ▒ 40.0  ▓ 60.0  █ 80.0  to 100.0 %",
        "",
        "mean mass on the instruction: 19.0 → 57.6 %",
        "changed most: layer 0 head 2 (29.0 → 99.4 %), layer 1 head 2 (0.0 → 61.0 %),",
        "  layer 1 head 1 (50.0 → 100.0 %)",
    ]


def test_the_steps_stand_under_their_tokens_and_break_with_the_line():
    mass = mass_map(tokens=("Bleu", " ciel", "<|end|>"))
    assert steps(mass, Style(30)) == [
        "Mean mass of all heads as each",
        "  token of the answer was",
        "  chosen, in %",
        "",
        "token     Bleu    ciel",
        "before  ▃ 19.0  ▂  9.5",
        "after   █ 57.6  ▅ 28.8",
        "",
        "token   <|end|>",
        "before   ▁  6.3",
        "after    ▃ 19.2",
    ]
    assert len(steps(mass, Style(80))) == 5


def test_a_wide_model_is_folded_into_means_that_say_so():
    g = torch.Generator().manual_seed(2)
    before, after = torch.rand(2, 32, generator=g), torch.rand(2, 32, generator=g)
    lines = heat_map(before, after, Style(80))
    assert max(map(len, lines)) <= 80
    assert lines[4:6] == [
        "32 heads do not fit in this width: a column is the mean of 8, and names the",
        "  first",
    ]
    assert lines[1].split() == ["head", *["0", "8", "16", "24", "mean"] * 2]
    for layer, line in enumerate(lines[2:4]):
        shown = [float(x.strip("░▒▓█")) for x in line.split()[2:]]
        for side, values in ((before, shown[:5]), (after, shown[5:])):
            want = [*side[layer].view(4, 8).mean(1), side[layer].mean()]
            assert values == [*(round(100 * v.item()) for v in want[:4]),
                              round(100 * want[4].item(), 1)]  # fmt: skip
    whole = heat_map(before, after, Style(300))
    assert whole[1].split() == ["head", *[*map(str, range(32)), "mean"] * 2]
    assert not any("fit" in line for line in whole)


@pytest.mark.parametrize(
    ("heads", "columns", "said"),
    [
        (13, 7, "a column is the mean of 2, and names the first, the last of 1"),
        (14, 7, "a column is the mean of 2, and names the first"),
        (7, 7, None),
    ],
)  # fmt: skip
def test_heads_fold_by_a_divisor_if_one_is_near(heads, columns, said):
    side = torch.ones(1, heads) / 2
    lines = heat_map(side, side, Style(84))
    assert len(lines[1].split()) == 2 * (columns + 1) + 1
    assert max(map(len, lines)) <= 84
    folded = f"{heads} heads do not fit in this width: {said}" if said else ""
    assert " ".join(line.strip() for line in lines[3:-1]) == folded


@pytest.mark.parametrize("width", [1, 20, 40, 57, 200])
def test_every_width_is_drawn(width):
    assert picture(mass_map(tokens=("a", "b" * 30)), Style(width))


def test_with_colour_a_cell_is_a_number_on_a_shade():
    lines = heat_map(BEFORE, AFTER, Style(80, colour=True))
    assert lines[2].startswith("layer 0   \x1b[48;5;53m\x1b[38;5;231m  0 \x1b[0m")
    assert "\x1b[48;5;220m\x1b[38;5;16m100 \x1b[0m" in lines[3]  # the highest: light, black ink
    assert not any(shade in line for line in lines for shade in "░▒▓█")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "want"),
    [
        (Terminal(), {"COLUMNS": "120"}, Style(120, colour=True)),
        (Terminal(), {"NO_COLOR": "1", "COLUMNS": "0"}, Style(100)),
        (Terminal(), {"NO_COLOR": ""}, Style(100, colour=True)),
        (Terminal(), {"TERM": "dumb", "COLUMNS": "many"}, Style(100)),
        (io.StringIO(), {"COLUMNS": "70"}, Style(70)),
        (None, {}, Style(100)),
    ],
)
def test_colour_is_for_terminals_that_did_not_refuse_it(stream, environment, want):
    assert Style.of(stream, environment) == want


@pytest.mark.parametrize(
    ("token", "want"),
    [
        (" ciel", "ciel"),
        ("\n\n", r"'\n\n'"),
        ("", "''"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("\u202eabc", r"\u202eabc"),
        ("antidisestablishment", "antidisesta…"),
        ("日本語日本語日本語", "日本語日本…"),
    ],
)
def test_a_token_is_one_short_line_without_control_characters(token, want):
    assert label(token) == want


def test_an_encoding_without_the_shades_gets_plain_characters():
    text = picture(mass_map(tokens=("Bleu", "é")), Style(80))
    assert printable(text, "utf-8") == printable(text, None) == text
    plain = printable(text, "ascii")
    assert "25+" not in plain
    assert " 25.100# 61+" in plain
    assert "19.0 -> 57.6 %" in plain
    assert "é" in printable(text, "cp1252")


def test_the_json_holds_the_matrices_and_the_steps():
    mass = mass_map(tokens=("Bleu", "."))
    got = mass.as_json()
    assert got["measured"] == "the instruction"
    assert got["spans"] == [[2, 6]]
    assert got["baseline"] == [[0.0, 0.1, 0.29], [0.25, 0.5, 0.0]]
    assert got["steered"] == [[0.2, 0.4, 0.994], [0.25, 1.0, 0.61]]
    assert got["baseline_mean"] == 0.19
    assert got["steered_mean"] == 0.575667
    assert got["steps"] == [
        {"token": "Bleu", "baseline_mean": 0.19, "steered_mean": 0.575667},
        {"token": ".", "baseline_mean": 0.095, "steered_mean": 0.287833},
    ]
    step = mass.as_json(all_steps=True)["steps"][1]
    assert step["baseline"] == [[0.0, 0.05, 0.145], [0.125, 0.25, 0.0]]
    assert step["steered"] == [[0.1, 0.2, 0.497], [0.125, 0.5, 0.305]]


@pytest.mark.parametrize("tokens", [("$1", "日\n", "<|end|>"), (), tuple("x" * 150)], ids=len)
def test_a_plot_is_not_blank_and_always_the_same(tmp_path, tokens):
    from matplotlib.image import imread

    mass = mass_map(tokens=tokens)
    draw(mass, tmp_path / "a.png")
    image = imread(tmp_path / "a.png")
    assert min(image.shape[:2]) > 400
    assert image[..., :3].std() > 0.05
    for name in ("a.svg", "b.svg"):
        draw(mass, tmp_path / name)
    text = (tmp_path / "a.svg").read_bytes()
    assert text == (tmp_path / "b.svg").read_bytes()
    assert b"<dc:date>" not in text
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a.svg", "b.svg"}


def test_the_two_maps_of_a_plot_share_one_scale():
    from minboost.analysis.mass_figure import mass_figure

    drawn = mass_figure(mass_map(tokens=("Bleu", "$5$")))
    maps = [axes.images[0] for axes in drawn.axes if axes.images]
    assert [tuple(image.get_clim()) for image in maps[:2]] == [(0, 100.0)] * 2
    torch.testing.assert_close(torch.as_tensor(maps[1].get_array().data), 100 * AFTER)
    (lines,) = (axes.lines for axes in drawn.axes if len(axes.lines) == 2)
    assert lines[0].get_ydata() == pytest.approx([19.0, 9.5])
    assert lines[1].get_ydata() == pytest.approx([57.56667, 28.78333])
    names = [text.get_text() for text in lines[0].axes.get_xticklabels()]
    assert names == ["Bleu", "$5$"]


def test_the_memory_of_measuring_is_flat_in_the_results_file(request):
    """A token costs the same at every length, within a kilobyte; a matrix would cost T times."""
    path = request.config.rootpath / "benchmarks" / "results" / "mass_memory.json"
    rows = json.loads(path.read_text())["rows"]
    assert [row["tokens"] for row in rows] == [512, 1024, 2048, 4096, 8192]
    for name in ("measured", "every_row"):
        extra = [row["extra_bytes_per_token"][name] for row in rows]
        assert extra[-1] <= min(extra) + 1000
    last = rows[-1]
    more = last["peak_bytes"]["every_row"] - last["peak_bytes"]["plain"]
    assert more < last["all_layers_matrices_bytes"] / 100


# --- the commands ---------------------------------------------------------------------------------


@pytest.fixture
def model(checkpoint, clean_settings):
    return ["--model", str(checkpoint("llama")[0]), "--device", "cpu"]


def inspect(*args):
    return minboost_main(["inspect", *args])


def test_stdout_holds_the_map_and_stderr_the_rest(model, capfd):
    assert inspect(*model, *ASK, *SHORT) == 0
    out, err = capfd.readouterr()
    assert out.startswith("Attention mass on the instruction, tokens [2, 10), at the prompt's")
    assert out.count("\nlayer ") == 3
    assert "mean mass on the instruction: " in out
    assert "\x1b" not in out + err
    assert "boosted 'instruction' = tokens [2, 10) x 10 on 3 layers, 18 heads" in err
    assert "answer 5 tokens" in err


def test_inspects_json_has_the_documented_fields(model, lm, capfd):
    assert inspect(*model, *ASK, *SHORT, "--json", "--method", "spotlight", "--target", "0.6") == 0
    result = json.loads(capfd.readouterr().out)
    assert result["method"] == "spotlight"
    assert result["parameters"] == {"target": 0.6, "form": "exact"}
    assert result["instruction_span"] == [2, 10]
    assert result["new_tokens"] == 5
    found = result["inspect"]
    mass = measure(lm, Request(**TEXTS, boost=Spotlight(0.6), max_new_tokens=5))
    for name in ("baseline", "steered"):
        got, want = torch.tensor(found[name]), getattr(mass, name)
        torch.testing.assert_close(got, want[:, :, 0], atol=1e-6, rtol=0)
        assert found[f"{name}_mean"] == pytest.approx(want[:, :, 0].mean().item(), abs=1e-6)
        means = [step[f"{name}_mean"] for step in found["steps"]]
        assert means == pytest.approx(want.mean((0, 1)).tolist(), abs=1e-6)
    assert [set(step) for step in found["steps"]] == [
        {"token", "baseline_mean", "steered_mean"}
    ] * 5
    assert result["attention_mass"]["boosted"] == pytest.approx(found["steered_mean"], abs=1e-5)
    assert inspect(*model, *ASK, *SHORT, "--json", "--all-steps") == 0
    steps = json.loads(capfd.readouterr().out)["inspect"]["steps"]
    assert torch.tensor([step["steered"] for step in steps]).shape == (5, 3, 6)


def test_a_text_of_the_query_can_be_inspected_without_an_instruction(model, capfd):
    assert inspect(*model, *ASK[2:], *SHORT, "--span", "sky") == 0
    assert "Attention mass on 'sky', tokens [" in capfd.readouterr().out
    tagged = ["--query", "What <!->colour<-!> is it?", "--method", "guide"]
    assert inspect(*model, *tagged, *SHORT, "--json") == 0
    result = json.loads(capfd.readouterr().out)
    assert result["instruction"] is None
    assert result["attention_mass"] is None
    assert len(result["inspect"]["spans"]) == 1


WRONG = {
    "nothing-to-measure": (ASK[2:], "--instruction is missing: without one, --span must name"),
    "prefix": ([*ASK[2:], "--span", "prefix"], "--span must name a text of the query"),
    "no-tags": ([*ASK[2:], "--method", "guide"], "the request has no instruction"),
    "no-query": (ASK[:2], "--query is missing"),
    "empty": (["--instruction", "", *ASK[2:]], "the instruction is empty"),
    "all-steps": ([*ASK, "--all-steps"], "--all-steps is about the JSON: add --json"),
    "ending": ([*ASK, "--plot", "a.pdf"], "must be a file ending in .png or .svg, got a.pdf"),
    "folder": ([*ASK, "--plot", "no/a.png"], "the folder no is not there"),
}


@pytest.mark.parametrize(("args", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_inspection_ends_with_2_and_says_why(model, args, message, capfd):
    assert inspect(*model, *args) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert message in err


def test_the_plot_options_write_their_files(model, tmp_path, capfd):
    assert inspect(*model, *ASK, *SHORT, "--plot", str(tmp_path / "a.svg")) == 0
    assert f"wrote {tmp_path / 'a.svg'}" in capfd.readouterr().err
    args = [*model, *ASK, *SHORT, "--inspect-plot", str(tmp_path / "b.svg")]
    assert generate_main(args) == 0
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert generate_main([*args[:-1], "no/a.png"]) == 2


def test_inspect_leaves_generates_stdout_untouched(model, capfd):
    assert generate_main([*model, *ASK, *SHORT, "--compare"]) == 0
    plain, stats = capfd.readouterr()
    assert generate_main([*model, *ASK, *SHORT, "--compare", "--inspect"]) == 0
    out, err = capfd.readouterr()
    assert out == plain
    assert err.splitlines()[0] == stats.splitlines()[0]
    assert inspect(*model, *ASK, *SHORT) == 0
    assert err.endswith(capfd.readouterr().out)  # the same map


def test_generates_json_gains_one_object(model, capfd):
    assert generate_main([*model, *ASK, *SHORT, "--json"]) == 0
    without = json.loads(capfd.readouterr().out)
    assert generate_main([*model, *ASK, *SHORT, "--json", "--inspect"]) == 0
    out, err = capfd.readouterr()
    result = json.loads(out)
    assert set(result) - set(without) == {"inspect"}
    assert inspect(*model, *ASK, *SHORT, "--json") == 0
    assert result["inspect"] == json.loads(capfd.readouterr().out)["inspect"]
    assert len(err.splitlines()) == 2  # the stats


def test_sampled_answers_are_inspected_as_they_were_given(model, capfd):
    args = ["--temperature", "1.5", "--seed", "3", "--json"]
    assert generate_main([*model, *ASK, *SHORT, *args, "--inspect"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert len(result["inspect"]["steps"]) == result["new_tokens"] == 5


def test_help_of_inspect_needs_no_torch():
    code = "import sys; from minboost.cli import main; main(['inspect', '--help']); "
    code += "print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Examples:" in done.stdout
    assert not {"torch", "matplotlib", "yaml"} & set(done.stdout.splitlines()[-1].split())
