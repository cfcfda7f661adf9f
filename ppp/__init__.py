"""Measure the position-information pattern from padding (PPP) of convolutional networks.

The core: :mod:`ppp.padding` (schemes), :mod:`ppp.inventory` (every padding of a network),
:mod:`ppp.swapping` (swap schemes), :mod:`ppp.influence` (what padding can touch),
:mod:`ppp.truth` (true values in the place of padding), :mod:`ppp.completeness` (proof that
nothing unlisted pads), :mod:`ppp.windows` and :mod:`ppp.measurement` (one pass over
windows), :mod:`ppp.results`, :mod:`ppp.metrics`.
Pictures, networks, training and figures are in :mod:`ppp.experiments`.
"""

import importlib

_MODULES = {
    "Completeness": "completeness",
    "PPPError": "errors",
    "Optimal": "truth",
    "Picture": "windows",
    "SCHEMES": "padding",
    "Windows": "windows",
    "audit": "inventory",
    "coverage": "influence",
    "cut_windows": "windows",
    "extract": "extraction",
    "measure": "measurement",
    "optimal": "truth",
    "pad": "padding",
    "size_needed": "windows",
    "with_padding": "swapping",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: the command line stays quick."""
    if name not in _MODULES:
        raise AttributeError(f"module 'ppp' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ppp.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
