"""python -m gpuscan: the devices that are here; with `selftest`, whether one of them is right."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import __version__
from .config import DEVICES


def main(words: Sequence[str] | None = None) -> int:
    """The process's status."""
    parser = argparse.ArgumentParser(prog="python -m gpuscan", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("devices", help="which devices are here, and why others are not")
    test = commands.add_parser("selftest", help="compares a CUDA device with the reference")
    test.add_argument("--device", choices=DEVICES[1:], default="cuda")
    given = parser.parse_args(words)
    from . import selftest

    if given.command == "selftest":
        return selftest.selftest(given.device)
    print(f"gpuscan {__version__}", *selftest.devices(), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
