"""Checkpoints: where a run is, as a file from which it goes on bit for bit.

`run.npz` has the chains' states, the states of the random streams, the moments so far and what the
run is. A run that gathers its samples keeps those up to there in parts, `run.npz.draws/000000.npz`,
..., which are written once. Every file is complete under its name or not there, and parts come
before the checkpoint that counts them, so it may be killed at any moment.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import saving
from ..record import record
from .kernel import Array, Chunk
from .program import Arrays

_FORMAT = "gpuscan.mc checkpoint 1"
_NAMES = "names"  # of variables: text, which is in `about`

# What makes runs differ, in the order in which it is told, and in words.
_IDENTITY = {
    "version": "gpuscan's version",
    "kind": "the kind of run",
    "kernel": "the kernel",
    "variables": "the variables (dtype, and shape with the chains)",
    "model": "the model (a hash of the step's expression and of the data in it)",
    "start": "init (a hash of its values)",
    "seed": "seed",
    "tune": "tune",
    "thin": "thin",
    "keep": "keep",
    "reduce": "reduce",
    "warmup": "discard_tuned_samples",
}


@record
class Point:
    """Where a run is: after so many steps of the warm-up and so many kept draws."""

    tuned: int
    drawn: int
    state: Arrays
    streams: Array


@record
class Saved:
    """What a checkpoint holds."""

    about: dict[str, Any]
    point: Point
    moments: Arrays
    parts: int


class Checkpoint:
    """A run's checkpoint: a path, and what the run is (`about`, JSON's values)."""

    def __init__(self, path: str | os.PathLike[str], about: Mapping[str, Any]) -> None:
        self.path, self.about = Path(path), dict(about)
        self._parts = Path(f"{self.path}.draws")
        self._count = 0

    def save(
        self, point: Point, moments: Arrays, notes: Mapping[str, Any], chunks: Sequence[Chunk] = ()
    ) -> None:
        """Writes it; `chunks` are the draws since the last time, if they are to be kept, and
        `notes` become part of what it says of the run."""
        if chunks:
            self._parts.mkdir(exist_ok=True)
            saving.save(self._part(self._count), _packed(chunks))
            self._count += 1
        arrays = {f"state/{n}": x for n, x in point.state.items()}
        arrays |= {f"moments/{n}": x for n, x in moments.items() if n != _NAMES}
        arrays["streams"] = point.streams
        facts = {"tuned": point.tuned, "drawn": point.drawn, "parts": self._count}
        saving.save(self.path, arrays, format=_FORMAT, **self.about, **notes, **facts)

    def check(self, saved: Saved) -> None:
        """The next save follows on this one. Raises ValueError where it is of another run."""
        for key, words in _IDENTITY.items():
            old, new = saved.about.get(key), json.loads(json.dumps(self.about[key]))
            if old != new:
                raise ValueError(
                    f"the checkpoint {self.path} is of another run: {words} is {_shown(old)} "
                    f"there and {_shown(new)} here"
                )
        self._count = saved.parts

    def chunks(self) -> Iterable[Chunk]:
        """The draws that it keeps."""
        for k in range(self._count):
            yield from _unpacked(saving.load(self._part(k)).arrays)

    def _part(self, k: int) -> Path:
        return self._parts / f"{k:06d}.npz"

    def sweep(self, parts: bool) -> None:
        """Removes what a killed process had not finished writing, and `parts` of an earlier run."""
        part = r"\d{6}\.npz"
        for folder, name in ((self.path.parent, re.escape(self.path.name)), (self._parts, part)):
            for file in folder.iterdir() if folder.is_dir() else ():
                half = re.fullmatch(rf"\.{name}\.[0-9a-f]{{8}}", file.name)
                if half or (parts and folder == self._parts and re.fullmatch(part, file.name)):
                    file.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> Saved | None:
    """What the file holds; None where there is none.

    Raises ValueError for a path or a file that is no checkpoint's, FileNotFoundError where its
    folder is missing.
    """
    place = Path(path)
    if place.suffix != ".npz":
        raise ValueError(f"checkpoint is {str(path)!r}, expected a path that ends in .npz")
    if not place.absolute().parent.is_dir():
        raise FileNotFoundError(f"checkpoint: there is no folder {place.parent}")
    if not place.exists():
        return None
    arrays, about = saving.load(place)
    if about.get("format") != _FORMAT:
        raise ValueError(
            f"{place} is no checkpoint that this version can go on from: its format is "
            f"{about.get('format')!r}, expected {_FORMAT!r}"
        )
    point = Point(about["tuned"], about["drawn"], _under("state/", arrays), arrays["streams"])
    return Saved(about, point, _under("moments/", arrays), about["parts"])


def digest(arrays: Mapping[str, Array]) -> str:
    """A hash of names, dtypes, shapes and values."""
    found = hashlib.sha256()
    for name, x in arrays.items():
        found.update(f"{name} {x.dtype.str} {x.shape}\0".encode())
        found.update(np.ascontiguousarray(x).tobytes())
    return found.hexdigest()


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:12] + "..."


def _under(prefix: str, arrays: Mapping[str, Array]) -> Arrays:
    return {n.removeprefix(prefix): x for n, x in arrays.items() if n.startswith(prefix)}


# ---- parts ---------------------------------------------------------------------------------------


def _packed(chunks: Sequence[Chunk]) -> Arrays:
    """Consecutive chunks as arrays, the draws of a phase joined."""
    arrays: Arrays = {}
    for warmup in (True, False):
        of_phase = [c for c in chunks if c.warmup == warmup]
        if not of_phase:
            continue
        lead = "warmup" if warmup else "draws"
        arrays[f"{lead}/first"] = np.int64(of_phase[0].first)  # type: ignore[assignment]
        arrays[f"{lead}/chains"] = of_phase[0].chains
        for kind in ("samples", "stats"):
            for name in getattr(of_phase[0], kind):
                parts = [getattr(c, kind)[name] for c in of_phase]
                arrays[f"{lead}/{kind}/{name}"] = np.concatenate(parts, axis=1)
    return arrays


def _unpacked(arrays: Mapping[str, Array]) -> Iterable[Chunk]:
    for warmup, lead in ((True, "warmup/"), (False, "draws/")):
        own = _under(lead, arrays)
        if own:
            samples, stats = _under("samples/", own), _under("stats/", own)
            yield Chunk(warmup, int(own["first"]), own["chains"], samples, stats)
