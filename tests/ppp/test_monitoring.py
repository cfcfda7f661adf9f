"""PPP in torchmetrics' form and in a training loop: known values, merging, no disturbance."""

import copy
import importlib.util
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from checks import refused
from torch import nn

import ppp
from ppp.metrics import Moments, snr_ppp
from ppp.monitoring import METRICS, Monitor, PPPMetric, lightning_callback

needs_torchmetrics = pytest.mark.skipif(
    importlib.util.find_spec("torchmetrics") is None,
    reason="torchmetrics is not installed; run: pip install torchmetrics",
)
needs_lightning = pytest.mark.skipif(
    not any(importlib.util.find_spec(name) for name in ("lightning", "pytorch_lightning")),
    reason="lightning is not installed; run: pip install lightning",
)


def maps(n=12, cells=(3, 5, 4), seed=0, pattern=0.0):
    generator = torch.Generator().manual_seed(seed)
    optimal = torch.randn(n, *cells, generator=generator) * 2 + 1
    return optimal + pattern + 0.1 * torch.randn(n, *cells, generator=generator), optimal


# ---- known values


def test_a_known_pattern_has_its_mae():
    # O is 1 or -1 in every cell, so sigma^2 = 32 / 31; D is 0.5 in the first row, 0 elsewhere.
    optimal = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    pattern = torch.zeros(1, 4, 4)
    pattern[:, 0] = 0.5
    metric = PPPMetric()
    metric.update(optimal + pattern, optimal)
    assert float(metric.compute()) == pytest.approx(0.125 / (32 / 31) ** 0.5, rel=1e-12)
    power = PPPMetric("power")
    power.update(optimal + pattern, optimal)
    assert float(power.compute()) == pytest.approx(0.0625, rel=1e-12)  # without any spread


def test_the_floor_is_what_noise_shows():
    noise, floor = PPPMetric("mae"), PPPMetric("floor")
    for metric in (noise, floor):
        metric.update(*maps(200, (8, 20, 20)))
    assert float(floor.compute()) == pytest.approx(float(noise.compute()), rel=0.03)


def test_the_metrics_are_those_of_the_library():
    algorithmic, optimal = maps(pattern=0.3)
    d = Moments().update(algorithmic, optimal)
    sigma = float(optimal.double().std())
    expected = {
        "mae": ppp.mae_ppp(d.mean, sigma),
        "snr": snr_ppp(d.mean, d.variance),
        "floor": float((d.variance / d.n * 2 / torch.pi).sqrt().mean()) / sigma,
        "power": float((d.mean.square() - d.variance / d.n).mean()),
    }
    assert expected.keys() == set(METRICS)
    for name, value in expected.items():
        metric = PPPMetric(name)
        for part in (slice(0, 5), slice(5, 6), slice(6, None)):
            metric.update(algorithmic[part], optimal[part])
        assert float(metric.compute()) == pytest.approx(value, rel=1e-9), name


def test_a_measurement_s_maps_give_its_mae():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
    reach = ppp.coverage(net.eval(), ["0", "2"], 16)
    metric = {layer: PPPMetric() for layer in reach}

    def give(picture, scheme, layer, algorithmic, optimal):
        metric[layer].update(algorithmic, optimal)

    found = ppp.measure(net, cut(reach), ["0", "2"], coverage=reach, maps=give)
    for layer, one in metric.items():
        assert float(one.compute()) == pytest.approx(found["own", layer].mae.value, rel=1e-5)


# ---- the form


def test_forward_gives_the_batch_s_value_and_adds_it():
    first, second = maps(seed=1, pattern=1.0), maps(seed=2)
    metric, alone, whole = PPPMetric(), PPPMetric(), PPPMetric()
    metric.update(*first)
    alone.update(*second)
    assert float(metric(*second)) == pytest.approx(float(alone.compute()), rel=1e-12)
    whole.update(*map(torch.cat, zip(first, second)))
    assert float(metric.compute()) == pytest.approx(float(whole.compute()), rel=1e-12)


def test_reset_and_pickling():
    metric = PPPMetric()
    metric.update(*maps(seed=1))
    value = metric.compute()
    assert pickle.loads(pickle.dumps(metric)).compute() == copy.deepcopy(metric).compute() == value
    metric.reset()
    refused(metric.compute)
    metric.update(*maps(4, (2, 3, 3)))  # another shape than before
    assert metric.difference.shape == (2, 3, 3)


def test_merging_is_seeing_both():
    parts, whole = [PPPMetric(), PPPMetric()], PPPMetric()
    for seed, part in enumerate(parts):
        part.update(*maps(seed=seed))
        whole.update(*maps(seed=seed))
    parts[0].merge_state(parts[1])
    assert float(parts[0].compute()) == pytest.approx(float(whole.compute()), rel=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: PPPMetric("mea"), "did you mean 'mae'"),
        (lambda: PPPMetric().update(*maps()[:1], maps(cells=(3, 5, 5))[1]), "same shape"),
        (lambda: PPPMetric().update(torch.zeros(2, 3), torch.zeros(2, 3)), "(N, C, H, W)"),
        (lambda: PPPMetric(shape=(1, 2, 2)).update(*maps()), "expected (1, 2, 2) each"),
        (lambda: PPPMetric("snr", shape=(1, 2, 2)).compute(), "0 windows given; snr needs"),
    ],
)
def test_what_cannot_be_is_refused(call, words):
    assert words in refused(call)


TWO = """\
import sys
import torch
import torch.distributed as dist
from ppp.monitoring import PPPMetric

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=sys.argv[2], rank=rank, world_size=2)
generator = torch.Generator().manual_seed(0)
optimal = torch.randn(12, 3, 5, 4, generator=generator)
algorithmic = optimal + torch.rand(12, 3, 5, 4, generator=generator)
mine = slice(0, 5) if rank == 0 else slice(5, 12)
metric = PPPMetric()
metric.update(algorithmic[mine], optimal[mine])
print(float(metric.compute()), float(metric.compute()), int(metric.windows), flush=True)
dist.barrier()
dist.destroy_process_group()
"""


def test_two_processes_are_merged(tmp_path):
    generator = torch.Generator().manual_seed(0)
    optimal = torch.randn(12, 3, 5, 4, generator=generator)
    whole = PPPMetric()
    whole.update(optimal + torch.rand(12, 3, 5, 4, generator=generator), optimal)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [Path.cwd(), *sys.path]))}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, str(rank), (tmp_path / "meeting").as_uri()],
            stdout=subprocess.PIPE, text=True, env=environment,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    for process, own in zip(both, (5, 7)):
        values = process.communicate(timeout=120)[0].split()
        assert process.returncode == 0 and int(values[2]) == own
        for value in values[:2]:
            assert float(value) == pytest.approx(float(whole.compute()), rel=1e-12)


# ---- torchmetrics' own checks


@needs_torchmetrics
def test_torchmetrics_own_check_of_the_forward_pass(capsys):
    from torchmetrics.utilities import check_forward_full_state_property

    algorithmic, optimal = maps()
    check_forward_full_state_property(
        PPPMetric, input_args={"algorithmic": algorithmic, "optimal": optimal},
        num_update_to_compare=[2, 4], reps=2,
    )  # fmt: skip
    # Where the two ways of a forward pass disagree, it says so without taking their times.
    assert "Partial state for 4 steps took" in capsys.readouterr().out


@needs_torchmetrics
def test_it_works_in_a_collection_and_in_a_tracker():
    from torchmetrics import Metric, MetricCollection, MetricTracker

    assert issubclass(PPPMetric, Metric)
    together = MetricCollection({name: PPPMetric(name) for name in METRICS})
    together.update(*maps(pattern=0.3))
    for name, value in together.compute().items():
        alone = PPPMetric(name)
        alone.update(*maps(pattern=0.3))
        assert float(value) == pytest.approx(float(alone.compute()), rel=1e-12)
    tracker = MetricTracker(PPPMetric(), maximize=False)
    for pattern in (0.5, 0.2, 0.9):
        tracker.increment()
        tracker.update(*maps(pattern=pattern))
    best, step = tracker.best_metric(return_step=True)
    assert step == 1 and float(best) == float(tracker.compute_all()[1])


@needs_torchmetrics
def test_bounds_and_direction():
    assert PPPMetric.higher_is_better is False and PPPMetric.plot_lower_bound == 0.0
    assert not PPPMetric.is_differentiable


# ---- the monitor


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1),
        nn.Conv2d(4, 2, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def cut(reach):
    generator = torch.Generator().manual_seed(0)
    scenes = {name: torch.rand(3, 48, 48, generator=generator) for name in "abcd"}
    return ppp.cut_windows(scenes, 16, reach, per_picture=4, seed=0)


def train(model, monitor=lambda step: None, steps=21):
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(steps):
        model.train()
        optimizer.zero_grad()
        model(torch.randn(8, 3, 16, 16)).square().sum().backward()
        optimizer.step()
        monitor(step)
    return model


def monitored(model, **options):
    reach = ppp.coverage(model.eval(), ["0", "4"], 16)
    return Monitor(model.train(), cut(reach), ["0", "4"], every=10, coverage=reach, **options)


def test_a_monitored_training_is_the_same_to_the_bit():
    plain, watched = train(network()), network()
    watched[3].eval()  # a module that stays in evaluation keeps its mode
    monitor = monitored(watched)
    assert watched[3].training
    train(watched, monitor)
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(),
                                                 watched.state_dict().values()))  # fmt: skip


def test_it_logs_what_a_measurement_finds(tmp_path):
    logged = []
    model = network()
    monitor = monitored(model, log=lambda values, step: logged.append((step, values)))
    train(model, monitor)
    assert [step for step, _ in logged] == [0, 10, 20]
    final = ppp.measure(
        model.eval(), monitor.windows, ["0", "4"], coverage=monitor.coverage, batch_size=32
    )
    expected = {f"mae_ppp/{layer}": final["own", layer].mae.value for layer in ("0", "4")}
    assert logged[-1][1] == pytest.approx(expected, rel=1e-12)
    table = pd.read_csv(monitor.to_csv(tmp_path / "ppp.csv"))
    assert list(table["step"]) == [0, 0, 10, 10, 20, 20]
    assert list(table["mae"][-2:]) == pytest.approx(list(expected.values()))


def test_several_schemes_have_names_of_their_own():
    model = network()
    reach = ppp.coverage(model.eval(), ["0"], 16)
    monitor = Monitor(model, cut(reach), ["0"], ["zeros", "reflect"], coverage=reach)
    assert set(monitor(0)) == {"mae_ppp/zeros/0", "mae_ppp/reflect/0"}
    assert monitor(1) is None and not model.training


@pytest.mark.parametrize("every", [0, -1, 2.5, True])
def test_the_steps_between_are_a_number(every):
    assert "every = " in refused(lambda: Monitor(network(), None, [], every=every))


def test_lightning_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.setitem(sys.modules, "lightning", None)
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    assert "pip install lightning" in refused(lambda: lightning_callback(None))


@needs_lightning
def test_lightning_s_trainer_logs_it(tmp_path):
    import lightning.pytorch as lightning
    from lightning.pytorch.loggers import CSVLogger

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()

        def training_step(self, batch, index):
            return self.net(batch[0]).square().sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    module = Module()
    data = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.randn(160, 3, 16, 16)), 8
    )
    logger = CSVLogger(tmp_path, name="", version="")
    monitor = monitored(module.net)
    trainer = lightning.Trainer(
        max_epochs=1, logger=logger, callbacks=[lightning_callback(monitor)], accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, data)
    logger.save()
    assert list(monitor.table()["step"].unique()) == [10, 20]
    rows = pd.read_csv(tmp_path / "metrics.csv").dropna(subset=["mae_ppp/0"])
    assert list(rows["mae_ppp/0"]) == pytest.approx(
        list(monitor.table().query("layer == '0'")["mae"]), rel=1e-6
    )
