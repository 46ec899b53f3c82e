/* What a whole grid does with an array, between two loops. */
#ifndef GS_ROUTINES_H
#define GS_ROUTINES_H

#include "persistent.h"

/* rows[i] = rows[i] * size + at[i], without what was there where this is the `first` of a row's
 * positions. One below 0 counts from the end; one that is none of `size` breaks off. */
template <class T>
GS_FN void gs_grid_places(long long *rows, const T *at, long long *done, long long count,
                          long long size, long long first) {
    for (long long i = gs_thread(); i < count; i += gs_threads()) {
        const long long given = (long long)at[i], k = given < 0 ? given + size : given;
        const bool none = k < 0 || k >= size;
        if (none) gs_break(done);
        rows[i] = (first ? 0 : rows[i] * size) + (none ? 0 : k);
    }
}

/* out[i] = x[rows[i]] for i = 0 .. count - 1, rows of `wide` elements. */
template <class T>
GS_FN void gs_grid_gather(T *out, const T *x, const long long *rows, long long count,
                          long long wide) {
    for (long long k = gs_thread(); k < count * wide; k += gs_threads())
        out[k] = x[rows[k / wide] * wide + k % wide];
}

/* out[rows[i]] += y[i] for i = 0 .. count - 1. A warp has some columns of those rows that are its
 * share, of as many as a power of two says, and goes through all i: so each sum has its order. It
 * keeps what it adds to while the row is the same, and reads some of y ahead. */
template <class T>
GS_FN void gs_grid_scatter(T *out, const T *y, const long long *rows, long long count,
                           long long wide, long long shares) {
    constexpr int AHEAD = 32 / sizeof(T);
    const int lane = threadIdx.x % GS_WARP;
    const long long groups = (wide + GS_WARP - 1) / GS_WARP, warps = gs_threads() / GS_WARP;
    for (long long part = gs_thread() / GS_WARP; part < shares * groups; part += warps) {
        const long long share = part / groups, column = part % groups * GS_WARP + lane;
        const bool is_real = column < wide;
        long long held = -1;
        T sum = 0;
        for (long long first = 0; first < count; first += GS_WARP) {
            const long long row = first + lane < count ? rows[first + lane] : -1;
            const bool is_mine = row >= 0 && (row & (shares - 1)) == share;
            unsigned left = __ballot_sync(GS_ALL_LANES, is_mine);
            while (left) {
                T terms[AHEAD];
                int from[AHEAD];
                GS_UNROLL for (int a = 0; a < AHEAD; a++) {
                    from[a] = left ? __ffs((int)left) - 1 : -1;
                    left &= left - 1;
                    if (from[a] >= 0 && is_real) terms[a] = y[(first + from[a]) * wide + column];
                }
                GS_UNROLL for (int a = 0; a < AHEAD; a++) {
                    if (from[a] < 0) break;
                    const long long to = __shfl_sync(GS_ALL_LANES, row, from[a]);
                    if (to != held) {
                        if (held >= 0 && is_real) out[held * wide + column] = sum;
                        held = to;
                        if (is_real) sum = out[held * wide + column];
                    }
                    if (is_real) sum += terms[a];
                }
            }
        }
        if (held >= 0 && is_real) out[held * wide + column] = sum;
    }
}

/* The `count` elements of a view of four axes go to those of another, or (ADD) are added there: n1 ..
 * n3 are the sizes of all axes but the first, s0 .. s3 the strides of what is read, t0 .. t3 of what
 * is written, where no two elements share a place. */
template <bool ADD, class T>
GS_FN void gs_grid_elements(const T *from, T *to, long long count, long long n1, long long n2,
                            long long n3, long long s0, long long s1, long long s2, long long s3,
                            long long t0, long long t1, long long t2, long long t3) {
    for (long long i = gs_thread(); i < count; i += gs_threads()) {
        const long long row = i / n3, plane = row / n2;
        const long long i0 = plane / n1, i1 = plane % n1, i2 = row % n2, i3 = i % n3;
        const T x = from[i0 * s0 + i1 * s1 + i2 * s2 + i3 * s3];
        T *const y = to + (i0 * t0 + i1 * t1 + i2 * t2 + i3 * t3);
        *y = ADD ? (T)(*y + x) : x;
    }
}

#endif
