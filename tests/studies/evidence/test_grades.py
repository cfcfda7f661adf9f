"""The amended tests on made-up tables whose answers are known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from checks import refused

from ppp.errors import ParameterError, PPPError
from ppp.metrics import Moments, merged
from ppp.statistics import products, unbiased_power
from studies import ledger
from studies.claims import AGAINST, NOT_EVALUABLE, SUPPORTED, UNDERPOWERED, claim, claims, gated
from studies.evidence import design, grades
from studies.networks.names import PADDINGS
from studies.patterns import design as patterns_design

LAYERS = ("relu", "layer1", "layer2", "layer3", "layer4")


def test_the_share_is_that_of_the_windows_themselves():
    draw = torch.Generator().manual_seed(0)
    windows = [
        0.5 + torch.randn(n, 3, 4, generator=draw) + torch.randn(1, 3, 4, generator=draw)
        for n in (5, 9, 7, 4, 6)
    ]
    groups = [Moments().update(each) for each in windows]
    n = np.array([group.n for group in groups])
    spread = np.array([float(group.m2.mean()) for group in groups])
    alike = products([group.mean for group in groups])
    power, variance = unbiased_power(alike).value, float(merged(groups).variance.mean())
    assert grades.share(alike, n, spread) == pytest.approx(power / (power + variance))


def photographs(strength: dict[str, float], state="trained", *, pictures=37, seed=0):
    """Return the tables "pictures" and "products" of five networks a scheme: pattern and noise."""
    rng, tables = np.random.default_rng(seed), {"pictures": [], "products": []}
    for scheme, size in strength.items():
        for network in range(5):
            for layer in LAYERS:
                pattern = rng.standard_normal(60)
                maps = size * pattern + rng.standard_normal((pictures, 60))
                head = {"family": "resnet", "padding": scheme, "state": state, "seed": network}
                if state == "initial":
                    head["padding"] = "optimal"
                head |= {"scheme": scheme, "layer": layer}
                of = {"number": range(pictures), "set": "debian", "n": 64, "spread": 640.0}
                tables["pictures"].append(pd.DataFrame(head | of | {"mean": maps.mean(1)}))
                first, second = np.triu_indices(pictures)
                value = (maps @ maps.T / 60)[first, second]
                pairs = {"first": first, "second": second, "value": value}
                tables["products"].append(pd.DataFrame(head | pairs))
    tables["metrics"] = [pd.DataFrame({"family": "resnet", "layer": LAYERS, "influenced": 0.5})]
    return {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}


def test_halves_are_correlated_over_the_cells_that_padding_can_touch(shipped, monkeypatch):
    tables = photographs({"zeros": 1.0})
    scaled = {"pictures": ["mean", "spread"], "products": ["value"]}  # half of the cells are 0
    for name, columns in scaled.items():
        tables[name][columns] /= 2
    shipped(**tables)
    alike, _, spread = grades._maps(ledger.DATA, "trained")["zeros", 0, "relu"]
    assert spread[0] == 640 and alike[-1, -1] == 1
    rows = tables["products"].query("seed == 0 and layer == 'relu'")
    assert alike[0, 1] == pytest.approx(2 * rows["value"].iloc[1])


@pytest.fixture
def shipped(monkeypatch):
    """Give tables in the place of those that are shipped."""
    tables = {}

    def put(**more):
        tables.update(more)
        for kept in (
            grades._maps,
            grades._shares,
            grades._correlations,
            grades._fresh,
            grades.gate,
        ):
            kept.cache_clear()

    monkeypatch.setattr(design, "read", lambda name, data: tables[name].copy())
    monkeypatch.setattr(patterns_design, "read", lambda name, data: tables[name].copy())
    monkeypatch.setattr(
        grades.dynamics_design, "trajectories", lambda data, **_: tables["trajectories"].copy()
    )
    yield put
    put()


def by_row(graded, part):
    rows = graded.rows[graded.rows["part"].str.contains(part, regex=False)]
    return rows.set_index("row")["grade"].to_dict()


def test_patterns_are_told_from_noise_and_small_ones_from_large_ones(shipped):
    strength = {"zeros": 3.0, "reflect": 3.0, "replicate": 3.0, "circular": 0.0, "randn": 0.9}
    shipped(**photographs(strength))
    found = grades.judge("C3")
    halves, share = by_row(found, "halves"), by_row(found, "share")
    assert halves == share | {"randn": halves["randn"]}
    assert [halves[scheme] for scheme in PADDINGS[:4]] == [SUPPORTED] * 3 + [AGAINST]
    assert grades.gate(ledger.DATA).to_dict() == {
        **dict.fromkeys(PADDINGS, len(LAYERS)), "circular": 0
    }  # fmt: skip
    assert found.grade == "mixed" and "supported" in found.because


def test_too_few_photographs_for_the_family_of_tests_are_refused(shipped):
    shipped(**photographs(dict.fromkeys(PADDINGS, 2.0), pictures=8))
    said = refused(grades.judge, "C3", error=PPPError)
    assert said.startswith("25 tests at 5 % need 10 pictures, got 8")


def test_a_supported_row_needs_three_layers_that_pass():
    rows = pd.DataFrame({"row": ["a", "b", "c"], "grade": [SUPPORTED, SUPPORTED, UNDERPOWERED]})
    passed = pd.Series({"a": 3, "b": 2, "c": 0})
    assert gated(rows, passed)["grade"].tolist() == [SUPPORTED, UNDERPOWERED, AGAINST]


def test_randn_is_compared_with_its_initial_networks(shipped):
    trained, initial = (
        photographs(dict.fromkeys(PADDINGS, size), state, seed=i)
        for i, (state, size) in enumerate((("trained", 2.0), ("initial", 0.5)))
    )
    shipped(**{k: pd.concat([trained[k], initial[k]]) for k in trained})
    found = grades.judge("C7")
    assert found.grade == SUPPORTED and set(found.rows["row"]) == {"randn"} and len(found.rows) == 3
    shipped(**{k: pd.concat([trained[k], trained[k].assign(state="initial")]) for k in trained})
    assert by_row(grades.judge("C7"), "less initial") == {"randn": UNDERPOWERED}


def visibility(single: dict[str, float], averaged: float):
    rng, rows = np.random.default_rng(0), []
    for scheme, area in single.items():
        for seed in range(5):
            for layer in LAYERS:
                for version in ("all channels", "best channel", "channel mean"):
                    for n, value in ((1, area), (64, averaged)):
                        noise = 0.002 * rng.standard_normal(19)
                        parts = {"without": ["", *map(str, range(18))], "area": value + noise}
                        head = {"family": "resnet", "scheme": scheme, "seed": seed, "layer": layer}
                        rows.append(pd.DataFrame(head | {"version": version, "n": n} | parts))
    return pd.concat(rows, ignore_index=True)


def halves(r):
    rows = [
        ("resnet", scheme, "trained", seed, "plane", scheme, layer, 512, r + 0.001 * seed)
        for scheme in PADDINGS
        for seed in range(5)
        for layer in LAYERS
    ]
    names = ["family", "padding", "state", "seed", "data", "scheme", "layer", "n", "r"]
    return pd.DataFrame(rows, columns=names)


def test_what_a_filter_sees_refutes_no_eye_but_what_it_misses_is_imperceptible(shipped):
    single = dict.fromkeys(PADDINGS, 0.6) | {"reflect": 0.9}
    shipped(visibility=visibility(single, 0.9), halves=halves(0.95))
    found = grades.judge("C4")
    every = by_row(found, "(a) one map, all channels")
    assert every == {
        "reflect": NOT_EVALUABLE, **dict.fromkeys(("replicate", "circular", "randn"), SUPPORTED)
    }  # fmt: skip
    mean = by_row(found, "(a) one map, channel mean")
    assert mean == every | {"zeros": AGAINST}, "for zeros the claim says that it can be seen"
    assert set(by_row(found, "(b)").values()) == {SUPPORTED} and found.grade == "mixed"
    shipped(visibility=visibility(single | {"zeros": 0.9}, 0.9), halves=halves(0.2))
    found = grades.judge("C4")
    assert by_row(found, "channel mean")["zeros"] == SUPPORTED  # of means over 64 maps
    assert set(by_row(found, "halves").values()) == {AGAINST}


def test_distinguishable_means_more_than_two_samples_of_the_same(shipped):
    rows = [
        ("resnet", scheme, seed, layer, n, gain * np.log2(n) + base, base + 0.001 * seed)
        for scheme, gain, base in (("zeros", 0.05, 0.0), ("reflect", 0.05, 0.2), ("randn", 0, 0.2))
        for seed in range(5)
        for layer in LAYERS
        for n in design.SCENES
    ]
    names = ["family", "scheme", "seed", "layer", "n", "separated", "control"]
    shipped(scenes=pd.DataFrame(rows, columns=names))
    found = grades.judge("C5")
    assert by_row(found, "excess share") == {
        "zeros": SUPPORTED, "reflect": SUPPORTED, "randn": AGAINST
    }  # fmt: skip
    slopes = found.rows[found.rows["part"].str.contains("slope")].set_index("row")["value"]
    assert slopes.to_dict() == pytest.approx({"zeros": 0.05, "reflect": 0.05, "randn": 0}, abs=1e-9)


STEPS = (0, 64, 128, 256, 640, 1280)


def trajectories(value, paddings=PADDINGS):
    """Return runs of five seeds whose metrics follow `value(padding, step, seed, metric)`."""
    rows = [
        (padding, seed, step, padding, layer, metric, value(padding, step, seed, metric))
        for padding in paddings
        for seed in (5, 6, 7, 8, 9)
        for step in STEPS
        for layer in LAYERS
        for metric in ("mae", "snr", "raw")
    ]
    names = ["padding", "seed", "step", "test_padding", "layer", "metric", "value"]
    table = pd.DataFrame(rows, columns=names).assign(family="resnet", accuracy=0.9, run="")
    return pd.concat([table.assign(batch_norm=kind) for kind in ("re-estimated", "running")])


def test_half_of_the_excess_counts_not_half_of_the_value(shipped):
    def value(padding, step, seed, metric):
        if padding == "zeros":  # there from the start, and grows at the end alone
            return 1.0 + 0.1 * max(0, step - 640) / 640 + 0.001 * seed
        if padding == "randn":  # no growth that five seeds could show
            return 1.0 + (0.1 * (-1) ** seed if step else 0.0)
        return 0.1 + min(step, 128) / 128 + 0.001 * seed

    shipped(trajectories=trajectories(value))
    early = by_row(grades.judge("C8"), "half of the final excess")
    assert early == {
        f"{padding}, {metric}": {"zeros": AGAINST, "randn": NOT_EVALUABLE}.get(padding, SUPPORTED)
        for padding in PADDINGS
        for metric in ("mae", "snr")
    }
    later = by_row(grades.judge("C9"), "log2(excess")
    assert later["reflect, mae"] == AGAINST and later["randn, snr"] == NOT_EVALUABLE
    assert later["zeros, mae"] == NOT_EVALUABLE, "no excess at step 128: nothing to compare with"


def test_growth_late_in_training_is_a_ratio_of_mean_excesses(shipped):
    shipped(trajectories=trajectories(lambda p, step, seed, m: 1 + step / 1280 * (1 + 0.01 * seed)))
    rows = grades.judge("C9").rows
    assert rows["value"].to_numpy() == pytest.approx(np.log2(10))
    assert set(rows["grade"]) == {SUPPORTED}


def test_three_normalisations_may_disagree(shipped):
    factor = {"mae": 0.5, "snr": 1.0, "raw": 4.0}

    def value(padding, step, seed, metric):
        return factor[metric] ** (step == STEPS[-1]) * (1 + 0.01 * seed * (step > 0))

    shipped(trajectories=trajectories(value))
    found = grades.judge("C10")
    assert set(by_row(found, "sigma").values()) == {AGAINST}
    assert set(by_row(found, "SNR").values()) == {AGAINST}
    assert set(by_row(found, "raw").values()) == {SUPPORTED} and found.grade == "mixed"


def test_a_claim_that_is_none_is_refused():
    assert "did you mean 'C" in refused(grades.judge, "C12", error=ParameterError)


def test_every_delta_of_a_row_is_the_registered_one(shipped):
    shipped(**photographs(dict.fromkeys(PADDINGS, 2.0)))
    numbers = claim("C3").amended.numbers
    deltas = grades.judge("C3").rows.groupby("part")["delta"].first().to_dict()
    assert sorted(deltas.values()) == [numbers["delta_share"], numbers["delta"]]


@pytest.mark.parametrize("name", claims())
def test_the_shipped_tables_give_the_guarded_grade_and_a_figure_with_thresholds(name):
    found = grades.judge(name)
    grades.require_unchanged([found])
    assert found.effect and found.because
    drawn = grades.figure(found)
    panels = dict(zip(found.rows["part"].unique(), drawn.axes))
    for part, rows in found.rows.groupby("part"):
        assert panels[part].lines[0].get_xdata()[0] == rows["delta"].iloc[0]


def test_a_changed_grade_is_refused_with_what_to_do():
    found = replace(grades.judge("C2"), grade=AGAINST)
    said = refused(grades.require_unchanged, [found], error=ledger.VerdictChanged)
    assert said.startswith("C2 is 'against' now") and "data/claims.yaml" in said
