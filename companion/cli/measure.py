"""``ppp measure``: PPP of one network, and a report."""

from __future__ import annotations

import click

from companion.cli.options import WHOLE, Command, output, print_table


@click.command(cls=Command)
@click.argument(
    "network",
    help="of torchvision, a shipped one (plane-...), efficientnet-lite0, -1, -2, hed-vgg16, "
    "FILE.py:FACTORY, timm:NAME",
)
@click.option(
    "--weights", default="random", help="trained, a weights name, or a file; default: random"
)
@click.option("--layers", default="auto", help="auto, or a,b,c; default: auto")
@click.option("--schemes", default="own", help="a,b,c; own, the default: the network as it is")
@click.option("--photos", default="", metavar="FOLDER", help="default: those of scikit-image")
@click.option("--per-photo", type=WHOLE, default=64, help="windows of each; default: 64")
@click.option(
    "--window", type=WHOLE, metavar="PX", help="side of the input; default: the network's"
)
@click.option("--mean", metavar="R,G,B", help="of the normalisation; default: the network's")
@click.option("--std", metavar="R,G,B", help="of the normalisation; default: the network's")
@click.option("--seed", type=WHOLE, default=0, help="of windows and random weights; default: 0")
@click.option("--device", default="cpu", help="cpu, the default, or cuda")
@click.option("--batch-size", type=WHOLE, default=8, help="windows a pass; default: 8")
@click.option(
    "--memory", metavar="BYTES", help="bound, as 2G, or inf; default: a quarter of the machine's"
)
@output("folder that is made; default: runs/measure-NAME-DIGEST")
def measure(output, force, **settings) -> None:
    """Measure PPP of a network, your own too, and write a report; goes on where it was
    broken off."""
    from companion.measure.request import Request

    request = Request.from_settings(settings)  # refused before PyTorch is loaded
    from companion.measure import report, run

    output = output or request.output()
    measured = run.measure(request, output, force=force)
    print(f"memory    {measured.measurement.provenance['memory_use']}")
    print_table(report.rows(measured.measurement))
    print(f"report    {output / 'report.html'}")


@click.command(cls=Command)
@click.argument("network", help="as for ppp measure")
@click.option("--memory", required=True, metavar="BYTES", help="for one tile, as 8G")
@click.option("--layer", default="auto", help="whose map is wanted; default: the deepest")
@click.option("--weights", default="random", help="as for ppp measure; default: random")
@click.option("--window", type=WHOLE, metavar="PX", help="an input that it runs on")
def tiles(network, memory, layer, weights, window) -> None:
    """Find halo, step and largest tile of inference without seams, and try them."""
    from companion.measure.request import Request

    settings = {"network": network, "weights": weights, "window": window, "layers": layer}
    request = Request.from_settings(settings | {"memory": memory})
    import ppp
    from companion.measure import run

    made = run.load(request)
    choice = run.layer_choice.choose(made.model, made.window, request.layers)
    print(ppp.tiles(made.model, choice.layers[-1], request.memory, window=made.window))
