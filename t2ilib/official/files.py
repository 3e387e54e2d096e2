"""Files that authors released, read without running anything that is in them."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from t2ilib.errors import InputError
from t2ilib.torch_files import check_archive

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_tensors(path: str | Path) -> Mapping[str, Any]:
    """Return the mapping in a checkpoint file, on the CPU; InputError for anything but tensors and plain containers."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of a checkpoint")
    check_archive(path, "download it again")
    try:
        safe = path.suffix == ".safetensors"
        with warnings.catch_warnings():  # of what is odd about a pickle: it is refused or read
            warnings.simplefilter("ignore")
            content = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail anywhere in either parser
        raise InputError(f"{path}: truncated, or not a checkpoint of plain tensors; download it again") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}; a checkpoint maps names to tensors")
    _check_stored(content, path)
    return content


def _check_stored(content: Mapping[str, Any], path: Path) -> None:
    """Raise InputError for tensors whose numbers are not in the file."""
    waiting, storages = [content], {}
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            waiting += item.values()
        elif isinstance(item, list | tuple):
            waiting += item
        elif isinstance(item, Tensor):
            if item.is_meta:
                raise InputError(f"{path}: holds tensors without numbers; download it again")
            if item.layout == torch.strided:
                storages[item.untyped_storage().data_ptr()] = item.untyped_storage().nbytes()
    if sum(storages.values()) > path.stat().st_size:
        raise InputError(f"{path}: says that it holds more numbers than it has bytes for; download it again")


def is_stored(value: Tensor) -> bool:
    """Whether each number of a plain tensor is stored: one that is repeated takes memory that its file does not."""
    plain = value.layout == torch.strided and not value.is_quantized
    return plain and value.untyped_storage().nbytes() >= value.numel() * value.element_size()
