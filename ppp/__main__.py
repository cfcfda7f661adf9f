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
            "ppp: the command comes with the checkout, not with the library: clone the repository "
            "and run 'make book', or pip install -e \".[book]\"; see its README",
            file=sys.stderr,
        )
        return 2
    return main.run()


if __name__ == "__main__":
    sys.exit(run())
