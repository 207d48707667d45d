"""Head profiling: the fast scores, the planted heads, the selections, the file, the command."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

import minboost
from minboost.analysis import head_scores
from minboost.analysis.head_loops import log_prob, loop_seconds
from minboost.analysis.head_scores import ask, batches, one_head, score
from minboost.analysis.profiling import (
    Arm,
    Ranking,
    Selection,
    as_mapping,
    best,
    counted_tasks,
    default_ks,
    mean_gains,
    pasta_json,
    rankings,
    round_robin,
    score_cases,
    selected,
    shortlist,
)
from minboost.analysis.score_file import CaseScores, ScoreFile, header
from minboost.cli import main
from minboost.commands.profile_report import grid
from minboost.errors import InputError
from minboost.head_choice import parse_heads
from minboost.methods import Boost, Guide, Pasta, Spotlight
from minboost.span import Span
from minboost.suites import Case, load_cases
from minboost.tokenizer import Tokenizer

from . import tiny

METHODS = {
    "instaboost": Boost(10.0),
    "prefix": Boost(0.1, span="prefix"),
    "text": Boost(7.0, span="the sky"),
    "pasta-exclude": Pasta(0.05),
    "pasta-include": Pasta(20.0, scale_position="include"),
    "pasta-generation": Pasta(0.05, scale_position="generation"),
    "guide": Guide(2.0),
    "spotlight": Spotlight(0.6),
    "spotlight-published": Spotlight(0.5, form="published"),
}
MODELS = ["llama", "llama-multi-query", "llama-dynamic", "mistral", "qwen2-window", "qwen3"]
CASES = [
    Case(instruction="Answer in French.", query="What colour is the sky?", answer="Bleu."),
    Case(instruction="Answer.", query="Is the sky blue? The rules above still hold.", answer="No"),
    Case(
        instruction="The sky is blue. Answer in <!!-> French <-!!>.",
        query="What is the sky? <!!!->The rules hold.<-!!!>",
        answer="The sky is blue. The sky is blue.",
        match="contains",
    ),
]


@pytest.fixture
def demo() -> minboost.LM:
    return minboost.load("demo", device="cpu")


def every_head(lm: minboost.LM) -> dict[int, tuple[int, ...]]:
    return Boost().heads_by_layer(**lm.config.size)


# --- the scores -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("name", MODELS)
def test_fast_scores_equal_a_full_forward_for_each_head(checkpoint, name, method):
    lm = minboost.load(checkpoint(name)[0], device="cpu")
    asked = [ask(lm, case, method) for case in CASES]
    heads = every_head(lm)
    # Few rows together, so that cases and heads meet in parts of every make.
    found = score(lm, asked, heads, rows=random.Random(name).choice((1, 40, 150, 4096)))
    picked = random.Random(method.name + name)
    moved = 0.0
    for one in found:
        for layer, head in picked.sample([(x, y) for x in heads for y in heads[x]], 5):
            slow = log_prob(lm, ask(lm, one.case, one_head(method, layer, head)))
            fast = one.plain + one.gains[layer, head].item()
            assert abs(fast - slow) < 1e-4
            moved = max(moved, abs(slow - one.plain))
    assert moved > 1e-3  # or the comparison says nothing


def by_hand(lm, case, boost_at, layer, head):
    """The plain and the steered log-probability of an answer and its end, from ``lm.logits``."""
    out = lm.generate(instruction=case.instruction, query=case.query, max_new_tokens=1)
    P = len(out.prompt.ids)
    answer = [*lm.tokenizer.encode(case.answer).ids, *lm.config.eos_token_ids]
    ids = [*out.prompt.ids, *answer]
    found = []
    for boost in (None, [replace(b, heads={layer: [head]}) for b in boost_at(out.prompt)]):
        rows = lm.logits(ids, boost).log_softmax(-1)[P - 1 : -1]
        found.append(rows[torch.arange(len(answer)), answer].sum().item())
    return found


BY_HAND = {
    "instaboost": (Boost(10.0), lambda p: [Boost(10.0, span=p.instruction)]),
    "spotlight": (Spotlight(0.6), lambda p: [Spotlight(0.6, span=p.instruction)]),
    # The prompt's tokens, and none of the answer's.
    "pasta-exclude": (
        Pasta(0.05),
        lambda p: [
            Boost(0.05, span=Span(0, p.instruction.start)),
            Boost(0.05, span=Span(p.instruction.stop, len(p.ids))),
        ],
    ),
    "pasta-generation": (
        Pasta(0.05, scale_position="generation"),
        lambda p: [Boost(0.05, span=Span(0, len(p.ids)))],
    ),
}


@pytest.mark.parametrize(("method", "boost_at"), BY_HAND.values(), ids=BY_HAND)
@pytest.mark.parametrize("name", ["demo", "qwen3"])
def test_scores_are_the_log_probability_of_the_answer_and_its_end(
    checkpoint, name, method, boost_at
):
    lm = minboost.load(name if name == "demo" else checkpoint(name)[0], device="cpu")
    # An answer that ends where no answer of the demo world does, so that its end has a price.
    case = Case(instruction="Answer in French.", query="Why is it?", answer="The capital of")
    (found,) = score(lm, [ask(lm, case, method)], every_head(lm))
    moved = 0.0
    for layer, head in ((0, 0), (1, 3), (2, 2)):
        plain, steered = by_hand(lm, case, boost_at, layer, head)
        assert found.plain == pytest.approx(plain, abs=1e-4)
        assert found.gains[layer, head].item() == pytest.approx(steered - plain, abs=1e-4)
        moved = max(moved, abs(steered - plain))
    assert moved > 1e-2


@pytest.mark.parametrize("method", [Boost(10.0), Pasta(), Spotlight(0.4)], ids=lambda m: m.name)
def test_success_is_what_greedy_generation_gives(demo, method):
    cases = [case for case in load_cases("demo", split="validation") if not case.control][:24]
    found = score(demo, [ask(demo, case, method) for case in cases], {0: (2, 3), 2: (0,)})
    said = [demo.generate(instruction=c.instruction, query=c.query) for c in cases]
    assert [one.plain_right for one in found] == [
        case.passed(out.text, finished=out.finish_reason == "stop")
        for case, out in zip(cases, said, strict=True)
    ]
    for layer, head in ((0, 2), (0, 3), (2, 0)):
        requests = [
            minboost.Request(
                instruction=case.instruction,
                query=case.query,
                boost=one_head(method, layer, head),
            )
            for case in cases
        ]
        outs = demo.generate_batch(requests)
        want = [
            case.passed(out.text, finished=out.finish_reason == "stop")
            for case, out in zip(cases, outs, strict=True)
        ]
        assert [bool(one.right[layer, head]) for one in found] == want
        assert 0 < sum(want) < len(want)


def test_heads_that_are_not_tried_have_no_score(demo):
    (found,) = score(demo, [ask(demo, CASES[0], Boost())], {1: (3,)})
    assert found.gains.isfinite().nonzero().tolist() == [[1, 3]]


def test_the_triton_ops_score_alike(checkpoint):
    plain, triton = (
        minboost.load(checkpoint("llama")[0], device="cpu", impl=impl)
        for impl in ("torch", "triton")
    )
    method = Boost(10.0)
    heads = {1: (4,), 2: (0,)}
    want, got = (
        score(lm, [ask(lm, case, method) for case in CASES[:1]], heads) for lm in (plain, triton)
    )
    assert got[0].plain == pytest.approx(want[0].plain, abs=1e-4)
    assert torch.allclose(got[0].gains, want[0].gains, atol=1e-4, equal_nan=True)


def test_batches_keep_the_order_and_the_bound(demo):
    cases = load_cases("demo", split="validation")[:30]
    asked = [ask(demo, case, Boost()) for case in cases]
    found = list(batches(demo, asked, rows=300))
    assert [one for batch in found for one in batch] == asked
    assert all(len(batch) * max(map(len, batch)) <= 300 for batch in found)
    assert len(found) > 3


def test_rows_before_the_span_are_not_run(demo):
    case = CASES[0]
    prompt = demo.generate(instruction=case.instruction, query=case.query, max_new_tokens=1).prompt
    span = prompt.instruction
    assert span.start > 0
    assert ask(demo, case, Boost()).first == span.start
    assert ask(demo, case, Pasta()).first == span.start
    assert ask(demo, case, Spotlight()).first == span.start
    assert ask(demo, case, Boost(span="prefix")).first == span.stop
    generation = ask(demo, case, Pasta(scale_position="generation"))
    assert generation.first == generation.answer == len(prompt.ids) - 1


# --- planted heads --------------------------------------------------------------------------------

WORDS = ("bl", "Fr")  # two tokens of the vocabulary
PART = 8  # numbers of the stream: a word's embedding has three such parts
PLANTED = {(0, 1): ("bl",), (0, 2): ("Fr",), (1, 0): WORDS, (2, 3): WORDS}


def part(word: str, layer: int) -> slice:
    """Where the part of the word lies that planted heads of that layer copy."""
    at = PART * (3 * WORDS.index(word) + layer)
    return slice(at, at + PART)


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    """A checkpoint of 3 layers and 4 heads in which four heads copy what they attend to.

    Attention is uniform and there is no MLP. The two words and all other tokens lie in parts of
    the stream of their own; a planted head copies a part of one word, or of both, and each layer
    another part. The other heads copy next to nothing.
    """
    folder = tmp_path_factory.mktemp("planted")
    config = transformers.LlamaConfig(
        **tiny.BASE
        | {"hidden_size": 96, "num_attention_heads": 4, "head_dim": 16, "tie_word_embeddings": True}
    )
    model = transformers.LlamaForCausalLM(config)
    tiny.save_tokenizer(folder)
    tokenizer = Tokenizer.from_folder(folder)
    generator = torch.Generator().manual_seed(0)
    own = 3 * PART * len(WORDS)
    with torch.no_grad():
        embedding = model.model.embed_tokens.weight
        noise = torch.randn(embedding.shape, generator=generator)
        embedding.copy_(noise / (96 - own) ** 0.5)
        embedding[:, :own] = 0
        for word in WORDS:
            (token,) = tokenizer.encode(word).ids
            embedding[token] = 0
            for layer in range(3):
                embedding[token, part(word, layer)] = noise[token, part(word, layer)] / 24**0.5
        for layer, block in enumerate(model.model.layers):
            attention = block.self_attn
            for linear in (attention.q_proj, attention.k_proj, attention.v_proj):
                linear.weight.zero_()
            shape = attention.o_proj.weight.shape
            attention.o_proj.weight.copy_(1e-4 * torch.randn(shape, generator=generator))
            block.mlp.down_proj.weight.zero_()
            for (at, head), words in PLANTED.items():
                for slot, word in enumerate(words if at == layer else ()):
                    value = 16 * (head // 2) + PART * slot  # two heads share their values
                    values = slice(value, value + PART)
                    outputs = slice(16 * head + PART * slot, 16 * head + PART * slot + PART)
                    attention.v_proj.weight[values, part(word, layer)] = torch.eye(PART)
                    attention.o_proj.weight[part(word, layer), outputs] = torch.eye(PART)
    model.save_pretrained(folder)
    return folder


def planted_cases() -> list[Case]:
    return [
        Case(instruction=f"{word}.", query=query, answer=word, task=word, split="validation")
        for word in WORDS
        for query in ("What is it?", "The sky?", "Why above?")
    ]


@pytest.mark.parametrize(
    "method", [Boost(10.0), Pasta(0.1), Guide(2.0), Spotlight(0.9)], ids=lambda m: m.name
)
def test_profiling_finds_planted_heads(planted, tmp_path, method):
    lm = minboost.load(planted, device="cpu")
    heads = every_head(lm)
    with ScoreFile(tmp_path / "s.jsonl", header(lm, method, heads, role="system")) as file:
        score_cases(lm, planted_cases(), method, heads, file)
    bl, fr = rankings(file.scores.values()).values()
    assert (bl.task, fr.task) == WORDS
    assert set(bl.heads[:3]) == {(0, 1), (1, 0), (2, 3)}
    assert set(fr.heads[:3]) == {(0, 2), (1, 0), (2, 3)}
    for ranking in (bl, fr):
        assert ranking.gains[2] > 0.05
        assert max(map(abs, ranking.gains[3:])) < 0.02 * ranking.gains[2]
    both = [bl, fr]
    assert selected(both, "intersection", 3) == ((1, 0), (2, 3))
    assert selected(both, "union", 3) == tuple(PLANTED)


def test_planted_heads_are_written(planted, tmp_path, capfd, clean_settings):
    tasks(tmp_path / "t.jsonl", planted_cases())
    run = ["profile", "--model", str(planted), "--device", "cpu", "--tasks", "t.jsonl",
           "--max-new-tokens", "3", "--json"]  # fmt: skip
    written = {}
    for select, task in (
        ("intersection", None),
        ("union", None),
        ("task-specific", "bl"),
        ("task-agnostic", "bl"),
    ):
        extra = ["--select", select, *(["--task", task] if task else [])]
        assert main([*run, "--top-k", "3", *extra, "--scores", f"{select}.jsonl"]) == 0
        out = json.loads(capfd.readouterr().out)
        written[select] = json.loads((tmp_path / "heads.json").read_text())
        assert out["chosen"]["heads"] == written[select]
        counted = {"task-specific": ["bl"], "task-agnostic": ["Fr"]}
        assert list(out["tasks"]) == counted.get(select, list(WORDS))
    assert written == {
        "intersection": {"1": [0], "2": [3]},
        "union": {"0": [1, 2], "1": [0], "2": [3]},
        "task-specific": {"0": [1], "1": [0], "2": [3]},
        "task-agnostic": {"0": [2], "1": [0], "2": [3]},
    }


def test_an_intersection_that_leaves_nothing_writes_nothing(
    planted, tmp_path, capfd, clean_settings
):
    tasks(tmp_path / "t.jsonl", planted_cases())
    run = ["profile", "--model", str(planted), "--device", "cpu", "--tasks", "t.jsonl"]
    assert main([*run, "--top-k", "1"]) == 2
    assert "the smallest k that leaves one is 2" in capfd.readouterr().err
    assert not (tmp_path / "heads.json").exists()
    assert main([*run, "--top-k", "1,2", "--max-new-tokens", "1"]) == 0
    assert "note: the top 1 of the tasks have no head in common" in capfd.readouterr().err


# --- rankings and selections ----------------------------------------------------------------------


def ranking(task: str, *heads: tuple[int, int]) -> Ranking:
    gains = tuple(float(-at) for at in range(len(heads)))
    return Ranking(task, 1, heads, gains, (0.0,) * len(heads))


A, B, C, D = (0, 0), (0, 1), (1, 0), (1, 1)
HAND = [ranking("x", A, B, C, D), ranking("y", C, B, A, D), ranking("z", B, C, D, A)]


@pytest.mark.parametrize(
    ("k", "intersection", "union"),
    [
        (1, (), (A, B, C)),
        (2, (B,), (A, B, C)),
        (3, (B, C), (A, B, C, D)),
        (4, (A, B, C, D), (A, B, C, D)),
    ],
)
def test_selections_of_hand_written_rankings(k, intersection, union):
    assert selected(HAND, "intersection", k) == intersection
    assert selected(HAND, "union", k) == union
    assert selected(HAND[:1], "task-specific", k) == tuple(sorted(HAND[0].heads[:k]))


def test_a_shortlist_holds_each_set_once_and_names_what_is_empty():
    found, empty = shortlist(HAND, "intersection", [3, 1, 2, 2])
    assert found == [
        Selection("intersection", (2,), (B,)),
        Selection("intersection", (3,), (B, C)),
    ]
    assert empty == [1]
    (one,), _ = shortlist(HAND, "union", [1, 2])
    assert one == Selection("union", (1, 2), (A, B, C))


def test_a_selection_that_leaves_nothing_says_which_k_would():
    with pytest.raises(
        InputError, match=r"top 1 of the 3 tasks .* smallest k that leaves one is 2"
    ):
        shortlist(HAND, "intersection", [1])


def test_which_tasks_count():
    names = ["x", "y", "z"]
    assert counted_tasks("intersection", names, None) == names
    assert counted_tasks("task-specific", names, "y") == ["y"]
    assert counted_tasks("task-agnostic", names, "y") == ["x", "z"]
    for how, task, message in (
        ("union", "y", "--task has no meaning for --select union"),
        ("task-specific", None, "needs --task: one of x, y, z"),
        ("task-agnostic", "w", "the task 'w' does not exist; there are x, y, z"),
    ):
        with pytest.raises(InputError, match=message):
            counted_tasks(how, names, task)
    with pytest.raises(InputError, match="there is no other"):
        counted_tasks("task-agnostic", ["x"], "x")


def test_rankings_are_of_mean_gains_and_ties_keep_the_order():
    scores = [
        CaseScores("1", "t", ((1.0, 2.0), (None, 2.0)), ((1, 0), (0, 0)), -1.0, False),
        CaseScores("2", "t", ((2.0, 0.0), (None, 0.0)), ((1, 1), (0, 0)), -1.0, False),
        CaseScores("3", "u", ((0.0, 5.0), (None, 1.0)), ((0, 1), (0, 0)), -1.0, False),
    ]
    found = rankings(scores)
    assert found["t"] == Ranking("t", 2, (A, B, D), (1.5, 1.0, 1.0), (1.0, 0.5, 0.0))
    assert found["u"].heads == (B, D, A)
    assert mean_gains(found.values()) == {A: 0.75, B: 3.0, D: 1.0}


def test_default_ks_are_shares_of_the_heads():
    assert default_ks(1024) == (128, 256, 512, 768)
    assert default_ks(16) == (2, 4, 8, 12)
    assert default_ks(3) == (1, 2, 3)


def test_more_cases_of_a_task_come_behind_fewer():
    made = {"x": [1, 2, 3], "y": [4], "z": [5, 6]}
    assert round_robin(made) == [1, 4, 5, 2, 6, 3]
    assert round_robin({}) == []


class Judged:
    def __init__(self, success, control, fluency):
        self.success, self.control, self.fluency = success, control, fluency


def test_the_best_succeeds_most_among_those_that_keep_the_floor_then_has_fewest_heads():
    plain = Judged(0.5, 1.0, 1.0)

    def arm(heads, *figures):
        return Arm(Selection("intersection", (1,), heads), Judged(*figures))

    over = arm((A,), 0.99, 0.5, 1.0)
    mumbling = arm((A,), 0.99, 1.0, 0.9)
    good, small = arm((A, B), 0.9, 0.96, 1.0), arm((B,), 0.9, 0.95, 1.0)
    assert best([over, mumbling, good, small], plain) is small
    assert best([over, good], plain, floor=0.4) is over
    assert best([over, mumbling], plain) in (over, mumbling)
    weak = Judged(0.5, 0.6, 0.9)  # a floor above what the plain model reaches is no floor
    assert (
        best([arm((A,), 0.9, 0.6, 0.9), arm((A,), 0.99, 0.59, 0.9)], weak).evaluation.control == 0.6
    )
    without = arm((A,), 0.7, None, 1.0)
    assert best([without], Judged(0.5, None, 1.0)) is without


def test_pasta_json_round_trips_through_parse_heads_and_generate(demo, tmp_path):
    heads = ((3, 1), (0, 2), (0, 1))
    path = tmp_path / "heads.json"
    path.write_text(pasta_json(heads))
    assert json.loads(path.read_text()) == {"0": [1, 2], "3": [1]}
    read = parse_heads(str(path))
    assert read == as_mapping(heads) == {0: (1, 2), 3: (1,)}
    out = demo.generate(
        instruction="Answer in French.", query="Why?", boost=Boost(heads=read), max_new_tokens=1
    )
    assert out.boosted_heads == {0: (1, 2), 3: (1,)}


def test_the_grid_fits_the_width():
    gains = {(layer, head): layer - head / 10 for layer in range(2) for head in range(12)}
    del gains[1, 11]
    wide, narrow = grid(gains, {(1, 2)}, 120), grid(gains, {(1, 2)}, 60)
    assert "+0.800*" in wide[2]
    assert max(map(len, wide)) <= 120
    assert max(map(len, narrow)) <= 60
    assert narrow[1].split()[2:4] == [".", "-"]
    assert narrow[2].split()[2:5] == ["9", "9", "8*"]
    assert "tenths of +1.000, the largest" in narrow[3]


def test_the_plain_loops_are_measured(demo):
    found = loop_seconds(demo, CASES[:1], Boost(), [(0, 0), (1, 1)], max_new_tokens=2)
    assert set(found) == {"forward", "generation", "batched_generation"}
    assert all(seconds > 0 for seconds in found.values())


# --- the file -------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


@pytest.fixture
def small_batches(monkeypatch):
    """So little room for plain runs that a batch holds a few cases."""
    monkeypatch.setattr(head_scores, "PLAIN_BYTES", 700_000)


def profiled(lm, path, cases, *, stop_after=None, method=None, restart=False):
    """Score into ``path``; the keys of each batch. ``stop_after`` batches, it is killed."""
    method = method or Boost(10.0)
    heads = every_head(lm)
    done = []
    original = head_scores.score

    def counted(lm, asked, heads):
        if len(done) == stop_after:
            raise Killed
        done.append([one.case.key for one in asked])
        return original(lm, asked, heads)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_scores, "score", counted)
        try:
            with ScoreFile(path, header(lm, method, heads, role="system"), restart=restart) as file:
                score_cases(lm, cases, method, heads, file)
        except Killed:
            pass
    return done


def some_cases(count):
    return [case for case in load_cases("demo", split="validation") if not case.control][:count]


@pytest.mark.parametrize("cut", [0, 1, 40, 100_000], ids=["whole", "newline", "line", "lines"])
def test_a_resumed_run_repeats_no_case_and_writes_the_same_file(demo, tmp_path, small_batches, cut):
    cases = some_cases(14)
    whole, torn = tmp_path / "whole.jsonl", tmp_path / "torn.jsonl"
    all_batches = profiled(demo, whole, cases)
    assert len(all_batches) > 3
    assert max(map(len, all_batches)) > 1
    first = profiled(demo, torn, cases, stop_after=2)
    assert first == all_batches[:2]
    content = torn.read_bytes()
    lines = content.splitlines(keepends=True)
    if cut > len(lines[-1]):  # the batch's last line did not get there, and part of one before
        assert len(all_batches[1]) > 1
        cut = len(lines[-1]) + 30
    torn.write_bytes(content[: len(content) - cut])
    rest = profiled(demo, torn, cases)
    assert torn.read_bytes() == whole.read_bytes()
    assert rest == (all_batches[2:] if cut == 0 else all_batches[1:])
    assert profiled(demo, torn, cases) == []
    keys = [json.loads(line)["case"] for line in torn.read_text().splitlines()[1:]]
    assert keys == [case.key for case in cases]


def test_a_kill_in_the_first_line_is_survived(demo, tmp_path):
    path = tmp_path / "s.jsonl"
    profiled(demo, path, some_cases(2))
    want = path.read_bytes()
    path.write_bytes(want[:30])
    profiled(demo, path, some_cases(2))
    assert path.read_bytes() == want
    path.write_bytes(b"")
    profiled(demo, path, some_cases(2))
    assert path.read_bytes() == want


def test_more_cases_are_added_to_those_that_are_there(demo, tmp_path, small_batches):
    path = tmp_path / "s.jsonl"
    first = profiled(demo, path, some_cases(6))
    more = profiled(demo, path, some_cases(12))
    keys = [case.key for case in some_cases(12)]
    assert list(itertools.chain(*first)) == keys[:6]
    # The batch that was last, and is now larger, is scored as a whole.
    again = [key for batch in more for key in batch if key in keys[:6]]
    assert len(again) < len(first[-1]) + 1
    lines = path.read_text().splitlines()[1:]
    assert sorted(json.loads(line)["case"] for line in lines) == sorted(keys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": Boost(11.0)}, "multiplier is 10.0 there and 11.0 here"),
        ({"method": Pasta()}, "method is 'instaboost' there and 'pasta' here"),
        ({"method": Boost(10.0, span="prefix")}, "span is 'instruction' there and 'prefix' here"),
        ({"role": "user"}, "role is 'system' there and 'user' here"),
        ({"heads": {0: (1,)}}, r"heads is 'all' there and {'0': \[1\]} here"),
        ({"name": "llama"}, "config is .* there and .* here; weights is"),
    ],
)
def test_the_scores_of_another_run_are_refused(demo, checkpoint, tmp_path, change, message):
    path = tmp_path / "s.jsonl"
    profiled(demo, path, some_cases(1))
    before = path.read_bytes()
    lm = demo
    if "name" in change:
        lm = minboost.load(checkpoint(change["name"])[0], device="cpu")
    head = header(
        lm,
        change.get("method", Boost(10.0)),
        change.get("heads", every_head(lm)),
        role=change.get("role", "system"),
    )
    with pytest.raises(InputError, match=message) as error:
        ScoreFile(path, head)
    assert str(path) in str(error.value)
    assert "--restart" in str(error.value)
    assert path.read_bytes() == before
    with ScoreFile(path, head, restart=True) as file:
        assert file.scores == {}
    assert len(path.read_text().splitlines()) == 1


def test_one_weight_of_another_value_is_another_model(demo):
    method = Boost()
    before = header(demo, method, every_head(demo), role="system")
    assert header(minboost.load("demo", device="cpu"), method, every_head(demo), role="system") == (
        before
    )
    demo.model.layers[2].mlp.down_proj.weight[:] += 1e-3
    after = header(demo, method, every_head(demo), role="system")
    assert {name for name in before if before[name] != after[name]} == {"weights"}


@pytest.mark.parametrize(
    "content", ["hello\n", '{"instruction": "x"}\n', "hello", '[1]\n{"a": 1}\n']
)
@pytest.mark.parametrize("restart", [False, True])
def test_another_kind_of_file_is_left_alone(demo, tmp_path, content, restart):
    path = tmp_path / "notes.jsonl"
    path.write_text(content)
    head = header(demo, Boost(), every_head(demo), role="system")
    with pytest.raises(InputError, match="is no file of head scores, and is left alone"):
        ScoreFile(path, head, restart=restart)
    assert path.read_text() == content


def test_a_damaged_line_is_named(demo, tmp_path):
    path = tmp_path / "s.jsonl"
    profiled(demo, path, some_cases(3))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1] + lines[2].replace("scores", "score") + lines[3])
    with pytest.raises(InputError, match=r"s.jsonl, line 3 is no line of head scores; --restart"):
        profiled(demo, path, some_cases(3))


# --- the command ----------------------------------------------------------------------------------


def tasks(path: Path, cases: list[Case]) -> None:
    path.write_text("".join(json.dumps(case.as_json()) + "\n" for case in cases))


DEMO = ["profile", "--device", "cpu"]


@pytest.mark.usefixtures("clean_settings")
class TestCommand:
    def test_it_profiles_the_demo_model(self, tmp_path, capfd):
        args = [*DEMO, "--limit", "3", "--out", "mine.json"]
        assert main(args) == 0
        out, err = capfd.readouterr()
        heads = parse_heads("mine.json")
        lines = (tmp_path / "mine.scores.jsonl").read_text().splitlines()
        assert len(lines) == 1 + 3 * 7
        assert "21 cases of 7 tasks and 21 controls" in out
        assert "plain " in out
        assert "all heads " in out
        assert out.count("* chosen") == 2  # the table's mark, and the grid's legend
        assert "layer 3" in out
        assert "a steered generation for each" in out
        assert f"chosen: {sum(map(len, heads.values()))} head" in out
        assert "scoring 16 heads: 21 cases" in err
        assert "wrote mine.json; the scores are in mine.scores.jsonl" in err
        assert main(args) == 0
        again, err = capfd.readouterr()
        assert "21 of them there already" in err
        assert "nothing was scored anew" in again
        assert again.splitlines()[:20] == out.splitlines()[:20]
        assert (tmp_path / "mine.scores.jsonl").read_text().splitlines() == lines
        ask_ = ["--instruction", "Answer in French.", "--query", "What colour is the sky?"]
        assert main(["generate", "--heads", "mine.json", *ask_]) == 0

    def test_test_cases_are_never_touched(self, tmp_path, capfd):
        seen = {case.key for case in load_cases("demo", split="validation")}
        assert main([*DEMO, "--limit", "1", "--top-k", "16"]) == 0
        lines = (tmp_path / "heads.scores.jsonl").read_text().splitlines()[1:]
        assert {json.loads(line)["case"] for line in lines} <= seen
        made = [replace(case, split="test") for case in planted_cases()]
        tasks(tmp_path / "t.jsonl", made)
        assert main([*DEMO, "--tasks", "t.jsonl"]) == 2
        assert "holds no case of the validation split" in capfd.readouterr().err

    def test_json_is_one_object(self, capfd):
        args = [*DEMO, "--limit", "1", "--json", "--method", "pasta", "--top-k", "4,16"]
        assert main(args) == 0
        result = json.loads(capfd.readouterr().out)
        assert result["method"] == "pasta"
        assert result["parameters"] == {"alpha": 0.01, "scale_position": "exclude"}
        assert [arm["selection"] for arm in result["compared"]][:2] == ["plain", "all heads"]
        assert result["compared"][0]["heads"] == {}
        assert result["compared"][1]["head_count"] == 16
        assert len(result["mean_gains"]) == 16
        assert len(result["rankings"]["language"]) == 16
        assert result["scored_cases"] == 7
        assert result["seconds_per_head_and_case"]["scored"] > 0
        assert result["chosen"] in result["compared"]
        assert json.loads(Path("heads.json").read_text()) == result["chosen"]["heads"]

    def test_layers_and_heads_say_what_is_tried(self, tmp_path, capfd):
        run = [*DEMO, "--limit", "1", "--layers", "0-1", "--json", "--top-k", "8"]
        assert main(run) == 0
        result = json.loads(capfd.readouterr().out)
        assert result["chosen"]["heads"] == {"0": [0, 1, 2, 3], "1": [0, 1, 2, 3]}
        (tmp_path / "some.json").write_text('{"2": [1]}')
        run = [*DEMO, "--limit", "1", "--heads", "some.json", "--scores", "s.jsonl"]
        assert main(run) == 0
        assert json.loads((tmp_path / "heads.json").read_text()) == {"2": [1]}
        assert capfd.readouterr().out.count("layer ") == 1

    def test_ctrl_c_leaves_a_file_to_go_on_from(self, tmp_path, capfd, monkeypatch, small_batches):
        args = [*DEMO, "--limit", "2", "--top-k", "16"]
        calls = itertools.count()
        original = head_scores.score

        def interrupted(*args, **kwargs):
            if next(calls) == 2:
                raise KeyboardInterrupt
            return original(*args, **kwargs)

        monkeypatch.setattr(head_scores, "score", interrupted)
        assert main(args) == 130
        out, err = capfd.readouterr()
        path = tmp_path / "heads.scores.jsonl"
        there = len(path.read_text().splitlines()) - 1
        assert 0 < there < 14
        assert out == ""
        assert f"interrupted: the scores of {there} of 14 cases are in heads.scores.jsonl" in err
        assert "the same command goes on from there" in err
        assert not (tmp_path / "heads.json").exists()
        assert main(args) == 0
        resumed = path.read_bytes()
        assert main([*args, "--restart"]) == 0
        assert path.read_bytes() == resumed
        assert len(resumed.splitlines()) == 15

    def test_ctrl_c_while_sets_are_compared_keeps_the_scores(self, tmp_path, capfd, monkeypatch):
        def interrupted(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr("minboost.analysis.evaluate.evaluate", interrupted)
        assert main([*DEMO, "--limit", "1"]) == 130
        assert "the scores of 7 of 7 cases are in" in capfd.readouterr().err
        assert not (tmp_path / "heads.json").exists()

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (["--top-k", "0"], "--top-k must be numbers of at least 1"),
            (["--top-k", "2,x"], "--top-k must be numbers of at least 1"),
            (["--top-k", "-3"], "--top-k must be numbers of at least 1"),
            (["--top-k", "4,17"], "--top-k 17 is more than the 16 heads there are"),
            (["--select", "task-specific"], "needs --task: one of language"),
            (["--select", "task-agnostic", "--task", "x"], "the task 'x' does not exist"),
            (["--task", "json"], "--task has no meaning for --select intersection"),
            (["--select", "most"], "'most' is not one of"),
            (["--method", "latent"], "knows no heads to profile"),
            (["--multiplier", "1"], "instaboost with multiplier = 1 steers nothing"),
            (["--limit", "0"], "--limit"),
            (["--layers", "7"], "layer 7 does not exist: the model has layers 0 to 3"),
            (["--heads", '{"0": [9]}'], "head 9 of layer 0 does not exist"),
            (["--span", "no such text"], "'no such text' does not occur"),
            (["--tasks", "none.jsonl"], "none.jsonl cannot be read"),
            (["--out", "no/heads.json"], "--out no/heads.json: the folder no is not there"),
            (["--out", "."], "--out . is a folder"),
            (["--scores", "no/s.jsonl"], "--scores no/s.jsonl: the folder no is not there"),
            (["--scores", "heads.json"], "--out and --scores are the same file"),
            (["--tasks", "heads.json"], "--tasks and --out are the same file"),
        ],
    )
    def test_each_mistake_has_its_message(self, args, message, tmp_path, capfd):
        limit = [] if "--limit" in args else ["--limit", "2"]
        assert main([*DEMO, *limit, *args]) == 2
        out, err = capfd.readouterr()
        assert message in err
        assert out == ""
        assert not (tmp_path / "heads.json").exists()

    def test_a_file_of_controls_alone_is_refused(self, tmp_path, capfd):
        tasks(tmp_path / "t.jsonl", [replace(case, control=True) for case in planted_cases()])
        assert main([*DEMO, "--tasks", "t.jsonl"]) == 2
        assert "are controls: there is none to profile on" in capfd.readouterr().err

    def test_a_case_longer_than_the_context_is_named(self, tmp_path, capfd):
        long = replace(planted_cases()[0], query="Why? " * 600, task="long")
        tasks(tmp_path / "t.jsonl", [*planted_cases(), long])
        assert main([*DEMO, "--tasks", "t.jsonl"]) == 2
        err = capfd.readouterr().err
        assert "tokens, the model's context holds 512 (task long, instruction 'bl.')" in err

    def test_config_yaml_s_sampling_top_k_is_not_taken_for_profilings(self, tmp_path, capfd):
        (tmp_path / "config.yaml").write_text("generation:\n  top_k: 50\n")
        assert main([*DEMO, "--limit", "1", "--json"]) == 0
        assert json.loads(capfd.readouterr().out)["compared"][-1]["k"] != [50]


def test_help_does_not_import_torch():
    import subprocess
    import sys

    code = (
        "import sys; from minboost.cli import main; main(['profile', '--help']); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "PASTA" in done.stdout


def test_a_span_of_positions_is_in_the_header(demo):
    span = Boost(10.0, span=Span(2, 5))
    head = header(demo, span, every_head(demo), role="system")
    assert head["span"] == "[2, 5)"
