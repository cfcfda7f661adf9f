"""A second program, which shares nothing with the studies but the files, agrees with them."""

import ast
import runpy
import sys

import numpy as np
import pytest
import yaml

from studies.paths import DATA, ROOT

PATH = ROOT / "tests" / "reanalysis" / "reanalysis.py"
LISTED = yaml.safe_load((DATA / "claims.yaml").read_text(encoding="utf-8"))
GRADED = list(LISTED)
"""Claims whose tables are shipped for the amended test too."""

PARTS = {
    "all five paddings": "all",
    "without zeros": "without zeros",
    "correlation of halves": "r",
    "share P / (P + V)": "share",
    "share less initial": "excess",
    "(a) one map, all channels": "1, all channels",
    "(a) one map, channel mean": "1, channel mean",
    "(b) mean of 64 maps, all channels": "64, all channels",
    "(b) mean of 64 maps, channel mean": "64, channel mean",
    "(b) correlation of halves": "r",
    "excess share after": "value",
    "its slope per doubling": "slope",
    "probability of contradiction": "",
    "steps to half of the final excess": "",
    "log2(excess at the end": "",
    "log2(final / initial), in units of sigma": "mae",
    "log2(final / initial), raw": "raw",
    "log2(final / initial), SNR": "snr",
    "(a) spread over change": "a",
    "(b) share of training": "b",
    "(c) log2(own / control)": "c",
    "spread between trials over": "",
    "(b) mean of 16 maps, all channels": "16, all channels",
    "(b) mean of 16 maps, channel mean": "16, channel mean",
    "log2(trained / initial), in units of sigma": "mae",
    "log2(trained / initial), raw": "raw",
    "log2(trained / initial), SNR": "snr",
}
"""What the studies call a part of a claim begins so; what the second program calls it."""
ROWS = {"PosENet SPC": "spc", "PosENet MAE": "mae", "BHV accuracy": "bhv"}
ROWS |= {"MAE-PPP": "mae", "SNR-PPP": "snr", " less ": " - "}
TOLERANCE = {"r": 0.06, "probability of contradiction": 0.015}
"""Largest difference of a value or a bound: r is a mean over random divisions into halves, which
each program draws for itself; in C6 the two let chance pair the trials in different ways. Others
agree up to rounding."""


@pytest.fixture(scope="module")
def program():
    return runpy.run_path(str(PATH))


def named(part, row):
    """Return the name that the second program has for a row of the studies."""
    (prefix,) = [short for long, short in PARTS.items() if part.startswith(long)]
    for long, short in ROWS.items():
        row = row.replace(long, short)
    return f"{prefix}, {row}".removeprefix(", ")


def test_it_shares_nothing_but_the_files():
    nodes = list(ast.walk(ast.parse(PATH.read_text(encoding="utf-8"))))
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    tops = {module.partition(".")[0] for module in modules}
    assert tops - sys.stdlib_module_names == {"numpy", "pandas", "scipy", "yaml"}
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    assert not names & {"__import__", "exec", "eval"} and not tops & {"importlib", "runpy"}


@pytest.mark.parametrize("claim", LISTED)
def test_first_verdict(program, claim):
    verdict, rows = next(program["outcomes"](claim, DATA))
    assert verdict == LISTED[claim]["guard"]
    assert len(rows) and np.isfinite(rows[["value", "low", "high"]]).all(axis=None)


@pytest.mark.parametrize("claim", GRADED)
def test_grade(program, claim):
    from studies.evidence import grades

    theirs = grades.judge(claim)
    _, (grade, rows) = program["outcomes"](claim, DATA)
    assert grade == theirs.grade
    if claim == "C2":
        assert (rows["value"] > 0).sum() == theirs.rows["value"].item()
        return
    agree(rows, theirs.rows, TOLERANCE)


@pytest.mark.parametrize("claim", LISTED)
def test_grade_on_real_networks(program, claim):
    from studies.evidence import grades

    test, theirs = LISTED[claim]["real"], grades.judge(claim, real=True)
    grade, rows = program["on_real_networks"](claim, DATA)
    if isinstance(test, str):
        assert grade == theirs.grade == "not evaluable here"
        assert rows.empty and theirs.rows.empty
        return
    assert grade == theirs.grade == test.get("guard", grade)
    named_so = agree(rows, theirs.rows, {})
    assert rows.loc[named_so, "grade"].tolist() == theirs.rows["grade"].tolist()


def agree(rows, theirs, tolerance):
    """Compare rows by name, where they are defined; return the names."""
    assert len(rows) == len(theirs)
    defined = theirs.dropna(subset=["value", "low", "high"])
    assert len(defined)
    names = [named(one.part, one.row) for one in defined.itertuples()]
    for name, one in zip(names, defined.itertuples()):
        key = "r" if name.startswith("r, ") else one.part
        found = np.array(rows.loc[name, ["value", "low", "high"]], float)
        found[2] = min(found[2], 1.0) if one.high == 1 else found[2]  # where no value can lie
        np.testing.assert_allclose(
            found,
            [one.value, one.low, one.high],
            rtol=1e-6,
            atol=tolerance.get(key, 1e-6),
            err_msg=name,
        )
    return names
