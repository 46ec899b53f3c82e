/* Products of matrices that a block holds in its threads' registers for all steps.
 *
 *     gs_held<float, 1024, 8, 256, 4> weight;
 *     weight.clear();                                                    before the loop
 *     weight.load(part, b, down, right, wide, partial);                  each of the four parts
 *     weight.multiply(rows, a, row, column, stride, partial, c0, c1, c2, c3);         in it
 *
 * c0[i * stride + j] = sum over k of a[i * row + k * column] * b[k * down + j * right], for the
 * `wide` columns that the block has of part 0, at most WIDE, and so on: matrices that the same rows
 * are multiplied with are held as one, of PARTS * WIDE columns. `add` adds to what c0 ... hold. All
 * THREADS threads of the block call together and with the same arguments. `partial` is shared
 * memory for partial_elements(rows) elements. A barrier is the caller's before multiply and add,
 * for a, and behind it, for c and partial; one is inside.
 *
 * A warp has up to 32 columns and a share of the depth. In it eight lanes share the depth, vector
 * by vector, and four the columns; so a thread reads a vector of a for all its columns, and what a
 * warp reads at once lies together. The lanes' sums meet in shuffles, the warps' in `partial`, in
 * an order that is always the same. Every index of the register array is a constant.
 *
 * Where a is far, in the device's memory, multiply_far does what multiply does for a type with STAGED:
 * rows are on their way into shared memory while the rows before them are multiplied, where
 * multiply would wait for each lot. `partial` has room for two lots then. */
#ifndef GS_HELD_H
#define GS_HELD_H

#include "grid.h"

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

/* Where the columns of several matrices are that are held as one. */
template <int WIDE, int PARTS> struct gs_joined {
    static constexpr int JOINED = WIDE * PARTS;
    int wide[PARTS]; /* how many columns of each are real */

    GS_MEMBER void clear() {
        GS_UNROLL for (int p = 0; p < PARTS; p++) wide[p] = 0;
    }

    GS_MEMBER void set(int part, int columns) {
        GS_UNROLL for (int p = 0; p < PARTS; p++) wide[p] = p == part ? columns : wide[p];
    }

    /* Whether column j is real, and of this part, which has so many. */
    GS_MEMBER static bool has(int part, int columns, int j) {
        return j >= part * WIDE && j < part * WIDE + columns;
    }

    /* Column j of row i becomes, or has added, x where it is real. */
    template <bool ONTO, class T>
    GS_MEMBER void put(T *const (&c)[PARTS], long long stride, long long i, int j, T x) const {
        const int part = j / WIDE, place = j % WIDE;
        int real = wide[0];
        T *to = c[0];
        GS_UNROLL for (int p = 1; p < PARTS; p++) {
            real = part == p ? wide[p] : real;
            to = part == p ? c[p] : to;
        }
        if (part >= PARTS || place >= real) return;
        to += i * stride + place;
        *to = ONTO ? *to + x : x;
    }
};

template <class T, int DEPTH, int WIDE, int THREADS, int PARTS = 1, int MOST = 8,
          bool STAGED = false>
struct gs_held {
    typedef gs_joined<WIDE, PARTS> Joined;
    static constexpr int V = gs_vector<T>::size;
    static constexpr int WARPS = THREADS / 32;
    static constexpr int LANES = 8, GROUPS = 4; /* of a warp, over depth and over columns */
    static constexpr int VECTORS = gs_ceil_divide(DEPTH, V);
    /* warps over columns, over the depth, and over rows where the depth is short */
    static constexpr int ACROSS = gs_power_above(gs_ceil_divide(Joined::JOINED, 32));
    static constexpr int ALONG =
        gs_power_in(WARPS / ACROSS, gs_power_above(gs_ceil_divide(VECTORS, LANES)));
    static constexpr int APART = WARPS / ACROSS / ALONG;
    /* columns of a thread */
    static constexpr int OWN = gs_ceil_divide(Joined::JOINED, ACROSS * GROUPS);
    static constexpr int SLICES = LANES * ALONG;
    static constexpr int COUNT = gs_ceil_divide(VECTORS, SLICES); /* vectors of a thread */
    static constexpr int COLUMNS = ACROSS * GROUPS * OWN;
    static constexpr bool EVEN = DEPTH % (V * SLICES) == 0;
    static constexpr int LEFT = OWN % 8 == 0 ? OWN / 8 : OWN % 4 == 0 ? OWN / 4
                              : OWN % 2 == 0 ? OWN / 2 : OWN; /* of OWN sums, behind the shuffles */
    /* rows at once: more where weights leave the registers, for a thread waits for each lot */
    static constexpr int ROWS = MOST > 4 && COUNT * V * OWN * (int)sizeof(T) > 320 ? 4 : MOST;
    static constexpr int LOT = ROWS * APART; /* rows that are staged together */
    static_assert(THREADS % 32 == 0 && WARPS % ACROSS == 0, "warps share out the columns");
    static_assert(!STAGED || DEPTH % V == 0, "what is staged is whole vectors");

    T weight[COUNT * V][OWN];
    Joined joined;

    GS_MEMBER static constexpr long long partial_elements(long long rows) {
        if (STAGED) return 2 * LOT * DEPTH + (ALONG == 1 ? 0 : LOT * ALONG * COLUMNS);
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

    GS_MEMBER void clear() {
        joined.clear();
        GS_UNROLL for (int k = 0; k < COUNT * V; k++)
            GS_UNROLL for (int n = 0; n < OWN; n++) weight[k][n] = 0;
    }

    /* Columns of a part; what is behind them and behind the depth stays 0. The loop is rolled, and
     * the array goes round by an element in each of its steps: a compiler that sees all loads at
     * once works out all their addresses first, and there are no registers for them. */
    GS_MEMBER void load(int part, const T *b, long long down, long long right, long long columns,
                        T * /* what gs_held_wmma needs */) {
        joined.set(part, (int)columns);
        GS_ROLLED for (int at = 0; at < COUNT * V; at++) {
            const int k = position(at / V) + at % V;
            T x[OWN];
            GS_UNROLL for (int n = 0; n < OWN; n++) {
                const int j = column_of(n);
                x[n] = weight[0][n];
                if (k < DEPTH && Joined::has(part, (int)columns, j))
                    x[n] = b[k * down + (j - part * WIDE) * right];
            }
            GS_UNROLL for (int i = 0; i < COUNT * V; i++)
                GS_UNROLL for (int n = 0; n < OWN; n++)
                    weight[i][n] = i + 1 < COUNT * V ? weight[i + 1][n] : x[n];
        }
    }

    /* A vector of a row; behind the depth nothing is read. */
    template <bool WHOLE>
    GS_MEMBER static gs_vector<T> vector_of(const T *from, long long column, int i) {
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

    /* R rows from number i0 on, of those that a has; the rows behind the last are the last one's
     * again. The first that a has is row number `first` of the result. */
    template <int R, bool WHOLE, bool ONTO>
    GS_MEMBER void tile(long long i0, long long rows, long long first, const T *a, long long row,
                        long long column, long long stride, T *partial,
                        T *const (&c)[PARTS]) const {
        T sum[R][OWN];
        const T *from[R];
        GS_UNROLL for (int r = 0; r < R; r++) {
            from[r] = a + (i0 + r < rows ? i0 + r : rows - 1) * row;
            GS_UNROLL for (int n = 0; n < OWN; n++) sum[r][n] = 0;
        }
        GS_UNROLL for (int i = 0; i < COUNT; i++)
            GS_UNROLL for (int r = 0; r < R; r++) {
                const gs_vector<T> x = vector_of<WHOLE>(from[r], column, i);
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
                if (i0 + r >= rows) continue;
                if constexpr (ALONG > 1)
                    partial[((i0 + r) * ALONG + along()) * COLUMNS + j] = sum[r][n];
                else
                    joined.template put<ONTO>(c, stride, first + i0 + r, j, sum[r][n]);
            }
        }
    }

    /* Sums of the warps, of rows from `first` on, as one sum. */
    template <bool ONTO>
    GS_MEMBER void join(long long first, long long rows, long long stride, const T *partial,
                        T *const (&c)[PARTS]) const {
        GS_ROLLED for (int e = (int)threadIdx.x; e < rows * COLUMNS; e += THREADS) {
            const int i = e / COLUMNS, j = e % COLUMNS;
            const T *from = partial + i * ALONG * COLUMNS + j;
            T sum = from[0];
            GS_UNROLL for (int s = 1; s < ALONG; s++) sum += from[s * COLUMNS];
            joined.template put<ONTO>(c, stride, first + i, j, sum);
        }
    }

    /* Rows from `first` on. */
    template <bool ONTO>
    GS_MEMBER void part(long long first, long long rows, const T *a, long long row,
                        long long column, long long stride, T *partial,
                        T *const (&c)[PARTS]) const {
        const bool whole = column == 1 && (rows == 1 || row % V == 0) && gs_is_vector(a);
        a += first * row;
        if (whole && rows == 1) {
            if (apart() == 0) tile<1, true, ONTO>(0, 1, first, a, row, 1, stride, partial, c);
        } else if (whole) {
            long long i = apart() * ROWS;
            GS_ROLLED for (; i < rows - (ROWS > 4 ? 4 : 0); i += APART * ROWS)
                tile<ROWS, true, ONTO>(i, rows, first, a, row, 1, stride, partial, c);
            if (ROWS > 4 && i < rows)
                tile<4, true, ONTO>(i, rows, first, a, row, 1, stride, partial, c);
        } else
            GS_ROLLED for (long long i = apart(); i < rows; i += APART)
                tile<1, false, ONTO>(i, rows, first, a, row, column, stride, partial, c);
        if constexpr (ALONG > 1) {
            __syncthreads();
            join<ONTO>(first, rows, stride, partial, c);
        }
    }

    template <bool ONTO>
    GS_MEMBER void product(long long rows, const T *a, long long row, long long column,
                           long long stride, T *partial, T *const (&c)[PARTS]) const {
        if constexpr (STAGED) {
            T *const sums = partial + 2 * LOT * DEPTH;
            GS_ROLLED for (long long first = 0; first < rows; first += LOT) {
                if (first) __syncthreads();
                part<ONTO>(first, rows - first < LOT ? rows - first : LOT, a, row, column, stride,
                           sums, c);
            }
        } else
            part<ONTO>(0, rows, a, row, column, stride, partial, c);
    }

    /* Starts to copy a lot of rows. */
    GS_MEMBER static void stage(long long first, long long rows, const T *a, long long row,
                                T *staged) {
        constexpr int PIECES = DEPTH / V;
        const int real = rows - first < LOT ? (int)(rows - first) : LOT;
        GS_ROLLED for (int e = (int)threadIdx.x; e < real * PIECES; e += THREADS)
            gs_copy_vector(staged + e * V, a + (first + e / PIECES) * row + e % PIECES * V);
        gs_close_copies();
    }

    /* A lot is on its way while the one before is multiplied. */
    GS_MEMBER void staged_product(long long rows, const T *a, long long row, long long stride,
                                  T *partial, T *const (&c)[PARTS]) const {
        T *const sums = partial + 2 * LOT * DEPTH;
        stage(0, rows, a, row, partial);
        GS_ROLLED for (long long first = 0, odd = 0; first < rows; first += LOT, odd ^= 1) {
            stage(first + LOT, rows, a, row, partial + (odd ^ 1) * (LOT * DEPTH));
            gs_copied_but<1>();
            __syncthreads();
            const T *const staged = partial + odd * (LOT * DEPTH);
            const int real = rows - first < LOT ? (int)(rows - first) : LOT, i = apart() * ROWS;
            if (real == 1) {
                if (i == 0) tile<1, true, false>(0, 1, first, staged, DEPTH, 1, stride, sums, c);
            } else if (i < real - (ROWS > 4 ? 4 : 0))
                tile<ROWS, true, false>(i, real, first, staged, DEPTH, 1, stride, sums, c);
            else if (ROWS > 4 && i < real)
                tile<4, true, false>(i, real, first, staged, DEPTH, 1, stride, sums, c);
            if (ALONG > 1 || first + LOT < rows) __syncthreads();
            if constexpr (ALONG > 1) join<false>(first, real, stride, sums, c);
        }
    }

    template <class... Of>
    GS_MEMBER void multiply(long long rows, const T *a, long long row, long long column,
                            long long stride, T *partial, Of... c) const {
        static_assert(sizeof...(c) == PARTS, "a result for each part");
        T *const results[PARTS] = {c...};
        product<false>(rows, a, row, column, stride, partial, results);
    }

    /* The same where a is in the device's memory. */
    template <class... Of>
    GS_MEMBER void multiply_far(long long rows, const T *a, long long row, long long column,
                                long long stride, T *partial, Of... c) const {
        static_assert(STAGED && sizeof...(c) == PARTS, "a result for each part");
        T *const results[PARTS] = {c...};
        if (column == 1 && (rows == 1 || row % V == 0) && gs_is_vector(a))
            staged_product(rows, a, row, stride, partial, results);
        else
            product<false>(rows, a, row, column, stride, partial, results);
    }

    template <class... Of>
    GS_MEMBER void add(long long rows, const T *a, long long row, long long column,
                       long long stride, T *partial, Of... c) const {
        static_assert(sizeof...(c) == PARTS, "a result for each part");
        T *const results[PARTS] = {c...};
        product<true>(rows, a, row, column, stride, partial, results);
    }
};

#endif
