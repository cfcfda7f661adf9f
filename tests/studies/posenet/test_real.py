"""PosENet on real networks: what a trial sees, and the test of C1 on numbers worked out by hand."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from studies.claims import AGAINST, NOT_EVALUABLE, SUPPORTED, claim, grade
from studies.networks import load_network
from studies.pictures.photographs import Reduced, photographs
from studies.posenet import readout, real
from studies.posenet.readout import TARGETS
from studies.posenet.real import NetworkState
from studies.pretrained.design import re_estimated
from studies.storage.tables import write_table


@pytest.fixture
def tiny(monkeypatch):
    """Eight photographs that are always there, two windows each, two trials, one thread."""
    monkeypatch.setattr(real, "measured", photographs)
    monkeypatch.setattr(real, "load_network", lambda name, state: load_network(name, "random"))
    apart = [Reduced(photographs()[1], 300)]
    monkeypatch.setattr(real, "re_estimated", partial(re_estimated, pictures=apart))
    monkeypatch.setattr(real, "WINDOWS", 2)
    monkeypatch.setattr(real, "TRIALS", 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_run_gives_the_same_table_twice_and_no_read_out_sees_what_it_is_tested_on(
    tiny, monkeypatch
):
    models, given = [], []

    def features(model, *rest, **more):
        models.append(model)
        return usual(model, *rest, **more)

    def train(maps, targets, seeds):
        given.append((maps, fit(maps, targets, seeds)))
        return given[-1][1]

    usual, fit = readout.features, readout.train
    monkeypatch.setattr(readout, "features", features)
    monkeypatch.setattr(readout, "train", train)
    run = NetworkState("efficientnet-lite0", "initial")
    table = real.compute(run)["trials"]
    assert list(zip(table["trial"], table["target"])) == [(t, g) for t in (0, 1) for g in TARGETS]
    assert set(table["images"]) == {"photographs"} and set(table["n"]) == {4}
    assert [trials.seeds for _, trials in given] == [(0,), (1,)]
    network, (training, test) = load_network("efficientnet-lite0", "random"), real.halves()
    assert not {photo.name for photo in training} & {photo.name for photo in test}
    assert [*training, *test] == [*photographs()[0::2], *photographs()[1::2]]
    maps = [real._features(network, models[0], p, 2, n) for n, p in enumerate(training)]
    for trial, (seen, trials) in enumerate(given):
        half = real.drawn(trial, 4)
        assert len(half) == 2 and torch.equal(seen, torch.cat([maps[n] for n in half]))
        tested = torch.cat(
            [real._features(network, models[0], p, 1, n) for n, p in enumerate(test)]
        )
        spc, mae = readout.scores(trials.predict(tested, trial, "V"), readout.target("V"))
        row = table[(table["trial"] == trial) & (table["target"] == "V")]
        assert (row["spc"].item(), row["mae"].item()) == (spc.mean(), mae.mean())
    pd.testing.assert_frame_equal(real.compute(run)["trials"], table, check_exact=True)


@pytest.mark.parametrize("state", real.STATES)
def test_batch_norm_is_re_estimated_before_training_and_left_as_it_is_after(
    tiny, monkeypatch, state
):
    seen = []

    def features(model, *_, **__):
        seen.append(float(model.stem[2].running_mean.abs().max()))
        raise InterruptedError

    monkeypatch.setattr(readout, "features", features)
    with pytest.raises(InterruptedError):
        real.compute(NetworkState("efficientnet-lite0", state))
    assert (seen[0] > 0) == (state == "initial")


def test_trials_draw_different_halves_of_the_training_photographs():
    halves = [frozenset(real.drawn(trial, 33)) for trial in range(20)]
    assert {len(half) for half in halves} == {16} and len({*halves}) == 20
    assert frozenset.union(*halves) == {*range(33)}


def trials(trained: list[list[float]], initial: list[list[float]]) -> pd.DataFrame:
    """A table with these scores, trials x targets, as SPC; MAE is half of each."""
    rows = [
        ("efficientnet-lite0", state, trial, target, score, score / 2)
        for state, scores in zip(real.STATES, (trained, initial))
        for trial, row in enumerate(scores)
        for target, score in zip(TARGETS, row)
    ]
    return pd.DataFrame(rows, columns=["network", "state", "trial", "target", "spc", "mae"])


def test_the_ratio_and_its_interval_are_those_worked_out_by_hand():
    table = trials([[0.7, 0.2], [0.8, 0.5], [0.9, 0.8]], [[0.2, 0.3]] * 3)
    rows = real.ratios(table.sample(frac=1, random_state=0))
    # Variances 0.01 and 0.09, mean 0.05; squared differences 0.36 and 0.04, mean 0.2.
    assert rows["row"].tolist() == [
        "efficientnet-lite0, PosENet SPC",
        "efficientnet-lite0, PosENet MAE",
    ]
    assert rows["value"].to_numpy() == pytest.approx(0.5)
    parts = np.log([0.025 / 0.2725, 0.1 / 0.2, 0.025 / 0.1525]) / 2  # without each trial
    error = np.sqrt(2 / 3 * np.square(parts - parts.mean()).sum())
    half = stats.t.ppf(1 - 0.05 / 4 / 2, 2) * error
    assert rows["low"].to_numpy() == pytest.approx(0.5 * np.exp(-half))
    assert rows["high"].to_numpy() == pytest.approx(0.5 * np.exp(half))


def graded(folder, table: pd.DataFrame) -> pd.DataFrame:
    (folder / "posenet-real").mkdir()
    write_table(folder / "posenet-real" / "trials.csv.gz", table)
    return next(real.c1(folder, claim("C1").real.numbers))


@pytest.mark.parametrize(("spread", "expected"), [(0.9, SUPPORTED), (0.1, AGAINST)])
def test_a_wide_spread_supports_the_claim_and_a_narrow_one_is_against_it(
    tmp_path, spread, expected
):
    draw = np.random.default_rng(0)
    initial = draw.normal(0.2, 0.01, (20, 5))
    table = trials((0.5 + 0.3 * spread * draw.normal(size=(20, 5))).tolist(), initial.tolist())
    both = pd.concat([table, table.assign(network="hed-vgg16")])
    rows = graded(tmp_path, both)
    assert len(rows) == 4 and set(rows["grade"]) == {expected} and grade(rows["grade"]) == expected
    assert rows["value"].to_numpy() == pytest.approx(spread, rel=0.25)
    assert set(rows["delta"]) == {0.43}


@pytest.mark.parametrize("lost", ["state == 'initial'", "trial == 1 and target == 'H'"])
def test_without_a_score_a_row_cannot_be_evaluated(tmp_path, lost):
    table = trials([[0.7, 0.2], [0.8, 0.5], [0.9, 0.8]], [[0.2, 0.3]] * 3)
    rows = graded(tmp_path, table.drop(table.query(lost).index))
    assert set(rows["grade"]) == {NOT_EVALUABLE} and rows["value"].isna().all()


def test_the_shipped_table_is_whole():
    table = real.read()
    key = ["network", "state", "trial", "target"]
    runs = {NetworkState(*pair) for pair, _ in table.groupby(["network", "state"])}
    assert runs == {*real.full_design()} and not table[key].duplicated().any()
    assert len(table) == 4 * 20 * 5 and set(table["n"]) == {32}
    assert table["spc"].between(-1, 1).all() and table["mae"].between(0, 1).all()
