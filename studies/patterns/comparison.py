"""Measure networks alike, by name, on photographs or on the plane. [ours]"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from ppp.errors import ParameterError, PictureError, unknown
from ppp.influence import coverage
from ppp.measurement import measure
from ppp.results import Measurement
from ppp.windows import cut_windows, size_needed
from studies.networks import Network, layers as layer_choice, load_network
from studies.pictures.photographs import large_enough, photographs
from studies.pictures.plane import scenes

PICTURES = ("photographs", "plane")
"""What networks can be measured on."""


@dataclass(frozen=True)
class Compared:
    """A network and its measurement."""

    network: Network
    measurement: Measurement


def measure_network(
    name: str,
    weights: str = "trained",
    schemes: Sequence[str] | None = None,
    layers: Sequence[str] = (),
    *,
    pictures: str = "photographs",
    photos: str = "",
    per_photo: int = 64,
    n: int = 128,
    scene_seed: int = 30000,
    seed: int = 0,
    network_seed: int = 0,
) -> Compared:
    """Measure a network by name.

    Parameters
    ----------
    name, weights : str
        See :func:`studies.networks.load_network`.
    schemes : sequence of str, optional
        Test-time padding; without any, the network's own.
    layers : sequence of str
        Without any, its layers of interest, or those that
        :func:`studies.networks.layers.choose` finds.
    pictures : {"photographs", "plane"}
    photos : str
        Folder of photographs, or "" for those of scikit-image; too small ones are left out.
    per_photo : int
        Windows of each photograph.
    n, scene_seed : int
        Number of scenes of the plane, one window each, and the first one's seed. By default
        no small network was trained on them.
    seed : int
        Of the windows' places and of randn's draws.
    network_seed : int
        Of a random network's weights, or of a small network's training.

    Returns
    -------
    Compared

    Raises
    ------
    ParameterError
        An unknown kind of pictures.
    PictureError
        No photograph is large enough.
    PPPError
        Of loading, cutting windows and measuring.

    Examples
    --------
    >>> compared = measure_network("plane-resnet-zeros", layers=["layer1"], pictures="plane", n=4)
    >>> compared.measurement["layer1"].summary.n
    4
    """
    if pictures not in PICTURES:
        raise ParameterError(unknown("kind of pictures", pictures, PICTURES))
    network = load_network(name, weights, seed=network_seed)
    names = list(layers) or list(network.layers)
    if names:
        reach = coverage(network.model, names, network.window)
    else:
        reach = layer_choice.choose(network.model, network.window).coverage
    need = size_needed(network.window, reach)
    if pictures == "plane":
        sources, per_photo = scenes(n, *need, seed=scene_seed), 1
    else:
        sources, too_small = large_enough(photographs(photos), *need)
        if not sources:
            raise PictureError(
                f"none of {len(too_small)} photographs has the {need[0]} x {need[1]} px (height x "
                f"width) that {name} needs; give larger ones, or shallower layers"
            )
    how = {"per_picture": per_photo, "seed": seed, "transform": network.prepare}
    windows = cut_windows(sources, network.window, reach, **how)
    measurement = measure(network.model, windows, list(reach), schemes, coverage=reach, seed=seed)
    return Compared(network, measurement)


def table(networks: Mapping[str, Compared]) -> pd.DataFrame:
    """Return one row per network, scheme and layer: network, and the measurement's columns."""
    parts = [each.measurement.table().assign(network=name) for name, each in networks.items()]
    whole = pd.concat(parts, ignore_index=True)
    return whole[["network", *whole.columns.drop("network")]]
