"""What each padding site does is found: planted effects, interaction, what is refused."""

import math

import numpy as np
import pytest
import random_networks
import torch
import torch.nn.functional as F
from checks import refused
from planted import CORNER, EDGE, TwoSites
from toys import LAYERS, scenes, sequential, unchanged

import ppp
from ppp.errors import GridError, LayerError, PictureError
from ppp.extraction import Tap

ROUNDING = 1e-6
NIGHTLY = pytest.mark.nightly
PROJECTIONS = ["projection_only", "projection_without"]


def attributed(planted, windows, layers=("2",), **options):
    return ppp.attribute(planted.network(), windows, list(layers), groups=1000, **options)


def by_site(found, layer):
    table = found.table()
    return table[table["layer"] == layer].set_index("module")


def projections(parts, whole):
    return [float((part * whole).sum() / (whole * whole).sum()) for part in parts]


# --- planted effects ---------------------------------------------------------------------

C = 16
LINEAR = TwoSites(((1.0,) * C, (2.0,) * C), ((1.0,) * C, (1.0,) * C), (1.0,) * C, (EDGE, CORNER))
N = 48  # pictures of one window each


@pytest.fixture(scope="module")
def linear():
    return attributed(LINEAR, LINEAR.windows(N), ["0", "2"])


def test_two_planted_effects_are_found(linear):
    first, second = LINEAR.patterns
    known, found = projections((first, second), first + second), by_site(linear, "2")
    # of the mean over channels of products with noise, in units of <d, d>
    error = 4 * np.sqrt(2 / N / C) * np.square(EDGE.numpy()).max()
    for name in PROJECTIONS:
        assert found[name].tolist() == pytest.approx(known, abs=error)
        assert (found[f"{name}_low"] <= known).all() and (known <= found[f"{name}_high"]).all()
    left = linear.interactions().set_index("layer").loc["2"]
    assert left["interaction"] == pytest.approx(0, abs=1e-5)  # the network is linear
    assert left["interaction_without"] == pytest.approx(0, abs=1e-5)
    assert left["n"] == left["groups"] == N and left["completeness"] == "shown"


def test_sizes_and_maps_are_the_planted_ones(linear):
    for i, site in enumerate(linear.sites):
        only, without = linear.maps(site, "2")
        for map_, j in ((only, i), (without, 1 - i)):
            bound = 4.5 * abs(LINEAR.borders[j]) / np.sqrt(N) + ROUNDING
            assert (abs(map_ - LINEAR.patterns[j]) <= bound).all()
    table, influenced = by_site(linear, "2"), 1 - (8 / 12) ** 2  # cells
    for i, row in enumerate(table.itertuples()):
        size = np.abs(LINEAR.patterns[i][0]).mean() / influenced
        assert row.mae_only == pytest.approx(size, rel=0.2)
        noise = np.sqrt(2 / np.pi / N) * np.abs(LINEAR.borders[i]).mean() / influenced
        assert row.mae_only_floor == pytest.approx(noise, rel=4 * 0.76 / np.sqrt(C * 8))
    assert table["mae_only"].tolist() == pytest.approx(table["mae_without"][::-1].tolist())


def test_a_site_behind_a_layer_does_exactly_nothing_there(linear):
    found, second = by_site(linear, "0"), by_site(linear, "0").loc["1"]
    named = ["reached", "mae_only", "mae_only_low", "mae_only_high", "mae_only_floor", *PROJECTIONS]
    assert not second[[*named, *(f"{name}_high" for name in PROJECTIONS)]].any()
    only, without = linear.maps("1", "0")
    assert not only.any() and np.array_equal(without, linear.patterns["0"])
    whole = linear.interactions().set_index("layer").loc["0"]
    assert second["mae_without"] == whole["mae"] == found.loc["0", "mae_only"] > 0
    assert found.loc["0", "projection_only"] == pytest.approx(1, abs=1e-12)


def test_noise_of_a_site_without_a_pattern_is_not_taken_for_one():
    """The second site gives noise alone, of four times the power of the first one's pattern."""
    n, many = 8, 120
    planted = TwoSites(
        ((1.0,) * many, (0.0,) * many), ((0.0,) * many, (2.0,) * many), (1.0,) * many
    )
    found = attributed(planted, planted.windows(n, seed=1))
    table = by_site(found, "2")
    # in units of <d, d>: the mean of u, and products of two, which have a variance of 1
    error = 3 * np.sqrt((4 / n + 16 * 2 / (n * (n - 1))) / many)
    for name in PROJECTIONS:
        assert table[name].tolist() == pytest.approx([1, 0], abs=error)
        low, high = table[f"{name}_low"], table[f"{name}_high"]
        assert low["0"] <= 1 <= high["0"] and low["1"] <= 0 <= high["1"]
        assert (high - low < 3 * error).all()
    noise = 4 / n  # that is left in a mean over all windows
    plug_in = projections([found.maps("1", "2")[0]], found.patterns["2"])
    assert plug_in == pytest.approx([noise / (1 + noise)], rel=0.2) and plug_in[0] > error


def test_without_a_pattern_there_is_nothing_to_project_on():
    planted = TwoSites(((0.0,),) * 2, ((1.0,), (1.0,)), (1.0,))
    seen = []
    for seed in range(6):
        found = attributed(planted, planted.windows(5, seed=seed))
        left, table = found.interactions().iloc[0], by_site(found, "2")
        assert left["power_low"] <= 0 <= left["power_high"]
        nothing = left["power"] <= 0
        assert table[PROJECTIONS].isna().all(axis=None) == nothing
        assert math.isnan(left["interaction"]) == nothing
        seen.append(nothing)
    assert any(seen)


def test_windows_of_a_picture_and_groups_of_pictures_are_pooled():
    windows = LINEAR.windows(9, 3, seed=5)
    found = attributed(LINEAR, windows, batch_size=2)
    measured = ppp.measure(LINEAR.network(), windows, ["2"], groups=1000)["2"]
    left = found.interactions().iloc[0]
    assert (left["n"], left["groups"]) == (27, 9)
    np.testing.assert_allclose(found.patterns["2"], measured.pattern, atol=1e-6)
    mae = measured.mae_influenced
    assert left[["mae", "mae_low", "mae_high"]].tolist() == pytest.approx([*vars(mae).values()])
    floor = measured.mae_floor / measured.influenced
    assert left["mae_floor"] == pytest.approx(floor, rel=1e-5)
    power = measured.power / measured.influenced
    bounds = left[["power", "power_low", "power_high"]].tolist()
    assert bounds == pytest.approx([*vars(power).values()], rel=1e-5)
    assert left["sigma"] == pytest.approx(measured.sigma)
    grouped = ppp.attribute(LINEAR.network(), windows, ["2"], groups=4)
    assert grouped.interactions()["groups"].item() == 4
    np.testing.assert_allclose(grouped.patterns["2"], found.patterns["2"], atol=1e-6)


# --- planted interaction ------------------------------------------------------------------

THRESHOLD = 0.5


def bent(maps):
    """What exceeds a threshold in the first channel, and the second as it is."""
    return F.relu(maps[:, :1] - THRESHOLD) + maps[:, 1:]


def test_a_planted_interaction_is_found():
    """Behind a threshold, one site alone gives little, the other nothing, both together a lot."""
    planted = TwoSites(
        ((2.0, 0.0), (1.0, 0.0)), ((0.0, 0.0), (0.0, 0.1)), (0.0, 1.0), (-EDGE, -EDGE), last=bent
    )
    found = attributed(planted, planted.windows(24))
    first, second = planted.patterns[:, 0]
    alone = [np.maximum(part - THRESHOLD, 0) for part in (first, second)]
    whole = np.maximum(first + second - THRESHOLD, 0)
    known = projections(alone, whole)
    gone = [1 - one for one in known[::-1]]  # without the first, the second alone is left
    assert known[0] > 0.4 and known[1] < 0.03
    table, left = by_site(found, "2"), found.interactions().iloc[0]
    error = 4 * 0.1 * np.sqrt(1 / 24)
    assert table["projection_only"].tolist() == pytest.approx(known, abs=error)
    assert table["projection_without"].tolist() == pytest.approx(gone, abs=error)
    for name, each in (("interaction", known), ("interaction_without", gone)):
        assert left[name] == pytest.approx(1 - sum(each), abs=error)
        assert left[f"{name}_low"] <= 1 - sum(each) <= left[f"{name}_high"]
    assert left["interaction_low"] > 0.5 and left["interaction_without_high"] < -0.5


# --- passes, schemes, memory ---------------------------------------------------------------


def test_passes_are_as_many_as_are_said_and_the_network_stays_as_it_was(
    model, windows, coverage, monkeypatch
):
    before, seen, done = {k: v.clone() for k, v in model.state_dict().items()}, [], []
    run = Tap.__call__

    def counted(tap, x, consume):
        seen.append(x.shape[2:] == (20, 20) and len(x))
        return run(tap, x, consume)

    monkeypatch.setattr(Tap, "__call__", counted)
    found = ppp.attribute(model, windows, LAYERS, coverage=coverage, progress=done.append)
    assert found.passes == 2 * 4 + 2 and list(found.sites) == ["0", "3", "5", "6"]
    trial, probes, layout = 2, 4, 0
    assert sum(seen) == found.passes * 24 + trial + probes + layout
    assert sum(done) == 24 and max(done) == 6
    assert unchanged(model, before)
    assert list(found.completeness) == LAYERS
    assert all(proof.shown and proof.tolerance == 1e-4 for proof in found.completeness.values())
    assert "4 sites" in repr(found) and "projection_only" in found._repr_html_()


def test_true_values_at_each_site_are_those_of_optimal(model, windows, coverage):
    found = ppp.attribute(model, windows, LAYERS, coverage=coverage)
    only, without = [], []
    for picture in windows:
        truth = ppp.optimal(model, picture.pixels, picture.tops, picture.lefts, coverage)
        site = truth.sites[1]
        others = [other for other in truth.sites if other is not site]
        for kept, true in ((only, others), (without, [site])):
            kept.append((truth.features(true)["6"] - truth.maps["6"]).mean(0))
    for map_, expected in zip(found.maps("3", "6"), (only, without)):
        np.testing.assert_allclose(map_, torch.stack(expected).mean(0), atol=1e-6)


@pytest.mark.parametrize("seed", [1, 3, 12, *(pytest.param(s, marks=NIGHTLY) for s in range(16))])
def test_what_each_site_of_a_random_network_does_is_what_brute_force_finds(seed):
    """Circular, reflect and hand-made padding, branches, pools and strides."""
    network, size = random_networks.network(seed)
    layer = str(len(network) - 1)
    coverage = ppp.coverage(network, [layer], size)
    need = [side + 2 * step for side, step in zip(ppp.size_needed(size, coverage), coverage.stride)]
    windows = ppp.cut_windows(scenes(3, *need), size, coverage, per_picture=2, seed=seed)
    found = ppp.attribute(network, windows, [layer], coverage=coverage)
    assert found.passes <= 2 * len(found.sites) + 2
    truths = [ppp.optimal(network, p.pixels, p.tops, p.lefts, coverage) for p in windows]
    for i, site in enumerate(found.sites):
        for j, map_ in enumerate(found.maps(site, layer)):
            means = []
            for truth in truths:
                others = [other for other in truth.sites if other is not truth.sites[i]]
                padded = truth.features([truth.sites[i]] if j else others)[layer]
                means.append((padded - truth.maps[layer]).double().mean(0))
            expected = torch.stack(means).mean(0).numpy()
            np.testing.assert_allclose(map_, expected, atol=1e-5 * max(1, abs(expected).max()))


@pytest.mark.parametrize("scheme", ["reflect", "randn", "zeros"])
def test_schemes(model, windows, coverage, scheme):
    found = ppp.attribute(model, windows, LAYERS, scheme, coverage=coverage, seed=3)
    again = ppp.attribute(model, windows, LAYERS, scheme, coverage=coverage, seed=3)
    assert found.table().equals(again.table())
    if scheme != "randn":  # which draws anew in every pass
        measured = ppp.measure(model, windows, LAYERS, scheme, coverage=coverage)
        for layer in LAYERS:
            np.testing.assert_allclose(found.patterns[layer], measured[layer].pattern, atol=1e-6)
    if scheme == "zeros":
        own = ppp.attribute(model, windows, LAYERS, coverage=coverage)
        assert own.table().equals(found.table())


def test_double_precision(model, windows, coverage):
    pictures = [ppp.Picture(p.name, p.pixels.double(), p.tops, p.lefts) for p in windows]
    double = torch.nn.Sequential(*model).double()
    try:
        found = ppp.attribute(double, ppp.Windows(pictures, 20), LAYERS, coverage=coverage)
    finally:
        model.float()
    assert all(p.shown and p.tolerance == 1e-9 for p in found.completeness.values())


def test_a_bound_on_memory_changes_nothing_but_rounding(model, coverage):
    windows = ppp.cut_windows(scenes(2, 96, 160), 20, coverage, per_picture=9, seed=0)
    whole = ppp.attribute(model, windows, LAYERS, coverage=coverage, memory=math.inf)
    need = refused(ppp.attribute, model, windows, LAYERS, coverage=coverage, memory=1)
    least = int(need.split("need ")[1].split(" bytes")[0])
    tiled = ppp.attribute(model, windows, LAYERS, coverage=coverage, memory=least)
    for layer in LAYERS:
        for site in whole.sites:
            for pair in zip(whole.maps(site, layer), tiled.maps(site, layer)):
                np.testing.assert_allclose(*pair, atol=1e-5)


def test_calls_of_one_module_have_names_of_their_own(windows):
    twice = sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1),
        lambda x: F.avg_pool2d(F.pad(F.avg_pool2d(F.pad(x, (1,) * 4), 3, 1), (1,) * 4), 3, 1),
    )
    found = ppp.attribute(twice, windows, ["1"])
    assert list(found.sites) == ["0", "1 pad 0", "1 pad 1"] and found.passes == 8
    assert found.table()["call"].tolist() == [0, 0, 1]
    assert found.interactions()["interaction"].item() == pytest.approx(0, abs=1e-3)


def test_a_layer_that_padding_cannot_touch_and_a_network_that_pads_in_its_own_forward(windows):
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 3)

        def forward(self, x):
            return self.second(F.pad(self.first(x), (1,) * 4))

    found = ppp.attribute(Own().eval(), windows, ["first", "second"])
    assert list(found.sites) == ["pad 0"] and not found.patterns["first"].any()
    table = found.table().set_index("layer")
    assert table["reached"].tolist() == [0, pytest.approx(1 - (16 / 18) ** 2)]
    assert table["projection_only"].tolist() == [0, pytest.approx(1)]
    assert found.interactions()["completeness"].tolist() == ["shown", "shown"]


def test_sites_behind_the_layers_asked_for_take_no_pass(model, windows, coverage):
    found = ppp.attribute(model, windows, "2", coverage=coverage)
    assert found.passes == 4 and len(found.table()) == len(found.sites) == 4
    assert found.table()["projection_without"].tolist() == [1, 0, 0, 0]


# --- what is refused ----------------------------------------------------------------------


def test_unknown_names(model, windows, coverage, linear):
    said = refused(ppp.attribute, model, windows, ["layer4"], error=LayerError)
    assert "'layer4'" in said
    said = refused(ppp.attribute, model, windows, LAYERS, "refelct", coverage=coverage)
    assert "did you mean 'reflect'" in said
    assert "unknown site 'conv1'" in refused(linear.maps, "conv1", "2")
    assert "unknown layer '3'" in refused(linear.maps, "1", "3")


def test_a_coverage_of_another_network(model, windows):
    other = sequential(*list(model)[:6], torch.nn.Conv2d(8, 4, 5, padding=2))
    said = refused(ppp.attribute, model, windows, LAYERS, coverage=ppp.coverage(other, LAYERS, 20))
    assert "another network" in said and "'6'" in said


def test_a_network_that_pads_nowhere(windows):
    assert "pads nowhere" in refused(
        ppp.attribute, sequential(torch.nn.Conv2d(3, 4, 3)), windows, ["0"]
    )


def test_one_picture_is_too_few(model, coverage):
    single = ppp.cut_windows(scenes(1), 20, coverage, per_picture=4, seed=0)
    said = refused(ppp.attribute, model, single, LAYERS, coverage=coverage, error=PictureError)
    assert said.startswith("windows of 1 picture")
    pair = ppp.cut_windows(scenes(2), 20, coverage, per_picture=4, seed=0)
    table = ppp.attribute(model, pair, ["6"], coverage=coverage).table()
    assert table["projection_only"].notna().all() and table["projection_only_low"].isna().all()


def test_hidden_padding(windows):
    hidden = sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), lambda x: x + torch.roll(x, 1, 3), torch.nn.ReLU()
    )
    said = refused(ppp.attribute, hidden, windows, ["2"])
    assert "not listed" in said and "'1'" in said


def test_what_shows_in_some_batches_alone_is_seen_in_them(model, windows):
    """A network that gives more in batches of more than two, as no proof tries them."""
    moody = sequential(*model, lambda x: x + 0.01 * (len(x) > 2))
    coverage = ppp.coverage(moody, ["7"], 20)
    assert coverage["7"].completeness.shown
    options = {"coverage": coverage, "error": GridError}
    said = refused(ppp.attribute, moody, windows, ["7"], **options)
    assert "all 4 sites" in said and "'scene 0'" in said
    assert ppp.attribute(moody, windows, ["7"], batch_size=2, coverage=coverage).passes == 10
