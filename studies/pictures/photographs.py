"""The photographs that everything is measured on: scikit-image's own, or a folder of yours.

A :class:`Photograph` holds a path, not pixels: hundreds of them cost no memory, and only the
picture in hand is decoded. Pictures are recognised by their content, never by their suffix;
PNG, JPEG, TIFF, WebP, BMP and GIF are read. Pixels are taken as the file stores them: colour
profiles are not applied, and nothing is resized but by :class:`Reduced`.

Depth: 16-bit greyscale keeps its 16 bits (divided by 65535). 16-bit *colour* is read at
8 bits (its upper byte), because Pillow has no deeper colour mode, and the outcome says so.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ppp.errors import PictureError, unknown
from studies.pictures import datasets

# A closed list, so that no file of a user's can reach a decoder that starts another program
# (Pillow hands EPS to Ghostscript).
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF")

# The colour photographs inside scikit-image's wheel: file, subject, origin. `motorcycle_right`
# is left out: it shows the scene of `motorcycle_left` from 19 cm further right, and two views
# of one scene are not two samples.
_SCIKIT_IMAGE = {
    "astronaut": (
        "astronaut.png",
        "portrait of the astronaut Eileen Collins before a flag and a shuttle model",
        "NASA, public domain",
    ),
    "chelsea": ("chelsea.png", "face of a tabby cat, close", "Stefan van der Walt, CC0"),
    "coffee": ("coffee.png", "cup of coffee on a wooden table", "Rachel Michetti, CC0"),
    "hubble_deep_field": (
        "hubble_deep_field.jpg",
        "Hubble eXtreme Deep Field: galaxies on black sky",
        "NASA, public domain",
    ),
    "ihc": (
        "ihc.png",
        "stained section of colonic glands under a microscope",
        "Center for Microscopy and Molecular Imaging, no known restrictions",
    ),
    "motorcycle_left": (
        "motorcycle_left.png",
        "motorcycle in a workshop (left view of a stereo pair)",
        "Middlebury stereo benchmark 2014",
    ),
    "retina": ("retina.jpg", "fundus of a human left eye", "Mikael Häggström, CC0"),
    "rocket": (
        "rocket.jpg",
        "launch of a Falcon 9 at night from Cape Canaveral",
        "SpaceX, public domain",
    ),
}


class _Unusable(Exception):
    """Why a file gives no photograph; never leaves this module."""


@dataclass(frozen=True)
class Photograph:
    """One picture on disk, known to decode, with its pixels left there.

    Attributes
    ----------
    name : str
        Unique within its collection: a scikit-image name, or the file's name in its folder.
    path : Path
        The file.
    height, width : int
        Size in pixels, after any rotation that the file's EXIF asks for.
    source : str
        Where the picture comes from, for a provenance footer.
    caption : str
        What it shows, for prose; the file name for a picture of the user's.
    sha256 : str
        Of ``"{height}x{width}x3 {dtype}\\n"`` followed by the decoded RGB pixels in row order
        (dtype ``uint8``, or little-endian ``uint16``), so that it names the picture, not the
        file: the same pixels in another lossless format have the same hash.
    """

    name: str
    path: Path
    height: int
    width: int
    source: str
    caption: str
    sha256: str

    def pixels(self) -> torch.Tensor:
        """Decode the picture; nothing is kept.

        Returns
        -------
        torch.Tensor
            Shape (3, height, width), float32, RGB in [0, 1].

        Raises
        ------
        PictureError
            If the file is gone, no longer decodes, or holds other pixels than when it was listed.

        Examples
        --------
        >>> chelsea = next(p for p in scikit_image_photographs() if p.name == "chelsea")
        >>> chelsea.pixels().shape
        torch.Size([3, 300, 451])
        """
        try:
            rgb, _ = _decode(self.path)
        except _Unusable as why:
            raise PictureError(
                f"photograph {self.name!r} ({self.path}) can no longer be read: {why}; "
                "list the photographs again"
            ) from None
        if _digest(rgb) != self.sha256:
            raise PictureError(
                f"photograph {self.name!r} ({self.path}) has other pixels than when it was "
                "listed; list the photographs again"
            )
        # Divide after the conversion: the same float32 for v/255 and for 257v/65535.
        scaled = rgb.astype(np.float32) / np.float32(np.iinfo(rgb.dtype).max)
        return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))


class Reduced:
    """A photograph reduced to a shorter side of so many pixels; never enlarged.

    Its pixels are averaged over what they cover (bilinear with antialiasing), and kept unless
    `keep` is false.

    Examples
    --------
    >>> chelsea = next(p for p in scikit_image_photographs() if p.name == "chelsea")
    >>> Reduced(chelsea, 150).pixels().shape, Reduced(chelsea, 512).height
    (torch.Size([3, 150, 226]), 300)
    """

    def __init__(self, photo: Photograph, side: int, *, keep: bool = True) -> None:
        self.photo, self.name, self.keep = photo, photo.name, keep
        part = min(1.0, side / min(photo.height, photo.width))
        self.height, self.width = round(photo.height * part), round(photo.width * part)

    @functools.cached_property
    def _kept(self) -> torch.Tensor:
        return self._reduced()

    def _reduced(self) -> torch.Tensor:
        pixels, size = self.photo.pixels()[None], (self.height, self.width)
        return F.interpolate(pixels, size, mode="bilinear", antialias=True)[0].clamp(0, 1)

    def pixels(self) -> torch.Tensor:
        """Return the pixels, (3, height, width), float32, RGB in [0, 1]."""
        return self._kept if self.keep else self._reduced()


class Outcome(NamedTuple):
    """What became of one entry of a folder."""

    file: str
    outcome: str  # "used", "used, converted", "used, rotated", both, or "skipped"
    reason: str


@dataclass(frozen=True)
class PhotographFolder:
    """A folder's usable photographs, and what became of every entry in it.

    Attributes
    ----------
    path : Path
    photos : list of Photograph
        In order of file name.
    outcomes : list of Outcome
        One (file, outcome, reason) per entry, in the same order.
    """

    path: Path
    photos: list[Photograph]
    outcomes: list[Outcome]

    def table(self) -> pd.DataFrame:
        """Return the outcomes as a frame with columns file, outcome and reason."""
        return pd.DataFrame(self.outcomes, columns=list(Outcome._fields))

    def summary(self) -> str:
        """Say in one line how many files are used and why the others are not."""
        skipped = Counter(o.reason.split(":")[0] for o in self.outcomes if o.outcome == "skipped")
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
        line = f"{len(self.photos)} used, {skipped.total()} skipped"
        return f"{line} ({why})" if why else line


def scikit_image_photographs() -> list[Photograph]:
    """Return the eight colour photographs that lie inside the scikit-image wheel.

    They are opened as files of the installed package, so nothing is ever fetched. Of the
    stereo pair `motorcycle_left` and `motorcycle_right` only the left view is kept: the
    two show the same scene and would count it twice. They are few and small (the shorter side
    is 300 to 1411 px); :func:`large_enough` tells which can serve a layer.

    Returns
    -------
    list of Photograph
        In alphabetical order.

    Raises
    ------
    PictureError
        If the installed scikit-image lacks one of them.

    Examples
    --------
    >>> [p.name for p in scikit_image_photographs()][:3]
    ['astronaut', 'chelsea', 'coffee']
    """
    release = f"scikit-image {version('scikit-image')}"
    folder = Path(str(files("skimage"))) / "data"
    photos = []
    for name, (file, caption, origin) in _SCIKIT_IMAGE.items():
        path = folder / file
        try:
            rgb, _ = _decode(path)
        except _Unusable as why:
            raise PictureError(
                f"photograph {name!r} cannot be read from {release} ({path}): {why}; expected "
                "it inside the package: reinstall scikit-image, or give a folder of photographs"
            ) from None
        photos.append(_photograph(name, path, rgb, f"{release}; {origin}", caption))
    return photos


def folder_photographs(path: str | os.PathLike[str], *, min_size: int = 0) -> PhotographFolder:
    """Check every file of a folder and list those that are usable photographs.

    Files are taken in order of their name, each decoded at most once, one at a time; a bad one
    never stops the others. Hidden files and the ``SHA256SUMS`` of ``ppp fetch`` are ignored, and
    sub-folders not descended. Greyscale (8 and 16 bit), palette, CMYK and transparent pictures
    are converted to RGB, transparency laid over white; a rotation asked for by EXIF is applied;
    of an animation the first frame is used. Pillow's decompression-bomb guard stays on: larger
    pictures are skipped.

    Parameters
    ----------
    path : path-like
        The folder, or the name of a set that ``ppp fetch`` keeps, such as "urban100".
    min_size : int
        Skip pictures of which a side is shorter, in pixels.

    Returns
    -------
    PhotographFolder

    Raises
    ------
    PictureError
        If the folder is missing, is not a folder, cannot be read, is empty, or holds no usable
        picture (with the count of each reason); or if the set has not been fetched.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (60, 40), "red").save(f"{folder}/a.png")
    ...     Image.new("RGB", (60, 40), "red").save(f"{folder}/b.bmp")
    ...     found = folder_photographs(folder)
    >>> found.outcomes[1]
    Outcome(file='b.bmp', outcome='skipped', reason='duplicate: same pixels as a.png')
    >>> found.summary()
    '1 used, 1 skipped (1 duplicate)'
    """
    folder = datasets.located(path)
    shown = repr(str(folder))
    try:
        names = datasets.visible(folder)
    except FileNotFoundError:
        raise PictureError(
            f"no folder {shown}; expected a folder of photographs: check the spelling"
        ) from None
    except NotADirectoryError:
        raise PictureError(
            f"{shown} is a file; expected a folder of photographs: give the folder it is in"
        ) from None
    except OSError as error:
        raise PictureError(
            f"folder {shown} cannot be read: {error.strerror}; make it readable, or copy the "
            "photographs elsewhere"
        ) from None
    if not names:
        raise PictureError(f"folder {shown} is empty; put photographs (PNG, JPEG, ...) in it")

    photos: list[Photograph] = []
    outcomes: list[Outcome] = []
    seen: dict[str, str] = {}
    for name in names:
        file = folder / name
        name = os.fsencode(name).decode("utf-8", "backslashreplace")
        try:
            rgb, changes = _decode(file, min_size)
            photo = _photograph(name, file, rgb, f"folder {folder.name}", name)
            if photo.sha256 in seen:
                raise _Unusable(f"duplicate: same pixels as {seen[photo.sha256]}")
        except _Unusable as why:
            outcomes.append(Outcome(name, "skipped", str(why)))
            continue
        seen[photo.sha256] = name
        photos.append(photo)
        kinds = dict.fromkeys(kind for kind, _ in changes)
        outcomes.append(
            Outcome(name, ", ".join(["used", *kinds]), "; ".join(t for _, t in changes))
        )
    found = PhotographFolder(folder, photos, outcomes)
    if not photos:
        raise PictureError(
            f"no usable picture in {shown}: {found.summary()}; put photographs (PNG, JPEG, ...)"
            + (f" of at least {min_size} px a side" if min_size else "")
            + " in it"
        )
    return found


def photographs(photos: str | os.PathLike[str] = "", min_size: int = 0) -> list[Photograph]:
    """Return the photographs to measure on.

    Parameters
    ----------
    photos : path-like
        A folder of photographs, the name of a fetched set such as "urban100", or "" for those
        of scikit-image.
    min_size : int
        Keep those whose sides both have at least so many pixels.

    Returns
    -------
    list of Photograph
        Never empty, in order of name.

    Raises
    ------
    PictureError
        If none is left, or for the reasons of :func:`folder_photographs`.

    Examples
    --------
    >>> [p.name for p in photographs(min_size=512)]
    ['astronaut', 'hubble_deep_field', 'ihc', 'retina']
    """
    if os.fspath(photos):
        return folder_photographs(photos, min_size=min_size).photos
    usable, too_small = large_enough(scikit_image_photographs(), min_size, min_size)
    if not usable:
        largest = max(min(p.height, p.width) for p in too_small)
        raise PictureError(
            f"min_size={min_size} leaves none of scikit-image's {len(too_small)} photographs; "
            f"expected at most {largest}, or a folder of larger photographs"
        )
    return usable


def sizes(photos: str | os.PathLike[str] = "") -> dict[str, tuple[int, int]]:
    """Return height and width of the photographs, from the heads of their files alone.

    Raises
    ------
    PictureError
        None that can be read, or for the reasons of :func:`folder_photographs`.

    Examples
    --------
    >>> sizes()["chelsea"]
    (300, 451)
    """
    if os.fspath(photos):
        folder = datasets.located(photos)
        paths = {name: folder / name for name in datasets.visible(folder)}
    else:
        folder = Path(str(files("skimage"))) / "data"
        paths = {name: folder / file for name, (file, *_) in _SCIKIT_IMAGE.items()}
    found = {}
    for name, path in paths.items():
        with contextlib.suppress(_Unusable), _opened(path) as picture:
            turned = picture.getexif().get(ExifTags.Base.Orientation, 1) in range(5, 9)
            shown = os.fsencode(name).decode("utf-8", "backslashreplace")
            found[shown] = picture.size if turned else picture.size[::-1]
    if not found:
        raise PictureError(
            f"no usable picture in {str(folder)!r}; put photographs (PNG, JPEG, ...) in it"
        )
    return found


def shown_one(
    photos: Iterable[Photograph], name: str = "", height: int = 0, width: int = 0
) -> Photograph:
    """Return the photograph of a name; without one, coffee or the first that is large enough.

    Parameters
    ----------
    photos : iterable of Photograph
    name : str
    height, width : int
        That it must have at least, px.

    Raises
    ------
    PictureError
        No photograph of this name, or none that is large enough.

    Examples
    --------
    >>> shown_one(scikit_image_photographs()).name
    'coffee'
    >>> shown_one(scikit_image_photographs(), height=1000).name
    'retina'
    >>> shown_one(scikit_image_photographs(), "cofee")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ppp.errors.PictureError: unknown photograph 'cofee'; did you mean 'coffee'? known: ...
    """
    named = {photo.name: photo for photo in photos}
    sizes = {one.name: (one.height, one.width) for one in named.values()}
    return named[name_of_one(sizes, name, height, width)]


def name_of_one(
    sizes: Mapping[str, tuple[int, int]], name: str = "", height: int = 0, width: int = 0
) -> str:
    """Return the name that :func:`shown_one` settles on, by name and size alone."""
    if name and name not in sizes:
        raise PictureError(unknown("photograph", name, sizes))
    fits = [one for one, (h, w) in sizes.items() if h >= height and w >= width]
    for wanted in (name,) if name else ("coffee", *fits):
        if wanted in fits:
            return wanted
    which = "{!r} is {} x {} px".format(name, *sizes[name]) if name else "none fits"
    raise PictureError(
        f"{which}; expected at least {height} x {width} px: take a smaller window or amount, or "
        "another photograph"
    )


def large_enough(
    photos: Iterable[Photograph], height: int, width: int
) -> tuple[list[Photograph], list[Photograph]]:
    """Split photographs into those of at least `height` x `width` pixels and the others.

    Parameters
    ----------
    photos : iterable of Photograph
    height, width : int
        The window with its surroundings, in pixels.

    Returns
    -------
    usable, too_small : list of Photograph
        In the given order.

    Examples
    --------
    >>> usable, too_small = large_enough(scikit_image_photographs(), 480, 640)
    >>> [p.name for p in usable]
    ['hubble_deep_field', 'motorcycle_left', 'retina']
    """
    photos = list(photos)
    fits = [p.height >= height and p.width >= width for p in photos]
    return (
        [p for p, ok in zip(photos, fits) if ok],
        [p for p, ok in zip(photos, fits) if not ok],
    )


def _photograph(name: str, path: Path, rgb: np.ndarray, source: str, caption: str) -> Photograph:
    height, width, _ = rgb.shape
    return Photograph(name, path, height, width, source, caption, _digest(rgb))


def _digest(rgb: np.ndarray) -> str:
    height, width, _ = rgb.shape
    digest = hashlib.sha256(f"{height}x{width}x3 {rgb.dtype.name}\n".encode())
    digest.update(np.ascontiguousarray(rgb.astype(rgb.dtype.newbyteorder("<"), copy=False)))
    return digest.hexdigest()


def _decode(path: Path, min_size: int = 0) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Read RGB pixels (H, W, 3), uint8 or uint16, and what was changed as (kind, text)."""
    with _opened(path) as picture:
        width, height = picture.size
        if min(width, height) < min_size:
            raise _Unusable(f"too small: {width} x {height} px, under {min_size} px a side")
        return _to_rgb(picture)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture; what goes wrong, in the block too, is why it cannot be used."""
    try:
        # Opening a pipe would wait for ever, so look at the kind of file first.
        if path.is_dir():
            raise _Unusable("sub-folder: not descended")
        if path.is_symlink() and not path.exists():
            raise _Unusable("broken link")
        if path.exists() and not path.is_file():
            raise _Unusable("not a regular file")
        if path.stat().st_size == 0:
            raise _Unusable("empty file")
        with warnings.catch_warnings():
            # Between one and two times its limit, Pillow's guard only warns.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(path, formats=FORMATS)
        with picture:
            yield picture
    except _Unusable:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise _Unusable(
            f"too large: over Pillow's guard of {Image.MAX_IMAGE_PIXELS} pixels"
        ) from None
    except FileNotFoundError:
        raise _Unusable("file not found") from None
    except PermissionError:
        raise _Unusable("permission denied") from None
    except UnidentifiedImageError:
        raise _Unusable("not a picture: no PNG, JPEG, TIFF, WebP, BMP or GIF") from None
    # Given damaged bytes, decoders raise almost anything: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        truncated = "truncated" in text or isinstance(error, EOFError)
        raise _Unusable(f"{'truncated' if truncated else 'damaged'}: {text}") from None


def _to_rgb(picture: Image.Image) -> tuple[np.ndarray, list[tuple[str, str]]]:
    changes = []
    mode = picture.mode
    if mode in ("F", "I"):
        raise _Unusable(f"no defined range: {'float' if mode == 'F' else '32-bit integer'} pixels")
    args = picture.tile[0][3] if picture.tile else ""  # gone once the pixels are loaded
    rawmode = args if isinstance(args, str) else str(args[0])
    frames = getattr(picture, "n_frames", 1)
    orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    upright = ImageOps.exif_transpose(picture)

    if mode.startswith("I;16"):
        changes.append(("converted", "16-bit greyscale to RGB, divided by 65535"))
        rgb = np.asarray(upright).astype(np.uint16)[..., None].repeat(3, axis=2)
        tags = getattr(picture, "tag_v2", {})
        if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:
            rgb = 65535 - rgb  # 0 is white; Pillow turns that round at 8 bits only
        if not (rgb % 257).any():  # 8-bit values in a 16-bit file
            rgb = (rgb // 257).astype(np.uint8)
    elif upright.has_transparency_data:
        rgba = np.asarray(upright.convert("RGBA"))
        opacity = rgba[..., 3:] / np.float32(255)
        rgb = np.rint(rgba[..., :3] * opacity + 255 * (1 - opacity)).astype(np.uint8)
        laid = "laid over white" if (opacity < 1).any() else "dropped (all opaque)"
        changes.append(("converted", f"{mode} to RGB, transparency {laid}"))
    else:
        rgb = np.asarray(upright if mode == "RGB" else upright.convert("RGB"))
        if mode != "RGB":
            named = {"L": "greyscale", "1": "black and white", "P": "palette"}.get(mode, mode)
            profile = ", colour profile not applied" if mode == "CMYK" else ""
            changes.append(("converted", f"{named} to RGB{profile}"))
    if ";16" in rawmode and rgb.dtype == np.uint8 and not mode.startswith("I;16"):
        changes.append(("converted", "16-bit colour read at 8 bits"))
    if frames > 1:
        changes.append(("converted", f"first of {frames} frames"))
    if orientation in range(2, 9):
        changes.append(("rotated", f"turned upright by its EXIF orientation {orientation}"))
    return rgb, changes
