/* Read twice by maths.h, for float and for double. gpuscan/maths/exponential.py is its twin. */

GS_FN REAL FN(abs)(REAL x) { return FN(real)(FN(bits)(x) & (((UINT)1 << (WIDTH - 1)) - 1)); }
GS_FN REAL FN(copysign)(REAL x, REAL sign) {
    UINT top = (UINT)1 << (WIDTH - 1);
    return FN(real)((FN(bits)(x) & (top - 1)) | (FN(bits)(sign) & top));
}
GS_FN REAL FN(inf)(void) { return FN(real)((UINT)(2 * BIAS + 1) << FRACTION); }
GS_FN REAL FN(nan)(void) { return FN(real)((UINT)(4 * BIAS + 3) << (FRACTION - 1)); }
GS_FN REAL FN(least)(REAL x, REAL y) { return x > y ? y : x; }
GS_FN REAL FN(most)(REAL x, REAL y) { return x < y ? y : x; }

/* x * 2^k, k given as k + ROUND; two steps, so that denormals round once. */
GS_FN REAL FN(scale)(REAL x, REAL m) {
    UINT u = FN(bits)(m) - (FN(bits)(T(ROUND)) - 2 * (BIAS + 1));
    UINT h = u >> 1;
    REAL y = x * FN(real)((h - 1) << FRACTION);
    return y * FN(real)((u - h - 1) << FRACTION);
}

/* e^r - 1, |r| <= ln2 / 2 */
GS_FN REAL FN(expm1_reduced)(REAL r) { return FN(poly_exp)(r) * r * r + r; }

GS_FN REAL FN(reduce_ln2)(REAL x, REAL m) {
    REAL k = m - T(ROUND);
    return x - k * T(LN2_HIGH) - k * T(LN2_LOW);
}

/* EXP_MIN <= x <= EXP_MAX */
GS_FN REAL FN(exp_inside)(REAL x) {
    REAL m = x * T(LOG2E) + T(ROUND);
    return FN(scale)(FN(expm1_reduced)(FN(reduce_ln2)(x, m)) + (REAL)1, m);
}

GS_FN REAL FN(exp)(REAL x) {
    return FN(exp_inside)(FN(most)(FN(least)(x, T(EXP_MAX)), T(EXP_MIN)));
}

GS_FN REAL FN(exp2)(REAL x) {
    x = FN(most)(FN(least)(x, T(EXP2_MAX)), T(EXP2_MIN));
    REAL m = x + T(ROUND);
    return FN(scale)(FN(expm1_reduced)((x - (m - T(ROUND))) * T(LN2)) + (REAL)1, m);
}

/* EXPM1_MIN <= x <= EXP_MAX; of 0 it is +0 */
GS_FN REAL FN(expm1_inside)(REAL x) {
    REAL m = x * T(LOG2E) + T(ROUND);
    REAL e = FN(expm1_reduced)(FN(reduce_ln2)(x, m));
    REAL s = FN(real)((FN(bits)(m) - (FN(bits)(T(ROUND)) - (BIAS - 1))) << FRACTION);
    REAL y = e * s + (s - (REAL)0.5);
    return FN(abs)(x) < (REAL)0.25 ? e : y + y;
}

GS_FN REAL FN(expm1)(REAL x) {
    REAL y = FN(expm1_inside)(FN(most)(FN(least)(x, T(EXP_MAX)), T(EXPM1_MIN)));
    return x == 0 ? x : y;
}

/* k of x = 2^k (1 + f), 1 + f in [sqrt(1/2), sqrt(2)); and f. x > 0 finite. */
GS_FN UINT FN(log_bits)(REAL x) {
    UINT one = (UINT)BIAS << FRACTION;
    return FN(bits)(x < T(TINY) ? x * T(LIFT) : x) + (one - FN(bits)(T(SQRT_HALF)));
}
GS_FN REAL FN(log_exponent)(REAL x) {
    REAL two = FN(real)((UINT)(BIAS + FRACTION) << FRACTION);
    REAL k = FN(real)((FN(log_bits)(x) >> FRACTION) | FN(bits)(two)) - (two + (REAL)BIAS);
    return x < T(TINY) ? k - T(LIFT_BITS) : k;
}
GS_FN REAL FN(log_fraction)(REAL x) {
    UINT u = FN(log_bits)(x) & (((UINT)1 << FRACTION) - 1);
    return FN(real)(u + FN(bits)(T(SQRT_HALF))) - (REAL)1;
}

/* s (f^2/2 + R): log(1 + f) = f - (f^2/2 - s (f^2/2 + R)), as fdlibm has it. */
GS_FN REAL FN(log_tail)(REAL f) {
    REAL s = FN(quotient)(f, f + (REAL)2);
    REAL z = s * s;
    return (FN(poly_log)(z) * z + f * (REAL)0.5 * f) * s;
}

/* y, with what log has at 0, below 0, at inf and NaN. */
GS_FN REAL FN(log_ends)(REAL x, REAL y) {
    REAL end = FN(select)(x == 0, -FN(inf)(), FN(select)(x < 0, FN(nan)(), x));
    return FN(select)((x > 0) & (x < FN(inf)()), y, end);
}

GS_FN REAL FN(log)(REAL x) {
    REAL k = FN(log_exponent)(x), f = FN(log_fraction)(x);
    REAL y = FN(log_tail)(f) + k * T(LN2_LOW);
    return FN(log_ends)(x, k * T(LN2_HIGH) - (f * (REAL)0.5 * f - y - f));
}

GS_FN REAL FN(log1p)(REAL x) {
    REAL u = x + (REAL)1;
    /* Of so large a u that the quotient is none, it is too small to change the sum. */
    REAL c = FN(quotient)(x >= (REAL)1 ? (REAL)1 - (u - x) : x - (u - (REAL)1), u);
    REAL k = FN(log_exponent)(u), f = FN(log_fraction)(u);
    REAL y = FN(log_tail)(f) + (c + k * T(LN2_LOW));
    y = FN(log_ends)(u, k * T(LN2_HIGH) - (f * (REAL)0.5 * f - y - f));
    return FN(abs)(x) < T(TINY) ? x : y;
}

/* log(1 + f) in two parts, the first of few bits: log2 and log10 multiply it exactly. */
GS_FN REAL FN(log_high)(REAL f) {
    UINT mask = ~(((UINT)1 << (FRACTION / 2 + 1)) - 1);
    return FN(real)(FN(bits)(f - f * (REAL)0.5 * f) & mask);
}
GS_FN REAL FN(log_low)(REAL f, REAL high) {
    return f - high - f * (REAL)0.5 * f + FN(log_tail)(f);
}

GS_FN REAL FN(log2)(REAL x) {
    REAL k = FN(log_exponent)(x), f = FN(log_fraction)(x);
    REAL high = FN(log_high)(f), low = FN(log_low)(f, high);
    REAL a = high * T(LOG2E_HIGH);
    REAL b = (low + high) * T(LOG2E_LOW) + low * T(LOG2E_HIGH);
    REAL w = k + a;
    return FN(log_ends)(x, b + (k - w + a) + w);
}

GS_FN REAL FN(log10)(REAL x) {
    REAL k = FN(log_exponent)(x), f = FN(log_fraction)(x);
    REAL high = FN(log_high)(f), low = FN(log_low)(f, high);
    REAL a = high * T(LOG10E_HIGH), c = k * T(LOG10_2_HIGH);
    REAL b = (low + high) * T(LOG10E_LOW) + low * T(LOG10E_HIGH) + k * T(LOG10_2_LOW);
    REAL w = c + a;
    return FN(log_ends)(x, b + (c - w + a) + w);
}

GS_FN REAL FN(sigmoid)(REAL x) {
    REAL e = FN(exp_inside)(FN(most)(-FN(abs)(x), T(EXP_MIN)));
    return FN(quotient)(x >= 0 ? (REAL)1 : e, e + (REAL)1);
}

GS_FN REAL FN(tanh)(REAL x) {
    REAL a = FN(least)(FN(abs)(x), T(TANH_MAX));
    REAL e = FN(expm1_inside)(a + a);
    return FN(copysign)(FN(quotient)(e, e + (REAL)2), x);
}

/* log1p of e^-|x|, in [0, 1]: no ends to look after. */
GS_FN REAL FN(softplus)(REAL x) {
    REAL e = FN(exp)(-FN(abs)(x)), u = e + (REAL)1;
    REAL c = FN(quotient)(e - (u - (REAL)1), u);
    REAL k = FN(log_exponent)(u), f = FN(log_fraction)(u);
    REAL y = FN(log_tail)(f) + (c + k * T(LN2_LOW));
    return k * T(LN2_HIGH) - (f * (REAL)0.5 * f - y - f) + (x > 0 ? x : (REAL)0);
}

/* e^a / 2, where e^a may overflow. */
GS_FN REAL FN(half_exp)(REAL a) {
    REAL h = FN(exp)(a * (REAL)0.5);
    return h * (REAL)0.5 * h;
}

GS_FN REAL FN(sinh)(REAL x) {
    REAL a = FN(abs)(x), e = FN(exp)(a), z = a * a;
    REAL y = e * (REAL)0.5 - (REAL)0.5 / e;
    y = a > T(EXP_MAX) - (REAL)1 ? FN(half_exp)(a) : y;
    y = a <= (REAL)1 ? FN(poly_sinh)(z) * z * a + a : y;
    return FN(copysign)(y, x);
}

GS_FN REAL FN(cosh)(REAL x) {
    REAL a = FN(abs)(x), e = FN(exp)(a);
    REAL y = e * (REAL)0.5 + (REAL)0.5 / e;
    return a > T(EXP_MAX) - (REAL)1 ? FN(half_exp)(a) : y;
}

GS_FN REAL FN(arcsinh)(REAL x) {
    REAL a = FN(abs)(x), z = a * a;
    REAL big = FN(log)(a) + T(LN2);
    REAL y = FN(log1p)(z / (T(SQRT)(z + (REAL)1) + (REAL)1) + a);
    return FN(copysign)(a > T(BIG) ? big : y, x);
}

GS_FN REAL FN(arccosh)(REAL x) {
    REAL t = x - (REAL)1;
    REAL y = FN(log1p)(T(SQRT)(t * t + (t + t)) + t);
    y = x > T(BIG) ? FN(log)(x) + T(LN2) : y;
    return x < (REAL)1 ? FN(nan)() : y;
}

GS_FN REAL FN(arctanh)(REAL x) {
    REAL a = FN(abs)(x);
    return FN(copysign)(FN(log1p)((a + a) / ((REAL)1 - a)) * (REAL)0.5, x);
}

/* a b = p + this, p = a * b rounded (Dekker). */
GS_FN REAL FN(product_error)(REAL a, REAL b, REAL p) {
    REAL c = a * T(SPLIT), d = b * T(SPLIT);
    REAL ah = c - (c - a), bh = d - (d - b);
    REAL al = a - ah, bl = b - bh;
    return ah * bh - p + ah * bl + al * bh + al * bl;
}

/* |x|^y, x finite, not 0; log |x| and its product with y in two parts. */
GS_FN REAL FN(power_of)(REAL a, REAL y) {
    y = FN(most)(FN(least)(y, T(POWER_MAX)), -T(POWER_MAX));
    REAL k = FN(log_exponent)(a), f = FN(log_fraction)(a);
    REAL d = f + (REAL)2, low = f - (d - (REAL)2);
    REAL s = FN(quotient)(f, d), p = s * d;
    REAL tail = FN(quotient)(f - p - FN(product_error)(s, d, p) - s * low, d);
    /* w + rest = s^3 P(s^2), whose first term needs two parts too. */
    REAL z = s * s;
    REAL rest = FN(product_error)(s, s, z) + (s + s) * tail;
    REAL q = FN(poly_log_rest)(z) * z, c = q + T(LOG_CUBE);
    low = T(LOG_CUBE) - c + q + T(LOG_CUBE_LOW);
    q = z * c;
    rest = FN(product_error)(z, c, q) + z * low + rest * c;
    REAL w = s * q;
    rest = FN(product_error)(s, q, w) + s * rest + tail * q;
    rest = rest + (tail + tail) + k * T(LN2_LOW);
    REAL big = k * T(LN2_HIGH), twice = s + s;
    REAL h = big + twice;
    low = twice - (h - big);
    REAL high = h + w;
    low = low + (w - (high - h)) + rest;
    h = high + low;
    low = low - (h - high);
    high = h;
    p = high * y;
    REAL e = FN(product_error)(high, y, p) + low * y;
    e = FN(abs)(p) > -T(EXP_MIN) ? (REAL)0 : e;
    p = FN(most)(FN(least)(p, T(EXP_MAX)), T(EXP_MIN));
    REAL m = p * T(LOG2E) + T(ROUND);
    return FN(scale)(FN(expm1_reduced)(FN(reduce_ln2)(p, m) + e) + (REAL)1, m);
}

GS_FN REAL FN(power)(REAL x, REAL y) {
    REAL a = FN(abs)(x), half = y * (REAL)0.5;
    REAL r = FN(power_of)(a, y);
    int whole = T(FLOOR)(y) == y, odd = whole & (T(FLOOR)(half) != half);
    r = a == 0 ? (y < 0 ? FN(inf)() : (REAL)0) : r;
    r = a == FN(inf)() ? (y < 0 ? (REAL)0 : FN(inf)()) : r;
    r = (x < 0) & (a < FN(inf)()) & !whole ? FN(nan)() : r;
    r = odd ? FN(copysign)(r, x) : r;
    r = (x != x) | (y != y) ? FN(nan)() : r;
    return (y == 0) | (x == (REAL)1) ? (REAL)1 : r;
}

/* Python's %: fmod, then the divisor's sign. */
GS_FN REAL FN(mod)(REAL a, REAL b) {
    REAL r = T(FMOD)(a, b);
    REAL shifted = (b < 0) != (r < 0) ? r + b : r;
    r = r != 0 ? shifted : FN(copysign)((REAL)0, b);
    return b == 0 ? FN(nan)() : r;
}

GS_FN REAL FN(floor_divide)(REAL a, REAL b) {
    REAL r = T(FMOD)(a, b), q = (a - r) / b;
    q = (r != 0) & ((b < 0) != (r < 0)) ? q - (REAL)1 : q;
    REAL f = T(FLOOR)(q);
    f = q - f > (REAL)0.5 ? f + (REAL)1 : f;
    f = q != 0 ? f : FN(copysign)((REAL)0, a / b);
    return b == 0 ? a / b : f;
}
