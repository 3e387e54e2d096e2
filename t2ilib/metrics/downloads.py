"""Weights that a metric's network needs: from torch's cache, else downloaded, else one clear error within seconds."""

import re
from pathlib import Path

import torch
from huggingface_hub import constants

from t2ilib.encoders.released import reachable
from t2ilib.errors import InputError, one_line
from t2ilib.files import sha256


def released_file(address: str, what: str, folder: Path | None = None, *, checked: bool = True) -> Path:
    """Return the file of the weights at `address`, whose name ends in the first digits of their SHA-256.

    It lies in `folder`, by default "checkpoints" of torch's hub (the environment variable TORCH_HOME moves it). A file
    with other digits is refused before anything reads it; `checked=False` is for those whose name promises none.
    Without file and without internet, InputError names file, folder and address.
    """
    path = (folder or Path(torch.hub.get_dir()) / "checkpoints") / address.rpartition("/")[2]
    digits = re.findall(r"-([0-9a-f]{8,})\.\w+$", path.name)[0] if checked else None
    if not path.is_file():
        _download(address, path, digits, what)
    if checked and not sha256(path).startswith(digits):
        raise InputError(f"{path}: is damaged, or something else than {what}; remove it, and it is fetched again")
    return path


def _download(address: str, path: Path, digits: str | None, what: str) -> None:
    missing = f"{what}: the weights {path.name} are not in {path.parent}"
    remedy = f"fetch {address} elsewhere and put it there"
    if constants.HF_HUB_OFFLINE or not reachable(address):
        raise InputError(f"{missing} and there is no internet to download them; {remedy}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(address, str(path), digits, progress=False)
    except (OSError, RuntimeError) as error:  # RuntimeError: other digits than promised
        raise InputError(f"{missing} and could not be downloaded ({one_line(error, 200)}); {remedy}") from None
