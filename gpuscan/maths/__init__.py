"""Elementwise maths, the same bits on every device.

Each function is plain IEEE multiply, add, divide, square root, compare, select and integer steps in
a stated order, without contraction; kernels/maths.h takes the same steps. Arguments are arrays or
scalars of float16, float32 or float64, and results have the same dtype and shape (float16 is
computed in float32 and rounded). Ends, zeros' signs and NaN are as C99 says.
"""

from typing import Any

from . import exponential as _exponential
from . import special as _special
from .blocks import elementwise as _elementwise

exp = _elementwise(_exponential.exp_core)
exp2 = _elementwise(_exponential.exp2_core)
expm1 = _elementwise(_exponential.expm1_core)
log = _elementwise(_exponential.log_core)
log1p = _elementwise(_exponential.log1p_core)
tanh = _elementwise(_exponential.tanh_core)
sigmoid = _elementwise(_exponential.sigmoid_core)
softplus = _elementwise(_exponential.softplus_core)
normal_icdf = _elementwise(_special.normal_icdf_core)
