from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from studies import claims
from studies.bhv import analysis
from studies.bhv.analysis import PAIRS, PUBLISHED
from studies.bhv.design import CONDITIONS, MAIN

VARIANTS = (*MAIN, "S-circular-2")
FACTORIAL = ("published", "canvas-0.5", "shuffled", "canvas-0.5-shuffled")
USUAL = {"size-24": 8}
BASE = {"V": 0.0, "S-zero": 60.0, "S-circular": 80.0, "F-zero": 70.0, "S-circular-2": 85.0}
MARGIN = 10
SPREAD = 0.125  # between seeds, %; its sums are exact


def made(dissimilar, similar=lambda *_: 100.0, *, seeds=5, conditions=CONDITIONS, variants=None):
    """A table whose accuracies are functions of (condition, variant, seed, split, epochs, shift).

    It has the columns of `bhv_design.accuracies`, and the rows of the shipped design, but for the
    number of seeds.
    """
    rows = []
    for name in conditions:
        condition = CONDITIONS[name]
        shifts = (0, USUAL[name]) if name in USUAL else (0, *range(9, 17))
        for variant in variants or VARIANTS:
            if variant not in condition.trials:
                continue
            kept = [(split, 50) for split in condition.splits]
            kept += [(split, 100) for split in condition.longer if variant in MAIN]
            for seed, (split, epochs), shift in product(range(seeds), kept, shifts):
                key = (name, variant, seed, split, epochs, shift)
                accuracy = (dissimilar if shift else similar)(*key)
                rows.append((*key, accuracy, condition.shuffled, str(condition.data.canvas)))
    key = ["condition", "variant", "seed", "split", "epochs", "shift"]
    return pd.DataFrame(rows, columns=[*key, "accuracy", "shuffled", "canvas"])


def code(condition, variant, seed, split, epochs, shift):
    """A number that tells where it comes from."""
    names = list(CONDITIONS), list(VARIANTS), ["leaked", "independent"], [50, 100]
    places = [known.index(name) for known, name in zip(names, (condition, variant, split, epochs))]
    return float(np.ravel_multi_index((*places, seed, shift), (12, 5, 2, 2, 5, 32)))


def innocent(condition, variant, seed, split, epochs, shift):
    """What no factor changes."""
    return BASE[variant] + SPREAD * seed


def innocent_similar(condition, variant, seed, split, epochs, shift):
    return 100.0 if variant == "V" else BASE[variant] + 2


def with_changes(changes):
    """The innocent accuracy but where `changes` names the condition or the shift."""

    def dissimilar(condition, variant, seed, split, epochs, shift):
        other = changes.get(condition, changes.get(shift, {}))
        here = other.get(variant, BASE[variant])
        return here + SPREAD * seed

    return dissimilar


def levels_of(values):
    """`confounders.levels`' table of {(factor, level): {variant: (dissimilar, loss)}}."""
    rows = [
        (*key, variant, seed, dissimilar, loss)
        for key, here in values.items()
        for variant, pair in here.items()
        for seed, (dissimilar, loss) in enumerate(zip(*pair))
    ]
    columns = ["factor", "level", "variant", "seed", "dissimilar", "loss"]
    return pd.DataFrame(rows, columns=columns)


def holm(p):
    """Holm's correction, as it is written in a textbook."""
    order, corrected, largest = np.argsort(p), np.empty(len(p)), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        corrected[index] = largest
    return corrected


def shuffled(table):
    return table.sample(frac=1, random_state=0, ignore_index=True)


# --------------------------------------------------------------------------------- outcomes


@pytest.fixture(scope="module")
def coded():
    return made(code, lambda *key: code(*key) + 0.25)


def test_outcomes_have_each_networks_own_similar_accuracy(coded):
    found = analysis.outcomes(coded)
    assert len(found) == (coded["shift"] > 0).sum() and (found["shift"] > 0).all()
    key = ["condition", "variant", "seed", "split", "epochs", "shift"]
    assert not found.duplicated(key).any()
    for row in found.sample(200, random_state=0).itertuples():
        head = (row.condition, row.variant, row.seed, row.split, row.epochs)
        assert row.dissimilar == code(*head, row.shift)
        assert row.similar == code(*head, 0) + 0.25
    assert np.array_equal(found["loss"], found["similar"] - found["dissimilar"])


# ----------------------------------------------------------------------------------- levels

EXPECTED = {  # (factor, level): condition, split, epochs, shift
    (PUBLISHED, PUBLISHED): ("published", "leaked", 50, 16),
    ("canvas", "0.25"): ("canvas-0.25", "leaked", 50, 16),
    ("canvas", "0.5"): ("canvas-0.5", "leaked", 50, 16),
    ("canvas", "1"): ("canvas-1", "leaked", 50, 16),
    ("canvas", "noise"): ("canvas-noise", "leaked", 50, 16),
    ("canvas", "photograph"): ("canvas-photograph", "leaked", 50, 16),
    ("shuffling", "every epoch"): ("shuffled", "leaked", 50, 16),
    ("block size", "6 px"): ("block-6", "leaked", 50, 16),
    ("canvas size", "24 px"): ("size-24", "leaked", 50, 8),
    ("splits", "independent"): ("published", "independent", 50, 16),
    ("training", "100 epochs"): ("published", "leaked", 100, 16),
    **{("shift", f"{s} rows"): ("published", "leaked", 50, s) for s in range(9, 16)},
}


@pytest.fixture(scope="module")
def coded_levels(coded):
    return analysis.levels(coded)


def test_the_levels_are_those_of_the_claim(coded_levels):
    found = set(zip(coded_levels["factor"], coded_levels["level"]))
    assert found == {*EXPECTED, ("amount", "1 cell"), ("amount", "2 cells")}


@pytest.mark.parametrize("key", EXPECTED, ids=" ".join)
def test_a_level_changes_one_factor_and_leaves_the_others_as_published(coded_levels, key):
    here = coded_levels[(coded_levels["factor"] == key[0]) & (coded_levels["level"] == key[1])]
    condition, split, epochs, shift = EXPECTED[key]
    names = set(here["variant"])
    trained = set(CONDITIONS[condition].trials) & set(VARIANTS)
    assert names == (set(MAIN) if epochs == 100 else trained)
    assert len(here) == 5 * len(names) and not here.duplicated(["variant", "seed"]).any()
    for row in here.itertuples():
        assert row.dissimilar == code(condition, row.variant, row.seed, split, epochs, shift)
        assert row.similar == code(condition, row.variant, row.seed, split, epochs, 0) + 0.25
        assert row.loss == row.similar - row.dissimilar


def test_at_a_level_of_amount_every_scheme_has_that_amount(coded_levels):
    amounts = {
        "1 cell": {"S-zero": "S-zero", "S-circular": "S-circular", "F-zero": "S-zero"},
        "2 cells": {"S-zero": "F-zero", "S-circular": "S-circular-2", "F-zero": "F-zero"},
    }
    for level, sources in amounts.items():
        here = coded_levels[(coded_levels["factor"] == "amount") & (coded_levels["level"] == level)]
        assert set(here["variant"]) == set(sources)  # V has no amount
        assert len(here) == 5 * len(sources)
        for row in here.itertuples():
            expected = code("published", sources[row.variant], row.seed, "leaked", 50, 16)
            assert row.dissimilar == expected


def test_a_condition_that_is_not_there_has_no_level():
    found = analysis.levels(made(innocent, conditions=["published", "size-24"]))
    assert set(found["factor"]) == {
        PUBLISHED, "canvas size", "shift", "splits", "training", "amount",
    }  # fmt: skip


def test_usual_is_the_published_protocol_at_the_conditions_own_shift(coded):
    for condition, shift in (("published", 16), ("size-24", 8)):
        found = analysis.usual(coded, condition)
        assert len(found) == 5 * len(set(CONDITIONS[condition].trials) & set(VARIANTS))
        for row in found.itertuples():
            assert row.dissimilar == code(condition, row.variant, row.seed, "leaked", 50, shift)


# ---------------------------------------------------------------------------------- effects


def test_effects_pair_networks_by_seed():
    start, change = [0.0, 30.0, 60.0, 90.0], [1.0, 2.0, 4.0, 5.0]
    zeros = [0.0] * 4
    after = [a + b for a, b in zip(start, change)]
    found = levels_of(
        {
            (PUBLISHED, PUBLISHED): {"V": (start, zeros)},
            ("canvas", "0.5"): {"V": (after, zeros)},
            ("shift", "9 rows"): {"V": ([a + 2 for a in start], zeros)},
            ("shift", "10 rows"): {"V": (start, zeros)},
        }
    )
    for table in (found, shuffled(found)):
        rows = analysis.effects(table).set_index("level")
        assert set(rows.index) == {"0.5", "9 rows", "10 rows"}
        row = rows.loc["0.5"]
        assert (row["factor"], row["variant"], row["n"], row["mean"]) == ("canvas", "V", 4, 3.0)
        half = stats.t.ppf(0.975, 3) * np.std(change, ddof=1) / 2
        assert (row["low"], row["high"]) == pytest.approx((3 - half, 3 + half))
        assert row["effect"] == pytest.approx(3 / np.std(change, ddof=1))
        assert row["p"] == pytest.approx(stats.ttest_rel(after, start).pvalue)
        # without spread: certain that it changes, and that it does not
        for level, mean, p in (("9 rows", 2, 0), ("10 rows", 0, 1)):
            row = rows.loc[level]
            assert (row["mean"], row["low"], row["high"], row["p"]) == (mean, mean, mean, p)


# ----------------------------------------------------------------------------------- orders


def noisy(seed, levels=6, n=6):
    """Coarse accuracies with spread, differences and ties."""
    rng = np.random.default_rng(seed)
    keys = [(PUBLISHED, PUBLISHED), *[("canvas", str(i)) for i in range(levels)]]
    return levels_of(
        {
            key: {
                name: (
                    (rng.integers(0, 9) + rng.integers(0, 5, n)).astype(float),
                    rng.normal(10, rng.uniform(0.1, 3), n) + rng.choice([-8, 0, 8]),
                )
                for name in MAIN
            }
            for key in keys
        }
    )


def values(found, level, name, column="dissimilar"):
    here = found[(found["level"] == level) & (found["variant"] == name)]
    return here.sort_values("seed")[column].to_numpy()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_orders_are_those_of_welchs_test_after_holms_correction_over_all_rows(seed):
    found = noisy(seed)
    rows = analysis.orders(shuffled(found))
    assert len(rows) == 7 * len(PAIRS) == 42
    tests = [
        stats.ttest_ind(
            values(found, r.level, r.first), values(found, r.level, r.second), equal_var=False
        )
        for r in rows.itertuples()
    ]
    assert rows["p"].to_numpy() == pytest.approx([test.pvalue for test in tests])
    assert rows["p_holm"].to_numpy() == pytest.approx(holm([test.pvalue for test in tests]))
    for row in rows.itertuples():
        first, second = (values(found, row.level, n).mean() for n in (row.first, row.second))
        assert row.difference == pytest.approx(first - second)
        better = row.first if first > second else row.second
        assert row.answer == (better if row.p_holm < 0.05 else "")
    assert 0 < (rows["answer"] == "").sum() < len(rows)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_flip_needs_significance_on_both_sides_and_reversals_are_counted(seed):
    found = noisy(seed, levels=12)
    rows = analysis.orders(found).set_index(["level", "first", "second"])
    ties = 0
    for (level, first, second), row in rows.iterrows():
        base = rows.loc[(PUBLISHED, first, second)]
        contradicts = "" not in (row["answer"], base["answer"]) and row["answer"] != base["answer"]
        assert row["flipped"] == contradicts
        usual, count = np.sign(base["difference"]), 0.0
        pairs = [*product(values(found, level, first), values(found, level, second))]
        for a, b in pairs:
            count += 0.5 if usual == 0 or a == b else float(np.sign(a - b) != usual)
            ties += a == b
        assert row["reversals"] == pytest.approx(count / len(pairs))
    assert ties and rows["flipped"].any() == (seed == 0) and not rows["flipped"].all()


def test_runs_without_spread_give_a_certain_order_or_none():
    def constant(value):
        return [value] * 3, [0.0] * 3

    same = {"V": constant(1.0), "S-zero": constant(2.0), "S-circular": constant(2.0)}
    other = {"V": constant(3.0), "S-zero": constant(2.0), "S-circular": constant(2.0)}
    rows = analysis.orders(levels_of({(PUBLISHED,) * 2: same, ("canvas", "1"): other}))
    rows = rows.set_index(["level", "first", "second"])
    assert rows["p"].tolist() == [0, 0, 1, 0, 0, 1]
    expected = ["S-zero", "S-circular", "", "V", "V", ""]
    assert rows["answer"].tolist() == expected
    assert rows["flipped"].tolist() == [False, False, False, True, True, False]
    assert rows["reversals"].tolist() == [0, 0, 0.5, 1, 1, 0.5]


def test_variants_with_fewer_than_three_runs_are_not_compared():
    found = noisy(0, levels=1)
    found = found[(found["variant"] != "V") | (found["seed"] < 2)]
    rows = analysis.orders(found)
    assert len(rows) == 6 and "V" not in {*rows["first"], *rows["second"]}
    assert analysis.orders(found[found["seed"] < 2]).empty


# ------------------------------------------------------------------------------ location use


@pytest.mark.parametrize("seed", [0, 1])
def test_location_use_is_an_interval_after_bonferronis_correction_beside_the_margin(seed):
    found = noisy(seed)
    rows = analysis.location_use(shuffled(found), MARGIN).set_index(["level", "variant"])
    assert len(rows) == 7 * len(MAIN) == 28
    for (level, name), row in rows.iterrows():
        loss = values(found, level, name, "loss")
        error = np.std(loss, ddof=1) / np.sqrt(len(loss))
        low, high = stats.t.interval(1 - 0.05 / 28, len(loss) - 1, loss.mean(), error)
        assert (row["n"], row["loss"]) == (6, pytest.approx(loss.mean()))
        assert (row["low"], row["high"]) == pytest.approx((low, high))
        answer = "uses location" if low > MARGIN else "does not" if high < MARGIN else ""
        assert row["answer"] == answer
        base = rows.loc[(PUBLISHED, name), "answer"]
        assert row["flipped"] == ("" not in (answer, base) and answer != base)
    assert set(rows["answer"]) == {"uses location", "does not", ""}
    assert rows["flipped"].any()


def test_losses_without_spread_are_known_and_other_variants_are_left_out():
    still = [0.0] * 3
    found = levels_of(
        {
            (PUBLISHED,) * 2: {"V": (still, [10.5] * 3), "S-circular-2": (still, [0.0] * 3)},
            ("canvas", "1"): {"V": (still, [9.5] * 3), "S-zero": (still[:2], [9.0] * 2)},
            ("canvas", "0.5"): {"V": (still, [10.0] * 3)},
        }
    )
    rows = analysis.location_use(found, MARGIN)
    assert rows["variant"].tolist() == ["V"] * 3
    assert rows["answer"].tolist() == ["uses location", "does not", ""]
    assert rows["flipped"].tolist() == [False, True, False]
    assert (rows["low"] == rows["high"]).all()


# ------------------------------------------------------------------------------------ judge


def judged(changes, similar=innocent_similar, **more):
    return analysis.judge(analysis.levels(made(with_changes(changes), similar, **more)))


REVERSED = {"V": 97.0, "S-zero": 60.0, "S-circular": 80.0, "F-zero": 70.0}  # V best, as similar


@pytest.mark.parametrize(
    ("changes", "guilty"),
    [
        ({}, {}),
        ({"canvas-1": REVERSED}, {"canvas": "1"}),
        ({"canvas-1": REVERSED, "canvas-noise": REVERSED}, {"canvas": "1, noise"}),
        ({12: REVERSED, 13: REVERSED, "block-6": REVERSED},
         {"shift": "12 rows, 13 rows", "block size": "6 px"}),
        ({"size-24": REVERSED, "shuffled": REVERSED, "canvas-1": REVERSED},
         {"canvas": "1", "shuffling": "every epoch", "canvas size": "24 px"}),
    ],
)  # fmt: skip
def test_none_one_and_more_guilty_factors(changes, guilty):
    verdict = judged(changes)
    table = verdict.table.set_index("factor")
    assert table.loc[table["guilty"], "at"].to_dict() == guilty
    assert (table.loc[~table["guilty"], "at"] == "").all()
    expected = [claims.NOT_REPRODUCED, claims.INCONCLUSIVE, claims.REPRODUCED, claims.REPRODUCED]
    assert verdict.verdict == expected[len(guilty)]
    assert verdict.claim.id == "C2"
    assert verdict.because.startswith(f"{len(guilty)} of 8 factors are guilty: ")
    assert all(name in verdict.because for name in guilty or ["none"])


def test_the_table_counts_flips_of_both_readings_and_all_levels():
    table = judged({"canvas-1": REVERSED}).table.set_index("factor")
    levels = {
        "canvas": 5, "shuffling": 1, "block size": 1, "canvas size": 1,
        "shift": 7, "splits": 1, "training": 1, "amount": 2,
    }  # fmt: skip
    assert table["levels"].to_dict() == levels
    # V against the other three; and V no longer loses more than the margin
    assert table.loc["canvas", "orders flipped"] == "3 of 30"
    assert table.loc["canvas", "uses flipped"] == "1 of 20"
    assert table.loc["amount", "orders flipped"] == "0 of 6"  # V stays out
    assert table.loc["amount", "uses flipped"] == "0 of 6"


def test_the_use_of_location_alone_makes_a_factor_guilty():
    def similar(condition, variant, seed, split, epochs, shift):
        usual = innocent_similar(condition, variant, seed, split, epochs, shift)
        return usual + 13 * (split == "independent" and variant == "F-zero")

    table = judged({}, similar).table.set_index("factor")
    assert table.index[table["guilty"]].tolist() == ["splits"]
    assert table.loc["splits", "orders flipped"] == "0 of 6"
    assert table.loc["splits", "uses flipped"] == "1 of 4"


def test_the_published_numbers_make_the_amount_guilty():
    right = {"V": (100, 0.2), "S-zero": (99.8, 8.4), "S-circular": (73.7, 73.7)}
    right |= {"F-zero": (89.7, 89.7), "S-circular-2": (73.7, 73.7)}
    table = made(
        lambda c, name, seed, *_: right[name][1] + 0.01 * seed, lambda c, name, *_: right[name][0]
    )
    table = analysis.judge(analysis.levels(table)).table.set_index("factor")
    assert table.index[table["guilty"]].tolist() == ["amount"]
    assert table.loc["amount", "at"] == "1 cell, 2 cells"


def test_too_few_seeds_a_missing_variant_or_no_factor_give_no_verdict():
    for verdict in (
        judged({}, seeds=2),
        judged({}, variants=["V", "S-zero", "F-zero"]),
        judged({}, conditions=["canvas-1"]),
    ):
        assert verdict.verdict == claims.NOT_EVALUATED
        assert "needs 3 seeds of V, S-zero, S-circular, F-zero" in verdict.because
    assert judged({}, seeds=3).verdict == claims.NOT_REPRODUCED


# -------------------------------------------------------------------------------- factorial


def test_the_factorial_part_is_balanced_and_has_the_seeds_that_all_have(coded):
    lost = (coded["condition"] == "shuffled") & (coded["variant"] == "V") & (coded["seed"] == 1)
    found = analysis.factorial(shuffled(coded[~lost]))
    assert set(found["seed"]) == {0, 2, 3, 4}
    assert len(found) == 4 * 2**4 * 4 and (found["epochs"] == 50).all()
    sizes = found.groupby(list(analysis.FACTORS)).size()
    assert len(sizes) == 4 * 2**4 and (sizes == 4).all()
    assert set(found["condition"]) == set(FACTORIAL) and set(found["shift"]) == {12, 16}
    for row in found.itertuples():
        head = (row.condition, row.variant, row.seed, row.split, 50)
        assert row.dissimilar == code(*head, row.shift)
        assert row.similar == code(*head, 0) + 0.25
    assert set(analysis.factorial(coded, (16, 9))["shift"]) == {9, 16}


# --------------------------------------------------------------------------- variance shares


def signs(condition, split, shift):
    """Each two-level factor as -1 or 1: canvas, shuffled, split, shift."""
    return (
        1 if "0.5" in condition else -1,
        1 if "shuffled" in condition else -1,
        1 if split == "leaked" else -1,
        1 if shift == 16 else -1,
    )


def shares(value, seeds=3):
    """Variance shares of `value(variant, seed, canvas, shuffled, split, shift)`, all but the
    first two of them signs."""

    def dissimilar(condition, variant, seed, split, epochs, shift):
        return 50 + value(variant, seed, *signs(condition, split, shift))

    table = made(dissimilar, seeds=seeds, conditions=FACTORIAL)
    rows = analysis.factorial(table)
    return rows, analysis.variance_shares(rows)


def test_shares_of_a_sum_are_its_squares_and_the_intervals_leave_out_one_seed():
    def value(variant, seed, canvas, mixed, split, shift):
        return 3 * canvas + 2 * canvas * shift + mixed + (0, 0.5, 2)[seed] * split

    rows, found = shares(value)
    table = found.set_index("term")
    # of the split, the mean over seeds is the factor's, the rest no factor's
    split, rest = np.mean([0, 0.5, 2]) ** 2, np.var([0, 0.5, 2])
    expected = {"canvas": 9, "canvas × shift": 4, "shuffled": 1, "split": split, "Residual": rest}
    whole = sum(expected.values())
    for term, square in expected.items():
        assert table.loc[term, "share"] == pytest.approx(square / whole)
    assert found["share"].is_monotonic_decreasing and found["share"].sum() == pytest.approx(1)

    parts = [
        analysis.variance_shares(rows[rows["seed"] != seed]).set_index("term")["share"]
        for seed in range(3)
    ]

    def scale(shares):
        shares = shares.clip(1e-12, 1 - 1e-12)
        return np.log(shares / (1 - shares))

    parts = scale(pd.concat(parts, axis=1))
    error = np.sqrt(2 / 3 * parts.sub(parts.mean(axis=1), axis=0).pow(2).sum(axis=1))
    half = stats.t.ppf(0.975, 2) * error[table.index]
    assert half["canvas"] > 0.01
    assert np.allclose(table["low"], 1 / (1 + np.exp(half - scale(table["share"]))))
    assert np.allclose(table["high"], 1 / (1 + np.exp(-half - scale(table["share"]))))
    assert table[["low", "high"]].stack().between(0, 1).all()


def test_one_seed_gives_shares_and_no_interval():
    _, found = shares(lambda v, seed, canvas, *_: 1.0 * canvas, seeds=1)
    assert found.loc[0, "share"] == pytest.approx(1)
    assert found[["low", "high"]].isna().all(axis=None)


# --------------------------------------------------------------------------------- rankings


def tau_b(a, b):
    """Kendall's tau-b, pair by pair."""
    pairs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i in range(4) for j in range(i)]
    agree = sum(x * y for x, y in pairs)
    return agree / np.sqrt(sum(x != 0 for x, _ in pairs) * sum(y != 0 for _, y in pairs))


def test_rankings_count_reversed_pairs_and_ties():
    rng = np.random.default_rng(0)
    drawn = {}

    def dissimilar(condition, variant, seed, split, epochs, shift):
        published = (condition, split, epochs, shift) == ("published", "leaked", 50, 16)
        key = (condition, variant, split, epochs, shift)
        level = BASE[variant] if published else drawn.setdefault(key, float(rng.integers(0, 4)))
        return level + seed - 1

    table = made(dissimilar, seeds=3)
    rows = analysis.rankings(table)
    base = [BASE[name] for name in MAIN]
    ties = 0
    for row in rows.to_dict("records"):
        means = [row[name] for name in MAIN]
        signs = [
            (np.sign(base[i] - base[j]), np.sign(means[i] - means[j]))
            for i in range(4)
            for j in range(i)
        ]
        ties += sum(now == 0 for _, now in signs)
        assert row["reversed"] == sum(0.5 if now == 0 else now != was for was, now in signs)
        if len(set(means)) > 1:
            assert row["tau"] == pytest.approx(tau_b(base, means))
        else:
            assert np.isnan(row["tau"]) and row["reversed"] == 3
    assert ties > 20
    keys = [tuple(row) for row in rows[["condition", "split", "epochs", "shift"]].to_numpy()]
    published = rows.iloc[keys.index(("published", "leaked", 50, 16))]
    assert (published["reversed"], published["tau"]) == (0, pytest.approx(1))
    assert [published[name] for name in MAIN] == base
    kept = {name: len(c.splits) + len(c.longer) for name, c in CONDITIONS.items()}
    assert len(keys) == len(set(keys)) == sum(
        n * (1 if name in USUAL else 8) for name, n in kept.items()
    )  # fmt: skip
    assert list(dict.fromkeys(key[0] for key in keys)) == list(CONDITIONS)
