"""The network is torch-fidelity's with random weights: the released ones are 95 MB and not shipped."""

import numpy as np
import pytest
import torch
from PIL import Image
from small import pictures
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from t2ilib.errors import InputError
from t2ilib.metrics.inception import RESIZES, SIDE, Inception, clean, legacy, load_inception
from t2ilib.metrics.intake import to_bytes


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The network as it was born, asked for all that it can give."""
    path = tmp_path_factory.mktemp("inception") / "none.pth"
    torch.save({}, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        found = FeatureExtractorInceptionV3("test", ["2048", "logits_unbiased"], str(path))
    return found


def levels(side: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(side).integers(0, 256, (2, 3, side, side))).float()


def test_legacy_is_torch_fidelity(network):
    images = pictures(3, side=40)
    features, logits = network(to_bytes(images).byte())
    seen = Inception("legacy", network)(images)
    assert torch.equal(seen.features, features)
    assert torch.allclose(seen.probabilities, logits.softmax(dim=1), atol=1e-7)
    assert features.std() > 0


def test_clean_is_the_same_network_after_another_resize(network):
    images = pictures(2, side=40)
    shown = clean(to_bytes(images))
    expected, _ = network(shown.round().byte())  # at 299 pixels it resizes no more
    seen = Inception("clean", network)(images)
    assert torch.allclose(seen.features, expected, atol=0.05 * float(expected.std()))
    assert not torch.allclose(seen.features, Inception("legacy", network)(images).features, rtol=1e-3)


@pytest.mark.parametrize("side", [32, 64, 256, 299, 304, 512])
def test_clean_resizes_as_pillow(side):
    """clean-fid's: each channel by Pillow's bicubic filter in floating point, clipped."""
    shown = levels(side)
    channels = [Image.fromarray(channel) for channel in shown.reshape(-1, side, side).numpy()]
    pillow = np.stack([np.asarray(one.resize((SIDE, SIDE), Image.BICUBIC)).clip(0, 255) for one in channels])
    assert np.abs(clean(shown).reshape(-1, SIDE, SIDE).numpy() - pillow).max() < 0.02


def test_legacy_resizes_as_tensorflow_1():
    """Output pixel i lies at input i * in / out, between its two neighbours: no half pixel, no antialiasing."""
    shown = levels(512)
    at = np.arange(SIDE) * (512 / SIDE)
    low, part = at.astype(int), (at - at.astype(int))[:, None]
    high = (low + 1).clip(max=511)
    table = shown[0, 0].numpy()
    rows = table[low] * (1 - part) + table[high] * part
    expected = rows[:, low] * (1 - part.T) + rows[:, high] * part.T
    assert np.allclose(legacy(shown)[0, 0].numpy(), expected, atol=0.01)


def test_each_resize_is_named(network):
    names = [Inception(resize, network).resize for resize in RESIZES]
    assert len(set(names)) == 2 and all(str(SIDE) in name for name in names)
    with pytest.raises(InputError, match="resize = 'bicubic': Inception has legacy, clean"):
        Inception("bicubic", network)


def test_without_weights_and_internet_the_error_names_file_folder_and_address(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        InputError, match=r"weights-inception-2015-12-05-6726825d.pth are not in .*checkpoints"
    ) as caught:
        load_inception()
    assert str(tmp_path) in str(caught.value) and "https://github.com/toshas" in str(caught.value)
