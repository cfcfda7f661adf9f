"""PPP while a network is trained: a metric in torchmetrics' form, and a monitor for the loop.

Neither torchmetrics nor Lightning is needed. Where torchmetrics is installed,
:class:`PPPMetric` is one of its metrics; elsewhere it has the same methods of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from ppp.certificate import Coverage
from ppp.errors import PPPError, shown, unknown
from ppp.influence import coverage as find_coverage
from ppp.measurement import measure
from ppp.padding import Scheme
from ppp.windows import Windows

METRICS = ("mae", "snr", "floor", "power")
"""What :class:`PPPMetric` can compute."""


class _Alone(nn.Module):
    """What a metric needs of torchmetrics, where it is not installed."""

    def __init__(self) -> None:
        super().__init__()
        self._states: dict[str, Tensor] = {}

    def add_state(self, name: str, default: Tensor, dist_reduce_fx: str) -> None:
        self._states[name] = default
        self.register_buffer(name, default.clone(), persistent=False)

    def reset(self) -> None:
        """Forget everything that was given to `update`."""
        for name, default in self._states.items():
            setattr(self, name, default.to(getattr(self, name).device, copy=True))

    def forward(self, *maps: Tensor) -> Tensor:
        """Add a batch, and return the value of this batch alone."""
        before = self._now()
        self.reset()
        self.update(*maps)
        value = self.compute()
        for name, state in before.items():
            setattr(self, name, state + getattr(self, name))
        return value

    def merge_state(self, other: _Alone) -> None:
        """Add what another metric of the same kind has seen."""
        for name in self._states:
            setattr(self, name, getattr(self, name) + getattr(other, name).to(self.windows.device))

    def _now(self) -> dict[str, Tensor]:
        return {name: getattr(self, name).clone() for name in self._states}

    def _over_processes(self) -> dict[str, Tensor]:
        states = self._now()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for state in states.values():
                torch.distributed.all_reduce(state)
        return states


try:
    from torchmetrics import Metric as _Metric
except ImportError:
    _Metric = _Alone


class PPPMetric(_Metric):  # type: ignore[misc, valid-type]
    """MAE-PPP of feature maps that are given batch by batch; merges over processes.

    Sums are kept in float64, of the size of one map; a process that has seen nothing can be merged
    if `shape` is given. There are no intervals: for these, and for the null test, see
    :func:`ppp.measure`.

    Parameters
    ----------
    metric : {"mae", "snr", "floor", "power"}
        MAE-PPP = ``mean |d| / sigma`` (dimensionless, >= 0); SNR-PPP = ``mean(|d| / s)``; what
        MAE-PPP would show without a pattern, windows taken as independent; or the unbiased power
        ``mean(d^2 - s^2 / n)``, in the layer's units squared, which may be negative. [ours]
    shape : tuple of 3 int, optional
        Channels, height and width of a map; by default those of the first batch.
    **options
        Of ``torchmetrics.Metric``, where it is installed.

    Raises
    ------
    PPPError
        An unknown metric; maps of unequal shapes, or no maps (N, C, H, W); a value is asked of
        fewer windows than it needs: one for MAE-PPP with more than one cell, else two.

    Examples
    --------
    >>> import torch
    >>> metric = PPPMetric()
    >>> optimal = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    >>> metric.update(optimal + 0.5, optimal)  # the pattern is 0.5 in every cell
    >>> round(float(metric.compute() * optimal.std()), 6)
    0.5
    """

    is_differentiable = False
    higher_is_better = False  # less of a frame; no statement about the task
    full_state_update = False
    plot_lower_bound = 0.0

    def __init__(
        self, metric: str = "mae", shape: tuple[int, int, int] | None = None, **options: Any
    ) -> None:
        if metric not in METRICS:
            raise PPPError(unknown("metric", metric, METRICS))
        super().__init__(**options)
        self.metric = metric
        for name, cells in {
            "windows": (), "difference": shape or (), "squares": shape or (),
            "values": (), "scale": (), "scale_squares": (),
        }.items():  # fmt: skip
            zeros = torch.zeros(cells, dtype=torch.float64)
            self.add_state(name, zeros, dist_reduce_fx="sum")

    def update(self, algorithmic: Tensor, optimal: Tensor) -> None:
        """Add the maps of some windows under padding, and with true surroundings, (N, C, H, W)."""
        if algorithmic.shape != optimal.shape or algorithmic.ndim != 4:
            raise PPPError(
                f"maps {tuple(algorithmic.shape)} and {tuple(optimal.shape)}; expected two "
                "of the same shape (N, C, H, W)"
            )
        if self.difference.ndim and self.difference.shape != optimal.shape[1:]:
            raise PPPError(
                f"maps {tuple(optimal.shape)}; expected {tuple(self.difference.shape)} each, as "
                "before; use one metric a layer"
            )
        truth = optimal.detach().to(torch.float64)
        d = algorithmic.detach().to(torch.float64) - truth
        self.windows = self.windows + len(d)
        self.difference = self.difference + d.sum(0)
        self.squares = self.squares + d.square().sum(0)
        self.values = self.values + truth.numel()
        self.scale = self.scale + truth.sum()
        self.scale_squares = self.scale_squares + truth.square().sum()

    def compute(self) -> Tensor:
        """Return the metric over everything that was given, a scalar in float64."""
        states = self._over_processes() if isinstance(self, _Alone) else _sums(self)
        n, values = states["windows"], states["values"]
        least = 1 if self.metric == "mae" and values > n else 2
        if n < least:
            raise PPPError(f"{int(n)} windows given; {self.metric} needs at least {least}")
        mean = states["difference"] / n
        spread = (states["squares"] - n * mean.square()).clamp_min(0) / (n - 1).clamp_min(1)
        centre = states["scale"] / values
        sigma = ((states["scale_squares"] - values * centre.square()) / (values - 1)).sqrt()
        if self.metric == "mae":
            return mean.abs().mean() / sigma
        if self.metric == "snr":
            return (mean.abs() / spread.sqrt()).masked_fill((mean == 0) & (spread == 0), 0).mean()
        if self.metric == "floor":
            return (spread / n * (2 / math.pi)).sqrt().mean() / sigma
        return (mean.square() - spread / n).mean()


def _sums(metric: nn.Module) -> dict[str, Tensor]:
    """Return the sums of a metric, as they are now."""
    names = ("windows", "difference", "squares", "values", "scale", "scale_squares")
    return {name: getattr(metric, name) for name in names}


class Monitor:
    """Measure a network every so many steps of its training, on the same windows.

    The network is set to evaluation for the measurement and back, module by module; nothing of the
    training changes, not a random draw. Of a network that is spread over processes or compiled,
    give the module inside, and call one process's monitor only.

    Parameters
    ----------
    model : nn.Module
        Float32 or float64. Its parameters are read when it is measured.
    windows : Windows
        For example 64 of them, from :func:`ppp.cut_windows`; their pictures are kept in memory.
    layers : sequence of str
    schemes : str, Scheme, sequence of them, or None
        As for :func:`ppp.measure`; None measures the network's own padding.
    every : int
        Steps between two measurements, >= 1.
    coverage : Coverage, optional
        Of these layers at this window size; else it is found once, now.
    log : callable, optional
        Called with names and values, ``{"mae_ppp/layer1": 0.12}``, and the step.
    **options
        Of :func:`ppp.measure`, such as ``seed`` or ``batch_size``.

    Raises
    ------
    PPPError
        `every` is not a positive integer; or for the reasons of :func:`ppp.measure`.

    Examples
    --------
    >>> import torch, ppp
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1))
    >>> scene = {"noise": torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))}
    >>> reach = ppp.coverage(net.eval(), ["0"], 16)
    >>> windows = ppp.cut_windows(scene, 16, reach, per_picture=8, seed=0)
    >>> monitor = Monitor(net.train(), windows, ["0"], every=100, coverage=reach)
    >>> for step in range(201):
    ...     _ = monitor(step)  # after optimizer.step()
    >>> list(monitor.table()["step"]), net.training
    ([0, 100, 200], True)
    """

    def __init__(
        self, model: nn.Module, windows: Windows, layers: Sequence[str],
        schemes: str | Scheme | Sequence[str | Scheme] | None = None, *, every: int = 500,
        coverage: Coverage | None = None,
        log: Callable[[dict[str, float], int], object] | None = None, **options: Any,
    ) -> None:  # fmt: skip
        if type(every) is not int or every < 1:
            raise PPPError(f"every = {shown(every)}; expected a number of steps of at least 1")
        self.model, self.layers, self.schemes, self.every = model, list(layers), schemes, every
        self.windows = Windows(list(windows), windows.size)
        self.log, self.options = log, {"batch_size": 32} | options
        self._tables: list[pd.DataFrame] = []
        with _evaluating(model):
            self.coverage = coverage or find_coverage(model, self.layers, windows.size)

    def __call__(self, step: int) -> dict[str, float] | None:
        """Measure if it is time to; return what was logged, or None."""
        return None if step % self.every else self.measure(step)

    def measure(self, step: int) -> dict[str, float]:
        """Measure now, whatever the step; return MAE-PPP by name."""
        with _evaluating(self.model):
            found = measure(
                self.model, self.windows, self.layers, self.schemes,
                coverage=self.coverage, **self.options,
            )  # fmt: skip
        table = found.table()
        table.insert(0, "step", step)
        self._tables.append(table)
        alone = table["scheme"].nunique() == 1
        values = {
            "/".join(["mae_ppp", *([] if alone else [row.scheme]), row.layer]): float(row.mae)
            for row in table.itertuples()
        }
        if self.log:
            self.log(values, step)
        return values

    def table(self) -> pd.DataFrame:
        """Return every measurement, a row for each step, scheme and layer; see
        :meth:`ppp.Measurement.table`."""
        empty = pd.DataFrame(columns=["step", "scheme", "layer", "mae"])
        return pd.concat(self._tables, ignore_index=True) if self._tables else empty

    def to_csv(self, path: str | Path) -> Path:
        """Write the table as CSV."""
        self.table().to_csv(path, index=False)
        return Path(path)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Set a network to evaluation, and every module of it back."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def lightning_callback(monitor: Monitor) -> Any:
    """Return a callback for Lightning's trainer that runs a monitor and logs what it finds.

    It takes the package lightning, or pytorch_lightning: the extra ``lightning``.

    Examples
    --------
    >>> trainer = Trainer(callbacks=[lightning_callback(monitor)])  # doctest: +SKIP
    """
    try:
        from lightning.pytorch import Callback
    except ImportError:
        try:
            from pytorch_lightning import Callback
        except ImportError:
            raise PPPError(
                "lightning is not installed; run: pip install lightning, or call the monitor "
                "in a loop of your own"
            ) from None

    class PPPCallback(Callback):  # type: ignore[misc]
        """Runs the monitor on the first process, after every batch."""

        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            step = trainer.global_step
            if (
                trainer.is_global_zero
                and step % monitor.every == 0
                and (values := monitor.measure(step))
            ):
                for logger in trainer.loggers:
                    logger.log_metrics(values, step)

    return PPPCallback()
