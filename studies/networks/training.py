"""Train a small network on the plane: tell the shape of the leaves in a window.

The label belongs to the scene and not to a place in the window, so nothing in the task
asks for position. Training and test scenes have disjoint seeds. Networks with the same
seed begin with the same weights and see the same windows in the same order, whatever
their padding.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import load as load_safetensors, save as save_safetensors
from torch import Tensor, nn
from tqdm import tqdm

from ppp.errors import (
    DocumentError,
    ParameterError,
    WeightsError,
    first_line,
    first_words,
    shown,
    unknown,
)
from ppp.files import digest
from ppp.padding import Scheme
from ppp.swapping import with_generator
from studies.networks import (
    FAMILIES,
    MIXED,
    OPTIMAL,
    PLANE_MEAN,
    PLANE_STD,
    PLANE_WINDOW,
    normalise,
)
from studies.networks.names import PADDINGS
from studies.networks.small import pad_with
from studies.parameters import check_whole
from studies.pictures.plane import SHAPES, render_windows
from studies.storage import documents, tables

_TEST_SCENES = 1 << 40  # first seed of a test scene; training scenes lie below
_SCENES = 1 << 24  # scenes that belong to one training seed
_SPAN = 1 << 20  # px, windows start anywhere in this square around the origin
_EVERY = 64  # steps between rows of the log, and between saved states
_CLIP = 5.0  # norm of the gradient
_PLAIN = (int, float, str, bool, list)  # types that a kept state may hold

Observation = tuple[list[dict[str, object]], dict[str, Tensor]]
"""What an observer gives: rows of a table, and tensors by name."""


@dataclass(frozen=True)
class Settings:
    """What determines a training run's weights, on one machine and number of threads.

    Attributes
    ----------
    family : {"resnet", "vgg"}
    padding : str
        Scheme the network trains with, see :data:`ppp.padding.SCHEMES`; or "optimal": it pads
        nothing, its windows come with their true surroundings, and features are cut to the
        window before they are pooled; or "mixed": each batch has one of the schemes that the small
        networks train with, drawn at random.
    seed : int
        0 to 65535, of the initial weights, the training scenes and a stochastic padding.
    steps, batch : int
        Number of steps, at most 65536, and windows in each, 2 to 1024.
    lr : float
        Largest learning rate, above 0, up to 10.
    n_train : int
        Training windows, each of another scene; at least `batch`. One epoch is
        ``n_train // batch`` steps.

    Raises
    ------
    ParameterError
        An unknown family or padding, or a number out of range.

    Examples
    --------
    >>> Settings("resnet", "reflect", seed=3).stem
    'plane-resnet-reflect-seed3'
    """

    family: str
    padding: str = "zeros"
    seed: int = 0
    steps: int = 1280
    batch: int = 32
    lr: float = 0.1
    n_train: int = 10240

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ParameterError(unknown("family", self.family, FAMILIES))
        if self.padding not in (OPTIMAL, MIXED):
            Scheme.parse(self.padding)
        for name, least, most in (
            ("seed", 0, _TEST_SCENES // _SCENES - 1),
            ("steps", 1, 1 << 16),
            ("batch", 2, 1024),
            ("n_train", 2, _SCENES),
        ):
            check_whole(name, getattr(self, name), least, most)
        if not (isinstance(self.lr, int | float) and 0 < self.lr <= 10):
            raise ParameterError(f"lr = {self.lr!r}; expected a number above 0, up to 10")
        if self.n_train < self.batch:
            raise ParameterError(
                f"n_train = {self.n_train} is less than one batch of {self.batch} windows"
            )

    @property
    def stem(self) -> str:
        """Name of the run and of its files."""
        return f"plane-{self.family}-{self.padding}-seed{self.seed}"

    @property
    def first_scene(self) -> int:
        """Seed of the first training scene."""
        return self.seed * _SCENES

    @property
    def epoch(self) -> int:
        """Steps in one epoch."""
        return self.n_train // self.batch


@dataclass
class Run:
    """A finished training run.

    Attributes
    ----------
    model : nn.Module
        The trained network, in evaluation mode, on the CPU.
    log : list of dict
        Rows of ``step``, ``loss`` and ``train_accuracy``: means since the row before.
    record : dict
        Settings, accuracy on unseen scenes, device, wall time, versions.
    rows : list of dict
    tensors : dict of str to Tensor
        What the observer gave, over all steps.
    """

    model: nn.Module = field(repr=False)
    log: list[dict[str, float]]
    record: dict[str, object]
    rows: list[dict[str, object]] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)


def train(
    family: str,
    *,
    padding: str = "zeros",
    seed: int = 0,
    steps: int = Settings.steps,
    batch: int = Settings.batch,
    lr: float = Settings.lr,
    n_train: int = Settings.n_train,
    n_test: int = 2048,
    until: int | None = None,
    folder: str | Path | None = None,
    device: str | None = None,
    progress: bool = True,
    observe: Callable[[int, nn.Module], Observation] | None = None,
    observe_at: Sequence[int] = (),
    start: nn.Module | None = None,
) -> Run:
    """Train a small network on windows of the plane. [ours]

    Stochastic gradient descent with Nesterov momentum (0.95 at both ends, 0.85 at the peak of
    the learning rate), weight decay 5e-4 and a one-cycle learning rate, on cross-entropy; each
    batch is turned or mirrored as a whole, at random. Two runs with the same settings on the
    same machine and number of threads give the same weights, bit for bit, also if one of them
    was killed on the way and continued; on CUDA, where some gradients are added up in any order
    (as those of reflect padding), only nearly.

    Parameters
    ----------
    family, padding, seed, steps, batch, lr, n_train
        See :class:`Settings`.
    n_test : int
        Test windows, each of another scene that training never sees.
    until : int, optional
        Stop after so many of the steps, as if the run had been broken off; without `folder`.
    folder : path, optional
        The run's own folder. A finished run in it is returned as it is, an unfinished one
        continues from the last state kept there, every 64 steps. Nothing is written without.
    device : str, optional
        By default CUDA if there is one, else the CPU. On CUDA, training computes in bfloat16
        where autocast allows it.
    progress : bool
        Show a bar.
    observe : callable, optional
        Called with the number of steps done and the model, in training mode, which it must
        leave as it is. Returns rows, which get a ``step`` in front, and tensors.
    observe_at : sequence of int
        Numbers of steps at which it is called; 0 is before the first.
    start : nn.Module, optional
        A trained network whose weights it begins with, and goes on at the learning rate and
        momentum that a run begins with, both constant; without `folder`.

    Returns
    -------
    Run

    Raises
    ------
    ParameterError
        A number out of range, an unknown family, or a folder that belongs to another run.
    PaddingError
        Unknown padding scheme.
    WeightsError
        The state kept in `folder` is damaged.

    Examples
    --------
    >>> run = train("resnet", steps=2, batch=2, n_train=4, n_test=4, progress=False)
    >>> run.record["steps"], 0 <= run.record["test_accuracy"] <= 1
    (2, True)
    """
    settings = Settings(family, padding, seed, steps, batch, lr, n_train)
    check_whole("n_test", n_test, 1, _SCENES)
    if until is not None:
        check_whole("until", until, 0, steps)
        if folder is not None:
            raise ParameterError(
                f"until = {until} and a folder; a run that is kept goes to its end"
            )
    if start is not None and folder is not None:
        raise ParameterError("a network to start with and a folder; give one of both")
    stop = steps if until is None else until
    marks = {step for step in observe_at if step <= stop} if observe else set()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kept = _Folder(Path(folder), settings, n_test, marks) if folder is not None else None
    if kept and (finished := kept.finished()):
        return finished
    began = time.perf_counter()
    work = _Work(settings, device)
    if start is not None:
        work.model.load_state_dict(start.state_dict())
        work.schedule = torch.optim.lr_scheduler.ConstantLR(work.optimiser, 1.0)
    if kept:
        kept.resume(work)
    if work.step == 0 and 0 in marks:
        work.observe(observe)
    title = f"{family} {padding} seed {seed}"
    if work.step < stop:
        data = _TrainingSet(settings, work.model.surroundings, title if progress else "", stop)
    bar = tqdm(total=stop, initial=work.step, desc=title, unit="step", disable=not progress)
    with bar:
        while work.step < stop:
            work.advance(*data.batch(work.step))
            bar.update()
            if work.step in marks:
                work.observe(observe)
            if work.step % _EVERY == 0 or work.step == stop:
                row = work.report()
                bar.set_postfix(loss=f"{row['loss']:.3f}", train=f"{row['train_accuracy']:.1%}")
                if kept:
                    kept.save_state(work.state(time.perf_counter() - began))
    model = work.model.to("cpu", memory_format=torch.contiguous_format).eval()
    if padding == MIXED:
        pad_with(model, "zeros")
    record = {
        **asdict(settings), "epochs": round(stop / settings.epoch, 3),
        "train_scenes": [settings.first_scene, settings.first_scene + n_train],
        "test_scenes": [_TEST_SCENES, _TEST_SCENES + n_test],
        "shapes": list(SHAPES), "window": PLANE_WINDOW,
        "test_accuracy": evaluate(model, n_test)[0], "n_test": n_test,
        "seconds": round(work.seconds + time.perf_counter() - began, 1), "device": device,
        "precision": "bfloat16" if work.half else "float32",
        "threads": torch.get_num_threads(), "torch": torch.__version__.split("+")[0],
        "numpy": np.__version__, "observed": sorted(marks),
    }  # fmt: skip
    run = Run(model, work.log, record, work.rows, work.tensors)
    if kept:
        kept.finish(run)
    return run


class _Work:
    """A run under way: what changes from step to step, and how."""

    def __init__(self, settings: Settings, device: str, half: bool | None = None) -> None:
        self.settings, self.device = settings, device
        self.half = device.startswith("cuda") if half is None else half
        self.noise = torch.Generator(device).manual_seed(settings.seed)
        make = FAMILIES[settings.family]
        model = make(len(SHAPES), settings.padding, seed=settings.seed, generator=self.noise)
        self.model = model.to(device, memory_format=torch.channels_last)
        decay = [p for p in model.parameters() if p.ndim > 1]
        rest = [p for p in model.parameters() if p.ndim <= 1]
        self.optimiser = torch.optim.SGD(
            [{"params": decay, "weight_decay": 5e-4}, {"params": rest}],
            lr=settings.lr, momentum=0.9, nesterov=True,
        )  # fmt: skip
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, settings.lr, total_steps=settings.steps + 1
        )
        self.step, self.seconds = 0, 0.0
        self.loss, self.right = torch.zeros(2, device=device)  # read in `report` alone
        self.log: list[dict[str, float]] = []
        self.rows: list[dict[str, object]] = []
        self.tensors: dict[str, Tensor] = {}

    def advance(self, pixels: Tensor, labels: Tensor) -> None:
        """Make one step of gradient descent."""
        if self.settings.padding == MIXED:
            draw = np.random.default_rng([self.settings.seed, self.step, 2])
            pad_with(self.model, PADDINGS[draw.integers(len(PADDINGS))])
        pixels, labels = pixels.to(self.device), labels.to(self.device)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.half):
            scores = self.model(pixels)
        loss = F.cross_entropy(scores.float(), labels)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), _CLIP)
        self.optimiser.step()
        self.schedule.step()
        self.step += 1
        self.loss += loss.detach()
        self.right += (scores.argmax(1) == labels).sum()

    def observe(self, observe: Callable[[int, nn.Module], Observation]) -> None:
        """Ask the observer, and keep what it gives."""
        rows, tensors = observe(self.step, self.model)
        self.rows += [{"step": self.step, **row} for row in rows]
        self.tensors |= {f"{self.step}/{name}": tensor for name, tensor in tensors.items()}

    def report(self) -> dict[str, float]:
        """Close a row of the log."""
        since = self.step - (self.log[-1]["step"] if self.log else 0)
        row = {
            "step": self.step,
            "loss": round(float(self.loss) / since, 5),
            "train_accuracy": round(float(self.right) / (since * self.settings.batch), 5),
        }
        self.log.append(row)
        self.loss.zero_()
        self.right.zero_()
        return row

    def state(self, seconds: float) -> dict[str, object]:
        """Return all that a continuation needs; plain values and tensors only."""
        schedule = self.schedule.state_dict()
        return {
            "model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(),
            "schedule": {k: v for k, v in schedule.items() if isinstance(v, _PLAIN)},
            "noise": self.noise.get_state(), "step": self.step, "tensors": self.tensors,
            "texts": json.dumps({"log": self.log, "rows": self.rows}),
            "seconds": self.seconds + seconds,
        }  # fmt: skip

    def resume(self, state: dict) -> None:
        """Continue from a state."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.noise.set_state(state["noise"].cpu())
        self.step, self.tensors, self.seconds = state["step"], state["tensors"], state["seconds"]
        texts = json.loads(state["texts"])
        self.log, self.rows = texts["log"], texts["rows"]


class _TrainingSet:
    """The training windows of one seed, eight bits a channel as a camera gives them.

    Those that no step before `stop` asks for are not rendered.
    """

    def __init__(
        self, settings: Settings, surroundings: tuple[int, int], title: str, stop: float = math.inf
    ) -> None:
        self.settings, self.surroundings = settings, surroundings
        self.around = max(surroundings)  # the same on every side, so that a turn keeps them
        size = PLANE_WINDOW + 2 * self.around
        self.pixels = torch.empty(settings.n_train, 3, size, size, dtype=torch.uint8)
        self.labels = torch.empty(settings.n_train, dtype=torch.int64)
        needed = np.ones(settings.n_train, bool)
        if stop <= settings.epoch:
            needed[self._drawn(0)[0][stop * settings.batch :]] = False
        starts = range(0, settings.n_train, 256)
        for start in tqdm(starts, f"{title}: rendering", disable=not title, leave=False):
            mine = needed[start : start + 256]
            if mine.any():
                scene, around = settings.first_scene + start, (self.around, self.around)
                pixels, labels = _rendered(scene, len(mine), settings.seed, around, mine)
                chosen = torch.from_numpy(start + np.flatnonzero(mine))
                self.pixels[chosen] = pixels.mul_(255).round_().byte()
                self.labels[chosen] = labels

    def _drawn(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw the order of the windows in an epoch, and how each of its batches is turned."""
        draw = np.random.default_rng([self.settings.seed, epoch, 1])
        order = draw.permutation(self.settings.n_train)
        return order, draw.integers(8, size=self.settings.epoch)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the batch after `step` steps: a function of the settings alone."""
        settings = self.settings
        epoch, position = divmod(step, settings.epoch)
        order, turns = self._drawn(epoch)
        turn = int(turns[position])
        chosen = torch.from_numpy(order[position * settings.batch :][: settings.batch])
        pixels = self.pixels[chosen]
        if turn & 1:
            pixels = pixels.flip(2)
        if turn & 2:
            pixels = pixels.flip(3)
        if turn & 4:
            pixels = pixels.transpose(2, 3)
        before, after = self.surroundings
        inside = slice(self.around - before, self.around + PLANE_WINDOW + after)
        pixels = pixels[:, :, inside, inside].float().div_(255)
        return normalise(pixels, PLANE_MEAN, PLANE_STD), self.labels[chosen]


class _Folder:
    """The folder of one run: its settings, the state of an unfinished run, its results."""

    def __init__(self, path: Path, settings: Settings, n_test: int, marks: set[int]) -> None:
        self.path = path
        mine = {**asdict(settings), "n_test": n_test, "observed": sorted(marks)}
        note = path / "settings.json"
        if path.exists() and not path.is_dir():
            raise ParameterError(f"{path} is a file; give the folder of a run, or a new one")
        if not note.exists():
            begun = f".{note.name}."  # what a run leaves that was killed at its very start
            if path.is_dir() and not all(p.name.startswith(begun) for p in path.iterdir()):
                raise ParameterError(
                    f"folder {path} holds files but no settings.json, so it is no run's; "
                    "give an empty or a new folder"
                )
            tables.write(note, _json(mine))
            return
        try:
            theirs = documents.read_json(note)
        except DocumentError:
            raise ParameterError(f"{note} is damaged; give another folder") from None
        for name, value in mine.items():
            if theirs.get(name) != value:
                raise ParameterError(
                    f"folder {path} belongs to a run with {name} = {shown(theirs.get(name))}, not "
                    f"{value!r}; give another folder, or the settings that it was begun with"
                )

    def finished(self) -> Run | None:
        """Return the run if it has finished."""
        return load_run(self.path) if (self.path / "record.json").exists() else None

    def resume(self, work: _Work) -> None:
        """Continue from the last state kept, if any."""
        path = self.path / "state.pt"
        if not path.exists():
            return
        try:
            work.resume(torch.load(path, map_location="cpu", weights_only=True))
        except (
            RuntimeError, ValueError, TypeError, EOFError, KeyError, pickle.UnpicklingError
        ) as error:  # fmt: skip
            raise WeightsError(
                f"{path} is damaged, or of another network ({first_line(error)}); delete it to "
                "begin this run again"
            ) from None

    def save_state(self, state: dict[str, object]) -> None:
        """Keep a state, whole or not at all."""
        content = io.BytesIO()
        torch.save(state, content)
        tables.write(self.path / "state.pt", content.getvalue())

    def finish(self, run: Run) -> None:
        """Write the results; the record last, which marks the run as finished."""
        weights = {k: v.contiguous() for k, v in run.model.state_dict().items()}
        contents = {
            "weights.safetensors": save_safetensors(weights),
            "log.csv": tables.packed("log.csv", pd.DataFrame(run.log), digits=None),
            "rows.json": _json(run.rows),
            "tensors.safetensors": save_safetensors(run.tensors),
        }
        for name, content in contents.items():
            tables.write(self.path / name, content)
        digests = {name: digest(content) for name, content in contents.items()}
        tables.write(self.path / "record.json", _json(run.record | {"files": digests}))
        (self.path / "state.pt").unlink(missing_ok=True)


def load_run(folder: str | Path) -> Run:
    """Read a finished run back from its folder.

    Raises
    ------
    WeightsError
        A file is missing or damaged.
    """
    folder = Path(folder)
    try:
        record = documents.read_json(folder / "record.json")
        known = record.pop("files", {})  # the first runs have none

        def read(name: str) -> bytes:
            content = documents.read_bytes(folder / name, most=None)
            if known.get(name, found := digest(content)) != found:
                raise WeightsError(f"{name} is not what the run wrote: its SHA-256 is another")
            return content

        rows = json.loads(read("rows.json"))
        log = [
            {"step": int(step), "loss": float(loss), "train_accuracy": float(accuracy)}
            for step, loss, accuracy in list(csv.reader(io.StringIO(read("log.csv").decode())))[1:]
        ]
        tensors = load_safetensors(read("tensors.safetensors"))
        model = FAMILIES[record["family"]](len(SHAPES), record["padding"], seed=record["seed"])
        model.load_state_dict(load_safetensors(read("weights.safetensors")))
    except Exception as error:  # each format has its own exceptions for a broken file
        raise WeightsError(f"run {folder} cannot be read: {first_words(error)}") from None
    return Run(model.eval(), log, record, rows, tensors)


# --------------------------------------------------------------------------- evaluation


def evaluate(model: nn.Module, n: int, device: str = "cpu") -> tuple[float, float]:
    """Return accuracy and cross-entropy on `n` test windows, each of its own scene.

    Always the same windows, and the same draws of random padding, so that numbers compare. A
    network without padding ("optimal") gets their true surroundings. The model's mode is
    restored.

    Returns
    -------
    accuracy : float
        Share of windows whose shape the network tells, 0 to 1.
    loss : float
        Mean cross-entropy, nats.

    Examples
    --------
    >>> from studies.networks import load_network
    >>> evaluate(load_network("plane-resnet", "trained").model, 32)[0] > 0.7
    True
    """
    mode = model.training
    model.eval()
    network = with_generator(model, torch.Generator(device).manual_seed(0))
    right, loss = 0, 0.0
    with torch.inference_mode():
        for pixels, labels in _batches(model, _TEST_SCENES, n):
            pixels = pixels.to(device).contiguous(memory_format=torch.channels_last)
            scores = network(pixels).float().cpu()
            right += int((scores.argmax(1) == labels).sum())
            loss += float(F.cross_entropy(scores, labels, reduction="sum"))
    model.train(mode)
    return right / n, loss / n


def with_batch_statistics(
    model: nn.Module, n: int = 512, *, first_scene: int = 0, schemes: Sequence[str] = ()
) -> nn.Module:
    """Return a copy whose batch-norm statistics are those of `n` training windows. [ours]

    An initial network has statistics that no data has shaped (mean 0, variance 1); measured
    with them, its features grow from layer to layer. This gives it its own, and nothing else.

    Parameters
    ----------
    model : nn.Module
        Left as it is, with the generator of its random padding.
    n : int
        Windows, one a scene; at least 2.
    first_scene : int
        Seed of the first scene, by default that of training with seed 0.
    schemes : sequence of str
        What a network with the padding "mixed" pads with, each batch of 64 windows with the next.

    Returns
    -------
    nn.Module
        In eval mode.

    Examples
    --------
    >>> from studies.networks import load_network
    >>> initial = load_network("plane-resnet", "initial").model
    >>> bool((with_batch_statistics(initial, 16).bn1.running_mean != 0).any())
    True
    """
    device = next(model.parameters()).device
    model = copy.deepcopy(with_generator(model, torch.Generator(device).manual_seed(0)))

    def batches() -> Iterator[Tensor]:
        for turn, (pixels, _) in enumerate(_batches(model, first_scene, n)):
            if schemes:
                pad_with(model, schemes[turn % len(schemes)])
            yield pixels.to(device)

    return re_estimate(model, batches())


def re_estimate(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Give a network the batch-norm statistics of batches, in place; leave it in eval mode.

    Parameters
    ----------
    model : nn.Module
    batches : iterable of Tensor (n, 3, H, W)
        Normalised; each counts as much as another.

    Examples
    --------
    >>> norm = torch.nn.BatchNorm2d(1)
    >>> re_estimate(norm, [torch.ones(2, 1, 4, 4)]).running_mean
    tensor([1.])
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over all batches
    model.train()
    with torch.no_grad():
        for batch in batches if norms else ():
            model(batch)
    return model.eval()


def windows(
    first_scene: int, n: int, seed: int, surroundings: tuple[int, int] = (0, 0)
) -> tuple[Tensor, Tensor]:
    """Render normalised windows of `n` scenes, and their labels.

    Parameters
    ----------
    first_scene : int
        Seed of the first scene; the others follow it. Shapes take turns.
    n : int
        Number of windows, one a scene.
    seed : int
        0 or more, of the places.
    surroundings : (before, after)
        True surroundings to render on the left and top, and on the right and bottom, px.

    Returns
    -------
    pixels : Tensor of shape (n, 3, S, S), float32
        S is 96 and the surroundings.
    labels : Tensor of shape (n,), int64, indices into `SHAPES`

    Examples
    --------
    >>> windows(0, 3, 0)[1]
    tensor([0, 1, 2])
    """
    pixels, labels = _rendered(first_scene, n, seed, surroundings)
    return normalise(pixels, PLANE_MEAN, PLANE_STD), labels


_kept_windows = lru_cache(maxsize=32)(windows)  # nobody writes into these


def _rendered(
    first_scene: int, n: int, seed: int, surroundings, which: slice | np.ndarray = slice(None)
) -> tuple[Tensor, Tensor]:
    """Render windows as :func:`windows` does, or those of them in `which`, in [0, 1]."""
    before, after = surroundings
    scenes = np.arange(first_scene, first_scene + n)[which]
    shapes = scenes % len(SHAPES)
    draw = np.random.default_rng([seed, first_scene])
    tops, lefts = draw.integers(-_SPAN, _SPAN, (2, n))[:, which] - before
    pixels = render_windows(scenes, shapes, tops, lefts, before + PLANE_WINDOW + after)
    return pixels, torch.from_numpy(shapes)


def _batches(model: nn.Module, first_scene: int, n: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Give `n` windows and labels, 64 at a time, with the surroundings that a network needs."""
    surroundings = getattr(model, "surroundings", (0, 0))
    for start in range(0, n, 64):
        yield _kept_windows(first_scene + start, min(64, n - start), 0, surroundings)


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=isinstance(value, dict)) + "\n").encode()
