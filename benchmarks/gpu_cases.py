"""The cases of python -m benchmarks.gpu: their data, their floor, gpuscan's version of each.

A version is a `Loop`: it runs any number of steps and leaves the results on the device, so that
the time of a step is the slope between two numbers of steps. Data are the same for all versions,
and lie on the device before anything is timed. The models that are not in cases.py are those of
tests/models.py.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import gpuscan
from gpuscan import tensor as T
from gpuscan.codegen.limits import Limits
from gpuscan.config import config

from . import cases
from .cases import Family, Result

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from models import MODELS, STEPS

PRECISIONS = ("float32", "tf32", "bf16", "fp16")  # config.dot_precision

# Of values, relative to the largest of their array, by the precision of products. float32: other
# orders of sums, as in cases.py. Else 30 roundings of a factor (tests/test_dot_precision.py),
# once for gpuscan and once for the peer, which rounds in other places.
TOLERANCES = {
    "float32": cases.TOLERANCE,
    "tf32": 60 * 2.0**-11,
    "fp16": 60 * 2.0**-11,
    "bf16": 60 * 2.0**-8,
}


@dataclass
class Loop:
    """A version of a case. run: computes so many steps, of which host() makes NumPy's arrays."""

    run: Callable[[int], Any]
    host: Callable[[Any], Result]
    function: Any = None  # gpuscan's


def difference(found: Result, expected: Result) -> float:
    """How far two results of values are apart, relative to the largest of an array."""
    worst = 0.0
    for name, wanted in expected.items():
        value, wanted = np.asarray(found[name], "float64"), np.asarray(wanted, "float64")
        if value.shape != wanted.shape or not np.isfinite(value).all():
            return math.inf
        worst = max(worst, float(np.abs(value - wanted).max() / max(np.abs(wanted).max(), 1e-30)))
    return worst


class OnGpu(Family):
    """A family that a Loop can be made of. `steps` of its sizes is the longest that is run."""

    scope = ""  # that gpuscan's loops are to have, instead of the narrowest
    steps: int

    def loop(self, device: Any, precision: str) -> Loop:
        """gpuscan's version."""
        raise NotImplementedError

    def room(self) -> int:
        """Bytes of device memory that the case takes, about."""
        return 2 * self.bytes

    def normal(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        """From no more draws than are soon made, again and again where more are asked for."""
        count = min(math.prod(shape), 4_000_037)
        values = scale * self.draws.standard_normal(count, "float32")
        return np.resize(values.astype("float32"), shape)


def function(
    inputs: Sequence[Any], outputs: Sequence[Any], device: Any, precision: str, updates: Any = None
) -> Any:
    """gpuscan's function, whose results stay on the device."""
    with config.change_flags(dot_precision=precision):
        borrowed = [gpuscan.Out(v, borrow=True) for v in outputs]
        return gpuscan.function(
            list(inputs), borrowed, updates=updates, device=device.name, on_unused_input="ignore"
        )


def put(device: Any, arrays: Sequence[np.ndarray]) -> list[Any]:
    with device.active():
        return [device.array(x) for x in arrays]


def fetched(device: Any, names: Sequence[str], arrays: Sequence[Any]) -> dict[str, np.ndarray]:
    with device.active():
        return {n: np.asarray(device.host(x)) for n, x in zip(names, arrays)}


# ---- a meeting -----------------------------------------------------------------------------------


class Meeting(OnGpu):
    """One tiny product a step, whose columns are shared out over all blocks: what is left is the
    meeting of the blocks."""

    scope = "grid"

    def prepare(self, steps: int, hidden: int) -> None:
        self.steps = steps
        self.h = self.normal(1, hidden)
        self.U = self.normal(hidden, hidden, scale=0.7 * hidden**-0.5)
        self.flops = 2 * steps * hidden * hidden
        self.bytes = 4 * (self.U.size + 2 * hidden)

    def loop(self, device: Any, precision: str) -> Loop:
        U, h, n = gpuscan.shared(self.U, name="U"), T.fmatrix("h"), T.lscalar("n")
        hs, _ = gpuscan.scan(lambda h, U: T.dot(h, U), None, h, U, n_steps=n, name="meeting")
        f = function([h, n], [hs[-1]], device, precision)
        (start,) = put(device, [self.h])
        return Loop(lambda n: f(start, n), lambda found: fetched(device, "h", found), f)


# ---- recurrent networks --------------------------------------------------------------------------


class Recurrent(OnGpu, cases.Recurrent):
    n_states = 1
    memory: str | None = None  # what gpuscan's loop holds for its gradient, as scan takes it

    def prepare(self, steps: int, **sizes: int) -> None:
        self.steps = steps
        super().prepare(steps=steps, **sizes)

    def room(self) -> int:
        rows = self.x.shape[0] * self.x.shape[1]
        values = self.x.shape[2] + self.U.shape[0] * (2 + self.n_states) + self.U.shape[1]
        kept = 3 * self.U.shape[1] if self.gradients else 0
        return 4 * (rows * (values + kept) + 2 * (self.W.size + self.U.size))

    def loop(self, device: Any, precision: str) -> Loop:
        weights = [gpuscan.shared(getattr(self, name), name=name) for name in "WUb"]
        x, g, start = T.ftensor3("x"), T.ftensor3("g"), T.fmatrix("start")
        states, _ = gpuscan.scan(
            self.step, x, [start] * self.n_states, weights, name=type(self).__name__.lower(),
            memory=self.memory,
        )  # fmt: skip
        h = states[0] if self.n_states > 1 else states
        inputs, outputs, names = [x, start], [h], "h"
        if self.gradients:
            inputs, outputs, names = [*inputs, g], T.grad((g * h).sum(), weights), "WUb"
        f = function(inputs, outputs, device, precision)
        xs, zeros, gs = put(device, [self.x, self.zeros(), self.g])

        @functools.cache
        def given(n: int) -> list[Any]:
            with device.active():
                return [xs[:n], zeros, *([gs[:n]] if self.gradients else [])]

        return Loop(lambda n: f(*given(n)), lambda found: fetched(device, names, found), f)


class LSTM(Recurrent, cases.LSTM):
    n_states = 2


class Elman(Recurrent, cases.Elman):
    pass


class GRU(Recurrent):
    """The reset comes after the product. Gates in the order reset, update, new."""

    gates = 3

    def prepare(self, steps: int, **sizes: int) -> None:
        super().prepare(steps, **sizes)
        more = 8 * steps * sizes["batch"] * sizes["hidden"]  # functions than of an Elman network
        self.flops += (3 if self.gradients else 1) * more

    def step(self, x: Any, h: Any, W: Any, U: Any, b: Any) -> Any:
        n = self.g.shape[2]
        below, across = T.dot(x, W) + b, T.dot(h, U)
        r = T.nnet.sigmoid(below[:, :n] + across[:, :n])
        z = T.nnet.sigmoid(below[:, n : 2 * n] + across[:, n : 2 * n])
        new = T.tanh(below[:, 2 * n :] + r * across[:, 2 * n :])
        return (1 - z) * new + z * h


# ---- models of the tests -------------------------------------------------------------------------


class OfModel(OnGpu):
    """A model of tests/models.py: `values` are its inputs, by name."""

    model = ""
    names: Sequence[str] = ()  # of its results

    def prepare(self, steps: int, batch: int, hidden: int) -> None:
        self.steps, self.batch, self.hidden = steps, batch, hidden
        self.made = MODELS[self.model](hidden)
        drawn = self.made.values(batch, steps, seed=1)
        self.values = {leaf.variable.name: x for leaf, x in zip(self.made.leaves, drawn)}
        self.flops, self.bytes = self.floor()

    def floor(self) -> tuple[int, int]:
        raise NotImplementedError

    def outputs(self) -> Sequence[Any]:
        return self.made.outputs

    def result(self, found: Mapping[str, np.ndarray]) -> Result:
        return found

    def loop(self, device: Any, precision: str) -> Loop:
        leaves = self.made.leaves
        f = function(
            [leaf.variable for leaf in leaves], self.outputs(), device, precision, self.made.updates
        )
        arrays = put(device, [self.values[leaf.variable.name] for leaf in leaves])

        @functools.cache
        def given(n: int) -> list[Any]:
            with device.active():
                return [self.part(leaf, x, n) for leaf, x in zip(leaves, arrays)]

        return Loop(
            lambda n: f(*given(n)),
            lambda found: self.result(fetched(device, self.names, found)),
            f,
        )

    def part(self, leaf: Any, x: Any, n: int) -> Any:
        """The value of an input for so many steps."""
        if leaf.variable.name == "n":
            return n
        return x[:n] if leaf.shape[:1] == (STEPS,) else x


class LayerNormLSTM(OfModel):
    """Layer normalization, zoneout, rows that start anew. Peers are given the masks of zoneout that
    gpuscan draws in its loop."""

    model = "layer_norm_lstm"
    gradients = False
    kept: np.ndarray  # gpuscan's masks in its last result

    def floor(self) -> tuple[int, int]:
        n, rows = self.hidden, self.steps * self.batch
        weights = sum(self.values[name].size for name in ("W", "U", "b", "gain"))
        products = 2 * rows * 4 * n * (n + self.values["x"].shape[2])
        again = products + 2 * rows * 4 * n * n if self.gradients else 0
        functions = (3 if self.gradients else 1) * rows * 40 * n
        written = weights if self.gradients else rows * n
        read = self.values["x"].size + self.values["mask"].size + weights
        return products + again + functions, 4 * (read + written + rows * n)

    def outputs(self) -> Sequence[Any]:
        h, kept = self.made.outputs
        self.names = ("h", "kept")
        if not self.gradients:
            return h, kept
        self.names = ("W", "U", "b", "gain", "kept")
        return [*T.grad(self.made.loss, self.made.weights), kept]

    def result(self, found: Mapping[str, np.ndarray]) -> Result:
        self.kept = found["kept"]
        return {name: x for name, x in found.items() if name != "kept"}


class LayerNormLSTMGradients(LayerNormLSTM):
    gradients = True


class Metropolis(OfModel):
    """A random walk through a double well, a chain a row."""

    model, names = "metropolis", ("x",)
    random = True

    def floor(self) -> tuple[int, int]:
        # Instructions of a chain's step with a block of Philox words, as GPU.md counted them;
        # two flops are one instruction in the peak rate.
        return 2 * 93 * self.batch * self.steps, 4 * 2 * self.batch

    def outputs(self) -> Sequence[Any]:
        return [self.made.outputs[0][-1]]

    def result(self, found: Mapping[str, np.ndarray]) -> Result:
        x = np.asarray(found["x"]).reshape(1, -1)
        return {"chains": np.concatenate([x, x * x, np.abs(x), np.minimum(x**4, 10)])}


class HMC(OfModel):
    """Hamiltonian Monte Carlo with paths of five leapfrog steps, a chain a row."""

    model, names = "hmc", ("q",)
    random = True

    def floor(self) -> tuple[int, int]:
        # A draw, six forces (a sine and a few more), two energies (a cosine) for each coordinate.
        coordinate = 20 + 6 * (2 + 8) + 2 * (2 + 8)
        count = self.batch * self.hidden
        return count * self.steps * coordinate, 4 * 2 * count

    def outputs(self) -> Sequence[Any]:
        return [self.made.outputs[0][-1]]

    def result(self, found: Mapping[str, np.ndarray]) -> Result:
        q = np.asarray(found["q"]).T
        return {"chains": np.concatenate([q, q * q])}


class HMM(OfModel):
    """The forward algorithm: the likelihoods by steps."""

    model, names = "hmm", ("likelihood",)

    def floor(self) -> tuple[int, int]:
        rows = self.steps * self.batch
        return rows * (2 * self.hidden**2 + 3 * self.hidden), 4 * 2 * rows


# ---- Gibbs sampling ------------------------------------------------------------------------------


class Gibbs(OnGpu, cases.Gibbs):
    def statistics(self, p: Any, v: Any) -> Result:
        """Of each chain where there are many: they are independent, as a small machine's units are
        not."""
        p, v = np.asarray(p), np.asarray(v)
        if len(p) < 16:
            return super().statistics(p, v)
        values = (p, v, p * self.a, p * self.bvis, p * p)
        return {"chains": np.stack([x.mean(1) for x in values])}

    def loop(self, device: Any, precision: str) -> Loop:
        W, bvis, bhid = (gpuscan.shared(x) for x in (self.W, self.bvis, self.bhid))
        random = T.shared_randomstreams.RandomStreams(1)

        def bernoulli(p: Any) -> Any:
            return random.binomial(size=p.shape, p=p, dtype="float32")

        def step(v: Any) -> Any:
            h = bernoulli(T.nnet.sigmoid(T.dot(v, W) + bhid))
            p = T.nnet.sigmoid(T.dot(h, W.T) + bvis)
            return p, bernoulli(p)

        start, n = T.fmatrix("v"), T.lscalar("n")
        (p, v), updates = gpuscan.scan(step, outputs_info=[None, start], n_steps=n, name="gibbs")
        f = function([start, n], [p[-1], v[-1]], device, precision, updates)
        (given,) = put(device, [self.v])

        def host(found: Any) -> Result:
            return self.statistics(*fetched(device, "pv", found).values())

        return Loop(lambda n: f(given, n), host, f)


# ---- the table -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class GpuCase:
    """A family at a size. lengths: numbers of steps, the slope is between the first and the last;
    host_lengths: those of versions that start kernels every step, where `lengths` would take
    minutes. memory: of scan. peers: those beside which it is measured, all where there are none."""

    name: str  # what --case matches
    text: str
    family: type[OnGpu]
    sizes: Mapping[str, int]
    lengths: tuple[int, ...]
    precision: str = "float32"
    host_lengths: tuple[int, ...] = ()
    memory: str | None = None
    peers: tuple[str, ...] = ()

    def made(self) -> OnGpu:
        family = self.family(steps=max(self.lengths), **self.sizes)
        if isinstance(family, Recurrent):
            family.memory = self.memory
        return family


CELLS: tuple[type[Recurrent], ...] = (LSTM, GRU, Elman)
HIDDEN = (64, 128, 192, 256, 512, 768, 1024, 2048)
BATCHES = (1, 8, 16, 64, 128, 256)
SLOPE = (512, 2048)
ALL_LENGTHS = (256, 1024, 4096)
MEMORIES = ("everything", "balanced", "carries", "64 MiB", "every 32 steps")  # 32: the root of T
# The short set: (hidden, batch). 768 x 16 is that of the table in GPU.md, section 0.
SHORT = {LSTM: ((128, 16), (768, 16), (1024, 64)), GRU: ((768, 16),), Elman: ((768, 16),)}


def recurrent(
    cell: type[Recurrent], hidden: int, batch: int, lengths: tuple[int, ...], gradients: bool,
    precision: str,
) -> GpuCase:  # fmt: skip
    kind = "gradients" if gradients else "forward"
    name = f"{cell.__name__.lower()}-{hidden}x{batch}-{kind}-{precision}"
    text = f"{cell.__name__} hidden {hidden}, B={batch}, {kind}, {precision}"
    sizes = dict(batch=batch, inputs=hidden, hidden=hidden, gradients=int(gradients))
    return GpuCase(name, text, cell, sizes, lengths, precision)


def chosen(gpu: Limits, everything: bool = False) -> list[GpuCase]:
    """The cases for a GPU: the short set, or all."""
    found = list(_micro(gpu, (1_000, 11_000)))
    lengths = ALL_LENGTHS if everything else SLOPE
    for cell in CELLS:
        sizes = [(n, b) for n in HIDDEN for b in BATCHES] if everything else SHORT[cell]
        found += [
            recurrent(cell, hidden, batch, lengths, gradients, precision)
            for hidden, batch in sizes
            for gradients in (False, True)
            for precision in PRECISIONS
        ]
    found += _memories(LSTM, 768, 16, (256, 1024), MEMORIES)
    found += _layer_norm(((256, 16), (768, 16)) if everything else ((256, 16),), lengths)
    powers = range(16, 21) if everything else (16, 18, 20)
    found += [_metropolis(1 << k, f"2^{k}", (1_000, 5_000)) for k in powers]
    found += [_hmc(1 << k, f"2^{k}", 10, (200, 1_000)) for k in ((12, 14, 16) if everything
                                                                 else (14,))]  # fmt: skip
    found += [_gibbs(784, 500, batch, (200, 1_000)) for batch in (1, 20, 128)]
    found.append(_hmm(32, (100_000, 1_000_000), (2_000, 10_000)))
    return found


def tiny() -> list[GpuCase]:
    """Every kind of case, at sizes that an emulated GPU runs in a moment."""
    lengths = (3, 6)
    text = "a meeting, and one tiny product"
    found = [GpuCase("meeting", text, Meeting, dict(hidden=8), (4, 12))]
    for cell in CELLS:
        found += [recurrent(cell, 6, 3, lengths, g, "float32") for g in (False, True)]
    found += [recurrent(LSTM, 6, 3, lengths, False, p) for p in PRECISIONS[1:]]
    found += _memories(Elman, 6, 3, lengths, ("everything",))
    found += _layer_norm(((6, 2),), lengths)
    found.append(_metropolis(64, "64", lengths))
    found.append(_hmc(64, "64", 3, (2, 4)))
    found.append(_gibbs(60, 40, 30, lengths))
    found.append(_hmm(5, (4, 9)))
    return found


def _micro(gpu: Limits, lengths: tuple[int, ...]) -> Iterator[GpuCase]:
    n = 4 * gpu.multiprocessors  # each block has a multiple of four columns
    text = f"a meeting of all blocks, and a product of {n}x{n}"
    yield GpuCase("meeting", text, Meeting, dict(hidden=n), lengths)


def _memories(
    cell: type[Recurrent], hidden: int, batch: int, lengths: tuple[int, ...],
    memories: Sequence[str],
) -> list[GpuCase]:  # fmt: skip
    """What a network's gradient takes by what is held for it, beside cuDNN."""
    made = recurrent(cell, hidden, batch, lengths, True, "float32")
    return [
        dataclasses.replace(
            made,
            name=f"memory-{hidden}x{batch}-{memory.replace(' ', '-')}",
            text=f"{made.text}, T={max(lengths)}, memory: {memory}", memory=memory,
            peers=("PyTorch",),
        )
        for memory in memories
    ]  # fmt: skip


def _layer_norm(sizes: Sequence[tuple[int, int]], lengths: tuple[int, ...]) -> list[GpuCase]:
    families = (("forward", LayerNormLSTM), ("gradients", LayerNormLSTMGradients))
    text = "LSTM with layer norm, zoneout, resets"
    return [
        GpuCase(f"layernorm-{hidden}x{batch}-{kind}", f"{text}, hidden {hidden}, B={batch}, {kind}",
                family, dict(hidden=hidden, batch=batch), lengths)
        for hidden, batch in sizes
        for kind, family in families
    ]  # fmt: skip


def _metropolis(chains: int, count: str, lengths: tuple[int, ...]) -> GpuCase:
    text = f"random-walk Metropolis, {count} chains"
    return GpuCase(f"metropolis-{chains}", text, Metropolis, dict(batch=chains, hidden=1), lengths)


def _hmc(chains: int, count: str, dimensions: int, lengths: tuple[int, ...]) -> GpuCase:
    text = f"HMC in {dimensions} dimensions, {count} chains"
    return GpuCase(f"hmc-{chains}", text, HMC, dict(batch=chains, hidden=dimensions), lengths)


def _gibbs(visible: int, hidden: int, batch: int, lengths: tuple[int, ...]) -> GpuCase:
    text = f"Gibbs RBM {visible}x{hidden}, batch {batch}"
    sizes = dict(visible=visible, hidden=hidden, batch=batch)
    return GpuCase(f"gibbs-{batch}", text, Gibbs, sizes, lengths)


def _hmm(states: int, lengths: tuple[int, ...], host_lengths: tuple[int, ...] = ()) -> GpuCase:
    text = f"HMM forward, {states} states, T={max(lengths)}"
    sizes = dict(batch=1, hidden=states)
    return GpuCase("hmm", text, HMM, sizes, lengths, host_lengths=host_lengths)
