"""Files that torch.save wrote, looked at before torch opens them: they may come from strangers."""

import pickle
import zipfile
from pathlib import Path

from t2ilib.errors import InputError, one_line

SLACK = 16 << 20  # bytes by which the parts of an archive may be larger than it: the code in TorchScript's is packed


def check_archive(path: str | Path, remedy: str) -> None:
    """Raise InputError for an archive whose parts would unpack to more than it holds.

    torch.save stores tensors as they are. Packed ones, or many that share their bytes, are a small file that fills the
    memory. What is no archive, such as torch's older files, passes.
    """
    path = Path(path)
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path}: truncated, or no checkpoint ({one_line(error)}); {remedy}") from None
    if unpacked > path.stat().st_size + SLACK:
        told = f"{path.stat().st_size / 2**20:,.0f} MiB that unpack to {unpacked / 2**20:,.0f}"
        raise InputError(f"{path}: {told}, which no checkpoint does; {remedy}")


def reason_of(error: Exception) -> str:
    """Return in one line why torch did not read a file, without its advice to run what the file says."""
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):
        return "truncated, or not a checkpoint of plain tensors"
    return one_line(error, 200)
