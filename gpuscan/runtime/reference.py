"""The reference device: every op by its NumPy meaning, loops interpreted step by step. It needs
no compiler, and it is the definition of what every other device computes."""

from __future__ import annotations

from collections.abc import Sequence

from ..evaluate import Program
from ..graph import Variable


class Reference:
    """NumPy on the host."""

    name = "reference"

    def compile(self, inputs: Sequence[Variable], outputs: Sequence[Variable]) -> Program:
        return Program(inputs, outputs)
