"""The systems: one module per paper, built by name."""

from dataclasses import fields
from typing import Any

from t2ilib.errors import InputError
from t2ilib.models.dfgan import DFGAN
from t2ilib.models.gancls import GANCLS
from t2ilib.models.system import System

SYSTEMS: dict[str, type[System]] = {"gancls": GANCLS, "dfgan": DFGAN}


def build(name: str, **config: Any) -> System:
    """Return the system `name` with the paper's hyper-parameters, except those that `config` gives.

    Lists become tuples, and text that reads as a number becomes one where a number belongs: YAML takes 2e-4 for text.
    Raises InputError for an unknown system or hyper-parameter, or for a value of the wrong type or range.
    """
    if name not in SYSTEMS:
        raise InputError(f"{name}: no such system; choose among {', '.join(SYSTEMS)}")
    defaults = {field.name: field.default for field in fields(SYSTEMS[name].Config)}
    if unknown := [key for key in config if key not in defaults]:
        raise InputError(f"{', '.join(unknown)}: {name} has no such hyper-parameter; it has {', '.join(defaults)}")
    given = {key: _like(defaults[key], value, key) for key, value in config.items()}
    return SYSTEMS[name](SYSTEMS[name].Config(**given))


def _like(default: Any, value: Any, key: str) -> Any:
    """Return `value` in the type of `default`, or raise InputError."""
    wrong = InputError(f"{key} = {value!r}: must be like the default, {default!r}")
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple) or len(value) != len(default):
            raise wrong
        return tuple(_like(inner, given, key) for inner, given in zip(default, value, strict=True))
    if isinstance(default, float) and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            raise wrong from None
    if type(value) is not type(default):
        raise wrong
    return value
