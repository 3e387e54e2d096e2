import time

import pytest

from t2ilib.encoders import load_encoder, released
from t2ilib.errors import InputError


def test_missing_weights_offline_name_model_file_and_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(released.constants, "HF_HUB_OFFLINE", True)
    start = time.perf_counter()
    with pytest.raises(InputError) as caught:
        load_encoder("clip", cache_folder=tmp_path)
    assert time.perf_counter() - start < 10
    for part in ("ViT-B-32-quickgelu", str(tmp_path), "models--timm--vit_base_patch32", "toy-clip"):
        assert part in str(caught.value)


def test_an_unreachable_server_is_noticed_in_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(released.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(released.constants, "ENDPOINT", "http://127.0.0.1:9")
    start = time.perf_counter()
    with pytest.raises(InputError, match="no internet"):
        load_encoder("clip", cache_folder=tmp_path)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "ViT-Z-99"}, "ViT-Z-99"),
        ({"pretrained": "nonsense"}, "openai"),
        ({"model": "ViT-B-32"}, "use ViT-B-32-quickgelu"),
    ],
)
def test_wrong_names_are_explained(options, message):
    with pytest.raises(InputError, match=message):
        load_encoder("clip", **options)


def test_unknown_encoder_lists_the_known_ones():
    with pytest.raises(InputError, match=r"toy-clip, toy-clip-resnet, clip"):
        load_encoder("bert")


@pytest.mark.parametrize("name", ["toy-clip", "clip"])
def test_options_that_an_encoder_does_not_take_are_named(name):
    with pytest.raises(InputError, match="colour"):
        load_encoder(name, colour="red")
