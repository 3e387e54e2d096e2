"""The machine: device, precision, memory that is kept."""

import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from t2ilib import devices


def test_peak_memory_is_what_was_taken_not_what_is_held():
    cpu = torch.device("cpu")
    before = devices.peak_memory(cpu)
    torch.empty((before + 100) * 2**18).fill_(1)
    assert before + 100 <= devices.peak_memory(cpu) < 3 * before + 300


def test_peak_memory_where_the_system_does_not_say(monkeypatch):
    monkeypatch.setattr(devices, "resource", None)
    assert devices.peak_memory(torch.device("cpu")) == 0


def test_peak_memory_of_an_accelerator_is_the_most_that_tensors_had(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 << 20)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1 << 20)
    assert devices.peak_memory(torch.device("cuda")) == 3


@pytest.mark.parametrize(("system", "counted"), [("Darwin", 5 << 20), ("Linux", 5 << 10)])
def test_peak_memory_is_counted_in_the_system_s_unit(system, counted, monkeypatch):
    used = SimpleNamespace(ru_maxrss=counted)
    monkeypatch.setattr(devices, "resource", SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: used))
    monkeypatch.setattr(platform, "system", lambda: system)
    assert devices.peak_memory(torch.device("cpu")) == 5


def test_one_answer_for_bf16_on_this_processor():
    described = Path("/proc/cpuinfo")
    if not described.exists():
        pytest.skip("no /proc/cpuinfo here to compare with")
    flags = described.read_text(encoding="utf-8")
    assert devices.computes_in_bf16(torch.device("cpu")) is ("avx512_bf16" in flags or "amx_bf16" in flags)
    assert not devices.computes_in_bf16(torch.device("meta"))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
def test_freed_memory_is_kept_and_comes_again_without_page_faults():
    """Ten times 64 MB: fresh pages are faulted in every time, unless freed blocks stay."""
    code = """
import resource, sys, torch
from t2ilib.devices import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
torch.empty(2 ** 24).fill_(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.empty(2 ** 24).fill_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

    def faults(mode):
        return int(
            subprocess.run([sys.executable, "-c", code, mode], capture_output=True, text=True, check=True).stdout
        )

    handed_back = faults("hand back")
    kept = min(faults("keep") for _ in range(3))  # a busy kernel may take idle pages itself, in one trial or another
    assert kept < 0.1 * handed_back


def test_elsewhere_nothing_happens(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2"))
    assert devices.keep_freed_memory() is False


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
@pytest.mark.parametrize(("limit", "kept"), [(1 << 40, True), (32 << 20, True), (1 << 20, False)])
def test_an_older_glibc_that_takes_smaller_blocks_is_told_so_much(limit, kept, monkeypatch):
    told = {}

    class Library:
        def __init__(self, name):
            pass

        def mallopt(self, parameter, value):
            if parameter == devices.M_MMAP_THRESHOLD and value > limit:
                return 0
            told[parameter] = value
            return 1

    monkeypatch.setattr(devices.ctypes, "CDLL", Library)
    assert devices.keep_freed_memory() is kept
    assert told[devices.M_TRIM_THRESHOLD] == 1 << 30
    assert told.get(devices.M_MMAP_THRESHOLD, 0) == max(
        [size for size in (1 << 30, 32 << 20) if size <= limit], default=0
    )
