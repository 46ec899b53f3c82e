"""A GPU's code as text, and its instructions counted: in a kernel, and in its loops."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import BuildError
from ..record import record
from .nvrtc import Cubin, toolkits, wheel_folders

# Instructions that are counted under one name; every other one counts under its own first word:
# LDG STG LDS STS LDL STL FFMA HMMA BAR MEMBAR CCTL CALL ...
_ALIKE = {"ATOMG": "ATOM", "ATOMS": "ATOM", "REDG": "RED", "REDS": "RED"}


@record
class Loop:
    """A loop of a kernel: its instructions, also those that the compiler put out of its line, but
    not those of functions that it calls (CALL says so)."""

    first: int  # address of the instruction that the loop comes back to
    instructions: int
    counts: dict[str, int]  # by kind, with those of the loops inside
    inner: tuple[Loop, ...]


@record
class _Instruction:
    address: int
    kind: str
    next: tuple[int, ...]  # numbers of those that may follow
    called: int = -1  # of a call: the number of the function's first one, where it is here


@functools.cache
def disassembler() -> str | None:
    """nvdisasm: of NVIDIA's wheel nvidia-cuda-nvdisasm, or of a CUDA toolkit, or on the path."""
    from shutil import which

    for folder in (*wheel_folders(), *toolkits()):
        if found := which("nvdisasm", path=str(folder / "bin")):
            return found
    return which("nvdisasm")


def disassemble(cubin: Cubin) -> str | None:
    """The code as text, or None where there is no nvdisasm. Raises BuildError where it fails."""
    import subprocess
    import tempfile

    command = disassembler()
    if command is None:
        return None
    with tempfile.TemporaryDirectory(prefix="gpuscan-") as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin.image)
        done = subprocess.run(
            [command, "-c", str(file)], capture_output=True, encoding="utf-8", errors="replace",
            check=False,
        )  # fmt: skip
    if done.returncode:
        raise BuildError(f"{command} failed with status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def total(text: str, kernel: str) -> dict[str, int]:
    """A kernel's instructions by kind, with those of the functions compiled for it, without the
    filling behind its end. Raises ValueError where the text has no such kernel."""
    code = _instructions(text, kernel)
    return _counted(i for n, i in enumerate(code) if i.kind != "NOP" and i.next != (n,))


def loops(text: str, kernel: str) -> tuple[Loop, ...]:
    """The outermost loops of a kernel and of the functions compiled for it, in the order of their
    addresses, each with those inside. Raises ValueError where the text has no such kernel."""
    code = _instructions(text, kernel)
    before: list[list[int]] = [[] for _ in code]
    for n, i in enumerate(code):
        for f in i.next:
            before[f].append(n)
    return tuple(_loops(code, before, set(range(len(code)))))


def _counted(code: Iterable[_Instruction]) -> dict[str, int]:
    return dict(Counter(i.kind for i in code))


_LABEL = re.compile(r"^\s*([^\s:]+):$")
_LINE = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@(!?)(U?P\w+)\s+)?([A-Z][\w.]*)\s*([^;]*);")
_TARGET = re.compile(r"`\(([^)]+)\)")


def _instructions(text: str, kernel: str) -> list[_Instruction]:
    """The instructions of a kernel's section."""
    head = f"\n.text.{kernel}:"
    start = text.find(head)
    if start < 0:
        names = ", ".join(re.findall(r"^\.text\.(\S+):", text, re.MULTILINE)) or "none"
        raise ValueError(f"the text has no kernel {kernel!r}; there are: {names}")
    labels: dict[str, int] = {}
    read: list[tuple[int, bool, bool, str, str]] = []
    for line in text[start + len(head) :].splitlines():
        if line.startswith("//---") or line.lstrip().startswith(".section"):
            break
        if label := _LABEL.match(line):
            labels[label[1]] = len(read)
        elif found := _LINE.match(line):
            address, negated, predicate, word, operands = found.groups()
            never = predicate in ("PT", "UPT") and bool(negated)
            read.append((int(address, 16), predicate is not None, never, word, operands))
    code = []
    for n, (address, predicated, never, word, operands) in enumerate(read):
        kind = word.partition(".")[0]
        follows = [n + 1] if n + 1 < len(read) else []
        target = _TARGET.search(operands)
        if never:
            pass
        elif (
            target
            and target[1] in labels
            and (
                # ptxas writes jumps as CALL too, to a label; a CALL of a function comes back
                kind in ("BRA", "JMP") or (kind == "CALL" and target[1].startswith(".L"))
            )
        ):
            # the condition is before the instruction or its first operand
            if not predicated and operands.lstrip().startswith("`"):
                follows = []
            follows.append(labels[target[1]])
        elif kind in ("EXIT", "RET", "BRX", "JMX", "KILL") and not predicated:
            follows = []
        called = -1
        if kind == "CALL" and target and not target[1].startswith(".L"):
            called = labels.get(target[1], -1)
        follows = [f for f in follows if f < len(read)]
        code.append(_Instruction(address, _ALIKE.get(kind, kind), tuple(follows), called))
    return code


def _loops(
    code: Sequence[_Instruction], before: Sequence[Sequence[int]], inside: set[int]
) -> Iterator[Loop]:
    """The outermost loops among these instructions: those sets of more than one, each of which
    every other one can come after. (A lone jump to itself stands behind a kernel's end.)"""
    for part in sorted(sorted(p) for p in _components(code, inside) if len(p) > 1):
        members = set(part)
        # where it is entered from outside, and comes back to
        first = next((n for n in part if not members.issuperset(before[n])), part[0])
        inner = tuple(_loops(code, before, members - {first}))
        yield Loop(code[first].address, len(part), _counted(code[n] for n in part), inner)


def _components(code: Sequence[_Instruction], inside: set[int]) -> Iterator[list[int]]:
    """Strongly connected components (Tarjan's algorithm, without recursion)."""
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    stacked: set[int] = set()
    for root in sorted(inside):
        if root in number:
            continue
        work = [(root, iter(code[root].next))]
        number[root] = low[root] = len(number)
        stack.append(root)
        stacked.add(root)
        while work:
            n, rest = work[-1]
            for f in rest:
                if f not in inside:
                    continue
                if f not in number:
                    number[f] = low[f] = len(number)
                    stack.append(f)
                    stacked.add(f)
                    work.append((f, iter(code[f].next)))
                    break
                if f in stacked:
                    low[n] = min(low[n], number[f])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[n])
                if low[n] == number[n]:
                    part = [stack.pop()]
                    while part[-1] != n:
                        part.append(stack.pop())
                    stacked.difference_update(part)
                    yield part
