"""What holds for every study: its design, what may be selected, and the tables that are shipped."""

import importlib

import pandas as pd
import pytest
from checks import refused

from ppp.errors import ParameterError, PPPError
from studies.paths import DATA

STUDIES = {
    name: importlib.import_module(f"studies.{module}").STUDY
    for name, module in {
        "bhv": "bhv.design", "posenet": "posenet.design", "patterns": "patterns.design",
        "posenet-real": "posenet.real",
        "zoo": "dynamics.design", "survey": "survey.design", "evidence": "evidence.design",
        "adaptation": "dynamics.adaptation", "pretrained": "pretrained.design",
        "pretrained-adaptation": "pretrained.adaptation",
    }.items()
}  # fmt: skip
SHIPPED = {
    "bhv": DATA / "bhv", "posenet": DATA / "posenet", "patterns": DATA / "patterns", "zoo": DATA,
    "survey": DATA / "torchvision", "evidence": DATA / "evidence",
    "adaptation": DATA / "adaptation", "pretrained": DATA / "pretrained",
    "posenet-real": DATA / "posenet-real",
    "pretrained-adaptation": DATA / "pretrained-adaptation",
}  # fmt: skip
WITH_TABLES = [name for name in STUDIES if name != "zoo"]


@pytest.fixture(params=STUDIES)
def name(request):
    return request.param


@pytest.mark.parametrize(
    ("name", "count"),
    {
        "bhv": 314, "posenet": 148, "patterns": 56, "zoo": 78, "survey": 98, "evidence": 56,
        "adaptation": 50, "pretrained": 24, "posenet-real": 4, "pretrained-adaptation": 7,
    }.items(),
)  # fmt: skip
def test_every_run_has_a_folder_of_its_own(name, count):
    runs = STUDIES[name].runs()
    assert len({run.stem for run in runs}) == len(set(runs)) == len(runs) == count
    assert STUDIES[name].name == name


def test_every_setting_selects_runs_and_unknown_values_are_refused(name):
    study = STUDIES[name]
    run = study.runs()[-1]
    for key in (*study.key, "stem"):
        value = getattr(run, key)
        chosen = study.runs(**{key: [value, value]})
        assert run in chosen and all(getattr(one, key) == value for one in chosen)
        if key != "seed":
            message = refused(study.runs, error=ParameterError, **{key: [f"{value}x"]})
            assert f"'{value}x'; did you mean " in message
    if "seed" in study.key:
        for seed in (-1, 1 << 20, "0", True):
            assert f"seed = {seed!r}" in refused(study.runs, seed=[seed], error=ParameterError)


@pytest.mark.parametrize(
    ("name", "selection"),
    [
        ("bhv", {"condition": ["published"], "variant": ["F-optimal"]}),
        ("bhv", {"condition": ["size-24"], "seed": [5]}),
        ("posenet", {"part": ["vgg"], "seed": [3]}),
        ("posenet", {"part": ["trained"], "padding": ["optimal"]}),
        ("patterns", {"family": ["vgg"], "seed": [4]}),
        ("patterns", {"padding": ["zeros"], "state": ["initial"]}),
        ("survey", {"kind": ["detection"], "model": ["alexnet"]}),
    ],
)
def test_what_the_design_does_not_combine_is_refused(name, selection):
    message = refused(STUDIES[name].runs, error=ParameterError, **selection)
    assert message == f"no run of the study has this {' and '.join(selection)}"


def test_shipped_files_may_be_replaced_by_the_command_that_made_them_under_its_earlier_name(name):
    STUDIES[name].check(SHIPPED[name], STUDIES[name].runs())


@pytest.mark.parametrize("name", WITH_TABLES)
def test_shipped_runs_are_those_of_the_design_and_a_part_does_not_replace_them(name):
    study, table = STUDIES[name], pd.read_csv(SHIPPED[name] / "runs.csv")
    rows = table[[*study.key]].itertuples(index=False)
    assert sorted(study.run(*row) for row in rows) == sorted(study.runs())
    assert (table["threads"] == 1).all() and (table["seconds"] >= 0).all()
    for column in ("torch", "numpy", "python", "machine"):
        assert table[column].notna().all() and table[column].nunique() == 1
    message = refused(study.check, SHIPPED[name], study.runs()[1:], error=PPPError)
    assert f"hold 1 other runs, such as {study.runs()[0].stem}" in message
