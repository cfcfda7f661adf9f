"""Tables, numbers and facts of a chapter."""

import json

import numpy as np
import torch
from checks import refused

from studies import results


def test_numbers_are_written_whole_or_not_at_all(tmp_path):
    results.save_numbers(tmp_path, {"n": np.int64(3), "error": np.float32(0.5)})
    assert json.loads((tmp_path / "numbers.json").read_text()) == {"n": 3, "error": 0.5}
    said = refused(results.save_numbers, tmp_path, {"n": 4, "error": float("nan")})
    assert "'error' is nan" in said
    assert json.loads((tmp_path / "numbers.json").read_text())["n"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["numbers.json"]


def test_a_footer_names_versions_device_and_commit():
    facts = results.footer(n=8)
    assert facts["n"] == 8
    assert f"torch {torch.__version__.split('+')[0]}" in facts["versions"]
    assert {"python", "device", "commit"} <= facts.keys()
