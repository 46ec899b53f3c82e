"""The Ising model through its phase transition: python -m gpuscan.examples.ising

Spins up and down on a periodic square lattice, one lattice a temperature, by Gibbs sampling: a
sweep draws all black sites of a checkerboard given the white ones, then the white ones given the
black ones. Magnetisation and energy are compared with Onsager's exact solution of the infinite
lattice, with Monte Carlo errors that know how slowly a lattice moves near the critical temperature.
"""

from __future__ import annotations

import argparse
import math
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from gpuscan import mc
from gpuscan import tensor as T
from gpuscan.mc.kernel import Kernel
from gpuscan.record import record

from .arguments import Bad, Parser, above_0, add_common, check_writable, ending, positive, told

CRITICAL = 2 / math.log(1 + math.sqrt(2))  # temperature; Kramers & Wannier 1941
ENOUGH = 400  # independent draws from which on an error is to be trusted (Vehtari et al. 2021)
TEMPERATURES = (
    1.5, 1.8, 2.0, 2.1, 2.16, 2.2, 2.23, 2.25, 2.26, 2.28, 2.3, 2.33, 2.4, 2.6, 3.0, 3.5,
)  # fmt: skip
SAVES = 20  # checkpoints of a run


# ---- the model -----------------------------------------------------------------------------------


class Lattices:
    """Square lattices of +1 and -1 with `size` rows, an even number, and periodic borders, as two
    arrays (lattices, size, size/2): the black sites are those where row + column is even.

    In row i, black[i, j] is the site of column 2j + i % 2, and white[i, j] that of 2j + 1 - i % 2.
    So a site's neighbours above, below and on one side have its own index in the other array; the
    fourth is one further, to the left for black sites in even rows and white ones in odd rows.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.even = np.arange(size)[:, None] % 2 == 0

    def neighbours(self, others: Any, black: bool) -> Any:
        """The sum of the four neighbours of each black site, or white one, of the other colour."""
        left, right = T.roll(others, 1, axis=2), T.roll(others, -1, axis=2)
        beside = T.switch(self.even, left, right) if black else T.switch(self.even, right, left)
        return T.roll(others, 1, axis=1) + T.roll(others, -1, axis=1) + others + beside

    def joined(self, black: np.ndarray, white: np.ndarray) -> np.ndarray:
        """The lattices (lattices, row, column)."""
        whole = np.empty((len(black), self.size, self.size), black.dtype)
        whole[:, ::2, ::2], whole[:, 1::2, 1::2] = black[:, ::2], black[:, 1::2]
        whole[:, ::2, 1::2], whole[:, 1::2, ::2] = white[:, ::2], white[:, 1::2]
        return whole

    def ordered(self, temperatures: np.ndarray) -> dict[str, np.ndarray]:
        """A position with all spins up: below the critical temperature no domain walls have to
        find each other, above it order is gone within some correlation times."""
        count = len(temperatures)
        up = np.ones((count, self.size, self.size // 2), "float32")
        return {
            "black": up,
            "white": up,
            "temperature": temperatures.astype("float32"),
            "magnetisation": np.ones(count, "float32"),
            "energy": np.full(count, -2, "float32"),
        }

    def gibbs(self) -> Kernel:
        """A sweep over all sites. The temperature is part of the position, though it stays as it
        is, for it belongs to the chain. Magnetisation and energy are those per site."""
        random = T.shared_randomstreams.RandomStreams()
        share = np.float32(1 / self.size**2)

        def drawn(field: Any, temperature: Any) -> Any:
            """Spins that are up with probability 1 / (1 + exp(-2 field / temperature))."""
            up = T.nnet.sigmoid(field * (2 / temperature)[:, None, None])
            u = random.uniform(field.shape, dtype="float32")
            return T.switch(u < up, np.float32(1), np.float32(-1))

        def sweep(
            black: Any, white: Any, temperature: Any, magnetisation: Any, energy: Any
        ) -> dict[str, Any]:
            black = drawn(self.neighbours(white, black=True), temperature)
            field = self.neighbours(black, black=False)
            white = drawn(field, temperature)
            up = black.sum(axis=(1, 2)) + white.sum(axis=(1, 2))
            bonds = (white * field).sum(axis=(1, 2))  # each joins a black site and a white one
            return {
                "black": black, "white": white, "magnetisation": up * share,
                "energy": -bonds * share,
            }  # fmt: skip

        return mc.gibbs(sweep, name="ising")


# ---- the exact solution --------------------------------------------------------------------------


def exact_magnetisation(temperature: np.ndarray) -> np.ndarray:
    """Per site of the infinite lattice: Onsager's formula, proved by Yang (1952, Phys. Rev. 85)."""
    x = 2 / np.minimum(temperature, CRITICAL)
    over_sinh = 2 * np.exp(-x) / (1 - np.exp(-2 * x))
    return np.maximum(1 - over_sinh**4, 0) ** (1 / 8)


def exact_energy(temperature: np.ndarray) -> np.ndarray:
    """Per site of the infinite lattice (Onsager 1944, Phys. Rev. 65); the complete elliptic
    integral by the arithmetic-geometric mean."""
    x = 2 / np.asarray(temperature, "float64")
    turned = 2 * np.tanh(x) ** 2 - 1  # its square is 1 - k^2, k the integral's modulus
    a, b = np.ones_like(x), np.maximum(np.abs(turned), np.finfo("float64").tiny)
    while (np.abs(a - b) > 1e-15 * a).any():
        a, b = (a + b) / 2, np.sqrt(a * b)
    return -(1 + turned / a) / np.tanh(x)


# ---- what was found ------------------------------------------------------------------------------


@record
class Found:
    """What the lattices say, by temperature."""

    temperatures: np.ndarray
    estimates: dict[str, tuple[np.ndarray, np.ndarray]]  # of |m| and the energy, and their errors
    independent: dict[str, np.ndarray]  # how many independent draws each of them is worth

    def sure(self, name: str) -> np.ndarray:
        """Where the error is to be trusted."""
        return self.independent[name] >= ENOUGH

    def table(self) -> str:
        """|m| and the energy with their errors and exact values, and effective sample sizes."""
        half = "{:>19}  {:>8}  {:>7} ".format
        lines = [
            "     T" + half("|m| ± error", "exact", "ESS") + half("energy ± error", "exact", "ESS")
        ]
        for i, t in enumerate(self.temperatures):
            line = f"{t:6.3f}"
            for name, exact in (("magnetisation", exact_magnetisation), ("energy", exact_energy)):
                value, error = (x[i] for x in self.estimates[name])
                mark = " " if self.sure(name)[i] else "*"
                size = f"{self.independent[name][i]:.0f}"
                line += f"{value:>9.5f} ± {error:.5f}  {exact(t):>8.5f}  {size:>7}{mark}"
            lines.append(line)
        if not all(self.sure(name).all() for name in self.estimates):
            lines.append(f"* fewer than {ENOUGH} independent draws: the error is a guess")
        return "\n".join(lines)


def judged(draws: Any) -> Found:
    """draws: a Dataset of `magnetisation` and `energy` (chain, draw), a chain a temperature."""
    arviz = mc.output.import_arviz()
    draws = draws.assign(magnetisation=abs(draws.magnetisation)).astype("float64")
    # each temperature is a target of its own, with a single chain
    own = draws.rename(chain="site").expand_dims("chain").transpose("chain", "draw", "site")
    error, size = arviz.mcse(own, method="mean"), arviz.ess(own, method="mean")
    names = ("magnetisation", "energy")
    return Found(
        draws.temperature.values,
        {n: (draws[n].mean("draw").values, error[n].values) for n in names},
        {n: size[n].values for n in names},
    )


# ---- the job -------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> None:
    with told():
        from tqdm import tqdm

        from . import ising_picture

        mc.output.require("xarray", "arviz")
        import xarray
    store, goes_on = checked(options)
    lattices, temperatures = Lattices(options.size), np.sort(options.temperatures)
    with told():
        chains = mc.stream(
            lattices.gibbs(), lattices.ordered(temperatures), draws=options.sweeps,
            tune=options.warm_up, seed=options.seed, keep=["magnetisation", "energy"],
            discard_tuned_samples=False, checkpoint=options.checkpoint,
            every=options.checkpoint and -(-options.sweeps // SAVES), device=options.device,
        )  # fmt: skip
        out = None if store is None else mc.Writer(store, "a" if goes_on else "x")
        if options.checkpoint is not None and not goes_on:
            # so that from now on the store is that of a run that can go on
            chains.checkpoint(options.checkpoint)
    print(
        f"{len(temperatures)} temperatures from {temperatures[0]:g} to {temperatures[-1]:g}, "
        f"{options.size} x {options.size} spins each, device {chains.device}"
    )
    kept, seconds, total = [], 0.0, options.warm_up + options.sweeps
    with tqdm(total=total, desc="sampling", unit="sweep") as bar, chains, out or nullcontext():
        for chunk in chains:
            for group, node in chunk.children.items():
                labelled = node.to_dataset().assign_coords(temperature=("chain", temperatures))
                chunk[group] = xarray.DataTree(labelled)
                if out is None and group == "posterior":
                    kept.append(labelled)
                before = options.warm_up if group == "posterior" else 0
                bar.update(before + int(labelled.draw[-1]) + 1 - bar.n)
            if out is not None:
                with told():
                    out.append(chunk)
            seconds = chunk.attrs["sampling_time"]
    if store is None:
        draws = xarray.concat(kept, "draw")
    else:
        with xarray.open_datatree(store) as tree:
            draws = tree["posterior"].to_dataset().load()
    found = judged(draws)
    print(found.table())
    if seconds:  # a finished run that is looked at again has no chunks
        sites = total * len(temperatures) * options.size**2
        print(
            f"{total} sweeps in {seconds:.1f} s, {total / seconds:.0f} a second, "
            f"{seconds / sites * 1e9:.2f} ns a site"
        )
    end = chains.state
    with told():
        ising_picture.write(options.out, lattices.joined(end["black"], end["white"]), found)
    print(f"wrote {' and '.join(str(f) for f in (store, options.out) if f is not None)}")


def checked(options: argparse.Namespace) -> tuple[Path | None, bool]:
    """Where the draws are to be written, if anywhere, and whether an earlier run goes on. Raises
    Bad for options that do not fit."""
    if options.checkpoint is not None and options.zarr is None:
        raise Bad("--checkpoint needs --zarr, the store of draws that a resumed run goes on with")
    goes_on = options.checkpoint is not None and options.checkpoint.exists()
    check_writable(options.out)
    if not goes_on:
        check_writable(options.zarr, options.netcdf, new=True)
    return options.zarr or options.netcdf, goes_on


def even(text: str) -> int:
    if not text.isdecimal() or int(text) < 4 or int(text) % 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not an even number of at least 4")
    return int(text)


def parser() -> Parser:
    p = Parser("ising", "Sample the Ising model at several temperatures, beside Onsager's curve.")
    p.add_argument("--size", type=even, default=256, help="rows of a lattice, and columns")
    p.add_argument(
        "--temperatures", type=above_0, nargs="+", default=TEMPERATURES, metavar="T",
        help="in units of the coupling, one lattice for each",
    )  # fmt: skip
    p.add_argument("--sweeps", type=positive, default=25000, help="over each lattice")
    p.add_argument("--warm-up", type=positive, default=3000, help="sweeps before these")
    where = p.add_mutually_exclusive_group()
    where.add_argument(
        "--zarr", type=ending(".zarr"), help="magnetisation and energy of all sweeps"
    )
    where.add_argument("--netcdf", type=ending(".nc"), help="the same as one file")
    p.add_argument(
        "--checkpoint", type=ending(".npz"),
        help="saved during the run; where there is one, the run goes on from it",
    )  # fmt: skip
    add_common(p)
    return p


def main(arguments: list[str] | None = None) -> int:
    return parser().main(run, arguments)


if __name__ == "__main__":
    sys.exit(main())
