"""The border-handling-variants (BHV) test: does a network tell classes by place?

A small network learns the Red-Green images (:mod:`studies.bhv.redgreen`) with one border
handling, and is tested on the training layout ("similar") and on the same images with their
blocks moved into the other class's rows ("dissimilar"). Network, protocol and variants are
those of the published code (Kayhan & van Gemert, CVPR 2020); what it leaves open is a
parameter here.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppp.errors import ParameterError, unknown
from ppp.swapping import with_generator, with_padding
from studies.bhv.redgreen import PUBLISHED_IMAGES, PUBLISHED_SEED, RedGreen
from studies.networks import OPTIMAL
from studies.networks.training import check_whole

LAYERS = ("relu1", "relu2", "relu3", "relu4")
"""Layers of interest: every convolution's output, after its ReLU."""
_WIDTHS, _STRIDES = (3, 32, 32, 64, 64), (1, 2, 2, 2)
_CHUNK = 20  # images whose maps stay in a core's cache together


@dataclass(frozen=True)
class Variant:
    """A border handling: `amount` cells on every side of every convolution, by `scheme`.

    Attributes
    ----------
    scheme : str
        See :data:`ppp.padding.SCHEMES`; or "optimal": nothing is padded, images come with so
        much true surroundings that the maps of the last layer have the same cells.
    amount : int
        Cells per side, 0 to 2.
    meaning : str
        In words.
    """

    scheme: str
    amount: int
    meaning: str


VARIANTS = {
    "V": Variant("zeros", 0, "no padding"),
    "S-zero": Variant("zeros", 1, "zeros, map keeps its size"),
    "S-circular": Variant("circular", 1, "the other side; 'circular, 2' before PyTorch 1.5"),
    "S-circular-2": Variant("circular", 2, "the other side; 'circular, 2' since PyTorch 1.5"),
    "F-zero": Variant("zeros", 2, "zeros, every weight meets every pixel (full convolution)"),
    "S-reflect": Variant("reflect", 1, "the map mirrored"),
    "S-replicate": Variant("replicate", 1, "the border repeated"),
    "S-randn": Variant("randn", 1, "random draws"),
    "S-optimal": Variant(OPTIMAL, 1, "true surroundings, cells of S-zero"),
    "F-optimal": Variant(OPTIMAL, 2, "true surroundings, cells of F-zero"),
}
"""The variants by name. The published test has V, S-zero, S-circular and F-zero."""


def variant(name: str) -> Variant:
    """Return a variant by its name.

    Raises
    ------
    ParameterError
        No such variant.

    Examples
    --------
    >>> variant("F-zero").amount
    2
    """
    if name not in VARIANTS:
        raise ParameterError(unknown("variant", name, VARIANTS))
    return VARIANTS[name]


def surroundings(name: str) -> tuple[int, int]:
    """Return how much canvas a variant's images need around them, before and after, px.

    Examples
    --------
    >>> surroundings("F-optimal"), surroundings("F-zero")
    ((16, 9), (0, 0))
    """
    chosen = variant(name)
    if chosen.scheme != OPTIMAL:
        return 0, 0
    # A cell of the last layer sees 17 px. Each cell of `amount` moves the first one's 17 px out by
    # 8 px, and adds another cell, 8 px on, at the other side.
    return 8 * chosen.amount, 8 * chosen.amount - 7


def network(name: str, seed: int) -> nn.Sequential:
    """Build the published network with a border handling and its initial weights.

    Four 3x3 convolutions without bias, with ReLU, global max-pooling and a linear layer. The
    same seed gives the weights that the published code begins with, for every variant.

    Parameters
    ----------
    name : str
        One of :data:`VARIANTS`.
    seed : int
        Of the weights, and of random padding.

    Returns
    -------
    nn.Sequential
        Takes (N, 3, H, W) and gives (N, 2); layers conv1, relu1, ..., conv4, relu4, pool,
        flatten, fc.

    Examples
    --------
    >>> network("F-zero", 0)(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 2])
    """
    chosen = variant(name)
    amount = 0 if chosen.scheme == OPTIMAL else chosen.amount
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for index, stride in enumerate(_STRIDES):
            layers[f"conv{index + 1}"] = nn.Conv2d(
                *_WIDTHS[index : index + 2], 3, stride, padding=amount, bias=False
            )
            layers[f"relu{index + 1}"] = nn.ReLU(inplace=True)
        layers |= {"pool": nn.AdaptiveMaxPool2d(1), "flatten": nn.Flatten()}
        layers["fc"] = nn.Linear(_WIDTHS[-1], 2)
    model = nn.Sequential(layers).to(memory_format=torch.channels_last)
    if chosen.scheme in ("zeros", OPTIMAL):
        return model
    return with_padding(model, chosen.scheme, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Protocol:
    """How a network is trained and which epoch's weights are kept.

    Attributes
    ----------
    split : {"leaked", "independent"}
        Whence validation and test images come: the first ones of the training set, as in the
        published code, whose generators all start from one seed; or seeds of their own.
    shuffled : bool
        Whether batches are drawn anew in every epoch; the published code never shuffles.
    epochs : int
        At most so many.
    patience : int
        Training ends when the validation loss has failed so many epochs, and once more, to
        fall below its best. The weights of the best epoch are kept.
    enough : float
        Validation loss below which training also ends, nats; 0 for the published code's way.
    n_train, n_validation, n_test, batch : int
        Numbers of images; the test has as many dissimilar images as similar ones.

    Raises
    ------
    ParameterError
        A number or a name that cannot be.

    Examples
    --------
    >>> Protocol(epochs=0)
    Traceback (most recent call last):
    ppp.errors.ParameterError: epochs = 0; expected a whole number of at least 1
    """

    split: str = "leaked"
    shuffled: bool = False
    epochs: int = 50
    patience: int = 8
    enough: float = 0.0
    n_train: int = 2000
    n_validation: int = 1000
    n_test: int = 1000
    batch: int = 200

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ParameterError(unknown("split", self.split, SPLITS))
        for name in ("epochs", "batch", "n_train", "n_validation", "n_test"):
            check_whole(name, getattr(self, name), 1)
        check_whole("patience", self.patience, 0)
        if not (type(self.enough) in (int, float) and self.enough >= 0):
            raise ParameterError(f"enough = {self.enough!r}; expected a loss of at least 0")
        most = max(self.n_validation, self.n_test)
        if self.split == "leaked" and most > self.n_train:
            raise ParameterError(
                f"{most} images for validation or test, but only {self.n_train} training images "
                "for the leaked split to take them from"
            )

    @property
    def seeds(self) -> dict[str, int]:
        """Seeds of the training, validation and test images."""
        step = 0 if self.split == "leaked" else 1
        names = ("training", "validation", "test")
        return {name: PUBLISHED_SEED + step * index for index, name in enumerate(names)}

    def shares_training(self, other: Protocol) -> bool:
        """Tell whether both train networks alike, and differ at most in which they keep."""
        kept = {name: getattr(self, name) for name in ("split", "epochs", "patience", "enough")}
        return replace(other, **kept) == self


SPLITS = ("leaked", "independent")
PUBLISHED = Protocol()
LONGER = {"epochs": 100, "patience": 20, "enough": 0.001}
"""When longer training ends [ours]."""
CLEAN = Protocol(split="independent", shuffled=True, **LONGER)
PROTOCOLS = {"published": PUBLISHED, "clean": CLEAN}
"""The published protocol, and one without its shortcuts [ours]."""


@dataclass
class Kept:
    """What training kept under one protocol.

    Attributes
    ----------
    variant : str
    protocol : Protocol
    model : nn.Module
        The network at the kept epoch, in eval mode.
    epoch : int
        The kept epoch, from 1.
    ended : int
        The last epoch before training ended.
    validation_loss : float
        Of the kept epoch, nats.
    """

    variant: str
    protocol: Protocol
    model: nn.Module
    epoch: int = 0
    ended: int = 0
    validation_loss: float = math.inf
    _waited: int = 0
    _state: dict[str, Tensor] | None = None

    @property
    def running(self) -> bool:
        tired = self._waited > self.protocol.patience or self.ended >= self.protocol.epochs
        return not (tired or self.validation_loss < self.protocol.enough)

    def offer(self, epoch: int, loss: float, model: nn.Module) -> None:
        """Keep the weights if the validation loss is the best so far."""
        self.ended = epoch
        if self._state is None or loss < self.validation_loss or math.isnan(self.validation_loss):
            self.validation_loss, self.epoch, self._waited = loss, epoch, 0
            self._state = {k: v.detach().clone() for k, v in model.state_dict().items()}
        else:
            self._waited += 1

    def restored(self) -> Kept:
        """Give the model its kept weights."""
        self.model.load_state_dict(self._state)
        self.model.eval()
        return self


def train(
    name: str,
    protocols: Protocol | Sequence[Protocol] = PUBLISHED,
    data: RedGreen = PUBLISHED_IMAGES,
    seed: int = 0,
) -> tuple[list[Kept], pd.DataFrame]:
    """Train one network and keep its best weights under each protocol.

    Protocols that differ in nothing but what is kept (split, epochs, patience, enough) share one
    training. Images go through the network in pieces that fit a core's cache, so a step has
    the published batch's gradient up to rounding.

    Parameters
    ----------
    name : str
        One of :data:`VARIANTS`.
    protocols : Protocol or sequence of Protocol
    data : RedGreen
    seed : int
        0 to 2**32 - 1, of the initial weights, the shuffling and random padding.

    Returns
    -------
    kept : list of Kept
        One per protocol.
    log : DataFrame
        One row per epoch: training loss (nats) and accuracy (0 to 1) while the weights change,
        and both on the validation images of every split that is asked for.

    Raises
    ------
    ParameterError
        An unknown variant, no protocol, or protocols that cannot share one training.

    Examples
    --------
    >>> small = Protocol(epochs=1, n_train=40, n_validation=20, n_test=20, batch=20)
    >>> kept, log = train("V", small)
    >>> kept[0].epoch, len(log)
    (1, 1)
    """
    protocols = [protocols] if isinstance(protocols, Protocol) else list(protocols)
    check_whole("seed", seed, 0, 2**32 - 1)
    if not protocols:
        raise ParameterError("no protocol given; expected at least one")
    first = protocols[0]
    if not all(first.shares_training(p) for p in protocols):
        raise ParameterError("protocols that share a training may differ in what is kept alone")
    around = surroundings(name)
    images, labels = data.images(first.n_train, PUBLISHED_SEED, surroundings=around)
    held = {
        p.split: data.images(p.n_validation, p.seeds["validation"], surroundings=around)
        for p in protocols
    }
    model = network(name, seed)
    optimiser = torch.optim.Adadelta(
        model.parameters(), lr=1.0, rho=0.9, eps=1e-6, weight_decay=5e-5
    )
    order, generator = torch.arange(len(images)), torch.Generator().manual_seed(seed)
    kept = [Kept(name, protocol, network(name, seed)) for protocol in protocols]
    log = []
    while any(one.running for one in kept):
        if first.shuffled:
            order = torch.randperm(len(images), generator=generator)
        row = {"epoch": len(log) + 1} | _epoch(model, optimiser, images, labels, order, first.batch)
        for split in dict.fromkeys(one.protocol.split for one in kept if one.running):
            loss, right = _judged(model, *held[split])
            row |= {f"{split}_loss": loss, f"{split}_accuracy": right}
        for one in kept:
            if one.running:
                one.offer(row["epoch"], row[f"{one.protocol.split}_loss"], model)
        log.append(row)
    return [one.restored() for one in kept], pd.DataFrame(log)


def _epoch(model, optimiser, images: Tensor, labels: Tensor, order: Tensor, batch: int) -> dict:
    total, right = 0.0, 0
    for chosen in order.split(batch):
        optimiser.zero_grad()
        for piece in chosen.split(_CHUNK):
            scores = model(images[piece])
            loss = F.cross_entropy(scores, labels[piece], reduction="sum") / len(chosen)
            loss.backward()
            total += float(loss.detach()) * len(chosen)
            right += int((scores.argmax(1) == labels[piece]).sum())
        optimiser.step()
    return {"loss": total / len(order), "accuracy": right / len(order)}


@torch.no_grad()
def _judged(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    model = with_generator(model, torch.Generator().manual_seed(0))
    scores = torch.cat([model(piece) for piece in images.split(_CHUNK)])
    right = (scores.argmax(1) == labels).double().mean()
    return F.cross_entropy(scores, labels).item(), right.item()


def accuracies(
    kept: Kept, shifts: Iterable[int], data: RedGreen = PUBLISHED_IMAGES
) -> dict[int, float]:
    """Test a network on its protocol's test images, moved by each shift.

    Parameters
    ----------
    kept : Kept
    shifts : iterable of int
        Rows; 0 is the similar test.
    data : RedGreen
        On which it was trained.

    Returns
    -------
    dict of int to float
        Accuracy, 0 to 1, by shift.
    """
    n, seed = kept.protocol.n_test, kept.protocol.seeds["test"]
    around = surroundings(kept.variant)
    return {shift: _judged(kept.model, *data.images(n, seed, shift, around))[1] for shift in shifts}
