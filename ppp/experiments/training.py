"""Train a small network on the plane: tell the shape of the leaves in a window. [ours]

    python -m ppp.experiments.training --family resnet --padding zeros --seed 0

The label belongs to the scene and not to a place in the window, so nothing in the task
asks for position. Training and test scenes have disjoint seeds.
"""

from __future__ import annotations

import argparse
import copy
import csv
import hashlib
import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from ppp.errors import ParameterError, PPPError, unknown
from ppp.experiments import files
from ppp.experiments.networks import (
    FAMILIES,
    PLANE_MEAN,
    PLANE_STD,
    PLANE_WINDOW,
    SHIPPED,
    manifest,
    normalise,
)
from ppp.experiments.plane import SHAPES, render_windows
from ppp.swapping import with_generator

_TEST_SCENES = 1 << 40  # first seed of a test scene; training scenes lie below
_SCENES = 1 << 24  # scenes that belong to one training seed
_SPAN = 1 << 20  # px, windows start anywhere in this square around the origin
_EVERY = 50  # steps between rows of the log
_CLIP = 5.0  # norm of the gradient


@dataclass(frozen=True)
class Run:
    """A finished training run.

    Attributes
    ----------
    model : nn.Module
        The trained network, in evaluation mode, on the CPU.
    log : list of dict
        Rows of ``step``, ``loss``, ``train_accuracy`` (means since the row before) and
        ``test_accuracy`` (of a fixed part of the test windows), accuracies in [0, 1].
    record : dict
        What the manifest holds of it.
    """

    model: nn.Module
    log: list[dict[str, float]]
    record: dict[str, object]


def train(
    family: str,
    *,
    padding: str = "zeros",
    seed: int = 0,
    steps: int = 800,
    batch: int = 64,
    lr: float = 0.1,
    n_test: int = 2048,
    out: str | Path | None = None,
    device: str | None = None,
    progress: bool = True,
    after_step: Callable[[int, nn.Module], None] | None = None,
) -> Run:
    """Train a small network on windows of fresh scenes. [ours]

    Stochastic gradient descent with Nesterov momentum 0.9, weight decay 5e-4 and a
    one-cycle learning rate, on cross-entropy. Two runs with the same arguments on the same
    machine and number of threads give the same weights, bit for bit.

    Parameters
    ----------
    family : {"resnet", "vgg"}
    padding : str
        Scheme the network trains with, see :data:`ppp.padding.SCHEMES`.
    seed : int
        0 to 65535, of the initial weights, the training scenes and a stochastic padding.
    steps, batch : int
        Number of steps, at most 65536, and windows in each, 2 to 256.
    lr : float
        Largest learning rate.
    n_test : int
        Test windows, each of another scene that training never sees.
    out : path, optional
        Folder that receives the weights, the log (CSV) and an entry in ``manifest.json``;
        nothing is written before the run has finished. Nothing at all without it.
    device : str, optional
        By default CUDA if there is one, else the CPU.
    progress : bool
        Show a bar.
    after_step : callable, optional
        Called with the number of steps done and the model (in training mode, which it must
        restore), at 0 and after every step.

    Returns
    -------
    Run

    Raises
    ------
    ParameterError
        A number out of range, or an unknown family.
    PaddingError
        Unknown padding scheme.

    Examples
    --------
    >>> run = train("resnet", steps=2, batch=2, n_test=4, progress=False)
    >>> run.record["steps"], 0 <= run.record["test_accuracy"] <= 1
    (2, True)
    """
    if family not in FAMILIES:
        raise ParameterError(unknown("family", family, FAMILIES))
    for name, value, least, most in (
        ("seed", seed, 0, _TEST_SCENES // _SCENES - 1),
        ("batch", batch, 2, _SCENES >> 16),
        ("steps", steps, 1, 1 << 16),
        ("n_test", n_test, 1, _SCENES),
    ):
        if type(value) is not int or not least <= value <= most:
            raise ParameterError(f"{name} = {value!r}; expected a whole number, {least} to {most}")
    if not (isinstance(lr, int | float) and 0 < lr <= 10):
        raise ParameterError(f"lr = {lr!r}; expected a number above 0, up to 10")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    began = time.perf_counter()
    noise = torch.Generator(device).manual_seed(seed)
    model = FAMILIES[family](len(SHAPES), padding, seed=seed, generator=noise)
    model = model.to(device, memory_format=torch.channels_last)
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.SGD(
        [{"params": decay, "weight_decay": 5e-4}, {"params": rest}],
        lr=lr, momentum=0.9, nesterov=True,
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps + 1)

    first_scene = seed * _SCENES
    batches = _batches(first_scene, batch, seed)
    peek = min(n_test, 256)
    log, loss_sum, right = [], 0.0, 0
    if after_step:
        after_step(0, model)
    bar = tqdm(range(1, steps + 1), f"{family} {padding} seed {seed}", disable=not progress)
    for step in bar:
        pixels, labels = (part.to(device) for part in next(batches))
        scores = model(pixels.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(scores, labels)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
        optimiser.step()
        schedule.step()
        if after_step:
            after_step(step, model)
        loss_sum += float(loss.detach())
        right += int((scores.argmax(1) == labels).sum())
        if step % _EVERY == 0 or step == steps:
            since = step - (log[-1]["step"] if log else 0)
            row = {
                "step": step,
                "loss": loss_sum / since,
                "train_accuracy": right / (since * batch),
                "test_accuracy": accuracy(model, peek, device),
            }
            log.append(row)
            loss_sum, right = 0.0, 0
            bar.set_postfix(loss=f"{row['loss']:.3f}", test=f"{row['test_accuracy']:.1%}")

    stem = f"plane-{family}-{padding}-seed{seed}"
    record = {
        "file": f"{stem}.safetensors", "family": family, "padding": padding, "seed": seed,
        "train_scenes": [first_scene, first_scene + steps * batch],
        "test_scenes": [_TEST_SCENES, _TEST_SCENES + n_test],
        "shapes": list(SHAPES), "window": PLANE_WINDOW, "steps": steps, "batch": batch, "lr": lr,
        "test_accuracy": accuracy(model, n_test, device), "n_test": n_test,
        "seconds": round(time.perf_counter() - began, 1), "device": device,
        "threads": torch.get_num_threads(), "torch": torch.__version__.split("+")[0],
    }  # fmt: skip
    model = model.to("cpu", memory_format=torch.contiguous_format).eval()
    if out is not None:
        _ship(model, log, record, Path(out))
    return Run(model, log, record)


def accuracy(model: nn.Module, n: int, device: str = "cpu") -> float:
    """Share of `n` test windows, each of its own scene, whose shape the network tells.

    Always the same windows, and the same draws of random padding, so that numbers compare. The
    model's mode is restored.

    Examples
    --------
    >>> from ppp.experiments.networks import load_network
    >>> accuracy(load_network("plane-resnet", "trained").model, 32) > 0.7
    True
    """
    mode = model.training
    model.eval()
    network = with_generator(model, torch.Generator(device).manual_seed(0))
    right = 0
    with torch.inference_mode():
        for start in range(0, n, 128):
            pixels, labels = windows(_TEST_SCENES + start, min(128, n - start), 0)
            scores = network(pixels.to(device).contiguous(memory_format=torch.channels_last))
            right += int((scores.argmax(1).cpu() == labels).sum())
    model.train(mode)
    return right / n


def with_batch_statistics(model: nn.Module, n: int = 512, *, first_scene: int = 0) -> nn.Module:
    """Return a copy whose batch-norm statistics are those of `n` training windows. [ours]

    An initial network has statistics that no data has shaped (mean 0, variance 1); measured
    with them, its features grow from layer to layer. This gives it its own, and nothing else.

    Parameters
    ----------
    model : nn.Module
        Left as it is.
    n : int
        Windows, one a scene; at least 2.
    first_scene : int
        Seed of the first scene, by default that of training.

    Returns
    -------
    nn.Module
        In eval mode.

    Examples
    --------
    >>> from ppp.experiments.networks import load_network
    >>> initial = load_network("plane-resnet", "initial").model
    >>> bool((with_batch_statistics(initial, 16).bn1.running_mean != 0).any())
    True
    """
    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # the plain average over all batches
    with torch.no_grad():
        for start in range(0, n, 64):
            model(windows(first_scene + start, min(64, n - start), 0)[0])
    return model.eval()


def windows(first_scene: int, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Render normalised windows of `n` scenes, and their labels.

    Parameters
    ----------
    first_scene : int
        Seed of the first scene; the others follow it. Shapes take turns.
    n : int
        Number of windows, one a scene.
    seed : int
        0 or more, of the places.

    Returns
    -------
    pixels : Tensor of shape (n, 3, 96, 96), float32
    labels : Tensor of shape (n,), int64, indices into `SHAPES`

    Examples
    --------
    >>> windows(0, 3, 0)[1]
    tensor([0, 1, 2])
    """
    scenes = np.arange(first_scene, first_scene + n)
    shapes = scenes % len(SHAPES)
    draw = np.random.default_rng([seed, first_scene])
    tops, lefts = draw.integers(-_SPAN, _SPAN, (2, n))
    pixels = render_windows(scenes, shapes, tops, lefts, PLANE_WINDOW)
    return normalise(pixels, PLANE_MEAN, PLANE_STD), torch.from_numpy(shapes)


def _batches(first_scene: int, batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield windows(first_scene, batch, seed)
        first_scene += batch


def _ship(model: nn.Module, log: list[dict], record: dict, out: Path) -> None:
    """Write weights, log and manifest entry, each whole or not at all; the manifest last."""
    content = save({k: v.contiguous() for k, v in model.state_dict().items()})
    record["sha256"] = hashlib.sha256(content).hexdigest()
    stem = record["file"].removesuffix(".safetensors")
    table = io.StringIO()
    writer = csv.DictWriter(table, log[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: v if k == "step" else round(v, 5) for k, v in row.items()} for row in log)
    out.mkdir(parents=True, exist_ok=True)
    entries = manifest(out) if (out / "manifest.json").exists() else {}
    entries[stem] = record
    files.write(out / record["file"], content)
    files.write(out / f"{stem}.csv", table.getvalue().encode())
    files.write(
        out / "manifest.json", (json.dumps(entries, indent=2, sort_keys=True) + "\n").encode()
    )


def main(arguments: list[str] | None = None) -> int:
    """Run one training from the command line."""
    parser = argparse.ArgumentParser(prog="python -m ppp.experiments.training")
    parser.add_argument("--family", default="resnet", choices=FAMILIES)
    parser.add_argument("--padding", default="zeros")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--n-test", type=int, default=2048)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    try:
        run = train(**vars(parser.parse_args(arguments)))
    except (PPPError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    shown = ("file", "test_accuracy", "n_test", "seconds")
    print(", ".join(f"{key} {run.record[key]}" for key in shown))
    return 0


if __name__ == "__main__":
    sys.exit(main())
