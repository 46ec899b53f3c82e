/* A product of two whole matrices, for a device whose library has none: a tile of the result for
 * each block. A vendor's is several times as fast. */
#ifndef GS_MATMUL_H
#define GS_MATMUL_H

#include "device.h"

#define GS_MATMUL_TILE 32    /* rows, and columns, of the result that a block has */
#define GS_MATMUL_DEPTH 8    /* of the operands, in shared memory at a time */
#define GS_MATMUL_THREADS 64 /* of a block: each has every eighth row and column of the tile */
#define GS_MATMUL_SHARED (2 * GS_MATMUL_TILE * GS_MATMUL_DEPTH) /* elements */

/* c[i, j] = sum over k, in order, of a[i, k] * b[k, j] by multiply-add; c is in row-major order, of
 * a and b the strides are given; blockIdx.x counts the tiles of c, a row of tiles after the other. */
template <class T>
GS_FN void gs_matmul(long long rows, long long wide, long long depth, const T *a, long long a_row,
                     long long a_column, const T *b, long long b_row, long long b_column, T *c,
                     T *shared) {
    constexpr int TILE = GS_MATMUL_TILE, DEPTH = GS_MATMUL_DEPTH, SIDE = 8, OWN = TILE / SIDE;
    T *const x = shared, *const y = shared + TILE * DEPTH;
    const long long across = (wide + TILE - 1) / TILE;
    const long long row = blockIdx.x / across * TILE, column = blockIdx.x % across * TILE;
    const int own_row = (int)threadIdx.x / SIDE, own_column = (int)threadIdx.x % SIDE;
    T sum[OWN][OWN];
    GS_UNROLL for (int r = 0; r < OWN; r++)
        GS_UNROLL for (int s = 0; s < OWN; s++) sum[r][s] = 0;
    GS_ROLLED for (long long first = 0; first < depth; first += DEPTH) {
        GS_UNROLL for (int e = 0; e < TILE * DEPTH; e += GS_MATMUL_THREADS) {
            const int i = e + (int)threadIdx.x;
            const long long m = row + i / DEPTH, p = first + i % DEPTH;
            const long long q = first + i / TILE, n = column + i % TILE;
            x[i] = m < rows && p < depth ? a[m * a_row + p * a_column] : T(0);
            y[i] = q < depth && n < wide ? b[q * b_row + n * b_column] : T(0);
        }
        __syncthreads();
        const int left = depth - first < DEPTH ? (int)(depth - first) : DEPTH;
        GS_ROLLED for (int k = 0; k < left; k++)
            GS_UNROLL for (int r = 0; r < OWN; r++)
                GS_UNROLL for (int s = 0; s < OWN; s++)
                    sum[r][s] = gs_fma(x[(own_row + SIDE * r) * DEPTH + k],
                                       y[k * TILE + own_column + SIDE * s], sum[r][s]);
        __syncthreads();
    }
    GS_UNROLL for (int r = 0; r < OWN; r++)
        GS_UNROLL for (int s = 0; s < OWN; s++) {
            const long long m = row + own_row + SIDE * r, n = column + own_column + SIDE * s;
            if (m < rows && n < wide) c[m * wide + n] = sum[r][s];
        }
}

#endif
