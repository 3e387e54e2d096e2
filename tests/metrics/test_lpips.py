"""Backbones have random weights here; the layers' weights are the ones that torchmetrics ships."""

import pytest
import torch
from small import fill, pictures
from torchmetrics.functional.image.lpips import _LPIPS

from t2ilib.errors import InputError
from t2ilib.metrics.intake import as_saved
from t2ilib.metrics.lpips import BACKBONES, Lpips, load_lpips


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return _LPIPS(net="squeeze", pnet_rand=True)


def by_equation(network, one, other):
    """Equation 1: squared differences of features of unit length, weighted per channel, mean over places, summed."""
    outputs = [network.net(network.scaling_layer(image)) for image in (one, other)]
    total = 0.0
    for first, second, layer in zip(*outputs, network.lins, strict=True):
        weights = layer.model[-1].weight.flatten()
        units = [map_ / map_.norm(dim=1, keepdim=True) for map_ in (first, second)]
        total += ((units[0] - units[1]).square() * weights[:, None, None]).sum(dim=1).mean()
    return float(total)


def test_agrees_with_the_equation(network):
    shown, real = pictures(3, side=40), pictures(3, seed=1, side=40)
    found = fill(Lpips("squeeze", network), shown, 2, real).compute()
    pairs = zip(as_saved(shown).split(1), as_saved(real).split(1), strict=True)
    with torch.no_grad():
        expected = [by_equation(network, *pair) for pair in pairs]
    assert found.value == pytest.approx(sum(expected) / 3, rel=1e-4)
    assert found.value > 0.01 and found.details["extractor"] == "lpips-squeeze"


def test_equal_pictures_have_no_distance(network):
    shown = pictures(2, side=40)
    assert fill(Lpips("squeeze", network), shown, 2, shown).compute().value == 0


def test_what_cannot_be_compared_is_named(network):
    with pytest.raises(InputError, match="16 x 16 pixels are too small for LPIPS; give at least 32"):
        Lpips("squeeze", network).update(pictures(2, side=16), pictures(2, side=16))
    with pytest.raises(InputError, match="real: none given"):
        Lpips("squeeze", network).update(pictures(2, side=40))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_without_weights_and_internet_the_error_names_file_folder_and_address(backbone, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match=f"not in {tmp_path}.*checkpoints.* fetch https://download.pytorch.org/"):
        load_lpips(backbone)


def test_unknown_backbones_are_named():
    with pytest.raises(InputError, match="backbone = 'vgg19': LPIPS has alex, vgg, squeeze"):
        Lpips("vgg19")
