from dataclasses import replace
from itertools import chain, combinations, product

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.formula.api import ols

from ppp.errors import ParameterError
from studies import claims
from studies.posenet import analysis
from studies.posenet.analysis import BHV, MAE, MAE_PPP, METRICS, SNR_PPP, SPC

COLUMNS = ["metric", "setting", "scheme", "seed", "trial", "value"]


def rows_of(values, metric=SPC, settings=None, schemes=None):
    """Rows of an array of settings x schemes x seeds x trials."""
    values = np.asarray(values, float)
    settings = settings or [f"target {i}" for i in range(values.shape[0])]
    schemes = schemes or [f"scheme {i}" for i in range(values.shape[1])]
    return pd.DataFrame(
        [
            (metric, settings[i], schemes[j], seed, trial, value)
            for (i, j, seed, trial), value in np.ndenumerate(values)
        ],
        columns=COLUMNS,
    )


def together(**values):
    """Rows of several metrics by the names that the module has for them."""
    parts = [rows_of(each, getattr(analysis, name)) for name, each in values.items()]
    return pd.concat(parts, ignore_index=True)


def shuffled(table, state=0):
    return table.sample(frac=1, random_state=state, ignore_index=True)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def coarse(*shape, seed=0, missing=0):
    """Whole numbers with ties, some of them missing."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 4, shape).astype(float)
    values.flat[rng.choice(values.size, missing, replace=False)] = np.nan
    return values


# ----------------------------------------------------------------------------------- scores

KINDS = ("photographs", "plane", "noise")
PADDINGS, TARGETS, LAYERS = ("zeros", "reflect"), ("V", "H", "G"), ("relu", "layer1")


def made_trials():
    """Like `posenet_design.trials`; spc and mae tell where they come from."""
    keys = product(PADDINGS, range(3), range(2), TARGETS, KINDS)
    return pd.DataFrame(
        [
            ("trained", *key, 32, 0, code, code + 0.5)
            for code, key in enumerate(keys)
        ],
        columns=[
            "part", "padding", "seed", "trial", "target", "images", "n", "undefined", "spc", "mae",
        ],
    )  # fmt: skip


def made_patterns():
    """Like `posenet_design.patterns`."""
    keys = product(PADDINGS, range(3), range(2), LAYERS, ("mae", "snr"))
    return pd.DataFrame(
        [("trained", *key, 1000.0 + code, 0.25) for code, key in enumerate(keys)],
        columns=["part", "padding", "seed", "trial", "layer", "metric", "value", "floor"],
    )


SEEDS = {
    "V": 10, "S-zero": 10, "S-circular": 10, "F-zero": 2, "S-circular-2": 10,
    "S-reflect": 4, "S-replicate": 5, "S-randn": 6, "S-optimal": 3,
}  # fmt: skip


def made_accuracies(seeds=None, conditions=("published", "canvas-0.5", "shuffled")):
    """Like `bhv_design.accuracies`; the accuracy tells where it comes from."""
    rows = []
    for condition, (variant, count) in product(conditions, (seeds or SEEDS).items()):
        keys = product(range(count), ("leaked", "independent"), (50, 100), (0, 9, 16))
        rows += [(condition, variant, *key, 10_000.0 + len(rows) + i) for i, key in enumerate(keys)]
    columns = ["condition", "variant", "seed", "split", "epochs", "shift", "accuracy"]
    return pd.DataFrame(rows, columns=columns)


def test_scores_of_read_outs_are_those_on_the_asked_kind_of_images():
    trials = made_trials()
    for kind in KINDS:
        found = analysis.scores(shuffled(trials), images=kind)
        asked = trials[trials["images"] == kind]
        assert len(found) == 2 * len(asked) and not found.duplicated(COLUMNS[:-1]).any()
        value = found.set_index(COLUMNS[:-1])["value"]
        for row in asked.itertuples():
            key = (row.target, row.padding, row.seed, row.trial)
            assert value[(SPC, *key)] == row.spc
            assert value[(MAE, *key)] == row.mae
    usual = analysis.scores(trials)
    pd.testing.assert_frame_equal(usual, analysis.scores(trials, images="photographs"))


def test_scores_of_patterns_are_mae_and_snr_by_layer():
    patterns = made_patterns()
    found = analysis.scores(patterns=shuffled(patterns))
    assert len(found) == len(patterns)
    value = found.set_index(COLUMNS[:-1])["value"]
    names = {"mae": MAE_PPP, "snr": SNR_PPP}
    for row in patterns.itertuples():
        assert value[names[row.metric], row.layer, row.padding, row.seed, row.trial] == row.value


def test_scores_of_bhv_are_the_published_tests_of_five_variants_and_their_common_seeds():
    table = made_accuracies()
    found = analysis.scores(accuracies=shuffled(table))
    assert (found[["metric", "setting", "trial"]] == [BHV, "dissimilar", 0]).all(axis=None)
    sources = {
        "zeros": "S-zero", "reflect": "S-reflect", "replicate": "S-replicate",
        "circular": "S-circular", "randn": "S-randn",
    }  # fmt: skip
    expected = {(scheme, seed) for scheme in sources for seed in range(4)}  # S-reflect has four
    assert set(zip(found["scheme"], found["seed"])) == expected and len(found) == len(expected)
    accuracy = table.set_index(["condition", "split", "epochs", "shift", "variant", "seed"])
    for row in found.itertuples():
        key = ("published", "leaked", 50, 16, sources[row.scheme], row.seed)
        assert row.value == accuracy.loc[key, "accuracy"]


def test_scores_have_one_form_and_the_order_of_the_metrics():
    every = analysis.scores(made_trials(), made_patterns(), made_accuracies())
    assert every.columns.tolist() == COLUMNS and every.index.equals(pd.RangeIndex(len(every)))
    assert list(dict.fromkeys(every["metric"])) == list(METRICS)
    assert every["metric"].map(METRICS.index).is_monotonic_increasing
    assert METRICS == (SPC, MAE, BHV, MAE_PPP, SNR_PPP)
    # a metric's rows keep the order of their table, so that settings have the usual order
    assert every.loc[every["metric"] == MAE, "setting"].unique().tolist() == list(TARGETS)
    assert every.loc[every["metric"] == SNR_PPP, "setting"].unique().tolist() == list(LAYERS)
    alone = [
        analysis.scores(made_trials()),
        analysis.scores(accuracies=made_accuracies()),
        analysis.scores(patterns=made_patterns()),
    ]
    pd.testing.assert_frame_equal(every, pd.concat(alone, ignore_index=True))
    nothing = analysis.scores()
    assert nothing.empty and nothing.columns.tolist() == COLUMNS


# ----------------------------------------------------------------------------------- arrays


def test_arrays_keep_the_order_of_texts_and_sort_numbers():
    values = drawn(2, 3, 4, 5)
    rows = rows_of(values, settings=["V", "H"], schemes=["zeros", "circular", "reflect"])
    other = rows_of(values[:1, :2] + 1, MAE, ["G"], ["zeros", "reflect"])
    found = analysis.arrays(pd.concat([rows, other]))
    assert list(found) == [SPC, MAE]
    assert np.array_equal(found[SPC], values) and np.array_equal(found[MAE], values[:1, :2] + 1)

    mixed = shuffled(rows)
    orders = [list(dict.fromkeys(mixed[name])) for name in COLUMNS[1:3]]
    orders += [sorted(set(mixed[name])) for name in COLUMNS[3:5]]
    assert [orders[0], orders[1]] != [["V", "H"], ["zeros", "circular", "reflect"]]
    there = mixed.set_index(COLUMNS[1:5])["value"]
    array = analysis.arrays(mixed)[SPC]
    for place in np.ndindex(array.shape):
        assert array[place] == there[tuple(names[i] for names, i in zip(orders, place))]


def changed(kind):
    rows = together(SPC=drawn(1, 2, 2, 2), MAE=drawn(1, 2, 2, 2))
    last = rows.index[-1]  # of MAE
    return {
        "missing": rows.drop(last),
        "double": pd.concat([rows, rows.loc[[last]]]),
        "both": pd.concat([rows.drop(last), rows.loc[[last - 1]]]),  # as many as there should be
    }[kind]


@pytest.mark.parametrize(("kind", "number"), [("missing", 7), ("double", 9), ("both", 8)])
def test_a_missing_or_a_double_score_is_refused(kind, number):
    combinations_ = "1 x 2 x 2 x 2 combinations of setting, scheme, seed, trial"
    message = f"^{MAE}: {number} values for {combinations_}; expected each exactly once$"
    with pytest.raises(ParameterError, match=message):
        analysis.arrays(changed(kind))
    for function in (analysis.summary, analysis.differences, analysis.contradictions):
        with pytest.raises(ParameterError, match=MAE):
            function(changed(kind))
    with pytest.raises(ParameterError, match=f"^{MAE}, target 0: {number} values"):
        analysis.repeatability(changed(kind))


def test_nothing_is_not_balanced():
    with pytest.raises(ParameterError, match=r"^accuracy: 0 values"):
        analysis.balanced(pd.DataFrame({"a": [], "x": []}), ["a"], "x", "accuracy")


# ---------------------------------------------------------------------------- repeatability


def networks_with(spread, shape=(4, 3, 5), seed=0, offset=0.0):
    """Scores of networks that differ by about `spread` times the noise of a trial."""
    schemes, seeds, trials = shape
    own = spread * drawn(schemes, seeds, 1, seed=seed)
    each = offset * drawn(trials, seed=seed + 1)
    return own + each + drawn(*shape, seed=seed + 2)


@pytest.mark.parametrize(
    ("spread", "shift", "expected"),
    [
        (0, 0, (0.03763601353261658, -0.16092919726913082, 0.4914742359935536)),
        (2, 0, (0.7809076044061015, 0.519531917302008, 0.9430275448686795)),
        (0.5, 3, (0.06908375365753655, -0.019605520011058863, 0.35375932753860356)),
    ],
)
def test_repeatability_is_that_of_pingouin(spread, shift, expected):
    """Its ``intraclass_corr`` (0.7.0, without rounding) gives these of the same scores."""
    draw = np.random.default_rng(7)
    networks, trials = spread * draw.normal(size=(8, 1)), shift * draw.normal(size=(1, 4))
    grid = networks + trials + draw.normal(size=(8, 4))
    (row,) = analysis.repeatability(rows_of(grid.reshape(1, 4, 2, 4), MAE)).itertuples()
    assert (row.metric, row.networks, row.trials) == (MAE, 8, 4)
    assert (row.icc, row.low, row.high) == pytest.approx(expected, rel=0, abs=1e-10)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_trials_that_differ_by_a_constant_alone_have_a_repeatability():
    grid = np.arange(6.0)[:, None] + np.arange(4.0)
    row = next(analysis.repeatability(rows_of(grid.reshape(1, 3, 2, 4))).itertuples())
    assert 0 < row.low < row.icc < row.high < 1


def test_repeatability_of_the_example_of_shrout_and_fleiss():
    judges = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    found = analysis.repeatability(rows_of(np.reshape(judges, (1, 6, 1, 4))))
    assert round(found["icc"].item(), 2) == 0.29  # Shrout & Fleiss (1979), ICC(2,1) of table 2


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_scores_that_are_constant_or_not_finite_have_no_repeatability(odd):
    values = np.stack([drawn(3, 2, 4), np.full((3, 2, 4), 0.25), drawn(3, 2, 4, seed=1)])
    values[2, 1, 1, 3] = odd
    found = analysis.repeatability(rows_of(values)).set_index("setting")
    assert len(found) == 3 and (found["networks"] == 6).all() and (found["trials"] == 4).all()
    missing = found[["icc", "low", "high"]].isna()
    assert not missing.loc["target 0"].any()
    assert missing.loc[["target 1", "target 2"]].all(axis=None)


def test_too_few_networks_trials_or_scores_have_no_row():
    shapes = {(1, 3, 2, 1): 0, (1, 1, 1, 6): 0, (1, 2, 1, 2): 0, (1, 2, 1, 3): 1, (1, 3, 1, 2): 1}
    for shape, expected in shapes.items():
        found = analysis.repeatability(rows_of(drawn(*shape)))
        assert len(found) == expected
        assert found.columns.tolist() == [
            "metric", "setting", "networks", "trials", "icc", "low", "high",
        ]  # fmt: skip


# --------------------------------------------------------------------------- contradictions


def order(a, b):
    return int(a > b) - int(a < b)  # 0 if one is missing


def two_runs(first, second):
    """Contradictions of two schemes by enumeration; each is seeds x trials."""
    seeds, trials = first.shape
    runs = [
        (s, t, order(first[s, i], second[t, j]))
        for s, t, i, j in product(range(seeds), range(seeds), range(trials), range(trials))
    ]
    found = []
    for (s, t, one), (other_s, other_t, other) in product(runs, runs):
        if s != other_s and t != other_t:
            found.append(0.5 if one == 0 or other == 0 else float(one != other))
    return np.mean(found)


@pytest.mark.parametrize(
    ("seeds", "trials", "missing"), [(2, 1, 0), (2, 3, 3), (3, 2, 0), (3, 2, 6), (4, 1, 0)]
)
def test_contradiction_counts_pairs_of_runs(seeds, trials, missing):
    values = coarse(2, 3, seeds, trials, seed=seeds, missing=missing)
    found = analysis.contradiction(values)
    expected = [
        [two_runs(part[i], part[j]) for i, j in ((0, 1), (0, 2), (1, 2))] for part in values
    ]
    assert found == pytest.approx(np.array(expected), abs=1e-12)
    assert np.unique(found.round(9)).size > 2


def test_contradiction_in_extreme_cases():
    apart = drawn(3, 4, 3, 2) + 100 * np.arange(4)[:, None, None]
    assert (analysis.contradiction(apart) == 0).all()
    assert (analysis.contradiction(-apart) == 0).all()
    assert (analysis.contradiction(np.ones((2, 3, 3, 2))) == 0.5).all()
    assert (analysis.contradiction(np.full((2, 3, 3, 2), np.nan)) == 0.5).all()
    assert analysis.contradiction(np.array([[[[np.inf], [np.inf]], [[1.0], [2.0]]]])) == 0.5
    # of two seeds, one scheme's networks lie below and above the other's: never the same order
    assert analysis.contradiction(np.array([[[[1.0], [3.0]], [[2.0], [2.0]]]])) == 1


@pytest.mark.parametrize(("schemes", "seeds"), [(1, 3), (3, 1)])
def test_contradiction_needs_two_schemes_and_two_seeds(schemes, seeds):
    message = f"^{schemes} schemes and {seeds} seeds; two of each are needed"
    with pytest.raises(ParameterError, match=message):
        analysis.contradiction(np.zeros((2, schemes, seeds, 2)))
    with pytest.raises(ParameterError, match=message):
        analysis.contradictions(rows_of(drawn(2, schemes, seeds, 2)))


# ----------------------------------------------------------------------------- disagreement


def test_disagreement_counts_pairs_of_networks_in_the_same_trial():
    spc, mae = coarse(2, 3, 3, 2, seed=0), coarse(2, 3, 3, 2, seed=1)
    found = analysis.disagreement(together(SPC=spc, MAE=mae))
    assert found["setting"].tolist() == ["target 0", "target 1"]
    halves = 0
    for setting, row in enumerate(found.itertuples()):
        runs, schemes = [], []
        for i, j in combinations(range(3), 2):
            pairs = [
                (order(a[setting, i], a[setting, j]), order(b[setting, j], b[setting, i]))
                for a, b in [(spc.mean((2, 3)), mae.mean((2, 3)))]
            ]
            schemes += [0.5 if 0 in pair else float(pair[0] != pair[1]) for pair in pairs]
            for s, t, trial in product(range(3), range(3), range(2)):
                here, there = (setting, i, s, trial), (setting, j, t, trial)
                # the higher SPC and the lower MAE tell of more position information
                pair = (order(spc[here], spc[there]), order(mae[there], mae[here]))
                runs.append(0.5 if 0 in pair else float(pair[0] != pair[1]))
        halves += runs.count(0.5)
        assert row.runs == pytest.approx(np.mean(runs))
        assert row.schemes == pytest.approx(np.mean(schemes))
    assert halves and found["runs"].nunique() == 2


# ------------------------------------------------------------------------------- components


def terms_of(names):
    return list(chain.from_iterable(combinations(names, k) for k in range(1, len(names) + 1)))


def planted(shape, names, variances, seed=0):
    """Normal effects of every term, and their sum."""
    rng = np.random.default_rng(seed)
    total = np.zeros(shape)
    for term in terms_of(names):
        size = [n if name in term else 1 for n, name in zip(shape, names)]
        total = total + np.sqrt(variances[term]) * rng.normal(size=size)
    return total


def long(values, names):
    frame = pd.DataFrame({name: i.ravel() for name, i in zip(names, np.indices(values.shape))})
    return frame.assign(y=values.ravel())


@pytest.mark.filterwarnings("ignore:.*divide by zero.*:RuntimeWarning")
@pytest.mark.parametrize("shape", [(4, 3), (3, 4, 2)])
def test_components_solve_the_expected_mean_squares_of_statsmodels(shape):
    names = "abc"[: len(shape)]
    values = planted(shape, names, {term: 1.0 + len(term) for term in terms_of(names)})
    formula = "y ~ " + " * ".join(f"C({name}, Sum)" for name in names)
    table = sm.stats.anova_lm(ols(formula, long(values, names)).fit(), typ=1)
    terms = terms_of(names)
    keys = [":".join(f"C({name}, Sum)" for name in term) for term in terms]
    squares = (table["sum_sq"] / table["df"])[keys].to_numpy()
    # expected mean square of a term: each term that holds it, as often as it is repeated
    expected = [
        [
            np.prod([n for n, name in zip(shape, names) if name not in other])
            if set(term) <= set(other)
            else 0
            for other in terms
        ]
        for term in terms
    ]
    solved = np.linalg.solve(np.array(expected, float), squares)
    found = analysis.components(values, list(names))
    assert list(found) == terms
    assert list(found.values()) == pytest.approx(solved)
    assert min(solved) < 0 < max(solved)  # none is cut


def test_factors_with_one_level_have_no_component():
    values = drawn(3, 4)
    found = analysis.components(values[:, None, :, None], ["a", "x", "b", "y"])
    assert found == pytest.approx(analysis.components(values, ["a", "b"]))
    assert list(found) == [("a",), ("b",), ("a", "b")]
    assert analysis.components(np.ones((1, 1)), ["a", "b"]) == {}


# ------------------------------------------------------------------- components, by meaning

FIVE = ["scheme", "seed", "trial", "setting", "image"]
GROUPS = {  # initials: scheme, network, trial, target, image
    "scheme": "s",
    "scheme x setting": "sg",
    "setting": "g",
    "network": "n sn gn sgn",
    "trial": "t st nt gt snt sgt gnt sgnt",
    "image": "i si ni gi sni sgi gni sgni",
    "rest": "ti sti nti gti snti sgti gnti sgnti",
}
INITIALS = dict(zip(FIVE, "sntgi"))


def component_of():
    groups = {frozenset(term): name for name, terms in GROUPS.items() for term in terms.split()}
    assert len(groups) == sum(len(terms.split()) for terms in GROUPS.values()) == 31
    return groups


def grouped(values, factors):
    """Sum of the terms of each group, by the table above."""
    groups, found = component_of(), dict.fromkeys(GROUPS, 0.0)
    for term, variance in analysis.components(values, factors).items():
        found[groups[frozenset(INITIALS[name] for name in term)]] += variance
    return found


def share_of(variances):
    cut = {name: max(0.0, variance) for name, variance in variances.items()}
    return {name: variance / sum(cut.values()) for name, variance in cut.items()}


def test_every_term_of_the_design_belongs_to_one_component():
    values = drawn(3, 4, 2, 3, 2, seed=2)
    found = analysis.variance_components(values, FIVE)
    assert found["component"].tolist() == list(GROUPS) == list(analysis.COMPONENTS)
    expected = grouped(values, FIVE)
    assert found["variance"].tolist() == pytest.approx(list(expected.values()))
    total = sum(analysis.components(values, FIVE).values())
    assert found["variance"].sum() == pytest.approx(total)
    assert (found["variance"] < 0).any()
    assert found["share"].tolist() == pytest.approx(list(share_of(expected).values()))
    assert found["share"].sum() == pytest.approx(1)
    # the order of axes does not matter
    other = analysis.variance_components(values.transpose(4, 2, 0, 1, 3), [
        "image", "trial", "scheme", "seed", "setting",
    ])  # fmt: skip
    pd.testing.assert_frame_equal(other, found)


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_of_shares_leave_out_one_seed_at_a_time(seeds):
    variances = {term: 0.0 for term in terms_of("snt")}
    variances |= {("s",): 4.0, ("s", "n"): 1.0, ("t",): 2.0, ("s", "n", "t"): 1.0}
    values = planted((4, seeds, 6), "snt", variances, seed=seeds)
    factors = ["scheme", "seed", "trial"]
    found = analysis.variance_components(values, factors)
    assert found["component"].tolist() == ["scheme", "network", "trial"]
    whole = share_of(grouped(values, factors))
    left_out = [share_of(grouped(np.delete(values, i, 1), factors)) for i in range(seeds)]
    inside = 0
    for row in found.itertuples():
        parts = np.array([part[row.component] for part in left_out])
        error = np.sqrt((seeds - 1) / seeds * ((parts - parts.mean()) ** 2).sum())
        half = stats.t.ppf(0.975, seeds - 1) * error
        assert row.share == pytest.approx(whole[row.component])
        assert row.low == pytest.approx(max(0.0, row.share - half))
        assert row.high == pytest.approx(min(1.0, row.share + half))
        assert 0 <= row.low <= row.share <= row.high <= 1 and half > 1e-3
        inside += (row.low > 0) + (row.high < 1)
    assert inside  # not all ends are cut


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_give_shares_and_no_interval(seeds):
    values = drawn(3, seeds, 4)
    found = analysis.variance_components(values, ["scheme", "seed", "trial"])
    expected = ["scheme", "network", "trial"] if seeds > 1 else ["scheme", "trial"]
    assert found["component"].tolist() == expected
    assert found["share"].sum() == pytest.approx(1)
    assert found[["low", "high"]].isna().all(axis=None)


def test_windows_without_a_rank_correlation_in_some_trial_are_left_out():
    shape = (2, 3, 2, 2, 4)
    factors = ["padding", "seed", "trial", "target", "window"]
    table = pd.DataFrame(list(np.ndindex(shape)), columns=factors)
    table = table.assign(picture="x", spc=drawn(96), mae=drawn(96, seed=1))
    for score in ("spc", "mae"):
        values, names = analysis.of_windows(table, score)
        assert np.array_equal(values, table[score].to_numpy().reshape(shape))
        assert names == ["scheme", "seed", "trial", "setting", "image"]
    spc = table["spc"].to_numpy().reshape(shape).copy()
    place = (1, 2, 0, 1, 2)
    table.loc[np.ravel_multi_index(place, shape), "spc"] = np.nan
    values, _ = analysis.of_windows(table, "spc")
    assert np.array_equal(values, spc[..., [0, 1, 3]])
    with pytest.raises(ParameterError, match=r"^spc: 95 values"):
        analysis.of_windows(table[1:], "spc")


@pytest.mark.parametrize("trials", [False, True])
def test_the_share_between_schemes(trials):
    by_hand = {  # schemes x seeds, or schemes x trials: share
        # mean squares: scheme 16, seed 4, rest 0; so variances 8, 2 and 0
        ((0, 2), (4, 6)): 0.8,
        # scheme 16, seed 0, rest 4: variances 6, -2, which counts as 0, and 4
        ((0, 2), (6, 4)): 0.6,
        # scheme 0, seed 0, rest 4: two variances below 0
        ((0, 2), (2, 0)): 0.0,
        ((0, 0), (5, 5)): 1.0,
    }
    values = np.array(list(by_hand), float)[..., None]
    values = values.swapaxes(2, 3) if trials else values
    found = analysis.between_schemes(values)
    assert found == pytest.approx(list(by_hand.values()))
    assert analysis.between_schemes(3 - 2 * values) == pytest.approx(found)
    assert np.isnan(analysis.between_schemes(np.ones((2, 3, 2, 2)))).all()


# -------------------------------------------------------------------------------- agreement


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        # sums of ranks 4, 6, 8, 12: W = 12 * 35 / (3^2 * (4^3 - 4))
        ([[1, 2, 3, 4], [20, 10, 30, 40], [-4, -2, -3, -1]], 7 / 9),
        # ranks 1.5, 1.5, 3 and 1, 2, 3; S = 6.5: W = 12 * 6.5 / (2^2 * 24 - 2 * (2^3 - 2))
        ([[1, 1, 2], [1, 2, 3]], 13 / 14),
        ([[1, 2, 3, 4], [4, 3, 2, 1]], 0),
        ([[1, 2, 3], [10, 20, 30], [-3, -2, 0]], 1),
        ([[1, 1, 2], [7, 7, 9]], 1),
        # one ranking says nothing: ranks 2, 2, 2 and 1, 2, 3; W = 12 * 2 / (96 - 2 * 24)
        ([[5, 5, 5], [1, 2, 3]], 0.5),
    ],
)
def test_concordance_is_kendalls_corrected_for_ties(means, expected):
    assert analysis.concordance(np.array(means, float)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    "means",
    [
        [[1, 2, 3]],
        [[1, 2], [1, 2]],
        [[1, 1, 1], [2, 2, 2]],
        [[1, 2, np.nan], [1, 2, 3]],
        [[1, 2, np.inf], [1, 2, 3]],
    ],
)
def test_concordance_needs_several_rankings_of_three_things(means):
    assert np.isnan(analysis.concordance(np.array(means, float)))


# ---------------------------------------------------------------------------------- summary


def jackknifed(statistic, values):
    """Value and interval of a statistic, leaving out one seed at a time."""
    seeds = values.shape[2]
    parts = np.array([statistic(np.delete(values, i, 2)) for i in range(seeds)])
    error = np.sqrt((seeds - 1) / seeds * ((parts - parts.mean()) ** 2).sum())
    half = stats.t.ppf(0.975, seeds - 1) * error
    value = statistic(values)
    return value, value - half, value + half


ENDS = ["", "_low", "_high"]


def test_the_reliability_table():
    spc = drawn(3, 4, 5, 4) + 1.5 * drawn(4, 1, 1, seed=1) + drawn(4, 5, 1, seed=2)
    snr = drawn(2, 3, 3, 2, seed=3) + 9 * np.arange(3)[:, None, None]
    rows = together(SPC=spc, SNR_PPP=snr)
    table = analysis.summary(rows)
    assert table["metric"].tolist() == [SPC, SNR_PPP]
    assert table.columns.tolist() == [
        "metric", "settings", "schemes", "seeds", "trials",
        "contradicted", "contradicted_low", "contradicted_high",
        "between", "between_low", "between_high", "agreement",
        "icc", "icc_least", "icc_most",
    ]  # fmt: skip
    cut = 0
    for row, values in zip(table.to_dict("records"), (spc, snr)):
        shape = [row[name] for name in ("settings", "schemes", "seeds", "trials")]
        assert shape == list(values.shape)
        icc = [analysis._icc(part.reshape(-1, values.shape[3]))[0] for part in values]
        expected = [np.mean(icc), min(icc), max(icc)]
        assert [row[f"icc{end}"] for end in ("", "_least", "_most")] == pytest.approx(expected)
        for name, statistic in (
            ("contradicted", lambda x: analysis.contradiction(x).mean()),
            ("between", lambda x: analysis.between_schemes(x).mean()),
        ):
            value, *ends = jackknifed(statistic, values)
            expected = [value, *np.clip(ends, 0, 1)]
            assert [row[name + end] for end in ENDS] == pytest.approx(expected)
            cut += ends[1] > 1 or ends[0] < 0
        expected = analysis.concordance(values.mean((2, 3)))
        assert row["agreement"] == pytest.approx(expected)
    assert cut and table["contradicted"].tolist()[1] == 0 < table["contradicted"].tolist()[0]


def missing_of(*shape):
    (row,) = analysis.summary(rows_of(drawn(*shape))).to_dict("records")
    return {name for name, value in row.items() if name != "metric" and not np.isfinite(value)}


def test_what_cannot_be_computed_is_missing_in_the_table():
    icc = {"icc", "icc_least", "icc_most"}
    values = {"contradicted", "between"}
    ends = {f"{name}_{end}" for name in values for end in ("low", "high")}
    assert missing_of(2, 3, 3, 2) == set()
    assert missing_of(2, 3, 3, 1) == icc
    assert missing_of(2, 3, 2, 2) == ends
    assert missing_of(2, 3, 1, 2) == values | ends
    assert missing_of(2, 1, 3, 2) == values | ends | {"agreement"}
    assert missing_of(1, 3, 3, 2) == missing_of(2, 2, 3, 2) == {"agreement"}


def test_columns_of_the_table_as_texts():
    nan = float("nan")
    table = pd.DataFrame(
        {
            "metric": [SPC, BHV, MAE],
            "icc": [0.126, nan, -0.5],
            "between": [0.5, 0.25, nan],
            "between_low": [0.004, nan, nan],
            "between_high": [0.996, nan, nan],
        }
    )
    shown = analysis.against(table, {"between": "share", "icc": "repeatability (ICC)"})
    assert shown.columns.tolist() == ["metric", "share", "repeatability (ICC)"]
    assert shown["metric"].tolist() == [SPC, BHV, MAE]
    assert shown["share"].tolist() == ["0.50\u00a0[0.00,\u00a01.00]", "0.25", "–"]
    assert shown["repeatability (ICC)"].tolist() == ["0.13", "–", "-0.50"]
    assert list(table) == ["metric", "icc", "between", "between_low", "between_high"]


# ------------------------------------------------------------------------------ differences


def two_schemes(first, second):
    return np.array([[np.reshape(first, (-1, 1)), np.reshape(second, (-1, 1))]], float)


T2 = 4.302652729911275  # 97.5 % of Student's t with two degrees of freedom, from a table
# The network of one seed lies above all networks of the other scheme, the others below. Runs
# contradict each other if one of them has it: 2/3. Without it: 0; without another: 1.
ODD = [two_schemes([3 if i == odd else 0 for i in range(3)], [1, 2, 2]) for odd in range(3)]
SURE = two_schemes([0, 0, 0], [1, 2, 3])  # never
EVEN = two_schemes([1, 1, 1], [1, 1, 1])  # half, always


def test_a_difference_of_contradictions_by_hand():
    assert stats.t.ppf(0.975, 2) == pytest.approx(T2)
    rows = together(MAE_PPP=SURE, SPC=ODD[2], BHV=ODD[0], SNR_PPP=ODD[0], MAE=EVEN)
    found = analysis.differences(rows)
    error = 2 / 3  # of parts 1, 1 and 0
    both = np.sqrt(4 / 3)  # of parts 1, 0 and -1: each metric has another odd seed
    expected = {
        (MAE_PPP, SPC): (-2 / 3, error),
        (MAE_PPP, MAE): (-1 / 2, 0),
        (MAE_PPP, BHV): (-2 / 3, error),
        (SNR_PPP, SPC): (0, both),
        (SNR_PPP, MAE): (1 / 6, error),
        (SNR_PPP, BHV): (0, 0),  # the same odd seed
    }
    assert list(zip(found["metric"], found["other"])) == list(expected)
    for row, (value, spread) in zip(found.itertuples(), expected.values()):
        assert row.difference == pytest.approx(value, abs=1e-12)
        assert row.low == pytest.approx(value - T2 * spread, abs=1e-9)
        assert row.high == pytest.approx(value + T2 * spread, abs=1e-9)


def test_differences_need_ppp_another_metric_and_the_same_number_of_seeds():
    for names in ({"SPC": SURE, "MAE": SURE}, {"MAE_PPP": SURE, "SNR_PPP": SURE}):
        found = analysis.differences(together(**names))
        assert found.empty
        assert found.columns.tolist() == ["metric", "other", "difference", "low", "high"]
    few = analysis.differences(together(SPC=ODD[0][:, :, :2], MAE_PPP=SURE[:, :, :2]))
    assert few["difference"].item() == -1 and few[["low", "high"]].isna().all(axis=None)
    with pytest.raises(ParameterError, match=rf"different seeds: .*0, 1\), '{SPC}': \(0, 1, 2"):
        analysis.differences(together(SPC=SURE, MAE_PPP=SURE[:, :, :2]))


# ------------------------------------------------------------------------------ verdicts: C1

SHAPE = (3, 2, 12)
GRIDS = {
    "below": networks_with(0, SHAPE),
    "above": networks_with(20, SHAPE),
    "across": networks_with(2.5, SHAPE),
}


def posenet(spc, mae):
    """Rows of both scores by the place of each target's interval."""
    kept = {SPC: spc, MAE: mae}
    parts = [
        rows_of(np.stack([GRIDS[place] for place in places]), metric)
        for metric, places in kept.items()
        if places
    ]
    return pd.concat(parts, ignore_index=True)


def places(below, above, of=5):
    return ["below"] * below + ["across"] * (of - below - above) + ["above"] * above


@pytest.mark.parametrize(
    ("spc", "mae", "verdict"),
    [  # targets below and above
        ((3, 0), (3, 0), claims.REPRODUCED),
        ((5, 0), (3, 2), claims.REPRODUCED),
        ((2, 0), (5, 0), claims.INCONCLUSIVE),
        ((5, 0), (2, 0), claims.INCONCLUSIVE),
        ((0, 0), (0, 0), claims.INCONCLUSIVE),
        ((3, 2), (2, 3), claims.INCONCLUSIVE),
        ((0, 2), (0, 5), claims.INCONCLUSIVE),
        ((0, 5), (0, 2), claims.INCONCLUSIVE),
        ((0, 3), (0, 3), claims.NOT_REPRODUCED),
        ((2, 3), (0, 4), claims.NOT_REPRODUCED),
    ],
)
def test_the_verdict_on_variance_counts_targets_of_both_scores(spc, mae, verdict):
    rows = posenet(places(*spc), places(*mae))
    found = analysis.judge_variance(rows)
    assert found.claim == claims.claim("C1") and found.verdict == verdict
    assert found.because == (
        f"the interval lies below 0.75 for {spc[0]} (SPC) and {mae[0]} (MAE) targets, "
        f"above it for {spc[1]} and {mae[1]}"
    )
    assert found.table["place"].tolist() == places(*spc) + places(*mae)
    beside = analysis.repeatability(rows)
    pd.testing.assert_frame_equal(found.table.drop(columns="place"), beside)


def test_other_metrics_do_not_matter_to_the_verdict_on_variance():
    rows = posenet(places(3, 0, 3), places(3, 0, 3))
    more = rows_of(np.stack([GRIDS["above"]] * 5), MAE_PPP)
    found = analysis.judge_variance(pd.concat([rows, more], ignore_index=True))
    assert found.verdict == claims.REPRODUCED and set(found.table["metric"]) == {SPC, MAE}


def test_an_end_on_the_threshold_is_neither_below_nor_above(monkeypatch):
    # the same scores for all targets: all intervals have the same two ends
    rows = posenet(places(0, 0, 3), places(0, 0, 3))
    table = analysis.repeatability(rows)
    low, high = table["low"].unique().item(), table["high"].unique().item()
    up, down = np.nextafter(high, np.inf), np.nextafter(low, -np.inf)
    for threshold, verdict, place in (
        (high, claims.INCONCLUSIVE, "across"),
        (up, claims.REPRODUCED, "below"),
        (low, claims.INCONCLUSIVE, "across"),
        (down, claims.NOT_REPRODUCED, "above"),
    ):
        entry = replace(claims.claim("C1"), numbers={"threshold": float(threshold)})
        monkeypatch.setattr(analysis, "claim", {"C1": entry}.__getitem__)
        found = analysis.judge_variance(rows)
        assert found.verdict == verdict and set(found.table["place"]) == {place}


def test_variance_is_not_judged_without_both_scores_of_three_targets_and_two_trials():
    full = posenet(places(3, 0, 3), places(3, 0, 3))
    assert analysis.judge_variance(full).verdict == claims.REPRODUCED
    for rows in (
        posenet(places(5, 0), []),
        posenet([], places(5, 0)),
        posenet(places(2, 0, 2), places(2, 0, 2)),
        posenet(places(3, 0, 3), places(1, 0, 1)),
        posenet(places(3, 0, 3), places(2, 0, 2)),
        full[full["trial"] == 0],
        full[(full["seed"] == 0) & (full["scheme"] == "scheme 0")],
        full[:0],
    ):
        found = analysis.judge_variance(rows)
        assert found.verdict == claims.NOT_EVALUATED and found.claim.id == "C1"
        assert found.because == "both scores of three targets are needed"


# ------------------------------------------------------------------------------ verdicts: C6

USUAL = {"SPC": EVEN, "MAE": EVEN, "BHV": EVEN, "MAE_PPP": SURE, "SNR_PPP": SURE}


@pytest.mark.parametrize(
    ("changes", "verdict", "below", "above"),
    [
        ({}, claims.REPRODUCED, 6, 0),
        # equal: an interval from 0 to 0 is neither below nor above
        ({"BHV": SURE}, claims.INCONCLUSIVE, 4, 0),
        ({"SNR_PPP": EVEN}, claims.INCONCLUSIVE, 3, 0),
        ({"SPC": SURE, "MAE": SURE, "BHV": SURE}, claims.INCONCLUSIVE, 0, 0),
        # below 0, but not with the whole interval
        ({"SPC": ODD[0]}, claims.INCONCLUSIVE, 4, 0),
        ({"SPC": ODD[0], "MAE": ODD[1], "BHV": ODD[2]}, claims.INCONCLUSIVE, 0, 0),
        # above 0, but not with the whole interval
        ({"MAE_PPP": ODD[0]}, claims.INCONCLUSIVE, 3, 0),
        # one comparison suffices against the claim
        ({"MAE_PPP": EVEN, "BHV": SURE}, claims.NOT_REPRODUCED, 2, 1),
        ({"SPC": SURE, "MAE": SURE, "BHV": SURE, "MAE_PPP": EVEN, "SNR_PPP": EVEN},
         claims.NOT_REPRODUCED, 0, 6),
    ],
)  # fmt: skip
def test_the_verdict_on_reliability_needs_all_six_comparisons(changes, verdict, below, above):
    rows = together(**(USUAL | changes))
    found = analysis.judge_reliability(rows)
    assert found.claim == claims.claim("C6") and found.verdict == verdict
    assert found.because == (
        "PPP contradicts itself less often, with the whole interval, in "
        f"{below} of 6 comparisons, and more often in {above}"
    )
    assert len(found.table) == 6
    pd.testing.assert_frame_equal(found.table, analysis.differences(rows))


def test_reliability_is_not_judged_without_all_metrics_and_three_seeds():
    rows = together(**USUAL)
    cases = [rows[rows["metric"] != metric] for metric in METRICS]
    cases += [rows[rows["seed"] < 2], rows[(rows["metric"] != BHV) | (rows["seed"] < 2)], rows[:0]]
    for case in cases:
        found = analysis.judge_reliability(case)
        assert found.verdict == claims.NOT_EVALUATED and found.claim.id == "C6"
        assert found.because == "all five metrics and 3 seeds are needed"
        assert found.table.empty
        assert found.table.columns.equals(analysis.differences(rows).columns)


# ------------------------------------------------------------------------------ known faults


def test_all_metrics_name_the_same_pairs_of_schemes():
    schemes = ["zeros", "reflect", "circular"]
    order_of_table = ["S-zero", "S-circular", "S-reflect"]
    accuracies = made_accuracies(dict.fromkeys(order_of_table, 2), ["published"])
    bhv = analysis.scores(accuracies=accuracies)
    rows = pd.concat([rows_of(drawn(1, 3, 2, 2), schemes=schemes), bhv], ignore_index=True)
    found = analysis.contradictions(rows)
    pairs = found.groupby("metric")[["first", "second"]].apply(lambda x: set(map(tuple, x.values)))
    assert pairs[BHV] == pairs[SPC]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_score_that_every_trial_repeats_lies_above_the_threshold():
    exact = np.repeat(np.arange(10.0).reshape(1, 5, 2, 1), 4, 3)
    row = next(analysis.repeatability(rows_of(exact)).itertuples())
    assert (row.icc, row.low, row.high) == (1, 1, 1)


@pytest.mark.parametrize("axis", range(4))
def test_disagreement_needs_the_same_trials(axis):
    spc = drawn(3, 3, 3, 3)
    mae = np.delete(-spc, [0, 1] if axis != 1 else [0], axis)
    with pytest.raises(ParameterError, match=f"^{SPC} and {MAE} have "):
        analysis.disagreement(together(SPC=spc, MAE=mae))


def test_results_belong_to_their_settings_if_metrics_have_them_in_other_orders():
    spc = np.stack([SURE[0], ODD[0][0], EVEN[0]])
    mae = rows_of(np.stack([SURE[0], -SURE[0], EVEN[0]]), MAE, ["G", "V", "H"])
    rows = pd.concat([rows_of(spc, settings=["H", "V", "G"]), mae], ignore_index=True)
    found = analysis.contradictions(rows).set_index(["metric", "setting"])["probability"]
    expected = {"H": 0, "V": 2 / 3, "G": 0.5}
    assert found[SPC].to_dict() == pytest.approx(expected)
    assert found[MAE].to_dict() == {"G": 0, "V": 0, "H": 0.5}

    spc = np.stack([SURE[0], SURE[0], -SURE[0]])
    mae = rows_of(np.stack([SURE[0], -SURE[0], SURE[0]]), MAE, ["G", "V", "H"])
    for parts in ([rows_of(spc, settings=["H", "V", "G"]), mae],
                  [mae, rows_of(spc, settings=["H", "V", "G"])]):  # fmt: skip
        shares = analysis.disagreement(pd.concat(parts, ignore_index=True))
        shares = shares.set_index("setting")
        assert shares["runs"].to_dict() == {"H": 1, "V": 0, "G": 0}
        assert shares["schemes"].to_dict() == {"H": 1, "V": 0, "G": 0}


def test_metrics_of_other_seeds_are_not_compared():
    rows = together(**USUAL)
    rows.loc[rows["metric"] == BHV, "seed"] += 1
    for function in (analysis.differences, analysis.judge_reliability):
        with pytest.raises(ParameterError, match=rf"different seeds: .*'{BHV}': \(1, 2, 3\)"):
            function(rows)


def test_differences_leave_out_the_same_seed_whatever_the_order_of_rows():
    ppp, spc = rows_of(ODD[0], MAE_PPP), rows_of(ODD[0])
    found = [
        analysis.differences(pd.concat([ppp, rows], ignore_index=True)) for rows in (spc, spc[::-1])
    ]
    pd.testing.assert_frame_equal(*found)


def test_constant_scores_have_no_shares():
    found = analysis.variance_components(np.ones((3, 3, 3)), ["scheme", "seed", "trial"])
    assert found["share"].isna().all() and (found["variance"] == 0).all()


def test_components_of_a_design_without_seeds_have_no_interval():
    found = analysis.variance_components(drawn(3, 4), ["scheme", "trial"])
    assert found["share"].sum() == pytest.approx(1) and found["low"].isna().all()
