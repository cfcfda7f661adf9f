"""Pictures of any usual type, as the tensors that networks read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ppp.errors import PictureError, first_words, shown

if TYPE_CHECKING:
    from PIL.Image import Image

    AnyPicture: TypeAlias = Tensor | np.ndarray | str | Path | Image


def as_pixels(picture: AnyPicture, name: str = "picture") -> Tensor:
    """Return a picture as a tensor (C, H, W).

    Parameters
    ----------
    picture : Tensor, ndarray, PIL image, str or Path
        A tensor (C, H, W); an array (height, width, channels) or (height, width); an image of
        Pillow, or the path of one, which are read as RGB. Floating-point numbers are taken as they
        are, whole ones of 8 bits are divided by 255.
    name : str
        For messages.

    Raises
    ------
    PictureError
        Anything else.

    Examples
    --------
    >>> as_pixels(np.full((2, 4, 3), 255, dtype=np.uint8)).shape
    torch.Size([3, 2, 4])
    """
    if isinstance(picture, str | Path) or hasattr(picture, "convert"):
        from PIL import Image as pillow, ImageOps  # comes with torchvision

        try:
            image = pillow.open(picture) if isinstance(picture, str | Path) else picture
            picture = np.array(ImageOps.exif_transpose(image).convert("RGB"))
        except (OSError, ValueError, pillow.DecompressionBombError) as error:
            raise PictureError(f"{name} cannot be read: {first_words(error)}") from None
    if isinstance(picture, np.ndarray) and picture.ndim in (2, 3):
        channels_last = np.atleast_3d(picture)
        picture = torch.from_numpy(np.ascontiguousarray(channels_last)).permute(2, 0, 1)
    if not isinstance(picture, Tensor) or picture.ndim != 3:
        got = (
            f"of shape {tuple(picture.shape)}" if hasattr(picture, "shape") else shown(picture, 60)
        )
        raise PictureError(
            f"{name} is {got}; expected a tensor (C, H, W), an array (height, width, channels), a "
            "PIL image, or the path of one"
        )
    return picture / 255 if picture.dtype == torch.uint8 else picture


def as_batch(pictures: AnyPicture | Sequence[AnyPicture]) -> Tensor:
    """Return one picture, several of one size, or a batch (N, C, H, W), as a batch.

    Examples
    --------
    >>> as_batch([torch.zeros(3, 4, 5), np.zeros((4, 5, 3), dtype=np.float32)]).shape
    torch.Size([2, 3, 4, 5])
    """
    if isinstance(pictures, Tensor) and pictures.ndim == 4:
        return pictures
    several = isinstance(pictures, list | tuple) or getattr(pictures, "ndim", 3) == 4
    found = [as_pixels(p) for p in (pictures if several else [pictures])]
    if len({picture.shape for picture in found}) != 1:
        sizes = ", ".join(str(tuple(picture.shape)) for picture in found[:3]) or "none"
        raise PictureError(f"pictures of one batch must have one size, got {sizes}")
    return torch.stack(found)


def named(pictures: AnyPicture | Iterable[object]) -> Iterable[tuple[str, object]]:
    """Yield pictures with their names: of files, or their places."""
    one = isinstance(pictures, str | Path) or getattr(pictures, "ndim", 4) < 4
    if not isinstance(pictures, Iterable):
        one = True
    for place, picture in enumerate([pictures] if one else pictures):
        path = Path(picture).name if isinstance(picture, str | Path) else ""
        yield getattr(picture, "name", "") or path or f"picture {place}", picture
