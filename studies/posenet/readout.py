"""PosENet: can a small read-out tell from frozen features where in the image it is?

The five feature maps of a frozen network are resized to one grid and concatenated; a read-out is
trained to paint the same *target*, such as a ramp from left to right, for every image. What it
achieves on other images is taken for the position information in the features. Read-out and
protocol are those of the published code (Islam et al., ICLR 2020); every choice is a parameter.

The features never change, so they are computed once for all targets, trials and epochs. A *trial*
is one training of the read-out; the trials of one seed are trained together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from ppp.errors import ParameterError, PictureError, unknown
from ppp.extraction import Tap, extract, gather, require_eval
from ppp.influence import Coverage
from ppp.measurement import exact_kernels
from ppp.windows import Picture, Windows
from studies.parameters import TARGETS, check_whole

STRIPES = 4
"""Periods of the targets HS and VS. [ours]"""
_SPREAD = 0.25  # standard deviation of the target G, in sides of the target
_FLAT = 1e-6  # a prediction of values in [0, 1] whose range is below is constant but for rounding
_LANES = 16  # numbers that a processor takes at a time
_TOGETHER = 8  # maps scored together, few enough for a core's cache
_PENALTIES = 10.0 ** np.arange(-6, 3)  # per row, in units of the features' mean variance


def target(name: str, size: int = 224) -> Tensor:
    """Paint a target.

    H grows from left to right, V from top to bottom, G is a Gaussian about the centre, and HS
    and VS are horizontal and vertical stripes: a cosine down, or across, the image. The
    published text names these five; the width of the Gaussian, a quarter of the side, and the
    stripes, four cosine periods, are choices. [ours]

    Parameters
    ----------
    name : {"H", "V", "G", "HS", "VS"}
    size : int
        Side, at least 3 (px).

    Returns
    -------
    Tensor, shape (size, size), 0 to 1

    Raises
    ------
    ParameterError
        Unknown target, or too small a side.

    Examples
    --------
    >>> target("H", 3)
    tensor([[0.0000, 0.5000, 1.0000],
            [0.0000, 0.5000, 1.0000],
            [0.0000, 0.5000, 1.0000]])
    """
    if name not in TARGETS:
        raise ParameterError(unknown("target", name, TARGETS))
    check_whole("size", size, 3)
    x = torch.linspace(0, 1, size)
    ramp, stripes = x, (1 - torch.cos(2 * math.pi * STRIPES * x)) / 2
    bell = torch.exp(-0.5 * ((x - 0.5) / _SPREAD) ** 2)
    profiles = {"H": ramp, "V": ramp, "G": bell, "HS": stripes, "VS": stripes}
    row = profiles[name].expand(size, size)
    if name == "G":
        row = row * row.T
        return (row - row.min()) / (row.max() - row.min())
    return (row.T if name in ("V", "HS") else row).contiguous()


@dataclass(frozen=True)
class Protocol:
    """How a read-out is made and trained; as published unless said otherwise.

    Attributes
    ----------
    feature_size : int
        Side of the grid that feature maps are resized to (bilinear, corners aligned).
    target_size : int
        Side of the target, which the read-out's map is resized to likewise.
    depth, kernel, padding : int
        Number of convolutions, their size, and cells of zeros they pad on each side.
    width : int
        Channels between convolutions if there are several, each with batch norm and ReLU.
    optimiser : {"sgd", "adam"}
    lr, momentum, weight_decay : float
        Adam takes no momentum.
    epochs, batch : int
    drops : tuple of int
        Epochs after which the learning rate is divided by ten.

    Raises
    ------
    ParameterError
        A number out of range, or convolutions that leave no cell of the grid.

    Examples
    --------
    >>> Protocol(depth=3).cells
    22
    """

    feature_size: int = 28
    target_size: int = 224
    depth: int = 1
    kernel: int = 3
    padding: int = 0
    width: int = 16
    optimiser: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    epochs: int = 15
    drops: tuple[int, ...] = (10,)
    batch: int = 32

    def __post_init__(self) -> None:
        for name, least, most in (
            ("feature_size", 3, 4096), ("target_size", 3, 4096), ("depth", 1, 16),
            ("kernel", 1, 63), ("padding", 0, 62), ("width", 1, 1024), ("epochs", 0, 10**5),
            ("batch", 1, 4096),
        ):  # fmt: skip
            check_whole(name, getattr(self, name), least, most)
        for name in ("lr", "momentum", "weight_decay"):
            value, least = getattr(self, name), "above 0" if name == "lr" else "of at least 0"
            number = isinstance(value, int | float) and math.isfinite(value)
            if not number or value < 0 or (name == "lr" and value == 0):
                raise ParameterError(f"{name} = {value!r}; expected a number {least}")
        if not isinstance(self.drops, tuple):
            raise ParameterError(f"drops = {self.drops!r}; expected a tuple of whole numbers")
        for epoch in self.drops:
            check_whole("drops", epoch, 0)
        if self.optimiser not in ("sgd", "adam"):
            raise ParameterError(unknown("optimiser", self.optimiser, ("sgd", "adam")))
        if self.cells < 2:
            raise ParameterError(
                f"{self.depth} convolutions of {self.kernel} x {self.kernel} leave {self.cells} "
                f"cells of a grid of {self.feature_size}; give a larger feature_size or padding"
            )

    @property
    def cells(self) -> int:
        """Side of the read-out's map."""
        return self.feature_size - self.depth * (self.kernel - 1 - 2 * self.padding)


PUBLISHED = Protocol()
"""The published protocol."""
LONGER = Protocol(epochs=60, drops=(40, 55))
"""Four times as long, and cooled down twice. [ours]"""
PROTOCOLS = {"published": PUBLISHED, "longer": LONGER}


class ReadOut(nn.Module):
    """Convolutions, batch norm and sigmoid: maps (n, C, s, s) to (n, cells, cells) in [0, 1].

    Parameters
    ----------
    channels : int
        C, of all feature maps together.
    protocol : Protocol
    seed : int
        Of the initial weights (Xavier-uniform, no bias but batch norm's).

    Examples
    --------
    >>> ReadOut(192)(torch.zeros(1, 192, 28, 28)).shape
    torch.Size([1, 26, 26])
    """

    def __init__(self, channels: int, protocol: Protocol = PUBLISHED, seed: int = 0) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        widths = [channels, *[protocol.width] * (protocol.depth - 1), 1]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            for before, after in pairwise(widths):
                conv = nn.Conv2d(
                    before, after, protocol.kernel, padding=protocol.padding, bias=False
                )
                nn.init.xavier_uniform_(conv.weight)
                steps += [conv, nn.BatchNorm2d(after), nn.ReLU()]
        steps[-1] = nn.Sigmoid()
        self.first, self.rest = steps[0], nn.Sequential(*steps[1:])

    def forward(self, maps: Tensor) -> Tensor:
        return self.rest(self.first(maps)).squeeze(1)


# ------------------------------------------------------------------------------- features


def features(
    model: nn.Module | None,
    windows: Windows,
    layers: Sequence[str] = (),
    size: int = PUBLISHED.feature_size,
    *,
    surrounded: Coverage | None = None,
    batch: int = 32,
) -> Tensor:
    """Compute the frozen features that read-outs see: once, for all trials and epochs.

    Parameters
    ----------
    model : nn.Module or None
        In evaluation mode; None gives the pixels themselves ("PosENet alone").
    windows : Windows
        Of pictures that the network's normalisation has been applied to.
    layers : sequence of str
        Layers of interest, at least one.
    size : int
        Side of the grid that maps are resized to; windows must not be smaller (cells, px).
    surrounded : Coverage, optional
        Of these layers. With it the network runs on whole pictures and the windows' cells are
        cut out: optimal padding instead of the network's own.
    batch : int
        Windows per forward pass.

    Returns
    -------
    Tensor, shape (n, C, size, size), float32
        In channels-last order of memory.

    Raises
    ------
    LayerError
        No layer, or an unknown one.
    MarginError
        Misaligned windows, or too narrow surroundings.
    PictureError
        Windows smaller than the grid, or none at all.

    Examples
    --------
    >>> picture = Picture("grey", torch.zeros(3, 96, 96), np.array([0]), np.array([0]))
    >>> features(None, Windows([picture], 96)).shape
    torch.Size([1, 3, 28, 28])
    """
    if min(windows.size) < size:
        raise PictureError(
            f"windows are {windows.size[0]} x {windows.size[1]} px, smaller than the read-out's "
            f"grid of {size} x {size} cells; give larger windows, or a smaller feature_size"
        )
    if model is not None:
        require_eval(model)
        Tap(model, layers)  # refuses a lack of layers, and unknown ones
    parts = []
    with exact_kernels():
        for picture in windows:
            for maps in _maps(model, picture, windows.size, layers, surrounded, batch):
                resized = [
                    F.interpolate(map_, size=(size, size), mode="bilinear", align_corners=True)
                    for map_ in maps
                ]
                parts.append(torch.cat([map_.permute(0, 2, 3, 1) for map_ in resized], 3))
    if not parts:
        raise PictureError("no window to compute features of")
    return torch.cat(parts).permute(0, 3, 1, 2)


def _maps(
    model: nn.Module | None,
    picture: Picture,
    size: tuple[int, int],
    layers: Sequence[str],
    surrounded: Coverage | None,
    batch: int,
) -> Iterator[list[Tensor]]:
    """Yield the maps of each batch of a picture's windows."""
    tops, lefts = np.asarray(picture.tops), np.asarray(picture.lefts)
    whole = {}
    if surrounded is not None:
        rows, columns = (
            length - length % stride
            for length, stride in zip(picture.pixels.shape[1:], surrounded.stride)
        )
        whole = extract(model, picture.pixels[None, :, :rows, :columns], layers)
    for start in range(0, len(tops), batch):
        part = slice(start, start + batch)
        if surrounded is not None:
            yield [
                gather(
                    map_[0],
                    *surrounded[layer].certify(tuple(map_.shape[2:]), tops[part], lefts[part]),
                    surrounded[layer].influence.shape,
                )
                for layer, map_ in whole.items()
            ]
            continue
        pixels = gather(picture.pixels, tops[part], lefts[part], size)
        yield [pixels] if model is None else list(extract(model, pixels, layers).values())


# ------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Trials:
    """Trained read-outs.

    Attributes
    ----------
    seeds : tuple of int
        One per trial of each target; a single 0 for a read-out without chance.
    targets : tuple of str
    painted : dict of str to Tensor, shape (size, size)
    protocol : Protocol
    state : dict of str to Tensor, shape (seeds, targets, ...)
        Weights and statistics.
    losses : Tensor, shape (seeds, targets)
        Mean squared error of the last epoch of training.
    penalty : tuple of float
        Chosen for each target by :func:`ridge`.
    """

    seeds: tuple[int, ...]
    targets: tuple[str, ...]
    painted: dict[str, Tensor] = field(repr=False)
    protocol: Protocol
    state: dict[str, Tensor] = field(repr=False)
    losses: Tensor = field(repr=False)
    penalty: tuple[float, ...] = ()

    def predict(self, maps: Tensor, seed: int, name: str) -> Tensor:
        """Return what a trial paints, at the target's size.

        Parameters
        ----------
        maps : Tensor, shape (n, C, feature_size, feature_size)
        seed, name
            Of the trial, and of its target.

        Returns
        -------
        Tensor, shape (n, size, size), float64

        Raises
        ------
        ParameterError
            No such trial.
        """
        if name not in self.targets:
            raise ParameterError(unknown("target", name, self.targets))
        if seed not in self.seeds:
            known = ", ".join(map(str, self.seeds))
            raise ParameterError(f"no trial has the seed {seed!r}; known: {known}")
        place = self.seeds.index(seed), self.targets.index(name)
        state = {key: value[place] for key, value in self.state.items()}
        if self.penalty:
            small = F.conv2d(maps, state["weight"][None], state["bias"][None])[:, 0]
        else:
            skeleton = ReadOut(maps.shape[1], self.protocol).eval()
            with torch.no_grad():
                small = functional_call(skeleton, state, (maps,))
        grow = _resizing(small.shape[-1], self.painted[name].shape[-1])
        return grow @ small.double() @ grow.T


def train(
    maps: Tensor,
    targets: Sequence[str] | Mapping[str, Tensor] = TARGETS,
    seeds: Sequence[int] = (0,),
    protocol: Protocol = PUBLISHED,
) -> Trials:
    """Train read-outs: every target from every seed.

    A seed determines the initial weights and the order of the windows. The trials of one seed
    see the same batches and are trained at once; what a trial becomes does not depend, up to
    rounding, on the others. The error against the resized map is computed without resizing it:
    it is a quadratic form of the map, the same number.

    Parameters
    ----------
    maps : Tensor, shape (n, C, feature_size, feature_size)
        As :func:`features` gives them.
    targets : sequence of str, or mapping of str to Tensor, shape (size, size)
        Names of :data:`TARGETS`, or targets of your own with values in [0, 1].
    seeds : sequence of int
    protocol : Protocol

    Returns
    -------
    Trials

    Raises
    ------
    ParameterError
        Unknown target, no target or seed, a target that is not square or leaves [0, 1], or
        maps of another size than the protocol's.

    Examples
    --------
    >>> maps = torch.rand(8, 3, 28, 28)
    >>> trials = train(maps, ["H"], [0, 1], Protocol(epochs=1, batch=4))
    >>> trials.predict(maps, 1, "H").shape
    torch.Size([8, 224, 224])
    """
    painted = _painted(targets, protocol.target_size)
    seeds = tuple(seeds)
    if not seeds:
        raise ParameterError("no seed given; a trial needs one")
    for seed in seeds:
        check_whole("seed", seed, 0, 2**32 - 1)
    _check_maps(maps, protocol)
    error = _Error(painted.values(), protocol.cells)
    states, losses = zip(
        *(_train_seed(maps, len(painted), seed, protocol, error) for seed in seeds)
    )
    state = {key: torch.stack([one[key] for one in states]) for key in states[0]}
    return Trials(seeds, tuple(painted), painted, protocol, state, torch.stack(losses))


def _train_seed(
    maps: Tensor, targets: int, seed: int, protocol: Protocol, error: _Error
) -> tuple[dict[str, Tensor], Tensor]:
    skeleton = ReadOut(maps.shape[1], protocol, seed).train()
    params, buffers = stack_module_state([skeleton] * targets)
    params = {name: value.detach().requires_grad_() for name, value in params.items()}
    optimiser = _optimiser(list(params.values()), protocol)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, protocol.drops, 0.1)
    of_rest, statistics = (
        {name.removeprefix("rest."): value for name, value in values.items() if "rest." in name}
        for values in (params, buffers)
    )

    def loss(params, buffers, small, *goal):
        return error(functional_call(skeleton.rest, (params, buffers), (small,))[:, 0], *goal)

    each = vmap(loss, in_dims=(0, 0, 1, 0, 0))
    rows = maps.permute(0, 2, 3, 1)  # contiguous, so that a batch is a copy of whole rows
    batch = min(protocol.batch, len(rows))
    taken = torch.empty(batch, *rows.shape[1:])
    order = torch.Generator().manual_seed(seed)
    losses = torch.full((targets,), math.nan)
    with exact_kernels(), torch.enable_grad():
        for _ in range(protocol.epochs):
            shuffled = torch.randperm(len(rows), generator=order)
            losses = torch.zeros(targets)
            for start in range(0, len(rows), batch):
                chosen = shuffled[start : start + batch]
                here = taken[: len(chosen)]
                torch.index_select(rows, 0, chosen, out=here)
                first = convolve(here.permute(0, 3, 1, 2), params["first.weight"], protocol.padding)
                if len(chosen) == 1:  # PyTorch's batch norm errs on one image, channels last
                    first = first.contiguous()
                values = each(of_rest, statistics, first, *error.goals)
                optimiser.zero_grad()
                values.sum().backward()  # no trial's loss depends on another's weights
                optimiser.step()
                losses += values.detach() * len(chosen) / len(rows)
            schedule.step()
    return {name: value.detach() for name, value in (params | buffers).items()}, losses


def convolve(maps: Tensor, weights: Tensor, padding: int = 0) -> Tensor:
    """Convolve the same maps with the weights of several trials.

    A convolution to a few channels leaves most of a processor's lanes idle. Here each of its
    k x k offsets is a channel of one 1 x 1 convolution, and the channels are shifted and added.

    Parameters
    ----------
    maps : Tensor, shape (n, C, h, w)
        Fastest in channels-last order of memory.
    weights : Tensor, shape (trials, width, C, k, k)
    padding : int
        Cells of zeros on each side.

    Returns
    -------
    Tensor, shape (n, trials, width, h + 2 padding - k + 1, w + 2 padding - k + 1)

    Examples
    --------
    >>> maps, weights = torch.rand(2, 3, 8, 8), torch.rand(4, 1, 3, 3, 3)
    >>> plain = torch.stack([F.conv2d(maps, one) for one in weights], 1)
    >>> torch.allclose(convolve(maps, weights), plain, atol=1e-5)
    True
    """
    trials, width, channels, kernel, _ = weights.shape
    if trials * width >= _LANES:
        every = F.conv2d(maps, weights.flatten(0, 1), padding=padding)
        return every.unflatten(1, (trials, width))
    offsets = weights.permute(3, 4, 0, 1, 2).reshape(-1, channels, 1, 1)
    if padding:
        maps = F.pad(maps, [padding] * 4)
    parts = F.conv2d(maps, offsets).unflatten(1, (kernel, kernel, trials * width))
    return _Shifted.apply(parts).unflatten(1, (trials, width))


class _Shifted(torch.autograd.Function):
    """out[..., y, x] = sum over i, j of parts[:, i, j, ..., y + i, x + j]."""

    @staticmethod
    def forward(ctx, parts: Tensor) -> Tensor:
        ctx.shape = parts.shape
        kernel = parts.shape[1]
        rows, columns = (side - kernel + 1 for side in parts.shape[-2:])
        return sum(
            parts[:, i, j, :, i : i + rows, j : j + columns]
            for i in range(kernel)
            for j in range(kernel)
        )

    @staticmethod
    def backward(ctx, slope: Tensor) -> Tensor:
        n, kernel, _, out, height, width = ctx.shape
        rows, columns = slope.shape[-2:]
        parts = slope.new_zeros(n, height, width, kernel, kernel, out)  # channels last
        for i in range(kernel):
            for j in range(kernel):
                parts[:, i : i + rows, j : j + columns, i, j] = slope.permute(0, 2, 3, 1)
        return parts.permute(0, 3, 4, 5, 1, 2)


def _optimiser(params: list[Tensor], protocol: Protocol) -> torch.optim.Optimizer:
    # Both act on every number by itself, so stacked trials do not touch each other.
    if protocol.optimiser == "adam":
        return torch.optim.Adam(params, protocol.lr, weight_decay=protocol.weight_decay)
    return torch.optim.SGD(
        params, protocol.lr, momentum=protocol.momentum, weight_decay=protocol.weight_decay
    )


class _Error:
    """Mean squared error between resized maps and targets, at the cost of the small maps.

    Resizing is linear, q = U p U', so |q - t|^2 = <p, G p G> - 2 <p, U' t U> + |t|^2 with
    G = U' U.
    """

    def __init__(self, targets: Sequence[Tensor], cells: int) -> None:
        painted = torch.stack([*targets]).double()
        grow = _resizing(cells, painted.shape[-1])
        self.gram = (grow.T @ grow).float()
        self.area = painted[0].numel()
        # Of each target: its projection, and its square.
        self.goals = (grow.T @ painted @ grow).float(), painted.square().sum((1, 2)).float()

    def __call__(self, small: Tensor, projected: Tensor, square: Tensor) -> Tensor:
        both = small * (self.gram @ small @ self.gram - 2 * projected)
        return (both.sum((1, 2)).mean() + square) / self.area


def _resizing(cells: int, size: int) -> Tensor:
    """Return the matrix (size, cells) of bilinear resizing with aligned corners, float64."""
    eye = torch.eye(cells, dtype=torch.float64)[None]
    return F.interpolate(eye, size=size, mode="linear", align_corners=True)[0].T


def _painted(targets: Sequence[str] | Mapping[str, Tensor], size: int) -> dict[str, Tensor]:
    if isinstance(targets, str):
        targets = [targets]
    if not isinstance(targets, Mapping):
        targets = {name: target(name, size) for name in targets}
    if not targets:
        raise ParameterError("no target given; give some of " + ", ".join(TARGETS))
    shape = next(iter(targets.values())).shape
    for name, values in targets.items():
        if values.ndim != 2 or values.shape[0] != values.shape[1] or values.shape != shape:
            raise ParameterError(
                f"target {name!r} has shape {tuple(values.shape)}; expected one square size for all"
            )
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise ParameterError(f"target {name!r} leaves [0, 1]; scale it")
    return dict(targets)


def _check_maps(maps: Tensor, protocol: Protocol) -> None:
    size = protocol.feature_size
    if maps.ndim != 4 or tuple(maps.shape[2:]) != (size, size) or len(maps) < 2:
        raise ParameterError(
            f"maps have shape {tuple(maps.shape)}; expected (n, C, {size}, {size}) with n of at "
            "least 2, as features() gives them"
        )


def ridge(
    maps: Tensor,
    targets: Sequence[str] | Mapping[str, Tensor] = TARGETS,
    protocol: Protocol = PUBLISHED,
    batch: int = 16,
) -> Trials:
    """Fit the best linear read-out in closed form: no initial weights, no order, no chance. [ours]

    Ridge regression of the target, resized to the read-out's map, on the 3 x 3 neighbourhoods of
    the features, which are centred and scaled by channel. The penalty is the one of nine with
    the least error on the last quarter of the windows; the read-out is then fitted to all.

    Parameters
    ----------
    maps, targets, protocol
        See :func:`train`. Of the protocol, kernel and sizes matter.
    batch : int
        Windows unfolded at a time.

    Returns
    -------
    Trials
        With the one seed 0.

    Examples
    --------
    >>> ridge(torch.rand(8, 3, 28, 28), ["H"]).penalty[0] > 0
    True
    """
    painted = _painted(targets, protocol.target_size)
    _check_maps(maps, protocol)
    protocol = replace(protocol, depth=1, padding=0)  # refuses a kernel as large as the grid
    kernel, channels, cells = protocol.kernel, maps.shape[1], protocol.cells
    size = {"size": (cells, cells), "mode": "bilinear", "align_corners": True}
    shrunk = F.interpolate(torch.stack([*painted.values()])[:, None], **size)
    shrunk = shrunk[:, 0].reshape(len(painted), -1).T.double()
    centre = maps.mean((0, 2, 3), keepdim=True)
    scale = maps.std((0, 2, 3), keepdim=True)
    steady = scale <= _FLAT * maps.abs().amax((0, 2, 3), keepdim=True)
    scale[steady] = math.inf  # what varies by rounding alone has no weight
    parts = maps.tensor_split([len(maps) - max(1, len(maps) // 4)])
    products = [_products(part, centre, scale, kernel, shrunk, batch) for part in parts]
    (gram, moment), (other_gram, other_moment) = products
    first, other = (len(part) * cells**2 for part in parts)
    power = shrunk.square().sum(0) * len(parts[1])
    errors = []
    for penalty in _PENALTIES:
        weights = _solve(gram, moment, penalty * first)
        cross = (weights * other_moment).sum(0)
        square = ((other_gram @ weights) * weights).sum(0)
        errors.append((square - 2 * cross + power) / other)
    best = torch.stack(errors).min(0)
    chosen = [float(_PENALTIES[i]) for i in best.indices]
    gram, moment = (sum(each) for each in zip(*products))
    fitted = [
        _solve(gram, moment[:, i : i + 1], penalty * (first + other))[:, 0]
        for i, penalty in enumerate(chosen)
    ]
    fitted = torch.stack(fitted)
    weight = fitted[:, :-1].reshape(-1, channels, kernel, kernel) / scale.double()
    bias = fitted[:, -1] - (weight * centre.double()).sum((1, 2, 3))
    state = {"weight": weight.float()[None], "bias": bias.float()[None]}
    losses = best.values.float()[None]
    return Trials((0,), tuple(painted), painted, protocol, state, losses, tuple(chosen))


def _products(
    maps: Tensor, centre: Tensor, scale: Tensor, kernel: int, targets: Tensor, batch: int
) -> tuple[Tensor, Tensor]:
    """Return the products of a regression's inputs with themselves and with the targets."""
    size = maps.shape[1] * kernel**2 + 1  # the last one is the intercept
    gram = torch.zeros(size, size, dtype=torch.float64)
    moment = torch.zeros(size, targets.shape[1], dtype=torch.float64)
    for some in maps.split(batch):
        patches = F.pad(F.unfold((some - centre) / scale, kernel), (0, 0, 0, 1), value=1.0)
        rows = patches.transpose(1, 2).reshape(-1, size)
        gram += (rows.T @ rows).double()
        moment += patches.sum(0).double() @ targets
    return gram, moment


def _solve(gram: Tensor, moment: Tensor, penalty: float) -> Tensor:
    ridge_ = torch.full((len(gram),), penalty, dtype=torch.float64)
    ridge_[-1] = 0  # the intercept is free
    # A channel that never varies leaves zeros; the penalty keeps the matrix regular.
    return torch.linalg.solve(gram + torch.diag(ridge_), moment)


# ----------------------------------------------------------------------------- evaluation


def scores(predicted: Tensor, goal: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Compare painted maps with a target.

    Parameters
    ----------
    predicted : Tensor, shape (n, size, size)
    goal : Tensor, shape (size, size)
        The target.

    Returns
    -------
    spc : ndarray, shape (n,)
        Spearman's rank correlation, -1 to 1, higher means more position information; NaN where
        the painted map is constant, or not finite, and so has none.
    mae : ndarray, shape (n,)
        Mean absolute error, 0 to 1, lower means more position information.

    Raises
    ------
    ParameterError
        A constant target, with which no map has a rank correlation, or shapes that differ.

    Examples
    --------
    >>> ramp = target("H", 8)
    >>> scores(torch.stack([ramp, 1 - ramp]), ramp)[0].round(6).tolist()
    [1.0, -1.0]
    """
    if predicted.shape[1:] != goal.shape:
        raise ParameterError(
            f"maps of {tuple(predicted.shape[1:])} cannot be compared with a target of "
            f"{tuple(goal.shape)}; expected the same"
        )
    if float(goal.max() - goal.min()) < _FLAT:
        raise ParameterError(
            "the target is constant, so Spearman's correlation with it is undefined; "
            "give one that varies"
        )
    if not len(predicted):
        return np.empty(0), np.empty(0)
    values = goal.reshape(-1).double().numpy()
    ranks = stats.rankdata(values)
    spc, mae = zip(
        *(
            _scored(part.reshape(len(part), -1).double().numpy(), values, ranks)
            for part in predicted.split(_TOGETHER)
        )
    )
    return np.concatenate(spc), np.concatenate(mae)


def _scored(flat: np.ndarray, goal: np.ndarray, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(flat, axis=1)
    ordered = np.take_along_axis(flat, order, 1)
    own = np.arange(1.0, flat.shape[1] + 1)
    spc = (ranks[order] - ranks.mean()) @ own / (own.std() * ranks.std() * len(own))
    # Equal values share a rank; few maps have any, so that ranking all would take thrice as long.
    for i in np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(1)):
        spc[i] = np.corrcoef(stats.rankdata(flat[i]), ranks)[0, 1] if np.ptp(flat[i]) else np.nan
    spc[~(ordered[:, -1] - ordered[:, 0] >= _FLAT)] = np.nan  # not a number is sorted last
    return spc, np.abs(flat - goal).mean(1)
