"""Can a network that was trained with zeros adapt to another padding? [ours]

EfficientNet-Lite0 learns, on crops of photographs under a scheme, to give the logits that it gave
before: with true surroundings (teacher "optimal"), or with zeros. This shows whether a network can
adapt, and what becomes of its pattern. It is no evidence of learning on purpose: a student of a
teacher without a pattern is paid for losing its own, one of a zero-padded teacher for copying it.

A picture keeps the surroundings of its crops as far as it goes: at least 256 px on each side,
where the last layer's margin is 416 px above and left, 448 px below and right. So the optimal
teacher is nearly optimal in training. In measuring it has all of the margin.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

import ppp
from ppp.certificate import Coverage
from ppp.extraction import extract
from ppp.results import PROOF
from studies import paths
from studies.networks import OPTIMAL, Network, load_network
from studies.pretrained import pictures
from studies.runs import Run, Study
from studies.storage import tables

DATA = paths.data("pretrained-adaptation")
"""What is shipped."""
NETWORK, HEAD = "efficientnet-lite0", "head"
STEPS, BATCH, RATE = 240, 8, 3e-5
"""Steps, crops in each, and the first learning rate, which falls to 0 along a cosine.

The rate (of 1e-4 and 3e-5), the loss (of this one and :func:`divergence`) and what is trained (of
all and of batch norm's scales and shifts) were chosen with reflect under the optimal teacher, by
the loss on three of the photographs of training, held out for it; there are as many steps as time
allows. A first design (divergence as the loss, rate 1e-4, crops of 128 px, no changes of the
photographs) fitted its crops and moved away from its teacher on the photographs that are measured,
and was given up for that; its first arm's patterns had been seen by then, too. No choice was made
by a pattern."""
MARKS = (0, 1 / 8, 1 / 4, 1 / 2, 1)
"""Parts of the steps after which a network is measured."""

_CROP, _AROUND, _STRIDE = 224, 256, 32  # px
_VARIANTS = 8  # of each photograph
_FEW, _ALL = ("few", 3, 4), ("all", 1, 8)  # name, one photograph of so many, windows on each


Answers = dict[str, Tensor]
"""Logits (n, 1000) "padded", and with "optimal" padding."""


@dataclass(frozen=True, order=True)
class Arm(Run):
    """Whose answers a network learns, and under which padding."""

    teacher: str
    scheme: str
    seed: int


# --------------------------------------------------------------------------------- training


def _variant(photo: pictures.Photograph, draw: np.random.Generator) -> Tensor:
    """Reduce, recolour, turn and mirror a photograph; crops keep their surroundings."""
    least = _CROP + 2 * _AROUND + _STRIDE  # px
    side = int(draw.integers(least, min(photo.height, photo.width) + 1))
    pixels = pictures.Reduced(photo, side).pixels()
    pixels = pixels[draw.permutation(3).tolist()] ** draw.uniform(0.7, 1.4)
    pixels = pixels.rot90(int(draw.integers(4)), (1, 2))
    return pixels.flip(-1) if draw.integers(2) else pixels


@cache
@torch.no_grad()
def _lessons() -> list[tuple[Tensor, Tensor]]:
    """Return pictures, and the optimal teacher's logits for each crop on the stride's grid."""
    network, draw, lessons = load_network(NETWORK, "imagenet"), np.random.default_rng(0), []
    inner = slice(_AROUND // _STRIDE, -_AROUND // _STRIDE)
    for photo in pictures.apart():
        for _ in range(_VARIANTS):
            picture = network.prepare(_variant(photo, draw))
            height, width = (side // _STRIDE * _STRIDE for side in picture.shape[1:])
            picture = picture[:, :height, :width].contiguous()
            last = picture[None].contiguous(memory_format=torch.channels_last)
            maps = extract(network.model, last, [HEAD])[HEAD]
            pooled = F.avg_pool2d(maps, _CROP // _STRIDE, 1)[0, :, inner, inner].permute(1, 2, 0)
            lessons.append((picture, network.model.classifier(pooled)))
    return lessons


def _batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield crops (n, 3, 224, 224) and the optimal teacher's logits for them."""
    draw = np.random.default_rng([seed, 1])
    while True:
        crops, answers = [], []
        for index in draw.integers(len(_lessons()), size=BATCH):
            picture, known = _lessons()[index]
            place = draw.integers(known.shape[:2])
            y, x = _AROUND + _STRIDE * place
            crops.append(picture[:, y : y + _CROP, x : x + _CROP])
            answers.append(known[tuple(place)])
        yield torch.stack(crops).to(memory_format=torch.channels_last), torch.stack(answers)


def divergence(answers: Tensor, teacher: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of softmaxes from the teacher's, (n,), in nats."""
    taught, given = teacher.log_softmax(1), answers.log_softmax(1)
    return F.kl_div(given, taught, reduction="none", log_target=True).sum(1)


def _adapted(run: Arm) -> Iterator[tuple[int, nn.Module, float]]:
    """Yield each step, the network before it, which is the same and changes, and its loss.

    The loss is the squared error of the logits, mean over classes. With true surroundings the
    softmax of the original is nearly flat on many pictures, and a divergence from it would be
    small for a network that has lost its features, too. Batch norm keeps the statistics of
    ImageNet: those of so few photographs would change every channel for reasons that are not
    padding's.
    """
    original = load_network(NETWORK, "imagenet").model
    noise = torch.Generator().manual_seed(run.seed)
    model = ppp.with_padding(copy.deepcopy(original), run.scheme, generator=noise)
    optimiser = torch.optim.Adam(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for step, (crops, answers) in zip(range(STEPS + 1), _batches(run.seed)):
        if run.teacher != OPTIMAL:
            with torch.no_grad():
                answers = original(crops)
        optimiser.zero_grad()
        loss = F.mse_loss(model(crops), answers)
        loss.backward()
        yield step, model, float(loss.detach())
        optimiser.step()
        schedule.step()


# -------------------------------------------------------------------------------- measuring


@cache
def _measurable() -> tuple[Network, Coverage, list[pictures.Reduced]]:
    """Return the network, its reach up to the head, and the photographs that serve all layers."""
    network = load_network(NETWORK, "imagenet")
    reach = ppp.coverage(network.model, [*network.layers, HEAD], network.window)
    photos = pictures.reduced(pictures.measured(), NETWORK)
    return network, reach, pictures.by_layers(photos, reach, network)[tuple(reach)]


def observed(
    model: nn.Module, scheme: str, nth: int, each: int
) -> tuple[pd.DataFrame, list[str], Answers]:
    """Measure PPP of a network under a scheme, and take its answers on the same windows.

    They are `each` a photograph, in every `nth` of those that are measured and serve all layers.

    Returns
    -------
    metrics : DataFrame
        The columns of :meth:`ppp.Measurement.table` from "layer" on, a row for each layer.
    pictures : list of str
        Of each window.
    answers : dict of str to Tensor, shape (n, 1000)
        Logits "padded", and with "optimal" padding.
    """
    network, reach, photos = _measurable()
    places, answers = [], {"padded": [], OPTIMAL: []}
    windows = ppp.cut_windows(
        photos[::nth], network.window, reach, per_picture=each, seed=0, transform=network.prepare
    )

    def look(picture: str, _scheme: str, layer: str, padded: Tensor, true: Tensor) -> None:
        if layer == HEAD:
            places.extend([picture] * len(padded))
            for given, maps in zip(answers.values(), (padded, true)):
                given.append(model.classifier(model.pool(maps).flatten(1)))

    measured = ppp.measure(
        model, windows, list(reach), scheme, coverage=reach, groups=1000, maps=look
    )
    table = measured.table().drop(columns=["scheme", *PROOF]).query("layer != @HEAD")
    return table, places, {name: torch.cat(given) for name, given in answers.items()}


@cache
def _unchanged(scheme: str, nth: int, each: int) -> tuple[pd.DataFrame, list[str], Answers]:
    return observed(_measurable()[0].model, scheme, nth, each)


def _agreement(pictures: list[str], answers: Answers, nth: int, each: int) -> pd.DataFrame:
    """Compare answers to those of the original, with all of the margin around it and with zeros."""
    known, rows = _unchanged("zeros", nth, each)[2], []
    for surroundings, given in answers.items():
        for reference, taught in ((OPTIMAL, known[OPTIMAL]), ("zeros", known["padded"])):
            head = {"surroundings": surroundings, "reference": reference, "picture": pictures}
            same = (given.argmax(1) == taught.argmax(1)).double()
            marks = {"n": 1, "top1": same, "divergence": divergence(given, taught)}
            marks["error"] = (given - taught).square().mean(1)
            rows.append(pd.DataFrame(head | marks))
    how = dict.fromkeys(marks, "mean") | {"n": "sum"}
    return pd.concat(rows).groupby([*head], sort=False).agg(how).reset_index()


def compute(run: Arm) -> dict[str, pd.DataFrame | bytes]:
    """Adapt a network and measure it on the way; the last time with weights as they are kept.

    Returns
    -------
    dict
        "loss": step and loss in training. "metrics": step, windows ("few", "all"), and the
        first table of :func:`observed`. "agreement": step, windows, surroundings of the adapted
        network ("padded", "optimal"), reference (the original with "optimal" padding, or
        "zeros"), picture, n (windows), top1 (share whose first class is the same), divergence
        (nats) and error (as the loss). "adapted.safetensors": the weights, in half precision.
    """
    losses, metrics, agreement, weights = {}, {}, {}, {}
    for step, model, loss in _adapted(run):
        losses[step] = loss
        if step == STEPS:
            halves = (v.half() if v.is_floating_point() else v for v in model.state_dict().values())
            model.load_state_dict(weights := dict(zip(model.state_dict(), halves)))
        chosen = [_FEW] if step in {int(part * STEPS) for part in MARKS} else []
        for name, *which in chosen + [_ALL] * (step in (0, STEPS)):
            seen = observed(model, run.scheme, *which) if step else _unchanged(run.scheme, *which)
            metrics[step, name] = seen[0]
            agreement[step, name] = _agreement(*seen[1:], *which)
    kept = {"loss": pd.DataFrame(losses.items(), columns=["step", "loss"])[:-1]}
    for name, parts in (("metrics", metrics), ("agreement", agreement)):
        joint = pd.concat(parts, names=["step", "windows", "row"])
        kept[name] = joint.reset_index().drop(columns="row")
    return kept | {"adapted.safetensors": save(weights)}


def full_design() -> list[Arm]:
    """List the arms; zeros has nothing to learn from its own teacher: the unchanged network."""
    pairs = [(OPTIMAL, "randn"), (OPTIMAL, "zeros"), (OPTIMAL, "reflect"), ("zeros", "randn")]
    pairs += [("zeros", "reflect"), (OPTIMAL, "replicate"), (OPTIMAL, "circular")]
    return [Arm(*pair, 0) for pair in pairs]


DIGITS = {"loss": 4, "metrics": 6, "agreement": 5}
TABLES = {name: f"{name}.csv.gz" for name in DIGITS}
STUDY = Study("pretrained-adaptation", Arm, full_design, compute, TABLES, DIGITS)


def read(name: str, data: str | Path = DATA) -> pd.DataFrame:
    """Read one of the shipped tables, see :func:`compute`."""
    return tables.read_table(Path(data) / TABLES[name])
