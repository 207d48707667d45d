"""What every checker has: a name, a form in suite files, and a verdict with its reason."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, ClassVar

from ..errors import InputError


@dataclass(frozen=True)
class Verdict:
    """Whether an answer passed, and why: a phrase such as "12 words, at most 10 allowed"."""

    passed: bool
    why: str


@dataclass(frozen=True)
class Checker(ABC):
    """A rule that an answer keeps or breaks.

    A subclass is a frozen dataclass whose fields are its options, the main one first. It checks
    them in ``__post_init__`` and raises `InputError` naming the field, the rule and the value.
    """

    name: ClassVar[str]
    """Its name in suite files."""

    @abstractmethod
    def check(self, text: str) -> Verdict:
        """Judge a whole answer, which is neither empty nor cut off."""

    def needs(self) -> None:
        """Raise `InputError` if a package that the checker uses is not installed; by default none.

        Called when a suite is loaded, so that nothing is missing after hours of answering.
        """
        return

    @classmethod
    def parse(cls, value: Any) -> Checker:
        """The checker of what stands behind its name in a suite: a mapping of its fields, the value
        of its first field, or nothing or true where every field has a default.

        Raises:
            InputError: a field that does not exist or is missing, or a value that it refuses.
        """
        known = [field.name for field in fields(cls)]
        required = [field.name for field in fields(cls) if _required(field)]
        if value is None or (value is True and not required):
            values: dict[str, Any] = {}
        elif isinstance(value, Mapping):
            values = dict(value)
        else:
            values = {known[0]: value} if known else {"": value}
        if unknown := [name for name in values if name not in known]:
            raise InputError(
                f"{cls.name} has no field {unknown[0]!r}; "
                + (f"known: {', '.join(known)}" if known else "it takes none")
            )
        if missing := [name for name in required if name not in values]:
            raise InputError(f"{cls.name} lacks its field {missing[0]!r}")
        try:
            return cls(**values)
        except InputError as error:
            raise InputError(f"{cls.name}: {error}") from error

    def as_json(self) -> dict[str, Any]:
        """The form of suite files: {name: {field: value}}, less the fields at their default."""
        return {
            self.name: {
                field.name: _plain(getattr(self, field.name))
                for field in fields(self)
                if getattr(self, field.name) != field.default
            }
        }


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _plain(value: Any) -> Any:
    if isinstance(value, Checker):
        return value.as_json()
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value
