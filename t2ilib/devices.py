"""The machine that this process runs on: its device and rank, what it computes in, how it keeps memory."""

import ctypes
import os
import platform

import torch
from accelerate import PartialState

CPU_BATCH = 16  # pictures that a CPU paints or looks at fastest at a time: larger maps fall out of its caches
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's numbers, from malloc.h


def this_process() -> PartialState:
    """Return this process's device and rank. Several processes without an accelerator (torchrun) talk over gloo."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return PartialState(cpu=True) if several and not torch.accelerator.is_available() else PartialState()


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 numbers itself; elsewhere bf16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def keep_freed_memory() -> bool:
    """Let glibc keep what tensors free instead of handing it back and asking again, page fault by page fault.

    Large blocks then come from the heap, which shrinks only by whole gigabytes. Returns whether there was a glibc to
    tell; elsewhere nothing happens. For processes that train or paint many pictures.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, 1 << 30) and mallopt(M_TRIM_THRESHOLD, 1 << 30))
