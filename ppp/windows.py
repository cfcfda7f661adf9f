"""Windows of larger pictures: what the network sees, with true surroundings around it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from torch import Tensor

from ppp.certificate import Coverage
from ppp.errors import MarginError, PictureError
from ppp.inventory import input_shape
from ppp.pictures import as_pixels, named

if TYPE_CHECKING:
    from ppp.pictures import AnyPicture


class Source(Protocol):
    """Anything that windows can be cut from, such as a photograph read on demand."""

    name: str
    height: int
    width: int

    def pixels(self) -> Tensor:
        """Return the picture, (C, H, W)."""


@dataclass(frozen=True)
class Picture:
    """A picture and the offsets of the windows that lie in it.

    Attributes
    ----------
    name : str
        The unit of resampling: windows of one picture are correlated.
    pixels : Tensor, shape (C, H, W)
        As the network wants them (already normalised).
    tops, lefts : ndarray of int, shape (n,)
        Offsets of the windows' upper left corners (px).
    """

    name: str
    pixels: Tensor
    tops: np.ndarray
    lefts: np.ndarray


class Windows:
    """Windows of one size, picture by picture; pictures are made when they are asked for.

    Parameters
    ----------
    pictures : sequence of Picture, or callable returning an iterator of Picture
        A callable is called anew for every pass, so that only one picture is in memory.
    size : int or (height, width)
        Window size (px).
    n : int, optional
        Number of windows; counted from `pictures` if that is a sequence.

    Examples
    --------
    >>> import numpy as np, torch
    >>> picture = Picture("noise", torch.rand(3, 64, 64), np.array([8, 16]), np.array([8, 24]))
    >>> len(Windows([picture], 32))
    2
    """

    def __init__(
        self, pictures: Sequence[Picture] | Callable[[], Iterable[Picture]],
        size: int | tuple[int, int], n: int | None = None,
    ) -> None:  # fmt: skip
        self.size = input_shape(size)
        self._pictures = pictures
        self._n = n if callable(pictures) else sum(len(p.tops) for p in pictures)

    def __iter__(self) -> Iterator[Picture]:
        return iter(self._pictures() if callable(self._pictures) else self._pictures)

    def __len__(self) -> int:
        if self._n is None:
            raise TypeError("the number of these windows is not known")
        return self._n

    def __repr__(self) -> str:
        return f"Windows({self._n or 'a number'} of {self.size[0]} x {self.size[1]} px)"


def size_needed(size: int | tuple[int, int], coverage: Coverage) -> tuple[int, int]:
    """Return the smallest picture (height, width) that holds one window with its surroundings.

    Examples
    --------
    >>> import torch, ppp
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1)).eval()
    >>> size_needed(16, ppp.coverage(net, ["0"], 16))
    (18, 18)
    """
    tail, margin = _tail(input_shape(size), coverage), coverage.margin
    height, width = (
        _up(_up(margin[2 - 2 * axis], stride) + tail[axis] + margin[3 - 2 * axis], stride)
        for axis, stride in enumerate(coverage.stride)
    )
    return height, width


def cut_windows(
    pictures: AnyPicture | Source | Iterable[AnyPicture | Source]
    | Mapping[str, AnyPicture | Source],
    size: int | tuple[int, int],
    coverage: Coverage, *, per_picture: int, seed: int,
    transform: Callable[[Tensor], Tensor] | None = None, interleave: bool = False,
) -> Windows:  # fmt: skip
    """Choose aligned windows with wide enough surroundings, at random, in every picture.

    Parameters
    ----------
    pictures : mapping of name to picture, iterable of pictures, or one of them
        Tensors (C, H, W), arrays (height, width, channels), images of Pillow, paths of files
        (:func:`ppp.pictures.as_pixels`), a batch of any of them, or a :class:`Source`.
    size : int or (height, width)
        Window size (px).
    coverage : Coverage
        Of the network and the layers that will be measured: margins and stride.
    per_picture : int
        Windows per picture; fewer where a picture has fewer aligned positions. Windows
        of a picture differ but may overlap.
    seed : int
    transform : callable, optional
        Applied to a picture's pixels when it is read, such as the network's normalisation.
    interleave : bool
        Visit the pictures in rounds of 1, 1, 2, 4, ... windows each, so that the first n
        windows come from all of them: for estimates at growing n. Costs one optimal pass
        per picture and round.

    Returns
    -------
    Windows

    Raises
    ------
    MarginError
        A picture too small for one window with its surroundings; says the size needed.

    Examples
    --------
    >>> import torch, ppp
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1)).eval()
    >>> reach = ppp.coverage(net, ["0"], 16)
    >>> len(cut_windows({"noise": torch.rand(3, 40, 40)}, 16, reach, per_picture=5, seed=0))
    5
    """
    shape = input_shape(size)
    tail = _tail(shape, coverage)
    pairs = pictures.items() if isinstance(pictures, Mapping) else named(pictures)
    if per_picture < 1:
        raise PictureError(f"per_picture is {per_picture}; expected at least one window")
    left, right, top, bottom = coverage.margin
    stride = coverage.stride
    chosen: list[tuple[Source, np.ndarray, np.ndarray]] = []
    for index, (name, picture) in enumerate(pairs):
        source = picture if callable(getattr(picture, "pixels", None)) else _scene(name, picture)
        rows = _offsets(source.height, tail[0], top, bottom, stride[0])
        columns = _offsets(source.width, tail[1], left, right, stride[1])
        if not (len(rows) and len(columns)):
            need = size_needed(shape, coverage)
            raise MarginError(
                f"picture {source.name!r} is {source.height} x {source.width} px; a window of "
                f"{shape[0]} x {shape[1]} with its surroundings needs {need[0]} x {need[1]}"
            )
        draw = np.random.default_rng([seed, index])
        positions = len(rows) * len(columns)
        places = draw.choice(positions, size=min(per_picture, positions), replace=False)
        chosen.append((source, rows[places // len(columns)], columns[places % len(columns)]))
    if not chosen:
        raise PictureError("no picture to cut windows from")

    most = max(len(tops) for _, tops, _ in chosen)
    bounds = [0, *(2**k for k in range(most.bit_length()) if 2**k < most), most]
    rounds = list(itertools.pairwise(bounds)) if interleave else [(0, most)]

    def read() -> Iterator[Picture]:
        for start, stop in rounds:
            for source, tops, lefts in chosen:
                if start < len(tops):
                    pixels = source.pixels()
                    pixels = transform(pixels) if transform else pixels
                    yield Picture(source.name, pixels, tops[start:stop], lefts[start:stop])

    return Windows(read, shape, sum(len(tops) for _, tops, _ in chosen))


def _scene(name: str, picture: AnyPicture) -> Source:
    height, width = as_pixels(picture, f"picture {name!r}").shape[1:]
    pixels = partial(as_pixels, picture, f"picture {name!r}")
    return SimpleNamespace(name=name, height=height, width=width, pixels=pixels)


def _tail(shape: tuple[int, int], coverage: Coverage) -> tuple[int, int]:
    """Return the pixels that a window's cells stand for, which may be more than its own."""
    return coverage.tail if shape == coverage.input_size else shape


def _up(pixels: int, stride: int) -> int:
    """Return the first multiple of a stride that is no less."""
    return -(-pixels // stride) * stride


def _offsets(size: int, window: int, before: int, after: int, stride: int) -> np.ndarray:
    return np.arange(_up(before, stride), size - size % stride - after - window + 1, stride)
