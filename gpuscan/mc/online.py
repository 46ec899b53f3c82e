"""What is known about draws that aren't kept: moments, split R-hat, and values that aren't finite.

Moments are merged pairwise (Chan, Golub & LeVeque 1979), in float64, chain by chain. For the split
R-hat (Gelman et al., Bayesian Data Analysis, 3rd ed., section 11.4; not rank-normalised) the draws
lie in two to four blocks of one length; four become two of twice the length. So the first and the
last blocks are halves of the run at any time, whatever its length will be.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..record import record
from .kernel import Array, Chunk

Floats: TypeAlias = npt.NDArray[np.float64]
Sums: TypeAlias = tuple[Floats, Floats]  # mean, sum of squared deviations: (chains, ...)

_BLOCK = 4  # draws in the first blocks: as few as ArviZ takes
_AT_ONCE = 1 << 15  # elements whose moments are taken in one go, in the processor's cache


def _moments(values: Array) -> Sums:
    """Of (chains, draws, ...) over the draws."""
    shape = (values.shape[0], *values.shape[2:])
    mean, squares = np.empty(shape), np.empty(shape)
    rows = max(1, _AT_ONCE // max(1, values[:1].size))
    for i in range(0, len(values), rows):
        part = values[i : i + rows].astype(np.float64)
        n = part.shape[1]
        middle = part.mean(axis=1)
        part -= middle[:, None]
        # what the mean's rounding left is taken off both: the corrected two-pass algorithm
        rest = part.sum(axis=1)
        mean[i : i + rows] = middle + rest / n
        squares[i : i + rows] = np.einsum("cd...,cd...->c...", part, part) - rest**2 / n
    return mean, np.maximum(squares, 0, out=squares)


def _merge(a: Sums, m: int, b: Sums, n: int) -> Sums:
    """Of m draws and n draws together."""
    gap = b[0] - a[0]
    return a[0] + gap * (n / (m + n)), a[1] + b[1] + gap**2 * (m * n / (m + n))


def _merge_all(sums: list[Sums], lengths: list[int]) -> Sums:
    whole, m = sums[0], lengths[0]
    for block, n in zip(sums[1:], lengths[1:]):
        whole, m = _merge(whole, m, block, n), m + n
    return whole


class Moments:
    """Mean, variance and split R-hat of draws that are seen once.

    `draws` is the run's length, where it is known: at its end R-hat's halves are those of the
    whole run, as ArviZ splits it (an odd run's middle draw is in none). `names` are the variables
    looked at; the default is all. Draws of the warm-up don't count.

    At most ten float64 numbers are kept for each element of a draw, however many draws there are.
    """

    def __init__(self, draws: int | None = None, names: Iterable[str] | None = None) -> None:
        if draws is not None and draws < 1:
            raise ValueError(f"draws is at least 1, got {draws}")
        self.total = draws
        self.names = None if names is None else tuple(names)
        self.chains: Array = np.empty(0, np.int64)  # their numbers
        self.count = 0  # draws of each chain
        self._level = 0  # 2^level of the first blocks are one
        self._lengths: list[int] = []
        self._open = False  # does the last block grow?
        self._blocks: dict[str, list[Sums]] = {}  # by variable
        self._spare: dict[str, Sums] = {}  # the middle draw

    def update(self, chunk: Chunk) -> None:
        """ValueError where the chunk's draws don't follow on those seen."""
        names = tuple(chunk.samples) if self.names is None else self.names
        for name in names:
            if name not in chunk.samples:
                raise ValueError(f"no variable {name!r}; there are {', '.join(chunk.samples)}")
        if chunk.warmup or not names:
            return
        length = chunk.samples[names[0]].shape[1]
        if not self.count:
            self.names, self.chains = names, np.array(chunk.chains, np.int64)
        if chunk.first != self.count or not np.array_equal(chunk.chains, self.chains):
            raise ValueError(
                f"draws from {chunk.first} on of {len(chunk.chains)} chains don't follow on "
                f"{self.count} draws of {len(self.chains)} chains"
            )
        if self.total is not None and self.count + length > self.total:
            raise ValueError(f"{self.count + length} draws in a run of {self.total}")
        done = 0
        with np.errstate(invalid="ignore", over="ignore"):
            while done < length:
                n = min(self._end() - self.count, length - done)
                self._add({k: _moments(chunk.samples[k][:, done : done + n]) for k in names}, n)
                done += n

    def _end(self) -> int:
        """The end of the block that the next draw belongs to."""
        if self.total is None:
            block = _BLOCK << self._level
            return (self.count // block + 1) * block
        half = self.total // 2
        if half <= self.count < self.total - half:  # the middle draw
            return self.count + 1
        start = 0 if self.count < half else self.total - half
        blocks = 1 << max(0, (half // _BLOCK).bit_length() - 1 - self._level)  # of a half
        number = ((self.count - start + 1) * blocks - 1) // half
        return start + (number + 1) * half // blocks

    def _add(self, sums: dict[str, Sums], n: int) -> None:
        if self.total is not None and self.total % 2 and self.count == self.total // 2:
            self._spare = sums
            self.count += n
            return
        end = self._end()
        for name, new in sums.items():
            blocks = self._blocks.setdefault(name, [])
            if self._open:
                blocks[-1] = _merge(blocks[-1], self._lengths[-1], new, n)
            else:
                blocks.append(new)
        if not self._open:
            self._lengths.append(0)
        self._lengths[-1] += n
        self.count += n
        self._open = self.count < end
        if len(self._lengths) == 4 and not self._open:
            for blocks in self._blocks.values():
                blocks[:] = [
                    _merge_all(blocks[i : i + 2], self._lengths[i : i + 2]) for i in (0, 2)
                ]
            self._lengths = [sum(self._lengths[:2]), sum(self._lengths[2:])]
            self._level += 1

    # ---- results

    def chain_moments(self) -> dict[str, Sums]:
        """Mean and variance (n - 1 in its divisor) of each chain: float64, (chains, ...)."""
        found = {}
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            for name in self.names or () if self.count else ():
                sums, lengths = list(self._blocks.get(name, [])), list(self._lengths)
                if self._spare:
                    sums.append(self._spare[name])
                    lengths.append(1)
                mean, squares = _merge_all(sums, lengths)
                found[name] = mean, squares / np.float64(self.count - 1)
        return found

    def mean(self) -> dict[str, Floats]:
        """Over the draws of all chains but those where a value wasn't finite."""
        return {name: mean for name, (mean, _) in self._pooled().items()}

    def variance(self) -> dict[str, Floats]:
        """As `mean`; the divisor is the number of draws less 1."""
        return {name: variance for name, (_, variance) in self._pooled().items()}

    def _pooled(self) -> dict[str, Sums]:
        found = {}
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            for name, (mean, variance) in self.chain_moments().items():
                good = np.isfinite(mean)
                middle = _average(mean, good)
                squares = np.where(good, (mean - middle) ** 2 * self.count, 0)
                if self.count > 1:
                    squares += np.where(good, variance * (self.count - 1), 0)
                found[name] = middle, squares.sum(0) / (good.sum(0) * np.float64(self.count) - 1)
        return found

    def r_hat(self) -> dict[str, Floats]:
        """Split R-hat of the complete blocks, over the chains without values that aren't finite.

        NaN before the second block is complete, and where nothing has changed.
        """
        complete = len(self._lengths) - self._open
        found = {}
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            for name, (whole, _) in self.chain_moments().items():
                if complete < 2:
                    found[name] = np.full(whole.shape[1:], np.nan)
                    continue
                m, good = complete // 2, np.isfinite(whole)
                means, variances, lengths = [], [], []
                for half in slice(0, m), slice(complete - m, complete):
                    mean, squares = _merge_all(self._blocks[name][half], self._lengths[half])
                    lengths.append(sum(self._lengths[half]))
                    means.append(mean)
                    variances.append(squares / (lengths[-1] - 1))
                mean, both = np.concatenate(means), np.concatenate([good, good])
                within = _average(np.concatenate(variances), both)
                gaps = np.where(both, (mean - _average(mean, both)) ** 2, 0)
                between = gaps.sum(0) / (both.sum(0) - 1)
                n = min(lengths)  # the halves differ by a draw at most
                found[name] = np.sqrt((n - 1) / n + between / within)
        return found

    def to_xarray(
        self,
        *,
        dims: Mapping[str, Any] | None = None,
        coords: Mapping[str, Any] | None = None,
    ) -> Any:
        """An xarray.Dataset with the variables' names, whose first dim `metric` is mean, sd and
        r_hat."""
        from .output import dataset

        mean, variance, r_hat = self.mean(), self.variance(), self.r_hat()
        stacked = {k: np.stack([mean[k], np.sqrt(variance[k]), r_hat[k]]) for k in mean}
        labels = {"metric": ["mean", "sd", "r_hat"]}
        found = dataset(stacked, labels, dims or {}, coords or {})
        return found.assign_attrs(chains=len(self.chains), draws=self.count)

    # ---- other tasks, other times

    def merge(self, other: Moments) -> Moments:
        """Of the chains of both, which have seen equally many draws: in the order of their numbers.

        ValueError where they haven't, or where they share a chain.
        """
        facts = [(m.total, m.names, m.count, m._lengths, m._open) for m in (self, other)]
        if facts[0] != facts[1]:
            raise ValueError(
                f"moments of {self.count} draws of {self.names} don't merge with those of "
                f"{other.count} draws of {other.names}"
            )
        chains = np.concatenate([self.chains, other.chains])
        order = np.argsort(chains, kind="stable")
        if len(np.unique(chains)) < len(chains):
            raise ValueError("moments that share a chain don't merge")

        def joined(a: Sums, b: Sums) -> Sums:
            mean, squares = (np.concatenate(pair)[order] for pair in zip(a, b))
            return mean, squares

        merged = Moments(self.total, self.names)
        merged.chains, merged.count = chains[order], self.count
        merged._level, merged._lengths, merged._open = self._level, [*self._lengths], self._open
        for name, blocks in self._blocks.items():
            merged._blocks[name] = [joined(a, b) for a, b in zip(blocks, other._blocks[name])]
        merged._spare = {k: joined(a, other._spare[k]) for k, a in self._spare.items()}
        return merged

    def arrays(self) -> dict[str, Array]:
        """All there is to know, for a file: `from_arrays` goes on from it, bit for bit."""
        facts = [-1 if self.total is None else self.total, self.count, self._level, self._open]
        found: dict[str, Array] = {
            "facts": np.array(facts, np.int64),
            "chains": self.chains,
            "lengths": np.array(self._lengths, np.int64),
        }
        if self.names is not None:
            found["names"] = np.array(self.names, np.str_)
        for name, blocks in self._blocks.items():
            for i, sums in enumerate(blocks):
                found[f"mean/{i}/{name}"], found[f"squares/{i}/{name}"] = sums
        for name, sums in self._spare.items():
            found[f"mean/spare/{name}"], found[f"squares/spare/{name}"] = sums
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Moments:
        total, count, level, is_open = (int(v) for v in arrays["facts"])
        names = [str(n) for n in arrays["names"]] if "names" in arrays else None
        found = cls(None if total < 0 else total, names)
        found.count, found._level, found._open = count, level, bool(is_open)
        found.chains = np.array(arrays["chains"], np.int64)
        found._lengths = [int(n) for n in arrays["lengths"]]

        def sums(key: str) -> Sums:
            return np.array(arrays[f"mean/{key}"]), np.array(arrays[f"squares/{key}"])

        for name in names or () if count else ():
            if found._lengths:
                found._blocks[name] = [sums(f"{i}/{name}") for i in range(len(found._lengths))]
            if f"mean/spare/{name}" in arrays:
                found._spare[name] = sums(f"spare/{name}")
        return found


def _average(values: Floats, good: npt.NDArray[np.bool_]) -> Floats:
    """Over the first axis, where good."""
    return np.where(good, values, 0).sum(0) / good.sum(0)


# ---- values that aren't finite -------------------------------------------------------------------


@record
class Found:
    """Values of a variable that aren't finite: how many, and where the first one is."""

    count: int
    draw: int
    chain: int


class NonFinite:
    """NaN and Inf among the samples and log densities (`lp`) of the chunks of a run."""

    def __init__(self) -> None:
        self.found: dict[tuple[bool, str], Found] = {}  # by warmup and variable

    def update(self, chunk: Chunk) -> None:
        values = {**chunk.samples, **{k: v for k, v in chunk.stats.items() if k == "lp"}}
        for name, a in values.items():
            if a.dtype.kind in "fc" and not (finite := np.isfinite(a)).all():
                bad = np.count_nonzero(~finite.reshape(*a.shape[:2], -1), axis=2)
                draw = int(bad.any(axis=0).argmax())
                chain = int(chunk.chains[bad[:, draw] > 0].min())
                self._add((chunk.warmup, name), Found(int(bad.sum()), chunk.first + draw, chain))

    def _add(self, key: tuple[bool, str], new: Found) -> None:
        old = self.found.get(key, new)
        count = new.count + (old.count if key in self.found else 0)
        draw, chain = min((old.draw, old.chain), (new.draw, new.chain))
        self.found[key] = Found(count, draw, chain)

    def merge(self, other: NonFinite) -> NonFinite:
        """Of the chains or draws of both."""
        merged = NonFinite()
        for part in (self, other):
            for key, found in part.found.items():
                merged._add(key, found)
        return merged

    def lines(self) -> list[str]:
        """For people, a line a variable."""
        return [
            f"{name}: {f.count} value{'s' * (f.count > 1)} not finite"
            f"{' in the warm-up' * warmup}, first at draw {f.draw} of chain {f.chain}"
            for (warmup, name), f in self.found.items()
        ]

    def to_json(self) -> str:
        """For an attribute or a checkpoint."""
        found = self.found.items()
        return json.dumps([[w, name, f.count, f.draw, f.chain] for (w, name), f in found])

    @classmethod
    def from_json(cls, text: str) -> NonFinite:
        made = cls()
        for warmup, name, *numbers in json.loads(text):
            made.found[bool(warmup), name] = Found(*numbers)
        return made
