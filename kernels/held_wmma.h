/* Products of matrices that a block holds in its warps' tensor-core fragments for all steps.
 *
 *     gs_held_wmma<gs_bf16, 1024, 8, 256, 4> weight;
 *     weight.clear();                                                    before the loop
 *     weight.load(part, b, down, right, wide, partial);                  each of the four parts
 *     weight.multiply(rows, a, row, column, stride, partial, c0, c1, c2, c3);         in it
 *
 * As gs_held, of floats, but factors are rounded to PRECISION (gs_fp16; gs_bf16 and gs_tf32 from
 * sm_80 on) before they are multiplied; sums are floats. `partial` is shared memory for
 * partial_elements(rows) floats, at a multiple of 32 bytes. A barrier is the caller's before and
 * behind the loads, multiply and add; multiply and add hold two for each 16 rows.
 *
 * The block rounds 16 rows of a into shared memory; rows and depth that are not there are 0. Each
 * warp multiplies a share of the depth with up to four tiles of 16 columns, and the warps' sums
 * meet in shared memory, in an order that is always the same. */
#ifndef GS_HELD_WMMA_H
#define GS_HELD_WMMA_H

#include "held.h"
#if GS_DEVICE
#include <mma.h>
#else
#include "emulated_wmma.h"
#endif

struct gs_fp16 {
    static constexpr int depth = 16; /* of a tile */
    typedef __half stored;
    typedef __half factor;
    GS_MEMBER static __half round(float x) { return __float2half_rn(x); }
};

#if !GS_DEVICE || !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
struct gs_bf16 {
    static constexpr int depth = 16;
    typedef __nv_bfloat16 stored;
    typedef __nv_bfloat16 factor;
    GS_MEMBER static __nv_bfloat16 round(float x) { return __float2bfloat16_rn(x); }
};

struct gs_tf32 {
    static constexpr int depth = 8;
    typedef float stored;
    typedef nvcuda::wmma::precision::tf32 factor;
    GS_MEMBER static float round(float x) { return nvcuda::wmma::__float_to_tf32(x); }
};
#endif

/* An element as multiply_rounded reads it. */
template <class PRECISION> GS_FN void gs_publish(unsigned short *to, float x) {
    *(typename PRECISION::stored *)to = PRECISION::round(x);
}

template <class PRECISION, int DEPTH, int WIDE, int THREADS, int PARTS = 1> struct gs_held_wmma {
    typedef gs_joined<WIDE, PARTS> Joined;
    typedef typename PRECISION::stored Stored;
    typedef nvcuda::wmma::row_major Rows;
    template <class Use>
    using Fragment = nvcuda::wmma::fragment<Use, 16, 16, PRECISION::depth,
                                            typename PRECISION::factor, Rows>;
    typedef nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, PRECISION::depth, float> Sum;

    static constexpr int K = PRECISION::depth, WARPS = THREADS / 32;
    static constexpr int TILES = gs_ceil_divide(Joined::JOINED, 16);
    static constexpr int ACROSS = gs_power_above(gs_ceil_divide(TILES, 4));
    static constexpr int ALONG = WARPS / ACROSS;
    static constexpr int OWN = gs_ceil_divide(TILES, ACROSS);
    static constexpr int COUNT = gs_ceil_divide(gs_ceil_divide(DEPTH, K), ALONG);
    static constexpr int COLUMNS = ACROSS * OWN * 16;
    /* rows in shared memory are apart by what keeps them from the same banks */
    static constexpr int LONG = ALONG * COUNT * K + 16 / (int)sizeof(Stored);
    static constexpr int STAGED = gs_ceil_divide(16 * LONG * (int)sizeof(Stored), 32) * 8;
    static constexpr int SUMS = 16 * (COLUMNS + 8);
    static_assert(THREADS % 32 == 0 && WARPS % ACROSS == 0, "warps share out the columns");

    struct alignas(16) Held {
        Fragment<nvcuda::wmma::matrix_b> of;
    };
    Held weight[COUNT * OWN];
    Joined joined;

    GS_MEMBER static constexpr long long partial_elements(long long) {
        return STAGED + ALONG * SUMS;
    }

    GS_MEMBER static int across() { return (int)threadIdx.x / 32 % ACROSS; }
    GS_MEMBER static int along() { return (int)threadIdx.x / 32 / ACROSS; }

    GS_MEMBER void clear() {
        joined.clear();
        GS_UNROLL for (int i = 0; i < COUNT * OWN; i++)
            nvcuda::wmma::fill_fragment(weight[i].of, PRECISION::round(0));
    }

    /* A warp rounds a tile at a time into memory of its own. Where other parts have columns in the
     * tile it has zeros, and its bits join theirs. The array goes round as gs_held's does. */
    GS_MEMBER void load(int part, const float *b, long long down, long long right,
                        long long columns, float *partial) {
        joined.set(part, (int)columns);
        Stored *const tile = (Stored *)partial + threadIdx.x / 32 * (K * 16);
        GS_ROLLED for (int at = 0; at < COUNT * OWN; at++) {
            const int first = (along() * COUNT + at / OWN) * K;
            const int column = (across() * OWN + at % OWN) * 16;
            GS_ROLLED for (int e = (int)threadIdx.x % 32; e < K * 16; e += 32) {
                const int k = first + e / 16, j = column + e % 16;
                float x = 0;
                if (k < DEPTH && Joined::has(part, (int)columns, j))
                    x = b[k * down + (j - part * WIDE) * right];
                tile[e] = PRECISION::round(x);
            }
            __syncwarp();
            Held x;
            nvcuda::wmma::load_matrix_sync(x.of, tile, 16);
            __syncwarp();
            GS_UNROLL for (int w = 0; w < (int)sizeof(Held) / 4; w++)
                ((gs_u32 *)&x)[w] |= ((const gs_u32 *)&weight[0])[w];
            GS_UNROLL for (int i = 0; i < COUNT * OWN; i++)
                weight[i] = i + 1 < COUNT * OWN ? weight[i + 1] : x;
        }
    }

    /* What a thread has of 16 rows of a, in vectors: of floats, or of A that are rounded already. It
     * reads some vectors before it needs the first, else it would wait for each; and those of the
     * next 16 rows while it multiplies, where weights leave it the registers. */
    template <bool ROUNDED, class A> struct Taken {
        static constexpr int N = 16 / (int)sizeof(A), PIECES = ALONG * COUNT * K / N;
        static constexpr int EACH = gs_ceil_divide(16 * PIECES, THREADS);
        static constexpr int AT_ONCE = sizeof(Stored) == 4 ? 4 : 6;
        static constexpr bool AHEAD = sizeof(Stored) == 2 && DEPTH % N == 0 && COUNT * OWN <= 16;
        static constexpr int TURNS = gs_ceil_divide(EACH, AT_ONCE);
        static constexpr int OWN_PIECES = gs_ceil_divide(EACH, TURNS);
        struct alignas(16) Vector {
            A at[N];
        };
        Vector of[OWN_PIECES];

        /* Of rows first .. first + 15; those behind the last and what is behind the depth are 0. */
        template <bool WHOLE>
        GS_MEMBER void take(int turn, long long first, long long rows, const A *a, long long row,
                            long long column) {
            GS_UNROLL for (int u = 0; u < OWN_PIECES; u++) {
                const int e = (turn * OWN_PIECES + u) * THREADS + (int)threadIdx.x;
                const int i = e / PIECES, k = e % PIECES * N;
                const A *const from = a + (first + i) * row;
                const bool real = i < 16 && first + i < rows;
                GS_UNROLL for (int v = 0; v < N; v++)
                    if constexpr (ROUNDED) of[u].at[v] = PRECISION::round(0);
                    else of[u].at[v] = 0;
                if constexpr (WHOLE && DEPTH % N == 0) {
                    if (real && k < DEPTH) of[u] = *(const Vector *)(from + k);
                } else
                    GS_UNROLL for (int v = 0; v < N; v++)
                        if (real && k + v < DEPTH) of[u].at[v] = from[(k + v) * column];
            }
        }

        GS_MEMBER void put(int turn, Stored *staged) const {
            struct alignas(N * sizeof(Stored)) Piece {
                Stored at[N];
            };
            GS_UNROLL for (int u = 0; u < OWN_PIECES; u++) {
                const int e = (turn * OWN_PIECES + u) * THREADS + (int)threadIdx.x;
                const int i = e / PIECES, k = e % PIECES * N;
                Piece y;
                GS_UNROLL for (int v = 0; v < N; v++)
                    if constexpr (ROUNDED) y.at[v] = of[u].at[v];
                    else y.at[v] = PRECISION::round(of[u].at[v]);
                if (i < 16) *(Piece *)(staged + i * LONG + k) = y;
            }
        }

        /* Rows first .. first + 15 of a, rounded; the first turn's are taken already, where AHEAD. */
        template <bool WHOLE>
        GS_MEMBER void stage(long long first, long long rows, const A *a, long long row,
                             long long column, Stored *staged) {
            if constexpr (AHEAD) put(0, staged);
            GS_ROLLED for (int turn = AHEAD; turn < TURNS; turn++) {
                take<WHOLE>(turn, first, rows, a, row, column);
                put(turn, staged);
            }
        }
    };

    template <bool ONTO, bool WHOLE, bool ROUNDED, class A>
    GS_MEMBER void tiles(long long rows, const A *a, long long row, long long column,
                           long long stride, float *partial, float *const (&c)[PARTS]) const {
        Stored *const staged = (Stored *)partial;
        float *const sums = partial + STAGED;
        Taken<ROUNDED, A> x;
        if constexpr (x.AHEAD) x.template take<WHOLE>(0, 0, rows, a, row, column);
        GS_ROLLED for (long long first = 0; first < rows; first += 16) {
            x.template stage<WHOLE>(first, rows, a, row, column, staged);
            __syncthreads();
            if constexpr (x.AHEAD)
                if (first + 16 < rows)
                    x.template take<WHOLE>(0, first + 16, rows, a, row, column);
            Sum sum[OWN];
            GS_UNROLL for (int n = 0; n < OWN; n++) nvcuda::wmma::fill_fragment(sum[n], 0.0f);
            GS_UNROLL for (int i = 0; i < COUNT; i++) {
                Fragment<nvcuda::wmma::matrix_a> y;
                nvcuda::wmma::load_matrix_sync(y, staged + (along() * COUNT + i) * K, LONG);
                GS_UNROLL for (int n = 0; n < OWN; n++)
                    nvcuda::wmma::mma_sync(sum[n], y, weight[i * OWN + n].of, sum[n]);
            }
            float *const own = sums + along() * SUMS + across() * OWN * 16;
            GS_UNROLL for (int n = 0; n < OWN; n++)
                nvcuda::wmma::store_matrix_sync(own + n * 16, sum[n], COLUMNS + 8,
                                                nvcuda::wmma::mem_row_major);
            __syncthreads();
            const int real = rows - first < 16 ? (int)(rows - first) : 16;
            GS_ROLLED for (int e = (int)threadIdx.x; e < real * COLUMNS; e += THREADS) {
                const int i = e / COLUMNS, j = e % COLUMNS;
                const float *const from = sums + i * (COLUMNS + 8) + j;
                float total = from[0];
                GS_UNROLL for (int s = 1; s < ALONG; s++) total += from[s * SUMS];
                joined.template put<ONTO>(c, stride, first + i, j, total);
            }
        }
    }

    template <bool ONTO>
    GS_MEMBER void product(long long rows, const float *a, long long row, long long column,
                           long long stride, float *partial, float *const (&c)[PARTS]) const {
        if (column == 1 && (rows == 1 || row % 4 == 0) && gs_is_vector(a))
            tiles<ONTO, true, false>(rows, a, row, 1, stride, partial, c);
        else
            tiles<ONTO, false, false>(rows, a, row, column, stride, partial, c);
    }

    template <class... Of>
    GS_MEMBER void multiply(long long rows, const float *a, long long row, long long column,
                            long long stride, float *partial, Of... c) const {
        static_assert(sizeof...(c) == PARTS, "a result for each part");
        float *const results[PARTS] = {c...};
        product<false>(rows, a, row, column, stride, partial, results);
    }

    /* The same where a is rounded already, as gs_publish leaves it: rows of eight elements and more,
     * which follow each other, at multiples of 16 bytes. */
    template <class... Of>
    GS_MEMBER void multiply_rounded(long long rows, const unsigned short *a, long long row,
                                    long long stride, float *partial, Of... c) const {
        static_assert(sizeof...(c) == PARTS, "a result for each part");
        float *const results[PARTS] = {c...};
        tiles<false, true, true>(rows, (const Stored *)a, row, 1, stride, partial, results);
    }

    template <class... Of>
    GS_MEMBER void add(long long rows, const float *a, long long row, long long column,
                       long long stride, float *partial, Of... c) const {
        static_assert(sizeof...(c) == PARTS, "a result for each part");
        float *const results[PARTS] = {c...};
        product<true>(rows, a, row, column, stride, partial, results);
    }
};

#endif
