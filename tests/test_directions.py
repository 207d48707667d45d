"""Directions: formulas against numpy, scipy and scikit-learn; states, files and the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import minboost
from minboost import InputError, ModelError
from minboost.analysis.contrast import (
    contrast,
    demo_contrast,
    last_token_states,
    middle_layers,
)
from minboost.analysis.direction_formulas import find_direction, mean_difference, separation
from minboost.cli import main
from minboost.commands.directions import read_prompts
from minboost.demo.corpus import split_of
from minboost.demo.world import FACTS
from minboost.directions import (
    FORMAT,
    KINDS,
    MAX_FILE_BYTES,
    Direction,
    Directions,
    load_direction,
    load_directions,
    save_directions,
)

from .conftest import load


def states(n=40, m=None, hidden=24, *, seed=0, scale=1.0, base=3.0, shift=2.0):
    """h+ and h−: noise about a common mean, and a shift of h+ along a planted unit vector."""
    g = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    m = n if m is None else m
    planted, common = randn(hidden), base * randn(hidden)
    planted = planted / planted.norm()
    positive = scale * (common + shift * planted + randn(n, hidden))
    return positive, scale * (common + randn(m, hidden)), planted


def unit(vector):
    vector = np.asarray(vector, dtype=np.float64)
    return vector / np.linalg.norm(vector)


def found(kind, positive, negative, **options):
    return find_direction(kind, positive, negative, layer=1, **options).vector.double().numpy()


# The formulas.


@pytest.mark.parametrize("kind", ["diffmean", "projection"])
def test_diffmean_and_projection_are_the_difference_of_the_means(kind):
    positive, negative, _ = states(30, 21)
    want = unit(positive.numpy().mean(0) - negative.numpy().mean(0))
    assert np.abs(found(kind, positive, negative) - want).max() < 1e-7


@pytest.mark.parametrize(
    ("n", "m", "hidden", "scale"),
    [
        (40, 40, 24, 1.0),
        (25, 60, 8, 5.0),
        (12, 9, 64, 20.0),
        (1, 1, 6, 1.0),
        (30, 30, 3, 0.01),
        (50, 50, 40, 1000.0),
    ],
    ids=lambda value: str(value),
)
def test_linear_is_scikit_learns_logistic_regression_pointing_to_the_positive(n, m, hidden, scale):
    sklearn = pytest.importorskip("sklearn.linear_model")
    positive, negative, _ = states(n, m, hidden, scale=scale, base=1.0)
    x = torch.cat((positive, negative)).numpy()
    is_positive = np.r_[np.ones(n), np.zeros(m)]

    def weights(labels):
        model = sklearn.LogisticRegression(solver="newton-cholesky", tol=1e-12, max_iter=10_000)
        return model.fit(x, labels).coef_[0]

    got = found("linear", positive, negative)
    assert np.abs(got - unit(weights(is_positive))).max() < 1e-6
    # The paper's code has the positive set as class 0.
    assert np.abs(got + unit(weights(1 - is_positive))).max() < 1e-6


def test_linear_has_the_smallest_loss_that_scipy_finds():
    optimize = pytest.importorskip("scipy.optimize")
    positive, negative, _ = states(15, 10, 12, scale=2.0)
    x = torch.cat((positive, negative)).numpy()
    y = np.r_[np.ones(15), -np.ones(10)]

    def loss(at):
        w, b = at[:-1], at[-1]
        return w @ w / 2 + np.logaddexp(0, -y * (x @ w + b)).sum()

    best = optimize.minimize(loss, np.zeros(13), method="BFGS", options={"gtol": 1e-6}).x
    assert np.abs(found("linear", positive, negative) - unit(best[:-1])).max() < 1e-4


@pytest.mark.parametrize("kind", ["pcact", "pcdiff"])
@pytest.mark.parametrize("shape", [(40, 40, 24), (6, 6, 50)], ids=["tall", "wide"])
def test_components_are_the_first_eigenvectors_with_the_sign_of_diffmean(kind, shape):
    positive, negative, _ = states(*shape)
    rows = (positive if kind == "pcact" else positive - negative).numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    want = np.linalg.eigh(rows.T @ rows)[1][:, -1]
    if want @ (positive.mean(0) - negative.mean(0)).numpy() < 0:
        want = -want
    assert np.abs(found(kind, positive, negative) - want).max() < 1e-6


@pytest.mark.parametrize("kind", ["pcact", "pcdiff"])
def test_components_are_the_papers_codes_where_rows_have_no_mean_over_their_coordinates(kind):
    """It gives scikit-learn the transpose: prompts are then features, and coordinates samples."""
    decomposition = pytest.importorskip("sklearn.decomposition")
    positive, negative, _ = states(20, 20, 16)
    positive, negative = (h - h.mean(-1, keepdim=True) for h in (positive, negative))
    rows = (positive if kind == "pcact" else positive - negative).numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    theirs = unit(decomposition.PCA(n_components=1).fit_transform(rows.T)[:, 0])
    got = found(kind, positive, negative)
    assert min(np.abs(got - theirs).max(), np.abs(got + theirs).max()) < 1e-6


def test_random_is_seeded_by_seed_and_layer_and_leaves_torchs_generator_alone():
    positive, negative, _ = states()
    before = torch.get_rng_state()
    one = find_direction("random", positive, negative, layer=1, seed=5).vector
    assert torch.equal(torch.get_rng_state(), before)
    g = torch.Generator().manual_seed(6)
    want = torch.randn(24, generator=g, dtype=torch.float64)
    assert torch.equal(one, (want / want.norm()).float())
    for layer, seed in ((2, 5), (1, 6)):
        other = find_direction("random", positive, negative, layer=layer, seed=seed).vector
        assert abs(float(one @ other)) < 0.9


@pytest.mark.parametrize("kind", ["diffmean", "linear", "pcact", "pcdiff", "projection"])
def test_a_planted_direction_is_recovered(kind):
    """pcact looks at the positive states alone: there the planted shift must be what they share."""
    positive, negative, planted = states(300, 300, 24, base=0.0, shift=6.0)
    assert found(kind, positive, negative) @ planted.numpy() > 0.98


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 9),
    hidden=st.integers(2, 12),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_every_kind_is_a_unit_vector_and_its_own_words_hold(seed, n, hidden, scale):
    positive, negative, _ = states(n, n, hidden, seed=seed)
    towards = mean_difference(positive, negative, layer=1).numpy()
    for kind in KINDS:
        vector = found(kind, positive, negative)
        assert abs(np.linalg.norm(vector) - 1) < 1e-6
        if kind != "random":
            assert np.abs(found(kind, positive.flip(0), negative.flip(0)) - vector).max() < 1e-4
        if kind != "linear":  # the penalty has a scale of its own
            assert np.abs(found(kind, scale * positive, scale * negative) - vector).max() < 1e-4
        if kind in ("pcact", "pcdiff"):
            assert vector @ towards > -1e-6


def test_separation_is_the_mean_of_both_sets_shares_beyond_the_middle():
    direction = Direction("diffmean", 0, torch.tensor([1.0, 0.0]))
    high = torch.tensor([[3.0, 9.0], [1.0, -4.0], [5.0, 0.0]])
    low = torch.tensor([[0.0, 7.0], [2.0, 1.0]])
    # Means 3 and 1, so the threshold is 2: two of three lie above, one of two lies below.
    assert separation(direction, high, low) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert separation(direction, low, high) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert separation(direction, 10 + high, low) == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_two_equal_sets_are_refused(kind):
    positive, _, _ = states()
    for layer, why in ((0, "the same token"), (3, "the same prompts")):
        with pytest.raises(InputError, match=f"input of layer {layer}.*{why}"):
            find_direction(kind, positive, positive.clone(), layer=layer)


def test_what_does_not_fit_together_is_refused():
    positive, negative, _ = states(5)
    with pytest.raises(InputError, match=r"pcdiff takes differences pair by pair.*5 and 4"):
        find_direction("pcdiff", positive, negative[:4], layer=1)
    same = negative.clone()
    same[3] = positive[3]
    with pytest.raises(InputError, match="layer 1 is zero for positive prompt 4"):
        find_direction("pcdiff", positive, same, layer=1)
    with pytest.raises(InputError, match="24 and 23 numbers wide"):
        find_direction("diffmean", positive, negative[:, :23], layer=1)
    with pytest.raises(InputError, match=r"\(n, hidden_size\)"):
        find_direction("diffmean", positive[:0], negative, layer=1)
    with pytest.raises(InputError, match="'mean' is none of diffmean"):
        find_direction("mean", positive, negative, layer=1)
    with pytest.raises(ModelError, match="layer 1 is not finite"):
        find_direction("diffmean", positive / 0, negative, layer=1)


# The states.


@pytest.mark.parametrize("name", ["llama", "qwen3", "mistral", "qwen2-window", "llama-dynamic"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_states_equal_transformers_hidden_states_at_the_last_token(checkpoint, name, batch_size):
    folder, theirs = checkpoint(name)
    g = torch.Generator().manual_seed(3)
    lengths = [9, 1, 40, 17, 9, 33, 2]
    prompts = [torch.randint(0, 300, (n,), generator=g).tolist() for n in lengths]
    got = last_token_states(load(folder), prompts, [2, 0, 1], batch_size=batch_size)
    assert got.shape == (3, len(prompts), 48)
    assert got.dtype == torch.float32
    for at, prompt in enumerate(prompts):
        with torch.no_grad():
            hidden = theirs(torch.tensor([prompt]), output_hidden_states=True).hidden_states
        for row, layer in enumerate((2, 0, 1)):
            want = hidden[layer][0, -1]
            assert (got[row, at] - want).abs().max() <= 1e-5 * want.abs().max()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_states_of_the_triton_implementation_are_those_of_torch(checkpoint):
    pytest.importorskip("triton")
    folder, _ = checkpoint("llama")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    prompts = [list(range(10, 31)), [7, 8, 9], list(range(40, 50))]
    got, want = (
        last_token_states(load(folder, impl=impl).to(device), prompts, [1, 2], batch_size=3)
        for impl in ("triton", "torch")
    )
    torch.testing.assert_close(got, want, atol=2e-4, rtol=0)


@pytest.mark.parametrize("n_layers", [1, 2, 4, 5, 9, 12, 22, 32, 80, 126])
def test_the_middle_is_that_of_the_papers_code_but_never_empty(n_layers):
    count = int(n_layers * 0.2)
    start = (n_layers - count) // 2
    theirs = list(range(start, start + count))
    assert middle_layers(n_layers) == (theirs or [(n_layers - 1) // 2])


# Prompts of the demo world.


@pytest.mark.parametrize(
    ("kind", "value", "word"),
    [("language", "French", "French"), ("case", "upper case", "upper case"),
     ("persona", "pirate", "pirate")],
)  # fmt: skip
def test_demo_prompts_differ_in_the_instruction_alone_and_are_training_ones(kind, value, word):
    positive, negative = demo_contrast(kind, value, 60, seed=3)
    assert (positive, negative) == demo_contrast(kind, value, 60, seed=3)
    assert positive != demo_contrast(kind, value, 60, seed=4)[0]
    assert len(set(positive)) == 60
    assert negative == [(None, query) for _, query in positive]
    for instruction, query in positive:
        assert word in instruction
        asked = [
            (fact.id, number)
            for fact in FACTS
            for number, question in enumerate(fact.questions)
            if question in query
        ]
        assert asked
        assert {split_of(fact, f"{kind}/{value}", number) for fact, number in asked} == {"train"}


def test_demo_prompts_that_are_not_there_are_refused():
    with pytest.raises(InputError, match=r"no 'language' 'Latin'; it has language \(French / "):
        demo_contrast("language", "Latin", 5, 0)
    with pytest.raises(InputError, match="no 'mode' 'French'"):
        demo_contrast("mode", "French", 5, 0)
    with pytest.raises(InputError, match="count must be an integer of at least 1"):
        demo_contrast("language", "French", 0, 0)


@pytest.fixture(scope="module")
def demo():
    return minboost.load("demo", device="cpu")


def test_a_direction_of_the_demo_model_makes_it_speak_french(demo):
    positive, negative = demo_contrast("language", "French", 40, seed=1)
    result = contrast(demo, positive, negative, layers=[2], kinds=["diffmean", "random"])
    assert result.directions.names == ("diffmean.2", "random.2")
    assert result.directions.prompts == (40, 40)
    assert result.accuracy["diffmean.2"] > 0.95 > result.accuracy["random.2"]
    query = "What colour is the sky?"
    for direction, text in zip(result.directions.found, ("Bleu.", "Blue."), strict=True):
        steered = minboost.Latent(16.0, direction=direction)
        assert demo.generate(query=query, boost=steered).text == text


def test_what_contrast_is_given_is_held_to_the_model(demo):
    asks = [("Answer in French.", "Why?")]
    bare = [(None, "Why?")]
    for change, message in (
        ({"layers": [4]}, "layer 4 does not exist"),
        ({"layers": []}, "layers is an empty list"),
        ({"kinds": ["mean"]}, "the kind 'mean' is none of"),
        ({"kinds": []}, "no kind"),
        ({"positive": []}, "there is no positive prompt"),
        ({"negative": [(None, " ")]}, "negative prompt 1: the query is empty"),
        ({"negative": [(None, 3)]}, "the query of negative prompt 1 must be a text"),
        ({"negative": [(None, "why " * 5000)]}, r"negative prompt 1 has \d+ tokens"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"role": "tool"}, "role 'tool'"),
        ({"seed": -1}, "seed must be an integer"),
    ):
        given_ = {"positive": asks, "negative": bare, "kinds": ["diffmean"], **change}
        with pytest.raises(InputError, match=message):
            contrast(demo, **given_)


# The file.


def some_directions(hidden=8, names=("diffmean.2", "diffmean.3", "linear.2")):
    g = torch.Generator().manual_seed(0)
    each = []
    for name in names:
        kind, _, layer = name.partition(".")
        vector = torch.randn(hidden, generator=g)
        each.append(Direction(kind, int(layer), vector / vector.norm()))
    return Directions(found=tuple(each), model="demo", seed=7, prompts=(30, 20))


def test_a_file_gives_back_what_was_saved(tmp_path):
    saved = some_directions()
    path = tmp_path / "d.safetensors"
    path.write_text("an older file")
    save_directions(path, saved)
    assert os.listdir(tmp_path) == ["d.safetensors"]
    read = load_directions(path)
    assert (read.model, read.seed, read.prompts, read.hidden_size) == ("demo", 7, (30, 20), 8)
    assert read.names == ("diffmean.2", "diffmean.3", "linear.2")
    for got, want in zip(read.found, saved.found, strict=True):
        assert torch.equal(got.vector, want.vector)
    assert torch.equal(load_direction(path, "diffmean.3").vector, saved.found[1].vector)
    assert load_direction(path, "linear").name == "linear.2"


def test_a_name_that_is_not_there_or_not_clear_is_refused_with_those_that_are(tmp_path):
    path = tmp_path / "d.safetensors"
    save_directions(path, some_directions())
    with pytest.raises(InputError, match=r"could be any of diffmean\.2, diffmean\.3"):
        load_direction(path, "diffmean")
    for name in ("pcact", "diffmean.4", "", "linear."):
        with pytest.raises(InputError, match=r"no direction '.*'; there are: diffmean\.2, diff"):
            load_direction(path, name)


METADATA = {
    "format": FORMAT,
    "model": "demo",
    "hidden_size": "4",
    "seed": "0",
    "positive_prompts": "2",
    "negative_prompts": "2",
}
UNIT = torch.tensor([0.0, 0.6, 0.0, 0.8])


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"diffmean.0": UNIT[:3] * 0 + 3**-0.5}, {}, r"shape \(4,\), got float32 of shape \(3,\)"),
        ({"diffmean.0": UNIT[None]}, {}, r"shape \(4,\), got float32 of shape \(1, 4\)"),
        ({"diffmean.0": UNIT.double()}, {}, "must be float32 .* got float64"),
        ({"diffmean.0": UNIT * 1.01}, {}, "diffmean.0 must have norm 1, got 1.01"),
        ({"diffmean.0": UNIT * 0}, {}, "diffmean.0 must have norm 1, got 0"),
        ({"diffmean.0": UNIT / 0}, {}, "diffmean.0 must hold finite numbers"),
        ({"mean.0": UNIT}, {}, "kind 'mean' is none of"),
        ({"diffmean": UNIT}, {}, "'diffmean' is not called KIND.LAYER"),
        ({"diffmean.-1": UNIT}, {}, "'diffmean.-1' is not called KIND.LAYER"),
        ({"diffmean.99999": UNIT}, {}, "the layer must be an integer"),
        ({"diffmean.0": UNIT}, {"format": "pt"}, "its format is 'pt', not 'minboost directions 1'"),
        ({"diffmean.0": UNIT}, {"format": None}, "its format is None"),
        ({"diffmean.0": UNIT}, {"model": None}, "no 'model'"),
        ({"diffmean.0": UNIT}, {"seed": "-1"}, "seed = '-1', which is no number"),
        ({"diffmean.0": UNIT}, {"hidden_size": None}, "hidden_size = ''"),
        ({"diffmean.0": UNIT}, {"positive_prompts": "9" * 99}, "positive_prompts = '999"),
        ({}, {}, "there is no direction"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path, tensors, metadata, message):
    path = tmp_path / "d.safetensors"
    merged = {name: text for name, text in (METADATA | metadata).items() if text is not None}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, merged)
    with pytest.raises(ModelError, match=message) as refused:
        load_directions(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "is missing"),
        (lambda path: path.mkdir(), "is no file"),
        (lambda path: path.write_bytes(b""), "truncated or no directions file"),
        (lambda path: path.write_bytes(b"not safetensors at all"), "header would be"),
        (lambda path: path.write_bytes((40).to_bytes(8, "little") + b"{}"), "truncated"),
        (lambda path: path.write_bytes((1 << 30).to_bytes(8, "little")), "header would be"),
    ],
    ids=["missing", "folder", "empty", "text", "truncated", "huge-header"],
)
def test_a_file_that_is_none_is_refused(tmp_path, make, message):
    path = tmp_path / "d.safetensors"
    make(path)
    with pytest.raises(ModelError, match=message) as refused:
        load_direction(path, "diffmean")
    assert str(path) in str(refused.value)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "d.safetensors"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)  # sparse
    with pytest.raises(ModelError, match=f"larger than {MAX_FILE_BYTES} bytes"):
        load_directions(path)


def test_a_folder_that_is_not_there_is_named_when_saving(tmp_path):
    with pytest.raises(InputError, match=r"nowhere/d\.safetensors cannot be written"):
        save_directions(tmp_path / "nowhere" / "d.safetensors", some_directions())


def test_directions_that_do_not_belong_together_are_refused():
    one, other, _ = some_directions().found
    rest = {"model": "demo", "seed": 0, "prompts": (1, 1)}
    with pytest.raises(InputError, match="seed must be an integer"):
        Directions(found=(one,), **rest | {"seed": -1})
    wide = Direction("linear", 0, torch.nn.functional.one_hot(torch.tensor(1), 9).float())
    for found_, message in (
        ((), "no direction"),
        ((one, other, one), "twice"),
        ((one, wide), "different widths"),
    ):
        with pytest.raises(InputError, match=message):
            Directions(found=found_, **rest)


def test_a_direction_is_a_unit_vector_of_a_known_kind():
    assert str(Direction("linear", 3, UNIT.double())) == "linear.3"
    assert Direction("linear", 3, UNIT.double()).vector.dtype == torch.float32
    for kind, layer, vector, message in (
        ("mean", 0, UNIT, "kind 'mean'"),
        ("linear", -1, UNIT, "layer must be an integer"),
        ("linear", 0, UNIT[None], "must be a tensor"),
        ("linear", 0, UNIT.tolist(), "must be a tensor"),
        ("linear", 0, torch.tensor([1, 0]), "finite numbers"),
        ("linear", 0, UNIT * 2, "norm 1, got 2"),
    ):
        with pytest.raises(InputError, match=message):
            Direction(kind, layer, vector)


# The command.

FRENCH = [
    {"instruction": "Answer in French.", "query": f"What is the capital of {country}?"}
    for country in ("Russia", "Austria", "Poland", "Greece", "China")
]


@pytest.fixture
def files(tmp_path, clean_settings):
    """--positive and --negative, as files of JSON lines and of plain lines, and --out."""
    (tmp_path / "high.jsonl").write_text("\n\n".join(map(json.dumps, FRENCH)))
    (tmp_path / "low.txt").write_text("\n".join(case["query"] for case in FRENCH) + "\n")
    return ["--positive", "high.jsonl", "--negative", "low.txt", "--out", "d.safetensors"]


def test_the_command_writes_directions_that_generate_takes(files, capfd):
    assert main(["directions", *files, "--device", "cpu"]) == 0
    out, err = capfd.readouterr()
    assert out.startswith("input of layer 1: the stream's norm is ")
    for kind in KINDS:
        assert f"  {kind}.1" in out
    assert (
        err == "wrote d.safetensors: 6 directions of demo, from 5 positive and 5 negative prompts\n"
    )
    ask = ["--instruction", "Be brief.", "--query", "What colour is the sky?", "--device", "cpu"]
    assert main(["generate", *ask, "--method", "latent", "--directions", "d.safetensors"]) == 0
    assert "added 1 x the diffmean direction of layer 1" in capfd.readouterr().err


def test_the_commands_json_says_what_the_table_says(files, capfd):
    args = ["--layers", "1,3", "--kinds", "linear, diffmean", "--seed", "9", "--json"]
    assert main(["directions", *files, *args, "--device", "cpu"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert [at["layer"] for at in result["layers"]] == [1, 3]
    for at in result["layers"]:
        share = at["difference_norm"] / at["stream_norm"]
        assert at["relative_difference"] == pytest.approx(share)
    names = [direction["name"] for direction in result["directions"]]
    assert names == ["diffmean.1", "linear.1", "diffmean.3", "linear.3"]
    assert all(0 <= direction["accuracy"] <= 1 for direction in result["directions"])
    assert (result["positive_prompts"], result["negative_prompts"], result["seed"]) == (5, 5, 9)
    assert sorted(load_directions("d.safetensors").names) == sorted(names)


def test_a_config_files_layers_are_where_a_method_acts_and_not_the_commands(files, tmp_path, capfd):
    (tmp_path / "config.yaml").write_text("instaboost:\n  layers: 0\nmodel:\n  device: cpu\n")
    assert main(["directions", *files, "--kinds", "diffmean"]) == 0
    assert load_directions("d.safetensors").names == ("diffmean.1",)
    capfd.readouterr()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--layers", "9"], "layer 9 does not exist"),
        (["--layers", "0"], "no difference at the input of layer 0"),
        (["--layers", "some"], "layers 'some' is not understood"),
        (["--kinds", "diffmean,mean"], "the kind 'mean' is none of"),
        (["--seed", "-1"], "seed must be an integer in [0, "),
        (["--out", "nowhere/d.safetensors"], "the folder nowhere is not there"),
        (["--out", "."], "is a folder"),
        (["--positive", "none.txt"], "none.txt cannot be read"),
        (["--positive", "short.txt"], "pcdiff takes differences pair by pair"),
        (["--positive", "low.txt"], "the two sets hold the same prompts"),
        (["--positive", "empty.txt"], "holds no prompt"),
        (["--positive", "binary.txt"], "cannot be read"),
        (["--positive", "bad.jsonl"], "bad.jsonl, line 2 is no JSON"),
        (["--positive", "list.jsonl"], "list.jsonl, line 2 must be a JSON object, got a list"),
        (["--positive", "field.jsonl"], "field.jsonl, line 1: the field 'answer' does not exist"),
        (["--positive", "query.jsonl"], "query.jsonl, line 1: query must be a text"),
        (["--positive", "number.jsonl"], "line 1: instruction must be a text"),
    ],
)
def test_a_wrong_request_ends_with_2_and_leaves_the_old_file(files, tmp_path, args, message, capfd):
    (tmp_path / "short.txt").write_text("Why?")
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "bad.jsonl").write_text('{"query": "a"}\nplain\n')
    (tmp_path / "list.jsonl").write_text('{"query": "a"}\n["b"]\n')
    (tmp_path / "field.jsonl").write_text('{"query": "a", "answer": "b"}\n')
    (tmp_path / "query.jsonl").write_text('{"instruction": "a"}\n')
    (tmp_path / "number.jsonl").write_text('{"instruction": 3, "query": "a"}\n')
    (tmp_path / "d.safetensors").write_text("an older file")
    assert main(["directions", *files, *args, "--device", "cpu"]) == 2
    out, err = capfd.readouterr()
    assert (out, message in err) == ("", True), err
    assert (tmp_path / "d.safetensors").read_text() == "an older file"


@pytest.mark.parametrize("name", ["--positive", "--negative", "--out"])
def test_a_file_that_is_not_named_ends_with_2(files, name, capfd):
    at = files.index(name)
    assert main(["directions", *files[:at], *files[at + 2 :]]) == 2
    assert f"{name} is missing" in capfd.readouterr().err


def test_prompt_files_are_json_lines_or_plain_ones(tmp_path):
    path = tmp_path / "prompts"
    path.write_text("\ufeffWhy?\r\n\r\n  How\u2028so? \n", encoding="utf-8")
    assert read_prompts(path) == [(None, "Why?"), (None, "How\u2028so?")]
    path.write_text('{"query": "Why?"}\n{"instruction": null, "query": "How?"}\n')
    assert read_prompts(path) == [(None, "Why?"), (None, "How?")]
    path.write_text('{"instruction": "Be brief.", "query": "Why?"}')
    assert read_prompts(path) == [("Be brief.", "Why?")]


def test_the_command_answers_help_without_torch():
    code = (
        "import sys\nfrom minboost.cli import main\nmain(['directions', '--help'])\n"
        "assert not {'torch', 'safetensors'} & set(sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Of the random ones" in out.stdout
