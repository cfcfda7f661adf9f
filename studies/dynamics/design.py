"""The zoo: every small network, trained with every padding several times. [ours]

A run trains one network and, on the way, measures its PPP. Runs are independent and each
has its own folder; :data:`STUDY` turns finished runs into what ``data/`` ships.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from functools import cached_property
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn
from tqdm import tqdm

from ppp.errors import LayerError, ParameterError, PPPError, WeightsError, unknown
from ppp.files import digest
from ppp.influence import coverage
from ppp.measurement import measure
from ppp.results import Measurement
from ppp.windows import Picture, Windows
from studies import paths
from studies.networks import (
    FAMILIES,
    MIXED,
    OPTIMAL,
    PLANE_MEAN,
    PLANE_STD,
    PLANE_WINDOW,
    layers_of_interest,
    load_network,
    manifest,
    normalise,
    rebuilt,
)
from studies.networks.names import FRESH_SEEDS, PADDINGS, SEEDS
from studies.networks.training import (
    Observation,
    Run as Trained,
    Settings,
    evaluate,
    load_run,
    train,
    with_batch_statistics,
)
from studies.parameters import check_whole
from studies.pictures.plane import scenes
from studies.results import metric_rows
from studies.runs import Run, Study
from studies.storage import outputs, tables

DATA = paths.data("dynamics").parent
"""What is shipped: ``networks/`` and ``dynamics/``."""

STEPS = (0, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1280)
"""Numbers of steps after which a run is measured."""
PATTERN_STEPS = (0, 16, 64, 128, 256, 512, 1280)
"""Those at which a run of seed 0 keeps its patterns too."""
METRICS = ("mae", "snr", "power", "share", "raw")

_TABLE = (
    *("run", "family", "padding", "seed", "step", "epoch", "batch_norm", "test_padding"),
    *("layer", "metric", "value", "low", "high", "floor", "accuracy", "loss"),
)
_FRESH = tuple(name for name in _TABLE if name not in ("epoch", "low", "high", "floor", "loss"))
_FRESH_METRICS = ("mae", "snr", "raw")
_RECORD = (
    *("run", "family", "padding", "seed", "steps", "test_accuracy", "n_test", "sha256"),
    *("seconds", "threads", "torch", "numpy"),
)
_FRESH_FILES = ("fresh.csv.gz", "fresh_runs.csv")
_FILES = ("logs.csv", "patterns.safetensors", "trajectories.csv.gz", *_FRESH_FILES)
_SCENES = 1 << 41  # first seed of the scenes that are measured; none is trained on or tested
_ROWS, _COLUMNS = 2, 4  # windows side by side in one scene


def windows_to_measure(family: str, n_scenes: int = 32) -> Windows:
    """Make the windows on which the zoo is measured: eight side by side in each scene.

    Parameters
    ----------
    family : {"resnet", "vgg"}
    n_scenes : int
        Scenes, none of which is trained or tested on; shapes take turns.

    Examples
    --------
    >>> len(windows_to_measure("resnet", 2))
    16
    """
    return Windows(_pictures(family, n_scenes), PLANE_WINDOW)


def _pictures(family: str, n_scenes: int) -> list[Picture]:
    around = 48 if family == "resnet" else 64  # px, at least the margin, aligned
    grid = np.indices((_ROWS, _COLUMNS)).reshape(2, -1) * PLANE_WINDOW + around
    height, width = (2 * around + k * PLANE_WINDOW for k in (_ROWS, _COLUMNS))
    return [
        Picture(scene.name, normalise(scene.pixels(), PLANE_MEAN, PLANE_STD), *grid)
        for scene in scenes(n_scenes, height, width, seed=_SCENES)
    ]


class Observer:
    """Measures a network under training: what :func:`studies.networks.training.train` calls.

    The network is taken with batch-norm statistics re-estimated on its own training windows,
    because the running ones lag behind while it changes fast, and is measured under its own
    padding; one trained with optimal padding, which has none, or with another in each batch, under
    every scheme. At
    the first and the last step every network is measured under every scheme, with its
    running statistics too.

    Parameters
    ----------
    settings : Settings
        Of the run.
    n_scenes : int
        See :func:`windows_to_measure`.
    n_test : int
        Test windows for accuracy and loss at the first and last step; half of them between.
    n_statistics : int
        Windows for the re-estimated statistics.
    patterns_at : sequence of int
        Steps at which the patterns are kept, with re-estimated statistics.
    ends : bool
        Whether the first and the last step have more rows than the others.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        n_scenes: int = 32,
        n_test: int = 512,
        n_statistics: int = 256,
        patterns_at: Sequence[int] = (),
        ends: bool = True,
    ) -> None:
        self.settings, self.n_scenes, self.n_test = settings, n_scenes, n_test
        self.ends = ends
        self.n_statistics, self.patterns_at = n_statistics, tuple(patterns_at)

    @cached_property
    def windows(self) -> Windows:
        """The measured windows, rendered once."""
        return windows_to_measure(self.settings.family, self.n_scenes)

    @cached_property
    def reach(self):
        """Coverage of the layers of interest."""
        model = FAMILIES[self.settings.family]().eval()
        return coverage(model, layers_of_interest(model), PLANE_WINDOW)

    def __call__(self, step: int, model: nn.Module) -> Observation:
        """Return the rows of one step and, at some steps, the patterns."""
        own, rows, tensors = self.settings.padding, [], {}
        at_end = step in (0, self.settings.steps)
        more = at_end and self.ends
        tested = [own, *PADDINGS] if more or own in (OPTIMAL, MIXED) else [own]
        tested = list(dict.fromkeys([*tested, OPTIMAL] if more else tested))
        tested = [padding for padding in tested if padding != MIXED]
        first = self.settings.first_scene
        turns = PADDINGS if own == MIXED else ()
        estimated = with_batch_statistics(
            model, self.n_statistics, first_scene=first, schemes=turns
        )
        kinds = {"running": model, "re-estimated": estimated}
        for name in kinds if more else ("re-estimated",):
            network, head = kinds[name], {"batch_norm": name}
            quality = self.quality(network, tested, self.n_test if at_end else self.n_test // 2)
            measurement = self.measured(network, [p for p in tested if p != OPTIMAL])
            for padding, (accuracy, loss) in quality.items():
                head |= {"test_padding": padding, "accuracy": accuracy, "loss": loss}
                rows += [
                    head | row
                    for (scheme, layer), result in measurement.items()
                    if scheme == padding
                    for row in metric_rows(layer, result.summary)
                ] or [dict(head)]
            if name == "re-estimated" and step in self.patterns_at:
                tensors = {
                    "/".join(key): torch.from_numpy(result.magnitude() / result.summary.sigma)
                    for key, result in measurement.items()
                }
        return rows, {name: tensor.half() for name, tensor in tensors.items()}

    def quality(
        self, model: nn.Module, paddings: Sequence[str], n: int
    ) -> dict[str, tuple[float, float]]:
        """Return accuracy and loss on `n` test windows under each padding."""
        device = next(model.parameters()).device
        return {
            padding: evaluate(rebuilt(model, padding).to(device), n, str(device))
            for padding in paddings
        }

    def measured(self, model: nn.Module, paddings: Sequence[str]) -> Measurement:
        """Measure PPP under each padding."""
        network = rebuilt(model, "zeros").to(next(model.parameters()).device).eval()
        layers = list(self.reach)
        return measure(network, self.windows, layers, paddings, coverage=self.reach, groups=16)


@dataclass(frozen=True, order=True)
class SmallNetwork(Run):
    """One network to train."""

    family: str
    padding: str
    seed: int

    @property
    def stem(self) -> str:
        """Name of its folder and of its files."""
        return f"plane-{super().stem}"

    @property
    def fresh(self) -> bool:
        """Whether tables of it are shipped and no weights."""
        return self.seed in FRESH_SEEDS.get(self.family, ())


def full_design() -> list[SmallNetwork]:
    """List all networks whose weights are shipped."""
    return _combined((*PADDINGS, OPTIMAL), SEEDS)


def fresh_design() -> list[SmallNetwork]:
    """List those of which tables alone are shipped; among them the control with mixed padding."""
    return _combined((*PADDINGS, MIXED), FRESH_SEEDS)


def _combined(paddings: Sequence[str], seeds: Mapping[str, Sequence[int]]) -> list[SmallNetwork]:
    return [
        SmallNetwork(family, padding, seed)
        for family in seeds
        for padding in paddings
        for seed in seeds[family]
    ]


def train_run(
    family: str,
    padding: str,
    seed: int,
    folder: str | Path,
    *,
    n_test: int = 2048,
    progress: bool = True,
    **changes,
) -> Trained:
    """Train and measure one network of the zoo in `folder` / its name; a mixed one at both ends.

    A finished run is returned as it is; an unfinished one continues.

    Parameters
    ----------
    family, padding, seed
        See :class:`~studies.networks.training.Settings`.
    folder : path
    n_test : int
        Test windows for the final accuracy.
    progress : bool
        Show a bar.
    **changes
        Other settings of training.

    Returns
    -------
    studies.networks.training.Run
    """
    settings = Settings(family, padding, seed, **changes)
    observer = Observer(settings, patterns_at=PATTERN_STEPS if seed == 0 else ())
    between = (
        () if padding == MIXED else STEPS
    )  # under every scheme it would take three times as long
    marks = sorted({0, *(step for step in between if step < settings.steps), settings.steps})
    return train(
        family,
        padding=padding,
        seed=seed,
        folder=Path(folder) / settings.stem,
        n_test=n_test,
        progress=progress,
        observe=observer,
        observe_at=marks,
        **changes,
    )


def live(
    family: str,
    padding: str,
    seed: int,
    until: int,
    *,
    n_scenes: int = 32,
    n_test: int = 512,
    progress: bool = False,
) -> pd.DataFrame:
    """Train the first steps of a zoo run again, now, and measure them under the run's own padding.

    Parameters
    ----------
    family, padding, seed
        See :class:`~studies.networks.training.Settings`; any seed.
    until : int
        Steps, of the whole run's schedule.
    n_scenes, n_test : int
        See :class:`Observer`.
    progress : bool
        Show a bar.

    Returns
    -------
    DataFrame
        As :func:`trajectories`, with re-estimated statistics alone. On the machine type and number
        of threads that the zoo was trained with, the same numbers as there; elsewhere rounding
        makes them drift apart.
    """
    settings = Settings(family, padding, seed)
    run = train(
        family,
        padding=padding,
        seed=seed,
        until=until,
        n_test=1,
        progress=progress,
        observe=Observer(settings, n_scenes=n_scenes, n_test=n_test, ends=False),
        observe_at=sorted({step for step in STEPS if step < until} | {until}),
    )
    return _frame(run)


# ---------------------------------------------------------------------------- collecting


@dataclass(frozen=True)
class Zoo(Study):
    """The study: its runs continue where they were broken off, its tables take in more of them.

    Attributes
    ----------
    changes : mapping
        Other settings of training.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)

    def perform_one(self, run: SmallNetwork, folder: str | Path) -> str:
        """Train and measure a network, unless that has been done; return its accuracy."""
        alone = parent_process() is None  # else many bars would be drawn over each other
        record = train_run(*astuple(run), folder, progress=alone, **self.changes).record
        return f"test accuracy {record['test_accuracy']:.2%}, {record['seconds']:.0f} s"

    def check(self, data: str | Path, runs: Sequence[SmallNetwork]) -> None:
        """Refuse to replace files that the study did not write."""
        shipped = (f"{run.stem}.safetensors" for run in runs if not run.fresh)
        weights = dict.fromkeys(["manifest.json", *shipped])
        outputs.check_update(Path(data) / "dynamics", dict.fromkeys(_FILES), self.command)
        outputs.check_update(Path(data) / "networks", weights, self.command)

    def collect(
        self,
        folder: str | Path,
        data: str | Path = DATA,
        runs: Sequence[SmallNetwork] | None = None,
        *,
        replace: bool = False,
    ) -> list[str]:
        """Add finished runs to the shipped networks, tables and patterns.

        Of runs with :data:`~studies.networks.names.FRESH_SEEDS` the tables alone.

        Parameters
        ----------
        folder : path
            Holds one folder per run.
        data : path
            Where ``networks/`` and ``dynamics/`` are; runs that are in there already stay.
        runs : sequence, optional
            By default all that are finished.
        replace : bool
            Whether a network that is there may be replaced by another of the same name.

        Returns
        -------
        list of str
            Names of the runs added.

        Raises
        ------
        PPPError
            A run is not finished, or would replace another network; nothing is written then.
        """
        finished = sorted(path.parent for path in Path(folder).glob("*/record.json"))
        places = finished if runs is None else [Path(folder) / run.stem for run in runs]
        if not places:
            raise PPPError(f"no finished run in {folder}; expected folders with a record.json each")
        networks, listed = Path(data) / "networks", Path(data) / "dynamics" / "fresh_runs.csv"
        entries = manifest(networks) if (networks / "manifest.json").exists() else {}
        known = {stem: entry["sha256"] for stem, entry in entries.items()}
        if listed.exists():
            known |= tables.read_table(listed, columns=_RECORD).set_index("run")["sha256"]
        trained = {place.name: load_run(place) for place in places}
        weights = {}
        for place, (stem, run) in zip(places, trained.items(), strict=True):
            if _network(run).stem != stem:
                name = _network(run).stem
                raise PPPError(f"folder {place} holds run {name}; rename it to {name}")
            if not run.rows:
                raise PPPError(f"run {place} was trained without being measured")
            file, content = f"{stem}.safetensors", (place / "weights.safetensors").read_bytes()
            run.record["sha256"] = digest(content)
            if not replace and known.get(stem, run.record["sha256"]) != run.record["sha256"]:
                raise PPPError(
                    f"{data} holds another network {stem}; give --replace to put this one there"
                )
            if not _network(run).fresh:
                weights[file] = content
                entries[stem] = run.record | {"file": file}
        contents = {"dynamics": _tables(Path(data), trained)}
        if weights:
            text = json.dumps(dict(sorted(entries.items())), indent=1, sort_keys=True) + "\n"
            weights["manifest.json"] = text.encode()  # last: it names no file that is missing
            contents["networks"] = weights
        for act in (outputs.check_update, outputs.update):
            for name, files in contents.items():
                act(Path(data) / name, files, self.command)
        return list(trained)


def _whole_design() -> list[SmallNetwork]:
    return [*full_design(), *fresh_design()]


STUDY = Zoo("zoo", SmallNetwork, _whole_design, None, {}, largest_seed=65535)


def _tables(data: Path, trained: Mapping[str, Trained]) -> dict[str, bytes]:
    """Return the files of ``dynamics/`` as they are with these runs."""
    fresh = [run for run in trained.values() if _network(run).fresh]
    others = [run for run in trained.values() if not _network(run).fresh]
    made = {"logs.csv": (_log, [*trained.values()], 7)}
    if fresh:
        made["fresh.csv.gz"] = _fresh_frame, fresh, 5
        made["fresh_runs.csv"] = _record, fresh, 7
    if others:
        made["trajectories.csv.gz"] = _frame, others, 5
    contents = {
        name: tables.packed(name, _merged(data, name, map(frame, runs)), digits)
        for name, (frame, runs, digits) in made.items()
    }
    if others:
        patterns = dict(_patterns(data / "dynamics" / "patterns.safetensors"))
        patterns = {k: v for k, v in patterns.items() if k.partition("/")[0] not in trained}
        for run in others:
            stem = _network(run).stem
            patterns |= {f"{stem}/{name}": tensor for name, tensor in run.tensors.items()}
        contents["patterns.safetensors"] = save_safetensors(patterns)
    return contents


def _merged(data: Path, name: str, frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    path = data / "dynamics" / name
    new = pd.concat(frames, ignore_index=True)
    if path.exists():
        old = tables.read_table(path, columns=new.columns)
        new = pd.concat([old[~old["run"].isin(new["run"])], new], ignore_index=True)
    by = ["run", "step"] if "step" in new else ["run"]
    return new.sort_values(by, kind="stable", ignore_index=True)


def _network(run: Trained) -> SmallNetwork:
    return SmallNetwork(*(run.record[name] for name in ("family", "padding", "seed")))


def _frame(run: Trained) -> pd.DataFrame:
    """Return a run's rows as a tidy table."""
    record, frame = run.record, pd.DataFrame(run.rows)
    head = {name: record[name] for name in ("family", "padding", "seed")}
    epoch = frame["step"] * record["batch"] / record["n_train"]
    return frame.assign(run=_network(run).stem, epoch=epoch, **head)[list(_TABLE)]


def _fresh_frame(run: Trained) -> pd.DataFrame:
    """Return a run's rows under its own scheme, and those under the others at both ends."""
    frame, ends = _frame(run), (0, run.record["steps"])
    kept = (frame["test_padding"] == frame["padding"]) | frame["step"].isin(ends)
    kept &= frame["metric"].isin(_FRESH_METRICS) | frame["layer"].isna()
    return frame.loc[kept & (frame["batch_norm"] == "re-estimated"), list(_FRESH)]


def _record(run: Trained) -> pd.DataFrame:
    return pd.DataFrame([run.record | {"run": _network(run).stem}])[list(_RECORD)]


def _log(run: Trained) -> pd.DataFrame:
    return pd.DataFrame([{"run": _network(run).stem, **row} for row in run.log])


def _patterns(path: Path) -> Iterable[tuple[str, Tensor]]:
    if not path.exists():
        return
    try:
        with safe_open(path, "pt") as archive:
            for name in archive.keys():  # noqa: SIM118, it is no mapping
                yield name, archive.get_tensor(name)
    except SafetensorError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from None


# ------------------------------------------------------------------------------- reading


def verify(data: str | Path = DATA, *, n_test: int = 0) -> list[str]:
    """Check what is shipped: every network, its hash, its fit, its trajectory; and fresh tables.

    Parameters
    ----------
    data : path
    n_test : int
        If above 0, every network's accuracy is computed again on so many test windows, and
        must be the recorded one up to 1 % of the windows, and four standard errors if their
        number is another.

    Returns
    -------
    list of str
        One line per network.

    Raises
    ------
    WeightsError
        The first thing that does not match.
    """
    check_whole("n_test", n_test, 0)
    data = Path(data)
    entries = manifest(data / "networks")
    table = trajectories(data)
    lines = []
    needed = {"family": str, "padding": str, "seed": int, "observed": list, "n_test": int}
    needed["test_accuracy"] = float
    for stem, entry in tqdm(entries.items(), "networks", disable=not n_test, leave=False):
        if lacking := [name for name in needed if not isinstance(entry.get(name), needed[name])]:
            raise WeightsError(f"{stem}: the manifest does not say its {lacking[0]}")
        name = f"plane-{entry['family']}-{entry['padding']}"
        network = load_network(name, "trained", seed=entry["seed"], models=data / "networks")
        if not all(bool(torch.isfinite(t).all()) for t in network.model.state_dict().values()):
            raise WeightsError(f"{stem}: some weights are NaN or infinite")
        measured = table.loc[table["run"] == stem, "step"]
        if sorted(set(measured)) != entry["observed"]:
            raise WeightsError(
                f"{stem}: its trajectory has steps {sorted(set(measured))}, the manifest says "
                f"{entry['observed']}"
            )
        line = f"{stem}: hash and weights match, accuracy {entry['test_accuracy']:.2%}"
        if n_test:
            model = network.model
            if entry["padding"] == OPTIMAL:
                model = rebuilt(model, OPTIMAL)
            accuracy = evaluate(model, n_test)[0]
            recorded = entry["test_accuracy"]
            error = (recorded * (1 - recorded) / n_test) ** 0.5 if n_test != entry["n_test"] else 0
            if abs(accuracy - recorded) > 0.01 + 4 * error:
                raise WeightsError(
                    f"{stem}: accuracy {accuracy:.2%} on {n_test} test windows, recorded "
                    f"{recorded:.2%}"
                )
            line += f", again {accuracy:.2%} on {n_test} windows"
        lines.append(line)
    if (listed := data / "dynamics" / "fresh_runs.csv").exists():
        lines += _verified(
            tables.read_table(listed, columns=_RECORD), trajectories(data, fresh=True)
        )
    files_there = {path.stem for path in (data / "networks").glob("plane-*.safetensors")}
    if stray := sorted(files_there - entries.keys()):
        raise WeightsError(f"{stray[0]}.safetensors is not in the manifest")
    return lines


def _verified(runs: pd.DataFrame, table: pd.DataFrame) -> Iterable[str]:
    """Check the tables of networks without weights, and give a line for each."""
    if others := set(table["run"]) ^ set(runs["run"]):
        raise WeightsError(f"{min(others)} is not in both fresh.csv.gz and fresh_runs.csv")
    for run in runs.itertuples():
        mine = table[table["run"] == run.run]
        strengths = mine.loc[mine["layer"].notna(), "value"]
        if not (np.isfinite(strengths) & (strengths > 0)).all():
            raise WeightsError(f"{run.run}: some strengths in fresh.csv.gz are no numbers above 0")
        if {0, run.steps} - set(mine["step"]):
            raise WeightsError(f"{run.run}: fresh.csv.gz lacks step 0 or step {run.steps}")
        yield f"{run.run}: tables match, accuracy {run.test_accuracy:.2%}"


def trajectories(data: str | Path = DATA, *, fresh: bool = False) -> pd.DataFrame:
    """Read the trajectories of all runs whose weights are shipped, one row per measurement.

    Parameters
    ----------
    data : path
    fresh : bool
        Whether to read those of :func:`fresh_design` in their place. They have re-estimated
        statistics, the metrics mae, snr and raw, schemes other than a run's own at the first and
        last step alone, and no intervals, floor, loss or epoch.

    Returns
    -------
    DataFrame
        run, family, padding (in training), seed, step, epoch, batch_norm ("running" or
        "re-estimated" statistics), test_padding, layer, metric, value, its 95 % interval low
        and high, floor (the metric without any pattern), accuracy and loss on test windows.
        Metrics: mae and snr (MAE-PPP, SNR-PPP), power (unbiased, in units of sigma^2), share; in
        newer runs raw (mean |d| in the layer's own units).
        Accuracy under optimal padding has rows without layer and metric: PPP is 0 there by
        definition.

    Raises
    ------
    WeightsError
        The file is missing or damaged.

    Examples
    --------
    >>> sorted(trajectories()["family"].unique())
    ['resnet', 'vgg']
    """
    name, columns = ("fresh.csv.gz", _FRESH) if fresh else ("trajectories.csv.gz", _TABLE)
    return tables.read_table(Path(data) / "dynamics" / name, columns=columns)


def select(
    table: pd.DataFrame, family: str, paddings: Sequence[str], seeds: Sequence[int]
) -> pd.DataFrame:
    """Return the rows of some runs, and of the control runs with the same seeds.

    Networks trained with a scheme keep the rows of these schemes only, and of optimal padding.

    Raises
    ------
    ParameterError
        A padding or seed that the family was not trained with.

    Examples
    --------
    >>> rows = select(trajectories(), "vgg", ["zeros"], [0])
    >>> sorted(rows["run"].unique())
    ['plane-vgg-optimal-seed0', 'plane-vgg-zeros-seed0']
    """
    mine = table[table["family"] == family]
    for name, asked in (("padding", paddings), ("seed", seeds)):
        known = sorted(mine[name].unique())
        for value in asked:
            if value not in known:
                raise ParameterError(f"family {family!r}: {unknown(name, value, known)}")
    tested = mine["test_padding"].isin([*paddings, OPTIMAL])
    mine = mine[mine["padding"].isin([*paddings, OPTIMAL]) & mine["seed"].isin(seeds) & tested]
    order = {padding: place for place, padding in enumerate([*paddings, OPTIMAL])}
    return mine.sort_values("padding", key=lambda c: c.map(order), kind="stable", ignore_index=True)


def layers_of(table: pd.DataFrame, asked: Sequence[str] = ()) -> list[str]:
    """Return the layers of a family's table, shallow to deep, or the ones asked for.

    Raises
    ------
    LayerError
        A layer that was not measured.

    Examples
    --------
    >>> layers_of(select(trajectories(), "resnet", ["zeros"], [0]), ["layer4", "layer1"])
    ['layer1', 'layer4']
    """
    known = layers_of_interest(FAMILIES[table["family"].iloc[0]]())
    for name in asked:
        if name not in known:
            raise LayerError(unknown("layer", name, known))
    return [name for name in known if name in asked or not asked]


def patterns(stem: str, data: str | Path = DATA) -> dict[tuple[int, str, str], np.ndarray]:
    """Read the patterns of a run: channel mean of |d| in units of sigma.

    Returns
    -------
    dict of (step, test_padding, layer) to ndarray of float32, shape (H, W)

    Raises
    ------
    WeightsError
        The run kept none.
    """
    maps = {
        tuple(name.split("/")[1:]): tensor.float().numpy()
        for name, tensor in _patterns(Path(data) / "dynamics" / "patterns.safetensors")
        if name.startswith(f"{stem}/")
    }
    if not maps:
        raise WeightsError(f"no patterns of run {stem!r} are kept; runs of seed 0 have them")
    by_step = sorted(maps.items(), key=lambda item: int(item[0][0]))
    return {(int(step), padding, layer): v for (step, padding, layer), v in by_step}
