import weakref
from dataclasses import replace

import checks
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toys import LAYERS, network, noise, scenes, sequential, unchanged

import ppp
from ppp import measurement
from ppp.errors import (
    LayerError,
    MarginError,
    NullTestError,
    PaddingError,
    PictureError,
    PPPError,
    SwapError,
)
from ppp.influence import Coverage, LayerCoverage
from ppp.metrics import Moments, summarise
from ppp.statistics import sign_flip_test
from ppp.windows import Picture, Windows

Sequential, Conv = nn.Sequential, nn.Conv2d
SIZE = 20


def refused(error, *arguments, **options) -> str:
    return checks.refused(ppp.measure, *arguments, error=error, **options)


def equal(first, second, exactly: bool = True) -> None:
    assert list(first) == list(second)
    for key, result in first.items():
        for name in ("pattern", "deviation"):
            a, b = getattr(result, name), getattr(second[key], name)
            if exactly:
                np.testing.assert_array_equal(a, b)
            else:
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    if exactly:
        assert first.table().equals(second.table())


# --- against brute force -----------------------------------------------------------------

WIDE = 24  # px of surroundings on each side: more than any margin, a multiple of every stride


@torch.no_grad()
def brute_force(model, windows, scheme):
    """Loop over windows: one crop each, one forward pass each, differences kept."""
    differences = {layer: [] for layer in LAYERS}
    optimal = {layer: [] for layer in LAYERS}
    swapped = model if scheme is None else ppp.with_padding(model, scheme)
    strides = dict(zip(LAYERS, (1, 2, 4)))
    for picture in windows:
        padded = F.pad(picture.pixels[None], (WIDE,) * 4, mode="reflect")[0]  # never reached
        for top, left in zip(picture.tops, picture.lefts):
            crop = padded[:, top : top + SIZE + 2 * WIDE, left : left + SIZE + 2 * WIDE]
            window = picture.pixels[:, top : top + SIZE, left : left + SIZE]
            x, y = crop[None], window[None]
            for layer in LAYERS:
                stop = int(layer) + 1
                o, a = model[:stop](x)[0], swapped[:stop](y)[0]
                start, size = WIDE // strides[layer], a.shape[-1]
                o = o[:, start : start + size, start : start + size]
                differences[layer].append((a - o).double().numpy())
                optimal[layer].append(o.double().numpy())
    return {k: np.stack(v) for k, v in differences.items()}, {
        k: np.stack(v) for k, v in optimal.items()
    }


@pytest.mark.parametrize("scheme", [None, "zeros", "reflect", "circular", "mean", "constant(0.5)"])
def test_it_equals_a_loop_over_windows(model, windows, coverage, scheme):
    got = ppp.measure(model, windows, LAYERS, scheme, coverage=coverage)
    differences, optimal = brute_force(model, windows, scheme)
    for layer in LAYERS:
        d, result = differences[layer], got[layer]
        touched = coverage[layer].influence
        assert np.abs(d[..., ~touched]).max(initial=0) < 1e-5
        np.testing.assert_allclose(result.pattern, d.mean(0), atol=1e-5)
        np.testing.assert_allclose(result.deviation, d.std(0, ddof=1), atol=1e-5)
        d = np.where(touched, d, 0.0)  # clean cells hold rounding noise
        summary, mean, spread = result.summary, d.mean(0), d.std(0, ddof=1)
        sigma = optimal[layer].std(ddof=1)
        assert summary.n == len(d) == 24
        assert summary.sigma == pytest.approx(sigma, rel=1e-5)
        assert summary.mae_raw == pytest.approx(np.abs(mean).mean(), rel=1e-4)
        assert summary.mae.value == pytest.approx(np.abs(mean).mean() / sigma, rel=1e-4)
        ratio = np.divide(np.abs(mean), spread, out=np.zeros_like(mean), where=spread > 0)
        assert summary.snr.value == pytest.approx(ratio.mean(), rel=1e-4)
        assert summary.noise_power == pytest.approx((spread**2).mean(), rel=1e-4)
        np.testing.assert_allclose(result.magnitude(), np.abs(result.pattern).mean(0))
        by_picture = d.reshape(4, 6, -1).mean(1)
        gram = by_picture @ by_picture.T / by_picture.shape[1]
        power = (gram.sum() - np.trace(gram)) / 12
        assert summary.power.value == pytest.approx(power, rel=1e-4) and summary.groups == 4


def test_moments_and_summary_are_those_of_its_groups(model, windows, coverage):
    """Pictures are dealt into groups by their order of appearance."""
    got = ppp.measure(model, windows, ["4"], "zeros", groups=3)["4"].summary
    differences, optimal = brute_force(model, windows, "zeros")
    d = torch.from_numpy(np.where(coverage["4"].influence, differences["4"], 0.0)).split(6)
    o = torch.from_numpy(optimal["4"]).split(6)
    dealt = [(0, 3), (1,), (2,)]
    expected = summarise(
        [Moments().update(torch.cat([d[i] for i in group])) for group in dealt],
        [Moments().update(torch.cat([o[i].flatten() for i in group])) for group in dealt],
    )
    assert got.groups == 3
    for name in ("mae", "snr"):
        a, b = getattr(got, name), getattr(expected, name)
        np.testing.assert_allclose([a.value, a.low, a.high], [b.value, b.low, b.high], rtol=1e-3)


def test_zero_differences_on_clean_cells_count_as_nothing(model, windows, coverage):
    """Rounding noise on clean cells must enter neither metric."""
    got = ppp.measure(model, windows, LAYERS, ["zeros", "randn"])
    for (_, layer), result in got.items():
        clean = ~coverage[layer].influence
        assert result.null_test.cells == clean.sum()
        assert not result.pattern[:, clean].any() and not result.deviation[:, clean].any()
        assert np.isfinite(result.summary.snr.value) and np.isfinite(result.summary.snr.high)


def test_resnet18_layer1_passes_the_null_test_with_exactly_zero(resnet18):
    coverage = ppp.coverage(resnet18, ["layer1"], 96)
    windows = ppp.cut_windows(scenes(2, 224), 96, coverage, per_picture=1, seed=0)
    got = ppp.measure(resnet18, windows, ["layer1"], [None, "reflect"], coverage=coverage)
    for result in got.values():
        assert result.null_test.cells > 0 and result.null_test.largest == 0.0
        assert result.null_test.passed is True and result.summary.mae.value > 0


def test_without_clean_cells_the_null_test_says_that_it_was_not_made(model):
    coverage = ppp.coverage(model, ["6"], 8)
    windows = ppp.cut_windows(scenes(1), 8, coverage, per_picture=2, seed=0)
    null = ppp.measure(model, windows, ["6"])["6"].null_test
    assert null.cells == 0 and null.passed is None


@pytest.mark.parametrize("memory", [None, 2_000_000])
def test_maps_are_given_as_they_are_measured(model, windows, coverage, memory):
    """Every window once per scheme and layer, whole or in tiles; and no result is another one."""
    schemes, given = ["zeros", "reflect"], {}

    def take(picture, scheme, layer, algorithmic, optimal):
        assert algorithmic.shape == optimal.shape
        given.setdefault((scheme, layer), []).append((picture, (algorithmic - optimal).double()))

    how = {"coverage": coverage, "batch_size": 4, "memory": memory}
    found = ppp.measure(model, windows, LAYERS, schemes, maps=take, **how)
    assert found.table().equals(ppp.measure(model, windows, LAYERS, schemes, **how).table())
    assert (found.provenance["tiles"] > 4) is (memory is not None)
    assert list(given) == [(scheme, layer) for scheme in schemes for layer in LAYERS]
    for key, parts in given.items():
        names = [name for name, maps in parts for _ in maps]
        assert names == [picture.name for picture in windows for _ in picture.tops]
        d = torch.cat([maps for _, maps in parts]).numpy() * coverage[key[1]].influence
        np.testing.assert_allclose(found[key].pattern, d.mean(0), atol=1e-6)


def test_maps_of_kept_pictures_are_not_given_again(model, windows, coverage, tmp_path):
    given = []
    how = {"coverage": coverage, "keep": tmp_path, "maps": lambda name, *_: given.append(name)}
    for expected in (4, 4):
        ppp.measure(model, windows, ["2"], **how)
        assert len({*given}) == expected and len(given) == 4  # a batch a picture


def test_products_and_spreads_are_those_of_the_groups(model, windows, coverage):
    found = ppp.measure(model, windows, LAYERS, "zeros", coverage=coverage)
    differences, _ = brute_force(model, windows, "zeros")
    for layer, result in ((layer, found[layer]) for layer in LAYERS):
        touched = coverage[layer].influence
        groups = np.where(touched, differences[layer], 0).reshape(4, 6, -1)
        flat = np.vstack([groups.mean(1), np.ones(groups.shape[-1])])
        np.testing.assert_allclose(result.products, flat @ flat.T / flat.shape[1], atol=1e-6)
        inside = np.square(groups - groups.mean(1, keepdims=True)).sum(1).mean(1)
        np.testing.assert_allclose(result.spreads, np.column_stack([[6] * 4, inside]), rtol=1e-4)
        assert result.influenced == touched.mean() and result.p == sign_flip_test(result.products)
        assert result.mae_influenced == result.mae / touched.mean()
        assert result.snr_influenced.low == pytest.approx(result.snr.low / touched.mean())
        assert abs(result.amplitude) == pytest.approx(abs(result.power.value) ** 0.5)
        assert (result.amplitude < 0) == (result.power.value < 0)


def test_detection_is_given_for_windows_of_different_pictures_alone(model, windows, coverage):
    how = {"coverage": coverage, "checkpoints": [2, 4]}
    alone = Windows([replace(p, tops=p.tops[:1], lefts=p.lefts[:1]) for p in windows], SIZE)
    one_each, several = (ppp.measure(model, w, ["4"], **how)["4"] for w in (alone, windows))
    for result in (one_each, *(mark.summary for mark in one_each.checkpoints)):
        assert 0 <= result.detected <= result.influenced
    for result in (several, *(mark.summary for mark in several.checkpoints)):
        assert np.isnan(result.detected)


# --- invariances -------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_the_result_does_not_depend_on_the_batch_size(model, windows, batch_size):
    reference = ppp.measure(model, windows, LAYERS, ["zeros", "symmetric"])
    got = ppp.measure(model, windows, LAYERS, ["zeros", "symmetric"], batch_size=batch_size)
    equal(got, reference, exactly=False)


def test_equal_seeds_give_bit_equal_results(model, windows):
    schemes = ["randn", "zeros", "randn(border)"]
    first, second = (ppp.measure(model, windows, LAYERS, schemes, seed=3) for _ in range(2))
    equal(first, second)
    other = ppp.measure(model, windows, LAYERS, schemes, seed=4)
    assert not np.array_equal(other["randn", "2"].pattern, first["randn", "2"].pattern)
    np.testing.assert_array_equal(other["zeros", "2"].pattern, first["zeros", "2"].pattern)


def test_one_shared_pass_equals_separate_ones(model, windows):
    schemes = ["zeros", "reflect", "randn", "circular"]
    shared = ppp.measure(model, windows, LAYERS, schemes, seed=5)
    assert list(shared) == [(s, layer) for s in schemes for layer in LAYERS]
    for scheme in schemes:
        alone = ppp.measure(model, windows, LAYERS, scheme, seed=5)
        for layer in LAYERS:
            np.testing.assert_array_equal(alone[layer].pattern, shared[scheme, layer].pattern)
            assert repr(alone[layer].summary) == repr(shared[scheme, layer].summary)  # NaN too


def test_the_own_padding_of_a_zero_padded_network_is_zeros(model, windows):
    got = ppp.measure(model, windows, LAYERS, [None, "zeros"])
    for layer in LAYERS:
        np.testing.assert_array_equal(got["own", layer].pattern, got["zeros", layer].pattern)
    equal(ppp.measure(model, windows, LAYERS), ppp.measure(model, windows, LAYERS, "own"))


def test_a_larger_picture_around_the_same_windows_changes_nothing(model, coverage):
    scene = scenes(1, 128)["scene 0"]
    tops, lefts = np.array([40, 48, 52]), np.array([44, 40, 60])
    inner = scene[:, 16:112, 12:116]
    first = ppp.measure(model, Windows([Picture("a", scene, tops, lefts)], SIZE), LAYERS)
    second = ppp.measure(model, Windows([Picture("a", inner, tops - 16, lefts - 12)], SIZE), LAYERS)
    equal(first, second, exactly=False)


def test_windows_and_maps_need_not_be_square(model):
    size = (20, 28)
    coverage = ppp.coverage(model, ["6"], size)
    windows = ppp.cut_windows(scenes(2), size, coverage, per_picture=3, seed=0)
    result = ppp.measure(model, windows, ["6"], "reflect")["6"]
    assert result.pattern.shape == (4, 5, 7) and result.null_test.passed in (True, None)


def test_a_single_layer_may_be_given_as_text(model, windows):
    assert list(ppp.measure(model, windows, "6", "zeros")) == [("zeros", "6")]
    nested = Sequential(model).eval()
    assert list(ppp.measure(nested, windows, "0.6", "zeros")) == [("zeros", "0.6")]


def test_double_precision(windows, coverage):
    model = network().double()
    doubled = ppp.cut_windows(
        scenes(4), SIZE, coverage, per_picture=6, seed=0, transform=torch.Tensor.double
    )
    got = ppp.measure(model, doubled, LAYERS, "reflect")
    equal(ppp.measure(network(), windows, LAYERS, "reflect"), got, exactly=False)
    # on top of padding's own effect, rounding is that of doubles
    assert got["2"].null_test.relative < 1e-12


def test_the_model_and_the_backends_are_left_as_they_were(windows):
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    backends = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    state = torch.get_rng_state()
    ppp.measure(model, windows, LAYERS, ["randn", "reflect"])
    assert unchanged(model, before) and torch.equal(torch.get_rng_state(), state)
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == backends


# --- devices: what of it can be seen without one -------------------------------------------

CUDA, CUDNN = torch.backends.cuda, torch.backends.cudnn


def tf32() -> tuple[str, str]:
    return CUDA.matmul.fp32_precision, CUDNN.conv.fp32_precision


@pytest.mark.skipif(not hasattr(CUDNN, "conv"), reason="PyTorch before 2.9 has one way alone")
@pytest.mark.parametrize(
    ("place", "name", "value", "off"),
    [
        (CUDA.matmul, "allow_tf32", True, False),
        (CUDA.matmul, "fp32_precision", "tf32", "none"),
        (torch.backends, "fp32_precision", "tf32", "none"),
        (None, "medium", True, None),
    ],
)
def test_tf32_is_off_while_measuring_however_it_was_set(model, windows, place, name, value, off):
    seen = []
    copy = sequential(*model, lambda x: (seen.append(tf32()), x)[1])
    try:
        if place is None:
            torch.set_float32_matmul_precision(name)
        else:
            setattr(place, name, value)
        before = tf32()
        made_with = ppp.measure(copy, windows, ["7"]).provenance
        assert before == tf32() and "tf32" in before
    finally:
        if place is not None:
            setattr(place, name, off)
        CUDA.matmul.fp32_precision, CUDNN.conv.fp32_precision = "none", "tf32"
        torch.set_float32_matmul_precision("highest")
    said = made_with["matmul_tf32_before"], made_with["cudnn_tf32_before"]
    assert said == tuple(state == "tf32" for state in before)
    assert seen[-1] == ("ieee", "ieee")


@pytest.mark.parametrize("scheme", ["zeros", "reflect", "replicate", "circular", "randn"])
def test_a_batch_stays_on_its_device_and_never_waits_for_it(model, coverage, scheme):
    """On "meta", as on no other device, it fails to ask for a value or to mix in the CPU's."""
    far = network().to("meta")
    optimal = {"2": 6, "4": 8, "6": 4}
    for layer, channels in optimal.items():
        shape = (3, channels, *coverage[layer].influence.shape)
        optimal[layer] = torch.empty(shape, device="meta")
    swapped = {scheme: ppp.with_padding(far, scheme)}
    sums = measurement._Sums(far, swapped, {}, LAYERS, coverage, 2, True, None)
    sums.group = 0
    for _ in range(2):
        sums.step(torch.empty(3, 3, SIZE, SIZE, device="meta"), optimal)
    assert sums.n == 6 and sums.null[scheme, "2"].device.type == "meta"
    with pytest.raises(RuntimeError, match="meta"):
        float(sums.null[scheme, "2"])


# --- one pass, little memory -------------------------------------------------------------


def test_pictures_are_consumed_one_at_a_time(model, coverage):
    alive, peak = weakref.WeakSet(), []

    def pictures():
        for index in range(6):
            pixels = noise(3, 64, 64, seed=index)
            alive.add(pixels)
            peak.append(len(alive))
            yield Picture(f"p{index}", pixels, np.array([16, 20]), np.array([16, 20]))
            del pixels

    got = ppp.measure(model, Windows(pictures, SIZE), LAYERS)
    assert got["2"].summary.n == 12 and len(peak) == 6
    assert max(peak) <= 2


def test_checkpoints_are_kept_at_the_exact_number(model, windows):
    marks = [2, 7, 24]
    got = ppp.measure(model, windows, LAYERS, "zeros", checkpoints=marks, distributions=True)
    for result in got.values():
        assert [c.summary.n for c in result.checkpoints] == marks
        last = result.checkpoints[-1]
        assert last.summary.mae == result.summary.mae
        np.testing.assert_allclose(last.pattern, result.magnitude(), rtol=1e-4, atol=1e-6)
        assert last.pattern.shape == last.floor.shape == last.algorithmic.shape
        # the mean of A minus the mean of O is the mean of D
        np.testing.assert_allclose(
            last.algorithmic - last.optimal, result.pattern.mean(0), atol=1e-5
        )
        assert 0 <= last.separated <= 1


def test_a_checkpoint_equals_a_measurement_of_so_many_windows(model, windows):
    (first, *_), result = list(windows), None
    got = ppp.measure(model, windows, ["4"], "reflect", checkpoints=[4])["4"].checkpoints[0]
    few = Picture(first.name, first.pixels, first.tops[:4], first.lefts[:4])
    result = ppp.measure(model, Windows([few], SIZE), ["4"], "reflect")["4"]
    np.testing.assert_allclose(got.pattern, result.magnitude(), rtol=1e-4, atol=1e-6)
    assert got.summary.mae.value == pytest.approx(result.summary.mae.value, rel=1e-5)


def test_progress_counts_every_window_once(model, windows):
    seen = []
    ppp.measure(model, windows, ["2"], batch_size=4, checkpoints=[5], progress=seen.append)
    assert sum(seen) == 24 and max(seen) <= 4


# --- refusals ----------------------------------------------------------------------------


def at(tops, lefts, pixels=None, name="scene") -> Windows:
    pixels = scenes(1)["scene 0"] if pixels is None else pixels
    return Windows([Picture(name, pixels, np.array(tops), np.array(lefts))], SIZE)


def odd_pixel(value: float) -> torch.Tensor:
    pixels = scenes(1)["scene 0"].clone()
    pixels[1, 5, 5] = value
    return pixels


@pytest.mark.parametrize(
    ("error", "windows", "named"),
    [
        # off by less than the stride, alone or all alike
        (MarginError, at([20, 22], [20, 20]), ["misaligned", "22 px"]),
        (MarginError, at([21, 21], [20, 20]), ["vertical offset"]),
        *(
            (MarginError, at(*places), ["too narrow", "px more are needed"])
            for places in (([0, 20], [20, 20]), ([20, 20], [0, 20]), ([20, 76], [20, 20]))
        ),
        *(
            (PictureError, at(*places), ["outside"])
            for places in (([-4, 20], [20, 20]), ([20, 20], [20, 80]), ([200, 200], [20, 20]))
        ),
        *(
            (PictureError, at([20, 24], [20, 24], odd_pixel(v), "moon"), ["'moon'", "NaN"])
            for v in (float("nan"), float("inf"))
        ),
        *(
            (PictureError, at([20, 24], [20, 24], torch.zeros(3, 96, 96).to(dtype)), [str(dtype)])
            for dtype in (torch.float64, torch.float16, torch.uint8)
        ),
        *(
            (PictureError, at([20, 24], [20, 24], torch.zeros(shape)), ["(C, H, W)"])
            for shape in ((96, 96), (1, 3, 96, 96), (3, 0, 96))
        ),
        (PPPError, at([20, 24], [20, 24], torch.zeros(1, 96, 96)), ["does not run"]),
        (PictureError, at([20], [20]), ["1 window"]),
        (PictureError, Windows([], SIZE), ["0 window"]),
        (PictureError, at([], []), ["no windows"]),
        (PictureError, at([20, 24], [20]), ["unequal"]),
    ],
)  # fmt: skip
def test_pictures_and_places_that_do_not_serve_are_refused(model, coverage, error, windows, named):
    message = refused(error, model, windows, LAYERS, coverage=coverage)
    assert all(word in message for word in named)


@pytest.mark.parametrize(
    ("error", "options", "named"),
    [
        (PPPError, {"batch_size": 0}, "batch_size 0"),
        (PPPError, {"groups": 0}, "groups 0"),
        (PPPError, {"checkpoints": [1]}, "[1]"),
        (PPPError, {"checkpoints": [2.5]}, "[2.5]"),
        (PictureError, {"checkpoints": [2, 25]}, "checkpoint 25 lies beyond the 24 windows"),
        *[(PPPError, {"confidence": c}, f"is {c!r}") for c in (0, 1, -1, float("nan"), "high")],
        (PPPError, {"pools": "swpa"}, "did you mean 'swap'?"),
        (PPPError, {"schemes": []}, "no scheme"),
        (PPPError, {"schemes": ["zeros", "nan"]}, "nan"),
        (PaddingError, {"schemes": ["zeros", "refelct"]}, "did you mean 'reflect'?"),
        (PPPError, {"layers": ["0"]}, "coverage is of layers ['2', '4', '6']"),
    ],
)
def test_bad_arguments_are_refused(model, windows, coverage, error, options, named):
    options = {"layers": LAYERS, "coverage": coverage} | options
    assert named in refused(error, model, windows, **options)


def test_a_coverage_of_another_size_is_refused(model, windows):
    other = ppp.coverage(model, LAYERS, SIZE + 4)
    assert "at (24, 24) px" in refused(PPPError, model, windows, LAYERS, coverage=other)


def test_networks_that_cannot_be_measured_are_refused(windows, coverage):
    excited = sequential(
        Conv(3, 4, 3, padding=1),
        lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
        Conv(4, 4, 3),
    )
    assert "layer '2'" in refused(MarginError, excited, windows, ["2"])
    half = network()
    half[1].train()
    assert "train mode at '1'" in refused(PPPError, half, windows, LAYERS)
    for scale in (float("nan"), float("inf")):
        broken = network()
        broken[3].weight.data.mul_(scale)
        refused(PPPError, broken, windows, LAYERS, coverage=coverage)


def test_a_map_too_small_for_the_scheme_is_refused_by_layer():
    model = Sequential(Conv(3, 4, 3, 8, 1), Conv(4, 4, 5, padding=2)).eval()
    coverage = ppp.coverage(model, ["1"], 16)
    windows = ppp.cut_windows(scenes(1), 16, coverage, per_picture=2, seed=0)
    assert "layer '1'" in refused(PaddingError, model, windows, ["1"], "reflect")


# --- padding where no module is ----------------------------------------------------------


class InceptionLike(nn.Module):
    """Pads by function calls, as torchvision's Inception does."""

    def __init__(self, pad: bool):
        super().__init__()
        self.stem = Conv(3, 4, 3, 2, 1)
        self.one, self.two = Conv(4, 4, 3, padding=1), Conv(4, 4, 1)
        self.pad = pad

    def forward(self, x):
        x = F.relu(self.stem(x))
        pooled = self.two(F.avg_pool2d(x, 3, 1, 1))
        x = F.pad(x, (1, 0, 1, 0))[:, :, :-1, :-1] if self.pad else x
        return torch.cat([self.one(x), pooled], 1)


class Wrapped(nn.Module):
    def __init__(self, pad):
        super().__init__()
        self.block, self.after = InceptionLike(pad), Conv(8, 4, 3)

    def forward(self, x):
        return self.after(self.block(x))


def few(model, layers, size=SIZE):
    coverage = ppp.coverage(model, layers, size)
    return ppp.cut_windows(scenes(2), size, coverage, per_picture=3, seed=0)


def test_a_functional_padding_is_measured_and_swapped():
    torch.manual_seed(0)
    model = Wrapped(pad=True).eval()
    windows = few(model, ["block", "after"])
    own = ppp.measure(model, windows, ["block", "after"])
    assert own["block"].null_test.passed is True and own["after"].summary.mae.value > 0
    found = ppp.measure(model, windows, ["block"], ["reflect", "randn"])
    pattern = {scheme: found[scheme, "block"].pattern for scheme in ("reflect", "randn")}
    assert found["reflect", "block"].completeness.shown
    assert abs(pattern["reflect"] - own["block"].pattern).max() > 1e-3
    assert abs(pattern["randn"][:4, 0]).max() > 1e-3


def test_functional_pools_keep_their_padding_unless_a_swap_is_asked_for():
    torch.manual_seed(0)
    model = Wrapped(pad=False).eval()
    windows = few(model, ["after"])
    kept = ppp.measure(model, windows, ["after"], "reflect")
    assert kept["after"].null_test.passed is True
    assert kept.provenance["not_swapped"] == ["block: average-pool"]
    message = refused(SwapError, model, windows, ["after"], "reflect", pools="swap")
    assert "'block'" in message


class Hidden(nn.Module):
    """Padding that reaches no padding operator."""

    def __init__(self, how: str):
        super().__init__()
        self.how, self.first, self.conv = how, Conv(3, 4, 3, padding=1), Conv(4, 4, 3)

    def forward(self, x):
        x = self.first(x)
        if self.how == "wrapped by cat":
            x = torch.cat([x[..., -1:, :], x, x[..., :1, :]], 2)
            x = torch.cat([x[..., -1:], x, x[..., :1]], 3)
        elif self.how == "mirrored by cat":
            x = torch.cat([x[..., :3, :].flip(2), x, x[..., -3:, :].flip(2)], 2)
        elif self.how == "rolled":
            x = x + x.roll((5, 5), (2, 3))
        elif self.how == "coordinates":
            x = x + torch.linspace(-1, 1, x.shape[-1])
        elif self.how == "written into zeros":
            larger = x.new_zeros(*x.shape[:2], x.shape[2] + 6, x.shape[3] + 6)
            larger[:, :, 3:-3, 3:-3] = x
            x = larger
        return self.conv(x)


@pytest.mark.parametrize("how", ["wrapped by cat", "mirrored by cat"])
def test_padding_by_cat_is_measured_but_not_swapped(how):
    torch.manual_seed(0)
    model = Hidden(how).eval()
    windows = few(model, ["conv"])
    assert ppp.measure(model, windows, ["conv"])["conv"].null_test.passed is True
    assert "torch.cat" in refused(SwapError, model, windows, ["conv"], "reflect")


@pytest.mark.parametrize("how", ["rolled", "coordinates", "written into zeros"])
@pytest.mark.parametrize("scheme", [None, "reflect"])
def test_hidden_padding_is_never_accepted_in_silence(how, scheme):
    torch.manual_seed(0)
    model = Hidden(how).eval()
    with pytest.raises((NullTestError, MarginError, SwapError)) as caught:
        ppp.measure(model, few(model, ["conv"]), ["conv"], scheme)
    assert "'conv'" in str(caught.value) and "\n" not in str(caught.value)


# --- values and surroundings that would mean something else -------------------------------


def test_two_constants_that_differ_late_are_two_schemes(model, windows, coverage):
    schemes = ["constant(1000000.1)", "constant(1000000.4)"]
    found = ppp.measure(model, windows, LAYERS, schemes, coverage=coverage)
    assert {scheme for scheme, _ in found} == {*schemes}


@pytest.mark.parametrize(
    "around", [torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)]
)
def test_what_stands_around_the_call_changes_no_result(model, windows, coverage, around):
    schemes = ["own", "reflect", "randn"]
    expected = ppp.measure(model, windows, LAYERS, schemes, coverage=coverage).table()
    with around():
        table = ppp.measure(model, windows, LAYERS, schemes, coverage=coverage).table()
        inside = ppp.cut_windows(
            {k: v * 1 for k, v in scenes(4).items()}, SIZE, coverage, per_picture=6, seed=0
        )
        again = ppp.measure(model, inside, LAYERS, schemes, coverage=coverage).table()
    assert table.equals(expected) and again.equals(expected)


def test_a_layer_that_runs_again_is_refused_with_a_coverage_from_elsewhere(windows):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()

        def forward(self, x):
            return self.relu(self.conv(self.relu(x)))

    net = Twice().eval()
    layer = LayerCoverage("relu", np.zeros((SIZE, SIZE), bool), (1, 1), (1,) * 4)
    given = Coverage([layer], (SIZE, SIZE), sites=())
    assert "'relu' runs more than once" in refused(LayerError, net, windows, "relu", coverage=given)


def test_a_coverage_without_sites_gets_them(model, windows, coverage):
    bare = Coverage(
        [replace(layer, completeness=None) for layer in coverage.values()],
        coverage.input_size,
        coverage.stride,
    )
    found = ppp.measure(model, windows, LAYERS, "reflect", coverage=bare)
    assert all(result.completeness.shown for result in found.values())


def test_a_swap_that_takes_no_effect_is_refused(model, windows, coverage, monkeypatch):
    monkeypatch.setattr("ppp.measurement.with_padding", lambda model, *_, **__: model)
    told = refused(SwapError, model, windows, LAYERS, "reflect", coverage=coverage)
    assert "does not take effect at" in told and "pads with zeros" in told
