"""What the paper would cost on the scale of ImageNet: work, time, disk and money.

Work is counted, in floating-point operations (FLOP). Time on a graphics card is work over a
rate that others published (``data/costs.yaml``); nothing here runs on one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.resnet import Bottleneck, ResNet

from ppp.errors import ParameterError, unknown
from studies import networks, paths
from studies.bhv import variants
from studies.parameters import check_whole
from studies.posenet import readout
from studies.storage import yaml_documents
from studies.survey import design as survey

WINDOW = 224
"""Side of a network's input, px."""
FULL = ("V100 16GB", "single")
"""Card and precision whose rate is used for PPP: the null test needs full FP32."""
BHV_VARIANTS = ("V", "S-zero", "S-circular", "F-zero")
BHV_SEEDS = 10
"""Variants and initialisations of the published BHV test."""
_MOMENTS = 2  # mean and variance of each cell, float64


@dataclass(frozen=True)
class Design:
    """How much of everything the paper takes; what it leaves open is ours.

    Attributes
    ----------
    networks : tuple of str
        Of torchvision, with a margin in the shipped survey.
    schemes, trials : int
        Padding schemes, and trainings of each network under each of them.
    epochs : int
        Of a training on ImageNet.
    snapshots : int
        States of each training that are kept, and of which PPP is measured.
    windows, per_photo : int
        Windows of a measurement, and how many are cut from one photograph, side by side.
    swapped : bool
        Train under one scheme only and swap the others in: the schemes then share weights, and
        so the passes under optimal padding.
    features_once : bool
        Whether PosENet's frozen features are computed once, not in every epoch.

    Raises
    ------
    ParameterError
        A number below 1, no network, or one that cannot be measured.

    Examples
    --------
    >>> Design(("resnet50",), trials=2).trainings
    10
    """

    networks: tuple[str, ...]
    schemes: int = 5
    trials: int = 5
    epochs: int = 90
    snapshots: int = 25
    windows: int = 4096
    per_photo: int = 1
    swapped: bool = False
    features_once: bool = False

    def __post_init__(self) -> None:
        for name in ("schemes", "trials", "epochs", "snapshots", "windows", "per_photo"):
            check_whole(name, getattr(self, name), 1)
        if not self.networks:
            raise ParameterError("networks = (); expected at least one network of torchvision")
        for name in self.networks:
            picture_side(name)

    @property
    def trainings(self) -> int:
        """Trainings of each network."""
        return self.trials * (1 if self.swapped else self.schemes)

    @property
    def measurements(self) -> int:
        """Measurements of each network: every snapshot under its scheme, or under every one."""
        return self.trials * self.schemes * self.snapshots


# ----------------------------------------------------------------------------- counted


@functools.cache
def published() -> dict:
    """Read what others published: rates, prices, a recipe and sizes.

    Examples
    --------
    >>> published()["recipe"]["epochs"]
    90
    """
    return yaml_documents.read_yaml(paths.data("costs.yaml"))


def build(name: str, device: str = "cpu") -> nn.Module:
    """Make a network of torchvision, or "resnext101_32x4d", with random weights.

    On the device "meta" it has shapes but no values, and costs nothing.

    Raises
    ------
    WeightsError
        An unknown network.
    """
    with torch.device(device):
        if name == "resnext101_32x4d":  # of a published rate; torchvision has other widths
            return ResNet(Bottleneck, [3, 4, 23, 3], groups=32, width_per_group=4)
        return networks.torchvision_model(name)


def count(model: nn.Module, side: int) -> tuple[int, int]:
    """Count the FLOP of one image's forward pass, and of one training step.

    A multiplication and an addition count as two. Backwards, every convolution and linear
    layer costs its forward pass twice, for its weights and for its input; only the first needs no
    gradient of its input. torch's own count of a backward pass agrees, but for grouped
    convolutions, which it takes for whole ones.

    Parameters
    ----------
    model : nn.Module
        On the device "meta".
    side : int
        Of the square input, px.

    Examples
    --------
    >>> with torch.device("meta"):
    ...     model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1))
    >>> first, second = 2 * 3 * 4 * 9 * 100, 2 * 4 * 2 * 100
    >>> count(model, 10) == (first + second, 3 * (first + second) - first)
    True
    """
    first: list[int] = []

    def see(layer: nn.Conv2d, _: object, out: torch.Tensor) -> None:
        first.append(2 * layer.weight[0].numel() * out.numel())

    hooks = [m.register_forward_hook(see) for m in model.modules() if isinstance(m, nn.Conv2d)]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, side, side, device="meta"))
    for hook in hooks:
        hook.remove()
    forward = counter.get_total_flops()
    return forward, 3 * forward - first[0]


@functools.cache
def flop(name: str, side: int = WINDOW) -> tuple[int, int]:
    """Count the FLOP of a network by name; see :func:`count`.

    Examples
    --------
    >>> round(flop("resnet50")[0] / 2e9, 3)  # multiplications and additions, in 10^9
    4.089
    """
    return count(build(name, "meta"), side)


def _surveyed(name: str) -> pd.Series:
    rows = survey.table().set_index("model")
    rows = rows[(rows["outcome"] != survey.REFUSED) & (rows["window"] == WINDOW)]
    if name not in rows.index:
        raise ParameterError(unknown("network with a margin", name, rows.index))
    return rows.loc[name]


@functools.cache
def picture_side(name: str) -> int:
    """Return the side of a photograph that gives one window its true surroundings, px.

    The window, and on both sides the largest margin of the network's deepest layer of interest,
    from the shipped survey.

    Raises
    ------
    ParameterError
        A network that the survey has not measured.

    Examples
    --------
    >>> picture_side("vgg19")
    480
    """
    row = _surveyed(name)
    return WINDOW + 2 * math.ceil(row["margin"] / row["stride"]) * int(row["stride"])


@functools.cache
def sizes(name: str) -> dict[str, int]:
    """Return bytes: ``weights``, ``momentum`` of the optimiser, ``features`` of one window at
    the layers of interest (float32), ``pattern`` (mean and variance of each cell, float64), and
    ``channels``, the number of channels there.

    Examples
    --------
    >>> sizes("resnet50")["channels"]
    3904
    """
    model = build(name, "meta").eval()
    maps: dict[str, torch.Tensor] = {}
    for layer in str(_surveyed(name)["layers"]).split():
        model.get_submodule(layer).register_forward_hook(
            lambda _module, _inputs, out, layer=layer: maps.setdefault(layer, out)
        )
    with torch.no_grad():
        model(torch.zeros(1, 3, WINDOW, WINDOW, device="meta"))
    cells = sum(found.numel() for found in maps.values())
    return {
        "weights": sum(t.numel() * t.element_size() for t in model.state_dict().values()),
        "momentum": sum(p.numel() * p.element_size() for p in model.parameters()),
        "features": 4 * cells,
        "pattern": 8 * _MOMENTS * cells,
        "channels": sum(found.shape[1] for found in maps.values()),
    }


def work(design: Design, overhead: tuple[float, float] = (1.0, 1.0)) -> pd.DataFrame:
    """List the work: one row for each part and network.

    Parameters
    ----------
    design : Design
    overhead : (low, high)
        What a measurement of PPP costs over its bare passes, as of the cost curve.

    Returns
    -------
    DataFrame
        ``part``, ``network``, ``images`` (passes over one image), ``flop`` (of all),
        ``low``, ``high`` (factors on it), ``full`` (whether it needs full precision), ``basis``.
    """
    rows = [row for name in design.networks for row in _of_network(name, design, overhead)]
    rows.append(_bhv())
    columns = ["part", "network", "images", "flop", "low", "high", "full", "basis"]
    return pd.DataFrame(rows, columns=columns)


def _of_network(name: str, design: Design, overhead: tuple[float, float]) -> Iterator[tuple]:
    d, images = design, published()["imagenet"]
    forward, step = flop(name)
    n = d.trainings * d.epochs * images["training_images"]
    yield "training", name, n, n * step, 1.0, 1.0, False, "counted; epochs published"
    n = d.trainings * d.epochs * images["validation_images"]
    yield "validation", name, n, n * forward, 1.0, 1.0, False, "counted; once an epoch assumed"
    basis = "counted; overhead measured"
    n = d.measurements * d.windows
    yield "PPP, algorithmic padding", name, n, n * forward, *overhead, True, basis
    # Windows of one photograph lie side by side; the photograph is as small as that allows.
    side = picture_side(name) + (math.ceil(math.sqrt(d.per_photo)) - 1) * WINDOW
    n = d.trainings * d.snapshots * math.ceil(d.windows / d.per_photo)
    yield "PPP, optimal padding", name, n, n * flop(name, side)[0], *overhead, True, basis
    protocol = readout.Protocol()
    read = d.schemes * d.trials * d.windows * len(readout.TARGETS) * protocol.epochs
    n = d.schemes * d.windows if d.features_once else read
    one = 2 * protocol.kernel**2 * sizes(name)["channels"] * protocol.cells**2
    yield "PosENet", name, n, n * forward + 3 * read * one, 1.0, 1.0, False, "counted"


@functools.cache
def _bhv() -> tuple:
    protocol = variants.Protocol()
    total = images = 0
    for name in BHV_VARIANTS:
        forward, step = count(variants.network(name, 0).to("meta"), 32)
        judged = protocol.epochs * protocol.n_validation + 2 * protocol.n_test
        images += BHV_SEEDS * (protocol.epochs * protocol.n_train + judged)
        total += BHV_SEEDS * (protocol.epochs * protocol.n_train * step + judged * forward)
    basis = "counted; at most, and rate too high"
    return "BHV test", "its own", images, total, 1.0, 1.0, False, basis


# --------------------------------------------------------------------------- published


def rates(gpu: str, precision: str, kind: str = "training") -> pd.DataFrame:
    """Turn published images a second into sustained FLOP a second of one card.

    Returns
    -------
    DataFrame
        The rows of ``data/costs.yaml`` for this card and precision, with ``flop_per_second``.

    Raises
    ------
    ParameterError
        Nothing is listed for them.
    """
    rows = pd.DataFrame(published()[kind])
    for column, value in (("gpu", gpu), ("precision", precision)):
        if value not in set(rows[column]):
            raise ParameterError(unknown(column, value, sorted(set(rows[column]))))
    rows = rows[(rows["gpu"] == gpu) & (rows["precision"] == precision)].reset_index(drop=True)
    each = rows["network"].map(lambda name: flop(name)[0 if kind == "inference" else 1])
    return rows.assign(flop_per_second=rows["images_per_second"] / rows["gpus"] * each)


@functools.cache
def faster(name: str) -> float:
    """Return by what factor a network may beat the published rates.

    On the one card of which rates of both kinds are published, VGG-16 sustains more FLOP a second
    than ResNet-50: fast algorithms do 3x3 convolutions with fewer operations than are counted. The
    factor is the larger of two, on one card and on eight; it is 1 for networks that are no VGG.

    Examples
    --------
    >>> faster("resnet50"), 2 < faster("vgg19") < 3
    (1.0, True)
    """
    if not name.startswith("vgg"):
        return 1.0
    rows = rates("P100 16GB", "single", "across")
    table = rows.pivot(index="gpus", columns="network", values="flop_per_second")
    return float((table["vgg16"] / table["resnet50"]).max())


def prices(gpu: str, price: float = 0.0) -> tuple[float, float]:
    """Return the lowest and highest listed price of a card, $/h, or twice your own if above 0.

    Raises
    ------
    ParameterError
        A price that is no finite number of at least 0, or a card without one.

    Examples
    --------
    >>> prices("A100 80GB", 1.5)
    (1.5, 1.5)
    """
    if type(price) not in (int, float) or not 0 <= price < math.inf:
        raise ParameterError(f"price = {price!r}; expected dollars an hour of at least 0")
    if price > 0:
        return float(price), float(price)
    listed = pd.DataFrame(published()["prices"])
    if gpu not in set(listed["gpu"]):
        raise ParameterError(unknown("gpu", gpu, sorted(set(listed["gpu"]))))
    found = listed[listed["gpu"] == gpu]["dollars_per_hour"]
    return float(found.min()), float(found.max())


def cost(rows: pd.DataFrame, gpu: str, precision: str, price: float = 0.0) -> pd.DataFrame:
    """Turn work into hours of one card and dollars.

    Parameters
    ----------
    rows : DataFrame
        Of :func:`work`.
    gpu, precision : str
        As for :func:`rates`; rows that need full precision take the rate of :data:`FULL`.
    price : float
        As for :func:`prices`.

    Returns
    -------
    DataFrame
        `rows` with ``hours`` (the geometric middle), ``hours_low``, ``hours_high``,
        ``dollars_low``, ``dollars_high``.
    """
    chosen, full = (rates(*which)["flop_per_second"] for which in ((gpu, precision), FULL))
    fast = np.where(rows["full"], full.max(), chosen.max())
    slow = np.where(rows["full"], full.min(), chosen.min())
    fast = fast * rows["network"].map(faster)
    low = rows["flop"].astype(float) * rows["low"] / fast / 3600
    high = rows["flop"].astype(float) * rows["high"] / slow / 3600
    least, most = prices(gpu, price)
    hours = {"hours": np.sqrt(low * high), "hours_low": low, "hours_high": high}
    return rows.assign(**hours, dollars_low=low * least, dollars_high=high * most)


def by_part(rows: pd.DataFrame) -> pd.DataFrame:
    """Sum the rows of :func:`cost` over networks, and add a row of the whole."""
    sums = ["images", "flop", "hours", "hours_low", "hours_high", "dollars_low", "dollars_high"]
    by = dict.fromkeys(sums, "sum") | {"basis": "first"}
    parts = rows.groupby("part", sort=False).agg(by).reset_index()
    parts.loc[len(parts)] = {"part": "together", **parts[sums].sum(), "basis": "sum"}
    return parts


def rough(value: float) -> str:
    """Write a number with two digits that count.

    Examples
    --------
    >>> rough(5619.0), rough(0.0123)
    ('5,600', '0.012')
    """
    number = float(f"{value:.2g}")
    return f"{number:,.0f}" if abs(number) >= 10 else f"{number:g}"
