"""The crossed design: known components come back, and the interval covers them."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from checks import refused
from statsmodels.stats.anova import anova_lm

from ppp.errors import ParameterError
from studies.dynamics import crossed
from studies.dynamics.crossed import MATCH, OTHER, REST, SEED, TESTING, TRAINING
from studies.networks import reach_of
from studies.networks.names import PADDINGS
from studies.stats import leave_one_out

REACH = reach_of("resnet")
LAYERS = {name: REACH[name].influence.mean() for name in ("relu", "layer4")}
A = len(PADDINGS)
CENTRED = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])


def made(training=0.0, testing=0.0, match=0.0, seed=0.0, noise=0.0, *, seeds=5, draw=0):
    """Cells of a crossed design in which each term is as large as it is said to be."""
    draw, rows = np.random.default_rng(draw), []
    for (i, one), (j, other), s in product(enumerate(PADDINGS), enumerate(PADDINGS), range(seeds)):
        value = training * CENTRED[i] + testing * CENTRED[::-1][j] + match * (i == j)
        value += seed * (s - (seeds - 1) / 2) + noise * draw.normal()
        rows.append((one, other, s, value))
    return pd.DataFrame(rows, columns=["trained with", "tested with", "seed", "value"])


def trajectories(cells):
    """The same as trajectories, with the layers' shares of influenced cells in them."""
    heads = {"family": "resnet", "batch_norm": "re-estimated", "metric": "mae"}
    names = {"trained with": "padding", "tested with": "test_padding"}
    parts = []
    for (layer, touched), step, shift in product(LAYERS.items(), (0, 8), (-0.5, 0.5)):
        if (shift < 0) == (layer == "relu"):  # layers differ; their mean does not move
            value = touched * 2 ** (cells["value"] + shift) * (1 if step else 3)
            more = heads | {"layer": layer, "step": step, "value": value}
            parts.append(cells.rename(columns=names).assign(**more))
    return pd.concat(parts, ignore_index=True)


def component(table):
    return crossed.components(table).set_index("term")["component"]


def test_known_effects_without_noise_give_their_mean_squares():
    found = component(made(training=0.5, testing=2.0, match=1.5, seed=0.3))
    assert found[TRAINING] == pytest.approx(0.25 * 2)
    assert found[TESTING] == pytest.approx(4 * 2)
    assert found[MATCH] == pytest.approx(1.5**2 * (A - 1) / A**2)
    assert found[SEED] == pytest.approx(0.09 * 2)
    assert found[OTHER] == pytest.approx(0, abs=1e-12) == found[REST]


def test_an_interaction_beside_the_match_is_neither_trainings_nor_testings():
    table = made()
    place = {name: i for i, name in enumerate(PADDINGS)}
    i, j = (table[name].map(place) for name in ("trained with", "tested with"))
    shifted = (j - i) % A
    table["value"] = 1.0 * (shifted == 1) - (shifted == 2)  # no mean in any row or column
    found = component(table)
    assert found[OTHER] == pytest.approx(2 / A)
    assert found.drop(OTHER).to_numpy() == pytest.approx(0, abs=1e-12)


@pytest.mark.filterwarnings("ignore:The design matrix is rank-deficient")  # the match is in both
def test_sums_of_squares_are_those_of_an_analysis_of_variance():
    table = made(0.3, 0.7, 0.5, 0.2, 1.0, seeds=4, draw=3)
    table.columns = ["train", "test", "seed", "value"]
    table["match"] = (table["train"] == table["test"]).astype(str)
    model = smf.ols(
        "value ~ C(train) + C(test) + C(match) + C(train):C(test) + C(seed)", table
    ).fit()
    anova = anova_lm(model, typ=1)
    noise = anova.loc["Residual", "mean_sq"]
    found = component(table.set_axis([*made().columns, "match"], axis=1))
    assert found[REST] == pytest.approx(noise)
    names = {TRAINING: "C(train)", TESTING: "C(test)", MATCH: "C(match)", SEED: "C(seed)"}
    degrees = crossed.components(made()).set_index("term")["df"]
    assert degrees.sum() == A * A * 5 - 1
    for term, row in names.items():
        expected = (anova.loc[row, "sum_sq"] - anova.loc[row, "df"] * noise) / len(table)
        assert found[term] == pytest.approx(expected), term


def test_noise_alone_gives_components_around_0():
    found = pd.DataFrame([component(made(noise=1.0, draw=draw)) for draw in range(200)])
    errors = found.std() / np.sqrt(len(found))
    assert (abs(found.drop(columns=REST).mean()) < 4 * errors.drop(REST)).all()
    assert abs(found[REST].mean() - 1) < 4 * errors[REST]
    assert (found[TRAINING] < 0).mean() > 0.3  # they are kept where they are negative


def test_the_share_of_training_is_the_known_one():
    cells = made(training=0.5, testing=1.0, match=1.0, noise=0.05)
    found = crossed.training_share(trajectories(cells))
    truth = (0.5 + 0.16) / (0.5 + 0.16 + 2)
    assert found.low < truth < found.high and found.high - found.low < 0.1
    parts = [crossed._share(cells[cells["seed"] != seed]) for seed in range(5)]
    assert found.value == pytest.approx(crossed._share(cells))
    expected = leave_one_out(found.value, parts)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    ("effects", "share"), [({"training": 1}, 1), ({"match": 1}, 1), ({"testing": 1}, 0)]
)
def test_one_effect_alone_has_the_whole_share(effects, share):
    assert crossed.training_share(trajectories(made(**effects))).value == pytest.approx(share)


def test_strength_is_per_influenced_cell_and_a_mean_over_layers_of_the_last_step():
    cells = made(training=0.5, testing=1.0)
    found = crossed.strengths(trajectories(cells))
    both = found.merge(cells, on=["trained with", "tested with", "seed"])
    assert len(both) == len(found) == len(cells)
    assert both["value_x"].to_numpy() == pytest.approx(both["value_y"].to_numpy(), abs=1e-4)


def test_controls_have_no_part_in_the_share():
    table = trajectories(made(training=0.5, testing=1.0, noise=0.1))
    controls = [table.query("padding == 'zeros'").assign(padding=p) for p in ("optimal", "mixed")]
    more = pd.concat([table, *(one.assign(value=9.0) for one in controls)])
    assert crossed.training_share(more) == crossed.training_share(table)


def test_three_seeds_have_an_interval_and_gaps_are_refused():
    found = crossed.training_share(trajectories(made(1, 1, noise=0.1, seeds=3)))
    assert np.isfinite(found.low)
    cells = made(1, 1, noise=0.1)
    for rows, words in (
        (cells[1:], "5 schemes, 5 seeds, 1 values missing"),
        (cells[cells["seed"] == 0], "5 schemes, 1 seeds, 0 values missing"),
        (cells[cells["trained with"] == "zeros"], "1 schemes, 5 seeds"),
    ):
        assert words in refused(crossed.components, rows, error=ParameterError)


@pytest.mark.parametrize("metric", ["mae", "snr"])
def test_networks_are_compared_to_the_mixed_control_under_their_own_scheme(metric):
    own = trajectories(made(seed=0.5)).assign(metric=metric)
    control = own[own["padding"] == "zeros"].assign(padding="mixed")
    control["value"] /= 2 ** (1 + 0.1 * control["seed"])
    found = crossed.over_control(pd.concat([own, control]), metric)
    seeds = 1 + 0.1 * np.arange(5)
    half = 2.7764 * seeds.std(ddof=1) / np.sqrt(5)  # Student's t, 4 degrees of freedom
    expected = [1.2, 1.2 - half, 1.2 + half]
    assert [*vars(found).values()] == pytest.approx(expected, rel=1e-4)
