"""Two small networks for windows of the plane, with padding of every kind or none.

With the padding "optimal" no convolution pads, and the input brings the true surroundings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ppp.errors import PPPError
from ppp.padding import Scheme
from ppp.swapping import Pad2d, with_padding

PLANE_MEAN, PLANE_STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
PLANE_WINDOW = 96
"""Normalisation and side (px) of the windows of the plane."""

OPTIMAL = "optimal"
"""Padding of a network that pads nothing and is given the true surroundings instead."""
MIXED = "mixed"
"""Padding of a network that trains with another scheme in each batch."""


class SmallResNet(nn.Module):
    """Residual network of 3 x 3 convolutions; see :func:`small_resnet`."""

    def __init__(self, classes: int, *, pads: bool = True) -> None:
        super().__init__()
        self.surroundings = (0, 0) if pads else (48, 33)
        self.conv1 = nn.Conv2d(3, 16, 5, stride=2, padding=2 if pads else 0, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _Block(16, 16, 1, pads)
        self.layer2 = _Block(16, 32, 2, pads)
        self.layer3 = _Block(32, 48, 2, pads)
        self.layer4 = _Block(48, 80, 2, pads)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(80, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


class _Block(nn.Module):
    """The basic block of residual networks: two convolutions and a shortcut around them."""

    def __init__(self, before: int, width: int, stride: int, pads: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=int(pads), bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=int(pads), bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )
        # Cells before the first one that convolutions without padding still give.
        self.lost = 0 if pads else 1 + stride

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        x = x[..., self.lost :, self.lost :]
        x = x if self.downsample is None else self.downsample(x)
        return self.relu(out + x[..., : out.shape[2], : out.shape[3]])


class SmallVGG(nn.Module):
    """Plain network of 3 x 3 convolutions; see :func:`small_vgg`."""

    def __init__(self, classes: int, *, pads: bool = True) -> None:
        super().__init__()
        self.surroundings = (0, 0) if pads else (61, 61)
        blocks, before = [], 3
        for convolutions, width in ((1, 16), (2, 24), (2, 32), (2, 48), (2, 64)):
            for channels in (before, width)[:convolutions]:
                blocks += [
                    nn.Conv2d(channels, width, 3, padding=int(pads), bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                ]
            blocks.append(nn.MaxPool2d(2))
            before = width
        self.features = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def small_resnet(
    classes: int = 8,
    padding: str = "zeros",
    *,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Make a small residual network for 96 px windows, with total stride 16. [ours]

    Stem (5 x 5, stride 2, 16 channels), four stages of one basic block (16, 32, 48, 80
    channels, strides 1, 2, 2, 2), global average pool, linear: 0.15 million parameters.

    Parameters
    ----------
    classes : int
        Outputs, at least 1.
    padding : str
        Scheme of every padded convolution, see :data:`ppp.padding.SCHEMES`; or "optimal": no
        convolution pads, and the input brings the true surroundings, as many pixels as the
        attribute ``surroundings`` says (left and top, right and bottom). Its features are
        those of the window alone when they are pooled. Or "mixed": zeros, until :func:`pad_with`
        says another scheme. The names and shapes of its weights do not depend on the padding.
    seed : int
        Of the random weights; the global generator is not touched.
    generator : torch.Generator, optional
        Source of a stochastic padding's draws.

    Returns
    -------
    nn.Module
        In training mode; maps (n, 3, H, W) to (n, classes).

    Raises
    ------
    PaddingError
        Unknown padding scheme.

    Examples
    --------
    >>> small_resnet()(torch.zeros(2, 3, 96, 96)).shape
    torch.Size([2, 8])
    >>> surrounded = small_resnet(padding="optimal")
    >>> side = 96 + sum(surrounded.surroundings)
    >>> side, surrounded(torch.zeros(2, 3, side, side)).shape
    (177, torch.Size([2, 8]))
    """
    return _initialised(SmallResNet, classes, padding, seed, generator)


def small_vgg(
    classes: int = 8,
    padding: str = "zeros",
    *,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Make a small plain network for 96 px windows, with total stride 32. [ours]

    Five blocks of 3 x 3 convolutions with batch norm (one of 16 channels, then two each of
    24, 32, 48 and 64), each followed by a max-pool that pads nothing; global average pool,
    linear: 0.13 million parameters. Parameters, result and errors are those of
    :func:`small_resnet`.

    Examples
    --------
    >>> small_vgg()(torch.zeros(2, 3, 96, 96)).shape
    torch.Size([2, 8])
    """
    return _initialised(SmallVGG, classes, padding, seed, generator)


FAMILIES = {"resnet": small_resnet, "vgg": small_vgg}


def rebuilt(model: nn.Module, padding: str) -> nn.Module:
    """Return a small network with the same weights and another padding. [ours]

    Unlike :func:`ppp.with_padding`, it also knows "optimal", in both directions.

    Parameters
    ----------
    model : nn.Module
        Of :func:`small_resnet` or :func:`small_vgg`; left as it is.
    padding : str
        See :func:`small_resnet`.

    Returns
    -------
    nn.Module
        A copy in the mode of `model`.

    Raises
    ------
    PPPError
        Another network.

    Examples
    --------
    >>> rebuilt(small_vgg(), "optimal").surroundings
    (61, 61)
    """
    family = next((kind for kind in (SmallResNet, SmallVGG) if isinstance(model, kind)), None)
    if family is None:
        raise PPPError(f"{type(model).__name__} is no small network; see ppp.with_padding")
    state = model.state_dict()
    classes = next(reversed(state.values())).numel()  # the last bias
    with torch.random.fork_rng(devices=[]):
        fresh = family(classes, pads=padding != OPTIMAL)
    fresh.load_state_dict(state)
    fresh.train(model.training)
    return fresh if padding in ("zeros", OPTIMAL) else with_padding(fresh, padding)


def pad_with(model: nn.Module, scheme: str) -> None:
    """Let a network whose padding is "mixed" pad with `scheme` from now on.

    Examples
    --------
    >>> model = small_resnet(padding="mixed")
    >>> pad_with(model, "circular")
    >>> model.conv1.border
    Pad2d((2, 2, 2, 2), 'circular')
    """
    for module in model.modules():
        if isinstance(module, Pad2d):
            module.scheme = Scheme.parse(scheme)


def _initialised(family, classes, padding, seed, generator) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = family(classes, pads=padding != OPTIMAL)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if padding in ("zeros", OPTIMAL):
        return model
    if padding != MIXED:
        return with_padding(model, padding, generator=generator)
    model = with_padding(model, "reflect", generator=generator)  # a module at every padding
    pad_with(model, "zeros")
    return model
