"""What a machine takes: passes, whole measurements and the model that predicts them."""

import numpy as np
import pytest
import torch
from checks import refused

from studies.scale import costs, measured

PARTS = list(measured.PARTS)
FIELDS = ["windows", "schemes", "layers", "side"]


def test_passes_have_an_order_and_leave_the_threads():
    before = torch.get_num_threads()
    rows = measured.measure_passes(["resnet18"], 1, 2)
    assert rows["pass"].tolist() == ["forward", "training"]
    assert (rows["low"] <= rows["seconds"]).all() and (rows["seconds"] <= rows["high"]).all()
    assert rows["low"].min() > 0 and rows["flop"].tolist() == list(costs.flop("resnet18"))
    assert torch.get_num_threads() == before


def test_the_prediction_is_the_sum_of_its_parts_and_grows_as_the_model_says():
    small = dict(windows=2, schemes=1, layers=1, side=544)
    points = [
        measured.Point(**small | more)
        for more in ({}, {"windows": 8}, {"schemes": 2}, {"side": 640})
    ]
    rows = measured.cost_curve(points, 1)
    assert rows[FIELDS].to_dict("records") == [vars(point) for point in points]
    assert rows["predicted"].to_numpy() == pytest.approx(rows[PARTS].sum(axis=1).to_numpy())
    assert (rows[["measured", *PARTS]] > 0).all(axis=None)
    windows, schemes, side = (rows.loc[i, PARTS] / rows.loc[0, PARTS] for i in (1, 2, 3))
    assert windows.tolist() == pytest.approx([1, 1, 4, 1, 4, 1])
    assert schemes.drop("windows pass").tolist() == pytest.approx([1, 1.5, 1, 1.5, 2])
    assert schemes["windows pass"] > 1
    assert side.drop("picture pass").tolist() == pytest.approx([1] * 5)
    assert side["picture pass"] > 1
    passes = rows["windows pass"] + rows["picture pass"]
    assert rows["overhead"].tolist() == pytest.approx(
        ((rows["measured"] - rows["coverage"]) / passes).tolist()
    )


def test_windows_span_the_picture():
    net = measured.networks.load_network("resnet18", "random")
    reach = measured.ppp.coverage(net.model, list(net.layers), 96)
    for side in measured.AXES["side"]:
        (picture,) = measured._windows(measured.Point(side=side), reach)
        least = -(-max(reach.margin) // 32) * 32
        assert np.min([picture.tops, picture.lefts]) == least
        beyond = side - (np.max([picture.tops, picture.lefts]) + 96 + reach.margin[1])
        assert 0 <= beyond < 32 and len(picture.tops) == 32


@pytest.mark.nightly
def test_unit_costs_explain_a_whole_measurement():
    rows = measured.cost_curve([measured.Point()], 3)
    assert 0.75 < (rows["measured"] / rows["predicted"]).item() < 1.33


def test_the_shipped_curve_is_whole_and_explained():
    rows = measured.shipped_curve()
    assert [measured.Point(*values) for values in rows[FIELDS].to_numpy().tolist()] == (
        measured.along_axes()
    )
    assert (rows["threads"] == 1).all() and rows[["torch", "machine"]].nunique().eq(1).all()
    assert rows["predicted"].to_numpy() == pytest.approx(
        rows[PARTS].sum(axis=1).to_numpy(), rel=1e-3
    )


@pytest.mark.parametrize(
    ("call", "arguments", "named"),
    [
        (measured.measure_passes, [["resnet18"], 0, 1], "batch = 0"),
        (measured.measure_passes, [["resnet5O"], 1, 1], "'resnet50'"),
        (measured.cost_curve, [[measured.Point()], 0], "repeats = 0"),
        (measured.Point, [1], "windows = 1"),
        (measured.Point, [8, 6], "schemes = 6"),
        (measured.Point, [8, 1, 0], "layers = 0"),
        (measured.Point, [8, 1, 5, 512], "side = 512"),
    ],
)
def test_bad_values_are_refused_in_one_line(call, arguments, named):
    assert named in refused(call, *arguments)
