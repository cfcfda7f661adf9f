import functools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from checks import refused
from torch import nn
from toys import LAYERS, scenes

import ppp
from ppp.passes import Bound, machine, reused, tiles
from ppp.results import flat

SIZE, SCHEMES = 20, [None, "reflect", "circular"]


@pytest.fixture(scope="module")
def windows(coverage):
    return ppp.cut_windows(scenes(2, 200, 260), SIZE, coverage, per_picture=30, seed=0)


def planned(model, coverage, memory=None, schemes=3, batch=8, groups=10) -> Bound:
    audits = [ppp.audit(model, SIZE)] * (1 + schemes)
    return Bound(memory, model, audits, coverage, LAYERS, groups, batch, False)


@pytest.fixture(scope="module")
def bounds(model, coverage):
    """Return the least bound under which it can be measured, and one that is almost enough."""
    plan = planned(model, coverage, math.inf, batch=2)
    return plan.held(math.prod(plan.need), 10), plan.held(150 * 200, 10)


def close(first, second) -> None:
    """Equal up to float error: patterns, metrics, null tests and checkpoints."""
    assert list(first) == list(second)
    for key, result in first.items():
        other = second[key]
        np.testing.assert_allclose(result.pattern, other.pattern, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(result.deviation, other.deviation, rtol=1e-4, atol=1e-5)
        assert result.null_test.cells == other.null_test.cells
        assert result.null_test.passed is other.null_test.passed
        pairs = list(zip(result.checkpoints, other.checkpoints, strict=True))
        for a, b in pairs:
            np.testing.assert_allclose(a.pattern, b.pattern, rtol=1e-4, atol=1e-5)
        for a, b in [(result, other), *((a.summary, b.summary) for a, b in pairs)]:
            assert (a.n, a.groups) == (b.n, b.groups)
            values = (list(flat(summary).values()) for summary in (a, b))
            np.testing.assert_allclose(*values, rtol=1e-3, atol=1e-5)


# --- putting windows together ------------------------------------------------------------


def area(tops, lefts) -> int:
    """Return the pixels that windows of 30 x 30 px, surroundings included, need together."""
    return (30 + np.ptp(tops)) * (30 + np.ptp(lefts))


@pytest.mark.parametrize("pixels", [900, 2000, 10_000, 40_000, 10**7])
@pytest.mark.parametrize("seed", [0, 1])
def test_each_window_is_in_one_tile_and_each_tile_within_the_bound(pixels, seed):
    tops, lefts = np.random.default_rng(seed).integers(0, 50, (2, 60)) * 8
    found = tiles(tops, lefts, (30, 30), pixels)
    assert sorted(np.concatenate(found)) == list(range(60))
    areas = [area(tops[tile], lefts[tile]) for tile in found]
    assert max(areas) <= pixels
    # what fits is done at once, in the order given; tiles cost no more than single windows
    single = len(found) == 1 and list(found[0]) == list(range(60))
    assert single if pixels == 10**7 else sum(areas) <= 60 * 900


@pytest.mark.parametrize(("pixels", "most"), [(20_000, 4), (10_000, 8), (5_000, 32)])
def test_tiles_are_filled_where_windows_are_dense(pixels, most):
    """Together they need 190 x 190 px, one by one five times as much."""
    tops, lefts = np.random.default_rng(0).integers(0, 21, (2, 200)) * 8
    found = tiles(tops, lefts, (30, 30), pixels)
    assert len(found) <= most
    assert sum(area(tops[tile], lefts[tile]) for tile in found) < 2.2 * 190 * 190


# --- measuring in tiles ------------------------------------------------------------------


@pytest.mark.parametrize("share", [0, 0.2, 0.5])
@pytest.mark.parametrize("checkpoints", [(), (5, 37, 60)])
def test_tiles_change_nothing(model, windows, coverage, bounds, share, checkpoints):
    memory = int(bounds[0] + share * (bounds[1] - bounds[0]))
    options = {"coverage": coverage, "checkpoints": checkpoints}
    whole = ppp.measure(model, windows, LAYERS, SCHEMES, memory=math.inf, **options)
    tiled = ppp.measure(model, windows, LAYERS, SCHEMES, memory=memory, **options)
    close(tiled, whole)
    assert whole.provenance["memory"] is None and whole.provenance["tiles"] == 2
    assert "(no bound)" in whole.provenance["memory_use"]
    assert tiled.provenance["memory"] == memory and tiled.provenance["tiles"] > 2
    assert "2 pictures in tiles: equal up to float error" in tiled.provenance["memory_use"]
    estimates = [found.provenance["memory_estimate"] for found in (tiled, whole)]
    assert estimates[0] <= memory < estimates[1]


@pytest.mark.parametrize("memory", [10**9, None])
def test_a_bound_that_holds_every_picture_changes_no_bit(model, windows, coverage, memory):
    options = {"coverage": coverage, "seed": 1}
    whole = ppp.measure(model, windows, LAYERS, [*SCHEMES, "randn"], memory=math.inf, **options)
    tiled = ppp.measure(model, windows, LAYERS, [*SCHEMES, "randn"], memory=memory, **options)
    assert tiled.table().equals(whole.table()) and tiled.provenance["tiles"] == 2
    assert all(np.array_equal(r.pattern, tiled[key].pattern) for key, r in whole.items())


def test_randn_draws_for_the_windows_tile_by_tile(model, windows, coverage, bounds):
    """The same windows, given in the order of the tiles, make the same draws without tiles."""
    memory = sum(bounds) // 2
    limit, ordered = planned(model, coverage, memory), []
    for picture in windows:
        for tile in tiles(picture.tops, picture.lefts, limit.need, limit.pixels):
            places = picture.tops[tile], picture.lefts[tile]
            ordered.append(ppp.Picture(picture.name, picture.pixels, *places))
    assert len(ordered) > 2
    schemes, options = ["randn", "zeros", "randn(border)"], {"coverage": coverage}
    options["batch_size"] = limit.batch
    whole = ppp.measure(model, ppp.Windows(ordered, SIZE), LAYERS, schemes, **options)
    close(ppp.measure(model, windows, LAYERS, schemes, memory=memory, **options), whole)


def test_no_pass_is_larger_than_the_bound(model, windows, coverage, bounds):
    memory, seen = sum(bounds) // 2, []
    handle = model[0].register_forward_hook(
        lambda _module, inputs, _output: seen.append(tuple(inputs[0].shape))
    )
    try:
        got = ppp.measure(model, windows, LAYERS, SCHEMES, coverage=coverage, memory=memory)
    finally:
        handle.remove()
    limit = planned(model, coverage, memory)
    passes = [height * width for *_, height, width in seen if (height, width) != (SIZE, SIZE)]
    assert got.provenance["tiles"] > 2 and max(passes) <= limit.pixels
    assert max(n for n, *_, width in seen if width == SIZE) <= max(2, limit.batch)


OPERATORS = {
    "convolution": nn.Conv2d(32, 32, 3, padding=1),
    "convolution 1 x 1": nn.Conv2d(32, 128, 1),
    "convolution 1 x 1, stride 2": nn.Conv2d(32, 128, 1, stride=2),
    "convolution, stride 2": nn.Conv2d(32, 64, 7, stride=2, padding=3),
    "depthwise": nn.Conv2d(32, 32, 3, padding=1, groups=32),
    "dilated": nn.Conv2d(32, 32, 3, padding=2, dilation=2),
    "batch norm": nn.BatchNorm2d(32),
    "ReLU": nn.ReLU(),
    "SiLU": nn.SiLU(),
    "GELU": nn.GELU(),
    "max pool": nn.MaxPool2d(3, 2, 1),
    "average pool": nn.AvgPool2d(3, 2, 1),
}


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
@torch.no_grad()
def test_a_tile_gives_what_the_whole_map_gives_up_to_float_error(operator):
    """Most operators give the same bits. Convolutions of 1 x 1 cell do not always, nor those
    that vectors of a few cells go through: the last cells of a row take another path."""
    x = torch.randn(1, 32, 128, 160, generator=torch.Generator().manual_seed(0))
    whole = operator.eval()(x)
    step = x.shape[2] // whole.shape[2]
    for top, left, height, width in [(32, 32, 64, 64), (16, 48, 80, 52), (48, 16, 52, 100)]:
        tile = operator(x[:, :, top : top + height, left : left + width].contiguous())
        y, x0 = top // step, left // step
        same = whole[:, :, y : y + tile.shape[2], x0 : x0 + tile.shape[3]]
        difference = (tile - same)[:, :, 3:-3, 3:-3].abs().max()
        assert float(difference) <= 5e-6 * float(whole.abs().max())


# --- the bound ---------------------------------------------------------------------------


def test_batches_shrink_with_the_bound(model, windows, coverage, bounds):
    options = {"coverage": coverage, "batch_size": 30}
    whole = ppp.measure(model, windows, LAYERS, SCHEMES, memory=math.inf, **options)
    small = ppp.measure(model, windows, LAYERS, SCHEMES, memory=bounds[0], **options)
    assert whole.provenance["batch_size"] == 30 and 2 <= small.provenance["batch_size"] < 8
    close(small, whole)


def test_the_default_is_a_quarter_of_the_machine(model, windows, coverage, bounds, monkeypatch):
    measure = functools.partial(ppp.measure, model, windows, LAYERS, SCHEMES, coverage=coverage)
    monkeypatch.setattr("ppp.passes.machine", lambda _device: 4 * bounds[0] + 4)
    made = measure().provenance
    assert made["memory"] == bounds[0] + 1 and made["tiles"] > 2
    assert "a quarter of" in made["memory_use"]
    monkeypatch.setattr("ppp.passes.machine", lambda _device: 4096)  # never refused
    assert measure().provenance["memory"] == bounds[0]
    monkeypatch.setattr("ppp.passes.machine", lambda _device: math.inf)
    assert measure().provenance["memory"] is None


def test_the_machine_is_what_a_control_group_allows(tmp_path):
    cpu = torch.device("cpu")
    whole = machine(cpu, tmp_path)
    assert whole == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for kind, mount, name in ("", "", "memory.max"), ("memory", "memory", "memory.limit_in_bytes"):
        root = tmp_path / f"kind {kind}"
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/cgroup").write_text(f"3:cpuset:/elsewhere\n4:{kind}:/job/step:1\n")
        inner = root / "sys/fs/cgroup" / mount / "job" / "step:1"
        inner.mkdir(parents=True)
        (inner / name).write_text("max\n")
        (inner.parent / name).write_text("7000000\n")
        assert machine(cpu, root) == 7_000_000
        (inner / name).write_text("5000000\n")
        assert machine(cpu, root) == 5_000_000
        (inner / name).write_text(f"{2**63 - 4096}\n")  # how the first kind says: no limit
        (inner.parent / name).unlink()
        assert machine(cpu, root) == whole


def test_a_bound_too_small_for_one_window_says_what_one_needs(model, windows, coverage, bounds):
    options = {"coverage": coverage, "schemes": SCHEMES, "memory": bounds[0] - 1}
    assert f"need {bounds[0]} bytes" in refused(ppp.measure, model, windows, LAYERS, **options)
    ppp.measure(model, windows, LAYERS, **options | {"memory": bounds[0]})


@pytest.mark.parametrize("memory", [0, -5, 1e9, "1GB", True, -math.inf, math.nan])
def test_a_bound_that_is_no_number_of_bytes_is_refused(model, windows, coverage, memory):
    options = {"coverage": coverage, "memory": memory}
    told = refused(ppp.measure, model, windows, LAYERS, **options)
    assert repr(memory) in told and "math.inf for no bound" in told


# --- the estimate ------------------------------------------------------------------------


class Skipping(nn.Module):
    """A map of 4 channels that is kept while the rest is worked on, and a head of many weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.ReLU()
        self.third, self.head = nn.ReLU(), nn.Linear(480, 60)

    def forward(self, x):
        kept = self.first(x)
        return self.head((kept + self.third(self.second(kept))).flatten(1))


def test_an_audit_says_what_a_pass_holds():
    found = ppp.audit(Skipping().eval(), (10, 12))
    pixel = 4 * 10 * 12
    assert found.outputs["first"] == found.outputs["third"] == 4 * pixel
    # input, kept map, and the outputs of the ReLUs and the sum; at the convolution, twice
    # input and output; the head's weights do not count
    assert pixel * (3 + 4 + 4 + 4) <= found.peak <= pixel * (3 + 4 + 4 + 4 + 4)
    assert found.padded == 0
    padded = ppp.audit(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)).eval(), (10, 12))
    assert padded.peak == pixel * 2 * (3 + 4) and padded.padded == 3 * pixel


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a part of a run is Linux's")
def test_the_estimate_is_near_what_a_process_grows_by():
    """In a process of its own, of networks of three kinds, with and without a bound."""
    root = Path(__file__).parents[2]
    command = [sys.executable, root / "tests" / "helpers" / "growth.py"]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    assert len(found) == 6
    for name, one in found.items():
        if not one["bound"]:
            assert 0.6 < one["estimate"] / one["grown"] < 1.6, (name, one)
            continue
        assert one["tiles"] > 2 and one["estimate"] <= one["bound"], (name, one)
        assert one["grown"] < one["bound"] + 2**24, (name, one)  # and what PyTorch takes


def test_glibc_is_told_to_keep_memory_and_told_otherwise_at_the_end(monkeypatch):
    told = []
    monkeypatch.setattr("ppp.passes._mallopt", lambda: lambda *setting: told.append(setting))
    with pytest.raises(KeyError), reused():
        assert told[-1] == (-1, 2**31 - 1)
        raise KeyError
    assert told[-1] == (-1, 2**26)
