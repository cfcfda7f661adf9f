"""The command ``ppp``: it comes with the checkout, not with the library alone."""

import importlib
import sys


def run() -> int:
    """Run the command line of the checkout, or say where it is."""
    try:
        main = importlib.import_module("companion.__main__")
    except ModuleNotFoundError as error:
        if error.name not in ("companion", "companion.__main__"):
            raise
        print(
            "ppp: the command, chapters and shipped networks come with the checkout, not with the "
            f"library: git clone {_address()} ppp-companion && cd ppp-companion && make book; "
            "see its README",
            file=sys.stderr,
        )
        return 2
    return main.run()


def _address() -> str:
    """Return the address of the repository, where the library's metadata tells it."""
    metadata = importlib.import_module("importlib.metadata")
    try:
        urls = metadata.metadata("ppp-companion").get_all("Project-URL") or []
    except metadata.PackageNotFoundError:
        urls = []
    addresses = dict(url.split(", ", 1) for url in urls)
    return addresses.get("Repository", "ADDRESS")


if __name__ == "__main__":
    sys.exit(run())
