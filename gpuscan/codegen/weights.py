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

# Which argument of a routine is the packed operand.
PANEL: Mapping[str, int] = {"gs_pack": 5, "gs_gemm": 6, "gs_gemm_steps": 8}


@record
class Layout:
    """How the threads of a block hold a matrix: kernels/held.h, in the same words."""

    depth: int
    wide: int
    threads: int
    itemsize: int

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
    body: Sequence[Any], held: Mapping[str, Layout], partials: Mapping[str, Array]
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
                    depth, wide, b, down, right, _ = arguments
                    yield Use(f"gs_hold_{suffix}", (own, b, down, right, wide))
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
