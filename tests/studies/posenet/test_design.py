import math
from collections import Counter
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from checks import refused
from PIL import Image

import ppp
from ppp.errors import ParameterError, PictureError, WeightsError
from studies.dynamics.design import windows_to_measure
from studies.networks import OPTIMAL, load_network, small_resnet
from studies.networks.names import PADDINGS
from studies.parameters import IMAGES
from studies.pictures.photographs import photographs
from studies.pictures.plane import scenes
from studies.posenet import design, readout
from studies.posenet.design import (
    PIXELS,
    STUDY,
    Features,
    Part,
    PartNetwork,
    Pictures,
    evaluated,
    features_of,
    loaded,
    measured,
    patterns,
    reach_of,
    read_outs,
    train_live,
    trials,
    windows,
)
from studies.posenet.readout import TARGETS, Protocol, scores

HEAD = ["part", "padding", "seed"]
LAYERS = ["relu", "layer1", "layer2", "layer3", "layer4"]
DOCUMENTED = {"photographs": 32, "plane": 16, "black": 1, "white": 1, "noise": 8}
FEW = {"photographs": 4, "plane": 2, "black": 1, "white": 1, "noise": 2}
SHORT = Protocol(target_size=16, epochs=1, batch=4)
TINY = {
    "trained": Part("", ("zeros", "randn"), (0,), trials=2, measured=2),
    "pixels": Part("", (PIXELS,), (0,), trials=1),
    "ridge": Part("", (PIXELS,), (0,), "ridge", 1),
    "surrounded": Part("", (OPTIMAL,), (1,), trials=1, tested=OPTIMAL),
    "vgg": Part("", ("zeros",), (0,), "longer", 1, "vgg", "initial"),
}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def save(folder, name: str, height: int = 240, width: int = 256, seed: int = 0) -> None:
    """Write a photograph of coarse noise."""
    coarse = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
    pixels = F.interpolate(coarse, (height, width), mode="bilinear")[0].permute(1, 2, 0)
    Image.fromarray((255 * pixels.numpy()).astype(np.uint8)).save(folder / name)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Five photographs, the third of which is too small."""
    folder = tmp_path_factory.mktemp("photos")
    for seed, name in enumerate("abcde"):
        save(folder, f"{name}.png", 100 if name == "c" else 240, seed=seed)
    return folder


def tiny_design(patch, photos):
    """Make the design a few runs, each of which takes a moment."""
    patch.setattr(design, "PARTS", TINY)
    patch.setattr(design, "_TESTED", FEW)
    patch.setattr(design, "TARGETS", ("V", "HS"))
    longer = Protocol(target_size=12, epochs=2, drops=(1,), batch=4)
    patch.setattr(design, "PROTOCOLS", {"published": SHORT, "longer": longer})
    patch.setattr(design, "Pictures", partial(Pictures, str(photos)))
    patch.setattr(design, "features_of", partial(features_of, n=8))
    patch.setattr(design, "measured", partial(measured, n=4))


@pytest.fixture
def tiny(monkeypatch, photos):
    tiny_design(monkeypatch, photos)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, photos):
    """A folder with all runs of the tiny design, for reading only."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        tiny_design(patch, photos)
        STUDY.perform(STUDY.runs(), folder)
    return folder


@pytest.fixture
def never(monkeypatch):
    """Let nothing be computed."""
    for name in ("features", "train", "ridge"):
        monkeypatch.setattr(readout, name, lambda *_, **__: pytest.fail("computed"))


def table(folder, run: PartNetwork, name: str) -> pd.DataFrame:
    """A table as a run wrote it, read without the library."""
    return pd.read_csv(folder / run.stem / f"{name}.csv")


# ------------------------------------------------------------------------------------- runs


def test_the_full_design():
    runs = STUDY.runs()
    nets = 5 * 5  # paddings, seeds
    assert Counter(run.part for run in runs) == {
        "trained": nets, "ridge": nets, "longer": nets, "initial": nets,
        "surrounded": nets + 5,  # those trained under optimal padding too
        "vgg": 5 * 3, "pixels": 1, "pixels-ridge": 1, "pixels-longer": 1,
    }  # fmt: skip
    assert {run.padding for run in runs if run.part == "surrounded"} == {*PADDINGS, OPTIMAL}
    assert all((run.padding == PIXELS) == run.part.startswith("pixels") for run in runs)
    assert {run.seed for run in runs if run.part == "vgg"} == {0, 1, 2}
    assert {run.seed for run in runs if run.part == "trained"} == {0, 1, 2, 3, 4}


# ---------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("family", ["resnet", "vgg"])
def test_photographs_to_train_on_are_not_those_to_test_on(photos, family):
    reach = reach_of(family)
    training = {p.name for p in Pictures(str(photos)).training(reach, 8)}
    testing = {p.name for p in Pictures(str(photos)).tests(reach)["photographs"]}
    assert training == {"a.png", "d.png"} and testing == {"b.png", "e.png"}  # c is too small


def test_scikit_image_s_photographs_are_shared_out():
    reach = reach_of("resnet")
    training = [p.name for p in Pictures().training(reach, 8)]
    testing = [p.name for p in Pictures().tests(reach)["photographs"]]
    assert len(training) == len(testing) == 4
    assert sorted(training + testing) == [p.name for p in photographs()]
    assert not set(training) & set(testing)


def test_training_windows_are_equally_many_of_each_and_change_with_the_seed(photos):
    reach, pictures = reach_of("resnet"), Pictures(str(photos))
    found = {seed: list(pictures.training(reach, 9, seed)) for seed in (0, 1)}
    assert [len(p.tops) for p in found[0]] == [4, 4]  # about nine
    assert len(list(pictures.training(reach, 1))) == 2  # at least one of each
    places = [[(*p.tops, *p.lefts) for p in found[seed]] for seed in (0, 1)]
    again = [(*p.tops, *p.lefts) for p in pictures.training(reach, 9)]
    assert places[0] != places[1] and places[0] == again
    # the measure of a normalised photograph: 0 is black, 255 is white
    pixels = torch.from_numpy(np.asarray(Image.open(photos / "a.png")).copy()).permute(2, 0, 1)
    torch.testing.assert_close(found[0][0].pixels, pixels / 255 * 4 - 2, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["resnet", "vgg"])
def test_every_kind_of_image_is_tested_on_in_its_number(photos, family):
    reach = reach_of(family)
    found = Pictures(str(photos)).tests(reach)
    assert tuple(found) == IMAGES
    counts = {kind: len(windows) for kind, windows in found.items()}
    positions = ((240 - (192 if family == "resnet" else 224)) // 16 + 1) * (
        (256 - (192 if family == "resnet" else 224)) // 16 + 1
    )
    assert counts == DOCUMENTED | {"photographs": 2 * min(16, positions)}
    for kind, windows_ in found.items():
        assert windows_.size == (96, 96)
        for picture in windows_:
            size = np.array(picture.pixels.shape[1:]) // 16 * 16
            for layer in reach.values():  # surroundings are wide enough, and aligned
                layer.certify(tuple(size // layer.stride[0]), picture.tops, picture.lefts)
            if kind in ("black", "white"):
                level = {"black": -2, "white": 2}[kind]  # (0 or 1 - 0.5) / 0.25
                assert bool((picture.pixels == level).all())


def test_noise_is_uniform_and_scenes_are_no_others(photos):
    tests = [Pictures(str(photos)).tests(reach_of("resnet")) for _ in range(2)]
    for kind in ("noise", "plane"):
        first, again = ([p.pixels for p in found[kind]] for found in tests)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert not any(torch.equal(a, b) for i, a in enumerate(first) for b in first[:i])
        names = [p.name for p in tests[0][kind]]
        assert len(set(names)) == len(names) == DOCUMENTED[kind]
    noise = torch.stack([p.pixels for p in tests[0]["noise"]])
    assert -2 <= float(noise.min()) < -1.99 and 1.99 < float(noise.max()) <= 2
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert float(noise.std()) == pytest.approx(4 / math.sqrt(12), rel=0.01)
    plane = list(tests[0]["plane"])
    assert not {p.name for p in plane} & {p.name for p in windows_to_measure("resnet", 64)}
    first = scenes(1, 224, 224, seed=int(plane[0].name.rpartition("-")[2]))[0]
    assert first.name == plane[0].name
    torch.testing.assert_close(plane[0].pixels, first.pixels() * 4 - 2, rtol=0, atol=1e-5)


def test_a_normalisation_of_ones_own_is_applied(photos):
    own = Pictures(str(photos), (0.5, 0.25, 0.0), (0.5, 0.25, 1.0)).tests(reach_of("resnet"))
    (white,), (black,) = own["white"], own["black"]
    assert white.pixels[:, 0, 0].tolist() == [1, 3, 1]
    assert black.pixels[:, 0, 0].tolist() == [-1, -1, 0]


def test_photographs_that_are_too_few_or_too_small_are_refused(tmp_path):
    save(tmp_path, "a.png", seed=1)
    reach = reach_of("resnet")
    for use in (Pictures(str(tmp_path)).training, Pictures(str(tmp_path)).tests):
        said = refused(use, reach, error=PictureError)
        assert said.startswith("1 of 1 photographs have the 192 x 192 px")
        assert "give at least two" in said
    for name in ("b.png", "c.png"):
        save(tmp_path, name, 191, seed=ord(name[0]))
    said = refused(Pictures(str(tmp_path)).training, reach, error=PictureError)
    assert said.startswith("1 of 3 photographs")
    save(tmp_path, "d.png", 192, 192, seed=2)
    pictures = Pictures(str(tmp_path))
    assert [p.name for p in pictures.training(reach, 2)] == ["a.png"]
    assert [p.name for p in pictures.tests(reach)["photographs"]] == ["d.png"]


# --------------------------------------------------------------------------------- features


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(design, "_TESTED", FEW)


def test_features_are_those_of_the_windows(few, photos):
    model, layers, reach, pictures = loaded("plane-resnet-zeros", photos=str(photos))
    assert layers == LAYERS
    found = features_of(model, layers, reach, pictures, n=4)
    assert found.training.shape == (4, 16 + 16 + 32 + 48 + 80, 28, 28)
    assert {kind: len(maps) for kind, maps in found.tests.items()} == FEW
    expected = readout.features(model, pictures.training(reach, 4), layers)
    torch.testing.assert_close(found.training, expected)
    for kind, windows_ in pictures.tests(reach).items():
        names = [p.name for p in windows_ for _ in p.tops]
        assert found.pictures[kind] == names and len(names) == FEW[kind]
        torch.testing.assert_close(found.tests[kind], readout.features(model, windows_, layers))


def test_without_a_network_the_features_are_pixels(few, photos):
    found = features_of(None, (), reach_of("resnet"), Pictures(str(photos)), n=4, size=96)
    assert found.training.shape == (4, 3, 96, 96)
    assert bool((found.tests["black"] == -2).all()) and bool((found.tests["white"] == 2).all())


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
def test_black_shows_zeros_and_under_optimal_padding_nothing(few, photos, padding):
    model = small_resnet(padding=padding, seed=1).eval()
    call = partial(features_of, model, LAYERS, reach_of("resnet"), Pictures(str(photos)), n=2)
    for optimal in (False, True):
        black = call(optimal=optimal).tests["black"][0]
        apart = black.amax((1, 2)) - black.amin((1, 2))
        flat = float(apart.max()) < 1e-4 * float(black.abs().max())
        assert flat == (optimal or padding == "replicate")  # which continues what is constant


def test_random_padding_is_drawn_from_the_seed(few, photos):
    model = small_resnet(padding="randn", seed=1).eval()
    call = partial(features_of, model, LAYERS, reach_of("resnet"), Pictures(str(photos)), n=2)
    before = torch.get_rng_state()
    first, again, other = call(seed=3), call(seed=3), call(seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.training, again.training)
    assert not torch.equal(first.training, other.training)
    for kind in IMAGES:
        assert torch.equal(first.tests[kind], again.tests[kind])
        assert not torch.equal(first.tests[kind], other.tests[kind])


# ---------------------------------------------------------------------------------- scoring


def maps_of(n: int, seed: int = 0) -> torch.Tensor:
    """Three channels of noise, of which one is brighter to the right."""
    maps = torch.rand(n, 3, 28, 28, generator=torch.Generator().manual_seed(seed))
    maps[:, 1] += torch.linspace(0, 1, 28)
    return maps


def test_scores_are_means_over_windows_and_undefined_ones_are_counted():
    flat = torch.full((2, 3, 28, 28), 0.5)
    tests = {"photographs": maps_of(3, 1), "black": flat, "noise": torch.cat([maps_of(2, 2), flat])}
    found = read_outs(maps_of(8), ["H", "V"], [0, 4], SHORT)
    names = {"photographs": ["p", "p", "q"], "black": ["black"] * 2, "noise": list("abcd")}
    tables = evaluated(found, Features(maps_of(8), tests, names))
    rows = tables["trials"]
    order = [(s, t, k) for s in (0, 4) for t in ("H", "V") for k in tests]
    assert list(zip(rows["trial"], rows["target"], rows["images"])) == order
    assert rows["n"].tolist() == [3, 2, 4] * 4
    assert rows["undefined"].tolist() == [0, 2, 2] * 4
    for row in rows.itertuples():
        painted = found.predict(tests[row.images], row.trial, row.target)
        spc, mae = scores(painted, readout.target(row.target, 16))
        assert row.mae == pytest.approx(mae.mean())
        assert row.mae_deviation == pytest.approx(np.std(mae, ddof=1))
        if row.images == "black":
            assert pd.isna(row.spc) and pd.isna(row.spc_deviation)
            continue
        spc = spc[: 2 if row.images == "noise" else 3]
        assert row.spc == pytest.approx(spc.mean())
        assert row.spc_deviation == pytest.approx(np.std(spc, ddof=1))
    assert rows["spc"].dtype == float
    shown = tables["windows"]
    assert shown.columns.tolist() == ["trial", "target", "window", "picture", "spc", "mae"]
    assert shown["picture"].tolist() == ["p", "p", "q"] * 4
    assert shown["window"].tolist() == [0, 1, 2] * 4
    means = shown.groupby(["trial", "target"])[["spc", "mae"]].mean()
    for row in rows[rows["images"] == "photographs"].itertuples():
        assert tuple(means.loc[(row.trial, row.target)]) == pytest.approx((row.spc, row.mae))


def test_one_window_has_no_deviation():
    found = read_outs(maps_of(4), ["H"], [0], SHORT)
    tests = {"photographs": maps_of(1), "black": torch.zeros(1, 3, 28, 28)}
    rows = evaluated(found, Features(maps_of(4), tests, {"photographs": ["p"], "black": ["b"]}))
    rows = rows["trials"].set_index("images")
    assert rows[["spc_deviation", "mae_deviation"]].isna().all(axis=None)
    assert rows["undefined"].to_dict() == {"photographs": 0, "black": 1}
    assert rows["mae"].notna().all()
    assert rows["spc"].isna().to_dict() == {"photographs": False, "black": True}


def test_read_outs_are_those_of_a_protocol_its_name_or_the_closed_form(monkeypatch):
    monkeypatch.setattr(design, "PROTOCOLS", {"short": SHORT})
    named, given = (read_outs(maps_of(8), ["H"], [3], p) for p in ("short", SHORT))
    direct = readout.train(maps_of(8), ["H"], [3], SHORT)
    for found in (named, given):
        assert found.seeds == (3,) and found.protocol == SHORT
        assert all(torch.equal(value, direct.state[key]) for key, value in found.state.items())
    closed = read_outs(maps_of(8), ["H"], [3], "ridge")
    assert closed.seeds == (0,) and closed.penalty == readout.ridge(maps_of(8), ["H"]).penalty


def test_an_unknown_protocol_is_refused():
    said = refused(read_outs, maps_of(8), ["H"], [0], "publishd", error=ParameterError)
    assert "did you mean 'published'" in said


def test_ppp_is_measured_on_windows_of_its_own_in_every_trial(photos):
    model, layers, reach, pictures = loaded("plane-resnet-zeros", photos=str(photos))
    found = measured(model, reach, pictures, [0, 5], n=4)
    assert found.columns.tolist() == ["trial", "layer", "metric", "value", "floor"]
    order = [(s, layer, m) for s in (0, 5) for layer in LAYERS for m in ("mae", "snr")]
    assert list(zip(found["trial"], found["layer"], found["metric"])) == order
    for seed in (0, 5):
        again = ppp.measure(model, pictures.training(reach, 4, seed), layers)
        for row in found[found["trial"] == seed].itertuples():
            summary = again[row.layer].summary
            value, floor = {
                "mae": (summary.mae.value, summary.mae_floor),
                "snr": (summary.snr.value, summary.snr_floor),
            }[row.metric]
            assert (row.value, row.floor) == pytest.approx((value, floor), rel=1e-4)
    mae = found[found["metric"] == "mae"].pivot(index="layer", columns="trial", values="value")
    assert (mae[0] != mae[5]).all()
    assert measured(model, reach, pictures, []).columns.tolist() == found.columns.tolist()


# -------------------------------------------------------------------------------- single runs


def test_the_tables_of_a_run_have_all_trials_targets_and_images(tiny, trained):
    for run in STUDY.runs():
        part, rows = TINY[run.part], table(trained, run, "trials")
        order = [(s, t, k) for s in range(part.trials) for t in ("V", "HS") for k in IMAGES]
        assert list(zip(rows["trial"], rows["target"], rows["images"])) == order
        assert rows["n"].tolist() == [*FEW.values()] * 2 * part.trials
        assert (rows[HEAD] == [run.part, run.padding, run.seed]).all(axis=None)
        shown = table(trained, run, "windows")
        assert len(shown) == (part.trials * 2 * 4 if run.part == "trained" else 0)
        assert shown.columns[:3].tolist() == HEAD and "picture" in shown
        measured_ = table(trained, run, "ppp")
        assert len(measured_) == part.measured * 5 * 2
        assert measured_.columns[:3].tolist() == HEAD


def test_what_has_no_correlation_is_an_empty_cell(tiny, trained):
    for run in (
        PartNetwork("pixels", PIXELS, 0),
        PartNetwork("ridge", PIXELS, 0),
        PartNetwork("surrounded", OPTIMAL, 1),
    ):
        rows = table(trained, run, "trials")
        flat = rows["images"].isin(["black", "white"])
        assert (rows.loc[flat, "undefined"] == 1).all() and (
            rows.loc[~flat, "undefined"] == 0
        ).all()
        assert rows.loc[flat, "spc"].isna().all() and rows.loc[~flat, "spc"].notna().all()
        assert rows["mae"].notna().all()
        assert "nan" not in (trained / run.stem / "trials.csv").read_text().lower()
    rows = table(trained, PartNetwork("trained", "zeros", 0), "trials")  # zeros differ from black
    assert (rows["undefined"] == 0).all() and rows["spc"].notna().all()


@pytest.mark.parametrize(
    "run", [PartNetwork("trained", "randn", 0), PartNetwork("surrounded", OPTIMAL, 1)], ids=str
)
def test_the_numbers_of_a_run_are_those_of_its_steps(tiny, trained, photos, run):
    model = load_network(f"plane-resnet-{run.padding}", "trained", seed=run.seed).model
    reach, optimal = reach_of("resnet"), run.part == "surrounded"
    pictures = Pictures(str(photos))
    found = features_of(model, LAYERS, reach, pictures, n=8, optimal=optimal, seed=run.seed)
    fitted = readout.train(found.training, ["HS"], [0], SHORT)
    rows = table(trained, run, "trials")
    rows = rows[(rows["trial"] == 0) & (rows["target"] == "HS")].set_index("images")
    for kind in ("photographs", "plane", "noise"):
        spc, mae = scores(fitted.predict(found.tests[kind], 0, "HS"), readout.target("HS", 16))
        assert rows.loc[kind, "spc"] == pytest.approx(spc.mean(), abs=1e-3)
        assert rows.loc[kind, "mae"] == pytest.approx(mae.mean(), rel=1e-4)
    if run.part == "trained":
        shown = table(trained, run, "windows")
        shown = shown[(shown["trial"] == 0) & (shown["target"] == "HS")]
        assert shown["picture"].tolist() == ["b.png"] * 2 + ["e.png"] * 2
        assert shown["spc"].mean() == pytest.approx(rows.loc["photographs", "spc"])
        expected = measured(model, reach, pictures, [0, 1], n=4)
        pd.testing.assert_frame_equal(
            table(trained, run, "ppp").drop(columns=HEAD), expected, rtol=1e-4
        )


def test_parts_use_their_own_family_weights_and_protocol(tiny, monkeypatch):
    asked, fitted = [], []
    load, fit = design.load_network, design.read_outs

    def loading(name, weights, *, seed):
        asked.append((name, weights, seed))
        return load(name, weights, seed=seed)

    def fitting(maps, targets, seeds, protocol):
        fitted.append((tuple(maps.shape), tuple(seeds), protocol))
        return fit(maps, targets, seeds, protocol)

    monkeypatch.setattr(design, "load_network", loading)
    monkeypatch.setattr(design, "read_outs", fitting)
    design.compute(PartNetwork("vgg", "zeros", 0))
    design.compute(PartNetwork("ridge", PIXELS, 0))
    assert asked == [("plane-vgg-zeros", "initial", 0)]
    assert fitted == [
        ((8, 16 + 24 + 32 + 48 + 64, 28, 28), (0,), "longer"),
        ((8, 3, 28, 28), (0,), "ridge"),
    ]


# ----------------------------------------------------------------------------------- tables


def test_collected_tables_read_back_equal(tiny, trained, tmp_path):
    STUDY.collect(trained, tmp_path, STUDY.runs())
    for read, name, rtol in ((trials, "trials", 1e-5), (windows, "windows", 1e-3),
                             (patterns, "ppp", 1e-6)):  # fmt: skip
        frames = [table(trained, run, name) for run in STUDY.runs()]
        before = pd.concat([f for f in frames if len(f)], ignore_index=True)
        found = read(tmp_path)
        pd.testing.assert_frame_equal(found[list(before)], before, rtol=rtol, check_dtype=False)
        if name != "windows":
            for column in ("family", "state", "tested", "readout"):
                expected = before["part"].map(lambda p, c=column: getattr(TINY[p], c))
                assert (found[column] == expected).all()
    assert set(windows(tmp_path)["part"]) == {"trained"}
    assert trials(tmp_path)["spc"].dtype == float
    listed = pd.read_csv(tmp_path / "runs.csv")
    assert [PartNetwork(*row) for row in listed[HEAD].itertuples(index=False)] == STUDY.runs()
    assert (listed["threads"] == 1).all()


def test_missing_tables_are_told_in_one_line(tmp_path):
    for read in (trials, windows, patterns):
        assert str(tmp_path) in refused(read, tmp_path, error=WeightsError)


# ------------------------------------------------------------------------------------- live


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_live_tables_come_in_the_order_asked_and_do_not_depend_on_jobs(photos, jobs):
    names, seeds = ["plane-resnet-randn", PIXELS], (3, 0)
    asked = partial(
        train_live, names, ("V", "H"), seeds, SHORT, weights="random", seed=2, n=4, photos=photos
    )
    one, two = asked(), asked(jobs=jobs)
    assert [live.network for live in one] == [live.network for live in two] == names
    for first, second in zip(one, two):
        assert first.trials.seeds == (3, 0) and first.trials.targets == ("V", "H")
        assert first.trials.state.keys() == second.trials.state.keys()
        for key, value in first.trials.state.items():
            assert torch.equal(value, second.trials.state[key])
        pd.testing.assert_frame_equal(first.table, second.table, check_exact=True)
        pd.testing.assert_frame_equal(first.patterns, second.patterns, check_exact=True)
        rows = first.table
        order = [(s, t, k) for s in seeds for t in ("V", "H") for k in IMAGES]
        assert list(zip(rows["trial"], rows["target"], rows["images"])) == order
        assert rows.columns[0] == "network" and (rows["network"] == first.network).all()
        assert rows["n"].tolist() == [32, 16, 1, 1, 8] * 4
    network, pixels = one
    assert pixels.patterns.empty
    assert network.patterns.columns[0] == "network"
    order = [(s, layer, m) for s in seeds for layer in LAYERS for m in ("mae", "snr")]
    patterns = pd.concat([network.patterns, pixels.patterns], ignore_index=True)
    assert list(zip(patterns["trial"], patterns["layer"], patterns["metric"])) == order
    assert patterns["trial"].dtype == int


def test_live_numbers_are_those_of_the_steps(few, photos):
    (live,) = train_live(["plane-resnet-reflect"], ["H"], [7], SHORT, seed=1, n=4, photos=photos)
    model, layers, reach, pictures = loaded("plane-resnet-reflect", "trained", 1, str(photos))
    found = features_of(model, layers, reach, pictures, n=4, seed=1)
    fitted = readout.train(found.training, ["H"], [7], SHORT)
    for key, value in fitted.state.items():
        torch.testing.assert_close(live.trials.state[key], value)
    expected = evaluated(fitted, found)["trials"]
    pd.testing.assert_frame_equal(live.table.drop(columns="network"), expected, rtol=1e-4)
    expected = measured(model, reach, pictures, [7], n=4)
    pd.testing.assert_frame_equal(live.patterns.drop(columns="network"), expected, rtol=1e-4)


def test_live_a_protocol_may_have_another_grid(few, photos):
    protocol = Protocol(feature_size=14, target_size=16, epochs=1, batch=4)
    (live,) = train_live([PIXELS], ["H"], [0], protocol, n=4, photos=photos)
    assert live.trials.protocol == protocol


def test_a_target_that_is_not_known_is_refused_before_anything_is_computed(never, monkeypatch):
    monkeypatch.setattr(design, "loaded", lambda *_: pytest.fail("loaded"))
    said = refused(train_live, ["no-such-network"], ["H", "VSS"], error=ParameterError)
    assert said == f"unknown target 'VSS'; did you mean 'VS'? known: {', '.join(TARGETS)}"
    assert "jobs = 0" in refused(train_live, [PIXELS], ["H"], jobs=0, error=ParameterError)


def test_networks_that_cannot_be_are_refused_in_one_line(never, photos):
    asked = partial(train_live, targets=["H"], weights="random", photos=photos)
    said = refused(asked, ["squeezenet1_0"], error=ParameterError)
    assert said == (
        "network 'squeezenet1_0' has no layer of interest; a read-out needs at least one"
    )
    said = refused(asked, ["plane-resnt-zeros"], error=WeightsError)
    assert "unknown network 'plane-resnt-zeros'; did you mean 'plane-resnet'" in said
