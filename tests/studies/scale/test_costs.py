"""What the paper would cost: exact counts, laws of scale, sources, and refusals."""

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
import torchvision
from checks import refused
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import ppp
from studies import networks, parameters
from studies.scale import costs

DESIGN = costs.Design(("resnet50", "vgg19"))
SUMS = ["hours", "hours_low", "hours_high", "dollars_low", "dollars_high"]


def meta(*layers):
    return nn.Sequential(*layers).to("meta")


def hours(design, gpu="A100 80GB", precision="single"):
    rows = costs.by_part(costs.cost(costs.work(design), gpu, precision))
    return rows.set_index("part")["hours_high"]


# ----------------------------------------------------------------------------- counts


def test_flop_of_a_tiny_network_by_hand():
    model = meta(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, groups=4),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip
    first = 2 * (16 * 16) * 8 * (3 * 9)
    second = 2 * (14 * 14) * 16 * (2 * 9)
    last = 2 * 16 * 5
    assert costs.count(model, 32) == (
        first + second + last,
        3 * (first + second + last) - first,
    )


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16", "vgg19", "mobilenet_v2"])
def test_forward_flop_are_twice_what_torchvision_publishes(name):
    listed = torchvision.models.get_model_weights(name).DEFAULT.meta
    assert costs.flop(name)[0] / 2e9 == pytest.approx(listed["_ops"], abs=1e-3)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg19"])
def test_a_training_step_is_what_torch_counts_without_groups(name):
    model = costs.build(name, "meta").train()
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, 3, 224, 224, device="meta")).sum().backward()
    assert costs.flop(name)[1] == counter.get_total_flops() // 2


def test_flop_grow_with_the_picture():
    small, large = (costs.flop("resnet18", side)[0] for side in (224, 448))
    head = 2 * 512 * 1000
    assert large - head == 4 * (small - head)


def test_sizes_are_those_of_the_real_network():
    model = networks.load_network("resnet18", "random").model
    found = costs.sizes("resnet18")
    state = model.state_dict().values()
    assert found["weights"] == sum(t.numel() * t.element_size() for t in state)
    assert found["momentum"] == 4 * sum(p.numel() for p in model.parameters())
    layers = networks.layers_of_interest(model)
    maps = ppp.extract(model, torch.zeros(1, 3, 224, 224), layers)
    cells = sum(features.numel() for features in maps.values())
    assert found["features"] == 4 * cells and found["pattern"] == 16 * cells
    assert found["channels"] == sum(features.shape[1] for features in maps.values())


def test_the_photograph_is_large_enough_for_a_window():
    net = networks.load_network("resnet18", "random")
    reach = ppp.coverage(net.model, list(net.layers), 224)
    need = max(ppp.size_needed(224, reach))
    assert need <= costs.picture_side("resnet18") <= need + 2 * reach.stride[0]


def test_the_listed_parts_by_hand():
    images, (forward, step) = costs.published()["imagenet"], costs.flop("resnet50")
    rows = costs.work(replace(DESIGN, trials=1, schemes=1)).set_index(["part", "network"])
    assert rows.loc[("training", "resnet50"), "flop"] == 90 * images["training_images"] * step
    assert rows.loc[("PPP, algorithmic padding", "resnet50"), "flop"] == 25 * 4096 * forward
    optimal = costs.flop("resnet50", costs.picture_side("resnet50"))[0]
    assert rows.loc[("PPP, optimal padding", "resnet50"), "flop"] == 25 * 4096 * optimal
    readout = 3 * 2 * 9 * costs.sizes("resnet50")["channels"] * 26**2
    passes = 15 * 5 * 4096
    assert rows.loc[("PosENet", "resnet50"), "flop"] == passes * (forward + readout)


# ---------------------------------------------------------------------- laws of scale


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"trials": 10}, {"training", "validation", "PPP", "PosENet"}),
        ({"schemes": 10}, {"training", "validation", "PPP", "PosENet"}),
        ({"epochs": 180}, {"training", "validation"}),
        ({"snapshots": 50}, {"PPP"}),
        ({"windows": 8192}, {"PPP", "PosENet"}),
    ],
)
def test_twice_as_much_takes_twice_as_long(change, parts):
    before, after = hours(DESIGN), hours(replace(DESIGN, **change))
    for part in before.index.drop("together"):
        twice = part.partition(",")[0] in parts
        assert after[part] == pytest.approx((2 if twice else 1) * before[part]), part


def test_networks_add_up():
    alone = [hours(replace(DESIGN, networks=(name,))) for name in DESIGN.networks]
    pd.testing.assert_series_equal(
        hours(DESIGN).drop(["BHV test", "together"]),
        sum(alone).drop(["BHV test", "together"]),
    )


def test_the_last_row_is_the_sum_and_the_ends_are_in_order():
    bill = costs.by_part(costs.cost(costs.work(DESIGN, (1.0, 1.5)), "A100 80GB", "mixed"))
    assert bill["part"].iloc[-1] == "together"
    for column in ["flop", *SUMS]:
        assert bill[column].iloc[-1] == pytest.approx(bill[column].iloc[:-1].sum())
    assert (bill["hours_low"] <= bill["hours"]).all() and (
        bill["hours"] <= bill["hours_high"]
    ).all()


def test_schemes_that_share_weights_share_trainings_and_optimal_passes():
    whole, swapped = (hours(d) for d in (DESIGN, replace(DESIGN, swapped=True)))
    for part in ("training", "PPP, optimal padding"):
        assert swapped[part] == pytest.approx(whole[part] / 5)
    assert swapped["PPP, algorithmic padding"] == pytest.approx(whole["PPP, algorithmic padding"])


def test_more_windows_of_a_photograph_cost_fewer_optimal_passes():
    found = [hours(replace(DESIGN, per_photo=n))["PPP, optimal padding"] for n in (1, 4, 16, 64)]
    assert found == sorted(found, reverse=True)
    assert found[-1] > hours(DESIGN)["PPP, algorithmic padding"], "an area never below the windows'"


def test_the_overhead_counts_on_ppp_alone():
    plain, more = (
        costs.cost(costs.work(DESIGN, (1.0, high)), "A100 80GB", "single") for high in (1.0, 2.0)
    )
    ratio = more["hours_high"] / plain["hours_high"]
    assert (ratio[plain["full"]] == 2).all() and (ratio[~plain["full"]] == 1).all()


# ------------------------------------------------------------------ published, and money


def test_every_rate_price_and_size_has_source_and_date():
    listed = costs.published()
    for kind, entries in listed.items():
        for entry in entries if isinstance(entries, list) else [entries]:
            assert len(entry["source"]) > 10 and str(entry["date"])[:2] == "20", (kind, entry)
            values = [v for v in entry.values() if isinstance(v, int | float)]
            assert values and all(value > 0 for value in values), (kind, entry)


def test_cards_and_precisions_are_those_of_the_registry():
    rows = pd.DataFrame(costs.published()["training"])
    assert set(rows["gpu"]) == set(parameters.GPUS)
    assert set(rows["precision"]) == set(parameters.PRECISIONS)
    assert {row["gpu"] for row in costs.published()["prices"]} == set(parameters.GPUS)
    for gpu in parameters.GPUS:
        for precision in parameters.PRECISIONS:
            assert len(costs.rates(gpu, precision)) >= 2


def test_a_published_training_takes_its_published_hours():
    images = costs.published()["imagenet"]["training_images"]
    for gpu in parameters.GPUS:
        for precision in parameters.PRECISIONS:
            for row in costs.rates(gpu, precision).query("gpus == 1").itertuples():
                ours = 90 * images * costs.flop(row.network)[1] / row.flop_per_second / 3600
                assert ours == pytest.approx(90 * images / row.images_per_second / 3600)
                assert 0.85 < ours / row.hours_90_epochs < 1.05, row.network


def test_ppp_takes_the_rate_of_full_precision():
    single, mixed = (
        costs.cost(costs.work(DESIGN), "A100 80GB", way).set_index(["part", "network"])[
            "hours_high"
        ]
        for way in parameters.PRECISIONS
    )
    assert (single.filter(like="PPP") == mixed.filter(like="PPP")).all()
    assert (single["training"] > mixed["training"]).all()


def test_only_a_vgg_may_beat_the_rates():
    assert costs.faster("resnet50") == costs.faster("its own") == 1
    rows = costs.cost(costs.work(DESIGN), "A100 80GB", "single").set_index(["part", "network"])
    width = rows["hours_high"] / rows["hours_low"]
    assert width["training", "vgg19"] == pytest.approx(
        width["training", "resnet50"] * costs.faster("vgg19")
    )


def test_money_is_hours_times_price():
    rows = costs.cost(costs.work(DESIGN), "A100 80GB", "single", 2.0)
    assert (rows["dollars_low"] == 2 * rows["hours_low"]).all()
    assert (rows["dollars_high"] == 2 * rows["hours_high"]).all()
    low, high = costs.prices("A100 80GB")
    listed = [r["dollars_per_hour"] for r in costs.published()["prices"] if "A100" in r["gpu"]]
    assert (low, high) == (min(listed), max(listed))


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("call", "arguments", "named"),
    [
        (costs.Design, [()], "networks = ()"),
        (costs.Design, [("resnet5O",)], "'resnet50'"),
        (costs.Design, [("vit_b_32",)], "'vit_b_32'"),
        (costs.Design, [("resnet50",), 5, 0], "trials = 0"),
        (costs.Design, [("resnet50",), 5, 5, 1.5], "epochs = 1.5"),
        (costs.build, ["resnet5O"], "'resnet5O'"),
        (costs.rates, ["A100", "single"], "'A100'"),
        (costs.rates, ["A100 80GB", "half"], "'half'"),
        (costs.prices, ["H100"], "'H100'"),
        (costs.prices, ["A100 80GB", -1], "price = -1"),
        (costs.prices, ["A100 80GB", math.nan], "price = nan"),
    ],
)
def test_bad_values_are_refused_in_one_line(call, arguments, named):
    assert named in refused(call, *arguments)
