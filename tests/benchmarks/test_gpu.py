"""The script for a machine with a GPU, as far as a machine without one can try it."""

import json
import os
import subprocess
import sys

import pytest
import torch

import ppp
from ppp.errors import NullTestError
from studies.dynamics.design import full_design
from studies.paths import ROOT


@pytest.fixture(scope="module")
def gpu():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import gpu

    yield gpu
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture
def step(gpu, tmp_path, capsys):
    """Do a step on the CPU; return its results and what it says."""

    def do(name, *options):
        code = gpu.main([name, "--device", "cpu", "--small", "--output", str(tmp_path), *options])
        return code, gpu.kept(tmp_path, name), capsys.readouterr().out

    return do


def test_without_a_gpu_it_says_so_in_one_line(gpu, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["equality", "--output", str(tmp_path)]) == 2
    assert "no GPU" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_equal_results_are_equal_and_a_wrong_device_is_found_out(gpu, step, monkeypatch, tmp_path):
    code, found, _ = step("equality")
    apart = found["plane-resnet"]["apart"]
    assert code == 0 and found["plane-resnet"]["row"]["too far apart"] == "none"
    assert not any(apart["float64"].values())
    assert 1e-9 < apart["float32"]["pattern"] < 1e-4, "single precision is not double"

    measured = gpu.measured

    def rounded(name, schemes, size, device, dtype=torch.float32):
        result = measured(name, schemes, size, device, dtype)
        if dtype == torch.float32:
            for key, one in result.items():
                result[key] = ppp.results.LayerResult(**vars(one) | {"pattern": one.pattern + 0.1})
        return result

    monkeypatch.setattr(gpu, "measured", rounded)
    (tmp_path / "equality-plane-resnet.json").unlink()
    far = step("equality")[1]["plane-resnet"]["row"]["too far apart"]
    assert far == "pattern in float32, pattern in float32 of the CPU"


@pytest.mark.parametrize("metric", ["sigma", "power", "snr", "detected"])
def test_nothing_is_equal_to_nan(gpu, metric):
    truth = gpu.measured("plane-resnet", ("zeros",), gpu.SMALL, "cpu")
    found = ppp.Measurement(truth)
    key = next(iter(found))
    broken = ppp.metrics.Estimate(float("nan")) if metric in ("power", "snr") else float("nan")
    found[key] = ppp.results.LayerResult(**vars(found[key]) | {metric: broken})
    assert (gpu.apart(found, truth)[metric], gpu.apart(truth, truth)[metric]) == (float("inf"), 0)


def test_it_sees_whether_tf32_is_off_and_what_is_refused_with_it(gpu, step, monkeypatch, tmp_path):
    row = step("exactness")[1]["plane-resnet"]["row"]
    assert (row["seen measuring"], row["seen afterwards"]) == ("ieee", "tf32")
    assert row["switched off by ppp"].startswith("passed: null test")
    measured = gpu.measured

    def as_on_a_gpu(*arguments):
        if ppp.measurement.exact_kernels is gpu.tf32_kernels:
            raise NullTestError("cells differ")
        return measured(*arguments)

    monkeypatch.setattr(gpu, "measured", as_on_a_gpu)
    (tmp_path / "exactness-plane-resnet.json").unlink()
    row = step("exactness")[1]["plane-resnet"]["row"]
    assert row["left on"] == "NullTestError: cells differ" and row["MAE apart"] == "not to be had"


def test_a_measurement_costs_more_than_bare_forwards(step):
    row = step("throughput")[1]["002"]["row"]
    assert 0 < int(row["share of bare forwards"].rstrip("%")) < 100


def test_curves_repeat_and_a_finished_piece_is_not_done_again(gpu, step, tmp_path, monkeypatch):
    first = step("curves")[1]
    for one in first.values():
        assert float(one["row"]["float32 again"]) == 0 < float(one["row"]["another seed"])
        assert len(one["losses"]["bfloat16"]) == 2
    (tmp_path / "curves-resnet-zeros.json").unlink()
    monkeypatch.setattr(gpu, "curves", lambda family, padding, *_: {"row": {"new": padding}})
    again = step("curves")[1]
    assert again["resnet-reflect"] == first["resnet-reflect"]
    assert again["resnet-zeros"]["row"] == {"new": "zeros"}
    environment = tmp_path / "environment.json"
    environment.write_text(environment.read_text().replace('"cpu"', '"another"'))
    code, _, said = step("curves")
    assert code == 2 and "another device" in said


def test_hours_are_those_of_all_networks_at_their_own_rates(gpu, step, tmp_path):
    names = {f"{run.family}-{run.padding}" for run in full_design()}
    for name in names:
        rate = 1.0 if name.startswith("vgg") else 4.0
        one = {"rates": {"float32": rate}, "row": {"float32": f"{rate}"}}
        (tmp_path / f"training-{name}.json").write_text(json.dumps(one))
    assert float(gpu.hours(tmp_path)["float32"]) == pytest.approx(12800 * (30 / 4 + 18) / 3600)
    assert "| vgg-zeros | 1.0 |" in step("summary")[2]
    (tmp_path / "training-vgg-zeros.json").unlink()
    assert gpu.hours(tmp_path).isna().all() and "steps: not done" in step("summary")[2]


def test_a_rate_counts_the_steps_that_were_made(gpu, monkeypatch):
    settings = gpu.Settings("resnet", n_train=64)
    made = []
    monkeypatch.setattr(gpu._Work, "advance", lambda work, *_: (made.append(1), steps(work)))
    monkeypatch.setattr(gpu._Work, "report", lambda work: None)

    def steps(work):
        work.step += 1

    assert gpu.rate(settings, False, "cpu", 2, 0.2) == pytest.approx((len(made) - 2) / 0.2, rel=0.5)


@pytest.mark.parametrize(("codes", "end"), [("0", 0), ("3", 1), ("2", 2), ("slow", 1)])
def test_the_shell_script_goes_on_after_a_step_that_fails(tmp_path, codes, end):
    """Another program takes Python's place, which fails, or is slow, in the second step."""
    fake = tmp_path / "python"
    fails = "exec sleep 60" if codes == "slow" else f"exit {codes}"
    fake.write_text(f'#!/bin/sh\necho "did $2 $3"\n[ "$2" != equality ] || {fails}\n')
    fake.chmod(0o755)
    script = (ROOT / "benchmarks" / "gpu.sh").read_text().replace("equality 120", "equality 1")
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "gpu.sh").write_text(script)
    done = subprocess.run(
        ["bash", str(tmp_path / "benchmarks" / "gpu.sh"), "--small"],
        env=os.environ | {"PYTHON": str(fake)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == end, done.stdout + done.stderr
    assert done.stdout.count("did ") == (2 if end == 2 else 7)
    assert "did curves --small" in done.stdout or end == 2


def test_all_steps_together_take_ten_minutes_at_most(gpu):
    lines = (ROOT / "benchmarks" / "gpu.sh").read_text().partition("<<'END'\n")[2].splitlines()
    limits = dict(line.split() for line in lines[: lines.index("END")])
    assert list(limits) == ["environment", *gpu.TABLES, "summary"]
    assert sum(map(int, limits.values())) <= 600
