"""A loop as one CUDA kernel of scope block or grid: the threads of a block do together what one
worker does, which has some rows of the states, or some units of all rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..record import replace
from .kernel import (
    Array,
    HeldWeight,
    InShared,
    Let,
    Name,
    NotMet,
    Number,
    Pointer,
    Shift,
    Use,
    binary,
    names,
    product,
)
from .known import Known
from .launches import FOLD_BYTES, MET_PLACE, THREADS, DoesNotFit, Parameters, Sized
from .limits import Limits
from .operands import beside, published
from .overlap import Staged, fetched_ahead, overlapped
from .program import (
    ROWS_AHEAD,
    Exchanged,
    FirstRow,
    Given,
    Held,
    Launch,
    LoopProgram,
    Meeting,
    Placed,
    Scratch,
    Size,
    State,
    Together,
    Trace,
    Unit,
)
from .threads import Threads
from .weights import (
    EIGHT_ROWS,
    LEAST_HELD,
    OTHER_REGISTERS,
    STAGED_FROM,
    VECTOR,
    Fragments,
    Layout,
    Weight,
    constant_panels,
    panels,
    together,
    with_own_panels,
)

GRANULES = (4, 2)  # units that a block has are a multiple of one: 16 bytes, or 8
MOST_ROWS = 32  # of a block
BLOCK, BLOCKS = Name("blockIdx.x"), Name("gridDim.x")
MEMBER, MEMBERS, GROUP = Name("member"), Name("members"), Name("group")
TRIALS = 8  # of numbers of groups
# registers of a thread for the weights that a group holds, where blocks meet more than twice a
# step: then its own values need the others
OF_MANY_STAGES = 64
# of groups whose products are of fragments: these are of 16 rows, and fewer take no less time
FRAGMENT_GROUPS = 2


def by_units(loop: Sized, limits: Limits, precision: str) -> Launch:
    """The kernel of blocks that share units. Where the registers of a part of the blocks hold all
    weights, and rows need no other rows, there are as many groups of blocks as hold them, each with
    rows of its own: so a block reads fewer rows of the others. How many groups there could be
    follows from the weights alone. Raises DoesNotFit where there is no such kernel."""
    one = Blocks(loop, limits, True, precision)
    for groups in one.numbers_of_groups():
        blocks = Blocks(loop, limits, True, precision, groups)
        if blocks.is_in_registers():
            return blocks.launch()
    return one.launch()


class Blocks:
    """A loop whose workers are blocks: each with rows of its own, or with units of all rows, or of
    its group's rows."""

    def __init__(
        self, loop: Sized, limits: Limits, by_units: bool, precision: str, groups: int = 1
    ) -> None:
        self.precision = precision
        self.loop, self.program, self.limits, self.by_units = loop, loop.program, limits, by_units
        self.units: list[int] = []
        self.rows = loop.rows if groups > 1 or not by_units else None
        count = 1 if self.rows is None else max(1, loop.values[self.rows])
        if by_units:
            if self.program.units is None:
                raise DoesNotFit("units are not shared")
            self.units = [loop.value(s) for s in self.program.units.sizes]
            most = max((-(-size // GRANULES[0]) for size in self.units), default=1)
            self.members = max(1, min(limits.multiprocessors // groups, most))
            self.tile = -(-count // groups)
        else:
            each = -(-count // limits.multiprocessors)
            self.members, self.tile = 1, min(MOST_ROWS, 1 << (each - 1).bit_length())
        self.in_groups, self.groups = groups > 1, -(-count // self.tile)  # of those with rows
        self.worker, self.workers = (MEMBER, MEMBERS) if self.in_groups else (BLOCK, BLOCKS)
        self.grid = self.groups * self.members
        self.threads = min(THREADS, limits.threads_block)
        self.parameters = Parameters(loop)
        self.weights: list[Weight] = []  # in registers
        self.registers = min(255, limits.registers_multiprocessor // self.threads)
        self.registers -= OTHER_REGISTERS
        self.partial_bytes: dict[str, int] = {}
        self.partials: dict[str, Array] = {}  # per dtype: sums of warps
        self.prologue: list[Any] = []
        self.placed: list[Placed] = []
        self.names: dict[str, Any] = {"first": Number(0)}
        self.terms: dict[Any, Name] = {}
        self.known: Known | None = None  # when it is known what lies where
        # a block has at most these
        self.most = {} if self.rows is None else {self.rows: self.tile}
        for name, source in zip(self.program.kernel.integers, self.program.integers):
            if isinstance(source, Unit):
                at_most = self._most_units(source.size) if by_units else None
                size = self.loop.value(self.program.units.sizes[source.size])  # type: ignore[union-attr]
                self.most[name.text] = 0 if not source.end else (at_most or size)

    def _most_units(self, k: int) -> int:
        return self._shared_out(k)[0]

    def _shared_out(self, k: int) -> tuple[int, int]:
        """How many units a block has at most, and of what these are a multiple: of the largest
        granule by which no block has more than it must."""
        counts = [-(-self.units[k] // g) for g in GRANULES]
        most, granule = min((-(-n // self.members) * g, -g) for n, g in zip(counts, GRANULES))
        return most, -granule

    def numbers_of_groups(self) -> Iterator[int]:
        """In how many groups of blocks each may hold all weights in its registers, the most first;
        none where there is one group at most."""
        if self.loop.rows is None:
            return
        whole = {name.text: self.loop.value(size) for name, size in whole_units(self.program)}
        shapes = panels(self.program.kernel.body).values()
        size = 2 if self.precision in ("bf16", "fp16") else 4
        weights = size * sum(self.loop.value(product(shape), whole) for shape in shapes)
        assert self.program.units is not None
        registers = self.registers if self.program.units.meetings <= 2 else OF_MANY_STAGES
        members = max(2, -(-weights // (4 * registers * self.threads)))
        most = self.limits.multiprocessors if self.precision == "float32" else FRAGMENT_GROUPS
        tried = (self.limits.multiprocessors // (members + k) for k in range(TRIALS))
        yield from dict.fromkeys(min(n, most) for n in tried if n > 1)

    def is_in_registers(self) -> bool:
        """Whether a block's registers hold its weights, but for those that are as well in shared
        memory."""
        self._lay_out()
        left = sum(p.size for p in self.placed if p.place != "registers")
        layouts = [w.layout for w in self.weights]
        direct = [x.registers for x in layouts if isinstance(x, Layout) and not x.staged]
        return bool(self.placed) and left < 4 * LEAST_HELD and sum(direct) < STAGED_FROM

    def _lay_out(self) -> Known:
        """Finds what lies where, once."""
        if self.known is None:
            self._integers()
            self.known = Known(self.names, self.terms)
            self.body = self.known.statements(self.program.kernel.body)
            self._pointers()
        return self.known

    def launch(self) -> Launch:
        known = self._lay_out()
        near = {s.array.name for s in self.prologue if isinstance(s, InShared)}
        body = tuple(with_own_panels(self.body, self.weights, self.partials, near))
        among = (self.workers, self.worker) if self.in_groups else ()
        made: Sequence[Any] = Threads(self.by_units, among).statements(body)
        pairs = list(zip(self.program.kernel.pointers, self.program.pointers))
        inputs = [p.array.name for p, source in pairs if isinstance(source, Given)]
        traces = {
            p.array.name: known.expression(product(self.program.rows[source.trace][1]))
            for p, source in pairs if isinstance(source, Trace)
        }  # fmt: skip
        states = [p.array.name for p, source in pairs if isinstance(source, State)]
        names = [s.name.text for s in self.prologue if isinstance(s, Let)]
        names += [n.text for n in self.program.kernel.integers]
        made = known.statements(made)  # sizes of what is shared out too
        if self.by_units:
            made = self._published(made, traces, states)
            made = overlapped(made, inputs, traces, states, names, self._stage)
            made = known.statements(made)
        else:
            made = beside(made, traces, states, self._stage)
            made = known.statements(fetched_ahead(made, inputs, names, self._stage))
        shared = [Use("GS_SHARED", (Name("shared"),))]
        meetings = 0
        if self.by_units and self.program.units is not None:
            meetings = self.program.units.meetings
            times = f"{meetings} time{'s' * (meetings != 1)}"
            reason = f"blocks share its units, and meet {times} a step"
            if self.groups > 1:
                has = f"{self.groups} groups of {self.members}"
                reason = f"{has} {reason}, each group for rows of its own"
        elif self.rows is None:
            reason = "one block has all of its state"
        else:
            has = "one" if self.tile == 1 else f"up to {self.tile}"
            reason = f"its rows need no other rows, so a block has {has} of them"
        launch = self.parameters.launch(
            [*shared, *self.prologue, *made], "grid" if self.by_units else "block", reason,
            self.grid, self.threads, self.shared, self.names.keys(), meetings,
        )  # fmt: skip
        return replace(launch, weights=tuple(self.placed), most=tuple(self.most.items()))

    def _published(
        self, body: Sequence[Any], traces: Mapping[str, Any], states: Sequence[str]
    ) -> Sequence[Any]:
        """The statements with rows exchanged in 16 bits, where they are multiplied so."""
        made, rounded = published(body, self.weights, traces, states)
        for x in rounded:
            elements = 2 * self.loop.value(x.elements, self.most)
            held = Held(Exchanged(), self.groups, elements, x.array.dtype)
            self.parameters.pointer(Pointer(x.array, True), held)
            apart = self.parameters.integer(Name(f"{x.array.name}_apart"), elements)
            self._of_a_group(x.array, apart)
        return made

    def _integers(self) -> None:
        program, prologue = self.program, self.prologue
        weights = _weight_sizes(program)
        rows = Name(self.rows or "")
        if self.rows is not None:
            total = self.parameters.integer(Name("rows"), self.loop.values[self.rows])
            whose = "group" if self.by_units else "block"
            tile = self.parameters.integer(Name(f"rows_a_{whose}"), self.tile)
            if self.by_units:
                members = self.parameters.integer(MEMBERS, self.members)
                prologue.append(Let(GROUP, binary("int_div", BLOCK, members)))
                prologue.append(Let(MEMBER, binary("mod", BLOCK, members)))
            first = GROUP if self.by_units else BLOCK
            prologue.append(Let(Name("row"), binary("mul", first, tile)))
            left = binary("sub", total, Name("row"))
            prologue.append(Let(rows, (left < tile).choose(left, tile)))
        for name, source in zip(program.kernel.integers, program.integers):
            if name == rows:
                self.names[name.text] = rows
            elif isinstance(source, Size) and name.text in weights:
                self.names[name.text] = Number(self.loop.values[name.text])
        known = Known(self.names)
        for name, source in zip(program.kernel.integers, program.integers):
            match source:
                case FirstRow():
                    self.names[name.text] = Name("row") if self.rows is not None else Number(0)
                case Together(count):
                    own = known.expression(count)
                    many = (own > 0).choose(own < ROWS_AHEAD, Number(False, "bool"))
                    together = many.choose(Number(ROWS_AHEAD) // own, Number(1))
                    prologue.append(Let(name, together))
                    self.names[name.text] = name
                case Unit(k, end) if self.by_units:
                    assert program.units is not None
                    size = known.expression(program.units.sizes[k])
                    if size == Number(0):
                        self.names[name.text] = size
                        continue
                    granule = self._shared_out(k)[1]
                    granules = binary("int_div", size + (granule - 1), Number(granule))
                    if isinstance(size, Number):
                        granules = Number(-(-size.value // granule))
                    worker = self.worker + 1 if end else self.worker
                    first = Number(granule) * ((granules * worker) // self.workers)
                    whole = isinstance(size, Number) and size.value % granule == 0
                    value = first if whole else (first < size).choose(first, size)
                    prologue.append(Let(name, value))
                    self.names[name.text] = name
                    if end:
                        count = Name(name.text.replace("_end", "_count"))
                        start = Name(name.text.replace("_end", "_first"))
                        prologue.append(Let(count, name - start))
                        self.terms[name - start] = count
                        self.most[count.text] = self.most[name.text]
                case Unit(k, end):
                    assert program.units is not None
                    size = known.expression(program.units.sizes[k])
                    self.names[name.text] = size if end else Number(0)

    def _pointers(self) -> None:
        program = self.program
        self.shared = FOLD_BYTES
        of_panels = panels(program.kernel.body)
        scratch: list[tuple[Pointer, Scratch, int, bool]] = []
        for k, (pointer, source) in enumerate(zip(program.kernel.pointers, program.pointers)):
            if isinstance(source, Scratch):
                elements = source.elements
                own = pointer.array.name in of_panels
                if own:
                    elements = product(of_panels[pointer.array.name])
                one = self.by_units and source.shared and not own
                scratch.append((pointer, source, self.loop.value(elements, self.most), one))
            elif isinstance(source, Meeting):
                if self.by_units:
                    self.parameters.pointer(pointer, Held(source, self.groups))
                    self._of_a_group(pointer.array, Name("GS_GRID_MEETING"))
                    self.prologue.append(NotMet(MET_PLACE))
            else:
                self._outside(k, pointer, source)
        packed = [x for x in scratch if x[0].array.name in of_panels]
        self._hold(packed)
        self._share(packed, "shared", "memory")
        self._share([x for x in scratch if x[0].array.name not in of_panels])

    def _hold(self, packed: list[Any]) -> None:
        """Weights that registers have room for, the largest first; of one that fits neither there
        nor in shared memory, a part."""
        room = self.limits.shared_block - FOLD_BYTES
        entries = {x[0].array.name: x for x in packed}
        for group in sorted(together(self.body), key=lambda g: -sum(entries[p][2] for p in g)):
            if sum(entries[p][2] for p in group) < self._least_held():
                continue
            while group:  # all of them, or as many as there is room for
                most = range(len(group), 0, -1)
                held = next(
                    (n for n in most if self._hold_weight(group[:n], entries, packed, room)), 1
                )
                group = group[held:]
        left = sum(_bytes(x) for x in packed) - room + sum(self.partial_bytes.values())
        for entry in sorted(packed, key=_bytes, reverse=True):
            if left > 0:
                left -= self._hold_weight((entry[0].array.name,), entries, packed, room, True)
        layouts = [w.layout for w in self.weights if isinstance(w.layout, Layout)]
        if len(layouts) > 1 and sum(x.registers for x in layouts) > EIGHT_ROWS:
            kinds = {x.type: replace(x, rows=4).type for x in layouts}
            self.prologue = [
                replace(s, type=kinds.get(s.type, s.type)) if isinstance(s, HeldWeight) else s
                for s in self.prologue
            ]
        for dtype, size in self.partial_bytes.items():
            self.partials[dtype] = Array(f"sums_{dtype}", dtype)
            place = self._place(f"sums_{dtype}")
            self.prologue.append(InShared(self.partials[dtype], place))
            self.shared += size

    def _least_held(self) -> int:
        return LEAST_HELD if self.precision == "float32" else 1

    def _hold_weight(
        self, group: tuple[str, ...], entries: Mapping[str, Any], packed: list[Any], room: int,
        in_part: bool = False,
    ) -> int:  # fmt: skip
        """A weight in registers, where there is room: how many bytes of it."""
        products = constant_panels(self.body)
        if not all(products.get(p) for p in group):
            return 0
        sizes = panels(self.body)
        source = entries[group[0]][1]
        depth, wide = (self.loop.value(e, self.most) for e in sizes[group[0]])
        rows = max(self.loop.value(s.arguments[0], self.most) for p in group for s in products[p])
        item = np.dtype(source.dtype).itemsize
        for held in range(depth, 0, -64) if in_part else (depth,):
            layout = self._layout(held, wide, len(group), source.dtype, rows, room)
            if layout is None:
                continue
            partial = _lines(layout.partial_bytes(rows))
            self.registers -= layout.registers
            most = self.partial_bytes.get(source.dtype, 0)
            self.partial_bytes[source.dtype] = max(most, partial)
            weight = Weight(group, layout, held)
            self.weights.append(weight)
            array = Array(weight.name, source.dtype)
            clear = Use(f"gs_clear_{'f32' if item == 4 else 'f64'}", (array,))
            self.prologue += [HeldWeight(array, layout.type), clear]
            for p in group:
                size = held * wide * layout.itemsize
                self.placed.append(Placed(p, "registers", size, layout.precision))
                pointer, scratch, _, one = entries[p]
                packed.remove(entries[p])
                if held < depth:
                    packed.append((pointer, scratch, (depth - held) * wide, one))
            return held * wide * item * len(group)
        return 0

    def _layout(
        self, depth: int, wide: int, parts: int, dtype: str, rows: int, room: int
    ) -> Layout | Fragments | None:
        """How registers hold a matrix, where they and shared memory have room."""
        whole = depth * np.dtype(dtype).itemsize % VECTOR == 0
        ways: list[Layout | Fragments] = [Layout(depth, wide, parts, self.threads, dtype)]
        # blocks that are no groups may need their shared memory for weights
        if self.in_groups and whole and ways[0].registers >= STAGED_FROM:
            ways.insert(0, replace(ways[0], staged=True))
        if self.precision != "float32" and dtype == "float32":
            ways = [Fragments(depth, wide, parts, self.threads, self.precision)]
        for x in ways:
            fits = x.fits and x.registers <= self.registers - x.others
            if fits and 4 * _lines(x.partial_bytes(rows)) <= 3 * room:
                return x
        return None

    def _stage(self, staged: Staged) -> bool:
        """Takes shared memory for what goes to or from the device's while blocks meet."""
        size = self.loop.value(staged.elements, self.most) * np.dtype(staged.array.dtype).itemsize
        if self.shared + size > self.limits.shared_block:
            return False
        self.prologue.append(InShared(staged.array, self._place(staged.array.name)))
        self.shared += _lines(size)
        return True

    def _place(self, name: str) -> Name:
        """Where in shared memory the next array lies. It follows from the number of rows, which
        the text must not depend on: so it is a parameter."""
        return self.parameters.integer(Name(f"{name}_place"), self.shared)

    def _share(self, scratch: Sequence[Any], place: str = "", other: str = "") -> None:
        """Scratch memory: in shared memory as far as there is room."""
        for pointer, source, elements, one in scratch:
            taken = elements * np.dtype(source.dtype).itemsize
            size = _lines(taken)
            fits = not one and self.shared + size <= self.limits.shared_block
            if place:
                place_of = place if fits else other
                self.placed.append(Placed(pointer.array.name, place_of, taken, source.dtype))
            if fits:
                self.prologue.append(InShared(pointer.array, self._place(pointer.array.name)))
                self.shared += size
                continue
            copies = self.groups if one else self.grid
            held = Held(source, copies, elements, source.dtype)
            self.parameters.pointer(pointer, held)
            apart = self.parameters.integer(Name(f"{pointer.array.name}_apart"), elements)
            if one:
                self._of_a_group(pointer.array, apart)
            elif copies > 1:
                self.prologue.append(Shift(pointer.array, binary("mul", BLOCK, apart)))

    def _of_a_group(self, array: Array, apart: Any) -> None:
        """An array of which each group of blocks has one."""
        if self.in_groups:
            self.prologue.append(Shift(array, binary("mul", GROUP, apart)))

    def _outside(self, k: int, pointer: Pointer, source: Any) -> None:
        """Memory that the host gives or reads: the block's rows of it; a copy for each block of
        what all would write alike."""
        axis = self.program.row_axes[k]
        known = Known(self.names)
        if self.rows is not None and axis is not None:
            apart = known.expression(self.parameters.stride(source, axis))
            self.prologue.append(Shift(pointer.array, binary("mul", Name("row"), apart)))
        copies, which = 1, BLOCK
        if isinstance(source, Trace | State) and self.grid > 1:
            units = self.program.units
            shared = self.by_units and units is not None and units.one[k]
            if not shared and (self.by_units or axis is None):
                copies = self.grid
            if copies > 1 and self.in_groups and axis is not None:
                copies, which = self.members, MEMBER  # groups have rows of it
        self.parameters.pointer(pointer, Held(source, copies))
        if copies > 1:  # each of all rows
            whole = {} if self.rows is None else {self.rows: Name("rows")}
            size = Known({**self.names, **whole}).expression(self.parameters.size(source))
            self.prologue.append(Shift(pointer.array, binary("mul", which, size)))


def _lines(size: int) -> int:
    """So many bytes of shared memory, as whole lines."""
    return -(-size // 128) * 128


def _bytes(entry: Any) -> int:
    """Of scratch memory."""
    return int(entry[2] * np.dtype(entry[1].dtype).itemsize)


def whole_units(program: LoopProgram) -> Iterator[tuple[Name, Any]]:
    """Where the units of a worker that has all of them begin and end."""
    for name, source in zip(program.kernel.integers, program.integers):
        if isinstance(source, Unit) and program.units is not None:
            yield name, program.units.sizes[source.size] if source.end else Number(0)


def _weight_sizes(program: LoopProgram) -> set[str]:
    """The sizes of packed operands and of units, which are numbers in the text."""
    found: set[str] = set()
    sizes = [s for pair in panels(program.kernel.body).values() for s in pair]
    for e in [*sizes, *(program.units.sizes if program.units else ())]:
        found |= set(names(e))
    return found
