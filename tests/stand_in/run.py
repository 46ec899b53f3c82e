"""Runs Python on the stand-in for the driver, where `pycuda` is a device without a GPU:

    python tests/stand_in/run.py -m pytest --device=pycuda tests/test_scan_gradient.py

Builds the stand-in where it is not there yet; ends with 3 and the reason where it can't be.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import build  # noqa: E402


def main() -> None:
    try:
        environment = build.environment()
    except build.Missing as e:
        print(f"no stand-in for the driver: {e}", file=sys.stderr)
        sys.exit(3)
    os.execve(sys.executable, [sys.executable, *sys.argv[1:]], environment)


if __name__ == "__main__":
    main()
