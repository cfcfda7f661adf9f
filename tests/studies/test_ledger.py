from dataclasses import replace

import pandas as pd
import pytest

from companion import cli
from ppp.errors import ParameterError, WeightsError
from studies import claims, ledger
from studies.claims import INCONCLUSIVE, NOT_REPRODUCED, NOT_TESTED, REPRODUCED, Verdict
from studies.paths import ROOT

CLAIMS = claims.claims()
TESTED = [name for name, entry in CLAIMS.items() if entry.tested]


@pytest.fixture(scope="module")
def verdicts():
    return ledger.judge()


def test_every_claim_has_a_row_in_order():
    assert list(CLAIMS) == [f"C{i}" for i in range(1, 12)]
    assert list(ledger.JUDGES) == TESTED


@pytest.mark.parametrize("name", CLAIMS)
def test_an_entry_is_whole(name):
    entry = CLAIMS[name]
    assert entry.claim and entry.words and entry.where
    assert "No test has been written" in entry.markdown() or entry.tested
    if entry.tested:
        assert entry.reproduced and entry.not_reproduced and entry.known
        assert entry.guard in (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE)
        chapter = (ROOT / "notebooks" / f"{entry.chapter}.ipynb").read_text(encoding="utf-8")
        assert "grades.beside(" in chapter, "its chapter shows its verdict and its grade"
    else:
        assert not entry.guard and not entry.chapter
    deltas = {number for number in entry.amended.numbers if number.startswith("delta")}
    assert deltas and deltas == set(entry.amended.because), "every smallest effect has its reason"
    assert all(text in entry.amended.markdown() for text in entry.amended.because.values())


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (["supported"] * 3, "supported"),
        (["against", "not evaluable here"], "against"),
        (["supported", "against", "underpowered"], "mixed"),
        (["mixed", "supported"], "mixed"),
        (["supported", "underpowered"], "underpowered"),
        (["against", "underpowered"], "underpowered"),
        (["not evaluable here"], "not evaluable here"),
        ([], "not evaluable here"),
    ],
)
def test_a_claim_is_graded_by_its_rows(seen, expected):
    assert claims.grade(pd.Series(seen, dtype=object)) == expected


def test_a_row_is_graded_on_both_sides():
    rows = pd.DataFrame({"low": [1.0, -1.0, 0.0], "high": [2.0, 1.0, float("nan")]})
    expected = ["supported", "underpowered", "not evaluable here"]
    assert claims.grades(rows, 0.5).tolist() == expected
    assert claims.grades(rows, 0.5, above=False).tolist() == ["against", *expected[1:]]


def test_the_shipped_tables_give_the_guarded_verdicts(verdicts):
    assert {v.claim.id: v.verdict for v in verdicts if v.claim.tested} == {
        name: CLAIMS[name].guard for name in TESTED
    }
    ledger.require_unchanged(verdicts)


def test_the_table_has_what_a_reader_needs(verdicts):
    rows = ledger.table(verdicts)
    assert rows["claim"].tolist() == list(CLAIMS)
    assert rows["because"].str.len().min() > 0 and not rows["changed"].any()
    assert rows["chapter"].str.len().min() > 0


def test_a_claim_without_a_test_is_not_tested_yet(tmp_path):
    (tmp_path / "claims.yaml").write_text("C1:\n  claim: a\n  words: b\n  where: c\n")
    (found,) = ledger.judge(listed=tmp_path / "claims.yaml")
    row = ledger.table([found]).iloc[0]
    assert (row["verdict"], row["chapter"], row["changed"]) == (NOT_TESTED, "", False)
    ledger.require_unchanged([found])
    with pytest.raises(ledger.VerdictChanged, match="C1 is 'reproduced' now"):
        ledger.require_unchanged([replace(found, verdict=REPRODUCED)])


def test_claims_are_chosen_by_number_in_the_order_of_the_ledger():
    assert [v.claim.id for v in ledger.judge(["C8", "C3"])] == ["C3", "C8"]
    with pytest.raises(ParameterError, match="unknown claim 'C12'; did you mean 'C"):
        ledger.judge(["C12"])


def changed(name: str) -> Verdict:
    entry = CLAIMS[name]
    other = next(v for v in (REPRODUCED, NOT_REPRODUCED) if v != entry.guard)
    return Verdict(entry, other, pd.DataFrame(), "all rows have turned")


@pytest.mark.parametrize("name", TESTED)
def test_a_changed_verdict_is_refused_with_what_to_do(name):
    with pytest.raises(ledger.VerdictChanged) as caught:
        ledger.require_unchanged([changed(name)])
    said = str(caught.value)
    assert "\n" not in said and said.startswith(f"{name} is ")
    for words in ("all rows have turned", CLAIMS[name].guard, "data/claims.yaml", "`reason`"):
        assert words in said
    ledger.require_unchanged([replace(changed(name), verdict=CLAIMS[name].guard)])


def test_tables_that_are_not_there_are_named(tmp_path):
    with pytest.raises(WeightsError, match=r"trajectories\.csv\.gz cannot be read"):
        ledger.judge(["C8"], tmp_path)
    with pytest.raises(WeightsError, match=r"patterns/metrics\.csv\.gz cannot be read"):
        ledger.judge(["C3"], tmp_path)


# ------------------------------------------------------------------------ the command line


def test_the_command_prints_the_verdicts(capsys, monkeypatch, verdicts):
    monkeypatch.setattr(ledger, "judge", lambda names, data: verdicts)
    assert cli.main(["claims"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert printed.err == "" and len(lines) == 1 + len(CLAIMS)
    for line, verdict in zip(lines[1:], verdicts):
        assert line.split()[0] == verdict.claim.id
        assert verdict.verdict in line and verdict.claim.amended.guard in line


def test_the_command_fails_at_a_changed_verdict_after_showing_it(capsys, monkeypatch):
    monkeypatch.setattr(ledger, "judge", lambda names, data: [changed("C8")])
    assert cli.main(["claims", "C8"]) == 2
    printed = capsys.readouterr()
    assert changed("C8").verdict in printed.out and "all rows have turned" in printed.err
    assert printed.err.startswith("ppp: C8 is ") and printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["C99"], "unknown claim 'C99'"), (["C8", "--data", "nowhere"], "nowhere/dynamics")],
)
def test_bad_requests_are_told_in_one_line(capsys, arguments, words):
    assert cli.main(["claims", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("ppp: ") and printed.err.count("\n") == 1
    assert words in printed.err
