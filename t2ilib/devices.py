"""The machine that this process runs on: its device and rank, what it computes in, how it keeps memory."""

import ctypes
import os
import platform
from datetime import timedelta

import torch
from accelerate import PartialState

try:
    import resource
except ImportError:  # Windows has none
    resource = None

from t2ilib.errors import InputError

CPU_BATCH = 16  # pictures that a CPU paints or looks at at a time: more need more memory and are hardly faster
GPU_BATCH = 256  # pictures that an accelerator paints or looks at at a time
WAIT = timedelta(hours=12)  # of a process for the others
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's numbers, from malloc.h


def this_process() -> PartialState:
    """Return this process's device and rank. Several processes without an accelerator (torchrun) talk over gloo.

    The others wait for hours while the first one measures, which ten minutes, torch's default, would not allow.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return PartialState()
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=WAIT)


def device_named(name: torch.device | str) -> torch.device:
    """Return the device of that name; InputError where there is none on this machine."""
    try:
        device = torch.device(name)
        if device.type == "cpu" and device.index:
            raise ValueError("there is one cpu")
        torch.empty(1, device=device).sum().item()
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"device {name}: not usable here ({str(error).splitlines()[0]}); try cpu") from None
    return device


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 numbers itself; elsewhere bf16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def peak_memory(device: torch.device) -> int:
    """Return the most memory, in MiB, that this process has taken so far.

    On CUDA it is what the allocator gave to tensors; elsewhere all that lay in the machine's memory, libraries and
    pictures included, and 0 where the system does not say.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    if resource is None:
        return 0
    unit = 1 if platform.system() == "Darwin" else 1024  # bytes in which the system counts
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit >> 20


def keep_freed_memory() -> bool:
    """Let glibc keep what tensors free instead of handing it back and asking again, page fault by page fault.

    Large blocks then come from the heap, which shrinks only by whole gigabytes. Returns whether there was a glibc to
    tell; elsewhere nothing happens. Older ones take blocks of 32 MB at most from the heap. For processes that train or
    paint many pictures.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    large = mallopt(M_MMAP_THRESHOLD, 1 << 30) or mallopt(M_MMAP_THRESHOLD, 32 << 20)
    return bool(mallopt(M_TRIM_THRESHOLD, 1 << 30) and large)


def return_freed_memory() -> bool:
    """Hand back what glibc holds of freed memory; returns whether there was a glibc to tell.

    Blocks of many sizes, freed in turn, leave gaps that no later block fits: a stream of 30,000 pictures of 256 pixels
    leaves a gigabyte of them. Asked for now and then it takes no time worth naming.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    ctypes.CDLL(None).malloc_trim(0)
    return True
