"""The methods as users meet them: values, tags, what they come to, and the command line."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

import minboost
import minboost.directions
from minboost import Boost, Guide, InputError, Latent, Pasta, Request, Span, Spotlight
from minboost.commands import options
from minboost.effects import Bias, Target
from minboost.generate import main
from minboost.methods import METHODS
from minboost.methods.guide import Tagged, read_tags
from minboost.plan import Plan, sequence_plan
from minboost.span import outside

pytestmark = pytest.mark.usefixtures("clean_settings")

SIZE = {"n_layers": 3, "n_heads": 6}
ASK = {"instruction": "Answer in French.", "query": "What colour is the sky?", "max_new_tokens": 8}
TEXTS = ["--instruction", ASK["instruction"], "--query", ASK["query"], "--max-new-tokens", "8"]


@pytest.fixture(scope="module")
def lm(checkpoint):
    return minboost.load(str(checkpoint("llama")[0]), device="cpu")


@pytest.fixture
def model(checkpoint):
    return ["--model", str(checkpoint("llama")[0]), "--device", "cpu"]


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pasta(0), "alpha must be a finite number above 0, got 0"),
        (lambda: Pasta(-0.5), "alpha must be a finite number above 0, got -0.5"),
        (lambda: Pasta(math.nan), "alpha must be a finite number above 0, got nan"),
        (lambda: Pasta(scale_position="outside"), "scale_position must be exclude, include, gen"),
        (lambda: Guide(math.inf), "delta must be a finite number, got inf"),
        (lambda: Guide("1"), "delta must be a finite number, got '1'"),
        (lambda: Guide(-1e4), r"delta must lie in \[-1000, 1000\], got -10000.0"),
        (lambda: Boost(layers=torch.tensor(1)), "layers must be a text or a list of numbers"),
        (lambda: Spotlight(0), r"target must lie in \(0, 1\), got 0"),
        (lambda: Spotlight(1), r"target must lie in \(0, 1\), got 1"),
        (lambda: Spotlight(-0.1), r"target must lie in \(0, 1\), got -0.1"),
        (lambda: Spotlight(None), "target must be a finite number, got None"),
        (lambda: Spotlight(form="best"), "form must be exact or published, got 'best'"),
        (lambda: Pasta(heads={0: 1}), "heads of layer 0 must be a list"),
        (lambda: Spotlight(span=" "), "empty text"),
    ],
)
def test_a_value_out_of_range_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_every_method_names_its_own_parameters():
    own = {name: method.parameters() for name, method in METHODS.items()}
    assert own == {
        "instaboost": ("multiplier",),
        "pasta": ("alpha", "scale_position"),
        "guide": ("delta",),
        "spotlight": ("target", "form"),
        "latent": ("factor", "direction"),
    }
    assert set(options.METHOD_NAMES) == set(METHODS)
    named = {option: name for name, fields in own.items() for option in fields}
    assert {**named, "directions": "latent"} == options.OWN  # the file that a direction is in
    assert Pasta(0.2).parameter_values() == {"alpha": 0.2, "scale_position": "exclude"}


# --- effects ------------------------------------------------------------------------------------


def test_what_each_method_comes_to():
    spans = [Span(3, 6), Span(8, 9)]
    assert Boost(4.0).effects(spans, 12) == [Bias(tuple(spans), math.log(4))]
    assert Guide(-2.0).effects(spans, 12) == [Bias(tuple(spans), -2.0)]
    assert Pasta(0.1).effects(spans, 12) == [
        Bias((Span(0, 3), Span(6, 8), Span(9, 12)), math.log(0.1))
    ]
    assert Pasta(3.0, scale_position="include").effects(spans, 12) == [
        Bias(tuple(spans), math.log(3))
    ]
    assert Pasta(0.5, scale_position="generation").effects(spans, 12) == [
        Bias((Span(0, 12),), math.log(0.5))
    ]
    assert Spotlight(0.4).effects(spans, 12) == [Target(tuple(spans), 0.4, "exact")]


@given(
    length=st.integers(1, 20),
    ends=st.lists(st.tuples(st.integers(0, 18), st.integers(1, 6)), max_size=4),
)
def test_outside_holds_exactly_the_other_tokens(length, ends):
    spans = [Span(a, min(a + n, length)) for a, n in ends if a < length]
    others = outside(spans, length)
    inside = {k for span in spans for k in range(span.start, span.stop)}
    assert [k for span in others for k in range(span.start, span.stop)] == sorted(
        set(range(length)) - inside
    )


def test_pasta_on_a_span_that_is_the_whole_prompt_is_refused():
    with pytest.raises(InputError, match="PASTA would scale no token"):
        sequence_plan([(Pasta(), [Span(0, 9)])], tokens=9, **SIZE)


def test_a_target_acts_on_the_heads_and_layers_it_was_given():
    method = Spotlight(0.4, heads={0: [1, 2], 2: [5]})
    plan = sequence_plan([(method, [Span(2, 4)])], tokens=9, **SIZE)
    assert plan.heads == {0: (1, 2), 2: (5,)}
    assert plan.spans == (Span(2, 4),)
    compiled = Plan.build([plan], **SIZE, device=torch.device("cpu"))
    assert compiled.target.sum() == pytest.approx(3 * 0.4)
    assert [layer.target is not None for layer in compiled.layers] == [True, False, True]
    assert compiled.layers[1].log_multiplier is None  # which runs the plain path


def test_two_targets_of_a_request_must_be_on_one_span_and_in_one_form():
    def plan(*placed):
        return sequence_plan(placed, tokens=9, **SIZE)

    here, there = [Span(2, 4)], [Span(5, 6)]
    both = plan((Spotlight(0.2, layers=[0]), here), (Spotlight(0.6, layers="0-1"), here))
    assert both.target[0, 0] == pytest.approx(0.6)
    assert both.target[2].sum() == 0
    for other in ((Spotlight(0.2), there), (Spotlight(0.2, form="published"), here)):
        with pytest.raises(InputError, match="target masses on one span and in one form"):
            plan((Spotlight(0.3), here), other)


def test_a_batch_of_both_forms_is_refused(lm):
    forms = [Request(**ASK, boost=Spotlight(form=form)) for form in ("exact", "published")]
    with pytest.raises(InputError, match="cannot mix exact and published targets"):
        lm.generate_batch(forms)


def test_a_batch_gives_every_method_what_it_gets_alone(lm):
    methods = [
        Boost(6.0), Pasta(0.05), Pasta(0.1, scale_position="generation"), Guide(2.0, layers=[1]),
        Spotlight(0.5), [Spotlight(0.4, heads={1: [2]}), Boost(3.0, span="sky")], None,
    ]  # fmt: skip
    requests = [
        Request(**{**ASK, "query": "Why? " * n + ASK["query"]}, boost=method)
        for n, method in enumerate(methods)
    ]
    together = lm.generate_batch(requests, measure_mass=True)
    for request, out in zip(requests, together, strict=True):
        (alone,) = lm.generate_batch([request], measure_mass=True)
        assert out.ids == alone.ids
        assert (out.boosted_heads, out.boosted_spans) == (alone.boosted_heads, alone.boosted_spans)
        torch.testing.assert_close(out.attention_mass.boosted, alone.attention_mass.boosted)


@pytest.mark.parametrize("target", [1e-46, 1 - 1e-9])
@pytest.mark.parametrize("impl", ["torch", "reference"])
def test_a_target_next_to_0_or_1_is_still_one_for_float32(checkpoint, impl, target):
    lm = minboost.load(str(checkpoint("llama")[0]), device="cpu", impl=impl)
    out = lm.generate(**ASK, boost=Spotlight(target), measure_mass=True)
    assert sum(map(len, out.boosted_heads.values())) == 18
    if target > 0.5:
        torch.testing.assert_close(out.attention_mass.boosted[0], torch.ones(6))
    else:
        assert out.ids == lm.generate(**ASK).ids


def test_methods_are_equal_if_and_only_if_all_of_their_fields_are():
    direction = minboost.directions.Direction("diffmean", 1, torch.eye(4)[0])
    other = minboost.directions.Direction("diffmean", 1, torch.eye(4)[1])
    assert Latent(1.0, direction=direction) == Latent(1.0, direction=direction)
    assert Latent(1.0, direction=direction) != Latent(2.0, direction=direction)
    assert Latent(1.0, direction=direction) != Latent(1.0, direction=other)
    assert Boost(2.0) == Boost(2.0) != Boost(3.0)
    assert Pasta(2.0, scale_position="include") != Pasta(2.0)


def test_no_span_at_all_is_refused_by_every_method(lm):
    for method in (Boost(), Pasta(), Guide(), Spotlight()):
        with pytest.raises(InputError, match="touches no token"):
            lm.logits([1, 2, 3], method, [])
    with pytest.raises(InputError, match="spans must be a Span or a list of them, got 5"):
        lm.logits([1, 2, 3], Boost(), 5)


def test_neutral_strengths_equal_the_plain_model(lm):
    plain = lm.generate(**ASK).ids
    for method in (Boost(1.0), Pasta(1.0), Guide(0.0), Spotlight(1e-9)):
        assert lm.generate(**ASK, boost=method).ids == plain


def test_delta_is_the_logarithm_of_a_multiplier_and_include_is_a_boost(lm):
    ids, span = list(range(40)), Span(3, 9)
    want = lm.logits(ids, Boost(5.0), span)
    assert torch.equal(lm.logits(ids, Guide(math.log(5.0)), span), want)
    assert torch.equal(lm.logits(ids, Pasta(5.0, scale_position="include"), span), want)


def test_scaling_the_rest_of_the_prompt_down_is_boosting_the_span_where_nothing_is_generated(lm):
    """In the prompt itself PASTA's alpha is InstABoost's 1/m; on generated keys they differ."""
    ids, span = list(range(40)), Span(3, 9)
    inverse = lm.logits(ids, Boost(4.0), span)
    torch.testing.assert_close(lm.logits(ids, Pasta(0.25), span), inverse, atol=1e-4, rtol=1e-4)


# --- tags ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "clean", "tags"),
    [
        ("no tags", "no tags", []),
        ("<!->a<-!>", "a", [Tagged(0, 1, 0.5)]),
        ("<!!-> a b <-!!> c", "a b c", [Tagged(0, 3, 1.0)]),
        ("x <!!!->y<-!!!>", "x y", [Tagged(2, 3, 2.0)]),
        ("<!->a<-!> <!!!-> b\n<-!!!>.", "a b.", [Tagged(0, 1, 0.5), Tagged(2, 3, 2.0)]),
        ("<- !> <!! -> -!>", "<- !> <!! -> -!>", []),
    ],
)
def test_tags_are_taken_out_and_weigh_what_they_enclose(text, clean, tags):
    assert read_tags("query", text) == (clean, tags)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a <!!-> b", r"the tag <!!-> in the query is never closed"),
        ("a <-!> b", r"the tag <-!> in the query, at character 2 closes nothing"),
        ("<!-> a <-!!>", r"the tag <-!!> in the query, .* does not close <!->"),
        ("<!-> a <!!-> b <-!!> <-!>", r"the tag <!!-> in the query, .* opens inside of <!->"),
        ("a <!->  <-!>", r"there is nothing between <!-> and <-!> in the query"),
    ],
)
def test_a_tag_that_does_not_add_up_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        read_tags("query", text)


@settings(deadline=None)
@given(st.lists(st.tuples(st.text("abé .\n", max_size=5), st.sampled_from(["!", "!!", "!!!"]),
                          st.text("xyz", min_size=1, max_size=4)), max_size=4))  # fmt: skip
def test_tagged_texts_are_found_again(parts):
    text = "".join(f"{before}<{level}->{inside}<-{level}>" for before, level, inside in parts)
    clean, tags = read_tags("query", text)
    assert [clean[tag.start : tag.stop] for tag in tags] == [inside for _, _, inside in parts]


def test_each_tag_boosts_its_own_tokens_by_its_own_strength(lm):
    """Tags in both texts equal the same spans named one by one; the prompt has no trace of them."""
    plain = lm.generate(**ASK)
    tagged = lm.generate(
        instruction="Answer in <!!!->French<-!!!>.",
        query="What <!->colour<-!> is the <!!-> sky <-!!>?",
        max_new_tokens=8,
        boost=Guide(1.5, layers=[0, 2]),
    )
    named = lm.generate(
        **ASK,
        boost=[
            Guide(delta, span=text, layers=[0, 2])
            for delta, text in ((3.0, "French"), (0.75, "colour"), (1.5, "sky"))
        ],
    )
    assert tagged.prompt.ids == plain.prompt.ids
    assert tagged.boosted_spans == named.boosted_spans
    assert tagged.ids == named.ids != plain.ids


def test_a_token_that_two_tags_of_a_level_share_is_steered_once():
    demo = minboost.load("demo", device="cpu")
    one = demo.generate(instruction="Answer in <!!->French<-!!>.", query="Why?", boost=Guide(1.0))
    two = demo.generate(
        instruction="Answer in <!!->Fr<-!!><!!->ench<-!!>.", query="Why?", boost=Guide(1.0),
        measure_mass=True,
    )  # fmt: skip
    assert one.boosted_spans == two.boosted_spans
    assert one.ids == two.ids


def test_reading_tags_takes_time_in_proportion_to_the_text():
    """Blanks beside no tag: once quadratic, this took minutes."""
    assert read_tags("query", "a" + " " * 400_000 + "b")[1] == []


def test_a_tag_marks_its_own_occurrence_of_a_text(lm):
    out = lm.generate(query="sky sky <!!->sky<-!!> sky", boost=Guide(), max_new_tokens=1)
    (span,) = out.boosted_spans
    assert len(out.prompt.find("sky")) == 4
    assert span == out.prompt.find("sky")[2]


def test_tags_are_plain_text_for_every_other_method(lm):
    text = "<!!->Answer<-!!> in French."
    out = lm.generate(**{**ASK, "instruction": text}, boost=Boost(2.0))
    assert text in out.prompt.text


def test_tags_survive_a_template_that_trims(lm):
    out = lm.generate(
        instruction="  <!!->Answer<-!!> in French. \n",
        query="Why?",
        boost=Guide(),
        max_new_tokens=1,
    )
    (span,) = out.boosted_spans
    start, stop = out.prompt.offsets[span.start][0], out.prompt.offsets[span.stop - 1][1]
    assert "Answer" in out.prompt.text[start:stop]
    assert len(out.prompt.text[start:stop].strip()) <= len("Answer") + 1


# --- the command line ---------------------------------------------------------------------------

CHOSEN = {
    "pasta": (["--alpha", "5", "--scale-position", "include"],
              Pasta(5.0, scale_position="include")),
    "guide": (["--delta", "2.5"], Guide(2.5)),
    "spotlight": (["--target", "0.4", "--form", "published"], Spotlight(0.4, form="published")),
    "instaboost": (["--multiplier", "3"], Boost(3.0)),
}  # fmt: skip


def method_of(args, monkeypatch):
    """The method that a command line arrives at."""
    from minboost import generate

    seen = []

    def keep(settled):
        seen.append(options.method_of(settled))
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(generate, "run", keep)
        assert main([*TEXTS, *args]) == 0
    return seen[0]


@pytest.mark.parametrize("name", CHOSEN)
def test_the_command_line_takes_every_method_and_its_parameters(name, monkeypatch):
    flags, want = CHOSEN[name]
    assert method_of(["--method", name, *flags], monkeypatch) == want
    where = ["--layers", "1-2", "--heads", "0.5", "--span", "sky", "--seed", "7"]
    chosen = method_of(["--method", name, *flags, *where], monkeypatch)
    assert (chosen.layers, chosen.heads, chosen.span, chosen.head_seed) == ("1-2", 0.5, "sky", 7)


@pytest.mark.parametrize("name", CHOSEN)
def test_a_config_can_name_a_method_and_its_parameters(name, tmp_path, monkeypatch):
    flags, want = CHOSEN[name]
    values = {
        flag[2:].replace("-", "_"): value
        for flag, value in zip(flags[::2], flags[1::2], strict=True)
    }
    section = "".join(f"  {key}: {value}\n" for key, value in values.items())
    (tmp_path / "my.yaml").write_text(f"method: {name}\n{name}:\n{section}")
    assert method_of(["--config", str(tmp_path / "my.yaml")], monkeypatch) == want


def test_an_option_of_another_method_is_refused_and_a_setting_of_it_is_not(capfd, monkeypatch):
    assert main([*TEXTS, "--method", "spotlight", "--alpha", "0.1"]) == 2
    assert "--alpha belongs to --method pasta; the method is spotlight" in capfd.readouterr().err
    monkeypatch.setenv("MINBOOST_ALPHA", "0.1")
    assert method_of(["--method", "spotlight"], monkeypatch) == Spotlight()


def test_what_a_method_refuses_ends_with_2(capfd, model):
    for args, message in (
        (["--method", "pasta", "--alpha", "0"], "alpha must be a finite number above 0, got 0.0"),
        (["--method", "spotlight", "--target", "1"], "target must lie in (0, 1), got 1.0"),
        (["--method", "guide", "--instruction", "<!!-> Be brief."], "is never closed"),
        (["--method", "latent"], "--method latent needs --directions"),
    ):
        assert main([*TEXTS, *model, *args]) == 2
        assert message in capfd.readouterr().err


@pytest.mark.parametrize("name", CHOSEN)
def test_the_json_names_the_method_and_its_parameters(name, model, capfd):
    flags, method = CHOSEN[name]
    assert main([*TEXTS, *model, "--method", name, *flags, "--json", "--compare"]) == 0
    out = json.loads(capfd.readouterr().out)
    assert out["method"] == name
    assert out["parameters"] == method.parameter_values()
    assert out["multiplier"] == (3.0 if name == "instaboost" else None)
    assert out["boosted_heads"] == 18
    assert out["attention_mass"]["boosted"] > out["attention_mass"]["baseline"]


def test_the_stats_line_says_what_each_method_did(model, capfd):
    said = {
        "pasta": "scaled 'instruction' = tokens [2, 10) x 5 on 3 layers, 18 heads",
        "guide": "moved the logits of tokens [2, 10) by +2.5 (delta = 2.5) on 3 layers, 18 heads",
        "spotlight": "gave 'instruction' = tokens [2, 10) up to about 0.4 of the attention on",
        "instaboost": "boosted 'instruction' = tokens [2, 10) x 3 on 3 layers, 18 heads",
    }
    for name, text in said.items():
        assert main([*TEXTS, *model, "--method", name, *CHOSEN[name][0], "--compare"]) == 0
        captured = capfd.readouterr()
        assert text in captured.err, captured.err
        title = "boosted (m = 3)" if name == "instaboost" else f"{name} ("
        assert f"--- {title}" in captured.out


def test_the_plain_answer_beside_a_guide_has_no_tags_in_its_prompt(model, capfd):
    """Else the two prompts would differ in more than the steering."""
    tagged = ["--instruction", "Answer in <!!->French<-!!>.", *TEXTS[2:], *model, "--json"]
    assert main([*tagged, "--method", "guide", "--compare"]) == 0
    baseline = json.loads(capfd.readouterr().out)["baseline"]["text"]
    assert main([*TEXTS, *model, "--json", "--multiplier", "1"]) == 0
    assert json.loads(capfd.readouterr().out)["text"] == baseline


def test_each_tags_own_strength_is_reported(model, capfd):
    tagged = ["--instruction", "Answer in <!!!->French<-!!!>.", "--max-new-tokens", "2", *model]
    tagged += ["--query", "What <!->colour<-!> is the sky?", "--method", "guide"]
    assert main([*tagged, "--json"]) == 0
    spans = json.loads(capfd.readouterr().out)["boosted_spans"]
    assert [span["log_multiplier"] for span in spans] == [2.0, 0.5]
    assert main(tagged) == 0
    where = [f"[{span['start']}, {span['stop']})" for span in spans]
    line = f"moved the logits of tokens {where[0]} by +2, {where[1]} by +0.5 (delta = 1) on"
    assert line in capfd.readouterr().err


def test_a_query_may_stand_alone_where_the_span_is_named(model, capfd):
    query = ["--query", "What colour is the sky?", "--max-new-tokens", "2", *model]
    assert main([*query, "--span", "the sky"]) == 0
    assert "boosted 'the sky'" in capfd.readouterr().err
    assert main([*query, "--method", "guide", "--query", "Why <!!->blue<-!!>?"]) == 0
    assert main(query) == 2
    assert "--instruction is missing: without one, --span must name" in capfd.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "method: spotlight\nspotligth: {target: 0.3}\n",
        "methd: spotlight\nspotlight: {target: 0.3}\n",
    ],
)
def test_a_slip_in_a_config_of_ours_is_an_error_and_not_another_method(text, tmp_path, capfd):
    (tmp_path / "config.yaml").write_text(text)
    assert main(TEXTS) == 2
    assert "does not exist" in capfd.readouterr().err


def test_settings_of_heads_are_not_for_latent_steering(monkeypatch):
    """They may stand in a config for when another method is chosen; a flag is refused."""
    from minboost import generate

    seen = []
    monkeypatch.setattr(generate, "run", lambda settled: seen.append(settled) or 0)
    monkeypatch.setenv("MINBOOST_HEADS", "0.5")
    monkeypatch.setenv("MINBOOST_VALUES", "1,2")  # another command's
    assert main([*TEXTS, "--method", "latent"]) == 0
    assert main([*TEXTS, "--method", "latent", "--heads", "0.2"]) == 0
    assert [settled["heads"] for settled in seen] == ["all", "0.2"]


def test_an_encoding_that_lacks_a_character_ends_nothing():
    """In a process of its own, with the encoding that Windows gives to a redirected output."""
    command = [sys.executable, "-m", "minboost", "generate", "--help"]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
