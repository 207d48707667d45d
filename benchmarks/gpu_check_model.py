"""Correctness of whole models: steps against float64, graphs against eager, tokens of others."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from gpu_checks import Worst
from gpu_lab import TINY, Lab, plan, random_model
from gpu_runner import Job, Row
from torch import Tensor

from minboost.checkpoint import save_weights
from minboost.config import ModelConfig
from minboost.decode import Decoder
from minboost.methods import Boost
from minboost.model import Transformer
from minboost.plan import Plan, sequence_plan
from minboost.sampling import Sampling
from minboost.span import Span

SMALL = {
    "vocab_size": 2048,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


def jobs() -> list[Job]:
    named: list[tuple[str, Callable[[Lab], Iterator[Row]]]] = [
        ("prefill and step of two layers against float64", check_step),
        ("graph decode against eager", check_graph),
        ("boosted greedy tokens against transformers", check_tokens),
    ]
    return [Job("checks", name, 5, run) for name, run in named]


def check_step(lab: Lab) -> Iterator[Row]:
    """Two layers of each model: prefill and a step, ragged and boosted, against float64."""
    worst = Worst()
    for shape in lab.sizes.steps:
        config = lab.config(shape, num_hidden_layers=2, vocab_size=90)
        model = random_model(config, lab.device, lab.dtype, deviation=None)
        prompts = lab.prompts(config, (20, 9, 13) if lab.dry else (300, 9, 77), seed=3)
        logits: dict[str, tuple[Tensor, Tensor]] = {}
        for impl, dtype in (
            ("triton", lab.dtype), ("torch", lab.dtype), ("reference", torch.float64)
        ):  # fmt: skip
            twin = model if impl == "triton" else recast(model, impl, dtype)
            boost = plan(1, config, len(prompts), 9, lab.device)
            decoder = Decoder(twin, prompts, max_new_tokens=2, plan=boost)
            first, _ = decoder.prefill()
            logits[impl] = (first, decoder.step([5, 6, 7]))
        for at, stage in enumerate(("prefill", "step")):
            worst.add(
                f"{shape} {stage}", logits["triton"][at], logits["reference"][at].double(),
                logits["torch"][at],
            )  # fmt: skip
    yield worst.row()


def check_graph(lab: Lab) -> Iterator[Row]:
    """One captured step serves runs of other lengths and boosts, token for token as eager."""
    shape = next(iter(lab.sizes.steps))
    config = lab.config(shape, num_hidden_layers=1 if lab.dry else 2)
    model = random_model(config, lab.device, lab.dtype, deviation=None)
    count, tokens = 3 if lab.dry else 24, {}
    runs = [
        ("greedy", [Sampling()], (21,), 0),
        ("greedy, boosted, longer", [Sampling()], (33,), 4),
        ("batch, sampled", [Sampling(temperature=1.0, seed=s) for s in (1, 2)], (9, 20), 1),
        ("batch, sampled, plain", [Sampling(temperature=0.8, seed=s) for s in (3, 4)], (30, 7), 0),
    ]
    for graph in (True, False):
        for name, samplings, lengths, spans_ in runs:
            boost = plan(spans_, config, len(lengths), min(lengths), lab.device)
            prompts = lab.prompts(config, lengths, seed=sum(lengths))
            decoder = Decoder(model, prompts, max_new_tokens=count, plan=boost)
            tokens[graph, name] = list(decoder.tokens(samplings, graph=graph))
        if graph:
            captures = [step.captures for free in model.device_steps.values() for step in free]
    differ = [run[0] for run in runs if tokens[True, run[0]] != tokens[False, run[0]]]
    on_gpu = lab.clock.on_gpu
    captured_once = not on_gpu or captures == [1, 1]  # of each batch size, for two runs
    row = {"cases": len(runs), "captures": captures, "passed": not differ and captured_once}
    if differ:
        row["worst_case"] = f"tokens differ: {', '.join(differ)}"
    if not on_gpu:
        row["note"] = "no graphs without a GPU: both runs are eager"
    yield row


def check_tokens(lab: Lab) -> Iterator[Row]:
    """A small random checkpoint in float32; the boost is a float mask in transformers' eager."""
    raw = {"model_type": "llama", **(TINY if lab.dry else SMALL)}
    config = ModelConfig.from_dict(raw)
    ours = random_model(config, lab.device, torch.float32, deviation=None)
    count = 3 if lab.dry else 32
    theirs, against = eager_twin(ours, raw)
    spans = [(Boost(7.0), [Span(2, 9)]), (Boost(0.3), [Span(6, 12)])]
    boost = Plan.build([sequence_plan(spans, **config.size)], **config.size, device=lab.device)
    differ, changed = [], False
    prompts = lab.prompts(config, (14,) if lab.dry else (14, 23, 200), seed=11)
    for prompt in prompts:
        got, plain = (greedy(ours, prompt, some, count) for some in (boost, None))
        if isinstance(theirs, Transformer):
            want = greedy(theirs, prompt, boost, count)
        else:
            want = masked_greedy(theirs, prompt, boost, count, lab.device)
        changed |= got != plain
        if got != want:
            differ.append(f"prompt of {len(prompt)}: {got} instead of {want}")
    row: Row = {"cases": len(prompts), "against": against, "passed": changed and not differ}
    if differ or not changed:
        row["worst_case"] = differ[0] if differ else "the boost changes no token"
    yield row


def eager_twin(model: Transformer, raw: dict[str, Any]) -> tuple[Any, str]:
    """The same checkpoint in transformers, or in this library's reference without it."""
    try:
        from transformers import LlamaForCausalLM
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        twin = recast(model, "reference", torch.float32)
        return twin, f"reference attention of this library: {error}"
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        save_weights(model, Path(folder) / "model.safetensors")
        text = json.dumps({**raw, "architectures": ["LlamaForCausalLM"]})
        (Path(folder) / "config.json").write_text(text)
        twin = LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager")
    return twin.to(model.device).eval(), "transformers, eager, float mask"


def greedy(model: Transformer, prompt: list[int], boost: Plan | None, count: int) -> list[int]:
    decoder = Decoder(model, [prompt], max_new_tokens=count, plan=boost)
    return [row[0] for row in decoder.tokens([Sampling()])]


@torch.inference_mode()
def masked_greedy(
    model: Any, prompt: list[int], boost: Plan, count: int, device: torch.device
) -> list[int]:
    """Greedy tokens of a transformers model, all anew each time, under causal mask and boost."""
    ids = torch.tensor([prompt], device=device)
    for _ in range(count):
        T = ids.shape[1]
        hidden = torch.ones(T, T, dtype=torch.bool, device=device).triu(1)
        dense = boost.layers[0].dense(0, T)  # the same on all layers and heads
        assert dense is not None
        mask = dense[:, :1, None].expand(1, 1, T, T).masked_fill(hidden, torch.finfo().min)
        logits = model(ids, attention_mask=mask, use_cache=False).logits
        ids = torch.cat((ids, logits[:, -1:].argmax(-1)), 1)
    return list(ids[0, len(prompt) :].tolist())


def recast(model: Transformer, impl: str, dtype: torch.dtype) -> Transformer:
    """The same weights under another implementation, in another dtype."""
    with torch.device("meta"):
        twin = Transformer(model.config, impl=impl)
    twin.requires_grad_(False)
    weights = {name: value.to(dtype) for name, value in model.state_dict().items()}
    twin.load_state_dict(weights, assign=True)
    if model.config.tie_word_embeddings:
        twin.lm_head.weight = twin.embed_tokens.weight
    return twin.eval()
