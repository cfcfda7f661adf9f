"""The shipped survey of torchvision's networks."""

import pandas as pd
import pytest
import torch
import torchvision
from torch import nn

import ppp
from ppp.results import NullTest
from studies import networks
from studies.pictures.photographs import large_enough, photographs
from studies.storage import tables
from studies.survey import design

SHIPPED = design.table().set_index("model")
WITH_LAYERS = SHIPPED[SHIPPED["outcome"] != "refused"]
LIVE = (
    *("resnet18", "squeezenet1_1", "mobilenet_v3_small", "vit_b_32"),
    *("lraspp_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn"),
)
MEASURED_NUMBERS = ["null_relative"]


# ----------------------------------------------------------------------------- the shipped table


def test_every_network_that_torchvision_lists_is_there():
    modules = (torchvision.models, torchvision.models.segmentation, torchvision.models.detection)
    listed = {name for module in modules for name in torchvision.models.list_models(module=module)}
    missing, gone = listed - {*SHIPPED.index}, {*SHIPPED.index} - listed
    assert not missing, f"examine them: ppp study survey {' '.join(sorted(missing))}"
    assert not gone and SHIPPED.index.is_unique
    assert SHIPPED["kind"].to_dict() == design.models()


def test_no_network_ended_in_an_error():
    assert {*SHIPPED["outcome"]} == {"measured", "measured in part", "refused"}


def test_every_refusal_has_a_reason():
    for name, row in SHIPPED.iterrows():
        told = isinstance(row["reason"], str) and "\n" not in row["reason"]
        assert told == (row["outcome"] != "measured"), name
        assert isinstance(row["site_reason"], str) == (row["unswappable"] > 0), name
        if row["outcome"] != "refused":
            assert isinstance(row["swap_reason"], str) == (not row["swaps"]), name
            assert (row["refused"] > 0) == (row["outcome"] == "measured in part"), name


def test_every_null_test_was_made_and_passed():
    assert (WITH_LAYERS["null_cells"] > 0).all()
    for relative in WITH_LAYERS["null_relative"]:
        assert NullTest(1, 0.0, relative).passed


def test_rows_of_layers_agree_with_each_other():
    for name, row in WITH_LAYERS.iterrows():
        layers, strides = row["layers"].split(), [int(s) for s in str(row["strides"]).split()]
        clean = [float(share) for share in str(row["clean_fractions"]).split()]
        assert len(layers) == len(strides) == len(clean) <= 5, name
        assert layers[-1] == row["deepest"] and strides[-1] == row["stride"], name
        assert clean[-1] == pytest.approx(row["clean_fraction"], abs=1e-4), name
        assert {*str(row["null_layers"]).split()} <= {*layers}, name


@pytest.mark.parametrize(
    ("prefix", "outcome"),
    [
        ("resnet", "measured"),
        ("vgg", "measured"),
        ("densenet", "measured"),
        ("convnext", "measured"),
        ("regnet_x", "measured"),
        ("regnet_y", "measured in part"),  # squeeze-excitation
        ("efficientnet", "measured in part"),
        ("swin", "measured in part"),  # the patches
        ("vit", "refused"),  # one input size
    ],
)
def test_families_end_alike(prefix, outcome):
    rows = SHIPPED[SHIPPED.index.str.startswith(prefix)]
    assert len(rows) > 1 and {*rows["outcome"]} == {outcome}


# ---------------------------------------------------------------------------------- examined live


@pytest.mark.parametrize("name", LIVE)
def test_a_network_examined_again_gives_the_shipped_row(name, tmp_path):
    row = pd.DataFrame([design.examine(name)])
    tables.write_table(tmp_path / "row.csv", row)
    again = tables.read_table(tmp_path / "row.csv").set_index("model").loc[[name]]
    assert NullTest(1, 0.0, again["null_relative"].fillna(0.0).item()).passed
    shipped = SHIPPED.loc[[name]].astype(object)
    again = again[shipped.columns].astype(object)
    pd.testing.assert_frame_equal(
        again.drop(columns=MEASURED_NUMBERS), shipped.drop(columns=MEASURED_NUMBERS)
    )


def test_weights_come_from_a_fixed_seed():
    states = [design.build("mobilenet_v3_small").state_dict() for _ in range(2)]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_an_exception_that_is_no_refusal_is_told_as_an_error(monkeypatch):
    monkeypatch.setattr(design, "build", lambda name: 1 / 0)
    row = design.examine("resnet18")
    assert row["outcome"] == "error" and row["reason"] == "ZeroDivisionError: division by zero"


def test_a_network_whose_scheme_cannot_be_swapped_is_measured_all_the_same(monkeypatch):
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            x = self.conv(x)
            return torch.cat([x[:, :, -1:], x, x[:, :, :1]], 2)

    model = nn.Sequential(Joined(), nn.Conv2d(4, 4, 3, 2)).eval()
    monkeypatch.setattr(design, "build", lambda name: model)
    row = design.examine("resnet18")
    assert row["outcome"] == "measured" and row["swaps"] is False
    assert row["swap_reason"] == row["site_reason"]
    assert row["swap_reason"].startswith("0 (pad): strips joined by torch.cat")


# -------------------------------------------------------------------------------- runs and tables


def test_a_run_tells_its_outcome_and_is_performed_once(monkeypatch, tmp_path, capsys):
    examined = []

    def examine(name):
        examined.append(name)
        return dict.fromkeys(design.COLUMNS, "") | {"model": name, "outcome": "measured"}

    monkeypatch.setattr(design, "examine", examine)
    for names in (["alexnet"], ["vgg11", "alexnet"]):
        runs = design.STUDY.runs(model=names)
        design.STUDY.perform(runs, tmp_path)
    assert examined == ["alexnet", "vgg11"]
    assert "alexnet: measured\n" in capsys.readouterr().out
    design.STUDY.collect(tmp_path, tmp_path / "tables", runs)
    table = design.table(tmp_path / "tables")
    assert table["model"].tolist() == ["alexnet", "vgg11"]
    assert table.columns.tolist() == list(design.COLUMNS)


def test_every_refusal_of_torchvision_is_of_a_known_kind_but_two():
    rows = design.table()
    rows = rows[rows["outcome"] != "measured"]
    kinds = design.refusals(rows)
    assert kinds.isin([*design.KINDS, "other"]).all()
    assert rows.loc[kinds == "other", "model"].tolist() == ["maxvit_t", "ssd300_vgg16"]
    transformers = rows.loc[kinds == "positional embedding", "model"]
    assert transformers.str.startswith("vit_").all() and len(transformers) == 5
    assert rows.loc[kinds == "attention in windows", "model"].str.startswith("swin_").all()


@pytest.mark.nightly
def test_the_shipped_patterns_are_what_a_measurement_gives():
    """The first layers of one network; the other one and the deeper layers take minutes."""
    shipped = design.patterns().set_index(["network", "layer"])
    net = networks.load_network("resnet50", "random")
    reach = ppp.coverage(net.model, list(net.layers), net.window)
    large, _ = large_enough(photographs(), *ppp.size_needed(net.window, reach))
    windows = ppp.cut_windows(
        large, net.window, reach, per_picture=16, seed=0, transform=net.prepare
    )
    layers = list(net.layers[:2])
    for row in (
        ppp.measure(net.model, windows, layers, coverage=reach, seed=0).table().to_dict("records")
    ):
        expected = shipped.loc[("resnet50", row["layer"])]
        for name in ("n", "mae", "mae_low", "mae_high", "snr", "sigma", "clean_cells"):
            assert row[name] == pytest.approx(expected[name], rel=1e-4), name
