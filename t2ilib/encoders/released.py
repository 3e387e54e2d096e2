"""Released CLIP weights through open_clip, by model and tag: from the cache, else downloaded, else one clear error."""

import threading
import urllib.error
import urllib.request
import warnings
from pathlib import Path

import open_clip
import torch
from huggingface_hub import constants, try_to_load_from_cache
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

from t2ilib.encoders.clip import CLIPEncoder, check_answers
from t2ilib.errors import InputError, one_line
from t2ilib.memory import check_memory, size_of
from t2ilib.torch_files import check_archive, reason_of


def load_released(
    model: str = "ViT-B-32-quickgelu", pretrained: str = "openai", cache_folder: str | Path | None = None
) -> CLIPEncoder:
    """Return the released CLIP `model` with the weights of tag (or file) `pretrained`, on the CPU.

    The papers' CLIP is the default; OpenAI's weights need the models whose name ends in "-quickgelu". Without the file
    in the cache and without internet, `InputError` comes within seconds and names both.
    """
    release = _release(model, pretrained)
    path = Path(pretrained) if release is None else cached_file(release, cache_folder)
    if path is None:
        _require_internet(model, pretrained, release, cache_folder)
    else:
        check_file(path, model)
    weights = pretrained if path is None else str(path)
    try:
        with warnings.catch_warnings():  # of what is odd about a pickle: it is refused or read
            warnings.simplefilter("ignore")
            network = open_clip.create_model(model, pretrained=weights, cache_dir=cache_folder and str(cache_folder))
        tokenizer = open_clip.get_tokenizer(model)
    except Exception as error:  # a damaged file can fail anywhere in open_clip
        raise InputError(f"{model}, {pretrained}: open_clip cannot load it ({reason_of(error)})") from error
    statistics = release or {}
    encoder = CLIPEncoder(
        network,
        tokenizer,
        {"name": f"clip-{model}-{Path(pretrained).stem}"},
        statistics.get("mean", OPENAI_DATASET_MEAN),
        statistics.get("std", OPENAI_DATASET_STD),
    )
    check_answers(encoder, f"{model}, {pretrained}", "download the weights again")
    return encoder


def check_file(path: Path, model: str) -> None:
    """Raise InputError for a file that cannot hold the weights of `model`, before the network takes its memory."""
    remedy = "give the weights of that model, or download them again"
    check_archive(path, remedy)
    config = open_clip.get_model_config(model)
    if "timm_model_name" in config["vision_cfg"] or "hf_model_name" in config["text_cfg"]:
        return  # others than open_clip build these
    with torch.device("meta"):
        network = open_clip.CLIP(*(config[name] for name in ("embed_dim", "vision_cfg", "text_cfg")))
    numbers, found = sum(weight.numel() for weight in network.parameters()), path.stat().st_size
    if found < numbers:
        told = f"{found:,} bytes, which cannot be the {numbers:,} numbers of {model}"
        raise InputError(f"{path}: open_clip cannot load it ({told}); {remedy}")
    check_memory(size_of(network), model, "choose a smaller model")


def cached_file(release: dict, cache_folder: str | Path | None = None) -> Path | None:
    """Return the weights' file of an open_clip release if it is in the cache, without touching the network."""
    if "hf_hub" not in release:
        path = expected_path(release, cache_folder)
        return path if path.is_file() else None
    repository, _, file = release["hf_hub"].rpartition("/")
    for name in [file] if file else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]:
        found = try_to_load_from_cache(repository, name, cache_dir=cache_folder)
        if isinstance(found, str):
            return Path(found)
    return None


def expected_path(release: dict, cache_folder: str | Path | None = None) -> Path:
    """Return where the weights are looked for: a hub repository's cache folder with the file, or a downloaded file."""
    if "hf_hub" not in release:
        folder = Path(cache_folder) if cache_folder else Path.home() / ".cache" / "clip"
        return folder / release["url"].rpartition("/")[2]
    repository, _, file = release["hf_hub"].rpartition("/")
    folder = Path(cache_folder) if cache_folder else Path(constants.HF_HUB_CACHE)
    return folder / f"models--{repository.replace('/', '--')}" / "snapshots" / "*" / (file or HF_SAFE_WEIGHTS_NAME)


def _release(model: str, pretrained: str) -> dict | None:
    """Return open_clip's entry for the tag, None for a file; `InputError` for anything else."""
    config = None if ":" in model else open_clip.get_model_config(model)  # a colon names a folder, or a hub's file
    if config is None:
        raise InputError(f"{one_line(model)}: open_clip has no such model; open_clip.list_models() names them all")
    if Path(pretrained).is_file():
        return None
    release = get_pretrained_cfg(model, pretrained)
    if not release:
        tags = ", ".join(list_pretrained_tags_by_model(model)) or "none"
        raise InputError(f"{pretrained}: neither a file nor weights of {model}; it has: {tags}")
    if bool(release.get("quick_gelu")) != bool(config.get("quick_gelu")):
        other = model.removesuffix("-quickgelu") if config.get("quick_gelu") else f"{model}-quickgelu"
        raise InputError(f"{model}: the weights {pretrained!r} were trained with another activation; use {other}")
    return release


def _require_internet(model: str, pretrained: str, release: dict, cache_folder: str | Path | None) -> None:
    """Raise the one error that says what is missing, unless a download can be tried."""
    address = constants.ENDPOINT if "hf_hub" in release else release["url"]
    if not constants.HF_HUB_OFFLINE and reachable(address):
        return
    raise InputError(
        f"{model}, {pretrained}: the weights are not in {expected_path(release, cache_folder)} and there is no "
        "internet to download them; put the file there, or use the toy CLIP, which needs no download: "
        "load_encoder('toy-clip')"
    )


def reachable(address: str, seconds: float = 5.0) -> bool:
    """Say whether a server answers at `address` within `seconds`, proxies and name resolution included."""
    answers: list[bool] = []

    def ask() -> None:
        request = urllib.request.Request(address, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=seconds).close()
            answers.append(True)
        except urllib.error.HTTPError:  # it answers, only not with a page
            answers.append(True)
        except OSError:
            answers.append(False)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answers == [True]
