"""An unbounded plane of dead leaves: a scene with a colour at every integer coordinate.

A scene [paper, Section 2.1] is an unbounded plane of which a camera sees a window. Here
the plane really is unbounded, so that a network's optimal padding can be the true
surroundings at any width: every window, anywhere, shows the same scene, bit for bit.

The scene is a dead-leaves image [ours]: shapes of one kind, with power-law radii, random
place, rotation, colour and shading, hide each other in an order of random depths. Leaves
are a Poisson process, drawn block by block from a hash of (seed, block, leaf), so the law
is exactly the same at every pixel and no leaf depends on what is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from operator import index
from typing import NamedTuple

import numpy as np
import torch

from ppp.errors import PictureError, unknown

SHAPES = ("disc", "square", "triangle", "star", "cross", "ring", "crescent", "bar")

BLOCK = 64  # px; a power of two, so that hash bits give unbiased positions
_RADII = np.geomspace(6.0, 36.0, 20)  # px, of the disc of equal area
_TURNS = 32  # rotations
_OVERLAP = 3.5  # mean number of leaves above one another; exp(-3.5) = 3 % is background
_PAIRS = 1 << 18  # (leaf, pixel) pairs painted at a time, and
_PIXELS = 1 << 18  # pixels of windows: keeps the scratch arrays small and in cache

_RADIUS_CDF = np.cumsum(_RADII**-2.0) / np.sum(_RADII**-2.0)  # density r^-3 on a log grid
_MEAN_AREA = float(np.diff(_RADIUS_CDF, prepend=0.0) @ (np.pi * _RADII**2))
_RATE = _OVERLAP * BLOCK**2 / _MEAN_AREA  # leaves per block
_COUNT_CDF = np.cumsum(np.exp(-_RATE) * np.cumprod([1.0, *(_RATE / np.arange(1, 400))]))


def render(
    seed: int, shape: str | int, top: int, left: int, height: int, width: int
) -> torch.Tensor:
    """Render one window of a scene. [ours]

    Parameters
    ----------
    seed : int
        Names the scene together with `shape`; any integer.
    shape : str or int
        Shape of every leaf: a name in `SHAPES` or its index.
    top, left : int
        Coordinates of the window's first pixel, px; may be negative.
    height, width : int
        Size of the window, px, at least 1.

    Returns
    -------
    Tensor of shape (3, height, width), float32, in [0, 1].

    Raises
    ------
    PictureError
        Unknown shape, size below 1, or a number that is not whole.

    Examples
    --------
    >>> wide = render(7, "star", -50, -50, 120, 120)
    >>> bool((render(7, "star", -30, -10, 40, 60) == wide[:, 20:60, 40:100]).all())
    True
    """
    arguments = ([seed], [shape], [top], [left])
    return _render(*arguments, height, width)[0]


def render_windows(seeds, shapes, tops, lefts, size: int) -> torch.Tensor:
    """Render many square windows at once, each the same as :func:`render` gives. [ours]

    Parameters
    ----------
    seeds, shapes, tops, lefts : sequences of n
        One entry a window, as in :func:`render`.
    size : int
        Side of the windows, px, at least 1.

    Returns
    -------
    Tensor of shape (n, 3, size, size), float32, in [0, 1].

    Raises
    ------
    PictureError
        As :func:`render`, and for sequences of unequal length.

    Examples
    --------
    >>> windows = render_windows([1, 2], ["disc", 4], [0, -9], [5, 5], 24)
    >>> bool((windows[1] == render(2, "cross", -9, 5, 24, 24)).all())
    True
    """
    return _render(seeds, shapes, tops, lefts, size, size)


@dataclass(frozen=True)
class Scene:
    """A part of a scene that :func:`ppp.cut_windows` can cut windows from. [ours]

    Attributes
    ----------
    seed, shape, top, left, height, width
        As in :func:`render`.

    Examples
    --------
    >>> Scene(3, "ring", 0, 0, 64, 96).pixels().shape
    torch.Size([3, 64, 96])
    """

    seed: int
    shape: str
    top: int
    left: int
    height: int
    width: int

    @property
    def name(self) -> str:
        """Shape and seed: pictures of one scene are one unit of resampling."""
        return f"{self.shape}-{self.seed}"

    def pixels(self) -> torch.Tensor:
        """Render it, (3, height, width) in [0, 1]; nothing is kept."""
        return render(self.seed, self.shape, self.top, self.left, self.height, self.width)


def scenes(n: int, height: int, width: int, *, seed: int) -> list[Scene]:
    """Return `n` independent scenes that take the shapes in turn. [ours]

    Parameters
    ----------
    n : int
    height, width : int
        Pixels of each.
    seed : int
        Scenes are ``seed, seed + 1, ...``.

    Examples
    --------
    >>> [scene.name for scene in scenes(2, 8, 8, seed=5)]
    ['disc-5', 'square-6']
    """
    return [Scene(seed + i, SHAPES[i % len(SHAPES)], 0, 0, height, width) for i in range(n)]


# ---------------------------------------------------------------------------- painting


def _render(seeds, shapes, tops, lefts, height: int, width: int) -> torch.Tensor:
    try:
        height, width = index(height), index(width)
        seeds, tops, lefts = (
            np.array([index(v) for v in column], np.int64) for column in (seeds, tops, lefts)
        )
    except (TypeError, OverflowError) as error:
        raise PictureError(
            f"seeds, coordinates and sizes must be whole 64-bit numbers ({error})"
        ) from None
    kinds = np.array([_shape_index(shape) for shape in shapes], np.int64)
    if min(height, width) < 1:
        raise PictureError(f"window of {height} x {width} px; both sides must be at least 1 px")
    if not len(seeds) == len(kinds) == len(tops) == len(lefts):
        raise PictureError(
            f"{len(seeds)} seeds, {len(kinds)} shapes, {len(tops)} tops and {len(lefts)} lefts; "
            "give one of each per window"
        )
    windows = np.empty((len(seeds), 3, height, width), np.float32)
    together = max(1, _PIXELS // (height * width))
    for kind in np.unique(kinds):
        same = np.flatnonzero(kinds == kind)
        for rows in np.split(same, range(together, len(same), together)):
            # One pixel more on every side than is asked for, for the blur.
            corners = seeds[rows], tops[rows] - 1, lefts[rows] - 1
            windows[rows] = _blur(_paint(kind, *corners, height + 2, width + 2))
    return torch.from_numpy(windows)


def _blur(sharp: np.ndarray) -> np.ndarray:
    """Give leaves a camera's soft edges: a 3 x 3 binomial filter, valid part only."""
    rows = sharp[..., :-2, :] + 2 * sharp[..., 1:-1, :] + sharp[..., 2:, :]
    return (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) * np.float32(1 / 16)


def _paint(kind: int, seeds, tops, lefts, height: int, width: int) -> np.ndarray:
    """Sharp pixels, (n, 3, height, width), of n windows on scenes of one shape."""
    stencils = _stencils(kind)
    leaves = _leaves(kind, seeds, tops, lefts, height, width, stencils.reach)
    owner = np.zeros(len(seeds) * height * width, np.int32)  # 0: nothing there yet
    counts = stencils.starts[leaves.stencil + 1] - stencils.starts[leaves.stencil]
    ends = np.cumsum(counts)
    splits = np.searchsorted(ends, np.arange(_PAIRS, ends[-1] if len(ends) else 0, _PAIRS))
    for part in np.split(np.arange(len(counts)), np.unique(splits)):
        if not len(part):
            continue
        n = counts[part]
        leaf = np.repeat(part.astype(np.int32), n)
        place = np.repeat(stencils.starts[leaves.stencil[part]] - (np.cumsum(n) - n), n)
        place += np.arange(len(place))
        y = stencils.dy[place] + np.repeat((leaves.y[part] - tops[leaves.window[part]]), n)
        x = stencils.dx[place] + np.repeat((leaves.x[part] - lefts[leaves.window[part]]), n)
        flat = (np.repeat(leaves.window[part] * height, n) + y) * width + x
        seen = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        # Leaves come deepest first, and a repeated index keeps the last value assigned.
        owner[flat[seen]] = leaf[seen] + 1
    return _shade(owner.reshape(len(seeds), height, width), leaves, kind, seeds, tops, lefts)


def _shade(owner, leaves, kind: int, seeds, tops, lefts) -> np.ndarray:
    """Colour every pixel from the one leaf that it shows."""
    n, height, width = owner.shape
    ground = _colour(_hash(_scene(seeds, kind), np.uint64(3)))  # (n, 3), one a scene
    covered = owner > 0
    leaf = owner - 1
    if not len(leaves.y):
        return np.broadcast_to(ground[:, :, None, None], (n, 3, height, width))
    # Offsets are whole numbers from the leaf's own centre: they do not know the window.
    centre_y = (leaves.y - tops[leaves.window]).astype(np.float32)
    centre_x = (leaves.x - lefts[leaves.window]).astype(np.float32)
    dy = np.arange(height, dtype=np.float32)[:, None] - centre_y[leaf]
    dx = np.arange(width, dtype=np.float32) - centre_x[leaf]
    shade = dy * leaves.slope_y[leaf] + dx * leaves.slope_x[leaf]
    pixels = np.empty((n, 3, height, width), np.float32)
    for channel in range(3):
        level = leaves.colour[:, channel][leaf] + shade
        pixels[:, channel] = np.where(covered, level, ground[:, channel, None, None])
    return np.clip(pixels, 0, 1, out=pixels)


# ------------------------------------------------------------------------------ leaves


class _Leaves(NamedTuple):
    """Leaves near the windows, deepest first; places in plane coordinates, px."""

    window: np.ndarray
    y: np.ndarray
    x: np.ndarray
    stencil: np.ndarray
    colour: np.ndarray  # (leaves, 3)
    slope_y: np.ndarray  # change of level per px
    slope_x: np.ndarray


def _leaves(kind: int, seeds, tops, lefts, height: int, width: int, reach: np.ndarray) -> _Leaves:
    margin = int(reach.max())
    first_y, first_x = (tops - margin) // BLOCK, (lefts - margin) // BLOCK
    rows = np.arange((height + 2 * margin) // BLOCK + 2)
    columns = np.arange((width + 2 * margin) // BLOCK + 2)
    shape = (len(seeds), len(rows), len(columns))
    block_y = np.broadcast_to((first_y[:, None] + rows)[:, :, None], shape).ravel()
    block_x = np.broadcast_to((first_x[:, None] + columns)[:, None, :], shape).ravel()
    window = np.repeat(np.arange(len(seeds)), len(rows) * len(columns))
    block = _hash(_hash(_scene(seeds, kind)[window], block_y), block_x)

    count = np.searchsorted(_COUNT_CDF, _uniform(block), side="right")
    which = np.repeat(np.arange(len(block)), count)
    number = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    leaf = _hash(block[which], number + 1)
    window = window[which]

    place = _hash(leaf, np.uint64(0))
    y = block_y[which] * BLOCK + (place % BLOCK).astype(np.int64)
    x = block_x[which] * BLOCK + (place // BLOCK % BLOCK).astype(np.int64)
    turn = (place >> np.uint64(12)) % np.uint64(_TURNS)
    radius = np.searchsorted(_RADIUS_CDF[:-1], _uniform(_hash(leaf, np.uint64(1))), side="right")
    stencil = radius * _TURNS + turn.astype(np.int64)

    near = reach[stencil]
    y0, x0 = tops[window], lefts[window]
    seen = (y + near >= y0) & (y - near < y0 + height) & (x + near >= x0) & (x - near < x0 + width)
    keep = np.flatnonzero(seen)
    keep = keep[np.argsort(_hash(leaf[keep], np.uint64(2)), kind="stable")]  # random depth

    tint = _hash(leaf[keep], np.uint64(3))
    slope = np.stack([_uniform(_hash(leaf[keep], np.uint64(f))) - 0.5 for f in (4, 5)])
    slope = (0.5 * slope / _RADII[radius[keep]]).astype(np.float32)
    return _Leaves(window[keep], y[keep], x[keep], stencil[keep], _colour(tint), *slope)


def _colour(bits: np.ndarray) -> np.ndarray:
    """Colours, (n, 3), float32: one lightness, with a weaker tint in each channel."""
    pieces = [(bits >> np.uint64(16 * k)) % np.uint64(1 << 16) for k in range(4)]
    lightness, *tint = (piece.astype(np.float32) / np.float32(1 << 16) for piece in pieces)
    return np.stack([0.1 + 0.8 * lightness + 0.4 * (t - 0.5) for t in tint], axis=1)


def _scene(seeds: np.ndarray, kind: int) -> np.ndarray:
    return _hash(_hash(np.zeros(len(seeds), np.uint64), seeds), np.int64(kind))


def _hash(state: np.ndarray, value: np.ndarray | np.integer) -> np.ndarray:
    """Mix `value` into 64-bit `state`: the finaliser of SplitMix64 over a Weyl step."""
    with np.errstate(over="ignore"):
        value = np.asarray(value).astype(np.uint64)
        h = (state ^ (value * np.uint64(0xD1342543DE82EF95))) + np.uint64(0x9E3779B97F4A7C15)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return h ^ (h >> np.uint64(31))


def _uniform(bits: np.ndarray) -> np.ndarray:
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


# -------------------------------------------------------------------------------- shapes


class _Stencils(NamedTuple):
    """The pixels of one shape at every radius and rotation, end to end."""

    starts: np.ndarray  # (radii * turns + 1,), stencil s is dy[starts[s]:starts[s + 1]]
    dy: np.ndarray
    dx: np.ndarray
    reach: np.ndarray  # (radii * turns,), farthest offset, px


@lru_cache(maxsize=len(SHAPES))
def _stencils(kind: int) -> _Stencils:
    inside = _INSIDE[SHAPES[kind]]
    fine = np.linspace(-1, 1, 801)
    area = 4.0 * inside(fine[:, None], fine[None]).mean()
    turn = 2 * np.pi * np.arange(_TURNS)[:, None, None] / _TURNS
    # Rounded, so that the last bit of another machine's cosine moves no pixel.
    cos, sin = np.cos(turn).round(9), np.sin(turn).round(9)
    dy, dx, size, reach = [], [], [], []
    for radius in _RADII:
        outer = radius * np.sqrt(np.pi / area)  # all shapes have the area of the disc
        offset = np.arange(-np.ceil(outer), np.ceil(outer) + 1)
        y, x = offset[:, None] / outer, offset / outer
        which, i, j = np.nonzero(inside(sin * x + cos * y, cos * x - sin * y))
        dy.append(offset[i].astype(np.int16))
        dx.append(offset[j].astype(np.int16))
        size.append(np.bincount(which, minlength=_TURNS))
        reach.append(np.full(_TURNS, int(np.ceil(outer))))
    starts = np.concatenate([[0], np.cumsum(np.concatenate(size))])
    return _Stencils(starts, np.concatenate(dy), np.concatenate(dx), np.concatenate(reach))


def _half_planes(y, x, sides: int) -> np.ndarray:
    """Signed distances to the sides of a regular polygon of inradius 0, stacked."""
    angles = 2 * np.pi * np.arange(sides) / sides
    return np.stack([np.cos(a).round(9) * x + np.sin(a).round(9) * y for a in angles])


# Each lies inside the unit circle, and touches it.
_INSIDE = {
    "disc": lambda y, x: y**2 + x**2 <= 1,
    "square": lambda y, x: np.maximum(abs(y), abs(x)) <= 0.5**0.5,
    "triangle": lambda y, x: _half_planes(y, x, 3).max(0) <= 0.5,
    # A pentagram: inside at least four of five half-planes.
    "star": lambda y, x: (_half_planes(y, x, 5) <= 0.309017).sum(0) >= 4,
    "cross": lambda y, x: (np.minimum(abs(y), abs(x)) <= 0.3) & (np.maximum(abs(y), abs(x)) < 0.95),
    "ring": lambda y, x: (y**2 + x**2 <= 1) & (y**2 + x**2 >= 0.36),
    "crescent": lambda y, x: (y**2 + x**2 <= 1) & ((y - 0.5) ** 2 + x**2 >= 0.64),
    "bar": lambda y, x: (abs(y) <= 0.24) & (abs(x) <= 0.97),
}


def _shape_index(shape: str | int) -> int:
    if isinstance(shape, str):
        if shape not in SHAPES:
            raise PictureError(unknown("leaf shape", shape, SHAPES))
        return SHAPES.index(shape)
    try:
        kind = index(shape)
    except TypeError:
        raise PictureError(unknown("leaf shape", shape, SHAPES)) from None
    if not 0 <= kind < len(SHAPES):
        raise PictureError(f"leaf shape {kind}; give 0 to {len(SHAPES) - 1}, or a name in SHAPES")
    return kind
