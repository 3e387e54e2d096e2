"""How a system's published files are read: names of networks and entries, and sizes from shapes."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from t2ilib.errors import InputError

Entries = dict[str, Tensor]
STRAY = "stray."  # before the name of a network whose place another has taken


@dataclass(frozen=True)
class Released:
    """How one system's published files are read."""

    networks: Mapping[str, str]  # a network's name in the file -> ours
    names: Mapping[str, str]  # beginning of an entry's name, "network.released" -> "network.ours"
    config: Callable[[Entries], Any]  # entries under our names -> configuration
    parts: Mapping[str, str] = field(default_factory=dict)  # further along the name, ".released." -> ".ours."
    fixed: Mapping[str, Any] = field(default_factory=dict)  # hyper-parameters that no shape tells, unless our defaults

    def ours(self, name: str) -> str:
        """Return our name of the released entry `name`."""
        return _rename(name, self.names, self.parts)

    def theirs(self, name: str) -> str:
        """Return the released name of our entry `name`."""
        inverse = ({ours: theirs for theirs, ours in names.items()} for names in (self.names, self.parts))
        return _rename(name, *inverse)

    def in_file(self, name: str) -> str:
        """Return what a file calls our entry `name`, its network included."""
        network, _, rest = self.theirs(name.removeprefix(STRAY)).partition(".")
        if name.startswith(STRAY):
            return f"{network}.{rest}"
        networks = {ours: theirs for theirs, ours in reversed(self.networks.items())}  # the first of two spellings
        return f"{networks.get(network, network)}.{rest}"

    def around(self, clip: Any) -> "Released":
        """Return how files are read for a system around `clip`; InputError for a system that has no CLIP inside."""
        raise InputError("clip: this system has no CLIP inside; leave clip= out")

    def wanted(self, system: nn.Module, entries: Entries) -> dict[str, tuple[int, ...]]:
        """Return the shapes, by our names, that a file of `system` has; `entries` are those of the file at hand."""
        return {name: tuple(value.shape) for name, value in system.state_dict().items()}

    def encoders(self, config: Any, entries: Entries) -> dict[str, Any]:
        """Return the frozen encoders, by role, that the system is built around; InputError where one is missing."""
        return {}


def vote(sizes: Iterable[int]) -> int:
    """Return the size that most entries agree on: one bad entry is then named alone, and not all others."""
    return Counter(sizes).most_common(1)[0][0]


def _rename(name: str, beginnings: Mapping[str, str], parts: Mapping[str, str]) -> str:
    for old, new in beginnings.items():
        if name.startswith(old):
            name = new + name.removeprefix(old)
            break
    for old, new in parts.items():
        name = name.replace(old, new)
    return name
