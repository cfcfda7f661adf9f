"""Measure the position-information pattern from padding (PPP) of a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ppp.certificate import Completeness, Coverage
from ppp.errors import MarginError, NullTestError, PictureError, PPPError, SwapError, unknown
from ppp.extraction import Tap, exact_kernels, plain, require_eval, runs_twice
from ppp.influence import coverage as find_coverage
from ppp.inventory import Audit, audit, running
from ppp.metrics import Moments, Summary, merged, noise_floor, separated, summarise
from ppp.padding import Scheme
from ppp.passes import Bound, OptimalPasses
from ppp.results import Checkpoint, LayerResult, Measurement, NullTest
from ppp.resumption import Kept, network_fingerprint
from ppp.statistics import products
from ppp.swapping import POOLS, unhook, with_generator, with_padding
from ppp.windows import Picture, Windows

#: Name of the scheme "as the network is": nothing is swapped.
OWN = "own"


def measure(
    model: nn.Module, windows: Windows, layers: Sequence[str],
    schemes: str | Scheme | Sequence[str | Scheme] | None = None, *,
    coverage: Coverage | None = None, batch_size: int = 8, groups: int = 10,
    confidence: float = 0.95, checkpoints: Sequence[int] = (), distributions: bool = False,
    pools: str = "keep", seed: int = 0, memory: float | None = None,
    keep: str | Path | None = None, progress: Callable[[int], object] | None = None,
    maps: Callable[[str, str, str, Tensor, Tensor], object] | None = None,
) -> Measurement:  # fmt: skip
    """Measure PPP of every layer under every scheme in one pass over the windows.

    Per picture, the network runs once on the picture (its optimal features, shared by all
    windows and all schemes) and once per scheme on every window. Memory does not depend
    on the number of windows. One window more, of the first picture, runs with true values at
    every listed padding: proof that nothing else pads (:mod:`ppp.completeness`).

    Parameters
    ----------
    model : nn.Module
        In eval mode, float32 or float64, on a device with float64 (the CPU, CUDA).
    windows : Windows
        For example from :func:`ppp.cut_windows`; at least two windows.
    layers : sequence of str
        Layers of interest, each with maps (N, C, H, W) and a finite margin.
    schemes : str, Scheme, sequence of them, or None
        Test-time padding schemes; None or "own" measures the network as it is.
    coverage : Coverage, optional
        Of these layers at this window size, if it is known already.
    batch_size : int
        Windows per forward pass. On a CPU, maps above 32 MB cost extra: 8 windows of a
        ResNet-50 at 224 px stay below.
    groups : int
        Pictures are dealt into at most so many groups, the units of the intervals.
    confidence : float
        Level of the intervals, 0 to 1.
    checkpoints : sequence of int
        Numbers of windows at which to keep a :class:`Checkpoint`, >= 2 each.
    distributions : bool
        Keep the moments of A and O themselves too, for Figure 1's two surfaces.
    pools : {"keep", "swap"}
        See :func:`ppp.with_padding`.
    seed : int
        Of randn's draws.
    memory : int, optional
        Bytes that the measurement may add to the process, by default a quarter of the machine's
        memory (a GPU's; or of the process's control group's limit), math.inf for no bound. It
        is kept by an estimate (:func:`ppp.passes.Bound`): batches shrink to two windows, and a
        picture that needs more is done in tiles, its windows tile by tile (between two
        checkpoints, if there are any inside it). Then results are the same up to float error,
        but randn's draws fall on other windows, so that its results differ by chance. Pictures,
        a coverage that is not given, and PyTorch's own code and caches come on top.
        ``provenance["memory_use"]`` says which bound held, and what it came to.
    keep : path-like, optional
        A folder in which finished pictures are kept. The same call goes on where it was
        broken off, at whatever moment; the result is bit for bit that of an unbroken run
        (with as many threads). Pictures may be added at the end. One process at a time.
    progress : callable, optional
        Called with the number of windows just done, or found in `keep`.
    maps : callable, optional
        Called with the name of a picture, a scheme, a layer and the maps of a batch of windows,
        algorithmic and optimal, (n, C, H, W); not with what is found in `keep`. It must not
        change them.

    Returns
    -------
    Measurement

    Raises
    ------
    MarginError
        Misaligned window, too-narrow surroundings, or a layer without a finite margin; as
        GridError, features that depend on the input's size, the place or the batch.
    PictureError
        NaN, infinite or wrongly shaped pixels, or fewer than two windows.
    SwapError
        A scheme is asked for and the network pads where no swap reaches, by name, or
        where nothing is listed; its own padding can be measured.
    NullTestError
        Features differ where padding cannot reach: the measurement would be wrong.
    ResumptionError
        The folder `keep` is of another measurement, damaged, or cannot be written.

    Examples
    --------
    >>> import torch, ppp
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1)).eval()
    >>> reach = ppp.coverage(net, ["0"], 16)
    >>> scene = {"noise": torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))}
    >>> windows = ppp.cut_windows(scene, 16, reach, per_picture=8, seed=0)
    >>> ppp.measure(net, windows, ["0"], "reflect")["0"].null_test.passed
    True
    """
    if any(type(n) is not int or n < 2 for n in checkpoints):
        raise PPPError(f"checkpoints {list(checkpoints)!r}: expected integers of at least 2")
    if keep is not None and checkpoints:
        raise PPPError("checkpoints are not kept in a folder; give either checkpoints or keep")
    if pools not in POOLS:
        raise PPPError(unknown("pools", pools, POOLS))
    marks = sorted(set(checkpoints))
    with suppress(TypeError):  # raised where their number is not known beforehand
        _check_marks(marks, len(windows))
    layers, coverage, inventory = prepared(
        model, windows, layers, coverage, batch_size, groups, confidence
    )
    branches, generators, audits = branched(model, schemes, inventory, pools, seed, windows.size)
    weight = next(model.parameters())
    passes = [inventory, *audits.values()]
    limit = Bound(memory, model, passes, coverage, layers, groups, batch_size, distributions)
    sums = _Sums(model, branches, generators, layers, coverage, groups, distributions, limit)
    sums.maps = maps
    sums.compare({k: proof for k in layers if (proof := coverage[k].completeness)})
    settings = {"window_px": list(windows.size), "seed": seed, "pools": pools}
    settings |= {"batch_size": limit.batch, "memory": limit.memory}
    settings |= {"device": str(weight.device), "torch": str(torch.__version__)}
    folder = None
    if keep is not None:
        identity = {"network": network_fingerprint(model), "layers": layers}
        identity |= {"schemes": list(branches), "groups": groups, "distributions": distributions}
        folder = Kept(keep, identity | settings)
        folder.restore(sums)
    report = progress or (lambda _: None)
    with plain(), exact_kernels() as kernels:
        for picture in windows:
            check_picture(picture, windows.size)
            if folder and folder.skips(picture):
                report(len(picture.tops))
                continue
            for window_batch, optimal, _ in sums.batches(picture, marks):
                sums.step(window_batch, optimal)
                if sums.n in marks:
                    sums.mark(confidence)
                report(len(window_batch))
                del window_batch, optimal  # before the next tile
            if folder:
                folder.save(sums, picture)
        if folder:
            folder.close()
        if sums.n < 2:
            raise PictureError(f"{sums.n} window(s) given; a measurement needs at least 2")
        _check_marks(marks, sums.n)
        result = sums.result(confidence)
    result.audit, result.coverage = inventory, coverage
    passes, seen = sums.optimal, min(groups, len(sums.pictures))
    held = limit.held(passes.largest, seen)
    made = {"windows": sums.n, "pictures": list(sums.pictures), "groups": seen, **settings}
    made |= {"tiles": passes.count, "memory_estimate": held, "dtype": str(weight.dtype)}
    made["memory_use"] = limit.said(held, passes.tiled)
    made["threads"], made["network"] = torch.get_num_threads(), network_fingerprint(model)
    made["not_swapped"] = [f"{s.module}: {s.kind}" for s in inventory.unswappable(pools=True)]
    made["completeness"] = {layer: str(proof) for layer, proof in sums.proofs.items()}
    result.provenance = made | {f"{name}_before": state for name, state in kernels.items()}
    return result


def prepared(
    model: nn.Module, windows: Windows, layers: Sequence[str], coverage: Coverage | None,
    batch_size: int, groups: int, confidence: float,
) -> tuple[list[str], Coverage, Audit]:  # fmt: skip
    """Check what is asked for; return the layers, their coverage and every padding."""
    require_eval(model)
    if not isinstance(getattr(windows, "size", None), tuple):
        raise PictureError(
            f"windows is a {type(windows).__name__}; expected Windows: ppp.cut_windows(pictures, "
            "size, coverage, per_picture=..., seed=...) makes them of pictures of any type"
        )
    layers = [layers] if isinstance(layers, str) else list(layers)
    if batch_size < 1 or groups < 1:
        raise PPPError(f"batch_size {batch_size} and groups {groups} must be at least 1")
    if not isinstance(confidence, int | float) or not 0 < confidence < 1:
        raise PPPError(f"confidence is {confidence!r}; expected a level between 0 and 1, as 0.95")
    Tap(model, layers)  # refuses unknown layers by name
    coverage = coverage or find_coverage(model, layers, windows.size)
    if coverage.input_size != windows.size or not set(layers) <= set(coverage):
        raise PPPError(
            f"coverage is of layers {list(coverage)} at {coverage.input_size} px; "
            f"the windows are {windows.size} px and the layers {list(layers)}"
        )
    if coverage.sites is None:
        coverage.sites = find_coverage(model, layers, windows.size).sites
    inventory = audit(model, windows.size)
    if twice := [layer for layer in layers if inventory.runs[layer] > 1]:
        raise runs_twice(twice[0])
    return layers, coverage, inventory


def _check_marks(marks: Sequence[int], n: int) -> None:
    if marks and marks[-1] > n:
        raise PictureError(f"checkpoint {marks[-1]} lies beyond the {n} windows given")


def branched(
    model, schemes, inventory: Audit, pools: str, seed: int, size: tuple[int, int]
) -> tuple[dict[str, nn.Module], dict[str, torch.Generator], dict[str, Audit]]:
    """Return the network under each scheme, the source of its random padding, its audits."""
    one = schemes is None or isinstance(schemes, str | Scheme) or callable(schemes)
    listed = [schemes] if one else list(schemes)
    if not listed:
        raise PPPError("no scheme given; expected at least one, or None for the network's own")
    device = next(model.parameters()).device
    branches: dict[str, nn.Module] = {}
    generators: dict[str, torch.Generator] = {}
    audits: dict[str, Audit] = {}
    for scheme in listed:
        generator = torch.Generator(device=device).manual_seed(seed)
        if scheme is None or scheme == OWN:
            branches[OWN], generators[OWN] = with_generator(model, generator), generator
            audits[OWN] = inventory
            continue
        for site in inventory.unswappable(pools=pools == "swap"):
            if site.kind != "interpolation":
                raise SwapError(
                    f"padding {scheme!s} cannot be swapped in at {site.module!r} ({site.kind}): "
                    f"{site.reason}; measure the network's own padding with schemes=None"
                )
        if "nan" in str(Scheme.parse(scheme)).split("|"):
            raise PPPError("padding nan marks cells and cannot be measured; see ppp.coverage")
        name = str(Scheme.parse(scheme))
        branches[name] = with_padding(model, scheme, generator=generator, pools=pools)
        draws = generator.get_state()
        audits[name] = swapped = audit(branches[name], size)
        generator.set_state(draws)
        unhook(branches[name], unused=True)  # the audit has run it at this size
        for site in swapped:
            pooled = site.kind in ("max-pool", "average-pool", "ceil_mode", "interpolation")
            if not pooled and site.fill not in (name, "zeros" if name == "constant" else name):
                raise SwapError(
                    f"padding {name} does not take effect at {site.module!r} ({site.kind}), which "
                    f"pads with {site.fill} in the copy too; measure the network's own padding "
                    "with schemes=None"
                )
        generators[name] = generator
    return branches, generators, audits


def check_picture(picture: Picture, size: tuple[int, int]) -> None:
    pixels = picture.pixels
    if pixels.ndim != 3 or pixels.numel() == 0:
        raise PictureError(
            f"picture {picture.name!r} has shape {tuple(pixels.shape)}; expected (C, H, W)"
        )
    if not len(picture.tops) == len(picture.lefts) > 0:
        raise PictureError(f"picture {picture.name!r} has no windows, or unequal offset lists")
    bottom, right = max(picture.tops) + size[0], max(picture.lefts) + size[1]
    beyond = bottom > pixels.shape[1] or right > pixels.shape[2]
    if beyond or min(*picture.tops, *picture.lefts) < 0:
        raise PictureError(f"picture {picture.name!r}: a window lies outside its pixels")
    # extremes are NaN if any pixel is; torch.isfinite would take twice the picture's memory
    if not all(bool(extreme.isfinite()) for extreme in pixels.aminmax()):
        raise PictureError(f"picture {picture.name!r} holds NaN or infinite pixels")


class _Sums:
    """The state of a measurement: moments per group of pictures, extremes, checkpoints."""

    def __init__(self, model, branches, generators, layers, coverage, groups, both, limit) -> None:
        self.generators, self.coverage = generators, coverage
        self.optimal = OptimalPasses(model, layers, coverage, limit, self.compare)
        self.taps = {
            name: Tap(branch, layers, to_the_end=False) for name, branch in branches.items()
        }
        keys = [(name, layer) for name in branches for layer in layers]
        self.moments = {key: [Moments() for _ in range(groups)] for key in keys}
        self.scales = {layer: [Moments() for _ in range(groups)] for layer in layers}
        names = [*keys, *(("optimal", layer) for layer in layers)] if both else []
        self.features = {key: Moments() for key in names}
        device = self.optimal.weight.device
        self.clean = {k: _bounded(~self.coverage[k].influence, device) for k in layers}
        self.null = dict.fromkeys(keys, 0.0)
        self.peak = dict.fromkeys(layers, 0.0)
        self.proofs: dict[str, Completeness] = {}
        self.marks: dict[tuple[str, str], list[Checkpoint]] = {key: [] for key in keys}
        self.pictures: dict[str, int] = {}
        self.groups, self.n = groups, 0
        self.maps: Callable | None = None

    def batches(self, picture: Picture, marks: Sequence[int]):
        """Turn to a picture, whose group follows from its name's first place."""
        self.group = self.pictures.setdefault(picture.name, len(self.pictures)) % self.groups
        self.picture = picture.name
        ends = [m - self.n for m in marks if 0 < m - self.n < len(picture.tops)]
        return self.optimal.batches(picture, ends)

    def compare(self, proofs: dict[str, Completeness]) -> None:
        """Take in a proof of each layer; refuse swapped schemes where it fails."""
        for layer, proof in proofs.items():
            self.proofs[layer] = proof.both(self.proofs.get(layer, proof))
            swapped = [scheme for scheme in self.taps if scheme != OWN]
            if swapped and not proof.shown:
                raise SwapError(
                    f"padding {swapped[0]} cannot be swapped in: up to layer {layer!r}, something "
                    f"pads that the audit does not list, seen first in {proof.module!r}; measure "
                    "the network's own padding with schemes=None"
                )

    def step(self, x: Tensor, optimal: dict[str, Tensor]) -> None:
        """Run one batch of windows through every branch and add its differences."""
        for layer, cut in optimal.items():
            cells = Moments().update(cut)
            self.scales[layer][self.group].merge(cells.pooled())
            self.peak[layer] = torch.stack(cut.aminmax()).abs().max().clamp_min(self.peak[layer])
            if self.features:
                self.features["optimal", layer].merge(cells)
        for scheme, tap in self.taps.items():

            def consume(layer: str, output: Tensor, scheme: str = scheme) -> None:
                key = (scheme, layer)
                if output.shape != optimal[layer].shape:
                    raise MarginError(
                        f"layer {layer!r} gives {tuple(output.shape[-2:])} cells on a window and "
                        f"{tuple(optimal[layer].shape[-2:])} in its coverage"
                    )
                cells = Moments().update(output, optimal[layer])
                box, clean = self.clean[layer]
                inside = (..., *box)
                moments = [cells.mean[inside], cells.m2[inside]]
                # all 0 if every D is; another device is not asked, as it would be waited for
                unasked = clean.device.type != "cpu"
                if clean.numel() and (unasked or any(m.any(0)[clean].any() for m in moments)):
                    differences = (output[inside] - optimal[layer][inside]).abs()
                    largest = differences.amax((0, 1)).where(clean, 0.0).max()
                    self.null[key] = largest.clamp_min(self.null[key])
                    # 0 by the null test; its rounding noise would count as signal over noise
                    for moment in moments:
                        moment.masked_fill_(clean, 0.0)
                self.moments[key][self.group].merge(cells)
                if self.features:
                    self.features[key].update(output)
                if self.maps:
                    self.maps(self.picture, *key, output, optimal[layer])

            with running(self.coverage.input_size):
                tap(x, consume)
        self.n += len(x)

    def parts(self, group: int | None) -> dict[str, Moments]:
        """Return the moments of one group of pictures, or those of all pictures, by name."""
        if group is None:
            return {f"{s} {layer}": moments for (s, layer), moments in self.features.items()}
        found = {f"{s} {layer}": parts[group] for (s, layer), parts in self.moments.items()}
        return found | {f"scale {layer}": parts[group] for layer, parts in self.scales.items()}

    def counts(self) -> dict[str, object]:
        """Return what else there is to the state, as JSON takes it."""
        return {
            "windows": self.n,
            "tiles": [self.optimal.count, self.optimal.tiled, self.optimal.largest],
            "pictures": list(self.pictures),
            "null": [float(largest) for largest in self.null.values()],
            "peak": [float(largest) for largest in self.peak.values()],
            "proofs": {layer: astuple(proof) for layer, proof in self.proofs.items()},
        }

    def set_counts(self, counts: dict) -> None:
        """Put back what `counts` returned."""
        self.n = counts["windows"]
        self.optimal.count, self.optimal.tiled, self.optimal.largest = counts["tiles"]
        self.pictures = {name: order for order, name in enumerate(counts["pictures"])}
        self.null = dict(zip(self.null, counts["null"]))
        self.peak = dict(zip(self.peak, counts["peak"]))
        self.compare({layer: Completeness(*proof) for layer, proof in counts["proofs"].items()})
        self.optimal.tried = True

    def mark(self, confidence: float) -> None:
        """Keep what the estimate looks like now."""
        for (scheme, layer), groups in self.moments.items():
            seen = [group for group in groups if group.n]
            floor = noise_floor(seen)
            summary = self.summary(scheme, layer, confidence, floor)
            maps, share = [merged(seen).mean.abs(), floor], float("nan")
            if self.features:
                first, second = (self.features[name, layer] for name in (scheme, "optimal"))
                maps += [first.mean, second.mean]
                share = float(separated(first, second).double().mean())
            arrays = [cells.mean(0).cpu().numpy() for cells in maps]
            self.marks[scheme, layer].append(Checkpoint(summary, *arrays, separated=share))

    def summary(self, scheme: str, layer: str, confidence: float, floor=None) -> Summary:
        """Compute the metrics of what has been seen."""
        return summarise(
            self.moments[scheme, layer], self.scales[layer], confidence=confidence, floor=floor,
            influenced=float(self.coverage[layer].influence.mean()), pictures=len(self.pictures),
        )  # fmt: skip

    def result(self, confidence: float) -> Measurement:
        """Close the measurement, unless the null test fails."""
        measurement = Measurement()
        for (scheme, layer), groups in self.moments.items():
            cells, largest = int(self.clean[layer][1].sum()), float(self.null[scheme, layer])
            relative = largest / float(self.peak[layer] or 1.0)
            null = NullTest(cells, largest, relative)
            if null.passed is False:
                raise NullTestError(
                    f"null test failed in layer {layer!r} under {scheme}: cells that padding "
                    f"cannot touch differ by {largest:.3g} ({relative:.1e} of the largest "
                    "feature); the network depends on the input's size or on the batch, or pads in "
                    f"hidden ways (list of paddings complete: {self.proofs[layer]})"
                )
            total, seen = merged(groups), [group for group in groups if group.n]
            summary = self.summary(scheme, layer, confidence)
            measurement[scheme, layer] = LayerResult(
                **vars(summary), scheme=scheme, layer=layer, null_test=null,
                pattern=total.mean.float().cpu().numpy(),
                deviation=total.variance.sqrt().float().cpu().numpy(),
                influence=self.coverage[layer].influence, completeness=self.proofs[layer],
                products=products([group.mean for group in seen]),
                spreads=np.array([(group.n, float(group.m2.mean())) for group in seen]),
                checkpoints=tuple(self.marks[scheme, layer]),
            )  # fmt: skip
        return measurement


def _bounded(clean: np.ndarray, device: torch.device) -> tuple[tuple[slice, slice], Tensor]:
    """Return the bounding box of the clean cells and, inside it, which are clean."""
    sides = (np.flatnonzero(clean.any(axis)) for axis in (1, 0))
    rows, columns = (slice(side[0], side[-1] + 1) if len(side) else slice(0) for side in sides)
    return (rows, columns), torch.from_numpy(clean[rows, columns]).to(device)
