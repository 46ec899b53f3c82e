/* Products of a matrix that a block holds in its threads' registers for all steps.
 *
 *     gs_held<float, 1024, 32, 256> weight;
 *     weight.load(b, down, right, wide);             before the loop
 *     weight.multiply(rows, a, row, column, c, stride, partial);         in it
 *
 * c[i * stride + j] = sum over k of a[i * row + k * column] * b[k * down + j * right], for the
 * `wide` columns that the block has, at most WIDE. All THREADS threads of the block call together
 * and with the same arguments. `partial` is shared memory for partial_elements(rows) elements. A
 * barrier is the caller's before multiply, for a, and behind it, for c and partial; one is inside.
 *
 * A warp has up to 32 columns and a part of the depth. In it eight lanes share the depth, vector by
 * vector, and four the columns; so a thread reads a vector of a for all its columns, and what a
 * warp reads at once lies together. The lanes' sums meet in shuffles, the warps' in `partial`, in
 * an order that is always the same. Every index of the register array is a constant. */
#ifndef GS_HELD_H
#define GS_HELD_H

#include "device.h"

GS_FN constexpr int gs_ceil_divide(int a, int b) { return (a + b - 1) / b; }

/* The largest power of two that is at most `most` and divides n. */
GS_FN constexpr int gs_power_in(int n, int most) {
    int p = 1;
    while (2 * p <= most && n % (2 * p) == 0) p *= 2;
    return p;
}

GS_FN constexpr int gs_power_above(int n) {
    int p = 1;
    while (p < n) p *= 2;
    return p;
}

template <class T, int DEPTH, int WIDE, int THREADS, int ROWS = 4> struct gs_held {
    static constexpr int V = gs_vector<T>::size;
    static constexpr int WARPS = THREADS / 32;
    static constexpr int LANES = 8, GROUPS = 4; /* of a warp, over depth and over columns */
    static constexpr int VECTORS = gs_ceil_divide(DEPTH, V);
    /* warps over columns, over the depth, and over rows where the depth is short */
    static constexpr int ACROSS = gs_power_above(gs_ceil_divide(WIDE, 32));
    static constexpr int ALONG =
        gs_power_in(WARPS / ACROSS, gs_power_above(gs_ceil_divide(VECTORS, LANES)));
    static constexpr int APART = WARPS / ACROSS / ALONG;
    static constexpr int OWN = gs_ceil_divide(WIDE, ACROSS * GROUPS); /* columns of a thread */
    static constexpr int SLICES = LANES * ALONG;
    static constexpr int COUNT = gs_ceil_divide(VECTORS, SLICES); /* vectors of a thread */
    static constexpr int COLUMNS = ACROSS * GROUPS * OWN;
    static constexpr bool EVEN = DEPTH % (V * SLICES) == 0;
    static constexpr int LEFT = OWN % 8 == 0 ? OWN / 8 : OWN % 4 == 0 ? OWN / 4
                              : OWN % 2 == 0 ? OWN / 2 : OWN; /* of OWN sums, behind the shuffles */
    static_assert(THREADS % 32 == 0 && WARPS % ACROSS == 0, "warps share out the columns");

    T weight[COUNT * V][OWN];
    int wide;

    GS_MEMBER static constexpr long long partial_elements(long long rows) {
        return ALONG == 1 ? 0 : rows * ALONG * COLUMNS;
    }

    GS_MEMBER static int warp() { return (int)threadIdx.x / 32; }
    GS_MEMBER static int lane_along() { return (int)threadIdx.x % 32 / GROUPS; }
    GS_MEMBER static int across() { return warp() % ACROSS; }
    GS_MEMBER static int along() { return warp() / ACROSS % ALONG; }
    GS_MEMBER static int apart() { return warp() / ACROSS / ALONG; }

    /* The position of vector number i of a thread. */
    GS_MEMBER static int position(int i) {
        return (along() * LANES + lane_along() + i * SLICES) * V;
    }

    /* The column that a thread has in place n. Lanes that give each other sums have them in such
     * an order that each keeps the first half and gives the second. */
    GS_MEMBER static int column_of(int n) {
        int first = 0, count = OWN;
        GS_UNROLL for (int bit = LANES / 2; bit; bit /= 2) {
            if (count % 2) continue;
            count /= 2;
            const bool given = n >= count, high = (lane_along() & bit) != 0;
            if (given) n -= count;
            first += given != high ? count : 0;
        }
        return (across() * OWN + first + n) * GROUPS + (int)threadIdx.x % GROUPS;
    }

    /* What is behind the depth or the columns is 0. The loop is rolled and each element chosen
     * where it belongs: a compiler that sees all loads at once works out all their addresses
     * first, and there are no registers for them. */
    GS_MEMBER void load(const T *b, long long down, long long right, long long columns,
                        T * = nullptr /* what gs_held_wmma needs */) {
        wide = (int)columns;
        GS_UNROLL for (int k = 0; k < COUNT * V; k++)
            GS_UNROLL for (int n = 0; n < OWN; n++) weight[k][n] = 0;
        GS_ROLLED for (int at = 0; at < COUNT * V; at++) {
            const int k = position(at / V) + at % V;
            T x[OWN];
            GS_UNROLL for (int n = 0; n < OWN; n++) {
                const int j = column_of(n);
                x[n] = k < DEPTH && j < wide ? b[k * down + j * right] : T(0);
            }
            GS_UNROLL for (int i = 0; i < COUNT * V; i++)
                GS_UNROLL for (int n = 0; n < OWN; n++)
                    weight[i][n] = i == at ? x[n] : weight[i][n];
        }
    }

    /* A vector of a row; behind the depth nothing is read. */
    template <bool WHOLE>
    GS_MEMBER static gs_vector<T> part(const T *from, long long column, int i) {
        gs_vector<T> x;
        const int k = position(i);
        if constexpr (WHOLE && EVEN) {
            x = gs_vector_at(from + k);
        } else if constexpr (WHOLE && DEPTH % V == 0) {
            GS_UNROLL for (int v = 0; v < V; v++) x.at[v] = 0;
            if (i < COUNT - 1 || k < DEPTH) x = gs_vector_at(from + k);
        } else {
            GS_UNROLL for (int v = 0; v < V; v++)
                x.at[v] = k + v < DEPTH ? from[(k + v) * column] : T(0);
        }
        return x;
    }

    /* R rows from `first` on; the rows behind the last are the last one's again. */
    template <int R, bool WHOLE>
    GS_MEMBER void tile(long long first, long long rows, const T *a, long long row,
                        long long column, T *c, long long stride, T *partial) const {
        T sum[R][OWN];
        const T *from[R];
        GS_UNROLL for (int r = 0; r < R; r++) {
            from[r] = a + (first + r < rows ? first + r : rows - 1) * row;
            GS_UNROLL for (int n = 0; n < OWN; n++) sum[r][n] = 0;
        }
        GS_UNROLL for (int i = 0; i < COUNT; i++)
            GS_UNROLL for (int r = 0; r < R; r++) {
                const gs_vector<T> x = part<WHOLE>(from[r], column, i);
                GS_UNROLL for (int v = 0; v < V; v++)
                    GS_UNROLL for (int n = 0; n < OWN; n++)
                        sum[r][n] = gs_fma(x.at[v], weight[i * V + v][n], sum[r][n]);
            }
        int twins = 0; /* the bits of lanes that end with the same sums */
        GS_UNROLL for (int bit = LANES / 2, count = OWN; bit; bit /= 2) {
            const int kept = count % 2 ? count : count / 2, given = count - kept;
            if (count % 2) twins |= bit;
            GS_UNROLL for (int r = 0; r < R; r++)
                GS_UNROLL for (int n = 0; n < kept; n++)
                    sum[r][n] += __shfl_xor_sync(0xffffffffu, sum[r][given + n], bit * GROUPS);
            count = kept;
        }
        if (lane_along() & twins) return;
        GS_UNROLL for (int n = 0; n < LEFT; n++) {
            const int j = column_of(n);
            GS_UNROLL for (int r = 0; r < R; r++) {
                if (first + r >= rows) continue;
                if constexpr (ALONG > 1)
                    partial[((first + r) * ALONG + along()) * COLUMNS + j] = sum[r][n];
                else if (j < wide)
                    c[(first + r) * stride + j] = sum[r][n];
            }
        }
    }

    GS_MEMBER void multiply(long long rows, const T *a, long long row, long long column, T *c,
                            long long stride, T *partial) const {
        const bool whole = column == 1 && (rows == 1 || row % V == 0) && gs_is_vector(a);
        if (whole)
            GS_ROLLED for (long long i = apart() * ROWS; i < rows; i += APART * ROWS)
                tile<ROWS, true>(i, rows, a, row, 1, c, stride, partial);
        else
            GS_ROLLED for (long long i = apart(); i < rows; i += APART)
                tile<1, false>(i, rows, a, row, column, c, stride, partial);
        if constexpr (ALONG > 1) {
            __syncthreads();
            GS_ROLLED for (int e = (int)threadIdx.x; e < rows * COLUMNS; e += THREADS) {
                const int i = e / COLUMNS, j = e % COLUMNS;
                const T *from = partial + i * ALONG * COLUMNS + j;
                T sum = from[0];
                GS_UNROLL for (int s = 1; s < ALONG; s++) sum += from[s * COLUMNS];
                if (j < wide) c[i * stride + j] = sum;
            }
        }
    }
};

#endif
