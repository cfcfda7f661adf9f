"""How wrong padding's guess of the surroundings is, in pixels and in features. [ours]"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ppp.errors import MarginError, PictureError
from ppp.extraction import extract, gather
from ppp.influence import Coverage
from ppp.padding import pad
from ppp.windows import Source


def guess_error(
    pictures: Iterable[Source],
    schemes: Sequence[str],
    *,
    size: int,
    amount: int,
    per_picture: int,
    seed: int,
) -> pd.DataFrame:
    """Compare padded pixels with the true ones, by distance from the border.

    Parameters
    ----------
    pictures : iterable of Source
        Photographs or scenes; those too small for a window and its surroundings are refused.
    schemes : sequence of str
    size, amount : int
        Window and padding (px).
    per_picture : int
        Windows at random places of each picture.
    seed : int

    Returns
    -------
    DataFrame
        Columns picture, scheme, distance (px, 1 is next to the border) and error: the mean
        absolute difference in units of the standard deviation of the picture's pixels.

    Examples
    --------
    >>> from studies.pictures.plane import scenes
    >>> frame = guess_error(scenes(1, 64, 64, seed=0), ["zeros"], size=32, amount=2,
    ...                     per_picture=2, seed=0)
    >>> list(frame["distance"])
    [1, 2]
    """
    span, generator = size + 2 * amount, torch.Generator().manual_seed(seed)
    index = np.arange(span)
    depth = np.maximum(amount - index, index - (amount + size - 1))
    distance = torch.from_numpy(np.maximum.outer(depth, depth))
    rows = []
    for number, picture in enumerate(pictures):
        if min(picture.height, picture.width) < span:
            raise PictureError(
                f"picture {picture.name!r} is {picture.height} x {picture.width} px; a window of "
                f"{size} px with {amount} px around it needs {span} x {span}"
            )
        pixels = picture.pixels()
        pixels = (pixels - pixels.mean((1, 2), keepdim=True)) / pixels.std()
        draw = np.random.default_rng([seed, number])
        tops = draw.integers(0, picture.height - span + 1, per_picture)
        lefts = draw.integers(0, picture.width - span + 1, per_picture)
        truth = gather(pixels, tops, lefts, (span, span))
        inner = truth[:, :, amount : amount + size, amount : amount + size]
        for scheme in schemes:
            error = (pad(inner, amount, scheme, generator=generator) - truth).abs().mean((0, 1))
            for d in range(1, amount + 1):
                at = float(error[distance == d].mean())
                rows.append({"picture": picture.name, "scheme": scheme, "distance": d, "error": at})
    return pd.DataFrame(rows)


def width_error(
    model: nn.Module,
    coverage: Coverage,
    picture: Tensor,
    top: int,
    left: int,
    widths: Sequence[int],
) -> pd.DataFrame:
    """Compare features under ever wider true surroundings with the optimal ones.

    Parameters
    ----------
    model : nn.Module
    coverage : Coverage
        Of the layers to compare, at the window's size.
    picture : Tensor, shape (C, H, W)
        As the network wants it, with at least the margin around the window.
    top, left : int
        Place of the window, multiples of the stride (px).
    widths : sequence of int
        Surroundings kept on all four sides, multiples of the stride (px).

    Returns
    -------
    DataFrame
        Columns layer, width (px), error: largest |difference| in units of the standard
        deviation of the layer's optimal features; 0 up to rounding from the margin on.
    """
    layers = list(coverage)
    size = coverage.input_size

    def features(around: int) -> dict[str, Tensor]:
        rows = slice(top - around, top + size[0] + around)
        columns = slice(left - around, left + size[1] + around)
        if rows.start < 0 or columns.start < 0:
            raise MarginError(f"the picture has less than {around} px around the window")
        maps = extract(model, picture[None, :, rows, columns], layers)
        cut = {}
        for layer, reach in coverage.items():
            first = [around // stride for stride in reach.stride]
            height, width = reach.influence.shape
            cut[layer] = maps[layer][
                0, :, first[0] : first[0] + height, first[1] : first[1] + width
            ]
        return cut

    stride = max(coverage.stride)
    truth = features(-(-max(coverage.margin) // stride) * stride)
    rows = []
    for width in widths:
        for layer, map_ in features(width).items():
            error = float((map_ - truth[layer]).abs().max() / truth[layer].std())
            rows.append({"layer": layer, "width": width, "error": error})
    return pd.DataFrame(rows)
