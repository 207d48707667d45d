"""The table and the figure of methods.py, made from what it writes as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SIGNIFICANT = 0.05


def markdown(results: dict[str, Any]) -> str:
    counts = results["cases"]
    floor = f"{results['floor'] * 100:.0f} %"
    lines = [
        "# The methods on the demo model",
        "",
        f"`{results['command']}`: each method at the strength that {counts['validation']}",
        f"validation cases chose (best success under conflict with at least {floor} of the",
        f"answers without conflict right and {floor} of all answers fluent), on",
        f"{counts['test']} test cases, half of them with a competing request. Greedy decoding,",
        f"all heads and layers unless profiled; {results['interval']} intervals. At the end the",
        "test cases under conflict that only the method, or only the plain model, answers rightly",
        "(McNemar's exact p).",
        "",
        "| method | chosen | with conflict | without conflict | fluent | against plain |",
        "|---|---|---|---|---:|---|",
        "| plain | | " + " | ".join(cells(results["plain"])) + " | |",
    ]
    for one in results["rows"]:
        heads = "" if one["heads"] is None else f", {one['heads']} heads"
        heads += f", {one['detail']}" if one["detail"] else ""
        if "test" not in one:
            lines.append(f"| {one['method']} | none passes the floor | | | | |")
            continue
        against = one["against_plain"]
        lines.append(
            f"| {one['method']} | {one['parameter']} {one['chosen']:g}{heads} | "
            + " | ".join(cells(one["test"]))
            + f" | +{against['better']} −{against['worse']}, p = {against['p']:.2g} |"
        )
    lines += ["", "**Profiled heads against all heads**, each at its own best strength:", ""]
    for one in results["rows"]:
        if (against := one.get("against_all_heads")) is not None:
            verdict = "no difference that these cases show"
            if against["p"] < SIGNIFICANT:
                verdict = "better" if against["better"] > against["worse"] else "worse"
            lines.append(
                f"- {one['method']}, {one['heads']} of {results['heads']}: {verdict}; right on "
                f"{against['better']} cases that all heads get wrong, wrong on {against['worse']} "
                f"that they get right (p = {against['p']:.2g})."
            )
    lines += [
        "",
        "GUIDE's δ is InstABoost's log m, on another grid. A latent direction serves one value of",
        "an instruction, and is added on top of the same prompt, each case getting its own. The",
        "paper's factors of .1 to 1 do next to nothing here: the demo model's residual stream",
        "has a norm of about 60. `random` and `projection` are controls: a push of the same",
        "length, and the instruction's own direction taken out.",
        "",
        "![success against control on validation](methods.png)",
    ]
    return "\n".join(lines) + "\n"


def cells(side: dict[str, Any]) -> list[str]:
    return [
        f"{side['success']:.3f} ({interval(*side['success_interval'])})",
        f"{side['control']:.3f} ({interval(*side['control_interval'])})",
        f"{side['fluency']:.3f}",
    ]


def interval(low: float, high: float) -> str:
    return f"{low:.3f} to {high:.3f}"


COLOURS = {
    "instaboost": "#0072b2",
    "pasta": "#d55e00",
    "spotlight, exact": "#009e73",
    "spotlight, published": "#56b4e9",
    "latent, diffmean": "#cc79a7",
    "latent, pcact": "#e69f00",
    "latent, random": "0.55",
}


def draw(results: dict[str, Any], path: Path) -> None:
    """Success under conflict against success without it, on validation, a point a strength."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = path.name  # the same figure gives the same file
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.6, 5.0), layout="constrained")
    for one in results["rows"]:
        colour = COLOURS.get(one["method"].removesuffix(", profiled heads"))
        if colour is None:
            continue
        profiled = one["heads"] is not None
        x = [point["control"] for point in one["validation"]]
        y = [point["success"] for point in one["validation"]]
        axes.plot(x, y, color=colour, linestyle="--" if profiled else "-", linewidth=1.3,
                  marker="o", markersize=3, label=one["method"])  # fmt: skip
        best = next((p for p in one["validation"] if p["value"] == one["chosen"]), None)
        if best is not None:
            axes.plot([best["control"]], [best["success"]], color=colour, marker="*", markersize=13)
    axes.axvline(results["floor"], color="0.45", linewidth=0.9, linestyle=":", zorder=0)
    axes.annotate("floor", (results["floor"], 0.02), xytext=(-4, 0), textcoords="offset points",
                  ha="right", fontsize=8.5, color="0.3")  # fmt: skip
    axes.set_xlim(0.5, 1.01)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("answers without conflict that stay right")
    axes.set_ylabel("answers under conflict that obey the instruction")
    axes.set_title("Demo model, validation split: a point a strength, a star the chosen one",
                   fontsize=11)  # fmt: skip
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower left", frameon=False, fontsize=8.5)
    figure.savefig(path.with_suffix(".png"), dpi=130)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)
