"""The demo world's suite: held-out cases with a competing request, and controls without one."""

from __future__ import annotations

from .case import Case


def demo_cases(*, conflict: int = 210, control: int = 70, seed: int = 1) -> list[Case]:
    """Held-out cases of the demo world, so many of each split with a competing request and without.

    The seed is not that of the published figures (benchmarks/dose_response.py).
    """
    from ..demo.corpus import Split, sample_cases

    splits: tuple[Split, ...] = ("validation", "test")
    return [
        Case(
            instruction=case.instruction,
            query=case.query,
            answer=case.answer_if_instruction,
            task=case.kind,
            split=split,
            control=not conflicting,
            concept=concept(case.kind, case.value),
        )
        for split in splits
        for conflicting, count in ((True, conflict), (False, control))
        for case in sample_cases(seed, split, count, conflict=conflicting)
    ]


def concept(kind: str, value: str) -> str:
    """A name for what an instruction of ``kind`` with ``value`` asks for: "language-french"."""
    return f"{kind}-{value}".lower().replace(" ", "-")
