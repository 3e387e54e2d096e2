"""Text-to-image GANs, from the 2016 conditional DCGAN to GALIP: one paper, one file, one chapter.

Modules load when they are first named: `import t2ilib; t2ilib.official.load("gancls", checkpoint)`.
"""

import importlib
import pkgutil
from types import ModuleType

__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    """Import the submodule `name` (`t2ilib.data`, `t2ilib.official`, ...) when it is first used."""
    if name in {module.name for module in pkgutil.iter_modules(__path__)}:
        return importlib.import_module(f"t2ilib.{name}")
    raise AttributeError(f"module 't2ilib' has no attribute {name!r}")
