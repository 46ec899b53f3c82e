"""How the workers of a fused loop work together, and why not with fewer meetings."""

from __future__ import annotations

from ..record import record


@record
class Schedule:
    """scope: who meets between the stages of a step. "thread": nobody, since one worker runs the
    loop; "block": nobody, since each worker has rows of the states that need no other rows;
    "grid": all workers, each of which has some units of every row. stages: of a step."""

    scope: str
    stages: int
    reason: str


def schedule(rows: str | None, meetings: int | None, alone: str) -> Schedule:
    """The schedule of a loop. rows: why its rows need each other, None where they do not;
    meetings: in a step, where workers can share its units; alone: why they can't."""
    if meetings is None and rows is None:
        reason = f"rows need no other rows, so threads share them; units are not shared: {alone}"
        return Schedule("block", 1, reason)
    if meetings is None:
        return Schedule("thread", 1, f"one thread: {rows}, and {alone}")
    each = f"meet {meetings} time{'s' * (meetings != 1)} a step"
    stages = max(1, meetings)
    if rows is None:
        reason = "rows need no other rows, so threads share them"
        return Schedule(
            "block", stages, f"{reason}; where rows are few they share units, and {each}"
        )
    return Schedule("grid", stages, f"{rows}, so threads share units, and {each}")
