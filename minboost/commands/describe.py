"""What every command says of a run: on what it ran, and what was steered."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from .. import __version__

if TYPE_CHECKING:
    from ..lm import LM
    from ..methods import Method
    from ..request import Generation
    from ..span import Span


def header(lm: LM, options: Mapping[str, Any]) -> dict[str, Any]:
    """What the JSON of every command begins with."""
    return {
        "version": __version__,
        "model": options["model"],
        "revision": options["revision"],
        "device": str(lm.device),
        "dtype": str(lm.dtype).removeprefix("torch."),
        "impl": lm.impl,
        "quantize": lm.model.quantized,
        "compiled": lm.compiled,
    }


def ran_on(lm: LM) -> str:
    """Device, dtype and implementation in short: "cpu, bfloat16, torch, compiled"."""
    dtype = str(lm.dtype).removeprefix("torch.")
    weights = [f"{lm.model.quantized} weights"] if lm.model.quantized else []
    return ", ".join(
        (str(lm.device), dtype, *weights, lm.impl, *(["compiled"] if lm.compiled else []))
    )


def parameters(method: Method) -> dict[str, Any]:
    """The method's own fields, as JSON has them."""
    return {
        name: value if isinstance(value, (int, float, str)) else str(value)
        for name, value in method.parameter_values().items()
    }


def steered(
    method: Method,
    span: str,
    heads: Mapping[int, Sequence[int]],
    spans: Sequence[Span],
    logs: Sequence[float],
) -> str:
    """One phrase for people: what was steered, and where.

    Args:
        span: the method's, as it was asked for.
        heads: {layer: heads} on which the attention was steered, the ``spans`` that were, and the
            log multiplier of each.
    """
    if heads:
        count = sum(len(chosen) for chosen in heads.values())
        tokens = ", ".join(map(str, spans))
        if method.name == "guide":  # whose tags differ in strength
            pairs = zip(spans, logs, strict=True)
            tokens = ", ".join(f"{one} by {log:+.3g}" for one, log in pairs)
        done = method.describe(repr(span), tokens)
        return f"{done} on {len(heads)} layers, {count} heads"
    if method.name == "latent":
        return method.describe("", "")
    return f"nothing boosted ({strength(method)})"


def strength(method: Method) -> str:
    """The method's strength in short: "m = 10", "alpha = 0.01"."""
    name = "m" if method.name == "instaboost" else method.strength
    return f"{name} = {getattr(method, method.strength):g}"


def answer_json(
    lm: LM,
    options: dict[str, Any],
    method: Method,
    out: Generation,
    plain: Generation | None,
    notes: list[str],
) -> dict[str, Any]:
    """What --json prints of an answer, and of the ``plain`` one if there is one."""
    span, mass = out.prompt.instruction, out.attention_mass
    result: dict[str, Any] = {
        **header(lm, options),
        "instruction": options["instruction"],
        "query": options["query"],
        "role": out.prompt.role,
        "seed": options["seed"],
        "prompt_tokens": out.stats.prompt_tokens,
        "instruction_span": None if span is None else [span.start, span.stop],
        "method": method.name,
        "parameters": parameters(method),
        "multiplier": options["multiplier"] if method.name == "instaboost" else None,
        "span": options["span"],
        "boosted_spans": [
            {"start": one.start, "stop": one.stop, "log_multiplier": log}
            for one, log in zip(out.boosted_spans, out.boosted_logs, strict=True)
        ],
        "boosted_layers": list(out.boosted_heads),
        "boosted_heads": sum(len(heads) for heads in out.boosted_heads.values()),
        **_outcome(out),
        "attention_mass": None
        if mass is None
        else {"baseline": mass.baseline.mean().item(), "boosted": mass.boosted.mean().item()},
        "notes": notes,
    }
    if plain is not None:
        result["baseline"] = _outcome(plain)
    return result


def _outcome(out: Generation) -> dict[str, Any]:
    return {
        "text": out.text,
        "new_tokens": out.stats.new_tokens,
        "finish_reason": out.finish_reason,
        "prefill_seconds": out.stats.prefill_seconds,
        "decode_tokens_per_second": out.stats.decode_tokens_per_second,
    }


def stats_lines(lm: LM, options: dict[str, Any], method: Method, out: Generation) -> list[str]:
    """For people: on what it ran, what was steered, how fast."""
    stats = out.stats
    boosted = steered(
        method, options["span"], out.boosted_heads, out.boosted_spans, out.boosted_logs
    )
    memory = stats.peak_memory_bytes
    return [
        f"{options['model']} on {ran_on(lm)}; {boosted}",
        f"prompt {stats.prompt_tokens} tokens, {stats.prefill_tokens_per_second:.1f} tokens/s; "
        f"answer {stats.new_tokens} tokens, {stats.decode_tokens_per_second:.1f} tokens/s"
        + (f"; peak memory {memory / 1e9:.2f} GB" if memory else ""),
    ]


def echo(text: str, *, nl: bool = True, err: bool = False) -> None:
    """Print, in plain characters where the stream's encoding has no others."""
    from ..analysis.heatmap import printable

    stream = sys.stderr if err else sys.stdout
    click.echo(printable(text, getattr(stream, "encoding", None)), nl=nl, err=err)
