"""Picture files of any origin: odd kinds become upright RGB, broken ones are named."""

import contextlib
import io
import os
import struct
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from t2ilib.data import decoding
from t2ilib.data.importers import gathering
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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(orientation):
    wide = np.asarray(COLOUR)[:4]
    upright = [wide, wide[:, ::-1], wide[::-1, ::-1], wide[::-1], wide.transpose(1, 0, 2), np.rot90(wide, -1)]
    upright += [wide[::-1, ::-1].transpose(1, 0, 2), np.rot90(wide)]
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decoded(encoded(Image.fromarray(wide), exif=exif))
    np.testing.assert_array_equal(found, upright[orientation - 1])


def test_a_transparent_colour_of_a_palette_lies_over_white():
    palette = COLOUR.quantize(16)
    hidden = np.asarray(palette) == 3
    found = decoded(encoded(palette, transparency=3))
    assert hidden.any() and (found[hidden] == 255).all()
    np.testing.assert_array_equal(found[~hidden], np.asarray(palette.convert("RGB"))[~hidden])


@pytest.mark.parametrize("kind", [0, 2])
def test_16_bits_are_scaled_to_8(kind):
    assert (decoded(png(8, 8, 8, depth=16, kind=kind)) == 90).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_several_frames_are_refused(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    with pytest.raises(InputError, match=r"one\.png: has several frames; save the one"):
        decoded(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))


def test_a_camera_picture_with_a_preview_is_read():
    found = decoded(encoded(Image.new("RGB", (8, 8), "red"), "MPO", save_all=True, append_images=[COLOUR]))
    assert found[..., 0].min() > 240 and found[..., 1:].max() < 15


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
@pytest.mark.parametrize("kind", ["JPEG", "progressive JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_picture_cut_off_anywhere_is_whole_or_refused(kind, share):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    whole = encoded(noise, kind.split()[-1], **({"progressive": True} if " " in kind else {}))
    try:
        np.testing.assert_array_equal(decoded(whole[: int(share * len(whole))]), decoded(whole))
    except InputError as error:
        assert str(error).startswith("one.png: not a readable picture")


@pytest.mark.parametrize("cut", [0, 10, 60, -60])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_broken_pictures_are_named(kind, cut):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    with pytest.raises(InputError, match=r"one\.png: not a readable picture"):
        decoded(encoded(noise, kind)[:cut])


def test_pictures_without_a_sensible_reading_are_named(monkeypatch):
    with pytest.raises(InputError, match="floating-point"):
        decoded(encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"))
    with pytest.raises(InputError, match=r"one\.png: 32-bit pixels, whose range is unknown; save it"):
        decoded(encoded(Image.fromarray(RAMP.astype(np.int32) << 20), "TIFF"))
    monkeypatch.setattr(decoding, "PIXEL_LIMIT", 10)
    with pytest.raises(InputError, match="8 x 8 pixels is too large"):
        decoded(encoded(COLOUR))


def png(width, height, rows, depth=8, kind=2, interlaced=0, data=None):  # noqa: PLR0913, PLR0917
    """A PNG written by hand, with as many rows of its pixels as said."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    per_row = -(-width * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind] // 8)
    pixels = b"".join(b"\0" + bytes([90]) * per_row for _ in range(rows)) if data is None else data
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("rows", [0, 1, 32, 63])
@pytest.mark.parametrize(("kind", "depth"), [(0, 1), (0, 4), (0, 16), (2, 8), (2, 16), (4, 8), (6, 8), (6, 16)])
def test_rows_missing_from_a_png_are_not_painted_black(rows, kind, depth):
    assert decoded(png(65, 64, 64, depth, kind)).shape == (64, 65, 3)
    with pytest.raises(InputError, match=r"one\.png: not a readable picture"):
        decoded(png(65, 64, rows, depth, kind))


@pytest.mark.parametrize("side", [1, 2, 3, 5, 8, 9, 17])
def test_an_interlaced_png_is_whole_or_refused(side):
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    sizes = [(len(range(x, side, dx)), len(range(y, side, dy))) for x, y, dx, dy in passes]
    data = b"".join((b"\0" + bytes([90]) * 3 * columns) * rows for columns, rows in sizes if columns)
    assert (decoded(png(side, side, 0, interlaced=1, data=data)) == 90).all()
    with pytest.raises(InputError, match="not a readable picture"):
        decoded(png(side, side, 0, interlaced=1, data=data[:-1]))


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def tiff(compression):
    """A TIFF of grey whose directory lies before its one strip, as Photoshop writes it."""
    whole = encoded(NOISE.convert("L"), "TIFF", compression=compression)
    tags = dict(Image.open(io.BytesIO(whole)).tag_v2)
    (start,), (count,) = tags[273], tags[279]
    kept = {256: 64, 257: 64, 258: 8, 259: tags[259], 262: 1, 273: 8 + 2 + 9 * 12 + 4, 277: 1, 278: 64, 279: count}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in kept.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 9) + directory + bytes(4) + whole[start : start + count]


ZEROED = {
    "JPEG": encoded(NOISE, "JPEG"),
    "progressive JPEG": encoded(NOISE, "JPEG", progressive=True),
    "JPEG in one scan of restarts": encoded(NOISE, "JPEG", restart_marker_rows=1),
    "PNG": encoded(NOISE),
    "PNG of few colours": encoded(Image.fromarray(np.asarray(NOISE) // 64)),  # zeros in its codes are pixels, too
    "GIF": encoded(NOISE, "GIF"),
    **{f"TIFF of {kind}": tiff(kind) for kind in ("tiff_lzw", "packbits", "tiff_adobe_deflate", "zstd", "lzma")},
}


@pytest.mark.parametrize("kind", ZEROED)
@pytest.mark.parametrize("share", [0.4, 0.6, 0.8, 0.93])
def test_a_half_fetched_picture_whose_rest_is_zeros_is_refused(kind, share):
    whole = ZEROED[kind]
    assert decoded(whole).shape == (64, 64, 3)
    there = int(share * len(whole))
    with pytest.raises(InputError, match=r"one\.png: not a readable picture"):
        decoded(whole[:there] + bytes(len(whole) - there))


def test_zeros_between_the_pieces_of_a_png_are_not_walked_through():
    with pytest.raises(InputError, match=r"one\.png: not a readable picture \(damaged between its pieces\)"):
        decoded(png(65, 64, 64)[:-12] + bytes(1000))


TAILS = {
    "zeros": bytes(5000),
    "a preview": encoded(COLOUR, "JPEG"),
    "a film": b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 8,
    "an end of line": b"\r\n",
}


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_what_cameras_append_to_a_picture_does_not_matter(kind, tail):
    whole = encoded(COLOUR, kind)
    np.testing.assert_array_equal(decoded(whole + TAILS[tail]), decoded(whole))


def test_an_end_within_a_jpeg_s_preview_is_not_its_own():
    exif = Image.Exif()
    exif[0x010E] = "\xff\xd9" * 20 + "\xff\xda" * 200
    exif = b"Exif\0\0" + exif.tobytes() + encoded(COLOUR, "JPEG") + b"\xff\xda" * 200
    whole = encoded(NOISE, "JPEG", exif=exif)
    assert decoded(whole).shape == (64, 64, 3)
    with pytest.raises(InputError, match="its end is missing"):
        decoded(whole[: len(whole) // 2] + bytes(len(whole) // 2))


def progressive(scans):
    """A progressive JPEG whose last scan is there again and again, until there are so many."""
    whole = encoded(COLOUR, "JPEG", progressive=True)
    first, last = whole.count(b"\xff\xda"), whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * (scans - first + 1) + whole[-2:]


def test_a_jpeg_of_very_many_scans_is_refused_before_decoding(monkeypatch):
    assert decoded(progressive(100)).shape == (8, 8, 3)
    monkeypatch.setattr("PIL.Image.open", lambda *_, **__: pytest.fail("was opened"))
    for scans in (101, 8000):
        with pytest.raises(InputError, match=r"one\.png: not a readable picture \(over 100 scans\)"):
            decoded(progressive(scans))


@pytest.mark.parametrize("marker", [b"\x02", b"\x05", b"\x7f", b"\xbf"])
def test_scans_that_a_marker_of_no_jpeg_hides_are_refused(marker, monkeypatch):
    whole = encoded(COLOUR, "JPEG", progressive=True, restart_marker_blocks=1)
    last = whole.rindex(b"\xff\xda")
    hidden = whole[last:-2] * 300  # libjpeg, in search of a restart, passes over the marker alone, and reads these
    length = (2 + len(hidden)).to_bytes(2, "big")
    monkeypatch.setattr("PIL.Image.open", lambda *_, **__: pytest.fail("was opened"))
    told = rf"one\.png: not a readable picture \(the marker FF{marker.hex().upper()}, which no JPEG has\)"
    with pytest.raises(InputError, match=told):
        decoded(whole[:-2] + b"\xff" + marker + length + hidden + whole[-2:])


def test_a_jpeg_of_very_many_segments_is_refused_before_it_is_opened(monkeypatch):
    whole = encoded(COLOUR, "JPEG")
    comment = b"\xff\xfe\0\2"
    assert decoded(whole[:2] + comment * 9000 + whole[2:]).shape == (8, 8, 3)
    monkeypatch.setattr("PIL.Image.open", lambda *_, **__: pytest.fail("was opened"))
    with pytest.raises(InputError, match="over 10,000 segments"):
        decoded(whole[:2] + comment * 10_000 + whole[2:])


def test_only_the_formats_that_are_named_are_opened(monkeypatch):
    started = []
    monkeypatch.setattr("subprocess.Popen", lambda *given, **_: started.append(given))
    monkeypatch.setattr("subprocess.check_call", lambda *given, **_: started.append(given))
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    for data in (postscript, encoded(COLOUR, "EPS"), encoded(COLOUR, "PPM"), encoded(COLOUR, "ICO"), b"<svg/>"):
        with pytest.raises(InputError, match=r"one\.png: not a readable picture of JPEG, PNG"):
            decoded(data)
    assert not started
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"):
        assert decoded(encoded(COLOUR, kind)).shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("width", "height", "told"),
    [
        (1, 2_000_000, "is a strip"),
        (2_000_000, 1, "is a strip"),
        (41, 1, "is a strip"),
        (4_900, 4_900, "bytes that unpack to 4900 x 4900"),
        (5_001, 5_000, r"too large \(over 25,000,000\)"),
    ],
)
def test_what_would_take_far_more_memory_than_its_file_is_refused_before_decoding(width, height, told, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("was decoded"))
    with pytest.raises(InputError, match=told):
        decoded(png(width, height, 1, data=b""))


def plain(kind, mode, **options):
    return lambda: encoded(Image.new(mode, (3000, 2000), "white"), kind, **options)


PLAIN = {
    "WebP": plain("WEBP", "RGB", method=0),
    "WebP without loss": plain("WEBP", "RGB", lossless=True, method=0),
    **{f"PNG of {mode}": plain("PNG", mode) for mode in ("1", "L", "P", "RGB", "RGBA")},
    "PNG of 16 colours": plain("PNG", "P", bits=1),
    "GIF": plain("GIF", "P"),
    "fax": plain("TIFF", "1", compression="group4"),
    "JPEG": plain("JPEG", "RGB", progressive=True, optimize=True),
    "grey JPEG": plain("JPEG", "L", progressive=True, optimize=True),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_a_large_picture_of_one_colour_is_read_however_few_bytes_it_takes(kind):
    data = PLAIN[kind]()
    assert decoded(data).shape == (2000, 3000, 3) and len(data) < 3000 * 2000 / 100


def test_a_drawing_on_white_is_read_as_webp():
    drawing = Image.new("RGB", (3000, 2000), "white")
    for row in range(0, 2000, 400):
        ImageDraw.Draw(drawing).line((0, row, 2999, 1999 - row), (row % 256, 40, 90), 3)
    data = encoded(drawing, "WEBP", lossless=True, method=0)
    np.testing.assert_array_equal(decoded(data), np.asarray(drawing))
    assert len(data) * decoding.PACKED_LIMIT < 3000 * 2000


@pytest.mark.parametrize("add", ["add_text", "add_itxt"])
@pytest.mark.parametrize(("texts", "length"), [(1, 1 << 20), (1, (1 << 20) + 1), (65, 1 << 20)])
def test_a_png_of_very_long_texts_says_how_to_save_it(add, texts, length):
    info = PngInfo()
    for number in range(texts):
        getattr(info, add)(f"text {number}", "x" * length, zip=True)
    data = encoded(COLOUR, pnginfo=info)
    if texts * length <= 1 << 20:
        assert decoded(data).shape == (8, 8, 3)
        return
    with pytest.raises(InputError, match=r"one\.png: over a megabyte of text .*; save it without metadata"):
        decoded(data)


@pytest.mark.parametrize(("side", "fits"), [(256, True), (5008, False), (65_536, False)])
def test_a_tile_far_larger_than_its_tiff_is_refused_before_decoding(side, fits, monkeypatch):
    kept = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 8 + 2 + 10 * 12 + 4, 325: 0}
    tile = zlib.compress(bytes(256**2)) if fits else b"any"
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value or len(tile)) for tag, value in kept.items())
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", 10) + directory + bytes(4) + tile
    if fits:
        assert decoded(data).shape == (64, 64, 3)
        return
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("was decoded"))
    with pytest.raises(InputError, match=f"not a readable picture .*{side}"):
        decoded(data)


@pytest.mark.parametrize("error", [MemoryError(), OSError("out of memory when reading image file")])
def test_a_picture_without_memory_for_it_is_not_called_damaged(error, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: (_ for _ in ()).throw(error))
    with pytest.raises(MemoryError):
        decoded(encoded(COLOUR))
    with pytest.raises(InputError, match=r"where/one\.png: no memory left to read it \(MemoryError\); end"):
        gathering.decode(["one.png"], ["train"], lambda _: encoded(COLOUR), Path("where"), 8)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg"])
@pytest.mark.parametrize("closed", [False, True])
def test_libtiff_prints_nothing_of_its_own(compression, closed, capfd):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    whole = encoded(noise, "TIFF", compression=compression)
    kept = os.dup(2)
    try:
        if closed:
            os.close(2)
        for start in range(0, len(whole), 500):
            with contextlib.suppress(InputError):
                decoded(whole[:start] + bytes(60) + whole[start + 60 :])
        assert decoded(whole).shape == (64, 64, 3)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    os.write(2, b"still heard")
    assert capfd.readouterr().err == "still heard"


@pytest.mark.parametrize("cores", [1, 64])
def test_two_pictures_are_read_at_once_and_a_large_one_alone(cores, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr("os.process_cpu_count", lambda: cores, raising=False)
    monkeypatch.setattr(decoding, "ALONE_FROM", 9)
    now, most = Counter(), Counter()

    def busy(what):
        now[what] += 1
        most[what] = max(most[what], now[what])
        time.sleep(0.01)
        now[what] -= 1

    rgb = decoding._rgb
    monkeypatch.setattr(decoding, "_rgb", lambda picture: busy("decode") or rgb(picture))
    gathering.decode(["x"] * 20, ["train"] * 20, lambda _: busy("read") or encoded(COLOUR), Path("where"), 8)
    assert most == {"read": gathering.WORKERS, "decode": 1}


def test_the_pixels_of_a_png_are_counted_in_pieces(monkeypatch):
    monkeypatch.setattr(decoding, "PIECE", 7)
    monkeypatch.setattr(decoding, "UNPACKED", 5)
    data = png(65, 64, 64)
    assert sum(decoding._unpacked(data)) == 64 * (1 + 65 * 3) and max(decoding._unpacked(data)) <= 5


def test_square_takes_the_centre_and_antialiases():
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200
    assert (decoding.square(Image.fromarray(wide), 8) == 200).all()
    assert (decoding.square(Image.fromarray(wide), 4)[:, 1:3] == 200).all()
    assert (decoding.square(Image.fromarray(wide), 4, (0, 0, 8, 8)) == 0).all()
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = decoding.square(Image.fromarray(checks).convert("RGB"), 8)
    assert abs(small.astype(int) - 127).max() < 20  # nearest neighbour would give 0 or 255
