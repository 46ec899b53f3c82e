"""Where a block keeps what it multiplies with in every step: in its threads' registers, in shared
memory, or, where neither has room, in the device's memory, to be read again in each step."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..record import record, replace
from .kernel import Array, For, If, Number, Steps, Use
from .threads import routine

LANES, GROUPS = 8, 4  # of a warp, as kernels/held.h has them
VECTOR = 16  # bytes
# registers of a thread: where weights take no more, eight rows are read at once; for one weight
# kernels/held.h sees to it
EIGHT_ROWS = 80
LEAST_HELD = 1024  # elements: fewer are as well in shared memory
# registers of a thread: where weights take as many, there are none for rows on their way, which go
# by shared memory then: on an H100 that halves such a product's time, and adds a tenth to others'
STAGED_FROM = 128
OTHER_REGISTERS = 103  # of a thread, for all but weights


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


# Which argument of a routine is the packed operand.
PANEL: Mapping[str, int] = {"gs_pack": 5, "gs_gemm": 6, "gs_gemm_steps": 8}


PRECISIONS = ("float32", "tf32", "bf16", "fp16")  # of a product's factors; sums are float32


@record
class Fragments:
    """How the warps of a block hold a matrix in tensor cores' fragments: kernels/held_wmma.h."""

    depth: int
    wide: int
    parts: int
    threads: int
    precision: str

    @property
    def columns(self) -> int:
        return self.wide * self.parts

    @property
    def itemsize(self) -> int:
        return 4 if self.precision == "tf32" else 2

    @property
    def _tile(self) -> int:
        return 8 if self.precision == "tf32" else 16  # of the depth

    @property
    def across(self) -> int:
        return 1 << (-(-self.columns // 64) - 1).bit_length()

    @property
    def fits(self) -> bool:
        warps = self.threads // 32
        return warps % self.across == 0 and self.across <= warps

    @property
    def along(self) -> int:
        return self.threads // 32 // self.across

    @property
    def own(self) -> int:
        return _ceil(_ceil(self.columns, 16), self.across)

    @property
    def count(self) -> int:
        return _ceil(_ceil(self.depth, self._tile), self.along)

    @property
    def registers(self) -> int:
        """Of a thread."""
        return self.count * self.own * 4  # a fragment has 128 elements of tf32, or 256

    @property
    def others(self) -> int:
        """Registers that a product takes beside them, more than those of float32 do."""
        return 40 if self.precision == "tf32" else 0

    def partial_bytes(self, rows: int) -> int:
        """Of shared memory, for 16 rows of the other factor and the warps' sums."""
        long = self.along * self.count * self._tile + 16 // self.itemsize
        staged = -(-16 * long * self.itemsize // 32) * 8
        return 4 * (staged + self.along * 16 * (self.across * self.own * 16 + 8))

    @property
    def type(self) -> str:
        sizes = f"{self.depth}, {self.wide}, {self.threads}, {self.parts}"
        return f"gs_held_wmma<gs_{self.precision}, {sizes}>"


@record
class Layout:
    """How the threads of a block hold a matrix: kernels/held.h, in the same words. rows: that are
    multiplied at once, at most. staged: whether rows in the device's memory go by way of shared
    memory."""

    depth: int
    wide: int  # columns of each of the parts that are held as one
    parts: int
    threads: int
    dtype: str
    rows: int = 8
    staged: bool = False

    @property
    def columns(self) -> int:
        return self.wide * self.parts

    @property
    def precision(self) -> str:
        return self.dtype

    @property
    def itemsize(self) -> int:
        return 8 if self.dtype == "float64" else 4

    @property
    def type(self) -> str:
        kind = "double" if self.dtype == "float64" else "float"
        sizes = f"{self.depth}, {self.wide}, {self.threads}, {self.parts}"
        if self.staged:
            return f"gs_held<{kind}, {sizes}, {self.rows}, true>"
        return f"gs_held<{kind}, {sizes}{f', {self.rows}' * (self.rows < 8)}>"

    @property
    def across(self) -> int:
        return 1 << (-(-self.columns // 32) - 1).bit_length()

    @property
    def along(self) -> int:
        vectors = -(-self.depth * self.itemsize // VECTOR)
        most = 1 << (-(-vectors // LANES) - 1).bit_length()
        warps, found = self.threads // 32 // self.across, 1
        while 2 * found <= most and warps % (2 * found) == 0:
            found *= 2
        return found

    @property
    def lot(self) -> int:
        """How many rows are staged together."""
        at_once = 4 if self.registers > EIGHT_ROWS else self.rows
        return at_once * (self.threads // 32 // self.across // self.along)

    @property
    def own(self) -> int:
        return -(-self.columns // (self.across * GROUPS))

    others = 0

    @property
    def fits(self) -> bool:
        """Whether warps can share out the columns."""
        return self.threads // 32 % self.across == 0 and self.across <= self.threads // 32

    @property
    def registers(self) -> int:
        """Of a thread, for its part of the matrix."""
        vectors = -(-self.depth * self.itemsize // VECTOR)
        count = -(-vectors // (LANES * self.along))
        return count * (VECTOR // self.itemsize) * self.own * self.itemsize // 4

    def partial_bytes(self, rows: int) -> int:
        """Of shared memory, for the warps' sums of so many rows; or for two lots of rows that are
        staged, and the sums of one."""
        lots = 2 * self.lot * self.depth if self.staged else 0
        rows = self.lot if self.staged else rows
        sums = rows * self.along * self.across * GROUPS * self.own if self.along > 1 else 0
        return (lots + sums) * self.itemsize


def panel_of(s: Use) -> str:
    """The name of a routine's packed operand."""
    panel = s.arguments[PANEL[routine(s.routine)]]
    return str(panel[0].name if isinstance(panel, tuple) else panel.name)


def packings(body: Sequence[Any]) -> Iterator[Use]:
    """Where operands of products are laid out."""
    for s in body:
        match s:
            case Use(name) if routine(name) == "gs_pack":
                yield s
            case For(body=inner) | Steps(inner):
                yield from packings(inner)
            case If(_, inner, other):
                yield from packings([*inner, *other])


def panels(body: Sequence[Any]) -> dict[str, tuple[Any, Any]]:
    """Per packed operand its depth and its columns, as expressions."""
    return {panel_of(s): (s.arguments[0], s.arguments[1]) for s in packings(body)}


def constant_panels(body: Sequence[Any]) -> dict[str, list[Use]]:
    """The packed operands that do not change in the loop, and the products with each."""
    found: dict[str, list[Use]] = {
        panel_of(s): [] for s in body if isinstance(s, Use) and routine(s.routine) == "gs_pack"
    }

    def visit(statements: Sequence[Any]) -> None:
        for s in statements:
            match s:
                case Use(name) if routine(name) in PANEL and panel_of(s) in found:
                    if routine(name) == "gs_gemm":
                        found[panel_of(s)].append(s)
                    elif routine(name) == "gs_gemm_steps":
                        del found[panel_of(s)]
                case For(body=inner) | Steps(inner):
                    visit(inner)
                case If(_, inner, other):
                    visit([*inner, *other])

    visit(body)
    return found


@record
class Weight:
    """What a block multiplies with in every step: packed operands whose products read the same
    rows, one after another, and how many of their rows registers hold (the depth, or what there is
    room for)."""

    panels: tuple[str, ...]
    layout: Layout | Fragments
    depth: int

    @property
    def name(self) -> str:
        return f"{self.panels[0]}_held"


def together(body: Sequence[Any]) -> list[tuple[str, ...]]:
    """The packed operands that do not change in the loop, those together whose products follow
    each other and read the same rows, as those of an LSTM's gates do."""
    products = constant_panels(body)
    found: list[tuple[str, ...]] = []
    taken: set[str] = set()

    def same(s: Use) -> Any:
        rows, wide, depth, a, row, column, _, _, stride = s.arguments
        return s.routine, rows, wide, depth, a, row, column, stride

    def visit(statements: Sequence[Any]) -> None:
        run: list[Use] = []
        for s in [*statements, None]:
            alone = isinstance(s, Use) and routine(s.routine) == "gs_gemm"
            alone = alone and len(products.get(panel_of(s), ())) == 1
            if run and not (alone and same(run[0]) == same(s)):
                found.append(tuple(panel_of(x) for x in run))
                run = []
            if alone:
                run.append(s)
            match s:
                case For(body=inner) | Steps(inner):
                    visit(inner)
                case If(_, inner, other):
                    visit(inner)
                    visit(other)

    visit(body)
    for group in found:
        taken |= set(group)
    return [*found, *((p,) for p in products if p not in taken)]


def with_own_panels(
    body: Sequence[Any], weights: Sequence[Weight], partials: Mapping[str, Array],
    near: Collection[str],
) -> Iterator[Any]:  # fmt: skip
    """Statements for a block that has panels of its own, with the columns that it computes; the
    weights are in registers. near: arrays in shared memory."""
    of = {panel: w for w in weights for panel in w.panels}
    products: dict[str, Use] = {}

    def visit(statements: Sequence[Any]) -> Iterator[Any]:
        for s in statements:
            match s:
                case Use(name, arguments) if routine(name) in PANEL:
                    panel, k = panel_of(s), PANEL[routine(name)]
                    own = arguments[k][0] if isinstance(arguments[k], tuple) else arguments[k]
                    s = Use(name, (*arguments[:k], own, *arguments[k + 1 :]))
                    if panel not in of:
                        yield s
                    elif routine(name) == "gs_pack":
                        yield from _held(of[panel], panel, s, partials[own.dtype])
                    else:
                        products[panel] = s
                        if panel == of[panel].panels[-1]:
                            uses = [products[p] for p in of[panel].panels]
                            yield from _multiplied(of[panel], uses, partials[own.dtype], near)
                case For() | Steps():
                    yield replace(s, body=tuple(visit(s.body)))
                case If(condition, inner, other):
                    yield If(condition, tuple(visit(inner)), tuple(visit(other)))
                case _:
                    yield s

    yield from _joined(visit(body))


def _joined(body: Iterable[Any]) -> Iterator[Any]:
    """Statements with products of the same rows and as many columns each as one product, where they
    follow each other: so a thread has several columns to wait for at once."""
    run: list[Use] = []

    def one() -> Iterator[Use]:
        if len(run) < 2:
            yield from run
        else:
            *rows, _, _, stride = run[0].arguments
            pairs = [x for s in run for x in s.arguments[6:8]]
            suffix = run[0].routine.rpartition("_")[2]
            yield Use(f"gs_gemms_{suffix}", (*rows, stride, *pairs))
        run.clear()

    def same(s: Use) -> Any:
        return s.routine, s.arguments[:6], s.arguments[8]

    for s in body:
        plain = isinstance(s, Use) and routine(s.routine) == "gs_gemm"
        if not plain or (run and same(run[0]) != same(s)):
            yield from one()
        match s:
            case Use() if plain:
                run.append(s)
            case For() | Steps():
                yield replace(s, body=tuple(_joined(s.body)))
            case If(condition, inner, other):
                yield If(condition, tuple(_joined(inner)), tuple(_joined(other)))
            case _:
                yield s
    yield from one()


def _held(w: Weight, panel: str, s: Use, partial: Array) -> Iterator[Use]:
    """A packed operand's rows in registers, and what is left of them in its panel."""
    suffix, held = s.routine.rpartition("_")[2], Array(w.name, partial.dtype)
    depth, wide, b, down, right, own = s.arguments
    part = Number(w.panels.index(panel))
    yield Use(f"gs_hold_{suffix}", (held, part, b, down, right, wide, partial))
    if (rest := depth - w.depth) != Number(0):
        b = (b[0], b[1] + down * w.depth)
        yield Use(s.routine, (rest, wide, b, down, right, own))


def _multiplied(
    w: Weight, uses: Sequence[Use], partial: Array, near: Collection[str]
) -> Iterator[Use]:
    suffix, held = uses[0].routine.rpartition("_")[2], Array(w.name, partial.dtype)
    rows, wide, depth, a, row, column, _, _, stride = uses[0].arguments
    results = [s.arguments[7] for s in uses]
    staged = isinstance(w.layout, Layout) and w.layout.staged and a[0].name not in near
    how = "gs_multiply_far" if staged else "gs_multiply"
    yield Use(f"{how}_{suffix}", (held, rows, a, row, column, stride, partial, *results))
    if (rest := depth - w.depth) == Number(0):
        return
    a = (a[0], a[1] + column * w.depth)
    for s, c in zip(uses, results):
        operands = (rows, wide, rest, a, row, column, s.arguments[6], c, stride)
        yield Use(f"gs_gemm_onto_{suffix}", operands)
