"""The systems: one module per paper, built by name."""

from collections.abc import Mapping
from typing import Any

from t2ilib.errors import InputError
from t2ilib.models.dfgan import DFGAN
from t2ilib.models.galip import GALIP
from t2ilib.models.gancls import GANCLS
from t2ilib.models.wgan import WGAN
from t2ilib.task import System

SYSTEMS: dict[str, type[System]] = {"gancls": GANCLS, "wgan": WGAN, "dfgan": DFGAN, "galip": GALIP}


def build(name: str, encoders: Mapping[str, Any] | None = None, **config: Any) -> System:
    """Return the system `name` with the paper's hyper-parameters, except those that `config` gives.

    `encoders`, by role, decide the sizes that depend on them; without them these are the paper's. Raises InputError for
    an unknown system or hyper-parameter, and for a value of the wrong type or range.
    """
    if name not in SYSTEMS:
        raise InputError(f"{name}: no such system; choose among {', '.join(SYSTEMS)}")
    return SYSTEMS[name].build(config, encoders or {})
