"""Simulations of tests and intervals: few draws, and what is read from the shipped table."""

import numpy as np
import pandas as pd
import pytest
from checks import refused

from ppp.errors import ParameterError
from studies.evidence import simulations
from studies.evidence.simulations import KEY, covered, read, simulate


@pytest.fixture(scope="module")
def few():
    return simulate(draws=4, seed=1)


def test_few_draws_fill_the_rows_of_the_shipped_table(few):
    shipped = read()
    pd.testing.assert_frame_equal(few[KEY], shipped[KEY])
    assert not few[KEY].duplicated().any()
    assert (shipped["draws"] >= 2000).all() and (few["draws"] == 4).all()
    cells = few["what"] == "t-test of windows"  # a share of cells, of the others one of draws
    assert set(few.loc[~cells, "value"]) <= {0, 0.25, 0.5, 0.75, 1}


def test_equal_seeds_give_equal_tables(few):
    pd.testing.assert_frame_equal(simulate(draws=4, seed=1), few)
    assert not simulate(draws=4, seed=2)["value"].equals(few["value"])


@pytest.mark.parametrize("photographs", [8, 32])
def test_noise_has_mean_0_and_variance_1(photographs):
    rng = np.random.default_rng(0)
    for noise in simulations._NOISE.values():
        drawn = np.array([noise(rng, photographs, 48) for _ in range(1000)])
        assert abs(drawn.mean()) < 0.05 and np.square(drawn).mean() == pytest.approx(1, abs=0.1)


def table_of(folder, **rows):
    """Write a table in which an interval covers so much in each setting."""
    (folder / "evidence").mkdir()
    columns = {"rate": "coverage", "what": "an interval", "setting": list(rows), "networks": 5}
    columns |= {"photographs": 16, "nominal": 0.95, "value": list(rows.values())}
    pd.DataFrame(columns).to_csv(folder / "evidence" / simulations.FILE, index=False)
    return folder


def test_an_interval_that_covers_too_little_is_not_called_one_of_95_percent(tmp_path):
    data = table_of(tmp_path, good=0.93, bad=0.874, fair=0.9)
    find = {"networks": 5, "photographs": 16, "data": data}
    assert covered("an interval", **find) == 0.874
    assert covered("an interval", setting="good", **find) == 0.95
    assert covered("an interval", setting="fair", **find) == 0.95
    assert covered("an interval", 7, 40, setting="bad", data=data) == 0.874  # the next smaller
    for few in ({"networks": 4}, {"photographs": 15}, {"nominal": 0.99}, {"setting": "worse"}):
        told = refused(covered, "an interval", error=ParameterError, **find | few)
        assert "'an interval'" in told


def test_the_intervals_of_the_amended_tests_cover_what_they_say():
    """Two-way intervals at 5 networks, and 18 or 37 photographs, at both levels."""
    for networks, photographs in simulations.TESTED:
        for nominal in (simulations.NOMINAL, simulations.FAMILY):
            how = {"networks": networks, "photographs": photographs, "nominal": nominal}
            assert covered("two-way", **how) == nominal
            for what in ("two-way, share", "two-way, halves"):
                assert covered(what, setting="networks alike", **how) == nominal
