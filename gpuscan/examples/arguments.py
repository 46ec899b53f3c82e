"""The command lines of the examples: options, and errors of one line."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from ..config import DEVICES
from ..errors import DeviceError


class Bad(Exception):
    """What the user gave cannot be used; the text is one line."""


class Parser(argparse.ArgumentParser):
    """Of `python -m gpuscan.examples.NAME`."""

    def __init__(self, name: str, description: str) -> None:
        super().__init__(
            prog=f"python -m gpuscan.examples.{name}", description=description,
            formatter_class=_Defaults,
        )  # fmt: skip
        self.name = name

    def error(self, message: str) -> NoReturn:
        """One line, and exit code 2."""
        self.exit(2, f"{self.name}: {message}\n")

    def main(
        self, run: Callable[[argparse.Namespace], None], arguments: list[str] | None = None
    ) -> int:
        """Parses and runs; the exit code. A KeyboardInterrupt may say how to go on."""
        options = self.parse_args(arguments)
        try:
            run(options)
        except (Bad, DeviceError) as e:
            print(f"{self.name}: {e}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as e:
            print(f"{self.name}: {e}" if e.args else f"{self.name}: stopped", file=sys.stderr)
            return 130
        return 0


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def number(text: str) -> float:
    """NaN for what is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def above_0(text: str) -> float:
    if not 0 < (value := number(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def ending(suffix: str) -> Callable[[str], Path]:
    """Paths that end so."""

    def path(text: str) -> Path:
        if Path(text).suffix != suffix:
            raise argparse.ArgumentTypeError(f"{text!r} does not end in {suffix}")
        return Path(text)

    return path


def add_common(p: Parser) -> None:
    """What all examples of Monte Carlo have."""
    p.add_argument("--seed", type=natural, default=0, help="of all random numbers")
    p.add_argument("--device", choices=DEVICES, help="where to run, as in GPUSCAN_FLAGS=device=...")
    p.add_argument("--out", type=Path, default=Path(f"{p.name}.png"), help="the picture")


def check_writable(*paths: Path | None, new: bool = False) -> None:
    """Raises Bad where a file can't be made, or, if it has to be `new`, is there already."""
    for path in paths:
        if path is None:
            continue
        if not path.absolute().parent.is_dir():
            raise Bad(f"cannot write {path}: there is no such folder")
        if new and path.exists():
            raise Bad(f"cannot write {path}: it is there already")
        if path.is_dir():
            raise Bad(f"cannot write {path}: it is a folder")


@contextlib.contextmanager
def told() -> Iterator[None]:
    """What gpuscan says of arguments that don't fit becomes Bad."""
    try:
        yield
    except ImportError as e:
        raise Bad(f"the module {e.name} is missing: pip install 'gpuscan[demo,mc]'") from None
    except (ValueError, OSError) as e:
        raise Bad(" ".join(str(e).split())) from None
