"""What the loops of the named models become on GPUs: python -m benchmarks.kernels

Every kernel, forward and backward, is generated for each GPU with its own placement, and compiled
by NVRTC; no GPU is needed, and nothing is timed but the compiler. Registers, spills and stack are
read from the compiled kernel, instructions from its disassembly (nvidia-cuda-nvdisasm).
The table goes to benchmarks/kernels.md.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gpuscan import explain
from gpuscan.codegen.limits import Limits, memory_text, occupancy, of
from gpuscan.codegen.program import Launch
from gpuscan.compile import LoopPlan
from gpuscan.record import record
from gpuscan.runtime import nvrtc, sass

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from models import MODELS, Model

TARGETS = ("t4", "a100", "rtx3090", "rtx4090", "h100", "b200", "rtx5090")

# Of each model: hidden units and rows, such that kernels of every scope are among them.
SIZES: Mapping[str, tuple[tuple[int, int], ...]] = {
    "elman": ((2, 4096), (32, 16), (256, 16), (1024, 16)),
    "lstm": ((32, 16), (256, 16), (1024, 16)),
    "gru_reset_before": ((32, 16), (256, 16)),
    "gru_reset_after": ((32, 16), (256, 16), (1024, 16)),
    "layer_norm_lstm": ((32, 16), (256, 16)),
    "gibbs": ((32, 16), (512, 16)),
    "metropolis": ((1, 4096),),
    "leapfrog": ((2, 4096), (256, 16)),
    "hmc": ((2, 4096),),
    "hmm": ((2, 4096), (32, 16), (512, 16)),
    "power": ((1, 4096), (256, 16)),
}


# Contractions of a step that need each other, forward and backward: so often blocks meet that share
# a step's units. A normalization is two, a mean and one of squares; of sums whose terms every block
# has, none.
DEPENDENT: Mapping[str, tuple[int, int]] = {
    "elman": (1, 1), "lstm": (1, 1), "gru_reset_before": (2, 2), "gru_reset_after": (1, 1),
    "layer_norm_lstm": (5, 4), "gibbs": (2, 0), "leapfrog": (2, 2), "hmm": (2, 2),
}  # fmt: skip


@dataclass
class Kernel:
    """A loop's kernel on a GPU. `part` is forward or backward."""

    model: str
    part: str
    hidden: int
    batch: int
    gpu: Limits
    plan: LoopPlan
    launch: Launch
    precision: str

    @property
    def name(self) -> str:
        found = f"{self.model} {self.hidden}x{self.batch} {self.part} {self.gpu.name}"
        return found if self.precision == "float32" else f"{found} {self.precision}"

    @cached_property
    def cubin(self) -> nvrtc.Cubin:
        return nvrtc.compile(self.launch.source, self.gpu.architecture)

    @cached_property
    def resources(self) -> nvrtc.Resources:
        return self.cubin.resources[self.launch.name]

    @cached_property
    def code(self) -> Code | None:
        text = sass.disassemble(self.cubin)
        return None if text is None else Code(text, self.launch, self.resources.constant)

    @property
    def together(self) -> int:
        """How many blocks a multiprocessor holds."""
        r, x = self.resources, self.launch
        return occupancy(self.gpu, x.block, r.registers, x.shared + r.shared)

    @property
    def fits(self) -> bool:
        """Whether a multiprocessor holds a block; of blocks that meet, whether all are held."""
        room = self.together * self.gpu.multiprocessors
        return self.launch.grid <= room if self.launch.cooperative else room > 0

    def misses(self) -> dict[str, Any]:
        """What it does not keep of what a kernel must."""
        found: dict[str, Any] = {
            "spills": self.resources.spill_stores + self.resources.spill_loads,
            "stack": self.resources.stack,
            "does not fit": not self.fits,
        }
        if self.launch.scope == "grid":
            wanted = DEPENDENT[self.model][self.part == "backward"]
            if self.launch.meetings != wanted:
                found["meetings"] = self.launch.meetings
        in_text = sorted(self.packed & set(re.findall(r"\w+", self.steps)))
        found["weights in the loop's text"] = in_text
        if self.code is not None:
            again = {p: self.code.loads(p) for p in sorted(self.packed | self.constant)}
            found["weights read again"] = {p: n for p, n in again.items() if n}
            # an arrival releases, and those who wait acquire
            met = self.launch.meetings
            exchanges = (*map(self.code.wide, ("MEMBAR", "RED")), self.code.count("CCTL"))
            if exchanges[:2] != (met, met) or not met <= exchanges[2] <= 2 * met:
                found["releases, arrivals, acquires"] = exchanges
            kinds = {x.kind for x in self.code.flow}
            copied = "LDGSTS" in kinds and "LDGDEPBAR" not in kinds
            # a product waits for its own
            text = self.launch.source
            forgotten = "gs_copy(" in text and "gs_copied();" not in text
            found["copies that nobody waits for"] = copied or forgotten
        return {what: x for what, x in found.items() if x}

    @property
    def steps(self) -> str:
        """The text of the loop over the steps."""
        lines = self.launch.source.splitlines()
        start = next(n for n, x in enumerate(lines) if x.startswith("    for (long long t ="))
        return "\n".join(lines[start : lines.index("    }", start)])

    @property
    def packed(self) -> set[str]:
        """The arrays that a block takes from the GPU's memory before the loop, to hold them, or
        in an order of its own."""
        before = self.launch.source.partition(self.steps)[0]
        calls = re.findall(r"(?:\.load|gs_pack_f\d\d)\((.*)\);", before)
        names = set(re.findall(r"\w+", " ".join(calls)))
        names -= {w.name for w in self.launch.weights}
        return {p for p in pointers(self.launch) if p in names}

    @property
    def constant(self) -> set[str]:
        """Of a thread: the arrays of which it reads the same in every step."""
        if self.launch.scope != "thread":
            return set()
        read = re.findall(r"(\w+)\[([^]]*)\]", self.steps)
        moving = {name for name, offset in read if re.search(r"\bt\b", offset)}
        only_read = set(re.findall(r"__restrict__ (\w+)", self.launch.source))
        return only_read & {name for name, _ in read} - moving


def kernels(
    model: Model, batch: int, target: str, scope: str = "", precision: str = "float32"
) -> list[Kernel]:
    """The kernels of a function's loops on a GPU, those that have one: in a scope where they can,
    else in the one that they would have. precision: of their products with weights."""
    f = model.function("reference")
    known: dict[Any, Any] = {x.variable: model.shape(x, batch, 2) for x in model.leaves}
    known |= {v: np.asarray(2, v.dtype) for v, shape in known.items() if shape == ()}
    known |= {s: s.storage for s in f.get_shared()}
    made: list[Launch] = []
    with _recorded(made):
        plans = explain.on_gpu(f.maker.fgraph.outputs, known, of(target), scope, "auto", precision)
    fused = [p for p in plans if p.kernel is not None]
    assert len(fused) == len(made)
    return [
        Kernel(
            model.name, "backward" if p.name.startswith("grad_of_") else "forward", model.hidden,
            batch, of(target), p, x, precision,
        )
        for p, x in zip(fused, made)
    ]  # fmt: skip


class _recorded:
    """The launches that explain() plans, in its order; what it would compile for itself is not."""

    def __init__(self, found: list[Launch]) -> None:
        self.found = found

    def __enter__(self) -> None:
        self.kept = explain.launch_of, explain._compiled
        launch_of = self.kept[0]

        def recorded(*arguments: Any) -> Launch:
            self.found.append(launch_of(*arguments))
            return self.found[-1]

        explain.launch_of, explain._compiled = recorded, lambda launch, gpu, plan: plan

    def __exit__(self, *_: Any) -> None:
        explain.launch_of, explain._compiled = self.kept


def parameters(launch: Launch) -> dict[str, bool]:
    """A kernel's parameters in order, each of eight bytes, and which of them are pointers."""
    head = re.search(rf"\b{launch.name}\(([^{{]*)\)\s*\{{", launch.source)
    assert head is not None
    return {p.split()[-1].lstrip("*"): "*" in p for p in head[1].split(",")}


def pointers(launch: Launch) -> list[str]:
    return [name for name, pointer in parameters(launch).items() if pointer]


# ---- the table -----------------------------------------------------------------------------------

_HEAD = (
    "model", "hidden", "batch", "pass", "GPU", "scope", "grid x block", "registers", "spills",
    "stack", "shared", "weights of a block", "meetings", "SASS of a step", "compiled in", "misses",
)  # fmt: skip


def line(k: Kernel) -> tuple[str, ...]:
    r, x = k.resources, k.launch
    held = {p: sum(w.size for w in x.weights if w.place == p) for p in _PLACES}
    return (
        k.model, f"{k.hidden}", f"{k.batch}", k.part, k.gpu.name, x.scope, f"{x.grid} x {x.block}",
        f"{r.registers}", f"{r.spill_stores + r.spill_loads}", f"{r.stack}",
        memory_text(x.shared + r.shared),
        ", ".join(f"{memory_text(n)} {_PLACES[p]}" for p, n in held.items() if n),
        f"{x.meetings}", "" if k.code is None else f"{len(k.code.loop)}",
        f"{k.cubin.seconds:.1f} s", ", ".join(f"{what} {n}" for what, n in k.misses().items()),
    )  # fmt: skip


_PLACES = {"registers": "in registers", "shared": "in shared memory", "memory": "read every step"}


def table(lines: Sequence[tuple[str, ...]]) -> str:
    rows = [" | ".join(x) for x in (_HEAD, ("---",) * len(_HEAD), *lines)]
    return "\n".join(f"| {row} |" for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    command = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels", description=(__doc__ or "").partition("\n\n")[2]
    )
    command.add_argument("--model", action="append", choices=tuple(SIZES), help="only this one")
    command.add_argument("--target", action="append", choices=TARGETS, help="only this GPU")
    command.add_argument("--out", default=Path(__file__).with_suffix(".md"), type=Path)
    options = command.parse_args(arguments)
    if reason := nvrtc.missing():
        print(reason)
        return 3
    lines: list[tuple[str, ...]] = []
    start = time.perf_counter()
    with ThreadPoolExecutor() as pool:
        for name in options.model or SIZES:
            for hidden, batch in SIZES[name]:
                model = MODELS[name](hidden)
                found = [k for t in options.target or TARGETS for k in kernels(model, batch, t)]
                lines += pool.map(line, sorted(found, key=lambda k: k.part, reverse=True))
                print(f"{len(lines)} kernels, {time.perf_counter() - start:.0f} s", flush=True)
    major, minor = nvrtc.version()
    words = (__doc__ or "").partition("\n\n")[2].partition("\nThe table")[0].replace("\n", " ")
    words = textwrap.fill(f"`python -m benchmarks.kernels`, NVRTC {major}.{minor}. {words}", 100)
    text = f"# Kernels\n\n{words}\n\n"
    options.out.write_text(f"{text}{_NOTES}\n{table(lines)}\n")
    return 0


_NOTES = """\
- Sizes of a model: hidden units and rows (for chains: the chains). Neither the rows nor the steps
  are part of a kernel.
- SASS of a step: instructions of the loop over the steps, its inner loops and the functions that
  it calls counted once. Of scope thread the compiler may have put several steps into one turn.
- Misses: what a kernel does not keep of what it must. No spills and no stack; at least one block
  fits a multiprocessor, and of a cooperative launch the whole grid the GPU; so many meetings a step
  as there are contractions that need each other; a release, an arrival and an acquire for each, of
  the whole GPU's scope; and in the loop no load of a weight that a block packed before it, or that
  a thread reads in every step, by following in the disassembly where each load's address comes
  from.
"""


# ---- instructions --------------------------------------------------------------------------------

_REGISTER = re.compile(r"\b(U?R)(\d+)\b")
_BANK = re.compile(r"c\[0x0\]\[0x([0-9a-f]+)\]")
# What has no register as a result, so that the first that it names is read.
_NO_RESULT = ("ST", "RED", "BAR", "BRA", "CCTL", "EXIT", "NOP", "CALL", "RET", "WARPSYNC", "B2")


@record
class _Line:
    word: str  # with what is behind its dots
    result: frozenset[str]
    read: frozenset[str]
    bank: tuple[range, ...]  # bytes of the constant bank
    sure: bool  # whether it is always carried out


class Code:
    """The instructions of a kernel, and from which of its parameters the addresses come that its
    time loop loads from."""

    def __init__(self, text: str, launch: Launch, constant: int) -> None:
        self.text, self.launch = text, launch
        self.flow = sass._instructions(text, launch.name)
        self.lines = _lines(text, launch.name)
        assert len(self.lines) == len(self.flow)
        parts = [p for p in sass._components(self.flow, set(range(len(self.flow)))) if len(p) > 1]
        self.turn = frozenset(max(parts, key=self._rank, default=[]))
        self.loop = sorted(self.turn | self._called())
        names = parameters(launch)
        base = constant - 8 * len(names)
        self.places = {n: range(base + 8 * k, base + 8 * k + 8) for k, n in enumerate(names)}

    def _rank(self, part: Sequence[int]) -> tuple[int, ...]:
        """Where blocks or threads wait for each other, or write to the GPU's memory: what is
        before a time loop, and packs its weights, may be longer but does none of it."""
        words = [self.lines[n].word for n in part]
        waits = [sum(w.startswith(x) for w in words) for x in ("MEMBAR", "BAR", "STG")]
        return (*waits, len(part))

    def _called(self) -> set[int]:
        """The instructions of the functions that the loop calls, and that those call."""
        found: set[int] = set()
        waiting = [self.flow[n].called for n in self.turn]
        while waiting:
            n = waiting.pop()
            if n >= 0 and n not in found:
                found.add(n)
                waiting += [*self.flow[n].next, self.flow[n].called]
        return found

    def count(self, word: str) -> int:
        """Instructions of the loop whose word begins so."""
        return sum(self.lines[n].word.startswith(word) for n in self.loop)

    def wide(self, word: str) -> int:
        """Those of them that hold for the whole GPU or more, and not for a block alone."""
        words = [self.lines[n].word for n in self.loop]
        return sum(w.startswith(word) and w.endswith((".GPU", ".SYS")) for w in words)

    def loads(self, name: str) -> int:
        """Loads of the loop from addresses that come from this parameter, and may be from others:
        what no other pointer points to is loaded as a constant, but for functions, which do not
        know."""
        tainted = self._tainted(self.places[name])
        alone = f"__restrict__ {name}," in self.launch.source
        loads = [n for n in self.loop if self.lines[n].word.startswith("LDG")]
        return sum(
            _is_pair(self.lines[n].read & tainted[n])
            for n in loads
            if not alone or n not in self.turn or "CONSTANT" in self.lines[n].word.split(".")
        )

    def _tainted(self, place: range) -> list[frozenset[str]]:
        """Before each instruction the registers that hold what was computed from a parameter. A
        function's are those of its calls in the loop; what it gives back is no address. It chooses
        among no pointers: where it writes a register on a condition, nobody reads the old value."""
        state: list[frozenset[str]] = [frozenset()] * len(self.flow)
        waiting, inside = list(range(len(self.flow))), set(self.loop)
        while waiting:
            n = waiting.pop()
            line, before = self.lines[n], state[n]
            over = line.sure or (n in inside and n not in self.turn)
            found = before - line.result if over else before
            loads = line.word.startswith(("LDG", "LDS", "ATOM"))  # a value is no address
            if not loads:
                if line.word.startswith(("LDC", "ULDC", "LDCU")):
                    found |= _of_place(line, place)
                elif line.read & before or any(set(b) & set(place) for b in line.bank):
                    found |= line.result
            called = self.flow[n].called if n in inside else -1
            for k in (*self.flow[n].next, *([called] if called >= 0 else [])):
                if not found <= state[k]:
                    state[k] |= found
                    waiting.append(k)
        return state


def _is_pair(registers: frozenset[str]) -> bool:
    """Whether there are both halves of an address: one alone is left from an earlier value."""
    numbers = {(r.rstrip("0123456789"), int(r.lstrip("UR"))) for r in registers}
    return any((kind, n + 1) in numbers for kind, n in numbers)


def _of_place(line: _Line, place: range) -> frozenset[str]:
    """The registers that a load of constants takes from a parameter, four bytes each."""
    if not line.bank or not line.result:
        return frozenset()
    (bank, *_), registers = line.bank, sorted(line.result, key=lambda r: int(r.lstrip("UR")))
    return frozenset(r for k, r in enumerate(registers) if bank.start + 4 * k in place)


def _lines(text: str, kernel: str) -> list[_Line]:
    found = []
    for row in text[text.index(f"\n.text.{kernel}:") + 1 :].splitlines()[1:]:
        if row.startswith("//---") or row.lstrip().startswith(".section"):
            break
        if match := sass._LINE.match(row):
            _, _, predicate, word, operands = match.groups()
            found.append(_line(predicate is None, word, operands))
    return found


_WIDTH = {"64": 2, "128": 4, "WIDE": 2}  # registers
_DOUBLE = ("CS2R", "DADD", "DMUL", "DFMA")


def _line(sure: bool, word: str, operands: str) -> _Line:
    words = word.split(".")
    width = max(_WIDTH.get(w, 1) for w in words)
    if words[0] in _DOUBLE and "32" not in words:
        width = 2
    parts = [p.strip() for p in operands.split(",")]
    result: set[str] = set()
    if not word.startswith(_NO_RESULT) and "SETP" not in words[0]:
        for k, p in enumerate(parts):
            if named := re.match(r"^(U?R)(\d+)\b", p):
                result = {f"{named[1]}{int(named[2]) + i}" for i in range(width)}
                del parts[k]
                break
            if p in ("RZ", "URZ"):
                del parts[k]
                break
    # desc[..] says how memory is reached, not where
    parts = [re.sub(r"desc\[[^]]*\]", "", p) for p in parts]
    read = set()
    for k, p in enumerate(parts):
        pair = ".64" in p or "64" in words or ("WIDE" in words and k == len(parts) - 1)
        for kind, number in _REGISTER.findall(p):
            pair = pair or ("[" in p and (kind == "UR" or "E" in words))  # an address
            read |= {f"{kind}{int(number) + i}" for i in range(1 + pair)}
    bank = tuple(range(int(b, 16), int(b, 16) + 4 * width) for b in _BANK.findall(operands))
    return _Line(word, frozenset(result), frozenset(read), bank, sure)


if __name__ == "__main__":
    sys.exit(main())
