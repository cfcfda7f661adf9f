"""Ask a GPU what no CPU can tell. `benchmarks/gpu.sh` runs all steps, one process each.

python benchmarks/gpu.py STEP [--device cuda] [--small] [--output runs/gpu]
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import torch
from shared import alternate

import ppp
from ppp import files
from ppp.errors import PPPError
from ppp.extraction import exact_kernels, gather
from studies import results
from studies.dynamics.design import full_design
from studies.networks import FAMILIES, OPTIMAL, Network, load_network
from studies.networks.names import PADDINGS
from studies.networks.training import Settings, _TrainingSet, _Work
from studies.pictures.plane import scenes

ALL = [*(s for s in ppp.padding.SCHEMES if s != "nan"), "constant(0.5)", "randn(border)"]
FULL = SimpleNamespace(
    networks=("plane-resnet", "plane-vgg", "resnet18"), schemes=ALL, pictures=8, per_picture=2,
    large="resnet50", side=1024, batch_sizes=(8, 32, 128), windows=32, repeats=3,
    families=tuple(FAMILIES), paddings=(*PADDINGS, OPTIMAL), processes=4, seconds=1.5, warm=10,
    steps=200, row=25, n_train=2048,
)  # fmt: skip
SMALL = SimpleNamespace(
    networks=("plane-resnet",), schemes=("zeros", "randn"), pictures=4, per_picture=1,
    large="plane-resnet", side=0, batch_sizes=(2,), windows=1, families=("resnet",),
    paddings=("zeros",), processes=2, seconds=0.1, warm=1, steps=2, row=1, n_train=64, repeats=1,
)  # fmt: skip

#: Columns of the table that have a unit, as a power of the layer's sigma; the others have none.
UNITS = {"mae_raw": 1, "sigma": 1, "null_largest": 1, "noise_power": 2}
UNITS |= dict.fromkeys(["power", "power_low", "power_high", "power_windows"], 2)
#: Precisions in training, and whether autocast takes what it may in half precision.
PRECISIONS = {"float32": False, "bfloat16": True}
TF32 = torch.backends.cuda.matmul, torch.backends.cudnn.conv


def keep(folder: Path, name: str, work: Callable[..., dict], *arguments: object) -> dict:
    """Return a result that is in the folder; otherwise make it, and keep it as soon as it is."""
    path, began = folder / f"{name}.json", time.perf_counter()
    if not path.exists():
        found = work(*arguments)
        found["seconds"] = round(time.perf_counter() - began, 1)
        files.write(path, f"{json.dumps(found, indent=1, default=float)}\n".encode())
    found = json.loads(path.read_text(encoding="utf-8"))
    print(f"{name}: {found['seconds']} s", flush=True)
    return found


def kept(folder: Path, kind: str) -> dict[str, dict]:
    """Return the finished results of one kind."""
    paths = sorted(folder.glob(f"{kind}-*.json"))
    return {p.stem.partition("-")[2]: json.loads(p.read_text(encoding="utf-8")) for p in paths}


def environment(device: str, small: bool) -> dict:
    """Return what the results are of."""
    with exact_kernels() as before:
        facts = results.footer(small=small, **before)
    facts |= {"host": facts["device"], "device": device}
    facts["deterministic_algorithms"] = torch.are_deterministic_algorithms_enabled()
    if device != "cpu":
        about = torch.cuda.get_device_properties(device)
        facts |= {"device": about.name, "memory_gib": round(about.total_memory / 2**30, 1)}
        facts |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        asked = "nvidia-smi --query-gpu=driver_version --format=csv,noheader"
        facts["driver"] = subprocess.getoutput(asked).partition("\n")[0]
    return facts


# ---- the same results as on the CPU


def same_draws() -> AbstractContextManager:
    """Draw randn's values on the CPU in double precision: each device has a stream of its own."""
    drawn, twin = torch.randn, lru_cache(lambda g: torch.Generator().manual_seed(g.initial_seed()))

    def randn(*shape: object, generator=None, dtype=None, device=None) -> torch.Tensor:
        if generator is None:
            return drawn(*shape, dtype=dtype, device=device)
        return drawn(*shape, dtype=torch.float64, generator=twin(generator)).to(device, dtype)

    return mock.patch.object(torch, "randn", randn)


@lru_cache
def loaded(name: str) -> tuple[Network, ppp.Coverage]:
    """Return a network with its shipped weights, torchvision's with random ones."""
    network = load_network(name, "trained" if name.startswith("plane") else "random")
    return network, ppp.coverage(network.model, network.layers, network.window)


def measured(name: str, schemes, size, device: str, dtype=torch.float32) -> ppp.Measurement:
    """Measure a network on windows of a few scenes."""
    network, reach = loaded(name)
    sides = (side + 64 for side in ppp.size_needed(network.window, reach))
    windows = ppp.cut_windows(
        scenes(size.pictures, *sides, seed=0), network.window, reach,
        per_picture=size.per_picture, seed=0, transform=lambda x: network.prepare(x).to(dtype),
    )  # fmt: skip
    model = copy.deepcopy(network.model).to(device, dtype)
    return ppp.measure(model, windows, network.layers, schemes, coverage=reach)


def apart(found: ppp.Measurement, truth: ppp.Measurement) -> dict[str, float]:
    """Return the largest difference of each metric and map: in sigma, power in its square."""
    (values, true), worst = (m.table().select_dtypes("number") for m in (found, truth)), {}
    for name in true:
        differences = (values[name] - true[name]).abs() / true["sigma"] ** UNITS.get(name, 0)
        same = (values[name] == true[name]) | (values[name].isna() & true[name].isna())
        worst[name] = float(differences.fillna(np.inf).mask(same, 0.0).max())
    for name in ("pattern", "deviation"):
        pairs = ((getattr(m[key], name) for m in (found, truth)) for key in truth)
        worst[name] = max(np.abs(a - b).max() / s for (a, b), s in zip(pairs, true["sigma"]))
    return worst


def tolerance(metric: str, dtype: torch.dtype) -> float:
    """Return what rounding may make of a metric, in units of the layer's sigma.

    A feature is a chain of sums of up to some thousand products, each rounded to one part in
    2^24 (float32) or 2^53 (float64): sums in another order differ by about 1e-5 sigma or
    1e-14 after twenty layers. 1e-4 is allowed in float32, 1e-9 in float64.
    SNR and the share of significant cells divide by the spread of a cell: where padding barely
    reaches, d and s are rounding alone. They may differ by a hundred times as much.
    """
    ratio = 100 if metric.startswith("snr") or metric == "detected" else 1
    return ratio * (1e-4 if dtype == torch.float32 else 1e-9)


def equality(name: str, size, device: str) -> dict:
    """Compare the device in both precisions, and the CPU in float32, with the CPU in float64."""
    found, row, too_far = {}, {}, []
    places = {"float64": device, "float32": device, "float32 of the CPU": "cpu"}
    with same_draws():
        truth = measured(name, size.schemes, size, "cpu", torch.float64)
        for label, where in places.items():
            kind = getattr(torch, label[:7])
            found[label] = worst = apart(measured(name, size.schemes, size, where, kind), truth)
            too_far += [f"{k} in {label}" for k, v in worst.items() if not v <= tolerance(k, kind)]
            row[label] = ", ".join(
                f"{k} {worst[k]:.0e}" for k in ("mae", "snr", "power", "pattern")
            )
    row["too far apart"] = ", ".join(too_far) or "none"
    return {"row": row, "apart": found}


# ---- TF32


@contextmanager
def tf32_kernels() -> Iterator[dict[str, bool]]:
    """Stand in for `exact_kernels`: TF32 is on, as far as the device has it."""
    with exact_kernels() as before:
        for place in TF32:
            place.fp32_precision = "tf32"
        yield before


def outcome(name: str, size, device: str) -> tuple[str, ppp.Measurement | None]:
    """Measure; return what the null test and the proof of completeness say."""
    try:
        found = measured(name, ("zeros", "reflect"), size, device)
    except PPPError as error:
        return f"{type(error).__name__}: {error}", None
    null, proof = found.table()[["null_relative", "completeness_relative"]].max()
    return f"passed: null test {null:.0e}, completeness {proof:.0e}", found


def exactness(name: str, size, device: str) -> dict:
    """Look whether TF32 is off while measuring, and what happens where it is left on."""
    seen = {"measuring": set()}

    def look(_module: object, inputs: tuple) -> None:
        if inputs[0].any():  # the audit, before the measurement, looks at zeros
            seen["measuring"] |= {place.fp32_precision for place in TF32}

    handle = loaded(name)[0].model.register_forward_pre_hook(look)
    with tf32_kernels():
        off, exact = outcome(name, size, device)
        seen["afterwards"] = {place.fp32_precision for place in TF32}
    handle.remove()
    with mock.patch("ppp.measurement.exact_kernels", tf32_kernels):
        on, rounded = outcome(name, size, device)
    moved = f"{apart(rounded, exact)['mae']:.0e}" if exact and rounded else "not to be had"
    row = {"switched off by ppp": off, "left on": on, "MAE apart": moved}
    return {"row": row | {f"seen {when}": ", ".join(sorted(s)) for when, s in seen.items()}}


# ---- throughput


class Throughput:
    """Five schemes on few and on many windows of four pictures of noise."""

    def __init__(self, size, device: str) -> None:
        network, self.reach = loaded(size.large)
        self.device, self.layers, self.repeats = device, network.layers, size.repeats
        self.model = copy.deepcopy(network.model).to(device)
        generator = torch.Generator(device).manual_seed(0)
        self.branches = [ppp.with_padding(self.model, s, generator=generator) for s in PADDINGS]
        sides = (max(size.side, s + 64) for s in ppp.size_needed(network.window, self.reach))
        noise = torch.randn(4, 3, *sides, generator=torch.Generator().manual_seed(0))
        cut = partial(ppp.cut_windows, dict(zip("abcd", noise)), network.window, self.reach, seed=0)
        self.windows = [cut(per_picture=n) for n in (size.windows, 4 * size.windows)]

    def measure(self, which: int, batch_size: int) -> None:
        options = {"coverage": self.reach, "batch_size": batch_size}
        ppp.measure(self.model, self.windows[which], self.layers, PADDINGS, **options)

    def bare(self, which: int, batch_size: int) -> None:
        """Run both branches on the same pictures and batches, in the same kernels."""
        with torch.no_grad(), exact_kernels():
            for picture in self.windows[which]:
                pixels = picture.pixels.to(self.device)
                self.model(pixels[None])
                for i in range(0, len(picture.tops), batch_size):
                    places = (side[i : i + batch_size] for side in (picture.tops, picture.lefts))
                    x = gather(pixels, *places, self.reach.input_size)
                    for branch in self.branches:
                        branch(x)
        if self.device != "cpu":  # a measurement ends with numbers; kernels would still be queued
            torch.cuda.synchronize(self.device)

    def ratios(self, batch_size: int) -> dict:
        self.bare(0, batch_size)  # the first use of a kernel loads it
        runs = itertools.product((self.bare, self.measure), (0, 1))
        work = {(r.__name__, n): partial(r, n, batch_size) for r, n in runs}
        s = {name: clocks["wall"] for name, clocks in alternate(work, self.repeats).items()}
        bare, ours = (s[name, 1] - s[name, 0] for name in ("bare", "measure"))
        rate = len(self.windows[1]) * len(PADDINGS) / s["measure", 1]
        row = {"share of bare forwards": f"{s['bare', 1] / s['measure', 1]:.0%}"}
        row |= {"of each more window": f"{bare / ours:.0%}", "windows a second": f"{rate:.0f}"}
        clock = {f"{name}, {len(self.windows[n])} windows": t for (name, n), t in s.items()}
        return {"row": row, "clock": clock}

    def profile(self, batch_size: int) -> dict:
        """Return the operators that take the most time of the device, and of the processor."""
        with torch.profiler.profile() as profiler:
            self.measure(0, batch_size)
        spent = profiler.key_averages()
        clocks = "self_device_time_total", "self_cpu_time_total"  # microseconds
        most = {c: sorted(spent, key=lambda one: -getattr(one, c))[:12] for c in clocks}
        return {c: {one.key: getattr(one, c) for one in ones} for c, ones in most.items()}


# ---- training

_joined: list = []


@lru_cache
def training_set(s: Settings) -> _TrainingSet:
    return _TrainingSet(s, FAMILIES[s.family](padding=s.padding).surroundings, "")


def _join(barrier: object) -> None:
    _joined.append(barrier)
    torch.set_num_threads(1)


def rate(settings: Settings, half: bool, device: str, warm: int, seconds: float) -> float:
    """Return steps a second, the choice of windows included; in step with other processes."""
    work, data = _Work(settings, device, half), training_set(settings)
    for step in range(warm):
        work.advance(*data.batch(step))
    work.report()  # waits for the device
    for barrier in _joined:
        barrier.wait(100)
    began = time.perf_counter()
    while time.perf_counter() < began + seconds:
        work.advance(*data.batch(work.step))
    work.report()
    return (work.step - warm) / (time.perf_counter() - began)


def training(family: str, padding: str, size, device: str, pool: ProcessPoolExecutor) -> dict:
    """Return steps a second, alone and of all of several at once; and what a batch takes."""
    settings, rates = Settings(family, padding, n_train=256), {}
    for name, half in PRECISIONS.items():
        task = settings, half, device, size.warm, size.seconds
        rates[f"{name}, alone"] = rate(*task)
        several = f"{name}, {size.processes} at once"
        rates[several] = sum(pool.map(rate, *zip(*[task] * size.processes)))
    began = time.perf_counter()
    training_set(settings).batch(0)
    row = {name: f"{each:.1f} a second" for name, each in rates.items()}
    return {"row": row, "rates": rates, "batch_seconds": time.perf_counter() - began}


def curves(family: str, padding: str, size, device: str) -> dict:
    """Return losses in both precisions, in float32 again and from another seed."""
    runs = {name: (0, half) for name, half in PRECISIONS.items()}
    runs |= {"float32 again": (0, False), "another seed": (1, False)}
    losses = {}
    for name, (seed, half) in runs.items():
        settings = Settings(family, padding, seed=seed, n_train=size.n_train)
        work, data = _Work(settings, device, half), training_set(settings)
        for step in range(size.steps):
            work.advance(*data.batch(step))
            if work.step % size.row == 0:
                work.report()
        losses[name] = np.array([row["loss"] for row in work.log])
    row = {k: f"{np.abs(v - losses['float32']).max():.4f}" for k, v in losses.items()}
    return {"row": row, "losses": {name: list(values) for name, values in losses.items()}}


def hours(folder: Path, longer: int = 10) -> pd.Series:
    """Return the hours of all small networks' steps, so many times as long, at the rates found."""
    found = {name: one["rates"] for name, one in kept(folder, "training").items()}
    names = [f"{run.family}-{run.padding}" for run in full_design()]
    rates = pd.DataFrame(found).reindex(columns=names)  # NaN where a rate is missing
    return (longer * Settings.steps / rates / 3600).sum(axis=1, skipna=False)


# ---- the whole

TABLES = ("equality", "exactness", "throughput", "training", "curves")


def summary(folder: Path) -> str:
    """Return the finished results as Markdown."""
    about = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    lines = [", ".join(f"{name} {fact}" for name, fact in about.items() if name != "seconds")]
    for kind in TABLES:
        found = {name: one["row"] for name, one in kept(folder, kind).items()}
        head = [kind, *next(iter(found.values()), {"not done": ""})]
        lines += ["", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        lines += [f"| {' | '.join([name, *row.values()])} |" for name, row in found.items()]
    spent = ", ".join(f"{how}: {time:.2f} h" for how, time in hours(folder).dropna().items())
    lines += ["", f"All small networks, ten times as many steps: {spent or 'not done'}"]
    return "\n".join(lines) + "\n"


def run(step: str, size: SimpleNamespace, device: str, folder: Path) -> None:
    """Do what is missing of a step."""
    if step in ("equality", "exactness"):
        for name in size.networks:
            keep(folder, f"{step}-{name}", globals()[step], name, size, device)
    elif step == "throughput":
        bench = Throughput(size, device)
        for batch_size in size.batch_sizes:
            keep(folder, f"{step}-{batch_size:03}", bench.ratios, batch_size)
        keep(folder, "profile", bench.profile, size.batch_sizes[-1])
    elif step == "training":
        barrier = (context := get_context("spawn")).Barrier(size.processes)
        with ProcessPoolExecutor(size.processes, context, _join, (barrier,)) as pool:
            for pair in itertools.product(size.families, size.paddings):
                keep(folder, f"{step}-{'-'.join(pair)}", training, *pair, size, device, pool)
    elif step == "curves":
        for pair in itertools.product(size.families, ("zeros", "reflect")):
            keep(folder, f"{step}-{'-'.join(pair)}", curves, *pair, size, device)
    elif step == "summary":
        files.write(folder / "summary.md", (text := summary(folder)).encode())
        print(text)


def main(arguments: list[str] | None = None) -> int:
    """Do one step; 2 where there is no GPU, or the folder holds another machine's results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("environment", *TABLES, "summary"))
    parser.add_argument("--device", default="cuda", help="cpu only shows that the script runs")
    parser.add_argument("--small", action="store_true", help="everything once, with little")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"), help="folder of results")
    options = parser.parse_args(arguments)
    if options.device != "cpu" and not torch.cuda.is_available():
        print("no GPU: PyTorch finds no CUDA device; try the script with --device cpu --small")
        return 2
    now = environment(options.device, options.small)
    there = keep(options.output, "environment", now.copy)
    if differ := [name for name in now if there.get(name) != now[name]]:
        print(f"{options.output} holds results of another {differ[0]}; give another --output")
        return 2
    run(options.step, SMALL if options.small else FULL, options.device, options.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
