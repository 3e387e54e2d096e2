import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from small import fill, pictures

from t2ilib.errors import InputError
from t2ilib.metrics.intake import as_saved
from t2ilib.metrics.ssim import Ssim


def by_equation(one, other):
    """Equation 13 of a pair (3, H, W) in [0, 1], edges mirrored; mean over places and channels."""
    c1, c2, options = 0.01**2, 0.03**2, {"sigma": 1.5, "radius": 5, "mode": "mirror"}
    found = []
    for x, y in zip(one, other, strict=True):
        mean_x, mean_y = (gaussian_filter(z, **options) for z in (x, y))
        var_x = gaussian_filter(x * x, **options) - mean_x**2
        var_y = gaussian_filter(y * y, **options) - mean_y**2
        both = gaussian_filter(x * y, **options) - mean_x * mean_y
        top = (2 * mean_x * mean_y + c1) * (2 * both + c2)
        found.append(top / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)))
    return np.mean(found)


def test_agrees_with_the_equation():
    shown, real = pictures(5, side=24), pictures(5, seed=1, side=24)
    unit = [((as_saved(images).double() + 1) / 2).numpy() for images in (shown, real)]
    expected = np.mean([by_equation(one, other) for one, other in zip(*unit, strict=True)])
    assert fill(Ssim(), shown, 2, real).compute().value == pytest.approx(expected, abs=1e-4)  # in float32


def test_equal_pictures_are_one():
    shown = pictures(3, side=16)
    found = fill(Ssim(), shown, 2, shown).compute()
    assert found.value == pytest.approx(1) and found.interval == pytest.approx((1, 1))


def test_each_picture_is_compared_with_its_own():
    shown = pictures(6, side=16)
    assert fill(Ssim(), shown, 6, shown.flip(0)).compute().value < 0.9


def test_what_cannot_be_compared_is_named():
    with pytest.raises(InputError, match="real: none given"):
        Ssim().update(pictures(2))
    with pytest.raises(InputError, match="real: "):
        Ssim().update(pictures(2), pictures(2, side=16))
    with pytest.raises(InputError, match="8 x 8 pixels are smaller than SSIM's window"):
        Ssim().update(pictures(2, side=8), pictures(2, side=8))
    with pytest.raises(InputError, match=r"real: .* greyscale"):
        Ssim().update(pictures(2), torch.zeros(2, 1, 12, 12))
