"""config.json: both spellings read, bounds kept, everything unsupported refused by name."""

from __future__ import annotations

import json

import pytest

from minboost.config import ModelConfig
from minboost.errors import ModelError

LLAMA = {
    "model_type": "llama",
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}


def read(**changes):
    return ModelConfig.from_dict({k: v for k, v in {**LLAMA, **changes}.items() if v != "drop"})


@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_old_and_new_rope_spellings_give_the_same_config(key):
    old = read(rope_theta=5e5, rope_scaling={key: "llama3", **LLAMA3})
    new = read(rope_parameters={"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3})
    assert old == new
    assert old.rope.rope_type == "llama3"
    assert old.rope.rope_theta == 5e5


def test_torch_dtype_and_dtype_are_the_same_key():
    assert read(torch_dtype="bfloat16") == read(dtype="bfloat16")
    assert read(dtype="torch.float16").dtype == "float16"


def test_defaults_are_those_of_transformers():
    bare = read(num_key_value_heads="drop", max_position_embeddings="drop")
    assert bare.num_key_value_heads == 4
    assert bare.max_position_embeddings == 2048
    assert bare.rope.rope_theta == 10000.0
    assert not bare.tie_word_embeddings
    assert read(model_type="mistral").layer_windows == (4096,) * 4
    assert read(model_type="mistral", sliding_window=None).layer_windows == (None,) * 4


def test_unknown_keys_are_ignored_and_never_reach_the_config():
    assert read(_name_or_path="x", auto_map={"AutoModel": "evil.py"}) == read()


def test_qwen_windows_follow_the_switch_the_layer_and_the_list():
    base = {"model_type": "qwen2", "sliding_window": 32, "max_window_layers": 3}
    assert read(**base).layer_windows == (None,) * 4
    assert read(**base, use_sliding_window=True).layer_windows == (None, None, None, 32)
    listed = ["sliding_attention", "full_attention"] * 2
    assert read(**base, use_sliding_window=True, layer_types=listed).layer_windows == (
        (32, None) * 2
    )


@pytest.mark.parametrize(
    ("rope", "context"),
    [
        ({"rope_type": "linear", "factor": 4.0}, 8192),
        ({"rope_type": "dynamic", "factor": 2.0}, 4096),
        ({"rope_type": "llama3", **LLAMA3}, 2048),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}, 4096),
        ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 1024}, 2048),
    ],
    ids=str,
)
def test_the_context_is_as_long_as_the_rope_form_makes_it(rope, context):
    assert read(rope_parameters=rope).context_length == context


def test_end_tokens_of_the_generation_config_replace_those_of_the_config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "eos_token_id": 2}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 2, 9999]}))
    assert ModelConfig.from_folder(tmp_path).eos_token_ids == (7, 2)


def test_each_family_has_its_own_defaults():
    def bare(family):
        dropped = {"num_key_value_heads": "drop", "max_position_embeddings": "drop"}
        return read(model_type=family, num_attention_heads=64, hidden_size=128, **dropped)

    assert (bare("llama").num_key_value_heads, bare("llama").head_dim) == (64, 2)
    assert bare("mistral").num_key_value_heads == 8
    assert bare("mistral").max_position_embeddings == 131072
    assert bare("qwen2").num_key_value_heads == 32
    assert bare("qwen2").max_position_embeddings == 32768
    assert bare("qwen3").head_dim == 128
    assert read().rms_norm_eps == 1e-6


def test_qwen_windows_begin_at_layer_28_unless_told_and_null_means_none():
    qwen = {"model_type": "qwen2", "use_sliding_window": True}
    assert read(**qwen, num_hidden_layers=30).layer_windows == (None,) * 28 + (4096,) * 2
    assert read(**qwen, sliding_window=None).layer_windows == (None,) * 4


@pytest.mark.parametrize(
    ("family", "want"),
    [
        ("llama", (True, True, True)),
        ("mistral", (False, False, False)),
        ("qwen2", (True, False, False)),
        ("qwen3", (True, True, False)),
    ],
)
def test_biases_are_where_the_family_has_them(family, want):
    config = read(model_type=family, attention_bias=True, mlp_bias=True)
    assert (config.qkv_bias, config.o_bias, config.mlp_bias) == want


def test_token_ids_outside_the_vocabulary_are_dropped():
    assert read(eos_token_id=[-1, 127, 128]).eos_token_ids == (127,)


def test_dtype_counts_before_torch_dtype_and_an_unknown_one_is_float32():
    assert read(dtype="bfloat16", torch_dtype="float16").dtype == "bfloat16"
    assert read(dtype="float8").dtype == "float32"


def test_the_original_context_of_yarn_is_the_outer_key_then_its_own_then_the_context():
    yarn = {"rope_type": "yarn", "factor": 4.0}

    def original(rope, **config):
        return read(rope_scaling=rope, **config).rope.original_max_position_embeddings

    inner = {**yarn, "original_max_position_embeddings": 50}
    assert original(inner, original_max_position_embeddings=99) == 99
    assert original(inner) == 50
    assert original(yarn, max_position_embeddings=512) == 512


def test_a_missing_yarn_factor_follows_from_the_two_contexts():
    rope = {"rope_type": "yarn", "original_max_position_embeddings": 1024}
    assert read(rope_scaling=rope).rope.factor == 2.0


def test_zero_betas_of_yarn_are_the_defaults():
    rope = read(rope_scaling={"rope_type": "yarn", "factor": 4.0, "beta_fast": 0, "beta_slow": 0})
    assert (rope.rope.beta_fast, rope.rope.beta_slow) == (32.0, 1.0)


def test_the_inner_theta_and_the_old_spelling_of_the_scaling_count():
    new = {"rope_type": "default", "rope_theta": 7.0}
    assert read(rope_theta=5.0, rope_parameters=new).rope.rope_theta == 7.0
    old = {"type": "linear", "factor": 2.0}
    both = read(rope_scaling=old, rope_parameters={"rope_type": "linear", "factor": 3.0})
    assert both.rope.factor == 2.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gemma2"}, "model_type 'gemma2' is not supported; supported: llama"),
        ({"model_type": "drop"}, "model_type None is not supported"),
        ({"model_type": ["llama"]}, "is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported"),
        ({"quantization_config": {"quant_method": "gptq"}}, r"quantised \(gptq\)"),
        ({"quantization_config": {}}, "quantised"),
        ({"rope_scaling": {"type": "longrope"}}, "rope type 'longrope' is not supported"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling: factor is missing"),
        ({"rope_scaling": {"type": "linear", "factor": "x"}}, "factor must be a number"),
        ({"rope_scaling": {"type": "linear", "factor": float("nan")}}, "factor must lie in"),
        (
            {"rope_scaling": {"rope_type": "llama3", **LLAMA3, "low_freq_factor": 4}},
            "must be below",
        ),
        ({"rope_scaling": 3}, "rope_scaling must be an object"),
        (
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
            "partial_rotary_factor is not supported",
        ),
        ({"rms_norm_eps": True}, "rms_norm_eps must be a number"),
        ({"eos_token_id": True}, "token ids must be integers"),
        (
            {
                "model_type": "qwen2",
                "use_sliding_window": True,
                "layer_types": ["full_attention"] * 3,
            },
            "layer_types must name 4 layers",
        ),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ({"num_hidden_layers": 10**9}, r"num_hidden_layers must be an integer in \[1, 1024\]"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"vocab_size": 2**40}, "vocab_size"),
        ({"vocab_size": "drop"}, "vocab_size is missing"),
        ({"hidden_size": 66}, "hidden_size 66 is not a multiple of num_attention_heads 4"),
        ({"num_key_value_heads": 3}, "not a multiple of num_key_value_heads 3"),
        ({"head_dim": 7}, "head_dim 7 is odd"),
        (
            {"hidden_size": 8, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "dynamic rope needs a head_dim above 2",
        ),
        ({"rms_norm_eps": -1}, "rms_norm_eps must lie in"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false"),
        ({"eos_token_id": "2"}, "token ids must be integers, got '2'"),
        (
            {"model_type": "qwen2", "use_sliding_window": True, "layer_types": ["x"] * 4},
            "layer_types",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_run_is_refused_by_name(change, message):
    with pytest.raises(ModelError, match=message):
        read(**change)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "cannot be read as JSON"),
        (b"[1]", "holds a list, not a JSON object"),
        (b"\xff\xfe", "cannot be read"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b'{"x": "' + b"a" * (5 << 20) + b'"}', "larger than"),
    ],
    ids=["cut", "list", "bytes", "deep", "huge"],
)
def test_a_malformed_file_is_named(tmp_path, content, message):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        ModelConfig.from_folder(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        ModelConfig.from_folder(tmp_path)
