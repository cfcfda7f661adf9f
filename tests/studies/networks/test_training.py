import hashlib
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from checks import refused

from ppp import files
from ppp.errors import PaddingError, ParameterError, WeightsError
from ppp.swapping import Pad2d, current_scheme
from studies.networks import rebuilt, small_resnet, small_vgg, training
from studies.networks.names import PADDINGS
from studies.networks.small import pad_with
from studies.networks.training import (
    Settings,
    _TrainingSet,
    evaluate,
    load_run,
    train,
    windows,
    with_batch_statistics,
)
from studies.pictures.plane import SHAPES

short = {"steps": 3, "batch": 4, "n_train": 16, "n_test": 8, "progress": False, "device": "cpu"}
long = short | {"steps": 8}


@pytest.fixture(autouse=True)
def one_thread_and_states_often(monkeypatch):
    monkeypatch.setattr(training, "_EVERY", 3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def same(first, second) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def look(step, model):
    """An observer whose numbers depend on every weight."""
    total = sum(float(p.detach().double().sum()) for p in model.parameters())
    return [{"total": total, "nothing": None}], {"bias": model.bn1.bias.detach().clone()}


observed = {"observe": look, "observe_at": (0, 2, 4, 7, 8)}


def equal(first, second) -> bool:
    assert same(first.model, second.model)
    assert first.log == second.log and first.rows == second.rows
    assert first.tensors.keys() == second.tensors.keys()
    assert all(torch.equal(first.tensors[k], v) for k, v in second.tensors.items())
    times = {"seconds": None}
    assert first.record | times == second.record | times
    return True


# -------------------------------------------------------------------------------- training


@pytest.mark.parametrize(
    ("family", "padding"), [("resnet", "zeros"), ("vgg", "randn"), ("resnet", "mixed")]
)
def test_two_runs_give_the_same_weights_bit_for_bit(family, padding):
    first = train(family, padding=padding, seed=2, **short)
    again = train(family, padding=padding, seed=2, **short)
    other = train(family, padding=padding, seed=3, **short)
    assert equal(first, again) and not same(first.model, other.model)
    assert not first.model.training


def test_a_run_starts_at_the_initial_weights_and_is_observed_where_asked():
    seen = []

    def note(step, model):
        seen.append(step)
        assert model.training
        if step == 0:
            assert same(model, small_resnet(seed=1))
        return [{"a": 1.5}], {"x": torch.zeros(1)}

    run = train("resnet", seed=1, **short, observe=note, observe_at=(3, 0, 2, 9))
    assert seen == [0, 2, 3] == run.record["observed"]
    assert run.rows == [{"step": step, "a": 1.5} for step in seen]
    assert list(run.tensors) == ["0/x", "2/x", "3/x"]
    assert not same(run.model, small_resnet(seed=1))
    assert [row["step"] for row in run.log] == [3]


def test_networks_with_other_padding_begin_with_the_same_weights():
    start = [train("vgg", padding=p, seed=1, **short, until=0).model for p in ("zeros", "optimal")]
    assert same(*start) and same(start[0], small_vgg(seed=1))


@pytest.mark.parametrize("family", ["resnet", "vgg"])
def test_a_network_trains_with_its_true_surroundings(family):
    settings = {"steps": 2, "batch": 2, "n_train": 4, "n_test": 4, "progress": False}
    run = train(family, padding="optimal", **settings, device="cpu")
    assert max(run.model.surroundings) > 30 and run.record["padding"] == "optimal"
    assert all(bool(torch.isfinite(v).all()) for v in run.model.state_dict().values())
    assert equal(run, train(family, padding="optimal", **settings, device="cpu"))


def test_each_batch_has_another_scheme_and_all_of_them_are_met(monkeypatch):
    met = []
    work = training._Work(Settings("resnet", "mixed", seed=3, steps=40, batch=2, n_train=4), "cpu")
    usual = work.model.forward

    def forward(pixels):
        (scheme,) = {str(m.scheme) for m in work.model.modules() if isinstance(m, Pad2d)}
        met.append(scheme)
        return usual(pixels)

    monkeypatch.setattr(work.model, "forward", forward)
    batch = windows(0, 2, 0)
    for _ in range(40):
        work.advance(*batch)
    assert set(met) == set(PADDINGS) and min(map(met.count, PADDINGS)) >= 2
    draws = [int(np.random.default_rng([3, step, 2]).integers(5)) for step in range(40)]
    assert met == [PADDINGS[draw] for draw in draws]


@pytest.mark.parametrize("scheme", PADDINGS)
def test_gradients_reach_every_weight_under_each_scheme(scheme):
    noise = torch.Generator().manual_seed(1)
    model = small_resnet(padding="mixed", generator=noise)
    pad_with(model, scheme)
    pixels, labels = windows(0, 4, 0)
    torch.nn.functional.cross_entropy(model(pixels), labels).backward()
    grown = [float(p.grad.abs().sum()) for p in model.parameters()]
    assert np.isfinite(grown).all() and min(grown) > 0
    drawn = not torch.equal(noise.get_state(), torch.Generator().manual_seed(1).get_state())
    assert drawn == (scheme == "randn")


@pytest.mark.nightly
def test_training_reduces_the_loss():
    settings = {"steps": 60, "batch": 8, "n_train": 16, "n_test": 8}
    run = train("resnet", **settings, lr=0.02, progress=False, device="cpu")
    assert run.log[0]["loss"] < 2.6
    assert run.log[-1]["loss"] < run.log[0]["loss"] - 0.5
    assert run.log[-1]["train_accuracy"] > 2 / len(SHAPES)


def test_the_first_steps_are_those_of_the_whole_run():
    kept = {}

    def keep(step, model):
        kept[step] = {k: v.clone() for k, v in model.state_dict().items()}
        return [], {}

    train("resnet", **long, observe=keep, observe_at=(5,))
    first = train("resnet", **long, until=5)
    assert all(torch.equal(first.model.state_dict()[k], v) for k, v in kept[5].items())
    assert first.record["epochs"] == 5 / 4


def test_a_trained_network_goes_on_from_its_weights_at_a_constant_rate(tmp_path):
    first = train("resnet", seed=1, **short).model
    rates, usual = [], training._Work.advance

    def note(work, *batch):
        group = work.optimiser.param_groups[0]
        rates.append((group["lr"], group["momentum"], group["nesterov"]))
        usual(work, *batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training._Work, "advance", note)
        run = train("resnet", padding="circular", seed=1, **long, start=first, **observed)
    assert rates == [(pytest.approx(0.1 / 25), 0.95, True)] * 8
    assert run.rows[0]["total"] == look(0, first)[0][0]["total"] != run.rows[1]["total"]
    again = train("resnet", padding="circular", seed=1, **long, start=first, **observed)
    assert equal(run, again) and not same(run.model, first)
    folder = {"start": first, "folder": tmp_path / "run"}
    assert "and a folder" in refused(train, "resnet", **short, **folder, error=ParameterError)
    assert not (tmp_path / "run").exists()


# -------------------------------------------------------------------- interrupted and kept


@pytest.mark.parametrize(("padding", "at"), [("zeros", 0), ("randn", 4), ("mixed", 7)])
def test_an_interrupted_run_continues_bit_for_bit(tmp_path, padding, at):
    whole = train("resnet", padding=padding, **long, **observed)
    folder = tmp_path / "run"

    def stop(step, model):
        if step == at:
            raise KeyboardInterrupt
        return look(step, model)

    with pytest.raises(KeyboardInterrupt):
        train("resnet", padding=padding, **long, folder=folder, **(observed | {"observe": stop}))
    assert (folder / "state.pt").exists() == (at > 3)
    assert not (folder / "record.json").exists()
    continued = train("resnet", padding=padding, **long, folder=folder, **observed)
    assert equal(whole, continued) and equal(whole, load_run(folder))
    assert not (folder / "state.pt").exists()


def test_the_noise_of_random_padding_continues_where_it_was(tmp_path, monkeypatch):
    settings = Settings("vgg", "randn", steps=4, batch=2, n_train=4)
    pixels, labels = windows(0, 2, 0)
    first = training._Work(settings, "cpu")
    for _ in range(2):
        first.advance(pixels, labels)
    torch.save(first.state(0.0), tmp_path / "state.pt")
    second = training._Work(settings, "cpu")
    assert not torch.equal(first.noise.get_state(), second.noise.get_state())
    second.resume(torch.load(tmp_path / "state.pt", weights_only=True))
    for work in (first, second):
        work.advance(pixels, labels)
    assert torch.equal(first.noise.get_state(), second.noise.get_state())
    assert same(first.model, second.model)


KILLED = """
import sys, time, torch
from studies.networks import training
sys.path[:0] = {places!r}
from test_training import long, look
torch.set_num_threads(1)
training._EVERY = 3

def wait(step, model):
    if step == 4:
        time.sleep(600)
    return look(step, model)

training.train(
    "resnet", padding="randn", **long, folder={folder!r}, observe=wait, observe_at=(0, 2, 4, 7, 8)
)
"""


@pytest.mark.nightly
def test_a_killed_process_continues_bit_for_bit(tmp_path):
    folder = tmp_path / "run"
    places = [str(training.Path(__file__).parent), *sys.path]  # of this file, and what it imports
    script = KILLED.format(folder=str(folder), places=places)
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        deadline = time.monotonic() + 120
        while not (folder / "state.pt").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert {path.name for path in folder.iterdir()} == {"settings.json", "state.pt"}
    whole = train("resnet", padding="randn", **long, **observed)
    assert equal(whole, train("resnet", padding="randn", **long, folder=folder, **observed))


def test_a_finished_run_is_returned_and_not_trained_again(tmp_path, monkeypatch):
    first = train("resnet", **short, folder=tmp_path / "run", observe=look, observe_at=(0, 3))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
    assert len(before) == 6

    def refuse(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(training, "_Work", refuse)
    monkeypatch.setattr(training, "_TrainingSet", refuse)
    again = train("resnet", **short, folder=tmp_path / "run", observe=look, observe_at=(0, 3))
    assert equal(first, again) and first.record == again.record
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()} == before
    assert not again.model.training


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seed": 1}, "seed = 0, not 1"),
        ({"lr": 0.2}, "lr = 0.1, not 0.2"),
        ({"n_test": 9}, "n_test = 8, not 9"),
        ({"padding": "randn"}, "padding = 'zeros', not 'randn'"),
    ],
)
def test_a_folder_of_another_run_is_refused(tmp_path, changed, words):
    mine = training._Folder(tmp_path, Settings("resnet", steps=3, batch=4, n_train=16), 8, set())
    before = (tmp_path / "settings.json").read_bytes()
    message = refused(train, "resnet", **(short | changed), folder=tmp_path, error=ParameterError)
    assert words in message and str(mine.path) in message
    assert (tmp_path / "settings.json").read_bytes() == before


def test_a_folder_that_is_no_runs_is_refused(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ParameterError, match=r"no settings\.json"):
        train("resnet", **short, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    for text in ("{", "[1]", '{"family": "vgg"}'):
        (tmp_path / "settings.json").write_text(text)
        with pytest.raises(ParameterError, match="give another folder"):
            train("resnet", **short, folder=tmp_path)
    with pytest.raises(ParameterError, match="is a file; give the folder"):
        train("resnet", **short, folder=tmp_path / "thesis.txt")


def test_a_run_killed_before_it_could_write_its_settings_begins_again(tmp_path):
    (tmp_path / ".settings.json.ab12").touch()
    assert train("resnet", **short, folder=tmp_path).record["steps"] == 3


def test_a_damaged_state_is_refused_in_one_line(tmp_path):
    def stop(step, model):
        raise KeyboardInterrupt

    def resume():
        train("resnet", **long, folder=tmp_path, observe=stop, observe_at=(4,))

    with pytest.raises(KeyboardInterrupt):
        resume()
    path = tmp_path / "state.pt"
    content = path.read_bytes()
    other = training._Work(Settings("vgg", steps=8), "cpu").state(0.0)
    torch.save(other, tmp_path / "other")
    torch.save([1], tmp_path / "list")
    others = [(tmp_path / name).read_bytes() for name in ("other", "list")]
    for broken in (content[: len(content) // 2], content[:-100], b"", b"not a state", *others):
        path.write_bytes(broken)
        assert str(path) in refused(resume, error=WeightsError)
        assert path.read_bytes() == broken
    path.write_bytes(content)
    with pytest.raises(KeyboardInterrupt):
        resume()


def test_a_full_disk_leaves_the_last_state_and_the_run_continues(tmp_path, monkeypatch):
    whole = train("resnet", **long, **observed)
    write = files.os.replace

    def full(source, target, after=[]):  # noqa: B006, it counts
        after.append(target)
        if len(after) > 2:  # the settings and the first state
            raise OSError(28, "No space left on device", str(target))
        write(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", full)
        with pytest.raises(OSError, match="No space"):
            train("resnet", **long, folder=tmp_path, **observed)
    assert {path.name for path in tmp_path.iterdir()} == {"settings.json", "state.pt"}
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 3
    with monkeypatch.context() as patch:  # now there is room until the very end
        done = lambda s, t: full(s, t) if "record" in str(t) else write(s, t)  # noqa: E731
        patch.setattr(files.os, "replace", done)
        with pytest.raises(OSError, match="No space"):
            train("resnet", **long, folder=tmp_path, **observed)
    assert (tmp_path / "state.pt").exists() and not (tmp_path / "record.json").exists()
    assert equal(whole, train("resnet", **long, folder=tmp_path, **observed))
    monkeypatch.setattr(files.os, "replace", full)
    assert equal(whole, train("resnet", **long, folder=tmp_path, **observed))


def test_a_damaged_finished_run_is_refused_in_one_line(tmp_path):
    train("resnet", **short, folder=tmp_path)
    for name in ("weights.safetensors", "tensors.safetensors", "rows.json", "log.csv"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        assert str(tmp_path) in refused(load_run, tmp_path, error=WeightsError)
        for changed in (content[:-3], content + b"1\n"):
            (tmp_path / name).write_bytes(changed)
            assert name in refused(load_run, tmp_path, error=WeightsError)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "weights.safetensors").write_bytes(b"1234")
    with pytest.raises(WeightsError, match="cannot be read"):
        train("resnet", **short, folder=tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0), ("steps", 65537), ("batch", 1), ("batch", "64"), ("batch", 17),
        ("seed", -1), ("seed", True), ("seed", 65536), ("seed", 1.0), ("n_test", 2.5),
        ("n_test", 0), ("n_train", 1), ("n_train", 3), ("lr", 0), ("lr", 11),
        ("lr", float("nan")), ("lr", "0.1"), ("until", 4), ("until", -1),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_before_anything_runs(tmp_path, name, value):
    options = short | {name: value} | {"folder": tmp_path / "run"}
    assert name in refused(train, "resnet", **options, error=ParameterError)
    assert not (tmp_path / "run").exists()


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(ParameterError, match="did you mean 'resnet'"):
        train("resnt")
    with pytest.raises(PaddingError, match="did you mean 'zeros'"):
        train("resnet", padding="zero")
    with pytest.raises(PaddingError, match="unknown padding 'mixd'"):
        train("resnet", padding="mixd")
    with pytest.raises(ParameterError, match="unknown family 'mixed'"):
        train("mixed")
    with pytest.raises(ParameterError, match="until = 2 and a folder"):
        train("resnet", **short, until=2, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# -------------------------------------------------------------------------------- windows


def test_windows_are_reproducible_balanced_and_normalised():
    pixels, labels = windows(80, 16, 5)
    again, _ = windows(80, 16, 5)
    assert torch.equal(pixels, again)
    assert labels.bincount().tolist() == [2] * 8
    assert pixels.shape == (16, 3, 96, 96) and -2 <= float(pixels.min()) < float(pixels.max()) <= 2
    assert not torch.equal(windows(80, 16, 6)[0], pixels)


def test_surroundings_go_around_the_same_windows():
    pixels, labels = windows(80, 4, 5)
    wide, same_labels = windows(80, 4, 5, (10, 3))
    assert wide.shape == (4, 3, 109, 109) and torch.equal(labels, same_labels)
    assert torch.equal(wide[..., 10:106, 10:106], pixels)


def test_the_training_set_is_a_function_of_the_settings():
    settings = Settings("resnet", seed=5, steps=12, batch=4, n_train=18)
    first, again = (_TrainingSet(settings, (0, 0), "") for _ in range(2))
    for step in (11, 0, 7):
        for a, b in zip(first.batch(step), again.batch(step)):
            assert torch.equal(a, b)
    assert settings.epoch == 4
    other = _TrainingSet(Settings("resnet", seed=6, batch=4, n_train=18), (0, 0), "")
    assert not torch.equal(other.pixels, first.pixels)
    # Eight bits of the windows that `windows` gives, of scenes that no test window shows.
    pixels, labels = windows(5 << 24, 18, 5)
    close = (first.pixels.float() / 255 - 0.5) / 0.25
    torch.testing.assert_close(close, pixels, atol=0.5 / 255 / 0.25 + 1e-6, rtol=0)
    assert torch.equal(first.labels, labels)


def test_a_short_run_renders_the_windows_that_it_uses_alone(monkeypatch):
    rendered = []

    def flat(scenes, shapes, tops, lefts, size):
        rendered.extend(scenes)
        values = (scenes + tops + 3 * lefts) % 251 / 255
        return torch.from_numpy(values).float().view(-1, 1, 1, 1).repeat(1, 3, size, size)

    monkeypatch.setattr(training, "render_windows", flat)
    settings = Settings("resnet", seed=5, steps=150, batch=4, n_train=602)  # in three parts
    whole = _TrainingSet(settings, (0, 0), "")
    for stop, used in ((1, 4), (5, 20), (150, 600), (151, 602)):
        rendered.clear()
        short = _TrainingSet(settings, (0, 0), "", stop)
        assert len(rendered) == len(set(rendered)) == used
        for step in range(stop):
            for a, b in zip(short.batch(step), whole.batch(step)):
                assert torch.equal(a, b)


def test_every_window_is_used_at_most_once_in_an_epoch():
    settings = Settings("resnet", steps=12, batch=4, n_train=18)
    data = _TrainingSet(settings, (0, 0), "")
    marks = torch.arange(18, dtype=torch.uint8)
    data.pixels[:] = marks.view(-1, 1, 1, 1)
    orders = []
    for epoch in range(3):
        used = []
        for step in range(4 * epoch, 4 * epoch + 4):
            pixels, labels = data.batch(step)
            which = ((pixels[:, 0, 0, 0] * 0.25 + 0.5) * 255).round().long()
            assert torch.equal(data.labels[which], labels)
            used += which.tolist()
        assert len(set(used)) == 16
        orders.append(used)
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize(("family", "around"), [("resnet", (48, 33)), ("vgg", (61, 61))])
def test_a_turned_batch_with_surroundings_holds_the_plain_batch(family, around):
    settings = Settings(family, "optimal", seed=3, steps=40, batch=2, n_train=4)
    assert around == training.FAMILIES[family](padding="optimal").surroundings
    wide, plain = (_TrainingSet(settings, sides, "") for sides in (around, (0, 0)))
    inside = slice(around[0], around[0] + 96)
    turned = set()
    for step in range(40):
        pixels, labels = wide.batch(step)
        expected, same_labels = plain.batch(step)
        assert pixels.shape[2:] == (96 + sum(around),) * 2
        assert torch.equal(pixels[..., inside, inside], expected)
        assert torch.equal(labels, same_labels)
        draw = np.random.default_rng([3, step // 2, 1])
        draw.permutation(4)
        turned.add(int(draw.integers(8, size=2)[step % 2]))
    assert turned == set(range(8))


# ----------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("padding", ["zeros", "randn", "optimal"])
def test_evaluation_leaves_the_model_as_it_is_and_repeats(padding, mode):
    noise = torch.Generator().manual_seed(7)
    model = small_resnet(padding=padding, generator=noise).train(mode)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    drawn = noise.get_state()
    right, loss = evaluate(model, 5)
    assert right in (0, 0.2, 0.4, 0.6, 0.8, 1) and loss > 0
    assert evaluate(model, 5) == (right, loss)
    assert model.training == mode
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert torch.equal(noise.get_state(), drawn)


def test_evaluation_counts_and_averages(monkeypatch):
    class Constant(torch.nn.Module):
        def forward(self, x):
            scores = torch.zeros(len(x), len(SHAPES))
            scores[:, 2] = 1
            return scores

    right, loss = evaluate(Constant(), 80)
    assert right == 1 / len(SHAPES)
    scores = torch.zeros(len(SHAPES)).index_fill(0, torch.tensor(2), 1.0)
    assert loss == pytest.approx(float(-scores.log_softmax(0).mean()), rel=1e-6)


@pytest.mark.parametrize("padding", ["randn", "optimal"])
def test_batch_statistics_come_from_windows_and_leave_the_model_alone(padding):
    noise = torch.Generator().manual_seed(7)
    model = small_resnet(padding=padding, generator=noise)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    drawn = noise.get_state()
    found = with_batch_statistics(model, 6, first_scene=40)
    assert not found.training and model.training and model.bn1.momentum == 0.1
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert torch.equal(noise.get_state(), drawn)
    assert same(found, with_batch_statistics(model, 6, first_scene=40))
    assert not same(found, with_batch_statistics(model, 6, first_scene=48))
    if padding == "optimal":
        pixels, _ = windows(40, 6, 0, model.surroundings)
        maps = model.conv1(pixels)
        torch.testing.assert_close(found.bn1.running_mean, maps.mean((0, 2, 3)))
        torch.testing.assert_close(found.bn1.running_var, maps.var((0, 2, 3)))


def test_batch_statistics_of_a_mixed_network_come_from_each_scheme_in_turn(monkeypatch):
    noise = torch.Generator().manual_seed(7)
    model, drawn = small_resnet(padding="mixed", generator=noise), noise.get_state()
    mixed = with_batch_statistics(model, 128, schemes=("circular", "zeros"))
    assert torch.equal(noise.get_state(), drawn) and current_scheme(model.conv1).name == "zeros"
    halves = []
    for scheme, first in (("circular", 0), ("zeros", 64)):
        one = rebuilt(model, scheme)
        halves.append(with_batch_statistics(one, 64, first_scene=first).bn1.running_mean)
    torch.testing.assert_close(mixed.bn1.running_mean, (halves[0] + halves[1]) / 2)
    assert not same(mixed, with_batch_statistics(model, 128))
    again = with_batch_statistics(model, 128, schemes=("circular", "zeros"))
    assert same(mixed, again)


def test_a_mixed_network_is_a_networks_weights_and_any_scheme_fits_them(tmp_path):
    run = train("resnet", padding="mixed", seed=1, **short, folder=tmp_path)
    kept = load_run(tmp_path).model
    assert same(run.model, kept)
    assert run.record["padding"] == "mixed"
    assert run.record["test_accuracy"] == evaluate(rebuilt(kept, "zeros"), 8)[0]
    start = train("resnet", padding="mixed", seed=1, **short, until=0)
    assert same(start.model, small_resnet(seed=1))


def test_a_record_says_what_was_done(tmp_path):
    run = train("vgg", padding="reflect", seed=1, **short, folder=tmp_path)
    record = json.loads((tmp_path / "record.json").read_text())
    for name, digest in record.pop("files").items():
        assert digest == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert record == run.record == load_run(tmp_path).record
    assert record["steps"] == 3 and record["n_test"] == 8 and record["epochs"] == 0.75
    assert record["train_scenes"] == [1 << 24, (1 << 24) + 16]
    assert record["train_scenes"][1] <= record["test_scenes"][0]
    assert record["test_accuracy"] == evaluate(run.model, 8)[0]
