"""Arms of a comparison: the plain model, and methods with their settings."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..checks import as_number
from ..errors import InputError
from ..head_choice import parse_heads
from ..methods import METHODS, Latent, Method
from ..span import Span
from ..suites import Case
from ..yaml_file import read_yaml
from .records import ArmInfo

PLAIN = "plain"
WHERE = ("layers", "heads", "span", "start_layer", "num_middle_layers", "head_seed")
CONCEPT = "{concept}"
"""In the path of a directions file, stands for the case's concept."""
LONGEST_HEADS = 40
"""Characters of a choice of heads that stand in an arm's name."""


@dataclass(frozen=True)
class Arm:
    """A name, and the settings of the methods that steer its answers together; none for plain.

    A setting has the key "method" and any of: the method's own parameters, ``WHERE``, and for
    latent steering "directions", a file of `minboost directions`, with "direction" the name of one
    in it. Where the file's path holds "{concept}", each case gets that of its own concept.

    Raises:
        InputError: a method or a key that does not exist, or a value that the method refuses;
            `ModelError` for a directions file.
    """

    name: str
    settings: tuple[Mapping[str, Any], ...] = ()
    _built: dict[str, tuple[Method, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise InputError("an arm's name is empty")
        for setting in self.settings:
            _check_keys(setting)
        if not self.by_concept:
            self._methods_of("")

    @property
    def by_concept(self) -> bool:
        """Whether a case's methods depend on its concept."""
        return any(CONCEPT in str(setting.get("directions", "")) for setting in self.settings)

    @property
    def column(self) -> str:
        """The name as columns of a table have it: letters, digits and underscores."""
        text = re.sub(r"(?<![a-z0-9])-(?=[\d.])", "minus ", self.name.lower())
        return re.sub(r"[^a-z0-9]+", "_", text).strip("_")

    def methods(self, case: Case) -> tuple[Method, ...]:
        """What steers the answer to ``case``; nothing in the plain arm."""
        if not self.by_concept:
            return self._methods_of("")
        if not case.concept:
            raise InputError(
                f"the arm {self.name!r} has directions by concept, and the case {case.name!r} "
                "names none"
            )
        return self._methods_of(case.concept)

    def info(self) -> ArmInfo:
        """The arm as a results file has it."""
        if not self.by_concept:
            return ArmInfo(name=self.name, methods=tuple(map(setting_of, self._methods_of(""))))
        plain = [
            {name: value if name == "heads" else _scalar(value) for name, value in one.items()}
            for one in self.settings
        ]
        return ArmInfo(name=self.name, methods=tuple(plain))

    def _methods_of(self, concept: str) -> tuple[Method, ...]:
        if concept not in self._built:
            self._built[concept] = tuple(build(setting, concept) for setting in self.settings)
        return self._built[concept]


def plain_arm() -> Arm:
    return Arm(PLAIN)


def build(setting: Mapping[str, Any], concept: str = "") -> Method:
    """The method of a setting; errors as for ``Arm``."""
    values = {name: value for name, value in setting.items() if name != "method"}
    if setting["method"] == Latent.name:
        from ..directions import load_direction

        path = values.pop("directions", None)
        if path is None:
            raise InputError("latent needs directions, a file that minboost directions writes")
        path = str(path).replace(CONCEPT, concept)
        values["direction"] = load_direction(Path(path), str(values.get("direction", "diffmean")))
    return METHODS[setting["method"]](**values)


def setting_of(method: Method) -> dict[str, Any]:
    """A method as plain data: its own parameters, and where it acts."""
    setting: dict[str, Any] = {"method": method.name}
    for name, value in method.parameter_values().items():
        setting[name] = _scalar(value)
        if isinstance(method, Latent) and name == "direction":
            data = value.vector.numpy().tobytes()
            setting["vector"] = hashlib.sha256(data).hexdigest()[:16]
    layers = method.layers if isinstance(method.layers, str) else list(method.layers)
    setting |= {"layers": layers, "heads": _heads(method), "span": _scalar(method.span)}
    if layers == "middle":
        setting |= {name: getattr(method, name) for name in ("start_layer", "num_middle_layers")}
    if isinstance(method.heads, float):
        setting["head_seed"] = method.head_seed
    return setting


def parse_arms(text: str, defaults: Mapping[str, Any]) -> list[Arm]:
    """The arms of one text such as "instaboost multiplier=2,5,10 layers=0-1".

    A method's name, then key=value words; several values of the strength make an arm each. Single
    quotes hold a value with spaces together: span='in French'.

    Args:
        defaults: values of keys that the text does not have, for the methods that have them.

    Raises:
        InputError: no such method or key, a word without "=", or a value that is refused.
    """
    raw = read_setting(text)
    if raw["method"] in METHODS:
        strength = METHODS[raw["method"]].strength
        if strength in raw:
            values = [_number(strength, part) for part in str(raw[strength]).split(",")]
            raw[strength] = values if len(values) > 1 else values[0]
    return arms_of(raw, defaults)


def read_setting(text: str) -> dict[str, Any]:
    """The words of an arm's text: {"method": the first, key: value, …}, values as they stand.

    Raises:
        InputError: no word, one without "=", or a key that stands there twice.
    """
    lexer = shlex.shlex(text, posix=True)
    # Double quotes are JSON's, in a choice of heads.
    lexer.quotes, lexer.commenters, lexer.whitespace_split = "'", "", True
    try:
        words = list(lexer)
    except ValueError as error:
        raise InputError(f"{text!r} cannot be read: {error}") from error
    if not words:
        raise InputError("an arm is empty: begin with the name of a method")
    raw: dict[str, Any] = {"method": words[0]}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not equals or not value:
            raise InputError(f"{text!r}: {word!r} is not of the form key=value")
        if key in raw:
            raise InputError(f"{text!r} has {key} twice")
        raw[key] = value
    return raw


def read_arms(path: Path, defaults: Mapping[str, Any]) -> list[Arm]:
    """The arms of a YAML file: a list, or a mapping with the key "arms".

    An item is a text as for ``parse_arms``, or a mapping with "method" and its keys, or with
    "methods", a list of such; and with a "name" where the arm is to have one of its own.
    """
    raw = read_yaml("the arms file", path)
    items = raw.get("arms") if isinstance(raw, Mapping) else raw
    if not isinstance(items, list) or not items or (isinstance(raw, Mapping) and len(raw) > 1):
        raise InputError(f"the arms file {path} must be a list of arms, or have 'arms' alone")
    arms = []
    for number, item in enumerate(items, 1):
        try:
            if isinstance(item, str):
                arms += parse_arms(item, defaults)
            elif isinstance(item, Mapping):
                arms += arms_of(item, defaults)
            else:
                raise InputError(f"an arm must be a text or a mapping, got {item!r}")
        except InputError as error:
            raise InputError(f"{path}, arm {number}: {error}") from error
    return arms


def arms_of(raw: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[Arm]:
    """The arms of one mapping; several, where the strength is a list."""
    raw = dict(raw)
    name = raw.pop("name", None)
    if name is not None and not isinstance(name, str):
        raise InputError(f"an arm's name must be a text, got {name!r}")
    if raw.get("method") == PLAIN and len(raw) == 1:
        return [plain_arm()]
    if "methods" in raw:
        if len(raw) > 1 or not isinstance(raw["methods"], list) or not raw["methods"]:
            raise InputError("methods must be a list, with no other key beside it but name")
        settings = tuple(_complete(one, defaults) for one in raw["methods"])
        return [Arm(name or " + ".join(map(name_of, settings)), settings)]
    setting = _complete(raw, defaults)
    strength = METHODS[setting["method"]].strength
    values = setting.get(strength)
    if not isinstance(values, list):
        return [Arm(name or name_of(setting), (setting,))]
    if not values:
        raise InputError(f"{strength} is an empty list")
    many = [{**setting, strength: as_number(strength, value)} for value in values]
    if name is None:
        return [Arm(name_of(one), (one,)) for one in many]
    return [Arm(f"{name} {strength}={one[strength]:g}", (one,)) for one in many]


def with_plain(arms: Iterable[Arm]) -> list[Arm]:
    """``arms`` with the plain one in front.

    Raises:
        InputError: two arms of one name, or whose names are one column.
    """
    result = [plain_arm(), *(arm for arm in arms if arm.name != PLAIN or arm.settings)]
    seen = {"original": PLAIN}  # what the table calls the plain arm
    for arm in result:
        if arm.column in seen or not arm.column:
            other = seen.get(arm.column, "")
            raise InputError(
                f"the arms {other!r} and {arm.name!r} are one column of the results: give one of "
                "them another name"
            )
        seen[arm.column] = arm.name
    return result


def name_of(setting: Mapping[str, Any]) -> str:
    """What an arm is called that has no name of its own: "instaboost multiplier=7 layers=0-1"."""
    method = METHODS[setting["method"]]
    strength = setting.get(method.strength, _default(method, method.strength))
    if str(setting.get("direction")).startswith("projection"):  # which knows no strength
        words = [method.name]
    else:
        words = [method.name, f"{method.strength}={_brief(strength)}"]
    for name, value in setting.items():
        if name in ("method", method.strength):
            continue
        if name == "directions":
            if CONCEPT not in str(value):
                words.append(f"directions={_brief(Path(str(value)).stem)}")
            continue
        if name in ("start_layer", "num_middle_layers") and setting.get("layers") != "middle":
            continue
        if name == "head_seed" and not _is_share(setting.get("heads", "all")):
            continue
        if value != _default(method, name):
            words.append(f"{name}={_brief(value)}")
    return " ".join(words)


def _complete(raw: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A setting with the defaults of its method, after a look at its keys."""
    if not isinstance(raw, Mapping):
        raise InputError(f"a method must be a mapping, got {raw!r}")
    _check_keys(raw)
    method = METHODS[raw["method"]]
    allowed = _keys(method)
    own = {name: value for name, value in defaults.items() if name in allowed and name not in raw}
    setting = {**raw, **{name: value for name, value in own.items() if value is not None}}
    if setting["method"] == Latent.name:
        for name in ("heads", "span"):
            if name not in raw:
                setting.pop(name, None)  # it has neither
    if isinstance(setting.get("heads"), str):
        setting["heads"] = parse_heads(setting["heads"])
    for key in ("start_layer", "num_middle_layers", "head_seed"):
        if isinstance(setting.get(key), str):
            setting[key] = _integer(key, setting[key])
    return setting


def _check_keys(setting: Mapping[str, Any]) -> None:
    name = setting.get("method")
    if not isinstance(name, str) or name not in METHODS:
        raise InputError(f"the method {name!r} does not exist; known: plain, {', '.join(METHODS)}")
    allowed = _keys(METHODS[name])
    if unknown := [key for key in setting if key not in allowed and key != "method"]:
        raise InputError(
            f"the method {name} has no {unknown[0]!r}; known: {', '.join(sorted(allowed))}"
        )


def _keys(method: type[Method]) -> set[str]:
    return {*method.parameters(), *WHERE, *(("directions",) if method is Latent else ())}


def _default(method: type[Method], name: str) -> Any:
    if name == "direction":
        return None
    found = next(field for field in fields(method) if field.name == name)
    return None if found.default is MISSING else found.default


def _heads(method: Method) -> Any:
    if not isinstance(method.heads, Mapping):
        return method.heads
    return {
        str(layer): heads if isinstance(heads, str) else list(heads)
        for layer, heads in method.heads.items()
    }


def _is_share(heads: Any) -> bool:
    return isinstance(heads, float) and heads != 1


def _scalar(value: Any) -> Any:
    if isinstance(value, Span):
        return [value.start, value.stop]
    if isinstance(value, (str, int, float, type(None))):
        return value
    return list(value) if isinstance(value, (tuple, list)) else str(value)


def _brief(value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:g}"
    if isinstance(value, Mapping):
        text = json.dumps({str(key): heads for key, heads in value.items()}, default=list)
        text = text.replace(" ", "")
        if len(text) > LONGEST_HEADS:
            counts = [len(heads) for heads in value.values() if not isinstance(heads, str)]
            short = hashlib.sha256(text.encode()).hexdigest()[:6]
            return f"{sum(counts)}-of-{len(value)}-layers-{short}"
        return text
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(str, value))
    text = str(value)
    return shlex.quote(text) if " " in text else text


def _integer(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"{name} must be a whole number, got {text!r}") from error


def _number(name: str, text: Any) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"{name} must be a number, got {text!r}") from error
