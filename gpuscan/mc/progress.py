"""A line on the terminal that says how far a run is."""

from __future__ import annotations

import os
import sys
import time
from typing import Any, TextIO

import numpy as np

from .online import Moments

EVERY = 0.5  # seconds between two looks of the line
_SHARE = 0.01  # of the time that R-hat may take


class Progress:
    """Phase, rate, time left, R-hat so far and divergences of a run, on one line of stderr.

    It is tqdm's bar, or a plain line where tqdm is missing. There is none with progressbar=False,
    GPUSCAN_PROGRESS=0, or where stderr is no terminal; then nothing here takes time.

    total        draws of each chain, those of the warm-up too; None for a run without an end
    description  such as the kernel's name
    chains       how many run at once, for the rate
    """

    def __init__(
        self,
        total: int | None,
        description: str = "sampling",
        *,
        chains: int = 1,
        progressbar: bool = True,
        file: TextIO | None = None,
    ) -> None:
        self.total, self.description, self.chains = total, description, chains
        self.done = self.divergences = 0
        self._file = sys.stderr if file is None else file
        self.shown = progressbar and _wanted() and self._file is not None and self._file.isatty()
        self._phase, self._r_hat = "", float("nan")
        self._next = self._next_r_hat = 0.0  # when to look again
        self._cost = 0.0  # of the last R-hat, in seconds
        self._bar: Any = _bar(total, description, self._file) if self.shown else None

    def update(
        self,
        draws: int,
        *,
        warmup: bool = False,
        divergences: int = 0,
        moments: Moments | None = None,
    ) -> None:
        """`draws` more of each chain are done, in which as many transitions diverged; `moments`
        are those of all draws so far."""
        if not self.shown:
            return
        self.done += draws
        self.divergences += divergences
        now = time.monotonic()
        phase = "warm-up" if warmup else "draws"
        if now < self._next and phase == self._phase and self.done != self.total:
            return
        self._phase = phase
        at_end = self.done == self.total and self._cost < EVERY * _SHARE
        if moments is not None and (now >= self._next_r_hat or at_end):
            self._r_hat = _largest(moments)
            self._cost = time.monotonic() - now
            # as rarely as keeps to its share, of however many elements it is
            self._next_r_hat = time.monotonic() + max(EVERY, self._cost / _SHARE)
        self._draw()
        self._next = time.monotonic() + EVERY

    def _draw(self) -> None:
        bar, found = self._bar, self._bar.format_dict
        rate = found["rate"] or self.done / max(found["elapsed"], 1e-9)
        parts = [f"{rate * self.chains:.3g} chain-draws/s"] if self.chains > 1 else []
        if np.isfinite(self._r_hat):
            parts.append(f"R-hat {self._r_hat:.3f}")
        if self.divergences:
            parts.append(f"{self.divergences} diverged")
        bar.set_description_str(f"{self.description}: {self._phase}", refresh=False)
        bar.set_postfix_str(", ".join(parts), refresh=False)
        bar.update(self.done - bar.n)  # which draws it

    def close(self) -> None:
        """Leaves the line as it is at the end."""
        if self._bar is not None:
            if self.done > self._bar.n:
                self._draw()
            self._bar.close()
            self._bar, self.shown = None, False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()


def _wanted() -> bool:
    return os.environ.get("GPUSCAN_PROGRESS", "1").lower() not in ("0", "false", "")


def _largest(moments: Moments) -> float:
    found = [r[np.isfinite(r)].max(initial=-np.inf) for r in moments.r_hat().values()]
    largest = max(found, default=-np.inf)
    return float(largest) if largest > -np.inf else float("nan")


def _bar(total: int | None, description: str, file: TextIO) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return _Line(total, file)

    class Bar(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # no thread in a process that may fork

    return Bar(
        total=total,
        desc=description,
        unit=" draws",
        unit_scale=True,
        file=file,
        mininterval=0,  # Progress says when
        miniters=1,
        dynamic_ncols=True,
    )


class _Line:
    """What is needed of tqdm's bar, without tqdm."""

    def __init__(self, total: int | None, file: TextIO) -> None:
        self.total, self.file, self.n = total, file, 0
        self._start, self._width = time.monotonic(), 0
        self._description = self._postfix = ""

    @property
    def format_dict(self) -> dict[str, Any]:
        elapsed = time.monotonic() - self._start
        return {"elapsed": elapsed, "rate": None}

    def set_description_str(self, text: str, refresh: bool) -> None:
        self._description = text

    def set_postfix_str(self, text: str, refresh: bool) -> None:
        self._postfix = text

    def update(self, n: int) -> None:
        self.n += n
        elapsed = time.monotonic() - self._start
        rate = self.n / max(elapsed, 1e-9)
        parts = [f"{self.n} draws", f"{rate:.3g} draws/s", _clock(elapsed)]
        if self.total:
            left = (self.total - self.n) / rate if rate else elapsed
            parts[0] = f"{self.n}/{self.total} draws"
            parts[2] = f"{_clock(left)} left"
        text = f"{self._description}: {', '.join([*parts, *[self._postfix] * bool(self._postfix)])}"
        self.file.write("\r" + text.ljust(self._width))
        self.file.flush()
        self._width = len(text)

    def close(self) -> None:
        self.file.write("\n")
        self.file.flush()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"
