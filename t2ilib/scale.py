"""At which scale the notebooks run: the environment variable T2I_SCALE is `smoke`, `cpu` (default) or `gpu`."""

import os
from typing import TypeVar

from t2ilib.errors import InputError

Value = TypeVar("Value")
SCALES = ("smoke", "cpu", "gpu")  # seconds, for the tests; minutes on two cores; the paper's length


def scale() -> str:
    """Return the scale in force; InputError for a name that is none."""
    name = os.environ.get("T2I_SCALE", "cpu")
    if name not in SCALES:
        raise InputError(f"T2I_SCALE={name}: not a scale; set it to {', '.join(SCALES)}, or leave it unset for cpu")
    return name


def at_scale(smoke: Value, cpu: Value, gpu: Value) -> Value:
    """Return the argument that belongs to the scale in force."""
    return {"smoke": smoke, "cpu": cpu, "gpu": gpu}[scale()]
