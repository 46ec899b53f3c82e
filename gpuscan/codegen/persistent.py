"""A whole loop as one CUDA kernel, for sizes that are known: who computes what, and where it lies.

The worker of a loop's program is a thread, which has a row of the states in its registers; or a
block, whose threads do together what the worker does, and which has some rows, or some units of
all rows. Blocks with rows never wait for each other; blocks with units meet between the stages of
a step. Sizes that weights have are numbers in the text; the number of steps and of rows are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DeviceError
from ..record import record, replace
from .kernel import (
    Array,
    Expr,
    For,
    HeldWeight,
    If,
    InShared,
    Kernel,
    Leave,
    Let,
    Local,
    Name,
    Number,
    Pointer,
    Return,
    Shift,
    Steps,
    Use,
    binary,
    product,
)
from .limits import Limits, memory_text
from .overlap import Staged, overlapped
from .program import (
    ROWS_AHEAD,
    Done,
    FirstRow,
    Given,
    Held,
    Launch,
    LoopLength,
    LoopProgram,
    Meeting,
    NestProgram,
    Placed,
    Scratch,
    Size,
    State,
    Step,
    Stride,
    Together,
    Trace,
    Unit,
    size_value,
)
from .render import CUDA, Renderer
from .threads import Known, Threads, ended, routine, shared_loops
from .weights import (
    LEAST_HELD,
    OTHER_REGISTERS,
    Fragments,
    Layout,
    Weight,
    constant_panels,
    panels,
    together,
    with_own_panels,
)

THREADS = 256  # of a block
CHAIN_THREADS = 128  # of a block whose threads have rows of their own
CHAIN_WORDS = 64  # of 4 bytes: what a thread's states and values may take of its registers
GRANULE = 4  # units that a block has are a multiple of it: 16 bytes
MOST_ROWS = 32  # of a block
FOLD_BYTES = 256  # of shared memory, for sums over a block

BLOCK, BLOCKS = Name("blockIdx.x"), Name("gridDim.x")
LAST = Name("last")


class DoesNotFit(Exception):
    """A loop that has no kernel of a scope, and why."""


@record
class Sized:
    """A loop's program with its integers, by their names."""

    program: LoopProgram
    values: Mapping[str, int]

    @property
    def rows(self) -> str | None:
        """The name of the number of rows that need no other rows."""
        k = self.program.rows_apart
        return None if k is None else self.program.kernel.integers[k].text

    def value(self, size: Any, changed: Mapping[str, int] | None = None) -> int:
        return size_value(size, {**self.values, **(changed or {})})


def launch_of(
    loop: Sized, chain: Sized | None, limits: Limits, scope: str = "", precision: str = "float32"
) -> Launch:
    """The kernel of a loop for its sizes: of this scope where it has one, else of the narrowest
    that holds states and weights. `precision`: of the factors of products with weights that are
    held on chip. Raises DoesNotFit where there is none."""
    if precision in ("bf16", "tf32") and limits.architecture == "sm_75":
        raise DeviceError(
            f"dot_precision {precision!r} needs sm_80, and {limits.name} is an sm_75: "
            "use 'fp16' or 'float32'"
        )
    reasons: dict[str, str] = {}  # against scopes
    ways: list[tuple[str, Callable[[], Launch]]] = [
        ("thread", lambda: _chain(loop, chain, limits)),
        ("block", lambda: _narrow_block(loop, limits, precision)),
        ("grid", lambda: _Blocks(loop, limits, True, precision).launch()),
        ("block", lambda: _Blocks(loop, limits, False, precision).launch()),
    ]
    for way, make in [*(x for x in reversed(ways) if x[0] == scope), *ways]:
        try:
            made = make()
            narrower = [(s, reasons[s]) for s in _NARROWEST_FIRST if s in reasons and s != way]
            return replace(made, against=tuple(narrower))
        except DoesNotFit as e:
            reasons[way] = f"{e}"
    raise DoesNotFit("; ".join(f"not {s}: {why}" for s, why in reasons.items()))


_NARROWEST_FIRST = ("thread", "block", "grid")


def _narrow_block(loop: Sized, limits: Limits, precision: str) -> Launch:
    """A loop for blocks that never wait for each other, and hold the weights."""
    shared = loop.program.units is not None
    if shared and loop.rows is None:
        raise DoesNotFit(loop.program.schedule.reason.partition(", so")[0])
    made = _Blocks(loop, limits, False, precision).launch()
    if shared and any(w.place == "memory" for w in made.weights):
        weights = memory_text(sum(w.size for w in made.weights))
        raise DoesNotFit(f"weights of {weights} do not fit its registers and shared memory")
    return made


# ---- a thread for each row --------------------------------------------------------------------


def _chain(loop: Sized, chain: Sized | None, limits: Limits) -> Launch:
    if chain is None:
        raise DoesNotFit("rows need each other, or a step has a loop or a product with weights")
    program, rows = chain.program, chain.rows
    one = {} if rows is None else {rows: 1}
    words = 0
    for source in program.pointers:
        if isinstance(source, Scratch):
            if rows is None and not isinstance(source.elements, Number):
                raise DoesNotFit("its states have sizes that are not constants")
            size = np.dtype(source.dtype).itemsize
            words += chain.value(source.elements, one) * max(1, size // 4)
    whole = {n.text: loop.value(size) for n, size in _whole_units(loop.program)}
    weights = sum(loop.value(product(s), whole) for s in panels(loop.program.kernel.body).values())
    if words + weights > CHAIN_WORDS:
        held = f"{words} words of state and values"
        held += f" and {weights} of weights" if weights else ""
        raise DoesNotFit(f"{held}, and a thread has {CHAIN_WORDS}")
    threads = min(CHAIN_THREADS, limits.threads_block)
    count = 1 if rows is None else chain.values[rows]
    names: dict[str, Any] = {"first": Number(0)}
    for name, source in zip(program.kernel.integers, program.integers):
        match source:
            case Size() if name.text == rows:
                names[name.text] = Number(1)
            case Size():
                names[name.text] = Number(chain.values[name.text])
            case FirstRow():
                names[name.text] = Name("row")
            case Unit():
                raise DoesNotFit("units are shared")
    parameters, known = _Parameters(chain), Known(names)
    prologue: list[Any] = [Let(Name("row"), Name("gs_thread()"))]
    total: Any = Number(1) if rows is None else parameters.integer(Name("rows"), count)
    prologue.append(If(Name("row") >= total, (Leave(),)))
    threads = min(threads, max(limits.warp, -(-count // limits.warp) * limits.warp))
    grid = -(-count // threads)
    for k, (pointer, source) in enumerate(zip(program.kernel.pointers, program.pointers)):
        array = pointer.array
        if isinstance(source, Scratch):
            prologue.append(Local(array, max(1, chain.value(source.elements, one))))
            continue
        axis = program.row_axes[k]
        alike = rows is not None and axis is None and isinstance(source, Trace | State)
        copies = grid * threads if alike else 1
        parameters.pointer(pointer, Held(source, copies))
        if alike:
            size = known.expression(parameters.size(source))
            prologue.append(Shift(array, binary("mul", Name("row"), size)))
        elif rows is not None and axis is not None:
            apart = known.expression(parameters.stride(source, axis))
            prologue.append(Shift(array, binary("mul", Name("row"), apart)))
    body = _ended(_own_draws(known.statements(program.kernel.body)))
    reason = "its rows need no other rows, so each is one thread's, in registers"
    if rows is None:
        reason = "its states fit one thread's registers"
    made = parameters.launch(
        [*prologue, *body], "thread", reason, grid, threads, 0, names.keys() - {"row"}
    )
    return replace(made, most=tuple(one.items()))


def _own_draws(body: Sequence[Any]) -> Iterator[Any]:
    for s in body:
        match s:
            case Use(name, arguments) if routine(name) == "gs_uniforms":
                yield Use(name.replace("gs_uniforms", "gs_own_uniforms"), arguments)
            case For() | Steps():
                yield replace(s, body=tuple(_own_draws(s.body)))
            case If(condition, inner, other):
                yield If(condition, tuple(_own_draws(inner)), tuple(_own_draws(other)))
            case _:
                yield s


def _ended(body: Any) -> list[Any]:
    """Statements of one thread, which ends when it returns."""
    found: list[Any] = []
    for s in body:
        match s:
            case Return(value):
                found += ended(value)
            case For() | Steps():
                found.append(replace(s, body=tuple(_ended(s.body))))
            case If(condition, inner, other):
                found.append(If(condition, tuple(_ended(inner)), tuple(_ended(other))))
            case _:
                found.append(s)
    return found


# ---- parameters -------------------------------------------------------------------------------


class _Parameters:
    """What a kernel is given, while it is put together."""

    def __init__(self, loop: Sized) -> None:
        self.loop, self.program = loop, loop.program
        self.pointers: list[tuple[Pointer, Any]] = []
        self.integers: list[tuple[Name, Any]] = []

    def pointer(self, pointer: Pointer, held: Held) -> None:
        self.pointers.append((pointer, held))

    def integer(self, name: Name, value: int) -> Name:
        if all(n != name for n, _ in self.integers):
            self.integers.append((name, value))
        return name

    def stride(self, source: Any, axis: int) -> Any:
        """How far apart positions along an axis of an array are, in elements."""
        match source:
            case Given(k):
                for name, s in zip(self.program.kernel.integers, self.program.integers):
                    if s == Stride(k, axis):
                        return name
                return Number(1)
            case Trace(i):
                return product(self.program.rows[i][1][axis:])
            case State(j):
                return product(self.program.carries[j].shape[axis + 1 :])
        raise TypeError(source)

    def size(self, source: Any) -> Any:
        """The elements of a trace or a state."""
        if isinstance(source, State):
            return product(self.program.carries[source.carry].shape)
        return binary("mul", LAST, product(self.program.rows[source.trace][1]))

    def launch(
        self, body: Sequence[Any], scope: str, reason: str, grid: int, block: int, shared: int,
        known: Any, meetings: int = 0,
    ) -> Launch:  # fmt: skip
        pointers = [*self.pointers, (Pointer(Array("done", "int64"), True), Done())]
        integers: list[tuple[Name, Any]] = [(LAST, LoopLength()), *self.integers]
        for name, source in zip(self.program.kernel.integers, self.program.integers):
            if isinstance(source, Step):
                row = product(self.program.rows[source.trace][1])
                integers.append((name, self.loop.value(row)))
            elif name.text not in known and isinstance(source, Size | Stride):
                integers.append((name, self.loop.values[name.text]))
        integers = list(dict(integers).items())
        return _launch(
            self.program.kernel.name, body, pointers, integers,
            (grid, block, shared, scope == "grid"), scope, reason, meetings,
        )  # fmt: skip


def _launch(
    name: str, body: Sequence[Any], pointers: Sequence[tuple[Pointer, Any]],
    integers: Sequence[tuple[Name, Any]], shape: tuple[int, int, int, bool], scope: str,
    reason: str, meetings: int,
) -> Launch:  # fmt: skip
    """The launch of a kernel, whose parameters are those that its text needs."""
    kernel = Kernel(
        name, tuple(p for p, _ in pointers), tuple(n for n, _ in integers), tuple(body), shape[1]
    )
    renderer = Renderer(CUDA)
    used = renderer.used(kernel)
    arguments = [held for p, held in pointers if p.array.name in used]
    arguments += [value for n, value in integers if n.text in used]
    grid, block, shared, cooperative = shape
    return Launch(
        name, renderer.source([kernel]), tuple(arguments), grid, block, shared, cooperative,
        scope, reason, meetings,
    )  # fmt: skip


# ---- blocks -----------------------------------------------------------------------------------


class _Blocks:
    """A loop whose workers are blocks: each with rows of its own, or with units of all rows."""

    def __init__(self, loop: Sized, limits: Limits, by_units: bool, precision: str) -> None:
        self.precision = precision
        self.loop, self.program, self.limits, self.by_units = loop, loop.program, limits, by_units
        self.units: list[int] = []
        if by_units:
            if self.program.units is None:
                raise DoesNotFit("units are not shared")
            self.units = [loop.value(s) for s in self.program.units.sizes]
            most = max((-(-size // GRANULE) for size in self.units), default=1)
            self.grid = max(1, min(limits.multiprocessors, most))
        self.rows = None if by_units else loop.rows
        self.tile = 1
        if not by_units:
            count = 1 if self.rows is None else max(1, loop.values[self.rows])
            each = -(-count // limits.multiprocessors)
            self.tile = min(MOST_ROWS, 1 << (each - 1).bit_length())
            self.grid = 1 if self.rows is None else -(-count // self.tile)
        self.threads = min(THREADS, limits.threads_block)
        self.parameters = _Parameters(loop)
        self.weights: list[Weight] = []  # in registers
        self.registers = min(255, limits.registers_multiprocessor // self.threads)
        self.registers -= OTHER_REGISTERS
        self.partial_bytes: dict[str, int] = {}
        self.partials: dict[str, Array] = {}  # per dtype: sums of warps
        self.prologue: list[Any] = []
        self.placed: list[Placed] = []
        self.names: dict[str, Any] = {"first": Number(0)}
        self.terms: dict[Any, Name] = {}
        # a block has at most these
        self.most = {} if self.rows is None else {self.rows: self.tile}
        for name, source in zip(self.program.kernel.integers, self.program.integers):
            if isinstance(source, Unit):
                at_most = self._most_units(source.size) if by_units else None
                size = self.loop.value(self.program.units.sizes[source.size])  # type: ignore[union-attr]
                self.most[name.text] = 0 if not source.end else (at_most or size)

    def _most_units(self, k: int) -> int:
        granules = -(-self.units[k] // GRANULE)
        return -(-granules // self.grid) * GRANULE

    def launch(self) -> Launch:
        self._integers()
        known = Known(self.names, self.terms)
        self.body = known.statements(self.program.kernel.body)
        self._pointers()
        body = tuple(with_own_panels(self.body, self.weights, self.partials))
        made: Sequence[Any] = Threads(self.by_units).statements(body)
        if self.by_units:
            pairs = list(zip(self.program.kernel.pointers, self.program.pointers))
            inputs = [p.array.name for p, source in pairs if isinstance(source, Given)]
            traces = [p.array.name for p, source in pairs if isinstance(source, Trace)]
            names = [s.name.text for s in self.prologue if isinstance(s, Let)]
            names += [n.text for n in self.program.kernel.integers]
            made = known.statements(made)  # sizes of what is shared out too
            made = known.statements(overlapped(made, inputs, traces, names, self._stage))
        shared = [Use("GS_SHARED", (Name("shared"),))]
        meetings = 0
        if self.by_units and self.program.units is not None:
            meetings = self.program.units.meetings
            times = f"{meetings} time{'s' * (meetings != 1)}"
            reason = f"blocks share its units, and meet {times} a step"
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

    def _integers(self) -> None:
        program, prologue = self.program, self.prologue
        weights = _weight_sizes(program)
        rows = Name(self.rows or "")
        if self.rows is not None:
            total = self.parameters.integer(Name("rows"), self.loop.values[self.rows])
            tile = self.parameters.integer(Name("rows_a_block"), self.tile)
            prologue.append(Let(Name("row"), binary("mul", BLOCK, tile)))
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
                    granules = binary("int_div", size + (GRANULE - 1), Number(GRANULE))
                    if isinstance(size, Number):
                        granules = Number(-(-size.value // GRANULE))
                    worker = BLOCK + 1 if end else BLOCK
                    first = Number(GRANULE) * ((granules * worker) // BLOCKS)
                    whole = isinstance(size, Number) and size.value % GRANULE == 0
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
                    self.parameters.pointer(pointer, Held(source))
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
            layout: Layout | Fragments = Layout(held, wide, len(group), self.threads, source.dtype)
            if self.precision != "float32" and source.dtype == "float32":
                layout = Fragments(held, wide, len(group), self.threads, self.precision)
            if not layout.fits or layout.registers > self.registers:
                continue
            partial = -(-layout.partial_bytes(rows) // 128) * 128
            if 2 * partial > room:
                continue
            self.registers -= layout.registers
            most = self.partial_bytes.get(source.dtype, 0)
            self.partial_bytes[source.dtype] = max(most, partial)
            weight = Weight(group, layout, held)
            self.weights.append(weight)
            array = Array(weight.name, source.dtype)
            clear = Use(f"gs_clear_{'f32' if item == 4 else 'f64'}", (array,))
            self.prologue += [HeldWeight(array, layout.type), clear]
            for p in group:
                self.placed.append(Placed(p, "registers", held * wide * item))
                pointer, scratch, _, one = entries[p]
                packed.remove(entries[p])
                if held < depth:
                    packed.append((pointer, scratch, (depth - held) * wide, one))
            return held * wide * item * len(group)
        return 0

    def _stage(self, staged: Staged) -> bool:
        """Takes shared memory for what goes to or from the device's while blocks meet."""
        size = self.loop.value(staged.elements, self.most) * np.dtype(staged.array.dtype).itemsize
        if self.shared + size > self.limits.shared_block:
            return False
        self.prologue.append(InShared(staged.array, self._place(staged.array.name)))
        self.shared += -(-size // 128) * 128
        return True

    def _place(self, name: str) -> Name:
        """Where in shared memory the next array lies. It follows from the number of rows, which
        the text must not depend on: so it is a parameter."""
        return self.parameters.integer(Name(f"{name}_place"), self.shared)

    def _share(self, scratch: Sequence[Any], place: str = "", other: str = "") -> None:
        """Scratch memory: in shared memory as far as there is room."""
        for pointer, source, elements, one in scratch:
            size = -(-elements * np.dtype(source.dtype).itemsize // 128) * 128
            fits = not one and self.shared + size <= self.limits.shared_block
            if place:
                taken = elements * np.dtype(source.dtype).itemsize
                place_of = place if fits else other
                self.placed.append(Placed(pointer.array.name, place_of, taken))
            if fits:
                self.prologue.append(InShared(pointer.array, self._place(pointer.array.name)))
                self.shared += size
                continue
            copies = 1 if one else self.grid
            held = Held(source, copies, elements, source.dtype)
            self.parameters.pointer(pointer, held)
            if copies > 1:
                apart = self.parameters.integer(Name(f"{pointer.array.name}_apart"), elements)
                self.prologue.append(Shift(pointer.array, binary("mul", BLOCK, apart)))

    def _outside(self, k: int, pointer: Pointer, source: Any) -> None:
        """Memory that the host gives or reads: the block's rows of it; a copy for each block of
        what all would write alike."""
        axis = self.program.row_axes[k]
        known = Known(self.names)
        if self.rows is not None and axis is not None:
            apart = known.expression(self.parameters.stride(source, axis))
            self.prologue.append(Shift(pointer.array, binary("mul", Name("row"), apart)))
        alike = False
        if isinstance(source, Trace | State) and self.grid > 1:
            units = self.program.units
            shared = self.by_units and units is not None and units.one[k]
            alike = not shared and (self.by_units or axis is None)
        self.parameters.pointer(pointer, Held(source, self.grid if alike else 1))
        if alike:
            size = known.expression(self.parameters.size(source))
            self.prologue.append(Shift(pointer.array, binary("mul", BLOCK, size)))


def _bytes(entry: Any) -> int:
    """Of scratch memory."""
    return int(entry[2] * np.dtype(entry[1].dtype).itemsize)


def _whole_units(program: LoopProgram) -> Iterator[tuple[Name, Any]]:
    """Where the units of a worker that has all of them begin and end."""
    for name, source in zip(program.kernel.integers, program.integers):
        if isinstance(source, Unit) and program.units is not None:
            yield name, program.units.sizes[source.size] if source.end else Number(0)


def _weight_sizes(program: LoopProgram) -> set[str]:
    """The sizes of packed operands and of units, which are numbers in the text."""
    found: set[str] = set()
    sizes = [s for pair in panels(program.kernel.body).values() for s in pair]
    for e in [*sizes, *(program.units.sizes if program.units else ())]:
        found |= set(_names(e))
    return found


def _names(e: Any) -> Iterator[str]:
    match e:
        case Name(text):
            yield text
        case Expr():
            for x in (getattr(e, "a", None), getattr(e, "b", None)):
                if x is not None:
                    yield from _names(x)


# ---- nests outside of loops -------------------------------------------------------------------


def nest_launch(program: NestProgram, values: Mapping[str, int], limits: Limits) -> Launch:
    """The kernel of a nest: its positions shared out over the whole grid, or over one block where
    it is one sum."""
    names = {"first": Number(0)}
    body = [s for s in Known(names).statements(program.kernel.body) if not isinstance(s, Return)]
    nests = [s for s in body if isinstance(s, For)]
    threads = min(THREADS, limits.threads_block)
    whole = shared_loops(nests[0], "grid") if len(nests) == 1 and nests[0].fold is None else None
    results = [product(shape) for _, shape in program.shapes]
    count = max([size_value(s, values) for s in results], default=1)
    pointers: list[tuple[Pointer, Any]] = []
    prologue: list[Any] = []
    for pointer, source in zip(program.kernel.pointers, program.pointers):
        elements = size_value(source.elements, values) if isinstance(source, Scratch) else 0
        pointers.append((pointer, Held(source, 1, elements, pointer.array.dtype)))
    pointers.append((Pointer(Array("done", "int64"), True), Done()))
    first = program.shapes[0][1]
    last = size_value(first[0], values) if first else 1
    integers: list[tuple[Name, Any]] = [(LAST, last)]
    integers += [(n, values[n.text]) for n in program.kernel.integers]
    grid, shared = 1, FOLD_BYTES
    if whole is not None:
        per_step = limits.warp if whole.by.endswith("warps") else 1
        most = limits.multiprocessors * max(1, limits.threads_multiprocessor // threads)
        grid = max(1, min(most, -(-count * per_step // threads)))
        made: list[Any] = []
        for s in body:
            made += [whole] if s is nests[0] else _ended([s])
    else:
        prologue = [Use("GS_SHARED", (Name("shared"),))]
        made = list(Threads(False).statements(body))
    return _launch(
        program.kernel.name, [*prologue, *made], pointers, integers,
        (grid, threads, shared, False), "grid" if whole else "block", "", 0,
    )  # fmt: skip
