"""What a comparison found, of each suite and split, in a sentence or two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..analysis.tuning import FLOOR
from ..comparison.arms import PLAIN
from ..comparison.results import Results
from ..comparison.summary import ArmSummary, Group, Versus
from .families import point_of
from .formats import count, interval, p_value, share, signed

ALPHA = 0.05
"""The p value, corrected, below which two arms are said to differ."""
CHOSEN_OF = 3
"""Arms from which the best one's figure is noticeably lifted by its being the best."""
GAIN, LOSS, NO_DIFFERENCE, NOTHING = "gain", "loss", "alike", "nothing"


@dataclass(frozen=True)
class Finding:
    """What was found in one suite and split.

    Attributes:
        kind: ``GAIN``, ``LOSS`` (arms do worse than plain, and none better), ``NO_DIFFERENCE``, or
            ``NOTHING`` to compare.
        text: the sentence.
        beside: what must not be read without: fluency and controls, what was left out.
        arm: the arm that the sentence is about; None where it is about none.
    """

    suite: str
    split: str
    kind: str
    text: str
    beside: str
    arm: str | None

    def as_json(self) -> dict[str, str | None]:
        return {
            "suite": self.suite,
            "split": self.split,
            "finding": self.kind,
            "arm": self.arm,
            "text": f"{self.text} {self.beside}".strip(),
        }


def floor_of(results: Results) -> float:
    """The least fluency and control that the newest sweep asked for, or that a sweep would."""
    floors = [run.sweep["floor"] for run in results.runs if run.sweep and "floor" in run.sweep]
    return float(floors[-1]) if floors else FLOOR


def finding_of(group: Group, *, floor: float = FLOOR) -> Finding:
    """What was found in ``group``: the best arm that differs from plain, or that none does.

    The best is the most successful of the arms whose corrected p value lies below ``ALPHA`` and
    whose fluency and control reach ``floor``; where none does, of those that fall short.
    """
    compared = [(arm, arm.versus) for arm in group.arms if arm.versus is not None]
    if not compared:
        return _finding(group, NOTHING, _nothing(group), "", None)
    better = [(a, v) for a, v in compared if v.corrected < ALPHA and v.difference.value > 0]
    worse = [(a, v) for a, v in compared if v.corrected < ALPHA and v.difference.value < 0]
    others = _worse(worse)
    if better:
        sound = [(a, v) for a, v in better if _safety(a) >= floor]
        arm, versus = _best(sound or better)
        notes = [_beside(arm, group), _broken(arm, floor)]
        top, most = _best(better)
        if sound and most.difference.value > versus.difference.value:
            notes.append(
                f"{top.name} gains more, {signed(most.difference.value)}. {_broken(top, floor)}"
            )
        if len(compared) >= CHOSEN_OF:
            notes.append(
                f"It is the best of {len(compared)} on these very cases: expect a little less on "
                "new ones."
            )
        text = (
            f"{arm.name} does {'best' if len(compared) > 1 else 'better than plain'}: it succeeds "
            f"in {_shares(versus)}, a difference of {_difference(versus)}."
        )
        return _finding(group, GAIN, text, " ".join([*filter(None, notes), *others]), arm.name)
    if worse:
        arm, versus = min(worse, key=lambda one: one[1].difference.value)
        subject = f"{arm.name} does worse than plain: it"
        if len(compared) > 1:
            many = "1 does worse" if len(worse) == 1 else f"{len(worse)} do worse"
            subject = f"No arm does better than plain, and {many}. {arm.name}"
        text = f"{subject} succeeds in {_shares(versus)}, a difference of {_difference(versus)}."
        return _finding(group, LOSS, text, _beside(arm, group), arm.name)
    arm, versus = _best(compared)
    subject = f"{arm.name} does not differ from plain beyond chance: it"
    if len(compared) > 1:
        subject = f"No arm differs from plain beyond chance. The best, {arm.name},"
    text = f"{subject} succeeds in {_shares(versus)}, a difference of {_difference(versus)}."
    return _finding(group, NO_DIFFERENCE, text, _beside(arm, group), arm.name)


def _shares(versus: Versus) -> str:
    return f"{share(versus.arm)} of {count(versus.cases, 'case')}, plain in {share(versus.plain)}"


def _finding(group: Group, kind: str, text: str, beside: str, arm: str | None) -> Finding:
    return Finding(group.suite, group.split, kind, text, beside, arm)


def _nothing(group: Group) -> str:
    if not group.plain:
        return "There is no plain arm to compare with."
    if len(group.arms) == 1:
        (plain,) = group.arms
        told = "" if plain.success is None else f": its success is {share(plain.success.value)}"
        return f"Only the plain arm has answers{told}."
    return "No arm can be compared with plain: they share no case that is not a control."


def _best(arms: Sequence[tuple[ArmSummary, Versus]]) -> tuple[ArmSummary, Versus]:
    """The arm that gains most, of equals the one with more safety, then the first."""
    return max(arms, key=lambda one: (one[1].difference.value, _safety(one[0])))


def _safety(arm: ArmSummary) -> float:
    point = point_of(arm)
    return arm.fluency.value if point is None else point.safety


def _difference(versus: Versus) -> str:
    family = f", corrected for {versus.family} arms" if versus.family > 1 else ""
    return (
        f"{signed(versus.difference.value)} (95 % interval "
        f"{interval(versus.difference, sign=True)}; p = {p_value(versus.corrected)}{family})"
    )


def _beside(arm: ArmSummary, group: Group) -> str:
    """Fluency and controls, which success must never be read without."""
    plain = group.arm(PLAIN)
    assert plain is not None
    parts = [f"fluency {share(arm.fluency.value)} (plain {share(plain.fluency.value)})"]
    if arm.control is not None and plain.control is not None:
        control = f"{share(arm.control.value)} (plain {share(plain.control.value)})"
        parts.append(f"controls that still pass {control}")
    text = ", ".join(parts)
    return text[0].upper() + text[1:] + "."


def _broken(arm: ArmSummary, floor: float) -> str:
    low = [f"fluency ({share(arm.fluency.value)})"] if arm.fluency.value < floor else []
    if arm.control is not None and arm.control.value < floor:
        low.append(f"control ({share(arm.control.value)})")
    lie = "lies" if len(low) == 1 else "lie"
    return f"But its {' and '.join(low)} {lie} below {floor:g}." if low else ""


def _worse(worse: Sequence[tuple[ArmSummary, Versus]]) -> list[str]:
    if not worse:
        return []
    if len(worse) > 3:
        return [f"{len(worse)} arms do worse than plain."]
    named = ", ".join(f"{a.name} ({signed(v.difference.value)})" for a, v in worse)
    return [f"Worse than plain: {named}."]
