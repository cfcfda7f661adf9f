"""Statistics and verdicts of claims C3, C4, C5 and C7, against plain computations."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from checks import refused
from scipy import stats

from ppp.errors import ParameterError
from studies.claims import INCONCLUSIVE, NOT_EVALUATED, NOT_REPRODUCED, REPRODUCED
from studies.patterns import analysis, design
from studies.patterns.analysis import Tables
from studies.patterns.comparison import measure_network

SCHEMES = ("zeros", "reflect", "replicate", "circular", "randn")
LAYERS = ("relu", "layer1", "layer2", "layer3", "layer4")
SIZES = (8, 32, 128, 512)
SEEDS = range(5)


def wobble(seed: int) -> float:
    """A small deviation of each seed, so that intervals have a width."""
    return 0.001 * (seed - 2)


def tables(
    r=lambda scheme, layer: 0.9,
    plane=lambda scheme: 0.9,
    share=lambda scheme: 0.7 if scheme == "zeros" else 0.1,
    separated=lambda scheme, n: 0.1 * np.log2(n),
    power_low=lambda scheme, seed, layer: 0.1,
    seeds=SEEDS,
    schemes=SCHEMES,
) -> Tables:
    metrics, halves, growth = [], [], []
    for scheme, seed, layer in product(schemes, seeds, LAYERS):
        key = {"scheme": scheme, "seed": seed, "layer": layer}
        photos, low = share(scheme) + wobble(seed), power_low(scheme, seed, layer)
        metrics.append(key | {"data": "photographs", "share": photos, "power_low": low})
        metrics.append(key | {"data": "plane", "share": 9.0, "power_low": 9})
        agreed = r(scheme, layer) + wobble(seed)
        halves.append(key | {"data": "photographs", "n": 256, "r": agreed})
        for n in SIZES:
            agreed = (plane(scheme) if n == SIZES[-1] else 0.0) + wobble(seed)
            halves.append(key | {"data": "plane", "n": n, "r": agreed})
            told_apart = separated(scheme, n) + wobble(seed) * np.log2(n) / 9
            for half, cells in ((0, told_apart), (1, 9.0)):
                powers = {"plug_in": 2.0 + half, "power": 1.0 + half, "sigma": 2.0}
                shares = {"separated": cells, "detected": 0.5}
                growth.append(key | {"half": half, "n": n} | shares | powers)
    return Tables(*map(pd.DataFrame, (metrics, growth, halves)))


# ------------------------------------------------------------------------------ statistics


@pytest.fixture(scope="module")
def drawn() -> Tables:
    """Tables of random numbers."""
    made, draw = tables(), np.random.default_rng(0)
    for frame, names in (
        (made.metrics, ["share", "power_low"]),
        (made.halves, ["r"]),
        (made.growth, ["separated", "detected", "plug_in", "power", "sigma"]),
    ):
        frame[names] = draw.uniform(0.1, 1, (len(frame), len(names)))
    return made


def interval(values) -> tuple[float, float, float]:
    values = np.asarray(values)
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean(), values.mean() - half, values.mean() + half


def row(frame: pd.DataFrame, **key) -> tuple[float, float, float]:
    for name, value in key.items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1 and (frame["n"] == len(SEEDS)).all()
    return tuple(frame[["mean", "low", "high"]].iloc[0])


def test_halves_are_averaged_over_seeds_and_of_scenes_the_most_count(drawn):
    for data, size in (("photographs", 256), ("plane", 512)):
        found = analysis.halves_by_layer(drawn.halves, data)
        assert len(found) == len(SCHEMES) * len(LAYERS)
        h = drawn.halves
        h = h[(h["data"] == data) & (h["n"] == size) & (h["scheme"] == "randn")]
        expected = interval(h.loc[h["layer"] == "layer2", "r"])
        assert row(found, scheme="randn", layer="layer2") == pytest.approx(expected)


def test_the_share_is_averaged_over_layers_then_over_seeds(drawn):
    m = drawn.metrics
    m = m[(m["scheme"] == "circular") & (m["data"] == "photographs")]
    expected = interval([m.loc[m["seed"] == s, "share"].mean() for s in SEEDS])
    assert row(analysis.obscurity(drawn.metrics), scheme="circular") == pytest.approx(expected)


def test_agreement_by_the_number_of_scenes(drawn):
    h = drawn.halves
    h = h[(h["scheme"] == "zeros") & (h["data"] == "plane") & (h["n"] == 32)]
    expected = interval([h.loc[h["seed"] == s, "r"].mean() for s in SEEDS])
    found = analysis.revealed(drawn.halves)
    assert row(found, scheme="zeros", scenes=32) == pytest.approx(expected)


@pytest.mark.parametrize("what", ["separated", "detected"])
def test_shares_and_slopes_are_of_the_first_half(drawn, what):
    g = drawn.growth
    g = g[(g["scheme"] == "reflect") & (g["half"] == 0)]
    means = {
        s: [g.loc[(g["seed"] == s) & (g["n"] == n), what].mean() for n in SIZES] for s in SEEDS
    }
    found = analysis.distinguished(drawn.growth, what)
    for i, n in enumerate(SIZES):
        expected = interval([means[s][i] for s in SEEDS])
        assert row(found, scheme="reflect", scenes=n) == pytest.approx(expected)
    slopes = [stats.linregress(np.log2(SIZES), means[s]).slope for s in SEEDS]
    found = analysis.slopes(drawn.growth, what)
    assert row(found, scheme="reflect") == pytest.approx(interval(slopes))


def test_power_is_in_units_of_the_variance_and_a_mean_of_both_halves(drawn):
    found = analysis.biases(drawn.growth)
    g = drawn.growth
    g = g[(g["scheme"] == "zeros") & (g["layer"] == "layer3") & (g["n"] == 8)]
    for estimate, column in (("plug-in, mean d²", "plug_in"), ("unbiased", "power")):
        each = [(p[column] / p["sigma"] ** 2).mean() for _, p in g.groupby("seed")]
        key = {"scheme": "zeros", "layer": "layer3", "scenes": 8, "estimate": estimate}
        assert row(found, **key) == pytest.approx(interval(each))


# -------------------------------------------------------------------------------- profiles


def as_map(values: np.ndarray, **keys) -> pd.DataFrame:
    rows, columns = np.indices(values.shape).reshape(2, -1)
    return pd.DataFrame(keys | {"row": rows, "column": columns, "value": values.ravel()})


@pytest.mark.parametrize("shape", [(5, 5), (4, 6), (6, 4), (1, 3), (2, 2)])
def test_profile_gives_each_cell_to_its_nearest_side(shape):
    values = np.random.default_rng(1).random(shape)
    found = analysis.profile(as_map(values, layer="conv"))
    cells: dict[tuple[str, int], list[float]] = {}
    for (i, j), value in np.ndenumerate(values):
        far = {"left": j, "right": shape[1] - 1 - j, "top": i, "bottom": shape[0] - 1 - i}
        nearest = min(far.values())
        sides = [name for name, distance in far.items() if distance == nearest]
        if {*sides} & {"left", "right"} and {*sides} & {"top", "bottom"}:
            sides = ["diagonal"]
        for side in sides:  # two opposite ones, midway between them
            cells.setdefault((side, nearest), []).append(value)
    assert len(found) == len(cells)
    for r in found.itertuples():
        assert r.value == pytest.approx(np.mean(cells[r.side, r.distance]))


def test_influenced_cells_are_those_of_the_measurement():
    schemes = ["zeros", "reflect"]
    measured = measure_network("plane-resnet-zeros", "trained", schemes, pictures="plane", n=4)
    whole = measured.measurement.table()
    names = [name for name in whole if "influenced" in name]
    assert {"influenced", "mae_influenced_low", "snr_influenced_high"} <= set(names)
    found = analysis.with_influenced(whole.drop(columns=names), measured.measurement.coverage)
    pd.testing.assert_frame_equal(found[names], whole[names])
    share = found["mae_floor"] / found["mae_influenced_floor"]
    assert share.tolist() == pytest.approx(whole["influenced"].tolist())
    assert found["influenced"].min() < 0.1 and found["influenced"].max() == 1


def test_maps_of_different_layers_do_not_mix():
    small, large = np.ones((2, 2)), np.full((4, 4), 3.0)
    both = pd.concat([as_map(small, layer="deep"), as_map(large, layer="shallow")])
    found = analysis.profile(both).groupby("layer")
    assert found["value"].agg(["min", "max"]).T.to_dict("list") == {
        "deep": [1, 1],
        "shallow": [3, 3],
    }
    assert found["distance"].max().to_dict() == {"deep": 0, "shallow": 1}


def test_places_compare_corners_with_edges_and_sides_with_each_other():
    values = np.zeros((5, 5))
    values[0], values[-1], values[:, 0], values[:, -1] = 2.0, 1.0, 4.0, 1.0
    values[[0, 0, -1, -1], [0, -1, 0, -1]] = 6.0
    frame = pd.concat([as_map(values, scheme="zeros", layer="conv", seed=s) for s in (0, 1)])
    found = analysis.places(frame).iloc[0]
    assert found["corner / edge"] == pytest.approx(6 / np.mean([2, 1, 4, 1]))
    assert found["strongest / weakest side"] == pytest.approx(4.0)


def test_maps_of_seeds_are_correlated_pair_by_pair():
    draw = np.random.default_rng(2)
    maps = {seed: draw.random((3, 4)) for seed in (0, 1, 2)}
    keys = {"padding": "zeros", "scheme": "zeros", "layer": "conv"}
    found = analysis.map_agreement(pd.concat([as_map(m, seed=s, **keys) for s, m in maps.items()]))
    pairs = [stats.pearsonr(maps[a].ravel(), maps[b].ravel())[0] for a, b in combinations(maps, 2)]
    assert found["pairs"].item() == 3
    assert found["r"].item() == pytest.approx(np.mean(pairs))
    assert found["least"].item() == pytest.approx(min(pairs))
    assert analysis.map_agreement(as_map(maps[0], seed=0, **keys)).empty


@pytest.mark.parametrize(
    ("power", "half", "strongest"),
    [
        ([1, 1, 1, 1], 0.5, 0.25),
        ([0, 8, 0, 0], 0.25, 1.0),
        ([3, -5, 1, 2], 0.25, 0.5),
        ([0, -1, 0, -2], np.nan, np.nan),
    ],
)
def test_concentration(power, half, strongest):
    frame = pd.DataFrame({"scheme": "zeros", "layer": "conv", "channel": range(4), "power": power})
    found = analysis.concentration(frame.assign(mae=1.0)).iloc[0]
    assert found["channels"] == 4
    assert found["half"] == pytest.approx(half, nan_ok=True)
    assert found["strongest"] == pytest.approx(strongest, nan_ok=True)


# -------------------------------------------------------------------------------- verdicts


def deep(scheme, layer, low=0.4, high=0.6, layers=3, of="reflect"):
    """Agreement that is low in some layers of one scheme."""
    return low if scheme == of and LAYERS.index(layer) < layers else high


@pytest.mark.parametrize(
    ("r", "verdict"),
    [
        (lambda s, k: 0.6, REPRODUCED),
        (lambda s, k: deep(s, k, layers=2), REPRODUCED),  # three layers are left
        (lambda s, k: deep(s, k, layers=3), NOT_REPRODUCED),
        (lambda s, k: deep(s, k, low=0.5, layers=3), INCONCLUSIVE),  # across the threshold
    ],
)
def test_C3(r, verdict):
    found = analysis.judge("C3", tables(r=r))
    assert found.verdict == verdict, found.because
    assert "(reflect)" in found.because and len(found.table) == 25


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ({}, REPRODUCED),
        ({"share": lambda s: {"zeros": 0.7, "randn": 0.6}.get(s, 0.1)}, REPRODUCED),
        (
            {"share": lambda s: {"zeros": 0.7, "randn": 0.5, "reflect": 0.5}.get(s, 0.1)},
            INCONCLUSIVE,
        ),
        (
            {"share": lambda s: {"zeros": 0.7, "randn": 0.6, "reflect": 0.6}.get(s, 0.1)},
            NOT_REPRODUCED,
        ),
        ({"share": lambda s: 0.1}, NOT_REPRODUCED),
        ({"share": lambda s: 0.5 if s == "zeros" else 0.1}, INCONCLUSIVE),
        ({"plane": lambda s: 0.7 if s == "randn" else 0.9}, NOT_REPRODUCED),
        ({"plane": lambda s: 0.75 if s == "randn" else 0.9}, INCONCLUSIVE),
    ],
)
def test_C4(given, verdict):
    found = analysis.judge("C4", tables(**given))
    assert found.verdict == verdict, found.because


@pytest.mark.parametrize(
    ("separated", "verdict"),
    [
        (lambda s, n: 0.1 * np.log2(n), REPRODUCED),
        (
            lambda s, n: 0.5 - 0.01 * np.log2(n) if s == "randn" else 0.1 * np.log2(n),
            NOT_REPRODUCED,
        ),
        (lambda s, n: 0.005 * np.log2(n), NOT_REPRODUCED),  # rises, and ends at 0.045
        (lambda s, n: 0.05 / 9 * np.log2(n), INCONCLUSIVE),
        (lambda s, n: 0.3, INCONCLUSIVE),
    ],
)
def test_C5(separated, verdict):
    found = analysis.judge("C5", tables(separated=separated))
    assert found.verdict == verdict, found.because


def weak(networks: int, layers: int):
    """Power whose interval holds 0 in the first layers of some networks under randn."""
    return lambda s, seed, k: (
        -1.0 if s == "randn" and seed < networks and LAYERS.index(k) < layers else 0.1
    )


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ({}, REPRODUCED),
        ({"power_low": weak(5, 2)}, REPRODUCED),
        ({"power_low": weak(2, 3)}, INCONCLUSIVE),
        ({"power_low": weak(3, 3)}, NOT_REPRODUCED),
        ({"r": lambda s, k: 0.4 if s == "randn" else 0.9}, NOT_REPRODUCED),
        ({"r": lambda s, k: 0.5 if s == "randn" else 0.9}, INCONCLUSIVE),
        ({"r": lambda s, k: 0.9 if s == "randn" else 0.1}, REPRODUCED),  # others do not count
    ],
)
def test_C7(given, verdict):
    found = analysis.judge("C7", tables(**given))
    assert found.verdict == verdict, found.because


@pytest.mark.parametrize("name", ["C3", "C4", "C5", "C7"])
def test_too_few_networks_are_not_judged(name):
    assert analysis.judge(name, tables(seeds=range(2))).verdict == NOT_EVALUATED
    without = analysis.judge(name, tables(schemes=("zeros", "reflect")))
    assert without.verdict == NOT_EVALUATED


def test_another_claim_is_refused():
    assert "'C8'" in refused(analysis.judge, "C8", tables(), error=ParameterError)


def test_tables_are_of_one_family_and_state_under_their_own_padding():
    for state, schemes in (("trained", 1), ("initial", 5)):
        found = Tables.select(design.read, "vgg", state)
        for frame in (found.metrics, found.growth, found.halves):
            assert set(frame["family"]) == {"vgg"} and set(frame["state"]) == {state}
            assert (frame.groupby(["padding", "seed"])["scheme"].nunique() == schemes).all()
