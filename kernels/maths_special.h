/* Read twice by maths.h, for float and for double. gpuscan/maths/special.py is its twin. */

/* AS241 (Wichura 1988) at p = 1/2 + q scale, -log min(p, 1 - p) = tail, p inside (0, 1). tiny:
 * whether |q| may be so, or q be -0. */
GS_FN REAL FN(normal_quantile)(REAL q, REAL scale, REAL tail, int tiny) {
    REAL s = q * scale;
    REAL z = (REAL)0.180625 - s * s;
    int mid = FN(abs)(s) <= (REAL)0.425;
    REAL r = FN(root)(tail);
    int far = r > (REAL)5;
    r = r - (far ? (REAL)5 : (REAL)1.6);
    REAL num = FN(select)(far, FN(poly_normal_far_num)(r), FN(poly_normal_near_num)(r));
    REAL den = FN(select)(far, FN(poly_normal_far_den)(r), FN(poly_normal_near_den)(r));
    num = FN(select)(mid, FN(poly_normal_mid_num)(z) * q * scale, FN(copysign)(num, q));
    den = FN(select)(mid, FN(poly_normal_mid_den)(z), den);
    return tiny ? num / den : FN(quotient)(num, den);
}

GS_FN REAL FN(normal_icdf)(REAL p) {
    REAL y = FN(normal_quantile)(p - (REAL)0.5, (REAL)1, -FN(log)(FN(least)(p, (REAL)1 - p)), 0);
    REAL end = FN(select)(p == 0, -FN(inf)(), FN(select)(p == (REAL)1, FN(inf)(), FN(nan)()));
    return FN(select)((p > 0) & (p < (REAL)1), y, end);
}

GS_FN REAL FN(erfinv)(REAL x) {
    REAL a = FN(abs)(x), tail = T(LN2) - FN(log)((REAL)1 - a);
    REAL y = FN(normal_quantile)(x, (REAL)0.5, tail, 1) * T(SQRT_HALF);
    return a < (REAL)1 ? y : a == (REAL)1 ? FN(copysign)(FN(inf)(), x) : FN(nan)();
}

GS_FN REAL FN(erfcinv)(REAL x) {
    REAL tail = T(LN2) - FN(log)(FN(least)(x, (REAL)2 - x));
    REAL y = FN(normal_quantile)((REAL)1 - x, (REAL)0.5, tail, 1) * T(SQRT_HALF);
    REAL end = x == 0 ? FN(inf)() : x == (REAL)2 ? -FN(inf)() : FN(nan)();
    return (x > 0) & (x < (REAL)2) ? y : end;
}

GS_FN REAL FN(erf_small)(REAL x) { return FN(poly_erf)(x * x) * x + x; }

/* erfc a, a >= 1/2: (1 + 2a) e^(a^2) erfc a is a polynomial in (a - c) / (a + c). */
GS_FN REAL FN(erfc_tail)(REAL a) {
    a = FN(least)(a, T(ERFC_MAX));
    REAL y = FN(poly_erfcx)(FN(quotient)(a - T(ERFCX_A), a + T(ERFCX_A)));
    y = FN(quotient)(y, a + a + (REAL)1);
    REAL high = FN(real)(FN(bits)(a) & ~(((UINT)1 << (FRACTION / 2 + 1)) - 1));
    REAL e = FN(expm1_reduced)(-((a - high) * (a + high)));
    return (y * e + y) * FN(exp)(-(high * high));
}

GS_FN REAL FN(erf)(REAL x) {
    REAL a = FN(abs)(x);
    REAL y = FN(select)(a < (REAL)0.5, FN(erf_small)(a), (REAL)1 - FN(erfc_tail)(a));
    return FN(copysign)(y, x);
}

GS_FN REAL FN(erfc)(REAL x) {
    REAL a = FN(abs)(x), tail = FN(erfc_tail)(a);
    tail = FN(select)(x < 0, (REAL)2 - tail, tail);
    return FN(select)(a < (REAL)0.5, (REAL)1 - FN(erf_small)(x), tail);
}

GS_FN REAL FN(gammaln_positive)(REAL a) {
    int below = a < (REAL)1;
    REAL y = a, product = below ? a : (REAL)1;
    for (int i = 0; i < 5; i++) {
        int down = y >= (REAL)3;
        y = down ? y - (REAL)1 : y;
        product = down ? product * y : product;
    }
    REAL s = below ? a - (REAL)1 : y - (REAL)2, s1 = below ? a : y - (REAL)1;
    REAL small = s * s1 * FN(poly_gammaln)(s);
    REAL logs = FN(log)(a < (REAL)8 ? product : a);
    small = below ? small - logs : small + logs;
    REAL w = (REAL)1 / a;
    REAL large = (a - (REAL)0.5) * (logs - (REAL)1)
                 + (FN(poly_stirling)(w * w) * w + T(STIRLING_LN));
    return a < (REAL)8 ? small : large;
}

GS_FN REAL FN(gammaln)(REAL x) {
    REAL a = FN(abs)(x), y = FN(gammaln_positive)(a);
    REAL mirror = T(LOG_PI) - FN(log)(a) - FN(log)(FN(abs)(FN(sine_pi)(a))) - y;
    mirror = T(FLOOR)(a) == a ? FN(inf)() : mirror;
    y = x < 0 ? mirror : y;
    y = (a == FN(inf)()) | (a == 0) ? FN(inf)() : y;
    return x != x ? FN(nan)() : y;
}

GS_FN REAL FN(gamma_positive)(REAL a) {
    int below = a < (REAL)1;
    REAL y = a, product = (REAL)1;
    for (int i = 0; i < 6; i++) {
        int down = y >= (REAL)2;
        y = down ? y - (REAL)1 : y;
        product = down ? product * y : product;
    }
    REAL s = below ? a : y - (REAL)1;
    REAL small = product / (FN(poly_rgamma)(s) * (below ? a : (REAL)1));
    REAL b = FN(least)(a, T(GAMMA_MAX));
    REAL h = FN(power_of)(b, b * (REAL)0.5 - (REAL)0.25), w = (REAL)1 / b;
    REAL g = h * FN(exp)(-b) * h * T(SQRT_TWO_PI);
    g = g * FN(expm1_reduced)(FN(poly_stirling)(w * w) * w) + g;
    return a < (REAL)8 ? small : g;
}

GS_FN REAL FN(gamma)(REAL x) {
    REAL a = FN(abs)(x), y = FN(gamma_positive)(a);
    REAL mirror = -T(PI) / (a * FN(sine_pi)(a) * y);
    mirror = (T(FLOOR)(a) == a) | (a == FN(inf)()) ? FN(nan)() : mirror;
    /* Near 0, a sin(pi a) would underflow. */
    mirror = a < T(TINY_SQUARE) ? -y : mirror;
    y = x < 0 ? mirror : y;
    y = x == 0 ? FN(copysign)(FN(inf)(), x) : y;
    return x != x ? FN(nan)() : y;
}

GS_FN REAL FN(psi)(REAL x) {
    REAL b = FN(abs)(x), a = x < 0 ? b + (REAL)1 : b, y = a;
    int below = a < (REAL)1;
    REAL num = below ? (REAL)-1 : (REAL)0, den = below ? a : (REAL)1;
    for (int i = 0; i < 6; i++) {
        int down = y >= (REAL)2;
        y = down ? y - (REAL)1 : y;
        num = down ? num * y + den : num;
        den = down ? den * y : den;
    }
    REAL s = below ? a : y - (REAL)1;
    REAL small = (s - (T(PSI_ROOT) - (REAL)1) - T(PSI_ROOT_LOW)) * FN(poly_psi)(s) + num / den;
    REAL w = (REAL)1 / a, w2 = w * w;
    REAL large = FN(log)(a) - w * (REAL)0.5 - FN(poly_psi_tail)(w2) * w2;
    REAL r = a < (REAL)8 ? small : large;
    REAL turned = FN(cosine_pi)(b) / FN(sine_pi)(b) * T(PI) + r;
    turned = (T(FLOOR)(b) == b) | (b == FN(inf)()) ? FN(nan)() : turned;
    r = x < 0 ? turned : r;
    r = x == 0 ? FN(copysign)(FN(inf)(), -x) : r;
    r = x != x ? FN(nan)() : r;
    return x == FN(inf)() ? x : r;
}
