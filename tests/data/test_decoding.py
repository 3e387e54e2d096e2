"""Picture files of any origin: odd kinds become upright RGB, broken ones are named."""

import io

import numpy as np
import pytest
from PIL import Image

from t2ilib.data import decoding
from t2ilib.errors import InputError


def encoded(picture, kind="PNG", **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def decoded(data):
    picture = decoding.read_picture(data, "one.png")
    assert picture.mode == "RGB"
    return np.asarray(picture)


RAMP = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)
COLOUR = Image.fromarray(np.stack([RAMP, RAMP.T, 255 - RAMP], 2))


def test_odd_pictures_become_rgb():
    grey = np.stack([RAMP] * 3, 2)
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(RAMP))), grey)
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(RAMP.astype(np.uint16) * 257))), grey)
    np.testing.assert_array_equal(decoded(encoded(COLOUR.quantize(64))), np.asarray(COLOUR.quantize(64).convert("RGB")))
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(RAMP > 99)))[..., 0], (RAMP > 99) * 255)
    cmyk = decoded(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert cmyk[..., 0].min() > 240 and cmyk[..., 1:].max() < 15


def test_transparency_lies_over_white():
    layer = COLOUR.copy()
    layer.putalpha(0)
    assert decoded(encoded(layer)).min() == 255
    layer.putalpha(255)
    np.testing.assert_array_equal(decoded(encoded(layer)), np.asarray(COLOUR))
    assert decoded(encoded(Image.new("LA", (8, 8), (0, 0)))).min() == 255


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to view
    np.testing.assert_array_equal(decoded(encoded(COLOUR, exif=exif)), np.rot90(np.asarray(COLOUR), -1))


@pytest.mark.parametrize("cut", [0, 10, 60, -60])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_broken_pictures_are_named(kind, cut):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    with pytest.raises(InputError, match=r"one\.png: not a readable picture"):
        decoded(encoded(noise, kind)[:cut])


def test_pictures_without_a_sensible_reading_are_named(monkeypatch):
    with pytest.raises(InputError, match="floating-point"):
        decoded(encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"))
    monkeypatch.setattr(decoding, "PIXEL_LIMIT", 10)
    with pytest.raises(InputError, match="8 x 8 pixels is too large"):
        decoded(encoded(COLOUR))


def test_square_takes_the_centre_and_antialiases():
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200
    assert (decoding.square(Image.fromarray(wide), 8) == 200).all()
    assert (decoding.square(Image.fromarray(wide), 4)[:, 1:3] == 200).all()
    assert (decoding.square(Image.fromarray(wide), 4, (0, 0, 8, 8)) == 0).all()
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = decoding.square(Image.fromarray(checks).convert("RGB"), 8)
    assert abs(small.astype(int) - 127).max() < 20  # nearest neighbour would give 0 or 255
