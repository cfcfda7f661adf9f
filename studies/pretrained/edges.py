"""What padding does to the edges that HED draws, where everybody can see it. [ours]"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch

import ppp
from studies.networks import Network
from studies.networks.names import PADDINGS
from studies.pictures.photographs import Reduced, photographs

PICTURE, PLACE, SIZE = "motorcycle_left", (112, 112), (272, 512)
"""The photograph whose edges are shipped, the window's place in it, and its size (px)."""
_OUTPUT, _WINDOWS, _BATCH = "probability", 4, 8


def window() -> torch.Tensor:
    """Return the pixels of the window whose edges are shipped, (3, 272, 512), RGB in [0, 1]."""
    (photo,) = (photo for photo in photographs() if photo.name == PICTURE)
    (top, left), (height, width) = PLACE, SIZE
    return photo.pixels()[:, top : top + height, left : left + width]


def of_photograph(network: Network) -> pd.DataFrame:
    """Draw the edges of one window under each scheme and under true surroundings.

    Returns
    -------
    DataFrame
        row, column, true and each scheme: probability of an edge in 255ths.
    """
    (photo,) = (photo for photo in photographs() if photo.name == PICTURE)
    pixels = network.prepare(photo.pixels())
    tops, lefts = ([place] for place in PLACE)
    found: dict[str, torch.Tensor] = {}

    def keep(_picture: str, scheme: str, _layer: str, maps: torch.Tensor, true) -> None:
        found.update({"true": true[0, 0], scheme: maps[0, 0]})

    reach = ppp.coverage(network.model, [_OUTPUT], SIZE)
    picture = ppp.Picture(PICTURE, pixels, tops * 2, lefts * 2)
    ppp.measure(
        network.model, ppp.Windows([picture], SIZE), [_OUTPUT], PADDINGS, coverage=reach, maps=keep
    )
    table = {name: (255 * edges).round().int().flatten() for name, edges in found.items()}
    place = pd.MultiIndex.from_product([range(side) for side in SIZE], names=["row", "column"])
    return pd.DataFrame(table, place).reset_index()


def mean_difference(network: Network, pictures: Sequence[Reduced]) -> pd.DataFrame:
    """Average what padding changes in the edges, over windows of all photographs.

    Returns
    -------
    DataFrame
        scheme, row, column, value (difference of probabilities), windows.
    """
    reach = ppp.coverage(network.model, [_OUTPUT], network.window)
    height, width = ppp.size_needed(network.window, reach)
    large = [p for p in pictures if p.height >= height and p.width >= width]
    windows = ppp.cut_windows(
        large, network.window, reach, per_picture=_WINDOWS, seed=0, transform=network.prepare
    )
    measured = ppp.measure(
        network.model, windows, [_OUTPUT], PADDINGS, coverage=reach, batch_size=_BATCH
    )
    sides = [range(side) for side in measured[PADDINGS[0], _OUTPUT].pattern.shape[1:]]
    place = pd.MultiIndex.from_product(sides, names=["row", "column"])
    tables = {
        scheme: pd.DataFrame({"value": result.pattern[0].ravel(), "windows": result.n}, place)
        for (scheme, _), result in measured.items()
    }
    return pd.concat(tables, names=["scheme"]).reset_index()
