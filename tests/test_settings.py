"""config.yaml and .env: which keys count, how values are read, what is refused."""

from __future__ import annotations

import os

import pytest
import yaml

from minboost import InputError, settings

from .test_generate import boost_of

pytestmark = pytest.mark.usefixtures("clean_settings")


def test_every_config_key_sets_the_option_of_its_name(tmp_path):
    nested, want = {}, {}
    renamed = {"random_seed": "seed", "model.name": "model", "method": "method"}
    for number, key in enumerate(key for key, option in settings.KEYS.items() if option):
        section, _, inner = key.partition(".")
        if inner:
            nested.setdefault(section, {})[inner] = number
        else:
            nested[section] = number
        option = renamed.get(key, inner)
        want[option] = [str(number)] if option == "stop" else str(number)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(nested))
    assert settings.read_config(tmp_path / "c.yaml") == want


def test_null_leaves_an_option_alone(tmp_path):
    (tmp_path / "c.yaml").write_text("instaboost: {multiplier: null, span: prefix}\n")
    assert settings.read_config(tmp_path / "c.yaml") == {"span": "prefix"}


@pytest.mark.parametrize(
    ("text", "message"),
    [("#" * (1 << 20) + "\n", "larger than"), ("a: " + "[" * 20_000, "cannot be read")],
    ids=["huge", "deep"],
)
def test_a_config_file_beyond_all_bounds_is_refused(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        settings.read_config(tmp_path / "c.yaml")


def test_a_dotenv_gives_its_values_as_they_stand_and_only_our_names(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("SECRET", "s")
    (tmp_path / ".env").write_text("HF_TOKEN=${SECRET}\nMINBOOST_SEED=3\nLD_PRELOAD=x\n")
    assert settings.read_dotenv(tmp_path) == {"HF_TOKEN", "MINBOOST_SEED"}
    assert os.environ["HF_TOKEN"] == "${SECRET}"
    assert "LD_PRELOAD" not in os.environ


def test_at_one_distance_the_plainer_option_wins(tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text(
        'instaboost:\n  layers: "1"\n  boost_middle_layers_only: true\n'
        '  heads: "all"\n  head_boost_percentage: 0.5\n'
    )
    boost = boost_of(monkeypatch=monkeypatch)
    assert (boost.layers, boost.heads) == ("1", "all")


def test_a_head_share_of_one_is_all_heads(monkeypatch):
    monkeypatch.setenv("MINBOOST_HEAD_BOOST_PERCENTAGE", "1")
    assert boost_of(monkeypatch=monkeypatch).heads == "all"
