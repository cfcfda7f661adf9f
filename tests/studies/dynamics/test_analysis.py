from itertools import product

import numpy as np
import pandas as pd
import pytest
import yaml
from checks import refused

from ppp.errors import ParameterError
from studies import claims
from studies.dynamics import analysis
from studies.dynamics.design import PADDINGS
from studies.stats import over_seeds, readable

pytestmark = pytest.mark.filterwarnings("ignore:Precision loss")  # made data hardly vary

LAYERS = ("relu", "layer4")
STEPS = (0, 16, 128, 256, 512, 1280)


def made(strength, *, seeds=5, control=0.01, accuracy=lambda step: 0.125 + 0.8 * step / 1280):
    """Trajectories with `strength(padding, seed, step)` in every layer and metric."""
    keys = ["padding", "seed", "step", "batch_norm"]
    states = product((*PADDINGS, "optimal"), range(seeds), STEPS, ("running", "re-estimated"))
    rows = []
    for state in states:
        padding, seed, step, _ = state
        head = dict(zip(keys, state)) | {
            "run": f"plane-resnet-{padding}-seed{seed}", "family": "resnet",
            "accuracy": accuracy(step),
        }  # fmt: skip
        value = control * (1 + 0.01 * seed)
        if padding != "optimal":
            value = strength(padding, seed, step)
        tested = PADDINGS if padding == "optimal" else [padding]
        for place in product(tested, LAYERS, ("mae", "snr", "power")):
            rows.append(head | dict(zip(("test_padding", "layer", "metric"), place), value=value))
        rows.append(head | {"test_padding": "optimal"})
    return pd.DataFrame(rows)


def rising(padding, seed, step):
    """Half of it by step 16, then in proportion to a small power of the step."""
    spread = 1 + 0.02 * seed + 0.01 * PADDINGS.index(padding)
    return 0.1 * spread * (0.2 if step == 0 else 0.7 + 0.3 * np.log2(1 + step) / np.log2(1281))


@pytest.mark.parametrize("name", ["C8", "C9", "C10", "C11"])
def test_a_pattern_that_is_learnt_early_and_grows_reproduces_every_claim(name):
    verdict = analysis.judge(name, made(rising))
    assert verdict.verdict == claims.REPRODUCED, verdict
    assert verdict.claim.id == name and len(verdict.table)


def falling(padding, seed, step):
    return 0.3 - rising(padding, seed, step) / (2 if padding == "zeros" else 1)


@pytest.mark.parametrize("name", ["C9", "C10"])
def test_a_pattern_that_shrinks_speaks_against_growth(name):
    verdict = analysis.judge(name, made(falling))
    assert verdict.verdict == claims.NOT_REPRODUCED
    assert "one below it" in verdict.because


def test_one_shrinking_scheme_is_enough_against_and_one_unclear_scheme_is_inconclusive():
    def one(padding, seed, step):
        return (falling if padding == "randn" else rising)(padding, seed, step)

    def unclear(padding, seed, step):
        flat = padding == "circular"
        return 0.1 * (1 + 0.1 * (-1) ** (seed + step)) if flat else rising(padding, seed, step)

    assert analysis.judge("C10", made(one)).verdict == claims.NOT_REPRODUCED
    assert analysis.judge("C10", made(unclear)).verdict == claims.INCONCLUSIVE


def test_a_late_pattern_is_not_early():
    def late(padding, seed, step):
        return (0.1 if step > 512 else 0.01) * (1 + 0.01 * seed)

    assert analysis.judge("C8", made(late)).verdict == claims.NOT_REPRODUCED


def test_c11_fails_when_the_scheme_matters_more_than_learning_or_the_control_is_as_strong():
    def by_scheme(padding, seed, step):
        return 10 ** (-PADDINGS.index(padding)) * (1 + 0.01 * seed) * (1 + step / 1280)

    table = made(by_scheme, control=1e-6)
    assert analysis.judge("C11", table).verdict == claims.NOT_REPRODUCED
    assert analysis.dependence(table, "mae")["low"] > 1
    assert analysis.judge("C11", made(rising, control=0.5)).verdict == claims.NOT_REPRODUCED


def test_few_seeds_or_one_scheme_give_a_table_and_no_verdict():
    for seeds in (1, 2):
        for name in ("C8", "C9", "C10", "C11"):
            verdict = analysis.judge(name, made(rising, seeds=seeds))
            assert verdict.verdict == claims.NOT_EVALUATED and len(verdict.table)
    table = made(rising)
    one = table[table["padding"].isin(["zeros", "optimal"])]
    assert analysis.judge("C11", one).verdict == claims.NOT_EVALUATED


def test_several_families_and_unknown_claims_are_refused():
    table = made(rising)
    both = pd.concat([table, table.assign(family="vgg")])
    assert "2 families" in refused(analysis.judge, "C9", both, error=ParameterError)
    assert "'C88'" in refused(analysis.judge, "C88", table, error=ParameterError)


def test_half_time_is_where_the_curve_stays_above_half():
    steps = [0, 1, 3, 7, 15]
    assert analysis.half_time(steps, [1, 1, 1, 1, 1]) == 0
    assert analysis.half_time(steps, [0, 9, 0, 1, 2]) == 7  # the early peak does not count
    assert analysis.half_time(steps, [0, 0, 0, 0, 2]) == pytest.approx(2**3.5 - 1)
    assert np.isnan(analysis.half_time(steps, [0, 0, 0, 0, -1]))


def test_slopes_are_those_of_a_power_law():
    def power(padding, seed, step):
        return 0.01 * (1 + step) ** 0.25 if step < 128 else 0.01 * step**0.25

    found = analysis.slopes(made(power), 128)
    assert np.allclose(found["slope"], 0.25)
    assert len(found) == 5 * 5 * len(LAYERS) * 3
    refused(analysis.slopes, made(power), 512, error=ParameterError)


def test_changes_pair_each_run_with_its_own_start():
    found = analysis.changes(made(rising))
    row = found[(found["padding"] == "randn") & (found["seed"] == 3)].iloc[0]
    assert row["final"] == pytest.approx(rising("randn", 3, 1280))
    assert found["change"].to_numpy() == pytest.approx(np.log2(5))
    assert set(found["batch_norm"]) == {"running", "re-estimated"}


def test_the_control_is_compared_under_the_same_scheme_and_seed():
    found = analysis.learnt(made(rising, control=0.02))
    expected = np.log2(found["trained"] / (0.02 * (1 + 0.01 * found["seed"])))
    assert np.allclose(found["ratio"], expected)
    assert set(found["padding"]) == set(PADDINGS)


def test_dependence_is_spread_over_change_with_a_jackknife_interval():
    found = analysis.dependence(made(rising), "mae")
    logs = [np.mean([np.log2(rising(p, s, 1280)) for s in range(5)]) for p in PADDINGS]
    assert found["spread"] == pytest.approx(np.std(logs, ddof=1))
    assert found["change"] == pytest.approx(np.log2(5))
    assert found["common"] == pytest.approx(np.log2(5))
    assert found["low"] <= found["ratio"] <= found["high"]
    assert found["spread_initial"] == pytest.approx(found["spread"])


def test_claims_are_whole_and_speak_of_what_is_computed(tmp_path):
    for name, entry in claims.claims().items():
        assert name == entry.id
        text = entry.markdown()
        assert entry.claim in text and ("Known when this was written" in text) == entry.tested
    tested = {name for name, entry in claims.claims().items() if entry.tested}
    assert set(analysis._TESTS) | {f"C{i}" for i in range(1, 8)} == tested
    refused(claims.claim, "C12", error=ParameterError)
    raw = yaml.safe_load(claims.CLAIMS.read_text())
    assert raw["C8"]["threshold"] == claims.claim("C8").numbers["threshold"]


def test_the_order_of_rows_does_not_matter():
    table = made(rising)
    mixed = table.sample(frac=1, random_state=0, ignore_index=True)
    for name in ("C8", "C9", "C10", "C11"):
        first, again = analysis.judge(name, table), analysis.judge(name, mixed)
        assert (first.verdict, first.because) == (again.verdict, again.because)


def test_c8_says_where_the_pattern_was_there_before():
    verdict = analysis.judge("C8", made(lambda padding, seed, step: 0.1 * (1 + 0.01 * seed)))
    assert verdict.verdict == claims.REPRODUCED
    assert "in 10 of them half of the final value is there before the first step" in verdict.because


def test_a_control_of_too_few_seeds_or_none_gives_no_verdict():
    table = made(rising)
    few = table[(table["padding"] != "optimal") | (table["seed"] < 2)]
    assert analysis.judge("C11", few).verdict == claims.NOT_EVALUATED
    none = analysis.judge("C11", table[table["padding"] != "optimal"])
    assert none.verdict == claims.NOT_EVALUATED and none.because == "no control run"


def test_rms_is_the_signed_root_of_the_power_and_has_statistics_of_its_own():
    table = made(rising)
    table.loc[table["metric"] == "power", "value"] **= 2  # so that its root is the strength
    table = analysis.with_amplitude(table.assign(low=0.0, high=1.0))
    found = analysis.changes(table).query("metric == 'rms'")
    assert np.allclose(found["change"], np.log2(5))
    ratio = analysis.learnt(table).query("metric == 'rms' and padding == 'zeros'")
    expected = [np.log2(rising("zeros", s, 1280) / (0.01 * (1 + 0.01 * s))) for s in range(5)]
    assert ratio.groupby("seed")["ratio"].mean().to_numpy() == pytest.approx(expected)
    texts = readable(over_seeds(found, "change", ["padding", "layer", "batch_norm"]))
    assert (texts["n"] == 5).all()
    assert texts["mean [95 %]"].str.match(r"-?\d+\.\d\d \[-?\d+\.\d\d, -?\d+\.\d\d\]").all()


def test_another_control_is_compared_where_it_is_asked_for():
    table = made(rising, control=0.02)
    mixed = table[(table["padding"] == "optimal") & table["layer"].notna()].assign(padding="mixed")
    mixed["value"] *= 4
    both = pd.concat([table, mixed], ignore_index=True)
    by = {name: analysis.learnt(both, name)["ratio"] for name in ("optimal", "mixed")}
    assert len(by["mixed"]) == len(by["optimal"]) > 0
    assert np.allclose(by["mixed"], by["optimal"] - 2)
    assert not analysis.changes(both)["padding"].isin(["mixed", "optimal"]).any()


def test_statistics_that_a_table_lacks_are_left_out():
    table = made(rising).query("batch_norm == 're-estimated'")
    assert set(analysis.changes(table)["batch_norm"]) == {"re-estimated"}
    assert analysis.dependence(table, "mae")["change"] == pytest.approx(np.log2(5))


def test_swapped_accuracy_has_a_row_for_every_network_and_padding():
    def accuracy(step):
        return step / 1280

    table = made(rising, accuracy=accuracy)
    found = analysis.swapped(table)
    assert not found.duplicated(["trained with", "tested with", "seed"]).any()
    assert (found["accuracy"] == 1).all() and found["tested with"].iloc[-1] == "optimal"
    assert len(found) == 5 * (5 * 2 + 6)  # own scheme and true surroundings; the control under all
