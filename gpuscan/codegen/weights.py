"""Where a block keeps what it multiplies with in every step: in its threads' registers, in shared
memory, or, where neither has room, in the device's memory, to be read again in each step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..record import record, replace
from .kernel import Array, For, If, Steps, Use
from .threads import routine

LANES, GROUPS = 8, 4  # of a warp, as kernels/held.h has them
VECTOR = 16  # bytes
LEAST_HELD = 1024  # elements: fewer are as well in shared memory
OTHER_REGISTERS = 95  # of a thread, for all but weights


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
    threads: int
    precision: str

    @property
    def _tile(self) -> int:
        return 8 if self.precision == "tf32" else 16  # of the depth

    @property
    def across(self) -> int:
        return 1 << (-(-self.wide // 64) - 1).bit_length()

    @property
    def fits(self) -> bool:
        warps = self.threads // 32
        return warps % self.across == 0 and self.across <= warps

    @property
    def along(self) -> int:
        return self.threads // 32 // self.across

    @property
    def own(self) -> int:
        return _ceil(_ceil(self.wide, 16), self.across)

    @property
    def count(self) -> int:
        return _ceil(_ceil(self.depth, self._tile), self.along)

    @property
    def registers(self) -> int:
        """Of a thread: a fragment of 16 bits has every element twice."""
        return self.count * self.own * (4 if self.precision == "tf32" else 8)

    def partial_bytes(self, rows: int) -> int:
        """Of shared memory, for 16 rows of the other factor and the warps' sums."""
        size = 4 if self.precision == "tf32" else 2
        long = self.along * self.count * self._tile + 16 // size
        staged = -(-16 * long * size // 32) * 8
        return 4 * (staged + self.along * 16 * (self.across * self.own * 16 + 8))

    @property
    def type(self) -> str:
        return f"gs_held_wmma<gs_{self.precision}, {self.depth}, {self.wide}, {self.threads}>"


@record
class Layout:
    """How the threads of a block hold a matrix: kernels/held.h, in the same words."""

    depth: int
    wide: int
    threads: int
    dtype: str

    @property
    def itemsize(self) -> int:
        return 8 if self.dtype == "float64" else 4

    @property
    def type(self) -> str:
        kind = "double" if self.dtype == "float64" else "float"
        return f"gs_held<{kind}, {self.depth}, {self.wide}, {self.threads}>"

    @property
    def across(self) -> int:
        return 1 << (-(-self.wide // 32) - 1).bit_length()

    @property
    def along(self) -> int:
        vectors = -(-self.depth * self.itemsize // VECTOR)
        most = 1 << (-(-vectors // LANES) - 1).bit_length()
        warps, found = self.threads // 32 // self.across, 1
        while 2 * found <= most and warps % (2 * found) == 0:
            found *= 2
        return found

    @property
    def own(self) -> int:
        return -(-self.wide // (self.across * GROUPS))

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
        """Of shared memory, for the warps' sums of so many rows."""
        if self.along == 1:
            return 0
        return rows * self.along * self.across * GROUPS * self.own * self.itemsize


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


def with_own_panels(
    body: Sequence[Any], held: Mapping[str, Layout | Fragments], partials: Mapping[str, Array]
) -> Iterator[Any]:
    """Statements for a block that has panels of its own, with the columns that it computes; those
    that are `held` are in registers."""
    for s in body:
        match s:
            case Use(name, arguments) if routine(name) in PANEL:
                panel, suffix = panel_of(s), name.rpartition("_")[2]
                k = PANEL[routine(name)]
                own = arguments[k][0] if isinstance(arguments[k], tuple) else arguments[k]
                if panel not in held:
                    yield Use(name, (*arguments[:k], own, *arguments[k + 1 :]))
                elif routine(name) == "gs_pack":
                    _, wide, b, down, right, _ = arguments
                    staged = (partials[own.dtype],) if isinstance(held[panel], Fragments) else ()
                    yield Use(f"gs_hold_{suffix}", (own, b, down, right, wide, *staged))
                else:
                    rows, _, _, a, row, column, _, c, stride = arguments
                    sums = partials[own.dtype]
                    yield Use(f"gs_multiply_{suffix}", (own, rows, a, row, column, c, stride, sums))
            case For() | Steps():
                yield replace(s, body=tuple(with_own_panels(s.body, held, partials)))
            case If(condition, inner, other):
                yield If(
                    condition,
                    tuple(with_own_panels(inner, held, partials)),
                    tuple(with_own_panels(other, held, partials)),
                )
            case _:
                yield s
