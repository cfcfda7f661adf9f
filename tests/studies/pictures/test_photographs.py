"""Photographs: what each kind of file gives, pixel by pixel."""

import hashlib
import os
import socket
import struct
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import tifffile
import torch
from checks import refused
from PIL import Image

from ppp.errors import PictureError
from studies.pictures import photographs as module
from studies.pictures.photographs import (
    folder_photographs,
    large_enough,
    photographs,
    scikit_image_photographs,
)


def scene(height=40, width=60, channels=3, seed=0, top=256):
    """Noise: every pixel differs, so that a wrong rotation or channel order shows."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    dtype = np.uint8 if top == 256 else np.uint16
    return np.random.default_rng(seed).integers(0, top, shape).astype(dtype)


def smooth(height=40, width=60):
    """A gradient, which JPEG keeps within a few grey levels."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y * 4, x * 3, 200 - y - x], axis=-1).astype(np.uint8)


def as_float(array):
    return array.astype(np.float32) / np.float32(np.iinfo(array.dtype).max)


def rgb_pixels(photo):
    """(H, W, 3) float32, to set beside the array that a file was written from."""
    pixels = photo.pixels()
    assert pixels.dtype == torch.float32 and pixels.shape == (3, photo.height, photo.width)
    assert pixels.is_contiguous() and pixels.min() >= 0 and pixels.max() <= 1
    return pixels.permute(1, 2, 0).numpy()


def only(folder):
    found = folder_photographs(folder)
    assert len(found.photos) == 1, found.outcomes
    return found.photos[0], found.outcomes[0]


def one_line(function, *parts, **options):
    text = refused(function, error=PictureError, **options)
    assert all(part in text for part in parts), text


def write_png16(path, array):
    """A 16-bit colour PNG, which Pillow cannot write."""
    height, width, channels = array.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


# ---------------------------------------------------------------- scikit-image's photographs


def test_scikit_image_photographs_need_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    photos = scikit_image_photographs()
    names = [p.name for p in photos]
    assert names == sorted(names) and len(set(names)) == 8
    assert "motorcycle_left" in names and "motorcycle_right" not in names
    assert len({p.sha256 for p in photos}) == 8
    for photo in photos:
        assert photo.caption and photo.source.startswith("scikit-image ")
        rgb = rgb_pixels(photo)
        assert rgb.std() > 0.05
        # The same pixels as skimage.data gives.
        attribute = {"ihc": "immunohistochemistry"}.get(photo.name, photo.name)
        if photo.name != "motorcycle_left":
            theirs = getattr(skimage.data, attribute)()
            np.testing.assert_array_equal(np.rint(rgb * 255).astype(np.uint8), theirs)


def test_scikit_image_without_a_file(monkeypatch):
    monkeypatch.setitem(module._SCIKIT_IMAGE, "moon", ("no_moon.png", "the moon", "nobody"))
    one_line(scikit_image_photographs, "'moon'", "no_moon.png", "file not found", "reinstall")


# ---------------------------------------------------------------- kinds of file


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_rgb_is_used_as_it_is(tmp_path, suffix):
    array = scene()
    Image.fromarray(array).save(tmp_path / f"a.{suffix}", lossless=True)
    photo, outcome = only(tmp_path)
    assert outcome == (f"a.{suffix}", "used", "")
    assert (photo.name, photo.height, photo.width) == (f"a.{suffix}", 40, 60)
    np.testing.assert_array_equal(rgb_pixels(photo), as_float(array))
    expected = hashlib.sha256(b"40x60x3 uint8\n" + array.tobytes()).hexdigest()
    assert photo.sha256 == expected


def opaque():
    return np.concatenate([scene(), np.full((40, 60, 1), 255, np.uint8)], axis=-1)


def palette():
    picture = Image.frombytes("P", (60, 40), (scene(channels=1) % 4).tobytes())
    picture.putpalette(scene(1, 4).tobytes())
    return picture


@pytest.mark.parametrize(
    ("picture", "name", "rgb", "outcome", "reason"),
    [
        (scene(), "a.jpg", scene(), "used", ""),  # the content decides, not the suffix
        (scene(channels=1), "a.png", scene(channels=1), "used, converted", "greyscale to RGB"),
        (scene(channels=1) > 127, "a.png", np.where(scene(channels=1) > 127, 255, 0),
         "used, converted", "black and white to RGB"),
        (palette(), "a.png", scene(1, 4)[0][scene(channels=1) % 4],
         "used, converted", "palette to RGB"),
        (opaque(), "a.png", scene(),
         "used, converted", "RGBA to RGB, transparency dropped (all opaque)"),
    ],
    ids=["misnamed", "greyscale", "black and white", "palette", "opaque"],
)  # fmt: skip
def test_a_kind_of_picture_becomes_rgb(tmp_path, picture, name, rgb, outcome, reason):
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(tmp_path / name, format="PNG")
    photo, said = only(tmp_path)
    assert said == (name, outcome, reason)
    rgb = rgb[..., None].repeat(3, 2) if rgb.ndim == 2 else rgb
    np.testing.assert_array_equal(rgb_pixels(photo), as_float(rgb.astype(np.uint8)))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_greyscale_of_16_bits_keeps_them(tmp_path, suffix):
    array = scene(channels=1, top=65536)
    Image.fromarray(array).save(tmp_path / f"a.{suffix}")
    photo, outcome = only(tmp_path)
    assert outcome[1:] == ("used, converted", "16-bit greyscale to RGB, divided by 65535")
    np.testing.assert_array_equal(rgb_pixels(photo), as_float(array)[..., None].repeat(3, 2))
    expected = hashlib.sha256(b"40x60x3 uint16\n" + array.repeat(3).astype("<u2").tobytes())
    assert photo.sha256 == expected.hexdigest()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_in_which_0_is_white_is_no_negative(tmp_path, dtype):
    top = np.iinfo(dtype).max
    ramp = np.tile(np.linspace(0, top, 64).astype(dtype), (48, 1))  # white at the left
    tifffile.imwrite(tmp_path / "a.tif", ramp, photometric="miniswhite")
    photo, _ = only(tmp_path)
    np.testing.assert_array_equal(rgb_pixels(photo)[..., 0], as_float(top - ramp))


def test_8_bit_values_in_16_bits_are_the_same_picture(tmp_path):
    array = scene(channels=1)
    Image.fromarray(array).save(tmp_path / "a.png")
    Image.fromarray(array.astype(np.uint16) * 257).save(tmp_path / "b.png")
    found = folder_photographs(tmp_path)
    assert found.outcomes[1] == ("b.png", "skipped", "duplicate: same pixels as a.png")


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_of_16_bits_is_read_at_8_and_says_so(tmp_path, channels):
    array = scene(channels=channels, top=65536)
    array[..., 3:] = 65535
    write_png16(tmp_path / "a.png", array)
    photo, outcome = only(tmp_path)
    assert outcome.outcome == "used, converted"
    assert "16-bit colour read at 8 bits" in outcome.reason
    np.testing.assert_array_equal(
        rgb_pixels(photo), as_float((array[..., :3] >> 8).astype(np.uint8))
    )


def test_transparency_is_laid_over_white(tmp_path):
    array = scene(channels=4)
    array[0, 0] = (10, 20, 30, 0)
    array[0, 1] = (10, 20, 30, 255)
    array[0, 2] = (10, 20, 30, 51)  # a fifth opaque
    Image.fromarray(array).save(tmp_path / "a.png")
    photo, outcome = only(tmp_path)
    assert outcome[1:] == ("used, converted", "RGBA to RGB, transparency laid over white")
    rgb = np.rint(rgb_pixels(photo) * 255).astype(int)
    assert rgb[0, 0].tolist() == [255, 255, 255]
    assert rgb[0, 1].tolist() == [10, 20, 30]
    assert rgb[0, 2].tolist() == [206, 208, 210]


def test_cmyk_jpeg(tmp_path):
    array = smooth()
    Image.fromarray(array).convert("CMYK").save(tmp_path / "a.jpg", quality=98)
    photo, outcome = only(tmp_path)
    assert outcome[1:] == ("used, converted", "CMYK to RGB, colour profile not applied")
    assert np.abs(rgb_pixels(photo) - as_float(array)).max() < 6 / 255


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    upright = smooth()
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(np.ascontiguousarray(stored))
    picture.save(tmp_path / "a.jpg", exif=exif, quality=98, subsampling=0)
    photo, outcome = only(tmp_path)
    assert (photo.height, photo.width) == (40, 60)
    assert np.abs(rgb_pixels(photo) - as_float(upright)).max() < 6 / 255
    if orientation == 1:
        assert outcome[1:] == ("used", "")
    else:
        expected = f"turned upright by its EXIF orientation {orientation}"
        assert outcome[1:] == ("used, rotated", expected)


def test_converted_and_rotated(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    array = scene(channels=1, top=65536)
    Image.fromarray(array[::-1, ::-1].copy()).save(tmp_path / "a.png", exif=exif)
    photo, outcome = only(tmp_path)
    assert outcome.outcome == "used, converted, rotated"
    np.testing.assert_array_equal(rgb_pixels(photo)[..., 0], as_float(array))


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.fromarray(scene(seed=seed)) for seed in (0, 1)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    photo, outcome = only(tmp_path)
    assert outcome[1:] == ("used, converted", "first of 2 frames")
    np.testing.assert_array_equal(rgb_pixels(photo), as_float(scene()))


# ---------------------------------------------------------------- files that are skipped


def skipped(folder, name):
    """Put a good picture beside the bad one, and return the bad one's reason."""
    Image.fromarray(scene(seed=9)).save(folder / "~good.png")
    found = folder_photographs(folder)
    assert [p.name for p in found.photos] == ["~good.png"]
    row = next(o for o in found.outcomes if o.file == name)
    assert row.outcome == "skipped" and "\n" not in row.reason
    return row.reason


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "gif"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_cut_short(tmp_path, suffix, kept):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(scene(200, 200)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert skipped(tmp_path, path.name).split(":")[0] in ("truncated", "damaged", "not a picture")


def test_cut_short_jpeg_and_png_say_truncated(tmp_path):
    for name in ("a.jpg", "b.png"):
        Image.fromarray(scene(200, 200)).save(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        assert skipped(tmp_path, name).startswith("truncated: ")


@pytest.mark.parametrize("seed", range(20))
def test_noise_in_a_file_never_stops_the_others(tmp_path, seed):
    rng = np.random.default_rng(seed)
    for name in ("a.png", "b.jpg", "c.tif", "d.gif", "e.webp", "f.bmp"):
        Image.fromarray(scene()).save(tmp_path / name)
        data = bytearray((tmp_path / name).read_bytes())
        for at in rng.integers(0, len(data), 12):
            data[at] = rng.integers(0, 256)
        (tmp_path / name).write_bytes(data)
    Image.fromarray(scene(seed=9)).save(tmp_path / "g.png")
    found = folder_photographs(tmp_path)
    assert len(found.outcomes) == 7 and found.outcomes[6].outcome == "used"
    for photo in found.photos:
        assert photo.pixels().isfinite().all()


def test_not_a_picture(tmp_path):
    (tmp_path / "a.png").write_text("these are words")
    assert skipped(tmp_path, "a.png").startswith("not a picture: ")


def test_postscript_never_reaches_its_interpreter(tmp_path):
    Image.fromarray(scene()).save(tmp_path / "a.eps")
    assert skipped(tmp_path, "a.eps").startswith("not a picture: ")


def test_zero_bytes(tmp_path):
    (tmp_path / "a.png").touch()
    assert skipped(tmp_path, "a.png") == "empty file"


def test_float_pixels_have_no_range(tmp_path):
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "a.tif")
    assert skipped(tmp_path, "a.tif") == "no defined range: float pixels"


def test_sub_folders_links_and_pipes(tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / ".hidden.png").write_text("no picture")
    assert skipped(tmp_path, "more") == "sub-folder: not descended"
    assert skipped(tmp_path, "gone.png") == "broken link"
    assert skipped(tmp_path, "pipe.png") == "not a regular file"
    assert ".hidden.png" not in folder_photographs(tmp_path).table()["file"].to_list()


def test_duplicates_under_another_name_and_format(tmp_path):
    for name in ("b.png", "a.bmp", "c.tif"):
        Image.fromarray(scene()).save(tmp_path / name)
    found = folder_photographs(tmp_path)
    assert [p.name for p in found.photos] == ["a.bmp"]
    assert [o.reason for o in found.outcomes[1:]] == ["duplicate: same pixels as a.bmp"] * 2


def test_same_bytes_in_another_shape_are_no_duplicate(tmp_path):
    Image.fromarray(scene(40, 60)).save(tmp_path / "a.png")
    Image.fromarray(scene(40, 60).reshape(60, 40, 3)).save(tmp_path / "b.png")
    assert len(folder_photographs(tmp_path).photos) == 2


def test_too_small(tmp_path):
    Image.fromarray(scene(1, 1)).save(tmp_path / "a.png")
    assert rgb_pixels(only(tmp_path)[0]).shape == (1, 1, 3)
    Image.fromarray(scene()).save(tmp_path / "b.png")
    found = folder_photographs(tmp_path, min_size=40)
    assert found.outcomes[0].reason == "too small: 1 x 1 px, under 40 px a side"
    assert [p.name for p in found.photos] == ["b.png"]


def test_permission_denied(tmp_path):
    Image.fromarray(scene()).save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    if os.access(tmp_path / "a.png", os.R_OK):
        pytest.skip("this user (root?) reads files whatever their permissions")
    assert skipped(tmp_path, "a.png") == "permission denied"
    tmp_path.chmod(0)
    try:
        one_line(partial(folder_photographs, tmp_path), "cannot be read", "Permission denied")
    finally:
        tmp_path.chmod(0o700)


def test_permission_denied_as_reported_by_the_system(tmp_path, monkeypatch):
    """The same for root, whom no permission bit stops."""
    Image.fromarray(scene()).save(tmp_path / "a.png")
    real = Image.open

    def refuse(path, **kwargs):
        if path.name == "a.png":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, **kwargs)

    monkeypatch.setattr(Image, "open", refuse)
    assert skipped(tmp_path, "a.png") == "permission denied"


@pytest.mark.parametrize("limit", [2000, 1000], ids=["warned", "refused"])
def test_decompression_bomb_is_an_outcome(tmp_path, monkeypatch, limit):
    Image.fromarray(scene(40, 60)).save(tmp_path / "a.png")
    Image.fromarray(scene(20, 20)).save(tmp_path / "b.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    found = folder_photographs(tmp_path)
    assert found.outcomes[0].reason == f"too large: over Pillow's guard of {limit} pixels"
    assert [p.name for p in found.photos] == ["b.png"]


def test_undecodable_file_name(tmp_path):
    Image.fromarray(scene()).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/caf\xe9.png")
    photo, outcome = only(tmp_path)
    assert photo.name == outcome.file == "caf\\xe9.png"
    photo.name.encode("utf-8")
    np.testing.assert_array_equal(rgb_pixels(photo), as_float(scene()))


# ---------------------------------------------------------------- folders


def test_every_file_is_decoded_once_and_in_order(tmp_path, monkeypatch):
    for seed, name in enumerate(("c.png", "a.png", "B.png")):
        Image.fromarray(scene(seed=seed)).save(tmp_path / name)
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda p, **kw: (opened.append(p.name), real(p, **kw))[1])
    found = folder_photographs(str(tmp_path))
    assert opened == ["B.png", "a.png", "c.png"] == [p.name for p in found.photos]
    assert found.table().columns.to_list() == ["file", "outcome", "reason"]
    assert found.table()["outcome"].to_list() == ["used"] * 3
    assert found.summary() == "3 used, 0 skipped"


def test_folders_that_cannot_be_used(tmp_path):
    one_line(partial(folder_photographs, tmp_path / "nowhere"), "no folder", "nowhere", "spelling")
    one_line(partial(folder_photographs, tmp_path), "is empty")
    (tmp_path / "a.png").write_text("words")
    one_line(partial(folder_photographs, tmp_path / "a.png"), "is a file")
    (tmp_path / "b.png").write_text("words")
    (tmp_path / "c.png").touch()
    Image.fromarray(scene(1, 1)).save(tmp_path / "d.png")
    counts = ("4 skipped", "2 not a picture", "1 empty file", "1 too small", "at least 32 px")
    one_line(partial(photographs, tmp_path, 32), "no usable picture", *counts)


def test_a_file_that_changes_or_goes_away(tmp_path):
    Image.fromarray(scene()).save(tmp_path / "a.png")
    (photo,) = photographs(tmp_path)
    Image.fromarray(scene(seed=1)).save(tmp_path / "a.png")
    one_line(photo.pixels, "'a.png'", "other pixels", "again")
    (tmp_path / "a.png").unlink()
    one_line(photo.pixels, "'a.png'", "file not found")


# ---------------------------------------------------------------- selection


def test_photographs_by_size(tmp_path):
    assert len(photographs()) == 8
    assert all(min(p.height, p.width) >= 500 for p in photographs(min_size=500))
    one_line(photographs, "min_size=5000", "1411", min_size=5000)
    for seed, (height, width) in enumerate([(40, 60), (60, 40), (50, 50)]):
        Image.fromarray(scene(height, width, seed=seed)).save(tmp_path / f"{seed}.png")
    assert [p.name for p in photographs(tmp_path, 41)] == ["2.png"]
    usable, too_small = large_enough(iter(photographs(tmp_path)), 40, 50)
    assert [p.name for p in usable] == ["0.png", "2.png"]
    assert [p.name for p in too_small] == ["1.png"]


def test_a_folder_of_your_own():
    if not (top := os.environ.get("PPP_TEST_PHOTOS")):
        pytest.skip("set PPP_TEST_PHOTOS to a folder of photographs, or of such folders")
    folders = [path for path in Path(top).rglob("*") if path.is_dir()] or [Path(top)]
    for folder in folders:
        found = folder_photographs(folder)
        assert len(found.outcomes) >= len(found.photos) > 0
        for photo in found.photos[:3]:
            rgb_pixels(photo)
