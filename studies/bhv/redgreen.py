"""The Red-Green images of the border-handling-variants test, every factor a parameter.

Two blocks stand on a canvas. In class 0 the left one is red and the right one green, in class
1 the other way round. In the training layout class 0 lies in the upper part of the canvas
and class 1 in the lower, so a network may tell the classes by where the blocks are. Images
whose blocks are moved into the other class's rows show whether it does (Kayhan & van Gemert,
CVPR 2020, and its published code).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ppp.errors import ParameterError, unknown
from studies.parameters import TEXTURES, check_whole
from studies.pictures.photographs import photographs

PUBLISHED_SEED = 1988
"""From which the published code draws the training, the validation and the test images."""
PUBLISHED_SHIFT = 16
"""Rows by which it moves the blocks of the dissimilar images."""

_REDUCTION = 4  # photographs are reduced so many times, so that 32 px show some of their content


@dataclass(frozen=True)
class RedGreen:
    """What determines the images, up to the seeds of places and textures.

    Attributes
    ----------
    canvas : float or {"noise", "photograph"}
        Value of all three channels, 0 to 1; or a texture, different in every image: values drawn
        evenly from [0, 1], or a piece of a photograph at a quarter of its size [ours].
    size : int
        Height and width, px.
    block : int
        Height and width of a block, px.
    jitter : int
        A block's first row is drawn from `jitter` rows above its class's row to ``jitter - 1``
        below it; at least 1. The published code says 28 / 6 and cuts the fraction off.

    Raises
    ------
    ParameterError
        An unknown canvas, or blocks that do not fit.

    Examples
    --------
    >>> images, labels = RedGreen().images(4, seed=1988)
    >>> images.shape, labels.tolist()
    (torch.Size([4, 3, 32, 32]), [0, 1, 0, 1])
    """

    canvas: float | str = 0.0
    size: int = 32
    block: int = 4
    jitter: int = 4

    def __post_init__(self) -> None:
        if isinstance(self.canvas, str):
            if self.canvas not in TEXTURES:
                raise ParameterError(unknown("canvas", self.canvas, TEXTURES))
        elif not (type(self.canvas) in (int, float) and 0 <= self.canvas <= 1):
            names = " or ".join(map(repr, TEXTURES))
            raise ParameterError(f"canvas {self.canvas!r}; expected a value from 0 to 1, {names}")
        for name in ("size", "block", "jitter"):
            check_whole(name, getattr(self, name), 1)
        upper, lower = self.rows
        above, below = upper - self.jitter, self.size - self.block - (lower + self.jitter - 1)
        if min(above, below, self.largest_shift, self._columns - 1, self.apart - 1) < 0:
            raise ParameterError(
                f"blocks of {self.block} px, jittered by {self.jitter} rows, do not fit a canvas "
                f"of {self.size} px; give smaller blocks, less jitter or a larger canvas"
            )

    @property
    def rows(self) -> tuple[int, int]:
        """Row around which a block begins, class 0 and class 1, px from the top."""
        return 7, self.size - 9

    @property
    def apart(self) -> int:
        """Rows between the two classes, by which the published test moves the blocks."""
        return self.rows[1] - self.rows[0]

    @property
    def largest_shift(self) -> int:
        """Rows by which all blocks can move towards the other class and stay on the canvas."""
        upper, lower = self.rows
        return min(lower - self.jitter, self.size - self.block - (upper + self.jitter - 1))

    @property
    def _columns(self) -> int:
        return (self.size - self.block) // 2 - self.block

    def check_shift(self, shift: int) -> None:
        """Refuse a shift that takes blocks off the canvas.

        Examples
        --------
        >>> RedGreen().check_shift(19)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ppp.errors.ParameterError: shift 19 moves blocks off the canvas of 32 px; at most 18 ...
        """
        if type(shift) is not int or not 0 <= shift <= self.largest_shift:
            raise ParameterError(
                f"shift {shift!r} moves blocks off the canvas of {self.size} px; at most "
                f"{self.largest_shift} rows are possible, and none is 0"
            )

    def places(self, n: int, seed: int) -> np.ndarray:
        """Draw the places of `n` images' blocks, as the published code draws them.

        The same seed gives the same places, whatever `n`: the first ones of a larger set.

        Returns
        -------
        ndarray of int, shape (n, 4)
            Column and row of the left block's corner, column and row of the right block's, px.
            Even images are of class 0, odd ones of class 1.

        Examples
        --------
        >>> bool((RedGreen().places(2, 1988) == RedGreen().places(9, 1988)[:2]).all())
        True
        """
        draw = np.random.RandomState(seed).randint  # the legacy stream, which NumPy keeps
        last = self.size - self.block
        corners = np.empty((n, 4), dtype=np.int64)
        for image in range(n):  # rejections make the number of draws vary
            row = self.rows[image % 2]
            left, top = draw(self._columns), row + draw(-self.jitter, self.jitter)
            while True:
                right, second = draw(left, last), row + draw(-self.jitter, self.jitter)
                if right > left + self.block:
                    break
            corners[image] = left, top, right, second
        return corners

    def images(
        self, n: int, seed: int, shift: int = 0, surroundings: tuple[int, int] = (0, 0)
    ) -> tuple[Tensor, Tensor]:
        """Draw `n` images and their labels.

        Parameters
        ----------
        n : int
            At least 1.
        seed : int
            0 to 2**32 - 1, of the places and the texture.
        shift : int
            Rows by which the blocks are moved into the other class's part: down in class 0,
            up in class 1. The canvas stays.
        surroundings : (before, after)
            Canvas to add on the left and top, and on the right and bottom, px.

        Returns
        -------
        images : Tensor of shape (n, 3, S, S), float32, in [0, 1], channels last in memory
            S is the size and the surroundings.
        labels : Tensor of shape (n,), int64

        Raises
        ------
        ParameterError
            A shift that takes blocks off the canvas, or a number out of range.
        """
        self.check_shift(shift)
        check_whole("n", n, 1)
        check_whole("seed", seed, 0, 2**32 - 1)
        for side in surroundings:
            check_whole("surroundings", side, 0)
        places, labels = self.places(n, seed), torch.arange(n) % 2
        before, after = surroundings
        side = before + self.size + after
        places[:, 1::2] += np.where(np.arange(n) % 2, -shift, shift)[:, None]
        places += before
        images = self._canvases(n, seed, side)
        along = torch.arange(side)
        for block, colour in ((0, labels), (1, 1 - labels)):
            corner = torch.from_numpy(places[:, 2 * block : 2 * block + 2])[:, :, None]
            inside = (along >= corner) & (along < corner + self.block)
            mask = inside[:, None, 1, :, None] & inside[:, None, 0, None, :]
            paint = F.one_hot(colour, 3).float()[:, :, None, None]
            images = torch.where(mask, paint, images)
        return images.contiguous(memory_format=torch.channels_last), labels

    def _canvases(self, n: int, seed: int, side: int) -> Tensor:
        if self.canvas == "noise":
            draw = np.random.default_rng([seed, side])
            return torch.from_numpy(draw.random((n, 3, side, side), dtype=np.float32))
        if self.canvas == "photograph":
            return _pieces(n, seed, side)
        return torch.full((n, 3, side, side), float(self.canvas))


PUBLISHED_IMAGES = RedGreen()
"""The published canvas and blocks."""


def _pieces(n: int, seed: int, side: int) -> Tensor:
    """Cut pieces of the photographs, at random, the same first ones for every `n`."""
    photos = _reduced()
    draws = np.random.default_rng([seed, side]).random((n, 3))
    which = (draws[:, 0] * len(photos)).astype(int)
    images = torch.empty(n, 3, side, side)
    along = np.arange(side)
    for index, photo in enumerate(photos):
        chosen = np.flatnonzero(which == index)
        room = np.array(photo.shape[1:]) - side + 1
        if min(room) < 1:
            raise ParameterError(
                f"a canvas of {side} px is larger than photograph {index} at a quarter of its "
                f"size, {photo.shape[1]} x {photo.shape[2]} px; give a smaller canvas"
            )
        tops, lefts = (draws[chosen, 1:] * room).astype(int).T
        rows, columns = (torch.from_numpy(first[:, None] + along) for first in (tops, lefts))
        pieces = photo[:, rows[:, :, None], columns[:, None, :]]
        images[torch.from_numpy(chosen)] = pieces.transpose(0, 1)
    return images


@lru_cache(maxsize=1)
def _reduced() -> list[Tensor]:
    """Return scikit-image's photographs, reduced by averaging."""
    return [F.avg_pool2d(photo.pixels(), _REDUCTION) for photo in photographs()]


def share_in(first: np.ndarray, second: np.ndarray) -> float:
    """Return the share of the places in `first` that also occur in `second`, class by class.

    Examples
    --------
    >>> share_in(RedGreen().places(100, 1988), RedGreen().places(200, 1988))
    1.0
    """
    sought, known = (
        [(i % 2, *place) for i, place in enumerate(places.tolist())] for places in (first, second)
    )
    return sum(map(set(known).__contains__, sought)) / len(first)
