"""The progress line: what it says, when there is none, and what it takes."""

import fcntl
import io
import os
import pty
import statistics
import struct
import sys
import termios
import threading
import time

import numpy as np
import pytest

from gpuscan.mc import progress
from gpuscan.mc.kernel import Chunk
from gpuscan.mc.online import Moments
from gpuscan.mc.progress import Progress

pytestmark = pytest.mark.own_device  # these use none


class Terminal:
    """A file that is a terminal of 160 columns, and what was written to it."""

    def __enter__(self):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 160, 0, 0))
        self.file = os.fdopen(slave, "w")
        self._read = []
        self._reader = threading.Thread(target=self._drain)
        self._reader.start()
        return self

    def _drain(self):
        while True:
            try:
                data = os.read(self.master, 1 << 16)
            except OSError:  # the other end was closed
                return
            self._read.append(data)

    def __exit__(self, *exception):
        self.file.close()
        self._reader.join()
        os.close(self.master)

    @property
    def lines(self):
        """After the `with` block."""
        text = b"".join(self._read).decode().replace("\n", "\r")
        return [line.strip() for line in text.split("\r") if line.strip()]


@pytest.fixture(params=["tqdm", "without tqdm"])
def bar(request, monkeypatch):
    if request.param == "tqdm":
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.delenv("GPUSCAN_PROGRESS", raising=False)


def moments(total=40):
    found = Moments(total)
    x = np.random.default_rng(0).normal(size=(4, total))
    x[0] += 3
    found.update(Chunk(False, 0, np.arange(4), {"x": x}, {}))
    return found


def test_phase_count_rate_r_hat_and_divergences(bar, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with Terminal() as terminal, Progress(100, "hmc", chains=4, file=terminal.file) as line:
        for _ in range(6):
            time.sleep(0.01)
            line.update(10, warmup=True)
        line.update(20)
        line.update(20, divergences=3, moments=moments())
    warm = [x for x in terminal.lines if "warm-up" in x]
    assert len(warm) == 6 and "hmc: warm-up" in warm[0] and "draws/s" in warm[0]
    assert "60.0/100" in warm[-1] or "60/100" in warm[-1]
    assert "R-hat" not in warm[-1] and "diverged" not in warm[-1]
    last = terminal.lines[-1]
    r_hat = moments().r_hat()["x"]
    assert "hmc: draws" in last and "100/100" in last and f"R-hat {r_hat:.3f}" in last
    assert "chain-draws/s" in last and "3 diverged" in last and "00:00" in last


def test_rate_of_the_chains_is_a_multiple(bar, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with Terminal() as terminal, Progress(None, chains=1000, file=terminal.file) as line:
        for _ in range(20):
            time.sleep(0.01)
            line.update(1)
    number = terminal.lines[-1].split(" chain-draws/s")[0].split()[-1]
    assert 20_000 < float(number) < 100_000  # 100 draws a second at most, on a busy machine fewer


def test_an_endless_run_has_no_end(bar):
    with Terminal() as terminal, Progress(None, "gibbs", file=terminal.file) as line:
        line.update(30)
        line.update(12)
    assert "gibbs: draws" in terminal.lines[-1] and "42" in terminal.lines[-1]
    assert "left" not in terminal.lines[-1]


def test_it_is_drawn_at_most_twice_a_second(bar):
    with Terminal() as terminal, Progress(10**9, file=terminal.file) as line:
        start = time.monotonic()
        while time.monotonic() < start + 1.2:
            line.update(1)
    assert len(terminal.lines) <= 6  # 0, 0.5 and 1 second; the empty bar before, the end after


def test_r_hat_is_asked_for_as_rarely_as_it_is_slow(bar, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    slow, asked = moments(), []

    def r_hat():
        asked.append(time.monotonic())
        time.sleep(0.02)
        return {"x": np.array(1.0)}

    monkeypatch.setattr(slow, "r_hat", r_hat)
    with Terminal() as terminal, Progress(10**6, file=terminal.file) as line:
        start = time.monotonic()
        while time.monotonic() < start + 0.3:
            line.update(1, moments=slow)
            time.sleep(0.002)
    assert len(asked) == 1


def test_a_fork_meets_no_thread(bar):
    before = threading.active_count()
    with Terminal() as terminal, Progress(10, file=terminal.file) as line:
        line.update(1)
        assert threading.active_count() == before + 1  # the terminal's


@pytest.mark.parametrize("off", ["no terminal", "argument", "environment"])
def test_it_is_off(bar, off, monkeypatch):
    if off == "environment":
        monkeypatch.setenv("GPUSCAN_PROGRESS", "0")
    with Terminal() as terminal:
        file = io.StringIO() if off == "no terminal" else terminal.file
        with Progress(10, file=file, progressbar=off != "argument") as line:
            line.update(10, moments=moments())
        assert not line.shown
        if off == "no terminal":
            assert file.getvalue() == ""
    assert terminal.lines == []


def test_it_is_off_without_stderr(monkeypatch):
    """As under pythonw."""
    monkeypatch.setattr(sys, "stderr", None)
    with Progress(10) as line:
        line.update(10)
    assert not line.shown


def test_it_takes_less_than_a_fiftieth_of_a_run(bar):
    """A run of chunks of 10 ms, which is short: mc.sample takes a quarter of a second."""
    rounds = []
    with Terminal() as terminal, Progress(10**6, chains=4, file=terminal.file) as line:
        found = moments()
        for _ in range(5):
            start = time.process_time()
            for _ in range(30):
                time.sleep(0.01)
                line.update(10, moments=found)
            rounds.append((time.process_time() - start) / 0.3)
    # the processor's time, as others compute here; it has the sleeps' own
    assert statistics.median(rounds) < 0.02 + alone()


def alone():
    start = time.process_time()
    for _ in range(30):
        time.sleep(0.01)
    return (time.process_time() - start) / 0.3
