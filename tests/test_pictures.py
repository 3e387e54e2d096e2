"""Pictures as bytes and as numbers, both ends of the range exactly, and resizing that keeps averages and gradients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from t2ilib.errors import InputError
from t2ilib.pictures import resized, to_float, to_uint8

ALL = np.arange(256, dtype=np.uint8)


def levels():
    """One picture that holds every value of a byte in every channel, (1, 16, 16, 3)."""
    return np.stack([ALL, np.roll(ALL, 85), ALL[::-1]], 1).reshape(1, 16, 16, 3)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["array", "tensor"])
def test_black_is_minus_one_and_white_is_one_exactly(kind):
    images = np.zeros((2, 1, 1, 3), np.uint8)
    images[1] = 255
    pictures = to_float(kind(images))
    assert pictures.dtype == torch.float32 and pictures.shape == (2, 3, 1, 1)
    assert pictures[0].eq(-1).all() and pictures[1].eq(1).all()


def test_every_byte_has_its_number_and_comes_back():
    """x = v / 127.5 - 1, by integers: x * 255 = 2 v - 255."""
    pictures = to_float(levels())
    expected = 2 * torch.from_numpy(levels().astype(np.int64)).permute(0, 3, 1, 2) - 255
    torch.testing.assert_close(pictures * 255, expected.float(), rtol=0, atol=1e-4)
    np.testing.assert_array_equal(to_uint8(pictures), levels())
    np.testing.assert_array_equal(to_uint8(pictures.numpy()), levels())


def test_channels_rows_and_columns_keep_their_order():
    images = np.zeros((2, 4, 5, 3), np.uint8)
    images[1, 2, 3] = [10, 20, 30]  # red, green, blue
    pictures = to_float(images)
    assert pictures.shape == (2, 3, 4, 5)
    assert torch.round((pictures[1, :, 2, 3] + 1) * 127.5).tolist() == [10, 20, 30]
    assert (pictures != -1).sum() == 3
    np.testing.assert_array_equal(to_uint8(pictures), images)


def test_channels_lie_last_in_memory():
    assert to_float(levels()).is_contiguous(memory_format=torch.channels_last)


def test_the_source_is_left_alone(tmp_path):
    images = levels()
    to_float(images).zero_()
    as_bytes = torch.from_numpy(levels())
    to_float(as_bytes).zero_()
    np.testing.assert_array_equal(images, levels())
    np.testing.assert_array_equal(as_bytes.numpy(), levels())
    np.save(tmp_path / "images.npy", levels())
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    torch.testing.assert_close(to_float(mapped[:1]), to_float(levels()))


def test_numbers_are_rounded_to_the_nearest_byte_and_cut_at_the_ends():
    values = torch.tensor([-3.0, -1, -1 + 0.49 / 127.5, -1 + 0.51 / 127.5, 1 - 0.49 / 127.5, 1, 1.2])
    pictures = values.view(1, 1, 1, 7).expand(1, 3, 1, 7)
    assert to_uint8(pictures)[0, 0, :, 0].tolist() == [0, 0, 0, 1, 255, 255, 255]


def test_bytes_pass_and_pictures_of_any_precision_do():
    images = levels()
    assert to_uint8(images) is images
    graph = to_float(images).requires_grad_()
    np.testing.assert_array_equal(to_uint8(graph), images)
    assert to_uint8(to_float(images).bfloat16()).dtype == np.uint8
    np.testing.assert_array_equal(to_uint8(to_float(images).double()), images)


@pytest.mark.parametrize(
    "images",
    [np.zeros((4, 4, 3), np.uint8), np.zeros((1, 3, 4, 4), np.uint8), torch.zeros(1, 4, 4, 3), torch.zeros(3, 4, 4)],
)
def test_other_shapes_are_named(images):
    with pytest.raises(InputError, match="images: "):
        to_uint8(images)


@pytest.mark.parametrize("size", [5, 8, 12, 32])
@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_one_colour_stays_one_colour(size, mode):
    pictures = torch.tensor([-1.0, 0.25, 1.0]).view(1, 3, 1, 1).expand(2, 3, 12, 12)
    small = resized(pictures, size, mode)
    torch.testing.assert_close(small, pictures[..., :1, :1].expand(2, 3, size, size), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_fine_patterns_are_averaged(mode):
    """Stripes of four pixels, shrunk to an eighth: without antialiasing only the white ones would be looked at."""
    stripes = torch.where((torch.arange(64) + 6) % 8 < 4, 1.0, -1.0).expand(1, 3, 64, 64)
    assert resized(stripes, 8, mode)[..., 1:-1].abs().max() < 0.2  # the border has no neighbours
    assert F.interpolate(stripes, (8, 8), mode=mode).min() > 0.9


def test_edges_overshoot_and_keep_their_gradient():
    edge = (torch.where(torch.arange(16) < 8, -1.0, 1.0)).expand(1, 3, 16, 16).clone().requires_grad_()
    large = resized(edge, 32)
    assert large.max() > 1.01 and large.min() < -1.01  # bicubic, not clamped
    large.sum().backward()
    assert (edge.grad > 0).all()


def test_the_size_it_has_is_left_alone():
    pictures = torch.randn(2, 3, 8, 8)
    assert resized(pictures, 8) is pictures
    assert resized(pictures.bfloat16(), 8).dtype == torch.float32


@pytest.mark.parametrize(
    ("given", "found"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)],
)
def test_half_precision_is_resized_in_float32(given, found):
    pictures = torch.rand(1, 3, 8, 8).to(given)
    assert resized(pictures, 6).dtype == found
    torch.testing.assert_close(resized(pictures, 6), resized(pictures.to(found), 6))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["array", "tensor"])
def test_what_is_no_number_becomes_no_picture(kind, value, recwarn):
    pictures = np.zeros((2, 3, 4, 4), np.float32)
    pictures[1, 2, 3, 0] = value
    with pytest.raises(InputError, match="images: some are NaN or infinite") as caught:
        to_uint8(kind(pictures))
    assert "\n" not in str(caught.value) and not recwarn.list
