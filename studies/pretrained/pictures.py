"""The photographs on which real networks are measured, and those set apart from them. [ours]

Batch norm is re-estimated, and networks are adapted, on photographs that are never measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from ppp.certificate import Coverage
from ppp.errors import MarginError
from ppp.windows import size_needed
from studies.networks import Network
from studies.pictures.photographs import Photograph, Reduced, photographs

SIDES = {
    "efficientnet-lite0": 1152,
    "efficientnet-lite1": 1440,
    "efficientnet-lite2": 1472,
    "hed-vgg16": 480,
}
"""Shorter side to which photographs are reduced for a network (px).

HED was trained on pictures of 321 x 481 px. The others need most of it for the surroundings of
their last layer."""

_APART = 800
"""Pixels of the shorter side of those of the set urban100-large that are not measured."""


@cache
def apart() -> tuple[Photograph, ...]:
    """Return the photographs on which nothing is measured."""
    return tuple(photographs("urban100-large", _APART))


@cache
def measured() -> tuple[Photograph, ...]:
    """Return the photographs to measure: scikit-image's, debian's, the rest of urban100-large."""
    rest = [photo for photo in photographs("urban100-large") if photo not in apart()]
    return (*photographs(), *photographs("debian"), *rest)


def reduced(photos: Sequence[Photograph], network: str) -> list[Reduced]:
    """Return photographs at the size for a network; smaller ones stay as they are.

    For a network that is none of :data:`SIDES`, all do.
    """
    side = SIDES.get(network)
    return [Reduced(p, side or min(p.height, p.width), keep=False) for p in photos]


def served(picture: Reduced | Photograph, reach: Coverage, window: int) -> tuple[str, ...]:
    """Return the first layers whose surroundings a picture can hold.

    Parameters
    ----------
    picture : Reduced or Photograph
    reach : Coverage
        Layers from shallow to deep.
    window : int
        Pixels.
    """
    layers = list(reach)
    for count in range(len(layers), 0, -1):
        height, width = size_needed(window, reach.only(layers[:count]))
        if picture.height >= height and picture.width >= width:
            return tuple(layers[:count])
    return ()


def by_layers(
    pictures: Sequence[Reduced], reach: Coverage, network: Network
) -> dict[tuple[str, ...], list[Reduced]]:
    """Group pictures by the layers that they can serve, most layers first.

    Raises
    ------
    MarginError
        No picture serves any layer.
    """
    groups: dict[tuple[str, ...], list[Reduced]] = {}
    for picture in pictures:
        if layers := served(picture, reach, network.window):
            groups.setdefault(layers, []).append(picture)
    if not groups:
        largest = max((min(p.height, p.width) for p in pictures), default=0)
        need = size_needed(network.window, reach.only(list(reach)[:1]))
        raise MarginError(
            f"no picture is large enough for layer {next(iter(reach))!r} of {network.name}: it "
            f"needs {need[0]} x {need[1]} px, and the largest has {largest}; give larger ones"
        )
    return dict(sorted(groups.items(), key=lambda item: -len(item[0])))
