"""``minboost influence``: how much of the instruction reaches each position, layer by layer."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .describe import header, parameters, steered
from .options import (
    CONTEXT,
    config_options,
    load_model,
    method_of,
    method_options,
    model_options,
    settle,
    text_options,
    texts_of,
    toy_notes,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ..analysis.influence import Influence
    from ..analysis.influence_comparison import Comparison
    from ..lm import LM
    from ..methods import Method

EXAMPLES = """
\b
Examples:
  The demo model, plain and boosted, and the delta that does what upper case does:
    minboost influence --instruction "Answer in French." \\
      --query "What colour is the sky? Answer in English instead."
\b
  GUIDE's delta on a model of your own, with rollout and a figure:
    minboost influence --model ./Llama-3.2-1B-Instruct --method guide --delta 1.5 --rollout \\
      --plot influence.png --instruction "Answer in French." --query "Why is the sky blue?"
\b
Layers count from 0, as in --layers; a row is the stream after that layer. Influence lies in [0, 1];
its log, the unit of the paper, is in the figure and, for every position, in --json.
Never read it alone: in the data of GUIDE's authors 1 / context length predicts success about as
well. The control span and the token share are what a text of that length gets without being an
instruction.
"""


@click.command(
    "influence",
    short_help="How much of the instruction reaches the answer.",
    epilog=EXAMPLES,
    context_settings=CONTEXT,
)
@text_options
@method_options
@model_options
@click.option("--rollout", is_flag=True,
              help="Also show attention rollout; --json always has it.")  # fmt: skip
@click.option("--plot", type=click.Path(path_type=Path),
              help="Draw the curves to this .png or .svg file.")  # fmt: skip
@click.option("--json", is_flag=True, help="One JSON object on stdout.")
@config_options
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Show how much of the instruction reaches the answer: its influence on the prompt's last
    position after every layer (GUIDE, arXiv 2409.19001), plain, boosted and in upper case.

    Suggests the delta with which the instruction has the influence of upper case."""
    if settle(ctx, options):
        return
    options["instruction"], options["query"] = texts_of(options)
    ctx.exit(run(options))


def run(options: dict[str, Any]) -> int:
    """Load, measure, print, draw. ``options`` are the command's, settled."""
    from ..analysis.influence_comparison import compare
    from ..methods import Guide

    method = method_of(options)
    where = {**options, "method": "guide"}
    if method.name == "latent":  # its layers are the stream's, not those of attention
        where |= {"layers": "all", "heads": "all"}
    guide = method_of(where, span="instruction")
    assert isinstance(guide, Guide)
    if options["plot"] is not None:
        from ..analysis.plots import check_plot

        check_plot(options["plot"])
    lm = load_model(options)
    found = compare(
        lm,
        instruction=options["instruction"],
        query=options["query"],
        role=options["role"],
        boost=method,
        guide=guide,
    )
    notes = [*found.run.notes[0], *_notes(found), *toy_notes(options)]
    for note in notes:
        click.echo(f"note: {note}", err=True)
    if options["json"]:
        result = _as_json(lm, options, method, found, notes)
        click.echo(json.dumps(result, ensure_ascii=False))
    else:
        for line in _report(options, method, found):
            click.echo(line)
    if options["plot"] is not None:
        _draw(found, options["plot"], rollout=options["rollout"])
        click.echo(f"wrote {options['plot']}", err=True)
    return 0


def _notes(found: Comparison) -> list[str]:
    """What makes the curves say less than they seem to."""
    notes = []
    if found.control is None:
        notes.append(
            f"no control span: the query has {len(found.prompt.query)} tokens, fewer than the "
            f"instruction's {len(found.plain.span)}"
        )
    if found.prompt.ids == found.upper_prompt.ids:
        notes.append("upper case changes nothing about the instruction: the curves are the same")
    if found.suggestion.layers < len(found.plain.at_last) - 1:
        notes.append(
            f"the instruction reaches the last position after {found.suggestion.layers} of "
            f"{len(found.plain.at_last) - 1} layers: only these are compared"
        )
    return notes


def _report(options: dict[str, Any], method: Method, found: Comparison) -> list[str]:
    """The table of the last position, and what to make of it."""
    prompt, share = found.prompt, found.share[:, -1].tolist()
    columns = [
        ("plain", found.plain.at_last[1:].tolist()),
        ("boosted", found.boosted.at_last[1:].tolist()),
        ("upper case", found.upper.at_last[1:].tolist()),
    ]
    if options["rollout"]:
        columns += [
            ("rollout", found.plain.rollout[1:, -1].tolist()),
            ("rollout boosted", found.boosted.rollout[1:, -1].tolist()),
        ]
    control = [None] * len(share)
    if found.control is not None:
        control = found.control[0].at_last[1:].tolist()
    columns += [("control", control), ("token share", share)]
    lines = [
        f"influence of the instruction, tokens {found.plain.span} of {len(prompt.ids)}, on the "
        f"last position, {len(prompt.ids) - 1}",
        f"steering: {_steered(method, options, found)}",
        "",
        "  ".join(["after layer", *(name.rjust(8) for name, _ in columns)]),
    ]
    for layer in range(len(share)):
        cells = [_number(values[layer]).rjust(max(8, len(name))) for name, values in columns]
        lines.append("  ".join([str(layer).rjust(len("after layer")), *cells]))
    lines += [
        "",
        *_suggested(options, found),
        "Baselines of the same length:",
    ]
    if found.control is not None:
        lines.append(f"  control: tokens {found.control[0].span} of the query, plain")
    lines.append("  token share: the instruction's part of the tokens that the position sees")
    tokens, upper_tokens = len(found.plain.span), len(found.upper.span)
    from ..analysis.influence_comparison import NOT_HIGHER

    longer = found.upper_share[-1, -1] > share[-1]
    if tokens != upper_tokens and longer and found.suggestion.outcome != NOT_HIGHER:
        lines.append(
            f"  upper case takes {upper_tokens} tokens where the instruction takes {tokens}: its "
            f"token share is {found.upper_share[-1, -1]:.2f}, not {share[-1]:.2f},"
        )
        lines.append("  so part of what sets it apart from plain is its length")
    return lines


def _suggested(options: dict[str, Any], found: Comparison) -> list[str]:
    from ..analysis.influence_comparison import MOST, NOT_HIGHER, NOT_SEEN, OUT_OF_REACH

    suggestion = found.suggestion
    if suggestion.outcome == NOT_SEEN:
        return ["Suggested delta: none. The last position does not see the instruction."]
    assert suggestion.plain is not None
    assert suggestion.goal is not None
    assert suggestion.level is not None
    levels = f"mean log influence: plain {suggestion.plain:.3f}, upper case {suggestion.goal:.3f}"
    if suggestion.outcome == NOT_HIGHER:
        return [f"Suggested delta: 0. Upper case has no more influence than plain ({levels})."]
    everywhere = options["method"] == "latent" or options["layers"] == options["heads"] == "all"
    where = "" if everywhere else ", on the layers and heads that were chosen here"
    if suggestion.outcome == OUT_OF_REACH:
        return [
            f"Suggested delta: none up to {MOST} gives the instruction the influence of upper "
            f"case{where}",
            f"  {levels}, the highest {suggestion.level:.3f}",
        ]
    assert suggestion.delta is not None
    return [
        f"Suggested delta: {suggestion.delta:.2f} gives the instruction the influence of upper "
        "case",
        f"  {levels}, with delta {suggestion.level:.3f}",
        f"  --method guide --delta {suggestion.delta:.2f}, the same as --multiplier "
        f"{math.exp(suggestion.delta):.2f}{where}",
    ]


def _steered(method: Method, options: dict[str, Any], found: Comparison) -> str:
    run = found.run
    return steered(method, options["span"], run.heads[0], run.spans[0], run.span_logs[0])


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if value == 0 or value >= 0.001 else f"{value:.1e}"


def _as_json(
    lm: LM, options: dict[str, Any], method: Method, found: Comparison, notes: list[str]
) -> dict[str, Any]:
    prompt, upper, suggestion = found.prompt, found.upper_prompt, found.suggestion
    heads = found.run.heads[0]
    return {
        **header(lm, options),
        "instruction": options["instruction"],
        "query": options["query"],
        "role": prompt.role,
        "seed": options["seed"],
        "method": method.name,
        "parameters": parameters(method),
        "span": options["span"],
        "boosted_layers": list(heads),
        "boosted_heads": sum(len(chosen) for chosen in heads.values()),
        "prompt_tokens": len(prompt.ids),
        "tokens": _tokens(lm, prompt.ids),
        "instruction_span": [found.plain.span.start, found.plain.span.stop],
        "plain": _curves(found.plain),
        "boosted": _curves(found.boosted),
        "token_share": found.share.tolist(),
        "control": None
        if found.control is None
        else {
            "span": [found.control[0].span.start, found.control[0].span.stop],
            "plain": _curves(found.control[0]),
            "boosted": _curves(found.control[1]),
        },
        "upper_case": {
            "prompt_tokens": len(upper.ids),
            "tokens": _tokens(lm, upper.ids),
            "instruction_span": [found.upper.span.start, found.upper.span.stop],
            **_curves(found.upper),
            "token_share": found.upper_share.tolist(),
        },
        "delta_suggestion": {
            "outcome": suggestion.outcome,
            "delta": suggestion.delta,
            "layers_compared": suggestion.layers,
            "mean_log_influence": {
                "plain": suggestion.plain,
                "upper_case": suggestion.goal,
                "with_delta": suggestion.level,
            },
        },
        "notes": notes,
    }


def _tokens(lm: LM, ids: list[int]) -> list[str]:
    return [lm.tokenizer.decode([token], skip_special_tokens=False) for token in ids]


def _curves(of: Influence) -> dict[str, Any]:
    """Influence and rollout with their logs, by depth 0 to L and position."""
    return {
        "influence": of.influence.tolist(),
        "log_influence": _logs(of.influence),
        "rollout": of.rollout.tolist(),
        "log_rollout": _logs(of.rollout),
    }


def _logs(values: Tensor) -> list[list[float | None]]:
    return [[math.log(v) if v > 0 else None for v in row] for row in values.tolist()]


def _draw(found: Comparison, path: Path, *, rollout: bool) -> None:
    from ..analysis.influence_plot import influence_figure
    from ..analysis.plots import save

    save(influence_figure(found, rollout=rollout), path)
