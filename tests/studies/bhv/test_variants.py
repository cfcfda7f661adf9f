import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from checks import refused
from torch import nn

from studies.bhv import variants
from studies.bhv.redgreen import RedGreen
from studies.bhv.variants import VARIANTS, Kept, Protocol, accuracies, network, surroundings, train

small = Protocol(epochs=2, n_train=60, n_validation=40, n_test=40, batch=20)
published = RedGreen()
PADS = {"V": 0, "S-zero": 1, "S-circular": 1, "F-zero": 2}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def by_hand(seed: int, padding: int = 0, mode: str = "zeros") -> nn.Sequential:
    """Build the published network, layer after layer, without any of ours."""
    torch.manual_seed(seed)
    c1 = nn.Conv2d(3, 32, 3, 1, padding, bias=False, padding_mode=mode)
    c2 = nn.Conv2d(32, 32, 3, 2, padding, bias=False, padding_mode=mode)
    c3 = nn.Conv2d(32, 64, 3, 2, padding, bias=False, padding_mode=mode)
    c4 = nn.Conv2d(64, 64, 3, 2, padding, bias=False, padding_mode=mode)
    head = nn.Linear(64, 2)
    maps = [module for conv in (c1, c2, c3, c4) for module in (conv, nn.ReLU())]
    return nn.Sequential(*maps, nn.AdaptiveMaxPool2d(1), nn.Flatten(), head)


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [value.detach() for value in model.state_dict().values()]


def equal(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(weights(first), weights(second), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def untrained(name: str, seed: int, protocol: Protocol = small) -> Kept:
    """Return a network with random weights that tells both classes."""
    model = network(name, seed).eval()
    images, _ = RedGreen().images(40, 1988, surroundings=surroundings(name))
    with torch.no_grad():
        model.fc.bias -= model(images).median(0).values
        assert len(set(model(images).argmax(1).tolist())) == 2
    return Kept(variant=name, protocol=protocol, model=model)


@torch.no_grad()
def scores(kept: Kept, shift: int, data: RedGreen = published) -> torch.Tensor:
    images, _ = data.images(60, 1988, shift, surroundings(kept.variant))
    return kept.model(images)


def loss_on(kept: Kept, seed: int, n: int) -> float:
    images, labels = RedGreen().images(n, seed, surroundings=surroundings(kept.variant))
    with torch.no_grad():
        return float(F.cross_entropy(kept.model(images), labels))


# -------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_begins_with_the_published_weights(name):
    for seed in (0, 7):
        before = torch.get_rng_state()
        model = network(name, seed)
        assert torch.equal(torch.get_rng_state(), before)
        assert equal(model, by_hand(seed))
    assert not equal(network(name, 0), network(name, 1))


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        (["V"], (30, 14, 6, 2)),
        (["S-zero", "S-circular", "S-reflect", "S-replicate", "S-randn"], (32, 16, 8, 4)),
        (["S-circular-2", "F-zero"], (34, 18, 10, 6)),
        (["S-optimal"], (39, 19, 9, 4)),
        (["F-optimal"], (55, 27, 13, 6)),
    ],
)
def test_the_maps_of_a_variant_have_their_sizes(names, sizes):
    for name in names:
        x, shapes = RedGreen().images(1, 0, 0, surroundings(name))[0], {}
        for layer, module in network(name, 0).named_children():
            x = module(x)
            shapes[layer] = tuple(x.shape[2:])
        assert [shapes[layer] for layer in variants.LAYERS] == [(size, size) for size in sizes]
        assert shapes["pool"] == (1, 1) and x.shape == (1, 2)


@pytest.mark.parametrize(
    ("name", "padding", "mode"),
    [
        ("V", 0, "zeros"), ("S-zero", 1, "zeros"), ("F-zero", 2, "zeros"),
        ("S-circular", 1, "circular"), ("S-circular-2", 2, "circular"),
        ("S-reflect", 1, "reflect"), ("S-replicate", 1, "replicate"),
    ],
)  # fmt: skip
def test_a_variant_is_pytorch_s_network_with_this_padding(name, padding, mode):
    images, _ = RedGreen("noise").images(6, 0)
    with torch.no_grad():
        expected = by_hand(3, padding, mode)(images)
        torch.testing.assert_close(network(name, 3)(images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "padded"), [("S-optimal", "S-replicate"), ("F-optimal", "F-zero")]
)
def test_true_surroundings_give_the_cells_of_the_padded_network(name, padded):
    before, after = surroundings(name)
    wide = torch.rand(2, 3, *(before + 32 + after,) * 2, generator=torch.Generator().manual_seed(0))
    window = wide[:, :, before : before + 32, before : before + 32]
    with torch.no_grad():
        free, bound = (network(n, 0)[:8](x) for n, x in ((name, wide), (padded, window)))
    assert free.shape == bound.shape
    # a cell reads 17 px, cells are 8 px apart and the first begins 8 px outside for each padded
    first = VARIANTS[name].amount
    inside = slice(first, first + 2)
    torch.testing.assert_close(free[..., inside, inside], bound[..., inside, inside])
    close = torch.isclose(free, bound, rtol=1e-3, atol=1e-5).all(1).all(0)
    close[inside, inside] = False
    assert not close.any()


# ------------------------------------------------------------------------------- invariance


@pytest.mark.parametrize("name", ["F-zero", "S-circular", "F-optimal"])
def test_moves_by_the_stride_change_nothing_where_padding_is_the_canvas(name):
    kept = untrained(name, 0)
    still = scores(kept, 0)
    for shift in (8, 16):
        torch.testing.assert_close(scores(kept, shift), still, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(scores(kept, 12), still, rtol=1e-3, atol=1e-4)
    found = accuracies(kept, (0, 8, 16))
    assert 0 < found[0] < 1 and found[8] == found[0] == found[16]


# --------------------------------------------------------------------------------- training


@pytest.mark.parametrize("name", PADS)
def test_training_makes_the_published_steps(name):
    # Whole batches at once, of 50, 50 and 20 images: pieces of 20 do not divide them.
    protocol = Protocol(epochs=1, n_train=120, n_validation=20, n_test=20, batch=50)
    (kept,), log = train(name, protocol, seed=4)
    model = by_hand(4, PADS[name], "circular" if name == "S-circular" else "zeros")
    assert equal(model, network(name, 4))
    optimiser = torch.optim.Adadelta(
        model.parameters(), lr=1.0, rho=0.9, eps=1e-6, weight_decay=5e-5
    )
    images, labels = RedGreen().images(120, 1988)
    criterion, total, right = nn.CrossEntropyLoss(), 0.0, 0
    for first in range(0, 120, 50):
        x, y = images[first : first + 50].contiguous(), labels[first : first + 50]
        optimiser.zero_grad()
        output = model(x)
        loss = criterion(output, y)
        loss.backward()
        optimiser.step()
        total += loss.item() * len(y)
        right += int((output.argmax(1) == y).sum())
    begun = weights(by_hand(4))
    for mine, published, start in zip(weights(kept.model), weights(model), begun, strict=True):
        step = float((published - start).abs().max())
        assert step > 1e-3
        assert float((mine - published).abs().max()) < 0.01 * step
        assert float((mine - published).norm()) < 0.001 * float((published - start).norm())
    assert log["loss"].tolist() == pytest.approx([total / 120], rel=1e-5)
    assert log["accuracy"].tolist() == [right / 120]


def test_batches_are_drawn_anew_in_every_epoch_if_asked(monkeypatch):
    epoch, orders = variants._epoch, []

    def note(model, optimiser, images, labels, order, batch):
        orders.append(order.tolist())
        return epoch(model, optimiser, images, labels, order, batch)

    monkeypatch.setattr(variants, "_epoch", note)
    train("V", replace(small, shuffled=True))
    assert all(sorted(order) == list(range(60)) for order in orders)
    assert orders[0] != orders[1] and sorted(orders[0]) not in orders
    orders.clear()
    train("V", small)
    assert orders == [list(range(60))] * 2


@pytest.mark.parametrize(("name", "shuffled"), [("V", False), ("S-randn", True), ("F-zero", True)])
def test_the_same_arguments_give_the_same_weights_bit_for_bit(name, shuffled):
    protocol = replace(small, shuffled=shuffled)
    (first,), log = train(name, protocol, seed=3)
    torch.rand(5)  # the global generator has no part in it
    (again,), same_log = train(name, protocol, seed=3)
    (other,), other_log = train(name, protocol, seed=4)
    assert equal(first.model, again.model) and log.equals(same_log)
    assert accuracies(first, (0, 9)) == accuracies(again, (0, 9)) == accuracies(first, (0, 9))
    assert not equal(first.model, other.model) and not log.equals(other_log)
    assert not equal(first.model, network(name, 3)) and not first.model.training
    assert log["epoch"].tolist() == [1, 2]


def test_protocols_that_share_a_training_keep_what_each_would_alone():
    base = Protocol(epochs=4, n_train=60, n_validation=40, n_test=20, batch=20, shuffled=True)
    protocols = [
        replace(base, epochs=2),
        base,
        replace(base, split="independent", patience=0),
        replace(base, enough=0.6931),
    ]
    together, log = train("S-randn", protocols, seed=1)
    assert [kept.protocol for kept in together] == protocols
    assert len(log) == max(kept.ended for kept in together)
    for kept in together:
        (alone,), own = train("S-randn", kept.protocol, seed=1)
        assert equal(kept.model, alone.model)
        names = ("epoch", "ended", "validation_loss")
        assert [getattr(kept, name) for name in names] == [getattr(alone, name) for name in names]
        pd.testing.assert_frame_equal(log[: len(own)][own.columns], own, check_exact=True)
    assert together[0].ended == 2 and together[1].ended == 4
    assert together[3].ended < 4 and together[3].validation_loss < 0.6931


@pytest.mark.parametrize(
    "changed", [{"shuffled": True}, {"batch": 10}, {"n_train": 80}, {"n_validation": 20},
                {"n_test": 20}]
)  # fmt: skip
def test_protocols_that_differ_in_more_cannot_share(changed):
    words = "protocols that share a training may differ in what is kept alone"
    assert words in refused(train, "V", [small, replace(small, **changed)])


# ------------------------------------------------------------------------- what is kept


def published_rule(losses: list[float], patience: int, epochs: int) -> tuple[int, int]:
    """Return the kept and the last epoch, as the published code goes through its epochs."""
    best, kept, waited = math.inf, 0, 0
    for epoch, loss in enumerate(losses[:epochs], 1):
        if loss < best:
            best, kept, waited = loss, epoch, 0
        elif waited < patience:
            waited += 1
        else:
            break
    return kept, epoch


def kept_of(losses, protocol: Protocol = variants.PUBLISHED) -> Kept:
    """Offer networks whose weights are all the number of their epoch."""
    model = network("V", 0)
    kept = Kept(variant="V", protocol=protocol, model=network("V", 1))
    for epoch, loss in enumerate(losses, 1):
        if not kept.running:
            break
        for value in weights(model):
            value.fill_(epoch)
        kept.offer(epoch, loss, model)
    return kept


def test_the_rule_is_the_published_one_whatever_the_losses():
    draw = torch.Generator().manual_seed(0)
    for patience in (0, 1, 3, 8):
        for _ in range(20):
            losses = torch.randint(0, 40, (60,), generator=draw).tolist()
            kept = kept_of(losses, Protocol(patience=patience))
            assert (kept.epoch, kept.ended) == published_rule(losses, patience, 50)
            assert not kept.running


def test_the_best_epoch_s_weights_are_restored_and_not_the_last():
    kept = kept_of([3.0, 1.0, 2.0, 1.0, 5.0]).restored()
    assert kept.epoch == 2 and kept.ended == 5 and not kept.model.training
    assert all(bool((value == 2).all()) for value in weights(kept.model))


def test_a_loss_that_is_low_enough_ends_training():
    kept = kept_of([0.5, 0.1, 0.05, 0.01], Protocol(enough=0.1))
    assert (kept.epoch, kept.ended) == (3, 3) and not kept.running  # 0.1 is not below
    assert kept_of([0.0, 0.0]).running  # the published code has no such rule


# ---------------------------------------------------------------------------------- splits


def test_leaked_images_are_training_images_and_independent_ones_are_not():
    leaked, independent = small, replace(small, split="independent")
    assert set(leaked.seeds.values()) == {1988} and len(set(independent.seeds.values())) == 3
    assert leaked.seeds["training"] == independent.seeds["training"]
    images, labels = RedGreen().images(60, 1988)
    kept, log = train("F-zero", [leaked, independent])
    for one in kept:
        split, last = one.protocol.split, one.epoch - 1
        with torch.no_grad():
            on_training = float(F.cross_entropy(one.model(images[:40]), labels[:40]))
        assert (one.validation_loss == pytest.approx(on_training, rel=1e-6)) == (split == "leaked")
        assert log[f"{split}_loss"][last] == one.validation_loss
        expected = loss_on(one, one.protocol.seeds["validation"], 40)
        assert one.validation_loss == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("split", "seed"), [("leaked", 1988), ("independent", 1990)])
def test_accuracies_are_those_of_the_test_images(split, seed):
    kept = untrained("V", 0, replace(small, split=split))
    found = accuracies(kept, [0, 9, 16])
    for shift in (0, 9, 16):
        images, labels = RedGreen().images(40, seed, shift)
        with torch.no_grad():
            right = kept.model(images).argmax(1) == labels
        assert found[shift] == pytest.approx(float(right.double().mean()), abs=1e-6)
    assert list(found) == [0, 9, 16] and 0 < found[0] < 1


# -------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ({"epochs": 0}, "epochs = 0; expected a whole number of at least 1"),
        ({"batch": 0}, "batch = 0"),
        ({"n_train": 0}, "n_train = 0"),
        ({"n_test": "10"}, "n_test = '10'"),
        ({"patience": -1}, "patience = -1; expected a whole number of at least 0"),
        ({"enough": -0.1}, "enough = -0.1"),
        ({"enough": float("nan")}, "enough = nan"),
        ({"split": "leeked"}, "unknown split 'leeked'; did you mean 'leaked'?"),
        ({"n_train": 999}, "1000 images for validation or test, but only 999 training images"),
    ],
)
def test_protocols_that_cannot_be_are_refused(factors, words):
    assert words in refused(Protocol, **factors)
    if factors.get("n_train"):
        assert Protocol(split="independent", **factors).n_train == 999


def test_unknown_variants_are_refused_with_the_nearest_name():
    for call in (variants.variant, surroundings, lambda name: network(name, 0), train):
        message = refused(lambda call=call: call("S-circlar"))
        assert "unknown variant 'S-circlar'; did you mean 'S-circular'?" in message


def test_shifts_that_take_blocks_off_the_canvas_are_refused():
    kept = untrained("V", 0)
    for shift in (19, -1, 1.0):
        assert f"shift {shift!r}" in refused(lambda s=shift: accuracies(kept, [0, s]))


def test_a_seed_or_no_protocol_that_cannot_be_are_refused():
    small = Protocol(n_train=4, n_validation=2, n_test=2, batch=2, epochs=1)
    assert "seed = -1" in refused(train, "V", small, seed=-1)
    assert "at least one" in refused(train, "V", [])


def test_the_smallest_canvas_leaves_every_variant_a_cell():
    smallest = RedGreen(size=17, block=1, jitter=1)
    for name in VARIANTS:
        images, _ = smallest.images(2, 0, surroundings=surroundings(name))
        assert network(name, 0)(images).shape == (2, 2)


def test_a_loss_that_is_no_number_is_beaten_by_any_other():
    model = network("V", 0)
    kept = variants.Kept("V", Protocol(), network("V", 0))
    kept.offer(1, float("nan"), model)
    kept.offer(2, 5.0, model)
    kept.offer(3, float("nan"), model)
    assert (kept.epoch, kept.validation_loss) == (2, 5.0)
