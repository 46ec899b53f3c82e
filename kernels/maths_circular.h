/* Read twice by maths.h, for float and for double. gpuscan/maths/circular.py is its twin. */

/* A pair, since a reduction has two results. */
#define GS_ANGLE GS_JOIN(gs_angle, _, SUFFIX)
typedef struct {
    REAL r;
    UINT n;
} GS_ANGLE;

/* a = n pi/2 + r modulo 2 pi (Payne, Hanek): m 2^e times the bits of 2 / pi. */
GS_RARE GS_ANGLE FN(reduce_large)(REAL a) {
    UINT u = FN(bits)(a), one = (UINT)1 << FRACTION;
    UINT m = (u & (one - 1)) | one;
    /* Bits above the weight 2 only add whole turns, so the window starts at bit e - 1. */
    UINT e = u >> FRACTION, least = BIAS + FRACTION + 2 - WIDTH;
    UINT at = e > least ? e - least : 0;
    gs_u32 word = (gs_u32)(at / WIDTH), shift = (gs_u32)(at % WIDTH);
    UINT t0, t1, t2, t3, w0, w1, w2, low, carry, high;
    /* Reading for an infinite a must stay inside the table. */
    word = word < 2 * BIAS / WIDTH / 2 + 2 ? word : 2 * BIAS / WIDTH / 2 + 1;
    t0 = FN(two_over_pi)[word];
    t1 = FN(two_over_pi)[word + 1];
    t2 = FN(two_over_pi)[word + 2];
    t3 = FN(two_over_pi)[word + 3];
    /* Twice, since a shift by the whole width is undefined. */
    w0 = (t0 << shift) | ((t1 >> 1) >> (WIDTH - 1 - shift));
    w1 = (t1 << shift) | ((t2 >> 1) >> (WIDTH - 1 - shift));
    w2 = (t2 << shift) | ((t3 >> 1) >> (WIDTH - 1 - shift));
    low = m * w1;
    carry = FN(mulhi)(m, w2);
    low += carry;
    high = m * w0 + FN(mulhi)(m, w1) + (low < carry);
    UINT n = high >> (WIDTH - 2);
    high = (high << 2) | (low >> (WIDTH - 2));
    low = low << 2;
    UINT up = high >> (WIDTH - 1);
    high ^= (UINT)0 - up;
    low ^= (UINT)0 - up;
    UINT half = ((UINT)1 << (WIDTH / 2)) - 1;
    REAL unit = (REAL)1 / (REAL)((UINT)1 << (WIDTH / 2));
    REAL r = (REAL)(INT)(high >> (WIDTH / 2)) * unit;
    r = r + (REAL)(INT)(high & half) * (unit * unit);
    r = r + (REAL)(INT)(low >> (WIDTH / 2)) * (unit * unit * unit);
    r = r * T(HALF_PI);
    GS_ANGLE angle;
    angle.r = up ? -r : r;
    angle.n = (n + up) & 3;
    return angle;
}

/* r in [-pi/4, pi/4] and n: |x| = n pi/2 + r (Cody, Waite). */
GS_FN GS_ANGLE FN(reduce_circle)(REAL x) {
    REAL a = FN(abs)(x), m = a * T(TWO_OVER_PI) + T(ROUND), k = m - T(ROUND);
    GS_ANGLE angle;
    angle.r = a - k * T(HALF_PI_1) - k * T(HALF_PI_2) - k * T(HALF_PI_3) - k * T(HALF_PI_4);
    angle.n = FN(bits)(m) & 3;
#if WIDTH == 32 && !defined(__CUDACC__) && !defined(__CUDACC_RTC__)
    /* Without a branch, so that loops vectorise. */
    GS_ANGLE large = FN(reduce_large)(a);
    angle.r = a > T(REDUCE_MAX) ? large.r : angle.r;
    angle.n = a > T(REDUCE_MAX) ? large.n : angle.n;
#else
    if (a > T(REDUCE_MAX)) angle = FN(reduce_large)(a);
#endif
    angle.r = a < FN(inf)() ? angle.r : FN(nan)();
    return angle;
}

GS_FN REAL FN(sine)(REAL r) {
    REAL z = r * r;
    return FN(poly_sin)(z) * z * r + r;
}

/* 1 - z/2 loses bits; they are put back. */
GS_FN REAL FN(cosine)(REAL r) {
    REAL z = r * r, h = z * (REAL)0.5, w = (REAL)1 - h;
    return FN(poly_cos)(z) * z * z + ((REAL)1 - w - h) + w;
}

GS_FN REAL FN(sine_at)(REAL r, UINT n) {
    REAL y = FN(select)(n & 1, FN(cosine)(r), FN(sine)(r));
    return FN(real)(FN(bits)(y) ^ (((n >> 1) & 1) << (WIDTH - 1)));
}

GS_FN REAL FN(sin)(REAL x) {
    GS_ANGLE angle = FN(reduce_circle)(x);
    return FN(sine_at)(angle.r, angle.n ^ ((FN(bits)(x) >> (WIDTH - 1)) << 1));
}

GS_FN REAL FN(cos)(REAL x) {
    GS_ANGLE angle = FN(reduce_circle)(x);
    return FN(sine_at)(angle.r, angle.n + 1);
}

GS_FN REAL FN(tan)(REAL x) {
    GS_ANGLE angle = FN(reduce_circle)(x);
    REAL s = FN(sine)(angle.r), c = FN(cosine)(angle.r);
    REAL y = (angle.n & 1 ? -c : s) / (angle.n & 1 ? s : c);
    return FN(real)(FN(bits)(y) ^ (FN(bits)(x) & ((UINT)1 << (WIDTH - 1))));
}

/* pi a = n pi/2 + r modulo 2 pi; a >= 0 finite, exact up to the product with pi. */
GS_FN GS_ANGLE FN(half_turns)(REAL a) {
    REAL q = a - T(FLOOR)(a * (REAL)0.5) * (REAL)2;
    REAL m = q * (REAL)2 + T(ROUND);
    GS_ANGLE angle;
    angle.r = (q - (m - T(ROUND)) * (REAL)0.5) * T(PI);
    angle.n = FN(bits)(m) & 3;
    return angle;
}

GS_FN REAL FN(sine_pi)(REAL a) {
    GS_ANGLE angle = FN(half_turns)(a);
    return FN(sine_at)(angle.r, angle.n);
}

GS_FN REAL FN(cosine_pi)(REAL a) {
    GS_ANGLE angle = FN(half_turns)(a);
    return FN(sine_at)(angle.r, angle.n + 1);
}

/* arctan z, or arctan 1/z, for z in [0, 1]. */
GS_FN REAL FN(arctan_ratio)(REAL z, int inverse) {
    int mid = z > T(TAN_PI_8);
    z = mid ? (z - (REAL)1) / (z + (REAL)1) : z;
    REAL w = z * z, y = FN(poly_atan)(w) * w * z + z;
    y = mid ? y + T(HALF_PI_LOW) * (REAL)0.5 + T(QUARTER_PI) : y;
    return inverse ? T(HALF_PI) - (y - T(HALF_PI_LOW)) : y;
}

GS_FN REAL FN(arctan)(REAL x) {
    REAL a = FN(abs)(x);
    int inverse = a > (REAL)1;
    return FN(copysign)(FN(arctan_ratio)(inverse ? (REAL)1 / a : a, inverse), x);
}

GS_FN REAL FN(arctan2)(REAL y, REAL x) {
    REAL a = FN(abs)(y), b = FN(abs)(x);
    int inverse = a > b;
    REAL num = inverse ? b : a, den = inverse ? a : b;
    REAL z = den == 0 ? num : num / den;
    REAL r = FN(arctan_ratio)(num == FN(inf)() ? (REAL)1 : z, inverse);
    r = FN(bits)(x) >> (WIDTH - 1) ? T(PI) - (r - T(PI_LOW)) : r;
    r = (x != x) | (y != y) ? FN(nan)() : r;
    return FN(copysign)(r, y);
}

/* arcsin a, z = a^2 <= 1/4. */
GS_FN REAL FN(arcsin_small)(REAL a) {
    int big = a > (REAL)0.5;
    REAL z = big ? ((REAL)1 - a) * (REAL)0.5 : a * a;
    a = big ? T(SQRT)(z) : a;
    return FN(poly_asin)(z) * z * a + a;
}

GS_FN REAL FN(arcsin)(REAL x) {
    REAL a = FN(abs)(x), y = FN(arcsin_small)(a);
    return FN(copysign)(a > (REAL)0.5 ? T(HALF_PI) - (y + y - T(HALF_PI_LOW)) : y, x);
}

GS_FN REAL FN(arccos)(REAL x) {
    REAL a = FN(abs)(x), y = FN(arcsin_small)(a), twice = y + y;
    int below = FN(bits)(x) >> (WIDTH - 1) ? 1 : 0;
    REAL flat = T(HALF_PI) - ((below ? -y : y) - T(HALF_PI_LOW));
    REAL steep = below ? T(PI) - (twice - T(PI_LOW)) : twice;
    return a > (REAL)0.5 ? steep : flat;
}

#undef GS_ANGLE
