import json
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from checks import refused
from random_networks import compare, network
from torch import nn
from torchvision.ops import DeformConv2d
from toys import Function, noise, seeded, sequential, windows

import ppp
from ppp import Completeness, Coverage
from ppp.errors import GridError, MarginError, NullTestError, PPPError, SwapError
from ppp.windows import Windows

Sequential, Conv = nn.Sequential, nn.Conv2d


# --- paddings that no list holds -----------------------------------------------------------


def written_into_zeros(x):
    out = x.new_zeros(*x.shape[:2], x.shape[2] + 2, x.shape[3] + 2)
    out[:, :, 1:-1, 1:-1] = x
    return out


def indexed(x):
    height, width = x.shape[2:]
    return x[:, :, [1, *range(height), height - 2]][..., [1, *range(width), width - 2]]


def flipped_and_joined(x):
    return torch.cat([x.flip(3), x, x.flip(3)], 3)[..., x.shape[3] - 1 : 2 * x.shape[3] + 1]


class RowByRow(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4, 3) / 3)

    def forward(self, x):
        n, channels, height, width = x.shape
        rows = x.permute(0, 2, 1, 3).reshape(n * height, channels, width)
        out = F.conv1d(rows, self.weight, padding=1)
        return out.reshape(n, height, -1, width).permute(0, 2, 1, 3)


def quantised():
    quantisation = torch.ao.quantization
    inner = Sequential(
        quantisation.QuantStub(), Conv(4, 4, 3, padding=1), quantisation.DeQuantStub()
    ).eval()
    inner.qconfig = quantisation.get_default_qconfig("fbgemm")
    prepared = quantisation.prepare(inner)
    prepared(noise(4, 4, 48, 48))
    return quantisation.convert(prepared)


HIDDEN = {
    "written into zeros": lambda: Function(written_into_zeros),
    "indexed": lambda: Function(indexed),
    "flipped and joined": lambda: Function(flipped_and_joined),
    "rolled": lambda: Function(lambda x: x + 0.5 * torch.roll(x, 1, 3)),
    "folded": lambda: Function(lambda x: F.fold(F.unfold(x, 3), x.shape[-2:], 3)),
    "quantised": quantised,
}


def stacked(x):
    """Pad maps that lie in a stack."""
    return F.pad(x.unsqueeze(2), (1, 2, 0, 3)).squeeze(2)


class InAStack(nn.Module):
    """Convolve over channels, which pads no map, and over the maps."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 1, (3, 5, 3), padding=(1, 2, 1))

    def forward(self, x):
        return self.conv(x[:, None])[:, 0]


@pytest.mark.parametrize(
    ("module", "margin"), [(Function(stacked), (1, 2, 0, 3)), (InAStack(), (1, 1, 2, 2))]
)
def test_what_pads_a_stack_of_maps_is_found_and_proved(module, margin):
    torch.manual_seed(0)
    model = Sequential(Conv(3, 4, 1), module, Conv(4, 4, 1)).eval()
    assert [site.declared for site in ppp.audit(model, 16)] == [margin]
    reach = ppp.coverage(model, ["2"], 16)
    assert reach.margin == margin and reach["2"].completeness.shown
    measured = ppp.measure(model, windows(reach, 16), ["2"], coverage=reach)["2"]
    assert measured.null_test.passed and measured.completeness.shown


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (RowByRow(), "RowByRow"),
        (Function(lambda x: F.pad(x.flatten(2), (1, 1))[:, None]), "Function"),
    ],
)
def test_a_padding_of_rows_alone_has_no_place_in_the_picture(module, kind):
    model = Sequential(Conv(3, 4, 3, padding=1), module, nn.Identity()).eval()
    message = refused(ppp.coverage, model, ["2"], 16, error=MarginError)
    assert f"'1' ({kind})" in message and "3 axes" in message
    assert ppp.coverage(model, ["0"], 16).margin == (1, 1, 1, 1)
    assert [site.module for site in ppp.audit(model, 16).unswappable()] == ["1"]


def around(hidden: nn.Module, last: nn.Module) -> nn.Module:
    """Return three padded convolutions, the hidden padding, and one convolution more."""
    first = [Conv(3, 4, 3, padding=1), Conv(4, 4, 5, padding=2), Conv(4, 4, 3, padding=1)]
    return Sequential(*first, hidden, last).eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", HIDDEN)
def test_what_no_list_holds_is_named_and_nothing_is_swapped_beside_it(name):
    torch.manual_seed(0)
    wider = name == "written into zeros"
    model = around(HIDDEN[name](), Conv(4, 4, 3 if wider else 1))
    reach = ppp.coverage(model, ["2", "4"], 48)
    assert reach["2"].completeness.shown
    told = reach["4"].completeness
    assert not told.shown and told.module.partition(".")[0] == "3", told
    cut = windows(reach, 48)
    if name == "quantised":  # which loses the mark that shows what padding can touch
        with pytest.raises(NullTestError, match="not shown"):
            ppp.measure(model, cut, ["4"], coverage=reach)
        return
    own = ppp.measure(model, cut, ["4"], coverage=reach)
    assert not own["4"].completeness.shown
    assert own.table()["completeness"].item() == str(told) == own.provenance["completeness"]["4"]
    assert str(told).startswith("not shown: something else pads, seen first in '3")
    options = {"coverage": reach, "error": SwapError}
    assert "in '3" in refused(ppp.measure, model, cut, ["4"], "reflect", **options)
    before = ppp.measure(model, cut, ["2"], "reflect", coverage=reach)
    assert before["2"].completeness.shown


def test_an_operator_of_another_library_is_never_given_nan():
    """Its offsets are read from the map: a NaN among them ends the process."""
    torch.manual_seed(0)

    class Deformed(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.offset = Conv(3, 6, 3, padding=1), Conv(6, 18, 3, padding=1)
            self.deform, self.head = DeformConv2d(6, 6, 3, padding=1), Conv(6, 4, 1)

        def forward(self, x):
            x = self.stem(x)
            return self.head(self.deform(x, self.offset(x)))

    model = Deformed().eval()
    assert ppp.coverage(model, ["stem"], 32).margin == (1, 1, 1, 1)
    with pytest.raises(MarginError, match=r"from 'deform' \(DeformConv2d, torchvision.deform"):
        ppp.coverage(model, ["head"], 32)


LISTED = {
    "clamped enlargement": nn.Upsample(scale_factor=2, mode="bilinear"),
    "cubic enlargement": nn.Upsample(scale_factor=2, mode="bicubic"),
    "transposed": nn.ConvTranspose2d(4, 4, 4, 2, 1),
    "max-pool": nn.MaxPool2d(3, 2, 1),
    "average pool": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "overhang": nn.AvgPool2d(3, 2, ceil_mode=True),
    "function": lambda x: F.pad(x, (2, 0, 1, 3), "reflect"),
    "circular": lambda x: F.pad(x, (2, 0, 1, 3), "circular"),
    "ours": lambda x: ppp.pad(x, (2, 0, 1, 3), "randn"),
    "channels last": lambda x: F.pad(x.permute(0, 2, 3, 1), (0, 0, 2, 0, 1, 3)).permute(0, 3, 1, 2),
    "joined": lambda x: torch.cat([x[..., -3:], x, x[..., :1]], 3),
}


@pytest.mark.parametrize("name", LISTED)
def test_what_cannot_be_swapped_is_listed_and_given_its_true_values(name):
    torch.manual_seed(0)
    model = sequential(Conv(3, 4, 3, 2, 1), LISTED[name], nn.ReLU(), Conv(4, 4, 3))
    assert "1" in {site.module for site in ppp.audit(model, 32)}
    reach = ppp.coverage(model, ["3"], 32)
    found = ppp.measure(model, windows(reach, 32), ["3"], coverage=reach)["3"]
    assert found.completeness.shown and found.null_test.passed is not False


def test_a_clamped_border_does_not_stop_a_swap_and_is_told():
    torch.manual_seed(0)
    decoder = nn.Upsample(scale_factor=2, mode="bilinear")
    model = Sequential(Conv(3, 4, 3, 2, 1), decoder, Conv(4, 4, 3, padding=1)).eval()
    (site,) = [s for s in ppp.audit(model, 32) if s.kind == "interpolation"]
    assert (site.module, site.origin, site.swappable) == ("1", "module", False)
    reach = ppp.coverage(model, ["2"], 32)
    found = ppp.measure(model, windows(reach, 32), ["2"], "reflect", coverage=reach)
    assert found.provenance["not_swapped"] == ["1: interpolation"]
    assert found["2"].completeness.shown


# --- grids that do not coincide -----------------------------------------------------------


class Same(nn.Module):
    """TensorFlow's padding: how much comes before depends on the size."""

    def __init__(self, kernel, stride, inputs=8):
        super().__init__()
        self.conv, self.kernel, self.stride = Conv(inputs, 8, kernel, stride), kernel, stride

    def forward(self, x):
        sides = []
        for size in (x.shape[3], x.shape[2]):
            more = max((-(-size // self.stride) - 1) * self.stride + self.kernel - size, 0)
            sides += [more // 2, more - more // 2]
        self.sides = sides
        return self.conv(F.pad(x, sides))


def same(depth: int = 4) -> nn.Module:
    torch.manual_seed(0)
    pairs = [(Same(3, 2, 8 if n else 3), nn.ReLU(), Same(3, 1), nn.ReLU()) for n in range(depth)]
    return Sequential(*[module for pair in pairs for module in pair]).eval()


@pytest.mark.parametrize(("window", "layer"), [(40, "15"), (36, "11"), (50, "15"), (33, "3")])
def test_a_padding_that_depends_on_the_size_pads_pictures_as_the_window(window, layer):
    """Where a map is odd, more or less comes before it than in the picture's even one."""
    model = same()
    reach = ppp.coverage(model, [layer], window)
    assert reach[layer].completeness.shown
    cut = windows(reach, window, side=288)
    found = ppp.measure(model, cut, [layer], coverage=reach)[layer]
    assert found.completeness.shown
    differences = []
    for picture in cut:  # by hand: the window's amounts in the picture
        for top, left in zip(picture.tops, picture.lefts):
            x = picture.pixels[None, :, top : top + window, left : left + window]
            padded = ppp.extract(model, x, [layer])[layer][0]
            amounts = [m.sides for m in model if isinstance(m, Same)]
            whole = picture.pixels[None]
            with torch.no_grad():
                for module, sides in zip(model[::2], amounts):
                    whole = module.conv(F.pad(whole, sides)).relu()
                    if module is model[int(layer) - 1]:
                        break
            y, x = top // reach[layer].stride[0], left // reach[layer].stride[1]
            height, width = padded.shape[1:]
            differences.append(padded - whole[0, :, y : y + height, x : x + width])
    expected = torch.stack(differences).mean(0).numpy()
    np.testing.assert_allclose(found.pattern, expected, atol=2e-5 * abs(expected).max())
    assert abs(expected).max() > 0.01


def test_it_is_measured_where_every_map_is_even():
    reach = ppp.coverage(same(), ["3", "7", "11", "15"], 32)
    found = ppp.measure(same(), windows(reach, 32, side=256), ["15"], coverage=reach)
    assert found["15"].completeness.shown and found["15"].null_test.passed is None


class Sized(nn.Module):
    """Another kernel on small inputs."""

    def __init__(self, below):
        super().__init__()
        self.below, self.few = below, Conv(4, 4, 3, padding=1)
        self.many = Conv(4, 4, 3, padding=1)

    def forward(self, x):
        return (self.few if x.shape[3] < self.below else self.many)(x)


def deep(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    more = [Conv(4, 4, 3, padding=1) for _ in range(6)]
    return Sequential(Conv(3, 4, 3, padding=1), module, *more).eval()


@pytest.mark.parametrize("window", [12, pytest.param(48, marks=pytest.mark.nightly)])
def test_other_work_on_small_inputs_is_refused_also_without_a_clean_cell(window):
    with pytest.raises(GridError, match=r"'1\.few' pads"):
        ppp.coverage(deep(Sized(100)), ["7"], window)


@pytest.mark.parametrize("window", [12, pytest.param(48, marks=pytest.mark.nightly)])
def test_what_depends_on_the_batch_is_refused_also_without_a_clean_cell(window):
    mean = Function(lambda x: x - x.mean(0, keepdim=True))
    with pytest.raises(GridError, match="module '1' gives other features"):
        ppp.coverage(deep(mean), ["7"], window)


def test_what_depends_on_the_size_of_a_photograph_shows_on_the_first_one():
    """Coverage sees no input as wide as the pictures."""

    def scaled(x):
        return x * (2.0 if x.shape[3] > 500 and x.shape[2] > 500 else 1.0)

    model = deep(Function(scaled))
    reach = ppp.coverage(model, ["7"], 12)
    assert reach["7"].completeness.shown and reach["7"].clean_fraction == 0
    cut = windows(reach, 12, side=520)
    wide = Windows(lambda: iter(_spread(cut)), 12)
    with pytest.raises(GridError, match="module '1' gives other features"):
        ppp.measure(model, wide, ["7"], coverage=reach)


def _spread(cut):
    """Give every picture windows in opposite corners, so that all of it is needed."""
    for picture in cut:
        corners = [8, picture.pixels.shape[1] - 24]
        yield ppp.Picture(picture.name, picture.pixels, corners, corners)


class UNet(nn.Module):
    def __init__(self, depth=3, width=6):
        super().__init__()

        def block(inputs):
            return Sequential(
                Conv(inputs, width, 3, padding=1),
                nn.ReLU(),
                Conv(width, width, 3, padding=1),
                nn.ReLU(),
            )

        self.down = nn.ModuleList([block(width if n else 3) for n in range(depth)])
        self.middle = block(width)
        self.up = nn.ModuleList([block(2 * width) for _ in range(depth)])

    def forward(self, x):
        kept = []
        for block in self.down:
            kept.append(block(x))
            x = F.max_pool2d(kept[-1], 2)
        x = self.middle(x)
        for block in self.up:
            aside = kept.pop()
            x = block(torch.cat([aside, F.interpolate(x, size=aside.shape[2:])], 1))
        return x


def test_a_u_net_moves_by_its_coarsest_stride():
    """At random weights a step of 2 px gives features wrong by only 1e-5 of the largest."""
    torch.manual_seed(0)
    model = UNet().eval()
    reach = ppp.coverage(model, ["up.2"], 64)
    assert reach["up.2"].stride == (1, 1) and reach.stride == (8, 8)
    assert ppp.measure(model, windows(reach, 64, side=320), ["up.2"], coverage=reach)[
        "up.2"
    ].completeness.shown
    with pytest.raises(GridError, match="try a window of a multiple of 8 x 8 px"):
        ppp.coverage(model, ["up.2"], 60)


# --- the proof and what it stands in --------------------------------------------------------


def test_it_holds_on_cells_that_all_padding_reaches_and_stands_in_every_result(tmp_path):
    torch.manual_seed(0)
    model = deep(nn.ReLU())
    reach = ppp.coverage(model, ["7"], 8)
    assert reach["7"].clean_fraction == 0 and reach["7"].completeness.relative <= 1e-12
    assert reach.table()["completeness"].tolist() == ["shown"]
    cut = windows(reach, 8)
    found = ppp.measure(model, cut, ["7"], ["own", "reflect"], coverage=reach, keep=tmp_path / "k")
    assert found.table()["completeness"].tolist() == ["shown", "shown"]
    assert (found.table()["completeness_relative"] <= 1e-4).all()
    state = json.loads((tmp_path / "k" / "state.json").read_bytes())["state"]
    again = ppp.measure(model, cut, ["7"], ["own", "reflect"], coverage=reach, keep=tmp_path / "k")
    assert again.table().equals(found.table())
    assert list(state["counts"]["proofs"]) == ["7"]


def test_a_network_kept_in_single_precision_is_proved_in_single_precision():
    fixed = Function(lambda x: F.conv2d(x, torch.ones(4, 1, 3, 3), padding=1, groups=4))
    completeness = ppp.coverage(deep(fixed), ["7"], 16)["7"].completeness
    assert completeness.shown and completeness.tolerance == 1e-4


def test_the_model_and_its_random_padding_are_left_as_they_were():
    draws = seeded(3)
    model = ppp.with_padding(deep(nn.ReLU()), "randn", generator=draws)
    before, state = draws.get_state(), torch.get_rng_state()
    assert ppp.coverage(model, ["7"], 16)["7"].completeness.shown
    assert torch.equal(draws.get_state(), before) and torch.equal(torch.get_rng_state(), state)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("size", [33, 34, 37])
def test_a_window_that_is_no_multiple_of_the_stride_gets_room_for_all_its_cells(size):
    torch.manual_seed(0)
    model = Sequential(
        Conv(3, 4, 3, 2, 1), nn.Upsample(scale_factor=2), Conv(4, 4, 3, padding=1)
    ).eval()
    reach = ppp.coverage(model, ["2"], size)
    need = ppp.size_needed(size, reach)
    for height, width in (need, (64, 65)):
        pictures = {k: noise(3, height, width) for k in "ab"}
        cut = ppp.cut_windows(pictures, size, reach, per_picture=100, seed=0)
        found = ppp.measure(model, cut, ["2"], coverage=reach)["2"]
        assert found.completeness.shown and found.null_test.passed
        assert found.pattern.shape[1:] == reach["2"].influence.shape
    with pytest.raises(MarginError, match=re.escape(f"needs {need[0]} x {need[1]}")):
        pictures = {"a": torch.zeros(3, need[0] - 1, need[1])}
        ppp.cut_windows(pictures, size, reach, per_picture=1, seed=0)


@pytest.mark.parametrize(("padding", "surplus"), [(2, 2), (0, -2), (1, 0)])
def test_cells_beyond_the_window_that_only_padding_makes_need_no_room(padding, surplus):
    torch.manual_seed(0)
    model = Sequential(Conv(3, 4, 3, padding=padding)).eval()
    reach = ppp.coverage(model, ["0"], 16)
    assert reach["0"].surplus == (surplus, surplus) and reach.tail == (16, 16)
    assert ppp.size_needed(16, reach) == (16 + 2 * padding, 16 + 2 * padding)


def test_of_two_proofs_the_weaker_counts():
    fine, weak = Completeness(1e-12, 1e-9), Completeness(2e-4, 1e-4, "stem")
    assert fine.both(weak) is weak and weak.both(fine) is weak and not weak.shown
    assert not Completeness(float("nan"), 1e-9).shown


# --- true values at chosen sites ------------------------------------------------------------


@pytest.fixture(scope="module")
def truth():
    torch.manual_seed(0)
    model = Sequential(
        Conv(3, 6, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), Conv(6, 6, 3, padding=1)
    ).eval()
    reach = ppp.coverage(model, ["3"], 24)
    picture = noise(3, 64, 64)
    return model, ppp.optimal(model, picture, [8, 16], [12, 20], reach)


def test_sites_are_in_order_and_true_values_at_all_give_the_optimal_features(truth):
    _, optimal = truth
    named = [(site.module, site.kind, *site.stride) for site in optimal.sites]
    first, last = ("0", "convolution", 1, 1), ("3", "convolution", 4, 4)
    assert named == [first, ("2", "max-pool", 2, 2), last]
    assert optimal.maps["3"].shape == (2, 6, 6, 6)
    torch.testing.assert_close(optimal.features()["3"], optimal.maps["3"], rtol=1e-5, atol=1e-6)


def test_with_none_the_network_pads_as_it_does(truth):
    model, optimal = truth
    expected = ppp.extract(model, optimal.windows, ["3"])["3"]
    assert torch.equal(optimal.features([])["3"], expected)


@pytest.mark.parametrize("scheme", ["reflect", "randn", "constant(0.5)"])
def test_sites_of_a_swapped_network_get_their_true_values_too(truth, scheme):
    model, optimal = truth
    swapped = ppp.with_padding(model, scheme, generator=seeded())
    everywhere = optimal.features(model=swapped)["3"]
    torch.testing.assert_close(everywhere, optimal.maps["3"], rtol=1e-5, atol=1e-6)
    if scheme != "randn":
        expected = ppp.extract(swapped, optimal.windows, ["3"])["3"]
        assert torch.equal(optimal.features([], swapped)["3"], expected)


@pytest.mark.parametrize("scheme", ["circular", "symmetric", "randn"])
def test_padding_that_no_operator_does_is_one_site_with_true_values(scheme):
    torch.manual_seed(0)
    convolutions = [Conv(3, 4, 3, padding=1), Conv(4, 4, 3, padding=1)]
    model = ppp.with_padding(sequential(*convolutions), scheme, generator=seeded())
    reach = ppp.coverage(model, ["1"], 16)
    optimal = ppp.optimal(model, noise(3, 32, 32), [4], [4], reach)
    assert [site.key for site in optimal.sites] == [(name, "convolution", 0) for name in "01"]
    torch.testing.assert_close(optimal.features()["1"], optimal.maps["1"], rtol=1e-5, atol=1e-6)


def test_one_site_alone_reaches_as_far_as_a_network_in_which_only_it_pads(truth):
    _, optimal = truth
    reached = []
    for site in optimal.sites:
        others = [other for other in optimal.sites if other is not site]
        difference = (optimal.features(others)["3"] - optimal.maps["3"]).abs().amax((0, 1))
        touched = difference > 1e-5
        reached.append((int(touched[:, 3].int().argmin()), int(touched[3].int().argmin())))
    assert reached == [(2, 2), (2, 2), (1, 1)]


def test_true_values_need_aligned_windows_with_surroundings_and_a_coverage_with_sites(truth):
    model, _ = truth
    reach = ppp.coverage(model, ["3"], 24)
    picture = noise(3, 64, 64)
    with pytest.raises(MarginError, match="misaligned"):
        ppp.optimal(model, picture, [9], [12], reach)
    with pytest.raises(MarginError, match="too narrow"):
        ppp.optimal(model, picture, [0], [12], reach)
    bare = Coverage(list(reach.values()), reach.input_size, reach.stride)
    with pytest.raises(PPPError, match="no padding sites"):
        ppp.optimal(model, picture, [8], [12], bare)
    with pytest.raises(PPPError, match=r"expected a picture \(C, H, W\)"):
        ppp.optimal(model, picture[None], [8], [12], reach)


# --- random networks ----------------------------------------------------------------------


QUICK = (0, 2, 4, 5, 7, 9, 11, 13)  # of small maps


@pytest.mark.parametrize(
    "seed",
    [*QUICK, *(pytest.param(s, marks=pytest.mark.nightly) for s in range(16) if s not in QUICK)],
)
def test_coverage_of_a_random_network_is_what_brute_force_finds(seed):
    assert compare(seed) == "right"


@pytest.mark.parametrize(
    "seed", [*range(16, 28), *(pytest.param(s, marks=pytest.mark.nightly) for s in range(28, 40))]
)
def test_a_padding_hidden_in_a_random_network_is_never_passed_over(seed):
    model, window = network(seed)
    place = 1 + seed % (len(model) - 1)
    hidden = Function(lambda x: x + torch.roll(x, 1, 2 + seed % 2))
    model = Sequential(*model[:place], hidden, *model[place:]).eval()
    layer = str(len(model) - 1)
    try:
        told = ppp.coverage(model, [layer], window)[layer].completeness
    except GridError:
        return
    assert not told.shown and told.module == str(place)
