"""The work of ``ppp measure``: PPP of one network over photographs, and the folder of results."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save as save_safetensors
from tqdm import tqdm

import ppp
from companion import notebooks
from companion.measure import report
from companion.measure.measured import Measured, plain
from companion.measure.request import OWN, Request
from ppp.errors import MarginError, NullTestError, PictureError, PPPError, SwapError, first_words
from ppp.inventory import Audit
from ppp.results import Measurement
from ppp.resumption import discard
from studies import networks, results
from studies.networks import layers as layer_choice, own
from studies.pictures.photographs import (
    Photograph,
    folder_photographs,
    large_enough,
    scikit_image_photographs,
)
from studies.storage import outputs, tables

COMMAND = "ppp measure"


def measure(request: Request, output: Path, *, force: bool = False) -> Measured:
    """Measure, and write the results into a folder, all of them or none; print what is measured.

    Parameters
    ----------
    request : Request
    output : Path
        The folder; it appears when everything is in it. Beside it, as OUTPUT.partial, lies
        what is finished of an interrupted measurement.
    force : bool
        Replace an earlier measurement there, once the new one is complete.

    Returns
    -------
    Measured

    Raises
    ------
    PPPError
        The request or a file is at fault; nothing is written.
    KeyboardInterrupt
        With what to do to go on.
    """
    states = output.with_name(f"{output.name}.partial")
    outputs.check_free(output, COMMAND, force=force)
    with outputs.working(states, COMMAND):
        with outputs.made(output, COMMAND, force=force) as folder:
            measured = _measure(request, output, states)
            _write(measured, folder)
        for kept in states.iterdir():
            discard(kept)
    return measured


def _measure(request: Request, output: Path, states: Path) -> Measured:
    photos, left_out = _photographs(request.photos)
    network = load(request)
    audit = _audit(network)
    _check_schemes(request, audit)
    choice = layer_choice.choose(network.model, network.window, request.layers)
    print(f"layers    {', '.join(choice.layers)}  ({choice.rule})")
    for name, reason in choice.refused.items():
        print(f"refused   {name}: {reason}")
    need = ppp.size_needed(network.window, choice.coverage)
    used, too_small = large_enough(photos, *need)
    left_out += [(p.name, f"too small: {p.height} x {p.width} px") for p in too_small]
    print(
        f"used      {len(used)} photographs of at least {need[0]} x {need[1]} px (height x width)"
    )
    for name, reason in left_out:
        print(f"left out  {name}: {reason}")
    if not used:
        raise PictureError(
            f"none of the {len(photos)} photographs is large enough: a window of "
            f"{network.window} px with its surroundings needs {need[0]} x {need[1]} px (height x "
            f"width); {_served(photos, network, choice.layers)}give larger ones with --photos, or "
            "a smaller --window"
        )
    weights_sha256 = networks.weights_sha256(network.model)
    network.model.to(request.device)
    versions = results.footer()
    # All that decides the values, the code of a network's files too: other code begins anew.
    files = [p.sha256 for p in used]
    made_of = [network.provenance, weights_sha256, files, versions, str(request.memory)]
    kept = states / notebooks.digest({"of": plain([asdict(request), *made_of])})
    return Measured(
        request=request,
        command=request.command(output),
        network=network,
        weights_sha256=weights_sha256,
        choice=choice,
        audit=audit,
        need=need,
        used=used,
        left_out=left_out,
        measurement=_measurement(request, network, used, choice, kept),
        made_with=versions,
    )


def _served(photos: list[Photograph], network: networks.Network, layers: Sequence[str]) -> str:
    """Say which of the first layers the photographs are large enough for, if for any."""
    for count in range(len(layers) - 1, 0, -1):
        reach = ppp.coverage(network.model, layers[:count], network.window)
        if large_enough(photos, *ppp.size_needed(network.window, reach))[0]:
            return f"--layers {','.join(layers[:count])} can be measured on them; or "
    return ""


def _measurement(
    request: Request,
    network: networks.Network,
    used: list[Photograph],
    choice: layer_choice.Choice,
    kept: Path,
) -> Measurement:
    """Measure, and go on where it was interrupted."""
    windows = ppp.cut_windows(
        used,
        network.window,
        choice.coverage,
        per_picture=request.per_photo,
        seed=request.seed,
        transform=network.prepare,
    )
    if len(windows) < 2:
        raise PictureError("1 window in all; expected at least 2: give more --per-photo")
    try:
        with tqdm(total=len(windows), desc="windows", unit="window", disable=None) as bar:
            return ppp.measure(
                network.model,
                windows,
                list(choice.layers),
                list(request.schemes),
                coverage=choice.coverage,
                batch_size=request.batch_size,
                seed=request.seed,
                progress=bar.update,
                memory=request.memory,
                keep=kept,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"finished photographs are kept in {kept.parent}; the same command goes on"
        ) from None
    except (NullTestError, MarginError):  # going on would only meet it again
        discard(kept)
        raise


def load(request: Request) -> networks.Network:
    """Return the network that is asked for, with its window and normalisation."""
    options = {"seed": request.seed}
    made = networks.load_network
    if own.is_own(request.network):
        made, options["window"] = own.load_own, request.window
    network = made(request.network, request.weights, **options)
    for option in ("mean", "std"):
        given, channels = getattr(request, option), len(network.mean)
        if given and len(given) != channels:
            raise PPPError(
                f"--{option}: the network reads {channels} channels; give as many numbers"
            )
    return dataclasses.replace(
        network,
        window=request.window or network.window,
        mean=request.mean or network.mean,
        std=request.std or network.std,
    )


def _audit(network: networks.Network) -> Audit:
    try:
        return ppp.audit(network.model, network.window)
    except PPPError:
        raise
    except (RuntimeError, MemoryError) as error:  # mostly for want of memory
        raise PPPError(
            f"network {network.name!r} does not run on a window of {network.window} px: "
            f"{first_words(error)}; give a smaller --window"
        ) from None


def _photographs(folder: str) -> tuple[list[Photograph], list[tuple[str, str]]]:
    """Return the photographs, and the files that are none, with reasons."""
    if not folder:
        return scikit_image_photographs(), []
    found = folder_photographs(folder)
    return found.photos, [(o.file, o.reason) for o in found.outcomes if o.outcome == "skipped"]


def _check_schemes(request: Request, audit: Audit) -> None:
    blocked = audit.unswappable()
    others = [scheme for scheme in request.schemes if scheme != OWN]
    if blocked and others:
        site = blocked[0]
        more = f" and {len(blocked) - 1} more" if len(blocked) > 1 else ""
        raise SwapError(
            f"--schemes {','.join(others)}: the network pads where no scheme can be swapped in, "
            f"at {site.module!r} ({site.kind}: {site.reason}){more}; --schemes own measures it as "
            "it is"
        )


def _write(measured: Measured, folder: Path) -> None:
    tables.write_table(folder / "measurement.csv", measured.measurement.table(), digits=None)
    text = json.dumps(measured.document(), indent=1, allow_nan=False)
    tables.write(folder / "measurement.json", text.encode())
    patterns = {
        f"{scheme}/{layer}/{name}": torch.from_numpy(getattr(result, name)).contiguous()
        for (scheme, layer), result in measured.measurement.items()
        for name in ("pattern", "deviation")
    }
    tables.write(folder / "patterns.safetensors", save_safetensors(patterns))
    tables.write(folder / "report.html", report.page(measured))
