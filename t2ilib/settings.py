"""Frozen dataclasses from mappings: one reader of types for recipes, hyper-parameters and `--set`.

Configuration has one direction: dataclass default < recipe YAML < explicit argument. Unknown keys raise.
"""

import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from t2ilib.errors import InputError

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Range:
    """The values that a number may have, each number of a tuple: `Annotated[int, Range(least=1)]`."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a number lies within."""
        closed = (self.least is None or value >= self.least) and (self.most is None or value <= self.most)
        return closed and (self.above is None or value > self.above) and (self.below is None or value < self.below)

    def __str__(self) -> str:
        """Say it: at least 0 and below 1."""
        bounds = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        known = {
            word: int(bound) if bound == int(bound) else bound for word, bound in bounds.items() if bound is not None
        }
        return " and ".join(f"{word} {bound:,}" for word, bound in known.items())


DEPTH = 20  # how deeply values may nest, in a file and as a dotted key
STEPS, COUNT = Range(least=0, most=10**9), Range(least=1, most=10**9)  # the former may be none
WIDTH = Range(least=1, most=10_000)  # channels, lengths, layers
SHARE, POSITIVE = Range(least=0, below=1), Range(above=0, most=1e6)
SEED, TRUNCATION = Range(least=0, below=2**32), Range(above=0, most=100)  # the former as NumPy's
WEIGHT, BATCH = Range(least=0, most=1e6), Range(least=2, most=1_000_000)


def check_ranges(values: Any, where: str) -> None:
    """Raise InputError, naming `where` and the key, for a number of a dataclass that is not in its annotated range."""
    hints = get_type_hints(type(values), include_extras=True)
    for item in fields(values):
        value = getattr(values, item.name)
        for rule in getattr(hints[item.name], "__metadata__", ()):
            each = value if isinstance(value, tuple | list) else (value,)
            if isinstance(rule, Range) and not all(rule.holds(one) for one in each):
                raise InputError(f"{where}{item.name} = {value}: must be {rule}{' each' if len(each) > 1 else ''}")


def read(cls: type[Settings], values: Any, where: str) -> Settings:
    """Return a dataclass of `cls` from the mapping `values`, nested dataclasses included.

    Whole numbers and numbers written as text become floats where floats belong (YAML takes 2e-4 for text), lists become
    tuples. InputError names `where` and the key for an unknown key or a value of another type.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: {values!r} is not a mapping; its keys are {', '.join(_names(cls))}")
    _check_known(cls, values, where)
    hints = get_type_hints(cls)
    return cls(**{key: converted(hints[key], value, f"{where}: {key}") for key, value in values.items()})


def override(node: Any, changes: Mapping[str, Any], where: str = "") -> Any:
    """Return a copy of a dataclass with dotted keys replaced: `override(recipe, {"training.steps": 100})`.

    A group is built once, with all its new values in place, so that their order decides nothing where they are checked
    against each other; of two changes of one key the later one counts. InputError names `where` and the key.
    """
    return _override(node, [(key.split("."), value) for key, value in changes.items()], where)


def converted(hint: Any, value: Any, where: str) -> Any:
    """Return `value` in the type `hint`, or raise InputError that names `where`."""
    if is_dataclass(hint):
        return value if isinstance(value, hint) else read(hint, {} if value is None else value, where)
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _first_that_fits(inner, value, hint, where)
    if origin is tuple and isinstance(value, list | tuple):
        return _as_tuple(inner, value, hint, where)
    if origin is dict and isinstance(value, Mapping):
        return {str(key): converted(inner[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and type(value) in (int, str, float):
        return _finite(value, where)
    if hint is Any or type(value) is hint or (hint is type(None) and value is None):
        return value
    raise _wrong(hint, value, where)


def _finite(value: float | str, where: str) -> float:
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise _wrong(float, value, where) from None
    if not math.isfinite(number):
        raise InputError(f"{where}: {value!r} is not a finite number")
    return number


def _first_that_fits(hints: tuple, value: Any, union: Any, where: str) -> Any:
    for hint in hints:
        try:
            return converted(hint, value, where)
        except InputError:
            continue
    raise _wrong(union, value, where)


def _as_tuple(hints: tuple, value: list | tuple, hint: Any, where: str) -> tuple:
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = hints[:1] * len(value)
    if len(hints) != len(value):
        raise _wrong(hint, value, where)
    return tuple(converted(inner, item, where) for inner, item in zip(hints, value, strict=True))


def _override(node: Any, changes: list[tuple[list[str], Any]], where: str) -> Any:
    """Return `node`, a dataclass or a mapping, with the values at lists of keys replaced; `where` leads to it."""
    inner: dict[str, list] = {}
    for keys, value in changes:
        _check_place(node, keys, where)
        inner.setdefault(keys[0], []).append((keys[1:], value))
    if isinstance(node, Mapping):
        return {**node, **{name: _changed(node.get(name, {}), own, f"{where}{name}") for name, own in inner.items()}}
    hints, new = get_type_hints(type(node)), {}
    for name, own in inner.items():
        old = getattr(node, name)
        if is_dataclass(old) and any(not rest for rest, _ in own):
            raise InputError(f"{where}{name}: is a group; set one of its keys, as {where}{name}.{fields(old)[0].name}")
        new[name] = converted(hints[name], _changed(old, own, f"{where}{name}"), f"{where}{name}")
    return replace(node, **new)


def _changed(old: Any, changes: list[tuple[list[str], Any]], where: str) -> Any:
    """Return what becomes of a value: changes without further keys replace it, later ones with keys change within."""
    within: list[tuple[list[str], Any]] = []
    for keys, value in changes:
        if keys:
            within.append((keys, value))
        else:
            old, within = value, []
    return _override(old, within, f"{where}.") if within else old


def _check_place(node: Any, keys: list[str], where: str) -> None:
    """Raise InputError where keys do not lead into `node`."""
    full = f"{where}{'.'.join(keys)}"
    if len(keys) > DEPTH:
        raise InputError(f"{full}: nested too deeply; {DEPTH} keys at most")
    if isinstance(node, Mapping):
        return
    if not is_dataclass(node):
        raise InputError(f"{full}: {keys[0]} does not belong here; it would lie inside {node!r}")
    _check_known(type(node), keys[:1], full)


def _check_known(cls: type, keys: Any, where: str) -> None:
    if unknown := [str(key) for key in keys if key not in _names(cls)]:
        raise InputError(f"{where}: unknown key {', '.join(unknown)}; known are {', '.join(_names(cls))}")


def _names(cls: type) -> list[str]:
    return [item.name for item in fields(cls)]


def _wrong(hint: Any, value: Any, where: str) -> InputError:
    kind = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
    return InputError(f"{where}: {value!r} is not of type {kind}")
