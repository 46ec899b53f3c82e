"""Linear systems and the Cholesky decomposition."""

from __future__ import annotations

from ..ops.decompositions import (
    Cholesky,
    Solve,
    cholesky,
    solve,
    solve_lower_triangular,
    solve_upper_triangular,
)

__all__ = [
    "Cholesky", "Solve", "cholesky", "solve", "solve_lower_triangular", "solve_upper_triangular",
]  # fmt: skip
