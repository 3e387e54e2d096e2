"""Where a number comes from: commit, hardware, versions, command."""

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from t2ilib.files import ROOT

SEEING = "pillow", "torchvision", "open_clip_torch", "torch-fidelity", "lpips", "pyiqa"  # read, resize, look
DECIDING = "numpy", "scipy", "torchmetrics", *SEEING  # packages that decide numbers, beside torch


def environment(command: str | None = None) -> dict[str, Any]:
    """Return command (by default this process's own), commit, hardware, versions and date, for result files."""
    return {
        "command": command or sanitised_command(sys.argv),
        "commit": commit(),
        "hardware": hardware(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "versions": versions(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """Return the versions of the installed packages that decide numbers, by name; nothing is imported."""
    found = {}
    for name in DECIDING:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def told_versions(told: Mapping[str, Any]) -> str:
    """Return python, torch and the packages of an `environment`, as results and runs keep it, in one line.

    Older files name fewer packages, or none.
    """
    own = {name: told[name] for name in ("python", "torch") if told.get(name)}
    return ", ".join(f"{name} {version}" for name, version in {**own, **(told.get("versions") or {})}.items())


def sanitised_command(arguments: Sequence[str]) -> str:
    """Return the command line, paths in the repository made relative and other absolute paths cut to their names."""
    if "ipykernel" in arguments[0]:
        return "notebook"
    program = Path(arguments[0])
    first = program.name if program.suffix != ".py" else relative(program)
    return shlex.join([first, *(_without_absolute_path(argument) for argument in arguments[1:])])


def relative(path: str | Path) -> str:
    """Return `path` relative to the repository, with forward slashes; of a path elsewhere only the last part."""
    path = Path(path).resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def commit() -> str | None:
    """Return git's commit of the repository, "+dirty" when tracked files differ; None where there is no repository."""
    head = _git("rev-parse", "HEAD")
    if head is None:
        return None
    return head + ("+dirty" if _git("status", "--porcelain", "--untracked-files=no") else "")


def hardware() -> str:
    """Return the GPUs' names, or else the processor's and the number of cores this process may use."""
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return f"{len(names)} x {names[0]}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_processor()}, {cores} cores"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        named = re.search(r"^model name\s*:\s*(.+)$", information.read_text(errors="replace"), re.MULTILINE)
        if named:
            return named.group(1).strip()
    return platform.processor() or platform.machine()


def _without_absolute_path(argument: str) -> str:
    option, equals, value = argument.rpartition("=")
    return option + equals + (relative(value) if Path(value).is_absolute() else value)


def _git(*arguments: str) -> str | None:
    try:  # without locks: what ends this process may not leave one behind
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
