"""Elementwise maths, the same bits on every device.

Each function is plain IEEE multiply, add, divide, square root, compare, select and integer steps in
a stated order, without contraction; kernels/maths.h takes the same steps. Arguments are arrays or
scalars of float16, float32 or float64, and results have the same dtype and shape (float16 is
computed in float32 and rounded). Ends, zeros' signs and NaN are as C99 says.
"""

from . import circular as _circular
from . import exponential as _exponential
from . import special as _special
from .blocks import elementwise as _elementwise

exp = _elementwise(_exponential.exp_core)
exp2 = _elementwise(_exponential.exp2_core)
expm1 = _elementwise(_exponential.expm1_core)
log = _elementwise(_exponential.log_core)
log2 = _elementwise(_exponential.log2_core)
log10 = _elementwise(_exponential.log10_core)
log1p = _elementwise(_exponential.log1p_core)
tanh = _elementwise(_exponential.tanh_core)
sigmoid = _elementwise(_exponential.sigmoid_core)
softplus = _elementwise(_exponential.softplus_core)
sinh = _elementwise(_exponential.sinh_core)
cosh = _elementwise(_exponential.cosh_core)
arcsinh = _elementwise(_exponential.arcsinh_core)
arccosh = _elementwise(_exponential.arccosh_core)
arctanh = _elementwise(_exponential.arctanh_core)
power = _elementwise(_exponential.power_core)
mod = _elementwise(_exponential.mod_core)
floor_divide = _elementwise(_exponential.floor_divide_core)
sin = _elementwise(_circular.sin_core)
cos = _elementwise(_circular.cos_core)
tan = _elementwise(_circular.tan_core)
arcsin = _elementwise(_circular.arcsin_core)
arccos = _elementwise(_circular.arccos_core)
arctan = _elementwise(_circular.arctan_core)
arctan2 = _elementwise(_circular.arctan2_core)
normal_icdf = _elementwise(_special.normal_icdf_core)
erf = _elementwise(_special.erf_core)
erfc = _elementwise(_special.erfc_core)
erfinv = _elementwise(_special.erfinv_core)
erfcinv = _elementwise(_special.erfcinv_core)
gammaln = _elementwise(_special.gammaln_core)
gamma = _elementwise(_special.gamma_core)
psi = _elementwise(_special.psi_core)
