"""What a machine takes: seconds a pass, and the cost curve of a measurement of PPP. [ours]

Processor seconds of one thread. They differ from machine to machine; the pages compare ratios.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

import ppp
from ppp.extraction import Tap
from ppp.metrics import Moments, summarise
from studies import networks, paths
from studies.networks.names import PADDINGS
from studies.parameters import check_whole
from studies.scale.costs import WINDOW, build, flop
from studies.storage import tables

DATA = paths.data("scale")
_WINDOW = 96  # px, of the cost curve
_BATCH = 8  # windows, the default of ppp.measure


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _seconds(call: Callable[[], object]) -> float:
    """Return processor seconds: what else runs on the machine counts little."""
    began = time.process_time()
    call()
    return time.process_time() - began


def _noise(n: int, side: int) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


@_one_thread()
def measure_passes(names: Sequence[str], batch: int, repeats: int) -> pd.DataFrame:
    """Time forward passes and training steps (SGD with momentum) on one core of this machine.

    Parameters
    ----------
    names : sequence of str
        Networks, as for :func:`studies.scale.costs.build`.
    batch : int
        Images in a pass.
    repeats : int
        Passes that are timed, after one that is not.

    Returns
    -------
    DataFrame
        ``network``, ``pass``, ``batch``, ``flop`` (of an image), ``seconds`` (of an image: the
        median), ``low``, ``high`` (fastest and slowest), ``flop_per_second``.

    Raises
    ------
    PPPError
        A number below 1, or an unknown network.
    """
    for name, value in (("batch", batch), ("repeats", repeats)):
        check_whole(name, value, 1)
    rows = []
    x, labels = _noise(batch, WINDOW), torch.zeros(batch, dtype=torch.long)
    for name in names:
        counted = flop(name)
        model = build(name).eval()
        optimiser = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

        def forward(model: nn.Module = model) -> None:
            with torch.inference_mode():
                model(x)

        def step(model: nn.Module = model, optimiser: torch.optim.SGD = optimiser) -> None:
            out = model.train()(x)
            optimiser.zero_grad()
            nn.functional.cross_entropy(getattr(out, "logits", out), labels).backward()
            optimiser.step()

        for kind, call, one in (("forward", forward, counted[0]), ("training", step, counted[1])):
            call()
            seconds = np.array([_seconds(call) for _ in range(repeats)]) / batch
            middle, low, high = (float(f(seconds)) for f in (np.median, np.min, np.max))
            rows.append((name, kind, batch, one, middle, low, high, one / middle))
    columns = ["network", "pass", "batch", "flop", "seconds", "low", "high", "flop_per_second"]
    return pd.DataFrame(rows, columns=columns)


@dataclass(frozen=True)
class Point:
    """One measurement of a ResNet-18 with random weights, on one picture of noise.

    Attributes
    ----------
    windows : int
        Of 96 px, at least 2; in two corners of the picture, and at random places between them.
    schemes : int
        Padding schemes that are swapped in, 1 to 5.
    layers : int
        Layers of interest from the stem on, 1 to 5; the passes stop at the last of them.
    side : int
        Of the picture, px, at least 544.

    Raises
    ------
    ParameterError
        A number out of its range.

    Examples
    --------
    >>> Point(windows=64)
    Point(windows=64, schemes=1, layers=5, side=640)
    """

    windows: int = 32
    schemes: int = 1
    layers: int = 5
    side: int = 640

    def __post_init__(self) -> None:
        ends = {"windows": (2,), "schemes": (1, 5), "layers": (1, 5), "side": (544,)}
        for name, limits in ends.items():
            check_whole(name, getattr(self, name), *limits)


AXES = {
    "windows": (8, 16, 32, 64, 128, 256),
    "schemes": (1, 2, 3, 4, 5),
    "layers": (1, 2, 3, 4, 5),
    "side": (544, 640, 896, 1280),
}
"""What the curve varies, one thing at a time; the rest is as in ``Point()``."""
PARTS = ("coverage", "audits", "windows pass", "picture pass", "statistics", "closing")
"""Of the predicted time, see :func:`cost_curve`."""


def along_axes(axes: Mapping[str, Sequence[int]] = AXES) -> list[Point]:
    """List the points of the curve, each once."""
    found = (replace(Point(), **{axis: value}) for axis, values in axes.items() for value in values)
    return list(dict.fromkeys(found))


@_one_thread()
def cost_curve(points: Sequence[Point], repeats: int) -> pd.DataFrame:
    """Time whole measurements of PPP, and predict each from unit costs that are timed alone.

    The model, for n windows, s schemes and a picture of p pixels: coverage, once; 1 + s audits;
    n passes over a window under each scheme; one pass over p pixels; n (1 + s) updates of the
    moments of all layers, for optimal features and for the difference under each scheme; and s
    times the summary at the end. Nothing is fitted.

    Parameters
    ----------
    points : sequence of Point
    repeats : int
        How often all whole measurements and all units are timed, in turn; the fastest counts.

    Returns
    -------
    DataFrame
        A row a point: its fields, ``measured`` and ``predicted`` (processor seconds), the
        prediction's :data:`PARTS`, and ``overhead``: what is measured, without the coverage, over
        the two bare passes.
    """
    check_whole("repeats", repeats, 1)
    net = networks.load_network("resnet18", "random")
    depths = {k: list(net.layers[:k]) for k in sorted({point.layers for point in points})}
    reach = {k: ppp.coverage(net.model, layers, _WINDOW) for k, layers in depths.items()}
    widest = reach.get(len(net.layers)) or ppp.coverage(net.model, list(net.layers), _WINDOW)
    batch, picture = _noise(_BATCH, _WINDOW), _noise(1, Point().side)
    calls: dict[Hashable, Callable[[], object]] = {}
    for k, layers in depths.items():
        maps = list(ppp.extract(net.model, batch, layers).values())
        sums = [(Moments(), Moments().update(map_.reshape(-1, 1))) for map_ in maps]
        most = max(point.schemes for point in points if point.layers == k)
        for scheme in PADDINGS[:most]:
            draws = torch.Generator().manual_seed(0)
            model = ppp.with_padding(net.model, scheme, generator=draws)
            calls["windows pass", k, scheme] = _pass(model, layers, batch)
        calls |= {
            ("coverage", k): partial(ppp.coverage, net.model, layers, _WINDOW),
            ("picture pass", k): _pass(net.model, layers, picture),
            ("statistics", k): lambda maps=maps, sums=sums: [
                moments.update(map_ - 1) for map_, (moments, _) in zip(maps, sums)
            ],
            ("closing", k): lambda sums=sums: [summarise([m], [whole]) for m, whole in sums],
        }
    calls["audits"] = lambda: ppp.audit(ppp.with_padding(net.model, PADDINGS[0]), _WINDOW)
    for point in points:
        cut, layers = _windows(point, widest), depths[point.layers]
        calls[point] = partial(ppp.measure, net.model, cut, layers, PADDINGS[: point.schemes])
    turns = [{name: _seconds(call) for name, call in calls.items()} for _ in range(repeats)]
    least = {name: min(turn[name] for turn in turns) for name in calls}
    rows = []
    for point in points:
        k, s, n = point.layers, point.schemes, point.windows / _BATCH
        span = point.side - max(ppp.size_needed(_WINDOW, widest))
        span -= span % max(widest.stride)
        height, width = (need + span for need in ppp.size_needed(_WINDOW, reach[k]))
        parts = {
            "coverage": least["coverage", k],
            "audits": (1 + s) * least["audits"],
            "windows pass": n * sum(least["windows pass", k, one] for one in PADDINGS[:s]),
            "picture pass": height * width / picture[0, 0].numel() * least["picture pass", k],
            "statistics": n * (1 + s) * least["statistics", k],
            "closing": s * least["closing", k],
        }
        passes = parts["windows pass"] + parts["picture pass"]
        row = asdict(point) | {"measured": least[point], "predicted": sum(parts.values())} | parts
        rows.append(row | {"overhead": (least[point] - parts["coverage"]) / passes})
    return pd.DataFrame(rows)


def _pass(model: nn.Module, layers: Sequence[str], x: torch.Tensor) -> Callable[[], object]:
    """Return a forward pass up to the last layer, of which nothing is kept."""
    tap = Tap(model, layers, to_the_end=False)
    tap(x[:1, :, :_WINDOW, :_WINDOW], lambda *_: None)  # from then on it stops there
    return lambda: tap(x, lambda *_: None)


def _windows(point: Point, reach: ppp.Coverage) -> ppp.Windows:
    """Return windows between two corners of a picture of noise."""
    stride, need = max(reach.stride), max(ppp.size_needed(_WINDOW, reach))
    first = -(-max(reach.margin) // stride) * stride
    last = (point.side - need) // stride
    steps = np.random.default_rng(0).integers(0, last + 1, (2, point.windows))
    steps[:, 0], steps[:, 1] = 0, last
    pixels = _noise(1, point.side)[0]
    return ppp.Windows([ppp.Picture("noise", pixels, *(first + stride * steps))], _WINDOW)


def shipped_curve(data: str | Path = DATA) -> pd.DataFrame:
    """Read the cost curve that ``benchmarks/costs.py`` measured, with what it ran on.

    Examples
    --------
    >>> len(shipped_curve()) == len(along_axes())
    True
    """
    return tables.read_table(Path(data) / "curve.csv", columns=("windows", "measured", *PARTS))
