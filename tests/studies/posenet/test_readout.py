import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from checks import refused
from scipy import stats
from torch import nn

import ppp
from ppp.errors import LayerError, MarginError, PictureError, PPPError
from ppp.windows import Picture, Windows
from studies.posenet.readout import (
    LONGER,
    PROTOCOLS,
    PUBLISHED,
    TARGETS,
    Protocol,
    ReadOut,
    convolve,
    features,
    ridge,
    scores,
    target,
    train,
)

# ten windows in batches of four: the last batch is smaller
SMALL = Protocol(feature_size=8, target_size=13, epochs=4, drops=(2,), batch=4)
LAYERS = ["1", "3"]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def drawn(*shape, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def some_maps(n: int = 10, channels: int = 3, size: int = 8, seed: int = 0) -> torch.Tensor:
    """Maps whose means differ by column and row, so that there is something to learn."""
    place = torch.linspace(0, 1, size)
    maps = drawn(n, channels, size, size, seed=seed)
    maps[:, 0] += place
    maps[:, 1] += place[:, None]
    return maps


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def trial(found, seed: int, name: str) -> dict[str, torch.Tensor]:
    """The state of one trial."""
    place = found.seeds.index(seed), found.targets.index(name)
    return {key: value[place] for key, value in found.state.items()}


# --------------------------------------------------------------------------------- targets


def painted(name: str, size: int) -> np.ndarray:
    """The targets by other formulas, in NumPy."""
    x = np.arange(size) / (size - 1)
    across, down = np.meshgrid(x, x)
    if name == "G":
        squared = (across - 0.5) ** 2 + (down - 0.5) ** 2
        bell = np.exp(-8 * squared)  # a standard deviation of 1/4: 1 / (2 / 16) = 8
        return (bell - bell.min()) / (bell.max() - bell.min())
    along = across if name in ("H", "VS") else down
    return np.sin(4 * np.pi * along) ** 2 if name in ("HS", "VS") else along


@pytest.mark.parametrize("size", [3, 33])
@pytest.mark.parametrize("name", TARGETS)
def test_a_target_has_its_formula(name, size):
    found = target(name, size)
    assert found.shape == (size, size) and found.dtype == torch.float32
    assert np.allclose(found.numpy(), painted(name, size), atol=2e-6)
    assert float(found.min()) >= 0 and float(found.max()) <= 1


def test_a_target_that_is_not_known_or_too_small_is_refused():
    known = "known: H, V, G, HS, VS"
    assert refused(target, "HSS") == f"unknown target 'HSS'; did you mean 'HS'? {known}"
    assert refused(target, "ramp") == f"unknown target 'ramp'; {known}"
    for size in (1, 0, -3, 8.0, "8", True):
        said = refused(lambda size=size: target("H", size))
        assert said == f"size = {size!r}; expected a whole number of at least 3"
    assert target("H", 3).tolist() == [[0, 0.5, 1]] * 3


# -------------------------------------------------------------------------------- protocol


def test_the_published_protocol():
    expected = {
        "feature_size": 28, "target_size": 224, "depth": 1, "kernel": 3, "padding": 0,
        "optimiser": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4,
        "epochs": 15, "drops": (10,), "batch": 32,
    }  # fmt: skip
    assert {name: getattr(PUBLISHED, name) for name in expected} == expected
    assert Protocol() == PUBLISHED and PUBLISHED.cells == 26
    assert PROTOCOLS == {"published": PUBLISHED, "longer": LONGER}
    assert LONGER.epochs == 4 * PUBLISHED.epochs
    assert replace(LONGER, epochs=15, drops=(10,)) == PUBLISHED


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"feature_size": 1}, "feature_size = 1; expected a whole number, 3 to 4096"),
        ({"target_size": 224.0}, "target_size = 224.0"),
        ({"depth": 17}, "depth = 17"),
        ({"kernel": "3"}, "kernel = '3'"),
        ({"padding": -1}, "padding = -1"),
        ({"width": 0}, "width = 0"),
        ({"epochs": True}, "epochs = True"),
        ({"batch": 0}, "batch = 0"),
        ({"optimiser": "sdg"}, "'sdg'; did you mean 'sgd'?"),
        ({"kernel": 28}, "1 convolutions of 28 x 28 leave 1 cells of a grid of 28"),
        ({"depth": 14}, "14 convolutions of 3 x 3 leave 0 cells of a grid of 28"),
        ({"lr": 0}, "lr = 0; expected a number above 0"),
        ({"lr": math.nan}, "lr = nan"),
        ({"momentum": -0.1}, "momentum = -0.1"),
        ({"weight_decay": "1"}, "weight_decay = '1'"),
        ({"drops": 3}, "drops = 3"),
        ({"drops": (-1,)}, "drops = -1"),
    ],
)
def test_protocols_that_cannot_be_are_refused(changed, words):
    assert words in refused(Protocol, **changed)


@pytest.mark.parametrize(
    ("changed", "cells"),
    [
        ({}, 8), ({"depth": 2}, 6), ({"depth": 2, "padding": 1}, 10), ({"kernel": 1}, 10),
        ({"kernel": 5}, 6), ({"kernel": 5, "padding": 2}, 10), ({"padding": 2}, 12),
        ({"kernel": 9}, 2), ({"kernel": 2}, 9),
    ],
)  # fmt: skip
def test_a_read_out_has_the_cells_that_its_protocol_says(changed, cells):
    protocol = Protocol(feature_size=10, **changed)
    maps = drawn(2, 3, 10, 10)
    assert protocol.cells == cells and ReadOut(3, protocol)(maps).shape == (2, cells, cells)


# -------------------------------------------------------------------------------- read-out


@pytest.mark.parametrize(("depth", "kernel"), [(1, 3), (1, 5), (3, 3)])
def test_the_first_weights_are_xavier_s(depth, kernel):
    protocol = Protocol(feature_size=12, depth=depth, kernel=kernel, width=20)
    convolutions = [m for m in ReadOut(150, protocol, 3).modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [20] * (depth - 1) + [1]
    assert [c.in_channels for c in convolutions] == [150] + [20] * (depth - 1)
    for conv in convolutions:
        bound = math.sqrt(6 / ((conv.in_channels + conv.out_channels) * kernel**2))
        weights = conv.weight.detach().flatten()
        assert conv.bias is None and float(weights.abs().max()) <= bound
        assert len(weights) >= 180
        # uniform: the largest of n is near the bound, the variance a third of its square
        assert float(weights.abs().max()) > bound * (1 - 10 / len(weights))
        assert float(weights.square().mean()) == pytest.approx(bound**2 / 3, rel=0.3)


def test_a_seed_gives_the_weights_and_nothing_else_does():
    before = torch.get_rng_state()
    first = ReadOut(5, SMALL, 7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert equal(first.state_dict(), ReadOut(5, SMALL, 7).state_dict())
    assert not torch.equal(first.first.weight, ReadOut(5, SMALL, 8).first.weight)


# -------------------------------------------------------------------------------- convolve


@pytest.mark.parametrize("outputs", [(1, 1), (3, 1), (5, 3), (4, 4), (20, 1)])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_convolve_is_a_convolution_with_the_weights_of_each_trial(kernel, padding, outputs):
    trials, width = outputs  # 15 outputs or fewer go another way than 16 or more
    for order in (torch.contiguous_format, torch.channels_last):
        maps = drawn(2, 3, 7, 9, seed=1).contiguous(memory_format=order).requires_grad_()
        weights = (drawn(trials, width, 3, kernel, kernel, seed=2) - 0.5).requires_grad_()
        found = convolve(maps, weights, padding)
        plain = torch.stack([F.conv2d(maps, one, padding=padding) for one in weights], 1)
        torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)
        slope = drawn(*plain.shape, seed=3) - 0.5
        for mine, theirs in zip(
            torch.autograd.grad(found, (maps, weights), slope),
            torch.autograd.grad(plain, (maps, weights), slope),
            strict=True,
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------------------------- training


def by_hand(maps, wanted, seed: int, protocol: Protocol) -> tuple[nn.Sequential, float]:
    """Train a read-out with nothing but PyTorch, from the first weights of ours."""
    steps, channels = [], maps.shape[1]
    for layer in range(protocol.depth):
        last = layer == protocol.depth - 1
        width = 1 if last else protocol.width
        steps += [
            nn.Conv2d(channels, width, protocol.kernel, padding=protocol.padding, bias=False),
            nn.BatchNorm2d(width),
            nn.Sigmoid() if last else nn.ReLU(),
        ]
        channels = width
    model = nn.Sequential(*steps)
    first = ReadOut(maps.shape[1], protocol, seed).state_dict()
    model.load_state_dict(dict(zip(model.state_dict(), first.values(), strict=True)))
    if protocol.optimiser == "adam":
        optimiser = torch.optim.Adam(
            model.parameters(), lr=protocol.lr, weight_decay=protocol.weight_decay
        )
    else:
        optimiser = torch.optim.SGD(
            model.parameters(), lr=protocol.lr, momentum=protocol.momentum,
            weight_decay=protocol.weight_decay,
        )  # fmt: skip
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, protocol.drops, gamma=0.1)
    order, loss = torch.Generator().manual_seed(seed), math.nan
    for _ in range(protocol.epochs):
        total = 0.0
        for chosen in torch.randperm(len(maps), generator=order).split(protocol.batch):
            optimiser.zero_grad()
            output = F.interpolate(
                model(maps[chosen]), size=wanted.shape, mode="bilinear", align_corners=True
            )
            error = F.mse_loss(output[:, 0], wanted.expand(len(chosen), -1, -1))
            error.backward()
            optimiser.step()
            total += error.item() * len(chosen)
        schedule.step()
        loss = total / len(maps)
    return model, loss


def assert_same_training(found, seed, name, model, loss):
    """Every number must be much nearer to the other training's than to where it began."""
    start = ReadOut(model[0].in_channels, found.protocol, seed)
    place = found.seeds.index(seed), found.targets.index(name)
    mine = ReadOut(model[0].in_channels, found.protocol)
    mine.load_state_dict(trial(found, seed, name))
    rows = zip(
        start.state_dict().items(), mine.state_dict().values(), model.state_dict().values(),
        strict=True,
    )  # fmt: skip
    for (key, begun), ours, theirs in rows:
        if key.endswith("num_batches_tracked"):
            assert int(ours) == int(theirs) > 0
            continue
        step = float((theirs - begun).abs().max())
        assert step > 1e-5
        assert float((ours - theirs).abs().max()) < 1e-4 * step + 2e-7
    assert float(found.losses[place]) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"padding": 1, "kernel": 5},
        {"depth": 2, "width": 5},
        {"depth": 2, "width": 20, "padding": 1},
        {"batch": 7, "momentum": 0.0, "weight_decay": 0.1, "drops": ()},
        {"batch": 32},  # more than there are
        {"optimiser": "adam", "lr": 0.01},
        {"optimiser": "adam", "lr": 0.01, "depth": 2, "width": 4, "weight_decay": 0.01},
    ],
    ids=str,
)
def test_training_makes_the_steps_of_a_plain_loop(changed):
    protocol, maps = replace(SMALL, **changed), some_maps()
    found = train(maps, ["V", "HS"], [5, 2], protocol)
    assert found.losses.shape == (2, 2)
    for seed in (5, 2):
        for name in ("V", "HS"):
            model, loss = by_hand(maps, target(name, 13), seed, protocol)
            assert_same_training(found, seed, name, model, loss)


@pytest.mark.parametrize(
    ("batch", "names"),
    [(1, ["V"]), (9, ["V"]), (1, ["V", "HS"]), (9, ["V", "HS"]), (9, [f"t{i}" for i in range(18)])],
)
def test_a_batch_of_one_window_is_trained_like_any_other(batch, names):
    protocol, maps = replace(SMALL, batch=batch), some_maps()  # 10 = 9 + 1
    wanted = {name: drawn(13, 13, seed=i) for i, name in enumerate(names)}
    found = train(maps, wanted, [5], protocol)
    for name in names[:2]:
        model, loss = by_hand(maps, wanted[name], 5, protocol)
        assert_same_training(found, 5, name, model, loss)


def test_a_trial_does_not_depend_on_the_others():
    maps = some_maps()
    together = train(maps, TARGETS, [0, 3, 1], SMALL)
    assert (together.seeds, together.targets) == ((0, 3, 1), TARGETS)
    alone = train(maps, ["G"], [3], SMALL)
    turned = train(maps, ["G", "H"], [1, 3], SMALL)
    begun = ReadOut(3, SMALL, 3).state_dict()
    for key, value in trial(together, 3, "G").items():
        for other in (alone, turned):
            torch.testing.assert_close(trial(other, 3, "G")[key], value, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(value.float(), begun[key].float(), rtol=1e-3, atol=1e-3)
    assert float(alone.losses[0, 0]) == pytest.approx(float(together.losses[1, 2]), rel=1e-5)


@pytest.mark.parametrize("changed", [{}, {"depth": 2, "optimiser": "adam"}], ids=str)
def test_the_same_call_gives_the_same_bits_and_another_seed_others(changed):
    protocol, maps = replace(SMALL, **changed), some_maps()
    found = train(maps, ["H", "VS"], [0, 1], protocol)
    torch.rand(5)
    again = train(maps.clone(), ["H", "VS"], [0, 1], protocol)
    assert equal(found.state, again.state) and torch.equal(found.losses, again.losses)
    for key in ("first.weight", "rest.0.weight", "rest.0.running_mean"):
        assert not torch.equal(found.state[key][0], found.state[key][1])
        assert not torch.equal(found.state[key][:, 0], found.state[key][:, 1])
    assert not torch.equal(found.losses[0], found.losses[1])


def test_the_order_of_memory_does_not_matter():
    maps = some_maps()
    plain, last = (
        train(maps.contiguous(memory_format=order), ["V"], [0], SMALL)
        for order in (torch.contiguous_format, torch.channels_last)
    )
    assert equal(plain.state, last.state)


def test_training_needs_no_gradients_around_it_and_no_global_generator():
    maps, before = some_maps(), torch.get_rng_state()
    expected = train(maps, ["H"], [0], SMALL)
    with torch.no_grad():
        found = train(maps, ["H"], [0], SMALL)
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)
    assert equal(found.state, expected.state)
    assert not torch.equal(found.state["first.weight"][0, 0], ReadOut(3, SMALL, 0).first.weight)
    assert not any(value.requires_grad for value in found.state.values())
    assert torch.equal(maps, some_maps())


def test_no_epoch_leaves_the_first_weights_and_no_loss():
    found = train(some_maps(), ["H", "V"], [4], replace(SMALL, epochs=0))
    begun = ReadOut(3, SMALL, 4).state_dict()
    assert equal({key: trial(found, 4, "V")[key] for key in begun}, dict(begun))
    assert found.losses.isnan().all()


@pytest.mark.parametrize("changed", [{}, {"depth": 2, "padding": 1, "width": 4}], ids=str)
def test_predict_is_the_module_in_evaluation_and_resized(changed):
    protocol = replace(SMALL, **changed)
    found, others = train(some_maps(), ["H", "G"], [2, 0], protocol), some_maps(6, seed=9)
    for seed in (2, 0):
        for name in ("H", "G"):
            module = ReadOut(3, protocol)
            module.load_state_dict(trial(found, seed, name))
            with torch.no_grad():
                small = module.eval()(others)
            expected = F.interpolate(
                small[:, None].double(), size=(13, 13), mode="bilinear", align_corners=True
            )[:, 0]
            painted_ = found.predict(others, seed, name)
            assert painted_.shape == (6, 13, 13) and painted_.dtype == torch.float64
            torch.testing.assert_close(painted_, expected, rtol=1e-6, atol=1e-6)
            # evaluation: a window's map does not depend on the others
            one = found.predict(others[2:3], seed, name)
            torch.testing.assert_close(one[0], painted_[2], rtol=1e-5, atol=1e-6)


def test_targets_of_ones_own_are_taken_at_their_size():
    own = {"spot": torch.zeros(9, 9), "edge": torch.ones(9, 9).triu()}
    own["spot"][4, 4] = 1
    found = train(some_maps(), own, [0], SMALL)
    assert found.targets == ("spot", "edge")
    assert found.predict(some_maps(), 0, "edge").shape == (10, 9, 9)
    _, loss = by_hand(some_maps(), own["edge"], 0, SMALL)
    assert float(found.losses[0, 1]) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("fit", [train, ridge])
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"targets": ["H", "VSS"]}, "unknown target 'VSS'; did you mean 'VS'?"),
        ({"targets": []}, "no target given; give some of H, V, G, HS, VS"),
        ({"targets": {"x": torch.zeros(4, 5)}}, "target 'x' has shape (4, 5)"),
        ({"targets": {"x": torch.zeros(4)}}, "target 'x' has shape (4,)"),
        ({"targets": {"x": torch.zeros(4, 4), "y": torch.zeros(5, 5)}}, "'y' has shape (5, 5)"),
        ({"targets": {"x": torch.full((4, 4), 1.5)}}, "target 'x' leaves [0, 1]; scale it"),
        ({"targets": {"x": torch.full((4, 4), -0.1)}}, "target 'x' leaves [0, 1]"),
        ({"targets": {"x": torch.full((4, 4), math.nan)}}, "target 'x' leaves [0, 1]"),
        ({"maps": torch.zeros(4, 3, 9, 9)}, "maps have shape (4, 3, 9, 9); expected (n, C, 8, 8)"),
        ({"maps": torch.zeros(1, 3, 8, 8)}, "n of at least 2"),
        ({"maps": torch.zeros(3, 8, 8)}, "maps have shape (3, 8, 8)"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(fit, changed, words):
    asked = {"maps": some_maps(), "targets": ["H"], "protocol": SMALL, **changed}
    assert words in refused(fit, **asked)


def test_seeds_that_cannot_be_are_refused():
    assert "no seed given" in refused(train, some_maps(), ["H"], [], SMALL)
    for seed in (-1, 2**32, 0.0, True):
        said = refused(lambda seed=seed: train(some_maps(), ["H"], [0, seed], SMALL))
        assert f"seed = {seed!r}" in said


# ------------------------------------------------------------------------------ closed form

PENALTIES = np.logspace(-6, 2, 9)
TINY = Protocol(feature_size=6, target_size=9)  # 4 x 4 cells


def design_matrix(maps: np.ndarray, channels: np.ndarray | None = None) -> np.ndarray:
    """Neighbourhoods of the standardised maps, one row a cell."""
    of = maps if channels is None else channels
    centre, scale = of.mean((0, 2, 3)), of.std((0, 2, 3), ddof=1)
    standard = (maps - centre[:, None, None]) / scale[:, None, None]
    patches = np.lib.stride_tricks.sliding_window_view(standard, (3, 3), (2, 3))
    return patches.transpose(0, 2, 3, 1, 4, 5).reshape(-1, maps.shape[1] * 9)


def solved(x: np.ndarray, y: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    """Ridge regression with a free intercept, as an ordinary one with rows for the penalty."""
    centred, height = x - x.mean(0), y - y.mean()
    more = np.sqrt(penalty * len(x)) * np.eye(x.shape[1])
    rows, wanted = np.vstack([centred, more]), np.concatenate([height, np.zeros(len(more))])
    weights = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    return weights, float(y.mean() - x.mean(0) @ weights)


def shrunk(wanted: torch.Tensor, cells: int) -> np.ndarray:
    """Resize a target bilinearly with aligned corners, in NumPy."""
    places = np.linspace(0, wanted.shape[0] - 1, cells)
    rows = [np.interp(places, np.arange(wanted.shape[0]), row) for row in wanted.numpy()]
    return np.array([np.interp(places, np.arange(len(rows)), c) for c in np.array(rows).T]).T


@pytest.mark.parametrize("n", [12, 9, 2])
def test_the_closed_form_is_a_ridge_regression(n):
    maps = some_maps(n, 2, 6, seed=3)
    wanted = {"V": target("V", 9), "own": drawn(9, 9, seed=4)}
    found = ridge(maps, wanted, TINY, batch=5)
    assert (found.seeds, found.targets, len(found.penalty)) == ((0,), ("V", "own"), 2)
    double = maps.double().numpy()
    x, held = design_matrix(double), max(1, n // 4) * 16
    for i, (name, picture) in enumerate(wanted.items()):
        y = np.tile(shrunk(picture, 4).ravel(), n)
        errors = []
        for penalty in PENALTIES:
            weights, bias = solved(x[:-held], y[:-held], penalty)
            errors.append(np.mean((x[-held:] @ weights + bias - y[-held:]) ** 2))
        best = int(np.argmin(errors))
        assert found.penalty[i] == pytest.approx(PENALTIES[best])
        assert float(found.losses[0, i]) == pytest.approx(errors[best], rel=1e-4)
        weights, bias = solved(x, y, PENALTIES[best])
        others = some_maps(3, 2, 6, seed=8)
        small = design_matrix(others.double().numpy(), double) @ weights + bias
        expected = F.interpolate(
            torch.from_numpy(small).reshape(3, 1, 4, 4), size=(9, 9), mode="bilinear",
            align_corners=True,
        )[:, 0]  # fmt: skip
        torch.testing.assert_close(found.predict(others, 0, name), expected, rtol=0, atol=1e-4)


def test_a_constant_channel_does_not_break_the_closed_form():
    maps, others = some_maps(8, 3), some_maps(4, 3, seed=1)
    expected = ridge(maps, ["H"], SMALL).predict(others, 0, "H")
    for value in (0.0, 0.7, -2.2, 1000.1):
        fitted = ridge(torch.cat([maps, torch.full((8, 1, 8, 8), value)], 1), ["H"], SMALL)
        found = fitted.predict(torch.cat([others, torch.full((4, 1, 8, 8), value)], 1), 0, "H")
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


# ----------------------------------------------------------------------------------- scores


@pytest.mark.parametrize("name", TARGETS)
def test_scores_are_spearman_s_and_the_mean_error(name):
    wanted = target(name, 11)
    maps = 0.5 * wanted + 0.5 * drawn(19, 11, 11)  # more than are scored together
    maps[3:9] = maps[3:9].mul(4).round().div(4)  # with many equal values
    maps[12, :, 5:] = 0.25
    maps[13] = wanted
    maps[14] = 1 - wanted
    for predicted in (maps, maps.double()):
        spc, mae = scores(predicted, wanted)
        assert spc.shape == mae.shape == (19,)
        for i, one in enumerate(predicted.numpy()):
            expected = stats.spearmanr(one.ravel(), wanted.numpy().ravel()).statistic
            assert spc[i] == pytest.approx(expected, abs=1e-9)
            assert mae[i] == pytest.approx(np.abs(one - wanted.numpy()).mean(), rel=1e-5)
    assert (spc[13], mae[13]) == (pytest.approx(1), 0) and spc[14] == pytest.approx(-1, abs=0.01)


def test_a_constant_map_has_no_correlation_but_an_error():
    wanted = target("V", 8)
    maps = torch.stack([torch.full((8, 8), 0.25), wanted, torch.full((8, 8), 0.5), wanted.T])
    maps = maps.double()
    maps[2] += 1e-8 * drawn(8, 8)  # constant but for rounding
    assert len(maps[2].unique()) > 32
    spc, mae = scores(maps, wanted)
    assert np.isnan(spc).tolist() == [True, False, True, False]
    assert spc[1] == pytest.approx(1) and spc[3] == pytest.approx(0, abs=1e-12)
    assert np.allclose(mae[[0, 1]], [float((0.25 - wanted).abs().mean()), 0])


def test_what_cannot_be_compared_is_refused():
    said = refused(scores, drawn(2, 8, 8), torch.full((8, 8), 0.3))
    assert "the target is constant, so Spearman's correlation with it is undefined" in said
    said = refused(scores, drawn(2, 8, 8), target("H", 9))
    assert said.startswith("maps of (8, 8) cannot be compared with a target of (9, 9)")


def test_a_map_that_is_no_number_has_no_correlation():
    spc, _ = scores(torch.full((1, 8, 8), math.nan), target("H", 8))
    assert np.isnan(spc[0])


def test_no_map_has_no_scores():
    spc, mae = scores(torch.empty(0, 8, 8), target("H", 8))
    assert spc.shape == mae.shape == (0,)


# --------------------------------------------------------------------------------- features


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(),
            nn.Conv2d(4, 5, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(5, 6, 3, padding=1),
        ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def windows():
    """Five windows of 24 px in two pictures; one has a row and a column too many."""
    return Windows(
        [
            Picture("a", drawn(3, 48, 56, seed=1), np.array([8, 12, 20]), np.array([10, 30, 8])),
            Picture("b", drawn(3, 45, 53, seed=2), np.array([14, 8]), np.array([8, 22])),
        ],
        24,
    )


def pieces(windows):
    """Every window's picture and offsets."""
    return [(p.pixels, int(y), int(x)) for p in windows for y, x in zip(p.tops, p.lefts)]


def resized(maps, size: int) -> torch.Tensor:
    """Resize and concatenate the maps of one window."""
    return torch.cat(
        [F.interpolate(m, (size, size), mode="bilinear", align_corners=True) for m in maps], 1
    )[0]


@torch.no_grad()
@pytest.mark.parametrize("batch", [32, 2])
def test_features_are_the_resized_maps_of_the_layers(net, windows, batch):
    found = features(net, windows, LAYERS, 10, batch=batch)
    assert found.shape == (5, 9, 10, 10) and found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    for one, (pixels, y, x) in zip(found, pieces(windows), strict=True):
        first = net[:2](pixels[None, :, y : y + 24, x : x + 24])
        expected = resized([first, net[2:4](first)], 10)
        torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-6)


def test_without_a_network_the_features_are_the_pixels(windows):
    whole, small = features(None, windows, size=24), features(None, windows, size=7)
    for one, little, (pixels, y, x) in zip(whole, small, pieces(windows), strict=True):
        window = pixels[:, y : y + 24, x : x + 24]
        torch.testing.assert_close(one, window)
        torch.testing.assert_close(little, resized([window[None]], 7))


@torch.no_grad()
@pytest.mark.parametrize("batch", [32, 2])
def test_surrounded_features_are_cut_from_the_maps_of_whole_pictures(net, windows, batch):
    reach = ppp.coverage(net, LAYERS, 24)
    found = features(net, windows, LAYERS, 10, surrounded=reach, batch=batch)
    for one, (pixels, y, x) in zip(found, pieces(windows), strict=True):
        first = net[:2](pixels[None])
        second = net[2:4](first)
        second = second[:, :, y // 2 : y // 2 + 12, x // 2 : x // 2 + 12]
        expected = resized([first[:, :, y : y + 24, x : x + 24], second], 10)
        torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-6)


def test_surroundings_that_are_too_narrow_or_misaligned_are_refused(net):
    reach = ppp.coverage(net, LAYERS, 24)
    for top, words in ((0, "surroundings too narrow"), (9, "misaligned")):
        alone = Windows([Picture("a", drawn(3, 48, 48), np.array([top]), np.array([8]))], 24)
        call = lambda alone=alone: features(net, alone, LAYERS, 8, surrounded=reach)  # noqa: E731
        assert words in refused(call, error=MarginError)
        assert features(net, alone, LAYERS, 8).shape == (1, 9, 8, 8)  # own padding needs none


def test_features_that_cannot_be_are_refused(net, windows):
    said = refused(features, net, windows, LAYERS, error=PictureError)
    assert said.startswith("windows are 24 x 24 px, smaller than the read-out's grid of 28 x 28")
    wide = Windows([Picture("a", drawn(3, 48, 48), np.array([8]), np.array([8]))], (20, 24))
    assert "20 x 24 px" in refused(features, None, wide, size=21, error=PictureError)
    assert "no layer given" in refused(features, net, windows, [], 10, error=LayerError)
    assert "unknown layer '7'" in refused(
        lambda: features(net, windows, ["7"], 10), error=LayerError
    )
    empty = Windows([], 24)
    assert "no window" in refused(features, net, empty, LAYERS, 10, error=PictureError)


def test_a_network_in_training_is_refused(windows):
    training = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = training[1].running_mean.clone()
    assert "train mode" in refused(features, training, windows, ["1"], 10, error=PPPError)
    assert torch.equal(training[1].running_mean, before)


def test_a_trial_that_was_not_trained_is_refused():
    found = train(some_maps(), ["H"], [3], replace(SMALL, epochs=1))
    assert refused(found.predict, some_maps(), 3, "V") == "unknown target 'V'; known: H"
    said = refused(found.predict, some_maps(), 0, "H")
    assert said == "no trial has the seed 0; known: 3"


def test_the_closed_form_does_not_pad():
    padded = Protocol(feature_size=8, kernel=8, padding=4)
    said = refused(ridge, some_maps(), ["H"], padded)
    assert said.startswith("1 convolutions of 8 x 8 leave 1 cells of a grid of 8")
